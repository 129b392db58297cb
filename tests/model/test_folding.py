import dataclasses

import pytest
import torch
from torch import nn

from pipeline.model.resnet import ResNet, build, folded
from pipeline.recipes import MODELS, ModelConfig

CONFIGS = {  # and the batch normalisations that stay, those after a pooling
    "plain": (MODELS["rehearsal"], 0),
    "fast": (MODELS["fast"], 3),
    "se": (dataclasses.replace(MODELS["rehearsal"], se=4), 0),
}


def experienced(config: ModelConfig) -> ResNet:
    """A model in training mode whose batch normalisations have seen something, each channel another."""
    model = build(config, seed=0).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.weight, module.bias, module.running_mean, module.running_var):
                    assert values is not None
                    values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    return model


@pytest.mark.parametrize(("config", "left"), CONFIGS.values(), ids=CONFIGS)
def test_a_folded_model_gives_the_same_logits_channels_last_and_leaves_the_model_alone(
    config: ModelConfig, left: int
) -> None:
    model = experienced(config)
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    result = folded(model)
    assert model.training and not result.training
    assert sum(isinstance(module, nn.BatchNorm2d) for module in result.modules()) == left
    kernels = [m.weight for m in result.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert kernels and all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    with torch.no_grad():
        found = result(images)
        for values in result.parameters():
            values.zero_()
        expected = model.eval()(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
