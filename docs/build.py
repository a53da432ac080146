"""The reference as pages: ``python docs/build.py [FOLDER]``. From the docstrings alone, offline; `make docs` runs it.

The names that `circuits` offers are loaded when first used, so they are loaded here before its page is written.
"""

import html
import pkgutil
import re
import sys
from pathlib import Path

import pdoc
import pdoc.render

import circuits

ROOT = Path(__file__).parent.parent
DEFAULT = ROOT / "build" / "docs"


def build(folder: Path) -> Path:
    """Write the pages of the package and of all its rooms. Returns the page to open."""
    rooms = [module.name for module in pkgutil.iter_modules(circuits.__path__)]
    for name in circuits.__all__:
        setattr(circuits, name, getattr(circuits, name))
    # What a page lists: the public names, then the rooms.
    listed, circuits.__all__ = circuits.__all__, [*circuits.__all__, *rooms]
    try:
        pdoc.render.configure(docformat="google", footer_text=f"kcircuit {circuits.__version__}", show_source=False)
        pdoc.pdoc("circuits", output_directory=folder)
    finally:
        circuits.__all__ = listed
    return folder / "circuits.html"


def broken(folder: Path) -> list[str]:
    """Links in the pages to a page, or to a place on one, that is not there; and whatever they would fetch from elsewhere."""
    script = re.compile(r"(<script[^>]*>).*?</script>", re.DOTALL)
    pages = {page.resolve(): script.sub(r"\1", page.read_text(encoding="utf-8")) for page in folder.rglob("*.html")}
    places = {page: set(re.findall(r' id="([^"]+)"', text)) for page, text in pages.items()}
    found = []
    for page, text in pages.items():
        for tag, target in re.findall(r'<(\w+)[^>]*? (?:href|src)="([^"]+)"', text):
            file, _, place = html.unescape(target).partition("#")
            aim = (page.parent / file).resolve() if file else page
            if target.startswith(("http:", "https:")):
                wrong = tag != "a"
            elif aim in places:
                wrong = bool(place) and place not in places[aim]
            else:
                wrong = not aim.is_file() and not target.startswith(("data:", "mailto:"))
            if wrong:
                found.append(f"{page.relative_to(folder.resolve())}: {target}")
    return found


def main(folder: Path) -> None:
    page = build(folder)
    if lost := broken(folder):
        sys.exit("links that lead nowhere:\n" + "\n".join(lost))
    print(f"Open {page}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT)
