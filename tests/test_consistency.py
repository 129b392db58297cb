"""The command lines in one form, and as the README, the map and run_all.sh have them."""

import functools
import importlib
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import click
import pytest

import pipeline
from pipeline import errors
from pipeline.store.submissions import Adapt, Tta
from tests import readme
from tests.support import ROOT

SCRIPT = (ROOT / "run_all.sh").read_text()

# Options of one name that mean something else in another command (a sweep's --epochs are its trials'), or have
# another default there (training takes the preset's --batch-size, predicting what fits).
OTHER_HELP = {"--batch-size", "--competition", "--csv", "--epochs", "--dry-run", "--model", "--out", "--preset",
              "--run", "--seed", "--wait"}  # fmt: skip
OTHER_DEFAULT = {"--batch-size", "--competition", "--model", "--poll", "--preset", "--wait"}
FOREIGN = {"--nproc_per_node", "--run-path"}  # torchrun's


def modules() -> Iterator[str]:
    """The commands' modules: "train", and "model" for pipeline/model/__main__.py."""
    for path in sorted((ROOT / "pipeline").glob("[!_]*.py")) + sorted((ROOT / "pipeline").glob("*/__main__.py")):
        if "@cli.stage_command(" in path.read_text():
            yield path.parent.name if path.stem == "__main__" else path.stem


@functools.cache
def commands() -> dict[str, click.Command]:
    """All commands; those of a group by two words."""
    found: dict[str, click.Command] = {}
    for name in MODULES:
        package = (ROOT / "pipeline" / name / "__main__.py").exists()
        module = importlib.import_module(f"pipeline.{name}.__main__" if package else f"pipeline.{name}")
        known = [value for value in vars(module).values() if isinstance(value, click.Command)]
        groups = [value for value in known if isinstance(value, click.Group)]
        if groups:
            found |= {f"{name} {sub}": value for group in groups for sub, value in group.commands.items()}
        else:
            (found[name],) = known
    return found


MODULES = list(modules())
NAMES = list(commands())


def test_run_all_knows_what_predict_takes() -> None:
    known = {"tta": get_args(Tta), "adapt": get_args(Adapt)}
    named = re.findall(r"--(tta|adapt)=([a-z-]+)", SCRIPT)
    assert sorted(named) == sorted((name, value) for name, values in known.items() for value in values)


def options(name: str) -> list[click.Option]:
    return [p for p in commands()[name].params if isinstance(p, click.Option)]


def flags(name: str) -> set[str]:
    return {flag for p in options(name) for flag in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}


def exit_codes() -> str:
    return f"Exit codes: {', '.join(f'{code} {meaning}' for code, meaning in errors.EXIT_CODES.items())}."


def default(option: click.Option) -> object:
    """None where there is none."""
    return option.to_info_dict()["default"]


def parse(words: Sequence[str]) -> None:
    """Take a command apart with its own parser.

    Raises:
        click.UsageError: one of its options or values is none.
    """
    taken = 1 if words[0] in NAMES else 2
    name, arguments = " ".join(words[:taken]), list(words[taken:])
    if name not in NAMES:
        raise click.UsageError(f"{name}: there is no such command")
    context = commands()[name].make_context(name, arguments)
    rest: Sequence[str] = context.params.get("command", ())  # a rehearsal's
    if tuple(rest[:2]) == ("python", "-m"):
        parse_line(shlex.join(rest))


def parse_line(line: str) -> None:
    """The same for a line; of "a | b" or "source <(a)", the first command of the pipeline's."""
    found = re.search(r"(?:-m|-m --) pipeline(?:\.(\w+))?(?: ([^)|>&;#]*))?", line)
    if found is not None and found[1] is not None and not found[1].isupper():
        parse([found[1], *shlex.split(found[2] or "")])


# --- among themselves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "others"), [("help", OTHER_HELP), ("default", OTHER_DEFAULT)])
def test_an_option_is_the_same_in_every_command(what: str, others: set[str]) -> None:
    """But for the exceptions, and each of these is one: a needless one would hide the next difference."""
    seen: dict[str, set[str]] = {}
    for option in (option for name in NAMES for option in options(name)):
        seen.setdefault(option.opts[0], set()).add(str(default(option) if what == "default" else option.help))
    assert {flag for flag, values in seen.items() if len(values) > 1} == others


@pytest.mark.parametrize("name", NAMES)
def test_help_is_in_one_form(name: str) -> None:
    for option in options(name):
        text, flag = option.help or "", option.opts[0]
        assert text.endswith(".") and not re.search(r"\w\. \w|Repeat|the default|\[default", text), f"{flag}: {text}"
        assert option.show_default or default(option) in (None, (), False), f"{flag}: its default is not shown"
    assert options(name)[-1].opts == ["--debug"]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_examples_that_it_understands(name: str) -> None:
    epilog = commands()[name].epilog or ""
    assert epilog.startswith("\b\nExamples:\n") and epilog.endswith(exit_codes())
    examples = [re.split(r"\s{2,}", line.strip())[0] for line in epilog.splitlines()[2:] if line.startswith("  ")]
    assert any(f"pipeline.{name}" in line for line in examples)
    for line in examples:
        parse_line(line)


# --- with the README, the map, run_all.sh ---------------------------------------------------------------------


def readmes_commands() -> list[str]:
    """The lines of the documents' programs, and what stands between backticks."""
    programs = [block for block in readme.blocks() if block.language]
    lines = [line for block in programs for line in block.text.replace("\\\n", " ").splitlines()]
    return [*lines, *(span for text in readme.DOCUMENTS.values() for span in readme.spans(text))]


def test_the_readmes_commands_are_understood() -> None:
    lines = [line for line in readmes_commands() if "pipeline." in line and "-m" in line]
    assert len(lines) > 5
    for line in lines:
        parse_line(line)


def test_the_readmes_flags_exist() -> None:
    known = set().union(*map(flags, NAMES), FOREIGN, re.findall(r"^  (--[a-z]+)", SCRIPT, flags=re.MULTILINE))
    for line in readmes_commands():
        if not line.startswith(("$ kaggle", "$ git", "$ pip", "torch", "tensorboard", "#SBATCH")):
            found = re.findall(r"(?<![\w-])--[a-z][\w-]*", line)
            assert set(found) <= known, line


def test_commands_that_messages_name_exist() -> None:
    """`python -m pipeline.X --flag` in a string or a docstring is what somebody will type."""
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        for name, rest in re.findall(r"python -m pipeline\.(\w+)((?: [^`\"'\\\n]*)?)", path.read_text()):
            assert name in MODULES or (ROOT / "pipeline" / name).is_dir(), f"{path}: {name}"
            if name in MODULES and name != "rehearsal":
                given = re.findall(r"(?<![\w-])--[a-z][\w-]*", re.split(r"\s{2,}", rest.strip())[0])
                known = set().union(*(flags(other) for other in NAMES if other.split()[0] == name))
                assert set(given) <= known, f"{path}: {name}{rest}"


def test_the_map_has_all_commands() -> None:
    text = pipeline.__doc__ or ""
    assert set(re.findall(r"python -m pipeline\.(\w+)", text)) == set(MODULES)


def test_exit_codes_are_the_same_everywhere() -> None:
    listed = [int(row[0]) for row in readme.table(readme.DOCUMENTS[ROOT / "pipeline/README.md"], "Exit codes")]
    assert listed == list(errors.EXIT_CODES)
    assert " ".join(SCRIPT[SCRIPT.index("Exit codes:") :].split("TEXT")[0].split()) == exit_codes()


def test_folders_have_one_default() -> None:
    """That of the README's tree."""
    defaults = {o.opts[0]: d for name in NAMES for o in options(name) if isinstance(d := default(o), Path)}
    data = {f"--{name}": f"data/{name}" for name in ("raw", "processed", "models")}
    assert {flag: str(path) for flag, path in defaults.items()} == {**data, "--submissions": "submissions"}
