"""What a study can find before it is run: smallest detectable drop, seeds needed, type S and type M error.

Variances come from a pilot: one arm's items x seeds table, or the contrast of two arms. Effects, margins and
standard errors are fractions. Sources: measurement sections 2 and 7; Gelman and Carlin (2014), in the closed
form of Lu, Qiu and Deng (2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaincinv, ndtr, stdtr, stdtrit
from scipy.stats import norm
from scipy.stats import t as student

from retain_core.stats.crossed import FEWEST_ARMS, PRIOR_DF, Components
from retain_core.stats.paired import FEWEST_CLUSTERS

FEWEST_SEEDS = 2

_MANY = 1e6
"""Degrees of freedom at which t is the normal distribution."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


@dataclass(frozen=True)
class Pilot:
    """Variances of the paired differences: of items, of seeds and what remains of one answer. `n` items or clusters."""

    item: float
    seed: float
    residual: float
    n: int


class LossView(StrEnum):
    """Whether a benchmark can show a loss; if not, the first reason."""

    YES = "can show a loss"
    FEW_CLUSTERS = f"under {FEWEST_CLUSTERS} clusters: no interval"
    FEW_ITEMS = "too few items: one of them is more than the margin"
    NEAR_CHANCE = "the base is too near chance to lose the margin"


@dataclass(frozen=True)
class Retrodesign:
    """What a significant result is worth: its power, the share with the wrong sign, the mean exaggeration."""

    power: float
    type_s: float
    type_m: float


def pilot_of(found: Components) -> Pilot:
    """Variance components of an analysed table, none below 0. ValueError with one seed, which says nothing of seeds."""
    if found.seeds < FEWEST_SEEDS:
        raise ValueError(f"variance over seeds needs at least {FEWEST_SEEDS} seeds")
    item = max(found.ms_items - found.ms_residual, 0.0) / found.seeds
    return Pilot(item, max(found.seed_variance, 0.0), found.ms_residual, found.n)


def planned_stderr(pilot: Pilot, seeds: int) -> float:
    """Standard error that a mean over n items and so many seeds will have: the root of measurement 2's V, expected."""
    return math.sqrt(pilot.item / pilot.n + _seed_part(pilot, seeds))


def planned_df(pilot: Pilot, seeds: int, arms: int = 1, alpha: float = 0.05) -> float:
    """Degrees of freedom that go with `planned_stderr`; `arms` are those of similar drop, this one included.

    With at least 6 arms Satterthwaite's for the moderated variance; with fewer those at which one t interval
    is as wide as the one with a t quantile for each component.
    """
    n, variance = pilot.n, planned_stderr(pilot, seeds) ** 2
    items, of_seeds = pilot.item / n, _seed_part(pilot, seeds)
    if variance == 0:
        return float(n - 1)
    if arms < FEWEST_ARMS:
        half_squared = items * _t(n - 1, alpha) ** 2 + of_seeds * _t(seeds - 1, alpha) ** 2
        return _df_of(math.sqrt(half_squared / variance), seeds - 1, n - 1, alpha)
    mean_squares = (
        (seeds * pilot.item + pilot.residual, n - 1),
        (n * pilot.seed + pilot.residual, PRIOR_DF + seeds - 1),
        (pilot.residual, (n - 1) * (seeds - 1)),
    )
    return (n * seeds * variance) ** 2 / sum(square**2 / df for square, df in mean_squares)


def detection_power(effect: float, stderr: float, df: float, alpha: float = 0.05) -> float:
    """Chance that a two-sided t test at alpha finds an effect (noncentral t; `df` may be infinite)."""
    limit, shift = _t(df, alpha), abs(effect) / stderr
    if math.isinf(df):
        return float(ndtr(shift - limit) + ndtr(-shift - limit))
    # The noncentral t of scipy fails for few degrees of freedom: average over the estimated standard error instead.
    estimated = np.sqrt(2 * gammaincinv(df / 2, (_NODES + 1) / 2) / df)
    return float(_WEIGHTS / 2 @ (ndtr(shift - limit * estimated) + ndtr(-shift - limit * estimated)))


def smallest_detectable_drop(stderr: float, df: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The effect that is found with the given power. 0 where the standard error is 0."""
    if stderr == 0:
        return 0.0
    high = _t(df, alpha)
    while detection_power(high, 1.0, df, alpha) < power:
        high *= 2
    return stderr * float(brentq(lambda shift: detection_power(shift, 1.0, df, alpha) - power, 0.0, high))


def detectable_from_interval(half_width: float, stderr: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The effect that is found with the given power by an interval of this half width and standard error.

    The degrees of freedom are those of a t interval that is as wide, so that forms of interval with a quantile for each
    component are read as what they are.
    """
    if stderr == 0:
        return 0.0
    return smallest_detectable_drop(stderr, _df_of(half_width / stderr, 1, _MANY, alpha), power, alpha)


def seeds_to_verdict(
    pilot: Pilot, margin: float, arms: int = 1, power: float = 0.8, alpha: float = 0.05, most: int = 1000
) -> int | None:
    """Smallest number of seeds at which the smallest detectable effect is within the margin.

    None where no number is enough because of the items alone, or where it would be over `most`.
    """

    def enough(seeds: int) -> bool:
        stderr, df = planned_stderr(pilot, seeds), planned_df(pilot, seeds, arms, alpha)
        return smallest_detectable_drop(stderr, df, power, alpha) <= margin

    if smallest_detectable_drop(math.sqrt(pilot.item / pilot.n), pilot.n - 1, power, alpha) > margin or not enough(most):
        return None
    too_few, seeds = FEWEST_SEEDS - 1, most
    while seeds - too_few > 1:
        middle = (too_few + seeds) // 2
        too_few, seeds = (too_few, middle) if enough(middle) else (middle, seeds)
    return seeds


def type_s_m(true_effect: float, stderr: float, df: float = math.inf, alpha: float = 0.05) -> Retrodesign:
    """Power, type S and type M error if the effect is `true_effect`, following Gelman and Carlin.

    The estimate is true_effect + stderr x t and significant beyond the two-sided t quantile. Type S is the share of
    significant estimates with the wrong sign, type M their mean size over the true size (infinite for no effect and,
    where t has no mean, for one degree of freedom).
    """
    limit, shift = _t(df, alpha), abs(true_effect) / stderr
    right, wrong = _tail(limit - shift, df), _tail(limit + shift, df)
    power = right + wrong
    if shift == 0 or df <= 1:
        return Retrodesign(power, wrong / power, math.inf)
    size = shift * (right - wrong) + _tail_mean(limit - shift, df) + _tail_mean(limit + shift, df)
    return Retrodesign(power, wrong / power, size / power / shift)


def can_see_loss(base_score: float, chance: float, n: int, clusters: int | None, margin: float = 0.02) -> LossView:
    """Whether a benchmark with this base score could show a loss of the margin at all.

    A ceiling is no obstacle to a loss. A base within the margin of chance is, and so is one within two standard
    errors of chance: all it knows could go without a trace. `clusters` is None where items stand alone.
    """
    if clusters is not None and clusters < FEWEST_CLUSTERS:
        return LossView.FEW_CLUSTERS
    if 1 / n > margin:
        return LossView.FEW_ITEMS
    noise = 2 * math.sqrt(base_score * (1 - base_score) / n)
    return LossView.NEAR_CHANCE if base_score - chance < max(margin, noise) else LossView.YES


def _seed_part(pilot: Pilot, seeds: int) -> float:
    """The part of the variance that more seeds make smaller."""
    return pilot.seed / seeds + pilot.residual / (pilot.n * seeds)


def _df_of(quantile: float, fewest: float, most: float, alpha: float) -> float:
    """The degrees of freedom between `fewest` and `most` whose two-sided t quantile is this one."""
    if fewest >= most or quantile >= _t(fewest, alpha):
        return min(fewest, most)
    if quantile <= _t(most, alpha):
        return most
    return float(brentq(lambda df: _t(df, alpha) - quantile, fewest, most))


def _t(df: float, alpha: float) -> float:
    """Two-sided quantile; stdtrit takes no infinite df."""
    return float(norm.isf(alpha / 2) if math.isinf(df) else stdtrit(df, 1 - alpha / 2))


def _tail(limit: float, df: float) -> float:
    return float(ndtr(-limit) if math.isinf(df) else stdtr(df, -limit))


def _tail_mean(limit: float, df: float) -> float:
    """Integral of x times the density of t from the limit upwards."""
    if math.isinf(df):
        return float(norm.pdf(limit))
    return float((df + limit**2) / (df - 1) * student.pdf(limit, df))
