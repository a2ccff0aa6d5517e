"""The page of a study that really ran, with what the tests ask of the made-up ones.

    python -m tests.browser.check HOME STUDY

opens `HOME/reports/STUDY/index.html` and stops at what is wrong: an error on the console, a request, a chart without marks, a
mark or a cell that SQL does not know, a rule of axe, a page wider than a phone. No other study may be in the home. Made for
`results lab` after `make demo`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.browser.conftest import Watched
from tests.browser.tables import check_tables, rows
from tests.browser.test_report import check_charts, check_headline, check_wcag, drawn, marks


def check(browser: Browser, home: Path, study: str) -> str:
    """Look at the page. Returns what was seen, in one line; raises AssertionError at what is wrong."""
    file, warehouse = home / "reports" / study / "index.html", home / "warehouse.duckdb"
    assert rows(warehouse, "SELECT DISTINCT study FROM studies") == [{"study": study}], "no other study may be in the home"
    watched = Watched(browser.new_page(viewport={"width": 390, "height": 844}))
    page = drawn(watched.open(file))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "wider than a phone"
    page.set_viewport_size({"width": 1280, "height": 900})
    page = drawn(watched.open(file))
    assert (watched.errors, watched.outside) == ([], [])
    charts = page.eval_on_selector_all("[data-chart]", "all => all.map(c => c.dataset.chart)")
    check_charts(page, warehouse, charts, least=1)
    cells = sum(len(row) for table in check_tables(page, warehouse).values() for row in table)
    if rows(warehouse, 'FROM contrasts WHERE "primary" AND diff IS NOT NULL'):
        check_headline(page, warehouse)
    count = sum(len(marks(page, chart)) for chart in charts)
    page.close()
    for scheme in ("light", "dark"):
        check_wcag(browser, file, scheme)
    return f"{study}: {len(charts)} charts with {count} marks and {cells} cells are what SQL says; nothing is wrong"


if __name__ == "__main__":
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        print(check(chromium, Path(sys.argv[1]), sys.argv[2]))
