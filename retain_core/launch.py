"""One arm in several processes of this machine: started with `accelerate launch`, ended together.

The files in `retain_core/accelerate/` are what it is given, by the study's `execution: {parallel: ...}`. By hand, on devices
that you chose yourself:

    accelerate launch --config_file retain_core/accelerate/fsdp.yaml --num_processes 2 -m retain_core.arm SPEC.json

A process that dies takes the others along, as does this one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from retain_core.devices import has_cuda, reserved
from retain_core.errors import InputError, RetainError, told

if TYPE_CHECKING:
    from retain_core.arms import ArmSpec

SETTINGS = Path(__file__).parent / "accelerate"
LAUNCHER, FAILURE = "RETAIN_LAUNCHER", "RETAIN_FAILURE"
"""Told to the processes: pid and start of who launched them, and the file for the sentence with which one of them fails."""
POLL_SECONDS = 0.5
_OF_A_PEER = ("closed by peer", "reset by peer", "Connection refused", "remote process exited")
"""In the words of gloo and NCCL: another process is gone, and that one knows why or was killed."""


def launched() -> bool:
    """Whether this process was started as one of several that train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launch(spec: ArmSpec, root: str) -> None:
    """Train and evaluate an arm in its `processes`, each with an accelerator of its own where there are any.

    Raises RetainError with the sentence of the process that failed, InputError where the machine cannot do it.
    """
    from retain_core.lease import this_process

    if spec.parallel.startswith("zero") and not (has_cuda() and importlib.util.find_spec("deepspeed")):
        raise InputError(
            f"parallel: {spec.parallel} needs NVIDIA GPUs and DeepSpeed (`pip install deepspeed`) where arms are trained"
        )
    with reserved(spec.processes), tempfile.TemporaryDirectory(prefix="retain-arm-") as name:
        folder, me = Path(name), this_process()
        (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
        marks = {LAUNCHER: json.dumps([me["pid"], me["started"]]), FAILURE: str(folder / "failure")}
        command = [
            sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SETTINGS / f"{spec.parallel}.yaml"),
            "--num_processes", str(spec.processes), "--num_cpu_threads_per_process", str(spec.threads),
            "--main_process_port", "0", "-m", "retain_core.arm", str(folder / "spec.json"), root,
        ]  # fmt: skip
        code = subprocess.run(command, env=os.environ | marks, stdin=subprocess.DEVNULL, check=False).returncode
        if code:
            failure = folder / "failure"
            raise RetainError(
                failure.read_text(encoding="utf-8")
                if failure.exists()
                else f"one of the {spec.processes} processes of {spec.arm} was killed (exit code {code})"
            )


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Around what a launched process does: it ends when its launcher is gone, and the first that fails says why."""
    if LAUNCHER in os.environ:
        threading.Thread(target=_die_with, args=tuple(json.loads(os.environ[LAUNCHER])), daemon=True).start()
    try:
        yield
    except Exception as error:
        if FAILURE in os.environ and not any(words in str(error) for words in _OF_A_PEER):
            with contextlib.suppress(FileExistsError), open(os.environ[FAILURE], "x", encoding="utf-8") as file:
                file.write(told(error))
        raise


def _die_with(pid: int, started: float) -> None:
    from retain_core.lease import CLOCK_SECONDS, started_at

    while (now := started_at(pid)) is not None and abs(now - started) < CLOCK_SECONDS:
        time.sleep(POLL_SECONDS)
    os._exit(143)
