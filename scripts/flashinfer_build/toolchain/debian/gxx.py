"""A g++ of Debian in a folder, for an nvcc that refuses the machine's own.

GCC finds its parts and C++ headers relative to itself, so unpacking it is enough; the C library is
the machine's or that of ``--sysroot``. Only what cc1plus itself is linked with needs a word: it is
started by a script that says where that lies.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from conda_bridge.system import atomic

from ...compile.origins import RECORD
from ..lock import LockedDeb
from ..origin_record import of_deb, record
from ..system import Compiler, find_compiler
from ..unpacked import files_of, link_tree

__all__ = ["GLIBC", "WANTED", "compiler_of"]

# The C library that these programs are linked against.
GLIBC = (2, 34)
_GCC = r"usr/lib/gcc/x86_64-linux-gnu/\d+/"
# Without LTO, sanitizers, plugins and documentation other than the copyright.
WANTED = "|".join(
    [
        r"usr/bin/x86_64-linux-gnu-(?:g\+\+|gcc|cpp)-\d+$",
        _GCC + r"(?:cc1|cc1plus|collect2|lto-wrapper|liblto_plugin\.so)$",
        _GCC
        + r"(?:include/|crt\w+\.o$|lib(?:gcc\w*|stdc\+\+\w*|supc\+\+)\.(?:a|so)$|libgomp\.spec$)",
        r"usr/include/(?:x86_64-linux-gnu/)?c\+\+/",
        r"usr/lib/x86_64-linux-gnu/lib(?:gmp|isl|mpc|mpfr|zstd|stdc\+\+)\.so",
        r"lib/x86_64-linux-gnu/lib(?:z|gcc_s)\.so",
        r"usr/share/doc/[^/]*/copyright$",
    ]
)
_BASE = re.compile(r"gcc-\d+-base")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
# $0 leads here: the driver calls it by its path. What was set before stays for as and ld, which
# the driver starts itself.
_STARTER = """\
#!/bin/sh
here="${0%/*}"
LD_LIBRARY_PATH="$here/../../../x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" \\
exec "$here/NAME.bin" "$@"
"""


def compiler_of(trees: Mapping[LockedDeb, Path], cache: Path) -> Compiler:
    """The compiler that `trees` make up, put together on first use.

    Args:
        trees: the unpacked packages, with what is WANTED.
        cache: the project's cache.

    Raises:
        ToolchainError: it does not run on this machine.
    """
    facts = [
        _STARTER,
        RECORD,
        *(f"{deb.sha256} {tree.name}" for deb, tree in sorted(trees.items())),
    ]
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    home = cache / "compilers" / key[:32]
    if not home.is_dir():
        with atomic.lock(home.with_name(home.name + ".lock")):
            if not home.is_dir():
                with atomic.directory(home) as fresh:
                    _put_together(list(trees.values()), fresh)
                    _record(trees, fresh)
    [gxx] = (home / "usr/bin").glob("x86_64-linux-gnu-g++-*")
    return find_compiler({**os.environ, "CXX": str(gxx)})


def _put_together(trees: list[Path], home: Path) -> None:
    for tree in trees:
        link_tree(tree, home)
    # One folder for all libraries, where the linker looks as well.
    for library in (home / "lib/x86_64-linux-gnu").glob("*"):
        os.replace(library, home / _LIBRARIES / library.name)
    for name in ("cc1", "cc1plus"):
        for program in (home / "usr/lib/gcc/x86_64-linux-gnu").glob(f"*/{name}"):
            program.rename(program.with_name(f"{name}.bin"))
            program.write_text(_STARTER.replace("NAME", name))
            program.chmod(0o755)


def _record(trees: Mapping[LockedDeb, Path], home: Path) -> None:
    """Which Debian package each file is of."""
    sources = []
    base = {deb: tree for deb, tree in trees.items() if _BASE.fullmatch(deb.package)}
    for deb, tree in trees.items():
        files = [path.relative_to(tree).as_posix() for path in files_of(tree)]
        moved = [_moved_to(name) for name in files]
        sources.append((of_deb(deb, tree, base), moved))
        for name, text in sources[-1][0].texts.items():
            (home / name).write_bytes(text)
    (home / f".{RECORD}").write_bytes(record(sources))


def _moved_to(name: str) -> str:
    """Where :func:`_put_together` leaves a file."""
    library = "lib/x86_64-linux-gnu/"
    return f"{_LIBRARIES}/{name[len(library) :]}" if name.startswith(library) else name
