"""Pictures of small maps: one by itself, the two directions of a fit, a fit map by map, and particles that move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from torch import Tensor

from flowlab.bijections import Planar, Radial
from flowlab.lessons.base.panels import shade
from flowlab.lessons.base.picture import Picture
from flowlab.lessons.one_small_map_at_a_time.toys import Film, to_a_normal, to_an_energy
from flowlab.plotting.plane import grid_lines, log_density, plane
from flowlab.plotting.style import COLORS, DENSITY, tidy

EDGE = 4.2  # half the width of the frames, in units of x and z
GAUGE = (0.03, 8.0)  # nats
SIZE = 60  # of the images, a side


class OnTheWay(Picture):
    """A fit after some of its maps: the exact density, the flow's density so far, points on the way, and the gauge."""

    def __init__(self, films: Mapping[str, Film] | None = None) -> None:
        super().__init__(11.4, 3.5)
        if films is None:
            films = {"data to a normal": to_a_normal(), "a normal to an energy": to_an_energy()}
        self.films = films
        self.seen: dict[tuple[str, int], np.ndarray] = {}
        self.shown: str | None = None
        self.exact, self.model, self.cloud, self.gauge = self.figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.05))
        for axes in (self.exact, self.model, self.cloud):
            axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal")
        frame = {"origin": "lower", "extent": (-EDGE, EDGE) * 2, "cmap": DENSITY, "vmin": 0, "interpolation": "none"}
        self.truth = self.exact.imshow(np.zeros((SIZE, SIZE)), **frame)
        self.image = self.model.imshow(np.zeros((SIZE, SIZE)), **frame)
        tidy(self.exact, "the exact density p", "x₁", "x₂")
        tidy(self.model, "the flow q so far", "x₁")
        angle = np.linspace(0, 2 * np.pi, 100)
        for radius in (1, 2, 3):
            self.cloud.plot(radius * np.cos(angle), radius * np.sin(angle), color=COLORS["latent"], lw=1)
        self.points = self.cloud.plot([], [], ".", ms=3, color=COLORS["data"], alpha=0.7, mew=0)[0]
        self.gauge.set(yscale="log", ylim=GAUGE)
        self.gauge.set_yticks((0.1, 0.3, 1, 3), ("0.1", "0.3", "1", "3"))
        self.gauge.grid(axis="y", color="#EEEEEE")
        self.curve = self.gauge.plot([], [], ".-", color=COLORS["model"], lw=1.2)[0]
        self.mark = self.gauge.plot([], [], "o", ms=9, color=COLORS["accent"], mec="black")[0]
        self.moves(self.truth, self.image, self.points, self.curve, self.mark)

    def update(self, direction: str, depth: int) -> dict[str, float | str]:
        film = self.films[direction]
        depth = min(depth, len(film.flows) - 1)
        if direction != self.shown:
            self._frame(film)
            self.shown = direction
        top = shade(self._density(direction, -1))
        for image, at in ((self.truth, -1), (self.image, depth)):
            image.set_data(self._density(direction, at))
            image.set_clim(0, top)
        self.points.set_data(*film.points[depth].numpy().T)
        self.curve.set_data(range(len(film.nats)), np.clip(film.nats, *GAUGE))
        self.mark.set_data([depth], np.clip(film.nats[depth : depth + 1], *GAUGE))
        return {"maps": str(film.maps[depth]), f"nats to the truth, {film.of}": film.nats[depth]}

    def describe(self, numbers: dict[str, float | str]) -> str:
        (_, maps), (name, nats) = numbers.items()
        return (
            f"The exact density, the density of the flow after {maps} maps, points on their way, and the gauge: {name} "
            f"stands at {nats:.2f} nats."
        )

    def _frame(self, film: Film) -> None:
        """What stands still for one direction: the titles and the ticks of the gauge."""
        data = film.of == "KL(p‖q)"
        letter = "z" if data else "x"
        tidy(self.cloud, "data on their way to N(0, I)" if data else "draws of N(0, I), on their way",
             f"{letter}₁", f"{letter}₂")  # fmt: skip
        tidy(self.gauge, f"nats to the truth, {film.of}", "maps")
        self.gauge.set_xlim(-0.4, len(film.maps) - 0.6)
        self.gauge.set_xticks(range(len(film.maps)), film.maps, rotation=60 if data else 0, fontsize=8)
        self.redraw_all()

    def _density(self, direction: str, depth: int) -> np.ndarray:
        """p on the grid for depth −1, else q after so many stops."""
        if (direction, depth) not in self.seen:
            film = self.films[direction]
            model = film.truth if depth < 0 else film.flows[depth].eval()
            self.seen[direction, depth] = log_density(model, plane(EDGE, SIZE)).exp().numpy()
        return self.seen[direction, depth]


@torch.no_grad()
def one_map(planar: Planar, radial: Radial) -> Figure:
    """What one planar and one radial map do to a grid; the line w · x + b = 0 and the center are marked."""
    figure = Figure(figsize=(7.4, 3.5), dpi=80, layout="compressed")
    lines = grid_lines(3.0, 19, 120)
    for axes, f, title in zip(figure.subplots(1, 2), (planar, radial), ("planar", "radial"), strict=True):
        axes.add_collection(LineCollection(f(lines)[0].numpy(), colors=COLORS["latent"], lw=0.8))
        axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal")
        tidy(axes, f"a grid after one {title} map", "z₁", "z₂")
    first, second = figure.axes
    w, b, u = planar.w, planar.b, planar.direction()
    foot, along = -b * w / (w @ w), torch.stack([-w[1], w[0]]) / w.norm()
    ends = torch.stack([foot - 6 * along, foot + 6 * along]).numpy()
    first.plot(*ends.T, "--", color=COLORS["truth"], lw=1.5)
    foot, tip = foot.numpy(), (foot + u).numpy()
    arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 14, "lw": 2, "color": COLORS["model"]}
    first.add_patch(FancyArrowPatch((foot[0], foot[1]), (tip[0], tip[1]), **arrow))
    paper = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none"}
    first.annotate("û", (tip[0], tip[1]), fontsize=13, color=COLORS["model"], xytext=(8, 4),
                   textcoords="offset points", bbox=paper)  # fmt: skip
    second.plot(*radial.center.tolist(), "X", ms=10, color=COLORS["model"], mec="black")
    return figure


def two_directions() -> Figure:
    """The schematic of the lesson: the same chain of small maps, read from the data or read from the normal."""
    figure = Figure(figsize=(8.6, 3.0), dpi=80)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 10), ylim=(0, 3.4))
    axes.axis("off")
    _row(axes, 2.35, ("data x ~ p", COLORS["data"]), ("N(0, I)", COLORS["latent"]), "small maps x → z",
         "maximum likelihood: KL(p‖q), a mean over data")  # fmt: skip
    _row(axes, 0.75, ("N(0, I)", COLORS["latent"]), ("energy U, p = e⁻ᵁ/Z", COLORS["truth"]), "small maps z → x",
         "reverse KL: KL(q‖p), a mean over draws of q")  # fmt: skip
    return figure


def _row(axes: Axes, y: float, start: tuple[str, str], end: tuple[str, str], maps: str, what: str) -> None:
    for x, (text, color) in ((1.35, start), (8.65, end)):
        box = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": color, "lw": 2}
        axes.text(x, y, text, ha="center", va="center", fontsize=11, bbox=box)
    axes.add_patch(FancyArrowPatch((2.75, y), (7.05, y), arrowstyle="-|>", mutation_scale=16, lw=2, color="black"))
    axes.text(4.9, y + 0.22, maps, ha="center", fontsize=12)
    axes.text(4.9, y - 0.48, what, ha="center", fontsize=10, color="#444444")


def particles(clouds: Mapping[str, Tensor]) -> Figure:
    """Clouds of points (n, 2) side by side, in one frame."""
    figure = Figure(figsize=(2.6 * len(clouds), 3.0), dpi=80, layout="compressed")
    panels = figure.subplots(1, len(clouds), sharex=True, sharey=True, squeeze=False)[0]
    markers = (("o", "muted"), ("^", "latent"), ("s", "model"), ("D", "data"))
    for i, (axes, (title, x), (marker, color)) in enumerate(zip(panels, clouds.items(), markers, strict=False)):
        axes.plot(*x[:900].T, marker, ms=2.2, mew=0, alpha=0.7, color=COLORS[color])
        axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal")
        tidy(axes, title, "x₁", "" if i else "x₂")
    return figure
