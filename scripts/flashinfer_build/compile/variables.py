"""The environment variables of other tools that people set for a build: honoured, or refused.

Nothing that is set for a compiler, for CUDA or for torch's own builds is passed over in silence: a
value that cannot be used stops the build before anything is compiled, and one without a part in it
is named. docs/source-build.md lists them for people.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.errors import ConfigError, ToolchainError
from conda_bridge.formats.cuda_archs import gencode_flags

from .measure import CAPTURED, PROGRAMS, TOOLKITS, Nvcc

__all__ = [
    "ARCH_VARIABLES",
    "DEFAULT_ARCH_LIST",
    "Cxx",
    "arch_list",
    "check_abi",
    "check_archs",
    "check_nvcc_flags",
    "check_nvcc_paths",
    "compile_flags",
    "find_cxx",
    "link_flags",
    "max_jobs",
    "notes",
    "nvcc_environ",
    "without_part_in_packages",
    "words",
]

DEFAULT_ARCH_LIST = "8.0+PTX;9.0a"
# The first that is set decides: ours, torch's, then CMake's.
ARCH_VARIABLES = (
    "FLASHINFER_CUDA_ARCH_LIST",
    "TORCH_CUDA_ARCH_LIST",
    "CUDAARCHS",
    "CMAKE_CUDA_ARCHITECTURES",
)
_MINIMUM = (8, 0)  # cp.async and mma.sync with bf16
# The names that torch's list may have in place of numbers, from its documentation.
_GENERATIONS = {
    "kepler": "3.5",
    "maxwell": "5.0",
    "pascal": "6.0",
    "volta": "7.0",
    "turing": "7.5",
    "ampere": "8.0;8.6",
    "ada": "8.9",
    "hopper": "9.0",
    "blackwell": "10.0;12.0",
}
_CMAKE_ARCH = re.compile(r"^(\d+)(\d[af]?)(-real|-virtual)?$")
_ARCH_OPTION = re.compile(
    r"^(-gencode|--generate-code|-arch|--gpu-architecture|-code|--gpu-code)(=|$)"
)
_CCBIN_OPTION = re.compile(r"^(?:-ccbin|--compiler-bindir)(?:=(.*))?$")
_ABI_OPTION = re.compile(r"^(?:-D_GLIBCXX_USE_CXX11_ABI(?:=(.*))?|-U_GLIBCXX_USE_CXX11_ABI)$")
_NOT_FOR_NVCC = '"$`\n'
_CACHES = ("ccache", "sccache", "distcc", "icecc")
_FLAGS = ("CPPFLAGS", "CXXFLAGS", "CFLAGS", "LDFLAGS")
_HOSTS = ("CUDAHOSTCXX", "NVCC_CCBIN")
_NVCC_FLAGS = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")
# Set for other projects' builds, and what takes their place here.
_NO_PART = {
    "CMAKE_BUILD_PARALLEL_LEVEL": "MAX_JOBS bounds the number of compilers",
    "CUDAFLAGS": "NVCC_APPEND_FLAGS reaches nvcc",
    "FORCE_CUDA": "FLASHINFER_REQUIRE_CUDA=1 makes a missing nvcc an error",
    "NVCC_THREADS": "MAX_JOBS bounds the number of compilers, each of which has one thread",
    "TORCH_NVCC_FLAGS": "NVCC_APPEND_FLAGS reaches nvcc",
}


@dataclass(frozen=True)
class Cxx:
    """A C++ compiler.

    Attributes:
        path: the program.
        arguments: what ``CXX`` has behind it.
    """

    path: Path
    arguments: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The program and its arguments."""
        return [str(self.path), *self.arguments]


def words(name: str, environ: Mapping[str, str]) -> list[str]:
    """The words of the variable `name`, as a shell would split it.

    Raises:
        ConfigError: a quotation that does not end.
    """
    try:
        return shlex.split(environ.get(name) or "")
    except ValueError as error:
        raise ConfigError(
            f"{environ[name]!r} is not a list of words: {error}",
            where=name,
            expected="words as in a shell, those with spaces in quotes",
        ) from None


def max_jobs(environ: Mapping[str, str]) -> int | None:
    """``MAX_JOBS``, or None where it is not set.

    Raises:
        ConfigError: it is not a number of jobs.
    """
    text = (environ.get("MAX_JOBS") or "").strip()
    if not text:
        return None
    if not re.fullmatch(r"0*[1-9][0-9]{0,5}", text):
        raise ConfigError(f"{text!r} is not a number", where="MAX_JOBS", expected="1, 2, 3, ...")
    return int(text)


def arch_list(environ: Mapping[str, str]) -> str:
    """The GPU architectures that are asked for, in torch's notation, or the default.

    Raises:
        ConfigError: a list that is none.
    """
    for variable in ARCH_VARIABLES:
        text = (environ.get(variable) or "").strip()
        if not text:
            continue
        translate = _TRANSLATIONS.get(variable)
        translated = text
        if translate:
            translated = ";".join(map(translate, re.split(r"[;,\s]+", text)))
        try:
            gencode_flags(translated)
        except ConfigError as error:
            raise ConfigError(error.what, where=variable, expected=error.expected) from None
        return translated
    return DEFAULT_ARCH_LIST


def _of_torch(entry: str) -> str:
    name, plus, ptx = entry.partition("+")
    return _GENERATIONS[name.lower()] + plus + ptx if name.lower() in _GENERATIONS else entry


def _of_cmake(entry: str) -> str:
    """``80`` has code and PTX, as CMake means it; ``80-real`` the code alone."""
    found = _CMAKE_ARCH.match(entry)
    if not found or found[3] == "-virtual":
        raise ConfigError(
            f"{entry!r} cannot be used here",
            where=", ".join(ARCH_VARIABLES[2:]),
            expected="numbers such as 80 or 90a-real; PTX comes with code",
            fix=f"set {ARCH_VARIABLES[0]}, such as '{DEFAULT_ARCH_LIST}'; it outranks the others",
        )
    return f"{found[1]}.{found[2]}" + ("" if found[3] else "+PTX")


_TRANSLATIONS: Mapping[str, Callable[[str], str]] = {
    "TORCH_CUDA_ARCH_LIST": _of_torch,
    "CUDAARCHS": _of_cmake,
    "CMAKE_CUDA_ARCHITECTURES": _of_cmake,
}


def _source(environ: Mapping[str, str]) -> str:
    return next((name for name in ARCH_VARIABLES if (environ.get(name) or "").strip()), "")


def check_archs(environ: Mapping[str, str], nvcc: Nvcc) -> None:
    """Stops for an architecture that the kernels or this nvcc cannot be compiled for.

    Raises:
        ConfigError: there is one.
    """
    chosen, where = arch_list(environ), _source(environ)
    entries = re.split(r"[;,\s]+", chosen.strip())
    numbers = {entry: _number(entry) for entry in entries}
    low = [entry for entry, number in numbers.items() if number < _MINIMUM]
    if low:
        rest = ";".join(entry for entry in entries if entry not in low) or DEFAULT_ARCH_LIST
        raise ConfigError(
            f"{', '.join(low)}: the kernels need compute capability 8.0 or above",
            where=where,
            fix=f"set {ARCH_VARIABLES[0]}='{rest}'; it outranks {', '.join(ARCH_VARIABLES[1:])}",
        )
    known = _known(nvcc)
    foreign = [entry for entry, number in numbers.items() if known and number not in known]
    if foreign:
        raise ConfigError(
            f"nvcc {nvcc.version} does not know {', '.join(foreign)}",
            where=where or str(nvcc.path),
            expected="of " + ", ".join("{}.{}".format(*number) for number in sorted(known)),
            fix="set FLASHINFER_CUDA_ARCH_LIST to some of these, or CUDA_HOME to another CUDA",
        )


def _number(entry: str) -> tuple[int, int]:
    major, minor = entry.partition("+")[0].rstrip("af").split(".")
    return int(major), int(minor)


def _known(nvcc: Nvcc) -> set[tuple[int, int]]:
    """What nvcc says that it compiles for; empty where it does not say."""
    try:
        done = subprocess.run([str(nvcc.path), "--list-gpu-arch"], **CAPTURED)
    except OSError:
        return set()
    found = re.findall(r"^compute_(\d+)(\d)[af]?$", done.stdout, re.MULTILINE)
    return {(int(major), int(minor)) for major, minor in found} if done.returncode == 0 else set()


def find_cxx(environ: Mapping[str, str]) -> Cxx:
    """The C++ compiler: ``CXX``, or the one beside the C compiler of ``CC``, or ``g++``.

    Raises:
        ConfigError: a variable that names none.
        ToolchainError: it is not there, or is not GCC.
    """
    variable, value = "PATH", "g++"
    if (environ.get("CXX") or "").strip():
        variable, value = "CXX", environ["CXX"]
    elif (environ.get("CC") or "").strip():
        variable, value = "CC", _cxx_of_cc(environ)
    # A path with a space in it, as an environment's activation writes it.
    path = environ.get("PATH")
    whole = shutil.which(value, path=path)
    name, *arguments = [value] if whole else words(variable, {variable: value})
    if Path(name).name in _CACHES:
        raise ConfigError(
            f"{name} is no C++ compiler",
            where=f"{variable}={value}",
            fix=f"set {variable} to the compiler alone; FLASHINFER_COMPILER_CACHE names a cache",
        )
    found = shutil.which(name, path=path)
    if not found:
        raise ToolchainError(
            f"there is no C++ compiler {name!r}",
            where=variable,
            fix="on Debian `apt install g++`; with conda `conda install cxx-compiler`",
        )
    cxx = Cxx(Path(found).absolute(), tuple(arguments))
    _check_gcc(cxx, variable, environ)
    return cxx


def _cxx_of_cc(environ: Mapping[str, str]) -> str:
    """The command of the C++ compiler that belongs to the C compiler in ``CC``."""
    value = environ["CC"]
    whole = shutil.which(value, path=environ.get("PATH"))
    name, *arguments = [value] if whole else words("CC", environ)
    path = Path(name)
    leaf = re.sub(
        r"(?<![a-z])(gcc|clang|cc)(?=-?[\d.]*$)",
        lambda found: {"gcc": "g++", "clang": "clang++", "cc": "c++"}[found[1]],
        path.name,
    )
    if leaf == path.name:
        raise ConfigError(
            f"no C++ compiler is known that belongs to {name}",
            where=f"CC={value}",
            fix="set CXX to the C++ compiler: nothing here is written in C",
        )
    return shlex.join([str(path.with_name(leaf)) if path.parent != Path() else leaf, *arguments])


def _check_gcc(cxx: Cxx, variable: str, environ: Mapping[str, str]) -> None:
    command = [*cxx.command, "-E", "-dM", "-x", "c++", os.devnull]
    try:
        done = subprocess.run(command, env=dict(environ), stdin=subprocess.DEVNULL, **CAPTURED)
    except OSError as error:
        raise ToolchainError(
            f"the C++ compiler does not run: {error.strerror}", where=str(cxx.path)
        ) from None
    if done.returncode != 0 or "#define __GNUC__ " not in done.stdout:
        raise ToolchainError(
            f"this is no C++ compiler that works: {done.stderr.strip()[-500:]}",
            where=f"{variable}: {shlex.join(cxx.command)}",
            fix="set CXX to a g++",
        )
    if "#define __clang__ " in done.stdout:
        raise ToolchainError(
            "this is clang, and the sources are compiled by GCC alone",
            where=f"{variable}: {shlex.join(cxx.command)}",
            fix="set CXX to a g++",
        )


def compile_flags(environ: Mapping[str, str]) -> list[str]:
    """``CPPFLAGS`` and ``CXXFLAGS``; ``CFLAGS`` in place of the latter, as setuptools does it.

    Raises:
        ConfigError: a quotation that does not end.
    """
    own = "CXXFLAGS" if environ.get("CXXFLAGS") else "CFLAGS"
    return [*words("CPPFLAGS", environ), *words(own, environ)]


def link_flags(environ: Mapping[str, str]) -> list[str]:
    """``LDFLAGS``.

    Raises:
        ConfigError: a quotation that does not end.
    """
    return words("LDFLAGS", environ)


def check_abi(environ: Mapping[str, str], cxx: Cxx, cxx11_abi: bool) -> None:
    """Stops for flags with another ABI of C++ strings than torch has.

    Raises:
        ConfigError: there are such flags.
    """
    for flag in (*compile_flags(environ), *cxx.arguments):
        found = _ABI_OPTION.match(flag)
        if found and (found[1] or "1") != str(int(cxx11_abi)):
            raise ConfigError(
                f"{flag} is another ABI of C++ strings than torch has",
                where="CPPFLAGS, CXXFLAGS, CFLAGS or CXX",
                expected=f"-D_GLIBCXX_USE_CXX11_ABI={int(cxx11_abi)}, which the build sets itself",
                fix="take the flag away",
            )


def check_nvcc_flags(environ: Mapping[str, str], cxx: Cxx) -> None:
    """Stops for what would have nvcc do something else than the label says.

    Raises:
        ConfigError: GPU architectures, or a host compiler that is not `cxx`.
    """
    hosts = {name: environ[name] for name in _HOSTS if environ.get(name)}
    for variable in _NVCC_FLAGS:
        flags = words(variable, environ)
        for flag, following in zip(flags, [*flags[1:], ""]):
            if _ARCH_OPTION.match(flag):
                raise ConfigError(
                    f"{flag} would compile for other GPU architectures than the build records",
                    where=variable,
                    fix="set FLASHINFER_CUDA_ARCH_LIST, such as '8.0+PTX;9.0a', in its place",
                )
            found = _CCBIN_OPTION.match(flag)
            if found:
                hosts[variable] = found[1] or following
    for variable, host in hosts.items():
        path = Path(host) / cxx.path.name if Path(host).is_dir() else Path(host)
        named = shutil.which(str(path), path=environ.get("PATH"))
        if not named or not _same(Path(named), cxx.path):
            raise ConfigError(
                f"the host compiler {host} is not the C++ compiler {cxx.path}",
                where=variable,
                expected="one compiler for all of the library",
                fix=f"set CXX to the one to use, and unset {variable}",
            )


def check_nvcc_paths(environ: Mapping[str, str], folder: Path) -> None:
    """Stops for folders whose names the shell that nvcc starts would read as something else.

    Args:
        environ: for ``TMPDIR``.
        folder: where nvcc runs, or the one that it will be in.

    Raises:
        ConfigError: there is one.
    """
    places = {"the folder that is built in": str(folder), "TMPDIR": environ.get("TMPDIR") or ""}
    for what, path in places.items():
        found = sorted({letter for letter in path if letter in _NOT_FOR_NVCC})
        if found:
            raise ConfigError(
                f"the path has {' and '.join(map(repr, found))} in it",
                where=f"{what}: {path}",
                expected="a path that nvcc can hand to a shell in double quotes",
                fix="move it, or set FLASHINFER_FORCE_CPU=1 for the CPU build",
            )


def _same(one: Path, other: Path) -> bool:
    """Whether both lead to one compiler; gcc as a host compiler is the g++ beside it."""
    names = {re.sub("gcc|cc", "g++", path.resolve().name) for path in (one, other)}
    return one.resolve() == other.resolve() or (
        one.resolve().parent == other.resolve().parent and len(names) == 1
    )


def nvcc_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The flags that nvcc reads from the environment by itself; they belong to its command."""
    return {name: environ[name] for name in _NVCC_FLAGS if environ.get(name)}


def without_part_in_packages(environ: Mapping[str, str]) -> list[str]:
    """What is set for a build from source and has no part where packages are built, in one line.

    ``scripts/build.py`` and the recipes bring their compilers and their flags themselves.
    """
    own = [*PROGRAMS, *TOOLKITS, *ARCH_VARIABLES, *_FLAGS, *_NVCC_FLAGS, *_HOSTS, *_NO_PART]
    own += ["FLASHINFER_TORCH_DIR", "FLASHINFER_LIBRARY_DIR", "FLASHINFER_FORCE_CPU"]
    names = [name for name in own if (environ.get(name) or "").strip()]
    if not names:
        return []
    return [
        f"{', '.join(names)}: no part in packages, whose compilers and flags are their own; --arch"
        " chooses GPU architectures, and `pip install .` builds with what is set"
    ]


def notes(environ: Mapping[str, str], nvcc: Nvcc | None) -> list[str]:
    """What is set and has no part in this build, a line each."""
    lines = [
        f"{name} has no part in this build; {instead}"
        for name, instead in _NO_PART.items()
        if environ.get(name)
    ]
    asked = [name for name in ARCH_VARIABLES if (environ.get(name) or "").strip()]
    if nvcc is None:
        lines += [f"{name} has no part in a CPU build" for name in asked]
    else:
        lines += [f"{name} has no part in this build; {asked[0]} decides" for name in asked[1:]]
    if environ.get("CXXFLAGS") and environ.get("CFLAGS") not in (None, "", environ["CXXFLAGS"]):
        lines.append("CFLAGS has no part in this build; CXXFLAGS decides")
    return lines
