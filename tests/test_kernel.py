"""python -m pipeline.kernel: with the official client against the mock server, which really runs what is pushed.

What runs there is a stub that puts out a run of before; the real one is tested in tests/test_kernel_runner.py.
"""

import base64
import dataclasses
import hashlib
import lzma
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import kernel, kernel_source
from pipeline.errors import BadData, NetworkError, PipelineError, UsageError
from pipeline.kaggle_api.client import Kaggle, KernelStatus
from pipeline.kernel import Kernels
from pipeline.kernel_runner import CSV_ENDINGS, RUN_FILES
from pipeline.kernel_source import Kernel
from pipeline.recipes import PRESETS
from pipeline.store import atomic, runs
from pipeline.store.runs import Run
from tests.doubles.kaggle import FaultyKaggle, faulty_kaggle
from tests.hostile.edits import CSV, EVIDENCE, SIDECAR, Edit, edit, flip, values
from tests.hostile.edits import RUN as FOLDER
from tests.support import SLUG, error_line, here, paths_in, predicted_place, tree

pytestmark = pytest.mark.usefixtures("quick_client")
RUN = "tiny-run"
PUSH = ("push", "--preset", "rehearsal", "--run", RUN, "--competition", SLUG, "--poll", "0.1")
ORDERED = Kernel(SLUG, RUN, PRESETS["rehearsal"], user="user")
FILES = [f"data/models/{RUN}/{name}" for name in RUN_FILES] + [f"submissions/{RUN}{end}" for end in CSV_ENDINGS]
SECRET = "s3cr3t-not-to-be-sent"
STUB = """
import pathlib, shutil
from typing import Any
ORDER: dict[str, Any] = {{}}
PROJECT = ""
print("what the log says")
if ORDER["internet"]:
    raise SystemExit(3)
pathlib.Path("checkpoint.bin").touch()
for name in {files}:
    pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy("{made}/" + name, name)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and its CSV, as train and predict leave it."""
    return predicted_place(tmp_path_factory.mktemp("made"))


@pytest.fixture
def kaggle(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyKaggle]:
    """A Kaggle that runs the stub."""
    (tmp_path / "stub.py").write_text(STUB.format(files=FILES, made=made))
    monkeypatch.setattr(kernel_source, "RUNNER", tmp_path / "stub.py")
    packed = {"pipeline/kernel.py": Path(kernel.__file__)}  # the whole project takes a second each time
    monkeypatch.setattr(kernel_source, "project_files", lambda: packed)
    with faulty_kaggle(made / "source", tmp_path / "state", slug=SLUG) as running:
        yield running


def run_kernel(place: Path, kaggle: FaultyKaggle | None, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environ = {**kaggle.environment, "KAGGLE_API_TOKEN": SECRET} if kaggle else None
    return here("kernel", *arguments, cwd=place, environ=environ)


# --- the command line -------------------------------------------------------------------------------------------


def test_a_pushed_kernel_comes_back_as_a_run(tmp_path: Path, made: Path, kaggle: FaultyKaggle) -> None:
    pushed = run_kernel(tmp_path, kaggle, *PUSH, "--wait", "0")
    assert pushed.returncode == 0, pushed.stderr
    assert "kernel: rehearsal/tiny-run, private, accelerator GPU, without internet, files of tiny\n" in pushed.stderr
    assert pushed.stderr.endswith("kernel: not waiting; later: python -m pipeline.kernel fetch --run tiny-run\n")
    source = (tmp_path / "data/kernels/tiny-run/main.py").read_text()
    packed = re.search(r'PROJECT = """\n(.*?)"""', source, re.S)
    assert packed is not None
    unpacked = lzma.decompress(base64.b64decode(packed[1]))
    assert b"pipeline/kernel.py" in unpacked
    assert SECRET not in source and SECRET.encode() not in unpacked

    kaggle.misbehave("ListKernelSessionOutput:cut=1000*1")
    done = run_kernel(tmp_path, kaggle, *PUSH)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "kernel: rehearsal/tiny-run/1 was pushed before; resuming\n" in done.stderr
    assert "data/models/tiny-run and submissions/tiny-run.csv are here, verified: holdout 90.00%" in done.stdout
    assert f"next: python -m pipeline.check --competition {SLUG} --csv submissions/tiny-run.csv\n" in done.stdout
    assert kaggle.calls.count("SaveKernel") == 1
    assert not any("checkpoint.bin" in path for path in kaggle.asked)  # what was not ordered is not touched
    assert Run.open(tmp_path / "data/models", None).name == RUN
    assert all((tmp_path / name).read_bytes() == (made / name).read_bytes() for name in FILES)
    kept = {path.name for path in (tmp_path / "data/kernels/tiny-run").iterdir()}
    assert kept == {"kernel-metadata.json", "main.py", "note.json"}
    for command in (PUSH, ("fetch",)):  # without Kaggle, because all is here
        assert "are here already, nothing to do" in run_kernel(tmp_path, None, *command).stdout


def test_failures_at_kaggle(tmp_path: Path, kaggle: FaultyKaggle) -> None:
    kaggle.misbehave("ListDataFiles:status=403")
    refused = run_kernel(tmp_path, kaggle, *PUSH)
    assert f"accept its rules at https://www.kaggle.com/competitions/{SLUG}/rules" in error_line(refused, 5)
    kaggle.misbehave("SaveKernel:status=429*1")
    assert "busy or down (429" in error_line(run_kernel(tmp_path, kaggle, *PUSH), 6)
    fetched = run_kernel(tmp_path, kaggle, "fetch")
    assert "note.json is missing: push the kernel with `python -m pipeline.kernel push`" in error_line(fetched, 3)

    # The answer is lost, and what was pushed is not pushed again.
    fails = (*PUSH, "--internet")
    kaggle.misbehave("SaveKernel:accepted-then=500*1")
    lost = error_line(run_kernel(tmp_path, kaggle, *fails), 6)
    assert "Kaggle may still have accepted the kernel: `python -m pipeline.kernel fetch --run tiny-run`" in lost
    failed = run_kernel(tmp_path, kaggle, *fails)
    assert "kernel: rehearsal/tiny-run was pushed before; resuming\n" in failed.stderr
    assert "kernel: rehearsal/tiny-run is error, after" in failed.stderr
    assert "\n| what the log says\n" in failed.stderr
    assert "the kernel is error (Your kernel ended with exit code 3)" in error_line(failed, 1)
    assert kaggle.calls.count("SaveKernel") == 2

    other = run_kernel(tmp_path, kaggle, *PUSH)
    assert "was pushed with other options: choose another --run, or push it again with" in error_line(other, 2)
    note = (tmp_path / "data/kernels/tiny-run/note.json").read_bytes()
    kaggle.misbehave("SaveKernel:status=429*1")
    error_line(run_kernel(tmp_path, kaggle, *PUSH, "--force"), 6)
    assert (tmp_path / "data/kernels/tiny-run/note.json").read_bytes() == note
    again = run_kernel(tmp_path, kaggle, *PUSH, "--force", "--wait", "0")
    assert "kernel: not waiting; later: python -m pipeline.kernel fetch --run tiny-run --force\n" in again.stderr
    kaggle.misbehave("GetKernelSessionStatus:status=403")
    denied = error_line(run_kernel(tmp_path, kaggle, "fetch"), 5)
    assert "is the kernel at https://www.kaggle.com/code/rehearsal/tiny-run" in denied
    assert not (tmp_path / "data/models").exists()


def test_a_dry_run_can_be_pushed_by_hand(tmp_path: Path, kaggle: FaultyKaggle) -> None:
    dry = run_kernel(tmp_path, None, *PUSH, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    metadata = tmp_path / "data/kernels/tiny-run/kernel-metadata.json"
    assert '"id": "YOUR-KAGGLE-NAME/tiny-run"' in metadata.read_text()
    metadata.write_text(metadata.read_text().replace("YOUR-KAGGLE-NAME", "rehearsal"))
    by_hand = [str(Path(sys.executable).with_name("kaggle")), "-W", *dry.stdout.splitlines()[-1].split()[1:]]
    pushed = subprocess.run(
        by_hand, cwd=tmp_path, env=kaggle.environment, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert "Kernel version 1 successfully pushed" in pushed.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("push", "--mixup", "1", "--cutmix", "1"), "use only one of --mixup and --cutmix"),
        (("push", "--model", "resnet18"), "11,173,962 trainable parameters"),
        (("push", "--run", "tiny", "--dry-run"), "a kernel's name has from 5 to 50"),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    result = run_kernel(tmp_path, None, *arguments)
    assert text in error_line(result, 2)
    assert result.stdout == ""


# --- waiting ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Scripted(Kaggle):
    """A Kaggle whose kernel has these statuses one after the other; time passes in sleep."""

    statuses: list[str] = dataclasses.field(default_factory=list)
    slept: list[float] = dataclasses.field(default_factory=list)

    def kernel_status(self, _kernel: str) -> KernelStatus:
        """The next one, the last for ever."""
        return KernelStatus(self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0], "it\nbroke")

    def kernel_log(self, _kernel: str) -> list[str]:
        """A long one, unless the kernel was cancelled."""
        if self.statuses == ["CANCEL_ACKNOWLEDGED"]:
            raise NetworkError("down")
        return [f"line {k}" for k in range(100)]


class Interrupted(Kaggle):
    """A Kaggle at which Ctrl-C is pressed while a kernel is pushed."""

    def username(self) -> str:
        """The user's name."""
        return "user"

    def files(self, _slug: str) -> list[Any]:
        """Nothing of interest."""
        return []

    def push_kernel(self, _folder: Path, _kernel: str, _competition: str) -> int:
        """Ctrl-C."""
        raise KeyboardInterrupt


def await_end(monkeypatch: pytest.MonkeyPatch, *statuses: str, wait: float = 43_200.0) -> list[str]:
    """What is logged while these statuses are waited through, the error last."""
    logged: list[str] = []
    slept: list[float] = []
    monkeypatch.setattr(kernel, "time", SimpleNamespace(monotonic=lambda: sum(slept)))
    scripted = Scripted(sleep=slept.append, statuses=list(statuses))
    try:
        kernels = Kernels(paths_in(Path()), scripted, logged.append, wait=wait, poll=100.0)
        kernels._await_end(dataclasses.replace(ORDERED, version=2))
    except PipelineError as error:
        return [*logged, f"{error.exit_code}: {error}"]
    return logged


def test_each_new_status_is_told_and_after_ten_minutes_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await_end(monkeypatch, "QUEUED", "QUEUED", *["RUNNING"] * 8, "COMPLETE") == [
        "kernel: user/tiny-run/2 is queued, after 0s",
        "kernel: user/tiny-run/2 is running, after 3m 20s",
        "kernel: user/tiny-run/2 is running, after 13m 20s",
        "kernel: user/tiny-run/2 is complete, after 16m 40s",
    ]


def test_what_takes_too_long_ends_with_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    later = "within 250 s: `python -m pipeline.kernel fetch --run tiny-run` waits again"
    assert await_end(monkeypatch, "RUNNING", wait=250.0)[-1] == f"6: user/tiny-run/2 did not end {later}"


@pytest.mark.parametrize(("status", "first"), [("SOMETHING_NEW", 85), ("CANCEL_ACKNOWLEDGED", 100)])
def test_what_will_not_complete_is_told_with_the_end_of_its_log(
    monkeypatch: pytest.MonkeyPatch, status: str, first: int
) -> None:
    *said, end = await_end(monkeypatch, "RUNNING", status)[2:]
    assert said == [f"| line {k}" for k in range(first, 100)]
    page = "https://www.kaggle.com/code/user/tiny-run"
    cure = f"(it\\nbroke), see {page}; fix it, then {kernel_source.AGAIN}"
    assert end == f"1: the kernel is {status.lower().replace('_', ' ')} {cure}"


@pytest.mark.parametrize("wait", [0.0, 60.0])
def test_a_bad_connection_is_outlasted_by_who_waits(tmp_path: Path, kaggle: FaultyKaggle, wait: float) -> None:
    pushed = run_kernel(tmp_path, kaggle, *PUSH, "--wait", "0")
    assert pushed.returncode == 0
    paths = dataclasses.replace(paths_in(tmp_path), kernels=tmp_path / "data/kernels")
    client = Kaggle(kaggle.environment, attempts=2, sleep=lambda _: None)
    kaggle.misbehave("GetKernelSessionStatus:status=503*4")
    if wait:
        assert Kernels(paths, client, print, wait=wait).fetch(RUN).name == RUN
    else:
        with pytest.raises(NetworkError, match="busy or down"):
            Kernels(paths, client, print, wait=wait).fetch(RUN)


def test_ctrl_c_leaves_the_kernel_running_and_says_how_to_go_on(tmp_path: Path) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    paths = dataclasses.replace(paths_in(tmp_path), kernels=tmp_path / "kernels")
    ORDERED.write_note(paths.kernels)
    later = "interrupted; user/tiny-run stays at Kaggle; later: `python -m pipeline.kernel fetch --.* --force`"
    with pytest.raises(KeyboardInterrupt, match=later):
        Kernels(paths, Scripted(sleep=interrupt, statuses=["RUNNING"]), print, force=True).fetch(None)


def test_ctrl_c_while_pushing_does_not_push_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = dataclasses.replace(paths_in(tmp_path), kernels=tmp_path / "kernels")
    monkeypatch.setattr(Kernel, "write_source", lambda *_: None)
    again = "interrupted; Kaggle may still have accepted the kernel: `python -m pipeline.kernel fetch --.* waits for it"
    with pytest.raises(KeyboardInterrupt, match=again):
        Kernels(paths, Interrupted(), print).push(ORDERED)
    assert Kernel.read_note(paths.kernels, None) == dataclasses.replace(ORDERED, user="user")


# --- what comes back --------------------------------------------------------------------------------------------


@pytest.fixture
def come(made: Path, tmp_path: Path) -> Path:
    """A kernel's output: just the files that are wanted."""
    for name in FILES:
        (tmp_path / "incoming" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made / name, tmp_path / "incoming" / name)
    return tmp_path / "incoming"


@pytest.fixture
def kernels(tmp_path: Path) -> Kernels:
    paths = dataclasses.replace(paths_in(tmp_path / "here"), kernels=tmp_path / "kernels")
    return Kernels(paths, Kaggle({}), print)


def other_file_in_manifest(folder: Path) -> None:
    (folder / "outside").write_text("x")
    record = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    values(f"{FOLDER}/manifest.json", "files", **{"../../../outside": record})(folder)


DAMAGES: dict[str, Edit] = {
    "a bit of the weights": flip(f"{FOLDER}/weights.safetensors"),
    "a manifest that leads outside": other_file_in_manifest,
    "a result of another kind": values(f"{FOLDER}/result.json", epochs="3"),
    "an edited CSV": flip(CSV),
    "the CSV of another run": values(SIDECAR, run="other"),
    "the CSV of other weights": values(SIDECAR, weights_sha256="0" * 64),
    "evidence that is none": edit(EVIDENCE, lambda _: b"PK\3\4"),
    "another recipe": values(f"{FOLDER}/config.json", competition="other"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_anything_else_is_refused(come: Path, kernels: Kernels, damage: str) -> None:
    DAMAGES[damage](come)
    with pytest.raises(BadData, match=r"the kernel's output is not what was requested: run the same command again"):
        kernels._publish(ORDERED, paths_in(come))
    assert not kernels.paths.models.exists() and not kernels.paths.submissions.exists()


def test_what_is_here_and_is_another_is_not_replaced(come: Path, kernels: Kernels) -> None:
    paths = kernels.paths
    kernels._publish(ORDERED, paths_in(come))
    assert tree(paths.submissions) == tree(come / "submissions") and runs.latest(paths.models) == RUN
    other = dataclasses.replace(ORDERED, config=dataclasses.replace(ORDERED.config, seed=1))
    with pytest.raises(UsageError, match=r"has other options than this kernel; .* choose another --run, or --force"):
        kernels.push(other)
    with atomic.lock(paths.kernels / RUN), pytest.raises(UsageError, match="another run is at work"):
        kernels.push(ORDERED)
    finished = (paths.models / RUN / "manifest.json").read_bytes()
    (paths.models / RUN / "manifest.json").unlink()
    with pytest.raises(UsageError, match=r"unfinished.*choose another --run, or --force$"):
        kernels.push(ORDERED)
    ORDERED.write_note(paths.kernels)  # fetching it was interrupted: it need not be trained again
    with pytest.raises(UsageError, match=rf"or `python -m pipeline.kernel fetch .*--run {RUN} --force`$"):
        kernels.push(ORDERED)
    (paths.models / RUN / "manifest.json").write_bytes(finished)
    flip(f"{RUN}.csv")(paths.submissions)
    with pytest.raises(UsageError, match="edited after predict wrote it"):
        kernels.push(ORDERED)
    mine, edited = paths.models / RUN / "notes.md", (paths.submissions / f"{RUN}.csv").read_bytes()
    mine.write_text("mine")
    with pytest.raises(UsageError, match=r"choose another --run$"):
        kernels.push(ORDERED)
    kernels._publish(ORDERED, paths_in(come))  # as --force does
    assert (paths.submissions / f"{RUN}.csv.bak").read_bytes() == edited
    assert (paths.models / f"{RUN}.bak" / mine.name).is_file() and not mine.exists()
