"""The exercises: spikes, the bound, three scales, code lengths, and a bug found by its behavior."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, expect, numbers


def nats_gained(images, factor):
    """By how many nats an image the log-likelihood rises, without noise, if all spikes that can narrow become narrower.

    images is (N, D) whole numbers. A model puts a Gaussian spike on each pixel that is the same in all N images, and
    makes its width ``factor`` times smaller. What it does in the other pixels stays as it is.
    """
    constant = (images == images[:1]).all(0).sum().item()
    return constant * math.log(factor)  # each spike gets ``factor`` times as high


def dequantized_bound(log_p, v, u, levels):
    """The bound on log P(v) with S draws of noise, in nats: (N,).

    log_p takes x (S, N, D) in [0, 1] to (S, N); v is (N, D), whole numbers from 0 to levels − 1; u is (S, N, D),
    uniform on [0, 1].
    """
    S, D = u.shape[0], v.shape[-1]
    log_w = log_p((v + u) / levels)  # (S, N)
    return log_w.logsumexp(0) - math.log(S) - D * math.log(levels)


def to_bits(nats, dims, log_det=None):
    """Bits per dimension of 8-bit pixels, from nats an image of ``dims`` pixels.

    Without ``log_det`` the nats are of a density on [0, 1]; with it they are of a density on the logits, and log_det is
    the mean log |det| of the map from [0, 1] to the logits.
    """
    if log_det is not None:
        nats = nats + log_det  # now on [0, 1]
    return 8 - nats / (dims * math.log(2))


def code_length(p, q):
    """Bits a symbol, on average, of a perfect code built for q when symbols come from p: (V,) each, to a number.

    Where p is 0 the symbol never comes, and costs nothing, whatever q says.
    """
    bits = -torch.log2(q)
    return torch.where(p > 0, p * bits, 0.0).sum()


def nats_off(loader, log_p, levels=256, features=784):
    """How far log p(x) − D log(levels) is from a log-probability: D · log Σ_v P(v), 0 if all is right.

    loader takes v and u (any shapes that broadcast) to x; P(v) = mean over u in [0, 1] of p(loader(v, u)) / levels, for
    v from 0 to levels − 1. log_p is the log-density of one pixel, smooth, of any shape to the same. D = features.
    """
    v = torch.arange(levels, dtype=torch.float64)[:, None]  # (levels, 1)
    u = (torch.arange(64, dtype=torch.float64) + 0.5) / 64  # (64,)
    P = log_p(loader(v, u)).exp().mean(-1) / levels  # (levels,)
    return features * math.log(P.sum())


def check_gained(answer: Callable) -> None:
    """Images with a frame that never changes."""
    for N, D, fixed, factor in ((6, 9, 4, 10.0), (5, 12, 7, 3.0), (4, 5, 0, 2.0)):
        g = torch.Generator().manual_seed(D)
        v = torch.randint(1, 256, (N, D), generator=g)
        v[0] = (v[1] + 1) % 256  # every other pixel changes
        v[:, :fixed] = torch.arange(fixed) % 2 * 7  # always 0, or always 7
        value = float(numbers(answer(v.double(), factor), (), "the gain"))
        right = fixed * math.log(factor)

        def gave(other: float, value: float = value) -> bool:
            return math.isclose(value, other, rel_tol=1e-3, abs_tol=1e-6)

        expect(
            gave(right) or not gave(-right), "A narrower spike is a higher one: the area under it stays 1. Which sign?"
        )
        expect(gave(right) or not gave(fixed * math.log2(factor)), "That is in bits. Asked are nats.")
        expect(
            gave(right) or not gave(D * math.log(factor)),
            "You narrowed the spikes of all pixels. Where the images differ, no single spike fits.",
        )
        expect(
            gave(right) or not gave(fixed * factor),
            "The density there is multiplied by the factor. What happens to its logarithm?",
        )
        expect(gave(right) or not gave(math.log(factor)), "That is for one pixel. How many can be narrowed?")
        expect(
            gave(right) or not gave((fixed + 1) // 2 * math.log(factor)),
            "You counted the pixels that are always 0. A pixel that is always 7 can be narrowed as well.",
        )
        expect(gave(right) or not gave(N * right), "That is the sum over the images. Asked is the gain of one image.")
        expect(gave(right), "How many pixels are the same in all images, and what does each of them win?")


def check_bound(answer: Callable) -> None:
    """Against a bumpy density."""

    def log_p(x: Tensor) -> Tensor:
        return (-((x - 0.4) ** 2) * 9 + torch.sin(40 * x)).sum(-1)

    for S, N, D, levels in ((5, 4, 3, 8), (1, 3, 2, 256), (40, 2, 2, 4)):
        g = torch.Generator().manual_seed(levels)
        v = torch.randint(0, levels, (N, D), generator=g)
        v[0] = levels - 1
        u = torch.rand(S, N, D, generator=g, dtype=torch.float64)
        value = numbers(answer(log_p, v.clone(), u.clone(), levels), None, "the bound")
        value = value.reshape(N) if value.numel() == N else value
        log_w, shift = log_p((v + u) / levels), D * math.log(levels)
        right = log_w.logsumexp(0) - math.log(S) - shift

        def gave(other: Tensor, value: Tensor = value) -> bool:
            return value.shape == other.shape and torch.allclose(value, other, rtol=1e-4, atol=1e-4)

        def is_right(value: Tensor = value, right: Tensor = right) -> bool:
            return gave(right, value)

        expect(
            is_right() or not gave(right + shift),
            "This is still a density on [0, 1]. The bin has a volume of levels⁻ᴰ: a probability is density times "
            "volume.",
        )
        expect(is_right() or not gave(right + 2 * shift), "The volume of a bin is below 1. Is its log added or taken?")
        expect(
            is_right() or not gave(right + shift - math.log(levels)),
            "That is the width of a bin in one dimension. It has D of them.",
        )
        expect(
            is_right() or not gave(log_w.mean(0) - shift),
            "You took the mean of the logs: a bound, too, but draws do not tighten it. Average before the log.",
        )
        expect(is_right() or not gave(right + math.log(S)), "This is a sum over the draws. Asked is their mean.")
        expect(is_right() or not gave(right.exp()), "This is P(v) itself. Asked is its log.")
        for x in (v / (levels - 1) + u / levels, (v + u) / (levels - 1)):
            expect(
                is_right() or not gave(log_p(x).logsumexp(0) - math.log(S) - shift),
                "Your bins do not tile [0, 1]: with levels − 1 in it the last one ends beyond 1. How wide is a bin?",
            )
        expect(
            is_right() or not gave(log_p((v.double() / levels).expand(S, -1, -1)).logsumexp(0) - math.log(S) - shift),
            "The noise is missing: this asks for the density at the left end of each bin.",
        )
        expect(
            is_right() or value.shape != log_w.shape,
            "This is one number for each draw. Combine the draws of each image into one.",
        )
        expect(is_right(), "x = (v + u)/levels, its log-density, the log of the mean over draws, and the bin's volume.")


def check_bits(answer: Callable) -> None:
    """NICE's number, MAF's number, and a uniform density."""
    for nats, dims, log_det in ((1980.5, 784, None), (-1300.5, 784, 4619.95), (0.0, 196, None), (100.0, 196, 500.0)):
        value = float(numbers(answer(nats, dims, log_det), (), "the bits"))
        on_unit = nats + (log_det or 0.0)
        right = 8 - on_unit / (dims * math.log(2))

        def gave(other: float, value: float = value, right: float = right) -> bool:
            return not math.isclose(value, right, rel_tol=5e-3) and math.isclose(value, other, rel_tol=5e-3)

        expect(not gave(8 - on_unit / dims), "Nats are not bits: a bit is log 2 = 0.69 nats.")
        expect(not gave(8 - on_unit * math.log(2) / dims), "Upside down: a bit is less than a nat, so there are more.")
        expect(
            not gave(8 + on_unit / (dims * math.log(2))),
            "Higher likelihood, shorter code. Your sign says longer.",
        )
        expect(
            not gave(-on_unit / (dims * math.log(2))),
            "Those are bits of a density, and can be negative. A bin is 1/256 wide, which costs log₂ 256 = 8 more.",
        )
        expect(not gave(8 - on_unit / math.log(2)), "That is for the whole image. Asked is one dimension.")
        expect(
            log_det is None or not gave(8 - nats / (dims * math.log(2))),
            "Those nats were on the logits, and you took them for nats on [0, 1]: the log_det is not used.",
        )
        expect(
            log_det is None or not gave(8 - (nats - log_det) / (dims * math.log(2))),
            "log p(x) = log p(h) + log_det, of the map x → h from [0, 1] to the logits. You subtracted it.",
        )
        expect(math.isclose(value, right, rel_tol=5e-3), "First to nats on [0, 1], then to bits, then by dimensions.")


def check_code(answer: Callable) -> None:
    """Two small alphabets, one with symbols that never come."""
    cases = (
        ([0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25]),
        ([0.6, 0.3, 0.1], [0.2, 0.5, 0.3]),
        ([0.5, 0.5, 0.0, 0.0], [0.4, 0.3, 0.3, 0.0]),
    )
    for p, q in ((torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)) for a, b in cases):
        value = float(numbers(answer(p.clone(), q.clone()), (), "the code length"))
        right = float(-torch.where(p > 0, p * q.log2(), 0.0).sum())
        entropy = float(-torch.special.xlogy(p, p).sum() / math.log(2))
        turned = float(-torch.where(q > 0, q * p.log2(), 0.0).sum())

        def gave(other: float, value: float = value, right: float = right) -> bool:
            return not math.isclose(value, right, rel_tol=5e-3) and math.isclose(
                value, other, rel_tol=5e-3, abs_tol=1e-3
            )

        expect(
            not math.isnan(value), "Not a number: 0 · log 0. A symbol that never comes costs nothing: count it as 0."
        )
        expect(not gave(right * math.log(2)), "That is in nats. A file is counted in bits: log₂.")
        expect(not gave(entropy), "That is H(p), the length of the code built for p. This one was built for q.")
        expect(not gave(right - entropy), "That is KL(p‖q), what the wrong code wastes. The useful bits come on top.")
        expect(not gave(turned), "You averaged over q. The symbols that come are drawn from p.")
        expect(not gave(-right), "A length cannot be negative: log₂ of a probability is.")
        expect(math.isclose(value, right, rel_tol=5e-3), "A symbol costs −log₂ q bits, and comes with probability p.")


def check_off(answer: Callable) -> None:
    """Right and wrong loaders; densities that lie well inside."""

    def normal(mean: float, sigma: float) -> Callable[[Tensor], Tensor]:
        return lambda x: -0.5 * ((torch.as_tensor(x) - mean) / sigma) ** 2 - math.log(sigma * math.sqrt(2 * math.pi))

    for levels, D in ((256, 784), (16, 10)):
        loaders = (
            (lambda v, u, n=levels: (v + u) / n, 0.0),
            (lambda v, u, n=levels: v / (n - 1) + u / n, -D * math.log(levels / (levels - 1))),
            (lambda v, u, n=levels: v / (n + 1) + u / n, D * math.log((levels + 1) / levels)),
        )
        for loader, right in loaders:
            value = float(numbers(answer(loader, normal(0.5, 0.09), levels, D), (), "the nats"))

            def gave(other: float, value: float = value, right: float = right) -> bool:
                return not _close(value, right) and _close(value, other)

            expect(
                not gave(right + D * math.log(levels)),
                "Your P(v) are densities: each wants the width of a bin, 1/levels.",
            )
            expect(
                not gave(math.exp(right / D)),
                "That is Σ P(v) for one pixel. Take its log, and D pixels.",
            )
            expect(not gave(right / D) or right == 0, "That is for one pixel. The images have D of them.")
            expect(
                not gave(-right) or right == 0,
                "The sign is turned: if the sum is below 1, the log-likelihood comes out too low.",
            )
            expect(not gave(right / math.log(2)) or right == 0, "That is in bits. Asked are nats.")
            expect(
                _close(value, right),
                "Add up P(v) = mean over u of p(loader(v, u)) / levels over all v. It should be 1 for one pixel.",
            )


def _close(value: float, other: float) -> bool:
    return math.isclose(value, other, rel_tol=0.01, abs_tol=0.002)


EXERCISES = [
    Exercise(
        name="images_and_bits_per_dimension.1",
        question=(
            "**Spikes.** How many nats does a model win without noise when it narrows its spikes on the pixels that "
            "never change? Try it on the digits: how many such pixels are there?"
        ),
        answer=nats_gained,
        check=check_gained,
        praise="right. No ceiling: each factor of ten wins the same again, and not one sample gets better.",
        hints=(
            "A spike that is ten times narrower is ten times higher. What is that in log p?",
            "Count the columns in which all rows agree: (images == images[:1]).all(0). Each wins log(factor).",
        ),
        aims=("predict",),
        why=(
            "Only pixels that are the same in all images can carry a spike, and a spike that is narrower by a factor "
            "is higher by that factor. The logs of these factors add up over the pixels, whatever the other pixels do."
        ),
    ),
    Exercise(
        name="images_and_bits_per_dimension.2",
        question="**The bound.** Write the bound with S draws of noise, for any number of levels.",
        answer=dequantized_bound,
        check=check_bound,
        praise="right. One draw is the bound of most papers; more draws lift it toward log P(v).",
        hints=(
            "P(v) is a mean of densities over the bin, times the volume of the bin. Then the log.",
            "log_p((v + u) / levels) is (S, N). Now logsumexp over S, minus log S, minus D log(levels).",
        ),
        aims=("bound",),
        why=(
            "P(v) is the mean of p over the bin times its volume, so the densities of the draws are averaged before "
            "the log. By Jensen's inequality the mean of the logs would be lower, and more draws would not tighten it."
        ),
    ),
    Exercise(
        name="images_and_bits_per_dimension.3",
        question=(
            "**Three scales.** NICE reports 1980.5 nats on [0, 1], MAF −1300.5 nats on the logits (log_det 4619.95). "
            "Which is better, in bits per dimension?"
        ),
        answer=to_bits,
        check=check_bits,
        praise="right. 4.36 and 1.89 bits: the smaller-looking number is by far the better model.",
        hints=(
            "All roads lead over nats on [0, 1]. From there: how many bits does the volume of a bin cost?",
            "On [0, 1]: nats + log_det. Then 8 − nats / (dims · log 2).",
        ),
        aims=("convert",),
        why=(
            "A bin has the volume 256^−D, so 8 bits per dimension are added to the negative log-density in bits. "
            "Nats on the logits become nats on [0, 1] by adding the log-det of the logit."
        ),
    ),
    Exercise(
        name="images_and_bits_per_dimension.4",
        question="**What a bit costs.** How long is the file when the code was built for q and symbols come from p?",
        answer=code_length,
        check=check_code,
        praise="right. It is H(p) + KL(p‖q): the bits that are needed, and the bits that are wasted.",
        hints=(
            "A perfect code spends −log₂ q bits on a symbol. How often does each symbol come?",
            "−Σ p log₂ q, with torch.where so that p = 0 counts 0.",
        ),
        aims=("say",),
        why=(
            "The code for q spends −log₂ q(v) bits on v, and v comes with probability p(v). "
            "So the mean over p counts, and a symbol that never comes costs nothing."
        ),
    ),
    Exercise(
        name="images_and_bits_per_dimension.5",
        question=(
            "**The bug museum.** Probabilities of all values must add up to 1. Write the test, and judge loaders A, B "
            'and C of section 7 by their behavior: `nats_off(museum()["A"], Normal(0.5, 0.1).log_prob)`.'
        ),
        answer=nats_off,
        check=check_off,
        praise=(
            "right. For a smooth density A and C are both 3.07 nats an image off; only B's bins tile the interval. (In "
            "section 7 the pixels that are always black, as narrow as the noise, win a part back for A.)"
        ),
        hints=(
            "For one pixel: P(v) is the mean of p over the noise, over levels. Added up over v: what should it be?",
            "v of shape (levels, 1), u of shape (64,): log_p(loader(v, u)).exp().mean(-1) / levels; D times the log of "
            "its sum.",
        ),
        aims=("find",),
        why=(
            "Whatever the density of the pixel is, the probabilities of all values have to add up to 1, because bins "
            "tile the interval. The log of their sum is what one pixel is off, and D pixels are off D times as much."
        ),
    ),
]
