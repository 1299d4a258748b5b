"""Normalization layers: keep what flows through a deep chain at mean 0 and standard deviation 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flowlab.bijections.base import Bijection, ShapeError


def rows_of(x: Tensor, stack: int | None, who: str) -> Tensor:
    """All samples of a batch in one axis: ``(..., D)`` to ``(N, D)``, or ``(K, N, D)`` for a stack.

    Raises:
        ValueError: for fewer than two samples, which have no spread.
    """
    lead = () if stack is None else (stack,)
    rows = x.reshape(*lead, -1, x.shape[-1])
    if rows.shape[-2] < 2:
        raise ValueError(f"{who} expected at least two samples to measure a spread, but got {rows.shape[-2]}.")
    return rows


def wide_rows_of(x: Tensor, stack: int | None, who: str) -> Tensor:
    """``rows_of`` in float64, for sums that cancel: ``(..., D)`` to ``(N, D)``, or ``(K, N, D)`` for a stack.

    In float32 on Apple's GPUs, which have no float64. Errors as ``rows_of``.
    """
    rows = rows_of(x, stack, who).detach()
    return rows.to(torch.float32 if rows.device.type == "mps" else torch.float64)


class StartsFromData(Bijection):
    """A map whose parameters are set by the first batch that passes it inside ``starting``; until then the identity."""

    initialized: Tensor

    def __init__(self, event_shape: int | tuple[int, ...] | None, *, stack: int | None = None) -> None:
        super().__init__(event_shape, stack)
        self.register_buffer("initialized", torch.tensor(False))
        self.starting = False  # set by ``starting``

    @property
    def started(self) -> bool:
        """Whether the layer has been started from data."""
        return bool(self.initialized)

    def begun(self) -> None:
        """Note that a batch has started the layer: the next one leaves it as it is."""
        self.initialized.fill_(True)
        self.starting = False


class ActNorm(StartsFromData):
    """z = x · exp(log_scale) + shift, started so that one batch comes out with mean 0 and standard deviation 1.

    log |det| = Σ log_scale (Glow, arXiv:1807.03039, section 3.1). Shapes ``(..., D)`` and ``(...)``. The map is the
    identity until a batch passes it inside ``starting``, as ``fit`` does with its first batch. After that it is an
    ordinary trained layer, and no sample depends on another, as it does under batch normalization.

    Raises:
        ValueError: when that batch holds fewer than two samples.
    """

    def __init__(self, features: int, *, stack: int | None = None) -> None:
        super().__init__(features, stack=stack)
        lead = () if stack is None else (stack,)
        self.log_scale = nn.Parameter(torch.zeros(*lead, features))
        self.shift = nn.Parameter(torch.zeros(*lead, features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        if self.starting:
            self.start(x)
        z = x * self.align(self.log_scale, x).exp() + self.align(self.shift, x)
        return z, self.batch_log_det(self.log_scale.sum(-1), x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        x = (z - self.align(self.shift, z)) * (-self.align(self.log_scale, z)).exp()
        return x, self.batch_log_det(-self.log_scale.sum(-1), z)

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Set scale and shift so that this batch comes out with mean 0 and standard deviation 1."""
        rows = rows_of(x, self.stack, "ActNorm's first batch")
        std = rows.std(-2, correction=0)
        log_scale = -torch.where(std > 0, std, 1.0).log()  # a coordinate that never varies keeps its scale
        self.log_scale.copy_(log_scale)
        self.shift.copy_(-rows.mean(-2) * log_scale.exp())
        self.begun()


class Standardize(ActNorm):
    """z = ActNorm((x − center) / scale): an ActNorm for data far from 0, such as years, pressures and Julian days.

    log |det| = Σ (log_scale − log scale). Shapes ``(..., D)`` and ``(...)``. The center and the scale are fixed by the
    batch that starts the layer, and are not trained. ActNorm alone moves z by mean/std times the change of log_scale,
    which no learning rate fits once that ratio is large. A coordinate that has 0 within one standard deviation of its
    mean, and a usual scale, keeps center 0 and scale 1: the layer is ActNorm then. x may be float64 where the layer is
    float32: it is centered before it is rounded. A file from before this layer existed holds an ActNorm, and loads.

    Raises:
        ValueError: when the batch that starts it holds fewer than two samples.
    """

    centers_float64 = True
    center: Tensor
    center_rest: Tensor
    scale: Tensor
    newer = ("center", "center_rest", "scale")  # what files from before this layer existed do not hold

    def __init__(self, features: int, *, stack: int | None = None) -> None:
        super().__init__(features, stack=stack)
        lead = () if stack is None else (stack,)
        # The center in two numbers, the second with what rounding took from the first: together they are as good as
        # float64 on any device, and follow ``.to()``.
        self.register_buffer("center", torch.zeros(*lead, features))
        self.register_buffer("center_rest", torch.zeros(*lead, features))
        self.register_buffer("scale", torch.ones(*lead, features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        if self.starting:
            self.measure(x)
        z, log_det = super().forward(self._centered(x) / self.align(self.scale, x), context)
        return z, log_det - self.batch_log_det(self.scale.log().sum(-1), z)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, log_det = super().inverse(z, context)
        x = (u * self.align(self.scale, z) + self.align(self.center_rest, z)) + self.align(self.center, z)
        return x, log_det + self.batch_log_det(self.scale.log().sum(-1), z)

    @torch.no_grad()
    def measure(self, x: Tensor) -> None:
        """Set the center and the scale from the mean and the standard deviation of this batch."""
        rows = wide_rows_of(x, self.stack, "Standardize")
        mean, std = rows.mean(-2), rows.std(-2, correction=0)
        flat = std <= 1e-12 * mean.abs()  # constant but for rounding: it has no scale of its own
        usual = (std > 1e-3) & (std < 1e3)
        center = torch.where(mean.abs() < std, 0.0, mean)
        self.center.copy_(center)
        self.center_rest.copy_(center - self.center)
        self.scale.copy_(torch.where(flat | usual, 1.0, std))

    def _centered(self, x: Tensor) -> Tensor:
        difference = (x - self.align(self.center, x)) - self.align(self.center_rest, x)
        return difference.to(self.scale.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """A file without center and scale holds an ActNorm of x itself: center 0, scale 1."""
        for name, value in (("center", 0.0), ("center_rest", 0.0), ("scale", 1.0)):
            state_dict.setdefault(f"{prefix}{name}", torch.full_like(self.scale, value))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class StandardizeContext(StartsFromData):
    """z = f(x; (c − center)/scale) for a bijection f with a context c, such as a year, that may be far from 0.

    log |det| is that of f. Shapes ``(..., D)``, a context ``(..., C)`` and ``(...)``. The contexts of the batch that
    starts it set center and scale, which are not trained. c may be float64 where f is float32.

    Raises:
        ShapeError: for an f without context, or with images as context.
        ValueError: when the batch that starts it holds fewer than two samples.
    """

    centers_context = True
    center: Tensor
    center_rest: Tensor
    scale: Tensor

    def __init__(self, bijection: Bijection) -> None:
        if not bijection.context_features or bijection.context_dim != 1:
            raise ShapeError(
                f"StandardizeContext expected a bijection with vectors as context, but got {type(bijection).__name__} "
                f"with context_features={bijection.context_features}."
            )
        super().__init__(bijection.event_shape, stack=bijection.stack)
        self.bijection, self.context_features = bijection, bijection.context_features
        self.event_dim, self.centers_float64 = bijection.event_dim, bijection.centers_float64
        self.domain = bijection.domain
        self.inverse_is_numeric = bijection.inverse_is_numeric
        lead = () if self.stack is None else (self.stack,)
        self.register_buffer("center", torch.zeros(*lead, self.context_features))
        self.register_buffer("center_rest", torch.zeros(*lead, self.context_features))
        self.register_buffer("scale", torch.ones(*lead, self.context_features))

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        return self.bijection.latent_shape

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.starting and context is not None:
            self.measure(context)
        return self.bijection(x, self._standardized(context))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(z, self._standardized(context))

    @torch.no_grad()
    def measure(self, context: Tensor) -> None:
        """Set center and scale to mean and standard deviation of these contexts."""
        rows = wide_rows_of(context, self.stack, "StandardizeContext")
        mean, std = rows.mean(-2), rows.std(-2, correction=0)
        self.center.copy_(mean)
        self.center_rest.copy_(mean - self.center)
        self.scale.copy_(torch.where(std > 1e-12 * mean.abs(), std, 1.0))
        self.begun()

    def _standardized(self, context: Tensor | None) -> Tensor | None:
        if context is None or context.shape[-1] != self.context_features:
            return context  # for the map within to refuse
        difference = (context - self.align(self.center, context)) - self.align(self.center_rest, context)
        return difference.to(self.scale.dtype) / self.align(self.scale, context)


@contextmanager
def starting(model: nn.Module, *, anew: bool = False) -> Iterator[None]:
    """A block in which the next batch through ``model`` starts the layers that start from data, such as ActNorm.

    Only here do they start: no other call changes a layer. Layers that were started before are left as they are, but
    with ``anew`` all start again. A training loop of your own begins with

        with starting(flow), torch.no_grad():
            flow.log_prob(batch)
    """
    layers = [layer for layer in model.modules() if isinstance(layer, StartsFromData) and (anew or not layer.started)]
    for layer in layers:
        layer.starting = True
    try:
        yield
    finally:
        for layer in layers:
            layer.starting = False


class BatchNorm(Bijection):
    """z = (x − μ) / √(σ² + ε), with log |det| = −½ Σ log(σ² + ε) (RealNVP, arXiv:1605.08803, appendix E).

    In training μ and σ² are the batch's own, in evaluation their running averages. With batch statistics the map of a
    whole batch is not injective (shift every sample alike and nothing changes), so the log-determinant is that of
    the map *with the statistics held fixed*. The averages learn inside ``learning``, as in the steps of ``fit``, and no
    other call changes them. ``inverse`` uses the same: in training the statistics that were last learned from, in
    evaluation the running averages, so that samples belong to the density.
    Shapes ``(..., D)`` and ``(...)``.

    Raises:
        ValueError: when a training batch holds fewer than two samples.
    """

    uses_batch_statistics = True
    running_mean: Tensor
    running_variance: Tensor
    mean: Tensor  # of the last batch that it learned from
    variance: Tensor

    def __init__(
        self, features: int, *, momentum: float = 0.1, epsilon: float = 1e-5, stack: int | None = None
    ) -> None:
        super().__init__(features, stack)
        lead = () if stack is None else (stack,)
        self.momentum, self.epsilon = momentum, epsilon
        self.learning = False  # set by ``learning``
        for name, start in (("running_mean", 0.0), ("running_variance", 1.0), ("mean", 0.0), ("variance", 1.0)):
            self.register_buffer(name, torch.full((*lead, features), start))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        if self.training:
            rows = rows_of(x, self.stack, "BatchNorm in training")
            mean, variance = rows.mean(-2), rows.var(-2, correction=0)
            if self.learning:
                self._learn(mean.detach(), variance.detach())
        else:
            mean, variance = self.running_mean, self.running_variance
        log_std = 0.5 * (variance + self.epsilon).log()
        z = (x - self.align(mean, x)) * (-self.align(log_std, x)).exp()
        return z, self.batch_log_det(-log_std.sum(-1), x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        mean, variance = self.running_mean, self.running_variance
        if self.training:
            mean, variance = self.mean, self.variance
        log_std = 0.5 * (variance + self.epsilon).log()
        x = z * self.align(log_std, z).exp() + self.align(mean, z)
        return x, self.batch_log_det(log_std.sum(-1), z)

    def _learn(self, mean: Tensor, variance: Tensor) -> None:
        self.running_mean.lerp_(mean, self.momentum)
        self.running_variance.lerp_(variance, self.momentum)
        self.mean.copy_(mean)
        self.variance.copy_(variance)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, momentum={self.momentum:g}, epsilon={self.epsilon:g}"


@contextmanager
def learning(model: nn.Module) -> Iterator[None]:
    """A block in which batches that pass ``model`` in training mode update the averages of its BatchNorm layers.

    Only here do they move. A training loop of your own has each of its steps inside

        with learning(flow):
            loss = -flow.log_prob(batch).mean()
    """
    layers = [layer for layer in model.modules() if isinstance(layer, BatchNorm)]
    for layer in layers:
        layer.learning = True
    try:
        yield
    finally:
        for layer in layers:
            layer.learning = False
