"""A table's folder: its page, and the page of each circuit whose run is there, which its rows open."""

from pathlib import Path

from circuits.pages.export import export_run
from circuits.pages.table import files
from circuits.records import write_files
from circuits.studies.run import RUN_FILE, Run
from circuits.studies.table import CIRCUITS_FOLDER, Table, folder_of
from circuits.studies.table.published import PublishedTable

PAGE_FILE = "report.html"


def export_table(
    table: Table, folder: Path | str, published: PublishedTable | None, *, relations: str = "all"
) -> Path | None:
    """Write the table as JSON, Markdown and a page, with its figures, and the page of each row's circuit that the folder holds.

    Returns:
        The page, ``table.html``; None for a table without rows.
    """
    folder = Path(folder)
    links = []
    for row in table.rows:
        own = folder_of(row.relation, folder / CIRCUITS_FOLDER)
        there = (own / RUN_FILE).exists()
        if there and not _made(own):
            export_run(Run.load(own), own)
        links.append((own / PAGE_FILE).relative_to(folder).as_posix() if there else "")
    made = files(table, published, relations=relations, links=links if any(links) else ())
    write_files(folder, made)
    return folder / "table.html" if "table.html" in made else None


def _made(folder: Path) -> bool:
    """The run's page is there, and no older than the run."""
    page = folder / PAGE_FILE
    return page.exists() and page.stat().st_mtime_ns >= (folder / RUN_FILE).stat().st_mtime_ns
