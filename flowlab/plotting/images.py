"""Pages of small gray images."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.image import imsave
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
        page = sheet(images[: line * columns], columns)
        tidy(axes).imshow(page.numpy(), cmap="gray_r", vmin=0, vmax=1)
        axes.axis("off")
        axes.set_title(name, fontsize=10, loc="left")
    return figure


def sheet(images: Tensor, columns: int) -> Tensor:
    """One image of all, in lines of ``columns`` with a margin around each: ``(n, pixels²)`` in [0, 1] to ``(H, W)``."""
    n, side = len(images), math.isqrt(images.shape[-1])
    framed = F.pad(images.reshape(n, side, side).float().clamp(0, 1), (1, 1, 1, 1))
    whole = F.pad(framed, (0, 0, 0, 0, 0, -n % columns)).unflatten(0, (-1, columns))  # the last line filled with none
    return whole.transpose(1, 2).flatten(2, 3).flatten(0, 1)


def save_sheet(path: str | os.PathLike, images: Tensor, *, scale: int = 1) -> None:
    """Write ``(n, pixels²)`` in [0, 1] as one PNG, as near to a square as n allows, ink dark, each pixel ``scale``²."""
    page = sheet(images, math.ceil(math.sqrt(len(images))))
    page = page.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    imsave(path, page.numpy(), cmap="gray_r", vmin=0, vmax=1, format="png")
