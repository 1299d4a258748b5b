"""flowlab: normalizing flows that you can take hold of.

import flowlab
flow = flowlab.flow_for(x)               # a flow for your table, of a size that its rows can train
history = flowlab.fit(flow, x)           # maximum likelihood, with a progress bar
flow.log_prob(x), flow.sample(1000)      # nats, and new points
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowlab.comparison import compare
    from flowlab.densities.flow import Flow
    from flowlab.models import flow_for, nice, realnvp, spline_flow
    from flowlab.tables import describe
    from flowlab.training import fit

__version__ = "0.1.0"
__all__ = ["Flow", "__version__", "compare", "describe", "fit", "flow_for", "nice", "realnvp", "spline_flow"]

# Loaded when first asked for: `flowlab.plotting` brings matplotlib only then, and Jupyter's server, which needs nothing
# but `flowlab.commands.jupyter`, goes without torch.
EXPORTS = {
    "Flow": "densities.flow",
    "compare": "comparison",
    "describe": "tables",
    "fit": "training",
    "flow_for": "models",
    "nice": "models",
    "realnvp": "models",
    "spline_flow": "models",
}
MODULES = {
    "bijections",
    "comparison",
    "course",
    "datasets",
    "densities",
    "evaluation",
    "lessons",
    "metrics",
    "models",
    "networks",
    "plotting",
    "pretrained",
    "restoration",
    "studies",
    "study",
    "tables",
    "training",
}


def __getattr__(name: str) -> Any:
    if name in EXPORTS:
        return getattr(importlib.import_module(f"flowlab.{EXPORTS[name]}"), name)
    if name in MODULES:
        return importlib.import_module(f"flowlab.{name}")
    raise AttributeError(f"flowlab has no {name!r}.")


def __dir__() -> list[str]:
    return sorted({*__all__, *MODULES})
