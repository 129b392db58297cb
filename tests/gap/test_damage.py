"""Damages that were done are found, on smooth random fields whose statistics are like those of photographs."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pipeline.gap import corruption_fit, corruptions
from pipeline.gap.corruption_fit import Found, find
from pipeline.gap.corruptions import DAMAGES, Done, Images
from pipeline.store.cifar import unscrambled

BGR, SCRAMBLED, INVERTED = "channels swapped, BGR for RGB", "pixels scrambled, HWC read as CHW", "values inverted"


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


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let no other damages be known: each takes its time."""
    monkeypatch.setattr(corruption_fit, "DAMAGES", {name: DAMAGES[name] for name in names})


def test_samples_of_one_kind_do_not_differ(labelled: Images, hidden: Images) -> None:
    found = find(labelled, hidden)
    assert not found.noticeable and not found.spoilt
    assert found.damages == () and found.undoes is None
    assert found.left == found.distance < found.limit
    assert np.array_equal(found.does(hidden), hidden)


def test_the_same_images_have_no_distance(labelled: Images) -> None:
    assert find(labelled, labelled).distance == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("done", "spoilt"),
    [
        (Done(BGR), False),  # pixels are as good as before, only of other colours
        (Done(SCRAMBLED), True),
        (Done("gaussian noise", 12.0), True),
        (Done("blur", 1.0), True),
    ],
    ids=str,
)
def test_a_damage_is_named_with_its_strength(done: Done, spoilt: bool, labelled: Images, hidden: Images) -> None:
    damaged = done(hidden)
    found = find(labelled, damaged)
    (named,) = found.damages
    assert named.name == done.name and named.strength == pytest.approx(done.strength, rel=0.3)
    assert found.noticeable and found.spoilt is spoilt
    assert found.left < found.limit < found.distance
    assert np.array_equal(found.does(labelled), named(labelled))
    if done.damage.undo is None:
        assert found.undoes is None
    else:
        assert found.undoes is not None and np.array_equal(found.undoes(damaged), hidden)


def test_two_damages_are_named_in_the_order_of_their_doing(
    monkeypatch: pytest.MonkeyPatch, labelled: Images, hidden: Images
) -> None:
    """Noise that came before the loss of contrast would be fainter."""
    only(monkeypatch, BGR, "contrast", "gaussian noise", "exposure")
    monkeypatch.setattr(corruption_fit, "REFINED", 5)
    found = find(labelled[:75], corruptions.noisy(corruptions.flattened(hidden, 0.35), 14.0))
    assert [done.name for done in found.damages] == ["contrast", "gaussian noise"]
    assert found.damages[1].strength == pytest.approx(14, rel=0.3)
    assert found.undoes is None
    assert np.array_equal(found.does(hidden), found.damages[1](found.damages[0](hidden)))


def test_what_no_known_damage_explains_gets_no_name(
    monkeypatch: pytest.MonkeyPatch, labelled: Images, hidden: Images
) -> None:
    only(monkeypatch, BGR, INVERTED, "brightness")
    found = find(labelled[:75], corruptions.noisy(hidden, 20.0))
    assert found.strange and found.spoilt
    assert found.damages == () and found.undoes is None and found.left == found.distance
    assert {"noise", "roughness"} & {name for name, _ in found.outstanding}
    deviations = [abs(by) for _, by in found.outstanding]
    assert len(deviations) == 3 and deviations == sorted(deviations, reverse=True)
    assert dict(found.outstanding).get("roughness", 9.0) > 0


def test_images_are_spoilt_only_from_a_distance_on(
    monkeypatch: pytest.MonkeyPatch, labelled: Images, hidden: Images
) -> None:
    only(monkeypatch, BGR, "blur")
    monkeypatch.setattr(corruption_fit, "REFINED", 2)
    labelled, noisy = labelled[:75], corruptions.noisy(hidden, 12.0)
    found = find(labelled, noisy)
    for times, spoilt in ((found.distance / found.limit - 0.01, True), (found.distance / found.limit + 0.01, False)):
        monkeypatch.setattr(corruption_fit, "STRANGE", times)
        assert find(labelled, noisy).spoilt is spoilt


def test_other_content_is_not_spoilt(monkeypatch: pytest.MonkeyPatch, labelled: Images, hidden: Images) -> None:
    """A sky in every image, as it were: strange, but as sharp and as free of noise as ever."""
    only(monkeypatch, BGR, "blur")
    bluish = hidden.copy()
    bluish[..., 2] = np.clip(bluish[..., 2].astype(int) + 60, 0, 255)
    bluish[..., 1] = np.clip(bluish[..., 1].astype(int) - 60, 0, 255)
    found = find(labelled[:75], bluish)
    assert found.strange and found.damages == () and not found.spoilt
    signs = {name: by > 0 for name, by in found.outstanding}
    assert signs.items() <= {"green": False, "blue": True, "red - blue": False, "saturated": True}.items()


def test_only_what_was_done_alone_is_undone() -> None:
    def of(*damages: Done) -> Found:
        return Found(3.0, damages, 0.3, (), False)

    assert of(Done(BGR)).undoes is corruptions.swapped_channels
    assert of(Done(SCRAMBLED)).undoes is unscrambled
    assert of(Done(BGR), Done("blur", 1.0)).undoes is None
    assert of(Done("blur", 1.0)).undoes is None
    assert of().undoes is None


def test_small_samples_differ_by_chance(labelled: Images, hidden: Images) -> None:
    """Twice the root of 16 statistics times 1/30 + 1/25, where each has a variance of 1."""
    found = find(labelled[:30], hidden[:25])
    assert found.limit == pytest.approx(2 * (16 * (1 / 30 + 1 / 25)) ** 0.5)
    assert found.distance > corruption_fit.NOTICEABLE and not found.noticeable and found.damages == ()


def test_fewer_images_than_the_sample_are_taken_as_they_are(labelled: Images) -> None:
    found = find(labelled[:3], labelled[:1])
    assert np.isfinite([found.distance, found.left]).all()
