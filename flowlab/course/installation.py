"""Does everything work on this machine? ``report()`` says so, line by line."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from importlib import metadata

import torch
from torch import Generator

import flowlab
from flowlab.course.base import pip_install
from flowlab.datasets import mnist
from flowlab.lessons.base import order

STEPS = 300


def report() -> None:
    """Print what is installed and whether it works, a line each, and what to do where it does not."""
    fine = [_line(name, look) for name, look in LOOKS.items()]
    print("Everything works." if all(fine) else "Not ready yet: see the lines marked ✘.")  # noqa: T201


def _line(name: str, look: Callable[[], str]) -> bool:
    try:
        mark, found = "✔", look()
    except Exception as error:
        mark, found = "✘", f"{error}"
    print(f"{mark} {name}: {found}")  # noqa: T201
    return mark == "✔"


def _packages() -> str:
    """The versions of all that the notebooks use, against the ranges that flowlab asks for."""
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in metadata.requires("flowlab") or []]
    found, wrong = [f"Python {platform.python_version()}"], []
    for package in (r for r in wanted if r.marker is None or r.marker.evaluate({"extra": "lab"})):
        try:
            version = metadata.version(package.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{package.name} is missing")
            continue
        found.append(f"{package.name} {version}")
        if not package.specifier.contains(version, prereleases=True):
            wrong.append(f"{package.name} is {version}, but {package.specifier} is needed")
    if wrong:
        where = "In the folder of the course, type" if order.IN_CLONE else "Type"
        raise RuntimeError(f"{'; '.join(wrong)}. {where}: {pip_install('lab')}")
    return ", ".join(found)


def _flow() -> str:
    flow = flowlab.spline_flow(2, layers=2, generator=Generator().manual_seed(0))
    x = torch.randn(1000, 2, generator=Generator().manual_seed(0))
    started = time.perf_counter()
    flowlab.fit(flow, x, steps=STEPS, batch_size=256, progress=False)
    seconds = time.perf_counter() - started
    with torch.no_grad():
        z, log_det = flow.bijection(x)
        back, back_log_det = flow.bijection.inverse(z)
    error = float(torch.maximum((back - x).abs().max(), (log_det + back_log_det).abs().max()))
    if not error < 1e-3:
        raise RuntimeError(f"a flow and its inverse differ by {error:.1g}, more than rounding")
    return f"{STEPS} training steps in {seconds:.1f} s, and back again to {error:.0e}"


def _digits() -> str:
    counts = [len(mnist.digits(split)[0]) for split in ("train", "test")]
    return f"{counts[0]:,} to learn from and {counts[1]:,} to test on, inside the package"


def _full_mnist() -> str:
    if mnist.full_is_here():
        return "all four files are here"
    return "not here, and not needed; `flowlab data mnist` in a terminal fetches it"


def _gpu() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        return "Apple's, through torch's mps"
    return "none, and none is needed"


LOOKS: dict[str, Callable[[], str]] = {
    "versions": _packages,
    "a small flow": _flow,
    "real digits": _digits,
    "full MNIST": _full_mnist,
    "GPU": _gpu,
}
