"""Pages of small gray images."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from flowlab.plotting.style import tidy

MOST = 60  # images of one name


def pages(rows: Mapping[str, Tensor], *, columns: int = 20) -> Figure:
    """For each name a strip of ``columns`` square images from ``(n, pixels²)`` in [0, 1], ink dark."""
    width, lines = 10.5, [math.ceil(min(len(images), MOST) / columns) for images in rows.values()]
    figure = Figure(figsize=(width, sum(width / columns * line + 0.3 for line in lines)), dpi=80, layout="constrained")
    strips = figure.subplots(len(rows), height_ratios=lines, squeeze=False)[:, 0]
    for axes, (name, images), line in zip(strips, rows.items(), lines, strict=True):
        side = math.isqrt(images.shape[-1])
        images = images[: line * columns].reshape(-1, side, side).float().clamp(0, 1)
        framed = F.pad(images, (1, 1, 1, 1))  # a white margin around each
        page = framed.reshape(line, columns, side + 2, side + 2).transpose(1, 2).flatten(2, 3).flatten(0, 1)
        tidy(axes).imshow(page.numpy(), cmap="gray_r", vmin=0, vmax=1)
        axes.axis("off")
        axes.set_title(name, fontsize=10, loc="left")
    return figure
