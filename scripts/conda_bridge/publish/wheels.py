"""The wheel index: static pages that pip and uv install from, in folders by the project's layout.

PEP 503 pages with digests, PEP 658/714 metadata files, PEP 691 JSON beside them with the sizes and
versions of PEP 700 (api-version 1.1). ``upload-time`` is there where a record has it; a folder by
itself does not know it. `pages.py` writes them; here they are read.

The wheels in ``wheels/`` are the input. The JSON pages are what remembers what was published: a
name that comes back with other bytes is refused, and an entry whose wheel is elsewhere is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from ..errors import ArtifactError, LabelError
from ..formats import limits
from ..formats.json_reader import read_object
from ..formats.wheel_reader import file_sha256
from ..project import Project
from ..template import Template
from .intake import WheelName, read_wheel
from .pages import pages
from .wheel_entry import INDEX, WHEELS, WheelEntry, entry_of, joined

__all__ = ["consistent", "has_pages", "published", "published_digests", "read_already"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ANCHOR = re.compile(r'href="[^"]*/([^"/]+)#sha256=([0-9a-f]{64})"')
_OTHER_LAYOUT = "delete the index folder; it is written anew from the wheels"


def published(root: Path, project: Project) -> dict[str, WheelEntry]:
    """The entries of the pages below `root`/index, by file name.

    Where a JSON page was damaged, the HTML page beside it says what was published.

    Raises:
        ArtifactError: a page that this module did not write, or wrote for another layout, and no
            other form of it.
    """
    entries = {}
    for folder in _page_folders(root, project):
        for entry in _entries(root, folder, project):
            entries[entry.file] = entry
    return entries


def has_pages(root: Path) -> bool:
    """Whether anything was ever published in `root`/index."""
    return any((root / INDEX).rglob("index.*"))


def _page_folders(root: Path, project: Project) -> list[Path]:
    """The folders that list wheels and are their own; other folders list the same again."""
    top = root / INDEX
    others = (*project.folders, *project.nightly_folders)
    found = []
    for folder in sorted({path.parent for path in top.rglob("index.*")}):
        parts = folder.relative_to(top).parts
        above = "/".join(parts[:-1])
        own = _fits(project.layout, above) if project.layout else len(parts) == 1
        if own and not any(_fits(other, "/".join(parts)) for other in others):
            found.append(folder)
        elif not any(_fits(other, above) for other in others) and _lists_files(
            page := folder / "index.json"
        ):
            raise ArtifactError(
                "lists wheels, and is not where the index has such pages",
                where=str(page.relative_to(root)),
                expected=f"{INDEX}/{joined(project.config.index_layout, '<project>')}/index.json",
                fix=_OTHER_LAYOUT,
            )
    return found


def _fits(layout: Template | None, folder: str) -> bool:
    """Whether a folder may be of a layout."""
    try:
        return layout is not None and layout.parse(folder) is not None
    except ValueError:
        return False


def _lists_files(path: Path) -> bool:
    try:
        return "files" in read_object(path, path.name)
    except (OSError, ArtifactError):
        return False


def _entries(root: Path, folder: Path, project: Project) -> list[WheelEntry]:
    """The entries of one project's two pages."""
    page = folder / "index.json"
    place = folder.relative_to(root / INDEX).as_posix()
    anchors = _anchors(folder / "index.html")
    if not page.is_file() and not anchors:
        return []
    try:
        entries = _read_page(page, str(page.relative_to(root)), place, project)
    except ArtifactError:
        rebuilt = _rebuilt(root, anchors, place, project)
        if not rebuilt:
            raise
        return rebuilt
    here = {sha256 for name, sha256 in anchors.items() if (root / WHEELS / name).is_file()}
    return [
        entry
        for entry in entries
        # A damaged name: no such file, and its bytes are another's that is here.
        if (root / WHEELS / entry.file).is_file()
        or entry.file in anchors
        or entry.sha256 not in here
    ]


def _rebuilt(
    root: Path, anchors: Mapping[str, str], place: str, project: Project
) -> list[WheelEntry]:
    """The entries of `anchors`; none unless every wheel is here with the bytes it came with."""
    entries = []
    for name, sha256 in anchors.items():
        path = root / WHEELS / name
        if not path.is_file() or file_sha256(path) != sha256:
            return []
        entries.append(entry_of(*read_wheel(path, project)))
    return entries if all(entry.folder == place for entry in entries) else []


def published_digests(root: Path, project: Project) -> dict[str, set[str]]:
    """Under which sha256 each wheel was published, as either form of its page has it.

    The two differ where one of them was damaged, or a process was killed between them.

    Raises:
        ArtifactError: a page that this module did not write.
    """
    digests = {name: {entry.sha256} for name, entry in published(root, project).items()}
    for folder in _page_folders(root, project):
        for file, sha256 in _anchors(folder / "index.html").items():
            digests.setdefault(file, set()).add(sha256)
    return digests


def read_already(root: Path, project: Project) -> set[str]:
    """The sha256 of wheels that this program indexed: it read them whole before it did."""
    if not consistent(root, project):
        return set()
    return {entry.sha256 for entry in published(root, project).values()}


def consistent(root: Path, project: Project) -> bool:
    """Whether every page is there as it is written from the JSON pages."""
    try:
        wanted = pages(published(root, project).values(), project)
        return all((root / INDEX / name).read_bytes() == text for name, text in wanted.items())
    except (OSError, ValueError, ArtifactError, LabelError):
        return False


def _anchors(page: Path) -> dict[str, str]:
    """The sha256 of the files of a PEP 503 page."""
    if not page.is_file():
        return {}
    found = _ANCHOR.findall(page.read_text(encoding="utf-8", errors="replace"))
    names = ((unquote(name), sha256) for name, sha256 in found)
    return {name: sha256 for name, sha256 in names if _is_file_name(name)}


def _is_file_name(name: str) -> bool:
    return "/" not in name and name.isprintable() and len(name.encode()) <= limits.FILE_NAME


def _yanked(found: object) -> str | None:
    """Why a wheel was yanked, as PEP 691 has it; None where it was not."""
    if isinstance(found, bool):
        return "" if found else None
    if not isinstance(found, str):
        raise TypeError(f"yanked is {found!r:.80}")
    return found


def _read_page(page: Path, where: str, place: str, project: Project) -> list[WheelEntry]:
    try:
        document = read_object(page, where)
        entries = [
            WheelEntry(
                WheelName.of(item["filename"], project),
                item["hashes"]["sha256"],
                item["size"],
                item["requires-python"] or "",
                item["core-metadata"]["sha256"],
                _yanked(item.get("yanked", False)),
                item.get("upload-time", ""),
            )
            for item in document["files"]
        ]
        for entry in entries:
            texts = (entry.requires_python, entry.yanked or "", entry.uploaded)
            valid = isinstance(entry.size, int) and all(isinstance(text, str) for text in texts)
            digests = (entry.sha256, entry.metadata_sha256)
            if not valid or not all(_SHA256.fullmatch(digest) for digest in digests):
                raise ValueError(f"the entry of {entry.file}")
            if place not in entry.pages:
                raise ValueError(f"lists {entry.file}")
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError),
        *(ArtifactError, LabelError),
    ) as error:
        raise ArtifactError(
            f"is not a page of this index ({type(error).__name__}: {error})",
            where=where,
            fix=_OTHER_LAYOUT,
        ) from error
    return [entry for entry in entries if entry.folder == place]
