"""The flows that come with the package are what their cards say, and what their command makes."""

import itertools
import json

import pytest
import torch

from flowlab import Flow, evaluation, models, pretrained
from flowlab.densities import Dequantized
from flowlab.densities.mixtures import FlowMixture
from flowlab.models import Size
from flowlab.pretrained import make, pack
from flowlab.studies import MNIST, Images, ImageStudy, Splits, fit_and_evaluate, splits
from flowlab.training import CheckpointError, read_checkpoint, save_checkpoint, train

NAMES = list(make.VARIANTS)
CARDS = pretrained.cards()
OF_DIGITS = [name for name, card in CARDS.items() if card["data"]["name"] == "mnist"]
MEGABYTES = 16  # that the folder may have


def test_the_variants_and_the_files_are_the_same():
    assert sorted(CARDS) == sorted(NAMES + OF_DIGITS) and {"nice_mnist", "maf_mnist", "glow_mnist"} <= set(OF_DIGITS)


def test_all_of_it_is_small():
    assert sum(file.stat().st_size for file in pretrained.FOLDER.glob("*.safetensors")) <= MEGABYTES * 1e6


@pytest.mark.parametrize("name", NAMES)
def test_evaluates_to_its_card(name):
    card = pretrained.cards()[name]
    assert {"model", "recipe", "data", "training", "steps", "protocol", "metrics", "hardware", "versions"} <= set(card)
    flow, exact = pretrained.load(name), pretrained.density(name)
    x = make.held_out(exact)
    assert isinstance(flow, Flow | FlowMixture) and type(flow).__name__ == card["model"] and not flow.training
    with torch.no_grad():
        log_p, log_q = exact.log_prob(x).mean().item(), flow.log_prob(x).mean().item()
    metrics = card["metrics"]
    assert log_q == pytest.approx(metrics["log_likelihood"], abs=2e-3)
    assert log_p == pytest.approx(metrics["exact"], abs=2e-3)
    assert metrics["gap"] == pytest.approx(metrics["exact"] - metrics["log_likelihood"], abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_how_it_was_made(name):
    card, seed = pretrained.cards()[name], make.SEEDS.get(name, 0)
    trial = make.SHIPPED.trial(name, seed)
    made = json.loads(json.dumps(trial.model.recipe))
    assert made["name"] == card["recipe"]["name"]
    assert made["settings"].items() >= card["recipe"]["settings"].items(), "later arguments are the recipe's own"
    told = json.loads(json.dumps(trial.card))
    how = told["training"].pop("how")
    assert {**card["training"], "how": None} == {**told["training"], "how": None} and how
    assert card["data"] == told["data"] and card["training"]["seed"] == seed
    assert (pretrained.FOLDER / f"{name}.safetensors").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", ["ring_affine_4", "blobs_spline_2"])
def test_its_command_makes_it(name):
    """The first steps of the training again, against what the file kept of them."""
    trial = make.SHIPPED.trial(name)
    flow, loop = trial.model, train(trial.model, trial.data, **trial.settings)
    (last,) = itertools.islice(loop, 9, 10)
    kept = pretrained.load(name, step=10)
    for (key, now), then in zip(flow.state_dict().items(), kept.state_dict().values(), strict=True):
        torch.testing.assert_close(now, then, rtol=1e-3, atol=1e-4, msg=f"{key} at step {last.step}")


def test_the_pinwheel_comes_within_two_tenths_of_a_nat_and_affine_couplings_do_not():
    gaps = {name: pretrained.cards()[name]["metrics"]["gap"] for name in ("pinwheel_spline", "pinwheel_affine")}
    assert gaps["pinwheel_spline"] < 0.1 < 0.2 < gaps["pinwheel_affine"] < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_training_brought_it_closer(name):
    flows, exact = pretrained.trajectory(name), pretrained.density(name)
    assert list(flows) == pretrained.cards()[name]["steps"] and next(iter(flows)) == 0
    x = exact.sample(2000, torch.Generator().manual_seed(3))
    with torch.no_grad():
        first, *_, last = (float(flow.log_prob(x).mean()) for flow in flows.values())
    assert last > first


def test_replay_keeps_each_step_apart():
    trial = make.SHIPPED.trial("ring_affine_1")
    flow, loop = trial.model, train(trial.model, trial.data, **trial.settings)
    history = list(itertools.islice(loop, 31))[-1]
    loop.close()
    flows = pretrained.replay(flow, history)
    assert list(flows) == [0, 10, 30, 31] and flows[31] is flow
    x = make.held_out(trial.truth)[:200]
    with torch.no_grad():
        assert len({round(float(past.log_prob(x).mean()), 4) for past in flows.values()}) == 4


def test_unknown_names_and_steps_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"no pretrained model 'ring'.*ring_affine_1"):
        pretrained.load("ring")
    with pytest.raises(ValueError, match=r"expected one of \[0, 10, .*\], but got 11"):
        pretrained.load("ring_affine_1", step=11)


def test_the_command_refuses_unknown_names(capsys):
    assert make.main([]) == 2 and make.main(["ring"]) == 2
    assert "ring_affine_1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_DIGITS)
def test_a_model_of_digits_evaluates_to_its_card(name):
    """On the test images inside the package; what the card says of the 10,000 is not computed again."""
    card, model = CARDS[name], pretrained.load(name)
    assert isinstance(model, Dequantized) and not model.training
    test = splits("bundled", tuple(card["plan"]["digits"])).test
    found, said = evaluation.evaluate(model, *test)["metrics"], card["bundled"]["metrics"]
    assert found["bits_per_dim"] == pytest.approx(said["bits_per_dim"], abs=1e-3)
    assert found["nats_unit"] == pytest.approx(said["nats_unit"], abs=0.6)  # nats: a thousandth of a bit, 784 times
    assert ("accuracy" in found) == ("accuracy" in said) == hasattr(model.density, "posterior")
    if "accuracy" in said:
        assert found["accuracy"] == pytest.approx(said["accuracy"], abs=2e-3)
    assert abs(card["metrics"]["bits_per_dim"] - said["bits_per_dim"]) < 4 * said["standard_error"]
    for protocol, count in ((card["protocol"], "10,000"), (card["bundled"]["protocol"], "1,000")):
        assert f"over {count}" in protocol if len(card["plan"]["digits"]) == 10 else "mean over" in protocol


@pytest.mark.parametrize("name", OF_DIGITS)
def test_a_card_of_digits_says_which_command_made_it(name):
    card, plan = CARDS[name], CARDS[name]["plan"]
    needed = {"commit", "data", "training", "protocol", "metrics", "rounding", "minutes", "hardware", "versions"}
    assert needed <= set(card) and plan["size"] in MNIST[plan["name"]].sizes
    assert pretrained.load(name, card["steps"][-1]).recipe["name"] == card["recipe"]["name"] == "dequantized"
    with pytest.raises(ValueError, match="images of digits, and nobody knows their density"):
        pretrained.density(name)


@pytest.mark.parametrize("name", pretrained.left_out())
def test_a_model_that_is_left_out_has_a_card_and_a_command(name):
    card = pretrained.left_out()[name]
    needed = {"commit", "data", "training", "protocol", "metrics", "minutes", "hardware", "versions", "chosen"}
    assert needed <= set(card) and name not in CARDS and "10,000 test images" in card["protocol"]
    plan = card["plan"]
    assert card["command"] == f"flowlab train {plan['name']} --size {plan['size']} --out runs"
    trained, size = card["training"], MNIST[plan["name"]].sizes[plan["size"]]
    assert {key: trained[key] for key in size.training} == json.loads(json.dumps(size.training))
    assert card["recipe"]["settings"]["density"] == json.loads(json.dumps(size.model["settings"]["density"]))
    for ask in (pretrained.load, pretrained.find, pretrained.density):
        with pytest.raises(ValueError, match=f"no room for {name} .* 'flowlab train {plan['name']} --size"):
            ask(name)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A checkpoint of a tiny NICE, and few images in place of all."""
    few = Images(*(part[:200] for part in splits("bundled").test))
    monkeypatch.setattr(pack, "splits", lambda data, digits: Splits(few, few, few))
    monkeypatch.setattr(pack, "FOLDER", tmp_path)
    size = Size(
        {
            "name": "dequantized",
            "settings": {"density": {"name": "nice", "settings": {"features": 784, "hidden": [4]}}},
        },
        {"epochs": 1, "batch_size": 900, "learning_rate": 0.1, "validate_every": 2},
        "bundled",
    )
    path = tmp_path / "tiny.safetensors"
    study = ImageStudy(name="tiny_mnist", about="a test", sizes={"quick": size})
    fit_and_evaluate(study.trial(), path, progress=False)
    return path


def test_packing_rounds_evaluates_and_keeps_the_card(tiny, monkeypatch):
    seen = []
    evaluate = evaluation.evaluate

    def spy(model, *images, split):
        rounded = all(torch.equal(p, p.half().float()) for p in model.parameters())
        seen.append((split, rounded))
        return evaluate(model, *images, split=split)

    monkeypatch.setattr(evaluation, "evaluate", spy)
    packed = pack.pack(tiny, "packed_mnist")
    tensors, card = read_checkpoint(packed)
    assert {value.dtype for value in tensors.values() if value.is_floating_point()} == {torch.float16}
    assert packed.stat().st_size < 0.7 * tiny.stat().st_size
    model, found = pretrained.find(packed)
    assert found == card and card["plan"]["name"] == "tiny_mnist" and list(card["steps"]) == [card["best_step"]]
    assert next(model.parameters()).dtype == torch.float32 and not model.training
    test = pack.splits("bundled", ()).test
    again = evaluate(model, *test)["metrics"]
    assert again["bits_per_dim"] == card["metrics"]["bits_per_dim"] == card["bundled"]["metrics"]["bits_per_dim"]
    before = evaluate(pretrained.find(tiny)[0], *test)["metrics"]["bits_per_dim"]
    assert f"costs {again['bits_per_dim'] - before:.4f} bits" in card["rounding"]
    assert seen == [("test", False), ("test", True), ("bundled test", True)]


def test_packing_refuses_what_it_cannot_pack(tiny, tmp_path, capsys):
    assert pack.main([]) == 2 and "Name a checkpoint" in capsys.readouterr().err
    assert pack.main([str(tmp_path / "none.safetensors"), "x_mnist"]) == 1
    assert "There is no checkpoint at" in capsys.readouterr().err
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, models.nice(2))
    assert pack.main([str(other), "x_mnist"]) == 1
    assert "Expected a file that `flowlab train` wrote" in capsys.readouterr().err
    assert pack.main([str(tiny), "x_mnist"]) == 0 and capsys.readouterr().out.startswith("x_mnist.safetensors: ")
    assert pack.main(["--card", str(other), "y_mnist"]) == 1 and pack.main(["--card", str(tiny)]) == 2


def test_a_card_alone_is_kept_with_its_command(tiny):
    assert pack.main(["--card", str(tiny), "left_mnist"]) == 0
    card = json.loads((pack.FOLDER / "left_mnist.json").read_text(encoding="utf-8"))
    assert card["command"] == "flowlab train tiny_mnist --size quick --out runs"
    assert card["metrics"] == pretrained.find(tiny)[1]["metrics"]


def test_find_takes_a_name_or_a_file_and_says_what_else_it_got(tiny, tmp_path):
    assert pretrained.find("ring_affine_1")[1] == CARDS["ring_affine_1"]
    model, card = pretrained.find(str(tiny))
    assert isinstance(model, Dequantized) and card["metrics"]["bits_per_dim"] > 0
    with pytest.raises(ValueError, match=r"no pretrained model 'ring'.*ring_affine_1.*`flowlab train` makes a file"):
        pretrained.find("ring")
    _, card = read_checkpoint(tiny)
    foreign = tmp_path / "foreign.safetensors"
    for recipe in (None, {"name": "none_of_ours"}, {"name": "nice", "settings": {"features": 3}}):
        save_checkpoint(foreign, model, card | {"recipe": recipe})
        with pytest.raises(CheckpointError, match=r"cannot be built again by its card .*`flowlab train`"):
            pretrained.find(foreign)


def test_a_model_of_your_own_comes_back_from_its_file_with_its_columns(tmp_path, monkeypatch):
    x = {"year": torch.randn(50) * 3 + 2000, "pressure": torch.randn(50) + 1013}
    flow, file = models.flow_for(x), tmp_path / "own.safetensors"
    save_checkpoint(file, flow)
    monkeypatch.chdir(tmp_path)
    for name in (file, str(file), "own.safetensors"):
        again = pretrained.load(name)
        assert again.columns == ("year", "pressure") and not again.training
        assert torch.equal(again.log_prob(x), flow.log_prob(x))
    with pytest.raises(ValueError, match="no file of that name"):
        pretrained.load("others.safetensors")
    with pytest.raises(TypeError, match=r"save_checkpoint\(path, model\), but got a Flow"):
        save_checkpoint(flow, file)
