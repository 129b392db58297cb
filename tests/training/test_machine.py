import os
import platform
from pathlib import Path

import pytest

from pipeline.training import device


def test_a_machine_is_named_by_system_processor_cores_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: AMD  EPYC 9R14\nflags\t\t: fpu\nmodel name\t: another\n")
    monkeypatch.setattr(device, "CPUINFO", cpuinfo)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 5_859_375}.__getitem__)
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    assert device.machine() == f"{system}, AMD EPYC 9R14, 2 cores, 24 GB"


def test_what_is_not_known_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.delattr(os, "sysconf")
    assert device.machine().endswith(f"{platform.machine()}, 1 core")
