"""The exercises: the way back through a coupling, nats and units again, and a claim that is too good."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, Wrong, expect, numbers


def affine_inverse(z_a, z_b, conditioner):
    """x_b and log |det ∂x/∂z| of the inverse of z_a = x_a, z_b = x_b · exp(s(x_a)) + t(x_a).

    z_a is (n, D_a), z_b is (n, D_b), and s, t = conditioner(x_a) are (n, D_b) each. Returns (n, D_b) and (n,).
    """
    s, t = conditioner(z_a)  # z_a is x_a: it passed unchanged
    return (z_b - t) * torch.exp(-s), -s.sum(-1)


def raw_nats(nats, std):
    """Mean log-likelihood of the raw x (n, D), when that of the standardized u = (x − mean) / std is ``nats``.

    std is (D,), one for each coordinate. A number, in nats a point.
    """
    return nats - torch.log(std).sum()


def too_good(log_p, log_q):
    """True if a claimed log q(x) cannot be right: (n,) and (n,), nats at the same n draws of the exact density p."""
    gain = log_q - log_p
    error = gain.std() / math.sqrt(len(gain))  # of the mean, by chance
    return bool(gain.mean() > 3 * error)


def couplings_needed(factor, bound):
    """The fewest couplings, with masks that take turns, that can scale a coordinate by ``factor``, if each |s| ≤ bound.

    The first coupling moves this coordinate. factor > 0 may be below 1. A whole number, 0 if factor is 1.
    """
    moves = math.ceil(abs(math.log(factor)) / bound)  # each move scales by e^bound at most, or by e^−bound
    return max(2 * moves - 1, 0)  # between two of them the other coordinate moves


def can_be_normal(z):
    """True if the latent points z (n, 2) can be draws of a standard normal, False if they cannot. Allow for chance."""
    r2 = z.square().sum(-1)
    off = [z.mean(0), z.var(0) - 1, (z[:, 0] * z[:, 1]).mean()]
    off += [(r2 < 2 * t).to(z).mean() - (1 - math.exp(-t)) for t in (0.25, 0.5, 1.0, 2.0)]  # P(|z|² < 2t)
    return all(bool((value.abs() < 5 / math.sqrt(len(z))).all()) for value in off)


def check_inverse(answer: Callable) -> None:
    """Undoes the forward equations, and its log_det is autograd's."""
    g = torch.Generator().manual_seed(5)
    for D_a, D_b in ((1, 1), (2, 3)):
        x_a, x_b = torch.randn(6, D_a, generator=g).double(), torch.randn(6, D_b, generator=g).double()
        W = torch.randn(2, D_a, D_b, generator=g).double()
        s, t = torch.tanh(x_a @ W[0]), x_a @ W[1] + 1

        def conditioner(a: Tensor, x_a: Tensor = x_a, s: Tensor = s, t: Tensor = t) -> tuple[Tensor, Tensor]:
            right = isinstance(a, Tensor) and a.shape == x_a.shape and torch.equal(a, x_a)
            expect(right, "Give the conditioner z_a: that part passed unchanged, so it is still x_a. x_b is not known.")
            return s.clone(), t.clone()

        z_b = x_b * s.exp() + t
        pair = answer(x_a.clone(), z_b.clone(), conditioner)
        expect(isinstance(pair, tuple | list) and len(pair) == 2, "Return two things: x_b and log_det.")
        x = numbers(pair[0], (6, D_b), "x_b")
        expect(
            not _close(x, z_b * (-s).exp() - t),
            "You divide first and subtract then. The forward map shifts last, so undo the shift first.",
        )
        expect(not _close(x, (z_b - t) * s.exp()), "You multiply by exp(s) once more. Going back divides by it.")
        expect(not _close(x, (z_b + t) * (-s).exp()), "The shift was added on the way there, so subtract it.")
        expect(not _close(x, x_b * s.exp() + t + (z_b - x_b) * s.exp()), "This is the forward map, applied again.")
        expect(
            _close(x, x_b), "Forward and then your function should give x_b back. Solve z_b = x_b · exp(s) + t for x_b."
        )
        log_det = torch.as_tensor(pair[1]).double().detach()
        expect(
            log_det.shape != (6, D_b) or log_det.shape == (6,),
            "log_det came with one number for each coordinate. It is one for each sample: sum over the last axis.",
        )
        expect(log_det.shape != (), "log_det came as one number for the whole batch. Each sample has its own.")
        log_det = numbers(log_det, (6,), "log_det")
        expect(
            not _close(log_det, s.sum(-1)),
            "Your log_det is Σ s, that of the forward map. log_det is of the map *just applied*; there and back is 0.",
        )
        expect(not _close(log_det, (-s).exp().prod(-1)), "Your log_det is the determinant itself; take its logarithm.")
        expect(_close(log_det, -s.sum(-1)), "x_b is right. Each x_b moves by exp(−s) for one unit of its z_b: log_det?")


def check_raw(answer: Callable) -> None:
    """Against Gaussians whose log-likelihood is known on both scales."""
    for std in ([0.5, 5.0], [2.0], [2.0, 2.0, 2.0, 2.0, 2.0], [0.1, 0.3, 5.0]):
        std = torch.tensor(std, dtype=torch.float64)
        nats = -1.3
        raw = float(numbers(answer(nats, std.clone()), (), "the log-likelihood"))

        def gave(value: Any, raw: float = raw) -> bool:
            return math.isclose(raw, float(value), rel_tol=1e-6, abs_tol=1e-6)

        right = nats - std.log().sum()
        expect(
            not gave(nats) or gave(right),
            "You left it as it is. But nats are not free of units: x lives on another scale than u, and so does p(x).",
        )
        expect(
            not gave(nats + std.log().sum()) or gave(right),
            "The sign is turned. Where std > 1, x is spread wider than u, so p(x) is lower than p(u).",
        )
        expect(
            not gave(nats - std.log().mean()) or gave(right),
            "You took the mean of the log std. Volumes multiply, so their logarithms add up: one term a coordinate.",
        )
        expect(
            not gave(nats - std.mean().log()) or gave(right),
            "You took the logarithm of a mean std. Each coordinate is stretched by its own.",
        )
        expect(
            not gave(nats - std.log()[0]) or gave(right),
            "You counted one coordinate only. All D of them are stretched.",
        )
        expect(
            not gave(nats - 2 * std.log().sum()) or gave(right),
            "Off by a factor of two: the determinant of u ↦ x holds std, not its square.",
        )
        expect(
            not (gave(nats / std.prod()) or gave(nats * std.prod())),
            "That scales the log-likelihood by the determinant. It scales p; log p is shifted by its logarithm.",
        )
        expect(not gave(nats - std.prod()), "You subtracted the determinant. Subtract its logarithm.")
        expect(gave(right), "Not yet. u = (x − mean)/std is a map with a diagonal Jacobian: what is log |det|?")


def check_too_good(answer: Callable) -> None:
    """Honest densities, bad and excellent, lucky ones, and claims from broken flows."""
    g = torch.Generator().manual_seed(50)
    n = 4000

    def normal(x: Tensor, scale: float) -> Tensor:
        return -0.5 * (x / scale).square().sum(-1) - 2 * math.log(scale) - math.log(2 * math.pi)

    def verdict(log_p: Tensor, log_q: Tensor) -> bool:
        value = answer(log_p.clone(), log_q.clone())
        expect(value is not None, "Your function returned None. Is there a return?")
        value = torch.as_tensor(value) if isinstance(value, bool | Tensor) else value
        right = isinstance(value, Tensor) and value.numel() == 1 and value.dtype == torch.bool
        expect(right or type(value).__name__ in ("bool", "bool_"), "Return True or False, one for all points together.")
        return bool(value)

    x = torch.randn(n, 2, generator=g, dtype=torch.float64)
    log_p, broken = normal(x, 1.0), normal(x, 1.0) + 0.5 + torch.randn(n, generator=g, dtype=torch.float64)
    far, tight = normal(x, 2.0), normal(x / 100, 0.01)
    # A draw on which a density that is a little off looks better than the truth, by mere luck: one in three does.
    lucky = next(part for part in x.split(100) if (normal(part, 1.01) - normal(part, 1.0)).mean() > 5e-4)
    if verdict(log_p, far) and not verdict(log_p, broken):
        raise Wrong("You call the honest flow too good, and let the broken one pass. Which of p and q is which?")
    expect(
        not verdict(tight, normal(x / 100, 0.0102)),
        "You object to log q above 0. A density may exceed 1, and here the exact one does.",
    )
    expect(
        verdict(log_p - 6, broken - 6),
        "log q is 0.5 nats above log p in the mean, and both are negative: you let this pass. Compare q with p, and "
        "that with the error of the *mean* (the spread divided by √n), not with the spread of single points.",
    )
    peaked = torch.where(log_p > log_p.quantile(0.3), log_p + 0.2, log_p - 0.727)  # 0.7 e^0.2 + 0.3 e^−0.727 = 1
    expect(
        not verdict(log_p, peaked),
        "You object because q is above p at some points, or at most. It may be, as long as it is below at others: only "
        "the mean over draws of p cannot be.",
    )
    expect(
        not verdict(normal(lucky, 1.0), normal(lucky, 1.01)),
        "You object to a gain that is mere luck of the draw. Ask how far from 0 the mean of n numbers falls by chance.",
    )
    expect(not verdict(log_p, log_p.clone()), "q = p is allowed: it is the best there is.")
    small = log_p + 0.05 + 0.1 * torch.randn(n, generator=g, dtype=torch.float64)
    expect(verdict(log_p, small), "A gain of 0.05 nats with an error of 0.002 cannot be luck: do not let it pass.")


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b.to(a), rtol=1e-6, atol=1e-6)


def check_couplings(answer: Callable) -> None:
    """Stretching and shrinking, by more and by less than one coupling can, and not at all."""
    for factor, bound in ((800.0, 2.0), (0.004, 1.0), (5.0, 2.0), (1.0, 2.0)):
        value = float(numbers(answer(factor, bound), (), "the number of couplings"))
        log = abs(math.log(factor))
        moves = math.ceil(log / bound)
        right = max(2 * moves - 1, 0)
        where = f" (factor {factor:g}, bound {bound:g}: {value:g} came)"
        expect(value == right or value == round(value), "Half a coupling there is not: round up." + where)
        expect(
            value == right or value != moves,
            "You count the couplings that move this coordinate. But masks take turns: every second one moves the other."
            + where,
        )
        expect(
            value == right or value != 2 * moves,
            "One too many: the first coupling moves this coordinate, and after its last move none is needed." + where,
        )
        expect(
            value == right or value != 2 * math.ceil(factor / bound) - 1,
            "Factors multiply. It is their logarithms, s, that add up, and each is at most the bound." + where,
        )
        expect(
            value == right or value != 2 * math.floor(log / bound) - 1 or log == 0,
            "You rounded down: with so few the coordinate stays short of the factor." + where,
        )
        expect(
            factor >= 1 or value == right,
            "For a factor below 1 the coordinate shrinks, with s = −bound: as many couplings as for 1/factor." + where,
        )
        expect(value == right, "Not yet. By which factor can one coupling scale? And two that move it?" + where)


def check_normal(answer: Callable) -> None:
    """True draws, many and few; clouds that are off, and clouds with the right moments that are not normal."""
    g = torch.Generator().manual_seed(5)

    def normal(n: int) -> Tensor:
        return torch.randn(n, 2, generator=g, dtype=torch.float64)

    def verdict(z: Tensor) -> bool:
        value = answer(z.clone())
        expect(value is not None, "Your function returned None. Is there a return?")
        single = isinstance(value, Tensor) and value.numel() == 1 and value.dtype == torch.bool
        right = single or type(value).__name__ in ("bool", "bool_")
        expect(right, "Return True or False, one for all points together.")
        return bool(value)

    angle = 2 * math.pi * torch.rand(4000, generator=g, dtype=torch.float64)
    lean = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    off = {
        "moved by 0.3": normal(4000) + torch.tensor([0.3, 0.0]),
        "stretched by 1.3": 1.3 * normal(4000),
        "leaning, with correlation 0.6": normal(4000) @ lean.T,
        "a ring": math.sqrt(2) * torch.stack((angle.cos(), angle.sin()), -1),
    }
    passed = [name for name, z in off.items() if verdict(z)]
    turned_down = [n for n in (4000, 4000, 200, 200, 200) if not verdict(normal(n))]
    expect(len(passed) < 4 or turned_down, "This test lets everything pass, even a ring. What is z like if q = p?")
    expect(passed or len(turned_down) < 5, "This test turns everything down, even true draws. Allow for chance.")
    expect("moved by 0.3" not in passed, "A cloud moved by 0.3 got past you: what is the mean of z?")
    expect("stretched by 1.3" not in passed, "A cloud stretched by 1.3 got past you: what is the spread of z?")
    expect(
        "leaning, with correlation 0.6" not in passed,
        "A leaning cloud got past you: each coordinate looks normal, but the two know of each other.",
    )
    expect(
        "a ring" not in passed,
        "A ring got past you: its means and covariance are those of a normal. Look at distances from the origin too.",
    )
    expect(
        not turned_down,
        f"You turned down {len(turned_down)} of 5 sets of true draws, among them one of {min(turned_down, default=0)} "
        "points. A mean over n points strays by about 1/√n: let the tolerance depend on n.",
    )


EXERCISES = [
    Exercise(
        name="realnvp_in_the_plane.1",
        question=(
            "**The way back.** Sampling needs the inverse. Write it for one affine coupling, with the log-determinant "
            "of the map *just applied*. (Published code has been seen in which forward and inverse both subtract.)"
        ),
        answer=affine_inverse,
        check=check_inverse,
        praise="right. It calls s and t and never inverts them: that is why they may be any network at all.",
        hints=(
            "What does the conditioner need, and where do you have it? Then solve z_b = x_b · exp(s) + t for x_b.",
            "s, t = conditioner(z_a); subtract t first, then multiply by exp(−s). The log-determinant is −Σ s.",
        ),
        aims=("write",),
    ),
    Exercise(
        name="realnvp_in_the_plane.2",
        question=(
            "**Have nats a unit, again.** A colleague standardizes each coordinate and reports −1.30 nats. You fit "
            "the raw data and report −1.70. Who has the better flow? Bring the colleague's number to your scale."
        ),
        answer=raw_nats,
        check=check_raw,
        praise="right. Doubling all of x costs D · log 2 nats, and says nothing about the flow.",
        hints=(
            "Standardizing is the first map of a flow. What is its log |det|, for one coordinate and for all?",
            "log p(x) = log p(u) + log |det ∂u/∂x|, and ∂u/∂x is diagonal with entries 1/std.",
        ),
        aims=("measure",),
    ),
    Exercise(
        name="realnvp_in_the_plane.3",
        question=(
            "**The bug museum: too good to be true.** You saw a wrong sign beat the truth. Write the alarm: "
            "given log p and a claimed log q at the same draws of p, can the claim be right? Allow for luck."
        ),
        answer=too_good,
        check=check_too_good,
        praise="right. On average over draws of p no density beats p: that is KL(p‖q) ≥ 0, and here it catches bugs.",
        hints=(
            "Which average can never be positive if q is a density? How far may it stray by chance?",
            "The mean of log q − log p has a standard error, the standard deviation over √n. Allow three of them.",
        ),
        aims=("notice",),
    ),
    Exercise(
        name="realnvp_in_the_plane.4",
        question=(
            "**The price of the bound.** One coupling scales by at most e^bound. How many does it take until a "
            "coordinate of the plane can be scaled by a given factor?"
        ),
        answer=couplings_needed,
        check=check_couplings,
        praise="right. A stretch of 800 takes seven couplings with bound 2: the bound costs depth, and saves runs.",
        hints=(
            "Scalings multiply, so their logarithms add up. Which couplings add to the logarithm of this coordinate?",
            "It has to be moved ceil(|log factor| / bound) times, and between two moves the other is moved.",
        ),
        aims=("explain",),
    ),
    Exercise(
        name="realnvp_in_the_plane.5",
        question=(
            "**Read the latent.** If q = p, then z = f(x) of the data is standard normal. Write the test that needs no "
            "exact density: can these latent points be draws of one?"
        ),
        answer=can_be_normal,
        check=check_normal,
        praise="right. It can only convict: a flow may pass and still be wrong, for this looks at a few numbers of z.",
        hints=(
            "Mean 0, deviation 1, no correlation: a ring can have all three. What else do you know of |z|?",
            "Compare each number with its value for a normal, and allow 5/√n. In the plane P(|z|² < 2t) = 1 − e^(−t).",
        ),
        aims=("read",),
    ),
]
