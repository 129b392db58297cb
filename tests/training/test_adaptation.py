from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.model.resnet import ResNet, build, normalise
from pipeline.recipes import MODELS
from pipeline.training import inference
from pipeline.training.inference import adapted
from tests.support import images as smooth_images


@pytest.fixture
def images() -> NDArray[np.uint8]:
    """Between 20 and 150, so that they can be made brighter."""
    return (20 + smooth_images(60) // 2).astype(np.uint8)


@pytest.fixture
def network(images: NDArray[np.uint8]) -> ResNet:
    """As trained on these images, as far as the norms know."""
    result = build(MODELS["rehearsal"], 0).train()
    for norm in norms(result):
        norm.momentum = 1.0
    logits(result, images)
    return result.eval()


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def statistics(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


@torch.no_grad()
def logits(network: ResNet, images: NDArray[np.uint8]) -> torch.Tensor:
    found: torch.Tensor = network(normalise(torch.from_numpy(images)))
    return found


def brighter(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images + np.uint8(100)


def flatter(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (images // 3).astype(np.uint8)


@pytest.mark.parametrize("batch", [250, 25])
def test_statistics_move_as_the_images_do(
    batch: int, images: NDArray[np.uint8], network: ResNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "BATCH", batch)
    mean, var = statistics(norms(network)[0])
    mean.copy_(torch.arange(16.0))  # as training may have left them
    var.copy_(torch.linspace(0.5, 2, 16))
    found = statistics(norms(adapted(network, flatter(images), images))[0])

    def by_hand(these: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            seen = network.conv1(normalise(torch.from_numpy(these)))
        parts = seen.split(60 if batch == 250 else 20)  # 60 images are 3 batches of 20 rather than 25, 25 and 10
        means, variances = ([of(part, dim=(0, 2, 3)) for part in parts] for of in (torch.mean, torch.var))
        return torch.stack(means).mean(dim=0), torch.stack(variances).mean(dim=0)

    (mean_there, var_there), (mean_here, var_here) = by_hand(flatter(images)), by_hand(images)
    torch.testing.assert_close(found[0], torch.arange(16.0) + mean_there - mean_here, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], torch.linspace(0.5, 2, 16) * var_there / var_here, rtol=1e-4, atol=1e-5)


def test_images_like_the_reference_change_nothing(images: NDArray[np.uint8]) -> None:
    """Even where the statistics are of other images, as training augments them."""
    network = build(MODELS["rehearsal"], 0).eval()
    for norm in norms(network):
        mean, var = statistics(norm)
        mean.fill_(0.1)
        var.fill_(0.7)
    found = adapted(network, images, images)
    torch.testing.assert_close(logits(found, images), logits(network, images), rtol=1e-5, atol=1e-5)


def test_how_often_the_norms_were_updated_counts_nothing(network: ResNet, images: NDArray[np.uint8]) -> None:
    found = logits(adapted(network, brighter(images), images), images)
    for norm in norms(network):
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.fill_(5)
    torch.testing.assert_close(logits(adapted(network, brighter(images), images), images), found)


def test_the_network_itself_is_unchanged(network: ResNet, images: NDArray[np.uint8]) -> None:
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = adapted(network, brighter(images), images)
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(module.training for module in network.modules())
    assert all(norm.momentum == 1.0 for norm in norms(network))
    assert not any(module.training for module in found.modules())
    weights = dict(found.named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in network.named_parameters())
    assert found.state_dict().keys() == before.keys()
    assert not any(torch.equal(statistics(norm)[0], before["bn1.running_mean"]) for norm in norms(found)[:1])
    torch.testing.assert_close(logits(found, images), logits(found, images))  # answering changes nothing either


@pytest.mark.parametrize("change", [brighter, flatter])
def test_other_images_changed_alike_are_answered_as_if_they_were_not(
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], network: ResNet, images: NDArray[np.uint8]
) -> None:
    others = (20 + smooth_images(60, seed=1) // 2).astype(np.uint8)
    clean, changed = logits(network, others), change(others)
    unadapted = (logits(network, changed) - clean).norm()
    assert (logits(adapted(network, changed, images), changed) - clean).norm() < unadapted / 2


def test_two_images_are_enough(network: ResNet, images: NDArray[np.uint8]) -> None:
    assert logits(adapted(network, images[:2], images[2:4]), images[:2]).isfinite().all()


def test_a_channel_that_is_silent_on_the_reference_gives_finite_answers(
    network: ResNet, images: NDArray[np.uint8]
) -> None:
    flat = np.full_like(images, 90)  # no layer but for its border varies
    assert logits(adapted(network, images, flat), images).isfinite().all()
    with torch.no_grad():
        network.conv1.weight[3] = 0
    assert logits(adapted(network, images, images), images).isfinite().all()
