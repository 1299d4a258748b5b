"""The VAE's numbers against sums and closed forms; each known wrong answer meets its own hint."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from flowlab import Flow
from flowlab.bijections import ScaleShift
from flowlab.densities import StandardNormal
from flowlab.lessons import exercises
from flowlab.lessons.base import order
from flowlab.lessons.the_vae import figures, toys
from flowlab.lessons.the_vae.exercises import best_encoder, fit_vae, importance_bound, says_nothing
from flowlab.lessons.the_vae.explorer import DecodeThePlane
from flowlab.lessons.the_vae.toys import seeded

# Pictures and toys


def test_the_bound_lies_below_log_p_and_importance_weights_climb_to_it():
    vae, x = toys.trained(), toys.digits("test")[0][:20]
    with torch.no_grad():
        exact = toys.log_joint_on_grid(vae, x).logsumexp(-1)
        finer = toys.log_joint_on_grid(vae, x, 6.0, 201).logsumexp(-1)
        mu, sigma = vae.q(x)
        e = torch.randn(2000, *mu.shape, generator=seeded(0))
        z = mu + sigma * e
        log_w = vae.log_likelihood(x, z) - 0.5 * z.square().sum(-1) + 0.5 * e.square().sum(-1) + sigma.log().sum(-1)
    torch.testing.assert_close(exact, finer, rtol=0, atol=0.05)
    bounds = [float(log_w[:S].logsumexp(0).sub(math.log(S)).mean()) for S in (1, 10, 2000)]
    assert bounds[0] < bounds[1] < bounds[2] < float(exact.mean()) + 0.02
    assert float(exact.mean()) - bounds[2] < 0.2


def test_the_two_terms_are_those_of_the_bound():
    vae, x = toys.trained(), toys.digits("test")[0][:4]
    with torch.no_grad():
        draws = torch.stack([torch.stack(vae.terms(x, seeded(s))) for s in range(400)])
        mu, sigma = vae.q(x)
        q, p = torch.distributions.Normal(mu, sigma), torch.distributions.Normal(0.0, 1.0)
        torch.testing.assert_close(draws[0, 1], torch.distributions.kl_divergence(q, p).sum(-1))
        ink = vae.decoder(mu).sigmoid()
        torch.testing.assert_close(
            vae.log_likelihood(x, mu), torch.distributions.Bernoulli(ink).log_prob(x).sum(-1), rtol=1e-4, atol=1e-3
        )


def test_training_raises_the_bound():
    vae = toys.VAE(2, seeded(0), hidden=32)
    seen = toys.learn(vae, toys.digits("train")[0], 60, every=20)
    assert [step for step, *_ in seen] == [0, 20, 40, 60]
    assert seen[-1][1] - seen[-1][2] > seen[0][1] - seen[0][2] + 20
    assert seen[0][2] == pytest.approx(0, abs=1e-6)  # an MLP starts at 0: q = N(0, I)


def test_the_plane_shows_what_the_decoder_and_the_encoder_say():
    explorer = DecodeThePlane()
    picture = explorer.picture
    at = picture.mu[12]
    explorer.set(z1=float(at[0].round(2)), z2=float(at[1].round(2)), spread=True)
    assert explorer.errors == [] and explorer.numbers["distance to the nearest"] < 0.02
    torch.testing.assert_close(torch.as_tensor(picture.near[0].get_array()), picture.x[12].view(14, 14))
    assert picture.ellipses[0].get_visible()
    with torch.no_grad():
        z = torch.tensor([[explorer.controls["z1"].value, explorer.controls["z2"].value]])
        ink = picture.vae.decoder(z).sigmoid().view(14, 14)
    torch.testing.assert_close(torch.as_tensor(np.asarray(picture.decoded.get_array())), ink)
    explorer.on_pointer("down", picture.plane, 1.234, -0.5)
    assert (explorer.controls["z1"].value, explorer.controls["z2"].value) == (1.23, -0.5)
    with pytest.raises(ValueError, match="two latents, which make a plane, but got 3"):
        DecodeThePlane(toys.VAE(3, seeded(0)))


def test_preimages_of_a_flow_and_of_a_map_that_folds():
    flow = Flow(ScaleShift(1), StandardNormal(1)).double()
    with torch.no_grad():
        flow.bijection.log_scale.fill_(-0.7)
        at = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
        found = toys.by_preimages(lambda z: flow.bijection.inverse(z)[0], at)
        torch.testing.assert_close(found.log(), flow.log_prob(at), rtol=1e-3, atol=1e-3)
    at = torch.tensor([-0.5, 0.51, 2.03], dtype=torch.float64)  # z² has no z, and two
    chi = torch.where(at > 0, (-at / 2).exp() / (2 * math.pi * at.abs()).sqrt(), 0.0)
    found = toys.by_preimages(lambda z: torch.stack((z, z**2)), at[:, None])  # a stack
    torch.testing.assert_close(found[0], StandardNormal(1).log_prob(at[:, None]).exp(), rtol=5e-3, atol=0)
    torch.testing.assert_close(found[1], chi, rtol=1e-2, atol=0)


def test_what_stands_still_stays_within_its_panels():
    log_p = torch.full((1, 41, 41), -50.0)
    log_p[0, 30, 10] = 0.0  # z₁ = 2.5, z₂ = −2.5
    axes = figures.posteriors(torch.zeros(1, 16), log_p, torch.tensor([[2.0, -2.0]]), torch.ones(1, 2) / 2, 5.0).axes[1]
    assert axes.get_xlim()[0] < 1.0 < 3.0 < axes.get_xlim()[1]
    assert axes.get_ylim()[0] < -3.0 < -1.0 < axes.get_ylim()[1]


# Exercises


def test_an_exercise_that_has_moved_here_is_found_by_the_names_that_it_had():
    for name in ("the_elbo.5", "08.5"):
        assert order.renamed(name) == "the_vae.2"
    assert order.meant("the_elbo.5") == order.meant("the_vae.2") == "the_vae.2"
    assert exercises("the_vae")[order.meant("the_elbo.5")].answer is importance_bound


def posterior(x, W, b, sigma):
    precision = torch.eye(W.shape[1]).to(W) + W.T @ W / sigma**2
    return precision, torch.linalg.solve(precision, W.T @ (x - b).T / sigma**2).T


def test_no_other_encoder_has_a_higher_bound():
    W, b, x = torch.randn(5, 2, generator=seeded(0)).double(), torch.zeros(5).double(), torch.ones(1, 5).double()
    precision, mean = posterior(x, W, b, 0.7)
    exact = MultivariateNormal(mean[0], precision_matrix=precision)

    def kl(mu, s):
        return float(torch.distributions.kl_divergence(MultivariateNormal(mu[0], torch.diag(s**2)), exact))

    mu, s = best_encoder(x, W, b, 0.7)
    best = kl(mu, s)
    assert best == pytest.approx(float(0.5 * (precision.diagonal().log().sum() - precision.logdet())), abs=1e-9)
    for move, stretch in ((0.01, 1.0), (0.0, 1.02), (0.0, 0.98)):
        assert kl(mu + move, stretch * s) > best


def kl(mu, sigma):
    return 0.5 * (mu**2 + sigma**2 - 1) - sigma.log()


def from_joint(x, W, b, sigma):
    """Right: by the joint Gaussian of x and z."""
    C = W @ W.T + sigma**2 * torch.eye(len(W)).to(W)
    mu = (x - b) @ torch.linalg.inv(C) @ W
    return mu, 1 / torch.sqrt(1 + W.square().sum(0) / sigma**2)


def by_descent(x, W, b, sigma):
    """Right: the deviations by climbing the bound."""
    precision, mu = posterior(x, W, b, sigma)
    log_s = torch.zeros(len(precision), dtype=x.dtype, requires_grad=True)
    with torch.enable_grad():
        adam = torch.optim.LBFGS([log_s], max_iter=200, line_search_fn="strong_wolfe")

        def loss():
            adam.zero_grad()
            value = (0.5 * precision.diagonal() * (2 * log_s).exp() - log_s).sum()
            value.backward()
            return value

        adam.step(loss)
    return mu, log_s.exp()


class Networks(nn.Module):
    """Right: an encoder and a decoder that are networks, and the KL by a sample."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.encoder = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 4))
        self.decoder = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 4))
        self.t = nn.Parameter(torch.zeros(4))

    def forward(self, x, generator):
        mu, log_s = self.encoder(x).chunk(2, -1)
        e = torch.randn(mu.shape, generator=generator)
        z = mu + log_s.exp() * e
        log_q, log_pz = (-0.5 * e**2 - log_s).sum(-1), -0.5 * z.square().sum(-1)
        d = (x - self.decoder(z)) / self.t.exp()
        return -0.5 * d.square().sum(-1) - self.t.sum() - 2 * math.log(2 * math.pi) + log_pz - log_q


def with_networks(x):
    model = Networks()
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(1000):
        adam.zero_grad()
        (-model((x - 0.0)[torch.randint(len(x), (128,), generator=seeded(step))], seeded(step)).mean()).backward()
        adam.step()
    return model


def one_gaussian(x):
    """The exact density of a fitted Gaussian is a bound too, with no gap."""
    p = MultivariateNormal(x.mean(0), torch.cov(x.T))
    return lambda rows, generator: p.log_prob(rows)


def in_numpy(x):
    bound = fit_vae(x)
    return lambda rows, generator: bound(rows, generator).detach().numpy()


def off(change):
    def answer(x):
        bound = one_gaussian(x)
        return lambda rows, generator: change(bound(rows, generator))

    return answer


def independent(x):
    p = torch.distributions.Normal(x.mean(0), x.std(0))
    return lambda rows, generator: p.log_prob(rows).sum(-1) - 0.1


def encoder(mu=lambda x, W, b, sigma: posterior(x, W, b, sigma)[1], s=lambda precision: precision.diagonal().rsqrt()):
    return lambda x, W, b, sigma: (mu(x, W, b, sigma), s(posterior(x, W, b, sigma)[0]))


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, encoder(lambda x, W, b, sigma: (x - b) @ torch.linalg.pinv(W).T), "least squares"),
    (1, encoder(lambda x, W, b, sigma: posterior(x, W, 0 * b, sigma)[1]), "Where is b"),
    (1, encoder(lambda x, W, b, sigma: (x - b) @ W), "where is its top"),
    (1, encoder(s=lambda precision: precision.inverse().diagonal().sqrt()), "posterior's margins"),
    (1, encoder(s=lambda precision: 1 / precision.diagonal()), "These are variances"),
    (1, encoder(s=lambda precision: torch.ones(len(precision))), "Σ log s_d highest"),
    (1, lambda x, W, b, sigma: posterior(x, W, b, sigma)[1], "Return two things"),
    (2, lambda w: importance_bound(w).mean(), "One number came"),
    (2, lambda w: w.logsumexp(1) - math.log(w.shape[1]), "averaged over the points"),
    (2, lambda w: importance_bound(w)[:2], "Expected shape"),
    (2, lambda w: -importance_bound(w), "minus the bound"),
    (2, lambda w: w.mean(0), "mean of the logs"),
    (2, lambda w: w.logsumexp(0), "log of the sum"),
    (2, lambda w: w.logsumexp(0) / len(w), "inside the logarithm"),
    (2, lambda w: w.logsumexp(0) + math.log(len(w)), "log S has the wrong sign"),
    (2, lambda w: w.exp().mean(0), "Take its logarithm"),
    (2, lambda w: w.amax(0), "best sample alone"),
    (2, lambda w: w.exp().mean(0).log(), "Use logsumexp"),
    (2, lambda w: w.median(0).values, "then its logarithm"),
    (3, lambda mu, sigma: ~says_nothing(mu, sigma), "the other way round"),
    (3, lambda mu, sigma: kl(mu, sigma).mean(0) == 0, "call one of them alive"),
    (3, lambda mu, sigma: torch.ones(mu.shape[1], dtype=torch.bool), "narrow and elsewhere"),
    (3, lambda mu, sigma: sigma.mean(0) > 0.99, "look at sigma alone"),
    (3, lambda mu, sigma: kl(mu, sigma).median(0).values < 0.02, "Is it the median"),
    (3, lambda mu, sigma: kl(mu, sigma).mean(0) < 0.1, "above 0.02 nats"),
    (3, lambda mu, sigma: kl(mu, sigma).mean(0), "True or False for each"),
    (4, off(lambda bound: -bound), "the loss, perhaps"),
    (4, off(lambda bound: bound + 0.5), "no bound can be"),
    (4, independent, "are not used yet"),
    (4, off(lambda bound: bound - 0.5), "Come within 0.35"),
    (4, lambda x: 3.0, "the bound as a function"),
]

RIGHT = [
    (1, encoder()),
    (1, from_joint),
    (1, by_descent),
    (2, lambda w: w.amax(0) + (w - w.amax(0)).exp().mean(0).log()),
    (2, lambda w: (w - math.log(len(w))).logsumexp(0)),
    (2, lambda w: torch.stack([torch.logsumexp(column, 0) for column in w.T]) - math.log(w.shape[0])),
    (3, lambda mu, sigma: [float(column.mean()) < 0.03 for column in kl(mu, sigma).T]),
    (3, lambda mu, sigma: (0.5 * (mu.square().mean(0) + sigma.square().mean(0) - 1 - 2 * sigma.log().mean(0))) < 0.01),
    (3, lambda mu, sigma: np.logical_and(mu.std(0).numpy() < 0.15, (sigma.mean(0) - 1).abs().numpy() < 0.04)),
    (4, with_networks),
    (4, one_gaussian),
    (4, in_numpy),
]
