"""What is accepted here is the same for those who install it: paths, kinds and bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import readings
from readings import Reading

from conda_bridge.formats import wheel_reader

from ..mutators import conda, zip
from ..target import Target
from ._places import from_file, scratch
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


def read_wheels(path: Path) -> None:
    """A wheel, by installer and zipfile too; pip reads by zipfile.

    It gets the name of its .dist-info: installers want them to agree.
    """
    stem = wheel_reader.read(path).dist_info.removesuffix(".dist-info")
    path = path.rename(path.with_name(f"{stem}-py3-none-any.whl"))
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
        from_file(WHEEL, read_wheels),
        (_FORMATS + "wheel_reader", _FORMATS + "zip_directory"),
        wheel_seeds,
        zip.archive(of_wheel),
    ),
)
