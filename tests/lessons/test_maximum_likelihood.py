"""Each known wrong answer of maximum_likelihood meets its own hint, and no other's."""

import math
import re

import nbformat
import numpy as np
import pytest
import torch

import flowlab
from flowlab.bijections import Chain, MonotoneSum, ScaleShift
from flowlab.densities import StandardNormal
from flowlab.densities.mixtures import EMGaussianMixture
from flowlab.lessons import exercises
from flowlab.lessons.base import order
from flowlab.lessons.maximum_likelihood import exercises as lesson

C = 0.5 * math.log(2 * math.pi)


def sinh_arcsinh(base=True, constant=C, cosh=1, tailed=1, slope=1, spread=1, sign=1, total=torch.mean):
    """A student's log-likelihood: which factors of dz/dx it has, and what is done in the end."""

    def answer(x, m, s, t, k):
        u = (x - m) / s
        w = t * u.asinh() - k
        log_det = cosh * w.cosh().log() + tailed * math.log(t) - slope * 0.5 * (1 + u**2).log() - spread * math.log(s)
        return total(-0.5 * w.sinh() ** 2 * base - constant * base + sign * log_det)

    return answer


def by_autograd(x, m, s, t, k):
    x = x.clone().requires_grad_()
    z = torch.sinh(t * torch.asinh((x - m) / s) - k)
    (slope,) = torch.autograd.grad(z.sum(), x)
    return (torch.distributions.Normal(0.0, 1.0).log_prob(z) + slope.log()).mean()


def by_numpy(x, m, s, t, k):
    u = (np.asarray(x) - m) / s
    w = t * np.arcsinh(u) - k
    return np.mean(-0.5 * np.sinh(w) ** 2 - 0.92 + np.log(np.cosh(w) * t / np.sqrt(1 + u**2) / s))


def flow_of(*maps):
    return flowlab.Flow(Chain([make(1) for make in maps]), StandardNormal(1))


def steps(features):
    return MonotoneSum(features, terms=10, generator=torch.Generator().manual_seed(0))


class Spikes:
    """A spike on each training point."""

    def __init__(self, x):
        self.x = x[:, 0]

    def log_prob(self, x):
        return torch.distributions.Normal(self.x, 0.02).log_prob(x).logsumexp(-1) - math.log(len(self.x))


def fitted(*maps, count=300, **settings):
    def answer(x):
        flow = flow_of(*maps)
        flowlab.fit(flow, x, steps=count, learning_rate=3e-2, progress=False, **settings)
        return flow

    return answer


def mixture(x):
    return EMGaussianMixture.fit(x, 2, generator=torch.Generator().manual_seed(0))


class Half:
    """A density that forgets a log-determinant."""

    def __init__(self, flow):
        self.flow = flow

    def log_prob(self, x):
        return self.flow.base.log_prob(self.flow.bijection(x)[0])


def ailment(stiff, supple):
    return {(1, 1): "both", (1, 0): "bias", (0, 1): "variance", (0, 0): "nothing"}[bool(stiff), bool(supple)]


WRONG = [
    (1, sinh_arcsinh(total=torch.sum), "That is the sum"),
    (1, sinh_arcsinh(spread=0), "has not the slope 1/spread"),
    (1, sinh_arcsinh(cosh=0), "has not the slope of sinh"),
    (1, sinh_arcsinh(slope=0), "has not the slope of arcsinh"),
    (1, sinh_arcsinh(tailed=0), "has not the factor tail"),
    (1, sinh_arcsinh(constant=0), "½ log 2π is missing"),
    (1, sinh_arcsinh(sign=0), "the base alone"),
    (1, sinh_arcsinh(sign=-1), "You subtracted"),
    (1, sinh_arcsinh(total=lambda v: -v.mean()), "The sign is turned"),
    (1, sinh_arcsinh(total=lambda v: v), "Take the mean over the points"),
    (1, sinh_arcsinh(total=lambda v: v.mean() / math.log(2)), "in bits"),
    (1, lambda x, m, s, t, k: x.mean(), "with autograd at a point"),
    (2, fitted(ScaleShift), "no better than one Gaussian"),
    (2, fitted(ScaleShift, steps, ScaleShift, count=2), "no better than one Gaussian"),
    (2, Spikes, "the noise of its own points"),
    (2, lambda x: Half(fitted(ScaleShift, steps, ScaleShift, count=5)(x)), "has area"),
    (2, lambda x: flowlab.fit(flow_of(ScaleShift), x, steps=2, progress=False), "the history"),
    (2, lambda x: x, "which has a log_prob"),
    (3, lambda p, s: p(s.exp()), "dσ/ds is missing"),
    (3, lambda p, s: p(s.exp()) - s, "upside down"),
    (3, lambda p, s: p(s), "evaluated at σ = eˢ"),
    (3, lambda p, s: p(s.exp()) * s.exp(), "add the logarithm"),
    (3, lambda p, s: p(s.exp()) + s.exp(), "the Jacobian eˢ itself"),
    (3, lambda p, s: p(s.exp()) + s.log(), "s may be negative"),
    (3, lambda p, s: p(s.exp()) + 2 * s - 1, "has area"),
    (4, lambda few, many: ailment(many > 0.03, 0), "yet with few points it is far"),
    (4, lambda few, many: ailment(few > 0.1, 0), "nearly nothing of it is left"),
    (4, lambda few, many: ailment(few > 0.1, few - many > 0.03), "there is no bias"),
    (4, lambda few, many: ailment(0, few - many > 0.03), "it cannot take that shape"),
    (4, lambda few, many: ailment(0, few > 0.03), "would hardly help"),
    (4, lambda few, many: ailment(many > 0.03, few > 0.03), "nothing of this is variance"),
    (4, lambda few, many: ailment(many > 0.03, few - many > 0), "nothing of this is variance"),
    (4, lambda few, many: ailment(many > 0.03, few - many > 0.03 * (many > 0.03)), "So small a difference"),
    (4, lambda few, many: ailment(many > 0.01, few - many > 0.03), "A gauge of 0.02 nats"),
    (4, lambda few, many: ailment(many > 0.15, few - many > 0.03), "it cannot take that shape"),
    (
        4,
        lambda few, many: ailment(many > 0.03 and few < 0.2, few - many > 0.03 and many < 0.03),
        "still with very many",
    ),
    (4, lambda few, many: ailment(many > 0.03, few - many > 0.2), "that part is variance"),
    (4, lambda few, many: few - many > 0.1, "Return"),
]


@pytest.mark.parametrize("answer", [lambda p, s: p(s), lambda p, s: p(s) + s, lambda p, s: p(s) - s])
def test_prior_taken_at_s_is_told_so_whatever_is_added(answer):
    assert "evaluated at σ = eˢ" in exercises()["maximum_likelihood.3"].verdict(answer)[1]


RIGHT = [
    (1, sinh_arcsinh()),
    (1, by_autograd),
    (1, by_numpy),
    (2, fitted(ScaleShift, steps, ScaleShift)),
    (2, mixture),
    (3, lambda p, s: s + p(torch.exp(s))),
    (3, lambda p, s: [float(value) for value in p(s.exp()) + s.exp().log()]),
    (4, lambda few, many: ["nothing", "bias", "variance", "both"][2 * (few > many + 0.03) + (many > 0.03)]),
    (4, lambda few, many: " Both" if min(few - many, many) > 0.03 else lesson.ailment(few, many).upper()),
]


def test_the_worked_answer_says_of_the_notebooks_table_what_its_text_says():
    """The rows of the table in section 4: what is left with 2,000 points is bias, what was more with fewer variance."""
    path = order.notebooks()[next(n for n, p in order.notebooks().items() if p.stem.endswith("maximum_likelihood"))]
    outputs = [o.text for c in nbformat.read(path, 4).cells if c.cell_type == "code" for o in c.outputs if "text" in o]
    rows = re.findall(r"(\d+) points, (Gaussian|sinh-arcsinh|flexible) +-?[\d.]+ +([\d.]+) ±", "\n".join(outputs))
    gauge = {(int(n), name): float(kl) for n, name, kl in rows}
    assert len(gauge) == 9
    said = {key: lesson.ailment(gauge[key], gauge[2000, key[1]]) for key in gauge if key[0] < 2000}
    assert said[200, "Gaussian"] == "bias" and said[20, "Gaussian"] == "both"
    assert said[20, "flexible"] == said[20, "sinh-arcsinh"] == "variance"
    assert said[200, "sinh-arcsinh"] == "nothing"
