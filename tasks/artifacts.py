"""What a study shows in Prefect's UI beside its runs: its progress, the table of methods, the summary.

Artifacts only tell. Where the API is gone the study goes on, says so once, and asks no more.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import ObjectNotFound

from retain_core import run
from retain_core.redact import public_address
from retain_core.summary_artifact import read_summary

LOOK_AGAIN = 2.0
"""Seconds between two looks at how far the base is."""


class Artifacts:
    """The artifacts of one study. Their keys are the same in every run of it, so that their versions line up."""

    def __init__(self, study: str) -> None:
        self._prefix = f"study-{study.replace('_', '-')}"  # Prefect's keys know no underscore
        self._answers = True
        self._lock = threading.Lock()

    def show_results(self, study: run.Running) -> None:
        """The table of methods, the summary, and the way to MLflow where that is a server."""
        name = study.study.study
        rows, summary = read_summary(study.config, name)
        methods = f"{name}: last checkpoints, in points"
        self._tell(lambda: create_table_artifact(rows, key=f"{self._prefix}-methods", description=methods))
        self._tell(lambda: create_markdown_artifact(summary, key=f"{self._prefix}-summary", description=name))
        if server := public_address(study.config.mlflow_uri):
            self._tell(lambda: create_link_artifact(server, key=f"{self._prefix}-mlflow", description=f"{name} in MLflow"))

    @contextlib.contextmanager
    def arms(self, study: run.Running) -> Iterator[None]:
        """How many of the study's arms are done, while they train."""
        total, ended = len(study.plan.arms), study.finished
        done = total - len(study.missing_arms)
        moved = self._progress("arms", "{} of {} arms have ended", done, total)

        def finished() -> None:
            nonlocal done
            ended()
            with self._lock:
                done += 1
                moved(done)

        study.finished = finished
        yield

    @contextlib.contextmanager
    def base(self, study: run.Running) -> Iterator[None]:
        """How far the base's training is; nothing where the base is there already."""
        if study.plan.base.lab is None or study.plan.base_weights is not None:
            yield
            return
        trained = threading.Event()
        moved = self._progress("base", f"training {study.study.base.model}: {{}} %", 0, 100)

        def watch() -> None:
            seen = 0
            while not trained.wait(LOOK_AGAIN):
                if (percent := run.base_percent(study)) != seen:
                    moved(seen := percent)

        # The context tells the thread which server is asked.
        watcher = threading.Thread(target=contextvars.copy_context().run, args=(watch,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            trained.set()
            watcher.join()
        moved(100)

    def _progress(self, what: str, text: str, done: int, total: int) -> Callable[[int], None]:
        """Begin a progress artifact. Returns what moves it."""

        def share(count: int) -> tuple[float, str]:
            return 100 * count / total, text.format(count, total)

        percent, first = share(done)
        begun = self._tell(lambda: create_progress_artifact(percent, key=f"{self._prefix}-{what}", description=first))

        def moved(count: int) -> None:
            if begun is not None:
                self._tell(lambda: update_progress_artifact(begun, *share(count)))

        return moved

    def _tell(self, create: Callable[[], UUID]) -> UUID | None:
        if not self._answers:
            return None
        try:
            return create()
        except (httpx.HTTPError, ObjectNotFound) as error:
            self._answers = False
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
            logging.getLogger("retain").warning("Prefect's API did not take an artifact (%s); the study goes on", problem)
            return None
