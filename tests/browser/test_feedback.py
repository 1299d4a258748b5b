"""Cards and predictions on a page of JupyterLab: read in both themes, opened without a kernel, drawn in the picture."""

import os

import lab
import pytest
from engine import serious

CELLS = [
    "from flowlab.lessons import check, predict\n"
    "from flowlab.lessons.gaussian_mixtures_and_em.explorer import BayesRule",
    "check('start_here.1', lambda z: (z - 3) // 2)",
    "check('start_here.1', lambda z: (z - 3) / 2)",
    "share = predict('What is the posterior?')",
    "side = predict('Which way does the border move?', ('to the runners', 'to the rowers'))",
    "shown_BayesRule = BayesRule().remember(share)\nshown_BayesRule",
    "share.compare(0.09)\nside.compare('to the rowers')",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if lab.browser_path() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has no Chromium: install it, or name one in FLOWLAB_BROWSER.")
        pytest.skip("no Chromium or Chrome here (name one in FLOWLAB_BROWSER)")
    root = tmp_path_factory.mktemp("lab")
    lab.write_notebook(root / "feedback.ipynb", ["%env FLOWLAB_PROGRESS=off\n" + CELLS[0], *CELLS[1:]])
    with lab.jupyterlab(root) as address, lab.chromium() as page:
        lab.open_and_run(page, address, "feedback.ipynb")
        yield page


def cell(page, number: int):
    return page.locator(".jp-Cell").nth(number)


def run_cell(page, number: int) -> None:
    page.evaluate(
        """(number) => {
            window.flowlabPanel.content.activeCellIndex = number;
            window.jupyterapp.commands.execute("notebook:run-cell");
        }""",
        number,
    )


def test_a_card_wraps_at_words_and_shows_input_and_both_values(page):
    page.set_viewport_size({"width": 1024, "height": 768})
    card = cell(page, 1).locator("[role=status]")
    assert card.locator("b").first.inner_text() == "✘ Not yet"
    assert [row.inner_text() for row in card.locator("td").all()] == ["−4 (row 0)", "−4", "−3.5"]
    assert card.evaluate("c => [getComputedStyle(c).wordBreak, getComputedStyle(c).whiteSpace]") == ["normal", "normal"]
    assert card.evaluate("c => c.scrollWidth <= c.clientWidth")
    assert cell(page, 2).locator("[role=status] b").first.inner_text() == "✔ Right"
    page.set_viewport_size({"width": 1280, "height": 1000})


def test_a_number_is_typed_drawn_and_compared(page):
    explorer = page.locator(".flowlab-explorer.BayesRule")
    before, _ = lab.picture(explorer)
    assert cell(page, 6).locator("[role=status]").count() == 0, "an empty prediction says nothing"
    field = cell(page, 3).get_by_label("your prediction")
    field.fill("9 %")
    field.press("Enter")
    cell(page, 3).get_by_text("You predict 0.09.").wait_for()
    lab.wait_for_change(explorer, before)
    assert lab.strayed(page, explorer, "shown_BayesRule")[0] < 0.3
    cell(page, 4).get_by_label("to the runners").check()
    cell(page, 4).get_by_text("You predict to the runners.").wait_for()
    run_cell(page, 6)
    cards = cell(page, 6).locator("[role=status]")
    cards.nth(1).wait_for()
    said = " | ".join(" ".join(card.inner_text().split()) for card in cards.all())
    assert said == (
        "✔ Right Your prediction: you predicted 0.09, and it is 0.09. | "
        "→ Not so Your prediction: you chose to the runners, and it is to the rowers."
    )


@pytest.mark.parametrize("theme", ("Light", "Dark"))
def test_cards_and_predictions_are_open_to_all(page, theme):
    page.evaluate(
        "name => window.jupyterapp.commands.execute('apputils:change-theme', { theme: name })", f"JupyterLab {theme}"
    )
    page.wait_for_function("t => document.body.dataset.jpThemeLight === t", arg=str(theme == "Light").lower())
    places = [".jp-OutputArea-output [role=status]", ".widget-text", ".widget-radio"]
    assert serious(page, *places) == []


def test_hints_open_without_a_kernel(page):
    page.evaluate("async () => { await window.flowlabPanel.sessionContext.shutdown(); }")
    card = cell(page, 1).locator("[role=status]")
    hint = card.get_by_text("What was done last?")
    assert not hint.is_visible()
    card.locator("summary").first.click()
    hint.wait_for(state="visible")
    assert card.locator("summary").nth(1).is_visible()
