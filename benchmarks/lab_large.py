"""The lab study of one accelerator (`studies/lab-large.yaml`) in pieces, without Prefect or MLflow, and where its time goes.

    RETAIN_ARMS_PER_DEVICE=6 python -m benchmarks.lab_large [--study FILE] [--seconds N] [--base-only]

A piece stops after N seconds (540 unless said); the same command goes on where it was. What it prints and writes to
`<home>/pieces.json`: the seconds of every stage of every piece, and once all is done the closing lines of the study.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retain_core import run, workers
from retain_core.devices import visible
from retain_core.errors import RetainError
from retain_core.report.summary import closing_lines
from retain_core.settings import settings
from retain_core.study import Study
from retain_core.study_file import load_study

ROOT = Path(__file__).parent.parent
GRACE = 20.0
"""Seconds after which a piece that did not stop by itself is ended."""


class Clock:
    """The seconds of the stages of this piece, written down as they end."""

    def __init__(self, file: Path) -> None:
        self._file, self.stages = file, {}
        self._earlier: list[dict[str, float]] = json.loads(file.read_text()) if file.is_file() else []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What takes the time of one stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = round(time.perf_counter() - started, 1)
            print(f"{name}: {self.stages[name]:.1f} s", flush=True)
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps([*self._earlier, self.stages], indent=1))


def main() -> int:
    """Run a piece. Exit codes: 0 the study is done, 75 there is more to do, 1 an arm failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--study", type=Path, default=ROOT / "studies" / "lab-large.yaml")
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--base-only", action="store_true")
    asked = parser.parse_args()
    study, clock = load_study(asked.study), Clock(settings().home / "pieces.json")
    print(f"{study.study}: {run.parallel_arms(study)} arms side by side, accelerators: {visible() or 'none'}", flush=True)
    timers = [threading.Timer(asked.seconds, workers.stop_all), threading.Timer(asked.seconds + GRACE, os._exit, (75,))]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        return piece(study, clock, asked.base_only)
    except RetainError as error:
        if timers[0].is_alive():
            raise
        print(f"stopped after {asked.seconds:g} s: {error}", file=sys.stderr)
        return 75


def piece(study: Study, clock: Clock, base_only: bool) -> int:
    """Whatever is missing, in the order of a run. Returns the exit code."""
    with clock.stage("piece"), run.open_study(study, settings()) as running:
        with clock.stage("imports and items"):
            workers.warm_up(study.execution.threads_per_arm)
            run.prepare_dataset(running)
        with clock.stage("base training"):
            run.train_base(running)
        with clock.stage("base evaluation"):
            run.evaluate_base(running)
        names = [] if base_only else running.missing_arms
        with clock.stage(f"floor and {len(names)} arms"), ThreadPoolExecutor(run.parallel_arms(study)) as pool:
            floor = pool.submit(run.measure_floor, running)
            failed = dict(zip(names, pool.map(lambda name: timed(running, name, clock.stages), names), strict=True))
            floor.result()
        errors = {name: message for name, message in failed.items() if message}
        with clock.stage("warehouse"):
            run.load_warehouse(running, errors)
        done = running.plan.done
    for name, message in errors.items():
        print(f"{name}: {message}", file=sys.stderr)
    print(closing_lines(settings(), study.study))
    return 0 if done else 75 if not errors else 1


def timed(running: Any, name: str, stages: dict[str, float]) -> str:
    """One arm, and how long it took beside the others."""
    started = time.perf_counter()
    message = run.run_arm(running, name)
    stages[name] = round(time.perf_counter() - started, 1)
    return message


if __name__ == "__main__":
    sys.exit(main())
