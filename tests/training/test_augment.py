"""The augmentations against plain loops over the images."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from pipeline.config import IMAGE_SIZE, MEAN
from pipeline.recipes import PRESETS
from pipeline.training import augment

ROWS = 64
MIXING: list[dict[str, object]] = [{"mixup": 0.4}, {"cutmix": 1.0}]
ALL: list[dict[str, object]] = [{"cutout": 8}, *MIXING]
LABELS = torch.randint(10, (ROWS,), generator=torch.Generator().manual_seed(0))


def photographs(rows: int) -> Tensor:
    """uint8 (rows, 32, 32, 3): smooth shapes under noise, and four images at the edges of what a table can be."""
    generator = torch.Generator().manual_seed(0)
    shapes = interpolate(torch.rand(rows, 3, 6, 6, generator=generator), IMAGE_SIZE, mode="bicubic")
    noise = torch.randn(shapes.shape, generator=generator)
    images = (255 * shapes + 8 * noise).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    images[0] = 7  # one level
    images[1] = images[1] // 16 + 90  # a few levels
    images[2] = images[2, ..., :1]  # grey
    images[3] = images[3] // 128 * 255  # two levels, black and white
    return images


IMAGES = photographs(ROWS)


def draws(change: dict[str, object], rows: int = ROWS, seed: int = 1) -> dict[str, Tensor]:
    config = dataclasses.replace(PRESETS["paper"], **change)  # type: ignore[arg-type]
    return augment.draw(rows, config, torch.Generator().manual_seed(seed))


# --- all of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ALL, ids=str)
def test_draws_follow_the_generator_and_each_image_has_its_own(change: dict[str, object]) -> None:
    before = torch.get_rng_state()
    first, again, other = (draws(change, 300, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(len(values) == 300 for values in first.values())
    assert all(torch.equal(first[key], again[key]) and not torch.equal(first[key], other[key]) for key in first)
    images = torch.cat([IMAGES[5:6], IMAGES[6:7]]).repeat(ROWS // 2, 1, 1, 1)
    result, _ = augment.apply(images, LABELS, draws(change))
    assert len({image.numpy().tobytes() for image in result}) > ROWS // 3  # rectangles are often the same, or outside
    assert torch.equal(images[::2], IMAGES[5:6].expand(ROWS // 2, -1, -1, -1))  # what goes in is unchanged
    assert result.shape == images.shape and result.dtype == (torch.float32 if "mixup" in change else torch.uint8)


@pytest.mark.parametrize("change", ALL, ids=str)
def test_nothing_is_read_back_from_the_device_nor_made_elsewhere(change: dict[str, object]) -> None:
    # Tensors on "meta" have shapes but no values: .item(), nonzero and masks as indices fail there.
    drawn = draws(change)
    on_meta = {key: values.to("meta") for key, values in drawn.items()}
    result, _ = augment.apply(IMAGES.to("meta"), LABELS.to("meta"), on_meta)
    assert result.shape == IMAGES.shape and result.device.type == "meta"
    expected, _ = augment.apply(IMAGES, LABELS, drawn)
    with torch.device("meta"):  # where a tensor made without a device now goes, and does not mix with the CPU's
        result, _ = augment.apply(IMAGES, LABELS, drawn)
    assert torch.equal(result, expected)


# --- Cutout, Mixup and CutMix -----------------------------------------------------------------------------


def test_cutout_paints_one_grey_square_whose_centre_is_anywhere() -> None:
    white = torch.full((ROWS, 32, 32, 3), 255, dtype=torch.uint8)
    drawn = draws({"cutout": 8})
    images, labels = augment.apply(white, LABELS, drawn)
    for image, (top, left, *sides) in zip(images, drawn["cutout"].tolist(), strict=True):
        expected = white[0].clone()
        grey = torch.tensor([round(255 * mean) for mean in MEAN], dtype=torch.uint8)
        expected[max(top, 0) : top + 8, max(left, 0) : left + 8] = grey
        assert torch.equal(image, expected) and sides == [8, 8]
    corners = draws({"cutout": 8}, 20_000)["cutout"][:, :2]
    assert [corners.min(), corners.max()] == [-4, 27] and labels is LABELS


@pytest.mark.parametrize("mixing", MIXING, ids=str)
def test_targets_are_the_shares_of_the_images_in_each(mixing: dict[str, object]) -> None:
    # Each image in one grey of its own: a mixed pixel then tells which image it is from.
    flat = torch.arange(ROWS, dtype=torch.uint8)[:, None, None, None].expand(ROWS, 32, 32, 3)
    drawn = draws(mixing)
    images, targets = augment.apply(flat, LABELS, drawn)
    torch.testing.assert_close(targets.sum(1), torch.ones(ROWS))
    assert targets.min() >= 0
    assert len(set(targets.max(1).values.tolist())) > ROWS // 3
    own = one_hot(LABELS, 10).float()
    if "mixup" in mixing:
        share = drawn["mixup"]
        torch.testing.assert_close(targets, share[:, None] * own + (1 - share)[:, None] * own.roll(1, 0))
        blend = share * flat[:, 0, 0, 0] + (1 - share) * flat[:, 0, 0, 0].roll(1)
        torch.testing.assert_close(images, blend[:, None, None, None].expand(images.shape))
    else:
        owners = images[..., 0].long().flatten(1)  # (B, 1024)
        torch.testing.assert_close(targets, own[owners].mean(1))


def test_mixups_shares_are_beta_distributed() -> None:
    many = draws({"mixup": 0.4}, 20_000)["mixup"]
    # Mean 1/2, variance 1 / (4 (2 alpha + 1)).
    assert many.mean().item() == pytest.approx(0.5, abs=0.02)
    assert many.var().item() == pytest.approx(1 / (4 * 1.8), rel=0.05)


def test_cutmix_pastes_a_rectangle_in_its_own_place() -> None:
    drawn = draws({"cutmix": 1.0})
    images, _ = augment.apply(IMAGES, LABELS, drawn)
    partners = IMAGES.roll(1, 0)
    for k, (top, left, height, width) in enumerate(drawn["cutmix"].tolist()):
        expected = IMAGES[k].clone()
        rows, columns = (slice(max(first, 0), max(first + side, 0)) for first, side in ((top, height), (left, width)))
        expected[rows, columns] = partners[k, rows, columns]
        assert torch.equal(images[k], expected) and height == width
    areas = draws({"cutmix": 1.0}, 20_000)["cutmix"][:, 2:].double().prod(1) / IMAGE_SIZE**2
    assert areas.mean().item() == pytest.approx(0.5, abs=0.02)  # before cutting
