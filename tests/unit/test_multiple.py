"""Adjusted p-values against statsmodels, with and without gaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from retain_core.stats.multiple import benjamini_hochberg, holm

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=30)
both = pytest.mark.parametrize(("ours", "theirs"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])


@both
@settings(max_examples=25, deadline=None)  # statsmodels collects garbage in every call
@given(p=p_values)
def test_agrees_with_statsmodels(ours, theirs, p):
    assert ours(p) == pytest.approx(multipletests(p, method=theirs)[1], abs=1e-12)


@both
@given(p=p_values, data=st.data())
def test_missing_p_values_are_not_counted(ours, theirs, p, data):
    places = data.draw(st.lists(st.integers(0, len(p)), max_size=5))
    gapped = np.insert(np.array(p), places, np.nan)
    adjusted = ours(gapped)
    assert np.array_equal(np.isnan(adjusted), np.isnan(gapped))
    assert np.array_equal(adjusted[~np.isnan(gapped)], ours(p))


@given(p=p_values)
def test_adjusting_never_makes_a_finding_stronger_and_keeps_the_order(p):
    for adjusted in (holm(p), benjamini_hochberg(p)):
        assert (adjusted >= p).all()
        assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert (holm(p) >= benjamini_hochberg(p) - 1e-15).all()


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_one_none_and_nothing_known(adjust):
    assert adjust([0.03]).tolist() == [0.03]
    assert adjust([]).tolist() == []
    assert np.isnan(adjust([np.nan, np.nan])).all()
