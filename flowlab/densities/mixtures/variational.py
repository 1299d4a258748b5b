"""Mixtures of flows: p(x) = Σ_k π_k p(x | k), with a network q(k | x; γ) that learns to name the component.

log p(x) is a logsumexp of K terms, so it is exact here, and the bound needs the same K terms:

    log p(x) ≥ E_q[log p(x | k)] − KL(q(k | x) ‖ π)          equal where q(k | x) = p(k | x)

What q buys is a classifier, and a place for temperature, consistency and labels (Pires, thesis, chapter 4; Pires and
Figueiredo, "Variational Mixture of Normalizing Flows").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, cast, overload

import torch
from torch import Generator, Tensor, nn

from flowlab.bijections import Bijection
from flowlab.densities.base import DensityModule, check_generator
from flowlab.densities.flow import Flow
from flowlab.densities.gaussian_mixture import GaussianMixture
from flowlab.densities.mixtures.base import check_labels, check_pairs, divergence, mutual_information
from flowlab.networks import MLP


class _Step(Protocol):
    """Where a training loop is: ``flowlab.training.Step``."""

    @property
    def index(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def generator(self) -> Generator: ...
    def _replace(self, *, index: int, total: int) -> _Step: ...


class Elbo(NamedTuple):
    """The bound at each point, ``(...)`` in nats, and its two terms: total = reconstruction + minus_kl ≤ log p(x)."""

    total: Tensor
    reconstruction: Tensor  # E_q[log p(x | k)]
    minus_kl: Tensor  # −KL(q(k | x) ‖ π) = E_q[log π_k] + entropy of q


class Mixture(DensityModule):
    """p(x) = Σ_k π_k p(x | k): what follows from ``log_prob_components`` and ``log_weights`` alone.

    A subclass gives these two, ``log_posterior`` and ``labelled``. Shapes: ``(..., D)`` to ``(...)`` or ``(..., K)``;
    all logarithms in nats.
    """

    @property
    def log_weights(self) -> Tensor:
        """log π, ``(K,)``."""
        raise NotImplementedError

    def log_prob_components(self, x: Tensor) -> Tensor:
        """log p(x | k), ``(..., D)`` to ``(..., K)``."""
        raise NotImplementedError

    def log_posterior(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        """log q(k | x), ``(..., D)`` to ``(..., K)``."""
        raise NotImplementedError

    @property
    def components(self) -> int:
        """K."""
        return len(self.log_weights)

    @property
    def weights(self) -> Tensor:
        """π, ``(K,)``."""
        return self.log_weights.exp().detach()

    def log_joint(self, x: Tensor) -> Tensor:
        """log π_k + log p(x | k), ``(..., D)`` to ``(..., K)``."""
        return self.log_weights + self.log_prob_components(x)

    def log_prob(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """log p(x) = logsumexp_k [log π_k + log p(x | k)], exact: ``(..., D)`` to ``(...)``."""
        x, _ = self.accept_pair(x, context)
        return self.defined(self.log_joint(x).logsumexp(-1), x)

    def labelled(
        self, n: int, generator: Generator | None = None, *, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """n samples of x and of the component k that each is from: ``(n, D)`` and ``(n,)``."""
        raise NotImplementedError

    def draw(self, n: int, generator: Generator | None = None, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """n samples and their log p(x), in nats: ``(n, D)`` and ``(n,)``.

        Gradients of the samples reach the components. Which component a sample is from has no gradient, so those of
        the weights come by log p alone.
        """
        self.accept_context(context)
        x, _ = self.labelled(n, generator)
        return x, self.log_prob(x)

    @overload
    def sample(
        self,
        n: int,
        generator: Generator | None = None,
        context: Tensor | None = None,
        *,
        labels: Literal[False] = False,
        temperature: float = 1.0,
    ) -> Tensor: ...
    @overload
    def sample(
        self,
        n: int,
        generator: Generator | None = None,
        context: Tensor | None = None,
        *,
        labels: Literal[True],
        temperature: float = 1.0,
    ) -> tuple[Tensor, Tensor]: ...
    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: Generator | None = None,
        context: Tensor | None = None,
        *,
        labels: bool = False,
        temperature: float = 1.0,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """n samples ``(n, D)``, with ``labels`` also the component of each, ``(n,)``; ``temperature`` as in a Flow."""
        self.accept_context(context)
        x, k = self.labelled(n, generator, temperature=temperature)
        return (x, k) if labels else x

    def log_responsibilities(self, x: Tensor) -> Tensor:
        """log p(k | x) by Bayes' rule, exact: ``(..., D)`` to ``(..., K)``."""
        return self.log_joint(x).log_softmax(-1)

    def responsibilities(self, x: Tensor) -> Tensor:
        """p(k | x) by Bayes' rule, exact: ``(..., D)`` to ``(..., K)``, summing to one."""
        return self.log_responsibilities(x).exp()

    def posterior(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        """q(k | x) by the model's network, or exact where it has none: ``(..., D)`` to ``(..., K)``, summing to one."""
        return self.log_posterior(x, temperature).exp()

    def elbo(self, x: Tensor, temperature: float = 1.0, *, log_posterior: Tensor | None = None) -> Elbo:
        """E_q[log p(x | k)] − KL(q ‖ π) at each point (thesis, eq. 4.2, with prior and entropy as one term).

        ``log_posterior`` ``(..., K)`` puts any other q in place of the model's: the bound holds for all. ValueError for
        one of another shape.
        """
        log_q = self.log_posterior(x, temperature) if log_posterior is None else log_posterior
        log_p = self.log_prob_components(x)
        if log_q.shape != log_p.shape:  # one column would stand for all K, and the bound would be none
            raise ValueError(f"Expected log q of shape {tuple(log_p.shape)}, but got {tuple(log_q.shape)}.")
        return _elbo(log_p, self.log_weights, log_q)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, components={self.components}"


class FlowMixture(Mixture):
    """log p(x) = logsumexp_k [log π_k + log p_k(x)] for K flows, with an amortized posterior q(k | x; γ).

    Args:
        components: a flow built with ``stack=K`` (one pass for all), or a list of K flows of any kinds (a loop).
        weights: π, ``(K,)``, positive and summing to one; equal when left out.
        learn_weights: whether π is trained.
        posterior: a network ``(..., D)`` to ``(..., K)``, logits of q; an MLP when left out.
        hidden: widths of that MLP.
        shared: a bijection that x goes through first, its layers shared by all components; q still reads x.
        generator: draws the starting weights of the MLP.

    Raises:
        ValueError: for fewer than two components, components of different dimensions or with a context, or weights that
            are no weights.

    >>> from flowlab.models import realnvp
    >>> mixture = FlowMixture(realnvp(2, stack=3), generator=Generator().manual_seed(0))
    >>> x, k = mixture.sample(5, Generator().manual_seed(0), labels=True)
    >>> x.shape, k.shape, mixture.posterior(x).shape
    (torch.Size([5, 2]), torch.Size([5]), torch.Size([5, 3]))
    >>> bool((mixture.elbo(x).total <= mixture.log_prob(x) + 1e-5).all())
    True
    """

    flows: Flow | nn.ModuleList  # one stack of K flows, or a list of K

    def __init__(
        self,
        components: Flow | Sequence[Flow],
        weights: Tensor | None = None,
        *,
        learn_weights: bool = False,
        posterior: nn.Module | None = None,
        hidden: Sequence[int] = (64, 64),
        shared: Bijection | None = None,
        generator: Generator | None = None,
    ) -> None:
        stacked = isinstance(components, DensityModule)
        flows = [components] if isinstance(components, DensityModule) else list(components)
        K, sizes = (flows[0].stack or 1) if stacked else len(flows), {flow.event_shape for flow in flows}
        if not stacked and any(flow.stack is not None for flow in flows):
            raise ValueError("FlowMixture expected one stack or a list of single flows, but got a list of stacks.")
        if K < 2:
            raise ValueError(
                f"FlowMixture expected at least two components, but got {K}: use one flow as it is, or build it with "
                f"stack=K for K of them."
            )
        if len(sizes) > 1:
            raise ValueError(
                f"FlowMixture expected components of one dimension, but got {sorted(map(math.prod, sizes))}."
            )
        _refuse_contexts("FlowMixture", *flows, *([] if shared is None else [shared]))
        super().__init__(flows[0].event_shape)
        self.flows = flows[0] if stacked else nn.ModuleList(flows)
        self.anchor = like = flows[0].anchor.clone()
        weights = like.new_full((K,), 1 / K) if weights is None else torch.as_tensor(weights).to(like)
        if weights.shape != (K,) or not bool((weights > 0).all()) or abs(float(weights.sum()) - 1) > 1e-4:
            raise ValueError(f"FlowMixture expected {K} positive weights that sum to one, but got {weights.tolist()}.")
        self.logits = nn.Parameter(weights.log(), learn_weights)
        self.shared = shared
        if posterior is None:
            posterior = _guess(MLP(self.features, K, hidden=hidden, generator=generator), generator).to(like)
        self.network = posterior

    @property
    def log_weights(self) -> Tensor:
        return self.logits.log_softmax(-1)

    @property
    def listed(self) -> list[Flow]:
        """The K flows where they are a list; empty where they are one stack."""
        return cast("list[Flow]", list(self.flows)) if isinstance(self.flows, nn.ModuleList) else []

    def log_prob_components(self, x: Tensor) -> Tensor:
        log_det = 0.0
        if self.shared is not None:
            x, log_det = self.shared(x)
            log_det = log_det.unsqueeze(-1)
        if isinstance(self.flows, nn.ModuleList):
            log_p = torch.stack([flow(x) for flow in self.listed], dim=-1)
        else:
            log_p = self.flows(x.expand(self.components, *x.shape)).movedim(0, -1)
        return log_p + log_det  # (..., K)

    def log_prob_of(self, x: Tensor, k: Tensor) -> Tensor:
        """log p(x | k) of each point under one component, its own: ``(N, D)`` and ``(N,)`` to ``(N,)``.

        In a stack each component sees its own points only, so that this costs about one flow, not K. With k ~ q(k | x)
        it is an unbiased draw of E_q[log p(x | k)].
        """
        log_det = torch.zeros((), device=x.device)
        if self.shared is not None:
            x, log_det = self.shared(x)
        if isinstance(self.flows, nn.ModuleList):
            log_p = x.new_zeros(len(x))
            for j in k.unique().tolist():
                log_p = log_p.index_put((k == j,), self.listed[j](x[k == j]))
            return log_p + log_det
        counts = torch.bincount(k, minlength=self.components)
        order = k.argsort(stable=True)
        place = torch.empty_like(k)
        place[order] = torch.arange(len(k), device=k.device) - (counts.cumsum(0) - counts)[k[order]]
        sheets = x.new_zeros(self.components, int(counts.max()), x.shape[-1])  # unequal counts leave rows of zeros
        return self.flows(sheets.index_put((k, place), x))[k, place] + log_det

    def log_posterior(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        """log q(k | x; γ) = log_softmax(network(x) / τ), ``(..., D)`` to ``(..., K)``: τ below 1 sharpens."""
        logits = self.network(x)
        if logits.shape[-1] != len(self.logits):
            raise ValueError(
                f"Expected a network for q that gives {len(self.logits)} logits, one for each component, but got "
                f"{logits.shape[-1]}."
            )
        return (logits / _above_zero(temperature)).log_softmax(-1)

    def labelled(
        self, n: int, generator: Generator | None = None, *, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """k ~ π, then x ~ p(x | k): ``(n, D)`` and ``(n,)``."""
        n = self.count(n)
        check_generator(generator)
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        if isinstance(self.flows, nn.ModuleList):
            x = self._component(self.listed[0], n, generator, temperature)
            for j, flow in enumerate(self.listed):
                if bool((k == j).any()):
                    x = x.index_put((k == j,), self._component(flow, int((k == j).sum()), generator, temperature))
        else:
            x = self._component(self.flows, n, generator, temperature)[k, torch.arange(n, device=k.device)]
        if self.shared is not None:
            x = self.shared.inverse(x)[0]
        return x, k

    @staticmethod
    def _component(flow: Flow, n: int, generator: Generator | None, temperature: float) -> Tensor:
        return flow.draw(n, generator)[0] if temperature == 1 else flow.sample(n, generator, temperature=temperature)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """x_k = f_k⁻¹(z), one latent point through each component: ``(..., D)`` to ``(..., K, D)``."""
        if isinstance(self.flows, nn.ModuleList):
            x = torch.stack([flow.bijection.inverse(z)[0] for flow in self.listed])
        else:
            x = self.flows.bijection.inverse(z.expand(self.components, *z.shape))[0]
        if self.shared is not None:
            x = self.shared.inverse(x)[0]
        return x.movedim(0, -2)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """z_k = f_k(x), one point as each component sees it: ``(..., D)`` to ``(..., K, D)``; ``decode`` undoes it."""
        if self.shared is not None:
            x = self.shared(x)[0]
        if isinstance(self.flows, nn.ModuleList):
            z = torch.stack([flow.bijection(x)[0] for flow in self.listed])
        else:
            z = self.flows.bijection(x.expand(self.components, *x.shape))[0]
        return z.movedim(0, -2)


class LatentGaussianMixture(Mixture):
    """One flow whose base has K modes: log p(x | k) = log N(f(x); μ_k, Σ_k) + log |det ∂f/∂x|.

    FlowGMM (Izmailov et al., arXiv:1912.13025, eq. 2 to 4): components share every layer, so Bayes' rule is cheap and q
    is the exact posterior.

    Args:
        bijection: x to z.
        base: a ``GaussianMixture``, in the flow's dtype; ``trainable=True`` to learn it too.

    Raises:
        ValueError: for a base of fewer than two components, or a bijection with a context.
    """

    def __init__(self, bijection: Bijection, base: GaussianMixture) -> None:
        _refuse_contexts("LatentGaussianMixture", bijection)
        super().__init__(base.event_shape)
        self.flow = Flow(bijection, base)
        self.anchor = base.anchor.clone()
        if len(base.means) < 2:
            raise ValueError("LatentGaussianMixture expected a base of at least two components, but got one.")

    @property
    def base(self) -> GaussianMixture:
        """The mixture of the latents."""
        return cast(GaussianMixture, self.flow.base)

    @property
    def log_weights(self) -> Tensor:
        return self.base.logits.log_softmax(-1)

    def log_joint(self, x: Tensor) -> Tensor:
        z, log_det = self.flow.bijection(x)
        return self.base.log_joint(z) + log_det.unsqueeze(-1)

    def log_prob_components(self, x: Tensor) -> Tensor:
        return self.log_joint(x) - self.log_weights

    def log_posterior(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        """log q(k | x) ∝ log p(k | x)^(1/τ), ``(..., D)`` to ``(..., K)``: at τ = 1 the exact posterior."""
        return (self.log_joint(x) / _above_zero(temperature)).log_softmax(-1)

    def labelled(
        self, n: int, generator: Generator | None = None, *, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """z ~ Σ_k π_k N(μ_k, Σ_k), x = f⁻¹(z), and k ~ p(k | z): ``(n, D)`` and ``(n,)``."""
        if temperature != 1:
            raise ValueError(f"LatentGaussianMixture expected no temperature, but got {temperature}. Leave it at 1.")
        z = self.base.draw(n, generator)[0]
        # The joint law of (k, z) is the same whichever is drawn first.
        k = torch.multinomial(self.base.responsibilities(z).detach(), 1, generator=generator).squeeze(-1)
        return self.flow.bijection.inverse(z)[0], k


def _refuse_contexts(who: str, *parts: Bijection | DensityModule) -> None:
    """ValueError for a part with a context, which q(k | x) and the losses of a mixture know nothing of."""
    if width := max(part.context_features for part in parts):
        raise ValueError(
            f"{who} expected components without a context, but got one with context_features={width}. For a mixture "
            f"that depends on a context, take one flow with a context, and a GaussianMixture as its base."
        )


# --- objectives: losses (model, batch, step) for flowlab.training.fit ---------------------------------------------


def falling_temperature(rate: float = 1e-3, floor: float = 0.1, *, returns: bool = False) -> Callable[[_Step], float]:
    """τ = max(exp(−rate · step), floor): q sharpens as training goes on (thesis, chapter 5, without its floor).

    At τ → 0 q would be the hard argmax and pass no gradient. With ``returns`` the last half mirrors the first, so that
    τ ends at 1, where q is the one that will be used.

    Raises:
        ValueError: for a rate below 0, or a floor outside (0, 1].
    """
    if not rate >= 0 or not 0 < floor <= 1:
        raise ValueError(
            f"Expected a temperature that falls at a rate of at least 0 to a floor in (0, 1], but got {rate}, {floor}."
        )

    def temperature(step: _Step) -> float:
        index = min(step.index, step.total - step.index) if returns else step.index
        return max(math.exp(-rate * index), floor)

    return temperature


@dataclass(frozen=True)
class Objective:
    """The loss of a mixture without labels, in nats a point; ``fit(mixture, x, objective=Objective(...))``.

    loss = −a · F + consistency · E[KL(q(·|x) ‖ q(·|x + e))] − balance · [H(mean q) − mean H(q)] + distill · CE(r, q)

    ``maximize`` chooses F, the mean over the batch of one and the same bound E_q[log p(x, k) − log q]:

    - "elbo": q is the network's, trained with the components; F ≤ log p(x).
    - "em": q is the exact posterior, held fixed; F = log p(x), and so is its gradient (Fisher's identity), which makes
      one step of it generalized EM.
    - "likelihood": log p(x) itself, by logsumexp.

    The last two do not train the network; ``distill`` does, toward the responsibilities r, held fixed. A model in
    evaluation mode gets −log p(x) whatever the settings, so that validations can be compared.

    Args:
        maximize: "elbo", "em" or "likelihood".
        temperature: τ of q as a function of the Step, such as ``falling_temperature()``; 1 when left out.
        consistency: weight of the KL between q at a point and at its copy moved by e ~ N(0, noise² I).
        noise: the deviation of that move, in units of x.
        balance: weight of the mutual information of x and k under q. It wants q confident and components equally
            large, so with it the loss is no bound any more.
        distill: weight of the cross-entropy of q to the exact posterior.
        phase_in: the share of the run over which a grows from 0 to 1.
    """

    maximize: str = "elbo"
    temperature: Callable[[_Step], float] | None = None
    consistency: float = 0.0
    noise: float = 0.1
    balance: float = 0.0
    distill: float = 0.0
    phase_in: float = 0.0

    def __post_init__(self) -> None:
        if self.maximize not in ("elbo", "em", "likelihood"):
            raise ValueError(f"Objective expected to maximize 'elbo', 'em' or 'likelihood', but got {self.maximize!r}.")
        numbers = (self.consistency, self.noise, self.balance, self.distill)
        if not all(value >= 0 for value in numbers) or not 0 <= self.phase_in <= 1:
            raise ValueError(
                f"Objective expected weights and noise of at least 0, and phase_in in [0, 1], but got {self}."
            )

    def __call__(self, model: Mixture, x: Tensor, step: _Step) -> Tensor:
        if not model.training:
            return -model.log_prob(x).mean()
        tau = 1.0 if self.temperature is None else self.temperature(step)
        log_pi, log_p = model.log_weights, model.log_prob_components(x)  # (K,), (N, K)
        log_q = model.log_posterior(x, tau)  # (N, K)
        log_r = (log_pi + log_p).log_softmax(-1).detach()
        if self.maximize == "likelihood":
            F = (log_pi + log_p).logsumexp(-1)
        else:
            F = _elbo(log_p, log_pi, log_q if self.maximize == "elbo" else log_r).total
        a = min(1.0, step.index / (self.phase_in * step.total)) if self.phase_in else 1.0
        loss = -a * F.mean()
        if self.consistency:
            e = torch.randn(x.shape, generator=step.generator, dtype=x.dtype, device=x.device)
            log_q_near = model.log_posterior(x + self.noise * e, tau)
            loss = loss + self.consistency * divergence(log_q, log_q_near).mean()
        if self.balance:
            loss = loss - self.balance * mutual_information(log_q)
        if self.distill:
            loss = loss - self.distill * (log_r.exp() * log_q).sum(-1).mean()
        return loss


def consistent_posterior(
    x: Tensor,
    components: int,
    *,
    neighbors: int = 10,
    walk: int = 300,
    starts: int = 8,
    steps: int = 400,
    hidden: Sequence[int] = (64, 64),
    consistency: float = 20.0,
    balance: float = 5.0,
    batch_size: int = 512,
    learning_rate: float = 5e-3,
    labelled: tuple[Tensor, Tensor] | None = None,
    classify: float = 5.0,
    generator: Generator | None = None,
) -> MLP:
    """A network for q from the shape of the data, before any flow: ``FlowMixture(flows, posterior=...)``.

    Minimizes consistency · E[KL(q(·|x) ‖ q(·|x′))] − balance · [H(mean q) − mean H(q)], where x′ is reached from x by a
    random walk from neighbor to neighbor. A short walk stays in its cluster, so two points that are far apart belong
    together if there are points all the way between them; a long one also crosses where clusters touch. Several
    networks start side by side, and the one that ends lowest is kept. A few ``labelled`` points add their
    cross-entropy −log q(y | x), which names the clusters, and splits them where it must.

    The loss has IMSAT's form, pairs that agree and mutual information (Hu et al., arXiv:1702.08720); their pairs are a
    point and its perturbed copy. Neighbors as pairs are SpectralNet's (Shaham et al., arXiv:1801.01587), which learns
    eigenvectors from them.

    What it takes for granted: gaps wider than the distance to the tenth neighbor (rings of 50 points, or of noise 0.1,
    are halved), and clusters of like size (a wing of an eighth of the others' points is lost, where they touch).

    Args:
        x: ``(N, D)``, of a spread near 1 about 0: the network reads it as it is. A hundred times as much fails.
        components: K, taken to be equally large.
        neighbors: of how many nearest points each step of a walk draws one.
        walk: how many steps it has.
        starts: how many networks are tried. A bad end shows: it costs as much as a border through a cluster.
        labelled: few points ``(M, D)`` with labels ``(M,)`` from 0 to K − 1; they add −classify · mean log q(y|x).
        classify: the weight of the labels.

    Raises:
        ValueError: for points of another shape, not floating-point or not finite, fewer points than components, labels
            out of range, or counts below one.
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"Expected floating-point points (N, D), but got {x.dtype} of shape {tuple(x.shape)}.")
    if len(x) < components or components < 2 or not bool(x.isfinite().all()):
        raise ValueError(
            f"Expected finite points, at least as many as the {components} ≥ 2 components, but got {len(x)}."
        )
    if labelled is not None:
        check_labels(*labelled, components)
        if labelled[0].shape[1:] != x.shape[1:] or not bool(labelled[0].isfinite().all()):
            raise ValueError(
                f"Expected finite labelled points (M, {x.shape[1]}), but got some of shape "
                f"{tuple(labelled[0].shape)}, or with NaN or infinity."
            )
    if min(starts, steps, neighbors, walk, batch_size) < 1:
        raise ValueError(
            f"Expected at least one start, step, neighbor, step of a walk and point in a batch, but got {starts}, "
            f"{steps}, {neighbors}, {walk} and {batch_size}."
        )
    points, y = (x[:0], torch.zeros(0)) if labelled is None else labelled
    points, y = points.to(x), y.to(x.device, torch.long)
    networks = MLP(x.shape[-1], components, hidden=hidden, stack=starts, generator=generator)
    networks = _guess(networks, generator).to(x)
    adam = torch.optim.Adam(networks.parameters(), lr=learning_rate)
    ends = _walks(x, neighbors, walk, generator)  # (N, W)

    def losses(rows: Tensor) -> Tensor:  # (starts,)
        drawn = torch.randint(ends.shape[1], rows.shape, generator=generator, device=x.device)
        all_three = torch.cat((x[rows], x[ends[rows, drawn]], points)).expand(starts, -1, -1)
        log_q, log_q_there, told = networks(all_three).log_softmax(-1).split([len(rows), len(rows), len(points)], -2)
        loss = consistency * divergence(log_q, log_q_there).mean(-1) - balance * mutual_information(log_q)
        return loss - classify * told[:, torch.arange(len(y)), y].mean(-1) if len(y) else loss

    for i in range(steps):
        adam.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * i / steps))
        rows = torch.randint(len(x), (min(batch_size, len(x)),), generator=generator, device=x.device)
        loss = losses(rows).sum()  # each network has its own weights, so the sum trains each by its own loss
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        best = int(losses(torch.arange(len(x), device=x.device)).argmin())
    network = MLP(x.shape[-1], components, hidden=hidden, generator=generator).to(x)
    network.load_state_dict({name: value[best] for name, value in networks.state_dict().items()})
    return network


def _walks(x: Tensor, neighbors: int, steps: int, generator: Generator | None, walks: int = 64) -> Tensor:
    """Where random walks from neighbor to neighbor end that begin at each point: rows of x, ``(N, walks)``."""
    count = min(neighbors, len(x) - 1)
    # Each point is its own nearest, or a twin of it is: a step that stays does no harm.
    near = torch.cat([torch.cdist(part, x).topk(count + 1, largest=False).indices for part in x.split(1024)])
    at = torch.arange(len(x), device=x.device)[:, None].expand(-1, walks)
    for _ in range(steps):
        at = near[at, torch.randint(count + 1, at.shape, generator=generator, device=x.device)]
    return at


def supervised(
    model: Mixture, batch: tuple[Tensor, Tensor], step: _Step | None = None, *, classify: float = 1.0
) -> Tensor:
    """−mean [log p(x | y) + classify · log q(y | x)]: each label trains its own component, and q (thesis, 5.1.2).

    Args:
        batch: x ``(N, D)`` with labels ``(N,)`` in 0 to K − 1; or with shares ``(N, K)``, rows summing to one, such as
            the responsibilities of a Gaussian mixture for a warm start. Then each term is their weighted sum.
        classify: weight of the cross-entropy of q; 0 for FlowGMM's labelled loss.

    Raises:
        ValueError: for an empty set, labels out of range, or shares of another shape.
    """
    x, y = batch
    K = model.components
    if y.is_floating_point():
        check_pairs(x, y)
        if y.shape != (len(x), K) or not bool((y >= 0).all() & ((y.sum(-1) - 1).abs() <= 1e-4).all()):
            raise ValueError(
                f"Expected shares of shape {(len(x), K)} with rows that sum to one, but got {tuple(y.shape)} with "
                f"rows that sum to {y.sum(-1).min():.4g} to {y.sum(-1).max():.4g}; labels as such are integers."
            )
        r = y.to(x.dtype)
    else:
        check_labels(x, y, K)
        r = nn.functional.one_hot(y, K).to(x)
    log_p = model.log_prob_components(x)
    if classify:
        log_p = log_p + classify * model.log_posterior(x)
    return -(r * log_p.masked_fill(r == 0, 0.0)).sum(-1).mean()


@dataclass(frozen=True)
class Interleaved:
    """Few labels: steps on them alone first, then one in ``every`` among steps without labels (thesis, section 5.1.2).

    ``fit(mixture, x, objective=Interleaved(points, labels))`` where x are the points without labels.
    With ``every=0`` the labels are a start only: a warm start from the responsibilities of a Gaussian mixture.

    Args:
        points, labels: a batch for ``supervised``: ``(M, D)`` with ``(M,)`` or ``(M, K)``.
        unlabelled: the loss of the other steps; its own clock starts when the labels' first steps end.
        first: how many steps the labels have for themselves.
        every: of how many later steps one is the labels'; 0 for none.
        classify: as in ``supervised``.
        batch_size: the most labelled points that a step takes, drawn anew each time.
    """

    points: Tensor
    labels: Tensor
    unlabelled: Callable[[Mixture, Tensor, _Step], Tensor] = field(default_factory=Objective)
    first: int = 300
    every: int = 9
    classify: float = 1.0
    batch_size: int = 512

    def __post_init__(self) -> None:
        check_pairs(self.points, self.labels)
        if not bool(self.points.isfinite().all()):
            raise ValueError("The labelled points have NaN or infinity. Remove these rows.")
        if self.first < 0 or self.every < 0 or self.batch_size < 1:
            raise ValueError(
                f"Interleaved expected first and every of at least 0, and a batch_size of at least 1, but got "
                f"{self.first}, {self.every} and {self.batch_size}."
            )

    def __call__(self, model: Mixture, x: Tensor, step: _Step) -> Tensor:
        if not model.training:
            return -model.log_prob(x).mean()
        later = step.index - self.first
        if later < 0 or (self.every and later % self.every == 0):
            points, labels = self.points.to(x), self.labels.to(x.device)
            if len(points) > self.batch_size:
                rows = torch.randperm(len(points), generator=step.generator, device=x.device)[: self.batch_size]
                points, labels = points[rows], labels[rows]
            return supervised(model, (points, labels), step, classify=self.classify)
        return self.unlabelled(model, x, step._replace(index=later, total=step.total - self.first))


def _elbo(log_p: Tensor, log_pi: Tensor, log_q: Tensor) -> Elbo:
    """The two terms of the bound and their sum, ``(..., K)`` each to ``(...)``; 0 · log 0 = 0."""
    q = log_q.exp()
    none = q == 0
    reconstruction = (q * log_p.masked_fill(none, 0.0)).sum(-1)
    minus_kl = (q * (log_pi - log_q).masked_fill(none, 0.0)).sum(-1)
    return Elbo(reconstruction + minus_kl, reconstruction, minus_kl)


def _above_zero(temperature: float) -> float:
    if not temperature > 0:
        raise ValueError(f"Expected a temperature above 0, but got {temperature}.")
    return temperature


def _guess(network: MLP, generator: Generator | None) -> MLP:
    """Draw the last layer, which an MLP starts at zero, at random: a uniform q gives all components equal gradients."""
    bound = 1 / math.sqrt(network.last.weight.shape[-2])
    nn.init.uniform_(network.last.weight, -bound, bound, generator=generator)
    return network
