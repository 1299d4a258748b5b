"""Restoration: what each rule arrives at, against exact moments; what may move and what may not."""

import math

import pytest
import torch

from flowlab.bijections import Chain, ScaleShift
from flowlab.densities import Flow, StandardLogistic, StandardNormal
from flowlab.models import nice, realnvp
from flowlab.restoration import denoise, inpaint, posterior, wander, widths


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def last(steps):
    return list(steps)[-1]


def scaled(S, base=StandardNormal):
    """A flow that is a diagonal alone, so that all is known."""
    flow = Flow(Chain([ScaleShift(len(S), shift=False)]), base(len(S)))
    with torch.no_grad():
        flow.bijection[0].log_scale.copy_(S.log())
    return flow


def test_each_rule_arrives_at_its_power_of_the_density():
    """Of the logistic: mean log p is −2 ln 2 at the mode, −2 under p, and −5/3 under p², where the √2 is missing."""
    base, D = StandardLogistic(100), 100
    start, a = base.sample(60, seeded(0)), 0.1
    settings = {"steps": 400, "rate": lambda step: a}
    found = {
        rule: last(wander(base.log_prob, start, rule, **settings, generator=seeded(1)))[1].mean() / D
        for rule in ("map", "langevin")
    }
    assert float(found["map"]) == pytest.approx(-2 * math.log(2), abs=1e-3)
    assert float(found["langevin"]) == pytest.approx(-2, abs=0.02)
    # noise c = a of a rule with T = a/2: for a = 1 it is p², had the steps no error; in small steps of a = 0.1, p^20
    cold = last(wander(base.log_prob, start, "nice", **settings, generator=seeded(1)))[1].mean() / D
    T = a / 2
    q = torch.distributions.Beta(1 / T, 1 / T).sample((200_000,))
    assert float(cold) == pytest.approx(float((q.log() + (1 - q).log()).mean()), abs=0.003)


def test_rows_may_have_rules_of_their_own_and_widths_are_units():
    S = torch.tensor([1.0, 10.0, 500.0])
    flow = scaled(S)
    assert torch.allclose(widths(flow), 1 / S)
    x = torch.zeros(1500, 3)
    rules = ["map"] * 500 + ["langevin"] * 1000
    settings = {"steps": 200, "rate": lambda step: 0.1, "generator": seeded(0)}
    x, value = last(wander(flow.log_prob, x, rules, widths=widths(flow), **settings))
    assert torch.equal(x[:500], torch.zeros(500, 3))
    torch.testing.assert_close(x[500:].std(0) * S, torch.full((3,), (1 - 0.05) ** -0.5), rtol=0.06, atol=0)
    torch.testing.assert_close(value, flow.log_prob(x))


def test_seen_pixels_stay_and_hidden_ones_follow_them():
    """Two equal pixels, one hidden: z = (x₀, S (x₁ − x₀)), so that the hidden one is the seen one plus a logistic/S."""
    flow = nice(2, 1, hidden=(), prior="logistic")
    with torch.no_grad():
        flow.bijection[0].conditioner.last.weight.fill_(-1.0)
        flow.bijection[1].log_scale[1] = math.log(20.0)
    x = torch.tensor([[0.7, 0.0]]).repeat(400, 1)
    hidden = torch.tensor([False, True])
    # From afar the pull is weak: large steps first, then small ones, whose error is small.
    settings = {"steps": 500, "rate": lambda step: 0.5 if step < 250 else 0.05, "generator": seeded(0)}
    filled, _ = last(inpaint(flow, x, hidden, "map", **settings))
    assert torch.equal(filled[:, 0], x[:, 0])
    assert float(filled[:, 1].mean()) == pytest.approx(0.7, abs=2e-3) and float(filled[:, 1].std()) < 2e-3
    many, _ = last(inpaint(flow, x, hidden, "langevin", **settings))
    assert torch.equal(many[:, 0], x[:, 0])
    middle_half = float((many[:, 1] - 0.7).abs().median())  # which a logistic has within ± ln 3
    assert middle_half * 20 == pytest.approx(math.log(3), rel=0.15)


def test_hidden_pixels_start_as_a_sample_of_the_flow():
    flow = scaled(torch.tensor([1.0, 10.0, 500.0]))
    hidden = torch.tensor([True, False, True])
    x, _ = next(inpaint(flow, torch.full((6, 3), 0.25), hidden, "langevin", generator=seeded(3)))
    assert torch.equal(x[:, hidden], flow.sample(6, seeded(3))[:, hidden]) and (x[:, 1] == 0.25).all()


def test_denoising_steps_by_a_quarter_of_the_variance():
    """One step of "map" by hand, z ← z + σ²/4 · ∂/∂z [−z²/2 − (y − z/S)²/(2σ²)]; at first z is a draw of the base."""
    S, sigma, y = torch.tensor([3.0, 6.0]), 0.5, torch.tensor([[1.0, -2.0], [0.3, 0.1]])
    flow = scaled(S)
    (x, _), (after, _) = list(denoise(flow, y, sigma, "map", steps=1, generator=seeded(0)))
    z = flow.base.sample(2, seeded(0))
    torch.testing.assert_close(x, z / S)
    torch.testing.assert_close(after * S, z + sigma**2 / 4 * (-z + (y - z / S) / (S * sigma**2)))


def test_noise_is_taken_away_as_bayes_says():
    """A Gaussian prior of deviation 1/S and noise σ: mean y/(1 + S²σ²), variance 1/(S² + 1/σ²)."""
    S, sigma = torch.tensor([3.0, 6.0]), 0.5
    flow, y = scaled(S), torch.tensor([[1.0, 1.0]]).repeat(2000, 1)
    mean, variance = 1 / (1 + (S * sigma) ** 2), 1 / (S**2 + 1 / sigma**2)
    x, _ = last(denoise(flow, y, sigma, "map", steps=200, generator=seeded(0)))
    torch.testing.assert_close(x, mean.expand(2000, 2), atol=1e-3, rtol=0)
    x, value = last(denoise(flow, y, sigma, "langevin", steps=200, generator=seeded(0)))
    torch.testing.assert_close(x.mean(0), mean, atol=0.04, rtol=0)
    torch.testing.assert_close(x.var(0), variance, atol=0, rtol=0.12)
    torch.testing.assert_close(value, posterior(flow, y, sigma)(x * S))


def test_steps_are_counted_and_the_same_seed_gives_the_same():
    base = StandardNormal(3)
    runs = [list(wander(base.log_prob, torch.ones(2, 3), "langevin", steps=5, generator=seeded(4))) for _ in range(2)]
    assert len(runs[0]) == 6 and torch.equal(runs[0][0][0], torch.ones(2, 3))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(*runs, strict=True))


def test_what_cannot_be_done_is_said():
    base = StandardNormal(2)
    for rule in ("gibbs", ["map"], ["map", "gibbs"]):
        with pytest.raises(ValueError, match="one rule for all rows or one for each of 2, out of map, langevin, nice"):
            next(wander(base.log_prob, torch.zeros(2, 2), rule))
    with pytest.raises(ValueError, match="ends with a ScaleShift"):
        widths(realnvp(2, 2))
