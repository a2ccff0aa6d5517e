"""The page of a large study: writing it, and opening it in Chromium, beside the page of a small one.

200 arms and more than 10^6 stored scores, with long answers. Opened: until every chart has its marks.
"""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path

from benchmarks.pairs import Row, compare
from retain_core.report.build import write_report
from tests.synthetic import Truth, fill, made_scores

RATES, SEEDS, ITEMS = (1e-4, 3e-4), (0, 1, 2, 3), 180
PRIMARY = {"contrast": ["method_01", "method_00"], "predict": ">", "at_gain": 0.1, "at": None, "margin": 0.02, "looks": 1}
GOALS = {"written": "30 s", "its text is there": "3 s", "the first chart has its marks": "3 s", "all charts have": "3 s"}
STEPS = ("#answer", ".plot .mark-symbol path", "body[data-drawn=yes]")


def report(pairs: int, folder: Path) -> tuple[list[Row], list[str]]:
    """The large page beside the small one, as ratios, and what the large one took, in seconds."""
    large, small = (_made(folder / f"report-{arms}", arms) for arms in (200, 8))
    spent: list[list[float]] = []

    def write(warehouse: Path) -> float:
        started = time.perf_counter()
        write_report(warehouse, warehouse.parent, "made")
        return time.perf_counter() - started

    rows = [compare("writing the page of 200 arms / of 8", lambda: spent.append([write(large)]), lambda: write(small),
                    "none", min(pairs, 3))]  # fmt: skip
    written, opened = [x for (x,) in spent], list[list[float]]()
    size = (large.parent / "made" / "index.html").stat().st_size / 1e6
    with _Chromium() as browser:
        rows.append(compare("opening the page of 200 arms / of 8", lambda: opened.append(browser.open(large)),
                            lambda: browser.open(small), "none", pairs))  # fmt: skip
    medians = [statistics.median(written), *(statistics.median(step) for step in zip(*opened, strict=True))]
    told = [f"{name} {seconds:.2f} s (goal {goal})" for (name, goal), seconds in zip(GOALS.items(), medians, strict=True)]
    return rows, [f"page of 200 arms, {size:.1f} MB: {'; '.join(told)}"]


def _made(folder: Path, arms: int) -> Path:
    """A warehouse with a made-up study of so many arms, and its page beside it."""
    count = arms // (len(RATES) * len(SEEDS))
    methods = {f"method_{i:02d}": Truth(gain=0.2 + i / 100, drop=i / 120) for i in range(max(2, count))}
    rates, seeds = (RATES, SEEDS) if count > 1 else (RATES[:1], SEEDS)
    scores = made_scores(methods, rates=rates, seeds=seeds, n=ITEMS, seed_sd=0.01, primary=PRIMARY)
    folder.mkdir()
    with fill(folder / "warehouse.duckdb", scores, texts=True) as con:
        con.execute("UPDATE flipped SET response = repeat(response || ' and so on, ', 500)")
    return folder / "warehouse.duckdb"


class _Chromium:
    """Debian's headless browser, which opens pages and says when each of their steps was reached."""

    def __enter__(self) -> _Chromium:
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._playwright.stop()

    def open(self, warehouse: Path) -> list[float]:
        """Seconds until the text, the first chart and all charts of the page beside a warehouse are there."""
        context = self._browser.new_context(viewport={"width": 1280, "height": 900})
        page, started, reached = context.new_page(), time.perf_counter(), []
        page.goto((warehouse.parent / "made" / "index.html").as_uri(), wait_until="commit")
        for selector in STEPS:
            page.wait_for_selector(selector, state="attached", timeout=120_000)
            reached.append(time.perf_counter() - started)
        context.close()
        return reached
