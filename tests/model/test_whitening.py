import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.model.resnet import build, normalise, whiten
from pipeline.model.summary import summarise
from pipeline.recipes import MODELS, ModelConfig

CONFIG = ModelConfig("whitened", 24, (24,), (1,), (2,), whitened=True)
GENERATOR = np.random.default_rng(0)
# Neighbouring pixels resemble each other, as in photographs.
IMAGES = torch.from_numpy(GENERATOR.integers(0, 256, (200, 8, 8, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8))
NOISE = torch.from_numpy(GENERATOR.integers(-30, 30, IMAGES.shape))
IMAGES = (IMAGES + NOISE).clip(0, 255).to(torch.uint8)


def test_the_stems_answers_are_uncorrelated_and_of_unit_variance() -> None:
    network = build(CONFIG, seed=0)
    whiten(network, IMAGES)
    answers = network.conv1(normalise(IMAGES))[:, :12].permute(1, 0, 2, 3).flatten(1).double()
    torch.testing.assert_close(answers @ answers.T / answers.shape[1], torch.eye(12).double(), rtol=0, atol=0.02)


def test_each_filter_has_its_negative_and_is_not_trained() -> None:
    network = build(MODELS["fast"], seed=0)
    whiten(network, IMAGES)
    first, second = network.conv1.weight.chunk(2)
    assert torch.equal(first, -second)
    assert not network.conv1.weight.requires_grad
    cost = summarise(MODELS["fast"])
    assert cost.parameters - cost.trainable == network.conv1.weight.numel() == 24 * 12


def test_a_whitened_stem_of_other_width_is_refused() -> None:
    with pytest.raises(UsageError, match="a whitened stem has 24 channels, not 32"):
        ModelConfig("odd", 32, (64,), (1,), (1,), whitened=True)
