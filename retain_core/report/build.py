"""The study's page and the files beside it, from the warehouse: `reports/<study>/`."""

from __future__ import annotations

from pathlib import Path

import duckdb

from retain_core.errors import InputError
from retain_core.report.changed import read_changed
from retain_core.report.charts import study_charts
from retain_core.report.exports import exported
from retain_core.report.head import study_head
from retain_core.report.origin import differing_settings, provenance, touched
from retain_core.report.page import render
from retain_core.report.palette import rate_label, shapes
from retain_core.report.parts import Page
from retain_core.report.results import Results, read_results
from retain_core.report.sections import study_sections
from retain_core.store import write_atomically
from retain_core.warehouse.load import SCHEMA_VERSION
from retain_core.warehouse.query import open_warehouse


def write_report(warehouse: Path, reports: Path, study: str) -> Path:
    """Write the page of a study and the files beside it. Returns where the page is.

    Raises InputError when the warehouse does not have the study, or is that of another version of retain.
    """
    with open_warehouse(warehouse) as con:
        if con.execute("SELECT version FROM schema_version").fetchone() != (SCHEMA_VERSION,):
            raise InputError(
                f"{warehouse} was written by another version of retain; `retain run` of any study of this home loads it anew, "
                "from answers that are there"
            )
        results = read_results(con, study)
        page = study_page(con, results, warehouse.parent / "artifacts")
    folder = reports / study
    files = exported(page, results, page.head.answer.striptags())
    _remove_stale(folder, set(files))
    for name, text in files.items():
        write_atomically(folder / name, text)
    write_atomically(folder / "index.html", render(page))
    return folder / "index.html"


def study_page(con: duckdb.DuckDBPyConnection, results: Results, artifacts: Path) -> Page:
    """Everything on the page of a study."""
    charts, datasets = study_charts(results)
    changed = read_changed(con, results.study)
    ledger = touched(con, results.study, artifacts)
    sections = study_sections(results, charts, changed, differing_settings(results), provenance(con, results), ledger)
    shown = dict.fromkeys(p["method"] for p in results.points)
    items = [{**row, "rate": "" if row["learning_rate"] is None else rate_label(row["learning_rate"])} for row in changed.rows]
    return Page(
        title=results.study, head=study_head(results, charts.get("gain_drop")), sections=sections,
        colours={method: place for method, place in results.places.items() if method in shown},
        rates=shapes(p["learning_rate"] for p in results.points), datasets=datasets, items=items,
    )  # fmt: skip


def _remove_stale(folder: Path, kept: set[str]) -> None:
    """Charts and tables of an earlier page that this one does not have, and what a writer that was killed left."""
    for path in folder.glob("*"):
        if path.name not in kept and (path.suffix in (".svg", ".csv") or path.name.startswith(".")):
            path.unlink()
