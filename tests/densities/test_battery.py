"""One battery for every density of the table."""

import copy
import inspect
import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from densities.table import TABLE
from flowlab import datasets, densities
from flowlab.densities import Density, mixtures

ABSTRACT = {"Density", "DensityModule", "Factorized", "Bound", "Mixture", "Toy"}
MODULES = [name for name, row in TABLE.items() if isinstance(row.make(), nn.Module)]
STACKED = [name for name, row in TABLE.items() if row.takes("stack")]
REAL = [name for name, row in TABLE.items() if row.make().domain == "real"]
WHOLE = [name for name in TABLE if name not in REAL]
BOUNDS = [name for name, row in TABLE.items() if row.exact]
CONDITIONAL = [name for name, row in TABLE.items() if row.make().context_features]


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def contexts(density: Density, *batch: int, dtype: torch.dtype = torch.float64) -> Tensor | None:
    """Contexts ``(K, *batch, E)``, or None for a density without."""
    if not density.context_features:
        return None
    lead = () if density.stack is None else (density.stack,)
    return torch.randn(*lead, *batch, density.context_features, generator=generator(9), dtype=torch.float64).to(dtype)


def points(name: str, density: Density, n: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor | None]:
    """n samples and a context for each, or None."""
    c = contexts(density, n, dtype=dtype)
    x = density.sample(1, generator(5), c).squeeze(0 if density.stack is None else 1) if c is not None else None
    return (density.sample(n, generator(5)) if x is None else x), c


def log_prob(density: Density, x: Tensor, context: Tensor | None = None, seed: int = 0) -> Tensor:
    return density.log_prob(x, context, generator=generator(seed))


def test_every_density_is_in_the_table():
    public = {
        c
        for module in (densities, mixtures, datasets)
        for name, c in vars(module).items()
        if inspect.isclass(c) and issubclass(c, Density) and name not in ABSTRACT
    }
    assert public == {type(row.make()) for row in TABLE.values()}


@pytest.mark.parametrize("name", TABLE)
def test_says_what_it_is(name):
    density, row = TABLE[name].make(), TABLE[name]
    assert isinstance(density, Density) and density.event_shape and density.features == math.prod(density.event_shape)
    assert density.domain == ("whole" if row.levels else "real")
    assert density.is_bound == (row.exact is not None or density.domain == "whole")


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("stack", (None, 3))
def test_shapes_and_dtypes(name, stack):
    if stack and not TABLE[name].takes("stack"):
        return
    for dtype in (torch.float32, torch.float64):
        density = TABLE[name].make(stack, dtype=dtype)
        c = contexts(density, dtype=dtype)
        x, log_p = density.draw(5, generator(), c)
        lead = (5,) if stack is None else (stack, 5)
        assert x.shape == (*lead, *density.event_shape) and log_p.shape == lead
        assert density.sample(5, generator(), c).shape == x.shape
        if isinstance(density, nn.Module):
            assert log_p.dtype == dtype and x.dtype == (dtype if density.domain == "real" else torch.int64)
        batch = x.unsqueeze(-1 - len(density.event_shape))  # one more batch axis
        wide = None if c is None else c[..., None, None, :].expand(*lead, 1, -1)
        assert log_prob(density, batch, wide).shape == (*lead, 1)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("stack", (None, 3))
def test_a_draw_brings_its_own_log_prob(name, stack):
    if stack and not TABLE[name].takes("stack"):
        return
    density = TABLE[name].make(stack)
    c = contexts(density)
    x, log_p = density.draw(50, generator(1), c)
    again = density.log_prob(x, None if c is None else c.unsqueeze(-2))
    assert torch.isfinite(log_p).all()
    torch.testing.assert_close(again, log_p, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_scores_each_of_its_own_samples(name, dtype):
    """Also where its parameters are far from their start, and a sample is rounded to the edge of the support."""
    for spread in (0.2, 1.0):
        density = TABLE[name].make(dtype=dtype, spread=spread)
        x, c = points(name, density, 3000, dtype)
        with torch.no_grad():
            assert torch.isfinite(log_prob(density, x, c)).all()


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_is_never_nan_for_a_finite_point(name, dtype):
    density, largest = TABLE[name].make(dtype=dtype), torch.finfo(dtype).max
    ends = torch.tensor([0, 1, -1, 0.5, 1e-30, 1e4, -1e10, 1e30, largest, -largest], dtype=dtype)
    for x in (
        ends[:, None].expand(-1, density.features),
        ends[torch.randint(10, (200, density.features), generator=generator())],
    ):
        x = x.reshape(-1, *density.event_shape)
        log_p = log_prob(density, x, contexts(density, dtype=dtype))
        assert not log_p.isnan().any() and (log_p < math.inf).all(), x[log_p.isnan()]


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.outside is not None])
def test_outside_the_support_the_density_is_zero(name):
    row = TABLE[name]
    density = row.make()
    x, c = points(name, density, 20)
    for i in range(density.features):
        away = x.clone()
        away.flatten(1)[:, i] = row.outside
        assert (log_prob(density, away, c) == -math.inf).all()
    assert torch.isfinite(log_prob(density, x, c)).all()


def grid(box: tuple[float, float], dimensions: int, points: int) -> tuple[Tensor, float]:
    edge = torch.linspace(*box, points + 1, dtype=torch.float64)
    middle = (edge[1:] + edge[:-1]) / 2
    return torch.cartesian_prod(*[middle] * dimensions).reshape(-1, dimensions), float(edge[1] - edge[0]) ** dimensions


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.box])
def test_integrates_to_one(name):
    """By the midpoint rule: its own error is below the tolerance, as a finer grid shows."""
    row = TABLE[name]
    density = row.make()
    x, cell = grid(row.box, density.features, row.cells if density.features == 2 else 4000)
    c = contexts(density)
    with torch.no_grad():
        total = sum(density.log_prob(part, c).exp().sum() for part in x.split(60_000)) * cell
    assert float(total) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.box])
def test_samples_follow_the_density(name):
    """The mean of three test functions over samples is their integral, within five standard errors."""
    row = TABLE[name]
    density = row.make()
    c = contexts(density)
    x, cell = grid(row.box, density.features, row.cells if density.features == 2 else 4000)
    with torch.no_grad():
        p = torch.cat([density.log_prob(part, c).exp() for part in x.split(60_000)]) * cell
    drawn = density.sample(20_000, generator(2), c).double()
    for h in (torch.sin, lambda x: torch.cos(x + 0.5), torch.tanh):
        values = h(drawn).prod(-1)
        error = 5 * values.std() / len(values) ** 0.5
        assert abs(float(values.mean() - (p * h(x).prod(-1)).sum())) < float(error) + 2e-3


@pytest.mark.parametrize("name", WHOLE)
def test_probabilities_sum_to_one(name):
    """E[w] = P(v) for the weight w of one draw, and Σ_v P(v) = 1."""
    row = TABLE[name]
    density = row.make(spread=0.05)
    v = torch.cartesian_prod(*[torch.arange(row.levels)] * density.features).reshape(-1, density.features)
    many = v.expand(4000, *v.shape)
    c = contexts(density)
    with torch.no_grad():
        w = log_prob(density, many, c).exp().sum(-1)
    assert abs(float(w.mean()) - 1) < 5 * float(w.std()) / 4000**0.5 + 1e-6


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_is_below_what_it_bounds_and_comes_near(name):
    row = TABLE[name]
    density = row.make(spread=0.05)  # a wild q has weights whose mean no number of draws shows
    v = density.sample(30, generator())
    exact = row.exact(density, v)
    with torch.no_grad():
        draws = log_prob(density, v.expand(2000, *v.shape))
    mean, error = draws.mean(0), 5 * draws.std(0) / 2000**0.5 + 1e-9
    assert (mean <= exact + error).all()
    weights = (draws - exact).exp()
    assert ((weights.mean(0) - 1).abs() < 5 * weights.std(0) / 2000**0.5 + 1e-6).all()


@pytest.mark.parametrize("name", TABLE)
def test_the_generator_alone_decides(name):
    state, density = torch.get_rng_state(), TABLE[name].make(dtype=torch.float32)
    c = contexts(density, dtype=torch.float32)
    a, b, other = (density.draw(6, generator(seed), c) for seed in (1, 1, 2))
    assert all(torch.equal(one, same) for one, same in zip(a, b, strict=True)) and not torch.equal(a[0], other[0])
    sampled = density.sample(6, generator(1), c)
    assert torch.equal(sampled, a[0]), "sample is the first part of draw"
    noisy = [log_prob(density, a[0], c, seed) for seed in (1, 1, 2)]
    assert torch.equal(noisy[0], noisy[1])
    assert torch.equal(noisy[0], noisy[2]) or density.is_bound
    assert torch.equal(torch.get_rng_state(), state), "the global seed was touched"


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("training", (True, False))
def test_looking_changes_nothing(name, training):
    density = TABLE[name].make(dtype=torch.float32).train(training)
    before = copy.deepcopy(density.state_dict())
    x, c = points(name, density, 20, torch.float32)
    density.draw(3, generator(), contexts(density, dtype=torch.float32))
    assert torch.equal(log_prob(density, x, c), log_prob(density, x, c))
    assert all(torch.equal(before[entry], value) for entry, value in density.state_dict().items())
    assert all(module.training == training for module in density.modules())
    assert not density.sample(2, generator(), contexts(density, dtype=torch.float32)).requires_grad


@pytest.mark.parametrize("name", MODULES)
def test_calling_it_gives_its_log_prob(name):
    density = TABLE[name].make()
    x, c = points(name, density, 7)
    assert torch.equal(density(x, c, generator=generator()), log_prob(density, x, c))


@pytest.mark.parametrize("name", [name for name in REAL if name in MODULES])
def test_gradients_reach_data_and_parameters(name):
    density = TABLE[name].make()
    x, c = points(name, density, 9)
    x.requires_grad_()
    log_prob(density, x, c).sum().backward()
    assert torch.isfinite(x.grad).all() and ((x.grad != 0).any() or TABLE[name].outside == 1.5)
    for entry, p in density.named_parameters():
        if p.requires_grad and not entry.startswith("network."):  # the network of a mixture is q, no part of log p
            assert p.grad is not None and torch.isfinite(p.grad).all(), entry


def expectation(name: str, density: Density) -> tuple[Tensor, Tensor]:
    """∂E[h(x)] along a random direction of the parameters: by 40 means of draws, and by an integral over a grid."""

    def h(x: Tensor) -> Tensor:
        return torch.sin(x + 0.3).sum(-1)

    parameters = [
        p for entry, p in density.named_parameters() if p.requires_grad and not entry.startswith("network.last.x")
    ]
    direction = [torch.randn(p.shape, generator=generator(4), dtype=p.dtype) for p in parameters]
    c = contexts(density)
    means = []
    for seed in range(40):
        mean = h(density.draw(250, generator(seed), c)[0]).mean()
        assert mean.requires_grad, "no gradient passes through a draw"
        gradient = torch.autograd.grad(mean, parameters, allow_unused=True)
        means.append(sum((g * d).sum() for g, d in zip(gradient, direction, strict=True) if g is not None))
    moved = [g is not None for g in gradient]
    x, cell = grid(TABLE[name].box, density.features, 300 if density.features == 2 else 4000)
    total = (density.log_prob(x, c).exp() * h(x)).sum() * cell
    exact = torch.autograd.grad(total, parameters, allow_unused=True)
    return torch.stack(means), sum(
        (g * d).sum() for g, d, used in zip(exact, direction, moved, strict=True) if used and g is not None
    )


DIFFERENTIABLE = [
    name
    for name in REAL
    if TABLE[name].box and name in MODULES and any(p.requires_grad for p in TABLE[name].make().parameters())
]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_the_gradient_of_a_mean_over_draws_is_that_of_the_mean(name):
    means, exact = expectation(name, TABLE[name].make())
    error = 5 * means.std() / len(means) ** 0.5
    assert abs(float(means.mean() - exact)) < float(error) + 2e-3


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_the_log_prob_of_a_draw_has_the_gradient_of_its_formula(name):
    """∂/∂θ of log p(x(θ); θ), as reverse Kullback-Leibler divergences need it, by finite differences of both paths."""
    density = TABLE[name].make()
    c = contexts(density)
    x, log_p = density.draw(5, generator(3), c)
    again = density.log_prob(x, c)
    assert log_p.requires_grad
    parameters = [p for p in density.parameters() if p.requires_grad]
    for one, same in zip(
        torch.autograd.grad(log_p.sum(), parameters, allow_unused=True, retain_graph=True),
        torch.autograd.grad(again.sum(), parameters, allow_unused=True),
        strict=True,
    ):
        if one is not None and same is not None:
            torch.testing.assert_close(one, same, rtol=1e-6, atol=1e-7)
        else:  # the one path does not see what the other finds to be without effect
            assert all(g is None or g.abs().max() < 1e-9 for g in (one, same))


@pytest.mark.parametrize("name", STACKED)
def test_a_stack_equals_its_parts(name):
    K = 3
    density, single = TABLE[name].make(K), TABLE[name].make()
    x, c = points(name, density, 8)
    log_p = log_prob(density, x, c)
    for k in range(K):
        own = single.state_dict()
        for entry, value in density.state_dict().items():
            own[entry] = value[k] if value.shape != own[entry].shape else value
        single.load_state_dict(own)
        torch.testing.assert_close(log_p[k], log_prob(single, x[k], None if c is None else c[k]))
    with pytest.raises(ValueError, match=r"expected shape \(3, \.\.\., .*, but got \(2, "):
        log_prob(density, x[:2], None if c is None else c[:2])


@pytest.mark.parametrize("name", CONDITIONAL)
def test_n_draws_for_each_context(name):
    density = TABLE[name].make()
    c = contexts(density, 4, 3)
    x, log_p = density.draw(6, generator(), c)
    assert x.shape == (6, 4, 3, *density.event_shape) and log_p.shape == (6, 4, 3)
    assert density.sample(6, generator(), c).shape == x.shape
    assert log_prob(density, x, c).shape == (6, 4, 3)
    if density.domain == "real":
        torch.testing.assert_close(log_prob(density, x, c), log_p, rtol=1e-6, atol=1e-6)
    opposite = 3 * torch.cat((contexts(density, 1), -contexts(density, 1)))
    many = density.sample(4000, generator(), opposite).double()
    error = 6 * many.std(0).amax() / 4000**0.5
    assert (many.mean(0).diff(dim=0).abs() > error).any(), "another context is another density"
    one = density.draw(6, generator(), c[0, 0])[0]
    assert one.shape == (6, *density.event_shape)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_each_x_meets_its_own_context(name):
    density = TABLE[name].make()
    x, c = points(name, density, 5)
    together = log_prob(density, x, c)
    if density.domain == "real":
        for i in range(5):
            torch.testing.assert_close(together[i], density.log_prob(x[i], c[i]))
    assert log_prob(density, x, c[0]).shape == (5,), "one context serves many x"
    assert log_prob(density, x[0], c).shape == (5,), "one x is asked of many contexts"


@pytest.mark.parametrize("name", MODULES)
def test_a_context_that_does_not_fit_is_refused_in_words(name):
    density = TABLE[name].make()
    x, c = points(name, density, 5)
    if c is None:
        with pytest.raises(ValueError, match="no context features, but got"):
            log_prob(density, x, torch.zeros(5, 2, dtype=torch.float64))
        with pytest.raises(ValueError, match="no context features, but got"):
            density.draw(2, generator(), torch.zeros(2, dtype=torch.float64))
        return
    E, twice = density.context_features, torch.cat((c, c), -1)
    for wrong, words in ((None, "but got none"), (twice, rf"{E} .*but got .*{2 * E}"), (c[:3], r"\(3, ")):
        with pytest.raises(ValueError, match=words):
            log_prob(density, x, wrong)
    with pytest.raises(ValueError, match="but got none"):
        density.draw(2, generator())
    with pytest.raises(ValueError, match=rf"{E} .*but got .*{2 * E}"):
        density.draw(2, generator(), twice)


@pytest.mark.parametrize("name", TABLE)
def test_wrong_shapes_and_counts_are_refused_in_words(name):
    density = TABLE[name].make()
    x, c = points(name, density, 5)
    shape = ", ".join(map(str, density.event_shape))
    wide, number = torch.cat((x, x), -1), x[0].flatten()[0]
    if density.event_shape == (1,):
        assert log_prob(density, number, None if c is None else c[0]).shape == (), "one number is one sample"
    for wrong in (wide,) if density.event_shape == (1,) else (wide, number):
        with pytest.raises(ValueError) as error:
            log_prob(density, wrong, c)
        assert f"(..., {shape})" in str(error.value) and str(tuple(wrong.shape)) in str(error.value)
    for wrong in (0, -3, 2.5, (3, 4), True, "many"):
        for call in (density.draw, density.sample):
            with pytest.raises(ValueError) as error:
                call(wrong, generator(), contexts(density))
            assert "at least 1" in str(error.value) and repr(wrong) in str(error.value)


@pytest.mark.parametrize("name", MODULES)
def test_takes_what_people_have(name):
    density = TABLE[name].make(dtype=torch.float32)
    x, c = points(name, density, 6, torch.float32)
    expected = log_prob(density, x, c)
    array, of_c = x.numpy(), None if c is None else c.numpy()
    for given in (array, np.asfortranarray(array), array[::-1][::-1], list(array)):
        torch.testing.assert_close(log_prob(density, given, of_c), expected)
    torch.testing.assert_close(log_prob(density, array.tolist(), of_c), expected, check_dtype=False)
    if density.domain == "real":
        for given in (array.astype(np.float64), x.double()):  # some keep the digits, as those of a list
            torch.testing.assert_close(log_prob(density, given, of_c), expected, check_dtype=False)


@pytest.mark.parametrize("name", MODULES)
def test_its_weights_bring_it_back(name):
    density, other = TABLE[name].make(), TABLE[name].make(seed=1)
    x, c = points(name, density, 6)
    other.load_state_dict(density.state_dict())
    assert torch.equal(log_prob(density, x, c), log_prob(other, x, c))


@pytest.mark.parametrize("name", MODULES)
def test_its_print_says_its_size(name):
    density = TABLE[name].make()
    assert type(density).__name__ in repr(density)
    assert any(str(d) in repr(density) for d in density.event_shape)
