"""Logging a study to MLflow: one experiment a study, the study as parent run, every arm as its child.

Runs are found again by the tag `retain.key`, so logging twice continues instead of doubling. What
was logged is remembered in `mlartifacts/.logged-<study>.json`; a study that did not change
does not import MLflow at all.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from retain_core.canonical import digest
from retain_core.plan import PlannedArm, StudyPlan
from retain_core.settings import Settings
from retain_core.store import write_atomically

CURVES = {
    "loss", "reward", "kl", "entropy", "grad_norm", "learning_rate", "mean_token_accuracy", "pool", "clip_share",
    "value_loss", "reward_failures",
    "completions/mean_length", "completions/clipped_ratio", "frac_reward_zero_std",
}  # fmt: skip
"""What of a trainer's log becomes a `train/...` metric; the whole curve stays in the arm's artifact."""
_BATCH = 1000


def prepare(config: Settings) -> None:
    """Import MLflow and create its database: slow the first time, so done while arms train."""
    _client(config)


def log_study(config: Settings, plan: StudyPlan, spec_hash: str) -> bool:
    """Log what is not logged yet. Returns False when there was nothing to do."""
    done = [arm for arm in plan.arms if arm.done]
    state = digest([config.mlflow_uri, spec_hash, sorted(arm.spec.key for arm in done)])
    marker = config.mlflow_artifacts / f".logged-{plan.study.study}.json"
    if _logged(config, marker) == state:
        return False
    client = _client(config)
    experiment = _experiment(client, config, plan.study.study)
    with duckdb.connect(str(config.warehouse), read_only=True) as con:
        parent = _log_parent(client, experiment, plan, spec_hash, con)
        for arm in done:
            _log_arm(client, experiment, parent, arm, plan, spec_hash, con)
    client.set_terminated(parent, "FINISHED" if plan.done else "FAILED")
    write_atomically(marker, json.dumps({"state": state}))
    return True


@dataclass(frozen=True)
class _Point:
    key: str
    value: float
    step: int


def _logged(config: Settings, marker: Path) -> str | None:
    if not marker.is_file() or (config.mlflow_uri is None and not (config.home / "mlflow.db").is_file()):
        return None
    return str(json.loads(marker.read_text(encoding="utf-8"))["state"])


def _client(config: Settings) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from mlflow import MlflowClient

    client = MlflowClient(config.mlflow_tracking_uri)
    client.search_experiments(max_results=1)
    return client


def _experiment(client: Any, config: Settings, study: str) -> str:
    found = client.get_experiment_by_name(study)
    if found:
        return str(found.experiment_id)
    location = None if config.mlflow_uri else config.mlflow_artifacts.as_uri()
    return str(client.create_experiment(study, artifact_location=location))


def _run(client: Any, experiment: str, key: str, name: str, tags: dict[str, str]) -> tuple[str, bool]:
    """The run with this key, made if it is not there: (run id, whether it is new)."""
    for run in client.search_runs([experiment], f"tags.`retain.key` = '{key}'"):
        if run.info.status == "FINISHED":
            return str(run.info.run_id), False
        client.delete_run(run.info.run_id)  # a writer was stopped in the middle: begin anew, without doubles
    run = client.create_run(experiment, tags={"mlflow.runName": name, "retain.key": key, **tags})
    return str(run.info.run_id), True


def _tags(plan: StudyPlan, spec_hash: str) -> dict[str, str]:
    study = plan.study
    return {
        "retain.study": study.study, "retain.base": study.base.model, "retain.target": study.target,
        "retain.spec_hash": spec_hash,
    }  # fmt: skip


def _log_parent(client: Any, experiment: str, plan: StudyPlan, spec_hash: str, con: duckdb.DuckDBPyConnection) -> str:
    run, new = _run(
        client, experiment, digest([plan.study.study, spec_hash]), f"study {plan.study.study}", _tags(plan, spec_hash)
    )
    client.update_run(run, status="RUNNING")
    base = f"{plan.study.study}/base"
    rows = con.execute("SELECT benchmark, metric, score FROM scores WHERE checkpoint = ?", [base]).fetchall()
    points = [_Point(f"eval/{b}/{m}", score, 0) for b, m, score in rows]
    points += [
        _Point(f"base/pass_at_{k}", v, 0)
        for k, v in con.execute("SELECT k, pass_at_k FROM support WHERE study = ?", [plan.study.study]).fetchall()
    ]
    if new:
        _log_points(client, run, points)
    client.log_dict(run, plan.study.model_dump(mode="json"), "study.json")
    note = f"What did teaching {', then '.join(plan.study.targets())} cost {plan.study.base.model}? One child run per arm."
    client.set_tag(run, "mlflow.note.content", note)
    return run


def _log_arm(
    client: Any, experiment: str, parent: str, arm: PlannedArm, plan: StudyPlan, spec_hash: str, con: duckdb.DuckDBPyConnection
) -> None:
    spec = arm.spec
    tags = {
        **_tags(plan, spec_hash), "retain.arm": spec.arm, "retain.method": spec.method, "retain.seed": str(spec.seed),
        "mlflow.parentRunId": parent,
    }  # fmt: skip
    # What is averaged into drop is part of a run's identity: another set of benchmarks is another run.
    study = plan.study
    key = digest([spec.arm, spec.key, study.target, [r.model_dump() for r in study.retention], study.probes])
    run, new = _run(client, experiment, key, spec.arm.split("/", 1)[1], tags)
    if not new:
        client.set_tag(run, "mlflow.parentRunId", parent)
        return
    parameters = {
        **spec.config, "learning_rate": spec.learning_rate, "seed": spec.seed, "updates": spec.updates,
        "sequences_per_update": spec.sequences_per_update,
    }  # fmt: skip
    _log_params(client, run, parameters)
    _log_points(client, run, [*_curve(arm), *_results(spec.arm, con)])
    client.set_terminated(run, "FINISHED")


def _curve(arm: PlannedArm) -> list[_Point]:
    if arm.record is None:
        return []
    with duckdb.connect() as memory:
        path = str(arm.record.file("curve.parquet"))
        rows = memory.execute("SELECT name, value, step FROM read_parquet(?) ORDER BY step", [path]).fetchall()
    return [_Point(f"train/{name}", value, step) for name, value, step in rows if name in CURVES]


def _results(arm: str, con: duckdb.DuckDBPyConnection) -> list[_Point]:
    points = []
    scores = """SELECT c.step, s.benchmark, s.metric, s.score FROM scores s JOIN checkpoints c USING (checkpoint)
                WHERE s.arm = ? AND c.alpha IS NULL ORDER BY ALL"""
    for step, benchmark, metric, score in con.execute(scores, [arm]).fetchall():
        points.append(_Point(f"eval/{benchmark}/{metric}", score, step))
    drops = """SELECT step, benchmark, "drop" FROM compared
               WHERE arm = ? AND alpha IS NULL AND role = 'retention' AND metric = study_metric ORDER BY ALL"""
    for step, benchmark, drop in con.execute(drops, [arm]).fetchall():
        points.append(_Point(f"drop/{benchmark}", drop, step))
    both = 'SELECT step, gain, "drop", gain_exact, kl_forward, kl_reverse FROM gain_drop WHERE arm = ? ORDER BY step'
    for step, gain, drop, exact, forward, reverse in con.execute(both, [arm]).fetchall():
        values = {"gain": gain, "drop": drop, "gain_exact": exact, "kl/forward": forward, "kl/reverse": reverse}
        points += [_Point(key, value, step) for key, value in values.items() if value is not None]
    return points


def _log_params(client: Any, run: str, parameters: dict[str, Any]) -> None:
    from mlflow.entities import Param

    client.log_batch(run, params=[Param(key, str(value)) for key, value in parameters.items()])


def _log_points(client: Any, run: str, points: list[_Point]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(p.key, p.value, now, p.step) for p in points]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run, metrics=metrics[start : start + _BATCH])
