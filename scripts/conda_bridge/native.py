"""Compiles ``csrc/``: the torch-free ``libflashinfer.so`` and the binding ``_C.abi3.so``.

A ninja file is written and run; setup.py, the recipes and ``scripts/native.py`` all come here, so
that every way to build uses the same flags and gives the same bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import atomic
from .errors import BuildFailed, ConfigError, ToolchainError
from .measure import Nvcc, Torch

__all__ = [
    "BINDING_JOB_MEMORY",
    "CUDA_JOB_MEMORY",
    "DEFAULT_ARCH_LIST",
    "build_binding",
    "build_library",
    "gencode_flags",
    "job_count",
]

DEFAULT_ARCH_LIST = "8.0+PTX;9.0a"
BINDING_RUNPATH = "$ORIGIN/lib:$ORIGIN/../../..:$ORIGIN/../torch/lib"
LIBRARY_NAME = "libflashinfer.so"

_ARCH = re.compile(r"^(\d+)\.(\d)([af]?)(\+PTX)?$")
_GIB = 1 << 30
# Peak memory of the heaviest translation unit of each kind, with room to spare; measured by
# benchmarks/compile_cost.py.
CUDA_JOB_MEMORY = 3 * _GIB // 2
BINDING_JOB_MEMORY = _GIB

_WARNINGS = ["-Wall", "-Wextra", "-Werror"]
_CXX = ["-std=c++17", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden"]


@dataclass(frozen=True)
class _Unit:
    source: Path
    rule: str  # "cxx" or "cuda"


def gencode_flags(arch_list: str) -> list[str]:
    """nvcc's ``-gencode`` flags for a list such as ``8.0+PTX;9.0a`` (torch's notation).

    Raises:
        ConfigError: an entry that is not ``X.Y``, ``X.Ya`` or either with ``+PTX``.
    """
    flags: list[str] = []
    for entry in re.split(r"[;,\s]+", arch_list.strip()):
        found = _ARCH.match(entry)
        if not found:
            raise ConfigError(
                f"{entry!r} is not a CUDA architecture",
                where="FLASHINFER_CUDA_ARCH_LIST",
                expected="entries such as 8.0, 9.0a or 8.0+PTX, separated by ';'",
            )
        number = f"{found[1]}{found[2]}{found[3]}"
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if found[4]:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


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
    """
    jobs = min(len(os.sched_getaffinity(0)), max(1, available_memory() // memory_per_job))
    if environ.get("MAX_JOBS"):
        try:
            jobs = min(jobs, max(1, int(environ["MAX_JOBS"])))
        except ValueError:
            raise ConfigError(
                f"{environ['MAX_JOBS']!r} is not a number", where="MAX_JOBS"
            ) from None
    return jobs


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
        version: the public version, recorded in the library.
        nvcc: the CUDA compiler, or None for the CPU build.
        arch_list: the GPU architectures, in torch's notation; ignored without nvcc.

    Returns:
        The library.

    Raises:
        BuildFailed: a compiler or the linker failed.
        ToolchainError: no C++ compiler, no ninja or no static CUDA runtime.
    """
    csrc = root / "csrc"
    units = [_Unit(source, "cxx") for source in sorted(csrc.glob("cpu/*.cpp"))]
    # build_info.cpp is for builds without nvcc, where no .cu file can say what compiled it.
    shared = (source for source in sorted(csrc.glob("*.cpp")) if source.stem != "build_info")
    units += [_Unit(source, "cxx") for source in shared]
    archs = ""
    defines = [f"-DFLASHINFER_VERSION={_quoted(version)}"]
    libraries: list[str] = []
    if nvcc:
        units += [_Unit(source, "cuda") for source in sorted(csrc.glob("cuda/*.cu"))]
        archs = arch_list
        defines.append("-DFLASHINFER_WITH_CUDA")
        libraries = [*_runtime_flags(nvcc, environ), "-lrt", "-lpthread", "-ldl"]
    else:
        units.append(_Unit(csrc / "build_info.cpp", "cxx"))
    defines.append(f"-DFLASHINFER_ARCH_LIST={_quoted(archs)}")
    include = [f"-I{csrc}", f"-I{csrc / 'include'}"]
    flags = [*_CXX, *_WARNINGS, *_path_maps(root, environ), *defines, *include]
    output = build_dir / LIBRARY_NAME
    link = [*_LINK, "-Wl,-soname," + LIBRARY_NAME, "-Wl,--no-undefined", "-Wl,--exclude-libs,ALL"]
    _run_ninja(
        units,
        output,
        build_dir,
        cxx_flags=flags,
        cuda_flags=_cuda_flags(root, nvcc, archs, defines, include, environ) if nvcc else [],
        link_flags=[*link, *libraries],
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
    csrc = root / "csrc"
    units = [_Unit(source, "cxx") for source in sorted(csrc.glob("torch/*.cpp"))]
    flags = [
        *_CXX,
        # It checks arguments and calls: the optimiser's last level only adds a third to the time.
        "-O2",
        # torch's own headers ask for C++20 from 2.14 on; the later -std wins.
        *(["-std=c++20"] if torch.minor >= (2, 14) else []),
        # For at::parallel_for; never at link time (csrc/torch/parallel.cpp says why).
        "-fopenmp",
        *_WARNINGS,
        *_path_maps(root, environ),
        # Both names: the compiler writes a system header's real path where that is shorter.
        *(f"-ffile-prefix-map={path}=torch" for path in (torch.root, torch.root.resolve())),
        f"-DFLASHINFER_VERSION={_quoted(version)}",
        f"-DFLASHINFER_VARIANT={_quoted(variant)}",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.cxx11_abi)}",
        f"-I{csrc}",
        f"-I{csrc / 'include'}",
        f"-isystem {torch.root / 'include'}",
        f"-isystem {torch.root / 'include/torch/csrc/api/include'}",
    ]
    link = [
        *_LINK,
        f"-L{torch.root / 'lib'}",
        f"-L{library_dir}",
        "-Wl,--as-needed",
        "-ltorch_cpu",
        "-lc10",
        "-lflashinfer",
        "-Wl,--enable-new-dtags",
        f"-Wl,-rpath,'{BINDING_RUNPATH.replace('$', '$$')}'",
    ]
    compiled = build_dir / "_C.abi3.so"
    _run_ninja(
        units,
        compiled,
        build_dir,
        cxx_flags=flags,
        cuda_flags=[],
        link_flags=link,
        nvcc=None,
        memory_per_job=BINDING_JOB_MEMORY,
        environ=environ,
    )
    _install(compiled, output)


# Symbols are stripped because nvcc puts a process id in local ones; what is exported stays.
_LINK = ["-shared", "-Wl,-s", "-Wl,--build-id=sha1", "-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack"]


def _quoted(text: str) -> str:
    """A C string literal as a shell word, also for nvcc, which passes it through a second shell."""
    return f"'\"{text}\"'"


def _path_maps(root: Path, environ: Mapping[str, str]) -> list[str]:
    maps = [f"-ffile-prefix-map={root}=flashinfer"]
    for variable in ("PREFIX", "BUILD_PREFIX"):
        if environ.get(variable):
            maps.append(f"-ffile-prefix-map={environ[variable]}=/usr")
    return maps


def _compiler(environ: Mapping[str, str]) -> str:
    name = environ.get("CXX") or "g++"
    found = shutil.which(name.split()[0], path=environ.get("PATH"))
    if not found:
        raise ToolchainError(
            f"there is no C++ compiler {name!r}",
            where="CXX" if environ.get("CXX") else "PATH",
            fix="on Debian `apt install g++`; in conda install `cxx-compiler`",
        )
    return found


def find_ninja(environ: Mapping[str, str]) -> str:
    beside = Path(sys.executable).parent / "ninja"
    found = shutil.which("ninja", path=environ.get("PATH"))
    if not found and beside.is_file():
        found = str(beside)
    if not found:
        raise ToolchainError("there is no ninja", where="PATH", fix="pip install ninja")
    return found


def _target_dirs(nvcc: Nvcc, environ: Mapping[str, str], leaf: str) -> list[Path]:
    """`leaf` folders of the toolkit, in pip's and in conda's layout, build and host."""
    homes = [nvcc.home]
    homes += [Path(environ[name]) for name in ("PREFIX", "BUILD_PREFIX") if environ.get(name)]
    folders = []
    for home in homes:
        names = [home / "targets/x86_64-linux" / leaf]
        names += [home / leaf, home / "lib64"] if leaf == "lib" else [home / leaf]
        folders += [name for name in names if name.is_dir() and name not in folders]
    return folders


def _runtime_flags(nvcc: Nvcc, environ: Mapping[str, str]) -> list[str]:
    searched = _target_dirs(nvcc, environ, "lib")
    for folder in searched:
        if (folder / "libcudart_static.a").is_file():
            return [str(folder / "libcudart_static.a")]
    raise ToolchainError(
        "libcudart_static.a, the CUDA runtime to link in, is missing",
        where=", ".join(map(str, searched)) or str(nvcc.home),
        fix="install cuda-cudart-static (conda) or nvidia-cuda-runtime (pip)",
    )


def _cuda_flags(
    root: Path,
    nvcc: Nvcc,
    archs: str,
    defines: Sequence[str],
    include: Sequence[str],
    environ: Mapping[str, str],
) -> list[str]:
    host = [*_WARNINGS, "-fPIC", "-fvisibility=hidden", *_path_maps(root, environ)]
    system = [f"-isystem {path}" for path in _target_dirs(nvcc, environ, "include")]
    return [
        "-std=c++17",
        "-O3",
        *gencode_flags(archs),
        "-Xfatbin=-compress-all",
        "-Werror=all-warnings",
        f"-ccbin={_compiler(environ)}",
        *(f"-Xcompiler={flag}" for flag in host),
        *defines,
        *include,
        *system,
    ]


def _run_ninja(
    units: Sequence[_Unit],
    output: Path,
    build_dir: Path,
    *,
    cxx_flags: Sequence[str],
    cuda_flags: Sequence[str],
    link_flags: Sequence[str],
    nvcc: Nvcc | None,
    memory_per_job: int,
    environ: Mapping[str, str],
) -> None:
    build_dir.mkdir(parents=True, exist_ok=True)
    lines = [
        "ninja_required_version = 1.8",
        f"cxx = {_compiler(environ)}",
        f"nvcc = {nvcc.path if nvcc else ''}",
        f"cxx_flags = {' '.join(cxx_flags)}",
        f"cuda_flags = {' '.join(cuda_flags)}",
        f"link_flags = {' '.join(link_flags)}",
        "rule cxx",
        "  command = $cxx $cxx_flags -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "  description = compile $in",
        "rule cuda",
        "  command = $nvcc $cuda_flags -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "  description = compile $in",
        "rule link",
        "  command = $cxx $in -o $out $link_flags",
        "  description = link $out",
    ]
    objects = []
    # CUDA first, then by size: with a slow one at the end, one core would finish alone.
    for unit in sorted(units, key=lambda unit: (unit.rule != "cuda", -unit.source.stat().st_size)):
        name = f"{unit.source.parent.name}-{unit.source.name}.o"
        objects.append(name)
        lines.append(f"build {name}: {unit.rule} {unit.source}")
    lines += [f"build {output.name}: link {' '.join(sorted(objects))}", f"default {output.name}"]
    atomic.write_text(build_dir / "build.ninja", "\n".join(lines) + "\n")
    jobs = job_count(memory_per_job, environ)
    # LD_RUN_PATH would add the builder's prefix to the RUNPATH.
    clean = {name: value for name, value in environ.items() if name != "LD_RUN_PATH"}
    done = subprocess.run([find_ninja(environ), "-j", str(jobs)], cwd=build_dir, env=clean)
    if done.returncode != 0:
        raise BuildFailed(
            f"ninja stopped with exit status {done.returncode}; the compiler's words are above",
            where=str(build_dir / "build.ninja"),
        )


def _install(source: Path, target: Path) -> None:
    atomic.copy(source, target)
    target.chmod(0o755)
