import dataclasses

import pytest
import torch

from pipeline.config import MEAN
from pipeline.recipes import PRESETS
from pipeline.training.augment import (
    Augmentation,
    AugMix,
    Cutout,
    RandAugment,
    RandomErasing,
    TrivialAugment,
    chosen,
    rectangle,
)

GREY = torch.tensor([round(255 * mean) for mean in MEAN], dtype=torch.uint8)
WHITE = torch.full((200, 32, 32, 3), 255, dtype=torch.uint8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_rectangle_is_what_slicing_gives() -> None:
    corners = torch.tensor([[0, 0], [5, 7], [-3, 30], [31, -2]])
    sides = torch.tensor([[32, 32], [4, 9], [8, 8], [1, 3]])
    masks = rectangle(*corners.unbind(1), *sides.unbind(1))
    for mask, (top, left), (height, width) in zip(masks, corners.tolist(), sides.tolist(), strict=True):
        expected = torch.zeros(32, 32, 1, dtype=torch.bool)
        expected[max(top, 0) : top + height, max(left, 0) : left + width] = True
        assert torch.equal(mask, expected)


def test_cutout_paints_one_grey_square_around_its_centre() -> None:
    cutout = Cutout(8)
    drawn = cutout.draw(200, generator())
    images = cutout.apply(WHITE, drawn)
    for image, (row, column) in zip(images, drawn["cutout"].tolist(), strict=True):
        expected = WHITE[0].clone()
        expected[max(row - 4, 0) : row + 4, max(column - 4, 0) : column + 4] = GREY
        assert torch.equal(image, expected)
    assert len(set(map(tuple, drawn["cutout"].tolist()))) > 150


def test_random_erasing_paints_rectangles_of_the_papers_sizes_in_one_colour() -> None:
    erasing = RandomErasing(1.0)
    drawn = erasing.draw(5000, generator())
    height, width = drawn["erasing"][:, 2:].float().unbind(1)
    area = height * width / 1024
    # Rounding to whole pixels moves small rectangles' figures a little beyond the paper's ranges.
    assert area.min() > 0.012 and area.max() < 0.36
    assert (height / width).min() > 0.2 and (height / width).max() < 4.6
    assert 0.15 < area.mean() < 0.19
    ends = drawn["erasing"][:, :2] + drawn["erasing"][:, 2:]
    assert drawn["erasing"].min() >= 0 and ends.max() == 32
    images = erasing.apply(WHITE, {name: values[:200] for name, values in drawn.items()})
    for image, (top, left, rows, columns), colour in zip(
        images, drawn["erasing"].tolist(), drawn["erasing_colour"], strict=False
    ):
        expected = WHITE[0].clone()
        expected[top : top + rows, left : left + columns] = colour
        assert torch.equal(image, expected)


def test_random_erasing_spares_the_others() -> None:
    drawn = RandomErasing(0.25).draw(10_000, generator())
    erased = (drawn["erasing"][:, 2:] > 0).all(1).float().mean()
    assert abs(erased - 0.25) < 5 * (0.25 * 0.75 / 10_000) ** 0.5
    images = RandomErasing(0.25).apply(WHITE, {name: values[:200] for name, values in drawn.items()})
    untouched = (images == 255).all(3).all(2).all(1)
    assert torch.equal(untouched, (drawn["erasing"][:200, 2:] == 0).all(1))


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({}, []),
        ({"policy": "trivialaugment"}, [TrivialAugment]),
        ({"policy": "augmix"}, [AugMix]),
        ({"policy": "randaugment", "cutout": 8, "erasing": 0.5}, [RandAugment, Cutout, RandomErasing]),
    ],
)
def test_the_recipe_chooses(change: dict[str, object], kinds: list[type[Augmentation]]) -> None:
    config = dataclasses.replace(PRESETS["paper"], **change)  # type: ignore[arg-type]
    assert [type(part) for part in chosen(config)] == kinds
