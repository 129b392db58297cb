"""The device, its precision, compilation, and the processes of torchrun.

Rules decide, so the same command on the same machine computes in the same way:

    bf16     if the hardware supports it and the model has at least BF16_MACS multiply-accumulates per image
    compile  with --compile auto, if a single process trains on CUDA, and the whole training takes at least COMPILE_MACS
             multiply-accumulates

If a compiler, bf16, a fused optimizer or, with --device auto, a GPU fails, the log says so, and training does without.
"""

import ctypes
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import conv2d

from pipeline.config import single_process
from pipeline.errors import DeviceFailed, Log, PipelineError, UsageError, first_line, printable
from pipeline.recipes import Compile

BF16_MACS = 10e6  # per image; below, conversion costs as much as bf16 gains
# Of the whole training, backward included; compilation takes 1 to 3 minutes.  An estimate, since no GPU was at hand.
# On CPUs compiled models are no faster, with AMX a third to a half slower (tests/bench/RESULTS.md).
COMPILE_MACS = 2e15

CACHE = "TORCHINDUCTOR_CACHE_DIR"  # the environment's variable

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Device:
    """A device and its precision for convolutions, stored in execution.json; weights are always float32."""

    kind: str  # "cuda", "mps" or "cpu"
    precision: Precision
    compiled: bool = False  # whether training compiles the model

    @property
    def torch_device(self) -> torch.device:
        """As PyTorch's type."""
        return torch.device(self.kind)

    @property
    def description(self) -> str:
        """For result.json: the kind and, if known, the hardware."""
        if self.kind == "cuda":
            return f"cuda ({torch.cuda.get_device_name(self.torch_device)})"
        threads = torch.get_num_threads()
        return f"{self.kind} ({platform.machine()}, {threads} thread{'s' * (threads > 1)})"

    @staticmethod
    def upgraded(values: dict[str, Any]) -> dict[str, Any]:
        """The values of execution.json, where the kind is called "device"."""
        return {"kind" if key == "device" else key: value for key, value in values.items()}

    def autocast(self) -> torch.autocast:
        """A context that runs convolutions and linear layers in the device's precision."""
        return torch.autocast(self.kind, torch.bfloat16, enabled=self.precision == "bf16")

    def by_rule(self, macs: int, images: int, compile_: Compile, alone: bool) -> "Device":
        """The device for a training of `images` images in all, with a model of `macs` per image.

        Several processes never compile: the compiled model breaks their collectives.
        """
        precision = self.precision if macs >= BF16_MACS else "fp32"
        pays = self.kind == "cuda" and 3 * macs * images >= COMPILE_MACS
        compiled = compile_ == "yes" or (compile_ == "auto" and pays)
        return replace(self, precision=precision, compiled=compiled and alone)


def choose(asked: str, log: Log = lambda _: None) -> Device:
    """The device `asked` for: "cuda", "mps", "cpu", or "auto" for the first of these that is available.

    Its precision is bf16 if the hardware and PyTorch support it.

    Raises:
        UsageError: this machine lacks the device.
        PipelineError: the device does not respond, or PyTorch was built without its kernels.
    """
    # gloo, which processes without CUDA talk by, does not know MPS.
    mps = torch.backends.mps.is_available() and single_process()
    present = {"cuda": torch.cuda.is_available(), "mps": mps, "cpu": True}
    available = [name for name, here in present.items() if here]
    kind = available[0] if asked == "auto" else asked
    if kind not in available:
        raise UsageError(f"--device {asked}: PyTorch finds none here; available: {', '.join(available)}")
    if kind == "cuda":
        torch.backends.cudnn.benchmark = True  # few, fixed shapes: measure once which algorithm is fastest
        if not (dist.is_available() and dist.is_initialized()):  # else the process group's owner has chosen the GPU
            _take_gpu(int(os.environ.get("LOCAL_RANK", "0")))
    if kind == "cpu":
        _keep_memory()
        # Weight decay makes idle filters denormal, most of those of `paper` in 80 epochs, and CPUs slow.  Later threads
        # inherit this.
        torch.set_flush_denormal(True)
    _make_cache(log)
    device = Device(kind, "bf16" if _has_bf16(kind) else "fp32")
    if device.precision == "bf16" and (reason := _probe(device)):
        log(f"bf16 fails here ({reason}): computing in fp32")
        device = replace(device, precision="fp32")
    # An old GPU, say, for which PyTorch has no kernels any more.
    if kind != "cpu" and device.precision == "fp32" and (reason := _probe(device)):
        if asked != "auto":
            raise PipelineError(f"{kind} fails here ({reason}): use --device cpu, or a PyTorch that supports this GPU")
        log(f"{kind} fails here ({reason}): computing on the CPU")
        return choose("cpu", log)
    return device


def _keep_memory() -> None:
    """Let glibc keep freed memory: each step allocates the same tensors, and fresh pages cost a fifth of its time."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # other C libraries have none
        mallopt(-4, 0)  # M_MMAP_MAX: no mapping for a single tensor
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: nothing goes back to the system


def _take_gpu(number: int) -> None:
    if number >= torch.cuda.device_count():
        raise UsageError(f"there are {torch.cuda.device_count()} GPUs: lower torchrun's --nproc_per_node to that")
    try:
        torch.cuda.set_device(number)
    except RuntimeError as error:
        raise _failure("cuda", error) from error


def _make_cache(log: Log) -> None:
    """Drop an unusable folder for compiled code: PyTorch creates it even for an optimizer, and would fail."""
    try:
        Path(os.environ.get(CACHE) or ".").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log(f"{CACHE}={printable(os.environ.pop(CACHE))} fails here ({error.strerror}): using PyTorch's default")


def _has_bf16(kind: str) -> bool:
    """Whether the hardware supports bfloat16; emulated, it is slower than float32."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # PyTorch has no public API for CPUs; a version without these functions gets float32.
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return kind == "cpu" and any(getattr(torch.cpu, name, bool)() for name in names)


def _probe(device: Device) -> str:
    """Why a convolution fails on the device in its precision, "" if it does not."""
    try:
        images, filters = (torch.ones(4, 4, 3, 3, device=device.torch_device, requires_grad=True) for _ in range(2))
        with device.autocast():
            result = conv2d(images, filters)
        torch.autograd.backward(result.float().sum())
    except Exception as error:  # whatever it is: do without
        return first_line(error)
    return ""


# --- failures of a device ---------------------------------------------------------------------------------

# Errors of a device rather than of the program.
_DEVICE_FAILED = re.compile(r"CUDA (driver )?error|CUDNN_STATUS_|CUBLAS_STATUS_|HIP error")
# Without a class of their own; MPS's and the CUDA libraries' ones, too.
_NO_MEMORY = re.compile(r"can't allocate memory|CUDA error: out of memory|MPS backend out of memory|_ALLOC_FAILED")


@contextmanager
def device_advice(device: Device, batch_size: int) -> Iterator[None]:
    """Turn a device's failures into advice: PipelineError with a batch size to try, or about the device."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY.search(str(error)):
            advice = f"for --batch-size {batch_size}: try --batch-size {max(batch_size // 2, 2)}, or free memory there"
            raise PipelineError(f"{device.kind} is out of memory {advice}") from error
        if device_failed(error):
            raise _failure(device.kind, error, device.compiled) from error
        raise


def device_failed(error: Exception) -> bool:
    """Whether the device failed: it vanished, hung, or its driver lost it."""
    if "captur" in str(error):  # of a CUDA graph: the step works without one
        return False
    own = getattr(torch, "AcceleratorError", ())  # from PyTorch 2.8 on
    return isinstance(error, own) or bool(_DEVICE_FAILED.search(str(error)))


def _failure(kind: str, error: RuntimeError, compiled: bool = False) -> DeviceFailed:
    otherwise = "--compile no or --device cpu" if compiled else "--device cpu"
    return DeviceFailed(
        f"{kind} failed ({first_line(error)}): run the same command again, without --force (training resumes at its "
        f"last checkpoint); if the device fails again, add {otherwise}"
    )


# --- several processes that train one model together, each on its share of every batch (torchrun) ---------

TIME_LIMIT = timedelta(minutes=10)  # that processes wait for each other: longer than any step, validation or save


@dataclass(frozen=True)
class World:
    """This process among those that train one run; the first one reports and writes."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the first process."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether it is the only process."""
        return self.size == 1

    @property
    def share(self) -> slice:
        """This process's rows of a batch, (B, ...) -> (about B / size, ...); no two processes share a row."""
        return slice(self.rank, None, self.size)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.alone:
            return tensor
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process; all must call this."""
        return flag if self.alone else bool(self.total(torch.tensor(float(flag), device=device)) > 0)

    def take_first_buffers(self, model: nn.Module) -> None:
        """Give all processes the first one's batch statistics: on CPUs each has its own."""
        if not self.alone:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Wait for all processes."""
        if not self.alone:
            dist.barrier()


ALONE = World()


@contextmanager
def join(device: torch.device, batch_size: int) -> Iterator[World]:
    """Join an existing process group or torchrun's, or train alone.

    Raises:
        UsageError: torchrun's variables are incomplete or wrong; or fewer than two images per process in a batch,
            which batch normalisation needs.
        PipelineError: another process ended.
    """
    mine = not (dist.is_available() and dist.is_initialized())
    if mine and single_process():
        yield ALONE
        return
    try:
        if mine and device.type == "cuda":
            gpu = torch.device("cuda", torch.cuda.current_device())  # else nccl guesses which one is this process's
            dist.init_process_group("nccl", timeout=TIME_LIMIT, device_id=gpu)
        elif mine:
            dist.init_process_group("gloo", timeout=TIME_LIMIT)
    except ValueError as error:
        cure = "start it with torchrun, or unset WORLD_SIZE"
        raise UsageError(f"torchrun's variables are incomplete or wrong ({first_line(error)}): {cure}") from error
    world = World(dist.get_rank(), dist.get_world_size())
    try:
        if batch_size < 2 * world.size:
            raise UsageError(f"--batch-size {batch_size}: at least 2 for each of the {world.size} processes")
        yield world
    except RuntimeError as error:
        # nccl has error classes; gloo raises a plain RuntimeError that names its source file.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        raise PipelineError(
            f"process {world.rank} of {world.size}: another one has ended: see its "
            "error above; then run the same command again, without --force, to resume from the checkpoint"
        ) from error
    finally:
        if mine:
            dist.destroy_process_group()


# --- the machine: `Linux 6.1.0 x86_64, AMD EPYC 9R14, 2 cores, 24 GB` --------------------------------------


def machine() -> str:
    """Operating system, processor, cores and memory (GB of 10**9 bytes), as far as known."""
    facts = [f"{platform.system()} {platform.release()} {platform.machine()}"]
    with suppress(OSError):  # only Linux has it
        cpuinfo = Path("/proc/cpuinfo").read_text(errors="replace")
        facts += re.findall(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)[:1]
    facts.append(f"{os.cpu_count()} cores")
    with suppress(ValueError, OSError, AttributeError):
        facts.append(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB")
    return ", ".join(facts)
