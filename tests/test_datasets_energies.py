"""Energies: the paper's formulas, their exact constants, the wall, and gradients for a fit."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad

from flowlab.datasets import Energy

PAPER = {1: 1.8775016, 2: 2.0820893, 3: 2.6417051, 4: 2.6845677}  # log Z on the square [−4, 4]², by quadrature


def by_hand(number: int, x1: float, x2: float) -> float:
    """exp(−U), as table 1 of the paper writes it."""
    w1 = math.sin(2 * math.pi * x1 / 4)
    w2 = 3 * math.exp(-0.5 * ((x1 - 1) / 0.6) ** 2)
    w3 = 3 / (1 + math.exp(-(x1 - 1) / 0.3))
    if number == 1:
        ring = math.exp(-0.5 * ((math.hypot(x1, x2) - 2) / 0.4) ** 2)
        return ring * (math.exp(-0.5 * ((x1 - 2) / 0.6) ** 2) + math.exp(-0.5 * ((x1 + 2) / 0.6) ** 2))
    if number == 2:
        return math.exp(-0.5 * ((x2 - w1) / 0.4) ** 2)
    if number == 3:
        return math.exp(-0.5 * ((x2 - w1) / 0.35) ** 2) + math.exp(-0.5 * ((x2 - w1 + w2) / 0.35) ** 2)
    return math.exp(-0.5 * ((x2 - w1) / 0.4) ** 2) + math.exp(-0.5 * ((x2 - w1 + w3) / 0.35) ** 2)


@pytest.mark.parametrize("number", (1, 2, 3, 4))
def test_the_energies_are_the_papers(number):
    x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 7 - 3.5
    wanted = torch.tensor([by_hand(number, *row) for row in x.tolist()]).double()
    torch.testing.assert_close((-Energy(number).energy(x)).exp(), wanted)


@pytest.mark.parametrize("number", (1, 2, 3, 4))
def test_the_constant_is_the_integral(number):
    p = Energy(number, wall=0.0)
    assert p.log_z == pytest.approx(PAPER[number], abs=1e-6)
    pieces = np.linspace(-4, 4, 9)
    total = sum(
        dblquad(lambda x2, x1: by_hand(number, x1, x2), a, b, -4, 4, epsabs=1e-6)[0]
        for a, b in itertools.pairwise(pieces)
    )
    assert p.log_z == pytest.approx(math.log(total), abs=1e-6)


def test_a_softer_wall_lets_more_through():
    """U2 is a band of the same width everywhere near the wall: there the wall adds ∫ exp(−½ t²/s²) dt on each side."""
    cut = math.exp(Energy(2, wall=0.0).log_z)
    gained = [math.exp(Energy(2, wall=s).log_z) - cut for s in (0.05, 0.1)]
    across = 0.4 * math.sqrt(2 * math.pi)
    for s, gain in zip((0.05, 0.1), gained, strict=True):
        assert gain == pytest.approx(2 * across * s * math.sqrt(math.pi / 2), rel=1e-3)
    assert Energy(1).log_z == pytest.approx(PAPER[1], abs=1e-6), "the ring does not reach the wall"


@pytest.mark.parametrize("p", (Energy(1), Energy(3), Energy(4, wall=0.0)), ids=str)
def test_samples_are_of_the_density(p):
    """Shares of the four quadrants, against the integral of p over each."""
    x = p.sample(20_000, torch.Generator().manual_seed(1))
    side = (torch.arange(800, dtype=torch.float64) + 0.5) / 800 * 2 * p.extent - p.extent
    grid = torch.cartesian_prod(side, side)
    mass = p.log_prob(grid).exp() * (2 * p.extent / 800) ** 2

    def quadrant(points):
        return 2 * (points[:, 0] > 0) + (points[:, 1] > 0)

    wanted = torch.zeros(4, dtype=torch.float64).index_add(0, quadrant(grid).long(), mass)
    found = torch.bincount(quadrant(x).long(), minlength=4) / len(x)
    assert wanted.sum() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=4 * math.sqrt(0.25 / len(x)))


def test_gradients_pass_and_point_inward_at_the_wall():
    x = torch.tensor([[4.5, 0.0], [0.1, -4.3], [0.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(Energy(2).energy(x).sum(), x)
    assert gradient.isfinite().all() and gradient[0, 0] > 10 and gradient[1, 1] < -10
    far = torch.tensor([[4.5, 0.0]], requires_grad=True)
    assert Energy(2, wall=0.0).energy(far).isinf().all() and Energy(2, wall=0.0).log_prob(far.detach()) == -math.inf


@pytest.mark.parametrize(
    ("settings", "words"),
    (
        ({"number": 5}, "from 1 to 4, but got 5"),
        ({"number": 1, "half_width": 0.0}, "positive number for half_width"),
        ({"number": 1, "wall": -0.1}, "positive number for wall"),
    ),
)
def test_refuses_in_words(settings, words):
    with pytest.raises(ValueError, match=words):
        Energy(**settings)
