"""A recipe in options: what they give is the recipe again."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli, cli_recipes, train
from pipeline.config import PARAMETER_LIMIT
from pipeline.errors import BadData
from pipeline.model.summary import summarise
from pipeline.recipes import MODELS, PRESETS, TrainConfig
from tests.test_cli_recipes import EFFECTS


def parsed(options: list[str], taught: bool = False) -> TrainConfig:
    """The recipe that train would train."""
    context = train.command.make_context("train", cli.spread(options, "--teacher"))
    recipe: dict[str, Any] = {
        name: value for name, value in context.params.items() if name in {*cli_recipes.fields(), "model", "se"}
    }
    return cli_recipes.chosen(context.params["preset"], recipe, taught=taught)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_needs_no_more_than_its_name(preset: str) -> None:
    assert cli_recipes.arguments(PRESETS[preset]) == ["--preset", preset]


@pytest.mark.parametrize("field", EFFECTS)
@pytest.mark.parametrize("preset", ["rehearsal", "best"])
def test_every_option_comes_back(preset: str, field: str) -> None:
    options = [*EFFECTS[field]]
    if preset == "best" and field in ("mixup", "cutmix"):
        options += ["--ricap", "0"]
    config = parsed(["--preset", preset, *options])
    assert parsed(cli_recipes.arguments(config)) == config


def test_numbers_come_back_to_the_last_digit_and_a_warm_up_of_its_own_stays() -> None:
    config = dataclasses.replace(PRESETS["fast"], learning_rate=0.1 / 3, epochs=7, warmup_epochs=1 / 3)
    assert parsed(cli_recipes.arguments(config)) == config
    longer = dataclasses.replace(PRESETS["fast"], epochs=48)  # with the warm-up of 24
    assert parsed(cli_recipes.arguments(longer)) == longer
    wide = dataclasses.replace(PRESETS["fast"], model=dataclasses.replace(MODELS["wide"], se=0), decay_norms=True)
    assert parsed(cli_recipes.arguments(wide)) == wide


def test_what_has_no_effect_is_left_out() -> None:
    config = dataclasses.replace(PRESETS["paper"], momentum=0.5, validation_fraction=0.2, distillation_weight=0.1)
    assert cli_recipes.arguments(config) == ["--preset", "paper"]
    taught = dataclasses.replace(config, teachers=("a@1",), optimizer="sgd", validation="split")
    assert parsed(cli_recipes.arguments(taught), taught=True) == dataclasses.replace(taught, teachers=())


def test_what_this_version_cannot_say_is_refused() -> None:
    other = dataclasses.replace(PRESETS["fast"].model, stem=24, widths=(64, 160, 321))
    for config in (
        dataclasses.replace(PRESETS["fast"], preset="slow"),
        dataclasses.replace(PRESETS["fast"], model=other),
        dataclasses.replace(PRESETS["fast"], model=dataclasses.replace(other, name="mine")),
    ):
        with pytest.raises(BadData, match="of another version of the pipeline"):
            cli_recipes.arguments(config)


def test_the_baselines_are_the_networks_over_the_budget() -> None:
    over = [name for name, model in MODELS.items() if summarise(model).trainable > PARAMETER_LIMIT]
    assert sorted(over) == sorted(cli_recipes.OVER_LIMIT)


def test_who_taught_a_network_is_an_option_as_well() -> None:
    config = dataclasses.replace(
        PRESETS["rehearsal"], teachers=("a@12", "b@34"), pseudo_labels="sub.csv@56", model=MODELS["resnet18"]
    )
    assert cli_recipes.in_full(config, Path("submissions")) == [
        "--preset", "rehearsal", "--model", "resnet18", "--teacher", "a", "b",
        "--pseudo-labels", "submissions/sub.csv", "--rules-allow-pseudo-labels", "--allow-over-limit",
    ]  # fmt: skip
