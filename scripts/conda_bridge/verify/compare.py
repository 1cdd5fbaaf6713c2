"""Are two conda packages the same by content? For packages of different builders, in either form.

Compared are the file name, ``info/index.json`` but for the time, what ``info/about.json`` says for
people, licences, the members of ``info/`` that an installer acts on, the list of files, and each
file's bytes. What a builder keeps of itself (its version, the recipe, its form of the tests) is
listed apart, and does not count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArtifactError
from ..formats import conda_package, json_reader, limits
from ..formats.conda_package import CondaPackage
from ..formats.member_names import check_path
from ..label import CONDA_ENDINGS, split_conda_file

__all__ = ["Comparison", "Difference", "compare", "compare_all"]

_DESCRIBES = frozenset(
    {"description", "dev_url", "doc_url", "home", "license", "license_family", "summary"}
)
_ACTED_ON = frozenset(
    f"info/{name}"
    for name in ("has_prefix", "link.json", "no_link", "no_softlink", "run_exports.json")
)
# Read by `conda_package` and compared entry by entry, or compared with the payload there.
_COMPARED_APART = frozenset({"info/about.json", "info/files", "info/index.json", "info/paths.json"})
_UNORDERED = ("depends", "constrains")
_ABSENT = "-"


@dataclass(frozen=True)
class Difference:
    """One thing that two packages do not have in common.

    Attributes:
        part: ``name``, ``index``, ``about``, ``info`` or ``payload``.
        item: the key or the file.
        left, right: what either package has there; ``-`` for nothing.
    """

    part: str
    item: str
    left: str
    right: str

    def __str__(self) -> str:
        return f"{self.part}: {self.item}: {self.left} | {self.right}"

    def as_dict(self) -> dict[str, str]:
        """The same facts for ``--json``."""
        return {"part": self.part, "item": self.item, "left": self.left, "right": self.right}


@dataclass(frozen=True)
class Comparison:
    """What two packages have in common, and what not.

    Attributes:
        name: the left file's name, or the right one's where there is no left one.
        files: how many files have the same path and bytes in both.
        differences: all that counts.
        of_the_builder: members and keys that tell of the builder; they differ or are only in one.
    """

    name: str
    files: int
    differences: tuple[Difference, ...]
    of_the_builder: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the two are the same package."""
        return not self.differences

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "name": self.name,
            "same": self.same,
            "files": self.files,
            "differences": [difference.as_dict() for difference in self.differences],
            "of_the_builder": list(self.of_the_builder),
        }


def compare_all(left: Path, right: Path) -> list[Comparison]:
    """Compares two packages, or the packages of two folders by their names.

    Args:
        left: a package, or a folder that holds some.
        right: of the same kind. In folders a ``.conda`` is compared with a ``.tar.bz2`` where one
            side has no other form of that package.

    Raises:
        ArtifactError: not two files or two folders, nothing there, a folder without a package, or a
            package that is damaged.
    """
    for path in (left, right):
        check_path(path)
        if not path.exists():
            raise ArtifactError(
                "there is no such file or folder",
                where=str(path),
                expected=f"a conda package ({' or '.join(CONDA_ENDINGS)}), or a folder of them",
            )
    if left.is_dir() != right.is_dir():
        raise ArtifactError(
            "a folder and a file", where=f"{left} {right}", expected="two packages or two folders"
        )
    if not left.is_dir():
        return [compare(left, right)]
    ours, theirs = _packages(left), _packages(right)
    found = []
    for stem in sorted({*ours, *theirs}):
        one, other = ours.get(stem, {}), theirs.get(stem, {})
        if one and other:
            found += [compare(*pair) for pair in _pairs(one, other)]
        else:
            found += [
                Comparison(path.name, 0, (_presence("name", path.name, bool(one)),), ())
                for path in (one or other).values()
            ]
    return found


def _pairs(ours: Mapping[str, Path], theirs: Mapping[str, Path]) -> list[tuple[Path, Path]]:
    """The files of one package by their endings: like with like, what has no like with another."""
    pairs = [
        (ours.get(ending) or min(ours.values()), theirs.get(ending) or min(theirs.values()))
        for ending in sorted({*ours, *theirs})
    ]
    return list(dict.fromkeys(pairs))


def compare(left: Path, right: Path) -> Comparison:
    """Compares two packages.

    Raises:
        ArtifactError: one of them is damaged or not there.
    """
    one, other = conda_package.read(left), conda_package.read(right)
    ours, theirs = _payload(one), _payload(other)
    differences = []
    (name, ending), (other_name, other_ending) = map(split_conda_file, (left.name, right.name))
    if name != other_name:
        differences.append(Difference("name", "file name", left.name, right.name))
    differences += _differing("index", _index(one), _index(other))
    differences += _differing("about", _about(one, kept=True), _about(other, kept=True))
    differences += _differing("info", _info(one, kept=True), _info(other, kept=True))
    differences += _differing("payload", ours, theirs)
    apart = [
        *_differing("about.json", _about(one, kept=False), _about(other, kept=False)),
        *_differing("info", _info(one, kept=False), _info(other, kept=False)),
    ]
    forms = [f"form: {ending} | {other_ending}"] if ending != other_ending else []
    return Comparison(
        left.name,
        sum(theirs.get(path) == facts for path, facts in ours.items()),
        tuple(differences),
        (*forms, *(f"{d.part}: {d.item}" if d.part == "about.json" else d.item for d in apart)),
    )


def _packages(folder: Path) -> dict[str, dict[str, Path]]:
    """The packages of a folder, by the two parts of their names."""
    found: dict[str, dict[str, Path]] = {}
    for path in conda_package.in_folder(folder):
        stem, ending = split_conda_file(path.name)
        found.setdefault(stem, {})[ending] = path
    if not found:
        raise ArtifactError(
            f"no {' and no '.join(CONDA_ENDINGS)} in this folder", where=str(folder)
        )
    return found


def _presence(part: str, item: str, on_the_left: bool) -> Difference:
    there, absent = "is there", _ABSENT
    return Difference(part, item, *((there, absent) if on_the_left else (absent, there)))


def _differing(
    part: str, left: Mapping[str, str], right: Mapping[str, str]
) -> Iterator[Difference]:
    for item in sorted({*left, *right}):
        if left.get(item) != right.get(item):
            yield Difference(part, item, left.get(item, _ABSENT), right.get(item, _ABSENT))


def _index(package: CondaPackage) -> dict[str, str]:
    """Every key but the time; the order of requirements means nothing."""
    return {
        key: _text(
            sorted(value, key=str) if key in _UNORDERED and isinstance(value, list) else value
        )
        for key, value in package.index.items()
        if key != "timestamp"
    }


def _about(package: CondaPackage, *, kept: bool) -> dict[str, str]:
    return {
        key: _text(value) for key, value in package.about.items() if (key in _DESCRIBES) is kept
    }


def _info(package: CondaPackage, *, kept: bool) -> dict[str, str]:
    """The members of ``info/`` that count (`kept`), or the others."""
    members = {}
    for name, content in package.info.items():
        counts = name in _ACTED_ON or name.startswith("info/licenses/")
        if counts is kept and name not in _COMPARED_APART:
            members[name] = _canonical(name, content)
    return members


def _canonical(name: str, content: bytes) -> str:
    """What to compare: JSON without its blanks, of other and of large files the digest."""
    if name.endswith(".json") and len(content) <= limits.TEXT_SIZE:
        try:
            return _text(json_reader.parse(content, name))
        except ArtifactError:
            pass
    return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}"


def _payload(package: CondaPackage) -> dict[str, str]:
    """What an installer puts at each path."""
    facts = {}
    for member in package.payload():
        if member.link_target is not None:
            facts[member.path] = f"link to {member.link_target}"
            continue
        kind = "program" if member.executable else "file"
        prefix = ", prefix replaced" if package.paths[member.path].prefix_placeholder else ""
        facts[member.path] = (
            f"{kind} of {member.size} bytes, sha256 {member.digest().hex()}{prefix}"
        )
    return facts


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
