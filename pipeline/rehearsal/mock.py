"""Starts the stand-in for Kaggle, and makes the environment in which the genuine client finds it.

with standin(None, Path("state")) as kaggle:  # None: the embedded digits
    subprocess.run(["kaggle", "competitions", "files", kaggle.slug], env=kaggle.environment)
"""

import os
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import MissingInput, UsageError
from pipeline.rehearsal import digits
from pipeline.rehearsal.catalog import Catalog
from pipeline.rehearsal.faults import Faults, parse
from pipeline.rehearsal.kernels import Kernels
from pipeline.rehearsal.replies import USERNAME
from pipeline.rehearsal.scoring import Truth
from pipeline.rehearsal.server import ADDRESS, Call, Server
from pipeline.rehearsal.service import Service
from pipeline.rehearsal.state import Settings, State
from pipeline.store import atomic

EMBEDDED = "the embedded digits"
# A token of our own in the environment keeps the client from reading the user's ~/.kaggle/access_token.
TOKEN = "rehearsal-token-no-secret"
_PROXY_VARIABLES = {"http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "no_proxy"}


@dataclass(frozen=True)
class MockKaggle:
    """A running stand-in."""

    slug: str
    source: str  # where the files come from, for people
    port: int
    environment: dict[str, str]  # a whole environment, for a child process
    state: State
    _server: Server

    @property
    def calls(self) -> list[Call]:
        """All requests so far, oldest first."""
        return self._server.calls()

    def misbehave(self, *faults: str) -> None:
        """From now on fail as these specs say (see faults.py), and no longer as earlier ones said."""
        self._server.faults = Faults([parse(spec) for spec in faults])

    def count(self, name: str) -> int:
        """How often the call `name` came in: ListDataFiles, Download, Upload, Offline..."""
        return sum(call.name == name for call in self.calls)


def slug_of(folder: Path) -> str:
    """The slug under which a folder is served: rehearsal-NAME."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    return f"rehearsal-{name or 'folder'}"


@contextmanager
def mock_kaggle(
    folder: Path | None,
    state: Path,
    *,
    slug: str | None = None,
    labels: Path | None = None,
    faults: Iterable[str] = (),
    tls: ssl.SSLContext | None = None,
    settings: Settings | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[MockKaggle]:
    """Serve `folder` (None: the embedded digits) on 127.0.0.1 while the block runs.

    `state` is the folder of its memory, `labels` the CSV to score with, `faults` are specs (see faults.py).
    With `tls` (a certificate for api.kaggle.com) the environment leads the client to Kaggle's own URL; the
    client must trust the certificate (REQUESTS_CA_BUNDLE).  Without, it leads to http://localhost/api.

    Raises:
        UsageError: a bad fault, or a memory of another competition, or one that is in use.
        MissingInput: `folder` or `labels` is not there.
    """
    ordered = Faults([parse(spec) for spec in faults])
    source = EMBEDDED
    if folder is not None:
        _check(folder, state, labels)
        slug, source = slug or slug_of(folder), str(folder.resolve())
    slug = slug or digits.SLUG
    with atomic.lock(state):
        memory = State(state, slug, source, settings or Settings(), clock)
        if folder is None:
            folder, labels = _embedded(state)
        memory.truth = None if labels is None else Truth.read(labels)
        variables = os.environ if environ is None else environ
        kernels = Kernels(state / "kernels", slug, folder, variables)
        server = Server(Service(slug, Catalog(slug, folder, state), memory, kernels), ordered, clock, tls)
        with closing(kernels), _running(server):
            client_folder = state / "kaggle-config"
            client_folder.mkdir(exist_ok=True)
            environment = _environment(variables, slug, server.port, client_folder, production=tls is not None)
            yield MockKaggle(slug, source, server.port, environment, memory, server)


@contextmanager
def _running(server: Server) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join()


def _check(folder: Path, state: Path, labels: Path | None) -> None:
    """Refuse a folder that has nothing to serve, or would serve what nobody should download."""
    if not folder.is_dir() or not any(folder.iterdir()):
        raise MissingInput(
            f"--folder {folder}: nothing there; it must hold the files as the competition's download has them"
        )
    for flag, path in (("--state", state), ("--labels", labels)):
        if path is not None and path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{flag} {path} is in --folder {folder} and would be served: put it elsewhere")


def _embedded(state: Path) -> tuple[Path, Path]:
    """Folder and labels of the embedded competition, written by its first rehearsal."""
    folder, labels = state / "competition", state / "labels.csv"
    if not (folder.is_dir() and labels.is_file()):
        digits.write(folder, labels)
    return folder, labels


def _environment(base: Mapping[str, str], slug: str, port: int, config: Path, production: bool) -> dict[str, str]:
    """`base` without any way to the real Kaggle, and with the way to us."""
    kept = {
        name: value
        for name, value in base.items()
        if not name.startswith("KAGGLE_") and name.lower() not in _PROXY_VARIABLES
    }
    proxy = f"http://{ADDRESS}:{port}"
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        kept[name] = kept[name.upper()] = proxy
    environment = {
        **kept,
        "no_proxy": "",
        "NO_PROXY": "",
        "KAGGLE_API_TOKEN": TOKEN,
        "KAGGLE_USERNAME": USERNAME,
        "KAGGLE_KEY": "rehearsal-key",
        "KAGGLE_CONFIG_DIR": str(config.resolve()),
        "PIPELINE_COMPETITION": slug,
        "PIPELINE_PYTHON": sys.executable,
        # Not resolved: in a virtual environment the link's folder is the one with the `kaggle` command.
        "PATH": os.pathsep.join(filter(None, [str(Path(sys.executable).parent), base.get("PATH", "")])),
    }
    if not production:
        environment["KAGGLE_API_ENVIRONMENT"] = "LOCALHOST"
    return environment
