"""Paper 2's Table 1 on any model: a circuit for each relation, against the model, against chance, and on other facts."""

from circuits.studies.specs import TableSpec
from circuits.studies.table.published import Published, load_published
from circuits.studies.table.row import Row, Skipped, make_row
from circuits.studies.table.table import Table, make_table

__all__ = ["Published", "Row", "Skipped", "Table", "TableSpec", "load_published", "make_row", "make_table"]
