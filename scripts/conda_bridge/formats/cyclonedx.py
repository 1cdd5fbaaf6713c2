"""Software bills of materials in CycloneDX's JSON form, whoever wrote them, read as if hostile."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ArtifactError
from .json_reader import parse_object

__all__ = ["Bill", "Component", "is_cyclonedx", "read"]

_VERSION = re.compile(r"1\.\d{1,2}", re.ASCII)
_OLDEST = (1, 6)


@dataclass(frozen=True)
class Component:
    """One entry of ``components``.

    Attributes:
        ref: its ``bom-ref``.
        type: such as ``library`` or ``file``.
        name, version, purl: as stated; empty where they are not.
        sha256: of ``hashes``; empty for none.
        licences: expressions, SPDX identifiers and names.
        properties: the values of each name.
    """

    ref: str
    type: str
    name: str
    version: str
    purl: str
    sha256: str
    licences: tuple[str, ...]
    properties: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Bill:
    """A bill of materials.

    Attributes:
        name, version: of what it is about; empty where it does not say.
        components: what is in it, those in one another left out.
    """

    name: str
    version: str
    components: tuple[Component, ...]


def is_cyclonedx(path: str) -> bool:
    """Whether a file is called as the specification has it: ``bom.json`` or ``*.cdx.json``."""
    return path.endswith(".cdx.json") or path.rpartition("/")[2] == "bom.json"


@functools.lru_cache(maxsize=4)  # checks of anybody's and of a project's own look at the same
def read(text: bytes, where: str) -> Bill:
    """The bill that `text` is.

    Args:
        text: the whole document.
        where: its file and member, for messages.

    Raises:
        ArtifactError: it is no JSON, not of version 1.6 or newer, has a component without a name, a
            reference twice, or one to what is not there.
    """
    document = parse_object(text, where)
    if document.get("bomFormat") != "CycloneDX":
        raise _wrong(f"bomFormat is {document.get('bomFormat')!r:.80}", where, "'CycloneDX'")
    version = document.get("specVersion")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise _wrong(f"specVersion is {version!r:.80}", where, "such as '1.6'")
    if tuple(map(int, version.split("."))) < _OLDEST:
        raise _wrong(f"specVersion is {version}", where, "1.6 or newer")
    components = tuple(
        _component(item, f"{where}: components[{number}]")
        for number, item in enumerate(_list(document, "components", where))
    )
    metadata = document.get("metadata", {})
    about = metadata.get("component", {}) if isinstance(metadata, dict) else {}
    main = _component(about, f"{where}: metadata.component") if about else None
    known: set[str] = set()
    for component in (*components, *([main] if main else ())):
        if component.ref and component.ref in known:
            raise _wrong(f"bom-ref {component.ref!r:.80} is there twice", where, "each once")
        known.add(component.ref)
    for number, item in enumerate(_list(document, "dependencies", where)):
        place = f"{where}: dependencies[{number}]"
        if not isinstance(item, dict):
            raise _wrong(f"is {item!r:.80}", place, "an object")
        for ref in (item.get("ref"), *_list(item, "dependsOn", place)):
            if not isinstance(ref, str) or ref not in known:
                raise _wrong(f"{ref!r:.80} is no component's bom-ref", place, "one that is there")
    return Bill(main.name if main else "", main.version if main else "", components)


def _wrong(what: str, where: str, expected: str) -> ArtifactError:
    return ArtifactError(what, where=where, expected=expected)


def _list(item: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = item.get(key, [])
    if not isinstance(found, list):
        raise _wrong(f"{key} is {found!r:.80}", where, "a list")
    return found


def _text(item: Mapping[str, Any], key: str, where: str) -> str:
    found = item.get(key, "")
    if not isinstance(found, str):
        raise _wrong(f"{key} is {found!r:.80}", where, "a string")
    return found


def _component(item: object, where: str) -> Component:
    if not isinstance(item, dict):
        raise _wrong(f"is {item!r:.80}", where, "an object")
    if not _text(item, "name", where) or not _text(item, "type", where):
        raise _wrong("has no name, or no type", where, "both")
    hashes = [one for one in _list(item, "hashes", where) if isinstance(one, dict)]
    digests = [_text(one, "content", where) for one in hashes if one.get("alg") == "SHA-256"]
    properties: dict[str, list[str]] = {}
    for one in _list(item, "properties", where):
        if not isinstance(one, dict):
            raise _wrong(f"a property is {one!r:.80}", where, "an object")
        properties.setdefault(_text(one, "name", where), []).append(_text(one, "value", where))
    return Component(
        ref=_text(item, "bom-ref", where),
        type=_text(item, "type", where),
        name=_text(item, "name", where),
        version=_text(item, "version", where),
        purl=_text(item, "purl", where),
        sha256=next(iter(digests), ""),
        licences=tuple(
            filter(None, (_licence(one, where) for one in _list(item, "licenses", where)))
        ),
        properties={name: tuple(values) for name, values in properties.items()},
    )


def _licence(item: object, where: str) -> str:
    if not isinstance(item, dict):
        raise _wrong(f"a licence is {item!r:.80}", where, "an object")
    inner = item.get("license", {})
    if not isinstance(inner, dict):
        raise _wrong(f"a licence is {inner!r:.80}", where, "an object")
    stated = (
        _text(item, "expression", where),
        _text(inner, "id", where),
        _text(inner, "name", where),
    )
    return next(filter(None, stated), "")
