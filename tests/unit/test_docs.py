"""Every view, column, setting, command, dial and control is documented, and no documented SQL is broken.

`python -m tests.unit.test_docs` writes the comments that a warehouse carries anew from docs/warehouse.md.
"""

import re

import duckdb
import pytest
from typer.main import get_command

from flows.cli import app
from retain_core.evaluation.generation import Generation
from retain_core.evaluation.size import EvaluationSize
from retain_core.judge.benchmark import Judge
from retain_core.lab.spec import LabSpec
from retain_core.methods import CONTROLS, DIALS, NAMED
from retain_core.own.target import TargetFiles
from retain_core.settings import Settings
from retain_core.study import Budget, Cross, Data, Execution, Primary, Retention, Study
from retain_core.training.rollouts.setting import RolloutServer
from retain_core.training.size import TrainingSize
from retain_core.warehouse.load import connect
from tests.conftest import ROOT

WAREHOUSE = (ROOT / "docs" / "warehouse.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
EXTEND = (ROOT / "docs" / "extend.md").read_text()
METHOD = (ROOT / "docs" / "method.md").read_text()
COMMENTS = ROOT / "retain_core" / "warehouse" / "comments.sql"
TABLES = re.findall(
    r"CREATE TABLE (\w+)",
    "".join((ROOT / "retain_core" / f).read_text() for f in ("warehouse/schema.sql", "published/published.sql")),
)
COLUMN = re.compile(r"^\| (\w+) \| (.+?) \|(?: (.+?))? \|(?: (.+?))? \|$", re.MULTILINE)


def sections() -> dict[str, str]:
    """Relation -> its section in docs/warehouse.md, of those that are for users."""
    told, _ = WAREHOUSE.split("## Tables that are not for users")
    found = re.split(r"^### ", told, flags=re.MULTILINE)[1:]
    return {s.splitlines()[0]: s.partition("\n")[2].strip() for s in found if "| column | meaning | unit | null |" in s}


def comments() -> str:
    """The SQL that gives a warehouse the meaning of every relation (its first sentence) and column."""
    lines = ["-- Relations and columns in short, for `.tables` and `.schema`. Written from docs/warehouse.md by"]
    lines += ["-- python -m tests.unit.test_docs"]
    for relation, text in sections().items():
        sentence = re.split(r"\.\s", " ".join(text.split("\n\n")[0].split()) + " ")[0]
        lines += ["", comment("TABLE" if relation in TABLES else "VIEW", relation, sentence)]
        for column, meaning, unit, null in COLUMN.findall(text)[1:]:
            whole = meaning + (f" ({unit})" if unit else "") + (f"; null: {null}" if null else "")
            lines.append(comment("COLUMN", f'{relation}."{column}"', whole))
    return "\n".join(lines) + "\n"


def comment(kind: str, name: str, meaning: str) -> str:
    text = meaning.replace("`", "").replace("'", "''")
    return f"COMMENT ON {kind} {name} IS '{text}';"


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    path = tmp_path_factory.mktemp("empty") / "w.duckdb"
    connect(path).close()
    with duckdb.connect(str(path), read_only=True) as con:
        yield con


def test_every_public_relation_and_column_is_documented_and_no_other(empty):
    found = dict(empty.execute("SELECT table_name, table_type FROM information_schema.tables").fetchall())
    relations, tables = set(found), {name for name, kind in found.items() if kind == "BASE TABLE"}
    internal = set(re.findall(r"`(\w+)`", WAREHOUSE.split("## Tables that are not for users")[1]))
    assert internal - tables == {"measured"}
    assert set(sections()) == relations - internal
    for relation, text in sections().items():
        columns = [c for (c,) in empty.execute(f"SELECT column_name FROM (DESCRIBE {relation})").fetchall()]
        assert re.findall(r"^\| (\w+) \| \S", text, flags=re.MULTILINE)[1:] == columns, relation


def test_a_warehouse_carries_what_the_page_says(empty):
    assert COMMENTS.read_text() == comments(), "run `python -m tests.unit.test_docs`"
    carried = "SELECT table_name, column_name FROM duckdb_columns() WHERE comment IS NOT NULL"
    assert len(empty.execute(carried).fetchall()) == sum(len(COLUMN.findall(text)) - 1 for text in sections().values())


@pytest.mark.parametrize("sql", re.findall(r"```sql\n(.*?)```", WAREHOUSE, flags=re.DOTALL))
def test_documented_sql_runs(empty, sql):
    empty.execute(sql).fetchall()


def test_every_command_and_setting_is_documented():
    for name in get_command(app).commands:
        assert f"`retain {name}" in REFERENCE
    for name, field in Settings.model_fields.items():
        assert f"`{field.validation_alias or f'RETAIN_{name.upper()}'}`" in REFERENCE


def test_every_study_key_dial_method_and_control_is_documented():
    for model in (
        Study,
        TargetFiles,
        Data,
        Cross,
        Retention,
        Budget,
        Primary,
        Execution,
        LabSpec,
        TrainingSize,
        RolloutServer,
        EvaluationSize,
        Judge,
        Generation,
    ):
        for name in model.model_fields:
            assert f"`{name}`" in REFERENCE, name
    for dial in {d for dials in DIALS.values() for d in dials}:
        assert f"`{dial}`" in REFERENCE, dial
    for name in (*NAMED, *CONTROLS):
        assert f"`{name}`" in METHOD, name


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(
        r"`make ([a-z-]+)`", REFERENCE + (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    ):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


SHOWN = re.findall(r"^`(examples/[\w/.]+)`:\n\n```\w+\n(.*?)```$", EXTEND, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("path", "text"), SHOWN)
def test_what_is_shown_of_the_example_is_in_its_files(path, text):
    assert text in (ROOT / path).read_text()


def test_every_file_of_the_example_that_a_user_writes_is_shown():
    written = {p.name for p in (ROOT / "examples" / "own_method").glob("*.*")} - {"held_out.jsonl", "manners.jsonl"}
    assert {path.split("/")[-1] for path, _ in SHOWN} == written


if __name__ == "__main__":
    COMMENTS.write_text(comments(), encoding="utf-8")
