"""Every option of a recipe: it is there, it arrives, it takes effect, and nonsense is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline import cli, recipes, train
from pipeline.errors import UsageError
from pipeline.recipes import PRESETS, flag
from pipeline.store.runs import Run
from tests.training.tiny import SLUG, take_float32, write_tiny

# A value for each field that differs from preset `rehearsal`'s, with what it needs beside it.
EFFECTS: dict[str, list[str]] = {
    "validation": ["--validation", "test_batch"],
    "validation_fraction": ["--validation-fraction", "0.2"],
    "epochs": ["--epochs", "2"],
    "batch_size": ["--batch-size", "32"],
    "seed": ["--seed", "1"],
    "optimizer": ["--optimizer", "sgd"],
    "learning_rate": ["--learning-rate", "0.01"],
    "momentum": ["--optimizer", "sgd", "--momentum", "0.5"],
    "weight_decay": ["--weight-decay", "0.1"],
    "decay_norms": ["--no-decay-norms"],
    "schedule": ["--schedule", "cosine"],
    "warmup_epochs": ["--warmup-epochs", "0"],
    "early_stopping": ["--epochs", "6", "--learning-rate", "1e-9", "--early-stopping", "1"],
    "label_smoothing": ["--label-smoothing", "0"],
    "dropout": ["--dropout", "0.5"],
    "ema_decay": ["--ema-decay", "0.5"],
    "crop_padding": ["--crop-padding", "0"],
    "flip": ["--flip", "random"],
    "policy": ["--policy", "trivialaugment"],
    "cutout": ["--cutout", "8"],
    "mixup": ["--mixup", "1"],
    "cutmix": ["--cutmix", "1"],
    "ricap": ["--ricap", "0.3"],
    "se": ["--se", "4"],
    "model": ["--model", "fast"],
}
NEEDS_TEACHER = {"distillation_weight", "distillation_temperature"}  # see tests/test_train.py


def trained(place: Path, name: str, *options: str) -> Run:
    folders = ["--processed", str(place / "processed"), "--models", str(place / "models"), "--device", "cpu"]
    recipe = ["--preset", "rehearsal", "--epochs", "1", "--competition", SLUG, "--run", name]
    assert train.main([*recipe, *folders, *options]) == 0
    return Run.open(place / "models", name)


@pytest.fixture(scope="module", autouse=True)
def float32() -> Iterator[None]:
    """Or another precision could be what makes the weights differ."""
    with pytest.MonkeyPatch.context() as patch:
        take_float32(patch)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    write_tiny(folder / "processed", train=200, test=40)
    trained(folder, "base")
    trained(folder, "sgd", "--optimizer", "sgd")
    return folder


def test_every_field_has_an_option_and_a_test() -> None:
    assert set(recipes.options()) == EFFECTS.keys() - {"se", "model"} | NEEDS_TEACHER


@pytest.mark.parametrize("field", EFFECTS)
def test_each_option_takes_effect(place: Path, field: str) -> None:
    run = trained(place, f"with-{field}", *EFFECTS[field])
    base = Run.open(place / "models", "sgd" if field == "momentum" else "base")
    if field == "early_stopping":
        assert run.result.epochs < 6  # a rate that changes nothing brings nothing
    else:
        assert run.weights_sha256 != base.weights_sha256


def test_other_policies_and_schedules_differ_too(place: Path) -> None:
    options = [("--policy", "trivialaugment"), ("--schedule", "step"),
               ("--schedule", "one-cycle"), ("--flip", "alternating"), ("--flip", "random"),
               ("--optimizer", "adamw"), ("--optimizer", "rmsprop")]  # fmt: skip
    runs = [trained(place, f"value-{value}", flag_, value, "--epochs", "2") for flag_, value in options]
    assert len({run.weights_sha256 for run in runs}) == len(runs)


def test_help_names_every_option() -> None:
    shown = CliRunner().invoke(train.command, ["--help"]).output
    assert all(flag(name) in shown for name in recipes.options())


def test_what_is_not_given_stays_the_presets() -> None:
    assert cli.recipe("fast", dict.fromkeys(recipes.options())) == PRESETS["fast"]


def test_epochs_take_the_warm_up_along_unless_it_is_given() -> None:
    assert cli.recipe("paper", {"epochs": 16}).warmup_epochs == pytest.approx(1.0)
    assert cli.recipe("paper", {"epochs": 16, "warmup_epochs": 3.0}).warmup_epochs == 3.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cutmix": 1.0, "ricap": 0.3}, "--cutmix and --ricap both mix whole images: keep one"),
        ({"momentum": 0.5}, "--momentum belongs to --optimizer sgd or rmsprop, and this run has adam"),
        (
            {"validation": "test_batch", "validation_fraction": 0.2},
            "--validation-fraction belongs to --validation split",
        ),
        ({"distillation_weight": 0.5}, "--distillation-weight belongs to --teacher"),
        ({"epochs": 0}, "--epochs 0: at least 1"),
        ({"warmup_epochs": 99.0}, "--warmup-epochs 99"),
        ({"se": 17}, "--se 17"),
    ],
)
def test_combinations_that_make_no_sense_name_the_fix(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cli.recipe("rehearsal", given)


@pytest.mark.parametrize(
    "arguments",
    [["--optimizer", "adagrad"], ["--cutmix", "1", "--mixup", "1"], ["--learning-rate", "fast"], ["--lr", "1"]],
)
def test_they_are_refused_before_any_data_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    # Missing data would be exit code 3.
    assert train.main(["--processed", str(tmp_path / "none"), "--models", str(tmp_path / "m"), *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(tmp_path.iterdir())
