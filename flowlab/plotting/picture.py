"""A figure that persists and is drawn fast: what an explorer moves."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image


class Picture:
    """A figure whose artists are set, not made anew, for each change; ``png()`` redraws only the artists that move.

    A subclass makes axes and artists in ``__init__``, hands those that change to ``moves``, and writes ``update``, a
    function of the controls alone: the same controls give the same picture. Only the moving artists are drawn again, on
    top of a copy of all the others, and that is what makes a slider feel like a handle.
    """

    def __init__(self, width: float = 9.0, height: float = 3.8, *, dpi: int = 80) -> None:
        self.figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
        self.canvas = FigureCanvasAgg(self.figure)
        self._moving: list[Artist] = []
        self._still: Any = None

    def update(self, **controls: Any) -> dict[str, float | str]:
        """Set the artists for these controls, and return the numbers to show beside the picture."""
        raise NotImplementedError

    def describe(self, numbers: dict[str, float | str]) -> str:
        """One sentence that says what the picture shows now, for those who do not see it."""
        values = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in numbers.items()
        )
        return f"{type(self).__name__}: {values}"

    def moves(self, *artists: Artist) -> None:
        """Name artists that ``update`` changes. Everything else is drawn once."""
        for artist in artists:
            artist.set_animated(True)
        self._moving += artists
        self._still = None

    def redraw_all(self) -> None:
        """Call from ``update`` when something that stands still has changed too, such as the limits of the axes."""
        self._still = None

    def png(self) -> bytes:
        """The picture as it is now."""
        if self._still is None:
            self.canvas.draw()
            # The layout is settled once; a picture whose axes jump while one drags is hard to read.
            self.figure.set_layout_engine("none")
            self._still = self.canvas.copy_from_bbox(self.figure.bbox)
        self.canvas.restore_region(self._still)
        for artist in sorted(self._moving, key=Artist.get_zorder):
            self.figure.draw_artist(artist)
        buffer = io.BytesIO()
        size = self.canvas.get_width_height()
        Image.frombuffer("RGBA", size, self.canvas.buffer_rgba()).convert("RGB").save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def regions(self) -> list[tuple[float, float, float, float]]:
        """Where the axes are: (left, top, right, bottom) in [0, 1] from the top left of the picture."""
        boxes = [axes.get_position() for axes in self.figure.axes]
        return [(float(b.x0), float(1 - b.y1), float(b.x1), float(1 - b.y0)) for b in boxes]

    def locate(self, x: float, y: float) -> tuple[Axes | None, float, float]:
        """Which axes, and where in its data, a point of the picture is; x and y in [0, 1] from the top left."""
        width, height = self.canvas.get_width_height()
        pixel = (x * width, (1 - y) * height)
        for axes in self.figure.axes:
            if axes.bbox.contains(*pixel):
                return axes, *axes.transData.inverted().transform(pixel)
        return None, 0.0, 0.0
