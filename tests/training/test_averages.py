import pytest
import torch

from pipeline.model.resnet import build
from pipeline.recipes import MODELS
from pipeline.training.optim import Averages


def test_the_average_is_the_weighted_mean_of_what_was_visited() -> None:
    network = build(MODELS["rehearsal"], seed=0)
    averages, visited = Averages(network, 0.8), []
    for step in range(5):
        with torch.no_grad():
            network.fc.bias.fill_(float(step))
            network.get_buffer("bn1.running_mean").fill_(10.0 * step)
        averages.update()
        visited.append(float(step))
        weights = [0.8 ** (step - k) for k in range(step + 1)]
        expected = sum(w * v for w, v in zip(weights, visited, strict=True)) / sum(weights)
        now = averages.weights(step + 1)
        assert now["fc.bias"].tolist() == pytest.approx([expected] * 10)
        assert now["bn1.running_mean"][0].item() == pytest.approx(10 * expected)


def test_it_survives_the_checkpoint() -> None:
    first, second = (Averages(build(MODELS["rehearsal"], seed=seed), 0.9) for seed in (0, 1))
    first.update()
    second.load_state_dict({name: total.clone() for name, total in first.state_dict().items()})
    assert all(torch.equal(second.weights(1)[name], value) for name, value in first.weights(1).items())
