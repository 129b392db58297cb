import pytest
import torch

from pipeline.store.submissions import Tta
from pipeline.training.inference import views


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(1, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("flip", 2), ("flip-shift", 6)])
def test_the_first_view_is_the_images_and_all_are_like_them(images: torch.Tensor, tta: Tta, count: int) -> None:
    shown = views(images, tta)
    assert len(shown) == count
    assert torch.equal(shown[0], images)
    assert {(view.shape, view.dtype, view.is_contiguous()) for view in shown} == {(images.shape, torch.uint8, True)}
    assert len({view.numpy().tobytes() for view in shown}) == count


def test_half_of_the_views_are_the_mirror_images_of_the_others(images: torch.Tensor) -> None:
    for tta in ("flip", "flip-shift"):
        shown = views(images, tta)
        half = len(shown) // 2
        for view, mirrored in zip(shown[:half], shown[half:], strict=True):
            assert torch.equal(mirrored[:, :, 0], view[:, :, 31])
            assert torch.equal(mirrored[:, :, 31], view[:, :, 0])


def test_a_shift_moves_by_one_pixel_and_what_comes_in_is_black(images: torch.Tensor) -> None:
    _, up_left, down_right, *_ = views(images, "flip-shift")
    assert torch.equal(up_left[:, :31, :31], images[:, 1:, 1:])
    assert torch.equal(down_right[:, 1:, 1:], images[:, :31, :31])
    for border in (up_left[:, 31], up_left[:, :, 31], down_right[:, 0], down_right[:, :, 0]):
        assert not border.any()
