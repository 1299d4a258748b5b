"""The exercises: how much a map stretches, what an empty gap costs, and what nats say of samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, Wrong, close, expect, log_prob_of, numbers


def least_stretch(z, x):
    """The least that the largest stretch L of z → x can be, a number, from pairs of points alone.

    z and x are (n, D), n at least 2; row i of z goes to row i of x. No two rows of z are equal.
    """
    i, j = torch.triu_indices(len(z), len(z), offset=1)  # each pair once, and no point with itself
    return ((x[i] - x[j]).norm(dim=-1) / (z[i] - z[j]).norm(dim=-1)).max()


def stretch_needed(width, left, side=0.5):
    """The least stretch of z → x with which a flow can leave no more than ``left`` in a gap of ``width``.

    ``side`` is the probability on one side of the gap. The base is a normal one, of any dimension. All are numbers:
    left and side lie between 0 and 1. math.inf if left is 0.
    """
    if left == 0:
        return math.inf
    normal = torch.distributions.Normal(0.0, 1.0)
    ends = normal.icdf(torch.tensor([side, side + left], dtype=torch.float64))  # of the strip, in z
    return float(width / (ends[1] - ends[0]))


def garbage_allowed(nats):
    """The largest share of garbage in a model's samples, if E[log p − log q] is at most ``nats`` (a number ≥ 0).

    The model is q = (1 − share) · p + share · garbage, and the garbage lies where p has nothing. Between 0 and 1.
    """
    return 1 - math.exp(-nats)  # on draws of p, q = (1 − share) p, which costs −log(1 − share)


def islands(width, distance, std):
    """What two islands leave in a gap, and the stretch with which one normal could leave no more: two numbers.

    Along x₁ the islands are ½ N(−distance, std²) + ½ N(distance, std²), and the gap is |x₁| < width / 2. For the
    stretch, half of the probability lies on each side.
    """
    normal = torch.distributions.Normal(0.0, 1.0)
    near, far = torch.tensor([(width / 2 - distance) / std, (-width / 2 - distance) / std], dtype=torch.float64)
    left = normal.cdf(near) - normal.cdf(far)  # the same for both islands
    return float(left), float(width / normal.icdf(0.5 + left))


def fit_pieces(x, between, area):
    """A density fitted to the points x (n, 2), which lie in separate pieces, and the probability it leaves between.

    between (m, 2) are the midpoints of cells that fill the empty region, ``area`` is the area of each. Return the
    density, whose log_prob takes points (n, 2), and a number.
    """
    from flowlab.densities.mixtures import EMGaussianMixture

    density = EMGaussianMixture.fit(x, 3, generator=torch.Generator().manual_seed(0))
    return density, float(density.log_prob(between).exp().sum() * area)


def check_stretch(answer: Callable) -> None:
    """Pairs of a linear map, of a bent one, and two points alone."""
    g = torch.Generator().manual_seed(6)
    z = torch.randn(20, 2, generator=g, dtype=torch.float64)
    lean = torch.tensor([[2.0, 3.0], [0.0, 1.0]], dtype=torch.float64)
    cases = (
        (z, z @ lean.T),
        (z, torch.stack((z[:, 0] ** 3, z[:, 1] / 2 + z[:, 0]), -1)),
        (z[:2], 3 * z[:2] + 5),
    )
    for z, x in cases:
        dz, dx = (torch.cdist(v, v) for v in (z, x))
        off = ~torch.eye(len(z), dtype=torch.bool)
        ratio = dx[off] / dz[off]
        value = numbers(answer(z.clone(), x.clone()), (), "the stretch")
        right = ratio.max()

        def gave(other: Any, value: Tensor = value, right: Tensor = right) -> bool:
            return close(value, other) and not close(right, other)

        expect(
            not bool(value.isnan()),
            "That is not a number: a point and itself are 0 apart, and 0/0 has no value. Leave these pairs out.",
        )
        expect(not gave((1 / ratio).max()), "You divided by the distance in x. Asked is the stretch of z → x.")
        expect(not gave(ratio.min()), "That is the smallest ratio. L has to be enough for *every* pair.")
        expect(not gave(ratio.mean()), "That is the mean over pairs. L has to be enough for *every* pair.")
        steps = (x.diff(dim=0).norm(dim=-1) / z.diff(dim=0).norm(dim=-1)).max()
        expect(not gave(steps), "You compared neighbors in the list only. Every pair of points gives a bound.")
        expect(
            not gave((x.norm(dim=-1) / z.norm(dim=-1)).max()),
            "You compared distances from the origin. A shift of x would change them, and it stretches nothing.",
        )
        expect(not gave(right**2), "These are squared lengths. Take the root.")
        expect(not gave(dx.max() / dz.max()), "Take the ratio for each pair, and then the largest of the ratios.")
        expect(
            close(value, right),
            "Not yet. A pair whose distance grows by a factor needs a stretch of at least that factor.",
        )


def check_needed(answer: Callable) -> None:
    """Against the floor of section 4, which has to come out again; and for a gap that is to be empty."""
    normal = torch.distributions.Normal(0.0, 1.0)
    for width, left, side in ((2.0, 0.4, 0.2), (1.0, 0.2, 0.5), (3.0, 0.001, 0.7)):
        value = float(numbers(answer(width, left, side), (), "the stretch"))

        def at(share: float) -> float:
            return float(normal.icdf(torch.tensor(share, dtype=torch.float64)))

        right = width / (at(side + left) - at(side))

        def gave(other: float, value: float = value, right: float = right) -> bool:
            return math.isclose(value, other, rel_tol=5e-3) and not math.isclose(right, other, rel_tol=5e-3)

        expect(not gave(1 / right), "That is upside down: the gap is w wide in x, and Φ⁻¹(a + P) − Φ⁻¹(a) wide in z.")
        expect(not gave(right / width), "The width of the gap is missing: twice as wide a gap needs twice the stretch.")
        expect(
            not gave(width / (at(0.5 + left) - at(0.5))),
            "You put half of the probability on the side, whatever was given: use side.",
        )
        expect(
            not gave(width / (left * math.sqrt(2 * math.pi)) ** -1)
            and not gave(width / (left * math.sqrt(2 * math.pi))),
            "That is for thin gaps with half of the probability on each side. Use Φ⁻¹.",
        )
        slope = math.exp(-0.5 * at(side) ** 2) / math.sqrt(2 * math.pi)
        expect(not gave(width * slope / left), "Density times width is right for thin gaps only. Use Φ⁻¹.")
        expect(
            not gave(width / (2 * at(0.5 + left / 2))),
            "That is a strip around z = 0. The strip begins where the side ends, at Φ⁻¹(side).",
        )
        expect(
            not gave(width / abs(at(left))), "That is Φ⁻¹ of what is left alone. The strip begins where the side ends."
        )
        expect(
            math.isclose(value, right, rel_tol=5e-3),
            "Not yet. Solve P = Φ(Φ⁻¹(a) + w/L) − a for L, with P = left and a = side.",
        )
    expect(
        math.isclose(float(numbers(answer(2.0, 0.01), (), "the stretch")), 2 / at(0.51), rel_tol=5e-3),
        "Keep side=0.5 as it was given when nothing else is said.",
    )
    try:
        nothing = float(numbers(answer(2.0, 0.0), (), "the stretch"))
    except ZeroDivisionError:
        nothing = math.nan
    expect(nothing == math.inf, "How much stretch leaves nothing at all in the gap? Return math.inf there.")


def check_garbage(answer: Callable) -> None:
    """0 for 0, nearly linear at first, never above 1."""
    for nats in (0.3, 4.605, 0.05, 0.0):
        value = float(numbers(answer(nats), (), "the share"))

        def gave(other: float, value: float = value) -> bool:
            return math.isclose(value, other, rel_tol=5e-3, abs_tol=1e-6)

        right = 1 - math.exp(-nats)
        expect(not gave(math.exp(-nats)) or gave(right), "This is the share of good samples. Asked is the rest.")
        expect(
            not gave(nats) or gave(right),
            "Near for few nats, but a share above 1 makes no sense: try 4.6 nats. What is log q where p has its mass?",
        )
        expect(not gave(1 - 2**-nats) or gave(right), "That is for bits. Nats are natural logarithms.")
        expect(
            not (gave(math.expm1(nats)) or gave(math.log1p(nats))) or gave(right),
            "The loss is −log(1 − share). Solve that for share, sign by sign.",
        )
        expect(gave(right), "On draws of p there is no garbage: q = (1 − share) · p there. What is E[log p − log q]?")


def check_islands(answer: Callable) -> None:
    """Against the closed form, for islands that overlap and islands apart."""
    normal = torch.distributions.Normal(0.0, 1.0)

    def area(z: float) -> float:
        return float(normal.cdf(torch.tensor(z, dtype=torch.float64)))

    for width, distance, std in ((1.0, 1.0, 0.8), (2.0, 2.0, 0.5), (1.5, 1.0, 0.5)):
        pair = answer(width, distance, std)
        expect(
            hasattr(pair, "__len__") and len(pair) == 2, "Return two numbers: what is left in the gap, and the stretch."
        )
        left, stretch = (
            float(numbers(v, (), name)) for v, name in zip(pair, ("what is left", "the stretch"), strict=True)
        )
        right = area((width / 2 - distance) / std) - area((-width / 2 - distance) / std)

        def gave(wanted: float, value: float = left) -> bool:
            return math.isclose(value, wanted, rel_tol=5e-3)

        expect(not gave(2 * right), "You counted each island whole. Each holds half of the probability: weigh it by ½.")
        expect(not gave(right / 2), "That is one island's share. The other reaches into the gap as well.")
        expect(
            not gave(area((width - distance) / std) - area((-width - distance) / std)),
            "Your gap is twice as wide: it goes from −width/2 to width/2.",
        )
        expect(
            not gave(area((width / 2 - distance) / std**2) - area((-width / 2 - distance) / std**2)),
            "You divided by the variance. Standardizing divides by the deviation.",
        )
        expect(
            gave(right),
            f"What is left is {right:.4f} for width {width}, distance {distance}, std {std}, but {left:.4f} came.",
        )
        needed = width / float(normal.icdf(torch.tensor(0.5 + right, dtype=torch.float64)))
        if gave(needed, stretch):
            continue
        expect(
            not gave(width / (right * math.sqrt(2 * math.pi)), stretch),
            "What is left is right. The stretch is that of a thin gap: solve the floor with Φ, not with the height of "
            "the normal at 0.",
        )
        expect(not gave(1 / needed, stretch), "What is left is right, and the stretch is upside down: w/L = Φ⁻¹(…).")
        raise Wrong(
            "What is left is right. For the stretch solve Φ(Φ⁻¹(½) + width/L) − ½ = what is left, and Φ⁻¹(½) is 0."
        )


def check_pieces(answer: Callable) -> None:
    """By what it reaches on three blobs: nats to the truth, what it leaves between them, and what it reports."""
    g = torch.Generator().manual_seed(8)
    centers, std = torch.tensor([[-2.0, -1.0], [2.0, -1.0], [0.0, 2.0]]), 0.3

    def sample(n: int) -> Tensor:
        return centers[torch.randint(3, (n,), generator=g)] + std * torch.randn(n, 2, generator=g)

    def exact(x: Tensor) -> Tensor:
        square = ((x[:, None] - centers) ** 2).sum(-1) / std**2
        return (-0.5 * square).logsumexp(-1) - math.log(3 * 2 * math.pi * std**2)

    line = torch.linspace(-5.95, 5.95, 120)  # the midpoints of cells of width 0.1
    plane = torch.cartesian_prod(line, line)
    between = plane[(torch.cdist(plane, centers) > 1.2).all(-1) & (plane.abs() < 4).all(-1)]
    pair = answer(sample(3000), between.clone(), 0.01)
    expect(pair is not None, "Your function returned None. Is there a return?")
    expect(isinstance(pair, tuple | list) and len(pair) == 2, "Return two things: the density, and what it leaves.")
    log_prob, told = log_prob_of(pair[0]), float(numbers(pair[1], (), "what is left"))
    whole = float(log_prob(plane).exp().sum() * 0.01)
    expect(whole < 1.05, f"Your density integrates to {whole:.2f} over the plane, and has to integrate to 1.")
    left, new = float(log_prob(between).exp().sum() * 0.01), sample(4000)
    expect(
        abs(told - left) < 0.0005 + 0.1 * left,
        f"You report {told:.2%}, and your density leaves {left:.2%}: add up p(x) · area over the cells.",
    )
    expect(
        left < 0.003,
        f"Your density leaves {left:.2%} between the pieces, and 0.3 % is allowed. Does it consist of several pieces?",
    )
    gap = float((exact(new) - log_prob(new)).mean())
    expect(gap < 0.1, f"Little is left, but your density is {gap:.2f} nats from the truth, and 0.1 is allowed.")


EXERCISES = [
    Exercise(
        name="what_a_flow_cannot_do.1",
        question=(
            "**Measure the stretch without the flow.** Somebody gives you points x and their latent points z, and no "
            "flow. How large is the stretch of z → x at least? Why only *at least*?"
        ),
        answer=least_stretch,
        check=check_stretch,
        praise="right. Between your points the map may stretch more, so pairs give a lower bound. So do Jacobians.",
        hints=(
            "If L is the largest stretch, how far apart can x_i and x_j be, given how far apart z_i and z_j are?",
            "|x_i − x_j| ≤ L |z_i − z_j| for every pair. torch.cdist has all distances; leave out i = j.",
        ),
        aims=("measure",),
        why=(
            "If L is the largest stretch, |x_i − x_j| ≤ L |z_i − z_j| for every pair, so L is at least the "
            "largest ratio of the distances. Between the given points the map may stretch more, so this is a "
            "lower bound."
        ),
    ),
    Exercise(
        name="what_a_flow_cannot_do.2",
        question=(
            "**What does an empty gap cost?** Section 4 tells what a given stretch must leave. Turn it around: which "
            "stretch does a flow need to leave no more than a given probability? Which one for 0.1 %, with w = 2, "
            "a = ½? And for none?"
        ),
        answer=stretch_needed,
        check=check_needed,
        praise="right: 798 for 0.1 %, ten times as much for a tenth of it, and infinity for nothing at all.",
        hints=(
            "Call what is left P. In z, where does the strip of probability P begin, and where does it end?",
            "It goes from Φ⁻¹(a) to Φ⁻¹(a + P), and it is w/L wide. Use Normal(0, 1).icdf.",
        ),
        aims=("explain", "compute"),
        why=(
            "In z the gap contains a strip of width w/L next to the set on the left, and by the isoperimetric "
            "inequality the half-plane gives the least probability. Solving Φ(Φ⁻¹(a) + w/L) − a = P for L gives "
            "w/(Φ⁻¹(a + P) − Φ⁻¹(a)), which is infinite for P = 0."
        ),
    ),
    Exercise(
        name="what_a_flow_cannot_do.3",
        question=(
            "**Higher likelihood, better samples?** A model is right except that some share of its samples is garbage, "
            "far from the data. It is `nats` away from the truth, no more. How large can the share be?"
        ),
        answer=garbage_allowed,
        check=check_garbage,
        praise="right. 0.3 nats allow 26 % garbage, and 4.6 nats 99 %: on 784 pixels nobody would notice 4.6 nats.",
        hints=(
            "The loss is measured at draws of p, and there is no garbage there. What is q at such a point?",
            "log q = log(1 − share) + log p on the data, so the loss is −log(1 − share).",
        ),
        aims=("tell",),
        why=(
            "At draws of p there is no garbage, so q = (1 − share) p there, and E[log p − log q] = −log(1 − "
            "share). Solved for the share this is 1 − exp(−nats)."
        ),
    ),
    Exercise(
        name="what_a_flow_cannot_do.4",
        question=(
            "**Compare the ways out.** A base of two islands leaves something in the gap without any stretch. How "
            "much, and how far would a flow with *one* normal as base have to stretch to leave no more?"
        ),
        answer=islands,
        check=check_islands,
        praise="right. For w = 2, d = 2, std = 0.25 islands leave 3 in 100,000; one normal needs a stretch of 25,000.",
        hints=(
            "Both islands reach into the gap alike. What does N(distance, std²) leave between −width/2 and width/2?",
            "left = Φ((w/2 − d)/std) − Φ((−w/2 − d)/std); then Φ(w/L) = ½ + left, so L = w / Φ⁻¹(½ + left).",
        ),
        aims=("compare",),
        why=(
            "By symmetry both islands leave the same probability in the gap, so the mixture leaves what one "
            "island leaves. One normal leaves at least Φ(w/L) − ½ when half lies on each side, and L follows from "
            "that."
        ),
    ),
    Exercise(
        name="what_a_flow_cannot_do.5",
        question=(
            "**Open task: a density in pieces.** The points lie in a few separate pieces. Choose a way out, fit it, "
            "and report which probability it leaves between the pieces. Can you come below 0.3 %, and within 0.1 nats "
            "of the truth?"
        ),
        answer=fit_pieces,
        check=check_pieces,
        praise="right. A density of several pieces leaves almost nothing between them, without any stretch.",
        hints=(
            "Look at the points: how many pieces are there, and where? One normal as base cannot leave so little.",
            "A mixture with one component for each piece does it, of Gaussians or of flows; so does a flow with "
            "islands as base. What is left is the sum of exp(log_prob(between)) · area.",
        ),
        aims=("compare",),
        why=(
            "A mixture with one component for each piece has no map that must stretch across the gap. So the "
            "probability between the pieces is only what the tails of the components leave there."
        ),
    ),
]
