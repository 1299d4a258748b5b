"""Compiled training gives what eager training gives, or says why it cannot be had."""

import pytest
import torch
from runs import generator
from torch import nn

from flowlab import fit, realnvp
from flowlab.training import CompilerMissing, compiled


def can_compile() -> bool:
    from torch._inductor import cpp_builder, exc

    try:
        return bool(cpp_builder.get_cpp_compiler())
    except exc.InvalidCxxCompiler:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(), reason="no C++ compiler on this machine")
def test_compiled_training_is_eager_training_to_rounding(monkeypatch):
    x, calls, real = torch.randn(64, 2, generator=generator(1)), [], torch.compile

    def counted(function, **settings):
        fast = real(function, **settings)
        return lambda *given: calls.append(1) or fast(*given)

    monkeypatch.setattr(torch, "compile", counted)
    runs = {}
    for compile in (False, True):
        flow = realnvp(2, layers=2, hidden=(8,), standardize=False, generator=generator())
        history = fit(flow, x, steps=4, batch_size=32, validation=x, progress=False, compile=compile)
        assert "log_prob" not in vars(flow), "the flow is as it was once training is over"
        runs[compile] = (history.loss, history.validation, dict(flow.named_parameters()))
    torch.testing.assert_close(runs[True], runs[False], rtol=1e-4, atol=1e-5)
    assert len(calls) == 4, "the four steps were compiled, and validation was not"


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(), reason="no C++ compiler on this machine")
def test_a_compiled_stack_drops_gradients_too_small_to_count_too(monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **settings: real(f, backend="eager", **settings))
    flow = realnvp(2, layers=2, hidden=(4,), standardize=False, stack=2, generator=generator()).train()
    with compiled(flow):
        log_p = flow.log_prob(torch.randn(2, 5, 2, generator=generator(1)))
        log_p.backward(torch.tensor([[1.0], [1e-31]]).expand(2, 5))
    for name, p in flow.named_parameters():
        if name.endswith("last.bias"):
            assert (p.grad[0] != 0).all() and (p.grad[1] == 0).all()


def test_compilation_without_a_compiler_is_refused_in_words(monkeypatch):
    from torch._inductor import cpp_builder, exc

    def missing(*_):
        raise exc.InvalidCxxCompiler()

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    flow, x = realnvp(2, layers=2, hidden=(8,)), torch.randn(10, 2)
    with pytest.raises(CompilerMissing, match=r"no C\+\+ compiler was found. Install one"):
        fit(flow, x, steps=1, progress=False, compile=True)
    assert fit(flow, x, steps=1, progress=False).step == 1, "without it, the same flow trains"
    with pytest.raises(ValueError, match="but this Linear holds none"):
        fit(nn.Linear(2, 1), x, steps=1, progress=False, compile=True)
