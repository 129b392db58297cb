"""A stage in a process of its own, forked from one that has imported PyTorch and the stages beforehand.

So a kill falls into the stage's work, and no test waits for an import; tests.hostile.forking runs many one by one.
"""

import importlib
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

STAGES = tuple(
    f"pipeline.{name}" for name in ("download", "preprocess", "train", "predict", "submit", "check", "sweep")
)


def start(command: Sequence[str], folder: Path, environ: Mapping[str, str], log: Path) -> ForkServerProcess:
    """`python -m COMMAND` in `folder`, or a script; what it says on stderr is in `log`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *STAGES])
    process = context.Process(target=_become, args=(command, folder, dict(environ), log))
    process.start()
    return process


def _become(command: Sequence[str], folder: Path, environ: Mapping[str, str], log: Path) -> None:
    """In the fork."""
    os.setsid()
    for number, name in enumerate((os.devnull, os.devnull, str(log))):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    os.chdir(folder)
    module, *options = command
    if module.endswith(".sh"):
        os.execve(module, [*command], environ)
    os.environ.clear()
    os.environ.update(environ)
    torch.set_num_threads(1)
    sys.exit(importlib.import_module(module).main(options))
