"""What tells a run, an objective or a model from another: all that changes what is computed, and nothing else."""

import copy
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from runs import gaussian, generator, noisy, quiet, same, small, state
from torch import Tensor, nn
from torch.nn import functional as F

from flowlab import Flow
from flowlab.bijections import AffineCoupling, Chain, Inverse, Logit, MonotoneSum, Permutation, ScaleShift
from flowlab.bijections import SplineCoupling as Spline
from flowlab.densities import Dequantized, StandardLogistic, StandardNormal, StandardUniform
from flowlab.networks import ACTIVATIONS, MLP
from flowlab.training import (
    Card,
    CheckpointError,
    Step,
    checkpoints,
    fingerprints,
    load_checkpoint,
    negative_log_likelihood,
    read_checkpoint,
    save_checkpoint,
)

# --- data -------------------------------------------------------------------------------------------------------------

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.uint8, torch.int64)


@pytest.mark.parametrize("dtype", (*DTYPES, torch.bool, torch.float8_e4m3fn), ids=str)
def test_data_of_any_dtype_has_a_fingerprint(dtype):
    x = torch.arange(12).reshape(4, 3).to(dtype)
    assert fingerprints.digest([x]) == fingerprints.digest([x.clone().requires_grad_(x.is_floating_point())])
    assert fingerprints.digest([x]) == fingerprints.digest([x.T.contiguous().T]), "the layout is no part of it"
    assert fingerprints.digest([x]) != fingerprints.digest([x.flip(0)])
    assert fingerprints.digest([x[0, 0]]) != fingerprints.digest([x[2, 2]]) != fingerprints.digest([x[:0]])


def test_the_fingerprint_of_data_is_that_of_earlier_files():
    x = gaussian()
    assert fingerprints.digest([x]) == hashlib.sha256(x.numpy().tobytes()).hexdigest()[:16]


def test_a_model_in_sixteen_bits_trains_with_a_checkpoint(tmp_path):
    settings = {"steps": 6, "checkpoint": tmp_path / "run.safetensors", "validation": gaussian(40)}
    flow, again = small().bfloat16(), small(1).bfloat16()
    quiet(flow, gaussian(), **settings)
    quiet(again, gaussian(), **settings)
    assert same(state(flow), state(again))


# --- models -----------------------------------------------------------------------------------------------------------


class Bent(nn.Module):
    """A user's own density, with a setting and a function among its attributes."""

    def __init__(self, power: float = 2.0, bend: Callable[[Tensor], Tensor] = torch.abs) -> None:
        super().__init__()
        self.power, self.bend, self.weight = power, bend, nn.Parameter(torch.ones(2))
        self.seen: list[int] = []

    def log_prob(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return -(self.bend(self.weight * x) ** self.power).sum(-1)


def coupled(**settings) -> Flow:
    maps = [AffineCoupling([True, False], (6,), generator=generator(), **settings)]
    return Flow(Chain([ScaleShift(2), *maps]), StandardNormal(2))


def splined(**settings) -> Flow:
    return Flow(Spline([True, False], (6,), generator=generator(), **settings), StandardNormal(2))


ORDER = torch.tensor([1, 0])

# Two models whose weights have the same names and shapes, and the word that says how they differ.
PAIRS = {
    "activation": (coupled, lambda: coupled(activation="tanh"), "tanh"),
    "bound of a scale": (coupled, lambda: coupled(log_scale_bound=1.0), "bound"),
    "bound of a spline": (splined, lambda: splined(bound=3.0), "bound"),
    "base": (coupled, lambda: Flow(coupled().bijection, StandardLogistic(2)), "StandardLogistic"),
    "lambda": (
        lambda: Flow(Chain([Logit(1e-3), ScaleShift(2)]), StandardNormal(2)),
        lambda: Flow(Chain([Logit(1e-6), ScaleShift(2)]), StandardNormal(2)),
        r"0\.001",
    ),
    "direction": (
        lambda: Flow(Inverse(Chain([ScaleShift(2)])), StandardNormal(2)),
        lambda: Flow(Backward(Chain([ScaleShift(2)])), StandardNormal(2)),
        "Backward",
    ),
    "order of two maps": (
        lambda: Flow(Chain([Logit(1e-3), ScaleShift(2), Other(1e-3)]), StandardNormal(2)),
        lambda: Flow(Chain([Other(1e-3), ScaleShift(2), Logit(1e-3)]), StandardNormal(2)),
        "Logit",
    ),
    "levels": (
        lambda: Dequantized(Flow(ScaleShift(2), StandardUniform(2))),
        lambda: Dequantized(Flow(ScaleShift(2), StandardUniform(2)), 16),
        "levels is 256",
    ),
    "a setting of one's own": (Bent, lambda: Bent(3.0), r"power is 2\.0 there and 3\.0"),
    "a function of one's own": (Bent, lambda: Bent(bend=F.softplus), "softplus"),
    "a lambda of one's own": (lambda: Bent(bend=lambda x: 2 * x), lambda: Bent(bend=lambda x: 3 * x), "bend"),
}


class Other(Logit):
    """Another class of the same weights."""


class Backward(Inverse):
    """Another class of the same weights."""


@pytest.mark.parametrize("one, other, words", PAIRS.values(), ids=PAIRS)
def test_models_that_compute_different_things_do_not_load_each_others_weights(tmp_path, one, other, words):
    file, model, wrong = tmp_path / "model.safetensors", one(), other()
    assert {n: v.shape for n, v in state(model).items()} == {n: v.shape for n, v in state(wrong).items()}
    save_checkpoint(file, model)
    kept = state(wrong)
    with pytest.raises(CheckpointError, match=rf"holds another model: .*{words}.*Build it as the file says"):
        load_checkpoint(file, wrong)
    assert same(state(wrong), kept)
    load_checkpoint(file, one())
    wrong.load_state_dict(read_checkpoint(file)[0])  # what the message says for those who want it all the same
    with pytest.raises(CheckpointError, match="holds another model"):
        save_checkpoint(file, wrong)
        load_checkpoint(file, model)


def test_a_run_of_another_model_is_not_gone_on_with(tmp_path):
    settings = {"steps": 10, "checkpoint": tmp_path / "run.safetensors"}
    quiet(coupled(), gaussian(), **settings)
    with pytest.raises(CheckpointError, match=r"holds another model: .*bound"):
        quiet(coupled(log_scale_bound=1.0), gaussian(), **settings)
    quiet(coupled(), gaussian(), **settings)


def test_what_changes_no_number_is_no_other_model(tmp_path):
    file, model = tmp_path / "model.safetensors", Bent()
    save_checkpoint(file, model)
    model.log_prob(gaussian())
    load_checkpoint(file, model.eval())
    load_checkpoint(file, copy.deepcopy(model).train())
    save_checkpoint(file, coupled())
    for other in (coupled().double(), coupled().bfloat16(), coupled().requires_grad_(False)):
        load_checkpoint(file, other)
    save_checkpoint(file, coupled(log_scale_bound=0.3).bfloat16())
    load_checkpoint(file, coupled(log_scale_bound=0.3))


def test_files_from_before_models_had_a_structure_load(tmp_path):
    file, model = tmp_path / "model.safetensors", coupled()
    card = {name: what for name, what in Card.describing(model).content().items() if name != "structure"}
    checkpoints.write(file, state(model), card)
    load_checkpoint(file, coupled())
    load_checkpoint(file, coupled(log_scale_bound=1.0))  # nothing is known of it


def test_what_another_version_calls_otherwise_is_a_warning(tmp_path):
    file, model = tmp_path / "model.safetensors", coupled()
    checkpoints.write(file, state(model), Card.describing(model, {"versions": {"flowlab": "0.0.1"}}).content())
    with pytest.warns(UserWarning, match="holds another model: .*bound"):
        load_checkpoint(file, coupled(log_scale_bound=1.0))
    card = Card.describing(model).content()
    for part in card["structure"].values():  # as a version may write it that says less, or more
        part.pop("log_scale_bound", None)
        part["temper"] = 3
    checkpoints.write(file, state(model), card)
    load_checkpoint(file, coupled())


def test_a_large_model_takes_little_room_for_its_structure():
    flow = Flow(Chain([Permutation.random(5000, generator()), ScaleShift(5000)]), StandardNormal(5000))
    assert len(str(fingerprints.structure(flow))) < 1000
    assert MonotoneSum(2).state_dict() and fingerprints.structure(nn.ModuleDict({"7": flow})) == {}


# --- objectives and schedules -----------------------------------------------------------------------------------------


@dataclass
class Weighted:
    """A user's own objective, with a field."""

    weight: float = 1.0

    def __call__(self, model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        return self.weight * negative_log_likelihood(model, batch, step)


class Plain:
    """A user's own objective, with an attribute."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        return self.weight * negative_log_likelihood(model, batch, step)

    def doubled(self, model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        return 2 * self(model, batch, step)


def around(weight: float, noise: Tensor | None = None) -> Callable:
    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        return weight * negative_log_likelihood(model, batch if noise is None else batch + noise, step)

    return objective


def by_default(weight: float) -> Callable:
    def objective(model: nn.Module, batch: Tensor, step: Step, weight: float = weight) -> Tensor:
        return weight * negative_log_likelihood(model, batch, step)

    return objective


def nested(weight: float) -> Callable:
    inner = around(weight)
    return lambda model, batch, step: inner(model, batch, step)


OBJECTIVES = {
    "code": (lambda model, batch, step: -model(batch).mean(), lambda model, batch, step: -2 * model(batch).mean()),
    "closure": (around(1.0), around(2.0)),
    "tensor around": (around(1.0, torch.zeros(2).int()), around(1.0, torch.ones(2).int())),
    "default": (by_default(1.0), by_default(2.0)),
    "function around": (nested(1.0), nested(2.0)),
    "partial": (functools.partial(around(1.0)), functools.partial(around(2.0))),
    "dataclass": (Weighted(), Weighted(2.0)),
    "attribute": (Plain(1.0), Plain(2.0)),
    "method": (Plain(1.0).doubled, Plain(1.0).__call__),
    "library": (negative_log_likelihood, noisy),
}


@pytest.mark.parametrize("one, other", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_run_is_not_gone_on_with_by_another_objective(tmp_path, one, other):
    settings = {"steps": 10, "checkpoint": tmp_path / "run.safetensors"}
    quiet(small(), gaussian(), objective=one, **settings)
    with pytest.raises(CheckpointError, match="another run"):
        quiet(small(), gaussian(), objective=other, **settings)
    quiet(small(), gaussian(), objective=copy.deepcopy(one), **settings)


def test_a_value_that_a_function_reads_from_its_module_counts(monkeypatch, tmp_path):
    settings = {"steps": 10, "checkpoint": tmp_path / "run.safetensors", "objective": by_the_module}
    quiet(small(), gaussian(), **settings)
    quiet(small(), gaussian(), **settings)
    monkeypatch.setitem(globals(), "WEIGHT", 2.0)
    with pytest.raises(CheckpointError, match="another run"):
        quiet(small(), gaussian(), **settings)


WEIGHT = 1.0


def by_the_module(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
    return WEIGHT * negative_log_likelihood(model, batch, step)


def test_code_is_compared_within_one_version_of_python():
    here, there = fingerprints.code(around(1.0)), fingerprints.code(around(2.0))
    assert not fingerprints.same_code(here, there) and fingerprints.same_code(here, fingerprints.code(around(1.0)))
    assert fingerprints.same_code(here, {**there, "python": "3.0"}) and fingerprints.same_code(here, None)
    assert fingerprints.code(negative_log_likelihood) is None, "a library's function is known by its name"


def test_a_run_is_not_gone_on_with_by_another_schedule(tmp_path):
    settings = {"steps": 10, "checkpoint": tmp_path / "run.safetensors"}
    quiet(small(), gaussian(), schedule=lambda u: 1 - u, **settings)
    for other in (lambda u: 0.0, lambda u: 1 - u if u < 0.9 else 0.0, "constant", "cosine"):
        with pytest.raises(CheckpointError, match="another run"):
            quiet(small(), gaussian(), schedule=other, **settings)
    quiet(small(), gaussian(), schedule=lambda u: (2 - 2 * u) / 2, **settings)  # spelled otherwise, and the same


def test_a_run_is_not_gone_on_with_where_other_weights_are_frozen(tmp_path):
    settings = {"steps": 10, "checkpoint": tmp_path / "run.safetensors"}
    quiet(small(), gaussian(), **settings)
    frozen = small()
    frozen.bijection[1].requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"another run: .*frozen"):
        quiet(frozen, gaussian(), **settings)


def test_training_files_from_before_go_on(tmp_path):
    """Of a schedule that is a function, of code and of frozen weights they say nothing."""
    settings = {"steps": 10, "checkpoint": tmp_path / "run.safetensors", "schedule": lambda u: 1 - u}
    quiet(small(), gaussian(), objective=noisy, **settings)
    file = checkpoints.training_file(settings["checkpoint"])
    tensors, card = read_checkpoint(file)
    for name in ("law", "code", "frozen"):
        del card["run"][name]
    del card["structure"]
    checkpoints.write(file, tensors, card)
    assert quiet(small(), gaussian(), objective=noisy, **settings).step == 10


def test_activations_have_the_names_that_files_know_them_by():
    """A file says the names; under others its model would be taken for another one."""
    names = {name: fingerprints.structure(MLP(1, 1, activation=name))[""]["activation"]["name"] for name in ACTIVATIONS}
    torch_function = "torch._VariableFunctionsClass"
    assert names == {
        "relu": f"{torch_function}.relu_",
        "tanh": f"{torch_function}.tanh",
        "silu": "torch.nn.functional.silu",
        "gelu": "torch._C._nn.gelu",
    }
