"""The descent of the explorer is that of autograd; each known wrong answer meets its own hint."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from flowlab.lessons.the_tools import toys
from flowlab.lessons.the_tools.exercises import descend, fit_curve, five_answers, probability, push_forward
from flowlab.lessons.the_tools.explorer import WalkDownhill


@pytest.mark.parametrize(("w", "b"), [(0.3, -1.0), (2.0, 1.5)])
def test_the_slopes_are_those_of_autograd_and_the_best_line_has_none(w, b):
    u, y = map(torch.as_tensor, toys.points())
    at = torch.tensor([w, b], dtype=torch.float64, requires_grad=True)
    loss = ((at[0] * u + at[1] - y) ** 2).mean()
    loss.backward()
    assert float(toys.loss(w, b)) == pytest.approx(float(loss), abs=1e-12)
    assert toys.gradient(w, b) == pytest.approx(at.grad.tolist(), abs=1e-12)
    assert toys.gradient(*toys.best()) == pytest.approx((0, 0), abs=1e-9)


def test_a_descent_arrives_below_the_largest_rate_and_runs_away_above():
    rate = toys.largest_rate()
    assert toys.RATES[0] < 0.9 * rate and 1.1 * rate < toys.RATES[1], "the slider shows both"
    below, above = toys.path(0.95 * rate, -1.0, 1.5, 2000)[-1], toys.path(1.05 * rate, -1.0, 1.5, 200)[-1]
    assert below == pytest.approx(toys.best(), abs=1e-6)
    assert np.abs(above).max() > 100


def test_the_explorer_walks_the_path():
    explorer = WalkDownhill()
    explorer.set(rate=0.05, steps=7, w0=1.0, b0=-2.0)
    w, b = toys.path(0.05, 1.0, -2.0)[7]
    assert explorer.numbers["w"] == pytest.approx(w) and explorer.numbers["b"] == pytest.approx(b)
    assert len(explorer.picture.way.get_xdata()) == 8 and explorer.errors == []
    explorer.on_pointer("down", explorer.picture.contours, 2.345, 0.5)
    assert (explorer.controls["w0"].value, explorer.controls["b0"].value) == (2.35, 0.5) or (
        explorer.controls["w0"].value == 2.34
    )


def test_the_answer_to_the_first_question_is_the_density_itself():
    p = torch.distributions.Normal(0.0, 0.01).log_prob(torch.tensor(0.0)).exp()
    assert five_answers()[0] == pytest.approx(float(p), rel=1e-5)
    net = nn.Sequential(nn.Linear(2, 16), nn.Linear(16, 1))
    assert five_answers()[4] == sum(value.numel() for value in net.parameters())


# Exercises


def said(*changes):
    """The five answers, some of them changed: (place, value)."""

    def answer():
        values = list(five_answers())
        for place, value in changes:
            values[place] = value
        return values

    return answer


def loop(combine=lambda law, j, p: law + p, at=lambda f, i: int(f[i])):
    def answer(p, f, m):
        law = [0.0] * m
        for i in range(len(p)):
            law[at(f, i)] = combine(law[at(f, i)], at(f, i), float(p[i]))
        return law

    return answer


def area(height=lambda log_p: log_p.exp(), width=lambda span, n: span / n, n=4000):
    def answer(log_p, low, high):
        x = low + (torch.arange(n, dtype=torch.float64) + 0.5) * (high - low) / n
        return (height(log_p(x)) * width(high - low, n)).sum()

    return answer


def steps(sign=1, factor=2, reduce=torch.mean, together=True, more=0):
    def answer(u, y, rate, count):
        w = b = torch.zeros((), dtype=torch.float64)
        for _ in range(count + more):
            off = w * u + b - y
            slope_w, slope_b = factor * reduce(off * u), factor * reduce(off)
            w = w - sign * rate * slope_w
            b = b - sign * rate * (slope_b if together else factor * reduce(w * u + b - y))
        return w, b

    return answer


def solved(u, y, rate, count):
    w, b = np.polyfit(u.numpy(), y.numpy(), 1)
    return w, b


def matrix(u, y, rate, count):
    """Right: the same recursion with a matrix, in numpy."""
    X = np.stack((u.numpy(), np.ones(len(u))), 1)
    at = np.zeros(2)
    for _ in range(count):
        at = at - rate * 2 / len(u) * X.T @ (X @ at - y.numpy())
    return at[0], at[1]


def with_autograd(u, y, rate, count):
    """Right by what it gives, though autograd does the work."""
    at = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        for _ in range(count):
            (slope,) = torch.autograd.grad(((at[0] * u + at[1] - y) ** 2).mean(), at)
            at = (at - rate * slope).detach().requires_grad_()
    return at[0], at[1]


def net(*layers, count=1500, rate=0.02):
    def answer(u, y):
        torch.manual_seed(0)
        model = nn.Sequential(*layers)
        for layer in model:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        adam = torch.optim.Adam(model.parameters(), lr=rate)
        for _ in range(count):
            adam.zero_grad()
            (model(u) - y).square().mean().backward()
            adam.step()
        return model

    return answer


def polynomial(u, y):
    """Right: no network at all."""
    c = np.polyfit(u[:, 0].numpy(), y[:, 0].numpy(), 9)
    return lambda new: torch.as_tensor(np.polyval(c, new.numpy()))


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, said((0, 1.0)), "question 1 (a density may exceed 1"),
    (1, said((1, 0.24)), "Divide by P(free)"),
    (1, said((1, 0.8)), "the other way round"),
    (1, said((2, 15)), "adds up the last axis"),
    (1, said((3, 0.6)), "goes uphill"),
    (1, said((4, 48)), "biases too"),
    (1, said((4, 7)), "question 5 (not 7"),
    (1, lambda: [1, 2, 3], "Expected five numbers"),
    (2, loop(lambda law, j, p: p), "keeps the last one"),
    (2, lambda p, f, m: torch.bincount(f, minlength=m) / len(p), "You count"),
    (
        2,
        lambda p, f, m: push_forward(p, f, m) / torch.bincount(f, minlength=m).clamp(min=1),
        "no volume is stretched",
    ),
    (2, lambda p, f, m: p[f] if len(p) == m else push_forward(p, f, m), "the wrong way round"),
    (2, lambda p, f, m: 2 * push_forward(p, f, m), "add up to 2.000"),
    (2, lambda p, f, m: push_forward(p, f, m).flip(0), "0 where there is none"),
    (2, lambda p, f, m: p[:1], "the probabilities"),
    (3, area(width=lambda span, n: 1 / n), "the mean height"),
    (3, lambda log_p, low, high: log_p(torch.tensor([low, high]).double()).exp().diff().abs(), "two heights"),
    (3, area(height=lambda log_p: log_p), "Take exp first"),
    (3, area(width=lambda span, n: 1.0), "cannot exceed 1"),
    (3, area(width=lambda span, n: 0.5 * span / n), "the area under p there"),
    (4, steps(sign=-1), "uphill"),
    (4, steps(factor=1), "factor 2"),
    (4, steps(reduce=torch.sum), "the loss is their mean"),
    (4, steps(more=-1), "too few"),
    (4, steps(more=1), "too many"),
    (4, steps(together=False), "the new w"),
    (4, solved, "the lowest place at once"),
    (4, lambda u, y, rate, count: (1.0, 1.0), "The slopes: mean of"),
    (4, lambda u, y, rate, count: 1.0, "Return two things"),
    (5, net(nn.Linear(1, 16), nn.Linear(16, 1)), "as a line would be"),
    (5, net(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 1), count=60), "come below 0.08"),
    (5, lambda u, y: lambda new: new[:, 0], "Expected a column"),
    (5, lambda u, y: None, "Return the network"),
    (5, lambda u, y: 0.3, "Expected a function"),
]

RIGHT = [
    (1, lambda: (39.9, 0.774, 5, 1.4, 65)),
    (1, lambda: torch.tensor([39.894, 24 / 31, 5.0, 1.4, 65.0])),
    (1, lambda: np.array([100 / math.sqrt(2 * math.pi), 0.7742, 5, 1.4, 65])),
    (2, loop()),
    (2, lambda p, f, m: torch.bincount(f, weights=p, minlength=m)),
    (2, lambda p, f, m: torch.nn.functional.one_hot(f, m).to(p).T @ p),
    (3, area()),
    (3, lambda log_p, low, high: torch.trapezoid(log_p(x := torch.linspace(low, high, 5000).double()).exp(), x)),
    (3, lambda log_p, low, high: round(float(probability(log_p, low, high)), 4)),
    (4, steps()),
    (4, matrix),
    (4, with_autograd),
    (4, lambda u, y, rate, count: torch.stack(descend(u, y, rate, count)).tolist()),
    (5, net(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1), count=800, rate=5e-3)),
    (5, polynomial),
    (5, lambda u, y: nn.Sequential(fit_curve(u, y))),
]
