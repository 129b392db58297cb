"""A command as text, and the options that give a recipe, which are the recipe again."""

import dataclasses
from pathlib import Path

import pytest

from pipeline import cli, commands, recipes, train
from pipeline.config import DEFAULT_COMPETITION, Paths
from pipeline.errors import BadData
from pipeline.recipes import MODELS, PRESETS, TrainConfig
from tests.test_cli import EFFECTS

MOCK = "python -m pipeline.rehearsal -- "


@pytest.mark.parametrize(
    ("stage", "slug", "paths", "more", "text"),
    [
        ("train", DEFAULT_COMPETITION, Paths(), [], "python -m pipeline.train"),
        (
            "train", "tiny", Paths(raw=Path("downloads"), models=Path("my runs")), [],
            "python -m pipeline.train --competition tiny --models 'my runs'",
        ),
        (  # a run knows its competition
            "predict", "tiny", Paths(models=Path("my runs")), ["--out", "a b.csv"],
            "python -m pipeline.predict --models 'my runs' --out 'a b.csv'",
        ),
        # In a rehearsal what asks Kaggle asks the mock server, and train has its own preset.
        (
            "check", "rehearsal-digits", Paths(), [],
            f"{MOCK}python -m pipeline.check --competition rehearsal-digits",
        ),
        ("submit", "rehearsal-digits", Paths(), [], f"{MOCK}python -m pipeline.submit"),
        ("submit", "rehearsal-mine", Paths(), [],
         "python -m pipeline.rehearsal --folder DIR -- python -m pipeline.submit"),
        ("train", "rehearsal-digits", Paths(), [],
         "python -m pipeline.train --competition rehearsal-digits --preset rehearsal"),
        ("train", "rehearsal-digits", Paths(), ["--preset", "fast"],
         "python -m pipeline.train --competition rehearsal-digits --preset fast"),
    ],
)  # fmt: skip
def test_a_command_finds_the_same_competition_and_folders(
    stage: str, slug: str, paths: Paths, more: list[str], text: str
) -> None:
    assert commands.command(stage, slug, paths, *more) == text


def test_the_default_competition_is_named_where_a_variable_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(commands.COMPETITION, "tiny")
    named = f"python -m pipeline.train --competition {DEFAULT_COMPETITION}"
    assert commands.command("train", DEFAULT_COMPETITION, Paths()) == named


def test_a_served_folder_is_named_while_it_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(commands.SERVED, "--folder 'My Files' --labels l.csv")
    command = "python -m pipeline.rehearsal --folder 'My Files' --labels l.csv -- python -m pipeline.submit"
    assert commands.command("submit", "rehearsal-my-files", Paths()) == command


def parsed(options: list[str], taught: bool = False) -> TrainConfig:
    """The recipe that train would train."""
    context = train.command.make_context("train", list(options))
    given = {name: context.params[name] for name in (*recipes.options(), "model")}
    return cli.recipe(context.params["preset"], given, taught=taught)


@pytest.mark.parametrize("options", [*EFFECTS.values(), ["--model", "fast"]], ids=[*EFFECTS, "model"])
@pytest.mark.parametrize("preset", ["rehearsal", "best"])
def test_every_option_comes_back(preset: str, options: list[str]) -> None:
    config = parsed(["--preset", preset, *options])
    assert parsed(commands.arguments(config)) == config


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0.1 / 3, "epochs": 7, "warmup_epochs": 1 / 3},
        {"epochs": 48},  # with the warm-up of 24
        {"model": MODELS["paper"], "decay_norms": False},
    ],
)
def test_numbers_come_back_to_the_last_digit_and_a_warm_up_of_its_own_stays(changes: dict[str, object]) -> None:
    config = dataclasses.replace(PRESETS["fast"], **changes)  # type: ignore[arg-type]
    assert parsed(commands.arguments(config)) == config


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


def test_teachers_and_pseudo_labels_are_options_as_well() -> None:
    config = dataclasses.replace(
        PRESETS["rehearsal"], teachers=("a@12", "b@34"), pseudo_labels="mine/sub.csv@56", model=MODELS["resnet18"]
    )
    assert commands.in_full(config) == [
        "--preset", "rehearsal", "--model", "resnet18", "--teacher", "a", "b",
        "--pseudo-labels", "mine/sub.csv", "--rules-allow-pseudo-labels", "--allow-over-limit",
    ]  # fmt: skip
