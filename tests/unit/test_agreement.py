"""Agreement of two sets of contrasts: tau against scipy, invariances, and how often its interval holds the truth."""

from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from retain_core.stats.agreement import FEWEST_METHODS, agreement, contrast_tau, kendall_tau_b


def contrasts(drops):
    return np.array([a - b for a, b in combinations(drops, 2)])


def pairs(count):
    return list(combinations([f"m{i}" for i in range(count)], 2))


@pytest.mark.parametrize("draw", range(20))
def test_tau_b_is_that_of_scipy_with_and_without_ties(draw):
    rng = np.random.default_rng(draw)
    x, y = rng.normal(size=15), rng.normal(size=15)
    for a, b in ((x, y), (x, x + y), (x.round(), y.round()), (x.round(), x)):
        assert kendall_tau_b(a, b) == pytest.approx(scipy.stats.kendalltau(a, b).statistic)
    both = [np.concatenate([v, -v]) for v in (x, y)]
    assert contrast_tau(x, y) == pytest.approx(scipy.stats.kendalltau(*both).statistic)


def test_what_does_not_vary_has_no_tau():
    assert np.isnan(kendall_tau_b([1, 1, 1], [1, 2, 3]))
    said = agreement(pairs(6), np.zeros(15), np.arange(15.0))
    assert (said.signs_held, said.rule) == (0, "no interval: all contrasts are equal")
    assert np.isnan([said.tau, said.low]).all()


def test_the_order_in_which_a_pair_stands_does_not_matter():
    rng = np.random.default_rng(1)
    x, y = contrasts(rng.normal(size=7)), contrasts(rng.normal(size=7))
    turned = np.where(rng.random(len(x)) < 0.5, 1, -1)
    named = [(a, b) if t > 0 else (b, a) for (a, b), t in zip(pairs(7), turned, strict=True)]
    assert agreement(named, turned * x, turned * y) == agreement(pairs(7), x, y)


def test_agreement_is_symmetric_and_blind_to_scale():
    rng = np.random.default_rng(2)
    x, y = contrasts(rng.normal(size=6)), contrasts(rng.normal(size=6))
    said = agreement(pairs(6), x, y)
    assert agreement(pairs(6), y, 100 * x) == said
    against = agreement(pairs(6), x, -y)
    assert (against.tau, against.low, against.high) == pytest.approx((-said.tau, -said.high, -said.low))
    assert against.signs_held == 15 - said.signs_held


def test_the_same_contrasts_agree_wholly_and_the_interval_still_says_how_few_methods_there_are():
    x = contrasts([0, 1, 3, 7, 15, 31])
    said = agreement(pairs(6), x, x**3)
    assert (said.pairs, said.methods, said.signs_held, said.tau, said.high) == (15, 6, 15, 1.0, 1.0)
    assert 0.5 < said.low < 0.95
    assert agreement(pairs(6), x, -x).tau == -1.0


def test_too_few_methods_give_tau_without_an_interval():
    x = contrasts([0, 1, 3, 7])
    said = agreement(pairs(4), x, x)
    assert (said.tau, said.rule) == (1.0, f"no interval: 4 methods, at least {FEWEST_METHODS} are needed")
    assert np.isnan(said.low)
    assert np.isnan(agreement([], [], []).tau)


def test_series_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="3 pairs, 2 predicted and 3 found"):
        agreement(pairs(3), [1, 2], [1, 2, 3])


DRAWS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape),
    "two kinds of methods": lambda rng, shape: (3.0 * rng.integers(0, 2, shape) + rng.normal(size=shape)) / 1.8,
}
"""Drops of methods with variance 1."""


def drawn(kind, share, methods, rng):
    """Drops at both sizes. `share` of the larger's is the smaller's; the rest is what size, bases and seeds do to it."""
    x = DRAWS[kind](rng, methods)
    return x, share * x + np.sqrt(1 - share**2) * rng.normal(size=methods)


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("share", [0.0, 0.8, 0.99])
@pytest.mark.parametrize("methods", [FEWEST_METHODS, 6, 10])
def test_the_interval_holds_the_tau_of_all_methods_that_might_have_been_drawn(kind, share, methods):
    rng = np.random.default_rng(4)
    truth = np.mean([contrast_tau(*map(contrasts, drawn(kind, share, 24, rng))) for _ in range(60)])
    said = [agreement(pairs(methods), *map(contrasts, drawn(kind, share, methods, rng))) for _ in range(200)]
    assert np.mean([s.low <= truth <= s.high for s in said]) >= 0.92


def test_methods_share_pairs_so_that_resampled_pairs_would_be_too_narrow():
    """The obvious interval, a bootstrap of pairs as if they were independent, misses the truth often."""
    rng = np.random.default_rng(5)
    held = []
    for _ in range(150):
        x, y = map(contrasts, drawn("normal", 0.0, 6, rng))
        taus = [contrast_tau(x[k], y[k]) for k in rng.integers(15, size=(100, 15))]
        held.append(np.quantile(taus, 0.025) <= 0 <= np.quantile(taus, 0.975))
    assert np.mean(held) < 0.85
