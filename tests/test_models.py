"""The recipes: what they are made of, the papers' presets, a start at the identity, and a way to build them again."""

import json
import math

import pytest
import torch
from torch import Generator

import flowlab
from flowlab import models
from flowlab.bijections import (
    ActNorm,
    AdditiveCoupling,
    AdditiveImageCoupling,
    AffineCoupling,
    AffineImageCoupling,
    AsImage,
    BatchNorm,
    Chain,
    Channelwise,
    FactorOut,
    Inverse,
    InvertibleConvolution,
    Logit,
    MaskedAutoregressive,
    Permutation,
    ScaleShift,
    ShapeError,
    SplineCoupling,
    Squeeze,
    Standardize,
    starting,
)
from flowlab.datasets import mnist
from flowlab.densities import (
    AutoregressiveMixture,
    Dequantized,
    GaussianMixture,
    StandardLogistic,
    StandardNormal,
    VariationalDequantized,
)
from flowlab.densities.mixtures import FlowMixture
from flowlab.models import PRESETS, glow, made, maf, nice, realnvp, realnvp_image, spline_flow
from flowlab.training import load_checkpoint, save_checkpoint

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
    image = next((build for recipe, build in OF_IMAGES.items() if name.startswith(recipe)), None)
    if image:
        flow = image((1, 8, 8), **PRESETS[name]).eval()
    else:
        flow = {**RECIPES, "made": made}[name.split("_")[0]](2, **PRESETS[name]).eval()
    assert torch.isfinite(flow.log_prob(torch.zeros(3, flow.base.features))).all()


@pytest.mark.parametrize("build", COUPLED.values(), ids=COUPLED)
def test_one_dimension_is_refused_in_words(build):
    with pytest.raises(ShapeError, match=r"passes some coordinates and moves some, so D ≥ 2, but got \[True\]"):
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
        realnvp_image((3, 2, 4), 2, layers=1, hidden=2, blocks=1, log_scale_bound=1.0),
        glow((1, 2, 4), 1, steps=2, hidden=2, mixing="shuffle", logit=None, stack=2),
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
    x = torch.rand(*((flow.base.stack,) if flow.base.stack else ()), 6, flow.base.features, generator=generator())
    assert torch.equal(flow.eval().log_prob(x), again.eval().log_prob(x))


LOGIT_FIRST = {"nice": nice, "realnvp": realnvp, "maf": maf, "made": made}


@pytest.mark.parametrize("build", LOGIT_FIRST.values(), ids=LOGIT_FIRST)
def test_a_logit_comes_before_all_else(build):
    plain, flow = build(4, hidden=(4,)), build(4, hidden=(4,), logit=0.01)
    assert kinds(flow) == [Logit, *kinds(plain)] and flow.bijection[0].lambda_ == 0.01
    assert flow.recipe["settings"]["logit"] == 0.01 and plain.recipe["settings"]["logit"] is None


def test_realnvp_takes_a_prior_by_name():
    flow = realnvp(3, 2, hidden=(4,), prior="logistic")
    assert isinstance(flow.base, StandardLogistic) and isinstance(realnvp(3).base, StandardNormal)
    assert isinstance(models.build(flow.recipe).base, StandardLogistic)
    assert isinstance(realnvp(2, base=GaussianMixture(torch.eye(2))).base, GaussianMixture)
    with pytest.raises(ValueError, match=r"one of \['logistic', 'normal'\], but 'cauchy' was given"):
        realnvp(2, prior="cauchy")


def test_dequantized_is_a_bound_around_the_density_of_a_recipe():
    density = {"name": "nice", "settings": {"features": 4, "hidden": (3,), "logit": 0.1}}
    model = models.dequantized(density, 16, generator=generator())
    assert type(model) is Dequantized and model.levels == 16 and kinds(model.density)[0] is Logit
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), weights_of(density), strict=True))
    v = torch.randint(16, (5, 4), generator=generator(1))
    assert model.log_prob(v, generator=generator(2)).isfinite().all()


def weights_of(recipe: dict) -> list[torch.Tensor]:
    return list(models.build(recipe, generator=generator()).parameters())


def test_dequantized_with_noise_starts_as_uniform_noise():
    density = {"name": "nice", "settings": {"features": 4, "hidden": (3,)}}
    settings = {"features": 4, "layers": 2, "hidden": (3,), "standardize": False, "context_features": 4}
    noise = {"name": "realnvp", "settings": {**settings, "prior": "logistic"}}
    model = models.dequantized(density, noise=noise, generator=generator())
    assert type(model) is VariationalDequantized and model.q.bijection[0].conditioner.context_features == 4
    with torch.no_grad():
        u, log_q = model.noise(torch.randint(256, (20_000, 4), generator=generator(1)), generator(2))
    assert abs(float(log_q.mean())) < 1e-4 and abs(float(u.mean()) - 0.5) < 0.01
    assert float(u.var()) == pytest.approx(1 / 12, rel=0.02)


def test_a_bound_is_built_again_from_its_card(tmp_path):
    density = {"name": "glow", "settings": {"shape": (1, 4, 4), "levels": 1, "steps": 1, "hidden": 2}}
    settings = {"features": 16, "layers": 1, "hidden": (3,), "standardize": False, "context_features": 16}
    model = models.dequantized(density, noise={"name": "realnvp", "settings": settings})
    v = torch.randint(256, (6, 16), generator=generator())
    with starting(model):
        model.log_prob(v)
    save_checkpoint(tmp_path / "bound.safetensors", model)
    recipe = json.loads(json.dumps(model.recipe))
    again = models.build(recipe)
    assert load_checkpoint(tmp_path / "bound.safetensors", again)["recipe"] == recipe
    a, b = (one.eval().log_prob(v, generator=generator(1)) for one in (model, again))
    assert torch.equal(a, b)


def test_build_refuses_what_is_no_recipe_in_words():
    with pytest.raises(ValueError, match=r"one of nice, realnvp, .*dequantized, but 'resnet' was given"):
        models.build({"name": "resnet", "settings": {}})
    with pytest.raises(ValueError, match="but None was given"):
        models.build({})
    for hidden_function in ("build", "_order", "math"):  # what the module holds and no recipe is
        with pytest.raises(ValueError, match=f"but '{hidden_function}' was given"):
            models.build({"name": hidden_function, "settings": {}})
    with pytest.raises(ValueError, match=r"'nice' cannot be built from .*depth.*unexpected keyword"):
        models.build({"name": "nice", "settings": {"features": 2, "depth": 3}})
    with pytest.raises(ValueError, match=r"missing a required argument: 'features'"):
        models.build({"name": "nice"})


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
        with pytest.raises(ValueError, match=r"standard normal or logistic base, but 0\.5 came.*Leave it at 1"):
            refused.sample(3, temperature=0.5)
    with pytest.raises(ValueError, match="above 0"):
        flow.sample(3, temperature=0.0)


def bound_of(x: torch.Tensor) -> torch.Tensor:
    return (256 * x).floor().clamp(0, 255).long()


def test_a_base_of_ones_own_makes_no_recipe():
    assert realnvp(2, base=GaussianMixture(torch.eye(2))).recipe is None
    assert "generator" not in realnvp(2, generator=generator()).recipe["settings"]


# --- flows of images --------------------------------------------------------------------------------------------------


def layers(f: Chain) -> list:
    """What a chain of images is made of, a FactorOut as a list of its own: what goes on from there."""
    found = []
    for b in f:
        found.append(type(b.bijection) if type(b) in (Channelwise, Inverse) else type(b))
        if isinstance(b, FactorOut):
            found.append(layers(b.rest))
    return found


def images_of(flow: flowlab.Flow) -> Chain:
    assert isinstance(flow.bijection[-1], AsImage)
    return flow.bijection[-1].bijection


def test_what_a_flow_of_images_is_made_of():
    step = [ActNorm, InvertibleConvolution, AffineImageCoupling]
    flow = glow((1, 8, 8), 2, steps=2)
    # InvertibleConvolution is a Channelwise of its own kind.
    assert layers(images_of(flow)) == [Squeeze, *step, *step, FactorOut, [Squeeze, *step, *step, Squeeze], Squeeze]
    assert kinds(flow) == [Logit, AsImage] and flow.bijection[0].lambda_ == 1e-5
    assert kinds(glow((1, 8, 8), logit=None)) == [AsImage]
    flow = glow((1, 8, 8), 1, steps=1, mixing="reverse", coupling="additive")
    assert layers(images_of(flow)) == [Squeeze, ActNorm, Permutation, AdditiveImageCoupling, Squeeze]
    assert images_of(flow)[2].bijection.order.tolist() == [3, 2, 1, 0]
    step = [ActNorm, AffineImageCoupling]
    flow = realnvp_image((3, 4, 8), 2, layers=2)
    assert layers(images_of(flow)) == [*step, *step, Squeeze, *step, *step, FactorOut, [*step, *step, *step], Squeeze]
    boards = [b.mask for b in images_of(flow) if isinstance(b, AffineImageCoupling)]
    assert [b.shape for b in boards] == [(3, 4, 8)] * 2 + [(12, 1, 1)] * 2
    assert all(torch.equal(~boards[i], boards[i + 1]) for i in (0, 2)), "what passed moves next"
    rest = next(b for b in images_of(flow) if isinstance(b, FactorOut)).rest
    assert [b.mask.shape for b in rest if isinstance(b, AffineImageCoupling)] == [(6, 2, 4)] * 3


def test_settings_reach_the_layers_of_images():
    for build, count in ((glow, {"steps": 1}), (realnvp_image, {"layers": 1})):
        flow = build((1, 4, 4), 1, hidden=5, blocks=3, context_features=2, logit=0.01, **count)
        coupling = next(b for b in images_of(flow) if isinstance(b, AffineImageCoupling))
        network = coupling.network
        assert (len(network.first.bias), len(network.blocks), network.context_features) == (5, 3, 2)
        assert flow.bijection[0].lambda_ == 0.01
    assert float(images_of(realnvp_image((1, 2, 2), 1, log_scale_bound=1.5))[1].log_scale_bound) == 1.5


def small(name: str, stack: int | None = None, **settings) -> flowlab.Flow:
    """Two levels on 4×4 pixels, in float64, started from data and then shaken."""
    draw = generator(1)
    count = {"steps": 1} if name == "glow" else {"layers": 1}
    flow = OF_IMAGES[name]((1, 4, 4), 2, hidden=3, blocks=1, stack=stack, generator=draw, **count, **settings).double()
    context = settings.get("context_features")
    flow.log_prob(pixels(9, 16, stack), torch.ones(context).double() if context else None)
    for p in flow.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=draw, dtype=p.dtype)
    return flow.eval()


def pixels(n: int, features: int, stack: int | None = None) -> torch.Tensor:
    return torch.rand(*((stack,) if stack else ()), n, features, generator=generator(3), dtype=torch.float64)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_log_prob_of_images_is_that_of_the_whole_jacobian(name):
    flow, x = small(name), pixels(3, 16)
    z, log_det = flow.bijection(x)
    assert z.shape == (3, 16), "all scales in one latent"
    J = torch.stack([torch.autograd.functional.jacobian(lambda x: flow.bijection(x)[0], one) for one in x])
    torch.testing.assert_close(log_det, torch.linalg.slogdet(J).logabsdet)
    expected = torch.distributions.Normal(0, 1).log_prob(z).sum(-1) + log_det
    torch.testing.assert_close(flow.log_prob(x), expected)
    back, inverse_log_det = flow.bijection.inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_samples_of_images_are_rows_of_pixels(name):
    x = small(name).sample(7, generator(2))
    assert x.shape == (7, 16) and x.dtype == torch.float64
    assert (x >= -1e-4).all() and (x <= 1 + 1e-4).all(), "the Logit brings them back to pixels"
    flow = small(name, logit=None)
    x = flow.sample(7, generator(2))
    assert (x < -0.1).any() and torch.isfinite(flow.log_prob(x)).all()
    torch.testing.assert_close(flow.bijection(x)[0], flow.base.sample(7, generator(2)), rtol=1e-6, atol=1e-6)
    assert flow.float().sample(7, generator(2)).dtype == torch.float32


@pytest.mark.parametrize("name", OF_IMAGES)
def test_half_of_the_latent_says_nothing_of_the_coarse_half(name):
    """A level lets half of the numbers go: what they are changes nothing in the half that goes on."""
    f = images_of(small(name))
    split = next(i for i, b in enumerate(f) if isinstance(b, FactorOut))
    x = pixels(2, 16).reshape(2, 1, 4, 4)
    h = f[:split](x)[0]
    z = f[split](h)[0]
    z[:, 2:] += 1
    again = f[split].inverse(z)[0]
    torch.testing.assert_close(again[:, :2], h[:, :2], rtol=1e-9, atol=1e-9)
    assert (again[:, 2:] - h[:, 2:]).abs().min() > 1e-3


@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("stack", (None, 2))
def test_first_batch_starts_every_actnorm_of_every_level(name, stack):
    flow = OF_IMAGES[name]((1, 8, 8), 2, hidden=3, blocks=1, stack=stack, generator=generator())
    norms = [m for m in flow.modules() if isinstance(m, ActNorm)]
    # All couplings are moved off the identity first, so that a wrong order of starting would show.
    for m in flow.modules():
        if isinstance(m, AffineImageCoupling):
            last = m.network.last.weight
            last.data = 0.1 * torch.randn(last.shape, generator=generator(4))
    x = pixels(20, 64, stack).float() ** 3
    with starting(flow):
        flow.log_prob(x)
    out = []
    for m in norms:
        assert m.initialized
        m.register_forward_hook(lambda m, _, result: out.append(result[0]))
    flow.eval().log_prob(x)
    assert len(out) == len(norms) > 5
    for z in out:
        z = z.reshape(stack or 1, -1, z.shape[-1])
        torch.testing.assert_close(z.mean(1), torch.zeros_like(z[:, 0]), rtol=0, atol=1e-4)
        torch.testing.assert_close(z.std(1, correction=0), torch.ones_like(z[:, 0]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_stack_of_flows_of_images_is_separate_ones_and_mixes(name):
    flows, single, x = small(name, stack=2), small(name), pixels(5, 16, 2)
    log_p = flows.log_prob(x)
    for k in range(2):
        own = single.state_dict()
        for entry, value in flows.state_dict().items():
            own[entry] = value if value.shape == own[entry].shape else value[k]
        single.load_state_dict(own)
        torch.testing.assert_close(log_p[k], single.log_prob(x[k]))
    mixture = FlowMixture(flows.float(), hidden=(4,), generator=generator())
    assert mixture.log_prob(x[0].float()).shape == (5,) and mixture.sample(3, generator()).shape == (3, 16)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_context_moves_a_flow_of_images(name):
    flow, x = small(name, context_features=2, logit=None).float().eval(), pixels(3, 16).float()
    assert not torch.allclose(flow.log_prob(x, torch.zeros(3, 2)), flow.log_prob(x, torch.ones(3, 2)))
    assert flow.sample(3, generator(), torch.ones(2)).shape == (3, 16)


FEWER = ", or take levels=2"


@pytest.mark.parametrize(
    "build, shape, levels, words",
    (
        (glow, (1, 28, 28), 3, r"levels=3 halves height and width 3 times, but got images of 28×28: .* 32×32" + FEWER),
        (glow, (1, 27, 28), 2, r"2 times, but got images of 27×28: pad them to 28×28\."),
        (glow, (1, 7, 7), 1, r"levels=1 halves height and width once, but got images of 7×7: pad them to 8×8\."),
        (realnvp_image, (1, 14, 12), 3, r"2 times, but got images of 14×12: pad them to 16×12" + FEWER),
        (realnvp_image, (1, 7, 7), 2, r"once, but got images of 7×7: pad them to 8×8, or take levels=1"),
        (glow, (28, 28), 2, r"expected images of a shape \(C, H, W\), but got \(28, 28\)"),
        (realnvp_image, (1, 28, 0), 2, r"expected images of a shape \(C, H, W\), but got \(1, 28, 0\)"),
        (glow, (1, 28, 28), 0, "glow expected at least one level, but got 0"),
    ),
)
def test_sizes_that_do_not_halve_are_refused_with_what_would_do(build, shape, levels, words):
    with pytest.raises(ShapeError, match=words):
        build(shape, levels)


def test_odd_images_are_fine_where_nothing_halves_them():
    flow = realnvp_image((1, 7, 5), 1, hidden=2, blocks=1, generator=generator())
    assert flow.sample(2, generator()).shape == (2, 35)


def test_unknown_coupling_or_mixing_is_refused_in_words():
    with pytest.raises(ValueError, match="coupling is one of 'affine', 'additive', but 'spline' was given"):
        glow((1, 4, 4), coupling="spline")
    with pytest.raises(ValueError, match="mixing is one of 'convolution', 'shuffle', 'reverse', but 'none' was given"):
        glow((1, 4, 4), mixing="none")


@pytest.mark.parametrize("name", OF_IMAGES)
def test_weights_of_images_come_from_the_generator_alone(name):
    state = torch.get_rng_state()
    a, b, c = (OF_IMAGES[name]((1, 4, 4), 2, hidden=2, generator=generator(seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state), "the global seed was touched"
    assert all(torch.equal(a[entry], b[entry]) for entry in a)
    assert any(not torch.equal(a[entry], c[entry]) for entry in a)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_few_steps_on_digits_help(name):
    """Bits per dimension of test digits at half the resolution, with uniform noise; before, ActNorm has its start."""
    size = {"levels": 1, "steps": 3} if name == "glow" else {"levels": 2, "layers": 1}
    flow = OF_IMAGES[name]((1, 14, 14), hidden=8, blocks=1, generator=generator(), **size)
    draw = generator(1)

    def batch(split: str, n: int) -> torch.Tensor:
        v = mnist.halve(mnist.digits(split)[0][::17][:n]).flatten(1)
        return (v + torch.rand(v.shape, generator=draw)) / 256

    def bits() -> float:
        with torch.no_grad():
            return 8 - float(flow.eval()(held_out).mean()) / (196 * math.log(2))

    x, held_out = batch("train", 256), batch("test", 50)
    with starting(flow):
        flow(x)
    before = bits()
    adam = torch.optim.Adam(flow.train().parameters(), lr=1e-2)
    for _ in range(20):
        adam.zero_grad()
        (-flow(x[torch.randperm(len(x), generator=draw)[:64]]).mean()).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 500)
        adam.step()
    assert bits() < before - 0.5
