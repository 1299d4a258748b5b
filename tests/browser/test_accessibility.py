"""Texts, figures and speech in JupyterLab, before an accessibility engine; all explorers are in their own file."""

import os

import fetch_scripts
import lab
import nbformat
import pytest
from engine import serious
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from flowlab.course import base

FIGURE = """
from flowlab import datasets, plotting
plotting.density(datasets.TwoMoons(), title="two moons")
"""

EXPLORER = """
from flowlab.lessons.nice.explorer import CouplingLayers
CouplingLayers()
"""

# What an explorer must not be: a slider without a name. The engine must object to it.
PLANTED = """
import ipywidgets
slider = ipywidgets.FloatSlider(description="nameless")
slider.add_class("planted")
slider
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    fetch_scripts.need(fetch_scripts.AXE)
    if lab.browser_path() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has no Chromium: install it, or name one in FLOWLAB_BROWSER.")
        pytest.skip("no Chromium or Chrome here (name one in FLOWLAB_BROWSER)")
    root = tmp_path_factory.mktemp("lab")
    texts = [c.source for path in base.notebooks() for c in nbformat.read(path, as_version=4).cells]
    texts = [source for source in texts if source.startswith(("#", "**", "$$", "|")) or "![" in source]
    cells = [new_code_cell(source) for source in (FIGURE, EXPLORER, PLANTED)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=[new_markdown_cell("\n\n".join(texts)), *cells], metadata={"kernelspec": kernel})
    nbformat.write(notebook, root / "content.ipynb")
    with lab.jupyterlab(root) as address, lab.chromium() as page:
        lab.open_and_run(page, address, "content.ipynb")
        yield page


def test_a_figure_says_what_it_shows(page):
    figure = page.locator(".jp-OutputArea-output img[alt*='two moons; x₁ from']")
    assert figure.count() == 1 and "a shading, strongest near" in figure.get_attribute("alt")
    assert page.locator(".jp-RenderedImage img").count() == 0, "no picture is shown without its words"


def test_the_texts_are_open_to_all(page):
    assert serious(page, ".jp-RenderedMarkdown") == []


def test_the_engine_objects_to_a_slider_without_a_name(page):
    assert any(line.startswith("aria-input-field-name") for line in serious(page, ".planted"))


def test_a_change_is_spoken_once_the_hand_rests(page):
    explorer = page.locator(".flowlab-explorer.CouplingLayers")
    handle, spoken = explorer.get_by_role("slider").first, explorer.locator("[role=status]")
    before, value = spoken.text_content(), handle.get_attribute("aria-valuetext")
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("([s, old]) => s.textContent !== old", arg=[spoken.element_handle(), before])
    assert spoken.text_content() == explorer.get_by_role("img").get_attribute("aria-label")
    readout = handle.evaluate("h => h.closest('.widget-slider').querySelector('.widget-readout').textContent")
    assert value != handle.get_attribute("aria-valuetext") == readout
