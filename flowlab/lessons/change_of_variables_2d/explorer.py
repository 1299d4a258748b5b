"""The explorers of this lesson."""

from __future__ import annotations

from typing import Any, ClassVar

import ipywidgets as widgets
import numpy as np

from flowlab.lessons.base.explorer import Explorer, choice, slider
from flowlab.lessons.change_of_variables_2d.figures import CellUnderMap, SquareUnderMatrix
from flowlab.lessons.change_of_variables_2d.toys import PLANAR_MAPS


class DeterminantAsArea(Explorer):
    """Drag the two columns of A, or the diamond, which slides a₂ along a₁: the area of the parallelogram is |det A|."""

    tape_blocks: ClassVar = (("a11", "a21"), ("a12", "a22"), ("shear",))

    def __init__(self) -> None:
        self.held: str | None = None
        super().__init__(
            SquareUnderMatrix(),
            {
                "a11": slider("a₁ across", 1.5, -2.0, 2.0),
                "a21": slider("a₁ up", 0.3, -2.0, 2.0),
                "shear": slider("shear: slide a₂ along a₁", 0.0, -1.0, 1.0),
                "a12": slider("a₂ across", 0.4, -2.0, 2.0),
                "a22": slider("a₂ up", 1.2, -2.0, 2.0),
            },
            caption="Drag a tip or the diamond. The ink is the same in both pictures: it thins where the area grows.",
            draggable=True,
        )

    def on_pointer(self, kind: str, axes: Any, x: float, y: float) -> None:
        if axes is not self.picture.right:
            return
        values, pointer = self.values(), np.array([x, y])
        first = np.array([values["a11"], values["a21"]])
        second = np.array([values["a12"], values["a22"]])
        slid = second + values["shear"] * first
        if kind == "down":
            tips = {"first": first, "second": slid, "shear": slid + first / 2}
            self.held = min(tips, key=lambda name: np.hypot(*(tips[name] - pointer)))
        if self.held == "first":
            self.set(a11=round(x, 2), a21=round(y, 2))
        elif self.held == "second":
            x, y = pointer - values["shear"] * first
            self.set(a12=round(x, 2), a22=round(y, 2))
        elif self.held == "shear" and first.any():
            self.set(shear=round(float((pointer - second) @ first / (first @ first)) - 0.5, 2))
        if kind == "up":
            self.held = None


class MagnifiedCell(Explorer):
    """Bend the plane, place a cell, shrink it: its image becomes the parallelogram of the Jacobian at that point."""

    def __init__(self) -> None:
        super().__init__(
            CellUnderMap(),
            {
                "map": choice("map", PLANAR_MAPS),
                "strength": slider("strength s", 0.6, 0.0, 1.0),
                "h": widgets.FloatLogSlider(
                    0.8, base=10, min=-2, max=0, step=0.05, description="cell size h", readout_format=".2f"
                ),
                "x1": slider("cell at x₁", 0.9, -1.5, 1.5),
                "x2": slider("cell at x₂", 0.4, -1.5, 1.5),
            },
            plays={"strength": 1},
            caption="Click or drag on the left to move the cell, then make h small: green comes to lie on the dashes.",
            draggable=True,
        )

    def on_pointer(self, kind: str, axes: Any, x: float, y: float) -> None:
        if axes is self.picture.left and kind != "up":
            self.set(x1=round(x, 2), x2=round(y, 2))
