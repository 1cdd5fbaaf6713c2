"""Shows what is inside wheels and conda packages, without unpacking or loading anything.

Examples:
    conda-bridge show toy-1.0-py312h1_0.conda
    conda-bridge show wheels/*.whl --files
    conda-bridge show toy-1.0-py3-none-any.whl --json

Exit status: 0 done, 2 a file that cannot be read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArtifactError, LabelError
from ..formats import limits
from ..formats.content import PIECE, Allowance, Room
from ..system.failure import stage
from ..system.terminal import print_json, say
from . import options
from .display import Report, bar

if TYPE_CHECKING:
    from ..formats.wheel_reader import MemberStream
    from ..project import Project

__all__ = ["add_arguments", "contents", "run"]

SCHEMA = 1
_Facts = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("artifacts", nargs="+", type=Path, help="a .whl, .conda or .tar.bz2")
    parser.add_argument("--files", action="store_true", help="list every file")
    options.add_json(parser)
    options.add_project(parser)


def run(args: argparse.Namespace) -> int:
    """Does it; returns the exit status."""
    project = options.project_of(args, hooks=False)
    found = []
    for path in args.artifacts:
        with bar(path, quiet=args.json) as report, stage("reading", path):
            found.append(contents(path, project, report))
        if not args.json:
            for line in _lines(found[-1], files=args.files):
                say(line)
    if args.json:
        print_json({"schema": SCHEMA, "artifacts": found})
    return 0


def contents(path: Path, project: Project, report: Report | None = None) -> _Facts:
    """What is inside a wheel or a conda package, for JSON.

    Args:
        path: the file.
        project: whose label templates are tried on its name.
        report: is told of the bytes that are done.

    Raises:
        ArtifactError: it cannot be read, or is damaged.
    """
    from ..label import CONDA_ENDINGS, split_conda_file

    if path.suffix == ".whl":
        return _of_wheel(path, project, report)
    if split_conda_file(path.name)[1]:
        return _of_package(path, project, report)
    raise ArtifactError(
        "neither a conda package nor a wheel" if path.exists() else "there is no such file",
        where=str(path),
        expected=f"{', '.join(CONDA_ENDINGS)} or .whl",
    )


def _of_wheel(path: Path, project: Project, report: Report | None) -> _Facts:
    from ..formats import wheel_reader
    from ..publish.intake import WheelName

    wheel = wheel_reader.read(path)
    metadata = wheel.metadata
    total = sum(member.size for member in wheel.members)
    listing = _Listing(path.name, total, report)
    for member, stream in wheel.stream():
        listing.add(member.path, member.size, partial(_pieces, stream))
    return {
        **_file(path, "wheel"),
        "name": str(metadata.get("Name", wheel.name)),
        "version": str(metadata.get("Version", wheel.version)),
        "build": wheel.build,
        "tags": list(wheel.wheel.get_all("Tag", [])),
        "label": _label(lambda: WheelName.of(path.name, project).label, project.scheme.local),
        "summary": str(metadata.get("Summary", "")),
        "license": str(metadata.get("License-Expression") or metadata.get("License") or ""),
        "requires_python": str(metadata.get("Requires-Python", "")),
        "requires": [str(item) for item in metadata.get_all("Requires-Dist", [])],
        **listing.as_dict(),
    }


def _of_package(path: Path, project: Project, report: Report | None) -> _Facts:
    from ..formats import conda_package
    from ..publish.intake import package_label

    package = conda_package.read(path)
    listing = _Listing(path.name, package.payload_size, report)
    for member in package.payload():
        if member.link_target is not None:
            listing.links[member.path] = member.link_target
        else:
            listing.add(member.path, member.size, member.chunks)
    index = package.index
    return {
        **_file(path, "conda"),
        "name": package.name,
        "version": package.version,
        "build": package.build,
        "build_number": index.get("build_number"),
        "subdir": index.get("subdir"),
        "noarch": index.get("noarch"),
        "label": _label(lambda: package_label(path.name, project)[1], project.scheme.build),
        "summary": str(package.about.get("summary") or ""),
        "license": str(index.get("license") or package.about.get("license") or ""),
        "depends": list(index.get("depends") or []),
        "constrains": list(index.get("constrains") or []),
        "entry_points": package.entry_points,
        **listing.as_dict(),
        "links": listing.links,
    }


def _file(path: Path, kind: str) -> _Facts:
    from ..formats.wheel_reader import file_sha256

    return {
        "file": path.name,
        "kind": kind,
        "size": path.stat().st_size,
        "sha256": file_sha256(path),
    }


def _label(read: Callable[[], Any], template: object) -> dict[str, str | None] | None:
    """The fields in the name; None where the project has none, or does not spell it so."""
    if template is None:
        return None
    try:
        return dict(read().values)
    except LabelError:
        return None


def _pieces(stream: MemberStream) -> Iterator[bytes]:
    while data := stream.read(PIECE):
        yield data


class _Listing:
    """The files, and what the shared objects among them say."""

    def __init__(self, artifact: str, total: int, report: Report | None) -> None:
        self.artifact = artifact
        self.total = total
        self.done = 0
        self.report = report
        self.files: list[_Facts] = []
        self.libraries: list[_Facts] = []
        self.links: dict[str, str] = {}
        self._room = Room()
        self._left = Allowance(limits.LIBRARY_FACTS, "the facts of all libraries")

    def add(self, path: str, size: int, read: Callable[[], Iterable[bytes]]) -> None:
        """A file; `read` gives its bytes, and is called for what may be a shared object alone."""
        self.files.append({"path": path, "size": size})
        if path.endswith(".so") or ".so." in path.rpartition("/")[2]:
            self.libraries.append({"path": path, **self._library(path, read)})
        self.done += size
        if self.report:
            self.report(self.done, self.total)

    def _library(self, path: str, read: Callable[[], Iterable[bytes]]) -> _Facts:
        from ..formats import elf

        where = f"{self.artifact}: {path}"
        try:
            found = elf.read(self._room.only(read()), where)
        except ArtifactError as error:
            return {"unreadable": error.what}
        self._left.spend(found.weight, where)
        return {
            "machine": found.machine,
            "soname": found.soname,
            "needed": list(found.needed),
            "rpath": list(found.rpath),
            "runpath": list(found.runpath),
            "floors": found.floors,
            "gpu_code": sorted(found.gpu_codes),
        }

    def as_dict(self) -> _Facts:
        """For JSON."""
        return {
            "payload_size": self.total,
            "files": sorted(self.files, key=lambda item: item["path"]),
            "libraries": sorted(self.libraries, key=lambda item: item["path"]),
        }


_TITLES = {
    "name": "name",
    "version": "version",
    "build": "build",
    "build_number": "build number",
    "subdir": "subdir",
    "noarch": "noarch",
    "tags": "tags",
    "label": "label",
    "summary": "summary",
    "license": "license",
    "requires_python": "Python",
    "requires": "requires",
    "depends": "depends",
    "constrains": "constrains",
    "entry_points": "entry points",
    "sha256": "sha256",
}


def _lines(found: _Facts, *, files: bool) -> Iterable[str]:
    width = max(map(len, _TITLES.values()))
    yield f"{found['file']}  {_size(found['size'])}"
    for key, title in _TITLES.items():
        value = found.get(key)
        if value in (None, "", [], {}):
            continue
        values = [f"{k} {v or '-'}" for k, v in value.items()] if isinstance(value, dict) else value
        for number, item in enumerate(values if isinstance(values, list) else [values]):
            yield f"  {'' if number else title:{width}}  {item}"
    links = len(found.get("links", {}))
    more = f", {links} links" if links else ""
    yield f"  {'files':{width}}  {len(found['files'])}, {_size(found['payload_size'])}{more}"
    if files:
        for item in found["files"]:
            yield f"    {item['size']:>12}  {item['path']}"
        for path, target in found.get("links", {}).items():
            yield f"    {'link':>12}  {path} -> {target}"
    for library in found["libraries"]:
        yield f"  {library['path']}"
        if "unreadable" in library:
            yield f"    unreadable  {library['unreadable']}"
            continue
        floors = [f"{name} {version}" for name, version in library["floors"].items()]
        for title, items in (
            ("machine", [library["machine"].removeprefix("EM_").lower()]),
            ("soname", [library["soname"]]),
            ("needs", library["needed"]),
            ("RPATH", library["rpath"]),
            ("RUNPATH", library["runpath"]),
            ("at least", floors),
            ("GPU code", library["gpu_code"]),
        ):
            if any(items):
                yield f"    {title:10}  {', '.join(items)}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count} bytes"
