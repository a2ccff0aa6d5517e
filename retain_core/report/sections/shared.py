"""What sections are written with."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from retain_core.report.parts import Chart, Column, Part, Row, Table, Text

METHOD = Column("method", "method", "method")
RATE = Column("learning_rate", "learning rate", "rate")


def soft(text: str) -> Text:
    """A paragraph in the second colour; the text is escaped."""
    return Text(Markup("{}").format(text), "soft")


def chart_of(charts: dict[str, Chart], name: str) -> list[Part]:
    """The chart of that name, if the study has it."""
    return [charts[name]] if name in charts else []


def table_of(
    name: str, title: str, columns: Sequence[Column], rows: Sequence[Row], relation: str = "", folded: bool = False
) -> list[Part]:
    """The table without the columns of which nothing is known; nothing where there are no rows."""
    known = [c for c in columns if any(row[name] not in (None, "", []) for row in rows for name in c.names)]
    return [Table(name, title, known, rows, relation, folded)] if known else []
