"""Statistics of images so simple that they can be computed by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.gap import corruption_fit
from pipeline.gap.corruption_fit import NAMES, QUALITY, measure
from pipeline.gap.corruptions import Images


def statistic(name: str, images: Images) -> NDArray[np.float64]:
    return measure(images)[:, NAMES.index(name)]


def grey(pattern: NDArray[np.integer]) -> Images:
    """One grey image of a pattern that spreads over 32 x 32."""
    return np.broadcast_to(pattern.astype(np.uint8)[..., None], (1, 32, 32, 3)).copy()


PIXEL = np.arange(32)
RAMP = grey(np.broadcast_to(4 * PIXEL, (32, 32)))  # each pixel 4 lighter than its left neighbour
FLAT = grey(np.full((32, 32), 90))


def test_each_image_has_a_number_for_each_name() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    found = measure(noise)
    assert found.shape == (7, len(NAMES)) == (7, 16) and found.dtype == np.float64
    assert len(set(NAMES)) == len(NAMES) and set(QUALITY) < set(NAMES)
    np.testing.assert_allclose(found[3:4], measure(noise[3:4]), rtol=1e-5, atol=1e-6)  # the batch counts nothing


def test_nothing_is_undefined_of_images_without_any_contrast() -> None:
    flat = np.concatenate([FLAT, np.zeros_like(FLAT), np.full_like(FLAT, 255)])
    assert np.isfinite(measure(flat)).all()
    assert measure(flat)[0, 3:] == pytest.approx(0, abs=1e-4)


def test_means_are_of_the_channels() -> None:
    image = FLAT.copy()
    image[..., 0], image[..., 2] = 200, 30
    image[:, :16, :, 1] = 100  # half of it, the other half being 90
    assert statistic("red", image) == 200 and statistic("green", image) == 95 and statistic("blue", image) == 30
    assert statistic("red - blue", image) == 170


def test_contrast_and_range_are_of_the_light() -> None:
    halves = grey(np.broadcast_to(np.where(PIXEL < 16, 60, 100), (32, 32)))
    assert statistic("contrast", halves) == pytest.approx(20, rel=1e-5)
    assert statistic("range", halves) == pytest.approx(40, rel=1e-5)
    lone = FLAT.copy()
    lone[0, 5, 5] = 255  # one pixel of 1,024 lies beyond both quantiles
    assert statistic("range", lone) == 0


def test_colourfulness_is_how_much_the_opponent_colours_vary() -> None:
    assert statistic("colourfulness", RAMP) == 0
    image = FLAT.copy()
    image[:, :, :16, 0] += 40  # red - green varies by 40 between the halves, yellow - blue by 20
    assert statistic("colourfulness", image) == pytest.approx(20 + 10, rel=1e-5)


def test_saturated_is_the_share_of_values_at_either_end() -> None:
    image = FLAT.copy()
    image[0, 0] = 0  # 96 of 3,072
    image[0, 1, :, 2] = 255  # 32 more
    assert statistic("saturated", image) == pytest.approx(128 / 3072)


def test_edges_are_the_mean_step_across_and_down() -> None:
    assert statistic("edges", RAMP) == pytest.approx(np.log1p((4 + 0) / 2))


def test_noise_is_neither_a_slope_nor_an_edge() -> None:
    assert statistic("noise", RAMP) == pytest.approx(0, abs=1e-4)
    assert statistic("noise", grey(np.broadcast_to(np.where(PIXEL < 16, 60, 100), (32, 32)))) == pytest.approx(0)
    point = FLAT.copy()
    point[0, 10, 10] += 30
    # The mask (1, -2, 1) in both directions answers 30 times 1, 2, 1, 2, 4, 2, 1, 2, 1 around it, of 30 x 30 places.
    assert statistic("noise", point) == pytest.approx(np.log1p(30 * 16 / 900), rel=1e-5)


def test_roughness_is_noise_in_proportion_to_edges() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    noise, edges = (np.expm1(statistic(name, image)) for name in ("noise", "edges"))
    assert statistic("roughness", image) == pytest.approx(np.log((noise + 1) / (edges + 1)))
    assert statistic("roughness", RAMP) == pytest.approx(np.log(1 / 3), abs=1e-4)


def test_steps_on_the_borders_of_blocks_count_against_those_elsewhere() -> None:
    def stairs(size: int) -> Images:
        return grey(np.broadcast_to(PIXEL // size * 10, (32, 32)))

    # Of 31 borders across, those behind the pixels 8, 16 and 24 have a step of 10; down there is none.
    assert statistic("blocks of 8", stairs(8)) == pytest.approx(np.log(11))
    assert statistic("blocks of 8", grey(np.broadcast_to(PIXEL[:, None] // 8 * 10, (32, 32)))) == pytest.approx(
        np.log(11)
    )
    # 15 of the borders lie behind each second pixel, 3 of these have the step
    assert statistic("blocks of 2", stairs(8)) == pytest.approx(np.log(3))
    assert statistic("blocks of 2", stairs(2)) == pytest.approx(np.log(11))
    assert statistic("blocks of 8", RAMP) == pytest.approx(0, abs=1e-5)


def test_impulses_are_values_far_from_their_four_neighbours() -> None:
    image = FLAT.copy()
    image[0, 10, 10] = 160  # 70 off; its neighbours are 17.5 off theirs
    assert statistic("impulses", image) == pytest.approx(3 / 3072)
    image[0, 10, 10] = 149  # 59 off
    assert statistic("impulses", image) == 0
    corner = FLAT.copy()
    corner[0, 0, 0] = 220  # two of its four neighbours are itself: 130 / 2 off
    assert statistic("impulses", corner) == pytest.approx(3 / 3072)
    corner[0, 0, 0] = 205
    assert statistic("impulses", corner) == 0


def test_a_symmetrical_image_has_sides_alike() -> None:
    mirror = grey(np.broadcast_to(abs(PIXEL - 15.5).astype(int) * 8, (32, 32)))
    deviation = statistic("contrast", mirror)
    assert statistic("sides alike", mirror) == pytest.approx(np.log(1 / (deviation + 1)), rel=1e-4)
    # A ramp's opposite pixels differ by 4 x 31, 4 x 29, ... 4 x 1: on average by 64
    deviation = statistic("contrast", RAMP)
    assert statistic("sides alike", RAMP) == pytest.approx(np.log(65 / (deviation + 1)), rel=1e-4)


def test_rows_against_columns_changes_its_sign_with_the_axes() -> None:
    assert statistic("rows against columns", RAMP) == pytest.approx(np.log(5), rel=1e-5)
    noise = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    for images in (RAMP, noise):
        turned = images.transpose(0, 2, 1, 3)
        np.testing.assert_allclose(
            statistic("rows against columns", turned), -statistic("rows against columns", images), rtol=1e-4, atol=1e-6
        )
        for name in set(NAMES) - {"rows against columns", "sides alike"}:
            np.testing.assert_allclose(statistic(name, turned), statistic(name, images), rtol=1e-4, atol=1e-4)


def test_wrapping_does_not_happen() -> None:
    """Differences of bytes would: 0 - 255 is 1."""
    edge = grey(np.broadcast_to(np.where(PIXEL < 16, 255, 0), (32, 32)))
    assert statistic("edges", edge) == pytest.approx(np.log1p(255 / 31 / 2), rel=1e-5)
    assert corruption_fit.measure(edge)[0, NAMES.index("red - blue")] == 0
