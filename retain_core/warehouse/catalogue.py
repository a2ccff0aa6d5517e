"""`.tables` and `.schema`: what the warehouse says of itself, from the comments that it carries (comments.sql)."""

from __future__ import annotations

from typing import Any

import duckdb

from retain_core.errors import InputError

_TABLES = """
SELECT name, meaning FROM (
    SELECT table_name AS name, comment AS meaning FROM duckdb_tables() UNION ALL
    SELECT view_name, comment FROM duckdb_views()
) WHERE meaning IS NOT NULL ORDER BY name
"""
_SCHEMA = """
SELECT column_name AS "column", data_type AS type, comment AS meaning FROM duckdb_columns()
WHERE table_name = ? ORDER BY column_index
"""
_WHOLE_SCHEMA = """
SELECT table_name AS relation, column_name AS "column", data_type AS type, comment AS meaning FROM duckdb_columns()
WHERE NOT internal AND list_contains(?, table_name) ORDER BY relation, column_index
"""


def is_dotted(text: str) -> bool:
    """Whether this is a command such as `.tables` and no query."""
    return text.lstrip().startswith(".")


def question(con: duckdb.DuckDBPyConnection, text: str) -> tuple[str, list[Any]]:
    """A query as it is, or that behind a dot command, with its values. Raises InputError for a command that is not known."""
    if not is_dotted(text):
        return text, []
    command, *names = text.split()
    known = [name for name, _ in con.execute(_TABLES).fetchall()]
    if not known:
        raise InputError("this warehouse was made by an earlier version and explains nothing; `retain run` makes it anew")
    if command == ".tables" and not names:
        return _TABLES, []
    if command == ".schema" and not names:
        return _WHOLE_SCHEMA, [known]
    if command == ".schema" and len(names) == 1:
        if names[0] not in known:
            raise InputError(f"there is no table or view {names[0]!r}; `retain sql .tables` lists them")
        return _SCHEMA, names
    raise InputError(f"unknown command {text.strip()!r}; known: .tables, .schema, .schema NAME")
