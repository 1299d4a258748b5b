"""The data of a run: what is taken, what becomes of it, and that a batch depends on the seed and the step alone."""

import numpy as np
import pandas as pd
import pytest
import torch
from runs import gaussian, generator, quiet, same, small, state
from torch import Tensor, nn

from flowlab import Flow, evaluation, pretrained, realnvp
from flowlab.bijections import Chain, Logit, ScaleShift
from flowlab.densities import Dequantized, StandardNormal
from flowlab.tables import TableWarning
from flowlab.training import load_checkpoint, save_checkpoint
from flowlab.training.batches import Batches, prepare

X = gaussian(300).double().numpy()


@pytest.mark.parametrize(
    "holds",
    (
        lambda x: x.tolist(),
        lambda x: pd.DataFrame(x, columns=["year", "pressure"]),
        lambda x: pd.DataFrame(x, index=np.arange(len(x)) * 7 + 3),
        lambda x: x.astype(">f8"),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, 0)[::2],
        lambda x: np.ma.array(x),
        lambda x: [torch.as_tensor(row) for row in x],
        lambda x: torch.as_tensor(x).requires_grad_() * 1.0,
    ),
    ids=("lists", "DataFrame", "odd index", "FITS", "Fortran", "strided", "unmasked", "tensors", "graph"),
)
def test_the_same_numbers_in_any_container_train_the_same(holds):
    flow, straight = small(), small()
    history = quiet(flow, holds(X), steps=5, validation=holds(X[:50]), validate_every=2)
    assert history.loss == quiet(straight, torch.as_tensor(X), steps=5).loss and same(state(flow), state(straight))


def test_what_holds_no_numbers_is_refused_by_name():
    with pytest.raises(ValueError, match="as the data, but got 1 masked ones"):
        quiet(small(), np.ma.array(X, mask=X[7, 1] == X), steps=2)
    with pytest.raises(ValueError, match="as the validation data, column 'b', but got text, such as 'x'"):
        quiet(small(), X, steps=2, validation=pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}))
    with pytest.raises(ValueError, match=r"as part 1 of the data, but got text"):
        quiet(small(), (X, np.array(["a"] * len(X))), steps=2)
    frame = pd.DataFrame(X, columns=["year", "pressure"])
    frame.loc[11, "pressure"] = np.nan
    with pytest.raises(ValueError, match=r"1 of 300 rows, the first in row 11, column 'pressure'"):
        quiet(small(), frame, steps=2)
    with pytest.raises(TypeError, match="read the file first"):
        quiet(small(), "my.csv", steps=2)
    with pytest.raises(ValueError, match="an empty tuple"):
        quiet(small(), (), steps=2)


def test_whole_numbers_are_real_for_a_real_density_and_whole_for_one_of_whole_numbers():
    v = torch.randint(0, 9, (200, 2), generator=generator())
    assert (
        prepare(v, small(), "data").parts[0].dtype == torch.float32
        and prepare(v > 4, small(), "data").parts[0].sum() > 0
    )
    assert prepare((v, v[:, 0]), small(), "data").parts[1].dtype == torch.int64, "labels stay labels"
    pixels = Dequantized(Flow(Chain([Logit(1e-3), ScaleShift(2)]), StandardNormal(2)), 16)
    assert prepare(v.numpy().astype("u2"), pixels, "data").parts[0].dtype == torch.int64
    assert prepare(v, nn.Linear(2, 1), "data").parts[0].dtype == torch.int64, "of another module nothing is known"
    assert quiet(pixels, v, steps=3).whole_numbers == 2 and evaluation.log_prob(pixels, v).isfinite().all()


def test_a_column_is_as_many_samples_of_one_number():
    flow = Flow(ScaleShift(1), StandardNormal(1))
    assert quiet(flow, X[:, 0], steps=3, validation=X[:20, 0]).step == 3
    assert prepare(X[:, 0], small(), "data").parts[0].shape == (300,), "for others it may be labels"


def test_float64_far_from_zero_is_centered_before_it_is_rounded():
    """Julian days, a second apart: float32 knows quarters of a day there."""
    x = torch.randn(2000, 2, generator=generator(), dtype=torch.float64)
    far = 2460000.0 + 1e-5 * x
    near, away = (realnvp(2, layers=2, hidden=(8,), generator=generator()) for _ in range(2))
    losses = [quiet(flow, data, steps=60, learning_rate=0.01).loss for flow, data in ((near, x), (away, far))]
    assert losses[1][-1] - 2 * np.log(1e-5) == pytest.approx(losses[0][-1], abs=0.02)
    assert prepare(far, away, "data").parts[0].dtype == torch.float64
    plain = Flow(ScaleShift(2), StandardNormal(2))
    assert prepare(far, plain, "data").parts[0].dtype == torch.float32
    assert prepare((far, far), away, "data").parts[1].dtype == torch.float32, "a context is of the model's dtype"


def test_columns_are_put_in_the_order_of_the_data_and_the_model_keeps_their_names(tmp_path):
    frame, c = pd.DataFrame(X, columns=["year", "pressure"]), pd.DataFrame({"wind": X[:, 0], "rain": X[:, 1]})
    flow, straight = (realnvp(2, layers=2, hidden=(8,), context_features=2, generator=generator()) for _ in range(2))
    swapped = frame[["pressure", "year"]][:50], c[["rain", "wind"]][:50]
    settings = {"steps": 6, "validate_every": 2}
    history = quiet(flow, (frame, c), validation=swapped, **settings)
    assert history.validation == quiet(straight, (frame, c), validation=(frame[:50], c[:50]), **settings).validation
    assert flow.columns == ("year", "pressure") and flow.context_columns == ("wind", "rain")
    quiet(flow, (frame[["pressure", "year"]], c), steps=3)
    quiet(straight, (frame, c), steps=3)
    assert same(state(flow), state(straight)) and flow.columns == ("year", "pressure"), "as it has learned them"
    with pytest.raises(ValueError, match=r"part 0 of the validation data with the columns 'year', 'pressure', but got"):
        quiet(flow, (frame, c), steps=3, validation=(frame.rename(columns={"year": "day"}), c))
    quiet(flow, (frame.rename(columns={"year": "day"}), c), steps=3)
    assert flow.columns == ("day", "pressure"), "it was trained on another table"

    save_checkpoint(tmp_path / "flow.safetensors", flow)
    again = realnvp(2, layers=2, hidden=(8,), context_features=2)
    load_checkpoint(tmp_path / "flow.safetensors", again)
    assert again.columns == flow.columns and again.context_columns == flow.context_columns
    x = frame.rename(columns={"year": "day"})[["pressure", "day"]]
    assert torch.equal(again.log_prob(x, c), flow.log_prob(x[["day", "pressure"]], c))
    assert pretrained.find(tmp_path / "flow.safetensors")[0].columns == flow.columns
    load_checkpoint(tmp_path / "flow.safetensors", straight)
    assert straight.columns == flow.columns, "as they are in the file"


def test_batches_come_in_an_order_of_their_own_each_epoch_and_depend_on_nothing_else():
    batches = Batches((torch.arange(20), 10 * torch.arange(20)), 6, seed=1)
    steps = [batches(index) for index in range(6)]
    for rows, others in steps:
        assert len(rows) == 6 and torch.equal(others, 10 * rows)
    first, second = (sorted(torch.cat([rows for rows, _ in steps[i : i + 3]]).tolist()) for i in (0, 3))
    assert len(set(first)) == len(set(second)) == 18 and steps[0][0].tolist() != steps[3][0].tolist()
    again = Batches((torch.arange(20),), 6, seed=1)
    assert all(torch.equal(again(index)[0], steps[index][0]) for index in (5, 0, 3, 1))
    assert not torch.equal(Batches((torch.arange(20),), 6, seed=2)(0)[0], steps[0][0])


def test_what_is_no_density_is_said_once(recwarn):
    x = gaussian(400)
    quiet(small(), x, steps=2)
    assert not [w for w in recwarn if issubclass(w.category, TableWarning)]
    with pytest.warns(TableWarning, match="Constant: column .c.") as said:
        quiet(realnvp(3, layers=2, hidden=(8,)), pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": 1.0}), steps=2)
    assert len([w for w in said if issubclass(w.category, TableWarning)]) == 1
    assert said[0].filename == __file__ or "runs.py" in said[0].filename, "it points at who called fit"


class Images(nn.Module):
    """A density of images, of which no table is made."""

    domain, event_shape = "real", (1, 2, 2)

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return -(x - self.shift).square().sum((-3, -2, -1))


def test_only_tables_are_described(recwarn):
    quiet(Images(), torch.zeros(50, 1, 2, 2), steps=2)
    quiet(nn.Sequential(nn.Linear(2, 1)), torch.zeros(50, 2), steps=2)
    assert not [w for w in recwarn if issubclass(w.category, TableWarning)]
