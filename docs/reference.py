"""The reference of all public names and rooms, from the docstrings alone.

The names that `circuits` offers are loaded when first used, so they are loaded here before its page is written.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pdoc
import pdoc.render

import circuits

THEME = Path(__file__).parent / "theme"


def reference(folder: Path) -> Path:
    """Write the pages of the package, its rooms and all their modules. Returns the page to open."""
    for name in circuits.__all__:
        setattr(circuits, name, getattr(circuits, name))
    pdoc.render.configure(
        docformat="google", footer_text=f"kcircuit {circuits.__version__}", show_source=False, template_directory=THEME
    )
    # What a page lists: the package's public names, then its modules.
    listed = {package: package.__all__ for package in _packages() if hasattr(package, "__all__")}
    try:
        for package, names in listed.items():
            inside = [module.name for module in pkgutil.iter_modules(package.__path__)]
            vars(package)["__all__"] = [
                *names,
                *(name for name in inside if name not in names and not name.startswith("_")),
            ]
        pdoc.pdoc("circuits", output_directory=folder)
    finally:
        for package, names in listed.items():
            vars(package)["__all__"] = names
    return folder / "circuits.html"


def _packages() -> list[ModuleType]:
    """The package and all packages inside it."""
    found = pkgutil.walk_packages(circuits.__path__, "circuits.")
    return [circuits, *(importlib.import_module(module.name) for module in found if module.ispkg)]
