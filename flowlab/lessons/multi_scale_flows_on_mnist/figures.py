"""Several scales in one latent, as pictures: squeezed pixels, levels drawn anew, digits moved along an attribute."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from torch import Tensor

from flowlab import pretrained
from flowlab.bijections import levels
from flowlab.datasets import mnist
from flowlab.densities import Dequantized
from flowlab.lessons.base.picture import Picture
from flowlab.plotting.style import COLORS, COMPONENT_COLORS, tidy

SIDE = 28
D = SIDE**2
HATCHES = ("", "//", "..", "xx")

# --- the digits and the model -----------------------------------------------------------------------------------------


@functools.lru_cache
def model() -> Dequantized:
    """The multi-scale flow that comes with the package."""
    return pretrained.load("glow_mnist")


@torch.no_grad()
def encode(v: Tensor, seed: int = 0) -> Tensor:
    """The latents of digits with noise: whole numbers ``(n, 784)`` to ``(n, 784)``."""
    u = torch.rand(v.shape, generator=torch.Generator().manual_seed(seed))
    return model().density.bijection(model().dequantize(v, u))[0]


@torch.no_grad()
def decode(z: Tensor) -> Tensor:
    """The images of latents, cut off at [0, 1]: ``(n, 784)`` to ``(n, 784)``."""
    return model().density.bijection.inverse(z)[0].clamp(0, 1)


@functools.lru_cache
def training() -> tuple[Tensor, Tensor, Tensor]:
    """The bundled training digits in [0, 1], ``(5000, 784)``, half their squared lengths, and their labels."""
    v, labels = mnist.digits("train")
    x = (v.flatten(1) + 0.5) / 256
    return x, x.square().sum(-1) / 2, labels


def nearest(x: Tensor) -> tuple[Tensor, Tensor]:
    """For images ``(n, 784)`` in [0, 1] the nearest bundled training digit, its row and its distance: ``(n,)`` each."""
    others, half, _ = training()
    score, row = (x @ others.T - half).max(-1)  # −|x − y|²/2 up to |x|²/2
    return row, (x.square().sum(-1) - 2 * score).clamp_min(0).sqrt()


def read(x: Tensor) -> Tensor:
    """What images ``(n, 784)`` in [0, 1] read as: the labels ``(n,)`` of the nearest training digits."""
    return training()[2][nearest(x)[0]]


# --- attributes -------------------------------------------------------------------------------------------------------


def slant(x: Tensor) -> Tensor:
    """How far the ink moves to the right for each pixel that it moves up: images ``(..., 784)`` to ``(...)``.

    −cov(row, column)/var(row), with the ink as weights: a least-squares line through the digit, from its second
    moments. 0 is upright, positive leans like "/".
    """
    w = x / x.sum(-1, keepdim=True).clamp_min(1e-6)
    row, column = (axis.flatten().to(x) for axis in torch.meshgrid(*[torch.arange(SIDE)] * 2, indexing="ij"))
    di, dj = (axis - (w * axis).sum(-1, keepdim=True) for axis in (row, column))
    return -(w * di * dj).sum(-1) / (w * di * di).sum(-1).clamp_min(1e-6)


def thickness(x: Tensor) -> Tensor:
    """Mean ink: images ``(..., 784)`` in [0, 1] to ``(...)``. A large thin digit has as much as a small thick one."""
    return x.mean(-1)


ATTRIBUTES: dict[str, Callable[[Tensor], Tensor]] = {"slant": slant, "thickness": thickness}


def extremes(value: Tensor, labels: Tensor, each: int = 20) -> tuple[Tensor, Tensor]:
    """Rows of the ``each`` lowest and highest values of every digit: two ``(10 · each,)``."""
    rows = [(labels == digit).nonzero().flatten() for digit in labels.unique()]
    ordered = [r[value[r].argsort()] for r in rows]
    return torch.cat([r[:each] for r in ordered]), torch.cat([r[-each:] for r in ordered])


@functools.lru_cache
def direction(attribute: str) -> Tensor:
    """Mean latent of the digits with much of an attribute, less that of those with little: ``(784,)``."""
    x, _, labels = training()
    low, high = extremes(ATTRIBUTES[attribute](x), labels)
    v = mnist.digits("train")[0].flatten(1)
    return encode(v[high]).mean(0) - encode(v[low]).mean(0)


@functools.lru_cache
def examples(digit: int, n: int) -> Tensor:
    """The first ``n`` test images of a digit that the nearest training digit reads aright: ``(n, 784)``."""
    v, labels = mnist.digits("test")
    v = v.flatten(1)[labels == digit]
    return v[read((v + 0.5) / 256) == digit][:n]


def way(z0: Tensor, z1: Tensor, steps: int = 10, *, arc: bool) -> Tensor:
    """Latents on the way from each z0 to each z1, ``(n, 784)`` each to ``(n · steps, 784)``, one way after the other.

    Straight, (1 − w) z0 + w z1, or on an arc, cos(πw/2) z0 + sin(πw/2) z1.
    """
    w = torch.linspace(0, 1, steps)[:, None]
    a, b = ((math.pi / 2 * w).cos(), (math.pi / 2 * w).sin()) if arc else (1 - w, w)
    return (a * z0[:, None] + b * z1[:, None]).flatten(0, 1)


def strangers(v: Tensor) -> dict[str, Tensor]:
    """Images that are no digits, or digits as none are, from digits v ``(n, 784)``; 50 where none enter, all uint8."""
    empty = torch.zeros(50, D, dtype=torch.uint8)
    dot = empty.view(-1, SIDE, SIDE).clone()
    dot[:, 13:15, 13:15] = 255
    noise = torch.randint(0, 256, empty.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    turned = v.view(-1, SIDE, SIDE).rot90(1, (1, 2)).flatten(1)
    return {"turned": turned, "inverted": 255 - v, "noise": noise, "empty": empty, "one dot": dot.flatten(1)}


# Published bits per dimension on MNIST's test set, 28 × 28, each with its protocol. The first four as Residual Flow,
# arXiv:1906.02735, lists them; the others from the UvA deep learning tutorials.
PUBLISHED = {
    "RealNVP, multi-scale": (1.06, "uniform noise"),
    "Glow": (1.05, "uniform noise"),
    "FFJORD": (0.99, "uniform noise; chosen on test"),
    "Residual Flow": (0.97, "uniform noise; chosen on test"),
    "UvA notebook 11, simple": (1.078, "0.56 M weights; importance-sampled; chosen on validation"),
    "UvA notebook 11, learned noise": (1.043, "the same, with variational dequantization"),
    "UvA notebook 11, multi-scale": (1.020, "the same, 1.7 M weights"),
}

# --- explorers --------------------------------------------------------------------------------------------------------

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
        self.one, self.many = _strip(left, 1, 1, "the digit"), _strip(right, 1, DRAWS, "with new latents, five draws")
        self.map = middle.imshow(np.zeros((SIDE, SIDE)), cmap="Greens", vmin=0, vmax=1)
        tidy(middle, "new latents: green").set(xticks=[], yticks=[])
        self.names = [
            right.text((SIDE + 2) * (k + 0.5), SIDE + 4, "", ha="center", va="top", fontsize=10) for k in range(DRAWS)
        ]
        self.moves(self.one, self.map, self.many, *self.names)
        self.coarse = levels(model().density.bijection, (D,)) > 0  # (784,)
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
        axes.legend(loc="upper center", fontsize=8, frameon=False, ncol=2)
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


# --- figures ----------------------------------------------------------------------------------------------------------


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
        axes.set_title(name, fontsize=9)
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
        left.text(1.3, 0.5, f"{name}\nmedian {float(bits.median()):.2f}", va="center", fontsize=9)
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
