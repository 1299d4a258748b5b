"""The conditioners: networks that read one part of a sample and say how to move the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from flowlab.networks.hooks import watched

# ReLU in place: its gradient needs only its own result, so nothing is lost, and a copy is saved.
ACTIVATIONS = {"relu": torch.relu_, "tanh": torch.tanh, "silu": F.silu, "gelu": F.gelu}


class Linear(nn.Module):
    """y = x W + b, or K of them side by side when ``stack=K``.

    ``(N, in)`` to ``(N, out)`` with W of shape ``(in, out)``; a stack takes ``(K, N, in)`` and has W of shape
    ``(K, in, out)``. Weights start uniform within ±1/√in, drawn from ``generator``.
    """

    def __init__(
        self, in_features: int, out_features: int, *, stack: int | None = None, generator: Generator | None = None
    ) -> None:
        super().__init__()
        self.stack = stack
        lead = () if stack is None else (stack,)
        bound = 1 / math.sqrt(max(in_features, 1))
        self.weight = nn.Parameter(bound * (2 * torch.rand(*lead, in_features, out_features, generator=generator) - 1))
        self.bias = nn.Parameter(bound * (2 * torch.rand(*lead, out_features, generator=generator) - 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.stack is None:
            return torch.addmm(self.bias, x, self.weight)
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight)

    def extra_repr(self) -> str:
        stack = "" if self.stack is None else f", stack={self.stack}"
        return f"{self.weight.shape[-2]}, {self.weight.shape[-1]}{stack}"


class MLP(nn.Module):
    """A multilayer perceptron whose last layer starts at zero, so that what it conditions starts at the identity.

    ``(..., in)``, and a context ``(..., C)`` beside it when built with ``context_features=C``, to ``(..., out)``.

    Raises:
        ValueError: when the activation is unknown, or a context is missing, not expected, or of another width.
    """

    linear: type[Linear] = Linear  # the kind of its layers

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        context_features: int = 0,
        stack: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"MLP expected an activation among {sorted(ACTIVATIONS)}, but got {activation!r}.")
        sizes = [in_features + context_features, *hidden]
        self.hidden = nn.ModuleList(self.linear(a, b, stack=stack, generator=generator) for a, b in pairwise(sizes))
        self.last = self.linear(sizes[-1], out_features, stack=stack, generator=generator)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.activation = ACTIVATIONS[activation]
        self.context_features = context_features

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        check_context(context, self.context_features)
        if context is not None:
            x = torch.cat((x, context.expand(*x.shape[:-1], self.context_features)), dim=-1)
        # Flat once, not for each layer, and not at all where it is flat: small layers would spend their time reshaping.
        batch, stack = x.shape[:-1], self.last.stack
        flat = len(batch) == (1 if stack is None else 2)
        if not flat:
            x = x.reshape(*(() if stack is None else (stack,)), -1, x.shape[-1])  # (N, in) or (K, N, in)
        layers, activation = (*self.hidden, self.last), self.activation
        if activation is torch.relu_ and watched(*layers):
            activation = torch.relu  # what hooks are given must not change in its place
        if activation is torch.relu_ and stack is not None and all(map(_is_plain, layers)) and _by_hand(x):
            x = _StackedMLP.apply(x, *(layer.weight for layer in layers), *(layer.bias for layer in layers))
        else:
            for layer in self.hidden:
                x = activation(layer(x))
            x = self.last(x)
        return x if flat else x.reshape(*batch, x.shape[-1])

    def extra_repr(self) -> str:
        activation = next(name for name, function in ACTIVATIONS.items() if function is self.activation)
        return f"activation={activation!r}, context_features={self.context_features}"


_func_is_at_work = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)  # without it: never by hand


def check_context(context: Tensor | None, features: int) -> None:
    """Raise ValueError when a context ``(..., E)`` is missing, not expected, or of another width than ``features``."""
    given = 0 if context is None else context.shape[-1]
    if given != features:
        raise ValueError(f"This network expected {features or 'no'} context features, but got {given or 'none'}.")


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer computes x W + b as ``Linear`` does, and not as a subclass or a replaced ``forward`` does."""
    return type(layer).forward is Linear.forward and "forward" not in vars(layer)


def _by_hand(x: Tensor) -> bool:
    """True in plain CPU eager mode: no compilation, autocast, functorch transform or forward-mode derivative."""
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not _func_is_at_work()  # vmap, grad, jacrev
        and getattr(forward_ad, "_current_level", -1) < 0  # tangents, which the gradient by hand knows nothing of
    )


def _product(A: Tensor, B: Tensor) -> Tensor:
    """A B for K pairs of matrices. A wide A with a thin B takes a third of the time as (Bᵀ Aᵀ)ᵀ."""
    return torch.bmm(B.mT.contiguous(), A.mT).mT if B.shape[-1] <= 4 else torch.bmm(A, B)


def _affine(A: Tensor, B: Tensor, b: Tensor) -> Tensor:
    """A B + b for K of each. Where A has one column, this is an elementwise product, which is faster."""
    if A.shape[-1] == 1:
        return torch.addcmul(b.unsqueeze(1), A, B)
    return _product(A, B).add_(b.unsqueeze(1))


class _StackedMLP(torch.autograd.Function):
    """A stack's ReLU network, ``(K, N, in)`` to ``(K, N, out)``, with backpropagation by hand.

    The same sums as autograd's, a quarter faster: K hidden layers at once do not fit a processor's cache, so that each
    pass over them counts, and here a gradient passes a ReLU in place.
    """

    @staticmethod
    def forward(ctx, x: Tensor, *parameters: Tensor) -> Tensor:
        L = len(parameters) // 2
        W, b = parameters[:L], parameters[L:]
        h = [x]
        for l in range(L - 1):
            h.append(_affine(h[l], W[l], b[l]).relu_())
        ctx.save_for_backward(*parameters, *h)
        return _affine(h[-1], W[-1], b[-1])

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        L = len(ctx.saved_tensors) // 3
        W, b, h = ctx.saved_tensors[:L], ctx.saved_tensors[L : 2 * L], ctx.saved_tensors[2 * L :]
        if torch.is_grad_enabled():  # the gradient will itself be differentiated: leave that to autograd
            y = h[0]
            for l in range(L):
                y = (y.relu() if l else y) @ W[l] + b[l].unsqueeze(1)
            inputs = (h[0], *W, *b)
            wanted = [t for t, needed in zip(inputs, ctx.needs_input_grad, strict=True) if needed]
            found = iter(torch.autograd.grad(y, wanted, g, create_graph=True))
            return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
        dW: list[Tensor] = []
        db: list[Tensor] = []
        for l in reversed(range(L)):
            dW.insert(0, _product(h[l].mT, g))
            db.insert(0, g.sum(1))
            if l:
                g = _product(g, W[l].mT)
                torch.ops.aten.threshold_backward.grad_input(g, h[l], 0, grad_input=g)
        return _product(g, W[0].mT) if ctx.needs_input_grad[0] else None, *dW, *db
