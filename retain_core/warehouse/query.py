"""Reading the warehouse: opening it, running a query, printing a table. Light enough for `retain sql`."""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from decimal import Decimal
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import duckdb

from retain_core.errors import InputError
from retain_core.warehouse.catalogue import is_dotted, question

Format = Literal["table", "csv", "json", "markdown"]
LEAST = 8
"""A text is never cut to fewer characters; what then does not fit is left out by name."""


_SHUT: dict[str, Any] = {"enable_external_access": False, "lock_configuration": True}
"""No file can be reached, and none of DuckDB's settings, its log files among them, can change that."""


def open_warehouse(path: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection. Raises InputError when there is no warehouse or a writer holds it."""
    return _open(path, _SHUT)


def open_for_queries(path: Path) -> duckdb.DuckDBPyConnection:
    """The same for SQL that is not ours: no file can be reached any more, the warehouse's own and those beside it included.

    DuckDB opens these for itself (the log, the folder for what memory does not hold), and would let a query write to them.
    """
    con = _open(path, _SHUT | {"lock_configuration": False, "temp_directory": ""})
    con.execute("SET disabled_filesystems = 'LocalFileSystem'; SET lock_configuration = true")
    return con


def _open(path: Path, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    if not path.is_file():
        raise InputError(f"there is no warehouse at {path} yet; `retain run studies/lab.yaml` makes one")
    try:
        return duckdb.connect(str(path), read_only=True, config=config)
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            raise InputError(f"{path} is being written at the moment; try again in a few seconds") from None
        raise InputError(f"{path} cannot be read: {error}; delete it and run the study again to rebuild it") from None


def query(path: Path, sql: str, form: Format, width: int | None = None) -> str:
    """The answer to a query or to `.tables` and `.schema`, in one of the formats; `width` is the terminal's.

    Raises InputError for a query that is wrong.
    """
    with open_for_queries(path) as con:
        columns, rows = ask(con, sql)
    return render(columns, rows, form, width, wrap=is_dotted(sql))


def ask(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns, and the rows. Raises InputError for a query that is wrong."""
    try:
        con.execute(*question(con, sql))
        columns = [d[0] for d in con.description or []]
        return columns, con.fetchall() if columns else []
    except duckdb.Error as error:
        raise InputError(str(error).strip()) from None


def render(columns: list[str], rows: list[tuple[Any, ...]], form: Format, width: int | None = None, wrap: bool = False) -> str:
    """Rows as text. Only a table with a `width` (characters) leaves anything out: it says so, or wraps its texts instead."""
    if form == "json":
        named = [{c: _json(v) for c, v in zip(columns, row, strict=True)} for row in rows]
        return json.dumps(named, default=str, ensure_ascii=False, indent=1)
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        return out.getvalue().rstrip("\n")
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(isinstance(row[i], int | float | Decimal) or row[i] is None for row in rows) for i in range(len(columns))]
    if form == "markdown":
        columns, cells = [c.replace("|", "\\|") for c in columns], [[c.replace("|", "\\|") for c in row] for row in cells]
    widths = [max(len(c), *(len(r[i]) for r in cells)) if cells else len(c) for i, c in enumerate(columns)]
    count = f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
    if form == "table" and width is not None:
        widths = _fit(columns, widths, numeric, width)
        if len(widths) < len(columns):
            count += f"; not shown, as too wide: {', '.join(columns[len(widths) :])}"

    def line(values: list[str]) -> str:
        shown = zip(values, widths, numeric, strict=False)
        return " | ".join(_cut(v, w).rjust(w) if n else _cut(v, w).ljust(w) for v, w, n in shown)

    if form == "markdown":
        rule = "|".join(["", *("-" * (w + 1) + (":" if n else "-") for w, n in zip(widths, numeric, strict=True)), ""])
        return "\n".join([f"| {line(columns)} |", rule, *(f"| {line(row)} |" for row in cells)])
    rule = "-+-".join("-" * w for w in widths)
    if wrap:
        cells = [list(part) for row in cells for part in _wrapped(row, widths)]
    end = f"({count})" if width is None else textwrap.fill(f"({count})", width)
    return "\n".join([line(columns).rstrip(), rule, *(line(row).rstrip() for row in cells), end])


def _fit(columns: list[str], widths: list[int], numeric: list[bool], width: int) -> list[int]:
    """Widths of the columns that fit, from the left: numbers stay whole, the widest text gives way first."""
    least = [w if n else min(w, max(LEAST, len(c))) for c, w, n in zip(columns, widths, numeric, strict=True)]
    shown = max(1, sum(sum(least[: k + 1]) + 3 * k <= width for k in range(len(columns))))
    fitted = [w if n else min(w, width) for w, n in zip(widths[:shown], numeric, strict=False)]
    while sum(fitted) + 3 * (shown - 1) > width:
        widest = max(range(shown), key=lambda i: fitted[i] - least[i])
        if fitted[widest] <= least[widest]:
            break
        fitted[widest] -= 1
    return fitted


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _wrapped(row: list[str], widths: list[int]) -> Any:
    return zip_longest(*(textwrap.wrap(c, w) or [""] for c, w in zip(row, widths, strict=False)), fillvalue="")


def _json(value: Any) -> Any:
    """What JSON can say: decimals are numbers, and neither nan nor inf is one."""
    if isinstance(value, list):
        return [_json(v) for v in value]
    if isinstance(value, Decimal):
        value = float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 0.0001 or value == 0 else f"{value:.1e}"
    if isinstance(value, list):
        return "[" + ", ".join(_cell(v) for v in value) + "]"
    # An answer may hold anything, escape sequences of a terminal too.
    return "".join(c if c.isprintable() else " " for c in str(value))
