"""The explorers of this lesson."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from flowlab.lessons.autoregressive_flows.figures import (
    DEGREES,
    INPUTS,
    RULES,
    SHOWN,
    WIDEST,
    Filling,
    Flicker,
    NetworkMasks,
)
from flowlab.lessons.autoregressive_flows.toys import ARROWS, DEEPEST, ORDERS, PIXELS, SIDE
from flowlab.lessons.base.explorer import Explorer, choice, slider


class MaskedNetwork(Explorer):
    """Cut connections of a network by degrees, follow the paths into one output, and multiply the masks."""

    def __init__(self) -> None:
        super().__init__(
            NetworkMasks(),
            {
                "width": widgets.IntSlider(6, 1, WIDEST, description="hidden units in a layer"),
                "output": widgets.IntSlider(4, 1, INPUTS, description="paths into output"),
                "seed": widgets.IntSlider(0, 0, 9, description="order of the inputs: seed (0: as they stand)"),
                "degrees": choice("degrees of hidden units", DEGREES),
                "rule": choice("last layer connects", RULES),
            },
            caption="Orange: every path into one output. None begins at its own input, until the last layer connects "
            "equal degrees.",
        )


class OnePixel(Explorer):
    """Change one pixel and watch which outputs flicker; flip the arrow and swap the stopwatch."""

    def __init__(self) -> None:
        super().__init__(
            Flicker(),
            {
                "pixel": widgets.IntSlider(18, 1, PIXELS, description="pixel (or click on x)"),
                "size": slider("change it by", 0.5, -1.0, 1.0, 0.1),
                "depth": widgets.IntSlider(2, 1, DEEPEST, description="layers"),
                "order": choice("order", ORDERS),
                "arrow": choice("arrow", ARROWS),
            },
            plays={"depth": 1},
            caption="Random weights: what flickers is the doing of masks and orders. Click a pixel, add layers, then "
            "flip the arrow.",
            draggable=True,
        )

    def on_pointer(self, kind: str, axes: Any, x: float, y: float) -> None:
        if kind != "up" and axes in (self.picture.before, self.picture.after):
            column, row = (min(max(round(place), 0), SIDE - 1) for place in (x, y))
            self.controls["pixel"].value = row * SIDE + column + 1


class FillImage(Explorer):
    """Sample a MAF on digits pass by pass, and see why it takes thousands of them."""

    def __init__(self) -> None:
        picture = Filling()
        start = picture.total - picture.D // 2  # in the middle of the last sweep
        super().__init__(
            picture,
            {
                "passes": widgets.IntSlider(start, 0, picture.total, picture.D // 28, description="passes done"),
                "sample": widgets.IntSlider(1, 1, SHOWN, description="sample"),
            },
            plays={"passes": 1},
            caption="Orange is not known yet. Each pass of a network adds one number; five sweeps make one digit.",
        )
