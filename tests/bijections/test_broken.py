"""Each check of the batteries fails for a map that is wrong in the way that the check looks for."""

import inspect

import pytest
import torch
from torch import nn
from torch.autograd.gradcheck import GradcheckError

from bijections import test_battery as checks
from bijections import test_battery_derivatives as derivatives
from bijections.battery import FIRST, Case
from bijections.surfaces import Sphere
from bijections.table import TABLE, Row
from bijections.toys import ModularShift, NoisyLinear, OneWay, Projective
from flowlab.bijections import Bijection, MonotoneSum, ScaleShift, SinhArcsinh


class OtherInverse(ScaleShift):
    def inverse(self, z, context=None):
        x, log_det = super().inverse(z, context)
        return x + 1e-3, log_det


class SameSign(ScaleShift):
    def inverse(self, z, context=None):
        x, log_det = super().inverse(z, context)
        return x, -log_det


class HalfLogDet(SinhArcsinh):
    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z, 0.5 * log_det

    def inverse(self, z, context=None):
        x, log_det = super().inverse(z, context)
        return x, 0.5 * log_det


class Cut(ScaleShift):
    """No gradient reaches the scale."""

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z.detach() + 0 * x, log_det.detach()


class NoLogDetGradient(ScaleShift):
    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z, log_det.detach()


class Listening(ScaleShift):
    """Each sample is shifted by the mean of its batch."""

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z + 0.1 * z.mean(), log_det


class Forgetful(ScaleShift):
    """Keeps a number that its state dict does not."""

    def __init__(self, features, stack=None, generator=None):
        super().__init__(features, stack=stack)
        self.by = float(torch.rand((), generator=generator))

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z + self.by, log_det


class FirstOfAll(ScaleShift):
    """A stack in which all use the weights of the first."""

    def align(self, parameter, x):
        return super().align(parameter if self.stack is None else parameter[:1].expand_as(parameter), x)


class Silent(MonotoneSum):
    inverse_is_numeric = False


class GlobalStart(ScaleShift):
    """Starts from the global generator."""

    def __init__(self, features, stack=None, generator=None):
        super().__init__(features, stack=stack)
        self.shift.data += torch.rand(features)


class Meeting(ModularShift):
    """Two whole numbers go to one."""

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z // 2 * 2, log_det


class Weighed(ModularShift):
    """A determinant where there is none."""

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z, log_det - 1


class OneFactorLess(Projective):
    """Forgets that the sphere has one dimension less than its space."""

    def _apply_matrix(self, A, x):
        z, log_det = super()._apply_matrix(A, x)
        r = (self.align(A, x.unsqueeze(-1)) @ x.unsqueeze(-1)).squeeze(-1).norm(dim=-1)
        return z, log_det + r.log()


class OffTheSphere(Projective):
    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return 1.001 * z, log_det


class Pretends(OneWay):
    """An inverse that is a wrong number."""

    def inverse(self, z, context=None):
        return z, z.new_zeros(z.shape[:-1])


class Unweighed(OneWay):
    """Uses w · u of the weights before they are kept invertible."""

    def forward(self, x, context=None):
        z, _ = super().forward(x, context)
        w, b, u = (self.align(p, x) for p in (self.w, self.b, self.u))
        return z, (1 + (w * u).sum(-1) * (1 - torch.tanh((w * x).sum(-1) + b.squeeze(-1)) ** 2)).abs().log()


class Biased(NoisyLinear):
    def _flow(self, time, x, generator):
        z, log_det = super()._flow(time, x, generator)
        return z, log_det + 0.2


class GlobalNoise(NoisyLinear):
    def _flow(self, time, x, generator):
        return super()._flow(time, x, None)


class OneBadStart(Bijection):
    """Not the identity at its start."""

    def __init__(self, features):
        super().__init__(features)
        self.shift = nn.Parameter(torch.full((features,), 1e-3))

    def forward(self, x, context=None):
        return x + self.shift, x.new_zeros(x.shape[:-1])


WHOLE = {"kind": "whole", "events": ((2,),), "levels": 4}
SPHERE = {"kind": "manifold", "events": ((3,),), "surface": Sphere(3)}


def whole(kind):
    return lambda D, generator: kind(D, 4, generator=generator)


BROKEN = (
    (checks.test_inverse_undoes_forward, Row(OtherInverse)),
    (checks.test_inverse_undoes_forward, Row(SameSign)),
    (derivatives.test_log_det_is_that_of_the_jacobian, Row(HalfLogDet)),
    (derivatives.test_log_det_is_that_of_the_jacobian, Row(OneFactorLess, **SPHERE)),
    (derivatives.test_log_det_is_that_of_the_jacobian, Row(Unweighed, kind="one way")),
    (derivatives.test_gradients_are_finite, Row(Cut)),
    (derivatives.test_gradients_agree_with_finite_differences, Row(NoLogDetGradient)),
    (checks.test_samples_do_not_depend_on_each_other, Row(Listening)),
    (checks.test_state_dict_brings_it_back, Row(Forgetful)),
    (checks.test_stack_equals_separate_maps, Row(FirstOfAll)),
    (derivatives.test_density_integrates_to_one_on_the_line, Row(HalfLogDet)),
    (derivatives.test_density_integrates_to_one_in_the_plane, Row(HalfLogDet)),
    (derivatives.test_density_integrates_to_one_in_the_plane, Row(Unweighed, kind="one way")),
    (checks.test_density_integrates_to_one_over_the_surface, Row(OneFactorLess, **SPHERE)),
    (checks.test_points_of_the_surface_stay_on_it, Row(OffTheSphere, **SPHERE)),
    (checks.test_numeric_inverses_say_so, Row(Silent)),
    (checks.test_generator_alone_decides, Row(GlobalStart)),
    (checks.test_starts_at_the_identity, Row(OneBadStart)),
    (checks.test_what_cannot_be_inverted_says_who_cannot, Row(Pretends, kind="one way")),
    (checks.test_a_map_of_whole_numbers_permutes_them, Row(whole(Meeting), **WHOLE)),
    (checks.test_a_map_of_whole_numbers_permutes_them, Row(whole(Weighed), **WHOLE)),
    (checks.test_probabilities_sum_to_one, Row(whole(Meeting), **WHOLE)),
    (checks.test_probabilities_sum_to_one, Row(whole(Weighed), **WHOLE)),
    (checks.test_the_mean_of_the_draws_is_the_log_det, Row(Biased, kind="noisy")),
    (checks.test_the_generator_decides_what_is_drawn, Row(GlobalNoise, kind="noisy")),
)


def run(check, name: str) -> None:
    """A check, on a row by name: its few cases, so that a first look catches it, or what else it is given."""
    check = getattr(check, "every_case", getattr(getattr(check, "hypothesis", None), "inner_test", check))
    takes = inspect.signature(check).parameters
    if "case" in takes:
        for case in (*FIRST, Case(event=2, batch=(50,), seed=1)):
            check(name, case)
    else:
        known = {"seed": 1, "stack": None, "direction": "forward"}
        check(name, **{setting: value for setting, value in known.items() if setting in takes})


def label(value) -> str:
    return value.__name__.removeprefix("test_") if callable(value) else getattr(value.build, "__name__", "")


@pytest.mark.parametrize("check, row", BROKEN, ids=label)
def test_a_broken_map_is_caught(check, row, monkeypatch):
    monkeypatch.setitem(TABLE, "broken", row)
    with pytest.raises((AssertionError, GradcheckError, pytest.fail.Exception)):
        run(check, "broken")


def test_each_battery_is_seen_to_fail():
    sweeps = {
        check
        for name, check in (*vars(checks).items(), *vars(derivatives).items())
        if name.startswith("test_") and (hasattr(check, "every_case") or hasattr(check, "hypothesis"))
    }
    assert sweeps <= {check for check, _ in BROKEN}
