"""What a flow cannot do: the stretch that a hole or a gap asks for, and the probability that is left in it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowlab import pretrained
from flowlab.densities import Flow
from flowlab.lessons.base.picture import Picture
from flowlab.lessons.what_a_flow_cannot_do.toys import Region, gap, hole, measure
from flowlab.plotting.plane import log_density, plane
from flowlab.plotting.style import COLORS, COMPONENT_COLORS, COMPONENT_MARKERS, DENSITY, tidy

HELD_OUT, SHOWN = 2500, 600
EDGE = 3.6
LEAST = 1e-5  # of the probability axis: what is less is drawn there
FLOWS = {
    "1": "affine_1",
    "2": "affine_2",
    "4": "affine_4",
    "8": "affine_8",
    "16": "affine_16",
    "2 splines": "spline_2",
}

# Names of the flows, the region where the data are not, and how far the axis of the stretch goes.
SCENES = {"one ring": ("ring", hole, 1e3), "two blobs": ("blobs", gap, 3e5)}


class Scene(NamedTuple):
    """Everything about one data set: its region, held-out points, and each flow at each step with its measures."""

    region: Region
    x: Tensor
    labels: np.ndarray
    flows: dict[str, dict[int, Flow]]
    nats: dict[str, list[float]]
    measures: dict[str, np.ndarray]  # (S, 3)


def _scene(name: str, region: Region) -> Scene:
    """The flows of one data set and their measures."""
    exact = pretrained.density(f"{name}_affine_1")
    x = exact.sample(HELD_OUT, torch.Generator().manual_seed(7))
    log_p = exact.log_prob(x)
    # Four parts by place, so that the eye can follow: quarters of the ring, or the two blobs.
    quarter = (torch.atan2(x[:, 1], x[:, 0]) / (math.pi / 2)).floor().long() + 2
    labels = (x[:, 0] > 0).long() if region.left is not None else quarter.clamp(0, 3)
    flows = {label: pretrained.trajectory(f"{name}_{file}") for label, file in FLOWS.items()}
    nats = {
        label: [float((log_p - log_density(flow, x)).mean()) for flow in past.values()] for label, past in flows.items()
    }
    measures = {label: np.array([measure(flow, region) for flow in past.values()]) for label, past in flows.items()}
    return Scene(region, x, labels.numpy(), flows, nats, measures)


class BridgeAndStretch(Picture):
    """Left, the density and its hole or gap; middle, where that goes in latent space; right, what is left in it.

    On the right each dot is a flow at a step of its training; the line under the chosen flow's dots is the floor, below
    which no flow with that stretch can go.
    """

    def __init__(self, size: int = 80) -> None:
        super().__init__(10.6, 3.9)
        self.size = size
        self.scenes = {data: _scene(name, region()) for data, (name, region, _) in SCENES.items()}
        self.images: dict[tuple[str, str, int], np.ndarray] = {}
        self.shown: str | None = None
        self.left, self.middle, self.right = self.figure.subplots(1, 3)
        for axes in (self.left, self.middle):
            axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal")
        tidy(self.left, "the flow's density p(x)", "x₁", "x₂")
        tidy(self.middle, "latent space: data, and the empty region", "z₁", "z₂")
        tidy(self.right, "", "largest stretch z → x in the empty region", "probability there")
        self.right.set(xscale="log", yscale="log", ylim=(LEAST, 1.5), box_aspect=1)
        frame = (-EDGE, EDGE, -EDGE, EDGE)
        self.image = self.left.imshow(np.zeros((size, size)), origin="lower", extent=frame, cmap=DENSITY, vmin=0)
        black = {"color": COLORS["truth"], "lw": 1}
        self.outline = [self.left.plot([], [], ls="--", **black)[0] for _ in range(2)]
        angle = np.linspace(0, 2 * np.pi, 100)
        for radius in (1, 2, 3):
            self.middle.plot(radius * np.cos(angle), radius * np.sin(angle), color=COLORS["latent"], lw=0.8)
        dots = {"ms": 3, "alpha": 0.7, "mew": 0}
        self.clouds = [
            self.middle.plot([], [], marker, color=color, **dots)[0]
            for color, marker in zip(COMPONENT_COLORS[:4], COMPONENT_MARKERS, strict=False)
        ]
        self.squeezed = [self.middle.plot([], [], **black)[0] for _ in range(5)]
        self.others = self.right.plot([], [], ".", color=COLORS["muted"], ms=4, label="the other flows")[0]
        self.path = self.right.plot([], [], ".-", color=COLORS["model"], lw=1.2, label="this flow, as it trains")[0]
        self.floor = self.right.plot([], [], "_", color=COLORS["truth"], ms=7, label="floor for its stretch")[0]
        self.mark = self.right.plot([], [], "o", ms=10, color=COLORS["accent"], mec="black")[0]
        self.right.legend(frameon=False, fontsize=8, loc="lower left")
        self.moves(
            self.image, *self.outline, *self.clouds, *self.squeezed, self.others, self.path, self.floor, self.mark
        )

    @torch.no_grad()
    def update(self, data: str, couplings: str, snapshot: int) -> dict[str, float | str]:
        scene = self.scenes[data]
        region, past = scene.region, scene.flows[couplings]
        snapshot = min(snapshot, len(past) - 1)
        step = list(past)[snapshot]
        flow = past[step]
        if data != self.shown:
            self.right.set_xlim(0.7, SCENES[data][2])
            self.redraw_all()
            self.shown = data
        p = self._density(data, couplings, snapshot)
        self.image.set_data(p)
        self.image.set_clim(0, float(np.quantile(p[p > 0.01 * p.max()], 0.97)))
        for line, edge in zip(
            self.outline, region.lines[[-1, 0] if region.left is not None else [-1, -1]], strict=True
        ):
            line.set_data(*edge.T)
        z = flow.bijection(scene.x[:SHOWN])[0].numpy()
        for k, cloud in enumerate(self.clouds):
            cloud.set_data(*z[scene.labels[:SHOWN] == k].T)
        images = flow.bijection(region.lines)[0].numpy()
        for i, line in enumerate(self.squeezed):
            line.set_data(*(images[i].T if i < len(images) else ((), ())))
        measures = scene.measures[couplings]
        every = np.concatenate(list(scene.measures.values()))
        self.others.set_data(every[:, 1], every[:, 0].clip(min=LEAST))
        self.path.set_data(measures[:, 1], measures[:, 0].clip(min=LEAST))
        self.floor.set_data(measures[:, 1], measures[:, 2].clip(min=LEAST))
        probability, stretch, floor = measures[snapshot]
        self.mark.set_data([stretch], [max(probability, LEAST)])
        return {
            "training step": str(step),
            "nats to the truth": scene.nats[couplings][snapshot],
            f"probability in the {region.name}": f"{100 * probability:.2g} %",
            "largest stretch there": f"{stretch:.3g}",
            "floor for that stretch": f"{100 * floor:.2g} %",
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        _, _, (place, left), (_, stretch), _ = numbers.items()
        return (
            f"The flow of training step {numbers['training step']} leaves a {place} of {left}, and stretches latent "
            f"space there by up to {stretch}."
        )

    def _density(self, data: str, couplings: str, snapshot: int) -> np.ndarray:
        key = (data, couplings, snapshot)
        if key not in self.images:
            flow = list(self.scenes[data].flows[couplings].values())[snapshot]
            self.images[key] = log_density(flow, plane(EDGE, self.size)).exp().numpy()
        return self.images[key]
