"""Compilers and torch for a build, from providers behind one interface.

A provider turns a variant into a :class:`Toolchain`: a conda channel under the names the recipe
asks for, and unpacked wheels for virtual environments. What a provider does not truly have it
refuses; it never passes one CUDA off as another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import ToolchainError
from ..label import Variant

__all__ = ["Provider", "Supply", "Toolchain", "provide", "providers", "supplies"]


@dataclass(frozen=True)
class Toolchain:
    """What a variant is built and tried with.

    Attributes:
        variant: what it is for.
        provider: who made it.
        channel: a conda channel on this machine.
        variant_keys: keys of ``conda_build_config.yaml`` that the machine decides (its compiler
            and C library), with the measured values.
        torch_version: in full, e.g. ``2.13.0+cpu``.
        torch_importable: whether torch and all it loads are in the channel; a CUDA torch without
            its libraries is enough to build against.
        trees: unpacked wheels (see :mod:`.unpacked`) of torch, its requirements and pip.
        inputs: every file that went in as ``name sha256``, and the compiler, C library and Python
            as ``name version``; what a build key is made of.
        compiler_inputs: those of `inputs` that the kernels are compiled from, torch left out.
    """

    variant: Variant
    provider: str
    channel: Path
    variant_keys: Mapping[str, str]
    torch_version: str
    torch_importable: bool
    trees: tuple[Path, ...]
    inputs: tuple[str, ...]
    compiler_inputs: tuple[str, ...]


class Provider(Protocol):
    """Where compilers and torch come from."""

    @property
    def name(self) -> str:
        """As it is shown to people, e.g. ``pypi``."""

    def missing(self, variant: Variant) -> str:
        """Why this provider cannot supply `variant`; empty if it can. Downloads nothing."""

    def provide(
        self, variant: Variant, *, importable: bool, report: Callable[[str], None]
    ) -> Toolchain:
        """Makes the toolchain of `variant`.

        Args:
            variant: for what.
            importable: also bring what torch loads when it is imported.
            report: is told what happens.

        Raises:
            ToolchainError: a part of it cannot be had.
        """


@dataclass(frozen=True)
class Supply:
    """Who supplies a variant.

    Attributes:
        provider: its name, or None.
        missing: what every provider lacks for it; empty where there is a provider.
    """

    provider: str | None
    missing: str


def providers(cache: Path | None = None) -> list[Provider]:
    """The providers of this machine, the preferred one first."""
    from .pypi import PyPI

    return [PyPI(cache=cache)]


def supplies(variant: Variant, cache: Path | None = None) -> Supply:
    """Which provider supplies `variant`, or what is missing. Downloads nothing."""
    reasons = []
    for provider in providers(cache):
        reason = provider.missing(variant)
        if not reason:
            return Supply(provider.name, "")
        reasons.append(f"{provider.name}: {reason}")
    return Supply(None, "; ".join(reasons))


def provide(
    variant: Variant,
    cache: Path | None = None,
    *,
    importable: bool = False,
    report: Callable[[str], None] = lambda _line: None,
) -> Toolchain:
    """The toolchain of `variant` from the first provider that has it.

    Args:
        variant: for what.
        cache: where downloads and packages are kept; the project's cache by default.
        importable: also bring what torch loads when it is imported.
        report: is told what happens.

    Raises:
        ToolchainError: nobody has it, or a part of it cannot be had.
    """
    reasons = []
    for provider in providers(cache):
        reason = provider.missing(variant)
        if not reason:
            return provider.provide(variant, importable=importable, report=report)
        reasons.append(f"{provider.name}: {reason}")
    raise ToolchainError(
        f"no provider has a toolchain for {variant.id}: {'; '.join(reasons)}",
        where=variant.id,
        fix="python scripts/build.py --list shows what can be built here; the rest is built with "
        "conda or rattler-build",
    )
