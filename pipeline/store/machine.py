"""What kind of machine this is, for people: `Linux 6.1.0 x86_64, AMD EPYC 9R14, 2 cores, 24 GB`."""

import os
import platform
import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")  # Linux has the processor's name there


def description() -> str:
    """Operating system, processor, the cores and the memory (GB of 10**9 bytes) as far as they are known."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    cores = os.cpu_count() or 1
    parts = [system, _processor(), f"{cores} core{'s' if cores > 1 else ''}", _memory()]
    return ", ".join(part for part in parts if part)


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", CPUINFO.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    return " ".join(found[1].split()) if found else platform.processor()


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return ""
    return f"{size / 1e9:.0f} GB"
