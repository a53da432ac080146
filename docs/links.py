"""Whether the links of a built site lead anywhere."""

import html
import re
from pathlib import Path


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
