"""Phrases that are gone, because a native reader stumbles over them or the field says it otherwise."""

import re
from pathlib import Path

import pytest

from tests.readme import DOCUMENTS
from tests.support import ROOT

# Messages, help texts, docstrings and comments are all in the sources.
FILES = [*DOCUMENTS, *(path for path in sorted(ROOT.glob("pipeline/**/*")) if path.suffix in (".py", ".j2", ".css"))]
GONE = (
    "foret(?:ell|old)", "stand-in", "hidden (?:images?|sets?)", "labelled images", "anew", "in the box", "lies",
    "answering again", "the budget", r"(?<!there )is no (?!longer)\w+", "took it as", "moving average", "for people",
    "a person", "the matter with", "(?:the|this|that) very", "spoilt images", "mend(?:s|ed|ing)?", "per cent of",
    "(?<!residual )networks", "(?:pretrained|train a) network", "unsure", "beforehand", "all the same",
    r"[\d}] %(?! \()",
)  # fmt: skip


def words(path: Path) -> str:
    """A file's text on one line: implicitly joined strings and the lines of a comment are sentences."""
    joined = re.sub(r"(?<=\S)[\"']\n\s*f?[\"']", "", path.read_text("utf-8"))
    return re.sub(r"\s+(?:# )?", " ", joined)


@pytest.mark.parametrize("path", [*FILES, ROOT / "run_all.sh"], ids=lambda path: str(path.relative_to(ROOT)))
def test_phrases_are_gone(path: Path) -> None:
    found = re.findall(rf".{{0,30}}(?<!\w)(?:{'|'.join(GONE)})(?!\w).{{0,20}}", words(path), re.IGNORECASE)
    assert not found
