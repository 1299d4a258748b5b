"""Maps that start from the data and fit them before any training: nearly Gaussian margins, then no correlations.

In front of a standard normal they are a Gaussian copula with flexible margins. One full-covariance Gaussian is the
special case in which the margins stay as they are. So few rows suffice, and little is left for networks to learn.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowlab.bijections.elementwise import log_cosh
from flowlab.bijections.normalize import StartsFromData, wide_rows_of
from flowlab.networks.mlp import check_context
from flowlab.tables import typical_deviation

FOLDS = 5
SHRINKAGES = torch.logspace(-6, 0, 25, dtype=torch.float64)


class GaussianizeMargins(StartsFromData):
    """z = sinh(δ arcsinh(u) − ε) with u = (x − m)/a: each column has a place m, scale a, tails δ and skew ε.

    log |det| = Σ log δ + log cosh(δ arcsinh u − ε) − ½ log(1 + u²) − log a (Jones and Pewsey, Biometrika 2009, eq. 1).
    Shapes ``(..., D)`` and ``(...)``. The identity until a batch starts it, which sets all four by maximum likelihood
    of each column alone, with a Gaussian of any mean and variance in z. δ stays within a factor of 2 of 1, and a within
    e^±1.5 of the column's typical deviation: no column, discrete or with values far off, makes the map steeper.

    Raises:
        ValueError: when the batch that starts it holds fewer than two samples.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, features: int, *, stack: int | None = None) -> None:
        super().__init__(features, stack=stack)
        lead = () if stack is None else (stack,)
        self.theta = nn.Parameter(torch.zeros(*lead, 4, features))
        self.register_buffer("center", torch.zeros(*lead, features))
        self.register_buffer("scale", torch.ones(*lead, features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        if self.starting:
            self.start(x)
        u = (x - self.align(self.center, x)) / self.align(self.scale, x)
        z, log_slope = _bend(u, self.align(self.theta, x.unsqueeze(-2)))
        return z, log_slope.sum(-1) - self.batch_log_det(self.scale.log().sum(-1), x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        u = _bend_back(z, self.align(self.theta, z.unsqueeze(-2)))
        _, log_slope = _bend(u, self.align(self.theta, z.unsqueeze(-2)))
        x = u * self.align(self.scale, z) + self.align(self.center, z)
        return x, self.batch_log_det(self.scale.log().sum(-1), z) - log_slope.sum(-1)

    def start(self, x: Tensor) -> None:
        """Set center and scale to median and typical deviation of this batch, and θ by maximum likelihood."""
        rows = wide_rows_of(x, self.stack, "GaussianizeMargins")  # (N, D) or (K, N, D)
        center, std = rows.median(-2).values, rows.std(-2, correction=0)
        width = typical_deviation(rows)
        width = torch.where(width > 0, width, torch.where(std > 0, std, 1.0))
        theta = _most_likely((rows - center.unsqueeze(-2)) / width.unsqueeze(-2), self.theta)
        with torch.no_grad():
            for own, value in ((self.center, center), (self.scale, width), (self.theta, theta)):
                own.copy_(value)
            self.begun()


class Whiten(StartsFromData):
    """z = L (x − B c) + b, L lower triangular with positive diagonal, c the context: log |det| = Σ log L_ii.

    Shapes ``(..., D)``, a context ``(..., C)`` and ``(...)``. The identity until a batch starts it. Then z has mean 0
    and, but for shrinkage, covariance I, and B is the linear regression of x on c: with a standard normal base this is
    the full-covariance Gaussian, given c. The covariance is shrunk toward a diagonal one, (1 − α) S + α diag(S), with
    the α under which rows that were left out are likeliest.

    Raises:
        ValueError: when the batch that starts it holds fewer than two samples.
    """

    def __init__(self, features: int, *, context_features: int = 0, stack: int | None = None) -> None:
        super().__init__(features, stack=stack)
        self.context_features = context_features
        lead = () if stack is None else (stack,)
        self.lower = nn.Parameter(torch.zeros(*lead, features, features))
        self.log_scale = nn.Parameter(torch.zeros(*lead, features))
        self.shift = nn.Parameter(torch.zeros(*lead, features))
        self.regression = nn.Parameter(torch.zeros(*lead, features, context_features)) if context_features else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        check_context(context, self.context_features)
        if self.starting:
            self.start(x, context)
        y = x if self.regression is None else x - self._predicted(x, context)
        z = (self._triangle(x) @ y.unsqueeze(-1)).squeeze(-1) + self.align(self.shift, x)
        return z, self.batch_log_det(self.log_scale.sum(-1), x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        check_context(context, self.context_features)
        y = (z - self.align(self.shift, z)).unsqueeze(-1)
        x = torch.linalg.solve_triangular(self._triangle(z), y, upper=False).squeeze(-1)
        x = x if self.regression is None else x + self._predicted(z, context)
        return x, self.batch_log_det(-self.log_scale.sum(-1), z)

    @torch.no_grad()
    def start(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set B by regression, and L and b so that what it leaves of this batch is white."""
        C = self.context_features
        both = x if context is None else torch.cat((context.expand(*x.shape[:-1], C), x), -1)
        rows = wide_rows_of(both, self.stack, "Whiten")
        mean = rows.mean(-2)
        S = torch.stack([shrunk_covariance(one) for one in rows.reshape(-1, *rows.shape[-2:])])
        S = S.reshape(*mean.shape, -1)
        # Of the joint Gaussian of c and x: what c predicts of x, and the covariance that is left.
        B = torch.linalg.solve(S[..., :C, :C], S[..., :C, C:]).mT
        left = S[..., C:, C:] - B @ S[..., :C, C:]
        L = torch.linalg.inv(torch.linalg.cholesky(left))
        self.lower.copy_(L.tril(-1))
        self.log_scale.copy_(L.diagonal(dim1=-2, dim2=-1).log())
        middle = mean[..., C:] - (B @ mean[..., :C].unsqueeze(-1)).squeeze(-1)
        self.shift.copy_(-(L @ middle.unsqueeze(-1)).squeeze(-1))
        if self.regression is not None:
            self.regression.copy_(B)
        self.begun()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, context_features={self.context_features}"

    def _triangle(self, x: Tensor) -> Tensor:
        """L, ``(D, D)``, or ``(K, 1, ..., D, D)`` in a stack."""
        return self.align(self.lower.tril(-1) + torch.diag_embed(self.log_scale.exp()), x.unsqueeze(-1))

    def _predicted(self, x: Tensor, context: Tensor | None) -> Tensor:
        """B c: ``(..., D)``."""
        assert self.regression is not None and context is not None
        return (self.align(self.regression, x.unsqueeze(-1)) @ context.unsqueeze(-1)).squeeze(-1)


def shrunk_covariance(x: Tensor) -> Tensor:
    """(1 − α) S + α diag(S) of rows ``(N, D)``, with the α of the highest held-out Gaussian likelihood in five folds.

    Ledoit and Wolf's α (2004) is best for the squared error of S, by which small eigenvalues hardly count; for a
    likelihood they count as much as large ones.
    """
    N, D = x.shape
    std = x.std(0, correction=0)
    std = torch.where(std > 1e-12 * x.abs().amax(0), std, 1.0)
    z = (x - x.mean(0)) / std
    fold, held_out = torch.arange(N, device=x.device) % FOLDS, torch.zeros(len(SHRINKAGES), device=x.device)
    alpha = SHRINKAGES.to(x).unsqueeze(-1)
    for k in range(min(FOLDS, N)):
        rest, left = z[fold != k], z[fold == k]
        e, V = torch.linalg.eigh(rest.T.cov(correction=0).reshape(D, D))  # S = V diag(e) Vᵀ
        variance = (1 - alpha) * e.clamp_min(0) + alpha  # (A, D): of each α, along each eigenvector
        square = ((left - rest.mean(0)) @ V).square().sum(0)
        held_out = held_out - 0.5 * (square / variance + len(left) * variance.log()).sum(-1)
    best = alpha[held_out.argmax()]
    S = z.T.cov(correction=0).reshape(D, D)
    target = torch.diag(torch.where(S.diagonal() > 0, S.diagonal(), 1.0))
    return ((1 - best) * S + best * target) * torch.outer(std, std)


def _bend(u: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """z = sinh(δ arcsinh((u − m)/a) − ε) and log dz/du, elementwise, for θ ``(..., 4, D)``."""
    m, log_a, log_delta, skew = _parameters(theta)
    w = torch.asinh((u - m) * (-log_a).exp())
    v = log_delta.exp() * w - skew
    return torch.sinh(v), log_delta + log_cosh(v) - log_cosh(w) - log_a


def _bend_back(z: Tensor, theta: Tensor) -> Tensor:
    m, log_a, log_delta, skew = _parameters(theta)
    return torch.sinh((torch.asinh(z) + skew) * (-log_delta).exp()) * log_a.exp() + m


def _parameters(theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """m, log a, log δ and ε, ``(..., D)`` each, from an unbounded θ ``(..., 4, D)``."""
    m, s, t, skew = theta.unbind(-2)
    return m, 1.5 * torch.tanh(s), math.log(2) * torch.tanh(t), skew


@torch.enable_grad()
def _most_likely(u: Tensor, like: Tensor) -> Tensor:
    """The likeliest θ, ``(N, D)`` to ``(4, D)``, for a Gaussian in z and a prior N(0, ½²) on θ.

    The best mean and variance are those of z, which leaves log std(z) − mean log dz/du to minimize.
    """
    theta = torch.zeros(like.shape, dtype=u.dtype, device=u.device, requires_grad=True)
    search = torch.optim.LBFGS([theta], max_iter=100, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        z, log_slope = _bend(u, theta.unsqueeze(-3))
        nats = 0.5 * z.var(-2, correction=0).clamp_min(1e-30).log() - log_slope.mean(-2)
        total = nats.sum() + 2 * theta.square().sum() / u.shape[-2]
        total.backward()
        return total

    search.step(loss)
    varies = (u.amax(-2) > u.amin(-2)).unsqueeze(-2)
    return torch.where(varies & theta.isfinite(), theta, 0.0)
