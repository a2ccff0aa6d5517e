"""The page of a large study, 200 arms: what keeps it small. `make bench` has the seconds, with a million stored scores."""

from __future__ import annotations

import json

import duckdb
import pytest

from retain_core.report import changed
from retain_core.report.build import write_report
from tests.browser.conftest import Watched
from tests.browser.test_report import drawn
from tests.synthetic import STEPS, Truth, fill, made_scores

pytestmark = pytest.mark.browser

METHODS, RATES, SEEDS, ITEMS = 25, (1e-4, 3e-4), (0, 1, 2, 3), 60


@pytest.mark.slow
def test_the_page_of_two_hundred_arms_is_small_and_says_what_it_leaves_out(tmp_path, watched: Watched):
    methods = {f"method_{i:02d}": Truth(gain=0.1 + i / 100, drop=i / 120) for i in range(METHODS)}
    scores = made_scores(methods, rates=RATES, seeds=SEEDS, n=ITEMS, seed_sd=0.01)
    with fill(tmp_path / "warehouse.duckdb", scores, texts=True, analyse=False) as con:
        assert con.execute("SELECT count(*) FROM arms WHERE role = 'method'").fetchone() == (200,)
        # Long answers, all different: what makes a page large.
        con.execute("UPDATE flipped SET response = repeat(response || ' and so on, ', 500)")
    path = write_report(tmp_path / "warehouse.duckdb", tmp_path, "made")
    assert path.stat().st_size < 6e6
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as con:
        total = changed.read_changed(con, "made").total
    page = drawn(watched.open(path))
    assert (watched.errors, watched.outside) == ([], [])
    told = json.loads(page.locator("#data").text_content())
    assert len(told["datasets"]["checkpoints"]) == 200 * len(STEPS)
    assert len(told["items"]) == changed.MOST
    said = page.locator("#changed").inner_text()
    assert f"{changed.MOST:,} of {total:,} on this page, drawn evenly" in said
    assert f"Texts longer than {changed.LONGEST} characters are cut" in said
    assert f"n: {changed.MOST} changed answers, page 1 of {changed.MOST // 20}" in said
    assert page.locator(".item").count() == 20
    assert "of 250, the largest of each benchmark; the table has all" in page.locator("#chart-benchmarks p.n").inner_text()
    assert page.locator("[data-chart=benchmarks] .mark-symbol path").count() <= 90
    assert page.evaluate("document.querySelectorAll('*').length") < 30_000
