"""An older C library of Debian as conda-forge's ``sysroot_linux-64``.

What is linked against it runs on every system with that glibc or a newer one. Debian's folders
stay as they are, below ``x86_64-conda-linux-gnu/sysroot/``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from conda_bridge.formats.conda_writer import PackageFile

from ..lock import LockedDeb
from ..origin_record import of_deb, with_record
from ..packages import PackageSpec
from ..system import SYSROOT, sysroot_spec
from ..unpacked import files_of
from .deb import package_file

__all__ = ["WANTED", "package"]

# Headers and libraries to link with, and licences; neither programs nor what glibc loads itself.
WANTED = (
    r"lib64/|lib/x86_64-linux-gnu/|usr/include/|"
    r"usr/lib/x86_64-linux-gnu/[^/]*$|usr/share/doc/[^/]*/copyright$"
)


def _files(trees: tuple[Path, ...]) -> Iterable[PackageFile]:
    for tree in trees:
        for path in files_of(tree):
            name = path.relative_to(tree).as_posix()
            if name.startswith("usr/share/doc/"):
                continue
            yield package_file(path, f"{SYSROOT}/{name}")


def package(version: str, trees: Mapping[LockedDeb, Path]) -> PackageSpec:
    """The package of a C library.

    Args:
        version: of glibc.
        trees: the unpacked packages, with what is WANTED.
    """
    return sysroot_spec(
        version,
        identity=[deb.sha256 for deb in trees],
        files=lambda: _files(tuple(trees.values())),
        licences=with_record(
            [
                (of_deb(deb, tree), [item.path for item in _files((tree,))])
                for deb, tree in trees.items()
            ]
        ),
    )
