import pytest
import torch
from torch import nn
from torchvision import models

from pipeline.model.resnet import build
from pipeline.recipes import MODELS


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
