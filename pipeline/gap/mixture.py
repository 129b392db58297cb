"""The share of each corruption if every image has one of its own: a label shift with corruptions for classes.

A small classifier learns to tell the corruptions apart on holdout images, by pixel statistics.  The shares are those
that make its outputs on the test images likeliest.  An extra class takes what no known corruption explains.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.gap.estimators import TINY, Probabilities
from pipeline.gap.shift import label_shift

UNEXPLAINED = 1500  # examples of the extra class
WIDTH, STEPS, BATCH, PEAK_RATE, DECAY = 64, 400, 512, 0.03, 1e-3  # of the classifier; training takes a second
Statistics = NDArray[np.float64]  # (N, S), in deviations, large ones dampened


def shares(components: Sequence[Statistics], hidden: Statistics) -> tuple[NDArray[np.float64], float]:
    """The share of the `hidden` images that each component explains; the first component is clean images.

    Returns:
        Shares of sum 1, (components + 1,), the last for unexplained images; and the gain in an image's
        log-likelihood over all images being clean, in nats.
    """
    known, generator = np.concatenate(components), np.random.default_rng(0)
    # Half of the statistics of one image and half of another's: plausible values in impossible combinations.
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
    """A classifier of the examples with one hidden layer."""
    import torch  # noqa: PLC0415 - check and submit read stored results and start without it
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
