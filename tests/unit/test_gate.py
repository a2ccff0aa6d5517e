"""The gate's decision: how often it errs, what it does at the ends, and what it agrees with."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, multinomial

from retain_core.compare.runs import Comparison, Row, mean_drop
from retain_core.errors import InputError
from retain_core.gate.decide import EXIT_CODES, decide
from retain_core.gate.text import as_json, sentence, told
from retain_core.imported.samples import Run
from retain_core.stats.noninferior import largest_drop
from retain_core.stats.paired import degrees_of_freedom, paired_interval, standard_error

NOBODY = Run("base", "base", ())
ORDER = ["REJECT", "INCONCLUSIVE", "ALLOW"]


def row(lost: int, gained: int, n: int, name: str = "sums") -> Row:
    """A benchmark of 0/1 answers, as `retain compare` has it."""
    drop, flips = (lost - gained) / n, lost + gained
    stderr = float(standard_error(n, flips - n * drop**2, math.nan, math.nan))
    df = float(degrees_of_freedom(n, math.nan))
    low, high = map(float, paired_interval(drop, stderr, df))
    return Row(
        benchmark=name, metric="acc", role="mean", unit="fraction", n=n, clusters=None, score_a=0.8, score_b=0.8 - drop,
        drop=drop, ci_low=low, ci_high=high, lost=lost, gained=gained, p_value=1.0, p_holm=1.0, detectable=None, choices=None,
        drop_chance_corrected=None, stderr=stderr, df=df,
    )  # fmt: skip


def compared(*rows: Row) -> Comparison:
    return Comparison(NOBODY, Run("model", "model", ()), rows, mean_drop(rows) if len(rows) > 1 else None, (), ())


def word(*rows: Row, margin: float = 0.02) -> str:
    return decide(compared(*rows), margin).word


def rate(which: str, n: int, lost: float, gained: float, margin: float = 0.02) -> float:
    """How often one benchmark gives a word: exact, from the probabilities of all counts of flips that are not rare."""
    far = [int(binom.ppf(1 - 1e-5, n, p)) for p in (lost, gained)]
    total = 0.0
    for a in range(far[0] + 1):
        for b in range(min(far[1], n - a) + 1):
            weight = multinomial.pmf([a, b, n - a - b], n, [lost, gained, 1 - lost - gained])
            if weight > 1e-7 and word(row(a, b, n), margin=margin) == which:
                total += weight
    return total


@pytest.mark.parametrize("flips", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("n", [10, 50, 200])
def test_a_model_that_lost_nothing_is_rejected_in_at_most_one_case_in_forty(n, flips):
    assert rate("REJECT", n, flips / 2, flips / 2) < 0.027


@pytest.mark.parametrize("gained", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("n", [20, 134, 150, 200, 400])
def test_a_loss_of_the_margin_is_allowed_in_at_most_7_percent(n, gained):
    """Under t intervals alone it would be one in four, where flips are few."""
    assert rate("ALLOW", n, 0.02 + gained, gained) < 0.07
    if (n, gained) == (134, 0.0):
        by_t = sum(binom.pmf(lost, n, 0.02) for lost in range(5) if paired_end(lost, n) < 0.02)
        assert by_t > 0.2


def paired_end(lost: int, n: int) -> float:
    found = row(lost, 0, n)
    return float(paired_interval(found.drop, found.stderr, found.df, 0.9)[1])


@pytest.mark.parametrize("sizes", [(200, 200, 200), (60, 500, 150, 300)])
def test_errors_over_several_benchmarks(sizes):
    draw = np.random.default_rng(5)
    times = 400

    def rate_of(which, lost, gained):
        found = [
            word(*(row(*map(int, draw.multinomial(n, [lost, gained, 1 - lost - gained])[:2]), n) for n in sizes))
            for _ in range(times)
        ]
        return found.count(which) / times

    assert rate_of("REJECT", 0.05, 0.05) < 0.025 + 3 * math.sqrt(0.025 / times)
    assert rate_of("ALLOW", 0.025, 0.005) < 0.05 + 3 * math.sqrt(0.05 / times)
    assert rate_of("REJECT", 0.15, 0.05) > 0.95


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(45, 400)), min_size=1, max_size=4), st.data())
def test_a_larger_margin_never_makes_it_worse(counts, data):
    rows = [row(*count, name=str(i)) for i, count in enumerate(counts)]
    small, large = sorted(data.draw(st.tuples(*[st.floats(0.001, 0.5)] * 2)))
    assert ORDER.index(word(*rows, margin=small)) <= ORDER.index(word(*rows, margin=large))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(45, 400))
def test_one_more_item_lost_never_makes_it_better(lost, gained, n):
    assert ORDER.index(word(row(lost + 1, gained, n))) <= ORDER.index(word(row(lost, gained, n)))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(45, 400)), min_size=1, max_size=4))
def test_the_bounds_are_never_inside_the_printed_interval(counts):
    """The interval itself is that of `retain compare`; bounds are its ends, or further out where flips are few."""
    rows = [row(*count, name=str(i)) for i, count in enumerate(counts)]
    found = decide(compared(*rows), 0.02)
    by_compare = compared(*rows).mean or rows[0]
    told = [by_compare.drop, by_compare.ci_low, by_compare.ci_high]
    assert [found.mean.drop, found.mean.ci_low, found.mean.ci_high] == pytest.approx(told, rel=1e-9, abs=1e-12)
    assert found.at_least <= found.mean.ci_low + 1e-12
    assert found.at_most >= float(paired_interval(found.mean.drop, found.mean.stderr, found.mean.df, 0.9)[1]) - 1e-12


@pytest.mark.parametrize("n", [1, 5, 30, 5000])
def test_the_same_answers_are_never_rejected_and_allowed_when_there_are_enough(n):
    assert word(row(0, 0, n)) == ("ALLOW" if n > 150 else "INCONCLUSIVE")


def test_planted_harm_is_rejected_and_a_gain_allowed():
    assert word(row(60, 5, 400)) == "REJECT"
    assert word(row(5, 60, 400)) == "ALLOW"
    assert word(row(2, 2, 2000)) == "ALLOW"
    assert word(row(40, 30, 400)) == "INCONCLUSIVE"


def test_a_loss_that_is_sure_but_below_the_margin_is_allowed_and_said():
    found = decide(compared(row(60, 20, 20000)), 0.02)
    assert found.word == "ALLOW"
    assert "which is a loss" in sentence(found)


def test_a_benchmark_that_the_mean_hides_is_named():
    bad = replace(row(40, 0, 300, "facts"), p_holm=1e-6)
    found = decide(compared(bad, *(row(1, 1, 5000, f"other{i}") for i in range(11))), 0.02)
    assert found.word == "ALLOW"
    assert [r.benchmark for r in found.harmed] == ["facts"]
    assert "by themselves, beyond chance (Holm): facts +13.3" in told(found, "table")


def test_an_interval_that_is_refused_decides_nothing():
    few = replace(row(30, 0, 60), clusters=6, ci_low=None, ci_high=None, stderr=None, p_value=None)
    found = decide(compared(few, row(1, 1, 5000)), 0.02)
    assert (found.word, found.at_most, found.detectable) == ("INCONCLUSIVE", None, None)
    assert "What to do: the notes say" in told(found, "table")
    assert as_json(found)["ci_low"] is None


@pytest.mark.parametrize("margin", [0.0, -0.02, 1.0, math.nan])
def test_a_margin_that_decides_nothing_is_refused(margin):
    with pytest.raises(InputError, match="decides nothing"):
        decide(compared(row(1, 1, 50)), margin)


def test_without_a_benchmark_of_the_mean_nothing_is_decided():
    with pytest.raises(InputError, match="nothing to decide on"):
        decide(compared(replace(row(1, 1, 50), role="beside")), 0.02)


@pytest.mark.parametrize(("lost", "gained", "n"), [(0, 0, 48), (2, 2, 100), (9, 8, 120), (15, 15, 200)])
def test_so_many_times_the_items_allow_a_model_that_lost_nothing_4_times_in_5(lost, gained, n):
    found = decide(compared(row(lost, gained, n)), 0.02)
    assert found.word == "INCONCLUSIVE"
    many, share = round(n * found.times), (lost + gained) / n / 2
    draw = np.random.default_rng(3)
    drawn = [draw.multinomial(many, [share, share, 1 - 2 * share])[:2] for _ in range(400)]
    allowed = sum(word(row(int(a), int(b), many)) == "ALLOW" for a, b in drawn) / 400
    assert allowed > 0.73
    assert allowed < 0.9 or not share


def test_the_score_bound_is_the_published_one():
    """Airway hyper-responsiveness of 21 children: 1 against 7 changed; Tango's 95 % interval is [-0.517, -0.026]."""
    assert largest_drop(1, 7, 21, 0.975) == pytest.approx(-0.026, abs=5e-4)
    assert -largest_drop(7, 1, 21, 0.975) == pytest.approx(-0.517, abs=5e-4)


def test_the_score_bound_at_its_ends():
    assert largest_drop(10, 0, 10) == 1
    assert largest_drop(0, 0, 1000) == pytest.approx(1.645**2 / 1000, rel=0.01)
    assert largest_drop(0, 10, 10) < 0


def test_exit_codes_differ_from_each_other_and_from_failure():
    assert len({0, *EXIT_CODES.values()} | {1, 2}) == 5
    assert EXIT_CODES["ALLOW"] == 0
