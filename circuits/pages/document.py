"""A page of tables and still pictures that loads nothing and runs nothing."""

from collections.abc import Sequence

from circuits.pages.page import asset
from circuits.pages.tables import STYLE, plain


def document(title: str, header: Sequence[str], cards: Sequence[str], *, style: str = "") -> str:
    """The page.

    Args:
        header: what stands first, as HTML.
        cards: its parts, as HTML.
        style: besides the style of all pages.
    """
    head = (
        '<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'; '
        'img-src data:">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">'
    )
    text = "\n".join(['<header class="wrap">', *header, '</header>\n<main class="wrap">', *cards, "</main>"])
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n<title>{plain(title)}</title>\n'
        f"<style>{asset('page.css')}{STYLE}{style}</style>\n</head>\n"
        f"<body>\n{text}\n</body>\n</html>\n"
    )
