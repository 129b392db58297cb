"""Learning from the hidden images with the labels that a CSV gives them (Lee 2013, "Pseudo-Label").

The competition's rules are silent on it, so train does it only for who says that they allow it.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.kaggle_api import submission_format
from pipeline.store.processed import Processed
from pipeline.store.sidecar import written_by_predict


def identity(csv: Path, competition: str) -> str:
    """NAME.csv@ and the first digits of its sha256, for the run's config.

    Raises:
        MissingInput: it is not there.
        BadData: predict did not write it for the competition, or it was edited since.
    """
    _, record = written_by_predict(csv, competition)
    return f"{csv.name}@{record.sha256[:12]}"


def read(csv: Path, data: Processed) -> NDArray[np.int64]:
    """The labels of the hidden images (H,), in their order.

    Raises:
        BadData: the CSV is not of these hidden images.
    """
    return submission_format.validate(csv, np.asarray(data.array("hidden_ids"))).astype(np.int64)
