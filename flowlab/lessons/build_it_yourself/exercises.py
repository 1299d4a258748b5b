"""The exercises: a coupling, a flow, its training, a table of one's own, and a bug in code."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from flowlab.datasets import TwoMoons
from flowlab.lessons.base.exercise import Exercise, close, expect, numbers
from flowlab.lessons.build_it_yourself.toys import Coupling, Flow, beside_a_gaussian, train

LOG_2PI = math.log(2 * math.pi)


def mended(x, nets):
    """The function ``broken`` of the cell above, without its bug: x (n, 2) to z (n, 2) and log|det| (n,).

    ``nets`` is a list of functions, one for each layer: net(a) gives s and t, (n, 1) each, for the column a (n, 1).
    """
    columns, log_det = list(x.split(1, dim=-1)), torch.zeros(len(x))
    for k, net in enumerate(nets):
        odd = k % 2
        s, t = net(columns[odd])
        moving = columns[1 - odd]
        columns[1 - odd] = (moving - t) / s.exp() if odd else s.exp() * moving + t
        log_det = log_det + (1 - 2 * odd) * s[:, 0]  # an odd layer divides by exp(s)
    return torch.cat(columns, dim=-1), log_det


def check_coupling(answer: Callable) -> None:
    """Both directions for three masks: the Jacobian by autograd, what passes, what is read, and the way back."""
    for mask in ([True, False], [False, True], [True, False, False, True, False]):
        _check_layer(_shaken(_module(answer(list(mask)), "Coupling(mask)")), mask)


def _check_layer(layer: nn.Module, mask: list[bool]) -> None:
    passes = torch.tensor(mask)
    x = torch.randn(6, len(mask), generator=Generator().manual_seed(5))
    z, log_det = _pair(layer(x.clone()), x.shape, "forward")
    expect(
        not close(z[:, ~passes], x[:, ~passes]) or close(z[:, passes], x[:, passes]),
        "Your mask is turned: where it is True, z = x, and the other coordinates move.",
    )
    expect(close(z[:, passes], x[:, passes]), "Where the mask is True, z is x unchanged. Yours is changed there.")
    J = _jacobians(lambda v: layer(v)[0], x)  # (6, D, D)
    moving = J[:, ~passes]
    expect(moving[:, :, passes].abs().max() > 1e-4, "Where x moves, s and t must depend on what passes. Yours do not.")
    off = moving[:, :, ~passes] * (1 - torch.eye(int((~passes).sum())))
    own = moving[:, :, ~passes].diagonal(dim1=-2, dim2=-1)
    linear = _jacobians(lambda v: layer(v)[0], torch.where(passes, x, x + 1.0))[:, ~passes][:, :, ~passes]
    expect(
        off.abs().max() < 1e-4 and close(own, linear.diagonal(dim1=-2, dim2=-1)),
        "Your network sees coordinates that move. Give it x * mask, or nobody can compute s and t on the way back.",
    )
    right = own.abs().log().sum(-1)
    expect(not close(log_det, -right), "Forward scales by exp(s), so its log|det| is +Σ s.")
    expect(not close(log_det, own.abs().prod(-1)), "This is the determinant. Take its logarithm, which is Σ s.")
    expect(
        close(log_det, right),
        f"Autograd says log|det| = {right[0]:.3f} at one point, and forward says {log_det[0]:.3f}. Sum the s of the "
        "coordinates that move, and of no others.",
    )
    far = _jacobians(lambda v: layer(v)[0], 1000 * x)[:, ~passes][:, :, ~passes].diagonal(dim1=-2, dim2=-1)
    expect(
        bool((far.abs().log().abs() < 2.01).all()),
        "Far from the data your s grows beyond 2 in size. Write s = 2 tanh(raw), or one bad step ends the training.",
    )
    back, log_det_back = _pair(layer.inverse(z.clone().float()), x.shape, "inverse")
    again = layer(z.float())[0]
    expect(not close(back, again) or close(back, x), "Your inverse is the forward map once more.")
    s = own.abs().log()
    t = z[:, ~passes] - x[:, ~passes] * s.exp()
    expect(
        not close(back[:, ~passes], z[:, ~passes] * (-s).exp() - t),
        "Your inverse divides first and subtracts then. Forward shifts last, so undo the shift first.",
    )
    expect(close(back, x), "inverse(forward(x)) is not x. Solve z = x · exp(s) + t for x.")
    expect(not close(log_det_back, log_det), "The log|det| of the inverse is that of the inverse map: −Σ s.")
    expect(close(log_det_back, -log_det), "There and back, the two log|det| must add up to 0.")


def check_flow(answer: Callable) -> None:
    """Masks take turns; the density has the base's constant, area 1, and is that of the samples."""
    masks: list[list[bool]] = []
    layers: list[nn.Module] = []

    def coupling(mask: Any) -> nn.Module:
        masks.append([bool(passes) for passes in mask])
        with torch.random.fork_rng():
            torch.manual_seed(len(masks))
            layers.append(Coupling(masks[-1], 8))
        return layers[-1]

    flow = _module(answer(2, 4, coupling), "Flow(D, depth, coupling)")
    expect(len(masks) == 4, f"Expected four layers for depth = 4, but coupling was called {len(masks)} times.")
    expect(all(len(mask) == 2 for mask in masks), "A mask has one bool for each of the D coordinates.")
    alternate = all(a != b and any(a) and any(b) for a, b in itertools.pairwise(masks))
    expect(alternate, f"The masks should take turns, but yours are {masks}. What never moves stays normal.")
    expect(hasattr(flow, "layers"), "Keep the layers in self.layers: the pictures of this lesson look there.")
    held, wanted = (sum(p.numel() for p in module.parameters()) for module in (flow, nn.ModuleList(layers)))
    expect(
        held == wanted,
        "Your flow does not know the parameters of its layers, so training would move nothing. Put the layers into "
        "torch.nn.ModuleList.",
    )
    x = 1.5 * torch.randn(50, 2, generator=Generator().manual_seed(1))
    log_p = numbers(flow.log_prob(x.clone()), (50,), "log_prob(x)")
    with torch.no_grad():
        h, dets = x, []
        for layer in layers:
            h, det = layer(h)
            dets.append(det)
    base, det = -0.5 * h.square().sum(-1) - LOG_2PI, torch.stack(dets).sum(0)
    expect(not close(log_p, base - det), "The sign of log|det| is turned: log p(x) = log p_Z(z) + log|det ∂z/∂x|.")
    expect(not close(log_p, base), "This is log p_Z(z) alone. What do the layers do to volumes?")
    expect(not close(log_p, base + det + LOG_2PI), "The base's constant is missing: −½ D log 2π.")
    expect(not close(log_p, base + det + 0.5 * LOG_2PI), "The base has D coordinates, and each brings −½ log 2π.")
    expect(
        not close(log_p, -0.5 * x.square().sum(-1) - LOG_2PI + det),
        "You ask the base at x. It knows the density of z, behind the last layer.",
    )
    expect(not close(log_p, base + dets[-1]), "Only the last layer's log|det| is in it. Those of all layers add up.")
    axis = torch.linspace(-9, 9, 361)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        p = numbers(flow.log_prob(grid), (len(grid),), "log_prob(x)").exp() * float(axis[1] - axis[0]) ** 2
    area = float(p.sum())
    expect(abs(area - 1) < 0.02, f"The density integrates to {area:.3f} over the plane. Which term is wrong?")
    draws = [numbers(flow.sample(4000, Generator().manual_seed(s)), (4000, 2), "sample(n)") for s in (0, 0, 1)]
    expect(torch.equal(draws[0], draws[1]), "One seed gave two samples: draw the noise with generator=generator.")
    expect(not torch.equal(draws[0], draws[2]), "Two seeds gave one sample: draw the noise from the generator given.")
    mean = (p[:, None] * grid).sum(0)
    spread = ((p[:, None] * grid.square()).sum(0) - mean.square()).sqrt()
    with torch.no_grad():
        entropy = numbers(-flow.log_prob(draws[0].float()), (4000,), "log_prob(x)")
    ideal = float(-(p * (p / float(axis[1] - axis[0]) ** 2).clamp(min=1e-30).log()).sum())
    away = float(((draws[0].mean(0) - mean) / (spread / math.sqrt(4000))).abs().max())
    off = abs(float(entropy.mean()) - ideal) / (float(entropy.std()) / math.sqrt(4000))
    expect(
        away < 5 and off < 5,
        "The density is right, and the samples are not its samples. Undo the last layer first: go through the layers "
        "in reverse, each by its inverse.",
    )
    wide = answer(5, 1, lambda mask: _Nothing())
    value = numbers(wide.log_prob(torch.zeros(1, 5)), (1,), "log_prob(x)")
    expect(close(value, [-2.5 * LOG_2PI], atol=1e-3), "In five dimensions the constant of your base is off.")


class _Nothing(nn.Module):
    """A layer that does nothing."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, torch.zeros(len(x))

    inverse = forward


class _Line(nn.Module):
    """N(mean, exp(2 s) I) of the plane, which writes down the rows that it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.s = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(()))
        self.asked: list[Tensor] = []

    def log_prob(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        return -0.5 * ((x - self.mean) * (-self.s).exp()).square().sum(-1) - 2 * self.s - LOG_2PI


def check_train(answer: Callable) -> None:
    """A model of three numbers learns; batches vary; held-out rows move nothing; the curve tells what is so."""
    x, held = (torch.randn(n, 2, generator=Generator().manual_seed(n)) + torch.tensor([3.0, -1.0]) for n in (600, 300))

    def run(held_out: Tensor, rate: float = 0.05) -> tuple[_Line, Any]:
        model = _Line()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            curve = answer(model, x.clone(), held_out.clone(), 200, rate, 64, Generator().manual_seed(3))
        return model, curve

    model, curve = run(held)
    expect(curve is not None, "Your function returned None. Return the curve.")
    moved = [float(p.detach().abs().max()) for p in model.parameters()]
    expect(max(moved) > 0, "Nothing has moved: is there a backward() and a step() in the loop?")
    with torch.no_grad():
        reached, best = float(model.log_prob(held).mean()), -LOG_2PI - float((held - x.mean(0)).square().mean())
    asked = model.asked[:-1]
    expect(
        reached > -20,
        "The log-likelihood has fallen and not risen. The loss is −log p, and Adam goes down.",
    )
    sizes = [len(rows) for rows in asked if len(rows) not in (len(x), len(held))]
    expect(sizes and max(sizes) <= 64, "Each step takes all rows. Draw ``batch`` of them anew for each step.")
    batches = {tuple(rows[0].tolist()) for rows in asked if len(rows) == 64}
    expect(len(batches) > 20, "Each step takes the same batch. Draw the rows inside the loop.")
    expect(
        reached > best - 0.06,
        f"After 200 steps the model reaches {reached:.2f} nats on held-out rows, and {best:.2f} can be had. Is each "
        "step's gradient its own (zero_grad)?",
    )
    other, _ = run(held + 100.0)
    same = all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    expect(same, "With other rows held out, the parameters end elsewhere: the held-out rows must not be trained on.")
    slow, _ = run(held, rate=1e-6)
    expect(float(slow.mean.detach().abs().max()) < 0.01, "The argument rate has no effect: give it to Adam.")
    pairs = numbers([[float(part) for part in pair] for pair in curve], None, "the curve")
    expect(pairs.ndim == 2 and pairs.shape[1] == 2, "The curve is a list of pairs (step, log-likelihood).")
    expect(len(pairs) >= 10, f"Expected at least ten points on the curve, but got {len(pairs)}.")
    expect(
        not close(pairs[-1, 1], -reached),
        "Your curve holds the loss, −log p. Asked is the log-likelihood itself.",
    )
    expect(
        pairs[-1, 0] == 200 and close(pairs[-1, 1], reached, atol=2e-3),
        f"The last pair of the curve should be (200, {reached:.3f}), what the trained model gives held-out rows.",
    )


def check_table(answer: Callable) -> None:
    """Two moons in odd units: the Gaussian's number exactly, and the flow's between the Gaussian's and the truth."""
    toy, scale, shift = TwoMoons(noise=0.1), torch.tensor([50.0, 0.2]), torch.tensor([300.0, -20.0])
    u, u_new = (toy.sample(n, Generator().manual_seed(seed)) for n, seed in ((1000, 1), (2000, 2)))
    x, new = (scale * rows + shift for rows in (u, u_new))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = numbers(answer(x.clone(), new.clone()), (2,), "the two log-likelihoods")
    gaussian, flow = (float(value) for value in pair)
    log_p = toy.log_prob(u_new) - scale.log().sum()
    truth, luck = float(log_p.mean()), 4 * float(log_p.std()) / math.sqrt(len(log_p))
    covariance = torch.cov(x.double().T)
    exact = float(torch.distributions.MultivariateNormal(x.double().mean(0), covariance).log_prob(new.double()).mean())
    units = float(x.std(0).log().sum())
    expect(
        abs(gaussian - exact - units) > 0.02 or abs(units) < 0.05,
        f"Your numbers are those of the standardized rows. In the units of the table a density is lower by Σ log std = "
        f"{units:.2f} nats.",
    )
    for wrong in (exact - units, exact + 2 * units):
        expect(abs(gaussian - wrong) > 0.02, "Σ log std counts once, with a minus: log p(x) = log p(u) − Σ log std.")
    expect(
        abs(flow - exact) > 0.02 or abs(gaussian - exact) < 0.02,
        "The two numbers stand in the other order: the Gaussian's first, then the flow's.",
    )
    diagonal = float(torch.distributions.Normal(x.mean(0), x.std(0)).log_prob(new).sum(-1).mean())
    expect(
        abs(gaussian - diagonal) > 0.01 or abs(diagonal - exact) < 0.02,
        "Your Gaussian has independent columns. Give it the whole covariance.",
    )
    expect(
        abs(gaussian - exact) < 0.02,
        f"The Gaussian with the mean and the covariance of the training rows has {exact:.3f} nats on the new rows, and "
        f"yours {gaussian:.3f}. Mean over the rows, not over rows and columns?",
    )
    expect(flow < truth + luck, f"Your flow claims {flow:.2f} nats, and the exact density has {truth:.2f}: an error.")
    expect(
        flow > exact + 0.4,
        f"The Gaussian has {gaussian:.2f} nats, your flow {flow:.2f}, and {truth:.2f} can be had. Standardize before "
        "you fit, and train longer or with another rate.",
    )


def check_mended(answer: Callable) -> None:
    """Whatever map it is: its log|det| is autograd's, for every number of layers, and every layer still counts."""
    x = torch.randn(8, 2, generator=Generator().manual_seed(7))

    def net(seed: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        w = torch.randn(4, generator=Generator().manual_seed(seed))
        return lambda a: (0.5 + torch.tanh(w[0] * a + w[1]), w[2] * a + torch.sin(w[3] * a))

    for depth in (1, 2, 3, 5):
        nets = [net(seed) for seed in range(depth)]

        def f(v: Tensor, nets: Sequence[Callable] = nets) -> Tensor:
            return answer(v, list(nets))[0]

        z, log_det = _pair(answer(x.clone(), list(nets)), x.shape, "mended")
        s = [float(net(seed)(x[:1, :1])[0]) for seed in range(depth)]
        right = _jacobians(f, x).det().abs().log()
        for k in range(depth):
            other = _pair(answer(x.clone(), [net(9) if i == k else n for i, n in enumerate(nets)]), x.shape, "mended")
            expect(
                not close(other[0], z),
                f"Layer {k} does nothing any more: z is the same whatever its network is. Mend the layer, keep it.",
            )
        expect(right.isfinite().all(), "Your map can no longer be inverted: its determinant is 0.")
        expect(
            depth > 1 or close(log_det, right),
            f"With one layer log|det| was right, s = {s[0]:.2f}, and now it is {log_det[0]:.2f}. Look at the other "
            "kind of layer.",
        )
        expect(
            not close(log_det, -right) or close(log_det, right),
            "Now every sign is turned. Only one kind of layer was wrong.",
        )
        expect(
            close(log_det, right),
            f"With {depth} layers log|det| is {log_det[0]:.3f} at one point, and autograd says {right[0]:.3f}. Compare "
            "layer by layer: what does each do to b, and what does it add to log_det?",
        )


def _module(value: Any, name: str) -> nn.Module:
    expect(
        isinstance(value, nn.Module),
        f"Expected {name} as a torch.nn.Module, but got {type(value).__name__}. Write class ...(torch.nn.Module), and "
        "call super().__init__() first.",
    )
    return value


def _shaken(layer: nn.Module) -> nn.Module:
    """The layer with parameters that are moved: one that starts as the identity shows nothing."""
    parameters = list(layer.parameters())
    expect(
        parameters,
        "Your layer has no parameters, so nothing can be learned. Make its network in __init__, and keep it in self.",
    )
    g = Generator().manual_seed(3)
    with torch.no_grad():
        for p in parameters:
            p += 0.3 * torch.randn(p.shape, generator=g)
    return layer


def _pair(value: Any, shape: Sequence[int], name: str) -> tuple[Tensor, Tensor]:
    """The points and log|det| that a student's map returned."""
    expect(isinstance(value, tuple | list) and len(value) == 2, f"{name} returns two things: the points and log|det|.")
    points, log_det = numbers(value[0], tuple(shape), "the points"), numbers(value[1], None, "log|det|")
    expect(
        log_det.shape != tuple(shape),
        f"log|det| of {name} came with a number for each coordinate. Sum over the last axis: one for each row.",
    )
    expect(log_det.ndim > 0, f"log|det| of {name} came as one number for the whole batch. Each row has its own.")
    return points, numbers(log_det, (shape[0],), "log|det|")


def _jacobians(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """∂f/∂x at each row, (n, D, D) as float64, by autograd."""
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        z = f(x)
        expect(z.requires_grad, "No gradient flows through your map: leave out detach and no_grad.")
        rows = [torch.autograd.grad(z[:, i].sum(), x, retain_graph=True)[0] for i in range(x.shape[1])]
    return torch.stack(rows, 1).double()


EXERCISES = [
    Exercise(
        name="build_it_yourself.1",
        question="**A coupling as a module.** From an empty cell: the network, both directions, both log-determinants.",
        answer=Coupling,
        check=check_coupling,
        praise="right. The mask does the indexing: whatever the network says of a coordinate that passes is set to 0.",
        hints=(
            "Three methods besides __init__: one computes s and t from v * mask, and the two directions call it. "
            "Multiply s and t by 1 − mask, and the rest needs no indexing.",
            "forward: x * s.exp() + t and s.sum(-1). inverse: (z − t) * (−s).exp() and −s.sum(-1), with the same s, t.",
        ),
        why=(
            "Because s and t depend only on what passes, the Jacobian, sorted, is triangular: log|det| is Σ s. "
            "The same s and t are known on the way back, so the inverse needs no inverse of the network."
        ),
        aims=("write",),
    ),
    Exercise(
        name="build_it_yourself.2",
        question="**A flow.** Stack couplings with masks that take turns, give it a density, and samples of it.",
        answer=Flow,
        check=check_flow,
        praise="right. Its density has area 1 before any training: a flow cannot be unnormalized.",
        hints=(
            "log_prob walks x → z through the layers and adds up log|det|; sample walks z → x, last layer first.",
            "Masks: [(i + k) % 2 == 0 for i in range(D)] for layer k. Layers: torch.nn.ModuleList. "
            "log p_Z(z) = −½ Σ z² − ½ D log 2π.",
        ),
        why=(
            "Log-determinants of maps in a row add up, and the base knows the density of z, behind the last layer. "
            "Samples take the same maps backward, so the last layer is undone first."
        ),
        aims=("stack",),
    ),
    Exercise(
        name="build_it_yourself.3",
        question="**The training loop**, for any model with a log_prob, and the curve of the rows held out.",
        answer=train,
        check=check_train,
        praise="right. Read the held-out curve: the loss of the batches falls for a flow that overfits too.",
        hints=(
            "For each step: draw batch rows with torch.randint, zero_grad, backward of −log_prob(...).mean(), step.",
            "Every steps // 20 steps append (step, float(flow.log_prob(held_out).mean())), under torch.no_grad().",
        ),
        why=(
            "The mean of −log p over random rows is an unbiased estimate of the loss, so a step needs few rows. "
            "Rows that never move a parameter tell what the flow does with points it has not seen."
        ),
        aims=("train",),
    ),
    Exercise(
        name="build_it_yourself.4",
        question=(
            "**Open task: a table beside a Gaussian.** Use your own parts. Choose depth, width and steps; the flow has "
            "to be at least 0.4 nats better than the Gaussian where the rows are two moons in odd units."
        ),
        answer=beside_a_gaussian,
        check=check_table,
        praise="right. Both numbers are in the units of the table, so their difference is what the flow has learned.",
        hints=(
            "Standardize by the mean and the deviation of the training rows, fit both models there, and go back to the "
            "table's units at the end.",
            "log p(x) = log p(u) − Σ log std, for both models. The Gaussian: torch.distributions.MultivariateNormal.",
        ),
        why=(
            "Both models live on the standardized rows, and Σ log std takes both back to the units of the table. "
            "All that is fitted comes from the training rows, so the new rows are new."
        ),
        aims=("compare",),
    ),
    Exercise(
        name="build_it_yourself.5",
        question="**A bug in code.** The function `broken` above has one mistake. Find it, and write it anew.",
        answer=mended,
        check=check_mended,
        praise="right. A layer that is used in the direction of its inverse has the log-determinant of that direction.",
        hints=(
            "Which behavior is wrong: the way back, or the area? Which number of layers shows it first?",
            "Layer 0 multiplies by exp(s). What does layer 1 do with exp(s), and what does it add to log_det?",
        ),
        why=(
            "An odd layer divides by e^s, so each of its coordinates adds −s to log|det|. "
            "The way back was right all along, and so only the area, or autograd, could find the mistake."
        ),
        aims=("find",),
    ),
]
