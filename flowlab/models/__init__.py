"""Models by name: recipes, the papers' settings as presets, and the sizes of MNIST models. Start with ``registry.py``.

One family a file: recipe, presets and sizes stand together.
"""

from flowlab.models.dequantized import dequantized
from flowlab.models.glow import glow
from flowlab.models.maf import made, maf
from flowlab.models.mixture import flow_mixture, image_mixture
from flowlab.models.nice import nice
from flowlab.models.planar import planar_flow, radial_flow
from flowlab.models.realnvp import realnvp, realnvp_image
from flowlab.models.registry import PRESETS, RECIPES, build, complete, rebuild, recipe
from flowlab.models.sizes import SIZES, Size
from flowlab.models.spline import spline_flow
from flowlab.models.table import flow_for, table_flow

__all__ = [
    "PRESETS",
    "RECIPES",
    "SIZES",
    "Size",
    "build",
    "complete",
    "dequantized",
    "flow_for",
    "flow_mixture",
    "glow",
    "image_mixture",
    "made",
    "maf",
    "nice",
    "planar_flow",
    "radial_flow",
    "realnvp",
    "realnvp_image",
    "rebuild",
    "recipe",
    "spline_flow",
    "table_flow",
]
