"""The charts of a study as Vega-Lite specifications, and the data behind them, in points."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Any

import numpy as np

from retain_core.report.forest import in_points, interval_rows, placed, rule, symlog
from retain_core.report.palette import GREY, PAGE, Look, look, rate_label, shapes
from retain_core.report.parts import Chart, Row
from retain_core.report.results import Results
from retain_core.report.words import counted, points

KL_TICKS = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
MOST_ROWS = 90
"""More intervals than this in one chart are unreadable: those of the largest drops are shown, and it says so."""


def study_charts(results: Results) -> tuple[dict[str, Chart], dict[str, list[Row]]]:
    """Name -> chart, of those that have something to show, and the named data that they draw."""
    datasets = {
        "checkpoints": checkpoints(results), "cells": cells(results), "fronts": fronts(results), "bands": bands(results),
        "matched": [], "benchmarks": [], "kl_fit": kl_fit(results),
    }  # fmt: skip
    made = [
        plane(results, datasets), greedy_plane(results, datasets), matched(results, datasets), forest(results, datasets),
        curve(results, datasets, "gain", "Gain over training"), curve(results, datasets, "drop", "Drop over training"),
        law(results, datasets),
    ]  # fmt: skip
    charts = {chart.name: chart for chart in made if chart}
    return charts, {name: rows for name, rows in datasets.items() if rows}


def checkpoints(results: Results) -> list[Row]:
    """Every checkpoint of every method, in points; `x` is the gain at which methods are compared."""
    last = {p["arm"]: p["step"] for p in results.points}
    return [
        {
            "method": p["method"], "rate": rate_label(p["learning_rate"]), "seed": p["seed"], "arm": p["arm"],
            "step": p["step"],
            "x": in_points(p[results.gain_key]), "gain": in_points(p["gain"]), "exact": in_points(p["gain_exact"]),
            "drop": in_points(p["drop"]), "far": in_points(p["drop_far"]), "kl": _round(p["kl_forward"]),
            "last": p["step"] == last[p["arm"]],
        }
        for p in results.points
    ]  # fmt: skip


def cells(results: Results) -> list[Row]:
    """Means over seeds: a row per method, learning rate and update."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in results.points:
        groups.setdefault((row["method"], row["learning_rate"], row["step"]), []).append(row)
    return [
        {
            "method": method, "rate": rate_label(rate), "cell": f"{method} {rate_label(rate)}", "step": step,
            "seeds": len(rows),
            "gain": _mean(rows, "gain"), "drop": _mean(rows, "drop"),
        }
        for (method, rate, step), rows in groups.items()
    ]  # fmt: skip


def fronts(results: Results) -> list[Row]:
    """The best trades of every method and of the whole study, chosen on one half of the items and shown on the other."""
    chosen = [
        p for p in results.pareto if p["front"] in ("study", "method") and p["gain"] is not None and p["drop"] is not None
    ]
    return sorted(
        (
            {"method": p["method"], "rate": rate_label(p["learning_rate"]), "step": p["step"], "gain": in_points(p["gain"]),
             "drop": in_points(p["drop"]), "front": p["front"]}
            for p in chosen
        ),
        key=lambda row: row["gain"],
    )  # fmt: skip


def bands(results: Results) -> list[Row]:
    """The interval of the drop at every gain that a method reaches: of the declared pair, or of all where none is declared."""
    named = list((results.spec.get("primary") or {}).get("contrast") or results.places)
    known = (m for m in results.matched if m["ci_low"] is not None and m["method"] in named)
    return [
        {"method": m["method"], "gain": in_points(m["gain"]), "drop": in_points(m["drop"]), "low": in_points(m["ci_low"]),
         "high": in_points(m["ci_high"])}
        for m in known
    ]  # fmt: skip


def kl_fit(results: Results) -> list[Row]:
    """The quadratic of the drop on forward KL that `kl_law` speaks of, over all checkpoints."""
    known = [
        (p["kl_forward"], 100 * p["drop"]) for p in results.points if p["kl_forward"] is not None and p["drop"] is not None
    ]
    if len(known) < 3 or not any(row["predictor"] == "kl" and row["r2"] is not None for row in results.law):
        return []
    x, y = np.array(known).T
    fit = np.polynomial.Polynomial.fit(x, y, 2)
    return [{"kl": _round(at), "drop": _round(fit(at))} for at in np.geomspace(0.005, 0.005 + x.max(), 60) - 0.005]


# The charts


def plane(results: Results, datasets: dict[str, list[Row]]) -> Chart | None:
    """What every checkpoint gained and lost, with fronts and bands, at the gain at which methods are compared."""
    exact = results.gain_key == "gain_exact"
    x = {"type": "quantitative", "title": f"gain on {results.spec['target']} (points{', exact score' if exact else ''})"}
    bounds = [row[key] for row in datasets["bands"] for key in ("low", "high")]
    y = _drop_axis([*bounds, *(row["drop"] for row in datasets["checkpoints"] if row["drop"] is not None)])
    layers = [*_zero_lines(), *_declared_gain(results)]
    if datasets["bands"]:
        between = {"x": {"field": "gain", **x}, "y": {"field": "low", **y}, "y2": {"field": "high"}, "color": _colour(results)}
        layers += [
            {"data": {"name": "bands"}, "mark": {"type": "area", "opacity": 0.14}, "encoding": between},
            {
                "data": {"name": "bands"},
                "mark": {"type": "rule", "opacity": 0.4, "strokeWidth": 1},
                "encoding": {**between, "strokeDash": _dash(results)},
            },
        ]
    if datasets["fronts"]:
        at = {"x": {"field": "gain", **x}, "y": {"field": "drop", **y}, "order": {"field": "gain"}}
        layers += [
            {
                "data": {"name": "fronts"}, "encoding": {**at, **_line(results)},
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
    y = _drop_axis(row["drop"] for row in datasets["checkpoints"] if row["drop"] is not None)
    title = "The same by greedy accuracy: what the likeliest answer gained"
    return _scatter("gain_drop_greedy", title, results, datasets, ("gain", x), y, _zero_lines())


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
            "encoding": {**shown, "color": _colour(results), "detail": {"field": "arm"}, "order": {"field": "step"}},
        },
        {
            **known, "name": "marks",
            "mark": {"type": "point", "opacity": 0.9},
            "encoding": {
                **shown, **_mark(results), "tooltip": _about_checkpoint(exact),
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


def matched(results: Results, datasets: dict[str, list[Row]]) -> Chart | None:
    """Drop where methods have gained the same."""
    if not any(m["drop"] is not None for m in results.matched):
        return None
    said = (results.spec.get("primary") or {}).get("at_gain")
    found: list[Row] = []
    for gain in sorted({m["gain"] for m in results.matched}):
        rows = [m for m in results.matched if m["gain"] == gain]
        if not any(m["drop"] is not None for m in rows):
            continue
        declared = " (declared)" if said is not None and abs(gain - said) < 1e-9 else ""
        found.append({"label": f"gain {100 * gain:g}{declared}", "header": True})
        found += [
            {
                "label": m["method"] + ("" if m["learning_rate"] is None else f"  {rate_label(m['learning_rate'])}"),
                "method": m["method"], "rate": rate_label(m["learning_rate"]), "drop": in_points(m["drop"]),
                "low": in_points(m["ci_low"]), "high": in_points(m["ci_high"]), "gain": in_points(gain),
                "right": "" if m["drop"] is not None else m["verdict"],
            }
            for m in rows
        ]  # fmt: skip
    datasets["matched"] = placed(found)
    n = sum(row.get("drop") is not None for row in found)
    seeds = max((m["seeds"] or 0) for m in results.matched)
    return Chart(
        "matched_gain", "What each method had lost when it had gained as much as the others",
        _interval_rows(results, datasets["matched"], "matched", "drop at equal gain", 105),
        f"{n} drops at equal gain with 95 % intervals, in rows grouped by the gain.",
        f"{counted(n, 'drop')} at equal gain, up to {counted(seeds, 'seed')} each; lines: 95 % intervals",
    )  # fmt: skip


def forest(results: Results, datasets: dict[str, list[Row]]) -> Chart | None:
    """Paired drop of every method on every retention benchmark, near ones first."""
    rows = [row for row in results.per_benchmark if row["drop"] is not None]
    if not rows:
        return None
    shown = rows
    if len(rows) > MOST_ROWS:
        benchmarks = {row["benchmark"] for row in rows}
        each = max(1, MOST_ROWS // len(benchmarks))
        largest: list[Row] = []
        for benchmark in benchmarks:
            largest += sorted((r for r in rows if r["benchmark"] == benchmark), key=lambda r: -abs(r["drop"]))[:each]
        shown = [row for row in rows if any(row is kept for kept in largest)]
    found: list[Row] = []
    for benchmark in dict.fromkeys(row["benchmark"] for row in shown):
        inside = [row for row in shown if row["benchmark"] == benchmark]
        nearness = f" ({'near' if inside[0]['near'] else 'far'})" if results.near else ""
        found.append({"label": benchmark + nearness, "header": True, "right": f"of {inside[0]['n']:,}: lost, gained"})
        found += [
            {
                "label": row["method"] + ("" if row["learning_rate"] is None else f"  {rate_label(row['learning_rate'])}"),
                "method": row["method"], "rate": rate_label(row["learning_rate"]), "benchmark": benchmark,
                "drop": in_points(row["drop"]), "low": in_points(row["low"]), "high": in_points(row["high"]),
                "right": "" if row["lost"] is None else f"{row['lost']}, {row['gained']}",
            }
            for row in inside
        ]  # fmt: skip
    datasets["benchmarks"] = placed(found)
    cut = f" of {len(rows)}, the largest of each benchmark; the table has all" if len(shown) < len(rows) else ""
    seeds = max(row["seeds"] for row in rows)
    return Chart(
        "benchmarks", "Drop of every method on every benchmark",
        _interval_rows(results, datasets["benchmarks"], "benchmarks", "drop", 120),
        f"{len(shown)} paired drops with 95 % intervals, in rows grouped by benchmark.",
        f"{counted(len(shown), 'paired drop')}{cut}, {counted(seeds, 'seed')} each; lines: 95 % intervals; right: questions "
        "lost and gained, all seeds together",
    )  # fmt: skip


def curve(results: Results, datasets: dict[str, list[Row]], key: str, title: str) -> Chart | None:
    """Gain or drop over the updates: means over seeds, every seed faintly behind."""
    rows = [row for row in datasets["cells"] if row[key] is not None]
    if len({row["step"] for row in rows}) < 2:
        return None
    about = f"{key} on {results.spec['target'] if key == 'gain' else 'the rest'} (points)"
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
            "encoding": {**shown, "color": _colour(results), "detail": {"field": "arm"}},
        },
        {
            "data": {"name": "cells"}, "transform": [known], "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {**shown, **_line(results), "detail": {"field": "cell"}},
        },
        {
            "data": {"name": "cells"}, "transform": [known], "name": "marks",
            "mark": {"type": "point", "opacity": 1, "size": 45},
            "encoding": {
                **shown, **_mark(results),
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
        "field": "drop", "type": "quantitative", "title": "drop on the rest (points)",
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
        "encoding": {"x": x, "y": y, **_mark(results), "tooltip": _about_checkpoint(False)},
    })  # fmt: skip
    arms = len({row["arm"] for row in rows})
    return Chart(
        "kl_law", "Does the distance in words explain the drop?", {"height": 320, "layer": layers},
        f"Scatter of {len(rows)} checkpoints: forward KL to the base to the right, drop upwards, with a quadratic fit.",
        f"{counted(len(rows), 'checkpoint')} of {counted(arms, 'arm')}"
        + ("; line: quadratic fit" if datasets["kl_fit"] else ""),
    )  # fmt: skip


# What they share


def _interval_rows(results: Results, rows: list[Row], data: str, title: str, room: int) -> dict[str, Any]:
    """A forest in the colours and shapes of the study."""
    group = {"field": "benchmark", "title": "benchmark"} if data == "benchmarks" else {"field": "gain", "title": "gain"}
    return interval_rows(
        rows, data, title, room=room, encoding=_mark(results), lines=_line(results),
        about=[{"field": "method", "title": "method"}, {"field": "rate", "title": "learning rate"}, group],
        after=[{"field": "right", "title": "lost, gained"}] if data == "benchmarks" else [],
    )  # fmt: skip


def _drop_axis(values: Iterable[float]) -> Row:
    return {"type": "quantitative", "title": "drop on the rest (points, compressed beyond 1)", **symlog(values)}


def _looks(results: Results) -> dict[str, Look]:
    """Method -> how it is drawn; grey what is no method of the study."""
    extra = sorted({m["method"] for m in results.matched} - set(results.places))
    grey = Look(GREY, GREY, PAGE, 0.6, [1, 0], 0)
    return {method: look(place) for method, place in results.places.items()} | dict.fromkeys(extra, grey)


def _by_method(looks: dict[str, Look], of: Callable[[Look], Any], legend: Row | None) -> Row:
    scale = {"type": "ordinal", "domain": list(looks), "range": [of(one) for one in looks.values()]}
    return {"field": "method", "type": "ordinal", "title": None, "scale": scale, "legend": legend}


def _colour(results: Results) -> Row:
    return _by_method(_of_lines(results), lambda one: one.colour, None)


def _dash(results: Results) -> Row:
    return _by_method(_of_lines(results), lambda one: one.dash, None)


def _of_lines(results: Results) -> dict[str, Look]:
    """In another order than those of marks: scales of one order share their legend, and lines have none."""
    return dict(reversed(_looks(results).items()))


def _line(results: Results) -> Row:
    """Colour and dash of a line."""
    return {"color": _colour(results), "strokeDash": _dash(results)}


def _mark(results: Results) -> Row:
    """Inside, outline and shape of a mark."""
    looks, legend = _looks(results), {"symbolType": "circle"}
    return {
        "fill": _by_method(looks, lambda one: one.fill, legend), "stroke": _by_method(looks, lambda one: one.stroke, legend),
        "strokeWidth": _by_method(looks, lambda one: one.width, legend), "shape": _shape(results),
    }  # fmt: skip


def _shape(results: Results) -> Row:
    found = shapes(p["learning_rate"] for p in results.points)
    scale = {"domain": list(found), "range": list(found.values())}
    return {"field": "rate", "type": "nominal", "title": "learning rate", "scale": scale}


def _zero_lines() -> list[Row]:
    return [rule("x", 0), rule("y", 0)]


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


def _about_checkpoint(exact: bool) -> list[Row]:
    return [
        {"field": "method", "title": "method"}, {"field": "rate", "title": "learning rate"}, {"field": "seed", "title": "seed"},
        {"field": "step", "title": "update"}, {"field": "gain", "title": "gain (points)", "format": "+.1f"},
        *([{"field": "exact", "title": "gain, exact score (points)", "format": "+.1f"}] if exact else []),
        {"field": "drop", "title": "drop (points)", "format": "+.1f"},
        {"field": "far", "title": "drop, far benchmarks only (points)", "format": "+.1f"},
        {"field": "kl", "title": "forward KL (nats per token)", "format": ".3f"},
    ]  # fmt: skip


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _mean(rows: list[Row], key: str) -> float | None:
    known = [row[key] for row in rows if row[key] is not None]
    return in_points(fmean(known)) if known else None
