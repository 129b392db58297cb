"""A recipe in options: what they give is the recipe again."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli, commands, recipes, train
from pipeline.config import DEFAULT_COMPETITION, PARAMETER_LIMIT, Paths
from pipeline.errors import BadData
from pipeline.model.summary import summarise
from pipeline.recipes import MODELS, PRESETS, TrainConfig
from tests.test_cli_recipes import EFFECTS


def parsed(options: list[str], taught: bool = False) -> TrainConfig:
    """The recipe that train would train."""
    context = train.command.make_context("train", cli.spread(options, "--teacher"))
    recipe: dict[str, Any] = {
        name: value for name, value in context.params.items() if name in {*recipes.options(), "model", "se"}
    }
    return cli.recipe(context.params["preset"], recipe, taught=taught)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_needs_no_more_than_its_name(preset: str) -> None:
    assert commands.arguments(PRESETS[preset]) == ["--preset", preset]


@pytest.mark.parametrize("field", EFFECTS)
@pytest.mark.parametrize("preset", ["rehearsal", "best"])
def test_every_option_comes_back(preset: str, field: str) -> None:
    options = [*EFFECTS[field]]
    if preset == "best" and field in ("mixup", "cutmix"):
        options += ["--ricap", "0"]
    config = parsed(["--preset", preset, *options])
    assert parsed(commands.arguments(config)) == config


def test_numbers_come_back_to_the_last_digit_and_a_warm_up_of_its_own_stays() -> None:
    config = dataclasses.replace(PRESETS["fast"], learning_rate=0.1 / 3, epochs=7, warmup_epochs=1 / 3)
    assert parsed(commands.arguments(config)) == config
    longer = dataclasses.replace(PRESETS["fast"], epochs=48)  # with the warm-up of 24
    assert parsed(commands.arguments(longer)) == longer
    wide = dataclasses.replace(PRESETS["fast"], model=dataclasses.replace(MODELS["wide"], se=0), decay_norms=True)
    assert parsed(commands.arguments(wide)) == wide


def test_what_has_no_effect_is_left_out() -> None:
    config = dataclasses.replace(PRESETS["paper"], momentum=0.5, validation_fraction=0.2, distillation_weight=0.1)
    assert commands.arguments(config) == ["--preset", "paper"]
    taught = dataclasses.replace(config, teachers=("a@1",), optimizer="sgd", validation="split")
    assert parsed(commands.arguments(taught), taught=True) == dataclasses.replace(taught, teachers=())


def test_what_this_version_cannot_say_is_refused() -> None:
    other = dataclasses.replace(PRESETS["fast"].model, stem=24, widths=(64, 160, 321))
    for config in (
        dataclasses.replace(PRESETS["fast"], preset="slow"),
        dataclasses.replace(PRESETS["fast"], model=other),
        dataclasses.replace(PRESETS["fast"], model=dataclasses.replace(other, name="mine")),
    ):
        with pytest.raises(BadData, match="of another version of the pipeline"):
            commands.arguments(config)


def test_the_baselines_are_the_networks_over_the_budget() -> None:
    over = [name for name, model in MODELS.items() if summarise(model).trainable > PARAMETER_LIMIT]
    assert sorted(over) == sorted(commands.OVER_LIMIT)


def test_who_taught_a_network_is_an_option_as_well() -> None:
    config = dataclasses.replace(
        PRESETS["rehearsal"], teachers=("a@12", "b@34"), pseudo_labels="sub.csv@56", model=MODELS["resnet18"]
    )
    assert commands.in_full(config, Path("submissions")) == [
        "--preset", "rehearsal", "--model", "resnet18", "--teacher", "a", "b",
        "--pseudo-labels", "submissions/sub.csv", "--rules-allow-pseudo-labels", "--allow-over-limit",
    ]  # fmt: skip


def test_a_command_names_what_is_not_the_default() -> None:
    assert commands.command("train", DEFAULT_COMPETITION, Paths()) == "python -m pipeline.train"
    paths = Paths(raw=Path("downloads"), models=Path("my runs"))
    assert commands.command("train", "tiny", paths) == "python -m pipeline.train --competition tiny --models 'my runs'"
    # A run knows its competition.
    assert commands.command("predict", "tiny", paths, "--out", "a b.csv") == (
        "python -m pipeline.predict --models 'my runs' --out 'a b.csv'"
    )
    assert commands.command("kernel fetch", "tiny", Paths()) == "python -m pipeline.kernel fetch"


def test_a_rehearsal_goes_on_at_the_stand_in() -> None:
    at_standin = "python -m pipeline.rehearsal -- "
    assert commands.command("check", "rehearsal-digits", Paths()) == (
        f"{at_standin}python -m pipeline.check --competition rehearsal-digits"
    )
    assert commands.command("submit", "rehearsal-digits", Paths()).startswith(at_standin)
    assert commands.command("predict", "rehearsal-digits", Paths()) == "python -m pipeline.predict"
    train = commands.command("train", "rehearsal-digits", Paths())
    assert train == "python -m pipeline.train --competition rehearsal-digits --preset rehearsal"
    assert commands.command("train", "rehearsal-digits", Paths(), "--preset", "fast").count("--preset") == 1


def test_a_script_runs_what_follows_itself() -> None:
    said: list[str] = []
    commands.announce("python -m pipeline.train", said.append, {commands.SCRIPT: "run_all.sh"})
    assert said == []
    commands.announce("python -m pipeline.train", said.append, {})
    assert said == ["next: python -m pipeline.train"]
