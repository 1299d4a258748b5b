"""Each known wrong answer of notebook 05 meets its own hint, and no other's."""

import math

import pytest
import torch

from flowlab.checks import exercises, notebook_05


def inverse(step, log_det=lambda s: -s.sum(-1), given=lambda a, b: a):
    """A student's inverse: what they do with z_b, s and t, their log_det, and what they hand to the conditioner."""

    def answer(z_a, z_b, conditioner):
        s, t = conditioner(given(z_a, z_b))
        return step(z_b, s, t), log_det(s)

    return answer


def right_step(z, s, t):
    return (z - t) * torch.exp(-s)


# number, what the student does, and words that stand in the hint for it alone
WRONG = [
    ("05.1", inverse(lambda z, s, t: z * torch.exp(-s) - t), "undo the shift first"),
    ("05.1", inverse(lambda z, s, t: (z - t) * torch.exp(s)), "Going back divides"),
    ("05.1", inverse(lambda z, s, t: (z + t) * torch.exp(-s)), "so subtract it"),
    ("05.1", inverse(lambda z, s, t: z * torch.exp(s) + t), "the forward map, applied again"),
    ("05.1", inverse(lambda z, s, t: z), "Solve z_b"),
    ("05.1", inverse(right_step, given=lambda a, b: b), "Give the conditioner z_a"),
    ("05.1", inverse(right_step, lambda s: s.sum(-1)), "there and back is 0"),
    ("05.1", inverse(right_step, lambda s: -s), "sum over the last axis"),
    ("05.1", inverse(right_step, lambda s: -s.sum()), "Each sample has its own"),
    ("05.1", inverse(right_step, lambda s: torch.exp(-s).prod(-1)), "take its logarithm"),
    ("05.1", inverse(right_step, lambda s: -2 * s.sum(-1)), "for one unit of its z_b"),
    ("05.1", lambda a, b, c: right_step(b, *c(a)), "Return two things"),
    ("05.2", lambda nats, std: nats, "not free of units"),
    ("05.2", lambda nats, std: nats + std.log().sum(), "The sign is turned"),
    ("05.2", lambda nats, std: nats - std.log().mean(), "logarithms add up"),
    ("05.2", lambda nats, std: nats - std.mean().log(), "by its own"),
    ("05.2", lambda nats, std: nats - std.log()[0], "one coordinate only"),
    ("05.2", lambda nats, std: nats - (std**2).log().sum(), "not its square"),
    ("05.2", lambda nats, std: nats / std.prod(), "It scales p"),
    ("05.2", lambda nats, std: nats - std.prod(), "Subtract its logarithm"),
    ("05.2", lambda nats, std: nats - std, "one number"),
    ("05.2", lambda nats, std: 7.0, "diagonal Jacobian"),
    ("05.3", lambda p, q: bool((q > 0).any()), "may exceed 1"),
    ("05.3", lambda p, q: bool((q - p).mean() > 3 * (q - p).std()), "spread of single points"),
    ("05.3", lambda p, q: False, "spread of single points"),
    ("05.3", lambda p, q: bool(((q > p).double().mean() > 0.52) and q.mean() < 3), "as long as it is below at others"),
    ("05.3", lambda p, q: bool((q - p).mean() > 0), "mere luck of the draw"),
    ("05.3", lambda p, q: bool((p - q).mean() > 0), "Which of p and q is which"),
    ("05.3", lambda p, q: bool((q - p).mean() > 0.2), "cannot be luck"),
    ("05.3", lambda p, q: q > p, "Return True or False"),
]


@pytest.mark.parametrize(("number", "answer", "words"), WRONG, ids=[f"{n} {w}" for n, _, w in WRONG])
def test_a_wrong_answer_meets_its_own_hint(number, answer, words):
    kind, sentence = exercises()[number].verdict(answer)
    assert kind == "wrong"
    assert words in sentence, sentence
    others = {w for n, _, w in WRONG if n == number and w != words}
    assert not [w for w in others if w in sentence], sentence


RIGHT = [
    ("05.1", inverse(lambda z, s, t: (z - t) / s.exp())),
    ("05.2", lambda nats, std: nats - math.log(float(std.prod()))),
    ("05.3", lambda p, q: (q - p).mean() > 4 * (q - p).std() / len(p) ** 0.5),
]


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_other_right_answers_pass(number, answer):
    assert exercises()[number].verdict(answer)[0] == "right", exercises()[number].verdict(answer)


def test_raw_nats_agree_with_the_gaussian():
    std = torch.tensor([0.5, 4.0])
    u = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(torch.zeros(2), 1.0)
    raw = torch.distributions.Normal(torch.zeros(2), std).log_prob(u * std).sum(-1).mean()
    assert notebook_05.raw_nats(normal.log_prob(u).sum(-1).mean(), std) == pytest.approx(float(raw), abs=1e-4)
