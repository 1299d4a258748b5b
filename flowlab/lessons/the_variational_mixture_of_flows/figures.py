"""A mixture of flows on the plane: who claims which point, what q and Bayes' rule say, and how training gets there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import Generator, Tensor

from flowlab import pretrained
from flowlab.densities import evaluating
from flowlab.densities.mixtures import Mixture
from flowlab.densities.mixtures.variational import divergence
from flowlab.lessons.base.picture import Picture
from flowlab.metrics import accuracy
from flowlab.plotting.plane import CHUNK, plane
from flowlab.plotting.style import COLORS, COMPONENT_COLORS, COMPONENT_MARKERS, tidy

RUNS = {"q first (recommended)": "pinwheel_mixture", "the ELBO alone": "pinwheel_mixture_elbo"}
FITS = {
    "the rings": "two_circles_mixture_rings",
    "left and right": "two_circles_mixture_left_right",
    "above and below": "two_circles_mixture_up_down",
}
BACKGROUNDS = ("q(k | x)", "exact p(k | x)", "gap log p − ELBO")
HELD_OUT, SHOWN = 2000, 500
GAUGE = (0.05, 60.0)  # nats
WORST_GAP = 5.0  # nats from which on the map of the gap is darkest
PALETTE = np.array([to_rgb(color) for color in COMPONENT_COLORS])
GAPS = LinearSegmentedColormap.from_list("gap", ["#FFFFFF", COLORS["accent"], "#6B2A00"])


class Frame(NamedTuple):
    """A mixture at one step of its training, as seen on a grid ``(G, G)`` and on held-out points ``(N,)``.

    ``nats`` to the truth and ``right``, the accuracy after matching, are those of the held-out points.
    """

    step: int
    log_q: Tensor  # (G, G, K)
    log_r: Tensor  # (G, G, K), r the exact posterior
    held_out_log_q: Tensor  # (N, K)
    held_out_log_r: Tensor  # (N, K)
    nats: float
    right: float
    weights: np.ndarray  # (K,)
    samples: np.ndarray  # (S, 2)
    sampled_from: np.ndarray  # (S,), the component of each


def tint(probabilities: Tensor | np.ndarray, strength: float = 0.45) -> np.ndarray:
    """The mean color of the components under probabilities ``(..., K)``, lightened for a background: ``(..., 3)``."""
    q = np.asarray(probabilities)
    return 1 - strength + strength * (q @ PALETTE[: q.shape[-1]])


def posteriors(model: Mixture, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log q(k | x) and the exact log p(k | x), ``(..., K)``, and log p(x), ``(...)``, at many points in chunks."""
    q, r, p = [], [], []
    with evaluating(model):
        for part in x.reshape(-1, x.shape[-1]).split(CHUNK):
            joint = model.log_joint(part)
            q.append(model.log_posterior(part))
            r.append(joint.log_softmax(-1))
            p.append(joint.logsumexp(-1))
    shape = x.shape[:-1]
    return torch.cat(q).reshape(*shape, -1), torch.cat(r).reshape(*shape, -1), torch.cat(p).reshape(shape)


# --- figures for the notebook -------------------------------------------------------------------------------------


def diagram() -> Figure:
    """Left, the model as a plate diagram; right, one step of its training."""
    figure = Figure(figsize=(9.2, 3.3), dpi=80, layout="constrained")
    plate, loop = figure.subplots(1, 2, width_ratios=(0.8, 1.2))
    for axes, width in ((plate, 6.4), (loop, 9.6)):
        axes.set(xlim=(0, width), ylim=(0, 5), aspect="equal")
        axes.axis("off")

    for left, bottom, wide, high, name in ((1.8, 0.5, 2.6, 4.3, "N points"), (4.7, 0.5, 1.5, 1.9, "K flows")):
        plate.add_patch(Rectangle((left, bottom), wide, high, fill=False, ec=COLORS["muted"]))
        plate.text(left + wide - 0.1, bottom + 0.1, name, ha="right", va="bottom", fontsize=8, color="#555555")
    nodes = {"π": (0.8, 3.9), "k": (2.9, 3.9), "x": (2.9, 1.6), "θₖ": (5.45, 1.6), "γ": (0.8, 2.75)}
    for name, at in nodes.items():
        observed = name == "x"
        if name in ("k", "x"):
            plate.add_patch(Circle(at, 0.48, fc="#DDDDDD" if observed else "white", ec="black"))
        plate.text(*at, name, ha="center", va="center", fontsize=13)
    _arrow(plate, (1.1, 3.9), (2.42, 3.9))
    _arrow(plate, (2.9, 3.42), (2.9, 2.08))
    _arrow(plate, (5.1, 1.6), (3.38, 1.6))
    guess = {"color": COLORS["model"], "linestyle": "--"}
    _arrow(plate, (2.5, 1.9), (2.5, 3.62), connectionstyle="arc3,rad=-0.35", **guess)
    _arrow(plate, (1.05, 2.75), (2.1, 2.75), **guess)
    plate.text(2.17, 2.2, "q", fontsize=11, color=COLORS["model"], ha="right")
    plate.set_title("the model: k ~ π, x ~ p(x | k)", fontsize=10)

    boxes = {
        "a batch x": (0.1, 2.0, 1.6, 1.0),
        "K flows\nlog p(x | k)": (2.7, 3.2, 2.2, 1.2),
        "a network\nq(k | x)": (2.7, 0.6, 2.2, 1.2),
        "ELBO(x) = Σₖ q(k | x) ·\n[log πₖ p(x | k) − log q(k | x)]": (5.9, 1.8, 3.6, 1.4),
    }
    for name, (left, bottom, wide, high) in boxes.items():
        color = COLORS["model"] if "q(k" in name else "black"
        box = FancyBboxPatch((left, bottom), wide, high, boxstyle="round,pad=0.02,rounding_size=0.15", fc="white")
        box.set_edgecolor(color)
        loop.add_patch(box)
        loop.text(left + wide / 2, bottom + high / 2, name, ha="center", va="center", fontsize=9)
    for start, end in (((1.75, 2.8), (2.65, 3.6)), ((1.75, 2.2), (2.65, 1.4))):
        _arrow(loop, start, end)
    for start, end in (((4.95, 3.8), (5.85, 3.0)), ((4.95, 1.2), (5.85, 2.0))):
        _arrow(loop, start, end)
    for start, end, bend in (((7.7, 3.25), (4.0, 4.45), 0.45), ((7.7, 1.75), (4.0, 0.55), -0.45)):
        _arrow(loop, start, end, color=COLORS["latent"], connectionstyle=f"arc3,rad={bend}")
    loop.text(7.5, 4.25, "gradient: θ", fontsize=9, color=COLORS["latent"])
    loop.text(7.5, 0.6, "gradient: γ", fontsize=9, color=COLORS["latent"])
    loop.set_title("one step of training", fontsize=10)
    figure.set_label(
        "Left, a plate diagram: in a plate of N points, the weights pi lead to the hidden component k, and k leads to "
        "the observed point x; in a plate of K flows, the parameters theta k lead to x; a dashed arrow q, with "
        "parameters gamma, leads back from x to k. Right, one step of training: a batch x goes to the K flows, which "
        "give log p of x given k, and to a network, which gives q; both enter the ELBO; its gradient goes to both."
    )
    return figure


def regions(
    models: Mapping[str, Mixture],
    x: Tensor,
    labels: Tensor | None = None,
    *,
    extent: float,
    exact: bool = False,
    size: int = 120,
) -> Figure:
    """Where each component is claimed by q, or with ``exact`` by Bayes' rule; points on it, by their true label."""
    figure = Figure(figsize=(2.8 * len(models), 3.1), dpi=80, layout="compressed")
    panels = figure.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
    for i, (axes, (title, model)) in enumerate(zip(panels, models.items(), strict=True)):
        log_q, log_r, _ = posteriors(model, plane(extent, size))
        _background(axes, tint((log_r if exact else log_q).exp()), extent)
        _points(axes, x[:SHOWN], None if labels is None else labels[:SHOWN])
        _claims(axes, model, x, exact)
        tidy(axes, title, "x₁", "" if i else "x₂")
    return figure


def networks(found: Mapping[str, Any], x: Tensor, *, extent: float, size: int = 120) -> Figure:
    """The regions of several networks for q, x to logits, before there is any flow; data on them."""
    figure = Figure(figsize=(2.8 * len(found), 3.1), dpi=80, layout="compressed")
    panels = figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0]
    for i, (axes, (title, network)) in enumerate(zip(panels, found.items(), strict=True)):
        with torch.no_grad():
            _background(axes, tint(network(plane(extent, size)).softmax(-1)), extent)
            sure, k_of = network(x).softmax(-1).max(-1)
        _points(axes, x[:SHOWN], None)
        _stand(axes, x[sure > 0.5], k_of[sure > 0.5])
        tidy(axes, title, "x₁", "" if i else "x₂")
    return figure


def beside(model: Mixture, x: Tensor, *, extent: float, size: int = 140) -> Figure:
    """q(k | x), the exact p(k | x), and log p(x) − ELBO(x) = KL(q ‖ p(k | x)) in nats, side by side on the plane."""
    figure = Figure(figsize=(9.6, 3.2), dpi=80, layout="compressed")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    log_q, log_r, _ = posteriors(model, plane(extent, size))
    for axes, title, log_p in ((panels[0], "q(k | x)", log_q), (panels[1], "exact p(k | x)", log_r)):
        _background(axes, tint(log_p.exp()), extent)
        _points(axes, x[:SHOWN], None)
        tidy(axes, title, "x₁", "x₂" if axes is panels[0] else "")
    _claims(panels[0], model, x, exact=False)
    _claims(panels[1], model, x, exact=True)
    gap = divergence(log_q, log_r).numpy()
    image = panels[2].imshow(
        gap, origin="lower", extent=(-extent, extent) * 2, cmap=GAPS, vmin=0, vmax=WORST_GAP, interpolation="bilinear"
    )
    _points(panels[2], x[:SHOWN], None)
    figure.colorbar(image, ax=panels[2], label="nats", shrink=0.8, extend="max")
    tidy(panels[2], "gap log p − ELBO", "x₁")
    return figure


# --- explorers ----------------------------------------------------------------------------------------------------


class TrainingFilm(Picture):
    """Who claims what, at each kept step of a mixture's training; its samples; and what each component is worth.

    Runs are added by name: the mixture at each of its steps. Truth and held-out points are the pinwheel's.
    """

    def __init__(self, runs: Mapping[str, Mapping[int, Mixture]] | None = None, size: int = 84) -> None:
        super().__init__(10.6, 4.2)
        truth = pretrained.density("pinwheel_mixture")
        self.held_out, self.labels = truth.labelled(HELD_OUT, Generator().manual_seed(2))
        self.exact = truth.log_prob(self.held_out)
        self.extent = 4.4
        self.points = plane(self.extent, size)
        self.runs: dict[str, list[Frame]] = {}
        self.shown: tuple[str, int] | None = None

        panels = self.figure.subplot_mosaic(
            [["plan", "samples", "shares"], ["plan", "samples", "nats"], ["plan", "samples", "right"]],
            width_ratios=(1, 1, 0.72),
        )
        self.plan, self.made, self.bars, self.nats, self.right = panels.values()
        frame = (-self.extent, self.extent) * 2
        for axes in (self.plan, self.made):
            axes.set(xlim=frame[:2], ylim=frame[2:], aspect="equal")
        tidy(self.plan, "who claims which point (held-out data)", "x₁", "x₂")
        tidy(self.made, "samples, by component", "x₁")
        blank = np.ones((size, size, 3))
        self.image = self.plan.imshow(blank, origin="lower", extent=frame, interpolation="bilinear")
        dots = _points(self.plan, self.held_out[:SHOWN], None)
        self.clouds = [
            self.made.plot([], [], marker, ms=3.5, color=color, alpha=0.8, mew=0)[0]
            for color, marker in zip(COMPONENT_COLORS, COMPONENT_MARKERS, strict=True)
        ]
        self.claims = [
            self.plan.plot([], [], marker, ms=11, color=color, mec="black", mew=1.2)[0]
            for color, marker in zip(COMPONENT_COLORS, COMPONENT_MARKERS, strict=True)
        ]
        most = len(COMPONENT_COLORS)
        self.share = self.bars.bar(range(most), [0.0] * most, color=COMPONENT_COLORS, width=0.7)
        self.share_marks = [
            self.bars.plot([k], [-1.0], marker, ms=5, color="white", mec="black")[0]
            for k, marker in enumerate(COMPONENT_MARKERS)
        ]
        self.weight = self.bars.plot([], [], "_", ms=18, mew=2, color="black")[0]
        tidy(self.bars, "share claimed (lines: π)", "", "")
        self.bars.set(ylim=(0, 0.62), xticks=[])
        tidy(self.nats, "nats to the truth", "", "")
        self.nats.set(yscale="log", ylim=GAUGE)
        self.nats.set_yticks((0.1, 1, 10), ("0.1", "1", "10"))
        tidy(self.right, "accuracy after matching", "training step", "")
        self.right.set(ylim=(0, 1.05))
        self.curves, self.marks = [], []
        for axes in (self.nats, self.right):
            axes.grid(axis="y", color="#EEEEEE")
            self.curves.append(axes.plot([], [], ".-", color=COLORS["model"], lw=1.2)[0])
            self.marks.append(axes.plot([], [], "o", ms=9, color=COLORS["accent"], mec="black")[0])
        self.nats.tick_params(labelbottom=False)
        self.moves(
            self.image, dots, *self.clouds, *self.claims, *self.share, *self.share_marks, self.weight,
            *self.curves, *self.marks,
        )  # fmt: skip
        if runs is None:
            runs = {label: pretrained.trajectory(name) for label, name in RUNS.items()}
        for label, models in runs.items():
            for step, model in models.items():
                self.add(label, step, model)

    def add(self, run: str, step: int, model: Mixture) -> None:
        """Keep what the mixture looks like after this step of its training; step 0 starts the run anew."""
        if step == 0 or run not in self.runs:
            self.runs[run] = []
            self.shown = None
        log_q, log_r, _ = posteriors(model, self.points)
        held_q, held_r, log_prob = posteriors(model, self.held_out)
        nats, right = float((self.exact - log_prob).mean()), accuracy(self.labels, held_q.argmax(-1))
        samples, k = model.sample(SHOWN, Generator().manual_seed(3), labels=True)
        made = (model.weights.numpy(), samples.numpy(), k.numpy())
        self.runs[run].append(Frame(step, log_q, log_r, held_q, held_r, nats, right, *made))

    def update(self, run: str, snapshot: int, background: str, temperature: float) -> dict[str, float | str]:
        frames = self.runs[run]
        snapshot = min(snapshot, len(frames) - 1)
        frame = frames[snapshot]
        if (run, len(frames)) != self.shown:
            self._settle(frames)
            self.shown = (run, len(frames))
        log_q = (frame.log_q / temperature).log_softmax(-1)
        if background == "q(k | x)":
            self.image.set_data(tint(log_q.exp()))
        elif background == "exact p(k | x)":
            self.image.set_data(tint(frame.log_r.exp()))
        else:
            self.image.set_data(GAPS(np.clip(divergence(log_q, frame.log_r).numpy() / WORST_GAP, 0, 1))[..., :3])
        here = (frame.held_out_log_q / temperature).log_softmax(-1)
        shares, k_of = here.exp().mean(0).numpy(), here.argmax(-1).numpy()
        K = len(shares)
        for k, (cloud, claim) in enumerate(zip(self.clouds, self.claims, strict=True)):
            cloud.set_data(*frame.samples[frame.sampled_from == k].T)
            claim.set_data(*_middle(self.held_out.numpy()[k_of == k]))
        for k, (bar, mark) in enumerate(zip(self.share, self.share_marks, strict=True)):
            bar.set_height(shares[k] if k < K else 0.0)
            mark.set_data([k], [min(shares[k], 0.56) if k < K else -1.0])
        self.weight.set_data(range(K), frame.weights)
        gauges = (np.clip([f.nats for f in frames], *GAUGE), [f.right for f in frames])
        for curve, mark, values in zip(self.curves, self.marks, gauges, strict=True):
            curve.set_data(range(len(values)), values)
            mark.set_data([snapshot], [values[snapshot]])
        return {
            "training step": str(frame.step),
            "nats to the truth": frame.nats,
            "mean gap log p − ELBO, nats": float(divergence(here, frame.held_out_log_r).mean()),
            "accuracy after matching": frame.right,
            "components that claim over 1 %": f"{int((shares > 0.01).sum())} of {K}",
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"After training step {numbers['training step']}, {numbers['components that claim over 1 %']} components "
            f"claim parts of the pinwheel; the mixture is {numbers['nats to the truth']:.2f} nats from the truth, and "
            f"{numbers['accuracy after matching']:.0%} of the points are with their wing."
        )

    def _settle(self, frames: Sequence[Frame]) -> None:
        """What stands still for one run: the ticks of the gauges, and how many bars there are."""
        for axes in (self.nats, self.right):
            axes.set_xlim(-0.4, max(len(frames), 2) - 0.6)
            axes.set_xticks(range(len(frames)), [f.step for f in frames], rotation=45, fontsize=7)
        self.nats.tick_params(labelbottom=False)
        self.bars.set_xlim(-0.6, frames[0].log_q.shape[-1] - 0.4)
        self.redraw_all()


class Partitions(Picture):
    """Several mixtures fitted to the same two circles: what q cuts, each component's density, and their likelihoods."""

    def __init__(self, fits: Mapping[str, str] = FITS, size: int = 90) -> None:
        super().__init__(10.8, 3.6)
        names = list(fits.values())
        truth = pretrained.density(names[0])
        self.held_out, self.labels = truth.labelled(20_000, Generator().manual_seed(10**6))  # the cards' draws
        self.extent, self.fits = 1.15, list(fits)
        self.tints, self.claimed, self.densities, self.log_prob = {}, {}, {}, {}
        points = plane(self.extent, size)
        for fit, name in fits.items():
            model = pretrained.load(name)
            with evaluating(model):
                log_p = torch.cat([model.log_prob_components(part) for part in points.reshape(-1, 2).split(CHUNK)])
                self.tints[fit] = tint(model.posterior(points))
                self.claimed[fit] = model.posterior(self.held_out).argmax(-1)
                self.log_prob[fit] = torch.cat([model.log_prob(part) for part in self.held_out.split(CHUNK)])
            self.densities[fit] = log_p.exp().reshape(size, size, -1).numpy()
        exact = truth.log_prob(self.held_out)
        self.exact = float(exact.mean())
        # A label reveals one point of each ring in turn, from around the whole circle.
        order = torch.stack([(self.labels == c).nonzero()[:8, 0] for c in (0, 1)], -1).flatten()
        self.revealed = order

        self.plan, *self.parts, self.race = self.figure.subplots(1, 4, width_ratios=(1, 1, 1, 0.95))
        frame = (-self.extent, self.extent) * 2
        for axes in (self.plan, *self.parts):
            axes.set(xlim=frame[:2], ylim=frame[2:], aspect="equal")
        self.image = self.plan.imshow(np.ones((2, 2, 3)), origin="lower", extent=frame, interpolation="bilinear")
        tidy(self.plan, "regions of q, held-out data", "x₁", "x₂")
        dots = _points(self.plan, self.held_out[:SHOWN], None)
        self.stars = [
            self.plan.plot([], [], marker, ms=11, mfc="white", mec="black", mew=1.8)[0]
            for marker in COMPONENT_MARKERS[:2]
        ]
        self.images = []
        for k, axes in enumerate(self.parts):
            shades = LinearSegmentedColormap.from_list(f"component {k}", ["#FFFFFF", COMPONENT_COLORS[k]])
            image = axes.imshow(np.zeros((2, 2)), origin="lower", extent=frame, cmap=shades, vmin=0, vmax=1.6)
            self.images.append(image)
            tidy(axes, f"p(x | {k}), marker {'●▲'[k]}", "x₁")
        tidy(self.race, "held-out log p(x), nats", "", "")
        self.race.axhline(self.exact, color=COLORS["truth"], ls="--", lw=1)
        self.race.text(len(fits) - 0.55, self.exact, "exact", ha="right", va="bottom", fontsize=8)
        mean = [float(self.log_prob[fit].mean()) for fit in self.fits]
        error = [2 * float(self.log_prob[fit].std()) / len(self.held_out) ** 0.5 for fit in self.fits]
        self.race.errorbar(range(len(mean)), mean, error, fmt="o", color=COLORS["model"], capsize=4)
        self.race.set(xlim=(-0.5, len(mean) - 0.5), ylim=(self.exact - 0.1, self.exact + 0.03))
        self.race.set_xticks(range(len(mean)), [fit.replace(" and ", "\nand ") for fit in self.fits])
        self.mark = self.race.plot([], [], "o", ms=10, color=COLORS["accent"], mec="black")[0]
        self.moves(self.image, dots, *self.stars, *self.images, self.mark)

    def update(self, fit: str, labels: int) -> dict[str, float | str]:
        self.image.set_data(self.tints[fit])
        for k, image in enumerate(self.images):
            image.set_data(self.densities[fit][..., k])
        known = self.revealed[:labels]
        for c, star in enumerate(self.stars):
            star.set_data(*self.held_out[known[self.labels[known] == c]].T)
        mean = float(self.log_prob[fit].mean())
        self.mark.set_data([self.fits.index(fit)], [mean])
        right = round(accuracy(self.labels[known], self.claimed[fit][known]) * labels) if labels else 0
        return {
            "held-out log p(x), nats": mean,
            "nats to the truth": self.exact - mean,
            "labels that this partition gets right": f"{right} of {labels}",
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"A partition of two circles with {numbers['held-out log p(x), nats']:.3f} nats a point on held-out data, "
            f"{numbers['nats to the truth']:.3f} from the truth; of the labels shown it gets "
            f"{numbers['labels that this partition gets right']} right."
        )


# --- parts --------------------------------------------------------------------------------------------------------


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = "black", **style: Any
) -> None:
    arrow = FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=color, lw=1.3, **style)
    axes.add_patch(arrow)


def _background(axes: Axes, colors: np.ndarray, extent: float) -> None:
    axes.imshow(colors, origin="lower", extent=(-extent, extent) * 2, interpolation="bilinear")
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent))


def _points(axes: Axes, x: Tensor, labels: Tensor | None) -> Any:
    """Data as small dots; with labels, each class has its marker."""
    style = {"ls": "", "color": "black", "mew": 0, "alpha": 0.55}
    if labels is None:
        return axes.plot(*x.T, marker="o", ms=1.8, **style)[0]
    for c in labels.unique().tolist():
        axes.plot(*x[labels == c].T, marker=COMPONENT_MARKERS[c], ms=3, **style)
    return None


def _claims(axes: Axes, model: Mixture, x: Tensor, exact: bool) -> None:
    """The markers of the components, for the points that q, or with ``exact`` Bayes' rule, gives to each."""
    log_q, log_r, _ = posteriors(model, x)
    _stand(axes, x, (log_r if exact else log_q).argmax(-1))


def _stand(axes: Axes, x: Tensor, k_of: Tensor) -> None:
    """The marker of each component in the middle of its points."""
    for k in k_of.unique().tolist():
        at = _middle(x[k_of == k].numpy())
        axes.plot(*at, COMPONENT_MARKERS[k], ms=10, color=COMPONENT_COLORS[k], mec="black", mew=1.2)


def _middle(x: np.ndarray) -> tuple[list[float], list[float]]:
    """The point of the cloud that is nearest to its mean, or nothing for next to no points."""
    if len(x) < 5:
        return [], []
    first, second = x[np.linalg.norm(x - x.mean(0), axis=1).argmin()]
    return [float(first)], [float(second)]
