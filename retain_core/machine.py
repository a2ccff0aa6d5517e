"""What kind of machine this is: which ones compute the same bits."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from retain_core.devices import has_cuda

CPUINFO = Path("/proc/cpuinfo")
NVIDIA = Path("/proc/driver/nvidia/gpus")
VENDORS = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}


def platform_class() -> str:
    """The class of machines whose results are equal bit for bit: `linux-x86_64-intel-avx512`, `linux-x86_64-nvidia-a10`.

    Kernels add in another order on another kind of processor or GPU, so the same training ends in other weights there. Read
    from the system, because torch is slow to import; where the system does not tell, the class is a wider one.
    """
    kind = gpus(NVIDIA) or "cuda" if has_cuda() else processor(_read(CPUINFO))
    return "-".join(filter(None, (platform.system().lower(), platform.machine().lower(), kind)))


def processor(cpuinfo: str) -> str:
    """The maker of a processor and its widest vectors, from what /proc/cpuinfo says; empty where that does not tell."""
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in cpuinfo.splitlines())}
    flags = said.get("flags", "").split()
    vectors = next((wide for flag, wide in (("avx512f", "avx512"), ("avx2", "avx2")) if flag in flags), "")
    return "-".join(filter(None, (VENDORS.get(said.get("vendor_id", ""), ""), vectors)))


def gpus(folder: Path) -> str:
    """The kinds of GPU that the driver names in a folder, as they stand in a class; empty where it names none."""
    named = re.findall(
        r"^Model:\s*(.+)$", "\n".join(_read(file) for file in sorted(folder.glob("*/information"))), re.MULTILINE
    )
    return "+".join(sorted({re.sub(r"[^a-z0-9]+", "-", name.strip().lower()) for name in named}))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
