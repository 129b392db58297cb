import pytest
import torch
from torch import Tensor, nn

from pipeline.model.norm import BatchNorm
from pipeline.model.resnet import build
from pipeline.recipes import MODELS
from tests.model.graph import operations


@pytest.mark.parametrize(("channels", "width"), [(36, 4), (72, 2), (8, 2)])
def test_several_pixels_side_by_side_give_a_batch_normalisation(channels: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = BatchNorm(channels), nn.BatchNorm2d(channels).double()
    nn.init.uniform_(ours.weight, 0.5, 2, generator=generator)
    nn.init.normal_(ours.bias, generator=generator)
    theirs.load_state_dict(ours.state_dict())
    for _ in range(2):
        values = (
            torch.randn(16, channels, width, width, generator=generator) * 3 + torch.arange(channels)[:, None, None]
        )
        upstream = torch.randn(values.shape, generator=generator).bfloat16()
        x = values.bfloat16().to(memory_format=torch.channels_last)
        plain = x.double().requires_grad_()
        x.requires_grad_()
        found, expected = ours(x), theirs(plain)
        assert type(found.grad_fn).__name__ == "_SideBySideBackward"
        torch.autograd.backward(found, upstream)
        torch.autograd.backward(expected, upstream.double())
        assert found.is_contiguous(memory_format=torch.channels_last)
        close(found, expected, 0.02)
        close(x.grad, plain.grad, 0.02)
    close(ours.weight.grad, theirs.weight.grad, 1e-4)
    close(ours.bias.grad, theirs.bias.grad, 1e-4)
    for name, value in theirs.state_dict().items():
        close(ours.state_dict()[name], value, 1e-5)


def close(found: Tensor | None, expected: Tensor | None, tolerance: float) -> None:
    assert found is not None and expected is not None
    atol = tolerance * expected.abs().max().item()
    torch.testing.assert_close(found.double(), expected.double(), rtol=tolerance, atol=atol)


def test_other_batch_normalisations_are_pytorchs() -> None:
    images = torch.randn(2, 36, 2, 2).bfloat16()
    trains, evaluates, averages, full = BatchNorm(36), BatchNorm(36).eval(), BatchNorm(36, momentum=None), BatchNorm(32)
    for module, x in (
        (trains, images.float()), (trains, images[:1, :, :1]), (trains, images[:1]), (evaluates, images),
        (averages, images), (full, images[:, :32]),
    ):  # fmt: skip
        assert type(module(x).grad_fn).__name__ == "NativeBatchNormBackward0"


def test_preset_paper_takes_the_fast_way_where_it_can() -> None:
    model = build(MODELS["paper"], seed=0).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        names = operations(model(torch.ones(2, 3, 32, 32)))
    # The stem and the stages of 36 and 72 channels; the others are multiples of 16.
    assert names.count("_SideBySideBackward") == 14 and names.count("NativeBatchNormBackward0") == 17
