"""One word a contrast: the order of the words, and what must not change them."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retain_core.stats.verdict import Matching, Prediction, Word, robust, verdict

numbers = st.floats(-0.2, 0.2)


@st.composite
def contrasts(draw):
    """Everything a verdict reads; the 90 % interval lies within the 95 % one."""
    a, b, c, d = sorted(draw(st.lists(numbers, min_size=4, max_size=4)))
    return {
        "controls_passed": draw(st.sampled_from([True, True, True, False, None])),
        "matching": draw(st.sampled_from(["reached", "reached", *get_args(Matching)])),
        "interval_95": (a, d),
        "interval_90": (b, c),
        "predict": draw(st.sampled_from(get_args(Prediction))),
        "margin": draw(st.floats(0, 0.1)),
    }


def words_that_hold(c) -> list[str]:
    """All the words whose own condition holds, each written down by itself, in the order of the definition."""
    (low, high), (inner_low, inner_high), margin = c["interval_95"], c["interval_90"], c["margin"]
    above, below = low > 0, high < 0
    conditions = {
        "withheld": c["controls_passed"] is not True,
        "not reached": c["matching"] == "not reached",
        "too noisy": c["matching"] == "too noisy",
        "equivalent": max(abs(inner_low), abs(inner_high)) < margin,
        "supported": above if c["predict"] == ">" else below,
        "reversed": below if c["predict"] == ">" else above,
        "inconclusive": True,
    }
    return [word for word, holds in conditions.items() if holds]


@given(contrasts())
def test_exactly_one_word_and_it_is_the_first_that_holds(contrast):
    assert verdict(**contrast) == words_that_hold(contrast)[0]


def test_the_order_of_the_words_is_that_of_the_definition():
    assert list(get_args(Word)) == [
        "withheld", "not reached", "too noisy", "equivalent", "supported", "reversed", "inconclusive",
    ]  # fmt: skip


@given(contrasts())
def test_exchanging_the_two_methods_and_the_prediction_changes_nothing(contrast):
    mirrored = contrast | {
        "interval_95": tuple(-x for x in reversed(contrast["interval_95"])),
        "interval_90": tuple(-x for x in reversed(contrast["interval_90"])),
        "predict": "<" if contrast["predict"] == ">" else ">",
    }
    assert verdict(**mirrored) == verdict(**contrast)


@given(contrasts())
def test_the_other_prediction_exchanges_supported_and_reversed_only(contrast):
    other = contrast | {"predict": "<" if contrast["predict"] == ">" else ">"}
    exchanged = {"supported": "reversed", "reversed": "supported"}
    word = verdict(**contrast)
    assert verdict(**other) == exchanged.get(word, word)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "supported"),
        ({"controls_passed": None}, "withheld"),
        ({"controls_passed": False, "matching": "not reached"}, "withheld"),
        ({"matching": "too noisy"}, "too noisy"),
        ({"predict": "<"}, "reversed"),
        ({"margin": 0.09}, "equivalent"),
        ({"margin": 0.07}, "supported"),
        ({"interval_95": (0.0, 0.09)}, "inconclusive"),
        ({"interval_95": (math.nan, math.nan), "interval_90": (math.nan, math.nan)}, "inconclusive"),
    ],
)
def test_words_of_one_contrast(changed, word):
    contrast = {
        "controls_passed": True, "matching": "reached", "interval_95": (0.03, 0.09), "interval_90": (0.04, 0.07),
        "predict": ">", "margin": 0.02,
    }  # fmt: skip
    assert verdict(**contrast | changed) == word


@given(st.lists(numbers, min_size=2, max_size=8))
def test_robust_is_about_every_benchmark_and_about_sign_only(drops):
    estimate, left = float(np.mean(drops)), [float(np.mean(np.delete(drops, i))) for i in range(len(drops))]
    assert robust(estimate, left) == (estimate != 0 and all((x > 0) == (estimate > 0) and x != 0 for x in left))
    assert robust(-estimate, [-x for x in left]) == robust(estimate, left)


def test_what_cannot_be_robust():
    assert robust(0.1, [0.05, 0.2])
    assert not robust(0.1, [0.05, -0.01])
    assert not robust(0.1, [0.1])
    assert not robust(0.1, [])
    assert not robust(0.0, [0.0, 0.0])
    assert not robust(math.nan, [0.1, 0.1])
    assert not robust(0.1, [math.nan, 0.1])
