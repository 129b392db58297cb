"""Kernels: what is pushed really runs, in a process on this machine, offline and without credentials.

Kaggle's machine is a folder: kernels/NAME has main.py, the kernel's output (working) and what it prints (log.txt); the
competition's files are below input, as /kaggle/input has them.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.rehearsal.service import USERNAME, Json, Reply, Service, json_reply, page, signed
from pipeline.rehearsal.state import Refusal

KERNELS = "kernels"  # how the links to output begin, below storage
MAIN, LOG, WORKING, INPUT = "main.py", "log.txt", "working", "input"
OFFLINE = "http://127.0.0.1:9"  # a proxy that nobody is


@dataclass(frozen=True)
class Kernel:
    """The newest version of a kernel."""

    home: Path
    version: int
    process: "subprocess.Popen[bytes]"

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


class Kernels:
    """The user's kernels, which run in `folder` and see what is harmless of `environ`; `service` gets their calls."""

    def __init__(self, folder: Path, service: Service, environ: Mapping[str, str]) -> None:
        self._folder, self._service, self._environ = folder, service, environ
        self._kernels: dict[str, Kernel] = {}
        service.storage[KERNELS] = self._output
        service.calls |= {
            "SaveKernel": self.save,
            "GetKernelSessionStatus": self.status,
            "ListKernelSessionOutput": self.output,
        }

    def save(self, request: Json) -> Reply:
        """SaveKernel: a new version, which runs; an older one of the same kernel is ended."""
        user, _, name = str(request["slug"]).partition("/")
        if user != USERNAME or request["newTitle"] != name or request["language"] != "python":
            raise Refusal(400, "kernels are Python scripts whose title is their name")
        before = self._kernels.get(name)
        if before is not None:
            before.end()
        home = (self._folder / name).resolve()
        shutil.rmtree(home, ignore_errors=True)
        for folder in (WORKING, INPUT, "tmp"):
            (home / folder).mkdir(parents=True)
        (home / MAIN).write_text(str(request["text"]), encoding="utf-8")
        unknown = []
        for slug in request["competitionDataSources"]:
            if slug == self._service.slug:
                (home / INPUT / slug).symlink_to(self._service.folder.resolve())
            else:
                unknown.append(slug)
        kernel = self._kernels[name] = Kernel(home, before.version + 1 if before else 1, self._start(home))
        values = {"ref": f"/code/{USERNAME}/{name}", "url": f"https://www.kaggle.com/code/{USERNAME}/{name}"}
        return json_reply({**values, "versionNumber": kernel.version, "invalidCompetitionSources": unknown})

    def status(self, request: Json) -> Reply:
        """GetKernelSessionStatus, of the newest version."""
        code = self._existing(request).process.poll()
        if code is None or code == 0:
            return json_reply({"status": "RUNNING" if code is None else "COMPLETE", "failureMessage": ""})
        return json_reply({"status": "ERROR", "failureMessage": f"Your kernel ended with exit code {code}"})

    def output(self, request: Json) -> Reply:
        """ListKernelSessionOutput: links to the output of the newest version, and its log."""
        kernel, prefix = self._existing(request), f"{request['kernelSlug']}/"
        names = [name.removeprefix(prefix) for name in self._output() if name.startswith(prefix)]
        items = [{"fileName": name, "url": signed(f"{KERNELS}/{prefix}{name}")} for name in names]
        log = (kernel.home / LOG).read_text(encoding="utf-8", errors="replace")
        events = [{"stream_name": "stdout", "time": 0.0, "data": line} for line in log.splitlines(keepends=True)]
        return json_reply({**page(request, "files", items), "log": json.dumps(events)})

    def close(self) -> None:
        """End all that runs."""
        for kernel in self._kernels.values():
            kernel.end()

    def _output(self) -> dict[str, Path]:
        """The files that all kernels have written, as NAME/FILE."""
        return {
            f"{name}/{path.relative_to(kernel.home / WORKING).as_posix()}": path
            for name, kernel in self._kernels.items()
            for path in sorted((kernel.home / WORKING).rglob("*"))
            if path.is_file() and not path.is_symlink()
        }

    def _existing(self, request: Json) -> Kernel:
        """The kernel that is asked for; that of others and that of nobody are answered alike."""
        kernel = self._kernels.get(str(request.get("kernelSlug")))
        if request.get("userName") != USERNAME or kernel is None:
            raise Refusal(403, "Permission 'kernels.get' was denied")
        return kernel

    def _start(self, home: Path) -> "subprocess.Popen[bytes]":
        """Run it with no credentials, no project but its own, and no network."""
        kept = {
            name: value
            for name, value in self._environ.items()
            if not name.startswith(("KAGGLE", "PIPELINE", "PYTHON")) and not name.lower().endswith("_proxy")
        }
        own = {
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), OFFLINE),
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "PIPELINE_KERNEL_INPUT": str(home / INPUT),
            "PIPELINE_KERNEL_WORKING": str(home / WORKING),
            "PIPELINE_KERNEL_DEVICE": "auto",
        }
        with (home / LOG).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, str(home / MAIN)], cwd=home / WORKING, env=kept | own,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
