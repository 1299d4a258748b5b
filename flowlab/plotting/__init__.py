"""Figures: pure functions of data and models to matplotlib. ``density`` and ``training_curve`` are where to start."""

import io
import sys

from matplotlib.figure import Figure

from flowlab.plotting.plane import density, training_curve

__all__ = ["density", "training_curve"]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _show_in_notebooks() -> None:
    """Figures here are made without pyplot, whose backend is what lets a notebook show one: say how it is done."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        shell.display_formatter.formatters["image/png"].for_type(Figure, _png)


_show_in_notebooks()
