"""flowlab: normalizing flows that you can take hold of.

import flowlab
flow = flowlab.realnvp(2)                # a flow for vectors of 2 numbers
history = flowlab.fit(flow, x)           # maximum likelihood, with a progress bar
flow.log_prob(x), flow.sample(1000)      # nats, and new points
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowlab.flow import Flow
    from flowlab.models import nice, realnvp, spline_flow
    from flowlab.training import fit

__version__ = "0.1.0"
__all__ = ["Flow", "__version__", "fit", "nice", "realnvp", "spline_flow"]

# Doors open when they are asked for: `flowlab.plotting` loads matplotlib only then, and Jupyter's server, which needs
# nothing but `flowlab.jupyter`, goes without torch.
HOMES = {"Flow": "flow", "fit": "training", "nice": "models", "realnvp": "models", "spline_flow": "models"}
ROOMS = {"bijections", "checkpoints", "checks", "datasets", "dequantization", "distributed", "distributions"}
ROOMS |= {"evaluation", "experiments", "flow", "metrics", "mixtures", "models", "networks", "plotting", "pretrained"}
ROOMS |= {"recipes", "restoration", "training", "widgets"}


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(importlib.import_module(f"flowlab.{HOMES[name]}"), name)
    if name in ROOMS:
        return importlib.import_module(f"flowlab.{name}")
    raise AttributeError(f"flowlab has no {name!r}.")


def __dir__() -> list[str]:
    return sorted({*__all__, *ROOMS})
