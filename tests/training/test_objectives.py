"""What a run minimizes: with noise that is its own, with a condition, and without data."""

import math

import pytest
import torch
from runs import gaussian, generator, quiet, same, small, state
from torch import Tensor, nn

from flowlab import Flow, realnvp
from flowlab.bijections import Chain, Logit, ScaleShift
from flowlab.densities import Dequantized, StandardNormal, negative_bound
from flowlab.training import Step, negative_log_likelihood


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
