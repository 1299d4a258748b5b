"""The explorers of this lesson."""

from __future__ import annotations

from typing import ClassVar

import ipywidgets as widgets

from flowlab.lessons.base.explorer import Explorer, choice, slider
from flowlab.lessons.gaussian_mixtures_and_em.figures import (
    CROWDS,
    HALF_STEPS,
    KNOWN,
    PERSONS,
    HalfSteps,
    Needle,
    PriorAndEvidence,
)
from flowlab.lessons.gaussian_mixtures_and_em.toys import HEIGHTS, POWERS, SCENES, WEIGHTS


class BayesRule(Explorer):
    """Move the share of rowers, or drag the person: the posterior is the prior and the evidence, added as log-odds."""

    def __init__(self) -> None:
        super().__init__(
            PriorAndEvidence(),
            {
                "prior": slider("share of rowers (prior)", 0.5, 0.01, 0.99, 0.01),
                "height": slider("height (cm)", 181.0, *HEIGHTS, 0.5),
                "weight": slider("weight (kg)", 77.0, *WEIGHTS, 0.5),
                "known": choice("we know the", KNOWN),
            },
            caption="Blue circles: runners; vermilion triangles: rowers. Watch the line as the shares change. Drag the "
            "star.",
            rows=[["prior", "known"], ["height", "weight"]],
            draggable=True,
        )

    def on_pointer(self, kind: str, axes: object, x: float, y: float) -> None:
        if axes is self.picture.left and kind != "up":
            self.set(height=round(min(max(x, HEIGHTS[0]), HEIGHTS[1]), 1), weight=round(y, 1))


class EMByHand(Explorer):
    """Step E, step M, or scrub through all half-steps, for any start of a Gaussian mixture.

    ``e_button`` and ``m_button`` move the slider; the one that would change nothing is off.
    """

    tape_blocks: ClassVar = (("half_step", "kind"), ("components",), ("seed",), ("data",), ("start",))

    def __init__(self) -> None:
        self.e_button, self.m_button = (widgets.Button(description=f"{name} step") for name in "EM")
        super().__init__(
            HalfSteps(),
            {
                "half_step": widgets.IntSlider(5, 0, HALF_STEPS, description="half-step"),
                "components": widgets.IntSlider(3, 1, 8, description="components K"),
                "seed": widgets.IntSlider(0, 0, 9, description="seed of the start"),
                "data": choice("data", SCENES),
                "start": choice("start", ("random", "kmeans++")),
                "kind": choice("E-step", ("soft", "hard")),
            },
            plays={"half_step": 1},
            caption="Watch where orange touches vermilion, and which an M-step lifts more. Then choose hard.",
        )
        for button in (self.e_button, self.m_button):
            button.on_click(lambda _: self.guard(self._step))
        self.insert(widgets.HBox([self.e_button, self.m_button]))

    def _draw(self) -> None:
        at = self.controls["half_step"].value
        # E twice in a row, or M twice with the same responsibilities, changes nothing.
        self.e_button.disabled = at % 2 == 1 or at == HALF_STEPS
        self.m_button.disabled = at % 2 == 0
        super()._draw()

    def _step(self) -> None:
        self.controls["half_step"].value += 1


class ShrinkOne(Explorer):
    """Shrink one Gaussian onto one person: the likelihood rises without end, and the fit gets absurd."""

    def __init__(self) -> None:
        super().__init__(
            Needle(),
            {
                "shrink": slider("shrink: −log₁₀ σ", -0.8, -POWERS[0], -POWERS[-1], 0.2),
                "person": widgets.IntSlider(4, 1, PERSONS, description="onto person"),
                "crowd": choice("people in the fit", CROWDS),
            },
            caption="Green: the component that is left to fit all others. Pink: the small one, soon too small to see. "
            "Watch the log-likelihood of both sets of people as it shrinks.",
        )
