"""What a page is made of: sections that hold charts, tables and text. Any page of retain is a list of sections."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from retain_core.report.palette import rate_label
from retain_core.report.words import interval, number, p_text, percent, points

Row = dict[str, Any]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


KINDS: dict[str, Callable[..., str]] = {
    "text": _text,
    "long": _text,
    "method": _text,
    "code": _text,
    "rate": lambda value: "" if value is None else rate_label(value),
    "points": points,
    "interval": interval,
    "each": lambda values: ", ".join(points(value) for value in values or []),
    "number": number,
    "numbers": lambda low, high: "" if low is None or high is None else f"[{number(low)}, {number(high)}]",
    "percent": percent,
    "count": lambda value: "" if value is None else f"{value:,}",
    "p": p_text,
    "score": lambda value: "" if value is None else f"{value:.4f}",
    "tiny_points": lambda value: "" if value is None else f"{100 * value:.4f}",
    "yes": lambda value: "" if value is None else "yes" if value else "no",
    "passed": lambda value: "not run" if value is None else "yes" if value else "no",
}
"""How a value is written. Those that take two values show an interval."""
LEFT = ("text", "long", "method", "code", "each", "yes", "passed")


@dataclass(frozen=True)
class Column:
    """One column: the key or keys of a row that it shows, its title, and how a value is written."""

    keys: str
    """One key, or two with a comma between them."""
    title: str
    kind: str = "text"

    @property
    def names(self) -> list[str]:
        """The keys apart."""
        return self.keys.split(",")

    @property
    def numeric(self) -> bool:
        """Whether the column is set flush right."""
        return self.kind not in LEFT

    def shown(self, row: Row) -> str:
        """The cell as text."""
        return KINDS[self.kind](*(row[name] for name in self.names))


@dataclass(frozen=True)
class Table:
    """A table; `name` is its id on the page and the name of its CSV file, `relation` where its rows come from in SQL."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    relation: str = ""
    folded: bool = False
    """Closed at first, under its title."""
    note: str = ""

    def csv_rows(self) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Names and values as they are in SQL: fractions, not points; lists as JSON."""
        names = list(dict.fromkeys(name for column in self.columns for name in column.names))
        return names, [tuple(_plain(row[name]) for name in names) for row in self.rows]


@dataclass(frozen=True)
class Chart:
    """A Vega-Lite specification whose data are named; `name` is its id and the name of its SVG file."""

    name: str
    title: str
    spec: dict[str, Any]
    described: str
    """What the chart shows, for those who do not see it."""
    n: str
    """How many of what stand behind it."""
    file_title: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph; `html` is trusted, so build it with `Markup(...).format(...)`, which escapes what is put in."""

    html: str
    kind: str = ""
    """CSS class: `soft`, `bad` or none."""


@dataclass(frozen=True)
class Items:
    """The place of the changed items; they are data, shown by the page's script."""

    note: str


Part = Chart | Table | Text | Items


@dataclass(frozen=True)
class Section:
    """A section with a title; one without parts is not shown."""

    id: str
    title: str
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True)
class Chip:
    """A word with a state in colour: `good`, `bad` or `plain`."""

    word: str
    state: str = "plain"


@dataclass(frozen=True)
class Head:
    """The first screen: what a stranger must know. `answer`, `facts` and `words` are trusted HTML, like `Text`."""

    kicker: str
    question: str
    answer: Markup
    chips: Sequence[Chip]
    warnings: Sequence[str]
    facts: Sequence[tuple[str, str]]
    words: Sequence[tuple[str, str]]
    """Words that the page uses, explained."""
    chart: Chart | None = None
    chart_note: str = ""


@dataclass(frozen=True)
class Page:
    """Everything on a page, and the data that its charts and its script read."""

    title: str
    head: Head
    sections: Sequence[Section]
    colours: dict[str, int]
    """Method -> its place, which says how it looks."""
    rates: dict[str, str]
    """Learning rate -> shape."""
    datasets: dict[str, list[Row]]
    items: list[Row] = field(default_factory=list)
    sides: tuple[str, str] = ("before training", "after training")
    """What the two answers to a changed question are called."""
    alone: bool = False
    """Whether no files lie beside the page."""

    @property
    def shown(self) -> list[Section]:
        """Sections that have something in them."""
        return [section for section in self.sections if section.parts]

    @property
    def charts(self) -> list[Chart]:
        """Every chart, in the order of the page."""
        inside = [part for section in self.shown for part in section.parts if isinstance(part, Chart)]
        return [*([self.head.chart] if self.head.chart else []), *inside]

    @property
    def tables(self) -> list[Table]:
        """Every table, in the order of the page."""
        return [part for section in self.shown for part in section.parts if isinstance(part, Table)]


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value
