"""What may be compared: base and checkpoint under equal settings, on the same items, each answered once with a number.

A join would silently leave out an item that one side lacks and count twice one that is there twice, so both are
refused before anything is computed, with the ids.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import duckdb

from retain_core.errors import RetainError

_DOUBLED = """
    SELECT p.evaluation_id, p.base_evaluation_id, x.metric_id FROM pairs p
    JOIN sample_scores x ON x.evaluation_id = p.base_evaluation_id WHERE p.evaluation_id = p.base_evaluation_id
    GROUP BY p.evaluation_id, p.base_evaluation_id, x.metric_id, x.item, x.repeat HAVING count(*) > 1 LIMIT 1
"""
"""A base with an item twice; a checkpoint with one differs from its base then."""
_UNPAIRED = """
    WITH answered AS (
        SELECT evaluation_id, metric_id, count(*) AS n, sum(hash(item, repeat)) AS items FROM sample_scores
        WHERE evaluation_id IN (SELECT unnest([evaluation_id, base_evaluation_id]) FROM pairs) GROUP BY ALL)
    SELECT p.evaluation_id, p.base_evaluation_id, x.metric_id FROM pairs p JOIN answered x USING (evaluation_id)
    JOIN answered y ON y.evaluation_id = p.base_evaluation_id AND y.metric_id = x.metric_id
    WHERE x.n <> y.n OR x.items <> y.items ORDER BY ALL LIMIT 1
"""
_ODD_ITEMS = """
    SELECT any_value(i.doc_id), x.item, count(*) FILTER (x.evaluation_id = $tuned) AS tuned,
           count(*) FILTER (x.evaluation_id = $base) AS base
    FROM sample_scores x JOIN stored_evaluations s USING (evaluation_id)
    LEFT JOIN items i ON i.benchmark = s.benchmark AND i.item = x.item
    WHERE x.evaluation_id IN ($tuned, $base) AND x.metric_id = $metric
    GROUP BY x.item, x.repeat HAVING tuned <> 1 OR base <> 1 ORDER BY ALL
"""
_UNKNOWN_SCORES = """
    SELECT x.evaluation_id, i.doc_id, x.item, m.metric FROM sample_scores x
    JOIN stored_evaluations s USING (evaluation_id) JOIN metrics m USING (metric_id)
    JOIN items i ON i.benchmark = s.benchmark AND i.item = x.item
    WHERE NOT isfinite(x.score) AND x.evaluation_id IN (SELECT unnest([evaluation_id, base_evaluation_id]) FROM pairs)
      AND EXISTS (FROM study_benchmarks b JOIN named_evaluations n ON n.study = b.study
                  WHERE n.evaluation_id = x.evaluation_id AND b.benchmark = s.benchmark AND b.role <> 'probe'
                    AND m.metric IN (b.metric, 'exact'))
    ORDER BY ALL
"""


def refuse_unlike(con: duckdb.DuckDBPyConnection) -> None:
    """Raises RetainError when a row of the temporary table `pairs` cannot be compared; the floor may differ in settings."""
    unlike = con.execute(
        "SELECT benchmark, settings, base_settings FROM pairs WHERE settings_hash <> base_hash AND NOT exempt LIMIT 1"
    ).fetchone()
    if unlike is not None:
        benchmark, tuned, base = unlike[0], json.loads(unlike[1]), json.loads(unlike[2])
        differing = [f"{k} ({base.get(k)} against {tuned.get(k)})" for k in sorted(base | tuned) if base.get(k) != tuned.get(k)]
        raise RetainError(f"{benchmark}: base and checkpoint were evaluated under unlike settings: {', '.join(differing)}")
    _refuse_other_items(con)
    _refuse_unknown_scores(con)


def _refuse_other_items(con: duckdb.DuckDBPyConnection) -> None:
    strange = con.execute(_DOUBLED).fetchone() or con.execute(_UNPAIRED).fetchone()
    if strange is None:
        return
    odd = con.execute(_ODD_ITEMS, dict(zip(("tuned", "base", "metric"), strange, strict=True))).fetchall()
    told = []
    for number, column in dict(zip(strange[:2], (2, 3), strict=True)).items():
        for what, found in (("lacks", [r for r in odd if r[column] == 0]), ("has twice", [r for r in odd if r[column] > 1])):
            if found:
                told.append(f"{_name(con, number)} {what} {_listed(found)}")
    raise RetainError(f"base and checkpoint did not answer the same items, each once: {'; '.join(told)}")


def _refuse_unknown_scores(con: duckdb.DuckDBPyConnection) -> None:
    """Gain and drop are means over all items; loss probes stand beside and may be infinite."""
    unknown = con.execute(_UNKNOWN_SCORES).fetchall()
    if unknown:
        first = [row[1:3] for row in unknown if row[0] == unknown[0][0] and row[3] == unknown[0][3]]
        raise RetainError(f"{_name(con, unknown[0][0])}: the score {unknown[0][3]} is not a number on {_listed(first)}")


def _name(con: duckdb.DuckDBPyConnection, evaluation_id: int) -> str:
    """An address of a stored evaluation."""
    found = con.execute(
        """SELECT evaluation FROM named_evaluations WHERE evaluation_id = $id
        UNION ALL SELECT study || '/base under ' || nuisance FROM floor_evaluations WHERE evaluation_id = $id LIMIT 1""",
        {"id": evaluation_id},
    ).fetchone()
    return str(found[0]) if found else f"evaluation {evaluation_id}"


def _listed(found: Sequence[Sequence[Any]], most: int = 5) -> str:
    """The first few items by document number and hash."""
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(f"doc_id {row[0]} (item {row[1]})" for row in found[:most]) + more
