"""run_all.sh with interpreters that only write down what they were asked for: nothing is installed or trained."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.recipes import PRESETS
from tests.support import ROOT, SLUG, clean_environment, wait_until
from tests.test_consistency import flags

# Writes down `-m MODULE ...` and does nothing, except for what the set-up and the order of stages depend on.
# Options are really checked, which takes a second, only after `real_checks`.
FAKE = """#!/usr/bin/env bash
if [[ $1 == -c && ! -e {log}.real-checks ]]; then
    case $2 in *pipeline.train*) exit ;; *PRESETS*) echo {presets}; exit ;; esac
fi
[[ $1 == -c ]] && exec {real} "$@"
echo "{role} $*" >>{log}
case "$2 $3" in
    "pipeline.kaggle_api.credentials ") exec {real} "$@" ;;
    "venv .venv")
        mkdir -p .venv/bin
        sed 's/{role} \\$/venv $/' "$0" >.venv/bin/python
        chmod +x .venv/bin/python ;;
    "pip --version") [[ ! -e {log}.no-pip ]] ;;
esac
"""
TRAINING = """
if [[ $2 == pipeline.train && $* != *--dry-run* ]]; then
    exec {python} -c '
import signal, sys, time

def note(text):
    print(text, file=open("{log}", "a"))

def stop(*_):
    note("told to stop")
    time.sleep({seconds})
    sys.exit({code})

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop)
note("at work")
time.sleep(60)'
fi
"""


class Project:
    """A copy of the script that has never run, and the log of its fake interpreter."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder / "project", folder / "calls"
        self.folder.mkdir()
        for name in ("run_all.sh", "requirements.txt"):
            shutil.copy(ROOT / name, self.folder / name)
        (self.folder / "pipeline").symlink_to(ROOT / "pipeline")
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.log.touch()
        self.fake = self.interpreter("python3.13")

    def interpreter(self, name: str, more: str = "", role: str = "base") -> Path:
        path = self.programs / name
        path.write_text(FAKE.format(real=sys.executable, log=self.log, role=role, presets=" ".join(PRESETS)) + more)
        path.chmod(0o755)
        return path

    def environment(self, **environ: str) -> dict[str, str]:
        return {**clean_environment(), "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}", **environ}

    def run(self, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["../project/run_all.sh", *arguments], cwd=self.programs, env=self.environment(**environ),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def calls(self) -> list[str]:
        """What was asked for since the last look."""
        found = self.log.read_text().splitlines()
        self.log.write_text("")
        return found

    def made(self) -> list[str]:
        """Of these calls, those that make something: ["base venv", "venv install"]."""
        names = {"-m venv": "venv", "-m pip install": "install"}
        return [f"{c.split()[0]} {n}" for c in self.calls() for start, n in names.items() if f" {start}" in c]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(params=[False, True], ids=["with .venv", "with PIPELINE_PYTHON"])
def given(request: pytest.FixtureRequest, project: Project) -> dict[str, str]:
    """The variable that names an interpreter, or none."""
    return {"PIPELINE_PYTHON": str(project.fake)} if request.param else {}


@pytest.fixture
def real_checks(project: Project) -> None:
    """The project's options are really checked."""
    project.log.with_name("calls.real-checks").touch()


# --- set-up -------------------------------------------------------------------------------------------------


def test_missing_credentials_are_noticed_before_anything_is_made(project: Project, given: dict[str, str]) -> None:
    before = sorted(project.folder.iterdir())
    for arguments in ([], ["--submit", "--data", str(project.programs)]):
        result = project.run(*arguments, **given)
        assert result.returncode == 5
        assert "no Kaggle credentials" in result.stderr
        assert project.calls() == ["base -m pipeline.kaggle_api.credentials"]
        assert sorted(project.folder.iterdir()) == before


def test_with_credentials_it_installs_and_runs_the_stages_in_order(project: Project) -> None:
    result = project.run("--submit", PIPELINE_PYTHON=str(project.fake), KAGGLE_API_TOKEN="t")
    assert result.returncode == 0, result.stderr
    calls = [call.replace("pipeline.", "").split() for call in project.calls()]
    stages = ["download", "preprocess", "train", "predict", "submit", "check", "report"]
    assert [call[2] for call in calls] == ["kaggle_api.credentials", "pip", "pip", "train", *stages]
    assert calls[3][3] == "--dry-run"  # wrong options are refused before anything is spent on them


def test_it_installs_again_only_for_other_requirements(project: Project, given: dict[str, str]) -> None:
    first, again = (["base install"],) * 2 if given else (["base venv", "venv install"], ["venv install"])
    for line, made in (("", first), ("", []), ("more", again), ("", [])):
        with (project.folder / "requirements.txt").open("a") as stream:
            stream.write(line)
        assert project.run("--setup", **given).returncode == 0
        assert project.made() == made
    assert (project.folder / ".venv").exists() != bool(given)


def test_an_environment_without_pip_gets_it(project: Project, given: dict[str, str]) -> None:
    (project.log.with_name("calls.no-pip")).touch()
    result = project.run("--setup", **given)
    assert result.returncode == 0 and "-m ensurepip" in "".join(project.calls())


def test_a_broken_venv_is_made_anew(project: Project) -> None:
    leftover = project.folder / ".venv/lib/half"
    leftover.mkdir(parents=True)
    (project.folder / ".venv/bin").mkdir()
    (project.folder / ".venv/bin/python").symlink_to(project.folder / "gone/python3.11")
    assert project.run("--setup").returncode == 0
    assert project.made() == ["base venv", "venv install"]
    assert not leftover.exists()
    # Complete, and then its interpreter vanishes, as when the system's Python is upgraded.
    (project.folder / ".venv/bin/python").unlink()
    assert project.run("--setup").returncode == 0
    assert project.made() == ["base venv", "venv install"]


def test_a_python_that_does_not_start_here_costs_no_environment(project: Project) -> None:
    """On another node of a cluster it may start."""
    python = project.folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 127\n")
    python.chmod(0o755)
    result = project.run("--setup")
    assert (result.returncode, project.made()) == (2, []) and python.exists()
    assert "move .venv away (mv .venv old-venv)" in result.stderr


# --- signals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "seconds"), [(130, 0.3), (0, 0)], ids=["which saves", "which was just finished"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_running_stage_and_no_other_begins(
    project: Project, number: int, code: int, seconds: float
) -> None:
    """SIGINT as Ctrl-C sends it, to all processes."""
    script = TRAINING.format(python=sys.executable, log=project.log, code=code, seconds=seconds)
    training = project.interpreter("training", script)
    environ = project.environment(PIPELINE_PYTHON=str(training))
    command = ["./run_all.sh", "--data", str(project.programs), "--competition", SLUG]
    with subprocess.Popen(
        command, cwd=project.folder, env=environ, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        wait_until(lambda: "at work" in project.log.read_text())
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        assert process.wait(timeout=20) == 130
    calls = project.calls()
    assert calls[-2:] == ["at work", "told to stop"]
    assert "pipeline.train" in calls[-3]


def test_a_failing_stage_ends_it_with_that_stages_code(project: Project) -> None:
    failing = project.interpreter("failing", "[[ $2 != pipeline.preprocess ]] || exit 4\n")
    result = project.run("--data", str(project.programs), PIPELINE_PYTHON=str(failing))
    assert result.returncode == 4
    assert "pipeline.preprocess" in project.calls()[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--nonsense", "No such option '--nonsense'"),
        ("--pseudo-labels a.csv", "--rules-allow-pseudo-labels go together"),
        ("--models --submit", "--models wants a value"),
        ("--data=nowhere", "nowhere is not a folder or archive"),
        ("--rehearsal --data=python3.13", "python3.13 is not a folder"),
        ("--dry-run", "python -m pipeline.train --dry-run"),
        ("--tta filp", "--tta has no filp"),
        ("--adapt=none --again", "--again goes with --submit"),
        ("--rehearsal --competition x", "leave --competition out"),
    ],
)
@pytest.mark.usefixtures("real_checks")
def test_wrong_usage_is_refused_before_anything_is_done(project: Project, arguments: str, says: str) -> None:
    result = project.run(*arguments.split())
    assert result.returncode == 2 and result.stderr.startswith("error: ")
    assert says in result.stderr and result.stderr.count("\n") == 1
    assert project.calls() == []


@pytest.mark.usefixtures("real_checks")
def test_without_the_packages_a_wrong_preset_is_told_before_the_credentials(project: Project) -> None:
    project.fake.write_text(project.fake.read_text().replace(sys.executable, f"{sys.executable} -S"))
    result = project.run("--preset", "pape")
    assert (result.returncode, result.stderr) == (2, f"error: --preset pape is none of: {' '.join(PRESETS)}\n")
    told = project.run("--seed", "1")
    assert told.returncode == 5 and "create a token at https://www.kaggle.com/settings" in told.stderr


@pytest.mark.usefixtures("real_checks")
def test_an_option_reaches_every_stage_that_has_it_and_train_has_all_others(project: Project) -> None:
    folders = {f"--{name}": f"{project.programs}/{name[0]}" for name in ("raw", "processed", "models", "submissions")}
    options = {**folders, "--run": "x", "--device": "cpu", "--tta": "flip", "--adapt": "none", "--ids-key": "id",
               "--timeout": "9", "--verbose": "", "--force": "", "--again": "", "--debug": ""}  # fmt: skip
    words = [word for option, value in options.items() for word in (option, value.removeprefix(f"{project.programs}/"))]
    others = ["--seed=1", "--no-decay-norms", "--teacher", "A", "B"]
    (project.programs / "all.zip").touch()
    result = project.run("--submit", "--data", "all.zip", *filter(None, words), *others, PIPELINE_PYTHON="./python3.13",
                         KAGGLE_API_TOKEN="t")  # fmt: skip
    assert result.returncode == 0, result.stderr
    calls = [call.split()[2:] for call in project.calls()][4:]
    for module, *arguments in calls:
        stage = module.removeprefix("pipeline.")
        known = [word for option, value in options.items() if option in flags(stage) for word in (option, value)]
        assert " ".join(arguments).endswith(" ".join(filter(None, known))), stage
        assert ("--seed 1 --no-decay-norms --teacher A B" in " ".join(arguments)) == (stage == "train")
    assert len(calls) == 7 and f"--from {project.programs}/all.zip" in " ".join(calls[0])


def test_seeds_are_trains_runs_and_predict_takes_them_all(project: Project) -> None:
    options = ["--data", ".", "--run", "x", "--seeds", "0", "1"]
    assert project.run(*options, PIPELINE_PYTHON="python3.13").returncode == 0
    calls = {call.split()[2].removeprefix("pipeline."): call for call in project.calls()}
    assert calls["train"].endswith(" --seeds 0 1 --run x")
    assert not [stage for stage in ("predict", "check", "report") if "--run" in calls[stage]]  # what is latest


@pytest.mark.usefixtures("real_checks")
def test_a_rehearsal_hands_all_options_on_to_the_script_inside(project: Project) -> None:
    (project.folder / "run_all.sh").chmod(0o644)
    command = ["bash", "run_all.sh", "--rehearsal", "--models", "m", "--seed", "1", "--force"]
    subprocess.run(command, cwd=project.folder, env=project.environment(PIPELINE_PYTHON="python3.13"), check=True)
    inside = "-- bash ./run_all.sh --submit --preset rehearsal --seed 1 --models m --force"
    assert project.calls()[-1] == f"base -m pipeline.rehearsal {inside}"


# --- the shell and the interpreter --------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["sh", "dash", "bash --posix"])
@pytest.mark.usefixtures("real_checks")
def test_what_the_shell_is_and_exports_changes_nothing(project: Project, shell: str) -> None:
    if shutil.which(shell.partition(" ")[0]) is None:
        pytest.skip(f"no {shell}")
    folder = project.folder.rename(project.folder.with_name("- a  project"))
    (folder / "mydata").mkdir()
    (project.programs / "mydata").mkdir()
    (project.programs / "env").write_text("run_all() { :; }; dirname() { echo /; }; PWD=/nonexistent")
    exported = {"CDPATH": str(project.programs), "BASH_ENV": str(project.programs / "env"), "POSIXLY_CORRECT": "1",
                "BASH_FUNC_cd%%": "() { exit 99; }", "PYTHONHOME": "/nonexistent", "PYTHONSAFEPATH": "1",
                "PYTHONHASHSEED": "x", "PYTHONUTF8": "x", "PYTHONIOENCODING": "x"}  # fmt: skip
    environ = project.environment(PIPELINE_PYTHON=str(project.fake), **exported)
    command = [*shell.split(), "run_all.sh", "--data", "mydata"]
    subprocess.run(command, cwd=folder, env=environ, capture_output=True, check=True)
    assert next(call for call in project.calls() if "--from" in call).endswith(" --from mydata")


@pytest.mark.parametrize("name", ["python", "bash"])
def test_it_does_not_start_itself_for_ever(project: Project, name: str) -> None:
    starts, script = project.log, project.folder / "run_all.sh"
    again = {"python": f"exec {script}", "bash": f"shift 2; exec sh {script}"}[name]
    stub = project.interpreter(name)
    stub.write_text(f'#!/bin/sh\necho >>{starts}; [ $(wc -l <{starts}) -lt 20 ] || exit 9\n{again} "$@"\n')
    command = ["sh", str(script), "--setup"]
    environ = project.environment(PIPELINE_PYTHON=str(stub))
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2 and len(starts.read_text()) < 6
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_windows_line_ends_are_told(project: Project, shell: str) -> None:
    script = project.folder / "run_all.sh"
    script.write_bytes(script.read_bytes().replace(b"\n", b"\r\n"))
    result = subprocess.run([shell, script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    sourced = subprocess.run(["bash", "-c", f". {script}; echo alive"], capture_output=True, text=True, check=False)
    assert "alive" in sourced.stdout and "don't source it" in sourced.stderr
    assert result.stderr == f"error: {script} has Windows' line ends: perl -pi -e 's/\\r//' '{script}'\n"


@pytest.mark.parametrize(
    ("said", "code", "says"),
    [
        ("Error: ensurepip is not available", 1, "apt install python3-venv"),
        ("Error: [Errno 28] No space left on device", 1, "the disk is full"),
        ("python: No module named pip", 2, "leave PIPELINE_PYTHON out"),
        ("error: externally-managed-environment", 2, "leave PIPELINE_PYTHON out"),
        ("ERROR: Could not find an activated virtualenv (required).", 2, "leave PIPELINE_PYTHON out"),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", 1, "the disk is full"),
        ("WARNING: Retrying after NewConnectionError\nERROR: No matching distribution found", 6, "check the network"),
        ("WARNING: Retrying after CERTIFICATE_VERIFY_FAILED", 6, "or PIP_CERT"),
        ("ERROR: Failed building wheel for x", 1, "the installation failed"),
    ],
)
def test_a_failed_installation_names_its_cause(project: Project, said: str, code: int, says: str) -> None:
    step, given = ("venv", False) if said.startswith("Error: ") else ("pip", True)
    failing = project.interpreter("python3.13", f"[[ $2 != {step} ]] || {{ echo '{said}' >&2; exit 1; }}")
    for _ in range(1 + given):  # what has failed is tried again
        result = project.run("--setup", **({"PIPELINE_PYTHON": str(failing)} if given else {}))
        assert (result.returncode, project.made()) == (code, [f"base {'install' if given else 'venv'}"])
        assert f"{said}\nerror: " in result.stderr and says in result.stderr


def test_pip_installs_into_the_venv_whatever_its_variables_say(project: Project) -> None:
    project.fake.write_text(project.fake.read_text() + f'env | grep "^PIP_" >>{project.log}.environment || true\n')
    options = {f"PIP_{name}": "/elsewhere" for name in ("TARGET", "PREFIX", "ROOT", "PYTHON")}
    assert project.run("--setup", PIP_USER="1", PIP_INDEX_URL="mine", **options).returncode == 0
    seen = set(project.log.with_name("calls.environment").read_text().splitlines())
    assert {"PIP_INDEX_URL=mine", "PIP_USER=no"} <= seen
    assert not [line for line in seen if line.endswith("/elsewhere")]


def test_an_interpreter_that_is_none_is_named(project: Project) -> None:
    result = project.run("--setup", PIPELINE_PYTHON="./none")
    assert (result.returncode, f"and {project.programs}/./none is not" in result.stderr) == (2, True)


def test_a_venv_of_an_older_python_is_left_alone(project: Project) -> None:
    old = project.interpreter("old")
    old.write_text('#!/bin/sh\n[ -z "$2" ]\n')
    (project.folder / ".venv/bin").mkdir(parents=True)
    old.rename(project.folder / ".venv/bin/python")
    result = project.run("--setup")
    assert result.returncode == 2 and "move it away (mv .venv old-venv)" in result.stderr
    assert (project.folder / ".venv/bin/python").exists() and project.made() == []


@pytest.mark.parametrize("linked", [False, True])
def test_the_venv_of_a_project_that_was_moved_is_activated_where_it_is(project: Project, linked: bool) -> None:
    assert project.run("--setup").returncode == 0
    venv = project.folder / ".venv"
    if linked:  # another project's, which stays as it is
        venv.symlink_to(venv.rename(project.programs / "venv"))
    stamp = venv / ".requirements-installed"
    stamp.write_text(stamp.read_text().replace(str(project.folder), "/before"))
    assert project.run("--setup").returncode == 0
    assert ("venv -m venv .venv" in project.calls()) != linked


def test_help_comes_before_anything_is_looked_at(project: Project) -> None:
    result = project.run("--preset", "pape", "--help")
    assert result.returncode == 0 and result.stdout.startswith("Usage: ./run_all.sh") and project.calls() == []
