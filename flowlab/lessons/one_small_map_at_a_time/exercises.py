"""The exercises: a radial map, a constraint that is broken, which way to push, what weights say, and a fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

import flowlab
from flowlab.bijections import Radial
from flowlab.datasets import Energy
from flowlab.lessons.base.exercise import Exercise, close, expect, numbers


def radial(x, c, alpha, beta):
    """z = x + β (x − c)/(α + r), r = ‖x − c‖, and log |det|: points (N, D) and a center (D,), to (N, D) and (N,)."""
    r = (x - c).norm(dim=-1)
    h = 1 / (alpha + r)
    across, along = 1 + beta * h, 1 + beta * h - beta * h**2 * r
    return x + beta * h[:, None] * (x - c), (x.shape[-1] - 1) * across.log() + along.log()


def constrained(w, u):
    """û = u moved along w such that w · û = softplus(w · u) − 1: vectors (D,) and (D,), to (D,)."""
    wanted = torch.nn.functional.softplus(w @ u) - 1
    return u + (wanted - w @ u) * w / w.square().sum()


def first_slope(z, c, alpha):
    """d/dβ at β = 0 of the mean log-likelihood, for points z (N, D) and a radial map of center c (D,): a number."""
    away = z - c
    r = away.norm(dim=-1)
    h = 1 / (alpha + r)
    pushed = -h * (z * away).sum(-1)  # of log N(z; 0, I), along the way that each point would go
    stretched = z.shape[-1] * h - h**2 * r  # of log |det|
    return (pushed + stretched).mean()


def weigh(log_w):
    """From log w of n draws (n,): the bound on log Z, the estimate of it, and the share of the draws that counts."""
    n, top = len(log_w), log_w.max()
    w = (log_w - top).exp()  # the largest is 1: nothing overflows
    return log_w.mean(), top + w.mean().log(), w.sum() ** 2 / (n * w.square().sum())


def bend(log_target):
    """A flow of the plane, fitted by reverse KL to a density that is known up to its constant."""
    generator = torch.Generator().manual_seed(0)
    flow = flowlab.spline_flow(2, 3, hidden=(24,), bound=4.5, standardize=False, generator=generator)
    objective = flowlab.training.reverse_kl(log_target, n=128, warm=0.5)
    flowlab.fit(flow, objective=objective, steps=300, learning_rate=1e-2, progress=False)
    return flow


def check_radial(answer: Callable) -> None:
    """Against the package's map, in two and in three dimensions, for a map that pushes and one that pulls."""
    for D, alpha, beta in ((2, 0.7, 2.0), (3, 1.5, -0.9)):
        x = torch.randn(30, D, generator=Generator().manual_seed(D), dtype=torch.float64)
        c = torch.full((D,), 0.4, dtype=torch.float64)
        f = Radial(D).double()
        for parameter, value in ((f.log_alpha, alpha), (f.log_slope, 1 + beta / alpha)):
            parameter.data.fill_(math.log(value))
        f.center.data = c
        with torch.no_grad():
            right, log_det = f(x)
        z, found = _pair(answer(x.clone(), c.clone(), alpha, beta), "z and log_det")
        z, found = numbers(z, (30, D), "z"), numbers(found, (30,), "log_det")
        h = 1 / (alpha + (x - c).norm(dim=-1))
        across, along = 1 + beta * h, 1 + beta * h - beta * h**2 * (x - c).norm(dim=-1)
        expect(
            not close(z, c + beta * h[:, None] * (x - c)),
            "Where has x gone? The map moves each point from where it is: z = x + …",
        )
        expect(close(z, right), "z is not right yet. The push is β/(α + r) times the vector x − c.")
        expect(
            not close(found, D * across.log()),
            "You count the factor 1 + βh in all D directions. Along the radius h changes too: its slope is −h².",
        )
        expect(
            not close(found, across.log() + along.log()) or D == 2,
            "In the plane this is right. How many directions across the radius are there in D dimensions?",
        )
        expect(not close(found, across ** (D - 1) * along), "This is the determinant. Asked is its logarithm.")
        expect(not close(found, -log_det), "The sign: log |det| of the map x → z that you apply, not of its inverse.")
        expect(
            close(found, log_det),
            f"log_det is not right yet, for D = {D}. D − 1 directions across the radius stretch by 1 + βh; along it "
            f"the factor is the slope of r + βhr.",
        )


def check_constrained(answer: Callable) -> None:
    """w · û has the wanted value, and û differs from u along w alone, for long and short w and for pairs that fold."""
    generator = Generator().manual_seed(0)
    for size, sign in ((3.0, -1.0), (0.3, -1.0), (1.7, 1.0)):
        w = torch.randn(4, generator=generator, dtype=torch.float64)
        w = size * w / w.norm()
        u = sign * 2 * w / (w @ w) + 0.3 * torch.randn(4, generator=generator, dtype=torch.float64)
        found = numbers(answer(w.clone(), u.clone()), (4,), "û")
        a = w @ u
        wanted = F.softplus(a) - 1
        expect(
            not close(found, u + (wanted - a) * w / w.norm()),
            "This is the slip itself: divided by ‖w‖, the step along w is ‖w‖ times as long as it should be.",
        )
        expect(not close(found, u), "This is u as it came. For these two, w · u is below −1, and the map folds.")
        expect(
            not close(found, u + (wanted - a) * w),
            "The step w/(w · w) changes w · û by exactly 1. Your step w changes it by w · w.",
        )
        expect(
            close(w @ found, wanted),
            f"w · û should be softplus(w · u) − 1 = {float(wanted):.3f} here, but it is {float(w @ found):.3f}. "
            f"Compute w · û before you return it.",
        )
        expect(
            close(found, u + (wanted - a) * w / (w @ w)),
            "w · û is right, but you have moved u in other directions too. Leave alone what is across w.",
        )


def check_first_slope(answer: Callable) -> None:
    """Against the closed form, where pushing helps and where pulling does."""
    z = torch.randn(200, 3, generator=Generator().manual_seed(0), dtype=torch.float64)
    for scale, c, alpha in ((0.4, 0.0, 0.5), (2.0, 0.3, 1.0)):
        points, center = scale * z, torch.full((3,), c, dtype=torch.float64)
        found = numbers(answer(points.clone(), center.clone(), alpha), (), "the slope")
        away = points - center
        r = away.norm(dim=-1)
        h = 1 / (alpha + r)
        pushed, right = -h * (points * away).sum(-1), first_slope(points, center, alpha)
        expect(not close(found, -right), "The sign is turned: this is the slope of the loss. Likelihood should rise.")
        expect(
            not close(found, pushed.mean()),
            "This is the slope of log N(z; 0, I) alone. Where is that of log |det|?",
        )
        expect(not close(found, (right - pushed.mean())), "This is the slope of log |det| alone. Points move, too.")
        expect(
            not close(found, (pushed + 3 * h).mean()),
            "h = 1/(α + r) changes along the radius: log |det| has one more term there.",
        )
        expect(not close(found, right * len(z)), "This is the sum over the points. Asked is the mean.")
        expect(
            close(found, right),
            "Not right yet. Write log p(z) = log N(z + βh(z − c); 0, I) + log |det|, and take the slope in β at 0.",
        )


def check_weigh(answer: Callable) -> None:
    """Against the package, for weights of usual size and for those that overflow an exponential."""
    log_w = 2 + 0.7 * torch.randn(500, generator=Generator().manual_seed(0), dtype=torch.float64)
    w = (log_w - log_w.max()).exp()
    right, exact = log_w.max() + w.mean().log(), w.sum() ** 2 / (500 * w.square().sum())
    bound, estimate, share = _three(answer(log_w.clone()))
    expect(not close(bound, right), "Your bound is the logarithm of a mean. The bound is the mean of logarithms.")
    expect(close(bound, log_w.mean()), "The bound is not right yet: it is E[log w] over the draws.")
    expect(
        not close(estimate, log_w.mean()),
        "Your estimate is the bound once more: which comes first, the mean or the logarithm?",
    )
    expect(not close(estimate, right + math.log(500)), "You took the sum of the weights for their mean.")
    expect(close(estimate, right), "The estimate is not right yet: it is log E[w] over the draws.")
    expect(not close(share, 500 * exact), "This is a number of draws. Asked is their share of all n.")
    expect(close(share, exact), "The share is not right yet: (Σ w)² / (n Σ w²).")
    _, estimate, share = _three(answer(log_w + 800))
    expect(
        bool(estimate.isfinite()) and close(estimate - 800, right, atol=0.1) and close(share, exact),
        "exp(800) overflows, and then nothing is right. Take the largest log w out first; add it at the end.",
    )


def check_bend(answer: Callable) -> None:
    """The flow comes within 0.25 nats of U1 by its own draws, and what it says of them is a density."""
    energy = Energy(1)
    flow = answer(lambda x: -energy.energy(x))
    expect(flow is not None, "Your function returned None. Is there a return?")
    expect(not hasattr(flow, "loss"), "That is the history that fit gives back. fit changes the flow: return the flow.")
    expect(hasattr(flow, "draw"), f"Expected a flow, which has a draw, but got {type(flow).__name__}.")
    with torch.no_grad():
        x, log_q = flow.draw(4000, Generator().manual_seed(5))
        gap = log_q - energy.log_prob(x)
    kl, error = float(gap.mean()), float(gap.std()) / math.sqrt(len(gap))
    expect(
        kl > -4 * error,
        f"KL(q‖p) is {kl:.2f} nats, which no density reaches: what your flow says of its draws is not their density.",
    )
    right = float((x[:, 0] > 0).double().mean())
    expect(
        kl < 0.25 or 0.1 < right < 0.9,
        f"Your flow is {kl:.2f} nats off, and {right:.0%} of its draws are on the right: it has lost one of two sides. "
        f"Warm the target up, or take another seed.",
    )
    expect(kl < 0.25, f"Your flow is {kl:.2f} nats off. Come below 0.25: more steps, more maps, or other maps.")


def _three(found: Any) -> tuple[Tensor, Tensor, Tensor]:
    expect(found is not None, "Your function returned None. Is there a return?")
    expect(isinstance(found, tuple | list) and len(found) == 3, "Return three numbers: bound, estimate, share.")
    bound, estimate, share = (numbers(value, (), "each of the three") for value in found)
    return bound, estimate, share


def _pair(value: Any, what: str) -> tuple[Any, Any]:
    expect(value is not None, "Your function returned None. Is there a return?")
    expect(isinstance(value, tuple | list) and len(value) == 2, f"Return two things, {what}.")
    return value[0], value[1]


EXERCISES = [
    Exercise(
        name="one_small_map_at_a_time.1",
        question=(
            "**The other small map.** Write a radial map and its log-determinant, with h = 1/(α + r), in any number of "
            "dimensions."
        ),
        answer=radial,
        check=check_radial,
        praise="right. D − 1 directions across the radius stretch by 1 + βh; the one along it by 1 + βh − βh²r.",
        hints=(
            "Along the radius a point at the distance r goes to r + βhr. What is the slope of that in r?",
            "The slope of h is −h². All directions across the radius are alike, and there are D − 1 of them.",
        ),
        aims=("write",),
        why=(
            "A sphere around the center goes to a sphere, so the Jacobian has one factor along the radius and one, "
            "D − 1 times, across it. Their product is the determinant, at the cost of a norm and not of a D × D matrix."
        ),
    ),
    Exercise(
        name="one_small_map_at_a_time.2",
        question=(
            "**Bug museum.** At least five public codes of planar flows have written\n\n"
            "```python\nu_hat = u + (F.softplus(w @ u) - 1 - w @ u) * w / w.norm()\n```\n\n"
            "and some of their maps fold. Write the û for which w · û = softplus(w · u) − 1, and which differs from u "
            "along w alone."
        ),
        answer=constrained,
        check=check_constrained,
        praise="right. Divided by w · w, the step changes w · û by just what is missing, however long w is.",
        hints=(
            "Multiply their u_hat by w. What do you get, and for which w is it what was wanted?",
            "w · w/‖w‖ is ‖w‖, and not 1. Which multiple of w has the product 1 with w?",
        ),
        aims=("repair",),
        why=(
            "w · (w/‖w‖²) = 1, so adding a times w/‖w‖² changes w · u by a and nothing across w. With ‖w‖ it changes "
            "by a‖w‖, which is right only for w of length 1 and can end below −1."
        ),
    ),
    Exercise(
        name="one_small_map_at_a_time.3",
        question=(
            "**Which way to push?** A radial map z + βh(z − c) shall come next, and β is still 0. In which direction "
            "should it move? Write the slope of the mean log-likelihood at β = 0."
        ),
        answer=first_slope,
        check=check_first_slope,
        praise="right. Where it is positive push the points away from c, where it is negative pull them toward it.",
        hints=(
            "Two things change with β: where each point lands in N(0, I), and log |det|.",
            "−½‖z + βh(z − c)‖² has the slope −h z · (z − c) at β = 0; log(1 + aβ) has the slope a.",
        ),
        aims=("grow",),
        why=(
            "At β = 0 the map is the identity, so both logarithms can be replaced by their first terms: −h z · (z − c) "
            "for the normal, (D − 1)h + h − h²r for the determinant. A small step in the direction of this slope "
            "raises the likelihood, which is all that Tabak and Turner ask of a map."
        ),
    ),
    Exercise(
        name="one_small_map_at_a_time.4",
        question=(
            "**What the weights say.** From log w = −U(x) − log q(x) at n draws of q: the bound on log Z, the estimate "
            "of it, and the share of draws that counts, (Σ w)²/(n Σ w²)."
        ),
        answer=weigh,
        check=check_weigh,
        praise="right. The bound is log Z − KL(q‖p); the estimate comes to log Z itself, if q reaches all of p.",
        hints=(
            "Mean and logarithm, in one order and in the other. Which of the two can never exceed log Z on average?",
            "Take the largest log w out of all before you exponentiate, and put it back at the end.",
        ),
        aims=("judge",),
        why=(
            "E[w] = ∫ q · e⁻ᵁ/q = Z, so the mean of w is Z in expectation, and by Jensen's inequality the mean of "
            "log w is below log Z. Dividing all weights by the largest changes neither the share nor, once it is "
            "multiplied back, the mean."
        ),
    ),
    Exercise(
        name="one_small_map_at_a_time.5",
        question=(
            "**Open task.** Return a flow that is within 0.25 nats of U1, KL(q‖p), fitted to `log_target` alone. Any "
            "flow, any settings; think of the seconds too."
        ),
        answer=bend,
        check=check_bend,
        praise="right. It has never seen a sample of p, and yet you can now draw from it, with log q beside each draw.",
        hints=(
            "fit(flow, objective=reverse_kl(log_target, n=128, warm=0.5), steps=…). Which direction must be fast?",
            "realnvp or spline_flow with standardize=False needs some hundred steps; planar_flow needs sampling=True.",
        ),
        aims=("fit",),
        why=(
            "A spline coupling bends one coordinate by any increasing function that the other one chooses, so three "
            "of them reach what eight planar maps do not. The warm-up keeps q wide until it has found both sides."
        ),
    ),
]
