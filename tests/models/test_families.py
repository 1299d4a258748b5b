"""The recipes of vectors: what they are made of, the papers' presets, a start at the identity, what they refuse."""

import numpy as np
import pytest
import torch
from torch import Generator

import flowlab
from flowlab import fit, models
from flowlab.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    BatchNorm,
    Inverse,
    Logit,
    MaskedAutoregressive,
    Planar,
    Radial,
    ScaleShift,
    ShapeError,
    SplineCoupling,
    Standardize,
    starting,
)
from flowlab.densities import AutoregressiveMixture, GaussianMixture, StandardLogistic, StandardNormal
from flowlab.densities.mixtures import FlowMixture
from flowlab.models import PRESETS, glow, made, maf, nice, planar_flow, radial_flow, realnvp, realnvp_image, spline_flow

COUPLED = {"nice": nice, "realnvp": realnvp, "spline_flow": spline_flow}
RECIPES = {**COUPLED, "maf": maf}
OF_IMAGES = {"realnvp_image": realnvp_image, "glow": glow}


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
    assert kinds(realnvp(4)) == [Standardize] + [AffineCoupling] * 8
    assert kinds(realnvp(4, 3, standardize=False)) == [AffineCoupling] * 3
    assert kinds(spline_flow(4)) == [Standardize] + [SplineCoupling] * 6
    assert isinstance(nice(4).base, StandardLogistic) and isinstance(nice(4, prior="normal").base, StandardNormal)
    assert isinstance(realnvp(4).base, StandardNormal) and isinstance(spline_flow(4).base, StandardNormal)
    assert nice(4).bijection[-1].shift is None, "NICE scales and does not shift"
    assert kinds(maf(4, 2)) == [Standardize] + [MaskedAutoregressive, ActNorm] * 2
    assert kinds(maf(4, 2, normalization="none", standardize=False)) == [MaskedAutoregressive] * 2
    assert kinds(maf(4, 1, normalization="batch")) == [Standardize, MaskedAutoregressive, BatchNorm, ScaleShift]
    assert isinstance(maf(4).base, StandardNormal)
    assert isinstance(maf(4, components=3).base, AutoregressiveMixture) and maf(4, components=3).base.components == 3
    assert kinds(made(4)) == [Standardize] and kinds(made(4, standardize=False)) == []
    assert kinds(planar_flow(4, 2)) == [Standardize, Planar, Planar, ScaleShift]
    assert kinds(radial_flow(4, 2, standardize=False)) == [Radial, Radial, ScaleShift]
    assert kinds(planar_flow(4, 2, sampling=True, standardize=False)) == [Inverse, Inverse, ScaleShift]
    assert made(4).base.components == 1 and made(4, 7).base.components == 7


@pytest.mark.parametrize("build", COUPLED.values(), ids=COUPLED)
def test_every_coordinate_moves_in_turn(build):
    even, odd = [True, False, True, False], [False, True, False, True]
    assert masks(build(4, layers=3)) == [even, odd, even]


def test_maf_turns_the_order_around_from_layer_to_layer():
    flow = maf(3, 3, components=2, standardize=False, normalization="none")
    places = [layer.conditioner.place.tolist() for layer in flow.bijection] + [flow.base.network.place.tolist()]
    assert places == [[1, 2, 3], [3, 2, 1]] * 2


@pytest.mark.slow
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
    with starting(flow):
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
    assert layer.law.log_scale_bound == 1.5 and layer.conditioner.context_features == 3
    assert layer.conditioner.activation is flowlab.networks.ACTIVATIONS["silu"]
    assert [len(linear.bias) for linear in layer.conditioner.hidden] == [5, 6]
    spline = spline_flow(4, 1, bins=5, bound=2.5, hidden=(3,), context_features=1).bijection[1]
    assert (spline.law.bins, spline.law.bound, len(spline.conditioner.hidden[0].bias)) == (5, 2.5, 3)
    assert spline.conditioner.context_features == 1
    layer = maf(4, 1, hidden=(5, 6), log_scale_bound=1.5, context_features=3, activation="silu").bijection[1]
    assert layer.law.log_scale_bound == 1.5 and layer.conditioner.context_features == 3
    assert [len(linear.bias) for linear in layer.conditioner.hidden] == [5, 6]
    for network in (layer.conditioner, made(4, hidden=(5, 6), activation="silu").base.network):
        assert network.activation is flowlab.networks.ACTIVATIONS["silu"] and len(network.hidden) == 2
    base = GaussianMixture(torch.eye(4))
    assert realnvp(4, base=base).base is base and spline_flow(4, base=base).base is base


def count(flow: flowlab.Flow) -> int:
    return sum(p.numel() for p in flow.parameters())


@pytest.mark.slow
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
    image = next((build for recipe, build in OF_IMAGES.items() if name.startswith(recipe)), None)
    if image:
        flow = image((1, 8, 8), **PRESETS[name]).eval()
    else:
        flow = {**RECIPES, "made": made}[name.split("_")[0]](2, **PRESETS[name]).eval()
    assert torch.isfinite(flow.log_prob(torch.zeros(3, flow.base.features))).all()


@pytest.mark.parametrize("build", (nice, realnvp))
@pytest.mark.parametrize("one", (1, np.int64(1)))
def test_couplings_of_one_dimension_name_the_recipe_that_takes_it(build, one):
    with pytest.raises(
        ShapeError, match=rf"{build.__name__} .* at least 2, but got 1.* spline_flow\(1\) and made\(1, components=8\)"
    ):
        build(one)
    assert made(1, components=8).log_prob(torch.zeros(3, 1)).shape == (3,)


@pytest.mark.slow
def test_splines_of_one_dimension_fit_two_bumps():
    g = generator()
    x = torch.where(torch.rand(2000, 1, generator=g) < 0.5, -4.0, 4.0) + torch.randn(2000, 1, generator=g)
    flow = spline_flow(1, generator=g)
    fit(flow, x, steps=300, learning_rate=2e-2, progress=False)
    assert -flow.log_prob(x).mean() < 2.2, "one Gaussian has 2.84, the truth 2.11"
    with pytest.raises(ShapeError, match=r"sees no context. made\(1, components=8, context_features"):
        spline_flow(1, context_features=2)


def test_one_dimension_without_components_is_no_silent_gaussian():
    for build in (maf, made):
        with pytest.raises(ValueError, match=rf"{build.__name__} .* single Gaussian.* made\(1, components=8\)"):
            build(1)
        assert build(1, components=2).log_prob(torch.zeros(3, 1)).shape == (3,)
    base = GaussianMixture(torch.tensor([[-1.0], [1.0]]))
    assert maf(1, base=base).base is base and maf(1, context_features=2).bijection[1].conditioner.context_features == 2


SIZED = {
    "nice": lambda n: nice(n(3), n(2), hidden=(n(4),), stack=n(2)),
    "realnvp": lambda n: realnvp(n(3), n(2), hidden=n(4), context_features=n(1)),
    "spline_flow": lambda n: spline_flow(n(3), n(1), hidden=[n(4), n(5)], bins=n(3)),
    "maf": lambda n: maf(n(3), n(2), hidden=n(4), components=n(2)),
    "planar_flow": lambda n: planar_flow(n(3), n(2), stack=n(2)),
    "radial_flow": lambda n: radial_flow(n(3), n(2), stack=n(2)),
    "made": lambda n: made(n(3), n(2), hidden=(n(4),)),
    "flow_mixture": lambda n: models.flow_mixture(n(2), n(3), layers=n(2), hidden=n(4), posterior=n(5)),
    "realnvp_image": lambda n: realnvp_image((n(1), n(4), n(4)), n(2), layers=n(1), hidden=n(2), blocks=n(1)),
    "glow": lambda n: glow((n(1), n(4), n(4)), n(2), steps=n(1), hidden=n(2), blocks=n(1)),
}


@pytest.mark.parametrize("build", SIZED.values(), ids=SIZED)
@pytest.mark.parametrize("kind", (np.int64, np.uint8, np.array, torch.tensor), ids=lambda kind: kind.__name__)
def test_sizes_may_be_whole_numbers_of_any_kind(build, kind):
    assert build(kind).recipe == build(int).recipe
    assert [p.shape for p in build(kind).parameters()] == [p.shape for p in build(int).parameters()]


@pytest.mark.parametrize(
    "kind", (float, np.float32, lambda n: -n, lambda n: True, str), ids=("float", "float32", "negative", "bool", "str")
)
@pytest.mark.parametrize("build", SIZED.values(), ids=SIZED)
def test_sizes_that_are_none_are_refused_in_a_sentence(build, kind):
    with pytest.raises(ValueError, match=r"expected \w+ in whole numbers of at least \d, but got"):
        build(kind)


def test_one_width_is_one_layer():
    for flow in (realnvp(2, hidden=7), realnvp(2, hidden=np.array(7)), realnvp(2, hidden=(7,))):
        assert [len(linear.bias) for linear in flow.bijection[1].conditioner.hidden] == [7]
    assert len(realnvp(2, hidden=()).bijection[1].conditioner.hidden) == 0
    assert len(realnvp(2, 0, standardize=False).bijection) == 0, "no layer is a number of layers too"


def test_a_setting_that_does_not_exist_is_pythons_own_error_with_the_recipes_name():
    with pytest.raises(TypeError, match="realnvp: got an unexpected keyword argument 'depth'"):
        realnvp(2, depth=3)
    with pytest.raises(TypeError, match="maf: missing a required argument: 'features'"):
        maf()


@pytest.mark.parametrize("build", RECIPES.values(), ids=RECIPES)
def test_prior_base_context_and_logit_are_settings_of_every_flow_of_vectors(build):
    assert isinstance(build(2, prior="logistic").base, StandardLogistic)
    assert isinstance(build(2, prior="normal").base, StandardNormal)
    base = GaussianMixture(torch.eye(2))
    assert build(2, base=base).base is base
    assert isinstance(build(2, logit=0.01).bijection[0], Logit)
    flow = build(2, context_features=3, generator=generator())
    for p in flow.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator(1))
    x, c = torch.randn(5, 2, generator=generator(2)), torch.randn(5, 3, generator=generator(3))
    assert not torch.allclose(flow.log_prob(x, c), flow.log_prob(x, -c))


def test_a_base_and_components_are_two_bases():
    with pytest.raises(ValueError, match="components or a base, but got both"):
        maf(2, components=2, base=StandardNormal(2))


def test_unknown_prior_is_refused_in_words():
    with pytest.raises(ValueError, match=r"one of 'normal', 'logistic', but got 'cauchy'"):
        nice(2, prior="cauchy")


def test_unknown_normalization_is_refused_in_words():
    with pytest.raises(ValueError, match="one of 'act', 'batch', 'none', but got 'layer'"):
        maf(2, normalization="layer")


@pytest.mark.parametrize("build", RECIPES.values(), ids=RECIPES)
def test_weights_come_from_the_generator_alone(build):
    state = torch.get_rng_state()
    a, b, c = (build(3, layers=2, generator=generator(seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state), "the global seed was touched"
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


LOGIT_FIRST = {**RECIPES, "planar_flow": planar_flow, "radial_flow": radial_flow, "made": made}


@pytest.mark.parametrize("build", LOGIT_FIRST.values(), ids=LOGIT_FIRST)
def test_a_logit_comes_before_all_else(build):
    plain, flow = build(4), build(4, logit=0.01)
    assert kinds(flow) == [Logit, *kinds(plain)] and flow.bijection[0].lambda_ == 0.01
    assert flow.recipe["settings"]["logit"] == 0.01 and plain.recipe["settings"]["logit"] is None


def test_realnvp_takes_a_prior_by_name():
    flow = realnvp(3, 2, hidden=(4,), prior="logistic")
    assert isinstance(flow.base, StandardLogistic) and isinstance(realnvp(3).base, StandardNormal)
    assert isinstance(models.build(flow.recipe).base, StandardLogistic)
    assert isinstance(realnvp(2, base=GaussianMixture(torch.eye(2))).base, GaussianMixture)
    with pytest.raises(ValueError, match=r"one of 'normal', 'logistic', but got 'cauchy'"):
        realnvp(2, prior="cauchy")


def test_a_temperature_scales_the_latent_draw_of_flow_bound_and_mixture():
    density = {"name": "nice", "settings": {"features": 4, "hidden": (3,)}}
    flow = models.build(density, generator=generator())
    x = flow.sample(50, generator(1), temperature=0.25)
    torch.testing.assert_close(flow.bijection(x)[0], 0.25 * flow.base.sample(50, generator(1)))
    assert torch.equal(flow.sample(50, generator(1)), flow.sample(50, generator(1), temperature=1.0))
    bound = models.dequantized(density, generator=generator())
    assert torch.equal(bound.sample(50, generator(1), temperature=0.25), bound_of(x))
    for mixture in (
        models.flow_mixture(4, 3, generator=generator()),
        FlowMixture([realnvp(4, hidden=(3,)), realnvp(4, hidden=(3,))]),
    ):
        wide, narrow = (mixture.sample(500, generator(2), temperature=t).std() for t in (1.0, 0.1))
        assert float(narrow) == pytest.approx(0.1 * float(wide), rel=1e-3), "components start at the identity"
    for refused in (realnvp(2, base=GaussianMixture(torch.eye(2))), made(2)):
        assert refused.sample(3).shape == (3, 2)
        with pytest.raises(ValueError, match=r"standard normal or logistic base, but .*0\.5.*Leave it at 1"):
            refused.sample(3, temperature=0.5)
    with pytest.raises(ValueError, match="above 0"):
        flow.sample(3, temperature=0.0)


def bound_of(x: torch.Tensor) -> torch.Tensor:
    return (256 * x).floor().clamp(0, 255).long()
