"""Guessing, simulated: the bounds hold under the model they come from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retain_core.stats.chance import chance_corrected_drop, known_share, null_lost_rates

N = 400_000
ERROR = 0.004  # five standard errors of a rate over N items, at most


def answers(known: np.ndarray, k: int, draw: np.random.Generator) -> np.ndarray:
    """Right where known, else guessed."""
    return known | (draw.integers(k, size=known.size) == 0)


@pytest.mark.parametrize("k", [2, 4, 6])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_guesser_who_forgets_nothing_stays_within_the_bounds(k, share):
    draw = np.random.default_rng(k)
    known = draw.random(N) < share
    base, again = answers(known, k, draw), answers(known, k, draw)
    low, high = null_lost_rates(base.mean(), k)
    assert known_share(base.mean(), k) == pytest.approx(share, abs=3 * ERROR)
    assert np.mean(base & ~again) == pytest.approx(high, abs=ERROR)
    assert low == np.mean(base & ~base)
    half = np.where(draw.random(N) < 0.5, base, again)  # some guesses persist, some do not
    assert low < np.mean(base & ~half) < high


@pytest.mark.parametrize("k", [2, 4, 6])
@pytest.mark.parametrize("persist", [True, False])
def test_the_corrected_drop_is_the_share_forgotten(k, persist):
    """Also where guesses persist: what was known and is forgotten must be guessed anew."""
    draw = np.random.default_rng(10 * k + persist)
    known = draw.random(N) < 0.7
    kept = known & (draw.random(N) < 0.8)
    luck = draw.integers(k, size=N) == 0
    base = known | luck
    after = kept | luck if persist else answers(kept, k, draw)
    corrected = chance_corrected_drop(base.mean() - after.mean(), k)
    assert corrected == pytest.approx(np.mean(known) - np.mean(kept), abs=2 * ERROR)


@pytest.mark.parametrize("k", [2, 4])
def test_a_base_below_chance_knows_nothing_and_its_redrawn_answers_flip_less(k):
    draw = np.random.default_rng(1)
    accuracy = 0.6 / k
    base, again = draw.random((2, N)) < accuracy
    assert known_share(accuracy, k) == 0
    assert np.mean(base & ~again) <= null_lost_rates(accuracy, k)[1] == pytest.approx((k - 1) / k**2)


@given(st.floats(0, 1), st.integers(2, 100), st.floats(-1, 1))
def test_shares_are_shares_and_the_correction_is_odd_and_only_widens(accuracy, k, drop):
    low, high = null_lost_rates(accuracy, k)
    assert 0 <= known_share(accuracy, k) <= 1
    assert low == 0 <= high <= 0.25
    assert chance_corrected_drop(-drop, k) == -chance_corrected_drop(drop, k)
    assert abs(chance_corrected_drop(drop, k)) >= abs(drop)


def test_all_known_and_just_chance():
    assert known_share([0.25, 1.0], 4).tolist() == [0.0, 1.0]
    assert null_lost_rates([0.25, 1.0], 4)[1].tolist() == [3 / 16, 0.0]
    with pytest.raises(ValueError, match="two choices"):
        known_share(0.5, [4, 1])
