"""The explorer of this lesson."""

from __future__ import annotations

import ipywidgets as widgets

from flowlab.lessons.base.explorer import Explorer, choice
from flowlab.lessons.what_a_flow_cannot_do.figures import FLOWS, SCENES, BridgeAndStretch


class HoleAndStretch(Explorer):
    """Make the flow deeper, or scrub its training: the hole empties as the stretch climbs, and never to nothing."""

    def __init__(self) -> None:
        super().__init__(
            BridgeAndStretch(),
            {
                "data": choice("data", SCENES),
                "couplings": widgets.SelectionSlider(options=list(FLOWS), value="4", description="couplings"),
                "snapshot": widgets.IntSlider(8, 0, 8, description="training: snapshot"),
            },
            plays={"couplings": 1, "snapshot": 1},
            caption="Deeper flows squeeze the dashed region of the left into the thin black bundle of the middle. Less "
            "is left in it only where the stretch is larger, and never nothing.",
        )
