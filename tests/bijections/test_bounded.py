"""Each column to the line by its own ends: none, one, or two."""

import math

import pytest
import torch
from torch import Generator
from torch.func import jacrev, vmap

from flowlab import Flow
from flowlab.bijections import Bounded, Logit
from flowlab.densities import StandardNormal


def test_between_0_and_1_it_is_the_logit():
    x = torch.rand(50, 3, generator=Generator().manual_seed(0), dtype=torch.float64)
    for got, expected in zip(Bounded([(0, 1)] * 3).double()(x), Logit()(x), strict=True):
        torch.testing.assert_close(got, expected)


def test_one_end_is_a_logarithm_and_none_is_the_identity():
    x = torch.tensor([[3.0, -2.0, 7.0]])
    z, log_det = Bounded([(1, None), (None, 4), None])(x)
    torch.testing.assert_close(z, torch.tensor([[math.log(2), -math.log(6), 7.0]]))
    torch.testing.assert_close(log_det, torch.tensor([-math.log(2) - math.log(6)]))


def test_both_directions_agree_with_each_other_and_with_autograd():
    f = Bounded([(-1, None), (None, 4), None, (-1, 4)]).double()
    x = -0.9 + 4.8 * torch.rand(20, 4, generator=Generator().manual_seed(0), dtype=torch.float64)
    z, log_det = f(x)
    again, back = f.inverse(z)
    torch.testing.assert_close(again, x)
    torch.testing.assert_close(back, -log_det)
    torch.testing.assert_close(vmap(jacrev(lambda one: f(one)[0]))(x).slogdet().logabsdet, log_det)


def test_beyond_an_end_there_is_no_density_and_at_one_it_is_finite():
    flow = Flow(Bounded([(5, 10), (0, None), (None, 0)]), StandardNormal(3))
    inside = [7.0, 1.0, -1.0]
    for i, value in ((0, 4.99), (0, 10.01), (1, -0.01), (2, 0.01)):
        assert flow.log_prob([*inside[:i], value, *inside[i + 1 :]]) == -math.inf
    assert flow.log_prob(torch.tensor([[5.0, *inside[1:]], [10.0, *inside[1:]]])).isfinite().all()


def test_half_the_mass_is_on_each_side_of_the_middle_whatever_the_units():
    for low, high in ((5.0, 10.0), (1.7e9, 1.7e9 + 86400.0), (0.0, 1e-12), (1e4, 1e4 + 1e-3)):
        x = low + (high - low) * torch.tensor([[0.01], [0.25], [0.5], [0.99]], dtype=torch.float64)
        flow = Flow(Bounded([(low, high)]), StandardNormal(1))
        z = flow.bijection(x)[0]
        torch.testing.assert_close(z, torch.logit(torch.tensor([[0.01], [0.25], [0.5], [0.99]])), rtol=1e-3, atol=1e-3)
        sample = flow.sample(2000, Generator().manual_seed(0))
        assert flow.log_prob(sample).isfinite().all(), "of its own samples, which float32 rounds"


@pytest.mark.parametrize("ends", ((1, 0), (1, 1), (0, math.inf), (math.nan, 1), (1,), (0, 1, 2)))
def test_ends_that_are_none_are_refused(ends):
    with pytest.raises(ValueError, match="two ends in order, or None for an end that is not there, but got"):
        Bounded([ends])
