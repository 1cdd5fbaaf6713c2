"""What a build was asked for, and the folders that follow from it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DEFAULT_PLATFORM", "Settings"]

DEFAULT_PLATFORM = "linux_x86_64"


@dataclass(frozen=True)
class Settings:
    """What the command line asked for; see ``scripts/build.py --help``.

    Attributes:
        root: the project's folder.
        cache: downloads, toolchains and environments.
        output: where the results go; by default ``dist`` with :attr:`suffix`.
        arch_list: other GPU architectures than the matrix names.
        glibc: the C library to link against, e.g. ``2.31``; the machine's own by default.
        platform_tag: of the wheel, ``auto`` for the oldest manylinux that is true.
        replace: drop packages of the same name that have other bytes.
        nightly: the day of a nightly, as YYYYMMDD.
        commit: of a nightly.
        build_number: of the conda packages.
        channels: conda channels to take the toolchain from, before all other providers.
        wheel: False for the conda packages alone.
        environ: the environment variables that a build reads.
    """

    root: Path
    cache: Path
    output: Path | None = None
    arch_list: str | None = None
    glibc: str | None = None
    platform_tag: str = DEFAULT_PLATFORM
    replace: bool = False
    nightly: str | None = None
    commit: str | None = None
    build_number: int | None = None
    channels: tuple[str, ...] = ()
    wheel: bool = True
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def suffix(self) -> str:
        """What sets a build for chosen architectures or an older C library apart from the usual."""
        parts = []
        if self.arch_list:
            parts.append(re.sub(r"[^0-9A-Za-z.+]+", "_", self.arch_list.strip()))
        if self.glibc:
            parts.append(f"glibc{self.glibc}")
        return "".join(f"-{part}" for part in parts)

    @property
    def output_dir(self) -> Path:
        """Where the results go."""
        return (self.output or self.root / f"dist{self.suffix}").resolve()

    @property
    def build_dir(self) -> Path:
        """Where everything is made before it is published."""
        return self.root / "build"
