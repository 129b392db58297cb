"""How Kaggle can misbehave, in one table: what the user is told, what is left, and that the next run completes.

(Each refusal's words, and what has the wrong type: tests/kaggle_api/test_client.py.)
"""

import dataclasses
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from pipeline.rehearsal.state import FIRST_REF, Truth
from pipeline.store import ledger
from pipeline.store.ledger import Entry
from tests.hostile.kaggle_place import Case, Outcome, Place, Stage, make_template, run_case
from tests.hostile.surroundings import NAMESPACE, mounts
from tests.support import ROOT, SLUG, submit_by_hand, wait_until

pytestmark = pytest.mark.usefixtures("quick_client")  # tests/bench/soak.py does without
DAY = 86_400.0  # seconds

# --- what a fault of the mock server alone cannot provoke: each function lets a stage run into it ----------------


def _command(here: Place, command: list[str], **environ: str) -> Outcome:
    """How a command ended that ran the pipeline: at most one line is an error, and no line is of a traceback."""
    environ = {**here.kaggle.environment, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, **environ}
    done = subprocess.run(command, cwd=here.cwd, env=environ, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    errors = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == (done.returncode != 0), done.stderr
    return Outcome(done.returncode, "".join(errors), done.stdout + done.stderr)


def link_expires_midway(here: Place) -> Outcome:
    """Cut after a half; when the client asks for the rest, the link has expired."""
    here.kaggle.misbehave("Download:cut=2300000*1")
    faults = iter(["Download:status=403*1"])
    here.client["sleep"] = lambda _: here.kaggle.misbehave(*itertools.islice(faults, 1))
    return here.run("download")


def no_space(here: Place) -> Outcome:
    """A small file system, of which Kaggle's list says nothing; when there is more space the next run completes."""
    if not mounts():
        pytest.skip("no file system of one's own can be mounted here")
    here.kaggle.misbehave('ListDataFiles:fields={"files": []}*1')
    outcome = _command(here, [*NAMESPACE, "bash", "-c", f"""
        mount -t tmpfs -o size=2m none data/raw
        $PYTHON -m pipeline.download; code=$?
        ls data/raw > visible.txt
        mount -o remount,size=100m data/raw
        $PYTHON -m pipeline.download > /dev/null 2> second.txt && diff -r -x manifest.json source data/raw/{SLUG}
        echo $? > second-code.txt
        exit $code"""])  # fmt: skip
    texts = [(here.cwd / name).read_text() for name in ("visible.txt", "second-code.txt", "second.txt")]
    assert texts[:2] == ["", "0\n"], texts
    return outcome


def no_space_after_sending(here: Place) -> Outcome:
    """The ledger has space for the line before sending, and for a part of the line after it."""
    entry = Entry(
        time="t" * 25, competition=SLUG, run="tiny-run", csv_sha256=here.sha256, local_validation=91.0,
        local_test=90.0, status=ledger.SENDING,
    )  # fmt: skip
    size = here.ledger_file.stat().st_size + len(ledger.line(entry)) + 20
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}));"
        "from pipeline.submit import main; sys.exit(main([]))"
    )
    return _command(here, [sys.executable, "-c", code], PYTHONDONTWRITEBYTECODE="1")


def two_submits(here: Place) -> Outcome:
    here.kaggle.misbehave("CreateSubmission:hang=1*1")
    found: list[Outcome] = []
    threads = [threading.Thread(target=lambda: found.append(here.run("submit"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = sorted(found)
    assert first.code == 0, first
    return second


def refused_at_the_limit(here: Place) -> Outcome:
    """Kaggle says that there is one left, and there is none; the next run is tomorrow's."""
    here.kaggle.state.daily_limit = 1
    here.send_a_strangers()
    here.kaggle.misbehave('GetSubmissionLimits:fields={"numAllowedNow": 1}')
    outcome = here.run("submit")
    here.ahead += DAY
    return outcome


def pending_for_long(here: Place) -> Outcome:
    """The score comes after an hour, which is over in the next run."""
    here.kaggle.state.pending_seconds = 3600.0
    outcome = here.run("submit")
    here.ahead += DAY
    return outcome


def arrives_after_the_last_look(here: Place) -> Outcome:
    here.kaggle.misbehave("CreateSubmission:hang=60*1")
    outcome = here.run("submit")
    assert not here.own
    here.kaggle.stopping.set()  # ends what hangs
    wait_until(lambda: here.own)
    return outcome


def beside_a_strangers(fault: str) -> Callable[[Place], Outcome]:
    """`fault` is for a Kaggle that has another submission of the team's, 90000001."""

    def provoke(here: Place) -> Outcome:
        assert here.send_a_strangers() == FIRST_REF
        here.kaggle.misbehave(fault)
        return here.run("submit")

    return provoke


def by_hand_before(here: Place) -> Outcome:
    submit_by_hand(here.cwd, here.kaggle)
    return here.run("submit")


def by_hand_meanwhile(here: Place) -> Outcome:
    """The answer is lost; before the first look somebody submits another CSV."""
    here.kaggle.misbehave("CreateSubmission:accepted-then=500*1")
    sent: list[int] = []

    def sleep(seconds: float) -> None:
        if not sent:
            sent.append(here.send_a_strangers())
        here.slept.append(seconds)

    here.client["sleep"] = sleep
    outcome = here.run("submit")
    assert sent
    return outcome


def on_the_last_page(here: Place) -> Outcome:
    """Ours is the oldest of 402 submissions, and the ledger does not know of it."""
    here.send_ours()
    (own,) = here.kaggle.state.received
    here.kaggle.state.received += [
        dataclasses.replace(own, ref=own.ref + k, description=f"by hand {k}", sha256="0" * 64, file_name="x")
        for k in range(1, 402)
    ]
    outcome = here.run("submit")
    assert here.kaggle.calls.count("ListSubmissions") == 3
    return outcome


def scored_error(here: Place) -> Outcome:
    """Kaggle expects other ids than ours, now and later."""
    here.kaggle.state.truth = Truth({1: 1, 2: 2}, frozenset({1}))
    return here.run("submit")


def clock_off(seconds: float) -> Callable[[Place], Outcome]:
    """Kaggle's clock is that much ahead of ours; the answer is lost, and a stranger's submission is there as well."""

    def provoke(here: Place) -> Outcome:
        here.ahead = seconds
        outcome = beside_a_strangers("CreateSubmission:accepted-then=cut*1")(here)
        strangers = [row for row in here.lines() if f",{FIRST_REF}," in row]
        assert strangers and all(here.sha256 not in row and "tiny-run" not in row for row in strangers)
        return outcome

    return provoke


# --- the table --------------------------------------------------------------------------------------------------

IMPATIENT = {"timeout": 3.0, "upload_timeout": 3.0}  # towards a Kaggle that hangs
SETTINGS, BUSY, LATER = "https://www.kaggle.com/settings", "try again later", "pip install -U kaggle"
NETWORK, NEW_LINK, LIST = "check the network and run again", "run again, for a new link", "it looks there first"
REFUSED = '{"code": 500, "message": "inside"}'  # with status 200
UPLOAD_FAILED = '{"message": "Could not submit to competition"}'  # the client's own words
LEFT_OPEN = "accepted-then=cut", "accepted-then=https://localhost/login", f"body={UPLOAD_FAILED}"
LISTED_ONCE = "ListSubmissions:fields={}*1", "ListSubmissions:status=500"
ODD = 'ListSubmissions:fields={"submissions": [{"ref": 1, "status": "ODD"}]}'
NONE_TODAY = 'GetSubmissionLimits:fields={"numToday": 9, "numTotal": 9, "numAllowedNow": 0}'
NO_MORE = 'GetSubmissionLimits:fields={"numTotal": 9, "numAllowedNow": 0, "limitedByTotal": true}'

_DOWNLOAD = (
    Case("a token that is valid no more", 'IntrospectToken:body={"active": false}', 5, SETTINGS),
    Case("500 with status 200", f"ListDataFiles:body={REFUSED}", 6, "busy or down (500"),
    Case("a network that wants a login", "ListDataFiles:html=200", 6, "a web page came instead of its answer"),
    Case("an expired link", "Download:status=403", 6, NEW_LINK),
    Case("a link expires midway", link_expires_midway, 0, "trying again", "complete", client={"attempts": 3}),
    Case("cut at each third", "DownloadDataFiles:cut=1500000", 0, "going on after", "complete"),
    Case("cut at once, always", "DownloadDataFiles:cut=0", 6, NETWORK),
    Case("a flipped byte", "DownloadDataFiles:flip", 4, "ballast.bin"),
    Case("a flipped byte, once", "DownloadDataFiles:flip*1", 0, "downloading once more", "complete"),
    Case("a redirect loop", "DownloadDataFiles:loop", 6, LATER),
    Case("the list hangs", "ListDataFiles:hang=60", 6, "did not answer within 3 s", client=IMPATIENT),
    Case("the file hangs", "Download:hang=60", 6, "stalled for 3 s: run again to resume it", client=IMPATIENT),
    Case("no space for the archive", no_space, 1, "free space"),
)

_SUBMIT = (
    Case("500 before sending", "ListSubmissions:status=500", 6, BUSY),
    Case("an unknown status", ODD, 6, LATER),
    Case("the day's limit", NONE_TODAY, 7, "00:00 UTC"),
    Case("the competition's limit", NO_MORE, 7, "takes no more"),
    Case("refused at the limit", refused_at_the_limit, 7, "00:00 UTC"),
    Case("the upload leads nowhere", "StartSubmissionUpload:body={}", 6, NETWORK),
    Case("503 for the upload, once", "Upload:status=503*1", 0, "is scored", "complete", 1),
    Case("the upload hangs", "Upload:hang=60", 6, LIST, client=IMPATIENT),
    Case("429 at the end, once", "CreateSubmission:status=429,retry=1*1", 0, "Kaggle's list, 1 s", "complete", 1),
    Case("500, it does not count, once", "CreateSubmission:status=500*1", 6, LIST),
    Case("500, and then the list is refused",
         ("ListSubmissions:fields={}*1", "ListSubmissions:status=401", "CreateSubmission:status=500*1"), 6,
         "Kaggle may have accepted the submission, and then: Kaggle refused"),
    Case("no answer, it counts", "CreateSubmission:accepted-then=cut*1", 0, "it did arrive", "complete", 1),
    Case("it hangs, then it counts", arrives_after_the_last_look, 6, LIST, sent=1, client=IMPATIENT),
    *(
        Case(f"{answer}, it counts, the list is late",
             ('ListSubmissions:fields={"submissions": []}', f"CreateSubmission:{answer}*1"), 6, LIST, sent=1)
        for answer in LEFT_OPEN
    ),
    Case("the ref is a stranger's, it counts", beside_a_strangers('CreateSubmission:fields={"ref": 90000001}'), 0,
         "ref 90000002 is scored", "complete", 1),
    Case("the ref is another team's, the list is late",
         ('CreateSubmission:fields={"ref": 77}', 'ListSubmissions:fields={"submissions": []}*2'), 0,
         "ref 90000001 is scored", "complete", 1),
    Case("404, longer than it is waited for", "GetSubmission:status=404", 6, "python -m pipeline.check", sent=1),
    Case("another's score", 'GetSubmission:fields={"ref": 77, "publicScore": "0.99"}', 6, "ref 90000001 was", sent=1),
    Case("another CSV's score", 'GetSubmission:fields={"description": "x"}', 6, "another submission", sent=1),
    Case("the list fails after it was taken", LISTED_ONCE, 6,
         "accepted it (ref 90000001)", sent=1),
    Case("500 before the score", "GetSubmission:status=500", 6, "ref 90000001 was accepted", sent=1),
    Case("PENDING for long", pending_for_long, 6, "python -m pipeline.check", sent=1),
    Case("scored ERROR", scored_error, 8, "required key values", "unscored", 1, again=8),
    Case("402 submissions, ours on the last page", on_the_last_page, 0, "not sending it twice", "complete", 1),
    Case("submitted by hand before", by_hand_before, 0, "not sending it twice", "complete", 1),
    Case("another by hand meanwhile", by_hand_meanwhile, 0, "as ref 90000001", "complete", 1),
    Case("our clock is a day behind", clock_off(DAY), 0, "is scored", "complete", 1),
    Case("two runs at once", two_submits, 2, "another run is at work on", "complete", 1),
    Case("no space for the ledger after sending", no_space_after_sending, 1, "free space", sent=1),
)  # fmt: skip

CASES: Mapping[Stage, Sequence[Case]] = {"download": _DOWNLOAD, "submit": _SUBMIT}


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[Stage, Path]:
    return {stage: make_template(tmp_path_factory.mktemp(stage), stage) for stage in CASES}


@pytest.mark.parametrize(
    ("stage", "case"),
    [pytest.param(stage, case, id=f"{stage}-{case.name}") for stage, cases in CASES.items() for case in cases],
)
def test_after_the_failure_the_next_run_completes(
    templates: dict[Stage, Path], stage: Stage, case: Case, tmp_path: Path
) -> None:
    run_case(case, stage, templates[stage], tmp_path / "place")
