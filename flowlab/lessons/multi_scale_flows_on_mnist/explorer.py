"""The explorers of this lesson."""

from __future__ import annotations

from typing import ClassVar

from ipywidgets import IntSlider

from flowlab.lessons.base.explorer import Explorer, choice, slider
from flowlab.lessons.multi_scale_flows_on_mnist import figures as picture
from flowlab.lessons.multi_scale_flows_on_mnist import toys


class ResampleLevels(Explorer):
    """Freeze the coarse latents of a digit and draw the fine ones anew, then the reverse."""

    def __init__(self) -> None:
        super().__init__(
            picture.ResampleLevels(),
            {
                "digit": choice("digit", [(str(digit), digit) for digit in range(10)], 3),
                "coarse": slider("new in the coarse latents", 0.0, 0.0, 1.0),
                "fine": slider("new in the fine latents", 1.0, 0.0, 1.0),
                "temperature": slider("temperature of what is new", 1.0, 0.0, 1.2),
                "seed": IntSlider(0, min=0, max=20, description="seed"),
            },
            plays={"temperature": 1},
            caption="First fine at 1, coarse at 0; then fine at 0, coarse at 1. Which of the two holds the digit?",
        )


class AlongAttribute(Explorer):
    """Move digits along the direction of an attribute in latent space, and see how far it carries."""

    tape: ClassVar = {"digit": [0, 2, 3, 5, 7, 8], "amount": [-1.0, -0.6, -0.3, 0.0, 0.3, 0.6, 1.0]}

    def __init__(self) -> None:
        super().__init__(
            picture.AlongAttribute(),
            {
                "digit": choice("digit", [(str(digit), digit) for digit in range(10)], 3),
                "attribute": choice("attribute", list(toys.ATTRIBUTES)),
                "amount": slider("how far along the direction", 0.3, -1.0, 1.0),
            },
            plays={"amount": 1},
            caption="A little way the attribute moves and the digit stays. Where does the digit break?",
        )
