"""Every explorer, without a browser: each control at its minimum, default and maximum draws, and makes a difference."""

import asyncio
import gc
import inspect
import itertools
import json
import subprocess
import sys
import threading
import time
import types
import weakref

import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances

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
    scenes = (view.background, view.scene)
    return tuple(part for s in scenes for part in (json.dumps(s["steps"]), s["numbers"], *s["images"]))


@pytest.fixture(scope="module", params=list(explorers()))
def made(request):
    """One explorer in a list, so that the last test can take it away; and the ids of all widgets that it made."""
    before = set(_instances)
    return [explorers()[request.param](), set(_instances) - before]


@pytest.fixture
def explorer(made):
    return made[0]


def test_is_made_without_trouble(explorer):
    assert explorer.errors == []
    assert explorer.view.background["steps"] and min(explorer.view.size) > 100
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


def test_closed_it_holds_no_widget_and_is_forgotten(made):
    """Comes last of those that share an explorer: it closes it, here and in the browser, and nothing keeps it alive."""
    gone = [weakref.ref(made[0]), weakref.ref(made[0].picture)]
    control, drawn = next(iter(made[0].controls.values())), []
    assert len(made[1]) > 10 and made[1] <= set(_instances)
    made[0].picture.update = lambda **controls: drawn.append(controls)
    made[0].close()
    made[0].close()  # twice does no harm
    assert not made[1] & set(_instances)
    for value in settings(control):
        control.value = value
    made[0].refresh()
    made[0].set(anything=1)
    assert drawn == [] and made[0].errors == []
    del made[:], control
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


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


# Explorers that run something: each has a start button, and some choices that its run goes by.
RUNNING = [name for name, cls in explorers().items() if {"steps", "epochs"} & set(inspect.signature(cls).parameters)]


def small(name, few):
    """An explorer whose run takes few steps, or many where few is a large number."""
    cls = explorers()[name]
    [length] = {"steps", "epochs"} & set(inspect.signature(cls).parameters)
    return cls(**{length: few})


def choices(explorer):
    """What a run can be started with: all options of its lists with each other's, and the ends of its sliders.

    These are the presets of an explorer that has some, and else the lists among its controls.
    """
    beside = getattr(explorer, "presets", ()) or explorer.controls.values()
    lists = [widget for widget in beside if hasattr(widget, "options")]
    for values in itertools.product(*map(settings, lists)):
        yield list(zip(lists, values, strict=True))
    for widget in getattr(explorer, "presets", ()):
        if hasattr(widget, "min"):
            yield from ([(widget, value)] for value in settings(widget))


ALONE = ("BendTheGaussian",)  # its button has no choice beside it


def test_explorers_that_run_are_known():
    assert {"BendTheGaussian", "MixtureTraining", "ClickLabels", "FillHidden", "TurnAxes"} <= set(RUNNING)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNNING)
def test_each_start_button_works_with_every_choice_beside_it(name):
    explorer = small(name, 5 if name == "FillHidden" else 1)
    tried = 0
    for choice in choices(explorer):
        before = [(widget, widget.value) for widget, _ in choice]
        for widget, value in choice:
            widget.value = value
        explorer.start_button.click()
        said = ", ".join(f"{widget.description} = {value!r}" for widget, value in choice)
        assert explorer.errors == [], said
        assert not explorer.start_button.disabled and explorer.stop_button.disabled
        for widget, value in before:
            widget.value = value
        tried += 1
    assert tried > 1 or name in ALONE


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNNING)
def test_a_closed_explorer_stops_what_it_runs_and_is_forgotten(name):
    async def press(explorer):
        explorer.start_button.click()
        while not explorer.progress.value:
            await asyncio.sleep(0.05)
        task = explorer._task
        assert not task.done() and explorer.errors == []
        explorer.close()
        await asyncio.wait_for(task, 5)
        assert explorer.errors == []
        return weakref.ref(explorer)

    gone = asyncio.run(press(small(name, 2000 if name == "FillHidden" else 100_000)))
    gc.collect()
    assert gone() is None


def test_a_run_is_held_while_it_is_under_way():
    """The event loop holds a task weakly: a garbage collection would end the run without a word."""
    explorer = small("TurnAxes", 100_000)

    async def press():
        explorer.start_button.click()
        gc.collect()
        await asyncio.sleep(0.3)
        assert explorer._task in asyncio.all_tasks() and explorer._task in gc.get_referents(explorer.__dict__)
        explorer.stop_button.click()
        await asyncio.wait_for(explorer._task, 5)

    asyncio.run(press())
    assert explorer.errors == [] and not explorer.start_button.disabled


def test_running_a_cell_again_closes_what_it_made_before(monkeypatch):
    shell = types.SimpleNamespace(parent_header={})

    def run(cell, number):
        shell.parent_header = {"metadata": {"cellId": cell}, "header": {"msg_id": f"{cell} {number}"}}
        return [explorers()["ThreeScales"](), explorers()["ThreeScales"]()]

    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    first, other = run("a", 1), run("b", 1)
    assert not [explorer for explorer in (*first, *other) if explorer.closed], "two of one run live side by side"
    count = len(_instances)
    for number in range(2, 5):
        again = run("a", number)
        assert len(_instances) == count
    assert all(explorer.closed for explorer in first)
    assert not [explorer for explorer in (*again, *other) if explorer.closed]
    for explorer in (*again, *other):
        explorer.close()


EXPLORE = """
import inspect, sys, torch
if "before" in sys.argv:
    torch.set_default_dtype(torch.float64)
from flowlab.lessons import explorers
found = explorers()
torch.set_default_dtype(torch.float64)
for name, cls in found.items():
    explorer = cls(**{key: 5 for key in ("steps", "epochs") if key in inspect.signature(cls).parameters})
    if hasattr(explorer, "start_button") and "before" not in sys.argv:
        explorer.start_button.click()
    print(name, [repr(error) for error in explorer.errors])
    explorer.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ("after", "before"))
def test_explorers_work_and_train_where_float64_is_the_default(when):
    """Set before flowlab is imported, or after: then what is made at import is still of float32."""
    done = subprocess.run([sys.executable, "-c", EXPLORE, when], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    wrong = [line for line in done.stdout.splitlines() if not line.endswith(" []")]
    assert wrong == [] and len(done.stdout.splitlines()) == len(explorers())
