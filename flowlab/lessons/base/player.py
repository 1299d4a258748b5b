"""Play: a button beside a slider that is a time or a depth; the slider goes on by itself, and the picture with it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ipywidgets as widgets

SECONDS = 8.0  # a slider is played in about this time
FASTEST, SLOWEST = 0.12, 0.5  # seconds from one picture to the next, of which a kernel can draw several a second
SLOW = 4  # times as long in slow motion
OVERLAP = 1.2  # the browser takes a little longer than the kernel, so that it never waits in the middle of the way


class Player:
    """Moves one slider of an explorer from stop to stop, up to its end.

    The kernel draws a few pictures a second, and the browser goes from each to the next in as many frames as the screen
    has (``way`` in scene.js), in straight lines. Where the picture has a path of its own from stop to stop, it takes a
    value between two stops, and is drawn ``parts`` times on the way: the lines are then pieces of the true path.

    A press plays, or pauses; at the end it begins anew. Whatever else is moved in the explorer stops the player first.
    """

    def __init__(self, explorer: Any, name: str, control: Any, parts: int = 1) -> None:
        self.explorer, self.name, self.control, self.parts = explorer, name, control, parts
        self.button = widgets.Button()
        self.button.add_class("flowlab-play").add_class(f"flowlab-play-{name}")
        self.button.on_click(lambda _: explorer.guard(self.press))
        self._run: object | None = None  # the playing that is under way
        self._task: asyncio.Task | None = None
        self._say()

    @property
    def stops(self) -> list[Any]:
        """The values that the slider can have, in order."""
        if isinstance(self.control, widgets.SelectionSlider):
            return list(self.control._options_values)
        low, step, kind = self.control.min, self.control.step, type(self.control.value)
        return [kind(round(low + step * i, 9)) for i in range(round((self.control.max - low) / step) + 1)]

    @property
    def place(self) -> int:
        """Which of the stops the slider is at."""
        if isinstance(self.control, widgets.SelectionSlider):
            return self.stops.index(self.control.value)
        return round((self.control.value - self.control.min) / self.control.step)

    @property
    def pace(self) -> float:
        """Seconds from one picture to the next."""
        pace = min(max(SECONDS / (self.parts * len(self.stops)), FASTEST), SLOWEST)
        return pace * SLOW if self.explorer.slow.value else pace

    def press(self) -> None:
        """Play, or pause."""
        if self._run is not None:
            self.pause()
            return
        self.explorer.pause()
        self.explorer.player, self._run = self, object()
        self._say()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(self._play(self._run))
        else:
            self._task = loop.create_task(self._play(self._run))  # the loop itself holds no more than a weak reference

    def step(self, count: int) -> None:
        """Pause, and go so many stops on."""
        self.explorer.pause()
        self.control.value = self.stops[min(max(self.place + count, 0), len(self.stops) - 1)]

    def pause(self) -> None:
        """Stop where the slider is; a picture between two stops goes on to that one."""
        if self._run is None:
            return
        self._run = None
        self._say()
        if self.explorer.on_the_way:
            self.explorer.on_the_way = {}
            self.explorer.refresh()
        self.explorer.glide = self.explorer.view.glide = 0.0

    async def _play(self, run: object) -> None:
        explorer, due, failed = self.explorer, time.perf_counter(), len(self.explorer.errors)
        if self.place == len(self.stops) - 1:
            explorer.guard(self._show, self.stops[0], {}, 0.0)
        while self._run is run and self.place < len(self.stops) - 1:  # a training may add stops meanwhile
            stops, place = self.stops, self.place
            stride = max(1, round(FASTEST * len(stops) / SECONDS))  # a slider of many stops skips some
            stop = stops[min(place + stride, len(stops) - 1)]
            for part in range(1, self.parts + 1):
                if self._run is not run or len(explorer.errors) > failed:
                    break
                way = (
                    {} if part == self.parts else {self.name: stops[place] + part / self.parts * (stop - stops[place])}
                )
                explorer.guard(self._show, stop, way, self.pace * OVERLAP)
                due = max(due + self.pace, time.perf_counter())
                await asyncio.sleep(max(due - time.perf_counter(), 0.01))
            if len(explorer.errors) > failed:
                break
        if self._run is run:
            explorer.guard(self.pause)

    def _show(self, stop: Any, way: dict[str, float], glide: float) -> None:
        """Draw the picture of a stop, or of the place on the way to it."""
        with self.explorer.hold():
            self.control.value = stop
        self.explorer.on_the_way, self.explorer.glide = way, glide
        self.explorer.refresh()

    def _say(self) -> None:
        playing = self._run is not None
        self.button.icon = "pause" if playing else "play"
        self.button.tooltip = f"{'Pause' if playing else 'Play'}: {self.control.description}"
