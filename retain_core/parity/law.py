"""Does forward KL on parity images predict what is forgotten, and better than its rivals? Source: paper section 5, H8.

The published figure is the R2 of a quadratic fit of forgetting on a predictor, all arms together. It is taken here within
each base, since a base's drops are measured from its own start, and once over all bases with one arm left out and whole
runs resampled (measurement section 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retain_core.parity.methods import ARMS
from retain_core.parity.training import Point
from retain_core.simulate.matched import Summary, summarise
from retain_core.stats.law import LawRow, kl_law, quadratic_r2

PREDICTORS = {
    "forward KL": "kl_forward",
    "reverse KL": "kl_reverse",
    "total variation": "total_variation",
    "weight L1": "weight_l1",
    "weight L2": "weight_l2",
    "steps x lr": "steps_x_lr",
    "gain": "gain",
}
"""What each predictor is called, and its column. The first is the law's."""

Floats = NDArray[np.float64]


class Law(NamedTuple):
    """One predictor: R2 within a base (mean and sd over bases, NaN for one base), and over all bases.

    `lead` is the R2 of forward KL less this one's, within a base and paired by base; None for forward KL itself.
    """

    predictor: str
    inside: float
    inside_sd: float
    lead: Summary | None
    left_out: float
    left_out_sd: float
    pooled: LawRow


class LeftOut(NamedTuple):
    """How far the law of the other arms is off for one arm, mean over bases, drop as a fraction.

    `largest` is the arm's largest forward KL and `others` that of the other arms: beyond it the curve is extrapolated.
    `spread` is the standard deviation of the arm's drops: the error of knowing their mean and nothing else. `error` is the
    root mean squared error of all points of the arm; `error_within` and `bias_within` (drop less prediction) of the points
    up to `others`.
    """

    arm: str
    largest: float
    others: float
    spread: float
    error: float
    error_within: float
    bias_within: float


def laws(points: Sequence[Point], rng: np.random.Generator, resamples: int = 2000) -> list[Law]:
    """One row for each predictor."""
    drop, base, arm = _column(points, "drop"), np.array([p.base for p in points]), np.array([p.arm for p in points])
    runs = np.array([f"{p.base} {p.arm} {p.learning_rate!r}" for p in points])
    columns = {name: _column(points, column) for name, column in PREDICTORS.items()}
    first, *others = columns
    pooled = kl_law(columns[first], drop, runs, arm, {name: columns[name] for name in others}, rng, resamples)
    mine = [base == b for b in np.unique(base)]
    within = {name: np.array([quadratic_r2(x[m], drop[m], arm[m]) for m in mine]).T for name, x in columns.items()}
    found = []
    for (name, (inside, outside)), row in zip(within.items(), pooled, strict=True):
        lead = None if name == first else summarise(within[first][0] - inside)
        found.append(Law(name, float(inside.mean()), _sd(inside), lead, float(outside.mean()), _sd(outside), row))
    return found


def left_out_arms(points: Sequence[Point]) -> list[LeftOut]:
    """Each arm against the quadratic in forward KL that is fitted to the others, base by base."""
    base, arm = np.array([p.base for p in points]), np.array([p.arm for p in points])
    kl, drop = _column(points, "kl_forward"), _column(points, "drop")
    found = []
    for name in ARMS:
        figures = []
        for one in np.unique(base):
            mine, others = (base == one) & (arm == name), (base == one) & (arm != name)
            law = np.polynomial.Polynomial.fit(kl[others], drop[others], 2)
            off = drop[mine] - law(kl[mine])
            within = off[kl[mine] <= kl[others].max()]
            errors = (np.sqrt(np.mean(off**2)), np.sqrt(np.mean(within**2)), within.mean())
            figures.append((kl[mine].max(), kl[others].max(), drop[mine].std(), *errors))
        found.append(LeftOut(name, *(float(figure) for figure in np.mean(figures, axis=0))))
    return found


def _column(points: Sequence[Point], name: str) -> Floats:
    return np.array([getattr(p, name) for p in points], dtype=np.float64)


def _sd(values: Floats) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
