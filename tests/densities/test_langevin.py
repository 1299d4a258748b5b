"""Langevin steps, against the law that they follow where it is known."""

import math

import pytest
import torch
from torch import Generator

from flowlab.datasets import Energy
from flowlab.densities import langevin


def test_a_spring_is_the_ornstein_uhlenbeck_process():
    """From x = 3: mean 3 e^−t and variance 1 − e^−2t at time t; with noise √size for √(2 size) it would be half."""
    x = torch.full((40_000, 1), 3.0, dtype=torch.float64)
    moved = langevin(lambda x: 0.5 * x.square().sum(-1), x, steps=100, size=0.01, generator=Generator().manual_seed(0))
    assert float(moved.mean()) == pytest.approx(3 * math.exp(-1), abs=0.04)
    assert float(moved.var()) == pytest.approx(1 - math.exp(-2), abs=0.03)


def test_it_ends_in_samples_of_an_energy():
    p = Energy(1)
    start = torch.randn(4000, 2, generator=Generator().manual_seed(1))
    x = langevin(p.energy, start, steps=300, size=0.01, generator=Generator().manual_seed(2))
    exact = p.sample(20_000, Generator().manual_seed(3))
    assert float(p.energy(x).mean()) == pytest.approx(float(p.energy(exact).mean()), abs=0.1)
    assert float(x.norm(dim=-1).mean()) == pytest.approx(float(exact.norm(dim=-1).mean()), abs=0.05)


def test_looking_changes_nothing_and_the_seed_decides():
    p, start = Energy(2), torch.zeros(10, 2)
    state = torch.get_rng_state()
    one, same, other = (
        langevin(p.energy, start, steps=3, size=0.1, generator=Generator().manual_seed(s)) for s in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other) and torch.equal(torch.get_rng_state(), state)
    assert (start == 0).all() and torch.equal(langevin(p.energy, start, steps=0, size=0.1), start)
    with pytest.raises(ValueError, match="0 steps of a positive size, but got 5 of -1"):
        langevin(p.energy, start, steps=5, size=-1)
