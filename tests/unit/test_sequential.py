"""Alpha spending: published bounds, simulated errors, and what a study that looks again really risks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from retain_core.stats.sequential import interval_levels, look_levels, overall_error, spent


def bounds(levels: list[float]) -> np.ndarray:
    return norm.isf(np.array(levels) / 2)


def paths(information: list[float], repetitions: int = 400_000) -> np.ndarray:
    """z at each look where nothing differs: sums of independent seeds. Shape (repetitions, looks)."""
    draw = np.random.default_rng(1)
    steps = draw.normal(size=(repetitions, len(information))) * np.sqrt(np.diff([0, *information]))
    return np.cumsum(steps, axis=1) / np.sqrt(information)


@pytest.mark.parametrize(
    ("looks", "published"),
    [(2, [2.9626, 1.9686]), (3, [3.7103, 2.5114, 1.9930])],
)
def test_published_bounds_for_equal_looks(looks, published):
    assert bounds(look_levels([3 * k for k in range(1, looks + 1)], looks)) == pytest.approx(published, abs=1e-4)


@pytest.mark.parametrize("information", [[3], [3, 6], [2, 5, 6], [2, 3, 40]])
def test_all_planned_looks_together_spend_alpha_exactly(information):
    levels = look_levels(information, len(information))
    assert overall_error(levels, information) == pytest.approx(0.05, abs=1e-10)


@pytest.mark.parametrize("information", [[2, 4, 6], [2, 3, 10]])
def test_errors_hold_in_simulation(information):
    z = paths(information)
    levels = look_levels(information, 3)
    crossed = np.abs(z) > bounds(levels)
    for k in range(3):
        assert crossed[:, : k + 1].any(axis=1).mean() == pytest.approx(spent((k + 1) / 3), abs=0.0015)
    naive = (np.abs(z) > norm.isf(0.025)).any(axis=1).mean()
    assert overall_error([0.05] * 3, information) == pytest.approx(naive, abs=0.002)


def test_overall_error_is_the_normal_box():
    """Against scipy's multivariate normal, an integration that shares nothing with ours."""
    information, levels = np.array([2.0, 5.0, 9.0]), [0.01, 0.03, 0.04]
    correlation = np.sqrt(np.minimum.outer(information, information) / np.maximum.outer(information, information))
    box = multivariate_normal(cov=correlation, maxpts=10**6, abseps=1e-8)
    c = bounds(levels)
    assert overall_error(levels, list(information)) == pytest.approx(1 - box.cdf(c, lower_limit=-c, rng=3), abs=1e-6)


def test_a_study_that_looks_again_undeclared_has_no_alpha_left_and_pays_for_using_it():
    assert look_levels([3, 6, 9], 1) == [pytest.approx(0.05), 0.0, 0.0]
    assert overall_error([0.05, 0.0, 0.0], [3, 6, 9]) == pytest.approx(0.05)
    assert 0.08 < overall_error([0.05, 0.05], [3, 6]) < 0.09
    assert 0.10 < overall_error([0.05, 0.05, 0.05], [3, 6, 9]) < 0.12


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=3, max_size=3, unique=True).map(sorted), st.integers(2, 3))
def test_a_look_depends_on_no_later_one_and_costs_more_than_it_leaves(information, planned):
    levels = look_levels(information[:planned], planned)
    assert look_levels(information[:1], planned) == levels[:1]
    assert 0 < levels[0] < spent(1 / planned) + 1e-12
    assert all(0 < level < 0.05 for level in levels)
    # One look alone errs least, all of them without adjustment at most as often as independent looks.
    assert 0.05 < overall_error([0.05] * 3, information) < 1 - 0.95**3


def test_what_is_refused():
    with pytest.raises(ValueError, match="more seeds"):
        look_levels([3, 3], 2)
    with pytest.raises(ValueError, match="1 to 3 looks"):
        look_levels([1, 2, 3, 4], 3)
    with pytest.raises(ValueError, match="1 to 3 looks"):
        overall_error([0.01] * 4, [1, 2, 3, 4])


def test_intervals_of_an_unadjusted_look_are_the_usual_ones():
    assert interval_levels(0.05) == (0.95, pytest.approx(0.90))
