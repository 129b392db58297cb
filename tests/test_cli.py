"""The command lines' common half: options, help, errors; and every option of a recipe, through train itself."""

import io
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline import cli, console, recipes, train
from pipeline.errors import BadData, NetworkError, UsageError
from pipeline.store.runs import Run
from tests.support import ROOT, clean_environment, error_line, here
from tests.training.tiny import SLUG, write_tiny


@pytest.mark.parametrize(
    ("given", "spread"),
    [
        ("--run A B C --out x", "--run A --run B --run C --out x"),
        ("--out x --run A B", "--out x --run A --run B"),
        ("--run=A B --force", "--run=A --run B --force"),
        ("--run A --force B", "--run A --force B"),
        ("--run --out x", "--run --out x"),
    ],
)
def test_an_option_is_spread_over_its_values(given: str, spread: str) -> None:
    assert cli.spread(given.split(), ["--run"]) == spread.split()


@pytest.mark.parametrize(("module", "more"), [("train", ""), ("rehearsal", ""), ("train", "sys.version_info = 3, 9; ")])
def test_without_the_environment_a_command_says_how_to_get_it(module: str, more: str) -> None:
    bare = [sys.executable, "-I", "-S", "-c"]  # the standard library alone
    start = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); sys.orig_argv = ['-m', 'pipeline.{module}']; "
    result = subprocess.run(
        [*bare, f"{start}{more}runpy.run_module('pipeline.{module}', run_name='__main__')"],
        env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    assert "source .venv/bin/activate" in result.stderr


# --- a command that is spelt otherwise -------------------------------------------------------------------------


def refused(module: str, *arguments: str, cwd: Path, **environ: str) -> str:
    """What follows "error: " where a command is no command."""
    return error_line(here(module, *arguments, cwd=cwd, environ={**clean_environment(), **environ}), 2)[7:]


def test_a_stage_runs_by_one_word_or_two(tmp_path: Path) -> None:
    assert "parts never import stages" in here("__main__", cwd=tmp_path).stdout
    for name in ("train", "kernel", "model", "rehearsal"):  # a stage, a group and the commands of packages
        helps = here("__main__", name, "--help", cwd=tmp_path)
        assert helps.stdout.startswith(f"Usage: python -m pipeline.{name} "), helps.stderr
    assert here("__main__", "pipeline.predict", "--run", "x", cwd=tmp_path).returncode == 3
    assert refused("__main__", "trian", cwd=tmp_path).startswith("there is no stage trian: did you mean train? (")
    assert refused("__main__", "train", "--epochs", "0", cwd=tmp_path) == "--epochs 0: must be at least 1"


@pytest.mark.parametrize(
    ("words", "works"),
    [
        *((words, "-m pipeline train --lr 1") for words in ("train.py --lr 1", "-m train --lr 1")),
        *((words, "-m pipeline") for words in (".", "__main__.py")),
        *((words, words) for words in ("-m pipeline", "-m pipeline.train --lr 1", "-umpipeline.train")),
    ],
)
def test_a_stage_that_is_run_as_a_file_names_the_command_that_works(words: str, works: str) -> None:
    command = [sys.executable, *words.split()]
    result = subprocess.run(command, cwd=ROOT / "pipeline", capture_output=True, text=True, check=False)
    assert error_line(result, 2) == f"error: a stage runs from the project's folder: cd {ROOT} && python {works}"


FOREIGN_OPTIONS = {  # and the command that is meant
    "train --lr 1": "--learning-rate 1",
    "train -lr=1 --wd 0 --bs 8 --num-epochs 3": "--learning-rate=1 --weight-decay 0 --batch-size 8 --epochs 3",
    "train --batch 8 --arch fast": "--batch-size 8 --model fast",
    "train --Batch_Size 8 -e 3 --random-seed 1": "--batch-size 8 --epochs 3 --seed 1",
    "train --smoothing 0 --ema 0.9 --warmup 1": "--label-smoothing 0 --ema-decay 0.9 --warmup-epochs 1",
    "train --learning-rate -1 --opt sgd --gpu": "--learning-rate -1 --optimizer sgd --device=cuda",
    "train --drop 0.1 --exp-name 'my run'": "--dropout 0.1 --run 'my run'",
    "submit -f x.csv -c tiny": "--csv x.csv --competition tiny",
    "predict --output x.csv --run-name a": "--out x.csv --run a",
    "kernel push --lr 1": "--learning-rate 1",
}


@pytest.mark.parametrize("given", FOREIGN_OPTIONS)
def test_an_option_by_another_programs_name_is_answered_with_the_command(tmp_path: Path, given: str) -> None:
    module, *words = shlex.split(given)
    command = f"python -m pipeline.{given[: given.index(' -')]} {FOREIGN_OPTIONS[given]}"
    message = refused(module, *words, cwd=tmp_path)
    assert message.startswith("there is no option -") and message.endswith(f"; try: {command}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--gpu 0 --lr 1", "there is no option --gpu; try: --device=cuda"),  # and the rest would be refused again
        *((words, f"No such option '{words.split()[0]}'. (--help shows the options)")  # nothing resembles it
          for words in ("--resume -- x", "--num-workers 1", "--time-limit 1", "--no-amp", "-s 1", "-v")),
    ],
)  # fmt: skip
def test_no_wrong_command_is_proposed(tmp_path: Path, given: str, message: str) -> None:
    assert refused("train", *given.split(), cwd=tmp_path) == message


def test_within_a_script_the_option_alone_is_named(tmp_path: Path) -> None:
    words = ["--epochs", "3", "--lr=1", "--wd", "0"]
    message = refused("train", *words, cwd=tmp_path, PIPELINE_SCRIPT="run_all.sh")
    assert message == "there is no option --lr; try: --learning-rate"


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (BadData("a file\nis wrong"), 4, "error: a file\\nis wrong"),
        (NetworkError("down"), 6, "error: down"),
        (OSError(28, "No space left on device", "x.npy"), 1, "error: x.npy: the disk is full"),
        (PermissionError(13, "Permission denied", "x"), 1, "error: x: Permission denied: change its permissions"),
        (MemoryError(), 1, "error: out of memory"),
        (KeyboardInterrupt(), 130, "error: interrupted; run the same command again"),
        (ZeroDivisionError("ours"), 1, "error: internal error (bug)"),
    ],
)
@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_an_error_is_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str, debug: list[str]
) -> None:
    @cli.stage_command("python -m pipeline.none")
    def command() -> None:
        raise error

    assert cli.run(command, "none", debug) == code
    *traceback, last = capsys.readouterr().err.splitlines()
    assert last.startswith(message)
    assert bool(traceback) is (bool(debug) or isinstance(error, ZeroDivisionError))


def test_a_terminal_in_latin_1_shows_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    @cli.stage_command("python -m pipeline.none")
    def command() -> None:
        console.show("r\u00e9sum\u00e9\u2026")

    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="latin-1", write_through=True))
    assert cli.run(command, "none", []) == 0
    assert shown.getvalue() == b"r\xe9sum\xe9\\u2026\n"


def test_a_second_line_of_an_error_begins_with_two_spaces(tmp_path: Path) -> None:
    result = here("download", cwd=tmp_path)
    assert "put it\n  into ~/.kaggle/access_token" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_a_command_though_its_script_had_it_ignored(number: signal.Signals) -> None:
    @cli.stage_command("python -m pipeline.none")
    def command() -> None:
        signal.raise_signal(number)

    signal.signal(number, signal.SIG_IGN)
    assert cli.run(command, "none", []) == 130


# --- the options of a recipe ----------------------------------------------------------------------------------

SLOW_START = ["--batch-size", "32", "--warmup-epochs", "0.4"]  # two of five steps
# Values that differ from preset `rehearsal`'s, with what they need beside them.
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
    "schedule": ["--schedule", "cosine", *SLOW_START],
    "warmup_epochs": ["--warmup-epochs", "0"],
    "early_stopping": ["--epochs", "6", "--learning-rate", "1e-9", "--early-stopping", "1"],
    "label_smoothing": ["--label-smoothing", "0"],
    "dropout": ["--dropout", "0.5"],
    "ema_decay": ["--ema-decay", "0.5"],
    "crop_padding": ["--crop-padding", "0"],
    "flip": ["--flip", "random"],
    "cutout": ["--cutout", "8"],
    "mixup": ["--mixup", "1"],
    "cutmix": ["--cutmix", "1"],
}
OTHER_VALUES = {
    "schedule": [["--schedule", value, *SLOW_START] for value in ("linear", "step", "one-cycle")],
    "flip": [["--flip", "alternating"]],
    "optimizer": [["--optimizer", "adamw"], ["--optimizer", "muon", "--momentum", "0.6", "--learning-rate", "0.17"]],
}
NEEDS_TEACHER = {"distillation_weight", "distillation_temperature"}  # see tests/test_train.py


def trained(place: Path, *options: str) -> Run:
    folders = ["--processed", str(place / "processed"), "--models", str(place / "models"), "--device", "cpu"]
    recipe = ["--preset", "rehearsal", "--epochs", "1", "--competition", SLUG]
    assert train.main([*recipe, *folders, *options]) == 0
    return Run.open(place / "models", None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    write_tiny(folder / "processed", train=150, test=20)
    return folder


@pytest.fixture(scope="module")
def weights(place: Path) -> dict[str, set[str]]:
    """By field the weights that its other values lead to; a run that has trained before trains once."""
    return {"": {trained(place).weights_sha256}, "momentum": {trained(place, *EFFECTS["optimizer"]).weights_sha256}}


def test_every_field_has_an_option_and_a_test() -> None:
    assert set(recipes.options()) == EFFECTS.keys() | NEEDS_TEACHER


@pytest.mark.parametrize("field", EFFECTS)
def test_each_option_takes_effect(place: Path, weights: dict[str, set[str]], field: str) -> None:
    values = [EFFECTS[field], *OTHER_VALUES.get(field, [])]
    runs = [trained(place, *options) for options in values]
    if field == "early_stopping":
        assert runs[0].result.epochs < 6  # a rate that changes nothing brings nothing
    others = weights["momentum" if field == "momentum" else ""]
    assert len({run.weights_sha256 for run in runs} | others) == len(values) + 1


def test_help_shows_every_option_in_groups_with_the_presets_values() -> None:
    shown = " ".join(CliRunner().invoke(train.command, ["--help"]).output.split())
    headings = [f" {heading}: " for heading in cli.RECIPE_GROUPS.values()]
    assert [shown.count(heading) for heading in headings] == [1] * len(headings)
    assert sorted(headings, key=shown.index) == headings
    for name in recipes.options():
        assert recipes.flag(name) in shown
    for default in (
        "default: 80; fast: 10; strong: 40; best: 200; rehearsal: 12]",
        "(above 0)",
    ):
        assert default in shown


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"momentum": 0.5}, "--momentum belongs to --optimizer sgd or muon, and this run has adam"),
        ({"validation": "test_batch", "validation_fraction": 0.2}, "--validation-fraction belongs to --validation"),
        ({"distillation_weight": 0.5}, "--distillation-weight belongs to --teacher"),
    ],
)
def test_combinations_that_make_no_sense_name_the_fix(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cli.recipe("rehearsal", given)
