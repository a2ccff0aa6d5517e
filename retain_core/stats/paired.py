"""Paired statistics of one checkpoint against its base, as small pure functions on sums.

All of them take arrays (one entry per comparison) so that a whole study is computed at once.
Source of the definitions: measurement, sections 1 and 2; McNemar (1947), exact binomial form.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, stdtr, stdtrit

FEWEST_CLUSTERS = 20
"""Below this many clusters an item-level interval is refused."""

Floats = NDArray[np.float64]


def mcnemar_exact(lost: ArrayLike, gained: ArrayLike) -> Floats:
    """Two-sided exact McNemar p-value: is right->wrong as likely as wrong->right? 1 without flips."""
    a, b = np.asarray(lost, dtype=np.float64), np.asarray(gained, dtype=np.float64)
    flips = a + b
    tail: Floats = bdtr(np.minimum(a, b), np.maximum(flips, 1).astype(np.int64), 0.5)
    return np.where(flips == 0, 1.0, np.minimum(1.0, 2.0 * tail))


def paired_interval(mean: ArrayLike, stderr: ArrayLike, df: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """Mean difference plus and minus t times its standard error; the point itself when stderr is 0."""
    m, s, d = (np.asarray(x, dtype=np.float64) for x in (mean, stderr, df))
    half = np.where(s == 0, 0.0, stdtrit(np.maximum(d, 1), 0.5 + level / 2) * s)
    return m - half, m + half


def t_p_value(mean: ArrayLike, stderr: ArrayLike, df: ArrayLike) -> Floats:
    """Two-sided p-value of a mean difference against 0; 1 when nothing differs, 0 when all differ equally.

    NaN where the standard error is.
    """
    m, s, d = (np.asarray(x, dtype=np.float64) for x in (mean, stderr, df))
    t = np.divide(np.abs(m), s, out=np.full_like(m, np.inf), where=s > 0)
    p = np.where((s == 0) & (m == 0), 1.0, 2.0 * stdtr(np.maximum(d, 1), -t))
    return np.where(np.isnan(s), np.nan, p)


def standard_error(n: ArrayLike, sum_of_squares: ArrayLike, clusters: ArrayLike, cluster_squares: ArrayLike) -> Floats:
    """Standard error of a mean over n items.

    `sum_of_squares` is the sum of (x - mean)^2 over items. Where `clusters` is not NaN the error is
    cluster-robust: `cluster_squares` is the sum over clusters of (sum of (x - mean) in it)^2, with
    the G/(G-1) correction. NaN where it is refused (under 20 clusters) or undefined (one item).
    """
    count, squares, groups, group_squares = (
        np.asarray(x, dtype=np.float64) for x in (n, sum_of_squares, clusters, cluster_squares)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        by_item = np.sqrt(squares / (count - 1) / count)
        by_cluster = np.sqrt(groups / (groups - 1) * group_squares) / count
    by_cluster = np.where(groups < FEWEST_CLUSTERS, np.nan, by_cluster)
    return np.where(np.isnan(groups), np.where(count > 1, by_item, np.nan), by_cluster)


def degrees_of_freedom(n: ArrayLike, clusters: ArrayLike) -> Floats:
    """Items minus one, or clusters minus one where there are clusters."""
    groups = np.asarray(clusters, dtype=np.float64)
    return np.where(np.isnan(groups), np.asarray(n, dtype=np.float64), groups) - 1
