"""The exercises: how much a map stretches, the least that is left in a gap, and what nats say of samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, Wrong, close, expect, numbers


def stretch_factors(f, x):
    """The largest and the smallest factor by which z = f(x) stretches a short step from x, at each point.

    f takes (n, 2) to (n, 2), each row by itself; x is (n, 2). Returns (n, 2), the largest first.
    """
    jacobian = torch.func.vmap(torch.func.jacrev(lambda point: f(point[None])[0]))(x)  # (n, 2, 2)
    return torch.linalg.svdvals(jacobian)


def least_in_gap(width, stretch, side=0.5):
    """Least probability in a gap of ``width``, if z → x stretches by ``stretch`` at most and ``side`` lies on one side.

    The base is a normal one, of any dimension. All are numbers; side is between 0 and 1.
    """
    normal, gap = torch.distributions.Normal(0.0, 1.0), torch.tensor(width / stretch)  # as wide as the gap is in z
    side = torch.tensor(side)
    return float(normal.cdf(normal.icdf(side) + gap) - side)


def garbage_allowed(nats):
    """The largest share of garbage in a model's samples, if E[log p − log q] is at most ``nats`` (a number ≥ 0).

    The model is q = (1 − share) · p + share · garbage, and the garbage lies where p has nothing. Between 0 and 1.
    """
    return 1 - math.exp(-nats)  # on draws of p, q = (1 − share) p, which costs −log(1 − share)


def islands(width, distance, std):
    """What two islands leave in a gap, and the stretch with which one normal could leave no more: two numbers.

    Along x₁ the islands are ½ N(−distance, std²) + ½ N(distance, std²), and the gap is |x₁| < width / 2. For the
    stretch take the floor of the second exercise with side = ½.
    """
    normal = torch.distributions.Normal(0.0, 1.0)
    near, far = torch.tensor([(width / 2 - distance) / std, (-width / 2 - distance) / std], dtype=torch.float64)
    left = normal.cdf(near) - normal.cdf(far)  # the same for both islands
    return float(left), float(width / normal.icdf(0.5 + left))


def check_stretch(answer: Callable) -> None:
    """Known maps: a turned ellipse, a shear, a bent map at several points."""
    g = torch.Generator().manual_seed(6)
    x = torch.randn(5, 2, generator=g, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(2, 2, generator=g, dtype=torch.float64)).Q
    shear = torch.tensor([[2.0, 3.0], [0.0, 1.0]], dtype=torch.float64)
    ellipse = (
        turn
        @ torch.diag(torch.tensor([4.0, 0.5], dtype=torch.float64))
        @ torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    )

    def bent(x: Tensor) -> Tensor:
        return torch.stack((x[:, 0], x[:, 1] * x[:, 0].sin().exp() + x[:, 0] ** 2), -1)

    for f in (lambda x: x @ shear.T, lambda x: x @ ellipse.T, bent):
        J = torch.stack([torch.autograd.functional.jacobian(lambda p, f=f: f(p[None])[0], point) for point in x])
        right = torch.linalg.svdvals(J)
        value = numbers(answer(f, x.clone()), None, "the factors")
        expect(
            value.shape != (5,) or not torch.allclose(value, J.det().abs()),
            "This is |det J|, the factor of areas: the product of the two factors of length that are asked.",
        )
        expect(value.shape == (5, 2), f"Expected shape (5, 2), two factors a point, but got {tuple(value.shape)}.")
        eigenvalues = torch.linalg.eigvals(J).abs().sort(-1, descending=True).values
        norms = {"columns": J.norm(dim=-2), "rows": J.norm(dim=-1)}
        expect(not close(value, right.flip(-1)) or close(value, right), "Right, but the largest factor comes first.")
        expect(
            not close(value, eigenvalues) or close(value, right),
            "These are eigenvalues: the factors of those few steps that keep their direction. The step that grows the "
            "most need not be one of them. Which values measure lengths?",
        )
        expect(
            not close(value, right**2) or close(value, right),
            "These are the eigenvalues of JᵀJ, lengths squared. Take the root.",
        )
        expect(
            not (close(value, 1 / right) or close(value, (1 / right).flip(-1))) or close(value, right),
            "These are the factors of the inverse, z → x. Asked is x → z.",
        )
        for name, norm in norms.items():
            expect(
                not (close(value, norm) or close(value, norm.sort(-1, descending=True).values)) or close(value, right),
                f"These are the lengths of the {name} of J. The step that grows the most need not lie along an axis.",
            )
        expect(
            close(value, right),
            "Not yet. Find J at one point with torch.func.jacrev; how long can J d be for |d| = 1?",
        )


def check_gap(answer: Callable) -> None:
    """Against the closed form for half-planes, which reach it."""
    normal = torch.distributions.Normal(0.0, 1.0)
    for width, stretch, side in ((2.0, 4.0, 0.5), (1.0, 10.0, 0.3), (3.0, 2.0, 0.7)):
        a = torch.tensor(side)

        def grown(step: float, a: Tensor = a) -> float:
            return float(normal.cdf(normal.icdf(a) + step))

        value = float(numbers(answer(width, stretch, side), (), "the probability"))
        step = width / stretch

        def gave(other: float, value: float = value) -> bool:
            return math.isclose(value, other, rel_tol=5e-3, abs_tol=1e-6)

        expect(
            not gave(grown(width * stretch) - side),
            "You made the gap wider in z than in x. z → x stretches, so in z it is narrower: width / stretch at least.",
        )
        expect(
            not gave(grown(width) - side), "You took the width in x. The base lives in z, where the gap is narrower."
        )
        expect(not gave(grown(step)), "This is the side and the gap together. Take the side away again.")
        expect(
            side == 0.5 or not gave(grown(step, torch.tensor(0.5)) - 0.5),
            "You put half of the probability on the side, whatever was given: use side.",
        )
        expect(
            not gave(2 * grown(step / 2, torch.tensor(0.5)) - 1),
            "This is a strip around z = 0, half to its left and half to its right. Asked is a strip that begins where "
            "the side ends, at Φ⁻¹(side).",
        )
        slope = math.exp(-0.5 * float(normal.icdf(a)) ** 2) / math.sqrt(2 * math.pi)
        expect(
            not gave(step * slope) and not gave(step / math.sqrt(2 * math.pi)),
            "Density times width is right for thin gaps only: over a wide one the density changes. Use Φ.",
        )
        expect(
            gave(grown(step) - side), "Draw the line z: the side ends at Φ⁻¹(side), the gap begins. Where does it end?"
        )
    expect(0.47 < float(answer(2.0, 1.0)) < 0.48, "Keep side=0.5 as it was given when nothing else is said.")


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


EXERCISES = [
    Exercise(
        name="what_a_flow_cannot_do.1",
        question=(
            "**Measure the stretch.** Write the two factors for any map of the plane, at each point: how much longer "
            "can a short step become, and how much shorter?"
        ),
        answer=stretch_factors,
        check=check_stretch,
        praise="right. Their product is |det J|, which alone cannot tell a thin strip from no change at all.",
        hints=(
            "A short step d becomes J d. Over all d of length 1, the extremes of |J d| have a name.",
            "torch.func.vmap(torch.func.jacrev(...)) gives J at each point, torch.linalg.svdvals its singular values.",
        ),
        aims=("measure",),
    ),
    Exercise(
        name="what_a_flow_cannot_do.2",
        question=(
            "**The least that is left.** A flow z → x that stretches by at most L puts probability a on one side of a "
            "gap of width w. How little can it leave in the gap? How large must L be for 0.1 %, with w = 2, a = ½?"
        ),
        answer=least_in_gap,
        check=check_gap,
        praise="right. For thin gaps it falls as 1/L: a tenth of it costs ten times the stretch, and 0 costs infinity.",
        hints=(
            "How wide is the gap in z, at least? Half-planes waste the least: put the side on the left of the line z.",
            "The side ends at Φ⁻¹(a); the gap goes from there to Φ⁻¹(a) + w/L. Use Normal(0, 1).icdf and .cdf.",
        ),
        aims=("explain", "compute"),
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
    ),
    Exercise(
        name="what_a_flow_cannot_do.4",
        question=(
            "**Compare the ways out.** A base of two islands leaves something in the gap without any stretch. How "
            "much, and how far would a flow with *one* normal as base have to stretch to leave no more?"
        ),
        answer=islands,
        check=check_islands,
        praise="right. Islands apart leave 3 in 100,000 without stretching at all; one normal needs 25,000 for that.",
        hints=(
            "Both islands reach into the gap alike. What does N(distance, std²) leave between −width/2 and width/2?",
            "left = Φ((w/2 − d)/std) − Φ((−w/2 − d)/std); then Φ(w/L) = ½ + left, so L = w / Φ⁻¹(½ + left).",
        ),
        aims=("compare",),
    ),
]
