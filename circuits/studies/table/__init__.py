"""Paper 2's Table 1 on any model: a circuit for each relation, against the model, against chance, and on other facts."""

from circuits.studies.specs import TableSpec
from circuits.studies.table.published import Published, load_published
from circuits.studies.table.row import Row, Skipped, folder_of, make_row
from circuits.studies.table.table import CIRCUITS_FOLDER, Table, make_table

__all__ = [
    "CIRCUITS_FOLDER",
    "Published",
    "Row",
    "Skipped",
    "Table",
    "TableSpec",
    "folder_of",
    "load_published",
    "make_row",
    "make_table",
]
