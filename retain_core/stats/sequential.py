"""Looking at a contrast more than once: how much of alpha each look may spend.

O'Brien-Fleming-type spending (Lan and DeMets 1983), at most 3 looks, declared before training; see
measurement section 7. Look k of K may have spent what the function allows at time k/K, whatever number of
seeds it has: the number of seeds of a later look need not be known (time of spending and information may
differ, Lan and DeMets 1989), but must not be chosen by the size of the contrast. Information is the number
of seeds; it sets how far two looks agree by chance. Items that all looks share make them agree more, so the
error stays below what is computed here. Levels are for normal statistics and are used with t quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

MOST_LOOKS = 3

_FAR = 9.0
"""A bound in standard errors that is never crossed."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(256)

Floats = NDArray[np.float64]


def spent(time: float, alpha: float = 0.05) -> float:
    """Two-sided error that may have been spent by `time` (0 to 1): each side spends alpha/2 the O'Brien-Fleming way."""
    return float(4 * ndtr(ndtri(alpha / 4) / np.sqrt(min(time, 1.0))))


def look_levels(information: Sequence[float], planned_looks: int, alpha: float = 0.05) -> list[float]:
    """Nominal two-sided level of each look so far, such that all `planned_looks` together err in alpha of studies.

    `information` is the number of seeds at each look so far, rising. A study that planned one look spends alpha
    at the first: any further look has level 0, and `overall_error` says what using another level costs. Raises
    ValueError for more than 3 looks and for information that does not rise.
    """
    _check(information, planned_looks)
    bounds: list[float] = []
    before = 0.0
    for k in range(1, len(information) + 1):
        allowed = spent(k / planned_looks, alpha)
        bounds.append(_bound(bounds, information[:k], allowed - before))
        before = allowed
    return [0.0 if bound >= _FAR else float(2 * ndtr(-bound)) for bound in bounds]


def overall_error(levels: Sequence[float], information: Sequence[float]) -> float:
    """Chance that at least one look, each at its nominal two-sided level, finds a difference where there is none."""
    _check(information, len(levels))
    bounds = [_FAR if level <= 0 else float(-ndtri(level / 2)) for level in levels]
    return sum(_crossing(bounds[:k], information[: k + 1], bound) for k, bound in enumerate(bounds))


def interval_levels(level: float) -> tuple[float, float]:
    """Confidence of the two intervals of a verdict at a look's nominal level: 95 and 90 % where the level is .05."""
    return 1 - level, 1 - 2 * level


def _check(information: Sequence[float], looks: int) -> None:
    if not 1 <= looks <= MOST_LOOKS or not 1 <= len(information) <= MOST_LOOKS:
        raise ValueError(f"a study has 1 to {MOST_LOOKS} looks, not {max(looks, len(information))}")
    if information[0] <= 0 or any(b <= a for a, b in pairwise(information)):
        raise ValueError(f"every look needs more seeds than the one before, not {list(information)}")


def _bound(earlier: list[float], information: Sequence[float], error: float) -> float:
    """The bound of the newest look at which it is first crossed with probability `error`; `_FAR` where nothing is left."""
    if error <= _crossing(earlier, information, _FAR):
        return _FAR
    return float(brentq(lambda bound: _crossing(earlier, information, bound) - error, 0.0, _FAR, xtol=1e-12))


def _crossing(earlier: list[float], information: Sequence[float], bound: float) -> float:
    """Probability that |z| stays within the earlier bounds at all earlier looks and exceeds `bound` at the newest.

    Recursion of Armitage, McPherson and Rowe (1969): the density of z at each look, over the paths that did not
    cross before, on Gauss-Legendre nodes between its bounds.
    """
    if not earlier:
        return float(2 * ndtr(-bound))
    z = earlier[0] * _NODES
    mass = earlier[0] * _WEIGHTS * _normal(z)
    for k in range(1, len(earlier)):
        onto = earlier[k] * _NODES
        drift, scale = _step(information[k - 1], information[k])
        mass = earlier[k] * _WEIGHTS * (_normal(onto[:, None] * scale - z * drift) @ mass) * scale
        z = onto
    drift, scale = _step(information[-2], information[-1])
    return float((ndtr(z * drift - bound * scale) + ndtr(-z * drift - bound * scale)) @ mass)


def _step(before: float, after: float) -> tuple[float, float]:
    """Drift and scale: given z now, the next z is normal with mean z * drift / scale and deviation 1 / scale."""
    return float(np.sqrt(before / (after - before))), float(np.sqrt(after / (after - before)))


def _normal(z: Floats) -> Floats:
    density: Floats = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return density
