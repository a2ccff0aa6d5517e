"""Rows of intervals, and what charts share: scales in points, lines across."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from retain_core.report.palette import GREY, INKED, PAGE
from retain_core.report.parts import Row

PAPER_HEIGHT = 800
"""Pixels of a chart that fits a page."""
TICKS = (1, 2, 5, 10, 20, 50, 100)


def interval_rows(
    rows: list[Row],
    data: str,
    title: str,
    *,
    room: int,
    encoding: Row,
    lines: Row | None = None,
    about: Sequence[Row] = (),
    after: Sequence[Row] = (),
    measured: str = "drop",
) -> dict[str, Any]:
    """A forest: a row per interval under the header of its group, with text at the right.

    `data` names the dataset of the rows, whose `drop`, `low` and `high` are in points; `room` is what the text at the right
    takes, in pixels; `encoding` says how marks look and `lines` how their intervals do (default: the colour of the marks);
    `about` and `after` are what a mark says before and after its figures. On narrow screens labels stand above their intervals.
    """
    known = [row for row in rows if row.get("drop") is not None]
    values = [row[key] for row in known for key in ("drop", "low", "high") if row[key] is not None]
    x = {"type": "quantitative", "title": f"{title} (points, compressed beyond 1)", **symlog(values)}
    y: Row = {
        "field": "row", "type": "nominal", "title": None, "sort": None, "scale": {"domain": [row["row"] for row in rows]},
        "axis": {
            "labelExpr": "slice(datum.label, 5)", "labelLimit": 300, "ticks": False, "domain": False, "grid": False,
            "labelFontWeight": {"condition": {"test": "slice(datum.value, 4, 5) == '#'", "value": "bold"}, "value": "normal"},
            "labelColor": {"condition": {"test": "slice(datum.value, 4, 5) == '#'", "value": "var(--ink)"},
            "value": "var(--soft)"},
        },
    }  # fmt: skip
    drawn = [{"filter": "datum.drop != null"}]
    layers = [
        rule("x", 0),
        {
            "transform": [*drawn, {"filter": "datum.low != null"}], "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.75},
            "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}, "y": y,
                         **({"color": encoding["color"]} if lines is None else lines)},
        },
        {
            "transform": drawn, "name": "marks", "mark": {"type": "point", "filled": True, "opacity": 1, "size": 60},
            "encoding": {
                "x": {"field": "drop", **x}, "y": y, **encoding,
                "tooltip": [
                    *about, {"field": "drop", "title": f"{measured} (points)", "format": "+.1f"},
                    {"field": "low", "title": "95 % interval from", "format": "+.1f"},
                    {"field": "high", "title": "to", "format": "+.1f"}, *after,
                ],
            },
        },
        {
            "mark": {"type": "text", "align": "left", "dx": 8, "fontSize": 11, "color": "var(--soft)"},
            "encoding": {"x": {"value": "width"}, "y": y, "text": {"field": "right"}},
        },
    ]  # fmt: skip
    paper = 17 if 17 * len(rows) < PAPER_HEIGHT else 13
    return {
        "data": {"name": data}, "height": 17 * len(rows), "padding": {"left": 5, "top": 5, "bottom": 5, "right": room},
        "usermeta": {
            "narrow": {"padding": 5, "height": 28 * len(rows), "layer": _labels(y)}, "paper": {"height": paper * len(rows)},
        },
        "layer": layers,
    }  # fmt: skip


def _labels(y: Row) -> list[Row]:
    """Labels and the text at the right as text above each interval, on a seam of paper where lines cross it."""
    bare = {**y, "axis": None}

    def text(field: str, header: bool, **mark: Any) -> Row:
        return {
            "transform": [{"filter": "datum.header" if header else "!datum.header"}],
            "mark": {"type": "text", "fontSize": 11, "dy": 0 if header else -10, "aria": False, **mark},
            "encoding": {"x": {"value": "width" if field == "right" else 0}, "y": bare, "text": {"field": field}},
        }

    return [
        text("label", True, align="left", fontWeight="bold", stroke=PAGE, strokeWidth=4),
        text("label", True, align="left", fontWeight="bold", color=INKED),
        text("label", False, align="left", stroke=PAGE, strokeWidth=4), text("label", False, align="left", color=GREY),
        text("right", True, align="right", color=GREY), text("right", False, align="right", color=GREY),
    ]  # fmt: skip


def placed(rows: list[Row]) -> list[Row]:
    """Rows with a key that keeps their order and is their label from the sixth character on; headers have `#` before it."""
    return [
        {**row, "row": f"{i:04d}{'#' if row.get('header') else ' '}{row['label']}", "right": row.get("right", "")}
        for i, row in enumerate(rows)
    ]


def symlog(values: Iterable[float]) -> Row:
    """A scale that is linear up to 1 point and compressed beyond, with its ticks."""
    known = [*values]
    low, high = min([-1.0, *known]), max([1.0, *known])
    low, high = low - 0.15 * abs(low), high + 0.25 * abs(high)
    ticks = sorted({0, *(t for t in TICKS if t <= high), *(-t for t in TICKS if -t >= low)})
    return {
        "scale": {"type": "symlog", "constant": 1, "domain": [round(low, 3), round(high, 3)], "nice": False},
        "axis": {"values": ticks, "labelOverlap": "greedy", "format": "d"},
    }


def rule(axis: str, at: float, **style: Any) -> Row:
    """A line across the chart, at one place of an axis."""
    mark = {"type": "rule", "color": GREY, "strokeDash": [3, 3], "aria": False, **style}
    return {"data": {"values": [{}]}, "mark": mark, "encoding": {axis: {"datum": at}}}


def in_points(value: float | None) -> float | None:
    """A fraction in points, as data of a chart."""
    return None if value is None else round(100 * value, 4)
