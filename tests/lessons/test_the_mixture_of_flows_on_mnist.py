"""What the pictures of the_mixture_of_flows_on_mnist promise; each known wrong answer meets its own hint."""

import math
import statistics

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import entropy
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

from flowlab.datasets.augment import upright
from flowlab.lessons.the_mixture_of_flows_on_mnist import figures as draw
from flowlab.lessons.the_mixture_of_flows_on_mnist import toys
from flowlab.lessons.the_mixture_of_flows_on_mnist.explorer import LookInside, OneStyleTenDigits
from flowlab.studies import digit_mixtures

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


def by_parts(x, shared, flows, weights, h=None):
    h = shared(x)[0] if h is None else h
    z, own = zip(*(flow(h) for flow in flows), strict=True)
    base = torch.distributions.Normal(0.0, 1.0).log_prob(torch.stack(z, -1)).sum(-2)
    return base, torch.stack(own, -1), weights, shared(x)[1]


def back(z, shared, flows):
    return torch.stack([shared.inverse(flow.inverse(z)[0])[0] for flow in flows])


def latent(x, k, shared, flows):
    return flows[k].forward(shared.forward(x)[0])[0]


def own_latents(x, k, shared, flows):
    return torch.stack([back(latent(x, j, shared, flows), shared, flows)[j] for j in range(len(flows))])


def kept(L, A):
    return A[range(len(L)), L.argmin(1)]


def spectral(points, neighbors=10):
    method = SpectralClustering(5, affinity="nearest_neighbors", n_neighbors=neighbors, random_state=0)
    return method.fit_predict(points)


def nmi_by_package(table):
    rows = np.repeat(np.arange(table.size), np.asarray(table).astype(int).ravel())
    return normalized_mutual_info_score(rows // table.shape[1], rows % table.shape[1])


WRONG = [
    (1, lambda *a: sum(by_parts(*a)[:3]).logsumexp(-1), "density of h, not of x"),
    (1, lambda *a: sum(by_parts(*a)[:3]).logsumexp(-1) - by_parts(*a)[3], "it is added"),
    (
        1,
        lambda *a: sum(by_parts(*a)[:3]).logsumexp(-1) + len(a[2]) * by_parts(*a)[3],
        "x passes the shared layers once",
    ),
    (1, lambda *a: (by_parts(*a)[0] + a[3]).logsumexp(-1) + by_parts(*a)[3], "differs from component to component"),
    (1, lambda *a: sum(by_parts(*a)[:2]).logsumexp(-1) + by_parts(*a)[3], "integrates to K"),
    (1, lambda *a: sum(by_parts(*a)[:2]).logsumexp(-1) - math.log(len(a[2])) + by_parts(*a)[3], "not equally likely"),
    (1, lambda *a: sum(by_parts(*a)[:3]).amax(-1) + by_parts(*a)[3], "best component alone"),
    (1, lambda *a: sum(by_parts(*a)[:3]).sum(-1) + by_parts(*a)[3], "You summed logarithms"),
    (1, lambda *a: sum(by_parts(*a, h=a[0])[:3]).logsumexp(-1) + by_parts(*a)[3], "give them h"),
    (1, lambda *a: sum(by_parts(*a)[:3]), "one number for each component"),
    (1, lambda *a: a[0][:, 0], "plus the log_det of f"),
    (2, own_latents, "All images are x"),
    (2, lambda x, k, f, fs: back(f.forward(x)[0], f, fs), "h is not the latent yet"),
    (2, lambda x, k, f, fs: back(fs[k].forward(x)[0], f, fs), "before the flow of k"),
    (2, lambda x, k, f, fs: torch.stack([g.inverse(latent(x, k, f, fs))[0] for g in fs]), "is h, not an image"),
    (2, lambda x, k, f, fs: back(latent(x, 0, f, fs), f, fs), "you used component 0"),
    (2, lambda x, k, f, fs: 0 * back(x, f, fs), "then for each component back"),
    (3, lambda t: shared(t), "mutual information itself"),
    (3, lambda t: over(t, lambda y, k: y + k), "not by their mean"),
    (3, lambda t: over(t, max), "divide by one of the entropies"),
    (3, naive_nmi, "should count as 0"),
    (3, joint_over_mean, "What they share"),
    (3, lambda t: 0.5, "From the joint shares"),
    (4, lambda L, A: (A.max(1).mean(), A.max(1).std(ddof=1)), "chose with the labels"),
    (4, lambda L, A: (A[range(len(L)), L.argmax(1)].mean(), 0.1), "It was to be made small"),
    (4, lambda L, A: (A.mean(), A.std()), "thrown away"),
    (4, lambda L, A: (A.flat[L.argmin()], 0.0), "one run, the one with the lowest loss"),
    (4, lambda L, A: (L.min(1).mean(), L.min(1).std()), "mean of the losses"),
    (4, lambda L, A: (0.123, 0.1), "would you keep without labels"),
    (4, lambda L, A: (kept(L, A).mean(), kept(L, A).std()), "You divided by R."),
    (4, lambda L, A: (kept(L, A).mean(), kept(L, A).std(ddof=1) / len(L) ** 0.5), "standard error of the mean"),
    (4, lambda L, A: (kept(L, A).mean(), A.std()), "that of the kept accuracies"),
    (5, lambda v: KMeans(5, n_init=3, random_state=0).fit_predict(v / 256), "k-means on plain pixels"),
    (5, lambda v: np.zeros(len(v)), "Only 1 of the five"),
    (5, lambda v: np.arange(len(v)) % 5, "hardly better than chance"),
    (5, lambda v: np.arange(len(v)), "whole numbers from 0 to 4"),
    (5, lambda v: v, "Expected the clusters"),
]
RIGHT = [
    (1, lambda *a: torch.logsumexp(sum(by_parts(*a)[:3]) + by_parts(*a)[3][:, None], 1)),
    (1, lambda *a: (sum(by_parts(*a)[:3]).double().exp().sum(-1).log() + by_parts(*a)[3]).numpy()[:, None]),
    (1, lambda *a: (sum(by_parts(*a)[:2]).exp() @ a[3].exp()).log() + by_parts(*a)[3]),
    (2, lambda x, k, f, fs: back(latent(x[None], k, f, fs), f, fs)),
    (2, lambda x, k, f, fs: [f.inverse(g.inverse(latent(x, k, f, fs))[0])[0].tolist() for g in fs]),
    (3, lambda t: over(t, lambda y, k: (y + k) / 2)),
    (3, lambda t: mutual_info_score(None, None, contingency=t) / (entropy(t.sum(0)) / 2 + entropy(t.sum(1)) / 2)),
    (4, lambda L, A: [np.mean(kept(L, A)), torch.tensor(kept(L, A)).std()]),
    (4, lambda L, A: (lambda found: (found.mean(), np.sqrt(found.var() * len(L) / (len(L) - 1))))(kept(L, A))),
    (3, lambda t: nmi_by_package(t)),
    (4, lambda L, A: (torch.tensor(kept(L, A)).mean()[None], statistics.stdev(map(float, kept(L, A))))),
    (5, lambda v: spectral(upright(v / 256))),
    (5, lambda v: torch.tensor(spectral(digit_mixtures.features(v), 15))),
    (5, lambda v: spectral(digit_mixtures.features(v), 12)[:, None]),
]
