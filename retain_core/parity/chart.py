"""Forgetting against forward KL, a colour for each arm, rendered to PNG without a browser or a network."""

from __future__ import annotations

from collections.abc import Sequence

from retain_core.parity.methods import ARMS
from retain_core.parity.training import HIGHEST, Point

COLORS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73")


def law_chart(points: Sequence[Point]) -> bytes:
    """Every checkpoint of every base: within the published range of learning rates, and beyond it. PNG."""
    import vl_convert

    panels = ("learning rates of the paper, up to 1e-3", "larger learning rates")
    rows = [
        {
            "panel": panels[p.learning_rate > HIGHEST], "arm": p.arm, "kl": p.kl_forward, "drop": 100 * p.drop,
        }
        for p in points
    ]  # fmt: skip
    encoding = {
        "x": {
            "field": "kl", "type": "quantitative", "title": "forward KL to the base on parity images, nats (square-root scale)",
            "scale": {"type": "sqrt"}, "axis": {"grid": False, "format": "~g", "values": [0.1, 0.5, 1, 2, 4, 8, 12, 16]},
        },
        "y": {"field": "drop", "type": "quantitative", "title": "drop of the old job, points", "axis": {"grid": False}},
        "color": {
            "field": "arm", "type": "nominal", "title": None, "scale": {"domain": list(ARMS), "range": list(COLORS)},
            "legend": {"orient": "bottom", "symbolOpacity": 1},
        },
    }  # fmt: skip
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": rows},
        "facet": {"field": "panel", "type": "nominal", "title": None, "sort": list(panels), "header": {"labelFontSize": 12}},
        "columns": len(panels),
        "spec": {
            "width": 400, "height": 300, "mark": {"type": "point", "filled": True, "size": 12, "opacity": 0.6},
            "encoding": encoding,
        },
        "config": {"font": "sans-serif", "background": "white", "axis": {"labelFontSize": 11, "titleFontSize": 12}},
    }  # fmt: skip
    return bytes(vl_convert.vegalite_to_png(spec, vl_version="5.20", scale=1.5))
