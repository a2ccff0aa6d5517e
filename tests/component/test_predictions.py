"""Predict, then check: frozen once, before the next size, and checked against what is found there."""

import json
from itertools import combinations, pairwise

import duckdb
import pytest
import scipy.stats

from retain_core.cross import StudyFile
from retain_core.plan import plan_study
from retain_core.run import freeze_predictions
from retain_core.stats.agreement import agreement
from retain_core.store import Store
from retain_core.study import Study
from retain_core.study_file import load_study
from retain_core.warehouse.load import connect, load_contents
from retain_core.warehouse.predictions import PAIRS, predictions_of, store_checks
from retain_core.warehouse.rebuild import all_contents
from tests.conftest import settings_at, tree
from tests.synthetic import put

METHODS = ("a", "b", "c", "d", "e")
SMALL, LARGE = ("w-mini-s0", "w-mini-s1"), ("w-tiny-s0", "w-tiny-s1")
INPUTS = {
    "family": "w", "target": "countdown", "at": "gain=0.05", "size_from": "lab/mini", "size_to": "lab/tiny",
    "methods": METHODS, "studies_from": dict.fromkeys(SMALL, "hash"), "bases_to": dict.fromkeys(LARGE, "print"),
}  # fmt: skip
PREDICTED = (0.0, 0.01, 0.03, 0.07, 0.15)
FOUND = ((0.02, 0.0, 0.05, 0.06, 0.2), (0.0, 0.0, 0.03, 0.1, 0.1))


@pytest.fixture
def con(tmp_path):
    with connect(tmp_path / "warehouse.duckdb") as con:
        pairs = [
            {"a": a, "b": b, "learning_rate": None, "diff": x - y, "rank": 1}
            for (a, x), (b, y) in combinations(zip(METHODS, PREDICTED, strict=True), 2)
        ]
        put(con, "stored_predictions", [{
            "prediction": "key", "inputs": json.dumps(INPUTS), "pairs": json.dumps(pairs),
            "meta": json.dumps({"frozen_before": True, "withheld": []}),
        }])  # fmt: skip
        con.execute("UPDATE stored_predictions SET frozen_at = '2030-01-01'")
        yield con


def found(con, study, drops, **more):
    """A study of the larger size; the first pair stands there the other way round, as a declared one may."""
    put(con, "arms", [{"arm": f"{study}/base", "study": study, "role": "base", "status": "done", "artifact": "print"}])
    rows = [[a, b, x - y] for (a, x), (b, y) in combinations(zip(METHODS, drops, strict=True), 2)]
    rows[0] = ["b", "a", -rows[0][2]]
    put(con, "contrasts", [
        {"study": study, "a": a, "b": b, "at": "gain=0.05", "diff": d, "primary": i == 0, **more}
        for i, (a, b, d) in enumerate(rows)
    ])  # fmt: skip


def row(con):
    store_checks(con)
    (values,) = con.execute("FROM predictions").fetchall()
    return dict(zip([c[0] for c in con.description], values, strict=True))


def test_a_prediction_waits_for_every_study_of_the_next_size(con):
    found(con, LARGE[0], FOUND[0])
    said = row(con)
    assert (said["pairs"], said["signs_held"], said["tau"]) == (10, None, None)
    assert said["rule"] == "not checked yet: w-tiny-s1 not done"
    found(con, LARGE[1], FOUND[1])
    con.execute("UPDATE arms SET status = 'failed' WHERE study = 'w-tiny-s0'")
    assert row(con)["rule"] == "not checked yet: w-tiny-s0 not done"


def test_it_is_checked_against_the_mean_over_bases_with_scipys_tau(con):
    for study, drops in zip(LARGE, FOUND, strict=True):
        found(con, study, drops)
    said = row(con)
    means = [sum(d) / 2 for d in zip(*FOUND, strict=True)]
    x, y = ([a - b for a, b in combinations(drops, 2)] for drops in (PREDICTED, means))
    tau = scipy.stats.kendalltau([*x, *(-v for v in x)], [*[round(v, 12) for v in y], *(round(-v, 12) for v in y)]).statistic
    expected = agreement(list(combinations(METHODS, 2)), x, y)
    assert said["tau"] == pytest.approx(tau)
    assert (said["ci_low"], said["ci_high"]) == pytest.approx((expected.low, expected.high))
    assert (said["pairs"], said["signs_held"]) == (10, 9)
    assert (said["family"], said["size_from"], said["size_to"], said["frozen_before"]) == ("w", "lab/mini", "lab/tiny", True)
    held = con.execute("SELECT a, b, predicted, found FROM prediction_pairs WHERE NOT sign_held").fetchall()
    assert held == [("a", "b", pytest.approx(-0.01), pytest.approx(0.01))]


def test_a_blend_of_a_method_is_no_method(crossed):
    config, file = crossed
    with duckdb.connect(str(config.warehouse)) as con:
        put(
            con,
            "contrasts",
            [{"study": "smoke", "a": "sft", "b": "sft_interpolated", "at": "last", "diff": 0.1, "primary": False}],
        )
    freeze_predictions(file, config)
    ((pairs,),) = rows(config, "(SELECT list(a || b) FROM prediction_pairs)")
    assert pairs == (["grposft"],)


def test_a_pair_that_one_base_did_not_reach_is_not_compared(con):
    for study, drops in zip(LARGE, FOUND, strict=True):
        found(con, study, drops)
    con.execute("UPDATE contrasts SET diff = NULL WHERE study = 'w-tiny-s1' AND 'e' IN (a, b)")
    said = row(con)
    assert said["pairs"] == 6
    assert "no interval: 4 methods" in said["rule"]
    assert "6 of 10 pairs read at both sizes" in said["rule"]


def test_what_was_found_on_other_bases_is_no_check(con):
    for study, drops in zip(LARGE, FOUND, strict=True):
        found(con, study, drops)
    con.execute("UPDATE arms SET artifact = 'other' WHERE study = 'w-tiny-s1'")
    assert row(con)["rule"] == "not checked yet: w-tiny-s1 not done"


def test_a_withheld_verdict_is_said(con):
    for study, drops in zip(LARGE, FOUND, strict=True):
        found(con, study, drops, reason="control base_mixture failed")
    assert row(con)["rule"].startswith("withheld by 2 studies, such as w-tiny-s0: control base_mixture failed; ")


def test_at_the_last_checkpoint_every_learning_rate_is_a_pair_and_the_declared_one_is_not_counted_twice(con):
    inputs = INPUTS | {"at": "last"}
    pairs = [{"a": a, "b": b, "learning_rate": r, "diff": -0.1, "rank": 1} for r in (1e-4, 3e-4) for a, b in pairwise("abc")]
    con.execute("UPDATE stored_predictions SET inputs = ?, pairs = ?", [json.dumps(inputs), json.dumps(pairs)])
    for study in LARGE:
        found(con, study, FOUND[0])
        con.execute("DELETE FROM contrasts WHERE study = ?", [study])
        for rate in (1e-4, 3e-4):
            shared = {"study": study, "at": "last", "learning_rate_a": rate, "learning_rate_b": rate, "diff": -0.2}
            put(con, "contrasts", [{**shared, "a": a, "b": b, "primary": False} for a, b in pairwise("abc")])
        put(con, "contrasts", [{**shared, "a": "a", "b": "b", "primary": True, "diff": 9.0}])
    said = row(con)
    assert (said["pairs"], said["signs_held"]) == (4, 4)
    assert {v for (v,) in con.execute("SELECT found FROM prediction_pairs").fetchall()} == {-0.2}


@pytest.fixture
def crossed(home, smoke_study):
    """A home in which the smaller of two sizes has run, and the file of both."""
    small = load_study(smoke_study)
    large = Study.model_validate({**small.model_dump(), "study": "smoke-mini", "base": {"model": "lab/mini"}})
    return settings_at(home), StudyFile(name="both", studies=(small, large), crossed=True)


def rows(config, *tables):
    with duckdb.connect(str(config.warehouse), read_only=True) as con:
        return [con.execute(f"FROM {table} ORDER BY ALL").fetchall() for table in tables]


def train_an_arm(store, study):
    """An arm of a study, as far as its trace in the store goes."""
    spec = plan_study(study, store).arms[0].spec
    with store.create("arm", spec.key, spec.inputs()) as draft:
        (draft.path / "weights").write_text("none")


def test_a_prediction_is_frozen_before_the_next_size_and_never_changes(crossed):
    config, file = crossed
    store = Store(config.artifacts)
    (key,) = freeze_predictions(file, config)
    (frozen,) = predictions_of(store)
    before = tree(frozen.path)
    assert frozen.meta["frozen_before"] is True
    assert (frozen.inputs["studies_from"], list(frozen.inputs["bases_to"])) == (
        {"smoke": file.studies[0].spec_hash()}, ["smoke-mini"],
    )  # fmt: skip
    (pair,) = json.loads(frozen.file(PAIRS).read_text())
    with duckdb.connect(str(config.warehouse), read_only=True) as con:
        ((a, b, diff),) = con.execute('SELECT a, b, diff FROM contrasts WHERE "at" = \'last\' AND NOT "primary"').fetchall()
    assert (pair["a"], pair["b"], pair["rank"]) == ("grpo", "sft", 1)
    assert pair["diff"] == pytest.approx(diff if a == "grpo" else -diff)
    assert (a, b) in (("grpo", "sft"), ("sft", "grpo"))
    train_an_arm(store, file.studies[1])
    assert freeze_predictions(file, config) == []
    assert tree(predictions_of(store)[0].path) == before
    assert predictions_of(store)[0].key == key
    ((said,),) = rows(config, "(SELECT frozen_before FROM predictions)")
    assert said == (True,)


def test_a_prediction_that_comes_after_arms_of_the_next_size_says_so(crossed):
    config, file = crossed
    train_an_arm(Store(config.artifacts), file.studies[1])
    assert len(freeze_predictions(file, config)) == 1
    ((said,),) = rows(config, "(SELECT frozen_before FROM predictions)")
    assert said == (False,)


def test_answers_that_a_stopped_arm_of_the_next_size_left_behind_count_as_seen(crossed):
    config, file = crossed
    store = Store(config.artifacts)
    (plan, _), *_ = next(iter(plan_study(file.studies[1], store).arms[0].evaluations.values()))
    with store.create(plan.kind, plan.key, plan.inputs) as draft:
        (draft.path / "answers").write_text("some")
    assert len(freeze_predictions(file, config)) == 1
    ((said,),) = rows(config, "(SELECT frozen_before FROM predictions)")
    assert said == (False,)


def test_an_edited_file_is_another_prediction_beside_the_old_one(crossed):
    config, file = crossed
    freeze_predictions(file, config)
    edited = Study.model_validate({**file.studies[0].model_dump(), "keep": "none"})
    freeze_predictions(file.model_copy(update={"studies": (edited, file.studies[1])}), config)
    assert len(predictions_of(Store(config.artifacts))) == 2
    assert len(rows(config, "predictions")[0]) == 2


def test_nothing_is_predicted_from_a_size_that_is_not_done(crossed):
    config, file = crossed
    assert freeze_predictions(file.model_copy(update={"studies": file.studies[::-1]}), config) == []


def test_a_rebuilt_warehouse_holds_the_same_predictions(crossed):
    config, file = crossed
    freeze_predictions(file, config)
    tables = ("predictions", "prediction_pairs", "over_bases")
    before = rows(config, *tables)
    assert all(before)
    config.warehouse.unlink()
    for contents in all_contents(Store(config.artifacts), but=""):
        load_contents(config.warehouse, contents)
    assert rows(config, *tables) == before
