"""The explorer of this lesson."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets

from flowlab.lessons.base.explorer import Explorer, choice
from flowlab.lessons.one_small_map_at_a_time.figures import OnTheWay
from flowlab.lessons.one_small_map_at_a_time.toys import Film


class MapByMap(Explorer):
    """Scrub a flow through its small maps: data that become a normal, or a normal that becomes an energy.

    Args:
        films: by name, a fit after each of its maps (``toys.to_a_normal``, ``toys.to_an_energy``); one of each when
            left out.
    """

    def __init__(self, films: Mapping[str, Film] | None = None) -> None:
        picture = OnTheWay(films)
        first = next(iter(picture.films.values()))
        controls = {
            "direction": choice("direction", picture.films),
            "depth": widgets.IntSlider(0, 0, len(first.flows) - 1, description="maps applied", readout=False),
        }
        # Before the explorer listens: when the other direction is chosen, the slider first takes its length.
        controls["direction"].observe(self._fit_slider, names="value")
        super().__init__(
            picture,
            controls,
            caption="Slide: each map moves the points a little, and the flow's density with them. Watch the gauge.",
            plays={"depth": 1},
        )

    def _fit_slider(self, change: Any) -> None:
        with self.hold():  # a shorter slider may move its value: draw once, when the direction has changed too
            self.controls["depth"].max = len(self.picture.films[change["new"]].flows) - 1
