"""Which package brought a file that a build read, by conda's, pip's and Debian's own records.

Nothing is known beforehand of any compiler: a file is looked up where whoever installed it wrote it
down. An ``origins.json`` comes first, in a conda package's ``info/`` or in a folder as
``.origins.json``: there the toolchain of ``scripts/build.py`` says which wheels and Debian packages
it made its own packages of.
"""

from __future__ import annotations

import email.parser
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from .measure import CAPTURED

__all__ = [
    "RECORD",
    "Origin",
    "Origins",
    "deb_url",
    "digest_of",
    "machine_readable",
    "pypi_url",
    "with_common",
]

RECORD = "origins.json"
_CHUNK = 1 << 20
_AT_ONCE = 500  # paths of one call of dpkg-query
_DPKG_FACTS = "${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"
_DOC = Path("/usr/share/doc")
_COMMON_LICENCES = Path("/usr/share/common-licenses")
_COMMON = re.compile(r"/usr/share/common-licenses/([\w.-]+)")
_LICENCE_FILE = re.compile(r"(licen[cs]e|copying|copyright|notice|eula|authors)", re.IGNORECASE)


@dataclass(frozen=True)
class Origin:
    """A package, or a wheel, that a file came with.

    Attributes:
        name: as its packager has it.
        version: in full.
        purl: the package URL; empty where nobody knows the package.
        sha256: of its archive; empty where the record has none.
        archive: the archive's file name; empty where the record has none.
        licence: what the packager says, an SPDX expression or other words; empty for nothing.
        texts: its licence files, by name.
    """

    name: str
    version: str = ""
    purl: str = ""
    sha256: str = ""
    archive: str = ""
    licence: str = ""
    texts: Mapping[str, bytes] = field(default_factory=dict, compare=False, hash=False)

    @property
    def key(self) -> str:
        """What tells it from others."""
        return self.purl or self.name


def pypi_url(name: str, version: str) -> str:
    """The package URL of a distribution.

    >>> pypi_url("nvidia-cuda-runtime", "13.0.96"), pypi_url("torch", "2.13.0+cpu")
    ('pkg:pypi/nvidia-cuda-runtime@13.0.96', 'pkg:pypi/torch@2.13.0%2Bcpu')
    """
    normal = re.sub(r"[-_.]+", "-", name).lower()
    return f"pkg:pypi/{_part(normal)}@{_part(version)}"


def deb_url(name: str, version: str, arch: str, distribution: str = "debian") -> str:
    """The package URL of a Debian package.

    >>> deb_url("libstdc++-12-dev", "12.2.0-14+deb12u1", "amd64")
    'pkg:deb/debian/libstdc%2B%2B-12-dev@12.2.0-14%2Bdeb12u1?arch=amd64'
    """
    return f"pkg:deb/{_part(distribution)}/{_part(name)}@{_part(version)}?arch={_part(arch)}"


def _part(text: str) -> str:
    return quote(text, safe=":~.-_")


class Origins:
    """Looks files up, each record read once.

    Args:
        environ: ``PREFIX`` and ``BUILD_PREFIX`` are conda environments; so is any folder above a
            file that has a ``conda-meta``.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._prefixes: dict[Path, _Prefix | None] = {}
        for name in ("BUILD_PREFIX", "PREFIX"):
            if environ.get(name):
                self._prefix(Path(environ[name]).resolve())
        self._folders: dict[Path, _Files | None] = {}
        self._sites: dict[Path, dict[str, Path]] = {}
        self._debian: dict[str, Origin] = {}

    def of(self, files: Iterable[Path]) -> dict[Path, Origin]:
        """The origin of each of `files`.

        Args:
            files: absolute paths; links below a prefix are the prefix's own, others are followed.

        Returns:
            By path. A file that no record has is of an `Origin` with neither version nor URL.
        """
        found: dict[Path, Origin] = {}
        left: list[Path] = []
        for path in files:
            origin = self._recorded(path)
            if origin is None:
                left.append(path)
            else:
                found[path] = origin
        found.update(self._of_dpkg(left))
        return {path: found.get(path, Origin("unknown")) for path in [*found, *left]}

    def _recorded(self, path: Path) -> Origin | None:
        plain = Path(os.path.normpath(_with_real_folder(path)))
        real = path.resolve()
        for candidate in dict.fromkeys((plain, real)):
            for folder in candidate.parents:
                files = self._folder(folder)
                origin = files.of(candidate.relative_to(folder).as_posix()) if files else None
                prefix = self._prefix(folder)
                if origin is None and prefix:
                    origin = prefix.of(candidate.relative_to(folder).as_posix())
                if origin is not None:
                    return origin
        for candidate in dict.fromkeys((plain, real)):
            origin = self._of_wheel(candidate)
            if origin is not None:
                return origin
        return None

    def _folder(self, folder: Path) -> _Files | None:
        if folder not in self._folders:
            record = folder / f".{RECORD}"
            self._folders[folder] = _Files.read(record, folder) if record.is_file() else None
        return self._folders[folder]

    def _prefix(self, folder: Path) -> _Prefix | None:
        if folder not in self._prefixes:
            records = folder / "conda-meta"
            self._prefixes[folder] = _Prefix(records) if records.is_dir() else None
        return self._prefixes[folder]

    # ------------------------------------------------------------ wheels

    def _of_wheel(self, path: Path) -> Origin | None:
        for site in path.parents:
            if site.name not in ("site-packages", "dist-packages"):
                continue
            if site not in self._sites:
                self._sites[site] = _installed(site)
            info = self._sites[site].get(path.relative_to(site).as_posix())
            if info is not None:
                return _wheel(info)
        return None

    # ------------------------------------------------------------ Debian

    def _of_dpkg(self, paths: list[Path]) -> dict[Path, Origin]:
        names: dict[str, list[Path]] = {}
        for path in paths:
            real = str(path.resolve())
            # Debian's own lists may say /lib for what is in /usr/lib.
            for name in (real, real[4:] if real.startswith("/usr/") else real):
                names.setdefault(name, []).append(path)
        owners: dict[Path, str] = {}
        asked = sorted(names)
        for start in range(0, len(asked), _AT_ONCE):
            for line in _dpkg(["-S", *asked[start : start + _AT_ONCE]]).splitlines():
                who, colon, name = line.rpartition(": ")
                if colon and not who.startswith("diversion by "):
                    for path in names.get(name, ()):
                        owners.setdefault(path, who.split(",")[0])
        missing = sorted({who for who in owners.values() if who not in self._debian})
        for who in missing:
            self._debian[who] = _debian(who)
        return {path: self._debian[who] for path, who in owners.items()}


def _with_real_folder(path: Path) -> Path:
    """`path` with its folders resolved as far as a conda prefix goes: links in it are its files."""
    for folder in reversed(path.parents):
        if (folder / "conda-meta").is_dir():
            return folder.resolve() / path.relative_to(folder)
    return path


@dataclass(frozen=True)
class _Files:
    """Files whose origins a record names.

    Attributes:
        named: origin by path.
        rest: of every other file below; None where the record lists all.
    """

    named: Mapping[str, Origin]
    rest: Origin | None

    @classmethod
    def read(cls, record: Path, texts: Path) -> _Files:
        """The record `record`; licence files are below `texts`."""
        named: dict[str, Origin] = {}
        rest = None
        for item in _json(record).get("origins", []):
            origin = Origin(
                name=item["name"],
                version=item["version"],
                purl=item["purl"],
                sha256=item["sha256"],
                archive=item["archive"],
                licence=item["licence"],
                texts={name: (texts / path).read_bytes() for name, path in item["texts"].items()},
            )
            if item.get("files") is None:
                rest = origin
            else:
                named.update(dict.fromkeys(item["files"], origin))
        return cls(named, rest)

    def of(self, path: str) -> Origin | None:
        return self.named.get(path, self.rest)


class _Prefix:
    """A conda environment, by its ``conda-meta``."""

    def __init__(self, records: Path) -> None:
        self._owners: dict[str, Path] = {}
        self._made: dict[Path, _Files] = {}
        for record in sorted(records.glob("*.json")):
            for path in _json(record).get("files", []):
                self._owners.setdefault(str(path), record)

    def of(self, path: str) -> Origin | None:
        """The origin of a file, by its path in the prefix; below a link to a folder, the link's."""
        parts = path.split("/")
        for count in range(len(parts), 0, -1):
            record = self._owners.get("/".join(parts[:count]))
            if record is not None:
                if record not in self._made:
                    self._made[record] = _conda(record)
                return self._made[record].of(path)
        return None


def _conda(record: Path) -> _Files:
    """The origins of a conda package's files."""
    facts = _json(record)
    unpacked = Path(
        facts.get("extracted_package_dir") or (facts.get("link") or {}).get("source", "")
    )
    own = unpacked / "info" / RECORD
    if unpacked.name and own.is_file():
        return _Files.read(own, unpacked / "info" / "licenses")
    url = urlsplit(str(facts.get("url") or ""))
    published = url.scheme in ("http", "https")
    name, version, subdir = (str(facts.get(key) or "") for key in ("name", "version", "subdir"))
    qualifiers = {"build": str(facts.get("build") or ""), "subdir": subdir}
    if published:
        # The folder above the subdir, without a token that may stand in the address.
        folders = re.sub(r"^/t/[^/]+/", "/", url.path).strip("/").split("/")[:-2]
        qualifiers["channel"] = "/".join(folders)
        qualifiers["type"] = "conda" if url.path.endswith(".conda") else "tar.bz2"
    said = "&".join(f"{key}={quote(qualifiers[key], safe=':~.-_')}" for key in sorted(qualifiers))
    licences = unpacked / "info" / "licenses"
    return _Files(
        {},
        Origin(
            name=name,
            version=version,
            purl=f"pkg:conda/{_part(name)}@{_part(version)}?{said}",
            # A package of a folder was made on this machine: its digest says nothing elsewhere.
            sha256=str(facts.get("sha256") or "") if published else "",
            archive=str(facts.get("fn") or "") if published else "",
            licence=str(facts.get("license") or ""),
            texts=_texts(licences, licences.rglob("*")) if unpacked.name else {},
        ),
    )


def _installed(site: Path) -> dict[str, Path]:
    """The ``.dist-info`` of every file of a site-packages folder, by the file's path."""
    found: dict[str, Path] = {}
    for record in sorted(site.glob("*.dist-info/RECORD")):
        for line in record.read_text(encoding="utf-8", errors="replace").splitlines():
            found.setdefault(line.rsplit(",", 2)[0].strip('"'), record.parent)
    return found


def _wheel(info: Path) -> Origin:
    """An installed distribution; what its archive was, pip does not write down."""
    text = (info / "METADATA").read_text(encoding="utf-8", errors="replace")
    said = email.parser.HeaderParser().parsestr(text)
    name, version = str(said.get("Name") or ""), str(said.get("Version") or "")
    licence = said.get("License-Expression") or said.get("License") or ""
    files = [path for path in info.rglob("*") if _LICENCE_FILE.search(path.name)]
    folder = info / "licenses" if (info / "licenses").is_dir() else info
    return Origin(
        name=name,
        version=version,
        purl=pypi_url(name, version),
        licence=" ".join(str(licence).split())[:200],
        texts=_texts(folder, [path for path in files if folder in path.parents]),
    )


def _texts(folder: Path, paths: Iterable[Path]) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(paths)
        if path.is_file()
    }


def _debian(who: str) -> Origin:
    """An installed package of Debian, or of a system made of it."""
    listed = _dpkg(["-W", "-f", _DPKG_FACTS, who]).splitlines()
    name, version, arch = who.split(":", maxsplit=1)[0], "", ""
    for line in listed:
        fields = line.split("\t")
        if len(fields) == 4 and fields[3] == "installed":
            name, version, arch = fields[:3]
            break
    text = _DOC / name / "copyright"
    texts = with_common({"copyright": text.read_bytes()} if text.is_file() else {})
    return Origin(
        name=name,
        version=version,
        purl=deb_url(name, version, arch, _distribution()),
        licence=machine_readable(texts.get("copyright", b"")),
        texts=texts,
    )


def with_common(texts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Debian's copyright files, with the licences that they only refer to; not those of manuals."""
    found = dict(texts)
    for text in texts.values():
        for name in sorted(set(_COMMON.findall(text.decode("utf-8", "replace")))):
            path = (_COMMON_LICENCES / name.rstrip(".")).resolve()
            if path.is_file() and not path.name.startswith("GFDL"):
                found[path.name] = path.read_bytes()
    return found


def machine_readable(copyright_file: bytes) -> str:
    """The licences that a ``debian/copyright`` in the machine-readable form names, each once.

    Returns:
        ``BSD-3-clause, MIT``; empty for a text in no form.
    """
    text = copyright_file.decode("utf-8", "replace")
    if not re.match(r"Format(-Specification)?:", text, re.IGNORECASE):
        return ""
    found = re.findall(r"^License:[ \t]*(\S.*?)[ \t]*$", text, re.MULTILINE | re.IGNORECASE)
    return ", ".join(sorted(set(found)))[:200]


def _distribution() -> str:
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "debian"
    found = [line[3:].strip("\"'") for line in lines if line.startswith("ID=")]
    return found[0] if found else "debian"


def _dpkg(arguments: list[str]) -> str:
    """What dpkg-query says; nothing where there is none."""
    try:
        # Exit status 1 says only that one of the files is of no package.
        done = subprocess.run(
            ["dpkg-query", *arguments], env={**os.environ, "LC_ALL": "C"}, **CAPTURED
        )
    except OSError:
        return ""
    return str(done.stdout)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def digest_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(_CHUNK), b""):
            found.update(piece)
    return found.hexdigest()
