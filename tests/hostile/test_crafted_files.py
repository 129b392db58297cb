"""Every crafted file against the real command line: one line of refusal, nothing run, nothing changed."""

import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.doubles import cpickle
from tests.hostile import archives, pickles
from tests.hostile.archives import ESCAPE, competition, zip_of
from tests.hostile.pickles import Maker, raw
from tests.support import NAMES, ROOT, SLUG, clean_environment, error_line, here, images

# --- harmless pickles of something else than the stages expect --------------------------------------------------

_PIXELS = images(3)
_FLAT = _PIXELS.transpose(0, 3, 1, 2).reshape(3, -1)


def _hidden(**changes: object) -> bytes:
    """A test set of three images with something changed."""
    return pickle.dumps({"data": _PIXELS, "ids": np.arange(3)} | changes, protocol=4)


def _batch(**changes: object) -> bytes:
    """A batch of three images with something changed; None leaves a key out."""
    content = {"data": _FLAT, "labels": [0, 1, 2]} | changes
    return pickle.dumps({key.encode(): value for key, value in content.items() if value is not None}, protocol=2)


def _meta(first: bytes) -> bytes:
    """batches.meta whose first class has the name `first`, an opcode; the others have one letter."""
    names = b"".join(b"U\x01" + bytes([letter]) for letter in b"bcdefghij")
    return b"\x80\x02}U\x0blabel_names](" + first + names + b"es."


# (More of these, against the reader itself: tests/store/test_cifar.py.)
HIDDEN = {
    "escapes in keys": pickle.dumps({ESCAPE: _PIXELS, ESCAPE.encode(): 1}, protocol=4),
    "many keys": pickle.dumps({f"{ESCAPE}{n}": n for n in range(5000)}, protocol=4),
    "data twice, as text and as bytes": pickle.dumps({"data": _PIXELS, b"data": 255 - _PIXELS}, protocol=4),
    "ids of bool": _hidden(ids=np.array([True, False, True])),
    "ids of bool in a list": _hidden(ids=[True, False, 2]),
    "ids very many": _hidden(ids=np.zeros(1_000_000, np.int8)),
    "ids too large": _hidden(ids=np.array([1, 2, 10**18])),
    "ids of the least integer in a list": _hidden(ids=[1, 2, -(2**63)]),
}
BATCH = {
    "not a dictionary": b"\x80\x02].",
    "no data": _batch(data=None),
    "no labels": _batch(labels=None),
    "escapes in keys": pickle.dumps({ESCAPE: 1}, protocol=2),
    "data of float": _batch(data=_FLAT / 255),
    "labels 2-D": _batch(labels=np.zeros((3, 10), np.int64)),
    "labels of 2**64 - 1": _batch(labels=np.array([0, 1, 2**64 - 1], np.uint64)),
    "labels of bool": _batch(labels=[True, False, True]),
}
META = {
    "not a dictionary": b"\x80\x02K\x07.",
    "no names": pickle.dumps({b"num_vis": 3072}, protocol=2),
    "nine names": cpickle.batches_meta(20, NAMES[:9]),
    "names are text": pickle.dumps({"label_names": "0123456789"}, protocol=2),
}
# These load; what they hold must not reach the terminal as it is, nor take memory.
META_TAKEN: dict[str, Maker] = {
    "escapes in names": lambda: cpickle.batches_meta(20, [f"{ESCAPE}{name}" for name in NAMES]),
    "a name of 50 MB": lambda: _meta(raw("\U0001f600".encode() + b"a" * 50_000_000)),
    "a name that is no UTF-8": lambda: _meta(raw(b"\xff\xfe\x00")),
}

# --- the cases --------------------------------------------------------------------------------------------------

HIDDEN_SET, ARCHIVE = "cifar_test_nolabel.pkl", "crafted.zip"
BATCH_3, BATCHES_META = (f"cifar-10-python/cifar-10-batches-py/{name}" for name in ("data_batch_3", "batches.meta"))
_CODE = "open('canary', 'w').close()\nx = 1\n"  # of canary_module, which attacks import

CPU_SECONDS = 3.0
SLACK = 48 * 1024**2  # bytes: what a file under the reader's caps may take, however small it is
_OUTSIDE = (Path("/evil"), Path("/tmp/evil"), Path("/tmp/canary"))  # where names of the corpus lead


@dataclass(frozen=True)
class Case:
    """A crafted file in the place of an honest one, and how the stage that meets it may end."""

    name: str
    file: str  # relative to the raw folder, for preprocess; or ARCHIVE, for download
    content: bytes | Maker
    code: int = 4


def every_case() -> Iterator[Case]:
    """Pickles as test set, as a training batch and as batches.meta, and archives.

    Of those that tests/store gives to the readers themselves, every eighth or sixteenth.
    """
    refused = list(pickles.REFUSED.items())
    tables: list[tuple[str, str, Mapping[str, bytes | Maker], int]] = [
        ("hidden", HIDDEN_SET, {**dict(refused[::8]), **HIDDEN}, 4),
        ("batch", BATCH_3, {**dict(refused[::16]), **BATCH}, 4),
        ("meta", BATCHES_META, {**dict(refused[8::16]), **META}, 4),
        ("meta", BATCHES_META, META_TAKEN, 0),
        ("archive", ARCHIVE, {**dict(list(archives.REFUSED.items())[::8]), **archives.MISUNDERSTOOD}, 4),
        ("archive", ARCHIVE, archives.WITHOUT_HIDDEN, 3),
        ("archive", ARCHIVE, archives.TAKEN, 0),
    ]
    for what, file, files, code in tables:
        for name, content in files.items():
            yield Case(f"{what}: {name}", file, content, code)


# --- the check --------------------------------------------------------------------------------------------------

# Where a process begins as another program it counts the memory of the one that it was: so it asks at its end.
_MEASURED = """
import re, sys
from pipeline.{stage} import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
sys.exit(code)
"""


class Target:
    """A folder in which download and preprocess were run on an honest competition.

    `fresh` starts an interpreter for each case, whose memory is measured; else the stage runs in this process.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.folder, self.fresh = folder, fresh
        self.raw, self.archive = folder / "data/raw" / SLUG, folder / ARCHIVE
        self.usual: dict[str, int] = {}  # bytes of memory that each stage takes for honest files
        for name, content in competition().items():
            (self.raw / name).parent.mkdir(parents=True, exist_ok=True)
            (self.raw / name).write_bytes(content)
        (folder / "canary_module.py").write_text(_CODE)
        (folder / "data/kept.txt").write_text("kept")
        self.archive.write_bytes(zip_of(competition()))
        for stage in ("preprocess", "download"):
            result, self.usual[stage] = self.run(stage)
            assert result.returncode == 0, result

    def run(self, stage: str) -> "tuple[subprocess.CompletedProcess[str], int]":
        """The stage on what lies in the folder; its peak of memory in bytes if it is `fresh`, else 0."""
        more = ["--from", self.archive.name, "--raw", "data/unpacked", "--force"] if stage == "download" else []
        arguments = ["--competition", SLUG, *more]
        if not self.fresh:
            sys.path.insert(0, str(self.folder))  # as `python -m` does: what a file asks for could be imported
            try:
                return here(stage, *arguments, cwd=self.folder), 0
            finally:
                sys.path.remove(str(self.folder))
        result = subprocess.run(
            [sys.executable, "-c", _MEASURED.format(stage=stage), *arguments], cwd=self.folder,
            env={**clean_environment(), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        result.stdout, _, peak = result.stdout.strip().rpartition("\n")
        return result, int(peak) * 1024

    def check(self, case: Case) -> float:
        """Put the case's file in its place, run the stage, and put the honest file back; its processor seconds.

        Raises:
            AssertionError: with the case's name: it was not refused as it must be.
        """
        stage, path = ("download", self.archive) if case.file == ARCHIVE else ("preprocess", self.raw / case.file)
        honest, crafted = path.read_bytes(), case.content() if callable(case.content) else case.content
        path.write_bytes(crafted)
        before, began = self._snapshot(), sum(os.times()[:4])
        try:
            result, peak = self.run(stage)
            seconds = sum(os.times()[:4]) - began
            changed = {name for name, _ in self._snapshot().items() ^ before.items()}
        finally:
            path.write_bytes(honest)
        if result.returncode == 0:
            output = "data/unpacked" if stage == "download" else "data/processed"
            changed = {name for name in changed if not name.startswith(f"{output}/{SLUG}/")}
        assert not changed, f"{case.name}: changed {sorted(changed)}"
        assert result.returncode == case.code, f"{case.name}: {result}"
        assert all(line.isprintable() for line in (result.stdout + result.stderr).split("\n")), f"{case.name}: {result}"
        _header, *errors = result.stderr.splitlines()
        one_line = len(errors) == 1 and errors[0].startswith("error: ") and len(errors[0]) < 1000
        assert one_line if case.code else not errors, f"{case.name}: {result}"
        assert seconds < CPU_SECONDS, f"{case.name}: {seconds:.1f} s"
        extra = peak - self.usual[stage]
        assert extra <= 3 * len(crafted) + SLACK, f"{case.name}: {extra / 1e6:.0f} MB for a file of {len(crafted)} B"
        return seconds

    def _snapshot(self) -> dict[str, str]:
        """Every file, hidden ones too, but for the locks; and the places outside that names lead to."""
        found = {str(path): str(path.stat().st_mtime_ns) for path in _OUTSIDE if path.exists()}
        for path in self.folder.rglob("*"):
            if path.is_symlink():
                found[str(path.relative_to(self.folder))] = str(path.readlink())
            elif path.is_file() and path.suffix != ".lock":
                found[str(path.relative_to(self.folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found


# --- the tests --------------------------------------------------------------------------------------------------

# In an interpreter of their own, whose memory is measured.
FRESH = [
    *(Case(name, HIDDEN_SET, pickles.REFUSED[name]) for name in (
        "call: os.system", "bomb: small dicts again and again", "bomb: nested marks"
    )),
    Case("a name of 50 MB", BATCHES_META, META_TAKEN["a name of 50 MB"], 0),
    Case("a gzip with a long name", ARCHIVE, archives.BOMBS["a gzip with a long name"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(tmp_path_factory.mktemp("target"))


@pytest.mark.parametrize("case", list(every_case()), ids=lambda case: case.name)
def test_a_crafted_file_does_no_harm(case: Case, target: Target) -> None:
    target.check(case)


def test_a_crafted_file_does_no_harm_to_a_fresh_interpreter(tmp_path: Path) -> None:
    fresh = Target(tmp_path, fresh=True)
    for case in FRESH:
        fresh.check(case)


def test_the_check_finds_what_was_not_refused(target: Target) -> None:
    honest = competition()[HIDDEN_SET]
    with pytest.raises(AssertionError, match="some case"):
        target.check(Case("some case", HIDDEN_SET, honest))


@pytest.mark.parametrize("kind", ["folder", "FIFO", "/dev/zero", "nowhere", HIDDEN_SET])
def test_a_hidden_set_that_is_no_file_is_refused(kind: str, target: Target) -> None:
    path = target.raw / HIDDEN_SET
    honest = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to(kind)
    try:
        result, _ = target.run("preprocess")
    finally:
        path.rmdir() if kind == "folder" else path.unlink()
        path.write_bytes(honest)
    assert error_line(result, result.returncode) and result.returncode in (3, 4)
