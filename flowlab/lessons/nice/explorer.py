"""The explorer of this lesson."""

from __future__ import annotations

from typing import ClassVar

import ipywidgets as widgets

from flowlab.lessons.base.explorer import Explorer, choice, slider
from flowlab.lessons.nice.figures import DEEPEST, AreaAndDependence
from flowlab.lessons.nice.toys import PATTERNS, SCALINGS


class CouplingLayers(Explorer):
    """Add coupling layers one by one: the matrix fills up, and the area of {p > c} stays until S is switched on."""

    tape_blocks: ClassVar = (("depth", "pattern"), ("depth", "scaling"), ("scaling", "strength"), ("seed",), ("c",))

    def __init__(self) -> None:
        super().__init__(
            AreaAndDependence(),
            {
                "depth": widgets.IntSlider(1, 0, DEEPEST, description="depth: coupling layers"),
                "pattern": choice("masks: which half moves", PATTERNS),
                "scaling": choice("scaling S", SCALINGS),
                "strength": slider("strength of m", 1.0, 0.0, 1.25),
                "seed": widgets.IntSlider(0, 0, 9, description="another random m: seed"),
                "c": slider("level c", 0.04, 0.02, 0.12, 0.01),
            },
            plays={"depth": 4},
            caption="Add layers: the outline bends and the matrix fills, but both areas stay equal. Then switch S on.",
        )
