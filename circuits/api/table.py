"""A table of relations that shows itself."""

from dataclasses import dataclass
from pathlib import Path

from circuits.choices import counted
from circuits.pages.table import main_grid, summary
from circuits.pages.table_folder import export_table
from circuits.pages.tables import STYLE, to_html
from circuits.studies.table import Table, load_published


@dataclass(frozen=True)
class LiveTable(Table):
    """One row a relation, beside the model and random circuits; Hit@10 in 0 to 1, edges as counts."""

    def export(self, folder: Path | str) -> Path:
        """Write the table as JSON, Markdown and a page, with its figures.

        Args:
            folder: made if need be. If it is the one that the table was made with, its rows open their circuits' pages.

        Returns:
            The page, ``table.html``.
        """
        export_table(self, folder, load_published())
        return Path(folder) / "table.html"

    def __str__(self) -> str:
        rows = (f"{row.relation}: {counted(row.circuit.edges, 'edge')}" for row in self.rows)
        return "\n".join([summary(self), *rows])

    def __repr__(self) -> str:
        return f"<LiveTable: {summary(self)}>"

    def _repr_html_(self) -> str:
        return f"<style>{STYLE}</style>{to_html(main_grid(self, load_published(), narrow=True))}"
