"""Each known wrong answer of maximum_likelihood meets its own hint, and no other's."""

import math

import pytest
import torch

from flowlab.lessons import exercises

C = 0.5 * math.log(2 * math.pi)


def ailment(supple, stiff):
    return {(1, 1): "both", (1, 0): "variance", (0, 1): "bias", (0, 0): "nothing"}[supple > 0.1, stiff > 0.1]


WRONG = [
    (1, lambda x, m, s: (-0.5 * ((x - m) / s) ** 2 - math.log(s) - C).sum(), "that is the sum"),
    (1, lambda x, m, s: (-0.5 * ((x - m) / s) ** 2 - C).mean(), "1/σ is missing"),
    (1, lambda x, m, s: (-0.5 * ((x - m) / s) ** 2 - math.log(s)).mean(), "½ log 2π is missing"),
    (1, lambda x, m, s: (-0.5 * (x - m) ** 2 / s - 0.5 * math.log(s) - C).mean(), "taken for the variance"),
    (1, lambda x, m, s: (0.5 * ((x - m) / s) ** 2 + math.log(s) + C).mean(), "the sign is turned"),
    (1, lambda x, m, s: -0.5 * ((x - m) / s) ** 2 - math.log(s) - C, "one number was asked for"),
    (1, lambda x, m, s: (-0.5 * ((x - m) / s) ** 2 - math.log(s) - C).mean() / math.log(2), "in bits"),
    (1, lambda x, m, s: x.mean(), "Compare with torch.distributions"),
    (2, lambda x: (x.mean(), x.std()), "divides by N − 1"),
    (2, lambda x: (x.mean(), x.var(correction=0)), "take its root"),
    (2, lambda x: (x.mean(), x.var()), "two slips"),
    (2, lambda x: (x.median(), x.std(correction=0)), "the median"),
    (2, lambda x: x.mean(), "two numbers"),
    (3, lambda p, s: p(s.exp()), "dσ/ds is missing"),
    (3, lambda p, s: p(s.exp()) - s, "upside down"),
    (3, lambda p, s: p(s), "evaluated at σ = eˢ"),
    (3, lambda p, s: p(s.exp()) * s.exp(), "add the logarithm"),
    (3, lambda p, s: p(s.exp()) + s.exp(), "the Jacobian eˢ itself"),
    (3, lambda p, s: p(s.exp()) + s.log(), "s may be negative"),
    (3, lambda p, s: p(s.exp()) + 2 * s - 1, "has area"),
    (4, lambda p, q: (p - q).mean(), "that is in nats"),
    (4, lambda p, q: (q - p).mean() / math.log(2), "cannot save bits"),
    (4, lambda p, q: (p - q).mean() * math.log(2), "upside down"),
    (4, lambda p, q: -q.mean() / math.log(2), "whole length"),
    (4, lambda p, q: (p - q).sum() / math.log(2), "on all points together"),
    (4, lambda p, q: (p.log2() - q.log2()).mean(), "logarithms already"),
    (4, lambda p, q: (p - q) / math.log(2), "one number"),
    (5, lambda t, n, e: "bias" if e - t > 0.1 else "nothing", "learned accidents"),
    (5, lambda t, n, e: "bias" if e - n > 0.1 else "nothing", "even above the truth"),
    (5, lambda t, n, e: ailment(t - n, e - n), "no bias to see"),
    (5, lambda t, n, e: "variance" if t - n > 0.1 else "nothing", "it cannot take that shape"),
    (5, lambda t, n, e: "variance" if t - n > 0.1 or e - n > 0.1 else "nothing", "more data will not help"),
    (5, lambda t, n, e: "both" if e - t > 0.1 else ailment(t - n, 0), "it is stiff, and that is all"),
    (5, lambda t, n, e: ailment(t - n + 0.05, e - t), "Less than 0.1 nats counts as nothing"),
    (5, lambda t, n, e: "nothing" if n > e else ailment(t - n, e - t + 0.2), "the line is at 0.1"),
    (5, lambda t, n, e: "variance" if t - n > 0.1 else ailment(0, e - t), "with every advantage"),
    (5, lambda t, n, e: "bias" if e - t > 0.1 else ailment(t - n, 0), "loses much from its own points"),
    (5, lambda t, n, e: t - n > 0.1, "Return"),
]


@pytest.mark.parametrize("answer", [lambda p, s: p(s), lambda p, s: p(s) + s, lambda p, s: p(s) - s])
def test_prior_taken_at_s_is_told_so_whatever_is_added(answer):
    assert "evaluated at σ = eˢ" in exercises()["maximum_likelihood.3"].verdict(answer)[1]


RIGHT = [
    (1, lambda x, m, s: torch.distributions.Normal(m, s).log_prob(x).mean().item()),
    (2, lambda x: [x.mean().item(), (x.square().mean() - x.mean() ** 2).sqrt().item()]),
    (3, lambda p, s: s + p(torch.exp(s))),
    (4, lambda p, q: torch.mean(p / math.log(2) - q / math.log(2))),
    (5, lambda t, n, e: ["nothing", "bias", "variance", "both"][2 * (t > n + 0.1) + (t < e - 0.1)]),
]
