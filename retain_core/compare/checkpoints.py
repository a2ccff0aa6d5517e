"""A checkpoint of the home as a run to compare: the same comparison on the answers of the warehouse."""

from __future__ import annotations

import json
from typing import Any

import duckdb

from retain_core.compare.runs import Role
from retain_core.compare.settings import flat
from retain_core.imported.samples import Benchmark, Item, Metric, Run

_ANSWERS = """
    SELECT e.benchmark, s.metric, s.item, any_value(s.doc_id) AS doc_id, any_value(s.cluster) AS cluster, avg(s.score) AS score,
           any_value(s.response) AS response, any_value(s.target) AS target, count(*) AS repeats
    FROM evaluations e JOIN samples s USING (evaluation)
    WHERE e.checkpoint = $checkpoint GROUP BY ALL ORDER BY e.benchmark, doc_id, s.item, s.metric
"""
_PROMPTS = """
    WITH answered AS (
        SELECT n.checkpoint, s.benchmark, x.item, x.metric_id, avg(x.score) AS score
        FROM named_evaluations n JOIN stored_evaluations s USING (evaluation_id) JOIN sample_scores x USING (evaluation_id)
        WHERE n.checkpoint IN ($a, $b) GROUP BY ALL)
    SELECT DISTINCT i.benchmark, i.item, i.prompt FROM answered x JOIN answered y USING (benchmark, item, metric_id)
    JOIN items i USING (benchmark, item) WHERE x.checkpoint = $a AND y.checkpoint = $b AND x.score <> y.score
"""
"""Of items that changed only: a prompt may be long, and nothing else shows it."""
_LOWER = {"nats_per_token"}


def read_checkpoints(con: duckdb.DuckDBPyConnection, a: str, b: str) -> tuple[Run, Run, dict[str, str], dict[str, Role]]:
    """Two evaluated checkpoints by address, with the metric and role of each benchmark as their study declares them."""
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


def _run(con: duckdb.DuckDBPyConnection, address: str, prompts: dict[tuple[str, int], str], choices: dict[str, int]) -> Run:
    told = con.execute("SELECT DISTINCT benchmark, settings FROM evaluations WHERE checkpoint = $c", {"c": address}).fetchall()
    settings = {name: flat(json.loads(text)) for name, text in told}
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


def _item(address: str, benchmark: str, rows: list[tuple[Any, ...]], prompt: str, choices: int) -> Item:
    """One item from its rows, a row per metric."""
    _, item, doc_id, cluster, _, response, target, repeats = rows[0]
    scores = {row[0]: -row[4] if row[0] in _LOWER else row[4] for row in rows}
    return Item(
        doc_id=doc_id, part=benchmark, doc_hash=str(item), prompt_hash=None, target_hash=None, prompt=prompt,
        target=target, response=response or "", extracted={}, scores=scores, weights={}, choices=choices, repeats=repeats,
        cluster=cluster, place=f"{address}/{benchmark}, item {item}",
    )  # fmt: skip
