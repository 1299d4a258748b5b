"""The exercises: a coupling, a flow trained and measured, a claim too good to be true, a peak, and the latent."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

import flowlab
from flowlab.datasets import TwoMoons
from flowlab.lessons.base.exercise import Exercise, Wrong, close, expect, log_prob_of, numbers, yes_or_no


def coupling(v, mask, conditioner, inverse=False):
    """One affine coupling in D dimensions, x to z, or z to x if ``inverse``, and log |det| of that direction.

    v is (n, D), and mask (D,) is True where a coordinate passes. raw, t = conditioner(v_a) for the passing part v_a of
    v, (n, D_b) each if D_b coordinates move; s = 2 tanh(raw). Returns (n, D), in the order of v, and (n,).
    """
    raw, t = conditioner(v[:, mask])
    s, out = 2 * torch.tanh(raw), v.clone()
    if inverse:
        out[:, ~mask] = (v[:, ~mask] - t) * torch.exp(-s)
        return out, -s.sum(-1)
    out[:, ~mask] = v[:, ~mask] * torch.exp(s) + t
    return out, s.sum(-1)


def fit_and_measure(x, new, log_p_new):
    """A flow fitted to the points x (n, 2), and its gauge: nats to the truth, as the points new (m, 2) tell.

    log_p_new (m,) is the exact log-density at new, in the units of x. Return the flow, whose log_prob takes points as
    they are in x, and a number.
    """
    flow = flowlab.spline_flow(2, layers=2, hidden=(32, 32))  # its first map, ActNorm, takes up mean and scale of x
    flowlab.fit(flow, x, steps=400, batch_size=256, learning_rate=5e-3, progress=False)
    with torch.no_grad():
        return flow, (log_p_new - flow.log_prob(new)).mean()


def too_good(log_p, log_q):
    """True if a claimed log q(x) cannot be right: (n,) and (n,), nats at the same n draws of the exact density p."""
    gain = log_q - log_p
    error = gain.std() / math.sqrt(len(gain))  # of the mean, by chance
    return bool(gain.mean() > 3 * error)


def spline_bin(x, x0, x1, y0, y1, d0, d1):
    """z and log ∂z/∂x, (n,) each, in one bin of a rational-quadratic spline, at the points x (n,) of it.

    The bin leads from the knot (x0, y0) to the knot (x1, y1). The slopes at its ends are d0 and d1. All are numbers.
    """
    s, xi = (y1 - y0) / (x1 - x0), (x - x0) / (x1 - x0)
    below = s + (d0 + d1 - 2 * s) * xi * (1 - xi)
    z = y0 + (y1 - y0) * (s * xi**2 + d0 * xi * (1 - xi)) / below
    slope = s**2 * (d1 * xi**2 + 2 * s * xi * (1 - xi) + d0 * (1 - xi) ** 2) / below**2
    return z, torch.log(slope)


def can_be_normal(z):
    """True if the latent points z (n, 2) can be draws of a standard normal, False if they cannot. Allow for chance."""
    r2 = z.square().sum(-1)
    off = [z.mean(0), z.var(0) - 1, (z[:, 0] * z[:, 1]).mean()]
    off += [(r2 < 2 * t).to(z).mean() - (1 - math.exp(-t)) for t in (0.25, 0.5, 1.0, 2.0)]  # P(|z|² < 2t)
    return all(bool((value.abs() < 5 / math.sqrt(len(z))).all()) for value in off)


def check_coupling(answer: Callable) -> None:
    """Both directions for several masks, against the equations, and each other's inverse."""
    for passes in ((True, False), (False, True), (True, False, False, True, False)):
        _check_coupling(answer, torch.tensor(passes), torch.Generator().manual_seed(5))


def _check_coupling(answer: Callable, mask: Tensor, g: Generator) -> None:
    D = len(mask)
    D_a, D_b = int(mask.sum()), int((~mask).sum())
    x = torch.randn(6, D, generator=g).double()
    W = torch.randn(2, D_a, D_b, generator=g).double()
    raw, t = 1.5 * torch.tanh(x[:, mask] @ W[0]), x[:, mask] @ W[1] + 1
    s, moved = 2 * torch.tanh(raw), x[:, ~mask]

    x_a = x[:, mask]

    def conditioner(a: Any) -> tuple[Tensor, Tensor]:
        given = torch.as_tensor(a).to(x_a)
        expect(
            given.shape == x_a.shape and close(given, x_a, rtol=1e-5, atol=1e-5),
            "Give the conditioner the part that passes, v[:, mask], and nothing else. That part is the same in x "
            "and in z, so both directions know it.",
        )
        return raw.clone(), t.clone()

    def run(v: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        kept = v.clone()
        pair = answer(v, mask.clone(), conditioner, inverse)
        expect(isinstance(pair, tuple | list) and len(pair) == 2, "Return two things: the points and log_det.")
        expect(torch.equal(v, kept), "Your function writes into the v that it was given. Write into v.clone().")
        out, log_det = numbers(pair[0], tuple(v.shape), "the points"), numbers(pair[1], None, "log_det")
        expect(
            log_det.shape != (6, D_b) or D_b == 1,
            "log_det came with one number for each coordinate. It is one for each sample: sum over the last axis.",
        )
        expect(log_det.shape != (), "log_det came as one number for the whole batch. Each sample has its own.")
        return out, numbers(log_det, (6,), "log_det")

    def is_(v: Tensor, passing: Tensor, moving: Tensor) -> bool:
        whole = torch.empty_like(v)
        whole[:, mask], whole[:, ~mask] = passing, moving
        return close(v, whole)

    a = x_a
    z, log_det = run(x.clone(), False)
    expect(not is_(z, a, moved * raw.exp() + t), "Your s is the raw output of the network. It is 2 tanh(raw).")
    expect(
        not close(z, torch.cat((a, moved * s.exp() + t), -1)) or is_(z, a, moved * s.exp() + t),
        "The parts are right, but not in their places: each coordinate keeps its column. Fill out[:, ~mask].",
    )
    expect(
        not is_(z, a, (moved + t) * s.exp()) and not is_(z, a, (moved - t) * (-s).exp()),
        "Forward scales first and shifts then: z_b = x_b · exp(s) + t.",
    )
    expect(is_(z, a, moved * s.exp() + t), "Forward is not right yet: the passing part stays, z_b = x_b · e^s + t.")
    expect(not close(log_det, -s.sum(-1)), "Forward scales x_b by exp(s), so its log_det is +Σ s.")
    expect(not close(log_det, raw.sum(-1)), "Your log_det adds up raw. The map scales by exp(s), s = 2 tanh(raw).")
    expect(not close(log_det, s.exp().prod(-1)), "Your log_det is the determinant itself; take its logarithm.")
    expect(close(log_det, s.sum(-1)), "z is right. Each x_b is scaled by exp(s): what is log |det|?")

    z = x.clone()
    z[:, ~mask] = moved * s.exp() + t
    z_b = z[:, ~mask]
    back, log_det = run(z, True)
    expect(
        not is_(back, a, z_b * (-s).exp() - t),
        "Your inverse divides first and subtracts then. Forward shifts last, so undo the shift first.",
    )
    expect(not is_(back, a, (z_b - t) * s.exp()), "Your inverse multiplies by exp(s) once more. It divides by it.")
    expect(not is_(back, a, (z_b + t) * (-s).exp()), "Forward added the shift, so the inverse subtracts it.")
    expect(not is_(back, a, z_b * s.exp() + t), "This is the forward map, applied again: look at ``inverse``.")
    expect(is_(back, a, moved), "Forward and then inverse should give x back. Solve z_b = x_b · exp(s) + t for x_b.")
    expect(
        not close(log_det, s.sum(-1)),
        "Your log_det of the inverse is that of forward. log_det is of the map *just applied*; there and back is 0.",
    )
    expect(close(log_det, -s.sum(-1)), "x is right. Each x_b moves by exp(−s) for one unit of its z_b: log_det?")


def check_measure(answer: Callable) -> None:
    """A flow that fits two moons in units of its own, and the gauge that it really has."""
    toy, scale, shift = TwoMoons(noise=0.1), 50.0, torch.tensor([300.0, -20.0])
    u, u_new = (toy.sample(n, torch.Generator().manual_seed(seed)) for n, seed in ((2000, 1), (4000, 2)))
    x, new = scale * u + shift, scale * u_new + shift
    log_p_new = toy.log_prob(u_new) - 2 * math.log(scale)
    pair = answer(x.clone(), new.clone(), log_p_new.clone())
    expect(isinstance(pair, tuple | list) and len(pair) == 2, "Return two things: the flow and its gauge.")
    log_q, said = log_prob_of(pair[0]), float(numbers(pair[1], (), "the gauge"))
    true = float((log_p_new - log_q(new)).mean())
    std = x.std(0).log().sum()
    standard = float((log_p_new - log_q((new - x.mean(0)) / x.std(0))).mean())

    def near(value: float) -> bool:
        return math.isclose(said, value, abs_tol=0.01)

    expect(
        not near(standard) or near(true),
        f"Your flow knows the standardized points only, and its log-density is in their units. In the units of x it is "
        f"lower by Σ log std = {std:.1f} nats. Fit x as it is, or make the standardizing a first map of your flow.",
    )
    expect(not near(-true) or near(true), "The sign is turned: the gauge is E[log p − log q], and above 0.")
    expect(
        not near(-float(log_q(new).mean())),
        "That is the loss, −E[log q]. The gauge compares it with the exact density.",
    )
    expect(near(true), f"Your flow is {true:.2f} nats from the truth on the new points, and you report {said:.2f}.")
    gaussian = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T))
    gaussians = float((log_p_new - gaussian.log_prob(new)).mean())
    expect(
        true < 0.2,
        f"You measure rightly: {true:.2f} nats, and a plain Gaussian has {gaussians:.2f}. "
        "Come below 0.2: try other couplings, more steps, another learning rate.",
    )


def check_too_good(answer: Callable) -> None:
    """Honest densities, bad and excellent, lucky ones, and claims from broken flows."""
    g = torch.Generator().manual_seed(50)
    n = 4000

    def normal(x: Tensor, scale: float) -> Tensor:
        return -0.5 * (x / scale).square().sum(-1) - 2 * math.log(scale) - math.log(2 * math.pi)

    def verdict(log_p: Tensor, log_q: Tensor) -> bool:
        return yes_or_no(answer(log_p.clone(), log_q.clone()))

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


def check_bin(answer: Callable) -> None:
    """z and log slope in three bins, one of them a straight line; mixed ends, and slopes by another variable."""
    for x0, x1, y0, y1, d0, d1 in (
        (-1.0, 1.0, -2.0, 0.5, 0.3, 2.0),
        (0.5, 3.0, 1.0, 1.8, 1.5, 0.2),
        (0, 2, 0, 4, 2, 2),
    ):
        x = torch.linspace(x0, x1, 9, dtype=torch.float64)
        pair = answer(x.clone(), x0, x1, y0, y1, d0, d1)
        expect(isinstance(pair, tuple | list) and len(pair) == 2, "Return two things: z and the log of its slope.")
        z, log_slope = numbers(pair[0], (9,), "z"), numbers(pair[1], (9,), "log ∂z/∂x")
        right, right_log_slope = spline_bin(x, x0, x1, y0, y1, d0, d1)
        s = (y1 - y0) / (x1 - x0)
        if not close(z, right):
            expect(
                not close(z, spline_bin(x, x0, x1, y0, y1, d1, d0)[0]),
                "The two slopes stand at the wrong ends: d0 belongs to (x0, y0).",
            )
            expect(
                not close(z, y0 + s * (x - x0)),
                "That is the straight line between the knots. Where do d0 and d1 enter?",
            )
            raise Wrong(f"z is not the formula of section 3 yet. At x = {float(x[4]):g} it is {float(right[4]):.4f}.")
        expect(
            close(log_slope, right_log_slope) or not close(log_slope, right_log_slope.exp()),
            "That is the slope itself. A layer returns its logarithm.",
        )
        expect(
            close(log_slope, right_log_slope) or not close(log_slope, right_log_slope + math.log(x1 - x0)),
            "That is the slope by ξ. The chain rule has one more factor: ∂ξ/∂x.",
        )
        expect(
            close(log_slope, right_log_slope) or not close(log_slope, torch.full_like(x, math.log(s))),
            "That is the mean slope of the bin, s. The slope goes from d0 to d1.",
        )
        expect(
            close(log_slope, right_log_slope),
            "z is right, and log ∂z/∂x is not: compare it with autograd. At x0 it is log d0, at x1 log d1.",
        )


def check_normal(answer: Callable) -> None:
    """True draws, many and few; clouds that are off, and clouds with the right moments that are not normal."""
    g = torch.Generator().manual_seed(5)

    def normal(n: int) -> Tensor:
        return torch.randn(n, 2, generator=g, dtype=torch.float64)

    def verdict(z: Tensor) -> bool:
        return yes_or_no(answer(z.clone()))

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
        "A leaning cloud got past you: each coordinate looks normal, but the two depend on each other.",
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
            "**A coupling of your own.** Write one affine coupling for any number of coordinates, any mask and both "
            "directions. Why does the inverse never need an inverse of the network?"
        ),
        answer=coupling,
        check=check_coupling,
        praise="right, both ways. It calls the network and never inverts it, so the network may be any at all.",
        hints=(
            "v[:, mask] passes and v[:, ~mask] moves. Where does each of them stand in the result?",
            "out = v.clone(); out[:, ~mask] = v[:, ~mask] * exp(s) + t. The inverse subtracts t first and then "
            "multiplies by exp(−s); its log-determinant is −Σ s.",
        ),
        aims=("write",),
        why=(
            "The part that passes is the same before and after, so both directions give the network the same "
            "input and get the same s and t. The Jacobian is triangular with 1 and exp(s) on its diagonal, so log "
            "|det| is the sum of s, and its negative on the way back."
        ),
    ),
    Exercise(
        name="realnvp_in_the_plane.2",
        question=(
            "**Open task: train, and measure.** The points lie on two moons, in units and at a place that nobody tells "
            "you. Fit any flow, and say how many nats it is from the truth. Can you come below 0.2?"
        ),
        answer=fit_and_measure,
        check=check_measure,
        praise="right: a good fit, honestly measured on points that took no part in it, in the units of the data.",
        hints=(
            "Section 3 makes and fits flows. Which points, and which difference, make the gauge?",
            "flow = flowlab.spline_flow(2, layers=2), flowlab.fit(flow, x, steps=400, learning_rate=5e-3); the gauge "
            "is the mean of log_p_new − flow.log_prob(new), under torch.no_grad().",
        ),
        aims=("measure",),
        why=(
            "Held-out points stop the training before it fits noise, and the flow standardizes its input, so the "
            "units do not matter. The gauge is the mean of log p − log q at new points, both in the units of x, "
            "where the factors of the units cancel."
        ),
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
        why=(
            "E[log p − log q] is never negative, so log q cannot be clearly higher than log p on average. The "
            "mean over n points varies by its standard error, deviation/√n, so only a lead of several standard "
            "errors proves a mistake."
        ),
    ),
    Exercise(
        name="realnvp_in_the_plane.4",
        question=(
            "**One bin of a spline.** Section 3 has the formula of z. Write it, together with log ∂z/∂x, which a layer "
            "needs and which the section does not give."
        ),
        answer=spline_bin,
        check=check_bin,
        praise="right: it rises from knot to knot, with slope d0 at one end and d1 at the other.",
        hints=(
            "With ξ = (x − x0)/(x1 − x0), z is a quotient of two quadratics in ξ. Use the quotient rule, or autograd.",
            "∂z/∂x = s² (d1 ξ² + 2s ξ(1−ξ) + d0 (1−ξ)²) / (s + (d0 + d1 − 2s) ξ(1−ξ))². Take its logarithm.",
        ),
        aims=("compute",),
        why=(
            "Where ξ goes from 0 to 1, z goes from y0 to y1, and the derivative of the quotient is d0 at ξ = 0 "
            "and d1 at ξ = 1. All its terms are positive if the slopes are, so z rises and can be inverted."
        ),
    ),
    Exercise(
        name="realnvp_in_the_plane.5",
        question=(
            "**Read the latent.** If q = p, then z = f(x) of the data is standard normal. Write the test that needs no "
            "exact density: can these latent points be draws of one?"
        ),
        answer=can_be_normal,
        check=check_normal,
        praise="right. A flow that fails is wrong. One that passes may be wrong too: the test reads few numbers.",
        hints=(
            "Mean 0, deviation 1, no correlation: a ring can have all three. What else do you know of |z|?",
            "Compare each number with its value for a normal, and allow 5/√n. In the plane P(|z|² < 2t) = 1 − e^(−t).",
        ),
        aims=("read",),
        why=(
            "A standard normal has mean 0, deviation 1, no correlation, and P(|z|² < 2t) = 1 − exp(−t). A mean "
            "over n points varies by about 1/√n, so the tolerance shrinks with n."
        ),
    ),
]
