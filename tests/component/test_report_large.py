"""The page of a large study: 200 arms, a million stored scores."""

from __future__ import annotations

import json
import re
import time

import duckdb
import pytest

from retain_core.report import changed
from retain_core.report.build import write_report
from tests.synthetic import STEPS, Truth, fill, made_scores

METHODS, RATES, SEEDS, ITEMS = 25, (1e-4, 3e-4), (0, 1, 2, 3), 180


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_page_of_two_hundred_arms_is_small_and_says_what_it_leaves_out(tmp_path, capsys):
    methods = {f"method_{i:02d}": Truth(gain=0.1 + i / 100, drop=i / 120) for i in range(METHODS)}
    scores = made_scores(methods, rates=RATES, seeds=SEEDS, n=ITEMS, seed_sd=0.01)
    with fill(tmp_path / "warehouse.duckdb", scores, texts=True, analyse=False) as con:
        assert con.execute("SELECT count(*) FROM sample_scores").fetchone()[0] >= 1_000_000
        assert con.execute("SELECT count(*) FROM arms WHERE role = 'method'").fetchone() == (200,)
        # Long answers, all different: what makes a page large.
        con.execute("UPDATE flipped SET response = repeat(response || ' and so on, ', 500)")
    before, waited = time.process_time(), time.perf_counter()
    path = write_report(tmp_path / "warehouse.duckdb", tmp_path, "made")
    took, waited = time.process_time() - before, time.perf_counter() - waited
    page = path.read_text()
    with capsys.disabled():
        print(f"\n{took:.1f} s of work in {waited:.1f} s, {len(page) / 1e6:.1f} MB")
    told = json.loads(re.search(r'(?s)id="data">(.*?)</script>', page).group(1))
    assert len(told["datasets"]["checkpoints"]) == 200 * len(STEPS)
    assert len(told["items"]) == changed.MOST
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as con:
        total = changed.read_changed(con, "made").total
    assert f"{changed.MOST:,} of {total:,} on this page, drawn evenly" in page
    assert f"Texts longer than {changed.LONGEST} characters are cut" in page
    assert "of 250, the largest of each benchmark; the table has all" in page
    assert len(page.encode()) < 6e6
    assert took < 30, "seconds of work: other load on the machine does not count"
