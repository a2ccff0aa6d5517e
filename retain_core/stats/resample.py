"""Bootstrap of a mean, fast: many resamples of many items, or of whole clusters.

A resampled mean needs only how often each distinct value was drawn. Those counts are multinomial, so
for few distinct values (0/1 scores, flips of -1, 0 and 1) they are drawn directly: the cost does not
depend on the number of items. A cluster is the pair (sum, size), held as one complex number, so that
items and clusters share one routine. Source: Efron (1979); ratio means, measurement section 2.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Totals = TypeVar("Totals", NDArray[np.float64], NDArray[np.complex128])

_DRAWS_A_COUNT = 32
"""One multinomial count costs about as much as this many single draws (measured)."""

_BLOCK = 1 << 16
"""Single draws held at once: small enough for the processor's cache."""


def resampled_means(values: ArrayLike, resamples: int, rng: np.random.Generator) -> Floats:
    """Means of `resamples` samples of the n values, each of size n, drawn with replacement. Shape (resamples,)."""
    x = np.asarray(values, dtype=np.float64)
    return _resampled_totals(x, resamples, rng) / x.size


def resampled_cluster_means(values: ArrayLike, clusters: ArrayLike, resamples: int, rng: np.random.Generator) -> Floats:
    """Item means of resamples of whole clusters. `clusters` names the cluster of each value. Shape (resamples,)."""
    sums, sizes = cluster_totals(values, clusters)
    return resampled_ratio_means(sums, sizes, resamples, rng)


def resampled_ratio_means(sums: ArrayLike, sizes: ArrayLike, resamples: int, rng: np.random.Generator) -> Floats:
    """As `resampled_cluster_means`, from the sum and the size of each cluster: sum of sums / sum of sizes."""
    totals = _resampled_totals(np.asarray(sums, dtype=np.float64) + 1j * np.asarray(sizes, dtype=np.float64), resamples, rng)
    return totals.real / totals.imag


def cluster_totals(values: ArrayLike, clusters: ArrayLike) -> tuple[Floats, Floats]:
    """Sum of the values and number of items in each cluster, in the order of the sorted cluster names."""
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(member, weights=np.asarray(values, dtype=np.float64))
    return sums.astype(np.float64, copy=False), np.bincount(member).astype(np.float64)


def percentile_interval(resampled: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The central `level` share of the resampled figures: (low, high). NaN where any of them is."""
    low, high = np.quantile(np.asarray(resampled, dtype=np.float64), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled_totals(units: Totals, resamples: int, rng: np.random.Generator) -> Totals:
    """Sums of `resamples` samples with replacement of the units, each as large as the units are many."""
    if not units.size or np.isnan(units).any():
        raise ValueError("a bootstrap needs at least one unit and no missing values")
    distinct, counts = np.unique(units, return_counts=True)
    if distinct.size * _DRAWS_A_COUNT <= units.size:
        return rng.multinomial(units.size, counts / units.size, size=resamples) @ distinct
    totals = np.empty(resamples, dtype=units.dtype)
    rows = max(1, _BLOCK // units.size)
    for start in range(0, resamples, rows):
        block = totals[start : start + rows]
        units[rng.integers(units.size, size=(block.size, units.size))].sum(axis=1, out=block)
    return totals
