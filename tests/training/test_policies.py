from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.transforms.v2 import functional

from pipeline.config import IMAGE_SIZE
from pipeline.training.augment import (
    AUGMIX_OPERATIONS,
    BINS,
    RAND,
    TRIVIAL,
    AugMix,
    Operation,
    RandAugment,
    Ranges,
    TrivialAugment,
    magnitudes,
    operate,
)

SIGNED = list(Operation)[Operation.SHEAR_X : Operation.SHARPNESS + 1]
GEOMETRIC = SIGNED[:5]
EXACT = (Operation.IDENTITY, Operation.POSTERIZE, Operation.SOLARIZE, Operation.EQUALIZE)
ROUNDED = [operation for operation in Operation if operation not in (*GEOMETRIC, *EXACT)]


def photographs(rows: int) -> Tensor:
    """uint8 (rows, 32, 32, 3): smooth shapes under noise, and four images at the edges of what a table can be."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.nn.functional.interpolate(torch.rand(rows, 3, 6, 6, generator=generator), IMAGE_SIZE, mode="bicubic")
    noise = torch.randn(shapes.shape, generator=generator)
    images = (255 * shapes + 8 * noise).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    images[0] = 7  # one level
    images[1] = images[1] // 16 + 90  # a few levels
    images[2] = images[2, ..., :1]  # grey
    images[3] = images[3] // 128 * 255  # two levels, black and white
    return images


IMAGES = photographs(12)


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
    planes = images.permute(0, 3, 1, 2)
    triples = zip(planes, operations, magnitude, strict=True)
    return torch.stack([TORCHVISION[Operation(o)](image, m) for image, o, m in triples]).permute(0, 2, 3, 1)


def all_magnitudes(operation: Operation) -> list[float]:
    """TrivialAugment's 31, and RandAugment's, each with its signs."""
    values = [*magnitudes(TRIVIAL)[operation].tolist(), float(magnitudes(RAND)[operation, RandAugment().bin])]
    return [*values, *(-value for value in values)] if operation in SIGNED else values


def differences(operation: Operation, magnitude: float) -> Tensor:
    """int (B, 32, 32): how far each pixel of IMAGES is from torchvision's."""
    rows = len(IMAGES)
    result = operate(IMAGES, torch.full((rows,), operation), torch.full((rows,), magnitude))
    expected = one_by_one(IMAGES, [operation] * rows, [magnitude] * rows)
    return (result.int() - expected.int()).abs().amax(-1)


def drawn(operations: list[list[int]], magnitude: list[list[float]]) -> dict[str, Tensor]:
    return {"policy_operation": torch.tensor(operations), "policy_magnitude": torch.tensor(magnitude)}


def assert_uniform(counts: Tensor, expected: float) -> None:
    """Chi-square within five standard deviations of its mean."""
    freedom = counts.numel() - 1
    assert abs(float(((counts - expected) ** 2 / expected).sum()) - freedom) < 5 * (2 * freedom) ** 0.5


# --- operations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", EXACT, ids=lambda o: o.name)
def test_tables_of_whole_numbers_equal_torchvision_at_every_magnitude(operation: Operation) -> None:
    for magnitude in all_magnitudes(operation):
        assert differences(operation, magnitude).max() == 0, magnitude


@pytest.mark.parametrize("operation", ROUNDED, ids=lambda o: o.name)
def test_mixtures_are_within_one_level_of_torchvision_at_every_magnitude(operation: Operation) -> None:
    # Both cut the fraction off; a mixture that is a whole number may come out a rounding below it, in either.
    for magnitude in all_magnitudes(operation):
        different = differences(operation, magnitude)
        assert different.max() <= 1, magnitude
        assert different.float().mean() < 0.15, magnitude  # mostly the grey image under COLOR, where all are whole


@pytest.mark.parametrize("operation", GEOMETRIC, ids=lambda o: o.name)
def test_geometry_equals_torchvision_at_every_magnitude(operation: Operation) -> None:
    # A point halfway between two pixels may go to either: at 45 degrees those are a diagonal.
    for magnitude in all_magnitudes(operation):
        assert ((differences(operation, magnitude) > 0).sum((1, 2)) <= IMAGE_SIZE).all(), magnitude


def test_autocontrast_reaches_black_and_white() -> None:
    images = IMAGES[4:]
    result = operate(images, torch.full((len(images),), Operation.AUTOCONTRAST), torch.zeros(len(images)))
    assert (result.amin((1, 2)) == 0).all()
    assert (result.amax((1, 2)) == 255).all()


# --- draws ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranges", "space"),
    [
        (TRIVIAL, torchvision.transforms.TrivialAugmentWide()._augmentation_space(BINS)),
        (RAND, torchvision.transforms.RandAugment()._augmentation_space(BINS, (IMAGE_SIZE, IMAGE_SIZE))),
    ],
    ids=["trivial", "rand"],
)
def test_names_magnitudes_and_signs_are_torchvisions(ranges: Ranges, space: dict[str, tuple[Tensor, bool]]) -> None:
    assert [operation.name.replace("_", "") for operation in Operation] == [name.upper() for name in space]
    table = magnitudes(ranges)
    for operation, (values, signed) in zip(Operation, space.values(), strict=True):
        whole = operation in (Operation.TRANSLATE_X, Operation.TRANSLATE_Y)  # torchvision's int(magnitude)
        assert torch.equal(table[operation], (values.trunc() if whole else values).float().expand(BINS))
        assert signed == (operation in SIGNED)


def test_trivial_augment_draws_operations_magnitudes_and_signs_uniformly() -> None:
    rows = len(Operation) * BINS * 100
    draws = TrivialAugment().draw(rows, torch.Generator().manual_seed(0))
    operation, magnitude = draws["policy_operation"].squeeze(1), draws["policy_magnitude"].squeeze(1)
    assert_uniform(torch.bincount(operation, minlength=len(Operation)), BINS * 100)
    for one in (Operation.SHEAR_X, Operation.ROTATE, Operation.SHARPNESS, Operation.SOLARIZE):
        values, counts = torch.unique(magnitude[operation == one].abs(), return_counts=True)
        assert torch.equal(values, magnitudes(TRIVIAL)[one].sort().values)
        assert_uniform(counts, float(counts.sum()) / BINS)
    signed = torch.isin(operation, torch.tensor(SIGNED)) & (magnitude != 0)
    negative = magnitude < 0
    assert not (negative & ~signed).any()
    assert_uniform(torch.bincount(negative[signed].long()), float(signed.sum()) / 2)


def test_rand_augment_draws_pairs_of_operations_of_the_ninth_bin() -> None:
    draws = RandAugment().draw(196 * 100, torch.Generator().manual_seed(0))
    operation, magnitude = draws["policy_operation"], draws["policy_magnitude"]
    assert operation.shape == magnitude.shape == (196 * 100, 2)
    assert_uniform(torch.bincount(operation[:, 0] * len(Operation) + operation[:, 1], minlength=196), 100)
    assert torch.equal(magnitude.abs(), magnitudes(RAND)[operation, 9])
    rotated = magnitude[operation == Operation.ROTATE]
    assert set(rotated.tolist()) == {-9.0, 9.0}
    assert_uniform((rotated > 0).long().bincount(), len(rotated) / 2)


@pytest.mark.parametrize("policy", [TrivialAugment(), RandAugment(), AugMix()])
def test_equal_generators_give_equal_draws_and_the_global_one_is_left_alone(
    policy: TrivialAugment | RandAugment | AugMix,
) -> None:
    before = torch.get_rng_state()
    first, again, other = (policy.draw(300, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(key.startswith("policy_") and len(values) == 300 for key, values in first.items())
    assert all(torch.equal(first[key], again[key]) and not torch.equal(first[key], other[key]) for key in first)


# --- policies ---------------------------------------------------------------------------------------------


def test_each_image_of_a_batch_gets_its_own_operation_as_torchvision_does_it() -> None:
    images = photographs(128)
    draws = TrivialAugment().draw(len(images), torch.Generator().manual_seed(0))
    result = TrivialAugment().apply(images, draws)
    operation, magnitude = draws["policy_operation"].flatten().tolist(), draws["policy_magnitude"].flatten().tolist()
    assert set(operation) == set(Operation)
    different = (result.int() - one_by_one(images, operation, magnitude).int()).abs().amax(-1)
    assert ((different > 1).sum((1, 2)) <= IMAGE_SIZE).all()
    assert result.dtype == torch.uint8
    assert result.is_contiguous()


def test_rand_augment_applies_its_operations_in_order() -> None:
    solarize, rotate = (Operation.SOLARIZE, 0.0), (Operation.ROTATE, 9.0)  # solarised later, the corners are white
    for first, second in ((solarize, rotate), (rotate, solarize)):
        rows = len(IMAGES)
        draws = drawn([[first[0], second[0]]] * rows, [[first[1], second[1]]] * rows)
        expected = one_by_one(IMAGES, [first[0]] * rows, [first[1]] * rows)
        expected = one_by_one(expected, [second[0]] * rows, [second[1]] * rows)
        assert torch.equal(RandAugment().apply(IMAGES, draws), expected)
        assert bool((expected[:, 0, 0] == 255).all()) == (first is rotate)


@pytest.mark.parametrize("policy", [TrivialAugment(), RandAugment(), AugMix()])
def test_a_batch_equals_its_images_alone(policy: TrivialAugment | RandAugment | AugMix) -> None:
    images = photographs(64)
    before = images.clone()
    draws = policy.draw(len(images), torch.Generator().manual_seed(0))
    batch = policy.apply(images, draws)
    alone = [policy.apply(images[i : i + 1], {k: v[i : i + 1] for k, v in draws.items()}) for i in range(len(images))]
    assert torch.equal(batch, torch.cat(alone))
    assert torch.equal(images, before)


def test_equal_images_get_different_operations() -> None:
    images = IMAGES[5].expand(64, -1, -1, -1)
    result = TrivialAugment().apply(images, TrivialAugment().draw(64, torch.Generator().manual_seed(0)))
    assert len({image.numpy().tobytes() for image in result}) > 32  # some operations leave this image alone


@pytest.mark.parametrize("policy", [TrivialAugment(), RandAugment(), AugMix()])
def test_no_value_is_read_back_from_the_device(policy: TrivialAugment | RandAugment | AugMix) -> None:
    # Tensors on "meta" have shapes but no values: .item(), nonzero and masks as indices fail there.
    draws = {key: values.to("meta") for key, values in policy.draw(8, torch.Generator()).items()}
    result = policy.apply(torch.empty(8, 32, 32, 3, dtype=torch.uint8, device="meta"), draws)
    assert result.shape == (8, 32, 32, 3)
    assert result.dtype == torch.uint8
    assert result.device.type == "meta"


@pytest.mark.parametrize("policy", [TrivialAugment(), RandAugment(), AugMix()])
def test_everything_is_made_on_the_images_device(policy: TrivialAugment | RandAugment | AugMix) -> None:
    draws = policy.draw(len(IMAGES), torch.Generator().manual_seed(0))
    expected = policy.apply(IMAGES, draws)
    with torch.device("meta"):  # where a tensor made without a device now goes, and does not mix with the CPU's
        result = policy.apply(IMAGES, draws)
    assert torch.equal(result, expected)


def test_augmix_blends_the_image_with_the_mixture_of_its_chains() -> None:
    operations = [Operation.ROTATE, Operation.IDENTITY, Operation.IDENTITY] + 3 * [Operation.IDENTITY]
    operations += [Operation.SOLARIZE, Operation.POSTERIZE, Operation.IDENTITY]
    strength = [20.0, 0, 0, 0, 0, 0, 128, 4, 0]
    drawn = {
        "policy_operation": torch.tensor([operations]), "policy_magnitude": torch.tensor([strength]),
        "policy_weight": torch.tensor([[0.5, 0.2, 0.3]]), "policy_share": torch.tensor([0.6]),
    }  # fmt: skip
    image = IMAGES[5:6]
    rotated = one_by_one(image, [Operation.ROTATE], [20.0])
    solarized = one_by_one(one_by_one(image, [Operation.SOLARIZE], [128.0]), [Operation.POSTERIZE], [4.0])
    mixture = 0.5 * rotated.float() + 0.2 * image.float() + 0.3 * solarized.float()
    expected = (0.4 * image.float() + 0.6 * mixture).round().to(torch.uint8)
    assert (AugMix().apply(image, drawn).int() - expected.int()).abs().max() <= 1  # the order of float32 sums


def test_augmix_draws_weak_operations_none_of_which_is_a_corruption() -> None:
    drawn = AugMix().draw(4000, torch.Generator().manual_seed(0))
    operation = drawn["policy_operation"].view(-1, 3, 3)
    assert set(operation.flatten().tolist()) == {*AUGMIX_OPERATIONS, Operation.IDENTITY}
    assert not (operation[..., 0] == Operation.IDENTITY).any()  # a chain has one operation at least
    lengths = (operation != Operation.IDENTITY).sum(2).float()
    assert lengths.mean() == pytest.approx(2, abs=0.03)
    torch.testing.assert_close(drawn["policy_weight"].sum(1), torch.ones(4000))
    assert drawn["policy_weight"].std() == pytest.approx((1 / 18) ** 0.5, abs=0.01)  # of a flat Dirichlet
    assert drawn["policy_share"].mean() == pytest.approx(0.5, abs=0.02)
    turned = drawn["policy_magnitude"][drawn["policy_operation"] == Operation.ROTATE]
    assert turned.abs().max() == 8  # degrees: 30 * 8 / 30
