"""Explorers of the book, with no kernel and no network: each picture of a tape is what matplotlib draws anew."""

import io
import itertools
import random

import lab
import numpy as np
import pytest
from PIL import Image

from flowlab.lessons import explorers
from flowlab.lessons.base.player import Player
from flowlab.publish import tape
from flowlab.publish.base import template

# What moves: the share of its ink that is drawn otherwise, since edges are smoothed in two ways. What stands still is
# mostly letters, which are outlines here and pixels there.
STRAYED, STILL = 0.3, 0.7
FULL = ("ThreePartitions", "MaskedNetwork")  # compared in many of their settings, and the others in a few
QUICK = {"BendTheGaussian": {"steps": 30}, "TurnAxes": {"steps": 30}}


def written(folder, explorer):
    """A page with the tape of an explorer, opened from a disk."""
    found = tape.record(explorer)
    (folder / "tapes").mkdir()
    (folder / "tapes" / f"{found.name}.js").write_text(found.script(found.name))
    (folder / "tape.js").write_text(tape.player())
    still = io.BytesIO()
    Image.new("RGB", found.size, "white").save(still, "PNG")
    (folder / "still.png").write_bytes(still.getvalue())
    picture = f'<img src="still.png" alt="a white picture" width="{found.size[0]}" height="{found.size[1]}">'
    figure = template("tape.html").render(tape=found, key=found.name, root="", picture=picture)
    style = f"<style>figure {{ margin: 0; width: {found.size[0]}px }} canvas {{ display: block; width: 100% }}</style>"
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{found.name}</title>{style}"
    (folder / "index.html").write_text(f'{head}<main>{figure}</main><script src="tape.js"></script>')
    return found


def opened(page, folder):
    page.goto((folder / "index.html").as_uri())
    page.locator("[data-ready]").wait_for()


def seen(page, setting):
    """The canvas in this setting, and only what stands still in it, as means of 3×3 pixels."""
    urls = page.evaluate(
        """async (setting) => {
            const { explorer } = document.querySelector("figure"), { canvas } = explorer;
            await explorer.go(setting);
            const whole = canvas.toDataURL(), now = explorer.now;
            explorer.paint({ scene: { steps: [], numbers: new Float32Array(0) }, images: [] });
            const still = canvas.toDataURL();
            explorer.paint(now);
            return [whole, still];
        }""",
        list(setting),
    )
    return [lab.blocks(lab.pixels_of(url.partition(",")[2]).astype(float)) for url in urls]


def drawn(explorer, found, setting):
    """The same by matplotlib."""
    explorer.set(**{control.name: control.values[i] for control, i in zip(found.controls, setting, strict=True)})
    pngs = (explorer.picture.png(), explorer.picture.png(moving=False))
    return [lab.blocks(np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float)) for png in pngs]


def strayed(canvas, matplotlib):
    """The share of the ink that is drawn otherwise: of what moves, and of what stands still."""
    (whole, ground), (still, behind) = canvas, matplotlib
    moving = np.abs((whole - ground) - (still - behind)).sum() / max(np.abs(still - behind).sum(), 1.0)
    return float(moving), float(np.abs(ground - behind).sum() / (255 - behind).sum())


def chosen(found, count):
    every = list(itertools.chain.from_iterable(tape.settings(found.controls, block) for block in found.blocks))
    return random.Random(0).sample(every, min(count, len(every)))


@pytest.mark.parametrize("name", list(explorers()))
def test_a_tape_plays_what_matplotlib_draws(page, tmp_path, monkeypatch, name):
    if name not in FULL:
        monkeypatch.setattr(tape, "THIN", (3,))
        monkeypatch.setattr(tape, "FRAMES", 60)
        monkeypatch.setattr(explorers()[name], "tape_blocks", ())
    explorer = explorers()[name](**QUICK.get(name, {}))
    found = written(tmp_path, explorer)
    opened(page, tmp_path)
    for setting in chosen(found, 30 if name in FULL else 4):
        far = strayed(seen(page, setting), drawn(explorer, found, setting))
        assert far[0] < STRAYED and far[1] < STILL, (setting, far)
    explorer.close()


def test_another_picture_is_noticed(page, tmp_path, monkeypatch):
    """Planted: the picture of the setting beside."""
    monkeypatch.setattr(tape, "FRAMES", 60)
    explorer = explorers()["ThreePartitions"]()
    found = written(tmp_path, explorer)
    opened(page, tmp_path)
    shown = seen(page, (0, 5))
    assert strayed(shown, drawn(explorer, found, (0, 5)))[0] < STRAYED
    assert strayed(shown, drawn(explorer, found, (1, 5)))[0] > STRAYED


def test_controls_move_it_by_keyboard_and_reset(page, tmp_path):
    explorer = explorers()["ThreePartitions"]()
    found = written(tmp_path, explorer)
    opened(page, tmp_path)
    canvas, slider, choice = page.locator("canvas"), page.get_by_role("slider"), page.get_by_role("combobox")
    first = canvas.get_attribute("aria-label")
    assert first == found.alt and page.locator(".readout b").count() > 0
    before = page.locator(".readout").inner_text()
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("([c, old]) => c.dataset.frames !== old", arg=[canvas.element_handle(), "1"])
    assert slider.get_attribute("aria-valuetext") == "1" == page.locator(".value").inner_text()
    assert page.locator(".readout").inner_text() != before
    choice.select_option(index=2)
    second = canvas.get_attribute("aria-label")
    assert second != first
    page.wait_for_function(
        "([s, said]) => s.textContent === said", arg=[page.get_by_role("status").element_handle(), second]
    )
    page.get_by_role("button", name="Reset").click()
    assert canvas.get_attribute("aria-label") == first and slider.input_value() == "0"
    assert choice.evaluate("c => c.selectedIndex") == 0


def test_a_control_without_the_others_puts_them_back(page, tmp_path, monkeypatch):
    monkeypatch.setattr(tape, "FRAMES", 20)
    written(tmp_path, explorers()["ThreePartitions"]())
    opened(page, tmp_path)
    slider, choice = page.get_by_role("slider"), page.get_by_role("combobox")
    choice.select_option(index=2)
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert "put others back" in page.locator("figcaption").inner_text()
    assert [slider.input_value(), choice.evaluate("c => c.selectedIndex")] == ["1", 0]


def test_play_goes_to_the_end_and_pauses(page, tmp_path):
    explorer = explorers()["ThreePartitions"]()
    explorer.players = {"labels": Player(explorer, "labels", explorer.controls["labels"])}
    written(tmp_path, explorer)
    opened(page, tmp_path)
    play, slider = page.get_by_role("button", name="Play"), page.get_by_role("slider")
    play.click()
    page.wait_for_function("s => Number(s.value) >= 2", arg=slider.element_handle())
    play.click()
    page.wait_for_timeout(50)
    stands = slider.input_value()
    page.wait_for_timeout(700)
    assert (
        slider.input_value() == stands != slider.get_attribute("max") and play.get_attribute("aria-pressed") == "false"
    )
    play.click()
    page.wait_for_function("s => s.value === s.max", arg=slider.element_handle())
    page.wait_for_function("b => b.getAttribute('aria-pressed') === 'false'", arg=play.element_handle())
