import numpy as np
import pytest

from pipeline.store import cifar
from tests.support import images

N = 64


def test_hwc_is_believed_and_left_alone() -> None:
    pixels = images(N)
    found = cifar.detect(pixels)
    assert (found.name, found.expected) == ("HWC", True)
    assert cifar.read(pixels, found) is pixels


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        (lambda x: x.transpose(0, 3, 1, 2).reshape(N, 3072), "flat CHW"),
        (lambda x: x.reshape(N, 3072), "flat HWC"),
        (lambda x: x.transpose(0, 3, 1, 2), "CHW"),
        (lambda x: x.reshape(N, 3, 32, 32), "HWC data in a CHW shape"),
        (
            lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(N, 32, 32, 3),
            "CHW data in an HWC shape",
        ),
        (
            lambda x: x.reshape(N, 3, 32, 32).transpose(0, 2, 3, 1),
            "HWC data that was reshaped to CHW and transposed",
        ),
    ],
)
def test_every_way_to_store_images_is_found_and_undone(stored, name: str) -> None:  # type: ignore[no-untyped-def]
    pixels = images(N)
    scrambled = np.ascontiguousarray(stored(pixels))
    found = cifar.detect(scrambled)
    assert found.name == name
    assert np.array_equal(cifar.read(scrambled, found), pixels)


def test_noise_does_not_overrule_the_shape() -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(N, 32, 32, 3)).astype(np.uint8)
    assert cifar.detect(noise).expected


def test_channel_order() -> None:
    reference, other = images(500), images(500, seed=1)
    grey = np.repeat(other[..., :1], 3, axis=3)
    assert cifar.channel_order(other, reference) == "RGB"
    assert cifar.channel_order(other[..., ::-1], reference) == "BGR"
    assert cifar.channel_order(grey, reference) == "unclear"


@pytest.mark.parametrize("count", [1, cifar.FEW - 1])
def test_few_images_have_no_clear_channel_order(count: int) -> None:
    assert cifar.channel_order(images(count), images(500)) == "unclear"
    assert cifar.channel_order(images(500), images(count)) == "unclear"
