"""Leapfrog: it is a chain of additive couplings, keeps volume and nearly the energy, and has Newton's sign."""

import math

import pytest
import torch
from torch import Generator

from flowlab.bijections import Leapfrog, ShapeError


def spring(x):
    return 0.5 * x.square().sum(-1)


def start(n: int = 50) -> torch.Tensor:
    return torch.randn(n, 2, generator=Generator().manual_seed(0), dtype=torch.float64)


def test_a_spring_goes_around_in_a_circle():
    """The exact flow of U = ½ x² turns (x, v) by the angle t; leapfrog's error falls with the square of the step."""
    at, t = start(), 1.5
    c, s = math.cos(t), math.sin(t)
    exact = at @ torch.tensor([[c, -s], [s, c]], dtype=torch.float64)  # x' = c x + s v, v' = −s x + c v
    off = [(Leapfrog(2, spring, steps=n, size=t / n)(at)[0] - exact).abs().max() for n in (30, 60)]
    assert off[0] < 2e-3 and float(off[0] / off[1]) == pytest.approx(4, rel=0.05)


def test_volume_is_kept_and_energy_nearly():
    def energy(x):
        return 0.25 * x.square().sum(-1).square() - x.square().sum(-1)

    f, at = Leapfrog(2, energy, steps=20, size=0.05), start(10)
    moved, log_det = f(at)
    J = torch.func.vmap(torch.func.jacrev(lambda one: f(one)[0]))(at)
    torch.testing.assert_close(J.det(), torch.ones(10, dtype=torch.float64), rtol=1e-10, atol=1e-10)
    assert (log_det == 0).all()

    def H(point):
        return energy(point[:, :1]) + spring(point[:, 1:])

    assert (H(moved) - H(at)).abs().max() < 0.05 and (moved - at).abs().max() > 0.5


def test_one_step_is_three_additive_couplings():
    f, at = Leapfrog(2, lambda x: x.pow(4).sum(-1), size=0.1), start(5)
    x, v = at[:, :1], at[:, 1:]
    v = v - 0.05 * 4 * x**3
    x = x + 0.1 * v
    v = v - 0.05 * 4 * x**3
    torch.testing.assert_close(f(at)[0], torch.cat([x, v], -1))


def test_turning_the_momentum_around_goes_back():
    f, at = Leapfrog(2, spring, steps=7, size=0.3), start()
    turn = torch.tensor([1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(f(f(at)[0] * turn)[0] * turn, at)


def test_refuses_in_words():
    with pytest.raises(ShapeError, match="an even number, but got 3"):
        Leapfrog(3, spring)
    for settings in ({"steps": 0}, {"size": 0.0}):
        with pytest.raises(ValueError, match="at least one step of a positive size"):
            Leapfrog(2, spring, **settings)
