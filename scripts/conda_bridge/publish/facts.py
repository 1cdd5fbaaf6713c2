"""What a user has to know of an artifact's libraries before he takes it: GPU code, and the glibc.

Measured while the artifact is read whole, which it is once, when it is published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import msgspec

from ..errors import ArtifactError
from ..formats.content import Room

__all__ = ["Facts", "Look", "arch_list"]

_ELF = b"\x7fELF"


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was measured; empty where there is no such thing, or no library that can be read.

    Attributes:
        gpu_code: the images in fat binaries, as nvcc names them: ``sm_90a``, ``compute_80``.
        glibc: the newest version of glibc that is asked for, such as ``2.28``.
    """

    gpu_code: tuple[str, ...] = ()
    glibc: str = ""


class Look:
    """Looks into the files of one artifact, one after the other."""

    def __init__(self) -> None:
        self._room = Room()
        self._codes: set[str] = set()
        self._glibc: tuple[int, ...] = ()

    def take(self, path: str, chunks: Iterable[bytes]) -> None:
        """Reads all of a file; one that is no library of a kind that can be read says nothing."""
        pieces = iter(chunks)
        first = next(pieces, b"")
        if first.startswith(_ELF):
            self._library(path, chain([first], pieces))
        for _ in pieces:
            pass

    def _library(self, path: str, chunks: Iterator[bytes]) -> None:
        from ..formats import elf  # it takes its time to import

        content = self._room.only(chunks)
        try:
            library = elf.read(content, path, program=True)
        except ArtifactError:
            return  # for verify to judge; what is published need not be for this machine
        self._codes |= library.gpu_codes
        asked = library.floors.get("GLIBC", "")
        if asked:
            self._glibc = max(self._glibc, tuple(int(part) for part in asked.split(".")))

    @property
    def facts(self) -> Facts:
        """Of all files so far."""
        return Facts(tuple(sorted(self._codes)), ".".join(map(str, self._glibc)))


def arch_list(codes: Sequence[str]) -> list[str]:
    """GPU code in torch's notation.

    >>> arch_list(("compute_80", "sm_120", "sm_80", "sm_90a"))
    ['8.0+PTX', '9.0a', '12.0']
    """
    numbers = {
        name: (int(name.rstrip("af")), name.strip("0123456789"))
        for name in (code.partition("_")[2] for code in codes if code.startswith(("sm_", "comp")))
    }
    return [
        f"{number // 10}.{number % 10}{suffix}" + ("+PTX" if f"compute_{name}" in codes else "")
        for name, (number, suffix) in sorted(numbers.items(), key=lambda item: item[1])
    ]
