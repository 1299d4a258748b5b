"""Mixtures of flows: the bound and its terms, Fisher's identity, closed forms, labels, and what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import flowlab
from flowlab import densities, metrics
from flowlab.bijections import Chain, FullAffine, ScaleShift, SinhArcsinh
from flowlab.datasets import EightGaussians, Pinwheel, TwoCircles
from flowlab.densities import Flow, GaussianMixture, StandardNormal
from flowlab.densities.mixtures import (
    EMGaussianMixture,
    FlowMixture,
    Interleaved,
    LatentGaussianMixture,
    Mixture,
    Objective,
    consistent_posterior,
    falling_temperature,
    supervised,
    variational,
)
from flowlab.densities.mixtures.variational import _walks, mutual_information
from flowlab.models import realnvp
from flowlab.training import Step

KINDS = ("stack", "list", "shared", "latent")


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def shaken(module: nn.Module, seed: int, scale: float = 0.5) -> nn.Module:
    """Away from the identity at which flows start, in float64."""
    g = generator(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=g))
    return module.double()


def base_of(K: int, D: int, seed: int, trainable: bool = True) -> densities.GaussianMixture:
    g = generator(seed)
    A = torch.randn(K, D, D, generator=g, dtype=torch.float64)
    return densities.GaussianMixture(
        2 * torch.randn(K, D, generator=g, dtype=torch.float64),
        A @ A.mT + 0.5 * torch.eye(D),
        weights=torch.rand(K, generator=g, dtype=torch.float64).add(0.2).softmax(-1),
        trainable=trainable,
    )


def mixture(kind: str = "stack", K: int = 3, D: int = 2, seed: int = 0, **settings) -> Mixture:
    """A mixture of random flows with learned, unequal weights and a random q; smooth, for finite differences."""
    flows = {"layers": 2, "hidden": (5,), "activation": "tanh", "standardize": False, "generator": generator(seed)}
    if kind == "latent":
        return LatentGaussianMixture(shaken(flowlab.realnvp(D, **flows).bijection, seed), base_of(K, D, seed))
    if kind == "list":
        parts = [
            Flow(
                Chain([ScaleShift(D), *flowlab.realnvp(D, **flows).bijection, SinhArcsinh(D)][: 2 + k]),
                StandardNormal(D),
            )
            for k in range(K)
        ]
    else:
        parts = flowlab.realnvp(D, stack=K, **flows)
    shared = flowlab.realnvp(D, **flows).bijection if kind == "shared" else None
    network = flowlab.networks.MLP(D, K, hidden=(6,), activation="tanh", generator=generator(seed))
    settings = {"learn_weights": True, "posterior": network, **settings}
    return shaken(FlowMixture(parts, shared=shared, **settings), seed)


def points(N: int = 12, D: int = 2, seed: int = 0) -> Tensor:
    return 2 * torch.randn(N, D, generator=generator(seed), dtype=torch.float64)


def step(index: int = 0, total: int = 100, seed: int = 0) -> Step:
    return Step(index, total, generator(seed))


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# --- the bound ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@given(
    seed=st.integers(0, 2**31), K=st.integers(2, 5), D=st.integers(2, 4), sharp=st.sampled_from((0.1, 1.0, 10.0, 1e3))
)
def test_no_q_lifts_the_bound_above_the_likelihood_and_the_exact_posterior_reaches_it(kind, seed, K, D, sharp):
    model, x = mixture(kind, K, D, seed), points(20, D, seed)
    log_p = model.log_prob(x)
    log_q = (sharp * torch.randn(20, K, generator=generator(seed), dtype=torch.float64)).log_softmax(-1)
    for bound in (model.elbo(x), model.elbo(x, 0.1), model.elbo(x, log_posterior=log_q)):
        assert bound.total.shape == (20,) and bool((bound.total <= log_p + 1e-9).all())
    exact = model.elbo(x, log_posterior=model.log_responsibilities(x))
    torch.testing.assert_close(exact.total, log_p, rtol=1e-9, atol=1e-9)
    # The gap is the divergence of q from the exact posterior, and not just above zero.
    q, r = log_q.exp(), model.responsibilities(x)
    gap = torch.where(q > 0, q * (log_q - model.log_responsibilities(x)), 0.0).sum(-1)
    torch.testing.assert_close(log_p - model.elbo(x, log_posterior=log_q).total, gap, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(r.sum(-1), torch.ones_like(log_p))


@pytest.mark.parametrize("kind", KINDS)
def test_terms_are_what_they_say_and_sum_to_the_bound(kind):
    model, x = mixture(kind), points()
    bound, q = model.elbo(x, 0.7), model.posterior(x, 0.7)
    torch.testing.assert_close(bound.reconstruction, (q * model.log_prob_components(x)).sum(-1))
    prior, entropy = (q * model.weights.log()).sum(-1), torch.special.entr(q).sum(-1)
    torch.testing.assert_close(bound.minus_kl, prior + entropy)
    assert bool((bound.minus_kl <= 1e-12).all())
    torch.testing.assert_close(bound.total, (q * model.log_joint(x)).sum(-1) + entropy)


def test_equal_weights_make_the_prior_term_a_constant():
    model, x = mixture(weights=torch.full((3,), 1 / 3), learn_weights=False), points()
    model.logits.data.fill_(0.0)
    q = model.posterior(x)
    torch.testing.assert_close(model.elbo(x).minus_kl, torch.special.entr(q).sum(-1) - math.log(3))


@pytest.mark.parametrize("shape", ((2,), (7, 2), (3, 4, 2), (0, 2)))
@pytest.mark.parametrize("kind", ("list", "stack", "shared", "latent"))
def test_shapes(kind, shape):
    model = mixture(kind)
    x = torch.randn(shape, dtype=torch.float64, generator=generator(0))
    batch = shape[:-1]
    assert model.log_prob(x).shape == model(x).shape == model.elbo(x).total.shape == batch
    for value in (model.log_prob_components(x), model.log_joint(x), model.posterior(x), model.responsibilities(x)):
        assert value.shape == (*batch, 3)
    flat = model.log_prob(x.reshape(-1, 2))
    torch.testing.assert_close(model.log_prob(x).reshape(-1), flat)


def test_far_and_certain_points_stay_finite():
    model = mixture()
    for x in (torch.full((1, 2), 1e4, dtype=torch.float64), torch.full((1, 2), -1e6, dtype=torch.float64)):
        bound = model.elbo(x, 1e-3)
        assert torch.isfinite(bound.total) and torch.isfinite(bound.minus_kl)
        grads = gradients(model, -(bound.total + model.log_prob(x)).sum())
        assert all(torch.isfinite(g).all() for g in grads.values())
    sure = torch.tensor([[0.0, -math.inf, -math.inf]], dtype=torch.float64)
    bound = model.elbo(points(1), log_posterior=sure)
    torch.testing.assert_close(bound.total, model.log_joint(points(1))[:, 0])


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**31))
def test_generalized_em_has_the_value_and_the_gradient_of_the_likelihood(kind, seed):
    """Fisher's identity: ∇ log p(x) = E_{p(k|x)}[∇ log p(x, k)]."""
    model, x = mixture(kind, seed=seed), points(seed=seed)
    em, direct = (Objective(how)(model, x, step()) for how in ("em", "likelihood"))
    assert em.item() == pytest.approx(direct.item(), abs=1e-9)
    a, b = gradients(model, em), gradients(model, direct)
    assert a.keys() == b.keys() and len(a) > 5 and not any(name.startswith("network") for name in a)
    assert max(float(g.abs().max()) for g in a.values()) > 1e-3
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-9)


LOSSES = {
    "elbo": Objective(),
    "elbo, sharpened": Objective(temperature=lambda step: 0.5),
    "em": Objective("em"),
    "likelihood": Objective("likelihood"),
    "consistency": Objective(consistency=3.0, noise=0.3),
    "balance": Objective(balance=2.0),
    "all": Objective(consistency=1.0, balance=1.0, phase_in=0.5),
    "labels": Interleaved(points(9, seed=5), torch.arange(9) % 3),
    "shares": Interleaved(points(9, seed=5), torch.rand(9, 3, generator=generator(0)).softmax(-1)),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind, name):
    model, x = mixture(kind, K=3), points(8)

    def loss() -> Tensor:
        return LOSSES[name](model, x, step(20))

    grads, g = gradients(model, loss()), generator(3)
    direction = {n: torch.randn(p.shape, generator=g, dtype=p.dtype) for n, p in model.named_parameters()}
    slope = sum(float((grads[n] * direction[n]).sum()) for n in grads)
    values, h = [], 1e-5
    with torch.no_grad():
        for sign in (1, -2):
            for n, p in model.named_parameters():
                p.add_(sign * h * direction[n])
            values.append(float(loss()))
    assert abs(slope) > 1e-3
    # "em" holds the responsibilities fixed, and still has the slope of its value: the identity again.
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_only_the_elbo_and_distillation_train_q():
    model, x = mixture(), points()
    for objective, trained in (
        (Objective("elbo"), True),
        (Objective("em"), False),
        (Objective("em", distill=1.0), True),
        (Objective("likelihood", distill=1.0), True),
    ):
        grads = gradients(model, objective(model, x, step()))
        assert any(name.startswith("network") for name in grads) == trained
    # Distillation moves q alone, toward the responsibilities.
    plain, distilled = (gradients(model, Objective("em", distill=d)(model, x, step())) for d in (0.0, 1.0))
    for name in plain:
        torch.testing.assert_close(plain[name], distilled[name])


# --- closed forms ---------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), K=st.integers(2, 5), D=st.integers(1, 5))
def test_a_mixture_of_affine_flows_is_the_gaussian_mixture(seed, K, D):
    truth = base_of(K, D, seed)
    whiten = torch.linalg.inv(truth._scale_tril().detach())  # z = L⁻¹ (x − μ)
    stack = FullAffine(D, stack=K).double()
    stack.matrix.data = whiten
    stack.shift.data = -(whiten @ truth.means.detach().unsqueeze(-1)).squeeze(-1)
    flow = Flow(stack, StandardNormal(D, stack=K).double())
    model = FlowMixture(flow, truth.logits.softmax(-1).detach())
    fitted = EMGaussianMixture(
        truth.means, truth._scale_tril() @ truth._scale_tril().mT, weights=truth.logits.softmax(-1).detach()
    )
    x = points(30, D, seed)
    torch.testing.assert_close(model.log_prob(x), fitted.log_prob(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.log_joint(x), truth.log_joint(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.responsibilities(x), fitted.responsibilities(x), rtol=1e-9, atol=1e-9)


def test_stack_equals_list():
    one = mixture("stack", K=4)
    flows = []
    for k in range(4):
        flow = flowlab.realnvp(2, 2, hidden=(5,), activation="tanh", standardize=False).double()
        state = one.flows.state_dict()
        own = flow.state_dict()
        flow.load_state_dict({n: state[n] if state[n].shape == own[n].shape else state[n][k] for n in own})
        flows.append(flow)
    other = FlowMixture(flows, one.weights, posterior=one.network, learn_weights=True)
    x = points(50)
    torch.testing.assert_close(one.log_prob_components(x), other.log_prob_components(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one.log_prob(x), other.log_prob(x), rtol=1e-12, atol=1e-12)
    for a, b in zip(one.elbo(x), other.elbo(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_components_of_any_kind_and_a_network_of_ones_own():
    parts = [StandardNormal(2), densities.GaussianMixture(torch.eye(2)), flowlab.spline_flow(2, 2)]
    model = FlowMixture(parts, posterior=nn.Linear(2, 3))
    x = points().float()
    expected = torch.stack([part.log_prob(x) for part in parts], -1)
    torch.testing.assert_close(model.log_prob_components(x), expected)
    assert model.sample(20, generator(0)).shape == (20, 2)


def test_shared_layers_are_one_set_of_parameters_and_count_once_in_the_log_det():
    shared = flowlab.realnvp(2, 2, standardize=False).bijection
    shaken(shared, 0)
    parts = [Flow(Chain([ScaleShift(2)]), StandardNormal(2)) for _ in range(3)]
    for k, part in enumerate(parts):
        shaken(part, k)
    model = FlowMixture(parts, shared=shared).double()
    x = points()
    whole = [Flow(Chain([*shared, *part.bijection]), part.base).double() for part in parts]
    torch.testing.assert_close(model.log_prob_components(x), torch.stack([flow.log_prob(x) for flow in whole], -1))
    # A sample goes back through the shared layers too: the latents of its component are standard normal.
    x, k = model.sample(6000, generator(0), labels=True)
    for j, flow in enumerate(whole):
        z = flow.bijection(x[k == j])[0].detach()
        torch.testing.assert_close(z.T.cov(), torch.eye(2, dtype=z.dtype), rtol=0, atol=0.1)
        torch.testing.assert_close(z.mean(0), torch.zeros(2, dtype=z.dtype), rtol=0, atol=0.1)


def test_latent_mixture_is_the_flow_with_that_base():
    model, x = mixture("latent"), points()
    torch.testing.assert_close(model.log_prob(x), model.flow.log_prob(x))
    torch.testing.assert_close(model.elbo(x).total, model.log_prob(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.posterior(x), model.responsibilities(x))
    # log p(x | k) is the flow over the k-th Gaussian alone.
    base = model.flow.base
    for k in range(3):
        S = (base._scale_tril() @ base._scale_tril().mT).detach()[k : k + 1]
        one = Flow(model.flow.bijection, densities.GaussianMixture(base.means[k : k + 1].detach(), S))
        torch.testing.assert_close(model.log_prob_components(x)[:, k], one.log_prob(x))


# --- samples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_samples_come_from_the_components_in_their_shares_and_from_the_generator_alone(kind):
    model = mixture(kind)
    state = torch.get_rng_state()
    x, k = model.sample(6000, generator(1), labels=True)
    assert torch.equal(state, torch.get_rng_state()), "the global seed was touched"
    assert x.shape == (6000, 2) and k.shape == (6000,) and k.dtype == torch.int64 and not x.requires_grad
    torch.testing.assert_close(k.bincount(minlength=3) / 6000, model.weights.float(), rtol=0, atol=0.03)
    assert torch.equal(model.sample(6000, generator(1)), x) and not torch.equal(model.sample(6000, generator(2)), x)
    # Bayes' rule over samples gives back the shares, and points of k are what p(x | k) makes: for k right, the mean of
    # p(j | x) / π_j over samples of component j′ is symmetric in (j, j′).
    r = model.responsibilities(x).detach()
    table = torch.stack([r[k == j].mean(0) for j in range(3)]) * model.weights[:, None]
    torch.testing.assert_close(table, table.T, rtol=0, atol=0.02)
    torch.testing.assert_close(r.mean(0), model.weights, rtol=0, atol=0.03)
    assert r.gather(1, k[:, None]).mean() > r.gather(1, (k[:, None] + 1) % 3).mean() + 0.05


# --- objectives -----------------------------------------------------------------------------------------------------


def test_temperature_falls_to_its_floor_and_returns():
    tau = falling_temperature(floor=0.2)
    assert tau(step(0)) == 1 and tau(step(1000, 5000)) == pytest.approx(math.exp(-1)) and tau(step(4999, 5000)) == 0.2
    back = falling_temperature(floor=0.2, returns=True)
    assert [back(step(i, 2000)) for i in (0, 1000, 2000)] == pytest.approx([1, math.exp(-1), 1])
    assert back(step(500, 2000)) == pytest.approx(back(step(1500, 2000)))
    model, x = mixture(), points()
    entropy = [float(torch.special.entr(model.posterior(x, t).detach()).sum()) for t in (2.0, 1.0, 0.3, 0.01)]
    assert entropy == sorted(entropy, reverse=True)
    assert torch.equal(model.posterior(x, 0.01).argmax(-1), model.posterior(x).argmax(-1))
    loss = Objective(temperature=lambda step: 0.3)(model, x, step())
    assert loss.item() == pytest.approx(-model.elbo(x, 0.3).total.mean().item())


def test_terms_of_the_objective_are_weighted_and_phased_in():
    model, x = mixture(), points(200)

    def loss(index: int = 50, **settings) -> float:
        return Objective(**settings)(model, x, step(index)).item()

    elbo = float(model.elbo(x).total.detach().mean())
    assert loss() == pytest.approx(-elbo)
    assert [loss(i, phase_in=0.4) for i in (0, 10, 40, 90)] == pytest.approx([0, -elbo / 4, -elbo, -elbo])
    q = model.posterior(x).detach()
    information = float(torch.special.entr(q.mean(0)).sum() - torch.special.entr(q).sum(-1).mean())
    assert loss(balance=2.0) == pytest.approx(-elbo - 2 * information)
    near, nearer = loss(consistency=1.0, noise=0.2) + elbo, loss(consistency=1.0, noise=0.02) + elbo
    assert near == pytest.approx(100 * nearer, rel=0.5) and nearer > 0, "the divergence is quadratic in the move"
    assert loss(consistency=3.0, noise=0.2) + elbo == pytest.approx(3 * near)
    e = torch.randn(x.shape, generator=generator(), dtype=x.dtype)  # as the objective draws it
    log_q, moved = (model.log_posterior(point).detach() for point in (x, x + 0.2 * e))
    assert near == pytest.approx(float((log_q.exp() * (log_q - moved)).sum(-1).mean())), "KL from x to its copy"
    r = model.responsibilities(x).detach()
    assert loss(distill=2.0) == pytest.approx(-elbo - 2 * float((r * model.log_posterior(x).detach()).sum(-1).mean()))


def test_mutual_information_runs_from_nothing_to_log_k():
    sure = 50 * torch.eye(4).repeat(5, 1)
    assert float(mutual_information(sure.log_softmax(-1))) == pytest.approx(math.log(4))
    assert float(mutual_information(torch.zeros(20, 4).log_softmax(-1))) == pytest.approx(0, abs=1e-6)
    assert float(mutual_information(sure[:1].repeat(20, 1).log_softmax(-1))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_in_evaluation_every_objective_is_the_negative_log_likelihood(kind):
    model, x = mixture(kind).eval(), points()
    for name, objective in LOSSES.items():
        assert objective(model, x, step(10)).item() == pytest.approx(-model.log_prob(x).mean().item()), name


def test_supervised_loss_is_joint_and_falls_when_q_gets_the_label_right():
    model, x, y = mixture(), points(6), torch.tensor([0, 1, 2, 0, 1, 2])
    loss = supervised(model, (x, y))
    own = model.log_prob_components(x).gather(1, y[:, None]).mean()
    cross = model.log_posterior(x).gather(1, y[:, None]).mean()
    torch.testing.assert_close(loss, -(own + cross))
    torch.testing.assert_close(supervised(model, (x, y), classify=0.0), -own)
    one_hot = nn.functional.one_hot(y, 3).double()
    torch.testing.assert_close(supervised(model, (x, one_hot)), loss)

    class Says(nn.Module):
        """A posterior that leans toward the given answers by as much as it is told."""

        def __init__(self, answers: Tensor, lean: float) -> None:
            super().__init__()
            self.logits = lean * nn.functional.one_hot(answers, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.logits

    values = []
    for answers, lean in (((y + 1) % 3, 4.0), ((y + 1) % 3, 1.0), (y, 0.0), (y, 1.0), (y, 4.0)):
        model.network = Says(answers, lean)
        values.append(supervised(model, (x, y)).item())
    assert values == sorted(values, reverse=True) and values[0] - values[-1] == pytest.approx(4.0, abs=1e-6)


def test_a_component_that_cannot_have_made_a_point_says_nothing_of_its_label():
    """log p(x | k) = −∞ for the other k, and 0 · ∞ is no number."""
    model = FlowMixture([densities.StandardUniform(2), StandardNormal(2)], posterior=nn.Linear(2, 2))
    x = torch.full((3, 2), 4.0)
    assert supervised(model, (x, torch.ones(3, dtype=torch.long))).isfinite()
    assert supervised(model, (x, torch.zeros(3, dtype=torch.long))) == math.inf


def test_interleaved_takes_labels_first_and_then_one_step_in_every(monkeypatch):
    model, x = mixture(), points(30)
    points_, labels = points(9, seed=5), torch.arange(9) % 3
    seen = []

    def unlabelled(model, x, step):
        seen.append((step.index, step.total))
        return model.log_prob(x).sum() * 0

    loss = Interleaved(points_, labels, unlabelled, first=4, every=3)
    kinds = ["labels" if loss(model, x, step(i, 12)) != 0 else "none" for i in range(12)]
    assert kinds == ["labels"] * 4 + ["labels", "none", "none"] * 2 + ["labels", "none"]
    assert seen == [(1, 8), (2, 8), (4, 8), (5, 8), (7, 8)]
    start_only = Interleaved(points_, labels, unlabelled, first=4, every=0)
    assert [bool(start_only(model, x, step(i, 12)) != 0) for i in range(12)] == [True] * 4 + [False] * 8
    torch.testing.assert_close(loss(model, x, step(0)), supervised(model, (points_, labels)))
    few = Interleaved(points_, labels, first=4, batch_size=5)
    assert few(model, x, step(0, seed=1)) == few(model, x, step(0, seed=1)) != few(model, x, step(0, seed=2))
    monkeypatch.setattr(variational, "supervised", lambda model, batch, *_, **__: len(batch[0].unique(dim=0)))
    assert few(model, x, step(0)) == 5 and loss(model, x, step(0)) == 9


# --- fits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", (Objective(), Objective("em", distill=1.0), Objective("likelihood", distill=1.0)))
def test_separated_blobs_are_found_from_a_warm_start(objective):
    toy = EightGaussians()
    x = toy.sample(512, generator(0))
    start = EMGaussianMixture.fit(x, 8, restarts=3, steps=30, generator=generator(0))
    model = FlowMixture(flowlab.realnvp(2, 2, hidden=(8,), stack=8, generator=generator(0)), generator=generator(0))
    loss = Interleaved(x, start.responsibilities(x), objective, first=100, every=0)
    flowlab.fit(model, x, steps=170, batch_size=256, learning_rate=1e-2, objective=loss, progress=False)
    test_x, test_y = toy.labelled(512, generator(1))
    with torch.no_grad():
        assert metrics.accuracy(test_y, model.posterior(test_x).argmax(-1)) > 0.98
        assert float((toy.log_prob(test_x) - model.log_prob(test_x)).mean()) < 0.3
        assert float(metrics.bound_gap(model, test_x).mean()) < 0.1


def test_walks_stay_where_points_are_near():
    """Two far blobs: a walk from one never ends in the other, spreads over its own, and one step is to a neighbor."""
    x = torch.cat((torch.randn(60, 2, generator=generator(0)), 50 + torch.randn(40, 2, generator=generator(1))))
    ends = _walks(x, 5, 200, generator(2))
    blob = torch.arange(100) >= 60
    assert ends.shape[0] == 100 and torch.equal(blob[ends], blob[:, None].expand_as(ends))
    reached = [len(ends[row].unique()) for row in range(100)]
    assert min(reached) > 8, "a long walk forgets where it began"
    one = _walks(x, 5, 1, generator(2))
    rank = torch.cdist(x, x).argsort(-1).argsort(-1).gather(1, one)
    assert int(rank.max()) == 5 and int(rank.min()) == 0
    twins = torch.ones(4, 2)
    assert int(_walks(twins, 10, 3, generator(0)).max()) <= 3, "fewer points than neighbors, and all of them equal"


@pytest.mark.slow
def test_consistent_posterior_finds_rings_and_wings_without_labels():
    """Rings that no straight border divides, and wings that curve; and the network is the mixture's q as it is."""
    settings = {"hidden": (32, 32), "starts": 2, "steps": 200, "learning_rate": 1e-2}
    for toy, n in ((TwoCircles(noise=0.05), 512), (Pinwheel(wings=3), 768)):
        x, (test_x, test_y) = toy.sample(n, generator(0)), toy.labelled(1024, generator(1))
        network = consistent_posterior(x, toy.components, generator=generator(2), **settings)
        flows = flowlab.realnvp(2, 2, hidden=(4,), stack=toy.components, generator=generator(0))
        model = FlowMixture(flows, posterior=network)
        assert metrics.accuracy(test_y, model.posterior(test_x).argmax(-1)) > 0.98, toy
        short = consistent_posterior(x, toy.components, walk=1, generator=generator(2), **settings)
        assert metrics.accuracy(test_y, short(test_x).argmax(-1)) < 0.95, "the walk is what finds them"
    again, same = (consistent_posterior(x, 3, starts=2, steps=2, generator=generator(2)) for _ in range(2))
    assert torch.equal(again(x), same(x))


def test_the_rate_of_consistent_posterior_falls_as_a_cosine():
    rates = []
    watch = register_optimizer_step_pre_hook(lambda adam, *_: rates.append(adam.param_groups[0]["lr"]))
    try:
        consistent_posterior(points(40).float(), 2, starts=1, steps=8, learning_rate=0.2, generator=generator(2))
    finally:
        watch.remove()
    assert rates == pytest.approx([0.1 * (1 + math.cos(math.pi * i / 8)) for i in range(8)])


def test_pairs_are_drawn_from_all_walks_of_a_point(monkeypatch):
    toy = TwoCircles(noise=0.05)
    x, y = toy.labelled(512, generator(0))

    def stay_or_go(x: Tensor, *_) -> Tensor:
        """The first walk of each point stays where it is, the other nine end anywhere on its ring."""
        rings = [(y == k).nonzero()[:, 0] for k in y]
        go = torch.stack([ring[torch.randint(len(ring), (9,), generator=generator(i))] for i, ring in enumerate(rings)])
        return torch.cat((torch.arange(len(x))[:, None], go), -1)

    monkeypatch.setattr(variational, "_walks", stay_or_go)
    settings = {"hidden": (32, 32), "starts": 2, "steps": 200, "learning_rate": 1e-2}
    network = consistent_posterior(x, 2, generator=generator(2), **settings)
    assert metrics.accuracy(y, network(x).argmax(-1)) > 0.98


def test_labels_count_by_their_mean():
    """The same labels told twice say the same."""
    x, y, few = points(40).float(), torch.arange(4) % 2, points(4, seed=1).float()
    settings = {"starts": 1, "steps": 5, "hidden": (8,)}
    once, twice = (
        consistent_posterior(x, 2, labelled=(few.repeat(n, 1), y.repeat(n)), generator=generator(2), **settings)(x)
        for n in (1, 2)
    )
    torch.testing.assert_close(once, twice)
    assert not torch.allclose(once, consistent_posterior(x, 2, generator=generator(2), **settings)(x))


def test_consistent_posterior_keeps_the_best_of_its_starts():
    toy = EightGaussians()
    x, (test_x, test_y) = toy.sample(512, generator(0)), toy.labelled(1000, generator(1))
    settings = {"hidden": (32,), "learning_rate": 2e-2, "walk": 100, "steps": 200, "batch_size": 256}
    right = []
    for starts in (1, 12):
        network = consistent_posterior(x, 8, starts=starts, generator=generator(2), **settings)
        right.append(metrics.accuracy(test_y, network(test_x).argmax(-1)))
    assert right[0] < 0.9 and right[1] > 0.98, "eight single starts of eight left two blobs to one cluster"


@pytest.mark.parametrize("swapped", [False, True])
def test_one_label_a_ring_names_it(swapped):
    toy = TwoCircles(noise=0.05)
    (x, y), (test_x, test_y) = toy.labelled(512, generator(0)), toy.labelled(512, generator(1))
    few = torch.stack([(y == c).nonzero()[0, 0] for c in (0, 1)])
    labels = 1 - y[few] if swapped else y[few]
    settings = {"hidden": (32, 32), "starts": 2, "steps": 200, "learning_rate": 1e-2}
    network = consistent_posterior(x, 2, labelled=(x[few], labels), generator=generator(2), **settings)
    right = float((network(test_x).argmax(-1) == (1 - test_y if swapped else test_y)).double().mean())
    assert right > 0.98, "no matching needed"


@pytest.mark.slow
def test_labels_show_the_rings():
    """Two circles: with labels the classes are the rings, which likelihood alone cannot know."""
    toy = TwoCircles(noise=0.05)
    x, y = toy.labelled(512, generator(0))
    few = torch.cat([(y == c).nonzero().flatten()[:16] for c in (0, 1)])
    model = FlowMixture(flowlab.realnvp(2, 4, hidden=(16,), stack=2, generator=generator(0)), generator=generator(0))
    loss = Interleaved(x[few], y[few], Objective(), first=150, every=3)
    flowlab.fit(model, x, steps=400, batch_size=128, learning_rate=5e-3, objective=loss, progress=False)
    test_x, test_y = toy.labelled(512, generator(1))
    with torch.no_grad():
        right = float((model.posterior(test_x).argmax(-1) == test_y).double().mean())
    assert right > 0.95, "and cluster k is class k: no matching needed"


@pytest.mark.slow
def test_latent_mixture_learns_with_and_without_labels():
    toy = TwoCircles(noise=0.05)
    x, y = toy.labelled(512, generator(0))
    base = densities.GaussianMixture(torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), trainable=True)
    model = LatentGaussianMixture(flowlab.realnvp(2, 4, hidden=(32,), generator=generator(0)).bijection, base)
    loss = Interleaved(x, y, Objective("likelihood"), first=200, every=2, classify=1.0)
    history = flowlab.fit(model, x, steps=400, batch_size=128, learning_rate=5e-3, objective=loss, progress=False)
    assert all(math.isfinite(value) for value in history.loss)
    with torch.no_grad():
        assert float((model.posterior(x).argmax(-1) == y).double().mean()) > 0.95
        assert float((toy.log_prob(x) - model.log_prob(x)).mean()) < 0.5


def test_weights_are_learned_only_when_told():
    x = torch.cat((points(300) * 0.1, points(100) * 0.1 + 4)).float()
    for learn in (True, False):
        flow = flowlab.realnvp(2, 2, hidden=(4,), stack=2, standardize=False, generator=generator(0))
        model = FlowMixture(flow, torch.tensor([0.5, 0.5]), learn_weights=learn, generator=generator(0))
        loss = Interleaved(x, (x[:, 0] > 2).long(), Objective("em"), first=50, every=0)
        flowlab.fit(model, x, steps=150, learning_rate=2e-2, objective=loss, progress=False)
        expected = [0.75, 0.25] if learn else [0.5, 0.5]
        assert model.weights.tolist() == pytest.approx(expected, abs=0.1 if learn else 1e-6)


def test_checkpoint_brings_the_mixture_back(tmp_path):
    from flowlab.training import load_checkpoint, save_checkpoint

    model, other = mixture(seed=1), mixture(seed=2)
    save_checkpoint(tmp_path / "mixture.safetensors", model)
    load_checkpoint(tmp_path / "mixture.safetensors", other)
    assert torch.equal(model.elbo(points()).total, other.elbo(points()).total)


# --- what is refused ------------------------------------------------------------------------------------------------

stack = flowlab.realnvp(2, 2, hidden=(3,), stack=3)
single = flowlab.realnvp(2, 2, hidden=(3,))
model = FlowMixture(stack, hidden=(4,))
x2 = torch.zeros(4, 2)
empty = torch.zeros(0, 2), torch.zeros(0).long()


@pytest.mark.parametrize(
    "call, words",
    (
        (lambda: FlowMixture(single), "at least two components, but got 1"),
        (lambda: FlowMixture([single]), "at least two components, but got 1"),
        (lambda: FlowMixture(flowlab.realnvp(2, 2, stack=1)), "at least two components, but got 1"),
        (lambda: FlowMixture([stack, stack]), "a list of stacks"),
        (lambda: FlowMixture([single, flowlab.realnvp(3, 2)]), r"one dimension, but got \[2, 3\]"),
        (lambda: FlowMixture(stack, torch.tensor([0.5, 0.6, 0.2])), "3 positive weights that sum to one, but got"),
        (lambda: FlowMixture(stack, torch.tensor([0.5, 0.5])), "3 positive weights that sum to one, but got"),
        (lambda: FlowMixture(stack, torch.tensor([0.0, 0.5, 0.5])), "positive weights"),
        (lambda: FlowMixture(stack, torch.tensor([math.nan, 0.5, 0.5])), "positive weights"),
        (lambda: model.log_posterior(x2, 0.0), "temperature above 0, but got 0.0"),
        (lambda: model.sample(0), "at least 1, but got 0"),
        (lambda: model.log_prob(torch.zeros(4, 3)), r"expected shape \(..., 2\)"),
        (lambda: Objective("elbow"), "'elbo', 'em' or 'likelihood', but got 'elbow'"),
        (lambda: Objective(balance=-1.0), "weights and noise of at least 0"),
        (lambda: Objective(balance=math.nan), "weights and noise of at least 0"),
        (lambda: model.elbo(x2, log_posterior=torch.zeros(4, 1)), r"log q of shape \(4, 3\), but got \(4, 1\)"),
        (lambda: FlowMixture(stack, posterior=nn.Linear(2, 1)).elbo(x2), "3 logits, one for each .* but got 1"),
        (lambda: supervised(model, (x2, torch.full((4, 3), math.nan))), "rows that sum to one"),
        (lambda: supervised(model, (x2, torch.zeros(4, dtype=torch.bool))), "whole labels .* torch.bool"),
        (lambda: Objective(phase_in=2.0), r"phase_in in \[0, 1\]"),
        (lambda: consistent_posterior(x2, 1), "the 1 ≥ 2 components"),
        (lambda: consistent_posterior(x2, 5), "at least as many as the 5 .* but got 4"),
        (lambda: consistent_posterior(x2 + math.nan, 2), "finite points"),
        (lambda: consistent_posterior(x2, 2, starts=0), "one start"),
        (lambda: consistent_posterior(x2, 2, walk=0), "one start, step, neighbor"),
        (lambda: consistent_posterior(x2, 2, batch_size=0), "point in a batch, .* 300 and 0"),
        (lambda: consistent_posterior(x2[0], 2), r"points \(N, D\), but got torch.float32 of shape \(2,\)"),
        (lambda: consistent_posterior(x2.long(), 2), r"floating-point points \(N, D\), but got torch.int64"),
        (lambda: consistent_posterior(x2, 2, labelled=(x2[:2] + math.nan, torch.tensor([0, 1]))), "NaN or infinity"),
        (lambda: consistent_posterior(x2, 2, labelled=(torch.zeros(2, 3), torch.tensor([0, 1]))), r"shape \(2, 3\)"),
        (lambda: mixture("latent").posterior(points(), 0.0), "temperature above 0, but got 0.0"),
        (lambda: consistent_posterior(x2, 2, labelled=empty), "at least one labelled point"),
        (lambda: consistent_posterior(x2, 2, labelled=(x2, torch.tensor([0, 1, 2, 0]))), "from 0 to 1"),
        (lambda: falling_temperature(floor=0.0), r"floor in \(0, 1\]"),
        (
            lambda: supervised(model, (x2, torch.tensor([0, 1, 2, 3]))),
            "labels .* from 0 to 2.* got labels from 0 to 3",
        ),
        (lambda: supervised(model, (x2, torch.tensor([0, 1, 2, -1]))), "got labels from -1 to 2"),
        (lambda: supervised(model, (x2, torch.tensor([0, 1]))), "a label for each, but got 4 and 2"),
        (lambda: supervised(model, empty), "at least one labelled point"),
        (lambda: supervised(model, (x2, torch.ones(4, 3))), "rows that sum to one"),
        (lambda: supervised(model, (x2, torch.zeros(4))), r"shares of shape \(4, 3\)"),
        (lambda: Interleaved(*empty), "at least one labelled point"),
        (lambda: Interleaved(torch.full((4, 2), math.nan), torch.zeros(4).long()), "NaN or infinity"),
        (lambda: Interleaved(x2, torch.zeros(4).long(), every=-1), "first and every of at least 0"),
        (lambda: LatentGaussianMixture(single.bijection, densities.GaussianMixture(torch.zeros(1, 2))), "two comp"),
        (lambda: flowlab.fit(model, torch.full((4, 2), math.nan), objective=Objective(), progress=False), "got NaN"),
    ),
)
def test_what_makes_no_mixture_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("kind", ("list", "stack", "shared"))
def test_decode_takes_one_latent_through_each_component_and_encode_brings_it_back(kind):
    model = mixture(kind, 3, 2, seed=1).double()
    z = points(4, seed=1)
    x = model.decode(z)
    assert x.shape == (4, 3, 2)
    assert not torch.allclose(x[:, 0], x[:, 1])
    for k in range(3):
        assert torch.allclose(model.encode(x[:, k])[:, k], z, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", ("list", "stack", "shared"))
@pytest.mark.parametrize("k", ([0, 2, 2, 1, 2, 0], [1, 1, 1, 1, 1, 1]), ids=("unequal shares", "all one's"))
def test_log_prob_of_is_the_column_of_each_points_own_component(kind, k):
    model, x, k = mixture(kind), points(6), torch.tensor(k)
    wanted = model.log_prob_components(x).gather(1, k[:, None])[:, 0]
    torch.testing.assert_close(model.log_prob_of(x, k), wanted)
    weights = list(model.flows.parameters())
    got, want = (
        torch.autograd.grad(v.sum(), weights, allow_unused=True, materialize_grads=True)
        for v in (model.log_prob_of(x, k), wanted)
    )
    torch.testing.assert_close(got, want)


def test_components_with_a_context_are_refused():
    """q(k | x) and the losses would not see it."""
    flows = [realnvp(2, 1, context_features=3, generator=generator()) for _ in range(2)]
    stack = realnvp(2, 1, context_features=3, stack=2, generator=generator())
    plain, conditional = realnvp(2, 1, stack=2), flows[0].bijection
    for build, who in (
        (lambda: FlowMixture(flows), "FlowMixture"),
        (lambda: FlowMixture(stack), "FlowMixture"),
        (lambda: FlowMixture(plain, shared=conditional), "FlowMixture"),
        (lambda: LatentGaussianMixture(conditional, GaussianMixture(torch.eye(2))), "LatentGaussianMixture"),
    ):
        with pytest.raises(ValueError, match=f"{who} expected components without a context, but got one with context"):
            build()
