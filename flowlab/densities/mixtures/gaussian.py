"""The Gaussian mixture by expectation and maximization, one half-step at a time.

    E:  r_nk = π_k N(x_n; μ_k, Σ_k) / Σ_j π_j N(x_n; μ_j, Σ_j)
    M:  N_k = Σ_n r_nk,   π_k = N_k / N,   μ_k = Σ_n r_nk x_n / N_k,   Σ_k = Σ_n r_nk (x_n − μ_k)(x_n − μ_k)ᵀ / N_k

Both raise the same bound F(r, θ) = Σ_n Σ_k r_nk log(π_k N(x_n; μ_k, Σ_k) / r_nk): E sets r so that it touches
log p(x; θ), and M moves θ to its top. So log p(x; θ) never falls.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from flowlab import densities
from flowlab.tables import TableWarning, as_float64, as_rows, as_tensor, typical_deviation


class SingularComponent(ValueError):
    """A component has collapsed onto points that do not span the space, so that its density is infinite there."""


class EMStep(NamedTuple):
    """What one step of EM did. Objectives are in nats a point: mean log p(x) plus log p(θ)/N, where there is a prior.

    ``before`` ≤ ``bound`` ≤ ``objective``: E makes the bound touch the objective ``before``, M raises the bound, and
    the objective at the new parameters lies above it. With ``hard`` the first two are those of the hard labels.
    """

    responsibilities: Tensor  # (N, K), of the E-step
    before: float  # the bound after E, at the old parameters
    bound: float  # the bound after M, at the new parameters
    objective: float  # at the new parameters
    log_likelihood: float  # mean log p(x) at the new parameters
    weights: Tensor  # (K,)
    means: Tensor  # (K, D)
    covariances: Tensor  # (K, D, D)
    empty: list[int]  # components that no point chose: weight 0, mean and covariance as they were
    at_floor: list[int]  # components whose covariance would be flatter, were it not for the floor


@dataclass(frozen=True)
class Prior:
    """log p(θ) = Σ_k [(α − 1) log π_k − ½ (ν + D + 1) log |Σ_k| − ½ tr(Ψ Σ_k⁻¹)] + constant, and flat in the means.

    Dirichlet(α) weights and inverse-Wishart(Ψ, ν) covariances: the M-step stays closed, and no component collapses
    (Fraley and Raftery, Journal of Classification 2007, section 3; the optional term in Pires, thesis, eq. 2.27).

    Args:
        scale: Ψ, ``(D, D)``, symmetric and positive definite.
        degrees: ν, above D − 1.
        concentration: α, at least 1.
    """

    scale: Tensor
    degrees: float
    concentration: float = 1.0

    def __post_init__(self) -> None:
        D = self.scale.shape[-1] if self.scale.ndim else 0
        if self.scale.shape != (D, D) or D == 0 or bool(torch.linalg.cholesky_ex(self.scale).info != 0):
            raise ValueError(
                f"Prior expected a scale (D, D), symmetric and positive definite, but got {self.scale.tolist()}."
            )
        if not self.degrees > D - 1 or not self.concentration >= 1:
            raise ValueError(
                f"Prior expected more than D − 1 = {D - 1} degrees of freedom and a concentration of at least 1, but "
                f"got {self.degrees} and {self.concentration}."
            )

    @classmethod
    def weak(cls, x: Tensor, components: int) -> Prior:
        """Ψ = cov(x) / K^(2/D) and ν = D + 2: each component expects its share of the spread of ``x``."""
        x = _points(x)
        D = x.shape[1]
        return cls(x.T.cov(correction=0).reshape(D, D) / components ** (2 / D), D + 2.0)


class EMGaussianMixture(densities.GaussianMixture):
    """log p(x) = log Σ_k π_k N(x; μ_k, Σ_k), fitted by EM (Dempster, Laird and Rubin, 1977; Pires, thesis, eq. 2.26).

    ``(..., D)`` to ``(...)``, in nats, computed in float64. ``EMGaussianMixture.fit(x, 3)`` starts and fits one;
    ``EMGaussianMixture(means, covariances)`` is one as given, and ``step(x)`` takes it one step on.

    What never falls: mean log p(x) + log p(θ)/N, the ``objective``, log p(θ) being there with a ``prior`` only.
    ``floor`` keeps that true, because it is a constraint: with each column of x divided by its ``unit``, the best among
    all Σ ⪰ floor·I is the weighted covariance with its eigenvalues raised to the floor. ``ridge`` adds a multiple of
    the identity *after* the M-step, as scikit-learn's ``reg_covar`` does: no step of anything, so the objective may
    fall.

    Args:
        means: ``(K, D)``.
        covariances: ``(K, D, D)``; the identity when left out.
        weights: ``(K,)``, positive and summing to one; equal when left out.
        diagonal: whether the M-step keeps the diagonal of each covariance only.
        floor: least eigenvalue of a covariance, in squares of ``unit``: a share of the variance of x; 0 for none.
        unit: ``(D,)``, the scale of each column. ``start`` and ``fit`` take ``typical_deviation`` of x; 1 if left out.
        ridge: added to the diagonal of each covariance, in squared units of x; 0 for none.
        prior: log p(θ), for a maximum a posteriori fit.

    Attributes:
        at_floor: which components the floor holds: those on points that do not span the space.

    Raises:
        ValueError: for means, covariances or weights that make no mixture, and for points that are not finite.
        SingularComponent: without a floor, when a component collapses.
    """

    unit: Tensor

    def __init__(
        self,
        means: Tensor,
        covariances: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        diagonal: bool = False,
        floor: float = 1e-6,
        unit: Tensor | None = None,
        ridge: float = 0.0,
        prior: Prior | None = None,
    ) -> None:
        def double(value: Tensor) -> Tensor:
            return value.double() if value.is_floating_point() else value

        covariances = None if covariances is None else double(covariances)
        weights = None if weights is None else double(weights)
        super().__init__(double(means), covariances, weights=weights)
        if not (floor >= 0 and ridge >= 0):
            raise ValueError(f"EMGaussianMixture expected a floor and a ridge of at least 0, but got {floor}, {ridge}.")
        if prior is not None and prior.scale.shape[-1] != self.features:
            raise ValueError(
                f"EMGaussianMixture expected a prior in {self.features} dimensions, but got {prior.scale.shape[-1]}."
            )
        unit = torch.ones(self.features) if unit is None else unit
        if unit.shape != (self.features,) or not bool((unit > 0).all()):
            raise ValueError(
                f"EMGaussianMixture expected {self.features} positive numbers as unit, but got {unit.tolist()}."
            )
        self.diagonal, self.floor, self.ridge, self.prior = diagonal, floor, ridge, prior
        self.register_buffer("unit", unit.to(self.means), persistent=False)
        self.at_floor: list[int] = []
        # The start obeys the same constraints as all that follows.
        S = self.covariances
        self._set_covariances(torch.diag_embed(S.diagonal(dim1=-2, dim2=-1)) if diagonal else S)

    @classmethod
    def start(
        cls,
        x: Any,
        components: int,
        *,
        how: str = "kmeans++",
        generator: Generator | None = None,
        **settings: Any,
    ) -> EMGaussianMixture:
        """A mixture to begin EM with: K of the points as means, the spread around them as one covariance for all.

        Distances are measured with each column divided by its standard deviation.

        Args:
            x: ``(N, D)``, whatever ``flowlab.tables`` takes.
            components: K, no more than there are distinct points.
            how: "kmeans++" draws each mean with a chance in proportion to its squared distance from the nearest one
                so far (Arthur and Vassilvitskii, 2007); "random" draws any distinct points.
            settings: of the mixture: ``diagonal``, ``floor``, ``ridge``, ``prior``.
        """
        names = as_rows(x, "the points").names
        x = _points(x)
        std = x.std(0, correction=0)
        scale = torch.where(std > 0, std, 1.0)
        distinct = x.unique(dim=0)
        if not 1 <= components <= len(distinct):
            raise ValueError(
                f"EMGaussianMixture expected from 1 to {len(distinct)} components, as many as there are distinct "
                f"points among the {len(x)} given, but got {components}."
            )
        if how == "kmeans++":
            mu = x[_kmeans_plus_plus(x / scale, components, generator)]
        elif how == "random":
            mu = distinct[torch.randperm(len(distinct), generator=generator, device=x.device)[:components]]
        else:
            raise ValueError(f"Expected a start 'kmeans++' or 'random', but got {how!r}.")
        e = x - mu[torch.cdist(x / scale, mu / scale).argmin(-1)]
        # Points that all are means have no spread around them; the floor, or the singular component, answers for that.
        S = e.T @ e / len(x)
        mixture = cls(mu, **{"unit": _unit(x), **settings})
        mixture._set_covariances((torch.diag(S.diagonal()) if mixture.diagonal else S).repeat(components, 1, 1))
        mixture.columns = names
        return mixture

    @classmethod
    def fit(
        cls,
        x: Any,
        components: int,
        *,
        restarts: int = 1,
        steps: int = 500,
        tolerance: float = 1e-7,
        how: str = "kmeans++",
        generator: Generator | None = None,
        **settings: Any,
    ) -> EMGaussianMixture:
        """The best of several fits by EM: that of the highest objective on ``x``. Warns where the floor holds it.

        Args:
            x: ``(N, D)``, whatever ``flowlab.tables`` takes.
            components: K.
            restarts: how many starts are tried.
            steps: the most steps of each; one ends earlier when a step gains less than ``tolerance`` nats a point.
            how, generator, settings: as for ``start``.

        Raises:
            SingularComponent: when every start ends in one.
        """
        if restarts < 1 or steps < 1:
            raise ValueError(f"fit expected at least one restart and one step, but got {restarts} and {steps}.")
        best, failures = None, []
        for _ in range(restarts):
            try:
                mixture = cls.start(x, components, how=how, generator=generator, **settings)
                *_, value = mixture.run(x, steps, tolerance)
            except SingularComponent as error:
                failures.append(error)
                continue
            if best is None or value > best[0]:
                best = value, mixture
        if best is None:
            raise failures[-1]
        mixture = best[1]
        if mixture.at_floor:
            warnings.warn(
                f"{len(mixture.at_floor)} of {components} components lie on points that do not span the space: a "
                f"constant or a dependent column, copies of a row, or too few points. The floor holds them, at "
                f"{mixture.floor:g} of the variance of x, and how likely they make these points says nothing. Take "
                f"fewer components or a prior, or drop what flowlab.describe(x) names.",
                TableWarning,
                stacklevel=2,
            )
        return mixture

    def run(self, x: Tensor, steps: int = 500, tolerance: float = 1e-7) -> Iterator[float]:
        """Take steps until one gains less than ``tolerance``, and yield the objective after each (nats a point)."""
        x = _points(x, self.columns)
        last = self.objective(x)
        for _ in range(steps):
            self.maximization(x, self.expectation(x))
            value = self.objective(x)
            yield value
            if value - last < tolerance:
                return
            last = value

    @torch.no_grad()
    def step(self, x: Tensor, *, hard: bool = False) -> EMStep:
        """One E-step and one M-step on ``x`` ``(N, D)``, in place, and what each did."""
        x = _points(x, self.columns)
        r = self.expectation(x, hard=hard)
        before = self.bound(x, r)
        empty = self.maximization(x, r)
        log_likelihood = float(self.log_prob(x).mean())
        return EMStep(
            r,
            before,
            self.bound(x, r),
            log_likelihood + self._log_prior() / len(x),
            log_likelihood,
            self.weights.clone(),
            self.means.detach().clone(),
            self.covariances,
            empty,
            self.at_floor,
        )

    @torch.no_grad()
    def expectation(self, x: Tensor, *, hard: bool = False) -> Tensor:
        """E: r_nk = p(k | x_n), ``(N, D)`` to ``(N, K)``; with ``hard`` all of it to the likeliest component."""
        x = _points(x, self.columns)
        log_joint = self.log_joint(x)
        lost = log_joint.logsumexp(-1).isinf()
        if bool(lost.any()):
            n = int(lost.nonzero()[0])
            raise ValueError(
                f"Point {n}, {x[n].tolist()}, is so far from all components that its log-density overflows. Remove it, "
                f"or rescale the points."
            )
        if hard:
            return torch.nn.functional.one_hot(log_joint.argmax(-1), len(self.means)).to(log_joint)
        return log_joint.softmax(-1)

    @torch.no_grad()
    def maximization(self, x: Tensor, responsibilities: Tensor) -> list[int]:
        """M: the weights, means and covariances at the top of the bound; returns the components that were empty.

        With a prior π_k ∝ N_k + α − 1 and Σ_k = (Ψ + N_k S_k) / (N_k + ν + D + 1). An empty component, N_k = 0, leaves
        the bound unchanged wherever it is: it keeps its place.
        """
        x, r = _points(x, self.columns), responsibilities.double()
        K, D = self.means.shape
        if r.shape != (len(x), K):
            raise ValueError(f"maximization expected responsibilities {(len(x), K)}, but got {tuple(r.shape)}.")
        N = r.sum(0)  # (K,)
        alive = N > 0
        w = torch.where(alive, r / N, 0.0)  # (N, K), each column summing to one
        mu = torch.where(alive[:, None], w.T @ x, self.means)  # (K, D)
        # One component at a time: (N, D) in memory, not (N, K, D).
        if self.diagonal:
            S = torch.stack([torch.diag(w_k @ (x - mu_k) ** 2) for w_k, mu_k in zip(w.T, mu, strict=True)])
        else:
            S = torch.stack([(w_k[:, None] * (x - mu_k)).T @ (x - mu_k) for w_k, mu_k in zip(w.T, mu, strict=True)])
        if self.prior is None:
            pi = N / N.sum()
            S = torch.where(alive[:, None, None], S, self.covariances)
        else:
            psi = self.prior.scale.to(S)
            psi = torch.diag(psi.diagonal()) if self.diagonal else psi
            pi = N + self.prior.concentration - 1
            pi = pi / pi.sum()
            S = (psi + N[:, None, None] * S) / (N + self.prior.degrees + D + 1)[:, None, None]
        self._set_covariances(S + self.ridge * torch.eye(D).to(S), N)
        self.means.copy_(mu)
        self.logits.copy_(pi.log())
        return (~alive).nonzero().flatten().tolist()

    @torch.no_grad()
    def bound(self, x: Tensor, responsibilities: Tensor) -> float:
        """F(r, θ) = (1/N) Σ_n Σ_k r_nk log(π_k N(x_n; μ_k, Σ_k) / r_nk) + log p(θ)/N ≤ the objective, for any r."""
        r = responsibilities.double()
        x = _points(x, self.columns)
        log_joint = self.log_joint(x).masked_fill(r == 0, 0.0)  # 0 · −∞ = 0
        return float(((r * log_joint).sum(-1) + torch.special.entr(r).sum(-1)).mean()) + self._log_prior() / len(x)

    @torch.no_grad()
    def objective(self, x: Tensor) -> float:
        """(1/N) [Σ_n log p(x_n) + log p(θ)], in nats a point: what EM raises."""
        x = _points(x, self.columns)
        return float(self.log_prob(x).mean()) + self._log_prior() / len(x)

    def bic(self, x: Tensor) -> float:
        """−2 Σ log p(x) + P log N for P free parameters: lower is better (Schwarz, 1978). Twice nats."""
        return -2 * float(self.log_prob(_points(x, self.columns)).sum()) + self.free_parameters * math.log(len(x))

    def aic(self, x: Tensor) -> float:
        """−2 Σ log p(x) + 2 P for P free parameters: lower is better (Akaike, 1974). Twice nats."""
        return -2 * float(self.log_prob(_points(x, self.columns)).sum()) + 2 * self.free_parameters

    @property
    def free_parameters(self) -> int:
        """P = (K − 1) + K D + K D (D + 1)/2, or K D in the last term when diagonal."""
        K, D = self.means.shape
        return K - 1 + K * D + (K * D if self.diagonal else K * D * (D + 1) // 2)

    @property
    def weights(self) -> Tensor:
        """π, ``(K,)``."""
        return self.logits.softmax(-1).detach()

    @property
    def covariances(self) -> Tensor:
        """Σ, ``(K, D, D)``."""
        L = self._scale_tril().detach()
        return L @ L.mT

    def _log_prior(self) -> float:
        """log p(θ) up to its constant."""
        if self.prior is None:
            return 0.0
        psi, nu, alpha = self.prior.scale.to(self.means), self.prior.degrees, self.prior.concentration
        log_det = 2 * self.log_diagonal.sum(-1)
        trace = torch.cholesky_solve(psi, self._scale_tril()).diagonal(dim1=-2, dim2=-1).sum(-1)
        value = -0.5 * ((nu + self.features + 1) * log_det + trace).sum()
        if alpha > 1:  # else the weight of an empty component would give 0 · −∞
            value = value + (alpha - 1) * self.logits.log_softmax(-1).sum()
        return float(value)

    @torch.no_grad()
    def _set_covariances(self, S: Tensor, counts: Tensor | None = None) -> None:
        """Keep Σ = L Lᵀ with eigenvalues raised to the floor, or name the component that is singular."""
        u = self.unit
        e, V = torch.linalg.eigh((S + S.mT) / 2 / (u * u.unsqueeze(-1)))  # (K, D), (K, D, D)
        flat = e[:, 0] <= torch.finfo(e.dtype).eps * e[:, -1]
        if self.floor == 0 and bool(flat.any()):
            k = int(flat.nonzero()[0])
            held = "" if counts is None else f" It holds {float(counts[k]):.3g} points."
            raise SingularComponent(
                f"Component {k} has collapsed: its covariance is singular, so its density is infinite.{held} Give a "
                f"floor above 0 or a prior, fewer components, or another start."
            )
        self.at_floor = (e[:, 0] < self.floor).nonzero().flatten().tolist()
        # Σ = (U V √e)(U V √e)ᵀ, and QR makes the factor triangular; unlike Cholesky it never fails.
        R = torch.linalg.qr(e.clamp_min(self.floor).sqrt().unsqueeze(-1) * V.mT * u).R
        L = R.mT * R.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
        self.lower.copy_(L.tril(-1))
        self.log_diagonal.copy_(L.diagonal(dim1=-2, dim2=-1).log())

    def extra_repr(self) -> str:
        settings = (
            f"diagonal={self.diagonal}, floor={self.floor:g}, ridge={self.ridge:g}, prior={self.prior is not None}"
        )
        return f"{super().extra_repr()}, {settings}"


def _points(x: Any, names: Sequence[str] | None = None) -> Tensor:
    """``x`` as finite float64 points ``(N, D)``, columns with names in the order of ``names``, or a sentence."""
    return as_float64(as_tensor(as_rows(x, "the points"), "the points", names=names))


def _unit(x: Tensor) -> Tensor:
    """The spread of each column, ``(D,)``; for a constant one its size, since it has no other scale."""
    spread, std, size = typical_deviation(x), x.std(0, correction=0), x.abs().amax(0)
    spread = torch.where(spread > 0, spread, std)
    return torch.where(std > 1e-12 * size, spread, torch.where(size > 0, size, 1.0))


def _kmeans_plus_plus(x: Tensor, components: int, generator: Generator | None) -> Tensor:
    """The numbers of K points that are spread out: ``(K,)``."""
    chosen = torch.randint(len(x), (1,), generator=generator, device=x.device)
    for _ in range(1, components):
        d = ((x[:, None] - x[chosen]) ** 2).sum(-1).amin(-1)  # squared distance to the nearest so far
        chosen = torch.cat((chosen, torch.multinomial(d / d.max(), 1, generator=generator)))
    return chosen
