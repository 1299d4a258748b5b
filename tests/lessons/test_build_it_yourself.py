"""The flow in plain PyTorch runs where there is no flowlab; each known wrong answer meets its own hint."""

import ast
import importlib.metadata
import math
import os
import re
import subprocess
import sys
import textwrap

import nbformat
import notebook_format
import numpy as np
import pytest
import torch
from torch import nn

from flowlab.datasets import TwoMoons
from flowlab.lessons import exercises, yours
from flowlab.lessons.base import order
from flowlab.lessons.build_it_yourself import figures, toys
from flowlab.lessons.build_it_yourself.explorer import StepThrough
from flowlab.lessons.build_it_yourself.toys import Coupling, Flow, beside_a_gaussian, train

SCRIPT = toys.__file__
NOTEBOOK = order.notebooks()[order.numbers()["build_it_yourself"]]


def needed(*names):
    """These distributions, and all that they need themselves."""
    found, waiting = set(), list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop().lower())
        if name not in found:
            try:
                asked = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue  # needed on other machines only
            found.add(name)
            waiting += [re.match(r"[\w.-]+", line).group() for line in asked if "extra ==" not in line]
    return found


def bare(tmp_path, *argv):
    """Run a script where nothing is installed but torch, numpy and what these two need; give back what it prints."""
    site = tmp_path / "site"
    site.mkdir()
    for name in needed("torch", "numpy"):
        for file in importlib.metadata.files(name) or ():
            if (top := file.parts[0]) != ".." and not (site / top).exists():
                (site / top).symlink_to(file.locate().parents[len(file.parts) - 1] / top)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-S", *map(str, argv)]  # without the folder where the rest is installed
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def followed():
    """The cells of the notebook that build, in their order, with the worked answers where the stubs are."""
    parts = []
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        tags = cell.metadata.get("tags", [])
        if "by-hand" in tags:
            parts.append(cell.source)
        parts += [
            exercises()[tag.removeprefix("exercise-")].solution.partition("\n\n\ncheck(")[0]
            for tag in tags
            if tag.startswith("exercise-build_it_yourself.") and tag[-1] in "123"
        ]
    return "\n\n\n".join(parts)


@pytest.mark.slow
def test_who_follows_the_notebook_to_the_letter_has_a_flow_where_there_is_no_flowlab(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(followed())
    assert "flowlab" not in followed()
    steps, nats = re.search(r"after (\d+) steps: (-\d\.\d+) nats", bare(tmp_path, script)).groups()
    truth = float(TwoMoons(noise=0.1).log_prob(toys.two_moons(1000, torch.Generator().manual_seed(2))).mean())
    assert int(steps) == 500 and -0.02 < truth - float(nats) < 0.2


@pytest.mark.parametrize("module", ["flowlab", "matplotlib", "sklearn"])
def test_where_nothing_is_installed_nothing_is_found(tmp_path, module):
    script = tmp_path / "cheat.py"
    script.write_text(f"import {module}")
    with pytest.raises(AssertionError, match=f"No module named '{module}'"):
        bare(tmp_path, script)


@pytest.mark.slow
def test_the_script_takes_a_table_where_there_is_no_flowlab(tmp_path):
    x = TwoMoons(noise=0.1).sample(600, torch.Generator().manual_seed(0)) * torch.tensor([50.0, 0.2]) + 7
    np.savetxt(tmp_path / "mine.csv", x, delimiter=",", header="a,b", comments="")
    gaussian, flow = re.findall(r"-\d+\.\d+", bare(tmp_path, SCRIPT, "mine.csv"))
    assert float(flow) > float(gaussian) + 0.3


def test_what_is_built_is_short_and_needs_torch_and_numpy_alone():
    with open(SCRIPT, encoding="utf-8") as file:
        text = file.read()
    assert len(text.splitlines()) <= 120
    asked = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])
    }
    assert asked == {"math", "sys", "numpy", "torch"}


def test_the_moons_are_those_whose_density_is_known():
    x = toys.two_moons(20_000, torch.Generator().manual_seed(0))
    y = TwoMoons(noise=0.1).sample(20_000, torch.Generator().manual_seed(1))
    log_p, log_q = (TwoMoons(noise=0.1).log_prob(rows) for rows in (x, y))
    assert float((log_p.mean() - log_q.mean()).abs()) < 4 * float(log_q.std()) / 100
    torch.testing.assert_close(torch.cov(x.T), torch.cov(y.T), rtol=0.05, atol=0.01)


def test_the_layers_of_a_flow_add_up_to_its_log_density():
    explorer = StepThrough()
    explorer.set(layer=explorer.picture.depth, point=11)
    x = toys.two_moons(figures.POINTS, torch.Generator().manual_seed(4))[11:12]
    with torch.no_grad():
        log_p = float(figures.trained().log_prob(x))
    assert explorer.numbers["together, log p(x) if the flow ended here"] == pytest.approx(log_p, abs=1e-4)
    explorer.set(layer=0)
    assert explorer.numbers["Σ log |det|"] == 0 and explorer.errors == []


def test_a_click_follows_the_nearest_point():
    explorer = StepThrough()
    x, y = explorer.picture.at[0, 33]
    explorer.on_pointer("down", explorer.picture.left, float(x) + 1e-4, float(y))
    assert explorer.controls["point"].value == 33


def test_an_open_part_is_stood_in_for_and_a_right_one_is_taken(capsys):
    def stub(x, nets):
        """As the notebook has it."""
        ...

    assert yours("build_it_yourself.5", stub) is exercises()["build_it_yourself.5"].answer

    def right(x, nets):
        return exercises()["build_it_yourself.5"].answer(x, nets)

    assert yours("build_it_yourself.5", right) is right
    number = order.label("build_it_yourself.5")
    assert capsys.readouterr().out.splitlines() == [
        f"{number}: the worked answer stands in until yours passes",
        f"{number}: yours",
    ]


def test_a_class_without_a_method_is_a_stub():
    exercise = exercises()["build_it_yourself.1"]
    names = {"torch": torch, "check": lambda name, answer: None}
    exec(exercise.stub, names)
    assert exercise.verdict(names["Coupling"])[0] == "open"


# Exercises


class Layer(Coupling):
    """A right coupling, to be spoiled."""


def layer(**methods):
    return type("Spoiled", (Coupling,), methods)


class Detached(Coupling):
    def forward(self, x):
        z, log_det = super().forward(x)
        return z.detach(), log_det


class ReadsAll(Coupling):
    def scale_and_shift(self, v):
        raw, t = self.net(v).chunk(2, -1)
        return 2 * torch.tanh(raw) * (1 - self.mask), t * (1 - self.mask)


class Unbounded(Coupling):
    def scale_and_shift(self, v):
        raw, t = self.net(v * self.mask).chunk(2, -1)
        return raw * (1 - self.mask), t * (1 - self.mask)


class SumsAll(Coupling):
    def forward(self, x):
        raw, _ = self.net(x * self.mask).chunk(2, -1)
        return super().forward(x)[0], (2 * torch.tanh(raw)).sum(-1)


class MovesAll(Coupling):
    def scale_and_shift(self, v):
        raw, t = self.net(v * self.mask).chunk(2, -1)
        return 2 * torch.tanh(raw), t


class Alone(Coupling):
    """s and t are constants."""

    def scale_and_shift(self, v):
        return super().scale_and_shift(torch.zeros_like(v))


class Forgotten:
    def __init__(self, mask, hidden=8):
        self.mask = mask


class ByHand(nn.Module):
    """A right coupling with indices instead of products, and t first."""

    def __init__(self, mask, hidden=16):
        super().__init__()
        self.a = [i for i, passes in enumerate(mask) if passes]
        self.b = [i for i, passes in enumerate(mask) if not passes]
        self.one, self.two = nn.Linear(len(self.a), hidden), nn.Linear(hidden, 2 * len(self.b))

    def both(self, a):
        t, raw = self.two(torch.tanh(self.one(a))).split(len(self.b), -1)
        return 2 * torch.tanh(raw), t

    def forward(self, x):
        s, t = self.both(x[:, self.a])
        z = x.clone()
        z[:, self.b] = torch.exp(s) * x[:, self.b] + t
        return z, s.sum(1, keepdim=True)

    def inverse(self, z):
        s, t = self.both(z[:, self.a])
        x = z.clone()
        x[:, self.b] = (z[:, self.b] - t) / torch.exp(s)
        return x, (-s).sum(1, keepdim=True)


class Narrow(Coupling):
    """A right coupling with a smaller bound, in another order of its lines."""

    def scale_and_shift(self, v):
        raw, t = self.net(self.mask * v).chunk(2, -1)
        moves = 1.0 - self.mask
        return moves * torch.clamp(raw, -2, 2), moves * t


def flow(**methods):
    return type("Spoiled", (Flow,), methods)


def spoiled_log_prob(change):
    """A flow whose log_prob is put together otherwise: from x, z, and the log-dets of the layers."""

    def log_prob(self, x):
        h, dets = x, []
        for layer in self.layers:
            h, det = layer(h)
            dets.append(det)
        return change(x, h, dets)

    return flow(log_prob=log_prob)


def normal(z):
    return -0.5 * z.square().sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)


def in_order(self, n, generator=None):
    x = torch.randn(n, self.D, generator=generator)
    with torch.no_grad():
        for layer in self.layers:
            x, _ = layer.inverse(x)
    return x


class Listed(Flow):
    def __init__(self, D, depth, coupling):
        nn.Module.__init__(self)
        self.D, self.layers = D, [coupling([(i + k) % 2 == 0 for i in range(D)]) for k in range(depth)]


class SameMask(Flow):
    def __init__(self, D, depth, coupling):
        nn.Module.__init__(self)
        self.D, self.layers = D, nn.ModuleList(coupling([i % 2 == 0 for i in range(D)]) for k in range(depth))


class OddFirst(nn.Module):
    """A right flow: odd coordinates first, the base from torch, the density backward from z."""

    def __init__(self, D, depth, coupling):
        super().__init__()
        mask, self.D, layers = torch.arange(D) % 2 == 1, D, []
        for _ in range(depth):
            layers.append(coupling(mask.tolist()))
            mask = ~mask
        self.layers = nn.Sequential(*layers)

    def log_prob(self, x):
        base, dets = torch.distributions.Normal(0.0, 1.0), []
        for layer in self.layers:
            x, det = layer(x)
            dets.append(det)
        return base.log_prob(x).sum(1) + sum(dets)

    def sample(self, n, generator=None):
        x = torch.empty(n, self.D).normal_(generator=generator)
        for k in range(len(self.layers) - 1, -1, -1):
            x = self.layers[k].inverse(x)[0].detach()
        return x


def loop(
    loss=lambda q, rows: -q.log_prob(rows).mean(),
    rows=lambda n, batch, g, first: torch.randint(n, (batch,), generator=g),
    on=lambda x, held: x,
    zero=True,
    learn=True,
    said=lambda value: value,
    every=10,
    optimizer=torch.optim.Adam,
    rate=lambda rate: rate,
):
    """A student's training, with one thing changed."""

    def answer(flow, x, held_out, steps, lr=5e-3, batch=256, generator=None):
        adam, curve, data = optimizer(flow.parameters(), lr=rate(lr)), [], on(x, held_out)
        first = torch.randint(len(data), (batch,), generator=torch.Generator().manual_seed(0))
        for step in range(1, steps + 1):
            if zero:
                adam.zero_grad()
            loss(flow, data[rows(len(data), batch, generator, first)]).backward()
            if learn:
                adam.step()
            if step % every == 0:
                curve.append((step, said(float(flow.log_prob(held_out).mean().detach()))))
        return curve

    return answer


def early(flow, x, held_out, steps, rate=5e-3, batch=256, generator=None):
    return train(flow, x, held_out, steps, rate, batch, generator)[:-1]


def shuffled(flow, x, held_out, steps, rate=5e-3, batch=256, generator=None):
    """Right: batches by shuffling, without a schedule, and a curve as tensors."""
    adam, curve, waiting = torch.optim.AdamW(flow.parameters(), lr=rate, weight_decay=0.0), [], []
    for step in range(steps):
        if len(waiting) < batch:
            waiting = torch.randperm(len(x), generator=generator).tolist()
        rows, waiting = waiting[:batch], waiting[batch:]
        loss = flow.log_prob(x[rows]).mean().neg()
        grads = torch.autograd.grad(loss, list(flow.parameters()))
        for p, g in zip(flow.parameters(), grads, strict=True):
            p.grad = g
        adam.step()
        if (step + 1) % 5 == 0:
            curve.append([step + 1, flow.log_prob(held_out).detach().mean()])
    return curve


def table(gaussian=lambda g, std: g, flow=lambda f, std: f, steps=1, order=slice(None), whole=True):
    """A student's use, with one thing changed; few steps where the flow does not matter."""

    def answer(x, new):
        std = x.std(0).log().sum()
        mean, covariance = x.mean(0), torch.cov(x.T)
        q = torch.distributions.MultivariateNormal(mean, covariance if whole else torch.diag(torch.diag(covariance)))
        fitted = beside_a_gaussian(x, new, steps)[1]
        return [float(gaussian(q.log_prob(new).mean(), std)), float(flow(fitted, std))][order]

    return answer


def with_numpy(x, new):
    """Right: the Gaussian by a formula in numpy, other sizes."""
    x, new = np.asarray(x, float), np.asarray(new, float)
    mean, C = x.mean(0), np.cov(x.T)
    d = new - mean
    g = -0.5 * (d @ np.linalg.inv(C) * d).sum(1) - 0.5 * np.linalg.slogdet(2 * np.pi * C)[1]
    std = x.std(0)
    u, v = (torch.tensor((rows - mean) / std, dtype=torch.float32) for rows in (x, new))
    q = Flow(2, 4, lambda mask: Coupling(mask, 24))
    train(q, u, v, 300, rate=1e-2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return np.array([g.mean(), float(q.log_prob(v).mean()) - np.log(std).sum()])


def layers(
    det=lambda k, s: -s if k % 2 else s,
    move=lambda k, b, s, t: (b - t) * torch.exp(-s) if k % 2 else b * torch.exp(s) + t,
    log_det=lambda value: value,
):
    """The colleague's function with the given parts; as it stands here it is right."""

    def answer(x, nets):
        total = torch.zeros(len(x))
        for k, net in enumerate(nets):
            a, b = (x[:, :1], x[:, 1:]) if k % 2 == 0 else (x[:, 1:], x[:, :1])
            s, t = net(a)
            b = move(k, b, s, t)
            total = total + det(k, s).sum(-1)
            x = torch.cat((a, b) if k % 2 == 0 else (b, a), -1)
        return x, log_det(total)

    return answer


def by_autograd(x, nets):
    """Right: the log-det from the Jacobian itself."""
    with torch.enable_grad():
        x = x if x.requires_grad else x.clone().requires_grad_()
        z, _ = layers()(x, nets)
        rows = [torch.autograd.grad(z[:, i].sum(), x, create_graph=True)[0] for i in (0, 1)]
    return z, torch.stack(rows, 1).det().abs().log()


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, Forgotten, "as a torch.nn.Module"),
    (1, type("Empty", (nn.Module,), {"__init__": lambda self, mask: nn.Module.__init__(self)}), "has no parameters"),
    (1, lambda mask: Coupling([not passes for passes in mask]), "mask is turned"),
    (1, MovesAll, "Yours is changed there"),
    (1, Alone, "must depend on what passes"),
    (1, ReadsAll, "sees coordinates that move"),
    (1, layer(forward=lambda self, x: (Coupling.forward(self, x)[0], -Coupling.forward(self, x)[1])), "is +Σ s"),
    (1, layer(forward=lambda self, x: (Coupling.forward(self, x)[0], Coupling.forward(self, x)[1].exp())), "logarithm"),
    (1, SumsAll, "and of no others"),
    (1, Unbounded, "beyond 2 in size"),
    (1, Detached, "No gradient flows"),
    (1, layer(inverse=lambda self, z: Coupling.forward(self, z)), "forward map once more"),
    (
        1,
        layer(inverse=lambda self, z: (lambda s, t: (z * (-s).exp() - t, -s.sum(-1)))(*self.scale_and_shift(z))),
        "undo the shift first",
    ),
    (
        1,
        layer(inverse=lambda self, z: (lambda s, t: (z - t, -s.sum(-1)))(*self.scale_and_shift(z))),
        "Solve z = x",
    ),
    (
        1,
        layer(inverse=lambda self, z: (Coupling.inverse(self, z)[0], -Coupling.inverse(self, z)[1])),
        "of the inverse map",
    ),
    (1, layer(inverse=lambda self, z: (Coupling.inverse(self, z)[0], torch.zeros(len(z)))), "must add up to 0"),
    (1, layer(forward=lambda self, x: Coupling.forward(self, x)[0]), "returns two things"),
    (1, layer(forward=lambda self, x: (Coupling.forward(self, x)[0], self.scale_and_shift(x)[0])), "for each row"),
    (1, layer(forward=lambda self, x: (Coupling.forward(self, x)[0], self.scale_and_shift(x)[0].sum())), "whole batch"),
    (2, lambda D, depth, coupling: [coupling([True, False])], "Expected Flow(D, depth, coupling)"),
    (2, lambda D, depth, coupling: Flow(D, depth - 1, coupling), "four layers"),
    (2, SameMask, "should take turns"),
    (2, Listed, "does not know the parameters"),
    (2, spoiled_log_prob(lambda x, z, dets: normal(z) - sum(dets)), "The sign of log|det|"),
    (2, spoiled_log_prob(lambda x, z, dets: normal(z)), "log p_Z(z) alone"),
    (2, spoiled_log_prob(lambda x, z, dets: -0.5 * z.square().sum(-1) + sum(dets)), "constant is missing"),
    (2, spoiled_log_prob(lambda x, z, dets: normal(z) + 0.9189 + sum(dets)), "each brings"),
    (2, spoiled_log_prob(lambda x, z, dets: normal(x) + sum(dets)), "ask the base at x"),
    (2, spoiled_log_prob(lambda x, z, dets: normal(z) + dets[-1]), "Only the last layer"),
    (2, spoiled_log_prob(lambda x, z, dets: normal(z) + sum(dets) + 0.5), "integrates to"),
    (2, flow(sample=in_order), "Undo the last layer first"),
    (2, flow(sample=lambda self, n, generator=None: Flow.sample(self, n)), "One seed gave two"),
    (
        2,
        flow(sample=lambda self, n, generator=None: Flow.sample(self, n, torch.Generator().manual_seed(0))),
        "Two seeds gave one",
    ),
    (
        2,
        spoiled_log_prob(lambda x, z, dets: -0.5 * z.square().sum(-1) - math.log(2 * math.pi) + sum(dets)),
        "In five dimensions",
    ),
    (3, loop(learn=False), "Nothing has moved"),
    (3, loop(lambda q, rows: q.log_prob(rows).mean()), "has fallen and not risen"),
    (3, loop(rows=lambda n, batch, g, first: torch.arange(n)), "takes all rows"),
    (3, loop(rows=lambda n, batch, g, first: first), "the same batch"),
    (3, loop(rate=lambda rate: 1e-4), "can be had"),
    (3, loop(on=lambda x, held: torch.cat((x, held))), "end elsewhere"),
    (3, loop(rate=lambda rate: 0.05), "has no effect"),
    (3, loop(every=50), "at least ten"),
    (3, loop(said=lambda value: -value), "holds the loss"),
    (3, early, "The last pair"),
    (3, lambda *given, **_: loop()(*given) and None, "Return the curve"),
    (4, table(lambda g, std: g + std, lambda f, std: f + std), "those of the standardized rows"),
    (4, table(lambda g, std: g + 2 * std), "counts once"),
    (4, table(lambda g, std: g - std), "counts once"),
    (4, table(whole=False), "independent columns"),
    (4, table(order=slice(None, None, -1)), "in the other order"),
    (4, table(lambda g, std: g / 2), "not over rows and columns"),
    (4, table(flow=lambda f, std: 5.0), "an error"),
    (4, table(), "train longer"),
    (4, lambda x, new: 0.3, "the two log-likelihoods"),
    (5, layers(det=lambda k, s: s), "Compare layer by layer"),
    (5, layers(det=lambda k, s: s if k % 2 else -s), "Look at the other kind"),
    (5, layers(det=lambda k, s: -s), "Look at the other kind"),
    (5, lambda x, nets: (x + 0 * x.sum(), torch.zeros(len(x))), "does nothing any more"),
    (5, lambda x, nets: layers()(x, nets[:1] * len(nets)), "does nothing any more"),
    (5, lambda x, nets: layers()(x, nets)[0], "returns two things"),
    (5, layers(log_det=lambda value: value.sum()), "whole batch"),
]


RIGHT = [
    (1, Layer),
    (1, ByHand),
    (1, Narrow),
    (2, OddFirst),
    (2, flow(sample=lambda self, n, generator=None: Flow.sample(self, n, generator=generator).clone())),
    (2, spoiled_log_prob(lambda x, z, dets: normal(z) + torch.stack(dets, -1).sum(-1))),
    (3, shuffled),
    (3, loop()),
    (3, loop(lambda q, rows: q.log_prob(rows).sum() / -len(rows), every=4)),
    (4, with_numpy),
    (4, lambda x, new: tuple(beside_a_gaussian(x.numpy(), new.numpy(), 300))),
    (4, lambda x, new: np.round(beside_a_gaussian(x, new, 350), 3)),
    (5, layers()),
    (5, layers(det=lambda k, s: s, move=lambda k, b, s, t: b * torch.exp(s) + t)),
    (5, layers(det=lambda k, s: s, move=lambda k, b, s, t: (b - t) * s.exp() if k % 2 else b * s.exp() + t)),
    (5, by_autograd),
]


def test_the_broken_function_of_the_notebook_is_wrong_and_no_other_part_of_it():
    cell = next(c for c in nbformat.read(NOTEBOOK, as_version=4).cells if "def broken" in c.source)
    code = textwrap.dedent(cell.source[cell.source.index("def broken") : cell.source.index("nets = [")])
    names = {"torch": torch}
    exec(code, names)
    exercise = exercises()["build_it_yourself.5"]
    assert "Compare layer by layer" in exercise.verdict(names["broken"])[1]
    exec(code.replace("log_det + s.sum(-1)", "log_det + (-s if k % 2 else s).sum(-1)"), names)
    assert exercise.verdict(names["broken"])[0] == "right"


def test_the_solutions_hold_the_whole_flow():
    text = "\n".join(c.source for c in nbformat.read(notebook_format.solution_path(NOTEBOOK), as_version=4).cells)
    for part in ("class Coupling", "class Flow", "def train", "def beside_a_gaussian"):
        assert text.count(part) == 1
