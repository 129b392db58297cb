"""Labels for images from one network or several: probabilities, averaged over the networks and over their views.

The networks are folded (see pipeline.model.folding), and compute in bfloat16 only where training has measured that
this leaves their labels as they are.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.errors import BadData
from pipeline.model import weights
from pipeline.model.folding import folded
from pipeline.model.resnet import ResNet
from pipeline.store.ensemble import Ensemble
from pipeline.store.processed import ArrayName, Processed
from pipeline.store.runs import Run
from pipeline.store.sidecar import Tta
from pipeline.training.device import Device, Precision
from pipeline.training.evaluation import BATCH, EvaluationImages, logits
from pipeline.training.split import split
from pipeline.training.views import views

PRECISIONS: tuple[Precision, Precision] = ("fp32", "bf16")
ENOUGH = 99.9  # per cent of labels alike in bf16 and fp32: at most 0.1 points of accuracy are at stake, mostly far less


@dataclass(frozen=True)
class Member:
    """A network ready to answer, and how precisely it may compute."""

    name: str  # of its run
    network: ResNet
    device: Device


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
        network = folded(weights.load(run.weights, run.card.config.model)).to(device.torch_device)
        agrees = run.result.bf16_agreement is not None and run.result.bf16_agreement >= ENOUGH
        members.append(Member(run.name, network, device if agrees else dataclasses.replace(device, precision="fp32")))
    return members


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
    given = torch.stack([by_view(member.network, images, member.device, tta) for member in members])
    if not bool(given.isfinite().all()):
        broken = [m.name for m, answer in zip(members, given, strict=True) if not bool(answer.isfinite().all())]
        raise BadData(f"run {broken[0]} answers with numbers that are not finite: train it again")
    return given


def labels(members: Sequence[Member], pixels: NDArray[np.uint8], tta: Tta) -> NDArray[np.int64]:
    """The labels int64 (B,) of uint8 images (B, 32, 32, 3): the most probable on average, ties to the lower."""
    found: NDArray[np.int64] = answers(members, pixels, tta).mean(dim=(0, 1)).argmax(dim=1).cpu().numpy()
    return found


def hidden_labels(
    members: Sequence[Member], data: Processed, tta: Tta, batch_size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(ids, labels) of the hidden images, both int64 (B,), batch by batch in the file's order.

    Raises:
        BadData: a network's answers are not finite.
    """
    ids = np.asarray(data.array("hidden_ids"))
    for rows, pixels in _batches(data, "hidden_images", np.arange(len(ids)), batch_size, "predict"):
        yield ids[rows], labels(members, pixels, tta)


def local_accuracy(ensemble: Ensemble, members: Sequence[Member], data: Processed, tta: Tta, batch_size: int) -> Local:
    """Measure on the labelled images of `data`, from which the ensemble learned or which are like them.

    Raises:
        BadData: a network's answers are not finite.
    """
    truth = np.asarray(data.array("test_labels"))
    test, alone = _measure(members, data, "test_images", truth, np.arange(len(truth)), tta, batch_size)
    validation = None
    if ensemble.one_protocol and ensemble.data == data.training_fingerprint:
        truth = np.asarray(data.array("train_labels"))
        rows = split(truth, ensemble.runs[0].card.config).validation
        validation = test
        if rows is not None:
            validation, _ = _measure(members, data, "train_images", truth, rows, tta, batch_size)
    best = int(np.argmax(alone))
    return Local(test, validation, members[best].name, alone[best])


def _measure(
    members: Sequence[Member],
    data: Processed,
    name: ArrayName,
    truth: NDArray[np.int64],
    rows: NDArray[np.int64],
    tta: Tta,
    batch_size: int,
) -> tuple[float, list[float]]:
    """Per cent right of the rows (R,) of the images `name`: all together, and each alone on the plain images."""
    correct = np.zeros(1 + len(members), dtype=np.int64)
    for chosen, pixels in _batches(data, name, rows, batch_size, "measure"):
        answer = answers(members, pixels, tta)
        found = torch.cat([answer.mean(dim=(0, 1))[None], answer[:, 0]]).argmax(dim=2).cpu().numpy()
        correct += (found == truth[chosen]).sum(axis=1)
    together, *alone = (100 * correct / len(rows)).tolist()
    return together, alone


def _batches(
    data: Processed, name: ArrayName, rows: NDArray[np.int64], batch_size: int, what: str
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """(rows, images) a batch, with a progress bar; only a batch is in memory."""
    with tqdm(total=len(rows), desc=what, unit="image", disable=None) as bar:
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            # Mapped anew each time: the pages of an open map that were read stay in memory.
            yield chosen, data.array(name)[chosen]
            bar.update(len(chosen))


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
