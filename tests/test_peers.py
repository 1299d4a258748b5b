"""Log-probabilities against other people's code: torch.distributions, and flows of zuko with the same weights."""

import math

import pytest
import torch
import torch.distributions as td
from torch import Generator, Tensor, nn

from flowlab import Flow, nice, realnvp, spline_flow
from flowlab.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijection,
    Chain,
    FullAffine,
    Inverse,
    Logit,
    LULinear,
    MaskedAutoregressive,
    Monotone,
    ScaleShift,
    SplineCoupling,
)
from flowlab.densities import StandardLogistic, StandardNormal
from flowlab.models import maf

TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def shaken(flow: Flow, spread: float = 0.3) -> Flow:
    """The flow in float64 with random weights, in evaluation mode."""
    draw = generator(5)
    for p in flow.double().parameters():
        p.data += spread * torch.randn(p.shape, generator=draw, dtype=p.dtype)
    return flow.eval().requires_grad_(False)


def points(n: int, D: int, spread: float = 1.5) -> Tensor:
    return spread * torch.randn(n, D, generator=generator(6), dtype=torch.float64)


# --- torch.distributions ----------------------------------------------------------------------------------------------


def assert_is_torchs(f: Bijection, transform: td.Transform, x: Tensor) -> None:
    """``transform`` maps z to x, as torch.distributions does: the inverse of ours."""
    D = x.shape[-1]
    flow = Flow(f, StandardNormal(D).double())
    theirs = td.TransformedDistribution(td.Independent(td.Normal(x.new_zeros(D), x.new_ones(D)), 1), [transform])
    log_p = theirs.log_prob(x)
    torch.testing.assert_close(flow.log_prob(x), log_p if log_p.ndim < x.ndim else log_p.sum(-1), **TIGHT)
    z, log_det = f(x)
    back, inverse_log_det = f.inverse(z)
    torch.testing.assert_close(transform(z), back, **TIGHT)
    theirs_log_det = transform.log_abs_det_jacobian(z, back)
    if theirs_log_det.ndim == x.ndim:
        theirs_log_det = theirs_log_det.sum(-1)
    torch.testing.assert_close(theirs_log_det.expand_as(log_det), inverse_log_det, **TIGHT)


def test_scale_and_shift():
    f = shaken(Flow(ScaleShift(3), StandardNormal(3))).bijection
    s, t = f.log_scale.exp(), f.shift
    assert_is_torchs(f, td.AffineTransform(-t / s, 1 / s), points(20, 3))


def test_logit_is_the_inverse_sigmoid():
    assert_is_torchs(Logit(), td.SigmoidTransform(), points(20, 2).sigmoid())
    assert_is_torchs(Inverse(Logit()), td.SigmoidTransform().inv, points(20, 2))


@pytest.mark.parametrize(
    "f, transform, x",
    (
        (Monotone(torch.log, torch.exp), td.ExpTransform(), points(20, 2).exp()),
        (Monotone(torch.atanh, interval=(-0.999999, 0.999999)), td.TanhTransform(), (points(20, 2) / 2).tanh()),
        (
            Monotone(lambda x: x**3, interval=(0, 9)),
            td.PowerTransform(torch.tensor(1 / 3, dtype=torch.float64)),
            points(20, 2).abs() + 0.1,
        ),
        (
            Inverse(Monotone(nn.functional.softplus, interval=(-40, 40))),
            td.SoftplusTransform(),
            points(20, 2).abs() + 0.1,
        ),
    ),
    ids=("log", "atanh, numeric", "cube, numeric", "softplus, numeric"),
)
def test_monotone_functions(f, transform, x):
    assert_is_torchs(f, transform, x)


def test_full_affine_makes_the_multivariate_normal():
    f = shaken(Flow(FullAffine(4), StandardNormal(4))).bijection
    A, b, z = f.matrix, f.shift, points(30, 4)
    pushed = Flow(Inverse(f), StandardNormal(4).double())  # x = A z + b
    truth = td.MultivariateNormal(b, A @ A.mT)
    torch.testing.assert_close(pushed.log_prob(z), truth.log_prob(z), **TIGHT)


def test_lu_linear_makes_the_multivariate_normal():
    f = shaken(Flow(LULinear(4, generator=generator()), StandardNormal(4))).bijection
    W = f(torch.eye(4, dtype=torch.float64))[0].mT
    x = points(30, 4)
    truth = td.MultivariateNormal(x.new_zeros(4), precision_matrix=W.mT @ W)
    torch.testing.assert_close(Flow(f, StandardNormal(4).double()).log_prob(x), truth.log_prob(x), **TIGHT)


def test_chain_composes():
    f = shaken(Flow(Chain([Logit(), ScaleShift(2), Inverse(Logit())]), StandardNormal(2))).bijection
    s, t = f[1].log_scale.exp(), f[1].shift
    sigmoid = td.SigmoidTransform()
    assert_is_torchs(
        f, td.ComposeTransform([sigmoid.inv, td.AffineTransform(-t / s, 1 / s), sigmoid]), points(20, 2).sigmoid()
    )


# --- zuko -------------------------------------------------------------------------------------------------------------

SLOPE = 1e-300  # zuko bounds every log-scale v softly, v / (1 + |v / log SLOPE|): far out, and undone by `unclipped`
CLIP = -math.log(SLOPE)


@pytest.fixture(scope="module")
def zuko():
    return pytest.importorskip("zuko")


def unclipped(value: Tensor, clip: float = CLIP) -> Tensor:
    """What zuko's soft bound takes to ``value``."""
    return value / (1 - (value / clip).abs())


def zuko_coupling(zuko, layer: Bijection, univariate, shapes, order: Tensor) -> nn.Module:
    """zuko's coupling with our mask and our weights; ``order`` sorts our outputs by feature, as zuko has them."""
    mask = torch.zeros(layer.event_shape[0], dtype=torch.bool)
    mask[layer.order[: layer.sizes[0]]] = True
    linears = [*layer.conditioner.hidden, layer.conditioner.last]
    theirs = zuko.flows.GeneralCouplingTransform(
        len(mask),
        layer.conditioner.context_features,
        mask,
        univariate,
        shapes,
        hidden_features=[len(linear.bias) for linear in linears[:-1]],
    ).double()
    weights = [p for linear in linears[:-1] for p in (linear.weight.mT, linear.bias)]
    weights += [linears[-1].weight.mT[order], linears[-1].bias[order]]
    for p, value in zip(theirs.hyper.parameters(), weights, strict=True):
        p.data.copy_(value)
    return theirs.requires_grad_(False)


def zuko_affine(zuko, layer: AffineCoupling | MaskedAutoregressive):
    def affine(s: Tensor, t: Tensor) -> td.Transform:
        s = layer.law.bound * torch.tanh(s)  # our bound in place of theirs
        return zuko.transforms.MonotonicAffineTransform(t, unclipped(s), slope=SLOPE)

    return affine


def zuko_autoregressive(zuko, layer: MaskedAutoregressive) -> nn.Module:
    """zuko's layer with our order and weights. Ours takes the degrees of its hidden units, which are dealt in turn."""
    network, D = layer.conditioner, layer.event_shape[0]
    theirs = zuko.flows.MaskedAutoregressiveTransform(
        D,
        network.context_features,
        order=network.place - 1,
        univariate=zuko_affine(zuko, layer),
        hidden_features=[len(linear.bias) for linear in network.hidden],
    ).double()
    linears = [part for part in theirs.hyper if hasattr(part, "mask")]
    degrees = [network.degrees[: D + network.context_features], linears[0].mask[:, :D].sum(-1)]
    for linear in linears[1:-1]:
        degrees.append((linear.mask * degrees[-1]).amax(-1))
    layer.load_state_dict({**layer.state_dict(), "conditioner.degrees": torch.cat(degrees)})
    by_feature = torch.arange(2 * D).reshape(2, D).T.flatten()
    for linear, own in zip(linears, (*network.hidden, network.last), strict=True):
        to = by_feature if own is network.last else slice(None)
        assert torch.equal(own.mask.mT[to].bool(), linear.mask), "the masks are zuko's"
        linear.weight.data.copy_(own.weight.mT[to])
        linear.bias.data.copy_(own.bias[to])
    return theirs.requires_grad_(False)


def zuko_layer(zuko, layer: Bijection) -> nn.Module:
    if isinstance(layer, ActNorm | ScaleShift):
        shift = torch.zeros_like(layer.log_scale) if layer.shift is None else layer.shift
        return zuko.lazy.UnconditionalTransform(
            zuko.transforms.MonotonicAffineTransform, shift, unclipped(layer.log_scale), slope=SLOPE, buffer=True
        )
    if isinstance(layer, MaskedAutoregressive):
        return zuko_autoregressive(zuko, layer)
    D_b = layer.sizes[1]
    if isinstance(layer, AdditiveCoupling):
        return zuko_coupling(zuko, layer, zuko.transforms.AdditiveTransform, ((),), torch.arange(D_b))
    if isinstance(layer, AffineCoupling):
        return zuko_coupling(
            zuko, layer, zuko_affine(zuko, layer), ((), ()), torch.arange(2 * D_b).reshape(2, D_b).T.flatten()
        )

    def spline(w: Tensor, h: Tensor, d: Tensor) -> td.Transform:
        shares = (0.001 + (1 - 0.001 * K) * raw.softmax(-1) for raw in (w, h))
        w, h = (unclipped(share.log() - share.log().mean(-1, keepdim=True), CLIP / 2) for share in shares)
        d = unclipped((0.001 + nn.functional.softplus(d + math.log(math.exp(0.999) - 1))).log())
        return zuko.transforms.MonotonicRQSTransform(w, h, d, bound=layer.law.bound, slope=SLOPE)

    K = layer.law.bins
    return zuko_coupling(zuko, layer, spline, ((K,), (K,), (K - 1,)), torch.arange(D_b * (3 * K - 1)))


def zuko_flow(zuko, flow: Flow) -> nn.Module:
    def logistic(low: Tensor, high: Tensor) -> td.Distribution:
        return td.Independent(td.TransformedDistribution(td.Uniform(low, high), td.SigmoidTransform().inv), 1)

    law = {StandardNormal: zuko.distributions.DiagNormal, StandardLogistic: logistic}[type(flow.base)]
    zero, one = torch.zeros(flow.base.features).double(), torch.ones(flow.base.features).double()
    base = zuko.lazy.UnconditionalDistribution(law, zero, one, buffer=True)
    return zuko.lazy.Flow([zuko_layer(zuko, layer) for layer in flow.bijection], base)


FIRST_TWO = [True, True, False, False, False]
FLOWS = {
    "nice": lambda: nice(5, hidden=(8, 8)),
    "nice, normal": lambda: nice(2, 3, hidden=(8,), prior="normal"),
    "realnvp": lambda: realnvp(2, hidden=(16, 16)),
    "realnvp, odd": lambda: realnvp(5, 4, hidden=(8,), log_scale_bound=0.7),
    "realnvp, context": lambda: realnvp(3, 4, hidden=(8,), context_features=2),
    "spline_flow": lambda: spline_flow(2, 4, hidden=(16,), guarded=False),
    "spline_flow, context": lambda: spline_flow(
        5, 3, hidden=(8,), bins=5, bound=2.5, guarded=False, context_features=2
    ),
    "maf": lambda: maf(5, 3, hidden=(16, 14)),
    "maf, narrow": lambda: maf(6, 2, hidden=(4,), log_scale_bound=0.7),
    "maf, context": lambda: maf(3, 4, hidden=(8, 8), context_features=2),
    "blocks": lambda: Flow(
        Chain(
            [
                AffineCoupling(FIRST_TWO, (8,)),
                AdditiveCoupling([not passes for passes in FIRST_TWO], (8,)),
                SplineCoupling([False, False, True, True, False], (8,), guarded=False),
            ]
        ),
        StandardNormal(5),
    ),
}


@pytest.mark.parametrize("name", FLOWS)
def test_same_weights_give_the_same_log_prob_and_samples_as_zuko(zuko, name):
    flow = shaken(FLOWS[name]())
    theirs, D = zuko_flow(zuko, flow), flow.base.features
    x = points(200, D)
    context = points(200, 2) if "context" in name else None
    distribution = theirs(context)
    log_p = flow.log_prob(x, context)
    torch.testing.assert_close(log_p, distribution.log_prob(x), **TIGHT)
    assert (log_p - flow.base.log_prob(x)).abs().mean() > 0.1, "the weights do something"
    z = points(200, D)
    torch.testing.assert_close(flow.bijection.inverse(z, context)[0], distribution.transform.inv(z), **TIGHT)
