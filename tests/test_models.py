"""The recipes: what they are made of, the papers' presets, a start at the identity, and a way to build them again."""

import json

import pytest
import torch
from torch import Generator

import flowlab
from flowlab import models
from flowlab.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    BatchNorm,
    MaskedAutoregressive,
    ScaleShift,
    ShapeError,
    SplineCoupling,
)
from flowlab.distributions import AutoregressiveMixture, GaussianMixture, StandardLogistic, StandardNormal
from flowlab.models import PRESETS, made, maf, nice, realnvp, spline_flow
from flowlab.training import load_checkpoint, save_checkpoint

COUPLED = {"nice": nice, "realnvp": realnvp, "spline_flow": spline_flow}
RECIPES = {**COUPLED, "maf": maf}


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def kinds(flow: flowlab.Flow) -> list[type]:
    return [type(b) for b in flow.bijection]


def masks(flow: flowlab.Flow) -> list[list[bool]]:
    """Which coordinates each coupling passes, read off what it does once its weights are random."""
    x, found = torch.randn(1, 4, generator=generator()), []
    for b in flow.bijection:
        if isinstance(b, AdditiveCoupling | AffineCoupling | SplineCoupling):
            for p in b.parameters():
                p.data = torch.randn(p.shape, generator=generator(1))
            found.append((b(x)[0] == x).flatten().tolist())
    return found


def test_what_each_recipe_is_made_of():
    assert kinds(nice(4)) == [AdditiveCoupling] * 4 + [ScaleShift]
    assert kinds(nice(4, layers=2, scaling=False)) == [AdditiveCoupling] * 2
    assert kinds(realnvp(4)) == [ActNorm] + [AffineCoupling] * 8
    assert kinds(realnvp(4, 3, standardize=False)) == [AffineCoupling] * 3
    assert kinds(spline_flow(4)) == [ActNorm] + [SplineCoupling] * 6
    assert isinstance(nice(4).base, StandardLogistic) and isinstance(nice(4, prior="normal").base, StandardNormal)
    assert isinstance(realnvp(4).base, StandardNormal) and isinstance(spline_flow(4).base, StandardNormal)
    assert nice(4).bijection[-1].shift is None, "NICE scales and does not shift"
    assert kinds(maf(4, 2)) == [ActNorm] + [MaskedAutoregressive, ActNorm] * 2
    assert kinds(maf(4, 2, normalization="none", standardize=False)) == [MaskedAutoregressive] * 2
    assert kinds(maf(4, 1, normalization="batch")) == [ActNorm, MaskedAutoregressive, BatchNorm, ScaleShift]
    assert isinstance(maf(4).base, StandardNormal)
    assert isinstance(maf(4, components=3).base, AutoregressiveMixture) and maf(4, components=3).base.components == 3
    assert kinds(made(4)) == [ActNorm] and kinds(made(4, standardize=False)) == []
    assert made(4).base.components == 1 and made(4, 7).base.components == 7


@pytest.mark.parametrize("build", COUPLED.values(), ids=COUPLED)
def test_every_coordinate_moves_in_turn(build):
    even, odd = [True, False, True, False], [False, True, False, True]
    assert masks(build(4, layers=3)) == [even, odd, even]


def test_maf_turns_the_order_around_from_layer_to_layer():
    flow = maf(3, 3, components=2, standardize=False, normalization="none")
    places = [layer.conditioner.place.tolist() for layer in flow.bijection] + [flow.base.network.place.tolist()]
    assert places == [[1, 2, 3], [3, 2, 1]] * 2


@pytest.mark.parametrize("components", (0, 2))
@pytest.mark.parametrize("stack", (None, 2))
def test_maf_samples_what_its_density_says(components, stack):
    """The mean of log p over samples, and over a grid: minus the entropy, both ways."""
    draw = generator(1)
    settings = {"hidden": (8,), "activation": "tanh", "log_scale_bound": 0.5, "generator": draw}
    flow = maf(2, 3, components=components, stack=stack, **settings)
    for p in flow.double().eval().requires_grad_(False).parameters():
        p += 0.15 * torch.randn(p.shape, generator=draw, dtype=p.dtype)
    edge = torch.linspace(-20, 20, 501, dtype=torch.float64)
    grid = torch.cartesian_prod(edge, edge).expand(*([stack] if stack else []), -1, 2)
    log_p = flow.log_prob(grid)
    p = log_p.exp() * (edge[1] - edge[0]) ** 2
    torch.testing.assert_close(p.sum(-1), torch.ones_like(p[..., 0]), rtol=0, atol=1e-3)
    x = flow.sample(20_000, generator(2))
    torch.testing.assert_close(flow.log_prob(x).mean(-1), (p * log_p).sum(-1), rtol=0, atol=0.04)
    torch.testing.assert_close(x.mean(-2), (p.unsqueeze(-1) * grid).sum(-2), rtol=0, atol=0.08)


@pytest.mark.parametrize("stack", (None, 2))
def test_made_standardizes_and_starts_near_the_normal(stack):
    x = torch.tensor([50.0, -3.0]) + torch.tensor([9.0, 0.1]) * torch.randn(400, 2, generator=generator())
    x = x.expand(*([stack] if stack else []), -1, -1)
    flow = made(2, stack=stack)
    z, log_det = flow.bijection(x)
    expected = StandardNormal(2, stack=stack).log_prob(z) + log_det
    torch.testing.assert_close(flow.log_prob(x), expected)
    assert flow.sample(5, generator()).shape == z[..., :5, :].shape
    assert (flow.sample(500, generator()).mean(-2) - x.mean(-2)).abs().max() < 1


@pytest.mark.parametrize("build", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("features", (2, 3, 8))
@pytest.mark.parametrize("stack", (None, 2))
def test_starts_as_its_base_and_samples_it(build, features, stack):
    flow = build(features, layers=3, stack=stack, generator=generator()).eval()
    x = torch.randn(*((stack,) if stack else ()), 7, features, generator=generator(1))
    torch.testing.assert_close(flow.log_prob(x), flow.base.log_prob(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(flow.sample(5, generator(2)), flow.base.sample(5, generator(2)), rtol=1e-5, atol=1e-5)


def test_settings_reach_the_layers():
    flow = realnvp(4, 2, hidden=(5, 6), log_scale_bound=1.5, context_features=3, activation="silu")
    layer = flow.bijection[1]
    assert layer.log_scale_bound == 1.5 and layer.conditioner.context_features == 3
    assert layer.conditioner.activation is flowlab.networks.ACTIVATIONS["silu"]
    assert [len(linear.bias) for linear in layer.conditioner.hidden] == [5, 6]
    spline = spline_flow(4, 1, bins=5, bound=2.5, hidden=(3,), context_features=1).bijection[1]
    assert (spline.bins, spline.bound, len(spline.conditioner.hidden[0].bias)) == (5, 2.5, 3)
    assert spline.conditioner.context_features == 1
    layer = maf(4, 1, hidden=(5, 6), log_scale_bound=1.5, context_features=3, activation="silu").bijection[1]
    assert layer.log_scale_bound == 1.5 and layer.conditioner.context_features == 3
    assert [len(linear.bias) for linear in layer.conditioner.hidden] == [5, 6]
    for network in (layer.conditioner, made(4, hidden=(5, 6), activation="silu").base.network):
        assert network.activation is flowlab.networks.ACTIVATIONS["silu"] and len(network.hidden) == 2
    base = GaussianMixture(torch.eye(4))
    assert realnvp(4, base=base).base is base and spline_flow(4, base=base).base is base


def count(flow: flowlab.Flow) -> int:
    return sum(p.numel() for p in flow.parameters())


def test_presets_are_the_papers_models():
    # NICE, section 5.1: four coupling layers, five hidden layers of 1000, scaling of each of the 784 pixels.
    flow = nice(784, **PRESETS["nice_mnist"])
    one = 392 * 1000 + 1000 + 4 * (1000 * 1000 + 1000) + 1000 * 392 + 392
    assert count(flow) == 4 * one + 784 and isinstance(flow.base, StandardLogistic)
    # The thesis' components: eight, or ten, affine couplings with one hidden layer of 8.
    one = (1 * 8 + 8) + (8 * 2 + 2)
    assert count(realnvp(2, **PRESETS["realnvp_pinwheel"])) == 8 * one
    assert count(realnvp(2, **PRESETS["realnvp_two_circles"])) == 10 * one

    # MAF, table 2: two hidden layers of 1024; five layers, each with a batch normalization; ten components.
    def network(outputs: int) -> int:
        return 784 * 1024 + 1024 + 1024 * 1024 + 1024 + (1024 + 1) * outputs * 784

    assert count(maf(784, **PRESETS["maf_mnist"])) == 5 * (network(2) + 2 * 784)
    assert count(maf(784, **PRESETS["maf_mog_mnist"])) == 5 * (network(2) + 2 * 784) + network(30)
    assert count(made(784, **PRESETS["made_mog_mnist"])) == network(30)
    assert count(made(784, **PRESETS["made_mnist"])) == network(3)  # one of the three, the weight, is always 1


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds(name):
    flow = {**RECIPES, "made": made}[name.split("_")[0]](2, **PRESETS[name]).eval()
    assert torch.isfinite(flow.log_prob(torch.zeros(3, 2))).all()


@pytest.mark.parametrize("build", COUPLED.values(), ids=COUPLED)
def test_one_dimension_is_refused_in_words(build):
    with pytest.raises(ShapeError, match=r"passes some coordinates and moves some, so D ≥ 2, but came \[True\]"):
        build(1)


def test_unknown_prior_is_refused_in_words():
    with pytest.raises(ValueError, match=r"one of \['logistic', 'normal'\], but 'cauchy' was given"):
        nice(2, prior="cauchy")


def test_unknown_normalization_is_refused_in_words():
    with pytest.raises(ValueError, match="one of 'act', 'batch' and 'none', but 'layer' was given"):
        maf(2, normalization="layer")


@pytest.mark.parametrize("build", RECIPES.values(), ids=RECIPES)
def test_weights_come_from_the_generator_alone(build):
    state = torch.get_rng_state()
    a, b, c = (build(3, layers=2, generator=generator(seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state), "the global seed was touched"
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


@pytest.mark.parametrize(
    "flow",
    (
        nice(3, 2, hidden=(4,), prior="normal"),
        realnvp(3, layers=2, hidden=(4, 5), log_scale_bound=1.0),
        spline_flow(3, 1, hidden=(4,), bins=3, stack=2),
        maf(3, 2, components=2, hidden=(4,), normalization="batch"),
        made(3, 2, hidden=(4,), stack=2),
    ),
    ids=lambda flow: flow.recipe["name"],
)
def test_a_card_says_how_to_build_the_model_again(flow, tmp_path):
    for p in flow.parameters():
        p.data += 0.1
    save_checkpoint(tmp_path / "flow.safetensors", flow)
    recipe = json.loads(json.dumps(flow.recipe))
    again = getattr(models, recipe["name"])(**recipe["settings"])
    card = load_checkpoint(tmp_path / "flow.safetensors", again)
    assert card["recipe"] == recipe and card["model"] == "Flow"
    x = torch.randn(*((flow.base.stack,) if flow.base.stack else ()), 6, 3, generator=generator())
    assert torch.equal(flow.eval().log_prob(x), again.eval().log_prob(x))


def test_a_base_of_ones_own_makes_no_recipe():
    assert realnvp(2, base=GaussianMixture(torch.eye(2))).recipe is None
    assert "generator" not in realnvp(2, generator=generator()).recipe["settings"]
