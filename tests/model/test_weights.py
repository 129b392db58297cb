from pathlib import Path

import pytest
import torch

from pipeline.errors import BadData
from pipeline.model import resnet
from pipeline.model.resnet import build
from pipeline.recipes import MODELS

CONFIG = MODELS["rehearsal"]


def test_saved_weights_come_back_the_same(tmp_path: Path) -> None:
    state = build(CONFIG, seed=3).to(memory_format=torch.channels_last).state_dict()
    resnet.save(tmp_path / "weights.safetensors", state, CONFIG)
    loaded = resnet.load(tmp_path / "weights.safetensors", CONFIG)
    assert not loaded.training
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        resnet.save(tmp_path / name, build(CONFIG, seed=3).state_dict(), CONFIG)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_damaged_weights_and_those_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    resnet.save(path, build(CONFIG, seed=3).state_dict(), CONFIG)
    with pytest.raises(BadData, match="holds no weights of model paper"):
        resnet.load(path, MODELS["paper"])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadData, match="holds no weights of model rehearsal"):
        resnet.load(path, CONFIG)
