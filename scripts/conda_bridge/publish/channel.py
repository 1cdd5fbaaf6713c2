"""The conda channel: what its documents say was published, and what a package says of itself.

The documents are written here (`channel_forms.py`) and not by a client's indexer: the same packages
give the same bytes, a broken package is an error that names it, and what was published is never
replaced in silence.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from ..errors import ArtifactError
from ..formats import limits
from ..formats.conda_package import CondaPackage
from ..formats.index_json import check_record
from ..formats.json_reader import parse, parse_object, read_object
from ..formats.member_names import check_path
from ..formats.zstd_frame import decompressed
from ..label import split_conda_file
from .channel_forms import SECTIONS, Listed, documents, repodata

__all__ = [
    "CHANNEL",
    "Records",
    "consistent",
    "published",
    "published_digests",
    "published_exports",
    "read_already",
    "record_of",
    "run_exports_of",
]

CHANNEL = "channel"

# By file name, what repodata.json says of a package.
Records = dict[str, dict[str, Any]]

# What a solver reads; anything else that index.json may hold does not belong there.
_KEYS = (
    *("arch", "build", "build_number", "constrains", "depends", "extra_depends", "features"),
    *("flags", "license", "license_family", "name", "noarch", "platform"),
    *("python_site_packages_path", "subdir", "timestamp", "track_features", "version"),
)
_EXPORTS = ("weak", "strong", "weak_constrains", "strong_constrains", "noarch")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20
_PLAIN, _COMPRESSED = "repodata.json", "repodata.json.zst"
_UNREADABLE = (ArtifactError, ValueError, KeyError, TypeError, AttributeError)


def record_of(package: CondaPackage) -> dict[str, Any]:
    """The record of one package, with its digests and size."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with package.path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
    return {
        **{key: package.index[key] for key in _KEYS if key in package.index},
        "md5": md5.hexdigest(),
        "sha256": sha256.hexdigest(),
        "size": package.path.stat().st_size,
    }


def run_exports_of(package: CondaPackage) -> dict[str, list[str]]:
    """What a build that uses a package depends on, by kind; without those that are empty.

    Raises:
        ArtifactError: its ``info/run_exports.json`` is not of a form that conda's tools read.
    """
    member = "info/run_exports.json"
    if member not in package.info:
        return {}
    where = f"{package.path.name}: {member}"
    found = parse(package.info[member], where)
    exports = _exports({"weak": found} if isinstance(found, list) else found)
    if exports is None:
        raise ArtifactError(
            "is not what a package exports",
            where=where,
            expected=f"lists of texts, under {', '.join(_EXPORTS)}",
        )
    return exports


def _exports(found: object) -> dict[str, list[str]] | None:
    """Those of a kind that clients know; None where it is of another form."""
    if not isinstance(found, dict):
        return None
    known = {kind: found[kind] for kind in _EXPORTS if found.get(kind)}
    for specs in known.values():
        if not isinstance(specs, list) or not all(isinstance(spec, str) for spec in specs):
            return None
    return known


def published_exports(channel: Path, subdir: str) -> dict[str, dict[str, list[str]]]:
    """By file name, the run exports that a subdir's ``run_exports.json`` has; none without one."""
    try:
        document = read_object(channel / subdir / "run_exports.json", f"{subdir}/run_exports.json")
        items = [item for key in SECTIONS for item in document[key].items()]
        return {name: _exports(about["run_exports"]) or {} for name, about in items}
    except (OSError, *_UNREADABLE):
        return {}


def published(channel: Path, subdir: str) -> Records:
    """The records of a subdir's ``repodata.json``; none where there is none yet.

    Where it was damaged, its compressed form says what was published.

    Raises:
        ArtifactError: the file is not repodata, and there is no other form of it.
    """
    folder = channel / subdir
    twin = _twin(channel, subdir)
    try:
        records = _records(_plain(channel, subdir), f"{subdir}/{_PLAIN}")
    except FileNotFoundError:
        return twin or {}
    except _UNREADABLE as error:
        if twin is not None:
            return twin
        said = error.what if isinstance(error, ArtifactError) else error
        raise ArtifactError(
            f"is not repodata of this channel ({type(error).__name__}: {said})",
            where=f"{subdir}/{_PLAIN}",
            fix="delete it; it is written anew from the packages",
        ) from error
    here = {record["sha256"] for name, record in (twin or {}).items() if (folder / name).is_file()}
    return {
        name: record
        for name, record in records.items()
        # A damaged name: no such file, and its bytes are another's that is here.
        if (folder / name).is_file() or (twin and name in twin) or record["sha256"] not in here
    }


def published_digests(channel: Path, subdir: str) -> dict[str, set[str]]:
    """Under which sha256 each package was published, as either form of the repodata has it.

    The two differ where one of them was damaged, or a process was killed between them.

    Raises:
        ArtifactError: neither is repodata.
    """
    digests: dict[str, set[str]] = {}
    for records in (published(channel, subdir), _twin(channel, subdir) or {}):
        for name, record in records.items():
            digests.setdefault(name, set()).add(record["sha256"])
    return digests


def read_already(channel: Path, subdir: str) -> set[str]:
    """The sha256 of packages that this program indexed: it read them whole before it did.

    What another program wrote is no such word; the bytes show who did.
    """
    try:
        plain = _plain(channel, subdir)
        records = _records(plain, f"{subdir}/{_PLAIN}")
        if repodata(subdir, records) == plain:
            return {record["sha256"] for record in records.values()}
    except (OSError, *_UNREADABLE):
        pass
    return set()


def consistent(channel: Path, subdir: str) -> bool:
    """Whether all documents of a subdir are there and say what its repodata does."""
    try:
        records = _records(_plain(channel, subdir), f"{subdir}/{_PLAIN}")
        exports = published_exports(channel, subdir)
        listed = {name: Listed(record, exports.get(name, {})) for name, record in records.items()}
        return all(
            (channel / subdir / path).read_bytes() == content
            for path, content in documents(subdir, listed).items()
        )
    except (OSError, *_UNREADABLE):
        return False


def _plain(channel: Path, subdir: str) -> bytes:
    with (channel / subdir / _PLAIN).open("rb") as stream:
        return stream.read(limits.REPODATA_SIZE + 1)  # one more is refused by the reader


def _unpacked(channel: Path, subdir: str) -> bytes:
    with (channel / subdir / _COMPRESSED).open("rb") as stream:
        return decompressed(stream, f"{subdir}/{_COMPRESSED}", max_bytes=limits.REPODATA_SIZE)


def _records(text: bytes, where: str) -> Records:
    document = parse_object(text, where, max_bytes=limits.REPODATA_SIZE)
    records: Records = {}
    for key, ending in SECTIONS.items():
        for name, record in document[key].items():
            check_path(Path(name))
            stem, found = split_conda_file(name)
            whole = stem.count("-") >= 2 and "/" not in name and found == ending
            if not whole or not _SHA256.fullmatch(record["sha256"]):
                raise ValueError(f"the entry of {name} in {key}")
            check_record(record, f"{where}: {name}")
            records[name] = record
    return records


def _twin(channel: Path, subdir: str) -> Records | None:
    """The records of the compressed form; None where they cannot be had."""
    try:
        return _records(_unpacked(channel, subdir), f"{subdir}/{_COMPRESSED}")
    except (OSError, *_UNREADABLE):
        return None
