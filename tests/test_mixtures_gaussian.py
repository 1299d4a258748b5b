"""EM: the theorem that it rests on, agreement with scikit-learn, and data that would break it."""

import contextlib
import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import mixture as sklearn_mixture
from torch import Generator, Tensor

from flowlab import densities
from flowlab.densities.mixtures import EMGaussianMixture, Prior, SingularComponent
from flowlab.metrics import accuracy
from flowlab.tables import TableWarning, typical_deviation

SETTINGS = {
    "no floor": {"floor": 0.0},
    "diagonal": {"floor": 0.0, "diagonal": True},
    "floor": {"floor": 0.3},
    "diagonal floor": {"floor": 0.3, "diagonal": True},
    "prior": {"floor": 0.0, "prior": 1.0},
    "diagonal prior": {"floor": 0.0, "prior": 2.5, "diagonal": True},
    "prior and floor": {"floor": 0.5, "prior": 1.0},
}


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def points(seed: int = 0, N: int = 60, D: int = 2) -> Tensor:
    """Three blobs that overlap, of different shapes."""
    g = generator(seed)
    centers = 2 * torch.randn(3, D, generator=g, dtype=torch.float64)
    A = torch.randn(3, D, D, generator=g, dtype=torch.float64)
    k = torch.randint(3, (N,), generator=g)
    return centers[k] + (A[k] @ torch.randn(N, D, 1, generator=g, dtype=torch.float64)).squeeze(-1)


def with_prior(settings: dict, x: Tensor, K: int) -> dict:
    if "prior" not in settings:
        return settings
    weak = Prior.weak(x, K)
    return {**settings, "prior": Prior(weak.scale, weak.degrees, settings["prior"])}


# --- the theorem ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
@given(
    seed=st.integers(0, 2**31), K=st.integers(1, 4), D=st.integers(1, 4), how=st.sampled_from(("kmeans++", "random"))
)
def test_what_em_raises_never_falls(name, seed, K, D, how):
    x = points(seed, N=50, D=D)
    settings = with_prior(SETTINGS[name], x, K)
    mixture = EMGaussianMixture.start(x, K, how=how, generator=generator(seed), **settings)
    last = mixture.objective(x)
    for _ in range(15):
        try:
            step = mixture.step(x)
        except SingularComponent:
            assert settings["floor"] == 0 and "prior" not in settings
            return
        assert step.before == pytest.approx(last, abs=1e-9), "E makes the bound touch the objective"
        assert step.bound >= step.before - 1e-9, "M raises the bound"
        assert step.objective >= step.bound - 1e-9, "and the objective is above it"
        if "prior" not in settings:
            assert step.objective == step.log_likelihood >= last - 1e-9
        e = torch.linalg.eigvalsh(step.covariances / torch.outer(mixture.unit, mixture.unit))
        assert e.min() >= settings["floor"] - 1e-9
        assert step.at_floor == (e[:, 0] < settings["floor"] + 1e-9).nonzero().flatten().tolist()
        last = step.objective


def test_a_ridge_is_no_step_of_em():
    """Why the floor is a constraint: what scikit-learn does can lower the likelihood, even from the top."""
    x = points(1)
    top = EMGaussianMixture.fit(x, 1, floor=0.0)
    ridged = EMGaussianMixture(top.means, top.covariances, ridge=0.5, floor=0.0)
    assert ridged.step(x).log_likelihood < top.objective(x) - 0.01


@given(seed=st.integers(0, 2**31))
def test_no_other_parameters_lie_higher_on_the_bound(seed):
    """The M-step is the argmax: every small move of π, μ or Σ within the constraint lowers the bound."""
    x = points(seed)
    for name in SETTINGS:
        settings = with_prior(SETTINGS[name], x, 2)
        mixture = EMGaussianMixture.start(x, 2, generator=generator(seed), **settings)
        r = mixture.expectation(x)
        mixture.maximization(x, r)
        top = mixture.bound(x, r)
        g = generator(seed + 1)
        for scale in (1e-1, 1e-2, 1e-3):
            A = torch.eye(2) + scale * torch.randn(2, 2, 2, generator=g, dtype=torch.float64)
            pi = (mixture.weights.log() + scale * torch.randn(2, generator=g)).softmax(-1)
            mu = mixture.means + scale * torch.randn(2, 2, generator=g)
            # The constructor applies the constraints: the floor and the diagonal.
            moved = EMGaussianMixture(mu, A @ mixture.covariances @ A.mT, weights=pi, unit=mixture.unit, **settings)
            assert moved.bound(x, r) < top, name


def test_the_floor_raises_eigenvalues_and_no_more():
    x = points(0) @ torch.tensor([[1.0, 1.0], [0.9, 1.1]], dtype=torch.float64)
    free = EMGaussianMixture.fit(x, 1, floor=0.0)
    with pytest.warns(TableWarning, match="1 of 1 components lie on points .* at 0.2 of the variance"):
        kept = EMGaussianMixture.fit(x, 1, floor=0.2)
    u = typical_deviation(x)
    e, V = torch.linalg.eigh(free.covariances[0] / torch.outer(u, u))
    assert e[0] < 0.2 < e[1] and kept.at_floor == [0] and free.at_floor == []
    raised = V @ torch.diag(e.clamp_min(0.2)) @ V.T
    torch.testing.assert_close(kept.covariances[0], torch.outer(u, u) * raised)


def test_hard_em_raises_its_own_bound():
    x = points(2)
    mixture = EMGaussianMixture.start(x, 3, generator=generator(2))
    last = -math.inf
    for _ in range(10):
        step = mixture.step(x, hard=True)
        assert set(step.responsibilities.unique().tolist()) == {0.0, 1.0}
        assert last - 1e-9 <= step.before <= step.bound + 1e-9 <= step.objective + 2e-9
        last = step.bound


def test_one_gaussian_is_the_sample_mean_and_covariance():
    x = points(3)
    for diagonal in (False, True):
        mixture = EMGaussianMixture.fit(x, 1, diagonal=diagonal)
        S = x.T.cov(correction=0)
        torch.testing.assert_close(mixture.means[0].data, x.mean(0))
        torch.testing.assert_close(mixture.covariances[0], torch.diag(S.diagonal()) if diagonal else S)


def test_prior_pulls_toward_its_mode():
    x = points(4, N=20)
    psi = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    mixture = EMGaussianMixture.fit(x, 1, prior=Prior(psi, 5.0, 1.0))
    S = x.T.cov(correction=0)
    torch.testing.assert_close(mixture.covariances[0], (psi + 20 * S) / (20 + 5 + 3))
    strong = EMGaussianMixture.fit(x, 2, prior=Prior(1e9 * psi, 1e9, 1e9), generator=generator(0))
    torch.testing.assert_close(strong.covariances, psi.expand(2, 2, 2), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(strong.weights, torch.full((2,), 0.5, dtype=torch.float64), rtol=1e-6, atol=0)


# --- scikit-learn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ("full", "diag"))
@pytest.mark.parametrize("ridge", (1e-6, 0.1))
@pytest.mark.parametrize("D, K, seed", ((1, 2, 0), (2, 3, 1), (5, 4, 2)))
def test_agrees_with_scikit_learn_from_the_same_start(kind, ridge, D, K, seed):
    x = points(seed, N=300, D=D)
    diagonal = kind == "diag"
    mixture = EMGaussianMixture.start(x, K, diagonal=diagonal, ridge=ridge, floor=0.0, generator=generator(seed))
    precisions = torch.linalg.inv(mixture.covariances)
    peer = sklearn_mixture.GaussianMixture(
        K,
        covariance_type=kind,
        reg_covar=ridge,
        tol=0.0,
        max_iter=30,
        weights_init=mixture.weights.numpy(),
        means_init=mixture.means.numpy(),
        precisions_init=(precisions.diagonal(dim1=-2, dim2=-1) if diagonal else precisions).numpy(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it did not converge in 30 steps, and need not
        peer.fit(x.numpy())
    assert peer.n_iter_ == 30
    for _ in range(30):
        mixture.step(x)
    close = {"rtol": 1e-6, "atol": 1e-6}
    Sigma = torch.as_tensor(peer.covariances_)
    torch.testing.assert_close(mixture.weights, torch.as_tensor(peer.weights_), **close)
    torch.testing.assert_close(mixture.means.data, torch.as_tensor(peer.means_), **close)
    torch.testing.assert_close(mixture.covariances, torch.diag_embed(Sigma) if diagonal else Sigma, **close)
    torch.testing.assert_close(mixture.log_prob(x), torch.as_tensor(peer.score_samples(x.numpy())), **close)
    torch.testing.assert_close(mixture.responsibilities(x), torch.as_tensor(peer.predict_proba(x.numpy())), **close)
    assert mixture.bic(x) == pytest.approx(peer.bic(x.numpy()), rel=1e-6)
    assert mixture.aic(x) == pytest.approx(peer.aic(x.numpy()), rel=1e-6)


# --- fits -----------------------------------------------------------------------------------------------------------


def blobs(N: int = 600) -> tuple[Tensor, EMGaussianMixture]:
    truth = EMGaussianMixture(
        torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 7.0]]),
        torch.tensor([[[1.0, 0.5], [0.5, 1.0]], [[0.3, 0.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 0.2]]]),
        weights=torch.tensor([0.5, 0.3, 0.2]),
    )
    return truth.sample(N, generator(0)), truth


def test_recovers_what_it_drew_from():
    x, truth = blobs(4000)
    fitted = EMGaussianMixture.fit(x, 3, restarts=3, generator=generator(0))
    order = torch.cdist(truth.means, fitted.means).argmin(-1)
    torch.testing.assert_close(fitted.means[order], truth.means, rtol=0, atol=0.15)
    torch.testing.assert_close(fitted.weights[order], truth.weights, rtol=0, atol=0.03)
    torch.testing.assert_close(fitted.covariances[order], truth.covariances, rtol=0, atol=0.15)
    assert truth.objective(x) <= fitted.objective(x) <= truth.objective(x) + 17 / 2 / 4000 * 4


def test_bic_chooses_the_count_and_aic_punishes_less():
    x, _ = blobs()
    fits = {K: EMGaussianMixture.fit(x, K, restarts=2, steps=60, generator=generator(K)) for K in (1, 2, 3, 4)}
    bic = {K: fitted.bic(x) for K, fitted in fits.items()}
    assert min(bic, key=bic.get) == 3
    for K, fitted in fits.items():
        assert bic[K] - fitted.aic(x) == pytest.approx(fitted.free_parameters * (math.log(600) - 2))
        assert fitted.aic(x) == pytest.approx(2 * (fitted.free_parameters - 600 * fitted.objective(x)))


def test_free_parameters_are_counted():
    means = torch.zeros(3, 4)
    assert EMGaussianMixture(means).free_parameters == 2 + 12 + 30
    assert EMGaussianMixture(means, diagonal=True).free_parameters == 2 + 12 + 12


def test_more_restarts_never_lower_the_objective():
    x = points(5, N=150)
    settings = {"how": "random", "steps": 30}
    fits = [EMGaussianMixture.fit(x, 4, restarts=n, generator=generator(7), **settings).objective(x) for n in (1, 3, 8)]
    assert fits == sorted(fits) and fits[0] < fits[-1]


def test_kmeans_plus_plus_spreads_and_starts_differ():
    x, truth = blobs()
    found = 0
    for seed in range(20):
        start = EMGaussianMixture.start(x, 3, generator=generator(seed))
        found += len(set(truth.responsibilities(start.means).argmax(-1).tolist())) == 3
    assert found >= 15, "k-means++ finds all of three far blobs nearly always; a random start in about one of five"
    a, b, c = (EMGaussianMixture.start(x, 3, generator=generator(seed)).means for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    state = torch.get_rng_state()
    EMGaussianMixture.fit(x, 3, restarts=2, generator=generator(0))
    assert torch.equal(state, torch.get_rng_state()), "the global seed was touched"


def test_is_a_density_like_the_base_and_computes_in_float64():
    x = points(0).float()
    mixture = EMGaussianMixture.fit(x, 2, generator=generator(0))
    plain = densities.GaussianMixture(mixture.means, mixture.covariances, weights=mixture.weights)
    assert mixture.means.dtype == mixture.log_prob(x).dtype == torch.float64
    torch.testing.assert_close(mixture.log_prob(x.double()), plain.log_prob(x.double()))
    assert mixture.sample(5, generator(0)).shape == (5, 2)
    low, high = x.double().amin(0) - 20, x.double().amax(0) + 20
    unit = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
    grid = low + (high - low) * torch.cartesian_prod(unit, unit)
    assert float(mixture.log_prob(grid).exp().mean() * (high - low).prod()) == pytest.approx(1, abs=1e-3)


def test_a_step_reports_what_it_did():
    x = points(6)
    mixture = EMGaussianMixture.start(x, 3, generator=generator(0))
    old = mixture.means.clone()
    r = mixture.responsibilities(x)
    step = mixture.step(x)
    torch.testing.assert_close(step.responsibilities, r)
    assert not torch.equal(step.means, old) and torch.equal(step.means, mixture.means)
    torch.testing.assert_close(step.weights, r.mean(0))
    torch.testing.assert_close(step.means, (r.T @ x) / r.sum(0)[:, None])
    assert step.covariances.shape == (3, 2, 2) and step.empty == []
    again = mixture.step(x)
    assert not torch.equal(step.means, again.means), "a step is a record, not a view"


# --- data that would break it ---------------------------------------------------------------------------------------


def test_shrinking_onto_one_point_is_refused_by_name_without_a_floor_and_held_by_one():
    x = torch.cat((points(0), torch.tensor([[50.0, 50.0]])))
    start = {"means": torch.tensor([[0.0, 0.0], [50.0, 50.0]]), "covariances": torch.eye(2).repeat(2, 1, 1)}
    with pytest.raises(SingularComponent, match=r"Component 1 has collapsed.* holds 1 points.*floor above 0"):
        free = EMGaussianMixture(**start, floor=0.0)
        free.step(x)
    assert free.means.tolist() == [[0, 0], [50, 50]] and free.weights.tolist() == [0.5, 0.5], "nothing was moved"
    held = EMGaussianMixture(**start, floor=1e-2)
    held.step(x)
    torch.testing.assert_close(held.covariances[1], 1e-2 * torch.eye(2, dtype=torch.float64))
    prior = EMGaussianMixture(**start, floor=0.0, prior=Prior(torch.eye(2), 4.0))
    prior.step(x)
    torch.testing.assert_close(prior.covariances[1], torch.eye(2, dtype=torch.float64) / (1 + 4 + 3))


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_a_covariance_that_float64_cannot_tell_from_a_singular_one_is_refused(scale):
    """Eigenvalues 1 and 1e-17 differ by less than float64 resolves, in whatever units; 1 and 1e-14 do not."""
    for least, refused in ((1e-17, True), (1e-14, False)):
        S = scale * torch.diag(torch.tensor([1.0, least], dtype=torch.float64))[None]
        with pytest.raises(SingularComponent, match="Component 0") if refused else contextlib.nullcontext():
            EMGaussianMixture(torch.zeros(1, 2), S, floor=0.0)


def test_likelihood_races_to_infinity_as_the_floor_falls():
    x = torch.cat((points(0), torch.tensor([[50.0, 50.0]])))
    start = {"means": torch.tensor([[0.0, 0.0], [50.0, 50.0]]), "covariances": torch.eye(2).repeat(2, 1, 1)}
    values = [EMGaussianMixture(**start, floor=10.0**-n).step(x).objective for n in (2, 6, 10, 14)]
    gains = [b - a for a, b in itertools.pairwise(values)]
    assert gains == pytest.approx([4 * math.log(10) / len(x)] * 3, rel=1e-3)


def test_fit_skips_the_starts_that_collapse_and_raises_when_all_do():
    x = torch.cat((points(0), torch.tensor([[30.0, 30.0]])))
    fitted = EMGaussianMixture.fit(x, 2, floor=0.0, restarts=20, steps=30, how="random", generator=generator(1))
    assert math.isfinite(fitted.objective(x))
    line = torch.arange(10.0).unsqueeze(-1) * torch.ones(2)
    with pytest.raises(SingularComponent):
        EMGaussianMixture.fit(line, 2, floor=0.0, restarts=3)
    with pytest.warns(TableWarning, match="2 of 2 components"):
        assert math.isfinite(EMGaussianMixture.fit(line, 2, restarts=3).objective(line))


def test_an_empty_component_keeps_its_place_and_does_no_harm():
    x = points(0)
    mixture = EMGaussianMixture(torch.tensor([[0.0, 0.0], [1e3, 1e3]]))
    before = mixture.objective(x)
    step = mixture.step(x)
    assert step.empty == [1] and step.weights[1] == 0 and step.objective >= before
    assert step.means[1].tolist() == [1e3, 1e3]
    torch.testing.assert_close(step.covariances[1], torch.eye(2, dtype=torch.float64))
    again = mixture.step(x)
    assert again.empty == [1] and step.objective - 1e-12 <= again.before <= again.bound + 1e-12
    assert again.bound <= again.objective + 1e-12, "0 · log 0 = 0 in the bound"
    assert torch.isfinite(mixture.log_prob(x)).all() and math.isfinite(mixture.bic(x))
    assert torch.isfinite(mixture.sample(10, generator(0))).all()
    woken = EMGaussianMixture(mixture.means, prior=Prior(torch.eye(2), 4.0, 2.0))
    assert (woken.step(x).weights > 0).all(), "a Dirichlet prior lets no weight reach zero"


def test_far_points_are_handled_and_points_beyond_number_refused():
    x = torch.cat((points(0), torch.tensor([[1e8, -1e8]])))
    with pytest.warns(TableWarning, match="1 of 3 components"):
        fitted = EMGaussianMixture.fit(x, 3, restarts=2, generator=generator(0))
    r = fitted.responsibilities(x)
    assert torch.isfinite(fitted.log_prob(x)).all()
    torch.testing.assert_close(r.sum(-1), torch.ones_like(r[:, 0]))
    assert (r[-1] > 0.99).any() and r[:-1, r[-1].argmax()].max() < 1e-6, "the far point is alone"
    mixture = EMGaussianMixture(torch.zeros(2, 2))
    far = torch.tensor([[0.0, 0.0], [1e200, 0.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"up to 1e\+150 as the points, .* but got 1e\+200"):
        mixture.step(far)


@pytest.mark.parametrize("offset", (0.0, 1e6))
def test_location_does_not_matter(offset):
    x = points(0)
    a = EMGaussianMixture.fit(x, 3, generator=generator(0))
    b = EMGaussianMixture.fit(x + offset, 3, generator=generator(0))
    torch.testing.assert_close(a.covariances, b.covariances, rtol=1e-5, atol=1e-5)
    assert a.objective(x) == pytest.approx(b.objective(x + offset), abs=1e-6)


def test_duplicates_count_and_more_components_than_distinct_points_are_refused():
    x = points(0, N=20)
    once = EMGaussianMixture(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    thrice = EMGaussianMixture(once.means)
    a, b = once.step(x), thrice.step(x.repeat(3, 1))
    torch.testing.assert_close(a.covariances, b.covariances)
    few = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]).repeat(10, 1)
    for how in ("kmeans++", "random"):
        with pytest.warns(TableWarning, match="3 of 3 components"):
            fitted = EMGaussianMixture.fit(few, 3, how=how, generator=generator(0))
        assert sorted(fitted.means.round(decimals=6).tolist()) == [[0.0, 0.0], [0.0, 2.0], [1.0, 0.0]]
        with pytest.raises(ValueError, match=r"from 1 to 3 components, as many as there are distinct .* but got 4"):
            EMGaussianMixture.fit(few, 4, how=how)
    with pytest.raises(ValueError, match=r"from 1 to 20 components.* but got 21"):
        EMGaussianMixture.fit(x, 21)


@pytest.mark.parametrize("scale", (1e-12, 1e-6, 1e-3, 1.0, 1e6, (1.0, 1e-9), (1e6, 1e-6)), ids=str)
def test_units_do_not_matter(scale):
    """Meters for cells, teslas for hearts: the same clusters and, but for the Jacobian, the same likelihood."""
    x, truth = blobs()
    s = torch.as_tensor(scale, dtype=torch.float64).expand(2)
    plain = EMGaussianMixture.fit(x, 3, restarts=3, generator=generator(0))
    scaled = EMGaussianMixture.fit(x * s, 3, restarts=3, generator=generator(0))
    assert scaled.objective(x * s) + float(s.log().sum()) == pytest.approx(plain.objective(x), abs=1e-6)
    labels, found = truth.responsibilities(x).argmax(-1), scaled.responsibilities(x * s).argmax(-1)
    assert accuracy(labels, found) > 0.99
    with pytest.warns(TableWarning):
        held, shrunk = (EMGaussianMixture.fit(y, 3, floor=0.5, generator=generator(0)) for y in (x, x * s))
    torch.testing.assert_close(shrunk.covariances / torch.outer(s, s), held.covariances)


DEGENERATE = {
    "constant column": lambda x: torch.stack((x[:, 0], torch.full_like(x[:, 0], 3.0)), 1),
    "constant column of 0": lambda x: torch.stack((x[:, 0], torch.zeros_like(x[:, 0])), 1),
    "equal columns": lambda x: x[:, :1].repeat(1, 2),
    "two values": lambda x: torch.stack((x[:, 0], (x[:, 1] > 0).double()), 1),
    "copies": lambda x: torch.cat((x[:6], x[:1].repeat(54, 1))),
    "as many points as components": lambda x: x[:3],
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_where_the_floor_holds_components_fit_says_so(name):
    x = DEGENERATE[name](points(0))
    with pytest.warns(TableWarning, match="components lie on points that do not span the space"):
        mixture = EMGaussianMixture.fit(x, 3, restarts=3, generator=generator(0))
    assert mixture.at_floor and math.isfinite(mixture.objective(x))
    assert mixture.step(x).at_floor == mixture.at_floor


def test_no_word_of_a_floor_that_holds_nothing(recwarn):
    x, _ = blobs()
    assert EMGaussianMixture.fit(x, 3, generator=generator(0)).at_floor == []
    assert EMGaussianMixture.fit(x[:, 0].numpy(), 2, generator=generator(0)).means.shape == (2, 1), "one column"
    assert not recwarn


nan = torch.tensor([[0.0, 1.0], [math.nan, 0.0], [math.inf, 0.0]])


@pytest.mark.parametrize(
    "call, words",
    (
        (lambda: EMGaussianMixture.fit(nan, 1), r"NaN or infinity in 2 of 3 rows, the first in row 1, column 0"),
        (lambda: EMGaussianMixture(torch.zeros(2, 2)).step(nan), "NaN or infinity"),
        (lambda: EMGaussianMixture(torch.zeros(2, 2)).bic(nan), "NaN or infinity"),
        (lambda: EMGaussianMixture.fit(torch.zeros(5, 1, 1), 1), r"a table \(N, D\) .* but got \(5, 1, 1\)"),
        (lambda: EMGaussianMixture.fit(torch.zeros(0, 2), 1), r"but got \(0, 2\)"),
        (lambda: EMGaussianMixture.fit(points(), 0), "from 1 to 60 components.* but got 0"),
        (lambda: EMGaussianMixture.fit(points(), 2, how="best"), "'kmeans\\+\\+' or 'random', but got 'best'"),
        (lambda: EMGaussianMixture.fit(points(), 2, restarts=0), "one restart"),
        (lambda: EMGaussianMixture.fit(points(), 2, floor=-1.0), "floor and a ridge of at least 0"),
        (
            lambda: EMGaussianMixture(torch.zeros(2, 2)).step(points(D=3)),
            r"expected shape \(..., 2\), but got \(60, 3\)",
        ),
        (lambda: EMGaussianMixture(torch.zeros(2, 2), weights=torch.tensor([0.5, 0.6])), "weights that sum to one"),
        (lambda: EMGaussianMixture(torch.zeros(2, 2).long()), "floating-point means"),
        (lambda: EMGaussianMixture(torch.zeros(2, 2), unit=torch.zeros(2)), "2 positive numbers as unit"),
        (lambda: EMGaussianMixture(torch.zeros(2, 2), prior=Prior(torch.eye(3), 5.0)), "prior in 2 dimensions"),
        (lambda: EMGaussianMixture(torch.zeros(2, 2)).maximization(points(), torch.ones(60, 3)), r"\(60, 2\), but got"),
        (lambda: Prior(-torch.eye(2), 5.0), "positive definite"),
        (lambda: Prior(torch.eye(2), 1.0), "more than D − 1 = 1 degrees"),
        (lambda: Prior(torch.eye(2), 5.0, 0.5), "concentration of at least 1"),
    ),
)
def test_what_cannot_be_fitted_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
