"""What a run minimizes: with noise that is its own, with a condition, and without data."""

import math

import pytest
import torch
from runs import gaussian, generator, quiet, same, small, state
from torch import Tensor, nn

from flowlab import Flow, fit, realnvp
from flowlab.bijections import Chain, Logit, ScaleShift
from flowlab.densities import Dequantized, StandardNormal, negative_bound
from flowlab.training import CheckpointError, Step, batches, negative_log_likelihood, reverse_kl, train


def pixels(n: int = 300) -> Tensor:
    return torch.randint(0, 256, (n, 2), generator=generator(), dtype=torch.uint8)


def bound() -> Dequantized:
    return Dequantized(Flow(Chain([Logit(1e-3), *small().bijection]), StandardNormal(2)))


class WithDropout(nn.Module):
    """Draws from torch's global generator, as any network with Dropout does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return -(x - self.net(x)).square().sum(-1) - 0.01 * torch.rand(())


class Noisy(nn.Module):
    """A density of the contract: it takes a generator."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        return -(x + torch.randn(x.shape, generator=generator) - self.shift).square().sum(-1)


@pytest.mark.parametrize("build, data", [(bound, pixels()), (WithDropout, gaussian()), (Noisy, gaussian())])
def test_a_model_that_draws_noise_is_trained_by_the_seed_alone(tmp_path, build, data):
    """By fit's own objective, with validation, resumed or not; torch's global generator is not used up."""

    def run(around: int, seed: int = 0, **more) -> tuple[list[float], dict[int, float], dict[str, Tensor]]:
        model = build()
        torch.manual_seed(around)
        before = torch.get_rng_state()
        settings = {"steps": 20, "batch_size": 64, "validation": data[:50], "validate_every": 4, "seed": seed}
        history = quiet(model, data, **settings, **more)
        assert torch.equal(torch.get_rng_state(), before), "the global seed was touched"
        return history.loss, history.validation, state(model)

    (loss, validation, weights), (again, valid_again, weights_again) = run(1), run(99)
    assert loss == again and validation == valid_again and same(weights, weights_again)
    assert run(1, seed=1)[0] != loss and len(set(validation.values())) > 1
    settings = {"steps": 12, "checkpoint": tmp_path / "run.safetensors"}
    for history in _left_at(5, build(), data, **settings):
        assert history.step <= 5
    resumed, straight = build(), build()
    torch.manual_seed(7)
    quiet(resumed, data, **settings)
    quiet(straight, data, steps=12)
    assert same(state(resumed), state(straight))


def _left_at(step: int, model: nn.Module, data: Tensor, **settings):
    from flowlab.training import train

    for history in train(model, data, **settings):
        yield history
        if history.step == step:
            return


def test_validation_is_measured_with_the_same_noise_each_time():
    model = Noisy().requires_grad_(True)
    frozen = lambda parameters: torch.optim.SGD(parameters, lr=0.0)  # noqa: E731  # what is validated never changes
    history = quiet(model, gaussian(), steps=12, validation=gaussian(60), validate_every=3, optimizer=frozen)
    assert len(history.validation) == 4 and len(set(history.validation.values())) == 1
    by_bound = quiet(bound(), pixels(), steps=6, validation=pixels(40), validate_every=2, optimizer=frozen)
    assert len(set(by_bound.validation.values())) == 1


def test_the_default_objective_of_a_bound_is_its_negative_bound():
    one, other = bound(), bound()
    settings = {"steps": 10, "batch_size": 64}
    by_default = quiet(one, pixels(), **settings)
    named = quiet(other, pixels(), objective=negative_bound, **settings)
    assert by_default.loss == named.loss and same(state(one), state(other))


def test_a_plain_module_gets_what_it_takes():
    class Regression(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return -(y - self.slope * x).square().sum(-1)

    x = torch.randn(200, 1, generator=generator())
    model = Regression()
    quiet(model, (x, 3 * x), steps=200, learning_rate=0.1)
    assert model.slope.item() == pytest.approx(3, abs=0.01)


def test_a_conditional_flow_learns_from_pairs():
    c = torch.rand(2000, 1, generator=generator()) * 4 - 2
    x = torch.cat((c, -c), -1) + 0.3 * torch.randn(2000, 2, generator=generator(1))
    flow = realnvp(2, layers=4, hidden=(16,), context_features=1, generator=generator())
    history = quiet(flow, (x, c), steps=400, batch_size=200, learning_rate=0.01, validation=(x[:200], c[:200]))
    entropy = math.log(2 * math.pi * math.e * 0.3**2)  # of x given c, in nats
    assert history.validation[400] == pytest.approx(entropy, abs=0.15)
    with torch.no_grad():
        right, wrong = flow.log_prob(x, c).mean(), flow.log_prob(x, c.flip(0)).mean()
    assert right > wrong + 2


@pytest.mark.parametrize("model", (small(), Flow(ScaleShift(2), StandardNormal(2))), ids=("started from data", "not"))
def test_an_objective_may_take_gradients_itself(model):
    def score_matching(model: nn.Module, x: Tensor, step: Step) -> Tensor:
        """E[½ |s|² + ∇·s] for the score s = ∇ log p (Hyvärinen, JMLR 6, 2005), by one random direction."""
        x = x.clone().requires_grad_()
        score = torch.autograd.grad(model.log_prob(x).sum(), x, create_graph=True)[0]
        v = torch.randn(x.shape, generator=step.generator)
        (slope,) = torch.autograd.grad((score * v).sum(), x, create_graph=True)
        return (0.5 * score.square() + slope * v).sum(-1).mean()

    assert quiet(model, gaussian(), steps=3, objective=score_matching).step == 3


def test_the_step_says_where_the_run_is():
    seen = []

    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        seen.append((step.index, step.total))
        return negative_log_likelihood(model, batch, step)

    flow = Flow(ScaleShift(2), StandardNormal(2))
    quiet(flow, gaussian(), steps=3, objective=objective)
    assert seen == [(0, 3), (1, 3), (2, 3)]


# --- without data -----------------------------------------------------------------------------------------------------

LOG_Z = 3.7


def banana(x: Tensor) -> Tensor:
    """log p̃ of x₁ ~ N(0, 1), x₂ | x₁ ~ N(x₁², ½²), times exp(3.7)."""
    a, b = x.unbind(-1)
    log_p = -0.5 * (a**2 + ((b - a**2) / 0.5) ** 2) - math.log(2 * math.pi * 0.5)
    return log_p + LOG_Z


def tilted(x: Tensor) -> Tensor:
    """log p̃ of a correlated Gaussian far from 0, times exp(3.7)."""
    z = (x - torch.tensor([3.0, -2.0])) @ torch.tensor([[1.0, 0.0], [-0.6, 0.8]]).inverse()
    return -0.5 * z.square().sum(-1) - math.log(2 * math.pi) - math.log(0.8) + LOG_Z


@pytest.mark.parametrize("log_target", (banana, tilted))
def test_a_flow_is_trained_to_a_target_without_data_and_finds_its_normalizer(log_target):
    flow = realnvp(2, layers=4, hidden=(16, 16), standardize=False, activation="tanh", generator=generator())
    history = fit(
        flow,
        objective=reverse_kl(log_target, n=128),
        steps=700,
        learning_rate=0.01,
        ema=0.98,
        progress=False,
    )
    assert history.step == 700 and history.batch_size == 0 and history.ended
    x, log_q = flow.draw(20_000, generator(1))
    log_w = (log_target(x) - log_q).detach()
    assert LOG_Z - 0.05 < log_w.mean().item() < LOG_Z + 0.01, "the bound is close, and from below"
    assert log_w.logsumexp(0).item() - math.log(len(log_w)) == pytest.approx(LOG_Z, abs=0.05)
    assert sum(history.loss[-50:]) / 50 == pytest.approx(-LOG_Z, abs=0.1), "the loss is -log Z at the target"


def test_a_run_without_data_is_kept_stopped_resumed_averaged_and_cut_like_any_other(tmp_path):
    settings = {"steps": 12, "objective": reverse_kl(banana, n=30), "ema": 0.9, "snapshots": (0, 5, 12), "shards": 3}
    straight, resumed = small(), small()
    undisturbed = fit(straight, progress=False, **settings)
    kept = {"checkpoint": tmp_path / "run.safetensors", **settings}
    for history in train(small(), **kept):
        if history.step == 7:
            break
    history = fit(resumed, progress=False, **kept)
    assert history.loss == undisturbed.loss and same(state(resumed), state(straight))
    assert list(history.snapshots) == [0, 5, 12] and same(history.snapshots[5], undisturbed.snapshots[5])
    other = reverse_kl(tilted, n=30)
    for changed in ({"objective": other}, {"objective": reverse_kl(banana, n=31)}, {"seed": 1}):
        with pytest.raises(CheckpointError, match="another run"):
            fit(small(), progress=False, **{**kept, **changed})
    with pytest.raises(CheckpointError, match="another run"):
        fit(small(), gaussian(), progress=False, **kept)


def test_shards_of_a_run_without_data_are_draws_of_their_own(monkeypatch):
    def objective(model: nn.Module, batch: None, step: Step) -> Tensor:
        assert batch is None
        return model.bijection.shift.sum() * torch.randn((), generator=step.generator)

    losses = []
    for shards in (1, 4):
        flow = Flow(ScaleShift(1), StandardNormal(1))
        flow.bijection.shift.data.fill_(1.0)
        losses.append(fit(flow, objective=objective, steps=1, shards=shards, progress=False).loss[0])
    noise = [torch.randn((), generator=batches.generator(0, 1, shard=shard)).item() for shard in range(4)]
    assert losses == pytest.approx([noise[0], sum(noise) / 4])


def test_a_layer_that_starts_from_data_starts_where_it_is_in_a_run_without():
    """Else a later run with data would move what this one has learned."""
    flow = realnvp(2, layers=2, hidden=(8,), generator=generator())
    fit(flow, objective=reverse_kl(tilted, n=64), steps=20, learning_rate=0.05, progress=False)
    learned = state(flow)
    assert flow.bijection[0].started
    with pytest.warns(UserWarning, match="started on other data"):
        quiet(flow, 50 + gaussian(), steps=1, learning_rate=0.0)
    assert same(state(flow), learned)


def test_the_bar_of_a_run_without_data_counts_no_samples(capfd):
    fit(small(), objective=reverse_kl(banana, n=8), steps=20)
    said = capfd.readouterr().err
    assert "20/20" in said and "nats" in said and "samples/s" not in said


def test_what_needs_data_says_so():
    for settings in ({"epochs": 3}, {"validation": gaussian()}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))} expected data, but got none"):
            fit(small(), objective=reverse_kl(banana), progress=False, **settings)
    with pytest.raises(ValueError, match="negative_log_likelihood expected data, but got none"):
        fit(small(), steps=3, progress=False)
    with pytest.raises(ValueError, match=r"one number a sample from log_target, \(8,\), but got \(8, 2\)"):
        fit(small(), objective=reverse_kl(lambda x: -x.square(), n=8), steps=2, progress=False)


def test_the_target_is_warmed_up():
    """β = 0.01 + t/(warm · T), at most 1: half of the target after half of the warm share."""
    flow = small()
    for share, index, beta in ((0.0, 0, 1.0), (0.5, 0, 0.01), (0.5, 25, 0.51), (0.5, 50, 1.0), (1.0, 50, 0.51)):

        def loss(log_target, n=64, share=share, index=index):
            step = Step(index, 100, generator())
            return float(reverse_kl(log_target, n=n, warm=share)(flow, None, step))

        entropy = loss(lambda x: torch.zeros(len(x)))
        assert loss(lambda x: torch.full((len(x),), -2.0)) - entropy == pytest.approx(2 * beta, abs=1e-5)
    for bad in (-0.1, 1.5):
        with pytest.raises(ValueError, match=f"from 0 to 1, but got {bad}"):
            reverse_kl(lambda x: x.sum(-1), warm=bad)
