"""What runs on Kaggle's machine: the pipeline from the competition's files to the CSV.

Made by `python -m pipeline.kernel push`, which fills in ORDER and PROJECT.  It unpacks the project into a temporary
folder, runs four of its stages there, and copies what is to come back into the kernel's output.  A stage that fails
ends the kernel with an error.  Nothing here needs more than Python, and nothing is secret.
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

# Kaggle's folders; a rehearsal has others, and $PIPELINE_KERNEL_DEVICE.
INPUT = Path(os.environ.get("PIPELINE_KERNEL_INPUT", "/kaggle/input"))
WORKING = Path(os.environ.get("PIPELINE_KERNEL_WORKING", "/kaggle/working"))

# What the stages below import, and the packages that have it.
NEEDED = {
    "PIL": "pillow", "click": "click", "filelock": "filelock", "numpy": "numpy",
    "safetensors": "safetensors", "scipy": "scipy", "sklearn": "scikit-learn", "tenacity": "tenacity",
    "tensorboard": "tensorboard", "torch": "torch", "torchvision": "torchvision", "tqdm": "tqdm",
}  # fmt: skip
RUN_FILES = ("config.json", "weights.safetensors", "metrics.jsonl", "result.json", "manifest.json")
CSV_ENDINGS = (".npz", ".json", ".csv")


def main() -> int:
    """Run the order; the exit code of the stage that failed, or 0."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this file alone may meet an older one
        return fail(f"the pipeline needs Python 3.11 or newer, and this machine has {sys.version.split()[0]}")
    files = competition_files(ORDER["competition"])
    if files is None:
        return fail(f"{ORDER['competition']} is not below {INPUT}: join the competition and accept its rules")
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        place = Path(folder)
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(PROJECT)), mode="r:xz") as archive:
            archive.extractall(place, filter="data")
        return complete(place) or run(place, files)


def run(place: Path, files: Path) -> int:
    """The four stages, in the folder of the project."""
    name, slug = ORDER["run"], ORDER["competition"]
    models, csv = place / "data/models" / name, place / "submissions" / f"{name}.csv"
    # A GPU that was ordered and is not there would mean a day of the CPU.
    on = ["--device", os.environ.get("PIPELINE_KERNEL_DEVICE") or ("cuda" if ORDER["gpu"] else "cpu")]
    stages: list[tuple[list[str], list[Path]]] = [  # each with what of its output comes back
        (["download", "--competition", slug, "--from", str(files)], []),
        (["preprocess", "--competition", slug], []),
        (["train", "--competition", slug, "--run", name, *ORDER["train"], *on], [models / n for n in RUN_FILES]),
        (["predict", "--run", name, *on], [csv.with_suffix(ending) for ending in CSV_ENDINGS]),
    ]
    environment = {**os.environ, "PIPELINE_SCRIPT": "kernel"}  # a stage need not say which one comes next
    for arguments, results in stages:
        print(f"== {arguments[0]}", flush=True)  # noqa: T201
        command = [sys.executable, "-m", f"pipeline.{arguments[0]}", *arguments[1:]]
        code = subprocess.run(command, cwd=place, env=environment, check=False).returncode
        if code:
            return code
        for path in results:
            target = WORKING / path.relative_to(place)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return 0


def competition_files(slug: str) -> Path | None:
    """Where Kaggle has put the competition's files, by the age of its image."""
    places = (INPUT / slug, INPUT / "competitions" / slug)
    return next((place for place in places if place.is_dir()), None)


def complete(place: Path) -> int:
    """See to it that everything that the stages import is there; 0, or the exit code."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return 0
    if not ORDER["internet"]:
        return fail(
            f"this machine lacks {', '.join(missing)}: push the kernel again with --internet --force, "
            "and it installs them"
        )
    print(f"installing {', '.join(missing)}", flush=True)  # noqa: T201
    lines = (place / "requirements.txt").read_text().splitlines()
    wanted = [line.partition("#")[0].strip() for line in lines if re.split(r"[^\w.-]", line)[0] in missing]
    return subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted], check=False).returncode


def fail(message: str) -> int:
    """Say why the kernel fails."""
    print(f"error: {message}", flush=True)  # noqa: T201
    return 1


if __name__ == "__main__" and (code := main()):
    sys.exit(code)
