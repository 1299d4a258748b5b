"""The conditioners against torch's own layers, stacks against separate networks, and a start at zero."""

import math
from functools import reduce
from itertools import pairwise, product

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from flowlab.networks import ACTIVATIONS, MLP, ConvClassifier, Convolution, Linear, MaskedMLP, ResidualConvNet

BATCHES = ((), (5,), (2, 3), (0,))


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def shaken(network: nn.Module, seed: int = 1) -> nn.Module:
    draw = generator(seed)
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=draw)
    return network


def test_linear_is_torchs():
    """Torch's layer takes the transpose; both start uniform within ±1/√in."""
    ours, theirs = Linear(25, 4000, generator=generator()), nn.Linear(25, 4000)
    assert ours.weight.shape == (25, 4000) and ours.bias.shape == theirs.bias.shape
    x = torch.randn(3, 25, generator=generator())
    theirs.load_state_dict({"weight": ours.weight.T, "bias": ours.bias})
    torch.testing.assert_close(ours(x), theirs(x))
    for p in (ours.weight.detach(), ours.bias.detach()):
        assert 0.99 / 5 < p.abs().max() <= 1 / 5
        assert abs(float(p.mean())) < 0.01 and float(p.std()) == pytest.approx(0.2 / math.sqrt(3), rel=0.05)


def textbook(f: MLP, x: Tensor, activation: nn.Module) -> Tensor:
    for layer in f.hidden:
        x = activation(x @ layer.weight + layer.bias)
    return x @ f.last.weight + f.last.bias


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", ((), (7,), (7, 5)))
@pytest.mark.parametrize("batch", BATCHES)
def test_mlp_is_the_textbook_one(activation, hidden, batch):
    f = shaken(MLP(3, 2, hidden=hidden, activation=activation))
    assert [tuple(layer.bias.shape) for layer in (*f.hidden, f.last)] == [(n,) for _, n in pairwise((3, *hidden, 2))]
    law = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "silu": nn.SiLU(), "gelu": nn.GELU()}[activation]
    x = torch.randn(*batch, 3, generator=generator())
    before = x.clone()
    y = f(x)
    assert y.shape == (*batch, 2) and torch.equal(x, before), "the input is left as it was"
    torch.testing.assert_close(y, textbook(f, x, law))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", ((), (7, 5)))
@pytest.mark.parametrize("batch", BATCHES)
def test_stack_of_mlps_is_separate_ones(hidden, batch, activation):
    settings = {"hidden": hidden, "activation": activation}
    f, single = shaken(MLP(3, 2, stack=4, **settings)), MLP(3, 2, **settings)
    x = torch.randn(4, *batch, 3, generator=generator())
    for points in (x, x[:1].expand_as(x)):
        y = f(points)
        assert y.shape == (4, *batch, 2)
        for k in range(4):
            single.load_state_dict({name: value[k] for name, value in f.state_dict().items()})
            torch.testing.assert_close(y[k], single(points[k]))


@pytest.mark.parametrize("stack", (None, 3))
def test_mlp_starts_at_zero_and_learns_from_there(stack):
    f = MLP(3, 2, hidden=(8,), stack=stack, generator=generator())
    y = f(torch.randn(*((stack,) if stack else ()), 9, 3, generator=generator()))
    assert (y == 0).all()
    (y - 1).square().sum().backward()
    assert (f.last.weight.grad != 0).any() and (f.last.bias.grad != 0).all()
    assert (f.hidden[0].weight != 0).all()


def test_context_stands_beside_x():
    f, plain = MLP(2, 3, hidden=(6,), context_features=2), MLP(4, 3, hidden=(6,))
    plain.load_state_dict(shaken(f).state_dict())
    x, c = torch.randn(2, 5, 2, generator=generator()), torch.randn(2, 5, 2, generator=generator(3))
    torch.testing.assert_close(f(x, c), plain(torch.cat((x, c), -1)))
    torch.testing.assert_close(f(x, c[0, 0]), plain(torch.cat((x, c[0, 0].expand(2, 5, 2)), -1)))


@pytest.mark.parametrize(
    "built, given, words",
    (
        (2, None, "2 context features, but got none"),
        (2, 3, "2 context features, but got 3"),
        (0, 3, "no context .* 3"),
    ),
)
def test_wrong_context_is_refused_in_words(built, given, words):
    with pytest.raises(ValueError, match=words):
        MLP(2, 2, context_features=built)(torch.zeros(5, 2), None if given is None else torch.zeros(5, given))


def test_unknown_activation_is_refused_in_words():
    with pytest.raises(ValueError, match=r"among \['gelu', 'relu', 'silu', 'tanh'\], but got 'sine'"):
        MLP(2, 2, activation="sine")


def test_weights_come_from_the_generator_alone():
    state = torch.get_rng_state()
    a, b, c = (MLP(3, 2, generator=generator(seed)).hidden[0].weight for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state), "the global seed was touched"
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_stack_starts_with_different_weights():
    weight = MLP(3, 2, stack=2, generator=generator()).hidden[0].weight
    assert len(weight) == 2 and not torch.equal(weight[0], weight[1])


# --- MADE -------------------------------------------------------------------------------------------------------------

WIDTHS = ((), (1,), (2,), (3, 9), (9, 2, 5), (16, 16))


def masked(D: int, hidden: tuple[int, ...] = (9, 7), how: str = "natural", seed: int = 0, **settings) -> MaskedMLP:
    order = {"natural": None, "last first": range(D - 1, -1, -1)}.get(how, torch.randperm(D, generator=generator(seed)))
    random = how == "random degrees"
    return MaskedMLP(D, 3, hidden=hidden, order=order, random_degrees=random, generator=generator(seed), **settings)


def paths(f: MaskedMLP) -> Tensor:
    """How many ways lead from each input to each output through the masks: ``(in, P, D)``."""
    return reduce(torch.matmul, [layer.mask for layer in (*f.hidden, f.last)]).unflatten(-1, f.shape)


@pytest.mark.parametrize("how", ("natural", "last first", "shuffled", "random degrees"))
@pytest.mark.parametrize("context", (0, 2))
@pytest.mark.parametrize("D", (1, 2, 3, 8))
def test_masks_let_an_output_see_only_what_comes_before_it(D, context, how):
    for hidden, seed in product(WIDTHS, range(3)):
        f = masked(D, hidden, how, seed, context_features=context)
        seen, before = paths(f) > 0, f.place.unsqueeze(-1) < f.place  # from input j to output i
        assert sorted(f.place.tolist()) == list(range(1, D + 1))
        assert not (seen[:D] & ~before.unsqueeze(1)).any(), "an output sees itself or what comes after"
        if how != "random degrees" and min(hidden, default=D) >= D:
            assert torch.equal(seen[:D], before.unsqueeze(1).expand(D, 3, D)), "and it sees all that comes before"
        if how != "random degrees" and len(hidden) == 1 and not context:
            last = int(f.place.argmax())
            assert seen[:D, :, last].sum() == 3 * (D - 1), "the last output sees all others, however few the units"
        if context and hidden and min(hidden) >= D and how != "random degrees":
            assert seen[D:].all(), "context reaches every output, the first one too"


@pytest.mark.parametrize("how", ("natural", "last first", "shuffled", "random degrees"))
@pytest.mark.parametrize("stack", (None, 2))
def test_jacobian_has_the_pattern_of_the_masks(how, stack):
    f = shaken(masked(5, (12, 11), how, context_features=1, activation="tanh", stack=stack)).double()
    lead = () if stack is None else (stack,)
    x = torch.randn(*lead, 4, 5, generator=generator(), dtype=torch.float64)
    c = torch.randn(*lead, 4, 1, generator=generator(1), dtype=torch.float64)
    J = torch.autograd.functional.jacobian(lambda x: f(x, c).sum(tuple(range(x.ndim - 1))), x)  # (P, D, ..., D)
    depends = (J != 0).flatten(2, -2).any(2)
    assert torch.equal(depends, (paths(f) > 0)[:5].permute(1, 2, 0)), "smooth units use every way there is"


def test_order_says_who_comes_first():
    f = MaskedMLP(3, hidden=(4,), order=[2, 0, 1])
    assert f.place.tolist() == [2, 3, 1]
    seen = paths(f)[:, 0] > 0
    assert seen.tolist() == [[False, True, False], [False, False, False], [True, True, False]]


def test_degrees_are_spread_evenly_or_drawn():
    def degrees(D: int, hidden: tuple[int, ...], **settings) -> list[list[int]]:
        f = MaskedMLP(D, hidden=hidden, generator=generator(), **settings)
        return [part.tolist() for part in f.degrees.split([D + f.context_features, *hidden])][1:]

    assert degrees(5, (8, 2)) == [[1, 1, 2, 2, 3, 3, 4, 4], [2, 4]]
    assert degrees(4, (4,), context_features=3) == [[0, 1, 2, 3]]
    assert degrees(1, (2,)) == [[0, 0]] and degrees(2, (2,)) == [[1, 1]]
    first, second = degrees(9, (400, 300), random_degrees=True)
    assert set(first) == set(second) == set(range(1, 9)) and first != sorted(first)
    for seed in range(20):
        f = MaskedMLP(9, hidden=(2, 50), random_degrees=True, generator=generator(seed))
        _, first, second = f.degrees.split([9, 2, 50])
        assert second.min() >= first.min(), "no unit that sees nothing"


def test_masked_mlp_is_the_textbook_one():
    f = shaken(masked(4, (6, 5), "shuffled"))
    x = torch.randn(2, 3, 4, generator=generator())
    plain = MLP(4, 12, hidden=(6, 5))
    weights = {name: value for name, value in f.state_dict().items() if name != "degrees"}
    for name, layer in (("hidden.0", f.hidden[0]), ("hidden.1", f.hidden[1]), ("last", f.last)):
        weights[f"{name}.weight"] = weights[f"{name}.weight"] * layer.mask
    plain.load_state_dict(weights)
    y = f(x)
    assert y.shape == (2, 3, 3, 4)
    torch.testing.assert_close(y, plain(x).reshape(2, 3, 3, 4))
    assert (MaskedMLP(4, 2, generator=generator())(x) == 0).all()


@pytest.mark.parametrize("stack", (None, 2))
def test_weights_bring_their_degrees_along(stack):
    f = shaken(masked(5, (6, 6), "random degrees", seed=1, stack=stack))
    other = masked(5, (6, 6), "last first", seed=2, stack=stack)
    other.load_state_dict(f.state_dict())
    x = torch.randn(2, 3, 5, generator=generator())
    assert torch.equal(other(x), f(x)) and torch.equal(other.place, f.place)
    assert not any("mask" in name for name in f.state_dict()), "masks follow from degrees, and are large"


def test_stack_of_masked_mlps_is_separate_ones():
    f, single = shaken(masked(4, how="shuffled", stack=3)), masked(4, how="shuffled")
    x = torch.randn(3, 6, 4, generator=generator())
    for k in range(3):
        single.load_state_dict({name: p if name == "degrees" else p[k] for name, p in f.state_dict().items()})
        torch.testing.assert_close(f(x)[k], single(x[k]))


@pytest.mark.parametrize("order", ([0, 0], [1, 2], [0], [0, 1, 2]))
def test_order_that_is_none_is_refused_in_words(order):
    with pytest.raises(ValueError, match=rf"an order of 0 to 1, but got .*{order[-1]}\]"):
        MaskedMLP(2, order=order)


@pytest.mark.parametrize("stack", (None, 2))
def test_masks_are_applied_once_for_many_passes_and_anew_after_them(stack):
    f, x = shaken(masked(4, stack=stack)), torch.randn(2, 5, 4, generator=generator())
    before, layers = f(x), (*f.hidden, f.last)
    with pytest.raises(KeyboardInterrupt), f.masked_once():
        assert torch.equal(f(x), before)
        f(x).sum().backward()
        for layer in layers:
            layer.mask.zero_()
        assert torch.equal(f(x), before), "masks are not looked at again"
        f._cut()
        shaken(f, seed=9)
        raise KeyboardInterrupt
    assert all((layer.weight.grad != 0).any() for layer in layers)
    fresh = masked(4, stack=stack)
    fresh.load_state_dict(f.state_dict())
    assert torch.equal(f(x), fresh(x)), "new weights count, also after a pass that was interrupted"
    assert not torch.allclose(f(x), before)


@pytest.mark.parametrize("hidden", ((), (7,), (16, 3), (8, 8, 8)))
@pytest.mark.parametrize("widths", ((1, 2), (3, 9), (6, 5)))
def test_a_stack_differentiates_as_autograd_does(hidden, widths):
    """A stack's gradients are written by hand; torch.func, and a second derivative, take autograd's way."""
    f = shaken(MLP(*widths, hidden=hidden, stack=3, generator=generator())).double()
    x = torch.randn(3, 10, widths[0], dtype=torch.float64, generator=generator(2), requires_grad=True)
    g = torch.randn(3, 10, widths[1], dtype=torch.float64, generator=generator(3))
    parameters = dict(f.named_parameters())

    def autograds(x: Tensor) -> Tensor:
        for layer in f.hidden:
            x = (x @ layer.weight + layer.bias.unsqueeze(1)).relu()
        return x @ f.last.weight + f.last.bias.unsqueeze(1)

    def gradients(y: Tensor, **settings) -> tuple[Tensor, ...]:
        return torch.autograd.grad(y, (x, *parameters.values()), g, **settings)

    y = f(x)
    assert "StackedMLP" in type(y.grad_fn).__name__, "this test is about the gradient by hand"
    torch.testing.assert_close(y, autograds(x))
    torch.testing.assert_close(gradients(y, retain_graph=True), gradients(autograds(x)))
    torch.testing.assert_close(gradients(y), gradients(autograds(x)), msg="backward left its inputs changed")
    second = [
        torch.autograd.grad(sum(d.square().sum() for d in gradients(y, create_graph=True)), x)[0]
        for y in (f(x), autograds(x))
    ]
    torch.testing.assert_close(*second)
    by_func = torch.func.grad(lambda p: (torch.func.functional_call(f, p, (x,)) * g).sum())(parameters)
    torch.testing.assert_close(tuple(by_func.values()), gradients(f(x))[1:])
    for needed in (x, *parameters.values()):  # whatever is frozen, the rest is as before
        torch.testing.assert_close(torch.autograd.grad(f(x), needed, g), torch.autograd.grad(autograds(x), needed, g))


# --- networks of images -----------------------------------------------------------------------------------------------


def test_convolution_is_torchs():
    """Both start uniform within ±1/√(9 in)."""
    ours, theirs = Convolution(25, 400, generator=generator()), nn.Conv2d(25, 400, 3, padding=1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 25, 4, 5, generator=generator())
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x[0]), theirs(x)[0])
    for p in (ours.weight.detach(), ours.bias.detach()):
        assert 0.98 / 15 < p.abs().max() <= 1 / 15
        assert abs(float(p.mean())) < 0.005 and float(p.std()) == pytest.approx(1 / 15 / math.sqrt(3), rel=0.07)
    zero = Convolution(2, 3, zero=True, stack=2)
    assert not any(p.any() for p in zero.parameters())


@pytest.mark.parametrize("blocks", (0, 1, 2))
@pytest.mark.parametrize("batch", BATCHES)
def test_residual_network_is_the_textbook_one(blocks, batch):
    f = shaken(ResidualConvNet(3, 2, 5, blocks))
    x = torch.randn(*batch, 3, 4, 6, generator=generator())
    before = x.clone()
    y = f(x)
    assert y.shape == (*batch, 2, 4, 6) and torch.equal(x, before), "the input is left as it was"

    def convolve(layer: nn.Module, h: Tensor) -> Tensor:
        return F.conv2d(h, layer.weight, layer.bias, padding=1)

    h = convolve(f.first, x.reshape(-1, 3, 4, 6))
    assert len(f.blocks) == blocks and h.shape[1] == 5
    for one, two in f.blocks:
        h = h + convolve(two, F.relu(convolve(one, F.relu(h))))
    torch.testing.assert_close(y, convolve(f.last, F.relu(h)).reshape(y.shape))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("context", (0, 2))
def test_stack_of_residual_networks_is_separate_ones(batch, context):
    settings = {"hidden": 5, "blocks": 1, "context_features": context}
    f, single = shaken(ResidualConvNet(3, 2, stack=4, **settings)).double(), ResidualConvNet(3, 2, **settings).double()
    x = torch.randn(4, *batch, 3, 2, 3, generator=generator()).double()
    c = torch.randn(4, *batch, context, generator=generator()).double() if context else None
    for images in (x, x[:1].expand_as(x)):
        y = f(images, c)
        assert y.shape == (4, *batch, 2, 2, 3)
        for k in range(4):
            single.load_state_dict({name: value[k] for name, value in f.state_dict().items()})
            torch.testing.assert_close(y[k], single(images[k], None if c is None else c[k]))


@pytest.mark.parametrize("stack", (None, 3))
def test_residual_network_starts_at_zero_and_learns_from_there(stack):
    f = ResidualConvNet(3, 2, 8, stack=stack, generator=generator())
    y = f(torch.randn(*((stack,) if stack else ()), 9, 3, 4, 4, generator=generator()))
    assert (y == 0).all()
    (y - 1).square().sum().backward()
    assert (f.last.weight.grad != 0).any() and (f.last.bias.grad != 0).all()
    layers = [f.first, *(layer for block in f.blocks for layer in block)]
    assert all((p != 0).all() for layer in layers for p in layer.parameters())
    if stack:
        assert not torch.equal(f.first.weight[0], f.first.weight[1])


@pytest.mark.parametrize("blocks, reach", ((0, 2), (1, 4)))
def test_how_far_a_pixel_sees(blocks, reach):
    f = shaken(ResidualConvNet(1, 1, 4, blocks)).double()
    x = torch.randn(1, 1, 13, generator=generator()).double().requires_grad_()
    f(x)[0, 0, 6].backward()
    seen = (x.grad.flatten() != 0).nonzero().flatten()
    assert (int(seen.min()), int(seen.max())) == (6 - reach, 6 + reach)


def test_context_of_images_stands_beside_each_pixel():
    f, plain = ResidualConvNet(2, 3, 6, context_features=2), ResidualConvNet(4, 3, 6)
    plain.load_state_dict(shaken(f).state_dict())
    x, c = torch.randn(5, 2, 4, 3, generator=generator()), torch.randn(5, 2, generator=generator(3))
    torch.testing.assert_close(f(x, c), plain(torch.cat((x, c[:, :, None, None].expand(5, 2, 4, 3)), 1)))
    torch.testing.assert_close(f(x, c[0])[0], f(x, c)[0])
    with pytest.raises(ValueError, match="2 context features, but got none"):
        f(x)
    with pytest.raises(ValueError, match="no context features, but got 2"):
        plain(x, c)


def test_weights_of_a_residual_network_come_from_the_generator_alone():
    state = torch.get_rng_state()
    a, b, c = (ResidualConvNet(2, 2, 3, generator=generator(seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state), "the global seed was touched"
    assert all(torch.equal(a[name], b[name]) for name in a) and not torch.equal(a["first.weight"], c["first.weight"])


@pytest.mark.parametrize("stack", (None, 3))
def test_forward_mode_finds_the_same_derivatives(stack):
    """Tangents, by torch.func or by hand, go through ReLU as the Jacobian says, for inputs and for weights."""
    f = shaken(MLP(1, 2, hidden=(8, 8), stack=stack)).double()
    shape = (3, 6, 1) if stack else (6, 1)
    x, v = (torch.randn(shape, dtype=torch.float64, generator=generator(seed)) for seed in (2, 3))
    wanted = torch.einsum(
        "...a,...a->...", torch.autograd.functional.jacobian(f, x).flatten(-x.ndim), v.flatten().expand(*f(x).shape, -1)
    )
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(torch.func.jvp(f, (x,), (v,)), (f(x), wanted))
    for grad in (True, False):
        with torch.set_grad_enabled(grad), forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(x, v))).tangent
        torch.testing.assert_close(tangent, wanted)
    weights = dict(f.named_parameters())
    turned = {name: p.detach().cos() for name, p in weights.items()}
    y = torch.func.jvp(lambda p: torch.func.functional_call(f, p, (x,)), (weights,), (turned,))[1]
    slope = [
        torch.func.functional_call(f, {n: p + e * turned[n] for n, p in weights.items()}, (x,)) for e in (1e-6, -1e-6)
    ]
    torch.testing.assert_close(y, (slope[0] - slope[1]) / 2e-6, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("side", (5, 8))
def test_conv_classifier_is_torchs_convolutions_and_a_linear_layer(batch, side):
    f = shaken(ConvClassifier(3, side, channels=(2, 4)))
    x = torch.rand(*batch, side**2, generator=generator())
    before, y = x.clone(), f(x)
    assert y.shape == (*batch, 3) and torch.equal(x, before), "the input is left as it was"
    h = 2 * x.reshape(x.shape[:-1].numel(), 1, side, side) - 1
    for W, b in zip(f.weights, f.biases, strict=True):
        layer = nn.Conv2d(W.shape[1], W.shape[0], 3, stride=2, padding=1)
        layer.load_state_dict({"weight": W, "bias": b})
        h = layer(h).relu()
    torch.testing.assert_close(y, (h.flatten(1) @ f.last.weight + f.last.bias).reshape(y.shape))


def test_conv_classifier_keeps_the_scale_and_tells_classes_apart_from_the_start():
    """He's bound: at the start, the deviation of what comes out does not fade with the depth."""
    x = torch.rand(500, 32**2, generator=generator())
    deep = ConvClassifier(10, 32, channels=(32,) * 5, generator=generator())
    assert float(deep(x).detach().std(0).mean()) > 0.02
    assert torch.equal(deep(x), ConvClassifier(10, 32, channels=(32,) * 5, generator=generator())(x))
    assert not torch.equal(deep(x), ConvClassifier(10, 32, channels=(32,) * 5, generator=generator(1))(x))
