import pytest
import torch
from torch.nn.functional import one_hot

from pipeline.training.augment import CutMix, Mixing, Mixup, Ricap

ROWS = 64
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(256, (ROWS, 32, 32, 3), generator=GENERATOR, dtype=torch.uint8)
LABELS = torch.randint(10, (ROWS,), generator=GENERATOR)
# Each image in one colour of its own: a mixed pixel then tells which image it is from.
FLAT = torch.arange(ROWS, dtype=torch.uint8)[:, None, None, None].expand(ROWS, 32, 32, 3)
ALL = [Mixup(0.4), CutMix(1.0), Ricap(0.3)]


def draws(mixing: Mixing, rows: int = ROWS) -> dict[str, torch.Tensor]:
    return mixing.draw(rows, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mixing", ALL, ids=str)
def test_targets_are_probabilities_and_each_image_has_its_own(mixing: Mixing) -> None:
    images, targets = mixing.apply(IMAGES, LABELS, draws(mixing))
    assert images.shape == IMAGES.shape
    torch.testing.assert_close(targets.sum(1), torch.ones(ROWS))
    assert targets.min() >= 0
    assert len(set(targets.max(1).values.tolist())) > ROWS // 3


@pytest.mark.parametrize("mixing", [CutMix(1.0), Ricap(0.3)], ids=str)
def test_targets_are_the_shares_of_pixels(mixing: Mixing) -> None:
    images, targets = mixing.apply(FLAT, LABELS, draws(mixing))
    owners = images[..., 0].long().flatten(1)  # (B, 1024): which image each pixel is from
    shares = one_hot(LABELS[owners], 10).float().mean(1)
    torch.testing.assert_close(targets, shares)


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


def is_crop(piece: torch.Tensor, image: torch.Tensor) -> bool:
    height, width = piece.shape[:2]
    windows = image.unfold(0, height, 1).unfold(1, width, 1).permute(0, 1, 3, 4, 2)
    return bool((windows == piece).flatten(2).all(2).any())
