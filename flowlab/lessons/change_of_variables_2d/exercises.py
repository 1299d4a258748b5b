"""The exercises: a Gaussian made to order, a cheap determinant, a pinwheel's wing, a bug museum, drawing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowlab.datasets import Pinwheel
from flowlab.lessons.base.exercise import Exercise, close, expect, numbers


def affine_to(mean, covariance):
    """The matrix A (D, D) and the vector b (D,) for which A z + b ~ N(mean, covariance) when z ~ N(0, I)."""
    A = torch.linalg.cholesky(covariance)  # A @ Q does as well, for any rotation Q
    return A, mean


def cheap_map(x):
    """A bent, invertible map of x (n, D), any D ≥ 2, with its log |det J|, without a determinant: (n, D) and (n,).

    The last output depends on every input, and log |det J| depends on the point. No product with a D × D matrix.
    """
    before = torch.cumsum(x, -1) - x  # the sum of the coordinates before each one: J is lower triangular
    s = torch.tanh(before)
    return x * torch.exp(s) + before, s.sum(-1)


def wing_log_prob(a, b, toy):
    """log p(x) in nats where the features (a, b) land on a wing: (n,) and (n,) to (n,).

    Count these features alone: near the data no others land on the same point.
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
            "Your b is zero, so A z + b has mean 0: the + b got lost.",
        )
        expect(
            not close(b, A @ mean),
            "Your b is A @ mean. But z has mean 0 before A moves it, so the mean of A z + b is b alone.",
        )
        expect(close(b, mean), "The mean of A z + b is A·0 + b. Compare it with the mean that was asked.")


def draw_with_log_prob(maps, z):
    """Samples x (n, 2) of a flow, and their log p(x) in nats (n,), from draws z (n, 2) of its base, N(0, I).

    From data to latent, maps[0] acts first. Each map has forward and inverse; each takes points (n, 2) to a pair: where
    they go, (n, 2), and log |det| of the map just applied, (n,).
    """
    log_p = -0.5 * z.square().sum(-1) - math.log(2 * math.pi)
    x = z
    for f in reversed(maps):
        x, log_det = f.inverse(x)
        log_p = log_p - log_det
    return x, log_p


def check_cheap(answer: Callable) -> None:
    """log_det against autograd in several dimensions; on what the map has to depend; and its cost at D = 1,000."""
    for D in (2, 3, 6):
        x = torch.randn(12, D, generator=torch.Generator().manual_seed(D), dtype=torch.float64)

        def run(v: Tensor, D: int = D) -> tuple[Any, Any]:
            pair = answer(v)
            expect(isinstance(pair, tuple | list) and len(pair) == 2, "Return two things: z (n, D) and log_det (n,).")
            return pair[0], pair[1]

        z, log_det = run(x.clone())
        z, log_det = numbers(z, (12, D), "z"), numbers(log_det, (12,), "log_det")
        expect(isinstance(run(x.clone())[0], Tensor), "Return tensors here, so that autograd can check your log_det.")
        J = torch.autograd.functional.jacobian(lambda v, run=run: run(v)[0].sum(0), x).transpose(0, 1)  # (n, D, D)
        right = torch.linalg.slogdet(J).logabsdet
        expect(bool(right.isfinite().all()), "Somewhere det J is 0: there your map cannot be undone.")
        expect(
            bool((torch.linalg.det(J).sign() == torch.linalg.det(J).sign()[0]).all()),
            "det J changes its sign from point to point, so your map folds: two x land on one z.",
        )
        expect(not close(log_det, right.exp()), "That is |det J| itself. log_det is its logarithm.")
        expect(
            not close(log_det, -right) or close(log_det, right), "The sign of your log_det is turned: x to z is asked."
        )
        expect(
            not close(log_det, torch.zeros(12)) or close(right, torch.zeros(12)),
            "Your log_det is 0, but your map changes areas: compare with autograd.",
        )
        expect(
            close(log_det, right),
            "Your log_det is not that of your map. If J is triangular, only its diagonal counts: add log |∂z_i/∂x_i|.",
        )
        expect(
            not close(J, J[:1]),
            "Your map is a matrix (and a shift): one J serves all points. Let it bend.",
        )
        expect(
            bool((J[:, -1] != 0).any(0).all()),
            "The last output depends on some inputs only. In a triangular map it may depend on all of them.",
        )
        expect(
            not close(right, right[:1]),
            "Your log_det is the same at every point. Let the factors ∂z_i/∂x_i depend on the point too.",
        )
    x = torch.randn(20, 1000, generator=torch.Generator().manual_seed(0)) / 100
    started = time.process_time()
    answer(x)
    expect(
        time.process_time() - started < 1.0,
        "At D = 1,000 it takes longer than a second: is there a determinant, or a Jacobian, in it?",
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


class _Step:
    """A map with both directions, and how often each was called."""

    def __init__(self, forward: Callable, inverse: Callable) -> None:
        self._forward, self._inverse, self.asked_forward = forward, inverse, 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.asked_forward += 1
        return self._forward(x)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self._inverse(z)


def _steps() -> list[_Step]:
    def pair(v: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return torch.stack((first, second), -1)

    bend = _Step(
        lambda x: (pair(x, x[:, 0].sinh(), x[:, 1]), x[:, 0].cosh().log()),
        lambda z: (pair(z, z[:, 0].asinh(), z[:, 1]), -0.5 * (1 + z[:, 0] ** 2).log()),
    )
    swap = _Step(lambda x: (x.flip(-1) + 1, 0 * x[:, 0]), lambda z: ((z - 1).flip(-1), 0 * z[:, 0]))
    scale = _Step(
        lambda x: (pair(x, x[:, 0], x[:, 1] * (-x[:, 0]).exp()), -x[:, 0]),
        lambda z: (pair(z, z[:, 0], z[:, 1] * z[:, 0].exp()), z[:, 0]),
    )
    return [bend, swap, scale, bend]


def check_draw(answer: Callable) -> None:
    """Samples of a chain whose log-determinants depend on the place, with their log p; and an empty chain."""
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    base = -0.5 * z.square().sum(-1) - math.log(2 * math.pi)
    maps = _steps()
    x, back = z, torch.zeros(6, dtype=z.dtype)
    for f in reversed(maps):
        x, log_det = f.inverse(x)
        back = back + log_det
    wrong_order = z
    for f in maps:
        wrong_order, _ = f.inverse(wrong_order)
    pair = answer(list(maps), z.clone())
    expect(isinstance(pair, tuple | list) and len(pair) == 2, "Return two things: the samples x and log p(x).")
    samples = numbers(pair[0], (6, 2), "x")
    expect(
        not close(samples, wrong_order),
        "You undid maps[0] first. From x to z it acts first, so on the way back it is undone last.",
    )
    forward = z
    for f in maps:
        forward, _ = f.forward(forward)
    expect(not close(samples, forward), "You went forward, from data to latent. Samples go the other way: inverse.")
    expect(close(samples, x), "The samples are not right yet. Start at z, and undo the maps one after the other.")
    log_p = numbers(pair[1], (6,), "log p")
    at_z = sum(f.inverse(z)[1] for f in maps)
    expect(not close(log_p, base + back), "You added log |det| of z → x. Where that map stretches, the density falls.")
    expect(not close(log_p, base), "This is log p_Z(z): no map is in it yet.")
    expect(not close(log_p, base - at_z), "You asked every map at z. Each acts where the one before it has led.")
    expect(not close(log_p, -back), "The base is missing: log p(x) begins with log p_Z(z).")
    at_x = -0.5 * x.square().sum(-1) - math.log(2 * math.pi)
    expect(not close(log_p, at_x - back), "You took the base's density at x. The base is the density of z.")
    expect(
        not close(log_p, base - back + math.log(2 * math.pi)),
        "The constant of N(0, I), −log 2π in the plane, is missing.",
    )
    expect(not close(log_p, (base - back).exp()), "This is p(x) itself; asked is its logarithm.")
    expect(close(log_p, base - back), "x is right, log p(x) is not yet: which sign has log |det| of z → x?")
    x, log_p = answer([], z.clone())
    expect(
        close(numbers(x, (6, 2), "x"), z) and close(numbers(log_p, (6,), "log p"), base),
        "With no map at all x is z, and log p(x) is that of the base.",
    )


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
        why=(
            "If z has covariance I, then A z + b has mean b and covariance A Aᵀ, so b = mean and A is any matrix "
            "with A Aᵀ = covariance. The Cholesky factor is one; A Q with Q Qᵀ = I is another, and gives the same "
            "density."
        ),
    ),
    Exercise(
        name="change_of_variables_2d.2",
        question=(
            "**Open task: build a map whose determinant is cheap.** Make one up: bent, invertible, for any number D of "
            "coordinates, with a log-determinant that needs no determinant. Any such map will do."
        ),
        answer=cheap_map,
        check=check_cheap,
        praise="right: bent in all dimensions, and its log_det costs a sum. The layers of flows are such maps.",
        hints=(
            "A triangular Jacobian is enough: let output i depend on the inputs up to i only.",
            "Scale x_i by exp(s) and shift it; make s and the shift of the coordinates *before* it (torch.cumsum).",
        ),
        aims=("build",),
        why=(
            "Output i depends on the inputs up to i only, so the Jacobian is triangular and its log-determinant "
            "is the sum of the logarithms of its diagonal. The map is undone one coordinate after the other, "
            "since each step only needs the ones before."
        ),
    ),
    Exercise(
        name="change_of_variables_2d.3",
        question=(
            "Write the log-density of one wing of the pinwheel, as a function of the features (a, b) that land on x. "
            "Where the wing is folded, give the part that these features bring. The check compares it with "
            "`Pinwheel(wings=1).log_prob` near the data, and with the formula beyond the fold."
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
        why=(
            "In the frame that turns with the wing, the Jacobian has the columns (1, 0) + φ′ (−b, a) and (0, 1), "
            "so its determinant is 1 − rate eᵃ b before scaling. The density of the features is divided by scale² "
            "times its absolute value."
        ),
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
        why=(
            "The integral is the sum of p over small cells, times the area of a cell. A wrong log-determinant "
            "changes p by a factor somewhere, and then the sum is not 1 any more, unless the errors cancel."
        ),
    ),
    Exercise(
        name="change_of_variables_2d.5",
        question=(
            "**Draw, and know the density.** A flow makes samples from z. Write a function that returns them together "
            "with their log p(x), in one pass, although the maps only tell their own log-determinants."
        ),
        answer=draw_with_log_prob,
        check=check_draw,
        praise="right. Log-determinants add, each at its own point, and the way back has the opposite sign.",
        hints=(
            "From x to z maps[0] acts first. In which order does the way back go, and where does each map act?",
            "log p(x) = log p_Z(z) + log |det ∂z/∂x|. Each inverse gives log |det ∂x/∂z| of its step: subtract it.",
        ),
        aims=("add",),
        why=(
            "From z back to x the maps act in reverse order, each at its own point. Each inverse tells log |det "
            "∂x/∂z| of its step, and log p(x) = log p_Z(z) minus their sum."
        ),
    ),
]
