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
    """A network in training mode whose batch normalisations have seen something, each channel another."""
    network = build(config, seed=0).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.weight, module.bias, module.running_mean, module.running_var):
                    assert values is not None
                    values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    return network


@pytest.mark.parametrize(("config", "left"), CONFIGS.values(), ids=CONFIGS)
def test_a_folded_network_gives_the_same_logits(config: ModelConfig, left: int) -> None:
    network = experienced(config)
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    answering = folded(network)
    assert network.training and not answering.training
    assert sum(isinstance(module, nn.BatchNorm2d) for module in answering.modules()) == left
    with torch.no_grad():
        expected, found = network.eval()(images), answering(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_folding_leaves_the_network_as_it_was() -> None:
    network = experienced(MODELS["rehearsal"])
    before = {name: values.clone() for name, values in network.state_dict().items()}
    answering = folded(network)
    with torch.no_grad():
        for values in answering.parameters():
            values.zero_()
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(values, before[name]) for name, values in after.items())


def test_a_folded_network_keeps_the_memory_format() -> None:
    answering = folded(experienced(MODELS["rehearsal"]))
    assert answering.conv1.bias is not None
    kernels = [m.weight for m in answering.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert kernels and all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
