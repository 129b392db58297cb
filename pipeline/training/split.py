"""Which of the processed images train, and which select the best epoch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.recipes import TrainConfig


@dataclass(frozen=True)
class Split:
    """Rows of the processed training images, ascending.

    `validation` is None where the labelled test_batch validates (the paper's protocol).
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64] | None


def split(labels: NDArray[np.int64], config: TrainConfig) -> Split:
    """Cut the validation set out of the training images, each class in proportion.

    The cut is the same for every seed: so several runs can be compared, averaged and calibrated on images that
    none of them has learned from.

    Raises:
        UsageError: there are too few images for that, or fewer than one batch.
    """
    rows = np.arange(len(labels))
    if config.validation == "test_batch":
        result = Split(rows, None)
    else:
        from sklearn.model_selection import train_test_split  # noqa: PLC0415 - a second that preset paper need not take

        try:
            train, validation = train_test_split(
                rows, test_size=config.validation_fraction, stratify=labels, random_state=0
            )
        except ValueError as error:  # a class with fewer than two images, or an empty side
            raise UsageError(f"cannot cut a validation split out of {len(labels)} images: {error}") from error
        result = Split(np.sort(train), np.sort(validation))
    if config.batch_size > len(result.train):
        raise UsageError(
            f"--batch-size {config.batch_size} is larger than the training set "
            f"({len(result.train)} images): use --batch-size {len(result.train)} or less"
        )
    return result
