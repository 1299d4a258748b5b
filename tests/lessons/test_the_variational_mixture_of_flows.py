"""The pictures of the_variational_mixture_of_flows show what the mixtures say; wrong answers meet their hints."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Generator

from flowlab import pretrained
from flowlab.lessons.the_variational_mixture_of_flows import figures as draw
from flowlab.lessons.the_variational_mixture_of_flows import toys
from flowlab.lessons.the_variational_mixture_of_flows.explorer import YOURS, MixtureTraining, ThreePartitions
from flowlab.metrics import accuracy, bound_gap
from flowlab.models import flow_mixture
from flowlab.studies import CIRCLES, PINWHEEL

# Pictures and explorers


@pytest.fixture(scope="module")
def film():
    return draw.TrainingFilm()


def controls(run="the ELBO alone", snapshot=4, background="q(k | x)", temperature=1.0):
    return {"run": run, "snapshot": snapshot, "background": background, "temperature": temperature}


def test_a_sure_component_has_its_own_light_color_and_doubt_mixes():
    own = draw.tint(torch.eye(3), strength=1.0)
    np.testing.assert_allclose(own, draw.PALETTE[:3])
    np.testing.assert_allclose(draw.tint(torch.tensor([0.5, 0.5, 0.0]), strength=1.0), draw.PALETTE[:2].mean(0))
    assert (draw.tint(torch.eye(3)) >= own).all()


def test_posteriors_in_chunks_are_the_models_own():
    model = pretrained.load("pinwheel_mixture")
    x = PINWHEEL.truth.sample(5000, Generator().manual_seed(0)).reshape(50, 100, 2)
    log_q, log_r, log_p = draw.posteriors(model, x)
    with torch.no_grad():
        torch.testing.assert_close(log_q, model.log_posterior(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(log_r, model.log_responsibilities(x), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(log_p, model.log_prob(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_numbers_are_computed_from_the_mixture_at_that_step(film, temperature):
    numbers = film.update(**controls(snapshot=3, temperature=temperature))
    model = pretrained.load("pinwheel_mixture_elbo", step=int(numbers["training step"]))
    x, y = film.held_out, film.labels
    with torch.no_grad():
        nats = (PINWHEEL.truth.log_prob(x) - model.log_prob(x)).mean()
        gap = bound_gap(model, x, temperature).mean()
        shares = model.posterior(x, temperature).mean(0)
        right = accuracy(y, model.posterior(x).argmax(-1))
    assert numbers["nats to the truth"] == pytest.approx(float(nats), abs=1e-3)
    assert numbers["mean gap log p − ELBO, nats"] == pytest.approx(float(gap), rel=1e-2, abs=1e-3)
    assert numbers["accuracy after matching"] == pytest.approx(right, abs=2e-3)
    np.testing.assert_allclose([bar.get_height() for bar in film.share[:5]], shares, atol=1e-3)


def test_the_shipped_runs_show_what_they_are_shipped_for(film):
    """One run finds the wings; the other is nearly as good a density and does not."""
    first, *_, last = film.runs["q first (recommended)"]
    failed = film.runs["the ELBO alone"][-1]
    assert first.right > 0.95 and first.nats > 1, "the clusters are there before the density is"
    assert last.right > 0.99 and last.nats < 0.12
    assert failed.right < 0.9 and failed.nats < 0.2


def test_the_map_of_the_gap_is_white_where_q_is_exact(film):
    film.update(**controls(background="gap log p − ELBO"))
    shown = np.asarray(film.image.get_array())
    frame = film.runs["the ELBO alone"][-1]
    gap = (frame.log_q.exp() * (frame.log_q - frame.log_r)).sum(-1).numpy()
    assert shown[gap < 0.01].min() > 0.95
    assert shown[gap > draw.WORST_GAP].max() < 0.5


def test_one_run_has_as_many_bars_as_components(film):
    small = flow_mixture(2, 3, generator=Generator().manual_seed(0)).eval()
    film.add("three", 0, small)
    film.add("three", 5, small)
    numbers = film.update(**controls(run="three", snapshot=1))
    assert numbers["components that claim over 1 %"].endswith("of 3")
    assert sum(bar.get_height() > 0 for bar in film.share) == 3
    film.add("three", 0, small)
    assert len(film.runs["three"]) == 1, "step 0 starts anew"


def test_the_three_fits_are_level_and_part_the_circles_three_ways():
    explorer = ThreePartitions()
    nats, claimed = {}, explorer.picture.claimed
    for fit, name in draw.FITS.items():
        explorer.set(fit=fit, labels=8)
        nats[fit] = explorer.numbers["held-out log p(x), nats"]
        assert nats[fit] == pytest.approx(pretrained.cards()[name]["metrics"]["log_likelihood"], abs=1e-3)
        assert 0 < explorer.numbers["nats to the truth"] < 0.06
        right = explorer.numbers["labels that this partition gets right"]
        assert (right == "8 of 8") == (fit == "the rings")
    assert max(nats.values()) - min(nats.values()) < 0.01
    fits = list(claimed)
    for i, one in enumerate(fits):
        assert accuracy(explorer.picture.labels, claimed[one]) > 0.99 or one != "the rings"
        for other in fits[i + 1 :]:
            assert accuracy(claimed[one], claimed[other]) < 0.6


@pytest.mark.slow
def test_a_mixture_trained_here_joins_the_list_and_can_be_stopped():
    explorer = MixtureTraining(epochs=2)
    explorer.recipe.value, explorer.count.value = "elbo", 3
    explorer.heat.value = explorer.heat.options[1]
    explorer.start_button.click()
    assert explorer.errors == []
    assert explorer.controls["run"].value == YOURS
    assert [frame.step for frame in explorer.picture.runs[YOURS]][-1] == 10
    assert explorer.numbers["components that claim over 1 %"].endswith("of 3")
    assert not explorer.start_button.disabled and explorer.stop_button.disabled
    explorer.set(run="the ELBO alone", snapshot=0)
    assert explorer.errors == [] and explorer.controls["snapshot"].max == 4


def test_figures_are_drawn_with_a_panel_for_each_model():
    model = pretrained.load("two_circles_mixture_rings")
    x, y = CIRCLES.truth.labelled(200, Generator().manual_seed(0))
    assert len(draw.regions({"q": model, "again": model}, x, y, extent=1.2, size=20).axes) == 2
    (axes,) = draw.networks({"q": model.network}, x, extent=1.2, size=20).axes
    assert [line.get_marker() for line in axes.lines][1:] == ["o", "^"], "each region has a marker besides its color"
    assert len(draw.beside(model, x, extent=1.2, size=20).axes) == 4  # three maps and a color bar
    assert "plate" in draw.diagram().get_label()


# Exercises


def each(flows, n, g):
    return torch.stack([flow(n, g) for flow in flows])


def picked(flows, k, n, g):
    return each(flows, n, g)[k, torch.arange(n)], k


def sides(inside, a, b, empty=-math.inf):
    e = torch.full_like(a, empty)
    return torch.stack((torch.where(inside, a, e), torch.where(inside, e, b)), -1)


def table(q, y):
    found = torch.zeros(q.shape[-1], q.shape[-1])
    return found.index_put_((y, q.argmax(-1)), torch.ones(len(y)), accumulate=True)


def dead(q):
    return [k for k in range(q.shape[-1]) if (q.argmax(-1) == k).float().mean() < 0.01]


def right(q, y):
    return accuracy(y, q.argmax(-1))


def greedy(q, y):
    counts, total = table(q, y), 0
    for _ in range(len(counts)):
        row, column = divmod(int(counts.argmax()), counts.shape[1])
        total += max(float(counts[row, column]), 0)
        counts[row], counts[:, column] = -1, -1
    return total / len(y)


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda f, w, n, g: ((w[:, None, None] * each(f, n, g)).sum(0), torch.zeros(n).long()), "does not average"),
    (1, lambda f, w, n, g: picked(f, torch.ones(n).long(), n, g), "from one component. Draw k anew"),
    (1, lambda f, w, n, g: picked(f, torch.randint(3, (n,), generator=g), n, g), "gave a third"),
    (
        1,
        lambda f, w, n, g: (picked(f, torch.multinomial(w, n, True, generator=g), n, g)[0], torch.zeros(n).long()),
        "does not say where",
    ),
    (
        1,
        lambda f, w, n, g: picked(f, torch.arange(3).repeat_interleave((w * n).round().long()), n, g),
        "come in blocks",
    ),
    (1, lambda f, w, n, g: picked(f, torch.multinomial(w.sqrt(), n, True, generator=g), n, g), "not the weights"),
    (
        1,
        lambda f, w, n, g: (lambda k: (torch.stack([flow(1, g)[0] for flow in f])[k], k))(
            torch.multinomial(w, n, True, generator=g)
        ),
        "a draw of its own",
    ),
    (1, lambda f, w, n, g: picked(f, torch.multinomial(w, n, True, generator=g), n, g)[0], "Return two things"),
    (3, lambda p, i, w: torch.stack((p, p), -1), "it cuts nothing"),
    (3, lambda p, i, w: sides(i, p, p), "probability of its side only"),
    (3, lambda p, i, w: sides(i, p + math.log(w), p + math.log(1 - w)), "You multiplied by the weight"),
    (3, lambda p, i, w: sides(i, p - math.log(w), p - math.log(w)), "divided it by weight"),
    (3, lambda p, i, w: sides(i, p - math.log(1 - w), p - math.log(w)), "by the other's probability"),
    (3, lambda p, i, w: sides(~i, p - math.log(1 - w), p - math.log(w)), "Swapped"),
    (3, lambda p, i, w: sides(i, p - math.log(w), p - math.log(1 - w)).exp(), "Asked are their logarithms"),
    (3, lambda p, i, w: sides(i, p - math.log(w), p - math.log(1 - w), 0.0), "log 0 is not 0"),
    (3, lambda p, i, w: sides(i, 2 * p, p), "what is p(x | 1) there"),
    (4, lambda q, y: (dead(q), float(q.max(-1).values.mean())), "how sure q is"),
    (4, lambda q, y: (dead(q), float((q.argmax(-1) == y).float().mean())), "match them first"),
    (4, lambda q, y: (dead(q), float(table(q, y).max(0).values.sum() / len(y))), "This is purity"),
    (4, lambda q, y: (dead(q), float(table(q, y).max(1).values.sum() / len(y))), "its favorite component"),
    (4, lambda q, y: (dead(q), greedy(q, y)), "Greedy"),
    (4, lambda q, y: (dead(q), 1 - right(q, y)), "share of errors"),
    (4, lambda q, y: (dead(q), 0.5), "make the table"),
    (4, lambda q, y: ([k for k in range(4) if q[:, k].max() < 0.01], right(q, y)), "never says 0"),
    (4, lambda q, y: ([0], right(q, y)), "you called [0] dead"),
    (4, lambda q, y: right(q, y), "Return two things"),
    (2, lambda p: p.softmax(-1), "and 1 is wanted"),
    (2, lambda p: torch.full_like(p, 1 / p.shape[-1]), "does not decide"),
    (2, lambda p: p.log_softmax(-1), "and not their logs"),
    (2, lambda p: (p / 20).exp(), "has to sum to 1"),
    (2, lambda p: (-p / 20).softmax(-1), "Asked are all"),
]


def draw_one_by_one(flows, weights, n, generator):
    k = torch.multinomial(weights, n, replacement=True, generator=generator)
    return torch.cat([flows[j](1, generator) for j in k.tolist()]), k


def match_by_trying_all(q, y):
    counts, K = table(q, y), q.shape[-1]
    best = max(sum(float(counts[c, k]) for c, k in enumerate(order)) for order in itertools.permutations(range(K)))
    return dead(q), best / len(y)


def cut_in_place(p, inside, w):
    both = torch.full((len(p), 2), -math.inf)  # float32, as torch makes it
    both[inside, 0] = p[inside] - math.log(w)
    both[~inside, 1] = p[~inside] - math.log(1 - w)
    return both


RIGHT = [
    (1, draw_one_by_one),
    (
        3,
        lambda p, inside, w: torch.stack(
            [p + share.double().log() - math.log(part) for share, part in ((inside, w), (~inside, 1 - w))], -1
        ),
    ),
    (4, match_by_trying_all),
    (1, lambda f, w, n, g: draw_one_by_one(f, w.double(), n, g)),
    (3, lambda p, inside, w: sides(inside, p - math.log(w), p - math.log(1 - w), empty=-1e30)),
    (3, lambda p, inside, w: np.where(np.stack((inside, ~inside), -1), p[:, None] - np.log([w, 1 - w]), -np.inf)),
    (3, cut_in_place),
    (4, lambda q, y: (set(dead(q)), right(q, y))),
    (4, lambda q, y: (torch.tensor(dead(q)), round(right(q, y), 4))),
    (2, lambda p: 0.2 * torch.nn.functional.one_hot(p.argmax(-1), p.shape[-1]) + 0.8 / p.shape[-1]),
    (2, lambda p: (0.3 * p.softmax(-1) + 0.7 / p.shape[-1]).numpy()),
    (2, lambda p: torch.softmax(0.1 * p.argsort(-1).argsort(-1).double(), -1).tolist()),
]


def test_the_museums_flow_has_a_wrong_log_det_and_a_right_map():
    """Against autograd: what it adds too much is the scale of the dimension that passes unchanged."""
    museum = toys.MuseumFlow(1, Generator().manual_seed(0)).double()
    network = museum.networks[0]
    torch.nn.init.normal_(network.last.weight, generator=Generator().manual_seed(1))
    x = torch.randn(5, 2, generator=Generator().manual_seed(2), dtype=torch.float64)
    b = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def forward(x):
        s, t = network(b * x).chunk(2, -1)
        return b * x + (1 - b) * (x * s.tanh().exp() + t)

    J = torch.func.vmap(torch.func.jacrev(lambda point: forward(point[None])[0]))(x)
    honest = museum.base.log_prob(forward(x)) + J.det().abs().log()
    too_much = network(b * x).chunk(2, -1)[0].tanh()[:, 1]
    torch.testing.assert_close(museum.log_prob(x), honest + too_much)
    assert too_much.abs().min() > 1e-3
