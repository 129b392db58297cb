"""From a Kaggle competition's download to a checked submission, one stage a module.

    python -m pipeline.download     Kaggle                    -> data/raw/SLUG
    python -m pipeline.preprocess   data/raw/SLUG             -> data/processed/SLUG   arrays, no pickle
    python -m pipeline.train        data/processed/SLUG       -> data/models/RUN       weights and config
    python -m pipeline.predict      the run + hidden images   -> submissions/RUN.csv   RUN.json, RUN.npz: its evidence
    python -m pipeline.submit       the CSV                   -> Kaggle                a ref, never a guess
    python -m pipeline.check        CSV, ledger + Kaggle      -> predicted against public, why, and what to do
    python -m pipeline.report       run, CSV, ledger          -> data/models/RUN/report   one page to look at

`run_all.sh` runs them in this order (submit only when it is told to).  Beside them:

    python -m pipeline.status       all of these folders      -> what exists, what is stale, what to do next
    python -m pipeline.sweep        many short runs           -> the best recipe of a search space
    python -m pipeline.kernel       the project               -> Kaggle's GPU, and the run that comes back

Stages know parts; parts never know stages:

    config, recipes        competitions, folders, constants, the project's files; models, recipes and presets
    errors                 one tree of errors, the exit codes, text that is safe for a terminal
    cli                    what the command lines share
    commands               a command as text: a stage in its folders, the options that train a run again
    console                progress, durations, tables
    store/                 files that survive a crash: manifests, atomic writes, archives, the pickle reader; the data,
                           runs, submissions and the ledger; what exists of all that
    model/                 the models, how pixels are normalised, weights files, costs (python -m pipeline.model)
    kaggle_api/            the genuine client in a child process, credentials; Kaggle's list into the ledger
    training/              batches, augmentation, optimizers and the learning rate (optim), one step, the loop,
                           checkpoints; inference
    gap/                   the hidden images predicted and diagnosed, what may close the gap, what a CSV will score
    reporting/             the report's figures and its page
    kernel_source          what kernel pushes;  kernel_runner: what runs on Kaggle's machine
    rehearsal/             a mock Kaggle server on 127.0.0.1 and its embedded competition
                           (python -m pipeline.rehearsal -- COMMAND)
"""

import sys
from importlib.util import find_spec

# To forget the environment is the commonest mistake, and a traceback no help.  (Credentials are looked for before
# there is one.)
if "-m" in sys.orig_argv and "pipeline.kaggle_api.credentials" not in sys.orig_argv and find_spec("tqdm") is None:
    sys.exit("error: the packages are not installed here: `./run_all.sh --setup`, then `source .venv/bin/activate`")
