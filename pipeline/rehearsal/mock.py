"""Start the mock Kaggle server, and the environment in which the official client finds it.

with mock_kaggle(None, Path("state")) as kaggle:  # None: the embedded digits
    subprocess.run(["kaggle", "competitions", "files", kaggle.slug], env=kaggle.environment)
"""

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import MissingInput, UsageError
from pipeline.rehearsal import digits
from pipeline.rehearsal.server import ADDRESS, MockKaggle
from pipeline.rehearsal.service import Service
from pipeline.rehearsal.state import State, Truth
from pipeline.store import atomic

# A token of our own in the environment keeps the client from reading the user's ~/.kaggle/access_token.
TOKEN = "rehearsal-token-no-secret"


def slug_of(folder: Path | None) -> str:
    """The slug of a served folder: rehearsal-NAME, or that of the embedded digits."""
    if folder is None:
        return digits.SLUG
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    return f"rehearsal-{name or 'folder'}"


@contextmanager
def mock_kaggle(
    folder: Path | None,
    state: Path,
    *,
    slug: str | None = None,
    labels: Path | None = None,
    make: Callable[[Service], MockKaggle] = MockKaggle,
) -> Iterator[MockKaggle]:
    """Serve `folder` (None: the embedded digits) on 127.0.0.1 while the block runs.

    `state` is the folder with its submissions, `labels` the CSV to score with; `make` makes the server.

    Raises:
        UsageError: the state belongs to another competition, or is in use.
        MissingInput: `folder` or `labels` is not there.
    """
    if folder is not None:
        _check(folder, state, labels)
    slug = slug or slug_of(folder)
    source = "the embedded digits" if folder is None else str(folder.resolve())
    with atomic.lock(state):
        memory = State(state, slug, source)
        if folder is None:
            folder, labels = state / "competition", state / "labels.csv"
            if not (folder.is_dir() and labels.is_file()):
                digits.write(folder, labels)
        memory.truth = None if labels is None else Truth.read(labels)
        server = make(Service(slug, folder, state, memory))
        server.environment = _environment(slug, server.port, state)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()


def _check(folder: Path, state: Path, labels: Path | None) -> None:
    """Refuse a folder that is missing, or that would serve its own labels or state."""
    if not folder.is_dir() or not any(folder.iterdir()):
        raise MissingInput(f"--folder {folder}: does not exist or is empty; it must be laid out like the download")
    for flag, path in (("--state", state), ("--labels", labels)):
        if path is not None and path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{flag} {path} is in --folder {folder} and would be served: put it elsewhere")


def _environment(slug: str, port: int, state: Path) -> dict[str, str]:
    """Our environment with the mock server in place of the real Kaggle."""
    config = state / "kaggle-config"
    config.mkdir(exist_ok=True)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KAGGLE_") and not name.lower().endswith("_proxy")
    }
    ways = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {
        **kept,
        **dict.fromkeys(ways, f"http://{ADDRESS}:{port}"),
        "no_proxy": "",
        "NO_PROXY": "",
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "KAGGLE_API_TOKEN": TOKEN,
        "KAGGLE_CONFIG_DIR": str(config.resolve()),
        "PIPELINE_COMPETITION": slug,
        "PIPELINE_PYTHON": sys.executable,
        # Not resolved: a virtual environment's `kaggle` is beside the link.
        "PATH": os.pathsep.join(filter(None, [str(Path(sys.executable).parent), os.environ.get("PATH", "")])),
    }
