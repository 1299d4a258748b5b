"""Small models, data and runs that the tests of training share."""

import functools
import os
import signal

import torch
from torch import Generator, Tensor, nn

from flowlab import Flow, fit, realnvp, training
from flowlab.bijections import ActNorm, AffineCoupling, BatchNorm, Chain, ScaleShift
from flowlab.densities import StandardNormal
from flowlab.training import History, Step, negative_log_likelihood


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def gaussian(n: int = 400, mean: float = 2.0, seed: int = 0) -> Tensor:
    """Correlated normal points (n, 2)."""
    return torch.randn(n, 2, generator=generator(seed)) @ torch.tensor([[1.5, 0.4], [0.0, 0.7]]) + mean


def small(seed: int = 0) -> Flow:
    return realnvp(2, layers=2, hidden=(8,), generator=generator(seed))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def quiet(model: nn.Module, data: object, **settings) -> History:
    return fit(model, data, progress=False, **settings)


def drift(**settings) -> tuple[Flow, History]:
    """A run that passes the best place for its validation data on the way: data at 3, validation at 1."""
    flow = Flow(ScaleShift(1), StandardNormal(1))
    x, held_out = (torch.randn(200, 1, generator=generator(1)) + mean for mean in (3.0, 1.0))
    settings = {"learning_rate": 0.05, "schedule": "constant", "validate_every": 5, **settings}
    return flow, quiet(flow, x, validation=held_out, steps=100, **settings)


def interrupt_at(*indices: int) -> training.LossFunction:
    """Press Ctrl-C in the middle of these steps."""

    @functools.wraps(negative_log_likelihood)  # by its name, so that a run without interrupts goes on from this one
    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        if step.index in indices:
            os.kill(os.getpid(), signal.SIGINT)
        return negative_log_likelihood(model, batch, step)

    return objective


def with_batchnorm() -> Flow:
    maps = [BatchNorm(2), AffineCoupling([True, False], (6,), generator=generator(3)), ActNorm(2)]
    return Flow(Chain(maps), StandardNormal(2))


def noisy(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
    """Needs the right noise at each step."""
    return -model(batch + 0.1 * torch.randn(batch.shape, generator=step.generator)).mean()
