"""A browser with the network cut."""

import os

import lab
import pytest


@pytest.fixture(scope="module")
def browser():
    if lab.browser_path() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has no Chromium: install it, or name one in FLOWLAB_BROWSER.")
        pytest.skip("no Chromium or Chrome here (name one in FLOWLAB_BROWSER)")
    with lab.chromium() as page:
        yield page.context.browser


@pytest.fixture
def page(browser):
    """A page with no network, which fails the test for whatever it misses or complains of."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 720})
    page, complaints = context.new_page(), []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"missing: {request.url}"))
    page.on("request", lambda r: complaints.append(f"asked for: {r.url}") if r.url.startswith(("http", "ws")) else None)
    yield page
    context.close()
    assert complaints == []
