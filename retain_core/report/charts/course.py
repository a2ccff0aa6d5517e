"""Gain and drop over training, and drop by forward KL."""

from __future__ import annotations

from retain_core.report.charts.encoding import about_checkpoint, colour, line, mark
from retain_core.report.forest import rule, symlog
from retain_core.report.parts import Chart, Row
from retain_core.report.results import Results
from retain_core.report.words import counted

KL_TICKS = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def curve(results: Results, datasets: dict[str, list[Row]], key: str, title: str) -> Chart | None:
    """Gain or drop over the updates: means over seeds, every seed faintly behind."""
    rows = [row for row in datasets["cells"] if row[key] is not None]
    if len({row["step"] for row in rows}) < 2:
        return None
    about = f"gain on {results.spec['target']} (points)" if key == "gain" else "drop (points, compressed beyond 1)"
    y: Row = {"field": key, "type": "quantitative", "title": about}
    if key == "drop":
        y |= symlog(row["drop"] for row in datasets["checkpoints"] if row["drop"] is not None)
    x = {
        "field": "step", "type": "quantitative", "title": "update (log scale)",
        "scale": {"type": "log", "nice": False}, "axis": {"values": sorted({row["step"] for row in rows if row["step"] > 0}),
        "format": "d",
        "labelOverlap": "greedy"},
    }  # fmt: skip
    known = {"filter": f"datum.{key} != null && datum.step > 0"}
    shown = {"x": x, "y": y}
    layers = [
        rule("y", 0),
        {
            "data": {"name": "checkpoints"}, "transform": [known], "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.2},
            "encoding": {**shown, "color": colour(results), "detail": {"field": "arm"}},
        },
        {
            "data": {"name": "cells"}, "transform": [known], "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {**shown, **line(results), "detail": {"field": "cell"}},
        },
        {
            "data": {"name": "cells"}, "transform": [known], "name": "marks",
            "mark": {"type": "point", "opacity": 1, "size": 45},
            "encoding": {
                **shown, **mark(results),
                "tooltip": [
                    {"field": "method", "title": "method"}, {"field": "rate", "title": "learning rate"},
                    {"field": "step", "title": "update"}, {"field": key, "title": f"{key}, mean (points)", "format": "+.1f"},
                    {"field": "seeds", "title": "seeds"},
                ],
            },
        },
    ]  # fmt: skip
    seeds = len({p["seed"] for p in results.points})
    return Chart(
        f"{key}_over_training", title, {"height": 260, "layer": layers},
        f"Lines of the mean {key} of each method and learning rate over {len({row['step'] for row in rows})} updates.",
        f"{counted(len(rows), 'mean')} over up to {counted(seeds, 'seed')}; thin lines: single seeds",
    )  # fmt: skip


def law(results: Results, datasets: dict[str, list[Row]]) -> Chart | None:
    """Drop by forward KL, with the quadratic fit."""
    rows = [row for row in datasets["checkpoints"] if row["kl"] is not None and row["drop"] is not None]
    if not rows:
        return None
    top = max(row["kl"] for row in rows)
    x = {
        "field": "kl", "type": "quantitative", "title": "forward KL to the base on target prompts (nats per token, compressed)",
        "scale": {"type": "symlog", "constant": 0.02, "nice": False, "domain": [0, top * 1.05 or 1]},
        "axis": {"values": [tick for tick in KL_TICKS if tick <= top], "labelOverlap": "greedy", "format": "~g"},
    }  # fmt: skip
    y = {
        "field": "drop", "type": "quantitative", "title": "drop on the rest (points, compressed beyond 1)",
        **symlog([row["drop"] for row in (*rows, *datasets["kl_fit"])]),
    }  # fmt: skip
    layers: list[Row] = [rule("y", 0)]
    if datasets["kl_fit"]:
        layers.append({
            "data": {"name": "kl_fit"}, "mark": {"type": "line", "color": "var(--ink)", "strokeWidth": 1.5, "clip": True},
            "encoding": {"x": x, "y": y, "order": {"field": "kl"}},
        })  # fmt: skip
    layers.append({
        "data": {"name": "checkpoints"}, "transform": [{"filter": "datum.kl != null && datum.drop != null"}], "name": "marks",
        "mark": {"type": "point", "opacity": 0.85, "size": 45},
        "encoding": {"x": x, "y": y, **mark(results), "tooltip": about_checkpoint(False)},
    })  # fmt: skip
    arms = len({row["arm"] for row in rows})
    return Chart(
        "kl_law", "Does the distance in words explain the drop?", {"height": 320, "layer": layers},
        f"Scatter of {len(rows)} checkpoints: forward KL to the base to the right, drop upwards, with a quadratic fit.",
        f"{counted(len(rows), 'checkpoint')} of {counted(arms, 'arm')}"
        + ("; line: quadratic fit" if datasets["kl_fit"] else ""),
    )  # fmt: skip
