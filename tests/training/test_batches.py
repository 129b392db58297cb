import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.recipes import PRESETS, TrainConfig
from pipeline.training.augment import Drawn
from pipeline.training.batches import TrainingImages, draw, steps_per_epoch

CPU = torch.device("cpu")
PAPER = PRESETS["paper"]
ROWS = 300
IMAGES = np.random.default_rng(0).integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(ROWS, dtype=np.int64) % 10


def training_images(config: TrainConfig = PAPER, rows: int = ROWS) -> TrainingImages:
    return TrainingImages(IMAGES[:rows], LABELS[:rows], config, CPU)


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


def test_each_image_has_draws_of_its_own() -> None:
    drawn = draw(128, PAPER, epoch=0)
    combinations = set(zip(drawn["top"].tolist(), drawn["left"].tolist(), drawn["flip"].tolist(), strict=True))
    assert len(combinations) > 64  # of 162 possible ones


def test_crops_and_flips_are_uniform() -> None:
    drawn = draw(81_000, PAPER, epoch=0)
    cells = torch.bincount(drawn["top"] * 9 + drawn["left"], minlength=81)
    assert len(cells) == 81
    assert (cells - 1000).abs().max() < 5 * 1000**0.5  # five standard deviations
    assert abs(int(drawn["flip"].sum()) - 40_500) < 5 * (81_000 / 4) ** 0.5


def test_draws_follow_seed_and_epoch_and_nothing_else() -> None:
    before = torch.get_rng_state()
    first, again = draw(ROWS, PAPER, epoch=1), draw(ROWS, PAPER, epoch=1)
    others = draw(ROWS, PAPER, epoch=2), draw(ROWS, dataclasses.replace(PAPER, seed=1), epoch=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), again.values(), strict=True))
    assert not any(torch.equal(first["order"], other["order"]) for other in others)
    # The next seed's epoch 1 is not this seed's epoch 2, as it would be with seed + epoch.
    assert not torch.equal(others[0]["order"], others[1]["order"])


def test_without_padding_and_flip_images_stay_as_they_are() -> None:
    config = dataclasses.replace(PAPER, crop_padding=0, flip="none")
    training, drawn = training_images(config), draw(ROWS, config, epoch=0)
    images, _ = training.batch(drawn, 0)
    assert np.array_equal(images.numpy(), IMAGES[drawn["order"][:128].numpy()])


def test_every_image_comes_once_and_a_single_last_one_joins_the_batch_before() -> None:
    for rows, sizes in ((257, [128, 129]), (258, [128, 128, 2]), (256, [128, 128]), (128, [128])):
        training, drawn = training_images(rows=rows), draw(rows, PAPER, epoch=0)
        labels = [training.batch(drawn, step)[1] for step in range(training.steps)]
        assert [len(part) for part in labels] == sizes
        assert torch.cat(labels).bincount().tolist() == np.bincount(LABELS[:rows]).tolist()
        assert [training.seen(step + 1) for step in range(len(sizes))] == np.cumsum(sizes).tolist()


def test_the_papers_steps() -> None:
    assert steps_per_epoch(50_000, 128) == 391
