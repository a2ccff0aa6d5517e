"""Runs a command for as long as somebody holds the other end of this process's standard input.

    python -m retain_core.evaluation.attend COMMAND...

A worker that is killed cannot stop the server that it started; its end of the pipe closes all the same.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE = 20.0
"""Seconds that a command may take to end by itself."""


def attend(command: list[str]) -> int:
    """Run a command until it ends or standard input does. Returns its exit code."""
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        print(f"cannot start {command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 127
    threading.Thread(target=_end_with_input, args=(process,), daemon=True).start()
    return process.wait()


def _end_with_input(process: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1024):  # not by `sys.stdin`, whose lock this thread would still hold when Python ends
        pass
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)  # the server's own children too
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            return


if __name__ == "__main__":
    sys.exit(attend(sys.argv[1:]))
