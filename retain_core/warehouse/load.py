"""The single loader: artifacts in, one consistent warehouse out, in one transaction.

A load replaces what the warehouse says of one study and adds the evaluations it does not have yet.
Anything that fails rolls back, so readers never see half a load. The file can be deleted: loading
again gives equal content.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb

from retain_core.arms import ArmSpec
from retain_core.canonical import canonical_json
from retain_core.errors import RetainError
from retain_core.evaluation.answers import ANSWERS, SCORES
from retain_core.evaluation.benchmarks import BENCHMARKS, primary_metric
from retain_core.evaluation.evaluate import EvaluationPlan
from retain_core.plan import PlannedArm, StudyPlan
from retain_core.revisions import Revision
from retain_core.store import Artifact
from retain_core.study import Study
from retain_core.warehouse.compare import store_comparisons

SCHEMA_VERSION = 2
"""Raised when schema.sql or views.sql changes; a file of another version is rebuilt, not migrated."""

_STUDY_TABLES = ("studies", "study_benchmarks", "arms", "checkpoints", "support", "named_evaluations")


@dataclass(frozen=True)
class LoadResult:
    """What a load did."""

    evaluations: int
    """Evaluations whose answers were read from Parquet."""


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    """Open the warehouse for writing, creating it when it is not there or of another version."""
    if path.exists() and _version(path) != SCHEMA_VERSION:
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    con = duckdb.connect(str(path))
    if fresh:
        con.begin()
        for name in ("schema.sql", "views.sql"):
            con.execute(files("retain_core.warehouse").joinpath(name).read_text(encoding="utf-8"))
        con.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])
        con.commit()
    return con


def load_study(path: Path, plan: StudyPlan, revisions: list[Revision], errors: dict[str, str]) -> LoadResult:
    """Bring the warehouse up to date with one study. `errors` maps the arms that failed to why."""
    con = connect(path)
    try:
        con.begin()
        try:
            added = _add_evaluations(con, plan)
            _replace_study(con, plan, revisions, errors)
            # One thread: sums of floats depend on their order, and a rebuilt file must hold equal numbers.
            con.execute("SET threads TO 1")
            store_comparisons(con, plan.study.study)
            con.commit()
        except BaseException:
            con.rollback()
            raise
    finally:
        con.close()
    return LoadResult(added)


def _version(path: Path) -> int | None:
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            found = con.execute("SELECT version FROM schema_version").fetchone()
    except (duckdb.CatalogException, duckdb.InvalidInputException):
        return None
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            raise RetainError(f"{path} is open in another program; close it and run again") from None
        return None
    return int(found[0]) if found else None


def _evaluations(plan: StudyPlan) -> list[tuple[str, EvaluationPlan, Artifact]]:
    """(checkpoint, plan, artifact) of every evaluation that exists."""
    base = f"{plan.study.study}/base"
    found = [(base, p, a) for p, a in plan.base_evaluations]
    for arm in plan.arms:
        for step in arm.evaluated_steps:
            found += [(arm.spec.checkpoint(step), p, a) for p, a in arm.evaluations[step]]
    return [(checkpoint, p, a) for checkpoint, p, a in found if a is not None]


def _add_evaluations(con: duckdb.DuckDBPyConnection, plan: StudyPlan) -> int:
    """Read the answers of evaluations that the warehouse does not have, or has from another seal."""
    wanted = {a.key: (p, a) for _, p, a in _evaluations(plan)}
    known = dict(con.execute("SELECT artifact, seal FROM stored_evaluations").fetchall())
    stale = [key for key, (_, a) in wanted.items() if key in known and known[key] != a.seal]
    for key in stale:
        _forget(con, key)
    new = [(p, a) for key, (p, a) in wanted.items() if key not in known or key in stale]
    if not new:
        return 0
    first = con.execute("SELECT coalesce(max(evaluation_id), 0) + 1 FROM stored_evaluations").fetchone()
    assert first is not None
    rows = [
        [
            first[0] + i,
            a.key,
            a.seal,
            p.benchmark,
            canonical_json(p.settings),
            a.meta["settings_hash"],
            a.meta["n"],
            a.created_at,
        ]
        for i, (p, a) in enumerate(new)
    ]
    _insert(con, "stored_evaluations", rows)
    con.execute("CREATE OR REPLACE TEMP TABLE incoming (file VARCHAR, evaluation_id INTEGER, benchmark VARCHAR)")
    for name in (ANSWERS, SCORES):
        sources = [str(a.file(name)) for _, a in new]
        con.execute("DELETE FROM incoming")
        _insert(con, "incoming", [[s, row[0], row[3]] for s, row in zip(sources, rows, strict=True)])
        (_load_answers if name == ANSWERS else _load_scores)(con, sources)
    return len(new)


def _load_answers(con: duckdb.DuckDBPyConnection, sources: list[str]) -> None:
    con.execute("CREATE OR REPLACE TEMP TABLE incoming_answers AS SELECT * FROM read_parquet(?, filename = true)", [sources])
    con.execute("""
        INSERT INTO items
        SELECT f.benchmark, p.item, any_value(p.doc_id), any_value(p.prompt_hash), any_value(p.cluster),
               any_value(p.split), any_value(p.prompt), any_value(p.target)
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
    con.execute("DELETE FROM comparisons WHERE ? IN (evaluation_id, base_evaluation_id)", [found[0]])


def _replace_study(con: duckdb.DuckDBPyConnection, plan: StudyPlan, revisions: list[Revision], errors: dict[str, str]) -> None:
    study = plan.study
    for table in _STUDY_TABLES:
        con.execute(f"DELETE FROM {table} WHERE study = ?", [study.study])
    _insert(con, "studies", [_study_row(study.study, r) for r in revisions])
    _insert(con, "study_benchmarks", _benchmark_rows(study))
    _insert(con, "arms", [_base_row(plan), *(_arm_row(plan, arm, errors) for arm in plan.arms)])
    base = f"{study.study}/base"
    rows: list[list[Any]] = [[base, base, study.study, 0, None, None, True, 0.0, 0.0]]
    for arm in plan.arms:
        rows += [_checkpoint_row(arm, step) for step in arm.evaluated_steps]
    _insert(con, "checkpoints", rows)
    if plan.support:
        pass_at = plan.support.meta["pass_at"]
        items = plan.support.inputs["items"]
        _insert(con, "support", [[study.study, base, study.target, int(k), v, items] for k, v in pass_at.items()])
    ids = dict(con.execute("SELECT artifact, evaluation_id FROM stored_evaluations").fetchall())
    named = [[f"{c}/{p.benchmark}", study.study, c, ids[a.key]] for c, p, a in _evaluations(plan)]
    _insert(con, "named_evaluations", named)


def _study_row(study: str, revision: Revision) -> list[Any]:
    contrast = revision.spec.get("primary")
    return [
        study, revision.number, canonical_json(revision.spec), revision.spec_hash,
        canonical_json(contrast) if contrast else None, revision.declared_at, revision.declared_at, revision.current,
    ]  # fmt: skip


def _benchmark_rows(study: Study) -> list[list[Any]]:
    rows: list[list[Any]] = [[study.study, study.target, primary_metric(study.target), "target", None]]
    rows += [[study.study, r.benchmark, r.metric or primary_metric(r.benchmark), "retention", r.near] for r in study.retention]
    rows += [[study.study, name, primary_metric(name), BENCHMARKS[name].role, None] for name in study.probes]
    return rows


def _base_row(plan: StudyPlan) -> list[Any]:
    study, weights = plan.study, plan.base_weights
    base = f"{study.study}/base"
    init_seed = plan.base.lab.seed if plan.base.lab else None
    return [
        base, study.study, base, study.target, "base", "none", "base", canonical_json(study.base), None, None, None,
        init_seed, None, None, "done" if plan.base_ready else "missing", None, 0, 0, 0, 0, 0, None, 0.0, 0.0, 0.0, None,
        weights.created_at if weights else None, plan.base.fingerprint,
    ]  # fmt: skip


def _arm_row(plan: StudyPlan, arm: PlannedArm, errors: dict[str, str]) -> list[Any]:
    spec, meta = arm.spec, arm.record.meta if arm.record else {}
    status = "done" if arm.done else "failed" if spec.arm in errors else "missing"
    distance, path = meta.get("distances", {}).get(str(spec.steps[-1]), (None, None))
    init_seed = plan.base.lab.seed if plan.base.lab else None
    return [
        spec.arm, spec.study, f"{spec.study}/base", spec.target, spec.method, spec.config["algorithm"], spec.role,
        canonical_json({**spec.config, "updates": spec.updates, "sequences_per_update": spec.sequences_per_update}),
        spec.learning_rate, spec.seed, spec.seed, init_seed, spec.seed, None, status, errors.get(spec.arm),
        meta.get("updates"), meta.get("sequences"), meta.get("unique_prompts"), meta.get("tokens_trained"),
        meta.get("tokens_generated"), meta.get("style_distance"), meta.get("seconds"), path, distance, meta.get("git_sha"),
        arm.record.created_at if arm.record else None, spec.key,
    ]  # fmt: skip


def _checkpoint_row(arm: PlannedArm, step: int) -> list[Any]:
    spec: ArmSpec = arm.spec
    distances = arm.record.meta["distances"] if arm.record else {}
    distance, path = distances.get(str(step), (None, None))
    kept = step in spec.kept_steps() if spec.trained else True
    return [spec.checkpoint(step), spec.arm, spec.study, step, None, None, kept, distance, path]


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: list[list[Any]]) -> None:
    """Insert rows in order; through one JSON document, which is much faster than a statement a row."""
    if not rows:
        return
    columns = [r[0] for r in con.execute(f"SELECT column_name FROM (DESCRIBE {table})").fetchall()]
    types = [r[0].replace("JSON", "VARCHAR") for r in con.execute(f"SELECT column_type FROM (DESCRIBE {table})").fetchall()]
    shape = json.dumps([dict(zip(columns, types, strict=True))])
    records = json.dumps([dict(zip(columns, row, strict=True)) for row in rows])
    con.execute(f"INSERT INTO {table} SELECT unnest(from_json(?::JSON, '{shape}'), recursive := true)", [records])
