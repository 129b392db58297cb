"""Download, train, predict and submit to a Kaggle competition; one module per stage.

    python -m pipeline.download     Kaggle                    -> data/raw/SLUG
    python -m pipeline.preprocess   data/raw/SLUG             -> data/processed/SLUG   arrays, no pickle
    python -m pipeline.train        data/processed/SLUG       -> data/models/RUN       weights and config
    python -m pipeline.predict      run + test set            -> submissions/RUN.csv   RUN.json, RUN.npz: its origin
    python -m pipeline.submit       the CSV                   -> Kaggle                never twice
    python -m pipeline.check        CSV, ledger + Kaggle      -> predicted and public score, why, what to do
    python -m pipeline.report       run, CSV, ledger          -> data/models/RUN/report   one page

`run_all.sh` runs them in this order (submit only with --submit).  Other commands:

    python -m pipeline.status       all of these folders      -> what exists, what is stale, what to do next
    python -m pipeline.sweep        many short runs           -> the best recipe of a search space
    python -m pipeline.kernel       the project               -> Kaggle's GPU, and the run that comes back
    python -m pipeline.model        a model                   -> its layers, parameters, MACs and memory
    python -m pipeline.rehearsal    -- COMMAND                -> COMMAND with a mock Kaggle server, offline

Stages import parts; parts never import stages.  The parts: store < model, kaggle_api < training < gap < reporting, and
rehearsal beside them.
"""

import os
import re
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

# Variables of the shell that would change what a command does: matplotlib's backend and style (Jupyter exports one),
# progress bars, PyTorch's output, warnings as errors, Python without docstrings.
UNWANTED = ("MPLBACKEND", "MATPLOTLIBRC", "TQDM_", "TORCH_LOGS", "PYTORCH_JIT",
            "PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONDEVMODE")  # fmt: skip

if sys.version_info < (3, 11):  # noqa: UP036 - any Python that is asked for gets here
    sys.exit("error: Python 3.11 or newer is needed, and this is {}.{}: `source .venv/bin/activate`, which "
             "`./run_all.sh --setup` makes".format(*sys.version_info))  # fmt: skip
if re.search(r" -\w*m ?pipeline\b", " ".join(["", *sys.orig_argv])):
    unwanted = [name for name in os.environ if name.startswith(UNWANTED)]
    for name in unwanted:
        del os.environ[name]
    # Python has read them already: start it again, once, since a wrapper or a sitecustomize may set them again.
    if any(name.startswith("PYTHON") for name in unwanted) and "pipeline" not in sys._xoptions:
        os.execv(sys.executable, [sys.executable, "-X", "pipeline", *sys.orig_argv[1:]])
    # Installed packages come first: a numpy.py in the current folder or on PYTHONPATH is not numpy.
    with suppress(FileNotFoundError):  # the current folder was removed
        others = {Path(folder).resolve() for folder in ("", *os.environ.get("PYTHONPATH", "").split(os.pathsep))}
        sys.path.sort(key=lambda folder: Path(folder).resolve() in others)

    # The commonest mistake is to forget the environment.  (Credentials are checked before there is one.)
    if "pipeline.kaggle_api.credentials" not in sys.orig_argv and find_spec("tqdm") is None:
        sys.exit("error: activate the environment first: source .venv/bin/activate (none yet? ./run_all.sh --setup)")
