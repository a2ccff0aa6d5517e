"""The noise floor: the base against itself under changes that must not matter, and nowhere else."""

import json
from dataclasses import fields

import duckdb
import pyarrow.parquet as pq
import pytest

from retain_core.errors import RetainError
from retain_core.evaluation.answers import ANSWERS
from retain_core.evaluation.benchmarks import BENCHMARKS as KNOWN
from retain_core.evaluation.evaluate import Evaluator, evaluation_settings
from retain_core.evaluation.floor import USUAL, Nuisance, nuisances
from retain_core.evaluation.harness import RecordingLM
from retain_core.store import Store
from retain_core.warehouse.compare import store_comparisons

BENCHMARKS = {"countdown", "addition", "places"}


def rows(con, sql):
    found = con.execute(sql)
    names = [d[0] for d in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_six_changes_each_its_own():
    found = nuisances()
    assert len({n.name for n in found}) == len(found) == 6
    changed = []
    for nuisance in found:
        differing = [f.name for f in fields(Nuisance) if getattr(nuisance, f.name) != getattr(USUAL, f.name)]
        changed.append(tuple(name for name in differing if name != "name"))
    assert sorted(changed) == [("batch_size",)] * 2 + [("dtype",)] + [("item_order",)] * 2 + [("more_threads",)]
    usual = evaluation_settings(KNOWN["places"], "data", 1, "template")
    told = [evaluation_settings(KNOWN["places"], "data", 1, "template", n) for n in found]
    for settings in told:
        assert len([k for k in usual if usual[k] != settings[k]]) == 1
    assert len({json.dumps(s, sort_keys=True) for s in (usual, *told)}) == 7


def test_the_base_is_evaluated_six_times_on_everything(warehouse):
    found = rows(warehouse, "FROM noise_floor")
    assert {r["benchmark"] for r in found} == BENCHMARKS
    assert {r["reevaluations"] for r in found} == {6}
    runs = rows(warehouse, "FROM floor_runs")
    assert {r["nuisance"] for r in runs} == {n.name for n in nuisances()}
    for run in runs:
        theirs, base = json.loads(run["settings"]), json.loads(run["base_settings"])
        assert len([k for k in base if base[k] != theirs[k]]) == 1, run["nuisance"]
    for row in found:
        mine = [r for r in runs if (r["benchmark"], r["metric"]) == (row["benchmark"], row["metric"])]
        assert len(mine) == 6
        assert row["max_abs_drop"] == max(abs(r["drop"]) for r in mine)
        if row["most_flips"] is not None:
            assert row["most_flips"] == max(r["lost"] + r["gained"] for r in mine)
            assert row["max_abs_drop"] <= row["most_flips"] / row["n"] + 1e-12


def test_another_precision_is_really_another(warehouse):
    """The mass on right answers shows the last bits; greedy answers hide them."""
    drops = dict(warehouse.execute("SELECT nuisance, \"drop\" FROM floor_runs WHERE metric = 'exact'").fetchall())
    assert 0 < abs(drops["other_dtype"]) < 1e-4
    exact = rows(warehouse, "FROM noise_floor WHERE metric = 'exact'")[0]
    assert (exact["flips"], exact["most_flips"], exact["flip_rate"]) == (None, None, None)


def test_the_floor_stands_in_no_other_relation(warehouse):
    shared = "SELECT count(*) FROM floor_evaluations JOIN named_evaluations USING (evaluation_id)"
    assert warehouse.execute(shared).fetchone() == (0,)
    checkpoints, items = 1 + 3 * 2, dict(warehouse.execute("SELECT benchmark, count(*) FROM items GROUP BY ALL").fetchall())
    for relation, expected in {
        "evaluations": checkpoints * 3, "scores": checkpoints * (2 + 2 + 1), "forgetting": checkpoints * (2 + 1),
        "gain_drop": checkpoints, "samples": checkpoints * (2 * items["countdown"] + 2 * items["addition"] + items["places"]),
    }.items():  # fmt: skip
        assert warehouse.execute(f"SELECT count(*) FROM {relation}").fetchone() == (expected,), relation
    assert warehouse.execute("SELECT count(*) FROM gain_drop WHERE step = 0").fetchone() == (1,)


def test_unlike_settings_pass_on_the_floor_and_nowhere_else(home):
    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        con.execute("DELETE FROM comparisons")
        store_comparisons(con, "smoke")
        assert con.execute("SELECT count(*) FROM floor_runs").fetchone() == (6 * 5,)
        con.execute("DELETE FROM comparisons")
        con.execute("""INSERT INTO named_evaluations
            SELECT 'smoke/other@1/places', 'smoke', 'smoke/other@1', f.evaluation_id, NULL
            FROM floor_evaluations f JOIN stored_evaluations s USING (evaluation_id)
            WHERE f.nuisance = 'odd_batch' AND s.benchmark = 'places'""")
        with pytest.raises(RetainError, match=r"places.*unlike settings: batch_size \(400 against 37\)"):
            store_comparisons(con, "smoke")


def test_even_the_floor_has_the_same_items(home):
    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        con.execute("""DELETE FROM sample_scores WHERE item = (SELECT min(item) FROM items WHERE benchmark = 'places')
            AND evaluation_id = (SELECT f.evaluation_id FROM floor_evaluations f JOIN stored_evaluations s USING (evaluation_id)
                                 WHERE f.nuisance = 'reversed' AND s.benchmark = 'places')""")
        con.execute("DELETE FROM comparisons")
        with pytest.raises(RetainError, match=r"smoke/base under reversed lacks doc_id \d+ \(item -?\d+\)$"):
            store_comparisons(con, "smoke")


@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_the_order_changes_and_the_items_do_not(smoke_plan, tmp_path, order):
    items = smoke_plan.dataset.file("items")
    given = (items / "places.jsonl").read_text().splitlines()
    nuisance = next(n for n in nuisances() if n.item_order == order)
    with nuisance.ordered(items, "places") as folder:
        found = (folder / "places.jsonl").read_text().splitlines()
        with nuisance.ordered(items, "places") as second:
            assert (second / "places.jsonl").read_text().splitlines() == found, "the same order every time"
    assert found != given
    assert sorted(found) == sorted(given)
    if order == "reversed":
        assert found == given[::-1]
    assert not folder.exists()
    with USUAL.ordered(items, "places") as folder:
        assert folder == items


def test_every_stored_answer_of_the_floor_is_under_its_own_item(smoke_plan):
    base = {p.benchmark: pq.read_table(a.file(ANSWERS)).to_pylist() for p, a in smoke_plan.base_evaluations}
    identity = {b: {row["doc_id"]: (row["item"], row["prompt"]) for row in found} for b, found in base.items()}
    orders = set()
    for nuisance, pairs in smoke_plan.floor.items():
        for plan, artifact in pairs:
            found = pq.read_table(artifact.file(ANSWERS)).to_pylist()
            assert {row["doc_id"]: (row["item"], row["prompt"]) for row in found} == identity[plan.benchmark], nuisance
            if plan.benchmark == "places":
                orders.add(tuple(row["doc_id"] for row in found))
    assert len(orders) == 3, "given, reversed, shuffled"


def test_how_an_evaluation_is_carried_out_reaches_the_model(smoke_plan, base_model, tmp_path):
    import copy

    import torch

    store = Store(tmp_path / "artifacts")
    store.prepare()
    asked = []

    class Watched(RecordingLM):
        def _model_call(self, inputs, *more, **options):
            asked.append(len(inputs))
            return super()._model_call(inputs, *more, **options)

    half = next(n for n in nuisances() if n.name == "half_batch")
    for nuisance in (USUAL, half):
        asked.clear()
        model = nuisance.applied_to(copy.deepcopy(base_model[0]))
        evaluator = Evaluator(store, smoke_plan.dataset, smoke_plan.base_path, nuisance)
        evaluator.answers(Watched(model, base_model[1], nuisance.batch_size), KNOWN["places"])
        assert max(asked) == nuisance.batch_size
    wide = Nuisance("wide", dtype="float64").applied_to(copy.deepcopy(base_model[0]))
    assert {p.dtype for p in wide.parameters()} == {torch.float64}


def test_no_flip_says_how_many_there_could_be(home):
    path = home / "warehouse.duckdb"
    change = """UPDATE sample_scores x SET score = 1 - score FROM floor_evaluations f, stored_evaluations s, metrics m
        WHERE f.evaluation_id = x.evaluation_id AND s.evaluation_id = x.evaluation_id AND m.metric_id = x.metric_id
        AND m.metric = 'acc' AND s.benchmark = 'addition' AND f.nuisance = 'shuffled'
        AND x.item IN (SELECT item FROM items WHERE benchmark = 'addition' AND doc_id < {})"""
    with duckdb.connect(str(path)) as con:
        for flipped in (0, 3):
            base = con.execute("""SELECT base_evaluation_id FROM named_evaluations
                WHERE evaluation = 'smoke/base/addition'""").fetchone()[0]
            con.execute(
                """UPDATE sample_scores x SET score = y.score FROM sample_scores y
                WHERE y.evaluation_id = ? AND y.item = x.item AND y.metric_id = x.metric_id AND x.evaluation_id IN
                (SELECT evaluation_id FROM floor_evaluations)""",
                [base],
            )
            con.execute(change.format(flipped))
            con.execute("DELETE FROM comparisons")
            store_comparisons(con, "smoke")
            row = rows(con, "FROM noise_floor WHERE benchmark = 'addition' AND metric = 'acc'")[0]
            if flipped:
                assert (row["flips"], row["most_flips"], row["flip_rate"]) == ("3 of 400", 3, 3 / 400)
                assert row["flip_rate_upper"] is None
            else:
                assert (row["flips"], row["most_flips"], row["max_abs_drop"]) == ("0 of 400 (≤ 3/400)", 0, 0)
                assert row["flip_rate_upper"] == 3 / 400


def test_the_page_of_the_smoke_study_says_why_there_is_no_verdict(finished_home, tmp_path):
    import shutil

    from retain_core.report.build import write_report

    shutil.copy(finished_home / "warehouse.duckdb", tmp_path / "warehouse.duckdb")
    page = write_report(tmp_path / "warehouse.duckdb", tmp_path, "smoke").read_text()
    missing = "base_mixture, constant_reward, random_reward, style_placebo and planted_harm"
    assert f'<b class="word">withheld</b> (controls {missing} were not run)' in page
    assert "Drop of <b>grpo</b> minus drop of <b>sft</b> at last" in page
    assert "this seed only" in page or "these seeds only" in page
    assert 'id="table-matched_gain"' in page
    assert page.split('id="table-noise_floor"')[1].split("</table>")[0].count("<tr>") == 1 + 5
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as con:
        near = [
            s for (s,) in con.execute("SELECT score FROM scores WHERE checkpoint = 'smoke/base' AND metric = 'acc'").fetchall()
        ]
        low = min(near) < 0.05
    assert ("within 5 points of 0 or 1" in page) == low
