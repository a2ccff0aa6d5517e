"""One OS process per job, forked from a server that has the heavy modules loaded.

A job that dies takes nothing with it, its memory returns, and it can be killed. A job whose parent
dies ends itself. What a job prints goes to its log file, without secrets. Within `kept` a process goes
on to the next job, and has at hand what it loaded for the one before.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from retain_core.errors import RetainError, told
from retain_core.redact import Redacted, redact

_context = multiprocessing.get_context("forkserver")
_live: set[Any] = set()
_idle: list[_Worker] | None = None
"""Processes that wait for a next job; None: a process ends with its job."""
_lock = threading.Lock()
_stopped = threading.Event()
_QUIET = {
    "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "DISABLE_MLFLOW_INTEGRATION": "TRUE",
}  # fmt: skip


def warm_up(threads: int) -> None:
    """Start the forkserver and let it import the heavy modules while the caller does other things."""
    _stopped.clear()
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    _context.set_forkserver_preload(["retain_core.preload"])
    from multiprocessing import forkserver

    forkserver.ensure_running()


def run_job(job: str, arguments: dict[str, Any], log: Path) -> None:
    """Run `retain_core.jobs.<job>(**arguments)` in a process of its own and wait for it.

    Raises RetainError with the job's own message when it fails, or when its process was killed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with _lock:
        if _stopped.is_set():
            raise RetainError(f"{log.stem} was not started: retain is stopping")
        worker = _idle.pop() if _idle else _Worker()
        _live.add(worker.process)
    message = None
    try:
        message = worker.done(job, arguments, log)
    finally:
        if message is None or not _waits(worker):
            worker.end(at_once=message is None)
    if message is None:
        raise RetainError(f"the process of {log.stem} was killed (exit code {worker.process.exitcode}); its log is {log}")
    if message:
        raise RetainError(f"{message} (log: {log})")


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within it a process goes on to the next job, whatever that is, and ends only with the block.

    For many jobs that are short beside what a process loads first. Nothing of a job may depend on the one before.
    """
    global _idle
    with _lock:
        _idle = []
    try:
        yield
    finally:
        with _lock:
            waiting, _idle = _idle, None
        for worker in waiting:
            worker.end()


class _Worker:
    """A process that does one job after the other."""

    def __init__(self) -> None:
        child_jobs, self._jobs = _context.Pipe(duplex=False)
        self._result, child_result = _context.Pipe(duplex=False)
        child_lifeline, self._lifeline = _context.Pipe(duplex=False)
        ends = (child_jobs, child_result, child_lifeline)
        # No daemon, which could have no children, such as those that draw a base's mixture.
        self.process = _context.Process(target=_child, args=ends, daemon=False)
        self.process.start()
        for end in ends:
            end.close()

    def done(self, job: str, arguments: dict[str, Any], log: Path) -> str | None:
        """Why a job failed, empty when it did not; None when the process was killed."""
        try:
            self._jobs.send((job, arguments, str(log)))
            return str(self._result.recv())
        except (EOFError, OSError):
            self.process.join()
            return None

    def end(self, at_once: bool = False) -> None:
        """Let the process end by itself, or at once."""
        self._jobs.close()
        if not at_once:
            self.process.join()
        with _lock:
            _live.discard(self.process)
        self._lifeline.close()


def _waits(worker: _Worker) -> bool:
    """Let a process that is done with its job wait for the next; False where it is to end."""
    with _lock:
        if _idle is None or _stopped.is_set():
            return False
        _idle.append(worker)
        return True


def stop_all() -> None:
    """End every running job; none starts until `warm_up` is called again."""
    with _lock:
        _stopped.set()
        running, waiting = list(_live), list(_idle or ())
        if _idle is not None:
            _idle.clear()
    for process in running:
        process.terminate()
    for process in running:
        process.join(timeout=10)
        if process.is_alive():
            process.kill()
    for worker in waiting:
        worker.end(at_once=True)


class StoppedError(RetainError):
    """retain is stopping."""


def pause(seconds: float) -> None:
    """Wait. Raises StoppedError as soon as `stop_all` was called."""
    if _stopped.wait(seconds):
        raise StoppedError("retain is stopping")


def _child(jobs: Connection, result: Connection, lifeline: Connection) -> None:
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    message = ""
    with contextlib.suppress(EOFError):  # the parent wants no more
        while True:
            job = jobs.recv()
            message = _do(*job)
            with contextlib.suppress(OSError):
                result.send(message)
    sys.exit(1 if message else 0)


def _do(job: str, arguments: dict[str, Any], log: str) -> str:
    """Do a job. Returns why it failed, empty when it did not."""
    with open(log, "a", encoding="utf-8", buffering=1) as stream, Redacted(stream) as redacted:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = redacted
        logging.basicConfig(format="%(asctime)s %(message)s", force=True)
        logging.getLogger("retain_core").setLevel(logging.INFO)
        try:
            from retain_core import jobs

            getattr(jobs, job)(**arguments)
        except BaseException as error:
            print(redact(traceback.format_exc()), file=sys.stderr)  # noqa: T201
            return redact(told(error)) or type(error).__name__
    return ""


def _die_with_parent(lifeline: Connection) -> None:
    with contextlib.suppress(OSError, EOFError):
        lifeline.recv()
    os._exit(143)
