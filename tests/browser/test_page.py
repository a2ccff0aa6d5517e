"""The study's page in a browser."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Watched

pytestmark = pytest.mark.browser


def test_the_page_opens_alone_and_without_an_error(finished_home, watched: Watched):
    page = watched.open(next((finished_home / "reports").glob("*/index.html")))
    assert page.locator("h1").inner_text().startswith("What did teaching")
    assert (watched.errors, watched.outside) == ([], [])
