"""Recipes by name: a model of any recipe, in whatever file, is saved, built again, evaluated, sampled and shipped."""

import json
import sys
from collections.abc import Sequence

import pytest
import torch
from torch import Generator, Tensor, nn

from flowlab import evaluation, models, pretrained
from flowlab.bijections import Chain, Inverse, ScaleShift, SinhArcsinh
from flowlab.commands import main
from flowlab.densities import Flow, GaussianMixture, StandardNormal
from flowlab.models import (
    glow,
    made,
    maf,
    nice,
    planar_flow,
    radial_flow,
    realnvp,
    realnvp_image,
    registry,
    spline_flow,
)
from flowlab.pretrained import pack
from flowlab.training import CheckpointError, load_checkpoint, save_checkpoint


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.fixture
def recipes(monkeypatch):
    """The registry as it is, to be restored after the test."""
    monkeypatch.setattr(registry, "RECIPES", known := dict(registry.RECIPES))
    return known


def define(**later):
    """A recipe of this file: shifted and scaled normals; ``later`` are arguments of ``recipe``."""

    @models.recipe(**later) if later else models.recipe
    def shifted(features: int, *, hidden: Sequence[int] = (3,), generator: Generator | None = None) -> Flow:
        flow = Flow(Chain([ScaleShift(features)]), StandardNormal(features))
        with torch.no_grad():
            flow.bijection[0].shift.fill_(-0.5)
        return flow

    return shifted


# --- any model, from its card ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flow",
    (
        nice(3, 2, hidden=(4,), prior="normal"),
        realnvp(3, layers=2, hidden=(4, 5), log_scale_bound=1.0),
        spline_flow(3, 1, hidden=(4,), bins=3, stack=2),
        maf(3, 2, components=2, hidden=(4,), normalization="batch"),
        planar_flow(3, 2, stack=2),
        radial_flow(3, 2, sampling=True, prior="logistic"),
        made(3, 2, hidden=(4,), stack=2),
        realnvp_image((3, 2, 4), 2, layers=1, hidden=2, blocks=1, log_scale_bound=1.0),
        glow((1, 2, 4), 1, steps=2, hidden=2, mixing="shuffle", logit=None, stack=2),
    ),
    ids=lambda flow: flow.recipe["name"],
)
def test_a_card_says_how_to_build_the_model_again(flow, tmp_path):
    for p in flow.parameters():
        p.data += 0.1
    save_checkpoint(tmp_path / "flow.safetensors", flow)
    recipe = json.loads(json.dumps(flow.recipe))
    again = models.build(recipe)
    card = load_checkpoint(tmp_path / "flow.safetensors", again)
    assert card["recipe"] == recipe and card["model"] == "Flow"
    assert again.recipe == flow.recipe == models.rebuild(recipe).recipe
    x = torch.rand(*((flow.base.stack,) if flow.base.stack else ()), 6, flow.base.features, generator=generator())
    assert torch.equal(flow.eval().log_prob(x), again.eval().log_prob(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", pretrained.cards())
def test_the_card_of_each_shipped_model_says_all_that_it_said(name):
    """With every setting written out, its own are as they were, and the model that it describes is the one built."""

    def same(said, found):
        assert found["name"] == said["name"]
        for key, value in registry.RECIPES[said["name"]].by_new_names(said["settings"]).items():
            if registry.is_recipe(value):
                same(value, found["settings"][key])
            else:
                assert json.loads(json.dumps(found["settings"][key])) == value

    said = pretrained.cards()[name]["recipe"]
    same(said, models.complete(said))
    assert pretrained.load(name).recipe == models.complete(said) == models.complete(models.complete(said))


def test_build_refuses_what_is_no_recipe_in_words():
    with pytest.raises(ValueError, match=r"recipe among .*nice, .*spline_flow.*, but got 'resnet'"):
        models.build({"name": "resnet", "settings": {}})
    with pytest.raises(ValueError, match="but got None"):
        models.build({})
    for hidden_function in ("build", "_order", "math"):  # what a module holds and no recipe is
        with pytest.raises(ValueError, match=f"but got '{hidden_function}'"):
            models.build({"name": hidden_function, "settings": {}})
    with pytest.raises(ValueError, match=r"'nice' cannot be built from .*depth.*unexpected keyword"):
        models.build({"name": "nice", "settings": {"features": 2, "depth": 3}})
    with pytest.raises(ValueError, match=r"missing a required argument: 'features'"):
        models.build({"name": "nice"})


def test_a_base_of_ones_own_makes_no_recipe():
    assert realnvp(2, base=GaussianMixture(torch.eye(2))).recipe is None
    assert "generator" not in realnvp(2, generator=generator()).recipe["settings"]


def test_a_recipe_within_a_recipe_is_written_with_all_its_settings():
    """Else a new default of the inner one would change what an old card means."""
    model = models.dequantized({"name": "nice", "settings": {"features": 4, "hidden": [3]}})
    assert model.recipe["settings"]["density"] == model.density.recipe
    assert model.recipe["settings"]["density"]["settings"]["prior"] == "logistic"


# --- a recipe in another file ---------------------------------------------------------------------------------------


def test_a_recipe_of_another_file_is_saved_found_evaluated_and_sampled(recipes, tmp_path, capsys):
    define()
    density = {"name": "shifted", "settings": {"features": 784}}
    model = models.dequantized(density)
    assert model.recipe["settings"]["density"]["module"] == __name__, "its card says where it is defined"
    file = tmp_path / "shifted.safetensors"
    save_checkpoint(file, model)
    again, card = pretrained.find(file)
    assert card["recipe"] == json.loads(json.dumps(model.recipe)) and again.recipe == model.recipe
    v = torch.randint(256, (4, 784), generator=generator(1))
    assert torch.equal(evaluation.log_prob(again, v), evaluation.log_prob(model, v))
    assert main(["evaluate", str(file)]) == 0 and "bits per dimension" in capsys.readouterr().out
    assert main(["sample", str(file), "--grid", str(tmp_path / "a.png"), "--n", "2"]) == 0


def test_a_recipe_of_another_file_is_shipped(recipes, tmp_path, monkeypatch):
    define()
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    monkeypatch.setattr(pack, "FOLDER", tmp_path)
    few = pack.splits("bundled", (0,))
    monkeypatch.setattr(pack, "splits", lambda data, digits: few)
    model = models.dequantized({"name": "shifted", "settings": {"features": 784}})
    whole = {"plan": {"digits": [0]}, "steps_taken": 3, "best_step": None, "data": {"name": "mnist"}}
    save_checkpoint(tmp_path / "run.safetensors", model, whole)
    pack.pack(tmp_path / "run.safetensors", "ours")
    assert pretrained.load("ours").recipe == model.recipe and pretrained.cards()["ours"]["metrics"]


def test_flowlab_imports_no_module_because_a_file_names_it(recipes, tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("raise SystemExit('imported')")
    (tmp_path / "flowlab_theirs.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    define()
    file = tmp_path / "shifted.safetensors"
    flow = models.build({"name": "shifted", "settings": {"features": 2}})
    del recipes["shifted"]  # as in a process that has not imported this file
    for module in ("theirs", "flowlab_theirs", "flowlab.theirs; import theirs", "os", 3, ["theirs"]):
        save_checkpoint(file, flow, {"recipe": {**flow.recipe, "module": module}})
        with pytest.raises(CheckpointError, match=r"'shifted' is defined in .* not imported.* import it yourself"):
            pretrained.find(file)
    assert not {"theirs", "flowlab_theirs"} & set(sys.modules)


def test_a_module_of_flowlabs_own_is_imported_when_a_card_names_it(recipes, monkeypatch):
    card = {"name": "nice", "settings": {"features": 2}, "module": "flowlab.models.nice"}
    del recipes["nice"]
    monkeypatch.delitem(sys.modules, "flowlab.models.nice")
    monkeypatch.setattr(
        models, "nice", models.nice
    )  # importing it anew binds the name to the module: set back at the end
    assert models.build(card).recipe["name"] == "nice"
    with pytest.raises(ValueError, match="but got 'none'"):
        models.build({"name": "none", "module": "flowlab.no.such.place"})


def test_one_name_is_one_recipe_and_a_cell_may_be_run_again(recipes):
    first, second = define(), define()
    assert first(2).recipe == second(2).recipe
    with pytest.raises(ValueError, match=r"a recipe 'nice' in flowlab.models.nice already. Give yours another name"):

        @models.recipe
        def nice(features: int) -> Flow:
            return realnvp(features)

    assert models.build({"name": "nice", "settings": {"features": 2}}).recipe["name"] == "nice"


# --- a recipe that gains an argument --------------------------------------------------------------------------------


def bent(monkeypatch, *, later: bool, **arguments):
    """A recipe in two versions; the later one has a bend, which the earlier one did not know."""
    monkeypatch.setitem(registry.RECIPES, "bent", None)
    del registry.RECIPES["bent"]
    if not later:

        @models.recipe
        def bent(features: int = 2, *, generator: Generator | None = None) -> Flow:
            return Flow(Chain([ScaleShift(features)]), StandardNormal(features))

        return bent

    @models.recipe(**arguments)
    def bent(features: int = 2, *, bend: float = 0.7, generator: Generator | None = None) -> Flow:
        curve = SinhArcsinh(features)
        with torch.no_grad():
            curve.skew.fill_(bend)
        curve.requires_grad_(False)
        flow = Flow(
            Chain([ScaleShift(features), Inverse(curve)] if bend else [ScaleShift(features)]), StandardNormal(features)
        )
        return flow

    return bent


def test_old_cards_load_when_a_recipe_gains_an_argument(monkeypatch, recipes, tmp_path):
    file, x = tmp_path / "old.safetensors", torch.randn(5, 2, generator=generator())
    old = bent(monkeypatch, later=False)()
    with torch.no_grad():
        old.bijection[0].log_scale.fill_(0.3)
    save_checkpoint(file, old)
    new = bent(monkeypatch, later=True, absent={"bend": 0.0})
    assert new().recipe["settings"]["bend"] == 0.7, "whoever builds one now gets what is better now"
    model, card = pretrained.find(file)
    assert "bend" not in card["recipe"]["settings"] and model.recipe["settings"]["bend"] == 0.0
    assert torch.equal(model.log_prob(x), old.log_prob(x))
    same = new(bend=0.0)
    load_checkpoint(file, same)
    assert torch.equal(same.log_prob(x), old.log_prob(x))


def test_old_cards_load_when_a_recipe_within_theirs_gains_an_argument(monkeypatch, recipes, tmp_path):
    file, v = tmp_path / "old.safetensors", torch.randint(256, (5, 2), generator=generator())
    bent(monkeypatch, later=False)
    old = models.dequantized({"name": "bent", "settings": {}})
    save_checkpoint(file, old)
    bent(monkeypatch, later=True, absent={"bend": 0.0})
    assert torch.equal(evaluation.log_prob(pretrained.find(file)[0], v), evaluation.log_prob(old, v))
    assert "bend" in models.dequantized({"name": "bent", "settings": {}}).recipe["settings"]["density"]["settings"]


class Powered(nn.Module):
    """A density whose setting is in no weight: p(x) ∝ N(x)^power, of one number."""

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power, self.mean = power, nn.Parameter(torch.zeros(()))

    def log_prob(self, x: Tensor) -> Tensor:
        return -0.5 * self.power * (x - self.mean).square().sum(-1)


def test_a_later_argument_with_another_value_is_another_model(recipes, tmp_path):
    """Same weights, other settings: the file does not name the argument, and its model had the absent value."""

    @models.recipe
    def powered() -> Powered:
        return Powered(1.0)

    file = tmp_path / "old.safetensors"
    save_checkpoint(file, powered())

    @models.recipe(absent={"power": 1.0})
    def powered(power: float = 2.0) -> Powered:
        return Powered(power)

    load_checkpoint(file, powered(1.0))
    assert pretrained.find(file)[0].power == 1.0
    with pytest.raises(CheckpointError, match="holds another model"):
        load_checkpoint(file, powered(2.0))


def test_absent_names_an_argument(recipes):
    with pytest.raises(
        ValueError, match="absent= and renamed= name width, but the recipe 'shifted' has no such argument"
    ):
        define(absent={"width": 3})


def test_cards_and_calls_by_an_arguments_old_name_are_understood(recipes):
    flow = glow((1, 4, 4), scales=1, steps=1, hidden=2)
    assert flow.recipe["settings"]["scales"] == 1 and "levels" not in flow.recipe["settings"]
    old = {"name": "glow", "settings": {"shape": [1, 4, 4], "levels": 1, "steps": 1, "hidden": 2}}
    for again in (models.build(old), models.rebuild(old), glow((1, 4, 4), levels=1, steps=1, hidden=2)):
        assert again.recipe == flow.recipe
    assert registry.same_model(old, flow.recipe)
    with pytest.raises(TypeError, match="glow: got multiple values for argument 'scales'"):
        glow((1, 4, 4), levels=1, scales=2)


# --- whole numbers --------------------------------------------------------------------------------------------------


def test_whole_numbers_are_known_by_annotations_of_both_kinds(recipes):
    """Written as text or not: this file has no `from __future__ import annotations`."""

    @models.recipe
    def sized(a: int, b: "int" = 2, c: Sequence[int] = (1,), d: "Sequence[int]" = (1,), e: int | None = None, f=None):
        return nn.Identity()

    one = torch.tensor(1)
    assert sized(one, one, one, [one], one, one).recipe["settings"] == {
        **{"a": 1, "b": 1, "c": (1,), "d": (1,), "e": 1},
        "f": one,
    }
    for wrong in ({"b": 1.0}, {"c": 1.0}, {"d": [0]}, {"e": 0}, {"a": -1}, {"c": "three"}):
        with pytest.raises(ValueError, match=r"sized expected . in whole numbers of at least"):
            sized(**{"a": 1, **wrong})
