"""Which share of the images each corruption explains, if each image has one of its own: by statistics of their pixels.

That is a label shift with corruptions for classes.  A small network learns to tell labelled images with each of them
apart, and the shares are those under which its outputs on the hidden images are likeliest.  One class more is for what
nothing known explains.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.gap.estimators import TINY, Probabilities
from pipeline.gap.shift import label_shift

UNEXPLAINED = 1500  # examples of what nothing known explains
WIDTH, STEPS, BATCH, PEAK_RATE, DECAY = 64, 400, 512, 0.03, 1e-3  # of the network and its training: a second
Statistics = NDArray[np.float64]  # (N, S), in deviations, large ones dampened


def shares(components: Sequence[Statistics], hidden: Statistics) -> tuple[NDArray[np.float64], float]:
    """How large a part of the `hidden` images is like each component, of which the first is clean images.

    Returns:
        Shares of sum 1, (components + 1,), the last of what is like none of them; and by how much an image's
        log-likelihood is larger than if all were clean, in nats.
    """
    known, generator = np.concatenate(components), np.random.default_rng(0)
    # Half of the statistics of one image and half of another's: what may come, put together as it never is.
    one, other = known[generator.integers(len(known), size=(2, UNEXPLAINED))]
    examples = [*components, np.where(generator.random(one.shape) < 0.5, one, other)]
    truth = np.repeat(np.arange(len(examples)), [len(each) for each in examples])
    outputs = _classifier(np.concatenate(examples), truth)
    of_examples, of_hidden = outputs(np.concatenate(examples)), outputs(hidden)
    found = label_shift(of_examples, truth, of_hidden)
    assumed = of_examples.mean(axis=0)
    likelihood = (of_hidden * (found.hidden / assumed)).sum(axis=1)
    gain = float(np.log(likelihood.clip(TINY)).mean() - np.log((of_hidden[:, 0] / assumed[0]).clip(TINY)).mean())
    return found.hidden, gain


def _classifier(examples: Statistics, truth: NDArray[np.integer]) -> Callable[[Statistics], Probabilities]:
    """A network with one hidden layer that tells the classes of the examples apart."""
    import torch  # noqa: PLC0415 - check and submit read what was found, and start without it
    from torch import nn  # noqa: PLC0415

    centre, scale = examples.mean(axis=0), examples.std(axis=0) + 1e-6

    def ready(statistics: Statistics) -> torch.Tensor:
        return torch.from_numpy(((statistics - centre) / scale).astype(np.float32))

    inputs, labels = ready(examples), torch.from_numpy(truth.astype(np.int64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(inputs.shape[1], WIDTH), nn.ReLU(), nn.Linear(WIDTH, int(truth.max()) + 1))
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS)
        for _ in range(STEPS):
            batch = torch.randint(len(inputs), (BATCH,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def outputs(statistics: Statistics) -> Probabilities:
        return np.asarray(network(ready(statistics)).double().softmax(dim=1).numpy())

    return outputs
