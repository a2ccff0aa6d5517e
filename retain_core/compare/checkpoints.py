"""A checkpoint of the home as a run to compare: the same comparison on the answers of the warehouse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb

from retain_core.compare.runs import Role
from retain_core.errors import InputError
from retain_core.imported.samples import Benchmark, Item, Metric, Run, few
from retain_core.warehouse.query import open_warehouse

_ANSWERS = """
    SELECT e.benchmark, s.metric, s.item, any_value(s.doc_id) AS doc_id, any_value(s.cluster) AS cluster, avg(s.score) AS score,
           any_value(s.response) AS response, any_value(s.target) AS target, count(*) AS repeats
    FROM evaluations e JOIN samples s USING (evaluation)
    WHERE e.checkpoint = $checkpoint GROUP BY ALL ORDER BY e.benchmark, doc_id, s.item, s.metric
"""
_PROMPTS = "SELECT DISTINCT benchmark, item, prompt FROM flips WHERE checkpoint IN ($a, $b)"
_LOWER = {"nats_per_token"}


def read_checkpoints(warehouse: Path, a: str, b: str) -> tuple[Run, Run, dict[str, str], dict[str, Role]]:
    """Two checkpoints by address, with the metric and role of each benchmark as their study declares them.

    Raises InputError for an address that the warehouse does not have, or that is an arm.
    """
    with open_warehouse(warehouse) as con:
        for address in (a, b):
            _refuse_unknown(con, address)
        declared = con.execute(
            """SELECT DISTINCT ON (benchmark) benchmark, metric, role, choices
            FROM study_benchmarks JOIN checkpoints USING (study) WHERE checkpoint IN ($a, $b) ORDER BY ALL""",
            {"a": a, "b": b},
        ).fetchall()
        prompts = {(name, item): prompt for name, item, prompt in con.execute(_PROMPTS, {"a": a, "b": b}).fetchall()}
        choices = {name: k or 0 for name, _, _, k in declared}
        runs = [_run(con, address, prompts, choices) for address in (a, b)]
    metrics = {name: metric for name, metric, _, _ in declared if metric is not None}
    roles: dict[str, Role] = {name: _role(role) for name, _, role, _ in declared}
    return runs[0], runs[1], metrics, roles


def _role(told: str) -> Role:
    return "target" if told == "target" else "mean" if told == "retention" else "beside"


def _refuse_unknown(con: duckdb.DuckDBPyConnection, address: str) -> None:
    if con.execute("FROM evaluations WHERE checkpoint = $c LIMIT 1", {"c": address}).fetchone():
        return
    steps = con.execute("SELECT checkpoint FROM checkpoints WHERE arm = $c ORDER BY step", {"c": address}).fetchall()
    if steps:
        raise InputError(f"{address} is an arm; name one of its checkpoints: {few(c for (c,) in steps)}")
    known = con.execute("SELECT DISTINCT checkpoint FROM evaluations ORDER BY ALL").fetchall()
    raise InputError(
        f"{address} is neither a file or folder nor a checkpoint of this home"
        + (f", which has {few(c for (c,) in known)}" if known else "")
    )


def _run(con: duckdb.DuckDBPyConnection, address: str, prompts: dict[tuple[str, int], str], choices: dict[str, int]) -> Run:
    told = con.execute("SELECT DISTINCT benchmark, settings FROM evaluations WHERE checkpoint = $c", {"c": address}).fetchall()
    settings = {name: _flat(json.loads(text)) for name, text in told}
    rows: dict[str, dict[int, list[tuple[Any, ...]]]] = {}
    for name, *row in con.execute(_ANSWERS, {"checkpoint": address}).fetchall():
        rows.setdefault(name, {}).setdefault(row[1], []).append(tuple(row))
    benchmarks = []
    for name, found in rows.items():
        keys = dict.fromkeys(row[0] for same in found.values() for row in same)
        metrics = {key: Metric(key, key not in _LOWER, "negated" if key in _LOWER else "score") for key in keys}
        items = tuple(
            _item(address, name, same, prompts.get((name, item), ""), choices.get(name, 0)) for item, same in found.items()
        )
        benchmarks.append(Benchmark(name, metrics, items, settings[name], {}, address))
    return Run(address, address, tuple(benchmarks))


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with `versions: {torch: ...}` as `versions.torch`, so that a refusal names the one that differs."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _item(address: str, benchmark: str, rows: list[tuple[Any, ...]], prompt: str, choices: int) -> Item:
    """One item from its rows, a row per metric."""
    _, item, doc_id, cluster, _, response, target, repeats = rows[0]
    scores = {row[0]: -row[4] if row[0] in _LOWER else row[4] for row in rows}
    return Item(
        doc_id=doc_id, part=benchmark, doc_hash=str(item), prompt_hash=None, target_hash=None, prompt=prompt,
        target=target, response=response or "", extracted={}, scores=scores, weights={}, choices=choices, repeats=repeats,
        cluster=cluster, place=f"{address}/{benchmark}, item {item}",
    )  # fmt: skip
