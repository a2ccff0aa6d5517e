"""Which code computed a result, and on what."""

from __future__ import annotations

import platform
import subprocess
from collections import Counter
from functools import lru_cache
from pathlib import Path

from retain_core.devices import cores


@lru_cache(maxsize=1)
def git_sha() -> str | None:
    """The commit of the code, None outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def hardware(threads: int) -> str:
    """The accelerators that this process sees, by name; without any the processor, and how many of its cores are asked for."""
    import torch

    if torch.cuda.is_available():
        names = Counter(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return ", ".join(f"{count} x {name}" for name, count in sorted(names.items()))
    return f"{_processor()}, {threads} of {cores()} cores"


def _processor() -> str:
    """The name that the processor gives itself, else what the system calls its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == "model name")
    return next(named, "") or platform.processor() or platform.machine()
