"""The exercises: an inverse, the gauge, a log-determinant, a training; small, to learn how checks answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import flowlab
from flowlab.datasets import TwoMoons
from flowlab.lessons.base.exercise import Exercise, close, expect, numbers


def undo(z):
    """The x for which z = 2x + 3, number by number."""
    return (z - 3) / 2


def gauge(log_p, log_q):
    """KL(p‖q) in nats, one number, from log p(x) and log q(x), (n,) each, at n points x that were drawn from p."""
    return (log_p - log_q).mean()


def stretch(x):
    """z = 3x in the plane, and its log |det|: points (n, 2) to z (n, 2) and log_det (n,), in nats."""
    return 3 * x, torch.full((len(x),), 2 * math.log(3))


def train(x, steps):
    """A flow of the plane, fitted to the points x (n, 2) by maximum likelihood in ``steps`` training steps."""
    flow = flowlab.spline_flow(2, layers=4)
    flowlab.fit(flow, x, steps=steps, learning_rate=5e-3, progress=False)
    return flow


def check_undo(answer: Callable[[Tensor], Any]) -> None:
    """At some points, where each misreading of 2z + 3 gives another number."""
    z = torch.tensor([-4.0, 0.0, 3.0, 5.0, 11.0])
    x = numbers(answer(z.clone()), tuple(z.shape), "x")
    mistakes = [
        (2 * z + 3, "That is the map itself, applied once more. You want the way back, from z to x."),
        (2 * z - 3, "You turned + 3 into − 3, but 2 still multiplies. Undo both steps."),
        (2 * (z - 3), "− 3 comes first, that is right. But to undo a product by 2, divide by 2."),
        (
            z / 2 - 3,
            "Both steps are undone, in the wrong order. The map ends with + 3, so its undoing begins with − 3.",
        ),
        (z / 2 + 3, "Only the product by 2 is undone. The + 3 has to go as well, and first."),
        ((z + 3) / 2, "You add 3 where the map has added 3 already. Adding is undone by subtracting."),
        ((3 - z) / 2, "The sign is reversed: at z = 5 the answer is x = 1, because 2·1 + 3 = 5."),
    ]
    for wrong, hint in mistakes:
        expect(not close(x, wrong), hint)
    expect(
        close(2 * x + 3, z),
        f"Try it: your x for z = 5 is {float(x[3]):.3g}, and 2x + 3 is then {float(2 * x[3] + 3):.3g}.",
    )


def check_gauge(answer: Callable[[Tensor, Tensor], Any]) -> None:
    """The mean of log p − log q, for numbers that show a turned sign, a sum and another unit."""
    log_p = torch.tensor([-1.0, -2.5, -0.2, -3.0, -1.6])
    log_q = torch.tensor([-1.5, -2.0, -2.2, -4.0, -2.8])
    right, d = float((log_p - log_q).mean()), log_p - log_q
    value = numbers(answer(log_p.clone(), log_q.clone()), None, "the gauge")
    expect(
        value.shape != log_p.shape,
        "That is one number for each point. The gauge is their mean: KL(p‖q) = E[log p − log q], with E the mean.",
    )
    expect(value.numel() == 1, f"Expected one number, but got shape {tuple(value.shape)}.")
    mistakes = [
        (-d.mean(), "The sign is reversed. A worse q has a lower log q, and the gauge should then go up."),
        (d.sum(), "You took the sum. Twice as many points would then give twice the distance: take the mean."),
        (d.abs().mean(), "No absolute value: at some points q may well be above p. Only the mean cannot stay below 0."),
        (d.square().mean(), "No square: the gauge is the mean of the plain difference."),
        (
            (log_p.exp() * d).mean(),
            "You weigh the points by p. But they were drawn from p: where p is high, there are more.",
        ),
        (
            (log_p.exp() * d).sum(),
            "The sum of p · (log p − log q) is for tables of p. These points were drawn from p: take a mean.",
        ),
        (
            (log_p.exp() - log_q.exp()).mean(),
            "That compares densities. The gauge compares their logarithms: no exp here.",
        ),
        (d.exp().mean(), "That is the mean of the ratio p/q. The gauge is the mean of its logarithm: no exp here."),
        (
            -log_q.mean(),
            "That is the loss, −E[log q]. The gauge also knows the truth: what does the exact density score?",
        ),
        (log_p.mean() / log_q.mean(), "A ratio of logarithms has no meaning here: subtract."),
        (
            d.mean() / math.log(2),
            "Those are bits. A nat is the unit of the natural logarithm: leave out the division by log 2.",
        ),
    ]
    for wrong, hint in mistakes:
        expect(not close(value, wrong), hint)
    expect(close(value, right), f"At the five test points it should be {right:.2f} nats, but got {float(value):.2f}.")


def check_stretch(answer: Callable[[Tensor], Any]) -> None:
    """z and log_det of x → 3x for points of the plane."""
    x = torch.tensor([[1.0, 2.0], [0.0, -1.0], [0.5, 0.5], [4.0, -2.0]])
    pair = answer(x.clone())
    expect(
        isinstance(pair, tuple | list) and len(pair) == 2,
        "Return two things, z and log_det, as every map of this course does: return z, log_det.",
    )
    z, log_det = numbers(pair[0], tuple(x.shape), "z"), numbers(pair[1], None, "log_det")
    expect(not close(z, x / 3), "That is the inverse, x/3. The map asked for is z = 3x.")
    expect(close(z, 3 * x), "z is not 3x yet.")
    right = 2 * math.log(3)
    expect(
        log_det.shape == (4,),
        f"log_det is one number for each of the n points, shape (n,) = (4,), but got {tuple(log_det.shape)}. They "
        "happen to be equal here; for a bent map they are not.",
    )
    mistakes = [
        (
            math.log(3),
            "Only one direction is counted. A square of side 1 becomes one of side 3: by what does its area grow?",
        ),
        (
            -right,
            "That is the log-determinant of the way back. log_det is that of the map just applied: 3x enlarges.",
        ),
        (9.0, "9 is the determinant itself. Its logarithm is asked for, so that the steps of a flow add up."),
        (3.0, "3 is the stretch along one direction. What happens to an area, and what is its logarithm?"),
        (6.0, "Stretches along two directions multiply, and only their logarithms add."),
        (2 * math.log2(3), "Those are bits. Nats need the natural logarithm, math.log."),
        (2 * math.log10(3), "Nats need the natural logarithm, math.log, not log10."),
        (0.0, "A log_det of 0 says that areas stay as they are. Does 3x keep areas?"),
    ]
    for wrong, hint in mistakes:
        expect(not close(log_det, wrong), hint)
    expect(
        close(log_det, right),
        "log_det should be log |det J|, and the Jacobian J of 3x is the matrix with 3, 3 on its diagonal.",
    )


def check_train(answer: Callable[[Tensor, int], Any]) -> None:
    """It fits these points, in their own units, the better the more steps it is given."""
    x = 4 * TwoMoons(noise=0.1).sample(300, torch.Generator().manual_seed(0)) + torch.tensor([10.0, -5.0])

    def score(flow: Any) -> float:
        expect(flow is not None, "Your function gives nothing back: does it end with return?")
        expect(
            not hasattr(flow, "loss"),
            "That is the history which fit gives back. fit changes the flow itself: return the flow.",
        )
        expect(hasattr(flow, "log_prob"), f"Expected a flow, which has a log_prob, but got {type(flow).__name__}.")
        with torch.no_grad():
            value = numbers(flow.log_prob(x), (300,), "log_prob")
        return float(value.mean())

    short, long = score(answer(x.clone(), 2)), score(answer(x.clone(), 40))
    expect(
        abs(long - score(flowlab.spline_flow(2))) > 1e-3,
        "Your flow says what a standard normal says: nothing has moved it. Call flowlab.fit(flow, x, ...).",
    )
    gaussian = float(torch.distributions.Normal(x.mean(0), x.std(0)).log_prob(x).sum(-1).mean())
    expect(
        long > gaussian - 1.5,
        f"On the points x your flow scores {long:.1f} nats, and a plain Gaussian {gaussian:.1f}. Was it fitted to x as "
        "it is, in its own units?",
    )
    expect(long > short + 0.05, "After 40 steps your flow is no better than after 2: hand steps on to fit.")


EXERCISES = [
    Exercise(
        name="start_here.1",
        question="A flow is a map with a way back. The map here is z = 2x + 3. Write the way back.",
        answer=undo,
        check=check_undo,
        praise="2·undo(z) + 3 is z again, for every z. Both directions exist: that is what *invertible* means.",
        hints=(
            "The map does two things, one after the other. What was done last?",
            "Solve z = 2x + 3 for x: first move the 3, then the 2.",
        ),
        aims=("use", "bend"),
    ),
    Exercise(
        name="start_here.2",
        question="Write the gauge, KL(p‖q) = E[log p − log q], where E is the mean over points drawn from p.",
        answer=gauge,
        check=check_gauge,
        praise="it is 0 when q = p, and above 0 for every other q (on average; with few points it may dip below).",
        hints=(
            "E over points that were drawn from p is a plain mean.",
            "For each point, subtract log q from log p; then call .mean().",
        ),
        aims=("read", "judge"),
    ),
    Exercise(
        name="start_here.3",
        question="Write a first map in the format of this package: z = 3x in the plane, together with its log_det.",
        answer=stretch,
        check=check_stretch,
        praise="every area grows by a factor of 9, so log_det = log 9 = 2 log 3 ≈ 2.20 nats, at every point alike.",
        hints=(
            "Draw a square of side 1 and its image. What happens to its area?",
            "log |det J| with J = [[3, 0], [0, 3]]; return it once for each row of x, for instance with torch.full.",
        ),
        aims=("bend",),
    ),
    Exercise(
        name="start_here.4",
        question="Train a flow yourself: make one, fit it to the points x, and give it back.",
        answer=train,
        check=check_train,
        praise="40 steps fit these points better than 2. Any flow of the package is trained by the same call.",
        hints=(
            "Section 3 has both lines: one makes a flow of the plane, the other fits it.",
            "flow = flowlab.spline_flow(2, layers=4), then flowlab.fit(flow, x, steps=steps), then return flow.",
        ),
        aims=("train",),
    ),
]
