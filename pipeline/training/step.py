"""One step of training.  Nothing in it makes the host wait for the device.

On CUDA a step is captured once as a graph and then replayed, because at batch 128 launching its kernels one by
one takes longer than running them.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import BadData, UsageError
from pipeline.model import resnet
from pipeline.model.resnet import ResNet
from pipeline.recipes import TrainConfig
from pipeline.store.runs import Run, RunCard
from pipeline.training.device import ALONE, Device, World
from pipeline.training.inference import logits
from pipeline.training.optim import set_rate
from pipeline.training.state import State

# --- Networks that teach another one: distillation from finished runs.


class Teachers:
    """Answers with the mean of the networks' probabilities, on the very images that the student sees.

    The same crop for both is what makes distillation work (Beyer et al. 2021, arXiv:2106.05237).
    """

    def __init__(self, networks: Sequence[nn.Module], temperature: float, device: Device) -> None:
        self._networks = [network.to(device.torch_device).eval() for network in networks]
        self._temperature, self._device = temperature, device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 32, 32, 3), 0..255 -> probabilities float32 (B, 10) at the temperature."""
        answers = [softmax(logits(n, images, self._device) / self._temperature, 1) for n in self._networks]
        return torch.stack(answers).mean(0)


def network(run: Run, card: RunCard) -> ResNet:
    """The network of a finished run that may teach the run of `card`.

    Raises:
        BadData: it learned from another competition's images, or its weights are damaged.
        UsageError: it has learned from images that validate the run of `card`.
    """
    if run.card.data != card.data:
        raise BadData(f"--teacher {run.name} was trained on other data than {card.competition}'s: choose another run")
    theirs, ours = run.card.config, card.config
    same = (theirs.validation, theirs.validation_fraction) == (ours.validation, ours.validation_fraction)
    if ours.validation == "split" and not same:
        raise UsageError(
            f"--teacher {run.name} has learned images that this run would be validated on: train both with the same "
            "--validation and --validation-fraction"
        )
    run.check_weights()
    return resnet.load(run.weights, run.card.config.model)


WARM_UP = 3  # steps before a capture, in which libraries choose their algorithms and allocate


def summed_loss(output: Tensor, targets: Tensor, config: TrainConfig, taught: Tensor | None = None) -> Tensor:
    """The loss in nats, summed over the images.

    Args:
        output: logits (B, 10).
        targets: labels int64 (B,), or probabilities float32 (B, 10).
        taught: the teachers' probabilities (B, 10) at the temperature of `config`, or None.

    With teachers: (1 - weight) * cross entropy + weight * T**2 * KL divergence (Hinton et al. 2015, arXiv:1503.02531).
    """
    loss = cross_entropy(output, targets, label_smoothing=config.label_smoothing, reduction="sum")
    if taught is None:
        return loss
    heat = config.distillation_temperature
    divergence = kl_div(log_softmax(output / heat, 1), taught, reduction="sum") * heat**2
    return torch.lerp(loss, divergence, config.distillation_weight)


class Step:
    """Trains `state` on one batch after the other."""

    def __init__(
        self, state: State, config: TrainConfig, device: Device, teachers: Teachers | None = None, world: World = ALONE
    ) -> None:
        self._state, self._config, self._device = state, config, device
        self._teachers, self._world = teachers, world
        self._graphs: dict[torch.Size, _Graph] = {}
        self._captures = device.torch_device.type == "cuda" and world.alone
        state.network.dropout = config.dropout
        if device.compiled:
            torch._dynamo.reset()  # else many runs in one process (a sweep) reach its limit of recompilations
            state.network.compile(dynamic=False)
        self._network: nn.Module = state.network if world.alone else DistributedDataParallel(state.network)

    def __call__(self, images: Tensor, targets: Tensor, rate: float) -> None:
        """One step at the learning rate `rate`.

        Args:
            images: the whole batch (B, 32, 32, 3), 0..255, on the device; each process works on its share.
            targets: int64 (B,), or float32 (B, 10).
        """
        state = self._state
        set_rate(state.optimizer, rate)
        work = self._captured(images, targets) if self._captures else self._work
        if self._config.dropout:
            self._seed_dropout()
        work(images, targets)
        state.step += 1
        state.updates += 1

    def _work(self, images: Tensor, targets: Tensor) -> None:
        state, batch = self._state, len(images)
        images, targets = images[self._world.share], targets[self._world.share]
        output = logits(self._forward(batch), images, self._device)
        taught = None if self._teachers is None else self._teachers(images)
        loss = summed_loss(output, targets, self._config, taught)
        state.optimizer.zero_grad(set_to_none=True)
        # DistributedDataParallel takes the mean over processes; multiplied, that is the whole batch's gradient.
        torch.autograd.backward(loss * (self._world.size / batch))
        state.optimizer.step()
        if state.averages is not None:
            state.averages.update()
        state.loss_sum += loss.detach()
        state.correct += (output.argmax(1) == (targets if targets.dim() == 1 else targets.argmax(1))).sum()

    def _forward(self, batch: int) -> Callable[[Tensor], Tensor]:
        # An epoch's last batch may be smaller: it takes the network as it is, because compiling it once more for
        # that shape takes as long as the first time.
        smaller = self._device.compiled and self._world.alone and batch != self._config.batch_size
        return self._network.forward if smaller else self._network

    def _seed_dropout(self) -> None:
        """Make the masks a function of the step, so that a resumed run drops what an uninterrupted one drops.

        Each process draws its own: these are the only random numbers that depend on how many there are.
        """
        words = (self._config.seed, self._state.updates, self._world.rank + 1)
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0]))

    def _captured(self, images: Tensor, targets: Tensor) -> Callable[[Tensor, Tensor], None]:
        graph = self._graphs.get(images.shape)
        if graph is None:
            graph = self._graphs[images.shape] = _Graph(self._work, self._state, images, targets)
        return graph.replay


class _Graph:
    """A step on CUDA, captured for one size of batch."""

    def __init__(self, work: Callable[[Tensor, Tensor], None], state: State, images: Tensor, targets: Tensor) -> None:
        self._images, self._targets = images.clone(), targets.clone()
        before = {tensor.data_ptr(): tensor.clone() for tensor in _changing(state)}
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                work(self._images, self._targets)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            work(self._images, self._targets)
        _restore(state, before)

    def replay(self, images: Tensor, targets: Tensor) -> None:
        """Run the step on another batch of the same size."""
        self._images.copy_(images)
        self._targets.copy_(targets)
        self._graph.replay()


def _changing(state: State) -> Iterator[Tensor]:
    """All tensors that a step changes in place."""
    yield from state.network.state_dict().values()
    for moments in state.optimizer.state.values():
        yield from (value for value in moments.values() if isinstance(value, Tensor))
    if state.averages is not None:
        yield from state.averages.state_dict().values()
    yield from (state.loss_sum, state.correct)


@torch.no_grad()
def _restore(state: State, before: dict[int, Tensor]) -> None:
    """Undo the warm-up's steps in place, from copies by address.

    Moments that the optimizer made only then begin at zero, which is what a first step would have begun with.
    """
    for tensor in _changing(state):
        if tensor.data_ptr() in before:
            tensor.copy_(before[tensor.data_ptr()])
        else:
            tensor.zero_()
