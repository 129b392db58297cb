"""Several processes that train one network together, each on its share of every batch (torchrun).

Batch statistics, losses and gradients are those of the whole batch, so the result is a single process's within
rounding (but for dropout's masks).  Without torchrun a process is alone, and everything here does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from pipeline.errors import PipelineError

PATIENCE = timedelta(minutes=10)  # how long processes wait for each other: longer than any step, validation or save


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that reports and writes."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    def share(self, tensor: Tensor) -> Tensor:
        """This process's rows of a whole batch, (B, ...) -> (about B / size, ...); each row is exactly one's."""
        return tensor if self.alone else tensor[self.rank :: self.size]

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes; the tensor itself if there is one."""
        if self.alone:
            return tensor
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process; all must ask."""
        return flag if self.alone else bool(self.total(torch.tensor(float(flag), device=device)) > 0)

    def wait(self) -> None:
        """Until all have come here."""
        if not self.alone:
            dist.barrier()


ALONE = World()


def launched() -> bool:
    """Whether this process is one of several: torchrun started it, or a process group is there already."""
    return (dist.is_available() and dist.is_initialized()) or int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """The number of this process on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """This process's place: in a process group that is there already, in torchrun's, or alone.

    Raises:
        PipelineError: the connection to another process broke, because that one ended.
    """
    if not launched():
        yield ALONE
        return
    own = not dist.is_initialized()
    if own:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not _connection(error):
            raise
        raise PipelineError(
            f"process {dist.get_rank()} of {dist.get_world_size()} lost another one, which has ended: see that one's "
            "error above; then run the same command again to go on from the checkpoint"
        ) from error
    finally:
        if own:
            dist.destroy_process_group()


def _connection(error: RuntimeError) -> bool:
    # nccl has classes for it; gloo raises a plain RuntimeError that names its source file.
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


# --- batch normalisation over all processes ---------------------------------------------------------------------


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(_ctx: FunctionCtx, values: Tensor) -> Tensor:
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed


class _SharedBatchNorm(nn.BatchNorm2d):
    """Normalises by the statistics of the whole batch.  (nn.SyncBatchNorm refuses CPUs.)"""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        values = x.to(torch.promote_types(x.dtype, torch.float32))  # half precision is too coarse for sums
        count = torch.full((1,), values[:, 0].numel(), dtype=values.dtype, device=x.device)
        sums = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count])
        total, squares, rows = _Sum.apply(sums).split([x.shape[1], x.shape[1], 1])
        mean = total / rows
        variance = (squares / rows - mean.square()).clamp_min(0)  # rounding may take it below
        with torch.no_grad():
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * rows / (rows - 1), self.momentum)  # unbiased, as nn.BatchNorm2d's is
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalised: Tensor = (values - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]
        return normalised.to(x.dtype)


def share_batch_norms(network: nn.Module) -> None:
    """Make the batch normalisations of `network` look at the whole batch, in place; names and weights stay."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _SharedBatchNorm
