"""A figure that persists and is drawn fast: what an explorer moves, and how it is written down for a canvas."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Transform
from PIL import Image

CAPS = {"projecting": "square"}  # what a canvas calls otherwise
FEW_BYTES = 1 << 15  # below this size raw pixels are faster than a PNG, which a browser decodes in another thread


class Recorder(RendererBase):
    """A renderer that draws nothing: it writes down, in pixels from the top left, what a canvas shall draw.

    Every artist of matplotlib draws itself by calls of the four ``draw_`` methods below, and letters come as outlines.
    Each call becomes a step with its ``kind``, style and counts. Coordinates follow in ``numbers``, float32 in the
    order of the steps: the ``count`` corners of an outline as (x, y, code), where code 1 moves the pen, 2 draws a line
    and 79 closes; then for markers their ``places`` (x, y). Images are PNGs, or red, green, blue, alpha of each
    pixel if their step has a ``size``, in the order of their steps.
    """

    def __init__(self, width: int, height: int, dpi: float) -> None:
        super().__init__()
        self.pixel_size, self.dpi = (width, height), dpi
        self.down = Affine2D().scale(1, -1)  # matplotlib's y points up, a canvas' down
        self.from_top = self.down + Affine2D().translate(0, height)
        self.start()

    def start(self) -> None:
        """Begin with an empty sheet."""
        self.steps: list[dict[str, Any]] = []
        self.numbers: list[bytes] = []
        self.images: list[bytes] = []

    def scene(self) -> dict[str, Any]:
        """What was written down."""
        return {"steps": self.steps, "numbers": b"".join(self.numbers), "images": self.images}

    def points_to_pixels(self, points: float) -> float:
        return points * self.dpi / 72

    def get_canvas_width_height(self) -> tuple[int, int]:
        return self.pixel_size

    def flipy(self) -> bool:
        return False

    def option_scale_image(self) -> bool:
        return True  # an image without interpolation comes in its own few pixels, and the canvas enlarges it

    def draw_path(self, gc: GraphicsContextBase, path: Path, transform: Transform, rgbFace: Any = None) -> None:
        count = self._outline(path, transform + self.from_top, simplify=path.should_simplify, **self._snap(gc))
        self._step("path", gc, rgbFace, count=count)

    def draw_markers(
        self,
        gc: GraphicsContextBase,
        marker_path: Path,
        marker_trans: Transform,
        path: Path,
        trans: Transform,
        rgbFace: Any = None,
        faces: list[str] | None = None,
    ) -> None:
        places = np.floor((trans + self.from_top).transform(path.vertices) + 0.5)  # on pixels, as in the still picture
        seen = np.isfinite(places).all(1)
        count = self._outline(marker_path, marker_trans + self.down, **self._snap(gc))
        self.numbers.append(places[seen].astype(np.float32).tobytes())
        more = {} if faces is None else {"faces": [face for face, is_seen in zip(faces, seen, strict=True) if is_seen]}
        self._step("markers", gc, rgbFace, count=count, places=int(seen.sum()), **more)

    def draw_path_collection(
        self,
        gc: GraphicsContextBase,
        master_transform: Transform,
        paths: list[Path],
        all_transforms: list[Any],
        offsets: Any,
        offset_trans: Transform,
        facecolors: Any,
        edgecolors: Any,
        linewidths: Any,
        *rest: Any,
        **more: Any,
    ) -> None:
        """Points of one shape without edges, whatever their colors, are one step; all else is drawn path by path."""
        bare = len(edgecolors) == 0 or not np.any(linewidths)
        if len(paths) != 1 or len(all_transforms) > 1 or not bare or len(facecolors) not in (1, len(offsets)):
            places = (offsets, offset_trans, facecolors, edgecolors, linewidths)
            super().draw_path_collection(gc, master_transform, paths, all_transforms, *places, *rest, **more)
            return
        shape = sum(map(Affine2D, all_transforms), Affine2D()) + master_transform
        gc.set_linewidth(0)
        faces = [_css(c) for c in np.broadcast_to(facecolors, (len(offsets), 4))]
        self.draw_markers(gc, paths[0], shape, Path(offsets), offset_trans, faces=faces)

    def draw_image(self, gc: GraphicsContextBase, x: float, y: float, im: Any, transform: Any = None) -> None:
        height, width = im.shape[:2]
        if height and width:
            place = Affine2D() if transform is None else Affine2D().scale(1 / width, 1 / height) + transform
            place = place + Affine2D().translate(x, y) + self.from_top
            few = im.nbytes <= FEW_BYTES
            self.images.append(im.tobytes() if few else _png(Image.fromarray(np.ascontiguousarray(im))))
            size = {"size": (width, height)} if few else {}
            self._step("image", gc, matrix=[float(v) for v in place.frozen().to_values()], **size)

    def _snap(self, gc: GraphicsContextBase) -> dict[str, Any]:
        return {"snap": gc.get_snap(), "stroke_width": self.points_to_pixels(gc.get_linewidth())}

    def _outline(self, path: Path, transform: Transform, **how: Any) -> int:
        """Write the corners of a path, curves as polygons; say how many they are."""
        path = path.cleaned(transform, remove_nans=True, **how)
        corners = np.column_stack((path.vertices, path.codes)).astype(np.float32)
        corners[path.codes > Path.LINETO, :2] = 0  # where a pen that closes stands is anything
        self.numbers.append(corners.tobytes())
        return len(corners)

    def _step(self, kind: str, gc: GraphicsContextBase, face: Any = None, **more: Any) -> None:
        if gc.get_clip_path()[0] is not None or gc.get_hatch():
            raise NotImplementedError(
                "An explorer's moving artist was clipped to a path, or hatched, and the canvas draws neither: clip it "
                "to a rectangle, give it a plain face, or leave it out of `moves`."
            )
        step = {"kind": kind, **more}
        if face is not None:
            step["face"] = _css((*face[:3], gc.get_alpha()) if gc.get_forced_alpha() or len(face) < 4 else face)
        if kind != "image" and (width := self.points_to_pixels(gc.get_linewidth())):
            offset, dash = gc.get_dashes()
            cap = gc.get_capstyle()
            step |= {"edge": _css(gc.get_rgb()), "width": width, "cap": CAPS.get(cap, cap), "join": gc.get_joinstyle()}
            if dash is not None:
                step |= {"dash": [self.points_to_pixels(d) for d in dash], "shift": self.points_to_pixels(offset)}
        if (box := gc.get_clip_rectangle()) is not None:
            step["clip"] = [float(v) for v in (box.x0, self.pixel_size[1] - box.y1, box.width, box.height)]
        self.steps.append(step)


class Picture:
    """A figure whose artists are set, not made anew, for each change; only the artists that move are drawn again.

    A subclass makes axes and artists in ``__init__``, hands those that change to ``moves``, and writes ``update``, a
    function of the controls alone: the same controls give the same picture. All that stands still is drawn once, and
    that is what makes a slider feel like a handle. What ``update`` has set is drawn in two ways: ``png()`` is a still
    picture, made here; ``background()`` and ``scene()`` are what a canvas needs to draw the same in a browser, sharp at
    any size.
    """

    def __init__(self, width: float = 9.0, height: float = 3.8, *, dpi: int = 80) -> None:
        self.figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
        self.canvas = FigureCanvasAgg(self.figure)
        self._recorder = Recorder(*self.pixel_size, dpi)
        self._moving: list[Artist] = []
        self._laid_out = False
        self._prediction: tuple[Any, Any] | None = None  # a line and its words
        self._still: Any = None  # for png
        self._background: dict[str, Any] | None = None

    def update(self, *_: Any, **controls: Any) -> dict[str, float | str]:
        """Set the artists for these controls, and return the numbers to show beside the picture.

        A subclass names its controls as its arguments, which this signature allows.
        """
        raise NotImplementedError

    def describe(self, numbers: dict[str, float | str]) -> str:
        """One sentence that says what the picture shows now, for those who do not see it."""
        values = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in numbers.items()
        )
        return f"{type(self).__name__}: {values}"

    def place_of_prediction(self, value: float) -> tuple[Axes, tuple[float, float], tuple[float, float]]:
        """Where a student's prediction of a number belongs: in which axes, and x and y of the ends of its line.

        A picture that has such a place says so here; ``Explorer.remember`` then draws it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no place for a prediction.")

    def mark_prediction(self, value: float | None) -> None:
        """Draw a prediction as a dashed line with words beside it; None takes it away."""
        if self._prediction is None:
            axes = self.place_of_prediction(0.5)[0]
            line = axes.plot([], [], "--", color="black", lw=1.6, zorder=9)[0]
            behind = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.85}
            words = axes.text(0, 0, "", ha="center", va="bottom", fontsize=9, zorder=10, bbox=behind)
            self._prediction = line, words
            self.moves(line, words)
        line, words = self._prediction
        if value is None:
            line.set_data([], [])
            words.set_text("")
            return
        _, x, y = self.place_of_prediction(value)
        line.set_data(x, y)
        upright = x[0] == x[1]
        words.set_position((sum(x) / 2, min(y)))
        words.set_verticalalignment("top" if upright else "bottom")
        words.set_text("your prediction")

    def moves(self, *artists: Artist) -> None:
        """Name artists that ``update`` changes. Everything else is drawn once."""
        for artist in artists:
            artist.set_animated(True)
        self._moving += artists
        self.redraw_all()

    def redraw_all(self) -> None:
        """Call from ``update`` when something that stands still has changed too, such as the limits of the axes."""
        self._still = self._background = None

    @property
    def pixel_size(self) -> tuple[int, int]:
        """Width and height in pixels of the still picture, which are the units of the scenes."""
        return self.canvas.get_width_height()

    def png(self, *, moving: bool = True) -> bytes:
        """The picture as it is now, or only what stands still in it."""
        self._lay_out()
        if self._still is None:
            self.canvas.draw()
            self._still = self.canvas.copy_from_bbox(self.figure.bbox)
        self.canvas.restore_region(self._still)
        for artist in self._in_order() if moving else ():
            self.figure.draw_artist(artist)
        return _png(Image.frombuffer("RGBA", self.pixel_size, self.canvas.buffer_rgba()).convert("RGB"))

    def background(self) -> dict[str, Any]:
        """All that stands still, written down for a canvas: the same object until that changes."""
        self._lay_out()
        if self._background is None:
            self._recorder.start()
            self.figure.draw(self._recorder)
            self._background = self._recorder.scene()
        return self._background

    def scene(self) -> dict[str, Any]:
        """What moves, as it is now, written down for a canvas; see ``Recorder``."""
        self._lay_out()
        self._recorder.start()
        for artist in self._in_order():
            artist.draw(self._recorder)
        return self._recorder.scene()

    def _in_order(self) -> list[Artist]:
        return sorted(self._moving, key=Artist.get_zorder)

    def _lay_out(self) -> None:
        """Settle the layout, once: a picture whose axes jump while one drags is hard to read."""
        if not self._laid_out:
            self.canvas.draw()
            self.figure.set_layout_engine("none")
            self._laid_out = True

    def regions(self) -> list[tuple[float, float, float, float]]:
        """Where the axes are: (left, top, right, bottom) in [0, 1] from the top left of the picture."""
        boxes = [axes.get_position() for axes in self.figure.axes]
        return [(float(b.x0), float(1 - b.y1), float(b.x1), float(1 - b.y0)) for b in boxes]

    def locate(self, x: float, y: float) -> tuple[Axes | None, float, float]:
        """Which axes, and where in its data, a point of the picture is; x and y in [0, 1] from the top left."""
        width, height = self.pixel_size
        pixel = (x * width, (1 - y) * height)
        for axes in self.figure.axes:
            if axes.bbox.contains(*pixel):
                return axes, *axes.transData.inverted().transform(pixel)
        return None, 0.0, 0.0


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _css(color: Any) -> str:
    """A color in [0, 1], with or without its alpha, as a canvas reads it: #rrggbbaa or #rrggbb."""
    return "#" + bytes(round(255 * float(c)) for c in color).hex()
