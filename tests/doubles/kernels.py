"""Kernels: what is pushed really runs, in a process on this machine, offline and without credentials.

Kaggle's machine is a folder: kernels/NAME has main.py, the kernel's output (working) and what it prints (log.txt); the
competition's files are below input, as /kaggle/input has them.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from pipeline.rehearsal.service import USERNAME, Json, Reply, Service, file_reply, json_reply, page, signed
from pipeline.rehearsal.state import Refusal

KERNELS = "kernels/"  # how the links to output begin, below storage
MAIN, LOG, WORKING, INPUT = "main.py", "log.txt", "working", "input"
OFFLINE = "http://127.0.0.1:9"  # a proxy that nobody is


@dataclass(frozen=True)
class Kernel:
    """The newest version of a kernel."""

    home: Path
    version: int
    source: str
    process: "subprocess.Popen[bytes]"

    @property
    def status(self) -> str:
        """As Kaggle names it."""
        code = self.process.poll()
        return {None: "RUNNING", 0: "COMPLETE", -signal.SIGKILL: "CANCEL_ACKNOWLEDGED"}.get(code, "ERROR")

    @property
    def output(self) -> dict[str, Path]:
        """The files that it has written, by their path."""
        folder = self.home / WORKING
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        return {path.relative_to(folder).as_posix(): path for path in files}

    def end(self) -> None:
        """End it with all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Kernels:
    """The user's kernels.  Safe to ask from several threads."""

    def __init__(self, folder: Path, slug: str, competition: Path, environ: Mapping[str, str]) -> None:
        """`competition` has the files of `slug`; of `environ` kernels see what is harmless."""
        self._folder, self._slug, self._competition, self._environ = folder, slug, competition, environ
        self._lock = threading.Lock()
        self._kernels: dict[str, Kernel] = {}

    def save(self, request: Json) -> Reply:
        """SaveKernel: a new version, which runs; an older one of the same kernel is ended."""
        user, _, name = str(request.get("slug")).partition("/")
        source, sources = str(request.get("text")), request.get("competitionDataSources") or []
        if user != USERNAME or not name:
            return json_reply({"error": f"Kernel {request.get('slug')!r} is not yours"})
        if request.get("newTitle") != name or request.get("language") != "python":
            raise Refusal(400, "kernels are Python scripts whose title is their name")
        with self._lock:
            before = self._kernels.get(name)
            if before is not None:
                before.end()
            version = before.version + 1 if before else 1
            home = self._prepare(name, source, self._slug in sources)
            self._kernels[name] = Kernel(home, version, source, self._start(home))
        unknown = [] if self._slug in sources else list(sources)
        ref = f"/code/{USERNAME}/{name}"
        return json_reply({"ref": ref, "url": f"https://www.kaggle.com{ref}", "versionNumber": version,
                           "invalidCompetitionSources": unknown})  # fmt: skip

    def get(self, request: Json) -> Reply:
        """GetKernel: its source and newest version."""
        name, kernel = self._existing(request)
        metadata = {"ref": f"{USERNAME}/{name}", "slug": name, "currentVersionNumber": kernel.version}
        return json_reply({"metadata": metadata, "blob": {"source": kernel.source, "language": "python", "slug": name}})

    def status(self, request: Json) -> Reply:
        """GetKernelSessionStatus, of the newest version."""
        _, kernel = self._existing(request)
        status = kernel.status
        failure = f"Your kernel ended with exit code {kernel.process.returncode}" if status == "ERROR" else ""
        return json_reply({"status": status, "failureMessage": failure})

    def output(self, request: Json, base: str) -> Reply:
        """ListKernelSessionOutput: links to the output of the newest version, and its log."""
        name, kernel = self._existing(request)
        items = [
            {"fileName": file, "url": signed(f"{base}/storage/{KERNELS}{name}/{quote(file)}")} for file in kernel.output
        ]
        log = (kernel.home / LOG).read_text(encoding="utf-8", errors="replace")
        events = [{"stream_name": "stdout", "time": 0.0, "data": line} for line in log.splitlines(keepends=True)]
        return json_reply({**page(request, "files", items), "log": json.dumps(events)})

    def file(self, path: str) -> Reply:
        """The file that a link means: NAME/FILE."""
        name, _, file = path.partition("/")
        output = self._kernels[name].output if name in self._kernels else {}
        if file not in output:
            raise Refusal(404, "No such file")
        return file_reply(file, output[file])

    def close(self) -> None:
        """End all that runs."""
        with self._lock:
            for kernel in self._kernels.values():
                kernel.end()

    def _existing(self, request: Json) -> tuple[str, Kernel]:
        """The kernel that is asked for; that of others and that of nobody are answered alike."""
        name = str(request.get("kernelSlug"))
        kernel = self._kernels.get(name)
        if request.get("userName") != USERNAME or kernel is None:
            raise Refusal(403, "Permission 'kernels.get' was denied")
        return name, kernel

    def _prepare(self, name: str, source: str, with_files: bool) -> Path:
        home = (self._folder / name).resolve()
        shutil.rmtree(home, ignore_errors=True)
        for folder in (WORKING, INPUT, "tmp"):
            (home / folder).mkdir(parents=True)
        (home / MAIN).write_text(source, encoding="utf-8")
        if with_files:
            (home / INPUT / self._slug).symlink_to(self._competition.resolve())
        return home

    def _start(self, home: Path) -> "subprocess.Popen[bytes]":
        with (home / LOG).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, str(home / MAIN)], cwd=home / WORKING, env=self._environment(home),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,  # what it starts ends with it
            )  # fmt: skip

    def _environment(self, home: Path) -> dict[str, str]:
        """What a kernel sees: no credentials, no project but its own, no network."""
        kept = {
            name: value
            for name, value in self._environ.items()
            if not name.startswith(("KAGGLE", "PIPELINE", "PYTHON")) and not name.lower().endswith("_proxy")
        }
        return {
            **kept,
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), OFFLINE),
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "PIPELINE_KERNEL_INPUT": str(home / INPUT),
            "PIPELINE_KERNEL_WORKING": str(home / WORKING),
            "PIPELINE_KERNEL_DEVICE": "auto",
        }


class KernelService(Service):
    """A competition's API, with the calls for kernels."""

    def __init__(self, service: Service, kernels: Kernels) -> None:
        super().__init__(service.slug, service.catalog, service.state)
        self._kernels = kernels
        self.calls |= {
            "SaveKernel": lambda request, _: kernels.save(request),
            "GetKernel": lambda request, _: kernels.get(request),
            "GetKernelSessionStatus": lambda request, _: kernels.status(request),
            "ListKernelSessionOutput": kernels.output,
        }

    def file(self, link: str) -> Reply:
        """The file that a link stands for, also `kernels/NAME/FILE`."""
        if link.startswith(KERNELS):
            return self._kernels.file(unquote(link.removeprefix(KERNELS)))
        return super().file(link)
