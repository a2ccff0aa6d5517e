"""The gain-drop plane: what every checkpoint gained and lost."""

from __future__ import annotations

from retain_core.report.charts.encoding import about_checkpoint, colour, dash, drop_axis, line, mark, zero_lines
from retain_core.report.forest import rule
from retain_core.report.parts import Chart, Row
from retain_core.report.results import Results
from retain_core.report.words import counted, points


def plane(results: Results, datasets: dict[str, list[Row]]) -> Chart | None:
    """What every checkpoint gained and lost, with fronts and bands, at the gain at which methods are compared."""
    exact = results.gain_key == "gain_exact"
    x = {"type": "quantitative", "title": f"gain on {results.spec['target']} (points{', exact score' if exact else ''})"}
    bounds = [row[key] for row in datasets["bands"] for key in ("low", "high")]
    y = drop_axis([*bounds, *(row["drop"] for row in datasets["checkpoints"] if row["drop"] is not None)])
    layers = [*zero_lines(), *_declared_gain(results)]
    if datasets["bands"]:
        between = {"x": {"field": "gain", **x}, "y": {"field": "low", **y}, "y2": {"field": "high"}, "color": colour(results)}
        layers += [
            {"data": {"name": "bands"}, "mark": {"type": "area", "opacity": 0.14}, "encoding": between},
            {
                "data": {"name": "bands"},
                "mark": {"type": "rule", "opacity": 0.4, "strokeWidth": 1},
                "encoding": {**between, "strokeDash": dash(results)},
            },
        ]
    if datasets["fronts"]:
        at = {"x": {"field": "gain", **x}, "y": {"field": "drop", **y}, "order": {"field": "gain"}}
        layers += [
            {
                "data": {"name": "fronts"}, "encoding": {**at, **line(results)},
                "mark": {"type": "line", "strokeWidth": 2},
            },
            {
                "data": {"name": "fronts"}, "transform": [{"filter": "datum.front == 'study'"}], "encoding": at,
                "mark": {"type": "line", "strokeWidth": 1.5, "strokeDash": [5, 4], "color": "var(--ink)"},
            },
        ]  # fmt: skip
    return _scatter("gain_drop", "What each method gained and what it lost", results, datasets, ("x", x), y, layers)


def greedy_plane(results: Results, datasets: dict[str, list[Row]]) -> Chart | None:
    """The same by greedy accuracy, where methods are compared at the exact score: sharpening raises the one, not the other."""
    if results.gain_key == "gain":
        return None
    x = {"type": "quantitative", "title": f"gain on {results.spec['target']} (points, greedy accuracy)"}
    y = drop_axis(row["drop"] for row in datasets["checkpoints"] if row["drop"] is not None)
    title = "The same by greedy accuracy: what the likeliest answer gained"
    return _scatter("gain_drop_greedy", title, results, datasets, ("gain", x), y, zero_lines())


def _scatter(
    name: str, title: str, results: Results, datasets: dict[str, list[Row]], across: tuple[str, Row], y: Row, behind: list[Row]
) -> Chart | None:
    """Every checkpoint at its gain and its drop, over what is drawn behind; None where no checkpoint has both."""
    key, x = across
    rows = [row for row in datasets["checkpoints"] if row[key] is not None and row["drop"] is not None]
    if not rows:
        return None
    shown = {"x": {"field": key, **x}, "y": {"field": "drop", **y}}
    known = {"data": {"name": "checkpoints"}, "transform": [{"filter": f"datum.{key} != null && datum.drop != null"}]}
    exact = results.gain_key == "gain_exact"
    layers = [
        *behind,
        {
            **known, "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.22},
            "encoding": {**shown, "color": colour(results), "detail": {"field": "arm"}, "order": {"field": "step"}},
        },
        {
            **known, "name": "marks",
            "mark": {"type": "point", "opacity": 0.9},
            "encoding": {
                **shown, **mark(results), "tooltip": about_checkpoint(exact),
                "size": {"condition": {"test": "datum.last", "value": 95}, "value": 30},
            },
        },
    ]  # fmt: skip
    missing, seeds = len(datasets["checkpoints"]) - len(rows), len({row["seed"] for row in rows})
    return Chart(
        name, title, {"height": 380, "layer": layers},
        f"Scatter of {len(rows)} checkpoints: gain on {results.spec['target']} to the right, drop on the rest upwards.",
        f"{counted(len(rows), 'checkpoint')}, {counted(seeds, 'seed')}; large marks: end of training"
        + (f"; {counted(missing, 'checkpoint')} without a figure" if missing else ""),
    )  # fmt: skip


def _declared_gain(results: Results) -> list[Row]:
    """A line where the study compares, if it compares at a gain."""
    said = (results.spec.get("primary") or {}).get("at_gain")
    if said is None:
        return []
    at = {"x": {"datum": 100 * said}}
    return [
        rule("x", 100 * said, color="var(--ink)", strokeDash=[1, 0]),
        {
            "data": {"values": [{}]}, "mark": {"type": "text", "align": "left", "dx": 4, "y": 8, "fontSize": 11,
            "text": f"compared at {points(said)}"},
            "encoding": at,
        },
    ]  # fmt: skip
