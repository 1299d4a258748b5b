"""The explorers of this lesson."""

from __future__ import annotations

from typing import Any, ClassVar

import ipywidgets as widgets

from flowlab.lessons.base.explorer import Explorer, choice, slider
from flowlab.lessons.the_mixture_of_flows_on_mnist.figures import MODELS, InsideAComponent, OneStyle


class OneStyleTenDigits(Explorer):
    """Drag one latent point between four real digits, and see what every component makes of it."""

    tape: ClassVar = {name: [0.1, 0.3, 0.5, 0.7, 0.9] for name in ("across", "up")}
    tape_blocks: ClassVar = (("across", "up"), ("temperature",), ("seed",))

    def __init__(self, name: str = MODELS[0]) -> None:
        super().__init__(
            OneStyle(name),
            {
                "across": slider("across", 0.1, 0.0, 1.0, 0.02),
                "up": slider("up", 0.9, 0.0, 1.0, 0.02),
                "temperature": slider("temperature", 0.8, 0.0, 1.0),
                "seed": widgets.IntSlider(0, 0, 20, description="other corners"),
            },
            rows=[["across", "up"], ["temperature", "seed"]],
            plays={"temperature": 1},
            caption="Orange: the digits that a component mostly takes. Drag the green point: what do the images share?",
            draggable=True,
        )

    def on_pointer(self, kind: str, axes: Any, x: float, y: float) -> None:
        if axes is self.picture.left and kind != "up":
            self.set(across=x, up=y)  # a slider stops at its ends


class LookInside(Explorer):
    """Choose a component: which digits it takes, which real images, and what it draws by itself.

    Takes the name of a shipped model, or ``model``, ``images`` and ``labels``. It begins with the component that takes
    most.
    """

    def __init__(self, name: str = MODELS[0], **own: Any) -> None:
        picture = InsideAComponent(name, **own)
        K = picture.model.density.components
        most = int(picture.cluster.bincount(minlength=K).argmax())
        super().__init__(
            picture,
            {
                "component": choice("component", [(str(k), k) for k in range(K)], most),
                "temperature": slider("temperature", 0.8, 0.0, 1.0),
                "unsure": choice("show those it is", [("most sure of", False), ("least sure of", True)]),
            },
            plays={"temperature": 1},
            caption="Is a component one digit? Look also at those that it is least sure of.",
        )
