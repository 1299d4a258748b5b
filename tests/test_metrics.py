"""Scores of clusterings against scikit-learn and by hand, the gap of the bound, and calibration."""

import itertools
import math
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
from flowlab.mixtures import FlowMixture


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
    assert metrics.nmi(y, k) == pytest.approx(sklearn_metrics.normalized_mutual_info_score(*pair))
    assert metrics.ari(y, k) == pytest.approx(sklearn_metrics.adjusted_rand_score(*pair))


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
        (lambda: metrics.calibration(torch.eye(3), [0, 1]), r"\(2, K\) probabilities.* came \(3, 3\)"),
        (lambda: metrics.calibration(torch.eye(2) * math.nan, [0, 1]), "rows summing to one"),
        (lambda: metrics.calibration(torch.eye(2), [0, 1], bins=0), "at least one bin"),
    ),
)
def test_what_is_no_clustering_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
