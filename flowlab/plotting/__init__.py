"""Figures: pure functions of data and models to matplotlib. Start with ``density``, ``pairs`` and ``training_curve``.

A figure shown in a notebook carries its text alternative: what stands in it, put into words by ``words.describe``.
``figure.set_label("...")`` puts words of your own in their place, where you can say more.
"""

import base64
import html
import io
import sys
from typing import Any

from matplotlib.figure import Figure

from flowlab.plotting.pairs import pairs
from flowlab.plotting.plane import density, training_curve
from flowlab.plotting.words import describe

__all__ = ["density", "pairs", "training_curve"]


def _bundle(figure: Figure, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The picture, and its alternative in the place where nbconvert looks for one; JupyterLab needs it as HTML."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    png, alt = buffer.getvalue(), describe(figure)
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    page = f'<img src="{source}" alt="{html.escape(alt)}">'
    return {"image/png": png, "text/html": page}, {"image/png": {"alt": alt}}


def _show_in_notebooks() -> None:
    """Figures here are made without pyplot, whose backend is what lets a notebook show one: say how it is done."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        shell.display_formatter.mimebundle_formatter.for_type(Figure, _bundle)


_show_in_notebooks()
