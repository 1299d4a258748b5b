"""The explorer of this lesson."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import numpy as np
from torch import Tensor

from flowlab.lessons.base.explorer import Explorer
from flowlab.lessons.build_it_yourself.figures import POINTS, PointThroughLayers


class StepThrough(Explorer):
    """Send points through a flow in plain PyTorch, layer by layer, and add up the log-density of one of them.

    Args:
        flow: has ``layers``, each with ``layer(x) -> (z, log_det)``, and a standard normal base of the plane; the flow
            of the worked answers when left out.
        x: points ``(N, 2)`` to send through; two moons when left out.
    """

    def __init__(self, flow: Any = None, x: Tensor | None = None) -> None:
        picture = PointThroughLayers(flow, x)
        count = min(POINTS, picture.at.shape[1])
        super().__init__(
            picture,
            {
                "layer": widgets.IntSlider(0, 0, picture.depth, description="couplings applied"),
                "point": widgets.IntSlider(0, 0, count - 1, description="point"),
            },
            caption="Apply one coupling after another: each moves all points along one axis, and two moons become one "
            "round cloud. Click near a point to follow it.",
            draggable=True,
        )

    def on_pointer(self, kind: str, axes: Any, x: float, y: float) -> None:
        if axes is self.picture.left and kind == "down":
            here = self.picture.at[self.controls["layer"].value]
            self.set(point=int(np.linalg.norm(here - (x, y), axis=1).argmin()))
