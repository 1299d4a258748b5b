"""The recipe of a bound: the density within it, its noise, and the way from its card back to the model."""

import json

import pytest
import torch
from torch import Generator

from flowlab import models
from flowlab.bijections import Logit, starting
from flowlab.densities import Dequantized, VariationalDequantized
from flowlab.training import load_checkpoint, save_checkpoint


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def test_dequantized_is_a_bound_around_the_density_of_a_recipe():
    density = {"name": "nice", "settings": {"features": 4, "hidden": (3,), "logit": 0.1}}
    model = models.dequantized(density, 16, generator=generator())
    assert type(model) is Dequantized and model.levels == 16 and isinstance(model.density.bijection[0], Logit)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), weights_of(density), strict=True))
    v = torch.randint(16, (5, 4), generator=generator(1))
    assert model.log_prob(v, generator=generator(2)).isfinite().all()


def weights_of(recipe: dict) -> list[torch.Tensor]:
    return list(models.build(recipe, generator=generator()).parameters())


def test_dequantized_with_noise_starts_as_uniform_noise():
    density = {"name": "nice", "settings": {"features": 4, "hidden": (3,)}}
    settings = {"features": 4, "layers": 2, "hidden": (3,), "standardize": False, "context_features": 4}
    noise = {"name": "realnvp", "settings": {**settings, "prior": "logistic"}}
    model = models.dequantized(density, noise=noise, generator=generator())
    assert type(model) is VariationalDequantized and model.q.bijection[0].conditioner.context_features == 4
    with torch.no_grad():
        u, log_q = model.noise(torch.randint(256, (20_000, 4), generator=generator(1)), generator(2))
    assert abs(float(log_q.mean())) < 1e-4 and abs(float(u.mean()) - 0.5) < 0.01
    assert float(u.var()) == pytest.approx(1 / 12, rel=0.02)


def test_a_bound_is_built_again_from_its_card(tmp_path):
    density = {"name": "glow", "settings": {"shape": (1, 4, 4), "levels": 1, "steps": 1, "hidden": 2}}
    settings = {"features": 16, "layers": 1, "hidden": (3,), "standardize": False, "context_features": 16}
    model = models.dequantized(density, noise={"name": "realnvp", "settings": settings})
    v = torch.randint(256, (6, 16), generator=generator())
    with starting(model):
        model.log_prob(v)
    save_checkpoint(tmp_path / "bound.safetensors", model)
    recipe = json.loads(json.dumps(model.recipe))
    again = models.build(recipe)
    assert load_checkpoint(tmp_path / "bound.safetensors", again)["recipe"] == recipe
    a, b = (one.eval().log_prob(v, generator=generator(1)) for one in (model, again))
    assert torch.equal(a, b)
