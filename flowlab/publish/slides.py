"""A deck of slides from a notebook as it stands: one self-contained page that needs no network.

Rules, so that a notebook needs no marks for it:

- A heading starts a slide, and its section is a column of slides. ``References`` stay in the notebook.
- A question to the class (**Predict.**) is shown in full and ends its slide, so that the answer comes on the next.
- Of other long text the first sentences are shown; all of it goes to the speaker notes (press S).
- Formulas, tables and lists are shown. Folded answers go to the notes.
- A picture has a slide of its own, with the line that says what to see. Explorers are shown as they stand.
- Code of a few lines is shown with what it printed; longer code goes to the notes. So do the first cell and exercises.

Tags on cells change this: ``skip`` leaves a cell out, ``slide`` starts a slide, ``fragment`` shows it at a key press,
``notes`` says all of it in the speaker notes alone.
"""

from __future__ import annotations

import base64
import html
import math
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mistune import BlockState
from nbformat import NotebookNode

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
    tokens,
)
from flowlab.publish.scripts import REVEAL, read

WORDS = 40  # of a paragraph that is shown whole; of a longer one, the first sentences up to this
ROOM = 16.5  # lines on a slide
WIDTH = 80  # characters in a line
CODE = 14  # lines of code or of print that a class can read
SENTENCE = re.compile(r"[.?!][)”'\"]*\s+(?=[\"“A-Z(0-9])")
NOT_SHOWN = ("references",)
Token = dict[str, Any]


@dataclass
class Slide:
    """One slide: its heading, what it shows, what the speaker says."""

    heading: str
    level: int = 2
    kind: str = ""
    blocks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    filled: float = 0.0  # lines


def write(path: Path, folder: Path) -> Path:
    """Write the deck of one notebook into a folder; returns the file."""
    deck = Deck(path)
    script, style = katex()
    reveal = {name: read(REVEAL, f"dist/{name}") for name in ("reset.css", "reveal.css", "reveal.js")}
    reveal["notes.js"] = read(REVEAL, "dist/plugin/notes.js")
    page = template("slides.html").render(
        title=plain(deck.columns[0][0].heading),
        columns=deck.columns,
        styles=[reveal["reset.css"], reveal["reveal.css"], style, colors(), (ASSETS / "slides.css").read_text()],
        scripts=[
            text.replace("</script", r"<\/script")
            for text in (reveal["reveal.js"], reveal["notes.js"], script, (ASSETS / "slides.js").read_text())
        ],
    )
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{path.stem}.slides.html"
    target.write_text(page, encoding="utf-8")
    return target


class Deck:
    """The slides of a notebook, in columns: a column is a section, and goes down."""

    def __init__(self, path: Path) -> None:
        self.columns: list[list[Slide]] = []
        self.words = Words(where=lambda url: url if url.startswith("http") else None)
        self._hidden = self._step = self._quiet = False
        first = True
        for cell, tags in cells(path):
            self._step, self._quiet = "fragment" in tags, "notes" in tags
            if "slide" in tags:
                self._continue()
            if cell.cell_type == "markdown":
                self._text(cell.source)
            elif cell.cell_type == "code" and not self._hidden:
                exercise = any(tag.startswith("exercise-") for tag in tags)
                self._code(cell, shown=not first and not exercise)
                first = False
        self.columns = [kept for column in self.columns if (kept := [s for s in column if s.blocks or s.level == 1])]

    # Text

    def _text(self, source: str) -> None:
        folded = False
        for token in tokens(source):
            if token["type"] == "block_html":
                folded = "</details>" not in token["raw"] and (folded or token["raw"].startswith("<details"))
                if plain(token["raw"]) and not self._hidden:  # such as the question on top of a folded answer
                    self._say(f"<p>{html.escape(plain(token['raw']))}</p>")
            elif token["type"] == "heading":
                self._heading(token)
            elif self._hidden or token["type"] == "blank_line":
                continue
            elif folded or self._quiet:
                self._say(self._html(token))
            elif token["type"] == "paragraph":
                self._paragraph(token)
            elif token["type"] == "list":
                self._list(token)
            else:
                self._show(self._html(token), self._lines(token))

    def _heading(self, token: Token) -> None:
        text = self._render(token["children"])
        self._hidden = plain(text).lower().strip("0123456789. ") in NOT_SHOWN
        if self._hidden:
            return
        level = token["attrs"]["level"]
        slide = Slide(text, level, "title" if level == 1 else "")
        if level <= 2 or not self.columns:
            self.columns.append([slide])
        else:
            self.columns[-1].append(slide)

    def _paragraph(self, token: Token) -> None:
        text, children = plain(self._html(token)), token["children"]
        if re.match(r"(Next|Previous|Back|Letters)\b.*:", text):
            return  # the way through the course is no matter for a slide
        asks = next((n for n, child in enumerate(children) if _opens(child, "strong", "Predict")), None)
        if _opens(children[0], "emphasis", r"(What to )?[Ss]ee\b"):
            self._see(children)
        elif asks == 0:
            self._show(f'<p class="predict">{self._render(children)}</p>', self._lines(token) + 1)
            self._current().filled = ROOM  # what comes after the question comes on the next slide
        elif asks is not None:
            self._paragraph({**token, "children": children[:asks]})
            self._paragraph({**token, "children": children[asks:]})
        elif len(text.split()) <= WORDS:
            self._show(self._html(token), self._lines(token))
        else:
            short = self._shortened(children)
            self._show(f"<p>{self._render(short)}</p>", self._lines({"children": short}))
            self._say(self._html(token))

    def _see(self, children: list[Token]) -> None:
        """The line that says what to see belongs under the last picture; what follows it is for the speaker."""
        caption, rest = f'<p class="see">{self._render(children[:1])}</p>', self._render(children[1:])
        pictures = [slide for slide in self.columns[-1] if slide.kind == "picture" and len(slide.blocks) == 1]
        if pictures:
            pictures[-1].blocks.append(caption)
        else:
            self._show(caption, 2)
        if plain(rest):
            self._say(f"<p>{rest}</p>")

    def _list(self, token: Token) -> None:
        if len(plain(self._html(token)).split()) > 2 * WORDS:
            self._say(self._html(token))
            for item in token["children"]:
                for part in item["children"]:
                    if part["type"] in ("block_text", "paragraph"):
                        part["children"] = self._shortened(part["children"])
        lines = sum(self._lines(item) for item in token["children"])
        self._show(self._html(token), lines)

    def _shortened(self, children: list[Token]) -> list[Token]:
        """The first sentences, as many as fit into ``WORDS``, and one at least. Never cut inside a formula."""
        kept, best, count = [], None, 0
        for child in children:
            text = plain(self._render([child]))
            lead = child["type"] == "strong" and not kept
            if child["type"] == "text":
                for end in SENTENCE.finditer(child["raw"]):
                    words = count + len(child["raw"][: end.end()].split())
                    if best is not None and words > WORDS:
                        return best
                    if words > 3:
                        best = [*kept, {**child, "raw": child["raw"][: end.end()].rstrip()}]
            count += 0 if lead else len(text.split())
            kept.append(child)
            if best is not None and count > WORDS:
                return best
        return kept

    # Code, print and pictures

    def _code(self, cell: NotebookNode, shown: bool) -> None:
        source = re.sub(r"\n{3,}", "\n\n", cell.source)
        results = list(outputs(cell)) if shown and not self._quiet else []
        draws = bool(results) and all(result.png for result in results)  # then the picture says it better
        if shown and not self._quiet and not draws and len(source.splitlines()) <= CODE:
            self._show(code(source), self._high(source))
        else:
            self._say(code(source))
        for result in results:
            self._output(result)

    def _output(self, output: Output) -> None:
        if output.png:
            self._continue("picture")
            source = f"data:image/png;base64,{base64.b64encode(output.png).decode()}"
            self._show(f'<img src="{source}" alt="{html.escape(output.alt)}">', ROOM)
            if output.moves:
                self._say("<p>In the notebook this picture has controls; here it stands still.</p>")
        else:
            lines = output.text.splitlines()
            text = output.text if len(lines) <= CODE else "\n".join([*lines[: CODE - 1], "…"])
            self._show(printed(text), self._high(text))

    # Slides

    def _current(self) -> Slide:
        return self.columns[-1][-1]

    def _continue(self, kind: str = "") -> None:
        """A further slide of the same section, with its heading."""
        if self.columns and (self._current().blocks or self._current().level == 1):
            current = self._current()
            heading = "" if current.level == 1 else current.heading
            self.columns[-1].append(Slide(heading or current.heading, 2, kind or "again"))
        elif self.columns and kind:
            self._current().kind = kind

    def _show(self, block: str, lines: float) -> None:
        slide = self._current()
        if slide.blocks and (slide.kind == "picture" or slide.filled + lines > ROOM):
            announces = len(slide.blocks) > 1 and slide.blocks[-1].rstrip().endswith(":</p>")
            announced = [slide.blocks.pop()] if announces else []  # "as follows:" goes with what follows
            self._continue()
            self._current().blocks += announced
            self._current().filled += 1.6 * len(announced)
        if self._step:
            block = f'<div class="fragment">{block}</div>'
        self._current().blocks.append(block)
        self._current().filled += lines

    def _say(self, block: str) -> None:
        self._current().notes.append(block.replace(' tabindex="0"', ""))

    # Tokens

    def _render(self, children: list[Token]) -> str:
        return self.words.render_tokens(children, BlockState())

    def _html(self, token: Token) -> str:
        return self.words([token], BlockState())

    def _lines(self, token: Token) -> float:
        """About how high a block is, in lines."""
        page = self._html(token) if "type" in token else self._render(token["children"])
        high = 2.4 * page.count('class="math display"') + 1.5 * page.count("<tr>")
        return high + len(textwrap.wrap(plain(page), WIDTH)) + 0.6

    def _high(self, text: str) -> float:
        """About how high a block of code or print is, in lines."""
        return 0.7 * sum(math.ceil(max(1, len(line)) / 110) for line in text.splitlines()) + 0.9


def _opens(token: Token, kind: str, word: str) -> bool:
    return token["type"] == kind and re.match(word, "".join(c.get("raw", "") for c in token["children"])) is not None
