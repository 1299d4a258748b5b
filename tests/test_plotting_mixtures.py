"""The pictures of mixtures show what the mixtures say: colors, gauges, shares, and a run that is trained live."""

import numpy as np
import pytest
import torch
from torch import Generator

from flowlab import pretrained
from flowlab.experiments import CIRCLES, PINWHEEL
from flowlab.lessons.the_variational_mixture_of_flows import figures as draw
from flowlab.lessons.the_variational_mixture_of_flows.explorer import YOURS, MixtureTraining, ThreePartitions
from flowlab.metrics import accuracy, bound_gap
from flowlab.models import flow_mixture


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
