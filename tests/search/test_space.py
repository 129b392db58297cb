import dataclasses

import pytest

from pipeline.errors import UsageError
from pipeline.recipes import MODELS, PRESETS
from pipeline.search.specs import parse


def test_a_config_is_the_base_with_the_trials_values() -> None:
    space = parse(PRESETS["fast"].with_epochs(2), ["learning_rate=log:0.02:1", "model=fast,wide"])
    expected = dataclasses.replace(PRESETS["fast"].with_epochs(2), learning_rate=0.3, model=MODELS["wide"])
    assert space.config({"learning_rate": 0.3, "model": "wide"}) == expected


def test_searched_epochs_keep_the_warmups_share() -> None:
    space = parse(PRESETS["fast"], ["epochs=int:1:24", "warmup_epochs=0:1"])
    share = PRESETS["fast"].warmup_epochs / PRESETS["fast"].epochs
    assert space.config({"epochs": 18}).warmup_epochs == pytest.approx(18 * share)
    assert space.config({"epochs": 18, "warmup_epochs": 0.5}).warmup_epochs == 0.5


def test_only_fields_with_more_than_one_value_are_varied() -> None:
    assert parse(PRESETS["fast"], ["seed=3", "dropout=0:0.3", "flip=none,random"]).varied == ["dropout", "flip"]


def test_a_combination_may_be_refused_where_each_value_has_others_that_it_goes_with() -> None:
    space = parse(PRESETS["fast"], ["cutmix=0,1", "ricap=0,0.3"])
    with pytest.raises(UsageError, match="--cutmix and --ricap both mix whole images"):
        space.config({"cutmix": 1.0, "ricap": 0.3})


def test_a_value_that_no_combination_allows_is_refused_beforehand() -> None:
    with pytest.raises(UsageError, match=r"--search cutmix: 1\.0 is refused in every trial .*--ricap"):
        parse(PRESETS["best"], ["cutmix=0,1"])  # best has ricap
    assert parse(PRESETS["best"], ["cutmix=0,1", "ricap=0,0.3"])
