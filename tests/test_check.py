import dataclasses
import functools
import json
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pipeline.config import DEFAULT_COMPETITION
from pipeline.kaggle_api.client import Kaggle
from pipeline.recipes import PRESETS
from pipeline.reporting import figures
from pipeline.store import atomic, ledger, runs
from pipeline.store.ledger import Entry
from pipeline.store.manifest import FileRecord
from pipeline.store.runs import RunCard
from pipeline.store.submissions import Sidecar
from tests.doubles.kaggle import faulty_kaggle
from tests.places import finish
from tests.support import SLUG, error_line, here, serve, submit_by_hand, tree, write_run

pytestmark = pytest.mark.usefixtures("quick_client")


def check(cwd: Path, environ: dict[str, str] | None, *more: str) -> "subprocess.CompletedProcess[str]":
    return here("check", "--competition", SLUG, *more, cwd=cwd, environ=environ)


def test_a_submission_by_hand_gets_local_and_public_and_gap(place: Path) -> None:
    (place / "submissions/ledger.csv").unlink()  # with the prediction: it is made again, and stands before the score
    assert "no submission of a CSV from here" in error_line(check(place, None, "--fail-over", "5"), 1)
    with serve(place) as kaggle:
        submit_by_hand(place, kaggle)
        shown = check(place, kaggle.environment, "--verbose")
        found = json.loads(check(place, kaggle.environment, "--json").stdout)
        failed = check(place, kaggle.environment, "--fail-over", "5")
    assert (found["local"], found["validation"], found["run"]) == (90.0, 91.0, "tiny-run")
    assert found["gap"] == pytest.approx(found["local"] - found["public"])
    assert found["public_rows"] == 15 and found["rows_assumed"]
    assert f"gap {found['gap']:.2f} points" in shown.stdout
    assert "* 90000001: submitted by hand; recognised by its file name" in shown.stdout
    assert "over --fail-over 5" in error_line(failed, 1)
    assert [entry.status for entry in ledger.read(place / "submissions/ledger.csv")] == ["predicted", "complete"]


def test_a_submission_that_is_being_scored_is_waited_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time()]  # where Kaggle is; it passes while the command sleeps

    hashed: list[int] = []  # files so far, at each look

    def sleep(seconds: float) -> None:
        now.append(now[-1] + seconds)
        hashed.append(files.call_count)

    files = mock.Mock(side_effect=FileRecord.of)
    monkeypatch.setattr(FileRecord, "of", files)

    monkeypatch.setattr("pipeline.check.Kaggle", functools.partial(Kaggle, sleep=sleep))
    with serve(place, pending=3.0) as kaggle:
        kaggle.state.clock = lambda: now[-1]
        submit_by_hand(place, kaggle)
        impatient = json.loads(check(place, kaggle.environment, "--wait", "0", "--json").stdout)
        assert len(now) == 1
        waiting = check(place, kaggle.environment, "--json")
        patient = json.loads(waiting.stdout)
    assert (impatient["status"], impatient["public"]) == ("pending", None)
    assert patient["status"] == "complete" and patient["public"] is not None
    assert waiting.stderr.endswith("check: being scored, waiting for up to 30s\n")
    assert len(set(hashed)) == 1  # nothing while it waits
    assert len(now) == 3  # two looks in vain, 2 seconds after each
    assert (kaggle.calls.count("ListSubmissions"), kaggle.calls.count("GetSubmission")) == (2, 2)


def test_the_ledger_is_read_once_and_each_csv_is_hashed_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST", 4)  # which is faster
    read, hashed = mock.Mock(side_effect=ledger.read), mock.Mock(side_effect=FileRecord.of)
    monkeypatch.setattr(ledger, "read", read)
    monkeypatch.setattr(FileRecord, "of", hashed)
    csv = "submissions/tiny-run.csv"
    for stage, *options in (("check",), ("check", "--csv", csv), ("report",)):
        read.reset_mock()
        hashed.reset_mock()
        assert here(stage, *options, cwd=place).returncode == 0
        assert [str(*call.args) for call in read.call_args_list] == ["submissions/ledger.csv"], stage
        assert [str(*call.args) for call in hashed.call_args_list] == [csv], stage


def test_a_score_that_it_fetches_anchors_the_prediction_at_once(place: Path) -> None:
    write_run(place, "second", seed=1)
    assert here("predict", "--run", "second", cwd=place).returncode == 0
    with serve(place) as kaggle:
        submit_by_hand(place, kaggle)
        first, again = (
            json.loads(check(place, kaggle.environment, "--csv", "submissions/second.csv", "--json").stdout)
            for _ in range(2)
        )
    assert (first["by"], first["predicted"], first["advice"]) == ("anchored", again["predicted"], again["advice"])


def test_a_strangers_submission_has_no_local_value(place: Path) -> None:
    other = place / "elsewhere.csv"
    other.write_text((place / "submissions/tiny-run.csv").read_text())
    with serve(place) as kaggle:
        submit_by_hand(place, kaggle, "elsewhere.csv")
        result = check(place, kaggle.environment, "--verbose")
    assert result.returncode == 0 and "* 90000001: not a CSV that is here" in result.stdout


def test_a_csv_anywhere_is_recognised_once_it_is_submitted(place: Path) -> None:
    for ending in ("csv", "json", "npz"):
        (place / f"submissions/tiny-run.{ending}").rename(place / f"elsewhere.{ending}")
    with serve(place) as kaggle:
        submit_by_hand(place, kaggle, "elsewhere.csv")
        shown = check(place, kaggle.environment, "--csv", "elsewhere.csv", "--verbose")
    assert "* 90000001: submitted by hand; recognised by its file name" in shown.stdout


def test_without_labels_it_says_that_there_is_no_score(place: Path) -> None:
    with faulty_kaggle(place / "source", place / "state", slug=SLUG) as kaggle:
        submit_by_hand(place, kaggle)
        result = check(place, kaggle.environment)
    assert result.returncode == 0 and "public" not in result.stdout


def test_without_credentials_the_ledger_alone_is_shown(place: Path) -> None:
    result = check(place, None)
    assert result.returncode == 0
    assert result.stdout.startswith("no scores from Kaggle: no Kaggle credentials: create a token")
    assert "\nholdout 90.00%   predicted " in result.stdout


@pytest.mark.parametrize(("status", "reason"), [(403, "Kaggle refused (403"), (404, "Kaggle does not find it (404")])
def test_a_team_that_is_not_in_the_competition_gets_the_prediction(place: Path, status: int, reason: str) -> None:
    with faulty_kaggle(place / "source", place / "state", slug=SLUG) as kaggle:
        kaggle.misbehave(f"ListSubmissions:status={status}")
        result = check(place, kaggle.environment)
    assert result.returncode == 0 and result.stdout.startswith(f"no scores from Kaggle: {reason}")
    assert "\nholdout 90.00%   predicted " in result.stdout


def test_a_csv_over_the_parameter_limit_is_none_to_submit(place: Path) -> None:
    csv = place / "submissions/tiny-run.csv"
    sidecar = Sidecar.read(csv)
    assert sidecar is not None
    dataclasses.replace(sidecar, submittable=False).write(csv)
    shown = check(place, None, "--verbose").stdout
    assert "submissions/tiny-run.csv cannot be submitted" in shown and "seeds" not in shown
    assert "models over the parameter limit may not compete" in shown


def test_a_kaggle_that_is_down_is_6_and_the_ledger_is_shown(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(place) as kaggle:
        assert here("submit", cwd=place, environ=kaggle.environment).returncode == 0
        environ = dict(kaggle.environment)
    # The stand-in has stopped: its port refuses connections.  New tries come at once.
    monkeypatch.setattr("pipeline.check.Kaggle", functools.partial(Kaggle, backoff=0.0))
    result = check(place, environ, "--timeout", "5")
    assert "cannot reach Kaggle" in error_line(result, 6)
    assert "90000001" in result.stderr


def test_the_newest_score_of_ours_is_compared(tmp_path: Path) -> None:
    """The paper's result lies on the published line, and its gap is no luck."""
    ours = Entry(competition=DEFAULT_COMPETITION, run="run", csv_sha256="a", ref=7, local_test=94.3, public=83.439)
    older = dataclasses.replace(ours, ref=6, public=80.0)
    stranger = dataclasses.replace(ours, ref=9, run="", csv_sha256="", local_test=None)
    pending = dataclasses.replace(ours, ref=10, public=None, status="pending")

    def found(*entries: Entry) -> dict[str, Any]:
        (tmp_path / "submissions/ledger.csv").unlink(missing_ok=True)
        ledger.append(tmp_path / "submissions/ledger.csv", entries)
        shown = here("check", "--json", "--competition", DEFAULT_COMPETITION, cwd=tmp_path)
        return dict(json.loads(shown.stdout))

    (tmp_path / "submissions").mkdir()
    everything = [ours, older, stranger, pending]
    assert [found(*everything[k:])["ref"] for k in range(4)] == [7, 6, 9, 10]
    paper, near = found(ours), found(dataclasses.replace(ours, public=94.0))
    assert (paper["gap"], paper["line_expects"]) == (pytest.approx(10.861), pytest.approx(83.14, abs=0.01))
    assert (paper["public_rows"], paper["rows_assumed"]) == (5012, False)
    # pooled p = (94.3 10000 + 83.439 5012) / 15012 = 90.674 %; variance = p (1 - p) (1/10000 + 1/5012)
    assert paper["noise"] == {"sigma": 0.503, "limit": pytest.approx(0.986, abs=1e-3), "exceeds": True}
    assert not near["noise"]["exceeds"]
    assert found(dataclasses.replace(ours, public=320.0))["noise"]["exceeds"]  # an edited line


@pytest.mark.parametrize("content", ["{}", "\xff"])
def test_a_damaged_manifest_of_the_data_does_not_stop_it(place: Path, content: str) -> None:
    entry = Entry(competition=SLUG, ref=7, local_test=90.0, public=80.0, status="complete")
    ledger.append(place / "submissions/ledger.csv", [entry])
    assert json.loads(check(place, None, "--json").stdout)["noise"] is not None
    (place / "data/processed" / SLUG / "manifest.json").write_bytes(content.encode("latin-1"))
    found = json.loads(check(place, None, "--json").stdout)
    assert (found["ref"], found["gap"], found["noise"], found["public_rows"]) == (7, 10.0, None, None)


def test_a_csv_is_predicted_and_once_it_is_scored_that_is_what_it_says(place: Path) -> None:
    """What was predicted then, the score and the error, also if the same CSV is sent twice: one prediction."""
    csv = ("--csv", "submissions/tiny-run.csv")
    with serve(place) as kaggle:
        before = json.loads(check(place, kaggle.environment, *csv, "--json").stdout)
        shown = check(place, kaggle.environment).stdout
        for _ in range(2):
            submit_by_hand(place, kaggle)
        after = json.loads(check(place, kaggle.environment, *csv, "--json").stdout)
        scored, details = (check(place, kaggle.environment, *more).stdout for more in ((), ("--verbose",)))
    assert (before["local"], before["public"], before["run"]) == (90.0, None, "tiny-run")
    low, high = before["interval"]
    assert 0 <= low <= before["predicted"] <= high <= 100
    assert "atc" in before["methods"] and before["by"] in before["methods"]
    assert before["verdict"] == before["diagnosis"]["verdict"] == "preprocessing"  # the run is no trained one
    assert not before["reliable"] and "only 30 test images" in before["doubts"]
    headline, cause, doubt, following = shown.splitlines()
    assert headline == f"holdout 90.00%   predicted {before['predicted']:.1f}% ({low:.0f}-{high:.0f}, unreliable)"
    assert cause.startswith("cause: the holdout accuracy is ") and doubt == "doubt: only 30 test images"
    assert following == f"next: {before['advice'][0]['command']} (it is not submitted yet)"
    assert " atc" not in shown and "AUC" not in shown  # that is for --verbose

    error = before["predicted"] - after["public"]
    (predicted,) = after["predictions"]
    assert predicted["error"] == after["error"] == pytest.approx(error) and len(after["submissions"]) == 2
    assert (after["predicted"], after["interval"]) == (before["predicted"], before["interval"])
    assert (after["methods"], after["reliable"]) == ({}, None) and "submit" not in after["advice"][0]["command"]
    assert f"public {after['public']:.2f}%   private {after['private']:.2f}%   gap " in scored
    assert f"\nprediction error {error:+.2f} points\n" in details
    for text in ("no score", "unreliable", " atc", "not submitted"):
        assert text not in scored
    assert f"prediction error so far: {abs(error):.2f} points (n=1)" in details and "AUC" in details


def test_check_status_and_submit_know_one_prediction(place: Path) -> None:
    """A score that came later renews it."""
    csv = ("--csv", "submissions/tiny-run.csv")
    write_run(place, "other", seed=1)
    assert here("predict", cwd=place).returncode == 0
    book, best = place / "submissions/ledger.csv", Entry(competition=SLUG, ref=7, public=50.0, status="complete")
    (other,) = [entry for entry in ledger.read(book) if entry.run == "other"]
    (before,) = [entry for entry in ledger.read(book) if entry.run == "tiny-run"]
    low = dataclasses.replace(other, ref=8, public=1.0, status="complete", predicted=None)
    ledger.append(book, [best, low])
    found = json.loads(check(place, None, *csv, "--json").stdout)
    assert found["by"] == "anchored" and found["interval"][1] < 50 < (before.predicted_high or 0)
    known = json.loads(here("status", "--competition", SLUG, "--json", cwd=place).stdout)["csvs"]
    assert [c["predicted"] for c in known if c["path"] == csv[1]] == [found["predicted"]]
    assert "(not submitted): predicted below your best score" in here("submit", *csv, cwd=place).stdout


@pytest.fixture
def short(place: Path) -> Path:
    """A short run whose validation accuracy rose a point an epoch, and its CSV, as a network that knows one class."""
    result = place / "data/models/tiny-run/result.json"
    result.write_text(result.read_text().replace('"test_accuracy": 90.0', '"test_accuracy": 10.0'))
    card = RunCard.read(result.parent)
    card = dataclasses.replace(card, config=card.config.with_epochs(6))
    atomic.write_json(result.parent / runs.CONFIG, card.to_dict())
    runs.complete(result.parent, card)
    assert here("predict", "--force", cwd=place).returncode == 0
    return place


def test_after_a_whole_fast_run_come_a_strong_one_and_other_seeds(place: Path) -> None:
    folder = place / "data/models/tiny-run"
    card = dataclasses.replace(RunCard.read(folder), config=PRESETS["fast"])
    atomic.write_json(folder / runs.CONFIG, card.to_dict())
    runs.complete(folder, card)
    send, strong, seeds = json.loads(check(place, None, "--json").stdout)["advice"]
    assert send["do"] == "it is not submitted yet" and strong["gain"] > seeds["gain"] > 0
    assert seeds["command"].endswith("--preset fast --run tiny-run --seeds 0 1 2")
    assert strong["command"] == f"python -m pipeline.train --competition {SLUG} --preset strong"
    finish(place, "strong", preset="strong")
    others = json.loads(check(place, None, "--csv", "submissions/tiny-run.csv", "--json").stdout)["advice"]
    assert others and strong["command"] not in [each["command"] for each in others]


def test_advice_begins_with_what_is_obvious_and_each_command_works_as_it_stands(short: Path) -> None:
    first = json.loads(check(short, None, "--json").stdout)
    best = Entry(competition=SLUG, ref=7, csv_sha256="other", public=99.5, status="complete")
    ledger.append(short / "submissions/ledger.csv", [best])
    shown, found = check(short, None), json.loads(check(short, None, "--json").stdout)
    low = "don't submit: predicted below your best score, 99.50%"
    trained = (
        "trained too short: validation accuracy rose 1.0 points an epoch at the end of 6, and rarely predicted: zero"
    )
    assert first["advice"][0]["do"].startswith(trained) and found["advice"][0]["do"].startswith(f"{low}; {trained}")
    following, why = shown.stdout.splitlines()[-2:]  # no command that submits
    assert following == f"next: {found['advice'][0]['command']}" and why.startswith(f"      ({low}; {trained}")
    assert any("pipeline.submit" in each["command"] for each in first["advice"])
    assert not any("submit " in each["command"] for each in found["advice"])
    for each in found["advice"]:
        python, module, stage, *options = shlex.split(each["command"])
        assert (python, module) == ("python", "-m")
        done = here(stage.removeprefix("pipeline."), *options, cwd=short)
        assert done.returncode == 0, done.stderr
    # Three seeds are here now, and are to be averaged; where that was tried, it is no advice.
    averaging = ["--run", "tiny-run", "tiny-run-s1", "tiny-run-s2"]
    csv = ("--csv", "submissions/tiny-run.csv", "--json")
    (do,) = [each for each in json.loads(check(short, None, *csv).stdout)["advice"] if "average" in each["do"]]
    assert shlex.split(do["command"])[3:7] == averaging
    assert here("predict", *shlex.split(do["command"])[3:], cwd=short).returncode == 0
    ledger.append(short / "submissions/ledger.csv", [dataclasses.replace(best, ref=8, public=99.9, run="a+b")])
    longer, *others = json.loads(check(short, None, *csv).stdout)["advice"]
    assert not any("seeds" in each["do"] for each in others)
    assert longer["command"].endswith(" --preset rehearsal --seeds 0 1")  # as many as are to be beaten
    assert here("train", *shlex.split(longer["command"])[3:], "--dry-run", cwd=short).returncode == 0


def test_pictures_are_drawn_where_they_are_wanted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST", 4)  # which is faster
    found = json.loads(check(place, None, "--pictures", "drawn", "--json").stdout)
    kinds = ("labels", "confidence", "low-confidence", "out-of-distribution")
    assert found["pictures"] == [f"drawn/tiny-run-{kind}.png" for kind in kinds]
    assert all((place / name).stat().st_size > 10_000 for name in found["pictures"])
    (place / "data/processed" / SLUG / "manifest.json").unlink()
    assert "preprocess" in error_line(check(place, None, "--pictures", "drawn"), 3)


@pytest.mark.parametrize("sidecar", ["none", "damaged", "edited"])
def test_a_csv_made_by_hand_is_validated_and_sent_but_its_score_is_not_predicted(place: Path, sidecar: str) -> None:
    first, *rows = (place / "submissions/tiny-run.csv").read_text().splitlines()
    csv = place / ("submissions/tiny-run.csv" if sidecar == "edited" else "blend.csv")
    csv.write_text("\n".join([first, *(f"{row[:-1]}3" for row in reversed(rows))]) + "\n")
    if sidecar == "damaged":  # or somebody's own
        csv.with_suffix(".json").write_text('{"weights": [0.5, 0.5]}')
    before = tree(place)
    with serve(place) as kaggle:
        shown = check(place, kaggle.environment, "--csv", str(csv.relative_to(place)), "--pictures", "drawn")
        assert shown.returncode == 0 and "--force" not in shown.stdout and "check: no pictures: " in shown.stderr
        assert "is a valid submission to tiny" in shown.stdout and "so its score cannot be predicted" in shown.stdout
        command = shown.stdout.splitlines()[-1].removeprefix("next: ")
        assert command == f"python -m pipeline.submit --csv {csv.relative_to(place)} --competition tiny"
        named = here("submit", *shlex.split(command)[3:], cwd=place, environ=kaggle.environment)
        again = here("submit", "--csv", csv, cwd=place, environ=kaggle.environment)  # the only competition here
        assert (named.returncode, again.returncode) == (0, 0) and "not sending it twice" in again.stderr
        after = json.loads(check(place, kaggle.environment, "--csv", str(csv), "--json").stdout)
    assert after["public"] is not None and after["predicted"] is None and "predicted" in after["not_judged"]
    assert all((place / name).read_bytes() == content for name, content in before.items() if "ledger" not in name)


def test_what_is_no_submission_is_told_so_and_nobody_is_to_write_over_it(place: Path) -> None:
    for name in ("README.md", "picture.csv", "submissions/tiny-run.csv"):
        for content in (b"# About\n", b"\x89PNG\r\n\x1a\n\0\0", b"", b"ID,Labels\n"):
            (place / name).write_bytes(content)
            for stage in ("check", "submit"):
                told = error_line(here(stage, "--csv", name, "--competition", SLUG, cwd=place), 4)
                assert name in told and "pipeline" not in told and "--force" not in told
    assert "is a directory" in error_line(check(place, None, "--csv", "data"), 2)


def test_the_newest_csv_of_the_latest_run_is_the_one_for_all_stages(place: Path) -> None:
    """What predict wrote last with it, under any name, also averaged with another run."""
    write_run(place, "other", seed=1)
    write_run(place, "tiny-run", seed=0)
    for name, *names in (("ours.csv", "tiny-run"), ("both.csv", "tiny-run", "other"), ("else.csv", "other")):
        options = [value for run in names for value in ("--run", run)]
        assert here("predict", "--out", f"submissions/{name}", *options, cwd=place).returncode == 0
        created = {"ours.csv": "2030-01-01", "both.csv": "2030-01-02", "else.csv": "2030-01-03"}[name]
        sidecar = Sidecar.read(place / f"submissions/{name}")
        assert sidecar is not None
        dataclasses.replace(sidecar, created=f"{created}T00:00:00+00:00").write(place / f"submissions/{name}")
    (place / "submissions/mine.csv").write_text((place / "submissions/ours.csv").read_text())
    with serve(place) as kaggle:
        assert "check: submissions/both.csv, run other+tiny-run" in check(place, None).stderr
        assert "--csv submissions/both.csv" in here("status", cwd=place).stdout.splitlines()[-2]
        sent = here("submit", cwd=place, environ=kaggle.environment)
        assert "submit: submissions/both.csv to tiny\n" in sent.stderr
    write_run(place, "tiny-run", seed=3)  # trained anew: none is its own any more
    told = error_line(here("submit", cwd=place), 3)
    assert "predict --run tiny-run --out submissions/tiny-run.csv`" in told
    assert "no prediction: no CSV in submissions is what run tiny-run predicts" in check(place, None).stdout
    shutil.rmtree(place / "data/models")  # what is left may be of the weights that came with the project
    assert "python -m pipeline.train" in error_line(here("submit", cwd=place), 3)
    assert "check: submissions/else.csv, run other" in check(place, None).stderr


@pytest.mark.parametrize("command", ["check", "status", "preprocess", "submit --csv blend.csv"])
def test_the_only_competition_that_is_here_is_taken(place: Path, command: str) -> None:
    (place / "blend.csv").write_text("no submission")
    stage, *options = command.split()
    result = here(stage, *options, cwd=place)
    assert result.returncode == (4 if stage == "submit" else 0), result.stderr
    assert ("using tiny, the only competition found" in result.stderr) == (stage != "submit")
    (place / "data/raw/second").mkdir()
    (place / "data/raw/second/cifar_test_nolabel.pkl").touch()
    result = here(stage, *options, cwd=place)
    assert "using tiny" not in result.stderr
    if stage == "submit":
        assert "say what it is for with --competition SLUG" in error_line(result, 2)


def test_a_csv_that_cannot_be_judged_is_refused_if_asked_for_and_else_only_told(place: Path) -> None:
    evidence = place / "submissions/tiny-run.npz"
    content = bytearray(evidence.read_bytes())
    content[content.index(b"PK\1\2") + 10] = 2  # a flipped bit: an unknown compression
    evidence.write_bytes(content)
    assert "tiny-run.npz is damaged" in error_line(check(place, None, "--csv", "submissions/tiny-run.csv"), 4)
    evidence.write_bytes(b"torn")
    result = check(place, None)
    assert result.returncode == 0 and "no prediction:" in result.stdout and "predict again" in result.stdout
    assert json.loads(check(place, None, "--json").stdout)["not_judged"].endswith("predict again with --force")
    (place / "submissions/mine.csv").write_text("ID,Labels\n100,3\n")
    for name, why, code in (
        ("tiny-run", "tiny-run.npz is damaged", 4),
        ("mine", "29 of 30 ids missing", 4),
        ("none", "is not there", 3),
    ):
        assert why in error_line(check(place, None, "--csv", f"submissions/{name}.csv"), code)
