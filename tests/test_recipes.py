import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import fingerprint
from pipeline.errors import UsageError
from pipeline.recipes import MODELS, PRESETS, TrainConfig, options
from pipeline.store.manifest import from_json

OLD = Path(__file__).parent / "old/models/old-run/config.json"


def test_the_paper_preset_is_the_papers_recipe() -> None:
    paper = PRESETS["paper"]
    assert (paper.model.stem, paper.model.widths) == (36, (36, 72, 144, 256, 64))
    assert (paper.model.blocks, paper.model.strides) == ((3, 3, 3, 3, 1), (1, 2, 2, 2, 2))
    assert (paper.learning_rate, paper.weight_decay, paper.label_smoothing) == (1e-3, 1e-4, 0.1)
    assert (paper.batch_size, paper.epochs, paper.warmup_epochs, paper.crop_padding) == (128, 80, 5, 4)
    assert paper.flip == "random" and paper.validation == "test_batch"


def test_other_epochs_keep_the_warm_ups_share_unless_it_is_given() -> None:
    assert PRESETS["paper"].changed({"epochs": 16, "seed": None}).warmup_epochs == pytest.approx(1.0)
    assert PRESETS["paper"].changed({"epochs": 16, "warmup_epochs": 3.0}).warmup_epochs == 3.0


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_config_survives_json(preset: TrainConfig) -> None:
    again = from_json(TrainConfig, preset.to_dict())
    assert again == preset and fingerprint(again.to_dict()) == fingerprint(preset.to_dict())


def test_a_run_from_before_options_were_retired_is_read_if_it_did_not_use_them() -> None:
    stored = json.loads(OLD.read_bytes())["config"]
    assert stored["erasing"] == 0.0
    changed = {"model": from_json(TrainConfig, stored).model, "epochs": 2, "batch_size": 32, "warmup_epochs": 1 / 3}
    assert from_json(TrainConfig, stored) == dataclasses.replace(PRESETS["rehearsal"], **changed)
    for used in ({"erasing": 0.5}, {"policy": "augmix"}, {"ricap": 0.3}, {"model": {**stored["model"], "se": 8}}):
        with pytest.raises(TypeError, match=r"erasing|policy|ricap|se, which is unknown"):
            from_json(TrainConfig, {**stored, **used})


# Of each option with a range: a value below it, if there is one, and a value above.
OUTSIDE: dict[str, tuple[Any, ...]] = {
    "validation_fraction": (0.0, 1.0), "epochs": (0,), "batch_size": (1,), "seed": (-1, 2**31),
    "learning_rate": (0.0, float("inf"), float("nan")), "momentum": (-0.1, 1.0), "weight_decay": (-1.0,),
    "warmup_epochs": (-1.0, 81.0), "early_stopping": (-1,), "label_smoothing": (-0.1, 1.0), "dropout": (-0.1, 1.0),
    "ema_decay": (-0.1, 1.0), "crop_padding": (-1, 17), "cutout": (-1, 33), "mixup": (-0.1,), "cutmix": (-0.1,),
    "distillation_weight": (-0.1, 1.1), "distillation_temperature": (0.0,),
}  # fmt: skip


def test_every_number_has_a_range() -> None:
    assert OUTSIDE.keys() == {name for name, option in options().items() if option.kind in (int, float)}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OUTSIDE.items() for value in values])
def test_a_value_outside_its_range_is_a_usage_error(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^--{name.replace('_', '-')} {value:.10g}: must be (at|above) "):
        dataclasses.replace(PRESETS["paper"], **{name: value})


def test_descriptions_that_fit_no_model_are_refused() -> None:
    with pytest.raises(UsageError, match="differ in length"):
        dataclasses.replace(MODELS["paper"], widths=(1, 2))
