"""Prefect's UI on a real run of the smoke study: the names of its runs, and the table of methods.

The pages are Prefect's own, so what they ask of the web is not judged here; the fixture keeps it on this machine.
"""

from __future__ import annotations

import json
import urllib.request
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Watched

pytestmark = [pytest.mark.browser, pytest.mark.prefect]
PATIENCE = 90_000
"""Milliseconds; the first page loads all of the UI, from a server that has just started."""


def asked(address: str, what: str) -> list[dict[str, Any]]:
    request = urllib.request.Request(f"{address}/api/{what}/filter", b"{}", {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=20))


def test_the_flow_run_names_the_arms_and_links_the_artifacts(prefect_server, watched: Watched):
    (flow,) = asked(prefect_server, "flow_runs")
    page = watched.page
    page.set_default_timeout(PATIENCE)
    page.goto(f"{prefect_server}/v2/runs/flow-run/{flow['id']}?tab=TaskRuns")
    page.get_by_placeholder("Search by run name").fill("grpo")
    page.get_by_role("link", name="grpo lr=1e-3 seed=0").wait_for()
    page.get_by_text("retain", exact=True).filter(visible=True).first.wait_for()
    page.goto(f"{prefect_server}/v2/runs/flow-run/{flow['id']}?tab=Artifacts")
    for what in ("arms", "base", "methods", "summary"):
        page.get_by_text(f"study-smoke-{what}").first.wait_for()


def test_the_artifact_pages_show_the_table_and_the_verdict(prefect_server, watched: Watched):
    pages = {a["key"]: f"{prefect_server}/v2/artifacts/artifact/{a['id']}" for a in asked(prefect_server, "artifacts")}
    page = watched.page
    page.set_default_timeout(PATIENCE)
    page.goto(pages["study-smoke-methods"])
    page.get_by_role("cell", name="grpo", exact=True).wait_for()
    assert page.get_by_role("columnheader").all_inner_texts()[:3] == ["method", "learning rate", "seeds"]
    assert page.get_by_role("row").count() == 3
    page.goto(pages["study-smoke-summary"])
    page.get_by_role("heading", name="smoke: withheld").wait_for()
    page.get_by_role("cell", name="learning_rate_0").wait_for()
    page.locator("code", has_text="/reports/smoke/index.html").wait_for()


def test_runs_are_filtered_by_the_tags_of_their_study(prefect_server, watched: Watched):
    page = watched.page
    page.set_default_timeout(PATIENCE)
    found = page.get_by_role("link", name="smoke", exact=True)
    for tag, expected in (("study:smoke", 1), ("study:another", 0)):
        page.goto(f"{prefect_server}/v2/runs")
        found.first.wait_for()
        box = page.get_by_placeholder("All tags")
        box.fill(tag)
        box.press("Enter")
        page.wait_for_url(f"**tags={quote(tag, safe='')}*")
        expect(found).to_have_count(expected, timeout=PATIENCE)
