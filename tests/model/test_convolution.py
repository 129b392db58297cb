from unittest import mock

import pytest
import torch
from torch.nn.functional import conv2d

from pipeline.model import convolution
from pipeline.model.convolution import Convolution, cut_out, sheets
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
    assert torch.equal(cut_out(result, 12, 7), images)


@pytest.mark.parametrize(("residual", "biased"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(("batch", "width"), [(12, 7), (7, 3), (16, 5), (5, 1)])
def test_on_a_cpu_with_amx_images_and_gradients_are_a_convolutions(
    batch: int, width: int, residual: bool, biased: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    with mock.patch.object(convolution, "AMX", True):
        module = Convolution(4, 4 if residual else 6, residual=residual)
        if biased:  # as folding makes it
            module.bias = torch.nn.Parameter(torch.arange(6) / 4)
        x = torch.randn(batch, 4, width, width, generator=generator).bfloat16().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            found = module(x)
    assert type(found.grad_fn).__name__ == "_OnSheetsBackward"
    upstream = torch.randn(found.shape, generator=generator).bfloat16()
    torch.autograd.backward(found, upstream)
    plain, weight = x.detach().float().requires_grad_(), module.weight.detach().bfloat16().float().requires_grad_()
    bias = (torch.arange(6) / 4).requires_grad_()
    expected = conv2d(plain, weight, bias if biased else None, padding=1) + (plain if residual else 0)
    torch.autograd.backward(expected, upstream.float())
    pairs = [(found, expected), (x.grad, plain.grad), (module.weight.grad, weight.grad)]
    for ours, theirs in [*pairs, (module.bias.grad, bias.grad)] if module.bias is not None else pairs:
        assert ours is not None and theirs is not None
        torch.testing.assert_close(ours.float(), theirs, rtol=0.02, atol=0.02 * theirs.abs().max().item())


def test_other_convolutions_are_pytorchs() -> None:
    with mock.patch.object(convolution, "AMX", True):
        small, wide = torch.ones(2, 4, 6, 6), torch.ones(2, 4, 8, 8, dtype=torch.bfloat16)
        for x, module in ((small, Convolution(4, 6)), (wide, Convolution(4, 6).bfloat16())):
            assert type(module(x).grad_fn).__name__ == "ConvolutionBackward0"
        strided = Convolution(4, 6, 2).bfloat16()(small.bfloat16())
        assert type(strided.grad_fn).__name__ == "ConvolutionBackward0" and strided.shape == (2, 6, 3, 3)


def test_preset_fast_takes_the_fast_way_where_it_can() -> None:
    model = build(MODELS["fast"], seed=0).to(memory_format=torch.channels_last)
    with mock.patch.object(convolution, "AMX", True), torch.autocast("cpu", torch.bfloat16):
        names = operations(model(torch.ones(2, 3, 32, 32)))
    assert names.count("_OnSheetsBackward") == 3 and names.count("ConvolutionBackward0") == 4
