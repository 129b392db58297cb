"""Every number and path of the pipeline, in frozen dataclasses: competitions, folders, networks, recipes.

Nothing here imports torch, so that download and preprocess stay light.
"""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pipeline.errors import BadData, UsageError

CLASSES = 10
IMAGE_SIZE = 32  # pixels a side
PARAMETER_BUDGET = 5_000_000  # trainable parameters; the competition's rule

# The paper's normalisation, in RGB order.  The deviations are the mean of the per-image deviations
# (over all pixels they are .2470, .2435, .2616); what matters is that training and prediction share them.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)


# --- competitions -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PublishedLine:
    """probit(score on Kaggle) = intercept + slope * probit(local accuracy), with where it comes from."""

    intercept: float
    slope: float
    source: str


@dataclass(frozen=True)
class Competition:
    """What is known of a competition beforehand; for an unknown slug, nothing but the slug."""

    slug: str
    file_sha256: dict[str, str] = field(default_factory=dict)  # file name -> sha256
    public_rows: int | None = None  # rows behind the public score
    private_rows: int | None = None
    line: PublishedLine | None = None


DEFAULT_COMPETITION = "deep-learning-spring-2025-project-1"

KNOWN_COMPETITIONS = {
    DEFAULT_COMPETITION: Competition(
        slug=DEFAULT_COMPETITION,
        file_sha256={
            "cifar_test_nolabel.pkl": "a0efb9ed2400345ed274e1ad6c7d299b4e8c94d194e0420ffa9a711a22e5cdb1",
        },
        # 19 of 20 published scores are k/5012 (public) or k/4988 (private) cut to five decimals.
        public_rows=5012,
        private_rows=4988,
        line=PublishedLine(
            intercept=-0.333,
            slope=0.818,
            source="six published (local, Kaggle) pairs, leave-one-out error at most 0.43 points",
        ),
    ),
}


def competition(slug: str) -> Competition:
    """The known facts of `slug`, or an empty card for a competition of the same shape."""
    return KNOWN_COMPETITIONS.get(slug, Competition(slug))


def check_slug(text: str) -> str:
    """A competition's slug, as in its URL.

    Raises:
        UsageError: for a URL (naming the slug in it) or for anything that is no slug.
    """
    if match := re.search(r"kaggle\.com/(?:competitions|c)/([A-Za-z0-9-]+)", text):
        raise UsageError(f"--competition wants the slug, not the URL: --competition {match.group(1)}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", text):
        raise UsageError(
            f"{text!r} is no competition slug: letters, digits and hyphens, the last part of the "
            f"competition's URL, for example {DEFAULT_COMPETITION}"
        )
    return text


# --- folders ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Paths:
    """Where each stage's output lies: data/raw -> data/processed -> data/models -> submissions."""

    raw: Path = Path("data/raw")
    processed: Path = Path("data/processed")
    models: Path = Path("data/models")
    submissions: Path = Path("submissions")


# --- networks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelConfig:
    """A ResNet of BasicBlocks: a 3x3 stem, stages, global average pooling, one linear layer.

    `widths`, `blocks` and `strides` have one entry a stage.
    """

    name: str
    stem: int  # channels of the 3x3 stem
    widths: tuple[int, ...]  # channels
    blocks: tuple[int, ...]  # BasicBlocks
    strides: tuple[int, ...]  # of a stage's first block

    def __post_init__(self) -> None:
        """Refuse stages whose descriptions differ in length."""
        if not len(self.widths) == len(self.blocks) == len(self.strides):
            raise UsageError(f"model {self.name}: widths, blocks and strides differ in length")


MODELS = {
    model.name: model
    for model in (
        # The paper's network, 4,893,566 parameters: recovered from its memory table (18.67 MB of parameters).
        ModelConfig("paper", 36, (36, 72, 144, 256, 64), (3, 3, 3, 3, 1), (1, 2, 2, 2, 2)),
        # Small enough for a rehearsal on two CPU cores, with the same building blocks.
        ModelConfig("rehearsal", 16, (16, 32, 64), (1, 1, 1), (2, 2, 2)),
        # torchvision's ResNets with a CIFAR stem: the paper's baselines, over the competition's budget.
        ModelConfig("resnet18", 64, (64, 128, 256, 512), (2, 2, 2, 2), (1, 2, 2, 2)),
        ModelConfig("resnet34", 64, (64, 128, 256, 512), (3, 4, 6, 3), (1, 2, 2, 2)),
    )
}


# --- recipes ----------------------------------------------------------------------------------------------

ValidationSet = Literal["split", "test_batch"]


@dataclass(frozen=True)
class TrainConfig:
    """A training run: everything that decides which weights come out, but for the images themselves."""

    preset: str
    model: ModelConfig
    validation: ValidationSet = "split"  # "test_batch" is the paper's protocol, and optimistic
    validation_fraction: float = 0.1  # of the training images, stratified; only for "split"
    epochs: int = 80
    warmup_epochs: float = 5.0  # the rate rises linearly from 0, then falls linearly to 0 at the end
    batch_size: int = 128
    learning_rate: float = 1e-3  # the peak; Adam
    weight_decay: float = 1e-4  # Adam's own (coupled) L2 penalty, on all parameters
    label_smoothing: float = 0.1
    crop_padding: int = 4  # pixels of black on each side before the random crop
    flip: bool = True  # horizontally, for half of the images
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that make no sense, before anything is spent."""
        _require(self.epochs >= 1, f"--epochs {self.epochs}: at least 1")
        _require(self.batch_size >= 2, f"--batch-size {self.batch_size}: at least 2 (batch normalisation)")
        _require(0 <= self.warmup_epochs <= self.epochs, "warm-up is longer than the run: lower warmup_epochs")
        _require(self.learning_rate > 0, "learning_rate: above 0")
        _require(0 < self.validation_fraction < 1, "validation_fraction: between 0 and 1")
        _require(0 <= self.label_smoothing < 1, "label_smoothing: from 0 to below 1")
        _require(0 <= self.seed < 2**31, "--seed: from 0 to 2147483647")

    def with_epochs(self, epochs: int) -> Self:
        """The same recipe over `epochs`, its warm-up in the same proportion."""
        return dataclasses.replace(self, epochs=epochs, warmup_epochs=self.warmup_epochs * epochs / self.epochs)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for config.json."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            BadData: for unknown or missing keys, as a run of another version has them.
        """
        try:
            model: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["model"].items()}
            return cls(**{**values, "model": ModelConfig(**model)})
        except (TypeError, KeyError, AttributeError) as error:
            raise BadData(f"this run's config.json is of another version of the pipeline ({error})") from error


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


PRESETS = {
    preset.preset: preset
    for preset in (
        # The paper, exactly: network, recipe and protocol (best epoch on the labelled test_batch).
        TrainConfig("paper", MODELS["paper"], validation="test_batch"),
        # For the rehearsal: minutes on two CPU cores.  Flipping would turn digits into other digits.
        TrainConfig("rehearsal", MODELS["rehearsal"], epochs=12, warmup_epochs=2, batch_size=64, flip=False,
                    crop_padding=2),
    )
}  # fmt: skip


def fingerprint(values: object) -> str:
    """sha256 (hex) of JSON-like `values`: equal values, equal fingerprint."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
