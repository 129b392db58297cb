import numpy as np
import pytest

from pipeline.gap import shift
from pipeline.gap.corruptions import Images, brightened, flattened
from pipeline.gap.shift import ALIKE, nearest, thumbnails

RNG = np.random.default_rng(0)


def blocks(count: int) -> Images:
    """Images of 8 x 8 squares of random colours, none lighter or darker than what may be changed without clipping."""
    colours = RNG.integers(60, 190, (count, 8, 8, 3)).astype(np.uint8)
    result: Images = colours.repeat(4, axis=1).repeat(4, axis=2)
    return result


TRAINING = blocks(50)


def test_a_thumbnail_is_of_means_of_mean_0_and_length_1() -> None:
    noise = RNG.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    found = thumbnails(noise)
    assert found.shape == (3, 192) and found.dtype == np.float32
    assert found.mean(axis=1) == pytest.approx(0, abs=1e-6) and (found**2).sum(axis=1) == pytest.approx(1, abs=1e-5)
    means = np.array(
        [[[noise[1, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4, c].mean() for c in range(3)] for x in range(8)]
         for y in range(8)]
    ).ravel()  # fmt: skip
    assert np.corrcoef(found[1], means)[0, 1] == pytest.approx(1, abs=1e-5)


def test_copies_are_found_in_whatever_brightness_and_contrast() -> None:
    copies = np.concatenate([TRAINING[7:8], brightened(TRAINING[31:32], 40), flattened(TRAINING[18:19], 0.5)])
    flatter = (0.5 * TRAINING[44:45] + 20).astype(np.uint8)
    found = nearest(np.concatenate([copies, flatter]), TRAINING)
    assert found.rows.tolist() == [7, 31, 18, 44]
    # Contrast is changed around each channel's mean, so the third is of slightly other colours
    assert found.correlations[[0, 1, 3]] == pytest.approx(1, abs=1e-3) and found.correlations[2] > 0.98
    assert found.alike.all()


def test_what_is_not_there_is_like_nothing() -> None:
    found = nearest(np.concatenate([blocks(4), 255 - TRAINING[:1]]), TRAINING)
    assert not found.alike.any() and (found.correlations < 0.5).all()


def test_the_correlation_is_that_of_the_thumbnails() -> None:
    one, other = blocks(2)
    by_hand = np.corrcoef(one[::4, ::4].ravel(), other[::4, ::4].ravel())[0, 1]
    assert nearest(one[None], other[None]).correlations == pytest.approx(by_hand, abs=1e-5)


def test_alike_begins_above_its_limit() -> None:
    one, other = (values.astype(np.float32).ravel() for values in blocks(2)[:, ::4, ::4])
    one, other = one - one.mean(), other - other.mean()
    other -= (other @ one) / (one @ one) * one  # unlike altogether
    other *= np.linalg.norm(one) / np.linalg.norm(other)
    for correlation, alike in ((ALIKE + 0.01, True), (ALIKE - 0.01, False)):
        mixed = 128 + 0.9 * (correlation * one + np.sqrt(1 - correlation**2) * other)
        image = np.clip(mixed, 0, 255).astype(np.uint8).reshape(1, 8, 8, 3).repeat(4, axis=1).repeat(4, axis=2)
        origin = (128 + 0.9 * one).astype(np.uint8).reshape(1, 8, 8, 3).repeat(4, axis=1).repeat(4, axis=2)
        found = nearest(image, origin)
        assert found.correlations == pytest.approx(correlation, abs=0.003) and found.alike.tolist() == [alike]


@pytest.mark.parametrize("part", [1, 7, 20, 50])
def test_training_images_in_parts_are_all_compared(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    images = np.concatenate([TRAINING[[0, 6, 7, 49]], blocks(5)])
    whole = nearest(images, TRAINING)
    assert whole.rows[:4].tolist() == [0, 6, 7, 49]
    monkeypatch.setattr(shift, "PART", part)
    found = nearest(images, TRAINING)
    assert np.array_equal(found.rows, whole.rows)
    np.testing.assert_allclose(found.correlations, whole.correlations, atol=1e-6)


def test_an_image_of_one_colour_is_like_nothing() -> None:
    found = nearest(np.full((1, 32, 32, 3), 77, dtype=np.uint8), TRAINING)
    assert found.correlations == pytest.approx(0, abs=1e-4) and not found.alike.any()
