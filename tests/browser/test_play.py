"""Play: pictures in between, at the rate of a screen; it stops at the end, at a press, and when anything else moves."""

import os
import time

import lab
import numpy as np
import pytest
from engine import serious

from flowlab.lessons import explorers

PLAYED = {"ScrubFlow": "", "CouplingLayers": "", "EMByHand": "", "BendTheGaussian": "steps=60"}
RATE = 12  # frames a second on a machine that others use too; `tests/benchmarks/explorers.py` asks for 30


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if lab.browser_path() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has no Chromium: install it, or name one in FLOWLAB_BROWSER.")
        pytest.skip("no Chromium or Chrome here (name one in FLOWLAB_BROWSER)")
    root = tmp_path_factory.mktemp("lab")
    cells = [
        f"from {explorers()[name].__module__} import {name}\nshown_{name} = {name}({settings})\nshown_{name}"
        for name, settings in PLAYED.items()
    ]
    setup = "import torch\ntorch.set_num_threads(1)\nfrom flowlab.lessons.base import player\nplayer.SECONDS = 4"
    lab.write_notebook(root / "play.ipynb", [setup, *cells])
    with lab.jupyterlab(root) as address, lab.chromium() as page:
        lab.open_and_run(page, address, "play.ipynb")
        yield page


class Shown:
    """An explorer on the page, one of its sliders that plays, and what is seen of them."""

    def __init__(self, page, name: str, control: str) -> None:
        self.page, self.box = page, page.locator(f".flowlab-explorer.{name}")
        self.kernel = f"shown_{name}"
        self.control = control
        self.button = self.box.locator(f".flowlab-play-{control}")
        self.handle = self.button.locator("xpath=..").locator(".noUi-handle")
        self.canvas = self.box.locator("canvas.flowlab-picture")
        self.box.scroll_into_view_if_needed()

    @property
    def place(self) -> float:
        return float(self.handle.get_attribute("aria-valuenow"))

    @property
    def frames(self) -> int:
        return int(self.canvas.get_attribute("data-frames"))

    @property
    def plays(self) -> bool:
        return self.button.get_attribute("title").startswith("Pause")

    def to(self, key: str) -> None:
        """Bring the slider to an end, by Home or End, and wait for the picture."""
        self.handle.focus()
        self.page.keyboard.press(key)
        self.rest()

    def rest(self, seconds: float = 0.4) -> None:
        """Wait until nothing moves any more."""
        deadline, seen, since = time.time() + 20, -1, time.time()
        while time.time() - since < seconds:
            assert time.time() < deadline, "it never comes to rest"
            if (frames := self.frames) != seen or self.plays:
                seen, since = frames, time.time()
            self.page.wait_for_timeout(50)

    def wait(self, condition, seconds: float = 20.0) -> None:
        deadline = time.time() + seconds
        while not condition():
            assert time.time() < deadline
            self.page.wait_for_timeout(20)


@pytest.fixture
def layers(page):
    shown = Shown(page, "ScrubFlow", "layer")
    shown.to("Home")
    return shown


def test_it_plays_with_pictures_in_between_stops_at_the_end_and_begins_anew(layers):
    assert layers.button.get_attribute("title") == "Play: couplings applied"
    layers.button.click()
    layers.wait(lambda: layers.place >= 1)
    start, first = time.time(), layers.frames
    layers.wait(lambda: layers.place >= 4)
    rate = (layers.frames - first) / (time.time() - start)
    assert rate > RATE, f"{rate:.0f} frames a second"
    layers.wait(lambda: not layers.plays)
    assert layers.place == 8 and layers.button.get_attribute("title") == "Play: couplings applied"
    layers.rest()
    assert "8 of 8" in lab.readout(layers.box)
    assert lab.strayed(layers.page, layers.box, layers.kernel)[0] < 0.3, "it ends at the picture of the last stop"
    layers.button.click()
    layers.wait(lambda: 1 <= layers.place <= 4)
    layers.button.click()
    layers.wait(lambda: not layers.plays)


def test_between_two_stops_it_is_on_the_path_of_the_coupling(layers):
    """Halfway through a coupling the kernel's picture is that of layer 0.5, and the browser draws it."""
    layers.box.get_by_label("slow motion").check()
    layers.button.click()
    layers.wait(lambda: ".5 of 8" in lab.readout(layers.box))
    layers.button.click()
    layers.box.get_by_label("slow motion").uncheck()
    layers.rest()
    assert f"{layers.place:g} of 8" in lab.readout(layers.box), "a pause goes on to the next stop"
    assert lab.strayed(layers.page, layers.box, layers.kernel)[0] < 0.3


def test_what_is_seen_moves_evenly(layers):
    """From stop to stop no single frame makes most of the way, as it would without pictures in between."""
    layers.page.evaluate(
        """(canvas) => {
            window.flowlabMoved = [];
            const small = new OffscreenCanvas(160, 60), context = small.getContext("2d", { willReadFrequently: true });
            let before = null;
            new MutationObserver(() => {
                context.drawImage(canvas, 0, 0, 160, 60);
                const now = context.getImageData(0, 0, 160, 60).data;
                if (before) window.flowlabMoved.push(now.reduce((sum, v, i) => sum + Math.abs(v - before[i]), 0));
                before = now;
            }).observe(canvas, { attributes: true, attributeFilter: ["data-frames"] });
        }""",
        layers.canvas.element_handle(),
    )
    layers.button.click()
    layers.wait(lambda: layers.place >= 3)
    layers.button.click()
    layers.rest()
    moved = np.array(layers.page.evaluate("window.flowlabMoved"))
    assert moved.max() < 0.25 * moved.sum(), moved


def test_keys_play_and_step(layers):
    layers.canvas.focus()
    layers.page.keyboard.press("Space")
    layers.wait(lambda: layers.plays)
    layers.page.keyboard.press("Space")
    layers.wait(lambda: not layers.plays)
    layers.to("Home")
    layers.canvas.focus()
    for key, place in ((".", 1), ("ArrowRight", 2), (",", 1), ("ArrowLeft", 0), (",", 0)):
        layers.page.keyboard.press(key)
        layers.wait(lambda place=place: layers.place == place)
    layers.button.focus()
    layers.page.keyboard.press(".")
    layers.wait(lambda: layers.place == 1)
    layers.page.keyboard.press("Space")
    layers.wait(lambda: layers.plays)
    layers.page.keyboard.press(",")
    layers.wait(lambda: not layers.plays)


def test_whatever_else_is_moved_stops_it(page, layers):
    snapshots = Shown(page, "ScrubFlow", "snapshot")
    snapshots.to("Home")
    layers.button.click()
    layers.wait(lambda: layers.place >= 1)
    snapshots.button.click()  # the other slider: one plays, the other stops
    layers.wait(lambda: snapshots.plays and not layers.plays)
    flow = layers.box.locator("select")
    flow.select_option(index=1)
    layers.wait(lambda: not snapshots.plays)
    flow.select_option(index=0)
    layers.rest()
    layers.button.click()
    layers.wait(lambda: layers.plays)
    layers.handle.focus()
    page.keyboard.press("Home")  # the slider itself, in the hand
    layers.wait(lambda: not layers.plays and layers.place == 0)
    layers.button.click()
    layers.wait(lambda: layers.place >= 1)
    layers.box.get_by_role("button", name="Reset").click()
    layers.wait(lambda: not layers.plays and layers.place == 0)
    layers.rest()
    assert "0 of 8" in lab.readout(layers.box)
    assert layers.box.locator("[role=alert]").count() == 0


def test_two_explorers_play_at_once_and_a_window_may_change(page, layers):
    other = Shown(page, "EMByHand", "half_step")
    other.to("Home")
    layers.button.click()
    other.button.click()
    layers.wait(lambda: layers.plays and other.plays and layers.place >= 1 and other.place >= 1)
    page.set_viewport_size({"width": 1024, "height": 768})
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    layers.wait(lambda: not layers.plays and not other.plays, 30)
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})")
    page.set_viewport_size({"width": 1280, "height": 1000})
    layers.rest()
    assert layers.place == 8
    for shown in (layers, other):
        assert lab.strayed(page, shown.box, shown.kernel)[0] < 0.3
        assert shown.box.locator("[role=alert]").count() == 0


def test_a_depth_is_played_through_its_couplings(page):
    shown = Shown(page, "CouplingLayers", "depth")
    shown.to("Home")
    shown.button.click()
    shown.wait(lambda: not shown.plays, 30)
    shown.rest()
    assert shown.place == 6 and lab.strayed(page, shown.box, shown.kernel)[0] < 0.3


def test_a_training_is_played_once_there_is_one(page):
    box = page.locator(".flowlab-explorer.BendTheGaussian")
    box.scroll_into_view_if_needed()
    assert box.locator(".flowlab-play").count() == 0
    box.get_by_role("button", name="Train").click()
    box.locator(".flowlab-play").wait_for(timeout=20_000)
    shown = Shown(page, "BendTheGaussian", "snapshot")
    page.wait_for_function("b => !b.disabled", arg=box.get_by_role("button", name="Train").element_handle())
    shown.to("Home")
    shown.button.click()
    shown.wait(lambda: shown.place >= 3)
    box.get_by_role("button", name="Train").click()  # a new training takes the picture over
    shown.wait(lambda: not shown.plays)
    assert box.locator("[role=alert]").count() == 0


def test_who_asked_for_no_motion_sees_the_stops_alone(page, layers):
    page.emulate_media(reduced_motion="reduce")
    try:
        before = layers.frames
        layers.button.click()
        layers.wait(lambda: not layers.plays and layers.place == 8)
        assert layers.frames - before <= 10
    finally:
        page.emulate_media(reduced_motion="no-preference")


def test_played_explorers_are_open_to_all(page, layers):
    layers.button.click()
    layers.wait(lambda: layers.plays)
    assert serious(page, ".flowlab-explorer.ScrubFlow") == []
    layers.button.click()
    layers.rest()


def test_a_cell_that_runs_again_while_it_plays_leaves_nothing_behind(page, layers):
    layers.button.click()
    layers.wait(lambda: layers.place >= 1)
    lab.run(page, "old = shown_ScrubFlow")
    page.evaluate(
        """() => {
            const { content } = window.flowlabPanel;
            content.activeCellIndex = 1;
            window.jupyterapp.commands.execute("notebook:run-cell");
        }"""
    )
    layers.wait(lambda: lab.run(page, "", "shown_ScrubFlow is old") == "False" and layers.canvas.count() == 1)
    assert lab.run(page, "", "old.closed, old.errors") == "(True, [])"
    layers.wait(lambda: layers.place == 0 and not layers.plays)
    layers.button.click()
    layers.wait(lambda: layers.place >= 1)
