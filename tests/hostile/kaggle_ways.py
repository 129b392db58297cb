"""What a fault of the mock server alone cannot provoke: each function lets a stage run into it."""

import dataclasses
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from pipeline.rehearsal.state import FIRST_REF, Settings, Truth
from pipeline.store import atomic, ledger
from pipeline.store.ledger import Entry
from tests.hostile.kaggle_place import CLOCK, Outcome, Place, Stage
from tests.hostile.surroundings import NAMESPACE, mounts
from tests.support import ROOT, SLUG, submit_by_hand

DAY = 86_400.0  # seconds
Way = Callable[[Place], Outcome]


def nobody_listens(stage: Stage) -> Way:
    def provoke(here: Place) -> Outcome:
        with socket.create_server(("127.0.0.1", 0)) as server:
            closed = f"http://127.0.0.1:{server.getsockname()[1]}"
        with here.environment(http_proxy=closed, https_proxy=closed, HTTP_PROXY=closed, HTTPS_PROXY=closed):
            return here.run(stage)

    return provoke


def _command(here: Place, command: list[str]) -> Outcome:
    """How a command ended that ran the pipeline: at most one line is an error, and no line is of a traceback."""
    environ = {**here.kaggle.environment, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    done = subprocess.run(command, cwd=here.cwd, env=environ, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    errors = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == (done.returncode != 0), done.stderr
    return Outcome(done.returncode, "".join(errors), done.stdout)


# --- download -----------------------------------------------------------------------------------------------


def inactive_token(here: Place) -> Outcome:
    """A token that is valid no more, and no other credentials."""
    here.kaggle.misbehave('IntrospectToken:body={"active": false}')
    with here.environment(KAGGLE_USERNAME="", KAGGLE_KEY=""):
        return here.run("download")


def unreadable_token(here: Place) -> Outcome:
    """A file with a token that is not text."""
    (here.cwd / ".kaggle").mkdir(exist_ok=True)
    (here.cwd / ".kaggle/access_token").write_bytes(b"\xff\xfe\x00")
    nothing = dict.fromkeys(("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"), "")
    with here.environment(HOME=str(here.cwd), **nothing):
        return here.run("download")


def link_expires_midway(here: Place) -> Outcome:
    """Cut after a half; when the client asks for the rest, the link has expired."""
    here.kaggle.misbehave("Download:cut=2300000*1")
    faults = iter(["Download:status=403*1"])
    here.client["sleep"] = lambda _: here.kaggle.misbehave(*itertools.islice(faults, 1))
    return here.run("download")


def two_downloads(here: Place) -> Outcome:
    with atomic.lock(here.cwd / "data/raw" / SLUG):
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


# --- submit -------------------------------------------------------------------------------------------------


def no_space_after_sending(here: Place) -> Outcome:
    """The ledger has space for the line before sending, and for a part of the line after it."""
    entry = Entry(CLOCK.now(), SLUG, "tiny-run", here.sha256, None, 91.0, 90.0, None, None, ledger.SENDING)
    size = here.ledger_file.stat().st_size + len(ledger.line(entry)) + 20
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}));"
        "from pipeline.submit import main; sys.exit(main([]))"
    )
    with here.environment(PYTHONDONTWRITEBYTECODE="1"):
        return _command(here, [sys.executable, "-c", code])


def two_submits(here: Place) -> Outcome:
    here.kaggle.misbehave("CreateSubmission:hang=1*1")
    found: list[Outcome] = []
    threads = [threading.Thread(target=lambda: found.append(here.run("submit"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = sorted(found, key=lambda outcome: outcome.code)
    assert first.code == 0, first
    return second


def refused_at_the_limit(here: Place) -> Outcome:
    """Kaggle says that there is one left, and there is none; the next run is tomorrow's."""
    here.kaggle.state.settings = Settings(daily_limit=1, pending_seconds=0.0)
    here.submit_a_strangers()
    here.kaggle.misbehave('GetSubmissionLimits:fields={"numAllowedNow": 1}')
    outcome = here.run("submit")
    here.offset[0] += DAY
    return outcome


def arrives_after_the_last_look(here: Place) -> Outcome:
    here.kaggle.misbehave("CreateSubmission:hang=6*1")
    outcome = here.run("submit")
    assert not here.own
    deadline = time.monotonic() + 60
    while not here.own:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return outcome


def beside_a_strangers(fault: str) -> Way:
    """`fault` is for a Kaggle that has another submission of the team's, 90000001."""

    def provoke(here: Place) -> Outcome:
        assert here.submit_a_strangers() == FIRST_REF
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
            sent.append(here.submit_a_strangers())
        time.sleep(seconds)

    here.clock = dataclasses.replace(CLOCK, sleep=sleep)
    outcome = here.run("submit")
    assert sent
    return outcome


def on_the_last_page(here: Place) -> Outcome:
    """Ours is the oldest of 402 submissions, and the ledger does not know of it."""
    here.submit_ours()
    (own,) = here.kaggle.state.received
    here.kaggle.state.received += [
        dataclasses.replace(own, ref=own.ref + k, description=f"by hand {k}", sha256="0" * 64, file_name="x")
        for k in range(1, 402)
    ]
    outcome = here.run("submit")
    assert here.kaggle.count("ListSubmissions") == 3
    return outcome


def of_unknown_origin(here: Place) -> Outcome:
    """A CSV that predict did not write was submitted, and then its lines in the ledger were lost."""
    for part in (here.csv.with_suffix(".json"), here.csv.with_suffix(".npz")):
        part.unlink()
    older = here.ledger_file.read_bytes()
    assert here.run("submit").code == 0
    here.ledger_file.write_bytes(older)
    return here.run("submit")


def scored_error(here: Place) -> Outcome:
    """Kaggle expects other ids than ours, now and later."""
    here.kaggle.state.truth = Truth({1: 1, 2: 2}, frozenset({1}))
    return here.run("submit")


def clock_off(seconds: float) -> Way:
    """Kaggle's clock is that much ahead of ours; the answer is lost, and a stranger's submission is there as well."""

    def provoke(here: Place) -> Outcome:
        here.offset[0] = seconds
        here.submit_a_strangers()
        here.kaggle.misbehave("CreateSubmission:accepted-then=cut*1")
        outcome = here.run("submit")
        strangers = [row for row in here.lines() if f",{FIRST_REF}," in row]
        assert strangers and all(here.sha256 not in row and "tiny-run" not in row for row in strangers)
        return outcome

    return provoke
