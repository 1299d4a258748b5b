"""Bounds on log p(x), by noise that the density draws itself; and densities for whole numbers, the first of them.

A pixel value v is a number from 0 to 255, and its probability is that of its bin, P(v) = ∫ p(x) dx over
[v/256, (v+1)/256): the bins tile [0, 1], so the probabilities sum to one. The integral has no formula for a flow; with
noise u in the bin, x = (v + u)/256, it is a mean over u, and the log of a mean is at least the mean of the logs. So
what is computed here is a *bound* on log P(v).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from flowlab.bijections.base import is_whole
from flowlab.densities.base import Density, DensityModule, check_generator
from flowlab.densities.flow import Flow


class Bound(DensityModule):
    """log p(x) ≥ E[log w], with a log-weight log w that draws noise of its own.

    A subclass writes ``log_weight``, one draw of log w for each x, with E[w] = p(x). ``log_prob`` is then
    log (1/S) Σ_s w_s with S = ``draws``: for S = 1 a draw of the bound, for more a tighter one, and log p(x) itself in
    the limit (importance weighted, arXiv:1509.00519, eq. 8). The same generator state gives the same number.

    Args:
        event_shape: the shape of one sample.
        draws: S.

    Raises:
        ValueError: for fewer than one draw.
    """

    is_bound = True

    def __init__(self, event_shape: Any, *, draws: int = 1, stack: int | None = None) -> None:
        super().__init__(event_shape, stack=stack)
        if draws < 1:
            raise ValueError(f"{type(self).__name__} expected draws of at least 1, but got {draws}.")
        self.draws = draws

    def log_weight(self, x: Tensor, generator: Generator | None, context: Tensor | None = None) -> Tensor:
        """One draw of log w for each x, in nats: ``(..., *event)`` to ``(...)``."""
        raise NotImplementedError

    def log_prob(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """The bound on log p(x), in nats: ``(..., *event)`` to ``(...)``."""
        x, context = self.accept_pair(x, context)
        log_w = [self.log_weight(x, generator, context) for _ in range(self.draws)]
        return torch.stack(log_w).logsumexp(0) - math.log(self.draws)


class Dequantized(Bound):
    """log P(v) ≥ E_u[log p((v + u)/256)] − D log 256, u uniform: a bound (Theis et al., arXiv:1511.01844, section 3.1).

    ``log_prob`` takes whole numbers ``(..., D)`` from 0 to ``levels`` − 1 to ``(...)``, in nats of the *whole numbers*:
    a log-probability, never above 0 in the mean over u. It is a draw of the bound; with ``draws`` = S > 1 it is
    log (1/S) Σ_s p((v + u_s)/256) − D log 256, tighter (importance weighted, arXiv:1509.00519), and exact in the limit.
    The same generator state gives the same number. ``sample`` gives whole numbers ``(n, D)``.

    Args:
        density: anything with ``log_prob`` on [0, 1]^D, such as a Flow that begins with a Logit.
        levels: how many values there are; 256 for 8 bits.
        draws: how many u for each sample.

    Raises:
        TypeError, ValueError: for v that are no whole numbers, or outside 0 to ``levels`` − 1; for counts below 1.

    >>> from flowlab.bijections import Logit
    >>> from flowlab.densities import StandardLogistic
    >>> P = Dequantized(Flow(Logit(), StandardLogistic(2)), levels=4)  # uniform on [0, 1]², since z = logit(x)
    >>> print(f"{P.log_prob(torch.tensor([0, 3])):.4f}")  # log 1/4²
    -2.7726
    >>> P.sample(5, Generator().manual_seed(0)).dtype
    torch.int64
    """

    domain = "whole"

    def __init__(self, density: Density, levels: int = 256, *, draws: int = 1) -> None:
        super().__init__(density.event_shape, draws=draws, stack=density.stack)
        if levels < 2:
            raise ValueError(f"{type(self).__name__} expected levels of at least 2, but got {levels}.")
        self.density, self.levels = density, levels
        self.context_features, self.context_dim = density.context_features, density.context_dim
        if isinstance(density, DensityModule):
            self.anchor = density.anchor.clone()

    def log_weight(self, x: Tensor, generator: Generator | None, context: Tensor | None = None) -> Tensor:
        """log p((v + u)/256) − log q(u | v) − D log 256 for one u, in nats: ``(..., *event)`` to ``(...)``."""
        u, log_q = self.noise(x, generator)
        density = self.density if isinstance(self.density, DensityModule) else self.density.log_prob
        log_p = density(self.dequantize(x, u), context)
        log_w = log_p - log_q - self.features * math.log(self.levels)
        if self._may_leave(x):  # not looked at by ``accept`` on a GPU
            outside = ((x < 0) | (x >= self.levels)).reshape(*log_w.shape, self.features).any(-1)
            log_w = log_w.masked_fill(outside, -math.inf)
        return log_w

    def draw(self, n: int, generator: Generator | None = None, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """n samples of v and the bound on their log P(v): ``(n, ..., *event)`` int64 and ``(n, ...)``, no gradients."""
        v = self.sample(n, generator, context)
        return v, self.log_prob(v, context, generator=generator)

    @torch.no_grad()
    def sample(
        self, n: int, generator: Generator | None = None, context: Tensor | None = None, **settings: Any
    ) -> Tensor:
        """n samples of v = ⌊256 x⌋, x ~ p: ``(n, ..., *event)`` int64. What p puts outside of [0, 1] goes to the ends.

        Further settings, such as ``temperature``, are those of the density's ``sample``.
        """
        given = {} if context is None else {"context": context}
        x = self.density.sample(n, generator, **given, **settings)
        return (self.levels * x).floor().clamp(0, self.levels - 1).long()

    def dequantize(self, v: Tensor, u: Tensor) -> Tensor:
        """x = (v + u)/256, in (0, 1): ``(..., D)`` each."""
        # Rounding must not put a point on the edge, where the logit is infinite.
        eps = torch.finfo(u.dtype).eps
        return ((v + u) / self.levels).clamp(eps / self.levels, 1 - eps / 2)

    def noise(self, v: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | float]:
        """u in the unit cube and log q(u | v): ``(..., D)`` and ``(...)``. Here uniform, so log q = 0."""
        check_generator(generator)
        return torch.rand(v.shape, generator=generator, dtype=self.anchor.dtype, device=v.device), 0.0

    def accept(self, x: Any) -> Tensor:
        """x as a tensor of whole numbers, checked.

        Raises:
            TypeError, ValueError: for what are no whole numbers, or, on a CPU, are outside 0 to ``levels`` − 1.
        """
        v = self._as_column(self._at_the_door(x, "x", self.columns), self.event_shape)
        self.check_shape(v)
        if not is_whole(v):
            raise TypeError(
                f"{type(self).__name__} expected whole numbers from 0 to {self.levels - 1}, such as uint8 pixels, but "
                f"got {v.dtype}. It adds the noise itself: give it the pixels as they were read."
            )
        # A GPU would have to be waited for: log p is −∞ there.
        if v.numel() and self._may_leave(v) and v.device.type == "cpu":
            low, high = (int(end) for end in v.aminmax())
            if low < 0 or high >= self.levels:
                raise ValueError(
                    f"{type(self).__name__} expected whole numbers from 0 to {self.levels - 1}, but got {low} to "
                    f"{high}."
                )
        return v

    def _may_leave(self, v: Tensor) -> bool:
        """Whether the type of v has whole numbers outside of 0 to ``levels`` − 1."""
        kind = torch.iinfo(v.dtype)
        return kind.min < 0 or kind.max >= self.levels

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, levels={self.levels}, draws={self.draws}"


class VariationalDequantized(Dequantized):
    """log P(v) ≥ E_q(u | v)[log p((v + u)/256) − log q(u | v)] − D log 256 (Flow++, arXiv:1902.00275, section 3.1).

    The noise is learned: u = sigmoid(e), with e drawn from the flow ``noise`` given v. A q that puts u where p is high
    leaves a smaller gap, and p no longer has to fill its bins evenly. Train p and q together, on this bound.

    Args:
        noise: a Flow for ``(..., D)`` with a context of D features, which gets v scaled to (−1, 1). With a
            StandardLogistic base it starts, at the identity, as uniform noise.
    """

    def __init__(self, density: Density, noise: Flow, levels: int = 256, *, draws: int = 1) -> None:
        super().__init__(density, levels, draws=draws)
        self.q = noise

    def noise(self, v: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        eps = self.q.base.sample(v.numel() // self.features, generator).reshape(v.shape)
        context = (2 * v.to(eps.dtype) + 1) / self.levels - 1
        e, log_det = self.q.bijection.inverse(eps, context)
        u = torch.sigmoid(e)
        log_slope = F.logsigmoid(e) + F.logsigmoid(-e)  # log du/de
        return u, self.q.base(eps) - log_det - log_slope.sum(-1)


def negative_bound(model: nn.Module, v: Tensor, step: Any) -> Tensor:
    """−mean of the bound on log P(v), ``(N, *event)`` to ``()`` in nats: an objective for ``fit``."""
    return -model(v, generator=step.generator).mean()
