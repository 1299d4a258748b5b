"""Each check of the battery fails for a density that is wrong in the way that the check looks for."""

import inspect

import pytest
import torch
from torch import nn

from densities import test_battery as checks
from densities.table import TABLE, Row, bins, couplings, gaussians, in_the_cube
from flowlab.bijections import Chain, FullAffine
from flowlab.densities import Dequantized, Flow, GaussianMixture, StandardNormal, StandardUniform


class TooMuch(StandardNormal):
    """Its mass is e^0.1."""

    def log_prob(self, x, context=None, *, generator=None):
        return super().log_prob(x, context) + 0.1


class TooWide(StandardNormal):
    """Draws from another density than it scores."""

    def draw(self, n, generator=None, context=None):
        x = 1.2 * super().draw(n, generator, context)[0]
        return x, self.log_prob(x)


class AnotherLogProb(StandardNormal):
    def draw(self, n, generator=None, context=None):
        x, log_p = super().draw(n, generator, context)
        return x, log_p + 1e-3


class GlobalNoise(StandardNormal):
    def draw(self, n, generator=None, context=None):
        return super().draw(n, None, context)


class SingleNumbers(StandardNormal):
    """One dtype, whatever it was moved to."""

    def draw(self, n, generator=None, context=None):
        return tuple(t.float() for t in super().draw(n, generator, context))


class NoNumber(StandardNormal):
    """∞ − ∞ far out."""

    def log_prob(self, x, context=None, *, generator=None):
        square = (x * x).sum(-1)
        return super().log_prob(x, context) + (square - square)


class Everywhere(StandardUniform):
    """No support."""

    def log_prob(self, x, context=None, *, generator=None):
        return torch.zeros_like(super().log_prob(x, context))


class Narrow(StandardUniform):
    """Does not score its samples near the edge."""

    def log_prob(self, x, context=None, *, generator=None):
        return super().log_prob(x / 0.99, context)


class Starting(StandardNormal):
    """A look leaves its trace."""

    def __init__(self, features):
        super().__init__(features)
        self.register_buffer("seen", torch.zeros(()))

    def log_prob(self, x, context=None, *, generator=None):
        self.seen += 1
        return super().log_prob(x, context)


class Shapeless(StandardNormal):
    def check_shape(self, x):
        pass


class Closed(StandardNormal):
    """Takes tensors alone."""

    def accept(self, x):
        if not isinstance(x, torch.Tensor):
            raise TypeError("a tensor, please")
        return super().accept(x)


class Detached(Flow):
    def draw(self, n, generator=None, context=None):
        x, log_p = super().draw(n, generator, context)
        return x.detach(), log_p


class HalfGradient(Flow):
    """The gradient of its log p(x) forgets that x moves too."""

    def draw(self, n, generator=None, context=None):
        x, _ = super().draw(n, generator, context)
        return x, self.log_prob(x.detach(), context)


class Numb(GaussianMixture):
    def log_prob(self, x, context=None, *, generator=None):
        return super().log_prob(x, context).detach().requires_grad_()


class OtherContexts(Flow):
    """Each x meets the context of its neighbor."""

    def log_prob(self, x, context=None, *, generator=None):
        return super().log_prob(x, context if context is None or context.ndim < 2 else context.roll(1, 0))


class OneContext(Flow):
    """One draw for each context, where n were asked for."""

    def draw(self, n, generator=None, context=None):
        return tuple(t[0] for t in super().draw(n, generator, context))


class AnyContext(StandardNormal):
    def accept_context(self, context):
        return None


class AboveIt(Dequantized):
    def log_weight(self, x, generator, context=None):
        return super().log_weight(x, generator, context) + 0.1


class Forgetful(StandardNormal):
    """Keeps a number that its state dict does not."""

    def __init__(self, features, generator):
        super().__init__(features)
        self.by = float(torch.rand((), generator=generator))

    def log_prob(self, x, context=None, *, generator=None):
        return super().log_prob(x + self.by, context)


class FirstOfAll(StandardNormal):
    def __init__(self, features, stack):
        super().__init__(features, stack=stack)
        self.shift = nn.Parameter(torch.zeros(features if stack is None else (stack, features)))

    def log_prob(self, x, context=None, *, generator=None):
        return super().log_prob(x - (self.shift if self.stack is None else self.shift[0]), context)


def affine(kind):
    return lambda: kind(FullAffine(2), StandardNormal(2))


def conditional(kind):
    return lambda generator: kind(Chain(couplings(2, context=3, generator=generator)), StandardNormal(2))


BOX = (-9, 9)
BROKEN = (
    (checks.test_integrates_to_one, Row(lambda: TooMuch(2), BOX)),
    (checks.test_samples_follow_the_density, Row(lambda: TooWide(2), BOX)),
    (checks.test_a_draw_brings_its_own_log_prob, Row(lambda: AnotherLogProb(2))),
    (checks.test_the_generator_alone_decides, Row(lambda: GlobalNoise(2))),
    (checks.test_shapes_and_dtypes, Row(lambda: SingleNumbers(2))),
    (checks.test_is_never_nan_for_a_finite_point, Row(lambda: NoNumber(2))),
    (checks.test_outside_the_support_the_density_is_zero, Row(lambda: Everywhere(2), outside=1.5)),
    (checks.test_scores_each_of_its_own_samples, Row(lambda: Narrow(2), outside=1.5)),
    (checks.test_looking_changes_nothing, Row(lambda: Starting(2))),
    (checks.test_wrong_shapes_and_counts_are_refused_in_words, Row(lambda: Shapeless(2))),
    (checks.test_takes_what_people_have, Row(lambda: Closed(2))),
    (checks.test_the_gradient_of_a_mean_over_draws_is_that_of_the_mean, Row(affine(Detached), BOX)),
    (checks.test_the_log_prob_of_a_draw_has_the_gradient_of_its_formula, Row(affine(HalfGradient), BOX)),
    (checks.test_gradients_reach_data_and_parameters, Row(lambda: Numb(torch.eye(2), trainable=True))),
    (checks.test_each_x_meets_its_own_context, Row(conditional(OtherContexts))),
    (checks.test_n_draws_for_each_context, Row(conditional(OneContext))),
    (checks.test_a_context_that_does_not_fit_is_refused_in_words, Row(lambda: AnyContext(2))),
    (
        checks.test_a_bound_is_below_what_it_bounds_and_comes_near,
        Row(lambda: AboveIt(in_the_cube(2), levels=3), levels=3, exact=bins),
    ),
    (checks.test_probabilities_sum_to_one, Row(lambda: AboveIt(in_the_cube(2), levels=3), levels=3)),
    (checks.test_its_weights_bring_it_back, Row(lambda generator: Forgetful(2, generator))),
    (checks.test_a_stack_equals_its_parts, Row(lambda stack: FirstOfAll(2, stack))),
    (checks.test_says_what_it_is, Row(gaussians, levels=3)),
)


@pytest.mark.parametrize("check, row", BROKEN, ids=lambda v: v.__name__.removeprefix("test_") if callable(v) else "")
def test_a_broken_density_is_caught(check, row, monkeypatch):
    monkeypatch.setitem(TABLE, "broken", row)
    known = {"name": "broken", "stack": None, "dtype": torch.float32, "training": True}
    takes = inspect.signature(check).parameters
    with pytest.raises((AssertionError, TypeError, pytest.fail.Exception)):
        check(**{setting: value for setting, value in known.items() if setting in takes})
