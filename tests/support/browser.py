"""A real Chromium, for tests that look at pages; without one they are skipped and say so."""

import shutil
from contextlib import contextmanager

import pytest

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'"
)
_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
in_a_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(
        _CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"
    ),
]


@contextmanager
def chromium():
    """The browser, until the end of the block."""
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()
