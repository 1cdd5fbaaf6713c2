"""Toy conda packages for tests: whole ones, and ones that are wrong in one chosen way."""

from __future__ import annotations

import bz2
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from conda_bridge.bridge import convert
from conda_bridge.errors import BridgeError
from conda_bridge.formats.conda_writer import PackageFile, write
from conda_bridge.formats.zstd import zstd
from conda_bridge.project import Project
from flashinfer_build.label import Label, Variant

# What flashinfer says of itself, by this checkout's own table.
FLASHINFER = Project.load(Path(__file__).parents[2] / "pyproject.toml")
README = b"# FlashInfer\n\nAttention kernels.\n"
LICENSE = b"Apache License\nVersion 2.0\n"
MODULE = "site-packages/flashinfer/_C.abi3.so"
BUILD_INFO = "site-packages/flashinfer/_build_info.py"

# A member of a tar archive and its content.
Member = tuple[tarfile.TarInfo, bytes]


def bridge(package: Path, output: Path, **options: Any) -> convert.Bridged:
    """The wheel of a flashinfer package."""
    return convert.bridge(package, output, project=FLASHINFER, **options)


def said_in_full(error: BridgeError, file: Path) -> str:
    """The text of an error, which says in which package it is, and what is right or to be done.

    A part that is left out is empty, and never another type that would print as ``None``.
    """
    parts = error.as_dict()
    assert all(isinstance(part, str) for part in parts.values()), parts
    assert any(path.name in error.where for path in file.parent.iterdir()), parts
    assert error.what, parts
    assert error.expected or error.fix, parts
    return str(error)


def label_of(variant: str = "cpu_torch213", **changes: Any) -> Label:
    """The label of version 0.1.6 of a variant."""
    return Label(Variant.parse(variant), **{"public_version": "0.1.6", **changes})


def build_info(label: Label, **changes: object) -> bytes:
    """A ``_build_info.py`` as the build writes it."""
    values: dict[str, object] = {
        "VERSION": label.wheel_version,
        "PUBLIC_VERSION": label.public_version,
        "VARIANT": label.variant.id,
        "TORCH": "{}.{}".format(*label.variant.torch),
        "CUDA": "{}.{}.88".format(*label.variant.cuda) if label.variant.cuda else "",
        "CXX11_ABI": label.variant.torch >= (2, 7),
        "ARCH_LIST": "8.0+PTX;9.0a" if label.variant.cuda else "",
        "COMMIT": label.commit or "",
        "BUILD_NUMBER": label.build_number,
        **label.requests,
        **changes,
    }
    lines = ['"""Written by the build."""'] + [
        f"{key} = {value!r}" for key, value in values.items()
    ]
    return ("\n".join(lines) + "\n").encode()


def source_metadata(label: Label, **changes: str) -> bytes:
    """A ``METADATA`` as setuptools writes it."""
    fields = {
        "Metadata-Version": "2.1",
        "Name": "flashinfer",
        "Version": label.wheel_version,
        "Summary": "Attention kernels",
        "Keywords": "attention,CUDA",
        "Classifier": "Operating System :: POSIX :: Linux",
        "Requires-Python": ">=3.8",
        "Description-Content-Type": "text/markdown",
        "Requires-Dist": "torch=={}.{}.*".format(*label.variant.torch),
        **changes,
    }
    head = "".join(f"{key}: {value}\n" for key, value in fields.items() if value)
    return head.encode() + b"\n" + README


def binding_files(label: Label) -> dict[str, bytes]:
    """The payload of a toy flashinfer package."""
    info = f"site-packages/flashinfer-{label.wheel_version}.dist-info"
    return {
        "site-packages/flashinfer/__init__.py": b"from flashinfer import _build_info\n",
        BUILD_INFO: build_info(label),
        MODULE: b"\x7fELF binding" + bytes(range(256)) * 40,
        f"{info}/METADATA": source_metadata(label),
        f"{info}/RECORD": b"",
        f"{info}/INSTALLER": b"conda\n",
    }


def binding_index(label: Label, **changes: object) -> dict[str, object]:
    """``index.json`` of a flashinfer package."""
    return {
        "name": "flashinfer",
        "version": label.conda_version,
        "build": label.conda_build,
        "build_number": label.conda_build_number,
        "subdir": "linux-64",
        "platform": "linux",
        "arch": "x86_64",
        "noarch": "python",
        "license": "Apache-2.0",
        "depends": [
            "python >=3.8",
            "pytorch {}.{}.* *{}*".format(
                *label.variant.torch, "cuda" if label.variant.cuda else "cpu"
            ),
            *([f"__cuda >={label.variant.cuda[0]}"] if label.variant.cuda else []),
            f"libflashinfer {label.conda_version} {label.lib_conda_build}",
            "__glibc >=2.28,<3.0.a0",
            "libstdcxx >=12",
        ],
        "constrains": [],
        **changes,
    }


def about() -> dict[str, object]:
    """``about.json`` as rattler-build writes it."""
    return {
        "home": "https://example.org/home",
        "dev_url": ["https://example.org/code"],
        "license": "Apache-2.0",
        "summary": "from about.json",
        "description": "long, from about.json",
    }


def write_binding(
    folder: Path,
    label: Label,
    *,
    files: Mapping[str, bytes | None] | None = None,
    index: Mapping[str, object] | None = None,
    info: Mapping[str, bytes] | None = None,
    level: int = 1,
) -> Path:
    """Writes a flashinfer package.

    Args:
        files: replaces files of the payload; None leaves one out.
        index: replaces values of ``index.json``.
        info: replaces files below ``info/``.
    """
    payload = {**binding_files(label), **(files or {})}
    path = folder / label.conda_file
    write(
        path,
        index=binding_index(label, **(index or {})),
        files=package_files(payload),
        about=about(),
        info_files={"info/licenses/LICENSE": LICENSE, **(info or {})},
        level=level,
        threads=1,
    )
    return path


def write_library(
    folder: Path, label: Label, *, files: Mapping[str, bytes | None] | None = None, level: int = 1
) -> Path:
    """Writes the libflashinfer of a flashinfer package."""
    payload: dict[str, bytes | None] = {
        "lib/libflashinfer.so": b"\x7fELF library" + bytes(range(256)) * 400,
        "include/flashinfer/api.h": b"#pragma once\n",
        **(files or {}),
    }
    path = folder / label.lib_conda_file
    index = {
        "name": "libflashinfer",
        "version": label.conda_version,
        "build": label.lib_conda_build,
        "build_number": label.conda_build_number,
        "subdir": "linux-64",
        "license": "Apache-2.0",
        "depends": ["__glibc >=2.28,<3.0.a0"],
    }
    write(
        path,
        index=index,
        files=package_files(payload),
        about=about(),
        info_files={"info/licenses/LICENSE": LICENSE},
        level=level,
        threads=1,
    )
    return path


def write_pair(folder: Path, label: Label | None = None, **binding: Any) -> Path:
    """Writes a flashinfer package and its libflashinfer; returns the first."""
    label = label or label_of()
    write_library(folder, label)
    return write_binding(folder, label, **binding)


def package_files(payload: Mapping[str, bytes | None]) -> list[PackageFile]:
    """The files of a payload; shared objects are executable."""
    return [
        PackageFile(path, data, 0o755 if path.endswith(".so") else 0o644)
        for path, data in payload.items()
        if data is not None
    ]


# ------------------------------------------------------------ archives that are wrong


def tar_bytes(members: Iterable[Member], *, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive with exactly these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for header, data in members:
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def tar_file(name: str, data: bytes = b"", **attributes: Any) -> Member:
    """One member for :func:`tar_bytes`; a file unless ``type`` says otherwise."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    for key, value in attributes.items():
        setattr(header, key, value)
    return header, data


def raw_conda(
    path: Path,
    *,
    payload: bytes,
    info: bytes,
    metadata: bytes = b'{"conda_pkg_format_version": 2}',
    more: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Writes a ``.conda`` from two tar archives, checking nothing."""
    stem = path.name.removesuffix(".conda")
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as outer:
        outer.writestr("metadata.json", metadata)
        outer.writestr(f"pkg-{stem}.tar.zst", zstd.compress(payload))
        outer.writestr(f"info-{stem}.tar.zst", zstd.compress(info))
        for name, data in (more or {}).items():
            outer.writestr(name, data)
    return path


def tar_members(data: bytes) -> list[Member]:
    """The members of a tar archive."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [
            (
                header,
                stream.read() if header.isreg() and (stream := tar.extractfile(header)) else b"",
            )
            for header in tar.getmembers()
        ]


def unpacked(path: Path) -> tuple[list[Member], list[Member]]:
    """The members of a ``.conda``: those of its payload, and those below ``info/``."""
    stem = path.name.removesuffix(".conda")
    with zipfile.ZipFile(path) as outer:
        payload, info = (
            tar_members(zstd.decompress(outer.read(f"{part}-{stem}.tar.zst")))
            for part in ("pkg", "info")
        )
    return payload, info


def raw_tar_bz2(path: Path, members: Iterable[Member], *, format: int = tarfile.PAX_FORMAT) -> Path:
    """Writes a ``.tar.bz2`` with exactly these members, checking nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bz2.compress(tar_bytes(members, format=format)))
    return path


def as_tar_bz2(path: Path, into: Path | None = None) -> Path:
    """Writes a ``.conda`` in the older form of conda-build, ``info/`` first; returns that."""
    payload, info = unpacked(path)
    name = path.name.removesuffix(".conda") + ".tar.bz2"
    return raw_tar_bz2((into or path.parent) / name, [*info, *payload])


def info_tar(
    index: Mapping[str, object],
    paths: Iterable[Mapping[str, object]],
    more: Iterable[Member] = (),
) -> bytes:
    """An info archive with this index.json and paths.json."""
    return tar_bytes(
        [
            tar_file("info/index.json", json.dumps(index).encode()),
            tar_file("info/paths.json", json.dumps({"paths": list(paths)}).encode()),
            *more,
        ]
    )
