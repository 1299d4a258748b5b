"""README's own-data section, run exactly as it is printed, on a CSV file with a header and a discrete column."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from flowlab.tables import TableWarning

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks() -> tuple[str, str]:
    """The three lines, and the next four."""
    section = README.read_text(encoding="utf-8").split("## Your own data, in three lines")[1].split("\n## ")[0]
    three, four = re.findall(r"```python\n(.*?)```", section, re.S)
    return three, four


def test_there_are_three_lines_and_four():
    three, four = (
        [line for line in block.splitlines() if line and not line.startswith("import")] for block in blocks()
    )
    assert (len(three), len(four)) == (3, 4)
    assert [re.search(r"# (\w+)", line).group(1) for line in four] == ["score", "sample", "condition", "compare"]


@pytest.mark.slow
def test_the_three_lines_and_the_next_four(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    r = np.random.default_rng(0)
    kind = r.integers(0, 2, 40)
    height, weight = 165 + 12 * kind + 6 * r.normal(size=40), 0.07 + 0.01 * r.normal(size=40)  # centimeters, tons
    table = pd.DataFrame({"height": height, "weight": weight, "name": "Ada", "kind": kind})
    table.to_csv(tmp_path / "my.csv", index=False)
    monkeypatch.chdir(tmp_path)
    three, four = blocks()
    names: dict = {}
    with pytest.warns(TableWarning, match="Discrete: column 'kind', with 2 values in 40 rows"):
        exec(three, names)
    flow, x = names["flow"], names["x"]
    assert list(x.columns) == ["height", "weight", "kind"] and flow.columns == ("height", "weight", "kind")
    exec(four, names)
    assert names["log_p"].shape == (40,) and np.isfinite(names["log_p"]).all()
    assert names["new"].shape == (1000, 3) and list(names["new"].columns) == list(x.columns)
    np.testing.assert_allclose(names["new"]["height"].mean(), height.mean(), atol=4)
    np.testing.assert_allclose(names["new"]["weight"].std(), weight.std(), rtol=0.4)

    given, y, c = names["given"], names["y"], names["c"]
    exact = -0.5 * np.log(2 * np.pi) * 2 - 1 - math.log(6) - math.log(0.01)  # of the two columns, given the kind
    assert float(given.log_prob(y, c).detach().mean()) == pytest.approx(exact, abs=0.5)
    for k in (0, 1):
        drawn = given.sample(1000, context=c[kind == k].iloc[0])
        assert float(drawn[:, 0].mean()) == pytest.approx(165 + 12 * k, abs=5)
    said = capsys.readouterr().out
    assert "one Gaussian" in said and "mixture" in said and "40 of 40 rows were held out" in said
