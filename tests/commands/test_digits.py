"""The commands about models of digits: `flowlab train`, `evaluate`, `sample`, `models` and `ablation`."""

import json
import os
import re
import signal

import pytest
import torch
from matplotlib.image import imread

from flowlab import models, pretrained, studies
from flowlab.commands import main, sample
from flowlab.datasets import mnist
from flowlab.models import Size
from flowlab.studies import ImageStudy
from flowlab.studies.digits import likelihood
from flowlab.training import History, distributed, save_checkpoint


def tiny(name="nice", start=likelihood, **settings):
    """A study that takes a second."""
    density = {"name": name, "settings": {"features": 784, "hidden": [4], **settings}}
    model = {"name": "dequantized", "settings": {"density": density}}
    brief = {"epochs": 1, "batch_size": 900, "learning_rate": 0.05, "validate_every": 3, "checkpoint_every": 2}
    sizes = {"quick": Size(model, brief, "bundled", "a second"), "full": Size(model, brief, "full", "a GPU")}
    return ImageStudy(name="tiny_mnist", about="a test", sizes=sizes, start=start)


@pytest.fixture
def of_digits(monkeypatch):
    monkeypatch.setitem(studies.MNIST, "tiny_mnist", tiny())


@pytest.fixture
def trained(of_digits, tmp_path, capsys):
    """A checkpoint that `flowlab train` wrote."""
    assert main(["train", "tiny_mnist", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    return tmp_path / "tiny_mnist_quick.safetensors"


def refused(capsys, *arguments):
    """What `flowlab ARGUMENTS` says when it refuses: one line, no traceback."""
    assert main([str(argument) for argument in arguments]) == 1
    *progress, error = capsys.readouterr().err.splitlines()
    assert error.startswith("flowlab: ") and all("step/s]" in line for line in progress if line)
    return error


def test_train_alone_lists_models_sizes_and_what_they_take(capsys):
    assert main(["train"]) == 0
    out = capsys.readouterr().out
    for name, study in studies.MNIST.items():
        assert f"\n{name}\n  {study.about}\n" in out
        assert all(re.search(rf"^  {size} .*{of.cost}$", out, re.M) for size, of in study.sizes.items())


def test_train_says_what_it_does_and_what_came_out(of_digits, tmp_path, capsys):
    assert main(["train", "tiny_mnist", "--out", str(tmp_path / "runs"), "--seed", "3"]) == 0
    out = capsys.readouterr().out
    path = tmp_path / "runs" / "tiny_mnist_quick_3.safetensors"
    announced, result = out.split("The run finished 5 steps")
    for words in (
        "tiny_mnist, size quick: a test",
        f"{sum(p.numel() for p in pretrained.find(path)[0].parameters()):,} parameters",
        "4,500 to learn from, 500 to choose with, 1,000 to test",
        "1 epoch of 5 steps, batches of 900, seed 3",
        "learning_rate 0.05",
        "takes     a second; here it is",
        "--size full: the full MNIST; a GPU",
        str(path),
    ):
        assert words in announced
    bits = pretrained.find(path)[1]["metrics"]["bits_per_dim"]
    assert f"{bits:.4f} ±" in result and "Protocol: a bound" in result and "never at test images" in result
    assert f"flowlab sample {path}" in result


def test_train_does_not_overwrite_and_resumes(trained, capsys):
    there = refused(capsys, "train", "tiny_mnist", "--out", trained.parent)
    assert f"{trained} is there already" in there and "--resume" in there and "--out" in there
    before = trained.read_bytes()
    assert main(["train", "tiny_mnist", "--out", str(trained.parent), "--resume"]) == 0
    out = capsys.readouterr().out
    assert f"Going on from {trained}" in out and "finished 5 steps" in out
    assert pretrained.find(trained)[1]["metrics"] and len(trained.read_bytes()) == pytest.approx(len(before), abs=200)
    changed = refused(capsys, "train", "tiny_mnist", "--out", trained.parent, "--resume", "--epochs", "2")
    assert "is from another run" in changed
    assert main(["train", "tiny_mnist", "--out", str(trained.parent / "new"), "--resume", "--batch-size", "4500"]) == 0
    out = capsys.readouterr().out
    assert "so this starts anew" in out and "1 epoch of 1 steps" in out


def test_ctrl_c_keeps_the_checkpoint_and_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    presses = [2]

    def start(size, splits, generator):
        model, images, settings = likelihood(size, splits, generator)
        plain = settings["objective"]

        def objective(model, v, step):
            if [step.index] == presses:
                presses.clear()
                os.kill(os.getpid(), signal.SIGINT)
            return plain(model, v, step)

        return model, images, settings | {"objective": objective}

    monkeypatch.setitem(studies.MNIST, "tiny_mnist", tiny(start=start))
    command = ["train", "tiny_mnist", "--out", str(tmp_path)]
    assert main(command) == 130
    out = capsys.readouterr().out
    assert "Stopped at step 3 of 5" in out and "--resume" in out and "bits per dimension" not in out
    assert refused(capsys, *command)
    assert main([*command, "--resume"]) == 0
    assert "The run finished 5 steps" in capsys.readouterr().out


def test_train_refuses_in_words(of_digits, tmp_path, capsys, monkeypatch):
    error = refused(capsys, "train", "nice")
    assert "but got 'nice'" in error and "nice_mnist, " in error
    assert "tiny_mnist expected a size among quick, full, but got 'huge'" in refused(
        capsys, "train", "tiny_mnist", "--size", "huge"
    )
    (tmp_path / "file").write_text("not a folder")
    blocked = refused(capsys, "train", "tiny_mnist", "--out", tmp_path / "file" / "folder")
    assert "could not be written" in blocked and "choose another place" in blocked
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "needs a GPU" in refused(capsys, "train", "tiny_mnist", "--device", "cuda")
    assert "lower the learning rate" in refused(
        capsys, "train", "tiny_mnist", "--out", tmp_path, "--learning-rate", "1e30"
    )
    monkeypatch.setenv("FLOWLAB_DATA", str(tmp_path))
    monkeypatch.setattr(mnist, "_cache_folder", lambda: tmp_path / "cache")
    assert "Set FLOWLAB_DATA" in refused(capsys, "train", "tiny_mnist", "--size", "full", "--out", tmp_path)
    assert not list(tmp_path.glob("*full*"))


def test_evaluate_a_model_that_ships(tmp_path, capsys):
    file = tmp_path / "nice.json"
    assert main(["evaluate", "nice_mnist", "--json", str(file)]) == 0
    out, said = capsys.readouterr().out, pretrained.cards()["nice_mnist"]["bundled"]["metrics"]
    bits, error = map(float, re.search(r"([\d.]+) ± ([\d.]+) bits per dimension", out).groups())
    assert bits == pytest.approx(said["bits_per_dim"], abs=1e-3) and error == pytest.approx(
        said["standard_error"], 0.01
    )
    assert f"{said['nats_unit']:.0f}"[:3] in out and "nats of the logits" in out and "bundled test images" in out
    digits = [float(word) for word in re.search(r"bits/dim  (.*)", out).group(1).split()]
    assert digits == pytest.approx(list(said["bits_per_dim_by_digit"].values()), abs=2e-3)
    written = json.loads(file.read_text())
    assert written["metrics"]["bits_per_dim"] == bits and "a bound" in written["protocol"]
    assert "out_of_distribution" not in written and str(file) in out


def test_evaluate_a_checkpoint_on_another_split_with_more_draws_and_strangers(trained, tmp_path, capsys):
    file = tmp_path / "tiny.json"
    command = ["evaluate", str(trained), "--split", "validation", "--draws", "2", "--seed", "5", "--ood"]
    assert main([*command, "--json", str(file)]) == 0
    out, written = capsys.readouterr().out, json.loads(file.read_text())
    assert "2 draws an image, seed 5" in out and "500 bundled validation images" in out
    assert "The weights are the best of" in out
    strangers = written["out_of_distribution"]
    assert strangers["test"]["accepted"] == pytest.approx(0.95, abs=0.01) and "all black" in strangers
    for name, of in strangers.items():
        assert re.search(rf"^{re.escape(name)} +{of['bits_per_dim']:.3f} +{100 * of['accepted']:.0f} %$", out, re.M)


def test_evaluate_shows_the_clusters_of_a_mixture(tmp_path, capsys):
    file = tmp_path / "mixture.safetensors"
    density = {"name": "flow_mixture", "settings": {"features": 784, "components": 3, "layers": 1, "hidden": [4]}}
    mixture = models.dequantized(density, generator=torch.Generator().manual_seed(0))
    save_checkpoint(file, mixture, {"plan": {"digits": [0, 1, 2]}})
    assert main(["evaluate", str(file)]) == 0
    out = capsys.readouterr().out
    right, nmi = map(float, re.search(r"([\d.]+) % right after matching, NMI ([\d.]+)", out).groups())
    assert 100 / 3 <= right <= 100 and 0 <= nmi <= 1 and "300 bundled test images" in out
    table = torch.tensor([json.loads(row) for row in re.findall(r"digit \d by component: (.*)", out)])
    assert table.shape == (3, 3) and table.sum(1).tolist() == [100, 100, 100]
    assert main(["sample", str(file), "--grid", str(tmp_path / "a.png"), "--n", "2", "--temperature", "0.5"]) == 0


def test_sample_writes_a_grid(trained, tmp_path, capsys):
    def grid(*more):
        file = tmp_path / "grid.png"
        assert main(["sample", str(trained), "--grid", str(file), *more]) == 0
        assert str(file) in capsys.readouterr().out
        return 1 - imread(file)[::3, ::3, 0]  # each pixel of a digit is three, and ink is dark

    page = grid("--n", "5")
    assert page.shape == (2 * 30, 3 * 30), "two lines of three, each digit framed by one pixel"
    model = pretrained.find(trained)[0]
    digits = model.sample(5, torch.Generator().manual_seed(0)).unflatten(-1, (28, 28)) / 255
    torch.testing.assert_close(torch.tensor(page[31:59, 31:59]), digits[4], atol=5e-3, rtol=0)
    assert (page[30:, 60:] == 0).all(), "there is no sixth"
    assert (grid("--n", "5", "--seed", "1") != page).any()
    assert grid().shape == (8 * 30, 8 * 30)
    cold = grid("--n", "5", "--temperature", "0.01")
    assert abs(cold[1:29, 1:29] - cold[31:59, 31:59]).max() < 0.2 < abs(page[1:29, 1:29] - page[31:59, 31:59]).max()


def test_sample_and_evaluate_refuse_in_words(trained, tmp_path, capsys, monkeypatch):
    picture = tmp_path / "a.png"
    for command in (["evaluate"], ["sample", "--grid", picture]):
        assert "There is no pretrained model 'none'" in refused(capsys, *command, "none")
        assert "is a Flow of points" in refused(capsys, *command, "ring_affine_1")
        text = tmp_path / "text.safetensors"
        text.write_text("not a checkpoint")
        assert "is not a safetensors file" in refused(capsys, *command, text)
        save_checkpoint(text, models.nice(2).bijection)
        assert "cannot be built again by its card" in refused(capsys, *command, text)
    assert not picture.exists()
    assert "--n of at least 1" in refused(capsys, "sample", trained, "--grid", picture, "--n", 0)
    assert "--temperature above 0" in refused(capsys, "sample", trained, "--grid", picture, "--temperature", 0)
    assert "and finite" in refused(capsys, "sample", trained, "--grid", picture, "--temperature", "inf")
    assert "FILE.png" in refused(capsys, "sample", trained, "--grid", tmp_path / "a.pdf")
    assert "name another place" in refused(capsys, "sample", trained, "--grid", tmp_path / "none" / "a.png")
    assert "name another place" in refused(capsys, "evaluate", trained, "--json", tmp_path / "none" / "a.json")
    assert "name another place" in refused(capsys, "evaluate", trained, "--json", tmp_path)
    assert "at least one draw" in refused(capsys, "evaluate", trained, "--draws", 0)
    monkeypatch.setitem(studies.MNIST, "tiny_mnist", tiny("made"))
    assert main(["train", "tiny_mnist", "--out", str(tmp_path / "made")]) == 0
    capsys.readouterr()
    made = tmp_path / "made" / "tiny_mnist_quick.safetensors"
    assert "Leave it at 1" in refused(capsys, "sample", made, "--grid", picture, "--temperature", 0.5)


def test_models_lists_what_ships(capsys):
    assert main(["models"]) == 0
    lines, cards = capsys.readouterr().out.splitlines(), pretrained.cards()
    for name, card in cards.items():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        kilobytes = (pretrained.FOLDER / f"{name}.safetensors").stat().st_size / 1000
        assert line.endswith(f"{kilobytes:,.0f} kB")
        digits = card["data"]["name"] == "mnist"
        number = f"{card['metrics']['bits_per_dim']:.3f} bits/dim" if digits else f"{card['metrics']['gap']:.3f} nats"
        assert number in line
    assert "a bound by dequantization" in "\n".join(lines)
    assert main(["models", "--json"]) == 0
    left_out = pretrained.left_out()
    printed = json.loads(capsys.readouterr().out)
    assert {name for name, card in printed.items() if card.pop("inside")} == set(cards)
    assert printed == cards | left_out and left_out
    for name, card in left_out.items():
        (line,) = [line for line in lines if line.startswith(f"{name}:")]
        assert f"{card['metrics']['nats_logit']:.1f} nats of the logits" in line and card["command"] in line
        assert f"There was no room for {name}" in refused(capsys, "sample", name, "--grid", "digits.png")


def test_of_several_processes_one_speaks(of_digits, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    monkeypatch.setattr(studies, "fit_and_evaluate", lambda trial, path: (History(5), {}))
    assert main(["train", "tiny_mnist", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().out == ""


def test_ablation_prints_what_the_package_holds_and_refuses_what_it_does_not_know(capsys):
    assert main(["ablation", "--known"]) == 0
    printed = capsys.readouterr().out
    assert "mixture_mnist" in printed and "without neighbors" in printed and "ELBO alone" in printed
    assert main(["ablation", "--variants", "without hope"]) == 1
    assert "mixture_mnist expected a variant among 'all', 'without neighbors'" in capsys.readouterr().err
    assert main(["ablation", "nice_mnist"]) == 1
    assert "Expected a mixture among mixture_mnist_five" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--batch-size", "--epochs", "--shards"])
def test_counts_of_zero_are_refused_before_anything_is_announced(option, capsys):
    with pytest.raises(SystemExit):
        main(["train", "nice_mnist", option, "0"])
    heard = capsys.readouterr()
    assert "expected a whole number of at least 1, but got '0'" in heard.err and not heard.out


def test_a_draw_that_fails_leaves_no_picture(tmp_path, capsys):
    fail = lambda *_: (_ for _ in ()).throw(ValueError("no draw today"))  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "draw", fail)
        assert main(["sample", "nice_mnist", "--grid", str(tmp_path / "b.png")]) == 1
    assert "no draw today" in capsys.readouterr().err and not (tmp_path / "b.png").exists()
