import numpy as np
import torch

from pipeline.model.resnet import build, normalise, whiten
from pipeline.model.summary import summarise
from pipeline.recipes import MODELS

GENERATOR = np.random.default_rng(0)
# Neighbouring pixels resemble each other, as in photographs.
IMAGES = torch.from_numpy(GENERATOR.integers(0, 256, (200, 8, 8, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8))
NOISE = torch.from_numpy(GENERATOR.integers(-30, 30, IMAGES.shape))
IMAGES = (IMAGES + NOISE).clip(0, 255).to(torch.uint8)


def test_the_stems_outputs_are_uncorrelated_of_unit_variance_and_its_filters_come_in_pairs_and_stay() -> None:
    model = build(MODELS["fast"], seed=0)
    whiten(model, IMAGES)
    outputs = model.conv1(normalise(IMAGES))[:, :12].permute(1, 0, 2, 3).flatten(1).double()
    torch.testing.assert_close(outputs @ outputs.T / outputs.shape[1], torch.eye(12).double(), rtol=0, atol=0.02)
    first, second = model.conv1.weight.chunk(2)
    assert torch.equal(first, -second)
    assert not model.conv1.weight.requires_grad
    cost = summarise(MODELS["fast"])
    assert cost.parameters - cost.trainable == model.conv1.weight.numel() == 24 * 12
