"""The explorer of this lesson."""

from __future__ import annotations

from typing import ClassVar

import ipywidgets as widgets

from flowlab.lessons.base.explorer import Explorer, choice, slider
from flowlab.lessons.maximum_likelihood.figures import HandAgainstGradient
from flowlab.lessons.maximum_likelihood.toys import SIZES, START, STEPS


class FitByHand(Explorer):
    """Fit four parameters by hand, then let the gradient try; then compare both on points that neither has seen."""

    tape_blocks: ClassVar = (("location", "spread"), ("skew", "tail"), ("points", "step", "validation", "truth"))

    def __init__(self) -> None:
        super().__init__(
            HandAgainstGradient(),
            {
                "location": slider("location", START["location"], -2.0, 4.0),
                "spread": slider("spread", START["spread"], 0.2, 3.0),
                "skew": slider("skew", START["skew"], -1.5, 1.5),
                "tail": slider("tail (high: thin ends)", START["tail"], 0.4, 2.0),
                "points": choice("training points", SIZES, 40),
                "step": widgets.IntSlider(0, min=0, max=STEPS, step=5, description="gradient steps"),
                "validation": widgets.Checkbox(False, description="2,000 new points too"),
                "truth": widgets.Checkbox(False, description="show the truth"),
            },
            rows=[["location", "spread"], ["skew", "tail"], ["points", "step"], ["validation", "truth"]],
            plays={"step": 1},
            caption="Higher is better. First raise your line, then move the gradient's steps, then ask for new points.",
        )
