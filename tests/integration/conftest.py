"""Chromium for the tests that look at pages."""

import shutil

import pytest

WAIT_MS = 600_000
"""A ceiling for slow machines; all that is waited for comes within seconds."""


# By module: while a browser of playwright is open, this thread has an event loop that other tests would stumble over.
@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    reason = "playwright is not installed: pip install galbatch[dev]"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip(
            "there is no Chromium here: install the system's package chromium to test pages in a browser"
        )
    with playwright.sync_playwright() as started:
        # Containers run tests as root, where Chromium has no sandbox; the page is galbatch's own.
        yield started.chromium.launch(executable_path=found, args=["--no-sandbox"], timeout=WAIT_MS)
