"""The study's page in a browser: what it says is what SQL says, and everybody can read it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from retain_core.arms import rate_text
from retain_core.hypotheses.studies import questions
from retain_core.report.build import write_report
from tests.browser.conftest import Watched
from tests.browser.tables import LAST, PLANTED, RELATIONS, check_tables, rows
from tests.conftest import ROOT
from tests.synthetic import METHODS, fill, made_scores, made_sequence

pytestmark = pytest.mark.browser

CHARTS = (
    "gain_drop", "gain_drop_greedy", "matched_gain", "benchmarks", "gain_over_training", "drop_over_training", "kl_law",
)  # fmt: skip
RTL = "\u05e9\u05dc\u05d5\u05dd \U0001f469\u200d\U0001f680"
EVIL = "<img src=x onerror=window.evil=1></script><script>window.evil=2</script>"
PRIMARY = {"contrast": ["harmful", "harmless"], "predict": ">", "at_gain": 0.1, "at": None, "margin": 0.02, "looks": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A home with a made-up study whose changed answers have texts, one of them hostile."""
    home = tmp_path_factory.mktemp("report")
    methods = {name: METHODS[name] for name in ("harmful", "harmless", "dear", "twin")}
    scores = made_scores(methods, seeds=(0, 1), primary=PRIMARY, controls=True, base="lab/made")
    with fill(home / "warehouse.duckdb", scores, texts=True) as con:
        con.execute("UPDATE flipped SET base_response = 'before ' || item, response = 'after ' || item")
        con.execute("UPDATE flipped SET response = ? WHERE item = (SELECT min(item) FROM flipped)", [EVIL])
        con.execute("UPDATE flipped SET base_response = ? WHERE item = (SELECT min(item) FROM flipped)", [RTL])
    write_report(home / "warehouse.duckdb", home / "reports", "made")
    return home


@pytest.fixture(scope="module")
def sequence(tmp_path_factory) -> Path:
    """A home with a made-up sequence of targets, under the name of a study of the hypothesis ledger."""
    home = tmp_path_factory.mktemp("sequence")
    (name,) = (question.study["study"] for question in questions() if question.name == "replay")
    scores = made_sequence({name: METHODS[name] for name in ("harmful", "harmless")}, primary=PRIMARY, study=name)
    fill(home / "warehouse.duckdb", scores).close()
    write_report(home / "warehouse.duckdb", home / "reports", name)
    return home


@pytest.fixture
def opened(made, watched: Watched) -> Page:
    """The page with all its charts drawn."""
    return drawn(watched.open(made / "reports" / "made" / "index.html"))


def in_points(value: float | None) -> float | None:
    return None if value is None else 100 * value


def drawn(page: Page) -> Page:
    page.wait_for_selector("body[data-drawn=yes]", timeout=120_000)
    return page


def marks(page: Page, chart: str) -> list[dict[str, Any]]:
    """What every point of a chart was drawn from, and whether it stands where its scale puts those figures."""
    return page.evaluate(
        """([chart]) => [...document.querySelectorAll(`[data-chart=${chart}] .mark-symbol path`)].map(path => {
            const item = path.__data__, view = window.views[chart], d = item.datum;
            const field = { gain_drop: "x", gain_drop_greedy: "gain", kl_law: "kl", gain_over_training: "step",
            drop_over_training: "step" }[chart] || "drop";
            return { ...Object.fromEntries(Object.entries(d).filter(([, v]) => typeof v !== "object")),
                     off: Math.abs(view.scale("x")(d[field]) - item.x) };
        })""",
        [chart],
    )


def check_charts(page: Page, warehouse: Path, charts: Iterable[str] = CHARTS, least: int = 10) -> None:
    """At least so many marks of every chart stand for rows of SQL, and where they should."""
    points = {(p["arm"], p["step"]): p for p in rows(warehouse, "FROM gain_drop WHERE role = 'method'")}
    means = {
        (p["method"], rate_text(p["learning_rate"]), p["step"]): p
        for p in rows(
            warehouse,
            """SELECT method, learning_rate, step, avg(gain) AS gain, avg("drop") AS "drop" FROM gain_drop WHERE role = 'method'
            GROUP BY ALL""",
        )
    }
    matched = {(m["method"], round(100 * m["gain"], 6)): m for m in rows(warehouse, "FROM matched_gain")}
    forest = {
        (f["method"], rate_text(f["learning_rate"]), f["benchmark"]): f for f in rows(warehouse, RELATIONS["per_benchmark"])
    }
    for chart in charts:
        found = marks(page, chart)
        assert len(found) >= least, chart
        for mark in found:
            assert mark["off"] < 0.01, chart
            if chart in ("gain_drop", "gain_drop_greedy", "kl_law"):
                row = points[mark["arm"], mark["step"]]
                pairs = [
                    *((mark.get(key), in_points(row[name])) for key, name in (("gain", "gain"), ("drop", "drop"))),
                    (mark.get("x"), in_points(row["gain_exact"])),
                    (mark.get("kl"), row["kl_forward"]),
                ]
            elif chart == "matched_gain":
                row = matched[mark["method"], mark["gain"]]
                pairs = [
                    (mark.get(key), in_points(row[name]))
                    for key, name in (("drop", "drop"), ("low", "ci_low"), ("high", "ci_high"))
                ]
            elif chart == "benchmarks":
                row = forest[mark["method"], mark["rate"], mark["benchmark"]]
                pairs = [(mark.get(key), in_points(row[key])) for key in ("drop", "low", "high")]
                assert mark["right"] == f"{row['lost']}, {row['gained']}"
            else:
                row = means[mark["method"], mark["rate"], mark["step"]]
                pairs = [(mark.get(key), in_points(row[key])) for key in ("gain", "drop")]
            for shown, known in pairs:
                assert shown == pytest.approx(known, abs=1e-3, rel=1e-3), (chart, mark)
    if "gain_drop" in charts:
        assert len(marks(page, "gain_drop")) == len(points)


def check_headline(page: Page, warehouse: Path) -> str:
    (p,) = rows(warehouse, 'FROM contrasts WHERE "primary"')
    said = page.locator("#answer").inner_text()
    size = f"{abs(100 * p['diff']):.1f}"
    far = f"{size} point{'' if size == '1.0' else 's'} {'more' if p['diff'] > 0 else 'less'} than"
    assert ("as much as" if size == "0.0" else far) in said
    for end in (p["ci_low"], p["ci_high"]):
        assert f"{abs(100 * end):.1f}" in said
    assert page.locator(".chip").first.inner_text() == p["verdict"]
    return said


@pytest.mark.slow
def test_every_cell_of_every_table_is_what_sql_says_and_follows_it(made, sequence, finished_home, watched: Watched, tmp_path):
    compared, changed = dict[str, int](), set[str]()
    for home in (made, sequence, finished_home):
        (page,) = (home / "reports").glob("*/index.html")
        before = check_tables(watched.open(page), home / "warehouse.duckdb")
        spoilt = Path(shutil.copy(home / "warehouse.duckdb", tmp_path / "warehouse.duckdb"))
        with duckdb.connect(str(spoilt)) as con:
            for statement in PLANTED:
                con.execute(statement)
        after = check_tables(watched.open(write_report(spoilt, tmp_path, page.parent.name)), spoilt)
        assert before.keys() <= after.keys()
        changed |= {name for name in after if before.get(name) != after[name]}
        compared |= {name: sum(map(len, before[name])) for name in before}
    files = re.findall(r"`(\w+)\.csv`", (ROOT / "docs" / "report.md").read_text())
    assert compared.keys() == changed == set(files) - {"checkpoints", "changed"}, "a table without a comparison"
    assert min(compared.values()) > 0
    assert (watched.errors, watched.outside) == ([], [])


def test_the_page_is_what_sql_says_and_follows_it(made, opened: Page, watched: Watched, tmp_path):
    warehouse = made / "warehouse.duckdb"
    assert sum(len(row) for cells in check_tables(opened, warehouse).values() for row in cells) > 400
    check_charts(opened, warehouse)
    before = check_headline(opened, warehouse)
    changed = Path(shutil.copy(warehouse, tmp_path / "warehouse.duckdb"))
    with duckdb.connect(str(changed)) as con:
        for statement in PLANTED:
            con.execute(statement)
    drawn(watched.open(write_report(changed, tmp_path, "made")))
    check_charts(opened, changed)
    assert check_headline(opened, changed) != before
    with pytest.raises(AssertionError):
        check_tables(opened, warehouse)
    with pytest.raises(AssertionError):
        check_charts(opened, warehouse)
    assert (watched.errors, watched.outside) == ([], [])


def test_nothing_is_injected_and_nothing_can_be_fetched(opened: Page, watched: Watched):
    assert opened.evaluate("window.evil") is None
    assert opened.evaluate("document.images.length") == 0
    opened.locator("#f-text").fill("onerror=window")
    assert EVIL in opened.locator(".item").first.inner_text()
    assert RTL in opened.locator(".item").first.inner_text()
    assert opened.locator(".item dd").first.get_attribute("dir") == "auto"
    assert (opened.evaluate("window.evil"), watched.errors) == (None, [])
    assert opened.evaluate("fetch('data:text/plain,x').then(() => 'out').catch(() => 'refused')") == "refused"
    opened.evaluate("document.head.append(Object.assign(document.createElement('script'), {textContent: 'window.evil = 3'}))")
    assert opened.evaluate("window.evil") is None, "a script that the page did not come with has run"


def test_changed_answers_are_found(made, opened: Page):
    known = rows(
        made / "warehouse.duckdb",
        f"""SELECT item FROM flips JOIN checkpoints USING (study, arm, checkpoint) JOIN arms USING (study, arm)
        WHERE role = 'method' AND benchmark = 'places' AND method = 'dear' AND direction = 'lost' AND {LAST}""",
    )
    wanted = {"benchmark": "places", "method": "dear", "direction": "lost"}
    with (made / "reports" / "made" / "changed.csv").open(encoding="utf-8") as file:
        held = [row for row in csv.DictReader(file) if wanted.items() <= row.items()]
    assert {row["item"] for row in held} <= {str(row["item"]) for row in known}
    for field, value in wanted.items():
        opened.locator(f"#f-{field}").select_option(value)
    count = opened.locator("#items-count")
    assert count.inner_text().startswith(f"n: {len(held)} changed answers, page 1 of ")
    assert opened.locator(".item").count() == min(20, len(held))
    assert {h.split("\n")[0][:20] for h in opened.locator(".item h3").all_inner_texts()} == {"lost · places · dear"}
    opened.locator("#items-after").click()
    assert "page 2 of" in count.inner_text()
    opened.locator("#f-text").fill(f"after {held[0]['item']}")
    shown = opened.locator(".item").all_inner_texts()
    assert shown
    assert all(f"before {held[0]['item']}" in text for text in shown)
    opened.locator("#f-text").fill("no such words")
    assert count.inner_text() == "n: 0, nothing matches"


def test_the_keyboard_reaches_everything(opened: Page):
    opened.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    wanted = opened.evaluate(
        "document.querySelectorAll('a, button:not(:disabled), input, select, summary, [tabindex=\"0\"]').length"
    )
    reached = opened.evaluate("[]")
    for _ in range(wanted + 2):
        opened.keyboard.press("Tab")
        reached.append(
            opened.evaluate(
                "(e => e.id || e.dataset.chart || e.getAttribute('aria-label') || e.textContent)(document.activeElement)"
            )
        )
    for name in (*CHARTS, "Gain and drop of every method", "f-text", "f-direction", "items-after", "Controls"):
        assert name in reached, name
    assert opened.locator("#tip").is_hidden()
    opened.locator("[data-chart=gain_drop]").focus()
    told = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End"):
        opened.keyboard.press(key)
        told.append(opened.locator("#tip").inner_text())
    assert told[0] == told[2] != told[1]
    for word in ("method", "learning rate", "seed", "update", "drop (points)", "forward KL"):
        assert word in told[3]
    opened.keyboard.press("Escape")
    assert opened.locator("#tip").is_hidden()


def test_a_mark_under_the_mouse_tells_its_settings(opened: Page):
    tip = opened.locator("#tip")
    for chart in CHARTS:
        mark = opened.locator(f"[data-chart={chart}] .mark-symbol path").last
        mark.scroll_into_view_if_needed()
        box = mark.bounding_box()
        opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tip.wait_for(state="visible")
        assert "method" in tip.inner_text(), chart
        opened.mouse.move(1, 1)
        tip.wait_for(state="hidden")


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_the_page_meets_wcag_aa(made, chromium: Browser, scheme):
    check_wcag(chromium, made / "reports" / "made" / "index.html", scheme)


def check_wcag(chromium: Browser, file: Path, scheme: str) -> None:
    """The page with everything open breaks no rule that axe knows."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(file.resolve().as_uri())
    drawn(page)
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
    context.close()
    assert found.violations_count == 0, found.generate_report()


def test_a_phone_has_no_sideways_scroll(made, chromium: Browser):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto((made / "reports" / "made" / "index.html").as_uri())
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert (
        page.evaluate("Math.max(...[...document.querySelectorAll('.plot svg')].map(s => s.getBoundingClientRect().right))")
        <= 390
    )
    assert all(len(marks(page, chart)) for chart in CHARTS)
    for chart, rows_of in (("benchmarks", "benchmarks"), ("matched_gain", "matched")):
        texts = page.locator(f"[data-chart={chart}] .mark-text text")
        wanted = [row["label"] for row in json.loads(page.locator("#data").text_content())["datasets"][rows_of]]
        assert set(wanted) <= {text.replace("\xa0", " ") for text in texts.all_text_contents()}, "a label is cut"
        assert texts.evaluate_all("all => all.every(t => t.getBoundingClientRect().right <= 390)")
    context.close()


def test_paper_has_every_section_and_charts_that_fit(opened: Page, tmp_path):
    titles = opened.locator("section h2").all_inner_texts()
    assert len(titles) > 10
    printed = opened.pdf(path=tmp_path / "paper.pdf", format="A4", outline=True, tagged=True)
    text = printed.replace(b"\\(", b"(").replace(b"\\)", b")")
    for title in titles:
        assert f"({title})".encode() in text or title.encode("utf-16-be") in text, title
    opened.set_viewport_size({"width": 718, "height": 1000})
    opened.emulate_media(media="print")
    opened.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.locator("details:not([open])").count() == 0
    boxes = opened.eval_on_selector_all(
        ".plot svg", "all => all.map(s => [s.getBoundingClientRect().right, s.getBoundingClientRect().height])"
    )
    assert len(boxes) == len(CHARTS)
    assert all(right <= 719 and 50 < height <= 980 for right, height in boxes)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 719
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    pixels = "getComputedStyle(document.getElementById('table-methods')).fontSize"
    assert float(opened.evaluate(pixels).removesuffix("px")) * 72 / 96 >= 8
    assert opened.evaluate("[...document.querySelectorAll('table')].every(t => t.getBoundingClientRect().right <= 719)")
    swatch = "getComputedStyle(document.querySelector('.legend .swatch circle')).fill"
    assert opened.evaluate(swatch) == "rgb(20, 106, 181)", "backgrounds are not printed, so the legend must not need them"
    opened.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert opened.locator("details:not([open])").count() > 0


def test_every_chart_says_its_n_and_its_units(opened: Page):
    for chart in CHARTS:
        figure = opened.locator(f"#chart-{chart}")
        assert figure.locator("p.n").inner_text().startswith("n: ")
        titles = figure.locator(".mark-text.role-axis-title text").all_text_contents()
        assert titles
        assert all(any(unit in title for unit in ("points", "nats", "update")) for title in titles), titles
    assert json.loads(opened.locator("#data").text_content())["datasets"].keys() >= {
        "checkpoints",
        "cells",
        "matched",
        "benchmarks",
    }
