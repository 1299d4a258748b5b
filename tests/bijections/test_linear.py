"""Linear maps."""

import math

import pytest
import torch
from torch import Generator

from flowlab.bijections import (
    FullAffine,
    LULinear,
    Permutation,
    ShapeError,
)


def test_full_affine_is_a_x_plus_b():
    f = FullAffine(2)
    A, b = torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([5.0, -1.0])
    f.load_state_dict({"matrix": A, "shift": b})
    z, log_det = f(torch.tensor([1.0, 10.0]))
    assert z.tolist() == pytest.approx([17, 29]) and log_det.item() == pytest.approx(math.log(6))


def test_lu_linear_is_its_matrix_and_starts_as_a_rotation():
    f = LULinear(6, generator=Generator().manual_seed(3)).double()
    W = f(torch.eye(6, dtype=torch.float64))[0].mT  # columns are images of unit vectors
    torch.testing.assert_close(W @ W.mT, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-6)
    f.lower.data.normal_(generator=Generator().manual_seed(4))
    f.upper.data.normal_(generator=Generator().manual_seed(5))
    f.log_scale.data.normal_(generator=Generator().manual_seed(6))
    L = f.lower.tril(-1) + torch.eye(6)
    U = f.upper.triu(1) + torch.diag(f.sign * f.log_scale.exp())
    x = torch.randn(6, generator=Generator().manual_seed(7), dtype=torch.float64)
    torch.testing.assert_close(f(x)[0], f.permutation @ L @ U @ x)
    assert "sign" in dict(f.named_buffers()) and "permutation" in dict(f.named_buffers())


def test_permutation_puts_order_i_in_place_i():
    f = Permutation([2, 0, 1])
    assert f(torch.tensor([10.0, 11.0, 12.0]))[0].tolist() == [12, 10, 11]
    assert Permutation.reverse(3)(torch.tensor([1.0, 2.0, 3.0]))[0].tolist() == [3, 2, 1]
    shuffle = Permutation.random(30, Generator().manual_seed(1))
    assert shuffle.order.tolist() != list(range(30)) and sorted(shuffle.order.tolist()) == list(range(30))


@pytest.mark.parametrize("order", ([0, 0], [1, 2], [0, 1, 3], [-1, 0]))
def test_permutation_that_is_none_is_refused(order):
    with pytest.raises(ValueError, match=rf"each of 0 to {len(order) - 1} once, but got .*{order[-1]}\]"):
        Permutation(order)


def test_permutation_of_nothing_is_refused():
    with pytest.raises(ShapeError, match="at least one dimension"):
        Permutation([])
