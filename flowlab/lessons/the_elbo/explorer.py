"""The explorers of this lesson."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from flowlab.lessons.base.explorer import Explorer, slider
from flowlab.lessons.the_elbo.figures import LOG_SIGMA, MU, THETA, BoundOnCurve, CoverOrChoose
from flowlab.lessons.the_elbo.toys import SEPARATIONS, responsibilities, top


class BoundTouches(Explorer):
    """Slide θ to the top of the bound, press E, and the bound touches the likelihood again, higher.

    ``e_button`` sets θ_old to θ; ``m_button`` sets θ to the top of the bound.
    """

    def __init__(self) -> None:
        super().__init__(
            BoundOnCurve(),
            {
                "old": slider("θ_old: where q comes from", 0.6, *THETA, step=0.01),
                "theta": slider("θ", 1.1, *THETA, step=0.01),
            },
            caption="Drag θ on the right to the top of the green bound. Then E: the bound jumps up to touch the curve "
            "at your θ. Then again.",
            draggable=True,
        )
        self.e_button = widgets.Button(description="E: touch at θ", button_style="primary")
        self.m_button = widgets.Button(description="M: go to the top")
        self.e_button.on_click(lambda _: self.set(old=self.controls["theta"].value))
        self.m_button.on_click(lambda _: self.set(theta=round(top(responsibilities(self.controls["old"].value)), 2)))
        self.insert(widgets.HBox([self.e_button, self.m_button]))

    def on_pointer(self, kind: str, axes: Any, x: float, y: float) -> None:
        if axes is self.picture.right:
            self.set(theta=round(x, 2))


class ForwardAndReverse(Explorer):
    """Fit one Gaussian to two humps by either divergence, in sliders or on the landscapes: one covers, one chooses."""

    def __init__(self) -> None:
        super().__init__(
            CoverOrChoose(),
            {
                "mu": slider("mean of q", 0.5, *MU),
                "log_sigma": slider("log σ of q", 0.0, *LOG_SIGMA),
                "separation": widgets.SelectionSlider(options=list(SEPARATIONS), value=2.0, description="humps at ±"),
                "best": widgets.Checkbox(False, description="show the best q for each", indent=False),
            },
            rows=[["mu", "log_sigma"], ["separation", "best"]],
            caption="Drag the dot on a landscape to its darkest place, where the divergence is least. How many such "
            "places does each landscape have?",
            draggable=True,
        )

    def on_pointer(self, kind: str, axes: Any, x: float, y: float) -> None:
        if axes in self.picture.maps:
            self.set(mu=round(x, 2), log_sigma=round(y, 2))
