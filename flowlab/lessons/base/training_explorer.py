"""An explorer that trains: press, watch the model change, stop it or wait, then scrub through what was seen."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import ipywidgets as widgets
from torch import nn

from flowlab.lessons.base.explorer import Explorer
from flowlab.lessons.base.picture import Picture
from flowlab.training import train

Progress = Generator[tuple[int, int], None, None]  # yields how many steps are done, and how many there are


class TrainingExplorer(Explorer):
    """An explorer with a button that trains, one that stops, and a slider for the moments of the training.

    A subclass writes ``training``, which makes models and trains them, mostly by ``watch``. The explorer drives; the
    picture keeps what a model looks like at some moments, in ``snapshots``, and draws the one that the control
    ``snapshot`` points at. This slider comes with the first training, or is among the controls from the start.

    Args:
        start: what the button says that trains.
        again: what it says when there has been a training.
        presets: widgets that the next training goes by, and the picture not.
        beside: widgets in the row of the buttons; they are off while a training is under way.
    """

    def __init__(
        self,
        picture: Picture,
        controls: dict[str, widgets.Widget],
        *,
        start: str,
        again: str = "",
        presets: tuple[widgets.Widget, ...] = (),
        beside: tuple[widgets.Widget, ...] = (),
        **settings: Any,
    ) -> None:
        training = {"snapshot": 1} if "snapshot" in controls else {}
        super().__init__(picture, controls, plays=training | settings.pop("plays", {}), **settings)
        self.again, self.presets, self.beside = again or start, presets, beside
        self.scrub = self.controls.get("snapshot") or self.scrubber()
        self._seen = 0  # moments that have been drawn
        buttons = self.runner(start, self._start, 1, *beside)
        for preset in presets:
            preset.style.description_width = "initial"
            preset.add_class("flowlab-preset")
        self.insert(*([widgets.HBox(presets, layout=widgets.Layout(flex_flow="row wrap"))] if presets else []), buttons)

    def training(self) -> Progress:
        """Make models and train them; yield how many steps are done, and how many there are, after each."""
        raise NotImplementedError

    def watch(self, model: nn.Module, x: Any, keep: Callable[[int, nn.Module], None], **settings: Any) -> Progress:
        """Train a model on x by ``train`` with these settings; call ``keep(step, model)`` at 0 and each snapshot."""
        keep(0, model)
        for history in train(model, x, **settings):
            if history.step in history.snapshots:
                keep(history.step, model)
            yield history.step, history.total

    def moments(self) -> int:
        """How many moments of the newest training the picture has."""
        return len(self.picture.snapshots)

    def show_newest(self) -> None:
        """Put the slider, which is there from now on, at the newest moment, and draw.

        Where somebody has moved it to look at an earlier moment of this training, it stays there.
        """
        if "snapshot" not in self.controls:
            self.place_scrubber("snapshot", self.scrub)
        newest = self.moments() - 1
        if self.scrub.value < self.scrub.max < newest:
            with self.hold():
                self.scrub.max = newest
        else:
            self.show_last("snapshot", newest + 1)

    def _start(self) -> None:
        self._seen = 0
        for widget in self.beside:
            widget.disabled = True
        self.run(self.training(), self._report, self._finished)

    def _report(self, steps: tuple[int, int]) -> None:
        self.progress.value, self.progress.max = steps
        if self.moments() != self._seen:  # to draw takes as long as some steps, and nothing else has changed
            self._seen = self.moments()
            self.show_newest()

    def _finished(self) -> None:
        for widget in self.beside:
            widget.disabled = False
        self.start_button.description = self.again
