"""The page of a study that really ran: alone, without an error, what SQL says, and readable for everybody."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.browser.check import check

pytestmark = pytest.mark.browser


def test_the_page_of_a_real_study_has_nothing_wrong(finished_home, chromium: Browser):
    assert check(chromium, finished_home, "smoke").startswith("smoke: 6 charts with ")
