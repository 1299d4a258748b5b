"""Known wrong answers to the exercises of notebook 03: each gets its own hint, and not another's."""

import math

import pytest
import torch

from flowlab.checks import exercises

C = 0.5 * math.log(2 * math.pi)

WRONG = [
    ("03.1", lambda x, m, s: (-0.5 * ((x - m) / s) ** 2 - math.log(s) - C).sum(), "that is the sum"),
    ("03.1", lambda x, m, s: (-0.5 * ((x - m) / s) ** 2 - C).mean(), "1/σ is missing"),
    ("03.1", lambda x, m, s: (-0.5 * ((x - m) / s) ** 2 - math.log(s)).mean(), "½ log 2π is missing"),
    ("03.1", lambda x, m, s: (-0.5 * (x - m) ** 2 / s - 0.5 * math.log(s) - C).mean(), "taken for the variance"),
    ("03.1", lambda x, m, s: (0.5 * ((x - m) / s) ** 2 + math.log(s) + C).mean(), "the sign is turned"),
    ("03.1", lambda x, m, s: -0.5 * ((x - m) / s) ** 2 - math.log(s) - C, "one number was asked for"),
    ("03.1", lambda x, m, s: (-0.5 * ((x - m) / s) ** 2 - math.log(s) - C).mean() / math.log(2), "in bits"),
    ("03.1", lambda x, m, s: x.mean(), "Compare with torch.distributions"),
    ("03.2", lambda x: (x.mean(), x.std()), "divides by N − 1"),
    ("03.2", lambda x: (x.mean(), x.var(correction=0)), "take its root"),
    ("03.2", lambda x: (x.mean(), x.var()), "two slips"),
    ("03.2", lambda x: (x.median(), x.std(correction=0)), "the median"),
    ("03.2", lambda x: x.mean(), "two numbers"),
    ("03.3", lambda p, s: p(s.exp()), "dσ/ds is missing"),
    ("03.3", lambda p, s: p(s.exp()) - s, "upside down"),
    ("03.3", lambda p, s: p(s), "evaluated at σ = eˢ"),
    ("03.3", lambda p, s: p(s.exp()) * s.exp(), "add the logarithm"),
    ("03.3", lambda p, s: p(s.exp()) + s.exp(), "the Jacobian eˢ itself"),
    ("03.3", lambda p, s: p(s.exp()) + s.log(), "s may be negative"),
    ("03.3", lambda p, s: p(s.exp()) + 2 * s - 1, "has area"),
    ("03.4", lambda p, q: (p - q).mean(), "that is in nats"),
    ("03.4", lambda p, q: (q - p).mean() / math.log(2), "cannot save bits"),
    ("03.4", lambda p, q: (p - q).mean() * math.log(2), "upside down"),
    ("03.4", lambda p, q: -q.mean() / math.log(2), "whole length"),
    ("03.4", lambda p, q: (p - q).sum() / math.log(2), "on all points together"),
    ("03.4", lambda p, q: (p.log2() - q.log2()).mean(), "logarithms already"),
    ("03.4", lambda p, q: (p - q) / math.log(2), "one number"),
]


@pytest.mark.parametrize("answer", [lambda p, s: p(s), lambda p, s: p(s) + s, lambda p, s: p(s) - s])
def test_prior_taken_at_s_is_told_so_whatever_is_added(answer):
    assert "evaluated at σ = eˢ" in exercises()["03.3"].verdict(answer)[1]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_each_mistake_gets_its_own_hint(number, answer, hint):
    kind, sentence = exercises()[number].verdict(answer)
    assert kind == "wrong" and hint in sentence, sentence


@pytest.mark.parametrize("number", sorted({number for number, _, _ in WRONG}))
def test_hints_differ_and_trouble_is_told_in_a_sentence(number):
    exercise = exercises()[number]
    hints = [exercise.verdict(answer)[1] for n, answer, _ in WRONG if n == number]
    assert len(set(hints)) == len(hints) >= 3
    assert exercise.verdict(lambda *a: None)[0] == "wrong"
    assert "ZeroDivisionError" in exercise.verdict(lambda *a: 1 / 0)[1]


def test_right_answer_written_otherwise_passes():
    other = {
        "03.1": lambda x, m, s: torch.distributions.Normal(m, s).log_prob(x).mean().item(),
        "03.2": lambda x: [x.mean().item(), (x.square().mean() - x.mean() ** 2).sqrt().item()],
        "03.3": lambda p, s: s + p(torch.exp(s)),
        "03.4": lambda p, q: torch.mean(p / math.log(2) - q / math.log(2)),
    }
    for number, answer in other.items():
        assert exercises()[number].verdict(answer)[0] == "right", exercises()[number].verdict(answer)
