"""The explorer of notebook 01."""

from __future__ import annotations

import ipywidgets as widgets

from flowlab.plotting.one_dimension import BASES, MAPS, PushForward
from flowlab.widgets.base import Explorer, choice, slider


class ChangeOfVariables(Explorer):
    """Choose a base and a map, move its parameters, and switch the Jacobian factor off to see the histogram object."""

    def __init__(self) -> None:
        super().__init__(
            PushForward(),
            {
                "base": choice("base", BASES),
                "map": choice("map", MAPS),
                "a": slider("a", 2.0, 0.2, 3.0),
                "b": slider("b", 0.0, -2.0, 3.0),
                "jacobian": widgets.Checkbox(True, description="divide by |r′(x)|"),
            },
            caption="The gray histogram is the judge: it only pushes samples. The line must lie on it.",
        )
