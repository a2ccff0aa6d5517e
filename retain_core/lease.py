"""Leases: one writer at a time, and none that lost its place can publish.

This module owns the files below `artifacts/.leases`:

    <name>.json    who holds it: token, host, boot, pid, started (of the process), renewed_at (seconds of the epoch)
    .lock          held for the moment in which one of them is read and written

The holder renews its lease every `BEAT_SECONDS` from a thread of its own. A lease is free when its process is gone (on this
machine that is seen at once) or when it was not renewed for `EXPIRES_SECONDS`. Who takes it over writes a new token. A
process that was only asleep finds another token than its own and is refused: publishing happens under the same lock as
the check. Clocks of machines that share a store have to agree to well under `EXPIRES_SECONDS`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from retain_core.errors import RetainError

BEAT_SECONDS = 15.0
EXPIRES_SECONDS = 90.0
LOCK_SECONDS = 60.0
"""Longest wait for the lock, which nobody holds for longer than a rename takes."""
POLL_SECONDS = 0.5
CLOCK_SECONDS = 2.0
"""By how much the start of a process may move when the clock of the machine is set."""
_SAYS: dict[str, Any] = {"token": str, "host": str, "boot": str, "pid": int, "started": float, "renewed_at": int | float}
"""What a lease says, and as what."""

log = logging.getLogger(__name__)


class LeaseLostError(RetainError):
    """Another process took the work over; what this one made is not published."""


class Held(Protocol):
    """A lease that this process took. It may have been lost since."""

    name: str

    def held(self) -> AbstractContextManager[None]:
        """Within it nobody can take the lease over. Raises LeaseLostError when somebody has."""

    def take(self) -> dict[str, Any] | None:
        """Take it if it is free. Returns its holder otherwise."""

    def release(self) -> None:
        """Give it back; one that was lost stays with its new holder."""


class Lease:
    """A lease in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self._file, self._lock = name, folder / f"{name}.json", FileLock(folder / ".lock")
        self._token = uuid.uuid4().hex
        self._ended = threading.Event()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it nobody can take the lease over. Raises LeaseLostError when somebody has."""
        with self._locked():
            holder = _read(self._file)
            if holder is None or holder["token"] != self._token:
                raise LeaseLostError(f"{self.name} was taken over by {who(holder)}; what this process made is not used")
            yield

    def take(self) -> dict[str, Any] | None:
        """Take it if it is free. Returns its holder otherwise."""
        with self._locked():
            holder = _read(self._file)
            if holder is not None and alive(holder):
                return holder
            self._write()
        threading.Thread(target=self._beat, name=f"lease {self.name}", daemon=True).start()
        return None

    def release(self) -> None:
        """Give it back; one that was lost stays with its new holder."""
        self._ended.set()
        with contextlib.suppress(LeaseLostError), self.held():
            self._file.unlink()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                with self.held():
                    if not self._ended.is_set():
                        self._write()
            except LeaseLostError:
                return
            except (RetainError, OSError) as error:
                log.warning("the lease of %s was not renewed: %s", self.name, error)

    def _write(self) -> None:
        body = {"token": self._token, **this_process(), "renewed_at": time.time()}
        draft = self._file.with_suffix(".draft")
        draft.write_text(json.dumps(body), encoding="utf-8")
        draft.replace(self._file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with self._lock.acquire(timeout=LOCK_SECONDS):
                yield
        except Timeout:
            raise RetainError(f"{self._lock.lock_file} was locked for {LOCK_SECONDS:.0f} s; is a process asleep?") from None


@contextlib.contextmanager
def hold(folder: Path, name: str) -> Iterator[Lease]:
    """Hold a lease while the block runs; wait for as long as a living process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    lease = Lease(folder, name)
    with taken(lease):
        yield lease


@contextlib.contextmanager
def taken(lease: Held) -> Iterator[None]:
    """Hold this lease while the block runs; wait for as long as a living process holds it."""
    waited = False
    while holder := lease.take():
        if not waited:
            log.warning("%s is being made by %s; waiting", lease.name, who(holder))
        waited = True
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lease.release()


def living(folder: Path) -> set[str]:
    """Names of the leases that a living process holds."""
    return {file.stem for file in folder.glob("*.json") if (holder := _read(file)) is not None and alive(holder)}


@contextlib.contextmanager
def stillness(folder: Path) -> Iterator[bool]:
    """Whether nobody is at work; nobody begins to be while the block runs. Leases of writers that are gone are dropped."""
    if not folder.is_dir():
        yield True
        return
    with FileLock(folder / ".lock").acquire(timeout=LOCK_SECONDS):
        held = living(folder)
        for file in folder.glob("*.json"):
            if file.stem not in held:
                file.unlink()
        yield not held


def _read(file: Path) -> dict[str, Any] | None:
    """Who holds it; None when nobody does, or when the file is no lease."""
    try:
        return parsed(file.read_bytes())
    except OSError:
        return None


def parsed(text: bytes) -> dict[str, Any] | None:
    """The holder that a lease's text names; None when it is no lease."""
    try:
        body = json.loads(text)
        said = all(isinstance(body[name], kind) for name, kind in _SAYS.items())
        return body if said and body["pid"] > 0 and math.isfinite(body["renewed_at"]) else None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def alive(holder: dict[str, Any]) -> bool:
    """Whether a holder renewed its lease in time and, where that can be seen, still runs."""
    if time.time() - holder["renewed_at"] > EXPIRES_SECONDS:
        return False
    here = this_process()
    if (holder["host"], holder["boot"]) != (here["host"], here["boot"]):
        return True
    started = started_at(holder["pid"])
    return started is not None and abs(started - holder["started"]) < CLOCK_SECONDS


def this_process() -> dict[str, Any]:
    """What tells this process from every other: host, boot, pid, started."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": platform.node(), "boot": boot.read_text().strip() if boot.exists() else "",
        "pid": os.getpid(), "started": started_at(os.getpid()),
    }  # fmt: skip


def started_at(pid: int) -> float | None:
    """When a process of this machine started; None when it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def who(holder: dict[str, Any] | None) -> str:
    """A holder in words."""
    return f"process {holder['pid']} on {holder['host']}" if holder else "nobody"
