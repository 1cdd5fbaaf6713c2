"""What becomes of every file of a package: where it goes in the wheel, and what has to change."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import ArtifactError
from ..formats.conda_package import CondaPackage, PathEntry
from .layout import DROP, Layout, Place, is_library
from .runpath import rewritten
from .survey import Survey

__all__ = ["Part", "Target", "libraries_of", "place_files"]

# Whatever Python a script is to be run with, it is the one of the environment.
_SHEBANG = re.compile(
    rb"#![ \t]*(?:/usr/bin/env[ \t]+(?:-S[ \t]+)?)?\S*?python[wW]?[\d.]*t?\b[^\n]*"
)
# How pip writes it where the path is longer than the system allows.
_LONG_SHEBANG = re.compile(
    rb"#!/bin/sh\n'''exec' \"?[^\n]*?/python[\d.]*t?\"?[^\n]* \"\$0\" \"\$@\"\n' '''(?=\n)"
)
_BESIDE = b"#!/usr/bin/env python3"


@dataclass(frozen=True)
class Target:
    """A file of the wheel.

    Attributes:
        path: in the wheel; empty for one that is only there as a copy.
        executable: its permissions are 0755.
        text: its new content; None where it keeps its own.
        runpath: its new RUNPATH; None where it keeps its own.
        copies: further paths with the same content.
    """

    path: str
    executable: bool = False
    text: bytes | None = None
    runpath: str | None = None
    copies: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether its bytes are other than the conda package's."""
        return self.text is not None or self.runpath is not None


@dataclass
class Part:
    """One of the conda packages that the wheel is made of.

    Attributes:
        package: it.
        layout: the places of its files.
        survey: what was seen in it.
        places: of every file and link.
        targets: what becomes of each file, by its path in the package.
    """

    package: CondaPackage
    layout: Layout
    survey: Survey
    places: dict[str, Place] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)

    def of_kind(self, kind: str) -> list[str]:
        """The paths of one kind, in order."""
        return [path for path, place in self.places.items() if place.kind == kind]


def place_files(parts: Sequence[Part], scripts: Mapping[str, str], notes: list[str]) -> None:
    """Fills the targets of `parts`.

    Args:
        parts: the main package's and those of what is folded in.
        scripts: the programs that entry points make, which are not taken from ``bin``.
        notes: takes what a person may want to know.

    Raises:
        ArtifactError: a file that a wheel cannot hold.
    """
    for part in parts:
        part.places = {path: part.layout.place(path) for path in sorted(part.package.paths)}
        for path, place in part.places.items():
            entry = part.package.paths[path]
            if place.kind == "sbom" and entry.is_link:
                raise ArtifactError(
                    "is a link",
                    where=f"{part.package.path.name}: {path}",
                    expected="a file, which is an SBOM",
                )
            if place.kind in (DROP, "info") or entry.is_link:
                continue
            target = _target(part, path, place, entry, scripts)
            if target is not None:
                part.targets[path] = target
        for path, place in part.places.items():
            if part.package.paths[path].is_link and place.kind not in (DROP, "info"):
                _resolve_link(part, path, place, notes)
    found = libraries_of(parts)
    for part in parts:
        for path, shared in part.survey.objects.items():
            before = part.targets.get(path)
            if before is None or not before.path:
                continue
            runpath = rewritten(before.path, shared, found)
            if runpath is not None:
                part.targets[path] = _with(before, runpath=runpath)
                notes.append(f"{before.path}: RUNPATH is {runpath} now")
    asked = {
        name for part in parts for shared in part.survey.objects.values() for name in shared.needed
    }
    for part in parts:
        for path in part.of_kind("library"):
            target = part.targets.get(path)
            name = posixpath.basename(target.path) if target else ""
            if target and name not in asked and not part.places[path].chosen:
                notes.append(
                    f"{target.path}: nothing in the wheel is linked with it, and code that opens "
                    f"{path} in the prefix will not find it; [tool.conda-bridge.files] can place it"
                )
    notes += [
        f"{target.path}: its first line names the environment's Python"
        for part in parts
        for target in part.targets.values()
        if target.text is not None
    ]


def libraries_of(parts: Sequence[Part]) -> dict[str, str]:
    """Where each shared library is in the wheel, by the name the loader asks for."""
    found: dict[str, str] = {}
    for part in parts:
        for path, target in part.targets.items():
            shared = part.survey.objects.get(path)
            if shared is None or not is_library(path):
                continue
            for wheel_path in (target.path, *target.copies):
                if wheel_path:
                    found.setdefault(posixpath.basename(wheel_path), wheel_path)
            if shared.soname and posixpath.basename(target.path) == shared.soname:
                found[shared.soname] = target.path
    return found


def _with(target: Target, **changes: object) -> Target:
    return Target(**{**target.__dict__, **changes})


def _target(
    part: Part, path: str, place: Place, entry: PathEntry, scripts: Mapping[str, str]
) -> Target | None:
    survey = part.survey
    where = f"{part.package.path.name}: {path}"
    if place.kind == "script":
        return _script(part, path, place, entry, scripts)
    text = None
    if entry.prefix_placeholder:
        text = _without_prefix(entry, survey.texts.get(path), where, _BESIDE)
    # Not what the archive says alone: that is the umask or the copying of whoever packed it.
    executable = is_library(path) or (
        survey.is_program(path) and (survey.is_binary(path) or path in survey.executable)
    )
    return Target(_by_soname(part, path, place.path), executable, text)


def _by_soname(part: Part, path: str, target: str) -> str:
    """The path in the wheel, with the name that the loader asks for where the package has it."""
    shared = part.survey.objects.get(path)
    if shared is None or not shared.soname or not is_library(path):
        return target
    beside = posixpath.join(posixpath.dirname(path), shared.soname)
    if part.survey.links.get(beside) != path:
        return target
    return posixpath.join(posixpath.dirname(target), shared.soname)


def _script(
    part: Part, path: str, place: Place, entry: PathEntry, scripts: Mapping[str, str]
) -> Target | None:
    name = posixpath.basename(path)
    where = f"{part.package.path.name}: {path}"
    content = part.survey.texts.get(path)
    if content is None:  # a binary
        if name in scripts:
            raise ArtifactError(
                "a program that has the name of an entry point",
                where=where,
                expected="a script that starts it, which the installer writes anew",
            )
        if entry.prefix_placeholder:
            _without_prefix(entry, None, where, b"")
        return Target(place.path, executable=True)
    if name in scripts and content.startswith(b"#!"):
        return None  # the installer writes it
    new = _without_shebang(content, b"#!python")
    if entry.prefix_placeholder:
        new = _without_prefix(entry, new, where, b"#!python")
    return Target(place.path, executable=True, text=None if new == content else new)


def _without_shebang(content: bytes, first: bytes) -> bytes:
    found = _LONG_SHEBANG.match(content) or _SHEBANG.match(content)
    return first + content[found.end() :] if found else content


def _without_prefix(entry: PathEntry, content: bytes | None, where: str, first: bytes) -> bytes:
    """A text that holds the build prefix in its first line alone, without it."""
    new = None if entry.binary or content is None else _without_shebang(content, first)
    if new is None or entry.prefix_placeholder.encode() in new:
        raise ArtifactError(
            "holds the build prefix, which conda replaces and pip does not",
            where=where,
            expected="paths that start at the file itself, or none"
            if entry.binary
            else "the prefix in the first line of a Python script, or nowhere",
            fix="build the package without it; or, if the wheel is right without the file, say so "
            f'in [tool.conda-bridge.files]: "{entry.path}" = "drop"',
        )
    return new


def _resolve_link(part: Part, path: str, place: Place, notes: list[str]) -> None:
    """What becomes of a link: a wheel has files only."""
    end = part.survey.links[path]
    target = part.targets.get(end)
    if target is not None and target.path == place.path:
        return  # the file has this name now
    if not place.exact and is_library(path) and is_library(end):
        if target is None:
            return
        if posixpath.basename(path) not in (posixpath.basename(target.path),):
            notes.append(f"{path} is not in the wheel: the loader asks for {target.path}")
        return
    if target is None:
        if part.places[end].kind == DROP or part.places[end].kind == "info":
            raise ArtifactError(
                f"a link to {end}, which is not in the wheel",
                where=f"{part.package.path.name}: {path}",
                fix=f'leave it out as well, in [tool.conda-bridge.files]: "{path}" = "drop"',
            )
        return  # an entry point's script
    if place.path not in target.copies:
        part.targets[end] = _with(target, copies=(*target.copies, place.path))
