import dataclasses
import html
from datetime import datetime

import pytest

from pipeline.recipes import MODELS, PRESETS
from pipeline.reporting import page
from pipeline.store.runs import RunCard
from tests.gap.cases import ENTRY
from tests.support import paths_in, prepare, write_run


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> page.Material:
    place = prepare(tmp_path_factory.mktemp("place"))
    folder = write_run(place)
    return page.gather(folder, RunCard.read(folder), paths_in(place))


def rendered(known: page.Material) -> str:
    return page.render(known, dict.fromkeys(("training", "holdout", "gap", "hidden"), ()))


def test_submissions_come_newest_first() -> None:
    predicted = dataclasses.replace(ENTRY, predicted=82.04)
    rows = page.submissions([ENTRY, dataclasses.replace(ENTRY, ref=8, csv_sha256="x")], {"sha": predicted})
    assert [row[0] for row in rows] == ["8", "7"] and rows[0][5] == "" and rows[1][5] == "82.04"
    assert len(page.submissions([ENTRY] * 30, {})) == 20


def test_what_differs_from_the_preset_is_said() -> None:
    config = dataclasses.replace(PRESETS["fast"], cutout=4, teachers=("a@1", "b@2"), model=MODELS["wide"])
    rows = {row[0]: row[1:] for row in page.recipe(config)}
    assert rows["cutout"] == ("4", "preset: 8") and rows["teachers"] == ("a@1, b@2", "preset: none")
    assert rows["model"] == ("wide, se 16", "preset: fast, se 0")
    assert rows["epochs"] == ("24", "") and rows["weight_decay"] == ("0.0005", "")
    other = page.recipe(dataclasses.replace(config, preset="of-another-version"))
    assert {row[2] for row in other} == {""}


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("rehearsal", "trainable, of 5,000,000 allowed"),
        ("resnet18", "trainable, over the limit of 5,000,000: not submittable"),
    ],
)
def test_a_model_over_the_limit_is_marked(known: page.Material, name: str, note: str) -> None:
    card = dataclasses.replace(known.card, config=dataclasses.replace(known.card.config, model=MODELS[name]))
    assert note in rendered(dataclasses.replace(known, card=card))


def test_text_from_files_is_escaped_and_commands_are_code(known: page.Material) -> None:
    evil = dataclasses.replace(ENTRY, status="<script>alert(1)</script>", run="<b>bold</b>")
    text = rendered(
        dataclasses.replace(known, entries=[evil], missing=["run `<i>this</i>` first"], time=datetime(2025, 3, 1))
    )
    assert "<script>alert" not in text and "<b>bold" not in text and "<code>&lt;i&gt;this&lt;/i&gt;</code>" in text
    assert "<script>alert(1)</script>" in html.unescape(text) and "written 2025-03-01 00:00 UTC" in text
