"""What `import pipeline` finds when a stage is run as a file (`python train.py`): it names the command that works.

Python looks for modules in that file's folder first, so this stands for the package there.  Nothing else imports it.
"""

import shlex
import sys
from pathlib import Path

if __name__ != "pipeline.pipeline":
    stage = Path(sys.argv[0]).stem
    module = f"pipeline.{stage}" if stage.isidentifier() and stage not in ("pipeline", "__main__") else "pipeline"
    # `-m` is all that argv holds while `python -m pipeline.train` is still looking for the stage.
    words = sys.orig_argv[1:] if sys.argv[0] == "-m" else ["-m", module, *sys.argv[1:]]
    command = shlex.join(["python", *words])
    project = shlex.quote(str(Path(__file__).resolve().parents[1]))
    sys.stderr.write(f"error: a stage runs from the project's folder: cd {project} && {command}\n")
    sys.exit(2)
