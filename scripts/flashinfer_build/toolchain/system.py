"""What the machine itself brings, as conda packages: its Python, its C++ compiler, its C library.

They hold links and small scripts, nothing is copied, so they are for this machine only. Their
versions are measured.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.errors import ToolchainError
from conda_bridge.formats.conda_writer import PackageFile

from ..compile import variables
from .packages import PackageSpec, link_out

__all__ = [
    "SYSROOT",
    "Compiler",
    "compiler_packages",
    "find_compiler",
    "glibc_version",
    "python_package",
    "sysroot_package",
    "sysroot_spec",
]

_TRIPLE = "x86_64-conda-linux-gnu"
SYSROOT = f"{_TRIPLE}/sysroot"
_DRIVERS = ("gcc", "cc", "g++", "c++")
# --sysroot is for headers, -idirafter for those of a GCC that knows nothing of Debian's folders. A
# GCC that was configured without a sysroot still finds the machine's C library first, so -B puts
# the other before it. The C++ runtime stays that of the GCC, and may want more of the C library
# than the sysroot has: programs are linked nevertheless.
_IN_SYSROOT = f"${{0%/*}}/../{SYSROOT}"
_SYSROOT_FLAGS = (
    f' --sysroot="{_IN_SYSROOT}" -B"{_IN_SYSROOT}/usr/lib/x86_64-linux-gnu"'
    f' -idirafter "{_IN_SYSROOT}/usr/include/x86_64-linux-gnu" -Wl,--allow-shlib-undefined'
)
_BINUTILS = ("ar", "as", "ld", "nm", "objcopy", "objdump", "ranlib", "readelf", "strip")


@dataclass(frozen=True)
class Compiler:
    """The machine's GCC.

    Attributes:
        cxx: the C++ driver.
        cc: the C driver beside it.
        version: in full, e.g. ``12.2.0``.
    """

    cxx: Path
    cc: Path
    version: str

    @property
    def major(self) -> str:
        """The part that conda's variants name."""
        return self.version.split(".")[0]


def find_compiler(environ: Mapping[str, str] = os.environ) -> Compiler:
    """The GCC of ``CXX``, or the one on ``PATH``.

    Raises:
        ToolchainError: there is none, or it is not GCC.
    """
    name = (environ.get("CXX") or "").strip() or "g++"
    found = shutil.which(name, path=environ.get("PATH"))
    if not found:  # with arguments; what is found as it stands may have spaces in its path
        name = variables.words("CXX", {"CXX": name})[0]
        found = shutil.which(name, path=environ.get("PATH"))
    if not found:
        raise ToolchainError(
            f"there is no C++ compiler {name!r}",
            where="CXX" if environ.get("CXX") else "PATH",
            fix="on Debian: apt install g++",
        )
    cxx = Path(found)
    done = subprocess.run(
        [found, "-dumpfullversion"], check=False, capture_output=True, text=True, errors="replace"
    )
    version = done.stdout.strip()
    cc = cxx.with_name(re.sub(r"(g|c)\+\+", lambda m: "gcc" if m[1] == "g" else "cc", cxx.name))
    if done.returncode != 0 or not re.fullmatch(r"\d+\.\d+\.\d+", version) or not cc.exists():
        raise ToolchainError(
            "is not g++ with a matching gcc in the same directory",
            where=found,
            fix="set CXX to a g++",
        )
    return Compiler(cxx, cc, version)


def glibc_version() -> str:
    """The C library's version, e.g. ``2.36``.

    Raises:
        ToolchainError: it is not glibc, which is what the packages are for.
    """
    name, version = platform.libc_ver()
    if name != "glibc":
        raise ToolchainError(f"the C library is {name or 'unknown'}", expected="glibc")
    return version


def _script(program: Path, flags: str = "") -> bytes:
    return f'#!/bin/sh\nexec "{program}"{flags} "$@"\n'.encode()


def _activation(package: str, values: Mapping[str, str]) -> list[PackageFile]:
    """Scripts that set variables for as long as an environment is active."""
    on = "".join(f'export {name}="{value}"\n' for name, value in values.items())
    off = "".join(f"unset {name}\n" for name in values)
    return [
        PackageFile(f"etc/conda/activate.d/activate-{package}.sh", on.encode(), 0o644, None),
        PackageFile(f"etc/conda/deactivate.d/deactivate-{package}.sh", off.encode(), 0o644, None),
    ]


def sysroot_spec(
    glibc: str,
    *,
    identity: Sequence[str],
    files: Callable[[], Iterable[PackageFile]],
    licences: Mapping[str, bytes],
) -> PackageSpec:
    """The package of a C library, by version.

    What is built with it says so in its requirements, as it does with conda-forge's.
    """
    exports = {"strong": [f"__glibc >={glibc},<3.0.a0"]}
    return PackageSpec(
        "sysroot_linux-64",
        glibc,
        identity=identity,
        files=files,
        info_files={"info/run_exports.json": json.dumps(exports).encode(), **licences},
    )


def sysroot_package() -> PackageSpec:
    """The machine's own C library: no files, the compilers find it by themselves."""
    glibc = glibc_version()
    return sysroot_spec(glibc, identity=[glibc], files=tuple, licences={})


def compiler_packages(
    compiler: Compiler, sysroot: PackageSpec, *, own_sysroot: bool = False
) -> list[PackageSpec]:
    """conda-forge's compiler names, leading to `compiler`.

    What is built with them requires the C++ runtime of that GCC, as it does with conda-forge's.

    Args:
        compiler: a GCC on this machine.
        sysroot: the package of the C library that it links against.
        own_sysroot: whether that package holds the C library; without, it is the machine's.
    """
    major = compiler.major
    flags = _SYSROOT_FLAGS if own_sysroot else ""

    def package(
        name: str, variables: Mapping[str, str], programs: Mapping[str, Path]
    ) -> list[PackageFile]:
        files = [
            PackageFile(
                f"bin/{_TRIPLE}-{tool}",
                _script(path, flags if tool in _DRIVERS else ""),
                0o755,
                None,
            )
            for tool, path in programs.items()
        ]
        return [*files, *_activation(name, variables)]

    binutils = {tool: Path(path) for tool in _BINUTILS if (path := shutil.which(tool)) is not None}
    c_programs = {"gcc": compiler.cc, "cc": compiler.cc, **binutils}
    c_variables = {"CC": f"$CONDA_PREFIX/bin/{_TRIPLE}-cc"}
    cxx_programs = {"g++": compiler.cxx, "c++": compiler.cxx}
    cxx_variables = {"CXX": f"$CONDA_PREFIX/bin/{_TRIPLE}-c++"}
    programs = {**c_programs, **cxx_programs}
    where = (*(str(path) for path in programs.values()), *([flags] if flags else []))
    exports = {
        "gcc_linux-64": [f"libgcc >={major}"],
        "gxx_linux-64": [f"libgcc >={major}", f"libstdcxx >={major}"],
    }

    def run_exports(name: str) -> dict[str, bytes]:
        return {"info/run_exports.json": json.dumps({"strong": exports[name]}).encode()}

    return [
        PackageSpec("libgcc", compiler.version, identity=where),
        PackageSpec("libstdcxx", compiler.version, identity=where),
        PackageSpec(
            "gcc_linux-64",
            compiler.version,
            identity=where,
            files=lambda: package("gcc_linux-64", c_variables, c_programs),
            depends=(f"sysroot_linux-64 {sysroot.version}.*",),
            info_files=run_exports("gcc_linux-64"),
        ),
        PackageSpec(
            "gxx_linux-64",
            compiler.version,
            identity=where,
            files=lambda: package("gxx_linux-64", cxx_variables, cxx_programs),
            depends=(f"gcc_linux-64 {compiler.version}.*",),
            info_files=run_exports("gxx_linux-64"),
        ),
    ]


def python_package() -> PackageSpec:
    """The running interpreter as conda's ``python``: links to it, and a ``pyvenv.cfg``.

    ``pyvenv.cfg`` makes the prefix the interpreter's ``sys.prefix``, as in a virtual environment:
    site-packages and scripts are the prefix's own, the standard library stays where it is.
    """
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    version = platform.python_version()
    minor = "{}.{}".format(*sys.version_info[:2])
    headers = Path(sysconfig.get_path("include"))
    config = f"home = {base.parent}\ninclude-system-site-packages = false\nversion = {version}\n"

    def files() -> list[PackageFile]:
        items = [
            link_out(f"bin/python{minor}", base),
            PackageFile("bin/python3", None, 0o777, f"python{minor}"),
            PackageFile("bin/python", None, 0o777, f"python{minor}"),
            PackageFile("pyvenv.cfg", config.encode(), 0o644, None),
        ]
        if headers.is_dir():
            items.append(link_out(f"include/python{minor}", headers))
        return items

    return PackageSpec(
        "python",
        version,
        identity=[str(base), str(headers), str(headers.is_dir()), config],
        files=files,
        flavour=f"cp{minor.replace('.', '')}",
        extra={"python_site_packages_path": f"lib/python{minor}/site-packages"},
    )
