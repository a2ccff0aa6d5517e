"""The analysis of a study as a whole, computed when its answers changed and stored as rows.

Its random streams come from the study's own text, so that a rebuilt warehouse holds equal numbers.
"""

from __future__ import annotations

import json
from typing import Any

import duckdb
import numpy as np

from retain_core.analysis.bases import figures_over_bases
from retain_core.analysis.cells import cell_intervals
from retain_core.analysis.contrasts import Contrast, Declared, contrasts, declared
from retain_core.analysis.law import law_of
from retain_core.analysis.matching import GAINS, Curves, MatchedPoint, front_points, matched_points
from retain_core.analysis.scores import StudyScores, read_scores
from retain_core.canonical import digest
from retain_core.methods import needed_controls
from retain_core.revisions import question
from retain_core.stats.sequential import MOST_LOOKS, look_levels, overall_error
from retain_core.warehouse.rows import insert

ANALYSIS_VERSION = 3
"""Raised when equal answers would give other figures."""
_TABLES = ("intervals", "contrasts", "contrast_benchmarks", "matched", "pareto", "kl_law", "looks")


def store_analysis(con: duckdb.DuckDBPyConnection, study: str) -> str:
    """Compute and store the analysis, if the answers changed. Returns the hash of what it was computed from."""
    inputs = _inputs(con, study)
    if con.execute("SELECT 1 FROM analyses WHERE study = ? AND inputs = ?", [study, inputs]).fetchone():
        return inputs
    for table in ("analyses", *_TABLES):
        con.execute(f"DELETE FROM {table} WHERE study = ?", [study])
    scores = read_scores(con, study)
    seed = int(digest([study, scores.spec], 12), 16)
    looks = _store_looks(con, scores)
    if scores.cells and scores.retention:
        _store(con, scores, declared(scores, len(looks), looks[-1], _withheld(con, scores)), np.random.default_rng(seed))
    insert(con, "analyses", [[study, inputs, seed]])
    return inputs


def store_over_bases(con: duckdb.DuckDBPyConnection) -> None:
    """Figures over all bases of each family of studies, from what is stored of the studies."""
    con.execute("DELETE FROM over_bases")
    rows = [
        [
            f.family, *f.named, len(f.studies), f.studies, f.quantity, f.a, f.b, f.at, f.learning_rate, f.interval.estimate,
            f.interval.low, f.interval.high, f.interval.df, f.primary, f.word, f.interval.rule,
        ]
        for f in figures_over_bases(con)
    ]  # fmt: skip
    insert(con, "over_bases", rows)


def _inputs(con: duckdb.DuckDBPyConnection, study: str) -> str:
    """Hash of everything that the analysis reads."""
    parts = [
        con.execute(sql, [study]).fetchall()
        for sql in (
            "SELECT spec_hash, looks FROM studies WHERE study = ? AND is_current",
            "SELECT arm, status, artifact FROM arms WHERE study = ? ORDER BY arm",
            """SELECT n.checkpoint, s.benchmark, s.seal FROM named_evaluations n JOIN stored_evaluations s USING (evaluation_id)
            WHERE n.study = ? ORDER BY ALL""",
            """SELECT f.nuisance, s.benchmark, s.seal FROM floor_evaluations f JOIN stored_evaluations s USING (evaluation_id)
            WHERE f.study = ? ORDER BY ALL""",
            """SELECT n.checkpoint, d.seal FROM named_divergences n JOIN stored_divergences d USING (divergence_id)
            WHERE n.study = ? ORDER BY ALL""",
        )
    ]
    return digest([ANALYSIS_VERSION, parts])


def _store(con: duckdb.DuckDBPyConnection, scores: StudyScores, said: Declared, rng: np.random.Generator) -> None:
    study, place = scores.study, [scores.study, scores.base, scores.target]
    curves = Curves(scores)
    intervals = [
        [
            study, cell.method, cell.learning_rate, quantity, i.estimate, i.low, i.high, i.stderr, i.df, i.seeds, i.n,
            i.rule,
        ]
        for cell, quantity, i in cell_intervals(scores)
    ]  # fmt: skip
    insert(con, "intervals", intervals)
    found = contrasts(scores, curves, said)
    when = _declared(con, scores, said)
    insert(con, "contrasts", [[*place, *_contrast_row(c, said), *(when if c.primary else (None, None))] for c in found])
    per_benchmark = [
        [
            study, c.a, c.b, c.at, *c.rates, b.benchmark, b.near, b.interval.estimate, b.interval.low, b.interval.high,
            b.interval.df, b.interval.p_value(), b.p_holm, b.diff_without,
        ]
        for c in found
        for b in c.benchmarks
    ]  # fmt: skip
    insert(con, "contrast_benchmarks", per_benchmark)
    points = matched_points(curves, sorted({said.gain, *GAINS}))
    insert(con, "matched", [[*place, *_matched_row(p)] for p in points])
    rule = "front chosen on select, gain and drop shown on report, seeds averaged"
    insert(con, "pareto", [[*place, *p, rule] for p in front_points(curves)])
    law = [
        [
            *place, r.name, r.r2_in, r.r2_left_out, r.low, r.high, r.kl_better, r.beats_all_trivial, r.n_checkpoints,
            r.n_runs, r.n_methods, r.reason or None,
        ]
        for r in law_of(scores, rng)
    ]  # fmt: skip
    insert(con, "kl_law", law)


def _declared(con: duckdb.DuckDBPyConnection, scores: StudyScores, said: Declared) -> tuple[Any, bool | None]:
    """When a text that asks the same question (`revisions.question`) was first declared, and whether before training."""
    if said.a is None or said.b is None:
        return None, None
    trained: dict[str | None, str] = {cell.method: cell.parent.method for cell in scores.interpolated if cell.parent}
    texts = con.execute("SELECT spec, CAST(declared_at AS VARCHAR) FROM studies WHERE study = ?", [scores.study]).fetchall()
    asked = question(scores.spec)
    first = min(when for text, when in texts if question(json.loads(text)) == asked)
    row = con.execute(
        "SELECT CAST($first AS TIMESTAMP) <= min(created_at) FROM arms WHERE study = $study AND method IN ($a, $b)",
        {"first": first, "study": scores.study, "a": trained.get(said.a, said.a), "b": trained.get(said.b, said.b)},
    ).fetchone()
    return first, row[0] if row else None


def _contrast_row(c: Contrast, said: Declared) -> list[Any]:
    i = c.interval
    return [
        c.a, c.b, c.at, *c.rates, i.estimate, i.low, i.high, 1 - c.level, *c.interval_90, i.df, i.stderr, i.p_value(),
        c.p_adjusted, c.word, c.reason, c.robust, c.diff_far, c.primary, said.look if c.primary else 1, c.type_s, c.type_m,
        c.rule,
    ]  # fmt: skip


def _matched_row(p: MatchedPoint) -> list[Any]:
    i = p.found.interval
    return [
        p.method, p.axis, p.value, p.found.learning_rate, p.found.step, i.estimate, i.low, i.high, p.found.largest,
        p.found.stderr if p.axis == "gain" else None, p.state, p.at_edge, p.learning_rates, i.seeds, i.rule,
    ]  # fmt: skip


def _store_looks(con: duckdb.DuckDBPyConnection, scores: StudyScores) -> list[float]:
    """One row a look at the primary contrast. Returns the nominal level of every look so far.

    A look that was not declared before training costs: its level is that of a study that had planned
    three, and the overall error is what all looks together come to.
    """
    row = con.execute("SELECT looks FROM studies WHERE study = ? AND is_current", [scores.study]).fetchone()
    assert row is not None
    seeds: list[int] = row[0]
    planned = (scores.spec.get("primary") or {}).get("looks", 1)
    levels = look_levels(seeds[:planned], planned)
    if len(seeds) > planned:
        levels += look_levels(seeds, MOST_LOOKS)[planned:]
    error = overall_error(levels, seeds)
    rows = [[scores.study, k + 1, n, planned, level, error] for k, (n, level) in enumerate(zip(seeds, levels, strict=True))]
    insert(con, "looks", rows)
    return levels


def _withheld(con: duckdb.DuckDBPyConnection, scores: StudyScores) -> str | None:
    """Why there can be no verdict: a control that failed, or that a lab study must have and has not."""
    passed = dict(con.execute("SELECT control, passed FROM controls WHERE study = ?", [scores.study]).fetchall())
    missing = [name for name in needed_controls(scores.spec) if passed.get(name) is None]
    failed = [name for name, ok in passed.items() if ok is False]
    if failed:
        return f"{_controls(failed)} failed"
    return f"{_controls(missing)} {'was' if len(missing) == 1 else 'were'} not run" if missing else None


def _controls(names: list[str]) -> str:
    return f"control {names[0]}" if len(names) == 1 else f"controls {', '.join(names[:-1])} and {names[-1]}"
