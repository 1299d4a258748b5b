"""flowlab beside the libraries that one would pick instead: the same flow, the same job, one thread.

    pip install -e ".[bench]"
    python tests/benchmarks/compare_peers.py [--only flowlab,zuko] [--jobs step_h64] [--compile] [--json FILE]

The flow is eight affine couplings in two dimensions, each with a conditioner of two hidden layers; every library brings
its own coupling class and its own bounded scale, and the count of parameters shows that the sizes match. Each library
runs in a process of its own, so that none inherits the imports or the memory of another. The processes live side by
side but only one works at a time: they take turns, A B C A B C, so that a slow minute of the machine hits them all.

Two questions are asked only when called for. `--jobs reach`: how long until a coupling flow is as good as the slowest
peer gets in two minutes, each library with the settings that its own documents recommend (ten minutes in all).
`--growth`: how flowlab's training step grows with batch, layers and flows in a stack, and what a large density costs in
memory.

`plain_torch` is the floor: the same flow written by hand with the fewest operations, as no library could. `flowjax` and
`distrax`, which need the extra `bench-jax`, are no peers in PyTorch: each of their jobs is one function that JAX has
compiled, and they stand beside flowlab's compiled steps.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

LAYERS, BATCH, COMPONENTS = 8, 512, 5
JOBS = {
    "step_h64": f"training step, hidden 64, batch {BATCH}: forward, backward, Adam",
    "step_h8": f"training step, hidden 8, batch {BATCH}",
    "sample_10k": "sample 10,000 points, hidden 64",
    "grid_40k": "log-density of 200×200 points, hidden 64",
    "mixture_5": f"training step of {COMPONENTS} such flows as a mixture, hidden 64",
    "import": "import, beyond torch's own",
}
# With --compile: flowlab by its switch, the floor by torch.compile; the peers have neither.
COMPILED = {f"{job}_compiled": f"the same, compiled: {JOBS[job]}" for job in ("step_h64", "step_h8", "mixture_5")}
REACH = {"reach": "seconds to the held-out log-density that the slowest peer has in the end"}
REACH_SECONDS = 120
TODAY = {"batch": BATCH, "layers": LAYERS, "flows": COMPONENTS}  # what --growth multiplies, one at a time
MULTIPLES = (1, 2, 5, 10)
ADAM = {"lr": 1e-3, "fused": True}  # torch.optim.Adam for every library, with these arguments
TURN = 0.08  # seconds that a library works before the next one's turn
# The processor's time and not the clock's, which runs on while other programs have the core. Where the system counts
# it too coarsely (Windows), the clock must do.
FINE = time.get_clock_info("process_time").resolution < 1e-5
processor_seconds = time.process_time if FINE else time.perf_counter
ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1") | {
    # Whether glibc gives freed memory back to the system, only to ask for it again, hangs on the luck of the heap's
    # layout, and is up to a third of a step. For this comparison it keeps what it has, in every library's process.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
IMPORT_ROUNDS = 5  # each starts a process that imports torch first: slow, and steady


# --- The libraries -----------------------------------------------------------------------------------------------
#
# Each is a class with `flow(hidden)`, a module; `log_prob(flow, x)` and `sample(flow, n)`; and, where it can do better
# than a loop over flows, `mixture(count, hidden)` and `log_prob_components(flows, x)`, which gives (K, N).


class Library:
    package: str  # as pip calls it
    module: str  # what a user of its affine coupling imports
    bounded_scale: str
    extra = "bench"  # that installs it
    difference = ""  # where its design forces another size
    # For the job `reach`: what its own documents say of a flow for points in the plane, and of its training.
    recommended: str
    learning_rate, weight_decay, batch = 1e-3, 0.0, BATCH

    def recommended_flow(self):
        raise NotImplementedError

    def training(self, x):
        """Train as recommended: the flow after each step, for as long as one asks."""
        import torch

        flow = self.recommended_flow()
        adam = torch.optim.Adam(flow.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        while True:
            adam.zero_grad()
            (-self.log_prob(flow, x[torch.randint(len(x), (self.batch,))]).mean()).backward()
            adam.step()
            yield flow

    def flow(self, hidden):
        raise NotImplementedError

    def compile(self, flow):
        """Make log_prob of a flow or a mixture compiled from now on."""
        raise NotImplementedError(f"{self.package} is not compiled here")

    def log_prob(self, flow, x):
        return flow.log_prob(x)

    def sample(self, flow, n):
        return flow.sample(n)

    def count(self, flow):
        return sum(p.numel() for p in flow.parameters() if p.requires_grad)

    # What is timed, each a function of no arguments.

    def step(self, flow, x):
        return training_step(flow.parameters(), lambda: -self.log_prob(flow, x).mean())

    def mixture_step(self, flows, x):
        def loss():
            return math.log(COMPONENTS) - self.log_prob_components(flows, x).logsumexp(0).mean()

        return training_step(flows.parameters(), loss)

    def sampling(self, flow, n):
        import torch

        return torch.no_grad()(lambda: self.sample(flow, n))

    def density(self, flow, x):
        import torch

        return torch.no_grad()(lambda: self.log_prob(flow, x))

    def mixture(self, count, hidden):
        from torch import nn

        return nn.ModuleList(self.flow(hidden) for _ in range(count))

    def log_prob_components(self, flows, x):
        import torch

        return torch.stack([self.log_prob(flow, x) for flow in flows])


class Flowlab(Library):
    package, module = "flowlab", "flowlab.models"  # `flowlab` itself loads nothing until it is asked
    bounded_scale = "2 tanh(h)"
    recommended = "notebook 00: four spline couplings, fit's defaults (2,000 steps of 512 points, Adam 1e-3, cosine)"

    def training(self, x):
        import torch

        from flowlab.models import spline_flow
        from flowlab.training import train

        flow = spline_flow(2, layers=4, generator=torch.Generator().manual_seed(0))
        for _ in train(flow, x):
            yield flow

    def flow(self, hidden, stack=None):
        import torch

        from flowlab.models import realnvp

        seed = torch.Generator().manual_seed(0)
        return realnvp(2, layers=LAYERS, hidden=(hidden, hidden), standardize=False, stack=stack, generator=seed)

    def mixture(self, count, hidden):
        return self.flow(hidden, stack=count)

    def log_prob_components(self, flows, x):
        return flows.log_prob(x.expand(COMPONENTS, *x.shape))

    def compile(self, flow):
        from flowlab.training import compiled

        switch = compiled(flow)  # what fit(..., compile=True) turns on
        switch.__enter__()
        flow.switch = switch  # or it would be collected, and turn off


class PlainTorch(Library):
    package, module = "torch", "torch"
    bounded_scale = "2 tanh(h)"

    def flow(self, hidden, stack=None):
        return plain_torch(hidden, stack)

    def mixture(self, count, hidden):
        return self.flow(hidden, stack=count)

    def log_prob_components(self, flows, x):
        return flows.log_prob(x)

    def compile(self, flow):
        import torch

        # As flowlab's switch has it: called from Python, the floor's kernels would be no floor.
        flow.log_prob = torch.compile(flow.log_prob, dynamic=False, options={"cpp_wrapper": True})


class Normflows(Library):
    package = module = "normflows"
    bounded_scale = "sigmoid(h + 2)"
    recommended = "its Real NVP notebook: 32 affine couplings, hidden 64 and 64, 512 points, Adam 5e-4, decay 1e-5"
    learning_rate, weight_decay = 5e-4, 1e-5

    def recommended_flow(self):
        import normflows as nf

        layers = []
        for _ in range(32):
            layers.append(nf.flows.AffineCouplingBlock(nf.nets.MLP([1, 64, 64, 2], init_zeros=True)))
            layers.append(nf.flows.Permute(2, mode="swap"))
        return nf.NormalizingFlow(nf.distributions.DiagGaussian(2), layers)

    def flow(self, hidden):
        import normflows as nf

        layers = []
        for _ in range(LAYERS):
            network = nf.nets.MLP([1, hidden, hidden, 2], init_zeros=True)
            layers += [nf.flows.AffineCouplingBlock(network, scale_map="sigmoid"), nf.flows.Permute(2, mode="swap")]
        return nf.NormalizingFlow(nf.distributions.DiagGaussian(2, trainable=False), layers)

    def sample(self, flow, n):
        return flow.sample(n)[0]  # it computes log_prob on the way, and cannot be asked not to


class Nflows(Library):
    package, module = "nflows", "nflows.flows"
    bounded_scale = "sigmoid(h + 2) + 0.001"
    recommended = (
        "its authors' experiments in the plane: two spline couplings of 64 bins, residual networks of width 32, 512 "
        "points, Adam 5e-4"
    )
    learning_rate = 5e-4

    def recommended_flow(self):
        import torch
        from nflows.distributions import StandardNormal
        from nflows.flows import Flow
        from nflows.nn.nets import ResidualNet
        from nflows.transforms import CompositeTransform, PiecewiseRationalQuadraticCouplingTransform

        def network(inputs, outputs):
            return ResidualNet(inputs, outputs, hidden_features=32, num_blocks=2, use_batch_norm=True)

        settings = {"tails": "linear", "tail_bound": 5, "num_bins": 64, "apply_unconditional_transform": False}
        masks = [torch.tensor([1 - i, i]) for i in range(2)]
        couplings = [PiecewiseRationalQuadraticCouplingTransform(m, network, **settings) for m in masks]
        return Flow(CompositeTransform(couplings), StandardNormal([2]))

    def flow(self, hidden):
        import torch
        from nflows.distributions import StandardNormal
        from nflows.flows import Flow
        from nflows.nn.nets import MLP
        from nflows.transforms import AffineCouplingTransform, CompositeTransform

        class Conditioner(MLP):  # nflows passes a context to every conditioner, which its own MLP does not take
            def forward(self, inputs, context=None):
                return super().forward(inputs)

        def network(inputs, outputs):
            return Conditioner((inputs,), (outputs,), (hidden, hidden))

        masks = [torch.tensor([i % 2, 1 - i % 2]) for i in range(LAYERS)]
        return Flow(CompositeTransform([AffineCouplingTransform(m, network) for m in masks]), StandardNormal([2]))


class Zuko(Library):
    package, module = "zuko", "zuko.flows"
    bounded_scale = "soft clip, h / (1 + |h / 6.9|)"
    recommended = "its notebook on training from data: three spline transforms, hidden 64 and 64, 64 points, Adam 1e-3"
    batch = 64

    def recommended_flow(self):
        import zuko

        return zuko.flows.NSF(2, transforms=3, hidden_features=(64, 64), passes=2)  # two passes: a coupling

    def flow(self, hidden):
        import zuko

        # Affine in spite of its name; zuko 1.5 and later know it as RealNVP too.
        return zuko.flows.NICE(2, transforms=LAYERS, hidden_features=(hidden, hidden))

    def log_prob(self, flow, x):
        return flow().log_prob(x)

    def sample(self, flow, n):
        return flow().sample((n,))


class Freia(Library):
    package, module = "FrEIA", "FrEIA.framework"
    bounded_scale = "2 · 0.636 atan(h)"
    difference = "two couplings a block, so four blocks"
    recommended = "its quick start: eight AllInOneBlocks, hidden 512, soft permutations, 100 points, Adam 1e-3"
    batch = 100

    def recommended_flow(self):
        from FrEIA.framework import SequenceINN
        from FrEIA.modules import AllInOneBlock
        from torch import nn

        def network(inputs, outputs):
            return nn.Sequential(nn.Linear(inputs, 512), nn.ReLU(), nn.Linear(512, outputs))

        flow = SequenceINN(2)
        for _ in range(8):
            flow.append(AllInOneBlock, subnet_constructor=network, permute_soft=True)
        return flow

    def flow(self, hidden):
        from FrEIA.framework import SequenceINN
        from FrEIA.modules import GLOWCouplingBlock
        from torch import nn

        def network(inputs, outputs):
            return nn.Sequential(
                nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
            )

        flow = SequenceINN(2)
        for _ in range(LAYERS // 2):
            flow.append(GLOWCouplingBlock, subnet_constructor=network, clamp=2.0)
        return flow

    def log_prob(self, flow, x):
        z, log_det = flow(x)
        return log_det - 0.5 * z.square().sum(1) - math.log(2 * math.pi)

    def sample(self, flow, n):
        import torch

        return flow(torch.randn(n, 2), rev=True, jac=False)[0]


class Flowjax(Library):
    """Its flows are values: a holder carries the newest, and every job is one compiled function of it."""

    package = module = "flowjax"
    bounded_scale = "softplus(h) + 0.01, bounded below"
    extra = "bench-jax"

    class Holder:
        def __init__(self, flow):
            self.flow = flow

    def flow(self, hidden, seed=0):
        import jax
        from flowjax.distributions import Normal
        from flowjax.flows import coupling_flow
        from paramax import non_trainable

        base = non_trainable(Normal(jax.numpy.zeros(2)))
        settings = {"flow_layers": LAYERS, "nn_width": hidden, "nn_depth": 2}  # what is inverted has the fast log_prob
        return self.Holder(coupling_flow(jax.random.key(seed), base_dist=base, **settings))

    def mixture(self, count, hidden):
        import equinox
        import jax

        flows = [self.flow(hidden, seed).flow for seed in range(count)]
        arrays, rest = zip(*(equinox.partition(flow, equinox.is_array) for flow in flows), strict=True)
        return self.Holder(equinox.combine(jax.tree.map(lambda *a: jax.numpy.stack(a), *arrays), rest[0]))

    def count(self, held):
        import jax

        return sum(a.size for a in jax.tree.leaves(self.trainable(held.flow)[0]))

    @staticmethod
    def trainable(flow):
        import equinox
        from paramax import NonTrainable

        return equinox.partition(flow, equinox.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, NonTrainable))

    @staticmethod
    def components(flow, x):
        import equinox
        from paramax import unwrap

        return equinox.filter_vmap(lambda one: unwrap(one).log_prob(x))(flow)

    def compiled_step(self, held, x, loss):
        """A step of Adam that JAX has compiled whole; the holder has the new flow after it."""
        import equinox
        import jax
        import optax

        adam, x = optax.adam(ADAM["lr"]), jax.numpy.asarray(x.numpy())
        parameters, rest = self.trainable(held.flow)
        state = adam.init(parameters)

        @jax.jit
        def one(parameters, state):
            gradient = jax.grad(lambda p: loss(equinox.combine(p, rest), x))(parameters)
            updates, state = adam.update(gradient, state)
            return optax.apply_updates(parameters, updates), state

        def step():
            nonlocal parameters, state
            parameters, state = jax.block_until_ready(one(parameters, state))
            held.flow = equinox.combine(parameters, rest)

        return step

    def step(self, held, x):
        return self.compiled_step(held, x, lambda flow, x: -flow.log_prob(x).mean())

    def mixture_step(self, held, x):
        import jax

        def loss(flows, x):
            return math.log(COMPONENTS) - jax.nn.logsumexp(self.components(flows, x), axis=0).mean()

        return self.compiled_step(held, x, loss)

    def sampling(self, held, n):
        import equinox
        import jax

        draw, keys = equinox.filter_jit(lambda flow, key: flow.sample(key, (n,))), [jax.random.key(0)]

        def run():
            keys[0], key = jax.random.split(keys[0])
            return jax.block_until_ready(draw(held.flow, key))

        return run

    def density(self, held, x):
        import equinox
        import jax

        log_prob, x = equinox.filter_jit(lambda flow, x: flow.log_prob(x)), jax.numpy.asarray(x.numpy())
        return lambda: jax.block_until_ready(log_prob(held.flow, x))

    def log_prob(self, held, x):
        return self.tensor(self.density(held, x)())

    def sample(self, held, n):
        return self.tensor(self.sampling(held, n)())

    def log_prob_components(self, held, x):
        return self.tensor(self.components(held.flow, x.numpy()))

    @staticmethod
    def tensor(array):
        import numpy as np
        import torch

        return torch.from_numpy(np.array(array))


class Distrax(Flowjax):
    """As flowjax, but for the flow itself: distrax has bijections and leaves networks and weights to its users."""

    package = module = "distrax"
    bounded_scale = "2 tanh(h)"

    def flow(self, hidden, seed=0):
        return self.Holder(distrax_class()(hidden, seed))


LIBRARIES: dict[str, Library] = {
    "flowlab": Flowlab(),
    "plain_torch": PlainTorch(),
    "normflows": Normflows(),
    "nflows": Nflows(),
    "zuko": Zuko(),
    "freia": Freia(),
    "flowjax": Flowjax(),
    "distrax": Distrax(),
}
OURS = "flowlab"
JITTED = ("flowjax", "distrax")
PEERS = [name for name in LIBRARIES if name not in (OURS, "plain_torch", *JITTED)]


@functools.cache
def distrax_class():
    """The flow of the floor in distrax's couplings, its weights in a module of equinox."""
    import distrax
    import equinox
    import jax

    def distribution(layers):
        def coupling(i, layer):
            (w1, b1), (w2, b2), (w3, b3) = layer

            def conditioner(x):
                h = jax.nn.relu(jax.nn.relu(x @ w1 + b1) @ w2 + b2) @ w3 + b3
                return 2 * jax.numpy.tanh(h[..., :1]), h[..., 1:]

            move = lambda st: distrax.Block(distrax.ScalarAffine(shift=st[1], log_scale=st[0]), 1)  # noqa: E731
            return distrax.SplitCoupling(1, 1, conditioner, move, swap=i % 2 == 1)

        # The faster way round: what log_prob asks for is then the direction that no layer has to undo.
        flow = distrax.Inverse(distrax.Chain([coupling(i, layer) for i, layer in reversed(list(enumerate(layers)))]))
        base = distrax.MultivariateNormalDiag(jax.numpy.zeros(2), jax.numpy.ones(2))
        return distrax.Transformed(base, flow)

    class Coupled(equinox.Module):
        layers: list

        def __init__(self, hidden, seed):
            keys = iter(jax.random.split(jax.random.key(seed), 3 * LAYERS))
            sizes = ((1, hidden, 1.0), (hidden, hidden, hidden**-0.5), (hidden, 2, 0.0))

            def linear(inputs, outputs, scale):
                uniform = jax.random.uniform(next(keys), (inputs, outputs), minval=-1.0)
                return scale * uniform, jax.numpy.zeros(outputs)

            self.layers = [[linear(*size) for size in sizes] for _ in range(LAYERS)]

        def log_prob(self, x):
            return distribution(self.layers).log_prob(x)

        def sample(self, key, shape):
            return distribution(self.layers).sample(seed=key, sample_shape=shape)

    return Coupled


@functools.cache
def plain_torch_class():
    """The floor: two columns that swap roles and are never joined, weights as addmm wants them."""
    import torch
    from torch import nn

    class PlainTorch(nn.Module):
        def __init__(self, hidden, stack):
            super().__init__()
            lead, row = ((), ()) if stack is None else ((stack,), (1,))
            self.linear = torch.addmm if stack is None else torch.baddbmm
            self.stack, self.layers = stack, []
            for i in range(LAYERS):
                layer = []
                for inputs, outputs, scale in ((1, hidden, 1.0), (hidden, hidden, hidden**-0.5), (hidden, 2, 0.0)):
                    layer.append(nn.Parameter(scale * (2 * torch.rand(*lead, inputs, outputs) - 1)))
                    layer.append(nn.Parameter(torch.zeros(*lead, *row, outputs)))
                for j, parameter in enumerate(layer):
                    self.register_parameter(f"p{i}_{j}", parameter)
                self.layers.append(layer)

        def scale_and_shift(self, layer, a):
            w1, b1, w2, b2, w3, b3 = layer
            h = torch.relu_(self.linear(b1, a, w1))
            h = torch.relu_(self.linear(b2, h, w2))
            s, t = self.linear(b3, h, w3).split(1, -1)
            return 2 * torch.tanh(s), t

        def log_prob(self, x):
            a, b = (x if self.stack is None else x.expand(self.stack, *x.shape)).split(1, -1)
            log_det = []
            for layer in self.layers:
                s, t = self.scale_and_shift(layer, a)
                a, b = torch.addcmul(t, b, s.exp()), a
                log_det.append(s)
            return torch.cat(log_det, -1).sum(-1) - 0.5 * (a * a + b * b).squeeze(-1) - math.log(2 * math.pi)

        def sample(self, n):
            a, b = torch.randn(n, 2).split(1, -1)
            for layer in reversed(self.layers):
                s, t = self.scale_and_shift(layer, b)
                a, b = b, (a - t) * (-s).exp()
            return torch.cat((a, b), -1)

    return PlainTorch


def plain_torch(hidden, stack=None):
    return plain_torch_class()(hidden, stack)


# --- The worker: one library, one thread -------------------------------------------------------------------------


def points(n):
    """Five blobs on a circle: data that no flow fits at once."""
    import torch

    generator = torch.Generator().manual_seed(0)
    angle = 2 * math.pi / 5 * torch.randint(5, (n,), generator=generator)
    return 2 * torch.stack((angle.cos(), angle.sin()), 1) + 0.3 * torch.randn(n, 2, generator=generator)


def grid(half_width, n=200):
    import torch

    axis = torch.linspace(-half_width, half_width, n)
    return torch.cartesian_prod(axis, axis)


def training_step(parameters, loss):
    import torch

    adam = torch.optim.Adam(parameters, **ADAM)

    def step():
        adam.zero_grad()
        loss().backward()
        adam.step()

    return step


def task(library, job):
    """What is timed: a function of no arguments."""
    compiled, job = job in COMPILED, job.removesuffix("_compiled")
    hidden = 8 if job == "step_h8" else 64
    x = points(BATCH)
    flow = library.mixture(COMPONENTS, hidden) if job == "mixture_5" else library.flow(hidden)
    if compiled:
        library.compile(flow)
    if job == "mixture_5":
        return library.mixture_step(flow, x)
    if job.startswith("step"):
        return library.step(flow, x)
    if job == "sample_10k":
        return library.sampling(flow, 10_000)
    if job == "grid_40k":
        return library.density(flow, grid(8.0))
    raise ValueError(f"expected a job among {', '.join(JOBS)}, but got {job}")


def check(library):
    """Train a little, then ask what only a right flow gets right. Returns what is wrong, or nothing.

    The density must integrate to 1, so a log-det of the wrong sign shows; and the mean log-density of samples must be
    the integral of p log p, so a sampler that belongs to another density shows.
    """
    import torch

    torch.manual_seed(0)
    flow, x = library.flow(64), points(BATCH)
    step = library.step(flow, x)
    before = -library.log_prob(flow, x).mean().item()
    for _ in range(100):
        step()
    with torch.no_grad():
        after = -library.log_prob(flow, x).mean().item()
        half_width = 8.0
        log_p = library.log_prob(flow, grid(half_width))
        p = log_p.double().exp() * (2 * half_width / 199) ** 2
        samples = library.log_prob(flow, library.sample(flow, 10_000))
    wrong = []
    if not (log_p.isfinite().all() and samples.isfinite().all()):
        wrong.append("log_prob is not finite")
    if not after < before - 0.1:
        wrong.append(f"100 training steps took the loss from {before:.2f} to {after:.2f} nats only")
    if abs(p.sum().item() - 1) > 0.02:
        wrong.append(f"its density integrates to {p.sum().item():.3f}, not 1")
    entropy = -(p * log_p).sum().item()
    if abs(-samples.mean().item() - entropy) > 0.1:
        wrong.append(f"its samples have {-samples.mean().item():.2f} nats, its density {entropy:.2f}")
    components = library.log_prob_components(library.mixture(COMPONENTS, 64), x)
    if tuple(components.shape) != (COMPONENTS, BATCH):
        wrong.append(f"its mixture gives {tuple(components.shape)}, not {(COMPONENTS, BATCH)}")
    return "; ".join(wrong)


def describe(library):
    """Version, and the count of parameters by hidden width."""
    try:
        version = importlib.metadata.version(library.package)
    except importlib.metadata.PackageNotFoundError:  # importable from a folder, but not installed
        version = "?"
    count = {h: library.count(library.flow(h)) for h in (64, 8)}
    return {"version": version, "parameters": count}


def turn(run, seconds):
    """Run for about `seconds`, at least three times: the milliseconds of each call."""
    times, spent = [], 0.0
    while len(times) < 3 or spent < seconds:
        start = processor_seconds()
        run()
        times.append(processor_seconds() - start)
        spent += times[-1]
    return [1000 * t for t in times]


def pinwheel():
    """Points to train on and points held out, standardized, as documents of several peers ask."""
    import torch

    from flowlab.datasets import Pinwheel

    x = Pinwheel().sample(25_000, generator=torch.Generator().manual_seed(0))
    x = (x - x.mean(0)) / x.std(0)
    return x[:20_000], x[20_000:]


def learning_curve(library, seconds):
    """Train for so many seconds: [seconds spent on training, mean log-density of held-out points in nats], ..."""
    import torch

    x, held_out = pinwheel()
    next(library.training(x))  # what is imported at the first step of all counts for nobody
    torch.manual_seed(0)
    steps, curve, spent, due = library.training(x), [], 0.0, 0.0
    flow = None

    def look():
        was_training = flow.training
        flow.eval()
        with torch.no_grad():
            nats = library.log_prob(flow, held_out).mean().item()
        flow.train(was_training)
        curve.append([round(spent, 3), nats if math.isfinite(nats) else -1e9])

    while spent < seconds:
        start = processor_seconds()
        trained = next(steps, None)
        spent += processor_seconds() - start
        if trained is None:  # it has come to its end
            break
        flow = trained
        if spent >= due:
            look()
            due = 1.05 * spent + 0.05
    look()
    return curve


def growing_step(batch, layers, flows):
    """A training step of flowlab at these sizes; one flow is no stack."""
    from flowlab.models import realnvp

    stack = None if flows == 1 else flows
    model, x = realnvp(2, layers=layers, standardize=False, stack=stack), points(batch)

    def loss():
        log_prob = model.log_prob(x if stack is None else x.expand(stack, *x.shape))
        return -(log_prob if stack is None else log_prob.logsumexp(0)).mean()

    return training_step(model.parameters(), loss)


def growth(multiples, seconds):
    """One record a size, for each of batch, layers and flows in turn, the others as they are today (one flow)."""
    records = []
    for axis, today in TODAY.items():
        for multiple in multiples:
            step = growing_step(**TODAY | {"flows": 1} | {axis: today * multiple})
            turn(step, seconds)
            times = turn(step, seconds)
            times = {"median_ms": round(statistics.median(times), 4), "min_ms": round(min(times), 4)}
            records.append({"library": OURS, "job": f"growth_{axis}", "threads": 1, "size": today * multiple, **times})
    return records


def density_megabytes(size):
    """How far the log-density of size × size points lifts this process' peak memory above what it holds at the start.

    Linux only: the counter that other systems have as well, getrusage's, starts at the peak of the parent process.
    """
    from flowlab.models import realnvp
    from flowlab.plotting import plane

    def megabytes(field):
        status = Path("/proc/self/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1024

    flow = realnvp(2, layers=LAYERS)
    before = megabytes("VmRSS")
    plane.log_density(flow, plane.plane(4.0, size))
    return megabytes("VmHWM") - before


def worker(name):
    """Answer requests, a line of JSON each, until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not mix with the answers

    def answer(**fields):
        print(json.dumps(fields), file=answers, flush=True)

    try:
        import torch

        torch.set_num_threads(1)
        library = LIBRARIES[name]
        start = time.perf_counter()
        importlib.import_module(library.module)
        answer(import_ms=1000 * (time.perf_counter() - start))
        tasks = {}
        for line in sys.stdin:
            request = json.loads(line)
            if request["do"] == "describe":
                answer(**describe(library))
            elif request["do"] == "check":
                answer(wrong=check(library))
            elif request["do"] == "reach":
                answer(curve=learning_curve(library, request["seconds"]))
            elif request["do"] == "growth":
                answer(records=growth(request["multiples"], request["seconds"]))
            elif request["do"] == "memory":
                answer(megabytes=density_megabytes(request["size"]))
            else:
                job, seconds = request["job"], request["seconds"]
                if job not in tasks:
                    torch.manual_seed(0)
                    tasks[job] = task(library, job)
                    start = time.perf_counter()
                    tasks[job]()
                    if job in COMPILED:
                        print(f"  {name} {job}: compiled in {time.perf_counter() - start:.0f} s", flush=True)
                    turn(tasks[job], seconds)  # warm up: caches, allocator, optimizer state
                answer(times_ms=turn(tasks[job], seconds))
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}")


# --- The parent: takes turns, counts, prints ---------------------------------------------------------------------


class LibraryFailed(RuntimeError):
    """A library cannot take part: the message says why."""


class Worker:
    """A process that holds one library and waits to be asked."""

    def __init__(self, name):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | ENVIRONMENT,
        )
        try:
            self.import_ms = self.read()["import_ms"]
        except LibraryFailed:
            self.close()
            raise

    def ask(self, **request):
        with contextlib.suppress(BrokenPipeError):  # it has ended: what it said last tells why
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise LibraryFailed(f"its process ended with code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise LibraryFailed(answer["error"])
        return answer

    def introduce(self):
        """The line that describes the library, once it has passed its check."""
        if wrong := self.ask(do="check")["wrong"]:
            raise LibraryFailed(wrong)
        return sizes(self.name, self.ask(do="describe"))

    def time(self, job, seconds):
        """Milliseconds of each call in one turn."""
        if job != "import":
            return self.ask(do="time", job=job, seconds=seconds)["times_ms"]
        fresh = Worker(self.name)  # only a new process can import again
        fresh.close()
        return [fresh.import_ms]

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def installed(name):
    return importlib.util.find_spec(LIBRARIES[name].module.split(".")[0]) is not None


def measure(names, jobs, rounds, seconds=TURN, say=print):
    """All libraries in turns: {(library, job): [ms of each call, a list a round]}, and {library: why it failed}."""
    workers, times, failed = {}, {}, {}

    @contextlib.contextmanager
    def failures_of(name):
        try:
            yield
        except LibraryFailed as error:
            failed[name] = str(error)

    try:
        for name in names:
            if not installed(name):
                failed[name] = f'not installed (pip install -e ".[{LIBRARIES[name].extra}]")'
                continue
            with failures_of(name):
                workers[name] = Worker(name)
                say(workers[name].introduce())
        for i in range(rounds):
            for job in jobs:
                for name in workers:
                    skipped = job == "import" and (name in ("plain_torch", *JITTED) or i >= IMPORT_ROUNDS)
                    skipped = skipped or (job in COMPILED and name not in (OURS, "plain_torch"))
                    if name in failed or skipped:
                        continue
                    with failures_of(name):
                        times.setdefault((name, job), []).append(workers[name].time(job, seconds))
    finally:
        for worker in workers.values():
            worker.close()
    return {key: rounds for key, rounds in times.items() if key[0] not in failed}, failed


def reach(names, seconds=REACH_SECONDS, say=print):
    """One record a library: the seconds to the target, None where it was not reached; and {library: why it failed}."""
    curves, failed = {}, {}
    for name in names:
        if name not in (OURS, *PEERS):
            continue  # nobody recommends settings for the floor, and the question is put to torch's libraries
        if not installed(name):
            failed[name] = f'not installed (pip install -e ".[{LIBRARIES[name].extra}]")'
            continue
        try:
            one = Worker(name)
            say(f"  {name}: {LIBRARIES[name].recommended}")
            curves[name] = one.ask(do="reach", seconds=seconds)["curve"]
            one.close()
        except LibraryFailed as error:
            failed[name] = str(error)
    best = {name: max(nats for _, nats in curve) for name, curve in curves.items()}
    target = min((best[name] for name in PEERS if name in best), default=None)
    records = []
    for name, curve in curves.items():
        first = None if target is None else next((t for t, nats in curve if nats >= target), None)
        records.append(
            {
                "library": name,
                "job": "reach",
                "threads": 1,
                "seconds": first,
                "target_nats": target,
                "best_nats": best[name],
                "trained_seconds": curve[-1][0],
                "settings": LIBRARIES[name].recommended,
            }
        )
    return records, failed


def report_reach(records):
    """Sorted by time, with flowlab's ratio to the fastest peer."""
    if not records or records[0]["target_nats"] is None:
        return "reach: no peer set a target"
    lines = ["", f"seconds to {records[0]['target_nats']:.3f} nats on held-out pinwheel points, standardized", ""]
    for r in sorted(records, key=lambda r: r["seconds"] or math.inf):
        time = "never" if r["seconds"] is None else f"{r['seconds']:.1f} s"
        lines.append(f"  {r['library']:12} {time:>9}; best {r['best_nats']:.3f} nats in {r['trained_seconds']:.0f} s")
    seconds = {r["library"]: r["seconds"] for r in records if r["seconds"]}
    if OURS in seconds and (peers := [seconds[name] for name in PEERS if name in seconds]):
        lines.append(f"  flowlab / fastest peer: {seconds[OURS] / min(peers):.2f}")
    return "\n".join(lines)


def exponent(sizes, times):
    """The slope of a straight line through log time against log size: 1 is linear growth."""
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(t) for t in times]).slope


def measure_growth(multiples=MULTIPLES, seconds=0.5, size=1000):
    """Records of growing steps and, where it can be told, of a large density's memory: first, in a fresh process."""
    one, records = Worker(OURS), []
    if Path("/proc/self/status").exists():
        megabytes = round(one.ask(do="memory", size=size)["megabytes"], 1)
        records.append({"library": OURS, "job": f"memory_{size}x{size}", "threads": 1, "megabytes": megabytes})
    records += one.ask(do="growth", multiples=multiples, seconds=seconds)["records"]
    one.close()
    return records


def report_growth(records):
    """A line for each of batch, layers and flows: ms by size, and the exponent."""
    lines = ["", "flowlab's training step as it grows: ms at each size, hidden 64", ""]
    for axis in TODAY:
        rows = [r for r in records if r["job"] == f"growth_{axis}"]
        cells = ", ".join(f"{r['size']}: {r['median_ms']:.1f}" for r in rows)
        power = exponent([r["size"] for r in rows], [r["median_ms"] for r in rows])
        lines.append(f"  {axis:8} {cells}; time grows as {axis}^{power:.2f}")
    for r in records:
        if "megabytes" in r:
            name = r["job"].removeprefix("memory_")
            lines.append(f"  log-density of {name} points: {r['megabytes']:.0f} MB above the start")
    return "\n".join(lines)


def sizes(name, facts):
    """One line: the library's version and how its size compares with eight conditioners 1 → h → h → 2."""
    expected = {h: LAYERS * ((1 * h + h) + (h * h + h) + (h * 2 + 2)) for h in (64, 8)}
    counts = {int(h): count for h, count in facts["parameters"].items()}
    library = LIBRARIES[name]
    same = "as expected" if counts == expected else f"expected {expected[64]:,} and {expected[8]:,}"
    note = f"; {library.difference}" if library.difference else ""
    return (
        f"  {name:12} {facts['version']:12} {counts[64]:,} and {counts[8]:,} parameters ({same}); "
        f"scale {library.bounded_scale}{note}"
    )


def summarize(times):
    """Records for the JSON file: the median over rounds of each round's median, and the fastest call of all."""
    return [
        {
            "library": library,
            "job": job,
            "threads": 1,
            "median_ms": round(statistics.median(statistics.median(r) for r in rounds), 4),
            "min_ms": round(min(min(r) for r in rounds), 4),
        }
        for (library, job), rounds in times.items()
    ]


def spread(rounds):
    """Half the range between the quartiles of the rounds' medians, in percent of the median."""
    medians = [statistics.median(r) for r in rounds]
    if len(medians) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(medians, n=4, method="inclusive")
    return 50 * (high - low) / middle


def ratios(records, job):
    """flowlab against the fastest peer, the floor, and the fastest in JAX: {"fastest_peer": (name, ratio), ...}."""
    medians = {r["library"]: r["median_ms"] for r in records if r["job"] == job}
    ours = medians.get(OURS)
    peers = {name: medians[name] for name in PEERS if name in medians}
    found = {}
    if ours and peers:
        fastest = min(peers, key=peers.get)
        found["fastest_peer"] = (fastest, ours / peers[fastest])
    if ours and "plain_torch" in medians:
        found["plain_torch"] = ("plain_torch", ours / medians["plain_torch"])
    jitted = [r for r in records if r["library"] in JITTED and r["job"] == job.removesuffix("_compiled")]
    if ours and jitted:
        fastest = min(jitted, key=lambda r: r["median_ms"])
        found["fastest_jitted"] = (fastest["library"], ours / fastest["median_ms"])
    return found


def report(times, failed, jobs):
    """The text that is printed: ratios first, then milliseconds, then who is missing and why."""
    records = summarize(times)
    medians = {(r["library"], r["job"]): r["median_ms"] for r in records}
    names = [name for name in LIBRARIES if any(library == name for library, _ in times)]
    lines = ["", "flowlab's time as a ratio (below 1: flowlab is faster)", ""]
    lines.append(f"  {'job':18} {'/ fastest peer':>24} {'/ plain_torch':>14} {'/ fastest in JAX':>18}")
    for job in jobs:
        found = ratios(records, job)
        peer, jitted = (
            "{1:.2f} ({0})".format(*found[name]) if name in found else "-"
            for name in ("fastest_peer", "fastest_jitted")
        )
        floor = f"{found['plain_torch'][1]:.2f}" if "plain_torch" in found else "-"
        lines.append(f"  {job:18} {peer:>24} {floor:>14} {jitted:>18}")
    lines += ["", "milliseconds, median of the rounds ± half the range of its quartiles", ""]
    lines.append("| | " + " | ".join(jobs) + " |")
    lines.append("| --- |" + " --- |" * len(jobs))
    for name in names:
        cells = []
        for job in jobs:
            if (name, job) in medians:
                value = medians[name, job]
                cells.append(f"{value:.{2 if value < 20 else 1}f} ±{spread(times[name, job]):.0f} %")
            else:
                cells.append("")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", *(f"  {job}: {(JOBS | COMPILED)[job]}" for job in jobs)]
    lines += [f"  {name}: {why}" for name, why in failed.items()]
    return "\n".join(lines)


def names_of(text, known, what):
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"{what} expected some of {', '.join(known)}, but got {', '.join(unknown)}.")
    return names


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Time flowlab beside its peers, one thread, one process a library.")
    parser.add_argument("--only", default=",".join(LIBRARIES), help="libraries, with commas between")
    parser.add_argument("--jobs", help=f"jobs, with commas between: {', '.join(JOBS)}; and reach, ten minutes")
    parser.add_argument("--seconds", type=float, default=REACH_SECONDS, help="that each library trains for in reach")
    parser.add_argument("--growth", action="store_true", help="how time and memory grow, instead of jobs unless named")
    parser.add_argument("--compile", action="store_true", help="the compiled steps too: minutes, and a C++ compiler")
    parser.add_argument("--rounds", type=int, default=15, help="turns that each library takes at each job")
    parser.add_argument("--json", type=Path, help="write the records there")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return worker(options.worker)
    names = names_of(options.only, LIBRARIES, "--only")
    jobs = options.jobs or ("" if options.growth else ",".join(JOBS))
    jobs = names_of(jobs, JOBS | COMPILED | REACH, "--jobs") if jobs else []
    if options.compile:
        jobs += [job for job in COMPILED if job not in jobs]
    if options.rounds < 1:
        raise SystemExit(f"--rounds expected 1 or more, but got {options.rounds}.")
    records, failed = [], {}
    if timed := [job for job in jobs if job not in REACH]:
        print(f"torch.optim.Adam({', '.join(f'{k}={v}' for k, v in ADAM.items())}) for all, one thread")
        times, failed = measure(names, timed, options.rounds)
        print(report(times, failed, timed))
        records += summarize(times)
    if "reach" in jobs:
        reached, unreached = reach(names, options.seconds)
        print(report_reach(reached))
        for name, why in unreached.items():
            print(f"  {name}: {why}")
        records, failed = records + reached, failed | unreached
    if options.growth:
        grown = measure_growth()
        print(report_growth(grown))
        records += grown
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return OURS in failed  # as exit code: peers may be missing


if __name__ == "__main__":
    sys.exit(main())
