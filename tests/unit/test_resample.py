"""The fast bootstrap against scipy's, and against what must not change it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import bootstrap, ks_2samp

from retain_core.stats.resample import (
    cluster_totals,
    percentile_interval,
    resampled_cluster_means,
    resampled_means,
    resampled_ratio_means,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_same_distribution(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Monte-Carlo error only: the same centre and spread to a few per cent, and the same shape."""
    assert ours.mean() == pytest.approx(theirs.mean(), abs=5 * theirs.std() * np.sqrt(2 / len(theirs)))
    assert ours.std() == pytest.approx(theirs.std(), rel=5 / np.sqrt(len(theirs)))
    # Jitter far below the spread breaks the ties of few-valued data, which the test of shape does not allow for.
    noise = rng(9).normal(scale=theirs.std() * 0.05, size=(2, len(theirs)))
    assert ks_2samp(ours + noise[0], theirs + noise[1]).pvalue > 1e-3


@pytest.mark.parametrize(
    "values",
    [
        (rng(1).random(400) < 0.7).astype(float),
        rng(2).choice([-1.0, 0.0, 1.0], size=400, p=[0.1, 0.7, 0.2]),
        rng(3).exponential(size=400),
    ],
    ids=["0/1", "flips", "all distinct"],
)
def test_means_agree_with_scipy(values):
    theirs = bootstrap(
        (values,), np.mean, n_resamples=4000, batch=500, method="percentile", vectorized=True, rng=rng(4)
    ).bootstrap_distribution  # fmt: skip
    assert_same_distribution(resampled_means(values, 4000, rng(5)), theirs)


@pytest.mark.parametrize("kinds", ["few types", "all distinct"])
def test_unequal_clusters_agree_with_scipys_paired_ratio(kinds):
    draw = rng(6)
    sizes = draw.integers(1, 4, size=300)
    sums = draw.binomial(sizes, 0.6) + (0.0 if kinds == "few types" else draw.normal(scale=0.3, size=300))
    theirs = bootstrap(
        (sums, sizes), lambda s, n, axis=-1: s.sum(axis=axis) / n.sum(axis=axis), paired=True, vectorized=True,
        n_resamples=4000, batch=500, method="percentile", rng=rng(7),
    ).bootstrap_distribution  # fmt: skip
    assert_same_distribution(resampled_ratio_means(sums, sizes, 4000, rng(8)), theirs)


def test_both_routes_draw_from_the_same_distribution():
    values = (rng(1).random(600) < 0.3).astype(float)
    # Differences far below the spread make all values distinct, which takes the other route.
    distinct = values + np.linspace(0, 1e-9, values.size)
    assert_same_distribution(resampled_means(values, 5000, rng(2)), resampled_means(distinct, 5000, rng(3)))


def test_the_order_of_the_items_and_the_names_of_the_clusters_do_not_matter():
    values, clusters = (rng(1).random(500) < 0.4).astype(float), rng(2).integers(0, 60, size=500)
    order = rng(3).permutation(500)
    assert np.array_equal(resampled_means(values, 50, rng()), resampled_means(values[order], 50, rng()))
    named = np.array([f"passage {c:03d}" for c in clusters])
    assert np.array_equal(
        resampled_cluster_means(values, clusters, 50, rng()), resampled_cluster_means(values[order], named[order], 50, rng())
    )


def test_clusters_of_one_item_are_items():
    values = rng(1).normal(size=200)
    alone = resampled_cluster_means(values, np.arange(200), 100, rng())
    assert np.allclose(alone, resampled_means(values, 100, rng()))


def test_items_that_move_together_widen_the_interval():
    values = np.repeat((rng(1).random(60) < 0.5).astype(float), 10)
    by_item = np.std(resampled_means(values, 4000, rng()))
    by_cluster = np.std(resampled_cluster_means(values, np.repeat(np.arange(60), 10), 4000, rng()))
    assert by_cluster / by_item == pytest.approx(np.sqrt(10), rel=0.1)


def test_cluster_totals_by_hand():
    sums, sizes = cluster_totals([1.0, 0.0, 1.0, 1.0], ["b", "a", "b", "c"])
    assert sums.tolist() == [0.0, 2.0, 1.0]
    assert sizes.tolist() == [1.0, 2.0, 1.0]


def test_the_percentile_interval_covers_the_mean_as_often_as_it_says():
    draw, found = rng(11), 0
    for _ in range(600):
        values = (draw.random(300) < 0.6).astype(float)
        low, high = percentile_interval(resampled_means(values, 500, draw))
        found += low <= 0.6 <= high
    assert 0.92 < found / 600 < 0.98


def test_equal_values_do_not_vary_and_missing_ones_are_refused():
    assert percentile_interval(resampled_means(np.ones(50), 100, rng())) == (1.0, 1.0)
    with pytest.raises(ValueError, match="missing"):
        resampled_means([1.0, np.nan], 10, rng())
    with pytest.raises(ValueError, match="at least one"):
        resampled_means([], 10, rng())


def test_ten_thousand_resamples_of_a_whole_benchmark_take_no_time():
    values = (rng(1).random(100_000) < 0.6).astype(float)
    started = time.process_time()
    resampled_means(values, 10_000, rng())
    assert time.process_time() - started < 0.1
