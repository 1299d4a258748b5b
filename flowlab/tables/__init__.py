"""One's own data: the door that takes it (``door.py``), and what in it is no density (``description.py``)."""

from flowlab.tables.description import (
    Column,
    Description,
    Finding,
    TableWarning,
    describe,
    spread,
    typical_deviation,
    warn,
)
from flowlab.tables.door import Table, as_float64, as_rows, as_table, as_tensor, check_finite, check_order

__all__ = [
    "Column",
    "Description",
    "Finding",
    "Table",
    "TableWarning",
    "as_float64",
    "as_rows",
    "as_table",
    "as_tensor",
    "check_finite",
    "check_order",
    "describe",
    "spread",
    "typical_deviation",
    "warn",
]
