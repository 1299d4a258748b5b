"""What the pictures of the_mixture_of_flows_on_mnist promise; each known wrong answer meets its own hint."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from flowlab.lessons.the_mixture_of_flows_on_mnist import figures as draw
from flowlab.lessons.the_mixture_of_flows_on_mnist import toys
from flowlab.lessons.the_mixture_of_flows_on_mnist.exercises import _greedy
from flowlab.lessons.the_mixture_of_flows_on_mnist.explorer import LookInside, OneStyleTenDigits

# Pictures and explorers


@pytest.fixture(scope="module")
def one_style():
    return OneStyleTenDigits("mixture_mnist_five")


@pytest.fixture(scope="module")
def inside():
    return LookInside("mixture_mnist_five")


def test_q_looks_at_the_middle_of_a_bin():
    assert toys.middle(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0.5 / 256, 255.5 / 256]


def test_titles_name_the_digits_that_matter_and_the_commonest_first():
    assert draw.title_of(np.array([0.0, 0.3, 0.05, 0.65])) == "3 and 1"
    assert draw.title_of(np.array([0.1, 0.1, 0.1])) == "none"


def test_a_sheet_has_its_images_row_by_row_with_a_white_margin():
    images = torch.zeros(6, 784)
    images[4] = 1.0
    page = draw.sheet(images, 3)
    assert page.shape == (60, 90)
    assert page[31:59, 31:59].min() == 1 and page.sum() == 784
    assert page[30].sum() == 0 and page[:, 30].sum() == 0


def test_a_shipped_mixture_takes_each_of_its_digits_once():
    model, (v, labels) = toys.model_named("mixture_mnist_five"), toys.test_digits("mixture_mnist_five")
    assert labels.unique().tolist() == [0, 1, 2, 3, 4] and len(v) == 500
    shares = toys.taken(model, v, labels)
    assert np.allclose(shares.sum(0), 1)
    assert sorted(shares.argmax(0)) == [0, 1, 2, 3, 4] and shares.max(0).min() > 0.9
    in_pairs = toys.taken(model, v, labels // 2)
    assert np.allclose(in_pairs.sum(0), 1), "shares of what a component takes, and not of a digit"


def test_at_a_corner_its_own_component_gives_the_digit_back(one_style):
    picture = one_style.picture
    v, z = picture.anchors(3)
    for corner, (across, up) in enumerate(((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))):
        latent = picture.latent(3, across, up, 1.0)
        assert torch.allclose(latent, z[corner], atol=1e-5)
        k = int(toys.clusters(picture.model, v[corner : corner + 1]))
        assert (picture.model.density.decode(latent)[k] - toys.middle(v[corner])).abs().max() < 1e-3


def test_between_corners_the_squared_weights_sum_to_one_and_the_temperature_shrinks_them(one_style):
    picture = one_style.picture
    z = picture.anchors(0)[1]
    a = torch.linalg.lstsq(z.T, picture.latent(0, 0.3, 0.8, 1.0)[:, None]).solution[:, 0]
    assert torch.isclose(a.square().sum(), torch.tensor(1.0), atol=1e-4) and (a > 0).all()
    half = picture.latent(0, 0.3, 0.8, 0.5)
    assert torch.allclose(2 * half, picture.latent(0, 0.3, 0.8, 1.0), atol=1e-5)


def test_the_page_holds_what_each_component_makes_of_the_same_point(one_style):
    one_style.set(seed=1, across=0.4, up=0.6, temperature=0.7)
    picture = one_style.picture
    x = picture.model.density.decode(picture.latent(1, 0.4, 0.6, 0.7)).clamp(0, 1)
    assert np.allclose(picture.page.get_array(), draw.sheet(x, picture.columns), atol=1e-6)


def test_dragging_moves_the_point_and_stops_at_the_edge(one_style):
    one_style.on_pointer("down", one_style.picture.left, 0.25, 1.4)
    assert (one_style.controls["across"].value, one_style.controls["up"].value) == (0.25, 1.0)
    one_style.on_pointer("down", one_style.picture.right, 0.9, 0.9)
    assert one_style.controls["up"].value == 1.0 and not one_style.errors


def test_inside_a_component_are_its_own_images_the_least_sure_first_when_asked(inside):
    picture = inside.picture
    inside.set(component=2, unsure=True)
    mine = picture.cluster == 2
    first = picture.v[mine][picture.sure[mine].argmin()].reshape(28, 28) / 255
    assert np.allclose(picture.pages[0].get_array()[1:29, 1:29], first)
    assert inside.numbers["takes"] == f"{int(mine.sum())} of 500"
    inside.set(temperature=0.0)
    page = picture.pages[1].get_array()
    assert np.allclose(page[:30, :30], page[30:60, 30:60], atol=1e-5), "at temperature 0 all images are one"


def test_it_takes_any_model_and_starts_with_the_component_that_takes_most():
    model, (v, labels) = toys.model_named("mixture_mnist_five"), toys.test_digits("mixture_mnist_five")
    ones = int(toys.clusters(model, v[labels == 1]).mode().values)
    mostly = torch.cat((v[labels == 1], v[:20]))
    own = LookInside(model=model, images=mostly, labels=torch.cat((labels[labels == 1], labels[:20])))
    assert own.controls["component"].value == ones and own.numbers["mostly"] == "1"


def test_the_table_says_in_words_where_each_digit_goes():
    figure = draw.table(np.array([[1, 9], [2, 6]]), "a table")
    assert "0 to 1 (90%), 1 to 1 (75%)" in figure.get_label()
    assert {text.get_text() for text in figure.axes[0].texts} == {"9", "1", "2", "6"}


# Exercises


def matched(counts, sign=-1):
    return counts[linear_sum_assignment(sign * counts)].sum()


def shared(counts):
    p = counts / counts.sum()
    return entropy(p.sum(1)) + entropy(p.sum(0)) - entropy(p.ravel())


def over(counts, weigh):
    p = counts / counts.sum()
    return shared(counts) / weigh(entropy(p.sum(1)), entropy(p.sum(0)))


def naive_nmi(counts):  # 0 log 0 is NaN
    p = counts / counts.sum()
    y, k, both = (-(q * np.log(q)).sum() for q in (p.sum(1), p.sum(0), p))
    return (y + k - both) / ((y + k) / 2)


def joint_over_mean(counts):
    p = counts / counts.sum()
    return 2 * entropy(p.ravel()) / (entropy(p.sum(0)) + entropy(p.sum(1)))


WRONG = [
    (1, lambda t: matched(t), "number of images"),
    (1, lambda t: np.trace(t) / t.sum(), "does not know that it should be"),
    (1, lambda t: t.max(0).sum() / t.sum(), "may both stand for one digit"),
    (1, lambda t: t.max(1).sum() / t.sum(), "swallowing two costs nothing"),
    (1, lambda t: matched(t, 1) / t.sum(), "as small as it can"),
    (1, lambda t: _greedy(t) / t.sum(), "gave away the largest entry first"),
    (1, lambda t: 0.5, "add up the matched entries"),
    (2, lambda a, b, s: (1 - s) * a + s * b, "The straight line"),
    (2, lambda a, b, s: np.sqrt(s) * a + np.sqrt(1 - s) * b, "wrong direction"),
    (2, lambda a, b, s: (1 - s**2) * a + s * b, "sum of the squared weights"),
    (2, lambda a, b, s: 0 * a, "should be that latent itself"),
    (2, lambda a, b, s: (lambda z: z / (z**2).sum() ** 0.5)((1 - s) * a + s * b), "a length of your own"),
    (3, lambda t: shared(t), "mutual information itself"),
    (3, lambda t: over(t, lambda y, k: y + k), "not by their mean"),
    (3, lambda t: over(t, max), "divide by one of the entropies"),
    (3, naive_nmi, "should count as 0"),
    (3, joint_over_mean, "What they share"),
    (3, lambda t: 0.5, "From the joint shares"),
    (4, lambda L, A: A.max(), "chose with the labels"),
    (4, lambda L, A: A[L.argmax()], "It was to be made small"),
    (4, lambda L, A: A.mean(), "thrown away"),
    (4, lambda L, A: L.argmin(), "the number of the start"),
    (4, lambda L, A: 0.123, "if you had no labels"),
]
RIGHT = [
    (1, lambda t: matched(t) / t.sum()),
    (2, lambda a, b, s: np.sqrt(1 - s) * a + np.sqrt(s) * b),
    (3, lambda t: over(t, lambda y, k: (y + k) / 2)),
    (4, lambda L, A: sorted(zip(L, A, strict=True))[0][1]),
    (1, lambda t: round(matched(t) / t.sum(), 4)),
    (1, lambda t: torch.tensor(matched(t)) / torch.tensor(t).sum()),
    (3, lambda t: mutual_info_score(None, None, contingency=t) / (entropy(t.sum(0)) / 2 + entropy(t.sum(1)) / 2)),
]
