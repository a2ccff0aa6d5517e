"""`retain import` on files that lm-eval itself wrote: in the warehouse the same figures as `retain compare` gives."""

import json
import shutil
from pathlib import Path

import duckdb
import pytest

from retain_core.commands import import_text, plan_text, sql_text, status_text
from retain_core.compare.runs import compare_runs
from retain_core.errors import InputError
from retain_core.imported.samples import read_run
from retain_core.imported.store import import_run, imported_contents, imported_studies, read_imported
from retain_core.report.build import write_report
from retain_core.settings import settings
from retain_core.store import Store
from retain_core.warehouse.load import load_contents
from retain_core.warehouse.rebuild import load_missing
from tests.component.test_warehouse import content
from tests.conftest import ROOT

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
def move(monkeypatch):
    """Let the commands work in another home."""

    def to(path):
        monkeypatch.setenv("RETAIN_HOME", str(path))
        settings.cache_clear()
        return path

    yield to
    settings.cache_clear()


@pytest.fixture
def home(tmp_path, move):
    """An empty home that the commands work in."""
    return move(tmp_path / "home")


@pytest.fixture
def pair(tmp_path):
    """A copy of the example's files that a test may spoil."""
    for model in ("base", "tuned"):
        shutil.copytree(EXAMPLES / model, tmp_path / "files" / model)
    return tmp_path / "files" / "base", tmp_path / "files" / "tuned"


def take(path, address, target=None, cluster=None):
    return import_text(Path(path), address, target, cluster)


def both(base, tuned, study="pets", **more):
    take(base, f"{study}/base", **more)
    return take(tuned, f"{study}/tuned", **more)


def ask(home, sql, *values):
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        found = con.execute(sql, list(values))
        names = [d[0] for d in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def file(folder, name):
    return next(folder.glob(f"samples_{name}_2*.jsonl"))


def edit_results(folder, change):
    path = next(folder.glob("results_*.json"))
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def edit_rows(path, change):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def keys(home):
    return Store(home / "artifacts").keys("evaluation")


# The figures


def agrees_with_compare(home, base, tuned):
    compared = {row.benchmark: row for row in compare_runs(read_run(base), read_run(tuned)).rows}
    found = ask(home, "FROM compared WHERE method = $1 AND metric = study_metric", "tuned")
    assert {row["benchmark"] for row in found} == set(compared)
    for row in found:
        other = compared[row["benchmark"]]
        assert row["metric"] == other.metric
        for ours, theirs in (("drop", other.drop), ("base_score", other.score_a), ("score", other.score_b), ("n", other.n)):
            assert row[ours] == pytest.approx(theirs, abs=1e-12), (row["benchmark"], ours)
    return {row["benchmark"]: (row, compared[row["benchmark"]]) for row in found}


def test_drop_in_the_warehouse_is_the_drop_of_compare(home):
    text = both(EXAMPLES / "base", EXAMPLES / "tuned")
    found = agrees_with_compare(home, EXAMPLES / "base", EXAMPLES / "tuned")
    for name in ("colours", "sums"):
        ours, theirs = found[name]
        for figure in ("lost", "gained", "p_value", "ci_low", "ci_high"):
            assert ours[figure] == pytest.approx(getattr(theirs, figure), abs=1e-12), (name, figure)
        assert str(round(theirs.drop, 4)) in text
    forgetting = ask(home, "SELECT count(*) AS n FROM forgetting WHERE method = 'tuned'")
    assert forgetting == [{"n": 5}], "every metric of every benchmark has a row"
    (plane,) = ask(home, "SELECT gain, \"drop\" FROM gain_drop WHERE method = 'tuned'")
    assert plane["gain"] is None
    mean = compare_runs(read_run(EXAMPLES / "base"), read_run(EXAMPLES / "tuned")).mean
    assert plane["drop"] == pytest.approx(mean.drop, abs=1e-12)
    (flips,) = ask(home, "SELECT count(*) AS n FROM flips WHERE benchmark = 'sums' AND direction = 'lost'")
    assert flips["n"] == found["sums"][1].lost


def test_items_that_do_not_count_equally_keep_the_score_of_the_harness(home, outputs):
    both(outputs / "base", outputs / "tuned")
    agrees_with_compare(home, outputs / "base", outputs / "tuned")
    told = {m: json.loads(next((outputs / m).glob("results_*.json")).read_text()) for m in ("base", "tuned")}
    found = ask(home, "SELECT split_part(checkpoint, '/', 2) AS model, benchmark, metric, score FROM scores")
    checked = set()
    for row in found:
        model = row["model"].removesuffix("@0")
        reported = told[model]["results"][row["benchmark"]].get(row["metric"])
        if row["metric"].startswith(("acc,", "exact_match,", "all_followed,", "each_followed,")):
            assert row["score"] == pytest.approx(reported, abs=1e-9), row
            checked.add(row["benchmark"])
    assert checked == {"zoo", "sums", "voted_sums", "followed", "endings"}
    roles = dict(map(tuple, (r.values() for r in ask(home, "SELECT benchmark, role FROM study_benchmarks"))))
    assert roles["stories"] == "probe", "a likelihood is in no mean"
    assert roles["zoo"] == "retention"


def test_a_group_by_parts_counts_its_parts_equally(home):
    both(EXAMPLES / "base", EXAMPLES / "tuned")
    (row,) = ask(home, "FROM forgetting WHERE method = 'tuned' AND benchmark = 'animals'")
    shares = []
    for part in ("legs", "sounds"):
        rights = [json.loads(line)["acc"] for line in file(EXAMPLES / "tuned", f"animals_{part}").read_text().splitlines()]
        shares.append(sum(rights) / len(rights))
    assert row["score"] == pytest.approx(sum(shares) / 2)
    assert (row["lost"], row["gained"]) == (None, None), "items of unequal weight are no longer 0 or 1"


def test_the_target_gives_a_gain(home):
    both(EXAMPLES / "base", EXAMPLES / "tuned", target="sums")
    (plane,) = ask(home, "SELECT target, gain, \"drop\" FROM gain_drop WHERE method = 'tuned'")
    compared = {row.benchmark: row for row in compare_runs(read_run(EXAMPLES / "base"), read_run(EXAMPLES / "tuned")).rows}
    assert plane["target"] == "sums"
    assert plane["gain"] == pytest.approx(-compared["sums"].drop)
    assert plane["drop"] == pytest.approx((compared["colours"].drop + compared["animals"].drop) / 2)
    assert {r["benchmark"] for r in ask(home, "FROM forgetting")} == {"colours", "animals"}
    assert ask(home, "SELECT gain_low < gain AND gain < gain_high AS inside FROM method_summary") == [{"inside": True}]


def test_clusters_are_a_field_of_the_documents_also_when_given_later(home):
    both(EXAMPLES / "base", EXAMPLES / "tuned")
    with pytest.raises(InputError, match=r"sums: evaluated under other settings than tuned: cluster \(None against family\)"):
        take(EXAMPLES / "base", "pets/base", cluster="family")
    both(EXAMPLES / "base", EXAMPLES / "tuned", study="again", cluster="family")
    found = {r["study"]: r["clusters"] for r in ask(home, "FROM compared WHERE benchmark = 'sums' AND method = 'tuned'")}
    families = {json.loads(line)["doc"]["family"] for line in file(EXAMPLES / "base", "sums").read_text().splitlines()}
    assert found == {"pets": None, "again": len(families)}


def test_the_order_of_imports_does_not_matter(home, tmp_path, move):
    both(EXAMPLES / "base", EXAMPLES / "tuned")
    first = ask(home, "SELECT * EXCLUDE (settings_hash) FROM compared ORDER BY ALL")
    move(tmp_path / "other")
    assert "base is still missing" in take(EXAMPLES / "tuned", "pets/tuned")
    take(EXAMPLES / "base", "pets/base")
    assert ask(tmp_path / "other", "SELECT * EXCLUDE (settings_hash) FROM compared ORDER BY ALL") == first


# Again, and the file deleted


def test_importing_twice_does_not_double(home):
    both(EXAMPLES / "base", EXAMPLES / "tuned")
    before, stored = content_of_study(home), keys(home)
    both(EXAMPLES / "base", EXAMPLES / "tuned")
    assert content_of_study(home) == before
    assert keys(home) == stored
    assert len(read_imported(Store(home / "artifacts"), "pets").models) == 2


def content_of_study(home):
    relations = ("compared", "samples", "flips", "intervals", "contrasts", "method_summary", "evaluations")
    found = {name: ask(home, f"FROM {name} ORDER BY ALL") for name in relations}
    return {name: [{k: v for k, v in row.items() if k != "created_at"} for row in rows] for name, rows in found.items()}


def test_a_model_imported_again_replaces_its_answers(home, pair):
    base, tuned = pair
    both(base, tuned)
    next(tuned.glob("results_*.json")).unlink()
    next(base.glob("results_*.json")).unlink()
    for folder in pair:
        for path in folder.glob("samples_animals_*"):
            path.unlink()
    edit_rows(file(tuned, "colours"), lambda row: row.update(acc=0.0))
    both(base, tuned, study="fresh")
    edit_rows(file(tuned, "colours"), lambda row: row.update(acc=1.0))
    take(tuned, "fresh/tuned")
    (row,) = ask(home, "FROM forgetting WHERE study = 'fresh' AND method = 'tuned' AND metric LIKE 'acc,%'")
    assert (row["score"], row["lost"]) == (1, 0)


def test_a_deleted_warehouse_is_rebuilt_with_imported_and_trained_studies_alike(finished_home, home):
    shutil.copytree(finished_home, home)
    both(EXAMPLES / "base", EXAMPLES / "tuned", target="sums")
    before = content(home / "warehouse.duckdb")
    assert {row[0] for row in before["studies"]} == {"smoke", "pets"}
    (home / "warehouse.duckdb").unlink()
    load_missing(Store(home / "artifacts"), home / "warehouse.duckdb", but="")
    after = content(home / "warehouse.duckdb")
    for relation, rows in before.items():
        assert after[relation] == rows, relation
    (home / "warehouse.duckdb").unlink()
    take(EXAMPLES / "tuned", "pets/tuned")
    again = content(home / "warehouse.duckdb")
    for relation in ("forgetting", "gain_drop", "contrasts", "noise_floor", "flips"):
        assert again[relation] == before[relation], relation
    with pytest.raises(InputError, match="smoke is a study that was run here"):
        take(EXAMPLES / "base", "smoke/base")
    status = status_text()
    assert "pets" in status
    assert "imported" in status


def test_the_first_import_into_an_old_warehouse_fills_it_with_everything(home):
    both(EXAMPLES / "base", EXAMPLES / "tuned")
    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        con.execute("UPDATE schema_version SET version = 0")
    take(EXAMPLES / "base", "second/base")
    assert {r["study"] for r in ask(home, "FROM studies")} == {"pets", "second"}


# What does not fit


def refused(home, told, *arguments, **more):
    """The import is refused in these words and the home is as it was."""
    before = (keys(home), read_imported(Store(home / "artifacts"), "pets"), content_of_study(home))
    with pytest.raises(InputError, match=told):
        take(*arguments, **more)
    assert (keys(home), read_imported(Store(home / "artifacts"), "pets"), content_of_study(home)) == before


def test_unlike_settings_are_refused_and_nothing_is_kept(home, pair):
    base, tuned = pair
    take(base, "pets/base")
    edit_results(tuned, lambda told: told["config"].update(batch_size=7, limit=None))
    refused(home, r"colours: evaluated under other settings than base: batch_size \(64 against 7\)", tuned, "pets/tuned")


def test_settings_that_nobody_knows_are_unlike_those_that_are_known(home, pair):
    base, tuned = pair
    take(base, "pets/base")
    next(tuned.glob("results_*.json")).unlink()
    refused(home, r"other settings than base: .*settings \(None against unknown: no results JSON", tuned, "pets/tuned")


def test_other_items_are_refused_with_their_ids_and_nothing_is_kept(home, pair):
    base, tuned = pair
    for folder in pair:
        next(folder.glob("results_*.json")).unlink()
    take(base, "pets/base")
    path = file(tuned, "colours")
    lines = path.read_text().splitlines(keepends=True)
    gone = json.loads(lines[3])["doc_id"]
    path.write_text("".join(lines[:3] + lines[4:]))
    refused(home, r"colours: not the items that base answered \(47 against 48 items\)", tuned, "pets/tuned")
    path.write_text("".join(lines))
    edit_rows(path, lambda row: row["doc_id"] == gone and row.update(arguments={"gen_args_0": {"arg_0": "?", "arg_1": "!"}}))
    refused(home, rf"unknown there: doc_id {gone}\)", tuned, "pets/tuned")
    path.write_text("".join([*lines, lines[3]]))
    refused(home, rf"there twice: doc_id {gone}$", tuned, "pets/tuned")
    edit = lines[3].replace('"acc": 1.0', '"acc": NaN').replace('"acc": 0.0', '"acc": NaN')
    path.write_text("".join([*lines[:3], edit, *lines[4:]]))
    refused(home, "line 4: acc,none is nan", tuned, "pets/tuned")


def test_a_target_that_a_model_did_not_answer_is_refused_and_nothing_is_kept(home, pair):
    base, tuned = pair
    take(base, "pets/base")
    refused(home, "the target poetry is not among the benchmarks of", tuned, "pets/tuned", target="poetry")
    take(tuned, "pets/tuned", target="sums")
    refused(home, "pets has the target sums; it cannot get colours too", tuned, "pets/tuned", target="colours")


def only(folder, name, where):
    """A folder with the samples of one benchmark and the results beside them."""
    where.mkdir(parents=True)
    for path in (*folder.glob("results_*.json"), file(folder, name)):
        shutil.copy(path, where)
    return where


def test_means_are_over_what_every_model_answered(home, tmp_path):
    both(EXAMPLES / "base", EXAMPLES / "tuned")
    text = take(only(EXAMPLES / "tuned", "sums", tmp_path / "sums"), "pets/small")
    assert "beside and in no mean: animals, colours" in text
    found = {r["method"]: r["drop"] for r in ask(home, "FROM gain_drop WHERE step = 0")}
    compared = {row.benchmark: row for row in compare_runs(read_run(EXAMPLES / "base"), read_run(EXAMPLES / "tuned")).rows}
    assert found == {"base": 0, "tuned": pytest.approx(compared["sums"].drop), "small": pytest.approx(compared["sums"].drop)}
    assert len(ask(home, "FROM compared WHERE method = 'tuned'")) == 5
    refused(
        home, "has no benchmark in common with the other models of pets: colours",
        only(EXAMPLES / "tuned", "colours", tmp_path / "colours"), "pets/other",
    )  # fmt: skip


def test_a_single_item_is_refused(home, pair):
    base, _ = pair
    next(base.glob("results_*.json")).unlink()
    path = file(base, "colours")
    path.write_text(path.read_text().splitlines()[0])
    with pytest.raises(InputError, match="colours has a single item"):
        take(base, "pets/base")


# Names that somebody else chose


@pytest.mark.parametrize(
    "address",
    ["../pets/base", "pets/../x", "pets/a'b", "pets", "Pets/base", "pets/", "/base", "pets/a b", "pets/<b>", "pets/.x",
     "-p/base", "pets/a/b", "pets/a\n", "pets\n/a", "pets/a@1", 'pets/"', "pets/ä"],
)  # fmt: skip
def test_an_address_is_a_plain_name(home, address):
    with pytest.raises(InputError, match="is no address of a model"):
        take(EXAMPLES / "base", address)
    assert not list(home.parent.rglob("imported")), "nothing is written, here or beside the home"


HOSTILE = "<img src=x onerror=alert(1)>'; DROP TABLE arms;-- {{ 7*7 }}"


def test_hostile_names_are_data(home, pair):
    for folder in pair:
        for path in [*folder.glob("samples_*")]:
            if "sums" in path.name:
                path.rename(path.with_name(path.name.replace("sums", HOSTILE)))
            else:
                path.unlink()
        edit_results(folder, lambda told: told.update(model_name=f"../../{HOSTILE}\ud800\x00", results={}, groups={}))
    both(*pair)
    (row,) = ask(home, "SELECT DISTINCT benchmark FROM forgetting")
    assert row["benchmark"] == HOSTILE
    page = (home / "reports" / "pets" / "index.html").read_text()
    shown = page.split("<script")[0]
    assert "<img" not in shown
    assert "&lt;img" in shown
    assert HOSTILE not in page, "not in the page's data either"
    assert "{{ 7*7 }}" in page
    assert {p.name for p in home.parent.iterdir()} == {"home", "files"}
    assert json.loads(sql_text("SELECT count(*) AS n FROM arms", "json")) == [{"n": 2}]


def test_an_answer_with_half_a_character_is_kept_readable(home, pair):
    base, tuned = pair
    said = "so \ud83d it \ud83d\ude00 goes"
    first = json.loads(file(tuned, "sums").read_text().splitlines()[0])["doc_id"]
    edit_rows(file(tuned, "sums"), lambda row: row["doc_id"] == first and row.update(resps=[[said]]))
    both(base, tuned)
    found = ask(home, "SELECT response FROM samples WHERE response LIKE 'so %'")
    assert {r["response"] for r in found} == {"so ? it \U0001f600 goes"}


# The page


def test_the_page_of_an_imported_study(home):
    both(EXAMPLES / "base", EXAMPLES / "tuned", target="sums")
    page = (home / "reports" / "pets" / "index.html").read_text()
    assert "What did teaching sums cost?" in page
    assert "declares no contrast" in page
    line = next(part for part in page.split("<tr>") if "</svg>tuned<td" in part)
    assert "-52.1" in line
    both(EXAMPLES / "base", EXAMPLES / "tuned", study="plain")
    other = write_report(home / "warehouse.duckdb", home / "reports", "plain").read_text()
    assert "What was lost against" in other
    take(EXAMPLES / "base", "alone/base")
    assert "alone" in write_report(home / "warehouse.duckdb", home / "reports", "alone").read_text()


def test_a_study_of_nothing_but_its_target_has_a_page(home, tmp_path):
    both(*(only(EXAMPLES / m, "sums", tmp_path / m) for m in ("base", "tuned")), target="sums")
    (plane,) = ask(home, "SELECT gain, \"drop\" FROM gain_drop WHERE method = 'tuned'")
    assert plane["gain"] < 0
    assert plane["drop"] is None
    assert "-52.1" in (home / "reports" / "pets" / "index.html").read_text()


def test_the_library_form(tmp_path):
    """The same without a command: import, then load."""
    store = Store(tmp_path / "artifacts")
    store.prepare()
    import_run(store, EXAMPLES / "base", "pets/base", None, None)
    study = import_run(store, EXAMPLES / "tuned", "pets/tuned", None, None)
    assert imported_studies(store) == ["pets"]
    assert load_contents(tmp_path / "w.duckdb", imported_contents(store, study)).evaluations == 6


def test_plan_says_that_a_study_of_one_seed_is_no_pilot(finished_home, smoke_study, move):
    move(finished_home)
    assert plan_text(smoke_study).splitlines()[-1].startswith("detectable drop: unknown without a pilot")
