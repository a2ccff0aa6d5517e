"""`retain sql`: its tables, its dot commands, its files, and that it can do nothing but read."""

import csv
import json
import os
import re
import resource
import sys
from decimal import Decimal

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retain_core.errors import InputError
from retain_core.warehouse.export import export
from retain_core.warehouse.load import connect
from retain_core.warehouse.query import LEAST, query, render
from tests.conftest import retain, tree

TEXTS = st.text(alphabet="abc déf\n\x1b|", max_size=60)
VALUES = st.one_of(st.none(), st.integers(-(10**18), 10**18), st.floats(allow_nan=False), TEXTS)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home whose warehouse knows the published results and nothing else."""
    folder = tmp_path_factory.mktemp("home")
    connect(folder / "warehouse.duckdb").close()
    return folder


@pytest.fixture(scope="module")
def path(home):
    return home / "warehouse.duckdb"


@st.composite
def tables(draw):
    columns = draw(st.lists(st.text("abcdef", min_size=1, max_size=12), min_size=1, max_size=6, unique=True))
    return columns, draw(st.lists(st.tuples(*[VALUES] * len(columns)), max_size=4))


@settings(max_examples=150, deadline=None)
@given(tables(), st.integers(30, 160))
def test_a_table_keeps_to_the_width_and_says_what_it_leaves_out(table, width):
    columns, rows = table
    head, rule, *body = render(columns, rows, "table", width).split("\n")
    shown = [c.strip() for c in head.split(" | ")]
    assert shown == columns[: len(shown)]
    assert len(rule) <= max(width, 30)
    assert all(len(line) <= len(rule) for line in body[: len(rows)])
    end = " ".join(body[len(rows) :])
    assert end.startswith(f"({len(rows)} row")
    assert ("not shown" in end) == (len(shown) < len(columns))
    assert all(c in end for c in columns[len(shown) :])


def test_numbers_stay_whole_and_stand_to_the_right():
    columns, rows = ["answer", "n"], [("a long answer " * 9, 7), ("short", 1234567890123)]
    _, rule, first, second, _ = render(columns, rows, "table", 40).split("\n")
    assert first.endswith("…" + " | " + "7".rjust(13))
    assert second.endswith("1234567890123")
    assert len(rule) == 40
    assert render(columns, rows, "table").split("\n")[2].startswith("a long answer " * 9)
    two = [("x" * 50, "y" * 50)]
    assert render(["a", "b"], two, "table", 2 * LEAST + 3).split("\n")[0].split() == ["a", "|", "b"]
    assert render(["a", "b"], two, "table", 2 * LEAST + 2).split("\n")[0].split() == ["a"]


def test_an_answer_cannot_drive_the_terminal_or_break_a_table():
    rows = [("\x1b[2J\tred\x07\n", "a|b")]
    assert "\x1b" not in render(["x", "y"], rows, "table")
    *_, line = render(["x", "y"], rows, "markdown").split("\n")
    assert line.replace("\\|", "").count("|") == 3


def test_json_is_json_whatever_sql_gives():
    found = json.loads(render(["a", "b", "c"], [(Decimal("0.5"), float("nan"), [Decimal(1), float("inf")])], "json"))
    assert found == [{"a": 0.5, "b": None, "c": [1.0, None]}]


def test_tables_and_schema_explain_the_warehouse(path):
    listed = json.loads(query(path, ".tables", "json"))
    assert {"forgetting", "published_results", "method_summary"} <= {row["name"] for row in listed}
    assert not {"schema_version", "answers", "measured"} & {row["name"] for row in listed}
    assert all(row["meaning"] for row in listed)
    columns = json.loads(query(path, ".schema gain_drop", "json"))
    assert {
        "column": "drop_far",
        "type": "DOUBLE",
        "meaning": "the same without the near ones (fraction); null: all are near",
    } in columns
    whole = json.loads(query(path, ".schema", "json"))
    assert {row["relation"] for row in whole} == {row["name"] for row in listed}
    assert all(row["meaning"] for row in whole)


def test_a_narrow_terminal_wraps_meanings_and_cuts_none(path):
    whole, wrapped = query(path, ".schema contrasts", "table"), query(path, ".schema contrasts", "table", 60)
    assert max(map(len, wrapped.split("\n"))) <= 60
    assert "…" not in wrapped
    assert sorted(re.findall(r"\w+", wrapped)) == sorted(re.findall(r"\w+", whole))
    assert wrapped.split("\n")[-1] == whole.split("\n")[-1]


@pytest.mark.parametrize("command", [".help", ".tables x", ".schema a b", ".", ".schema nothing"])
def test_an_unknown_command_is_one_sentence(path, command):
    with pytest.raises(InputError, match=r"\.tables"):
        query(path, command, "table")


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.parquet", "out.md"])
def test_a_file_holds_what_the_query_says(path, tmp_path, name):
    sql = "SELECT source, value, note, [value, NULL] AS pair FROM published_results ORDER BY ALL"
    expected = json.loads(query(path, sql, "json"))
    out = tmp_path / name
    out.write_text("what was there before")
    assert export(path, sql, out) == len(expected) > 100
    if name.endswith("csv"):
        found = list(csv.DictReader(out.open(encoding="utf-8")))
        assert [float(row["value"]) for row in found] == [row["value"] for row in expected]
        assert [row["note"] or None for row in found] == [row["note"] or None for row in expected]
    elif name.endswith("json"):
        assert json.loads(out.read_text()) == expected
    elif name.endswith("parquet"):
        found = pd.read_parquet(out)
        assert list(found.columns) == ["source", "value", "note", "pair"]
        assert found["value"].tolist() == [row["value"] for row in expected]
        assert found["pair"][0][0] == expected[0]["value"]
    else:
        assert len(out.read_text().splitlines()) == len(expected) + 2
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_every_relation_can_be_a_parquet_file(path, tmp_path):
    for row in json.loads(query(path, ".tables", "json")):
        assert export(path, f"FROM {row['name']}", tmp_path / "x.parquet") >= 0
    assert export(path, ".schema looks", tmp_path / "x.parquet") == 6


@pytest.mark.parametrize(
    ("sql", "file", "words"),
    [
        ("FROM nothing", "x.parquet", "nothing"),
        ("FROM nothing", "x.csv", "nothing"),
        ("SELECT 1/0 AS x, error('stop') AS y", "x.parquet", "stop"),
        ("SELECT 1", "x.txt", r"\.csv, \.json, \.md, \.parquet"),
        ("SELECT 1", "none/x.csv", "there is no folder"),
    ],
)
def test_what_cannot_be_written_leaves_what_was_there(path, tmp_path, sql, file, words):
    kept = tmp_path / "x.parquet"
    kept.write_text("kept")
    with pytest.raises(InputError, match=words):
        export(path, sql, tmp_path / file)
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]
    assert kept.read_text() == "kept"


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{}/x.csv'",
        "EXPORT DATABASE '{}/x'",
        "ATTACH '{}/x.duckdb'",
        "SET log_query_path = '{}/x'",
        "SET temp_directory = '{}/x'",
        "CALL enable_logging(storage = 'file', storage_config = {{'path': '{}/x'}})",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "LOAD '{}/x.duckdb_extension'",
        "FROM read_text('/etc/hosts')",
        "FROM glob('/etc/*')",
        "FROM '{}/there.csv'",
        "SELECT getenv('HOME')",
        "INSERT INTO studies (study) VALUES ('x')",
        "DROP VIEW forgetting",
        "COMMENT ON VIEW forgetting IS 'x'",
    ],
)
def test_it_can_only_read_the_warehouse(path, tmp_path, sql):
    (tmp_path / "there.csv").write_text("a\n1\n")
    before = path.read_bytes()
    for ask in (lambda text: query(path, text, "table"), lambda text: export(path, text, tmp_path / "out.parquet")):
        with pytest.raises(InputError):
            ask(sql.format(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["there.csv"]
    assert path.read_bytes() == before


def test_the_command_takes_words_and_a_file(home, tmp_path):
    schema = retain("sql", ".schema", "looks", home=home)
    assert schema.stdout.splitlines()[-1] == "(6 rows)"
    done = retain("sql", "FROM published_results", "--output", str(tmp_path / "p.parquet"), home=home)
    assert done.stdout == f"{tmp_path / 'p.parquet'}: {len(pd.read_parquet(tmp_path / 'p.parquet'))} rows\n"
    for arguments, words in [
        (["SELECT", "1"], "put the query in quotes"),
        (["SELECT 1", "--output", "x.csv", "--format", "json"], "leave --format out"),
        ([".nothing"], "unknown command '.nothing'"),
    ]:
        wrong = retain("sql", *arguments, home=home)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert wrong.stderr.startswith("retain: ")
        assert words in wrong.stderr


@pytest.mark.parametrize("arguments", [["SELECT 1"], [".tables"], ["--help"]])
def test_it_starts_within_a_second_and_loads_nothing_heavy(home, arguments):
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert retain("sql", *arguments, home=home).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 1, "of processor time, whatever else the machine does"
    imports = retain("sql", *arguments, home=home, PYTHONPROFILEIMPORTTIME="1").stderr
    loaded = {line.rpartition("|")[2].strip() for line in imports.splitlines()}
    assert "typer" in loaded
    assert not {"torch", "transformers", "mlflow", "prefect", "pandas", "numpy", "pyarrow"} & loaded


@pytest.mark.parametrize(
    "sql",
    [
        "EXPORT DATABASE '{}.tmp'",
        "COPY (SELECT 1) TO '{}.wal'",
        "COPY (SELECT 1) TO '{}.wal' (USE_TMP_FILE false)",
        "COPY (SELECT 1) TO '{}' (USE_TMP_FILE false)",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{}.wal.recovery' (USE_TMP_FILE false)",
        "PREPARE x AS COPY (SELECT 1) TO '{}.wal.checkpoint' (USE_TMP_FILE false); EXECUTE x",
        "FROM read_blob('{}')",
        "ATTACH '{}' AS again",
    ],
)
def test_nor_can_it_write_what_duckdb_itself_keeps_beside_the_warehouse(path, tmp_path, sql):
    """Its log, its folder for what memory does not hold, and the file itself are open to DuckDB while it has the warehouse."""
    warehouse = tmp_path / "w.duckdb"
    warehouse.write_bytes(path.read_bytes())
    for ask in (lambda text: query(warehouse, text, "table"), lambda text: export(warehouse, text, tmp_path / "out.parquet")):
        with pytest.raises(InputError, match="disabled"):
            ask(sql.format(warehouse))
    assert tree(tmp_path) == {"w.duckdb": path.read_bytes()}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_only_a_terminal_cuts(home):
    import pty
    import subprocess

    from tests.conftest import ROOT, environment

    command = [sys.executable, "-m", "flows.cli", "sql", "SELECT repeat('long ', 50) AS x"]
    ours, theirs = pty.openpty()
    subprocess.run(command, cwd=ROOT, env=environment(home) | {"COLUMNS": "50"}, stdout=theirs, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert max(map(len, shown.splitlines())) == 50
    assert "…" in shown
    assert "long " * 49 in retain("sql", command[-1], home=home).stdout
