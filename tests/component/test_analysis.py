"""A study whose truths are known, from scores to verdict: what was planted is found, and nothing else."""

import json
import shutil
from dataclasses import replace
from itertools import islice

import duckdb
import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from retain_core.analysis.cells import cell_intervals
from retain_core.analysis.contrasts import EXPLORATORY, Declared, at_gain, contrasts, declared
from retain_core.analysis.matching import Curves, front_points, matched_points
from retain_core.analysis.scores import read_scores
from retain_core.errors import RetainError
from retain_core.lab.spec import lab_spec
from retain_core.lab.targets import PLANTED_ITEMS, Countdown, planted
from retain_core.lab.world import World
from retain_core.methods import CONTROLS
from retain_core.report.build import write_report
from retain_core.stats.crossed import THIS_SEED
from retain_core.stats.sequential import look_levels, overall_error
from retain_core.warehouse.analyse import store_analysis
from tests.synthetic import (
    FOUND,
    METHODS,
    RETENTION,
    TARGET,
    Truth,
    analyse_again,
    fill,
    made_scores,
    plain_scores,
    put,
)

PRIMARY = {"contrast": ["harmful", "harmless"], "predict": ">", "at_gain": 0.1, "margin": 0.02, "looks": 1}
WORDS = {"withheld", "not reached", "too noisy", "equivalent", "supported", "reversed", "inconclusive"}
ONE = "made/one-lr0.0001-s0@10"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The default study in a warehouse, with all controls. Read only; take `again` to change things."""
    path = tmp_path_factory.mktemp("made") / "warehouse.duckdb"
    scores = made_scores(controls=True, base="lab/tiny", primary=PRIMARY, seed_sd=0.01)
    fill(path, scores).close()
    return path, scores


@pytest.fixture(scope="module")
def con(made):
    with duckdb.connect(str(made[0]), read_only=True) as con:
        yield con


@pytest.fixture
def again(made, tmp_path):
    """A copy of the warehouse that a test may spoil."""
    path = tmp_path / "warehouse.duckdb"
    shutil.copy(made[0], path)
    with duckdb.connect(str(path)) as con:
        con.execute("SET threads TO 1")
        yield con


@pytest.fixture
def compared(tmp_path):
    """Fill a warehouse with plain scores and read a relation of it, rows as dictionaries by benchmark."""

    def read(*given, relation="compared", **more):
        path = tmp_path / "plain.duckdb"
        path.unlink(missing_ok=True)
        with fill(path, plain_scores(*given, **more), analyse=False) as con:
            found = con.execute(f"FROM {relation} WHERE checkpoint = '{ONE}'")
            names = [d[0] for d in found.description]
            rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        return {row.get("benchmark"): row for row in rows}

    return read


def rows(con, sql, *values):
    found = con.execute(sql, list(values))
    names = [d[0] for d in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def said(scores, **changes) -> Declared:
    return replace(declared(scores, 1, 0.05, None), **changes)


def analysed(scores, **changes):
    return contrasts(scores, Curves(scores), said(scores, **changes))


# One checkpoint beside its base


def test_the_example_worked_by_hand_in_the_docs(compared):
    base = {"addition": [1] * 9 + [0], "sorting": [1] * 6 + [0] * 4}
    tuned = {"addition": [0] * 3 + [1] * 7, "sorting": [0] * 2 + [1] * 6 + [0] * 2}
    found = compared(base, tuned, relation="forgetting")
    told = {name: (row["lost"], row["gained"], row["drop"]) for name, row in found.items()}
    assert told == {"addition": (3, 1, pytest.approx(0.2)), "sorting": (2, 2, 0)}
    assert compared(base, tuned, relation="gain_drop")[None]["drop"] == pytest.approx(0.1)
    assert compared(base, tuned, relation="gain_drop")[None]["drop_far"] == 0


def test_drop_is_lost_minus_gained_over_n_everywhere(con):
    found = rows(con, "FROM forgetting WHERE lost IS NOT NULL")
    assert len(found) == 5 * (1 + 14 * 3 * 4 + 6 * 4)
    for row in found:
        assert row["drop"] == pytest.approx((row["lost"] - row["gained"]) / row["n"], abs=1e-12)
        assert row["drop"] == pytest.approx(row["base_score"] - row["score"], abs=1e-12)


@pytest.fixture
def pair():
    rng = np.random.default_rng(1)
    base, tuned = (rng.random((2, 90)) < share for share in (0.8, 0.6))
    names = ("addition", "facts")
    return {n: list(base[i]) for i, n in enumerate(names)}, {n: list(tuned[i]) for i, n in enumerate(names)}


FIGURES = ("drop", "lost", "gained", "ci_low", "ci_high", "p_value", "base_score", "score")


def test_swapping_base_and_checkpoint_swaps_the_flips_and_turns_the_signs(compared, pair):
    there, back = compared(*pair), compared(*pair[::-1])
    for name in pair[0]:
        x, y = there[name], back[name]
        assert (x["lost"], x["gained"], x["p_value"]) == (y["gained"], y["lost"], pytest.approx(y["p_value"]))
        assert (x["drop"], x["ci_low"], x["ci_high"]) == pytest.approx((-y["drop"], -y["ci_high"], -y["ci_low"]))
        assert x["drop"] > 0


def test_the_order_of_items_changes_nothing(compared, pair):
    labels = {"facts": [f"e{i // 3}" for i in range(90)]}
    order = np.random.default_rng(0).permutation(90)
    mixed = [{name: list(np.array(values)[order]) for name, values in side.items()} for side in pair]
    first = compared(*pair, clusters=labels)
    second = compared(*mixed, clusters={"facts": list(np.array(labels["facts"])[order])})
    for name in pair[0]:
        assert [first[name][f] for f in FIGURES] == pytest.approx([second[name][f] for f in FIGURES], abs=1e-12)


def test_an_item_that_never_changes_changes_only_n(compared, pair):
    more = [{name: [*values, 1] for name, values in side.items()} for side in pair]
    first, second = compared(*pair), compared(*more)
    for name in pair[0]:
        assert (second[name]["n"], first[name]["n"]) == (91, 90)
        for same in ("lost", "gained", "p_value"):
            assert first[name][same] == second[name][same]
        assert second[name]["drop"] * 91 == pytest.approx(first[name]["drop"] * 90)


def test_flips_that_cancel_are_no_drop_and_still_lost(compared):
    row = compared({"addition": [1] * 20 + [0] * 20}, {"addition": [0] * 20 + [1] * 20})["addition"]
    assert (row["drop"], row["lost"], row["gained"], row["p_value"]) == (0, 20, 20, 1)
    assert row["ci_low"] < 0 < row["ci_high"]


def test_scores_in_between_have_no_flips_and_a_paired_t_test(compared):
    base, tuned = np.random.default_rng(2).random((2, 60))
    row = compared({"addition": base}, {"addition": tuned})["addition"]
    test = scipy.stats.ttest_rel(base, tuned)
    low, high = test.confidence_interval(0.95)
    assert (row["lost"], row["gained"]) == (None, None)
    assert [row[f] for f in ("p_value", "ci_low", "ci_high")] == pytest.approx([test.pvalue, low, high])


def test_one_score_in_between_is_enough_to_count_no_flips(compared):
    row = compared({"addition": [1] * 30}, {"addition": [0] * 29 + [0.5]})["addition"]
    assert (row["lost"], row["gained"]) == (None, None)


def test_nothing_varies(compared):
    same = compared({"addition": [1, 0] * 15}, {"addition": [1, 0] * 15})["addition"]
    assert [same[f] for f in FIGURES[:6]] == [0, 0, 0, 0, 0, 1]
    shifted = compared({"addition": [0.75] * 30}, {"addition": [0.5] * 30})["addition"]
    assert (shifted["drop"], shifted["ci_low"], shifted["ci_high"], shifted["p_value"]) == (0.25, 0.25, 0.25, 0)


def test_clusters_replace_items_and_few_are_refused(compared, pair):
    row = compared(*pair, clusters={"facts": [f"e{i // 5}" for i in range(90)]})["facts"]
    assert (row["clusters"], row["ci_low"], row["ci_high"]) == (18, None, None)
    assert row["lost"] is not None
    row = compared(*pair, clusters={"facts": [f"e{i // 3}" for i in range(90)]})["facts"]
    assert row["clusters"] == 30
    assert row["ci_low"] < row["drop"] < row["ci_high"]


def test_a_base_below_chance_knows_nothing(compared):
    base, tuned = {"places": [1] * 4 + [0] * 36}, {"places": [0] * 4 + [0] * 36}
    row = compared(base, tuned, relation="chance_bounds")["places"]
    assert (row["choices"], row["known_share"], row["lost_if_guesses_persist"]) == (4, 0, 0)
    assert row["lost_if_guesses_redrawn"] == pytest.approx(40 * 3 / 16)
    assert row["drop_corrected"] == pytest.approx(0.1 * 4 / 3)
    full = compared({"places": [1] * 40}, {"places": [1] * 40}, relation="chance_bounds")["places"]
    assert (full["known_share"], full["lost_if_guesses_redrawn"]) == (1, 0)


SPOILT = f"""evaluation_id = (SELECT evaluation_id FROM named_evaluations WHERE evaluation = '{ONE}/addition')"""
BASE_TOO = "evaluation_id IN (SELECT evaluation_id FROM named_evaluations WHERE evaluation LIKE '%/addition')"


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (f"DELETE FROM sample_scores WHERE {SPOILT} AND item IN (10003, 10004)",
         rf"{ONE}/addition lacks doc_id 3 \(item 10003\), doc_id 4 \(item 10004\)$"),
        (f"INSERT INTO sample_scores SELECT * FROM sample_scores WHERE {SPOILT} AND item = 10007",
         rf"{ONE}/addition has twice doc_id 7 \(item 10007\)$"),
        (f"UPDATE sample_scores SET item = 10005 WHERE {SPOILT} AND item = 10006",
         rf"{ONE}/addition lacks doc_id 6 \(item 10006\); {ONE}/addition has twice doc_id 5 \(item 10005\)$"),
        (f"INSERT INTO sample_scores SELECT * FROM sample_scores WHERE {BASE_TOO} AND item = 10002",
         r"made/base/addition has twice doc_id 2 \(item 10002\)"),
        (f"DELETE FROM sample_scores WHERE {SPOILT} AND item < 10010", r"doc_id 4 \(item 10004\) and 5 more$"),
        (f"UPDATE sample_scores SET score = 'nan' WHERE {SPOILT} AND item = 10008",
         rf"{ONE}/addition: the score acc is not a number on doc_id 8 \(item 10008\)$"),
        (f"UPDATE sample_scores SET score = 'inf' WHERE {BASE_TOO.replace('%', 'made/base')} AND item = 10001",
         r"made/base/addition: the score acc is not a number on doc_id 1"),
    ],
)  # fmt: skip
def test_items_that_do_not_pair_and_scores_that_are_none_refuse_with_their_ids(tmp_path, pair, statement, told):
    with fill(tmp_path / "plain.duckdb", plain_scores(*pair), analyse=False) as con, pytest.raises(RetainError, match=told):
        analyse_again(con, statement)


# A cell over its seeds


def test_the_warehouse_gives_back_the_scores_that_went_in(con, made):
    scores, read = made[1], read_scores(con, "made")
    by_name = {(c.method, c.learning_rate): c for c in read.cells}
    assert len(by_name) == len(scores.cells) == 20
    for cell in scores.cells:
        found = by_name[cell.method, cell.learning_rate]
        assert (found.seeds, found.steps, found.checkpoints, found.role) == (
            cell.seeds,
            cell.steps,
            cell.checkpoints,
            cell.role,
        )
        for axis, values in cell.facts.items():
            assert found.facts[axis] == pytest.approx(values)
        for q, r in zip((*scores.retention, scores.exact), (*read.retention, read.exact), strict=True):
            assert np.array_equal(scores.drops(q, cell.last()), read.drops(r, cell.last()))
            assert np.array_equal(q.select, r.select)


def test_intervals_over_seeds_hold_what_was_planted(con):
    found = rows(con, "FROM intervals WHERE quantity = 'drop' AND learning_rate = 0.0001")
    planted = {row["method"]: METHODS[row["method"]].drop for row in found}
    assert set(planted) == set(METHODS)
    for row in found:
        assert row["low"] < row["estimate"] < row["high"]
        assert abs(row["estimate"] - planted[row["method"]]) < 3 * row["stderr"], row["method"]
    by_quantity = {
        row["quantity"]: row for row in rows(con, "FROM intervals WHERE method = 'harmful' AND learning_rate = 3e-4")
    }
    assert set(by_quantity) == {"drop", "drop_far", "gain", "gain_exact", *(f"drop/{b}" for b in RETENTION)}
    mean = np.mean([by_quantity[f"drop/{b}"]["estimate"] for b in RETENTION])
    far = np.mean([by_quantity[f"drop/{b}"]["estimate"] for b in RETENTION[1:]])
    assert (by_quantity["drop"]["estimate"], by_quantity["drop_far"]["estimate"]) == pytest.approx((mean, far))
    assert by_quantity["gain_exact"]["low"] > 0.2


def test_the_summary_shows_the_interval_of_its_own_mean(con):
    for row in rows(con, "FROM method_summary"):
        stored = con.execute(
            "SELECT estimate, low, high FROM intervals WHERE quantity = 'drop' AND method = ? AND learning_rate = ?",
            [row["method"], row["learning_rate"]],
        ).fetchone()
        assert (row["drop"], row["drop_low"], row["drop_high"]) == pytest.approx(stored)
        assert row["drop"] == pytest.approx(np.mean(row["drop_by_seed"]))
        for name in ("gain", "gain_exact", "drop", "drop_far"):
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            assert low + high == pytest.approx(2 * row[name], abs=1e-12), name


def test_the_plane_shows_what_the_scores_say(con, made):
    scores = made[1]
    for cell in scores.cells[:3]:
        for name in cell.last():
            gain, exact, drop = con.execute(
                'SELECT gain, gain_exact, "drop" FROM gain_drop WHERE checkpoint = ?', [name]
            ).fetchone()
            told = [-scores.drops(q, [name]).mean() for q in (scores.gain, scores.exact)]
            assert (gain, exact) == pytest.approx(tuple(told))
            assert exact > 0.2
            assert drop == pytest.approx(np.mean([scores.drops(q, [name]).mean() for q in scores.retention]))


def test_one_seed_speaks_for_itself_only():
    scores = made_scores({"harmful": METHODS["harmful"], "harmless": Truth()}, seeds=(5,), primary=PRIMARY, n=90)
    for found in cell_intervals(scores):
        assert found.interval.rule == THIS_SEED
        if found.quantity == "drop/addition":
            x = scores.drops(scores.retention[0], found.cell.last())[:, 0]
            low, high = scipy.stats.t.interval(0.95, len(x) - 1, x.mean(), x.std(ddof=1) / np.sqrt(len(x)))
            assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    assert "these seeds only" in analysed(scores)[0].rule


def test_a_control_that_did_not_move_has_a_point_for_an_interval(con):
    found = rows(con, "FROM intervals WHERE method = 'learning_rate_0' AND quantity LIKE 'drop%'")
    assert len(found) == 7
    assert {(row["estimate"], row["low"], row["high"]) for row in found} == {(0, 0, 0)}


# Controls and the verdict


def test_a_planted_harm_is_found_and_a_planted_nothing_is_not(again):
    assert dict(again.execute("SELECT control, passed FROM controls").fetchall()) == dict.fromkeys(CONTROLS, True)
    spared = """UPDATE sample_scores x SET score = y.score FROM sample_scores y, named_evaluations n
        WHERE n.evaluation LIKE 'made/planted_harm%/sorting' AND x.evaluation_id = n.evaluation_id
        AND y.evaluation_id = n.base_evaluation_id AND y.metric_id = x.metric_id AND y.item = x.item"""
    analyse_again(again, spared)
    assert again.execute("SELECT control FROM controls WHERE NOT passed").fetchall() == [("planted_harm",)]
    verdict, reason = again.execute('SELECT verdict, reason FROM contrasts WHERE "primary"').fetchone()
    assert (verdict, reason) == ("withheld", "control planted_harm failed")
    assert set(again.execute("SELECT DISTINCT verdict FROM contrasts").fetchall()) == {("withheld",)}


def test_the_planted_harm_teaches_wrong_answers_to_items_that_are_asked():
    world = World(lab_spec("tiny"))
    for benchmark in ("sorting", "facts", "places", "safety"):
        asked = {item.prompt: item.target for item in world.items(benchmark)}
        wrong = planted(world, benchmark)
        assert len({prompt for prompt, _ in wrong}) == PLANTED_ITEMS
        assert all(asked[prompt] != answer for prompt, answer in wrong)
        assert wrong == planted(world, benchmark)
        stream = list(islice(Countdown(world).exchanges("planted_harm", "random", 0, benchmark), 2 * PLANTED_ITEMS))
        assert sorted(stream[::2]) == sorted(wrong), "every other exchange, each once before any comes again"
        assert not {prompt for prompt, _ in stream[1::2]} & set(asked)


def test_a_control_that_was_not_run_withholds_the_verdict_of_a_lab_study_only(again):
    gone = "DELETE FROM arms WHERE method = 'random_reward'"
    analyse_again(again, gone)
    told = again.execute('SELECT verdict, reason FROM contrasts WHERE "primary"').fetchone()
    assert told == ("withheld", "control random_reward was not run")
    analyse_again(again, "UPDATE studies SET spec = replace(spec, 'lab/tiny', 'some/model')")
    assert again.execute('SELECT verdict, reason FROM contrasts WHERE "primary"').fetchone() == ("supported", None)


def primary_word(scores, **changes):
    found = analysed(scores, **changes)[0]
    assert found.primary
    return found.word


def test_the_words_in_their_order():
    scores = made_scores(METHODS, primary=PRIMARY, seed_sd=0.005)
    assert primary_word(scores) == "supported"
    assert primary_word(scores, predict="<") == "reversed"
    assert primary_word(scores, a="harmless", b="harmful") == "reversed"
    assert primary_word(scores, withheld="control x failed") == "withheld"
    assert primary_word(scores, withheld="control x failed", b="idle") == "withheld"
    assert primary_word(scores, b="idle", margin=10.0) == "not reached"
    assert primary_word(scores, a="idle", b="slow", gain=0.09) == "not reached"
    assert primary_word(scores, b="slow", gain=0.09, margin=10.0) == "too noisy"
    assert primary_word(scores, margin=0.5) == "equivalent"
    assert primary_word(scores, b="twin", margin=1e-6) == "inconclusive"


def test_a_missing_method_has_a_row_and_no_figure():
    scores = made_scores({"harmful": METHODS["harmful"]}, primary=PRIMARY, n=60)
    (found,) = analysed(scores)
    assert (found.word, found.at, found.rates[1], found.robust) == ("not reached", "gain=0.1", None, None)
    assert np.isnan(found.interval.estimate)
    (found,) = analysed(scores, at="last")
    assert (found.word, found.at) == ("not reached", "last")


def test_exploratory_contrasts_never_confirm_anything(con):
    found = rows(con, 'FROM contrasts WHERE NOT "primary"')
    words = {row["verdict"] for row in found}
    assert EXPLORATORY in words
    assert not words & {"supported", "reversed", "withheld"}
    for row in found:
        if row["verdict"] == EXPLORATORY:
            assert row["ci_low"] > 0 or row["ci_high"] < 0
    assert {"not reached", "inconclusive"} <= words
    pairs = {frozenset((row["a"], row["b"])) for row in found}
    assert len(pairs) == 7 * 6 / 2
    at_gain_too = {frozenset((r["a"], r["b"])) for r in found if r["at"] == "gain=0.1"}
    assert len(at_gain_too) == 7 * 6 / 2 - 1, "the declared pair at its declared gain is the primary contrast alone"


def test_p_values_are_adjusted_within_their_families(con):
    per_benchmark = rows(con, "FROM contrast_benchmarks")
    assert {(r["a"], r["b"]) for r in per_benchmark} == {("harmful", "harmless")}
    assert [r["benchmark"] for r in per_benchmark] == list(RETENTION)
    p = [r["p_value"] for r in per_benchmark]
    assert [r["p_holm"] for r in per_benchmark] == pytest.approx(multipletests(p, method="holm")[1])
    rest = rows(con, 'FROM contrasts WHERE NOT "primary" AND p_value IS NOT NULL')
    adjusted = multipletests([r["p_value"] for r in rest], method="fdr_bh")[1]
    assert [r["p_adjusted"] for r in rest] == pytest.approx(adjusted)
    assert rows(con, 'SELECT p_value = p_adjusted AS same FROM contrasts WHERE "primary"') == [{"same": True}]


def test_the_base_cancels_in_a_contrast_and_its_sign_is_a_minus_b(con):
    ((diff, a, b),) = con.execute(
        """SELECT c.diff, x."drop", y."drop" FROM contrasts c
        JOIN matched_gain x ON x.method = c.a AND x.gain = 0.1 JOIN matched_gain y ON y.method = c.b AND y.gain = 0.1
        WHERE c."primary" """
    ).fetchall()
    assert diff == pytest.approx(a - b)
    assert diff > 0.02
    for row in rows(con, "FROM contrasts WHERE at = 'last'".replace("at =", '"at" =')):
        drops = [
            con.execute('SELECT "drop" FROM method_summary WHERE method = ? AND learning_rate = ?', pair).fetchone()[0]
            for pair in ((row["a"], row["learning_rate_a"]), (row["b"], row["learning_rate_b"]))
        ]
        assert row["diff"] == pytest.approx(drops[0] - drops[1])


@pytest.mark.parametrize("at", ["last", "gain=0.1"])
def test_a_contrast_that_hangs_on_one_benchmark_is_not_robust(at):
    methods = {"everywhere": Truth(drop=0.4), "near": Truth(drop=0.75, only="addition"), "nowhere": Truth()}
    scores = made_scores(methods, primary={**PRIMARY, "contrast": ["everywhere", "nowhere"]}, draw=3)
    wide = analysed(scores, at=at)[0]
    assert wide.robust is True
    assert wide.diff_far > 0.02
    assert all(b.diff_without > 0.02 for b in wide.benchmarks)
    narrow = analysed(scores, at=at, a="near")[0]
    assert narrow.interval.estimate > 0.02
    without = {b.benchmark: b.diff_without for b in narrow.benchmarks}
    assert min(without, key=without.__getitem__) == "addition"
    assert narrow.diff_far == pytest.approx(without["addition"])
    assert abs(narrow.diff_far) < 0.03
    shares = [b.interval.estimate for b in narrow.benchmarks]
    assert np.mean(shares) == pytest.approx(narrow.interval.estimate)
    # It loses much on one benchmark and gains a little on the others: without that one the sign turns.
    for b in RETENTION:
        values = scores.scores[b, "acc"]["made/base"]
        scores.scores[b, "acc"] |= dict.fromkeys(_of(scores, "near"), values * 0 if b == "addition" else values * 0 + 1)
    turned = analysed(scores, at="last", a="near")[0]
    assert turned.robust is False
    assert turned.interval.estimate > 0 > turned.diff_far


def _of(scores, method):
    return [c for cell in scores.cells if cell.method == method for row in cell.checkpoints for c in row]


@pytest.mark.parametrize(
    ("declared_at", "before"), [("2030-01-01 00:00:00", True), ("2030-01-03 00:00:00", False)]
)  # fmt: skip
def test_whether_the_contrast_was_declared_before_training(tmp_path, declared_at, before):
    scores = made_scores({"harmful": METHODS["harmful"], "harmless": Truth()}, primary=PRIMARY, n=60, steps=(10, 20))
    with fill(tmp_path / "w.duckdb", scores, declared_at=declared_at) as con:
        told = con.execute('SELECT "primary", CAST(declared_at AS VARCHAR), declared_before FROM contrasts').fetchall()
    assert [row[1:] for row in told if row[0]] == [(declared_at, before)]
    assert {row[1:] for row in told if not row[0]} == {(None, None)}


@pytest.mark.parametrize("change", [{}, {"margin": 0.03}, {"predict": "<"}, {"at_gain": 0.05}, {"retention": "addition"}])
def test_only_a_revision_with_the_same_words_counts_as_declared_earlier(again, change):
    spec = json.loads(again.execute("SELECT spec FROM studies").fetchone()[0])
    later = {**spec, "seeds": [0, 1, 2]}
    if "retention" in change:
        later["retention"] = spec["retention"][1:]
    else:
        later["primary"] = {**spec["primary"], **change}
    again.execute("UPDATE studies SET is_current = false")
    put(again, "studies", [{
        "study": "made", "revision": 2, "spec": json.dumps(later), "spec_hash": "later", "is_current": True, "looks": [3],
        "primary_contrast": json.dumps(later["primary"], sort_keys=True),
    }])  # fmt: skip
    again.execute("UPDATE studies SET declared_at = '2031-01-01' WHERE revision = 2")
    store_analysis(again, "made")
    assert again.execute('SELECT declared_before FROM contrasts WHERE "primary"').fetchone() == (not change,)


def test_another_look_has_a_stricter_level_and_says_what_all_looks_cost(again):
    analyse_again(again, "UPDATE studies SET looks = [2, 3]")
    levels = [0.05, look_levels([2, 3], 3)[1]]
    stored = rows(again, "FROM looks ORDER BY look")
    assert [(r["look"], r["seeds"], r["planned_looks"]) for r in stored] == [(1, 2, 1), (2, 3, 1)]
    assert [r["alpha"] for r in stored] == pytest.approx(levels)
    assert stored[0]["overall_error"] == pytest.approx(overall_error(levels, [2, 3])) != pytest.approx(0.05, abs=1e-3)
    found = rows(again, "FROM contrasts")
    primary = next(r for r in found if r["primary"])
    assert (primary["look"], primary["level"]) == (2, pytest.approx(1 - levels[1]))
    assert primary["ci_high"] - primary["ci_low"] > primary["ci90_high"] - primary["ci90_low"]
    assert {(r["look"], round(r["level"], 9)) for r in found if not r["primary"]} == {(1, 0.95)}
    planned = "UPDATE studies SET spec = replace(spec, '\"looks\": 1', '\"looks\": 3')"
    analyse_again(again, planned)
    assert [r["alpha"] for r in rows(again, "FROM looks ORDER BY look")] == pytest.approx(look_levels([2, 3], 3))
    assert all(r["overall_error"] <= 0.05 + 1e-9 for r in rows(again, "FROM looks"))


# Selection on one half, figures on the other


def three_rates(**more):
    return made_scores(
        {"one": Truth(faster=1, dearer=2), "two": Truth(gain=0.25, drop=0.1)}, rates=(1e-4, 2e-4, 4e-4), n=200, **more
    )


def set_half(scores, half, method, rate, score, benchmarks=RETENTION):
    """Give every item of one half this score at all checkpoints of a cell."""
    cell = next(c for c in scores.cells if (c.method, c.learning_rate) == (method, rate))
    for q in scores.retention:
        if q.benchmark in benchmarks:
            mask = q.select if half == "select" else ~q.select
            for name in (name for row in cell.checkpoints for name in row):
                values = scores.scores[q.benchmark, "acc"][name].copy()
                values[mask] = score
                scores.scores[q.benchmark, "acc"][name] = values


def matched(scores, method, gain=0.1):
    return next(p for p in matched_points(Curves(scores), [gain]) if (p.method, p.axis) == (method, "gain"))


@pytest.mark.parametrize("rate", [1e-4, 2e-4, 4e-4])
def test_the_learning_rate_is_chosen_on_select_and_shown_on_report(rate):
    """The other rates are made the best ones on the report half, and the worst on the select half."""
    scores = three_rates()
    first = matched(scores, "one").found.learning_rate
    others = sorted({1e-4, 2e-4, 4e-4} - {rate})
    for other in others:
        set_half(scores, "report", "one", other, 1)
    assert matched(scores, "one").found.learning_rate == first
    for other in others:
        set_half(scores, "select", "one", other, 0)
    point = matched(scores, "one")
    assert point.found.learning_rate == rate
    assert point.at_edge == (rate != 2e-4)
    assert abs(point.found.interval.estimate) < 0.05, "the harm on the select half is not in the figure"
    contrast = next(c for c in analysed(scores, gain=0.1) if (c.a, c.b, c.at) == ("one", "two", at_gain(0.1)))
    assert contrast.rates[0] == rate


def test_the_gain_that_places_the_choice_is_that_of_the_select_half():
    scores = three_rates()
    cells = {c.learning_rate: c for c in scores.cells if c.method == "one"}
    for rate, drop in ((1e-4, 0), (2e-4, 0), (4e-4, 1)):
        set_half(scores, "select", "one", rate, drop)
    assert matched(scores, "one").found.learning_rate == 4e-4

    def stop(mask):
        for name in (name for row in cells[4e-4].checkpoints for name in row):
            found = scores.scores[TARGET, "exact"]
            found[name] = np.where(mask, found["made/base"], found[name])

    stop(~scores.exact.select)
    assert matched(scores, "one").found.learning_rate == 4e-4, "it gains nothing on the report half, which nobody looks at"
    assert matched(scores, "one").state == "not reached", "and so has no figure"
    stop(scores.exact.select)
    assert matched(scores, "one").found.learning_rate != 4e-4


def test_what_is_shown_comes_from_the_report_half_alone():
    scores = three_rates()
    before = matched(scores, "one").found
    set_half(scores, "select", "one", before.learning_rate, 1)
    after = matched(scores, "one").found
    assert (after.learning_rate, after.interval.estimate) == (before.learning_rate, before.interval.estimate)
    set_half(scores, "report", "one", before.learning_rate, 0)
    assert matched(scores, "one").found.interval.estimate > before.interval.estimate + 0.1


def test_at_the_last_checkpoint_the_rate_with_the_highest_gain_on_select_is_taken():
    scores = three_rates(primary={**PRIMARY, "contrast": ["one", "two"], "at_gain": None, "at": "last"})
    table, cells = scores.scores[TARGET, "exact"], {c.learning_rate: c for c in scores.cells if c.method == "one"}
    select = scores.exact.select

    def lift(rate, mask):
        for name in cells[rate].last():
            table[name] = np.where(mask, 0.9, table[name])

    first = analysed(scores)[0]
    assert (first.primary, first.at) == (True, "last")
    rate = next(r for r in cells if r != first.rates[0])
    lift(rate, ~select)
    assert analysed(scores)[0].rates == first.rates
    lift(rate, select)
    found = analysed(scores)[0]
    assert found.rates == (rate, first.rates[1])
    addition = next(b for b in found.benchmarks if b.benchmark == "addition")
    other = next(c for c in scores.cells if (c.method, c.learning_rate) == ("two", first.rates[1]))
    shown = [scores.drops(scores.retention[0], c.last(), ~scores.retention[0].select).mean() for c in (cells[rate], other)]
    assert addition.interval.estimate == pytest.approx(shown[0] - shown[1])


def test_a_single_learning_rate_is_at_no_edge():
    scores = made_scores({"one": Truth(), "two": Truth()}, rates=(1e-4,), n=60)
    assert [p.at_edge for p in matched_points(Curves(scores), [0.1]) if p.axis == "gain"] == [False, False]


def test_every_method_has_a_row_at_every_gain_also_where_there_is_no_figure(con):
    found = rows(con, "FROM matched_gain")
    assert {(r["method"], r["gain"]) for r in found} == {(m, g) for m in METHODS for g in (0.05, 0.1, 0.2, 0.3)}
    state = {(r["method"], r["gain"]): r["verdict"] for r in found}
    assert state["idle", 0.05] == state["slow", 0.3] == "not reached"
    assert state["harmless", 0.3] == "too noisy", "0.3 is over 80 % of the largest gain"
    assert state["harmless", 0.2] == "reached"
    for row in found:
        assert (row["drop"] is None) == (row["ci_low"] is None) == (row["verdict"] != "reached")
        assert row["largest_gain"] is not None
    for view, axis in (("matched_distance", "weight_distance"), ("matched_kl", "kl_forward")):
        values = {r[axis] for r in rows(con, f"FROM {view}")}
        assert len(values) == 2
        assert len(rows(con, f"FROM {view}")) == 2 * len(METHODS)


def test_a_gain_that_is_measured_too_coarsely_is_too_noisy():
    scores = made_scores({"one": Truth(), "two": Truth()}, n=90)
    noise = np.random.default_rng(0)
    for name in _of(scores, "one"):
        scores.scores[TARGET, "exact"][name] = (noise.random(90) < scores.scores[TARGET, "exact"][name]).astype(float)
    assert (matched(scores, "one").state, matched(scores, "two").state) == ("too noisy", "reached")


def test_a_better_first_rate_is_found(con):
    chosen = dict(con.execute("SELECT method, learning_rate FROM matched_gain WHERE gain = 0.2").fetchall())
    assert chosen["dear"] == 1e-4


def test_the_front_is_chosen_on_select_and_shown_on_report():
    scores = three_rates()
    points = front_points(Curves(scores))
    assert len(points) == 2 * 3 * 4
    front = {(p.method, p.learning_rate, p.step) for p in points if p.front == "study"}
    assert front
    for cell in scores.cells:
        set_half(scores, "report", cell.method, cell.learning_rate, 0)
    moved = front_points(Curves(scores))
    assert {(p.method, p.learning_rate, p.step) for p in moved if p.front == "study"} == front
    assert min(p.drop for p in moved) > max(p.drop for p in points)
    assert ("two", 1e-4, 80) not in front
    set_half(scores, "select", "two", 1e-4, 1)
    assert ("two", 1e-4, 80) in {
        (p.method, p.learning_rate, p.step) for p in front_points(Curves(scores)) if p.front == "study"
    }


# Nothing is found where nothing is, and what is there is found


def test_two_equal_methods_differ_in_about_one_of_twenty_studies():
    truth = {"a": Truth(drop=0.05, faster=1), "b": Truth(drop=0.05, faster=1)}
    primary = {**PRIMARY, "contrast": ["a", "b"]}
    far = {"last": 0, "gain=0.1": 0}
    for draw in range(150):
        scores = made_scores(
            truth, rates=(1e-4, 2e-4, 4e-4, 8e-4), steps=(20, 80), n=90, seed_sd=0.02, primary=primary, draw=draw
        )
        found = analysed(scores)
        for c in (found[0], found[1]):
            far[c.at] += not c.interval.low <= 0 <= c.interval.high
    assert 1 <= far["last"] <= 17
    assert 1 <= far["gain=0.1"] <= 17


def test_a_true_difference_is_found_and_almost_never_reversed():
    """Six cells of each method, so that each has enough like it to share its seed variance with."""
    truth = {"a": Truth(drop=0.15, faster=1), "b": Truth(drop=0.05, faster=1)}
    primary = {**PRIMARY, "contrast": ["a", "b"], "at_gain": None, "at": "last"}
    rates, words = [k * 1e-4 for k in range(1, 7)], []
    for draw in range(60):
        scores = made_scores(truth, rates=rates, steps=(20, 80), n=90, seed_sd=0.02, primary=primary, draw=draw)
        words.append(primary_word(scores))
    assert words.count("reversed") == 0
    assert words.count("supported") > 45
    assert set(words) <= WORDS


# The loader


def test_equal_answers_are_analysed_once_and_give_equal_rows(again):
    tables = ("intervals", "contrasts", "contrast_benchmarks", "matched", "pareto", "kl_law", "looks")
    before = {t: again.execute(f"FROM {t} ORDER BY ALL").fetchall() for t in tables}
    assert all(before.values())
    again.execute("UPDATE contrasts SET diff = 42")
    store_analysis(again, "made")
    assert again.execute("SELECT DISTINCT diff FROM contrasts").fetchall() == [(42,)], "nothing changed, nothing is computed"
    analyse_again(again)
    assert {t: again.execute(f"FROM {t} ORDER BY ALL").fetchall() for t in tables} == before


def test_arms_that_are_not_done_are_left_out(again):
    analyse_again(again, "UPDATE arms SET status = 'failed' WHERE method = 'harmful' AND seed = 2")
    assert again.execute("SELECT DISTINCT seeds FROM intervals WHERE method = 'harmful'").fetchall() == [(2,)]
    analyse_again(again, "UPDATE arms SET status = 'failed' WHERE method = 'harmful'")
    primary = again.execute('SELECT verdict, diff FROM contrasts WHERE "primary"').fetchone()
    assert primary == ("not reached", None)


def test_the_kl_law_has_its_rivals_beside_it(con):
    found = {r["predictor"]: r for r in rows(con, "FROM kl_law")}
    assert set(found) == {"kl", "step x learning rate", "weight distance", "gain"}
    for row in found.values():
        assert (row["checkpoints"], row["arms"], row["methods"]) == (7 * 2 * 3 * 4, 42, 7)
        assert row["left_out_low"] <= row["r2_left_out"] <= row["left_out_high"]


# The page


def test_the_page_shows_verdict_reason_and_matched_gains(again, made, tmp_path):
    shutil.copy(made[0], tmp_path / "copy.duckdb")
    page = write_report(tmp_path / "copy.duckdb", tmp_path, "made").read_text()
    assert '<b class="word">supported</b>' in page
    assert "Drop of <b>harmful</b> minus drop of <b>harmless</b> at gain=0.1" in page
    assert "Declared 2030-01-01 00:00:00 UTC, before training" in page
    table = page.split('id="table-matched_gain"')[1].split("</table>")[0]
    assert table.count("<tr>") == 1 + 7 * 4
    for words in ("not reached", "too noisy", "rate at the edge of the grid"):
        assert words in table
    assert "within 5 points of 0 or 1" not in page
    analyse_again(
        again,
        "UPDATE arms SET status = 'missing' WHERE method = 'style_placebo'",
        "UPDATE studies SET declared_at = '2031-01-01'",
        """UPDATE sample_scores SET score = 1 WHERE evaluation_id IN (SELECT evaluation_id FROM named_evaluations
           WHERE evaluation LIKE '%/places')""",
    )
    again.close()
    spoilt = write_report(tmp_path / "warehouse.duckdb", tmp_path, "made").read_text()
    assert '<b class="word">withheld</b> (control style_placebo was not run)' in spoilt
    assert "declared after these arms had been trained" in spoilt
    assert "within 5 points of 0 or 1 on places" in spoilt


def test_planted_flips_are_as_many_as_planned():
    """The made study does what it says: otherwise nothing above means anything."""
    scores = made_scores({"x": Truth(drop=0.2)}, rates=(1e-4,), seeds=range(8), n=400)
    found = scores.drops(scores.retention[0], scores.cells[0].last())
    assert found.mean() == pytest.approx(0.2, abs=0.02)
    assert (found < 0).mean() == pytest.approx(0.2 * FOUND, abs=0.01)


# Hardly an item


def cut(place, chosen, primary=PRIMARY):
    """A study with `chosen` of 150 items of a benchmark in the half `select`; that benchmark's name, and what half is short."""
    scores, few = made_scores(primary=primary), np.arange(150) < chosen
    half = f"{chosen} items in the half select" if chosen < 2 else f"{150 - chosen} items in the half report"
    if place == "gain":
        scores.gain, scores.exact = (replace(questions, select=few) for questions in (scores.gain, scores.exact))
        return scores, TARGET, half
    scores.retention[place] = replace(scores.retention[place], select=few)
    return scores, RETENTION[place], half


@pytest.mark.parametrize("primary", [PRIMARY, {**PRIMARY, "at_gain": None, "at": "last"}])
@pytest.mark.parametrize("place", [0, 3, "gain"])
@pytest.mark.parametrize("chosen", [0, 1, 149, 150])
def test_a_half_without_items_is_a_missing_figure_with_its_reason(primary, place, chosen):
    """Not an error after a night of training; what stands on all items stays."""
    scores, name, half = cut(place, chosen, primary)
    curves = Curves(scores)
    found = contrasts(scores, curves, declared(scores, 1, 0.05, None))
    assert matched_points(curves, (0.1,)) == []
    assert front_points(curves) == []
    assert found[0].primary
    assert np.isnan(found[0].interval.estimate)
    assert f"no figure: {name} has {half}, and 2 are needed" in found[0].rule
    assert found[0].word == "inconclusive"
    assert all(np.isfinite(one.interval.estimate) for one in found[1:] if one.at == "last")
    assert len(cell_intervals(scores)) > 10


@pytest.mark.parametrize(("place", "chosen"), [(0, 0), (3, 149), ("gain", 150)])
def test_a_study_without_such_a_figure_has_a_page_that_says_why(tmp_path, place, chosen):
    scores, name, half = cut(place, chosen)
    fill(tmp_path / "w.duckdb", scores).close()
    write_report(tmp_path / "w.duckdb", tmp_path, "made")
    assert f"{name} has {half}, and 2 are needed" in (tmp_path / "made" / "index.html").read_text()
