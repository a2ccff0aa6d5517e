"""What is logged of a study, in order.

What was logged is remembered in `mlartifacts/.logged-<study>.json`; a study that did not change does not import MLflow
at all. Logging twice continues instead of doubling (`retain_core.tracking.runs`).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import duckdb

from retain_core.canonical import digest
from retain_core.plan import PlannedArm, StudyPlan
from retain_core.settings import Settings
from retain_core.store import write_atomically
from retain_core.tracking import content, note
from retain_core.tracking.dials import parameters
from retain_core.tracking.runs import Runs, answering, connect
from retain_core.warehouse.query import open_warehouse

LAYOUT = 2
"""Raised when something else is logged of a run; runs of an earlier layout stay as they are."""


def prepare(config: Settings) -> None:
    """Import MLflow and create its database: slow the first time, so done while arms train."""
    with answering(config):
        connect(config)


def log_study(config: Settings, plan: StudyPlan, spec_hash: str) -> bool:
    """Log what is not logged yet, the study's page included. Returns False when there was nothing to do.

    Raises MlflowAwayError when MLflow does not take it; the next call goes on without doubles.
    """
    study = plan.study.study
    done = [arm for arm in plan.arms if arm.done]
    page = config.reports / study / "index.html"
    seal = hashlib.sha256(page.read_bytes()).hexdigest() if page.is_file() else ""
    state = digest([LAYOUT, config.mlflow_uri, spec_hash, sorted(arm.spec.key for arm in done), seal])
    marker = config.mlflow_artifacts / f".logged-{study}.json"
    if _logged(config, marker) == state:
        return False
    with answering(config), open_warehouse(config.warehouse) as con:
        text = note.study_note(plan.study, con)
        writer = _Writer(Runs(connect(config), config, study, text), config, plan, spec_hash, con)
        parent = writer.log_parent(text)
        for arm in done:
            writer.log_arm(arm, parent)
        writer.log_files(parent, page)
        writer.runs.finish(parent, "FINISHED" if plan.done else "FAILED")
        writer.runs.tidy()
    write_atomically(marker, json.dumps({"state": state}))
    return True


class _Writer:
    """What the runs of one study have in common while they are logged."""

    def __init__(self, runs: Runs, config: Settings, plan: StudyPlan, spec_hash: str, con: duckdb.DuckDBPyConnection) -> None:
        study = plan.study
        self.runs, self._plan, self._con, self._artifacts = runs, plan, con, config.artifacts
        self._results = content.results_of(study.study, con)
        self._checkpoints = content.checkpoints_of(study.study, con)
        self._times = content.training_times(study.study, con)
        self._items = content.items_of(plan, config.artifacts)
        self._parameters = parameters([arm.spec for arm in plan.arms])
        self._key = [LAYOUT, study.study, spec_hash]
        self._tags = {
            "retain.study": study.study, "retain.base": study.base.model, "retain.target": study.target,
            "retain.spec_hash": spec_hash, "mlflow.source.name": "retain run", "mlflow.source.type": "LOCAL",
        }  # fmt: skip

    def log_parent(self, text: str) -> str:
        """The run of the study with the base's results."""
        study, key = self._plan.study.study, digest(self._key)
        tags = {**self._tags, "mlflow.note.content": text}
        if known := self.runs.find(key):
            self.runs.update(key, tags, {})
            return known
        run = self.runs.start(f"study {study}", tags)
        base = content.Weights(f"{study}/base", 0, self._plan.base_path)
        points = content.base_points(self._plan, self._results, self._con)
        self.runs.log(run, key, points, [base], self._items, {})
        return run

    def log_arm(self, arm: PlannedArm, parent: str) -> None:
        """The run of an arm with its curve, its checkpoints and their results."""
        spec, study = arm.spec, self._plan.study
        parameters = self._parameters[spec.arm]
        tags = {
            **self._tags, "retain.arm": spec.arm, "retain.method": spec.method, "retain.seed": parameters["seed"],
            "retain.role": spec.role, "mlflow.parentRunId": parent,
            "mlflow.note.content": note.arm_note(spec, self._results.get(spec.arm, [])),
        }  # fmt: skip
        # What is averaged into drop is part of a run's identity: another set of benchmarks is another run.
        key = digest([LAYOUT, spec.arm, spec.key, study.target, [r.model_dump() for r in study.retention], study.probes])
        if self.runs.find(key):
            self.runs.update(key, tags, parameters)
            return
        since, until = self._times.get(spec.arm, (None, None))
        run = self.runs.start(spec.arm.split("/", 1)[1], tags, since)
        self.runs.log_json(run, spec.model_dump(mode="json", include=_OF_AN_ARM), "arm.json")
        checkpoints = [
            content.Weights(name, step, content.weights_of(spec, step, self._artifacts))
            for name, step in self._checkpoints.get(spec.arm, [])
        ]
        points = content.arm_points(arm, self._results)
        self.runs.log(run, key, points, checkpoints, self._items, parameters)
        self.runs.finish(run, until=until)

    def log_files(self, parent: str, page: Path) -> None:
        """What was declared, what came out as a table, and the study's page."""
        study = self._plan.study
        self.runs.log_json(parent, study.model_dump(mode="json"), "study.json")
        self.runs.log_table(parent, content.summary(study.study, self._con), "method_summary.json")
        if page.is_file():
            self.runs.log_folder(parent, page.parent, "report")


_OF_AN_ARM = {
    "arm", "method", "role", "config", "target", "then", "learning_rate", "seed", "updates", "sequences_per_update", "steps",
}  # fmt: skip


def _logged(config: Settings, marker: Path) -> str | None:
    if not marker.is_file() or (config.mlflow_uri is None and not (config.home / "mlflow.db").is_file()):
        return None
    return str(json.loads(marker.read_text(encoding="utf-8"))["state"])
