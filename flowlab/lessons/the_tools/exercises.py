"""The exercises: five questions, a measure that is pushed forward, a probability, a descent, and a network."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from flowlab.lessons.base.exercise import Exercise, Wrong, close, expect, numbers


def five_answers():
    """Your five answers, in their order: five numbers in a list.

    1. X is N(0, 0.01²). How large is its density at 0?
    2. 30 % of the letters are spam. 80 % of the spam and 10 % of the rest say "free". A letter says "free": with which
       probability is it spam?
    3. x is a tensor of shape (5, 3), and c one of shape (3,). How many numbers has (x * c).sum(-1)?
    4. Your loss is (θ − 3)², you are at θ = 1, and the step size is 0.1. Where are you after one step downhill?
    5. A network takes 2 numbers to 16 and these to 1, by two linear layers with biases. How many parameters has it?
    """
    return [1 / (0.01 * math.sqrt(2 * math.pi)), 0.3 * 0.8 / (0.3 * 0.8 + 0.7 * 0.1), 5, 1 - 0.1 * 2 * (1 - 3), 65]


def push_forward(p, f, m):
    """The law of Y = f(X): P(Y = j) for j = 0 ... m − 1, (m,).

    X is one of 0 ... n − 1, with the probabilities p (n,). f (n,) holds whole numbers: value i of X goes to f[i].
    """
    law = torch.zeros(m, dtype=p.dtype)
    for i, probability in enumerate(p):
        law[f[i]] += probability
    return law


def probability(log_p, low, high):
    """P(low ≤ X ≤ high) of a density on the line: log_p takes points (n,) to log p(x) (n,), in nats."""
    edges = torch.linspace(low, high, 10_001, dtype=torch.float64)
    width = edges[1] - edges[0]
    return (log_p(edges[:-1] + 0.5 * width).exp() * width).sum()  # a height times a length is a probability


def descend(u, y, rate, steps):
    """Gradient descent by hand, without autograd: fit y ≈ w u + b to points u, y (n,) by the mean of (w u + b − y)².

    Starts at w = b = 0 and makes ``steps`` steps of the given size. Returns w and b.
    """
    w = b = 0.0
    for _ in range(steps):
        off = w * u + b - y
        w, b = w - rate * 2 * (off * u).mean(), b - rate * 2 * off.mean()
    return w, b


def fit_curve(u, y):
    """Train a network on the columns u and y (n, 1), and return it: a function of columns (m, 1).

    The points lie near a smooth curve, with a noise of deviation 0.1.
    """
    generator = torch.random.get_rng_state()
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(1, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
    torch.random.set_rng_state(generator)
    adam = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(1500):
        adam.zero_grad()
        ((net(u) - y) ** 2).mean().backward()
        adam.step()
    return net


def check_five(answer: Callable) -> None:
    """Each of the five, with the section to read where it is wrong."""
    value = answer()
    expect(value is not None, "Your function returned None. Return a list of five numbers.")
    value = numbers(value, None, "the answers")
    expect(value.shape == (5,), f"Expected five numbers in a list, but got shape {tuple(value.shape)}.")
    right = numbers(five_answers(), (5,), "the answers")
    told = {
        0: {1.0: "a density may exceed 1: its unit is 1/x, and only its area is 1", 0.3989: "that is N(0, 1)"},
        1: {0.24: "P(spam and free). Divide by P(free)", 0.8: "P(free given spam), the other way round"},
        2: {15: "sum(-1) adds up the last axis", 3: "it is the last axis that is added up"},
        3: {0.6: "this goes uphill", 1.2: "the slope of (θ − 3)² is 2(θ − 3)", 5.0: "times the step size"},
        4: {48: "each layer has biases too", 64: "one bias is missing", 63: "count 2 · 16, 16, 16 and 1"},
    }
    section = {0: "section 1", 1: "section 1", 2: "section 3", 3: "section 4", 4: "section 5"}
    wrong = []
    for i, (mine, wanted) in enumerate(zip(value.tolist(), right.tolist(), strict=True)):
        if not math.isclose(mine, wanted, rel_tol=0.01):
            near = [words for number, words in told[i].items() if math.isclose(mine, number, rel_tol=0.01)]
            wrong.append(f"question {i + 1} ({near[0] if near else 'not ' + format(mine, 'g')}; {section[i]})")
    if wrong:
        raise Wrong(f"{5 - len(wrong)} of 5 are right. Look again at {', '.join(wrong)}.")


def check_push(answer: Callable) -> None:
    """Maps that join values, turn them round, and leave values out; and probabilities that are no tenths."""
    g = Generator().manual_seed(2)
    for n, m in ((6, 3), (4, 4), (5, 8)):
        p = torch.rand(n, generator=g, dtype=torch.float64)
        p = p / p.sum()
        f = torch.randint(m, (n,), generator=g) if n != m else torch.tensor([2, 0, 3, 1])
        value = numbers(answer(p.clone(), f.clone(), m), (m,), "the probabilities")
        right = torch.zeros(m, dtype=torch.float64).index_add_(0, f, p)
        counts = torch.bincount(f, minlength=m)
        last = torch.zeros(m, dtype=torch.float64)
        for i in range(n):
            last[f[i]] = p[i]
        expect(
            close(value, right) or not close(value, last),
            "Where several values of X go to one value of Y, their probabilities add. Yours keeps the last one.",
        )
        expect(
            close(value, right) or not close(value, counts / n),
            "You count the values that go to each j. Each brings its probability p[i].",
        )
        expect(
            close(value, right) or not close(value, right / counts.clamp(min=1)),
            "You average over the values that go to j. Their probabilities add: no volume is stretched here.",
        )
        expect(
            n != m or close(value, right) or not close(value, p[f]),
            "You asked the wrong way round: p[f[i]] is the probability of the value that i goes *to*.",
        )
        expect(abs(float(value.sum()) - 1) < 0.01, f"Your probabilities add up to {float(value.sum()):.3f}, not to 1.")
        expect(close(value, right), "P(Y = j) is the sum of p[i] over all i with f[i] = j, and 0 where there is none.")


def check_probability(answer: Callable) -> None:
    """Densities with peaks above 1, one in other units, one that is not normal."""
    normal = torch.distributions.Normal
    cases: list[tuple[Callable[[Tensor], Tensor], float, float, float]] = []
    for mean, std, low, high in ((0.0, 1.0, -1.0, 2.0), (5.0, 0.02, 4.97, 5.01), (-300.0, 40.0, -340.0, -260.0)):
        law = normal(torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))
        p = float(law.cdf(torch.tensor(high)) - law.cdf(torch.tensor(low)))
        cases.append((law.log_prob, low, high, p))
    cases.append((lambda x: torch.full_like(x, math.log(4.0)), 0.05, 0.2, 0.6))  # uniform on [0, 1/4]
    for log_p, low, high, right in cases:
        value = float(numbers(answer(log_p, low, high), (), "the probability"))
        x = torch.linspace(low, high, 1001, dtype=torch.float64)
        mean, span = float(log_p(x).exp().mean()), high - low
        where = f" (from {low} to {high}: {value:.3g} came)"
        expect(
            math.isclose(value, right, abs_tol=0.005) or not math.isclose(value, mean, rel_tol=0.02),
            "This is the mean height. A probability is height times length." + where,
        )
        ends = float(log_p(x[[0, -1]]).exp().diff().abs())
        expect(
            math.isclose(value, right, abs_tol=0.005) or not math.isclose(value, ends, abs_tol=0.002),
            "This is the difference of two heights. A density is no distribution function: add up areas." + where,
        )
        expect(
            math.isclose(value, right, abs_tol=0.005)
            or not math.isclose(value, float(log_p(x).mean()) * span, rel_tol=0.02),
            "You added up log p. Take exp first." + where,
        )
        expect(value < 1.005, "A probability cannot exceed 1: did you multiply each height by its length?" + where)
        expect(math.isclose(value, right, abs_tol=0.005), f"Expected {right:.3f}, the area under p there." + where)


def check_descend(answer: Callable) -> None:
    """Against the recursion, for few steps and for many."""
    g = Generator().manual_seed(3)
    u, noise = torch.randn(2, 40, generator=g, dtype=torch.float64)
    y = 2 * u - 1 + 0.3 * noise + 0.5 * u.mean()
    for rate, steps in ((0.1, 1), (0.05, 7), (0.2, 300)):
        pair = answer(u.clone(), y.clone(), rate, steps)
        expect(isinstance(pair, tuple | list) and len(pair) == 2, "Return two things: w and b.")
        value = torch.stack([numbers(part, (), name) for part, name in zip(pair, "wb", strict=True)])
        right = _descent(u, y, rate, steps)
        least = torch.linalg.lstsq(torch.stack((u, torch.ones_like(u)), -1), y[:, None]).solution[:, 0]
        known = {
            "You go uphill: a step is *minus* the rate times the slope.": _descent(u, y, -rate, steps),
            "The slope of a square has a factor 2.": _descent(u, y, rate / 2, steps),
            "You add up over the points, and the loss is their mean.": _descent(u, y, rate * len(u), steps),
            "You made one step too few.": _descent(u, y, rate, steps - 1),
            "You made one step too many.": _descent(u, y, rate, steps + 1),
            "You move w first and use the new w in the slope of b. Compute both slopes, then move.": _descent(
                u, y, rate, steps, together=False
            ),
        }
        if not close(value, right, rtol=1e-3, atol=1e-4):
            for hint, other in known.items():
                expect(not close(value, other, rtol=1e-3, atol=1e-4), hint)
            expect(
                steps > 7 or not close(value, least, rtol=1e-3, atol=1e-4),
                f"This is the lowest place at once. Asked is where {steps} steps of size {rate} end.",
            )
            raise Wrong(
                f"After {steps} steps of size {rate} expected w = {right[0]:.4f} and b = {right[1]:.4f}, but got "
                f"{value[0]:.4f} and {value[1]:.4f}. The slopes: mean of 2 (w u + b − y) u, and of 2 (w u + b − y)."
            )


def _descent(u: Tensor, y: Tensor, rate: float, steps: int, together: bool = True) -> Tensor:
    w = b = torch.zeros((), dtype=torch.float64)
    for _ in range(steps):
        off = w * u + b - y
        slope_w, slope_b = 2 * (off * u).mean(), 2 * off.mean()
        w = w - rate * slope_w
        b = b - rate * (slope_b if together else 2 * (w * u + b - y).mean())
    return torch.stack((w, b))


def check_curve(answer: Callable) -> None:
    """A curve that no line fits, at points in between."""
    g = Generator().manual_seed(5)
    u = 4 * torch.rand(300, 1, generator=g) - 2
    y = torch.sin(2 * u) + 0.1 * torch.randn(300, 1, generator=g)
    net = answer(u.clone(), y.clone())
    expect(net is not None, "Your function returned None. Return the network.")
    expect(callable(net), f"Expected a function of columns, but got {type(net).__name__}.")
    new = torch.linspace(-1.95, 1.95, 200)[:, None]
    with torch.no_grad():
        made = net(new.clone())
    expect(getattr(made, "shape", None) == (200, 1), f"Expected a column (200, 1) for a column, but got {made!r:.60}.")
    off = float((numbers(made, (200, 1), "the values") - torch.sin(2 * new)).square().mean().sqrt())
    expect(
        off < 0.5 or not math.isclose(off, 0.7, abs_tol=0.12),
        f"Your fit is off by {off:.2f} on average, as a line would be. Does anything bend between the layers?",
    )
    expect(off < 0.08, f"On points in between your fit is off by {off:.2f} on average; come below 0.08.")


EXERCISES = [
    Exercise(
        name="the_tools.1",
        question="**Five questions.** Answer without looking anything up. If all are right, go on to the next lesson.",
        answer=five_answers,
        check=check_five,
        praise="right, all five. You have the tools: skip the rest of this lesson, or read what you are curious about.",
        hints=(
            "A wrong answer names its section. Read that section, then come back.",
            "Question 1: the peak of N(0, σ²) is 1/(σ √(2π)). Question 2: Bayes' rule. Question 4: θ − rate · slope.",
        ),
        why=(
            "A density has a unit, so its height may be anything; Bayes' rule weighs 0.24 against 0.07. "
            "The rest is counting, and one step of minus the rate times the slope 2(θ − 3) = −4."
        ),
        aims=("decide",),
    ),
    Exercise(
        name="the_tools.2",
        question="**Push a measure forward.** X has finitely many values. What is the law of Y = f(X)?",
        answer=push_forward,
        check=check_push,
        praise="right. Probabilities are carried along and added; nothing is stretched, so no factor appears.",
        hints=(
            "Which values of X make Y = j? Their probabilities add.",
            "Go through all i and add p[i] to the entry f[i] of a tensor of zeros.",
        ),
        why=(
            "Y = j happens exactly when X is one of the values that f takes to j. "
            "These are separate events, so their probabilities add, and where there is none the sum is 0."
        ),
        aims=("push",),
    ),
    Exercise(
        name="the_tools.3",
        question="**From a density to a probability.** Any density on the line, in any unit.",
        answer=probability,
        check=check_probability,
        praise="right. The heights may be far above 1; times a length, they add up to a probability.",
        hints=(
            "Cut the interval into many short pieces. What is the probability of one of them?",
            "Sum of exp(log_p(x)) · width, over the middles of the pieces.",
        ),
        why=(
            "On a short piece the density hardly changes, so its probability is height times length. "
            "The pieces are separate, and so their probabilities add up to that of the interval."
        ),
        aims=("tell",),
    ),
    Exercise(
        name="the_tools.4",
        question="**A descent by hand.** Write the two slopes yourself; no autograd.",
        answer=descend,
        check=check_descend,
        praise="right. Autograd does the same, only that it finds the slopes by itself.",
        hints=(
            "The loss is the mean of off², with off = w u + b − y. What is its slope in w, and in b?",
            "2 · mean(off · u) and 2 · mean(off). Compute both before you move either.",
        ),
        why=(
            "By the chain rule the slope of off² is 2 off times the slope of off, which is u for w and 1 for b. "
            "A step goes against the slope, since the slope points to where the loss rises."
        ),
        aims=("descend",),
    ),
    Exercise(
        name="the_tools.5",
        question=(
            "**Open task: a network that bends.** Choose layers, steps and rate. On points in between it has to be "
            "off by less than 0.08."
        ),
        answer=fit_curve,
        check=check_curve,
        praise="right. The noise has a deviation of 0.1, so you are nearer to the curve than the points are.",
        hints=(
            "Linear, something that bends, Linear. Adam with a rate of 0.01 or so, some thousand steps on all points.",
            "torch.nn.Sequential(torch.nn.Linear(1, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)).",
        ),
        why=(
            "Two linear layers without a bend between them are one linear layer, which a curve does not fit. "
            "With the bend, each hidden unit adds a step of its own, and the descent places the steps."
        ),
        aims=("train",),
    ),
]
