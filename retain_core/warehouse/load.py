"""The single loader: artifacts in, one consistent warehouse out, in one transaction.

A load replaces what the warehouse says of one study and adds the evaluations it does not have yet.
Anything that fails rolls back, so readers never see half a load. The file can be deleted: loading
again gives equal content.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import duckdb

from retain_core.canonical import canonical_json
from retain_core.errors import FULL, RetainError, disk_is_full
from retain_core.evaluation.answers import ANSWERS, SCORES
from retain_core.evaluation.divergence import ROWS
from retain_core.published import load_published
from retain_core.store import Artifact
from retain_core.warehouse.analyse import store_analysis, store_over_bases
from retain_core.warehouse.compare import store_comparisons
from retain_core.warehouse.contents import STUDY_TABLES, Contents, Evaluated
from retain_core.warehouse.predictions import put_predictions, store_checks
from retain_core.warehouse.rows import insert

SCHEMA_VERSION = 14
"""Raised when schema.sql, views.sql or comments.sql changes; a file of another version is rebuilt, not migrated."""

_AT_ONCE = 1_000_000
"""Answers that are read at once, so that memory does not grow with the load."""
_NAMES = ("named_evaluations", "floor_evaluations", "named_divergences")


@dataclass(frozen=True)
class LoadResult:
    """What a load did."""

    evaluations: int
    """Evaluations whose answers were read from Parquet."""
    analysis: str
    """Hash of everything that the analysis of the study was computed from."""


def is_current(path: Path) -> bool:
    """Whether a warehouse of this version is there."""
    return path.exists() and _version(path) == SCHEMA_VERSION


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    """Open the warehouse for writing, creating it when it is not there or of another version."""
    if path.exists() and not is_current(path):
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    con = duckdb.connect(str(path))
    if fresh:
        con.begin()
        _run(con, "schema.sql")
        _run(con, "views.sql")
        load_published(con)
        _run(con, "comments.sql")
        con.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])
        con.commit()
    return con


def load_contents(path: Path, contents: Contents) -> LoadResult:
    """Bring the warehouse up to date with one study. Raises RetainError when the disk is full or the file is damaged."""
    try:
        return _load(path, contents)
    except duckdb.Error as error:
        if disk_is_full(error):
            raise RetainError(FULL) from error
        if _is_damage(error):
            raise RetainError(f"{path} is damaged; delete it and run again: it is an index and is built anew") from error
        raise


def _load(path: Path, contents: Contents) -> LoadResult:
    con = connect(path)
    try:
        con.begin()
        try:
            added = _add_evaluations(con, [*contents.evaluations, *(e for _, e in contents.floor)])
            _add_divergences(con, [artifact for _, artifact in contents.divergences])
            _replace_study(con, contents)
            # One thread: sums of floats depend on their order, and a rebuilt file must hold equal numbers.
            con.execute("SET threads TO 1")
            store_comparisons(con, contents.study)
            # Of a gate whose checkpoint is gone there are decisions and nothing to analyse.
            analysis = store_analysis(con, contents.study) if "studies" in contents.tables else ""
            store_over_bases(con)
            if contents.predictions is not None:
                put_predictions(con, contents.predictions)
            store_checks(con)
            con.commit()
        except BaseException:
            con.rollback()
            raise
    finally:
        con.close()
    return LoadResult(added, analysis)


def _run(con: duckdb.DuckDBPyConnection, name: str) -> None:
    con.execute(files("retain_core.warehouse").joinpath(name).read_text(encoding="utf-8"))


def _is_damage(error: duckdb.Error) -> bool:
    return "corrupt" in str(error).lower()


def _version(path: Path) -> int | None:
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            found = con.execute("SELECT version FROM schema_version").fetchone()
    except (duckdb.CatalogException, duckdb.InvalidInputException):
        return None
    except duckdb.Error as error:
        if "lock on file" in str(error):
            raise RetainError(f"{path} is open in another program; close it and run again") from None
        if not isinstance(error, duckdb.IOException) and not _is_damage(error):
            raise
        return None
    return int(found[0]) if found else None


def _add_evaluations(con: duckdb.DuckDBPyConnection, evaluations: list[Evaluated]) -> int:
    """Read the answers of evaluations that the warehouse does not have, or has from another seal."""
    wanted = {e.artifact.key: e for e in evaluations}
    known = dict(con.execute("SELECT artifact, seal FROM stored_evaluations").fetchall())
    stale = [key for key, e in wanted.items() if key in known and known[key] != e.artifact.seal]
    for key in stale:
        _forget(con, key)
    new = [e for key, e in wanted.items() if key not in known or key in stale]
    if not new:
        return 0
    first = con.execute("SELECT coalesce(max(evaluation_id), 0) + 1 FROM stored_evaluations").fetchone()
    assert first is not None
    rows = [
        [
            first[0] + i, e.artifact.key, e.artifact.seal, e.benchmark, canonical_json(e.settings),
            e.artifact.meta["settings_hash"], e.artifact.meta["n"], e.artifact.created_at,
        ]
        for i, e in enumerate(new)
    ]  # fmt: skip
    insert(con, "stored_evaluations", rows)
    con.execute("CREATE OR REPLACE TEMP TABLE incoming (file VARCHAR, evaluation_id INTEGER, benchmark VARCHAR)")
    answers = itertools.accumulate(row[6] for row in rows)
    for _, group in itertools.groupby(zip(new, rows, answers, strict=True), lambda one: (one[2] - 1) // _AT_ONCE):
        batch = list(group)
        for name, load in ((ANSWERS, _load_answers), (SCORES, _load_scores)):
            sources = [str(e.artifact.file(name)) for e, *_ in batch]
            con.execute("DELETE FROM incoming")
            insert(con, "incoming", [[s, row[0], row[3]] for s, (_, row, _) in zip(sources, batch, strict=True)])
            load(con, sources)
    return len(new)


def _load_answers(con: duckdb.DuckDBPyConnection, sources: list[str]) -> None:
    con.execute("CREATE OR REPLACE TEMP TABLE incoming_answers AS SELECT * FROM read_parquet(?, filename = true)", [sources])
    con.execute("""
        INSERT INTO items
        SELECT f.benchmark, p.item, any_value(p.doc_id), any_value(p.prompt_hash), any_value(p.cluster),
               any_value(p.split), any_value(p.kind), any_value(p.prompt), any_value(p.target)
        FROM incoming_answers p JOIN incoming f ON f.file = p.filename
        WHERE NOT EXISTS (FROM items i WHERE i.benchmark = f.benchmark AND i.item = p.item)
        GROUP BY f.benchmark, p.item ORDER BY f.benchmark, any_value(p.doc_id)""")
    con.execute("""
        INSERT INTO answers
        SELECT f.evaluation_id, p.item, p.repeat, p.parsed, p.finish_reason, p.n_tokens, p.response
        FROM incoming_answers p JOIN incoming f ON f.file = p.filename ORDER BY f.evaluation_id, p.item, p.repeat""")
    con.execute("DROP TABLE incoming_answers")


def _load_scores(con: duckdb.DuckDBPyConnection, sources: list[str]) -> None:
    con.execute("CREATE OR REPLACE TEMP TABLE incoming_scores AS SELECT * FROM read_parquet(?, filename = true)", [sources])
    con.execute("""
        INSERT INTO metrics
        SELECT (SELECT coalesce(max(metric_id), 0) FROM metrics) + row_number() OVER (ORDER BY metric), metric
        FROM (SELECT DISTINCT metric FROM incoming_scores ANTI JOIN metrics USING (metric))""")
    con.execute("""
        INSERT INTO sample_scores
        SELECT f.evaluation_id, m.metric_id, p.item, p.repeat, p.score
        FROM incoming_scores p JOIN incoming f ON f.file = p.filename JOIN metrics m USING (metric)
        ORDER BY f.evaluation_id, m.metric_id, p.item, p.repeat""")
    con.execute("DROP TABLE incoming_scores")


def _forget(con: duckdb.DuckDBPyConnection, artifact: str) -> None:
    found = con.execute("SELECT evaluation_id FROM stored_evaluations WHERE artifact = ?", [artifact]).fetchone()
    assert found is not None
    for table in ("stored_evaluations", "sample_scores", "answers", "evaluation_scores"):
        con.execute(f"DELETE FROM {table} WHERE evaluation_id = ?", [found[0]])
    for table in ("comparisons", "flipped"):
        con.execute(f"DELETE FROM {table} WHERE ? IN (evaluation_id, base_evaluation_id)", [found[0]])


def _add_divergences(con: duckdb.DuckDBPyConnection, artifacts: list[Artifact]) -> None:
    """Read the divergences that the warehouse does not have, or has from another seal."""
    wanted = {a.key: a for a in artifacts}
    known = dict(con.execute("SELECT artifact, seal FROM stored_divergences").fetchall())
    for key in [key for key, a in wanted.items() if key in known and known[key] != a.seal]:
        (number,) = con.execute("SELECT divergence_id FROM stored_divergences WHERE artifact = ?", [key]).fetchone() or (0,)
        for table in ("stored_divergences", "divergence_items"):
            con.execute(f"DELETE FROM {table} WHERE divergence_id = ?", [number])
        del known[key]
    new = [a for key, a in wanted.items() if key not in known]
    if not new:
        return
    first = con.execute("SELECT coalesce(max(divergence_id), 0) + 1 FROM stored_divergences").fetchone()
    assert first is not None
    sources = [str(a.file(ROWS)) for a in new]
    insert(con, "stored_divergences", [[first[0] + i, a.key, a.seal] for i, a in enumerate(new)])
    con.execute("CREATE OR REPLACE TEMP TABLE incoming_divergences (file VARCHAR, divergence_id INTEGER)")
    insert(con, "incoming_divergences", [[source, first[0] + i] for i, source in enumerate(sources)])
    con.execute(
        """INSERT INTO divergence_items
        SELECT f.divergence_id, p.prompts, p.direction, p.item, p.nats, p.tokens
        FROM read_parquet(?, filename = true) p JOIN incoming_divergences f ON f.file = p.filename
        ORDER BY f.divergence_id, p.prompts, p.direction, p.item""",
        [sources],
    )


def _replace_study(con: duckdb.DuckDBPyConnection, contents: Contents) -> None:
    study = contents.study
    for table in (*STUDY_TABLES, *_NAMES):
        con.execute(f"DELETE FROM {table} WHERE study = ?", [study])
    for table, rows in contents.tables.items():
        insert(con, table, rows)
    ids = dict(con.execute("SELECT artifact, evaluation_id FROM stored_evaluations").fetchall())
    found = contents.evaluations
    base = {e.benchmark: ids[e.artifact.key] for e in found if e.checkpoint == f"{study}/base"}
    named = [[f"{e.checkpoint}/{e.benchmark}", study, e.checkpoint, ids[e.artifact.key], base.get(e.benchmark)] for e in found]
    insert(con, "named_evaluations", named)
    insert(con, "floor_evaluations", [[study, nuisance, ids[e.artifact.key]] for nuisance, e in contents.floor])
    ids = dict(con.execute("SELECT artifact, divergence_id FROM stored_divergences").fetchall())
    insert(con, "named_divergences", [[study, checkpoint, ids[a.key]] for checkpoint, a in contents.divergences])
