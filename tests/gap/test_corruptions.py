"""Each corruption on a small case that is computed by hand."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from pipeline.config import MEAN, STD
from pipeline.gap import corruptions
from pipeline.gap.corruptions import KINDS, Corruption, Images
from tests.gap.cases import plain
from tests.support import images as smooth_images

NOISY = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def halves(left: int, right: int) -> Images:
    """One grey image, its left half of one value and its right half of another."""
    row = np.repeat(np.array([left, right], dtype=np.uint8), 16)
    return np.broadcast_to(row[None, None, :, None], (1, 32, 32, 3)).copy()


@pytest.mark.parametrize("name", KINDS)
def test_a_corruption_changes_a_copy_in_the_same_way_each_time(name: str) -> None:
    before, strengths = NOISY.copy(), KINDS[name].strengths
    for strength in strengths:
        done = Corruption(name, strength)(NOISY)
        assert done.dtype == np.uint8 and done.shape == NOISY.shape
        assert not np.array_equal(done, NOISY)
        assert np.array_equal(done, Corruption(name, strength)(NOISY))
    assert np.array_equal(NOISY, before)
    assert list(strengths) == sorted(set(strengths))  # neighbours are limits of the search
    assert len(strengths) > 1 or KINDS[name].cause == "preprocessing"


def test_what_is_reverted_is_the_same_as_before() -> None:
    reverted = [(kind, kind.revert) for kind in KINDS.values() if kind.revert is not None]
    assert len(reverted) == 4 and all(kind.cause == "preprocessing" for kind, _ in reverted)
    for kind, revert in reverted:
        assert np.array_equal(revert(kind.apply(NOISY, 0.0)), NOISY)
        assert np.array_equal(kind.apply(revert(NOISY), 0.0), NOISY)


MEANS, DEVIATIONS = 255 * np.array(MEAN), 255 * np.array(STD)
IN_DEVIATIONS = np.rint(128 + 30 * (np.array([50, 120, 200]) - MEANS) / DEVIATIONS).astype(int).tolist()


@pytest.mark.parametrize(
    ("change", "colour", "changed"),
    [
        (Corruption("channels swapped, BGR for RGB"), (10, 20, 30), [30, 20, 10]),
        (Corruption("values inverted"), (0, 100, 255), [255, 155, 0]),
        (partial(corruptions.standardise, deviation=40), (7, 7, 7), [128, 128, 128]),  # no division by 0
        (partial(corruptions.normalise, deviation=30), (50, 120, 200), IN_DEVIATIONS),
        (Corruption("exposure", 1.5), (10, 101, 200), [15, 152, 255]),  # 151.5 to the even 152
        (Corruption("brightness", 25), (10, 101, 240), [35, 126, 255]),
        (partial(corruptions.fog, share=0.25), (20, 120, 220), [70, 145, 220]),
        (partial(corruptions.saturate, factor=0.5), (90, 120, 150), [105, 120, 135]),
    ],
)
def test_a_colour_is_changed_as_by_hand(
    change: Callable[[Images], Images], colour: tuple[float, float, float], changed: list[int]
) -> None:
    assert change(plain(colour))[0, 0, 0].tolist() == changed


def test_scrambling_is_the_reshape_mistake_whatever_the_memory_layout() -> None:
    image = (np.arange(3072) % 256).astype(np.uint8).reshape(1, 32, 32, 3)
    done = corruptions.scramble(image)
    # The flat bytes 0, 1, 2, ... are taken for the red plane, then those from 1024 on for green, from 2048 for blue.
    assert np.array_equal(done.transpose(0, 3, 1, 2).ravel(), image.ravel())
    assert np.array_equal(corruptions.scramble(np.asfortranarray(NOISY)), corruptions.scramble(NOISY))
    assert np.array_equal(Corruption("height and width exchanged")(NOISY)[2, 3, 9], NOISY[2, 9, 3])


def test_distances_from_an_images_mean_are_scaled() -> None:
    # 100 and 140 are one deviation of 20 off their mean
    done = corruptions.standardise(np.concatenate([halves(100, 140), halves(10, 12)]), 40)
    assert done[:, 0, 0, 0].tolist() == [88, 88] and done[:, 0, 31, 0].tolist() == [168, 168]
    image = halves(100, 140)
    image[..., 2] += 60  # its mean is 180, that of the others 120
    done = corruptions.change_contrast(image, 0.5)
    assert done[0, 0, 0].tolist() == [110, 110, 170] and done[0, 0, 31].tolist() == [130, 130, 190]


def test_half_the_pixels_a_side_are_means_of_two_by_two() -> None:
    means = NOISY.reshape(5, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    done = corruptions.pixelate(NOISY, 16)
    assert abs(done - means.repeat(2, axis=1).repeat(2, axis=2)).max() <= 0.5 + 1e-3  # rounding
    # Of 3 columns, each 32/3 wide, the middle one lies half in the dark; a pixel belongs to the one of its middle.
    assert corruptions.pixelate(halves(0, 240), 3)[0, 5, :, 1].tolist() == [0] * 11 + [120] * 10 + [240] * 11
    assert np.array_equal(corruptions.pixelate(NOISY, 32), NOISY)


GREY = plain(*[(128.0, 128.0, 128.0)] * 20)


def test_noise_is_as_strong_as_asked_for_and_of_mean_0() -> None:
    off = corruptions.add_noise(GREY, 16.0).astype(float) - 128
    # 61,440 values: the deviation is known to 0.3 %, and rounding adds a twelfth to the variance
    assert off.std() == pytest.approx(np.sqrt(16**2 + 1 / 12), rel=0.015)
    assert off.mean() == pytest.approx(0, abs=0.02 * 16)


def test_impulses_hit_the_share_asked_for_and_leave_the_rest() -> None:
    done = corruptions.add_impulses(GREY, 0.15)
    hit = (done != 128).any(axis=3)
    assert hit.mean() == pytest.approx(0.15, abs=0.01)
    assert set(np.unique(done[hit]).tolist()) == {0, 255}
    assert (done[hit] == 255).mean() == pytest.approx(0.5, abs=0.03)


def test_blur_spreads_a_point_as_a_gaussian_and_mixes_no_colours_or_images() -> None:
    points = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    points[0, 16, 16, 1] = 255
    done = corruptions.blur(points, 1.0)
    bell = np.exp(-(np.arange(-4, 5) ** 2) / 2)
    bell /= bell.sum()
    assert done[0, 12:21, 12:21, 1] == pytest.approx(255 * np.outer(bell, bell), abs=0.51)
    assert not done[0, ..., [0, 2]].any() and not done[1].any()


def test_jpeg_loses_the_more_the_lower_its_quality() -> None:
    natural = smooth_images(20)
    loss = [abs(corruptions.jpeg(natural, quality).astype(float) - natural).mean() for quality in (5, 40, 95)]
    assert loss[0] > 2 * loss[1] > 0 and loss[2] < 2
    assert np.array_equal(corruptions.jpeg(natural, 4.4), corruptions.jpeg(natural, 4.0))  # of whole numbers
