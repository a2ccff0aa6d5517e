"""Where methods stand at the same gain, the same distance from the base, or the same KL to it (measurement: section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from retain_core.analysis.scores import Cell, Floats, Mask, Questions, StudyScores, clusters_of, half
from retain_core.stats.crossed import Components, similar
from retain_core.stats.matched import (
    NOT_REACHED,
    SHARE_OF_LARGEST,
    TOO_NOISY,
    Curve,
    Matched,
    choose_learning_rate,
    matched_components,
    method_at_matched,
    pareto_front,
)
from retain_core.stats.verdict import Matching

Axis = Literal["gain", "weight_distance", "kl_forward"]
Half = Literal["select", "report"]
GAINS = (0.05, 0.1, 0.2, 0.3)
"""Gains at which every study is read off, beside the one that it declares."""
LEVEL = 0.95


class MatchedPoint(NamedTuple):
    """One row of `matched`: a method where its axis passes a value."""

    method: str
    axis: Axis
    value: float
    found: Matched
    state: str
    at_edge: bool
    learning_rates: int


class FrontPoint(NamedTuple):
    """One row of `pareto`: a method at a learning rate and step; the front is chosen on `select`."""

    method: str
    learning_rate: float
    step: float
    gain: float
    drop: float
    front: str


class Curves:
    """The curves of a study's trained methods and of their blends, built once for each half and axis.

    Gain is that on the first target, so of a sequence of targets a curve is the first stage, and blends with its end have
    none. Where a half of a benchmark has hardly an item, there are no curves.
    """

    def __init__(self, scores: StudyScores) -> None:
        self.scores = scores
        self.cells: dict[str, dict[float, Cell]] = {}
        """Method -> learning rate -> cell; blends are methods of their own, behind all others."""
        blends = [cell for cell in scores.interpolated if cell.parent and not cell.parent.is_sequence]
        for cell in (*(cell.first_stage() for cell in scores.methods()), *blends):
            if cell.learning_rate is None or scores.measured_gain is None or scores.too_few():
                continue
            self.cells.setdefault(cell.method, {})[cell.learning_rate] = cell
        self.trained = [m for m, rates in self.cells.items() if all(cell.parent is None for cell in rates.values())]
        """The methods without the blends."""
        self._built: dict[tuple[Cell, Half, Axis], Curve] = {}

    def of(self, cell: Cell, part: Half, axis: Axis = "gain") -> Curve:
        """The curve of one cell on one half of the items."""
        key = (cell, part, axis)
        if key not in self._built:
            self._built[key] = _curve(self.scores, cell, part, axis)
        return self._built[key]

    def of_method(self, method: str, part: Half, axis: Axis = "gain") -> dict[float, Curve]:
        """Learning rate -> curve; only those on which the axis is known at every step."""
        cells = self.cells.get(method, {})
        return {rate: self.of(cell, part, axis) for rate, cell in cells.items() if _known(cell, axis)}

    def chosen(self, method: str, at: float, axis: Axis = "gain") -> float | None:
        """The learning rate with the lowest drop at the value, chosen on `select`."""
        return choose_learning_rate(self.of_method(method, "select", axis), at)

    def components(self, at: float, axis: Axis, part: Half = "report") -> dict[Cell, Components]:
        """Linearised components of every cell that reaches the value, for pooling."""
        cells = [cell for rates in self.cells.values() for cell in rates.values() if _known(cell, axis)]
        found = {cell: matched_components(self.of(cell, part, axis), at) for cell in cells}
        return {cell: part for cell, part in found.items() if part is not None}


def pool(cell: Cell | None, parts: dict[Cell, Components]) -> list[Components]:
    """The other trained cells of similar drop. Blends are in no pool, and of blends their own end is not in it."""
    if cell is None or cell not in parts:
        return []
    apart = (cell, cell.parent)
    return similar(parts[cell].mean, [part for other, part in parts.items() if other.parent is None and other not in apart])


def matched_points(curves: Curves, gains: Sequence[float]) -> list[MatchedPoint]:
    """Every method at every gain, and at two distances and two KLs that all methods can reach."""
    axes: list[tuple[Axis, Sequence[float]]] = [("gain", gains)]
    axes += [(axis, _shared_values(curves, axis)) for axis in ("weight_distance", "kl_forward")]
    found = []
    for axis, values in axes:
        for value in values:
            parts = curves.components(value, axis)
            for method, cells in curves.cells.items():
                select, report = (curves.of_method(method, part, axis) for part in ("select", "report"))
                if not select:
                    continue
                rate = choose_learning_rate(select, value)
                point = method_at_matched(select, report, value, pool(cells.get(rate) if rate else None, parts), LEVEL)
                at_edge = rate is not None and len(select) > 1 and rate in (min(select), max(select))
                found.append(MatchedPoint(method, axis, value, point, state_of(point.interval.rule), at_edge, len(select)))
    return found


def state_of(rule: str) -> Matching:
    """`reached`, `not reached` or `too noisy`, from the rule of an interval."""
    if rule == NOT_REACHED:
        return "not reached"
    return "too noisy" if rule == TOO_NOISY else "reached"


def front_points(curves: Curves) -> list[FrontPoint]:
    """Every trained checkpoint of every cell, seeds averaged: gain and drop on `report`, fronts chosen on `select`."""
    cells = {method: curves.cells[method] for method in curves.trained}
    keys = [(m, rate, i) for m, rates in cells.items() for rate in rates for i in range(len(rates[rate].steps))]

    def values(part: Half) -> tuple[list[float], list[float]]:
        named = [(curves.of(cells[m][rate], part), i + 1) for m, rate, i in keys]
        return [float(c.mean_axis[i]) for c, i in named], [float(c.mean_drop[i]) for c, i in named]

    if not keys:
        return []
    chosen, shown = values("select"), values("report")
    study = set(pareto_front(*chosen))
    own: set[int] = set()
    for method in cells:
        places = [k for k, (m, _, _) in enumerate(keys) if m == method]
        own |= {places[i] for i in pareto_front([chosen[0][k] for k in places], [chosen[1][k] for k in places])}
    return [
        FrontPoint(
            method, rate, cells[method][rate].steps[i], shown[0][k], shown[1][k],
            "study" if k in study else "method" if k in own else "none",
        )
        for k, (method, rate, i) in enumerate(keys)
    ]  # fmt: skip


def _curve(scores: StudyScores, cell: Cell, part: Half, axis: Axis) -> Curve:
    gain = scores.measured_gain
    assert gain is not None

    def from_base(table: Floats) -> Floats:
        return np.concatenate([np.zeros_like(table[:, :1]), table], axis=1)

    def paired(question: Questions, items: Mask) -> Floats:
        tables = [scores.drops(question, row, items).T for row in cell.checkpoints]
        return from_base(np.stack(tables))

    if axis == "gain":
        values, clusters = -paired(gain, half(gain, part)), clusters_of(gain, half(gain, part))
    else:
        values, clusters = from_base(cell.facts[axis]), None
    drops = [paired(q, half(q, part)) for q in scores.retention]
    return Curve((0, *cell.steps), values, drops, clusters, [clusters_of(q, half(q, part)) for q in scores.retention])


def _known(cell: Cell, axis: Axis) -> bool:
    return axis == "gain" or bool(np.isfinite(cell.facts[axis]).all())


def _shared_values(curves: Curves, axis: Axis) -> list[float]:
    """Half and all of the largest value that every trained method that moves at all reaches with room to spare."""
    ends = [
        max(float(curve.mean_axis.max()) for curve in found.values())
        for method in curves.trained
        if (found := curves.of_method(method, "select", axis))
    ]
    top = SHARE_OF_LARGEST * min((end for end in ends if end > 0), default=0.0)
    return [top / 2, top] if top > 0 else []
