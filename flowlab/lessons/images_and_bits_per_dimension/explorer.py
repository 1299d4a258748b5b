"""The explorers of this lesson."""

from __future__ import annotations

from flowlab.lessons.base.explorer import Explorer, choice, slider
from flowlab.lessons.images_and_bits_per_dimension.figures import BITS, LOG_WIDTH, SharpenSpikes, ThreeRulers
from flowlab.lessons.images_and_bits_per_dimension.toys import LAMBDAS


class Spikes(Explorer):
    """Sharpen the spikes on whole numbers, and the test log-likelihood has no limit; add noise, and it has one."""

    def __init__(self) -> None:
        super().__init__(
            SharpenSpikes(),
            {
                "log_width": slider("log₁₀ width of the spikes", -0.6, *LOG_WIDTH),
                "noise": slider("width of the noise", 0.0, 0.0, 1.0, step=0.1),
            },
            caption="Sharpen: the log-likelihood on the right rises, the samples in the middle do not change. Then add "
            "noise of width 1, a whole bin, and sharpen again.",
        )


class ThreeScales(Explorer):
    """Slide one likelihood along three rulers, and see where the published ones lie."""

    def __init__(self) -> None:
        super().__init__(
            ThreeRulers(),
            {
                "bits": slider("bits per dimension", 4.0, *BITS, step=0.01),
                "lambda_": choice("λ of the logit", [(f"{value:g}", value) for value in LAMBDAS]),
            },
            caption="Triangles are published models, each in the unit of its paper. Change λ: which ruler moves?",
        )
