"""Labels for images from one network or several: probabilities, averaged over the networks and over their views.

The networks are folded (see pipeline.model.resnet), and compute in bfloat16 only where training has measured that
this leaves their labels as they are.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from pipeline.config import CLASSES
from pipeline.console import Meter
from pipeline.errors import BadData, Log
from pipeline.model import resnet
from pipeline.model.resnet import ResNet, folded, normalise
from pipeline.store.processed import ArrayName, Processed, even_rows
from pipeline.store.runs import Ensemble, Run
from pipeline.store.submissions import Outputs, Tta
from pipeline.training.batches import split
from pipeline.training.device import ALONE, Device, Precision, World

# --- Loss and accuracy of a network on a labelled set.


BATCH = 512  # images; the result does not depend on it beyond rounding


@dataclass(frozen=True)
class Score:
    """Loss: mean cross entropy in nats, without label smoothing.  Accuracy in per cent."""

    loss: float
    accuracy: float


class EvaluationImages:
    """uint8 images (N, 32, 32, 3) with labels (N,), resident on `device`."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], device: torch.device) -> None:
        self.images = torch.tensor(images, device=device)
        self.labels = torch.tensor(labels, device=device)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)


def logits(network: Callable[[Tensor], Tensor], images: Tensor, device: Device) -> Tensor:
    """Float32 logits (B, 10) of images (B, 32, 32, 3), 0..255, that lie on the device."""
    with device.autocast():
        output = network(normalise(images))
    return output.float()


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    data: EvaluationImages,
    device: Device,
    before_batch: Callable[[], None] = lambda: None,
    world: World = ALONE,
) -> Score:
    """Evaluate on all of `data`, each process on its share; `before_batch` may raise to stop early.

    Leaves the network in eval mode.
    """
    network.eval()
    loss = torch.zeros((), device=device.torch_device)
    correct = torch.zeros((), dtype=torch.int64, device=device.torch_device)
    for first in range(0, len(data), BATCH):
        before_batch()
        labels = world.share(data.labels[first : first + BATCH])
        # forward(): a network that was compiled for training is not compiled once more for this.
        output = logits(network.forward, world.share(data.images[first : first + BATCH]), device)
        loss += nn.functional.cross_entropy(output, labels, reduction="sum")
        correct += (output.argmax(1) == labels).sum()
    return Score(world.total(loss).item() / len(data), 100 * world.total(correct).item() / len(data))


# --- Test-time augmentation: the views of an image over which a network's probabilities are averaged.


def views(images: Tensor, tta: Tta) -> list[Tensor]:
    """The views of uint8 images (B, H, W, 3), each of the same shape; the first is always `images` itself.

    "none" has 1 view.  "flip" has 2: the images and their mirror images.  "flip-shift" has 6: these, and both
    shifted by one pixel up and left, and down and right: the views of Jordan (2024, arXiv:2404.00498), here of equal
    weight.  What comes in
    at the border is black, since the random crops of training have shown black borders to the network; Jordan's
    trained on reflected ones.
    """
    if tta == "none":
        return [images]
    shown = [images]
    if tta == "flip-shift":
        height, width = images.shape[1:3]
        padded = pad(images, (0, 0, 1, 1, 1, 1))
        shown += [padded[:, first : first + height, first : first + width].contiguous() for first in (2, 0)]
    return shown + [view.flip(2) for view in shown]


# --- Batch normalisations that take their statistics from the images to be labelled.


TINY = 1e-6  # a channel that is silent on the reference
ADAPTATION_BATCH = 250  # images whose statistics are averaged


def adapted(network: ResNet, images: NDArray[np.uint8], reference: NDArray[np.uint8]) -> ResNet:
    """A copy in evaluation mode, its statistics changed as they differ between images and labelled `reference` images.

    Training has gathered statistics of augmented images, and the weights belong to those: to put the statistics of
    plain images in their place would cost a point or two even where nothing is wrong.  So means are moved by the
    difference, and variances by the ratio: images like the reference change nothing.

    Args:
        network: as trained.
        images: uint8 (N, 32, 32, 3), at least 2; those to be labelled, or many of them.
        reference: uint8 (M, 32, 32, 3), likewise, like the training images.
    """
    result = copy.deepcopy(network).eval()
    measured = (_norms(_with_statistics(network, these)) for these in (images, reference))
    for norm, there, here in zip(_norms(result), *measured, strict=True):
        mean, var = _statistics(norm)
        (mean_there, var_there), (mean_here, var_here) = _statistics(there), _statistics(here)
        mean += mean_there - mean_here
        var *= (var_there + TINY) / (var_here + TINY)
    return result


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Its running mean and variance, (channels,)."""
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def _with_statistics(network: ResNet, images: NDArray[np.uint8]) -> ResNet:
    """A copy whose norms hold the statistics of the images, averaged over batches of nearly equal size; float32."""
    result = copy.deepcopy(network).eval()
    for norm in _norms(result):
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()
    device = next(result.parameters()).device
    for part in np.array_split(images, -(-len(images) // ADAPTATION_BATCH)):
        result(normalise(torch.from_numpy(part).to(device)))
    return result


PRECISIONS: tuple[Precision, Precision] = ("fp32", "bf16")
PASSES: dict[ArrayName, str] = {  # what they are asked about, for people
    "test_images": "test_batch", "train_images": "validation", "hidden_images": "hidden images",
}  # fmt: skip
ENOUGH = 99.9  # per cent of labels alike in bf16 and fp32: at most 0.1 points of accuracy are at stake, mostly far less


@dataclass(frozen=True)
class Member:
    """A network ready to answer, and how precisely it may compute."""

    name: str  # of its run
    network: ResNet  # as trained
    device: Device
    answering: ResNet  # the same, folded


@dataclass(frozen=True)
class Panel:
    """Members that answer together, always in the same way."""

    members: Sequence[Member]
    tta: Tta
    batch_size: int
    log: Log = lambda _: None  # is told how far it is

    def answers(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The averaged probabilities (N, 10) of uint8 images (N, 32, 32, 3) that fit into memory.

        Raises:
            BadData: they are not finite.
        """
        parts = np.array_split(images, max(-(-len(images) // self.batch_size), 1))
        return np.concatenate([answers(self.members, part, self.tta).mean(dim=(0, 1)).cpu().numpy() for part in parts])

    def adapted(self, images: NDArray[np.uint8], reference: NDArray[np.uint8]) -> "Panel":
        """The same members, their norms adapted to images (N, 32, 32, 3): see pipeline.training.inference."""
        networks = [adapted(m.network, images, reference) for m in self.members]
        return dataclasses.replace(
            self, members=[member(m.name, n, m.device) for m, n in zip(self.members, networks, strict=True)]
        )


@dataclass(frozen=True)
class Local:
    """What an average is worth on labelled images.  Accuracies in per cent."""

    test: float  # on test_batch
    validation: float | None  # None: no images have validated all members
    best: str  # the member that is the most accurate alone
    alone: float  # its accuracy on test_batch, one view an image

    def __str__(self) -> str:
        shown = "unknown" if self.validation is None else f"{self.validation:.2f} %"
        gain = f"{self.test - self.alone:+.2f} points over {self.best} alone, as it is"
        return f"local accuracy {self.test:.2f} % ({gain}), validation {shown}"


def load(runs: Sequence[Run], device: Device) -> list[Member]:
    """The runs' networks on the device.

    Raises:
        BadData: a weights file is damaged, or belongs to another network.
    """
    members = []
    for run in runs:
        run.check_weights()
        network = resnet.load(run.weights, run.card.config.model).to(device.torch_device)
        agrees = run.result.bf16_agreement is not None and run.result.bf16_agreement >= ENOUGH
        members.append(member(run.name, network, device if agrees else dataclasses.replace(device, precision="fp32")))
    return members


def member(name: str, network: ResNet, device: Device) -> Member:
    """A network, made ready."""
    return Member(name, network, device, folded(network))


@torch.no_grad()
def by_view(network: nn.Module, images: Tensor, device: Device, tta: Tta) -> Tensor:
    """Float32 probabilities (V, B, 10) of uint8 images (B, 32, 32, 3) on the device, for each of their V views.

    The first view is the images as they are.
    """
    return torch.stack([logits(network, view, device).softmax(dim=1) for view in views(images, tta)])


def answers(members: Sequence[Member], pixels: NDArray[np.uint8], tta: Tta) -> Tensor:
    """Float32 probabilities (members, V, B, 10) of uint8 images (B, 32, 32, 3).

    Raises:
        BadData: they are not finite.
    """
    images = torch.from_numpy(pixels).to(members[0].device.torch_device)
    given = torch.stack([by_view(member.answering, images, member.device, tta) for member in members])
    if not bool(given.isfinite().all()):
        broken = [m.name for m, answer in zip(members, given, strict=True) if not bool(answer.isfinite().all())]
        raise BadData(f"run {broken[0]} answers with numbers that are not finite: train it again")
    return given


def ask(
    panel: Panel, data: Processed, name: ArrayName, rows: NDArray[np.int64],
    truth: NDArray[np.int64] | None = None, prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda x: x,
) -> Outputs:  # fmt: skip
    """What the members say of the rows (R,) of the images `name`, batch by batch, each prepared; `truth` is passed on.

    Raises:
        BadData: a network's answers are not finite.
    """
    # Made beforehand: kept among what each batch frees, small results would spread over ever more memory.
    probabilities = np.empty((len(rows), CLASSES), dtype=np.float32)
    alone = np.empty((len(panel.members), len(rows)), dtype=np.uint8)
    with Meter(f"predict: {PASSES[name]}", len(rows), "images", panel.log) as meter:
        for start in range(0, len(rows), panel.batch_size):
            part = slice(start, start + panel.batch_size)
            pixels = data.rows(name, rows[part])  # only a batch is in memory
            given = answers(panel.members, np.ascontiguousarray(prepare(pixels)), panel.tta)
            probabilities[part] = given.mean(dim=(0, 1)).cpu().numpy()
            alone[:, part] = given[:, 0].argmax(dim=2).cpu().numpy()
            meter.add(len(pixels))
    return Outputs(probabilities, alone, None if truth is None else truth.astype(np.uint8))


def ask_locally(ensemble: Ensemble, panel: Panel, data: Processed) -> tuple[Outputs, Outputs | None]:
    """What the members say of test_batch, and of what validated all of them; None if nothing in `data` did.

    Raises:
        BadData: a network's answers are not finite.
    """
    truth = np.asarray(data.array("test_labels"))
    test = ask(panel, data, "test_images", np.arange(len(truth)), truth)
    if not ensemble.one_protocol or ensemble.data != data.training_fingerprint:
        return test, None
    truth = np.asarray(data.array("train_labels"))
    rows = split(truth, ensemble.runs[0].card.config).validation
    if rows is None:
        return test, test
    return test, ask(panel, data, "train_images", rows, truth[rows])


def worth(ensemble: Ensemble, test: Outputs, validation: Outputs | None) -> Local:
    """The accuracies of what was said of labelled images."""
    alone = [100 * accuracy(labels, test) for labels in test.members]
    best = int(np.argmax(alone))
    together = 100 * accuracy(test.labels, test)
    validated = None if validation is None else 100 * accuracy(validation.labels, validation)
    return Local(together, validated, ensemble.runs[best].name, alone[best])


def accuracy(labels: NDArray[np.integer], said: Outputs) -> float:
    """The share of the labels (N,) that are the true ones of the N images of `said`."""
    return float((labels == said.known_truth).mean())


@torch.no_grad()
def sampled_features(
    member: Member, data: Processed, name: ArrayName, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Evenly spread rows of the images `name`, at most `count`, and what the linear layer sees of them.

    Returns:
        The rows (n,), ascending, and float32 features (n, F).
    """
    rows = even_rows(len(data.array(name)), count)
    on = member.device.torch_device
    found = [
        member.answering.features(normalise(torch.from_numpy(data.rows(name, part)).to(on))).float().cpu().numpy()
        for part in np.array_split(rows, -(-len(rows) // BATCH))
    ]
    return rows, np.concatenate(found)


def agreement(network: ResNet, images: EvaluationImages, device: Device) -> float:
    """Per cent of the images that the network, folded as for prediction, labels in bfloat16 as in float32."""
    answering = folded(network)
    exact, coarse = (
        network_labels(answering, images, dataclasses.replace(device, precision=precision)) for precision in PRECISIONS
    )
    return 100 * int((exact == coarse).sum()) / len(images)


@torch.no_grad()
def network_labels(network: nn.Module, images: EvaluationImages, device: Device) -> Tensor:
    """The labels int64 (N,) that one network in evaluation mode gives, on the device."""
    starts = range(0, len(images), BATCH)
    return torch.cat([logits(network, images.images[k : k + BATCH], device).argmax(1) for k in starts])
