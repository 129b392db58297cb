"""Labels for images from one network or several: probabilities, averaged over the networks and over their views.

The networks are folded (see pipeline.model.folding), and compute in bfloat16 only where training has measured that
this leaves their labels as they are.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.config import CLASSES
from pipeline.errors import BadData, Say
from pipeline.model import weights
from pipeline.model.folding import folded
from pipeline.model.inputs import normalise
from pipeline.model.resnet import ResNet
from pipeline.progress import Meter
from pipeline.store.ensemble import Ensemble
from pipeline.store.evidence import Said
from pipeline.store.processed import ArrayName, Processed, even_rows
from pipeline.store.runs import Run
from pipeline.store.sidecar import Tta
from pipeline.training.adaptation import adapted
from pipeline.training.device import Device, Precision
from pipeline.training.evaluation import BATCH, EvaluationImages, logits
from pipeline.training.split import split
from pipeline.training.views import views

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
    say: Say = lambda _: None  # is told how far it is

    def answers(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The averaged probabilities (N, 10) of uint8 images (N, 32, 32, 3) that fit into memory.

        Raises:
            BadData: they are not finite.
        """
        parts = np.array_split(images, max(-(-len(images) // self.batch_size), 1))
        return np.concatenate([answers(self.members, part, self.tta).mean(dim=(0, 1)).cpu().numpy() for part in parts])

    def adapted(self, images: NDArray[np.uint8], reference: NDArray[np.uint8]) -> "Panel":
        """The same members, their norms adapted to images (N, 32, 32, 3): see pipeline.training.adaptation."""
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
        network = weights.load(run.weights, run.card.config.model).to(device.torch_device)
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
) -> Said:  # fmt: skip
    """What the members say of the rows (R,) of the images `name`, batch by batch, each prepared; `truth` is passed on.

    Raises:
        BadData: a network's answers are not finite.
    """
    # Made beforehand: kept among what each batch frees, small results would spread over ever more memory.
    probabilities = np.empty((len(rows), CLASSES), dtype=np.float32)
    alone = np.empty((len(panel.members), len(rows)), dtype=np.uint8)
    with Meter(f"predict: {PASSES[name]}", len(rows), "images", panel.say) as meter:
        for start in range(0, len(rows), panel.batch_size):
            part = slice(start, start + panel.batch_size)
            pixels = data.rows(name, rows[part])  # only a batch is in memory
            given = answers(panel.members, np.ascontiguousarray(prepare(pixels)), panel.tta)
            probabilities[part] = given.mean(dim=(0, 1)).cpu().numpy()
            alone[:, part] = given[:, 0].argmax(dim=2).cpu().numpy()
            meter.add(len(pixels))
    return Said(probabilities, alone, None if truth is None else truth.astype(np.uint8))


def ask_locally(ensemble: Ensemble, panel: Panel, data: Processed) -> tuple[Said, Said | None]:
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


def worth(ensemble: Ensemble, test: Said, validation: Said | None) -> Local:
    """The accuracies of what was said of labelled images."""
    alone = [100 * accuracy(labels, test) for labels in test.members]
    best = int(np.argmax(alone))
    together = 100 * accuracy(test.labels, test)
    validated = None if validation is None else 100 * accuracy(validation.labels, validation)
    return Local(together, validated, ensemble.runs[best].name, alone[best])


def accuracy(labels: NDArray[np.integer], said: Said) -> float:
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
