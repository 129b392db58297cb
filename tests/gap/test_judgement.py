import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Competition
from pipeline.errors import BadData
from pipeline.gap import assessment
from pipeline.gap.adapt import Trial, remember
from pipeline.gap.assessment import assess, record
from pipeline.gap.corruption_fit import Found
from pipeline.gap.corruptions import Done
from pipeline.gap.diagnosis import Diagnosis
from pipeline.store import ledger
from pipeline.store.ledger import Entry
from pipeline.store.submissions import Evidence, LocalCsv, Mitigation, Outputs, Sidecar
from tests.gap.cases import NOTHING

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 10, 4000).astype(np.uint8)
NOW = datetime(2025, 3, 1, tzinfo=UTC)
KNOWN = Competition("c")


def said(truth: np.ndarray, wrong: float, *, labelled: bool, seed: int) -> Outputs:
    """One network that is wrong this often, on images of which some are hard for every network."""
    hard = np.random.default_rng(7).random(len(truth)) + np.random.default_rng(seed).normal(0, 0.03, len(truth))
    labels = np.where(hard > 1 - wrong, (truth + 1) % 10, truth).astype(np.uint8)
    probabilities = np.full((len(truth), 10), 0.02, dtype=np.float32)
    probabilities[np.arange(len(truth)), labels] = np.where(hard > 0.8, 0.5, 0.82)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return Outputs(probabilities, labels[None], truth if labelled else None)


def csv(
    folder: Path, name: str, wrong: float, seed: int, hidden: str = "h", found: Diagnosis = NOTHING,
    trials: Sequence[Trial] = (), measure: Mitigation = "none",
) -> LocalCsv:  # fmt: skip
    path, sha = folder / f"{name}.csv", f"sha-{name}"
    test = said(TRUTH, wrong, labelled=True, seed=seed)
    rows, features = np.arange(2), np.zeros((2, 3), dtype=np.float32)
    unlabelled = said(TRUTH, 2 * wrong, labelled=False, seed=seed + 50)
    Evidence(
        sha, (name,), unlabelled, test, None, rows, features, features[:, 0], rows, features,
        remember(found, trials, measure),
    ).write(path)  # fmt: skip
    card = Sidecar("c", name, sha, 4000, f"w-{name}", hidden, 90.0, "split", 90.0, "2025-01-01T00:00:00+00:00", {})
    return LocalCsv(path, 1, card)


def scored(subject: LocalCsv, ref: int, public: float) -> Entry:
    return Entry("", "c", subject.sidecar.run, subject.sidecar.csv_sha256, ref, 90.0, 90.0, public, None, "complete")


@pytest.fixture
def three(tmp_path: Path) -> list[LocalCsv]:
    return [
        csv(tmp_path, name, wrong, seed)
        for seed, (name, wrong) in enumerate(zip("abc", (0.05, 0.1, 0.15), strict=True))
    ]


def test_the_runs_of_the_csvs_beside_it_are_its_peers(three: list[LocalCsv], tmp_path: Path) -> None:
    first, *others = three
    assert "aline" in assess(first, [first], [], KNOWN).forecast.refused
    assert "only 1 usable pairs" in assess(first, three[:2], [], KNOWN).forecast.refused["aline"]
    assert assess(first, three, [], KNOWN).forecast.by == "aline"
    assert assess(first, [*three, csv(tmp_path, "d", 0.05, 0)], [], KNOWN) == assess(
        first, three, [], KNOWN
    )  # a's twin
    elsewhere = [csv(tmp_path, c.sidecar.run, 0.1, seed, hidden="other") for seed, c in enumerate(others, start=1)]
    assert "aline" in assess(first, [first, *elsewhere], [], KNOWN).forecast.refused


def test_scores_of_other_csvs_anchor_and_its_own_does_not(three: list[LocalCsv]) -> None:
    first, second, _ = three
    assert assess(first, [], [scored(first, 1, 80.0)], KNOWN).forecast.by == "atc"
    assert assess(first, [], [scored(second, 1, 80.0)], KNOWN).forecast.by == "anchored"
    assert (
        assess(first, [], [dataclasses.replace(scored(second, 1, 80.0), competition="d")], KNOWN).forecast.by == "atc"
    )


def test_a_prediction_is_recorded_once_and_never_after_the_score(three: list[LocalCsv], tmp_path: Path) -> None:
    book = tmp_path / "ledger.csv"
    first, second, third = three
    judged = assess(first, [], [], KNOWN)
    record(book, judged, NOW)
    (line,) = ledger.read(book)
    assert line.predicted == pytest.approx(100 * judged.forecast.predicted, abs=1e-3)
    assert (line.status, line.note, line.time) == ("predicted", "atc", "2025-03-01T00:00:00+00:00")
    record(book, assess(first, three, [], KNOWN), NOW)
    assert ledger.read(book) == [line]
    ledger.append(book, [scored(second, 1, 80.0)])
    record(book, assess(second, [], [], KNOWN), NOW)
    assert len(ledger.read(book)) == 2
    record(book, assess(third, [], ledger.read(book), KNOWN), NOW)
    assert set(ledger.predictions(ledger.read(book), "c")) == {"sha-a", "sha-c"}


def test_earlier_errors_count_once_they_have_a_score(three: list[LocalCsv]) -> None:
    second = three[1]
    foretold = dataclasses.replace(scored(second, 1, 80.0), ref=None, public=None, status="predicted", predicted=82.0)
    assert assessment.miss(foretold, scored(second, 1, 80.0)) == pytest.approx(2.0)
    assert assessment.miss(None, scored(second, 1, 80.0)) is None
    assert assessment.miss(foretold, foretold) is None
    assert ledger.predictions([foretold, scored(second, 1, 80.0)], "c") == {"sha-b": foretold}
    assert ledger.predictions([scored(second, 1, 80.0), foretold], "c") == {}


def test_evidence_of_another_csv_is_refused(three: list[LocalCsv]) -> None:
    first, second, _ = three
    changed = LocalCsv(first.path, 1, second.sidecar)
    with pytest.raises(BadData, match="no evidence beside it"):
        assess(changed, [], [], KNOWN)


def test_a_trial_predicts_the_measure_that_was_applied(tmp_path: Path) -> None:
    found = dataclasses.replace(NOTHING, verdict="corruption", pixels=Found(3.0, (Done("blur", 1.0),), 0.3, (), True))
    trials = [Trial("bn", before=0.55, after=0.7, unharmed=-0.001)]
    plain = assess(csv(tmp_path, "plain", 0.1, 0, "h", found, trials), [], [], KNOWN)
    assert (plain.forecast.by, plain.forecast.predicted) == ("simulated", 0.55)
    adapted = assess(csv(tmp_path, "adapted", 0.1, 0, "h", found, trials, "bn"), [], [], KNOWN)
    assert (adapted.forecast.by, adapted.forecast.predicted) == ("simulated", 0.7)
    assert "keep --adapt bn" in adapted.advice[0].do and adapted.advice[0].gain == pytest.approx(15)
    untried = assess(csv(tmp_path, "untried", 0.1, 0, "h", found, trials, "prior"), [], [], KNOWN)
    assert untried.forecast.by == "atc"


def test_answers_that_cannot_be_trusted_are_not(tmp_path: Path) -> None:
    trusted = assess(csv(tmp_path, "trusted", 0.1, 0), [], [], KNOWN).forecast
    foreign = dataclasses.replace(NOTHING, verdict="unknown", auc=0.97)
    spoilt = dataclasses.replace(NOTHING, verdict="corruption", reason="of an unknown kind")
    for name, found in (("foreign", foreign), ("spoilt", spoilt)):
        doubted = assess(csv(tmp_path, name, 0.1, 0, "h", found), [], [], KNOWN).forecast
        assert trusted.reliable and not doubted.reliable and doubted.predicted == trusted.predicted
        assert doubted.interval[0] < trusted.predicted - 0.3
    shifted = dataclasses.replace(NOTHING, verdict="label_shift")
    for found, reliable in ((NOTHING, False), (shifted, True)):  # corrected classes that are as they were
        forced = assess(csv(tmp_path, "forced", 0.1, 0, "h", found, [], "prior"), [], [], KNOWN).forecast
        assert forced.reliable is reliable and ("surer" in "".join(forced.doubts)) is not reliable
    subject = csv(tmp_path, "pseudo", 0.1, 0)
    learned = dataclasses.replace(subject, sidecar=dataclasses.replace(subject.sidecar, pseudo_labels=["x.csv@1"]))
    assert "says nothing" in assess(learned, [], [], KNOWN).forecast.doubts[0]
