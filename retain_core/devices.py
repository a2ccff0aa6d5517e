"""The accelerators of this machine, each for one process at a time, or for as many as RETAIN_ARMS_PER_DEVICE says.

Whoever wants one locks a file for it, `retain-devices-<user id>/<device>.lock` in the machine's folder for temporary files
(`<device>-1.lock` and so on are its further places). It is free again the moment its process is gone, and all studies and
workers of a user on this machine see the same locks.
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
from retain_core.settings import settings

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
    """Have a place on `count` of the devices, and let CUDA see no other; wait while others have them.

    A process that wants several has all places of each. Without accelerators nothing is reserved. To be called before CUDA
    is used. Raises InputError where there are too few.
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
    places = settings().arms_per_device
    # Places in turn over the devices, so that the first arms have one each.
    wanted = [(name, [k]) for k in range(places) for name in names] if count == 1 else [(n, range(places)) for n in names]
    while True:
        with contextlib.ExitStack() as attempt:
            taken = []
            for name, numbers in wanted:
                with contextlib.suppress(Timeout), contextlib.ExitStack() as device:
                    for number in numbers:
                        lock = FileLock(folder / (f"{name}-{number}.lock" if number else f"{name}.lock"))
                        device.enter_context(lock.acquire(timeout=0))
                    attempt.push(device.pop_all())
                    taken.append(name)
                if len(taken) == count:
                    locks.push(attempt.pop_all())
                    return tuple(taken)
        time.sleep(POLL_SECONDS)
