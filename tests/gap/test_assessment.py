import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import Competition
from pipeline.gap.assessment import assess, record
from pipeline.gap.corruption_fit import Fit
from pipeline.gap.corruptions import Corruption
from pipeline.gap.diagnosis import Findings, Trial
from pipeline.gap.forecast import Forecast
from pipeline.store import ledger
from pipeline.store.ledger import Entry
from pipeline.store.submissions import Evidence, LocalCsv, Mitigation, Outputs, Sidecar
from tests.gap.cases import NOTHING, SWAPPED

TRUTH = np.random.default_rng(0).integers(0, 10, 4000).astype(np.uint8)
NOW = datetime(2025, 3, 1, tzinfo=UTC)
KNOWN = Competition("c")
FINE = Findings(NOTHING, (), "none")
BLURRED = dataclasses.replace(NOTHING, verdict="corruption", pixels=Fit(3.0, (Corruption("blur", 1.0),), 0.3, (), True))


def outputs(truth: NDArray[np.uint8], wrong: float, *, labelled: bool, seed: int) -> Outputs:
    """One model that is wrong this often, on images of which some are hard for every model."""
    hard = np.random.default_rng(7).random(len(truth)) + np.random.default_rng(seed).normal(0, 0.03, len(truth))
    labels = np.where(hard > 1 - wrong, (truth + 1) % 10, truth).astype(np.uint8)
    probabilities = np.full((len(truth), 10), 0.02, dtype=np.float32)
    probabilities[np.arange(len(truth)), labels] = np.where(hard > 0.8, 0.5, 0.82)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return Outputs(probabilities, labels[None], truth if labelled else None)


def csv(
    folder: Path, name: str = "a", wrong: float = 0.1, seed: int = 0, hidden: str = "h",
    found: Findings = FINE, truth: NDArray[np.uint8] = TRUTH, weights: str = "", **known: Any,
) -> LocalCsv:  # fmt: skip
    path, sha = folder / f"{name}.csv", f"sha-{name}"
    rows, features = np.arange(2), np.zeros((2, 3), dtype=np.float32)
    Evidence(
        (name,), outputs(truth, 2 * wrong, labelled=False, seed=seed + 50),
        outputs(truth, wrong, labelled=True, seed=seed), None, rows, features, features[:, 0], rows, features,
        found.to_dict(),
    ).write(path, sha)  # fmt: skip
    created = "2025-01-01T00:00:00+00:00"
    return LocalCsv(path, 1, Sidecar("c", name, sha, 4000, weights or f"w-{name}", hidden, 90.0, "split", 90.0, created,
                                      {}, **known))  # fmt: skip


def scored(subject: LocalCsv, public: float) -> Entry:
    return dataclasses.replace(Entry.of(subject.sidecar), ref=1, public=public, status="complete")


def forecast_of(*arguments: Any, **options: Any) -> Forecast:
    return assess(csv(*arguments, **options), [], [], KNOWN).forecast


@pytest.fixture
def three(tmp_path: Path) -> list[LocalCsv]:
    return [
        csv(tmp_path, name, wrong, seed) for seed, (name, wrong) in enumerate({"a": 0.05, "b": 0.1, "c": 0.15}.items())
    ]


def test_the_runs_of_the_csvs_beside_it_are_its_peers(three: list[LocalCsv], tmp_path: Path) -> None:
    first, *others = three
    assert "aline" in assess(first, [first], [], KNOWN).forecast.refused
    assert "3 different runs; 2 here" in assess(first, three[:2], [], KNOWN).forecast.refused["aline"]
    known = assess(first, three, [], KNOWN)
    assert known.forecast.by == "aline"
    twin = csv(tmp_path, "d", 0.05, 9, weights="w-a")  # predicted on another device: a few other labels
    assert assess(first, [*three, twin], [], KNOWN) == known
    taught = dataclasses.replace(others[0].sidecar, pseudo_labels=["a.csv@1"])
    assert "aline" in assess(first, [first, dataclasses.replace(others[0], sidecar=taught)], [], KNOWN).forecast.refused
    for of in ({"hidden": "other"}, {"truth": TRUTH[::-1].copy()}):  # of another test set, by another test_batch
        elsewhere = [csv(tmp_path, c.sidecar.run, 0.1, seed, **of) for seed, c in enumerate(others, start=1)]
        assert "aline" in assess(first, [first, *elsewhere], [], KNOWN).forecast.refused
    others[0].path.with_suffix(".npz").write_bytes(b"torn")  # which stops no other
    assert "aline" in assess(first, three, [], KNOWN).forecast.refused


def test_scores_of_other_csvs_with_the_same_mitigation_anchor_and_its_own_does_not(three: list[LocalCsv]) -> None:
    first, second, _ = three
    adapted = dataclasses.replace(second, sidecar=dataclasses.replace(second.sidecar, measure="bn"))
    moved = dataclasses.replace(second, sidecar=dataclasses.replace(second.sidecar, hidden="another test set"))
    entry, elsewhere = scored(second, 93.0), dataclasses.replace(scored(second, 93.0), competition="d")
    for others, known, by in (
        ([second], scored(first, 80.0), "atc"), ([second], entry, "anchored"), ([second], elsewhere, "atc"),
        ([adapted], entry, "atc"), ([], entry, "atc"), ([moved], entry, "atc"),
    ):  # fmt: skip
        assert assess(first, others, [known], KNOWN).forecast.by == by
    same, other = (assess(first, [each], [entry], KNOWN).forecast.interval for each in (second, adapted))
    assert other[1] - other[0] > same[1] - same[0]


def test_a_scored_csv_has_what_was_predicted_then_and_no_other_prediction(three: list[LocalCsv]) -> None:
    before = assess(three[0], [], [], KNOWN)
    assert "holdout 90.00%   predicted" in before.headline and before.to_dict()["reliable"] is True
    made = dataclasses.replace(
        Entry.of(three[0].sidecar), status="predicted", predicted=83.0, predicted_low=78.0, predicted_high=88.0
    )
    entry = dataclasses.replace(scored(three[0], 80.0), private=81.0)
    for after in (before.after([made, entry]), assess(three[0], three, [made, entry], KNOWN)):
        assert after.headline == (
            "holdout 90.00%   predicted 83.0% (78-88)   public 80.00%   private 81.00%   gap 10.00 points"
        )
        shown = after.to_dict()
        assert (shown["predicted"], shown["interval"], shown["error"]) == (83.0, [78.0, 88.0], 3.0)
        assert (shown["methods"], shown["refused"], shown["reliable"]) == ({}, {}, None) and after.expected == 0.8
    bare = dataclasses.replace(entry, local_test=None)  # submitted without its JSON file
    for line in (entry, bare):
        assert before.after([line]).headline == "holdout 90.00%   public 80.00%   private 81.00%   gap 10.00 points"


def test_a_score_that_was_not_expected_has_no_known_cause(three: list[LocalCsv]) -> None:
    before = assess(three[0], [], [], KNOWN)
    local = three[0].sidecar.test_accuracy
    line = dataclasses.replace(before.today, predicted=local - 2, predicted_low=local - 4, predicted_high=local)
    alike = "unknown: the images look like the holdout's, and the public score is "
    for public, cause in (
        (local - 1, "no difference beyond sampling noise"),
        (local - 6, f"{alike}6.0 points lower"),
        (local + 5, f"{alike}5.0 points higher"),
        (11.0, f"{alike}{local - 11:.1f} points lower; are the order, ids and classes right?"),
    ):
        assert before.after([line, scored(three[0], public)]).cause == cause
    wide = dataclasses.replace(before.forecast, interval=(before.forecast.predicted - 0.08, 1.0))  # of few images
    few = dataclasses.replace(before, forecast=wide)
    assert few.after([line, scored(three[0], local - 6)]).cause == "no difference beyond sampling noise"
    low = dataclasses.replace(line, predicted=local - 11)  # as a published line does
    assert before.after([low]).cause == f"{alike.replace('public', 'predicted')}11.0 points lower"


def test_a_submission_that_could_not_be_scored_says_so(three: list[LocalCsv]) -> None:
    failed = dataclasses.replace(scored(three[0], 0.0), public=None, private=None, status=ledger.ERROR)
    assert assess(three[0], [], [failed], KNOWN).headline.endswith("   Kaggle could not score it")


def test_a_mitigation_that_is_on_stands_with_the_cause(tmp_path: Path) -> None:
    trials = (Trial("bn", before=0.55, after=0.7, side_effect=-0.001),)
    cause = assess(csv(tmp_path, found=Findings(BLURRED, trials, "bn")), [], [], KNOWN).cause
    assert cause == f"{BLURRED.reason}; batch-norm adaptation is on (+15.0 points in simulation)"


def test_a_prediction_is_renewed_until_it_is_sent(three: list[LocalCsv], tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    first, second, third = three
    made = assess(first, [], [], KNOWN)
    entries = record(path, [], made, NOW)
    (line,) = entries
    assert ledger.read(path) == entries
    assert line.predicted == pytest.approx(100 * made.forecast.predicted, abs=1e-3)
    assert (line.status, line.note, line.time) == ("predicted", "atc", "2025-03-01T00:00:00+00:00")
    assert record(path, entries, made, NOW) == entries
    renewed = assess(first, three, entries, KNOWN)
    assert renewed.predicted == line  # until it is recorded
    for status in ("sending", "error"):  # Kaggle refused it
        ledger.append(path, [dataclasses.replace(Entry.of(first.sidecar), status=status)])
        entries = ledger.read(path)
    entries = record(path, entries, renewed, NOW)
    assert entries[0] == line and renewed.after(entries).expected == (entries[-1].predicted or 0) / 100 < made.expected
    ledger.append(path, [dataclasses.replace(Entry.of(first.sidecar), ref=9, status="pending")])
    assert record(path, ledger.read(path), made, NOW) == ledger.read(path)
    ledger.append(path, [scored(second, 80.0)])
    assert len(record(path, ledger.read(path), assess(second, [], [], KNOWN), NOW)) == 6
    record(path, ledger.read(path), assess(third, [], ledger.read(path), KNOWN), NOW)
    assert set(ledger.predictions(ledger.read(path), "c")) == {"sha-a", "sha-c"}


@pytest.mark.parametrize(("simulated", "by"), [(0.7, "simulated"), (None, "atc")])
def test_what_was_simulated_predicts(tmp_path: Path, simulated: float | None, by: str) -> None:
    trials = (Trial("bn", before=0.55, after=0.65, side_effect=-0.001),)
    found = assess(csv(tmp_path, found=Findings(BLURRED, trials, "bn", simulated)), [], [], KNOWN)
    assert found.forecast.by == by and (simulated is None or found.forecast.predicted == simulated)


@pytest.mark.parametrize(
    ("changes", "mitigation", "doubt"),
    [
        ({}, "none", ""),
        ({"verdict": "unknown", "auc": 0.97}, "none", "out-of-distribution for the model (AUC 0.97)"),
        ({"verdict": "corruption", "reason": "of an unknown kind"}, "none", "of an unknown kind"),
        ({"verdict": "preprocessing", "pixels": SWAPPED}, "revert", ""),  # which is known
        ({}, "prior", "favours classes"),  # that are as they were
        ({"verdict": "label_shift"}, "prior", ""),
    ],
)
def test_outputs_that_cannot_be_trusted_are_not(
    tmp_path: Path, changes: dict[str, Any], mitigation: Mitigation, doubt: str
) -> None:
    trusted = forecast_of(tmp_path, "trusted")
    found = forecast_of(tmp_path, found=Findings(dataclasses.replace(NOTHING, **changes), (), mitigation))
    assert found.predicted == trusted.predicted and doubt in "".join(found.doubts)
    assert (not found.doubts) == (doubt == "") == (found.interval[0] > trusted.predicted - 0.3)


def test_labels_that_were_learned_say_nothing(tmp_path: Path) -> None:
    assert "says nothing" in forecast_of(tmp_path, pseudo_labels=["x.csv@1"]).doubts[0]
