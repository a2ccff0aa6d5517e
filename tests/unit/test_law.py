"""The KL law: agreement with least squares done by others, and what must not change it."""

from __future__ import annotations

import time

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from retain_core.stats.law import LawRow, kl_law, quadratic_r2

CHECKPOINTS, RUNS, METHODS = 4, 30, 6


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def study(noise: float = 0.005, seed: int = 0) -> dict:
    """Checkpoints whose drop is a quadratic of KL; gain follows KL loosely, the rest is unrelated."""
    draw = rng(seed)
    run = np.repeat(np.arange(RUNS), CHECKPOINTS)
    kl = draw.gamma(2.0, 0.1, run.size)
    predictors = {
        "gain": kl + draw.normal(scale=0.1, size=run.size),
        "step x learning rate": draw.random(run.size),
        "weight distance": draw.random(run.size),
        "unrelated": draw.random(run.size),
    }
    drop = 0.02 + 0.1 * kl + 0.3 * kl**2 + draw.normal(scale=noise, size=run.size)
    return {"kl": kl, "drop": drop, "runs": run, "methods": run % METHODS, "predictors": predictors}


def by_hand(x, y, groups) -> tuple[float, float]:
    design = np.column_stack([np.ones_like(x), x, x**2])
    predicted = np.empty_like(y)
    for group in np.unique(groups):
        mine = groups == group
        predicted[mine] = design[mine] @ np.linalg.lstsq(design[~mine], y[~mine])[0]
    return sm.OLS(y, design).fit().rsquared, 1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.integers(3, 7))
def test_agrees_with_statsmodels_and_with_fits_done_one_by_one(seed, scale, groups):
    draw = rng(seed)
    x = draw.gamma(2.0, scale, 60)
    y = draw.normal(size=60) + x / scale
    group = np.arange(60) % groups
    inside, outside = quadratic_r2(x, y, group)
    assert (inside, outside) == (
        pytest.approx(by_hand(x, y, group)[0], abs=1e-9),
        pytest.approx(by_hand(x, y, group)[1], rel=1e-6),
    )
    assert outside <= inside


def test_a_method_with_a_hundred_times_the_kl_is_predicted_as_well_as_least_squares_can():
    draw = rng(4)
    kl = draw.gamma(2.0, 0.01, 60) * np.where(np.arange(60) % 3 == 0, 100, 1)
    drop = 0.05 * kl + draw.normal(scale=1e-4, size=60)
    assert quadratic_r2(kl, drop, np.arange(60) % 3) == pytest.approx(by_hand(kl, drop, np.arange(60) % 3), rel=1e-6)


def test_a_noiseless_law_is_found_and_beats_the_rest():
    law, *others = kl_law(**study(noise=0.0), rng=rng(), resamples=200)
    assert law.name == "kl"
    assert [law.r2_in, law.r2_left_out, law.low, law.high] == pytest.approx([1.0] * 4, abs=1e-9)
    assert law.beats_all_trivial is True
    assert [row.name for row in others] == ["gain", "step x learning rate", "weight distance", "unrelated"]
    assert all(row.kl_better == 1.0 and row.beats_all_trivial is None for row in others)
    assert (law.n_checkpoints, law.n_runs, law.n_methods) == (120, 30, 6)


def test_a_predictor_as_good_as_kl_denies_the_claim():
    data = study()
    data["predictors"]["gain"] = 3 * data["kl"] + 1
    law, gain, *_ = kl_law(**data, rng=rng(), resamples=200)
    assert gain.r2_left_out == pytest.approx(law.r2_left_out)
    assert law.beats_all_trivial is False


def test_noise_predicts_nothing_outside_its_sample():
    unrelated = kl_law(**study(), rng=rng(), resamples=200)[-1]
    assert unrelated.r2_in > 0 > unrelated.r2_left_out
    assert unrelated.low < 0


def test_a_law_that_holds_within_methods_only_fails_with_one_left_out():
    data = study(noise=0.001)
    data["drop"] = data["drop"] + 0.3 * (data["methods"] == 0)
    law = kl_law(**data, rng=rng(), resamples=200)[0]
    assert law.r2_left_out < law.r2_in < 0.8


def test_order_names_and_units_do_not_matter():
    data = study()
    order = rng(3).permutation(len(data["kl"]))
    changed = {
        "kl": 1000 * data["kl"][order],
        "drop": 100 * data["drop"][order],
        "runs": np.array([f"arm-{r:03d}" for r in data["runs"]])[order],
        "methods": np.array([f"method {m}" for m in data["methods"]])[order],
        "predictors": {name: np.asarray(x)[order] for name, x in data["predictors"].items()},
    }
    for ours, theirs in zip(kl_law(**data, rng=rng(), resamples=50), kl_law(**changed, rng=rng(), resamples=50), strict=True):
        figures = [[r.r2_in, r.r2_left_out, r.low, r.high] for r in (ours, theirs)]
        assert figures[0] == pytest.approx(figures[1], rel=1e-6, abs=1e-9)


def test_checkpoints_of_one_run_are_no_independent_evidence():
    """Writing every checkpoint down four times leaves the interval as it was; as runs of their own they narrow it."""
    data = study(noise=0.03)
    four = {k: np.tile(v, 4) for k, v in data.items() if k != "predictors"}
    once = kl_law(**data | {"predictors": {}}, rng=rng(), resamples=1000)[0]
    same_runs = kl_law(**four, predictors={}, rng=rng(), resamples=1000)[0]
    own_runs = kl_law(**four | {"runs": np.arange(4 * 120)}, predictors={}, rng=rng(), resamples=1000)[0]
    assert (same_runs.low, same_runs.high) == pytest.approx((once.low, once.high))
    assert own_runs.high - own_runs.low < 0.8 * (once.high - once.low)


def test_the_interval_resamples_runs():
    """Against resamples built row by row."""
    data, draw = study(noise=0.03), rng(5)
    law = kl_law(**data | {"predictors": {}}, rng=rng(1), resamples=2000)[0]
    naive = []
    for _ in range(300):
        rows = np.concatenate([np.flatnonzero(data["runs"] == r) for r in draw.integers(RUNS, size=RUNS)])
        naive.append(by_hand(data["kl"][rows], data["drop"][rows], data["methods"][rows])[1])
    assert (law.low, law.high) == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])), abs=0.06)


def test_missing_figures_leave_the_same_checkpoints_to_all():
    data = study()
    data["predictors"]["gain"][:2] = np.nan
    data["kl"][3] = np.nan
    kept = np.r_[2, 4:120]
    rows = kl_law(**data, rng=rng(), resamples=20)
    assert {row.n_checkpoints for row in rows} == {117}
    assert rows[0].r2_in == pytest.approx(by_hand(data["kl"][kept], data["drop"][kept], data["methods"][kept])[0])


def nothing(row: LawRow) -> bool:
    return bool(np.isnan([row.r2_in, row.r2_left_out, row.low, row.high]).all()) and row.beats_all_trivial is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"methods": np.arange(120) // 4 % 2}, "2 methods"),
        ({"runs": np.arange(120) % 5}, "5 runs"),
        ({"drop": np.zeros(120)}, "the drop does not vary"),
        ({"drop": np.full(120, np.nan)}, "0 methods"),
    ],
)
def test_too_little_to_fit_gives_a_reason_and_no_figure(change, reason):
    rows = kl_law(**study() | change, rng=rng(), resamples=20)
    assert all(nothing(row) and reason in row.reason for row in rows)


def test_a_predictor_that_does_not_vary_is_no_rival():
    law, still = kl_law(**study() | {"predictors": {"step": np.ones(120)}}, rng=rng(), resamples=50)
    assert nothing(still)
    assert "does not vary" in still.reason
    assert law.beats_all_trivial is True


def test_two_thousand_resamples_take_less_than_a_second():
    data = study()
    started = time.process_time()
    kl_law(**data, rng=rng(), resamples=2000)
    assert time.process_time() - started < 1.0
