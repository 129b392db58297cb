"""README.md: its commands are run, and what they print is what it shows."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.readme import (
    Block,
    anchors,
    blocks,
    commands,
    difference,
    fresh_project,
    links,
    notebook_code,
    run,
    shape,
    spans,
    tree_paths,
)
from tests.support import ROOT, tree

TEXT = (ROOT / "README.md").read_text()
BLOCKS = list(blocks(TEXT))
PLACES = sorted({block.comments["place"] for block in BLOCKS if "place" in block.comments})
REHEARSAL = "./run_all.sh --rehearsal"


def perform(block: Block, place: Path) -> list[str]:
    """Run a block; what was not as it says."""
    if block.language != "console":
        bash = block.language == "bash"
        done = run(f"set -e\n{block.text}" if bash else f"python -c {shlex.quote(notebook_code(block))}", place)
        return [f"line {block.line}: {done.stdout}{done.stderr}"] if done.returncode else []
    problems = []
    for command in commands(block):
        result = run(command.text, place)
        told = f"line {block.line}: {command.text}: "
        if result.returncode != 0:
            problems.append(f"{told}ends with {result.returncode}\n{result.stdout}{result.stderr}")
        elif command.printed and (found := difference(command.printed, result.stdout.splitlines(), block.varies)):
            problems.append(f"{told}{found}\n{result.stdout}")
    return problems


# --- what is run --------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PLACES)
def test_the_blocks_of_a_place_in_their_order(tmp_path: Path, name: str) -> None:
    place = fresh_project(tmp_path)
    own = [block for block in BLOCKS if block.comments.get("place") == name]
    problems = [problem for block in own for problem in perform(block, place)]
    assert not problems, "\n\n".join(problems)
    if REHEARSAL in own[0].text:
        the_second_time_redoes_nothing(place)


def the_second_time_redoes_nothing(place: Path) -> None:
    # The stand-in zips anew; the report is written anew, as it says when that was.
    made_again = ("rehearsal-digits.zip", "/report/")
    before = {name: data for name, data in tree(place).items() if not any(part in name for part in made_again)}
    second = run(REHEARSAL, place)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("nothing to") == 5
    assert "not sending it twice" in second.stdout
    after = tree(place)
    assert [name for name in before if after[name] != before[name]] == []


def test_one_block_rehearses_for_nothing_else_does_it() -> None:
    """The whole way, without being shortened, is tested by README's block alone."""
    first = next(block for block in BLOCKS if block.comments.get("place") in PLACES)
    assert REHEARSAL in first.text


def test_the_blocks_without_a_place(tmp_path: Path) -> None:
    alone = [block for block in BLOCKS if block.is_run and "place" not in block.comments]
    problems = [p for block in alone for p in perform(block, fresh_project(tmp_path / str(block.line)))]
    assert not problems, "\n\n".join(problems)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"line {block.line}")
def test_a_block_is_of_a_kind_that_is_known_and_well_formed(block: Block) -> None:
    if block.language == "console":
        programs = [command.text for command in commands(block)]
    elif block.language == "bash":
        programs = [block.text]
    elif block.language == "python":
        programs = re.findall(r"^!(.+)$", block.text, flags=re.MULTILINE)
        compile(notebook_code(block), f"README.md:{block.line}", "exec")
    else:
        programs = []
        assert block.language == "", f"{block.language}: say console, bash or python, or leave it out"
        assert not any(line.startswith("$ ") for line in block.lines), "a block with commands is a ```console block"
    for program in programs:
        subprocess.run(["bash", "-n", "-c", program], check=True)


# --- what is named ------------------------------------------------------------------------------------------


def test_the_tree_is_the_projects() -> None:
    (block,) = [block for block in BLOCKS if block.language == "" and "run_all.sh" in block.text]
    paths = tree_paths(block)
    assert [str(path) for path in paths if not (ROOT / path).exists()] == []
    modules = {path.name for path in (ROOT / "pipeline").glob("[!_]*.py")}
    packages = {f"{path.parent.name}/" for path in (ROOT / "pipeline").glob("*/__init__.py")}
    assert [name for name in sorted(modules | packages) if not re.search(rf"(?<!\w){name}", block.text)] == []


def test_links_lead_somewhere() -> None:
    for target in links(TEXT):
        name, _, anchor = target.partition("#")
        path = ROOT / (name or "README.md")
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text()), target


def test_files_of_the_project_that_are_named_exist() -> None:
    named = [span for span in spans(TEXT) if re.fullmatch(r"(\.?/?)(tests|pipeline)/[\w./]*", span)]
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


# --- the way of comparing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("public 88.00 %,   private", "public 8.25 %, private", True),
        ("public 88.00 %", "public 88.0 %", False),
        ("2026-11-25 12:31 run-61094352", "2027-01-02 03:04 run-0badc0de", True),
        ("sha=d98e60c44d36", "sha=c136bc203169", True),
        ("no decade", "no facade", False),
    ],
)
def test_lines_are_compared_by_their_shape(a: str, b: str, same: bool) -> None:
    assert (shape(a) == shape(b)) is same


@pytest.mark.parametrize(
    ("block", "fine"),
    [
        (Block(1, "bash", ("false", "true")), False),
        (Block(1, "bash", ("a=1", 'test "$a" = 1')), True),
        (Block(1, "python", ("%cd nowhere", "x = 1", "!test -d .", "assert x")), True),
        (Block(1, "python", ("!exit 3",)), False),
        (Block(1, "console", ("$ echo a; echo 12.34", "a", "99.00", "$ true")), True),
        (Block(1, "console", ("$ echo a", "b")), False),
        (Block(1, "console", ("$ seq 5 | tr 1-5 a-e", "a", "...", "d", "...")), True),
        (Block(1, "console", ("$ seq 5 | tr 1-5 a-e", "a", "...", "f", "...")), False),
        (Block(1, "console", ("$ echo a; echo note b", "a", "note c"), {"varies": "note"}), True),
        (Block(1, "console", ("$ false",)), False),
    ],
)
def test_programs_are_run(tmp_path: Path, block: Block, fine: bool) -> None:
    assert (perform(block, tmp_path) == []) is fine
