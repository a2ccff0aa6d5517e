"""The base as a random level: the same study on several bases."""

import json

import numpy as np
import pytest
import scipy.stats

from retain_core.stats.crossed import over_bases
from retain_core.warehouse.analyse import store_over_bases
from retain_core.warehouse.load import connect
from tests.synthetic import put

PRIMARY = {"contrast": ["a", "b"], "predict": ">", "margin": 0.02}


@pytest.fixture
def con(tmp_path):
    with connect(tmp_path / "warehouse.duckdb") as con:
        yield con


def add(con, name, seed, diff, verdict="inconclusive", **more):
    spec = {"study": name, "base": {"model": "lab/tiny", "seed": seed}, "seeds": [0, 1], "primary": PRIMARY, **more}
    put(con, "studies", [{"study": name, "revision": 1, "spec": json.dumps(spec), "is_current": True}])
    shared = {"study": name, "a": "a", "b": "b", "learning_rate_a": 1e-4 * seed, "diff": diff}
    put(con, "contrasts", [{**shared, "at": "gain=0.1", "primary": True, "verdict": verdict}])
    cell = {"study": name, "method": "a", "learning_rate": 1e-4, "quantity": "drop", "estimate": diff and 2 * diff}
    put(con, "intervals", [cell])


def figures(con):
    store_over_bases(con)
    names = [r[0] for r in con.execute("SELECT column_name FROM (DESCRIBE over_bases)").fetchall()]
    return [dict(zip(names, row, strict=True)) for row in con.execute("FROM over_bases ORDER BY ALL").fetchall()]


def test_studies_that_differ_in_the_draw_of_the_base_make_one_figure_with_the_t_interval(con):
    diffs = [0.05, 0.08, 0.03]
    for seed, diff in enumerate(diffs, start=1):
        add(con, f"s{seed}", seed, diff)
    contrast, drop = figures(con)
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(diffs), scipy.stats.sem(diffs))
    assert (contrast["bases"], contrast["studies"], contrast["df"]) == (3, ["s1", "s2", "s3"], 2)
    assert (contrast["estimate"], contrast["ci_low"], contrast["ci_high"]) == pytest.approx((np.mean(diffs), low, high))
    assert contrast["verdict"] == ("supported" if low > 0 else "inconclusive")
    assert (drop["quantity"], drop["estimate"]) == ("drop", pytest.approx(2 * np.mean(diffs)))


def test_one_base_keeps_its_own_word_and_has_no_interval(con):
    add(con, "s1", 1, 0.05, "supported")
    contrast, _ = figures(con)
    assert (contrast["bases"], contrast["ci_low"], contrast["rule"]) == (1, None, "conditional on this base")
    assert contrast["verdict"] == "supported"


def test_studies_that_differ_in_anything_else_stay_apart(con):
    add(con, "s1", 1, 0.05)
    add(con, "s2", 2, 0.06, seeds=[0, 1, 2])
    assert {f["bases"] for f in figures(con)} == {1}


def test_a_base_whose_controls_failed_withholds_the_verdict_over_bases(con):
    add(con, "s1", 1, 0.05)
    add(con, "s2", 2, 0.05, "withheld")
    assert figures(con)[0]["verdict"] == "withheld"


def test_a_contrast_that_one_base_did_not_reach_is_not_reached_over_bases(con):
    add(con, "s1", 1, 0.05, "supported")
    add(con, "s2", 2, None, "not reached")
    (contrast,) = [f for f in figures(con) if f["quantity"] == "contrast"]
    assert (contrast["estimate"], contrast["verdict"], contrast["rule"]) == (None, "not reached", "not reached")


def test_the_interval_over_bases_holds_the_mean_over_all_bases_as_often_as_it_says():
    rng = np.random.default_rng(3)
    drawn = [over_bases(rng.normal(0.05, 0.02, 4)) for _ in range(2000)]
    assert np.mean([i.low <= 0.05 <= i.high for i in drawn]) == pytest.approx(0.95, abs=0.015)


def test_a_family_says_its_name_size_and_target(con):
    add(con, "wide-tiny-s1-countdown", 1, 0.05, target="countdown")
    add(con, "wide-tiny-s0-countdown", 0, 0.05, target="countdown")
    add(con, "wide-tiny-s0-other", 0, 0.05, target="other")
    named = [(f["name"], f["size"], f["target"], f["bases"]) for f in figures(con) if f["quantity"] == "contrast"]
    assert sorted(named) == [("wide", "lab/tiny", "countdown", 2), ("wide", "lab/tiny", "other", 1)]


def test_the_same_base_under_two_names_is_one_draw(con):
    add(con, "s0", 0, 0.05)
    add(con, "s0-again", 0, 0.05)
    assert {f["bases"] for f in figures(con)} == {1}
