"""Drop at matched gain: what a method lost by the time it had gained g, and contrasts of two methods there.

One method at one learning rate is a curve: seeds x checkpoints, with step 0 (the base) among them. Seeds are
averaged at every step, the gain is made monotone in the step (isotonic fit), and the drop is interpolated
linearly in the fitted gain. Steps that the fit pools have one gain, so they are one knot, with their mean
drop. A seed that does not reach g is never left out: it is in the average. The same works on other axes that
have one value per seed and step (distance from the base's weights, forward KL).

Interval: around g the result is a weighted sum of means over items: those of the drops at the steps on both
sides of g, less the slope of drop in gain times those of the gains. Target items, retention items (or
clusters) and seeds all vary in it, and it is analysed as any weighted mean over benchmarks that share seeds,
with the seed part moderated over arms. A joint resample of items and seeds would be the obvious interval, but
a resample of two seeds is one of them twice half of the time: `make coverage` shows it too narrow where seeds
differ much, and too wide for contrasts where they do not. Fractions, not points.

Source: measurement, sections 3 and 4; isotonic fit by the min-max formula of Robertson, Wright and Dykstra
(1988), equal weights; linearisation: the delta method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retain_core.stats.crossed import (
    THESE_SEEDS,
    Components,
    Interval,
    Labels,
    as_units,
    interval_over_seeds,
    refused,
    too_few_clusters,
    weighted_components,
)

NOT_REACHED = "not reached"
TOO_NOISY = "gain too noisy"
LARGEST_STDERR = 0.01
"""Standard error of the gain above which nothing is read off at a gain."""
SHARE_OF_LARGEST = 0.8
"""g may be at most this share of a method's largest gain."""

_TIE = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One method at one learning rate over all its seeds, on one set of items.

    Attributes:
        steps: T steps, rising, the first is 0 (the base, with zeros in everything below). Updates, or the share of the
            way through weight space.
        axis: What is matched: gain of every target item, seeds x T x items; or one value per seed and
            step, seeds x T (a distance, a KL).
        drops: For every retention benchmark seeds x T x items, base score - checkpoint score.
        axis_clusters: Cluster label of every target item.
        drop_clusters: Cluster labels of every benchmark's items, None where it has none.
    """

    steps: Sequence[float]
    axis: Floats
    drops: Sequence[Floats]
    axis_clusters: Labels | None = None
    drop_clusters: Sequence[Labels | None] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be a curve."""
        shape = (self.axis.shape[0], len(self.steps))
        if len(self.steps) < 2 or self.steps[0] != 0 or np.any(np.diff(self.steps) <= 0):
            raise ValueError(f"steps must rise from 0, the base, got {list(self.steps)}")
        if not self.drops:
            raise ValueError("a curve needs at least one retention benchmark")
        for table in (self.axis, *self.drops):
            if table.shape[:2] != shape:
                raise ValueError(f"expected {shape[0]} seeds x {shape[1]} steps, got {table.shape[:2]}")
            if not np.isfinite(table).all():
                raise ValueError("a score is missing or not finite: every seed must have answered every item at every step")

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return int(self.axis.shape[0])

    @cached_property
    def axis_units(self) -> Floats | None:
        """Units x (seeds x T), or None where the axis has no items."""
        return _units(self.axis, self.axis_clusters) if self.axis.ndim == 3 else None

    @cached_property
    def drop_units(self) -> list[Floats]:
        """Units x (seeds x T) of every retention benchmark."""
        labels = self.drop_clusters if self.drop_clusters is not None else [None] * len(self.drops)
        return [_units(table, label) for table, label in zip(self.drops, labels, strict=True)]

    @cached_property
    def mean_axis(self) -> Floats:
        """The matched quantity at every step, mean over seeds and items."""
        return np.asarray(self.axis.reshape(*self.axis.shape[:2], -1).mean(axis=(0, 2)))

    @cached_property
    def mean_drop(self) -> Floats:
        """The drop at every step, mean over seeds and items, then over benchmarks."""
        return np.asarray(np.mean([table.mean(axis=(0, 2)) for table in self.drops], axis=0))

    @property
    def clusters(self) -> list[Labels | None]:
        """All cluster labels, target first."""
        return [self.axis_clusters, *(self.drop_clusters or [])]


@dataclass(frozen=True)
class Crossing:
    """Where a curve passes g: the drop there and the (linear) dependence on every step's values."""

    drop: float
    step: float
    weights: Floats
    slope: float


@dataclass(frozen=True)
class Matched:
    """Drop at g of one method.

    `interval.rule` is NOT_REACHED or TOO_NOISY where nothing may be read off. `stderr` is the standard
    error of the matched quantity over items at g, `largest` its largest fitted value, `step` the
    interpolated step of the crossing (NaN where there is none), `learning_rate` the chosen one.
    """

    interval: Interval
    stderr: float
    largest: float
    step: float
    learning_rate: float | None = None


def isotonic(values: ArrayLike) -> Floats:
    """Nearest non-decreasing values in least squares, along the last axis (equal weights)."""
    y = np.asarray(values, dtype=np.float64)
    size = y.shape[-1]
    sums = np.concatenate([np.zeros((*y.shape[:-1], 1)), np.cumsum(y, axis=-1)], axis=-1)
    fit = np.full(y.shape, -np.inf)
    for first in range(size):
        means = (sums[..., first + 1 :] - sums[..., first, None]) / np.arange(1, size - first + 1)
        lowest = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        fit[..., first:] = np.maximum(fit[..., first:], lowest)
    return fit


def drop_at(axis: ArrayLike, drop: ArrayLike, at: float) -> Floats:
    """Drop where the isotonic fit of `axis` passes `at`; both (..., T), T steps from the base on.

    NaN where the fit stays below `at`. A step where the fit equals `at` gives its own (pooled) drop.
    """
    fit, level = _knots(axis, drop)
    below, above, share, reached = _bracket(fit, at)
    low, high = (np.take_along_axis(level, index, -1)[..., 0] for index in (below, above))
    return np.where(reached, low + share * (high - low), np.nan)


def crossing(curve: Curve, at: float) -> Crossing | None:
    """Where the curve, averaged over seeds, passes `at`; None where it does not.

    Raises:
        ValueError: `at` is not above 0, where the base is.
    """
    if not at > 0:
        raise ValueError(f"drop is matched at a value above 0, got {at}")
    fit, level = _knots(curve.mean_axis, curve.mean_drop)
    below, above, share, reached = _bracket(fit, at)
    if not reached:
        return None
    low, high = int(below[0]), int(above[0])
    pools = [np.abs(fit - fit[knot]) <= _TIE for knot in (low, high)]
    weights = (1 - share) * pools[0] / pools[0].sum() + share * pools[1] / pools[1].sum()
    rise = fit[high] - fit[low]
    return Crossing(
        drop=float(level[low] + share * (level[high] - level[low])),
        step=float(weights @ np.asarray(curve.steps, dtype=np.float64)),
        weights=weights,
        slope=float((level[high] - level[low]) / rise) if rise > _TIE else 0.0,
    )


def matched_components(curve: Curve, at: float) -> Components | None:
    """Components of the drop at `at`, linearised: for other arms to be pooled with. None if not reached.

    A seed that is ahead in gain gets its drop counted less, by the slope of drop in gain.
    """
    found = crossing(curve, at)
    return None if found is None else _linear(curve, found)


def drop_at_matched(curve: Curve, at: float, others: Sequence[Components] = (), level: float = 0.95) -> Matched:
    """Drop of one curve at `at` with its interval; `others` are `matched_components` of similar arms."""
    found, largest, missing = crossing(curve, at), float(isotonic(curve.mean_axis)[-1]), float("nan")
    if found is None:
        return Matched(refused(missing, NOT_REACHED, curve.seeds, _count(curve)), missing, largest, missing)
    stderr = _axis_stderr(curve, found)
    if reason := _unreadable(curve, at, stderr, largest):
        return Matched(refused(missing, reason, curve.seeds, _count(curve)), stderr, largest, found.step)
    own = _linear(curve, found)
    items = (own.ms_items / (own.n * own.seeds), own.df_items)
    return Matched(interval_over_seeds(found.drop, items, [(own, others)], level), stderr, largest, found.step)


def choose_learning_rate(curves: Mapping[float, Curve], at: float) -> float | None:
    """The learning rate with the lowest drop at `at` (the smaller one of equals); None if none reaches it.

    Give it the `select` half of the items.
    """
    found = {rate: crossing(curve, at) for rate, curve in curves.items()}
    drops = {rate: hit.drop for rate, hit in found.items() if hit is not None}
    return min(sorted(drops), key=drops.__getitem__) if drops else None


def method_at_matched(
    select: Mapping[float, Curve],
    report: Mapping[float, Curve],
    at: float,
    others: Sequence[Components] = (),
    level: float = 0.95,
) -> Matched:
    """Drop of a method at `at`: learning rate chosen on the `select` half, drop shown on the `report` half.

    Both map learning rates to curves. Not reached on `select` by any learning rate is "not reached".
    """
    if set(select) != set(report):
        raise ValueError("the select and the report half must hold the same learning rates")
    rate = choose_learning_rate(select, at)
    if rate is None:
        largest = max(float(isotonic(curve.mean_axis)[-1]) for curve in report.values())
        seeds, n = (f(map(g, report.values())) for f, g in ((min, lambda c: c.seeds), (max, _count)))
        missing = float("nan")
        return Matched(refused(missing, NOT_REACHED, seeds, n), missing, largest, missing)
    return replace(drop_at_matched(report[rate], at, others, level), learning_rate=rate)


def matched_contrast(
    a: Curve,
    b: Curve,
    at: float,
    others: Sequence[Components] = (),
    others_b: Sequence[Components] | None = None,
    level: float = 0.95,
) -> Interval:
    """Drop of a - drop of b, both at `at`. The items are shared, and so is the base; seeds are not.

    The first word that holds for either curve (not reached, gain too noisy) holds for the contrast.
    """
    for side, other in ((a.axis, b.axis), *zip(a.drops, b.drops, strict=True)):
        if side.shape[2:] != other.shape[2:]:
            raise ValueError("a contrast needs the same items of the same benchmarks on both sides")
    seeds, n = min(a.seeds, b.seeds), _count(a)
    found = [crossing(curve, at) for curve in (a, b)]
    hits = [hit for hit in found if hit is not None]
    if len(hits) < 2:
        return refused(float("nan"), NOT_REACHED, seeds, n)
    for curve, hit in zip((a, b), hits, strict=True):
        if reason := _unreadable(curve, at, _axis_stderr(curve, hit), float(isotonic(curve.mean_axis)[-1])):
            return refused(float("nan"), reason, seeds, n)
    sides = [_tables(curve, hit) for curve, hit in zip((a, b), hits, strict=True)]
    difference = [x.mean(axis=1, keepdims=True) - y.mean(axis=1, keepdims=True) for x, y in zip(*sides, strict=True)]
    both = weighted_components(difference, [1.0] * len(difference))
    parts = [_linear(curve, hit) for curve, hit in zip((a, b), hits, strict=True)]
    pools = [(parts[0], others), (parts[1], others if others_b is None else others_b)]
    estimate = hits[0].drop - hits[1].drop
    return interval_over_seeds(estimate, (both.ms_items / both.n, both.df_items), pools, level, alone=THESE_SEEDS)


def pareto_front(gains: ArrayLike, drops: ArrayLike) -> list[int]:
    """Indices of the points that no other point beats (higher gain, lower drop), by falling gain.

    A point that equals another on both is beaten by neither: both stay.
    """
    gain, drop = np.asarray(gains, dtype=np.float64), np.asarray(drops, dtype=np.float64)
    no_worse = (gain[:, None] >= gain) & (drop[:, None] <= drop)
    better = (gain[:, None] > gain) | (drop[:, None] < drop)
    front = np.flatnonzero(~(no_worse & better).any(axis=0))
    return [int(i) for i in sorted(front, key=lambda i: (-gain[i], i))]


def _units(table: Floats, clusters: Labels | None) -> Floats:
    return as_units(table.reshape(-1, table.shape[2]).T, clusters)


def _count(curve: Curve) -> int:
    return sum(len(units) for units in curve.drop_units) + (0 if curve.axis_units is None else len(curve.axis_units))


def _knots(axis: ArrayLike, drop: ArrayLike) -> tuple[Floats, Floats]:
    """Isotonic fit of the axis, and the drop averaged over steps whose fit is the same."""
    fit, level = isotonic(axis), np.asarray(drop, dtype=np.float64)
    same = np.abs(fit[..., :, None] - fit[..., None, :]) <= _TIE
    return fit, np.asarray((same * level[..., None, :]).sum(axis=-1) / same.sum(axis=-1))


def _bracket(fit: Floats, at: float) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, NDArray[np.bool_]]:
    """Steps below and above `at`, how far between them, and whether `at` is reached (else the last step)."""
    high = fit >= at - _TIE
    reached = np.asarray(high.any(axis=-1))
    above = np.where(reached, high.argmax(axis=-1), fit.shape[-1] - 1)[..., None]
    below = np.maximum(above - 1, 0)
    low, top = (np.take_along_axis(fit, index, -1)[..., 0] for index in (below, above))
    rise = top - low
    share = np.where(rise > _TIE, (at - low) / np.where(rise > _TIE, rise, 1.0), 1.0)
    return below, above, np.clip(share, 0.0, 1.0), reached


def _axis_stderr(curve: Curve, found: Crossing) -> float:
    """Standard error over items of the seeds' mean at the crossing.

    Seeds are left out: a seed that runs ahead moves along the curve, it is not a measurement error.
    """
    if curve.axis_units is None:
        return 0.0
    values = _by_step(curve.axis_units, curve.seeds).mean(axis=1) @ found.weights
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _unreadable(curve: Curve, at: float, stderr: float, largest: float) -> str | None:
    if (few := too_few_clusters(curve.clusters)) is not None:
        return few
    return TOO_NOISY if stderr > LARGEST_STDERR or at > SHARE_OF_LARGEST * largest + _TIE else None


def _by_step(units: Floats, seeds: int) -> Floats:
    return units.reshape(len(units), seeds, -1)


def _tables(curve: Curve, found: Crossing) -> list[Floats]:
    """Units x seeds of every benchmark, then of the target; the sum of their means is the linearised drop."""
    tables = [_by_step(units, curve.seeds) @ found.weights / len(curve.drops) for units in curve.drop_units]
    if curve.axis_units is not None:
        return [*tables, -found.slope * (_by_step(curve.axis_units, curve.seeds) @ found.weights)]
    return [tables[0] - found.slope * (curve.axis @ found.weights), *tables[1:]]  # no items: only the seeds' means move


def _linear(curve: Curve, found: Crossing) -> Components:
    tables = _tables(curve, found)
    return replace(weighted_components(tables, [1.0] * len(tables)), mean=found.drop)
