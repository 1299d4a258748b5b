"""The explorers of this lesson."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from flowlab.densities import Flow
from flowlab.lessons.base.explorer import Explorer, choice, slider
from flowlab.lessons.nice_on_mnist.figures import COOLING, PATIENCE, YOURS, CoolSamples, FillIn
from flowlab.lessons.nice_on_mnist.toys import D


class CoolDigits(Explorer):
    """Sample a NICE at any temperature, cooled in two ways, with the widest latent directions or all of them.

    Args:
        flow: a NICE with a logistic prior on 784 pixels; the shipped one when left out.
    """

    def __init__(self, flow: Flow | None = None) -> None:
        super().__init__(
            CoolSamples(flow),
            {
                "tau": slider("temperature τ", 0.8, 0.0, 1.5),
                "cooling": choice("cool by", COOLING),
                "keep": widgets.IntSlider(D, 0, D, 28, description="directions drawn, the others 0"),
                "seed": widgets.IntSlider(0, 0, 9, description="seed"),
            },
            plays={"tau": 1},
            caption="Lower τ: the orange outline on the right moves to the dashed line, past the real digits (blue).",
            rows=[["tau", "cooling"], ["keep", "seed"]],
        )


class FillHidden(Explorer):
    """Hide pixels of a digit by a mask or by painting, fill them in by three rules at once, scrub through the steps.

    ``start_button``, ``stop_button`` and ``clear_button`` do what they say; dragging on the left image hides pixels.
    """

    def __init__(self, flow: Flow | None = None, steps: int = PATIENCE) -> None:
        picture = FillIn(flow, steps)
        first = {"digit": 8, "which": 0, "mask": "top half"}
        for _ in picture.fill(**first):  # one run is there from the start
            pass
        super().__init__(
            picture,
            {
                "digit": widgets.IntSlider(first["digit"], 0, 9, description="digit"),
                "which": widgets.IntSlider(first["which"], 0, 9, description="which of ten"),
                "mask": choice("hide", [*picture.masks, YOURS], first["mask"]),
                "step": widgets.IntSlider(steps, 0, steps, 5, description="step"),
            },
            plays={"step": 1},
            caption="Each chain starts from a sample. Compare what they fill in, and where their curves end.",
            rows=[["step"], ["digit", "which", "mask"]],
            draggable=True,
        )
        self.clear_button = widgets.Button(description="Clear my mask")
        self.clear_button.on_click(lambda _: self.guard(self._clear))
        self.insert(self.runner("Fill in", self._fill, steps, self.clear_button))

    def on_pointer(self, kind: str, axes: Any, x: float, y: float) -> None:
        """Pressing or dragging hides pixels; the first stroke on a mask that has a name begins a new one."""
        if kind == "up" or axes is not self.picture.left or self.start_button.disabled:
            return
        self.picture.paint(x, y)
        self.set(mask=YOURS)

    def _clear(self) -> None:
        if not self.start_button.disabled:
            self.picture.painted = self.picture.painted.new_zeros(D)
            self.set(mask=YOURS)

    def _fill(self) -> None:
        chosen = {name: self.controls[name].value for name in ("digit", "which", "mask")}

        def report(step: int) -> None:
            self.progress.value = step
            self.set(step=step)

        self.run(self.picture.fill(**chosen), report)
