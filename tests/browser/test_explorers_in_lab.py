"""Every explorer of the course, in a real browser: each control, moved by keyboard, changes the picture."""

import html
import os
import time

import lab
import pytest
from engine import serious

from flowlab.lessons import explorers

CI = os.environ.get("CI") == "true"

# A control that nobody listens to, and one whose callback does nothing: the test below must object to both.
PLANTED = """
import ipywidgets
from flowlab.lessons.change_of_variables_1d.explorer import ChangeOfVariables

class Deaf(ChangeOfVariables):
    def _changed(self, change):
        pass

Deaf()
"""

# One whose drawing fails when told to: the student must read why.
BROKEN = """
class Broken(ChangeOfVariables):
    whole = True

    def _draw(self):
        super()._draw() if self.whole else 1 / 0

shown_Broken = Broken()
shown_Broken
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if lab.browser_path() is None:
        if CI:
            pytest.fail("CI has no Chromium: install it, or name one in FLOWLAB_BROWSER.")
        pytest.skip("no Chromium or Chrome here (name one in FLOWLAB_BROWSER)")
    root = tmp_path_factory.mktemp("lab")
    setup = "import torch\ntorch.set_num_threads(1)"
    cells = [
        f"from {cls.__module__} import {name}\nshown_{name} = {name}()\nshown_{name}"
        for name, cls in explorers().items()
    ]
    lab.write_notebook(root / "explorers.ipynb", [setup, *cells, PLANTED, BROKEN])
    with lab.jupyterlab(root) as address, lab.chromium() as page:
        lab.open_and_run(page, address, "explorers.ipynb")
        yield page


def drive(page, explorer) -> int:
    """Move each control once; each must change the picture, and all of them together the numbers."""
    explorer.scroll_into_view_if_needed()
    numbers = {lab.readout(explorer)}
    for control in lab.controls(explorer):
        before, _ = lab.picture(explorer)
        lab.press(page, control)
        lab.wait_for_change(explorer, before)
        numbers.add(lab.readout(explorer))
        assert explorer.locator("[role=alert]").count() == 0, explorer.locator("[role=alert]").inner_text()
    return len(numbers)


@pytest.mark.parametrize("name", list(explorers()))
def test_each_control_moves_the_picture(page, name):
    explorer = page.locator(f".flowlab-explorer.{name}")
    assert lab.controls(explorer), "there is nothing to move"
    assert drive(page, explorer) > 1, "no number that the model computes has changed"
    assert explorer.locator("canvas.flowlab-picture").get_attribute("aria-label")


@pytest.mark.parametrize("name", list(explorers()))
def test_the_canvas_agrees_with_the_still_picture(page, name):
    """After each control has moved once: what the browser drew is what matplotlib draws."""
    explorer = page.locator(f".flowlab-explorer.{name}")
    deadline = time.time() + 10
    while (far := lab.strayed(page, explorer, f"shown_{name}"))[0] > 0.3 and time.time() < deadline:
        time.sleep(0.2)  # the last change may be on its way
    # What stands still is mostly letters, which are outlines here and pixels there, and are spaced a little otherwise.
    assert far[0] < 0.3 and far[1] < 0.7, far


@pytest.mark.parametrize("name", list(explorers()))
def test_the_numbers_are_those_of_the_kernel(page, name):
    """Also where the sentence for those who do not see the picture stays as it was."""
    explorer = page.locator(f".flowlab-explorer.{name}")
    deadline = time.time() + 10
    values = f"' '.join(re.findall('<b>(.*?)</b>', shown_{name}.view.readout))"
    known = html.unescape(lab.run(page, "import re", values).strip("'\""))
    while (shown := lab.numbers(explorer)) != known:
        assert time.time() < deadline, f"{shown} is shown, and {known} was computed"
        time.sleep(0.2)


def test_a_canvas_that_shows_something_else_is_noticed(page):
    """Planted: lines that the canvas has and the still picture has not."""
    explorer = page.locator(".flowlab-explorer.ScrubFlow")
    assert lab.strayed(page, explorer, "shown_ScrubFlow")[0] < 0.3
    lab.run(page, "shown_ScrubFlow.picture.lines.set_visible(False)")
    assert lab.strayed(page, explorer, "shown_ScrubFlow")[0] > 0.3
    lab.run(page, "shown_ScrubFlow.picture.lines.set_visible(True)")


def test_an_error_is_shown_and_goes_away(page):
    explorer = page.locator(".flowlab-explorer.Broken")
    handle, alert = explorer.locator(".noUi-handle").first, explorer.locator("[role=alert]")
    lab.run(page, "shown_Broken.whole = False")
    lab.press(page, handle)
    alert.wait_for()
    assert "division by zero" in alert.inner_text()
    lab.run(page, "shown_Broken.whole = True")
    before, _ = lab.picture(explorer)
    lab.press(page, handle)
    lab.wait_for_change(explorer, before)
    alert.wait_for(state="detached")


def test_a_dead_callback_is_noticed(page):
    with pytest.raises(AssertionError, match="no pixel inside the axes changed"):
        drive(page, page.locator(".flowlab-explorer.Deaf"))


def test_a_picture_can_be_dragged(page):
    explorer = page.locator(".flowlab-explorer.DeterminantAsArea")
    image = explorer.locator("canvas.flowlab-picture")
    image.scroll_into_view_if_needed()
    before, regions = lab.picture(explorer)
    box = image.bounding_box()
    left, top, right, bottom = regions[1]
    middle = box["x"] + box["width"] * (left + right) / 2, box["y"] + box["height"] * (top + bottom) / 2
    page.mouse.move(middle[0] + 60, middle[1] - 20)
    page.mouse.down()
    page.mouse.move(middle[0] + 110, middle[1] - 90, steps=4)
    page.mouse.up()
    lab.wait_for_change(explorer, before)


def test_a_mixture_is_trained_with_the_presets_that_were_set(page):
    explorer = page.locator(".flowlab-explorer.MixtureTraining")
    train, stop = (explorer.get_by_role("button", name=name) for name in ("Train a mixture", "Stop"))
    recipe, components = explorer.locator(".flowlab-preset select"), explorer.locator(".flowlab-preset .noUi-handle")
    recipe.first.select_option(label="the ELBO alone")
    components.first.focus()
    page.keyboard.press("ArrowLeft")
    before, _ = lab.picture(explorer)
    train.press("Enter")
    seen = lab.wait_for_change(explorer, before, seconds=40)
    lab.wait_for_change(explorer, seen, seconds=40)
    stop.press("Enter")
    page.wait_for_function("b => b.disabled", arg=stop.element_handle(), timeout=20_000)
    assert explorer.locator("[role=alert]").count() == 0
    assert "of 4 components" in explorer.locator("canvas.flowlab-picture").get_attribute("aria-label")
    chosen = explorer.locator("select").first.evaluate("s => s.selectedOptions[0].text")
    assert chosen.split() == ["yours,", "trained", "here"]


def test_a_click_labels_a_point_and_training_uses_it(page):
    explorer = page.locator(".flowlab-explorer.ClickLabels")
    image = explorer.locator("canvas.flowlab-picture")
    image.scroll_into_view_if_needed()
    before, regions = lab.picture(explorer)
    box, (left, top, right, bottom) = image.bounding_box(), regions[0]
    for share in (0.5 + 0.8 / 2.3, 0.5 + 0.4 / 2.3):  # the rings at the angle 0; the axes go from −1.15 to 1.15
        x = box["x"] + box["width"] * (left + (right - left) * share)
        page.mouse.click(x, box["y"] + box["height"] * (top + bottom) / 2)
        before = lab.wait_for_change(explorer, before)
    explorer.get_by_role("button", name="Train").press("Enter")
    lab.wait_for_change(explorer, before, seconds=60)
    stop = explorer.get_by_role("button", name="Stop")
    stop.press("Enter")
    page.wait_for_function("b => b.disabled", arg=stop.element_handle(), timeout=20_000)
    assert explorer.locator("[role=alert]").count() == 0


def test_training_is_seen_while_it_runs_and_stops_when_told(page):
    explorer = page.locator(".flowlab-explorer.BendTheGaussian")
    train, stop = (explorer.get_by_role("button", name=name) for name in ("Train", "Stop"))
    before, _ = lab.picture(explorer)
    assert stop.is_disabled()
    train.press("Enter")
    seen = lab.wait_for_change(explorer, before, seconds=20)
    lab.wait_for_change(explorer, seen, seconds=20)
    assert train.is_disabled(), "it runs, and a second run cannot be started beside it"
    stop.press("Enter")
    page.wait_for_function("b => !b.disabled", arg=train.element_handle(), timeout=10_000)
    bar = explorer.locator(".progress-bar")
    assert bar.evaluate("b => b.offsetWidth < b.parentElement.offsetWidth"), "it was stopped before its end"
    scrubber = explorer.locator(".noUi-handle").last
    before, _ = lab.picture(explorer)
    scrubber.focus()
    page.keyboard.press("Home")
    lab.wait_for_change(explorer, before)


@pytest.mark.parametrize("name", list(explorers()))
def test_an_explorer_is_open_to_all(page, name):
    explorer = page.locator(f".flowlab-explorer.{name}")
    explorer.scroll_into_view_if_needed()
    assert serious(page, f".flowlab-explorer.{name}") == []
    for control in lab.controls(explorer):
        label = control.evaluate("c => c.ariaLabel || c.labels?.[0]?.textContent || c.textContent")
        assert label and label.strip(), "each control has a name"
        assert control.evaluate("c => c.tabIndex >= 0"), f"{label} can be reached by keyboard"
