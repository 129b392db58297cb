"""The source of a script kernel on Kaggle, and a note of what was pushed.

data/kernels/RUN has main.py and kernel-metadata.json for `kaggle kernels push -p`, and note.json.  A script kernel is
one file, so main.py is kernel_runner.py with the project embedded.
"""

import base64
import io
import pprint
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline import commands
from pipeline.config import check_slug, project_files
from pipeline.errors import Log, UsageError
from pipeline.recipes import TrainConfig
from pipeline.store import atomic, runs
from pipeline.store.manifest import read_json

RUNNER = Path(__file__).with_name("kernel_runner.py")
MAIN, METADATA, NOTE = "main.py", "kernel-metadata.json", "note.json"
LARGEST = 1_000_000  # bytes of a kernel's source
ORDER_LINE, PROJECT_LINE = "ORDER: dict[str, Any] = {}\n", 'PROJECT = ""\n'  # in the runner, to fill in
AGAIN = "push it again with --force"


@dataclass(frozen=True)
class Kernel:
    """A kernel that trains a run and predicts with it."""

    competition: str
    run: str
    config: TrainConfig
    internet: bool = False
    accelerator: str | None = None  # as Kaggle spells it; None: a GPU of Kaggle's choice; "none": the CPU alone
    user: str = ""  # its owner
    version: int = 0  # by Kaggle's count; 0: the newest

    def __post_init__(self) -> None:
        """UsageError for a name that is unsafe in a path, or that Kaggle would refuse."""
        check_slug(self.competition)
        runs.check_name(self.run)
        if not 5 <= len(self.name) <= 50:
            raise UsageError(f"--run {self.run}: a kernel's name has from 5 to 50 letters, digits and hyphens")

    @property
    def name(self) -> str:
        """The kernel's title, and its name in its URL."""
        return re.sub(r"[^a-z0-9]+", "-", self.run.lower()).strip("-")

    @property
    def ref(self) -> str:
        """USER/NAME, and /VERSION if known."""
        return f"{self.user}/{self.name}" + (f"/{self.version}" if self.version else "")

    @property
    def url(self) -> str:
        """Its page."""
        return f"https://www.kaggle.com/code/{self.user}/{self.name}"

    def write_note(self, kernels: Path) -> None:
        """Write data/kernels/RUN/note.json."""
        atomic.write_json(kernels / self.run / NOTE, {**vars(self), "config": self.config.to_dict()})

    @classmethod
    def read_note(cls, kernels: Path, run: str | None) -> Self:
        """The kernel of `run` pushed from here, by default the last one; MissingInput if there is none."""
        path = kernels / (run or "RUN") / NOTE
        if run is None:
            notes = kernels.glob(f"[!.]*/{NOTE}")
            path = max(notes, key=lambda note: note.stat().st_mtime, default=path)
        return read_json(path, cls, f"push the kernel with `python -m pipeline.kernel push`, or {AGAIN}")

    def write_source(self, folder: Path, log: Log) -> None:
        """Write main.py and kernel-metadata.json; UsageError if main.py exceeds Kaggle's limit."""
        gpu, train = self.accelerator != "none", commands.arguments(self.config)
        order = {
            "competition": self.competition, "run": self.run, "train": train, "gpu": gpu, "internet": self.internet
        }  # fmt: skip
        text = RUNNER.read_text(encoding="utf-8")
        text = text.replace(ORDER_LINE, f"ORDER: dict[str, Any] = {pprint.pformat(order, width=100)}\n")
        source = text.replace(PROJECT_LINE, f'PROJECT = """\n{_project()}"""\n').encode()
        if len(source) > LARGEST:
            cure = "move what does not belong to the project out of its folder `pipeline`"
            raise UsageError(f"the kernel's source has {len(source):,} bytes; Kaggle's limit is {LARGEST:,}: {cure}")
        atomic.write_bytes(folder / MAIN, source)
        metadata = {
            "id": f"{self.user}/{self.name}",
            "title": self.name,
            "code_file": MAIN,
            "language": "python",
            "kernel_type": "script",
            "is_private": True,
            "enable_gpu": gpu,
            "enable_internet": self.internet,
            "competition_sources": [self.competition],
        }
        if gpu and self.accelerator:
            metadata["machine_shape"] = self.accelerator  # what --accelerator of Kaggle's own command line sets
        atomic.write_json(folder / METADATA, metadata)
        machine, internet = self.accelerator or "GPU", "with" if self.internet else "without"
        log(f"kernel: {self.ref}, private, accelerator {machine}, {internet} internet, files of {self.competition}")
        log(f"kernel: {folder / MAIN}, {len(source) / 1e3:.0f} kB, trains run {self.run}: {' '.join(train)}")


def _project() -> str:
    """The project's files as a tar.xz in base64, without user names and times."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:xz") as project:
        for name, path in project_files().items():
            content = path.read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            project.addfile(member, io.BytesIO(content))
    return base64.encodebytes(archive.getvalue()).decode()
