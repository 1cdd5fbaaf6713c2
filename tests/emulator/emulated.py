"""Builds the kernels for the host and calls them, through the C interface, on emulated memory."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from api_header import DTYPES, struct_fields

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"

OK, INVALID_ARGUMENT, UNSUPPORTED, CUDA_ERROR = 0, 1, 2, 3

# What compiles a kernel for the host: the hooks of memory.cpp are what the sanitizers' calls reach,
# and no sanitizer library is linked. No vectorisation, no contraction: the code as it is written.
KERNEL_FLAGS = [
    *["-std=c++17", "-O1", "-g1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"],
    *["-ffp-contract=off", "-fno-gnu-unique", "-DFLASHINFER_EMULATE", "-DFLASHINFER_WITH_CUDA"],
    *["-fsanitize=thread", "-fsanitize=bounds-strict,shift,signed-integer-overflow"],
    *["-fsanitize=integer-divide-by-zero", "-x", "c++"],
]
# The same code in half the time, for what is compiled for one call.
QUICK_FLAGS = ["-O0" if flag == "-O1" else flag for flag in KERNEL_FLAGS]
HOST_FLAGS = ["-std=c++17", "-O2", "-g1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"]


class Fault(Exception):
    """The emulator stopped a kernel; the text says why, with kernel, block, thread and line."""


class Failed(Exception):
    """A call that returned another status than FI_OK, and not because of a fault in a kernel."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def kernel_sources(csrc: Path = CSRC) -> list[Path]:
    """The launchers; what they include are the kernels."""
    return [path for path in sorted((csrc / "cuda").glob("*.cu")) if path.stem != "build_info"]


def compiler() -> str:
    return os.environ.get("CXX") or "g++"


def _digest(paths: Iterable[Path], *more: str) -> str:
    digest = hashlib.sha256("\0".join(more).encode())
    for path in sorted(paths, key=lambda path: path.name):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _with_includes(source: Path, folders: Sequence[Path]) -> set[Path]:
    """The source and every file it includes, directly or not, that lies in one of the folders."""
    found, left = set[Path](), [source]
    while left:
        path = left.pop()
        if path in found:
            continue
        found.add(path)
        for name in re.findall(r'^#include ["<](.+)[">]', path.read_text(), re.MULTILINE):
            near = [folder / name for folder in (path.parent, *folders)]
            left += [candidate for candidate in near if candidate.is_file()][:1]
    return found


def build(
    cache: Path,
    name: str,
    kernels: Sequence[Path],
    *,
    csrc: Path = CSRC,
    originals: Sequence[Path] = (),
    interface: bool = True,
    kernel_flags: Sequence[str] = KERNEL_FLAGS,
) -> Path:
    """Compile ``kernels`` (.cu files) and the emulator into ``cache/lib<name>-<hash>.so``.

    Objects are kept by the hash of everything that goes into them. ``csrc`` is where includes are
    looked for: a copy, in the tests that plant a bug in a kernel. ``originals`` are more kernels,
    whose includes come from CSRC; where both have a function, that of ``kernels`` is taken.
    ``interface`` adds the C interface, which needs all launchers. ``kernel_flags`` are for
    ``kernels``; the originals are compiled with KERNEL_FLAGS.
    """
    version = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True)
    folders = [HERE / "include", csrc, csrc / "include"]
    original_folders = [HERE / "include", CSRC, CSRC / "include"]
    info = ['-DFLASHINFER_VERSION="0"', '-DFLASHINFER_ARCH_LIST="8.0+PTX;9.0a"']
    host = sorted((HERE / "src").glob("*.cpp"))
    if interface:
        host += [HERE / "no_cpu.cpp", *sorted(csrc.glob("*.cpp"))]
    host_flags = [*HOST_FLAGS, "-DFLASHINFER_WITH_CUDA", *info]
    jobs = [(source, host_flags, folders) for source in host]
    jobs += [(source, [*kernel_flags], folders) for source in kernels]
    jobs += [(source, KERNEL_FLAGS, original_folders) for source in originals]
    cache.mkdir(parents=True, exist_ok=True)

    def compile_one(job: tuple[Path, list[str], list[Path]]) -> Path:
        source, flags, folders = job
        digest = _digest(_with_includes(source, folders), version.stdout, *flags)
        target = cache / f"{source.stem}-{digest}.o"
        if not target.exists():
            partial = target.with_suffix(f".{os.getpid()}.o")
            include = [f"-I{folder}" for folder in folders]
            command = [compiler(), *flags, *include, "-c", str(source), "-o", str(partial)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
            partial.replace(target)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, jobs))
    library = cache / f"lib{name}-{_digest(objects)}.so"
    if not library.exists():
        partial = library.with_suffix(f".{os.getpid()}.so")
        link = [compiler(), "-shared", "-Wl,-Bsymbolic", "-Wl,-z,defs", "-o", str(partial)]
        subprocess.run([*link, *map(str, objects), "-ldl"], check=True)
        partial.replace(library)
    return library


class _Exec(ctypes.Structure):
    _fields_ = [
        ("device", ctypes.c_int32),
        ("stream", ctypes.c_void_p),
        ("parallel_for", ctypes.c_void_p),
    ]


class Emulator:
    """A library of emulated kernels, and the memory that they may use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.library = ctypes.CDLL(str(path))
        self.library.fi_emulator_alloc.restype = ctypes.c_void_p
        self.library.fi_emulator_last_stream.restype = ctypes.c_void_p
        for count in ("launches", "last_blocks", "loads_by_launches", "capabilities_asked"):
            getattr(self.library, f"fi_emulator_{count}").restype = ctypes.c_int64
        self._structs: dict[str, Any] = {}
        self._allocated: list[int] = []
        self.called: set[str] = set()

    # ------------------------------------------------------------ memory

    def _mark(self, view: torch.Tensor, written: bool) -> None:
        if view.numel() == 0:
            return
        if view.is_contiguous():
            size = view.numel() * view.element_size()
            self.library.fi_emulator_mark(ctypes.c_void_p(view.data_ptr()), ctypes.c_size_t(size),
                                          written)  # fmt: skip
            return
        for part in view:
            self._mark(part, written)

    def empty(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        name: str = "out",
        *,
        strides: Sequence[int] | None = None,
        offset: int = 0,
    ) -> torch.Tensor:
        """A tensor in emulated memory, not written yet (its bytes are 0xFF: NaN).

        ``strides`` are in elements. ``offset`` elements come before it, so that an odd one makes
        it unaligned. What lies before and between its elements is out of bounds for kernels.
        """
        if strides is None:
            strides = torch.empty(tuple(shape), device="meta").stride()
        extent = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
        if 0 in shape:
            extent = offset
        size = extent * dtype.itemsize
        address = self.library.fi_emulator_alloc(name.encode(), ctypes.c_size_t(size))
        assert address, "out of memory"
        self._allocated.append(address)
        if size == 0:
            return torch.empty(tuple(shape), dtype=dtype)
        raw = torch.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=torch.uint8)
        raw.fill_(0xFF)
        view = torch.as_strided(raw.view(dtype), tuple(shape), tuple(strides), offset)
        self._mark(view, written=False)
        return view

    def put(
        self,
        values: torch.Tensor,
        name: str = "input",
        *,
        strides: Sequence[int] | None = None,
        offset: int = 0,
    ) -> torch.Tensor:
        """A copy of ``values`` in emulated memory; see :meth:`empty`."""
        view = self.empty(values.shape, values.dtype, name, strides=strides, offset=offset)
        view.copy_(values)
        self._mark(view, written=True)
        return view

    def ints(self, values: Sequence[int] | torch.Tensor, name: str = "ints") -> torch.Tensor:
        """An int32 tensor in emulated memory."""
        return self.put(torch.as_tensor(values, dtype=torch.int32), name)

    def free_all(self) -> None:
        for address in self._allocated:
            self.library.fi_emulator_free(ctypes.c_void_p(address))
        self._allocated.clear()

    def release(self) -> None:
        """Gives all memory back, the threads' stacks too; the next call makes new ones."""
        self.free_all()
        self.library.fi_emulator_release_stacks()

    # ------------------------------------------------------------ calls

    def __call__(self, op: str, *, device: int = 0, stream: int = 0, **values: Any) -> None:
        """Call fi_<op>; fields not given are 0 or NULL, tensors become their addresses."""
        self.called.add(op)
        if op not in self._structs:
            fields = struct_fields(f"fi_{op}_args")
            self._structs[op] = type(op, (ctypes.Structure,), {"_fields_": fields})
        struct = self._structs[op]
        unknown = values.keys() - {name for name, _ in struct._fields_}
        assert not unknown, f"fi_{op}_args has no {unknown}"
        converted = {
            name: value.data_ptr()
            if isinstance(value, torch.Tensor)
            else DTYPES[value]
            if isinstance(value, torch.dtype)
            else value
            for name, value in values.items()
        }
        execution = _Exec(device=device, stream=stream or None, parallel_for=None)
        args = struct(**converted)
        status = getattr(self.library, f"fi_{op}")(ctypes.byref(execution), ctypes.byref(args))
        last_error = self.library.fi_last_error
        last_error.restype = ctypes.c_char_p
        self.check(status, last_error().decode())

    def check(self, status: int, message: str) -> None:
        if status == OK:
            return
        if "EmulatedFault" in message:
            raise Fault(self._with_lines(message))
        raise Failed(status, message)

    def _with_lines(self, message: str) -> str:
        """Put file and line, by addr2line, in the place of ``[code +0x...]``."""

        def lines(match: re.Match[str]) -> str:
            if not shutil.which("addr2line"):
                return match[0]
            command = ["addr2line", "-i", "-s", "-e", str(self.path), hex(int(match[1], 16) - 1)]
            done = subprocess.run(command, capture_output=True, text=True)
            places = [line.split()[0] for line in done.stdout.splitlines()]
            return f"[{' < '.join(places) or match[1]}]"

        return re.sub(r"\[code \+(0x[0-9a-f]+)\]", lines, message)
