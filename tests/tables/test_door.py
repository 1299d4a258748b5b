"""The door takes what people have; what it refuses it refuses in one sentence that names the way out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import flowlab
from flowlab.tables import Table, as_float64, as_table, as_tensor, check_finite, describe
from tables.cases import FRAME, NUMBERS, REFUSED, TAKEN


@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.name)
def test_taken(case, recwarn):
    values, names = as_table(case.make())
    numbers = torch.as_tensor(np.asarray(NUMBERS if case.numbers is None else case.numbers, dtype=np.float64))
    assert torch.equal(values.double().nan_to_num(-7), numbers.nan_to_num(-7)), "every number as it was"
    assert values.dtype == case.dtype and names == case.names
    assert not recwarn, "torch warns of arrays it shares memory with and may not write to"


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_refused(case):
    with pytest.raises((TypeError, ValueError)) as error:
        as_table(case.make(), "the data")
    said = str(error.value)
    assert case.way_out.lower() in said.lower() and case.names in said and "the data" in said
    assert said.endswith(".") and "\n" not in said


def test_a_tensor_comes_back_as_it_is():
    x = torch.tensor(NUMBERS, requires_grad=True)
    assert as_tensor(x) is x
    assert as_tensor(np.float32(3)).shape == ()


def test_what_comes_in_is_never_changed():
    x = np.array(NUMBERS)
    as_tensor(x[::-1]).zero_()
    assert (x == NUMBERS).all()


def test_columns_are_put_in_the_order_of_the_names():
    swapped = FRAME[["b", "a"]]
    assert as_tensor(swapped, names=("a", "b")).tolist() == NUMBERS
    assert as_tensor(swapped.iloc[0], names=("a", "b")).tolist() == NUMBERS[0]
    assert as_tensor(np.array(NUMBERS), names=("a", "b")).tolist() == NUMBERS, "an array has no names"
    for other in (FRAME[["a"]], FRAME.assign(c=0.0), FRAME.rename(columns={"a": "A"})):
        with pytest.raises(ValueError, match=r"columns 'a', 'b', but got .*x\[\['a', 'b'\]\]"):
            as_tensor(other, names=("a", "b"))


def test_float64_is_on_the_cpu_where_a_device_has_none():
    class OnAppleGPU:
        """Has the device and the one way out of a tensor there; ``double()`` of it raises."""

        device = torch.device("mps")

        def cpu(self) -> torch.Tensor:
            return torch.ones(2)

    assert as_float64(OnAppleGPU()).dtype == torch.float64
    assert as_float64(torch.ones(2, device="meta")).device.type == "meta", "other devices keep theirs"
    code = {p: p.read_text(encoding="utf-8") for p in Path(flowlab.__file__).parent.rglob("*.py")}
    assert [p.name for p, text in code.items() if ".double().cpu()" in text] == [], "to the CPU first"


def test_numbers_of_eight_bits_can_be_computed_with():
    x = torch.tensor(NUMBERS).to(torch.float8_e4m3fn)
    assert torch.equal(as_tensor(x), torch.tensor(NUMBERS)) and not describe(x).kinds - {"few rows", "discrete"}


def test_the_labels_of_rows_are_no_names_of_columns():
    column = pd.Series([1.0, 2.0, 3.0], index=["r1", "r2", "r3"], name="a")
    assert as_tensor(column, names=("a",)).tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="Expected x with the columns 'a', but got 'a', 'b'"):
        as_tensor(FRAME.iloc[0], names=("a",))


def test_a_row_that_is_not_finite_is_named_with_its_column():
    bad = FRAME.copy()
    bad.loc[1, "b"] = np.nan
    with pytest.raises(ValueError, match=r"in 1 of 3 rows, the first in row 1, column 'b'"):
        check_finite(as_table(bad))
    with pytest.raises(ValueError, match=r"in 2 of 3 rows, the first in row 0, column 1"):
        check_finite(Table(torch.tensor([[1.0, torch.inf], [2.0, 3.0], [torch.nan, 0.0]]), None))
    with pytest.raises(ValueError, match="Is row 0 a header"):
        check_finite(Table(torch.tensor([[torch.nan, torch.nan], [2.0, 3.0]]), None))
    with pytest.raises(ValueError, match="the first in row 2: "):
        check_finite(Table(torch.tensor([1.0, 2.0, torch.nan]), None))


def test_finite_numbers_whose_sum_is_not_are_finite():
    check_finite(Table(torch.full((3, 2), 3e38), None))
    check_finite(as_table(pd.DataFrame({"a": [1, 2]})))
