"""Where the files of a wheel go in a conda prefix, and the files that an installer would make."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ArtifactError
from ..formats import foreign
from .conda_target import Target

__all__ = [
    "PLACEHOLDER",
    "EntryPoint",
    "Layout",
    "Place",
    "entry_points",
    "record",
    "with_placeholder",
]

# What conda's tools have always put into files where the prefix is meant.
PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. +-]*", re.ASCII)
_OBJECT = re.compile(
    r"(?P<module>[\w.]+)\s*:\s*(?P<attribute>[\w.]+)\s*(?:\[(?P<extras>[^\]]*)\])?", re.ASCII
)
_OF_ONE_PYTHON = re.compile(r"lib/python\d+(\.\d+)?t?/", re.ASCII)
# What belongs to conda in a prefix; a wheel's data may be anywhere else.
_CONDAS = ("info/", "conda-meta/", "pkgs/", "envs/")


@dataclass(frozen=True)
class Place:
    """Where a file of the wheel goes.

    Attributes:
        path: in the package; None for a file that stays behind.
        script: whether it is a program, which may begin with ``#!python``.
    """

    path: str | None
    script: bool = False


class Layout:
    """Where a wheel's files go.

    Args:
        name: the wheel's, as its file name has it.
        dist_info: its ``.dist-info`` folder.
        target: what the package is for.
        where: the wheel, for messages.
    """

    def __init__(self, name: str, dist_info: str, target: Target, where: str) -> None:
        self._name = name
        self._dist_info = dist_info
        self._data = dist_info.removesuffix(".dist-info") + ".data"
        self._target = target
        self._where = where

    def place(self, path: str) -> Place:
        """The place of a file.

        Raises:
            ArtifactError: a file where conda keeps its own, or of a kind that no installer knows.
        """
        parts = path.split("/")
        if "__pycache__" in parts[:-1]:
            return Place(None)  # it is made when it is installed, or at the first import
        if parts[0] == self._dist_info and parts[1:] in (["RECORD.jws"], ["RECORD.p7s"]):
            return Place(None)  # signatures of another RECORD
        if parts[0] != self._data:
            return Place(self._target.site + path)
        kind, inner = parts[1], "/".join(parts[2:])
        if kind in ("purelib", "platlib") and inner:
            return Place(self._target.site + inner)
        if kind == "scripts" and inner:
            return Place(self._target.scripts + inner, script=True)
        if kind == "headers" and inner:
            python = "" if self._target.python is None else f"python3.{self._target.python}/"
            return Place(f"include/{python}{self._name}/{inner}")
        if kind == "data" and inner:
            return Place(self._data_path(inner))
        raise ArtifactError(
            "is of no kind that can be installed",
            where=f"{self._where}: {path}",
            expected="purelib, platlib, scripts, headers or data below .data/",
        )

    def _data_path(self, path: str) -> str:
        own = (self._target.site, self._target.scripts) if self._target.noarch else ()
        if path.startswith((*_CONDAS, *own)):
            raise ArtifactError(
                f"would be installed as {path}, where conda keeps its own files",
                where=f"{self._where}: {self._data}/data/{path}",
            )
        if self._target.noarch and _OF_ONE_PYTHON.match(path):
            raise ArtifactError(
                f"would be installed as {path}, for one Python, by a package for every Python",
                where=f"{self._where}: {self._data}/data/{path}",
                expected="files for Python in the wheel's root, or below purelib or platlib",
                fix="build the wheel again so, or for that one Python",
            )
        return path


def with_placeholder(script: bytes) -> tuple[bytes, str]:
    """A script for conda, and the placeholder in it; ``#!python`` is how wheels name the Python."""
    line, newline, rest = script.partition(b"\n")
    found = re.fullmatch(rb"#!python(w?)((?:\s.*)?)", line.rstrip(b"\r"))
    if not found:
        return script, ""
    head = f"#!{PLACEHOLDER}/bin/python".encode() + found[2]
    return head + newline + rest, PLACEHOLDER


@dataclass(frozen=True)
class EntryPoint:
    """A command that calls a function."""

    name: str
    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.name} = {self.module}:{self.attribute}"

    def script(self) -> bytes:
        """The program, for a package whose installer does not write it."""
        first = self.attribute.partition(".")[0]
        return (
            f"#!{PLACEHOLDER}/bin/python\n"
            "import sys\n\n"
            f"from {self.module} import {first}\n\n"
            'if __name__ == "__main__":\n'
            f"    sys.exit({self.attribute}())\n"
        ).encode()


def entry_points(text: bytes, where: str) -> list[EntryPoint]:
    """The commands in an ``entry_points.txt``, by name.

    Raises:
        ArtifactError: it is not such a file, or has a command whose name is no file name or that
            is no ``module:function``.
    """
    try:
        groups = foreign.entry_points(text)
    except foreign.Unreadable as error:
        raise ArtifactError(
            f"cannot be read: {error}",
            where=where,
            expected="sections such as [console_scripts] with lines name = package.module:function",
        ) from error
    found = {}
    for section in ("console_scripts", "gui_scripts"):
        for name, value in groups.get(section, {}).items():
            object_ = _OBJECT.fullmatch(value.strip())
            if not object_ or not _NAME.fullmatch(name):
                raise ArtifactError(
                    f"the command {name[:80]!r} is {value[:80]!r}",
                    where=where,
                    expected="a file name, and module:function",
                )
            found[name] = EntryPoint(name, object_["module"], object_["attribute"])
    return [found[name] for name in sorted(found)]


def record(files: Iterable[tuple[str, str, int | None]], own: str, target: Target) -> bytes:
    """A RECORD of what is installed.

    Args:
        files: path in the package, ``sha256=...`` (or empty, where installing changes the file)
            and size.
        own: the path of the RECORD itself, in the package.
        target: what the package is for.
    """

    def installed(path: str) -> str:
        if path.startswith(target.site):
            return path.removeprefix(target.site)
        if target.noarch and path.startswith(target.scripts):
            path = "bin/" + path.removeprefix(target.scripts)
        return f"../../../{path}"  # lib/python3.x/site-packages lies three folders deep

    rows = [
        (installed(path), digest, "" if size is None else str(size)) for path, digest, size in files
    ]
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(sorted([*rows, (installed(own), "", "")]))
    return lines.getvalue().encode()
