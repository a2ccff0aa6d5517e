"""What a study can find before it runs: smallest detectable difference, type S and M error, blind benchmarks.

The variances come from a pilot: the answers that the warehouse already has of this study. Without one,
nothing is guessed.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import duckdb
import numpy as np

from retain_core.analysis.contrasts import DEFAULT_MARGIN
from retain_core.analysis.scores import Cell, StudyScores, read_scores
from retain_core.stats.crossed import mean_components
from retain_core.stats.power import (
    Pilot,
    can_see_loss,
    planned_df,
    planned_stderr,
    seeds_to_verdict,
    smallest_detectable_drop,
    type_s_m,
)
from retain_core.study import Study
from retain_core.warehouse.load import SCHEMA_VERSION
from retain_core.warehouse.query import open_warehouse, render

SEEDS_SHOWN = (2, 3, 5, 10)


def detectable_lines(study: Study, warehouse: Path, seconds_per_seed: float | None) -> list[str]:
    """What can be found at the study's seeds and at more, and which benchmarks can show a loss at all."""
    scores = _pilot_scores(study, warehouse)
    if scores is None:
        return ["detectable drop: unknown without a pilot; run the study with two seeds, then plan it again"]
    margin = study.primary.margin if study.primary else DEFAULT_MARGIN
    return [*_contrast_lines(study, scores, margin, seconds_per_seed), "", _benchmark_table(study, scores, margin)]


def contrast_pilot(scores: StudyScores, a: Cell, b: Cell) -> Pilot:
    """Variance components of drop of a - drop of b at the last checkpoint; seeds are nested in methods."""
    clusters = [q.clusters for q in scores.retention]
    sides = [[scores.of(q, cell.last()) for q in scores.retention] for cell in (a, b)]
    of_a, of_b = (mean_components(side, clusters) for side in sides)
    difference = [y.mean(axis=1, keepdims=True) - x.mean(axis=1, keepdims=True) for x, y in zip(*sides, strict=True)]
    items = mean_components(difference, clusters).ms_items
    noise = sum(part.ms_residual / part.seeds for part in (of_a, of_b))
    seed = sum(max(part.seed_variance, 0.0) for part in (of_a, of_b))
    return Pilot(max(items - noise, 0.0), seed, of_a.ms_residual + of_b.ms_residual, of_a.n)


def _pilot_scores(study: Study, warehouse: Path) -> StudyScores | None:
    """This study's answers, when at least two cells have two seeds."""
    if not warehouse.is_file():
        return None
    with open_warehouse(warehouse) as con:
        try:
            version = con.execute("SELECT version FROM schema_version").fetchone()
        except duckdb.CatalogException:
            return None
        if version != (SCHEMA_VERSION,):
            return None
        if not con.execute("SELECT 1 FROM studies WHERE study = ? AND is_current", [study.study]).fetchone():
            return None
        scores = read_scores(con, study.study)
    return scores if len(_repeated(scores)) >= 2 else None


def _repeated(scores: StudyScores) -> list[Cell]:
    return [cell for cell in scores.methods() if len(cell.seeds) > 1]


def _contrast_lines(study: Study, scores: StudyScores, margin: float, seconds_per_seed: float | None) -> list[str]:
    """The declared contrast at its highest learning rate, or the median pair of the study."""
    cells = _repeated(scores)
    named: tuple[str, ...] = study.primary.contrast if study.primary else ()
    chosen = [max((c for c in cells if c.method == name), key=lambda c: c.learning_rate or 0.0, default=None) for name in named]
    known = [cell for cell in chosen if cell]
    if len(known) == 2:
        pilot, what = contrast_pilot(scores, *known), " - ".join(f"drop of {name}" for name in named)
    else:
        pilots = [contrast_pilot(scores, a, b) for a, b in combinations(cells, 2)]
        pilot = sorted(pilots, key=lambda p: planned_stderr(p, len(study.seeds)))[len(pilots) // 2]
        what = "the contrast of two methods (the median pair)"
    arms = len(cells)

    def detectable(seeds: int) -> float:
        return smallest_detectable_drop(planned_stderr(pilot, seeds), planned_df(pilot, seeds, arms))

    now = len(study.seeds)
    more = ", ".join(f"{n} seeds {100 * detectable(n):.1f}" for n in SEEDS_SHOWN if n != now)
    lines = ["pilot: the answers that this home has of the study, at the last checkpoint"]
    if now > 1:
        stderr, df = planned_stderr(pilot, now), planned_df(pilot, now, arms)
        worth = type_s_m(margin, stderr, df)
        lines += [
            f"smallest detectable difference, {what}: {100 * detectable(now):.1f} points with 80 % power at {now} seeds "
            f"({more})",
            f"a true difference of the margin ({100 * margin:g} points) is found with {100 * worth.power:.0f} % power; "
            f"found, it has the wrong sign in {100 * worth.type_s:.1f} % (type S) and is exaggerated "
            f"{worth.type_m:.2f} times (type M)",
        ]
    else:
        lines.append(f"one seed gives no interval over seeds; smallest detectable difference, {what}: {more}")
    return [*lines, _cost_to_verdict(study, seeds_to_verdict(pilot, margin, arms), seconds_per_seed)]


def _cost_to_verdict(study: Study, needed: int | None, seconds_per_seed: float | None) -> str:
    now = len(study.seeds)
    if needed is None:
        return "no number of seeds makes the margin detectable: the items are too few"
    if needed <= now:
        return "the margin is detectable with the seeds that the study has"
    time = "" if seconds_per_seed is None else f", about {seconds_per_seed * (needed - now):,.0f} s of training"
    return f"the margin becomes detectable with {needed} seeds: `retain extend {study.study} --seeds {needed - now}`{time}"


def _benchmark_table(study: Study, scores: StudyScores, margin: float) -> str:
    """Whether each retention benchmark can show a loss at all."""
    rows, known = [], {benchmark.name: benchmark.choices for benchmark in study.benchmarks()}
    for q in scores.retention:
        base = float(scores.of(q, [scores.base]).mean())
        choices = known.get(q.benchmark)
        clusters = None if q.clusters is None else len(np.unique(np.asarray(q.clusters)))
        view = can_see_loss(base, 1 / choices if choices else 0.0, len(q.select), clusters, margin)
        rows.append((q.benchmark, len(q.select), clusters, base, 1 / choices if choices else None, str(view)))
    columns = ["benchmark", "items", "clusters", "base score", "chance", "can it show a loss of the margin?"]
    return render(columns, rows, "table").rsplit("\n", 1)[0]
