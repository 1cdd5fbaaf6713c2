"""One wheel of the index, in the words of each form of a page."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from urllib.parse import quote

from packaging.version import Version

from ..errors import ArtifactError
from ..formats import limits, wheel_reader
from ..formats.wheel_reader import Wheel, file_sha256
from .html_page import as_html
from .intake import WheelName

__all__ = ["INDEX", "WHEELS", "WheelEntry", "entry_of", "joined"]

INDEX = "index"
WHEELS = "wheels"


@dataclass(frozen=True)
class WheelEntry:
    """One wheel of the index.

    Attributes:
        name: what its file name says.
        sha256: of the wheel, in hexadecimal.
        size: of the wheel, in bytes.
        requires_python: as in METADATA; may be empty.
        metadata_sha256: of METADATA, which is served as ``<file>.metadata``.
        yanked: why it is to be chosen by those alone who pin it (PEP 592); None where it is not.
        uploaded: when it was published (PEP 700), in UTC; empty where nobody knows.
    """

    name: WheelName
    sha256: str
    size: int
    requires_python: str
    metadata_sha256: str
    yanked: str | None = None
    uploaded: str = ""

    @property
    def file(self) -> str:
        """The wheel's file name."""
        return self.name.file

    @property
    def folder(self) -> str:
        """Of its own page, relative to the index."""
        return joined(self.name.folder, self.name.project)

    @property
    def pages(self) -> list[str]:
        """The folders of all its pages, relative to the index."""
        return [joined(folder, self.name.project) for folder in self.name.folders]

    @property
    def order(self) -> tuple[str, tuple[Version, tuple[int, str], str]]:
        """By project; its oldest version first, then by build number."""
        return self.name.project, self.name.order

    @functools.cached_property
    def key(self) -> str:
        """All that a page says of it."""
        yanked = "" if self.yanked is None else f"yanked {self.yanked}"
        return "\n".join(
            (
                *(self.file, self.sha256, str(self.size), self.requires_python),
                *(self.metadata_sha256, yanked, self.uploaded),
            )
        )

    def as_json(self, up: str) -> str:
        """The entry of a PEP 691 page, in one line.

        Args:
            up: leads from the page to the folder above the index.
        """
        return up.join(self._json)

    def as_html(self, up: str) -> str:
        """The anchor of a PEP 503 page; see :meth:`as_json`."""
        return up.join(self._html)

    @property
    def _url(self) -> str:
        """From the folder above the index; some servers read ``+`` as a space, so it is escaped."""
        return f"{WHEELS}/{quote(self.file, safe='')}"

    # Both are the same for all its pages, but for the way there.
    @functools.cached_property
    def _json(self) -> tuple[str, str]:
        metadata = {"sha256": self.metadata_sha256}
        before = json.dumps({"filename": self.file})[:-1] + ', "url": "'
        after = json.dumps(
            {
                "hashes": {"sha256": self.sha256},
                "requires-python": self.requires_python or None,
                "core-metadata": metadata,
                "dist-info-metadata": metadata,
                "size": self.size,
                **({"upload-time": self.uploaded} if self.uploaded else {}),
                "yanked": False if self.yanked is None else self.yanked or True,
            }
        )
        return before, f'{self._url}", {after[1:]}'

    @functools.cached_property
    def _html(self) -> tuple[str, str]:
        attributes = {
            "data-requires-python": self.requires_python,
            "data-core-metadata": f"sha256={self.metadata_sha256}",
            "data-dist-info-metadata": f"sha256={self.metadata_sha256}",
        }
        if self.yanked is not None:
            attributes["data-yanked"] = self.yanked or "yanked"
        written = "".join(
            f' {name}="{as_html(value)}"' for name, value in attributes.items() if value
        )
        return (
            '<a href="',
            f'{self._url}#sha256={self.sha256}"{written}>{as_html(self.file)}</a><br>',
        )


def joined(folder: str, name: str) -> str:
    """A path below a folder, which may be the top."""
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
