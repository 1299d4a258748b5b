"""Points near a line, the loss of a line through them, and a descent by the gradient."""

from __future__ import annotations

import functools

import numpy as np

RATES = (0.01, 0.8)  # of the descent
MOST = 60  # steps


@functools.lru_cache
def points() -> tuple[np.ndarray, np.ndarray]:
    """30 points (u, y) near the line y = 1.5 u − 0.5."""
    g = np.random.default_rng(1)
    u = np.sort(g.uniform(-1.0, 3.0, 30))
    return u, 1.5 * u - 0.5 + 0.4 * g.standard_normal(30)


def loss(w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean of (w u + b − y)² over the points, for each w and b."""
    u, y = points()
    return ((np.asarray(w)[..., None] * u + np.asarray(b)[..., None] - y) ** 2).mean(-1)


def gradient(w: float, b: float) -> tuple[float, float]:
    """The slopes of the loss in w and in b."""
    u, y = points()
    off = w * u + b - y
    return 2 * float((off * u).mean()), 2 * float(off.mean())


def best() -> tuple[float, float]:
    """The w and b of the lowest loss."""
    w, b = np.polyfit(*points(), 1)
    return float(w), float(b)


def largest_rate() -> float:
    """2/λ, with the largest curvature λ of the loss: above it a descent runs away."""
    u, _ = points()
    return 2 / float(np.linalg.eigvalsh(2 * np.array([[(u**2).mean(), u.mean()], [u.mean(), 1.0]]))[-1])


def path(rate: float, w: float, b: float, steps: int = MOST) -> np.ndarray:
    """The places (w, b) of a descent, ``(steps + 1, 2)``, kept within a million."""
    places = [(w, b)]
    for _ in range(steps):
        slope = gradient(w, b)
        w, b = (float(np.clip(v - rate * s, -1e6, 1e6)) for v, s in zip((w, b), slope, strict=True))
        places.append((w, b))
    return np.array(places)
