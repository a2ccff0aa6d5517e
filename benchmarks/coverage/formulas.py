"""Intervals of one simulated study by every formula: retain's, and those that people use instead.

Bounds are (low, high); NaN where a formula gives none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from benchmarks.coverage.world import AT, Cell, simulate, simulate_curves
from retain_core.stats import matched
from retain_core.stats.crossed import (
    Components,
    Interval,
    contrast_interval,
    interval_over_seeds,
    mean_components,
    mean_drop_interval,
    moderated_ms_seeds,
)

Floats = NDArray[np.float64]
Bounds = tuple[float, float]

OURS, APART = "moderated (8 arms)", "per component (few arms)"
PLAIN = "plain Satterthwaite"
ITEMS, SEEDS, NESTED = "items only", "t on seed means", "nested percentile bootstrap"
JOINT, NAIVE = "joint percentile bootstrap", "t on each seed's own crossing"
SHIPPED = (OURS, APART)
WRONG = {"drop": (ITEMS, SEEDS, NESTED), "contrast": (ITEMS, SEEDS, NESTED), "matched": (ITEMS, NAIVE, NESTED)}
RESAMPLES = 400


def intervals(cell: Cell, rng: np.random.Generator) -> dict[str, tuple[float, dict[str, Bounds]]]:
    """Simulate one study of the cell: for each quantity its estimate and its interval by every formula."""
    if cell.kind == "matched":
        return _matched(cell, rng)
    base, scores, labels = simulate(cell, rng)
    clusters = None if labels[0] is None else labels
    if cell.kind == "drop":
        tables = [[y[:, None] - x for y, x in zip(base, arm, strict=True)] for arm in scores]
        own, *others = [mean_components(table, clusters) for table in tables]
        shipped = _one(mean_drop_interval(tables[0], others, clusters))
        apart = interval_over_seeds(own.mean, _items(own), [(own, [])])
        fixed = mean_drop_interval([d.mean(axis=1, keepdims=True) for d in tables[0]], (), clusters)
        means = np.mean([d.mean(axis=0) for d in tables[0]], axis=0)
        bounds = {
            OURS: shipped,
            APART: _one(apart),
            PLAIN: _satterthwaite(own.mean, _items(own), [own]),
            ITEMS: _one(fixed),
            SEEDS: _t(own.mean, float(means.var(ddof=1)) / cell.seeds, cell.seeds - 1),
        }
        if clusters is None:
            bounds[NESTED] = _percentile(_nested(tables[0], cell.seeds, rng))
        return {"drop": (own.mean, bounds)}
    a, *rest, b = scores
    others = [mean_components(arm, clusters) for arm in rest]
    shipped = contrast_interval(a, b, others, clusters=clusters)
    of_a, of_b = mean_components(a, clusters), mean_components(b, clusters)
    fixed = contrast_interval(*([x.mean(axis=1, keepdims=True) for x in side] for side in (a, b)), clusters=clusters)
    items = (fixed.stderr**2, fixed.df)
    means = [np.mean([x.mean(axis=0) for x in side], axis=0) for side in (a, b)]
    bounds = {
        OURS: _one(shipped),
        APART: _one(interval_over_seeds(shipped.estimate, items, [(of_a, []), (of_b, [])])),
        PLAIN: _satterthwaite(shipped.estimate, items, [of_a, of_b]),
        ITEMS: _one(fixed),
        SEEDS: _t(shipped.estimate, sum(float(m.var(ddof=1)) for m in means) / cell.seeds, 2 * (cell.seeds - 1)),
    }
    if clusters is None:
        bounds[NESTED] = _percentile(_nested(b, cell.seeds, rng) - _nested(a, cell.seeds, rng))
    return {"contrast": (shipped.estimate, bounds)}


def _matched(cell: Cell, rng: np.random.Generator) -> dict[str, tuple[float, dict[str, Bounds]]]:
    """Drop at the matched gain of arm a, and the contrast of a and b there, on the same study.

    Empty where retain prints "not reached" or "gain too noisy".
    """
    curves = simulate_curves(cell, rng)
    a, b = curves[0], curves[-1]
    of_a, *rest = [part for curve in curves if (part := matched.matched_components(curve, AT)) is not None]
    own = matched.drop_at_matched(a, AT, rest).interval
    versus = matched.matched_contrast(a, b, AT, rest[:-1])
    if not (own.parts and versus.parts):
        return {}
    joint, nested = _joint(a, b, rng), [_nested_drops(curve, rng) for curve in (a, b)]
    found = [_own_crossings(curve) for curve in (a, b)]
    return {
        "matched drop": (own.estimate, _at_gain(own, [of_a], rest, found[:1], joint[:1], nested[:1])),
        "matched contrast": (versus.estimate, _at_gain(versus, [of_a, rest[-1]], rest[:-1], found, joint, nested)),
    }


def _at_gain(
    interval: Interval,
    arms: Sequence[Components],
    pool: Sequence[Components],
    crossings: Sequence[Floats],
    joint: Sequence[Floats],
    nested: Sequence[Floats],
) -> dict[str, Bounds]:
    excess = sum(max(moderated_ms_seeds(arm, pool) - arm.ms_residual, 0.0) / (arm.n * arm.seeds) for arm in arms)
    items = (interval.stderr**2 - excess, min(arm.df_items for arm in arms))
    naive = (float("nan"), float("nan"))
    if min(map(len, crossings)) > 1:
        centre = float(crossings[0].mean()) - sum(float(x.mean()) for x in crossings[1:])
        naive = _t(centre, sum(float(x.var(ddof=1)) / len(x) for x in crossings), sum(len(x) - 1 for x in crossings))
    return {
        OURS: _one(interval),
        APART: _one(interval_over_seeds(interval.estimate, items, [(arm, []) for arm in arms])),
        PLAIN: _satterthwaite(interval.estimate, items, arms),
        ITEMS: _t(interval.estimate, *items),
        NAIVE: naive,
        JOINT: _percentile(joint[0] - sum(joint[1:])),
        NESTED: _percentile(nested[0] - sum(nested[1:])),
    }


def _one(interval: Interval) -> Bounds:
    return interval.low, interval.high


def _items(own: Components) -> tuple[float, float]:
    return own.ms_items / (own.n * own.seeds), own.df_items


def _t(estimate: float, variance: float, df: float) -> Bounds:
    half = float(stdtrit(df, 0.975)) * variance**0.5
    return estimate - half, estimate + half


def _satterthwaite(estimate: float, items: tuple[float, float], arms: Sequence[Components]) -> Bounds:
    """The sum of components as it comes: no moderation, no seed variance kept from falling below 0."""
    seeds = [(arm.ms_seeds / (arm.n * arm.seeds), arm.seeds - 1) for arm in arms]
    residuals = [(arm.ms_residual / (arm.n * arm.seeds), arm.df_residual) for arm in arms]
    variance = items[0] + sum(v for v, _ in seeds) - sum(v for v, _ in residuals)
    if variance <= 0:
        return estimate, estimate
    return _t(estimate, variance, variance**2 / sum(v**2 / df for v, df in (items, *seeds, *residuals)))


def _percentile(drawn: Floats) -> Bounds:
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def _nested(tables: Sequence[Floats], seeds: int, rng: np.random.Generator) -> Floats:
    """Means of resampled seeds with items resampled within each, as if every seed had items of its own.

    Entries are -1, 0 or 1, so a resample of a seed's items is two binomial draws.
    """
    picks = rng.integers(0, seeds, (RESAMPLES, seeds))
    total = np.zeros(RESAMPLES)
    for table in tables:
        n = len(table)
        up, down = (table > 0).mean(axis=0)[picks], (table < 0).mean(axis=0)[picks]
        ups = rng.binomial(n, up)
        downs = rng.binomial(n - ups, np.where(up < 1, down / np.maximum(1 - up, 1 / n), 0).clip(0, 1))
        total += (ups - downs).mean(axis=1) / n
    return total / len(tables)


def _joint(a: matched.Curve, b: matched.Curve, rng: np.random.Generator) -> list[Floats]:
    """Drops at the gain, items and seeds resampled together, seed deviations scaled by sqrt(S / (S - 1)).

    Means over resampled items are drawn from their normal limit: for 200 items and more it is the same.
    """
    retention = [curve.drop_units[0] for curve in (a, b)]
    target = [curve.axis_units for curve in (a, b) if curve.axis_units is not None]
    drawn = [_resampled_means(np.concatenate(units, axis=1), RESAMPLES, rng) for units in (target, retention)]
    result = []
    for side, curve in enumerate((a, b)):
        chosen = rng.integers(0, curve.seeds, (RESAMPLES, curve.seeds, 1))
        curves = []
        for means in drawn:
            by_seed = means[:, side * means.shape[1] // 2 :][:, : means.shape[1] // 2].reshape(RESAMPLES, curve.seeds, -1)
            mean = by_seed.mean(axis=1)
            picked = np.take_along_axis(by_seed, chosen, axis=1).mean(axis=1)
            curves.append(mean + (picked - mean) * np.sqrt(curve.seeds / (curve.seeds - 1)))
        result.append(matched.drop_at(curves[0], curves[1], AT))
    return result


def _nested_drops(curve: matched.Curve, rng: np.random.Generator) -> Floats:
    """Drops at the gain of resampled seeds with items resampled within each."""
    seeds, steps = curve.seeds, len(curve.steps)
    chosen = rng.integers(0, seeds, (RESAMPLES, seeds))
    total = np.zeros((RESAMPLES, 2, steps))
    for seed in range(seeds):
        times = (chosen == seed).sum(axis=1)  # independent resamples of one seed, added up
        for side, table in enumerate((curve.axis, curve.drops[0])):
            mean = table[seed].mean(axis=1)
            noise = _resampled_means(table[seed].T, RESAMPLES, rng) - mean
            total[:, side] += times[:, None] * mean + np.sqrt(times)[:, None] * noise
    total /= seeds
    return matched.drop_at(total[:, 0], total[:, 1], AT)


def _resampled_means(units: Floats, size: int, rng: np.random.Generator) -> Floats:
    values, vectors = np.linalg.eigh(np.cov(units.T, bias=True) / len(units))
    root = vectors * np.sqrt(np.maximum(values, 0))
    return np.asarray(units.mean(axis=0) + rng.standard_normal((size, units.shape[1])) @ root.T)


def _own_crossings(curve: matched.Curve) -> Floats:
    """Every seed's own drop at the gain; seeds that miss it are left out."""
    found = matched.drop_at(curve.axis.mean(axis=2), curve.drops[0].mean(axis=2), AT)
    return found[np.isfinite(found)]
