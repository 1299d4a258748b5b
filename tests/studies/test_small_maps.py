"""The study of small maps: it fits what it says, measures by exact constants, and its stored records are of it."""

import pytest
import torch

from flowlab import study
from flowlab.bijections import Inverse, Planar
from flowlab.datasets import Energy
from flowlab.studies import SMALL_MAPS, small_maps
from flowlab.study import Trial


class Exact:
    """Draws of the four densities themselves: KL is 0, and bound and estimate are log Z."""

    def draw(self, n, generator=None):
        x = torch.stack([p.sample(n, generator) for p in small_maps.ENERGIES])
        return x, torch.stack([p.log_prob(part) for p, part in zip(small_maps.ENERGIES, x, strict=True)])


def test_the_densities_themselves_are_no_nats_away():
    scores = small_maps.measure(Trial(Exact(), None))
    for p in small_maps.ENERGIES:
        name = f"U{p.number}"
        assert scores[f"{name} KL"] == pytest.approx(0, abs=1e-5)
        assert scores[f"{name} bound"] == pytest.approx(p.log_z, abs=1e-5)
        assert scores[f"{name} estimate"] == pytest.approx(p.log_z, abs=1e-5)
        assert scores[f"{name} effective"] == pytest.approx(1, abs=1e-4)


def test_each_flow_of_a_stack_has_an_energy_of_its_own():
    x = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0))
    for k, number in enumerate((1, 2, 3, 4)):
        torch.testing.assert_close(small_maps.log_target(x)[k], -Energy(number).energy(x[k]))


def test_the_variants_are_what_they_are_called():
    maps = [type(f.bijection) for f in SMALL_MAPS.trial("planar 8").model.bijection if isinstance(f, Inverse)]
    assert maps == [Planar] * 8
    steps = {name: SMALL_MAPS.trial(name, effort=0.1).settings["steps"] for name in SMALL_MAPS.variants}
    assert steps["planar 32"] == 300 and steps["spline 4"] == 150


def test_a_short_run_gives_a_table(capsys):
    records = list(study.run(SMALL_MAPS, [0], ["planar 2"], effort=0.005))
    text = study.table(records, SMALL_MAPS.columns)
    assert "planar 2" in text and "4 of 4" in text, "nothing is learned in so few steps, and the table says so"


def test_the_stored_records_are_of_the_same_seeds():
    records = small_maps.records()
    seeds = {name: sorted(r.seed for r in records if r.variant == name) for name in SMALL_MAPS.variants}
    assert set(map(tuple, seeds.values())) == {(0, 1, 2, 3, 4)}
    assert all(r.settings == {"effort": 0.1} and r.study == SMALL_MAPS.name for r in records)
    for record in records:
        for p in small_maps.ENERGIES:
            name = f"U{p.number}"
            assert record[f"{name} KL"] > -0.05, "a density is not nearer than 0"
            assert record[f"{name} KL"] + record[f"{name} bound"] == pytest.approx(p.log_z, abs=1e-4)
            assert record[f"{name} bound"] <= record[f"{name} estimate"] + 1e-6
