"""Densities of whole numbers: bins tile, the bound is one, its noise comes from the generator, and q pays."""

import math

import pytest
import torch
from torch import Generator

import flowlab
from flowlab import Flow, realnvp
from flowlab.bijections import Chain, Logit
from flowlab.densities import (
    Dequantized,
    GaussianMixture,
    StandardLogistic,
    StandardNormal,
    StandardUniform,
    VariationalDequantized,
    negative_bound,
)
from flowlab.metrics import bits_per_dim


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def gaussian(mean: float = 0.5, sigma: float = 0.05, D: int = 1) -> GaussianMixture:
    covariance = sigma**2 * torch.eye(D, dtype=torch.float64)
    return GaussianMixture(torch.full((1, D), mean, dtype=torch.float64), covariance[None])


def cell(low: float, high: float, mean: float = 0.5, sigma: float = 0.05) -> float:
    """The exact probability of a bin under the Gaussian."""
    cdf = torch.distributions.Normal(torch.tensor(mean).double(), sigma).cdf
    return float(cdf(torch.tensor(high).double()) - cdf(torch.tensor(low).double()))


def learned(seed: int = 0, D: int = 2, scale: float = 0.0) -> Flow:
    """A conditional flow for the noise; at scale 0 it is the identity, and the noise uniform."""
    q = flowlab.realnvp(
        D, 4, hidden=(16,), context_features=D, standardize=False, base=StandardLogistic(D), generator=seeded(seed)
    )
    with torch.no_grad():
        for p in q.parameters():
            p.add_(scale * torch.randn(p.shape, generator=seeded(9)))
    return q.double()


@pytest.mark.parametrize(("levels", "D", "draws"), [(256, 784, 1), (256, 3, 5), (8, 2, 1), (2, 1, 3)])
def test_a_uniform_density_needs_exactly_the_bits_of_its_levels(levels, D, draws):
    v = torch.randint(0, levels, (6, D), generator=seeded(0))
    log_P = Dequantized(StandardUniform(D).double(), levels, draws=draws).log_prob(v, generator=seeded(1))
    bits = bits_per_dim(log_P, D, scale="integers", levels=levels)
    torch.testing.assert_close(bits, torch.full((6,), math.log2(levels)).double(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 8, 256])
def test_bins_tile_the_unit_interval(levels, dtype):
    model, v = Dequantized(StandardUniform(1), levels), torch.arange(levels)
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    low, high = (model.dequantize(v, end.expand(levels)) for end in ends)
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(high[:-1], low[1:], rtol=tolerance, atol=0)
    torch.testing.assert_close(torch.stack((low[0], high[-1])), ends, rtol=tolerance, atol=tolerance)
    # The ends themselves are never reached, so that the logit stays finite.
    assert low.min() > 0 and high.max() < 1 and bool(torch.isfinite(Logit()(low[:, None])[1]).all())
    inside = model.dequantize(v, torch.full((levels,), 0.5, dtype=dtype))
    assert torch.equal((inside * levels).floor().long(), v)


def test_probabilities_of_all_values_add_up_to_one():
    """With many draws, for a density within [0, 1]; v/255 + u/256 would give 255/256."""
    P = Dequantized(gaussian(sigma=0.1), draws=64).log_prob(torch.arange(256)[:, None], generator=seeded(0)).exp()
    assert float(P.sum()) == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("v", [2, 3, 5])
def test_one_draw_is_a_bound_and_more_draws_close_it(v):
    exact = math.log(cell(v / 8, (v + 1) / 8))
    x = torch.full((20_000, 1), v)
    means = [
        float(Dequantized(gaussian(), 8, draws=S).log_prob(x[: 20_000 // S], generator=seeded(S)).mean())
        for S in (1, 10, 200)
    ]
    assert means[0] < means[1] < means[2] < exact + 0.02
    assert exact - means[2] < 0.1 * (exact - means[0])


def test_one_draw_by_hand_and_the_generator_decides_all():
    model = Dequantized(gaussian(D=3), 16)
    v = torch.randint(0, 16, (5, 3), generator=seeded(0))
    u = torch.rand(v.shape, generator=seeded(7), dtype=torch.float64)
    by_hand = model.density.log_prob((v + u) / 16) - 3 * math.log(16)
    torch.testing.assert_close(model(v, generator=seeded(7)), by_hand)
    assert not torch.equal(model(v, generator=seeded(8)), by_hand)
    state = torch.get_rng_state()
    model.log_prob(v, generator=seeded(7))
    assert torch.equal(torch.get_rng_state(), state), "a generator is given, so the global seed is left alone"


def test_batches_stacks_and_contexts_go_through():
    v = torch.randint(0, 256, (2, 4, 6), generator=seeded(0)).to(torch.uint8)
    flow = flowlab.realnvp(6, 2, context_features=1, generator=seeded(0))
    assert Dequantized(flow).log_prob(v, torch.zeros(2, 4, 1), generator=seeded(0)).shape == (2, 4)
    stack = flowlab.realnvp(6, 2, stack=3, generator=seeded(0))
    log_P = Dequantized(stack).log_prob(v[0].expand(3, 4, 6), generator=seeded(0))
    assert log_P.shape == (3, 4) and log_P.dtype == torch.float32
    assert Dequantized(stack.double()).log_prob(v[0].expand(3, 4, 6), generator=seeded(0)).dtype == torch.float64


def test_samples_are_whole_numbers_with_the_probabilities_of_the_bins():
    v = Dequantized(gaussian(), 8).sample(40_000, seeded(0))
    assert v.shape == (40_000, 1) and v.dtype == torch.int64
    assert float((v == 3).double().mean()) == pytest.approx(cell(3 / 8, 4 / 8), abs=0.01)
    outside = Dequantized(gaussian(mean=1.0, sigma=2.0), 8).sample(1000, seeded(0))
    assert set(outside.unique().tolist()) <= set(range(8))


@pytest.mark.parametrize(
    ("v", "error", "words"),
    [
        (torch.tensor([[0.3]]), TypeError, "whole numbers from 0 to 7, such as uint8 pixels, but got torch.float32"),
        (torch.tensor([[True]]), TypeError, "torch.bool"),
        (torch.tensor([[8]]), ValueError, "from 0 to 7, but got 8 to 8"),
        (torch.tensor([[3], [-1]]), ValueError, "got -1 to 3"),
    ],
)
def test_what_is_no_level_is_refused(v, error, words):
    with pytest.raises(error, match=words):
        Dequantized(gaussian(), 8).log_prob(v)


def test_counts_below_what_makes_sense_are_refused():
    with pytest.raises(ValueError, match="levels of at least 2, but got 1"):
        Dequantized(gaussian(), 1)
    with pytest.raises(ValueError, match="draws of at least 1, but got 0"):
        Dequantized(gaussian(), draws=0)


def test_learned_noise_starts_as_uniform_noise():
    model, v = VariationalDequantized(gaussian(D=2), learned(), 8), torch.randint(0, 8, (500, 2), generator=seeded(0))
    with torch.no_grad():
        u, log_q = model.noise(v, seeded(1))
    assert float(log_q.abs().max()) < 1e-9
    assert 0.4 < float(u.mean()) < 0.6 and float(u.std()) == pytest.approx(12**-0.5, abs=0.02)
    torch.testing.assert_close(model(v, generator=seeded(1)), model.density.log_prob((v + u) / 8) - 2 * math.log(8))


def test_log_q_of_learned_noise_is_its_density():
    """Importance weights 1/q average to the volume of the cube, and autograd agrees on the Jacobian."""
    model = VariationalDequantized(gaussian(D=2), learned(scale=0.1), 8)
    v = torch.tensor([[1, 6]]).expand(200_000, 2)
    with torch.no_grad():
        u, log_q = model.noise(v, seeded(2))
    assert float(log_q.std()) > 0.05, "it is not uniform any more"
    assert float((-log_q).exp().mean()) == pytest.approx(1, abs=0.02)

    eps = model.q.base.sample(1, seeded(3))
    context = (2 * v[:1].double() + 1) / 8 - 1

    def to_noise(e):
        return torch.sigmoid(model.q.bijection.inverse(e, context)[0])

    jacobian = torch.autograd.functional.jacobian(to_noise, eps)[0, :, 0]
    u, log_q = model.noise(v[:1], seeded(3))
    torch.testing.assert_close(u, to_noise(eps))
    torch.testing.assert_close(log_q, model.q.base.log_prob(eps) - torch.linalg.slogdet(jacobian).logabsdet)


def test_learned_noise_gives_a_bound_too_that_more_draws_close():
    exact = math.log(cell(3 / 8, 4 / 8) * cell(4 / 8, 5 / 8))
    v = torch.tensor([[3, 4]])
    with torch.no_grad():
        one, many = (
            float(
                VariationalDequantized(gaussian(D=2), learned(scale=0.15), 8, draws=S)
                .log_prob(v.expand(8000 // S, 2), generator=seeded(S))
                .mean()
            )
            for S in (1, 100)
        )
    assert one < many < exact + 0.02 and exact - many < 0.2 * (exact - one)


def equal_pixels(n: int, seed: int) -> torch.Tensor:
    k = torch.randint(0, 4, (n, 1), generator=seeded(seed))
    return k.expand(n, 2).contiguous()


@pytest.mark.slow
def test_training_gets_its_noise_from_the_step_and_learned_noise_wins():
    """Two pixels that are always equal: H = log 4."""
    scores = []
    for way in (Dequantized, VariationalDequantized):
        noise = () if way is Dequantized else (learned(1).float(),)
        runs = []
        for _ in range(2 if way is Dequantized else 1):
            model = way(flowlab.realnvp(2, 4, hidden=(16,), generator=seeded(0)), *noise, 4)
            history = flowlab.fit(
                model,
                equal_pixels(1000, 0),
                steps=200,
                batch_size=250,
                learning_rate=1e-2,
                objective=negative_bound,
                progress=False,
            )
            runs.append(history.loss)
        assert runs[0] == runs[-1], "the same seed gives the same run"
        with torch.no_grad():
            scores.append(float(model.log_prob(equal_pixels(1000, 1), generator=seeded(2)).mean()))
    uniform, variational = scores
    assert uniform < variational < -math.log(4) + 0.02


def test_a_flow_on_the_logits_stays_finite_at_black_and_white():
    flow = Flow(Chain([Logit()]), StandardNormal(4))
    v = torch.tensor([[0, 0, 255, 255]], dtype=torch.uint8).expand(100_000, 4)
    assert bool(torch.isfinite(Dequantized(flow).log_prob(v, generator=seeded(0))).all())


@pytest.mark.parametrize("dtype", (torch.uint8, torch.int64))
def test_whole_numbers_outside_have_no_probability(dtype):
    """Where a GPU holds them they are not looked at, and so not refused."""
    model = Dequantized(StandardUniform(2), levels=4)
    v = torch.tensor([[0, 4], [1, 2], [200, 0], [3, 3]]).to(dtype)
    log_w = model.log_weight(v, Generator().manual_seed(0))
    assert (log_w == -math.inf).tolist() == [True, False, True, False]
    torch.testing.assert_close(log_w[1], torch.tensor(-2 * math.log(4)))
    if dtype == torch.int64:
        assert model.log_weight(-v, Generator().manual_seed(0))[1:3].tolist() == [-math.inf] * 2


@pytest.mark.parametrize("dtype", (torch.uint8, torch.int64))
def test_no_pixels_have_no_probabilities(dtype):
    model = Dequantized(realnvp(2, 1, logit=1e-6))
    assert model.log_prob(torch.zeros(0, 2, dtype=dtype)).shape == (0,)
