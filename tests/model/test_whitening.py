import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.model.inputs import normalise
from pipeline.model.resnet import build
from pipeline.model.summary import summarise
from pipeline.model.whitening import whiten
from pipeline.recipes import MODELS, ModelConfig

CONFIG = ModelConfig("whitened", 54, (54,), (1,), (2,), whitened=True)
GENERATOR = np.random.default_rng(0)
# Neighbouring pixels resemble each other, as in photographs.
IMAGES = torch.from_numpy(GENERATOR.integers(0, 256, (200, 8, 8, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8))
NOISE = torch.from_numpy(GENERATOR.integers(-30, 30, IMAGES.shape))
IMAGES = (IMAGES + NOISE).clip(0, 255).to(torch.uint8)


def test_the_stems_answers_are_uncorrelated_and_of_unit_variance() -> None:
    network = build(CONFIG, seed=0)
    whiten(network, IMAGES)
    inside = network.conv1(normalise(IMAGES))[:, :27, 1:-1, 1:-1]  # without the padded border
    answers = inside.permute(1, 0, 2, 3).flatten(1).double()
    torch.testing.assert_close(answers @ answers.T / answers.shape[1], torch.eye(27).double(), rtol=0, atol=0.02)


def test_each_filter_has_its_negative_and_is_not_trained() -> None:
    network = build(MODELS["fast"], seed=0)
    whiten(network, IMAGES)
    first, second = network.conv1.weight.chunk(2)
    assert torch.equal(first, -second)
    assert not network.conv1.weight.requires_grad
    cost = summarise(MODELS["fast"])
    assert cost.parameters - cost.trainable == network.conv1.weight.numel() == 32 * 27


@pytest.mark.parametrize("stem", [33, 56])
def test_a_stem_that_cannot_be_whitened_is_refused(stem: int) -> None:
    with pytest.raises(UsageError, match=f"even number of channels, at most 54, not {stem}"):
        ModelConfig("odd", stem, (64,), (1,), (1,), whitened=True)
