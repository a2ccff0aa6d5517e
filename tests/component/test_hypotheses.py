"""The hypothesis studies are what their template says, and the ledger says what came out of them and nothing more."""

import json
import re
import shutil

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retain_core.hypotheses.beside import beside
from retain_core.hypotheses.ledger import ledger, ledger_text
from retain_core.hypotheses.studies import questions, study_text
from retain_core.settings import Settings
from retain_core.store import Store
from retain_core.study_file import load_study
from tests.conftest import ROOT, retain
from tests.synthetic import Truth, fill, made_scores, made_sequence

FOLDER = ROOT / "studies" / "hypotheses"
BY_NAME = {question.name: question for question in questions()}


def test_the_files_are_what_the_template_gives():
    wanted = {f"{question.study['study']}.yaml": study_text(question) for question in questions()}
    assert {path.name: path.read_text() for path in FOLDER.glob("*.yaml")} == wanted


@pytest.mark.parametrize("question", questions(), ids=lambda question: question.name)
def test_every_file_is_a_study_that_can_give_a_verdict(question):
    study = load_study(FOLDER / f"{question.study['study']}.yaml")
    assert study.primary is not None
    assert set(study.primary.contrast) <= {method.label for method in study.methods} | set(study.interpolated())
    assert len(study.seeds) >= 2
    assert len(study.controls) == 6


def test_the_twins_of_a_contrast_differ_in_one_thing():
    """Methods that are compared differ in their algorithm or in one dial; what must follow from that is listed."""
    follows = {"loss": set(), "traces_of": {"expert"}, "clip": {"staleness"}}
    for question in questions():
        study = load_study(FOLDER / f"{question.study['study']}.yaml")
        if set(study.primary.contrast) & set(study.interpolated()):
            continue
        a, b = (next(m for m in study.methods if m.label == label) for label in study.primary.contrast)
        if a.algorithm != b.algorithm:
            continue
        one, other = a.config(), b.config()
        differ = {dial for dial in one if one[dial] != other[dial]}
        differ -= set().union(*(follows.get(dial, set()) for dial in differ))
        rates = a.learning_rates != b.learning_rates
        assert len(differ) == 1 or (rates and not differ) or question.name in ("style", "overlap"), (question.name, differ)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A warehouse with a study of three methods whose drops are known."""
    path = tmp_path_factory.mktemp("made") / "warehouse.duckdb"
    methods = {"first": Truth(drop=0.16), "second": Truth(drop=0.02), "third": Truth(drop=0.08)}
    primary = {"contrast": ["first", "second"], "predict": ">", "at_gain": 0.2, "margin": 0.02}
    fill(path, made_scores(methods, n=1200, primary=primary)).close()
    return path


@pytest.fixture
def home(tmp_path, made):
    """A home in which the study of one question has been run, with the made-up scores under its names."""

    def make(name):
        question = BY_NAME[name]
        study, (a, b) = question.study["study"], question.study["primary"]["contrast"]
        config = Settings(home=tmp_path)
        shutil.copy(made, config.warehouse)
        con = duckdb.connect(str(config.warehouse))
        tables = {table for (table,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        columns = con.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
        for column, old, new in (
            ("study", "made", study), *((c, o, n) for c in ("method", "a", "b") for o, n in (("first", a), ("second", b))),
        ):  # fmt: skip
            for table, found in columns:
                if table in tables and found == column:
                    con.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", [new, old])
        return config, con, study

    return make


def entry_of(config, name):
    return next(entry for entry in ledger(config) if entry.question.name == name)


def test_nothing_was_run(tmp_path):
    entries = ledger(Settings(home=tmp_path))
    assert [entry.question for entry in entries] == list(questions())
    assert {entry.state for entry in entries} == {"not run"}
    assert f"0 of {len(questions())} questions have been run here" in ledger_text(Settings(home=tmp_path), "table")


def test_the_command_has_a_row_for_every_question_that_was_not_run(tmp_path):
    done = retain("hypotheses", "--format", "json", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert [row["study"] for row in rows] == [question.study["study"] for question in questions()]
    assert {row["state"] for row in rows} == {"not run"}
    assert list(tmp_path.iterdir()) == []


def test_the_ledger_repeats_the_stored_contrast(home):
    config, con, study = home("replay")
    stored = con.execute('SELECT diff, ci_low, ci_high, verdict, robust FROM contrasts WHERE "primary"').fetchone()
    con.close()
    entry = entry_of(config, "replay")
    assert (entry.diff, entry.low, entry.high, entry.verdict, entry.robust) == stored
    assert (entry.state, entry.verdict, entry.seeds) == ("run", "supported", 3)
    assert 0 < entry.detectable < 0.05
    assert {e.state for e in ledger(config) if e.question.name != "replay"} == {"not run"}
    row = next(r for r in json.loads(ledger_text(config, "json")) if r["study"] == study)
    assert row["verdict"] == "supported"
    assert float(row["drop a - b"]) == pytest.approx(100 * stored[0], abs=0.05)


def test_a_study_that_cannot_detect_five_points_is_underpowered(home):
    config, con, _ = home("replay")
    con.execute('UPDATE contrasts SET stderr = 0.05, ci_low = diff - 0.1, ci_high = diff + 0.1 WHERE "primary"')
    con.close()
    assert entry_of(config, "replay").state == "underpowered"


@pytest.mark.parametrize("word", ["not reached", "too noisy"])
def test_a_contrast_that_could_not_be_read_counts_for_nothing(home, word):
    config, con, _ = home("replay")
    con.execute(
        """UPDATE contrasts SET verdict = ?, diff = NULL, ci_low = NULL, ci_high = NULL, stderr = NULL WHERE "primary" """,
        [word],
    )
    con.close()
    entry = entry_of(config, "replay")
    assert (entry.state, entry.verdict, entry.detectable) == ("no figure", word, None)
    assert "0 of them can detect" in ledger_text(config, "table")


def test_a_study_with_a_missing_arm_has_no_verdict(home):
    config, con, _ = home("replay")
    con.execute("UPDATE arms SET status = 'failed' WHERE method = 'third' AND seed = 0")
    con.close()
    entry = entry_of(config, "replay")
    assert (entry.state, entry.verdict) == ("incomplete", None)


def test_a_study_that_was_only_declared_was_not_run(home):
    config, con, _ = home("replay")
    con.execute("UPDATE arms SET status = 'missing' WHERE role <> 'base'")
    con.close()
    assert entry_of(config, "replay").state == "not run"


@pytest.mark.parametrize(("factor", "state"), [(0.5, "run"), (0.95, "not tested"), (1.2, "not tested")])
def test_a_kl_penalty_is_judged_only_where_the_measured_kl_moved(home, factor, state):
    config, con, _ = home("kl-penalty")
    _, b = BY_NAME["kl-penalty"].study["primary"]["contrast"]
    con.execute("UPDATE divergence_items SET nats = 1")
    con.execute(
        """UPDATE divergence_items SET nats = ? WHERE divergence_id IN (
            SELECT n.divergence_id FROM named_divergences n JOIN checkpoints c USING (checkpoint) JOIN arms m ON m.arm = c.arm
            WHERE m.method = ?)""",
        [factor, b],
    )
    con.close()
    entry = entry_of(config, "kl-penalty")
    assert (entry.state, entry.verdict) == (state, "supported" if state == "run" else None)


@pytest.mark.parametrize(("share", "state"), [(0.05, "run"), (0.009, "not tested")])
def test_clipping_is_judged_only_where_it_acted(home, share, state):
    config, con, _ = home("clipping")
    method = BY_NAME["clipping"].study["primary"]["contrast"][1]
    store = Store(config.artifacts)
    store.prepare()
    for place, (arm,) in enumerate(con.execute("SELECT arm FROM arms WHERE method = ?", [method]).fetchall()):
        with store.create("arm", f"{place:032x}", {}) as draft:
            points = [{"step": s, "name": n, "value": v} for s in (1, 2) for n, v in (("clip_share", share), ("loss", 1.0))]
            pq.write_table(pa.Table.from_pylist(points), draft.path / "curve.parquet")
        con.execute("UPDATE arms SET artifact = ? WHERE arm = ?", [f"{place:032x}", arm])
    con.close()
    entry = entry_of(config, "clipping")
    assert (entry.state, entry.verdict) == (state, "supported" if state == "run" else None)


@pytest.mark.parametrize(
    ("left_out", "low", "high", "beats", "word"),
    [(0.8, 0.5, 0.9, True, "supported"), (0.8, 0.5, 0.9, False, "inconclusive"), (-2.0, -9.0, -0.5, False, "reversed"),
     (0.2, -0.4, 0.6, True, "inconclusive")],
)  # fmt: skip
def test_the_law_is_judged_by_what_it_says_of_methods_left_out(home, left_out, low, high, beats, word):
    config, con, _ = home("kl-law")
    con.execute(
        "UPDATE kl_law SET r2_left_out = ?, left_out_low = ?, left_out_high = ?, beats_trivial = ? WHERE predictor = 'kl'",
        [left_out, low, high, beats],
    )
    con.close()
    entry = entry_of(config, "kl-law")
    assert (entry.state, entry.verdict) == ("run", word)


def test_equal_distance_stands_beside_the_contrast_of_learning_rates(home):
    config, con, study = home("learning-rate")
    methods = BY_NAME["learning-rate"].study["primary"]["contrast"]
    rows = con.execute(
        """SELECT method, weight_distance, "drop" FROM matched_distance m WHERE study = ? AND method IN (?, ?)
        AND weight_distance = (SELECT max(weight_distance) FROM matched_distance) ORDER BY method""",
        [study, *methods],
    ).fetchall()
    con.close()
    note = entry_of(config, "learning-rate").note
    assert note.startswith(f"drop at a distance of {rows[0][1]:.2f} from the base: {methods[0]} (")
    assert len({distance for _, distance, _ in rows}) == 1
    assert len(rows) == 2
    assert all(f"{method} (" in note and f") {100 * drop:+.1f} [" in note for method, _, drop in rows)


def test_backward_transfer_stands_beside_the_contrast_of_a_sequence(tmp_path):
    """Each method forgets 20 points of an earlier target, as planted."""
    methods = {"sft_in_style": Truth(drop=0.16), "grpo": Truth(drop=0.02), "reinforce": Truth(drop=0.02)}
    primary = {"contrast": ["sft_in_style", "grpo"], "predict": ">", "at": "last", "margin": 0.02}
    con = fill(tmp_path / "made.duckdb", made_sequence(methods, primary=primary, base="some/model"))
    said = beside(con, "made", [("sft_in_style", 1e-4), ("grpo", 3e-4)], "backward_transfer")
    assert said.startswith("backward transfer over 3 targets: sft_in_style (1e-4) ")
    assert "grpo (3e-4) " in said
    found = [float(value) for value in re.findall(r"\) ([-+][\d.]+) \[", said)]
    assert found == pytest.approx([-20, -20], abs=8)
    assert beside(con, "made", [("sft_in_style", 1e-4), ("nobody", 1e-4)], "backward_transfer") == ""


def test_what_was_not_reached_is_said_beside_the_contrast(home):
    config, con, _ = home("learning-rate")
    con.execute("""UPDATE matched SET "drop" = NULL, state = 'not reached' WHERE axis = 'weight_distance'""")
    con.close()
    assert entry_of(config, "learning-rate").note.endswith("sft_high not reached, sft_low not reached")


def test_reading_the_ledger_changes_nothing(home):
    config, con, _ = home("replay")
    con.close()
    before = config.warehouse.read_bytes()
    ledger_text(config, "markdown")
    assert config.warehouse.read_bytes() == before
    duckdb.connect(str(config.warehouse), read_only=True).close()


def test_every_question_is_documented():
    told = (ROOT / "docs" / "hypotheses.md").read_text()
    for question in questions():
        assert f"| {question.number} | `{question.study['study']}` | {question.asks} |" in told
