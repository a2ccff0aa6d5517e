"""The study's page: one self-contained HTML file at `reports/<study>/index.html`."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

from retain_core import __version__
from retain_core.arms import rate_text
from retain_core.report.charts import gain_drop_plane
from retain_core.report.results import Results, read_results
from retain_core.store import write_atomically
from retain_core.warehouse.query import open_warehouse

PACKAGES = ("torch", "transformers", "trl", "lm_eval", "datasets", "duckdb", "prefect", "mlflow")


def write_report(warehouse: Path, reports: Path, study: str) -> Path:
    """Write the page of a study from the warehouse, with the chart beside it as SVG."""
    with open_warehouse(warehouse) as con:
        results = read_results(con, study)
    plane = gain_drop_plane(results)
    page = reports / study / "index.html"
    write_atomically(page, render(results, plane))
    if plane:
        write_atomically(page.with_name("gain_drop.svg"), plane)
    return page


def points(value: float | None) -> str:
    """A fraction as signed points with one decimal; a dash when unknown."""
    return "-" if value is None else f"{round(100 * value, 1) + 0.0:+.1f}"


def render(results: Results, plane: str | None) -> str:
    """The page as HTML. Everything that comes from data is escaped."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    environment = Environment(autoescape=True, loader=PackageLoader("retain_core.report"))
    environment.filters["points"] = points
    return environment.get_template("page.html.j2").render(
        r=results, plane=Markup(plane) if plane else None, points=points, provenance=provenance(results), interval=interval,
        rate=lambda rate: "" if rate is None else rate_text(rate),
        number=lambda value: "" if value is None else f"{value:.3g}",
        percent=lambda value: "" if value is None else f"{100 * value:.1f}",
        p_text=lambda p: "" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}",
    )  # fmt: skip


def interval(low: float | None, high: float | None) -> str:
    """An interval of fractions in points; empty when there is none."""
    return "" if low is None else f"[{points(low)}, {points(high)}]"


def provenance(results: Results) -> list[tuple[str, str]]:
    """What a reader needs to judge or repeat the study."""
    done = [arm for arm in results.arms if arm["status"] == "done"]
    trained = sum(arm["seconds"] or 0 for arm in done)
    budget = results.spec.get("budget")
    return [
        ("spec hash", results.revision["spec_hash"]),
        ("code", f"retain {__version__}, commit {next((a['git_sha'] for a in done if a['git_sha']), 'unknown')}"),
        ("packages", ", ".join(f"{name} {version(name)}" for name in PACKAGES)),
        ("machine", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        (
            "budget per target" if results.spec.get("then") else "budget per arm",
            f"{budget['updates']} updates of {budget['sequences_per_update']} sequences" if budget else "none",
        ),
        ("arms", f"{len(done)} of {len(results.arms)} done; {trained:.0f} s of training in all"),
        ("seeds", ", ".join(map(str, results.spec["seeds"]))),
        ("study file", json.dumps(results.spec, sort_keys=True)),
    ]
