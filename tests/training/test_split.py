import dataclasses

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.recipes import PRESETS
from pipeline.training.batches import split

CONFIG = PRESETS["rehearsal"]
LABELS = np.repeat(np.arange(10), 100)


def test_the_split_takes_a_tenth_of_each_class() -> None:
    result = split(LABELS, CONFIG)
    assert result.validation is not None
    assert np.bincount(LABELS[result.validation]).tolist() == [10] * 10
    assert sorted([*result.train, *result.validation]) == list(range(1000))


def test_all_seeds_share_the_split() -> None:
    first, other = split(LABELS, CONFIG), split(LABELS, dataclasses.replace(CONFIG, seed=1))
    assert np.array_equal(first.train, other.train)
    assert first.train[:900].tolist() != list(range(900))  # drawn, not the last images


def test_the_paper_trains_on_all_images() -> None:
    result = split(LABELS, PRESETS["paper"])
    assert result.train.tolist() == list(range(1000))
    assert result.validation is None


def test_a_batch_larger_than_the_training_set_is_refused() -> None:
    with pytest.raises(UsageError, match="--batch-size 901 is larger than the training set \\(900 images\\)"):
        split(LABELS, dataclasses.replace(CONFIG, batch_size=901))


def test_too_few_images_to_split_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot cut a validation split out of 10 images"):
        split(np.arange(10), CONFIG)
