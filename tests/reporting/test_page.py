import dataclasses
import html
import re
from datetime import datetime

import pytest

from pipeline.recipes import MODELS
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


def test_the_newest_submissions_come_first(known: page.Material) -> None:
    entries = [dataclasses.replace(ENTRY, ref=ref) for ref in range(101, 131)]
    predicted = dataclasses.replace(ENTRY, predicted=82.04)
    text = rendered(dataclasses.replace(known, entries=entries, predictions={"sha": predicted}))
    refs = [int(ref) for ref in re.findall(r"<td[^>]*>(1\d\d)</td></tr>", text)]
    assert refs == list(range(130, 110, -1)) and text.count("82.04") == 20


def test_a_model_over_the_limit_is_marked(known: page.Material) -> None:
    over = "parameters (over the limit of 5,000,000: not submittable)"
    assert over not in rendered(known)
    config = dataclasses.replace(known.card.config, model=MODELS["resnet18"])
    assert over in rendered(dataclasses.replace(known, card=dataclasses.replace(known.card, config=config)))


def test_text_from_files_is_escaped_and_commands_are_code(known: page.Material) -> None:
    evil = dataclasses.replace(ENTRY, status="<script>alert(1)</script>", run="<b>bold</b>")
    text = rendered(
        dataclasses.replace(known, entries=[evil], missing=["run `<i>this</i>` first"], time=datetime(2025, 3, 1))
    )
    assert "<script>alert" not in text and "<b>bold" not in text and "<code>&lt;i&gt;this&lt;/i&gt;</code>" in text
    assert "<script>alert(1)</script>" in html.unescape(text) and "written 2025-03-01 00:00 UTC" in text
