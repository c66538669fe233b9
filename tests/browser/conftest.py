"""A real browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"])
        tab = browser.new_page(viewport={"width": 1800, "height": 1000})
        tab.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield tab
        browser.close()
