"""Exercises as a student meets them: each known wrong answer has its own hint, and other right answers pass.

A module ``test_checks_NN`` lists, for the exercises of notebook NN, ``WRONG``: (number, what the student does, words
that stand in the hint for it alone); and ``RIGHT``: (number, a right answer written otherwise than the worked one).
"""

import importlib
from pathlib import Path

import pytest

from flowlab import lessons
from flowlab.lessons import exercises

FILES = sorted(Path(__file__).parent.glob("test_checks_[0-9][0-9].py"))
MODULES = [importlib.import_module(path.stem) for path in FILES]
WRONG = [entry for module in MODULES for entry in module.WRONG]
RIGHT = [entry for module in MODULES for entry in module.RIGHT]


@pytest.mark.parametrize(("number", "answer", "words"), WRONG, ids=[f"{n} {w}" for n, _, w in WRONG])
def test_a_wrong_answer_meets_its_own_hint_and_no_others(number, answer, words):
    kind, sentence = exercises()[number].verdict(answer)
    assert kind == "wrong" and words in sentence, sentence
    others = {w for n, _, w in WRONG if n == number and w not in words and words not in w}
    assert not [w for w in others if w in sentence], sentence


@pytest.mark.parametrize(("number", "answer"), RIGHT, ids=[number for number, _ in RIGHT])
def test_a_right_answer_written_otherwise_passes(number, answer):
    assert exercises()[number].verdict(answer)[0] == "right", exercises()[number].verdict(answer)


@pytest.mark.parametrize("number", list(exercises()))
def test_three_wrong_answers_are_known_with_three_different_hints(number):
    assert len({words for n, _, words in WRONG if n == number}) >= 3
    assert number in {n for n, _ in RIGHT}


def test_what_is_no_function_and_what_is_no_number_get_a_sentence(capsys):
    lessons.check("00.1", 3)
    assert 'give the function itself, without brackets: check("00.1", undo)' in capsys.readouterr().out
    with pytest.raises(TypeError, match=r'named by a string, as in check\("02.1", f\), but got 2\.1'):
        lessons.check(2.1, lambda: 0)
    with pytest.raises(ValueError, match=r"There is no exercise '02\.9'\. There are: 00\.1, "):
        lessons.hint("02.9")


# What TEACHING calls misconceptions worth an exercise, and its bug museum, with the exercises that meet each.
MISCONCEPTIONS = {
    "p(x) cannot exceed 1": ("01.2", "01.5", "05.3"),
    "the mode maps to the mode": ("01.3",),
    "m in a coupling must be invertible, or its Jacobian counted": ("04.1",),
    "a product of triangular Jacobians is triangular whatever the masks": ("04.2", "15.2"),
    "likelihoods have no units": ("01.2", "05.2"),
    "a zero ELBO gap means a good model": ("08.1",),
    "higher likelihood means better samples": ("06.3", "12.1", "14.5"),
    "clustering accuracy can be computed without labels": ("09.4", "16.4"),
    "more components are always better": ("07.5",),
    "the area left of 1 means the formula is nearly right": ("01.5", "02.4"),
    "museum: a log-det summed over unmasked dimensions": ("02.4", "04.4"),
    "museum: a supervised loss with the sign turned": ("10.1",),
    "museum: v/255 + u/256": ("11.5",),
    "museum: a forward and an inverse that both subtract": ("04.4", "05.1"),
    "museum: a norm for a squared norm": ("02.4",),
}


@pytest.mark.parametrize("belief", MISCONCEPTIONS)
def test_every_misconception_has_an_exercise(belief):
    """A number without a dot stands for a notebook that is still to be written."""
    written = {number[:2] for number in exercises()}
    numbers = MISCONCEPTIONS[belief]
    assert [n for n in numbers if n in exercises()] or not {n[:2] for n in numbers} & written, (
        f"Notebook {' or '.join(numbers)} is here now: name the exercise that meets this belief"
    )
