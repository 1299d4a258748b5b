"""What explorers that train share, on the smallest of them: what is drawn when, the scrubber, Reset, the numbers."""

import ipywidgets as widgets
import pytest

from flowlab.lessons.base.explorer import Explorer, choice, in_words
from flowlab.lessons.base.picture import Picture
from flowlab.lessons.base.training_explorer import TrainingExplorer


class Bars(Picture):
    """A picture that counts how often it is drawn."""

    def __init__(self):
        super().__init__(3.0, 2.0)
        self.snapshots, self.drawn = [], 0
        self.moves(*self.figure.subplots().plot([0, 1], [0, 1]))

    def update(self, snapshot=0, height=1, kind="a"):
        self.drawn += 1
        return {"height": float(height)}


class Trains(TrainingExplorer):
    """Ten steps, with a moment after the first and the sixth."""

    def __init__(self):
        controls = {"height": widgets.IntSlider(1, 0, 5), "kind": choice("kind", ("a", "b"))}
        super().__init__(Bars(), controls, start="Train")

    def training(self):
        self.picture.snapshots = []
        for step in range(1, 11):
            if step in (1, 6):
                self.picture.snapshots.append(step)
            yield step, 10


@pytest.fixture
def explorer(monkeypatch):
    monkeypatch.setattr("flowlab.lessons.base.explorer.SLICE", 0.0)  # a look at the buttons after each step
    explorer = Trains()
    yield explorer
    explorer.close()


def test_training_draws_only_what_is_new(explorer):
    before = explorer.picture.drawn
    explorer.start_button.click()
    assert explorer.picture.drawn - before == 2 and explorer.scrub.value == explorer.scrub.max == 1
    assert explorer.progress.value == 10 and explorer.errors == []
    explorer.start_button.click()
    assert explorer.scrub.value == 1, "a second training is followed from its first moment"


def test_the_scrubber_stays_where_a_hand_has_put_it(explorer):
    explorer.picture.snapshots = [1, 2]
    explorer.show_newest()
    explorer.set(snapshot=0)
    explorer.picture.snapshots.append(3)
    explorer.show_newest()
    assert (explorer.scrub.value, explorer.scrub.max) == (0, 2)
    explorer.set(snapshot=2)
    explorer.picture.snapshots.append(4)
    explorer.show_newest()
    assert (explorer.scrub.value, explorer.scrub.max) == (3, 3)


def test_reset_brings_the_controls_back_and_draws_once(explorer):
    explorer.set(height=4, kind="b")
    before = explorer.picture.drawn
    explorer.reset_button.click()
    assert explorer.values() == {"height": 1, "kind": "a"} and explorer.picture.drawn == before + 1
    explorer.set(height=4)
    explorer.controls["kind"].options = ("b", "c")
    explorer.reset_button.click()
    assert explorer.values() == {"height": 1, "kind": "b"}, "a list whose first choice is gone stays"
    assert explorer.errors == [] and isinstance(explorer, Explorer)


@pytest.mark.parametrize(
    "value, text",
    (
        (0.1234, "0.123"),
        (-0.0001, "0.000"),
        (-1.5, "−1.500"),
        (123.456, "123.46"),
        (2296.726, "2296.7"),
        ("5 of 5",) * 2,
    ),
)
def test_numbers_beside_a_picture_are_as_long_as_they_are_good(value, text):
    assert in_words(value) == text
