"""The site: ``python -m docs.build [FOLDER]``. Markdown, notebooks, the commands' help and the docstrings as pages that open offline.

Nothing is fetched, neither here nor by a page, and no script is needed. `make docs` runs it; a link that leads nowhere ends it.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from docs.commands import commands
from docs.contents import COMMANDS, CONTENTS, START
from docs.frame import framed, style
from docs.links import broken
from docs.markdown import is_local, rendered
from docs.notebook import notebook
from docs.reference import reference

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ROOT / "build" / "docs"
READERS = {".md": rendered, ".ipynb": notebook}
"""What becomes a page, by the file's suffix; any other file that a page shows or links to is copied."""


def place(path: str) -> str:
    """Where a file of the repository lies in the site: where it lies in the repository, as a page; a module at its reference."""
    if path == START:
        return "index.html"
    if _is_module(path):
        return f"reference/{path.removesuffix('.py').removesuffix('/__init__')}.html"
    stem, suffix = os.path.splitext(path)
    return f"{stem}.html" if suffix in READERS else path


def site(folder: Path, made: Mapping[str, str]) -> Path:
    """Write the pages of the contents, and what of the repository they link to. Returns the page to open.

    Args:
        made: Markdown that is no file, by the path at which it would lie.
    """
    waiting = [path for part in CONTENTS.values() for path in part if not _is_module(path)]
    for path in waiting:
        target = folder / place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        reader = READERS.get(Path(path).suffix)
        if reader is None:
            shutil.copyfile(ROOT / path, target)
            continue
        text = reader(
            made.get(path) or (ROOT / path).read_text(encoding="utf-8"), lambda link, of=path: _link(of, link)
        )
        target.write_text(framed(path, text, place), encoding="utf-8")
        # What is linked to and is there; what is not, `broken` tells.
        aims = dict.fromkeys(_aim(path, link) for link in text.links if is_local(link))
        waiting += [aim for aim in aims if aim not in waiting and not _is_module(aim) and (ROOT / aim).is_file()]
    (folder / "style.css").write_text(style(), encoding="utf-8")
    return folder / place(START)


def _is_module(path: str) -> bool:
    return path.startswith("circuits/") and path.endswith(".py")


def _aim(path: str, link: str) -> str:
    """The file of the repository that a link on a page of it leads to."""
    return os.path.normpath(os.path.join(os.path.dirname(path), link.partition("#")[0]))


def _link(path: str, link: str) -> str:
    """A link as it must be in the site."""
    if not is_local(link):
        return link
    _, mark, anchor = link.partition("#")
    return os.path.relpath(place(_aim(path, link)), os.path.dirname(place(path)) or ".") + mark + anchor


def build(folder: Path) -> Path:
    """Write the whole site anew. Returns the page to open."""
    shutil.rmtree(folder, ignore_errors=True)
    reference(folder / "reference")
    return site(folder, {COMMANDS: commands()})


def main(folder: Path) -> None:
    page = build(folder)
    if lost := broken(folder):
        sys.exit("links that lead nowhere:\n" + "\n".join(lost))
    print(f"Open {page}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT)
