"""The pipeline on Kaggle's machine, from the competition's files to the CSV.

`python -m pipeline.kernel push` fills in ORDER and PROJECT.  A stage that fails ends the kernel with an error.  Needs
only Python, and holds no secret.
"""

import base64
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ORDER: dict[str, Any] = {}
PROJECT = ""

# Kaggle's folders; a rehearsal sets others, and $PIPELINE_KERNEL_DEVICE.
INPUT = Path(os.environ.get("PIPELINE_KERNEL_INPUT", "/kaggle/input"))
WORKING = Path(os.environ.get("PIPELINE_KERNEL_WORKING", "/kaggle/working"))

# Modules that the stages below import, and their packages.
NEEDED = {
    "PIL": "pillow", "click": "click", "filelock": "filelock", "numpy": "numpy", "pandas": "pandas",
    "safetensors": "safetensors", "scipy": "scipy", "sklearn": "scikit-learn", "tensorboard": "tensorboard",
    "torch": "torch", "torchvision": "torchvision", "tqdm": "tqdm",
}  # fmt: skip
RUN_FILES = ("config.json", "weights.safetensors", "metrics.jsonl", "result.json", "manifest.json")
CSV_ENDINGS = (".npz", ".json", ".csv")


def main() -> None:
    """Run the order; exits with the exit code of the stage that failed, or with a message."""
    files = competition_files(ORDER["competition"])
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        project = Path(folder)
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(PROJECT)), mode="r:xz") as archive:
            archive.extractall(project, filter="data")
        install_missing(project)
        run_stages(project, files)


def competition_files(slug: str) -> Path:
    """The competition's files; old and new images have them in different places."""
    for folder in (INPUT / slug, INPUT / "competitions" / slug):
        if folder.is_dir():
            return folder
    sys.exit(f"error: {slug} is not below {INPUT}: join the competition and accept its rules")


def install_missing(project: Path) -> None:
    """Install the missing packages, if there is internet."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing and not ORDER["internet"]:
        sys.exit(f"error: this machine lacks {', '.join(missing)}: push the kernel again with --internet --force")
    if missing:
        lines = (project / "requirements.txt").read_text().splitlines()
        wanted = [line.partition("#")[0].strip() for line in lines if re.split(r"[^\w.-]", line)[0] in missing]
        run([sys.executable, "-m", "pip", "install", "--quiet", *wanted], project)


def run_stages(project: Path, files: Path) -> None:
    """Run four stages in the project's folder, and copy the results into the kernel's output."""
    name, slug = ORDER["run"], ORDER["competition"]
    models, csv = project / "data/models" / name, project / "submissions" / f"{name}.csv"
    # Without the requested GPU, training would take a day on the CPU.
    on = ["--device", os.environ.get("PIPELINE_KERNEL_DEVICE") or ("cuda" if ORDER["gpu"] else "cpu")]
    stages: list[tuple[list[str], list[Path]]] = [  # each with the outputs to copy
        (["download", "--competition", slug, "--from", str(files)], []),
        (["preprocess", "--competition", slug], []),
        (["train", "--competition", slug, "--run", name, *ORDER["train"], *on], [models / n for n in RUN_FILES]),
        (["predict", "--run", name, *on], [csv.with_suffix(ending) for ending in CSV_ENDINGS]),
    ]
    for (stage, *options), results in stages:
        run([sys.executable, "-m", f"pipeline.{stage}", *options], project)
        for path in results:
            target = WORKING / path.relative_to(project)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def run(command: list[str], folder: Path) -> None:
    """Run a command in `folder`; exit with its exit code if it fails."""
    print(f"== {' '.join(command[1:])}", flush=True)  # noqa: T201
    environment = {**os.environ, "PIPELINE_SCRIPT": "kernel"}  # a stage need not say which one comes next
    code = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
