"""Changes that leave a digit the digit that it is: small turns, shifts, stretches and slants; how slanted it is."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

SIDE = 28


def affine(
    images: Tensor,
    generator: Generator | None = None,
    *,
    rotation: float = 20.0,
    shift: float = 2.5,
    scale: float = 0.15,
    shear: float = 0.3,
) -> Tensor:
    """Each image under an affine map of its own, y(p) = x(A p + b), ``(N, 784)`` in [0, 1] to the same, bilinear.

    A = rotation · stretch · slant, each drawn uniformly up to what the arguments say; 0 for all gives x itself.

    Args:
        rotation: degrees.
        shift: pixels.
        scale: of log width and log height.
        shear: pixels aside for each pixel up.

    Raises:
        ValueError: for images that are no rows of 784 floating-point numbers.
    """
    _check(images)

    def draw(most: float) -> Tensor:
        return most * (2 * torch.rand(len(images), generator=generator, device=images.device).to(images) - 1)

    angle, slant = draw(math.radians(rotation)), draw(shear)
    width, height = draw(scale).exp(), draw(scale).exp()
    c, s = angle.cos(), angle.sin()
    b = [draw(2 * shift / SIDE) for _ in range(2)]  # in half sides, the unit of affine_grid
    rows = (c * width, c * width * slant - s * height, b[0]), (s * width, s * width * slant + c * height, b[1])
    return _warp(images, rows)


def upright(images: Tensor) -> Tensor:
    """Each image centered and with its slant taken out, by first and second moments: ``(N, 784)`` to the same.

    After it, E[dx] = E[dy] = E[dx dy] = 0 but for rounding, with the pixels as weights (LeCun et al., "Gradient-based
    learning applied to document recognition", 1998, has such digits). An empty image stays as it is.
    """
    _check(images)
    p = images.unflatten(-1, (SIDE, SIDE)) + 1e-9
    p = p / p.sum((-2, -1), keepdim=True)
    at = (2 * torch.arange(SIDE, device=images.device).to(images) + 1) / SIDE - 1
    x, y = p.sum(-2) @ at, p.sum(-1) @ at  # (N,): the center
    dx, dy = at - x.unsqueeze(-1), at - y.unsqueeze(-1)
    slant = torch.einsum("nij,ni,nj->n", p, dy, dx) / torch.einsum("nij,ni->n", p, dy**2)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _warp(images, ((one, slant, x), (zero, one, y)))


def slant(x: Tensor) -> Tensor:
    """How far the ink moves to the right for each pixel that it moves up: images ``(..., 784)`` to ``(...)``.

    −cov(row, column)/var(row), with the ink as weights: a least-squares line through the digit, from its second
    moments. 0 is upright, positive leans like "/".
    """
    w = x / x.sum(-1, keepdim=True).clamp_min(1e-6)
    row, column = (axis.flatten().to(x) for axis in torch.meshgrid(*[torch.arange(SIDE)] * 2, indexing="ij"))
    di, dj = (axis - (w * axis).sum(-1, keepdim=True) for axis in (row, column))
    return -(w * di * dj).sum(-1) / (w * di * di).sum(-1).clamp_min(1e-6)


def thickness(x: Tensor) -> Tensor:
    """Mean ink: images ``(..., 784)`` in [0, 1] to ``(...)``. A large thin digit has as much as a small thick one."""
    return x.mean(-1)


def _warp(images: Tensor, rows: tuple[tuple[Tensor, ...], ...]) -> Tensor:
    """y(p) = x(A p + b), with the two rows of (A | b), each number ``(N,)``; p runs over [−1, 1]²."""
    N = len(images)
    map_ = torch.stack([torch.stack(row, -1) for row in rows], -2)  # (N, 2, 3)
    grid = F.affine_grid(map_, [N, 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(images.reshape(N, 1, SIDE, SIDE), grid, align_corners=False).reshape(N, -1)


def _check(images: Tensor) -> None:
    if images.ndim != 2 or images.shape[1] != SIDE**2 or not images.is_floating_point():
        raise ValueError(
            f"Expected images as rows (N, {SIDE**2}) of floating-point numbers, but got {images.dtype} of shape "
            f"{tuple(images.shape)}: divide pixels by 256 first."
        )
