"""The examples of docs/warehouse.md run on a finished study and give the columns that the page shows.

`python -m tests.component.test_warehouse_docs HOME` writes the outputs anew from the lab study in HOME.
"""

import re
import shutil
import sys
import textwrap
from pathlib import Path

import pytest

from retain_core.warehouse.query import query
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "warehouse.md"
EXAMPLE = re.compile(r"```sql\n(?P<sql>.*?)```\n\n```text\n(?P<output>.*?)```", re.DOTALL)
EXAMPLES = [(m["sql"], m["output"].splitlines()) for m in EXAMPLE.finditer(PAGE.read_text(encoding="utf-8"))]
NEVER_NULL = re.compile(r"^\| (\w+) \| .* \| \|$", re.MULTILINE)


def refresh(home: Path) -> None:
    """Write every output block of the page anew."""

    def answered(match: re.Match[str]) -> str:
        output = query(home / "warehouse.duckdb", match["sql"], "table")
        return f"```sql\n{match['sql']}```\n\n```text\n{output}\n```"

    PAGE.write_text(EXAMPLE.sub(answered, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def test_every_example_has_its_output():
    assert len(EXAMPLES) >= 10
    assert len(EXAMPLES) == PAGE.read_text(encoding="utf-8").count("```sql\n")


@pytest.mark.parametrize(("sql", "output"), EXAMPLES)
def test_an_example_gives_the_columns_that_it_shows_and_shows_a_row(warehouse, sql, output):
    columns = [d[0] for d in warehouse.execute(sql).description]
    assert [c.strip() for c in output[0].split(" | ")] == columns
    rows = len(output) - 3
    assert rows >= 1
    assert output[-1] == f"({rows} row{'' if rows == 1 else 's'})"


def test_the_python_of_the_page_runs_anywhere(finished_home, tmp_path, monkeypatch, capsys):
    (tmp_path / "results").mkdir()
    shutil.copy(finished_home / "warehouse.duckdb", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"  ```python\n(.*?)  ```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(textwrap.dedent(code), {})
    assert "smoke/base" in capsys.readouterr().out


def test_a_column_without_a_word_on_null_has_no_nulls(warehouse):
    wrong = []
    for section in re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        relation = section.splitlines()[0]
        for column in NEVER_NULL.findall(section):
            (nulls,) = warehouse.execute(f'SELECT count(*) FROM {relation} WHERE "{column}" IS NULL').fetchone()
            wrong += [f"{relation}.{column}"] if nulls else []
    assert wrong == []


if __name__ == "__main__":
    refresh(Path(sys.argv[1]))
