"""Slides and book in a real browser with the network cut: formulas, pictures, scripts, search, a phone's width."""

import re
from pathlib import Path

import fetch_scripts
import nbformat
import pytest
from engine import serious

from flowlab.commands import main
from flowlab.course import base
from flowlab.lessons.base import order
from flowlab.publish import scripts, tape
from flowlab.publish.base import Words

LESSONS = ["change_of_variables_1d", "realnvp_in_the_plane"]  # many formulas, an explorer, tables
DECK = "change_of_variables_2d"  # a first slide that is full


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A deck and a book, made by the commands."""
    fetch_scripts.need(scripts.KATEX, scripts.REVEAL)
    folder = tmp_path_factory.mktemp("site")
    assert main(["slides", DECK, "--out", str(folder / "slides")]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tape, "FRAMES", 100)  # enough for a book to move
        assert main(["book", *LESSONS, "--out", str(folder / "book")]) == 0
    return folder


def whole(page) -> None:
    """Every formula is set, and every picture is there and has its words."""
    page.wait_for_function("() => document.readyState === 'complete' && typeof katex === 'object'")
    wrong = page.locator(".math:not(:has(.katex))")
    assert wrong.count() == 0, f"not set: {wrong.first.text_content()}"
    fonts = page.evaluate("document.fonts.ready.then(fonts => [...fonts].map(font => font.status))")
    assert "error" not in fonts and ("loaded" in fonts or not page.locator(".katex").count()), fonts
    pictures = page.evaluate(
        """() => Promise.all([...document.images].map(async (image) => {
            image.loading = "eager";
            await image.decode();
            return [image.naturalWidth, image.alt.length];
        }))"""
    )
    assert all(width > 0 and words > 20 for width, words in pictures), pictures


def test_deck_is_whole_and_every_slide_fits(site, page):
    [file] = (site / "slides").iterdir()
    page.goto(file.as_uri())
    page.wait_for_function("() => Reveal.isReady()")
    whole(page)
    total = page.evaluate("Reveal.getTotalSlides()")
    assert total > 20
    for number in range(total):
        slide = page.evaluate(
            """() => {
                const slide = Reveal.getCurrentSlide(), box = slide.querySelector(".fit");
                const wide = [...box.querySelectorAll("*")].filter(e => e.scrollWidth > e.clientWidth + 2
                    && getComputedStyle(e).display === "block" && !e.closest(".katex"));
                return {
                    heading: slide.querySelector("h1, h2").textContent, zoom: Number(box.style.zoom),
                    high: box.getBoundingClientRect().bottom <= innerHeight + 1, wide: wide.map(e => e.outerHTML),
                };
            }"""
        )
        assert slide["zoom"] >= 0.7 and slide["high"] and slide["wide"] == [], (number, slide)
        page.keyboard.press("Space")
    assert page.evaluate("Reveal.isLastSlide()")


def test_deck_is_accessible(site, page):
    [file] = (site / "slides").iterdir()
    page.goto(file.as_uri())
    page.wait_for_function("() => Reveal.isReady()")
    for _ in range(3):
        assert serious(page, ".slides") == []
        page.keyboard.press("Space")


def test_book_is_whole_on_a_desk_and_on_a_phone(site, page):
    files = sorted((site / "book").rglob("*.html"))
    assert len(files) >= 1 + 2 * len(LESSONS)
    for file in files:
        page.goto(file.as_uri())
        whole(page)
        for width in (1280, 360, 320):
            page.set_viewport_size({"width": width, "height": 720})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{file.name} scrolls at {width}"


def test_the_first_page_opens_with_a_flow_that_plays_once(site, page):
    page.goto((site / "book" / "index.html").as_uri())
    flow = page.locator("figure[data-opening]")
    scrub = flow.get_by_role("slider").first.element_handle()
    page.wait_for_function("s => Number(s.value) > 1 && Number(s.value) < Number(s.max)", arg=scrub)
    page.wait_for_function("s => s.value === s.max", arg=scrub)
    page.wait_for_function("f => !f.querySelector('.play[aria-pressed=true]')", arg=flow.element_handle())
    page.wait_for_timeout(300)
    assert flow.locator(".play[aria-pressed=true]").count() == 0, "once"


def test_who_wants_less_motion_starts_the_flow(site, page):
    page.emulate_media(reduced_motion="reduce")
    page.goto((site / "book" / "index.html").as_uri())
    flow = page.locator("figure[data-opening][data-ready]")
    flow.wait_for()
    page.wait_for_timeout(300)
    assert flow.locator(".play[aria-pressed=true]").count() == 0
    assert flow.locator("canvas").get_attribute("data-frames") == "1"


def test_what_a_cell_shows_stands_behind_a_click_and_explorers_do_not(site, page):
    page.goto(next((site / "book").glob("*_change_of_variables_1d.html")).as_uri())
    assert page.locator("figure.explorer").first.is_visible()
    hidden = page.locator("details:not([open]) > summary:has-text('What this cell shows')")
    assert hidden.count() > 3 and page.locator("samp:visible").count() == 0
    hidden.first.click()
    assert page.locator("details[open] :is(samp, img)").first.is_visible()


def test_a_figure_is_enlarged_and_put_back(site, page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(next((site / "book").glob("*_change_of_variables_1d.html")).as_uri())
    figure = page.locator("figure.explorer[data-ready]").first
    page.locator("figure.explorer").first.scroll_into_view_if_needed()
    figure.wait_for()
    small = figure.locator("canvas").bounding_box()["width"]
    figure.locator(".stage").click()
    assert page.locator("dialog[open] figure").count() == 1
    assert figure.locator("canvas").bounding_box()["width"] > 2 * small
    slider = figure.get_by_role("slider").first
    before = figure.locator("canvas").get_attribute("data-frames")
    slider.press("ArrowRight")
    page.wait_for_function(
        "([c, n]) => c.dataset.frames !== n", arg=[figure.locator("canvas").element_handle(), before]
    )
    page.keyboard.press("Escape")
    assert page.locator("dialog figure").count() == 0 and page.locator("main figure.explorer").first.is_visible()
    figure.locator(".enlarge").press("Enter")
    figure.locator(".enlarge").press("Enter")
    assert page.locator("dialog figure").count() == 0


def test_book_finds_words_in_all_pages(site, page):
    page.goto((site / "book" / "index.html").as_uri())
    page.get_by_role("searchbox").fill("Séctor-free nonsense")
    page.locator("#count:has-text('Nothing found')").wait_for()
    page.get_by_role("searchbox").fill("affine coupling jacobian")
    first = page.locator("#found a").first
    first.wait_for()
    assert "RealNVP" in first.inner_text() and page.locator("#found li").count() >= 1
    page.keyboard.press("Enter")
    page.wait_for_url("**/*_realnvp_in_the_plane.html#*")
    heading = page.locator(f"[id='{page.url.partition('#')[2]}']")
    assert heading.is_visible() and heading.bounding_box()["y"] < 720
    page.get_by_role("searchbox").fill("jacobian")
    page.keyboard.press("Escape")
    assert page.locator("#found li").count() == 0


def test_book_is_accessible(site, page):
    chapter = f"{order.numbers()['realnvp_in_the_plane']}_realnvp_in_the_plane.html"
    for name, scheme in (("index.html", "light"), (chapter, "light"), (chapter, "dark")):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.goto((site / "book" / name).as_uri())
        whole(page)
        assert serious(page) == []
    page.get_by_role("searchbox").fill("flow")
    page.locator("#found li").first.wait_for()
    assert page.locator("#found li").count() > 1 and serious(page, "header") == []


def test_what_is_missing_is_noticed(site, page):
    """Planted: a formula that KaTeX does not know, a picture that says nothing."""
    source = next((site / "book").glob("*_change_of_variables_1d.html")).read_text()
    broken = site / "book" / "broken.html"
    broken.write_text(source.replace("<main id", r'<p class="math">\nosuchmacro</p><main id'))
    page.goto(broken.as_uri())
    with pytest.raises(AssertionError, match="nosuchmacro"):
        whole(page)
    broken.write_text(re.sub(r'alt="[^"]*"', "", source))
    page.goto(broken.as_uri())
    with pytest.raises(AssertionError):
        whole(page)
    assert any(line.startswith("image-alt") for line in serious(page, "figure"))
    broken.unlink()


def test_every_formula_of_the_course_can_be_set(page):
    fetch_scripts.need(scripts.KATEX)
    found = []

    class Collected(Words):
        def inline_math(self, body):
            return found.append(body) or ""

        def block_math(self, body):
            return found.append(body) or ""

    texts = [path.read_text() for path in order.NOTEBOOKS.glob("*.md")]
    for path in base.notebooks():
        for file in filter(Path.exists, (path, path.parent / "solutions" / path.name)):
            texts += [c.source for c in nbformat.read(file, as_version=4).cells if c.cell_type == "markdown"]
    for source in texts:
        Collected().page(source)
    page.set_content("<!doctype html><title>formulas</title>")
    page.evaluate(scripts.read(scripts.KATEX, "dist/katex.min.js"))
    wrong = page.evaluate(
        """(found) => found.map((formula) => {
            try { katex.renderToString(formula, { throwOnError: true, displayMode: true }); return ""; }
            catch (error) { return `${formula}: ${error.message}`; }
        }).filter(Boolean)""",
        found,
    )
    assert len(found) > 50 and wrong == []
