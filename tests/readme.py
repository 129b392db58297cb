"""The documents (every README.md) as something to test: blocks, the commands in them, the tree, the links.

An HTML comment on the line before a block says how to test it:

    <!-- not run: REASON -->   check the syntax (bash, Python) and the commands' options only
    <!-- varies: A | B -->     skip lines that begin with A or B: they depend on the machine

The ```console blocks run in their order, README.md's first, in one fresh copy of the project with its requirements
installed.  A line "$ COMMAND" (continued after a backslash) must end with exit code 0.  The lines after it are compared
with what it prints, if there are any: equal words, numbers with as many decimals (any, if more than two), a hash for a
hash; "..." stands for any lines, and white space does not count.  ```bash and ```python blocks are
programs.  A block without a language is text.
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT, clean_environment

_BLOCK = re.compile(r"((?:^<!-- [^\n]+ -->\n)*)^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- (not run|varies): (.+) -->")
_HASH = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{6,}\b")
_NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.(\d+))?")


# README.md, whose rehearsal the others continue, comes first.
DOCUMENTS = {
    path: path.read_text()
    for path in [ROOT / "README.md", *sorted(ROOT.glob("pipeline/**/README.md")), ROOT / "tests/README.md"]
}


@dataclass(frozen=True)
class Block:
    """A block between two fences; `where` is the document and the line of the first fence."""

    where: str
    language: str
    text: str
    comments: dict[str, str]

    @property
    def is_run(self) -> bool:
        return self.language != "" and "not run" not in self.comments


@dataclass(frozen=True)
class Command:
    """A command of a ```console block, and what it prints; `varies` begins lines that are not compared."""

    text: str
    printed: tuple[str, ...]
    varies: tuple[str, ...]


def blocks() -> Iterator[Block]:
    """All fenced blocks of the documents."""
    for path, text in DOCUMENTS.items():
        for match in _BLOCK.finditer(text):
            where = f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start(2)) + 1}"
            yield Block(where, match[2], match[3], dict(_COMMENT.findall(match[1])))


def commands(block: Block) -> Iterator[Command]:
    """The commands of a ```console block."""
    varies = tuple(start.strip() for start in block.comments.get("varies", "").split("|") if start.strip())
    assert block.text.startswith("$ "), f"{block.where} does not begin with a command"
    for part in re.split(r"^\$ ", block.text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        text, *printed = part.splitlines()
        yield Command(text, tuple(printed), varies)


def notebook_code(block: Block) -> str:
    """A ```python block as Python: a notebook's "!COMMAND" is its way to the shell."""
    shell = "__import__('subprocess').run({!r}, shell=True, check=True)"
    return re.sub(r"^!(.+)$", lambda line: shell.format(line[1]), block.text, flags=re.MULTILINE)


# --- running --------------------------------------------------------------------------------------------------


def run(command: str, place: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    """A command as a user types it, with the packages of this interpreter and without anybody's credentials."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=place,
        env={**clean_environment(), "PATH": path, "PIPELINE_PYTHON": sys.executable, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # as on a terminal
        text=True,
        timeout=400,
        check=False,
    )


def fresh_project(place: Path) -> Path:
    """A copy of the project without anything that was made in it, its requirements found installed."""
    shutil.copytree(ROOT / "pipeline", place / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run_all.sh", "requirements.txt"):
        shutil.copy(ROOT / name, place / name)
    (place / "data").mkdir()
    (place / "data/pretrained").symlink_to(ROOT / "data/pretrained")
    wanted = (place / "requirements.txt").read_text()
    (place / ".requirements-installed").write_text(f"{sys.executable}\n{wanted}")  # as tests/run.sh has found
    return place


# --- comparing ----------------------------------------------------------------------------------------------


def shape(line: str) -> str:
    """What is compared of a line."""
    line = _HASH.sub("#", line)
    line = _NUMBER.sub(lambda n: "#" if n[1] is None else "#." + ("0" * len(n[1]) if len(n[1]) <= 2 else "#"), line)
    return " ".join(line.split())


def difference(command: Command, printed: Sequence[str]) -> str | None:
    """How what was printed differs from what the command shows, or None."""
    want, got = (
        "".join(f"{shape(line)}\n" for line in lines if line.strip() and not line.startswith(command.varies))
        for lines in (command.printed, printed)
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
    headings = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without the table's head."""
    below = re.split(rf"^#+ {re.escape(heading)}$", prose(text), maxsplit=1, flags=re.MULTILINE)[1]
    rows = re.findall(r"^\|(.+)\|$", below.split("\n#")[0], flags=re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows[2:]]
