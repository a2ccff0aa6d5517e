"""Running programs that a model wrote, each in a process of its own with little time and memory.

This is no sandbox: a program can do on this machine what its user can. That is why a study must ask for it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from retain_core.devices import cores

CPU_SECONDS, WALL_SECONDS, MEMORY = 3, 30.0, 2**30
"""Of one program: time of the processor as HumanEval's own scorer allows it, time of the clock, and bytes."""

_LIMITED = f"""
import resource, runpy, sys
for what, most in (("CPU", {CPU_SECONDS}), ("AS", {MEMORY}), ("FSIZE", {2**20}), ("CORE", 0)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + what), (most, most))
runpy.run_path(sys.argv[1], run_name="__main__")
"""
"""Set by the process itself: nothing of this one is run between fork and exec, since it has threads."""


def pass_programs(programs: Sequence[str]) -> list[bool]:
    """Whether each program runs to its end."""
    with ThreadPoolExecutor(max(1, cores())) as pool:
        return list(pool.map(passes, programs))


def passes(program: str) -> bool:
    """Whether a program runs to its last line: one that leaves earlier, whatever its exit code, does not."""
    end = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "program.py"
        file.write_text(f"{program}\nprint({end!r})\n", encoding="utf-8", errors="replace")
        with (Path(folder) / "said").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _LIMITED, str(file)], cwd=folder, env={"PATH": os.defpath, "HOME": folder},
                stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        try:
            process.wait(WALL_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # whatever it started is in its session
            process.wait()
        return (Path(folder) / "said").read_bytes().rstrip().endswith(end.encode())
