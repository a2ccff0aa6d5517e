"""Intervals over seeds for every method at every learning rate, at the last checkpoint, on all items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from retain_core.analysis.scores import Cell, Questions, StudyScores, clusters_of, half
from retain_core.stats.crossed import Components, Interval, mean_components, mean_drop_interval, similar


class CellInterval(NamedTuple):
    """One row of `intervals`. `quantity`: gain, gain_exact, drop, drop_far, drop/<benchmark>, bwt, bwt_exact, bwt/<target>."""

    cell: Cell
    quantity: str
    interval: Interval


def cell_intervals(scores: StudyScores) -> list[CellInterval]:
    """Every quantity of every cell; the seed variance is moderated by the other cells of the study."""
    found = []
    for quantity, questions, sign in quantities(scores):
        parts = {cell: components_of(scores, cell, questions) for cell in scores.cells}
        for cell in scores.cells:
            tables = [sign * scores.drops(q, cell.last()) for q in questions]
            interval = mean_drop_interval(tables, others(cell, parts), [q.clusters for q in questions])
            found.append(CellInterval(cell, quantity, interval))
    return found + _backward_transfer(scores)


def _backward_transfer(scores: StudyScores) -> list[CellInterval]:
    """Score at the end minus that at the end of its own stage, over all targets but the last, of cells that learned several."""
    cells = [cell for cell in scores.cells if cell.is_sequence]
    earlier = dict(enumerate(scores.targets[:-1], start=1))
    named = [("bwt", earlier), *((f"bwt/{q.benchmark}", {stage: q}) for stage, q in earlier.items())]
    named += [("bwt_exact", dict(enumerate(scores.targets_exact[:-1], start=1)))] if scores.targets_exact else []
    found = []
    for quantity, questions in named if cells else ():
        clusters = [q.clusters for q in questions.values()]
        drops = {
            cell: [scores.of(q, cell.end(stage)) - scores.of(q, cell.last()) for stage, q in questions.items()]
            for cell in cells
        }
        parts = {cell: mean_components(tables, clusters) for cell, tables in drops.items()}
        for cell, tables in drops.items():
            interval = mean_drop_interval([-table for table in tables], others(cell, parts), clusters)
            found.append(CellInterval(cell, quantity, interval))
    return found


def quantities(scores: StudyScores) -> list[tuple[str, list[Questions], float]]:
    """(name, benchmarks averaged, sign): gain is a drop with the sign turned."""
    far = [q for q in scores.retention if not q.near]
    named: list[tuple[str, list[Questions], float]] = [("drop", scores.retention, 1.0)]
    if far:
        named.append(("drop_far", far, 1.0))
    named += [(f"drop/{q.benchmark}", [q], 1.0) for q in scores.retention]
    named += [(name, [q], -1.0) for name, q in (("gain", scores.gain), ("gain_exact", scores.exact)) if q]
    return named


def components_of(scores: StudyScores, cell: Cell, questions: Sequence[Questions], part: str | None = None) -> Components:
    """Variance components of a cell's mean drop over benchmarks, at the last checkpoints, on all items or one half."""
    key = (cell, tuple((q.benchmark, q.metric) for q in questions), part)
    if key not in scores.components:
        masks = [half(q, part) if part else None for q in questions]
        tables = [scores.drops(q, cell.last(), mask) for q, mask in zip(questions, masks, strict=True)]
        clusters = [clusters_of(q, mask) for q, mask in zip(questions, masks, strict=True)]
        scores.components[key] = mean_components(tables, clusters)
    return scores.components[key]


def others(cell: Cell, parts: dict[Cell, Components]) -> list[Components]:
    """The cells of similar drop whose seed variance moderates that of this one; those that cannot move are left out."""
    own = parts[cell]
    moving = [part for other, part in parts.items() if other is not cell and other.learning_rate != 0]
    return similar(own.mean, moving)
