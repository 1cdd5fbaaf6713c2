"""The frame of the index's pages."""

from __future__ import annotations

import html
from collections.abc import Iterable

__all__ = ["API_VERSION", "page"]

API_VERSION = "1.1"  # of PEP 691, with PEP 700


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
        f"{meta}<title>{html.escape(title)}</title>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n" + "\n".join(lines) + "\n</body>\n</html>\n"
    )
