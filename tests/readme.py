"""README.md as something to be tested: its blocks, the commands in them, the tree, the links.

An HTML comment on the line before a block says what is to be done with it:

    <!-- not run: REASON -->   it is only looked at (bash's syntax, Python's, the commands' options)
    <!-- place: NAME -->       blocks of one place are run in one folder, one after the other
    <!-- varies: A | B -->     lines that begin with A or with B are not compared: they depend on the machine

Several of them stand on lines of their own.  A block without a place is run in a folder of its own.  Each folder
begins as a fresh copy of the project, whose requirements are found installed.

A ```console block holds commands, lines that begin with "$ " (a line that ends in a backslash goes on in the next one),
and after each what it prints on stdout; nothing, where that does not matter.  A command has to end with exit code 0.
Of what it prints these are compared: the words; a number by its decimals, and where there are more than two
only that it has some; what looks like a hash by being one; a line "..." stands for some lines.  Blank lines and
how many spaces there are do not count.  ```bash and ```python blocks are programs.  A block without a language is text.
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import ROOT, clean_environment

LANGUAGES = ("", "console", "bash", "python")
_HASH = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{6,}\b")
_NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.(\d+))?")
_COMMENT = re.compile(r"<!-- (not run|place|varies): (.+) -->")


@dataclass(frozen=True)
class Block:
    """A block between two fences; `line` is the first fence's, counted from 1."""

    line: int
    language: str
    lines: tuple[str, ...]
    comments: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def is_run(self) -> bool:
        return self.language != "" and "not run" not in self.comments

    @property
    def varies(self) -> tuple[str, ...]:
        return tuple(start.strip() for start in self.comments.get("varies", "").split("|") if start.strip())


@dataclass(frozen=True)
class Command:
    """A command of a ```console block, and what it prints."""

    text: str
    printed: tuple[str, ...]


def blocks(text: str) -> Iterator[Block]:
    """All fenced blocks of a Markdown text."""
    lines = text.splitlines()
    start: int | None = None
    for k, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = k
        else:
            yield Block(start + 1, lines[start][3:], tuple(lines[start + 1 : k]), _comments(lines[:start]))
            start = None
    assert start is None, f"the block that begins in line {start} does not end"


def _comments(before: Sequence[str]) -> dict[str, str]:
    """The comments on the lines just before a block."""
    found: dict[str, str] = {}
    for line in reversed(before):
        if (match := _COMMENT.fullmatch(line)) is None:
            break
        found[match[1]] = match[2]
    return found


def commands(block: Block) -> Iterator[Command]:
    """The commands of a ```console block."""
    joined = block.text.replace("\\\n", " ").splitlines()
    starts = [k for k, line in enumerate(joined) if line.startswith("$ ")]
    assert starts[:1] == [0], f"the block in line {block.line} does not begin with a command"
    for start, end in zip(starts, [*starts[1:], len(joined)], strict=True):
        yield Command(joined[start][2:], tuple(joined[start + 1 : end]))


def notebook_code(block: Block) -> str:
    """A ```python block as Python: a notebook's "!COMMAND" is its way to the shell, "%" begins its settings."""
    shell = "__import__('subprocess').run({!r}, shell=True, check=True)"
    code = re.sub(r"^!(.+)$", lambda line: shell.format(line[1]), block.text, flags=re.MULTILINE)
    return re.sub(r"^%.*$", "pass", code, flags=re.MULTILINE)


# --- running --------------------------------------------------------------------------------------------------


def run(command: str, place: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    """A command as a user types it, with the packages of this interpreter and without anybody's credentials."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=place,
        env={**clean_environment(), "PATH": path, "PIPELINE_PYTHON": sys.executable, **environ},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def fresh_project(folder: Path) -> Path:
    """A copy of the project without anything that was made in it, its requirements found installed."""
    place = folder / "project"
    shutil.copytree(ROOT / "pipeline", place / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run_all.sh", "requirements.txt"):
        shutil.copy(ROOT / name, place / name)
    (place / "data").mkdir()
    (place / "data/pretrained").symlink_to(ROOT / "data/pretrained")
    result = run("./run_all.sh --setup", place)
    assert result.returncode == 0, result.stderr
    return place


# --- comparing ----------------------------------------------------------------------------------------------


def shape(line: str) -> str:
    """What is compared of a line."""
    line = _HASH.sub("#", line)
    line = _NUMBER.sub(lambda n: "#" if n[1] is None else "#." + ("0" * len(n[1]) if len(n[1]) <= 2 else "#"), line)
    return " ".join(line.split())


def difference(expected: Sequence[str], printed: Sequence[str], varies: Sequence[str] = ()) -> str | None:
    """How what was printed differs from what is expected, or None."""
    want, got = (
        "".join(f"{shape(line)}\n" for line in lines if line.strip() and not any(map(line.startswith, varies)))
        for lines in (expected, printed)
    )
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.REPORT_NDIFF
    if checker.check_output(want, got, flags):
        return None
    return checker.output_difference(doctest.Example("", want), got, flags)


# --- the rest of the text -----------------------------------------------------------------------------------


def prose(text: str) -> str:
    """The text without its blocks and comments."""
    return re.sub(r"^```.*?^```$|<!--.*?-->", "", text, flags=re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def links(text: str) -> list[str]:
    """The targets of all links and the pictures but those that lead out of the project."""
    targets = re.findall(r"""(?<=\]\()[^)\s]+(?=\))|(?<=src=")[^"]+""", prose(text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """The headings' anchors, as GitHub makes them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found[anchor] = found.get(anchor, 0) + 1
    return {name if k == 0 else f"{name}-{k}" for name, count in found.items() for k in range(count)}


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without the table's head."""
    below = re.split(rf"^#+ {re.escape(heading)}$", prose(text), maxsplit=1, flags=re.MULTILINE)[1]
    rows = re.findall(r"^\|(.+)\|$", below.split("\n#")[0], flags=re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows[2:]]


def tree_paths(block: Block) -> list[Path]:
    """The paths that an annotated tree names: two spaces a level, a name, two spaces or more, a remark."""
    found: list[Path] = []
    folders: list[str] = []
    for line in block.lines:
        match = re.fullmatch(r"((?:  )*)(\S+)(?:\s\s.*)?", line)
        assert match is not None, f"not a line of a tree: {line!r}"
        depth = len(match[1]) // 2
        folders = [*folders[:depth], match[2]]
        found.append(Path(*folders))
    return found
