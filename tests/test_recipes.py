import dataclasses

import pytest

from pipeline.config import fingerprint
from pipeline.errors import BadData, UsageError
from pipeline.recipes import MODELS, PRESETS, TrainConfig


def test_the_paper_preset_is_the_papers_recipe() -> None:
    paper = PRESETS["paper"]
    assert (paper.model.stem, paper.model.widths) == (36, (36, 72, 144, 256, 64))
    assert (paper.model.blocks, paper.model.strides) == ((3, 3, 3, 3, 1), (1, 2, 2, 2, 2))
    assert (paper.learning_rate, paper.weight_decay, paper.label_smoothing) == (1e-3, 1e-4, 0.1)
    assert (paper.batch_size, paper.epochs, paper.warmup_epochs, paper.crop_padding) == (128, 80, 5, 4)
    assert paper.flip == "random" and paper.validation == "test_batch"


def test_fewer_epochs_keep_the_warm_ups_share() -> None:
    assert PRESETS["paper"].with_epochs(16).warmup_epochs == pytest.approx(1.0)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_config_survives_json(preset: TrainConfig) -> None:
    assert TrainConfig.from_dict(preset.to_dict()) == preset
    assert fingerprint(preset.to_dict()) == fingerprint(TrainConfig.from_dict(preset.to_dict()).to_dict())


@pytest.mark.parametrize("change", [{"unknown": 1}, {"model": {"name": "x"}}, {"model": None}])
def test_a_config_of_another_version_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadData, match="another version"):
        TrainConfig.from_dict({**PRESETS["paper"].to_dict(), **change})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": 1}, "--batch-size 1"),
        ({"seed": -1}, "--seed"),
        ({"warmup_epochs": 81.0}, "--warmup-epochs 81"),
        ({"learning_rate": 0.0}, "--learning-rate 0"),
        ({"label_smoothing": 1.0}, "--label-smoothing 1"),
        ({"dropout": 1.0}, "--dropout 1"),
        ({"ema_decay": 1.0}, "--ema-decay 1"),
        ({"momentum": -0.1}, "--momentum -0.1"),
        ({"weight_decay": -1.0}, "--weight-decay -1"),
        ({"erasing": 1.5}, "--erasing 1.5"),
        ({"cutout": 33}, "--cutout 33"),
        ({"crop_padding": 17}, "--crop-padding 17"),
        ({"early_stopping": -1}, "--early-stopping"),
        ({"validation_fraction": 1.0}, "--validation-fraction"),
        ({"distillation_weight": 2.0}, "--distillation-weight 2"),
        ({"distillation_temperature": 0.0}, "--distillation-temperature"),
        ({"cutmix": 1.0, "ricap": 0.3}, "--cutmix and --ricap both mix whole images: keep one"),
        ({"mixup": 0.2, "cutmix": 1.0}, "--mixup and --cutmix"),
    ],
)
def test_values_that_make_no_sense_are_usage_errors(change: dict[str, float], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        dataclasses.replace(PRESETS["paper"], **change)  # type: ignore[arg-type]


def test_a_model_whose_stages_disagree_is_refused() -> None:
    with pytest.raises(UsageError, match="differ in length"):
        dataclasses.replace(MODELS["paper"], widths=(1, 2))
