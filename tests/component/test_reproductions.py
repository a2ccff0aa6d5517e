"""Published cells beside a study of the same model and target, from a warehouse with known gains and drops."""

import numpy as np
import pytest

from retain_core.report.results import read_results
from retain_core.report.sections.sources import published
from tests.synthetic import Truth, fill, made_scores

METHODS = {"sft": Truth(gain=0.2, drop=0.1), "careful": Truth(gain=0.2, drop=0.02), "grpo": Truth(gain=0.2, drop=0.0)}


@pytest.fixture(scope="module")
def con(tmp_path_factory):
    """Qwen2.5-7B-Instruct on Countdown, as if it had been trained: `careful` is SFT on text in the base's own style."""
    connection = fill(tmp_path_factory.mktemp("made") / "made.duckdb", made_scores(METHODS, rates=(1e-4,)))
    connection.execute("UPDATE arms SET target = 'countdown_cot' WHERE target = 'countdown'")
    connection.execute(
        """UPDATE arms SET algorithm = method, config = '{"expert": "off_style"}' WHERE method IN ('sft', 'grpo')"""
    )
    connection.execute("""UPDATE arms SET config = '{"expert": "in_style"}' WHERE method = 'careful'""")
    named(connection, "Qwen/Qwen2.5-7B-Instruct")
    yield connection
    connection.close()


def named(con, model):
    con.execute("UPDATE studies SET spec = json_merge_patch(spec, json_object('base', json_object('model', ?)))", [model])


def rows(con):
    found = con.execute("FROM reproductions").df()
    return {(row.method, row.quantity): row for row in found.itertuples()}


def test_every_published_cell_stands_beside_ours_with_its_interval(con):
    found = rows(con)
    assert set(found) == {("sft", "gain"), ("sft", "drop"), ("grpo", "gain"), ("grpo", "drop")}
    printed = {("sft", "gain"): 10.4, ("sft", "drop"): 29.2, ("grpo", "gain"): 29.2, ("grpo", "drop"): -0.3}
    for cell, row in found.items():
        assert row.published == printed[cell]
        (said,) = con.execute(
            f'SELECT 100 * "{cell[1]}", 100 * {cell[1]}_low, 100 * {cell[1]}_high FROM method_summary WHERE method = ?',
            [cell[0]],
        ).fetchall()
        assert (row.ours, row.ci_low, row.ci_high) == pytest.approx(said)
        above, below = row.published < row.ci_low, row.published > row.ci_high
        assert row.verdict == ("ours is larger" if above else "ours is smaller" if below else "agrees")
        assert row.seeds == 3
    assert found["sft", "drop"].verdict == "ours is smaller"  # planted: 10 points against 29.2
    assert found["grpo", "drop"].verdict == "agrees"  # planted: nothing against -0.3
    assert found["sft", "gain"].verdict == "ours is larger"  # planted: 20 against 10.4


def test_another_model_has_nothing_beside_it(con):
    named(con, "somebody/another-7B")
    assert not rows(con)
    named(con, "/models/Qwen2.5-7B-Instruct")
    assert len(rows(con)) == 4
    assert not any(row.pinned for row in rows(con).values())


def test_the_page_shows_them(con):
    (_, table) = published(read_results(con, "made"))
    assert len(table.rows) == 4
    shown = [{column.title: column.shown(row) for column in table.columns} for row in table.rows]
    drop = next(row for row in shown if row["method"] == "sft" and row["what"] == "drop")
    assert drop["published"] == "29.2"
    assert np.isclose(float(drop["ours"]), rows(con)["sft", "drop"].ours, atol=0.1)
