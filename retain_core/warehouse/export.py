"""The answer to a query as a file. We write it from the result: the connection itself can reach no file."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb

from retain_core.errors import InputError
from retain_core.store import write_atomically
from retain_core.warehouse.catalogue import question
from retain_core.warehouse.query import Format, ask, open_for_queries, render

FORMS: dict[str, Format | None] = {".csv": "csv", ".json": "json", ".md": "markdown", ".parquet": None}
"""Ending of a file -> how it is written; Parquet goes its own way."""


def export(warehouse: Path, sql: str, output: Path) -> int:
    """Write the answer to a file in the form that its ending says; a file of that name is replaced in one step.

    Returns the number of rows. Raises InputError for a wrong query, an unknown ending, or a place that cannot be written.
    """
    if output.suffix not in FORMS:
        raise InputError(f"the ending of {output.name} says the format: {', '.join(FORMS)}")
    if not output.absolute().parent.is_dir():
        raise InputError(f"there is no folder {output.parent}")
    form = FORMS[output.suffix]
    with open_for_queries(warehouse) as con:
        try:
            if form is None:
                return _write_parquet(con, sql, output)
            columns, rows = ask(con, sql)
            write_atomically(output, render(columns, rows, form) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {output}: {error.strerror or error}") from None
    return len(rows)


def _write_parquet(con: duckdb.DuckDBPyConnection, text: str, output: Path) -> int:
    """Batch by batch, so that memory does not grow with the answer."""
    import pyarrow.parquet as pq

    draft = output.with_name(f".{output.name}.{os.getpid()}")
    sql, values = question(con, text)
    try:
        batches = con.sql(sql, params=values).to_arrow_reader(100_000)
        with pq.ParquetWriter(draft, batches.schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        rows = int(pq.read_metadata(draft).num_rows)
        draft.replace(output)
    except duckdb.Error as error:
        raise InputError(str(error).strip()) from None
    finally:
        draft.unlink(missing_ok=True)
    return rows
