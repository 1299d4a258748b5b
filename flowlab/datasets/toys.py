"""Toys: densities in the plane that one can look at, each with labels and its exact log-density.

A toy is a density like any model, so a fit can be compared with the truth in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor

from flowlab.bijections.base import ShapeError
from flowlab.densities.base import Density, check_generator
from flowlab.tables import as_tensor

TWO_PI = 2 * math.pi
ROOTS = 16  # features that the pinwheel's density finds one by one at each end of a piece of circle
MOST_TURNS = 1e9  # turns (in radians) beyond which float64 has no digits left for where they end


class Toy(Density):
    """A mixture of ``components`` equally likely parts in the plane: p(x) = (1/K) Σₖ p(x | k).

    ``extent`` is the half-width of the centered square that holds the data, for plotting; ``size`` is how many points
    are drawn where no number is asked for.
    """

    event_shape = (2,)
    _chunk: ClassVar[int] = 8192  # points that the density takes at a time, which bounds its memory

    @property
    def components(self) -> int:
        """K, the number of parts."""
        raise NotImplementedError

    @property
    def extent(self) -> float:
        """Half the side of the centered square that holds the data."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """How many points are drawn where no number is asked for."""
        return 1024

    def labelled(self, n: int | None = None, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """n points and the part each came from: (n, 2) in torch's default dtype and (n,) int64, in random order.

        The labels are as balanced as n allows; which parts get one more is random too, so that each single point has
        the density of ``log_prob``. Randomness is the generator's (torch's own if None) and so is the device.

        Raises:
            ValueError: for an n that is not a whole number of at least 1.
        """
        n = self.size if n is None else n
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
            raise ValueError(f"{type(self).__name__} expected a whole number of points, at least 1, but got {n!r}.")
        check_generator(generator)
        device = torch.device("cpu") if generator is None else generator.device
        first = torch.randint(self.components, (1,), generator=generator, device=device)
        order = torch.randperm(int(n), generator=generator, device=device)
        labels = (order + first) % self.components
        return self._draw(labels, generator), labels

    def draw(
        self, n: int | None = None, generator: Generator | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """n points of p(x) and their exact log p(x) in nats: (n, 2) and (n,), without gradients.

        Raises:
            ValueError: for a context, and for an n that is not a whole number of at least 1.
        """
        x = self.sample(n, generator, context)
        return x, self.log_prob(x)

    def sample(self, n: int | None = None, generator: Generator | None = None, context: Tensor | None = None) -> Tensor:
        """n points of p(x), (n, 2) in torch's default dtype: ``labelled`` without the labels."""
        self._refuse(context)
        return self.labelled(n, generator)[0]

    def log_prob(self, x: Any, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """The exact log p(x) in nats: (..., 2) to (...), in x's dtype and on its device, computed in float64.

        Takes what ``flowlab.tables`` takes; whole numbers give torch's default dtype. No gradient passes. A point with
        a NaN has NaN, an infinite one −∞.

        Raises:
            ShapeError: for points of another shape.
            ValueError: for a context.
            NotImplementedError: for a toy without a density that can be computed.
        """
        self._refuse(context)
        x = as_tensor(x)
        if x.shape[-1:] != (2,):
            raise ShapeError(f"{type(self).__name__} expected shape (..., 2), but got {tuple(x.shape)}.")
        x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        points = x.detach().cpu().double().reshape(-1, 2)
        log_p = torch.where(points.isnan().any(-1), math.nan, -math.inf).double()
        finite = points.isfinite().all(-1)
        log_p[finite] = torch.cat([self._log_density(chunk) for chunk in points[finite].split(self._chunk)])
        return self.defined(log_p.reshape(x.shape[:-1]).to(x), x)

    def _refuse(self, context: Any) -> None:
        if context is not None:
            raise ValueError(f"{type(self).__name__} expected no context features, but got a context.")

    def _draw(self, labels: Tensor, generator: Generator | None) -> Tensor:
        """One point for each label: (n,) to (n, 2)."""
        raise NotImplementedError

    def _log_density(self, x: Tensor) -> Tensor:
        """log p of finite float64 points: (M, 2) to (M,)."""
        raise NotImplementedError(f"{type(self).__name__} has no density that can be computed; sample from it instead.")


@dataclass(frozen=True)
class Pinwheel(Toy):
    """Bent wings: x = scale · R(θₖ + rate·eᵃ) (a, b), where a ~ N(1, radial_std²) and b ~ N(0, tangential_std²).

    R(φ) is the rotation by φ and θₖ = 2πk/wings. So each wing is a flow of a Gaussian, with determinant
    scale²·(1 − rate·eᵃ·b), and p(x) is the sum of N(a, b)/|det| over all the features (a, b) that land on x: one for
    each wing near the data, several in the tails, where a wing folds over itself.

    The values are those of Pires' thesis (2020, section 5.1.1: 512 points a wing), the generator that of Johnson et al.
    (arXiv:1603.06277), whose code turns the wings the other way: rate = −0.4 here.
    """

    radial_std: float = 0.3
    tangential_std: float = 0.05
    _: KW_ONLY
    wings: int = 5
    rate: float = 0.4
    scale: float = 2.0
    points_a_wing: int = 512

    def __post_init__(self) -> None:
        _check_positive(self, "radial_std", "tangential_std", "scale")
        _check_count(self, "wings", "points_a_wing")
        if not math.isfinite(self.rate):
            raise ValueError(f"Pinwheel expected a finite rate, but got {self.rate}.")

    @property
    def components(self) -> int:
        return self.wings

    @property
    def size(self) -> int:
        return self.wings * self.points_a_wing

    @property
    def extent(self) -> float:
        return self.scale * (1 + 4 * max(self.radial_std, self.tangential_std))

    def wind(self, features: Tensor, labels: Tensor) -> Tensor:
        """x = scale · R(θₖ + rate·eᵃ) (a, b), the pinwheel's own flow: (..., 2) and labels (...) to (..., 2)."""
        a, b = features.unbind(-1)
        angle = TWO_PI * labels.to(a) / self.wings + self.rate * a.exp()
        cos, sin = angle.cos(), angle.sin()
        return self.scale * torch.stack([a * cos - b * sin, a * sin + b * cos], -1)

    def _draw(self, labels: Tensor, generator: Generator | None) -> Tensor:
        e = _normal(labels, generator)
        features = e * e.new_tensor([self.radial_std, self.tangential_std]) + e.new_tensor([1.0, 0.0])
        return self.wind(features, labels)

    def _log_density(self, x: Tensor) -> Tensor:
        """log Σ N(a, b)/|det| over the features that land on x, each found by bisection.

        Turning keeps the radius, so at radius r they are (a, b) = r (cos t, sin t), and t must turn to x's own angle ψ:
        h(t) = t + rate·exp(r cos t) = ψ + 2πj/wings, with one integer j for wings and full turns together. Along the
        circle h′(t) = 1 − rate·eᵃ·b is the determinant.
        """
        r = torch.hypot(*(x / self.scale).unbind(-1))  # (M,)
        psi = torch.atan2(x[:, 1], x[:, 0]) * math.copysign(1, self.rate)  # a negative rate is a mirror image
        s, q, step = self.radial_std, self.tangential_std, TWO_PI / self.wings

        def bend(t: Tensor, r: Tensor) -> Tensor:
            return abs(self.rate) * (r * t.cos()).clamp(max=300).exp()  # clamped far beyond MOST_TURNS, against inf

        def h(t: Tensor, r: Tensor) -> Tensor:
            return t + bend(t, r)

        def slope(t: Tensor, r: Tensor) -> Tensor:
            return 1 - bend(t, r) * r * t.sin()

        def energy(t: Tensor, r: Tensor) -> Tensor:  # −log N(a, b) without its constant: a quadratic in cos t
            return 0.5 * ((r * t.cos() - 1) / s) ** 2 + 0.5 * (r * t.sin() / q) ** 2

        # h falls between t1 and t2 only, on either side of the peak of sin t · exp(r cos t), or nowhere (t1 = t2). Cut
        # there, h is monotone in each piece. Cut where the energy turns too, a piece has its roots in order of weight.
        zero, pi = torch.zeros_like(r), torch.full_like(r, math.pi)
        peak = (2 * r / (1 + (1 + 4 * r * r).sqrt())).arccos()
        t1, t2 = (_bisect(lambda t: slope(t, r), peak, end) for end in (zero, pi))
        turn = (1 / (r * (1 - (s / q) ** 2))).clamp(-1, 1).arccos()
        cuts = torch.stack([-pi, -turn, zero, t1, t2, turn, pi], -1).sort(-1).values  # (M, 7)
        j = ((h(cuts, r[:, None]) - psi[:, None]) / step).ceil().long()  # the first j at or above each cut
        j[:, -1] = j[:, 0] + self.wings  # π is −π one turn later, to the last bit

        owner = torch.arange(len(r)).repeat_interleave(6)  # the point of each piece: (P,), where P = 6M
        r, psi = r[owner], psi[owner]
        u, v, ju, jv = (each.flatten() for each in (cuts[:, :-1], cuts[:, 1:], j[:, :-1], j[:, 1:]))
        swap = energy(u, r) > energy(v, r)
        heavy, light = torch.where(swap, v, u), torch.where(swap, u, v)
        j_heavy, j_light = torch.where(swap, jv, ju), torch.where(swap, ju, jv)
        rises = j_heavy <= j_light  # from the heavy end to the light one
        sign, first = torch.where(rises, 1, -1).to(r), torch.where(rises, j_heavy, j_heavy - 1).to(r)

        def root(piece: Tensor, i: Tensor) -> Tensor:
            """The i-th root of a piece from its heavy end; half a step on for i + ½."""
            target = psi[piece] + step * (first[piece] + sign[piece] * i)
            return _bisect(lambda t: sign[piece] * (h(t, r[piece]) - target), heavy[piece], light[piece])

        # The roots at a piece's two ends, where the weight or 1/|h′| is large, are summed one by one. Far out there are
        # about eʳ between; in steps of 2π/wings they are the midpoint rule of ∫ N/|h′| dh = ∫ N dt. So the cost is
        # bounded, and the sum is right to 1e-4 of itself there (to rounding where a piece has no more than 2·ROOTS).
        # Where float64 loses the angle (r > 20; the data ends at 2.5), all is the integral, which is the mean over ψ.
        lost = abs(self.rate) * r.clamp(max=300).exp() > MOST_TURNS
        counts = torch.where(lost, 0, (j_light - j_heavy).abs())
        kept = counts.clamp(max=2 * ROOTS)
        piece = torch.arange(len(r)).repeat_interleave(kept)
        i = torch.arange(len(piece)) - (kept.cumsum(0) - kept)[piece]
        t = root(piece, torch.where(i < ROOTS, i, i + (counts - kept)[piece]))
        log_terms = -energy(t, r[piece]) - slope(t, r[piece]).abs().log()

        rest = ((counts > kept) | lost).nonzero()[:, 0]
        start = torch.where(lost[rest], heavy[rest], root(rest, r.new_full(rest.shape, ROOTS - 0.5)))
        end = torch.where(lost[rest], light[rest], root(rest, counts[rest] - ROOTS - 0.5))
        log_rest = _log_integral(lambda t: -energy(t, r[rest, None]), start, end) - math.log(step)
        log_sum = _logsumexp_by(owner[torch.cat([piece, rest])], torch.cat([log_terms, log_rest]), len(x))
        return log_sum - math.log(TWO_PI * s * q * self.wings * self.scale**2)


@dataclass(frozen=True)
class Rings(Toy):
    """Points on circles around the origin, the k-th of radius ρₖ, plus N(0, noise² I).

    p(x | k) = exp(−(r − ρₖ)²/2σ²) · I₀ᵉ(rρₖ/σ²) / 2πσ², with r = |x|, σ = noise and the scaled Bessel function
    I₀ᵉ(u) = e⁻ᵘI₀(u): the mean of a Gaussian over the circle.
    """

    radii: tuple[float, ...] = (0.75, 1.5, 2.25, 3.0)
    noise: float = 0.08

    def __post_init__(self) -> None:
        _check_positive(self, "noise")
        if not self.radii or not all(math.isfinite(radius) and radius > 0 for radius in self.radii):
            raise ValueError(f"{type(self).__name__} expected positive radii, at least one, but got {self.radii}.")

    @property
    def components(self) -> int:
        return len(self.radii)

    @property
    def extent(self) -> float:
        return max(self.radii) + 4 * self.noise

    def _draw(self, labels: Tensor, generator: Generator | None) -> Tensor:
        t = TWO_PI * _uniform(labels, generator)
        radius = t.new_tensor(self.radii)[labels]
        circle = torch.stack([radius * t.cos(), radius * t.sin()], -1)
        return circle + self.noise * _normal(labels, generator)

    def _log_density(self, x: Tensor) -> Tensor:
        r = torch.hypot(x[:, :1], x[:, 1:])  # (M, 1)
        radius, variance = x.new_tensor(self.radii), self.noise**2
        log_k = -((r - radius) ** 2) / (2 * variance) + torch.special.i0e(r * radius / variance).log()
        return log_k.logsumexp(-1) - math.log(TWO_PI * variance * self.components)


@dataclass(frozen=True)
class TwoCircles(Rings):
    """Two concentric rings, the toy that a mixture of flows halves instead of parting.

    Radii and noise as in Pires' thesis (2020, section 5.1.2: 512 points a circle).
    """

    radii: tuple[float, ...] = (0.8, 0.4)
    noise: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.radii) != 2:
            raise ValueError(f"TwoCircles expected two radii, but got {self.radii}; Rings takes any number.")


class Curves(Toy):
    """Points on curves γₖ(s), s = u^(1/power) with u uniform on [0, 1], plus N(0, noise² I).

    p(x | k) = ∫₀¹ N(x; γₖ(s), noise² I) · power · s^(power − 1) ds, by 12 Gauss-Legendre nodes on each piece of curve
    four noises long (at least eight pieces). Across such a piece the Gaussian is nearly a polynomial of degree 23, so
    log p is right to 1e-6 nats within five noises of the curve, and to 1e-3 of itself anywhere. It costs length/noise.
    """

    noise: float
    power: ClassVar[int] = 1

    def _curve(self, s: Tensor, labels: Tensor) -> Tensor:
        """γₖ(s), all of one length: (...) and (...) to (..., 2)."""
        raise NotImplementedError

    def _draw(self, labels: Tensor, generator: Generator | None) -> Tensor:
        s = _uniform(labels, generator) ** (1 / self.power)
        return self._curve(s, labels) + self.noise * _normal(labels, generator)

    def _log_density(self, x: Tensor, piece: float = 4.0) -> Tensor:
        s = torch.linspace(0, 1, 4097, dtype=x.dtype)
        steps = self._curve(s, torch.zeros_like(s)).diff(dim=0).norm(dim=-1)
        walked = np.r_[0, steps.cumsum(0).numpy()]  # the length of the curve up to s
        stops = np.linspace(0, walked[-1], 1 + max(8, math.ceil(walked[-1] / (piece * self.noise))))
        cuts = torch.from_numpy(np.interp(stops, walked, s.numpy()))
        s, weight = _gauss_legendre(12, cuts[:-1, None], cuts[1:, None])  # (pieces, 12)
        log_weight = (weight * self.power * s ** (self.power - 1)).log().flatten().repeat(self.components)  # (Q,)
        labels = torch.arange(self.components)[:, None, None]
        center = self._curve(s.expand(self.components, -1, -1), labels).reshape(-1, 2)  # (Q, 2), nodes of all curves
        # |x − γ|² multiplied out, so that the one large array is made once; in parts of 1 MB, which a cache holds.
        variance = self.noise**2
        at_nodes = log_weight - center.square().sum(-1) / (2 * variance)
        parts = x.split(max(1, 2**17 // len(center)))
        log_sum = torch.cat([torch.addmm(at_nodes, part, center.T / variance).logsumexp(-1) for part in parts])
        return log_sum - x.square().sum(-1) / (2 * variance) - math.log(TWO_PI * variance * self.components)


@dataclass(frozen=True)
class TwoMoons(Curves):
    """Two half circles of radius 1, hooked into each other around the origin, plus N(0, noise² I).

    γ(s) = ±(cos πs − ½, sin πs − ¼), with + for label 0.
    """

    noise: float = 0.1
    components: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _check_positive(self, "noise")

    @property
    def extent(self) -> float:
        return 1.5 + 4 * self.noise

    def _curve(self, s: Tensor, labels: Tensor) -> Tensor:
        t = math.pi * s
        return (1 - 2 * labels)[..., None] * torch.stack([t.cos() - 0.5, t.sin() - 0.25], -1)


@dataclass(frozen=True)
class Spirals(Curves):
    """Arms of an Archimedean spiral, plus N(0, noise² I).

    γₖ(s) = radius · s · (cos φ, sin φ) with φ = 2π(turns · s + k/arms), and s = √u for a uniform u, which spreads the
    points nearly evenly along the arms.
    """

    noise: float = 0.1
    arms: int = 2
    _: KW_ONLY
    turns: float = 1.5
    radius: float = 3.0
    power: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _check_positive(self, "noise", "turns", "radius")
        _check_count(self, "arms")

    @property
    def components(self) -> int:
        return self.arms

    @property
    def extent(self) -> float:
        return self.radius + 4 * self.noise

    def _curve(self, s: Tensor, labels: Tensor) -> Tensor:
        angle = TWO_PI * (self.turns * s + labels.to(s) / self.arms)
        return self.radius * s[..., None] * torch.stack([angle.cos(), angle.sin()], -1)


@dataclass(frozen=True)
class EightGaussians(Toy):
    """Eight Gaussians N(μₖ, noise² I), their means evenly spaced on a circle, the first on the x₁ axis."""

    radius: float = 2.0
    noise: float = 0.2
    components: ClassVar[int] = 8

    def __post_init__(self) -> None:
        _check_positive(self, "radius", "noise")

    @property
    def extent(self) -> float:
        return self.radius + 4 * self.noise

    def _means(self, like: Tensor) -> Tensor:
        t = TWO_PI * torch.arange(8, dtype=like.dtype, device=like.device) / 8
        return self.radius * torch.stack([t.cos(), t.sin()], -1)  # (8, 2)

    def _draw(self, labels: Tensor, generator: Generator | None) -> Tensor:
        e = _normal(labels, generator)
        return self._means(e)[labels] + self.noise * e

    def _log_density(self, x: Tensor) -> Tensor:
        squared = (x[:, None] - self._means(x)).square().sum(-1)  # (M, 8)
        return (-squared / (2 * self.noise**2)).logsumexp(-1) - math.log(8 * TWO_PI * self.noise**2)


@dataclass(frozen=True)
class Checkerboard(Toy):
    """Uniform on every other square of a board: p(x) = 1/area on those squares, 0 (log p = −∞) elsewhere.

    ``squares`` are counted along one side, ``half_width`` is half of that side; the labels count the squares that are
    filled, row by row from the lower left.
    """

    squares: int = 4
    half_width: float = 4.0

    def __post_init__(self) -> None:
        _check_count(self, "squares")
        _check_positive(self, "half_width")

    @property
    def components(self) -> int:
        return (self.squares**2 + 1) // 2

    @property
    def extent(self) -> float:
        return self.half_width

    @property
    def _side(self) -> float:
        return 2 * self.half_width / self.squares

    def _draw(self, labels: Tensor, generator: Generator | None) -> Tensor:
        i = torch.arange(self.squares, device=labels.device)
        row, column = torch.meshgrid(i, i, indexing="ij")
        filled = (row + column) % 2 == 0
        corner = torch.stack([column[filled], row[filled]], -1)[labels]  # (n, 2)
        # Kept off the edges by more than float32 rounds, or a point might fall on an empty square.
        within = _uniform(labels, generator, 2).clamp(1e-5, 1 - 1e-5)
        return self._side * (corner + within) - self.half_width

    def _log_density(self, x: Tensor) -> Tensor:
        square = ((x + self.half_width) / self._side).floor()
        filled = ((square >= 0) & (square < self.squares)).all(-1) & (square.sum(-1) % 2 == 0)
        return torch.where(filled, -math.log(self.components * self._side**2), -math.inf).to(x)


TOYS: dict[str, type[Toy]] = {
    "pinwheel": Pinwheel,
    "two_circles": TwoCircles,
    "two_moons": TwoMoons,
    "eight_gaussians": EightGaussians,
    "rings": Rings,
    "spirals": Spirals,
    "checkerboard": Checkerboard,
}


def _normal(labels: Tensor, generator: Generator | None) -> Tensor:
    return torch.randn(len(labels), 2, generator=generator, device=labels.device)


def _uniform(labels: Tensor, generator: Generator | None, *event: int) -> Tensor:
    return torch.rand(len(labels), *event, generator=generator, device=labels.device)


def _check_positive(toy: Toy, *names: str) -> None:
    for name in names:
        value = getattr(toy, name)
        if not (isinstance(value, Real) and math.isfinite(value) and float(value) > 0):
            raise ValueError(f"{type(toy).__name__} expected a positive number for {name}, but got {value!r}.")


def _check_count(toy: Toy, *names: str) -> None:
    for name in names:
        value = getattr(toy, name)
        if not isinstance(value, Integral) or int(value) < 1:
            raise ValueError(
                f"{type(toy).__name__} expected a whole number, at least 1, for {name}, but got {value!r}."
            )


def _bisect(f: Callable[[Tensor], Tensor], below: Tensor, above: Tensor, steps: int = 55) -> Tensor:
    """Where f crosses zero between ``below``, the end at which f ≤ 0, and ``above``, whichever is larger."""
    for _ in range(steps):
        middle = 0.5 * (below + above)
        low = f(middle) <= 0
        below, above = torch.where(low, middle, below), torch.where(low, above, middle)
    return 0.5 * (below + above)


def _gauss_legendre(order: int, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of ∫ from start to end: two (..., 1) to two (..., order)."""
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(order))
    half = 0.5 * (end - start)
    return start + half * (nodes + 1), half.abs() * weights


def _log_integral(log_f: Callable[[Tensor], Tensor], start: Tensor, end: Tensor) -> Tensor:
    """log |∫ exp(log f) from start to end|, where log f falls all the way: (R,), (R,) to (R,)."""
    start, end = start[:, None], end[:, None]
    top = log_f(start)
    end = _bisect(lambda t: top - 40 - log_f(t), start, end)  # what lies further adds less than e⁻⁴⁰
    nodes, weights = _gauss_legendre(64, start, end)
    return (log_f(nodes) + weights.log()).logsumexp(-1)


def _logsumexp_by(owner: Tensor, terms: Tensor, n: int) -> Tensor:
    """log Σ exp(terms) of each owner 0 … n − 1."""
    top = terms.new_full((n,), -math.inf).scatter_reduce(0, owner, terms, "amax")
    return top + terms.new_zeros(n).index_add(0, owner, (terms - top[owner]).exp()).log()
