"""What is trained and how: models, recipes and the presets, in frozen dataclasses.  Nothing here imports torch.

Each annotated field of TrainConfig is an option of `python -m pipeline.train`, and `python -m pipeline.sweep` can
search over it: the annotation holds its type, its range and its help text (see `options`).
"""

import dataclasses
import functools
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pipeline.config import CLASSES, PARAMETER_LIMIT
from pipeline.errors import UsageError


@dataclass(frozen=True)
class Range:
    """The finite numbers from `low` to `high`, an open end excluded."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        least = f"{'above' if self.open_low else 'at least'} {self.low:.10g}"
        most = f" and {'below' if self.open_high else 'at most'} {self.high:.10g}"
        return least + ("" if self.high == math.inf else most)


@dataclass(frozen=True)
class Option:
    """An annotated field of TrainConfig: its type (for choices a Literal), its range if it is a number, its help."""

    kind: Any
    help: str
    allowed: Range | None = None


# --- models -----------------------------------------------------------------------------------------------


WHITENED_STEM = 2 * 3 * 2 * 2  # the directions of a colour patch of 2x2 pixels, each with its negative


@dataclass(frozen=True)
class ModelConfig:
    """A residual network: a stem, stages, global average pooling, one linear layer.

    `widths`, `blocks` and `strides` have one entry a stage.
    """

    name: str
    stem: int  # channels of the 3x3 stem
    widths: tuple[int, ...]  # channels
    blocks: tuple[int, ...]  # BasicBlocks
    strides: tuple[int, ...]  # by which a stage divides height and width
    se: int = 0  # squeeze-and-excitation in each block: width / se hidden units; 0: none
    pooled: bool = False  # a stage begins with a convolution and max-pooling, before its blocks
    whitened: bool = False  # a 2x2 stem of fixed filters, computed from the training images: 24 channels

    def __post_init__(self) -> None:
        """Refuse descriptions that fit no model."""
        if not len(self.widths) == len(self.blocks) == len(self.strides):
            raise UsageError(f"model {self.name}: widths, blocks and strides differ in length")
        if not 0 <= self.se <= min(self.widths):
            raise UsageError(f"--se {self.se}: at least 0 (none) and at most {min(self.widths)}, the least width")

    @property
    def trainable_parameters(self) -> int:
        """As pipeline.model.resnet builds the model; counted without PyTorch, which takes seconds to import."""
        channels = self.stem
        count = channels if self.whitened else (3 * 9 + 2) * channels  # 2 a channel: a batch normalisation's
        for width, blocks, stride in zip(self.widths, self.blocks, self.strides, strict=True):
            if self.pooled:
                count += (9 * channels + 2) * width
                channels = width
            elif stride != 1 or channels != width:  # the first block's shortcut
                count += (channels + 2) * width
            hidden = max(width // self.se, 1) if self.se else 0
            gate = (2 * width + 1) * hidden + width if self.se else 0
            count += 9 * width * (channels + (2 * blocks - 1) * width) + blocks * (4 * width + gate)
            channels = width
        return count + (channels + 1) * CLASSES

    def require_within_limit(self) -> None:
        """UsageError if the competition does not allow so many trainable parameters."""
        if (count := self.trainable_parameters) > PARAMETER_LIMIT:
            raise UsageError(
                f"model {self.name} has {count:,} trainable parameters, and the competition allows "
                f"{PARAMETER_LIMIT:,}: choose another --model, or add --allow-over-limit, only to compare"
            )


MODELS = {
    model.name: model
    for model in (
        # The paper's model, 4,893,566 parameters: recovered from its memory table (18.67 MB of parameters).
        ModelConfig("paper", 36, (36, 72, 144, 256, 64), (3, 3, 3, 3, 1), (1, 2, 2, 2, 2)),
        # A tenth of a GMAC in few and wide layers, which a CPU computes fast.  Networks of this form, Page's ResNet-9
        # with a residual block in each stage, learned most in equal time of those compared (tests/bench/RESULTS.md).
        ModelConfig("fast", WHITENED_STEM, (64, 160, 320), (1, 1, 1), (2, 2, 2), pooled=True, whitened=True),
        # As much work as 5 million parameters allow at CIFAR-10's resolutions: the work, not the count, limits.
        ModelConfig("wide", 64, (64, 128, 256), (3, 3, 3), (1, 2, 2), se=16),
        # Small enough for a rehearsal on two CPU cores, with the same building blocks.
        ModelConfig("rehearsal", 16, (16, 32, 64), (1, 1, 1), (2, 2, 2)),
        # torchvision's ResNets with a CIFAR stem: the paper's baselines, over the competition's parameter limit.
        ModelConfig("resnet18", 64, (64, 128, 256, 512), (2, 2, 2, 2), (1, 2, 2, 2)),
        ModelConfig("resnet34", 64, (64, 128, 256, 512), (3, 4, 6, 3), (1, 2, 2, 2)),
    )
}


# --- recipes ----------------------------------------------------------------------------------------------

ValidationSet = Literal["split", "test_batch"]
Compile = Literal["auto", "yes", "no"]  # how a run computes, not what: no field of TrainConfig
Optimizer = Literal["adam", "adamw", "sgd", "rmsprop"]
Schedule = Literal["linear", "cosine", "step", "one-cycle"]
Flip = Literal["none", "random", "alternating"]
Policy = Literal["none", "trivialaugment"]

MIXING = ("mixup", "cutmix", "ricap")  # at most one of them
RETIRED_FIELDS = {"erasing": 0.0}  # former fields, and the value at which a run had nothing of them

NON_NEGATIVE = Range(0)
SHARE = Range(0, 1)
FRACTION = Range(0, 1, open_high=True)
POSITIVE = Range(0, open_low=True)


@dataclass(frozen=True)
class TrainConfig:
    """A training run: everything that decides which weights come out, but for the images and the teachers."""

    preset: str
    model: ModelConfig
    teachers: tuple[str, ...] = ()  # runs to distil from: NAME@ and the first digits of their weights' sha256

    pseudo_labels: str = ""  # CSV whose labels of the test images are learned as well: NAME@ and sha256; "": none

    # "test_batch" is the paper's protocol, and optimistic.
    validation: Annotated[ValidationSet, "What selects the best epoch; test_batch is the paper's way."] = "split"
    validation_fraction: Annotated[
        float, Range(0, 1, open_low=True, open_high=True), "Share of the training images in the validation split."
    ] = 0.1
    epochs: Annotated[int, Range(1), "Passes over the training images; the warm-up keeps its share."] = 80
    batch_size: Annotated[int, Range(2), "Batch size in images."] = 128  # batch normalisation needs two
    seed: Annotated[int, Range(0, 2**31 - 1), "Seed of initialisation, order and augmentation."] = 0

    optimizer: Annotated[Optimizer, "Optimizer; sgd has Nesterov momentum."] = "adam"
    learning_rate: Annotated[float, POSITIVE, "Peak learning rate."] = 1e-3
    momentum: Annotated[float, FRACTION, "Momentum (sgd, rmsprop)."] = 0.9
    weight_decay: Annotated[float, NON_NEGATIVE, "L2 penalty; adamw decouples it."] = 1e-4
    decay_norms: Annotated[bool, "Apply weight decay to norms and biases, too."] = True
    schedule: Annotated[Schedule, "Learning rate schedule after the warm-up."] = "linear"
    warmup_epochs: Annotated[float, NON_NEGATIVE, "Epochs over which the learning rate rises to its peak."] = 5.0
    early_stopping: Annotated[int, NON_NEGATIVE, "Stop after so many epochs without a better one; 0: never."] = 0

    label_smoothing: Annotated[float, FRACTION, "Label smoothing."] = 0.1
    dropout: Annotated[float, FRACTION, "Dropout probability before the linear layer."] = 0.0
    ema_decay: Annotated[float, FRACTION, "Decay per step of the weights' EMA, which is then kept; 0: none."] = 0.0

    crop_padding: Annotated[int, Range(0, 16), "Zero-padding before the random crop, in pixels."] = 4
    flip: Annotated[Flip, "Mirror half of the images, or each one in every other epoch."] = "random"
    policy: Annotated[Policy, "Augmentation policy of colours and shapes."] = "none"
    cutout: Annotated[int, Range(0, 32), "Side of Cutout's grey square, in pixels; 0: none."] = 0
    mixup: Annotated[float, NON_NEGATIVE, "Mixup: alpha of the Beta distribution; 0: none."] = 0.0
    cutmix: Annotated[float, NON_NEGATIVE, "CutMix: alpha of the Beta distribution; 0: none."] = 0.0
    ricap: Annotated[float, NON_NEGATIVE, "RICAP: beta of the Beta distribution; 0: none."] = 0.0

    distillation_weight: Annotated[float, SHARE, "Weight of the teachers in the loss."] = 0.7
    distillation_temperature: Annotated[float, POSITIVE, "Temperature of the teachers and the student."] = 2.0

    def __post_init__(self) -> None:
        """Refuse values that make no sense, before anything is spent."""
        for name, option in options().items():
            if option.allowed is not None and (value := getattr(self, name)) not in option.allowed:
                raise UsageError(f"{flag(name)} {value:.10g}: {option.allowed}")
        if self.warmup_epochs > self.epochs:
            raise UsageError(f"--warmup-epochs {self.warmup_epochs:g}: at most the {self.epochs} epochs of the run")
        if len(mixing := [flag(name) for name in MIXING if getattr(self, name)]) > 1:
            raise UsageError(f"{' and '.join(mixing)} both mix whole images: keep one, and set the others to 0")

    def with_epochs(self, epochs: int) -> Self:
        """The same recipe over `epochs`, its warm-up in the same proportion."""
        return dataclasses.replace(self, epochs=epochs, warmup_epochs=self.warmup_epochs * epochs / self.epochs)

    def changed(self, values: Mapping[str, Any]) -> Self:
        """The recipe with other values, None for none: of fields, `model` by its name, and `se` of the model.

        Other epochs keep the warm-up's share, unless it is given as well.
        """
        given = {name: value for name, value in values.items() if value is not None}
        model = MODELS[given.pop("model")] if "model" in given else self.model
        model = dataclasses.replace(model, se=given.pop("se", model.se))
        base = self.with_epochs(given["epochs"]) if "epochs" in given and "warmup_epochs" not in given else self
        return dataclasses.replace(base, **given, model=model)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for config.json."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @staticmethod
    def upgraded(values: dict[str, Any]) -> dict[str, Any]:
        """The values of an older version's config.json, without the retired options that it did not use."""
        return {name: v for name, v in values.items() if name not in RETIRED_FIELDS or v != RETIRED_FIELDS[name]}


@functools.cache
def options() -> dict[str, Option]:
    """The annotated fields of TrainConfig by name."""
    fields = {}
    for name, hint in typing.get_type_hints(TrainConfig, include_extras=True).items():
        if typing.get_origin(hint) is Annotated:
            kind, *ranges, text = typing.get_args(hint)
            fields[name] = Option(kind, text, ranges[0] if ranges else None)
    return fields


def flag(name: str) -> str:
    """The command line's spelling of a field: learning_rate -> --learning-rate."""
    return f"--{name.replace('_', '-')}"


# --- presets ----------------------------------------------------------------------------------------------

PRESETS = {
    preset.preset: preset
    for preset in (
        # The paper, exactly: model, recipe and protocol (best epoch on the labelled test_batch).
        TrainConfig("paper", MODELS["paper"], validation="test_batch"),
        # For a laptop or a free notebook.
        TrainConfig(
            "fast", MODELS["fast"], validation_fraction=0.05, epochs=24, warmup_epochs=4, optimizer="sgd",
            learning_rate=0.2, weight_decay=5e-4, decay_norms=False, ema_decay=0.99, flip="alternating", cutout=8,
        ),
        # The most accurate: for up to an hour of one GPU.
        TrainConfig(
            "best", MODELS["wide"], validation_fraction=0.05, epochs=200, warmup_epochs=5, optimizer="sgd",
            learning_rate=0.1, weight_decay=5e-4, decay_norms=False, schedule="cosine", ricap=0.3, ema_decay=0.999,
            label_smoothing=0.0, policy="trivialaugment",
        ),
        # For the rehearsal: minutes on two CPU cores.  Flipping would turn digits into other digits.
        TrainConfig("rehearsal", MODELS["rehearsal"], epochs=12, warmup_epochs=2, batch_size=64, flip="none",
                    crop_padding=2),
    )
}  # fmt: skip
