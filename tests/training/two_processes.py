"""One of two processes (test_processes.py is the first and starts the second): what a batch's share gives each of them.

    python two_processes.py RANK FOLDER

The first writes FOLDER/shared.pt: `gradients` in float64, and the `weights` after one step of the engine.
"""

import dataclasses
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from pipeline.model.resnet import build
from pipeline.recipes import PRESETS
from pipeline.training.device import Device, World, share_batch_norms
from pipeline.training.state import start
from pipeline.training.step import Step

CPU = Device(torch.device("cpu"), "fp32")
CONFIG = dataclasses.replace(PRESETS["rehearsal"], optimizer="sgd", momentum=0.0, batch_size=31)
GENERATOR = np.random.default_rng(0)
IMAGES = torch.from_numpy(GENERATOR.integers(0, 256, (31, 32, 32, 3), dtype=np.uint8))
LABELS = torch.from_numpy(GENERATOR.integers(0, 10, 31))


def gradients(world: World) -> dict[str, Tensor]:
    """The whole batch's gradients and batch statistics, float64: so exact that only an error can tell them apart."""
    network = build(CONFIG.model, 0).double().train()
    forward: torch.nn.Module = network
    if not world.alone:
        share_batch_norms(network)
        forward = DistributedDataParallel(network)
    inputs, labels = IMAGES[world.share].double().permute(0, 3, 1, 2) / 255, LABELS[world.share]
    loss = cross_entropy(forward(inputs), labels, reduction="sum") * (world.size / len(IMAGES))
    torch.autograd.backward(loss)
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return found | {name: buffer for name, buffer in network.named_buffers() if buffer.is_floating_point()}


def weights(world: World) -> dict[str, Tensor]:
    """The network after one step of the engine."""
    state = start(CONFIG, CPU)
    if not world.alone:
        share_batch_norms(state.network)
    state.network.train()
    Step(state, CONFIG, CPU, world=world)(IMAGES, LABELS, 0.1)
    counts = {"loss": world.total(state.loss_sum), "correct": world.total(state.correct)}
    return dict(state.network.state_dict()) | counts


def main(rank: int, folder: Path) -> None:
    """Meet the other process in `folder`, compute, and save what the first found."""
    # Without a time limit, the first would wait long for a second that has failed.
    limit = timedelta(seconds=100)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=limit)
    world = World(rank, 2)
    found = {"gradients": gradients(world), "weights": weights(world)}
    if world.first:
        torch.save(found, folder / "shared.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), Path(sys.argv[2]))
