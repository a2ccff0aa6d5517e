"""Drop at matched gain."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from retain_core.stats import matched
from retain_core.stats.crossed import components, contrast_interval, drop_interval
from retain_core.stats.matched import Curve, crossing, drop_at, drop_at_matched, matched_contrast

STEPS = (0, 1, 2, 4)


def curve(
    gains: Sequence[float] = (0, 0.05, 0.1, 0.2),
    drops: Sequence[float] = (0, 0.01, 0.03, 0.1),
    seeds: int = 3,
    items: int = 60,
    noise: float = 0.02,
    seed: int = 0,
    benchmarks: int = 2,
    **clusters: object,
) -> Curve:
    """A curve whose means over items are exact for every seed and step."""
    rng = np.random.default_rng(seed)

    def scattered(means: Sequence[float]) -> np.ndarray:
        values = rng.normal(0, noise, (seeds, len(STEPS), items))
        values[:, 0] = 0
        return values - values.mean(axis=2, keepdims=True) + np.asarray(means)[:, None]

    return Curve(STEPS, scattered(gains), [scattered(drops) for _ in range(benchmarks)], **clusters)


# --- the fit --------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
@settings(max_examples=60, deadline=None)
def test_isotonic_fit_is_that_of_scipy(values: list[float]) -> None:
    assert matched.isotonic(values) == pytest.approx(isotonic_regression(values).x, abs=1e-12)


def test_many_fits_at_once_are_the_same_fits() -> None:
    many = np.random.default_rng(0).normal(size=(5, 4, 6))
    assert np.array_equal(matched.isotonic(many)[3, 2], matched.isotonic(many[3, 2]))
    found = drop_at(many[0], many[1], 0.1)
    assert found.shape == (4,)
    assert found[2] == pytest.approx(float(drop_at(many[0, 2], many[1, 2], 0.1)), nan_ok=True)


def test_interpolation_worked_by_hand() -> None:
    # 3/4 of the way from gain .05 to gain .09: drop .02 + 3/4 * .04
    assert drop_at([0, 0.05, 0.09, 0.2], [0, 0.02, 0.06, 0.1], 0.08) == pytest.approx(0.05)
    # below the first checkpoint: between the base and it
    assert drop_at([0, 0.05], [0, 0.02], 0.01) == pytest.approx(0.004)


def test_a_fall_in_gain_is_pooled_with_its_drops() -> None:
    # .10 and .06 become .08 twice, with drop (.02 + .06) / 2
    assert drop_at([0, 0.10, 0.06, 0.2], [0, 0.02, 0.06, 0.1], 0.08) == pytest.approx(0.04)
    assert drop_at([0, 0.10, 0.06, 0.2], [0, 0.02, 0.06, 0.1], 0.04) == pytest.approx(0.02)


def test_ties_are_one_knot() -> None:
    axis, drop = [0, 0.1, 0.1, 0.2], [0, 0.02, 0.04, 0.1]
    assert drop_at(axis, drop, 0.1) == pytest.approx(0.03)
    assert drop_at(axis, drop, 0.1 - 1e-9) == pytest.approx(0.03, abs=1e-6)
    assert drop_at(axis, drop, 0.1 + 1e-9) == pytest.approx(0.03, abs=1e-6)


def test_a_value_that_is_not_reached_is_nan() -> None:
    assert np.isnan(drop_at([0, 0.05, 0.09], [0, 0.02, 0.06], 0.1))
    assert drop_at([0, 0.05, 0.09], [0, 0.02, 0.06], 0.09) == pytest.approx(0.06)


def test_where_the_curve_crosses() -> None:
    found = crossing(curve(), 0.15)
    assert found is not None
    assert (found.drop, found.step, found.slope) == pytest.approx((0.065, 3.0, 0.7))
    assert found.weights == pytest.approx([0, 0, 0.5, 0.5])
    with pytest.raises(ValueError, match="above 0"):
        crossing(curve(), 0.0)


# --- seeds are never left out -----------------------------------------------------------------------------


def test_a_seed_that_does_not_reach_the_gain_counts() -> None:
    slow, fast = (
        curve((0, 0.01, 0.02, 0.04), (0, 0, 0, 0), seeds=1),
        curve((0, 0.09, 0.18, 0.36), (0, 0.02, 0.06, 0.2), seeds=1),
    )
    both = Curve(STEPS, np.concatenate([slow.axis, fast.axis]), [np.concatenate([slow.drops[0], fast.drops[0]])])
    found = crossing(both, 0.1)  # mean gains 0, .05, .1, .2; mean drops 0, .01, .03, .1
    assert found is not None
    assert found.drop == pytest.approx(0.03)


# --- what is not read off ---------------------------------------------------------------------------------


def test_not_reached_is_said_and_nothing_else() -> None:
    found = drop_at_matched(curve(), 0.25)
    assert found.interval.rule == "not reached"
    assert np.isnan([found.interval.estimate, found.interval.low, found.stderr, found.step]).all()
    assert found.largest == pytest.approx(0.2)
    assert matched.matched_components(curve(), 0.25) is None


def test_a_noisy_gain_is_said_and_nothing_else() -> None:
    # standard error of the mean over three seeds and the two halves of the step: about .1 / sqrt(60 * 6)
    quiet, loud = drop_at_matched(curve(noise=0.1), 0.075), drop_at_matched(curve(noise=0.4), 0.075)
    assert quiet.stderr < 0.01 < loud.stderr
    assert np.isfinite(quiet.interval.low)
    assert loud.interval.rule == "gain too noisy"
    assert np.isnan(loud.interval.estimate)


def test_a_gain_near_the_largest_is_too_noisy() -> None:
    assert np.isfinite(drop_at_matched(curve(), 0.16).interval.low)
    assert drop_at_matched(curve(), 0.161).interval.rule == "gain too noisy"


def test_a_contrast_takes_the_worse_word_of_its_two_sides() -> None:
    good, low, loud = curve(), curve((0, 0.02, 0.05, 0.08)), curve(noise=0.4)
    assert matched_contrast(good, low, 0.15).rule == "not reached"
    assert matched_contrast(low, loud, 0.15).rule == "not reached"
    assert matched_contrast(loud, good, 0.15).rule == "gain too noisy"
    assert matched_contrast(good, low, 0.07).rule == "gain too noisy"  # above .8 x the smaller largest gain
    assert np.isfinite(matched_contrast(good, low, 0.06).low)


def test_under_twenty_clusters_nothing_is_read_off() -> None:
    few = curve(axis_clusters=np.arange(60) % 19)
    assert "19 clusters" in drop_at_matched(few, 0.1).interval.rule
    assert "19 clusters" in matched_contrast(few, curve(), 0.1).rule
    enough = curve(axis_clusters=np.arange(60) % 20, drop_clusters=[None, np.arange(60) % 30])
    assert np.isfinite(drop_at_matched(enough, 0.1).interval.low)
    assert drop_at_matched(enough, 0.1).interval.n == 20 + 60 + 30


# --- intervals --------------------------------------------------------------------------------------------


def test_at_a_checkpoint_with_equal_gains_it_is_the_plain_interval() -> None:
    # every item gains the same and drop does not depend on gain, so only the drops at the third step matter
    flat = curve(drops=(0, 0.03, 0.03, 0.03), benchmarks=1, noise=0.05)
    exact = Curve(STEPS, np.broadcast_to(np.array([0, 0.05, 0.1, 0.2])[None, :, None], (3, 4, 60)), flat.drops)
    plain = drop_interval(flat.drops[0][:, 2].T)
    found = drop_at_matched(exact, 0.1).interval
    assert (found.estimate, found.stderr) == pytest.approx((plain.estimate, plain.stderr))
    other = curve(drops=(0, 0.01, 0.01, 0.01), benchmarks=1, noise=0.05, seed=1)
    versus = matched_contrast(exact, Curve(STEPS, exact.axis, other.drops), 0.1)
    theirs = contrast_interval([-flat.drops[0][:, 2].T], [-other.drops[0][:, 2].T])
    assert (versus.estimate, versus.stderr) == pytest.approx((theirs.estimate, theirs.stderr))


def test_a_noisy_gain_widens_the_interval_by_the_slope() -> None:
    steep = curve(drops=(0, 0.05, 0.1, 0.2), benchmarks=1, noise=0.03)
    still = Curve(STEPS, np.broadcast_to(np.array([0, 0.05, 0.1, 0.2])[None, :, None], (3, 4, 60)), steep.drops)
    extra = drop_at_matched(steep, 0.1).interval.stderr ** 2 - drop_at_matched(still, 0.1).interval.stderr ** 2
    # slope 1 at the third step, and no seed variance in either: what is left is items with these seeds
    assert extra == pytest.approx(components(steep.axis[:, 2].T).ms_items / 180)


def test_seeds_that_move_along_the_curve_do_not_differ_at_equal_gain() -> None:
    pace = np.array([0.9, 1.0, 1.1])[:, None, None]
    gains = np.array([0, 0.05, 0.1, 0.2])[None, :, None] * pace * np.ones((3, 4, 60))
    found = drop_at_matched(Curve(STEPS, gains, [0.5 * gains]), 0.08).interval
    assert found.estimate == pytest.approx(0.04)
    assert found.stderr == pytest.approx(0, abs=1e-9)
    held = drop_at_matched(Curve(STEPS, gains / pace, [0.5 * gains]), 0.08).interval
    assert held.stderr == pytest.approx(0.004 / 3**0.5)


def test_swapping_the_methods_turns_the_sign() -> None:
    a, b = curve(), curve(drops=(0, 0.03, 0.06, 0.1), seed=1)
    forth, back = matched_contrast(a, b, 0.1), matched_contrast(b, a, 0.1)
    assert forth.estimate == pytest.approx(0.03 - 0.06)
    assert (forth.estimate, forth.low, forth.high) == pytest.approx((-back.estimate, -back.high, -back.low))
    assert matched_contrast(a, a, 0.1).estimate == 0


def test_order_of_items_and_seeds_does_not_matter() -> None:
    c, rng = curve(), np.random.default_rng(0)
    seeds, target, first = rng.permutation(3), rng.permutation(60), rng.permutation(60)
    other = Curve(STEPS, c.axis[seeds][:, :, target], [c.drops[0][seeds][:, :, first], c.drops[1][seeds]])
    ours, theirs = (drop_at_matched(x, 0.08).interval for x in (c, other))
    assert (ours.estimate, ours.low, ours.high) == pytest.approx((theirs.estimate, theirs.low, theirs.high))


def test_items_shared_by_two_methods_narrow_their_contrast() -> None:
    a = curve(noise=0.05)
    near = Curve(STEPS, a.axis, [d + 0.01 * (np.arange(4) > 0)[:, None] for d in a.drops])
    far = curve(noise=0.05, seed=7)
    assert matched_contrast(a, near, 0.08).stderr < matched_contrast(a, far, 0.08).stderr / 5


def test_other_arms_moderate_the_seed_part() -> None:
    others = [part for s in range(7) if (part := matched.matched_components(curve(seed=s), 0.08))]
    found = drop_at_matched(curve(), 0.08, others).interval
    assert (found.rule, len(others)) == ("over seeds, moderated", 7)
    assert drop_at_matched(curve(), 0.08, others[:4]).interval.rule == "over seeds, per component"
    assert others[0].mean == pytest.approx(drop_at_matched(curve(), 0.08).interval.estimate)


def test_one_seed_and_no_variance() -> None:
    assert drop_at_matched(curve(seeds=1), 0.08).interval.rule == "this seed only"
    assert matched_contrast(curve(seeds=1), curve(seeds=2), 0.08).rule == "these seeds only"
    point = drop_at_matched(curve(noise=0.0), 0.15).interval
    assert (point.low, point.high) == pytest.approx((0.065, 0.065))


def test_an_axis_without_items() -> None:
    distance = np.array([[0, 1.0, 2.0, 4.0], [0, 1.2, 2.2, 4.4], [0, 0.8, 1.8, 3.6]])
    a, b = curve(), curve(drops=(0, 0.02, 0.06, 0.2), seed=1)
    by_distance = [Curve(STEPS, distance, c.drops) for c in (a, b)]
    found = drop_at_matched(by_distance[0], 3.0)
    assert (found.interval.estimate, found.stderr) == pytest.approx((0.065, 0.0))
    # a seed that is .2 further on (of 1, 2 and 4 by .2, .2 and .4) counts as .3 x the slope less
    ahead = 0.035 * np.array([0, 0.3, -0.3])
    assert found.interval.parts[1][0] == pytest.approx(np.var(ahead, ddof=1) / 3)
    assert matched_contrast(*by_distance, 3.0).estimate == pytest.approx(0.065 - 0.13)


# --- the learning rate is chosen on one half and shown on the other ----------------------------------------


def test_learning_rate_is_chosen_on_one_half_and_shown_on_the_other() -> None:
    select = {1e-4: curve(drops=(0, 0.01, 0.02, 0.04)), 1e-3: curve(drops=(0, 0.02, 0.04, 0.08)), 1e-5: curve((0, 0, 0, 0.01))}
    report = {1e-4: curve(drops=(0, 0.03, 0.06, 0.12)), 1e-3: curve(drops=(0, 0, 0, 0)), 1e-5: curve((0, 0, 0, 0.01))}
    assert matched.choose_learning_rate(select, 0.1) == 1e-4
    found = matched.method_at_matched(select, report, 0.1)
    assert (found.learning_rate, found.interval.estimate) == (1e-4, pytest.approx(0.06))
    assert matched.choose_learning_rate({2.0: select[1e-4], 1.0: select[1e-4]}, 0.1) == 1.0


def test_no_learning_rate_reaches_it() -> None:
    low = {1e-5: curve((0, 0, 0, 0.01)), 1e-6: curve((0, 0, 0, 0.005))}
    found = matched.method_at_matched(low, low, 0.1)
    assert (found.interval.rule, found.learning_rate, found.largest) == ("not reached", None, pytest.approx(0.01))
    with pytest.raises(ValueError, match="same learning rates"):
        matched.method_at_matched(low, {1e-5: low[1e-5]}, 0.1)


# --- the rest -----------------------------------------------------------------------------------------------


def test_what_is_not_a_curve_is_refused() -> None:
    c = curve()
    holes = c.axis.copy()
    holes[1, 2, 3] = np.nan
    for match, steps, axis, drops in (
        ("rise from 0", (1, 2, 3, 4), c.axis, c.drops),
        ("rise from 0", (0, 2, 2, 4), c.axis, c.drops),
        ("3 seeds x 4 steps", STEPS, c.axis, [c.drops[0][:2]]),
        ("at least one retention benchmark", STEPS, c.axis, []),
        ("missing or not finite", STEPS, holes, c.drops),
    ):
        with pytest.raises(ValueError, match=match):
            Curve(steps, axis, drops)
    with pytest.raises(ValueError, match="the same items"):
        matched_contrast(c, curve(items=59), 0.1)


def test_pareto_front() -> None:
    assert matched.pareto_front([0.1, 0.3, 0.2, 0.3], [0.0, 0.1, 0.2, 0.05]) == [3, 0]
    assert matched.pareto_front([0.1, 0.1], [0.0, 0.0]) == [0, 1]
    assert matched.pareto_front([], []) == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_every_point_off_the_front_is_beaten_by_one_on_it(points: list[tuple[int, int]]) -> None:
    front = matched.pareto_front(*zip(*points, strict=True))
    assert front
    for i, (gain, drop) in enumerate(points):
        beaten = [j for j in front if points[j] != (gain, drop) and points[j][0] >= gain and points[j][1] <= drop]
        assert bool(beaten) == (i not in front)


def test_a_study_takes_no_time() -> None:
    rng = np.random.default_rng(0)
    big = Curve(
        (0, 1, 2, 4, 8),
        rng.normal([[[0], [0.05], [0.1], [0.2], [0.3]]], 0.05, (2, 5, 400)),
        [rng.normal(0, 0.5, (2, 5, 400))] * 5,
    )
    started = time.perf_counter()
    matched_contrast(big, big, 0.1)
    assert time.perf_counter() - started < 0.3
