"""What the button beside a slider does, without a browser: where it stops, and what stops it."""

import asyncio
import contextlib

import ipywidgets as widgets
import pytest

from flowlab.lessons import explorers
from flowlab.lessons.base.explorer import Explorer, choice, slider
from flowlab.lessons.base.picture import Picture


class Notes(Picture):
    """A picture that keeps what it was asked to draw."""

    def __init__(self):
        super().__init__(3.0, 2.0)
        self.asked, self.broken = [], False
        self.moves(*self.figure.subplots().plot([0, 1], [0, 1]))

    def update(self, layer, snapshot, heat, kind, depth):
        self.asked.append((layer, snapshot, heat, kind, depth))
        if self.broken:
            raise ValueError("no picture")
        return {"layer": float(layer)}


class Plays(Explorer):
    def __init__(self):
        controls = {
            "layer": widgets.IntSlider(0, 0, 2, description="layers done"),
            "snapshot": widgets.IntSlider(0, 0, 400, 5),
            "heat": slider("temperature", 0.5, 0.0, 1.0),
            "kind": widgets.SelectionSlider(options=("few", "more", "most")),
            "depth": choice("depth", (1, 2)),
        }
        plays = {"layer": 4, "snapshot": 1, "heat": 1, "kind": 1}
        super().__init__(Notes(), controls, plays=plays, draggable=True)

    def on_pointer(self, kind, axes, x, y):
        self.set(heat=0.7)


@pytest.fixture
def explorer(monkeypatch):
    for name, seconds in (("SECONDS", 0.1), ("FASTEST", 0.001), ("SLOWEST", 0.02)):
        monkeypatch.setattr(f"flowlab.lessons.base.player.{name}", seconds)
    explorer = Plays()
    yield explorer
    explorer.close()


def played(explorer, name, meanwhile=None, after=3):
    """Press the button of a slider on a running loop; do something after so many drawings; what was drawn."""
    player, start = explorer.players[name], len(explorer.picture.asked)
    asked = explorer.picture.asked

    async def listen():
        player.button.click()
        while not player._task.done():
            await asyncio.sleep(0)
            if meanwhile and len(asked) >= start + after:
                meanwhile()
                break
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(player._task, 5)

    asyncio.run(listen())
    return asked[start:]


def test_it_goes_through_the_places_between_to_the_end_and_begins_anew(explorer):
    button = explorer.players["layer"].button
    assert (button.tooltip, button.icon) == ("Play: layers done", "play")
    between = [row[0] for row in played(explorer, "layer")]
    assert between == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert explorer.controls["layer"].value == 2 and explorer.on_the_way == {}
    assert (button.tooltip, button.icon, explorer.view.glide) == ("Play: layers done", "play", 0)
    assert [row[0] for row in played(explorer, "layer")] == [0, *between], "at the end it begins anew"


def test_each_kind_of_slider_is_played_to_its_end(explorer):
    for name in ("snapshot", "heat", "kind"):
        played(explorer, name)
    values = explorer.values()
    assert (values["snapshot"], values["heat"], values["kind"]) == (400, 1.0, "most")
    heats = [row[2] for row in explorer.picture.asked]
    assert explorer.errors == [] and 0.55 in heats and 0.95 in heats


def test_a_slider_of_many_stops_is_played_in_few_pictures(explorer, monkeypatch):
    monkeypatch.setattr("flowlab.lessons.base.player.FASTEST", 0.01)
    assert len(played(explorer, "snapshot")) <= 12


def test_without_a_loop_it_plays_to_the_end(explorer):
    explorer.players["layer"].press()
    assert explorer.controls["layer"].value == 2


def other(explorer):
    explorer.controls["heat"].value = 0.9


def itself(explorer):
    explorer.controls["layer"].value = 0


def pressed(explorer):
    explorer.players["layer"].button.click()


def reset(explorer):
    explorer.reset_button.click()


def dragged(explorer):
    explorer.view.pointer = {"kind": "down", "x": 0.5, "y": 0.5, "count": 1}


def space(explorer):
    explorer.view.pointer = {"kind": "key", "step": 0, "which": "layer", "count": 1}


def comma(explorer):
    explorer.view.pointer = {"kind": "key", "step": -1, "which": "layer", "count": 1}


@pytest.mark.parametrize("act", (other, itself, pressed, reset, dragged, space, comma))
def test_whatever_else_happens_stops_it_at_a_stop(explorer, act):
    played(explorer, "layer", lambda: act(explorer), after=2)
    assert explorer.players["layer"].button.icon == "play" and explorer.on_the_way == {}
    assert explorer.view.glide == 0 and not explorer.view.partway
    place = {itself: 0, reset: 0, comma: 0}.get(act, 1)
    assert explorer.controls["layer"].value == place == explorer.picture.asked[-1][0]


def test_another_slider_that_is_played_takes_over(explorer):
    explorer.controls["heat"].value = 0.9

    async def both():
        explorer.players["layer"].button.click()
        await asyncio.sleep(0.03)
        explorer.players["heat"].button.click()
        assert explorer.players["layer"].button.icon == "play" and explorer.players["heat"].button.icon == "pause"
        await explorer.players["heat"]._task
        await explorer.players["layer"]._task

    asyncio.run(both())
    assert explorer.controls["layer"].value == 1 and explorer.controls["heat"].value == 1.0


def test_an_error_stops_it_and_is_shown(explorer):
    def breaks():
        explorer.picture.broken = True

    rows = played(explorer, "layer", breaks, after=2)
    assert len(explorer.errors) == 2 and len(rows) <= 4, "that of the drawing, and that of the stop it went on to"
    assert "no picture" in explorer.trouble.value and explorer.players["layer"].button.icon == "play"


def test_closed_it_plays_no_more(explorer):
    asked = explorer.picture.asked
    played(explorer, "layer", explorer.close, after=2)
    assert len(asked) <= 5 and explorer.errors == []


def test_keys_step_and_stay_within_the_ends(explorer):
    for step, place in ((1, 1), (1, 2), (1, 2), (-1, 1)):
        explorer.view.pointer = {"kind": "key", "step": step, "which": "", "count": place + 10 * step}
        assert explorer.controls["layer"].value == place
    explorer.view.pointer = {"kind": "key", "step": 1, "which": "kind", "count": 99}
    assert explorer.controls["kind"].value == "more"


def test_slow_motion_takes_longer(explorer):
    quick = explorer.players["layer"].pace
    explorer.slow.value = True
    assert explorer.players["layer"].pace == 4 * quick


@pytest.mark.parametrize("name", [n for n in explorers() if n in ("ScrubFlow", "CouplingLayers")])
def test_a_place_between_two_stops_is_between_their_pictures(name):
    explorer = explorers()[name]()
    (slider,) = [player.name for player in explorer.players.values() if player.parts > 1]
    numbers = "nats, if the flow ended here" if name == "ScrubFlow" else "mean distance from x to z"
    found = []
    for place in (0, 0.001, 0.999, 1):
        found.append(explorer.picture.update(**explorer.values() | {slider: place})[numbers])
    assert found[0] != found[3]
    assert abs(found[1] - found[0]) < 0.02 > abs(found[2] - found[3]), "it leaves one stop and comes to the next"
    explorer.close()
