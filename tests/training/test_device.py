import pytest
import torch

from pipeline.errors import PipelineError, UsageError
from pipeline.training import device
from pipeline.training.device import Device, choose, device_advice

CPU = Device(torch.device("cpu"), "fp32")


def test_auto_takes_the_first_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose("auto") == Device(torch.device("mps"), "fp32")
    assert choose("cpu").torch_device.type == "cpu"


def test_a_missing_device_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"--device cuda: PyTorch finds none here; available: .*cpu"):
        choose("cuda")


@pytest.mark.parametrize(("supported", "precision"), [(True, "bf16"), (False, "fp32")])
def test_cuda_computes_in_bf16_only_where_the_hardware_does(
    monkeypatch: pytest.MonkeyPatch, supported: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    # An emulating GPU says yes unless it is asked not to count emulation.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert choose("cuda").precision == precision


def test_the_cpu_computes_in_fp32_where_pytorch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert choose("cpu").precision == "fp32"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_autocast_follows_the_precision(precision: device.Precision) -> None:
    layer, values = torch.nn.Linear(4, 4), torch.ones(2, 4)
    with Device(torch.device("cpu"), precision).autocast():
        assert layer(values).dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"),
    ],
)
def test_out_of_memory_names_a_batch_size_to_try(error: RuntimeError) -> None:
    with (
        pytest.raises(PipelineError, match="--batch-size 4096: try --batch-size 2048"),
        device_advice(CPU, 4096),
    ):
        raise error


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match="shape"), device_advice(CPU, 4096):
        raise RuntimeError("shape mismatch")
