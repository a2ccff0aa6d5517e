"""The warehouse says what the stored answers say, whoever asks and however often it is rebuilt."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from retain_core.arms import Checkpoint
from retain_core.errors import RetainError
from retain_core.evaluation.answers import ANSWERS, SCORES
from retain_core.run import load_warehouse, open_study
from retain_core.study_file import load_study
from retain_core.warehouse.compare import store_comparisons
from tests.conftest import settings_at

VIEWS = (
    "studies", "arms", "checkpoints", "evaluations", "samples", "scores", "forgetting", "gain_drop", "flips", "method_summary",
    "controls", "support", "compared", "study_benchmarks", "divergences", "noise_floor", "floor_runs", "chance_bounds",
    "audits", "intervals", "contrasts", "contrast_benchmarks", "matched_gain", "matched_distance", "matched_kl", "pareto",
    "kl_law", "looks", "over_bases", "trend", "published_results", "published_correlations", "published_gaps", "target_symbols",
)  # fmt: skip


@pytest.fixture(scope="module")
def parquet(smoke_plan) -> dict[tuple[str, str], pd.DataFrame]:
    """(checkpoint, benchmark) -> the raw answers with their primary score, read from Parquet alone."""
    found = {}
    base = [("smoke/base", pair) for pair in smoke_plan.base_evaluations]
    tuned = [(a.spec.checkpoint(*c), pair) for a in smoke_plan.arms for c, pairs in a.evaluations.items() for pair in pairs]
    for checkpoint, (plan, artifact) in [*base, *tuned]:
        if plan.kind != "evaluation":
            continue
        scores = pd.read_parquet(artifact.file(SCORES)).query("metric == 'acc'")
        found[checkpoint, plan.benchmark] = pd.read_parquet(artifact.file(ANSWERS)).merge(scores, on=["item", "repeat"])
    return found


def test_forgetting_is_what_the_answers_say(warehouse, parquet):
    rows = warehouse.execute("FROM forgetting WHERE metric = 'acc'").df()
    assert len(rows) == 2 * (1 + 3 * 2)
    for row in rows.itertuples():
        both = parquet["smoke/base", row.benchmark].merge(
            parquet[row.checkpoint, row.benchmark], on="item", suffixes=("_b", "_c")
        )
        difference = both.score_b - both.score_c
        assert row.drop == pytest.approx(difference.mean(), abs=1e-12)
        assert (row.lost, row.gained) == ((difference > 0).sum(), (difference < 0).sum())
        assert row.n == len(both) == 400
        assert row.drop == pytest.approx((row.lost - row.gained) / row.n, abs=1e-12)
        flips = row.lost + row.gained
        p = scipy.stats.binomtest(int(row.lost), int(flips), 0.5).pvalue if flips else 1.0
        assert row.p_value == pytest.approx(p, abs=1e-12)


def test_intervals_are_the_t_interval_over_items_or_clusters(warehouse, parquet):
    rows = warehouse.execute("FROM forgetting WHERE step > 0 AND lost + gained > 0").df()
    assert len(rows)
    for row in rows.itertuples():
        both = parquet["smoke/base", row.benchmark].merge(
            parquet[row.checkpoint, row.benchmark], on="item", suffixes=("_b", "_c")
        )
        x = (both.score_b - both.score_c).to_numpy()
        error, df = x.std(ddof=1) / np.sqrt(len(x)), len(x) - 1
        if both.cluster_b.notna().all():
            sums = pd.Series(x - x.mean()).groupby(both.cluster_b).sum()
            groups = len(sums)
            error, df = np.sqrt(groups / (groups - 1) * (sums**2).sum()) / len(x), groups - 1
        half = scipy.stats.t.ppf(0.975, df) * error
        assert (row.ci_low, row.ci_high) == pytest.approx((x.mean() - half, x.mean() + half), abs=1e-9)


def test_the_base_against_itself_is_zero(warehouse):
    rows = warehouse.execute("FROM forgetting WHERE checkpoint = 'smoke/base'").df()
    assert set(rows.benchmark) == {"addition", "places"}
    assert (rows[["drop", "lost", "gained", "ci_low", "ci_high", "step"]] == 0).all().all()
    assert (rows.p_value == 1).all()
    plane = warehouse.execute("SELECT gain, \"drop\", drop_far, gain_exact, step FROM gain_drop WHERE arm = 'smoke/base'")
    assert plane.fetchall() == [(0, 0, 0, 0, 0)]


def test_flips_are_the_lost_and_gained_items(warehouse):
    counted = warehouse.execute("""
        SELECT checkpoint, benchmark, count(*) FILTER (direction = 'lost'), count(*) FILTER (direction = 'gained')
        FROM flips GROUP BY ALL ORDER BY ALL""").fetchall()
    told = warehouse.execute("""SELECT checkpoint, benchmark, lost, gained FROM compared
        WHERE metric = 'acc' AND lost + gained > 0 ORDER BY ALL""").fetchall()
    assert counted == told != []
    wrong = warehouse.execute("SELECT count(*) FROM flips WHERE direction = 'lost' AND response = target").fetchone()
    assert wrong == (0,)


def test_gain_drop_averages_retention_and_leaves_near_benchmarks_out_of_far(warehouse):
    for arm, step, gain, drop, far in warehouse.execute('SELECT arm, step, gain, "drop", drop_far FROM gain_drop').fetchall():
        rows = dict(
            warehouse.execute(
                "SELECT benchmark, \"drop\" FROM compared WHERE arm = ? AND step = ? AND metric = 'acc'", [arm, step]
            ).fetchall()
        )
        assert drop == pytest.approx((rows["addition"] + rows["places"]) / 2, abs=1e-15)
        assert far == rows["places"]
        assert gain == pytest.approx(-rows["countdown"], abs=1e-15)


def test_control_of_learning_rate_0(warehouse):
    assert warehouse.execute('SELECT control, passed, flips, "drop" FROM controls').fetchall() == [
        ("learning_rate_0", True, 0, 0)
    ]


def test_samples_has_a_row_per_evaluation_item_and_metric(warehouse):
    per_evaluation = warehouse.execute(
        "SELECT count(*), count(DISTINCT item) FROM samples GROUP BY evaluation, metric"
    ).fetchall()
    assert set(per_evaluation) == {(400, 400), (520, 520)}


def test_any_plain_connection_from_any_directory_reads_every_relation(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True, config={"enable_external_access": False}) as con:
        for view in VIEWS:
            assert con.execute(f"SELECT count(*) FROM {view}").fetchone()[0] > 0, view


def content(path: Path) -> dict[str, list]:
    with duckdb.connect(str(path), read_only=True) as con:
        return {view: con.execute(f"FROM {view} ORDER BY ALL").fetchall() for view in VIEWS}


def test_a_deleted_warehouse_is_rebuilt_to_equal_content_without_a_model(home, smoke_study):
    before = content(home / "warehouse.duckdb")
    (home / "warehouse.duckdb").unlink()
    with open_study(load_study(smoke_study), settings_at(home)) as running:
        assert running.plan.done
        assert load_warehouse(running, {}) == len(before["evaluations"]) + 6 * 3
    assert content(home / "warehouse.duckdb") == before


def test_loading_again_reads_nothing_and_changes_nothing(home, smoke_study):
    before = content(home / "warehouse.duckdb")
    with open_study(load_study(smoke_study), settings_at(home)) as running:
        assert load_warehouse(running, {}) == 0
    assert content(home / "warehouse.duckdb") == before


def test_another_schema_version_means_rebuild(home, smoke_study):
    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        con.execute("UPDATE schema_version SET version = 0")
    with open_study(load_study(smoke_study), settings_at(home)) as running:
        assert load_warehouse(running, {}) > 0


def test_a_load_that_fails_leaves_the_warehouse_as_it_was(home, smoke_study, monkeypatch):
    before = content(home / "warehouse.duckdb")

    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr("retain_core.warehouse.load.store_comparisons", fail)
    with open_study(load_study(smoke_study), settings_at(home)) as running, pytest.raises(RuntimeError):
        load_warehouse(running, {})
    assert content(home / "warehouse.duckdb") == before


def test_unlike_settings_refuse_to_compare_and_say_what_differs(home):
    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        settings = con.execute("SELECT settings FROM evaluations WHERE evaluation = 'smoke/base/addition'").fetchone()[0]
        other = json.dumps({**json.loads(settings), "batch_size": 8})
        con.execute(
            """UPDATE stored_evaluations SET settings = ?, settings_hash = 'other' WHERE evaluation_id =
            (SELECT evaluation_id FROM named_evaluations WHERE evaluation = 'smoke/base/addition')""",
            [other],
        )
        con.execute("DELETE FROM comparisons")
        with pytest.raises(RetainError, match=r"addition.*unlike settings: batch_size \(8 against 400\)"):
            store_comparisons(con, "smoke")


def spoil_and_compare(home, statements):
    """Change stored scores, compute what follows from them anew, and return the connection."""
    con = duckdb.connect(str(home / "warehouse.duckdb"))
    for statement in statements:
        con.execute(statement)
    con.execute("DELETE FROM comparisons")
    con.execute("DELETE FROM evaluation_scores")
    store_comparisons(con, "smoke")
    return con


def set_scores(checkpoint: str, benchmark: str, metric: str, score: float, items: int) -> str:
    return f"""UPDATE sample_scores SET score = {score}
        WHERE metric_id = (SELECT metric_id FROM metrics WHERE metric = '{metric}')
        AND evaluation_id = (SELECT evaluation_id FROM named_evaluations WHERE evaluation = '{checkpoint}/{benchmark}')
        AND item IN (SELECT item FROM items WHERE benchmark = '{benchmark}' AND doc_id < {items})"""


def test_gain_is_positive_when_the_target_improves(home):
    arm = "smoke/grpo-lr1e-3-s0"
    changes = [
        set_scores("smoke/base", "countdown", "acc", 0, 520), set_scores(f"{arm}@4", "countdown", "acc", 0, 520),
        set_scores(f"{arm}@4", "countdown", "acc", 1, 130), set_scores("smoke/base", "countdown", "exact", 0.1, 520),
        set_scores(f"{arm}@4", "countdown", "exact", 0.4, 520), set_scores("smoke/base", "addition", "acc", 1, 400),
        set_scores(f"{arm}@4", "addition", "acc", 1, 400), set_scores(f"{arm}@4", "addition", "acc", 0, 40),
    ]  # fmt: skip
    with spoil_and_compare(home, changes) as con:
        row = con.execute("SELECT gain, gain_exact FROM gain_drop WHERE arm = ? AND step = 4", [arm]).fetchone()
        assert row == pytest.approx((0.25, 0.3))
        addition = con.execute(
            "SELECT \"drop\", lost, gained FROM forgetting WHERE arm = ? AND step = 4 AND benchmark = 'addition'", [arm]
        ).fetchone()
        assert addition == pytest.approx((0.1, 40, 0))
        summary = con.execute("SELECT gain FROM method_summary WHERE method = 'grpo'").fetchone()
        assert summary == pytest.approx((0.25,))


@pytest.mark.parametrize(
    ("control", "benchmark", "score", "passed"),
    [
        ("learning_rate_0", "addition", None, True), ("learning_rate_0", "addition", 1, False),
        ("constant_reward", "places", None, True), ("constant_reward", "places", 0, False),
        ("base_mixture", "addition", None, True), ("base_mixture", "places", 0, False),
        ("style_placebo", "addition", 0, True), ("style_placebo", "countdown", 1, False),
        ("random_reward", "addition", 0, True), ("random_reward", "countdown", 1, False),
        ("planted_harm", "addition", 0, True), ("planted_harm", "addition", None, False),
    ],
)  # fmt: skip
def test_every_control_can_pass_and_can_fail(home, control, benchmark, score, passed):
    checkpoint = "smoke/learning_rate_0-lr0-s0@4"
    changes = [f"""UPDATE arms SET method = '{control}', config = '{{"harm": "addition"}}' WHERE role = 'control'"""]
    if score is not None:
        metric = "exact" if benchmark == "countdown" else "acc"
        changes.append(set_scores(checkpoint, benchmark, metric, score, 520))
    with spoil_and_compare(home, changes) as con:
        assert con.execute("SELECT control, passed FROM controls").fetchall() == [(control, passed)]


def test_a_half_evaluated_checkpoint_is_shown_nowhere(home, smoke_study, smoke_plan):
    import shutil

    arm = next(a for a in smoke_plan.arms if a.spec.method == "sft")
    lost = next(p for p, _ in arm.evaluations[Checkpoint(4)] if p.benchmark == "addition")
    shutil.rmtree(home / "artifacts" / "evaluation" / lost.key)
    (home / "warehouse.duckdb").unlink()
    with open_study(load_study(smoke_study), settings_at(home)) as running:
        load_warehouse(running, {arm.spec.arm: "killed"})
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        steps = con.execute("SELECT step FROM gain_drop WHERE arm = ? ORDER BY 1", [arm.spec.arm]).fetchall()
        assert steps == [(2,)]
        assert con.execute("SELECT count(*) FROM method_summary WHERE method = 'sft'").fetchone() == (0,)
        assert con.execute("SELECT status, error FROM arms WHERE arm = ?", [arm.spec.arm]).fetchone() == ("failed", "killed")
