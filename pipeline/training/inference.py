"""Predictions of one or several models: evaluation, test-time augmentation (TTA), batch-norm adaptation.

Models are folded (see pipeline.model.resnet), and use bfloat16 only if training found that it keeps their labels.
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
from torch.optim.swa_utils import update_bn

from pipeline.config import CLASSES
from pipeline.console import Meter
from pipeline.errors import BadData, Log, UsageError
from pipeline.model import resnet
from pipeline.model.resnet import ResNet, folded, normalise
from pipeline.store.ensemble import Ensemble
from pipeline.store.processed import ArrayName, Processed
from pipeline.store.runs import Run, RunCard
from pipeline.store.submissions import Outputs, Tta, accuracy
from pipeline.training.batches import split
from pipeline.training.device import ALONE, Device, World

WHICH = {"train_images": "validation", "test_images": "holdout", "hidden_images": "test"}
BATCH = 512  # images; the result does not depend on it beyond rounding


def logits(model: Callable[[Tensor], Tensor], images: Tensor, device: Device) -> Tensor:
    """Float32 logits (B, 10) of images (B, 32, 32, 3), 0..255, on the device."""
    with device.autocast():
        output = model(normalise(images))
    return output.float()


class EvaluationImages:
    """uint8 images (N, 32, 32, 3) with labels (N,), resident on `device`."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], device: torch.device) -> None:
        self.images = torch.tensor(images, device=device)
        self.labels = torch.tensor(labels, device=device)

    def __len__(self) -> int:
        return len(self.labels)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    data: EvaluationImages,
    device: Device,
    before_batch: Callable[[], None] = lambda: None,
    world: World = ALONE,
) -> tuple[float, float]:
    """Mean cross entropy in nats, without label smoothing, and accuracy in per cent on all of `data`.

    Each process evaluates its share; `before_batch` may raise to stop early.  Leaves the model in eval mode.
    """
    model.eval()
    loss = torch.zeros((), device=device.torch_device)
    correct = torch.zeros((), dtype=torch.int64, device=device.torch_device)
    for first in range(0, len(data), BATCH):
        before_batch()
        labels = data.labels[first : first + BATCH][world.share]
        # forward(): a model that was compiled for training is not compiled once more for this.
        output = logits(model.forward, data.images[first : first + BATCH][world.share], device)
        loss += nn.functional.cross_entropy(output, labels, reduction="sum")
        correct += (output.argmax(1) == labels).sum()
    return world.total(loss).item() / len(data), 100 * world.total(correct).item() / len(data)


@torch.no_grad()
def labels_of(model: nn.Module, images: EvaluationImages, device: Device) -> Tensor:
    """The labels int64 (N,) that one model in evaluation mode predicts, on the device."""
    starts = range(0, len(images), BATCH)
    return torch.cat([logits(model, images.images[k : k + BATCH], device).argmax(1) for k in starts])


def bf16_agreement(model: ResNet, images: EvaluationImages, device: Device) -> float:
    """Per cent of the images whose label, by the folded model, is the same in bfloat16 as in float32."""
    ready = folded(model)
    exact = labels_of(ready, images, dataclasses.replace(device, precision="fp32"))
    coarse = labels_of(ready, images, dataclasses.replace(device, precision="bf16"))
    return 100 * int((exact == coarse).sum()) / len(images)


# --- test-time augmentation -------------------------------------------------------------------------------


def tta_views(images: Tensor, tta: Tta) -> list[Tensor]:
    """The views that TTA averages over, each uint8 (B, H, W, 3); the first is `images` itself.

    "flip" has 2 views: the images and their mirror images.  "flip-shift" has 6: also both shifted by one pixel up and
    left, and down and right, as in Jordan (2024, arXiv:2404.00498), but with equal weights and black borders.
    """
    plain = [images]
    if tta == "flip-shift":
        height, width = images.shape[1:3]
        padded = pad(images, (0, 0, 1, 1, 1, 1))
        plain += [padded[:, first : first + height, first : first + width].contiguous() for first in (2, 0)]
    return plain if tta == "none" else plain + [view.flip(2) for view in plain]


# --- batch-norm adaptation --------------------------------------------------------------------------------

TINY_VARIANCE = 1e-6  # for a channel without variance on the reference
ADAPTATION_BATCH = 250  # images whose statistics are averaged


def bn_adapted(model: ResNet, device: Device, images: NDArray[np.uint8], reference: NDArray[np.uint8]) -> ResNet:
    """A copy in evaluation mode, with batch-norm statistics adapted to `images`; both sets uint8 (N, 32, 32, 3).

    The model's statistics are of augmented images; replacing them with those of plain images would cost a point or two
    without any shift.  So means move by the difference between `images` and the holdout `reference`, and variances by
    the ratio: images like the reference change nothing.
    """
    result = copy.deepcopy(model).eval()
    there, here = _statistics(model, device, images), _statistics(model, device, reference)
    for name, buffer in result.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(there[name] - here[name])
        elif name.endswith("running_var"):
            buffer.mul_((there[name] + TINY_VARIANCE) / (here[name] + TINY_VARIANCE))
    return result


def _statistics(model: ResNet, device: Device, images: NDArray[np.uint8]) -> dict[str, Tensor]:
    """The norms' buffers for these images, float32, averaged over batches of nearly equal size."""
    copied = copy.deepcopy(model)
    parts = np.array_split(images, -(-len(images) // ADAPTATION_BATCH))
    with device.autocast():
        update_bn((normalise(torch.from_numpy(part).to(device.torch_device)) for part in parts), copied)
    return dict(copied.named_buffers())


# --- several models that predict together -----------------------------------------------------------------

BF16_AGREEMENT = 99.9  # per cent of labels alike in bf16 and fp32, at least: 0.1 points of accuracy are at stake


class Member:
    """A model ready to predict, on `device` in its precision."""

    def __init__(self, name: str, model: ResNet, device: Device) -> None:
        self.name = name  # of its run
        self.model = model  # as trained
        self.device = device
        self.folded = folded(model)  # what predicts


@dataclass(frozen=True)
class Panel:
    """Models whose probabilities are averaged."""

    members: Sequence[Member]
    tta: Tta
    batch_size: int
    log: Log = lambda _: None  # for progress

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The averaged probabilities (N, 10) of uint8 images (N, 32, 32, 3) in memory; BadData if not finite."""
        parts = np.array_split(images, max(-(-len(images) // self.batch_size), 1))
        averages = [probabilities(self.members, part, self.tta).mean(dim=(0, 1)) for part in parts]
        return torch.cat(averages).cpu().numpy()

    def adapted(self, images: NDArray[np.uint8], reference: NDArray[np.uint8]) -> "Panel":
        """The same members with batch-norm adaptation, see `bn_adapted`."""
        members = [Member(m.name, bn_adapted(m.model, m.device, images, reference), m.device) for m in self.members]
        return dataclasses.replace(self, members=members)


def load(runs: Sequence[Run], device: Device) -> list[Member]:
    """The runs' models on the device; BadData if a weights file is damaged, or belongs to another model."""
    members = []
    for run in runs:
        run.check_weights()
        model = resnet.load(run.weights, run.card.config.model).to(device.torch_device)
        agrees = run.result.bf16_agreement is not None and run.result.bf16_agreement >= BF16_AGREEMENT
        members.append(Member(run.name, model, device if agrees else dataclasses.replace(device, precision="fp32")))
    return members


def load_teacher(run: Run, card: RunCard) -> ResNet:
    """The model of a finished run, as a teacher for the run of `card`.

    Raises:
        BadData: it was trained on another competition's images, or its weights are damaged.
        UsageError: it was trained on images that validate the run of `card`.
    """
    if run.card.data != card.data:
        raise BadData(f"--teacher {run.name} was trained on other data than {card.competition}'s: choose another run")
    if card.config.split not in (None, run.card.config.split):
        raise UsageError(
            f"--teacher {run.name} was trained on this run's validation images: train both with the same "
            "--validation and --validation-fraction"
        )
    run.check_weights()
    return resnet.load(run.weights, run.card.config.model)


@torch.no_grad()
def probabilities(members: Sequence[Member], pixels: NDArray[np.uint8], tta: Tta) -> Tensor:
    """Float32 probabilities (members, views, B, 10) of uint8 images (B, 32, 32, 3); BadData if not finite."""
    views = tta_views(torch.from_numpy(pixels).to(members[0].device.torch_device), tta)
    each = [torch.stack([logits(m.folded, view, m.device).softmax(dim=1) for view in views]) for m in members]
    stacked = torch.stack(each)
    finite: list[bool] = stacked.isfinite().flatten(1).all(dim=1).tolist()
    if not all(finite):
        raise BadData(f"run {members[finite.index(False)].name} predicts numbers that are not finite: train it again")
    return stacked


def predict(
    panel: Panel, data: Processed, name: ArrayName, rows: NDArray[np.int64],
    truth: NDArray[np.int64] | None = None, prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda x: x,
) -> Outputs:  # fmt: skip
    """Predict the rows (R,) of the images `name`, each batch prepared; `truth` is passed on; BadData if not finite."""
    # Allocated first: small results between each batch's buffers would fragment memory.
    averaged = np.empty((len(rows), CLASSES), dtype=np.float32)
    alone = np.empty((len(panel.members), len(rows)), dtype=np.uint8)
    with Meter(f"predict: {WHICH[name]} images", len(rows), "images", panel.log) as meter:
        for start in range(0, len(rows), panel.batch_size):
            part = slice(start, start + panel.batch_size)
            pixels = data.rows(name, rows[part])  # only a batch is in memory
            stacked = probabilities(panel.members, np.ascontiguousarray(prepare(pixels)), panel.tta)
            averaged[part] = stacked.mean(dim=(0, 1)).cpu().numpy()
            alone[:, part] = stacked[:, 0].argmax(dim=2).cpu().numpy()
            meter.add(len(pixels))
    return Outputs(averaged, alone, None if truth is None else truth.astype(np.uint8))


@torch.no_grad()
def features(member: Member, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The linear layer's input (n, F) for uint8 images (n, 32, 32, 3)."""
    on = member.device.torch_device
    parts = np.array_split(images, -(-len(images) // BATCH))
    with member.device.autocast():
        seen = [member.folded.features(normalise(torch.from_numpy(part).to(on))) for part in parts]
    return torch.cat(seen).float().cpu().numpy()


# --- holdout accuracy -------------------------------------------------------------------------------------


def predict_holdout(ensemble: Ensemble, panel: Panel, data: Processed) -> tuple[Outputs, Outputs | None]:
    """Predict the holdout, and the validation split that all members share (else None); BadData if not finite."""
    truth = np.asarray(data.array("test_labels"))
    holdout = predict(panel, data, "test_images", np.arange(len(truth)), truth)
    if not ensemble.one_protocol or ensemble.data != data.training_fingerprint:
        return holdout, None
    truth = np.asarray(data.array("train_labels"))
    rows = split(truth, ensemble.runs[0].card.config).validation
    if rows is None:
        return holdout, holdout
    return holdout, predict(panel, data, "train_images", rows, truth[rows])


def holdout_line(ensemble: Ensemble, holdout: Outputs, validation: Outputs | None) -> str:
    """The accuracies, and what averaging gains over the most accurate member without TTA."""
    alone = [accuracy(labels, holdout.known_truth) for labels in holdout.members]
    best = int(np.argmax(alone))
    gain = f"{100 * (holdout.accuracy - alone[best]):+.2f} points over {ensemble.runs[best].name} alone, without TTA"
    shown = "unknown" if validation is None else f"{100 * validation.accuracy:.2f}%"
    return f"holdout {100 * holdout.accuracy:.2f}% ({gain}), validation {shown}"
