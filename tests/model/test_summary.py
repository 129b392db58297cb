import json

import pytest
import torch

from pipeline.model import __main__ as command_line
from pipeline.model.resnet import ResNet
from pipeline.recipes import MODELS, ModelConfig


def test_the_papers_network_has_the_papers_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values.pop("macs") / 1e6 == pytest.approx(259.3, abs=0.05)
    assert values == {
        "parameters": 4_893_566, "trainable": 4_893_566, "input_mb": 0.01, "forward_backward_mb": 8.91,
        "parameters_mb": 18.67, "total_mb": 27.59,
    }  # fmt: skip


def test_the_table_names_layers_and_totals_and_marks_what_is_over_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--verbose"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["conv1", "Conv2d", "36", "x", "32", "x", "32", "972", "995,328"] in map(str.split, lines)
    assert lines[:2] == ["model paper: 4,893,566 parameters, 259.3M MACs per image",
                         "trainable 4,893,566: within the limit of 5,000,000"]  # fmt: skip
    assert command_line.main(["--model", "resnet18"]) == 0
    *_, limit, memory = capsys.readouterr().out.splitlines()
    assert limit == "trainable 11,173,962: OVER the limit of 5,000,000" and memory.startswith("memory in MB: ")
    assert command_line.main(["--model", "resnet19"]) == 2


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_count_without_pytorch_is_pytorchs(model: ModelConfig) -> None:
    with torch.device("meta"):
        built = ResNet(model)
    assert model.trainable_parameters == sum(p.numel() for p in built.parameters() if p.requires_grad)
