"""What is trained and how: networks, recipes and the presets, in frozen dataclasses.  Nothing here imports torch.

Each annotated field of TrainConfig is an option of `python -m pipeline.train`, and `python -m pipeline.sweep` can
search over it: the annotation is the option's type and its help text.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pipeline.errors import BadData, UsageError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


# --- networks ---------------------------------------------------------------------------------------------


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
        """Refuse descriptions that fit no network."""
        if not len(self.widths) == len(self.blocks) == len(self.strides):
            raise UsageError(f"model {self.name}: widths, blocks and strides differ in length")
        least = min(self.widths)
        _require(0 <= self.se <= least, f"--se {self.se}: from 0 (none) to {least}, the least width")
        _require(
            not self.whitened or self.stem == WHITENED_STEM,
            f"model {self.name}: a whitened stem has {WHITENED_STEM} channels, not {self.stem}",
        )


MODELS = {
    model.name: model
    for model in (
        # The paper's network, 4,893,566 parameters: recovered from its memory table (18.67 MB of parameters).
        ModelConfig("paper", 36, (36, 72, 144, 256, 64), (3, 3, 3, 3, 1), (1, 2, 2, 2, 2)),
        # A tenth of a GMAC in few and wide layers, which a CPU computes fast.  Networks of this form, Page's ResNet-9
        # with a residual block in each stage, learned most in equal time of those compared (tests/bench/RESULTS.md).
        ModelConfig("fast", WHITENED_STEM, (64, 160, 320), (1, 1, 1), (2, 2, 2), pooled=True, whitened=True),
        # As much work as 5 million parameters allow at CIFAR-10's resolutions: the work, not the count, limits.
        ModelConfig("wide", 64, (64, 128, 256), (3, 3, 3), (1, 2, 2), se=16),
        # Small enough for a rehearsal on two CPU cores, with the same building blocks.
        ModelConfig("rehearsal", 16, (16, 32, 64), (1, 1, 1), (2, 2, 2)),
        # torchvision's ResNets with a CIFAR stem: the paper's baselines, over the competition's budget.
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
Policy = Literal["none", "randaugment", "trivialaugment", "augmix"]
CHOICES = {
    "validation": get_args(ValidationSet),
    "optimizer": get_args(Optimizer),
    "schedule": get_args(Schedule),
    "flip": get_args(Flip),
    "policy": get_args(Policy),
}


@dataclass(frozen=True)
class TrainConfig:
    """A training run: everything that decides which weights come out, but for the images and the teachers."""

    preset: str
    model: ModelConfig
    teachers: tuple[str, ...] = ()  # runs to distil from: NAME@ and the first digits of their weights' sha256

    pseudo_labels: str = ""  # CSV whose labels of the hidden images are learned as well: NAME@ and sha256; "": none

    # "test_batch" is the paper's protocol, and optimistic.
    validation: Annotated[ValidationSet, "What selects the best epoch; test_batch is the paper's way."] = "split"
    validation_fraction: Annotated[float, "Share of the training images in the validation split."] = 0.1
    epochs: Annotated[int, "Passes over the training images; the warm-up keeps its share."] = 80
    batch_size: Annotated[int, "Images a step."] = 128
    seed: Annotated[int, "Of initialisation, order and augmentation."] = 0

    optimizer: Annotated[Optimizer, "sgd has Nesterov's momentum."] = "adam"
    learning_rate: Annotated[float, "The peak."] = 1e-3
    momentum: Annotated[float, "Of sgd and rmsprop."] = 0.9
    weight_decay: Annotated[float, "An L2 penalty; adamw decouples it."] = 1e-4
    decay_norms: Annotated[bool, "Let norms and biases decay too."] = True
    schedule: Annotated[Schedule, "Of the rate after the warm-up."] = "linear"
    warmup_epochs: Annotated[float, "Epochs over which the rate rises to its peak."] = 5.0
    early_stopping: Annotated[int, "Stop after so many epochs without a better validation accuracy; 0: never."] = 0

    label_smoothing: Annotated[float, "From 0 to below 1."] = 0.1
    dropout: Annotated[float, "Probability, before the linear layer."] = 0.0
    ema_decay: Annotated[float, "Validate and keep the weights' moving average of this decay a step; 0: none."] = 0.0

    crop_padding: Annotated[int, "Pixels of black on each side before the random crop."] = 4
    flip: Annotated[Flip, "Mirror half of the images, or each one in every other epoch."] = "random"
    policy: Annotated[Policy, "Of colours and shapes, an image; augmix is against corrupted hidden images."] = "none"
    cutout: Annotated[int, "Side of a grey square in pixels; 0: none."] = 0
    erasing: Annotated[float, "Probability that a rectangle is painted in one random colour."] = 0.0
    mixup: Annotated[float, "Blend pairs of images: alpha of the Beta distribution; 0: none."] = 0.0
    cutmix: Annotated[float, "Paste a rectangle of another image: alpha; 0: none."] = 0.0
    ricap: Annotated[float, "Patch four images together: beta; 0: none."] = 0.0

    distillation_weight: Annotated[float, "Share of the teachers in the loss."] = 0.7
    distillation_temperature: Annotated[float, "Softens the teachers' and the student's probabilities."] = 2.0

    def __post_init__(self) -> None:
        """Refuse values that make no sense, before anything is spent."""
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            _require(value in choices, f"{flag(name)} {value}: choose one of {', '.join(choices)}")
        _require(self.epochs >= 1, f"--epochs {self.epochs}: at least 1")
        _require(self.batch_size >= 2, f"--batch-size {self.batch_size}: at least 2 (batch normalisation)")
        _require(
            0 <= self.warmup_epochs <= self.epochs,
            f"--warmup-epochs {self.warmup_epochs:g}: from 0 to the {self.epochs} epochs of the run",
        )
        _require(self.learning_rate > 0, f"--learning-rate {self.learning_rate:g}: above 0")
        _require(0 < self.validation_fraction < 1, "--validation-fraction: between 0 and 1")
        _require(0 <= self.seed < 2**31, "--seed: from 0 to 2147483647")
        _require(self.early_stopping >= 0, "--early-stopping: a number of epochs, or 0 for never")
        _require(0 <= self.crop_padding <= 16, f"--crop-padding {self.crop_padding}: from 0 to 16 pixels")
        _require(0 <= self.cutout <= 32, f"--cutout {self.cutout}: from 0 (none) to 32 pixels")
        _require(self.distillation_temperature > 0, "--distillation-temperature: above 0")
        for name in ("momentum", "label_smoothing", "dropout", "ema_decay"):
            _require(0 <= getattr(self, name) < 1, f"{flag(name)} {getattr(self, name):g}: from 0 to below 1")
        for name in ("erasing", "distillation_weight"):
            _require(0 <= getattr(self, name) <= 1, f"{flag(name)} {getattr(self, name):g}: from 0 to 1")
        for name in ("weight_decay", *MIXING):
            _require(getattr(self, name) >= 0, f"{flag(name)} {getattr(self, name):g}: 0 or more")
        mixing = [name for name in MIXING if getattr(self, name)]
        _require(
            len(mixing) <= 1,
            f"{' and '.join(map(flag, mixing))} both mix whole images: keep one, and set the others to 0",
        )

    def with_epochs(self, epochs: int) -> Self:
        """The same recipe over `epochs`, its warm-up in the same proportion."""
        return dataclasses.replace(self, epochs=epochs, warmup_epochs=self.warmup_epochs * epochs / self.epochs)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for config.json."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; a field that an earlier version did not have yet gets its default.

        Raises:
            BadData: for unknown keys or values, as a run of another version may have them.
        """
        try:
            teachers = tuple(values.get("teachers", ()))
            return cls(**{**values, "model": model_from_dict(values["model"]), "teachers": teachers})
        except (TypeError, KeyError, AttributeError, UsageError) as error:
            raise BadData(f"this run's config.json is of another version of the pipeline ({error})") from error


MIXING = ("mixup", "cutmix", "ricap")


def model_from_dict(values: dict[str, Any]) -> ModelConfig:
    """A ModelConfig from its JSON form.

    Raises:
        TypeError, AttributeError: for unknown or missing keys.
    """
    named: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return ModelConfig(**named)


def flag(name: str) -> str:
    """The command line's spelling of a field: learning_rate -> --learning-rate."""
    return f"--{name.replace('_', '-')}"


# --- presets ----------------------------------------------------------------------------------------------

PRESETS = {
    preset.preset: preset
    for preset in (
        # The paper, exactly: network, recipe and protocol (best epoch on the labelled test_batch).
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
