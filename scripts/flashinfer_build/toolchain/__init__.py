"""Compilers and torch for a build, from providers behind one interface.

A provider answers a request with a :class:`Toolchain`: conda channels with everything under the
names the recipe asks for, and unpacked wheels for virtual environments. What a provider does not
truly have it refuses; it never passes one CUDA off as another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from conda_bridge.errors import ToolchainError

from ..label import Variant

__all__ = [
    "Provider",
    "Report",
    "Request",
    "Supply",
    "Toolchain",
    "provide",
    "providers",
    "state",
    "supplies",
    "supply",
]

Report = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What a toolchain has to have.

    Attributes:
        variant: for what; its torch has no part in a toolchain for the kernels alone.
        gxx_below: the first g++ major that this CUDA's nvcc refuses, or None.
        gxx: the g++ major that the variant asks for where there are several, or None.
        torch: False for the kernels alone, which are compiled without torch.
        importable: also bring what torch loads when it is imported.
        glibc: the C library to link against, e.g. ``2.31``; None for the machine's own.
    """

    variant: Variant
    gxx_below: int | None = None
    torch: bool = True
    importable: bool = False
    glibc: str | None = None
    gxx: str | None = None

    @property
    def what(self) -> str:
        """For a person: the variant's id, or its CUDA tag where torch is not asked for."""
        return self.variant.id if self.torch else self.variant.cuda_tag


@dataclass(frozen=True)
class Toolchain:
    """What a variant is built and tried with.

    Attributes:
        variant: what it is for.
        provider: who made it.
        channels: URLs of conda channels, the first wins.
        variant_keys: keys of ``conda_build_config.yaml`` that the toolchain decides (the versions
            of compiler and C library), with the measured values.
        torch_version: in full, e.g. ``2.13.0+cpu``; empty where torch was not asked for.
        torch_importable: whether torch and all it loads are there; a CUDA torch without its
            libraries is enough to build against.
        trees: unpacked wheels (see :mod:`.unpacked`) of torch, its requirements and pip.
        inputs: every file that went in as ``name sha256``, and the compiler, C library and Python
            as ``name version``; what a build key is made of.
        compiler_inputs: those of `inputs` that the kernels are compiled from, torch left out.
    """

    variant: Variant
    provider: str
    channels: tuple[str, ...]
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

    def missing(self, request: Request) -> str:
        """What this provider lacks for `request`; empty if nothing.

        Downloads nothing that is large: a channel's repodata at most.
        """

    def provide(self, request: Request, *, report: Report) -> Toolchain:
        """Makes the toolchain.

        Args:
            request: what it has to have.
            report: is told what happens.

        Raises:
            ToolchainError: a part of it cannot be had.
        """


@dataclass(frozen=True)
class Supply:
    """Who answers a request.

    Attributes:
        provider: its name, or None.
        missing: what every provider lacks for it; empty where there is a provider.
    """

    provider: str | None
    missing: str


def providers(cache: Path | None = None, channels: Sequence[str] = ()) -> list[Provider]:
    """The providers, the preferred one first.

    Args:
        cache: where downloads and packages are kept; the project's cache by default.
        channels: conda channels to prefer: names, URLs or paths.

    Raises:
        ConfigError: one of `channels` is no channel.
    """
    from .assembled import Assembled
    from .conda import Conda
    from .debian.parts import Debian
    from .pypi import PyPI

    index, debian = PyPI(cache), Debian(cache)
    preferred: list[Provider] = [Conda(channels, cache)] if channels else []
    return [
        *preferred,
        Assembled("pypi", index, index, debian, cache=cache),
        Assembled("debian", debian, index, debian, cache=cache),
    ]


def _first(request: Request, among: Sequence[Provider]) -> tuple[Provider | None, str]:
    """The first provider that has it, and why the ones before it do not."""
    reasons: list[str] = []
    for provider in among:
        reason = provider.missing(request)
        if not reason:
            return provider, "; ".join(reasons)
        reasons.append(f"{provider.name}: {reason}")
    return None, "; ".join(reasons)


def supply(request: Request, among: Sequence[Provider]) -> Supply:
    """Which provider of `among` answers `request`, or what is missing."""
    provider, missing = _first(request, among)
    return Supply(provider.name, "") if provider else Supply(None, missing)


def supplies(requests: Sequence[Request], among: Sequence[Provider]) -> list[Supply]:
    """:func:`supply` for many requests; channels are read once for all of them."""
    from .conda import Conda

    for provider in among:
        if isinstance(provider, Conda):
            provider.read(requests)
    return [supply(request, among) for request in requests]


def state(request: Request, among: Sequence[Provider]) -> str:
    """A digest of what `request` gets now, where that changes without a change here: channels do.

    Raises:
        ToolchainError: a channel cannot be read.
    """
    from .conda import Conda

    provider, _ = _first(request, among)
    return provider.state(request) if isinstance(provider, Conda) else ""


def provide(
    request: Request,
    among: Sequence[Provider],
    *,
    report: Report = lambda _line: None,
) -> Toolchain:
    """The toolchain from the first provider of `among` that has it.

    Raises:
        ToolchainError: nobody has it, or a part of it cannot be had.
    """
    provider, missing = _first(request, among)
    if provider is None:
        raise ToolchainError(
            f"no provider has a toolchain for {request.what}: {missing}",
            where=request.what,
            fix="python scripts/build.py --list shows what can be built here; --channel names "
            "conda channels that have the rest",
        )
    if missing:
        report(missing)
    return provider.provide(request, report=report)
