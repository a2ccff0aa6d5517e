"""Intervals over seeds: items x seeds tables, where every seed answers the same items and there is one base.

The design is crossed, not nested. Rows of a table are items (or clusters of items), columns are seeds, and
an entry is a paired difference base - checkpoint (a drop) or, for contrasts, a score. Two-way random effects
without replication: entry = mean + item + seed + residual. Everything is a fraction, not points.

Source: measurement, section 2. Mean squares after Scheffe (1959), degrees of freedom after Satterthwaite
(1946), moderated variance after Smyth (2004) with a fixed prior weight. How often the intervals hold the
truth is shown by `make coverage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from retain_core.stats.paired import FEWEST_CLUSTERS

PRIOR_DF = 4
"""Weight, in degrees of freedom, of the other arms' seed variance."""
FEWEST_ARMS = 6
"""Below this many arms to pool (this one included) the seed variance is not moderated."""
EDGE = 0.05
"""A mean score this close to 0 or 1 earns a warning: seed effects are cut off there."""

MODERATED = "over seeds, moderated"
PER_COMPONENT = "over seeds, per component"
THIS_SEED = "this seed only"
THESE_SEEDS = "these seeds only"
ONE_BASE = "conditional on this base"
OVER_BASES = "over bases"

Floats = NDArray[np.float64]
Labels = Sequence[object] | NDArray[np.generic]


@dataclass(frozen=True)
class Components:
    """Mean squares of one arm's table, on the scale of n units.

    For a weighted sum over benchmarks n is the number of all units and the mean squares are those of a
    single table with the same variances, so that the formulas of one benchmark hold unchanged: a seed's
    mean has variance ms_seeds / n, of which ms_residual / n is noise of items within seeds.
    With one seed, ms_seeds and ms_residual are NaN.
    """

    n: int
    seeds: int
    mean: float
    ms_items: float
    ms_seeds: float
    ms_residual: float
    df_items: float
    df_residual: float

    @property
    def seed_variance(self) -> float:
        """Variance of the seed effect; an unbiased estimate may be negative."""
        return (self.ms_seeds - self.ms_residual) / self.n


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval, in the units of the table (fractions).

    `parts` are (variance, degrees of freedom): half-width^2 = sum of t^2 x variance, but never below that of
    `floor`, the interval with these seeds fixed. `rule` says what the interval speaks for, or why there is
    none (then low and high are NaN). `seeds` is the number of the arm (of the arm with fewer, in a contrast),
    n the number of items or clusters.
    """

    estimate: float
    low: float
    high: float
    df: float
    stderr: float
    rule: str
    seeds: int
    n: int
    parts: tuple[tuple[float, float], ...] = ()
    floor: tuple[float, float] = (0.0, 1.0)

    def at(self, level: float) -> Interval:
        """The same interval at another level."""
        half = self._half_width(1 - level)
        return replace(self, low=self.estimate - half, high=self.estimate + half)

    def p_value(self) -> float:
        """Two-sided p-value of 0: one minus the level at which the interval touches 0. NaN if refused."""
        if not self.parts:
            return float("nan")
        if self.stderr == 0 or self.estimate == 0:
            return float(self.estimate == 0)
        if len(self.parts) == 1:
            return float(2 * stdtr(self.df, -abs(self.estimate) / self.stderr))
        smallest = 1e-12
        if self._half_width(smallest) < abs(self.estimate):
            return smallest
        return float(brentq(lambda alpha: self._half_width(alpha) - abs(self.estimate), smallest, 1.0))

    def _half_width(self, alpha: float) -> float:
        if not self.parts:
            return float("nan")
        return max(_half_width(self.parts, alpha), _half_width([self.floor], alpha))


def as_units(values: ArrayLike, clusters: Labels | None = None) -> Floats:
    """Items x seeds to units x seeds; the units are the clusters where there are any, else the items.

    A cluster's entry is (sum over its items of value - mean of the seed) * G / N + mean of the seed: the
    linearised ratio, so that clusters of unequal size are right. Column means and grand mean are kept.

    Raises:
        ValueError: a value is missing, the table is not items x seeds with at least two items, or the
            labels do not fit the items.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 1:
        raise ValueError(f"expected a table of at least two items x seeds, got shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("a score is missing or not finite: every seed must have answered every item")
    if clusters is None:
        return table
    if len(clusters) != len(table):
        raise ValueError(f"{len(clusters)} cluster labels for {len(table)} items")
    group = np.unique(np.asarray(clusters), return_inverse=True)[1]
    means = table.mean(axis=0)
    sums = np.zeros((group.max() + 1, table.shape[1]))
    np.add.at(sums, group, table - means)
    return np.asarray(sums * (len(sums) / len(table)) + means)


def components(matrix: ArrayLike, clusters: Labels | None = None) -> Components:
    """Two-way analysis of variance without replication of one items x seeds table."""
    return weighted_components([matrix], [1.0], None if clusters is None else [clusters])


def weighted_components(
    matrices: Sequence[ArrayLike], weights: Sequence[float], clusters: Sequence[Labels | None] | None = None
) -> Components:
    """Components of sum_j weights_j x mean of table j, the tables sharing seeds but not items.

    The items of different benchmarks are independent, the seeds move all benchmarks together: the seed
    part is the variance of the weighted seed means themselves.
    """
    labels = clusters if clusters is not None else [None] * len(matrices)
    tables = [as_units(matrix, label) for matrix, label in zip(matrices, labels, strict=True)]
    seeds = {table.shape[1] for table in tables}
    if len(seeds) != 1:
        raise ValueError(f"benchmarks have different numbers of seeds: {sorted(seeds)}")
    (s,) = seeds
    units = sum(len(table) for table in tables)
    seed_means = np.zeros(s)
    items, residuals = [], []
    for table, weight in zip(tables, weights, strict=True):
        n = len(table)
        columns, rows = table.mean(axis=0), table.mean(axis=1)
        between = s * float(((rows - rows.mean()) ** 2).sum())
        total = float(((table - columns) ** 2).sum())
        seed_means += weight * columns
        scale = weight**2 / n * units
        items.append((scale * between / (n - 1), n - 1))
        residuals.append((scale * max(total - between, 0.0) / max((n - 1) * (s - 1), 1), (n - 1) * (s - 1)))
    missing = float("nan")
    return Components(
        n=units,
        seeds=s,
        mean=float(seed_means.mean()),
        ms_items=sum(x for x, _ in items),
        ms_seeds=units * float(seed_means.var(ddof=1)) if s > 1 else missing,
        ms_residual=sum(x for x, _ in residuals) if s > 1 else missing,
        df_items=_satterthwaite(items),
        df_residual=_satterthwaite(residuals) if s > 1 else missing,
    )


def mean_components(matrices: Sequence[ArrayLike], clusters: Sequence[Labels | None] | None = None) -> Components:
    """Components of the unweighted mean over fixed benchmarks."""
    return weighted_components(matrices, [1 / len(matrices)] * len(matrices), clusters)


def similar(mean: float, others: Sequence[Components], within: float = 0.05) -> list[Components]:
    """The arms whose mean is within 5 points, or half of this arm's: arms that drop more also vary more."""
    return [other for other in others if abs(other.mean - mean) <= max(within, abs(mean) / 2)]


def near_edge(score: float) -> bool:
    """Is a mean score so close to 0 or 1 that an interval over seeds deserves a warning?"""
    return not EDGE < score < 1 - EDGE


def drop_interval(
    matrix: ArrayLike, others: Sequence[Components] = (), clusters: Labels | None = None, level: float = 0.95
) -> Interval:
    """Interval over items and seeds of the mean of one items x seeds table (one arm, one benchmark).

    `others` are the components of other arms of similar drop on the same benchmark. With at least
    6 arms in all, this arm's seed variance is moderated by theirs; with fewer, each component has its own
    t quantile; with one seed, the interval is over items only and its rule says so.
    """
    return mean_drop_interval([matrix], others, None if clusters is None else [clusters], level)


def mean_drop_interval(
    matrices: Sequence[ArrayLike],
    others: Sequence[Components] = (),
    clusters: Sequence[Labels | None] | None = None,
    level: float = 0.95,
) -> Interval:
    """The same for the unweighted mean over fixed benchmarks: one items x seeds table for each.

    The benchmarks are not a sample: the interval speaks for these. `others` are `mean_components` of
    other arms over the same benchmarks.
    """
    own = mean_components(matrices, clusters)
    if (few := too_few_clusters(clusters)) is not None:
        return refused(own.mean, few, own.seeds, own.n)
    items = (own.ms_items / (own.n * own.seeds), own.df_items)
    return interval_over_seeds(own.mean, items, [(own, others)], level, alone=THIS_SEED)


def contrast_interval(
    a: Sequence[ArrayLike],
    b: Sequence[ArrayLike],
    others: Sequence[Components] = (),
    others_b: Sequence[Components] | None = None,
    clusters: Sequence[Labels | None] | None = None,
    paired_seeds: bool = False,
    level: float = 0.95,
) -> Interval:
    """Interval of drop of a - drop of b, which is score of b - score of a: the base cancels.

    Args:
        a: One items x seeds table of scores for each benchmark.
        b: The same items in the same order; the number of seeds may differ.
        others: Components of arms like a (of drops or of scores: their seed and residual parts agree).
        others_b: Arms like b; the same as `others` unless given.
        clusters: Cluster labels of the items of each benchmark.
        paired_seeds: Column s of a and b saw the same prompts in the same order. Then the differences are
            one table, and `others` are components of other pairs' differences.
        level: Of the interval.

    Items are shared, so the item part is that of per-item differences of the means over seeds; it holds
    the residuals of both arms. Seeds are nested in arms: each adds its own (moderated) seed variance.
    """
    first, second = ([np.asarray(table, dtype=np.float64) for table in side] for side in (a, b))
    if paired_seeds:
        for x, y in zip(first, second, strict=True):
            if x.shape != y.shape:
                raise ValueError(f"paired seeds need equal tables, got {x.shape} and {y.shape}")
        return mean_drop_interval([y - x for x, y in zip(first, second, strict=True)], others, clusters, level)
    of_a, of_b = mean_components(first, clusters), mean_components(second, clusters)
    if of_a.n != of_b.n or [len(x) for x in first] != [len(y) for y in second]:
        raise ValueError("a contrast needs the same items of the same benchmarks on both sides")
    if (few := too_few_clusters(clusters)) is not None:
        return refused(of_b.mean - of_a.mean, few, min(of_a.seeds, of_b.seeds), of_a.n)
    difference = [y.mean(axis=1, keepdims=True) - x.mean(axis=1, keepdims=True) for x, y in zip(first, second, strict=True)]
    both = mean_components(difference, clusters)
    pools = [(of_a, others), (of_b, others if others_b is None else others_b)]
    return interval_over_seeds(both.mean, (both.ms_items / both.n, both.df_items), pools, level, alone=THESE_SEEDS)


def independent_contrast_interval(
    a: Sequence[ArrayLike],
    b: Sequence[ArrayLike],
    others: Sequence[Components] = (),
    others_b: Sequence[Components] = (),
    clusters: Sequence[Labels | None] | None = None,
    clusters_b: Sequence[Labels | None] | None = None,
    level: float = 0.95,
) -> Interval:
    """Interval of drop of a - drop of b where nothing is shared: other items, or another base.

    Args:
        a: One items x seeds table of drops for each benchmark.
        b: The same of the other side, on its own items against its own base; items and seeds may differ in number.
        others: Components of arms like a.
        others_b: Components of arms like b.
        clusters: Cluster labels of the items of a.
        clusters_b: Cluster labels of the items of b.
        level: Of the interval.

    The item parts add as well as the seed parts. Where the sides do share items, it is too wide rather than too narrow
    as long as what one side finds hard the other does too.
    """
    of_a, of_b = mean_components(a, clusters), mean_components(b, clusters_b)
    n, seeds = min(of_a.n, of_b.n), min(of_a.seeds, of_b.seeds)
    if (few := too_few_clusters([*(clusters or ()), *(clusters_b or ())])) is not None:
        return refused(of_a.mean - of_b.mean, few, seeds, n)
    items = [(of.ms_items / (of.n * of.seeds), of.df_items) for of in (of_a, of_b)]
    both = (sum(v for v, _ in items), _satterthwaite(items))
    pools = [(of_a, others), (of_b, others_b)]
    return replace(interval_over_seeds(of_a.mean - of_b.mean, both, pools, level, alone=THESE_SEEDS), n=n)


def interval_over_seeds(
    estimate: float,
    items: tuple[float, float],
    arms: Sequence[tuple[Components, Sequence[Components]]],
    level: float = 0.95,
    alone: str = THIS_SEED,
) -> Interval:
    """Put the item part and every arm's seed part together (measurement, section 2).

    Args:
        estimate: The mean or the contrast.
        items: Variance and degrees of freedom of the estimate with these seeds. It holds the residuals.
        arms: Every arm with the arms to pool with it. Arms of one seed in a pool count for nothing.
        level: Of the interval.
        alone: The rule to print when an arm has a single seed.
    """
    n, seeds = sum(own.n for own, _ in arms[:1]), min(own.seeds for own, _ in arms)
    if seeds == 1:
        return _interval(estimate, (items,), level, alone, seeds, n)
    pools = [[other for other in others if other.seeds > 1] for _, others in arms]
    residuals = [(own.ms_residual / (own.n * own.seeds), own.df_residual) for own, _ in arms]
    if min(len(pool) for pool in pools) + 1 < FEWEST_ARMS:
        apart = max(items[0] - sum(r for r, _ in residuals), 0.0)
        between = [(own.ms_seeds / (own.n * own.seeds), own.seeds - 1.0) for own, _ in arms]
        return _interval(estimate, ((apart, items[1]), *between), level, PER_COMPONENT, seeds, n, floor=items)
    moderated = [
        (moderated_ms_seeds(own, pool) / (own.n * own.seeds), PRIOR_DF + own.seeds - 1.0)
        for (own, _), pool in zip(arms, pools, strict=True)
    ]
    variance = items[0] + sum(max(w - r, 0.0) for (w, _), (r, _) in zip(moderated, residuals, strict=True))
    df = variance**2 / _squares([items, *moderated, *residuals]) if variance > 0 else items[1]
    # Subtracting residuals can push it below every part's own; a sum of positive parts has no fewer than its least.
    df = max(df, min(own_df for _, own_df in (items, *moderated)))
    return _interval(estimate, ((variance, df),), level, MODERATED, seeds, n)


def moderated_ms_seeds(own: Components, others: Sequence[Components]) -> float:
    """The arm's seed mean square, shrunk towards the other arms' with the weight of 4 degrees of freedom.

    A mean square grows with n and holds residual noise, so what is pooled is the seed variance: another
    arm's mean square is taken to this arm's n and residual. Arms with more seeds weigh more.
    """
    weights = [other.seeds - 1 for other in others]
    variance = sum(w * other.seed_variance for w, other in zip(weights, others, strict=True)) / sum(weights)
    pooled = own.ms_residual + own.n * variance
    return max((PRIOR_DF * pooled + (own.seeds - 1) * own.ms_seeds) / (PRIOR_DF + own.seeds - 1), 0.0)


def over_bases(estimates: Sequence[float], level: float = 0.95) -> Interval:
    """Interval of a mean over bases that were drawn, one estimate from each: the base is a random level.

    Every base has its own items and its own arms, so that the estimates are independent, and the t interval over
    them holds all other variation. One base gives no interval over bases.
    """
    values = np.asarray(estimates, dtype=np.float64)
    if len(values) == 1:
        return refused(float(values[0]), ONE_BASE, 1, 1)
    variance = float(values.var(ddof=1)) / len(values)
    return _interval(float(values.mean()), ((variance, len(values) - 1.0),), level, OVER_BASES, len(values), len(values))


def refused(estimate: float, reason: str, seeds: int, n: int) -> Interval:
    """An estimate without an interval, and why."""
    missing = float("nan")
    return Interval(estimate, missing, missing, missing, missing, reason, seeds, n)


def too_few_clusters(clusters: Sequence[Labels | None] | None) -> str | None:
    """Why there is no interval, if a benchmark has fewer than 20 clusters."""
    counts = [len(np.unique(np.asarray(labels))) for labels in clusters or () if labels is not None]
    if min(counts, default=FEWEST_CLUSTERS) >= FEWEST_CLUSTERS:
        return None
    return f"no interval: {min(counts)} clusters, at least {FEWEST_CLUSTERS} are needed"


def _interval(
    estimate: float,
    parts: tuple[tuple[float, float], ...],
    level: float,
    rule: str,
    seeds: int,
    n: int,
    floor: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    stderr = float(np.sqrt(max(sum(v for v, _ in parts), floor[0])))
    return Interval(estimate, estimate, estimate, _satterthwaite(parts), stderr, rule, seeds, n, parts, floor).at(level)


def _half_width(parts: Sequence[tuple[float, float]], alpha: float) -> float:
    return float(np.sqrt(sum(float(stdtrit(df, 1 - alpha / 2)) ** 2 * v for v, df in parts if v > 0)))


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of independent variances; their own sum when all are 0."""
    total = sum(v for v, _ in parts)
    return total**2 / _squares(parts) if total > 0 else sum(df for _, df in parts)


def _squares(parts: Sequence[tuple[float, float]]) -> float:
    return sum(v**2 / df for v, df in parts)
