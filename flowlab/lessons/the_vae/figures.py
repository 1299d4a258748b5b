"""A VAE in pictures: its two terms, its latent plane, its gap, latents that say nothing; and GANs beside a flow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import nn

from flowlab.densities import Flow
from flowlab.lessons.base.picture import Picture
from flowlab.lessons.the_vae.toys import VAE, digits, trained
from flowlab.plotting.style import COLORS, COMPONENT_COLORS, COMPONENT_MARKERS, DENSITY, tidy

EDGE = 3.5  # half the width of the latent plane that is shown
NEAREST = 6  # digits around the point


def two_terms(seen: Sequence[tuple[int, float, float]]) -> Figure:
    """Mean log p(x∣z), KL and their difference, the bound, in nats a digit, by training step."""
    step, likelihood, kl = (np.asarray(values) for values in zip(*seen, strict=True))
    figure = Figure(figsize=(9.2, 3.2), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2)
    tidy(left, "reconstruction, and the bound below it", "training step", "nats a digit")
    left.plot(step, likelihood, "o-", ms=3.5, color=COLORS["data"], label="E_q[log p(x | z)]")
    left.plot(step, likelihood - kl, "s-", ms=3.5, color=COLORS["latent"], label="bound, the ELBO")
    left.set_ylim(float(np.quantile(likelihood - kl, 0.05)) - 5, float(likelihood.max()) + 3)
    left.legend(frameon=False, loc="lower right")
    tidy(right, "what q costs", "training step", "KL(q ‖ N(0, I)), nats a digit")
    right.plot(step, kl, "^-", ms=4, color=COLORS["model"])
    right.set_ylim(0, None)
    return figure


class LatentPlane(Picture):
    """Left, the means of q(z∣x) of held-out digits by class, and a point z; right, the decoded digit and real ones."""

    def __init__(self, vae: VAE | None = None) -> None:
        super().__init__(9.6, 4.4)
        self.vae = trained() if vae is None else vae
        if self.vae.latents != 2:
            raise ValueError(f"Expected a VAE with two latents, which make a plane, but got {self.vae.latents}.")
        self.x, labels = digits("test")
        with torch.no_grad():
            mu, sigma = self.vae.q(self.x)
        self.mu, self.sigma, self.labels = mu.numpy(), sigma.numpy(), labels.numpy()
        grid = self.figure.add_gridspec(3, 4, width_ratios=(2.4, 1, 1, 1))
        self.plane = tidy(self.figure.add_subplot(grid[:, 0]), "held-out digits in the latent plane", "z₁", "z₂")
        self.plane.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal")
        for k in range(10):
            at = self.mu[self.labels == k]
            style: dict[str, Any] = {"color": COMPONENT_COLORS[k], "ms": 4.5, "mew": 0, "alpha": 0.75}
            self.plane.plot(*at.T, COMPONENT_MARKERS[k], label=str(k), **style)
        self.plane.legend(
            frameon=False, fontsize=9, ncols=10, loc="upper center", columnspacing=0.2, handletextpad=-0.3
        )
        self.ellipses = [Ellipse((0, 0), 1, 1, fill=False, color="black", lw=1.2) for _ in range(NEAREST)]
        for ellipse in self.ellipses:
            self.plane.add_patch(ellipse)
        self.here = self.plane.plot([], [], "D", ms=11, color=COLORS["accent"], mec="black")[0]
        blank = np.zeros((14, 14))
        how: dict[str, Any] = {"cmap": "gray_r", "vmin": 0, "vmax": 1}
        decoded = self.figure.add_subplot(grid[0, 1:])
        decoded.set_title("decoded: gray is a probability of ink", fontsize=10)
        self.decoded = decoded.imshow(blank, **how)
        near = [self.figure.add_subplot(grid[1 + i // 3, 1 + i % 3]) for i in range(NEAREST)]
        near[1].set_title("the nearest real digits", fontsize=10)
        self.near = [axes.imshow(blank, **how) for axes in near]
        for axes in (decoded, *near):
            axes.set(xticks=[], yticks=[])
        self.moves(*self.ellipses, self.here, self.decoded, *self.near)

    def update(self, z1: float, z2: float, spread: bool) -> dict[str, float | str]:
        with torch.no_grad():
            ink = self.vae.decoder(torch.tensor([[z1, z2]], dtype=self.x.dtype)).sigmoid()[0].view(14, 14).numpy()
        away = np.linalg.norm(self.mu - (z1, z2), axis=1)
        nearest = away.argsort(kind="stable")[:NEAREST]
        self.here.set_data([z1], [z2])
        self.decoded.set_data(ink)
        for image, ellipse, i in zip(self.near, self.ellipses, nearest, strict=True):
            image.set_data(self.x[i].view(14, 14).numpy())
            ellipse.set(center=self.mu[i], width=4 * self.sigma[i, 0], height=4 * self.sigma[i, 1], visible=spread)
        return {
            "z": f"({z1:.2f}, {z2:.2f})",
            "log p(z), nats": -0.5 * (z1**2 + z2**2) - math.log(2 * math.pi),
            "nearest digits": ", ".join(str(self.labels[i]) for i in nearest),
            "distance to the nearest": float(away[nearest[0]]),
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        z, _, nearest, away = numbers.values()
        return (
            f"The latent plane with held-out digits and a point at {z}: beside it the decoded digit, and the nearest "
            f"real digits, which are {nearest}; the first of them is {away:.2f} away."
        )


def posteriors(images: Any, log_posterior: Any, mu: Any, sigma: Any, edge: float) -> Figure:
    """For each image ``(n, pixels²)``: itself, its exact posterior on a latent grid ``(n, G, G)``, and q's 2σ ellipse.

    The grid runs over [−edge, edge]² with z₁ along its first axis.
    """
    images, log_p, mu, sigma = (np.asarray(value) for value in (images, log_posterior, mu, sigma))
    n, side = len(images), math.isqrt(images.shape[-1])
    figure = Figure(figsize=(2.1 * n, 3.4), dpi=80, layout="constrained")
    rows = figure.subplots(2, n, height_ratios=(0.5, 1), squeeze=False)
    for i in range(n):
        rows[0, i].imshow(images[i].reshape(side, side), cmap="gray_r")
        rows[0, i].axis("off")
        axes = tidy(rows[1, i], "", "z₁", "z₂" if i == 0 else "")
        p = np.exp(log_p[i] - log_p[i].max())
        axes.imshow(p.T, origin="lower", extent=(-edge, edge) * 2, cmap=DENSITY)
        axes.add_patch(Ellipse(mu[i], *(4 * sigma[i]), fill=False, color=COLORS["data"], lw=1.8, ls="--"))
        reach = np.argwhere(p > 0.01) * 2 * edge / (len(p) - 1) - edge  # the places that matter
        low = np.minimum(reach.min(0), mu[i] - 2 * sigma[i])
        high = np.maximum(reach.max(0), mu[i] + 2 * sigma[i])
        (left, bottom), half = (low + high) / 2, 0.6 * (high - low).max()
        axes.set(xlim=(left - half, left + half), ylim=(bottom - half, bottom + half))
    return figure


def tightening(bounds: Mapping[int, float], exact: float) -> Figure:
    """The importance-weighted bound against its number of samples, log p(x) above it; one sample is the ELBO."""
    figure = Figure(figsize=(6.2, 3.0), dpi=80, layout="constrained")
    axes = tidy(figure.subplots(), "", "samples S, logarithmic", "nats a digit, held out")
    axes.axhline(exact, color=COLORS["truth"], ls="--", lw=1.5, label="exact log p(x), by a grid")
    axes.plot(list(bounds), list(bounds.values()), "o-", color=COLORS["latent"], lw=2, label="bound with S samples")
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def used(kl: Mapping[str, Any]) -> Figure:
    """Mean KL of each latent, sorted, for several VAEs: a latent whose KL is near 0 says nothing about x."""
    figure = Figure(figsize=(4.6 * len(kl), 2.9), dpi=80, layout="constrained")
    for axes, (name, values) in zip(
        figure.subplots(1, len(kl), sharey=True, squeeze=False)[0], kl.items(), strict=True
    ):
        heights = np.sort(np.asarray(values))[::-1]
        tidy(
            axes,
            name,
            "latents, from the one that says most",
            "KL to the prior, nats" if axes.get_subplotspec().is_first_col() else "",
        )
        axes.bar(range(1, len(heights) + 1), heights, color=COLORS["model"], hatch="//", edgecolor="white")
        axes.set(xlim=(0.4, len(heights) + 0.6), xticks=range(1, len(heights) + 1, 1 if len(heights) < 10 else 3))
    return figure


@torch.no_grad()
def generators(flow: Flow, gans: nn.Module, truth: Any) -> Figure:
    """A flow and a stack of K GANs on the line, a column each: 3,000 samples against ``truth``, and the map z ↦ x."""
    z = torch.randn(3000, 1, generator=torch.Generator().manual_seed(0)).sort(0).values
    stack = next(gans.parameters()).shape[0]
    made = torch.cat((flow.bijection.inverse(z)[0][None], gans(z.expand(stack, -1, -1))))[..., 0]  # (1 + K, 3000)
    x = torch.linspace(-5, 5, 300)
    p = truth.log_prob(x[:, None]).exp()
    figure = Figure(figsize=(1.9 * len(made), 3.6), dpi=80, layout="constrained")
    rows = figure.subplots(2, len(made), sharey="row", squeeze=False)
    for i, (above, below) in enumerate(rows.T):
        color = COLORS["latent" if i else "model"]
        tidy(above, f"GAN {i}" if i else "the flow", "x", "")
        above.hist(made[i].numpy(), 80, range=(-5, 5), density=True, color=color, alpha=0.6)
        above.plot(x, p, "--", color=COLORS["truth"], lw=1)
        above.set(xlim=(-5, 5), ylim=(0, 2.5 * float(p.max())))
        tidy(below, "", "z", "").plot(z, made[i], color=color, lw=2)
        below.set(xlim=(-4, 4), ylim=(-5, 5))
    rows[0, 0].set_ylabel("density")
    rows[1, 0].set_ylabel("x, made from z")
    return figure
