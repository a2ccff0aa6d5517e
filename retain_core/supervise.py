"""Programs that run side by side: started, restarted when they die, and ended with all that they started.

Every program carries two marks in its environment, which all its descendants inherit, also those in a session of their
own or whose parent is gone: the home (`RETAIN_UP`) and the part's name (`RETAIN_UP_PART`). So what a killed supervisor
left behind is found and ended.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOME_MARK, PART_MARK = "RETAIN_UP", "RETAIN_UP_PART"
RESTARTS = 3
"""How often a part that dies is started again within `RESTART_SECONDS`."""
RESTART_SECONDS = 600.0
POLL_SECONDS = 1.0
GRACE_SECONDS = 15.0
"""From asking a process to end to killing it."""


@dataclass
class Part:
    """One program: what it is called, its command line and environment, the file that it prints into."""

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    deaths: list[float] = field(default_factory=list)

    def start(self, home: Path) -> None:
        """Start it in a session of its own: Ctrl-C reaches the supervisor only, which ends the parts in order."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        marks = {HOME_MARK: str(home), PART_MARK: self.name}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment | marks, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and of a part that was given up."""
        return self.process.poll() if self.process else None


def watch(parts: list[Part], home: Path, essential: str, say: Callable[[str], None]) -> None:
    """Restart parts that die; returns when the essential one died too often. Others are then left out, and it is said."""
    while True:
        for part in parts:
            if part.exit_code is None:
                continue
            end_all(home, part.name)
            now = time.monotonic()
            part.deaths = [at for at in part.deaths if now - at < RESTART_SECONDS] + [now]
            code, part.process = part.exit_code, None
            if len(part.deaths) > RESTARTS:
                say(f"{part.name} ended {len(part.deaths)} times (last exit code {code}); given up, look at {part.log}")
                if part.name == essential:
                    return
                continue
            say(f"{part.name} ended with exit code {code}; started again ({len(part.deaths)} of {RESTARTS}), log {part.log}")
            part.start(home)
        time.sleep(POLL_SECONDS)


def end_all(home: Path, name: str | None = None) -> int:
    """End every process that carries the marks of a home (and part), whoever its parent is. Returns how many there were."""
    import psutil

    found = marked(home, name)
    deadline = time.monotonic() + GRACE_SECONDS
    end(found, GRACE_SECONDS)
    while (late := marked(home, name)) and time.monotonic() < deadline + GRACE_SECONDS:  # started while others ended
        for process in late:
            _quietly(process.kill)
        psutil.wait_procs(late, timeout=1)
    return len(found)


def end(processes: list[Any], grace: float) -> None:
    """Ask processes (psutil.Process) to end and, after `grace` seconds, kill those that did not; any may be gone already."""
    import psutil

    for process in processes:
        _quietly(process.terminate)
    for process in psutil.wait_procs(processes, timeout=grace)[1]:
        _quietly(process.kill)


def marked(home: Path, name: str | None = None) -> list[Any]:
    """Living processes (psutil.Process) of this user that carry the marks."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if environment.get(HOME_MARK) == str(home) and name in (None, environment.get(PART_MARK)):
            found.append(process)
    return found


def _quietly(signal: Callable[[], object]) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        signal()
