"""What the page and the terminal both show, read from the warehouse once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import duckdb

from retain_core.errors import InputError
from retain_core.stats.crossed import near_edge

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#555555", "#B8A000")
"""Okabe and Ito's colours without black and yellow on white, then three more; told apart by the colour-blind."""


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

    @property
    def colors(self) -> dict[str, str]:
        """Method -> colour, by the order in the study file: the same everywhere."""
        labels = list(dict.fromkeys(m["method"] for m in self.methods))
        return {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(labels)}

    @property
    def targets(self) -> str:
        """What was taught, in order."""
        return ", then ".join([self.spec["target"], *self.spec.get("then", [])])

    @property
    def unfinished(self) -> list[dict[str, Any]]:
        """Arms that are missing or failed, with why."""
        return [arm for arm in self.arms if arm["status"] != "done"]

    @property
    def at_the_edge(self) -> list[str]:
        """Benchmarks on which the base scores so near 0 or 1 that intervals over seeds deserve a warning."""
        return [s["benchmark"] for s in self.base_scores if s["role"] == "retention" and s["primary"] and near_edge(s["score"])]

    def controls_passed(self) -> bool:
        """Whether every control ran and passed."""
        return bool(self.controls) and all(c["passed"] for c in self.controls)


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
    scores = """SELECT s.benchmark, b.role, b.near, s.metric, s.n, s.score, s.stderr, s.metric = b.metric AS "primary"
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
    )


def _rows(con: duckdb.DuckDBPyConnection, sql: str, study: str) -> list[dict[str, Any]]:
    found = con.execute(sql, [study])
    names = [d[0] for d in found.description or []]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
