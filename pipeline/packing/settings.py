"""SETTINGS.json of an unpacked package: the only place that says where its folders are."""

import sys
from pathlib import Path

from pipeline.config import Paths
from pipeline.store.fields import parse

NAME = "SETTINGS.json"
# As in Kaggle's guidelines for winners; relative to the package's folder.
DEFAULTS = {
    "RAW_DATA_DIR": "data/raw",
    "CLEAN_DATA_DIR": "data/processed",
    "MODEL_DIR": "models",
    "SUBMISSION_DIR": "submissions",
}


def read(package: Path) -> Paths:
    """The folders that SETTINGS.json in the folder `package` names.

    Raises:
        SystemExit: it is not there, or does not name them all; with a message.
    """
    path = package / NAME
    try:
        values = parse(path.read_bytes())
        raw, processed, models, submissions = (package / values[key] for key in DEFAULTS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: {path} must name {', '.join(DEFAULTS)}, in JSON ({type(error).__name__}: {error})")
    return Paths(raw, processed, models, submissions)
