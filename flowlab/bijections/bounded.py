"""From intervals to the whole line, a column at a time: for percentages, ages, and what else has ends."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from flowlab.bijections.base import Bijection

End = float | None


class Bounded(Bijection):
    """z = log(x − a) − log(b − x) in each column, with its own ends a and b; an end that is None leaves out its term.

    log |det| = Σ log(b − a) − log(x − a) − log(b − x) over columns with two ends, and the terms that there are over
    those with one. A column without ends stays as it is. Shapes ``(..., D)`` and ``(...)``. Beyond an end log |det| is
    −∞, and so is the log-density of a flow that begins with this map. At an end, and closer to it than rounding, a
    column with two ends counts as the nearest number inside. x may be float64 where the layer is float32. Has no
    parameters, so a stack takes it too. With ends 0 and 1 this is ``Logit(0)``.

    Raises:
        ValueError: for ends that are no pair, not finite, or not in order.

    >>> f = Bounded([(5.0, 10.0), (0.0, None), (None, None)])
    >>> z, log_det = f(torch.tensor([7.5, 1.0, 3.0]))
    >>> print(z.tolist(), f"{log_det:.4f}")  # log 5 − 2 log 2.5
    [0.0, 0.0, 3.0] -0.2231
    """

    centers_float64 = True
    has_low: Tensor
    has_high: Tensor
    low: Tensor
    low_rest: Tensor
    high: Tensor
    high_rest: Tensor

    def __init__(self, ends: Sequence[Sequence[End] | None]) -> None:
        super().__init__(len(ends))
        self.ends = [_pair(end) for end in ends]
        for i, name in enumerate(("low", "high")):
            value = torch.tensor([0.0 if pair[i] is None else pair[i] for pair in self.ends], dtype=torch.float64)
            self.register_buffer(name, value.to(torch.get_default_dtype()))
            self.register_buffer(f"{name}_rest", (value - getattr(self, name)).to(torch.get_default_dtype()))
            self.register_buffer(f"has_{name}", torch.tensor([pair[i] is not None for pair in self.ends]))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        width = self._width()
        eps = torch.finfo(x.dtype).eps
        above = torch.where(self.has_low, (x - self.low) - self.low_rest, 1.0).to(self.low.dtype)
        below = torch.where(self.has_high, (self.high - x) + self.high_rest, 1.0).to(self.low.dtype)
        # Own samples may lie beyond an end by the rounding of x, which far from 0 is more than that of the width.
        slack = eps * (self.low.abs() + self.high.abs() + width)
        outside = ((above < -slack) | (below < -slack)).any(-1)
        least = torch.where(self.has_low & self.has_high, torch.finfo(self.low.dtype).eps / 4 * width, _TINY)
        log_above, log_below = above.clamp_min(least).log(), below.clamp_min(least).log()
        either = self.has_low | self.has_high
        z = torch.where(either, log_above - log_below, x.to(self.low.dtype))
        log_det = torch.where(either, width.log() - log_above - log_below, 0.0)
        return z, log_det.sum(-1).masked_fill(outside, -math.inf)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        both, log_width = self.has_low & self.has_high, self._width().log()
        log_above = torch.where(both, log_width - F.softplus(-z), torch.where(self.has_low, z, 0.0))
        log_below = torch.where(both, log_width - F.softplus(z), torch.where(self.has_high, -z, 0.0))
        from_low = self.has_low & (~self.has_high | (z < 0))  # from the nearer end
        x = torch.where(from_low, (log_above.exp() + self.low_rest) + self.low, z)
        x = torch.where(self.has_high & ~from_low, (self.high_rest - log_below.exp()) + self.high, x)
        log_det = torch.where(self.has_low | self.has_high, log_above + log_below - log_width, 0.0)
        return x, log_det.sum(-1)

    def _width(self) -> Tensor:
        """b − a of columns with two ends, 1 of others: ``(D,)``."""
        width = (self.high - self.low) + (self.high_rest - self.low_rest)
        return torch.where(self.has_low & self.has_high, width, 1.0)

    def extra_repr(self) -> str:
        return ", ".join(f"({_told(low)}, {_told(high)})" for low, high in self.ends)


_TINY = 1e-37  # of one end: float32 has no smaller numbers in full precision


def _pair(end: Sequence[End] | None) -> tuple[End, End]:
    """Two ends, each a finite number or None."""
    low, high = (None, None) if end is None else end if len(end) == 2 else (math.nan, math.nan)
    if any(e is not None and not math.isfinite(e) for e in (low, high)) or (
        low is not None and high is not None and not low < high
    ):
        raise ValueError(f"Bounded expected two ends in order, or None for an end that is not there, but got {end}.")
    return None if low is None else float(low), None if high is None else float(high)


def _told(end: End) -> str:
    return "none" if end is None else f"{end:g}"
