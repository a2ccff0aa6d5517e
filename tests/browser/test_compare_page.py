"""The page of a comparison in a browser: what it says is what the command says, and everybody can read it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from retain_core.compare.command import compare_addresses, compare_text
from retain_core.compare.page import write_page
from retain_core.compare.text import points
from retain_core.warehouse.query import open_warehouse
from tests.browser.conftest import Watched
from tests.browser.tables import signed
from tests.browser.test_report import EVIL, RTL, drawn
from tests.conftest import ROOT
from tests.synthetic import Truth, fill, made_scores

pytestmark = pytest.mark.browser

A, B = "made/harmful-lr0.0001-s0", "gentle/harmful-lr0.0001-s0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two studies on one base, some of whose answers are hostile; the page of both, and of an arm of each."""
    folder = tmp_path_factory.mktemp("compared")
    warehouse = folder / "warehouse.duckdb"
    harmful, harmless = {"harmful": Truth(drop=0.3)}, {"harmless": Truth()}
    fill(warehouse, made_scores(harmful | harmless, seed_sd=0.01), analyse=False, texts=True).close()
    gentle = made_scores(harmless | {"harmful": Truth(drop=0.02)}, seed_sd=0.01, study="gentle")
    with fill(warehouse, gentle, analyse=False, texts=True) as con:
        con.execute("UPDATE items SET prompt = ? WHERE doc_id < 40", [EVIL])
        con.execute("UPDATE items SET target = ? WHERE doc_id < 40", [RTL])
        con.execute("UPDATE arms SET config = '{\"kl\": 0.5}' WHERE arm LIKE 'gentle/harmful%'")
        con.execute("UPDATE studies SET spec = replace(spec, '\"updates\": 80', '\"updates\": 90') WHERE study = 'gentle'")
    with open_warehouse(warehouse) as con:
        write_page(compare_addresses(con, A, B), folder / "arms.html", ["retain", "compare", A, B])
        write_page(compare_addresses(con, "made", "gentle"), folder / "studies.html", ["retain", "compare", "made", "gentle"])
    return folder


def opened(watched: Watched, file: Path) -> Page:
    return drawn(watched.open(file))


@pytest.mark.parametrize("name", ["arms", "studies"])
def test_a_page_opens_alone_without_an_error_and_runs_no_text(folder, watched: Watched, name):
    page = opened(watched, folder / f"{name}.html")
    assert (watched.errors, watched.outside) == ([], [])
    assert page.evaluate("window.evil") is None
    assert page.locator("img").count() == 0
    assert page.locator(".plot svg").count() == page.locator("[data-chart]").count() > 0


def test_what_the_page_says_of_two_models_is_what_the_command_says(folder, watched: Watched):
    page = opened(watched, folder / "arms.html")
    with open_warehouse(folder / "warehouse.duckdb") as con:
        found = compare_addresses(con, A, B)
    rows = {row.benchmark: row for row in found.rows if row.role == "mean"}
    for cells in page.locator("#table-retention tbody tr").all():
        told = cells.locator("td").all_inner_texts()
        row = rows.pop(told[0])
        assert f"{signed(row.drop)}" in told
        assert f"[{signed(row.ci_low)}, {signed(row.ci_high)}]" in told
        assert f"{row.lost} {row.gained}" in " ".join(told)
    assert rows == {}
    said = page.locator("#answer").inner_text()
    assert f"{100 * abs(found.mean.drop):.1f} points on the mean of 5 benchmarks" in said
    assert f"{signed(found.mean.ci_low)} to {signed(found.mean.ci_high)}" in said
    assert found.mean.drop < 0
    assert f"{B}@80 gained" in said
    marks = page.evaluate(
        """[...document.querySelectorAll("[data-chart=drops] .mark-symbol path")].map(p => {
            const d = p.__data__.datum;
            return [d.benchmark, d.drop, Math.abs(window.views.drops.scale("x")(d.drop) - p.__data__.x)];
        })"""
    )
    known = {row.benchmark: row.drop for row in found.rows} | {"mean": found.mean.drop}
    assert {name: pytest.approx(100 * drop, abs=1e-3) for name, drop in known.items()} == {m[0]: m[1] for m in marks}
    assert all(off < 0.01 for *_, off in marks)
    assert page.locator("#table-settings tbody td").all_inner_texts() == ["kl", "-", "0.5"]
    assert f"retain compare {A} {B}" in page.locator("#provenance").inner_text()


def test_every_changed_answer_is_there_with_both_sides_and_is_found(folder, watched: Watched):
    page = opened(watched, folder / "arms.html")
    with open_warehouse(folder / "warehouse.duckdb") as con:
        found = compare_addresses(con, A, B)
    count = page.locator("#items-count")
    assert count.inner_text().startswith(f"n: {len(found.changed)} changed answers")
    page.select_option("#f-direction", "lost")
    assert count.inner_text().startswith(f"n: {len(found.lost)} changed answers")
    page.select_option("#f-benchmark", "sorting")
    lost = [flip for flip in found.lost if flip.benchmark == "sorting"]
    assert count.inner_text().startswith(f"n: {len(lost)} changed answers")
    first = page.locator("#items-list article").first
    assert first.locator("dt").all_inner_texts() == ["question", "A", "B", "right answer"]
    assert not page.locator("#f-method").is_visible()
    page.select_option("#f-direction", "")
    page.select_option("#f-benchmark", "")
    page.fill("#f-text", "onerror=window.evil")
    hostile = sum(flip.item.prompt == EVIL for flip in found.changed)
    assert hostile
    assert count.inner_text().startswith(f"n: {hostile} changed answers")
    assert page.locator("#items-list article dd").first.inner_text() == EVIL
    assert page.evaluate("window.evil") is None


def test_what_the_page_says_of_two_studies_is_what_the_command_says(folder, watched: Watched, monkeypatch):
    page = opened(watched, folder / "studies.html")
    with open_warehouse(folder / "warehouse.duckdb") as con:
        found = compare_addresses(con, "made", "gentle")
    table = [row.locator("td").all_inner_texts() for row in page.locator("#table-drops tbody tr").all()]
    assert len(table) == len(found.rows) == 4
    for cells, row in zip(table, found.rows, strict=True):
        assert cells[0] == row.method
        assert cells[4:8] == [signed(row.a.drop.estimate), signed(row.b.drop.estimate), signed(row.drop.estimate),
                              f"[{signed(row.drop.low)}, {signed(row.drop.high)}]"]  # fmt: skip
    assert "harmful at 1e-4 lost" in page.locator("#answer").inner_text()
    assert page.locator("#table-settings tbody td").all_inner_texts() == [
        "budget.updates",
        "80",
        "90",
        "harmful: kl",
        "-",
        "0.5",
    ]
    for chart, of in (("drop_differences", "drop"), ("gain_differences", "gain")):
        marks = page.evaluate(
            """([chart]) => [...document.querySelectorAll(`[data-chart=${chart}] .mark-symbol path`)].map(p => p.__data__.datum)
                .map(d => [d.method, d.rate, d.drop, d.low, d.high])""",
            [chart],
        )
        known = [getattr(row, of) for row in found.rows]
        assert [mark[2:] for mark in marks] == [
            pytest.approx([100 * i.estimate, 100 * i.low, 100 * i.high], abs=1e-3) for i in known
        ]
    assert f"retain compare {A} {B} --page arms.html" in page.locator("#answers").inner_text()


@pytest.mark.parametrize("name", ["arms", "studies"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it(folder, chromium: Browser, name, scheme):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    page.goto((folder / f"{name}.html").as_uri())
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth <= 390")
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
    assert found.violations_count == 0, found.generate_report()
    context.close()


def test_files_of_lm_eval_have_a_page_too(tmp_path, watched: Watched):
    base, tuned = (str(ROOT / "docs" / "examples" / name) for name in ("base", "tuned"))
    text, lines = compare_text(base, tuned, page=tmp_path / "new" / "files.html")
    assert lines == [f"the page is {tmp_path / 'new' / 'files.html'}"]
    page = opened(watched, tmp_path / "new" / "files.html")
    assert (watched.errors, watched.outside) == ([], [])
    rows = list(csv.DictReader(io.StringIO(compare_text(base, tuned, form="csv")[0])))
    told = page.locator("#table-retention tbody td:nth-child(6)").all_inner_texts()
    assert [float(x) for x in told] == [float(points(float(row["drop"]))) for row in rows if row["benchmark"] != "(mean)"]
    assert [p for p in page.locator("#reading p").all_inner_texts() if p in text] == page.locator(
        "#reading p"
    ).all_inner_texts()
