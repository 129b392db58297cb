"""The augmentations against torchvision's, and against plain loops over the images."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn.functional import interpolate, one_hot
from torchvision.transforms.v2 import functional

from pipeline.config import IMAGE_SIZE, MEAN
from pipeline.recipes import PRESETS
from pipeline.training.augment import (
    BINS,
    SIGNED,
    Augmentation,
    CutMix,
    Cutout,
    Mixup,
    Operation,
    Ricap,
    TrivialAugment,
    chosen,
    magnitudes,
    operate,
    rectangle,
)

ROWS = 64
ALL: list[Augmentation] = [TrivialAugment(), Cutout(8), Mixup(0.4), CutMix(1.0), Ricap(0.3)]
MIXING = ALL[2:]
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
FEW = photographs(12)
# Each image in one colour of its own: a mixed pixel then tells which image it is from.
FLAT = torch.arange(ROWS, dtype=torch.uint8)[:, None, None, None].expand(ROWS, 32, 32, 3)


def draws(augmentation: Augmentation, rows: int = ROWS, seed: int = 1) -> dict[str, Tensor]:
    return augmentation.draw(rows, torch.Generator().manual_seed(seed))


# --- all of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({}, []),
        ({"policy": "trivialaugment", "cutout": 8, "ricap": 0.3}, [TrivialAugment, Cutout, Ricap]),
        ({"mixup": 0.2}, [Mixup]),
        ({"cutmix": 1.0}, [CutMix]),
    ],
)
def test_the_recipe_chooses(change: dict[str, object], kinds: list[type[Augmentation]]) -> None:
    config = dataclasses.replace(PRESETS["paper"], **change)  # type: ignore[arg-type]
    assert [type(part) for part in chosen(config)] == kinds


@pytest.mark.parametrize("augmentation", ALL, ids=str)
def test_equal_generators_give_equal_draws_and_the_global_one_is_left_alone(augmentation: Augmentation) -> None:
    before = torch.get_rng_state()
    first, again, other = (draws(augmentation, 300, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(len(values) == 300 for values in first.values())
    assert all(torch.equal(first[key], again[key]) and not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("augmentation", ALL, ids=str)
def test_equal_images_come_out_differently_and_what_goes_in_is_unchanged(augmentation: Augmentation) -> None:
    images = torch.cat([IMAGES[5:6], IMAGES[6:7]]).repeat(ROWS // 2, 1, 1, 1)
    before = images.clone()
    result, _ = augmentation.apply(images, LABELS, draws(augmentation))
    assert len({image.numpy().tobytes() for image in result}) > ROWS // 3  # some operations leave an image alone
    assert result.shape == images.shape and torch.equal(images, before)
    assert result.dtype == (torch.float32 if isinstance(augmentation, Mixup) else torch.uint8)


@pytest.mark.parametrize("augmentation", ALL, ids=str)
def test_nothing_is_read_back_from_the_device_nor_made_elsewhere(augmentation: Augmentation) -> None:
    # Tensors on "meta" have shapes but no values: .item(), nonzero and masks as indices fail there.
    drawn = draws(augmentation)
    on_meta = {key: values.to("meta") for key, values in drawn.items()}
    result, _ = augmentation.apply(IMAGES.to("meta"), LABELS.to("meta"), on_meta)
    assert result.shape == IMAGES.shape and result.device.type == "meta"
    expected, _ = augmentation.apply(IMAGES, LABELS, drawn)
    with torch.device("meta"):  # where a tensor made without a device now goes, and does not mix with the CPU's
        result, _ = augmentation.apply(IMAGES, LABELS, drawn)
    assert torch.equal(result, expected)


# --- Cutout, Mixup, CutMix and RICAP ----------------------------------------------------------------------


def test_a_rectangle_is_what_slicing_gives() -> None:
    corners = torch.tensor([[0, 0], [5, 7], [-3, 30], [31, -2]])
    sides = torch.tensor([[32, 32], [4, 9], [8, 8], [1, 3]])
    masks = rectangle(*corners.unbind(1), *sides.unbind(1))
    for mask, (top, left), (height, width) in zip(masks, corners.tolist(), sides.tolist(), strict=True):
        expected = torch.zeros(32, 32, 1, dtype=torch.bool)
        expected[max(top, 0) : top + height, max(left, 0) : left + width] = True
        assert torch.equal(mask, expected)


def test_cutout_paints_one_grey_square_around_its_centre() -> None:
    white = torch.full((ROWS, 32, 32, 3), 255, dtype=torch.uint8)
    drawn = draws(Cutout(8))
    images, labels = Cutout(8).apply(white, LABELS, drawn)
    for image, (row, column) in zip(images, drawn["cutout"].tolist(), strict=True):
        expected = white[0].clone()
        grey = torch.tensor([round(255 * mean) for mean in MEAN], dtype=torch.uint8)
        expected[max(row - 4, 0) : row + 4, max(column - 4, 0) : column + 4] = grey
        assert torch.equal(image, expected)
    assert labels is LABELS


@pytest.mark.parametrize("mixing", MIXING, ids=str)
def test_targets_are_probabilities_and_each_image_has_its_own(mixing: Augmentation) -> None:
    _, targets = mixing.apply(IMAGES, LABELS, draws(mixing))
    torch.testing.assert_close(targets.sum(1), torch.ones(ROWS))
    assert targets.min() >= 0
    assert len(set(targets.max(1).values.tolist())) > ROWS // 3


@pytest.mark.parametrize("mixing", [CutMix(1.0), Ricap(0.3)], ids=str)
def test_targets_are_the_shares_of_pixels(mixing: Augmentation) -> None:
    images, targets = mixing.apply(FLAT, LABELS, draws(mixing))
    owners = images[..., 0].long().flatten(1)  # (B, 1024): which image each pixel is from
    torch.testing.assert_close(targets, one_hot(LABELS[owners], 10).float().mean(1))


def test_mixup_blends_pixels_as_it_blends_labels() -> None:
    drawn = draws(Mixup(0.4))
    images, targets = Mixup(0.4).apply(IMAGES, LABELS, drawn)
    share = drawn["mixup"].double()
    expected = share[:, None, None, None] * IMAGES + (1 - share)[:, None, None, None] * IMAGES.roll(1, 0)
    torch.testing.assert_close(images.double(), expected, rtol=1e-5, atol=1e-3)
    plain = one_hot(LABELS, 10).double()
    blended = share[:, None] * plain + (1 - share)[:, None] * plain.roll(1, 0)
    torch.testing.assert_close(targets.double(), blended, rtol=1e-5, atol=1e-6)


def test_mixups_shares_are_beta_distributed() -> None:
    share = draws(Mixup(0.4), 20_000)["mixup"]
    # Mean 1/2, variance 1 / (4 (2 alpha + 1)).
    assert share.mean().item() == pytest.approx(0.5, abs=0.02)
    assert share.var().item() == pytest.approx(1 / (4 * 1.8), rel=0.05)


def test_cutmix_pastes_a_rectangle_in_its_own_place() -> None:
    images, _ = CutMix(1.0).apply(IMAGES, LABELS, draws(CutMix(1.0)))
    partner = IMAGES.roll(1, 0)
    pasted = (images == partner).all(3)
    assert torch.equal(torch.where(pasted.unsqueeze(3), partner, IMAGES), images)
    for mask in pasted & (partner != IMAGES).any(3):
        rows, columns = mask.any(1), mask.any(0)
        assert mask.sum() >= 0.98 * rows.sum() * columns.sum()  # a full rectangle, but for equal pixels


def test_ricaps_quarters_are_crops_of_four_images() -> None:
    drawn = draws(Ricap(0.3))
    images, _ = Ricap(0.3).apply(IMAGES, LABELS, drawn)
    for i, (row, column) in enumerate(drawn["ricap_point"].tolist()):
        quarters = [(0, row, 0, column), (0, row, column, 32), (row, 32, 0, column), (row, 32, column, 32)]
        for q, (top, bottom, left, right) in enumerate(quarters):
            piece = images[i, top:bottom, left:right]
            assert piece.numel() == 0 or is_crop(piece, IMAGES[(i - q) % ROWS])


def is_crop(piece: Tensor, image: Tensor) -> bool:
    height, width = piece.shape[:2]
    windows = image.unfold(0, height, 1).unfold(1, width, 1).permute(0, 1, 3, 4, 2)
    return bool((windows == piece).flatten(2).all(2).any())


# --- TrivialAugment's operations --------------------------------------------------------------------------

WITH_SIGN = list(Operation)[SIGNED[0] : SIGNED[1] + 1]
GEOMETRIC = WITH_SIGN[:5]
EXACT = (Operation.IDENTITY, Operation.POSTERIZE, Operation.SOLARIZE, Operation.EQUALIZE)


def affine(image: Tensor, shift: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0, 0)) -> Tensor:
    degrees = [float(torch.tensor(factor).atan().rad2deg()) for factor in shear]
    centre = [0, 0] if any(shear) else None
    return functional.affine(image, angle=0, translate=list(shift), scale=1, shear=degrees, center=centre)  # type: ignore[no-any-return]


# What torchvision does to one image (3, 32, 32).
TORCHVISION: dict[Operation, Callable[[Tensor, float], Tensor]] = {
    Operation.IDENTITY: lambda image, _: image,
    Operation.SHEAR_X: lambda image, m: affine(image, shear=(m, 0)),
    Operation.SHEAR_Y: lambda image, m: affine(image, shear=(0, m)),
    Operation.TRANSLATE_X: lambda image, m: affine(image, shift=(int(m), 0)),
    Operation.TRANSLATE_Y: lambda image, m: affine(image, shift=(0, int(m))),
    Operation.ROTATE: functional.rotate,
    Operation.BRIGHTNESS: lambda image, m: functional.adjust_brightness(image, 1 + m),
    Operation.COLOR: lambda image, m: functional.adjust_saturation(image, 1 + m),
    Operation.CONTRAST: lambda image, m: functional.adjust_contrast(image, 1 + m),
    Operation.SHARPNESS: lambda image, m: functional.adjust_sharpness(image, 1 + m),
    Operation.POSTERIZE: lambda image, m: functional.posterize(image, int(m)),
    Operation.SOLARIZE: functional.solarize,
    Operation.AUTOCONTRAST: lambda image, _: functional.autocontrast(image),
    Operation.EQUALIZE: lambda image, _: functional.equalize(image),
}


def one_by_one(images: Tensor, operations: list[int], magnitude: list[float]) -> Tensor:
    """torchvision's result (B, 32, 32, 3), image by image."""
    triples = zip(images.permute(0, 3, 1, 2), operations, magnitude, strict=True)
    return torch.stack([TORCHVISION[Operation(o)](image, m) for image, o, m in triples]).permute(0, 2, 3, 1)


@pytest.mark.parametrize("operation", Operation, ids=lambda o: o.name)
def test_operations_equal_torchvisions_at_every_magnitude(operation: Operation) -> None:
    rows, values = len(FEW), magnitudes()[operation].tolist()
    for magnitude in [*values, *(-value for value in values)] if operation in WITH_SIGN else values:
        result = operate(FEW, torch.full((rows,), operation), torch.full((rows,), magnitude))
        expected = one_by_one(FEW, [operation] * rows, [magnitude] * rows)
        difference = (result.int() - expected.int()).abs().amax(-1)
        if operation in EXACT:
            assert difference.max() == 0, magnitude
        elif operation in GEOMETRIC:
            # A point halfway between two pixels may go to either: at 45 degrees those are a diagonal.
            assert ((difference > 0).sum((1, 2)) <= IMAGE_SIZE).all(), magnitude
        else:
            # Both cut the fraction off; a mixture that is a whole number may come out a rounding below it, in either.
            assert difference.max() <= 1, magnitude
            assert difference.float().mean() < 0.15, magnitude  # mostly the grey image under COLOR: all are whole


def test_autocontrast_reaches_black_and_white() -> None:
    images = FEW[4:]
    result = operate(images, torch.full((len(images),), Operation.AUTOCONTRAST), torch.zeros(len(images)))
    assert (result.amin((1, 2)) == 0).all()
    assert (result.amax((1, 2)) == 255).all()


def test_names_magnitudes_and_signs_are_torchvisions() -> None:
    space = torchvision.transforms.TrivialAugmentWide()._augmentation_space(BINS)
    assert [operation.name.replace("_", "") for operation in Operation] == [name.upper() for name in space]
    for operation, (values, signed) in zip(Operation, space.values(), strict=True):
        whole = operation in (Operation.TRANSLATE_X, Operation.TRANSLATE_Y)  # torchvision's int(magnitude)
        assert torch.equal(magnitudes()[operation], (values.trunc() if whole else values).float().expand(BINS))
        assert signed == (operation in WITH_SIGN)


def test_trivial_augment_draws_operations_magnitudes_and_signs_uniformly() -> None:
    drawn = draws(TrivialAugment(), len(Operation) * BINS * 100)
    operation, magnitude = drawn["policy_operation"], drawn["policy_magnitude"]
    assert_uniform(torch.bincount(operation, minlength=len(Operation)), BINS * 100)
    for one in (Operation.SHEAR_X, Operation.ROTATE, Operation.SHARPNESS, Operation.SOLARIZE):
        values, counts = torch.unique(magnitude[operation == one].abs(), return_counts=True)
        assert torch.equal(values, magnitudes()[one].sort().values)
        assert_uniform(counts, float(counts.sum()) / BINS)
    signed = torch.isin(operation, torch.tensor(WITH_SIGN)) & (magnitude != 0)
    assert not ((magnitude < 0) & ~signed).any()
    assert_uniform(torch.bincount((magnitude < 0)[signed].long()), float(signed.sum()) / 2)


def assert_uniform(counts: Tensor, expected: float) -> None:
    """Chi-square within five standard deviations of its mean."""
    freedom = counts.numel() - 1
    assert abs(float(((counts - expected) ** 2 / expected).sum()) - freedom) < 5 * (2 * freedom) ** 0.5


def test_each_image_of_a_batch_gets_its_own_operation_as_torchvision_does_it() -> None:
    images, drawn = photographs(128), draws(TrivialAugment(), 128, seed=0)
    result, _ = TrivialAugment().apply(images, torch.zeros(128), drawn)
    operation, magnitude = drawn["policy_operation"].tolist(), drawn["policy_magnitude"].tolist()
    assert set(operation) == set(Operation)
    different = (result.int() - one_by_one(images, operation, magnitude).int()).abs().amax(-1)
    assert ((different > 1).sum((1, 2)) <= IMAGE_SIZE).all()
    assert result.is_contiguous()
