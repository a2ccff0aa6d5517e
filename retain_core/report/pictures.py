"""The picture of the README, from a home in which the study has run: gain by greedy accuracy, as in its table.

    python -m retain_core.report.pictures HOME STUDY [FOLDER]

writes `gain_drop.svg` into the folder (default: docs).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from retain_core.report.charts import study_charts
from retain_core.report.results import read_results
from retain_core.report.vega import to_svg
from retain_core.store import write_atomically
from retain_core.warehouse.query import open_warehouse


def write_pictures(home: Path, study: str, folder: Path) -> list[Path]:
    """Write the pictures; returns where they are. Raises KeyError for a study without a gain or a drop."""
    with open_warehouse(home / "warehouse.duckdb") as con:
        charts, datasets = study_charts(read_results(con, study))
    path = folder / "gain_drop.svg"
    chart = replace(charts.get("gain_drop_greedy", charts["gain_drop"]), title=charts["gain_drop"].title)
    write_atomically(path, to_svg(chart, datasets))
    return [path]


if __name__ == "__main__":
    home, study, *folder = sys.argv[1:]
    for written in write_pictures(Path(home), study, Path(*folder or ["docs"])):
        sys.stdout.write(f"{written}\n")
