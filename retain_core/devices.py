"""The accelerators of this machine, each for one process at a time.

Whoever wants one locks a file for it, `retain-devices-<user id>/<device>.lock` in the machine's folder for temporary files.
It is free again the moment its process is gone, and all studies and workers of a user on this machine see the same locks.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from retain_core.errors import InputError

CHOICE = "CUDA_VISIBLE_DEVICES"
POLL_SECONDS = 0.5


def has_cuda() -> bool:
    """Whether this process can use an NVIDIA GPU; asked of the system, because torch is slow to import."""
    return bool(visible())


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible() -> list[str]:
    """Names of the devices that this process may use, as CUDA_VISIBLE_DEVICES names them; none without an NVIDIA driver."""
    if not Path("/dev/nvidiactl").exists():
        return []
    chosen = os.environ.get(CHOICE)
    if chosen is None:
        count = sum(re.fullmatch(r"nvidia\d+", file.name) is not None for file in Path("/dev").iterdir())
        return [str(i) for i in range(count)]
    # CUDA itself stops reading at the first name that is none.
    names = [name.strip() for name in chosen.split(",")]
    return names[: next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))]


@contextlib.contextmanager
def reserved(count: int = 1, devices: Sequence[str] | None = None) -> Iterator[tuple[str, ...]]:
    """Have `count` of the devices for this process alone, and let CUDA see no other; wait while others have them.

    Without accelerators nothing is reserved. To be called before CUDA is used. Raises InputError where there are too few.
    """
    names = list(visible() if devices is None else devices)
    if not names:
        yield ()
        return
    if count > len(names):
        raise InputError(f"an arm wants {count} accelerators, and this machine has {len(names)} ({', '.join(names)})")
    with contextlib.ExitStack() as locks:
        taken = _take(count, names, locks)
        before = os.environ.get(CHOICE)
        os.environ[CHOICE] = ",".join(taken)
        try:
            yield taken
        finally:
            os.environ.pop(CHOICE) if before is None else os.environ.update({CHOICE: before})


def _take(count: int, names: Sequence[str], locks: contextlib.ExitStack) -> tuple[str, ...]:
    """All at once or none, so that two who want several do not wait for each other."""
    folder = Path(tempfile.gettempdir()) / f"retain-devices-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        with contextlib.ExitStack() as attempt:
            taken = []
            for name in names:
                with contextlib.suppress(Timeout):
                    attempt.enter_context(FileLock(folder / f"{name}.lock").acquire(timeout=0))
                    taken.append(name)
                if len(taken) == count:
                    locks.push(attempt.pop_all())
                    return tuple(taken)
        time.sleep(POLL_SECONDS)
