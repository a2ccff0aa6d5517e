"""Planning: detectable drops against statsmodels, type S and M against published figures and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from statsmodels.stats.power import TTestPower

from retain_core.stats.crossed import components
from retain_core.stats.power import (
    LossView,
    Pilot,
    can_see_loss,
    detectable_from_interval,
    detection_power,
    pilot_of,
    planned_df,
    planned_stderr,
    seeds_to_verdict,
    smallest_detectable_drop,
    type_s_m,
)

PILOT = Pilot(item=0.10, seed=0.03**2, residual=0.08, n=2000)


@pytest.mark.parametrize("n", [3, 5, 20, 200, 2000])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_detectable_drop_agrees_with_statsmodels(n, power):
    theirs = TTestPower().solve_power(nobs=n, alpha=0.05, power=power)
    assert smallest_detectable_drop(1 / math.sqrt(n), n - 1, power) == pytest.approx(theirs, rel=5e-5)


@settings(deadline=None)
@given(st.floats(0.5, 1e4), st.floats(0.1, 0.99), st.floats(0.01, 0.2))
def test_the_detectable_drop_is_found_with_the_power_asked_for(df, power, alpha):
    if power <= 2 * alpha:
        return
    found = smallest_detectable_drop(0.01, df, power, alpha)
    assert detection_power(found, 0.01, df, alpha) == pytest.approx(power, abs=1e-6)
    assert smallest_detectable_drop(0.02, df, power, alpha) == pytest.approx(2 * found)


@pytest.mark.parametrize("df", [1, 4, math.inf])
def test_without_an_effect_alpha_is_found(df):
    assert detection_power(0.0, 1.0, df, 0.05) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("effect", "stderr", "power", "type_s", "type_m"),
    [(0.1, 3.28, 0.0501, 0.4644, 77), (2.0, 8.1, 0.0570, 0.2396, 9.55)],
)
def test_the_published_examples_of_gelman_and_carlin(effect, stderr, power, type_s, type_m):
    found = type_s_m(effect, stderr)
    assert found.power == pytest.approx(power, abs=1e-4)
    assert found.type_s == pytest.approx(type_s, abs=1e-4)
    assert found.type_m == pytest.approx(type_m, rel=0.01)


@pytest.mark.parametrize("df", [4, 30, math.inf])
@pytest.mark.parametrize("shift", [0.5, 1.5, 3.0])
def test_type_s_and_m_agree_with_simulation(shift, df):
    draw = np.random.default_rng(3)
    noise = draw.normal(size=1_000_000) if math.isinf(df) else draw.standard_t(df, size=1_000_000)
    limit = np.quantile(np.abs(noise), 0.95)
    estimates = shift + noise
    significant = estimates[np.abs(estimates) > limit]
    found = type_s_m(shift * 0.01, 0.01, df)
    assert found.power == pytest.approx(significant.size / estimates.size, abs=0.003)
    assert found.type_s == pytest.approx(np.mean(significant < 0), abs=0.006)
    assert found.type_m == pytest.approx(np.mean(np.abs(significant)) / shift, rel=0.02)


@given(st.floats(0.01, 8), st.floats(1.5, 100))
def test_errors_fall_as_the_effect_rises(shift, df):
    small, large = type_s_m(shift, 1.0, df), type_s_m(1.5 * shift, 1.0, df)
    assert large.power > small.power
    assert large.type_s < small.type_s < 0.5
    assert 1 <= large.type_m <= small.type_m
    assert small.type_m > large.type_m or small.power > 1 - 1e-9
    assert type_s_m(-shift, 1.0, df) == small


def test_no_effect_and_no_mean():
    none = type_s_m(0.0, 1.0, 10)
    assert (none.power, none.type_s, none.type_m) == (pytest.approx(0.05), pytest.approx(0.5), math.inf)
    assert type_s_m(1.0, 1.0, 1).type_m == math.inf


def table(seeds: int, n: int = 400) -> np.ndarray:
    draw = np.random.default_rng(seeds)
    return draw.normal(size=(n, 1)) + 0.3 * draw.normal(size=(1, seeds)) + 0.7 * draw.normal(size=(n, seeds))


@pytest.mark.parametrize("seeds", [2, 5])
def test_the_plan_for_the_pilots_own_size_is_its_standard_error(seeds):
    """V of measurement 2, from the mean squares of a table."""
    found = components(table(seeds))
    variance = (found.ms_items + found.ms_seeds - found.ms_residual) / (found.n * seeds)
    assert planned_stderr(pilot_of(found), seeds) == pytest.approx(math.sqrt(variance))


def test_planned_degrees_of_freedom_are_those_of_the_moderated_interval():
    found, d0, s = components(table(3)), 4, 3
    v = (found.ms_items + found.ms_seeds - found.ms_residual) / (found.n * s)
    n1 = found.n - 1
    df = (found.n * s * v) ** 2 / (
        found.ms_items**2 / n1 + found.ms_seeds**2 / (d0 + s - 1) + found.ms_residual**2 / (n1 * (s - 1))
    )
    assert planned_df(pilot_of(found), s, arms=6) == pytest.approx(df)


def test_a_simulated_study_finds_the_planned_drop_as_often_as_planned():
    """Few arms: seed effects dominate, t on seed means is right, and the plan must come close to it."""
    pilot, seeds, draw = Pilot(item=0.0, seed=0.02**2, residual=0.1, n=500), 5, np.random.default_rng(1)
    stderr, df = planned_stderr(pilot, seeds), planned_df(pilot, seeds)
    drop = smallest_detectable_drop(stderr, df)
    means = drop + draw.normal(scale=math.sqrt(pilot.seed + pilot.residual / pilot.n), size=(20_000, seeds))
    t = means.mean(axis=1) / (means.std(axis=1, ddof=1) / math.sqrt(seeds))
    assert df == pytest.approx(seeds - 1)
    assert np.mean(t > 2.776) == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize("arms", [1, 8])
def test_the_number_of_seeds_is_the_smallest_that_suffices(arms):
    def detectable(seeds: int) -> float:
        return smallest_detectable_drop(planned_stderr(PILOT, seeds), planned_df(PILOT, seeds, arms))

    seeds = seeds_to_verdict(PILOT, 0.04, arms)
    assert seeds is not None
    assert detectable(seeds) <= 0.04 < detectable(seeds - 1)
    assert seeds_to_verdict(PILOT, 0.05, arms) <= seeds
    # 2.8 standard errors of the items alone are 2 points of drop: no number of seeds goes below that.
    assert smallest_detectable_drop(math.sqrt(PILOT.item / PILOT.n), PILOT.n - 1) == pytest.approx(0.0198, abs=1e-4)
    assert seeds_to_verdict(PILOT, 0.0195, arms) is None
    assert seeds_to_verdict(PILOT, 0.04, arms, most=seeds - 1) is None


def test_more_arms_and_more_seeds_never_hurt():
    few = [planned_df(PILOT, s, arms=1) for s in (2, 3, 5, 20)]
    many = [planned_df(PILOT, s, arms=8) for s in (2, 3, 5, 20)]
    assert few == sorted(few)
    assert all(a < b for a, b in zip(few, many, strict=True))
    errors = [planned_stderr(PILOT, s) for s in (1, 2, 3, 5, 20)]
    assert errors == sorted(errors, reverse=True)


def test_a_study_that_does_not_vary_finds_anything():
    still = Pilot(0.0, 0.0, 0.0, 100)
    assert smallest_detectable_drop(planned_stderr(still, 2), planned_df(still, 2)) == 0.0
    assert seeds_to_verdict(still, 0.02) == 2


def test_one_seed_says_nothing_of_seeds():
    with pytest.raises(ValueError, match="at least 2 seeds"):
        pilot_of(components(table(1)))


@pytest.mark.parametrize(
    ("base", "chance", "n", "clusters", "view"),
    [
        (0.99, 0.25, 1000, None, LossView.YES),
        (0.60, 0.25, 1000, 20, LossView.YES),
        (0.60, 0.25, 1000, 19, LossView.FEW_CLUSTERS),
        (0.60, 0.25, 49, None, LossView.FEW_ITEMS),
        (0.60, 0.25, 50, None, LossView.YES),
        (0.26, 0.25, 100_000, None, LossView.NEAR_CHANCE),
        (0.35, 0.25, 60, None, LossView.NEAR_CHANCE),
        (0.20, 0.25, 1000, None, LossView.NEAR_CHANCE),
        (0.01, 0.0, 1000, None, LossView.NEAR_CHANCE),
        (0.05, 0.0, 1000, None, LossView.YES),
    ],
)
def test_whether_a_benchmark_can_show_a_loss(base, chance, n, clusters, view):
    assert can_see_loss(base, chance, n, clusters) is view


@pytest.mark.parametrize(("stderr", "df"), [(0.01, 3.0), (0.02, 12.5), (0.004, 400.0)])
def test_what_a_t_interval_detects_is_read_from_its_width(stderr, df):
    half = stderr * float(student.ppf(0.975, df))
    assert detectable_from_interval(half, stderr) == pytest.approx(smallest_detectable_drop(stderr, df), rel=1e-3)
    assert detectable_from_interval(1.5 * half, stderr) > 1.5 * half > 0
    assert detectable_from_interval(0.0, 0.0) == 0.0
