"""The wheel index: static pages that pip and uv install from, one folder a variant.

PEP 503 pages with digests, PEP 658/714 metadata files, PEP 691 JSON beside them with the sizes and
versions of PEP 700 (api-version 1.1). No ``upload-time``: a static folder does not know it.

The wheels in ``wheels/`` are the input. The JSON pages are what remembers what was published: a
name that comes back with other bytes is refused, and an entry whose wheel is elsewhere is kept.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from packaging.version import Version

from ..errors import ArtifactError, LabelError
from ..formats import wheel_reader
from ..formats.wheel_reader import file_sha256
from ..label import NAME, Label

__all__ = ["WheelEntry", "consistent", "pages", "published", "published_digests", "read_wheel"]

API_VERSION = "1.1"
INDEX = "index"
WHEELS = "wheels"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ANCHOR = re.compile(r'href="[^"]*/([^"/]+)#sha256=([0-9a-f]{64})"')
_UP = "../../../../"  # from index/<cuXYZ>/<torchX.Y>/flashinfer/


@dataclass(frozen=True)
class WheelEntry:
    """One wheel of the index.

    Attributes:
        file: its name.
        sha256: of the wheel, in hexadecimal.
        size: of the wheel, in bytes.
        requires_python: as in METADATA; may be empty.
        metadata_sha256: of METADATA, which is served as ``<file>.metadata``.
    """

    file: str
    sha256: str
    size: int
    requires_python: str
    metadata_sha256: str

    @property
    def label(self) -> Label:
        """What the file name says."""
        return Label.parse_wheel_file(self.file)

    @property
    def order(self) -> tuple[Version, int, str]:
        """Oldest version first, then by build number."""
        return Version(self.label.wheel_version), self.label.build_number, self.file

    @property
    def url(self) -> str:
        """Relative to its page; ``+`` has to be escaped, some servers read it as a space."""
        return f"{_UP}{WHEELS}/{quote(self.file, safe='')}"

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
            f'{name}="{html.escape(value)}"' for name, value in attributes.items() if value
        )
        return f"<a {written}>{html.escape(self.file)}</a><br>"


def read_wheel(path: Path) -> tuple[WheelEntry, bytes]:
    """The entry of a wheel and its METADATA.

    Raises:
        ArtifactError: it cannot be read, or METADATA is not that of the file name.
        LabelError: its name is not one this project produces.
    """
    label = Label.parse_wheel_file(path.name)
    wheel = wheel_reader.read(path)
    for field, expected in (("Name", NAME), ("Version", label.wheel_version)):
        if wheel.metadata.get(field) != expected:
            raise ArtifactError(
                f"{field} is {wheel.metadata.get(field)!r}",
                where=f"{path.name}: {wheel.dist_info}/METADATA",
                expected=f"{expected!r}, as the file name has it",
                fix="a wheel must not be renamed; build it again",
            )
    metadata = wheel.metadata_bytes
    entry = WheelEntry(
        path.name,
        file_sha256(path),
        path.stat().st_size,
        str(wheel.metadata.get("Requires-Python", "")),
        wheel_reader.bytes_sha256(metadata),
    )
    return entry, metadata


def published(root: Path) -> dict[str, WheelEntry]:
    """The entries of the pages below `root`/index, by file name.

    Where a JSON page was damaged, the HTML page beside it says what was published.

    Raises:
        ArtifactError: a page that this module did not write, and no other form of it.
    """
    entries = {}
    for folder in sorted((root / INDEX).glob(f"*/*/{NAME}")):
        for entry in _entries(root, folder):
            entries[entry.file] = entry
    return entries


def _entries(root: Path, folder: Path) -> list[WheelEntry]:
    """The entries of one variant's two pages."""
    page = folder / "index.json"
    variant = folder.parent.relative_to(root / INDEX).as_posix()
    anchors = _anchors(folder / "index.html")
    if not page.is_file() and not anchors:
        return []
    try:
        entries = _read_page(page, str(page.relative_to(root)), variant)
    except ArtifactError:
        rebuilt = _rebuilt(root, anchors, variant)
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


def _rebuilt(root: Path, anchors: Mapping[str, str], variant: str) -> list[WheelEntry]:
    """The entries of `anchors`; none unless every wheel is here with the bytes it came with."""
    entries = []
    for name, sha256 in anchors.items():
        path = root / WHEELS / name
        if not path.is_file() or file_sha256(path) != sha256:
            return []
        entries.append(read_wheel(path)[0])
    return entries if all(entry.label.index_dir == variant for entry in entries) else []


def published_digests(root: Path) -> dict[str, set[str]]:
    """Under which sha256 each wheel was published, as either form of its page has it.

    The two differ where one of them was damaged, or a process was killed between them.

    Raises:
        ArtifactError: a page that this module did not write.
    """
    digests = {name: {entry.sha256} for name, entry in published(root).items()}
    for page in (root / INDEX).glob(f"*/*/{NAME}/index.html"):
        for file, sha256 in _anchors(page).items():
            digests.setdefault(file, set()).add(sha256)
    return digests


def consistent(root: Path) -> bool:
    """Whether every page is there as :func:`pages` writes it from the JSON pages."""
    try:
        wanted = pages(published(root).values())
        return all((root / INDEX / name).read_text() == text for name, text in wanted.items())
    except (OSError, ValueError, ArtifactError, LabelError):
        return False


def _anchors(page: Path) -> dict[str, str]:
    """The sha256 of the files of a PEP 503 page."""
    if not page.is_file():
        return {}
    found = _ANCHOR.findall(page.read_text(encoding="utf-8", errors="replace"))
    return {unquote(name): sha256 for name, sha256 in found}


def _read_page(page: Path, where: str, variant: str) -> list[WheelEntry]:
    try:
        document = json.loads(page.read_bytes())
        entries = [
            WheelEntry(
                item["filename"],
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
            Label.parse_wheel_file(entry.file)
            if entry.label.index_dir != variant:
                raise ValueError(f"lists {entry.file}")
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError),
        LabelError,
    ) as error:
        raise ArtifactError(
            f"is not a page of this index ({type(error).__name__}: {error})",
            where=where,
            fix="delete the index folder; it is written anew from the wheels",
        ) from error
    return entries


def pages(entries: Iterable[WheelEntry]) -> dict[str, str]:
    """Every page, by its path below the index folder; the same for any order of `entries`."""
    folders: dict[str, list[WheelEntry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.order):
        folders.setdefault(entry.label.index_dir, []).append(entry)
    written = {}
    for folder, found in folders.items():
        written[f"{folder}/index.html"] = _page(
            "Simple index", [f'<a href="{NAME}/">{NAME}</a><br>'], api=True
        )
        written[f"{folder}/index.json"] = _json(
            {"meta": {"api-version": API_VERSION}, "projects": [{"name": NAME}]}
        )
        written[f"{folder}/{NAME}/index.html"] = _page(
            f"Links for {NAME}", [entry.as_html() for entry in found], api=True
        )
        versions = list(dict.fromkeys(entry.label.wheel_version for entry in found))
        written[f"{folder}/{NAME}/index.json"] = _json(
            {
                "meta": {"api-version": API_VERSION},
                "name": NAME,
                "versions": versions,
                "files": [entry.as_json() for entry in found],
            }
        )
    written["index.html"] = _overview(folders)
    return written


def _json(document: object) -> str:
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def _page(title: str, lines: list[str], *, api: bool) -> str:
    meta = f'<meta name="pypi:repository-version" content="{API_VERSION}">\n' if api else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{meta}<title>{html.escape(title)}</title>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n" + "\n".join(lines) + "\n</body>\n</html>\n"
    )


def _overview(folders: Mapping[str, list[WheelEntry]]) -> str:
    """For people: which address for which CUDA and torch, and what is there."""
    lines = [
        "<p>One index for every pair of CUDA and torch. Take the line of the torch you have:</p>",
        "<pre>python -c 'import torch; print(torch.__version__, torch.version.cuda)'</pre>",
        "<pre>pip install flashinfer --extra-index-url &lt;this address&gt;/&lt;index&gt;/</pre>",
        "<table>",
        "<tr><th>CUDA</th><th>torch</th><th>index</th><th>newest</th></tr>",
    ]
    rows = sorted(folders.items(), key=lambda item: _overview_order(item[1][0].label))
    for folder, found in rows:
        variant = found[0].label.variant
        cuda = "{}.{}".format(*variant.cuda) if variant.cuda else "none (CPU)"
        torch = "{}.{}".format(*variant.torch)
        newest = html.escape(found[-1].label.wheel_version)
        lines.append(
            f"<tr><td>{cuda}</td><td>{torch}</td>"
            f'<td><a href="{folder}/{NAME}/">{folder}</a></td><td>{newest}</td></tr>'
        )
    lines.append("</table>")
    return _page(f"{NAME} wheels", lines, api=False)


def _overview_order(label: Label) -> tuple[tuple[int, int], tuple[int, int]]:
    return label.variant.cuda or (0, 0), label.variant.torch
