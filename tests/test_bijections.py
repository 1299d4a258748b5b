"""One battery for every bijection of the table, then what each bijection promises on its own."""

import copy
import inspect
import math
import re
from dataclasses import dataclass
from itertools import pairwise, product

import pytest
import torch
from bijection_table import TABLE, VECTORS, alternating_mask
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Generator, Tensor

import flowlab.bijections
from flowlab.bijections import (
    ActNorm,
    AdditiveCoupling,
    AdditiveImageCoupling,
    AffineCoupling,
    AffineImageCoupling,
    AsImage,
    BatchNorm,
    Bijection,
    Chain,
    Channelwise,
    FactorOut,
    FullAffine,
    Inverse,
    InverseAutoregressive,
    InverseNotAvailable,
    InvertibleConvolution,
    Logit,
    LULinear,
    MaskedAutoregressive,
    Monotone,
    MonotoneSum,
    NotStackable,
    Permutation,
    PReLU,
    ScaleShift,
    ShapeError,
    SinhArcsinh,
    SplineCoupling,
    Squeeze,
    channel_mask,
    checkerboard_mask,
)
from flowlab.densities import Flow, StandardNormal

# --- the battery ------------------------------------------------------------------------------------------------------

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class Case:
    """One draw: which event shape of the row, stacked or not, batch shape, dtype, and the seed of all numbers."""

    event: int = 1
    stack: int | None = None
    batch: tuple[int, ...] = (7,)
    dtype: torch.dtype = torch.float64
    seed: int = 0


# Every combination is visited, and then Hypothesis draws more of them, with other stacks, batches and seeds.
SWEEP = [
    Case(*combination, seed=seed)
    for seed, combination in enumerate(
        product(range(len(VECTORS)), (None, 3), ((), (7,), (3, 4)), (torch.float32, torch.float64))
    )
] + [Case(stack=stack, batch=(0,)) for stack in (None, 3)]
DRAWS = st.builds(
    Case,
    event=st.integers(0, len(VECTORS) - 1),
    stack=st.none() | st.integers(1, 4),
    batch=st.lists(st.integers(0, 4), max_size=3).map(tuple),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    seed=st.integers(0, 2**31),
)


def battery(check):
    """Run ``check(name, case)`` for every row of the table and every case of the sweep, and for drawn ones."""
    check = given(case=DRAWS)(check)
    for case in SWEEP:
        check = example(case=case)(check)
    return pytest.mark.parametrize("name", TABLE)(check)


def draw(name: str, case: Case) -> tuple[Bijection, Tensor, Tensor | None]:
    """A bijection with random parameters, points, and a context or None, of the dtype of the case."""
    row = TABLE[name]
    event = row.events[case.event % len(row.events)]
    generator = Generator().manual_seed(case.seed)
    bijection = row.make(event, case.stack, generator)
    x, context = row.points(event, case.stack, case.batch, generator)
    return bijection.to(case.dtype), x.to(case.dtype), None if context is None else context.to(case.dtype)


def in_float64(bijection: Bijection, context: Tensor | None) -> tuple[Bijection, Tensor | None]:
    """The same map, its rounded weights included, in the arithmetic of the reference."""
    return copy.deepcopy(bijection).double(), None if context is None else context.double()


def jacobian(function, x: Tensor, event_dim: int) -> Tensor:
    """∂f/∂x by autograd, ``(*batch, n, n)`` with events flattened; samples do not depend on each other."""
    x = x.detach().requires_grad_()
    batch = x.shape[: x.ndim - event_dim]
    z = function(x)[0].flatten(len(batch))
    if not batch:
        z = z.flatten()
    rows = [torch.autograd.grad(z[..., i].sum(), x, retain_graph=True)[0] for i in range(z.shape[-1])]
    return torch.stack(rows, dim=len(batch)).reshape(*batch, len(rows), len(rows))


def strain(f: Bijection, x: Tensor, context: Tensor | None) -> Tensor:
    """How much condition numbers above 100, of map and log-det, excuse in float32, ``(*batch)``; in float64 nothing."""
    if x.dtype == torch.float64:
        return torch.ones(x.shape[: x.ndim - f.event_dim])
    exact, wide = in_float64(f, context)
    x = x.double().requires_grad_()
    J = jacobian(lambda x: exact(x, wide), x, f.event_dim)
    z, log_det = exact(x, wide)
    by_x = torch.autograd.grad(log_det.sum() + 0 * x.sum(), x)[0].flatten(J.ndim - 2)  # how steep the log-det is
    by_z = torch.linalg.solve(J.mT, by_x.unsqueeze(-1)).squeeze(-1)
    steep = [(by * (1 + at.flatten(J.ndim - 2).abs())).abs().sum(-1) for by, at in ((by_x, x), (by_z, z))]
    return (torch.stack((torch.linalg.cond(J), *steep)).amax(0).detach() / 100).clamp_min(1)


def per_sample(scale: Tensor, f: Bijection) -> Tensor:
    return scale.reshape(*scale.shape, *[1] * f.event_dim)


def assert_close(value: Tensor, expected: Tensor, dtype: torch.dtype, scale: Tensor | float = 1.0) -> None:
    assert value.shape == expected.shape
    error = (value.double() - expected.double()).abs() / (1 + expected.double().abs())
    worst = (error / scale).max().item() if error.numel() else 0.0
    assert worst <= TOLERANCE[dtype], f"off by {worst:.2g}, more than {TOLERANCE[dtype]:.0e}"


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


def midpoints(low: float, high: float, points: int) -> tuple[Tensor, Tensor]:
    """Middles and widths of cells; 0 is an edge between two of them, since the density of a PReLU jumps there."""
    ends = (low, 0.0, high) if low < 0 < high else (low, high)
    each = points // (len(ends) - 1)
    edges = [torch.linspace(a, b, each + 1, dtype=torch.float64) for a, b in pairwise(ends)]
    return torch.cat([(e[1:] + e[:-1]) / 2 for e in edges]), torch.cat([e.diff() for e in edges])


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


# --- base: Chain, Inverse, and the errors -----------------------------------------------------------------------------


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
    with pytest.raises(ShapeError, match=r"ScaleShift needs at least one dimension, but was given \(0,\)"):
        ScaleShift(0)
    with pytest.raises(NotStackable, match="FullAffine: a stack holds at least one map, but stack=0"):
        FullAffine(2, stack=0)
    for weightless in (lambda **k: Permutation([0], **k), Logit, lambda **k: Monotone(torch.sinh, **k)):
        with pytest.raises(TypeError, match="stack"):
            weightless(stack=2)


# --- elementwise ------------------------------------------------------------------------------------------------------


def test_prelu_counts_negative_coordinates():
    z, log_det = PReLU(4, 0.5)(torch.tensor([-2.0, 3.0, -4.0, 0.0]))
    torch.testing.assert_close(z, torch.tensor([-1.0, 3.0, -2.0, 0.0]))
    assert log_det.item() == pytest.approx(2 * math.log(0.5))


@pytest.mark.parametrize("slope", (0.0, -0.5, math.nan))
def test_prelu_that_folds_is_refused(slope):
    with pytest.raises(ValueError, match=f"slope above 0, but {slope}"):
        PReLU(2, slope)


def test_logit_refuses_what_lies_outside():
    for bad in (-0.1, 1.5):
        with pytest.raises(ValueError, match=rf"in \[0, 1\], but got values from .*{bad}"):
            Logit()(torch.tensor([[0.5, bad]]))
    for bad in (0.5, -0.01):
        with pytest.raises(ValueError, match=rf"λ in \[0, 0.5\), but got {bad}"):
            Logit(bad)


def test_logit_at_the_ends():
    ends = torch.tensor([[0.0], [1.0]])
    assert Logit()(ends)[0].flatten().tolist() == [-math.inf, math.inf]
    z, log_det = Logit(0.05)(ends)
    torch.testing.assert_close(z.flatten(), torch.tensor([-1.0, 1.0]) * math.log(19))
    torch.testing.assert_close(log_det, torch.full((2,), math.log(0.9 / (0.05 * 0.95))))
    x, log_det = Logit().inverse(torch.tensor([[-80.0], [80.0]]))
    assert x.flatten().tolist() == pytest.approx([0, 1]) and log_det.tolist() == pytest.approx([-80, -80])


def test_sinh_arcsinh_is_jones_and_pewseys():
    f = SinhArcsinh(1)
    f.skew.data.fill_(0.4)
    f.log_tail.data.fill_(math.log(0.7))
    assert f(torch.tensor([2.0]))[0].item() == pytest.approx(math.sinh(0.7 * math.asinh(2) - 0.4))
    f.log_tail.data.fill_(math.log(2))  # cosh(2 arcsinh 1e25) is more than float32 holds, its logarithm is not
    assert torch.isfinite(f(torch.tensor([[1e25], [-1e25]]))[1]).all()


def test_monotone_square_root_has_the_textbook_log_det():
    f = Monotone(torch.sqrt, torch.square)
    x = torch.tensor([[0.25], [4.0]])
    torch.testing.assert_close(f(x)[1], -(2 * x.sqrt()).log().sum(-1))
    numeric = Monotone(torch.sqrt, interval=(0, 100))
    torch.testing.assert_close(numeric.inverse(x)[0], x**2)
    torch.testing.assert_close(numeric.inverse(x)[1], (2 * x).log().sum(-1))
    assert numeric.inverse_is_numeric and not f.inverse_is_numeric


@pytest.mark.parametrize("sign", (1, -1))
def test_monotone_refuses_values_that_are_not_reached(sign):
    f = Monotone(lambda x: sign * torch.tanh(x), interval=(-3, 3))
    assert f.inverse(torch.tensor([[0.5]]))[0].item() == pytest.approx(sign * math.atanh(0.5))
    for z in (1.5, -1.5, math.tanh(3) + 1e-3):
        with pytest.raises(ValueError, match=r"not reached by the function on \(-3, 3\)"):
            f.inverse(torch.tensor([[0.5], [z]]))


def test_monotone_refuses_an_interval_that_the_function_cannot_take():
    for function in (torch.sqrt, lambda x: 0 * x):  # NaN below zero; not monotone at all
        with pytest.raises(ValueError, match="not reached by the function"):
            Monotone(function, interval=(-1, 9)).inverse(torch.tensor([[2.0]]))


def test_monotone_trains_a_module_through_its_numeric_inverse():
    class Cubic(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

        def forward(self, x):
            return x + self.a * x**3

    f = Inverse(Monotone(Cubic(), interval=(-20, 20)))
    z = torch.tensor([[0.3], [-2.0]], dtype=torch.float64)

    def apply(a):
        return torch.func.functional_call(f, {"bijection.function.a": a}, (z,))

    assert torch.autograd.gradcheck(apply, (torch.tensor(0.7, dtype=torch.float64, requires_grad=True),))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_monotone_without_gradients_gives_plain_numbers(dtype):
    with torch.no_grad():
        z, log_det = Monotone(torch.sinh)(torch.ones(3, 1, dtype=dtype, requires_grad=True))
    assert not z.requires_grad and not log_det.requires_grad


# --- linear -----------------------------------------------------------------------------------------------------------


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


# --- normalize --------------------------------------------------------------------------------------------------------


def spread_points(*shape: int) -> Tensor:
    return 3 + 5 * torch.randn(*shape, generator=Generator().manual_seed(0))


def test_actnorm_starts_from_its_first_batch_once():
    f, x = ActNorm(3), spread_points(50, 4, 3)
    assert torch.equal(f.eval()(x)[0], x) and not f.initialized, "evaluation does not start it"
    z, log_det = f.train()(x)
    torch.testing.assert_close(z.mean((0, 1)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std((0, 1), correction=0), torch.ones(3))
    torch.testing.assert_close(log_det, -x.std((0, 1), correction=0).log().sum().expand(50, 4))
    before = copy.deepcopy(f.state_dict())
    f(7 * x)
    assert all(torch.equal(before[entry], value) for entry, value in f.state_dict().items())


def test_actnorm_starts_each_of_a_stack_from_its_own_batch():
    x = spread_points(3, 40, 2) * torch.tensor([1.0, 2.0, 5.0]).reshape(3, 1, 1)
    z, log_det = ActNorm(2, stack=3)(x)
    torch.testing.assert_close(z.std(1, correction=0), torch.ones(3, 2))
    assert log_det[2, 0] < log_det[0, 0]


def test_actnorm_reloaded_does_not_start_again():
    f, x = ActNorm(3), spread_points(50, 3)
    f(x)
    other = ActNorm(3)
    other.load_state_dict(f.state_dict())
    assert torch.equal(other.train()(2 * x)[0], f.eval()(2 * x)[0])
    assert "initialized" in dict(f.named_buffers())


@pytest.mark.parametrize("layer", (ActNorm, BatchNorm))
@pytest.mark.parametrize("shape, stack", (((1, 3), None), ((3,), None), ((4, 1, 3), 4), ((0, 3), None)))
def test_a_batch_of_one_has_no_spread(layer, shape, stack):
    f = layer(3, stack=stack)
    with pytest.raises(ValueError, match=rf"{layer.__name__}.* at least two samples .* but got [01]\."):
        f(torch.ones(shape))
    assert torch.isfinite(f.eval()(torch.ones(shape))[0]).all()


def test_actnorm_takes_a_coordinate_that_never_varies_and_one_that_hardly_does():
    x = torch.stack((torch.full((9,), 4.0), 1e-9 * torch.arange(9.0)), dim=-1).double()
    z, log_det = ActNorm(2).double()(x)
    assert (z[:, 0] == 0).all(), "never: keeps its scale"
    torch.testing.assert_close(z[:, 1].std(correction=0), z.new_tensor(1.0))
    torch.testing.assert_close(log_det, -x[:, 1].std(correction=0).log().expand(9))


def test_batchnorm_in_training_is_the_map_with_statistics_held_fixed():
    f, x = BatchNorm(3).double(), spread_points(20, 3).double()
    z, log_det = f(x)
    mean, variance = x.mean(0), x.var(0, correction=0)
    torch.testing.assert_close(z, (x - mean) / (variance + 1e-5).sqrt())
    fixed = jacobian(lambda x: ((x - mean) / (variance + 1e-5).sqrt(), None), x, 1)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(fixed).logabsdet)
    back, inverse_log_det = f.inverse(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_log_det, -log_det)
    f(10 * x + 1)  # other statistics: now these were last applied
    torch.testing.assert_close(f.inverse(f(x)[0])[0], x)


def test_batchnorm_in_training_passes_gradients_through_its_statistics():
    x = spread_points(20, 3).double().requires_grad_()
    z, _ = BatchNorm(3).double()(x)
    (gradient,) = torch.autograd.grad(z[:, 0].sum(), x)
    assert gradient.abs().max() < 1e-12  # a shift of all samples alike changes nothing


def test_batchnorm_averages_and_evaluation_uses_the_averages():
    f, x = BatchNorm(2, momentum=0.25), spread_points(30, 2)
    f(x)
    torch.testing.assert_close(f.running_mean, 0.25 * x.mean(0))
    torch.testing.assert_close(f.running_variance, 0.75 + 0.25 * x.var(0, correction=0))
    f.eval()
    before = copy.deepcopy(f.state_dict())
    # The inverse belongs to the same density as forward does, whichever of them is called first.
    x_back, inverse_log_det = f.inverse(torch.zeros(5, 2))
    torch.testing.assert_close(x_back, f.running_mean.expand(5, 2))
    torch.testing.assert_close(f(x_back)[1], -inverse_log_det)
    assert all(torch.equal(before[entry], value) for entry, value in f.state_dict().items())


def test_batchnorm_stack_keeps_statistics_apart():
    f = BatchNorm(2, stack=2)
    x = torch.stack((spread_points(30, 2), 100 * spread_points(30, 2)))
    torch.testing.assert_close(f(x)[0].mean(1), torch.zeros(2, 2), rtol=0, atol=1e-5)
    assert f.running_variance[1].min() > 100 * f.running_variance[0].max()


# --- coupling ---------------------------------------------------------------------------------------------------------

COUPLINGS = (AdditiveCoupling, AffineCoupling, SplineCoupling)
MASKS = [mask for mask in product((True, False), repeat=4) if any(mask) and not all(mask)]


def randomized(f: Bijection, spread: float = 1.0) -> Bijection:
    generator = Generator().manual_seed(8)
    for p in f.parameters():
        p.data = spread * torch.randn(p.shape, generator=generator)
    return f


@pytest.mark.parametrize("law", COUPLINGS)
def test_any_mask_passes_and_moves_what_it_says(law):
    for mask in MASKS:
        f = randomized(law(mask, (6,), activation="tanh")).double()
        passes = torch.tensor(mask)
        x = torch.randn(5, 4, generator=Generator().manual_seed(1), dtype=torch.float64)
        z, _ = f(x)
        assert torch.equal(z[:, passes], x[:, passes])
        assert (z[:, ~passes] != x[:, ~passes]).all()
        J = jacobian(f, x, 1)
        moved = J[:, ~passes][:, :, ~passes]
        assert torch.equal(J[:, passes], torch.eye(4, dtype=torch.float64)[passes].expand(5, -1, -1))
        assert torch.equal(moved, torch.diag_embed(moved.diagonal(dim1=-2, dim2=-1))), "moved ones ignore each other"
        assert (J[:, ~passes][:, :, passes] != 0).any(-1).any(0).all(), "every moved one listens to those that pass"


@pytest.mark.parametrize("law", COUPLINGS)
@pytest.mark.parametrize("mask", ([True, True], [False, False], [True], [False], [], [[True, False]], True))
def test_mask_that_splits_nothing_is_refused(law, mask):
    with pytest.raises(
        ShapeError, match=rf"{law.__name__} expected a mask \(D,\) .* D ≥ 2, but got {re.escape(str(mask))}"
    ):
        law(mask)


def test_alternating_mask_splits_even_from_odd():
    assert alternating_mask(5).tolist() == [True, False, True, False, True]
    assert alternating_mask(4, odd=True).tolist() == [False, True, False, True]


@pytest.mark.parametrize("law", COUPLINGS)
@pytest.mark.parametrize("masks", (([True, False], [False, True]), ([True, True, False], [True, False, True])))
def test_weights_bring_their_mask_along(law, masks):
    f, other = randomized(law(masks[0], (5,))), law(masks[1], (5,))
    other.load_state_dict(f.state_dict())
    x = torch.randn(6, len(masks[0]), generator=Generator().manual_seed(2))
    for one, same in ((f, other), (f.inverse, copy.deepcopy(other).inverse)):
        assert torch.equal(one(x)[0], same(x)[0])


@pytest.mark.parametrize("bound", (2.0, 0.5))
def test_affine_log_scale_is_bounded_and_reaches_its_bound(bound):
    f = randomized(AffineCoupling([True, False], (8,), log_scale_bound=bound), 100.0)
    x = torch.randn(500, 2, generator=Generator().manual_seed(3))
    for value, log_det in (f(x), f.inverse(x)):
        assert torch.isfinite(value).all()
        assert 0.99 * bound < log_det.abs().max() <= bound * (1 + 1e-6)


def test_additive_keeps_volume_exactly():
    f = randomized(AdditiveCoupling([True, False, True]), 2.0)
    assert (f(torch.randn(9, 3))[1] == 0).all() and (f.inverse(torch.randn(9, 3))[1] == 0).all()


def wild_spline(bins: int = 6, bound: float = 3.0, spread: float = 2.0) -> SplineCoupling:
    return randomized(SplineCoupling([True, False], (4,), bins=bins, bound=bound), spread).double()


def with_first(a: float, b: Tensor) -> Tensor:
    return torch.stack((torch.full_like(b, a), b), dim=-1)


def test_spline_is_the_identity_outside():
    f = wild_spline()
    outside = torch.tensor([-1e6, -50.0, -3.0001, -3.0, 3.0, 3.0001, 50.0, 1e6], dtype=torch.float64)
    for apply in (f, f.inverse):
        value, log_det = apply(with_first(0.3, outside))
        assert torch.equal(value[:, 1], outside) and (log_det == 0).all()
        assert (apply(with_first(0.3, outside[3:5] / 2))[1] != 0).all()


def test_spline_goes_through_its_knots_smoothly():
    f = wild_spline()
    a = torch.tensor([[0.3]], dtype=torch.float64)
    X, Y, D = (table[0, 0] for table in f._knots(a, None))
    assert X[0] == Y[0] == -3 and X[-1] == Y[-1] == 3 and D[0] == D[-1] == 1 and len(X) == 7
    step = 1e-9
    for side in (-step, 0.0, step):
        z, log_slope = f(with_first(0.3, X + side))
        torch.testing.assert_close(z[:, 1], Y, rtol=0, atol=1e-7)
        torch.testing.assert_close(log_slope, D.log(), rtol=0, atol=1e-5)
        x, log_slope = f.inverse(with_first(0.3, Y + side))
        torch.testing.assert_close(x[:, 1], X, rtol=0, atol=1e-5)
        torch.testing.assert_close(log_slope, -D.log(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("bins, spread", ((2, 1.0), (8, 5.0), (100, 30.0)))
def test_spline_rises_however_wild_its_weights(bins, spread):
    f = wild_spline(bins, spread=spread)
    x = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    z, log_slope = f(with_first(0.7, x))
    assert (z[:, 1].diff() > 0).all() and torch.isfinite(log_slope).all()
    back, _ = f.inverse(z)
    torch.testing.assert_close(back[:, 1], x, rtol=0, atol=1e-6)


def test_spline_inverse_keeps_its_digits_where_bins_bend_hard():
    """A bin that is flat on one side and steep on the other: one form of the quadratic's root cancels there."""
    f = wild_spline(spread=5.0).float()
    z = with_first(0.7, torch.linspace(-2.99, 2.99, 5001)).float()
    exact = copy.deepcopy(f).double()
    x, expected = f.inverse(z)[0][:, 1].double(), exact.inverse(z.double())[0][:, 1]
    slope = exact.inverse(z.double())[1].exp()  # dx/dz: how much rounding of z and of the knots is magnified
    error = ((x - expected).abs() / (1 + slope)).max().item()
    assert error < 2e-6


def test_spline_settings_out_of_range_are_refused():
    for settings in ({"bins": 1}, {"bins": 501}, {"bound": 0.0}, {"bound": -1.0}):
        with pytest.raises(ValueError, match=r"2 to 500 bins and a bound above 0, but got"):
            SplineCoupling([True, False], **settings)


# --- autoregressive ---------------------------------------------------------------------------------------------------

ORDER = [2, 0, 3, 1]


def autoregressive(law=MaskedAutoregressive, D: int = 4, order=ORDER, spread: float = 1.0, **settings) -> Bijection:
    generator = Generator().manual_seed(8)
    f = law(D, (12, 9), order=order, activation="tanh", **settings).double()
    for p in f.parameters():
        p.data = spread * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return f


def normal_points(n: int, D: int, seed: int = 1) -> Tensor:
    return torch.randn(n, D, generator=Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("law", (MaskedAutoregressive, InverseAutoregressive))
def test_autoregressive_jacobian_is_triangular_in_the_order(law):
    f = autoregressive(law)
    for apply in (f, f.inverse):
        J = jacobian(apply, normal_points(6, 4), 1)[:, ORDER][:, :, ORDER]
        assert (J.triu(1) == 0).all(), "no coordinate listens to one that comes later"
        assert (J.diagonal(dim1=-2, dim2=-1) > 0).all()
        assert ((J != 0).any(0) == torch.ones(4, 4).tril().bool()).all(), "and each listens to all before it"


def test_maf_is_its_equation_one_coordinate_at_a_time():
    f, z = autoregressive(), normal_points(5, 4)
    x, total = torch.full_like(z, 7.0), 0.0  # what is not known yet may be anything
    for i in ORDER:
        s, t = f.conditioner(x).unbind(-2)
        s = 2 * torch.tanh(s[:, i])
        x[:, i], total = (z[:, i] - t[:, i]) / s.exp(), total + s
    assert_close(f.inverse(z)[0], x.detach(), torch.float64)
    assert_close(f(x)[0], z, torch.float64)
    assert_close(f(x)[1], total, torch.float64)
    assert_close(f.inverse(z)[1], -total, torch.float64)


@pytest.mark.parametrize("context_features", (0, 3))
def test_iaf_is_maf_with_the_arrow_flipped(context_features):
    iaf = autoregressive(InverseAutoregressive, context_features=context_features)
    maf = MaskedAutoregressive(4, (12, 9), activation="tanh", context_features=context_features).double()
    maf.load_state_dict({name.removeprefix("bijection."): p for name, p in iaf.state_dict().items()})
    z, c = normal_points(5, 4), normal_points(5, 3) if context_features else None
    s, t = maf.conditioner(z, c).unbind(-2)
    s = 2 * torch.tanh(s)
    x, log_det = iaf.inverse(z, c)
    assert_close(x, z * s.exp() + t, torch.float64)  # Kingma's equation: generation in one pass
    assert_close(log_det, s.sum(-1), torch.float64)
    for (value, total), (same, its_total) in (
        (iaf.inverse(z, c), maf(z, c)),
        (iaf(x, c), maf.inverse(x, c)),
        (iaf(x, c), (z, -log_det)),
    ):
        assert_close(value, same, torch.float64)
        assert_close(total, its_total, torch.float64)
    assert not iaf.inverse_is_numeric and not maf.inverse_is_numeric


@pytest.mark.parametrize("law, passes", ((MaskedAutoregressive, (1, 4)), (InverseAutoregressive, (4, 1))))
def test_one_direction_takes_one_pass_and_the_other_one_for_each_coordinate(law, passes):
    f, ran = autoregressive(law), []
    network = f.conditioner if law is MaskedAutoregressive else f.bijection.conditioner
    network.register_forward_hook(lambda *_: ran.append(1))
    for apply, expected in zip((f, f.inverse), passes, strict=True):
        ran.clear()
        apply(normal_points(3, 4))
        assert len(ran) == expected


def test_autoregressive_inverse_is_exact_where_a_wrong_guess_would_overflow():
    """t_i = x_1 + ... + x_{i−1}, so x_i = z_i − z_{i−1}; wrong guesses for x_j grow like binomials, to 1e58."""
    D = 200
    f = MaskedAutoregressive(D, ())
    f.conditioner.last.weight.data[:, D:] = 1
    z = normal_points(5, D).float()
    torch.testing.assert_close(f.inverse(z)[0], z.diff(prepend=torch.zeros(5, 1)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("bound", (2.0, 0.5))
def test_autoregressive_log_scale_is_bounded_and_reaches_its_bound(bound):
    f = autoregressive(D=2, order=None, spread=100.0, log_scale_bound=bound)
    for value, log_det in (f(normal_points(500, 2)), f.inverse(normal_points(500, 2))):
        assert torch.isfinite(value).all()
        assert 1.9 * bound < log_det.abs().max() <= 2 * bound * (1 + 1e-6)


def test_autoregressive_settings_reach_the_network():
    f = MaskedAutoregressive(9, (50,), random_degrees=True, activation="silu", generator=Generator().manual_seed(0))
    degrees = f.conditioner.degrees[9:]
    assert (degrees.diff() < 0).any() and f.conditioner.activation is torch.nn.functional.silu
    with pytest.raises(ValueError, match=r"an order of 0 to 1, but got \[1, 1\]"):
        InverseAutoregressive(2, order=[1, 1])


# --- images -----------------------------------------------------------------------------------------------------------


def image(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def test_squeeze_makes_channels_of_blocks():
    x = torch.arange(16.0).reshape(1, 4, 4)
    z, log_det = Squeeze()(x)
    assert z.tolist() == [[[0, 2], [8, 10]], [[1, 3], [9, 11]], [[4, 6], [12, 14]], [[5, 7], [13, 15]]]
    assert log_det == 0
    x = image(2, 5, 3, 6, 4)
    assert torch.equal(Squeeze()(x)[0], torch.nn.functional.pixel_unshuffle(x, 2))
    assert torch.equal(Squeeze().inverse(Squeeze()(x)[0])[0], x)


@pytest.mark.parametrize("size", ((3, 4), (4, 3), (1, 1)))
def test_squeeze_refuses_odd_sizes_in_words(size):
    with pytest.raises(
        ShapeError, match=rf"even height and width, but got \(9, 2, {size[0]}, {size[1]}\): pad or crop"
    ):
        Squeeze()(image(9, 2, *size))


def test_squeeze_undoes_only_what_it_can_have_made():
    with pytest.raises(ShapeError, match=r"channels in fours, but got \(9, 6, 2, 2\)"):
        Squeeze().inverse(image(9, 6, 2, 2))


def test_invertible_convolution_is_torchs_convolution():
    f, x = randomized(InvertibleConvolution(3), 0.5).double(), image(5, 3, 4, 2)
    W = f.bijection(torch.eye(3, dtype=torch.float64))[0].mT
    z, log_det = f(x)
    torch.testing.assert_close(z, torch.nn.functional.conv2d(x, W[:, :, None, None]))
    torch.testing.assert_close(log_det, (4 * 2 * torch.linalg.slogdet(W).logabsdet).expand(5))
    rotation = InvertibleConvolution(6, generator=Generator().manual_seed(0)).bijection(torch.eye(6))[0]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(6), rtol=0, atol=1e-5)
    same = InvertibleConvolution(3, rotate=False)
    assert torch.equal(same(x.float())[0], x.float())


def test_actnorm_for_images_starts_each_channel_from_all_pixels():
    x = 3 + image(20, 2, 4, 5) * torch.tensor([1.0, 7.0])[:, None, None]
    f = Channelwise(ActNorm(2)).double()
    z, log_det = f(x)
    assert f.bijection.log_scale.shape == (2,), "one scale a channel"
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(log_det, (-20 * x.std((0, 2, 3), correction=0).log().sum()).expand(20))


@pytest.mark.parametrize(
    "f",
    (Channelwise(ActNorm(3)), InvertibleConvolution(3), FactorOut(3), AffineImageCoupling(channel_mask(3), 2)),
    ids=lambda f: type(f),
)
def test_other_channels_are_refused_in_words(f):
    for apply in (f, f.inverse):
        with pytest.raises(
            ShapeError, match=rf"{type(f).__name__} expected shape \(..., 3, H, W\), but got \(7, 2, 4, 4\)"
        ):
            apply(torch.zeros(7, 2, 4, 4))


IMAGE_COUPLINGS = (AdditiveImageCoupling, AffineImageCoupling)
IMAGE_MASKS = {
    "checkerboard": checkerboard_mask(2, 3, 4),
    "odd checkerboard": checkerboard_mask(2, 3, 4, odd=True),
    "channels": channel_mask(2),
    "odd channels": channel_mask(2, odd=True),
    "a hole": torch.arange(24).reshape(2, 3, 4) != 17,
}


@pytest.mark.parametrize("C, H, W", ((1, 4, 4), (2, 3, 5), (3, 1, 2)))
def test_masks_partition_the_pixels(C, H, W):
    even, odd = checkerboard_mask(C, H, W), checkerboard_mask(C, H, W, odd=True)
    assert even.shape == (C, H, W) and torch.equal(even, ~odd) and even[:, 0, 0].all()
    assert (even[:, 1:] != even[:, :-1]).all() and (even[:, :, 1:] != even[:, :, :-1]).all(), "neighbors take turns"
    first, second = channel_mask(2 * C + 1), channel_mask(2 * C + 1, odd=True)
    assert first.shape == (2 * C + 1, 1, 1) and torch.equal(first, ~second)
    assert first.flatten().tolist() == [True] * C + [False] * (C + 1)


def image_coupling(law, mask: Tensor, **settings) -> Bijection:
    return randomized(law(mask, 3, blocks=1, **settings), 0.3).double()


@pytest.mark.parametrize("mask", IMAGE_MASKS.values(), ids=IMAGE_MASKS)
@pytest.mark.parametrize("law", IMAGE_COUPLINGS)
def test_image_coupling_is_its_equation(law, mask):
    """RealNVP, eq. 9, and what it says of the Jacobian: what passes passes, what moves moves by itself."""
    f, x = image_coupling(law, mask), image(5, 2, 3, 4)
    z, log_det = f(x)
    b = mask.double()
    theta = f.network(b * x)
    s, t = (0 * theta, theta) if law is AdditiveImageCoupling else theta.chunk(2, dim=1)
    s = 2 * torch.tanh(s)
    torch.testing.assert_close(z, b * x + (1 - b) * (x * s.exp() + t))
    torch.testing.assert_close(log_det, ((1 - b) * s).sum((1, 2, 3)))
    passes = mask.expand(2, 3, 4)
    assert torch.equal(z[:, passes], x[:, passes]) and (z != x)[:, ~passes].all()
    J, passes = jacobian(f, x, 3), passes.flatten()
    moved = J[:, ~passes][:, :, ~passes]
    assert torch.equal(moved, torch.diag_embed(moved.diagonal(dim1=1, dim2=2)))
    assert torch.equal(J[:, passes], torch.eye(24).double()[passes].expand(5, -1, -1))
    assert (J[:, ~passes][:, :, passes] != 0).any()


def test_image_couplings_in_a_row_are_each_of_them():
    x = image(5, 1, 3, 3)
    each = [image_coupling(law, checkerboard_mask(1, 3, 3, odd=odd)) for odd in (0, 1) for law in IMAGE_COUPLINGS]
    z, log_det = Chain(each)(x)
    expected, total = x, 0
    for f in each:
        expected, part = f(expected)
        total = total + part
    assert torch.equal(z, expected) and torch.equal(log_det, total)


def test_channel_mask_takes_images_of_any_size_and_checkerboard_of_its_own():
    f = image_coupling(AffineImageCoupling, channel_mask(2))
    for x in (image(4, 2, 5, 3), image(4, 2, 1, 1)):
        torch.testing.assert_close(f.inverse(f(x)[0])[0], x)
    f = image_coupling(AffineImageCoupling, checkerboard_mask(2, 3, 4))
    for size in ((1, 1), (4, 3), (3, 5)):
        for apply in (f, f.inverse):
            with pytest.raises(ShapeError) as error:
                apply(image(7, 2, *size))
            assert "AffineImageCoupling expected shape (..., 2, 3, 4), but got (7, 2, " in str(error.value)


@pytest.mark.parametrize("law", IMAGE_COUPLINGS)
@pytest.mark.parametrize(
    "mask, came",
    (
        (torch.ones(2, 1, 1), r"\(2, 1, 1\) that passes 2 of 2"),
        (torch.zeros(1, 3, 3), r"\(1, 3, 3\) that passes 0 of 9"),
        (torch.tensor([True, False]), r"\(2,\) that passes 1 of 2"),
        (checkerboard_mask(1, 1, 1), "passes 1 of 1"),
    ),
)
def test_image_mask_that_splits_nothing_is_refused(law, mask, came):
    with pytest.raises(ShapeError, match=rf"{law.__name__} expected a mask \(C, H, W\) or \(C, 1, 1\).*{came}"):
        law(mask)


@pytest.mark.parametrize("law", IMAGE_COUPLINGS)
def test_image_weights_bring_their_mask_along(law):
    f, other = (image_coupling(law, checkerboard_mask(1, 3, 3, odd=odd)) for odd in (False, True))
    x = image(4, 1, 3, 3)
    assert not torch.equal(f(x)[0], other(x)[0])
    other.load_state_dict(f.state_dict())
    assert torch.equal(f(x)[0], other(x)[0])


@pytest.mark.parametrize("bound", (2.0, 0.5))
def test_image_log_scale_is_bounded_and_reaches_its_bound(bound):
    f = randomized(AffineImageCoupling(channel_mask(2), 4, log_scale_bound=bound), 100.0).double()
    x = image(500, 2, 1, 1)
    for _, log_det in (f(x), f.inverse(x)):
        assert 0.99 * bound < log_det.abs().max() <= bound * (1 + 1e-6)


def two_scales(stack: int | None = None) -> FactorOut:
    rest = Chain([Squeeze(), InvertibleConvolution(8, stack=stack), FactorOut(8, stack=stack), Inverse(Squeeze())])
    return randomized(FactorOut(4, rest, stack=stack), 0.2).double()


def test_factor_out_is_the_unsplit_computation():
    """The same numbers by the chain rule of densities: log p(x) = log p(z_fine | x_a) + log p(x_a), scale by scale."""
    f, x = two_scales(), image(6, 4, 4, 4)

    def half(layer: FactorOut, h: Tensor) -> tuple[Tensor, Tensor]:
        a, b = h.chunk(2, dim=1)
        weight, bias = layer.conditioner.parameters()
        s, mean = torch.nn.functional.conv2d(a, weight, bias, padding=1).chunk(2, dim=1)
        fine = torch.distributions.Normal(mean, (2 * torch.tanh(s)).exp())
        return a, fine.log_prob(b).sum((1, 2, 3))

    a, first = half(f, x)
    h, log_det = f.rest[1](torch.nn.functional.pixel_unshuffle(a, 2))
    a, second = half(f.rest[2], h)
    last = torch.distributions.Normal(0, 1).log_prob(a).sum((1, 2, 3))
    flow = Flow(AsImage((4, 4, 4), f), StandardNormal(64)).double()
    torch.testing.assert_close(flow.log_prob(x.flatten(1)), first + log_det + second + last)
    x = flow.sample(5, Generator().manual_seed(0))
    assert x.shape == (5, 64) and torch.isfinite(flow.log_prob(x)).all()


def test_factored_out_half_listens_to_the_other_and_not_the_reverse():
    f, x = randomized(FactorOut(3), 0.5).double(), image(4, 3, 3, 3)
    J = jacobian(f, x, 3).reshape(4, 3, 9, 3, 9)
    assert torch.equal(J[:, 0, :, 0], torch.eye(9, dtype=torch.float64).expand(4, 9, 9)), "one of three goes on"
    assert (J[:, 0, :, 1:] == 0).all()
    for b in (1, 2):
        near = (J[:, b, :, 0] != 0).any(0)
        assert near[4].all() and not near[0, 8], "a pixel listens to its neighbors"
        assert (J[:, b, :, 3 - b] == 0).all(), "and the channels that leave ignore each other"


def test_factor_out_starts_at_the_identity_and_its_log_scale_is_bounded():
    x = image(500, 2, 1, 1).float()
    assert torch.equal(FactorOut(2)(x)[0], x)
    f = randomized(FactorOut(2, log_scale_bound=0.5), 100.0)
    for _, log_det in (f(x), f.inverse(x)):
        assert 0.99 * 0.5 < log_det.abs().max() <= 0.5 * (1 + 1e-6)


def test_what_cannot_be_factored_out_is_refused_in_words():
    with pytest.raises(ShapeError, match="two channels or more, but got 1: squeeze first"):
        FactorOut(1)
    with pytest.raises(NotStackable, match="stack=2 expected the rest to be one too, but got 3"):
        FactorOut(4, InvertibleConvolution(2, stack=3), stack=2)
    with pytest.raises(NotStackable, match="stack=None"):
        FactorOut(4, InvertibleConvolution(2, stack=3))
    for f in (FactorOut(8, Squeeze()), AsImage((8, 4, 4), Squeeze())):
        x = torch.zeros(5, 8, 4, 4) if isinstance(f, FactorOut) else torch.zeros(5, 128)
        for apply in (f, f.inverse):
            with pytest.raises(ShapeError, match=rf"{type(f).__name__} expected a map that keeps .*Inverse\(Squeeze"):
                apply(x)


VECTOR_AND_IMAGE = "maps of vectors or maps of images, but got both"


@pytest.mark.parametrize(
    "build, words",
    (
        (lambda: Chain([Logit(), InvertibleConvolution(4)]), VECTOR_AND_IMAGE),
        (lambda: Chain([InvertibleConvolution(4), Chain([])]), VECTOR_AND_IMAGE),
        (lambda: FactorOut(4, Chain([])), "FactorOut expected a map of images, but got Chain"),
        (lambda: FactorOut(4, ScaleShift(4)), "FactorOut expected a map of images, but got ScaleShift"),
        (lambda: AsImage((4, 4, 4), ScaleShift(4)), "AsImage expected a map of images, but got ScaleShift"),
        (lambda: AsImage((4, 4), Squeeze()), r"AsImage expected a shape \(C, H, W\), but got \(4, 4\)"),
        (lambda: Channelwise(Logit()), "Channelwise expected a map of vectors of a known length, .* but got Logit"),
        (lambda: Channelwise(Squeeze()), "Channelwise expected a map of vectors .* but got Squeeze"),
        (lambda: Flow(InvertibleConvolution(4), StandardNormal(4)), r"of vectors, .* put it in AsImage\(\(C, H, W\)"),
    ),
)
def test_a_map_of_vectors_is_none_of_images(build, words):
    """On images of 4×4×4 each of these once gave a log |det| for every row of pixels, or every pixel, and no error."""
    with pytest.raises(ShapeError, match=words):
        build()


def test_as_image_reads_rows_of_pixels():
    f = AsImage((1, 2, 2), Chain([Squeeze(), Channelwise(Permutation([3, 2, 1, 0])), Inverse(Squeeze())]))
    assert f(torch.tensor([1.0, 2.0, 3.0, 4.0]))[0].tolist() == [4, 3, 2, 1]
    assert f.event_shape == (4,) and f.event_dim == 1


@pytest.mark.parametrize("wrap", (Channelwise, lambda b: AsImage((2, 1, 1), Channelwise(b))))
def test_numeric_inverses_show_through_images(wrap):
    assert wrap(MonotoneSum(2)).inverse_is_numeric and not wrap(ScaleShift(2)).inverse_is_numeric
    assert FactorOut(4, Channelwise(MonotoneSum(2))).inverse_is_numeric


def couplings_in_a_row() -> Chain:
    """Two masks in turn, one mask twice, another split, and a map between that is no coupling."""
    g, mask = Generator().manual_seed(0), torch.tensor([True, False, False, True, False])
    masks = (mask, ~mask, ~mask, mask, alternating_mask(5), mask)
    laws = (AffineCoupling, AdditiveCoupling, SplineCoupling, AffineCoupling, AffineCoupling, AffineCoupling)
    maps = [law(b, (8,), generator=g) for law, b in zip(laws, masks, strict=True)]
    return moved(Chain([*maps[:4], ScaleShift(5), *maps[4:]]))


def moved(f: Bijection) -> Bijection:
    """Away from the identity, and in float64."""
    g = Generator().manual_seed(2)
    with torch.no_grad():
        for p in f.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g))
    return f.double()


def test_couplings_in_a_row_are_each_of_them():
    """A chain splits and joins once for neighbors of the same two parts; the numbers are those of one at a time."""
    chain, x = couplings_in_a_row(), normal_points(7, 5)
    z, total = x, 0.0
    for f in chain:
        z, log_det = f(z)
        total = total + log_det
    torch.testing.assert_close(chain(x), (z, total))
    back, minus = chain.inverse(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(minus, -total)


def test_a_coupling_that_someone_changed_runs_as_changed():
    """A subclass with its own forward, and a hook that waits for a result, are not passed by in a chain."""

    class WrongSign(AffineCoupling):
        def forward(self, x, context=None):
            z, log_det = super().forward(x, context)
            return z, -log_det

    masks = (alternating_mask(2), alternating_mask(2, odd=True), alternating_mask(2))
    x = normal_points(6, 2)
    right = moved(Chain([AffineCoupling(b, (8,)) for b in masks]))
    wrong = Chain([WrongSign(b, (8,)) for b in masks]).double()
    wrong.load_state_dict(right.state_dict())
    torch.testing.assert_close(wrong(x), (right(x)[0], -right(x)[1]))
    seen = []
    right[1].register_forward_hook(lambda module, given, result: seen.append(result[0]))
    right(x)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], right[:2](x)[0])
