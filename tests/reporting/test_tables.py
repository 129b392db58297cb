import dataclasses
from pathlib import Path

from pipeline.model.summary import summarise
from pipeline.recipes import MODELS, PRESETS
from pipeline.reporting import page
from pipeline.reporting.page import gather
from pipeline.store.ledger import Entry
from tests.overview.places import begin
from tests.support import paths_in, prepare

ENTRY = Entry("2025-03-01T10:20:30+00:00", "slug", "a", "sha", 7, 91.0, 90.0, 80.0, None, "complete")


def test_the_papers_network_in_a_few_lines() -> None:
    table = page.network(summarise(MODELS["paper"]))
    assert [row[0] for row in table.rows] == ["stem", *(f"stage {k}" for k in range(1, 6)), "head", "total"]
    assert table.rows[-1][1:] == ("32", "", "4,893,566", "259.3")
    for column in (1, 3):
        values = [int(row[column].replace(",", "")) for row in table.rows]
        assert sum(values[:-1]) == values[-1]
    assert [row[1] for row in page.memory(summarise(MODELS["paper"])).rows] == ["0.01", "8.91", "18.67", "27.59"]


def test_every_layer_is_listed_with_its_costs() -> None:
    summary = summarise(MODELS["rehearsal"])
    rows = page.layers(summary).rows
    assert rows[0] == ("conv1", "Conv2d", "16 × 32 × 32", "432", "442,368")  # noqa: RUF001
    assert sum(int(row[4].replace(",", "")) for row in rows) == summary.macs


def test_submissions_come_newest_first() -> None:
    foretold = dataclasses.replace(ENTRY, predicted=82.04, predicted_low=79.0, predicted_high=85.06)
    table = page.submission_table([ENTRY, dataclasses.replace(ENTRY, ref=8, csv_sha256="x")], {"sha": foretold}, 20)
    assert table.rows[0][0] == "8" and table.rows[0][2] == "-"
    assert table.rows[1] == (
        "7", "90.00", "82.0 (79.0 to 85.1)", "80.00", "-", "10.00", "complete", "a", "2025-03-01 10:20",
    )  # fmt: skip
    assert len(page.submission_table([ENTRY] * 30, {}, 20).rows) == 20


def test_a_network_over_the_budget_is_said_to_be(tmp_path: Path) -> None:
    begin(prepare(tmp_path))
    known = gather(paths_in(tmp_path), None)
    expected = {"rehearsal": "of 5,000,000 allowed", "resnet18": "over the 5,000,000 allowed: not submittable"}
    for name, words in expected.items():
        (card,) = [c for c in page.result_row(known, summarise(MODELS[name])) if c.label == "Parameters"]
        assert card.note == f"trainable, {words}"


def test_what_differs_from_the_preset_is_said() -> None:
    config = dataclasses.replace(PRESETS["fast"], cutout=4, teachers=("a@1", "b@2"), model=MODELS["wide"])
    rows = {row[0]: row[1:] for row in page.recipe(config).rows}
    assert rows["--cutout"] == ("4", "preset: 8") and rows["--teacher"] == ("a@1, b@2", "preset: none")
    assert rows["--model"] == ("wide", "not the preset's") and rows["--epochs"] == ("24", "")
    assert [row[0] for row in page.recipe(config).rows][:2] == ["--preset", "--model"]
    other = page.recipe(dataclasses.replace(config, preset="of-another-version"))
    assert {row[2] for row in other.rows} == {""}
    assert rows["--decay-norms"] == ("no", "") and rows["--weight-decay"] == ("0.0005", "")
