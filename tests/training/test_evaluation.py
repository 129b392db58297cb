import numpy as np
import pytest
import torch

from pipeline.model.resnet import build, normalise
from pipeline.recipes import MODELS
from pipeline.training.device import Device
from pipeline.training.inference import EvaluationImages, evaluate


def test_evaluation_equals_the_plain_way() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (600, 32, 32, 3), dtype=np.uint8)  # more than one batch
    labels = generator.integers(0, 10, 600)
    network = build(MODELS["rehearsal"], seed=0)
    cpu = Device(torch.device("cpu"), "fp32")
    score = evaluate(network, EvaluationImages(images, labels, cpu.torch_device), cpu)
    with torch.no_grad():
        logits = network.eval()(normalise(torch.tensor(images)))
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).item()
    assert score.loss == pytest.approx(expected, rel=1e-5)
    assert score.accuracy == pytest.approx(100 * (logits.argmax(1).numpy() == labels).mean())
