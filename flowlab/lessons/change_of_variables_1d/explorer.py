"""The explorer of this lesson."""

from __future__ import annotations

from typing import ClassVar

import ipywidgets as widgets

from flowlab.lessons.base.explorer import Explorer, choice, slider
from flowlab.lessons.change_of_variables_1d.figures import BARS, A, B, PushForward
from flowlab.lessons.change_of_variables_1d.toys import BASES, MAPS


class ChangeOfVariables(Explorer):
    """Choose a base and a map, stretch and shift, and take the Jacobian factor away to see the histogram object."""

    tape_blocks: ClassVar = (("map", "jacobian", "a"), ("base", "map", "jacobian"), ("map", "b"), ("map", "bar"))

    def __init__(self) -> None:
        super().__init__(
            PushForward(),
            {
                "base": choice("base density", BASES),
                "map": choice("map x = r(z)", MAPS),
                "jacobian": widgets.Checkbox(True, description="divide by |r′(z)|", indent=False),
                "a": slider("stretch a", 2.0, *A),
                "b": slider("shift b", 1.0, *B),
                "bar": widgets.IntSlider(8, min=1, max=BARS, description="follow bar"),
            },
            caption="The dark steps count pushed samples and know no formula: they are the judge. Where rubber fans "
            "out, bars widen and sink. The claim must lie on the steps.",
        )
