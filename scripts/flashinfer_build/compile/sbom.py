"""The software bill of materials of a compiled library: CycloneDX 1.6, as JSON.

Written by hand and not by a library: it is written where the recipes build, on Python 3.8 with
``packaging`` alone, and the bytes may not depend on which release of a library is there. The tests
hold it against CycloneDX's own schema (docs/sbom.md).

What is the same is written the same: no time, no random number, no path of a machine; sorted.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .origins import Origin, digest_of
from .used_files import UsedFiles

__all__ = ["USES", "Bill", "Part", "bill", "licence_texts"]

# How something of a package is in the library, and the words of docs/sbom.md for it.
USES = ("headers", "linked-in", "compiler", "run-time")
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/flashinfer-ai/flashinfer#sbom")
_PROPERTY = "flashinfer:"
# An ELF note of GNU's with 20 bytes, as -Wl,--build-id=sha1 has the linker write it.
_BUILD_ID = re.compile(rb"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0(.{20})", re.DOTALL)
_COMPILER = re.compile(rb"GCC: \([^\0()]{1,80}\) [^\0]{1,80}(?=\0)")
# An SPDX expression by its form. Identifiers have a hyphen or a version; the few others are listed.
_SPDX_ID = (
    r"(?:LicenseRef-[\w.-]+|[A-Za-z][A-Za-z0-9.]*(?:-[A-Za-z0-9.]+)+\+?|MIT|ISC|Zlib|Unlicense)"
)
_SPDX_TERM = rf"\(*{_SPDX_ID}(?: WITH {_SPDX_ID})?\)*"
_SPDX = re.compile(rf"{_SPDX_TERM}(?: (?:AND|OR) {_SPDX_TERM})*", re.ASCII)


@dataclass
class Part:
    """What of one package is in a library.

    Attributes:
        origin: the package.
        uses: how, by :data:`USES`.
        files: that were read of it, headers, archives and objects; of compilers none.
        linked: those of `files` that the linker read.
    """

    origin: Origin
    uses: set[str] = field(default_factory=set)
    files: set[Path] = field(default_factory=set)
    linked: set[Path] = field(default_factory=set)

    @property
    def left_bytes(self) -> bool:
        """Whether something of it is in the library; else it is only needed to run."""
        return self.uses != {"run-time"}

    @property
    def has_code_in_it(self) -> bool:
        """Whether the package's own text or code is in the library: a compiler's output is not."""
        return not self.uses <= {"compiler", "run-time"}

    def texts(self) -> dict[str, bytes]:
        """The licence files of what is in the library.

        Those in a folder are of what the package bundles, and count where a file was read of a
        folder with that name: torch's package has the licences of all that is in its libraries.
        """
        if not self.has_code_in_it:
            return {}
        folders = {part.lower() for path in self.files for part in path.parts}
        return {
            name: text
            for name, text in sorted(self.origin.texts.items())
            if not _bundled(name) or _bundled(name) & folders
        }


def _bundled(name: str) -> set[str]:
    """The projects whose licence it is, by the folders that torch's wheel has for them."""
    parts = [part.lower() for part in name.split("/")[:-1]]
    return {after for part, after in zip(parts, parts[1:]) if part == "third_party"}


@dataclass(frozen=True)
class Bill:
    """A bill of materials, and what has to go with it.

    Attributes:
        document: the JSON.
        licences: the licence texts of others, by a file's name.
    """

    document: bytes
    licences: Mapping[str, bytes]


def bill(
    name: str,
    version: str,
    library: Path,
    used: UsedFiles,
    origins: Mapping[Path, Origin],
    *,
    root: Path,
    more_sources: Sequence[Path] = (),
    commit: str = "",
) -> Bill:
    """The bill of one compiled library.

    Args:
        name: of what it is a part of, ``libflashinfer`` or ``flashinfer``.
        version: as it is compiled in, a nightly's with its commit.
        library: the file.
        used: what was read to make it.
        origins: of every file in `used`, the sources left out.
        root: the project's folder.
        more_sources: files of the project that are in the package as they are.
        commit: of the project, where it is known.
    """
    parts = _parts(used, origins)
    sources = [*used.sources, *more_sources]
    own = _own_source(version, sources, root, commit)
    components = [own, _file(library), *map(_component, parts)]
    licence = {"license": {"id": "Apache-2.0"}}
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "component": {
                "type": "library",
                "bom-ref": name,
                "name": name,
                "version": version,
                "licenses": [licence],
            },
        },
        "components": sorted(components, key=lambda item: str(item["bom-ref"])),
        "dependencies": [
            {
                "ref": name,
                "dependsOn": sorted(
                    [library.name, *(p.origin.key for p in parts if not p.left_bytes)]
                ),
            },
            {
                "ref": library.name,
                "dependsOn": sorted(
                    [str(own["bom-ref"]), *(p.origin.key for p in parts if p.left_bytes)]
                ),
            },
        ],
    }
    content = json.dumps(document, sort_keys=True).encode()
    serial = uuid.uuid5(_NAMESPACE, hashlib.sha256(content).hexdigest())
    document["serialNumber"] = f"urn:uuid:{serial}"
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    return Bill(text.encode(), licence_texts(parts))


def _parts(used: UsedFiles, origins: Mapping[Path, Origin]) -> list[Part]:
    found: dict[str, Part] = {}
    groups = (used.headers, used.linked, used.programs, used.shared)
    for use, paths in zip(("headers", "linked-in", "compiler", "run-time"), groups):
        for path in paths:
            origin = origins[path]
            part = found.setdefault(origin.key, Part(origin))
            part.uses.add(use)
            if use in ("headers", "linked-in"):
                part.files.add(path)
            if use == "linked-in":
                part.linked.add(path)
    return [found[key] for key in sorted(found)]


def _component(part: Part) -> dict[str, Any]:
    origin = part.origin
    component: dict[str, Any] = {
        "type": "application" if part.uses == {"compiler"} else "library",
        "bom-ref": origin.key,
        "name": origin.name,
        "scope": "required",
    }
    if origin.version:
        component["version"] = origin.version
    if origin.purl:
        component["purl"] = origin.purl
    if origin.sha256:
        component["hashes"] = [_hash(origin.sha256)]
    if origin.licence:
        component["licenses"] = [_licence(origin.licence)]
    properties = [("use", use) for use in sorted(part.uses)]
    if origin.archive:
        properties.append(("archive", origin.archive))
    if part.files:
        properties.append(("files", str(len(part.files))))
        properties.append(("files-sha256", _digest_of_all(part.files)))
    properties += [("compiled-by", text) for text in _compilers_of(part.linked)]
    texts = sorted({hashlib.sha256(text).hexdigest() for text in part.texts().values()})
    properties += [("licence-text", digest) for digest in texts]
    if texts and not origin.licence:
        component["licenses"] = [_licence(f"the text with the sha256 {texts[0]}")]
    component["properties"] = _properties(properties)
    return component


def _compilers_of(files: Iterable[Path]) -> list[str]:
    """The compilers that left their names in `files`, as they are found in ``.comment`` then."""
    found = {text for path in files for text in _COMPILER.findall(path.read_bytes())}
    return sorted(text.decode("utf-8", "backslashreplace") for text in found)


def _digest_of_all(files: Iterable[Path]) -> str:
    """Of the content of `files`, wherever they lie."""
    digests = sorted(digest_of(path) for path in files)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _own_source(version: str, files: Iterable[Path], root: Path, commit: str) -> dict[str, Any]:
    """This project's own source tree, as far as it was read."""
    lines = sorted(
        f"{path.resolve().relative_to(root.resolve()).as_posix()} {digest_of(path)}"
        for path in files
    )
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    properties = [("use", "source"), ("files", str(len(lines))), ("files-sha256", digest)]
    if commit:
        properties.append(("commit", commit))
    return {
        "type": "library",
        "bom-ref": "source",
        "name": "flashinfer-source",
        "version": version,
        "purl": f"pkg:github/flashinfer-ai/flashinfer@{commit or 'v' + version}",
        "scope": "required",
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "properties": _properties(properties),
    }


def _file(library: Path) -> dict[str, Any]:
    found = _BUILD_ID.search(library.read_bytes())
    return {
        "type": "file",
        "bom-ref": library.name,
        "name": library.name,
        "scope": "required",
        "hashes": [_hash(digest_of(library))],
        "properties": _properties([("build-id", found[1].hex())] if found else []),
    }


def _hash(sha256: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": sha256}


def _properties(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": _PROPERTY + name, "value": value} for name, value in pairs]


def _licence(said: str) -> dict[str, Any]:
    """What a packager says: an SPDX expression, or other words.

    >>> _licence("BSD-3-Clause AND MIT"), _licence("NVIDIA Proprietary Software")
    ({'expression': 'BSD-3-Clause AND MIT'}, {'license': {'name': 'NVIDIA Proprietary Software'}})
    """
    if _SPDX.fullmatch(said) and said.count("(") == said.count(")"):
        return {"expression": said}
    return {"license": {"name": said}}


def licence_texts(parts: Iterable[Part]) -> dict[str, bytes]:
    """The licence texts of others' code that is in a library, each once, by a file's name."""
    found: dict[str, bytes] = {}
    for part in parts:
        for name, text in part.texts().items():
            if text not in found.values():
                found[f"{part.origin.name}.{name.replace('/', '.')}"] = text
    return found
