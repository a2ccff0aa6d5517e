"""Worlds with a known drop: items of unequal difficulty, one 0/1 draw of the base, seeds that move whole arms.

An item has a propensity p (the chance that the base answers it right). An arm shifts every item by its drop
plus a spread of its own (+ or - with even odds, the same for all of the arm's seeds), and a seed of it shifts
all items by a seed effect u. Each answer is one draw with chance clip(p - drop - spread - u, 0, 1). The truth
is the expectation of base - checkpoint over items, spreads, seeds and draws, after clipping, by quadrature:
what the mean over infinitely many items and seeds would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri, stdtrit

from retain_core.stats.matched import Curve, drop_at

Floats = NDArray[np.float64]

ARMS = 8
HEAVY_DF = 3  # Student's t with 3 degrees of freedom has a variance, but no fourth moment
SIZES, SIZE_ODDS = (2, 20), (0.8, 0.2)  # unequal clusters: many small ones, most items in few large ones
STEPS = (0, 1, 2, 4, 8)
GAINS = np.array([0.0, 0.03, 0.06, 0.09, 0.12])
AT = 0.05  # the gain at which drops are matched
GAIN_EFFECT = 0.25  # sd of the seeds' gain at AT, as a share of the sd of their drop at equal gain
GAIN_SPREAD, GAIN_NOISE = 0.08, 0.05  # of the exact gain, over items and within items


@dataclass(frozen=True)
class Cell:
    """One world. Effect: the true drop, or the true contrast, before clipping. sd: of the seed effect."""

    kind: str  # drop, contrast or matched
    n: int
    seeds: int
    sd: float
    ceiling: bool = False
    effect: float = 0.0
    benchmarks: int = 1
    heavy: bool = False
    clusters: bool = False

    @property
    def tuned(self) -> bool:
        """False for the two worlds that are only reported beside."""
        return not (self.heavy or self.clusters)

    @property
    def shape(self) -> tuple[float, float]:
        """Beta distribution of the items' propensities: mean .6, or .97 near the ceiling."""
        return (19.4, 0.6) if self.ceiling else (6.0, 4.0)

    @property
    def spread(self) -> float:
        """By how much an arm moves one half of the items up and the other down."""
        return 0.03 if self.ceiling else 0.2


def grid(*, quick: bool = False) -> list[Cell]:
    """All cells of the table; `quick` is a few of them, with those where the wrong formulas must fail."""
    if quick:
        worlds = [(200, 2, 0.0), (200, 3, 0.04), (1000, 2, 0.04), (1000, 3, 0.04), (1000, 5, 0.0)]
        plain = [Cell(kind, n, s, sd, effect=0.05) for kind in ("drop", "contrast") for n, s, sd in worlds]
        at_gain = [(200, 2, 0.04), (200, 5, 0.0), (1000, 3, 0.04)]
        return [*plain, *(Cell("matched", n, s, sd, effect=0.05) for n, s, sd in at_gain)]
    sizes, seeds, sds, effects = (200, 2000), (2, 3, 5), (0.0, 0.01, 0.04), (0.0, 0.05)
    cells = [
        Cell(kind, n, s, sd, ceiling, effect)
        for kind in ("drop", "contrast")
        for ceiling in (False, True)
        for n in sizes
        for s in seeds
        for sd in sds
        for effect in effects
    ]
    few = [(n, s, sd) for n in sizes for s in seeds for sd in (0.0, 0.04)]
    cells += [Cell("matched", n, s, sd, effect=0.05) for n, s, sd in few]
    for kind in ("drop", "contrast"):
        cells += [Cell(kind, 200, s, sd, effect=0.05, benchmarks=3) for s in seeds for sd in (0.0, 0.04)]
        cells += [Cell(kind, 2000, s, 0.04, effect=0.05, heavy=True) for s in seeds]
        cells += [Cell(kind, 200, s, 0.04, effect=0.05, clusters=True) for s in seeds]
    return cells


def levels(cell: Cell) -> list[float]:
    """The shift of each of the 8 arms. In contrasts half of them are like a, half like b (which is at 0)."""
    if cell.kind == "drop":
        return [cell.effect] * ARMS
    return [cell.effect] * (ARMS // 2) + [0.0] * (ARMS // 2)


def simulate(cell: Cell, rng: np.random.Generator) -> tuple[list[Floats], list[list[Floats]], list[NDArray[np.int64] | None]]:
    """One study: base scores (a vector for each benchmark), scores[arm][benchmark] (items x seeds), cluster labels.

    With clusters, n is their number, and all items of a cluster share propensity and spread.
    """
    effects = seed_effects(cell, rng.random((ARMS, cell.seeds)))
    base, scores = [], [[] for _ in range(ARMS)]
    labels: list[NDArray[np.int64] | None] = []
    for _ in range(cell.benchmarks):
        p = rng.beta(*cell.shape, cell.n).astype(np.float32)
        spread = np.where(rng.random((ARMS, cell.n), dtype=np.float32) < 0.5, -cell.spread, cell.spread)
        members = np.repeat(np.arange(cell.n), rng.choice(SIZES, cell.n, p=SIZE_ODDS) if cell.clusters else 1)
        labels.append(members if cell.clusters else None)
        p, spread = p[members], spread[:, members].astype(np.float32)
        base.append((rng.random(len(p)) < p).astype(np.float64))
        for arm, level in enumerate(levels(cell)):
            chance = (p - level - spread[arm])[:, None] - effects[arm].astype(np.float32)
            scores[arm].append((rng.random(chance.shape, dtype=np.float32) < chance).astype(np.float64))
    return base, scores, labels


def simulate_curves(cell: Cell, rng: np.random.Generator) -> list[Curve]:
    """One study with checkpoints: 8 curves on the same items, half of them like a, half like b.

    Shifts, spreads and seed effects grow with the true gain and have their stated size at gain 5 points;
    spreads are half as large as without checkpoints, so that later ones do not pile up at 0 and 1. Seeds also
    run ahead or behind: they gain more and drop more along the curve, which is no seed effect at equal gain.
    The target's scores are exact (probabilities): their gain scatters over items but is not 0 or 1.
    """
    ramp = (GAINS / AT).astype(np.float32)
    effects = seed_effects(cell, rng.random((ARMS, cell.seeds))).astype(np.float32)
    ahead = GAIN_EFFECT * seed_effects(cell, rng.random((ARMS, cell.seeds))).astype(np.float32)
    p = rng.beta(*cell.shape, cell.n).astype(np.float32)
    base = rng.random(cell.n, dtype=np.float32) < p
    curves = []
    for effect, lead, drop in zip(effects, ahead, _drops(cell), strict=True):
        spread = np.where(rng.random(cell.n) < 0.5, -0.5, 0.5).astype(np.float32) * np.float32(cell.spread)
        shift = drop.astype(np.float32)[:, None] + ramp[:, None] * spread
        chance = (p - shift)[None] - ((effect + np.float32(_slope(drop)) * lead)[:, None] * ramp)[:, :, None]
        right = rng.random(chance.shape, dtype=np.float32) < chance
        right[:, 0] = base
        noise = GAIN_NOISE * rng.standard_normal((cell.seeds, len(STEPS), cell.n), dtype=np.float32)
        spread_of_gain = GAIN_SPREAD * rng.standard_normal(cell.n, dtype=np.float32)
        gain = ramp[:, None] * (np.float32(AT) + lead[:, None, None] + spread_of_gain + noise)
        curves.append(Curve(STEPS, gain.astype(np.float64), [base.astype(np.float64) - right]))
    return curves


def seed_effects(cell: Cell, uniform: Floats) -> Floats:
    """Seed effects of the cell's sd at the given quantiles."""
    standard = stdtrit(HEAVY_DF, uniform) / np.sqrt(HEAVY_DF / (HEAVY_DF - 2)) if cell.heavy else ndtri(uniform)
    return np.asarray(cell.sd * standard)


@lru_cache
def truth(cell: Cell) -> float:
    """The mean that the estimates of this cell aim at."""
    if cell.kind == "matched":
        a, b = matched_truth(cell)
        return a - b
    if cell.kind == "drop":
        return _moments(cell, cell.effect).drop
    return _moments(cell, cell.effect).drop - _moments(cell, 0.0).drop


@lru_cache
def matched_truth(cell: Cell) -> tuple[float, float]:
    """The drops of a and b at the matched gain: the expected curves, interpolated."""
    ends = []
    for drop in (_drops(cell)[0], _drops(cell)[-1]):
        expected = [_expected_drop(cell, shift, ramp, _slope(drop)) for shift, ramp in zip(drop, GAINS / AT, strict=True)]
        ends.append(float(drop_at(GAINS, expected, AT)))
    return ends[0], ends[1]


def true_stderr(cell: Cell) -> float:
    """Standard deviation of the estimate over repetitions; NaN where only the repetitions can tell."""
    if cell.kind == "matched" or cell.clusters:
        return float("nan")
    n, s = cell.n * cell.benchmarks, cell.seeds
    a, b = _moments(cell, cell.effect), _moments(cell, 0.0)
    if cell.kind == "drop":
        # given the seeds, items are independent: the base's draw, the answers' draws, and what is item by nature
        items = a.base_draw + a.draw / s + a.within / s + a.item
        return float(np.sqrt(items / n + a.between / s))
    items = (a.draw + b.draw + a.within + b.within) / s + a.spread + b.spread + _shift_difference(cell)
    return float(np.sqrt(items / n + (a.between + b.between) / s))


@dataclass(frozen=True)
class _Moments:
    drop: float
    base_draw: float  # E p (1 - p)
    draw: float  # E q (1 - q)
    within: float  # variance over seeds, within items, less that of the seeds' means
    between: float  # variance of the seeds' means
    item: float  # variance over items of p - E q
    spread: float  # variance of E q over spreads, within propensities


def _chances(cell: Cell, level: float) -> tuple[Floats, Floats]:
    """Propensities (200), and answers' chances at 200 propensities x 2 spreads x 1001 seed effects."""
    p = betaincinv(*cell.shape, (np.arange(200) + 0.5) / 200)
    u = seed_effects(cell, (np.arange(1001) + 0.5) / 1001)
    spread = np.array([-cell.spread, cell.spread])
    return p, np.clip(p[:, None, None] - level - spread[:, None] - u, 0, 1)


@lru_cache
def _moments(cell: Cell, level: float) -> _Moments:
    p, q = _chances(cell, level)
    of_seed, of_item = q.mean(axis=(0, 1)), q.mean(axis=2)
    between = float(of_seed.var())
    return _Moments(
        drop=float(p.mean() - q.mean()),
        base_draw=float((p * (1 - p)).mean()),
        draw=float((q * (1 - q)).mean()),
        within=float(q.var(axis=2).mean()) - between,
        between=between,
        item=float((p[:, None] - of_item).var()),
        spread=float(of_item.var(axis=1).mean()),
    )


def _shift_difference(cell: Cell) -> float:
    """Variance over propensities of what a and b differ by, their independent spreads averaged out."""
    a, b = (_chances(cell, level)[1].mean(axis=(1, 2)) for level in (cell.effect, 0.0))
    return float((a - b).var())


def _drops(cell: Cell) -> list[Floats]:
    """Shift of each arm at each step: convex in the gain, a's larger than b's by the effect at the matched gain."""
    return [10 * GAINS**2 + level * GAINS / AT for level in levels(cell)]


def _slope(drop: Floats) -> float:
    """Drop per gain between the two steps around the matched gain."""
    return float((drop[2] - drop[1]) / (GAINS[2] - GAINS[1]))


def _expected_drop(cell: Cell, shift: float, ramp: float, slope: float) -> float:
    p = betaincinv(*cell.shape, (np.arange(200) + 0.5) / 200)
    u = seed_effects(cell, (np.arange(1001) + 0.5) / 1001) * np.sqrt(1 + (GAIN_EFFECT * slope) ** 2)
    spread = np.array([-cell.spread, cell.spread]) / 2
    return float(p.mean() - np.clip(p[:, None, None] - shift - ramp * (spread[:, None] + u), 0, 1).mean())
