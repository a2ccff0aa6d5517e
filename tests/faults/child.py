"""The process that is killed: it trains, evaluates and loads a study, and says how far it is.

Everything that it runs is retain as it is; what tells its progress is wrapped around retain's functions here, in this
process only. Progress is a line a step: `update 3`, `resume state: files written`, ... in the order of `Progress.lines`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

KINDS = {
    "state": "resume state", "record": "resume state", "evaluation": "answers (Parquet)",
    "divergence": "divergence (Parquet)", "arm": "arm and curve (Parquet)", "drawn": "samples of the base",
}  # fmt: skip
"""Kind of artifact -> what the table calls the write."""


@dataclass(frozen=True)
class Point:
    """Where a process is to be killed: at the line of progress with this number, so many seconds after it.

    Without seconds the process stands still there, so that it cannot get any further.
    """

    line: int
    after: float | None


class Progress:
    """Writes the lines, and tells the parent when the point is reached."""

    def __init__(self, file: Path, point: Point | None, parent: Connection) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._count, self._point, self._parent = 0, point, parent

    def __call__(self, line: str) -> None:
        os.write(self._file, f"{time.perf_counter():.6f} {line}\n".encode())
        if self._point and self._count == self._point.line:
            self._parent.send(line)
            if self._point.after is None:
                time.sleep(600)
        self._count += 1


def run(study: Path, home: Path, progress: Path, point: Point | None, parent: Connection) -> None:
    """Run what the study still lacks, in this process."""
    os.environ["RETAIN_HOME"] = str(home)
    with (home / "log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    import torch

    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)
    _some_answers_are_right()
    tell = Progress(progress, point, parent)
    _tell_of_updates(tell)
    _tell_of_writes(tell)
    from retain_core.arm import run_arm
    from retain_core.run import load_warehouse, open_study
    from retain_core.settings import Settings
    from retain_core.study_file import load_study

    with open_study(load_study(study), Settings(home=home)) as running:
        for name in running.missing_arms:
            run_arm(running.arm(name).spec, running.store, every=0)
        tell("evaluated")
        load_warehouse(running, {})
    tell("done")
    parent.send("done")


def _some_answers_are_right() -> None:
    """The base of these studies solves nothing; one answer in four counts as right by its letters."""
    from retain_core.lab.targets import Countdown
    from tests.component.golden import by_content

    Countdown.accepts = lambda _, key, answer: by_content(answer)


def _tell_of_updates(tell: Progress) -> None:
    from transformers import Trainer

    step = Trainer.training_step

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        tell(f"update {self.state.global_step + 1}")
        return step(self, *args, **kwargs)

    Trainer.training_step = training_step


def _tell_of_writes(tell: Progress) -> None:
    from retain_core import store
    from retain_core.warehouse import load

    create, manifest, publish = store.Store.create, store._write_manifest, store.Store._publish
    writing: list[str] = []

    @contextlib.contextmanager
    def telling_create(self: Any, kind: str, key: str, inputs: Any) -> Iterator[Any]:
        unfinished = ".resume" in self.root.parts
        name = ("checkpoint" if unfinished else "kept weights") if kind == "weights" else KINDS.get(kind, kind)
        writing.append(name)
        try:
            with create(self, kind, key, inputs) as draft:
                tell(f"{name}: begun")
                yield draft
        finally:
            writing.pop()

    def telling_manifest(draft: Any, *rest: Any) -> None:
        tell(f"{writing[-1]}: files written")
        manifest(draft, *rest)
        tell(f"{writing[-1]}: manifest written")

    def telling_publish(self: Any, *paths: Any) -> None:
        publish(self, *paths)
        tell(f"{writing[-1]}: published")

    def around(module: Any, name: str) -> None:
        inner: Callable[..., Any] = getattr(module, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            tell(f"database: before {name.strip('_')}")
            found = inner(*args, **kwargs)
            tell(f"database: after {name.strip('_')}")
            return found

        setattr(module, name, outer)

    store.Store.create, store._write_manifest, store.Store._publish = telling_create, telling_manifest, telling_publish
    for name in ("connect", "_add_evaluations", "_replace_study", "store_analysis", "store_checks", "load_contents"):
        around(load, name)
