"""What explorers share: controls, a picture, numbers beside it, errors that show, a way to run, to stop, to close."""

from __future__ import annotations

import asyncio
import contextlib
import html
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import IPython
import ipywidgets as widgets
import traitlets

from flowlab.lessons.base.picture import Picture
from flowlab.lessons.base.player import Player
from flowlab.lessons.base.prediction import Prediction

HERE = Path(__file__).parent
SLICE = 0.08  # seconds of a long run between two looks at the buttons
_made: dict[str, tuple[str, weakref.WeakSet[Explorer]]] = {}  # by cell: which run of it, and what that run has made


class PictureView(anywidget.AnyWidget):
    """A canvas with a line of numbers below, that says what it shows, and that can be pressed and dragged.

    It draws ``scene`` over ``background``, both as ``picture.Recorder`` has written them down, as large as there is
    room for. The numbers are part of it and no widget of their own, since each message to a browser costs as much as
    many points.

    ``pointer`` is ``{"kind": "down" | "move" | "up", "x", "y", "count"}``, with x and y in [0, 1] from the top left; or
    ``{"kind": "key", "step", "which", "count"}``, a key that plays, at ``step`` 0, or steps.
    """

    _esm = "".join((HERE / name).read_text(encoding="utf-8") for name in ("scene.js", "canvas.js"))
    _css = (HERE / "explorer.css").read_text(encoding="utf-8")
    size: Any = traitlets.List([1, 1]).tag(sync=True)  # width and height, in the units of the scenes
    background = traitlets.Dict({}).tag(sync=True)
    scene = traitlets.Dict({}).tag(sync=True)
    readout = traitlets.Unicode("").tag(sync=True)  # in HTML
    alt = traitlets.Unicode("").tag(sync=True)
    regions: Any = traitlets.List([]).tag(sync=True)  # where the axes are: (left, top, right, bottom) in [0, 1]
    draggable = traitlets.Bool(False).tag(sync=True)
    plays = traitlets.Bool(False).tag(sync=True)  # whether there is something to play
    glide = traitlets.Float(0.0).tag(sync=True)  # milliseconds that it takes from the scene before to this one
    partway = traitlets.Bool(False).tag(sync=True)  # whether this scene lies between two stops of a slider
    pointer = traitlets.Dict({})

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.on_msg(lambda view, event, buffers: self.set_trait("pointer", event))


class Explorer(widgets.VBox):
    """Controls above a picture: each change of a control updates the picture, in one call, with nothing in between.

    Args:
        picture: draws; its ``update`` takes the values of the controls by name.
        controls: ipywidgets by name, each with a ``value`` and a ``description``.
        caption: the line that says what to see.
        rows: names of controls, a list for each row; all in rows of three when left out.
        draggable: whether the picture takes the pointer; override ``on_pointer`` then.
        plays: names of sliders that are a time or a depth, and get a button that plays them; and how many pictures are
            drawn from one stop to the next: more than 1 where ``update`` takes the values in between.

    An exception in a callback is shown under the picture, and kept in ``errors``, where the tests look. ``close`` frees
    all of it, and is called when the cell that has made the explorer runs again.

    The book plays a recording of the explorer, its *tape*, which has no room for every setting. A subclass may say what
    is kept: ``tape``, the values of some controls, as in ``tape = {"sure": [0.5, 0.7, 0.9]}``; ``tape_blocks``, tuples
    of controls that are combined with each other while the others stand where they began; ``tape_trains``, whether
    ``start_button`` is pressed before the recording. See ``flowlab/publish/tape.py`` for what is kept otherwise.
    """

    closed = True  # until it is made
    tape: ClassVar[Mapping[str, Sequence[Any]]] = {}
    tape_blocks: ClassVar[tuple[tuple[str, ...], ...]] = ()
    tape_trains: ClassVar[bool] = False
    picture: Any  # the explorer's own kind of Picture; None once it is closed

    def __init__(
        self,
        picture: Picture,
        controls: dict[str, widgets.Widget],
        *,
        caption: str = "",
        rows: list[list[str]] | None = None,
        draggable: bool = False,
        plays: Mapping[str, int] | None = None,
    ) -> None:
        self.picture, self.controls = picture, controls
        self.start_values = {name: control.value for name, control in controls.items()}
        self.numbers: dict[str, float | str] = {}
        self.errors: list[BaseException] = []
        self.stop: Callable[[], None] = lambda: None  # stops the run that is under way
        self._task: asyncio.Task | None = None
        self.view = PictureView(size=list(picture.pixel_size), draggable=draggable)
        self.trouble = widgets.HTML()
        self.caption = widgets.HTML(f"<em>{html.escape(caption)}</em>" if caption else "")
        self.players = {name: Player(self, name, controls[name], parts) for name, parts in (plays or {}).items()}
        self.player: Player | None = next(iter(self.players.values()), None)  # the one that the picture's keys move
        self.on_the_way: dict[str, float] = {}  # where a slider is that is played, between two of its stops
        self.glide = 0.0  # seconds that the browser takes to the next picture
        self.slow = widgets.Checkbox(False, description="slow motion", indent=False)
        self.slow.add_class("flowlab-preset")
        self._held = False
        self._drawing = threading.RLock()  # Lab runs the callbacks of widgets beside the cells, in another thread
        for control in controls.values():
            if hasattr(control, "style") and control.style.has_trait("description_width"):
                control.style.description_width = "initial"
            control.observe(self._changed, names="value")
        self.view.observe(self._pointed, names="pointer")
        names = list(controls)
        rows = rows or [names[i : i + 3] for i in range(0, len(names), 3)]
        wrap = widgets.Layout(flex_flow="row wrap")
        boxes = [widgets.HBox([self.beside_play(name) for name in row], layout=wrap) for row in rows]
        self.reset_button = widgets.Button(description="Reset", tooltip="Put the controls back to where they began")
        self.reset_button.on_click(lambda _: self.guard(self.reset))
        boxes[-1].children += (*([self.slow] if self.players else []), self.reset_button)
        self.view.plays = bool(self.players)
        super().__init__([*boxes, self.view, self.caption, self.trouble])
        self.add_class("flowlab-explorer").add_class(type(self).__name__)
        self.closed = False
        _close_what_this_cell_made_before(self)
        self.refresh()

    def values(self) -> dict[str, Any]:
        """What the controls say now; of a slider that is played, a value between two of its stops."""
        return {name: control.value for name, control in self.controls.items()} | self.on_the_way

    def beside_play(self, name: str) -> widgets.Widget:
        """A control as it is placed in its row: with its button before it where it can be played."""
        if name not in self.players:
            return self.controls[name]
        return widgets.HBox([self.players[name].button, self.controls[name]]).add_class("flowlab-playable")

    def pause(self) -> None:
        """Stop the slider that is played, if one is."""
        for player in self.players.values():
            player.pause()

    def close(self) -> None:
        """Stop the run under way, and free what the explorer holds: its widgets, here and in the browser, its picture.

        Nothing that is closed draws or trains any more.
        """
        if self.closed:
            return
        self.stop()
        with self._drawing:
            self.pause()
        with self._drawing:  # what is being drawn, or trained, in another thread comes to its end first
            self.closed = True
            for widget in _held_by(self):
                widget.unobserve_all()
                widgets.Widget.close(widget)
            self.picture, self.controls = None, {}

    def set(self, **values: Any) -> None:
        """Set several controls and draw once."""
        if self.closed:
            return
        self.pause()
        with self.hold():
            for name, value in values.items():
                self.controls[name].value = value
        self.refresh()

    def reset(self) -> None:
        """Put the controls back to where they began, as far as they can still be there, and draw once."""
        self.set(**{name: value for name, value in self.start_values.items() if _can_be(self.controls[name], value)})

    def remember(self, prediction: Prediction) -> Explorer:
        """Show a student's prediction in the picture, as it is now and as it will be; gives the explorer back."""

        def mark() -> None:
            if not self.closed:
                self.picture.mark_prediction(None if prediction.value is None else float(prediction.value))
                self.refresh()

        prediction.listeners.append(mark)
        mark()
        return self

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Draw nothing while controls are changed in the block."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

    def refresh(self) -> None:
        """Draw what the controls say."""
        self.guard(self._draw)

    def on_pointer(self, kind: str, axes: Any, x: float, y: float) -> None:
        """Called with the axes under the pointer and the place in its data; set controls here."""

    def guard(self, action: Callable[..., Any], *args: Any) -> None:
        """Run a callback; show what went wrong instead of losing it. A closed explorer runs none."""
        before = len(self.errors)
        try:
            with self._drawing:
                if self.closed:
                    return
                action(*args)
            if len(self.errors) == before:  # a callback within this one may have failed, and has said so
                self.trouble.value = ""
        except Exception as error:
            self.errors.append(error)
            where = html.escape(traceback.format_exc(limit=-2))
            self.trouble.value = f'<div role="alert"><b>{html.escape(str(error))}</b><pre>{where}</pre></div>'

    def runner(
        self, description: str, start: Callable[[], None], steps: int = 1, *beside: widgets.Widget
    ) -> widgets.HBox:
        """A row to place: a button that starts a ``run``, one that stops it, others, and a progress bar."""
        self.start_button = widgets.Button(description=description, button_style="primary")
        self.stop_button = widgets.Button(description="Stop", disabled=True)
        self.progress = widgets.IntProgress(0, 0, steps)
        self.start_button.on_click(lambda _: self.guard(start))
        self.stop_button.on_click(lambda _: self.stop())
        wrap = widgets.Layout(flex_flow="row wrap")
        self.runner_row = widgets.HBox([self.start_button, self.stop_button, *beside, self.progress], layout=wrap)
        return self.runner_row

    def insert(self, *rows: widgets.Widget) -> None:
        """Put widgets right above the picture."""
        view = self.children.index(self.view)
        self.children = (*self.children[:view], *rows, *self.children[view:])

    def scrubber(self) -> widgets.IntSlider:
        """A slider for the moments of a training to come, to be named among the controls once there are some."""
        scrub = widgets.IntSlider(0, 0, 0, description="scrub through training", readout=False)
        scrub.style.description_width = "initial"
        scrub.observe(self._changed, names="value")
        return scrub

    def place_scrubber(self, name: str, scrub: widgets.IntSlider) -> None:
        """Name a scrubber among the controls, in the row of the runner, with a button that plays it."""
        self.controls[name] = scrub
        self.players[name] = Player(self, name, scrub)
        slow = [] if self.view.plays else [self.slow]
        self.runner_row.children = (*self.runner_row.children, self.beside_play(name), *slow)
        self.player, self.view.plays = self.players[name], True

    def show_last(self, name: str, count: int) -> None:
        """Give a slider ``count`` places, put it at the last, and draw once."""
        with self.hold():
            self.controls[name].max = count - 1
            self.controls[name].value = count - 1
        self.refresh()

    def run(
        self,
        steps: Generator[Any, None, None],
        report: Callable[[Any], None],
        finished: Callable[[], None] = lambda: None,
    ) -> None:
        """Draw from a long-running iterator in slices, so that buttons stay alive; ``stop`` ends it.

        In a kernel this is a task on its event loop; where no loop runs (a plain script, a test) it runs to the end.
        Needs a ``runner``, whose buttons say whether it is under way.
        """
        self.pause()
        stopped = threading.Event()
        self.start_button.disabled, self.stop_button.disabled = True, False

        def one_slice() -> bool:
            """Work for a moment; say whether there is more."""
            until, item = time.perf_counter() + SLICE, None
            for item in steps:
                if time.perf_counter() > until:
                    report(item)
                    return not stopped.is_set()
            if item is not None:
                report(item)
            return False

        def end() -> None:
            self.start_button.disabled, self.stop_button.disabled = False, True
            finished()

        async def in_slices() -> None:
            more, before = True, len(self.errors)

            def advance() -> None:
                nonlocal more
                more = False  # stays so if the slice raises
                more = one_slice()

            while more and not stopped.is_set():
                self.guard(advance)
                await asyncio.sleep(0.01)
            steps.close()
            if self.closed:
                return
            if len(self.errors) == before:
                self.guard(end)
            else:
                end()  # without clearing away what went wrong

        self.stop = stopped.set
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(in_slices())
        else:
            self._task = loop.create_task(in_slices())  # the loop itself holds no more than a weak reference

    def _draw(self) -> None:
        self.numbers = self.picture.update(**self.values())
        scene = self.picture.scene()
        shown = (f"<span>{html.escape(k)} <b>{html.escape(in_words(v))}</b></span>" for k, v in self.numbers.items())
        with self.view.hold_sync():  # one message
            self.view.glide, self.view.partway = 1000 * self.glide, bool(self.on_the_way)
            self.view.background = self.picture.background()
            self.view.scene = scene
            self.view.readout = "".join(shown)
            self.view.alt = self.picture.describe(self.numbers)
            if not self.view.regions:
                self.view.regions = self.picture.regions()

    def _changed(self, change: Any) -> None:
        if not self._held:
            self.pause()
            self.refresh()

    def _pointed(self, change: Any) -> None:
        event = change["new"]
        if event.get("kind") == "key":
            self.guard(self._on_key, event["which"], event["step"])
        elif event:
            self.guard(self.pause)
            axes, x, y = self.picture.locate(event["x"], event["y"])
            self.guard(self.on_pointer, event["kind"], axes, x, y)

    def _on_key(self, which: str, step: int) -> None:
        player = self.players.get(which, self.player)
        if player is not None:
            player.step(step) if step else player.press()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and a still picture, with what it shows in words, for pages that run no code."""
        with self._drawing:
            png = self.picture.png()
        still = {"image/png": png, "text/plain": f"{type(self).__name__}: run this cell to move it."}
        return {**super()._repr_mimebundle_(**kwargs), **still}, {"image/png": {"alt": self.view.alt}}


def _can_be(control: Any, value: Any) -> bool:
    """Whether a control can have this value: a list may have other options by now."""
    return not hasattr(control, "_options_values") or value in control._options_values


def _held_by(explorer: Explorer) -> list[widgets.Widget]:
    """An explorer, its widgets, shown or not, and those below them, with layouts and styles, which are widgets too."""
    found: list[widgets.Widget] = []
    waiting = [explorer, *vars(explorer).values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple | dict):
            waiting.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, widgets.Widget) and value not in found:
            found.append(value)
            waiting.extend(getattr(value, name) for name in value.keys)
    return found


def _close_what_this_cell_made_before(explorer: Explorer) -> None:
    """Close the explorers of an earlier run of this cell: the page shows them no more, and nobody else closes them."""
    message = getattr(IPython.get_ipython(), "parent_header", None) or {}
    cell, run = message.get("metadata", {}).get("cellId"), message.get("header", {}).get("msg_id")
    if cell is None:
        return
    before, made = _made.get(cell, (run, weakref.WeakSet()))
    if before != run:
        for old in list(made):
            old.close()
        made = weakref.WeakSet()
    made.add(explorer)
    _made[cell] = run, made


def in_words(value: float | str) -> str:
    """A number as it stands beside a picture: three decimals, fewer of large numbers, and no −0."""
    if not isinstance(value, float):
        return str(value)
    digits = 3 if abs(value) < 100 else 2 if abs(value) < 1000 else 1
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def slider(description: str, value: float, low: float, high: float, step: float = 0.05) -> widgets.FloatSlider:
    """A float slider in the size and format of the course."""
    return widgets.FloatSlider(value, min=low, max=high, step=step, description=description, readout_format=".2f")


def choice(description: str, options: Any, value: Any = None) -> widgets.Dropdown:
    """A drop-down list."""
    options = list(options)
    first = options[0][1] if isinstance(options[0], tuple) else options[0]
    return widgets.Dropdown(options=options, value=first if value is None else value, description=description)
