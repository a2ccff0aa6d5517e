"""Reading the warehouse: opening it, running a query, printing a table. Light enough for `retain sql`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Literal

import duckdb

from retain_core.errors import InputError

Format = Literal["table", "csv", "json", "markdown"]


def open_warehouse(path: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection. Raises InputError when there is no warehouse or a writer holds it."""
    if not path.is_file():
        raise InputError(f"there is no warehouse at {path} yet; `retain run studies/lab.yaml` makes one")
    try:
        con = duckdb.connect(str(path), read_only=True, config={"enable_external_access": False})
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            raise InputError(f"{path} is being written at the moment; try again in a few seconds") from None
        raise InputError(f"{path} cannot be read: {error}; delete it and run the study again to rebuild it") from None
    return con


def query(path: Path, sql: str, form: Format) -> str:
    """The answer to a query in one of the formats. Raises InputError for a query that is wrong."""
    with open_warehouse(path) as con:
        try:
            con.execute(sql)
            columns = [d[0] for d in con.description or []]
            rows = con.fetchall() if columns else []
        except duckdb.Error as error:
            raise InputError(str(error).strip()) from None
    return render(columns, rows, form)


def render(columns: list[str], rows: list[tuple[Any, ...]], form: Format) -> str:
    """Rows as text."""
    if form == "json":
        return json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=str, ensure_ascii=False, indent=1)
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        return out.getvalue().rstrip("\n")
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(c), *(len(r[i]) for r in cells)) if cells else len(c) for i, c in enumerate(columns)]
    numeric = [all(isinstance(row[i], int | float) or row[i] is None for row in rows) for i in range(len(columns))]

    def line(values: list[str]) -> str:
        return " | ".join(v.rjust(w) if n else v.ljust(w) for v, w, n in zip(values, widths, numeric, strict=True))

    if form == "markdown":
        rule = "|".join(["", *("-" * (w + 1) + (":" if n else "-") for w, n in zip(widths, numeric, strict=True)), ""])
        return "\n".join([f"| {line(columns)} |", rule, *(f"| {line(row)} |" for row in cells)])
    rule = "-+-".join("-" * w for w in widths)
    count = f"({len(rows)} row{'' if len(rows) == 1 else 's'})"
    return "\n".join([line(columns).rstrip(), rule, *(line(row).rstrip() for row in cells), count])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 0.0001 or value == 0 else f"{value:.1e}"
    if isinstance(value, list):
        return "[" + ", ".join(_cell(v) for v in value) + "]"
    return str(value).replace("\n", " ")
