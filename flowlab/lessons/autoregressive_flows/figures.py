"""Autoregressive flows: masks and paths, what one pixel moves, a stopwatch, an image that fills up, order."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Generator, Tensor

from flowlab import pretrained
from flowlab.lessons.autoregressive_flows.toys import (
    ARROWS,
    DEEPEST,
    ORDERS,
    PIXELS,
    SIDE,
    Sweep,
    chain,
    depends,
    digit,
    layers,
    milliseconds,
    processor_seconds,
    sweeps,
)
from flowlab.lessons.base.picture import Picture
from flowlab.networks import MaskedMLP
from flowlab.plotting.plane import log_density, plane
from flowlab.plotting.style import COLORS, DENSITY, tidy

SEEN = ListedColormap(["#FFFFFF", "#8CC5E8", "#F4B183"])  # nothing, may depend, what to look at

INPUTS = 6
WIDEST = 10
DEGREES = {"spread evenly": False, "drawn at random": True}
RULES = {"only to a higher degree (MADE)": False, "to the same degree too (a bug)": True}


class NetworkMasks(Picture):
    """Left, a masked network with the paths into one output; right, the product of its masks, sorted by the order."""

    def __init__(self) -> None:
        super().__init__(10.4, 4.2)
        self.left, self.right = self.figure.subplots(1, 2, width_ratios=(1.7, 1))
        tidy(self.left, "the network: each unit carries its degree")
        self.left.set(xlim=(-0.35, 3.35), ylim=(-1.05, 1.1), yticks=[])
        self.left.set_xticks(range(4), ["inputs x", "hidden", "hidden", "outputs s, t"])
        for side in ("left", "bottom"):
            self.left.spines[side].set_visible(False)
        self.kept = self.left.add_collection(LineCollection([], colors="#CCCCCC", linewidths=0.7), autolim=False)
        self.paths = self.left.add_collection(
            LineCollection([], colors=COLORS["accent"], linewidths=1.8), autolim=False
        )
        self.nodes = self.left.plot([], [], "o", ms=15, mfc="white", mec="#555555", zorder=3)[0]
        self.on_path = self.left.plot([], [], "o", ms=15, mfc="#FBE3B5", mec="black", mew=1.6, zorder=3)[0]
        # Numerals as markers: one artist for each degree draws ten times faster than a text for each unit.
        self.numerals = [
            self.left.plot([], [], ls="", marker=f"${k}$", color="black", ms=6, mew=0.3, zorder=4)[0]
            for k in range(INPUTS + 1)
        ]
        tidy(self.right, "product of the masks", "input, by its place in the order", "output, by its place")
        self.cells = self.right.imshow(np.zeros((INPUTS, INPUTS)), cmap=SEEN, vmin=0, vmax=2)
        at = range(INPUTS)
        self.right.set_xticks(at, [k + 1 for k in at])
        self.right.set_yticks(at, [k + 1 for k in at])
        edges = np.arange(INPUTS + 1) - 0.5
        grid = {"color": "#BBBBBB", "lw": 0.8, "zorder": 1}
        lines = (
            self.right.hlines(edges, -0.5, INPUTS - 0.5, **grid),
            self.right.vlines(edges, -0.5, INPUTS - 0.5, **grid),
        )
        mark = {"ls": "", "ms": 10, "color": "black"}
        self.lost = self.right.plot([], [], marker="o", mfc="none", label="allowed, but no path", **mark)[0]
        self.leaks = self.right.plot([], [], marker="x", mew=2.5, label="sees itself or later: a leak", **mark)[0]
        self.right.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
        self.moves(self.kept, self.paths, self.nodes, self.on_path, *self.numerals)
        self.moves(self.cells, *lines, self.lost, self.leaks)

    def update(self, width: int, output: int, seed: int, degrees: str, rule: str) -> dict[str, float | str]:
        network = _masked(width, seed, DEGREES[degrees])
        masks = [layer.mask.bool() for layer in (*network.hidden, network.last)]
        degree = network.degrees.split([len(mask) for mask in masks])
        degree = [*degree, network.place]
        if RULES[rule]:
            masks[-1] = degree[2][:, None] <= network.place
        columns = [_column(len(units)) for units in degree]
        i = output - 1  # below, which units lie on a path into output i
        live = [torch.zeros(len(units), dtype=torch.bool) for units in degree]
        live[-1][i] = True
        for n in (2, 1, 0):
            live[n] = (masks[n] & live[n + 1]).any(1)
        kept, paths = [], []
        for n, mask in enumerate(masks):
            for a, b in mask.nonzero().tolist():
                stroke = [(n, columns[n][a]), (n + 1, columns[n + 1][b])]
                (paths if live[n + 1][b] else kept).append(stroke)
        self.kept.set_segments(kept)
        self.paths.set_segments(paths)
        places = [(n, y, bool(live[n][u]), int(degree[n][u])) for n in range(4) for u, y in enumerate(columns[n])]
        for artist, wanted in ((self.nodes, False), (self.on_path, True)):
            artist.set_data([p[0] for p in places if p[2] is wanted], [p[1] for p in places if p[2] is wanted])
        for k, numeral in enumerate(self.numerals):
            numeral.set_data([p[0] for p in places if p[3] == k], [p[1] for p in places if p[3] == k])

        order = network.place.argsort()
        product = ((masks[0].double() @ masks[1].double() @ masks[2].double()) > 0).T  # (outputs, inputs)
        product = product[order][:, order]
        allowed = torch.ones(INPUTS, INPUTS).tril(-1).bool()
        row = int(network.place[i]) - 1
        shown = product.double()
        shown[row] *= 2
        self.cells.set_data(shown.numpy())
        for artist, where in ((self.lost, allowed & ~product), (self.leaks, product & ~allowed)):
            y, x = where.nonzero(as_tuple=True)
            artist.set_data(x.numpy(), y.numpy())
        return {
            "connections kept": f"{sum(int(m.sum()) for m in masks)} of {sum(m.numel() for m in masks)}",
            "pairs connected": f"{int((product & allowed).sum())} of {int(allowed.sum())} allowed",
            "leaks": int((product & ~allowed).sum()),
            f"inputs that output {output} sees": ", ".join(f"x{j + 1}" for j in order[product[row]].sort()[0])
            or "none",
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        *_, (name, seen) = numbers.items()
        return (
            f"A masked network with {numbers['connections kept']} connections; {name}: {seen}. The product of its "
            f"masks connects {numbers['pairs connected']} pairs, with {numbers['leaks']} leaks."
        )


@functools.lru_cache(maxsize=64)
def _masked(width: int, seed: int, random_degrees: bool) -> MaskedMLP:
    """A network of two hidden layers; seed 0 keeps the inputs as they stand, another one shuffles them."""
    generator = Generator().manual_seed(seed)
    order = torch.randperm(INPUTS, generator=generator) if seed else None
    return MaskedMLP(INPUTS, hidden=(width, width), order=order, random_degrees=random_degrees, generator=generator)


def _column(units: int) -> np.ndarray:
    """Heights of the units of a layer, the first one on top."""
    return np.linspace(0.95, -0.95, units) if units > 1 else np.zeros(1)


ORANGES = colormaps["Oranges"].with_extremes(bad="white")
FELT = 1e-9  # a change that is more than rounding; computed in float64


@functools.lru_cache
def _measured(depth: int) -> tuple[float, float]:
    """Milliseconds of the one-pass and of the D-pass direction of a MAF of that depth, one image each time."""
    maf, x = chain(ORDERS[1], depth, "MAF"), digit()
    return milliseconds(lambda: maf(x), 9), milliseconds(lambda: maf.inverse(x), 3)


class Flicker(Picture):
    """An image with one pixel changed, the outputs that feel it, all pairs that may, and both directions timed."""

    def __init__(self) -> None:
        super().__init__(11.4, 3.6)
        self.figure.get_layout_engine().set(w_pad=0.12)
        grid = self.figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.15))
        self.before, self.after, self.matrix, self.watch = grid
        self.x = digit()
        for depth in range(1, DEEPEST + 1):  # now, and not while someone moves a slider
            _measured(depth)
            for order in ORDERS:
                for arrow in ARROWS:
                    _latent(order, depth, arrow)
        frame = {"interpolation": "nearest"}
        tidy(self.before, "x: change one pixel\n(small numbers: the order)")
        self.before.imshow(self.x.view(SIDE, SIDE).numpy(), cmap="gray_r", vmin=0, vmax=1, **frame)
        for k, value in enumerate(self.x.tolist()):
            ink = "white" if value > 0.4 else "#777777"
            self.before.text(k % SIDE, k // SIDE, k + 1, ha="center", va="center", fontsize=6, color=ink)
        square = {"marker": "s", "ls": "", "ms": 20, "mfc": "none", "mec": COLORS["accent"], "mew": 3}
        self.chosen = self.before.plot([], [], **square)[0]
        tidy(self.after, "z: what flickers\n(darker: moves more; dot: not at all)")
        self.change = self.after.imshow(np.zeros((SIDE, SIDE)), cmap=ORANGES, vmin=0, vmax=1.1, **frame)
        self.same = self.after.plot([], [], ".", color="#999999", ms=4)[0]
        self.chosen_too = self.after.plot([], [], **square)[0]
        for axes in (self.before, self.after):
            axes.set(xticks=[], yticks=[])
        tidy(self.matrix, "all pairs: may $z_i$ feel $x_j$?\n(orange: your pixel)", "input $x_j$", "output $z_i$")
        self.cells = self.matrix.imshow(np.zeros((PIXELS, PIXELS)), cmap=SEEN, vmin=0, vmax=2, **frame)
        self.matrix.set_xticks([0, 24, 48], [1, 25, 49])
        self.matrix.set_yticks([0, 24, 48], [1, 25, 49])
        tidy(self.watch, "the stopwatch, measured here", "milliseconds (log scale)")
        self.watch.set(xscale="log", xlim=(0.01, 1000), ylim=(-0.6, 1.6))
        self.watch.set_yticks([1, 0], ["x → z\ndensity", "z → x\nsampling"])
        colors = (COLORS["data"], COLORS["model"])
        self.bars = [self.watch.plot([], [], lw=17, color=c, solid_capstyle="butt")[0] for c in colors]
        self.remarks = [self.watch.text(0.011, y, "", va="bottom", fontsize=9) for y in (1.2, 0.2)]
        self.moves(self.chosen, self.change, self.same, self.chosen_too, self.cells, *self.bars, *self.remarks)

    def update(self, pixel: int, size: float, depth: int, order: str, arrow: str) -> dict[str, float | str]:
        j = pixel - 1
        x = self.x.clone()
        x[j] += size
        z = chain(order, depth, arrow)(x)[0]
        moved = (z - _latent(order, depth, arrow)).abs()
        felt = moved > FELT
        # A faint change is a change: from white to orange at once, then darker with its logarithm.
        shade = torch.where(felt, 0.25 + 0.75 * ((moved.clamp(1e-5, 1).log10() + 5) / 5), torch.nan)
        self.change.set_data(np.ma.masked_invalid(shade.view(SIDE, SIDE).numpy()))
        y, at = (~felt).view(SIDE, SIDE).nonzero(as_tuple=True)
        self.same.set_data(at.numpy(), y.numpy())
        for mark in (self.chosen, self.chosen_too):
            mark.set_data([j % SIDE], [j // SIDE])
        self.chosen.set_markerfacecolor(str(1 - min(max(float(x[j]), 0), 1)))  # the gray that it has now
        may = _pairs(order, depth)
        shown = may.double()
        shown[:, j] *= 2
        self.cells.set_data(shown.numpy())
        one, many = _measured(depth)
        passes = (depth, depth * PIXELS)
        timed = ((one, passes[0]), (many, passes[1]))
        timed = timed if arrow == "MAF" else timed[::-1]
        for bar, remark, (taken, count), height in zip(self.bars, self.remarks, timed, (1, 0), strict=True):
            bar.set_data([0.01, taken], [height, height])
            remark.set_text(f"{count} pass{'es' * (count > 1)}: {taken:.2g} ms")
        return {
            "outputs that flicker": f"{int(felt.sum())} of {PIXELS}",
            "that may, by the masks": int(may[:, j].sum()),
            "pairs that may depend": f"{int(may.sum())} of {PIXELS**2}",
            "passes x → z": timed[0][1],
            "passes z → x": timed[1][1],
            "slow over fast": f"{many / one:.0f} times",
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"One pixel is changed, and {numbers['outputs that flicker']} outputs flicker. Density takes "
            f"{numbers['passes x → z']} passes of a network and sampling {numbers['passes z → x']}: the slow direction "
            f"takes {numbers['slow over fast']} as long."
        )


@functools.lru_cache
def _latent(order: str, depth: int, arrow: str) -> Tensor:
    return chain(order, depth, arrow)(digit())[0]


@functools.lru_cache
def _pairs(order: str, depth: int) -> Tensor:
    """The same for both arrows: a triangular map with a full triangle has a triangular inverse, as full."""
    return depends(layers(order)[:depth])


SHOWN = 8  # samples


class Filling(Picture):
    """Sampling the MAF on digits, pass by pass: each sweep fills an image from the one before, the last one the digit.

    Until its last sweep an image shows numbers near 0 in gray; the last one shows pixels. What is not known yet is
    orange.
    """

    def __init__(self) -> None:
        super().__init__(11.4, 2.5)
        flow = pretrained.load("maf_mnist").density
        z = flow.base.sample(SHOWN, Generator().manual_seed(0))
        started = processor_seconds()
        self.sweeps, x = sweeps(flow.bijection, z)
        self.seconds = processor_seconds() - started
        self.milliseconds = milliseconds(lambda: flow.log_prob(x.clamp(1e-4, 1 - 1e-4)), 3)
        last = self.sweeps[-1]
        self.sweeps[-1] = Sweep(x, last.place)  # logits are hard to look at: show what they become
        self.z, self.D = z, z.shape[1]
        side = round(self.D**0.5)
        self.images = []
        for n, axes in enumerate(self.figure.subplots(1, len(self.sweeps) + 1)):
            way = ""
            if n:
                way = "top to bottom" if int(self.sweeps[n - 1].place[0]) == 1 else "bottom to top"
            tidy(axes, f"sweep {n}: {way}" if n else "z ~ N(0, I)").set(xticks=[], yticks=[])
            gray = colormaps["gray_r" if n == len(self.sweeps) else "gray"].with_extremes(bad="#FBE3B5")
            low, high = (0, 1) if n == len(self.sweeps) else (-2.5, 2.5)
            image = axes.imshow(np.zeros((side, side)), cmap=gray, vmin=low, vmax=high, interpolation="nearest")
            self.images.append(image)
        self.images[0].axes.set_xlabel("start")
        self.images[-1].axes.set_xlabel("the digit")
        self.moves(*self.images)

    @property
    def total(self) -> int:
        """How many passes of a network the samples take."""
        return len(self.sweeps) * self.D

    def update(self, passes: int, sample: int) -> dict[str, float | str]:
        n = sample - 1
        self.images[0].set_data(self.z[n].view(*self.images[0].get_array().shape).numpy())
        for m, (image, sweep) in enumerate(zip(self.images[1:], self.sweeps, strict=True)):
            known = sweep.place <= passes - m * self.D
            values = torch.where(known, sweep.values[n], torch.nan).view(*image.get_array().shape)
            image.set_data(np.ma.masked_invalid(values.numpy()))
        known = min(max(passes - (len(self.sweeps) - 1) * self.D, 0), self.D)
        return {
            "passes": f"{passes} of {self.total}",
            "pixels of the digit known": f"{known} of {self.D}",
            f"measured: {SHOWN} samples": f"{1000 * self.seconds:.0f} ms",
            f"density of {SHOWN} images": f"{self.milliseconds:.1f} ms",
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"Sampling after {numbers['passes']} passes: of the digit {numbers['pixels of the digit known']} pixels "
            "are known. Each sweep fills an image, in turn from the top and from the bottom."
        )


def stopwatches(sizes: Sequence[int], taken: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """For each model, by dimension, the milliseconds of log_prob and of sample, both on logarithmic axes."""
    figure = Figure(figsize=(9.6, 3.2), dpi=80, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name, which in zip(panels, ("log_prob: x → z", "sample: z → x"), (0, 1), strict=True):
        tidy(axes, name, "dimensions D", "" if which else "milliseconds, median").set(xscale="log", yscale="log")
        for (model, times), marker, color in zip(taken.items(), "os^", ("model", "latent", "data"), strict=False):
            # The last line is dashed, since it lies on another one in either panel.
            dash = "--" if model == list(taken)[-1] else "-"
            values = [pair[which] for pair in times]
            axes.plot(sizes, values, dash, marker=marker, color=COLORS[color], lw=2, label=model)
        axes.set_xticks(sizes, sizes)
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8)
    return figure


def moons(models: Mapping[str, Any], nats: Sequence[float], extent: Any = (-4.0, 10.0, -7.0, 7.0)) -> Figure:
    """Densities in one row, on one scale of darkness that the first one sets, each with its nats to the truth."""
    figure = Figure(figsize=(1.95 * len(models), 2.5), dpi=80, layout="constrained")
    points = plane(extent, 120)
    images = [log_density(model, points).exp().numpy() for model in models.values()]
    panels = figure.subplots(1, len(models), sharey=True)
    for axes, name, image, value in zip(panels, models, images, nats, strict=True):
        tidy(axes, f"{name}\n{value:.2f} nats", "x₁", "" if axes is not panels[0] else "x₂")
        axes.imshow(image, origin="lower", extent=extent, cmap=DENSITY, vmin=0, vmax=0.9 * images[0].max())
    return figure
