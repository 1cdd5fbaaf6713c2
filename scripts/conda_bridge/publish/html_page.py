"""The frame of the index's pages."""

from __future__ import annotations

import html
from collections.abc import Iterable

from ..printable import printable

__all__ = ["API_VERSION", "as_html", "page"]

API_VERSION = "1.1"  # of PEP 691, with PEP 700


def as_html(text: str) -> str:
    r"""A text for a page or an attribute: what is not printable is shown as in a terminal.

    >>> as_html("a<b\u202e")
    'a&lt;b\\u202e'
    """
    return html.escape(printable(text))


def page(title: str, lines: Iterable[str], *, api: bool = False) -> str:
    """A whole page.

    Args:
        title: of the page, as text.
        lines: of its body, as HTML.
        api: whether clients read it.
    """
    meta = f'<meta name="pypi:repository-version" content="{API_VERSION}">\n' if api else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{meta}<title>{as_html(title)}</title>\n</head>\n<body>\n"
        f"<h1>{as_html(title)}</h1>\n" + "\n".join(lines) + "\n</body>\n</html>\n"
    )
