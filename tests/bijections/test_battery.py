"""One battery for every bijection of the table."""

import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

import flowlab.bijections
from bijections.battery import Case, assert_close, battery, draw, in_float64, jacobian, midpoints, per_sample, strain
from bijections.table import TABLE
from flowlab.bijections import (
    AffineCoupling,
    Bijection,
    Inverse,
    ShapeError,
)
from flowlab.densities import StandardNormal


def test_every_bijection_is_in_the_table():
    public = {c for c in vars(flowlab.bijections).values() if inspect.isclass(c) and issubclass(c, Bijection)}
    tabled = {type(row.make(row.events[-1], None, Generator().manual_seed(0))) for row in TABLE.values()}
    assert public - {Bijection} == tabled


@battery
def test_inverse_undoes_forward(name, case):
    f, x, context = draw(name, case)
    with torch.no_grad():
        z, forward_log_det = f(x, context)
        back, inverse_log_det = f.inverse(z, context)
        again, _ = f(back, context)
    assert z.dtype == back.dtype == forward_log_det.dtype == inverse_log_det.dtype == case.dtype
    lead = x.shape[: x.ndim - f.event_dim]
    assert forward_log_det.shape == inverse_log_det.shape == lead
    scale = strain(f, x, context)
    assert_close(back, x, case.dtype, per_sample(scale, f))
    assert_close(again, z, case.dtype, per_sample(scale, f))
    assert_close(inverse_log_det, -forward_log_det, case.dtype, scale)


@battery
def test_log_det_is_that_of_the_jacobian(name, case):
    f, x, context = draw(name, case)
    z = f(x, context)[0].detach()
    exact, wide = in_float64(f, context)
    scale = strain(f, x, context)
    for apply, reference, point in ((f, exact, x), (f.inverse, exact.inverse, z)):
        J = jacobian(lambda x, reference=reference: reference(x, wide), point.double(), f.event_dim)
        assert_close(apply(point, context)[1], torch.linalg.slogdet(J).logabsdet, case.dtype, scale)


@battery
def test_gradients_are_finite(name, case):
    f, x, context = draw(name, case)
    z = f(x, context)[0].detach()
    for apply, point in ((f, x), (f.inverse, z)):
        point = point.clone().requires_grad_()
        f.zero_grad()
        value, log_det = apply(point, context)
        ((value**2).sum() - log_det.sum()).backward()
        for what, p in (("the input", point), *f.named_parameters()):
            assert p.grad is not None, f"no gradient reaches {what}"
            assert torch.isfinite(p.grad).all(), f"the gradient of {what} is not finite"
            if p is point and p.numel():
                assert (p.grad != 0).any()


@battery
def test_samples_do_not_depend_on_each_other(name, case):
    f, x, context = draw(name, case)
    f.double()  # in float32 a matrix product may sum in another order
    x, context = x.double(), None if context is None else context.double()
    lead = 0 if case.stack is None else 1
    flat = x.flatten(lead, lead + len(case.batch) - 1) if case.batch else x.unsqueeze(lead)
    if flat.shape[lead] == 0:
        return
    wide = context
    if context is not None:
        wide = context.flatten(lead, lead + len(case.batch) - 1) if case.batch else context.unsqueeze(lead)
    for apply in (f, f.inverse):
        value, log_det = apply(flat, wide)
        last = flat.select(lead, -1), None if wide is None else wide.select(lead, -1)
        alone, its_log_det = apply(*last)
        assert_close(alone, value.select(lead, -1), torch.float64)
        assert_close(its_log_det, log_det.select(lead, -1), torch.float64)
        flat = value.detach()


@battery
def test_state_dict_brings_it_back(name, case):
    f, x, context = draw(name, case)
    other, *_ = draw(name, Case(case.event, case.stack, case.batch, case.dtype, case.seed + 1))
    other.load_state_dict(f.state_dict())
    z = f(x, context)[0]
    for one, same in ((f(x, context), other(x, context)), (f.inverse(z, context), other.inverse(z, context))):
        assert torch.equal(one[0], same[0]) and torch.equal(one[1], same[1])


@battery
def test_stack_equals_separate_maps(name, case):
    K = case.stack or 3
    f, x, context = draw(name, Case(case.event, K, case.batch, case.dtype, case.seed))
    if case.seed % 2:
        x = x[:1].expand_as(x)  # all K get the same points
    scale = strain(f, x, context)
    if f.stack is None:
        assert not list(f.parameters()), "only a map without parameters may be taken by a stack as it is"
    single, *_ = draw(name, Case(case.event, None, case.batch, case.dtype, case.seed))
    z, log_det = f(x, context)
    back, inverse_log_det = f.inverse(z, context)
    for k in range(K):
        own = single.state_dict()
        for entry, value in f.state_dict().items():
            stacked = value.shape != own[entry].shape
            assert not stacked or value.shape == (K, *own[entry].shape)
            own[entry] = value[k] if stacked else value
        single.load_state_dict(own)
        c = None if context is None else context[k]
        for (value, total), (its_value, its_total) in (
            ((z[k], log_det[k]), single(x[k], c)),
            ((back[k], inverse_log_det[k]), single.inverse(z[k], c)),
        ):
            assert_close(value, its_value, case.dtype, per_sample(scale[k], f))
            assert_close(total, its_total, case.dtype, scale[k])


def flows_of(dimensions: int) -> list[str]:
    return [name for name, row in TABLE.items() if any(math.prod(event) == dimensions for event in row.events)]


def integral(name: str, dimensions: int, seed: int, reach: float, points: int) -> float:
    """∫ p(x) dx of a flow with a normal base, by the midpoint rule on a box that holds all z within ``reach``."""
    row = TABLE[name]
    event = next(event for event in row.events if math.prod(event) == dimensions)
    generator = Generator().manual_seed(seed)
    f = row.make(event, None, generator, spread=0.15)  # tame enough for a grid
    context = row.points(event, None, (), generator)[1]
    base = StandardNormal(dimensions)
    edge = torch.linspace(-reach, reach, 61, dtype=torch.float64)
    with torch.no_grad():
        z = torch.cartesian_prod(*[edge] * dimensions).reshape(-1, *event)
        x = f.inverse(z, context)[0].flatten(1)
        axes = [midpoints(x[:, d].min().item(), x[:, d].max().item(), points) for d in range(dimensions)]
        grid = torch.cartesian_prod(*[middle for middle, _ in axes]).reshape(-1, *event)
        width = torch.cartesian_prod(*[width for _, width in axes]).reshape(len(grid), -1).prod(-1)
        parts = [f(part, context) for part in grid.split(20_000)]
        density = torch.cat([(base.log_prob(z.flatten(1)) + log_det).exp() for z, log_det in parts])
    return float((density * width).sum())


@pytest.mark.parametrize("name", flows_of(1))
@given(seed=st.integers(0, 2**31))
def test_density_integrates_to_one_on_the_line(name, seed):
    assert integral(name, 1, seed, reach=6.5, points=1000) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", flows_of(2))
@pytest.mark.parametrize("seed", (1, 2))
def test_density_integrates_to_one_in_the_plane(name, seed):
    assert integral(name, 2, seed, reach=4.0, points=200) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("direction", ("forward", "inverse"))
def test_gradients_agree_with_finite_differences(name, direction):
    f, x, context = draw(name, Case(batch=(2,), seed=5))
    if direction == "inverse":
        x, f = f(x, context)[0].detach(), Inverse(f)
    names, parameters = zip(*f.named_parameters(), strict=True) if list(f.parameters()) else ((), ())

    def apply(x, *parameters):
        return torch.func.functional_call(f, dict(zip(names, parameters, strict=True)), (x, context))

    inputs = (x.requires_grad_(), *(p.detach().requires_grad_() for p in parameters))
    assert torch.autograd.gradcheck(apply, inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("stack", (None, 3))
def test_wrong_input_is_refused_in_words(name, stack):
    f, x, context = draw(name, Case(stack=stack))
    for apply in (f, f.inverse):
        with pytest.raises(TypeError, match=r"expected floating-point numbers, but got torch\.int64"):
            apply(x.long(), context)
        with pytest.raises(ShapeError, match=r"expected .*\(\)"):
            apply(x.new_zeros(()), context)
        if f.event_shape is not None:
            wrong = torch.zeros(*x.shape[:-1], x.shape[-1] + 1, dtype=x.dtype)
            with pytest.raises(ShapeError) as error:
                apply(wrong, context)
            assert f"(..., {', '.join(map(str, f.event_shape))})" in str(error.value)
            assert str(tuple(wrong.shape)) in str(error.value)
        if f.stack is not None:
            with pytest.raises(ShapeError) as error:
                apply(x[:2], context)
            assert f"stack of {stack}" in str(error.value) and str(tuple(x[:2].shape)) in str(error.value)
            with pytest.raises(ShapeError):
                apply(x[0, 0], context)


@pytest.mark.parametrize("name", TABLE)
def test_numeric_inverses_say_so(name, monkeypatch):
    f, x, context = draw(name, Case())
    ran = []
    bisect = flowlab.bijections.elementwise.bisect
    monkeypatch.setattr(flowlab.bijections.elementwise, "bisect", lambda *a: ran.append(1) or bisect(*a))
    f.inverse(f(x, context)[0], context)
    f(x, context)
    assert bool(ran) == f.inverse_is_numeric


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.context])
def test_context_is_used_and_asked_for(name):
    (f, x, context), width = draw(name, Case()), TABLE[name].context
    for apply in (f, f.inverse):
        assert not torch.allclose(apply(x, context)[0], apply(x, context + 1)[0])
        assert torch.equal(apply(x, context[0])[0][0], apply(x, context)[0][0])  # one context for all
        with pytest.raises(ValueError, match=rf"{width} context features, but got none"):
            apply(x)
        with pytest.raises(ValueError, match=rf"{width} context features, but got {2 * width}"):
            apply(x, torch.cat((context, context), -1))


def test_context_that_nobody_asked_for_is_refused():
    with pytest.raises(ValueError, match="no context features, but got 2"):
        AffineCoupling([True, False])(torch.zeros(5, 2), torch.zeros(5, 2))


@pytest.mark.parametrize("name", TABLE)
def test_generator_alone_decides(name):
    state = torch.get_rng_state()
    row = TABLE[name]
    weights = [row.fresh(row.events[-1], 2, Generator().manual_seed(seed)).state_dict() for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state), "the global seed was touched"
    assert all(torch.equal(weights[0][entry], weights[1][entry]) for entry in weights[0])
    takes = inspect.signature(row.build).parameters
    if "generator" in takes or "own" in takes:
        assert any(not torch.equal(weights[0][entry], weights[2][entry]) for entry in weights[0])


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.identity])
@pytest.mark.parametrize("stack", (None, 2))
def test_starts_at_the_identity(name, stack):
    row, generator = TABLE[name], Generator().manual_seed(0)
    f = row.fresh(row.events[1], stack, generator).eval()
    x, context = (None if p is None else p.float() for p in row.points(row.events[1], stack, (9,), generator))
    z, log_det = f(x, context)
    torch.testing.assert_close(z, x, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=1e-5)
