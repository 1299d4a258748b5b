"""Every explorer, without a browser: each control at its minimum, default and maximum draws, and makes a difference."""

import json
import threading
import time

import numpy as np
import pytest

from flowlab.lessons import explorers

pytestmark = pytest.mark.slow


def settings(control):
    """The values to try on a control: both ends of a range, all options, both states of a box; or none."""
    if hasattr(control, "options"):
        options = control.options
        return [o[1] if isinstance(o, tuple) else o for o in options]
    if hasattr(control, "min"):
        return [control.min, control.value, control.max]
    return [False, True] if isinstance(control.value, bool) else []


def drawn(explorer):
    """What the canvas is told to draw, whole: equal if and only if the picture is."""
    view = explorer.view
    return view.background, json.dumps(view.scene["steps"]), view.scene["numbers"], *view.scene["images"]


@pytest.fixture(scope="module", params=list(explorers()))
def explorer(request):
    return explorers()[request.param]()


def test_is_made_without_trouble(explorer):
    assert explorer.errors == []
    assert explorer.view.background.startswith(b"\x89PNG")
    assert explorer.numbers and all(np.isfinite(v) for v in explorer.numbers.values() if isinstance(v, float))


def test_each_list_shows_what_is_chosen(explorer):
    def below(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from below(child)

    lists = [widget for widget in below(explorer) if hasattr(widget, "options")]
    assert all(widget.index is not None for widget in lists), [widget.description for widget in lists]


def test_the_scene_is_whole(explorer):
    """As many numbers and images as its steps ask for, all finite, so that the canvas never reads past their end."""
    scene = explorer.view.scene
    steps, numbers = scene["steps"], np.frombuffer(scene["numbers"], np.float32)
    assert sum(3 * step.get("count", 0) + 2 * step.get("places", 0) for step in steps) == len(numbers)
    assert steps and np.isfinite(numbers).all()
    assert sum(step["kind"] == "image" for step in steps) == len(scene["images"])
    assert {step["kind"] for step in steps} <= {"path", "markers", "image"}


def test_each_control_draws_at_both_ends_and_makes_a_difference(explorer):
    for name, control in explorer.controls.items():
        default, pictures, scenes = control.value, set(), set()
        for value in settings(control):
            explorer.set(**{name: value})
            assert explorer.errors == [], f"{name} = {value!r}"
            pictures.add(explorer.picture.png())
            scenes.add(drawn(explorer))
        explorer.set(**{name: default})
        assert len(pictures) > 1, f"{name} changes nothing in the still picture"
        assert len(scenes) > 1, f"{name} changes nothing on the canvas"


def test_same_controls_give_the_same_picture(explorer):
    before = drawn(explorer)
    name, control = next((n, c) for n, c in explorer.controls.items() if len(settings(c)) > 1)
    default = control.value
    other = next(v for v in settings(control) if v != default)
    explorer.set(**{name: other})
    explorer.set(**{name: default})
    assert drawn(explorer) == before


def test_has_a_still_picture_and_says_in_words_what_it_shows(explorer):
    bundle = explorer._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["image/png"] == explorer.picture.png()
    assert type(explorer).__name__ in data["text/plain"]
    assert len(explorer.view.alt.split()) >= 5


def test_an_error_in_a_callback_is_shown_and_kept(explorer, monkeypatch):
    monkeypatch.setattr(explorer.picture, "update", lambda **controls: 1 / 0)
    explorer.refresh()
    assert isinstance(explorer.errors.pop(), ZeroDivisionError)
    assert "division by zero" in explorer.trouble.value
    monkeypatch.undo()
    explorer.refresh()
    assert explorer.errors == [] and explorer.trouble.value == ""


def test_is_not_grossly_slow(explorer):
    """The targets are measured by tests/benchmarks/explorers.py; this only notices a tenfold slip."""
    name, control = next((n, c) for n, c in explorer.controls.items() if hasattr(c, "min"))
    times, default = [], control.value
    for value in np.linspace(control.min, control.max, 7):
        start = time.process_time()  # not what others on the machine take
        explorer.set(**{name: type(default)(value)})
        times.append(time.process_time() - start)
    explorer.set(**{name: default})
    assert np.median(times) < 0.5


def test_an_error_within_a_long_run_stays_to_be_read():
    explorer = explorers()["BendTheGaussian"]()
    explorer.runner("Train", lambda: None)

    def steps():
        yield 1
        raise ArithmeticError("the loss is NaN")

    finished = []
    explorer.run(steps(), lambda item: None, lambda: finished.append(True))
    assert isinstance(explorer.errors.pop(), ArithmeticError)
    assert "the loss is NaN" in explorer.trouble.value and finished == [True]


def test_an_error_of_an_inner_callback_is_not_cleared_by_the_outer_one(monkeypatch):
    explorer = explorers()["BendTheGaussian"]()
    monkeypatch.setattr(explorer.picture, "update", lambda **controls: 1 / 0)
    explorer.guard(explorer.refresh)
    assert len(explorer.errors) == 1 and "division by zero" in explorer.trouble.value


def test_a_cell_and_a_slider_do_not_draw_at_once(monkeypatch):
    """Lab runs cells and the callbacks of widgets in two threads; a figure is good for one of them at a time."""
    explorer = explorers()["BendTheGaussian"]()
    update, started, ended = explorer.picture.update, threading.Event(), threading.Event()

    def slowly(**controls):
        started.set()
        time.sleep(0.3)
        numbers = update(**controls)
        ended.set()
        return numbers

    monkeypatch.setattr(explorer.picture, "update", slowly)
    slider = threading.Thread(target=explorer.refresh)
    slider.start()
    assert started.wait(5)
    explorer._repr_mimebundle_()
    assert ended.is_set()
    slider.join()
