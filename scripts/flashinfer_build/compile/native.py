"""Compiles ``csrc/``: the torch-free ``libflashinfer.so`` and the binding ``_C.abi3.so``.

A ninja file is written and run; setup.py, the recipes and ``scripts/native.py`` all come here, so
that every way to build uses the same flags and gives the same bytes.

The compilers see no absolute path: the build folder holds links to csrc/, the compilers and torch,
and all names go through those. So objects do not depend on where anything lies, a compiler cache
finds in one folder what it learned in another, and a path may have any letter in it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.errors import BuildFailed, ToolchainError
from conda_bridge.formats.cuda_archs import gencode_flags
from conda_bridge.system import atomic

from ..artifact import BINDING_NAME, BINDING_RUNPATH, LIBRARY_NAME
from . import compiler_cache, prerequisites, used_files, variables
from .measure import CAPTURED, Nvcc, Torch
from .variables import DEFAULT_ARCH_LIST, Cxx

__all__ = [
    "BINDING_JOB_MEMORY",
    "CUDA_JOB_MEMORY",
    "DEFAULT_ARCH_LIST",
    "build_binding",
    "build_library",
    "job_count",
    "used",
]

# sccache's own name for the file that nvcc has the host compiler compile, and the only one it has.
_HOST_NAME = "x_0.cudafe1.cpp"

_GIB = 1 << 30
# Peak memory of the heaviest translation unit of each kind, with room to spare; measured by
# benchmarks/compile_cost.py.
CUDA_JOB_MEMORY = 3 * _GIB // 2
BINDING_JOB_MEMORY = _GIB

_WARNINGS = ["-Wall", "-Wextra", "-Werror"]
_STANDARD = "-std=c++17"
_CXX = ["-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden"]
_TRACE = used_files.TRACE.format("$out")
# What made the objects in a build folder; see _Folders.made_with.
_MADE_WITH = "made-with.txt"
# A system header keeps the name it was found by; otherwise GCC writes its real path if shorter.
_NAMES = ["-fno-canonical-system-headers", "-ffile-prefix-map=csrc=flashinfer/csrc"]


@dataclass(frozen=True)
class _Unit:
    source: Path
    rule: str  # "cxx" or "cuda"
    defines: tuple[str, ...] = ()


class _Folders:
    """Links in the build folder, so that what they lead to has the same name wherever it lies.

    What was compiled through a link that now leads elsewhere is removed: for ninja, which compares
    command lines and times, it would be up to date.
    """

    def __init__(self, build_dir: Path) -> None:
        build_dir.mkdir(parents=True, exist_ok=True)
        self._build_dir = build_dir

    def link(self, name: str, target: Path, *, compiled: bool = True) -> str:
        """`name`, which leads to the folder `target` from now on.

        Args:
            name: of the link.
            target: an existing folder.
            compiled: whether objects depend on what is there; False for what is only linked.
        """
        path = self._build_dir / name
        target = target.absolute()
        if path.is_symlink() and Path(os.readlink(path)) == target:
            return name
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        self._forget("*.o" if compiled else "*.so")
        return name

    def made_with(self, identity: str) -> None:
        """Removes what another compiler, CUDA or torch made, which may lie in the same place.

        An installer may give the files of a new release older times than the objects have.
        """
        record = self._build_dir / _MADE_WITH
        if record.is_file() and record.read_text(errors="replace") == identity:
            return
        self._forget("*.o")
        self._forget("*.so")
        atomic.write_text(record, identity)

    def _forget(self, pattern: str) -> None:
        for made in self._build_dir.glob(pattern):
            made.unlink()


def available_memory() -> int:
    """Bytes this process may still take: the machine's, or its control group's if smaller."""
    available = 8 * _GIB
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) << 10
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file():
        text = limit.read_text().strip()
        if text != "max":
            used = int(Path("/sys/fs/cgroup/memory.current").read_text())
            available = min(available, max(int(text) - used, 0))
    return available


def job_count(memory_per_job: int, environ: Mapping[str, str] = os.environ) -> int:
    """How many compilers to run at once: the processors, fewer where memory is short.

    ``MAX_JOBS`` is an upper bound for people who know better.

    Raises:
        ConfigError: ``MAX_JOBS`` is not a number.
    """
    jobs = min(len(os.sched_getaffinity(0)), max(1, available_memory() // memory_per_job))
    return min(jobs, variables.max_jobs(environ) or jobs)


def build_library(
    root: Path,
    prefix: Path,
    build_dir: Path,
    *,
    version: str,
    nvcc: Nvcc | None,
    arch_list: str = DEFAULT_ARCH_LIST,
    environ: Mapping[str, str] = os.environ,
) -> Path:
    """Compiles the kernels and installs ``lib/libflashinfer.so`` and its header in `prefix`.

    Args:
        root: the project's folder.
        prefix: where to install.
        build_dir: for objects; a second call there compiles only what changed.
        version: with the commit of a nightly; recorded in the library.
        nvcc: the CUDA compiler, or None for the CPU build.
        arch_list: the GPU architectures, in torch's notation; ignored without nvcc.

    Returns:
        The library.

    Raises:
        BuildFailed: a compiler or the linker failed.
        ConfigError: a variable that cannot be used.
        ToolchainError: no C++ compiler, no ninja or no static CUDA runtime.
    """
    if nvcc:
        variables.check_nvcc_paths(environ, build_dir)
    csrc = root / "csrc"
    folders = _Folders(build_dir)
    units = [_Unit(source, "cxx") for source in sorted(csrc.glob("cpu/*.cpp"))]
    # What compiled the library and for what: build_info.cu with nvcc, build_info.cpp without.
    about = [f"-DFLASHINFER_VERSION={_quoted(version)}"]
    about.append(f"-DFLASHINFER_ARCH_LIST={_quoted(arch_list if nvcc else '')}")
    shared = (source for source in sorted(csrc.glob("*.cpp")) if source.stem != "build_info")
    units += [_Unit(source, "cxx") for source in shared]
    defines: list[str] = []
    libraries: list[str] = []
    if nvcc:
        for source in sorted(csrc.glob("cuda/*.cu")):
            units.append(_Unit(source, "cuda", tuple(about) if source.stem == "build_info" else ()))
        defines.append("-DFLASHINFER_WITH_CUDA")
        libraries = [_runtime(nvcc, folders, environ), "-lrt", "-lpthread", "-ldl"]
    else:
        units.append(_Unit(csrc / "build_info.cpp", "cxx", tuple(about)))
    include = ["-Icsrc", "-Icsrc/include"]
    own = _shell(variables.compile_flags(environ))
    flags = [*_CXX, *_WARNINGS, *_NAMES, *defines, *include, *own, _STANDARD]
    cxx = variables.find_cxx(environ)
    if nvcc:
        variables.check_nvcc_flags(environ, cxx)
    output = build_dir / LIBRARY_NAME
    link = [*_LINK, "-Wl,-soname," + LIBRARY_NAME, "-Wl,--no-undefined", "-Wl,--exclude-libs,ALL"]
    cuda_flags = (
        _cuda_flags(nvcc, arch_list, [*defines, *include], cxx, folders, environ) if nvcc else []
    )
    _run_ninja(
        root,
        units,
        output,
        folders,
        cxx,
        cxx_flags=flags,
        cuda_flags=cuda_flags,
        link_flags=[*link, *libraries, *_shell(variables.link_flags(environ))],
        nvcc=nvcc,
        memory_per_job=CUDA_JOB_MEMORY if nvcc else BINDING_JOB_MEMORY,
        environ=environ,
    )
    atomic.copy(csrc / "include" / "flashinfer" / "api.h", prefix / "include/flashinfer/api.h")
    installed = prefix / "lib" / LIBRARY_NAME
    _install(output, installed)
    return installed


def build_binding(
    root: Path,
    output: Path,
    build_dir: Path,
    *,
    version: str,
    variant: str,
    torch: Torch,
    library_dir: Path,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Compiles the torch binding against `torch` and ``libflashinfer.so`` in `library_dir`.

    Args:
        output: the file to write, normally ``flashinfer/_C.abi3.so``.
        variant: the variant's id, recorded in the file.

    Raises:
        BuildFailed: a compiler or the linker failed.
    """
    folders = _Folders(build_dir)
    headers = f"{folders.link('torch', torch.root)}/include"
    libraries = folders.link("library", library_dir, compiled=False)
    cxx = variables.find_cxx(environ)
    standard = "-std=c++20" if torch.minor >= (2, 14) else _STANDARD
    about = (
        f"-DFLASHINFER_VERSION={_quoted(version)}",
        f"-DFLASHINFER_VARIANT={_quoted(variant)}",
    )
    units = [
        _Unit(source, "cxx", about if source.stem == "module" else ())
        for source in sorted((root / "csrc").glob("torch/*.cpp"))
    ]
    flags = [
        *_CXX,
        # It checks arguments and calls: the optimiser's last level only adds a third to the time.
        "-O2",
        # For at::parallel_for; never at link time (csrc/torch/parallel.cpp says why).
        "-fopenmp",
        *_WARNINGS,
        *_NAMES,
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.cxx11_abi)}",
        "-Icsrc",
        "-Icsrc/include",
        f"-isystem {headers}",
        f"-isystem {headers}/torch/csrc/api/include",
        *_shell(variables.compile_flags(environ)),
        # torch's own headers ask for C++20 from 2.14 on; the last -std wins.
        standard,
    ]
    link = [
        *_LINK,
        "-Ltorch/lib",
        f"-L{libraries}",
        # A library of an earlier build, from some cache, lacks what was added since; this finds it
        # here and not at a user's import.
        "-Wl,--no-undefined",
        "-Wl,--as-needed",
        "-ltorch_cpu",
        "-lc10",
        "-lflashinfer",
        f"-Wl,-rpath,{_shell([BINDING_RUNPATH])[0]}",
        *_shell(variables.link_flags(environ)),
        # After those of LDFLAGS: an RPATH would be searched before LD_LIBRARY_PATH.
        "-Wl,--enable-new-dtags",
    ]
    compiled = build_dir / BINDING_NAME
    _run_ninja(
        root,
        units,
        compiled,
        folders,
        cxx,
        cxx_flags=flags,
        cuda_flags=[],
        link_flags=link,
        nvcc=None,
        memory_per_job=BINDING_JOB_MEMORY,
        environ=environ,
        identity=(torch.root / "version.py").read_text(errors="replace"),
    )
    _install(compiled, output)


def used(
    root: Path, library: Path, nvcc: Nvcc | None, environ: Mapping[str, str] = os.environ
) -> used_files.UsedFiles:
    """What a library was made of that :func:`build_library` or :func:`build_binding` compiled.

    Args:
        root: the project's folder.
        library: in the folder that it was built in.
        nvcc: the CUDA compiler, where one took part.

    Raises:
        BuildFailed: there is no record of it.
    """
    cxx = variables.find_cxx(environ)
    return used_files.read(root, library, ninja=_ninja_program(environ), cxx=cxx.command, nvcc=nvcc)


# Symbols are stripped because nvcc puts a process id in local ones; what is exported stays.
_LINK = ["-shared", "-Wl,-s", "-Wl,--build-id=sha1", "-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack"]


def _quoted(text: str) -> str:
    """A C string literal as a shell word, also for nvcc, which passes it through a second shell."""
    return f"'\"{text}\"'"


def _shell(arguments: Sequence[str]) -> list[str]:
    """`arguments` as words for the shell that ninja hands its commands to."""
    return [_ninja(shlex.quote(argument)) for argument in arguments]


def _ninja(text: str) -> str:
    """`text` for the value of a ninja variable."""
    return text.replace("$", "$$")


def _ninja_program(environ: Mapping[str, str]) -> str:
    found = prerequisites.find_ninja(environ)
    if not found:
        raise ToolchainError("there is no ninja", where="PATH", fix="pip install ninja")
    return found


def _homes(nvcc: Nvcc, environ: Mapping[str, str]) -> dict[str, Path]:
    """Where parts of the toolkit may be, by a name for each: conda splits it over two prefixes."""
    homes = {"cuda": nvcc.home}
    for name in ("PREFIX", "BUILD_PREFIX"):
        if environ.get(name) and Path(environ[name]) not in homes.values():
            homes[name.lower()] = Path(environ[name])
    return homes


def _runtime(nvcc: Nvcc, folders: _Folders, environ: Mapping[str, str]) -> str:
    """The static CUDA runtime, by its name in the build folder."""
    leaves = ("targets/x86_64-linux/lib", "lib", "lib64")
    homes = _homes(nvcc, environ)
    for name, home in homes.items():
        for leaf in leaves:
            if (home / leaf / "libcudart_static.a").is_file():
                return f"{folders.link(name, home)}/{leaf}/libcudart_static.a"
    searched = [str(home / leaf) for home in homes.values() for leaf in leaves]
    raise ToolchainError(
        "libcudart_static.a, the CUDA runtime to link in, is missing",
        where=", ".join(searched),
        fix="install cuda-cudart-static (conda) or nvidia-cuda-runtime (pip)",
    )


def _cuda_flags(
    nvcc: Nvcc,
    arch_list: str,
    flags: Sequence[str],
    cxx: Cxx,
    folders: _Folders,
    environ: Mapping[str, str],
) -> list[str]:
    # Quoted twice, as nvcc hands them to a shell of its own. What is for the linker alone has
    # commas, at which nvcc would divide it.
    words = [word for word in cxx.arguments if not word.startswith("-Wl,")]
    own = [_ninja(shlex.quote(word)) for word in words]
    host = [*own, *_WARNINGS, "-fPIC", "-fvisibility=hidden", *_NAMES]
    # The object names the file that the host compiler was given; sccache's name for it is taken.
    archs = gencode_flags(arch_list, "FLASHINFER_CUDA_ARCH_LIST")
    codes = re.findall(r"arch=(compute_\w+)", " ".join(archs))
    names = [f"$out.{code}.cudafe1.cpp" for code in dict.fromkeys(codes)]
    host += [f"-ffile-prefix-map={name}={_HOST_NAME}" for name in (*names, "$out.cudafe1.cpp")]
    system = []
    for name, home in _homes(nvcc, environ).items():
        for leaf in ("targets/x86_64-linux/include", "include"):
            if (home / leaf).is_dir():
                system.append(f"-isystem {folders.link(name, home)}/{leaf}")
    return [
        "-std=c++17",
        "-O3",
        *archs,
        "-Xfatbin=-compress-all",
        "-Werror=all-warnings",
        f"-ccbin={_named_cxx(cxx, folders)}",
        # Intermediate files get names without a process id.
        "-objtemp",
        *(f"-Xcompiler={shlex.quote(flag)}" for flag in host),
        *flags,
        *system,
    ]


def _named_cxx(cxx: Cxx, folders: _Folders) -> str:
    return f"{folders.link('cxx', cxx.path.parent)}/{_shell([cxx.path.name])[0]}"


def _hashes_source_path(nvcc: Nvcc) -> bool:
    """Whether this nvcc makes names of internal symbols from the absolute path of the source."""
    command = [str(nvcc.path), "--dryrun", "-c", "-x", "cu", "/dev/null", "-o", "/dev/null"]
    return "--orig_src_path_name" in subprocess.run(command, **CAPTURED).stderr


def _run_ninja(
    root: Path,
    units: Sequence[_Unit],
    output: Path,
    folders: _Folders,
    cxx: Cxx,
    *,
    cxx_flags: Sequence[str],
    cuda_flags: Sequence[str],
    link_flags: Sequence[str],
    nvcc: Nvcc | None,
    memory_per_job: int,
    environ: Mapping[str, str],
    identity: str = "",
) -> None:
    build_dir = output.parent
    folders.link("csrc", root / "csrc")
    made_with = [compiler_cache.identity_of_cxx(cxx.command, environ), identity]
    if nvcc:
        made_with.append(compiler_cache.identity_of_nvcc(nvcc))
    folders.made_with(hashlib.sha256("\n".join(made_with).encode()).hexdigest())
    command = " ".join([_named_cxx(cxx, folders), *_shell(cxx.arguments)])
    # nvcc would resolve the name that it is given; the last one wins.
    named = "-Xcudafe=--orig_src_path_name,$name" if nvcc and _hashes_source_path(nvcc) else ""
    objects, builds = [], []
    # CUDA first, then by size: with a slow one at the end, one core would finish alone.
    for unit in sorted(units, key=lambda unit: (unit.rule != "cuda", -unit.source.stat().st_size)):
        name = unit.source.relative_to(root)
        objects.append(f"{name.parent.name}-{name.name}.o")
        builds.append(f"build {objects[-1]}: {unit.rule} {name}")
        builds += [f"  name = flashinfer/{name}", f"  defines = {' '.join(unit.defines)}"]
    nvcc_command = cuda_environ = ""
    if nvcc:
        leaf = _shell([nvcc.path.name])[0]
        nvcc_command = f"{folders.link('nvcc', nvcc.path.parent)}/{leaf}"
        # nvcc reads these by itself; in its command, ninja sees a change of them as well.
        pairs = variables.nvcc_environ(environ).items()
        cuda_environ = " ".join(f"{name}={_shell([value])[0]}" for name, value in pairs)
    jobs = job_count(memory_per_job, environ)
    # LD_RUN_PATH would add the builder's prefix to the RUNPATH.
    clean = {name: value for name, value in environ.items() if name != "LD_RUN_PATH"}
    with compiler_cache.session(cxx.command, nvcc, build_dir, jobs=jobs, environ=clean) as use:
        lines = [
            "ninja_required_version = 1.8",
            f"cxx = {command}",
            f"cxx_cache = {_ninja(use.cxx)}",
            f"nvcc = {nvcc_command}",
            f"cuda_cache = {cuda_environ} {_ninja(use.cuda)}",
            f"cxx_flags = {' '.join(cxx_flags)}",
            f"link_flags = {' '.join(link_flags)}",
            "rule cxx",
            "  command = $cxx_cache $cxx $cxx_flags $defines -MD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = compile $in",
            "rule cuda",
            f"  command = $cuda_cache $nvcc {' '.join(cuda_flags)} {named} $defines"
            " -MD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = compile $in",
            "rule link",
            # Asked twice, the linker names the members that it took of an archive, too.
            f"  command = $cxx $in -o $out $link_flags -Wl,--trace -Wl,--trace > {_TRACE}",
            "  description = link $out",
            *builds,
            f"build {output.name}: link {' '.join(sorted(objects))}",
            f"default {output.name}",
        ]
        # Names may have bytes that are not UTF-8.
        atomic.write_bytes(build_dir / "build.ninja", os.fsencode("\n".join(lines) + "\n"))
        ninja = [_ninja_program(environ), "-j", str(jobs)]
        done = subprocess.run(ninja, cwd=build_dir, env=dict(use.environ))
    if done.returncode != 0:
        raise BuildFailed(
            f"ninja stopped with exit status {done.returncode}; see the compiler output above",
            where=str(build_dir / "build.ninja"),
        )


def _install(source: Path, target: Path) -> None:
    atomic.copy(source, target)
    target.chmod(0o755)
