"""The conditioners: networks that read one part of a sample and say how to move the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

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


class MLP(nn.Module):
    """A multilayer perceptron whose last layer starts at zero, so that what it conditions starts at the identity.

    ``(..., in)``, and a context ``(..., C)`` beside it when built with ``context_features=C``, to ``(..., out)``.

    Raises:
        ValueError: when the activation is unknown, or a context is missing, not expected, or of another width.
    """

    linear = Linear  # the kind of its layers

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
            raise ValueError(f"MLP expected an activation among {sorted(ACTIVATIONS)}, but came {activation!r}.")
        sizes = [in_features + context_features, *hidden]
        self.hidden = nn.ModuleList(self.linear(a, b, stack=stack, generator=generator) for a, b in pairwise(sizes))
        self.last = self.linear(sizes[-1], out_features, stack=stack, generator=generator)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.activation = ACTIVATIONS[activation]
        self.context_features = context_features

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        _check_context(context, self.context_features)
        if context is not None:
            x = torch.cat((x, context.expand(*x.shape[:-1], self.context_features)), dim=-1)
        # Flat once, not for each layer, and not at all where it is flat: small layers would spend their time reshaping.
        batch, stack = x.shape[:-1], self.last.stack
        flat = len(batch) == (1 if stack is None else 2)
        if not flat:
            x = x.reshape(*(() if stack is None else (stack,)), -1, x.shape[-1])  # (N, in) or (K, N, in)
        if stack is not None and self.activation is torch.relu_ and self.linear is Linear and _by_hand(x):
            layers = (*self.hidden, self.last)
            x = _StackedMLP.apply(x, *(layer.weight for layer in layers), *(layer.bias for layer in layers))
        else:
            for layer in self.hidden:
                x = self.activation(layer(x))
            x = self.last(x)
        return x if flat else x.reshape(*batch, x.shape[-1])


_func_is_at_work = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)  # without it: never by hand


def _check_context(context: Tensor | None, features: int) -> None:
    given = 0 if context is None else context.shape[-1]
    if given != features:
        raise ValueError(f"This network was built for {features or 'no'} context features, but came {given or 'none'}.")


def _by_hand(x: Tensor) -> bool:
    """Whether a gradient written by hand may stand in for autograd's: not where something else reads the operations."""
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not _func_is_at_work()  # vmap, grad, jacrev
        and getattr(forward_ad, "_current_level", -1) < 0  # tangents, which the gradient by hand knows nothing of
    )


def _product(A: Tensor, B: Tensor) -> Tensor:
    """A B, K at once. A wide A with a thin B takes a third of the time as (Bᵀ Aᵀ)ᵀ."""
    return torch.bmm(B.mT.contiguous(), A.mT).mT if B.shape[-1] <= 4 else torch.bmm(A, B)


def _affine(A: Tensor, B: Tensor, b: Tensor) -> Tensor:
    """A B + b, K at once. Where A is one column, each number of the result is one product, and needs no matrices."""
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
        dW, db = [], []
        for l in reversed(range(L)):
            dW.insert(0, _product(h[l].mT, g))
            db.insert(0, g.sum(1))
            if l:
                g = _product(g, W[l].mT)
                torch.ops.aten.threshold_backward.grad_input(g, h[l], 0, grad_input=g)
        return _product(g, W[0].mT) if ctx.needs_input_grad[0] else None, *dW, *db


class MaskedLinear(Linear):
    """y = x (M ⊙ W) + b: a layer with some of its connections cut, by a mask M ``(in, out)`` of zeros and ones."""

    def __init__(self, in_features: int, out_features: int, **settings) -> None:
        super().__init__(in_features, out_features, **settings)
        self.register_buffer("mask", torch.ones(in_features, out_features), persistent=False)
        self.masked: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.mask * self.weight if self.masked is None else self.masked
        if self.stack is None:
            return torch.addmm(self.bias, x, weight)
        return torch.baddbmm(self.bias.unsqueeze(1), x, weight)


class MaskedMLP(MLP):
    """An MLP whose output i sees only the inputs that come before input i (MADE, arXiv:1502.03509, section 4).

    Input i has a degree, its place 1 to D in the order, and each hidden unit has one too. A connection is kept when it
    does not lower the degree, and into output i only when it raises it. So whatever reaches output i began at a lower
    degree: one pass computes all D functions θ_i(x_<i) at once.

    ``(..., D)``, and a context ``(..., C)`` that every output may see, to ``(..., P, D)``: P numbers for each input.
    They start at zero.

    Args:
        features: D.
        outputs_per_feature: P.
        order: a permutation of 0 to D − 1: which input comes first, which second, ...; as they stand when left out.
        random_degrees: draws the degrees of hidden units from ``generator`` instead of spreading them evenly.

    Raises:
        ValueError: when ``order`` does not name each input once; and all that MLP raises.
    """

    linear = MaskedLinear

    def __init__(
        self,
        features: int,
        outputs_per_feature: int = 1,
        *,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | Tensor | None = None,
        random_degrees: bool = False,
        generator: Generator | None = None,
        **settings,
    ) -> None:
        super().__init__(features, outputs_per_feature * features, hidden=hidden, generator=generator, **settings)
        order = torch.arange(features) if order is None else torch.as_tensor(order, dtype=torch.long)
        if sorted(order.tolist()) != list(range(features)):
            raise ValueError(f"MaskedMLP expected an order of 0 to {features - 1}, but came {order.tolist()}.")
        self.shape = (outputs_per_feature, features)
        degrees = [order.argsort() + 1, torch.zeros(self.context_features, dtype=torch.long)]
        # Degree 0 sees no input: good for nothing, unless there is a context to see.
        low = 0 if self.context_features or features == 1 else 1
        for width in hidden:
            if random_degrees:
                degrees.append(torch.randint(low, features, (width,), generator=generator))
                low = int(degrees[-1].min())  # below it a unit of the next layer would see nothing
            else:  # the highest degree is always among them, so that every input but the last is seen
                degrees.append(features - 1 - torch.arange(width).flip(0) * (features - low) // width)
        self.register_buffer("degrees", torch.cat(degrees))
        self._cut()
        self.register_load_state_dict_post_hook(type(self)._cut)  # the weights bring their degrees along

    @property
    def place(self) -> Tensor:
        """The place of each input in the order, 1 to D: ``(D,)``."""
        return self.degrees[: self.shape[1]]

    def _cut(self, *_: object) -> None:
        """Set the masks: ≤ between hidden layers, < into the outputs."""
        degrees = self.degrees.split([len(layer.mask) for layer in (*self.hidden, self.last)])
        for layer, (before, after) in zip(self.hidden, pairwise(degrees), strict=True):
            layer.mask.copy_(before.unsqueeze(-1) <= after)
        self.last.mask.copy_(degrees[-1].unsqueeze(-1) < self.place.repeat(self.shape[0]))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(x, context).unflatten(-1, self.shape)

    @contextmanager
    def masked_once(self) -> Iterator[None]:
        """A block for many passes with the same weights: masks are applied once, since that costs more than a pass.

        No other thread may train the network meanwhile: it would find these weights, and its gradients would be lost.
        """
        layers = (*self.hidden, self.last)
        try:
            for layer in layers:
                layer.masked = layer.mask * layer.weight
            yield
        finally:
            for layer in layers:
                layer.masked = None


class Convolution(nn.Module):
    """y = W ∗ x + b over 3×3 windows, with zeros beyond the border, or K of them side by side when ``stack=K``.

    ``(..., in, H, W)`` to ``(..., out, H, W)``; a stack takes ``(K, ..., in, H, W)``. W is ``(out, in, 3, 3)``, with K
    before it in a stack. Weights start uniform within ±1/√(9 in), drawn from ``generator``; at zero with ``zero=True``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        zero: bool = False,
        stack: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.stack = stack
        lead = () if stack is None else (stack,)
        shapes = (*lead, out_channels, in_channels, 3, 3), (*lead, out_channels)
        bound = 1 / math.sqrt(9 * in_channels)
        self.weight, self.bias = (
            nn.Parameter(torch.zeros(s) if zero else bound * (2 * torch.rand(s, generator=generator) - 1))
            for s in shapes
        )

    def forward(self, x: Tensor) -> Tensor:
        return apart(self.convolve(side_by_side(x, self.stack)), x, self.stack)

    def convolve(self, x: Tensor) -> Tensor:
        """The same where the K stand side by side already: ``(N, K·in, H, W)`` to ``(N, K·out, H, W)``."""
        weight = self.weight.reshape(-1, *self.weight.shape[-3:])
        return F.conv2d(x, weight, self.bias.flatten(), padding=1, groups=self.stack or 1)


def side_by_side(x: Tensor, stack: int | None) -> Tensor:
    """``(K, ..., C, H, W)`` as ``(N, K·C, H, W)``: K convolutions at once are one, with K groups of channels."""
    return x.reshape(stack or 1, -1, *x.shape[-3:]).transpose(0, 1).flatten(1, 2)


def apart(y: Tensor, x: Tensor, stack: int | None) -> Tensor:
    """Undo ``side_by_side``: ``(N, K·C, H, W)`` with the batch axes of ``x`` again, ``(K, ..., C, H, W)``."""
    K = stack or 1
    return y.unflatten(1, (K, y.shape[1] // K)).transpose(0, 1).reshape(*x.shape[:-3], y.shape[1] // K, *y.shape[-2:])


class ResidualConvNet(nn.Module):
    """h ← h + W₂ ∗ relu(W₁ ∗ relu(h)), ``blocks`` times, between a first and a last 3×3 convolution (arXiv:1512.03385).

    RealNVP's conditioner for images (arXiv:1605.08803, section 4.1), without its batch normalization.

    ``(..., in, H, W)``, and a context ``(..., E)`` beside it, the same for all pixels, when built with
    ``context_features=E``, to ``(..., out, H, W)``, for any H and W. The last layer starts at zero, so that what it
    conditions starts at the identity. A pixel sees 2 · ``blocks`` + 2 pixels far.

    Raises:
        ValueError: when a context is missing, not expected, or of another width.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int = 64,
        blocks: int = 2,
        *,
        context_features: int = 0,
        stack: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        own = {"stack": stack, "generator": generator}
        self.first = Convolution(in_channels + context_features, hidden, **own)
        self.blocks = nn.ModuleList(
            nn.ModuleList(Convolution(hidden, hidden, **own) for _ in range(2)) for _ in range(blocks)
        )
        self.last = Convolution(hidden, out_channels, zero=True, stack=stack)
        self.context_features, self.stack = context_features, stack

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        _check_context(context, self.context_features)
        if context is not None:
            x = torch.cat(
                (x, context[..., None, None].expand(*x.shape[:-3], self.context_features, *x.shape[-2:])), dim=-3
            )
        h = self.first.convolve(side_by_side(x, self.stack))
        for one, two in self.blocks:
            h = h + two.convolve(one.convolve(h.relu()).relu())
        return apart(self.last.convolve(h.relu()), x, self.stack)


class ConvClassifier(nn.Module):
    """Logits of K classes: 3×3 convolutions of stride 2 with ReLUs, then one linear layer.

    Rows of pixels in [0, 1], ``(..., H·W)``, to ``(..., K)``. Each convolution halves H and W, rounded up. Weights
    start uniform within ±√(6/in), which keeps the scale of what passes a ReLU (He et al., arXiv:1502.01852); the last
    layer's are drawn too, as a classifier that starts at zero tells no class from another.

    Args:
        classes: K.
        side: H = W.
        channels: of each convolution.
        generator: draws the starting weights.
    """

    def __init__(
        self,
        classes: int,
        side: int = 28,
        *,
        channels: Sequence[int] = (16, 32, 64),
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.side = side
        sizes = [1, *channels]
        shapes = [(b, a, 3, 3) for a, b in pairwise(sizes)]
        self.weights = nn.ParameterList(_uniform(shape, math.sqrt(6 / (9 * shape[1])), generator) for shape in shapes)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in channels)
        for _ in channels:
            side = -(-side // 2)
        self.last = Linear(sizes[-1] * side**2, classes, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        h = 2 * x.reshape(x.shape[:-1].numel(), 1, self.side, self.side) - 1
        for W, b in zip(self.weights, self.biases, strict=True):
            h = F.conv2d(h, W, b, stride=2, padding=1).relu_()
        return self.last(h.flatten(1)).reshape(*x.shape[:-1], len(self.last.bias))


def _uniform(shape: Sequence[int], bound: float, generator: Generator | None) -> nn.Parameter:
    return nn.Parameter(bound * (2 * torch.rand(*shape, generator=generator) - 1))
