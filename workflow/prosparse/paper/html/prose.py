"""Markdown as HTML, for texts that GitHub and this page share."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from markdown_it import MarkdownIt
from markupsafe import Markup


@cache
def _parser() -> MarkdownIt:
    # no raw HTML: a result's text is data
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def inline(text: str) -> Markup:
    """Return one line's emphasis, code and links."""
    return Markup(_parser().renderInline(text))


def block(lines: Iterable[str] | str) -> Markup:
    """Return paragraphs, lists and tables; a table scrolls on its own where it is wider than the page."""
    text = lines if isinstance(lines, str) else "\n".join(lines)
    rendered = _parser().render(text)
    return Markup(
        rendered.replace("<table>", '<div class="scroll"><table class="sortable n-last">').replace(
            "</table>", "</table></div>"
        )
    )
