"""The exercises: spikes, images in few bits, any interval and levels, when a table pays, and a bug by its behavior."""

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


def few_bits(train, images, levels):
    """log P of each image in nats, or a bound on it, (M,); and what the images need in bits per dimension, one number.

    train (N, 2) and images (M, 2) are whole numbers from 0 to levels − 1. Choose any model, and train it on train. The
    number is the mean over these M images, by your log P.
    """
    from sklearn.mixture import GaussianMixture

    D, draws = images.shape[-1], 20
    x, points = ((v + torch.rand(draws, *v.shape, dtype=torch.float64)) / levels for v in (train, images))
    mixture = GaussianMixture(6, random_state=0).fit(x.flatten(0, 1).numpy())
    log_p = torch.tensor(mixture.score_samples(points.flatten(0, 1).numpy())).view(draws, -1)
    log_P = log_p.logsumexp(0) - math.log(draws) - D * math.log(levels)
    return log_P, -log_P.mean() / (D * math.log(2))


def to_bits(nats, dims, width=1.0, levels=256, log_det=None):
    """Bits per dimension, from nats an image of ``dims`` pixels, of so many levels each.

    The bins of all levels together fill an interval of this width, as [−1, 1] has the width 2. Without ``log_det`` the
    nats are of a density on that interval; with it they are of a density on the logits, and log_det is the mean
    log |det| of the map from the interval to the logits.
    """
    on_interval = nats + (log_det or 0.0)
    log_P = on_interval + dims * math.log(width / levels)  # width / levels: a bin
    return -log_P / (dims * math.log(2))


def symbols_needed(p, q, table):
    """From how many symbols on the file with the code for p is the shorter one, on average: one number.

    Symbols come from p; p and q are (V,). The receiver knows q, but not p: the file with the code for p begins with a
    table of p, which takes ``table`` bits. Where p is 0 the symbol never comes, whatever q says. Rounding is up to you.
    """
    wasted = (torch.xlogy(p, p) - torch.xlogy(p, q)).sum() / math.log(2)  # bits a symbol
    return table / wasted


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


LEVELS, MOST = 32, 0.15  # MOST: bits per dimension above the best


def bent_images() -> Tensor:
    """How likely each image of two pixels is: ``(LEVELS, LEVELS)``. The second pixel lies near a curve of the first."""
    v = torch.arange(LEVELS, dtype=torch.float64)
    curve = 6 + 18 * ((v - 10) / 20) ** 2
    P = torch.exp(-0.5 * ((v - 15.5) / 6) ** 2)[:, None] * torch.exp(-0.5 * (v - curve[:, None]) ** 2)
    return P / P.sum()


def check_few_bits(answer: Callable) -> None:
    """By the exact mean over all images; and all P of a bound add up to at most 1."""
    P, every = bent_images().flatten(), torch.cartesian_prod(*[torch.arange(LEVELS)] * 2)
    drawn = torch.multinomial(P, 2300, True, generator=torch.Generator().manual_seed(0))
    train, images = every[drawn[:300]], torch.cat((every[drawn[300:]], every))
    given = answer(train.clone(), images.clone(), LEVELS)
    expect(given is not None, "Your function returned None. Is there a return?")
    expect(isinstance(given, tuple | list) and len(given) == 2, "Return two things: log P of each image, and the bits.")
    log_P, bits = numbers(given[0], (len(images),), "log P"), float(numbers(given[1], (), "the bits"))
    expect(log_P.isfinite().all(), "Some log P is not finite. An image that may come must not be impossible.")
    total = float(log_P[-len(every) :].exp().sum())
    expect(
        total < 1.1,
        f"Your P of all {LEVELS} × {LEVELS} images add up to {total:.3g}, where a bound has at most 1. A density "
        "becomes a probability by the volume of its bin, and by a mean over the noise.",
    )
    lost = P * (P.log() - log_P[-len(every) :]) / (2 * math.log(2))  # bits per dimension
    seen = torch.zeros(len(every), dtype=torch.bool)
    seen[drawn[:300]] = True
    above, reached = float(lost.sum()), f"{float(lost.sum()):.2f} bits per dimension above the best"
    q = log_P[-len(every) :].exp().view(LEVELS, LEVELS)
    apart = q.sum(1, keepdim=True) * q.sum(0, keepdim=True)
    shared = float((torch.xlogy(q, q) - torch.xlogy(q, apart)).sum())
    expect(
        above < MOST or shared > 0.05,
        f"You are {reached}. Your model takes the two pixels as independent, and the second depends on the first.",
    )
    expect(
        above < MOST or float(lost[~seen].sum()) < 0.7 * above,
        f"You are {reached}, most of it at images that were not in train. A table of counts does not know that levels "
        "have neighbors. A smooth density does.",
    )
    expect(
        above < MOST,
        f"You are {reached}; at most {MOST} are asked. Is your density flexible enough, and trained for long enough?",
    )
    right = float(-log_P.mean()) / (2 * math.log(2))

    def gave(other: float) -> bool:
        return math.isclose(bits, other, rel_tol=5e-3)

    expect(not gave(-right), "Your number of bits is negative. A higher log P means a shorter file.")
    expect(not gave(right * math.log(2)), "Your log P is good, and your number is in nats. Divide by log 2.")
    expect(not gave(2 * right), "Your log P is good, and your number is for a whole image. It has two dimensions.")
    expect(gave(right), f"By your own log P these images need {right:.2f} bits per dimension, and you say {bits:.2f}.")


def check_bits(answer: Callable) -> None:
    """NICE's number, MAF's number, a uniform density on [−1, 1], and pixels of fewer levels."""
    for nats, dims, width, levels, log_det in (
        (1980.5, 784, 1.0, 256, None),
        (-1300.5, 784, 1.0, 256, 4619.95),
        (-10 * math.log(2), 10, 2.0, 256, None),
        (-700.0, 192, 256.0, 256, None),
        (60.0, 192, 1.0, 32, None),
        (100.0, 196, 2.0, 32, 50.0),
    ):
        value = float(numbers(answer(nats, dims, width, levels, log_det), (), "the bits"))
        wide, bit = dims * math.log(width), dims * math.log(2)

        def bits(nats: float, levels: int = levels, bit: float = bit) -> float:
            return math.log2(levels) - nats / bit

        on_interval = nats + (log_det or 0.0)
        on_unit = on_interval + wide
        right = bits(on_unit)

        def gave(other: float, value: float = value, right: float = right) -> bool:
            return not math.isclose(value, right, rel_tol=5e-3) and math.isclose(value, other, rel_tol=5e-3)

        expect(not gave(bits(on_unit * math.log(2))), "Nats are not bits: a bit is log 2 = 0.69 nats.")
        expect(not gave(bits(on_unit * math.log(2) ** 2)), "Upside down: a bit is less than a nat, so there are more.")
        expect(not gave(bits(-on_unit)), "Higher likelihood, shorter code. Your sign says longer.")
        expect(
            not gave(-on_unit / bit),
            "Those are bits of a density, and can be negative. How wide is a bin, and what does that cost in bits?",
        )
        expect(not gave(bits(on_unit * dims)), "That is for the whole image. Asked is one dimension.")
        expect(
            log_det is None or not gave(bits(nats + wide)),
            "Those nats were on the logits, and you took them for nats on the interval: the log_det is not used.",
        )
        expect(
            log_det is None or not gave(bits(nats - log_det + wide)),
            "log p(x) = log p(h) + log_det, of the map x → h from the interval to the logits. You subtracted it.",
        )
        expect(
            not gave(bits(on_unit, levels=256)),
            "That is right for 256 levels. With fewer levels a bin is wider, and a uniform density needs fewer bits.",
        )
        expect(
            not gave(bits(on_interval)),
            "You took the interval for [0, 1]. On one that is twice as wide, the same density is half as high.",
        )
        expect(
            not gave(bits(on_interval - wide)),
            "The width is used the wrong way round: on a wide interval densities are low, and bins are wide.",
        )
        expect(
            not gave(bits(on_interval + wide / dims)),
            "The width counts once for the whole image. Each dimension of it is stretched.",
        )
        expect(
            math.isclose(value, right, rel_tol=5e-3),
            "First to nats on the interval, then log P by the volume of a bin, then to bits, then by dimensions.",
        )


def check_symbols(answer: Callable) -> None:
    """Three small alphabets, one with symbols that never come."""
    for a, b, table in (
        ([0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25], 2000.0),
        ([0.6, 0.3, 0.1], [0.2, 0.5, 0.3], 5000.0),
        ([0.5, 0.5, 0.0, 0.0], [0.4, 0.3, 0.3, 0.0], 3000.0),
    ):
        p, q = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
        value = float(numbers(answer(p.clone(), q.clone(), table), (), "the number of symbols"))
        H, turned_H = (float(-torch.xlogy(x, x).sum()) / math.log(2) for x in (p, q))
        length = float(-torch.xlogy(p, q).sum()) / math.log(2)
        turned = float(-torch.xlogy(q, p).sum()) / math.log(2)
        kl = length - H
        right = table / kl

        def gave(other: float, value: float = value, right: float = right) -> bool:
            return abs(value - right) > max(1.5, 5e-3 * right) and math.isclose(value, other, rel_tol=5e-3)

        expect(
            not math.isnan(value), "Not a number: 0 · log 0. A symbol that never comes costs nothing: count it as 0."
        )
        expect(not gave(right / math.log(2)), "You divided by nats. The table is counted in bits: log₂.")
        expect(not gave(table / length), "You divided by all bits of a symbol. The code for p needs most of them too.")
        expect(not gave(table / H), "That is how many symbols fill as many bits as the table. What do they save?")
        expect(
            math.isinf(turned) or not gave(table / (turned - turned_H)),
            "That is KL(q‖p). The symbols that come are drawn from p, so average over p.",
        )
        expect(
            turned_H == H or abs(turned_H - length) < 1e-9 or not gave(table / (turned_H - H)),
            "H(q) is the length if symbols come from q. Here they come from p, and are written with the code for q.",
        )
        expect(not gave(-right), "A number of symbols is not negative. Which of the two codes wastes bits?")
        expect(not gave(table * kl), "Turned over: the more bits each symbol saves, the fewer symbols are needed.")
        expect(
            abs(value - right) <= max(1.5, 5e-3 * right),
            "How many bits does each symbol save with the code for p? Together they have to pay for the table.",
        )


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
        question=(
            "**Open task: images of two pixels.** Both pixels have 32 levels, and the second one depends on the first. "
            "You get 300 images. Choose a model, train it, and report log P, or a bound on it, and the bits per "
            "dimension. Come within 0.15 bits per dimension of the best code. Many models do it."
        ),
        answer=few_bits,
        check=check_few_bits,
        praise="right. Your model knows more than 300 counts do, and your P of all images add up to at most 1.",
        hints=(
            "Counts say nothing about the images that are not among the 300. Which density bends as the data do?",
            "Add noise to train, fit six Gaussians or a small flow to x = (v + u)/32, and take the log of the mean of "
            "p over 20 draws of u, minus 2 log 32.",
        ),
        aims=("bound",),
        why=(
            "With noise in its bin each image becomes a cloud, and a smooth density that is fitted to the clouds also "
            "covers images that did not come. Its mean over the bin, times the volume of the bin, is P(v), and with a "
            "few draws in place of the whole bin one gets a bound on log P(v)."
        ),
    ),
    Exercise(
        name="images_and_bits_per_dimension.3",
        question=(
            "**Any interval, any levels.** Some papers scale pixels to [−1, 1] or leave them in [0, 256], and some "
            "keep 32 levels. Convert all of them. Then: NICE reports 1980.5 nats on [0, 1], MAF −1300.5 nats on the "
            "logits (log_det 4619.95). Which is better?"
        ),
        answer=to_bits,
        check=check_bits,
        praise="right. NICE has 4.36 bits and MAF 1.89: the smaller-looking number belongs to the better model.",
        hints=(
            "Find log P(v) first: a probability is a density times the volume of a bin. How wide is a bin here?",
            "A bin has the width width/levels. So log P = nats + log_det + dims · log(width/levels), in nats.",
        ),
        aims=("convert",),
        why=(
            "Whatever the scale, the probability of an image is its density times the volume of its bin, which is "
            "(width/levels)^D. Nats on the logits first become nats on the interval, by adding the log-det."
        ),
    ),
    Exercise(
        name="images_and_bits_per_dimension.4",
        question=(
            "**What a wrong code costs.** The receiver knows q, and symbols come from p. With the code for p the file "
            "has to begin with a table of p. From how many symbols on is that file the shorter one?"
        ),
        answer=symbols_needed,
        check=check_symbols,
        praise="right. KL(p‖q) is what each symbol wastes, so a table pays sooner where q is worse.",
        hints=(
            "How long is a file of n symbols, with the one code and with the other?",
            "n H(p) + table against n (H(p) + KL(p‖q)). Where are both the same?",
        ),
        aims=("say",),
        why=(
            "Of n symbols the code for p makes n H(p) bits and the table, and the code for q makes n H(p) + n KL(p‖q). "
            "So the table has paid when n KL(p‖q) is as large as the table."
        ),
    ),
    Exercise(
        name="images_and_bits_per_dimension.5",
        question=(
            "**The bug museum.** Three loaders, A, B and C, make x from pixels v and noise u. Two have a mistake. "
            "The probabilities of all values must add up to 1, whatever the model. Write the test, and judge the "
            'loaders: `nats_off(museum()["A"], Normal(0.5, 0.1).log_prob)`.'
        ),
        answer=nats_off,
        check=check_off,
        praise=(
            "right. For a smooth density A and C are both 3.07 nats an image off; only B's bins tile the interval."
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
