"""Steps that run as machine code, and the precision of a GPU's products."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor, nn


class CompilerMissing(RuntimeError):
    """Compilation was asked for, but this machine has nothing to compile with."""


@contextlib.contextmanager
def compiled(model: nn.Module) -> Iterator[None]:
    """A block in which the flows in ``model`` compute gradients of log p by torch.compile, each for one shape of x.

    Evaluation stays as it is: each new shape would be compiled anew.

    Raises:
        CompilerMissing: when the model is on a CPU and no C++ compiler is found.
        ValueError: when there is no flow in the model.
    """
    flows: list[Any] = [m for m in model.modules() if hasattr(m, "without_tiny_gradients")]
    if not flows:
        raise ValueError(f"compile=True compiles the flows in a model, but this {type(model).__name__} holds none.")
    if next(model.parameters()).device.type == "cpu":
        from torch._inductor import cpp_builder, exc  # imported when used: a second or two

        try:
            cpp_builder.get_cpp_compiler()
        except exc.InvalidCxxCompiler:
            raise CompilerMissing(
                "compile=True translates the model to C++, but no C++ compiler was found. Install one (g++ or clang), "
                "name it in the environment variable CXX, or leave compile out."
            ) from None
    for flow in flows:
        flow.log_prob = _compiled_for_training(flow)
    try:
        yield
    finally:
        for flow in flows:
            del flow.log_prob


def _compiled_for_training(flow: Any) -> Callable[..., Tensor]:
    plain = flow.log_prob
    # On a CPU the calls of its kernels are compiled too: from Python, those of a small flow cost a tenth of a step.
    options: dict[str, Any] | None = {"cpp_wrapper": True} if next(flow.parameters()).device.type == "cpu" else None
    fast = torch.compile(plain, dynamic=False, options=options)

    def log_prob(x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        in_training = flow.training and torch.is_grad_enabled()
        return flow.without_tiny_gradients(fast(x, context)) if in_training else plain(x, context)

    return log_prob


@contextlib.contextmanager
def products(tf32: bool) -> Iterator[None]:
    """A block in which a GPU computes matrix products and convolutions in TensorFloat-32, or in float32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
