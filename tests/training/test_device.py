import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import PipelineError, UsageError
from pipeline.model.summary import summarise
from pipeline.recipes import PRESETS, Compile
from pipeline.training import device
from pipeline.training.device import ALONE, Device, Precision, World, choose, device_advice, join

CPU = Device("cpu", "fp32")
CPU_BF16 = Device("cpu", "bf16")
COMPILED = Device("cpu", "fp32", compiled=True)
CUDA = Device("cuda", "bf16")
MPS = Device("mps", "fp32")


def test_auto_takes_the_first_that_is_there_and_a_missing_one_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(device, "_probe", lambda _device: "")
    assert choose("auto") == MPS
    assert choose("cpu").torch_device.type == "cpu"
    with pytest.raises(UsageError, match="--device cuda: PyTorch finds none here; available: mps, cpu"):
        choose("cuda")
    monkeypatch.setenv("WORLD_SIZE", "2")  # gloo does not know MPS
    assert choose("auto").kind == "cpu"


def test_a_gpu_without_kernels_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Kaggle's P100 was: PyTorch finds it, and computes nothing on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(device, "_take_gpu", lambda _number: None)
    ones = torch.ones

    def fill(*shape: int, device: torch.device, requires_grad: bool) -> torch.Tensor:
        if device.type == "cuda":
            raise RuntimeError("CUDA error: no kernel image")
        return ones(*shape, device=device, requires_grad=requires_grad)

    monkeypatch.setattr(torch, "ones", fill)
    lines: list[str] = []
    assert choose("auto", log=lines.append).kind == "cpu"
    assert lines == ["cuda fails here (CUDA error: no kernel image): computing on the CPU"]
    with pytest.raises(PipelineError, match=r"cuda fails here \(CUDA error: no kernel image\): use --device cpu, or"):
        choose("cuda")


# --- precision and compilation ----------------------------------------------------------------------------


@pytest.mark.parametrize(("supported", "precision"), [(True, "bf16"), (False, "fp32")])
def test_cuda_computes_in_bf16_only_where_the_hardware_does_and_each_process_takes_a_gpu(
    monkeypatch: pytest.MonkeyPatch, supported: bool, precision: str
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(device, "_probe", lambda _device: "")
    # An emulating GPU says yes unless it is asked not to count emulation.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported or including_emulation)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose("cuda").precision == precision
    assert taken == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="there are 2 GPUs: lower torchrun's --nproc_per_node"):
        choose("cuda")


FLAGS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), None])
def test_the_cpus_flags_decide_and_none_mean_fp32(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[bool, ...] | None
) -> None:
    for k, name in enumerate(FLAGS):
        monkeypatch.delattr(torch.cpu, name, raising=False)
        if flags is not None:
            monkeypatch.setattr(torch.cpu, name, lambda value=flags[k]: value, raising=False)
    assert choose("cpu").precision == ("bf16" if any(flags or ()) else "fp32")


def test_bf16_that_fails_is_left_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> None:
        raise RuntimeError("no kernel for bfloat16\nat line 7")

    monkeypatch.setattr(torch.cpu, FLAGS[0], lambda: True, raising=False)
    monkeypatch.setattr(device, "conv2d", fail)
    lines: list[str] = []
    assert choose("cpu", log=lines.append).precision == "fp32"
    assert lines == ["bf16 fails here (no kernel for bfloat16): computing in fp32"]


@pytest.mark.parametrize(
    ("on", "preset", "compile_", "alone", "precision", "compiled"),
    [
        (CPU_BF16, "paper", "auto", True, "bf16", False),  # slower
        (CPU_BF16, "rehearsal", "auto", True, "fp32", False),  # too small for bf16
        (CPU, "paper", "yes", True, "fp32", True),
        (CPU_BF16, "paper", "no", True, "bf16", False),
        (CUDA, "paper", "auto", False, "bf16", False),
        (CUDA, "paper", "yes", False, "bf16", False),
        (CUDA, "paper", "auto", True, "bf16", True),
        (CUDA, "best", "auto", True, "bf16", True),
        (CUDA, "fast", "auto", True, "bf16", False),  # over before compiling has paid
        (MPS, "best", "auto", True, "fp32", False),
    ],
)
def test_precision_and_compilation_follow_the_rule(
    on: Device, preset: str, compile_: Compile, alone: bool, precision: Precision, compiled: bool
) -> None:
    config = PRESETS[preset]
    found = on.by_rule(summarise(config.model).macs, config.epochs * 50_000, compile_, alone)
    assert found == Device(on.kind, precision, compiled)


# --- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "error", "kind", "message"),
    [
        (CPU, torch.OutOfMemoryError("CUDA out of memory"), PipelineError, "--batch-size 4096: try --batch-size 2048"),
        (CPU, RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"), PipelineError, "try --batch-size 2048"),
        (CPU, RuntimeError("CUDA error: out of memory"), PipelineError, "try --batch-size 2048"),
        (MPS, RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), PipelineError, "try --batch-size 2048"),
        (CUDA, RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"), PipelineError, "try --batch-size 2048"),
        (CPU, RuntimeError("CUDA error: lost\nlaunch"), PipelineError, "cpu failed (CUDA error: lost): run"),
        (COMPILED, RuntimeError("CUDA error: lost\nlaunch"), PipelineError, "add --compile no or --device cpu"),
        (CPU, RuntimeError("shape mismatch"), RuntimeError, "shape mismatch"),
    ],
)
def test_a_devices_failures_become_advice_and_others_pass(
    on: Device, error: RuntimeError, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=re.escape(message)), device_advice(on, 4096):
        raise error


# --- processes (see also test_processes.py) ---------------------------------------------------------------


def test_half_of_torchruns_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"RANK expected.*unset WORLD_SIZE"), join(torch.device("cpu"), 4):
        pass


def test_a_process_group_that_is_there_is_used_and_left(tmp_path: Path) -> None:
    """As Ray Train or accelerate have it: they made the group, and go on with it.  Without one none is made."""
    with join(torch.device("cpu"), 2) as world:
        assert world is ALONE and not torch.distributed.is_initialized()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        with join(torch.device("cpu"), 2) as world:
            assert world == World(0, 1)
        with pytest.raises(UsageError, match="--batch-size 1: at least 2 for each"), join(torch.device("cpu"), 1):
            pass
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


def test_on_a_cpu_denormal_numbers_are_zero() -> None:
    torch.set_flush_denormal(False)
    number = torch.tensor(1e-39)
    assert number / 2 > 0
    choose("cpu")
    assert number / 2 == 0
