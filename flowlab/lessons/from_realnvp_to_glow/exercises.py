"""The exercises: a 1×1 convolution, its LU factors, batch normalization, ActNorm's start, judging a race."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, expect, numbers


def mix_pixels(W, x):
    """z and log_det of the 1×1 convolution with the matrix W (C, C): x (N, C, H, W') to z (N, C, H, W') and (N,).

    At each pixel z = W x. log_det is log |det ∂z/∂x| of a whole image.
    """
    height, width = x.shape[-2:]
    z = torch.einsum("ij,njhw->nihw", W, x)
    log_det = height * width * torch.linalg.slogdet(W).logabsdet
    return z, log_det.expand(len(x))


def from_factors(P, lower, upper, s):
    """W = P L (U + diag(s)) and log |det W|, without any determinant of a matrix: (D, D) and one number.

    P (D, D) is a permutation. Of ``lower`` (D, D) only what is below the diagonal counts: L has ones there. Of
    ``upper`` (D, D) only what is above the diagonal counts: U has zeros there. s (D,) may be negative, never 0.
    """
    D = len(s)
    L = lower.tril(-1) + torch.eye(D, dtype=s.dtype)
    U = upper.triu(1)
    return P @ L @ (U + torch.diag(s)), s.abs().log().sum()


def batch_norm(x, gamma, beta, epsilon):
    """z = γ (x − μ) / √(σ² + ε) + β and log_det, with the statistics held constant: x (N, D) to (N, D) and (N,).

    μ and σ² are the batch's own mean and variance (divided by N) of each column. γ and β are (D,), γ may be negative.
    """
    mean, variance = x.mean(0), x.var(0, correction=0)
    z = gamma * (x - mean) / torch.sqrt(variance + epsilon) + beta
    log_det = (gamma.abs().log() - 0.5 * torch.log(variance + epsilon)).sum()
    return z, log_det.expand(len(x))


def start(x):
    """log_scale and shift, (D,) each, so that z = x · exp(log_scale) + shift has mean 0 and deviation 1 on x (N, D).

    The deviation is that of the batch (divided by N). A column that does not vary keeps its scale, and has mean 0.
    """
    std = x.std(0, correction=0)
    log_scale = -torch.where(std > 0, std, 1.0).log()
    return log_scale, -x.mean(0) * log_scale.exp()


def difference(a, b):
    """Mean of a minus mean of b, and the standard error of that difference: two numbers.

    a (n,) and b (m,) are nats to the truth of two recipes, one number for each seed.
    """
    error = torch.sqrt(a.var() / len(a) + b.var() / len(b))  # var divides by n − 1
    return a.mean() - b.mean(), error


# --- the checks -----------------------------------------------------------------------------------------------------


def _pair(answer: object, names: str) -> tuple:
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 2,
        f"Return two things, {names}; what came is {type(answer).__name__}.",
    )
    return answer


def check_mix(answer: Callable) -> None:
    """Matrices of both signs of the determinant; images that are not square."""
    for C, H, width, sign in ((3, 2, 4, 1), (4, 3, 2, -1), (2, 5, 5, -1)):
        g = torch.Generator().manual_seed(C)
        W = torch.randn(C, C, generator=g, dtype=torch.float64) + torch.eye(C)
        if float(torch.linalg.det(W)) * sign < 0:
            W[0] = -W[0]
        x = torch.randn(5, C, H, width, generator=g, dtype=torch.float64)
        z, log_det = _pair(answer(W.clone(), x.clone()), "z and log_det")
        z = numbers(z, None, "z")
        right = torch.nn.functional.conv2d(x, W[:, :, None, None])
        if z.shape == x.shape and not torch.allclose(z, right):
            turned = torch.nn.functional.conv2d(x, W.T[:, :, None, None])
            expect(not torch.allclose(z, turned), "You used Wᵀ: output channel i is Σ_j W[i, j] x_j.")
        expect(z.shape == x.shape, f"z should have the shape of x, {tuple(x.shape)}, but got {tuple(z.shape)}.")
        expect(torch.allclose(z, right), "z is not W x at each pixel. Which axis of x holds the channels?")
        log_det = numbers(log_det, None, "log_det")
        log_det = log_det.flatten() if log_det.numel() == 5 else log_det
        one = float(torch.linalg.slogdet(W).logabsdet)

        def gave(value: float, came: Tensor = log_det) -> bool:
            return bool(torch.allclose(came, torch.tensor(value, dtype=torch.float64), rtol=1e-4))

        expect(
            not log_det.isnan().any(),
            "log_det is not a number: here det W is below 0. A density needs log |det W|.",
        )
        expect(not gave(one), "That is one pixel's. The same W acts at every pixel, and log-dets add.")
        expect(
            not gave(C * H * width * one),
            "You counted the channels, too. W mixes the channels of a pixel: it acts once a pixel, H · W' times.",
        )
        expect(not gave(-H * width * one), "The sign is turned: forward multiplies by W, so it is + log |det W|.")
        expect(
            not gave(math.exp(one) * H * width) and not gave(sign * math.exp(one) * H * width),
            "That is H · W' · det W. Asked is its log: determinants multiply, logs add.",
        )
        expect(
            log_det.shape == (5,) or not gave(H * width * one),
            f"One log_det for each image, shape (N,) = (5,), but got {tuple(log_det.shape)}: use expand.",
        )
        expect(
            gave(H * width * one),
            "Write the whole image as one vector: its Jacobian has H · W' blocks W on the diagonal.",
        )


def check_factors(answer: Callable) -> None:
    """Permutations of both signs, negative s, and triangles with rubbish in the other half."""
    for order in ([2, 0, 1], [1, 2, 3, 0], [1, 2, 0, 4, 3]):  # none is its own inverse
        D = len(order)
        g = torch.Generator().manual_seed(D)
        P = torch.eye(D)[order]
        lower, upper = torch.randn(2, D, D, generator=g)
        s = torch.tensor([-2.0, 0.5, 3.0, -0.25, -1.5])[:D]
        W, log_det = _pair(answer(P.clone(), lower.clone(), upper.clone(), s.clone()), "W and log_det")
        W = numbers(W, (D, D), "W")
        L = lower.tril(-1) + torch.eye(D)
        R = upper.triu(1) + torch.diag(s)

        def is_W(other: Tensor, W: Tensor = W) -> bool:
            return bool(torch.allclose(W, other.double(), rtol=1e-4, atol=1e-5))

        expect(not is_W(P @ lower.tril() @ R), "Your L keeps the diagonal of ``lower``. L has ones there.")
        expect(not is_W(P @ lower.tril(-1) @ R), "Your L has zeros on its diagonal, so W is singular. It needs ones.")
        expect(
            not is_W(P @ L @ (upper.triu() + torch.diag(s))),
            "Your U keeps the diagonal of ``upper``. U has zeros there.",
        )
        expect(not is_W(L @ R), "P is missing: without it, W₁₁ = 0 is out of reach, so no swap of two coordinates.")
        expect(not is_W(P.T @ L @ R), "You used Pᵀ, which undoes the permutation.")
        expect(not is_W(L @ R @ P) and not is_W(L @ P @ R), "P comes last: it is the leftmost factor.")
        expect(is_W(P @ L @ R), "W is not P L (U + diag(s)). Look at the three factors one by one.")
        log_det, right = float(numbers(log_det, (), "log_det")), float(s.abs().log().sum())
        expect(
            not math.isnan(log_det), "log_det is not a number: the log of a negative s, or of a negative determinant."
        )
        sign = float(torch.linalg.det(P @ L @ R).sign())
        product = math.exp(right)
        expect(
            not any(math.isclose(log_det, v, rel_tol=1e-4) for v in (product, -product)),
            "That is the product: the determinant, up to its sign. Asked is the log of its size.",
        )
        expect(
            not math.isclose(log_det, float(s.sum()), rel_tol=1e-4),
            "You summed s. Summed are the logs of |s|, as logs turn the product into a sum.",
        )
        expect(
            sign > 0 or not math.isclose(log_det, -right, rel_tol=1e-4),
            "You gave the log the sign of the determinant. That sign says that W mirrors; volumes do not care.",
        )
        expect(math.isclose(log_det, right, rel_tol=1e-4), "|det P| = 1 and det L = 1. What is the third factor's?")


def check_batch(answer: Callable) -> None:
    """Small batches, so that N and N − 1 differ; γ of both signs; a coordinate that hardly varies."""
    for N, D, epsilon in ((4, 3, 0.1), (3, 2, 0.5), (6, 1, 1e-3)):
        g = torch.Generator().manual_seed(N)
        x = 2 * torch.randn(N, D, generator=g, dtype=torch.float64) + 3
        gamma = torch.tensor([-0.5, 3.0, 1.7], dtype=torch.float64)[:D]
        beta = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)[:D]
        z, log_det = _pair(answer(x.clone(), gamma.clone(), beta.clone(), epsilon), "z and log_det")
        z = numbers(z, (N, D), "z")
        mean, variance = x.mean(0), x.var(0, correction=0)

        def out(v: Tensor, x: Tensor = x, mean: Tensor = mean, gamma: Tensor = gamma, beta: Tensor = beta) -> Tensor:
            return gamma * (x - mean) / v.sqrt() + beta

        def is_z(other: Tensor, z: Tensor = z) -> bool:
            return bool(torch.allclose(z, other))

        expect(not is_z(out(x.var(0) + epsilon)), "You divided the squares by N − 1. The batch's own variance has N.")
        expect(not is_z(out(variance)), "ε is missing in z: without it, a column that does not vary divides by 0.")
        expect(not is_z(out((variance + epsilon) ** 2)), "You divided by the variance. A deviation is its root.")
        expect(is_z(out(variance + epsilon)), "z is not γ (x − μ) / √(σ² + ε) + β, each statistic by column.")
        log_det = numbers(log_det, None, "log_det")
        log_det = log_det.flatten() if log_det.numel() == N else log_det
        spread, logs = 0.5 * (variance + epsilon).log().sum(), gamma.abs().log().sum()

        def gave(value: Tensor, came: Tensor = log_det, N: int = N) -> bool:
            return came.shape in ((), (N,)) and bool(torch.allclose(came, value.expand(came.shape), rtol=1e-4))

        expect(
            not log_det.isnan().any(), "log_det is not a number: γ may be negative. Take the log of its absolute value."
        )
        expect(not gave(-spread), "γ stretches as well, and is missing in your log_det.")
        expect(not gave(logs + spread), "You added ½ log(σ² + ε). z is x *divided* by that root.")
        expect(not gave(logs - 2 * spread), "You took log(σ² + ε) whole. The root makes it a half.")
        expect(not gave(logs - 0.5 * variance.log().sum()), "ε is in z, so it is in log_det as well: log(σ² + ε).")
        expect(not gave(N * (logs - spread)), "That is the sum over the batch. Asked is one number for each sample.")
        expect(log_det.shape == (N,), f"log_det is one number a sample, shape ({N},), but got {tuple(log_det.shape)}.")
        expect(gave(logs - spread), "With μ and σ² constant, z is x times γ/√(σ² + ε) plus something, in each column.")


def check_start(answer: Callable) -> None:
    """A batch of few samples in odd units; then one with a column that never varies."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=g, dtype=torch.float64)
    x = x * torch.tensor([10.0, 0.1, 3.0]) + torch.tensor([7.0, -2.0, 40.0])
    constant = x.clone()
    constant[:, 1] = 4.0
    for batch in (x, constant):
        log_scale, shift = _pair(answer(batch.clone()), "log_scale and shift")
        log_scale, shift = numbers(log_scale, (3,), "log_scale"), numbers(shift, (3,), "shift")
        std, mean = batch.std(0, correction=0), batch.mean(0)
        expect(
            bool(log_scale.isfinite().all() and shift.isfinite().all()),
            "Not finite: a column that does not vary has deviation 0. Let it keep its scale, exp(0) = 1.",
        )
        varies = std > 0

        def is_scale(other: Tensor, came: Tensor = log_scale, varies: Tensor = varies) -> bool:
            return bool(torch.allclose(came[varies], other[varies], rtol=1e-4))

        expect(not is_scale(std.log()), "After this the deviation is std²: you multiply by std. Multiply by 1/std.")
        expect(not is_scale(1 / std), "That is the scale itself. Asked is its log: z = x · exp(log_scale) + shift.")
        expect(not is_scale(-2 * std.log()), "You divide by the variance. The deviation is its root.")
        expect(
            not is_scale(-batch.std(0).log()), "You divided the squares by N − 1. Here the batch is all there is: N."
        )
        expect(is_scale(-std.log()), "After your log_scale the deviations of the batch are not 1.")
        expect(
            bool((log_scale[~varies].abs() < 1e-4).all()),
            "The column that does not vary should keep its scale: log_scale 0.",
        )
        scaled = mean * log_scale.exp()
        expect(
            not torch.allclose(shift, -mean, rtol=1e-6),
            "You subtract the mean of x, but after scaling the mean is mean · exp(log_scale).",
        )
        expect(not torch.allclose(shift, scaled, rtol=1e-6), "The sign of the shift is turned: the mean doubles.")
        expect(torch.allclose(shift, -scaled, rtol=1e-4), "After your shift the means of the batch are not 0.")


def check_difference(answer: Callable) -> None:
    """Different numbers of seeds, different spreads."""
    for a, b in (([0.4, 0.7, 1.2, 0.5], [1.7, 1.5]), ([2.0, 2.2, 1.9], [0.3, 1.1, 0.2, 0.9, 2.5])):
        a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
        mean, error = _pair(answer(a.clone(), b.clone()), "the difference and its standard error")
        mean, error = (float(numbers(v, (), name)) for v, name in ((mean, "the difference"), (error, "the error")))
        right = float(a.mean() - b.mean())

        def near(value: float, other: Tensor | float) -> bool:
            return math.isclose(value, float(other), rel_tol=1e-4)

        expect(not near(mean, a.min() - b.min()), "You compared the best seeds. Luck has no place in the table.")
        expect(not near(mean, -right), "Asked is a minus b: below 0 when a is nearer to the truth.")
        expect(not near(mean, a.median() - b.median()), "Those are medians. Asked are means.")
        expect(near(mean, right), "The first number is the mean of a minus the mean of b.")
        va, vb = a.var(), b.var()
        expect(
            not near(error, (va + vb).sqrt()),
            "That is the spread of the difference of two single runs. A mean of n runs varies less.",
        )
        expect(
            not near(error, (va / len(a)).sqrt() + (vb / len(b)).sqrt()),
            "You added the two errors. Of independent things the variances add.",
        )
        expect(not near(error, va / len(a) + vb / len(b)), "That is the variance of the difference. Take its root.")
        expect(
            not near(error, (a.var(correction=0) / len(a) + b.var(correction=0) / len(b)).sqrt()),
            "With so few seeds, divide the squares by n − 1: the mean was taken from the same runs.",
        )
        lesser = float((va / len(a) - vb / len(b)).abs().sqrt())
        expect(not near(error, lesser), "The means are subtracted, their variances still add: two sources of luck.")
        expect(
            near(error, (va / len(a) + vb / len(b)).sqrt()),
            "The error is the root of var(a)/n + var(b)/m.",
        )


EXERCISES = [
    Exercise(
        name="from_realnvp_to_glow.1",
        question="**The same matrix at each pixel.** Write the 1×1 convolution with its log-determinant.",
        answer=mix_pixels,
        check=check_mix,
        praise="right. H · W' copies of a small matrix: the determinant of a huge one at the price of the small one.",
        hints=(
            "Write the image pixel by pixel into one long vector. What does its Jacobian look like?",
            'torch.einsum("ij,njhw->nihw", W, x), and height · width · slogdet(W).logabsdet for each image.',
        ),
        aims=("mix",),
    ),
    Exercise(
        name="from_realnvp_to_glow.2",
        question="**From the factors.** Build W from P, L, U and s, and read off log |det W| without any determinant.",
        answer=from_factors,
        check=check_factors,
        praise="right. Signs of P and s decide whether W mirrors; the log-det knows nothing of it.",
        hints=(
            "The determinant of a product is the product of determinants. Which of the three are ±1?",
            "L = lower.tril(-1) + eye, U = upper.triu(1); the log-det is s.abs().log().sum().",
        ),
        aims=("factor",),
    ),
    Exercise(
        name="from_realnvp_to_glow.3",
        question=(
            "**Batch normalization's log-det.** In networks the layer ends with a learned scale γ and shift β. Write "
            "it as a layer of a flow, with the statistics held constant."
        ),
        answer=batch_norm,
        check=check_batch,
        praise="right, for what it is: the log-det of a map that is not the one that was applied to the batch.",
        hints=(
            "With μ and σ constant this is a scale and a shift in each column. What is the scale?",
            "log_det = Σ (log |γ| − ½ log(σ² + ε)), the same for all N samples.",
        ),
        aims=("expose",),
    ),
    Exercise(
        name="from_realnvp_to_glow.4",
        question="**ActNorm's start.** From the first batch, find log_scale and shift.",
        answer=start,
        check=check_start,
        praise="right. From then on the two are weights like any other, and no sample looks at another.",
        hints=(
            "First the scale: which exp(log_scale) makes the deviation 1? Then look where the mean is.",
            "log_scale = −log std, with std = 1 where it is 0; shift = −mean · exp(log_scale).",
        ),
        aims=("start",),
    ),
    Exercise(
        name="from_realnvp_to_glow.5",
        question=(
            "**A race, judged.** Two recipes, some seeds each. How far apart are they, and how large is the luck in "
            'that? Then judge: `difference(gauges["turned", "rotate"], gauges["turned", "shuffle"])`.'
        ),
        answer=difference,
        check=check_difference,
        praise="right. A difference of less than two standard errors is no news.",
        hints=(
            "A mean of n runs has the variance of one run, divided by n. What about the difference of two means?",
            "√(a.var()/n + b.var()/m): the variances of independent things add.",
        ),
        aims=("judge",),
    ),
]
