"""What two studies do not have in common: what their files say, and every dial of the methods that both have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import duckdb

from retain_core.own.study import Own

WHOLE = ("target", "then", "seeds", "learning_rates", "checkpoints")
PARTS = ("base", "target_files", "budget")
"""Keys of a study file whose values are mappings."""
_DIALS = (
    "SELECT method, any_value(config) FROM arms WHERE study = $study AND role = 'method' GROUP BY method ORDER BY min(rowid)"
)
_ARM = """
    SELECT a.study, a.role, a.config, CASE WHEN a.role <> 'base' THEN a.target END, a.method, a.algorithm, a.learning_rate,
           a.seed, c.step, c.alpha
    FROM checkpoints c JOIN arms a USING (arm) WHERE c.checkpoint = ?
"""
_EVALUATED = """
    SELECT s.benchmark, any_value(s.settings) FROM named_evaluations n JOIN stored_evaluations s USING (evaluation_id)
    JOIN study_benchmarks b ON b.study = n.study AND b.benchmark = s.benchmark
    WHERE n.checkpoint = $study || '/base' AND b.role <> 'probe' GROUP BY s.benchmark ORDER BY min(b.rowid)
"""


class Setting(NamedTuple):
    """One setting that differs, with both values as text."""

    name: str
    a: str
    b: str


def differing_settings(con: duckdb.DuckDBPyConnection, a: str, b: str) -> list[Setting]:
    """Every setting that differs: of the studies, then of methods, then of evaluations. What names things is no setting."""
    left, right = (dict(_settings(con, study)) for study in (a, b))
    told = [(name, _text(left.get(name)), _text(right.get(name))) for name in dict.fromkeys([*left, *right])]
    found = [Setting(*row) for row in told if row[1] != row[2]]
    return found + _dials(con, a, b) + _evaluations(con, a, b)


def _settings(con: duckdb.DuckDBPyConnection, study: str) -> Iterator[tuple[str, Any]]:
    row = con.execute("SELECT spec FROM studies WHERE study = ? AND is_current", [study]).fetchone()
    assert row is not None
    spec = json.loads(row[0])
    for key in PARTS:
        yield from ((f"{key}.{name}", value) for name, value in sorted((spec.get(key) or {}).items()))
    yield from ((key, spec.get(key)) for key in WHOLE)
    yield "retention", [entry["benchmark"] + (" (near)" if entry.get("near") else "") for entry in spec.get("retention") or []]
    execution = spec.get("execution") or {}
    yield "threads per arm", execution.get("threads_per_arm")
    processes = execution.get("processes_per_arm", 1)
    yield "processes per arm", f"{processes} ({execution['parallel']})" if processes > 1 else processes
    yield "sampled by", "a server" if (spec.get("training") or {}).get("rollouts") else "the trainer"
    if "own" in spec:
        own = Own.model_validate(spec["own"]).content()
        yield from ((f"own files: {key}", value) for key, value in own.items() if key != "trainers")


def _dials(con: duckdb.DuckDBPyConnection, a: str, b: str) -> list[Setting]:
    """Dials of the methods that both have; the budget's are told once, as the budget."""
    told = (con.execute(_DIALS, {"study": study}).fetchall() for study in (a, b))
    left, right = ({method: json.loads(config) for method, config in rows} for rows in told)
    return [
        Setting(f"{method}: {dial}", _text(left[method].get(dial)), _text(right[method].get(dial)))
        for method in left
        if method in right
        for dial in sorted({*left[method], *right[method]} - {"updates", "sequences_per_update"})
        if left[method].get(dial) != right[method].get(dial)
    ]


def _evaluations(con: duckdb.DuckDBPyConnection, a: str, b: str) -> list[Setting]:
    """Evaluation settings of the benchmarks that both have; one that differs alike on all of them is told once."""
    left, right = (
        {name: flat(json.loads(text)) for name, text in con.execute(_EVALUATED, {"study": study}).fetchall()}
        for study in (a, b)
    )
    both = [name for name in left if name in right]
    found: dict[tuple[str, str, str], list[str]] = {}
    for name in both:
        for key in sorted(left[name] | right[name]):
            values = _text(left[name].get(key)), _text(right[name].get(key))
            if values[0] != values[1]:
                found.setdefault((key, *values), []).append(name)
    return [
        Setting(f"evaluation{'' if len(names) == len(both) else ' of ' + ', '.join(names)}: {key}", x, y)
        for (key, x, y), names in found.items()
    ]


def differing_arms(con: duckdb.DuckDBPyConnection, a: str, b: str) -> list[Setting]:
    """How the arms of two checkpoints differ: what they were trained for and with, and how long."""
    left, right = (_of_checkpoint(con, checkpoint) for checkpoint in (a, b))
    told = [(name, _text(left.get(name)), _text(right.get(name))) for name in dict.fromkeys([*left, *right])]
    return [Setting(*row) for row in told if row[1] != row[2]]


def _of_checkpoint(con: duckdb.DuckDBPyConnection, checkpoint: str) -> dict[str, Any]:
    row = con.execute(_ARM, [checkpoint]).fetchone()
    assert row is not None
    study, role, config, *others = row
    base = dict(item for item in _settings(con, study) if item[0].startswith("base."))
    names = ("target", "method", "algorithm", "learning rate", "seed", "update", "alpha")
    dials = {} if role == "base" else json.loads(config)
    return {**base, **dict(zip(names, others, strict=True)), **{k: v for k, v in dials.items() if k != "algorithm"}}


def flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with `versions: {torch: ...}` as `versions.torch`, so that the one that differs is named."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return found


def _text(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return ", ".join(f"{x:g}" if isinstance(x, float) else str(x) for x in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
