"""A comparison as a page: the parts of a study's page, one file that asks for nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from retain_core.compare.runs import Comparison
from retain_core.compare.runs_page import runs_page
from retain_core.compare.settings import Setting
from retain_core.compare.studies import StudiesCompared
from retain_core.compare.studies_page import studies_page
from retain_core.report.page import render
from retain_core.report.parts import Column, Page, Part, Section, Table, Text
from retain_core.store import write_atomically

SIDES = (Column("setting", "setting"), Column("a", "A", "long"), Column("b", "B", "long"))


def write_page(found: Comparison | StudiesCompared, file: Path, command: Sequence[str]) -> None:
    """Write the page to a file, replacing it; `command` is what the user typed, to be repeated."""
    write_atomically(file, render(comparison_page(found, command)))


def comparison_page(found: Comparison | StudiesCompared, command: Sequence[str]) -> Page:
    """Everything on the page."""
    ends = [_settings(found.settings, isinstance(found, StudiesCompared)), _origin(found.origin, command)]
    return studies_page(found, ends) if isinstance(found, StudiesCompared) else runs_page(found, ends)


def _settings(settings: Iterable[Setting], studies: bool) -> Section:
    rows = side_rows(settings)
    if rows:
        return Section("settings", "Settings that differ", [Table("settings", "settings that differ", SIDES, rows)])
    none = [Text(Markup("No setting of the studies differs."), "soft")] if studies else []
    return Section("settings", "Settings that differ", [*none])


def _origin(origin: Iterable[Setting], command: Sequence[str]) -> Section:
    again = Text(Markup("To repeat it: <code>{}</code>").format(shlex.join(command)))
    parts: list[Part] = [Table("origin", "where these numbers come from", SIDES, side_rows(origin)), again]
    return Section("provenance", "Where these numbers come from", parts)


def side_rows(settings: Iterable[Setting]) -> list[dict[str, str]]:
    """Rows of a table with a column for each side."""
    return [{"setting": name, "a": a, "b": b} for name, a, b in settings]
