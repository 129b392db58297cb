"""Commands in surroundings of their own: a script in a shell, a file system that nobody else sees."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, clean_environment

NAMESPACE = ("unshare", "--map-root-user", "--mount")


@functools.cache
def mounts() -> bool:
    """Whether the system lets us mount a file system that nobody else sees."""
    try:
        command = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(not mounts(), reason="no file system of one's own can be mounted here")


def shell(script: str, cwd: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    """A bash script in which $P is `python -m pipeline`."""
    return subprocess.run(
        ["bash", "-c", script.replace("$P.", f"{sys.executable} -m pipeline.")],
        cwd=cwd,
        env={**clean_environment(), "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
