"""Exercises as a student meets them: each known wrong answer has its own hint, and other right answers pass.

For its exercises, the tests of a lesson, ``test_SLUG.py``, list ``WRONG``: (number of the exercise, what the student
does, words that stand in the hint for it alone); and ``RIGHT``: (number, a right answer written otherwise than the
worked one).
"""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from flowlab import lessons
from flowlab.lessons import exercises
from flowlab.lessons.base import order

MODULES = {slug: importlib.import_module(f"test_{slug}") for slug in lessons.slugs()}
WRONG = [(f"{slug}.{number}", *rest) for slug, module in MODULES.items() for number, *rest in module.WRONG]
RIGHT = [(f"{slug}.{number}", answer) for slug, module in MODULES.items() for number, answer in module.RIGHT]


@pytest.mark.parametrize(("name", "answer", "words"), WRONG, ids=[f"{n} {w}" for n, _, w in WRONG])
def test_a_wrong_answer_meets_its_own_hint_and_no_others(name, answer, words):
    kind, sentence = exercises()[name].verdict(answer)
    assert kind == "wrong" and words in sentence, sentence
    others = {w for n, _, w in WRONG if n == name and w not in words and words not in w}
    assert not [w for w in others if w in sentence], sentence


@pytest.mark.parametrize(("name", "answer"), RIGHT, ids=[name for name, _ in RIGHT])
def test_a_right_answer_written_otherwise_passes(name, answer):
    assert exercises()[name].verdict(answer)[0] == "right", exercises()[name].verdict(answer)


FORMS = {
    "in float32": lambda value: value.float() if value.is_floating_point() else value,
    "as an array of float32": lambda value: (value.float() if value.is_floating_point() else value).numpy(),
    "as lists and numbers": lambda value: value.tolist(),
    "one number as shape (1,)": lambda value: value.reshape(1) if value.ndim == 0 else value,
    "a vector as a column": lambda value: value[:, None] if value.ndim == 1 else value,
}
FIRST = lessons.slugs().index("the_variational_mixture_of_flows")


def formed(value, form):
    """What a student returned, each number and tensor in it in another form."""
    if isinstance(value, tuple | list):
        return type(value)(formed(part, form) for part in value)
    if isinstance(value, float | np.floating | np.ndarray | torch.Tensor):
        return form(torch.as_tensor(value).detach())
    return value


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("slug", lessons.slugs()[FIRST:])
def test_a_right_answer_passes_in_whatever_form_it_comes(slug, form):
    for name, exercise in exercises(slug).items():
        kind, sentence = exercise.verdict(lambda *given, f=exercise.answer: formed(f(*given), FORMS[form]))
        assert kind == "right", f"{name}: {sentence}"


@pytest.mark.parametrize("name", list(exercises()))
def test_three_wrong_answers_are_known_with_three_different_hints(name):
    assert len({words for n, _, words in WRONG if n == name}) >= 3
    assert name in {n for n, _ in RIGHT}


def test_what_is_no_function_and_what_is_no_number_get_a_sentence(capsys):
    lessons.check("start_here.1", 3)
    assert 'give the function itself, without brackets: check("start_here.1", undo)' in capsys.readouterr().out
    with pytest.raises(TypeError, match=r'an exercise as a string, as in check\("the_elbo.1", f\), but got 2\.1'):
        lessons.check(2.1, lambda: 0)
    with pytest.raises(ValueError, match=r"There is no exercise 'nice\.9'\. Those of nice are: nice\.1, nice\.2, "):
        lessons.hint("nice.9")
    with pytest.raises(ValueError, match=r"There is no exercise '77\.1'\. The lessons are: start_here, the_tools, "):
        lessons.score("77.1", lambda: 0)


@pytest.fixture
def numbered(tmp_path, monkeypatch):
    """Give lessons the numbers of these places, for one test."""

    def number(slugs):
        for n, slug in enumerate(slugs):
            (tmp_path / f"{n:02d}_{slug}.ipynb").touch()
        monkeypatch.setattr(order, "NOTEBOOKS", tmp_path)

    return number


def test_an_exercise_is_found_by_its_number_too_and_shown_by_it(numbered, capsys):
    numbered(order.FORMER)
    lessons.check("04.1", exercises("nice")["nice.1"].answer)
    lessons.hint("04.2")
    lessons.hint("nice.2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("✔ Exercise 04.1: ") and lines[1].startswith("Hint 1") and lines[2].startswith("Hint 2")


def test_a_number_that_has_moved_is_asked_about_and_a_name_goes_on(numbered, capsys):
    numbered([*order.FORMER[:4], "one_to_come", *order.FORMER[4:], "another_to_come"])
    with pytest.raises(ValueError, match=r'04\.1 is "one_to_come\.1" now, and was "nice\.1" in older notebooks'):
        lessons.check("04.1", lambda: 0)
    with pytest.raises(ValueError, match=r"There is no exercise 'another_to_come\.1'"):
        lessons.hint("18.1")
    for name in ("nice.1", "02.1"):
        lessons.check(name, exercises()[order.meant(name)].answer)
    out = capsys.readouterr().out
    assert "✔ Exercise 05.1: " in out and "✔ Exercise 02.1: " in out
    names = list(exercises())
    assert names[0] == "start_here.1" and names.index("what_a_flow_cannot_do.1") < names.index("the_elbo.1")


def test_without_notebooks_lessons_go_by_their_names_and_old_numbers_are_understood(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(order, "NOTEBOOKS", tmp_path / "nowhere")
    assert lessons.slugs() == sorted(lessons.slugs()) and len(exercises()) == len({name for name, _, _ in WRONG})
    lessons.check("08.1", exercises()["the_elbo.1"].answer)
    assert capsys.readouterr().out.startswith("✔ Exercise the_elbo.1: ")


def test_no_code_knows_the_number_of_a_lesson():
    """Only the file names of notebooks do; readers see it in what is printed and in the notebooks' text."""
    said = re.compile(r"(?<!UvA )\b[Nn]otebooks? \d\d\b|\b[Ee]xercises? \d\d|\"[01]\d\.[1-9]\"")
    files = [path for path in Path(lessons.__file__).parent.glob("*/*.py") if path.parent.name != "base"]
    assert len(files) > 60
    assert not [(path.parent.name, found.group()) for path in files for found in said.finditer(path.read_text())]


# Beliefs that people do hold, and bugs that people do write, with the exercises that meet each.
MISCONCEPTIONS = {
    "p(x) cannot exceed 1": ("change_of_variables_1d.2", "change_of_variables_1d.5", "realnvp_in_the_plane.3"),
    "the mode maps to the mode": ("change_of_variables_1d.3",),
    "m in a coupling must be invertible, or its Jacobian counted": ("nice.1",),
    "a product of triangular Jacobians is triangular whatever the masks": ("nice.2", "autoregressive_flows.2"),
    "likelihoods have no units": ("change_of_variables_1d.2", "realnvp_in_the_plane.2"),
    "a zero ELBO gap means a good model": ("the_elbo.1",),
    "higher likelihood means better samples": (
        "what_a_flow_cannot_do.3",
        "nice_on_mnist.1",
        "multi_scale_flows_on_mnist.4",
    ),
    "clustering accuracy can be computed without labels": (
        "the_variational_mixture_of_flows.4",
        "the_mixture_of_flows_on_mnist.4",
    ),
    "more components are always better": ("gaussian_mixtures_and_em.5",),
    "the area left of 1 means the formula is nearly right": ("change_of_variables_1d.5", "change_of_variables_2d.4"),
    "museum: a log-det summed over unmasked dimensions": ("change_of_variables_2d.4", "nice.4"),
    "museum: a supervised loss with the sign turned": ("a_few_labels.1",),
    "museum: v/255 + u/256": ("images_and_bits_per_dimension.5",),
    "museum: a forward and an inverse that both subtract": ("nice.4", "realnvp_in_the_plane.1"),
    "museum: a norm for a squared norm": ("change_of_variables_2d.4",),
}


@pytest.mark.parametrize("belief", MISCONCEPTIONS)
def test_every_misconception_has_an_exercise(belief):
    assert set(MISCONCEPTIONS[belief]) <= set(exercises())
