"""Explorers on windows of several widths: tracks that a hand can drag, nothing cut off, pictures that survive."""

import os
import time

import lab
import nbformat
import numpy as np
import pytest

from flowlab.lessons import explorers

TRACK = 160  # pixels, at least
HIGH = 0.81  # of the window: Lab leaves 679 of 800 pixels
SIZES = ((1024, 768), (1280, 800), (1920, 1080))

# A slider as ipywidgets lays it out, whose name takes all of its 300 pixels: the test below must object to it.
PLANTED = """
import ipywidgets
box = ipywidgets.VBox([ipywidgets.IntSlider(description="a name so long that it leaves no track to drag")])
box.children[0].style.description_width = "initial"
box.add_class("planted")
box
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    if lab.browser_path() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has no Chromium: install it, or name one in FLOWLAB_BROWSER.")
        pytest.skip("no Chromium or Chrome here (name one in FLOWLAB_BROWSER)")
    root = tmp_path_factory.mktemp("lab")
    setup = "import torch\ntorch.set_num_threads(1)"
    cells = [f"from {cls.__module__} import {name}\n{name}()" for name, cls in explorers().items()]
    lab.write_notebook(root / "explorers.ipynb", [setup, *cells, PLANTED])
    with lab.jupyterlab(root) as address, lab.chromium() as page:
        lab.open_and_run(page, address, "explorers.ipynb", timeout=300)
        yield page, address, root


def tracks(box) -> list[float]:
    return box.evaluate("e => [...e.querySelectorAll('.noUi-target')].map(t => t.getBoundingClientRect().width)")


@pytest.mark.parametrize("width, height", SIZES)
def test_every_track_is_long_enough_and_nothing_is_cut_off(opened, width, height):
    page, *_ = opened
    page.set_viewport_size({"width": width, "height": height})
    cut = "t => t.clientWidth && t.scrollWidth > t.clientWidth + 1"
    for name in explorers():
        explorer = page.locator(f".flowlab-explorer.{name}")
        explorer.scroll_into_view_if_needed()
        assert min(tracks(explorer), default=TRACK) >= TRACK, name
        texts = "[...e.querySelectorAll('select, button, .widget-label, .flowlab-readout span')]"
        assert explorer.evaluate(f"e => {texts}.filter({cut}).map(t => t.textContent)") == [], name
        column = explorer.evaluate("e => e.closest('.jp-OutputArea-output').clientWidth")
        canvas = explorer.locator("canvas.flowlab-picture")
        page.wait_for_function("c => c.width >= c.clientWidth", arg=canvas.element_handle())  # sharp: a dot a pixel
        picture = canvas.bounding_box()
        assert picture["width"] <= column and picture["height"] <= 0.6 * height + 40, name
        if width >= 1280:
            assert explorer.bounding_box()["height"] <= HIGH * height, name
    assert min(tracks(page.locator(".planted"))) < TRACK


@pytest.mark.parametrize("name", list(explorers()))
def test_a_slider_that_is_dragged_is_a_number(opened, name):
    page, *_ = opened
    page.set_viewport_size({"width": 1280, "height": 800})
    explorer = page.locator(f".flowlab-explorer.{name}")
    for slider in explorer.locator(".widget-hslider").all():
        handle, track = slider.locator(".noUi-handle"), slider.locator(".noUi-target")
        handle.scroll_into_view_if_needed()
        at, along = handle.bounding_box(), track.bounding_box()
        page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
        page.mouse.down()
        page.mouse.move(along["x"] + 0.7 * along["width"], at["y"] + at["height"] / 2, steps=2)
        page.mouse.up()
        value, low, high = (float(handle.get_attribute(f"aria-value{end}")) for end in ("now", "min", "max"))
        assert low <= value <= high and abs(value - (low + 0.7 * (high - low))) <= 0.1 * (high - low) + 1
    assert explorer.locator("[role=alert]").count() == 0


def test_a_saved_notebook_keeps_its_last_pictures(opened, tmp_path):
    """Saved, shut down, opened the next day: the picture is as it was left, and one line says what to do."""
    page, address, root = opened
    cls = explorers()["ChangeOfVariables"]
    name = "Mine"  # no explorer of the other notebook, which stays open
    source = f"from {cls.__module__} import {cls.__name__}\nclass {name}({cls.__name__}): pass\nshown = {name}()\nshown"
    lab.write_notebook(root / "mine.ipynb", [source])
    lab.open_and_run(page, address, "mine.ipynb")
    explorer = page.locator(f".flowlab-explorer.{name}")
    first, _ = lab.picture(explorer)
    lab.press(page, lab.controls(explorer)[0])
    left = lab.wait_for_change(explorer, first)
    page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")
    page.evaluate("async () => { await window.flowlabPanel.sessionContext.shutdown(); }")
    assert "widgets" in nbformat.read(root / "mine.ipynb", as_version=4).metadata
    page.goto("about:blank")
    page.goto(f"{address}/lab/tree/mine.ipynb?reset", wait_until="domcontentloaded")
    explorer.locator("canvas.flowlab-picture").wait_for(timeout=60_000)
    deadline = time.time() + 20
    while np.abs(lab.picture(explorer)[0].astype(int) - left).mean() > 0.5:
        assert time.time() < deadline, "the picture is another than the one that was left"
        time.sleep(0.2)
    line = explorer.evaluate("e => getComputedStyle(e, '::before').content")
    assert "run this cell" in line
    inside = "[...e.querySelectorAll('.jupyter-widgets-disconnected')]"
    assert set(explorer.evaluate(f"e => {inside}.map(t => getComputedStyle(t, '::before').display)")) == {"none"}
