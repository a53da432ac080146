"""The reference of all public names and rooms, from the docstrings alone.

The names that `circuits` offers are loaded when first used, so they are loaded here before its page is written.
"""

import pkgutil
from pathlib import Path

import pdoc
import pdoc.render

import circuits

THEME = Path(__file__).parent / "theme"


def reference(folder: Path) -> Path:
    """Write the pages of the package and of all its rooms. Returns the page to open."""
    rooms = [module.name for module in pkgutil.iter_modules(circuits.__path__)]
    for name in circuits.__all__:
        setattr(circuits, name, getattr(circuits, name))
    # What a page lists: the public names, then the rooms.
    listed, circuits.__all__ = circuits.__all__, [*circuits.__all__, *rooms]
    try:
        pdoc.render.configure(
            docformat="google",
            footer_text=f"kcircuit {circuits.__version__}",
            show_source=False,
            template_directory=THEME,
        )
        pdoc.pdoc("circuits", output_directory=folder)
    finally:
        circuits.__all__ = listed
    return folder / "circuits.html"
