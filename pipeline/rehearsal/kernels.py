"""Kernels of the stand-in: what is pushed really runs, in a process on this machine, offline and without credentials.

Kaggle's machine is a folder of the stand-in's memory: kernels/NAME has main.py, what the kernel puts out (working) and
what it prints (log.txt); the competition's files lie under input, as /kaggle/input has them.  A kernel that runs when
the stand-in stops is ended, and counts as cancelled.
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
from pathlib import Path
from urllib.parse import quote

from pipeline.rehearsal.catalog import ServedFile, served
from pipeline.rehearsal.replies import USERNAME, Json, Refusal, Reply, bad_request, json_reply, page, signed
from pipeline.store import atomic

KERNELS = "kernels/"  # how the links to output begin, below storage
LARGEST = 1_000_000  # bytes of a source
NOTE, MAIN, LOG, WORKING, INPUT = "kernel.json", "main.py", "log.txt", "working", "input"
RUNNING, COMPLETE, ERROR, CANCELLED = "RUNNING", "COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED"
OFFLINE = "http://127.0.0.1:9"  # a proxy that nobody is


class Kernels:
    """The user's kernels.  Safe to ask from several threads."""

    def __init__(self, folder: Path, slug: str, competition: Path, environ: Mapping[str, str]) -> None:
        """`folder` is the memory, `competition` has the files of `slug`; of `environ` kernels see what is harmless."""
        self._folder, self._slug, self._competition, self._environ = folder, slug, competition, environ
        self._lock = threading.Lock()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    # --- the calls ------------------------------------------------------------------------------------------

    def save(self, request: Json) -> Reply:
        """SaveKernel: a new version, which runs; an older one of the same kernel is ended."""
        user, _, name = str(request.get("slug")).partition("/")
        source, sources = str(request.get("text")), request.get("competitionDataSources") or []
        if user != USERNAME or not name or quote(name, safe="") != name or name.startswith("."):
            return json_reply({"error": f"Kernel {request.get('slug')!r} is not yours"})
        if request.get("newTitle") != name or request.get("language") != "python":
            bad_request("this rehearsal takes Python scripts whose title is their name")
        if len(source.encode()) > LARGEST:
            return json_reply({"error": f"The source has more than {LARGEST} bytes"})
        with self._lock:
            self._end(name)
            version = int(self._note(name).get("version", 0)) + 1
            home = self._folder / name
            shutil.rmtree(home, ignore_errors=True)
            (home / WORKING).mkdir(parents=True)
            (home / MAIN).write_text(source, encoding="utf-8")
            self._write(name, version, RUNNING)
            self._start(name, self._slug in sources)
        known = [] if self._slug in sources else list(sources)
        url = f"https://www.kaggle.com/code/{USERNAME}/{name}"
        return json_reply({"ref": f"/code/{USERNAME}/{name}", "url": url, "versionNumber": version,
                           "invalidCompetitionSources": known})  # fmt: skip

    def get(self, request: Json) -> Reply:
        """GetKernel: its source and newest version."""
        name, note = self._existing(request)
        source = (self._folder / name / MAIN).read_text(encoding="utf-8")
        metadata = {"ref": f"{USERNAME}/{name}", "slug": name, "currentVersionNumber": note["version"]}
        return json_reply({"metadata": metadata, "blob": {"source": source, "language": "python", "slug": name}})

    def status(self, request: Json) -> Reply:
        """GetKernelSessionStatus, of the newest version."""
        _, note = self._existing(request)
        return json_reply({"status": note["status"], "failureMessage": note["failure"]})

    def output(self, request: Json, base: str) -> Reply:
        """ListKernelSessionOutput: links to what the newest version has put out, and its log."""
        name, _ = self._existing(request)
        items = [
            {"fileName": file, "url": signed(f"{base}/storage/{KERNELS}{name}/{quote(file)}")}
            for file in self._put_out(name)
        ]
        listed = json.loads(bytes(page(request, "files", items).body))
        log = (self._folder / name / LOG).read_text(encoding="utf-8", errors="replace")
        events = [{"stream_name": "stdout", "time": 0.0, "data": line} for line in log.splitlines(keepends=True)]
        return json_reply({**listed, "log": json.dumps(events)})

    def file(self, path: str) -> ServedFile:
        """The file that a link means: NAME/FILE."""
        name, _, file = path.partition("/")
        found = self._put_out(name) if name in self._names() else {}
        if file not in found:
            raise Refusal(404, "No such file")
        return served(file, found[file])

    def close(self) -> None:
        """End all that runs."""
        with self._lock:
            for name in list(self._processes):
                self._end(name)

    # --- what is there --------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        return [path.parent.name for path in self._folder.glob(f"*/{NOTE}")]

    def _existing(self, request: Json) -> tuple[str, Json]:
        """Name and note of the kernel that is asked for; that of others and that of nobody are answered alike."""
        name, label = str(request.get("kernelSlug")), request.get("versionLabel")
        if request.get("userName") != USERNAME or name not in self._names():
            raise Refusal(403, "Permission 'kernels.get' was denied")
        with self._lock:
            self._look(name)
            note = self._note(name)
        if label not in (None, f"v{note['version']}"):
            raise Refusal(404, f"This rehearsal knows version {note['version']} alone")
        return name, note

    def _note(self, name: str) -> Json:
        try:
            note: Json = json.loads((self._folder / name / NOTE).read_bytes())
        except FileNotFoundError:
            return {}
        return note

    def _write(self, name: str, version: int, status: str, failure: str = "") -> None:
        note = {"version": version, "status": status, "failure": failure}
        atomic.write_json(self._folder / name / NOTE, note)

    def _put_out(self, name: str) -> dict[str, Path]:
        folder = self._folder / name / WORKING
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        return {path.relative_to(folder).as_posix(): path for path in files}

    # --- what runs ------------------------------------------------------------------------------------------

    def _start(self, name: str, with_files: bool) -> None:
        home = (self._folder / name).resolve()
        (home / INPUT).mkdir()
        if with_files:
            (home / INPUT / self._slug).symlink_to(self._competition.resolve())
        with (home / LOG).open("wb") as log:
            self._processes[name] = subprocess.Popen(
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
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), OFFLINE)
        (home / "tmp").mkdir()
        return {
            **kept,
            **proxies,
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "PIPELINE_KERNEL_INPUT": str(home / INPUT),
            "PIPELINE_KERNEL_WORKING": str(home / WORKING),
            "PIPELINE_KERNEL_DEVICE": "auto",
        }

    def _look(self, name: str) -> None:
        """Note the end of what ran; without a process it was ended together with an earlier stand-in."""
        note = self._note(name)
        if note["status"] != RUNNING:
            return
        process = self._processes.get(name)
        if process is None:
            self._write(name, note["version"], CANCELLED)
        elif (code := process.poll()) is not None:
            del self._processes[name]
            failure = f"Your kernel ended with exit code {code}" if code else ""
            self._write(name, note["version"], ERROR if code else COMPLETE, failure)

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if self._note(name):
            self._write(name, self._note(name)["version"], CANCELLED)
