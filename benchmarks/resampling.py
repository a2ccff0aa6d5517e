"""The bootstrap of `retain_core.stats.resample` against scipy's, on the same data with the same number of resamples."""

from __future__ import annotations

import numpy as np
from scipy.stats import bootstrap

from benchmarks.pairs import Row, compare
from retain_core.stats.resample import percentile_interval, resampled_cluster_means, resampled_means

RESAMPLES = 10_000
ITEMS = 100_000
CLUSTERS = 10_000


def resampling(pairs: int) -> list[Row]:
    """Three rows: 0/1 items, clusters of 0/1 items, clusters that all differ. scipy needs seconds a call: 3 pairs at most."""
    pairs, draw = min(pairs, 3), np.random.default_rng(0)
    correct = (draw.random(ITEMS) < 0.6).astype(np.float64)
    clusters = draw.integers(CLUSTERS, size=ITEMS)
    return [
        compare(
            "10,000 resamples of 100,000 0/1 items / scipy.stats.bootstrap, batch=100",
            lambda: percentile_interval(resampled_means(correct, RESAMPLES, draw)),
            lambda: _scipy_items(correct, draw),
            "0.01 or less",
            pairs,
        ),
        _clusters("that hold 0/1 items", correct, clusters, draw, pairs),
        _clusters("that all differ", draw.normal(size=ITEMS), clusters, draw, pairs),
    ]


def _clusters(name: str, values: np.ndarray, clusters: np.ndarray, draw: np.random.Generator, pairs: int) -> Row:
    return compare(
        f"10,000 resamples of 10,000 clusters {name} / scipy.stats.bootstrap of sums and sizes, batch=100",
        lambda: percentile_interval(resampled_cluster_means(values, clusters, RESAMPLES, draw)),
        lambda: _scipy_clusters(values, clusters, draw),
        "ours under 1 s",
        pairs,
    )


def _scipy_items(values: np.ndarray, draw: np.random.Generator) -> object:
    return bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, batch=100, method="percentile", vectorized=True, rng=draw
    ).confidence_interval  # fmt: skip


def _scipy_clusters(values: np.ndarray, clusters: np.ndarray, draw: np.random.Generator) -> object:
    _, member = np.unique(clusters, return_inverse=True)
    data = np.bincount(member, values), np.bincount(member)
    return bootstrap(
        data, lambda s, n, axis=-1: s.sum(axis=axis) / n.sum(axis=axis), paired=True, vectorized=True,
        n_resamples=RESAMPLES, batch=100, method="percentile", rng=draw,
    ).confidence_interval  # fmt: skip
