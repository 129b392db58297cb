"""Where the networks run, and how precisely: chosen once, shared by training and prediction."""

import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist

from pipeline.errors import PipelineError, UsageError, printable
from pipeline.training.processes import local_rank

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
