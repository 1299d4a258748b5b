"""Hooks: profilers and debuggers see each module of a model by them, so none may be passed by."""

import pytest
import torch
from torch import Generator, nn
from torch.nn.modules import module as torch_module

from flowlab.bijections import Inverse, MonotoneSum
from flowlab.densities import Dequantized, Flow, StandardNormal
from flowlab.densities.mixtures import FlowMixture
from flowlab.models import glow, made, maf, nice, realnvp, realnvp_image, spline_flow

WAYS = ("forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook")


def generator() -> Generator:
    return Generator().manual_seed(0)


MODELS = {
    "nice": lambda **k: nice(4, 4, hidden=(6,), **k),
    "realnvp": lambda **k: realnvp(4, 3, hidden=(6, 5), **k),
    "realnvp, tanh": lambda **k: realnvp(4, 3, hidden=(6,), activation="tanh", **k),
    "realnvp, stack": lambda **k: realnvp(4, 3, hidden=(6, 5), stack=2, **k),
    "spline_flow": lambda **k: spline_flow(4, 2, hidden=(6,), **k),
    "maf": lambda **k: maf(4, 2, hidden=(6,), **k),
    "made": lambda **k: made(4, hidden=(6,), **k),
    "realnvp_image": lambda **k: realnvp_image((1, 4, 4), 2, layers=1, hidden=2, blocks=1, **k),
    "realnvp_image, stack": lambda **k: realnvp_image((1, 4, 4), 2, layers=1, hidden=2, blocks=1, stack=2, **k),
    "glow": lambda **k: glow((1, 2, 2), 1, steps=1, hidden=2, **k),
    "numeric": lambda **k: Flow(MonotoneSum(4, **k), StandardNormal(4)),
    "mixture": lambda **k: FlowMixture(realnvp(4, 2, hidden=(6,), stack=2, **k)),
    "mixture, a list": lambda **k: FlowMixture([realnvp(4, 2, hidden=(6,), **k) for _ in range(2)]),
    "dequantized": lambda **k: Dequantized(realnvp(4, 2, hidden=(6,), logit=1e-6, **k)),
}


def parts(model: nn.Module) -> set[nn.Module]:
    """The modules that log p(x) passes forward: not lists, not q(k | x) of a mixture, not what is inverted."""
    skipped = [m.bijection for m in model.modules() if isinstance(m, Inverse)]
    skipped += [model.network] if isinstance(model, FlowMixture) else []
    inside = {m for one in skipped for m in one.modules()}
    return {m for m in model.modules() if not isinstance(m, nn.ModuleList) and m not in inside}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # pixels have no gradient
@pytest.mark.parametrize("everywhere", (False, True))
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_a_hook_of_each_module_is_called(name, way, everywhere):
    """By hooks on all modules at once, and by torch's global ones, log p and its gradient stay what they are."""
    model = MODELS[name](generator=generator()).eval()
    lead = () if model.stack is None else (model.stack,)
    x = torch.rand(*lead, 5, model.features, generator=generator()).requires_grad_()
    x = (4 * x).long() if name == "dequantized" else x

    def run() -> tuple:
        model.zero_grad()
        log_p = model(x, generator=generator())
        log_p.sum().backward()
        return log_p.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)

    expected, called = run(), set()

    def hook(module: nn.Module, *_: object) -> None:
        called.add(module)

    if everywhere:
        handles = [getattr(torch_module, f"register_module_{way}")(hook)]
    else:
        handles = [getattr(module, f"register_{way}")(hook) for module in parts(model)]
    try:
        torch.testing.assert_close(run(), expected)
    finally:
        for handle in handles:
            handle.remove()
    missed = {type(module).__name__ for module in parts(model) - called}
    without_gradient = {"Dequantized", "Logit", "Flow", "Chain"} if name == "dequantized" else set()
    assert missed <= (without_gradient if "backward" in way else set())


def test_a_layer_put_in_the_place_of_another_is_called():
    """As by LoRA: a stack's shortcut through its network must see that the layer is no longer the plain one."""

    class Doubled(type(realnvp(2, 1).bijection[-1].conditioner.last)):
        def forward(self, x):
            return 2 * super().forward(x)

    model = realnvp(4, 1, hidden=(6,), stack=2, standardize=False, generator=generator()).eval()
    coupling = model.bijection[0]
    coupling.conditioner.last.bias.data.fill_(0.1)
    x = torch.randn(2, 5, 4, generator=generator())
    expected = model.bijection(x)[1]
    coupling.conditioner.last.__class__ = Doubled
    assert not torch.allclose(model.bijection(x)[1], expected)
