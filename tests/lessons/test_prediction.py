"""Predictions: what is understood, what is compared, what is drawn, and that nobody has to predict."""

import pytest

from flowlab import lessons
from flowlab.lessons import explorers
from flowlab.lessons.base import prediction
from flowlab.lessons.base.prediction import predict


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(prediction, "_kept", {})


@pytest.mark.parametrize(
    "typed, number",
    [
        ("0.5", 0.5),
        (" 1/2 ", 0.5),
        ("50 %", 0.5),
        ("0,5", 0.5),
        ("−3", -3.0),
        (".25", 0.25),
        ("2e-3", 0.002),
        ("7.", 7.0),
        ("4,612", 4612.0),
        ("1,234,567.5", 1234567.5),
        ("0,125", 0.125),
        ("12 000", 12000.0),
    ],
)
def test_numbers_are_read_as_people_write_them(typed, number):
    asked = predict("How much?")
    asked.field.value = typed
    assert asked.value == pytest.approx(number)
    assert "You predict" in asked.said.value


@pytest.mark.parametrize("typed", ("half", "1/0", "1e", "--1", "1 2 x", "%", "nan", "inf"))
def test_what_is_no_number_gets_a_sentence(typed):
    asked = predict("How much?")
    asked.field.value = typed
    assert asked.value is None and "Expected a number, such as 0.5" in asked.said.value
    asked.field.value = ""
    assert asked.said.value == ""


def test_an_empty_prediction_passes_and_prints_nothing(capsys):
    predict("How much?").compare(0.5)
    predict("Which?", ("left", "right")).compare("left")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "typed, truth, line",
    [
        ("0.5", 0.5, "✔ Your prediction: you predicted 0.5 nats, and it is 0.5 nats."),
        ("0.505", 0.5, "✔ Your prediction: you predicted 0.505 nats, and it is 0.5 nats, 0.005 nats too high."),
        ("-1", 0.5, "→ Your prediction: you predicted −1 nats, and it is 0.5 nats, 1.5 nats too low."),
        ("2", 0.0, "→ Your prediction: you predicted 2 nats, and it is 0 nats, 2 nats too high."),
    ],
)
def test_a_number_is_compared_with_its_distance(typed, truth, line, capsys):
    asked = predict("How much?", unit="nats")
    asked.field.value = typed
    asked.compare(truth)
    assert capsys.readouterr().out == line + "\n"


def test_a_choice_is_right_or_not(capsys):
    asked = predict("Which side?", ("left", "right"))
    assert asked.value is None
    asked.field.value = "left"
    asked.compare("left")
    asked.compare("right")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "✔ Your prediction: you chose left, and it is left.",
        "→ Your prediction: you chose left, and it is right.",
    ]
    with pytest.raises(ValueError, match=r"Expected what came as one of .* but got 'up'"):
        asked.compare("up")


def test_a_cell_that_runs_again_keeps_what_was_predicted():
    predict("How much?").field.value = "0.7"
    assert predict("How much?").value == 0.7 and predict("How many?").value is None
    predict("Which?", ("a", "b")).field.value = "b"
    assert predict("Which?", ("a", "b")).value == "b" and predict("Which?", ("c", "d")).value is None


def test_without_a_kernel_it_stands_as_the_question():
    assert predict("How much?")._repr_mimebundle_()["text/plain"] == "Predict: How much?"


def test_notebooks_import_it_beside_check():
    assert lessons.predict is predict
    with pytest.raises(AttributeError, match="no attribute 'prophesy'"):
        lessons.prophesy  # noqa: B018


@pytest.mark.parametrize("name, typed", [("BayesRule", "0.3"), ("BendTheGaussian", "0.3"), ("ScrubFlow", "0.3")])
def test_it_is_drawn_where_the_explorer_has_a_place(name, typed):
    asked = predict("How much?")
    explorer = explorers()[name]().remember(asked)
    line, words = explorer.picture._prediction
    before, empty = explorer.view.scene, explorer.picture.png()
    assert len(line.get_xdata()) == 0 and words.get_text() == ""
    asked.field.value = typed
    assert len(line.get_xdata()) == 2 and words.get_text() == "your prediction"
    assert explorer.view.scene != before and explorer.picture.png() != empty
    axes, x, _ = explorer.picture.place_of_prediction(0.3)
    assert axes.get_xlim()[0] <= min(x) and max(x) <= axes.get_xlim()[1]
    asked.field.value = ""
    assert explorer.picture.png() == empty
    explorer.close()
    asked.field.value = typed  # nothing is left that would listen
    assert explorer.errors == []


def test_an_explorer_without_a_place_says_so():
    with pytest.raises(NotImplementedError, match="AreaAndDependence has no place for a prediction"):
        explorers()["CouplingLayers"]().remember(predict("How much?"))
