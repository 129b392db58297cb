import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.recipes import PRESETS, TrainConfig
from pipeline.training.augment import Drawn
from pipeline.training.batches import TrainingImages, draw, split

CPU = torch.device("cpu")
PAPER = PRESETS["paper"]
ROWS = 300
IMAGES = np.random.default_rng(0).integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(ROWS, dtype=np.int64) % 10


def training_images(config: TrainConfig = PAPER, rows: int = ROWS, processes: int = 1) -> TrainingImages:
    return TrainingImages(IMAGES[:rows], LABELS[:rows], config, CPU, processes)


def plain(image: NDArray[np.uint8], drawn: Drawn, position: int) -> NDArray[np.uint8]:
    """One image the slow way: pad with black, cut, mirror."""
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    top, left = int(drawn["top"][position]), int(drawn["left"][position])
    crop = padded[top : top + 32, left : left + 32]
    return crop[:, ::-1] if drawn["flip"][position] else crop


def test_batches_equal_the_plain_way_image_by_image() -> None:
    training, drawn = training_images(), draw(ROWS, PAPER, epoch=0)
    images, labels = map(torch.cat, zip(*(training.batch(drawn, s) for s in range(training.steps)), strict=True))
    order = drawn["order"].numpy()
    expected = np.stack([plain(IMAGES[row], drawn, position) for position, row in enumerate(order)])
    assert np.array_equal(images.numpy(), expected)
    assert np.array_equal(labels.numpy(), LABELS[order])
    assert images.dtype == torch.uint8


def test_each_image_has_draws_of_its_own_and_crops_and_flips_are_uniform() -> None:
    drawn = draw(81_000, PAPER, epoch=0)
    cells = torch.bincount(drawn["top"] * 9 + drawn["left"], minlength=81)
    assert len(cells) == 81
    assert (cells - 1000).abs().max() < 5 * 1000**0.5  # five standard deviations
    assert abs(int(drawn["flip"].sum()) - 40_500) < 5 * (81_000 / 4) ** 0.5
    together = torch.stack([drawn["top"], drawn["left"], drawn["flip"].long()], 1)[:128]
    assert len(set(map(tuple, together.tolist()))) > 64  # of 162 possible ones


def test_alternating_flips_show_each_image_from_both_sides_in_turn() -> None:
    config = dataclasses.replace(PAPER, flip="alternating")
    seen = []
    for epoch in range(3):
        drawn = draw(1000, config, epoch)
        seen.append(drawn["flip"][drawn["order"].argsort()])
    assert torch.equal(seen[0], ~seen[1]) and torch.equal(seen[0], seen[2])
    assert 400 < int(seen[0].sum()) < 600


def test_draws_follow_seed_and_epoch_and_nothing_else() -> None:
    before = torch.get_rng_state()
    config = dataclasses.replace(PAPER, cutout=8, mixup=0.2)
    first, again = draw(ROWS, config, epoch=1), draw(ROWS, config, epoch=1)
    others = draw(ROWS, config, epoch=2), draw(ROWS, dataclasses.replace(config, seed=1), epoch=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(first) == 6 and all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first["order"], other["order"]) for other in others)
    # The next seed's epoch 1 is not this seed's epoch 2, as it would be with seed + epoch.
    assert not torch.equal(others[0]["order"], others[1]["order"])


@pytest.mark.parametrize(
    ("rows", "processes", "sizes"),
    [
        (257, 1, [128, 129]),
        (258, 1, [128, 128, 2]),
        (256, 1, [128, 128]),
        (128, 1, [128]),
        (259, 2, [128, 131]),
        (260, 2, [128, 128, 4]),
    ],
)
def test_every_image_comes_once_and_too_small_a_last_batch_joins_the_one_before(
    rows: int, processes: int, sizes: list[int]
) -> None:
    training, drawn = training_images(rows=rows, processes=processes), draw(rows, PAPER, epoch=0)
    shares = [slice(rank, None, processes) for rank in range(processes)]
    labels = [torch.cat([training.batch(drawn, step, share)[1] for share in shares]) for step in range(training.steps)]
    assert [len(part) for part in labels] == sizes
    assert torch.cat(labels).bincount().tolist() == np.bincount(LABELS[:rows]).tolist()
    assert [training.seen(step + 1) for step in range(len(sizes))] == np.cumsum(sizes).tolist()


def test_a_share_is_its_rows_of_the_whole_batch() -> None:
    config = dataclasses.replace(PAPER, cutout=8)
    training, drawn = training_images(config), draw(ROWS, config, epoch=0)
    images, labels = training.batch(drawn, 1)
    shares = [training.batch(drawn, 1, slice(rank, None, 3)) for rank in range(3)]
    for rank, (some, their_labels) in enumerate(shares):
        assert torch.equal(some, images[rank::3]) and torch.equal(their_labels, labels[rank::3])


# --- the split --------------------------------------------------------------------------------------------

CONFIG = PRESETS["rehearsal"]
CLASSES = np.repeat(np.arange(10), 100)


def test_the_split_takes_a_tenth_of_each_class_the_same_for_all_seeds_and_the_paper_trains_on_all_images() -> None:
    first, other = split(CLASSES, CONFIG), split(CLASSES, dataclasses.replace(CONFIG, seed=1))
    assert first.validation is not None
    assert np.bincount(CLASSES[first.validation]).tolist() == [10] * 10
    assert sorted([*first.train, *first.validation]) == list(range(1000))
    assert np.array_equal(first.train, other.train)
    assert first.train[:900].tolist() != list(range(900))  # drawn, not the last images
    whole = split(CLASSES, PAPER)
    assert whole.train.tolist() == list(range(1000)) and whole.validation is None


@pytest.mark.parametrize(
    ("labels", "change", "message"),
    [
        (CLASSES, {"batch_size": 901}, r"--batch-size 901 is larger than the training set \(900 images\)"),
        (np.arange(10), {}, "cannot split a validation set off 10 images"),
    ],
)
def test_too_few_images_are_refused(labels: NDArray[np.int64], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split(labels, dataclasses.replace(CONFIG, **change))
