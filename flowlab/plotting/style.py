"""One look for the whole course: the same color, and the same marker, for the same thing in every picture.

The colors are Okabe and Ito's, which color-blind readers can tell apart; no picture relies on color alone.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

COLORS = {
    "data": "#0072B2",  # blue: x, what we were given
    "model": "#D55E00",  # vermilion: p(x), what we fitted
    "latent": "#009E73",  # green: z, and the base density
    "truth": "#000000",  # black, dashed: the exact density where it is known
    "validation": "#CC79A7",  # pink: held-out points
    "accent": "#E69F00",  # orange: what to look at
    "muted": "#9A9A9A",
}

# Mixture components and classes: color k goes with marker k.
COMPONENT_COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#F0E442",
    "#000000",
    "#7F3C8D",
    "#999999",
)
COMPONENT_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*", "<", ">")

# Densities: white is none, dark is much; even in gray print.
DENSITY = LinearSegmentedColormap.from_list("flowlab", ["#FFFFFF", "#FBD9B5", "#F2A05E", "#D55E00", "#6B2A00"])


def tidy(axes: Axes, title: str = "", x: str = "", y: str = "") -> Axes:
    """Labels on, frame light, nothing that is not data."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.tick_params(labelsize=8, color="#BBBBBB")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#BBBBBB")
    return axes
