import dataclasses
import html
from datetime import datetime
from pathlib import Path

import pytest

from pipeline.model.summary import summarise
from pipeline.recipes import MODELS, PRESETS
from pipeline.reporting import page
from pipeline.reporting.page import gather
from pipeline.store.ledger import Entry
from pipeline.store.runs import RunCard
from tests.support import paths_in, prepare, write_run

ENTRY = Entry("2025-03-01T10:20:30+00:00", "slug", "a", "sha", 7, 91.0, 90.0, 80.0, None, "complete")


def material(place: Path) -> page.Material:
    folder = write_run(prepare(place))
    return gather(folder, RunCard.read(folder), paths_in(place))


def test_the_papers_model_in_a_few_lines() -> None:
    table = page.model(summarise(MODELS["paper"]))
    assert [row[0] for row in table.rows] == ["stem", *(f"stage {k}" for k in range(1, 6)), "head", "total"]
    assert table.rows[-1][1:] == ("32", "", "4,893,566", "259.3")
    for column in (1, 3):
        values = [int(row[column].replace(",", "")) for row in table.rows]
        assert sum(values[:-1]) == values[-1]


def test_submissions_come_newest_first() -> None:
    predicted = dataclasses.replace(ENTRY, predicted=82.04)
    table = page.submissions([ENTRY, dataclasses.replace(ENTRY, ref=8, csv_sha256="x")], {"sha": predicted})
    assert [row[0] for row in table.rows] == ["8", "7"] and table.rows[0][5] == ""
    assert table.rows[1] == (
        "7", "2025-03-01 10:20", "a", "91.00", "90.00", "82.04", "80.00", "", "10.00", "complete",
    )  # fmt: skip
    assert len(page.submissions([ENTRY] * 30, {}).rows) == 20


def test_what_differs_from_the_preset_is_said() -> None:
    config = dataclasses.replace(PRESETS["fast"], cutout=4, teachers=("a@1", "b@2"), model=MODELS["wide"])
    rows = {row[0]: row[1:] for row in page.recipe(config).rows}
    assert rows["cutout"] == ("4", "preset: 8") and rows["teachers"] == ("a@1, b@2", "preset: none")
    assert rows["model"] == ("wide, se 16", "preset: fast, se 0")
    assert rows["epochs"] == ("24", "") and rows["weight_decay"] == ("0.0005", "")
    other = page.recipe(dataclasses.replace(config, preset="of-another-version"))
    assert {row[2] for row in other.rows} == {""}


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("rehearsal", "trainable, of 5,000,000 allowed"),
        ("resnet18", "trainable, over the limit of 5,000,000: not submittable"),
    ],
)
def test_a_model_over_the_limit_is_marked(tmp_path: Path, name: str, note: str) -> None:
    known = material(tmp_path)
    cards = {label: note for label, _, note in page.cards(known, summarise(MODELS[name]))}
    assert cards["Parameters"] == note


def test_text_from_files_is_escaped_and_commands_are_code(tmp_path: Path) -> None:
    known = material(tmp_path)
    evil = dataclasses.replace(ENTRY, status="<script>alert(1)</script>", run="<b>bold</b>")
    known = dataclasses.replace(known, entries=[evil], missing=["run `<i>this</i>` first"], time=datetime(2025, 3, 1))
    sections = dict.fromkeys(("training", "holdout", "gap", "test"), ())
    text = page.render(known, summarise(MODELS["rehearsal"]), sections)
    assert "<script>alert" not in text and "<b>bold" not in text and "<code>&lt;i&gt;this&lt;/i&gt;</code>" in text
    assert "<script>alert(1)</script>" in html.unescape(text) and "written 2025-03-01 00:00 UTC" in text
