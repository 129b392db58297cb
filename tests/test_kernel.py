"""python -m pipeline.kernel, with the genuine client against the stand-in, which really runs what is pushed."""

import base64
import lzma
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import kernel
from pipeline.errors import PipelineError
from pipeline.kaggle_api import kernels
from pipeline.kaggle_api.client import Kaggle
from pipeline.kaggle_api.kernels import Found, Session
from pipeline.kernels import packing
from pipeline.kernels.order import Order
from pipeline.kernels.waiting import Clock
from pipeline.recipes import PRESETS
from pipeline.store.runs import Run
from tests.doubles.kaggle import FaultyKaggle, faulty_kaggle
from tests.support import SLUG, error_line, here, paths_in, prepare, stage, write_download

RUN = "my-run"
PUSH = ("push", "--preset", "rehearsal", "--epochs", "1", "--run", RUN, "--competition", SLUG, "--poll", "2")
SECRET = "s3cr3t-not-to-be-sent"
CLIENT = Path(sys.executable).with_name("kaggle")
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
def slow(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "slow.py").write_text(f"{QUICK.partition('print')[0]}import time\ntime.sleep(60)\n")
    monkeypatch.setattr(packing, "RUNNER", place / "slow.py")


@pytest.fixture
def quick(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "quick.py").write_text(QUICK)
    monkeypatch.setattr(packing, "RUNNER", place / "quick.py")


def run_kernel(place: Path, kaggle: FaultyKaggle | None, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environ = {**kaggle.environment, "KAGGLE_API_TOKEN": SECRET} if kaggle else None
    return here("kernel", *arguments, cwd=place, environ=environ)


def test_a_dry_run_pushed_by_hand_is_gone_on_with_and_comes_back_as_a_run(place: Path, kaggle: FaultyKaggle) -> None:
    dry = run_kernel(place, kaggle, *PUSH, "--dry-run")
    assert (dry.returncode, kaggle.count("SaveKernel")) == (0, 0), dry.stderr
    assert "kernel: rehearsal/my-run, private, a GPU, without internet, files of tiny\n" in dry.stdout
    by_hand = re.search("kernel: nothing was sent; by hand: kaggle (.*)", dry.stdout)
    assert by_hand is not None
    pushed = subprocess.run(
        [CLIENT, "-W", *by_hand[1].split()],
        cwd=place,
        env=kaggle.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Kernel version 1 successfully pushed" in pushed.stdout
    check_secrets((place / "data/kernels/my-run/main.py").read_text())

    done = run_kernel(place, kaggle, *PUSH)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "kernel: rehearsal/my-run has this order already, as version 1\n" in done.stdout
    assert "kernel: data/models/my-run and submissions/my-run.csv are here, verified\n" in done.stdout
    assert f"next: python -m pipeline.check --competition {SLUG} --csv submissions/my-run.csv\n" in done.stdout
    assert kaggle.count("SaveKernel") == 1
    run = Run.open(place / "data/models", None)
    assert (run.name, run.result.epochs, run.card.competition) == (RUN, 1, SLUG)
    assert not (place / "data/kernels/my-run/incoming").exists()

    # Without Kaggle, because all is here; and the stages take it for their own.
    assert "are here already, nothing to do" in run_kernel(place, None, *PUSH).stdout
    assert "are here already, nothing to do" in run_kernel(place, None, "fetch").stdout
    (place / "source").rename(place / "served")
    predicted = here("predict", "--device", "cpu", cwd=prepare(place))
    assert "submissions/my-run.csv is complete for this run, nothing to do" in predicted.stdout
    changed = run_kernel(place, None, *PUSH, "--seed", "5")
    assert "run my-run has other options than this order" in error_line(changed, 2)


def check_secrets(source: str) -> None:
    """The token that it was pushed with is not in what is sent, packed or not."""
    packed = re.search(r'PROJECT = """\n(.*?)"""', source, re.S)
    assert packed is not None
    unpacked = lzma.decompress(base64.b64decode(packed[1]))
    assert b"pipeline/kernel.py" in unpacked
    assert SECRET not in source and SECRET.encode() not in unpacked


def test_a_push_whose_answer_is_lost_is_found_again_and_a_failure_told(
    place: Path, kaggle: FaultyKaggle, quick: None
) -> None:
    kaggle.misbehave("ListDataFiles:status=403")
    refused = run_kernel(place, kaggle, *PUSH)
    assert f"accept its rules at https://www.kaggle.com/competitions/{SLUG}/rules" in error_line(refused, 5)
    assert kaggle.count("SaveKernel") == 0

    kaggle.misbehave("SaveKernel:accepted-then=500*1")
    lost = run_kernel(place, kaggle, *PUSH)
    assert "may have taken the kernel all the same: run the same command again, it looks first" in error_line(lost, 6)
    failed = run_kernel(place, kaggle, *PUSH)
    assert "has this order already, as version 1\n" in failed.stdout
    assert "kernel: rehearsal/my-run is error, after" in failed.stdout
    assert "\n| what the log says\n" in failed.stdout
    assert "the kernel is error (Your kernel ended with exit code 3)" in error_line(failed, 1)
    assert kaggle.count("SaveKernel") == 1

    other = run_kernel(place, kaggle, *PUSH, "--internet")
    assert "is another kernel, or has other options" in error_line(other, 2)
    anew = run_kernel(place, kaggle, *PUSH, "--internet", "--force", "--wait", "0")
    assert anew.returncode == 0, anew.stderr
    assert "kernel: not waiting; later: python -m pipeline.kernel fetch --run my-run --force\n" in anew.stdout
    empty = run_kernel(place, kaggle, "fetch", "--poll", "0.5")
    assert "rehearsal/my-run has put out no data/models/my-run/config.json" in error_line(empty, 4)
    assert kaggle.count("SaveKernel") == 2
    assert not (place / "data/models").exists()


def test_a_forced_push_is_not_repeated_while_it_runs(place: Path, kaggle: FaultyKaggle, slow: None) -> None:
    forced = (*PUSH, "--force", "--wait", "0.1", "--models", "my runs")
    kaggle.misbehave("SaveKernel:accepted-then=500*1")
    assert "it looks first" in error_line(run_kernel(place, kaggle, *forced), 6)
    again = run_kernel(place, kaggle, *forced)
    assert "kernel: rehearsal/my-run has this order already, as version 1\n" in again.stdout
    fetching = "`python -m pipeline.kernel fetch --models 'my runs' --run my-run --force` goes on waiting"
    assert fetching in error_line(again, 6)
    assert kaggle.count("SaveKernel") == 1


def test_a_kernel_that_is_not_shown_any_more_is_not_pushed_anew_unasked(
    place: Path, kaggle: FaultyKaggle, slow: None
) -> None:
    assert run_kernel(place, kaggle, *PUSH, "--wait", "0").returncode == 0
    kaggle.misbehave("GetKernel:status=403*1")
    denied = run_kernel(place, kaggle, *PUSH, "--wait", "0")
    assert "does not show https://www.kaggle.com/code/rehearsal/my-run, which was pushed" in error_line(denied, 2)
    assert kaggle.count("SaveKernel") == 1


def test_ctrl_c_leaves_the_kernel_running_and_says_how_to_go_on(
    place: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    order = Order(SLUG, RUN, PRESETS["rehearsal"])
    monkeypatch.chdir(place)
    monkeypatch.setattr(kernels, "find", lambda *_: Found("me", packing.pack(order).source, 1))
    monkeypatch.setattr(kernels, "session", lambda *_: Session("RUNNING", ""))
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        kernel.push(order, paths_in(Path()), Kaggle({}), told.append, clock=Clock(sleep=interrupt))
    assert told[-1] == "kernel: me/my-run stays at Kaggle; later: python -m pipeline.kernel fetch --run my-run"


def test_other_files_of_the_project_do_not_push_it_anew(
    place: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = Order(SLUG, RUN, PRESETS["rehearsal"])
    monkeypatch.chdir(place)
    monkeypatch.setattr(kernels, "find", lambda *_: Found("me", f"# {order.tag}\n# files=other", 1))
    monkeypatch.setattr(kernels, "session", lambda *_: Session("ERROR", ""))
    monkeypatch.setattr(kernels, "log_lines", lambda *_: [])
    told: list[str] = []
    with pytest.raises(PipelineError, match="the kernel is error"):
        kernel.push(order, paths_in(Path()), Kaggle({}), told.append)
    assert (
        "kernel: the project's files have changed since it was pushed: push it anew with --force if it shall have them"
        in told
    )


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "Missing command"),
        (("pull",), 2, "No such command 'pull'"),
        (("push", "--mixup", "1", "--cutmix", "1"), 2, "both mix whole images"),
        (("push", "--model", "resnet18"), 2, "11,173,962 trainable parameters"),
        (("push", "--run", "../x"), 2, "not a path"),
        (("push", "--run", "tiny"), 2, "a kernel's name has from 5 to 50"),
        (("push", "--distillation-weight", "1"), 2, "belongs to --teacher"),
        (("push", "--competition", "a/b"), 2, "is no competition slug"),
        (("push",), 5, "no Kaggle credentials"),
        (("fetch",), 3, "no kernel was pushed from here"),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(
    tmp_path: Path, quick: None, arguments: tuple[str, ...], code: int, text: str
) -> None:
    assert text in error_line(run_kernel(tmp_path, None, *arguments), code)


def test_a_dry_run_needs_nobodys_name(tmp_path: Path, quick: None) -> None:
    done = run_kernel(tmp_path, None, *PUSH, "--dry-run")
    assert done.returncode == 0
    assert "put it in the place of YOUR-KAGGLE-NAME" in done.stdout
    assert '"id": "YOUR-KAGGLE-NAME/my-run"' in (tmp_path / "data/kernels/my-run/kernel-metadata.json").read_text()


def test_a_name_that_kaggle_would_not_take_is_all_that_is_told(tmp_path: Path, quick: None) -> None:
    done = run_kernel(tmp_path, None, "push", "--run", "mine", "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --run mine: a kernel's name has from 5 to 50 letters, digits and hyphens\n"


def test_help_is_there_without_pytorch(tmp_path: Path) -> None:
    shown = stage("kernel", "push", "--help", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "python -m pipeline.kernel push --preset best" in shown.stdout
    script = "import sys, pipeline.kernel; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
