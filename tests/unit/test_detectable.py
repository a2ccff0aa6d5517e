"""`retain plan` says what a study can find, from a pilot whose variances are known."""

import re

import duckdb
import numpy as np
import pytest

from retain_core.detectable import SEEDS_SHOWN, contrast_pilot, detectable_lines
from retain_core.stats.power import (
    Pilot,
    planned_df,
    planned_stderr,
    seeds_to_verdict,
    smallest_detectable_drop,
    type_s_m,
)
from retain_core.study import Study
from tests.synthetic import RATES, RETENTION, TARGET, Truth, fill, made_scores

METHODS = {"one": Truth(drop=0.05), "two": Truth(drop=0.15), "three": Truth(drop=0.1)}
PRIMARY = {"contrast": ["one", "two"], "predict": "<", "at": "last", "margin": 0.02}


def study(seeds=(0, 1, 2), primary=None) -> Study:
    return Study.model_validate({
        "study": "made", "base": "lab/smoke", "target": TARGET, "retention": list(RETENTION), "seeds": list(seeds),
        "methods": [{"label": m, "algorithm": "sft"} for m in METHODS], "learning_rates": list(RATES), "primary": primary,
    })  # fmt: skip


@pytest.fixture(scope="module")
def pilot_home(tmp_path_factory):
    scores = made_scores(METHODS, seed_sd=0.02, steps=(10, 20), n=120)
    path = tmp_path_factory.mktemp("pilot") / "warehouse.duckdb"
    fill(path, scores, analyse=False).close()
    return path, scores


def cell(scores, method, rate=RATES[-1]):
    return next(c for c in scores.cells if (c.method, c.learning_rate) == (method, rate))


def detectable(pilot: Pilot, seeds: int, arms: int = 6) -> str:
    return f"{100 * smallest_detectable_drop(planned_stderr(pilot, seeds), planned_df(pilot, seeds, arms)):.1f}"


def test_without_a_pilot_nothing_is_guessed(tmp_path):
    lines = detectable_lines(study(), tmp_path / "nothing.duckdb", None)
    assert lines == ["detectable drop: unknown without a pilot; run the study with two seeds, then plan it again"]
    one_seed = made_scores(METHODS, seeds=(0,), steps=(10, 20), n=40)
    fill(tmp_path / "one.duckdb", one_seed, analyse=False).close()
    assert detectable_lines(study(), tmp_path / "one.duckdb", None) == lines


def test_a_warehouse_of_another_version_is_no_pilot(pilot_home, tmp_path):
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE schema_version (version INTEGER)")
        con.execute("INSERT INTO schema_version VALUES (0)")
    assert "unknown without a pilot" in detectable_lines(study(), path, None)[0]
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE studies (study VARCHAR, is_current BOOLEAN)")
        con.execute("INSERT INTO studies VALUES ('made', true)")
    assert "unknown without a pilot" in detectable_lines(study(), path, None)[0]


def test_another_study_is_no_pilot(pilot_home):
    other = study().model_copy(update={"study": "other"})
    assert "unknown without a pilot" in detectable_lines(other, pilot_home[0], None)[0]


def test_the_pilots_variance_is_that_of_the_contrast_it_is_made_of(pilot_home):
    """At the pilot's own number of seeds: items of the differences of means, and each method's seeds."""
    scores = pilot_home[1]
    a, b = cell(scores, "one"), cell(scores, "two")
    pilot = contrast_pilot(scores, a, b)
    items = seeds = 0.0
    means = {c: np.mean([scores.of(q, c.last()).mean(axis=0) for q in scores.retention], axis=0) for c in (a, b)}
    residual = {a: 0.0, b: 0.0}
    for q in scores.retention:
        tables = {c: scores.of(q, c.last()) for c in (a, b)}
        if q.clusters is not None:
            labels = np.unique(q.clusters, return_inverse=True)[1]
            tables = {c: np.array([t[labels == k].mean(axis=0) for k in range(labels.max() + 1)]) for c, t in tables.items()}
        difference = tables[b].mean(axis=1) - tables[a].mean(axis=1)
        items += difference.var(ddof=1) / len(difference) / 25
        for c, t in tables.items():
            rest = t - t.mean(axis=0) - t.mean(axis=1, keepdims=True) + t.mean()
            residual[c] += (rest**2).sum() / (len(t) - 1) / 2 / len(t) / 25
    for c in (a, b):
        seeds += max(means[c].var(ddof=1) - residual[c], 0) / 3
    assert planned_stderr(pilot, 3) == pytest.approx(np.sqrt(items + seeds))


def test_a_pilot_of_many_seeds_finds_the_planted_seed_variance():
    scores = made_scores({"one": Truth(drop=0.1), "two": Truth(drop=0.1)}, seeds=range(60), steps=(10,), seed_sd=0.03, n=150)
    pilot = contrast_pilot(scores, cell(scores, "one"), cell(scores, "two"))
    assert np.sqrt(pilot.seed / 2) == pytest.approx(0.03, rel=0.25)
    still = made_scores({"one": Truth(drop=0.1), "two": Truth(drop=0.1)}, seeds=range(60), steps=(10,), n=150)
    assert np.sqrt(contrast_pilot(still, cell(still, "one"), cell(still, "two")).seed / 2) < 0.01


def test_the_lines_say_what_the_formulas_say(pilot_home):
    path, scores = pilot_home
    lines = detectable_lines(study(primary=PRIMARY), path, None)
    pilot = contrast_pilot(scores, cell(scores, "one"), cell(scores, "two"))
    assert "drop of one - drop of two" in lines[1]
    assert f"{detectable(pilot, 3)} points with 80 % power at 3 seeds" in lines[1]
    for n in SEEDS_SHOWN:
        assert (f"{n} seeds {detectable(pilot, n)}" in lines[1]) == (n != 3)
    worth = type_s_m(0.02, planned_stderr(pilot, 3), planned_df(pilot, 3, 6))
    told = [float(x) for x in re.findall(r"[\d.]+", lines[2])]
    assert told[:3] == [2, round(100 * worth.power), pytest.approx(100 * worth.type_s, abs=0.06)]
    assert told[3] == pytest.approx(worth.type_m, abs=0.006)


def test_it_is_the_highest_learning_rate_that_is_planned_for(pilot_home):
    path, scores = pilot_home
    lines = detectable_lines(study(primary=PRIMARY), path, None)
    low = contrast_pilot(scores, cell(scores, "one", RATES[0]), cell(scores, "two", RATES[0]))
    high = contrast_pilot(scores, cell(scores, "one"), cell(scores, "two"))
    assert detectable(low, 3) != detectable(high, 3)
    assert detectable(high, 3) in lines[1]


def test_without_a_declared_contrast_the_median_pair_stands_for_all(pilot_home):
    path, scores = pilot_home
    line = detectable_lines(study(), path, None)[1]
    assert "the contrast of two methods (the median pair)" in line
    told = float(re.search(r"pair\): ([\d.]+) points", line).group(1))
    all_pairs = [
        float(detectable(contrast_pilot(scores, a, b), 3)) for i, a in enumerate(scores.cells) for b in scores.cells[i + 1 :]
    ]
    assert min(all_pairs) < max(all_pairs)
    assert abs(np.median(all_pairs) - told) <= 0.2


def test_one_seed_has_no_interval_over_seeds_but_more_are_planned(pilot_home):
    lines = detectable_lines(study(seeds=(0,), primary=PRIMARY), pilot_home[0], None)
    pilot = contrast_pilot(pilot_home[1], cell(pilot_home[1], "one"), cell(pilot_home[1], "two"))
    assert lines[1].startswith("one seed gives no interval over seeds")
    assert all(f"{n} seeds {detectable(pilot, n)}" in lines[1] for n in SEEDS_SHOWN)


@pytest.mark.parametrize("margin", [0.001, 0.04, 0.5])
def test_what_a_verdict_costs(pilot_home, margin):
    path, scores = pilot_home
    declared = study(primary={**PRIMARY, "margin": margin})
    pilot = contrast_pilot(scores, cell(scores, "one"), cell(scores, "two"))
    needed = seeds_to_verdict(pilot, margin, 6)
    line = detectable_lines(declared, path, 100.0)[3]
    if needed is None:
        assert line.startswith("no number of seeds makes the margin detectable")
    elif needed <= 3:
        assert line == "the margin is detectable with the seeds that the study has"
    else:
        assert f"with {needed} seeds: `retain extend made --seeds {needed - 3}`, about {100 * (needed - 3):,} s" in line
    assert (needed is None, needed is not None and needed <= 3) == (margin == 0.001, margin == 0.5)


def test_benchmarks_that_cannot_show_a_loss_are_named(tmp_path):
    scores = made_scores(METHODS, steps=(10,), n=100)
    halved = np.arange(100) % 2.0
    scores.scores["safety", "acc"] = dict.fromkeys(scores.scores["safety", "acc"], halved)
    scores.scores["sorting", "acc"] = dict.fromkeys(scores.scores["sorting", "acc"], halved * 0)
    fill(tmp_path / "w.duckdb", scores, analyse=False).close()
    with duckdb.connect(str(tmp_path / "w.duckdb")) as con:
        con.execute("UPDATE items SET cluster = doc_id % 19 WHERE benchmark = 'facts'")
    table = detectable_lines(study(), tmp_path / "w.duckdb", None)[-1]
    told = {line.split("|")[0].strip(): line.split("|")[-1].strip() for line in table.splitlines()[2:]}
    assert told == {
        "addition": "can show a loss", "places": "can show a loss", "facts": "under 20 clusters: no interval",
        "safety": "the base is too near chance to lose the margin", "sorting": "the base is too near chance to lose the margin",
    }  # fmt: skip
