"""Each damage on a small case that is computed by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import MEAN, STD
from pipeline.gap import corruptions
from pipeline.gap.corruptions import DAMAGES, Done, Images
from pipeline.store.cifar import unscrambled
from tests.support import images as smooth_images

NOISY = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def plain(*colours: tuple[float, float, float]) -> Images:
    """Images of one colour each."""
    return np.broadcast_to(np.array(colours, dtype=np.uint8)[:, None, None], (len(colours), 32, 32, 3)).copy()


def halves(left: int, right: int) -> Images:
    """One grey image, its left half of one value and its right half of another."""
    row = np.repeat(np.array([left, right], dtype=np.uint8), 16)
    return np.broadcast_to(row[None, None, :, None], (1, 32, 32, 3)).copy()


def pixel(images: Images) -> list[int]:
    """The first of the first image."""
    found: list[int] = images[0, 0, 0].tolist()
    return found


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_gives_images_changes_them_and_is_the_same_each_time(name: str) -> None:
    before = NOISY.copy()
    for strength in DAMAGES[name].strengths:
        done = Done(name, strength)(NOISY)
        assert done.dtype == np.uint8 and done.shape == NOISY.shape
        assert not np.array_equal(done, NOISY)
        assert np.array_equal(done, Done(name, strength)(NOISY))
    assert np.array_equal(NOISY, before)  # what is damaged is a copy


def test_strengths_ascend_so_that_neighbours_are_limits() -> None:
    assert all(list(damage.strengths) == sorted(set(damage.strengths)) for damage in DAMAGES.values())
    assert all(len(damage.strengths) > 1 for damage in DAMAGES.values() if damage.kind == "corruption")
    assert all(name == damage.name for name, damage in DAMAGES.items())


def test_undoing_gives_the_very_images_back() -> None:
    undoable = [damage for damage in DAMAGES.values() if damage.undo is not None]
    assert len(undoable) == 4 and all(damage.kind == "preprocessing" for damage in undoable)
    for damage in undoable:
        assert damage.undo is not None
        done = damage.do(NOISY, 0.0)
        assert not np.array_equal(done, NOISY)
        assert np.array_equal(damage.undo(done), NOISY)
        assert np.array_equal(damage.do(damage.undo(NOISY), 0.0), NOISY)


def test_swapping_exchanges_red_and_blue() -> None:
    assert pixel(corruptions.swapped_channels(plain((10, 20, 30)))) == [30, 20, 10]


def test_scrambling_is_the_reshape_mistake() -> None:
    image = (np.arange(3072) % 256).astype(np.uint8).reshape(1, 32, 32, 3)
    done = corruptions.scrambled(image)
    # The flat bytes 0, 1, 2, ... are taken for the red plane, then those from 1024 on for green, from 2048 for blue.
    flat = image.ravel()
    assert done[0, 0, 5].tolist() == [flat[5], flat[1024 + 5], flat[2048 + 5]]
    assert done[0, 7, 3].tolist() == [flat[7 * 32 + 3], flat[1024 + 7 * 32 + 3], flat[2048 + 7 * 32 + 3]]
    assert np.array_equal(done.transpose(0, 3, 1, 2).ravel(), flat)


def test_scrambling_reads_a_view_by_its_pixels_and_not_by_its_memory() -> None:
    view = np.asfortranarray(NOISY)
    assert np.array_equal(corruptions.scrambled(view), corruptions.scrambled(NOISY))
    assert np.array_equal(unscrambled(corruptions.scrambled(view)), NOISY)


def test_transposing_exchanges_height_and_width_and_keeps_colours() -> None:
    done = corruptions.transposed(NOISY)
    assert np.array_equal(done[2, 3, 9], NOISY[2, 9, 3])


def test_a_negative_has_what_is_missing_to_white() -> None:
    assert pixel(corruptions.inverted(plain((0, 100, 255)))) == [255, 155, 0]


def test_an_image_normalised_by_itself_has_mean_128_and_the_deviation_asked_for() -> None:
    # 100 and 140 are one deviation of 20 off their mean
    done = corruptions.standardised(np.concatenate([halves(100, 140), halves(10, 12)]), 40)
    assert (done[0, 0, 0, 0], done[0, 0, 31, 0]) == (88, 168)
    assert (done[1, 0, 0, 0], done[1, 0, 31, 0]) == (88, 168)
    assert pixel(corruptions.standardised(plain((7, 7, 7)), 40)) == [128, 128, 128]  # no division by 0


def test_values_normalised_by_the_set_are_deviations_of_its_channels() -> None:
    mean, deviation = 255 * np.array(MEAN), 255 * np.array(STD)
    image = plain((50, 120, 200))
    by_hand = np.rint(128 + 30 * (np.array([50, 120, 200]) - mean) / deviation).astype(int).tolist()
    assert pixel(corruptions.normalised(image, 30)) == by_hand
    assert pixel(corruptions.normalised(plain(tuple(np.rint(mean))), 1)) == [128, 128, 128]


def test_exposure_multiplies_and_clips() -> None:
    assert pixel(corruptions.exposed(plain((10, 101, 200)), 1.5)) == [15, 152, 255]  # 151.5 to the even 152
    assert pixel(corruptions.exposed(plain((10, 101, 200)), 0.2)) == [2, 20, 40]


def test_brightness_adds_and_clips() -> None:
    assert pixel(corruptions.brightened(plain((10, 101, 240)), 25)) == [35, 126, 255]
    assert pixel(corruptions.brightened(plain((10, 101, 240)), -25)) == [0, 76, 215]


def test_contrast_multiplies_distances_from_the_mean_of_each_channel() -> None:
    image = halves(100, 140)
    image[..., 2] += 60  # its mean is 180, that of the others 120
    done = corruptions.flattened(image, 0.5)
    assert done[0, 0, 0].tolist() == [110, 110, 170] and done[0, 0, 31].tolist() == [130, 130, 190]
    assert corruptions.flattened(image, 2.0)[0, 0, 31].tolist() == [160, 160, 220]


def test_fog_blends_with_light_grey() -> None:
    assert pixel(corruptions.faded(plain((20, 120, 220)), 0.25)) == [70, 145, 220]
    assert pixel(corruptions.faded(plain((20, 120, 220)), 1.0)) == [220, 220, 220]


def test_saturation_multiplies_distances_from_grey() -> None:
    assert pixel(corruptions.coloured(plain((90, 120, 150)), 0.5)) == [105, 120, 135]
    assert pixel(corruptions.coloured(plain((90, 120, 150)), 0.0)) == [120, 120, 120]
    assert pixel(corruptions.coloured(plain((90, 120, 150)), 2.0)) == [60, 120, 180]


def test_half_the_pixels_a_side_are_means_of_two_by_two() -> None:
    means = NOISY.reshape(5, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    by_hand = means.repeat(2, axis=1).repeat(2, axis=2)
    done = corruptions.pixelated(NOISY, 16)
    assert abs(done - by_hand).max() <= 0.5 + 1e-3  # rounding
    assert np.array_equal(done[:, ::2], done[:, 1::2]) and np.array_equal(done[:, :, ::2], done[:, :, 1::2])


def test_pixels_that_do_not_divide_the_side_share_what_they_cut() -> None:
    step = halves(0, 240)
    # Of 3 columns, each 32/3 wide, the middle one lies half in the dark; a pixel belongs to the one of its middle.
    assert corruptions.pixelated(step, 3)[0, 5, :, 1].tolist() == [0] * 11 + [120] * 10 + [240] * 11
    assert np.array_equal(corruptions.pixelated(NOISY, 32), NOISY)
    assert np.array_equal(corruptions.pixelated(plain((9, 99, 199)), 13), plain((9, 99, 199)))


def test_noise_is_as_strong_as_asked_for_and_of_mean_0() -> None:
    grey = plain(*[(128.0, 128.0, 128.0)] * 20)
    for sigma in (3.0, 16.0, 30.0):
        off = corruptions.noisy(grey, sigma).astype(float) - 128
        # 61,440 values: the deviation is known to 0.3 %, and rounding adds a twelfth to the variance
        assert off.std() == pytest.approx(np.sqrt(sigma**2 + 1 / 12), rel=0.015)
        assert off.mean() == pytest.approx(0, abs=0.02 * sigma)


def test_speckles_hit_the_share_asked_for_and_leave_the_rest() -> None:
    grey = plain(*[(128.0, 128.0, 128.0)] * 20)
    done = corruptions.speckled(grey, 0.15)
    hit = (done != 128).any(axis=3)
    assert hit.mean() == pytest.approx(0.15, abs=0.01)
    assert set(np.unique(done[hit]).tolist()) == {0, 255}
    assert (done[hit] == 255).mean() == pytest.approx(0.5, abs=0.03)


def test_blur_spreads_a_point_as_a_gaussian_and_mixes_no_colours_or_images() -> None:
    points = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    points[0, 16, 16, 1] = 255
    done = corruptions.blurred(points, 1.0)
    bell = np.exp(-(np.arange(-4, 5) ** 2) / 2)
    bell /= bell.sum()
    assert done[0, 12:21, 12:21, 1] == pytest.approx(255 * np.outer(bell, bell), abs=0.51)
    assert not done[0, ..., [0, 2]].any() and not done[1].any()


def test_jpeg_loses_the_more_the_lower_its_quality() -> None:
    natural = smooth_images(20)

    def loss(quality: float) -> float:
        return float(abs(corruptions.compressed(natural, quality).astype(float) - natural).mean())

    assert loss(5) > 2 * loss(40) > 0
    assert loss(95) < 2


def test_a_damage_says_its_strength_where_it_has_one() -> None:
    assert str(Done("blur", 0.51239)) == "blur (sigma 0.512)"
    assert str(Done("brightness", -25.0)) == "brightness (plus -25)"
    assert str(Done("values inverted")) == "values inverted"
    assert Done("values inverted").damage is DAMAGES["values inverted"]


def test_a_damage_is_done_in_its_strength() -> None:
    image: NDArray[np.uint8] = plain((10, 101, 200))
    assert pixel(Done("exposure", 0.2)(image)) == [2, 20, 40]
    assert pixel(Done("JPEG", 4.4)(image)) == pixel(Done("JPEG", 4.0)(image))  # qualities are whole numbers
