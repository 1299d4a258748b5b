"""What a check answers: the same words as a line and as a card, the input that shows it, hints that need no kernel."""

import html
import math
import re
import subprocess
import sys

import nbformat
import notebook_format
import pytest
import torch
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from flowlab.lessons import check, exercises
from flowlab.lessons.base.card import KINDS, Card
from flowlab.lessons.base.example import Calls


def words(card: Card) -> str:
    """What a reader of the card sees, without its table and its hints."""
    shown = re.sub(r"<(table|details).*</\1>", "", card.html, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", shown)).split())


@pytest.mark.parametrize("kind", KINDS)
def test_line_and_card_say_the_same_with_a_sign_and_a_word(kind):
    card = Card(kind, "Exercise 08.1", "x < y & z, and nothing else.")
    sign, word, _ = KINDS[kind]
    assert card.text == f"{sign} Exercise 08.1: x < y & z, and nothing else."
    assert words(card) == f"{sign} {word} Exercise 08.1: x < y & z, and nothing else."
    assert card.html.startswith('<div role="status"')


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("kind", KINDS)
def test_white_letters_can_be_read_on_each_color(kind):
    assert 1.05 / (luminance(KINDS[kind][2]) + 0.05) >= 4.5


def test_emphasis_and_code_are_set_and_products_are_left_alone():
    shown = Card("wrong", "Exercise 08.1", "That is *invertible*. Write `2 * x`, not a * b * c, and a*b*c is one.").html
    assert "<em>invertible</em>" in shown and "<code>2 * x</code>" in shown
    assert "a * b * c, and a*b*c is one." in shown


def test_each_hint_is_a_fold_within_the_one_before():
    shown = Card("wrong", "Exercise 08.1", "No.", hints=("look", "think", "write")).html
    assert re.findall(r"<summary[^>]*>(.*?)</summary>", shown) == ["Hint 1 of 3", "Hint 2 of 3", "Hint 3 of 3"]
    assert shown.index("look") < shown.index("Hint 2") < shown.index("think") < shown.index("Hint 3")
    assert shown.endswith("</details></details></details></div>")


def test_a_wrong_answer_comes_with_the_input_where_it_is_most_wrong():
    kind, sentence, example = exercises()["start_here.1"].judged(lambda z: (z - 3) // 2)
    assert kind == "wrong" and "your x for z = -4 is -4" in sentence
    assert list(example.values()) == ["−4 (row 0)", "−4", "−3.5"]
    assert list(example) == ["z", "yours [0]", "a right answer [0]"]


@pytest.mark.parametrize("name", list(exercises("start_here")))
def test_a_right_answer_and_a_stub_come_with_none(name):
    exercise = exercises()[name]
    assert exercise.judged(exercise.answer)[::2] == ("right", {})


def test_examples_are_of_numbers_that_a_right_answer_gives_otherwise():
    def right(x, scale):
        return x * scale

    def example(function, *args):
        calls = Calls(function)
        calls.function(*args)
        return calls.example(right)

    x = torch.arange(8.0)
    assert example(lambda x, scale: x * scale, x, 2.0) == {}
    wrong = example(lambda x, scale: x * scale + (x == 5), x, 2.0)
    assert wrong == {"x": "5 (row 5)", "scale": "2", "yours [5]": "11", "a right answer [5]": "10"}
    assert example(lambda x, scale: x.mul_(3) * scale, x.clone(), 2.0)["x"] == "7 (row 7)", "as it was when given"
    assert example(lambda x, scale: x[:3], x, 2.0) == {}, "of another shape"
    assert example(lambda x, scale: "a word", x, 2.0) == {}
    assert example(lambda x, scale: torch.full((8,), math.nan), x, 2.0)["yours [0]"] == "nan"


def test_what_would_give_the_answer_away_is_not_shown():
    calls = Calls(lambda: 3)
    calls.function()
    assert calls.example(lambda: 7) == {}


CELLS = """from flowlab.lessons import check
check("start_here.1", lambda z: 2 * z - 3)"""


@pytest.mark.slow
def test_in_a_notebook_it_is_a_card_and_is_stored_as_its_line(monkeypatch):
    monkeypatch.setenv("FLOWLAB_PROGRESS", "off")
    notebook = NotebookClient(new_notebook(cells=[new_code_cell(CELLS)]), timeout=60).execute()
    (output,) = notebook.cells[0].outputs
    assert output.data["text/html"].startswith('<div role="status"')
    line = output.data["text/plain"]
    assert line.startswith("✘ Exercise 00.1: You turned + 3 into − 3")
    (stored,) = notebook_format.normalize(notebook).cells[0].outputs
    assert stored == nbformat.v4.new_output("stream", name="stdout", text=line + "\n")


def test_where_there_is_no_notebook_the_line_is_printed(capsys):
    check("start_here.1", lambda z: 2 * z - 3)
    assert capsys.readouterr().out.startswith("✘ Exercise 00.1: You turned + 3 into − 3")


def test_to_show_a_card_loads_no_ipython():
    code = "import sys; from flowlab.lessons.base.card import Card; Card('open', 'a', 'b').show(); print(sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("○ a: b\n") and "'flowlab.lessons.base.card'" in said and "'IPython'" not in said
