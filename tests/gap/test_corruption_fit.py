"""Corruptions that were applied are found, on smooth random fields whose statistics are like those of photographs.

And each statistic, on images so simple that it can be computed by hand.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pipeline.gap import corruption_fit, corruptions
from pipeline.gap.corruption_fit import NAMES, NOTICEABLE, QUALITY, fit, statistics
from pipeline.gap.corruptions import KINDS, Corruption, Images
from tests.gap.cases import BGR, SCRAMBLED


def natural(count: int, seed: int) -> Images:
    """Coloured fields of several scales, the large ones strongest, in varying contrast; redder than blue."""
    generator = np.random.default_rng(seed)
    fields: NDArray[np.floating] = np.zeros((count, 32, 32, 3))
    for sigma, share in ((8, 1.0), (3, 0.7), (1.2, 0.35), (0.6, 0.12)):
        light, colour = (generator.normal(size=(count, 32, 32, channels)) for channels in (1, 3))
        field = gaussian_filter(light, (0, sigma, sigma, 0)) + 0.3 * gaussian_filter(colour, (0, sigma, sigma, 0))
        fields += share * field / field.std()
    contrast = generator.uniform(20, 60, (count, 1, 1, 1))
    base = generator.normal(120, 30, (count, 1, 1, 1)) + generator.normal((12, 0, -12), 12, (count, 1, 1, 3))
    result: Images = np.clip(np.rint(base + contrast * fields), 0, 255).astype(np.uint8)
    return result


@pytest.fixture(scope="module")
def labelled() -> Images:
    return natural(110, 0)


@pytest.fixture(scope="module")
def hidden() -> Images:
    """Others of the same kind."""
    return natural(600, 1)


def only(monkeypatch: pytest.MonkeyPatch, *names: str, refined: int = 2) -> None:
    """Let no other corruptions be known: each takes its time."""
    monkeypatch.setattr(corruption_fit, "KINDS", {name: KINDS[name] for name in names})
    monkeypatch.setattr(corruption_fit, "REFINED", refined)


def test_samples_of_one_kind_do_not_differ(labelled: Images, hidden: Images) -> None:
    found = fit(labelled, hidden)
    assert found.left == found.distance < found.limit and not found.degraded
    assert found.corruptions == () and found.revert is None
    assert np.array_equal(found.apply(hidden), hidden)
    assert fit(labelled, labelled).distance == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("done", "degraded"),
    [
        (Corruption(BGR), False),  # pixels are as good as before, only of other colours
        (Corruption(SCRAMBLED), True),
        (Corruption("gaussian noise", 12.0), True),
    ],
    ids=str,
)
def test_a_corruption_is_named_with_its_strength(
    done: Corruption, degraded: bool, labelled: Images, hidden: Images
) -> None:
    corrupted = done(hidden)
    found = fit(labelled, corrupted)
    (named,) = found.corruptions
    assert named.name == done.name and named.strength == pytest.approx(done.strength, rel=0.3)
    assert found.left < found.limit < found.distance and found.degraded is degraded
    assert np.array_equal(found.apply(labelled), named(labelled))
    assert (found.revert is None) == (done.kind.revert is None)
    assert found.revert is None or np.array_equal(found.revert(corrupted), hidden)


def test_two_corruptions_are_named_in_the_order_of_their_application(
    monkeypatch: pytest.MonkeyPatch, labelled: Images, hidden: Images
) -> None:
    """Noise that came before the loss of contrast would be fainter."""
    only(monkeypatch, BGR, "contrast", "gaussian noise", "exposure", refined=5)
    found = fit(labelled[:75], corruptions.add_noise(corruptions.change_contrast(hidden, 0.35), 14.0))
    assert [done.name for done in found.corruptions] == ["contrast", "gaussian noise"]
    assert found.corruptions[1].strength == pytest.approx(14, rel=0.3) and found.revert is None
    assert np.array_equal(found.apply(hidden), found.corruptions[1](found.corruptions[0](hidden)))


def test_a_mixture_is_found_with_its_shares_and_made_again(monkeypatch: pytest.MonkeyPatch, hidden: Images) -> None:
    """Each image has a corruption of its own, and a quarter has none."""
    only(monkeypatch, BGR, "blur", "gaussian noise", "exposure")
    hidden = hidden[:300]
    own = np.arange(len(hidden)) % 4
    mixed = hidden.copy()
    mixed[own == 1] = corruptions.blur(hidden[own == 1], 0.9)
    mixed[own > 1] = corruptions.add_noise(hidden[own > 1], 12.0)
    reference = natural(300, 2)
    found = fit(reference, mixed)
    kinds = corruption_fit.by_kind(found.corruptions, found.shares)
    assert kinds == pytest.approx({"blur": 0.25, "gaussian noise": 0.5, "exposure": 0}, abs=0.1)
    assert found.unexplained < 0.1 and found.revert is None and found.left < 0.5 * found.distance
    again = found.apply(hidden)
    changed = (again != hidden).any(axis=(1, 2, 3))
    assert changed.mean() == pytest.approx(0.75, abs=0.1) and not np.array_equal(again, mixed)
    # All with the same two are no mixture
    both = fit(reference[:200], corruptions.add_noise(corruptions.change_contrast(hidden, 0.35), 14.0))
    assert not both.shares


def test_what_no_known_corruption_explains_gets_no_name(
    monkeypatch: pytest.MonkeyPatch, labelled: Images, hidden: Images
) -> None:
    only(monkeypatch, BGR, "values inverted", "brightness")
    noisy = corruptions.add_noise(hidden, 20.0)
    found = fit(labelled[:75], noisy)
    assert found.far and found.degraded
    assert found.corruptions == () and found.revert is None and found.left == found.distance
    deviations = [abs(by) for _, by in found.outstanding]
    assert len(deviations) == 3 and deviations == sorted(deviations, reverse=True)
    assert {"noise", "roughness"} & {name for name, _ in found.outstanding}
    # Images count as degraded only from a distance on
    for times, degraded in ((found.distance / found.limit - 0.01, True), (found.distance / found.limit + 0.01, False)):
        monkeypatch.setattr(corruption_fit, "FAR", times)
        assert fit(labelled[:75], noisy).degraded is degraded


def test_a_mistake_that_explains_too_little_has_no_name(
    monkeypatch: pytest.MonkeyPatch, labelled: Images, hidden: Images
) -> None:
    """Bluer images: the more, the nearer they come to swapped channels; naming those would revert good images."""
    only(monkeypatch, BGR)
    for shift, named in ((14, False), (16, True)):
        bluer = np.clip(np.add(hidden.astype(int), (-shift, 0, shift)), 0, 255).astype(np.uint8)
        found = fit(labelled, bluer)
        assert found.distance < 1.4 and bool(found.corruptions) == named


def test_other_content_is_not_degraded(monkeypatch: pytest.MonkeyPatch, labelled: Images, hidden: Images) -> None:
    """A sky in every image, as it were: far off, but as sharp and as free of noise as ever."""
    only(monkeypatch, BGR, "blur")
    bluish = hidden.copy()
    bluish[..., 2] = np.clip(bluish[..., 2].astype(int) + 60, 0, 255)
    bluish[..., 1] = np.clip(bluish[..., 1].astype(int) - 60, 0, 255)
    found = fit(labelled[:75], bluish)
    assert found.far and found.corruptions == () and not found.degraded
    signs = {name: by > 0 for name, by in found.outstanding}
    assert signs.items() <= {"green": False, "blue": True, "red - blue": False, "saturated": True}.items()


def test_small_samples_differ_by_chance(labelled: Images, hidden: Images) -> None:
    """Twice the root of 16 statistics times 1/30 + 1/25, where each has a variance of 1."""
    found = fit(labelled[:30], hidden[:25])
    assert found.limit == pytest.approx(2 * (16 * (1 / 30 + 1 / 25)) ** 0.5)
    assert NOTICEABLE < found.distance < found.limit and found.corruptions == ()
    assert np.isfinite(fit(labelled[:3], labelled[:1]).left)


# --- the statistics

PIXEL = np.arange(32)


def grey(pattern: NDArray[np.integer]) -> Images:
    """One grey image of a pattern that spreads over 32 x 32."""
    spread = np.broadcast_to(pattern, (32, 32)).astype(np.uint8)
    return np.broadcast_to(spread[..., None], (1, 32, 32, 3)).copy()


def flat(*changes: tuple[Any, int]) -> Images:
    """A grey image of 90, some of whose values are others."""
    image = grey(np.full((32, 32), 90))
    for where, value in changes:
        image[where] = value
    return image


RAMP = grey(4 * PIXEL)  # each pixel 4 lighter than its left neighbour
HALVES = grey(np.where(PIXEL < 16, 60, 100))
MIRROR = grey(abs(PIXEL - 15.5).astype(int) * 8)
EDGE = grey(np.where(PIXEL < 16, 255, 0))
TINTED = flat((np.s_[..., 0], 200), (np.s_[..., 2], 30), (np.s_[:, :16, :, 1], 100))
STAIRS = {size: grey(PIXEL // size * 10) for size in (2, 8)}


@pytest.mark.parametrize(
    ("image", "values"),
    [
        (TINTED, {"red": 200, "green": 95, "blue": 30, "red - blue": 170}),
        (HALVES, {"contrast": 20, "range": 40, "noise": 0}),
        (flat((np.s_[0, 5, 5], 255)), {"range": 0}),  # one pixel of 1,024 lies beyond both quantiles
        # red - green varies by 40 between the halves, yellow - blue by 20
        (flat((np.s_[:, :, :16, 0], 130)), {"colourfulness": 20 + 10}),
        (flat((np.s_[0, 0], 0), (np.s_[0, 1, :, 2], 255)), {"saturated": (96 + 32) / 3072}),
        (EDGE, {"edges": np.log1p(255 / 31 / 2)}),  # differences of bytes would wrap: 0 - 255 is 1
        # The mean step across and down; no noise, and that in proportion.  Opposite pixels differ by 4 x 31, 4 x 29 ...
        # 4 x 1: on average by 64, where the deviation is 4 x 9.233
        (RAMP, {"edges": np.log1p((4 + 0) / 2), "noise": 0, "roughness": np.log(1 / 3),
                "sides alike": np.log(65 / (4 * 9.2331 + 1)), "rows against columns": np.log(5)}),
        # The mask (1, -2, 1) in both directions answers 30 times 1, 2, 1, 2, 4, 2, 1, 2, 1 in 30 x 30 places
        (flat((np.s_[0, 10, 10], 120)), {"noise": np.log1p(30 * 16 / 900)}),
        # Of 31 borders across, those behind the pixels 8, 16 and 24 have a step of 10; down there is none.  15 of the
        # borders lie behind each second pixel
        (STAIRS[8], {"blocks of 8": np.log(11), "blocks of 2": np.log(3)}),
        (STAIRS[2], {"blocks of 2": np.log(11)}),
        (flat((np.s_[0, 10, 10], 160)), {"impulses": 3 / 3072}),  # 70 off; its neighbours are 17.5 off theirs
        (flat((np.s_[0, 10, 10], 149)), {"impulses": 0}),  # 59 off
        (flat((np.s_[0, 0, 0], 220)), {"impulses": 3 / 3072}),  # two of its neighbours are itself: 130 / 2 off
        (MIRROR, {"sides alike": np.log(1 / (8 * 4.6098 + 1))}),
    ],
)  # fmt: skip
def test_a_statistic_is_as_by_hand(image: Images, values: dict[str, float]) -> None:
    found = dict(zip(NAMES, statistics(image)[0].tolist(), strict=True))
    assert {name: found[name] for name in values} == pytest.approx(values, rel=1e-4, abs=1e-4)


def test_each_image_has_a_number_for_each_name_whatever_its_neighbours_and_contrast() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    found = statistics(noise)
    assert found.shape == (9, len(set(NAMES))) == (9, 16) and found.dtype == np.float64 and set(QUALITY) < set(NAMES)
    np.testing.assert_allclose(found[3:4], statistics(noise[3:4]), rtol=1e-5, atol=1e-6)
    without_contrast = np.concatenate([flat(), np.zeros_like(flat()), np.full_like(flat(), 255)])
    assert np.isfinite(statistics(without_contrast)).all()
    assert statistics(without_contrast)[0, 3:] == pytest.approx(0, abs=1e-4)
