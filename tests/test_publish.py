"""Slides and book as text: what is shown, what is said, what is left out. The browser tests look at the pages."""

import contextlib
import functools
import http.server
import importlib.util
import itertools
import re
import threading
from dataclasses import replace
from pathlib import Path

import fetch_scripts
import nbformat
import pooch
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from flowlab.commands import lab, main
from flowlab.course import base
from flowlab.lessons.base import order
from flowlab.publish import book, scripts, slides
from flowlab.publish.base import Words, plain
from flowlab.publish.tape import BYTES, Tape

LONG = "First it is said in one sentence of some length. " + "Then more is said about it, at length. " * 8


@pytest.fixture(autouse=True)
def no_recording(monkeypatch):
    """What is recorded of explorers has its own tests; here a book has empty tapes."""
    empty = Tape("Explorer", "<em>What to see.</em>", (9, 4), [], [[]], "what is seen", 0, b"")
    monkeypatch.setattr(book, "recorded", lambda kind, arguments, room: replace(empty, name=kind.__name__))


def deck(tmp_path, *cells):
    """The slides of a notebook of these cells, after a title and a first code cell."""
    opening = [new_markdown_cell("# 99 Title"), new_code_cell("import math")]
    nbformat.write(new_notebook(cells=[*opening, *cells]), tmp_path / "99_title.ipynb")
    columns = slides.Deck(tmp_path / "99_title.ipynb").columns
    assert columns[0][0].kind == "title" and plain(columns[0][0].heading) == "99 Title"
    return [slide for column in columns[1:] for slide in column]


def text(slide):
    return plain(" ".join(slide.blocks))


def tagged(source, *tags):
    return new_markdown_cell(source, metadata={"tags": list(tags)})


def test_headings_start_slides_and_sections_columns(tmp_path):
    nbformat.write(
        new_notebook(cells=[new_markdown_cell("# T\n\n## A\n\na\n\n### B\n\nb\n\n## C\n\nc\n\n## References\n\n- r")]),
        tmp_path / "99_t.ipynb",
    )
    columns = slides.Deck(tmp_path / "99_t.ipynb").columns
    assert [[slide.heading for slide in column] for column in columns] == [["T"], ["A", "B"], ["C"]]


def test_long_text_is_said_and_its_first_sentence_shown(tmp_path):
    [slide] = deck(tmp_path, new_markdown_cell(f"## A\n\n{LONG}"))
    assert text(slide).startswith("First it is said in one sentence of some length.")
    assert len(text(slide).split()) <= slides.WORDS and plain(slide.notes[0]) == LONG.strip()


def test_a_sentence_does_not_end_inside_a_formula(tmp_path):
    [slide] = deck(tmp_path, new_markdown_cell("## A\n\nWe set $a = 0.5. B$ for the scale of things here. " + LONG))
    assert text(slide).startswith("We set a = 0.5. B for the scale of things here.")


def test_a_question_ends_its_slide(tmp_path):
    cells = [new_markdown_cell("## A\n\nBefore. **Predict.** Which one? Or none?\n\nAfterwards.")]
    first, second = deck(tmp_path, *cells)
    assert text(first) == "Before. Predict. Which one? Or none?" and text(second) == "Afterwards."


def test_folded_answers_are_said_and_not_shown(tmp_path):
    folded = "<details><summary>Answers</summary>\n\nIt is 42.\n</details>"
    [slide] = deck(tmp_path, new_markdown_cell(f"## A\n\nWhat is it?\n\n{folded}\n\nGo on."))
    assert text(slide) == "What is it? Go on." and [plain(note) for note in slide.notes] == ["Answers", "It is 42."]


def test_the_question_on_top_of_a_folded_answer_is_said(tmp_path):
    closed = "<details><summary>Which is it?</summary>It is 42.</details>"
    [slide] = deck(tmp_path, new_markdown_cell(f"## A\n\nLook.\n\n{closed}\n\nGo on."))
    assert text(slide) == "Look. Go on." and "Which is it?" in plain(slide.notes[0]) and "42" in slide.notes[0]


def test_a_picture_has_a_slide_with_what_to_see(tmp_path):
    picture = new_output("execute_result", data={"image/png": "iVBORw0KGgo="}, metadata={"image/png": {"alt": "a <b>"}})
    cells = [
        new_markdown_cell("## A\n\nLook."),
        new_code_cell("draw()", outputs=[picture]),
        new_code_cell("print(1)", outputs=[new_output("stream", text="1\n")]),
        new_markdown_cell("*See: a line.* It is thin."),
    ]
    look, shown, printed = deck(tmp_path, *cells)
    assert shown.kind == "picture" and 'alt="a &lt;b&gt;"' in shown.blocks[0]
    assert plain(shown.blocks[1]) == "See: a line." and "draw" not in text(look) + text(shown)
    assert "print" in text(printed) and any("It is thin" in note for note in printed.notes)


def test_long_code_and_exercises_go_to_the_notes(tmp_path):
    long = new_code_cell("\n".join(f"x{k} = {k}" for k in range(30)), outputs=[new_output("stream", text="done\n")])
    stub = new_code_cell("def f(x): ...", metadata={"tags": ["exercise-99.1"]})
    [slide] = deck(tmp_path, new_markdown_cell("## A\n\nRun it."), long, stub)
    assert text(slide) == "Run it. done"
    assert "x29" in plain(slide.notes[0]) and "def f" in plain(slide.notes[1])


def test_tags_change_the_rules(tmp_path):
    cells = [new_markdown_cell("## A\n\na"), tagged("b", "skip"), tagged("c", "notes"), tagged("d", "fragment")]
    first, second = deck(tmp_path, *cells, tagged("e", "slide"))
    assert text(first) == "a d" and 'class="fragment"' in first.blocks[1] and "c" in first.notes[0]
    assert text(second) == "e"


def test_a_full_slide_goes_on_in_the_next(tmp_path):
    lines = [f"Line {k}." for k in range(25)]
    found = deck(tmp_path, new_markdown_cell("## A\n\n" + "\n\n".join(lines) + " So:\n\n$$x$$"))
    assert len(found) > 1 and all(slide.filled <= slides.ROOM + 2 for slide in found)
    assert " ".join(map(text, found)) == " ".join(lines) + " So: x"


@pytest.mark.parametrize("path", base.notebooks(), ids=lambda p: p.name[:2])
def test_every_notebook_makes_a_deck(path):
    found = [slide for column in slides.Deck(path).columns for slide in column]
    assert 10 <= len(found) <= 80
    cells = nbformat.read(path, as_version=4).cells
    stored = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
    assert sum("<img" in block for slide in found for block in slide.blocks) == stored, "each picture is shown once"
    assert any(slide.notes for slide in found)


@pytest.mark.parametrize("path", base.notebooks(), ids=lambda p: p.name[:2])
def test_headings_are_in_order(path):
    for file in filter(Path.exists, (path, path.parent / "solutions" / path.name)):
        cells = nbformat.read(file, as_version=4).cells
        source = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        levels = [int(level) for level in re.findall(r"<h([1-6]) id", Words().page(source))]
        assert levels[0] == 1 and levels.count(1) == 1, f"{file.name} has one title, and opens with it"
        assert all(b - a <= 1 for a, b in itertools.pairwise(levels)), f"{file.name} leaves out a level"


@pytest.mark.parametrize("path", base.notebooks(), ids=lambda p: p.name[:2])
def test_the_opening_links_the_notation(path):
    opening = nbformat.read(path, as_version=4).cells[0].source
    assert "(notation.md)" in opening, "add beside Previous and Next: Letters: [notation](notation.md)"


def test_the_book_shows_stubs_and_links_answers_and_leads_nowhere_in_vain(tmp_path):
    fetch_scripts.need(scripts.KATEX)
    assert main(["book", "nice", "realnvp_in_the_plane", "--out", str(tmp_path)]) == 0
    number = order.numbers()
    nice, realnvp, later = (
        f"{number[name]}_{name}.html" for name in ("nice", "realnvp_in_the_plane", "what_a_flow_cannot_do")
    )
    page = (tmp_path / nice).read_text()
    assert "def sinh_coupling" in plain(page)
    assert f'<a href="solutions/{nice}#exercise-{number["nice"]}-1">' in page
    assert later not in (tmp_path / realnvp).read_text()
    addresses = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    for file in tmp_path.rglob("*.html"):
        source = file.read_text()
        assert re.findall(r'<img(?![^>]* alt="[^"]+")[^>]*>', source) == []
        for link in re.findall(r'(?:href|src)="([^"]+)"', source):
            if re.match(r"(https?:|data:)", link):
                continue
            name, _, place = link.partition("#")
            target = (file.parent / name).resolve() if name else file
            assert target.relative_to(tmp_path.resolve()).as_posix() in addresses, f"{file.name}: {link}"
            assert not place or f'id="{place}"' in target.read_text(), f"{file.name}: {link}"


def test_every_page_is_light_enough_for_a_phone(tmp_path):
    """On the wire a page costs at most 3 MB and the book 40, its tapes included, which tape.py keeps below BYTES."""
    fetch_scripts.need(scripts.KATEX)
    paths = base.notebooks()
    first = book.write(paths, tmp_path)
    for page in [first, *(tmp_path / f"{path.stem}.html" for path in paths)]:
        files = re.findall(r'(?:href|src)="([^"#:]+[.](?:css|js|png))"', page.read_text())
        asked = {page, *(page.parent / file for file in files)}
        assert sum(file.stat().st_size for file in asked) <= 3e6 - BYTES, page.name
    everything = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert everything <= 40e6 - BYTES * len(paths)


def test_the_book_is_indexed_by_section(tmp_path):
    written = book.Book(base.notebooks(["nice"]), tmp_path)
    found = [entry for entry in written.search_index() if "rearrange" in entry["words"]]
    assert {entry["page"] for entry in found} == {f"{order.label('nice')}_nice.html"}
    assert all(entry["at"] and entry["heading"] and "<" not in entry["heading"] for entry in found)


def test_code_is_found_as_it_is_written():
    assert (
        plain('<span class="n">flow</span><span class="o">.</span><span class="n">log_prob</span>') == "flow.log_prob"
    )
    assert plain("<p>one</p><p>two</p>") == "one two"


def test_a_heading_is_text_also_in_the_navigation(tmp_path):
    fetch_scripts.need(scripts.KATEX, scripts.REVEAL)
    cells = [new_markdown_cell("# 99 If `<b>` < C\n\n## The tag `<script>`")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "99_t.ipynb")
    book.write([tmp_path / "99_t.ipynb"], tmp_path / "book")
    slides.write(tmp_path / "99_t.ipynb", tmp_path)
    for file in (tmp_path / "book" / "99_t.html", tmp_path / "book" / "index.html", tmp_path / "99_t.slides.html"):
        source = file.read_text()
        assert "<b>" not in source.partition("</title>")[0][-60:] and "99 If &lt;b&gt; &lt; C" in source
        assert "<script></" not in source and "<script></a>" not in source


def test_a_book_is_not_written_over_another_site(tmp_path, capsys):
    fetch_scripts.need(scripts.KATEX)
    (tmp_path / "index.html").write_text("my page")
    assert main(["book", "4", "--out", str(tmp_path)]) == 1
    assert "holds another site" in capsys.readouterr().err and (tmp_path / "index.html").read_text() == "my page"
    (tmp_path / "index.html").unlink()
    for _ in range(2):  # the book itself may be made anew
        assert main(["book", "4", "--out", str(tmp_path)]) == 0


def test_a_class_sees_one_notebook_alone(monkeypatch):
    started = []

    class Server(contextlib.nullcontext):
        def __init__(self, command, **settings):
            super().__init__(self)
            started.extend(command)

        def wait(self):
            return 0

    monkeypatch.setattr(lab.subprocess, "Popen", Server)
    assert main(["lab", "nice", "--slides", "--original"]) == 0
    assert f"--LabApp.default_url=/doc/tree/{order.label('nice')}_nice.ipynb" in started


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror on this machine, which serves a folder, and an empty cache."""
    handler = functools.partial(QuietHandler, directory=tmp_path / "mirror")
    (tmp_path / "mirror" / "katex@0.0.0").mkdir(parents=True)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        files = pooch.create(tmp_path / "cache", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setattr(scripts, "store", lambda: files)
        yield tmp_path / "mirror", files
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_scripts_come_from_the_mirror_once_and_are_what_they_were(mirror):
    folder, files = mirror
    (folder / "katex@0.0.0" / "a.js").write_bytes(b"the script")
    (folder / "katex@0.0.0" / "LICENSE").write_bytes(b"do what you like")
    for name in ("a.js", "LICENSE"):
        files.registry[f"katex@0.0.0/{name}"] = pooch.file_hash(str(folder / "katex@0.0.0" / name))
    assert scripts.read("katex@0.0.0", "a.js") == "/*!\nkatex 0.0.0\n\ndo what you like*/\nthe script"
    (folder / "katex@0.0.0" / "a.js").unlink()
    path = scripts.fetch("katex@0.0.0", "a.js")
    assert path.read_bytes() == b"the script", "the second time nothing is asked for"
    path.write_bytes(b"something else")
    with pytest.raises(OSError, match=r"a\.js is needed, once, and could not be downloaded"):
        scripts.fetch("katex@0.0.0", "a.js")


def test_scripts_that_cannot_be_had_leave_no_trace_and_a_sentence(mirror):
    folder, files = mirror
    files.registry["katex@0.0.0/a.js"] = "0" * 64
    where = re.escape(str(files.abspath / "katex@0.0.0/a.js"))
    with pytest.raises(OSError, match=rf"404.* Try with a network.* bring the file to {where}.*npm pack katex@0\.0\.0"):
        scripts.fetch("katex@0.0.0", "a.js")
    (folder / "katex@0.0.0" / "a.js").write_bytes(b"another file")
    with pytest.raises(OSError, match=r"could not be downloaded from .*hash"):
        scripts.fetch("katex@0.0.0", "a.js")
    assert [p for p in files.abspath.rglob("*") if p.is_file()] == []


def test_every_file_that_is_published_has_a_hash():
    registry = scripts.store().registry
    style = {f"{scripts.KATEX}/dist/{name}" for name in ("katex.min.js", "katex.min.css")}
    assert style | {f"{package}/LICENSE" for package in (scripts.KATEX, scripts.REVEAL)} <= registry.keys()
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in registry.values())
    fetch_scripts.need(scripts.KATEX, scripts.REVEAL)
    fonts = re.findall(r"fonts/[\w-]+\.woff2", scripts.read(scripts.KATEX, "dist/katex.min.css"))
    assert fonts and {f"{scripts.KATEX}/dist/{font}" for font in fonts} <= registry.keys()


def test_nbconvert_missing_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["slides", "4", "--out", str(tmp_path)]) == 1
    assert 'pip install -e ".[publish]"' in capsys.readouterr().err
