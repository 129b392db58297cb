"""Phrases that are gone: a native reader stumbles over them, or the field has another word."""

import re
from pathlib import Path

import pytest

from tests.readme import DOCUMENTS
from tests.support import ROOT

# Messages, help texts, docstrings and comments are all in the sources.
SOURCES = [path for path in sorted(ROOT.glob("pipeline/**/*")) if path.suffix in (".py", ".j2", ".css")]
SOURCES += sorted(ROOT.glob("tests/bench/*.py"))
GONE = (
    "foret(?:ell|old)", "stand-in", "hidden (?:images?|sets?)", "labelled images", "anew", "in the box", "lies",
    "answering again", "the budget", r"(?<!there )is no (?!longer)\w+", "took it as", "moving average", "for people",
    "a person", "the matter with", "(?:the|this|that) very", "mend(?:s|ed|ing)?", "(?<!residual )networks",
    "(?:pretrained|train a) network", "unsure", "beforehand", "all the same",
)  # fmt: skip
PHRASE = re.compile(rf"\b(?:{'|'.join(GONE)})\b|[\d}}] %(?![\w}}])", re.IGNORECASE)  # and 95.62%, without a space


def words(path: Path) -> str:
    """A file's text on one line: implicitly joined strings, and the lines of a comment, are one sentence."""
    joined = re.sub(r"(?<=\S)[\"']\n\s*f?[\"']", "", path.read_text("utf-8"))
    return re.sub(r"\s+(?:# )?", " ", joined)


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, *SOURCES, ROOT / "run_all.sh"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_phrases_are_gone(path: Path) -> None:
    text = words(path)
    assert [text[max(found.start() - 30, 0) : found.end() + 20] for found in PHRASE.finditer(text)] == []
