"""Tapes: what an explorer draws, recorded over its controls, for pages that have no kernel.

A tape is one file, which a page loads when its explorer scrolls into view: a script, since a page that was opened from
a disk may load nothing else. It holds the scenes that ``Recorder`` has written down, each piece of them once, and
``assets/tape.js`` draws them with the canvas code of the notebook.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import gzip
import hashlib
import io
import itertools
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from flowlab.files import write_whole
from flowlab.lessons.base.explorer import Explorer

PACKAGE = Path(__file__).parents[1]
PARTS = 8  # of a pixel: what is rounded moves by a sixteenth of one at most, by an eighth on a screen twice as sharp
BYTES = 1_150_000  # of all tapes of a page: with its text, its pictures and its formulas it stays below 3 MB
FRAMES = 500  # of a tape: they are drawn in some seconds
THIN = (31, 21, 13, 9)  # how many values of a slider are kept, from the best to the smallest tape
FAR = 1 << 24  # parts of a pixel: nothing that is seen is farther away
WHOLE = 10_000  # pixels of an image, up to which not one of them may change
Setting = tuple[int, ...]  # of each control, the place of its value among those that are kept
Scene = tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[bytes, ...]]  # steps, coordinates, images
Frame = tuple[Scene, Scene, bytes, bytes]  # what stands still, what moves, the numbers beside it, what it shows


class TooLarge(ValueError):
    """These settings need more bytes than a tape may have."""


@dataclass(frozen=True)
class Control:
    """A control in a page: its values, what a reader sees of each, and the place of the one that it begins with."""

    name: str
    label: str
    kind: str  # "list", "check" or "slider"
    values: list[bool | int | float | str]
    shown: list[str]
    start: int
    plays: bool  # whether it goes on by itself at the press of a button


@dataclass(frozen=True)
class Tape:
    """An explorer without its kernel: name, caption, size, controls, and all that it draws in the settings of blocks.

    A block is a list of controls of which all combinations are there, while the others stand where they began. One
    block of all controls holds every combination; a block for each control moves one of them at a time.
    """

    name: str
    caption: str  # in HTML
    size: tuple[int, int]
    controls: list[Control]
    blocks: list[list[int]]
    alt: str  # what is seen at the start, in words
    count: int  # of settings
    packed: bytes

    @property
    def is_free(self) -> bool:
        """Whether every combination of the controls is there."""
        return any(len(block) == len(self.controls) for block in self.blocks)

    @property
    def note(self) -> str:
        """What a reader has to know where not every combination is there."""
        where = "To move one control may put others back to where they began; in the notebook all are free."
        return "" if self.is_free else where

    def script(self, key: str) -> str:
        """The file that a page loads, which hands over the tape under this key."""
        return f'flowlabTape({json.dumps(key)}, "{base64.b64encode(self.packed).decode()}");\n'

    def to_json(self) -> str:
        """The tape as a text, for a file."""
        return json.dumps({**dataclasses.asdict(self), "packed": base64.b64encode(self.packed).decode()})

    @classmethod
    def from_json(cls, text: str) -> Tape:
        """The tape that ``to_json`` has written."""
        found = json.loads(text)
        found["controls"] = [Control(**control) for control in found["controls"]]
        return cls(**{**found, "size": tuple(found["size"]), "packed": base64.b64decode(found["packed"])})


def record(explorer: Explorer, room: int = BYTES) -> Tape:
    """The best tape of an explorer of at most so many bytes in a page.

    All controls are combined where that is small enough; else each slider with all that is no slider; else each control
    moves alone. The explorer's class may say it otherwise: see ``Explorer``. Raises what the explorer raises while it
    draws, and TooLarge where nothing is small enough.
    """
    if explorer.tape_trains:
        with ThreadPoolExecutor(1) as alone:  # where no event loop runs, a training goes on to its end at once
            alone.submit(explorer.start_button.click).result()
    recorder = _Drawn(explorer, room)
    for controls, blocks in _plans(explorer):
        if sum(math.prod(len(controls[i].values) for i in block) for block in blocks) <= FRAMES:
            try:
                return recorder.tape(controls, blocks)
            except TooLarge:
                continue
    raise TooLarge(f"The tape of {type(explorer).__name__} is too large: keep fewer values in its `tape`.")


def player() -> str:
    """The script that plays tapes, which draws by the code of the notebook."""
    drawing, playing = PACKAGE / "lessons" / "base" / "scene.js", PACKAGE / "publish" / "assets" / "tape.js"
    return drawing.read_text(encoding="utf-8") + playing.read_text(encoding="utf-8")


def recorded(kind: type[Explorer], arguments: tuple[Any, ...] = (), room: int = BYTES) -> Tape:
    """The tape of a new explorer of this kind: recorded once, and again when any file of the package has changed."""
    import pooch

    what = f"{kind.__module__}.{kind.__name__}{arguments!r} {room} {FRAMES} {_package()}"
    file = Path(pooch.os_cache("flowlab")) / "tapes" / f"{hashlib.sha256(what.encode()).hexdigest()}.json"
    if file.exists():
        return Tape.from_json(file.read_text(encoding="utf-8"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a picture is many small computations, and several threads would wait for each other
    try:
        explorer = kind(*arguments)
        tape = record(explorer, room)
        explorer.close()
    finally:
        torch.set_num_threads(threads)
    with contextlib.suppress(OSError):  # a cache is a convenience
        write_whole(file, tape.to_json())
    return tape


@functools.cache
def _package() -> str:
    """A hash of all files of the package, and the version of torch, with which it computes."""
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted(PACKAGE.rglob("*")):
        if path.is_file() and path.suffix in (".py", ".json", ".npz", ".safetensors"):
            digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def settings(controls: Sequence[Control], block: Sequence[int]) -> Iterator[Setting]:
    """The settings of a block, of which the last control moves fastest."""
    free = (range(len(c.values)) if i in block else (c.start,) for i, c in enumerate(controls))
    return itertools.product(*free)


def _plans(explorer: Explorer) -> Iterator[tuple[list[Control], list[list[int]]]]:
    """Controls with the values that are kept, and blocks: from the best plan to the smallest."""
    names = list(explorer.controls)
    thinned = [[_control(explorer, name, count) for name in names] for count in THIN]
    everything, kinds = list(range(len(names))), [control.kind for control in thinned[0]]
    sliders = [i for i in everything if kinds[i] == "slider"]
    others = [i for i in everything if kinds[i] != "slider"]
    declared = [sorted(map(names.index, block)) for block in explorer.tape_blocks]
    one_slider, alone = [sorted([*others, i]) for i in sliders], [[i] for i in everything]
    ways = [declared, alone] if declared else [[everything], one_slider, alone]
    return ((controls, blocks) for blocks in ways for controls in thinned)


def _control(explorer: Explorer, name: str, count: int) -> Control:
    """A control with so many of its values: its first, its last and that of the start are among them."""
    widget, start = explorer.controls[name], explorer.controls[name].value
    kind = "slider" if hasattr(widget, "readout") else "check" if isinstance(start, bool) else "list"
    if hasattr(widget, "_options_values"):
        values, shown = list(widget._options_values), list(widget._options_labels)
    elif kind == "check":
        values, shown = [False, True], ["off", "on"]
    else:
        places = [widget.min + i * widget.step for i in range(round((widget.max - widget.min) / widget.step) + 1)]
        values = [widget.base**v for v in places] if hasattr(widget, "base") else places
        values = [type(start)(round(v, 9)) for v in values]
        values[_nearest(values, start)] = start
        end = "" if widget.readout else f" of {widget.max}"
        shown = [f"{v:{widget.readout_format}}{end}" for v in values]
    kept = list(range(len(values)))
    if name in explorer.tape:
        kept = sorted({_nearest(values, v) for v in (*explorer.tape[name], start)})
    elif kind == "slider" and len(values) > count:
        kept = np.linspace(0, len(values) - 1, count).round().astype(int).tolist()
        kept[_nearest(kept, values.index(start))] = values.index(start)
        kept = sorted({0, *kept, len(values) - 1})
    where, plays = kept.index(values.index(start)), name in explorer.players
    values, shown = [values[i] for i in kept], [shown[i] for i in kept]
    return Control(name, widget.description, kind, values, shown, where, plays)


def _nearest(values: Sequence[Any], wanted: Any) -> int:
    """The place of a value; of numbers, of the nearest."""
    return values.index(wanted) if wanted in values else min(range(len(values)), key=lambda i: abs(values[i] - wanted))


class _Table(dict[Any, int]):
    """Things, each once, and the number of each."""

    def add(self, thing: Any) -> int:
        return self.setdefault(thing, len(self))


class _Drawn:
    """What an explorer has drawn so far: each setting once, and equal pieces once."""

    def __init__(self, explorer: Explorer, room: int) -> None:
        self.explorer, self.room = explorer, room
        self.frames: dict[tuple[Any, ...], Frame] = {}
        self.pieces: dict[bytes, bytes] = {}
        self.cost: dict[bytes, int] = {}  # of each piece, about how many bytes it needs in a page
        self.sheet: tuple[Any, Scene] = (None, ((), (), ()))  # the background that was met last, as it came and as kept

    def tape(self, controls: list[Control], blocks: list[list[int]]) -> Tape:
        """Draw what is not drawn yet, and pack all of it. Raises TooLarge as soon as it is known to be that."""

        def valued(setting: Setting) -> list[Any]:
            return [control.values[i] for control, i in zip(controls, setting, strict=True)]

        chosen = [list(map(valued, settings(controls, block))) for block in blocks]
        names, seen, cost = [control.name for control in controls], set[bytes](), 0
        for values in itertools.chain.from_iterable(chosen):
            new = set(_pieces(self.frame(names, values))) - seen
            seen |= new
            cost += sum(self.cost[piece] for piece in new)
            if cost > 2 * self.room:  # together the pieces pack better than each alone
                raise TooLarge
        rolls = [[self.frame(names, values) for values in block] for block in chosen]
        start = self.frame(names, valued(tuple(control.start for control in controls)))
        explorer, count = self.explorer, sum(map(len, rolls))
        packed = _pack(rolls, controls, blocks)
        if len(packed) * 4 / 3 > self.room:
            raise TooLarge
        name, size = type(explorer).__name__, explorer.picture.pixel_size
        return Tape(name, explorer.caption.value, size, controls, blocks, start[3].decode(), count, packed)

    def frame(self, names: list[str], values: list[Any]) -> Frame:
        """What is drawn for these values of the controls."""
        key = tuple(values)
        if key not in self.frames:
            explorer = self.explorer
            explorer.set(**dict(zip(names, values, strict=True)))
            if explorer.errors:
                raise explorer.errors[-1]
            view = explorer.view
            if view.background is not self.sheet[0]:
                self.sheet = view.background, self.scene(view.background)
            readout, alt = self.once(view.readout.encode()), self.once(view.alt.encode())
            self.frames[key] = (self.sheet[1], self.scene(view.scene), readout, alt)
        return self.frames[key]

    def scene(self, scene: dict[str, Any]) -> Scene:
        """A scene in pieces: of each step how it is drawn and where, and the images."""
        values, at = np.frombuffer(scene["numbers"], np.float32), 0
        steps, places = [], []
        for step in scene["steps"]:
            style = {key: value for key, value in step.items() if key != "size"}  # images are packed in one way here
            steps.append(self.once(json.dumps(style, separators=(",", ":")).encode()))
            corners, markers = step.get("count", 0), step.get("places", 0)
            if step["kind"] != "image":
                end = at + 3 * corners + 2 * markers
                places.append(self.once(_whole(values[at:end], corners)))
                at = end
        sizes = [step.get("size") for step in scene["steps"] if step["kind"] == "image"]
        images = [self.once(_webp(bytes(i), size)) for i, size in zip(scene["images"], sizes, strict=True)]
        return tuple(steps), tuple(places), tuple(images)

    def once(self, piece: bytes) -> bytes:
        if piece not in self.cost:
            self.cost[piece] = len(zlib.compress(piece)) * 4 // 3
        return self.pieces.setdefault(piece, piece)


def _pieces(frame: Frame) -> Iterator[bytes]:
    """All pieces of a frame."""
    sheet, scene, readout, alt = frame
    return itertools.chain(*sheet, *scene, (readout, alt))


def _whole(values: np.ndarray, corners: int) -> bytes:
    """Coordinates in whole parts of a pixel, each as its distance to the one before, x and y apart; then the codes.

    The first byte says how many bytes each of them has. Where a pen that closes stands is anything: where it is.
    """
    outline, places = values[: 3 * corners].reshape(-1, 3), values[3 * corners :].reshape(-1, 2)
    codes = outline[:, 2].astype(np.uint8)
    stands = np.maximum.accumulate(np.where(codes > 2, 0, np.arange(corners))) if corners else np.arange(0)
    columns = [*outline[stands, :2].T, *places.T]
    far = [np.diff(np.clip(np.round(c * PARTS), -FAR, FAR).astype(np.int32), prepend=0) for c in columns]
    folded = np.concatenate([(d << 1) ^ (d >> 31) for d in far]).astype(np.uint32)  # small numbers, whatever their sign
    size = next(size for size in (1, 2, 4) if folded.max(initial=0) < 1 << 8 * size)
    planes = folded[:, None].view(np.uint8)[:, :size].T  # the low bytes of all of them, then the next
    return bytes([size]) + planes.tobytes() + codes.tobytes()


def _webp(image: bytes, size: tuple[int, int] | None) -> bytes:
    """An image of a scene: whole where that needs few bytes, and else so that its colors move by less than is seen."""
    picture = Image.frombytes("RGBA", size, image) if size else Image.open(io.BytesIO(image)).convert("RGBA")
    if picture.getchannel("A").getextrema() == (255, 255):
        picture = picture.convert("RGB")
    ways: list[dict[str, Any]] = [{"lossless": True, "exact": True, "quality": 30}]
    if picture.width * picture.height > WHOLE:
        ways.append({"quality": 90})
    packed = []
    for way in ways:
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", **way)
        packed.append(buffer.getvalue())
    return min(packed, key=len)


def _pack(rolls: list[list[Frame]], controls: list[Control], blocks: list[list[int]]) -> bytes:
    """A head, which says by numbers what is made of what, its length before it, and the pieces behind it."""
    pieces, layouts, scenes, frames = _Table(), _Table(), _Table(), _Table()

    def number(scene: Scene) -> int:
        steps, places, images = (tuple(map(pieces.add, part)) for part in scene)
        return scenes.add((layouts.add(steps), places, images))

    def frame(sheet: Scene, scene: Scene, readout: bytes, alt: bytes) -> int:
        return frames.add((number(sheet), number(scene), pieces.add(readout), pieces.add(alt)))

    played = [[frame(*parts) for parts in roll] for roll in rolls]
    head = {
        "parts": PARTS,
        "controls": [{"start": control.start, "shown": control.shown} for control in controls],
        "blocks": [{"free": free, "frames": roll} for free, roll in zip(blocks, played, strict=True)],
        **{"frames": [*frames], "scenes": [*scenes], "layouts": [*layouts], "lengths": [*map(len, pieces)]},
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    return gzip.compress(b"".join([len(text).to_bytes(4, "little"), text, *pieces]), 9, mtime=0)
