"""Bad rows and overlap on their way into the warehouse, and a benchmark that is asked without its bad rows."""

import json
import shutil

import duckdb

from retain_core.evaluation.benchmarks import own_benchmark
from retain_core.overlap import measure_overlap
from retain_core.own.items import prepare_items, read_items
from retain_core.plan import plan_study
from retain_core.revisions import declare
from retain_core.store import Store
from retain_core.study_file import load_study
from retain_core.warehouse.contents import contents_of
from retain_core.warehouse.load import load_contents
from tests.conftest import ROOT


def test_the_lab_holds_its_items_out(smoke_plan):
    rows = json.loads(smoke_plan.overlap.file("rows.json").read_text())
    assert {(text, benchmark) for _, text, benchmark, *_ in rows} == {
        (text, b) for text in ("target", "retention") for b in ("countdown", "addition", "places")
    }
    assert all(n > 0 and exact == 0 and near <= 0.01 * n for *_, n, exact, near in rows)


def test_overlap_stands_beside_the_drop(warehouse):
    sql = "SELECT DISTINCT benchmark, n_items, n FROM overlap JOIN forgetting USING (study, benchmark)"
    rows = warehouse.execute(sql).fetchall()
    assert {b for b, *_ in rows} == {"addition", "places"}
    assert all(n_items == n for _, n_items, n in rows)


def test_a_benchmark_is_asked_without_its_bad_rows_and_the_warehouse_says_which(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(ROOT / "examples" / "own_method", folder, ignore=shutil.ignore_patterns("__pycache__"))
    rows = (folder / "manners.jsonl").read_text().splitlines()
    asked = [json.loads(row)["verb"] for row in rows]
    (folder / "manners.jsonl").write_text("\n".join([rows[0], '{"verb": "sink", "gold": "no number"}', *rows[1:], "{}"]))
    train = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    train[0]["prompt"] = f"is it bad to {asked[5]} ?"
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train))
    with (folder / "study.yaml").open("a") as file:
        file.write("data: {bad_rows: 0.05}\n")
    study = load_study(folder / "study.yaml")
    store = Store(tmp_path / "home" / "artifacts")
    store.prepare()
    manners = own_benchmark("manners", study.own.benchmarks["manners"])
    prepare_items(store, [manners, study.benchmarks()[0]])
    assert [row["prompt"] for row in read_items(store, manners)] == [f"is it bad to {verb} ?" for verb in asked]

    from retain_core.lab.dataset import prepare_dataset

    plan = plan_study(study, store)
    prepare_dataset(store, plan.world)
    measure_overlap(plan, store)
    load_contents(tmp_path / "w.duckdb", contents_of(plan_study(study, store), declare(store, study), {}))
    with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as con:
        left = con.execute("SELECT part, file, line, reason FROM left_out WHERE study = 'own_method' ORDER BY line").fetchall()
        counts = con.execute("SELECT benchmark, n_items, n_exact, n_near FROM overlap ORDER BY 1").fetchall()
    file = str(folder / "manners.jsonl")
    assert left == [
        ("manners", file, 2, "`gold` is a text; in most rows it is a number"),
        ("manners", file, 50, "`verb` is missing, which the benchmark asks with"),
    ]
    assert counts[0][0] == "another_color"
    assert counts[1] == ("facts", 400, 0, 0)
    assert counts[2] == ("manners", 48, 1, 1)
