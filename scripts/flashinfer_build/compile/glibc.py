"""The C library that a built package requires: what its binaries ask for, not what compiled them.

A compiler's sysroot exports its own version, and the builder writes that down. On a machine without
an older sysroot it is the version of the machine, which most of what is linked there does not need:
a binary asks for the newest symbol that it uses.
"""

from __future__ import annotations

import re
from pathlib import Path

from conda_bridge.formats import conda_package, conda_writer, elf
from conda_bridge.formats.conda_writer import PackageFile
from conda_bridge.formats.content import Stored
from conda_bridge.system import atomic

__all__ = ["state_measured"]

_LOWER_BOUND = re.compile(r"^(__glibc\s+>=)(\d+(?:\.\d+)*)")
_ELF = b"\x7fELF"


def state_measured(source: Path, target: Path) -> str:
    """Writes the package `source` as `target`, with the ``__glibc`` that its binaries need.

    Args:
        source: a package as its builder wrote it.
        target: a file of the same name, elsewhere.

    Returns:
        The version that is stated now, such as ``2.34``; empty where the package states none or
        has no binary that asks for one.
    """
    package = conda_package.read(source)
    depends = [str(spec) for spec in package.index.get("depends", [])]
    versions: list[str] = []
    with atomic.scratch(target.parent) as folder:
        files = []
        for number, member in enumerate(package.payload()):
            if member.link_target is not None:
                files.append(PackageFile(member.path, None, link_target=member.link_target))
                continue
            blob = folder / str(number)  # nothing of the archive reaches the file system
            with blob.open("wb") as stream:
                for data in member.chunks():
                    stream.write(data)
            mode = 0o755 if member.executable else 0o644
            files.append(PackageFile(member.path, blob, mode))
            with blob.open("rb") as opened:
                content = Stored(opened, 0, member.size)
                if content.at(0, len(_ELF)) == _ELF:
                    asked = elf.read(content, f"{source.name}: {member.path}").floors.get("GLIBC")
                    versions += [f"GLIBC_{asked}"] if asked else []
        floor = elf.floors(tuple(versions)).get("GLIBC", "")
        stated = any(map(_LOWER_BOUND.match, depends))
        if floor:
            depends = [_LOWER_BOUND.sub(rf"\g<1>{floor}", spec) for spec in depends]
        conda_writer.write(
            target,
            index={**package.index, "depends": depends},
            files=files,
            about=package.about,
            info_files={
                name: content
                for name, content in package.info.items()
                if name not in ("info/index.json", "info/about.json")
            },
            level=1,
        )
    return floor if stated else ""
