"""Markdown to the inside of a page, as GitHub reads it: tables, and a place at every heading."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pygments
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name


@dataclass(frozen=True, slots=True)
class Heading:
    level: int
    words: str
    place: str
    """Its id on the page."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text as HTML, with what a frame around it must know."""

    body: str
    headings: tuple[Heading, ...]
    links: tuple[str, ...]
    """Every link and picture, as written."""

    @property
    def title(self) -> str:
        return self.headings[0].words if self.headings else ""


def rendered(text: str, link: Callable[[str], str]) -> Text:
    """The Markdown as HTML.

    Args:
        link: from a link as written to the link on the page.
    """
    parser = MarkdownIt("commonmark").enable("table")
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>')
    parser.add_render_rule("table_close", lambda *_: "</table></div>")
    for block in ("fence", "code_block"):
        parser.add_render_rule(block, lambda _, tokens, i, *__: preformatted(tokens[i].content, tokens[i].info))
    tokens = parser.parse(text)
    headings, links = _headings(tokens), []
    for token in (child for parent in tokens for child in parent.children or ()):
        for name in ("href", "src"):
            if name in token.attrs:
                links.append(str(token.attrs[name]))
                token.attrs[name] = link(links[-1])
    return Text(parser.renderer.render(tokens, parser.options, {}), headings, tuple(links))


def is_local(link: str) -> bool:
    """Whether a link leads to another file of the repository."""
    return not re.match(r"[a-z]+:|#|//", link)


def _headings(tokens: Sequence[Token]) -> tuple[Heading, ...]:
    """Give every heading its place, by GitHub's rule, and list them."""
    found: list[Heading] = []
    for token, inside in itertools.pairwise(tokens):
        if token.type == "heading_open":
            words = "".join(child.content for child in inside.children or ())
            name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            same = sum(1 for each in found if re.fullmatch(rf"{re.escape(name)}(-\d+)?", each.place))
            token.attrs["id"] = f"{name}-{same}" if same else name
            found.append(Heading(int(token.tag[1]), words, str(token.attrs["id"])))
    return tuple(found)


def preformatted(code: str, info: str = "", kind: str = "") -> str:
    """A block of code, its words told apart by class.

    Args:
        info: what follows the fence, first of it the language; where it is not said, a block that begins as commands is taken for such.
        kind: the block's own class.
    """
    language = info.split()[0] if info else "sh" if re.match(r"(kcircuit|make|pip|python|ray) ", code) else "text"
    coloured = pygments.highlight(code, get_lexer_by_name(language), HtmlFormatter(nowrap=True))
    return f'<pre class="{kind or language}"><code>{coloured}</code></pre>\n'
