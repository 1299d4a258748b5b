"""Several scales in one latent, as pictures: squeezed pixels, levels drawn anew, digits moved along an attribute."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from torch import Tensor

from flowlab.lessons.base.picture import Picture
from flowlab.lessons.multi_scale_flows_on_mnist.toys import (
    ATTRIBUTES,
    SIDE,
    D,
    decode,
    direction,
    encode,
    examples,
    levels,
    read,
    training,
)
from flowlab.plotting.style import COLORS, COMPONENT_COLORS, tidy

HATCHES = ("", "//", "..", "xx")

DRAWS = 5
REACH, BINS = (-4.0, 4.0), 40  # of the axis of an attribute, in standard deviations


def _strip(axes: Axes, rows: int, columns: int, title: str) -> AxesImage:
    """Axes for ``rows`` by ``columns`` images, and the artist that shows them."""
    artist = axes.imshow(np.zeros((rows * (SIDE + 2), columns * (SIDE + 2))), cmap="gray_r", vmin=0, vmax=1)
    axes.set_title(title, fontsize=10, loc="left")
    axes.axis("off")
    return artist


def _page(x: Tensor, columns: int) -> np.ndarray:
    """Images ``(rows · columns, 784)`` side by side, with a white margin around each."""
    framed = torch.nn.functional.pad(x.reshape(-1, columns, SIDE, SIDE), (1, 1, 1, 1))
    return framed.transpose(1, 2).flatten(2, 3).flatten(0, 1).numpy()


class ResampleLevels(Picture):
    """A digit, and what becomes of it when the latents of a level are drawn anew: five draws at a time.

    Latents turn from the digit's own to new ones, z = cos(πw/2) z + sin(πw/2) τ e, so that with temperature τ = 1 they
    stay normal all the way.
    """

    def __init__(self) -> None:
        super().__init__(9.6, 2.1)
        left, middle, right = self.figure.subplots(1, 3, width_ratios=[1, 1, DRAWS])
        self.one, self.many = _strip(left, 1, 1, "the digit"), _strip(right, 1, DRAWS, "with new latents: five draws")
        self.map = middle.imshow(np.zeros((SIDE, SIDE)), cmap="Greens", vmin=0, vmax=1)
        tidy(middle, "green: new").set(xticks=[], yticks=[])
        self.names = [
            right.text((SIDE + 2) * (k + 0.5), SIDE + 4, "", ha="center", va="top", fontsize=10) for k in range(DRAWS)
        ]
        self.moves(self.one, self.map, self.many, *self.names)
        self.coarse = levels() > 0  # (784,)
        self.digits = torch.cat([examples(digit, 1) for digit in range(10)])
        self.z = encode(self.digits)

    def update(self, digit: int, coarse: float, fine: float, temperature: float, seed: int) -> dict[str, float | str]:
        e = torch.randn(DRAWS, D, generator=torch.Generator().manual_seed(int(seed)))
        w = torch.where(self.coarse, coarse, fine)
        angle = math.pi / 2 * w
        x = decode(angle.cos() * self.z[digit] + temperature * angle.sin() * e)
        old = (self.digits[digit] + 0.5) / 256
        seen = read(x).tolist()
        self.one.set_data(_page(old, 1))
        self.map.set_data(w.view(SIDE, SIDE).numpy())
        self.many.set_data(_page(x, DRAWS))
        for name, label in zip(self.names, seen, strict=True):
            name.set_text(f"reads as {label}")
        return {
            "still read as the digit it was": f"{seen.count(digit)} of {DRAWS}",
            "mean change of a pixel, in gray levels": float(255 * (x - old).abs().mean()),
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"A digit with new latents, five times: {numbers['still read as the digit it was']} still read as the "
            f"digit it was, and a pixel changes by {numbers['mean change of a pixel, in gray levels']:.0f} gray levels "
            "in the mean."
        )


class AlongAttribute(Picture):
    """Four digits moved along the latent direction of an attribute, and the attribute measured on them."""

    def __init__(self) -> None:
        super().__init__(9.6, 2.9)
        left, axes = self.figure.subplots(1, 2, width_ratios=[1.6, 1])
        self.strip = _strip(left, 2, 4, "as they are (above), and moved (below)")
        tidy(axes, "gray: training digits of this kind", "the attribute, in standard deviations of all digits")
        axes.set(xlim=REACH, ylim=(0, 1.7), yticks=[])
        self.kind = axes.stairs(np.zeros(BINS), np.linspace(*REACH, BINS + 1), fill=True, color="#C8C8C8")
        self.before = axes.plot([], [], "o", mfc="white", mec=COLORS["data"], ms=8, label="as they are")[0]
        self.after = axes.plot([], [], "D", color=COLORS["accent"], mec="black", ms=8, label="moved")[0]
        axes.legend(loc="upper center", fontsize=10, frameon=False, ncol=2)
        self.moves(self.strip, self.kind, self.before, self.after)
        self.v = {digit: examples(digit, 4) for digit in range(10)}
        self.z = dict(zip(self.v, encode(torch.cat(list(self.v.values()))).split(4), strict=True))
        x, _, labels = training()
        self.unit, self.histograms = {}, {}
        for name, measure in ATTRIBUTES.items():
            value = measure(x)
            self.unit[name] = value.mean(), value.std()
            direction(name)  # now, and not under the first move
            for digit in range(10):
                counts = np.histogram(self._standard(name, value[labels == digit]), BINS, REACH)[0]
                self.histograms[name, digit] = counts / counts.max()

    def _standard(self, attribute: str, value: Tensor) -> Tensor:
        mean, std = self.unit[attribute]
        return ((value - mean) / std).clamp(*REACH)

    def update(self, digit: int, attribute: str, amount: float) -> dict[str, float | str]:
        old = (self.v[digit] + 0.5) / 256
        x = decode(self.z[digit] + amount * direction(attribute))
        before, after = (ATTRIBUTES[attribute](images) for images in (old, x))
        heights = (1.4, 1.3, 1.2, 1.1)
        self.strip.set_data(_page(torch.cat((old, x)), 4))
        self.kind.set_data(self.histograms[attribute, digit])
        self.before.set_data(self._standard(attribute, before), heights)
        self.after.set_data(self._standard(attribute, after), heights)
        return {
            f"mean {attribute} before": float(before.mean()),
            "after": float(after.mean()),
            "still read as the digit they were": f"{int((read(x) == digit).sum())} of 4",
            "moved by, in standard deviations of z": float(abs(amount) * direction(attribute).norm()),
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        name = next(iter(numbers)).removeprefix("mean ").removesuffix(" before")
        return (
            f"Four digits moved along {name}: its mean goes from {numbers[f'mean {name} before']:.2f} to "
            f"{numbers['after']:.2f}; {numbers['still read as the digit they were']} still read as they did."
        )


def numbered(panels: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """For each name an image of whole numbers ``(C, H, W)``, its channels side by side, colored by a group of each."""
    wide = {name: value.shape[0] * (value.shape[2] + 0.6) for name, (value, _) in panels.items()}
    high = max(value.shape[1] for value, _ in panels.values())
    figure = Figure(figsize=(0.36 * sum(wide.values()) + 0.3, 0.36 * high + 0.6), dpi=80, layout="constrained")
    row = figure.subplots(1, len(panels), width_ratios=list(wide.values()), squeeze=False)[0]
    for axes, (name, (value, group)) in zip(row, panels.items(), strict=True):
        C, H, W = value.shape
        for (c, i, j), number in np.ndenumerate(value.int().numpy()):
            g = int(group.expand(C, H, W)[c, i, j])
            x, y = c * (W + 0.6) + j, (high - H) / 2 + i
            color = COMPONENT_COLORS[g]
            axes.add_patch(Rectangle((x, y), 1, 1, fc=(color, 0.28), ec="#BBBBBB", lw=0, hatch=HATCHES[g % 4]))
            axes.add_patch(Rectangle((x, y), 1, 1, fc="none", ec="white", lw=1.5))
            axes.text(x + 0.5, y + 0.52, str(number), ha="center", va="center", fontsize=10)
        axes.set(xlim=(-0.2, wide[name] - 0.4), ylim=(high + 0.1, -0.1), aspect="equal")
        axes.axis("off")
        axes.set_title(name, fontsize=10)
    said = []
    for name, (value, group) in panels.items():
        groups = group.expand_as(value)
        parts = [f"{int(g)}: {', '.join(map(str, value[groups == g].int().tolist()))}" for g in group.unique()]
        said.append(f"{name}, color " + "; ".join(parts))
    figure.set_label("Numbered pixels. " + ". ".join(said) + ".")
    return figure


def bits_of_sets(sets: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """For each name one image ``(784,)`` in [0, 1] and a histogram of bits per dimension ``(n,)``, on one log axis."""
    every = torch.cat([bits for _, bits in sets.values()])
    edges = np.geomspace(float(every.min()) / 1.2, float(every.max()) * 1.2, 60)
    figure = Figure(figsize=(9.6, 0.5 * len(sets) + 0.7), dpi=80, layout="constrained")
    rows = figure.subplots(len(sets), 2, width_ratios=[1, 4.5], squeeze=False)
    first = next(iter(sets.values()))[1].median()
    for (left, axes), (name, (image, bits)) in zip(rows, sets.items(), strict=True):
        left.imshow(image.reshape(SIDE, SIDE).numpy(), cmap="gray_r", vmin=0, vmax=1, extent=(0, 1, 0, 1))
        left.add_patch(Rectangle((0, 0), 1, 1, fc="none", ec="#BBBBBB"))
        left.text(1.3, 0.5, f"{name}\nmedian {float(bits.median()):.2f}", va="center", fontsize=10)
        left.set(xlim=(-0.05, 4.2), ylim=(-0.05, 1.05))
        left.axis("off")
        tidy(axes).hist(bits.numpy(), edges, color=COLORS["data" if axes is rows[0, 1] else "model"])
        axes.axvline(float(first), color=COLORS["data"], ls=":", lw=1.2)
        axes.plot([float(bits.median())], [0], "^", color="black", ms=7, clip_on=False)
        axes.set(xscale="log", yticks=[], xticks=[0.1, 0.2, 0.5, 1, 2, 5, 10], xlim=(edges[0], edges[-1]))
        axes.xaxis.set_minor_formatter("")
        axes.xaxis.set_major_formatter("{x:g}" if axes is rows[-1, 1] else "")
    axes.set_xlabel("bits per dimension (logarithmic axis): likely on the left, unlikely on the right")
    medians = ", ".join(f"{name} {float(bits.median()):.2f}" for name, (_, bits) in sets.items())
    figure.set_label(f"Histograms of bits per dimension, one for each set of images. Medians: {medians}.")
    return figure
