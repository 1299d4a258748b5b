"""A loss in three stages for mixtures of images: q learns invariance, each flow its cluster, then both the ELBO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from flowlab.densities.bounds import Dequantized
from flowlab.densities.mixtures.base import check_labels, check_pairs, divergence, mutual_information
from flowlab.densities.mixtures.variational import FlowMixture

Change = Callable[[Tensor, Generator], Tensor]


@dataclass(frozen=True)
class Invariance:
    """A loss (model, pixels, Step) for ``Dequantized(FlowMixture)``: q by invariance, then a flow for each cluster.

    With x′ = ``change(x)`` the loss is a sum of

        q:      consistency · KL(q(·|x) ‖ q(·|x′)) − balance · [H(mean q) − mean H(q)]     from ``first`` on
        flows:  − log p(x | k)/D with k ~ q(k | x)                                        from ``flows`` on
        both:   − ELBO/D instead                                                          from ``joint`` on
        labels: − classify · mean log q(y | x′)                                           always, if there are any

    and before ``first``, q takes over the shares r of ``start`` in place of its own loss: − Σ_k r_k log q(k | x′).
    These three times are shares of the run. Invariance and mutual information are IMSAT's (Hu et al.,
    arXiv:1702.08720). The ELBO has the weight 1/D, as one dimension has: in nats of all D the flows, which see fewer
    digits right, would overrule q. The loss is no bound. In evaluation mode it is −log P(v), by the model's bound.

    Args:
        change: makes x′ ``(N, D)`` from x and a generator, such as a small turn and shift of an image.
        start: pixels ``(M, D)`` and r ``(M, K)``, rows summing to one: where q begins. None for a random start.
        labelled: pixels ``(L, D)`` and their labels ``(L,)``.

    Raises:
        ValueError: for negative weights, times out of order, and labels or shares that do not fit the points.
    """

    change: Change
    start: tuple[Tensor, Tensor] | None = None
    labelled: tuple[Tensor, Tensor] | None = None
    consistency: float = 1.0
    balance: float = 1.0
    classify: float = 1.0
    first: float = 0.1
    flows: float = 0.3
    joint: float = 0.9

    def __post_init__(self) -> None:
        if min(self.consistency, self.balance, self.classify) < 0:
            raise ValueError(
                f"Invariance expected weights of at least 0, but got {self.consistency}, {self.balance} and "
                f"{self.classify}."
            )
        if not 0 <= self.first <= self.flows <= self.joint <= 1:
            raise ValueError(
                f"Invariance expected times 0 ≤ first ≤ flows ≤ joint ≤ 1, as shares of the run, but got "
                f"{self.first}, {self.flows} and {self.joint}."
            )
        for pair in filter(None, (self.start, self.labelled)):
            check_pairs(*pair)

    def __call__(self, model: Dequantized, v: Tensor, step: Any) -> Tensor:
        if not model.training:
            return -model(v, generator=step.generator).mean()
        t, mixture, D = step.index / step.total, _mixture(model), v.shape[-1]
        x = self._pixels(model, v, step)
        log_q = mixture.log_posterior(x)
        if t < self.first and self.start is not None:
            loss = self._told(model, self.start, len(v), step)
        else:
            loss = -self.balance * mutual_information(log_q)
            if self.consistency:
                log_q_there = mixture.log_posterior(self.change(x, step.generator))
                loss = loss + self.consistency * divergence(log_q, log_q_there).mean()
        if self.labelled is not None:
            check_labels(*self.labelled, mixture.components)
            loss = loss + self.classify * self._told(model, self.labelled, len(v), step)
        if t >= self.joint:
            loss = loss - mixture.elbo(x, log_posterior=log_q).total.mean() / D
        elif t >= self.flows:
            k = torch.multinomial(log_q.detach().exp(), 1, generator=step.generator)[:, 0]
            loss = loss - mixture.log_prob_of(x, k).mean() / D
        return loss

    def _told(self, model: Dequantized, pairs: tuple[Tensor, Tensor], most: int, step: Any) -> Tensor:
        """Cross-entropy −mean Σ_k r_k log q(k | x′) over a random subset of the pairs: labels, or shares r."""
        mixture = _mixture(model)
        v, r = (part.to(mixture.logits.device) for part in pairs)
        if len(v) > most:
            rows = torch.randint(len(v), (most,), generator=step.generator, device=v.device)
            v, r = v[rows], r[rows]
        log_q = mixture.log_posterior(self.change(self._pixels(model, v, step), step.generator))
        if not r.is_floating_point():
            return nn.functional.nll_loss(log_q, r)
        return -(r * log_q).sum(-1).mean()

    def _pixels(self, model: Dequantized, v: Tensor, step: Any) -> Tensor:
        return model.dequantize(v, model.noise(v, step.generator)[0])


def _mixture(model: Dequantized) -> FlowMixture:
    if not isinstance(model.density, FlowMixture):
        raise TypeError(f"Invariance expected Dequantized(FlowMixture), but got one of {type(model.density).__name__}.")
    return model.density
