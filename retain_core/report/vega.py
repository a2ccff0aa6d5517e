"""Vega-Lite: one specification of a chart, drawn by the page's script and, without a browser, to an SVG file.

Colours stand in specifications as CSS variables (`var(--ink)`), so that the page follows light and dark without being
drawn again; files get the light ones. Data are named, never repeated: a page holds every dataset once.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from retain_core.report.palette import variables
from retain_core.report.parts import Chart, Row

VERSION = "6.4"
"""Of Vega-Lite, on the page and in files."""
SCHEMA = f"https://vega.github.io/schema/vega-lite/v{VERSION.split('.')[0]}.json"
FILE_WIDTH = 620
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
FILE_FONT = "'Liberation Sans', Arial, Helvetica, sans-serif"
"""Of files, whose words are measured when they are written: in these the letters are equally wide."""
CONFIG: dict[str, Any] = {
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)", "titleColor": "var(--ink)", "gridColor": "var(--grid)", "domainColor": "var(--line)",
        "tickColor": "var(--line)", "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "titlePadding": 8,
    },
    "text": {"color": "var(--ink)", "fontSize": 12},
    "legend": {
        "labelColor": "var(--ink)", "titleColor": "var(--ink)", "labelFontSize": 12, "titleFontSize": 12, "orient": "bottom",
        "columns": 3, "columnPadding": 16, "symbolOpacity": 1, "labelLimit": 200,
        "layout": {"bottom": {"direction": "vertical", "anchor": "start", "margin": 8}},
    },
    "title": {"color": "var(--ink)", "fontSize": 13, "fontWeight": "normal", "anchor": "start", "subtitleColor": "var(--soft)",
              "subtitleFontSize": 12},
}  # fmt: skip


@lru_cache(maxsize=1)
def bundle() -> str:
    """The script that draws charts: Vega, Vega-Lite and Vega-Embed in one, about 0.9 MB."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VERSION))


def for_page(chart: Chart) -> dict[str, Any]:
    """The specification as the page draws it: as wide as its place; legends are text of the page."""
    spec = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}, **chart.spec}
    config = {**CONFIG, "legend": {"disable": True}}
    return {"$schema": SCHEMA, **_without_legends(spec), "config": config}


def to_svg(chart: Chart, datasets: dict[str, list[Row]]) -> str:
    """The chart as an SVG file, in light colours on white, with its legend and what stands behind it."""
    import vl_convert

    colours = variables("light")
    named = {name: datasets[name] for name in sorted(_data_names(chart.spec))}
    spec = {
        "$schema": SCHEMA,
        "title": {"text": chart.title, "subtitle": chart.n},
        **chart.spec, "width": FILE_WIDTH, "config": {**CONFIG, "background": "white", "font": FILE_FONT},
    }  # fmt: skip
    return str(vl_convert.vegalite_to_svg({**_resolved(spec, colours), "datasets": named}, vl_version=VERSION))


def _resolved(value: Any, colours: dict[str, str]) -> Any:
    """The specification with every CSS variable replaced by its colour."""
    if isinstance(value, dict):
        return {key: _resolved(inner, colours) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(inner, colours) for inner in value]
    if isinstance(value, str) and (found := re.fullmatch(r"var\(--(\w+)\)", value)):
        return colours[found.group(1)]
    return value


def _without_legends(value: Any) -> Any:
    """The specification without its own words on legends."""
    if isinstance(value, dict):
        return {key: _without_legends(inner) for key, inner in value.items() if key != "legend"}
    return [_without_legends(inner) for inner in value] if isinstance(value, list) else value


def _data_names(spec: Any) -> set[str]:
    if isinstance(spec, list):
        return set().union(*map(_data_names, spec)) if spec else set()
    if not isinstance(spec, dict):
        return set()
    own = {spec["data"]["name"]} if "name" in spec.get("data", ()) else set()
    return own.union(*(_data_names(inner) for key, inner in spec.items() if key != "data"))
