"""Do contrasts found at one size hold at the next? Kendall's tau of all pairs, and how many signs held.

A contrast is drop of a - drop of b, and which of a pair stands first is nobody's choice. So every pair counts both ways
round: tau-b of (x, -x) and (y, -y) does not depend on the order in which methods are listed, and a sign that turned
counts against it.

Interval: the methods are what is drawn. Pairs share methods and are not independent, and base seeds are too few to be
resampled; what a base or a seed does to a method is part of what is drawn with it. The standard error of atanh(tau) is
that of the jackknife over methods, with Student's t. It vanishes where every rank agrees, so it is never taken smaller
than for bivariate normal drops, where the variance of atanh(tau) hardly depends on tau: 0.41 / (M - 2.67) for M methods
(fitted to simulations of M from 4 to 12). `tests/unit/test_agreement.py` shows how often it holds the truth.

Sources: Kendall (1945) for tau-b; Arvesen (1969) for the jackknife of U-statistics; Fieller, Hartley and Pearson (1957)
for the nearly constant variance of atanh(tau).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

FEWEST_METHODS = 5
"""Fewer methods than this give no interval: leaving one out leaves next to nothing."""
_VARIANCE, _LESS = 0.41, 2.67
_DECIMALS = 12
"""Contrasts closer than this are tied: sums of floats differ in their last digits."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How well one set of contrasts foretold another. `low` and `high` are NaN where `rule` refuses an interval."""

    pairs: int
    methods: int
    signs_held: int
    tau: float
    low: float
    high: float
    rule: str


def kendall_tau_b(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau-b of two equally long series; NaN when one of them does not vary."""
    signs = [np.sign(np.subtract.outer(v, v)) for v in (_rounded(x), _rounded(y))]
    untied = [float(np.abs(s).sum()) for s in signs]
    return float((signs[0] * signs[1]).sum() / np.sqrt(untied[0] * untied[1])) if min(untied) > 0 else float("nan")


def contrast_tau(x: ArrayLike, y: ArrayLike) -> float:
    """Tau-b of contrasts x and y of the same pairs, each counted both ways round."""
    first, second = _rounded(x), _rounded(y)
    return kendall_tau_b(np.concatenate([first, -first]), np.concatenate([second, -second]))


def agreement(pairs: Sequence[tuple[str, str]], x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Agreement:
    """Tau and signs of the contrasts x (predicted) and y (found), one entry for each pair of methods in `pairs`.

    A pair may stand there more than once (at several learning rates). Raises ValueError when the lengths differ.
    """
    predicted, found = _rounded(x), _rounded(y)
    if not len(pairs) == len(predicted) == len(found):
        raise ValueError(f"{len(pairs)} pairs, {len(predicted)} predicted and {len(found)} found contrasts")
    methods = sorted({method for pair in pairs for method in pair})
    held = int(np.sum(predicted * found > 0))
    tau = contrast_tau(predicted, found) if pairs else float("nan")
    low, high, rule = float("nan"), float("nan"), "methods resampled (jackknife)"
    if len(methods) < FEWEST_METHODS:
        rule = f"no interval: {len(methods)} methods, at least {FEWEST_METHODS} are needed"
    elif np.isnan(tau):
        rule = "no interval: all contrasts are equal"
    else:
        without = [np.array([left not in pair for pair in pairs]) for left in methods]
        low, high = _interval(tau, [contrast_tau(predicted[keep], found[keep]) for keep in without], level)
    return Agreement(len(pairs), len(methods), held, tau, low, high, rule)


def _rounded(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64).round(_DECIMALS)


def _interval(tau: float, left_out: Sequence[float], level: float) -> tuple[float, float]:
    """From tau and the taus with one method left out; one that does not vary then says nothing new."""
    m = len(left_out)
    # The transformation is infinite at 1; no tau of so few methods tells 1 from this.
    largest = 1 - 1 / (m * (m - 1))
    transformed = np.arctanh(np.clip(np.where(np.isnan(left_out), tau, left_out), -largest, largest))
    jackknife = np.sqrt((m - 1) / m * np.sum((transformed - transformed.mean()) ** 2))
    tail = (1 + level) / 2
    half = max(float(stdtrit(m - 1, tail)) * float(jackknife), float(ndtri(tail)) * np.sqrt(_VARIANCE / (m - _LESS)))
    middle = np.arctanh(np.clip(tau, -largest, largest))
    low = -1.0 if tau < -largest else float(np.tanh(middle - half))
    return low, 1.0 if tau > largest else float(np.tanh(middle + half))
