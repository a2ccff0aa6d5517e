"""Intervals over items and seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.anova import anova_lm

from retain_core.stats import crossed
from retain_core.stats.crossed import Components, components, contrast_interval, drop_interval, mean_drop_interval


def table(items: int, seeds: int, seed: int = 0, seed_sd: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.1 + rng.normal(0, 1, (items, 1)) + rng.normal(0, seed_sd, (1, seeds)) + rng.normal(0, 0.5, (items, seeds))


def pool(arms: int, items: int = 40, seeds: int = 3) -> list[Components]:
    return [components(table(items, seeds, seed=100 + arm)) for arm in range(arms)]


# --- components ---------------------------------------------------------------------------------------


def test_mean_squares_worked_by_hand() -> None:
    # three items, two seeds: row means 0, 1, 2; column means 0.5, 1.5; residuals 1/2, 0, -1/2 and their opposites
    found = components([[0, 0], [0.5, 1.5], [1, 3]])
    assert (found.n, found.seeds, found.mean) == (3, 2, 1.0)
    assert found.ms_items == pytest.approx(2 * 2 / 2)
    assert found.ms_seeds == pytest.approx(3 * 0.5 / 1)
    assert found.ms_residual == pytest.approx(1.0 / 2)
    assert (found.df_items, found.df_residual) == (2, 2)
    assert found.seed_variance == pytest.approx((1.5 - 0.5) / 3)


def test_mean_squares_are_those_of_statsmodels() -> None:
    values = table(30, 4)
    frame = pd.DataFrame({"d": values.ravel(), "item": np.repeat(np.arange(30), 4), "seed": np.tile(np.arange(4), 30)})
    theirs = anova_lm(smf.ols("d ~ C(item) + C(seed)", frame).fit())["mean_sq"]
    ours = components(values)
    assert [ours.ms_items, ours.ms_seeds, ours.ms_residual] == pytest.approx(list(theirs))


@pytest.mark.filterwarnings("ignore")
def test_variance_components_are_those_of_a_mixed_model() -> None:
    # in a balanced design with components above 0, REML and the analysis of variance agree
    values = table(40, 4, seed=3)
    frame = pd.DataFrame({"d": values.ravel(), "item": np.repeat(np.arange(40), 4), "seed": np.tile(np.arange(4), 40)})
    model = smf.mixedlm(
        "d ~ 1", frame, groups=np.ones(len(frame)), vc_formula={"item": "0 + C(item)", "seed": "0 + C(seed)"}
    ).fit()
    ours = components(values)
    assert model.fe_params["Intercept"] == pytest.approx(ours.mean)
    assert model.vcomp == pytest.approx([(ours.ms_items - ours.ms_residual) / 4, ours.seed_variance], rel=1e-2)
    assert model.scale == pytest.approx(ours.ms_residual, rel=1e-2)


def test_one_seed_has_no_seed_variance() -> None:
    values = table(30, 1)
    found = components(values)
    assert found.ms_items == pytest.approx(values.var(ddof=1))
    assert np.isnan([found.ms_seeds, found.ms_residual]).all()


# --- units ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 7), min_size=2, max_size=60), st.integers(1, 4), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_clusters_of_any_size_keep_every_seed_mean(labels: list[int], seeds: int, seed: int) -> None:
    values = table(len(labels), seeds, seed=seed)
    units = crossed.as_units(values, labels)
    assert units.shape == (len(set(labels)), seeds)
    assert units.mean(axis=0) == pytest.approx(values.mean(axis=0))


def test_a_cluster_per_item_changes_nothing() -> None:
    values = table(25, 3)
    alone, clustered = drop_interval(values), drop_interval(values, clusters=np.arange(25)[::-1])
    assert (clustered.low, clustered.high, clustered.n) == pytest.approx((alone.low, alone.high, 25))


def test_equal_clusters_are_their_means() -> None:
    values = table(60, 3)
    units = crossed.as_units(values, np.repeat(np.arange(20), 3))
    assert units == pytest.approx(values.reshape(20, 3, 3).mean(axis=1))


def test_a_seed_effect_alone_is_no_residual_even_in_unequal_clusters() -> None:
    values = np.tile([0.1, 0.2, 0.6], (90, 1))
    found = components(values, [*range(20), *[20] * 70])
    assert found.ms_residual == pytest.approx(0, abs=1e-20)
    assert found.ms_items == pytest.approx(0, abs=1e-20)


def test_copies_of_items_in_clusters_do_not_narrow_the_interval() -> None:
    values = table(30, 3)
    copied = drop_interval(np.repeat(values, 5, axis=0), clusters=np.repeat(np.arange(30), 5))
    once = drop_interval(values)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))


def test_under_twenty_clusters_there_is_no_interval() -> None:
    refused = drop_interval(table(190, 3), pool(7), np.arange(190) % 19)
    assert np.isnan([refused.low, refused.high, refused.p_value()]).all()
    assert refused.estimate == pytest.approx(table(190, 3).mean())
    assert "19 clusters" in refused.rule
    assert np.isnan(refused.at(0.9).low)
    a, b = [table(190, 3)], [table(190, 3, seed=1)]
    assert np.isnan(contrast_interval(a, b, clusters=[np.arange(190) % 19]).low)
    assert np.isfinite(drop_interval(table(200, 3), pool(7), np.arange(200) % 20).low)


# --- one arm --------------------------------------------------------------------------------------------


def test_one_seed_is_the_paired_t_interval_over_items() -> None:
    values = table(30, 1)
    found = drop_interval(values, pool(7))
    theirs = stats.ttest_1samp(values[:, 0], 0)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval()))
    assert found.p_value() == pytest.approx(theirs.pvalue)
    assert (found.rule, found.seeds) == ("this seed only", 1)


def test_moderated_interval_worked_by_hand() -> None:
    # MS items 2, seeds 1.5, residual .5; n 3, S 2; the other arms' mean square is 2.5
    others = [Components(3, 2, 0.0, 2.0, ms, 0.5, 2, 2) for ms in (1.5, 2.0, 2.5, 3.0, 3.5)]
    found = drop_interval([[0, 0], [0.5, 1.5], [1, 3]], others)
    moderated = (4 * 2.5 + 1 * 1.5) / 5
    variance = (2 + moderated - 0.5) / 6
    df = (6 * variance) ** 2 / (2**2 / 2 + moderated**2 / 5 + 0.5**2 / 2)
    assert found.stderr == pytest.approx(variance**0.5)
    assert found.df == pytest.approx(df)
    assert found.high - found.estimate == pytest.approx(stats.t.ppf(0.975, df) * variance**0.5)
    assert found.rule == "over seeds, moderated"
    assert found.p_value() == pytest.approx(2 * stats.t.sf(1 / variance**0.5, df))


def test_few_arms_give_the_per_component_form() -> None:
    found = drop_interval([[0, 0], [0.5, 1.5], [1, 3]], pool(4))
    half = (stats.t.ppf(0.975, 2) ** 2 * (2 - 0.5) / 6 + stats.t.ppf(0.975, 1) ** 2 * 1.5 / 6) ** 0.5
    assert found.high - found.estimate == pytest.approx(half)
    assert found.rule == "over seeds, per component"
    assert found.at(1 - found.p_value()).low == pytest.approx(0)


def test_arms_of_one_seed_are_no_help_to_pool() -> None:
    lone = [components(table(40, 1, seed=s)) for s in range(9)]
    assert drop_interval(table(40, 3), [*lone, *pool(4)]).rule == crossed.PER_COMPONENT
    assert drop_interval(table(40, 3), [*lone, *pool(5)]) == drop_interval(table(40, 3), pool(5))


def test_pooling_takes_other_arms_to_this_arms_items_and_residual() -> None:
    # the same seed variance, .02, seen on 100 items and on 400 with another residual
    own = Components(100, 3, 0.0, 1.0, 2.25, 0.25, 99, 198)
    other = Components(400, 3, 0.0, 1.0, 8.10, 0.10, 399, 798)
    assert crossed.moderated_ms_seeds(own, [other]) == pytest.approx(own.ms_seeds)


def test_seed_variance_never_narrows_the_interval_below_items_only() -> None:
    calm = [Components(40, 3, 0.0, 1.0, 0.0, 0.25, 39, 78)] * 6
    values = table(40, 3, seed_sd=0.0)
    over_items = drop_interval(values.mean(axis=1, keepdims=True))
    found = drop_interval(values, calm)
    assert found.stderr >= over_items.stderr * (1 - 1e-12)


def test_seeds_that_agree_by_chance_do_not_narrow_the_interval_of_few_arms() -> None:
    values = table(40, 2)
    values -= values.mean(axis=0)  # equal seed means, though items within seeds are noisy
    found, fixed = drop_interval(values), drop_interval(values.mean(axis=1, keepdims=True))
    assert (found.low, found.high) == pytest.approx((fixed.low, fixed.high))
    assert found.stderr == pytest.approx(fixed.stderr)


def test_order_of_items_and_seeds_does_not_matter() -> None:
    values, rng = table(40, 4), np.random.default_rng(1)
    found = drop_interval(values, pool(7))
    shuffled = drop_interval(rng.permutation(rng.permutation(values, axis=0), axis=1), pool(7)[::-1])
    assert (shuffled.low, shuffled.high, shuffled.df) == pytest.approx((found.low, found.high, found.df))


def test_no_variance_is_a_point_not_a_nan() -> None:
    for others in ((), [Components(30, 2, 0.0, 0, 0, 0, 29, 29)] * 6):
        found = drop_interval(np.full((30, 2), 0.25), others)
        assert (found.low, found.high, found.p_value()) == (0.25, 0.25, 0.0)
        assert drop_interval(np.zeros((30, 2)), others).p_value() == 1.0
        assert np.isfinite(found.df)


def test_a_missing_score_is_an_error() -> None:
    values = table(30, 3)
    values[4, 1] = np.nan
    with pytest.raises(ValueError, match="every seed must have answered every item"):
        drop_interval(values)
    with pytest.raises(ValueError, match="29 cluster labels for 30 items"):
        drop_interval(table(30, 3), clusters=[0] * 29)
    with pytest.raises(ValueError, match="at least two items"):
        drop_interval([[0.1, 0.2]])


def test_a_lower_level_is_a_narrower_interval() -> None:
    for others in ((), pool(7)):
        wide = drop_interval(table(40, 3), others)
        narrow = wide.at(0.9)
        assert wide.low < narrow.low < narrow.estimate < narrow.high < wide.high
        assert narrow == drop_interval(table(40, 3), others, level=0.9)


def test_similar_arms_and_edges() -> None:
    arms = [Components(9, 2, mean, 1, 1, 1, 8, 8) for mean in (-0.02, 0.02, 0.1, 0.29, 0.4)]
    assert [arm.mean for arm in crossed.similar(0.02, arms)] == [-0.02, 0.02]
    assert [arm.mean for arm in crossed.similar(0.3, arms)] == [0.29, 0.4]
    assert [crossed.near_edge(score) for score in (0.0, 0.04, 0.5, 0.97)] == [True, True, False, True]


# --- several benchmarks -----------------------------------------------------------------------------------


def test_benchmarks_share_seeds_and_not_items() -> None:
    first, second = table(40, 3), table(60, 3, seed=5)
    found = crossed.mean_components([first, second])
    one, two = components(first), components(second)
    means = (first.mean(axis=0) + second.mean(axis=0)) / 2
    assert found.mean == pytest.approx(means.mean())
    assert found.ms_seeds / found.n == pytest.approx(means.var(ddof=1))
    assert found.ms_items / found.n == pytest.approx((one.ms_items / 40 + two.ms_items / 60) / 4)
    assert found.ms_residual / found.n == pytest.approx((one.ms_residual / 40 + two.ms_residual / 60) / 4)
    assert 39 < found.df_items <= 98


def test_variance_of_a_mean_over_benchmarks_is_the_written_formula() -> None:
    tables = [table(40, 3), table(60, 3, seed=5), table(25, 3, seed=6)]
    means = np.mean([t.mean(axis=0) for t in tables], axis=0)
    parts = [components(t) for t in tables]
    items = sum((part.ms_items - part.ms_residual) / (part.n * 3) for part in parts) / 9
    found = mean_drop_interval(tables, [crossed.mean_components(tables)] * 6)  # moderated towards itself
    assert found.stderr**2 == pytest.approx(means.var(ddof=1) / 3 + items)


def test_a_benchmark_taken_twice_is_narrower_only_in_its_items() -> None:
    tables = [table(40, 3, seed_sd=0.0), table(40, 3, seed=5, seed_sd=0.0)]
    with_seeds = [t + np.array([-1.0, 0.0, 1.0]) for t in tables]
    found = mean_drop_interval(with_seeds)
    assert found.parts[1][0] > 0.9 / 3  # the seeds' variance, 1, is not halved by a second benchmark


def test_benchmarks_must_have_the_same_seeds() -> None:
    with pytest.raises(ValueError, match="different numbers of seeds"):
        mean_drop_interval([table(30, 2), table(30, 3)])


# --- contrasts --------------------------------------------------------------------------------------------


def scores(seed: int, seeds: int = 3, items: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).random((items, seeds))


@pytest.mark.parametrize("others", [(), pool(7)])
def test_swapping_the_methods_turns_the_sign(others: list[Components]) -> None:
    a, b = [scores(1), scores(2)], [scores(3, seeds=2), scores(4, seeds=2)]
    forth, back = contrast_interval(a, b, others), contrast_interval(b, a, others)
    assert (forth.estimate, forth.low, forth.high) == pytest.approx((-back.estimate, -back.high, -back.low))
    assert (forth.df, forth.stderr, forth.p_value()) == pytest.approx((back.df, back.stderr, back.p_value()))
    assert forth.estimate == pytest.approx(np.mean([y.mean() - x.mean() for x, y in zip(a, b, strict=True)]))


def test_the_base_cancels_in_a_contrast() -> None:
    base, a, b = scores(9, seeds=1), scores(1), scores(2)
    from_drops = contrast_interval([-(base - a)], [-(base - b)])
    assert from_drops.low == pytest.approx(contrast_interval([a], [b]).low)
    drops, raw = components(base - a), components(a)
    assert (drops.ms_seeds, drops.ms_residual) == pytest.approx((raw.ms_seeds, raw.ms_residual))


def test_shared_item_difficulty_does_not_widen_a_contrast() -> None:
    hard = 10 * scores(5, seeds=1)
    assert contrast_interval([scores(1) + hard], [scores(2) + hard]).stderr == pytest.approx(
        contrast_interval([scores(1)], [scores(2)]).stderr
    )


def test_contrast_worked_by_hand() -> None:
    # a is the table worked above; b has seeds 1 and 3 on every item: its seed mean square is 3 * 2, its residual 0
    a, b = np.array([[0, 0], [0.5, 1.5], [1, 3]]), np.array([[1.0, 3.0], [1.0, 3.0], [1.0, 3.0]])
    found = contrast_interval([a], [b])
    items = np.var([2, 1, 0], ddof=1) / 3
    apart = items - 0.5 / 6 - 0
    half2 = stats.t.ppf(0.975, 2) ** 2 * apart + stats.t.ppf(0.975, 1) ** 2 * (1.5 / 6 + 3 * 2 / 6)
    assert found.estimate == pytest.approx(1)
    assert found.high - 1 == pytest.approx(half2**0.5)


def test_paired_seeds_are_one_table_of_differences() -> None:
    a, b = scores(1), scores(2)
    paired = contrast_interval([a], [b], paired_seeds=True)
    alone = drop_interval(b - a)
    assert (paired.low, paired.high) == (alone.low, alone.high)
    with pytest.raises(ValueError, match="equal tables"):
        contrast_interval([a], [scores(3, seeds=2)], paired_seeds=True)


def test_a_seed_effect_common_to_pairs_goes_only_when_they_are_paired() -> None:
    effect = np.array([[-5.0, 0.0, 5.0]])
    a, b = scores(1) + effect, scores(2) + effect
    assert contrast_interval([a], [b], paired_seeds=True).stderr < 0.2 < contrast_interval([a], [b]).stderr


def test_one_seed_on_either_side_speaks_for_these_seeds_only() -> None:
    a, b = scores(1, seeds=1), scores(2, seeds=1)
    found = contrast_interval([a], [b], pool(7))
    theirs = stats.ttest_rel(b[:, 0], a[:, 0])
    assert found.rule == "these seeds only"
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval()))
    assert contrast_interval([a], [scores(2)], pool(7)).rule == "these seeds only"


def test_a_contrast_needs_the_same_items() -> None:
    with pytest.raises(ValueError, match="the same items"):
        contrast_interval([scores(1)], [scores(2, items=39)])


def test_each_side_is_moderated_by_its_own_arms() -> None:
    calm = [Components(40, 3, 0.0, 1.0, 0.08, 0.08, 39, 78)] * 6
    wild = [Components(40, 3, 0.0, 1.0, 9.0, 0.08, 39, 78)] * 6
    a, b = [scores(1)], [scores(2)]
    widths = [contrast_interval(a, b, *pools).stderr for pools in ((calm, calm), (calm, wild), (wild, wild))]
    assert widths[0] < widths[1] < widths[2]
