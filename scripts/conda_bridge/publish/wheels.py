"""The wheel index: static pages that pip and uv install from, in folders by the project's layout.

PEP 503 pages with digests, PEP 658/714 metadata files, PEP 691 JSON beside them with the sizes and
versions of PEP 700 (api-version 1.1). No ``upload-time``: a static folder does not know it.

The wheels in ``wheels/`` are the input. The JSON pages are what remembers what was published: a
name that comes back with other bytes is refused, and an entry whose wheel is elsewhere is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from packaging.version import Version

from ..errors import ArtifactError, LabelError
from ..formats import limits, wheel_reader
from ..formats.json_reader import read_object
from ..formats.wheel_reader import Wheel, file_sha256
from ..label import Label
from ..project import Project
from .html_page import API_VERSION, as_html, page
from .intake import WheelName, read_wheel

__all__ = [
    "INDEX",
    "WHEELS",
    "WheelEntry",
    "consistent",
    "entry_of",
    "has_pages",
    "pages",
    "published",
    "published_digests",
    "read_already",
]

INDEX = "index"
WHEELS = "wheels"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ANCHOR = re.compile(r'href="[^"]*/([^"/]+)#sha256=([0-9a-f]{64})"')
_OTHER_LAYOUT = "delete the index folder; it is written anew from the wheels"


@dataclass(frozen=True)
class WheelEntry:
    """One wheel of the index.

    Attributes:
        name: what its file name says.
        sha256: of the wheel, in hexadecimal.
        size: of the wheel, in bytes.
        requires_python: as in METADATA; may be empty.
        metadata_sha256: of METADATA, which is served as ``<file>.metadata``.
    """

    name: WheelName
    sha256: str
    size: int
    requires_python: str
    metadata_sha256: str

    @property
    def file(self) -> str:
        """The wheel's file name."""
        return self.name.file

    @property
    def folder(self) -> str:
        """Of its page, relative to the index."""
        return _joined(self.name.folder, self.name.project)

    @property
    def order(self) -> tuple[str, tuple[Version, tuple[int, str], str]]:
        """By project; its oldest version first, then by build number."""
        return self.name.project, self.name.order

    @property
    def url(self) -> str:
        """Relative to its page; ``+`` has to be escaped, some servers read it as a space."""
        up = "../" * (self.folder.count("/") + 2)
        return f"{up}{WHEELS}/{quote(self.file, safe='')}"

    def as_json(self) -> dict[str, Any]:
        """The entry of a PEP 691 page."""
        metadata = {"sha256": self.metadata_sha256}
        return {
            "filename": self.file,
            "url": self.url,
            "hashes": {"sha256": self.sha256},
            "requires-python": self.requires_python or None,
            "core-metadata": metadata,
            "dist-info-metadata": metadata,
            "size": self.size,
            "yanked": False,
        }

    def as_html(self) -> str:
        """The anchor of a PEP 503 page."""
        attributes = {
            "href": f"{self.url}#sha256={self.sha256}",
            "data-requires-python": self.requires_python,
            "data-core-metadata": f"sha256={self.metadata_sha256}",
            "data-dist-info-metadata": f"sha256={self.metadata_sha256}",
        }
        written = " ".join(
            f'{name}="{as_html(value)}"' for name, value in attributes.items() if value
        )
        return f"<a {written}>{as_html(self.file)}</a><br>"


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def entry_of(named: WheelName, wheel: Wheel) -> WheelEntry:
    """The entry of a wheel, with its digests.

    Raises:
        ArtifactError: its Requires-Python is no text of one line.
    """
    asked = " ".join(str(wheel.metadata.get("Requires-Python", "")).split())
    if len(asked) > limits.DEPENDENCY_LENGTH or not asked.isprintable():
        raise ArtifactError(
            f"Requires-Python is {asked[:80]!r}, of {len(asked)} characters",
            where=f"{named.file}: METADATA",
            expected=f"comparisons as in PEP 440, at most {limits.DEPENDENCY_LENGTH} characters",
        )
    return WheelEntry(
        named,
        file_sha256(wheel.path),
        wheel.path.stat().st_size,
        asked,
        wheel_reader.bytes_sha256(wheel.metadata_bytes),
    )


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
    """The folders that list wheels, as deep as the layout says."""
    levels = project.layout.text.count("/") + 2 if project.layout else 1
    top = root / INDEX
    for path in sorted(top.rglob("index.json")):
        if len(path.relative_to(top).parts) - 1 != levels and _lists_files(path):
            raise ArtifactError(
                "lists wheels, and is not where the index has such pages",
                where=str(path.relative_to(root)),
                expected=f"{INDEX}/{_joined(project.config.index_layout, '<project>')}/index.json",
                fix=_OTHER_LAYOUT,
            )
    return sorted(path for path in top.glob("/".join("*" * levels)) if path.is_dir())


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
    """Whether every page is there as :func:`pages` writes it from the JSON pages."""
    try:
        wanted = pages(published(root, project).values(), project)
        return all((root / INDEX / name).read_text() == text for name, text in wanted.items())
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
            )
            for item in document["files"]
        ]
        for entry in entries:
            valid = isinstance(entry.size, int) and isinstance(entry.requires_python, str)
            digests = (entry.sha256, entry.metadata_sha256)
            if not valid or not all(_SHA256.fullmatch(digest) for digest in digests):
                raise ValueError(f"the entry of {entry.file}")
            if entry.folder != place:
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
    return entries


def pages(entries: Iterable[WheelEntry], project: Project) -> dict[str, str]:
    """Every page, by its path below the index folder; the same for any order of `entries`."""
    folders: dict[str, dict[str, list[WheelEntry]]] = {} if project.layout else {"": {}}
    for entry in sorted(entries, key=lambda entry: entry.order):
        folders.setdefault(entry.name.folder, {}).setdefault(entry.name.project, []).append(entry)
    written = {}
    for folder, projects in folders.items():
        written[_joined(folder, "index.html")] = page(
            "Simple index", [f'<a href="{name}/">{name}</a><br>' for name in projects], api=True
        )
        written[_joined(folder, "index.json")] = _json(
            {
                "meta": {"api-version": API_VERSION},
                "projects": [{"name": name} for name in projects],
            }
        )
        for name, found in projects.items():
            place = _joined(folder, name)
            written[f"{place}/index.html"] = page(
                f"Links for {name}", [entry.as_html() for entry in found], api=True
            )
            written[f"{place}/index.json"] = _json(
                {
                    "meta": {"api-version": API_VERSION},
                    "name": name,
                    "versions": list(dict.fromkeys(entry.name.version for entry in found)),
                    "files": [entry.as_json() for entry in found],
                }
            )
    if project.layout:
        written["index.html"] = _overview(folders, project)
    return written


def _json(document: object) -> str:
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def _overview(folders: Mapping[str, Mapping[str, list[WheelEntry]]], project: Project) -> str:
    """For people: which folder is for what. The project may have a page of its own."""
    labels: dict[str, Sequence[Label]] = {
        folder: [entry.name.label for found in projects.values() for entry in found]
        for folder, projects in folders.items()
    }
    own = project.hooks.index_page(labels, project.scheme)
    if own is not None:
        return own
    lines = ["<p>One index for every folder. Take the one for what you have:</p>"]
    lines += [f'<a href="{quote(folder)}/">{as_html(folder)}</a><br>' for folder in sorted(folders)]
    return page("Wheels", lines)
