"""The augmentations against torchvision's, and against plain loops over the images."""

import dataclasses

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn.functional import interpolate, one_hot
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.v2.functional import adjust_sharpness

from pipeline.config import IMAGE_SIZE, MEAN
from pipeline.recipes import PRESETS
from pipeline.training import augment
from pipeline.training.augment import BINS, SIGNED, Operation, magnitudes, operate

ROWS = 64
MIXING: list[dict[str, object]] = [{"mixup": 0.4}, {"cutmix": 1.0}, {"ricap": 0.3}]
ALL: list[dict[str, object]] = [{"policy": "trivialaugment"}, {"cutout": 8}, *MIXING]
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
    assert len({image.numpy().tobytes() for image in result}) > ROWS // 3  # some operations leave an image alone
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


# --- Cutout, Mixup, CutMix and RICAP ----------------------------------------------------------------------


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


def test_ricaps_quarters_are_crops_of_four_images() -> None:
    drawn = draws({"ricap": 0.3})
    images, _ = augment.apply(IMAGES, LABELS, drawn)
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
SPACE = torchvision.transforms.TrivialAugmentWide()._augmentation_space(BINS)
NAMES = list(SPACE)
EXACT = (Operation.IDENTITY, Operation.POSTERIZE, Operation.SOLARIZE, Operation.EQUALIZE)


def theirs(image: Tensor, operation: int, magnitude: float) -> Tensor:
    """What torchvision's TrivialAugmentWide does to an image (3, 32, 32)."""
    if operation == Operation.SHARPNESS:  # of v2: the first version darkens what should stay as it is
        return adjust_sharpness(image, 1 + magnitude)  # type: ignore[no-any-return]
    return _apply_op(image, NAMES[operation], magnitude, InterpolationMode.NEAREST, None)  # type: ignore[no-any-return]


def one_by_one(images: Tensor, operations: list[int], magnitude: list[float]) -> Tensor:
    """The same for images (B, 32, 32, 3)."""
    triples = zip(images.permute(0, 3, 1, 2), operations, magnitude, strict=True)
    return torch.stack([theirs(*triple) for triple in triples]).permute(0, 2, 3, 1)


@pytest.mark.parametrize("operation", Operation, ids=lambda o: o.name)
def test_operations_equal_torchvisions(operation: Operation) -> None:
    rows, values = len(FEW), magnitudes()[operation].tolist()[::3]
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


def test_names_magnitudes_and_signs_are_torchvisions() -> None:
    assert [operation.name.replace("_", "") for operation in Operation] == [name.upper() for name in NAMES]
    for operation, (values, signed) in zip(Operation, SPACE.values(), strict=True):
        whole = operation in (Operation.TRANSLATE_X, Operation.TRANSLATE_Y)  # torchvision's int(magnitude)
        assert torch.equal(magnitudes()[operation], (values.trunc() if whole else values).float().expand(BINS))
        assert signed == (operation in WITH_SIGN)


def test_trivial_augment_draws_operations_magnitudes_and_signs_uniformly() -> None:
    drawn = draws(ALL[0], len(Operation) * BINS * 100)
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
    images, drawn = photographs(128), draws(ALL[0], 128, seed=0)
    result, _ = augment.apply(images, torch.zeros(128), drawn)
    operation, magnitude = drawn["policy_operation"].tolist(), drawn["policy_magnitude"].tolist()
    assert set(operation) == set(Operation)
    different = (result.int() - one_by_one(images, operation, magnitude).int()).abs().amax(-1)
    assert ((different > 1).sum((1, 2)) <= IMAGE_SIZE).all()
    assert result.is_contiguous()
