"""Toy libraries that are real shared objects, and the packages and wheels around them.

The libraries are compiled here from a few lines: the sections, symbols, versions and RUNPATH that
``verify`` reads are the linker's, and each can be made wrong in one chosen way.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import factories
import toy_sboms

from conda_bridge.formats import conda_writer
from flashinfer_build.artifact import BINDING_RUNPATH, SBOM, SBOM_FOLDER
from flashinfer_build.label import Label

FATBIN = Path(__file__).parent / "fatbin"
API = b"// the interface\n"
NEW_ABI = "_ZN3c105ErrorC1ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
OLD_ABI = "_ZN3c105ErrorC1ENS_14SourceLocationESs"
NO_STRING = "_ZN2at11_ops5empty4callEv"


def shared_object(
    source: str, flags: tuple[str, ...], name: str, needed: tuple[str, ...] = ()
) -> bytes:
    """Compiles C to a shared object that needs `needed`, libraries that are made up for it."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "stub.c").write_text("")
        links = []
        for library in needed:
            stub = folder / library
            _cc(
                str(folder / "stub.c"),
                "-shared",
                "-nostdlib",
                f"-Wl,-soname,{library}",
                "-o",
                str(stub),
            )
            links.append(str(stub))
        (folder / "toy.c").write_text(source)
        output = folder / name
        _cc(
            *(str(folder / "toy.c"), "-shared", "-fPIC", "-O1", "-fvisibility=hidden"),
            *("-Wl,--no-as-needed", *links, *flags, "-o", str(output)),
        )
        return output.read_bytes()


def _cc(*arguments: str) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "the tests need a C compiler"
    subprocess.run([compiler, "-w", *arguments], check=True)


def _literal(info: Mapping[str, str]) -> str:
    return "".join(f'"{key}={value}\\n"' for key, value in info.items())


_INFO = """
__attribute__((visibility("default"), used, section("flashinfer_info")))
const char {name}[] = {text};
"""


@functools.cache
def library(
    *,
    cuda: str = "none",
    archs: str = "",
    version: str = "0.1.6",
    component: str = "libflashinfer",
    gpu: str = "",
    more: str = "",
    soname: str = "libflashinfer.so",
    needed: tuple[str, ...] = (),
    flags: tuple[str, ...] = ("-Wl,-s",),
    info: bool = True,
) -> bytes:
    """A ``libflashinfer.so``.

    Args:
        cuda, archs, version, component: what its information section says.
        gpu: the GPU code to put in: names of files in fatbin/, separated by spaces.
        more: further C.
        soname: of the library.
        needed: libraries that it needs.
        flags: for the linker; ``-Wl,-s`` strips it.
        info: whether it has an information section at all.
    """
    values = {"component": component, "version": version, "cuda": cuda, "archs": archs}
    text = _literal({**values, "cxx": "gcc 12.2"})
    source = _INFO.format(name="flashinfer_build_info", text=text) if info else ""
    source += '__attribute__((visibility("default"))) int fi_rmsnorm(void) { return 0; }\n'
    for name in gpu.split():
        source += (
            f'asm(".section .nv_fatbin,\\"a\\"\\n.incbin \\"{FATBIN / name}.bin\\"\\n.text");\n'
        )
    return shared_object(
        source + more, (*flags, f"-Wl,-soname,{soname}"), "libflashinfer.so", needed
    )


@functools.cache
def binding(
    *,
    variant: str = "cpu_torch213",
    torch: str = "2.13",
    cxx11_abi: str = "1",
    version: str = "0.1.6",
    symbols: tuple[str, ...] = (NEW_ABI,),
    python: tuple[str, ...] = ("PyModule_Create2",),
    needed: tuple[str, ...] = ("libflashinfer.so", "libtorch_cpu.so", "libc10.so"),
    runpath: str = BINDING_RUNPATH,
    more: str = "",
    flags: tuple[str, ...] = ("-Wl,-s",),
) -> bytes:
    """A ``_C.abi3.so``.

    Args:
        variant, torch, cxx11_abi, version: what its information section says.
        symbols: what it wants from torch, mangled.
        python: what it wants from Python.
        needed: libraries that it needs.
        runpath: its RUNPATH; empty for none.
        more: further C.
        flags: for the linker.
    """
    text = _literal(
        {
            "component": "binding",
            "version": version,
            "torch": torch,
            "cxx11_abi": cxx11_abi,
            "variant": variant,
            "cxx": "gcc 12.2",
        }
    )
    wanted = [*symbols, *python, "fi_rmsnorm"]
    source = _INFO.format(name="flashinfer_binding_info", text=text)
    source += "".join(f'extern int want{i}(void) asm("{s}");\n' for i, s in enumerate(wanted))
    calls = " + ".join(f"want{i}()" for i in range(len(wanted)))
    source += (
        '__attribute__((visibility("default"))) int PyInit__C(void) { return ' + calls + "; }\n"
    )
    if runpath:
        flags = (*flags, f"-Wl,--enable-new-dtags,-rpath,{runpath}")
    return shared_object(source + more, flags, "_C.abi3.so", needed)


def libraries_of(label: Label) -> tuple[bytes, bytes]:
    """The two libraries that a build of `label` would make."""
    torch = "{}.{}".format(*label.variant.torch)
    old = label.variant.torch < (2, 7)
    made = binding(
        variant=label.variant.id,
        torch=torch,
        version=label.compiled_version,
        cxx11_abi="0" if old else "1",
        symbols=(OLD_ABI if old else NEW_ABI,),
    )
    if label.variant.cuda is None:
        return library(version=label.compiled_version), made
    cuda = "{}.{}.88".format(*label.variant.cuda)
    archs = "8.0+PTX;9.0a"
    return library(version=label.compiled_version, cuda=cuda, archs=archs, gpu="zstd lz4"), made


def wheel_files(label: Label, files: Mapping[str, bytes | None] | None = None) -> dict[str, bytes]:
    """The files of a whole wheel, but RECORD; `files` replaces or drops some by a short name.

    Short names: ``library``, ``binding``, ``build_info``, ``metadata``, ``wheel``, ``api``,
    ``licences``; ``sbom`` and ``library_sbom``, which are else those of the libraries.
    """
    dist_info = f"flashinfer-{label.wheel_version}.dist-info"
    made_library, made_binding = libraries_of(label)
    build = f"Build: {label.build_number}\n" if label.build_number else ""
    named: dict[str, tuple[str, bytes]] = {
        "init": ("flashinfer/__init__.py", b"from flashinfer import _build_info\n"),
        "build_info": ("flashinfer/_build_info.py", factories.build_info(label)),
        "binding": ("flashinfer/_C.abi3.so", made_binding),
        "library": ("flashinfer/lib/libflashinfer.so", made_library),
        "api": ("flashinfer/include/flashinfer/api.h", API),
        "licence": (f"{dist_info}/licenses/LICENSE", factories.LICENSE),
        "licences": (f"{dist_info}/{toy_sboms.LICENCE}", toy_sboms.TEXT),
        "sbom": (f"{dist_info}/sboms/flashinfer.cdx.json", b""),
        "library_sbom": (f"{dist_info}/sboms/libflashinfer.cdx.json", b""),
        "metadata": (f"{dist_info}/METADATA", metadata(label)),
        "wheel": (
            f"{dist_info}/WHEEL",
            f"Wheel-Version: 1.0\nGenerator: toy\nRoot-Is-Purelib: false\n{build}"
            "Tag: cp38-abi3-linux_x86_64\n".encode(),
        ),
    }
    given = dict(files or {})
    given.setdefault("sbom", _sbom("flashinfer", given.get("binding", made_binding)))
    given.setdefault("library_sbom", _sbom("libflashinfer", given.get("library", made_library)))
    contents = {path: given.get(name, data) for name, (path, data) in named.items()}
    contents.update({path: data for path, data in given.items() if path not in named})
    return {path: data for path, data in contents.items() if data is not None}


def _sbom(name: str, library: bytes | None) -> bytes:
    file = {"flashinfer": "_C.abi3.so", "libflashinfer": "libflashinfer.so"}[name]
    return toy_sboms.document(name, file, library or b"")


def metadata(label: Label, **changes: str) -> bytes:
    """A wheel's METADATA; an empty value drops the field."""
    fields = {
        "Metadata-Version": "2.4",
        "Name": "flashinfer",
        "Version": label.wheel_version,
        "Summary": "Attention kernels",
        "License-Expression": "Apache-2.0",
        "License-File": "LICENSE",
        "Requires-Python": ">=3.8",
        "Requires-Dist": "torch=={}.{}.*".format(*label.variant.torch),
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }
    head = "".join(f"{key}: {value}\n" for key, value in fields.items() if value)
    return f"{head}\n# FlashInfer\n".encode()


def record_line(path: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(data)}\n"


def write_wheel(
    folder: Path,
    label: Label,
    *,
    name: str = "",
    record: Mapping[str, str | None] | None = None,
    contents: Mapping[str, bytes] | None = None,
    files: Mapping[str, bytes | None] | None = None,
    **named: bytes | None,
) -> Path:
    """Writes a wheel.

    Args:
        folder: where to.
        label: names it.
        name: another file name.
        record: replaces lines of RECORD by path; None leaves one out.
        contents: all its files; default those of :func:`wheel_files`.
        files, named: for :func:`wheel_files`.
    """
    members = (
        dict(contents) if contents is not None else wheel_files(label, {**(files or {}), **named})
    )
    own = f"flashinfer-{label.wheel_version}.dist-info/RECORD"
    lines = {path: record_line(path, data) for path, data in members.items()}
    lines[own] = f"{own},,\n"
    lines = {**lines, **(record or {})}  # type: ignore[dict-item]
    members[own] = "".join(line for line in lines.values() if line is not None).encode()
    path = folder / (name or label.wheel_file)
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            entry = zipfile.ZipInfo(member)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if member.endswith(".so") else 0o100644) << 16
            archive.writestr(entry, data)
    return path


def conda_index(label: Label, **changes: object) -> dict[str, object]:
    """What the index.json of a toy package says beyond factories'."""
    cuda = label.variant.cuda
    constrains = [f"__cuda >={cuda[0]}", f"cuda-version >={cuda[0]},<{cuda[0] + 1}"] if cuda else []
    return {"constrains": constrains, **changes}


def write_conda(
    folder: Path,
    label: Label,
    *,
    files: Mapping[str, bytes | None] | None = None,
    index: Mapping[str, object] | None = None,
    info: Mapping[str, bytes] | None = None,
) -> Path:
    """Writes the flashinfer package of `label`, with the binding of its wheel."""
    _, made = libraries_of(label)
    payload: dict[str, bytes | None] = {factories.MODULE: made, **(files or {})}
    own = f"site-packages/flashinfer-{label.wheel_version}.dist-info"
    return factories.write_binding(
        folder,
        label,
        files={
            f"{own}/{toy_sboms.LICENCE}": toy_sboms.TEXT,
            f"{own}/sboms/flashinfer.cdx.json": _sbom("flashinfer", payload[factories.MODULE]),
            **payload,
        },
        index={**conda_index(label), **(index or {})},
        info=info,
    )


def write_conda_library(
    folder: Path,
    label: Label,
    *,
    files: Mapping[str, bytes | None] | None = None,
    index: Mapping[str, object] | None = None,
) -> Path:
    """Writes the libflashinfer package of `label`, with the library of its wheel."""
    made, _ = libraries_of(label)
    payload = {"lib/libflashinfer.so": made, "include/flashinfer/api.h": API, **(files or {})}
    place = f"{SBOM_FOLDER}/{SBOM.format('libflashinfer')}"
    payload = {place: _sbom("libflashinfer", payload["lib/libflashinfer.so"]), **payload}
    path = folder / label.lib_conda_file
    base: dict[str, object] = {
        "name": "libflashinfer",
        "version": label.conda_version,
        "build": label.lib_conda_build,
        "build_number": label.conda_build_number,
        **{"subdir": "linux-64", "platform": "linux", "arch": "x86_64"},
        "license": "Apache-2.0",
        "depends": ["__glibc >=2.28,<3.0.a0"],
    }
    conda_writer.write(
        path,
        index={**base, **conda_index(label), **(index or {})},
        files=factories.package_files(payload),
        about=factories.about(),
        info_files={
            "info/licenses/LICENSE": factories.LICENSE,
            f"info/{toy_sboms.LICENCE}": toy_sboms.TEXT,
        },
        level=1,
        threads=1,
    )
    return path


def write_release(folder: Path, label: Label) -> list[Path]:
    """Writes both conda packages and the wheel of a label, where a build has them."""
    channel = folder / "channel" / "linux-64"
    return [
        write_conda(channel, label),
        write_conda_library(channel, label),
        write_wheel(folder / "wheels", label),
    ]
