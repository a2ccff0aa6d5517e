"""The sweep as a chart, rendered to SVG without a browser or a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retain_core.simulate.sweep import BETAS, SAMPLINGS, SLOW_FACTORS, Cell, Sampling

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
APART = 0.15
"""Points of one slow factor stand beside each other, so that their intervals can be told apart."""


def sweep_chart(cells: Sequence[Cell]) -> str:
    """Drop of forward minus drop of reverse over the slow factor: a panel for each sampling, a colour for each beta. SVG."""
    import vl_convert

    x = {
        "field": "place", "type": "quantitative", "title": "slow factor", "scale": {"domain": [-0.5, len(SLOW_FACTORS) - 0.5]},
        "axis": {
            "values": list(range(len(SLOW_FACTORS))), "grid": False, "labelExpr": f"{list(SLOW_FACTORS)}[datum.value]",
        },
    }  # fmt: skip
    y = {
        "field": "gap", "type": "quantitative", "title": "drop of forward - drop of reverse, at gain .9",
        "axis": {"grid": False},
    }  # fmt: skip
    color = {
        "field": "beta", "type": "nominal", "title": "beta", "legend": {"orient": "bottom", "symbolOpacity": 1},
        "scale": {"domain": [f"{beta:g}" for beta in BETAS], "range": list(COLORS)},
    }  # fmt: skip
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "rule", "color": "#999"}, "encoding": {"y": {"datum": 0}}},
        {"mark": {"type": "line", "strokeWidth": 1, "opacity": 0.4}, "encoding": {"x": x, "y": y, "color": color}},
        {
            "mark": {"type": "rule", "strokeWidth": 1.5},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": color},
        },
        {
            "transform": [{"filter": "datum.reached"}], "mark": {"type": "point", "filled": True, "size": 45, "opacity": 1},
            "encoding": {
                "x": x, "y": y, "color": color,
                "shape": {"condition": {"test": "datum.saturated", "value": "triangle-down"}, "value": "circle"},
            },
        },
        {
            "transform": [{"filter": "!datum.reached"}], "mark": {"type": "text", "text": "\u00d7", "fontSize": 14},
            "encoding": {"x": x, "y": {"datum": 0}, "color": color},
        },
    ]  # fmt: skip
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": {
            "text": f"Above 0 forward KL forgets more, below 0 reverse KL does; {cells[0].seeds} seeds, 95 % intervals",
            "subtitle": "triangle: both lost nearly all of the old mode; \u00d7: gain .9 not reached", "anchor": "start",
            "fontSize": 13, "fontWeight": "normal", "subtitleFontSize": 11, "offset": 12,
        },
        "data": {"values": [_row(cell) for cell in cells]},
        "facet": {
            "field": "panel", "type": "nominal", "title": None, "sort": [_panel(sampling) for sampling in SAMPLINGS],
            "header": {"labelFontSize": 11, "labelLimit": 260},
        },
        "columns": len(SAMPLINGS), "spec": {"width": 190, "height": 300, "layer": layers},
        "config": {"font": "sans-serif", "axis": {"labelFontSize": 11, "titleFontSize": 12}},
    }  # fmt: skip
    return str(vl_convert.vegalite_to_svg(spec, vl_version="5.20"))


def _panel(sampling: Sampling) -> str:
    return f"samples: {sampling.samples}; reward: {sampling.reward}"


def _row(cell: Cell) -> dict[str, object]:
    beta = BETAS.index(cell.beta)
    row: dict[str, object] = {
        "panel": _panel(cell.sampling), "beta": f"{cell.beta:g}", "reached": cell.gap is not None, "saturated": cell.saturated,
        "place": SLOW_FACTORS.index(cell.slow) + APART * (beta - (len(BETAS) - 1) / 2),
    }  # fmt: skip
    return row | ({"gap": cell.gap.mean, "low": cell.gap.low, "high": cell.gap.high} if cell.gap else {})
