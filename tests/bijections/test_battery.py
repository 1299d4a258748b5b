"""One battery for every bijection of the table: each row is given the checks of its kind. Here those of its values.

``test_battery_derivatives.py`` has those of Jacobians and gradients. Each takes about half of the time.
"""

import inspect
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

import flowlab.bijections
from bijections.battery import (
    ALL,
    ALL_BUT_NOISY,
    BATCHES,
    DTYPES,
    STACKS,
    THERE_AND_BACK,
    Case,
    assert_close,
    battery,
    directions,
    draw,
    iterations,
    jacobian,
    per_sample,
    rows,
    strain,
    sweep,
)
from bijections.table import TABLE, VECTORS, Row
from flowlab.bijections import AffineCoupling, Bijection, Inverse, InverseNotAvailable, ScaleShift, ShapeError


def test_every_bijection_is_in_the_table():
    public = {c for c in vars(flowlab.bijections).values() if inspect.isclass(c) and issubclass(c, Bijection)}
    tabled = {type(row.make(row.events[-1], None, Generator().manual_seed(0))) for row in TABLE.values()}
    assert public - {Bijection} == {c for c in tabled if c.__module__.startswith("flowlab.")}


@pytest.mark.parametrize("shapes", range(1, len(VECTORS) + 1))
def test_the_sweep_visits_every_pair(shapes):
    cases = [replace(case, event=case.event % shapes) for case in sweep(Row(ScaleShift, events=VECTORS[:shapes]))]
    visited = {pair for c in cases for pair in combinations((c.event, c.stack, c.batch, c.dtype), 2)}
    settings = (range(shapes), STACKS, BATCHES, DTYPES)
    assert all((a, b) in visited for one, other in combinations(settings, 2) for a in one for b in other)


# --- there and back ---------------------------------------------------------------------------------------------------


@battery(*THERE_AND_BACK)
def test_inverse_undoes_forward(name, case):
    f, x, context = draw(name, case)
    surface = TABLE[name].surface
    with torch.no_grad():
        z, forward_log_det = f(x, context)
        back, inverse_log_det = f.inverse(z, context)
        again, _ = f(back, context)
    assert z.dtype == back.dtype == forward_log_det.dtype == inverse_log_det.dtype == case.dtype
    lead = x.shape[: x.ndim - f.event_dim]
    assert forward_log_det.shape == inverse_log_det.shape == lead
    scale = strain(f, x, context, surface)
    assert_close(back, x, case.dtype, per_sample(scale, f), surface)
    assert_close(again, z, case.dtype, per_sample(scale, f), surface)
    assert_close(inverse_log_det, -forward_log_det, case.dtype, scale)


@battery(*ALL_BUT_NOISY)
def test_samples_do_not_depend_on_each_other(name, case):
    f, x, context = draw(name, case)
    f.double()  # in float32 a matrix product may sum in another order
    x = x.double() if x.is_floating_point() else x
    context = None if context is None else context.double()
    lead = 0 if case.stack is None else 1
    flat = x.flatten(lead, lead + len(case.batch) - 1) if case.batch else x.unsqueeze(lead)
    if flat.shape[lead] == 0:
        return
    wide = context
    if context is not None:
        wide = context.flatten(lead, lead + len(case.batch) - 1) if case.batch else context.unsqueeze(lead)
    for way, at in directions(TABLE[name], f, flat, wide):
        value, log_det = getattr(f, way)(at, wide)
        last = at.select(lead, -1), None if wide is None else wide.select(lead, -1)
        alone, its_log_det = getattr(f, way)(*last)
        assert_close(alone, value.select(lead, -1), torch.float64, surface=TABLE[name].surface)
        assert_close(its_log_det, log_det.select(lead, -1), torch.float64)


@pytest.mark.slow
@battery(*ALL_BUT_NOISY)
def test_state_dict_brings_it_back(name, case):
    row, (f, x, context) = TABLE[name], draw(name, case)
    other, *_ = draw(name, Case(case.event, case.stack, case.batch, case.dtype, case.seed + 1))
    other.load_state_dict(f.state_dict())
    for way, point in directions(row, f, x, context):
        for value, same in zip(getattr(f, way)(point, context), getattr(other, way)(point, context), strict=True):
            assert torch.equal(value, same)


@pytest.mark.slow
@battery(*ALL_BUT_NOISY)
def test_stack_equals_separate_maps(name, case):
    K, row = case.stack or 3, TABLE[name]
    f, x, context = draw(name, Case(case.event, K, case.batch, case.dtype, case.seed))
    if case.seed % 2:
        x = x[:1].expand_as(x)  # all K get the same points
    scale = strain(f, x, context, row.surface)
    if f.stack is None:
        assert not list(f.parameters()), "only a map without parameters may be taken by a stack as it is"
    single, *_ = draw(name, Case(case.event, None, case.batch, case.dtype, case.seed))
    together = [(way, point, getattr(f, way)(point, context)) for way, point in directions(row, f, x, context)]
    for k in range(K):
        own = single.state_dict()
        for entry, value in f.state_dict().items():
            stacked = value.shape != own[entry].shape
            assert not stacked or value.shape == (K, *own[entry].shape)
            own[entry] = value[k] if stacked else value
        single.load_state_dict(own)
        c = None if context is None else context[k]
        for way, point, (value, total) in together:
            its_value, its_total = getattr(single, way)(point[k], c)
            assert_close(value[k], its_value, case.dtype, per_sample(scale[k], f), row.surface)
            assert_close(total[k], its_total, case.dtype, scale[k])


@pytest.mark.parametrize("name", rows(*ALL))
@pytest.mark.parametrize("stack", (None, 3))
def test_wrong_input_is_refused_in_words(name, stack):
    f, x, context = draw(name, Case(stack=stack))
    whole = TABLE[name].kind == "whole"
    words = r"expected whole numbers, but got torch\.float64" if whole else "expected floating-point numbers, but got "
    for apply in (f,) if TABLE[name].kind == "one way" else (f, f.inverse):
        with pytest.raises(TypeError, match=words + ("" if whole else r"torch\.int64")):
            apply(x.double() if whole else x.long(), context)
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


@pytest.mark.parametrize("name", rows(*ALL_BUT_NOISY))
def test_numeric_inverses_say_so(name):
    f, x, context = draw(name, Case())
    with iterations() as found:
        for way, point in directions(TABLE[name], f, x, context):
            getattr(f, way)(point, context)
    assert bool(found) == f.inverse_is_numeric, found


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.context])
def test_context_is_used_and_asked_for(name):
    (f, x, context), shape = draw(name, Case()), TABLE[name].context
    width, axis = (shape, -1) if isinstance(shape, int) else (shape[0], -len(shape))
    assert f.context_features == width and f.context_dim == -axis
    for way, point in directions(TABLE[name], f, x, context):
        apply = getattr(f, way)
        assert not torch.allclose(apply(point, context)[0], apply(point, context + 1)[0])
        assert torch.equal(apply(point, context[0])[0][0], apply(point, context)[0][0])  # one context for all
        with pytest.raises(ValueError, match=rf"{width} context features, but got none"):
            apply(point)
        with pytest.raises(ValueError, match=rf"expected .*{width}.*, but got .*{2 * width}"):
            apply(point, torch.cat((context, context), axis))


def test_context_that_nobody_asked_for_is_refused():
    with pytest.raises(ValueError, match="no context features, but got 2"):
        AffineCoupling([True, False])(torch.zeros(5, 2), torch.zeros(5, 2))


@pytest.mark.parametrize("name", rows(*ALL))
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
    event = row.events[min(1, len(row.events) - 1)]
    f = row.fresh(event, stack, generator).eval()
    x, context = (None if p is None else p.float() for p in row.points(event, stack, (9,), generator))
    z, log_det = f(x, context)
    torch.testing.assert_close(z, x, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=1e-5)


# --- one way ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", rows("one way"))
@pytest.mark.parametrize("stack", (None, 3))
def test_what_cannot_be_inverted_says_who_cannot(name, stack):
    f, x, context = draw(name, Case(stack=stack))
    z = f(x, context)[0]
    assert not f.inverse_is_numeric
    for call in (f.inverse, Inverse(f)):
        with pytest.raises(InverseNotAvailable, match=r"\w+ has no inverse"):
            call(z, context)


# --- on a manifold ----------------------------------------------------------------------------------------------------


@battery("manifold")
def test_points_of_the_surface_stay_on_it(name, case):
    f, x, context = draw(name, case)
    for way, point in directions(TABLE[name], f, x, context):
        off = TABLE[name].surface.off(getattr(f, way)(point, context)[0])
        assert (off <= 10 * torch.finfo(case.dtype).eps).all()


@pytest.mark.parametrize("name", rows("manifold"))
@given(seed=st.integers(0, 2**31))
def test_density_integrates_to_one_over_the_surface(name, seed):
    """The uniform density, 1 / area, moved by the map."""
    row, generator = TABLE[name], Generator().manual_seed(seed)
    f = row.make(row.events[0], None, generator, spread=0.15)
    x, weight = row.surface.quadrature()
    assert float(weight.sum()) == pytest.approx(row.surface.area)
    with torch.no_grad():
        total = (f(x)[1].exp() / row.surface.area * weight).sum()
    assert float(total) == pytest.approx(1, abs=1e-9)


# --- whole numbers ----------------------------------------------------------------------------------------------------


@battery("whole")
def test_a_map_of_whole_numbers_permutes_them(name, case):
    row, (f, x, context) = TABLE[name], draw(name, case)
    D = row.events[case.event % len(row.events)][0]
    every = torch.cartesian_prod(*[torch.arange(row.levels)] * D).reshape(-1, D)
    z = f(every, context)[0]
    assert f.domain == "whole" and z.dtype == torch.int64
    assert {tuple(v) for v in z.tolist()} == {tuple(v) for v in every.tolist()}, "each number is reached once"
    assert torch.equal(f.inverse(z, context)[0], every)
    for way, point in directions(row, f, x, context):
        log_det = getattr(f, way)(point, context)[1]
        assert log_det.dtype == torch.get_default_dtype() and log_det.shape == x.shape[:-1]
        assert (log_det == 0).all()


@pytest.mark.parametrize("name", rows("whole"))
@given(seed=st.integers(0, 2**31))
def test_probabilities_sum_to_one(name, seed):
    """Of a base that has other odds for each number in each coordinate, moved by the map."""
    row, generator = TABLE[name], Generator().manual_seed(seed)
    (D,) = row.events[-1]
    f = row.make((D,), None, generator)
    log_odds = torch.randn(D, row.levels, generator=generator, dtype=torch.float64).log_softmax(-1)
    every = torch.cartesian_prod(*[torch.arange(row.levels)] * D).reshape(-1, D)
    z, log_det = f(every)
    log_p = log_odds.expand(len(z), -1, -1).gather(-1, z.unsqueeze(-1)).sum((-2, -1)) + log_det
    assert float(log_p.exp().sum()) == pytest.approx(1)


# --- noisy ------------------------------------------------------------------------------------------------------------


@battery("noisy")
def test_the_generator_decides_what_is_drawn(name, case):
    f, x, context = draw(name, case)
    state = torch.get_rng_state()
    values, draws = [], []
    for seed in (0, 0, 1):
        z, log_det = f(x, context, generator=Generator().manual_seed(seed))
        assert log_det.dtype == z.dtype == case.dtype and log_det.shape == x.shape[:-1]
        values.append(z)
        draws.append(log_det)
    assert torch.equal(torch.get_rng_state(), state), "the global seed was touched"
    assert torch.equal(values[0], values[1]) and torch.equal(draws[0], draws[1])
    assert not x.numel() or not torch.equal(draws[0], draws[2])
    back, _ = f.inverse(values[0], context, generator=Generator())
    assert_close(back, x, case.dtype, scale=10)


@pytest.mark.parametrize("name", rows("noisy"))
@pytest.mark.parametrize("stack", (None, 3))
@pytest.mark.parametrize("direction", ("forward", "inverse"))
def test_the_mean_of_the_draws_is_the_log_det(name, stack, direction):
    """Within five standard errors of a mean over 4,000 draws: a bias of a tenth of the spread is seen."""
    f, x, context = draw(name, Case(event=2, stack=stack, batch=(4000,)))
    x = x[..., :1, :].expand_as(x)
    apply = f if direction == "forward" else f.inverse
    log_det = apply(x, context, generator=Generator().manual_seed(0))[1]
    J = jacobian(lambda x: apply(x, context, generator=Generator()), x[..., :1, :], f.event_dim)
    exact = torch.linalg.slogdet(J).logabsdet
    error = 5 * log_det.std(-1, keepdim=True) / log_det.shape[-1] ** 0.5
    assert ((log_det.mean(-1, keepdim=True) - exact).abs() < error).all()
    assert (error < 1).all()
