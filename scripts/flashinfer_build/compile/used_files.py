"""What the compilers and the linker read to make a library, by their own records of it.

The dependency files of the compilers are in ninja's log, and the linker's trace lies beside the
library; the programs are asked for those that they run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.errors import BuildFailed

from .measure import CAPTURED, Nvcc

__all__ = ["TRACE", "UsedFiles", "read"]

TRACE = "{}.linked"  # of a library, beside it
# Of an archive, the linker names the members that it took: (libx.a)y.o, or libx.a(y.o).
_MEMBER = re.compile(r"^(?:\((?P<old>.+\.a)\)\S+|(?P<new>.+\.a)\([^()]+\))$")
_SHARED = re.compile(r"\.so(\.\d+)*$")
_GCC_PROGRAMS = ("cc1plus", "as", "ld")
# Of the toolkit: what translates, and the code that it puts into every program that uses it.
_NVCC_PROGRAMS = ("nvcc", "cudafe++", "ptxas", "fatbinary")
_CICC = "nvvm/bin/cicc"
_LIBDEVICE = "nvvm/libdevice/libdevice.10.bc"  # device code, of which cicc takes what is called


@dataclass(frozen=True)
class UsedFiles:
    """Absolute paths, each once and sorted.

    Attributes:
        sources: of this project.
        headers: of others, compiled in.
        linked: archives and objects of others, of which there is something in the library.
        shared: libraries that the loader brings when it runs.
        programs: compilers, assembler and linker, with the code that they add.
    """

    sources: tuple[Path, ...]
    headers: tuple[Path, ...]
    linked: tuple[Path, ...]
    shared: tuple[Path, ...]
    programs: tuple[Path, ...]


def read(
    root: Path, library: Path, *, ninja: str, cxx: Sequence[str], nvcc: Nvcc | None
) -> UsedFiles:
    """What went into `library`, which lies in the folder it was built in.

    Args:
        root: the project's folder.
        library: as the linker wrote it.
        ninja: the program.
        cxx: the C++ compiler's command.
        nvcc: the CUDA compiler, or None.

    Raises:
        BuildFailed: there is no record of it.
    """
    folder = library.parent
    csrc = (root / "csrc").resolve()
    read_in = _followed(folder, _dependencies(folder, ninja))
    sources = {path for path in read_in if csrc in path.resolve().parents}
    linked, shared = _linked(folder, library)
    programs = {Path(path) for name in _GCC_PROGRAMS if (path := _program(cxx, name))}
    if not any(path.name.startswith("cc1plus") for path in programs):
        programs.add(Path(cxx[0]))  # not GCC: it compiles by itself
    if nvcc:
        programs |= {
            path
            for path in (*(nvcc.path.parent / name for name in _NVCC_PROGRAMS), nvcc.home / _CICC)
            if path.exists()
        }
        linked |= {path for path in (nvcc.home / _LIBDEVICE,) if path.exists()}
    return UsedFiles(
        tuple(sorted(sources)),
        tuple(sorted(read_in - sources)),
        tuple(sorted(linked)),
        tuple(sorted(shared)),
        tuple(sorted(programs)),
    )


def _dependencies(folder: Path, ninja: str) -> set[str]:
    """Every file that a compiler read, as it named it."""
    done = subprocess.run([ninja, "-t", "deps"], cwd=folder, **CAPTURED)
    found = {line[4:] for line in done.stdout.splitlines() if line.startswith("    ")}
    if done.returncode != 0 or not found:
        raise BuildFailed(
            f"ninja has no record of what was compiled (exit status {done.returncode})",
            where=str(folder),
            log=done.stderr,
        )
    return found


def _linked(folder: Path, library: Path) -> tuple[set[Path], set[Path]]:
    """What the linker took others' code of, and what it found in shared libraries."""
    trace = library.with_name(TRACE.format(library.name))
    try:
        lines = trace.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise BuildFailed(f"the linker left no record: {error}", where=str(trace)) from error
    linked, shared = set(), set()
    for line in lines:
        member = _MEMBER.match(line)
        if member:
            linked.add(member["old"] or member["new"])
        elif _SHARED.search(line):
            shared.add(line)
        elif line.endswith(".o"):
            linked.add(line)
    # Objects of this build are in its folder.
    others = {name for name in linked if "/" in name}
    # A text for the linker is no library; it names those that are.
    return _followed(folder, others), set(filter(_is_elf, _followed(folder, shared)))


def _is_elf(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"\x7fELF"
    except OSError:
        return False


def _followed(folder: Path, names: Iterable[str]) -> set[Path]:
    """Absolute paths: a link of the build's folder is followed, before any ``..`` behind it."""
    found = set()
    for name in names:
        first, slash, rest = name.partition("/")
        link = folder / first
        follow = not name.startswith("/") and slash and link.is_symlink()
        path = Path(os.readlink(link), rest) if follow else folder / name
        found.add(Path(os.path.normpath(path)))
    return found


def _program(cxx: Sequence[str], name: str) -> str:
    """The program that GCC runs under `name`; empty where it says none."""
    done = subprocess.run([*cxx, f"-print-prog-name={name}"], **CAPTURED)
    said = str(done.stdout).strip()
    if done.returncode != 0 or not said:
        return ""
    return os.path.normpath(said) if said.startswith("/") else shutil.which(said) or ""
