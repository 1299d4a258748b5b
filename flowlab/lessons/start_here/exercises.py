"""The exercises: an inverse, two flows compared, a log-determinant, a training; small, to learn how checks answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import flowlab
from flowlab.datasets import TwoMoons
from flowlab.lessons.base.exercise import Exercise, close, expect, log_prob_of, numbers


def undo(z):
    """The x for which z = 2x + 3, number by number."""
    return (z - 3) / 2


def how_much_closer(log_q_a, log_q_b):
    """By how many nats flow A is closer to the truth p than flow B, one number: above 0 if A is the better one.

    log_q_a and log_q_b, (n,) each, are log q of either flow at the same n points, which were drawn from p.
    """
    return (log_q_a - log_q_b).mean()  # KL(p‖B) − KL(p‖A): log p stands in both, and cancels


def stretch(x):
    """z = 3x in the plane, and its log |det|: points (n, 2) to z (n, 2) and log_det (n,), in nats."""
    return 3 * x, torch.full((len(x),), 2 * math.log(3))


def train(x):
    """A flow of the plane, fitted to the 500 points x (500, 2) of two moons. It is judged on new points."""
    flow = flowlab.spline_flow(2, layers=4)
    flowlab.fit(flow, x[:400], steps=300, learning_rate=5e-3, validation=x[400:], progress=False)
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
    there = 2 * x + 3
    at = int((there - z).abs().argmax())  # where it is most wrong: elsewhere it may be right by chance
    expect(
        close(there, z),
        f"Try it: your x for z = {z[at]:.3g} is {x[at]:.3g}, and 2x + 3 is then {there[at]:.3g}, not z.",
    )


def check_closer(answer: Callable[[Tensor, Tensor], Any]) -> None:
    """The mean of log q_A − log q_B, for numbers that show a turned sign, a sum, another unit, and either winner."""
    a = torch.tensor([-1.5, -2.0, -2.2, -4.0, -2.8])
    for b, name in (
        (torch.tensor([-1.0, -2.5, -3.9, -6.5, -3.6]), "A"),
        (torch.tensor([-1.2, -1.9, -1.0, -3.0, -2.9]), "B"),
    ):
        d = (a - b).double()
        value = numbers(answer(a.clone(), b.clone()), None, "the difference")
        expect(
            value.shape != d.shape,
            "That is one number for each point. A gauge is a mean over the points: KL(p‖q) = E[log p − log q].",
        )
        value = numbers(value, (), "the difference")
        mistakes = [
            (-d.mean(), "The sign is reversed. A flow is closer to p when its log q, at points of p, is higher."),
            (d.sum(), "You took the sum. Twice as many points would then give twice the difference: take the mean."),
            (d.abs().mean(), "No absolute value: then B could never win, and points where A loses would count for A."),
            (d.square().mean(), "No square: a gauge is the mean of plain differences of logarithms."),
            ((a.exp() - b.exp()).mean(), "That compares densities. A gauge compares their logarithms: no exp here."),
            (d.exp().mean(), "That is the mean ratio of the densities. Take the mean of its logarithm: no exp here."),
            (a.mean() / b.mean(), "A ratio of logarithms has no meaning here: subtract."),
            (
                d.mean() / math.log(2),
                "Those are bits. A nat is the unit of the natural logarithm: do not divide by log 2.",
            ),
            (-a.mean(), "That is the loss of A alone. What does B have at the same points?"),
            (
                (a.exp() * d).mean(),
                "You weigh the points by a density. But they were drawn from p: where p is high, there are more.",
            ),
            (
                (d > 0).double().mean(),
                "That is the share of points where A is higher. By how much it is higher counts too.",
            ),
        ]
        for wrong, hint in mistakes:
            expect(not close(value, wrong), hint)
        expect(
            close(value, d.mean()),
            f"At the test points, where {name} is closer, it should be {d.mean():.2f} nats, but {value:.2f} "
            "came. Write both gauges with log p in them, and subtract.",
        )


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


def check_train(answer: Callable[[Tensor], Any]) -> None:
    """It fits these points, in their own units, nearly as well as the exact density does, on points it never saw."""
    toy, shift = TwoMoons(noise=0.1), torch.tensor([10.0, -5.0])
    u, u_new = (toy.sample(n, torch.Generator().manual_seed(n)) for n in (500, 2000))
    x, new = 4 * u + shift, 4 * u_new + shift
    log_q = log_prob_of(answer(x.clone()))
    truth = float(toy.log_prob(u_new).mean()) - 2 * math.log(4)
    nats, on_x = truth - float(log_q(new).mean()), truth - float(log_q(x).mean())
    untouched = truth - float(flowlab.spline_flow(2).log_prob(new).detach().mean())
    gaussian = truth - float(torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T)).log_prob(new).mean())
    where = (
        f" It is {nats:.2f} nats from the truth on new points. One Gaussian has {gaussian:.2f}; asked is less than 0.4."
    )
    expect(
        abs(nats - untouched) > 1e-3,
        "Your flow says what a standard normal says: nothing has moved it. Call flowlab.fit(flow, x, ...).",
    )
    expect(
        nats < 0.4 or on_x > 0.2,
        "On the points x it is far better than on new ones: it overfits. Train for fewer steps, or hold points out."
        + where,
    )
    expect(nats < gaussian + 2, "Was your flow fitted to x as it is, in its own units?" + where)
    expect(nats < 0.4, "Nearly: try more steps, a larger learning rate, or more layers." + where)


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
        why=(
            "The map doubles and then adds 3, so the way back first subtracts 3 and then halves. The inverse of a "
            "chain undoes its steps in reverse order."
        ),
    ),
    Exercise(
        name="start_here.2",
        question=(
            "**Which flow is closer, when nobody knows the truth?** For real data nobody has log p, so no gauge. "
            "Two flows tell their log q at the same held-out points. How many nats is A closer to the truth than B?"
        ),
        answer=how_much_closer,
        check=check_closer,
        praise="right. log p stands in both gauges and cancels: flows can be compared where the truth is unknown.",
        hints=(
            "Write KL(p‖B) and KL(p‖A) as means over the points. What do they have in common?",
            "KL(p‖B) − KL(p‖A) = E[log p − log q_B] − E[log p − log q_A]. Which terms cancel?",
        ),
        aims=("read", "judge"),
        why=(
            "KL(p‖B) − KL(p‖A) = E[log p − log q_B] − E[log p − log q_A], and log p cancels. So the mean "
            "difference of log q at held-out points compares two flows, although neither gauge is known."
        ),
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
        why=(
            "The Jacobian of 3x is 3 on the diagonal, so each area grows by 3 · 3 = 9 at every point. log_det is "
            "the logarithm of that, 2 log 3, once for each of the n points."
        ),
    ),
    Exercise(
        name="start_here.4",
        question=(
            "**Open task.** Train a flow on 500 points of two moons, and return it. Come within 0.4 nats of the truth "
            "on *new* points. You choose the flow, the steps and the learning rate."
        ),
        answer=train,
        check=check_train,
        praise="right: close to the truth, on points that it never saw. Any flow of the package is trained like this.",
        hints=(
            "Section 3 makes a flow and fits it. With 500 points only, training for too long does harm: see section 5.",
            "flow = flowlab.spline_flow(2, layers=4), then flowlab.fit(flow, x, steps=300, learning_rate=5e-3).",
        ),
        aims=("train",),
        why=(
            "Points held out as validation stop the training before it learns the noise of the other points. The "
            "flow standardizes its input by itself, so the units of x do not matter."
        ),
    ),
]
