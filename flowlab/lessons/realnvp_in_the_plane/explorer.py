"""The explorer of this lesson."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets

from flowlab.densities import Flow
from flowlab.lessons.base.explorer import Explorer, choice
from flowlab.lessons.realnvp_in_the_plane.figures import LayersAndTraining


class ScrubFlow(Explorer):
    """Scrub a trained flow through its training and through its layers.

    Args:
        flows: by name, the flow at some steps of its training (``flowlab.pretrained.replay``) and the exact density of
            its data; flows that come with the package when left out.
    """

    def __init__(self, flows: Mapping[str, tuple[Mapping[int, Flow], Any]] | None = None) -> None:
        picture = LayersAndTraining(flows)
        first = next(iter(picture.films.values()))
        controls = {
            "flow": choice("flow", picture.films),
            "snapshot": widgets.IntSlider(
                len(first.steps) - 1, 0, len(first.steps) - 1, description="training: snapshot"
            ),
            "layer": widgets.IntSlider(0, 0, first.layers, description="couplings applied"),
        }
        # Before the explorer listens: when another flow is chosen, the sliders first take its length.
        controls["flow"].observe(self._fit_sliders, names="value")
        super().__init__(
            picture,
            controls,
            plays={"snapshot": 1, "layer": 4},
            caption="Slide the training: the gauge falls. Slide the couplings: data and density move alike, x to z.",
        )

    def _fit_sliders(self, change: Any) -> None:
        reel = self.picture.films[change["new"]]
        with self.hold():  # a shorter slider may move its value: draw once, when the flow has changed too
            self.controls["snapshot"].max = len(reel.steps) - 1
            self.controls["layer"].max = reel.layers
