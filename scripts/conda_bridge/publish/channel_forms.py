"""What clients read of a channel's subdir, in every form that one of them asks for.

=================================  ====================================================
``repodata.json``, ``.zst``        all packages that may be chosen, in one document
``current_repodata.json``,         of each name the newest release, the newest version,
``.zst``                           and what these need: conda's classic solver begins here
``repodata_shards.msgpack.zst``    CEP 16: of each name the digest of its shard
``shards/<sha256>.msgpack.zst``    one name's packages, with their run exports (CEP 21)
``run_exports.json``, ``.zst``     CEP 12: what a build that uses a package depends on
``patch_instructions.json``        what was taken back since it was published
``repodata_from_packages.json``    all packages, before that
=================================  ====================================================

All of it follows from the packages alone: no time of writing is in it.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..bridge.dependencies import MatchSpec
from ..errors import ArtifactError
from ..formats import foreign
from ..formats.zstd import zstd

__all__ = ["SHARDS", "Listed", "documents", "is_document", "is_shard", "repodata"]

SHARDS = "shards"
# Where repodata has the packages of either form.
SECTIONS = {"packages": ".tar.bz2", "packages.conda": ".conda"}
_DIGESTS = ("md5", "sha256")
_FORM = 1
# What one document is worth: the highest level takes seconds for a megabyte.
_THOROUGH, _QUICK, _LARGE = 19, 9, 256 << 10
_DOCUMENT = re.compile(
    r"(?:(?:current_)?repodata|repodata_from_packages|run_exports|patch_instructions)"
    r"\.json(?:\.zst)?|repodata_shards\.msgpack\.zst"
)
_SHARD = re.compile(r"[0-9a-f]{64}\.msgpack\.zst")
_NAME = re.compile(r"[^\s=<>!~\[;]+")


@dataclass(frozen=True)
class Listed:
    """A package as its channel has it.

    Attributes:
        record: what the repodata says of it.
        run_exports: what a build that uses it depends on, by kind (``weak``, ``strong``, ...).
        yanked: whether it is there for those alone who name its address.
    """

    record: Mapping[str, Any]
    run_exports: Mapping[str, Any] = field(default_factory=dict)
    yanked: bool = False


def is_document(name: str) -> bool:
    """Whether a file of this name, in a subdir, is one of these documents; shards are others."""
    return bool(_DOCUMENT.fullmatch(name))


def is_shard(name: str) -> bool:
    """Whether a file of this name, in the folder of shards, is one."""
    return bool(_SHARD.fullmatch(name))


def documents(subdir: str, packages: Mapping[str, Listed]) -> dict[str, bytes]:
    """All documents of a subdir, by their path in it; what another names comes before it.

    Args:
        subdir: such as ``linux-64``.
        packages: by file name.
    """
    chosen = {name: item.record for name, item in packages.items() if not item.yanked}
    removed = sorted(name for name, item in packages.items() if item.yanked)
    whole = repodata(subdir, chosen, removed)
    current = repodata(subdir, {name: chosen[name] for name in _current(chosen)}, ())
    exports = _text(
        {
            "info": {"subdir": subdir, "version": _FORM},
            **_sections(
                {name: {"run_exports": item.run_exports} for name, item in packages.items()}
            ),
        }
    )
    every = whole
    if removed:
        every = repodata(subdir, {name: item.record for name, item in packages.items()}, ())
    return {
        **_shards(subdir, packages),
        "run_exports.json": exports,
        "run_exports.json.zst": _packed(exports),
        "repodata_from_packages.json": every,
        "patch_instructions.json": _text(
            {
                "packages": {},
                "packages.conda": {},
                "patch_instructions_version": _FORM,
                "remove": removed,
                "revoke": [],
            }
        ),
        "current_repodata.json": current,
        "current_repodata.json.zst": _packed(current),
        "repodata.json": whole,
        "repodata.json.zst": _packed(whole),
    }


def repodata(
    subdir: str, records: Mapping[str, Mapping[str, Any]], removed: Iterable[str] = ()
) -> bytes:
    """``repodata.json`` of these records, by file name."""
    return _text(
        {
            "info": {"subdir": subdir},
            **_sections(records),
            "removed": sorted(removed),
            "repodata_version": _FORM,
        }
    )


def _text(document: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=1) + b"\n"


def _packed(data: bytes) -> bytes:
    return zstd.compress(data, _THOROUGH if len(data) < _LARGE else _QUICK)


def _sections(items: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        key: {name: item for name, item in items.items() if name.endswith(ending)}
        for key, ending in SECTIONS.items()
    }


# ---------------------------------------------------------------- shards


def _shards(subdir: str, packages: Mapping[str, Listed]) -> dict[str, bytes]:
    """Of each name a shard, and the index of them all."""
    named: dict[str, dict[str, Listed]] = {}
    for file, item in packages.items():
        named.setdefault(item.record["name"], {})[file] = item
    made, digests = {}, {}
    for name, files in sorted(named.items()):
        shard = _packed(
            msgspec.msgpack.encode(
                {
                    **_sections(
                        {file: _in_shard(item) for file, item in files.items() if not item.yanked}
                    ),
                    "removed": sorted(file for file, item in files.items() if item.yanked),
                },
                order="sorted",
            )
        )
        digest = hashlib.sha256(shard)
        made[f"{SHARDS}/{digest.hexdigest()}.msgpack.zst"] = shard
        digests[name] = digest.digest()
    made["repodata_shards.msgpack.zst"] = _packed(
        msgspec.msgpack.encode(
            {
                "info": {"base_url": "./", "shards_base_url": f"./{SHARDS}/", "subdir": subdir},
                "shards": digests,
                "version": _FORM,
            },
            order="sorted",
        )
    )
    return made


def _in_shard(item: Listed) -> dict[str, Any]:
    """A record as shards have it: digests are bytes, and its run exports are with it."""
    digests = {key: bytes.fromhex(item.record[key]) for key in _DIGESTS if key in item.record}
    return {**item.record, **digests, "run_exports": item.run_exports}


# ---------------------------------------------------------------- the newest


def _current(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The files of the newest release and the newest version of each name, and what they need.

    Of builds that differ in their number alone, the last.
    """
    named: dict[str, dict[str, Mapping[str, Any]]] = {}
    for file, record in records.items():
        named.setdefault(record["name"], {})[file] = record
    kept: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, files in named.items():
        kept[name] = {}
        for version in _newest({str(record["version"]) for record in files.values()}):
            kept[name].update(_last_builds(files, version))
    waiting = [record for files in kept.values() for record in files.values()]
    while waiting:
        for spec in waiting.pop()["depends"]:
            found = _NAME.match(spec)
            if not found or found[0] not in named:
                continue
            if not any(True for _ in _matching(spec, kept[found[0]])):
                best = _best(list(_matching(spec, named[found[0]])), named[found[0]])
                if best is not None:
                    kept[found[0]][best] = named[found[0]][best]
                    waiting.append(named[found[0]][best])
    return [file for files in kept.values() for file in files]


def _newest(versions: Iterable[str]) -> set[str]:
    ordered = sorted(versions, key=_version)
    releases = [version for version in ordered if not _version(version).is_dev]
    return {*ordered[-1:], *releases[-1:]}


def _last_builds(
    files: Mapping[str, Mapping[str, Any]], version: str
) -> dict[str, Mapping[str, Any]]:
    last: dict[str, str] = {}
    for file, record in files.items():
        if str(record["version"]) != version:
            continue
        build = re.sub(r"_\d+$", "", record["build"])
        other = last.get(build)
        if other is None or (record["build_number"], file) > (files[other]["build_number"], other):
            last[build] = file
    return {file: files[file] for file in last.values()}


def _matching(spec: str, files: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    try:
        wanted = MatchSpec.parse(spec, "depends")
    except ArtifactError:  # what is in a package is anybody's: a solver says so, not its channel
        return
    for file, record in files.items():
        if wanted.matches(str(record["version"]), record["build"]):
            yield file


def _best(files: Iterable[str], records: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The newest of some files."""
    return max(
        files,
        key=lambda file: (
            _version(str(records[file]["version"])),
            records[file]["build_number"],
            file,
        ),
        default=None,
    )


@functools.lru_cache(maxsize=1 << 14)
def _version(version: str) -> Any:
    return foreign.conda_version(version)
