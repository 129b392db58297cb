"""What `--fault` alone cannot provoke: each function lets a stage run into it and says how that ended."""

import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.rehearsal.state import FIRST_REF, Settings, Truth
from pipeline.store import atomic, ledger
from pipeline.store.ledger import Entry
from tests.hostile.kaggle_place import CLOCK, Outcome, Place, Stage, at_once, lines, outcome
from tests.support import ROOT, SLUG, submit_by_hand

DAY = 86_400.0  # seconds


class CannotProvoke(Exception):
    """This machine does not let us; the text says why."""


def nobody_listens(here: Place, name: Stage) -> Outcome:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ways = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), f"http://127.0.0.1:{port}")
    here.kaggle.environment.update(ways)
    try:
        return here.run(name)
    finally:
        here.kaggle.environment.update(dict.fromkeys(ways, f"http://127.0.0.1:{here.kaggle.port}"))


# --- download -----------------------------------------------------------------------------------------------


def token_alone(*faults: str) -> Callable[[Place], Outcome]:
    """A download with no other credentials than the token."""

    def provoke(here: Place) -> Outcome:
        here.kaggle.misbehave(*faults)
        with _environment(here, KAGGLE_USERNAME="", KAGGLE_KEY=""):
            return here.run("download")

    return provoke


def unreadable_token(here: Place) -> Outcome:
    """A file with a token that is no text."""
    folder = here.cwd / ".kaggle"
    folder.mkdir()
    (folder / "access_token").write_bytes(b"\xff\xfe\x00")
    nothing = dict.fromkeys(("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"), "")
    try:
        with _environment(here, HOME=str(here.cwd), **nothing):
            return here.run("download")
    finally:
        shutil.rmtree(folder)


@contextmanager
def _environment(here: Place, **changed: str) -> Iterator[None]:
    """Other variables for a while; an empty one is not there."""
    usual = dict(here.kaggle.environment)
    here.kaggle.environment.update(changed)
    for name in [name for name, value in changed.items() if not value]:
        del here.kaggle.environment[name]
    try:
        yield
    finally:
        here.kaggle.environment.clear()
        here.kaggle.environment.update(usual)


def link_expires_midway(here: Place) -> Outcome:
    """Cut after a third; when the client asks for the rest, the link has grown old."""
    here.kaggle.misbehave("Download:cut=3300000*1")
    here.client["sleep"] = lambda _: here.kaggle.misbehave("Download:status=403*1")
    return here.run("download")


def two_downloads(here: Place) -> Outcome:
    with atomic.lock(here.cwd / "data/raw" / SLUG):
        return here.command("download")


def _mounted(here: Place, script: str) -> subprocess.CompletedProcess[str]:
    """A shell script that may mount: in a name space of its own, where nobody else sees it."""
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        raise CannotProvoke("needs `unshare -rm` with the right to mount a tmpfs")
    environ = {**here.kaggle.environment, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    command = ["unshare", "-rm", "bash", "-c", script]
    return subprocess.run(command, cwd=here.cwd, env=environ, capture_output=True, text=True, check=False)


def no_space(size: str, *faults: str) -> Callable[[Place], Outcome]:
    """A file system of `size`; when there is more space the next run completes."""

    def provoke(here: Place) -> Outcome:
        here.kaggle.misbehave(*faults)
        done = _mounted(
            here,
            f"""
            mount -t tmpfs -o size={size} none data/raw
            $PYTHON -m pipeline.download; code=$?
            ls data/raw > visible.txt
            mount -o remount,size=100m data/raw
            $PYTHON -m pipeline.download > /dev/null 2> second.txt && diff -r -x manifest.json source data/raw/{SLUG}
            echo $? > second-code.txt
            exit $code""",
        )
        texts = [(here.cwd / name).read_text() for name in ("visible.txt", "second-code.txt", "second.txt")]
        assert texts[:2] == ["", "0\n"], texts
        return outcome(done.returncode, done.stdout, done.stderr)

    return provoke


def read_only(name: Stage) -> Callable[[Place], Outcome]:
    folder = "data/raw" if name == "download" else "submissions"

    def provoke(here: Place) -> Outcome:
        more = "--force" if name == "download" else ""
        done = _mounted(
            here,
            f"""
            mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} || exit 99
            exec $PYTHON -m pipeline.{name} {more}""",
        )
        return outcome(done.returncode, done.stdout, done.stderr)

    return provoke


def _limited(here: Place, name: Stage, size: int, *more: str) -> Outcome:
    """The stage, in a process that cannot write a file of more than `size` bytes."""
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}));"
        f"from pipeline.{name} import main; sys.exit(main(sys.argv[1:]))"
    )
    environ = {**here.kaggle.environment, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code, *more]
    done = subprocess.run(command, cwd=here.cwd, env=environ, capture_output=True, text=True, check=False)
    return outcome(done.returncode, done.stdout, done.stderr)


def file_too_large(here: Place) -> Outcome:
    return _limited(here, "download", 3_000_000, "--force")


# --- submit -------------------------------------------------------------------------------------------------


def no_space_to_note(sent: bool) -> Callable[[Place], Outcome]:
    """The ledger has space for a part of the line before sending, or (`sent`) of the line after it."""

    def provoke(here: Place) -> Outcome:
        entry = Entry(CLOCK.now(), SLUG, "tiny-run", here.sha256, None, 91.0, 90.0, None, None, ledger.SENDING)
        line = len(",".join(entry.to_row().values())) + 1 if sent else 0
        return _limited(here, "submit", here.book.stat().st_size + line + 20)

    return provoke


def two_submits(here: Place) -> Outcome:
    here.kaggle.misbehave("CreateSubmission:hang=1*1")
    first, second = sorted(at_once([lambda: here.run("submit")] * 2), key=lambda found: found.code)
    assert first.code == 0, first
    return second


def refused_at_the_limit(here: Place) -> Outcome:
    """Kaggle says that there is one left, and there is none; the next run is tomorrow's."""
    here.kaggle.state.settings = Settings(daily_limit=1, pending_seconds=0.0)
    here.submit_a_strangers()
    here.kaggle.misbehave('GetSubmissionLimits:fields={"numAllowedNow": 1}')
    found = here.run("submit")
    here.offset[0] += DAY
    return found


def arrives_after_the_last_look(here: Place) -> Outcome:
    here.kaggle.misbehave("CreateSubmission:hang=10*1")
    here.client |= {"timeout": 6.0, "upload_timeout": 6.0}
    found = here.run("submit")
    assert not here.own
    deadline = time.monotonic() + 60
    while not here.own:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def list_fails_after(here: Place) -> Outcome:
    """The list of submissions, once Kaggle has taken one."""
    ended = threading.Event()

    def watch() -> None:
        while not here.kaggle.count("CreateSubmission") and not ended.wait(0.02):
            pass
        here.kaggle.misbehave("ListSubmissions:status=500")

    here.kaggle.misbehave()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return here.run("submit")
    finally:
        ended.set()
        watcher.join()


def named_after_a_strangers(fault: str) -> Callable[[Place], Outcome]:
    """`fault` is for a Kaggle that has another submission of the team's, 90000001."""

    def provoke(here: Place) -> Outcome:
        assert here.submit_a_strangers() == FIRST_REF
        here.kaggle.misbehave(fault)
        return here.run("submit")

    return provoke


def named_after_another_teams(here: Place) -> Outcome:
    """The answer names a ref of another team's, while Kaggle's list does not show ours yet."""
    theirs = {"ref": 77, "description": "theirs", "status": "COMPLETE", "publicScore": "0.99000"}
    here.kaggle.misbehave(
        'CreateSubmission:fields={"ref": 77}',
        'ListSubmissions:fields={"submissions": []}*2',
        f"GetSubmission:body={json.dumps(theirs)}",
    )
    return here.run("submit")


def by_hand_meanwhile(here: Place) -> Outcome:
    """The answer is lost; before the first look somebody submits another CSV."""
    here.kaggle.misbehave("CreateSubmission:accepted-then=500*1")
    seen: list[int] = []

    def sleep(seconds: float) -> None:
        if not seen:
            seen.append(here.submit_a_strangers())
        time.sleep(seconds)

    here.clock = dataclasses.replace(CLOCK, sleep=sleep)
    found = here.run("submit")
    assert seen
    return found


def by_hand_before(here: Place) -> Outcome:
    submit_by_hand(here.cwd, here.kaggle)
    return here.run("submit")


def on_the_last_page(here: Place) -> Outcome:
    """Ours is the oldest of 402 submissions, and the ledger does not know of it."""
    here.submit_ours()
    own = here.kaggle.state.received[0]
    for k in range(1, 402):
        other = dataclasses.replace(own, ref=own.ref + k, description=f"by hand {k}", sha256="0" * 64, file_name="x")
        here.kaggle.state.received.append(other)
    found = here.run("submit")
    assert here.kaggle.count("ListSubmissions") == 3
    return found


def of_unknown_origin(here: Place) -> Outcome:
    """A CSV that predict did not write was submitted, and then its lines in the ledger were lost."""
    for part in (here.csv.with_suffix(".json"), here.csv.with_suffix(".npz")):
        part.unlink()
    older = here.book.read_bytes()
    assert here.run("submit").code == 0
    here.book.write_bytes(older)
    return here.run("submit")


def scored_error(here: Place) -> Outcome:
    """Kaggle expects other ids than ours, now and later."""
    here.kaggle.state.truth = Truth({1: 1, 2: 2}, frozenset({1}))
    return here.command("submit")


def clock_off(seconds: float) -> Callable[[Place], Outcome]:
    """Kaggle's clock is that much ahead of ours; the answer is lost, and a stranger's submission is there as well."""

    def provoke(here: Place) -> Outcome:
        here.offset[0] = seconds
        here.submit_a_strangers()
        here.kaggle.misbehave("CreateSubmission:accepted-then=cut*1")
        found = here.run("submit")
        other = [row for row in lines(here) if f",{FIRST_REF}," in row]
        assert other and all(here.sha256 not in row and "tiny-run" not in row for row in other)
        return found

    return provoke
