"""What the charts of a study share: how methods and learning rates look, axes, what a mark says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from retain_core.report.forest import rule, symlog
from retain_core.report.palette import GREY, PAGE, Look, look, shapes
from retain_core.report.parts import Row
from retain_core.report.results import Results


def line(results: Results) -> Row:
    """Colour and dash of a line."""
    return {"color": colour(results), "strokeDash": dash(results)}


def mark(results: Results) -> Row:
    """Inside, outline and shape of a mark."""
    looks, legend = _looks(results), {"symbolType": "circle"}
    return {
        "fill": _by_method(looks, lambda one: one.fill, legend), "stroke": _by_method(looks, lambda one: one.stroke, legend),
        "strokeWidth": _by_method(looks, lambda one: one.width, legend), "shape": _shape(results),
    }  # fmt: skip


def colour(results: Results) -> Row:
    """Colour of what belongs to a method."""
    return _by_method(_of_lines(results), lambda one: one.colour, None)


def dash(results: Results) -> Row:
    """How the lines of a method are broken."""
    return _by_method(_of_lines(results), lambda one: one.dash, None)


def _shape(results: Results) -> Row:
    found = shapes(p["learning_rate"] for p in results.points)
    scale = {"domain": list(found), "range": list(found.values())}
    return {"field": "rate", "type": "nominal", "title": "learning rate", "scale": scale}


def _of_lines(results: Results) -> dict[str, Look]:
    """In another order than those of marks: scales of one order share their legend, and lines have none."""
    return dict(reversed(_looks(results).items()))


def _by_method(looks: dict[str, Look], of: Callable[[Look], Any], legend: Row | None) -> Row:
    scale = {"type": "ordinal", "domain": list(looks), "range": [of(one) for one in looks.values()]}
    return {"field": "method", "type": "ordinal", "title": None, "scale": scale, "legend": legend}


def _looks(results: Results) -> dict[str, Look]:
    """Method -> how it is drawn; grey what is no method of the study."""
    extra = sorted({m["method"] for m in results.matched} - set(results.places))
    grey = Look(GREY, GREY, PAGE, 0.6, [1, 0], 0)
    return {method: look(place) for method, place in results.places.items()} | dict.fromkeys(extra, grey)


def drop_axis(values: Iterable[float]) -> Row:
    """The axis of drops in points."""
    return {"type": "quantitative", "title": "drop on the rest (points, compressed beyond 1)", **symlog(values)}


def zero_lines() -> list[Row]:
    """Where nothing was gained and nothing lost."""
    return [rule("x", 0), rule("y", 0)]


def about_checkpoint(exact: bool) -> list[Row]:
    """What a mark says of its checkpoint."""
    return [
        {"field": "method", "title": "method"}, {"field": "rate", "title": "learning rate"}, {"field": "seed", "title": "seed"},
        {"field": "step", "title": "update"}, {"field": "gain", "title": "gain (points)", "format": "+.1f"},
        *([{"field": "exact", "title": "gain, exact score (points)", "format": "+.1f"}] if exact else []),
        {"field": "drop", "title": "drop (points)", "format": "+.1f"},
        {"field": "far", "title": "drop, far benchmarks only (points)", "format": "+.1f"},
        {"field": "kl", "title": "forward KL (nats per token)", "format": ".3f"},
    ]  # fmt: skip


def rounded(value: float | None) -> float | None:
    """Five digits: data of a chart."""
    return None if value is None else float(f"{value:.5g}")
