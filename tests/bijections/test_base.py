"""Chain, Inverse, and the errors."""

import math
from collections import Counter

import pytest
import torch
from torch import Generator

from flowlab.bijections import (
    AffineCoupling,
    Bijection,
    Chain,
    FullAffine,
    Inverse,
    InverseNotAvailable,
    Logit,
    Monotone,
    MonotoneSum,
    NotStackable,
    Permutation,
    PReLU,
    ScaleShift,
    ShapeError,
    SinhArcsinh,
    alternating_mask,
)


def scale_shift(scale: float, shift: float, D: int = 1) -> ScaleShift:
    f = ScaleShift(D)
    f.log_scale.data.fill_(math.log(scale))
    f.shift.data.fill_(shift)
    return f


def test_chain_applies_its_maps_in_order():
    f = Chain([scale_shift(2, 0), scale_shift(1, 3)])  # 2x, then + 3
    z, log_det = f(torch.tensor([5.0]))
    assert z.item() == pytest.approx(13) and log_det.item() == pytest.approx(math.log(2))
    assert f.inverse(torch.tensor([13.0]))[0].item() == pytest.approx(5)


def test_chain_is_a_sequence_that_shares_its_maps():
    maps = [scale_shift(2, 0), scale_shift(1, 3), PReLU(1, 0.5)]
    f = Chain(iter(maps))
    assert len(f) == 3 and list(f) == maps and f[2] is maps[2] and f[-1] is maps[2]
    assert isinstance(f[:2], Chain) and list(f[:2]) == maps[:2] and len(f[1:1]) == 0
    assert f[1:](torch.tensor([5.0]))[0].item() == pytest.approx(8)


def test_chain_knows_what_it_is_made_of():
    f = Chain([Logit(), ScaleShift(4, stack=2), MonotoneSum(4, stack=2)])
    assert (f.event_shape, f.event_dim, f.stack, f.inverse_is_numeric) == ((4,), 1, 2, True)
    assert not Chain([Logit()]).inverse_is_numeric
    with pytest.raises(NotStackable, match=r"one size, but got \[2, 3\]"):
        Chain([ScaleShift(4, stack=2), ScaleShift(4, stack=3)])


def test_missing_inverse_raises_by_name():
    class OneWay(Bijection):
        def forward(self, x, context=None):
            return x, x.sum(-1)

    for call in (OneWay().inverse, Inverse(OneWay()), Chain([OneWay()]).inverse):
        with pytest.raises(InverseNotAvailable, match="OneWay has no inverse"):
            call(torch.zeros(2, 3))


def test_no_dimension_and_no_stack_are_refused():
    with pytest.raises(ShapeError, match=r"ScaleShift expected at least one dimension, but got \(0,\)"):
        ScaleShift(0)
    with pytest.raises(NotStackable, match="FullAffine expected a stack of at least one map, but got stack=0"):
        FullAffine(2, stack=0)
    for weightless in (lambda **k: Permutation([0], **k), Logit, lambda **k: Monotone(torch.sinh, **k)):
        with pytest.raises(TypeError, match="stack"):
            weightless(stack=2)


WAYS = ("forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook")


@pytest.mark.parametrize("way, everywhere", [(w, False) for w in WAYS] + [(w, True) for w in WAYS[:2]])
def test_hooks_of_maps_in_a_chain_are_called(way, everywhere):
    """Profilers and debuggers wait beside a map by each of these alone; a chain must not pass it by."""
    masks = (alternating_mask(4), alternating_mask(4, odd=True), alternating_mask(4))
    chain = Chain([AffineCoupling(mask, (5,)) for mask in masks] + [ScaleShift(4), SinhArcsinh(4)])
    called: Counter = Counter()

    def hook(module, *_):
        called.update([module] if module in list(chain) else [])

    if everywhere:
        handles = [getattr(torch.nn.modules.module, f"register_module_{way}")(hook)]
    else:
        handles = [getattr(f, f"register_{way}")(hook) for f in chain]
    try:
        z, log_det = chain(torch.randn(6, 4, generator=Generator().manual_seed(0), requires_grad=True))
        (z.sum() + log_det.sum()).backward()
    finally:
        for handle in handles:
            handle.remove()
    assert called == dict.fromkeys(chain, 1)
