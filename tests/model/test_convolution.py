from unittest import mock

import pytest
import torch
from torch.nn.functional import conv2d

from pipeline.model import convolution
from pipeline.model.convolution import Convolution, sheets
from pipeline.model.resnet import build
from pipeline.recipes import MODELS
from tests.model.graph import operations


def test_sheets_are_images_side_by_side_with_a_column_of_zeros_each() -> None:
    images = torch.arange(1.0, 12 * 3 * 7 * 7 + 1).view(12, 3, 7, 7)
    result = sheets(images)  # eight of them, then four and zeros
    assert result.shape == (2, 3, 7, 64) and result.is_contiguous(memory_format=torch.channels_last)
    for i, image in enumerate(images):
        left = 8 * (i % 8)
        assert torch.equal(result[i // 8, :, :, left : left + 7], image)
    assert not result[..., 7::8].any() and not result[1, :, :, 32:].any()


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("batch", "width"), [(12, 7), (7, 3), (16, 5), (5, 1)])
def test_gradients_on_a_cpu_with_amx_are_a_convolutions(batch: int, width: int, residual: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    with mock.patch.object(convolution, "AMX", True):
        module = Convolution(4, 4 if residual else 6, residual=residual)
        x = torch.randn(batch, 4, width, width, generator=generator).bfloat16().requires_grad_()
        found = module(x)
    assert type(found.grad_fn).__name__ == "_OnSheetsBackward"
    upstream = torch.randn(found.shape, generator=generator).bfloat16()
    torch.autograd.backward(found, upstream)
    plain, weight = x.detach().float().requires_grad_(), module.weight.detach().bfloat16().float().requires_grad_()
    expected = conv2d(plain, weight, padding=1) + (plain if residual else 0)
    torch.autograd.backward(expected, upstream.float())
    for ours, theirs in ((found, expected), (x.grad, plain.grad), (module.weight.grad, weight.grad)):
        assert ours is not None and theirs is not None
        torch.testing.assert_close(ours.float(), theirs, rtol=0.02, atol=0.02 * theirs.abs().max().item())


def test_other_convolutions_are_pytorchs() -> None:
    with mock.patch.object(convolution, "AMX", True):
        small, wide = torch.ones(2, 4, 6, 6), torch.ones(2, 4, 8, 8, dtype=torch.bfloat16)
        for x, module in ((small, Convolution(4, 6)), (wide, Convolution(4, 6).bfloat16())):
            assert type(module(x).grad_fn).__name__ == "ConvolutionBackward0"
        strided = Convolution(4, 6, 2).bfloat16()(small.bfloat16())
        assert type(strided.grad_fn).__name__ == "ConvolutionBackward0" and strided.shape == (2, 6, 3, 3)
        biased = Convolution(4, 6).bfloat16()  # as folding makes it
        biased.bias = torch.nn.Parameter(torch.ones(6, dtype=torch.bfloat16))
        assert type(biased(small.bfloat16()).grad_fn).__name__ == "ConvolutionBackward0"
        with torch.no_grad():
            assert Convolution(4, 6).bfloat16()(small.bfloat16()).grad_fn is None


def test_preset_fast_takes_the_fast_way_where_it_can() -> None:
    model = build(MODELS["fast"], seed=0).to(memory_format=torch.channels_last)
    with mock.patch.object(convolution, "AMX", True), torch.autocast("cpu", torch.bfloat16):
        names = operations(model(torch.ones(2, 3, 32, 32)))
    assert names.count("_OnSheetsBackward") == 3 and names.count("ConvolutionBackward0") == 4
