"""NICE on digits, as pictures: samples that cool, the spectrum 1/S, interpolation, hidden pixels filled in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Generator, Tensor
from torch.nn import functional as F

from flowlab.densities import Flow
from flowlab.lessons.base.picture import Picture
from flowlab.lessons.nice_on_mnist.toys import BITS, SIDE, D, cooled, masks, shipped, test_digits, typical
from flowlab.plotting.style import COLORS, tidy
from flowlab.restoration import wander, widths

PATIENCE = 250  # steps of filling in
EVERY = 5  # steps from one kept picture to the next
BRUSH = 2  # pixels on each side of the pointer
YOURS = "yours: paint on the left"
ROWS = {  # what is filled in together: title of its tile, rule, color and dashes of its curve
    "MAP": ("map", COLORS["model"], "-"),
    "Langevin 1": ("langevin", COLORS["latent"], "-"),
    "Langevin 2": ("langevin", COLORS["latent"], "--"),
    "Langevin 3": ("langevin", COLORS["latent"], ":"),
    "the paper's noise": ("nice", COLORS["validation"], "--"),
}
COOLING = ("scale z by τ", "draw from p^(1/τ²)")


class CoolSamples(Picture):
    """Left, samples at a temperature τ with the k widest latent directions; middle, 1/S; right, their log p in nats."""

    LINES, COLUMNS, MANY = 4, 6, 160

    def __init__(self, flow: Flow | None = None) -> None:
        super().__init__(11.6, 3.9)
        self.flow = flow or shipped()
        S = widths(self.flow).reciprocal()
        self.order = S.argsort()  # widest directions first
        self.width = (1 / S)[self.order].numpy()
        self.log_det = float(S.log().sum())
        mean, _, self.mode = typical(self.flow)
        self.draws = {}
        left, middle, right = self.figure.subplots(1, 3, width_ratios=(1.45, 1, 1.25))
        shape = (self.LINES * SIDE, self.COLUMNS * SIDE)
        self.page = tidy(left, f"{self.LINES * self.COLUMNS} samples").imshow(
            np.zeros(shape), cmap="gray_r", vmin=0, vmax=1, interpolation="none"
        )
        left.axis("off")
        k = np.arange(1, D + 1)
        tidy(middle, "how far each direction reaches", "latent direction, widest first", "1/S").set_yscale("log")
        middle.plot(k, self.width, color=COLORS["muted"], lw=1.5)
        self.kept = middle.plot([], [], color=COLORS["latent"], lw=4, label="drawn")[0]
        self.end = middle.plot([], [], "o", color=COLORS["latent"], mec="black", ms=7)[0]
        middle.set(xlim=(-15, D + 15))
        low, high = mean - 1000, self.mode + 60
        self.bins = np.linspace(low, high, 81)
        tidy(right, "log p(x), nats on [0, 1]", "nats (the first bar holds all lower ones)", "share").set(
            xlim=(low, high), ylim=(0, 0.5)
        )
        with torch.no_grad():
            test = self.flow.log_prob(test_digits()[0]).numpy()
        right.stairs(self._share(test), self.bins, fill=True, color=COLORS["data"], alpha=0.5, label="test digits")
        right.axvline(self.mode, color=COLORS["truth"], ls="--", lw=1.5, label="the most likely image, f⁻¹(0)")
        self.bars = right.stairs(
            np.zeros(80), self.bins, baseline=None, color=COLORS["model"], lw=2, label="these samples"
        )
        for axes in (middle, right):
            axes.legend(frameon=False, fontsize=8, loc="upper left" if axes is right else "upper right")
        self.moves(self.page, self.kept, self.end, self.bars)

    def _share(self, log_p: np.ndarray) -> np.ndarray:
        """The share in each bin; what lies outside goes to the bin at that end."""
        return np.histogram(np.clip(log_p, self.bins[0], self.bins[-1]), self.bins)[0] / len(log_p)

    def latent(self, tau: float, cooling: str, keep: int, seed: int) -> Tensor:
        """The z that is drawn: ``(MANY, 784)``; all but the ``keep`` widest directions are 0."""
        if seed not in self.draws:
            self.draws[seed] = self.flow.base.sample(self.MANY, Generator().manual_seed(seed)).double().numpy()
        z = self.draws[seed]
        z = tau * z if cooling == COOLING[0] else cooled(z, tau**2)
        z = torch.from_numpy(z).to(next(self.flow.parameters()))
        z[:, self.order[keep:]] = 0
        return z

    def update(self, tau: float, cooling: str, keep: int, seed: int) -> dict[str, float | str]:
        z = self.latent(tau, cooling, keep, seed)
        log_p = self.flow.base.log_prob(z).numpy() + self.log_det  # the same determinant everywhere
        with torch.no_grad():
            x = self.flow.bijection.inverse(z[: self.LINES * self.COLUMNS])[0]
        page = x.clamp(0, 1).view(self.LINES, self.COLUMNS, SIDE, SIDE).transpose(1, 2)
        self.page.set_data(page.reshape(self.LINES * SIDE, self.COLUMNS * SIDE).numpy())
        self.kept.set_data(np.arange(1, keep + 1), self.width[:keep])
        self.end.set_data([keep], [self.width[max(keep, 1) - 1]])
        self.bars.set_data(self._share(log_p).clip(max=0.49))
        return {
            "mean log p of these samples": float(log_p.mean()),
            "nats below f⁻¹(0)": float(self.mode - log_p.mean()),
            "ink outside of [0, 1]": float(((x < 0) | (x > 1)).float().mean()),
            "deviation of a pixel": float(x.std(0).mean()),
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        log_p, below, _, spread = numbers.values()
        return (
            f"24 samples of a NICE. Their mean log p is {log_p:.0f} nats, {below:.0f} below the most likely image; a "
            f"pixel varies by {spread:.3f} from one to the next."
        )


class FillIn(Picture):
    """Left, a digit with its hidden pixels; middle, what three rules put there; right, log p at each step, in nats.

    ``painted`` is the mask called ``YOURS``. ``fill`` makes a run, and ``update`` shows it at a step.
    """

    GAP = 4  # columns between two tiles

    def __init__(self, flow: Flow | None = None, steps: int = PATIENCE) -> None:
        super().__init__(11.6, 4.1)
        self.flow, self.steps = flow or shipped(), steps
        x, labels = test_digits()
        self.images = torch.stack([x[labels == digit][:10] for digit in range(10)])  # (10, 10, 784)
        # The chains part from three samples, so that what they agree on is not where they began.
        starts = self.flow.sample(300, Generator().manual_seed(0)).view(10, 10, 3, D)
        self.starts = starts[:, :, [0, 0, 1, 2, 0]]  # as ROWS
        with torch.no_grad():
            self.own_log_p = self.flow.log_prob(self.images).tolist()
        self.masks = masks()
        self.painted = torch.zeros(D, dtype=torch.bool)
        self.runs: dict[tuple, tuple[list[Tensor], list[Tensor]]] = {}
        panels = self.figure.subplot_mosaic(
            [["given", "first", "path"], ["given", "second", "path"]], width_ratios=(1, 1.4, 1.5)
        )
        self.left, right = tidy(panels["given"], "orange is hidden: paint here"), panels["path"]
        self.given = self.left.imshow(np.zeros((SIDE, SIDE, 3)), interpolation="none")
        self.strips = []
        tiles = [*ROWS, "the original"]
        for axes, names in ((panels["first"], tiles[:3]), (panels["second"], tiles[3:])):
            strip = np.zeros((SIDE, 3 * SIDE + 2 * self.GAP))
            self.strips.append(axes.imshow(strip, cmap="gray_r", vmin=0, vmax=1, interpolation="none"))
            for j, name in enumerate(names):
                axes.text(j * (SIDE + self.GAP) + SIDE / 2, -2, name, ha="center", va="bottom", fontsize=9)
        for axes in (self.left, panels["first"], panels["second"]):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        mean, spread, mode = typical(self.flow)
        self.low, self.high = mean - 600, mode + 80
        tidy(right, "log p(x), nats on [0, 1]", "step", "nats").set(xlim=(0, steps), ylim=(self.low, self.high))
        right.axhspan(mean - 2 * spread, mean + 2 * spread, color=COLORS["muted"], alpha=0.3, lw=0)
        right.text(0.97 * steps, mean - 2 * spread - 12, "samples of the flow", ha="right", va="top", fontsize=8)
        right.axhline(mode, color=COLORS["muted"], lw=1, ls="--")
        right.text(0.97 * steps, mode + 12, "the most likely image", ha="right", va="bottom", fontsize=8)
        self.curves = {
            name: right.plot([], [], ls=line, color=color, lw=3.5 if name == "MAP" else 1.8, label=name)[0]
            for name, (_, color, line) in ROWS.items()
        }
        self.own = right.axhline(0, color=COLORS["truth"], lw=1.5, label="the original")
        self.now = right.axvline(0, color=COLORS["accent"], lw=1.5)
        right.legend(frameon=False, fontsize=8, loc="lower right", ncols=2)
        self.moves(self.given, *self.strips, *self.curves.values(), self.own, self.now)

    def hidden(self, mask: str) -> Tensor:
        """The pixels that a mask hides."""
        return self.painted if mask == YOURS else self.masks[mask]

    def paint(self, x: float, y: float) -> None:
        """Hide the pixels around a point of the left image."""
        i, j = int(y + 0.5), int(x + 0.5)
        self.painted = self.painted.clone()
        self.painted.view(SIDE, SIDE)[max(i - BRUSH, 0) : i + BRUSH + 1, max(j - BRUSH, 0) : j + BRUSH + 1] = True

    def fill(self, digit: int, which: int, mask: str) -> Iterator[int]:
        """Fill the hidden pixels in, by all rules at once; yields the number of steps done, while the run grows."""
        hidden, start = self._start(digit, which, mask)
        if len(self.runs) > 20:
            self.runs.clear()
        frames, log_p = self.runs[self._key(digit, which, mask)] = ([], [])
        steps = wander(
            self.flow.log_prob,
            start,
            [rule for rule, _, _ in ROWS.values()],
            steps=self.steps,
            widths=widths(self.flow),
            free=hidden,
            generator=Generator().manual_seed(10 * digit + which),
        )
        for step, (x, value) in enumerate(steps):
            log_p.append(value)
            if step % EVERY == 0:
                frames.append(x)
            yield step

    def _key(self, digit: int, which: int, mask: str) -> tuple:
        """What names a run: the image and the pixels that are hidden."""
        return digit, which, self.hidden(mask).numpy().tobytes()

    def _start(self, digit: int, which: int, mask: str) -> tuple[Tensor, Tensor]:
        """The hidden pixels, and the image with those of samples there, one for each row."""
        hidden = self.hidden(mask)
        return hidden, torch.where(hidden, self.starts[digit, which], self.images[digit, which])

    def update(self, digit: int, which: int, mask: str, step: int) -> dict[str, float | str]:
        x, (hidden, start) = self.images[digit, which], self._start(digit, which, mask)
        frames, log_p = self.runs.get(self._key(digit, which, mask)) or ([], [])
        state = f"step {min(step, len(log_p) - 1)}" if frames else "press Fill in"
        if not frames:
            with torch.no_grad():
                frames, log_p = [start], [self.flow.log_prob(start)]
        at, own = min(step // EVERY, len(frames) - 1), self.own_log_p[digit][which]
        self._show(x, hidden, frames[at])
        path = torch.stack(log_p).numpy()
        for curve, values in zip(self.curves.values(), path.T, strict=True):
            curve.set_data(np.arange(len(values)), np.clip(values, self.low, self.high))
        self.own.set_ydata([np.clip(own, self.low, self.high)] * 2)
        self.now.set_xdata([at * EVERY] * 2)
        here = dict(zip(ROWS, path[min(at * EVERY, len(path) - 1)].tolist(), strict=True))
        return {
            "hidden pixels": f"{int(hidden.sum())}",
            "log p of the original": own,
            "MAP": here["MAP"],
            "Langevin, mean of three": float(np.mean([value for name, value in here.items() if "Langevin" in name])),
            "the paper's noise": here["the paper's noise"],
            "state": state,
        }

    def _show(self, x: Tensor, hidden: Tensor, filled: Tensor) -> None:
        ink = np.repeat(1 - x.view(SIDE, SIDE, 1).numpy(), 3, -1)
        veil = 0.55 * np.array(to_rgb(COLORS["accent"])) + 0.45
        self.given.set_data(np.where(hidden.view(SIDE, SIDE, 1).numpy(), veil, ink))
        tiles = F.pad(torch.cat((filled, x[None])).clamp(0, 1).view(2, 3, SIDE, SIDE), (0, self.GAP))
        for image, row in zip(self.strips, tiles.transpose(1, 2).flatten(2).numpy(), strict=True):
            image.set_data(row[:, : -self.GAP])

    def describe(self, numbers: dict[str, float | str]) -> str:
        count, own, climbed, drawn, paper, state = numbers.values()
        return (
            f"A digit with {count} of 784 pixels hidden and filled in, {state}. Its log p is {own:.0f} nats; of MAP "
            f"{climbed:.0f}, of Langevin {drawn:.0f}, of the paper's noise {paper:.0f}."
        )


def bits_falling(history: Any, others: Mapping[str, float]) -> Figure:
    """Bits per dimension by step, training and validation, from losses in nats; ``others`` are levels to compare."""
    figure = Figure(figsize=(7, 3), dpi=80, layout="constrained")
    axes = tidy(figure.subplots(), "training, step by step", "step", "bits per dimension")
    loss, width = np.asarray(history.loss) / BITS, max(1, len(history.loss) // 100)
    smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
    axes.plot(np.arange(len(smooth)) + width // 2, smooth, color=COLORS["model"], lw=1.5, label="training")
    steps, held_out = list(history.validation), np.array(list(history.validation.values())) / BITS
    axes.plot(steps, held_out, "o", ms=4, color=COLORS["validation"], label="validation")
    for (name, level), style in zip(others.items(), ("--", ":", "-."), strict=False):
        axes.axhline(level, color=COLORS["truth"], lw=1, ls=style, label=name)
    axes.set(ylim=(min([*others.values(), *held_out]) - 0.2, 8.2))
    axes.legend(frameon=False, fontsize=8)
    figure.set_label(f"Validation falls from {held_out[0]:.2f} to {held_out.min():.2f} bits per dimension.")
    return figure


def interpolation(strips: Mapping[str, Tensor], log_p: Mapping[str, Tensor], worse: float) -> Figure:
    """Above, strips of images from one end to the other ``(n, 784)``; below, log p along each, and the worse end."""
    figure = Figure(figsize=(9, 4.1), dpi=80, layout="constrained")
    *rows, below = figure.subplots(len(strips) + 1, 1, height_ratios=[1] * len(strips) + [3.2])
    styles = zip(("-", "--", ":"), ("o", "^", "s"), (COLORS["model"], COLORS["data"], COLORS["latent"]), strict=True)
    for axes, (name, images), (line, marker, color) in zip(rows, strips.items(), styles, strict=False):
        strip = images.view(len(images), SIDE, SIDE).clamp(0, 1).transpose(0, 1).flatten(1)
        tidy(axes).imshow(strip.numpy(), cmap="gray_r", vmin=0, vmax=1, aspect="auto")
        axes.axis("off")
        axes.set_title(name, fontsize=10, loc="left")
        w = np.linspace(0, 1, len(log_p[name]))
        below.plot(w, log_p[name].numpy(), line, marker=marker, ms=4, markevery=5, color=color, label=name)
    tidy(below, "", "share of the way", "log p(x), nats")
    below.axhline(worse, color=COLORS["truth"], lw=1, ls="--", label="the worse end")
    below.legend(frameon=False, fontsize=8)
    lowest = ", ".join(f"{name} {float(values.min()):.0f}" for name, values in log_p.items())
    figure.set_label(f"Images from one digit to another; lowest log p on the way, in nats: {lowest}.")
    return figure


def log_likelihoods(groups: Mapping[str, Tensor], mode: float) -> Figure:
    """Histograms of log p(x) in nats, one for each name, and where the most likely image stands."""
    figure = Figure(figsize=(8, 2.8), dpi=80, layout="constrained")
    axes = tidy(
        figure.subplots(), "", "log p(x), nats on [0, 1] (the first bar holds all lower ones)", "share of images"
    )
    low = min(float(values.quantile(0.02)) for values in groups.values())
    bins = np.linspace(low, mode + 30, 90)
    for (name, values), color, fill in zip(
        groups.items(), (COLORS["data"], COLORS["model"]), (True, False), strict=True
    ):
        shares = np.histogram(values.numpy().clip(low), bins)[0] / len(values)
        axes.stairs(shares, bins, fill=fill, color=color, alpha=0.5 if fill else 1, lw=2, label=name)
    axes.axvline(mode, color=COLORS["truth"], ls="--", label="the most likely image")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    means = ", ".join(f"{name} {float(values.mean()):.0f}" for name, values in groups.items())
    figure.set_label(f"Mean log p in nats: {means}; the most likely image {mode:.0f}.")
    return figure


def spectra(curves: Mapping[str, Tensor]) -> Figure:
    """1/S by direction, widest first, a curve for each name; and the widths of one at their pixels."""
    figure = Figure(figsize=(8.6, 3), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    tidy(left, "1/S, widest direction first", "direction", "1/S").set_yscale("log")
    styles = ("-", "--", ":")
    palette = (COLORS["model"], COLORS["data"], COLORS["latent"])
    for (name, width), line, color in zip(curves.items(), styles, palette, strict=False):
        left.plot(np.sort(width.numpy())[::-1], line, color=color, lw=2, label=name)
    left.legend(frameon=False, fontsize=8)
    name, width = next(iter(curves.items()))
    image = tidy(right, f"1/S at its pixel: {name}").imshow(width.log10().view(SIDE, SIDE).numpy(), cmap="viridis")
    right.axis("off")
    figure.colorbar(image, ax=right, label="log₁₀ 1/S")
    ends = ", ".join(f"{name} {float(w.max()):.3g} to {float(w.min()):.3g}" for name, w in curves.items())
    figure.set_label(f"The spectrum 1/S from widest to narrowest: {ends}; the widest lie in the middle of the image.")
    return figure


def temperatures(tau: float) -> Figure:
    """The logistic density, scaled by τ, and its power 1/τ², on linear and on logarithmic axes."""
    z = np.linspace(-9, 9, 2001)
    log_p = -np.logaddexp(0, z) - np.logaddexp(0, -z)
    power = log_p / tau**2
    power -= np.log(np.exp(power).sum() * (z[1] - z[0]))
    scaled = -np.logaddexp(0, z / tau) - np.logaddexp(0, -z / tau) - math.log(tau)
    figure = Figure(figsize=(8.6, 2.8), dpi=80, layout="constrained")
    for axes, shown, name in zip(figure.subplots(1, 2), (np.exp, np.asarray), ("density", "log density"), strict=True):
        tidy(axes, "", "z", name)
        axes.plot(z, shown(log_p), color=COLORS["muted"], lw=1.5, label="p, logistic")
        axes.plot(z, shown(scaled), color=COLORS["model"], lw=2, label=f"τ z, τ = {tau:g}")
        axes.plot(z, shown(power), "--", color=COLORS["latent"], lw=2, label=f"∝ p^(1/τ²) = p^{1 / tau**2:.2g}")
    axes.legend(frameon=False, fontsize=8)
    figure.set_label(f"Scaled by {tau:g} the tails stay heavier than those of the power 1/τ².")
    return figure
