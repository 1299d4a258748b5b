"""A mixture of flows on digits: who takes which, what each has learned, and one latent point through all of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

from flowlab.densities import Dequantized
from flowlab.lessons.base.picture import Picture
from flowlab.lessons.the_mixture_of_flows_on_mnist.toys import clusters, middle, model_named, taken, test_digits
from flowlab.plotting.style import COLORS, COMPONENT_COLORS, DENSITY, tidy

SIDE = 28
MODELS = ("mixture_mnist", "mixture_mnist_labels", "mixture_mnist_five")
CORNERS = 4
OWN = "images that q gives to the component they came from"
NOTABLE = 0.15  # a digit that makes up so much of what a component takes is named


def title_of(shares: np.ndarray) -> str:
    """The digits that make up a component, the commonest first, or "none"."""
    order = np.argsort(-shares)
    return " and ".join(str(digit) for digit in order if shares[digit] >= NOTABLE) or "none"


def sheet(images: Tensor, columns: int) -> np.ndarray:
    """``(n, 784)`` in [0, 1] as one image of ``columns`` columns, one white pixel between them; n a multiple of it."""
    framed = torch.nn.functional.pad(images.reshape(-1, SIDE, SIDE).float().clamp(0, 1), (1, 1, 1, 1))
    rows = framed.unflatten(0, (-1, columns)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    return rows.numpy()


class OneStyle(Picture):
    """Left, a square of latent points with a real digit in each corner; right, the point through all K components.

    A corner is the latent of its digit under its own component. Between corners z = Σ a_i z_i with Σ a_i² = 1, so that
    a point there is a draw from the base like any other.
    """

    def __init__(self, name: str = MODELS[0]) -> None:
        super().__init__(10.4, 3.9)
        self.model = model_named(name)
        self.v, self.labels = test_digits(name)
        self.anchors = functools.lru_cache(8)(self._anchors)  # of this picture, and forgotten with it
        shares = taken(self.model, self.v, self.labels)
        K = self.model.density.components
        self.columns = math.ceil(K / 2) if K > 5 else K
        self.rows = math.ceil(K / self.columns)
        self.left, self.right = self.figure.subplots(1, 2, width_ratios=(1, 2.2))
        tidy(self.left, "drag the point between four real digits", "across", "up")
        self.left.set(xlim=(-0.32, 1.32), ylim=(-0.32, 1.32), xticks=[0, 1], yticks=[0, 1], aspect="equal")
        self.left.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0], color=COLORS["muted"], lw=0.8)
        places = [(0, 0), (1, 0), (0, 1), (1, 1)]
        size = 0.15
        self.corners = [
            self.left.imshow(
                np.zeros((SIDE, SIDE)),
                cmap="gray_r",
                vmin=0,
                vmax=1,
                extent=(x - size + (x - 0.5) * 0.3, x + size + (x - 0.5) * 0.3, *_around(y, size)),
                zorder=1,
            )
            for x, y in places
        ]
        self.left.set(xlim=(-0.32, 1.32), ylim=(-0.32, 1.32))
        self.here = self.left.plot([], [], "o", ms=11, color=COLORS["latent"], mec="black", zorder=4)[0]
        tidy(self.right, "the same z through each component").axis("off")
        blank = np.zeros((self.rows * (SIDE + 2), self.columns * (SIDE + 2)))
        self.page = self.right.imshow(blank, cmap="gray_r", vmin=0, vmax=1)
        for k in range(K):
            row, column = divmod(k, self.columns)
            self.right.text(
                column * (SIDE + 2) + 1.5,
                row * (SIDE + 2) + 1.5,
                title_of(shares[:, k]),
                fontsize=9,
                weight="bold",
                va="top",
                color="#8a5a00",
                zorder=5,
            )
        self.moves(*self.corners, self.here, self.page, *self.right.texts)

    def _anchors(self, seed: int) -> tuple[Tensor, Tensor]:
        """Four digits ``(4, 784)`` and their latents ``(4, 784)``."""
        rows = torch.randperm(len(self.v), generator=Generator().manual_seed(seed))[:CORNERS]
        v = self.v[rows]
        z = self.model.density.encode(middle(v))[torch.arange(CORNERS), clusters(self.model, v)]
        return v, z

    def latent(self, seed: int, across: float, up: float, temperature: float) -> Tensor:
        """z at a place of the square, ``(784,)``."""
        a = torch.tensor([(1 - across) * (1 - up), across * (1 - up), (1 - across) * up, across * up])
        return temperature * (a / a.norm()) @ self.anchors(seed)[1]

    @torch.no_grad()
    def update(self, seed: int, across: float, up: float, temperature: float) -> dict[str, float | str]:
        for artist, v in zip(self.corners, self.anchors(seed)[0], strict=True):
            artist.set_data(v.reshape(SIDE, SIDE).numpy() / 255)
        z = self.latent(seed, across, up, temperature)
        x = self.model.density.decode(z).clamp(0, 1)  # (K, 784)
        K = len(x)
        blank = torch.zeros(self.rows * self.columns - K, x.shape[-1])
        self.page.set_data(sheet(torch.cat((x, blank)), self.columns))
        self.here.set_data([across], [up])
        own = self.model.density.posterior(x).argmax(-1) == torch.arange(K)
        return {"‖z‖": float(z.norm()), OWN: f"{int(own.sum())} of {K}"}

    def describe(self, numbers: dict[str, float | str]) -> str:
        own = numbers[OWN]
        return (
            f"Left, a point between four handwritten digits; right, the images that the components make of its latent, "
            f"of norm {numbers['‖z‖']:.1f}. q gives {own} of them to the component that they came from."
        )


def _around(y: float, size: float) -> tuple[float, float]:
    return y - size + (y - 0.5) * 0.3, y + size + (y - 0.5) * 0.3


class InsideAComponent(Picture):
    """Left, the digits that a component takes; middle, real images it takes; right, images that it makes.

    Of a shipped model by name with the bundled test digits, or of any ``model`` with ``images`` and ``labels``.
    """

    COLUMNS, ROWS = 5, 4

    def __init__(
        self,
        name: str = MODELS[0],
        *,
        model: Dequantized | None = None,
        images: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        super().__init__(10.4, 3.4)
        if model is None:
            model, (images, labels) = model_named(name), test_digits(name)
        self.model, self.v, self.labels = model, images, labels
        q = self.model.density.posterior(middle(self.v)).detach()
        self.cluster, self.sure = q.argmax(-1), q.max(-1).values
        self.left, self.middle, self.right = self.figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
        self.shares = taken(model, images, labels)
        digits = np.arange(len(self.shares))
        tidy(self.left, "what it takes", "digit", "share of what it takes").set(ylim=(0, 1.03), xticks=digits)
        self.bars = self.left.bar(digits, np.zeros(len(digits)))
        self.pages = []
        for axes, title in ((self.middle, "real digits that it takes"), (self.right, "digits that it makes")):
            tidy(axes, title).axis("off")
            blank = np.zeros((self.ROWS * (SIDE + 2), self.COLUMNS * (SIDE + 2)))
            self.pages.append(axes.imshow(blank, cmap="gray_r", vmin=0, vmax=1))
        self.z = torch.randn(self.ROWS * self.COLUMNS, self.v.shape[-1], generator=Generator().manual_seed(0))
        self.moves(*self.bars, *self.pages)

    @torch.no_grad()
    def update(self, component: int, temperature: float, unsure: bool) -> dict[str, float | str]:
        shares = self.shares[:, component]
        for bar, share in zip(self.bars, shares, strict=True):
            bar.set_height(share)
            bar.set_color(COMPONENT_COLORS[component])
        mine = (self.cluster == component).nonzero()[:, 0]
        order = self.sure[mine].argsort(descending=not unsure, stable=True)
        count = self.ROWS * self.COLUMNS
        shown = self.v[mine[order[:count]]].float() / 255
        blank = torch.zeros(count - len(shown), shown.shape[-1])
        self.pages[0].set_data(sheet(torch.cat((shown, blank)), self.COLUMNS))
        made = self.model.density.decode(temperature * self.z)[:, component]
        self.pages[1].set_data(sheet(made, self.COLUMNS))
        return {
            "component": str(component),
            "mostly": title_of(shares),
            "takes": f"{len(mine)} of {len(self.v)}",
            "largest share of one digit": float(shares.max()),
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"Component {numbers['component'].split()[0]} takes {numbers['takes']} test digits, mostly "
            f"{numbers['mostly']}; beside them, images that it makes."
        )


def table(counts: np.ndarray, title: str, names: Sequence[Any] | None = None) -> Figure:
    """A contingency table ``(digits, K)``: each row as shares of its digit, the number of images written in."""
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    C, K = counts.shape
    figure = Figure(figsize=(max(4.8, 1.6 + 0.5 * K), 1.3 + 0.34 * C), dpi=80, layout="constrained")
    axes = tidy(figure.subplots(), title, "component", "digit")
    axes.imshow(shares, cmap=DENSITY, vmin=0, vmax=1, aspect="auto")
    for c in range(C):
        for k in range(K):
            if counts[c, k]:
                color = "white" if shares[c, k] > 0.75 else "black"
                axes.text(k, c, f"{counts[c, k]}", ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(K), list(names) if names is not None else [str(k) for k in range(K)])
    axes.set_yticks(range(C), [str(c) for c in range(C)])
    best = ", ".join(f"{c} to {int(shares[c].argmax())} ({shares[c].max():.0%})" for c in range(C))
    figure.set_label(f"A table of digits by component. Most of each digit goes, digit to component: {best}.")
    return figure
