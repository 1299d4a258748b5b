"""What students do in notebook 07, right and wrong; and the worked answers are the package's own steps."""

import math

import pytest
import torch

from flowlab.densities.mixtures import GaussianMixture
from flowlab.lessons.gaussian_mixtures_and_em import exercises as notebook_07


def joint(log_density, weights):
    return log_density + weights.log()


def m_step(weights=None, means=None, covariances=None):
    """A student's M-step that is right but for the parts given: functions of x, r, N_k and the right value."""

    def answer(x, r):
        parts, wrong = notebook_07.m_step(x, r), (weights, means, covariances)
        return tuple(p if w is None else w(x, r, r.sum(0), p) for p, w in zip(parts, wrong, strict=True))

    return answer


def scatter(x, r, counts, S):
    return S * counts[:, None, None]


def around(center):
    """Covariances weighted by r, around another point than the mean of each."""

    def answer(x, r, counts, S):
        e = x - center(x)
        return torch.stack([(r[:, k, None] * e).T @ e / counts[k] for k in range(r.shape[1])])

    return answer


def deviations(x, r, counts):
    return x - (r.T @ x / counts[:, None])[:, None]  # (K, N, D)


def one_hot(r):
    return torch.nn.functional.one_hot(r.argmax(-1), r.shape[1]).to(r)


def entropy(r):
    return torch.special.entr(r).sum(-1).mean()


def average(log_joint, r):
    return (r * log_joint).sum(-1).mean()


def eigen(change, back=lambda V, values: V @ torch.diag(values) @ V.T):
    """A student's floor by eigenvalues: what they make of them, and how they turn back."""

    def answer(covariance, floor):
        values, V = torch.linalg.eigh(covariance)
        return back(V, change(values, floor))

    return answer


def bic(P=lambda K, D: K - 1 + K * D + K * D * (D + 1) // 2, fit=-2, price=math.log, of_all=True, times=1):
    return lambda nats, N, K, D: times * (fit * (N if of_all else 1) * nats + P(K, D) * price(N))


# number, what the student does, and words that stand in the hint for it alone
WRONG = [
    ("07.1", lambda d, w: d.softmax(-1), "forgot the weights"),
    ("07.1", lambda d, w: joint(d, w).softmax(0), "sum to one over the points"),
    ("07.1", lambda d, w: joint(d, w).exp(), "Divide each row by its sum"),
    ("07.1", lambda d, w: joint(d, w).log_softmax(-1), "These are log r"),
    ("07.1", lambda d, w: one_hot(joint(d, w)), "All or nothing"),
    ("07.1", lambda d, w: w * d.softmax(-1), "after the division"),
    ("07.1", lambda d, w: (d + w).softmax(-1), "not as π_k"),
    ("07.1", lambda d, w: (d * w).softmax(-1), "is added to its logarithm"),
    ("07.1", lambda d, w: joint(d, w).softmax(-1).T, "a row a point"),
    ("07.1", lambda d, w: joint(d, w).softmax(-1) / 2, "make each row of exponentials sum to one"),
    ("07.1", lambda d, w: joint(d, w).exp() / joint(d, w).exp().sum(-1, keepdim=True), "0/0 is no number"),
    (
        "07.1",
        lambda d, w: (
            joint(d, w).exp().clamp(max=1e30) / (joint(d, w).exp().clamp(max=1e30).sum(-1, keepdim=True) + 1e-30)
        ),
        "hides the underflow",
    ),
    ("07.1", lambda d, w: joint(d.clamp(-500, 500), w).softmax(-1), "only the differences in a row"),
    ("07.2", lambda x, r: r.sum(0), "Return three things"),
    ("07.2", m_step(weights=lambda x, r, N, p: N), "are the counts N_k"),
    ("07.2", m_step(weights=lambda x, r, N, p: torch.full_like(N, 1 / len(N))), "are all equal"),
    ("07.2", m_step(weights=lambda x, r, N, p: one_hot(r).mean(0)), "for its likeliest component"),
    ("07.2", m_step(weights=lambda x, r, N, p: p**2), "The weights are not right yet"),
    ("07.2", m_step(means=lambda x, r, N, p: r.T @ x / len(x)), "means are divided by N"),
    (
        "07.2",
        m_step(means=lambda x, r, N, p: (one_hot(r).T @ x) / one_hot(r).sum(0)[:, None]),
        "for one component only",
    ),
    ("07.2", m_step(means=lambda x, r, N, p: x.mean(0).expand_as(p)), "means ignore r"),
    ("07.2", m_step(means=lambda x, r, N, p: r.T @ x), "means are sums"),
    ("07.2", m_step(means=lambda x, r, N, p: -p), "The means are not right yet"),
    ("07.2", m_step(covariances=lambda x, r, N, p: scatter(x, r, N, p) / len(x)), "covariances are divided by N"),
    ("07.2", m_step(covariances=scatter), "covariances are sums"),
    ("07.2", m_step(covariances=around(lambda x: x.mean(0))), "around the mean of all points"),
    ("07.2", m_step(covariances=around(lambda x: 0.0)), "second moments"),
    ("07.2", m_step(covariances=lambda x, r, N, p: scatter(x, r, N, p) / (N - 1)[:, None, None]), "unbiased"),
    ("07.2", m_step(covariances=lambda x, r, N, p: torch.diag_embed(p.diagonal(dim1=1, dim2=2))), "Only the diagonal"),
    (
        "07.2",
        m_step(covariances=lambda x, r, N, p: deviations(x, r, N).mT @ deviations(x, r, N) / len(x)),
        "weigh all points alike",
    ),
    (
        "07.2",
        m_step(
            covariances=lambda x, r, N, p: (
                (r.T[..., None] ** 2 * deviations(x, r, N)).mT @ deviations(x, r, N) / N[:, None, None]
            )
        ),
        "not squared",
    ),
    ("07.2", m_step(covariances=lambda x, r, N, p: 2 * p), "The covariances are not right yet"),
    ("07.3", average, "expected log-joint"),
    ("07.3", lambda j, r: average(j, r) - entropy(r), "sign of the entropy"),
    ("07.3", lambda j, r: len(r) * (average(j, r) + entropy(r)), "the sum over points"),
    ("07.3", lambda j, r: (r * j + torch.special.entr(r)).mean(), "over components too"),
    ("07.3", lambda j, r: j.logsumexp(-1).mean(), "whatever r is"),
    ("07.3", lambda j, r: (r * j.exp()).sum(-1).log().mean(), "inside the sum over k"),
    ("07.3", lambda j, r: -average(j, r) - entropy(r), "sign of the whole"),
    ("07.3", lambda j, r: (r * j + torch.special.entr(r)).sum(-1), "one number, the mean"),
    ("07.3", lambda j, r: average(j, r) + 2 * entropy(r), "each weighted by r"),
    ("07.3", lambda j, r: (r * (j - r.log())).sum(-1).mean(), "must count as 0"),
    ("07.3", lambda j, r: (r * (j - (r + 0.05 * (r == 0).any()).log())).sum(-1).mean(), "has entropy 0"),
    ("07.4", lambda S, f: S, "Nothing has changed"),
    ("07.4", lambda S, f: S + f * torch.eye(3), "that is a ridge"),
    ("07.4", lambda S, f: torch.where(torch.eye(3).bool(), S.clamp_min(f), S), "raised the diagonal entries"),
    ("07.4", lambda S, f: S.clamp_min(f), "You raised the entries"),
    ("07.4", lambda S, f: f * torch.eye(3), "threw the direction"),
    ("07.4", eigen(torch.clamp_min, lambda V, v: V.T @ torch.diag(v) @ V), "the directions are not"),
    ("07.4", eigen(torch.clamp_min, lambda V, v: torch.diag(v)), "Turn them back"),
    ("07.4", eigen(lambda v, f: v.clamp_min(f**2)), "not to be squared"),
    ("07.4", eigen(lambda v, f: v.clamp_min(f**0.5)), "no root"),
    ("07.4", eigen(lambda v, f: 2 * v.clamp_min(f)), "In which directions"),
    ("07.4", eigen(lambda v, f: torch.cat((torch.full_like(v[:1], f), v[1:]))), "come back as it was"),
    ("07.5", bic(lambda K, D: K + K * D + K * D * (D + 1) // 2), "counted K weights"),
    ("07.5", bic(lambda K, D: K * D + K * D * (D + 1) // 2), "forgot the weights"),
    ("07.5", bic(lambda K, D: K - 1 + K * D + K * D * D), "It is symmetric"),
    ("07.5", bic(lambda K, D: K - 1 + 2 * K * D), "diagonal covariances"),
    ("07.5", bic(lambda K, D: K - 1 + K * D * (D + 1) // 2), "forgot the means"),
    ("07.5", bic(of_all=False), "nats is a mean"),
    ("07.5", bic(fit=2), "The first sign is turned"),
    ("07.5", bic(price=lambda N: -math.log(N)), "penalty has the wrong sign"),
    ("07.5", bic(times=-1), "All signs are turned"),
    ("07.5", bic(price=lambda N: 2), "That is AIC"),
    ("07.5", bic(times=0.5), "half of it"),
    ("07.5", bic(price=math.log2), "a natural one"),
    ("07.5", bic(lambda K, D: K), "Not yet. Count"),
]


def from_the_largest(log_density, weights):
    p = (log_density - log_density.amax(-1, keepdim=True)).exp() * weights
    return p / p.sum(-1, keepdim=True)


RIGHT = [
    ("07.1", from_the_largest),
    ("07.2", lambda x, r: list(notebook_07.m_step(x, r))),
    ("07.3", lambda j, r: j.logsumexp(-1).mean() - (torch.xlogy(r, r) - r * j.log_softmax(-1)).sum(-1).mean()),
    ("07.4", lambda S, f: f * torch.eye(3) + eigen(lambda v, f: (v - f).clamp_min(0))(S, f)),
    ("07.5", lambda nats, N, K, D: -2 * N * nats + (K * (1 + D) * (2 + D) / 2 - 1) * math.log(N)),
]


def test_the_worked_answers_are_the_package_s():
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixture = GaussianMixture.start(x, 3, generator=torch.Generator().manual_seed(1))
    density = mixture.log_joint(x) - mixture.weights.log()
    r = notebook_07.responsibilities(density, mixture.weights)
    torch.testing.assert_close(r, mixture.expectation(x))
    assert float(notebook_07.bound(mixture.log_joint(x), r)) == pytest.approx(mixture.bound(x, r))
    mixture.maximization(x, r)
    weights, means, covariances = notebook_07.m_step(x, r)
    torch.testing.assert_close(weights, mixture.weights)
    torch.testing.assert_close(means, mixture.means.detach())
    torch.testing.assert_close(covariances, mixture.covariances)
    assert notebook_07.bic(mixture.objective(x), 60, 3, 2) == pytest.approx(mixture.bic(x))
    thin = torch.diag(torch.tensor([1.0, 1e-8], dtype=torch.float64))
    raised = GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), thin[None], floor=0.01).covariances[0]
    torch.testing.assert_close(notebook_07.raise_to_floor(thin, 0.01), raised)
