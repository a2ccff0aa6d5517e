"""Rows of the user's JSONL files: which are good, and what is wrong with each of the others.

A study is read with a tolerance (`data.bad_rows`): which rows are left out is decided then, once, and sealed with the files.
Whoever reads a file later skips exactly those.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from retain_core.errors import InputError
from retain_core.own.files import Row, Sealed

MOST_BYTES = 1_000_000
"""A longer row is bad: it is a file pasted into a line more often than a question."""


class LeftOut(Sealed):
    """A row that is left out, and why."""

    line: int
    reason: str


class Examined(NamedTuple):
    """A file, row by row."""

    rows: dict[int, Row]
    """Line -> row, of the good ones."""
    bad: dict[int, str]
    """Line -> what is wrong, of the others."""


def read_rows(path: Path, without: Collection[LeftOut] = ()) -> list[tuple[int, Row]]:
    """(line, row) of a JSONL file whose rows have a `prompt`; each prompt stands once.

    Raises InputError with file, line and what is wrong for a bad row that is not among those left out.
    """
    found = examine_prompts(path)
    skipped = {entry.line for entry in without}
    refuse_beyond(path, Examined(found.rows, {line: why for line, why in found.bad.items() if line not in skipped}), 0.0)
    return [(line, row) for line, row in found.rows.items() if line not in skipped]


def examine_prompts(path: Path) -> Examined:
    """A JSONL file of prompts. Raises InputError when it cannot be read."""
    found = examine(path)
    rows, bad, seen = dict(found.rows), dict(found.bad), dict[str, int]()
    for line, row in found.rows.items():
        problem = _problem(row)
        if problem is None and row["prompt"] in seen:
            problem = f"the prompt of line {seen[row['prompt']]} again; a prompt stands once"
        if problem:
            bad[line] = problem
            del rows[line]
        else:
            seen[row["prompt"]] = line
    return Examined(rows, bad)


def examine(path: Path) -> Examined:
    """A JSONL file whatever its rows say. Raises InputError when it cannot be read."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    rows: dict[int, Row] = {}
    bad: dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row, problem = _decoded(line)
            if problem:
                bad[number] = problem
            else:
                rows[number] = row
    return Examined(rows, bad)


def examine_documents(path: Path, needed: Collection[str]) -> Examined:
    """A JSONL file of documents that have the same fields of the same types, and some that each must have.

    A field of `needed` that no document has is not missed: a template may leave it to a default.
    """
    found = examine(path)
    types = {name: _usual_type(found.rows, name) for name in dict.fromkeys(name for row in found.rows.values() for name in row)}
    rows, bad = dict(found.rows), dict(found.bad)
    for line, row in found.rows.items():
        if problem := _unlike(row, types, needed):
            bad[line] = problem
            del rows[line]
    return Examined(rows, bad)


def marked(found: Examined, problems: Mapping[int, str]) -> Examined:
    """The same file with more of its good rows found bad."""
    rows = {line: row for line, row in found.rows.items() if line not in problems}
    return Examined(rows, {**found.bad, **{line: why for line, why in problems.items() if line in found.rows}})


def refuse_beyond(path: Path, found: Examined, share: float) -> tuple[LeftOut, ...]:
    """What is left out of a file. Raises InputError when that is more than the share of its rows which may be."""
    if not found.bad:
        if not found.rows:
            raise InputError(f"{path} has no rows")
        return ()
    count, total = len(found.bad), len(found.bad) + len(found.rows)
    line = min(found.bad)
    if share == 0:
        more = f" (and {count - 1} more bad rows)" if count > 1 else ""
        raise InputError(f"{path}:{line}: {found.bad[line]}{more}")
    if count > share * total or not found.rows:
        raise InputError(
            f"{path}:{line}: {found.bad[line]}; {count} of {total} rows are bad, "
            f"more than `data: {{bad_rows: {share:g}}}` allows"
        )
    return tuple(LeftOut(line=line, reason=why) for line, why in sorted(found.bad.items()))


def without_lines(path: Path, left_out: Collection[LeftOut]) -> bytes:
    """The bytes of a file without some of its lines."""
    gone = {entry.line for entry in left_out}
    lines = path.read_bytes().split(b"\n")
    return b"\n".join(line for number, line in enumerate(lines, start=1) if number not in gone)


def _decoded(line: bytes) -> tuple[Row, str]:
    """(row, "") or ({}, what is wrong)."""
    if len(line) > MOST_BYTES:
        return {}, f"the row has {len(line):,} bytes; a row has at most {MOST_BYTES:,}"
    try:
        row = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        return {}, f"not UTF-8 text: {error.reason} at byte {error.start + 1}"
    except UnicodeEncodeError:
        return {}, "half of a surrogate pair is no character"
    except json.JSONDecodeError as error:
        return {}, f"not valid JSON: {error.msg}"
    except ValueError as error:
        return {}, f"not valid JSON: {error}".splitlines()[0]
    except RecursionError:
        return {}, "not valid JSON: nested too deeply"
    return (row, "") if isinstance(row, dict) else ({}, 'a row is a JSON object such as {"prompt": "…"}')


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _problem(row: Row) -> str | None:
    if "prompt" not in row and isinstance(row.get("messages"), list):
        roles = [str(m.get("role")) if isinstance(m, dict) else "none" for m in row["messages"]]
        ask = "" if roles[-2:] == ["user", "assistant"] else ", which is no question and its answer"
        return f"`messages` (roles {', '.join(roles) or 'none'}){ask}: give `prompt` and `answer` instead"
    if not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
        return "`prompt` must be a text"
    answer = row.get("answer", "-")
    if not isinstance(answer, str):
        return "`answer` must be a text"
    if not answer.strip():
        return "`answer` is empty"
    valid = row.get("valid", ["-"])
    if not isinstance(valid, list) or not valid or not all(isinstance(text, str) and text.strip() for text in valid):
        return "`valid` must be a list of texts, every answer that is right"
    if len(set(valid)) < len(valid):
        return "`valid` lists an answer twice"
    if not isinstance(row.get("cluster", ""), str | int):
        return "`cluster` must be a text or a whole number"
    return None


_TYPES = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


def _usual_type(rows: Mapping[int, Row], name: str) -> str | None:
    """What most documents have in a field; None where all have null."""
    found = [_TYPES[type(row[name])] for row in rows.values() if row.get(name) is not None]
    return max(dict.fromkeys(found), key=found.count) if found else None


def _unlike(row: Row, types: Mapping[str, str | None], needed: Collection[str]) -> str | None:
    for name, usual in types.items():
        value: Any = row.get(name)
        if name in needed and value is None:
            return f"`{name}` is missing, which the benchmark asks with"
        if name in needed and isinstance(value, str) and not value.strip():
            return f"`{name}` is empty, which the benchmark asks with"
        if value is not None and (own := _TYPES[type(value)]) != usual:
            return f"`{name}` is {own}; in most rows it is {usual}"
    return None
