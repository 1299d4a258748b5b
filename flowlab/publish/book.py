"""The course as a static site: pages that need no server and no network, with search, formulas and figures.

A folder of plain files: open ``index.html``, or put the folder on any web host. Worked answers are pages of their own.
The explorers move, by the recordings that ``tape.py`` makes of them.
"""

from __future__ import annotations

import ast
import functools
import html
import json
import re
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowlab.lessons import explorers
from flowlab.lessons.base import order
from flowlab.publish.base import (
    ASSETS,
    Output,
    Words,
    cells,
    code,
    colors,
    katex,
    outputs,
    plain,
    printed,
    template,
)
from flowlab.publish.tape import BYTES, Tape, player, recorded

OPEN = "<summary>What this cell shows</summary>\n"
HEADING = re.compile(r'<h([1-6]) id="([^"]+)">(.*?)</h\1>', re.S)


@dataclass
class Page:
    """One page of the book: its address, what it says, and which page comes before and after."""

    address: str
    body: str
    before: Page | None = None
    after: Page | None = None

    @functools.cached_property
    def sections(self) -> list[tuple[int, str, str]]:
        """Level, address and text of each heading."""
        return [(int(level), place, text) for level, place, text in HEADING.findall(self.body)]

    @property
    def title(self) -> str:
        return plain(self.sections[0][2])

    @property
    def root(self) -> str:
        """The way from this page to the top of the site."""
        return "../" * self.address.count("/")


def write(paths: Sequence[Path], folder: Path) -> Path:
    """Write the book of these notebooks, with the texts and the worked answers beside them; returns its first page.

    An earlier book in the folder is written over, and no other site is: FileExistsError.
    """
    if (folder / "index.html").exists() and not (folder / "assets" / "search.js").exists():
        raise FileExistsError(f"{folder} holds another site, whose index.html would be lost. Name another folder.")
    book = Book(paths, folder)
    for page in book.pages:
        target = folder / page.address
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(template("book.html").render(page=page, book=book, plain=plain), encoding="utf-8")
    script, style = katex()
    (folder / "tapes").mkdir(exist_ok=True)
    for key, tape in book.tapes.items():
        (folder / "tapes" / f"{key}.js").write_text(tape.script(key), encoding="utf-8")
    assets = {
        "katex.js": script,
        "katex.css": style,
        "book.css": (ASSETS / "book.css").read_text() + colors(dark=True),
        "book.js": (ASSETS / "book.js").read_text(),
        "tape.js": player(),
        "search.js": f"window.flowlabSections = {json.dumps(book.search_index(), ensure_ascii=False)};\n",
    }
    (folder / "assets").mkdir(exist_ok=True)
    for name, text in assets.items():
        (folder / "assets" / name).write_text(text, encoding="utf-8")
    return folder / "index.html"


class Book:
    """All pages of the site; figures are written while they are met."""

    def __init__(self, paths: Sequence[Path], folder: Path) -> None:
        self.notebooks, self.folder = paths[0].parent.resolve(), folder
        notebooks = self.notebooks
        paths, texts = [path.resolve() for path in paths], sorted(notebooks.glob("*.md"))
        answers = [notebooks / "solutions" / path.name for path in paths]
        self.sources = {path: self._address(path) for path in [*paths, *texts, *filter(Path.exists, answers)]}
        (folder / "images").mkdir(parents=True, exist_ok=True)
        self.tapes: dict[str, Tape] = {}  # by the names of their files
        self.stills: dict[str, str] = {}  # of each tape, the picture that is seen before it is loaded
        self.chapters = [self._notebook(path) for path in paths]
        self.appendix = [self._text(path) for path in texts]
        self.answers = [self._notebook(path) for path in answers if path in self.sources]
        for before, after in zip(self.chapters, self.chapters[1:], strict=False):
            before.after, after.before = after, before
        rows = [self._row(chapter) for chapter in self.chapters]
        self.front = Page("index.html", template("front.html").render(rows=rows, opening=self._opening()))
        self.pages = [self.front, *self.chapters, *self.appendix, *self.answers]

    def search_index(self) -> list[dict[str, str]]:
        """One entry for each section of each page: page, address, title, heading, words."""
        entries = []
        for page in self.pages[1:]:
            starts = [*HEADING.finditer(page.body)]
            for this, following in zip(starts, [*starts[1:], None], strict=True):
                words = plain(page.body[this.end() : following.start() if following else None])
                heading = plain(this.group(3))
                place = {"page": page.address, "at": this.group(2)}
                entries.append({**place, "title": page.title, "heading": heading, "words": words})
        return entries

    def _address(self, path: Path) -> str:
        inside = path.relative_to(self.notebooks).with_suffix(".html").as_posix()
        return "guide.html" if path.name == "README.md" else inside

    def _words(self, path: Path) -> Words:
        """A renderer whose links lead from page to page; files that are no page are copied when they are pictures."""
        root = "../" * self.sources[path].count("/")

        def where(url: str) -> str | None:
            if re.match(r"(https?:|#|mailto:)", url):
                return url
            name, _, place = url.partition("#")
            target = (path.parent / name).resolve()
            if target in self.sources:
                return root + self.sources[target] + (f"#{place}" if place else "")
            if target.suffix in (".png", ".svg", ".jpg") and target.exists():
                shutil.copy(target, self.folder / "images" / target.name)
                return f"{root}images/{target.name}"
            return None

        return Words(where)

    def _text(self, path: Path) -> Page:
        return Page(self.sources[path], self._words(path).page(path.read_text(encoding="utf-8")))

    def _notebook(self, path: Path) -> Page:
        words, body = self._words(path), list[str]()
        made = [
            (output.moves, _arguments(cell.source, output.moves))
            for cell, _ in cells(path)
            for output in outputs(cell)
            if output.moves
        ]
        is_answer = path.parent.name == "solutions"
        for number, (cell, tags) in enumerate(cells(path)):
            if cell.cell_type == "markdown":
                body.append(words.page(cell.source))
                continue
            body.append(code(cell.source))
            moving, still = list[str](), list[str]()
            for count, output in enumerate(outputs(cell)):
                name = f"{path.stem}-{number}-{count}.png"
                key = self._tape(output, cell.source, made) if output.moves else ""
                shown = self._figure(output, name, path, key) if output.png else printed(output.text)
                (moving if output.moves else still).append(shown)
            body += moving
            if still:  # whoever reads predicts first, and then opens it
                body.append("".join(still) if is_answer else f"<details>{OPEN}{''.join(still)}</details>\n")
            names = [tag.removeprefix("exercise-") for tag in tags if tag.startswith("exercise-")]
            body += [self._answer(path, order.label(name)) for name in names]
        return Page(self.sources[path], "".join(body))

    def _tape(self, output: Output, source: str, made: list[tuple[str, tuple[Any, ...] | None]]) -> str:
        """The key of the tape of the explorer that a cell has shown; ``made`` is what all cells of the page make.

        Of an explorer that is made from what only the notebook has computed, the tape is that of one without arguments;
        it has none where the page has that one too.
        """
        name, arguments = output.moves, _arguments(source, output.moves)
        if arguments is None and (name, ()) in made:
            return ""
        key = "-".join([name, *map(str, arguments or ())])
        self.tapes[key] = recorded(explorers()[name], arguments or (), BYTES // len(made))
        return key

    def _figure(self, output: Output, name: str, path: Path, key: str) -> str:
        (self.folder / "images" / name).write_bytes(output.png)
        width, height = struct.unpack(">II", output.png[16:24])  # a PNG says so in its first bytes
        root = "../" * self.sources[path].count("/")
        where = f'images/{name}" alt="{html.escape(output.alt)}" width="{width}" height="{height}" loading="lazy">'
        if key:
            self.stills[key] = f'<img src="{where}'
            return self._explorer(key, root)
        note = f"Here it stands still. To move it: <code>flowlab lab {int(path.name[:2])}</code>"
        caption = f"<figcaption>{note}</figcaption>" if output.moves else ""
        return f'<figure><div class="stage"><img src="{root}{where}</div>{caption}</figure>\n'

    def _explorer(self, key: str, root: str, *, opening: bool = False) -> str:
        """The controls of a tape, and a still picture in whose place it comes; an opening plays by itself."""
        picture = self.stills[key].replace('src="', f'src="{root}', 1)
        return template("tape.html").render(tape=self.tapes[key], key=key, root=root, picture=picture, opening=opening)

    def _opening(self) -> str:
        """A flow for the first page: the one that is scrubbed through its training, else what else can be played."""
        playable = [key for key, tape in self.tapes.items() if any(control.plays for control in tape.controls)]
        first = sorted(playable, key=lambda key: key != "ScrubFlow")[:1]
        return self._explorer(first[0], "", opening=True) if first else ""

    def _answer(self, path: Path, number: str) -> str:
        answers = self.sources.get(self.notebooks / "solutions" / path.name)
        if not answers:
            return ""
        link = f'<a href="{answers}#exercise-{number.replace(".", "-")}">Exercise {number}: a worked answer</a>'
        return f'<p class="answer">{link}</p>\n'

    def _row(self, page: Page) -> tuple[Page, str, str]:
        """A chapter's line in the table of contents: its goal, and the minutes it takes."""
        goal = re.search(r"<p><strong>Goal\.</strong>\s*(.*?)</p>", page.body, re.S)
        minutes = re.search(r"(\d+) minutes", plain(page.body))
        return page, goal.group(1) if goal else "", f"{minutes.group(1)} min" if minutes else ""


def _arguments(source: str, name: str) -> tuple[Any, ...] | None:
    """The arguments of the call in a cell that makes this explorer; None where they are no constants."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id == name:
            constants = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
            return tuple(constants) if not call.keywords and len(constants) == len(call.args) else None
    return None
