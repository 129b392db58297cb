"""python -m pipeline.kernel: with the genuine client against the mock server, which really runs what is pushed."""

import base64
import dataclasses
import hashlib
import itertools
import json
import lzma
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import kernel, kernel_source
from pipeline.config import Paths
from pipeline.errors import BadData, NetworkError, PipelineError, UsageError
from pipeline.kaggle_api.client import Kaggle, KernelStatus
from pipeline.kernel import Kernels
from pipeline.kernel_runner import CSV_ENDINGS, RUN_FILES
from pipeline.kernel_source import Kernel
from pipeline.recipes import PRESETS
from pipeline.store import runs
from pipeline.store.runs import Run
from tests.doubles.kaggle import FaultyKaggle, faulty_kaggle
from tests.support import SLUG, error_line, here, paths_in, predicted_place, prepare, tree, write_download

pytestmark = pytest.mark.usefixtures("quick_client")
RUN = "my-run"
PUSH = ("push", "--preset", "rehearsal", "--epochs", "1", "--run", RUN, "--competition", SLUG, "--poll", "0.5")
SECRET = "s3cr3t-not-to-be-sent"
# Instead of the stages: fails at once, as ORDER says, or puts out nothing.
QUICK = """
from typing import Any
ORDER: dict[str, Any] = {}
PROJECT = ""
print("what the log says")
raise SystemExit(0 if ORDER["internet"] else 3)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_download(tmp_path / "source")
    return tmp_path


@pytest.fixture
def kaggle(place: Path) -> Iterator[FaultyKaggle]:
    with faulty_kaggle(place / "source", place / "state", slug=SLUG) as running:
        yield running


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quick.py").write_text(QUICK)
    monkeypatch.setattr(kernel_source, "RUNNER", tmp_path / "quick.py")


def run_kernel(place: Path, kaggle: FaultyKaggle | None, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environ = {**kaggle.environment, "KAGGLE_API_TOKEN": SECRET} if kaggle else None
    return here("kernel", *arguments, cwd=place, environ=environ)


# --- the whole way ----------------------------------------------------------------------------------------------


@pytest.mark.timeout(400)
def test_a_pushed_kernel_comes_back_as_a_run(place: Path, kaggle: FaultyKaggle) -> None:
    pushed = run_kernel(place, kaggle, *PUSH, "--wait", "0")
    assert pushed.returncode == 0, pushed.stderr
    assert "kernel: rehearsal/my-run, private, a GPU, without internet, files of tiny\n" in pushed.stdout
    assert pushed.stdout.endswith("kernel: not waiting; later: python -m pipeline.kernel fetch --run my-run\n")
    check_secrets((place / "data/kernels/my-run/main.py").read_text())

    kaggle.misbehave("ListKernelSessionOutput:cut=1000*1")
    done = run_kernel(place, kaggle, *PUSH)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "kernel: rehearsal/my-run/1 was pushed before, going on with it\n" in done.stdout
    assert "kernel: data/models/my-run and submissions/my-run.csv are here, verified: test " in done.stdout
    assert f"next: python -m pipeline.check --competition {SLUG} --csv submissions/my-run.csv\n" in done.stdout
    assert kaggle.count("SaveKernel") == 1
    run = Run.open(place / "data/models", None)
    assert (run.name, run.result.epochs, run.card.competition) == (RUN, 1, SLUG)
    assert sorted(path.name for path in (place / "data/kernels/my-run").iterdir()) == [
        "kernel-metadata.json", "main.py", "note.json",
    ]  # fmt: skip

    # Without Kaggle, because all is here; and the stages take it for their own.
    for command in (PUSH, ("fetch",)):
        assert "are here already, nothing to do" in run_kernel(place, None, *command).stdout
    (place / "source").rename(place / "served")
    predicted = here("predict", "--device", "cpu", cwd=prepare(place))
    assert "submissions/my-run.csv is complete for this run, nothing to do" in predicted.stdout
    changed = run_kernel(place, None, *PUSH, "--seed", "5")
    assert "run my-run has other options than this kernel" in error_line(changed, 2)


def check_secrets(source: str) -> None:
    """The token that it was pushed with is not in what is sent, packed or not."""
    packed = re.search(r'PROJECT = """\n(.*?)"""', source, re.S)
    assert packed is not None
    unpacked = lzma.decompress(base64.b64decode(packed[1]))
    assert b"pipeline/kernel.py" in unpacked
    assert SECRET not in source and SECRET.encode() not in unpacked


def test_failures_at_kaggle(place: Path, kaggle: FaultyKaggle, quick: None) -> None:
    kaggle.misbehave("ListDataFiles:status=403")
    refused = run_kernel(place, kaggle, *PUSH)
    assert f"accept its rules at https://www.kaggle.com/competitions/{SLUG}/rules" in error_line(refused, 5)
    kaggle.misbehave("SaveKernel:status=429*1")
    assert "busy or down (429" in error_line(run_kernel(place, kaggle, *PUSH), 6)
    assert "no kernel was pushed from here" in error_line(run_kernel(place, kaggle, "fetch"), 3)

    # The answer is lost, and what was pushed is not pushed again.
    kaggle.misbehave("SaveKernel:accepted-then=500*1")
    lost = error_line(run_kernel(place, kaggle, *PUSH), 6)
    assert "Kaggle may have taken the kernel all the same: `python -m pipeline.kernel fetch --run my-run`" in lost
    failed = run_kernel(place, kaggle, *PUSH)
    assert "kernel: rehearsal/my-run was pushed before, going on with it\n" in failed.stdout
    assert "kernel: rehearsal/my-run is error, after" in failed.stdout
    assert "\n| what the log says\n" in failed.stdout
    assert "the kernel is error (Your kernel ended with exit code 3)" in error_line(failed, 1)
    assert kaggle.count("SaveKernel") == 2

    other = run_kernel(place, kaggle, *PUSH, "--internet")
    assert "was pushed with other options: choose another --run, or push it again with" in error_line(other, 2)
    again = run_kernel(place, kaggle, *PUSH, "--internet", "--force", "--wait", "0")
    assert "kernel: not waiting; later: python -m pipeline.kernel fetch --run my-run --force\n" in again.stdout
    empty = run_kernel(place, kaggle, "fetch", "--poll", "0.5")
    assert "rehearsal/my-run/2 has put out no data/models/my-run/config.json" in error_line(empty, 4)
    assert kaggle.count("SaveKernel") == 3
    assert not (place / "data/models").exists()
    kaggle.misbehave("GetKernelSessionStatus:status=403")
    assert "is the kernel at https://www.kaggle.com/code/rehearsal/my-run" in error_line(
        run_kernel(place, kaggle, "fetch"), 5
    )


def test_a_dry_run_can_be_pushed_by_hand(place: Path, kaggle: FaultyKaggle, quick: None) -> None:
    dry = run_kernel(place, None, *PUSH, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    metadata = place / "data/kernels/my-run/kernel-metadata.json"
    assert '"id": "YOUR-KAGGLE-NAME/my-run"' in metadata.read_text()
    metadata.write_text(metadata.read_text().replace("YOUR-KAGGLE-NAME", "rehearsal"))
    by_hand = [str(Path(sys.executable).with_name("kaggle")), "-W", *dry.stdout.splitlines()[-1].split()[1:]]
    pushed = subprocess.run(
        by_hand, cwd=place, env=kaggle.environment, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert "Kernel version 1 successfully pushed" in pushed.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "Missing command"),
        (("push", "--mixup", "1", "--cutmix", "1"), 2, "both mix whole images"),
        (("push", "--model", "resnet18"), 2, "11,173,962 trainable parameters"),
        (("push", "--run", "../x"), 2, "not a path"),
        (("push", "--run", "tiny", "--dry-run"), 2, "a kernel's name has from 5 to 50"),
        (("push", "--competition", "a/b"), 2, "is no competition slug"),
        (("push",), 5, "no Kaggle credentials"),
        (("fetch",), 3, "no kernel was pushed from here"),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(
    tmp_path: Path, quick: None, arguments: tuple[str, ...], code: int, text: str
) -> None:
    result = run_kernel(tmp_path, None, *arguments)
    assert text in error_line(result, code)
    assert result.stdout == ""


# --- waiting, with Kaggle's answers as a script -----------------------------------------------------------------


class Scripted:
    """A Kaggle whose kernel has these statuses one after the other, the last for ever; its time goes on in sleep."""

    def __init__(self, statuses: Sequence[str | None], message: str = "") -> None:
        self.now, self.message = 0.0, message
        self._statuses = itertools.chain(statuses, itertools.repeat(statuses[-1]))
        self.log_lines: list[str] | None = [f"line {k}" for k in range(100)]

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def kernel_status(self, _kernel: str) -> KernelStatus:
        status = next(self._statuses)
        if status is None:
            raise NetworkError("no answer")
        return KernelStatus(status, self.message)

    def kernel_log(self, _kernel: str) -> list[str]:
        if self.log_lines is None:
            raise NetworkError("down")
        return self.log_lines


Await = Callable[..., tuple[list[str], PipelineError | None]]


@pytest.fixture
def await_end(monkeypatch: pytest.MonkeyPatch) -> Await:
    """Wait for a kernel of a scripted Kaggle: what was logged, and the error; None: the kernel is complete."""

    def run(kaggle: Scripted, wait: float = 43_200.0) -> tuple[list[str], PipelineError | None]:
        logged: list[str] = []
        monkeypatch.setattr(kernel, "time", SimpleNamespace(monotonic=lambda: kaggle.now))
        kernels = Kernels(Paths(), kaggle, logged.append, wait=wait, poll=100.0)  # type: ignore[arg-type]
        try:
            kernels._await_end(Kernel(SLUG, RUN, PRESETS["rehearsal"], user="user", version=2))
        except PipelineError as error:
            return logged, error
        return logged, None

    return run


def test_each_new_status_is_told_and_after_ten_minutes_the_same_again(await_end: Await) -> None:
    logged, error = await_end(Scripted(["QUEUED", "QUEUED", *["RUNNING"] * 8, "COMPLETE"]))
    assert error is None
    assert logged == [
        "kernel: user/my-run/2 is queued, after 0:00:00",
        "kernel: user/my-run/2 is running, after 0:03:20",
        "kernel: user/my-run/2 is running, after 0:13:20",
        "kernel: user/my-run/2 is complete, after 0:16:40",
    ]


@pytest.mark.parametrize(("silent", "wait", "ends"), [(5, 43_200, True), (8, 43_200, False), (1, 0, False)])
def test_a_bad_connection_is_outlasted_for_ten_minutes(await_end: Await, silent: int, wait: float, ends: bool) -> None:
    logged, error = await_end(Scripted([*[None] * silent, "RUNNING", "COMPLETE"]), wait)
    assert (error is None) == ends
    assert ("kernel: no answer; looking again in 100 s" in logged) == (wait > 0)
    assert (logged[-1:] == ["kernel: user/my-run/2 is complete, after 0:10:00"]) == ends


@pytest.mark.parametrize(("wait", "looks"), [(0, 1), (250, 4)])
def test_what_takes_too_long_ends_with_how_to_go_on(await_end: Await, wait: float, looks: int) -> None:
    kaggle = Scripted(["RUNNING"])
    _, error = await_end(kaggle, wait)
    assert isinstance(error, NetworkError)
    later = "`python -m pipeline.kernel fetch --run my-run` goes on waiting"
    assert f"within {wait:.0f} s: {later}" in str(error)
    assert kaggle.now == 100 * (looks - 1)


@pytest.mark.parametrize("status", ["ERROR", "CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED", "SOMETHING_NEW"])
def test_what_will_not_complete_is_told_with_the_end_of_its_log(await_end: Await, status: str) -> None:
    logged, error = await_end(Scripted(["RUNNING", status], message="it\nbroke"))
    words = status.lower().replace("_", " ")
    assert error is not None and error.exit_code == 1
    assert str(error).startswith(f"the kernel is {words} (it\\nbroke), see https://www.kaggle.com/code/user/my-run")
    assert (logged[-1], len(logged)) == ("| line 99", 17)


def test_a_log_that_does_not_come_does_not_hide_the_failure(await_end: Await) -> None:
    kaggle = Scripted(["ERROR"])
    kaggle.log_lines = None
    logged, error = await_end(kaggle)
    assert "the kernel is error, see" in str(error)
    assert logged[-1] == "| no log: down"


def test_ctrl_c_leaves_the_kernel_running_and_says_how_to_go_on(tmp_path: Path) -> None:
    kaggle = Scripted(["RUNNING"])

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    Kernel(SLUG, RUN, PRESETS["rehearsal"], user="me").write_note(tmp_path / "data/kernels")
    kaggle.sleep = interrupt  # type: ignore[assignment, method-assign]
    logged: list[str] = []
    paths = dataclasses.replace(Paths(), kernels=tmp_path / "data/kernels")
    with pytest.raises(KeyboardInterrupt):
        Kernels(paths, kaggle, logged.append).fetch(None)  # type: ignore[arg-type]
    assert logged[-1] == "kernel: me/my-run stays at Kaggle; later: python -m pipeline.kernel fetch --run my-run"


@pytest.mark.parametrize(
    ("error", "version"),
    [(NetworkError("busy"), 2), (PipelineError("no GPU left"), 2), (NetworkError("cut", unanswered=True), 0)],
)
def test_a_refused_push_leaves_what_was_pushed_before_and_an_open_one_may_be_fetched(
    tmp_path: Path, error: PipelineError, version: int
) -> None:
    def refuse(*_: object) -> int:
        raise error

    paths = dataclasses.replace(paths_in(tmp_path), kernels=tmp_path / "data/kernels")
    kaggle = SimpleNamespace(username=lambda: "user", files=lambda _: [], push_kernel=refuse)
    before = Kernel(SLUG, RUN, PRESETS["rehearsal"], user="user", version=2)
    before.write_note(paths.kernels)
    with pytest.raises(type(error), match=str(error)):
        Kernels(paths, kaggle, print, force=True).push(dataclasses.replace(before, version=0))  # type: ignore[arg-type]
    assert Kernel.read_note(paths.kernels, RUN) == dataclasses.replace(before, version=version)


# --- what comes back --------------------------------------------------------------------------------------------

TINY = "tiny-run"
ORDERED = Kernel(SLUG, TINY, PRESETS["rehearsal"], user="user")
FILES = [f"data/models/{TINY}/{name}" for name in RUN_FILES] + [f"submissions/{TINY}{end}" for end in CSV_ENDINGS]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and its CSV, as train and predict leave it."""
    return predicted_place(tmp_path_factory.mktemp("made"))


@pytest.fixture
def come(made: Path, tmp_path: Path) -> Path:
    """A kernel's output: just the files that are wanted."""
    for name in FILES:
        (tmp_path / "incoming" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made / name, tmp_path / "incoming" / name)
    return tmp_path / "incoming"


@pytest.fixture
def kernels(tmp_path: Path) -> Kernels:
    return Kernels(paths_in(tmp_path / "here"), Kaggle({}), print)


def test_what_was_ordered_is_published_whole(come: Path, kernels: Kernels) -> None:
    kernels._publish(ORDERED, paths_in(come))
    assert tree(kernels.paths.models / TINY) == tree(come / "data/models" / TINY)
    assert tree(kernels.paths.submissions) == tree(come / "submissions")
    assert runs.latest(kernels.paths.models) == TINY
    assert kernels.push(ORDERED) == Run.open(kernels.paths.models, TINY)  # without Kaggle: all is here


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_file_in_manifest(folder: Path) -> None:
    path = folder / f"data/models/{TINY}/manifest.json"
    files = json.loads(path.read_text())["files"]
    (folder / "outside").write_text("x")
    record = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    edit(path, files=files | {"../../../outside": record})


def bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / f"submissions/{TINY}.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("hidden_probabilities.npy", bytes(10**7))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of the weights": lambda folder: flip(folder / f"data/models/{TINY}/weights.safetensors"),
    "no manifest": lambda folder: (folder / f"data/models/{TINY}/manifest.json").unlink(),
    "a manifest that leads outside": other_file_in_manifest,
    "a result of another kind": lambda folder: edit(folder / f"data/models/{TINY}/result.json", epochs="3"),
    "no CSV": lambda folder: (folder / f"submissions/{TINY}.csv").unlink(),
    "an edited CSV": lambda folder: flip(folder / f"submissions/{TINY}.csv"),
    "the CSV of another run": lambda folder: edit(folder / f"submissions/{TINY}.json", run="other"),
    "the CSV of other weights": lambda folder: edit(folder / f"submissions/{TINY}.json", weights_sha256="0" * 64),
    "the CSV of another competition": lambda folder: edit(folder / f"submissions/{TINY}.json", competition="other"),
    "no evidence": lambda folder: (folder / f"submissions/{TINY}.npz").unlink(),
    "evidence that is none": lambda folder: (folder / f"submissions/{TINY}.npz").write_bytes(b"PK\3\4"),
    "evidence that unpacks to too much": bomb,
    "another recipe": lambda folder: edit(folder / f"data/models/{TINY}/config.json", competition="other"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_anything_else_is_refused(come: Path, kernels: Kernels, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "LARGEST", 9_999_999)
    DAMAGES[damage](come)
    with pytest.raises(
        BadData, match=r"the kernel's output is not what was ordered \(.*run the same command again"
    ) as told:
        kernels._publish(ORDERED, paths_in(come))
    assert str(come) not in str(told.value) and "train the run again" not in str(told.value)
    assert not kernels.paths.models.exists() and not kernels.paths.submissions.exists()


def test_more_output_than_there_may_be_is_not_downloaded(
    tmp_path: Path, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle = SimpleNamespace(kernel_output=lambda _kernel, _names, _folder, progress: progress(10**9 + 1))
    with pytest.raises(BadData, match="has put out more than 1,000,000,000 bytes"):
        dataclasses.replace(kernels, kaggle=kaggle)._download(ORDERED, tmp_path / "incoming")  # type: ignore[arg-type]


def test_what_is_here_and_is_another_is_not_replaced(come: Path, kernels: Kernels) -> None:
    paths = kernels.paths
    kernels._publish(ORDERED, paths_in(come))
    other = dataclasses.replace(ORDERED, config=dataclasses.replace(ORDERED.config, seed=1))
    with pytest.raises(UsageError, match=r"has other options than this kernel; .* choose another --run, or --force"):
        kernels.push(other)
    flip(paths.submissions / f"{TINY}.csv")
    with pytest.raises(UsageError, match="edited since predict wrote it"):
        kernels.push(ORDERED)
    (paths.submissions / f"{TINY}.csv").unlink()
    with pytest.raises(UsageError, match=r"`python -m pipeline.predict --out \S+` writes it; the kernel's results"):
        kernels.push(ORDERED)
    (paths.models / TINY / "manifest.json").unlink()
    with pytest.raises(UsageError, match="unfinished"):
        kernels.push(ORDERED)
