"""Each known wrong answer of notebook 00 meets its own hint, and no other's; the installation says what is missing."""

import math
from importlib import metadata

import torch

import flowlab
from flowlab.course import installation

LOG3 = math.log(3)


def logs(value):
    """A wrong answer to 00.3: z is right, log_det is this number for each point."""
    return lambda x: (3 * x, torch.full((len(x),), value))


def small():
    return flowlab.spline_flow(2, layers=1, hidden=(16,))


def fitted(make, *, data=lambda x: x, steps=lambda steps: steps):
    """An answer to 00.4: the flow, and what is done to the points and to the number of steps."""

    def answer(x, count):
        flow = make()
        flowlab.fit(flow, data(x), steps=steps(count), learning_rate=5e-3, progress=False)
        return flow

    return answer


# number, what the student does, and words that stand in the hint for it alone
WRONG = [
    ("00.1", lambda z: 2 * z + 3, "the map itself"),
    ("00.1", lambda z: 2 * z - 3, "2 still multiplies"),
    ("00.1", lambda z: 2 * (z - 3), "divide by 2"),
    ("00.1", lambda z: z / 2 - 3, "wrong order"),
    ("00.1", lambda z: z / 2 + 3, "Only the product"),
    ("00.1", lambda z: (z + 3) / 2, "You add 3 where"),
    ("00.1", lambda z: (3 - z) / 2, "sign is reversed"),
    ("00.1", lambda z: z, "Try it"),
    ("00.1", lambda z: None, "gives nothing back"),
    ("00.1", lambda z: 1.0, "one x for each z"),
    ("00.1", lambda z: "x", "a number or a tensor"),
    ("00.1", lambda z: z / 0 / "a", "raised TypeError"),
    ("00.2", lambda p, q: p - q, "one number for each point"),
    ("00.2", lambda p, q: (q - p).mean(), "sign is reversed"),
    ("00.2", lambda p, q: (p - q).sum(), "took the sum"),
    ("00.2", lambda p, q: (p - q).abs().mean(), "No absolute value"),
    ("00.2", lambda p, q: ((p - q) ** 2).mean(), "No square"),
    ("00.2", lambda p, q: (p.exp() * (p - q)).mean(), "weigh the points by p"),
    ("00.2", lambda p, q: (p.exp() * (p - q)).sum(), "for tables of p"),
    ("00.2", lambda p, q: (p.exp() - q.exp()).mean(), "compares densities"),
    ("00.2", lambda p, q: (p - q).exp().mean(), "ratio p/q"),
    ("00.2", lambda p, q: -q.mean(), "That is the loss"),
    ("00.2", lambda p, q: p.mean() / q.mean(), "A ratio of logarithms"),
    ("00.2", lambda p, q: (p - q).mean() / math.log(2), "Those are bits"),
    ("00.2", lambda p, q: p.mean(), "At the five test points"),
    ("00.2", lambda p, q: None, "gives nothing back"),
    ("00.3", lambda x: 3 * x, "Return two things"),
    ("00.3", lambda x: (x / 3, torch.full((len(x),), 2 * LOG3)), "That is the inverse"),
    ("00.3", lambda x: (x + 3, torch.full((len(x),), 2 * LOG3)), "not 3x yet"),
    ("00.3", lambda x: (3 * x[0], 2 * LOG3), "Expected z of shape"),
    ("00.3", lambda x: (3 * x, 2 * LOG3), "one number for each of the n points"),
    ("00.3", logs(LOG3), "Only one direction"),
    ("00.3", logs(-2 * LOG3), "the way back"),
    ("00.3", logs(9.0), "9 is the determinant"),
    ("00.3", logs(3.0), "3 is the stretch"),
    ("00.3", logs(6.0), "directions multiply"),
    ("00.3", logs(2 * math.log2(3)), "Those are bits"),
    ("00.3", logs(2 * math.log10(3)), "not log10"),
    ("00.3", logs(0.0), "areas stay"),
    ("00.3", logs(7.0), "the matrix with 3, 3"),
    ("00.3", lambda x: (None, None), "gives nothing back"),
    ("00.4", lambda x, steps: flowlab.fit(flowlab.spline_flow(2, layers=1), x, steps=1, progress=False), "the history"),
    ("00.4", lambda x, steps: flowlab.spline_flow(2), "nothing has moved it"),
    ("00.4", fitted(small, data=lambda x: (x - x.mean(0)) / x.std(0)), "its own units"),
    ("00.4", fitted(small, steps=lambda steps: 2), "hand steps on"),
    ("00.4", lambda x, steps: None, "gives nothing back"),
    ("00.4", lambda x, steps: x, "which has a log_prob"),
]


RIGHT = [
    ("00.1", lambda z: 0.5 * z - 1.5),
    ("00.2", lambda p, q: float(p.mean() - q.mean())),
    ("00.3", lambda x: (x * 3, torch.ones(len(x)) * math.log(9))),
    ("00.4", fitted(lambda: flowlab.realnvp(2, 4, hidden=(32,)))),
]


def test_the_installation_is_reported_line_by_line(capsys):
    installation.report()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Everything works." and len(lines) == len(installation.LOOKS) + 1
    assert all(line.startswith("✔") for line in lines[:-1])
    assert torch.__version__ in lines[0] and "5,000" in lines[2]


def test_a_missing_package_is_named_with_what_to_do(capsys, monkeypatch):
    def version(name, real=metadata.version):
        if name == "anywidget":
            raise metadata.PackageNotFoundError(name)
        return "1.0" if name == "torch" else real(name)

    monkeypatch.setattr(installation.metadata, "version", version)
    installation.report()
    out = capsys.readouterr().out
    assert "✘ versions: " in out and "anywidget is missing" in out and "torch is 1.0" in out and ".[lab]" in out
    assert "Not ready yet" in out
