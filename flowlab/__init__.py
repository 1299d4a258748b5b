"""flowlab: normalizing flows that you can take hold of.

import flowlab
flow = flowlab.realnvp(2)                # a flow for vectors of 2 numbers
history = flowlab.fit(flow, x)           # maximum likelihood, with a progress bar
flow.log_prob(x), flow.sample(1000)      # nats, and new points
"""

import importlib
from types import ModuleType

from flowlab.flow import Flow
from flowlab.models import nice, realnvp, spline_flow
from flowlab.training import fit

__version__ = "0.1.0"
__all__ = ["Flow", "__version__", "fit", "nice", "realnvp", "spline_flow"]


def __getattr__(name: str) -> ModuleType:
    """The other rooms open when asked for: `flowlab.plotting` loads matplotlib only then."""
    if name in {"checks", "datasets", "experiments", "metrics", "mixtures", "plotting", "pretrained", "widgets"}:
        return importlib.import_module(f"flowlab.{name}")
    raise AttributeError(f"flowlab has no {name!r}.")
