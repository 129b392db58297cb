import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, max_pool2d, relu
from torchvision import models

from pipeline.config import MEAN, STD
from pipeline.model.resnet import BasicBlock, PooledConvolution, build, normalise
from pipeline.recipes import MODELS, ModelConfig


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_baselines_compute_what_torchvisions_do_with_a_cifar_stem(name: str) -> None:
    ours = build(MODELS[name], seed=0).eval()
    theirs = getattr(models, name)(num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    # Both list their layers in the same order, under other names.
    values = zip(theirs.state_dict(), ours.state_dict().values(), strict=True)
    theirs.load_state_dict(dict(values))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs.eval()(images))


def test_initialisation_depends_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (build(MODELS["rehearsal"], seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_normalising_is_the_papers_and_ends_channels_last() -> None:
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    result = normalise(images)
    expected = (images.double() / 255 - torch.tensor(MEAN).double()) / torch.tensor(STD).double()
    torch.testing.assert_close(result.double(), expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


def normalised(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    return batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def test_a_pooled_stage_pools_before_it_normalises() -> None:
    model = build(ModelConfig("small", 4, (6,), (1,), (2,), pooled=True), seed=0).eval()
    first, block = model.stages[0].children()
    assert isinstance(first, PooledConvolution) and isinstance(block, BasicBlock)
    nn.init.uniform_(first.bn.weight, -1, 1)  # where a scale is negative, the order of pooling and norm matters
    x = torch.randn(2, 4, 31, 31, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        half = relu(normalised(max_pool2d(conv2d(x, first.conv.weight, padding=1), 2), first.bn))
        assert half.shape == (2, 6, 15, 15)
        torch.testing.assert_close(model.stages(x), block(half))


@pytest.mark.parametrize("pooled", [False, True])
def test_each_block_has_squeeze_and_excitation(pooled: bool) -> None:
    model = build(ModelConfig("small", 4, (8, 8), (2, 1), (2, 2), se=4, pooled=pooled), seed=0)
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock)]
    assert len(blocks) == 3 and all(len(block.se) == 1 for block in blocks)
