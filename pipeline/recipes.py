"""Models, recipes and presets, in frozen dataclasses.  Nothing here imports torch.

Each annotated field of TrainConfig is an option of `python -m pipeline.train`, and `python -m pipeline.sweep` can
search over it; the annotation has its type, range and help text.
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
    """The finite numbers from `low` to `high`, excluding the ends marked open."""

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
    """An annotated field of TrainConfig: its type (a Literal for choices), help text, and range of a number."""

    kind: Any
    help: str
    allowed: Range | None = None


# Former fields, and the values that disabled them.
RETIRED = {"erasing": 0.0, "ricap": 0.0, "policy": "none", "se": 0}


def without_retired(values: dict[str, Any]) -> dict[str, Any]:
    """The values of an older config.json, without retired fields that were off."""
    return {name: value for name, value in values.items() if name not in RETIRED or value != RETIRED[name]}


# --- models -----------------------------------------------------------------------------------------------


WHITENED_STEM = 2 * 3 * 2 * 2  # the directions of a 2x2 colour patch and their negatives


@dataclass(frozen=True)
class ModelConfig:
    """A residual network: a stem, stages, global average pooling, one linear layer.

    `widths`, `blocks` and `strides` have one entry per stage.
    """

    name: str
    stem: int  # channels of the 3x3 stem
    widths: tuple[int, ...]  # channels
    blocks: tuple[int, ...]  # BasicBlocks
    strides: tuple[int, ...]  # a stage divides height and width by this
    pooled: bool = False  # a stage is a convolution with max-pooling, then `blocks` residual convolutions
    whitened: bool = False  # a 2x2 stem of 24 fixed filters, computed from the training images

    def __post_init__(self) -> None:
        """Refuse inconsistent descriptions."""
        if not len(self.widths) == len(self.blocks) == len(self.strides):
            raise UsageError(f"model {self.name}: widths, blocks and strides differ in length")

    @property
    def trainable_parameters(self) -> int:
        """The number that pipeline.model.resnet builds, counted without PyTorch, which takes seconds to import."""
        channels = self.stem
        count = channels if self.whitened else (3 * 9 + 2) * channels  # 2 a channel: a batch normalisation's
        for width, blocks, stride in zip(self.widths, self.blocks, self.strides, strict=True):
            if self.pooled:  # norms learn a bias alone
                count += (9 * channels + 1 + blocks * (9 * width + 1)) * width
            else:
                count += 9 * width * (channels + (2 * blocks - 1) * width) + blocks * 4 * width
                if stride != 1 or channels != width:  # the first block's shortcut
                    count += (channels + 2) * width
            channels = width
        return count + (channels + 1) * CLASSES

    def require_within_limit(self) -> None:
        """UsageError if the model is over the parameter limit."""
        if (count := self.trainable_parameters) > PARAMETER_LIMIT:
            raise UsageError(
                f"model {self.name} has {count:,} trainable parameters, and the competition allows "
                f"{PARAMETER_LIMIT:,}: choose another model (train compares it with --allow-over-limit)"
            )

    upgraded = staticmethod(without_retired)


MODELS = {
    model.name: model
    for model in (
        # The paper's model, 4,893,566 parameters, as its memory table (18.67 MB of parameters) requires.
        ModelConfig("paper", 36, (36, 72, 144, 256, 64), (3, 3, 3, 3, 1), (1, 2, 2, 2, 2)),
        # A tenth of a GMAC in few, wide layers, which are fast on a CPU: airbench94's widths, with shortcuts.
        ModelConfig("fast", WHITENED_STEM, (64, 256, 256), (1, 1, 1), (2, 2, 2), pooled=True, whitened=True),
        ModelConfig("strong", WHITENED_STEM, (128, 384, 384), (1, 1, 1), (2, 2, 2), pooled=True, whitened=True),
        # Small enough for a rehearsal on two CPU cores.
        ModelConfig("rehearsal", 16, (16, 32, 64), (1, 1, 1), (2, 2, 2)),
        # torchvision's ResNets with a CIFAR stem, the paper's baselines: over the parameter limit.
        ModelConfig("resnet18", 64, (64, 128, 256, 512), (2, 2, 2, 2), (1, 2, 2, 2)),
        ModelConfig("resnet34", 64, (64, 128, 256, 512), (3, 4, 6, 3), (1, 2, 2, 2)),
    )
}


# --- recipes ----------------------------------------------------------------------------------------------

ValidationSet = Literal["split", "test_batch"]
Compile = Literal["auto", "yes", "no"]  # not part of TrainConfig: it does not change the results
Optimizer = Literal["adam", "adamw", "sgd", "muon"]
Schedule = Literal["linear", "cosine", "step", "one-cycle"]
Flip = Literal["none", "random", "alternating"]


NON_NEGATIVE = Range(0)
FRACTION = Range(0, 1, open_high=True)
POSITIVE = Range(0, open_low=True)


@dataclass(frozen=True)
class TrainConfig:
    """A training run: with the images and the teachers, everything that determines the weights."""

    preset: str
    model: ModelConfig
    teachers: tuple[str, ...] = ()  # runs to distil from: NAME@ and the first digits of their weights' sha256

    pseudo_labels: str = ""  # CSV whose labels of the test images it trains on, too: PATH@ and sha256; "": none

    # "test_batch" is the paper's protocol, and biased upwards.
    validation: Annotated[ValidationSet, "Set that selects the best epoch; test_batch as in the paper."] = "split"
    validation_fraction: Annotated[
        float, Range(0, 1, open_low=True, open_high=True), "Share of the training images in the validation split."
    ] = 0.1
    epochs: Annotated[int, Range(1), "Number of epochs; the warm-up scales with it."] = 80
    batch_size: Annotated[int, Range(2), "Batch size."] = 128  # batch normalisation needs two
    seed: Annotated[int, Range(0, 2**31 - 1), "Random seed of initialisation, order and augmentation."] = 0

    optimizer: Annotated[Optimizer, "Optimizer; sgd and muon have Nesterov momentum."] = "adam"
    learning_rate: Annotated[float, POSITIVE, "Peak learning rate."] = 1e-3
    momentum: Annotated[float, FRACTION, "Momentum (sgd, muon)."] = 0.9
    weight_decay: Annotated[float, NON_NEGATIVE, "L2 penalty; adamw and muon decouple it."] = 1e-4
    decay_norms: Annotated[bool, "Apply weight decay to norms and biases; muon always does."] = True
    schedule: Annotated[Schedule, "Learning rate schedule after the warm-up."] = "linear"
    warmup_epochs: Annotated[float, NON_NEGATIVE, "Warm-up in epochs."] = 5.0
    early_stopping: Annotated[int, NON_NEGATIVE, "Stop after N epochs without improvement; 0: never."] = 0

    label_smoothing: Annotated[float, FRACTION, "Label smoothing."] = 0.1
    dropout: Annotated[float, FRACTION, "Dropout probability before the linear layer."] = 0.0
    ema_decay: Annotated[float, FRACTION, "EMA decay per step; the EMA is validated and kept; 0: none."] = 0.0

    crop_padding: Annotated[int, Range(0, 16), "Zero-padding before the random crop, in pixels."] = 4
    flip: Annotated[Flip, "Mirror images at random, or each image every other epoch."] = "random"
    cutout: Annotated[int, Range(0, 32), "Cutout: side of the grey square in pixels; 0: none."] = 0
    mixup: Annotated[float, NON_NEGATIVE, "Mixup: alpha of the Beta distribution; 0: none."] = 0.0
    cutmix: Annotated[float, NON_NEGATIVE, "CutMix: alpha of the Beta distribution; 0: none."] = 0.0

    distillation_weight: Annotated[float, Range(0, 1), "Weight of the distillation loss."] = 0.7
    distillation_temperature: Annotated[float, POSITIVE, "Distillation temperature."] = 2.0

    def __post_init__(self) -> None:
        """Refuse invalid values and combinations."""
        for name, option in options().items():
            if option.allowed is not None and (value := getattr(self, name)) not in option.allowed:
                raise UsageError(f"{flag(name)} {value:.10g}: must be {option.allowed}")
        if self.warmup_epochs > self.epochs:
            raise UsageError(f"--warmup-epochs {self.warmup_epochs:g}: must be at most the run's {self.epochs} epochs")
        if self.mixup and self.cutmix:
            raise UsageError("use only one of --mixup and --cutmix, and set the other to 0")

    @property
    def split(self) -> float | None:
        """The validation split, by its share of the training images; None: the holdout validates."""
        return self.validation_fraction if self.validation == "split" else None

    def with_epochs(self, epochs: int) -> Self:
        """The same recipe over `epochs`, with the warm-up in proportion."""
        return dataclasses.replace(self, epochs=epochs, warmup_epochs=self.warmup_epochs * epochs / self.epochs)

    def changed(self, values: Mapping[str, Any]) -> Self:
        """The recipe with other values (None: unchanged) of fields and `model` (a name).

        If `epochs` changes, the warm-up keeps its share unless it is given, too.
        """
        given = {name: value for name, value in values.items() if value is not None}
        model = MODELS[given.pop("model")] if "model" in given else self.model
        base = self.with_epochs(given["epochs"]) if "epochs" in given and "warmup_epochs" not in given else self
        return dataclasses.replace(base, **given, model=model)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for config.json."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    upgraded = staticmethod(without_retired)


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
    """The option of a field: learning_rate -> --learning-rate."""
    return f"--{name.replace('_', '-')}"


# --- presets ----------------------------------------------------------------------------------------------

# For minutes on a laptop or a free notebook: Muon's record (Jordan et al. 2024, airbench94_muon) in batches of half
# the size.
FAST = TrainConfig(
    "fast", MODELS["fast"], validation_fraction=0.05, epochs=10, batch_size=1000, warmup_epochs=0, optimizer="muon",
    learning_rate=0.17, momentum=0.6, weight_decay=0.08, label_smoothing=0.2, crop_padding=2, flip="alternating",
)  # fmt: skip

# For an hour of two CPU cores: wider and longer, with the augmentation of airbench96.
STRONG = dataclasses.replace(FAST, preset="strong", model=MODELS["strong"], epochs=40, crop_padding=4, cutout=12)

PRESETS = {
    preset.preset: preset
    for preset in (
        # The paper's model, recipe and protocol (best epoch on test_batch).
        TrainConfig("paper", MODELS["paper"], validation="test_batch"),
        FAST,
        STRONG,
        # For a GPU: longer still.  Never run.
        dataclasses.replace(STRONG, preset="best", epochs=200),
        # For the rehearsal.  No flip: it would turn digits into other digits.
        TrainConfig("rehearsal", MODELS["rehearsal"], epochs=12, warmup_epochs=2, batch_size=64, flip="none",
                    crop_padding=2),
    )
}  # fmt: skip
