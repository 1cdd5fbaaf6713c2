"""What is accepted here is the same for those who install it: paths, kinds and bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import readings
from readings import Reading

from ..mutators import conda, zip
from ..target import Target
from ._places import from_file, place, scratch
from .archives import (
    PACKAGE,
    WHEEL,
    conda_seeds,
    of_wheel,
    tar_bz2_seeds,
    wheel_seeds,
)

__all__ = ["TARGETS"]


def _check_same(ours: Reading, tool: str, read: Callable[[], Reading]) -> None:
    """Fails where a tool reads something else, or cannot read it."""
    try:
        theirs = read()
    except Exception as error:
        raise AssertionError(f"{tool} cannot read it: {type(error).__name__}: {error}") from error
    for path in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(path), theirs.get(path)
        assert here == there, f"{path!r} is {here} here, and {there} for {tool}"


def read_packages(path: Path) -> None:
    """A conda package, by py-rattler and conda-package-streaming too."""
    ours = readings.ours(path)
    with scratch("by") as folder:
        _check_same(ours, "py-rattler", lambda: readings.by_rattler(path, folder / "rattler"))
        _check_same(
            ours, "conda-package-streaming", lambda: readings.by_conda(path, folder / "conda")
        )


_DIST_INFO = re.compile(rb"([A-Za-z0-9_.]+-[A-Za-z0-9_.+!]+)\.dist-info/")


def read_wheels(data: bytes) -> None:
    """A wheel, by installer and zipfile too; pip reads by zipfile.

    Its file name is that of its .dist-info: installers compare them.
    """
    found = _DIST_INFO.search(data)
    path = place(f"{found[1].decode()[:200]}-py3-none-any.whl" if found else WHEEL)
    path.write_bytes(data)
    try:
        _read_wheel(path)
    finally:
        path.unlink()


def _read_wheel(path: Path) -> None:
    ours = readings.ours_of_wheel(path)
    _check_same(ours, "zipfile", lambda: readings.by_zipfile(path))
    _check_same(ours, "installer", lambda: readings.by_installer(path))


_FORMATS = "conda_bridge.formats."
TARGETS = (
    Target(
        "same-conda",
        from_file(f"{PACKAGE}.conda", read_packages),
        (_FORMATS + "conda_package", _FORMATS + "tar_stream", _FORMATS + "tar_header"),
        conda_seeds,
        conda.package,
    ),
    Target(
        "same-tar-bz2",
        from_file(f"{PACKAGE}.tar.bz2", read_packages),
        (_FORMATS + "conda_package", _FORMATS + "tar_stream", _FORMATS + "tar_header"),
        tar_bz2_seeds,
        conda.tar_bz2,
    ),
    Target(
        "same-wheel",
        read_wheels,
        (_FORMATS + "wheel_reader", _FORMATS + "zip_directory"),
        wheel_seeds,
        zip.archive(of_wheel),
    ),
)
