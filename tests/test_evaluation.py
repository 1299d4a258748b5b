"""Bits per dimension with their protocol: exact where the answer is known, and honest about what is no digit."""

import math

import pytest
import torch
from torch import nn

from flowlab import Flow, evaluation
from flowlab.bijections import Chain, ScaleShift
from flowlab.datasets import mnist
from flowlab.densities import Bound, DensityModule, Dequantized, StandardUniform, VariationalDequantized
from flowlab.metrics import logit_log_det
from flowlab.models import realnvp

D = 784


def digits(count=200):
    images, labels = mnist.digits("test")
    return images[::5][:count].flatten(1), labels[::5][:count]


def uniform():
    return Dequantized(Flow(Chain([ScaleShift(D)]), StandardUniform(D)))


class Known(DensityModule):
    """A density whose numbers a test can compute by hand."""

    def log_prob(self, x, context=None, *, generator=None):
        return self.of(x)


class Bright(Known):
    """A density that rises by as many nats as there is ink, times ``slope``, and q that goes by the ink alone."""

    def __init__(self, slope=1.0):
        super().__init__(D)
        self.slope, self.seen = nn.Parameter(torch.tensor(slope)), []

    def of(self, x):
        return self.slope * x.sum(-1)

    def posterior(self, x):
        self.seen.append(x)
        ink = x.mean(-1, keepdim=True)
        return torch.cat((ink < 0.1, ink >= 0.1), -1).float()


class Stairs(Known):
    """A density of equal steps, one a bin, so that log P(v) = Σ v, up to a constant, whatever the noise is."""

    def __init__(self, levels=256, features=9):
        super().__init__(features)
        self.levels = levels

    def of(self, x):
        return (x * self.levels).floor().sum(-1)


def test_a_uniform_model_has_eight_bits():
    images, labels = digits()
    result = evaluation.evaluate(uniform(), images, labels)
    metrics = result["metrics"]
    assert metrics["bits_per_dim"] == 8 and metrics["standard_error"] == 0
    assert metrics["nats_unit"] == pytest.approx(0, abs=1e-3)
    assert metrics["nats_logit"] == pytest.approx(-float(logit_log_det(images, 1e-6).mean()), abs=1e-3)
    assert metrics["bits_per_dim_by_digit"] == dict.fromkeys(range(10), 8.0)


def test_the_scales_the_digits_and_the_error_belong_together():
    images, labels = digits()
    model = Dequantized(Bright(-3.0))
    log_P = evaluation.log_prob(model, images)
    metrics = evaluation.evaluate(model, images, labels)["metrics"]
    assert metrics["bits_per_dim"] == pytest.approx(-float(log_P.mean()) / D / math.log(2), abs=1e-4)
    assert metrics["nats_unit"] == pytest.approx(float(log_P.mean()) + D * math.log(256), abs=1e-3)
    ink = -3 * (images.double() + 0.5).sum(-1) / 256  # log p at the middle of the bins, about what a draw gives
    assert metrics["nats_unit"] == pytest.approx(float(ink.mean()), abs=0.1)
    error = float(ink.std()) / math.sqrt(len(images)) / D / math.log(2)
    assert metrics["standard_error"] == pytest.approx(error, abs=2e-4) and error > 1e-3
    by_digit = metrics["bits_per_dim_by_digit"]
    shares = labels.bincount().double() / len(labels)
    assert sum(float(shares[c]) * bits for c, bits in by_digit.items()) == pytest.approx(
        metrics["bits_per_dim"], abs=1e-4
    )
    assert by_digit[1] < by_digit[0], "ones have the least ink, which this model likes"


def test_more_draws_are_a_tighter_bound_and_the_seed_repeats_it():
    images, _ = digits(50)
    model = Dequantized(Bright(40.0))
    one, again, other = (evaluation.log_prob(model, images, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    exact = D * math.log(math.expm1(40 / 256) / (40 / 256)) + 40 * images.double().sum(-1) / 256 - D * math.log(256)
    few, many = (exact - evaluation.log_prob(model, images, draws=draws) for draws in (1, 300))
    assert float(few.mean()) > 0.4 > 0.1 > abs(float(many.mean()))  # nats
    assert "300 draws an image" in evaluation.evaluate(model, images[:2], draws=300)["protocol"]


def test_blocks_do_not_change_what_is_measured():
    images, _ = digits(50)
    model = Dequantized(Bright())
    whole, blocks = (evaluation.log_prob(model, images, batch_size=size) for size in (50, 7))
    assert whole.shape == blocks.shape == (50,)
    torch.testing.assert_close(whole, blocks, atol=0.2, rtol=0)  # other noise; the order of images shows
    assert float((whole - whole.roll(1)).abs().max()) > 20


def test_the_protocol_names_what_the_number_depends_on():
    images, labels = digits(30)
    protocol = evaluation.evaluate(uniform(), images, labels, seed=3, split="bundled validation")["protocol"]
    for words in ("a bound", "(v + u)/256", "uniform noise", "1 draw an", "seed 3", "30 bundled validation images"):
        assert words in protocol
    assert "λ = 1e-06" in protocol and "matching" not in protocol


def test_a_mixture_is_also_judged_by_its_clusters():
    images, labels = digits()
    images, labels = images[labels < 2], 7 * labels[labels < 2]  # zeros and "sevens": labels need not be 0 to K − 1
    model = Dequantized(Bright())
    metrics = evaluation.evaluate(model, images, labels)["metrics"]
    x = (images.float() + 0.5) / 256
    assert torch.equal(torch.cat(model.density.seen), x), "q reads the middle of each bin"
    much = x.mean(-1) >= 0.1
    right = float((much == (labels == 0)).double().mean())
    assert right > 0.9 and metrics["accuracy"] == pytest.approx(right, abs=1e-4)
    table = metrics["contingency"]
    assert list(table) == [0, 7] and table[0] == [int((~much[labels == 0]).sum()), int(much[labels == 0].sum())]
    assert 0.5 < metrics["nmi"] < 1
    assert "matching" in evaluation.evaluate(model, images, labels)["protocol"]
    assert "accuracy" not in evaluation.evaluate(model, images)["metrics"], "without labels nothing can be matched"


BINARY = (torch.arange(60).reshape(-1, 1) >> torch.arange(9)) % 2  # (60, 9)


@pytest.mark.parametrize("levels, dtype", [(2, torch.uint8), (2, torch.int64), (16, torch.uint8), (1024, torch.int32)])
def test_all_scales_go_by_the_levels_of_the_model(levels, dtype):
    """The uniform density needs log₂ of its levels, and is 1 on the unit interval, however many levels there are."""
    v = (BINARY * (levels - 1)).to(dtype)
    result = evaluation.evaluate(Dequantized(StandardUniform(9), levels), v, v[:, 0].long())
    metrics = result["metrics"]
    assert metrics["bits_per_dim"] == pytest.approx(math.log2(levels)) and metrics["standard_error"] == 0
    assert metrics["nats_unit"] == pytest.approx(0, abs=1e-4)
    x = (v[..., None] + (torch.arange(4000) + 0.5) / 4000) / levels  # the middles of slices of each bin
    lam = evaluation.LAMBDA
    y = lam + (1 - 2 * lam) * x.double()
    exact = float((math.log(1 - 2 * lam) - (y * (1 - y)).log()).mean(-1).sum(-1).mean())
    assert metrics["nats_logit"] == pytest.approx(-exact, abs=2e-2)
    assert f"x = (v + u)/{levels} with" in result["protocol"]
    assert set(metrics["bits_per_dim_by_digit"].values()) == {metrics["bits_per_dim"]}


def test_nats_on_the_unit_interval_go_by_the_levels():
    """Nats on [0, 1] of two values: D log 2 from log P, and not D log 256."""
    model = Dequantized(Stairs(2), levels=2)
    log_P = BINARY.double().sum(-1) - 9 * math.log(2)
    metrics = evaluation.evaluate(model, BINARY)["metrics"]
    assert metrics["nats_unit"] == pytest.approx(float(BINARY.double().sum(-1).mean()), abs=1e-4)
    torch.testing.assert_close(evaluation.log_prob(model, BINARY), log_P, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "own, asked, in_all", [(1, 1, "1 draw"), (7, 1, "7 draws"), (1, 7, "7 draws"), (2, 3, "6 draws")]
)
def test_the_protocol_counts_the_models_own_draws(own, asked, in_all):
    images, _ = digits(3)
    model = Dequantized(Bright(40.0), draws=own)
    assert f"{in_all} an image" in evaluation.evaluate(model, images, draws=asked)["protocol"]
    flat = Dequantized(Bright(40.0))
    same = evaluation.log_prob(flat, images, draws=own * asked)
    torch.testing.assert_close(evaluation.log_prob(model, images, draws=asked), same)


def test_the_protocol_says_which_dtype_and_which_noise():
    model = Dequantized(StandardUniform(9).double(), 2)
    assert "float64" in evaluation.evaluate(model, BINARY)["protocol"]
    noise = realnvp(9, 1, hidden=(2,), context_features=9, prior="logistic", standardize=False)
    learned = VariationalDequantized(StandardUniform(9), noise, 2)
    assert "with learned noise" in evaluation.evaluate(learned, BINARY)["protocol"]


class Coins(nn.Module):
    """Nine fair coins: an exact probability of whole numbers, with no noise."""

    levels, is_bound = 2, False

    def log_prob(self, v, context=None, *, generator=None):
        return torch.full(v.shape[:-1], -9 * math.log(2))


def test_an_exact_probability_is_not_called_a_bound():
    result = evaluation.evaluate(Coins(), BINARY)
    assert result["protocol"].startswith("exact, ") and result["metrics"]["bits_per_dim"] == 1
    assert result["metrics"]["nats_unit"] == 0


def test_clusters_are_read_at_the_middle_of_the_models_bins():
    class Halves(Known):
        """q that tells 1 of 2 levels, at x = 3/4, from 0, at 1/4."""

        def of(self, x):
            return torch.zeros(len(x))

        def posterior(self, x):
            assert set(x.unique().tolist()) == {0.25, 0.75}
            return torch.stack((x[:, 0] < 0.5, x[:, 0] > 0.5), -1).float()

    result = evaluation.evaluate(Dequantized(Halves(9), levels=2), BINARY, BINARY[:, 0])
    assert result["metrics"]["accuracy"] == 1 and "x = (v + 1/2)/2" in result["protocol"]


def test_the_standard_error_of_few_images_is_exact():
    """s/√N of the three log P, with s² = Σ(·)²/(N − 1); and of one image nobody knows it."""
    v = torch.tensor([[0, 0], [1, 0], [3, 4]])
    bits = -v.double().sum(-1) / (2 * math.log(2))
    spread = (((bits - bits.mean()) ** 2).sum() / 2).sqrt()
    metrics = evaluation.evaluate(Dequantized(Stairs(8, 2), levels=8), v)["metrics"]
    assert metrics["standard_error"] == pytest.approx(float(spread) / math.sqrt(3), abs=1e-4)
    assert evaluation.evaluate(Dequantized(Stairs(8, 2), levels=8), v[:1])["metrics"]["standard_error"] is None


def test_a_lucky_draw_above_the_bound_is_reported_and_not_refused():
    """Nine pixels that are 1, and a density that puts all of them into the upper half of the upper bin."""

    class Upper(Known):
        def of(self, x):
            return torch.where((x > 0.5).all(-1), 9 * math.log(2.5), -9.0)

    metrics = evaluation.evaluate(Dequantized(Upper(9), levels=2), torch.ones(4, 9).long())["metrics"]
    assert metrics["bits_per_dim"] == pytest.approx(1 - math.log2(2.5), abs=1e-4)


def test_images_as_likely_as_the_threshold_pass_it():
    same = torch.ones(20, 9, dtype=torch.long)
    found = evaluation.out_of_distribution(Dequantized(Stairs(4), levels=4), same)
    assert found["test"]["accepted"] == found["rotated by 90°"]["accepted"] == found["pixels shuffled"]["accepted"] == 1
    assert found["all black"]["accepted"] == 0 and found["inverted, 3 − v"]["accepted"] == 1


@pytest.mark.parametrize("levels, dtype", [(2, torch.int64), (16, torch.uint8), (1000, torch.int32)])
def test_outsiders_keep_to_the_levels(levels, dtype):
    images = (BINARY[:40] * (levels - 1)).to(dtype)
    for name, others in evaluation.outsiders(images, levels=levels).items():
        assert others.dtype == dtype and 0 <= int(others.min()) <= int(others.max()) < levels, name
    assert int(evaluation.outsiders(images, levels=levels)["uniform noise"].max()) > 0.8 * (levels - 1)


def test_outsiders_are_what_their_names_say():
    images, _ = digits(40)
    kinds = evaluation.outsiders(images, seed=1)
    assert all(of.dtype == torch.uint8 and of.shape == images.shape for of in kinds.values())
    square = images.unflatten(-1, (28, 28))
    assert torch.equal(kinds["test"], images)
    assert torch.equal(255 - kinds["inverted, 255 − v"], images)
    turned = kinds["rotated by 90°"].unflatten(-1, (28, 28))
    assert torch.equal(turned.rot90(3, (-2, -1)), square) and not torch.equal(turned, square)
    shifted = kinds["shifted by a quarter"].unflatten(-1, (28, 28))
    assert torch.equal(shifted[..., 7:], square[..., :21])
    for kind in ("shifted by a quarter", "pixels shuffled"):
        assert torch.equal(kinds[kind].sort(-1).values, images.sort(-1).values)
    shuffled = kinds["pixels shuffled"]
    assert not torch.equal(shuffled, images) and torch.equal(
        shuffled, evaluation.outsiders(images, 1)["pixels shuffled"]
    )
    assert abs(kinds["half the ink, v/2"].float() * 2 - images.float()).max() <= 1
    assert kinds["blurred, 3×3"].unflatten(-1, (28, 28))[0, 14, 14] == square[0, 13:16, 13:16].float().mean().round()
    assert kinds["all black"].max() == 0 and kinds["all one gray"].unique().tolist() == [128]
    assert abs(float(kinds["uniform noise"].float().mean()) - 127.5) < 2


def test_a_threshold_lets_through_what_the_model_finds_likely():
    images, _ = digits(100)
    found = evaluation.out_of_distribution(Dequantized(Bright(-1.0)), images)
    assert next(iter(found)) == "test" and found["test"]["accepted"] == 0.95
    assert found["all black"]["accepted"] == 1 and found["half the ink, v/2"]["accepted"] == 1
    assert found["inverted, 255 − v"]["accepted"] == found["uniform noise"]["accepted"] == 0
    assert found["all black"]["bits_per_dim"] < found["test"]["bits_per_dim"] < found["all one gray"]["bits_per_dim"]
    assert found["pixels shuffled"]["bits_per_dim"] == pytest.approx(found["test"]["bits_per_dim"], abs=2e-3)
    bright = evaluation.out_of_distribution(Dequantized(Bright(1.0)), images, most=60)
    assert bright["all black"]["accepted"] == 0 and bright["inverted, 255 − v"]["accepted"] == 1


def test_what_cannot_be_evaluated_is_refused_in_words():
    images, _ = digits(3)
    with pytest.raises(ValueError, match="at least one draw and one image, but got 0 and 3"):
        evaluation.log_prob(uniform(), images, draws=0)
    with pytest.raises(ValueError, match="but got 1 and 0"):
        evaluation.log_prob(uniform(), images[:0])
    with pytest.raises(TypeError, match="whole numbers"):
        evaluation.evaluate(uniform(), images / 255)
    with pytest.raises(TypeError, match=r"such as Dequantized\(flow\), but got Flow"):
        evaluation.evaluate(uniform().density, images)
    with pytest.raises(ValueError, match="2 labels and 3 images"):
        evaluation.evaluate(uniform(), images, torch.zeros(2))
    with pytest.raises(ValueError, match=r"square images .* but got rows of 10"):
        evaluation.out_of_distribution(Dequantized(StandardUniform(10)), images[:, :10])


class AnyBound(Bound):
    """A bound that is not by noise on pixels."""

    domain, levels = "whole", 2

    def log_weight(self, x, generator, context=None):
        return self.anchor.expand(len(x)) - x.flatten(1).sum(-1) - math.log(2)


def test_the_protocol_says_no_more_of_a_bound_than_is_known():
    v = torch.zeros(3, 4, dtype=torch.uint8)
    protocol = evaluation.evaluate(AnyBound(4, draws=5), v, draws=2)["protocol"]
    assert protocol.startswith("a bound by the noise of AnyBound, 10 draws an image, seed 0, float32")


def test_images_may_be_arrays_and_of_the_shape_of_images():
    v = torch.randint(2, (6, 1, 2, 3), generator=torch.Generator().manual_seed(0))
    expected = evaluation.evaluate(AnyBound(6), v.flatten(1), torch.arange(6) % 2)
    assert evaluation.evaluate(AnyBound((1, 2, 3)), v, torch.arange(6) % 2) == expected
    assert evaluation.evaluate(AnyBound(6), v.flatten(1).numpy(), (torch.arange(6) % 2).numpy()) == expected
    for draws in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"Expected at least one draw and one image, but got {draws} and 6"):
            evaluation.evaluate(AnyBound(6), v.flatten(1), draws=draws)
