"""What the page and the terminal both show, read from the warehouse once."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb

from retain_core.analysis.contrasts import DEFAULT_MARGIN
from retain_core.errors import InputError
from retain_core.methods import needed_controls
from retain_core.report.palette import places
from retain_core.stats.crossed import near_edge

_OVER_BASES = 'SELECT * FROM over_bases WHERE "primary" AND bases > 1 AND list_contains(studies, ?)'
_SEQUENCES = "SELECT * FROM sequence_summary WHERE study = ? AND metric = 'primary'"
_AUDITS = """
WITH last AS (SELECT arm, max(step) AS step FROM checkpoints WHERE study = $1 GROUP BY arm)
SELECT m.method, m.learning_rate, avg(a.unparsed) AS unparsed, avg(a.cut) AS cut, avg(a.empty) AS empty,
       avg(a.mean_tokens) AS mean_tokens, avg(a.strict) FILTER (a.lenient IS NOT NULL) AS strict, avg(a.lenient) AS lenient,
       sum(a.spill * a.lost) / nullif(sum(a.lost) FILTER (a.spill IS NOT NULL), 0) AS spill,
       avg(a.harmful_compliance) AS harmful_compliance, avg(a.over_refusal) AS over_refusal
FROM audits a JOIN arms m USING (arm) JOIN checkpoints c USING (checkpoint) JOIN last USING (arm, step)
JOIN study_benchmarks b ON b.study = a.study AND b.benchmark = a.benchmark
WHERE a.study = $1 AND c.alpha IS NULL AND b.role = 'retention' AND m.role <> 'control'
GROUP BY m.method, m.learning_rate
"""
"""Means over seeds and retention benchmarks at the last checkpoints; the base first."""
_PER_BENCHMARK = """
WITH last AS (SELECT arm, max(step) AS step FROM checkpoints WHERE study = $1 AND alpha IS NULL GROUP BY arm),
cell AS (
    SELECT f.method, f.learning_rate, f.benchmark, any_value(f.near) AS near, any_value(f.n) AS n, count(*) AS seeds,
           any_value(f.base_score) AS base_score, avg(f.score) AS score, avg(f."drop") AS "drop",
           CAST(sum(f.lost) AS BIGINT) AS lost, CAST(sum(f.gained) AS BIGINT) AS gained,
           CASE WHEN count(*) = 1 THEN any_value(f.ci_low) END AS item_low,
           CASE WHEN count(*) = 1 THEN any_value(f.ci_high) END AS item_high
    FROM forgetting f JOIN last USING (arm, step) JOIN arms a USING (arm)
    JOIN study_benchmarks b ON b.study = f.study AND b.benchmark = f.benchmark AND b.metric = f.metric
    WHERE f.study = $1 AND a.role = 'method' AND a.status = 'done' GROUP BY f.method, f.learning_rate, f.benchmark
)
SELECT c.* EXCLUDE (item_low, item_high), coalesce(i.low, item_low) AS low, coalesce(i.high, item_high) AS high
FROM cell c LEFT JOIN intervals i
  ON i.study = $1 AND i.method = c.method AND i.learning_rate IS NOT DISTINCT FROM c.learning_rate
     AND i.quantity = 'drop/' || c.benchmark
"""
"""Every retention benchmark at the last checkpoints: mean drop over seeds with its interval, flips summed over seeds."""


@dataclass(frozen=True)
class Results:
    """One study's results as rows of dictionaries; fractions, not points."""

    study: str
    revision: dict[str, Any]
    spec: dict[str, Any]
    methods: list[dict[str, Any]]
    controls: list[dict[str, Any]]
    points: list[dict[str, Any]]
    base_scores: list[dict[str, Any]]
    support: dict[int, float]
    arms: list[dict[str, Any]]
    primary: dict[str, Any] | None
    primary_benchmarks: list[dict[str, Any]]
    contrasts: list[dict[str, Any]]
    looks: list[dict[str, Any]]
    over_bases: dict[str, Any] | None
    """The declared contrast over several bases; None with one."""
    matched: list[dict[str, Any]]
    sequences: list[dict[str, Any]]
    """Backward transfer of every method and learning rate; empty where there is one target."""
    law: list[dict[str, Any]]
    floor: list[dict[str, Any]]
    audits: list[dict[str, Any]]
    per_benchmark: list[dict[str, Any]]
    """Mean drop of every method and learning rate on every retention benchmark, with its flips."""
    pareto: list[dict[str, Any]]
    reproductions: list[dict[str, Any]]
    """Published gains and drops of the same model and target beside ours, in points."""

    @cached_property
    def places(self) -> dict[str, int]:
        """Method -> its place, by the order in the study file: the same everywhere."""
        return places([*(m["label"] for m in self.spec["methods"]), *(p["method"] for p in self.points)])

    @property
    def gain_key(self) -> str:
        """The gain at which methods are compared: the exact one where there is an exact score."""
        return "gain_exact" if any(p["gain_exact"] is not None for p in self.points) else "gain"

    @property
    def margin(self) -> float:
        """The difference that the study calls none, as a fraction."""
        said = self.spec.get("primary")
        return float(said["margin"]) if said else DEFAULT_MARGIN

    @property
    def near(self) -> list[str]:
        """Retention benchmarks that share symbols or format with the target."""
        return [b["benchmark"] for b in self.spec["retention"] if b["near"]]

    @property
    def targets(self) -> str:
        """What was taught, in order; empty where nothing was."""
        return ", then ".join(target for target in (self.spec["target"], *self.spec.get("then", [])) if target)

    @property
    def unfinished(self) -> list[dict[str, Any]]:
        """Arms that are missing or failed, with why."""
        return [arm for arm in self.arms if arm["status"] != "done"]

    @property
    def at_the_edge(self) -> list[str]:
        """Benchmarks on which the base scores so near 0 or 1 that intervals over seeds deserve a warning."""
        return [s["benchmark"] for s in self.base_scores if s["role"] == "retention" and s["primary"] and near_edge(s["score"])]

    @property
    def all_controls(self) -> dict[str, bool]:
        """Control -> whether it ran and passed, those that the study should have had among them."""
        return dict.fromkeys(needed_controls(self.spec), False) | {c["control"]: bool(c["passed"]) for c in self.controls}


def read_results(con: duckdb.DuckDBPyConnection, study: str) -> Results:
    """Everything about one study. Raises InputError when the warehouse does not have it."""
    current = _rows(con, "SELECT * FROM studies WHERE study = ? AND is_current", study)
    if not current:
        known = [name for (name,) in con.execute("SELECT DISTINCT study FROM studies ORDER BY 1").fetchall()]
        raise InputError(f"no study {study!r} in the warehouse; it has {', '.join(known) or 'none yet'}")
    spec = json.loads(current[0]["spec"])
    order = {label: i for i, label in enumerate([*(m["label"] for m in spec["methods"]), *spec["controls"]])}
    summary = _rows(con, "SELECT * FROM method_summary WHERE study = ?", study)
    summary.sort(key=lambda row: (order.get(row["method"], 99), row["learning_rate"] or 0.0))
    controls = _rows(con, "SELECT * FROM controls WHERE study = ?", study)
    controls.sort(key=lambda row: order.get(row["control"], 99))
    scores = """SELECT s.benchmark, b.role, b.near, s.metric, s.n, s.clusters, b.choices, s.score, s.stderr,
                       s.metric = b.metric AS "primary"
                FROM scores s JOIN study_benchmarks b ON b.study = s.study AND b.benchmark = s.benchmark
                WHERE s.study = ? AND s.checkpoint = s.study || '/base' ORDER BY b.stage, b.role DESC, s.benchmark, s.metric"""
    return Results(
        study=study,
        revision=current[0],
        spec=spec,
        methods=[row for row in summary if row["role"] == "method"],
        controls=controls,
        points=_rows(con, "SELECT * FROM gain_drop WHERE study = ? AND role = 'method' ORDER BY arm, step", study),
        base_scores=_rows(con, scores, study),
        support=dict(con.execute("SELECT k, pass_at_k FROM support WHERE study = ? ORDER BY k", [study]).fetchall()),
        arms=_rows(con, "SELECT * FROM arms WHERE study = ? AND method <> 'base'", study),
        primary=next(iter(_rows(con, 'SELECT * FROM contrasts WHERE study = ? AND "primary"', study)), None),
        primary_benchmarks=_rows(con, "SELECT * FROM contrast_benchmarks WHERE study = ?", study),
        contrasts=_rows(con, 'SELECT * FROM contrasts WHERE study = ? AND NOT "primary"', study),
        looks=_rows(con, "SELECT * FROM looks WHERE study = ? ORDER BY look", study),
        over_bases=next(iter(_rows(con, _OVER_BASES, study)), None),
        matched=_rows(con, "SELECT * FROM matched_gain WHERE study = ?", study),
        sequences=sorted(_rows(con, _SEQUENCES, study), key=lambda row: (order.get(row["method"], 99), row["learning_rate"])),
        law=_rows(con, "SELECT * FROM kl_law WHERE study = ?", study),
        floor=_rows(con, "SELECT * FROM noise_floor WHERE study = ? ORDER BY benchmark, metric", study),
        audits=sorted(_rows(con, _AUDITS, study), key=lambda row: (order.get(row["method"], -1), row["learning_rate"] or 0.0)),
        per_benchmark=_by_benchmark(_rows(con, _PER_BENCHMARK, study), spec, order),
        reproductions=_rows(con, "SELECT * FROM reproductions WHERE study = ? ORDER BY quantity, method, learning_rate", study),
        pareto=_rows(con, "SELECT * FROM pareto WHERE study = ? ORDER BY method, learning_rate, step", study),
    )


def _by_benchmark(rows: list[dict[str, Any]], spec: dict[str, Any], order: dict[str, int]) -> list[dict[str, Any]]:
    """Near benchmarks first, then as in the study file; inside one as the methods stand there."""
    told = {b["benchmark"]: i for i, b in enumerate(spec["retention"])}
    return sorted(
        rows,
        key=lambda row: (
            not row["near"], told.get(row["benchmark"], 99), row["benchmark"], order.get(row["method"], 99), row["method"],
            row["learning_rate"] or 0.0,
        ),
    )  # fmt: skip


def _rows(con: duckdb.DuckDBPyConnection, sql: str, study: str) -> list[dict[str, Any]]:
    found = con.execute(sql, [study])
    names = [d[0] for d in found.description or []]
    return [dict(zip(names, map(_known, row), strict=True)) for row in found.fetchall()]


def _known(value: Any) -> Any:
    """What is not a number is not known."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
