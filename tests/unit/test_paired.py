"""Paired statistics against statsmodels and scipy, and the properties they must have."""

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from retain_core.stats import paired as stats


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_agrees_with_statsmodels_and_is_symmetric(lost, gained):
    ours = float(stats.mcnemar_exact(lost, gained))
    if lost + gained:
        theirs = mcnemar([[5, lost], [gained, 7]], exact=True).pvalue
        assert ours == pytest.approx(theirs, abs=1e-12)
    assert ours == float(stats.mcnemar_exact(gained, lost))


def test_mcnemar_agrees_with_scipy_binomial():
    for lost, gained in [(1, 0), (5, 5), (45, 20), (0, 12), (333, 280)]:
        theirs = scipy.stats.binomtest(lost, lost + gained, 0.5).pvalue
        assert float(stats.mcnemar_exact(lost, gained)) == pytest.approx(theirs, abs=1e-12)


def test_no_flips_is_no_evidence():
    assert float(stats.mcnemar_exact(0, 0)) == 1.0


def moments(x, clusters=None):
    x = np.asarray(x, dtype=float)
    centred = x - x.mean()
    if clusters is None:
        return len(x), (centred**2).sum(), np.nan, np.nan
    names = np.unique(clusters)
    return len(x), (centred**2).sum(), len(names), sum(centred[clusters == c].sum() ** 2 for c in names)


def test_interval_over_items_is_the_paired_t_interval():
    rng = np.random.default_rng(5)
    x = rng.choice([-1.0, 0.0, 1.0], size=300, p=[0.1, 0.7, 0.2])
    error = stats.standard_error(*moments(x))
    low, high = stats.paired_interval(x.mean(), error, stats.degrees_of_freedom(len(x), np.nan))
    theirs = scipy.stats.ttest_1samp(x, 0.0)
    interval = theirs.confidence_interval(0.95)
    assert (float(low), float(high)) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert float(stats.t_p_value(x.mean(), error, len(x) - 1)) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_clustered_error_agrees_with_statsmodels():
    rng = np.random.default_rng(7)
    clusters = np.repeat(np.arange(40), rng.integers(1, 12, 40))
    x = rng.normal(size=len(clusters)) + rng.normal(size=40)[clusters]
    ours = float(stats.standard_error(*moments(x, clusters)))
    fit = sm.OLS(x, np.ones(len(x))).fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False})
    assert ours == pytest.approx(float(fit.bse[0]) * np.sqrt(40 / 39), rel=1e-10)
    assert ours > float(stats.standard_error(*moments(x)))


def test_one_item_per_cluster_is_the_error_over_items():
    x = np.random.default_rng(3).normal(size=80)
    by_cluster = float(stats.standard_error(*moments(x, np.arange(80))))
    assert by_cluster == pytest.approx(float(stats.standard_error(*moments(x))), rel=1e-12)


def test_too_few_clusters_refuse_an_interval():
    x = np.random.default_rng(3).normal(size=190)
    assert np.isnan(stats.standard_error(*moments(x, np.arange(190) % 19)))
    assert not np.isnan(stats.standard_error(*moments(x, np.arange(190) % 20)))


def test_nothing_differs():
    error = stats.standard_error(*moments(np.zeros(50)))
    assert [float(v) for v in stats.paired_interval(0.0, error, 49)] == [0.0, 0.0]
    assert float(stats.t_p_value(0.0, error, 49)) == 1.0


def test_without_a_standard_error_there_is_no_p_value():
    assert np.isnan(stats.t_p_value(0.3, np.nan, 4))


def test_one_item_has_no_interval():
    assert np.isnan(stats.standard_error(*moments([1.0])))
