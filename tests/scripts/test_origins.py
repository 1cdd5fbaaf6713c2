"""Which package a file is of, by the records of conda, pip and Debian, and of our own toolchain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flashinfer_build.compile.origins import RECORD, Origin, Origins
from flashinfer_build.toolchain.lock import LockedDeb, LockedWheel
from flashinfer_build.toolchain.origin_record import of_deb, of_wheel, with_record


def written(path: Path, text: str | bytes = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def installed(
    prefix: Path, name: str, files: list[str], info: Mapping[str, Any], **facts: str
) -> None:
    """A package of a conda environment: its record, its files and its unpacked ``info/``."""
    unpacked = prefix.parent / "pkgs" / name
    for path, content in info.items():
        written(unpacked / "info" / path, content)
    for path in files:
        if not (prefix / path).is_symlink():
            written(prefix / path)
    record = {
        **{"name": name, "version": "1.2", "build": "h1_0", "subdir": "linux-64", "files": files},
        **{"extracted_package_dir": str(unpacked), "sha256": "ab" * 32, "fn": f"{name}.conda"},
        **facts,
    }
    written(prefix / "conda-meta" / f"{name}.json", json.dumps(record))


def one(files: Path, environ: Mapping[str, str] | None = None) -> Origin:
    return Origins(environ or {}).of([files])[files]


def test_a_package_of_a_channel(tmp_path: Path) -> None:
    installed(
        tmp_path / "p",
        "cuda-cccl",
        ["include/a.h"],
        {"licenses/LICENSE": "the words", "licenses/sub/NOTICE": "more"},
        license="Apache-2.0 WITH LLVM-exception",
        url="https://user:secret@host.example/t/tk-123/conda-forge/linux-64/cuda-cccl-1.2-h1_0.conda",
    )
    found = one(tmp_path / "p/include/a.h")
    assert found == Origin(
        "cuda-cccl",
        "1.2",
        "pkg:conda/cuda-cccl@1.2?build=h1_0&channel=conda-forge&subdir=linux-64&type=conda",
        "ab" * 32,
        "cuda-cccl.conda",
        "Apache-2.0 WITH LLVM-exception",
    )
    assert found.texts == {"LICENSE": b"the words", "sub/NOTICE": b"more"}


def test_a_package_of_this_machine_has_no_digest_of_another(tmp_path: Path) -> None:
    installed(
        tmp_path / "p", "toy", ["lib/t.a"], {}, url="file:///home/me/channel/linux-64/t.conda"
    )
    found = one(tmp_path / "p/lib/t.a")
    assert (found.purl, found.sha256, found.archive) == (
        "pkg:conda/toy@1.2?build=h1_0&subdir=linux-64",
        "",
        "",
    )


def test_a_file_below_a_link_is_of_the_package_that_has_the_link(tmp_path: Path) -> None:
    """Our toolchain links to unpacked wheels; a link to the prefix leads to the same record."""
    written(tmp_path / "cache/torch/include/c10.h")
    prefix = tmp_path / "p"
    (prefix / "lib").mkdir(parents=True)
    (prefix / "lib/torch").symlink_to(tmp_path / "cache/torch")
    installed(prefix, "pytorch", ["lib/torch"], {})
    (tmp_path / "other").symlink_to(prefix)
    for name in ("p", "other"):
        assert one(tmp_path / name / "lib/torch/include/c10.h").name == "pytorch"
    real = tmp_path / "cache/torch/include/c10.h"
    assert one(real) == Origin("unknown")


def test_the_toolchains_record_comes_before_condas(tmp_path: Path) -> None:
    wheel = LockedWheel("nvidia_cuda_runtime-13.0.96-py3-none-any.whl", "cd" * 32)
    info = tmp_path / "tree/site/nvidia_cuda_runtime-13.0.96.dist-info"
    written(info / "METADATA", "Name: nvidia-cuda-runtime\nLicense: LicenseRef-NVIDIA\n\n")
    written(info / "licenses/License.txt", "the agreement")
    members = with_record([(of_wheel(wheel, tmp_path / "tree"), None)])
    info_files = {name.removeprefix("info/"): data for name, data in members.items()}
    assert set(info_files) == {"licenses/License.txt", RECORD}
    installed(tmp_path / "p", "cuda-cudart-static_linux-64", ["lib/libcudart_static.a"], info_files)
    found = one(tmp_path / "p/lib/libcudart_static.a")
    assert found == Origin(
        "nvidia-cuda-runtime",
        "13.0.96",
        "pkg:pypi/nvidia-cuda-runtime@13.0.96",
        "cd" * 32,
        "nvidia_cuda_runtime-13.0.96-py3-none-any.whl",
        "LicenseRef-NVIDIA",
    )
    assert found.texts == {"License.txt": b"the agreement"}


def test_a_record_says_which_file_is_of_which_debian_package(tmp_path: Path) -> None:
    sources = []
    for name, file in (("libcub-dev", "include/cub.h"), ("libthrust-dev", "include/thrust.h")):
        deb = LockedDeb(f"{name}_2.3.2-2_all.deb", name[3] * 64, f"pool/{name}", 1)
        tree = tmp_path / name
        written(tree / f"usr/share/doc/{name}/copyright", f"Format: x\nLicense: {name}\n")
        sources.append((of_deb(deb, tree), [file]))
    members = {name.removeprefix("info/"): data for name, data in with_record(sources).items()}
    installed(tmp_path / "p", "cuda-cccl_linux-64", ["include/cub.h", "include/thrust.h"], members)
    found = Origins({}).of([tmp_path / "p/include/cub.h", tmp_path / "p/include/thrust.h"])
    said = [(item.name, item.licence, list(item.texts)) for item in found.values()]
    assert said == [(name, name, [name]) for name in ("libcub-dev", "libthrust-dev")]
    assert {item.purl for item in found.values()} == {
        "pkg:deb/debian/libcub-dev@2.3.2-2?arch=all",
        "pkg:deb/debian/libthrust-dev@2.3.2-2?arch=all",
    }


def test_the_copyright_of_a_compiler_lies_in_its_base_package(tmp_path: Path) -> None:
    """The folder of documents of Debian's libgcc-11-dev is a link to that of gcc-11-base."""
    base, other = (
        LockedDeb(f"{name}_{version}_amd64.deb", digit * 64, f"pool/{name}", 1)
        for name, version, digit in (("gcc-11-base", "11.3.0-12", "a"), ("gcc-12-base", "12", "b"))
    )
    trees = {other: tmp_path / "12", base: tmp_path / "11"}
    for deb, tree in trees.items():
        written(tree / f"usr/share/doc/{deb.package}/copyright", f"License: {deb.package}\n")
    of_gcc = LockedDeb("libgcc-11-dev_11.3.0-12_amd64.deb", "c" * 64, "pool/x", 1)
    own = LockedDeb("libgmp10_11.3.0-12_amd64.deb", "d" * 64, "pool/y", 1)
    written(tmp_path / "gmp/usr/share/doc/libgmp10/copyright", "License: LGPL\n")
    assert of_deb(of_gcc, tmp_path / "none", trees).texts == {
        "gcc-11-base": b"License: gcc-11-base\n"
    }
    assert list(of_deb(own, tmp_path / "gmp", trees).texts) == ["libgmp10"]
    assert of_deb(of_gcc, tmp_path / "none").texts == {}


def test_a_folder_with_a_record_of_its_own(tmp_path: Path) -> None:
    """As that of a g++ which is put together of Debian's packages."""
    deb = LockedDeb("libgcc-11-dev_11.3.0-12_amd64.deb", "ef" * 32, "pool/x", 1)
    data = with_record([(of_deb(deb, tmp_path), ["usr/lib/gcc/crtbeginS.o"])])[f"info/{RECORD}"]
    written(tmp_path / f"home/.{RECORD}", data)
    crt = written(tmp_path / "home/usr/lib/gcc/crtbeginS.o")
    assert one(crt).purl == "pkg:deb/debian/libgcc-11-dev@11.3.0-12?arch=amd64"
    assert one(written(tmp_path / "home/usr/lib/gcc/other.o")) == Origin("unknown")


def test_a_wheel_that_pip_installed(tmp_path: Path) -> None:
    site = tmp_path / "lib/python3.12/site-packages"
    header = written(site / "torch/include/c10.h")
    info = site / "torch-2.13.0+cpu.dist-info"
    written(info / "METADATA", "Name: torch\nVersion: 2.13.0+cpu\nLicense: BSD-3-Clause\n\n")
    written(
        info / "RECORD", "torch/include/c10.h,sha256=x,1\ntorch-2.13.0+cpu.dist-info/RECORD,,\n"
    )
    written(info / "LICENSE", "the words")
    found = one(header)
    assert found == Origin(
        "torch", "2.13.0+cpu", "pkg:pypi/torch@2.13.0%2Bcpu", licence="BSD-3-Clause"
    )
    assert found.texts == {"LICENSE": b"the words"}
    assert one(written(site / "torch/left_over.h")) == Origin("unknown")


def test_debians_own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dpkg-query is asked once for all; its lists may have /lib for what is in /usr/lib."""
    calls = tmp_path / "calls"
    program = tmp_path / "bin/dpkg-query"
    written(
        program,
        f"#!{sys.executable}\nimport sys\n"
        f"open({str(calls)!r}, 'a').write(sys.argv[1] + '\\n')\n"
        "if sys.argv[1] == '-S':\n"
        "    for name in sys.argv[2:]:\n"
        "        if name.endswith('.h') or name.startswith('/lib/'):\n"
        "            print(f'no-such-package-dev:amd64: {name}')\n"
        "    sys.exit(1)\n"
        "print('no-such-package-dev\\t1:2.3+b1\\tamd64\\tinstalled')\n",
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    headers = [written(tmp_path / f"usr/include/{name}.h") for name in "ab"]
    other = written(tmp_path / "usr/include/c.txt")
    moved = Path("/usr/lib/no-such-folder/crti.o")
    found = Origins({}).of([*headers, other, moved])
    assert {found[path].name for path in (*headers, moved)} == {"no-such-package-dev"}
    assert found[moved].version == "1:2.3+b1"
    assert "/no-such-package-dev@1:2.3%2Bb1?arch=amd64" in found[moved].purl
    assert found[other] == Origin("unknown")
    assert calls.read_text().split() == ["-S", "-W"]


def test_it_needs_no_dpkg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert one(written(tmp_path / "a.h")) == Origin("unknown")


def test_damaged_records_are_no_records(tmp_path: Path) -> None:
    installed(tmp_path / "p", "toy", ["a.h"], {RECORD: "{"})
    written(tmp_path / "p/conda-meta/bad.json", "[1")
    assert one(tmp_path / "p/a.h") == Origin("unknown")


def test_it_starts_without_packaging() -> None:
    """setup.py imports it on Python 3.8."""
    code = "import flashinfer_build.compile.origins, sys; sys.exit('packaging' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environ).returncode == 0
