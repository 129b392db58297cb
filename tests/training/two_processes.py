"""One of two processes (test_processes.py is the first and starts the second): their gradients of one batch.

    python two_processes.py RANK FOLDER

The first writes FOLDER/shared.pt: the gradients by name, float64, and the weights after one step of the engine.
"""

import dataclasses
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.recipes import PRESETS
from pipeline.training.device import Device, World
from pipeline.training.state import start
from pipeline.training.step import Step

CPU = Device(torch.device("cpu"), "fp32")
CONFIG = dataclasses.replace(
    PRESETS["rehearsal"], optimizer="sgd", momentum=0.0, weight_decay=0.0, batch_size=31, learning_rate=0.1,
    warmup_epochs=0.0,
)  # fmt: skip
GENERATOR = np.random.default_rng(0)
IMAGES = torch.from_numpy(GENERATOR.integers(0, 256, (31, 32, 32, 3), dtype=np.uint8))
LABELS = torch.from_numpy(GENERATOR.integers(0, 10, 31))


def one_step(world: World) -> dict[str, Tensor]:
    """The gradients and the weights after a step of the engine on a batch; norms in eval mode.

    In training mode each process on a CPU normalises by the statistics of its own share.
    """
    state = start(CONFIG, CPU, world)
    state.model.eval()
    Step(state, CONFIG, CPU, 1, world=world)(IMAGES[world.share], LABELS[world.share], len(IMAGES))
    gradients = {f"gradient of {name}": p.grad for name, p in state.model.named_parameters() if p.grad is not None}
    counts = {"loss": world.total(state.loss_sum), "correct": world.total(state.correct)}
    return gradients | dict(state.model.state_dict()) | counts


def statistics(world: World) -> dict[str, Tensor]:
    """The batch statistics after a step in training mode, once the first process's are everybody's."""
    state = start(CONFIG, CPU, world)
    state.model.train()
    Step(state, CONFIG, CPU, 1, world=world)(IMAGES[world.share], LABELS[world.share], len(IMAGES))
    world.take_first_buffers(state.model)
    return dict(state.model.named_buffers())


def main(rank: int, folder: Path) -> None:
    """Meet the other process in `folder`, compute, and save what each found."""
    # Without a time limit, the first would wait long for a second that has failed.
    limit = timedelta(seconds=100)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=limit)
    world = World(rank, 2)
    torch.save({"step": one_step(world), "statistics": statistics(world)}, folder / f"found-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), Path(sys.argv[2]))
