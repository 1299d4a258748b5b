"""What stands between couplings: shuffle, reverse, rotate; the best axes for one coupling; ActNorm's start."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

from flowlab.bijections import (
    ActNorm,
    AffineCoupling,
    Bijection,
    Chain,
    FullAffine,
    LULinear,
    Permutation,
    alternating_mask,
)
from flowlab.datasets import EightGaussians, TwoCircles, TwoMoons, mnist
from flowlab.densities import Flow, StandardNormal, evaluating
from flowlab.lessons.base.picture import Picture
from flowlab.plotting.plane import log_density, plane
from flowlab.plotting.style import COLORS, DENSITY, tidy
from flowlab.training import train

# --- data whose density is known --------------------------------------------------------------------------------------


class Bananas:
    """D/2 bananas side by side, seen through x = Q u: log p(x) = Σ log p(u_i, u_j), since |det Q| = 1; exact, in nats.

    A banana: u_i ~ N(0, 1), and u_j ~ N(bend · (u_i² − 1), width²). Its two coordinates are neighbors in u. Q is the
    identity, or with ``turned`` an orthogonal matrix drawn from ``seed``. Shapes ``(..., D)`` and ``(...)``.
    """

    def __init__(
        self, features: int = 2, *, turned: bool = False, seed: int = 0, bend: float = 0.8, width: float = 0.3
    ) -> None:
        if features < 2 or features % 2:
            raise ValueError(f"Bananas expected an even number of features, but got {features}.")
        self.features, self.bend, self.width = features, bend, width
        self.Q = torch.eye(features)
        if turned:
            self.Q = torch.linalg.qr(torch.randn(features, features, generator=Generator().manual_seed(seed))).Q

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        return self.from_noise(torch.randn(n, self.features // 2, 2, generator=generator))

    def from_noise(self, eps: Tensor) -> Tensor:
        """x of standard normal noise, ``(n, D/2, 2)`` to ``(n, D)``."""
        u = torch.stack((eps[..., 0], self.bend * (eps[..., 0] ** 2 - 1) + self.width * eps[..., 1]), -1)
        return u.flatten(1) @ self.Q.T.to(u)

    def log_prob(self, x: Tensor) -> Tensor:
        u = (x @ self.Q.to(x)).unflatten(-1, (-1, 2))  # (..., D/2, 2)
        eps = (u[..., 1] - self.bend * (u[..., 0] ** 2 - 1)) / self.width
        return (-0.5 * (u[..., 0] ** 2 + eps**2) - math.log(2 * math.pi * self.width)).sum(-1)


def patches(split: str = "train", n: int = 20_000, *, seed: int = 0) -> Tensor:
    """n patches of 4×4 pixels from the bundled digits, with ink in half of them or more, dequantized: ``(n, 16)``.

    x = (v + u)/256 in [0, 1], in a random order; noise and order are drawn from ``seed``.
    """
    g = Generator().manual_seed(seed)
    v = mnist.digits(split)[0].unfold(1, 4, 4).unfold(2, 4, 4).reshape(-1, 16)
    v = v[(v > 0).sum(1) >= 8]
    v = v[torch.randperm(len(v), generator=g)[:n]]
    return (v + torch.rand(v.shape, generator=g)) / 256


# --- what may stand between two couplings ----------------------------------------------------------------------------

# Marker, line and color of each, everywhere in this family.
MIXINGS = {
    "reverse": ("s", ":", COLORS["muted"]),
    "shuffle": ("^", "--", COLORS["accent"]),
    "rotate": ("o", "-", COLORS["model"]),
}


def mixing(kind: str, features: int, generator: Generator | None = None) -> Bijection:
    """A map of D coordinates: "reverse" and "shuffle" are fixed, "rotate" is learned from a random rotation."""
    if kind == "reverse":
        return Permutation.reverse(features)
    if kind == "shuffle":
        return Permutation.random(features, generator)
    if kind == "rotate":
        return LULinear(features, generator=generator)
    raise ValueError(f"A mixing is one of {', '.join(MIXINGS)}, but got {kind!r}.")


def contender(kind: str, features: int, couplings: int = 4, *, hidden: Sequence[int] = (24, 24), seed: int = 0) -> Flow:
    """ActNorm, then ``couplings`` times (mixing, affine coupling): the first half of the coordinates always passes."""
    g = Generator().manual_seed(seed)
    half = torch.arange(features) < features // 2
    maps: list[Bijection] = [ActNorm(features)]
    for _ in range(couplings):
        maps += [mixing(kind, features, g), AffineCoupling(half, hidden, generator=g)]
    return Flow(Chain(maps), StandardNormal(features))


def normalized(norm: type[Bijection], seed: int = 0, *, features: int = 2, couplings: int = 6) -> Flow:
    """``couplings`` times (norm, affine coupling), the masks in turn: every even map is ``norm(features)``."""
    g, maps = Generator().manual_seed(seed), []
    for i in range(couplings):
        maps += [norm(features), AffineCoupling(alternating_mask(features, odd=i % 2 == 1), (32, 32), generator=g)]
    return Flow(Chain(maps), StandardNormal(features))


# --- the best that one affine coupling can do, without training -------------------------------------------------------


class Profile(NamedTuple):
    """What one affine coupling needs to know of a density in the plane, seen along one axis u₁."""

    middle: float  # of u₁
    spread: float
    means: np.ndarray  # of u₂ given u₁, at ``nodes``
    spreads: np.ndarray
    gauge: float  # nats to the truth, of the coupling that has exactly these


class OneCoupling:
    """For each angle, the best flow of one rotation and one affine coupling: no training, and no network limits it.

        u₁ passes, so q(u₁) is a normal; u₂ moves, so q(u₂|u₁) is one. The best of them have p's own moments, and
        KL(p‖q) = ½ log 2πe σ₁² + E[½ log 2πe σ₂²(u₁)] − H(p), in nats

    The integrals are sums over points ``(n, 2)`` with weights ``(n,)``; ``on_grid`` and ``of_banana`` make them. Angles
    are whole steps of ``STEP`` degrees, mod 360; the moments of u₂ are kept at nodes of u₁, ``cell`` apart.
    """

    STEP = 2

    def __init__(self, density: Any, points: Tensor, weights: Tensor, cell: float) -> None:
        log_p = log_density(density, points).double().numpy()
        self.points, self.cell = points.double().numpy(), cell
        self.p = (weights / weights.sum()).double().numpy()
        self.entropy = -float(self.p @ log_p)
        reach = math.ceil(np.linalg.norm(self.points, axis=1).max() / cell) + 1
        self.nodes = cell * np.arange(-reach, reach + 1)
        half = [self._profile(angle) for angle in range(0, 180, self.STEP)]
        # Half a turn: the same axis, read the other way.
        self.profiles = half + [
            f._replace(middle=-f.middle, means=-f.means[::-1], spreads=f.spreads[::-1]) for f in half
        ]
        self.gauges = np.array([profile.gauge for profile in self.profiles])

    @classmethod
    def on_grid(cls, density: Any, extent: float, size: int = 181) -> OneCoupling:
        """Points of a square grid from −extent to extent, weighted by p."""
        points = plane(extent, size).reshape(-1, 2)
        log_p = log_density(density, points)
        keep = log_p > -25
        return cls(density, points[keep], log_p[keep].exp(), 2 * extent / (size - 1))

    @classmethod
    def of_banana(cls, banana: Bananas, extent: float = 5.0, size: int = 241) -> OneCoupling:
        """The same in the noise that a banana is made from, since its arms are too thin and long for a square grid."""
        eps = plane(extent, size).reshape(-1, 1, 2)
        return cls(banana, banana.from_noise(eps), (-0.5 * eps.square().sum((1, 2))).exp(), 2 * extent / (size - 1))

    def __getitem__(self, angle: float) -> Profile:
        """The profile along the axis at this angle, in degrees."""
        return self.profiles[round(angle / self.STEP) % len(self.profiles)]

    def log_q(self, x: np.ndarray, angle: float) -> np.ndarray:
        """log q of the best flow at this angle: ``(..., 2)`` to ``(...)``."""
        u1, u2 = np.moveaxis(x @ axes_at(angle).T, -1, 0)
        f = self[angle]
        mean, spread = (np.interp(u1, self.nodes, values) for values in (f.means, f.spreads))
        return _log_normal(u1, f.middle, f.spread) + _log_normal(u2, mean, spread)

    def _profile(self, angle: float) -> Profile:
        u1, u2 = axes_at(angle) @ self.points.T
        at = u1 / self.cell + len(self.nodes) // 2
        left = np.floor(at).astype(int)
        share = at - left  # each point is shared between the two nodes beside it

        def summed(weights: np.ndarray) -> np.ndarray:
            n = len(self.nodes)
            return np.bincount(left, weights * (1 - share), n) + np.bincount(left + 1, weights * share, n)

        m, m1, m2 = summed(self.p), summed(self.p * u2), summed(self.p * u2 * u2)
        seen = m > 1e-9
        mean = m1[seen] / m[seen]
        spread = np.sqrt(np.maximum(m2[seen] / m[seen] - mean**2, 1e-6))
        middle = float(self.p @ u1)
        spread1 = math.sqrt(float(self.p @ u1**2) - middle**2)
        normal = math.log(2 * math.pi * math.e)
        gauge = normal + math.log(spread1) + float(m[seen] @ np.log(spread)) - self.entropy
        means, spreads = (np.interp(self.nodes, self.nodes[seen], values) for values in (mean, spread))
        return Profile(middle, spread1, means, spreads, gauge)


def axes_at(angle: float) -> np.ndarray:
    """The rotation whose first row, the axis that passes, lies at this angle in degrees: ``(2, 2)``."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array([[c, s], [-s, c]])


def _log_normal(u: np.ndarray, mean: np.ndarray | float, spread: np.ndarray | float) -> np.ndarray:
    return -0.5 * ((u - mean) / spread) ** 2 - np.log(spread) - 0.5 * math.log(2 * math.pi)


class Turned:
    """A density in the plane, turned by an angle in degrees: log p(x) = log p₀(u) with x = R u."""

    def __init__(self, density: Any, angle: float) -> None:
        self.density, self.R = density, torch.tensor(axes_at(angle).T, dtype=torch.float32)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        return self.density.sample(n, generator) @ self.R.T

    def log_prob(self, x: Tensor) -> Tensor:
        return self.density.log_prob(x @ self.R)


PLANE = {
    "banana": Bananas(2),
    "two moons": TwoMoons(),
    "eight Gaussians": EightGaussians(),
    "two circles": TwoCircles(noise=0.1),
}
EXTENTS = {"banana": 3.6, "two moons": 2.4, "eight Gaussians": 3.4, "two circles": 1.9}  # half the width of the picture


@lru_cache
def one_coupling(name: str) -> OneCoupling:
    """The best couplings for data of ``PLANE``, made once."""
    density = PLANE[name]
    return OneCoupling.of_banana(density) if name == "banana" else OneCoupling.on_grid(density, 1.25 * EXTENTS[name])


def learner(angle: float, *, hidden: Sequence[int] = (32, 32), seed: int = 0) -> Flow:
    """A learned matrix that starts as the rotation to ``angle``, ActNorm, and one affine coupling in the plane."""
    W = FullAffine(2)
    with torch.no_grad():
        W.matrix.copy_(torch.tensor(axes_at(angle)))
    coupling = AffineCoupling([True, False], hidden, generator=Generator().manual_seed(seed))
    return Flow(Chain([W, ActNorm(2), coupling]), StandardNormal(2))


def learned_angle(flow: Flow) -> float:
    """The angle of the first row of W, the axis that passes, in degrees from 0 to 180."""
    w = flow.bijection[0].matrix[0].detach()
    return math.degrees(math.atan2(float(w[1]), float(w[0]))) % 180


class Fitted(NamedTuple):
    """What is shown of a trained flow at one moment."""

    step: int
    angle: float
    gauge: float
    W: np.ndarray
    density: np.ndarray


class TurnTheAxes(Picture):
    """Left, data, the axes and the best coupling along them; middle, a trained flow with W's axes; right, both gauges.

    The line on the right is the least KL(p‖q) of one affine coupling for each angle of the axes.
    """

    SIZE, HELD_OUT = 90, 2000

    def __init__(self) -> None:
        super().__init__(10.8, 3.9)
        self.yours, self.trained, self.landscape = self.figure.subplots(1, 3)
        self.parts = {}
        titles = "yours: the best coupling\nalong these axes", "trained: W turned too"
        for axes, title in zip((self.yours, self.trained), titles, strict=True):
            tidy(axes, title, "x₁", "x₂")
            axes.set_aspect("equal")
            image = axes.imshow(np.zeros((2, 2)), origin="lower", cmap=DENSITY, vmin=0, vmax=1, interpolation="nearest")
            dots = axes.plot([], [], "o", ms=2.2, mew=0, color=COLORS["data"], alpha=0.7)[0]
            passes = axes.plot([], [], "-", color=COLORS["latent"], lw=2.5, marker="o", markevery=[1], ms=6)[0]
            moves = axes.plot([], [], "--", color=COLORS["truth"], lw=1.5, marker="^", markevery=[1], ms=6)[0]
            self.parts[axes] = (image, dots, passes, moves)
            self.moves(image, dots, passes, moves)
        self.middle = self.yours.plot([], [], color=COLORS["latent"], lw=1.2)[0]
        self.hint = self.trained.text(0.5, 0.93, "press Train", ha="center", fontsize=11, color=COLORS["muted"])
        self.hint.set_transform(self.trained.transAxes)
        self.moves(self.middle, self.hint)
        tidy(self.landscape, "nats to the truth, KL(p‖q)", "angle of the axis that passes, degrees", "nats")
        self.landscape.set(xlim=(-4, 184), ylim=(-0.12, 2.1), xticks=range(0, 181, 45))
        self.landscape.axhline(0, color=COLORS["truth"], ls="--", lw=1)
        self.curve = self.landscape.plot([], [], color=COLORS["latent"], lw=1.8)[0]
        self.here = self.landscape.plot([], [], "o", ms=9, color=COLORS["latent"])[0]
        self.path = self.landscape.plot([], [], ".", ms=4, color=COLORS["model"])[0]
        self.now = self.landscape.plot([], [], "^", ms=9, color=COLORS["model"])[0]
        self.moves(self.curve, self.here, self.path, self.now)
        self.fits: list[Fitted] = []
        self.trained_on: tuple[str, float] | None = None
        self.framed: str | None = None

    def begin(self, data: str, turn: float) -> Turned:
        """Forget an earlier training, and give the density for the next one."""
        self.fits, self.trained_on = [], (data, turn)
        density = Turned(PLANE[data], turn)
        self.held_out = density.sample(self.HELD_OUT, Generator().manual_seed(1))
        self.log_p = density.log_prob(self.held_out)
        return density

    @torch.no_grad()
    def add(self, step: int, flow: Flow) -> None:
        """Keep what the flow looks like after this step of its training."""
        gauge = float((self.log_p - flow.log_prob(self.held_out)).mean())
        shade = log_density(flow, plane(EXTENTS[self.trained_on[0]], self.SIZE)).exp().numpy()
        W = flow.bijection[0].matrix.numpy().copy()
        self.fits.append(Fitted(step, learned_angle(flow), gauge, W, shade))

    def update(self, data: str, turn: float, angle: float, snapshot: int = 0, **_: Any) -> dict[str, float | str]:
        best, extent = one_coupling(data), EXTENTS[data]
        density, own = Turned(PLANE[data], turn), angle - turn
        if data != self.framed:
            self.framed = data
            for axes in (self.yours, self.trained):
                axes.set(xlim=(-extent, extent), ylim=(-extent, extent))
            self.redraw_all()
        points = density.sample(400, Generator().manual_seed(0)).numpy().T
        grid = plane(extent, self.SIZE).double().numpy() @ density.R.double().numpy()
        fits = self.fits if self.trained_on == (data, turn) else []
        fit = fits[min(snapshot, len(fits) - 1)] if fits else None
        looks = [(self.yours, np.exp(best.log_q(grid, own)), axes_at(angle))]
        looks.append((self.trained, *((fit.density, fit.W) if fit else (np.zeros((2, 2)), None))))
        darkest = float(np.quantile(looks[0][1], 0.985))
        for axes, shade, W in looks:
            image, dots, *arrows = self.parts[axes]
            image.set(data=shade, extent=(-extent, extent, -extent, extent), clim=(0, darkest))
            dots.set_data(*points)
            for arrow in arrows:
                arrow.set_visible(W is not None)
            for row, arrow in zip(() if W is None else W, arrows, strict=False):
                x, y = 0.8 * extent * row / np.linalg.norm(row)
                arrow.set_data([0, x], [0, y])
        profile = best[own]
        seen = np.abs(best.nodes - profile.middle) < 2.5 * profile.spread
        self.middle.set_data(*(axes_at(angle).T @ np.stack((best.nodes, profile.means))[:, seen]))
        self.hint.set_visible(fit is None)

        angles = np.arange(0, 181, OneCoupling.STEP)
        gauges = np.array([best[a - turn].gauge for a in angles])
        self.curve.set_data(angles, gauges)
        self.here.set_data([angle], [profile.gauge])
        self.path.set_data([f.angle for f in fits], [f.gauge for f in fits])
        self.now.set_data(*(([fit.angle], [fit.gauge]) if fit else ([], [])))
        lowest = int(gauges.argmin())
        flat = float(np.ptp(gauges)) < 0.01
        return {
            "nats to the truth at your angle": profile.gauge,
            "least of all angles": float(gauges[lowest]),
            "at": "any angle" if flat else f"{angles[lowest]}°",
            **({"trained flow": fit.gauge, "its angle": f"{fit.angle:.0f}°", "step": str(fit.step)} if fit else {}),
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        yours, least, at, *trained = numbers.values()
        said = f"Along your axes the best coupling is {yours:.2f} nats from the truth, at best {least:.2f}, at {at}."
        if trained:
            said += f" A trained flow is at {trained[1]} and {trained[0]:.2f} nats after step {trained[2]}."
        return said


# --- the budget race --------------------------------------------------------------------------------------------------


class Lap(NamedTuple):
    """Where one contender is after a step: nats to the truth, and samples in the hidden coordinates u."""

    step: int
    gauge: float
    samples: np.ndarray


class BudgetRace(Picture):
    """Three flows that differ in their mixing alone: nats by step, and samples of each in the plane of one banana.

    ``run(features, couplings, turned, steps, seed)`` trains them in turn, a few steps each, and keeps ``laps``.
    """

    KEPT, SHOWN = 16, 500

    def __init__(self) -> None:
        super().__init__(11.2, 3.2)
        self.race, *panels = self.figure.subplots(1, 4, width_ratios=(1.35, 1, 1, 1))
        tidy(self.race, "nats to the truth, KL(p‖q)", "training step", "nats")
        self.race.axhline(0, color=COLORS["truth"], ls="--", lw=1)
        self.lines, self.marks, self.clouds = {}, {}, {}
        for panel, (kind, (marker, dash, color)) in zip(panels, MIXINGS.items(), strict=True):
            self.lines[kind] = self.race.plot([], [], dash, color=color, lw=2, label=kind)[0]
            self.marks[kind] = self.race.plot([], [], marker, color=color, ms=8)[0]
            tidy(panel, kind, "$u_i$", "$u_j$")
            panel.set(xlim=(-3.2, 3.2), ylim=(-2.6, 5.2))
            data = panel.plot([], [], "o", ms=2, mew=0, color=COLORS["data"], alpha=0.35)[0]
            self.clouds[kind] = data, panel.plot([], [], marker, ms=2.5, mew=0, color=color)[0]
            self.moves(self.lines[kind], self.marks[kind], *self.clouds[kind])
        self.race.legend(self.lines.values(), self.lines, frameon=False, fontsize=8)
        self.laps: dict[str, list[Lap]] = {kind: [] for kind in MIXINGS}

    def run(
        self, features: int = 8, couplings: int = 4, turned: bool = True, steps: int = 400, seed: int = 0
    ) -> Iterator[int]:
        """Train all three with the same budget; yields the step that all have reached. The laps can be looked at."""
        density = Bananas(features, turned=turned)
        x, held_out = (density.sample(n, Generator().manual_seed(s)) for n, s in ((4000, 1), (1500, 2)))
        log_p, self.data = density.log_prob(held_out), (held_out @ density.Q).numpy()[: self.SHOWN]
        self.laps = {kind: [] for kind in MIXINGS}
        self.race.set(xlim=(-0.02 * steps, 1.02 * steps), ylim=(-0.15, 0.75 * features))
        self.redraw_all()
        flows = {kind: contender(kind, features, couplings, seed=seed) for kind in MIXINGS}
        how = {"steps": steps, "batch_size": 256, "learning_rate": 5e-3, "seed": seed}
        runs = {kind: train(flow, x, **how) for kind, flow in flows.items()}
        keep = {max(1, round(steps * (i / self.KEPT) ** 1.5)) for i in range(1, self.KEPT + 1)}

        def lap(kind: str, step: int) -> None:
            flow = flows[kind]
            with evaluating(flow):
                gauge = float((log_p - flow.log_prob(held_out)).mean())
                u = flow.sample(self.SHOWN, Generator().manual_seed(3)) @ density.Q
            self.laps[kind].append(Lap(step, gauge, u.numpy()))

        try:
            for step in range(1, steps + 1):
                for kind, training in runs.items():
                    next(training)
                    if step in keep:
                        lap(kind, step)
                yield step
        finally:
            for training in runs.values():
                training.close()

    def update(self, lap: int, banana: int, **_: Any) -> dict[str, float | str]:
        done = min(map(len, self.laps.values()))
        lap, numbers = min(lap, done - 1), {}
        pair = slice(2 * banana - 2, 2 * banana)
        for kind, laps in self.laps.items():
            shown = laps[lap]
            self.lines[kind].set_data([a.step for a in laps[:done]], [a.gauge for a in laps[:done]])
            self.marks[kind].set_data([shown.step], [shown.gauge])
            for cloud, points in zip(self.clouds[kind], (self.data, shown.samples), strict=True):
                cloud.set_data(*points[:, pair].T)
            numbers[kind] = shown.gauge
        return {"after step": str(self.laps["rotate"][lap].step), **numbers}

    def describe(self, numbers: dict[str, float | str]) -> str:
        step, *gauges = numbers.values()
        said = ", ".join(f"{kind} {value:.2f}" for kind, value in zip(MIXINGS, gauges, strict=True))
        return f"After step {step} the three flows are so many nats from the truth: {said}. Blue dots are the data."


# --- figures for the notebook -----------------------------------------------------------------------------------------


def race_curves(results: dict[str, dict[str, Sequence[Any]]], offsets: dict[str, float]) -> Figure:
    """Nats to the truth by step: a panel for each data set, a thin line for each seed, the mean of the seeds thick.

    ``results[data][mixing]`` is a list of Histories with validation losses; ``offsets[data]`` the mean exact log p.
    """
    figure = Figure(figsize=(4.4 * len(results), 3.2), dpi=80, layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (data, runs) in zip(panels, results.items(), strict=True):
        tidy(axes, data, "training step", "" if axes is not panels[0] else "nats to the truth")
        axes.axhline(0, color=COLORS["truth"], ls="--", lw=1)
        for kind, histories in runs.items():
            marker, dash, color = MIXINGS[kind]
            steps = list(histories[0].validation)
            curves = np.array([list(h.validation.values()) for h in histories]) + offsets[data]
            axes.plot(steps, curves.T, dash, color=color, lw=0.7, alpha=0.6)
            axes.plot(steps, curves.mean(0), dash, marker=marker, ms=5, color=color, lw=2.2, label=kind)
        axes.set_ylim(bottom=-0.1)
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def matrix_axes(flows: dict[str, Flow], data: Tensor, *, extent: float = 3.6) -> Figure:
    """Trained densities with the rows of W as axes: the solid one with a dot passes, the dashed one moves."""
    figure = Figure(figsize=(2.7 * len(flows), 2.9), dpi=80, layout="constrained")
    for axes, (title, flow) in zip(figure.subplots(1, len(flows), squeeze=False)[0], flows.items(), strict=True):
        tidy(axes, title, "x₁", "x₂")
        p = log_density(flow, plane(extent, 120)).exp().numpy()
        frame = (-extent, extent, -extent, extent)
        axes.imshow(p, origin="lower", extent=frame, cmap=DENSITY, vmin=0, vmax=float(np.quantile(p, 0.985)))
        axes.plot(*data[:400].T, "o", ms=1.6, mew=0, color=COLORS["data"], alpha=0.6)
        styles = (("-", "o", COLORS["latent"]), ("--", "^", COLORS["truth"]))
        for row, (dash, marker, color) in zip(flow.bijection[0].matrix.detach().numpy(), styles, strict=True):
            x, y = 0.8 * extent * row / np.linalg.norm(row)
            axes.plot([0, x], [0, y], dash, marker=marker, markevery=[1], color=color, lw=2)
        axes.set(xlim=frame[:2], ylim=frame[2:])
    return figure


def starts(histories: dict[str, Any], offset: float) -> Figure:
    """Nats above the truth by step, both axes logarithmic: what a first batch is worth."""
    figure = Figure(figsize=(6.2, 3.3), dpi=80, layout="constrained")
    title = "training loss above that of the exact density"
    axes = tidy(figure.subplots(), title, "step (log scale)", "nats (log scale)")
    styles = zip(("-", ":", "--", "-."), "o^sD", ("latent", "muted", "accent", "validation"), strict=True)
    for (name, history), (dash, marker, color) in zip(histories.items(), styles, strict=False):
        loss = np.asarray(history.loss) + offset
        edges = np.unique(np.round(np.geomspace(1, len(loss) + 1, 16)).astype(int)) - 1
        means = [loss[a:b].mean() for a, b in itertools.pairwise(edges)]
        axes.plot(edges[:-1] + 1, means, dash, marker=marker, ms=5, color=COLORS[color], lw=1.6, label=name)
    axes.set(xscale="log", yscale="log")
    axes.legend(frameon=False, fontsize=8)
    return figure
