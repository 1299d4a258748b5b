"""The explorer of this lesson."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from flowlab.lessons.base.explorer import Explorer, slider
from flowlab.lessons.the_tools.figures import B, DescentOnContours, W
from flowlab.lessons.the_tools.toys import MOST, RATES


class WalkDownhill(Explorer):
    """Choose where a gradient descent starts, its step size and how many steps it makes, and follow its path."""

    def __init__(self) -> None:
        super().__init__(
            DescentOnContours(),
            {
                "rate": slider("step size", 0.1, *RATES, step=0.01),
                "steps": widgets.IntSlider(10, 0, MOST, description="steps made"),
                "w0": slider("start: w", -1.0, *W),
                "b0": slider("start: b", 1.5, *B),
            },
            rows=[["rate", "steps"], ["w0", "b0"]],
            caption="Drag the start on the left. Make the step size larger: first the path is faster, then it zigzags, "
            "then it runs away.",
            draggable=True,
        )

    def on_pointer(self, kind: str, axes: Any, x: float, y: float) -> None:
        if axes is self.picture.contours:
            self.set(w0=round(x, 2), b0=round(y, 2))
