"""What is logged of a study, read from its plan and the warehouse. Nothing here knows of MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from retain_core.arms import ArmSpec, weights_key
from retain_core.plan import PlannedArm, StudyPlan

CURVES = {
    "loss", "reward", "kl", "entropy", "grad_norm", "learning_rate", "mean_token_accuracy", "pool", "clip_share",
    "value_loss", "reward_failures", "server_gap",
    "completions/mean_length", "completions/clipped_ratio", "frac_reward_zero_std",
}  # fmt: skip
"""What of a trainer's log becomes a `train/...` metric; the whole curve stays in the arm's artifact."""


@dataclass(frozen=True)
class Point:
    """One value of a metric. It belongs to a checkpoint where one was measured, and to the items that were asked."""

    key: str
    value: float
    step: int
    checkpoint: str | None = None
    benchmark: str | None = None


@dataclass(frozen=True)
class Items:
    """The items of a benchmark: which ones, by the start of the key of what made them, how many, and where they lie."""

    benchmark: str
    key: str
    count: int
    source: Path


@dataclass(frozen=True)
class Weights:
    """A checkpoint: its address, its step, and where its weights lie, None where they were not kept."""

    checkpoint: str
    step: int
    path: Path | None


def items_of(plan: StudyPlan, artifacts: Path) -> list[Items]:
    """The items of every benchmark of a study whose base is evaluated."""
    found = []
    for evaluation, artifact in plan.base_evaluations:
        if artifact:
            key = evaluation.settings["items"].split("/", 1)[0]
            kind = "items" if evaluation.of.own else "dataset"
            found.append(Items(evaluation.benchmark, key[:12], artifact.meta["n"], artifacts / kind / key))
    return found


def results_of(study: str, con: duckdb.DuckDBPyConnection) -> dict[str, list[Point]]:
    """Arm -> the results of its checkpoints; `<study>/base` -> those of the base. Blends are left out.

    Gain and drop come first: MLflow draws metrics in the order in which they were logged.
    """
    points: dict[str, list[Point]] = {}
    for arm, step, checkpoint, target, *values in con.execute(_GAIN_AND_DROP, [study]).fetchall():
        for (key, asked), value in zip(_BOTH.items(), values, strict=True):
            if value is not None:
                points.setdefault(arm, []).append(Point(key, value, step, checkpoint, target if asked else None))
    for sql in (_DROPS, _SCORES):
        for arm, *row in con.execute(sql, [study]).fetchall():
            points.setdefault(arm, []).append(Point(*row))
    return points


def base_points(plan: StudyPlan, results: dict[str, list[Point]], con: duckdb.DuckDBPyConnection) -> list[Point]:
    """The base's scores, and how often k of its samples solve the target."""
    study, base = plan.study, f"{plan.study.study}/base"
    support = con.execute("SELECT k, pass_at_k FROM support WHERE study = ? ORDER BY k", [study.study]).fetchall()
    return [
        *(point for point in results[base] if point.key.startswith("eval/")),
        *(Point(f"base/pass_at_{k}", value, 0, base, study.target) for k, value in support),
    ]


def arm_points(arm: PlannedArm, results: dict[str, list[Point]]) -> list[Point]:
    """The results of an arm, and where it was trained, its curve and a start of every result: the base's at step 0."""
    measured = results.get(arm.spec.arm, [])
    if arm.record is None:
        return measured
    path = str(arm.record.file("curve.parquet"))
    with duckdb.connect() as memory:  # the warehouse's connection reads no files
        rows = memory.execute("SELECT name, value, step FROM read_parquet(?) ORDER BY step, name", [path]).fetchall()
    curve = [Point(f"train/{name}", value, step) for name, value, step in rows if name in CURVES]
    start = {point.key: point.value for point in results[f"{arm.spec.study}/base"]}
    keys = dict.fromkeys(point.key for point in measured)
    return [*(Point(key, start.get(key, 0.0), 0) for key in keys), *measured, *curve]  # the base has no drops: they are 0


def checkpoints_of(study: str, con: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[str, int]]]:
    """Arm -> name and step of its evaluated checkpoints, blends left out."""
    found: dict[str, list[tuple[str, int]]] = {}
    sql = "SELECT arm, checkpoint, step FROM checkpoints WHERE study = ? AND alpha IS NULL ORDER BY step"
    for arm, checkpoint, step in con.execute(sql, [study]).fetchall():
        found.setdefault(arm, []).append((checkpoint, step))
    return found


def weights_of(spec: ArmSpec, step: int, artifacts: Path) -> Path | None:
    """Where the weights of a checkpoint lie, None where they were not kept."""
    path = artifacts / "weights" / weights_key(spec, step) if spec.trained else Path(spec.config["model"])
    return path if path.is_dir() else None


def training_times(study: str, con: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, int]]:
    """Arm -> when its training began and ended, in milliseconds since 1970, of those that were trained."""
    sql = (
        "SELECT arm, epoch_ms(created_at), 1000 * seconds FROM arms WHERE study = ? AND created_at IS NOT NULL AND seconds > 0"
    )
    return {arm: (end - round(length), end) for arm, end, length in con.execute(sql, [study]).fetchall()}


def summary(study: str, con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """`method_summary` of a study as a table: its columns and rows, what is no number as text."""
    found = con.execute(
        "SELECT * EXCLUDE (study, base, target) FROM method_summary WHERE study = ? ORDER BY role DESC, method, learning_rate",
        [study],
    )
    columns = [column[0] for column in found.description or []]
    return {"columns": columns, "data": [list(row) for row in found.fetchall()]}


_SCORES = r"""
SELECT s.arm, 'eval/' || s.benchmark || '/' || regexp_replace(s.metric, '[^\p{L}\p{N}_.\- :/]', ':', 'g'), s.score, c.step,
  checkpoint, s.benchmark
FROM scores s JOIN checkpoints c USING (checkpoint) WHERE s.study = ? AND c.alpha IS NULL ORDER BY ALL
"""
"""MLflow takes few signs in a name: `exact_match,flexible-extract`, as lm-eval names a filtered metric, has a colon there."""
_DROPS = """
SELECT arm, 'drop/' || benchmark, "drop", step, checkpoint, benchmark FROM compared
WHERE study = ? AND alpha IS NULL AND role = 'retention' AND metric = study_metric ORDER BY ALL
"""
_GAIN_AND_DROP = """
SELECT arm, step, checkpoint, target, gain, "drop", gain_exact, kl_forward, kl_reverse FROM gain_drop
WHERE study = ? ORDER BY arm, step
"""
_BOTH = {"gain": True, "drop": False, "gain_exact": True, "kl/forward": False, "kl/reverse": False}
"""The metrics of `_GAIN_AND_DROP` in its order, and whether they are of the target's items alone."""
