"""weights.safetensors: a network's parameters and buffers, float32, with its ModelConfig in the metadata."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from pipeline.errors import BadData
from pipeline.model.resnet import ResNet, build_without_memory
from pipeline.recipes import ModelConfig
from pipeline.store import atomic


def save(path: Path, state: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Write a state dict of the network `config`, atomically.  Equal weights give equal bytes."""
    tensors = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in state.items()
    }
    # One key only: safetensors writes several in a random order, and the file's sha256 would vary.
    metadata = {"model": json.dumps(dataclasses.asdict(config))}
    atomic.write_bytes(path, to_bytes(tensors, metadata))


def load(path: Path, config: ModelConfig) -> ResNet:
    """The network `config` with the weights in `path`: float32, on the CPU, channels_last, in evaluation mode.

    Raises:
        BadData: the file is damaged, or belongs to another network.
    """
    try:
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        network = build_without_memory(config)
        network.load_state_dict(state, assign=True)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BadData(f"{path} holds no weights of model {config.name} ({reason}): train it again") from error
    return network.to(memory_format=torch.channels_last).eval()
