"""Scores and paired comparisons of a study, computed from the stored per-item scores and stored beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np

from retain_core.stats import paired as stats
from retain_core.warehouse.alike import refuse_unlike

_CHUNK = 2_000_000
"""Scores that are worked on at once, so that memory does not grow with the warehouse; an evaluation is never split."""

_MOMENTS = """
WITH x AS MATERIALIZED ({rows}), m AS (
    SELECT pair, metric, avg(value) AS mean FROM x GROUP BY ALL
), g AS (
    SELECT x.pair, x.metric, x.cluster, any_value(m.mean) AS mean, count(*) AS n, sum(x.value - m.mean) AS s,
           sum((x.value - m.mean) ** 2) AS squares {by_cluster}
    FROM x JOIN m ON m.pair = x.pair AND m.metric = x.metric GROUP BY ALL
)
SELECT pair, metric, sum(n)::DOUBLE AS n, nullif(count(cluster), 0)::DOUBLE AS clusters,
       sum(s * s) FILTER (cluster IS NOT NULL) AS cluster_squares, any_value(mean) AS mean, sum(squares) AS squares {more}
FROM g GROUP BY ALL ORDER BY pair, metric
"""
_SCORES = """
    SELECT p.pair, m.metric, i.cluster, avg(x.score) AS value
    FROM sample_scores x JOIN chunk p USING (evaluation_id) JOIN metrics m USING (metric_id)
    JOIN items i ON i.benchmark = p.benchmark AND i.item = x.item
    GROUP BY p.pair, m.metric, i.cluster, x.item
"""
_PAIRED = """
    SELECT p.pair, m.metric, i.cluster, avg(y.score) AS base, avg(x.score) AS tuned, avg(y.score) - avg(x.score) AS value,
           bool_and(x.score IN (0, 1) AND y.score IN (0, 1)) AND count(*) = 1 AS zero_one
    FROM sample_scores x JOIN chunk p USING (evaluation_id)
    JOIN base_scores y ON y.evaluation_id = p.base_evaluation_id AND y.metric_id = x.metric_id
                      AND y.item = x.item AND y.repeat = x.repeat
    JOIN metrics m ON m.metric_id = x.metric_id
    JOIN items i ON i.benchmark = p.benchmark AND i.item = x.item
    GROUP BY p.pair, m.metric, i.cluster, x.item
"""
_FLIPS_BY_CLUSTER = """, sum(x.base) AS base, sum(x.tuned) AS tuned, bool_and(x.zero_one) AS zero_one,
    count(*) FILTER (x.value > 0) AS lost, count(*) FILTER (x.value < 0) AS gained"""
_FLIPS = """, sum(base) / sum(n) AS base, sum(tuned) / sum(n) AS tuned,
    CASE WHEN bool_and(zero_one) THEN sum(lost) END::DOUBLE AS lost,
    CASE WHEN bool_and(zero_one) THEN sum(gained) END::DOUBLE AS gained"""


def store_comparisons(con: duckdb.DuckDBPyConnection, study: str) -> None:
    """Compute what is not stored yet: the score of every evaluation, and every pair with the base."""
    _store_scores(con)
    con.execute(
        """CREATE OR REPLACE TEMP TABLE pairs AS
        SELECT row_number() OVER (ORDER BY e.evaluation_id) AS pair, e.evaluation_id, b.evaluation_id AS base_evaluation_id,
               s.benchmark, s.settings, t.settings AS base_settings, s.n, t.n AS base_n, s.settings_hash,
               t.settings_hash AS base_hash, e.exempt
        FROM (SELECT study, evaluation_id, bool_and(exempt) AS exempt FROM (
                  SELECT study, evaluation_id, false AS exempt FROM named_evaluations WHERE study = $study
                  UNION ALL SELECT study, evaluation_id, true FROM floor_evaluations WHERE study = $study)
              GROUP BY ALL) e
        JOIN stored_evaluations s USING (evaluation_id)
        JOIN named_evaluations b ON b.study = e.study AND b.checkpoint = e.study || '/base'
        JOIN stored_evaluations t ON t.evaluation_id = b.evaluation_id AND t.benchmark = s.benchmark
        WHERE NOT EXISTS (FROM comparisons c
                          WHERE c.evaluation_id = e.evaluation_id AND c.base_evaluation_id = b.evaluation_id)""",
        {"study": study},
    )
    refuse_unlike(con)
    con.execute("""CREATE OR REPLACE TEMP TABLE base_scores AS
        FROM sample_scores WHERE evaluation_id IN (SELECT base_evaluation_id FROM pairs)""")
    con.execute("""CREATE OR REPLACE TEMP TABLE base_answers AS SELECT evaluation_id, item, repeat, response
        FROM answers WHERE evaluation_id IN (SELECT base_evaluation_id FROM pairs)""")
    for found in _moments(con, "pairs", _MOMENTS.format(rows=_PAIRED, by_cluster=_FLIPS_BY_CLUSTER, more=_FLIPS)):
        _store_compared(con, found)
        _store_flips(con)


def _store_compared(con: duckdb.DuckDBPyConnection, found: dict[str, Any]) -> None:
    stderr, df, n, clusters = _errors(found)
    low, high = stats.paired_interval(found["mean"], stderr, df)
    lost, gained = _with_nan(found["lost"]), _with_nan(found["gained"])
    binary = ~np.isnan(lost)
    p = np.where(
        binary,
        stats.mcnemar_exact(np.where(binary, lost, 0), np.where(binary, gained, 0)),
        stats.t_p_value(found["mean"], stderr, df),
    )
    columns = {
        "pair": found["pair"], "metric": found["metric"], "n": n, "clusters": clusters, "base_score": found["base"],
        "score": found["tuned"], "drop": found["mean"], "lost": lost, "gained": gained, "stderr": stderr, "df": df,
        "ci_low": low, "ci_high": high, "p_value": p,
    }  # fmt: skip
    _insert_columns(
        con,
        columns,
        """INSERT INTO comparisons SELECT p.evaluation_id, p.base_evaluation_id, f.metric, f.n, f.clusters, f.base_score,
        f.score, f."drop", f.lost, f.gained, f.stderr, f.df, f.ci_low, f.ci_high, f.p_value
        FROM incoming_columns f JOIN pairs p USING (pair) ORDER BY ALL""",
    )


def _store_flips(con: duckdb.DuckDBPyConnection) -> None:
    """The items of the chunk's evaluations that flipped, for every metric whose flips were counted."""
    con.execute("""DELETE FROM flipped USING chunk p
        WHERE flipped.evaluation_id = p.evaluation_id AND flipped.base_evaluation_id = p.base_evaluation_id""")
    with _joined_as_written(con):
        con.execute("""INSERT INTO flipped
            WITH f AS MATERIALIZED (
                SELECT x.evaluation_id, p.base_evaluation_id, x.metric_id, x.item, x.repeat, x.score < y.score AS lost
                FROM sample_scores x JOIN chunk p USING (evaluation_id)
                JOIN base_scores y ON y.evaluation_id = p.base_evaluation_id AND y.metric_id = x.metric_id
                                  AND y.item = x.item AND y.repeat = x.repeat
                JOIN metrics m ON m.metric_id = x.metric_id
                JOIN comparisons c ON c.evaluation_id = x.evaluation_id AND c.base_evaluation_id = p.base_evaluation_id
                                  AND c.metric = m.metric
                WHERE c.lost + c.gained > 0 AND x.score <> y.score
            )
            SELECT f.evaluation_id, f.base_evaluation_id, f.metric_id, f.item, f.lost, y.response, x.response
            FROM answers x JOIN chunk p USING (evaluation_id)
            JOIN f ON f.evaluation_id = x.evaluation_id AND f.base_evaluation_id = p.base_evaluation_id
                  AND f.item = x.item AND f.repeat = x.repeat
            JOIN base_answers y ON y.evaluation_id = f.base_evaluation_id AND y.item = f.item AND y.repeat = f.repeat
            ORDER BY f.evaluation_id, f.base_evaluation_id, f.metric_id, f.item""")


def _store_scores(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("""CREATE OR REPLACE TEMP TABLE unscored AS
        SELECT evaluation_id AS pair, evaluation_id, benchmark, n FROM stored_evaluations ANTI JOIN evaluation_scores
        USING (evaluation_id)""")
    for found in _moments(con, "unscored", _MOMENTS.format(rows=_SCORES, by_cluster="", more="")):
        stderr, _, n, clusters = _errors(found)
        columns = {
            "evaluation_id": found["pair"], "metric": found["metric"], "n": n, "clusters": clusters,
            "score": found["mean"], "stderr": stderr,
        }  # fmt: skip
        _insert_columns(con, columns, "INSERT INTO evaluation_scores SELECT * FROM incoming_columns ORDER BY ALL")


def _moments(con: duckdb.DuckDBPyConnection, pairs: str, sql: str) -> Iterator[dict[str, Any]]:
    """The moments of some pairs at a time, evaluations in the order in which they are stored."""
    chunks = con.execute(f"""SELECT min(pair), max(pair) FROM (
        SELECT pair, sum(n) OVER (ORDER BY pair) // {_CHUNK} AS chunk FROM {pairs}) GROUP BY chunk ORDER BY chunk""").fetchall()
    for first, last in chunks:
        con.execute(f"CREATE OR REPLACE TEMP TABLE chunk AS FROM {pairs} WHERE pair BETWEEN ? AND ?", [first, last])
        with _joined_as_written(con):
            found = con.execute(sql).fetchnumpy()
        if len(found["pair"]):
            yield found


@contextlib.contextmanager
def _joined_as_written(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """The first table of a query streams past in its stored order, so that sums do not depend on what else is loaded."""
    con.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
    yield
    con.execute("RESET disabled_optimizers")


def _errors(found: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Standard error, degrees of freedom, n and clusters of each row of moments."""
    n = found["n"].astype(float)
    clusters = _with_nan(found["clusters"])
    stderr = stats.standard_error(n, found["squares"], clusters, _with_nan(found["cluster_squares"]))
    return stderr, stats.degrees_of_freedom(n, clusters), n, clusters


def _with_nan(column: Any) -> stats.Floats:
    """A column of DuckDB's as floats, NULL as NaN."""
    masked: Any = np.ma.asarray(column)
    filled: stats.Floats = np.ma.filled(masked.astype(float), np.nan)
    return filled


def _insert_columns(con: duckdb.DuckDBPyConnection, columns: dict[str, Any], statement: str) -> None:
    """Run an insert that reads `incoming_columns`; NaN becomes NULL."""
    import pyarrow as pa

    arrays = {
        name: pa.array(np.ma.getdata(values), from_pandas=True) if values.dtype != object else pa.array(values.tolist())
        for name, values in columns.items()
    }
    con.register("incoming_columns", pa.table(arrays))
    con.execute(statement)
    con.unregister("incoming_columns")
