"""The concept inventory: ten questions to answer before the course and once more after it.

``flowlab inventory`` prints them, ``flowlab inventory bcad...`` marks ten letters. In a notebook:
``print(questions())`` and ``print(mark("bcad..."))``. Each wrong choice is a belief that people do hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowlab.lessons.base import order, progress

LETTERS = "abcd"


@dataclass(frozen=True)
class Question:
    """One question with four choices.

    Attributes:
        text: what is asked.
        choices: four, of which one is right.
        right: its letter.
        why: why it is, and what is wrong with the most tempting other.
        lesson: the lesson to revisit, "nice".
    """

    text: str
    choices: tuple[str, str, str, str]
    right: str
    why: str
    lesson: str


QUESTIONS: Sequence[Question] = (
    Question(
        "A Gaussian fitted to the heights of people, in meters, has its peak at 1.70 m, and the density there is 4. "
        "What is true?",
        (
            "Something is wrong: no density exceeds 1.",
            "It is fine, and with heights in centimeters the same model has 4 at its peak.",
            "It is fine, and with heights in centimeters the same model has 0.04 at its peak.",
            "It is fine only if the area under the curve is 4 as well.",
        ),
        "c",
        "A density is probability for each unit of x, so it has a unit, and only areas are held to 1. A centimeter "
        "holds a hundredth of what a meter would hold. For the same reason likelihoods compare only in the same units.",
        "change_of_variables_1d",
    ),
    Question(
        "z is standard normal, so its density is highest at z = 0, and x = exp(z). Where is the density of x highest?",
        (
            "At x = 1, the image of z = 0.",
            "Left of 1.",
            "Right of 1, at the mean of x.",
            "Nowhere: it grows toward 0 without bound.",
        ),
        "b",
        "The factor 1/x lifts the density where the map stretches less, so the peak moves left, to exp(−1). What goes "
        "to 1 is the median: a mode is not carried along by a map.",
        "change_of_variables_1d",
    ),
    Question(
        "A function claims to be the density of the samples in front of you. It is positive and its area is 1. What "
        "do you know?",
        (
            "It is a density; whether of these samples is still open.",
            "It is the right one: a wrong Jacobian factor would have spoiled the area.",
            "It is right up to a constant factor.",
            "It is nearly right: what is off can only be small.",
        ),
        "a",
        "The density of quite other samples has area 1 too. An area that is not 1 convicts; an area of 1 acquits "
        "nobody: compare with a histogram, bar by bar.",
        "change_of_variables_1d",
    ),
    Question(
        "A coupling layer: z_a = x_a and z_b = x_b + m(x_a). What must hold of m?",
        (
            "It must be invertible, as every part of a flow.",
            "It need not be invertible, but it must be smooth, and the log of its slope enters the log-determinant.",
            "It must keep volume.",
            "Nothing: any function of x_a will do, and its slope does not enter the log-determinant.",
        ),
        "d",
        "The way back is x_b = z_b − m(z_a): m is called and never inverted. Its slope stands off the diagonal of a "
        "triangular Jacobian, where the determinant does not see it.",
        "nice",
    ),
    Question(
        "The Jacobian of one coupling layer is triangular. Four of them are stacked, and the half that passes "
        "alternates. In general, the Jacobian of the whole",
        (
            "is triangular, as a product of triangular matrices is.",
            "is full, so its determinant costs O(D³).",
            "is full, and its determinant is still the product of the layers' determinants.",
            "is full, and its determinant can only be estimated.",
        ),
        "c",
        "The layers are triangular one up and one down, and such a product is full: every output comes to depend on "
        "every input. Determinants multiply whatever the shape, so the log-dets just add up.",
        "nice",
    ),
    Question(
        "You know the exact density of your test data. On 10,000 test points your flow scores 8 nats a point *more* "
        "than the exact density. You conclude:",
        (
            "The flow is excellent.",
            "The flow overfits.",
            "Its densities are wrong: the log-determinant, say, is summed over too many dimensions.",
            "It is the luck of the draw: with more test points, or with others, the difference will go to zero.",
        ),
        "c",
        "On the average over draws of p no density beats p: KL(p‖q) ≥ 0. Overfitting makes *test* scores worse, and "
        "luck shrinks with the root of the number of points. Integrate the flow's density: you will find e⁸ or more, "
        "and not 1.",
        "realnvp_in_the_plane",
    ),
    Question(
        "On held-out data model A has a higher likelihood than model B. Then",
        (
            "A's samples look better, for they come from the better density.",
            "A covers the data better, and B's samples may still look better.",
            "B overfits.",
            "A has stored the training points.",
        ),
        "b",
        "The exact density with a tenth of garbage mixed in loses only −log 0.9 = 0.1 nats, and each tenth sample is "
        "garbage. Likelihood asks whether you cover the data, samples ask whether what you make looks like data.",
        "what_a_flow_cannot_do",
    ),
    Question(
        "You fit Gaussian mixtures with 1, 2, 3, ... components, and the likelihood of the training data goes on "
        "rising. How many components do you keep?",
        (
            "The largest number: more components describe the data better.",
            "The smallest number for which EM converges.",
            "The number at which training likelihood rises no more.",
            "The number at which the likelihood of held-out data is best.",
        ),
        "d",
        "With more components training likelihood can always rise, to infinity when one Gaussian shrinks onto a point. "
        "Held-out data, or a penalty such as BIC, say when it stops being knowledge.",
        "gaussian_mixtures_and_em",
    ),
    Question(
        "A latent-variable model is trained by its ELBO, and at the end the gap between ELBO and log-likelihood is 0. "
        "This means:",
        (
            "The model fits the data perfectly.",
            "q is the exact posterior of the model, and the model may be bad.",
            "The likelihood has reached its maximum, and no step can raise it further.",
            "The latent variable carries no information.",
        ),
        "b",
        "The gap is KL(q ‖ p(k|x)): it compares q with the model's *own* posterior. A model that describes the data "
        "badly has an exact posterior too.",
        "the_elbo",
    ),
    Question(
        "You cluster 1,000 images, and nobody has labeled a single one. What can you find out?",
        (
            "The held-out likelihood, but not whether the clusters are the classes that you have in mind.",
            "The clustering accuracy, by the best matching of clusters to classes.",
            "The right partition: it is the one with the highest likelihood.",
            "The right number of classes: it is the one with the highest ELBO.",
        ),
        "a",
        "Accuracy compares with labels, also when clusters are matched to classes first. And different partitions can "
        "have the same likelihood: two halves describe two rings as well as two rings do.",
        "a_few_labels",
    ),
)


def questions() -> str:
    """The ten questions with their choices, in Markdown."""
    blocks = ["# Concept inventory", "One choice is right in each; write down ten letters. No notes, no computer."]
    for number, question in enumerate(QUESTIONS, start=1):
        choices = [f"   - {letter}) {choice}" for letter, choice in zip(LETTERS, question.choices, strict=True)]
        blocks.append("\n".join([f"{number}. {question.text}", *choices]))
    return "\n\n".join(blocks)


def answers() -> str:
    """The right letters, why they are right, and the notebook to revisit for each."""
    return "\n\n".join(["# Concept inventory: answers", *(_answer(n) for n in range(1, len(QUESTIONS) + 1))])


def mark(letters: str) -> str:
    """What ten letters score, and for each miss the answer and the notebook to revisit. The score is kept as progress.

    Raises ValueError where these are not ten of the letters a to d.
    """
    given = "".join(letters.lower().split())
    if len(given) != len(QUESTIONS) or set(given) - set(LETTERS):
        raise ValueError(f'Expected {len(QUESTIONS)} letters from a to d, as in "bcadbcadbc", but got {letters!r}.')
    missed = [n for n, (letter, q) in enumerate(zip(given, QUESTIONS, strict=True), start=1) if letter != q.right]
    right = len(QUESTIONS) - len(missed)
    progress.inventory(right)
    return "\n\n".join([f"{right} of {len(QUESTIONS)} are right.", *(_answer(n) for n in missed)])


def _answer(number: int) -> str:
    question = QUESTIONS[number - 1]
    choice = question.choices[LETTERS.index(question.right)]
    revisit = f"Revisit notebook {order.label(question.lesson)}."
    return f"{number}. {question.right}) {choice}\n   {question.why}\n   {revisit}"
