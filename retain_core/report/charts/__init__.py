"""The charts of a study as Vega-Lite specifications, and the data behind them, in points."""

from __future__ import annotations

from retain_core.report.charts.course import curve, law
from retain_core.report.charts.data import bands, cells, checkpoints, fronts, kl_fit
from retain_core.report.charts.intervals import forest, matched
from retain_core.report.charts.plane import greedy_plane, plane
from retain_core.report.parts import Chart, Row
from retain_core.report.results import Results


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
