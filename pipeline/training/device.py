"""Where the networks run, and how precisely: chosen once, shared by training and prediction."""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from pipeline.errors import PipelineError, UsageError, printable

# --- Several processes that train one network together, each on its share of every batch (torchrun).


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

    @property
    def share(self) -> slice:
        """This process's rows of a whole batch, (B, ...) -> (about B / size, ...); each row is exactly one's."""
        return slice(self.rank, None, self.size)

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


Precision = Literal["fp32", "bf16"]

# How the errors of a device begin, as against those of a program that runs on it.
_DEVICE_FAILED = re.compile(r"CUDA (driver )?error|CUDNN_STATUS_|CUBLAS_STATUS_|HIP error")
_NO_MEMORY = re.compile(r"can't allocate memory|CUDA error: out of memory")


@dataclass(frozen=True)
class Device:
    """A device, and the precision of convolutions there; weights are always float32."""

    torch_device: torch.device
    precision: Precision
    compiled: bool = False  # whether training compiles the network

    @property
    def description(self) -> str:
        """For people and for result.json: the kind, and its model where that is known."""
        if self.torch_device.type == "cuda":
            return f"cuda ({torch.cuda.get_device_name(self.torch_device)})"
        threads = torch.get_num_threads()
        plural = "" if threads == 1 else "s"
        return f"{self.torch_device.type} ({platform.machine()}, {threads} thread{plural})"

    def autocast(self) -> torch.autocast:
        """A context in which convolutions and linear layers compute in the device's precision."""
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.precision == "bf16")


def choose(asked: str) -> Device:
    """The device `asked` for: "cuda", "mps", "cpu", or "auto" for the first of these that is there.

    Raises:
        UsageError: this machine has no such device.
        PipelineError: it does not answer.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    kind = next(name for name, here in present.items() if here) if asked == "auto" else asked
    if not present.get(kind, False):
        available = ", ".join(name for name, here in present.items() if here)
        raise UsageError(f"--device {asked}: PyTorch finds none here; available: {available}")
    if kind == "cuda":
        torch.backends.cudnn.benchmark = True  # shapes are few and fixed: measure once which algorithm is fastest
        if not dist.is_initialized():  # else whoever made the process group has chosen the GPU
            if local_rank() >= torch.cuda.device_count():
                raise UsageError(
                    f"there are {torch.cuda.device_count()} GPUs: lower torchrun's --nproc_per_node to that"
                )
            try:
                torch.cuda.set_device(local_rank())
            except RuntimeError as error:
                raise _failure("cuda", error) from error
    return Device(torch.device(kind), "bf16" if _fast_bf16(kind) else "fp32")


def _fast_bf16(kind: str) -> bool:
    """Whether the processor itself computes in bfloat16; where it is emulated, it is slower than float32."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "cpu":
        # PyTorch has no public question for this; a version without these gets float32.
        names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, name, bool)() for name in names)
    return False


@contextmanager
def device_advice(device: Device, batch_size: int) -> Iterator[None]:
    """Turns a device's failures, of which "out of memory" is the most frequent, into advice.

    Raises:
        PipelineError: the device has not enough memory (it names a batch size to try), or it failed.
    """
    description = device.torch_device.type
    try:
        description = device.description  # now: a device that is gone does not tell it
        yield
    except RuntimeError as error:
        # CUDA and MPS have a class of their own; the CPU's allocator raises a plain RuntimeError.
        if isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY.search(str(error)):
            smaller = max(batch_size // 2, 2)
            raise PipelineError(
                f"{description} has not enough memory for --batch-size {batch_size}: "
                f"try --batch-size {smaller}, or free memory there"
            ) from error
        if not _device_failed(error):
            raise
        raise _failure(description, error) from error


def _device_failed(error: RuntimeError) -> bool:
    """Whether the device is to blame: it vanished, hung, or its driver lost it."""
    own = getattr(torch, "AcceleratorError", ())  # from PyTorch 2.8 on
    return isinstance(error, own) or bool(_DEVICE_FAILED.search(str(error)))


def _failure(description: str, error: RuntimeError) -> PipelineError:
    reason = printable(str(error).partition("\n")[0])
    return PipelineError(
        f"{description} failed ({reason}): run the same command again (training goes on from its last checkpoint); "
        "if the device fails again, add --device cpu"
    )


# --- the machine, for people: `Linux 6.1.0 x86_64, AMD EPYC 9R14, 2 cores, 24 GB` --------------------------


CPUINFO = Path("/proc/cpuinfo")  # Linux has the processor's name there


def machine() -> str:
    """Operating system, processor, the cores and the memory (GB of 10**9 bytes) as far as they are known."""
    try:
        model = re.search(r"^model name\s*:\s*(.+)$", CPUINFO.read_text(errors="replace"), re.MULTILINE)
        processor = " ".join(model[1].split()) if model else platform.processor()
    except OSError:
        processor = platform.processor()
    try:
        memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB"
    except (ValueError, OSError, AttributeError):
        memory = ""
    cores = os.cpu_count() or 1
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return ", ".join(filter(None, [system, processor, f"{cores} core{'s' if cores > 1 else ''}", memory]))
