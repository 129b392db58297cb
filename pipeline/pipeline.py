"""Imported as `pipeline` when a stage is run as a file (`python train.py`): prints the command that works."""

import shlex
import sys
from pathlib import Path

if __name__ != "pipeline.pipeline":
    stage = [name for name in (Path(sys.argv[0]).stem,) if name not in ("", "pipeline", "__main__")]
    # `-m` is all that argv holds while `python -m pipeline.train` is still looking for the stage.
    words = sys.orig_argv[1:] if sys.argv[0] == "-m" else ["-m", "pipeline", *stage, *sys.argv[1:]]
    project, command = shlex.quote(str(Path(__file__).resolve().parents[1])), shlex.join(["python", *words])
    sys.stderr.write(f"error: a stage runs from the project's folder: cd {project} && {command}\n")
    sys.exit(2)
