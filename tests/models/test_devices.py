"""Nothing is left on the CPU, and no step of training waits for the device.

Tensors on "meta" have a shape and a type and no numbers. A tensor that was left on the CPU does not meet them, and
``.item()`` or ``bool(tensor)`` of one raises.
"""

import pytest
import torch
from torch import Generator, nn
from torch.utils._python_dispatch import TorchDispatchMode

from flowlab import models
from flowlab.densities import mixtures
from flowlab.models import registry
from flowlab.training import lookahead, train
from flowlab.training.distributed import ShardedLoss
from flowlab.training.objectives import Step, negative_log_likelihood


def said(value: object) -> str:
    """A name that is the same in each process."""
    return getattr(value, "__name__", None) or (value if isinstance(value, str) else type(value).__name__)


FLOW = {"name": "realnvp", "settings": {"features": 4, "layers": 2, "hidden": [8], "logit": 0.05}}
NOISE = {"name": "realnvp", "settings": {"features": 4, "layers": 2, "hidden": [8], "context_features": 4}}
SMALL = {
    "nice": models.nice(4, layers=2, hidden=(8,)),
    "nice, logistic": models.nice(4, layers=2, hidden=(8,), prior="logistic"),
    "realnvp": models.realnvp(4, layers=2, hidden=(8,)),
    "realnvp, context": models.realnvp(4, layers=2, hidden=(8,), context_features=3),
    "realnvp, logit": models.realnvp(4, layers=2, hidden=(8,), logit=0.05),
    "spline_flow": models.spline_flow(4, layers=2, hidden=(8,)),
    "maf": models.maf(4, layers=2, hidden=(8,)),
    "maf, batch": models.maf(4, layers=2, hidden=(8,), normalization="batch"),
    "planar_flow": models.planar_flow(4, layers=2),
    "planar_flow, sampling": models.planar_flow(4, layers=2, sampling=True),
    "radial_flow": models.radial_flow(4, layers=2),
    "made": models.made(4, hidden=(8,)),
    "made, mixture": models.made(4, hidden=(8,), components=3),
    "table_flow": models.table_flow(4, layers=2, hidden=(8,)),
    "table_flow, context": models.table_flow(4, layers=2, hidden=(8,), context_features=3),
    "realnvp_image": models.realnvp_image((1, 8, 8), scales=2, hidden=4, blocks=1),
    "glow": models.glow((1, 8, 8), scales=2, steps=2, hidden=4),
    "flow_mixture": models.flow_mixture(4, 3, layers=2, hidden=(8,), posterior=(8,)),
    "image_mixture": models.image_mixture(
        16, 3, shared={"name": "nice", "settings": {"features": 16, "layers": 2, "hidden": [8]}}, channels=(4, 4)
    ),
    "dequantized": models.dequantized(FLOW),
    "dequantized, learned": models.dequantized(FLOW, noise=NOISE),
}
OBJECTIVES = {name: [negative_log_likelihood] for name in SMALL}
OBJECTIVES["flow_mixture"] += [mixtures.Objective("elbo"), mixtures.Objective("em")]


def fresh(name: str) -> nn.Module:
    return registry.rebuild(SMALL[name].recipe)


def batch_of(
    model: nn.Module, n: int, device: str = "cpu", whole: torch.dtype = torch.uint8
) -> tuple[torch.Tensor, ...]:
    """Rows, and a context for each where the model has one."""
    g = Generator().manual_seed(0)
    x = torch.rand(n, *model.event_shape, generator=g)
    x = (256 * x).to(whole) if model.domain == "whole" else x
    c = (torch.rand(n, model.context_features, generator=g),) if model.context_features else ()
    return tuple(part.to(device) for part in (x, *c))


def test_every_recipe_is_here():
    assert {name.split(",")[0] for name in SMALL} == {
        n for n, r in models.RECIPES.items() if r.module.startswith("flowlab")
    }


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("training", (True, False))
def test_nothing_is_left_on_the_cpu(name, training):
    """Forward, backward and samples of models that are built on the CPU and moved."""
    model = fresh(name).to("meta").train(training)
    for layer in model.modules():
        layer.learning = training  # as in a step
    x, *context = batch_of(model, 6, "meta", whole=torch.int64)
    log_p = model.log_prob(x, *context)
    assert log_p.device.type == "meta" and log_p.shape == (6,)
    log_p.sum().backward()
    assert any(p.grad is not None for p in model.parameters())
    assert all(p.grad is None or p.grad.device.type == "meta" for p in model.parameters())
    for drawn in (model.sample(3, None, *context), *model.draw(3, None, *context)):
        assert drawn.device.type == "meta"
        assert drawn.shape[:1] == (3,)


class Waits(TorchDispatchMode):
    """Keeps what made the CPU wait for a number of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique2"):
            self.found.append(name)
        if name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self.found.append("index by a mask")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("wait", (bool, float, torch.Tensor.item, torch.Tensor.nonzero, lambda x: x[x > 0]))
def test_what_waits_is_seen(wait):
    with Waits() as waits:
        wait(torch.ones(()))
    assert waits.found


@pytest.mark.parametrize("name, objective", [(n, o) for n, several in OBJECTIVES.items() for o in several], ids=said)
def test_no_step_after_the_first_waits_for_the_device(name, objective, monkeypatch):
    """The whole loop, as on a GPU, where losses are fetched together: here after ten steps."""
    monkeypatch.setattr(lookahead, "STEPS_AHEAD", {"cpu": 10})
    model = fresh(name)
    data = batch_of(model, 40)
    steps = train(
        model, data if len(data) > 1 else data[0], steps=11, batch_size=8, objective=objective, clip=1.0, ema=0.9
    )
    next(steps)
    with Waits() as waits:
        for _ in range(8):
            next(steps)
    assert not waits.found
    steps.close()


@pytest.mark.parametrize("name, objective", [(n, o) for n, several in OBJECTIVES.items() for o in several], ids=said)
def test_a_step_runs_without_numbers(name, objective):
    """The loss of a batch and its gradient, where no number can be read."""
    model = fresh(name).to("meta").train()
    data = batch_of(model, 8, "meta", whole=torch.int64)
    loss = ShardedLoss(model, objective, len(data) == 1)
    value = loss.backward(data, lambda shard: Step(0, 10, Generator().manual_seed(0)))
    assert value.device.type == "meta" and value.shape == ()
    assert any(p.grad is not None for p in model.parameters())
