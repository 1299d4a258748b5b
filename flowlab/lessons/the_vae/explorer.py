"""The explorer of this lesson."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from flowlab.lessons.base.explorer import Explorer, slider
from flowlab.lessons.the_vae.figures import EDGE, LatentPlane
from flowlab.lessons.the_vae.toys import VAE


class DecodeThePlane(Explorer):
    """Move a point in the latent plane of a VAE: see the digit that it decodes to, and the real digits around it.

    Args:
        vae: has two latents; one that was trained for a few seconds when left out.
    """

    def __init__(self, vae: VAE | None = None) -> None:
        super().__init__(
            LatentPlane(vae),
            {
                "z1": slider("z₁", 0.5, -EDGE, EDGE),
                "z2": slider("z₂", 0.5, -EDGE, EDGE),
                "spread": widgets.Checkbox(False, description="show q(z | x) of the nearest digits", indent=False),
            },
            caption="Drag the diamond. Right: what the decoder makes of z, and the held-out digits with the mean of q "
            "nearest to z.",
            draggable=True,
        )

    def on_pointer(self, kind: str, axes: Any, x: float, y: float) -> None:
        if axes is self.picture.plane and abs(x) <= EDGE and abs(y) <= EDGE:
            self.set(z1=round(x, 2), z2=round(y, 2))
