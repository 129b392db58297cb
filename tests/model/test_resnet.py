from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, gelu, max_pool2d
from torchvision import models

from pipeline.config import MEAN, STD
from pipeline.errors import BadData
from pipeline.model import resnet
from pipeline.model.resnet import PooledConvolution, ResidualConvolution, build, folded, normalise, whiten
from pipeline.model.summary import summarise
from pipeline.recipes import MODELS, ModelConfig

CONFIG = MODELS["rehearsal"]


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
    first, again, other = (build(CONFIG, seed).state_dict() for seed in (1, 1, 2))
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


def test_a_pooled_stage_is_a_pooled_convolution_and_residual_ones() -> None:
    model = build(ModelConfig("small", 4, (6,), (1,), (2,), pooled=True), seed=0).eval()
    first, second = model.stages[0].children()
    assert isinstance(first, PooledConvolution) and isinstance(second, ResidualConvolution)
    for norm in (first.bn, second.bn):
        nn.init.normal_(norm.bias)
        nn.init.uniform_(norm.get_buffer("running_mean"), -1, 1)
    x = torch.randn(2, 4, 31, 31, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pooled = max_pool2d(conv2d(x, first.conv.weight, padding=1), 2)
        torch.testing.assert_close(pooled[:, :4], max_pool2d(x, 2))  # at first the identity
        half = gelu(batch_norm(pooled, first.bn.get_buffer("running_mean"), torch.ones(6), None, first.bn.bias))
        both = half + conv2d(half, second.conv.weight, padding=1)
        expected = gelu(batch_norm(both, second.bn.get_buffer("running_mean"), torch.ones(6), None, second.bn.bias))
        torch.testing.assert_close(model.stages(x), expected)
        torch.testing.assert_close(model.features(x.new_ones(2, 3, 24, 24)).shape, torch.Size([2, 6]))


@pytest.mark.parametrize("config", [CONFIG, MODELS["fast"]], ids=["plain", "pooled"])
def test_a_folded_model_gives_the_same_logits_channels_last_and_leaves_the_model_alone(
    config: ModelConfig,
) -> None:
    model, generator = build(config, seed=0), torch.Generator().manual_seed(1)
    with torch.no_grad():  # as if the norms had seen something, each channel another
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            for values in [*norm.parameters(), norm.get_buffer("running_mean"), norm.get_buffer("running_var")]:
                values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    images = torch.randn(16, 3, 32, 32, generator=generator)
    result = folded(model)
    assert model.training and not result.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in result.modules())
    kernels = [m.weight for m in result.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert kernels and all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    with torch.no_grad():
        found = result(images)
        for values in result.parameters():
            values.zero_()
        expected = model.eval()(images)
    spread = expected.std()
    assert spread > 1e-3
    torch.testing.assert_close(found / spread, expected / spread, rtol=1e-4, atol=1e-3)


def test_a_whitened_stems_outputs_are_uncorrelated_of_unit_variance_and_its_filters_come_in_pairs_and_stay() -> None:
    generator = np.random.default_rng(0)
    # Neighbouring pixels resemble each other, as in photographs.
    smooth = generator.integers(0, 256, (200, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    images = torch.from_numpy((smooth + generator.integers(-30, 30, smooth.shape)).clip(0, 255).astype(np.uint8))
    model = build(MODELS["fast"], seed=0)
    whiten(model, images)
    outputs = model.conv1(normalise(images))[:, :12].permute(1, 0, 2, 3).flatten(1).double()
    torch.testing.assert_close(outputs @ outputs.T / outputs.shape[1], torch.eye(12).double(), rtol=0, atol=0.02)
    first, second = model.conv1.weight.chunk(2)
    assert torch.equal(first, -second)
    cost = summarise(MODELS["fast"])
    scales = 2 * (64 + 256 + 256)  # of the norms: one, as the filters
    assert cost.parameters - cost.trainable - scales == model.conv1.weight.numel() == 24 * 12


def test_saved_weights_come_back_the_same_and_equal_ones_give_equal_bytes(tmp_path: Path) -> None:
    state = build(CONFIG, seed=3).to(memory_format=torch.channels_last).state_dict()
    for name in ("a", "b"):
        resnet.save(tmp_path / name, state, CONFIG)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = resnet.load(tmp_path / "a", CONFIG)
    assert not loaded.training
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


def test_damaged_weights_and_those_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    resnet.save(path, build(CONFIG, seed=3).state_dict(), CONFIG)
    with pytest.raises(BadData, match="does not hold weights of model paper"):
        resnet.load(path, MODELS["paper"])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadData, match="does not hold weights of model rehearsal"):
        resnet.load(path, CONFIG)
