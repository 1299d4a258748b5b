"""What slides and book share: a stored notebook as pieces of HTML. Nothing is run; what a notebook holds is shown."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment, FileSystemLoader
from nbconvert.filters.ansi import strip_ansi
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from flowlab.publish.scripts import KATEX, fetch, read

ASSETS = Path(__file__).parent / "assets"
FONT = re.compile(r'url\((fonts/[^)]+\.woff2)\) format\("woff2"\)(,url\([^)]+\) format\("[a-z]+"\))*')
PAINT = HtmlFormatter(nowrap=True, style="default")  # a style whose colors have the contrast that WCAG asks for


DARK = HtmlFormatter(nowrap=True, style="github-dark")


class Words(IPythonRenderer):
    """Markdown to HTML: formulas are left to KaTeX in the page, headings get an address, links go through ``link``."""

    def __init__(self, where: Callable[[str], str | None] = lambda url: url) -> None:
        super().__init__(escape=False)
        self.where, self.addresses = where, set()
        self.page = MarkdownWithMath(renderer=self)  # call it with Markdown

    def inline_math(self, body: str) -> str:
        return f'<span class="math">{html.escape(body)}</span>'

    def block_math(self, body: str) -> str:
        return f'<span class="math display" tabindex="0">{html.escape(body.strip())}</span>'

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def heading(self, text: str, level: int, **attributes: Any) -> str:
        return f'<h{level} id="{self.address(text)}">{text}</h{level}>\n'

    def address(self, text: str) -> str:
        """A heading's address in its page, as ``exercise-04-1``."""
        base = re.sub(r"[\W_]+", "-", plain(text).lower()).strip("-") or "section"
        free = next(name for n in range(1, 999) if (name := base if n == 1 else f"{base}-{n}") not in self.addresses)
        self.addresses.add(free)
        return free

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """A link; only its text where its target does not come along."""
        target = self.where(url)
        return text if target is None else super().link(text, target, title)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        target = self.where(url)
        return html.escape(text) if target is None else super().image(text, target, title)

    def table(self, text: str) -> str:
        return f'<div class="wide" tabindex="0"><table>{text}</table></div>\n'


@dataclass(frozen=True)
class Output:
    """What a cell has shown: a text, or a picture and its alternative in words."""

    text: str = ""
    png: bytes = b""
    alt: str = ""
    moves: str = ""  # the name of the explorer whose still picture it is


def tokens(source: str) -> list[dict[str, Any]]:
    """Markdown as the blocks that ``Words`` renders."""
    return MarkdownWithMath(renderer=None)(source)


def cells(path: Path) -> Iterator[tuple[nbformat.NotebookNode, set[str]]]:
    """The cells of a notebook with their tags; empty ones and those tagged ``skip`` are left out."""
    for cell in nbformat.read(path, as_version=4).cells:
        tags = set(cell.metadata.get("tags", []))
        if cell.source.strip() and "skip" not in tags:
            yield cell, tags


def outputs(cell: nbformat.NotebookNode) -> Iterator[Output]:
    """What a code cell shows, without errors and progress bars."""
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            alt = output.metadata.get("image/png", {}).get("alt") or "A picture that the text beside it explains."
            moves = re.match(r"(\w+): run this cell to move it", data.get("text/plain", ""))
            yield Output(png=base64.b64decode(data["image/png"]), alt=alt, moves=moves.group(1) if moves else "")
        elif output.output_type == "stream" and output.name == "stdout":
            yield Output(text=strip_ansi(output.text).rstrip())
        elif "text/plain" in data:
            yield Output(text=strip_ansi(data["text/plain"]).rstrip())


def code(source: str, kind: str = "code") -> str:
    """Python in color."""
    return f'<pre class="{kind}" tabindex="0"><code>{highlight(source, PythonLexer(), PAINT).rstrip()}</code></pre>\n'


def printed(text: str) -> str:
    """What a cell has printed."""
    return f'<pre class="printed" tabindex="0"><samp>{html.escape(text)}</samp></pre>\n'


def plain(text: str) -> str:
    """HTML without its tags. Those inside a line part no words: ``flow.log_prob`` in color is still one."""
    text = re.sub(r"</?(?:a|code|em|span|strong)\b[^>]*>", "", text)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def katex() -> tuple[str, str]:
    """The script and the style that set formulas, with the fonts inside the style: some browsers give a page that is
    opened as a file no fonts from other files."""

    def inline(match: re.Match) -> str:
        font = base64.b64encode(fetch(KATEX, f"dist/{match.group(1)}").read_bytes()).decode()
        return f'url(data:font/woff2;base64,{font}) format("woff2")'

    style = FONT.sub(inline, read(KATEX, "dist/katex.min.css"))
    return read(KATEX, "dist/katex.min.js") + "\n" + (ASSETS / "formulas.js").read_text(), style


def colors(*, dark: bool = False) -> str:
    """The style of code in color; with ``dark``, also on the dark ground of a reader who wants one."""
    light = PAINT.get_style_defs("pre code")
    schemes = {"light": light, "dark": DARK.get_style_defs("pre code")}
    return "".join(f"@media (prefers-color-scheme: {k}) {{ {v} }}\n" for k, v in schemes.items()) if dark else light


def template(name: str) -> Any:
    """A page template."""
    return Environment(loader=FileSystemLoader(ASSETS), autoescape=False).get_template(name)
