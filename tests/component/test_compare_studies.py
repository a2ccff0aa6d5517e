"""`retain compare` of two studies: what was planted between them is found, and what they share is exactly 0."""

import csv
import io
import json
import shutil
from dataclasses import replace

import duckdb
import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from retain_core.compare.command import compare_addresses
from retain_core.compare.studies import INDEPENDENT, PAIRED, SAME, compare_studies
from retain_core.compare.studies_text import COLUMNS, headline, studies_text
from retain_core.errors import InputError
from retain_core.stats.crossed import independent_contrast_interval, mean_components, mean_drop_interval
from tests.conftest import retain
from tests.synthetic import METHODS, RATES, Truth, fill, made_scores

GENTLE = {"first": Truth()} | {name: replace(truth, drop=truth.drop / 2) for name, truth in METHODS.items() if name != "other"}
"""Every drop of `METHODS` halved; the new first method keeps the random streams of the two studies apart."""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """`made`; `gentle` on the same base, with other drops and seeds; `elsewhere` on another base with items of its own.

    Of `gentle`, the arms of `twin` at the first rate with seeds 0 and 1 are those of `made`. Read only.
    """
    path = tmp_path_factory.mktemp("two") / "warehouse.duckdb"
    made = made_scores(seed_sd=0.01)
    gentle = made_scores(GENTLE, seed_sd=0.01, seeds=(0, 1, 2, 3), study="gentle")
    shared = next(c for c in gentle.cells if (c.method, c.learning_rate) == ("twin", RATES[0]))
    original = next(c for c in made.cells if (c.method, c.learning_rate) == ("twin", RATES[0]))
    for mine, theirs in zip(shared.checkpoints, original.checkpoints[:2], strict=False):
        for here, there in zip(mine, theirs, strict=True):
            for scores, of in ((gentle.scores[key], made.scores[key]) for key in gentle.scores):
                scores[here] = of[there]
    elsewhere = made_scores({"harmful": Truth(drop=0.05)}, seed_sd=0.01, draw=5, study="elsewhere", base="other/model")
    fill(path, made, analyse=False).close()
    fill(path, gentle, analyse=False).close()
    con = fill(path, elsewhere, analyse=False, items=1_000_000)
    for seed in (0, 1):
        con.execute(
            "UPDATE arms SET artifact = ? WHERE arm = ?",
            [f"made/twin-lr{RATES[0]:g}-s{seed}", f"gentle/twin-lr{RATES[0]:g}-s{seed}"],
        )
    con.close()
    return path


@pytest.fixture(scope="module")
def con(path):
    with duckdb.connect(str(path), read_only=True) as con:
        yield con


@pytest.fixture(scope="module")
def found(con):
    return compare_studies(con, "made", "gentle")


def row_of(found, method, rate=RATES[0]):
    return next(row for row in found.rows if (row.method, row.learning_rate) == (method, rate))


def test_every_method_and_rate_of_both_is_a_row_and_the_rest_is_listed(found):
    assert [(row.method, row.learning_rate) for row in found.rows] == [(m, r) for m in METHODS if m != "other" for r in RATES]
    assert (found.only_a, found.only_b) == (("other at 1e-4", "other at 3e-4"), ("first at 1e-4", "first at 3e-4"))
    assert [(s.name, s.a, s.b) for s in found.settings] == [("seeds", "0, 1, 2", "0, 1, 2, 3")]
    assert found.same_base
    assert found.same_target


def test_planted_differences_are_found_and_their_absence_too(found):
    for row in found.rows:
        if row.pairing == SAME:
            continue
        scale = METHODS[row.method].dearer if row.learning_rate == RATES[1] else 1
        planted = METHODS[row.method].drop / 2 * scale
        assert row.pairing == PAIRED
        assert row.drop.at(0.999).low < planted < row.drop.at(0.999).high, row.method
        assert row.drop.estimate == pytest.approx(row.a.drop.estimate - row.b.drop.estimate, abs=1e-12)
        assert row.gain.estimate == pytest.approx(row.a.gain.estimate - row.b.gain.estimate, abs=1e-12)
        assert row.gain.at(0.999).low < 0 < row.gain.at(0.999).high
    assert row_of(found, "twin", RATES[1]).beyond_chance
    assert "twin at 3e-4 lost" in headline(found)
    assert " points more in A" in headline(found)
    assert not any(row.beyond_chance for row in found.rows if METHODS[row.method].drop == 0)


def test_a_study_against_itself_is_exactly_0_with_p_1(con):
    found = compare_studies(con, "made", "made")
    assert len(found.rows) == 2 * len(METHODS)
    assert {(r.pairing, r.drop.estimate, r.drop.low, r.drop.high, r.gain.estimate, r.p_adjusted) for r in found.rows} == {
        (SAME, 0, 0, 0, 0, 1)
    }
    assert (found.settings, found.only_a, found.only_b, found.notes) == ((), (), (), ())
    rows = json.loads(studies_text(found, "json"))
    assert {(row["diff"], row["p_value"], row["p_adjusted"]) for row in rows} == {(0, 1, 1)}
    assert "nothing to compare" in headline(found)


def test_shared_arms_are_compared_with_themselves_only_and_are_no_test(found):
    row = row_of(found, "twin")
    assert (row.pairing, row.a.seeds, row.b.seeds) == (SAME, 2, 2)
    assert (row.drop.estimate, row.drop.low, row.drop.high, row.p_adjusted) == (0, 0, 0, 1)
    assert row.a.drop.estimate == row.b.drop.estimate
    assert "twin at 1e-4: 2 arms are the same in both, so 1 seed of made and 2 seeds of gentle are left out" in found.notes
    tested = [row for row in found.rows if row.pairing != SAME]
    expected = multipletests([row.drop.p_value() for row in tested], method="fdr_bh")[1]
    assert [row.p_adjusted for row in tested] == pytest.approx(expected, rel=1e-9)


def test_turning_the_sides_turns_the_signs(con, found):
    turned = compare_studies(con, "gentle", "made")
    assert (turned.only_a, turned.only_b) == (found.only_b, found.only_a)
    for row in turned.rows:
        other = row_of(found, row.method, row.learning_rate)
        assert (row.drop.estimate, row.drop.low) == pytest.approx((-other.drop.estimate, -other.drop.high), abs=1e-12)
        assert (row.gain.estimate, row.gain.low) == pytest.approx((-other.gain.estimate, -other.gain.high), abs=1e-12)
        assert row.p_adjusted == pytest.approx(other.p_adjusted, rel=1e-9)


def test_the_figures_of_a_study_are_those_of_its_own_table(tmp_path, con):
    path = tmp_path / "warehouse.duckdb"
    scores = made_scores(seed_sd=0.01)
    with fill(path, scores) as own:
        told = own.execute(
            "SELECT method, learning_rate, quantity, estimate, low, high FROM intervals WHERE quantity IN ('gain', 'drop')"
        ).fetchall()
        found = compare_studies(own, "made", "made")
    assert len(told) == 4 * len(METHODS)
    for method, rate, quantity, *expected in told:
        side = row_of(found, method, rate).a
        interval = side.drop if quantity == "drop" else side.gain
        assert [interval.estimate, interval.low, interval.high] == pytest.approx(expected, abs=1e-12)


def test_on_other_items_the_errors_of_two_independent_drops_add_in_squares(con):
    found = compare_studies(con, "made", "elsewhere")
    (row,) = (r for r in found.rows if r.learning_rate == RATES[0])
    assert row.pairing == INDEPENDENT
    assert not found.same_base
    assert any(setting[:1] == ("base.model",) for setting in found.settings)
    # Not to the last digit: `elsewhere` has too few arms to moderate those of `made`, alone they are.
    assert row.drop.stderr == pytest.approx(np.hypot(row.a.drop.stderr, row.b.drop.stderr), rel=0.1)
    assert row.drop.estimate == pytest.approx(row.a.drop.estimate - row.b.drop.estimate, abs=1e-12)
    assert row.drop.low < 0.11 < row.drop.high
    text = studies_text(found, "table")
    assert "not the same items, base scores or evaluation settings" in "".join(found.notes)
    assert "The bases differ: a row says how one recipe fared on two bases" in text
    assert "One base stands behind both" not in text


def test_pairing_narrows_the_interval(path, found, tmp_path):
    with duckdb.connect(shutil.copy(path, tmp_path)) as own:
        own.execute(
            """UPDATE stored_evaluations SET settings_hash = 'x', settings = '{"batch_size": 7}' WHERE evaluation_id IN
            (SELECT evaluation_id FROM named_evaluations WHERE study = 'gentle')"""
        )
        apart = compare_studies(own, "made", "gentle")
    assert ("evaluation: batch_size", "-", "7") in apart.settings
    for row in apart.rows:
        assert row.pairing == INDEPENDENT
        other = row_of(found, row.method, row.learning_rate)
        if other.pairing == PAIRED:
            assert row.drop.estimate == pytest.approx(other.drop.estimate, abs=1e-12)
            assert row.drop.stderr > other.drop.stderr


def test_independent_estimates_are_welchs_where_there_is_nothing_but_items():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.1, 0.4, 80), rng.normal(0.0, 0.9, 50)
    found = independent_contrast_interval([a[:, None]], [b[:, None]])
    expected = scipy.stats.ttest_ind(a, b, equal_var=False)
    assert found.df == pytest.approx(expected.df, rel=1e-9)
    assert found.p_value() == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)


def test_independent_estimates_over_seeds_have_the_parts_of_both_drops():
    rng = np.random.default_rng(4)
    tables = [rng.normal(0, 1, (200, 3)) + rng.normal(0, 1, (200, 1)) + rng.normal(0, 0.2, 3) for _ in range(9)]
    pool = [mean_components([table]) for table in tables[2:]]
    for others in ([], pool):
        a, b = (mean_drop_interval([table], others) for table in tables[:2])
        found = independent_contrast_interval([tables[0]], [tables[1]], others, others)
        assert found.estimate == pytest.approx(a.estimate - b.estimate, abs=1e-12)
        assert found.stderr == pytest.approx(np.hypot(a.stderr, b.stderr), rel=1e-9)
        assert found.rule == a.rule
    few = [f"c{i // 20}" for i in range(200)]
    assert "10 clusters" in independent_contrast_interval([tables[0]], [tables[1]], clusters_b=[few]).rule


def test_benchmarks_that_one_study_lacks_are_named_and_not_averaged(con, tmp_path):
    path = tmp_path / "warehouse.duckdb"
    fill(path, made_scores(seed_sd=0.01), analyse=False).close()
    with fill(path, made_scores(GENTLE, seed_sd=0.01, study="gentle"), analyse=False) as own:
        own.execute("DELETE FROM study_benchmarks WHERE study = 'gentle' AND benchmark IN ('facts', 'safety')")
        own.execute("UPDATE studies SET spec = replace(spec, 'countdown', 'new_format') WHERE study = 'gentle'")
        own.execute("UPDATE study_benchmarks SET metric = 'exact' WHERE study = 'gentle' AND role = 'target'")
        found = compare_studies(own, "made", "gentle")
        assert found.benchmarks == ("addition", "sorting", "places")
        assert "retention benchmarks of made only, not part of any drop here: facts (acc), safety (acc)" in found.notes
        assert {row.gain for row in found.rows} == {None}
        row = row_of(found, "harmful")
        own_drop = own.execute(
            """SELECT avg("drop") FROM forgetting WHERE study = 'made' AND method = 'harmful' AND learning_rate = 1e-4
            AND step = 80 AND benchmark IN ('addition', 'sorting', 'places')"""
        ).fetchone()[0]
        assert row.a.drop.estimate == pytest.approx(own_drop, abs=1e-12)
        assert "The targets differ" in studies_text(found, "table")
        own.execute("DELETE FROM study_benchmarks WHERE study = 'gentle' AND role = 'retention'")
        with pytest.raises(InputError, match="made and gentle have no retention benchmark in common: addition"):
            compare_studies(own, "made", "gentle")


def test_one_seed_speaks_for_itself(tmp_path):
    path = tmp_path / "warehouse.duckdb"
    one = {"harmful": Truth(drop=0.16)}
    fill(path, made_scores(one, seeds=(0,), rates=RATES[:1]), analyse=False).close()
    shifted = {"first": Truth(), "harmful": Truth(drop=0.16)}
    with fill(path, made_scores(shifted, seeds=(0, 1), rates=RATES[:1], study="gentle"), analyse=False) as own:
        found = compare_studies(own, "made", "gentle")
    assert found.rows[0].drop.rule == "these seeds only"
    assert "it speaks for these seeds, not for others" in studies_text(found, "table")


def test_formats_hold_the_same_rows(found):
    rows = json.loads(studies_text(found, "json"))
    told = list(csv.DictReader(io.StringIO(studies_text(found, "csv"))))
    assert list(told[0]) == list(rows[0]) == list(COLUMNS)
    assert [row["method"] for row in told] == [row.method for row in found.rows]
    for row, line, own in zip(rows, told, found.rows, strict=True):
        assert row["diff"] == own.drop.estimate == float(line["diff"])
        assert row["rule"] == own.drop.rule == line["rule"]
    table, markdown = studies_text(found, "table"), studies_text(found, "markdown")
    assert table.index("Settings that differ") < table.index("harmful") < table.index("Only in A")
    assert markdown.count("\n|") == 2 + 1 + 2 + len(found.rows)


# Addresses


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ("made", "made/base", r"^made is a study and made/base is one model: compare two studies, or two arms"),
        ("made/base", "gentle", r"^gentle is a study and made/base is one model"),
        (
            "made",
            "nothing",
            r"^nothing is neither a file or folder nor a study, arm or checkpoint of this home, which has the ",
        ),
        ("made/none-s0", "made", r"^made/none-s0 is neither"),
    ],
)
def test_wrong_addresses_are_explained_in_one_sentence(con, a, b, told):
    with pytest.raises(InputError, match=told) as error:
        compare_addresses(con, a, b)
    assert "\n" not in str(error.value)


def test_studies_with_nothing_in_common_or_nothing_done_are_explained(tmp_path):
    path = tmp_path / "warehouse.duckdb"
    fill(path, made_scores({"harmful": Truth()}, rates=RATES[:1]), analyse=False).close()
    with fill(path, made_scores({"other": Truth()}, rates=RATES[:1], study="gentle"), analyse=False) as own:
        with pytest.raises(
            InputError, match=r"no method at the same learning rate in common: made has harmful at 1e-4; gentle"
        ):
            compare_studies(own, "made", "gentle")
        own.execute("UPDATE arms SET status = 'failed', error = 'out of memory' WHERE arm LIKE 'gentle/other%'")
        with pytest.raises(InputError, match=r"^gentle has no finished arm of a method yet"):
            compare_studies(own, "made", "gentle")
        own.execute("DELETE FROM named_evaluations WHERE checkpoint LIKE 'gentle/other%'")
        with pytest.raises(InputError, match=r"has no evaluated checkpoint: it is failed \(out of memory\)$"):
            compare_addresses(own, "made/base", "gentle/other-lr0.0001-s0")
        with pytest.raises(InputError, match=r"^--metric is for two models"):
            compare_addresses(own, "made", "gentle", {"facts": "acc"})


def test_the_command_on_a_home_with_two_studies(path, here, tmp_path):
    shutil.copy(path, tmp_path)
    done = retain("compare", "made", "gentle", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "harmful" in done.stdout
    assert done.stdout.count("| same arms") == 1
    done = here("compare", "made", "gentle", "--format", "csv", home=tmp_path)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2 * (len(METHODS) - 1) + 1)
    assert "retain: note: twin at 1e-4: 2 arms are the same in both" in done.stderr
    for options in (["--flips", "3"], ["--cluster", "subject"]):
        done = here("compare", "made", "gentle", *options, home=tmp_path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
