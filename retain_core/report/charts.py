"""Charts as Vega-Lite specifications, rendered to SVG without a browser or a network."""

from __future__ import annotations

from typing import Any

from retain_core.arms import rate_text
from retain_core.report.results import Results


def gain_drop_plane(results: Results) -> str | None:
    """Every checkpoint of every method as a point: what it gained, what it lost. SVG; None where there is no such pair."""
    import vl_convert

    if not results.points or any(p["gain"] is None or p["drop"] is None for p in results.points):
        return None

    rows = [
        {
            "gain": 100 * p["gain"], "drop": 100 * p["drop"], "method": p["method"], "arm": p["arm"], "step": p["step"],
            "learning rate": "external" if p["learning_rate"] is None else rate_text(p["learning_rate"]),
            "last": p["step"] == max(q["step"] for q in results.points if q["arm"] == p["arm"]),
        }
        for p in results.points
    ]  # fmt: skip
    shared = {
        "x": {"field": "gain", "type": "quantitative", "title": "gain on the target (points)"},
        "y": {
            "field": "drop", "type": "quantitative", "title": "drop on the rest (points, compressed above 1)",
            "scale": {"type": "symlog", "constant": 1}, "axis": {"values": [-2, -1, 0, 1, 2, 5, 10, 20, 50, 100]},
        },
        "color": {
            "field": "method", "type": "nominal", "title": None, "sort": None,
            "legend": {"orient": "bottom", "columns": 4, "symbolOpacity": 1},
            "scale": {"domain": list(results.colors), "range": list(results.colors.values())},
        },
    }  # fmt: skip
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "rule", "color": "#999", "strokeDash": [3, 3]}, "encoding": {"x": {"datum": 0}}},
        {"mark": {"type": "rule", "color": "#999", "strokeDash": [3, 3]}, "encoding": {"y": {"datum": 0}}},
        {
            "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.35},
            "encoding": {**shared, "detail": {"field": "arm"}, "order": {"field": "step"}},
        },
        {
            "mark": {"type": "point", "filled": True, "opacity": 0.9},
            "encoding": {
                **shared,
                "shape": {"field": "learning rate", "type": "nominal", "legend": {"orient": "bottom"}},
                "size": {"condition": {"test": "datum.last", "value": 90}, "value": 25},
            },
        },
    ]
    seeds = len({p["seed"] for p in results.points})
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": {
            "text": f"{len(rows)} checkpoints, {seeds} seeds; large marks: last checkpoint of an arm", "fontSize": 12,
            "fontWeight": "normal",
        },
        "data": {"values": rows}, "width": 620, "height": 380, "layer": layers,
        "config": {"font": "sans-serif", "axis": {"labelFontSize": 12, "titleFontSize": 13}},
    }  # fmt: skip
    return str(vl_convert.vegalite_to_svg(spec, vl_version="5.20"))
