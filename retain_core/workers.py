"""One OS process per job, forked from a server that has the heavy modules loaded.

A job that dies takes nothing with it, its memory returns, and it can be killed. A job whose parent
dies ends itself. What a job prints goes to its log file, without secrets.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from retain_core.errors import FULL, RetainError, disk_is_full
from retain_core.redact import Redacted, redact

_context = multiprocessing.get_context("forkserver")
_live: set[Any] = set()
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
    result, child_result = _context.Pipe(duplex=False)
    child_lifeline, lifeline = _context.Pipe(duplex=False)
    # No daemon, which could have no children, such as those that draw a base's mixture; the lifeline ends it with its parent.
    process = _context.Process(target=_child, args=(job, arguments, str(log), child_result, child_lifeline), daemon=False)
    with _lock:
        if _stopped.is_set():
            raise RetainError(f"{log.stem} was not started: retain is stopping")
        process.start()
        _live.add(process)
    child_result.close()
    child_lifeline.close()
    try:
        message = _wait(result)
        process.join()
    finally:
        with _lock:
            _live.discard(process)
        lifeline.close()
    if message is None:
        raise RetainError(f"the process of {log.stem} was killed (exit code {process.exitcode}); its log is {log}")
    if message:
        raise RetainError(f"{message} (log: {log})")


def stop_all() -> None:
    """End every running job; none starts until `warm_up` is called again."""
    with _lock:
        _stopped.set()
        running = list(_live)
    for process in running:
        process.terminate()
    for process in running:
        process.join(timeout=10)
        if process.is_alive():
            process.kill()


class StoppedError(RetainError):
    """retain is stopping."""


def raise_if_stopped() -> None:
    """Raises StoppedError once `stop_all` was called."""
    if _stopped.is_set():
        raise StoppedError("retain is stopping")


def _wait(result: Connection) -> str | None:
    try:
        return str(result.recv())
    except EOFError:
        return None


def _child(job: str, arguments: dict[str, Any], log: str, result: Connection, lifeline: Connection) -> None:
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    with open(log, "a", encoding="utf-8", buffering=1) as stream, Redacted(stream) as redacted:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = redacted
        logging.basicConfig(format="%(asctime)s %(message)s")
        logging.getLogger("retain_core").setLevel(logging.INFO)
        try:
            from retain_core import jobs

            getattr(jobs, job)(**arguments)
            result.send("")
        except BaseException as error:
            print(redact(traceback.format_exc()), file=sys.stderr)  # noqa: T201
            text = str(error) if isinstance(error, RetainError) else f"{type(error).__name__}: {error}"
            text = FULL if disk_is_full(error) else text
            with contextlib.suppress(OSError):
                result.send(redact(text) or type(error).__name__)
            sys.exit(1)


def _die_with_parent(lifeline: Connection) -> None:
    with contextlib.suppress(OSError, EOFError):
        lifeline.recv()
    os._exit(143)
