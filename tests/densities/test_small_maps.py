"""One small map at a time: the likelihood of the points never falls, and each flow is as likely as it is said to be."""

import itertools
import math

import pytest
import torch
from torch import Generator

from flowlab.bijections import Radial, ScaleShift
from flowlab.datasets import Pinwheel
from flowlab.densities import one_map_at_a_time


@pytest.mark.parametrize("seed", (0, 1, 2))
def test_the_likelihood_of_the_points_never_falls(seed):
    x = Pinwheel().sample(600, Generator().manual_seed(seed))
    said = [nats for _, nats in itertools.islice(one_map_at_a_time(x, Generator().manual_seed(seed)), 200)]
    assert all(after >= before for before, after in itertools.pairwise(said))
    assert said[-1] > said[0] + 0.3


def test_each_flow_is_as_likely_as_it_is_said_to_be():
    x = Pinwheel().sample(500, Generator().manual_seed(0))
    for flow, nats in itertools.islice(one_map_at_a_time(x, Generator().manual_seed(1)), 0, 60, 15):
        assert flow.log_prob(x).mean().item() == pytest.approx(nats, abs=1e-3)
    assert [type(f) for f in flow.bijection] == [ScaleShift] + [Radial] * (len(flow.bijection) - 1)
    assert len(flow.bijection) > 20


def test_it_begins_as_the_best_gaussian_with_independent_numbers():
    x = torch.randn(1000, 3, generator=Generator().manual_seed(0), dtype=torch.float64) * torch.tensor([5.0, 0.1, 1.0])
    flow, nats = next(one_map_at_a_time(x + 100))
    wanted = -x.std(0).log().sum() - 1.5 * math.log(2 * math.pi) - 1.5 * (len(x) - 1) / len(x)
    assert nats == pytest.approx(float(wanted), abs=1e-9) and flow.anchor.dtype == torch.float64


def test_what_has_no_spread_is_refused():
    for x in (torch.zeros(5, 2), torch.randn(1, 2), torch.randn(7)):
        with pytest.raises(ValueError, match=r"Expected points \(N, D\), at least two"):
            next(one_map_at_a_time(x))
