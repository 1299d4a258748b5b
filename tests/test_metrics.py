"""Scores of clusterings against scikit-learn and by hand, the gap of the bound, calibration, and bits per dimension."""

import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from torch import Generator

import flowlab
from flowlab import metrics
from flowlab.bijections import Logit
from flowlab.datasets import mnist
from flowlab.densities.mixtures import FlowMixture
from flowlab.lessons.images_and_bits_per_dimension.toys import TEST_LOG_DET


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


partitions = st.integers(1, 40).flatmap(
    lambda N: st.tuples(*[st.lists(st.integers(0, 4), min_size=N, max_size=N) for _ in range(2)])
)


@given(partitions)
def test_scores_are_scikit_learns_and_the_table_counts(pair):
    y, k = (torch.tensor(part) for part in pair)
    table = metrics.contingency(y, k)
    assert table.sum() == len(y) and table.shape == (max(pair[0]) + 1, max(pair[1]) + 1)
    assert all(
        table[c, j] == sum((a, b) == (c, j) for a, b in zip(*pair, strict=True)) for c, j in np.ndindex(table.shape)
    )
    assert metrics.nmi(y, k) == pytest.approx(sklearn_metrics.normalized_mutual_info_score(*pair), abs=1e-12)
    assert metrics.ari(y, k) == pytest.approx(sklearn_metrics.adjusted_rand_score(*pair), abs=1e-12)


@pytest.mark.parametrize(
    "y, k",
    [
        ([0], [0]),  # one point
        ([0, 0, 0], [1, 1, 1]),  # one part each
        ([0, 1, 2], [2, 0, 1]),  # each point alone
        ([0, 0, 0, 0], [0, 1, 2, 3]),  # one part against points alone
        ([0, 0, 1, 1], [0, 1, 0, 1]),  # fewer pairs agree than by chance
        ([7, 7, 3], [100, 0, 0]),  # numbers that most classes do not have
    ],
)
def test_scores_at_the_ends(y, k):
    for one, other in ((y, k), (k, y)):
        assert metrics.nmi(one, other) == pytest.approx(
            sklearn_metrics.normalized_mutual_info_score(one, other), abs=1e-12
        )
        assert metrics.ari(one, other) == pytest.approx(sklearn_metrics.adjusted_rand_score(one, other), abs=1e-12)


def test_scores_of_many_points_do_not_overflow():
    g = generator(0)
    y = torch.randint(3, (3_000_000,), generator=g)
    k = torch.where(torch.rand(len(y), generator=g) < 0.7, y, torch.randint(3, y.shape, generator=g))
    assert metrics.ari(y, k) == pytest.approx(sklearn_metrics.adjusted_rand_score(y, k), abs=1e-9)
    assert metrics.nmi(y, k) == pytest.approx(sklearn_metrics.normalized_mutual_info_score(y, k), abs=1e-9)


@given(partitions)
def test_accuracy_is_that_of_the_best_names(pair):
    y, k = (np.array(part) for part in pair)
    best = max((np.array(names)[k] == y).mean() for names in itertools.permutations(range(5)))
    assert metrics.accuracy(y, k) == pytest.approx(best)
    named = np.array([metrics.matching(y, k).get(int(j), -1) for j in k])
    assert (named == y).mean() == pytest.approx(best)


def test_names_do_not_matter_and_splitting_costs():
    y = torch.arange(5).repeat_interleave(20)
    shuffled = torch.tensor([3, 0, 4, 1, 2])[y]
    assert metrics.accuracy(y, shuffled) == metrics.ari(y, shuffled) == metrics.nmi(y, shuffled) == 1
    assert metrics.matching(y, shuffled) == {3: 0, 0: 1, 4: 2, 1: 3, 2: 4}
    split = shuffled.clone()
    split[:8] = 5  # part of class 0 has its own, sixth cluster
    assert metrics.accuracy(y, split) == pytest.approx(0.92) and metrics.nmi(y, split) < 1
    assert metrics.accuracy(y, torch.zeros(100).long()) == pytest.approx(0.2)
    assert metrics.nmi(y, torch.zeros(100).long()) == metrics.ari(y, torch.zeros(100).long()) == 0


def test_the_gap_is_the_divergence_of_q_from_the_posterior():
    flow = flowlab.realnvp(2, 2, hidden=(4,), stack=3, generator=generator(0))
    model = FlowMixture(flow, generator=generator(1)).double()
    with torch.no_grad():
        for p in model.flows.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=generator(2)))
    x = torch.randn(30, 2, dtype=torch.float64, generator=generator(3))
    for temperature in (1.0, 0.2):
        q, r = model.posterior(x, temperature).detach(), model.responsibilities(x).detach()
        gap = metrics.bound_gap(model, x, temperature)
        assert not gap.requires_grad and gap.shape == (30,) and bool((gap > 0).all())
        torch.testing.assert_close(gap, (q * (q / r).log()).sum(-1))


def test_calibration_by_hand():
    q = torch.tensor([[0.91, 0.09], [0.95, 0.05], [0.05, 0.95], [0.62, 0.38], [0.38, 0.62]])
    result = metrics.calibration(q, [1, 1, 0, 1, 1])  # cluster 0 stands for class 1
    assert result.count.tolist() == [2, 3] and result.confidence.tolist() == pytest.approx([0.62, 2.81 / 3])
    assert result.accuracy.tolist() == [0.5, 1.0]
    assert result.error == pytest.approx((2 * 0.12 + 3 * (1 - 2.81 / 3)) / 5)
    certain = metrics.calibration(torch.eye(3), torch.arange(3))
    assert certain.error == 0 and certain.count.tolist() == [3] and certain.confidence.tolist() == [1]


def test_a_true_posterior_is_calibrated_and_a_sharpened_one_is_not():
    g = generator(0)
    logits = 2 * torch.randn(20_000, 3, generator=g)
    y = torch.multinomial(logits.softmax(-1), 1, generator=g).squeeze(-1)
    assert metrics.calibration(logits.softmax(-1), y).error < 0.02
    assert metrics.calibration((3 * logits).softmax(-1), y).error > 0.1


@pytest.mark.slow
def test_heavy_libraries_load_only_when_used():
    code = "import sys, flowlab.metrics; print([name for name in ('scipy', 'sklearn') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "call, words",
    (
        (lambda: metrics.accuracy([0, 1], [0]), "2 labels and 1 clusters"),
        (lambda: metrics.ari([0, 1], [0]), "2 labels and 1 clusters"),
        (lambda: metrics.nmi([], []), "N of at least 1"),
        (lambda: metrics.contingency([0, -1], [0, 1]), "labels as whole numbers from 0"),
        (lambda: metrics.contingency([0, 1], [0.0, 1.0]), "clusters as whole numbers from 0"),
        (lambda: metrics.contingency([0, 1], torch.eye(2).long()), "clusters as whole numbers"),
        (lambda: metrics.calibration(torch.ones(2, 2), [0, 1]), "rows summing to one"),
        (lambda: metrics.calibration(torch.eye(3), [0, 1]), r"\(2, K\) probabilities.* but got \(3, 3\)"),
        (lambda: metrics.calibration(torch.eye(2) * math.nan, [0, 1]), "rows summing to one"),
        (lambda: metrics.calibration(torch.eye(2), [0, 1], bins=0), "at least one bin"),
    ),
)
def test_what_is_no_clustering_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- likelihoods on three scales ------------------------------------------------------------------------------------


def test_published_numbers_in_bits():
    """ANCHORS: NICE 1980.50 nats on [0, 1] is 4.356 bits per dimension; −1038.5 logit nats is 1.41."""
    assert metrics.bits_per_dim(1980.50, 784, scale="unit") == pytest.approx(4.356, abs=5e-4)
    on_unit = -1038.5 + 4620.06
    assert metrics.bits_per_dim(-1038.5, 784, scale="logit", log_det=4620.06) == pytest.approx(
        8 - on_unit / (784 * math.log(2)), abs=1e-12
    )


@given(st.floats(0, 12), st.integers(1, 5000), st.integers(2, 300), st.floats(-1e4, 1e4))
def test_the_three_scales_lead_into_each_other_and_back(bits, dims, levels, log_det):
    options = ({"scale": "integers"}, {"scale": "unit"}, {"scale": "logit", "log_det": log_det})
    integers, unit, logit = (metrics.nats(bits, dims, levels=levels, **option) for option in options)
    assert unit - integers == pytest.approx(dims * math.log(levels), abs=1e-6)
    assert unit - logit == pytest.approx(log_det, abs=1e-6)
    for value, option in zip((integers, unit, logit), options, strict=True):
        try:
            again = metrics.bits_per_dim(value, dims, levels=levels, **option)
        except ValueError:  # rounding below zero
            assert bits < 1e-6
        else:
            assert again == pytest.approx(bits, abs=1e-6)


def test_tensors_convert_like_numbers():
    log_p = torch.tensor([1980.5, 0.0], dtype=torch.float64)
    bits = metrics.bits_per_dim(log_p, 784, scale="unit")
    assert bits.tolist() == [metrics.bits_per_dim(float(value), 784, scale="unit") for value in log_p]


@pytest.mark.parametrize(
    ("nats", "dims", "options", "words"),
    [
        (100.0, 10, {"scale": "nats"}, "among 'integers', 'unit', 'logit', but got 'nats'"),
        (-1300.5, 784, {"scale": "logit"}, "need log_det"),
        (1980.5, 784, {"scale": "unit", "log_det": 4620.06}, "belongs to the scale 'logit'"),
        (1980.5, 784, {"scale": "integers"}, "no code is shorter than nothing"),
        (1980.5, 196, {"scale": "unit"}, "of 196 dimensions"),
        (1980.5, 784, {"scale": "logit", "log_det": 4620.06}, "no code is shorter"),
        (10.0, 0, {"scale": "unit"}, "at least 1 dimension"),
    ],
)
def test_scales_are_not_mixed(nats, dims, options, words):
    with pytest.raises(ValueError, match=words):
        metrics.bits_per_dim(nats, dims, **options)
    with pytest.raises(TypeError):
        metrics.bits_per_dim(nats, dims)


@pytest.mark.parametrize("lambda_", [1e-6, 0.01, 0.05])
@pytest.mark.parametrize("levels", [4, 256])
def test_log_det_of_the_logit_is_its_mean_over_the_noise(lambda_, levels):
    v = torch.tensor([[0, 1], [levels - 1, levels // 2]])
    u = torch.rand(200_000, 2, 2, generator=generator(0), dtype=torch.float64)
    drawn = Logit(lambda_)((v + u) / levels)[1]  # (S, 2)
    error = 5 * drawn.std(0) / len(u) ** 0.5
    assert bool(((metrics.logit_log_det(v, lambda_, levels=levels) - drawn.mean(0)).abs() < error).all())
    with pytest.raises(TypeError, match="whole numbers"):
        metrics.logit_log_det(v / 4)
    for outside in (v - 1, v + 1):
        with pytest.raises(ValueError, match=f"whole numbers from 0 to {levels - 1}, but got"):
            metrics.logit_log_det(outside, lambda_, levels=levels)


def test_log_det_of_mnist_is_the_one_in_the_literature():
    """ANCHORS' 4620.06 is one draw of the noise, whose standard error is 0.25; the mean over the noise is 4619.95."""
    if "FLOWLAB_DATA" not in os.environ:
        pytest.skip("needs MNIST's test images: set FLOWLAB_DATA")
    v = mnist.load("test")[0].flatten(1)
    mean = float(metrics.logit_log_det(v, 1e-6).mean())
    assert mean == pytest.approx(TEST_LOG_DET, abs=0.01)
    drawn = Logit(1e-6)((v[:2000] + torch.rand(2000, 784, generator=generator(1), dtype=torch.float64)) / 256)[1].mean()
    assert float(drawn) == pytest.approx(float(metrics.logit_log_det(v[:2000], 1e-6).mean()), abs=2.5)
    assert mean == pytest.approx(4620.06, abs=0.75)


def test_evidence_of_a_known_constant():
    """p̃ = e³ N(0.5, 1) and q = N(0, 1): log Z = 3 and KL(q‖p) = 0.125, and the effective share is exp(−0.25)."""
    x = torch.randn(4, 50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = metrics.evidence(3 + 0.5 * x - 0.125)
    for one in zip(*found, strict=True):
        bound, error, estimate, effective = (float(each) for each in one)
        assert abs(bound - 2.875) < 4 * error and error == pytest.approx(0.5 / math.sqrt(50_000), rel=0.05)
        assert bound <= estimate == pytest.approx(3, abs=0.02)
        assert effective == pytest.approx(math.exp(-0.25), abs=0.02)
    exact = metrics.evidence(torch.full((7,), 1.5))
    assert [round(float(value), 6) for value in exact] == [1.5, 0.0, 1.5, 1.0]
    with pytest.raises(ValueError, match=r"at least two draws .* but got shape \(3, 1\)"):
        metrics.evidence(torch.zeros(3, 1))


def test_evidence_without_weight_is_no_number_of_its_own():
    """Draws outside the support weigh nothing: the bound is −∞, and the estimate is of the others."""
    log_w = torch.tensor([0.0, 0.0, -math.inf, -math.inf])
    found = metrics.evidence(log_w)
    assert found.bound == -math.inf and float(found.estimate) == pytest.approx(math.log(0.5))
    assert float(found.effective) == pytest.approx(0.5)
