"""Mixtures of flows with an amortized posterior q(k | x) (Pires and Figueiredo, arXiv:2009.00585)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from torch import Generator

from flowlab.bijections import Chain, ScaleShift
from flowlab.densities import Flow
from flowlab.densities.mixtures import FlowMixture
from flowlab.models.realnvp import realnvp
from flowlab.models.registry import build, recipe
from flowlab.models.sizes import LOGIT, SIZES, D, Size
from flowlab.networks import ConvClassifier


@recipe
def flow_mixture(
    features: int,
    components: int = 5,
    *,
    layers: int = 8,
    hidden: Sequence[int] = (16,),
    activation: str = "tanh",
    log_scale_bound: float = 2.0,
    posterior: Sequence[int] = (64, 64),
    learn_weights: bool = False,
    generator: Generator | None = None,
) -> FlowMixture:
    """p(x) = Σ_k π_k p(x | k) of K equal RealNVPs in one stack, with q(k | x) by an MLP of widths ``posterior``.

    Takes ``(..., D)``. The conditioners use "tanh": a smooth component can still move toward points that it does not
    cover yet, where a flow of ReLUs folds at its border (Pires and Figueiredo, arXiv:2009.00585).
    """
    flows = realnvp(
        features,
        layers,
        hidden=hidden,
        activation=activation,
        log_scale_bound=log_scale_bound,
        standardize=False,
        stack=components,
        generator=generator,
    )
    return FlowMixture(flows, learn_weights=learn_weights, hidden=posterior, generator=generator)


@recipe
def image_mixture(
    features: int,
    components: int = 10,
    *,
    shared: dict[str, Any],
    layers: int = 2,
    hidden: Sequence[int] = (16,),
    channels: Sequence[int] = (16, 32, 64),
    learn_weights: bool = False,
    generator: Generator | None = None,
) -> FlowMixture:
    """p(x) = Σ_k π_k p(x | k) of K RealNVPs in one stack behind layers that all share, with q(k | x) by a ConvNet.

    Takes rows of pixels in [0, 1], ``(..., D)``, of square images. ``shared`` is the recipe of a flow, as in ``build``,
    such as a glow; its bijection comes first, and what it gives goes to the small components. Each begins with a scale
    and a shift of its own: the mean image of a component costs no more than that. Shared layers and convolutions are
    what Pires' thesis names as future work. ``channels`` are those of the classifier.
    """
    first = build(shared, generator=generator).bijection
    own = realnvp(features, layers, hidden=hidden, standardize=False, stack=components, generator=generator)
    flows = Flow(Chain([ScaleShift(features, stack=components), *cast(Chain, own.bijection)]), own.base)
    q = ConvClassifier(components, math.isqrt(features), channels=channels, generator=generator)
    return FlowMixture(flows, learn_weights=learn_weights, posterior=q, shared=first)


def _model(K: int, shared: dict[str, Any], **settings: Any) -> dict[str, Any]:
    density = {"name": "image_mixture", "settings": {"features": D, "components": K, "shared": shared, **settings}}
    return {"name": "dequantized", "settings": {"density": density}}


def _dense(width: int, layers: int = 2) -> dict[str, Any]:
    return {
        "name": "realnvp",
        "settings": {"features": D, "layers": layers, "hidden": [width], "logit": LOGIT["logit"]},
    }


def _sizes(K: int) -> dict[str, Size]:
    """Of a mixture of K flows: dense layers behind a dense flow that all share, or behind a Glow."""
    glow = {
        "name": "glow",
        "settings": {"shape": [1, 28, 28], "scales": 2, "steps": 8, "hidden": 64, "logit": LOGIT["logit"]},
    }
    often = {"validate_every": 500, "checkpoint_every": 250}
    return {
        "quick": Size(
            _model(K, _dense(32), hidden=[4]),
            {"epochs": 30, "batch_size": 250, "learning_rate": 2e-3, "validate_every": 100, "checkpoint_every": 100},
            "bundled",
            "CPU, about a minute",
        ),
        "compact": Size(
            _model(K, _dense(48), hidden=[48 if K == 5 else 24]),
            {"epochs": 40 if K == 5 else 30, "batch_size": 500, "learning_rate": 2e-3, **often},
            cost="CPU, a quarter of an hour",
        ),
        "full": Size(
            _model(K, glow, layers=4, hidden=[128], channels=[32, 64, 128]),
            {"epochs": 100, "batch_size": 500, "learning_rate": 1e-3, **often},
            cost="one GPU",
        ),
    }


SIZES["mixture_mnist_five"] = _sizes(5)
SIZES["mixture_mnist"] = _sizes(10)
SIZES["mixture_mnist_labels"] = _sizes(10)
