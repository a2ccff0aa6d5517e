"""What lies beside a study's page. This module owns the layout of `reports/<study>/`.

index.html       the page, complete in itself
NAME.svg         every chart, in light colours
NAME.csv         every table, with the values of the warehouse (fractions), and `checkpoints.csv` and `changed.csv`
headline.md      the headline table for a model card
headline.tex     the same for a paper
study.yaml       the study file, to run it again
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from retain_core.report.parts import Column, Page, Table
from retain_core.report.results import Results
from retain_core.report.vega import to_svg
from retain_core.study_file import FILLED_IN
from retain_core.warehouse.query import render

HEADLINE = ("method", "learning_rate", "gain", "gain_low,gain_high", "drop", "drop_low,drop_high", "drop_far")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "\n": " ",
}  # fmt: skip


def exported(page: Page, results: Results, answer: str) -> dict[str, str]:
    """File name -> text of everything beside the page."""
    found = {f"{chart.name}.svg": to_svg(chart, page.datasets) for chart in page.charts}
    found |= {f"{table.name}.csv": as_csv(*table.csv_rows()) for table in page.tables}
    found["checkpoints.csv"] = as_csv(*_checkpoints(results))
    if page.items:
        names = list(page.items[0])
        found["changed.csv"] = as_csv(names, [tuple(row[name] for name in names) for row in page.items])
    headline = next((table for table in page.tables if table.name == "methods"), None)
    if headline:
        found["headline.md"] = as_model_card(results, headline, answer)
        found["headline.tex"] = as_latex(results, headline)
    if results.spec.get("budget"):
        file = {key: value for key, value in results.spec.items() if key not in FILLED_IN}
        found["study.yaml"] = yaml.safe_dump(file, sort_keys=False, allow_unicode=True, width=120)
    return found


def as_csv(names: list[str], rows: Iterable[tuple[Any, ...]]) -> str:
    """CSV with a header; an empty cell is not known."""
    return render(names, list(rows), "csv") + "\n"


def as_model_card(results: Results, table: Table, answer: str) -> str:
    """A block for a model card: what was measured, the table, the verdict."""
    columns = _headline(table)
    lines = [
        f"## What teaching {_markdown(results.targets)} gained and cost" if results.targets else "## What was lost", "",
        _markdown(answer), "",
        "| " + " | ".join(_markdown(column.title) for column in columns) + " |",
        "|" + "|".join("---:" if column.numeric else "---" for column in columns) + "|",
        *("| " + " | ".join(_markdown(column.shown(row)) for column in columns) + " |" for row in table.rows), "",
        "Points, at the last checkpoint, with 95 % intervals over items and seeds, conditional on the base "
        f"`{results.spec['base']['model']}`. Drop: mean over "
        f"{', '.join(_markdown(b['benchmark']) for b in results.spec['retention'])}. Measured with retain, study "
        f"{_markdown(results.study)}, spec hash `{results.revision['spec_hash']}`.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def as_latex(results: Results, table: Table) -> str:
    """The same as a LaTeX table (booktabs)."""
    columns = _headline(table)
    said = (
        f"{_measured(results)} on {len(results.spec['retention'])} retention benchmarks in points, with 95 % intervals over "
        f"items and seeds, conditional on the base. Study {results.study}, spec hash {results.revision['spec_hash']}."
    )
    alignment = "".join("r" if column.numeric else "l" for column in columns)
    lines = [
        r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule",
        " & ".join(latex(column.title) for column in columns) + r" \\", r"\midrule",
        *(" & ".join(_number(latex(column.shown(row)), column) for column in columns) + r" \\" for row in table.rows),
        r"\bottomrule", r"\end{tabular}", rf"\caption{{{latex(said)}}}", r"\end{table}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _measured(results: Results) -> str:
    return f"Gain on {results.targets} and drop" if results.targets else "Drop"


def latex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(char, char) for char in text)


def _number(text: str, column: Column) -> str:
    """A minus, not a hyphen; a bracket in braces, so that it is no option of the line break before it."""
    if not column.numeric:
        return text
    return f"{{{text.replace('-', '$-$')}}}" if text.startswith("[") else text.replace("-", "$-$")


def _headline(table: Table) -> list[Column]:
    return [column for column in table.columns if column.keys in HEADLINE]


def _markdown(text: str) -> str:
    for char in "\\|<>*_`[]":
        text = text.replace(char, f"\\{char}")
    return text.replace("\n", " ")


def _checkpoints(results: Results) -> tuple[list[str], list[tuple[Any, ...]]]:
    names = list(results.points[0]) if results.points else ["checkpoint"]
    return names, [tuple(row[name] for name in names) for row in results.points]
