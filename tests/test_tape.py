"""Tapes: which settings of an explorer are kept, what is written down of them, and when they are recorded anew."""

import gzip
import json

import ipywidgets as widgets
import numpy as np
import pytest

from flowlab.lessons.base.explorer import Explorer, choice, slider
from flowlab.lessons.base.picture import Picture
from flowlab.publish import tape


class Waves(Picture):
    """A wave that fills the picture."""

    def __init__(self):
        super().__init__(3, 2)
        self.axes = self.figure.subplots()
        self.x = np.linspace(0, 1, 400)
        [self.line] = self.axes.plot(self.x, self.x)
        self.axes.set(ylim=(-1, 1))
        self.moves(self.line)

    def update(self, kind, height, places, grows=False):
        if places == 13:
            raise ArithmeticError("no thirteen")
        self.line.set_ydata(height * getattr(np, kind)(places * self.x))
        return {"height": float(height)}


class Waved(Explorer):
    def __init__(self, places=8):
        controls = {
            "kind": choice("kind", ["sin", "cos"]),
            "height": slider("height", 0.3, 0.0, 1.0),
            "places": widgets.IntSlider(places, 1, 12, description="places"),
            "grows": widgets.Checkbox(False, description="grows"),
        }
        super().__init__(Waves(), controls, caption="See & hear.")


def counts(found):
    return [len(control.values) for control in found.controls]


def test_all_combinations_are_kept_where_there_is_room(monkeypatch):
    monkeypatch.setattr(tape, "FRAMES", 500)
    found = tape.record(Waved())
    assert counts(found) == [2, 9, 9, 2] and found.blocks == [[0, 1, 2, 3]] and found.count == 324
    assert found.is_free and found.note == "" and found.caption == "<em>See &amp; hear.</em>"
    assert found.controls[1].shown[:2] == ["0.00", "0.10"] and found.controls[1].values[found.controls[1].start] == 0.3
    assert found.alt == "Waves: height 0.3"


@pytest.mark.parametrize(
    "frames, expected, blocks",
    [
        (140, [2, 21, 12, 2], [[0, 1, 3], [0, 2, 3]]),
        (100, [2, 13, 12, 2], [[0, 1, 3], [0, 2, 3]]),
        (40, [2, 21, 12, 2], "alone"),
    ],
)
def test_with_less_room_sliders_have_fewer_values_and_then_move_apart(monkeypatch, frames, expected, blocks):
    monkeypatch.setattr(tape, "FRAMES", frames)
    found = tape.record(Waved())
    assert counts(found) == expected and found.blocks == ([[0], [1], [2], [3]] if blocks == "alone" else blocks)
    places = found.controls[2]
    assert places.values[places.start] == 8 and {1, 12} <= set(places.values), "both ends, and where it begins"
    assert found.count <= frames and bool(found.note) is not found.is_free


def test_bytes_are_counted_too():
    whole = tape.record(Waved())
    small = tape.record(Waved(), len(whole.script("k")) // 3)
    assert len(small.script("k")) < len(whole.script("k")) // 3 and small.count < whole.count
    with pytest.raises(tape.TooLarge, match=r"Waved .* `tape`"):
        tape.record(Waved(), 2000)


def test_an_explorer_says_what_is_kept(monkeypatch):
    monkeypatch.setattr(Waved, "tape", {"height": [0, 0.52, 1], "kind": ["cos"]})
    monkeypatch.setattr(Waved, "tape_blocks", (("places", "height"), ("grows",)))
    found = tape.record(Waved())
    assert found.controls[1].values == [0, 0.3, 0.5, 1] and found.controls[0].values == ["sin", "cos"]
    assert found.blocks == [[1, 2], [3]] and found.count == 4 * 12 + 2
    monkeypatch.setattr(tape, "FRAMES", 30)
    assert tape.record(Waved()).blocks == [[0], [1], [2], [3]], "there is no room for what it asks for"


def test_what_an_explorer_cannot_draw_is_not_passed_over(monkeypatch):
    with pytest.raises(ArithmeticError, match="no thirteen"):
        explorer = Waved()
        explorer.controls["places"].max = 13
        tape.record(explorer)


def test_coordinates_stay_within_a_sixteenth_of_a_pixel():
    explorer = Waved()
    step, [image] = explorer.view.scene["steps"][0], [np.frombuffer(explorer.view.scene["numbers"], np.float32)]
    corners = image.reshape(-1, 3)
    piece = tape._whole(image, step["count"])
    size, count = piece[0], 2 * step["count"]
    planes = np.frombuffer(piece[1 : 1 + size * count], np.uint8).reshape(size, count).astype(np.uint32)
    folded = sum(plane << 8 * i for i, plane in enumerate(planes)).astype(np.int64)
    x, y = ((folded >> 1) ^ -(folded & 1)).reshape(2, -1).cumsum(1) / tape.PARTS
    drawn = corners[:, 2] < 79
    assert drawn.sum() > 50 and np.abs(x - corners[:, 0])[drawn].max() <= 1 / 16
    assert np.abs(y - corners[:, 1])[drawn].max() <= 1 / 16
    assert piece[1 + size * count :] == bytes(corners[:, 2].astype(np.uint8))
    assert len(piece) < image.nbytes / 2


def test_equal_pieces_are_stored_once(monkeypatch):
    monkeypatch.setattr(Waved, "tape", {"height": [0.3], "places": [8], "kind": ["sin"]})
    found = tape.record(Waved())
    raw = gzip.decompress(found.packed)
    head = json.loads(raw[4 : 4 + int.from_bytes(raw[:4], "little")])
    assert found.count == 2 and head["blocks"] == [{"free": [0, 1, 2, 3], "frames": [0, 0]}], "the box moves nothing"
    assert len(head["frames"]) == 1 and len(head["scenes"]) == 2, "what stands still, and what moves"


def test_a_tape_is_recorded_once_and_for_each_kind_of_its_explorer(tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path)
    monkeypatch.setattr(tape, "FRAMES", 40)
    made = []
    monkeypatch.setattr(
        tape, "record", lambda explorer, room, record=tape.record: (made.append(1), record(explorer))[1]
    )
    first = tape.recorded(Waved)
    assert tape.recorded(Waved) == first and len(made) == 1
    assert tape.recorded(Waved, (3,)).controls[2].values[tape.recorded(Waved, (3,)).controls[2].start] == 3
    assert len(made) == 2
    monkeypatch.setattr(tape, "_package", lambda: "another state of the package")
    tape.recorded(Waved)
    assert len(made) == 3
    assert json.loads(json.dumps(first.script("a b")[len("flowlabTape(") :].split(",")[0])) == '"a b"'
