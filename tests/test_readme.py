"""The documents: their commands are run, and print what the documents show."""

import ast
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.gap.forecast import ERRORS
from pipeline.recipes import PRESETS
from pipeline.rehearsal import digits
from pipeline.store import ledger
from tests.readme import (
    DOCUMENTS,
    Block,
    anchors,
    blocks,
    commands,
    difference,
    fresh_project,
    links,
    notebook_code,
    run,
    spans,
    table,
)
from tests.support import ROOT, here, tree

BLOCKS = list(blocks())
RESULTS = ROOT / "tests/bench/RESULTS.md"
REHEARSAL, SCREEN = "./run_all.sh --rehearsal", 45  # lines
FIRST, *OTHERS = (block for block in BLOCKS if block.language == "console" and block.is_run)


def execute(command: str, place: Path) -> "subprocess.CompletedProcess[str]":
    """A command in `place`: a stage alone in this process, which has PyTorch already, anything else as it is typed."""
    words = shlex.split(command)
    if words[:2] != ["python", "-m"] or "--" in words:
        return run(command, place)
    module = words[2].removeprefix("pipeline.")
    package = (ROOT / "pipeline" / module).is_dir()
    return here(f"{module}.__main__" if package else module, *words[3:], cwd=place, merged=True)


def perform(block: Block, place: Path) -> list[str]:
    """Run a ```console block; what was not as it says."""
    problems = []
    for command in commands(block):
        result = execute(command.text, place)
        lines = result.stdout.splitlines()
        told = f"{block.where}: {command.text}: "
        if result.returncode != 0:
            problems.append(f"{told}ends with {result.returncode}\n{result.stdout}")
        elif command.text == REHEARSAL and len(lines) > SCREEN:
            problems.append(f"{told}{len(lines)} lines")
        elif command.printed and (found := difference(command, lines)):
            problems.append(f"{told}{found}\n{result.stdout}")
    return problems


# --- what is run --------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, worker_id: str, tmp_path: Path) -> Path:
    """A project in which README's first block, the rehearsal, was run; that is done once for all workers."""
    base = tmp_path_factory.getbasetemp()
    rehearsed = (base if worker_id == "master" else base.parent) / "rehearsed"
    with FileLock(rehearsed.with_suffix(".lock")):
        if not rehearsed.is_dir():
            assert REHEARSAL in FIRST.text, "the whole way, without being shortened, is tested by README's block alone"
            made = fresh_project(tmp_path / "rehearsed")
            problems = perform(FIRST, made)
            assert not problems, "\n\n".join(problems)
            shutil.copytree(made, rehearsed, symlinks=True)
    return shutil.copytree(rehearsed, tmp_path / "project", symlinks=True)


@pytest.mark.timeout(900)
def test_the_second_rehearsal_redoes_nothing(place: Path) -> None:
    # The mock server zips again; the report is written again, as it says when that was.
    made_again = ("rehearsal-digits.zip", "/report/")
    before = {name: data for name, data in tree(place).items() if not any(part in name for part in made_again)}
    second = run(REHEARSAL, place)
    assert second.returncode == 0, second.stdout
    assert second.stdout.count("nothing to") == 5
    assert "not sending it twice" in second.stdout
    after = tree(place)
    assert [name for name in before if after[name] != before[name]] == []


@pytest.mark.timeout(900)
def test_the_rehearsal_shows_what_the_pipeline_is_good_at(place: Path) -> None:
    """A visible gap with one cause that is named, a mitigation that gains, and an interval that says something."""
    checked = json.loads(here("check", "--competition", digits.SLUG, "--json", cwd=place).stdout)
    (made,) = ledger.predictions(ledger.read(place / "submissions" / ledger.NAME), digits.SLUG).values()
    assert checked["verdict"] == "corruption"
    assert [corruption["name"] for corruption in checked["diagnosis"]["pixels"]["damages"]] == ["blur"]
    assert checked["measure"] == "bn" and checked["trials"][0]["after"] > checked["trials"][0]["before"] + 0.03
    assert made.predicted_low is not None and made.predicted_high is not None
    assert made.predicted_low <= checked["public"] <= made.predicted_high <= made.predicted_low + 12
    assert checked["public"] < checked["local"] - 2


@pytest.mark.timeout(900)
def test_the_other_commands_in_their_order(place: Path) -> None:
    problems = [problem for block in OTHERS for problem in perform(block, place)]
    assert not problems, "\n\n".join(problems)


def test_every_block_is_run_or_at_least_well_formed() -> None:
    for block in BLOCKS:
        where = block.where
        assert block.language in ("", "console", "bash", "python"), where
        assert block.language != "bash" or not block.is_run, f"{where}: nobody runs it"
        assert block.language or not re.search(r"^\$ ", block.text, re.MULTILINE), f"{where}: say console"
        if block.language == "bash":
            subprocess.run(["bash", "-n", "-c", block.text], check=True)
        if block.language == "python":
            ast.parse(notebook_code(block))
            if block.is_run:
                exec(notebook_code(block), {})


# --- what is named ------------------------------------------------------------------------------------------


def test_the_tree_is_the_projects() -> None:
    (block,) = [block for block in BLOCKS if block.language == "" and "run_all.sh" in block.text]
    guide = DOCUMENTS[ROOT / "pipeline/README.md"]
    folders: list[str] = []
    for line in block.text.splitlines():  # two spaces a level, a name, two spaces or more, a remark
        indent, name = re.match(r"((?:  )*)(\S+)(?=\s\s|$)", line).groups()  # type: ignore[union-attr]
        folders = [*folders[: len(indent) // 2], name]
        assert ROOT.joinpath(*folders).exists(), line
    modules = {path.name for path in (ROOT / "pipeline").glob("[!_]*.py")}
    packages = {f"{path.parent.name}/" for path in (ROOT / "pipeline").glob("*/__init__.py")}
    assert [name for name in sorted(packages) if not re.search(rf"(?<!\w){name}", block.text)] == []
    assert [name for name in sorted(modules) if not re.search(rf"(?<!\w){name}", block.text + guide)] == []


def test_links_lead_somewhere() -> None:
    for document, text in {**DOCUMENTS, RESULTS: RESULTS.read_text()}.items():
        for target in links(text):
            name, _, anchor = target.partition("#")
            path = document.parent / name if name else document
            assert path.exists(), f"{document}: {target}"
            assert not anchor or anchor in anchors(path.read_text()), f"{document}: {target}"


def test_files_of_the_project_that_are_named_exist() -> None:
    named = [
        span
        for text in DOCUMENTS.values()
        for span in spans(text)
        if re.fullmatch(r"(\.?/?)(tests|pipeline)/[\w./]*", span)
    ]
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_measurement_is_named_somewhere() -> None:
    named = "".join([*DOCUMENTS.values(), RESULTS.read_text(), (ROOT / "tests/bench/gpu.sh").read_text()])
    scripts = [path.name for path in (ROOT / "tests/bench").glob("*.py") if "__main__" in path.read_text()]
    assert scripts and [name for name in scripts if f"tests/bench/{name}" not in named] == []


def test_the_tables_have_the_codes_numbers() -> None:
    training, gap = (DOCUMENTS[ROOT / f"pipeline/{part}/README.md"] for part in ("training", "gap"))
    for name, model, *_ in table(training, "Presets"):
        parameters = PRESETS[name.strip("`")].model.trainable_parameters
        assert model.startswith((f"{parameters:,} parameters", "that of")), name
    shown = [(row[0].strip("`"), float(row[-1].split(";")[0])) for row in table(gap, "Predicting the score")]
    assert shown == [(name, round(100 * error, 1)) for name, error in ERRORS.items()]  # also in their order
