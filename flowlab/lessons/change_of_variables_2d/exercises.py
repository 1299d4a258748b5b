"""The exercises: matrices that make Gaussians, shears, the density of a pinwheel's wing, a bug museum."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowlab.datasets import Pinwheel
from flowlab.lessons.base.exercise import Exercise, close, expect, numbers


def affine_to(mean, covariance):
    """The matrix A (D, D) and the vector b (D,) for which A z + b ~ N(mean, covariance) when z ~ N(0, I)."""
    A = torch.linalg.cholesky(covariance)  # A @ Q does as well, for any rotation Q
    return A, mean


def shear_to(stretch):
    """A 2×2 matrix of determinant 1 that leaves (1, 0) where it is and makes (0, 1) ``stretch`` times as long."""
    k = math.sqrt(stretch**2 - 1)
    return torch.tensor([[1.0, k], [0.0, 1.0]])


def wing_log_prob(a, b, toy):
    """log p(x) in nats where the features (a, b) land on a wing: (n,) and (n,) to (n,). No others land there.

    a ~ N(1, toy.radial_std²), b ~ N(0, toy.tangential_std²), and x = toy.scale · R(toy.rate · eᵃ) (a, b).
    """
    u, v = (a - 1) / toy.radial_std, b / toy.tangential_std
    log_normal = -0.5 * (u**2 + v**2) - math.log(2 * math.pi * toy.radial_std * toy.tangential_std)
    # Turned back by R, the Jacobian is scale · (I + rate eᵃ (−b, a)ᵀ (1, 0)), so det = scale² (1 − rate eᵃ b).
    return log_normal - torch.log(toy.scale**2 * (1 - toy.rate * a.exp() * b).abs())


def total_mass(log_prob, extent=12.0, size=600):
    """∫ p(x) dx over the square from −extent to extent, on a grid of size × size points: 1 if p is a density."""
    line = torch.linspace(-extent, extent, size, dtype=torch.float64)
    points = torch.cartesian_prod(line, line)
    return log_prob(points).exp().sum() * (2 * extent / (size - 1)) ** 2


def check_affine(answer: Callable) -> None:
    """A Aᵀ = covariance and b = mean, for covariances with either sign of correlation and in more dimensions."""
    cases = [
        ([1.0, -2.0], [[4.0, 1.0], [1.0, 2.0]]),
        ([0.0, 3.0], [[1.0, -0.8], [-0.8, 2.0]]),
        ([1.0, 2.0, 3.0], [[2.0, 0.5, 0.3], [0.5, 1.0, -0.2], [0.3, -0.2, 3.0]]),
    ]
    for case in cases:
        mean, covariance = (torch.tensor(each, dtype=torch.float64) for each in case)
        D = len(mean)
        pair = answer(mean.clone(), covariance.clone())
        expect(isinstance(pair, tuple | list) and len(pair) == 2, "Return two things: the matrix A and the vector b.")
        A = numbers(pair[0], (D, D), "A")
        b = numbers(pair[1], (D,), "b")
        expect(
            not close(A, covariance),
            "A is the covariance itself. Variances are squared lengths: A z has the covariance A Aᵀ, here the square "
            "of what was asked.",
        )
        root = covariance.abs().sqrt()
        expect(
            not close(A.nan_to_num().abs().tril(), root.tril()) or close(A @ A.mT, covariance),
            "A root of each entry is not a root of the matrix: multiply A Aᵀ out. One matrix root is "
            "torch.linalg.cholesky.",
        )
        expect(
            close(A @ A.mT, covariance) or not close(A.mT @ A, covariance),
            "Your AᵀA is the covariance, but z has covariance I, so A z has A I Aᵀ = A Aᵀ. Transpose your A.",
        )
        expect(
            not close(A @ covariance @ A.mT, torch.eye(D, dtype=A.dtype)),
            "Your A takes N(mean, covariance) to unit covariance: that is the way from x to z. Asked is the way back.",
        )
        expect(close(A @ A.mT, covariance), "A z + b has the covariance A Aᵀ. Compare your A Aᵀ with what was asked.")
        expect(
            bool(b.any()) or not bool(mean.any()),
            "Your b is zero, so A z + b has mean 0: the + b got lost, as on the slides.",
        )
        expect(
            not close(b, A @ mean),
            "Your b is A @ mean. But z has mean 0 before A moves it, so the mean of A z + b is b alone.",
        )
        expect(close(b, mean), "The mean of A z + b is A·0 + b. Compare it with the mean that was asked.")


def log_det_of_chain(maps, x):
    """log |det J| in nats, (n,), of maps[0], then maps[1], and so on, applied to the points x (n, 2).

    Each map takes points (n, 2) to a pair: where they go, (n, 2), and its own log |det J| there, (n,).
    """
    total = torch.zeros(len(x), dtype=x.dtype)
    for f in maps:
        x, log_det = f(x)
        total = total + log_det
    return total


def check_shear(answer: Callable) -> None:
    """Determinant 1, (1, 0) stays, (0, 1) gets the length that was asked."""
    for stretch in (2.0, 1.25, 5.0):
        A = numbers(answer(stretch), (2, 2), "the matrix")
        first, second = A[:, 0], A[:, 1]
        expect(
            not close(A.mT @ A, torch.eye(2, dtype=A.dtype)),
            "Your matrix is orthogonal (the real case of unitary): it keeps every length, so it cannot stretch (0, 1). "
            "Determinant 1 asks for less than that.",
        )
        expect(
            not close(A, torch.tensor([[1.0, 0.0], [0.0, stretch]])),
            f"(0, 1) is stretched, but so is the area: the determinant is {A.det():.3g}. Let (0, 1) lean instead.",
        )
        expect(
            not (close(A.det(), 1.0) and not close(first, torch.tensor([1.0, 0.0]))),
            "The determinant is 1, but (1, 0) moved. It has to stay, so the first column is (1, 0).",
        )
        expect(close(first, torch.tensor([1.0, 0.0])), "(1, 0) has to stay: it goes to the first column of A.")
        expect(
            close(A.det(), 1.0),
            f"The determinant is {A.det():.3g}, and 1 was asked: what must stand at the lower right?",
        )
        length = float(second.norm())
        expect(
            not math.isclose(length, math.hypot(1, stretch), rel_tol=1e-4),
            f"(0, 1) goes to (k, 1), which is √(k² + 1) = {length:.3f} long for your k = {stretch:.3g}. Solve for k.",
        )
        expect(
            math.isclose(length, stretch, rel_tol=1e-4),
            f"(0, 1) became {length:.3f} long, and {stretch:.3g} was asked. Which theorem gives the length of (k, 1)?",
        )


def check_wing(answer: Callable) -> None:
    """Equal to the exact density near the data, and to the formula with an absolute value where the wing is folded."""
    g = torch.Generator().manual_seed(2)
    for toy in (Pinwheel(wings=1), Pinwheel(radial_std=0.2, tangential_std=0.1, wings=1, rate=0.25, scale=1.5)):
        e = torch.randn(200, 2, generator=g, dtype=torch.float64)
        a, b = 1 + toy.radial_std * e[:, 0], toy.tangential_std * e[:, 1]
        exact = toy.log_prob(toy.wind(torch.stack((a, b), -1), torch.zeros(200)))
        off = numbers(answer(a.clone(), b.clone(), toy), (200,), "log p") - exact
        bend = toy.rate * a.exp() * b
        log_det, scale = torch.log((1 - bend).abs()), 2 * math.log(toy.scale)
        expect(not close(off + exact, exact.exp()), _WING["log"])
        expect(not close(off, log_det), _WING["turns"])
        expect(not close(off, log_det + scale), _WING["none"])
        expect(not close(off, 2 * (log_det + scale)), _WING["sign"])
        expect(not close(off, torch.full_like(off, scale)), _WING["scale"])
        expect(not close(off, torch.full_like(off, scale / 2)), _WING["once"])
        expect(not close(off, log_det - torch.log((1 + bend).abs())), _WING["mirror"])
        standard = -0.5 * (a**2 + b**2) - math.log(2 * math.pi) - log_det - scale
        expect(not close(off + exact, standard), _WING["standard"])
        expect(close(off, torch.zeros_like(off)), _WING["other"])
    a, b = torch.tensor([1.5, 2.0], dtype=torch.float64), torch.tensor([1.0, 0.9], dtype=torch.float64)
    folded = numbers(answer(a.clone(), b.clone(), Pinwheel()), (2,), "log p")
    expect(bool(folded.isfinite().all()), _WING["abs"])
    expect(close(folded, wing_log_prob(a, b, Pinwheel())), _WING["other"])


_WING = {
    "log": "This looks like p(x) itself; asked is its logarithm, in nats.",
    "turns": "You treat the map as a plain rotation, which keeps areas. But the angle, rate · eᵃ, depends on a: wings "
    "shear and bend, and |det J| depends on the point.",
    "none": "This is the density of the features (a, b). Divide by what the map does to areas: subtract log |det J|.",
    "sign": "The determinant has the wrong sign in your sum. The map here runs from features to x, so areas that grow "
    "make p(x) fall: log p(x) = log N(features) − log |det J|.",
    "scale": "You are off by the same number everywhere, 2 log scale: multiplying x by scale changes areas too.",
    "once": "You are off by log scale. Both axes are stretched, so areas grow by scale².",
    "mirror": "Near, but your determinant is 1 + rate · eᵃ · b: that is for wings that turn the other way. Compare it "
    "with autograd at one point.",
    "standard": "The determinant is right. But the features are not standard normal: a has mean 1 and toy.radial_std, "
    "b has toy.tangential_std.",
    "abs": "Where b is large, 1 − rate · eᵃ · b is negative: the wing is folded over and mirrored there. A density "
    "needs the absolute value.",
    "other": "Not yet. Take one pair (a, b), let torch.func.jacrev find the Jacobian of toy.wind there, and compare "
    "its determinant with yours.",
}


def check_mass(answer: Callable) -> None:
    """The mass of densities that are known, and of one that has mass 2."""

    def normal(x: Tensor) -> Tensor:
        return -0.5 * x.square().sum(-1) - math.log(2 * math.pi)

    for extent, size in ((12.0, 600), (6.0, 301)):
        mass = float(numbers(answer(normal, extent, size), (), "the mass"))
        side, step = 2 * extent, 2 * extent / (size - 1)

        def off_by(factor: float, mass: float = mass) -> bool:
            return math.isclose(mass, factor, rel_tol=0.02)

        expect(mass > 0, "The mass came out negative: add up p(x), not log p(x).")
        expect(
            not off_by(1 / side**2),
            "This is the mean of p over the square. An integral is the mean times the square's area.",
        )
        expect(not off_by(0.25), "A quarter: the square runs from −extent to extent, so its side is 2 · extent.")
        expect(
            not off_by(1 / step**2), "This is the sum of p at the points. Each stands for a small cell: times its area."
        )
        expect(not off_by(1 / step), "You multiplied by the side of a cell once. The plane has two: times side².")
        expect(not off_by(1 / side), "You multiplied the mean by the side of the square once. The plane has two.")
        expect(off_by(1.0), f"A standard normal came out with mass {mass:.3g} on a grid that holds all of it.")
    twice = float(numbers(answer(lambda x: normal(x) + math.log(2), 6.0, 301), (), "the mass"))
    expect(
        not math.isclose(twice, 1.0, rel_tol=0.02),
        "You found mass 1 where it is 2: do not normalize, or no bug can be seen.",
    )
    expect(math.isclose(twice, 2.0, rel_tol=0.02), f"A function of mass 2 came out with mass {twice:.3g}.")
    shifted = float(numbers(answer(lambda x: normal(x - torch.tensor([2.0, -3.0])), 9.0, 400), (), "the mass"))
    expect(math.isclose(shifted, 1.0, rel_tol=0.02), "A normal away from the origin should have mass 1 too.")


def check_chain(answer: Callable) -> None:
    """Three maps whose log-determinants depend on the place, against autograd; and the empty chain."""

    def bend(x: Tensor) -> tuple[Tensor, Tensor]:  # x₁ stretched by a slope that depends on x₁
        return torch.stack((x[:, 0].sinh(), x[:, 1]), -1), x[:, 0].cosh().log()

    def swap(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flip(-1) + 1, torch.zeros(len(x), dtype=x.dtype)

    def scale(x: Tensor) -> tuple[Tensor, Tensor]:  # x₂ scaled by what x₁ says
        return torch.stack((x[:, 0], x[:, 1] * (-x[:, 0]).exp()), -1), -x[:, 0]

    maps = [bend, swap, scale, bend]
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places, logs = [x], []
    for f in maps:
        z, log_det = f(places[-1])
        places.append(z)
        logs.append(log_det)
    right, back = sum(logs), x
    reverse = torch.zeros(6, dtype=x.dtype)
    for f in reversed(maps):
        back, log_det = f(back)
        reverse = reverse + log_det
    value = numbers(answer(list(maps), x.clone()), (6,), "log |det J|")
    expect(
        not close(value, sum(f(x)[1] for f in maps)),
        "You asked every map at the first x. Each acts where the one before it has led: give it those points.",
    )
    expect(not close(value, logs[-1]), "That is the last map's alone. All of them change areas.")
    expect(not close(value, right / len(maps)), "That is the mean of the log-determinants. They add up.")
    expect(not close(value, math.prod(logs)), "Determinants multiply. What do their logarithms do?")
    expect(not close(value, right.exp()), "That is the determinant itself. Its logarithm is asked for.")
    expect(not close(value, reverse), "You went through the maps from the last to the first. maps[0] acts first.")
    expect(not close(value, -right), "The sign is turned: this is the log-determinant of the way back.")
    expect(close(value, right), "Not yet. Carry two things along: the points, and the sum so far.")
    nothing = numbers(answer([], x.clone()), None, "log |det J|")
    expect(close(nothing, 0.0), "With no map at all nothing moves: the log-determinant is 0.")


EXERCISES = [
    Exercise(
        name="change_of_variables_2d.1",
        question=(
            "Section 2 took A and b and gave a Gaussian. Go the other way: which A and b make N(mean, covariance) out "
            "of N(0, I)? There are many right answers; any one will do."
        ),
        answer=affine_to,
        check=check_affine,
        praise="right. A Aᵀ = covariance and b = mean. A Q does as well, for any rotation Q: the density cannot tell.",
        hints=(
            "What are the mean and the covariance of A z + b when z has mean 0 and covariance I?",
            "You need A Aᵀ = covariance. torch.linalg.cholesky finds a lower-triangular A.",
        ),
        aims=("check",),
    ),
    Exercise(
        name="change_of_variables_2d.2",
        question=(
            "You may read that the Jacobian of an additive coupling is *unitary* (the poster on NICE below says so). "
            "Unitary matrices keep every length. What is meant is *unit determinant*, which keeps areas only. Show the "
            "difference: write a shear that keeps every area and makes (0, 1) as long as you please."
        ),
        answer=shear_to,
        check=check_shear,
        praise="right. Determinant 1, and lengths as large as you please. Unit determinant is far weaker than unitary.",
        hints=(
            "The columns of A are where (1, 0) and (0, 1) go. One is given; the other is (k, something).",
            "A = [[1, k], [0, 1]] has determinant 1 for every k, and (k, 1) has the length √(k² + 1).",
        ),
        aims=("build",),
    ),
    Exercise(
        name="change_of_variables_2d.3",
        question=(
            "Write the log-density of one wing of the pinwheel, as a function of the features (a, b) that land on x. "
            "It is compared with `Pinwheel(wings=1).log_prob`, and then where the wing is folded over."
        ),
        answer=wing_log_prob,
        check=check_wing,
        praise="right. |det J| = scale² · |1 − rate · eᵃ · b|, and it agrees with the exact density of the data set.",
        hints=(
            "log p(x) = log N(a; 1, radial_std²) + log N(b; 0, tangential_std²) − log |det J|. A turn by a fixed angle "
            "would have determinant 1. What does it add that the angle φ = rate · eᵃ grows with a?",
            "Differentiate R(φ)(a, b) and turn the result back by R(−φ): its columns are (1, 0) + φ′ · (−b, a) and "
            "(0, 1), with φ′ = rate · eᵃ. Take the determinant, then scale both axes.",
        ),
        aims=("predict",),
    ),
    Exercise(
        name="change_of_variables_2d.4",
        question=(
            "**The bug museum.** Four functions claim to be a log-density in the plane. Three hold a real mistake. "
            "Do not read their code: find them by their behavior. Write `total_mass`, then run the cell below it."
        ),
        answer=total_mass,
        check=check_mass,
        praise="right. This is a test that any log_prob must pass, and that needs no look at its code.",
        hints=(
            "An integral over a square is a sum over small cells: the value of p in each, times the area of a cell.",
            "torch.cartesian_prod(line, line) makes the points; neighbors are 2 · extent / (size − 1) apart.",
        ),
        aims=("catch",),
    ),
    Exercise(
        name="change_of_variables_2d.5",
        question=(
            "**One after the other.** Write the log-determinant of a composition of any number of maps. Each of them "
            "tells its own, at the points that it is given."
        ),
        answer=log_det_of_chain,
        check=check_chain,
        praise="right. Determinants multiply, each at its own place, so their logarithms add up. A flow is this loop.",
        hints=(
            "The second map does not act at x. Where does it act?",
            "Loop over the maps: x, log_det = f(x), and add log_det to a sum that starts at 0.",
        ),
        aims=("add",),
    ),
]
