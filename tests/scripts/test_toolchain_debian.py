"""Debian as a source, over a toy archive served by http: CUDA, g++, C library, and failures."""

from __future__ import annotations

import functools
import http.server
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from deb_factory import make_deb
from wheel_factory import make_wheel

from conda_bridge.errors import ArtifactError, ToolchainError
from conda_bridge.formats import elf
from flashinfer_build import toolchain
from flashinfer_build.label import Variant
from flashinfer_build.toolchain import Request, pypi, system
from flashinfer_build.toolchain.assembled import Assembled
from flashinfer_build.toolchain.debian import apt
from flashinfer_build.toolchain.debian import parts as module
from flashinfer_build.toolchain.debian.parts import Debian
from flashinfer_build.toolchain.lock import SCHEMA, Lock, LockedDeb
from flashinfer_build.toolchain.packages import PackageSpec
from flashinfer_build.toolchain.pypi import PyPI

TARGET = "targets/x86_64-linux"
SYSROOT = "x86_64-conda-linux-gnu/sysroot"
LIB = "usr/lib/x86_64-linux-gnu"
COPYRIGHT = "usr/share/doc/{}/copyright"


class Handler(http.server.SimpleHTTPRequestHandler):
    asked: list[str]
    refuse: int | None = None

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.refuse:
            self.send_error(self.refuse)
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Archive:
    """A mirror with toy packages, and the lock of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.debs: dict[str, dict[str, Any]] = {}
        self.wheels: dict[str, str] = {}
        self.data: dict[str, Any] = {
            "schema": SCHEMA,
            "tools": [],
            "cuda": {},
            "torch": {},
            "wheels": self.wheels,
            "debs": self.debs,
            "debian": {
                "cuda": {"12.4": {"toolkit": self._toolkit(), "gxx": []}},
                "sysroot": {"2.31": self._libc()},
            },
        }

    def add(self, package: str, version: str, **content: Any) -> str:
        deb = make_deb(self.folder, package, version, **content)
        self.debs[deb.filename] = {"path": deb.path, "size": deb.size, "sha256": deb.sha256}
        return deb.filename

    def deb(self, package: str) -> LockedDeb:
        [name] = [name for name in self.debs if name.startswith(f"{package}_")]
        return LockedDeb(name, **{key: self.debs[name][key] for key in ("sha256", "path", "size")})

    def _toolkit(self) -> list[str]:
        own = "usr/lib/nvidia-cuda-toolkit"
        nvcc = "#!/bin/sh\necho release 12.4, V12.4.131\n"
        return [
            self.add(
                "nvidia-cuda-toolkit",
                "12.4.131~12.4.1-2",
                files={
                    "usr/bin/ptxas": "",
                    "usr/bin/nvcc": "the script that names /usr",
                    "usr/bin/compute-sanitizer": "",
                    f"{own}/bin/nvcc": nvcc,
                    f"{own}/bin/cicc": "",
                    f"{own}/bin/crt/link.stub": "",
                    f"{own}/libdevice/libdevice.10.bc": "",
                    "usr/include/nvvm.h": "",
                    COPYRIGHT.format("nvidia-cuda-toolkit"): "terms",
                },
                links={f"{own}/bin/nvcc.profile": "/etc/nvcc.profile"},
                programs=["usr/bin/ptxas", f"{own}/bin/nvcc", f"{own}/bin/cicc"],
            ),
            self.add(
                "nvidia-cuda-dev",
                "12.4.127~12.4.1-2",
                files={
                    "usr/include/cuda_runtime.h": "",
                    "usr/include/cuda_fp16.hpp": "",
                    "usr/include/mma.h": "",
                    "usr/include/sm_20_intrinsics.h": "",
                    "usr/include/cooperative_groups/details/info.h": "",
                    "usr/include/crt/host_config.h": "",
                    "usr/include/fatbinary_section.h": "",
                    "usr/include/cublas.h": "",
                    "usr/include/cudalibxt.h": "",
                    f"{LIB}/libcudart_static.a": "",
                    f"{LIB}/libcudadevrt.a": "",
                    f"{LIB}/libcublas_static.a": "700 MB",
                    f"{LIB}/stubs/libcuda.so": "",
                    f"{LIB}/stubs/libcublas.so": "",
                },
                links={f"{LIB}/libcudart.so": "libcudart.so.12"},
            ),
            self.add(
                "libcudart12",
                "12.4.127~12.4.1-2",
                files={f"{LIB}/libcudart.so.12.4.127": ""},
                links={f"{LIB}/libcudart.so.12": "libcudart.so.12.4.127"},
            ),
            self.add("libcub-dev", "2.3.2-2", files={"usr/include/cub/cub.cuh": ""}),
            self.add("libcu++-dev", "2.3.2-2", files={"usr/include/nv/target": ""}),
        ]

    def _libc(self) -> list[str]:
        return [
            self.add(
                "libc6",
                "2.31-13+deb11u11",
                files={
                    "lib/x86_64-linux-gnu/libm.so.6": "m",
                    f"{LIB}/gconv/x.so": "",
                    COPYRIGHT.format("libc6"): "terms of libc6",
                },
                links={"lib64/ld.so": "/lib/x86_64-linux-gnu/libm.so.6"},
            ),
            self.add(
                "libc6-dev",
                "2.31-13+deb11u11",
                files={"usr/include/stdio.h": "", "usr/bin/gencat": "", f"{LIB}/crti.o": ""},
                links={f"{LIB}/libm.so": "/lib/x86_64-linux-gnu/libm.so.6"},
            ),
        ]

    def with_gxx(self, files: Mapping[str, str], programs: list[str]) -> None:
        """Gives CUDA 12.4 a g++ of its own."""
        name = self.add("g++-11", "11.3.0-12", files=files, programs=programs)
        self.data["debian"]["cuda"]["12.4"]["gxx"] = [name]

    def lock(self) -> Lock:
        return Lock(json.loads(json.dumps(self.data)), "toy lock")

    def source(self, tmp_path: Path) -> Debian:
        return Debian(tmp_path / "cache", self.lock())


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


@pytest.fixture
def mirror(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    """The archive over http, as the only mirror; the requests that it got."""
    handler = type("Asked", (Handler,), {"asked": []})
    serve = functools.partial(handler, directory=str(archive.folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{running.server_address[1]}/"
        monkeypatch.setenv(apt.MIRROR_VARIABLE, url)
        yield handler
        running.shutdown()
        thread.join()


def quiet(_line: str) -> None: ...


def left_in(cache: Path) -> list[str]:
    """Files in the cache that are no locks and in no finished tree."""
    return [
        path.name
        for path in cache.rglob("*")
        if path.is_file() and path.suffix != ".lock" and "unpacked" not in path.parts
    ]


# ---------------------------------------------------------------- CUDA


def test_cuda_in_conda_forges_places(
    archive: Archive, mirror: type[Handler], tmp_path: Path
) -> None:
    part = archive.source(tmp_path).cuda((12, 4), quiet)
    where = {file.path: spec.name for spec in part.specs for file in spec.files()}
    assert where == {
        "bin/ptxas": "cuda-nvcc-tools",
        "bin/nvcc": "cuda-nvcc-tools",
        "bin/nvcc.profile": "cuda-nvcc-tools",
        "bin/crt/link.stub": "cuda-nvcc-tools",
        "nvvm/bin/cicc": "cuda-nvvm-tools",
        "nvvm/libdevice/libdevice.10.bc": "cuda-nvvm-dev_linux-64",
        f"{TARGET}/include/nvvm.h": "cuda-nvvm-dev_linux-64",
        f"{TARGET}/include/fatbinary_section.h": "cuda-nvcc-dev_linux-64",
        f"{TARGET}/include/crt/host_config.h": "cuda-crt-dev_linux-64",
        f"{TARGET}/include/cuda_runtime.h": "cuda-cudart-dev_linux-64",
        f"{TARGET}/include/cuda_fp16.hpp": "cuda-cudart-dev_linux-64",
        f"{TARGET}/include/mma.h": "cuda-cudart-dev_linux-64",
        f"{TARGET}/include/sm_20_intrinsics.h": "cuda-cudart-dev_linux-64",
        f"{TARGET}/include/cooperative_groups/details/info.h": "cuda-cudart-dev_linux-64",
        f"{TARGET}/lib/libcudart.so": "cuda-cudart-dev_linux-64",
        f"{TARGET}/lib/stubs/libcuda.so": "cuda-cudart-dev_linux-64",
        f"{TARGET}/lib/libcudart.so.12": "cuda-cudart_linux-64",
        f"{TARGET}/lib/libcudart.so.12.4.127": "cuda-cudart_linux-64",
        f"{TARGET}/lib/libcudart_static.a": "cuda-cudart-static_linux-64",
        f"{TARGET}/lib/libcudadevrt.a": "cuda-cudart-static_linux-64",
        f"{TARGET}/include/cub/cub.cuh": "cuda-cccl_linux-64",
        f"{TARGET}/include/nv/target": "cuda-cccl_linux-64",
    }
    versions = {spec.name: spec.version for spec in part.specs}
    assert versions["cuda-nvcc"] == "12.4.131"
    assert versions["cuda-cudart-dev"] == "12.4.127"
    assert versions["cuda-version"] == "12.4"
    files = {file.path: file for spec in part.specs for file in spec.files()}
    nvcc, profile = files["bin/nvcc"], files["bin/nvcc.profile"]
    assert nvcc.mode == 0o755
    assert isinstance(nvcc.source, Path)
    assert "V12.4.131" in nvcc.source.read_text()  # the program, not the script in usr/bin
    assert isinstance(profile.source, bytes)
    assert b"/usr" not in profile.source
    assert profile.link_target is None
    [tools] = [spec for spec in part.specs if spec.name == "cuda-nvcc-tools"]
    assert tools.info_files["info/licenses/nvidia-cuda-toolkit"] == b"terms"
    # What the SBOM of a build has it from.
    [entry] = json.loads(tools.info_files["info/origins.json"])["origins"]
    [deb] = [
        one
        for one in archive.lock().debian_cuda[(12, 4)].toolkit
        if one.package == "nvidia-cuda-toolkit"
    ]
    assert (entry["archive"], entry["sha256"]) == (deb.filename, deb.sha256)
    assert "bin/nvcc" in entry["files"]
    assert part.compiler is None
    assert archive.source(tmp_path).own_gxx((12, 4)) is None


def test_every_package_that_went_in_is_an_input(
    archive: Archive, mirror: type[Handler], tmp_path: Path
) -> None:
    part = archive.source(tmp_path).cuda((12, 4), quiet)
    locked = archive.lock().debian_cuda[(12, 4)].toolkit
    assert part.inputs == tuple(sorted(f"{deb.filename} {deb.sha256}" for deb in locked))


def test_the_second_time_nothing_is_downloaded_and_no_package_is_kept(
    archive: Archive, mirror: type[Handler], tmp_path: Path
) -> None:
    first = archive.source(tmp_path).cuda((12, 4), quiet)
    assert len(mirror.asked) == 5
    assert left_in(tmp_path / "cache") == []  # of 930 MB of static libraries only 3 MB are wanted
    trees = list((tmp_path / "cache").rglob("libcublas*"))
    assert trees == []
    shutil.rmtree(archive.folder)
    again = archive.source(tmp_path).cuda((12, 4), quiet)
    assert [spec.key for spec in again.specs] == [spec.key for spec in first.specs]
    assert len(mirror.asked) == 5


def test_what_was_damaged_after_it_was_unpacked_is_unpacked_again(
    archive: Archive, mirror: type[Handler], tmp_path: Path
) -> None:
    archive.source(tmp_path).cuda((12, 4), quiet)
    asked = len(mirror.asked)
    [nvcc] = (tmp_path / "cache").glob("unpacked/*/usr/lib/nvidia-cuda-toolkit/bin/nvcc")
    facts, whole = nvcc.stat(), nvcc.read_bytes()
    nvcc.chmod(0o755)  # a time that moved, and the same bytes
    archive.source(tmp_path).cuda((12, 4), quiet)
    assert len(mirror.asked) == asked
    nvcc.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    os.utime(nvcc, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    said: list[str] = []
    archive.source(tmp_path).cuda((12, 4), said.append)
    assert any("nvidia-cuda-toolkit" in line and "damaged" in line for line in said)
    assert nvcc.read_bytes() == whole
    assert len(mirror.asked) == asked + 1
    assert left_in(tmp_path / "cache") == []


def test_a_link_that_leads_elsewhere_is_damage_too(
    archive: Archive, mirror: type[Handler], tmp_path: Path
) -> None:
    archive.source(tmp_path).cuda((12, 4), quiet)
    asked = len(mirror.asked)
    links = [path for path in (tmp_path / "cache/unpacked").rglob("*") if path.is_symlink()]
    assert links
    links[0].unlink()
    links[0].symlink_to("elsewhere")
    archive.source(tmp_path).cuda((12, 4), quiet)
    assert str(links[0].readlink()) != "elsewhere"
    assert len(mirror.asked) == asked + 1


@pytest.mark.parametrize("package", ["nvidia-cuda-toolkit", "nvidia-cuda-dev", "libcudart12"])
def test_an_incomplete_toolkit_is_refused(
    archive: Archive, mirror: type[Handler], tmp_path: Path, package: str
) -> None:
    sets = archive.data["debian"]["cuda"]["12.4"]
    sets["toolkit"] = [name for name in sets["toolkit"] if not name.startswith(package)]
    with pytest.raises(ToolchainError, match=package):
        archive.source(tmp_path).cuda((12, 4), quiet)


# ---------------------------------------------------------------- downloads


def test_other_bytes_are_refused_and_removed(
    archive: Archive, mirror: type[Handler], tmp_path: Path
) -> None:
    deb = archive.deb("libcudart12")
    (archive.folder / deb.path).write_bytes(b"tampered")
    with pytest.raises(ToolchainError) as caught:
        archive.source(tmp_path).cuda((12, 4), quiet)
    assert caught.value.where == deb.filename
    assert "sha256 mismatch" in caught.value.what
    assert deb.sha256 in caught.value.expected
    assert left_in(tmp_path / "cache") == []


def test_a_superseded_package_is_named_though_another_mirror_fails(
    archive: Archive, mirror: type[Handler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deb = archive.deb("nvidia-cuda-dev")
    (archive.folder / deb.path).unlink()
    places = [os.environ[apt.MIRROR_VARIABLE].rstrip("/"), "cdrom:/nothing"]
    monkeypatch.setattr(apt, "mirrors", lambda: places)
    monkeypatch.setattr(apt, "_HELPER", tmp_path / "none")
    with pytest.raises(ToolchainError, match="a newer version has taken its place") as caught:
        archive.source(tmp_path).cuda((12, 4), quiet)
    assert "cdrom:/nothing: a login, or a transport of apt's own" in caught.value.what


@pytest.mark.parametrize("intact", [True, False])
def test_what_a_killed_run_left_is_used_if_it_is_what_it_was(
    archive: Archive, mirror: type[Handler], tmp_path: Path, intact: bool
) -> None:
    deb = archive.deb("libcudart12")
    body = bytearray((archive.folder / deb.path).read_bytes())
    if not intact:
        body[len(body) // 2] ^= 1
    left = deb.place(tmp_path / "cache")
    left.parent.mkdir(parents=True)
    left.write_bytes(body)
    archive.source(tmp_path).cuda((12, 4), quiet)
    assert (f"/{deb.path}" in mirror.asked) is not intact
    assert left_in(tmp_path / "cache") == []


def test_a_superseded_package_says_what_to_do(
    archive: Archive, mirror: type[Handler], tmp_path: Path
) -> None:
    deb = archive.deb("nvidia-cuda-dev")
    (archive.folder / deb.path).rename(archive.folder / "pool/main/nvidia-cuda-dev_13_amd64.deb")
    with pytest.raises(ToolchainError, match="a newer version has taken its place") as caught:
        archive.source(tmp_path).cuda((12, 4), quiet)
    assert caught.value.where == deb.filename
    assert "lock_toolchain.py --upgrade debian" in caught.value.fix
    assert apt.MIRROR_VARIABLE in caught.value.fix


def test_the_next_mirror_is_asked(
    archive: Archive, mirror: type[Handler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, tampered = tmp_path / "empty", tmp_path / "tampered"
    shutil.copytree(archive.folder, tampered)
    for path in tampered.rglob("*.deb"):
        path.write_bytes(b"other")
    good = os.environ[apt.MIRROR_VARIABLE].rstrip("/")
    places = [empty.as_uri(), tampered.as_uri(), good]
    monkeypatch.setattr(apt, "mirrors", lambda: places)
    part = archive.source(tmp_path).cuda((12, 4), quiet)
    assert {spec.name for spec in part.specs} > {"cuda-nvcc"}


def test_what_is_refused_is_left_to_apt(
    archive: Archive, mirror: type[Handler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.refuse = 401
    helper = tmp_path / "apt-helper"
    helper.write_text(
        f"#!{sys.executable}\n"
        "import hashlib, pathlib, shutil, sys\n"
        "_, command, url, target, digest = sys.argv\n"
        "assert command == 'download-file'\n"
        f"shutil.copy({str(archive.folder)!r} + '/pool' + url.split('/pool')[1], target)\n"
        "data = pathlib.Path(target).read_bytes()\n"
        "assert digest == 'SHA256:' + hashlib.sha256(data).hexdigest()\n"
    )
    helper.chmod(0o755)
    monkeypatch.setattr(apt, "_HELPER", helper)
    said: list[str] = []
    archive.source(tmp_path).cuda((12, 4), said.append)
    assert any("401" in line and "leaving it to apt" in line for line in said)
    assert left_in(tmp_path / "cache") == []


def test_what_nobody_brings_names_every_reason(
    archive: Archive, mirror: type[Handler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.refuse = 401
    helper = tmp_path / "apt-helper"
    helper.write_text("#!/bin/sh\necho 'E: Login needed' >&2\nexit 100\n")
    helper.chmod(0o755)
    monkeypatch.setattr(apt, "_HELPER", helper)
    with pytest.raises(ToolchainError, match=r"127\.0\.0\.1: 401 .*; apt: E: Login needed"):
        archive.source(tmp_path).cuda((12, 4), quiet)
    monkeypatch.setattr(apt, "_HELPER", tmp_path / "none")
    with pytest.raises(ToolchainError, match="there is no apt here"):
        archive.source(tmp_path).cuda((12, 4), quiet)


@pytest.mark.parametrize("host", ["127.0.0.1:9", "127.0.0.1"])
def test_a_mirrors_password_is_not_shown(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv(apt.MIRROR_VARIABLE, f"http://me:secret@{host}/debian")
    helper = tmp_path / "apt-helper"
    helper.write_text('#!/bin/sh\necho "E: Failed to fetch $2" >&2\ntouch "$3.FAILED"\nexit 100\n')
    helper.chmod(0o755)
    monkeypatch.setattr(apt, "_HELPER", helper)
    said: list[str] = []
    with pytest.raises(ToolchainError, match="Failed to fetch http://127") as caught:
        archive.source(tmp_path).cuda((12, 4), said.append)
    assert "secret" not in str(caught.value) + "\n".join(said)
    assert left_in(tmp_path / "cache") == []


def test_a_package_that_cannot_be_unpacked_leaves_nothing_under_its_name(
    archive: Archive, mirror: type[Handler], tmp_path: Path
) -> None:
    name = archive.add(
        "libcudart12", "12.4.127~12.4.1-2", links={f"{LIB}/libcudart.so.12": "../" * 9}
    )
    with pytest.raises(ArtifactError, match="points outside"):
        archive.source(tmp_path).cuda((12, 4), quiet)
    trees = [path for path in (tmp_path / "cache/unpacked").iterdir() if path.is_dir()]
    assert [path for tree in trees for path in tree.rglob("libcudart.so.12*")] == []
    assert archive.deb("libcudart12").filename == name


# ---------------------------------------------------------------- g++


def test_a_gxx_of_its_own(archive: Archive, mirror: type[Handler], tmp_path: Path) -> None:
    gcc = "usr/lib/gcc/x86_64-linux-gnu/11"
    driver = '#!/bin/sh\nexec "${0%/*}/../lib/gcc/x86_64-linux-gnu/11/cc1plus" "$@"\n'
    archive.with_gxx(
        {
            "usr/bin/x86_64-linux-gnu-g++-11": "#!/bin/sh\necho 11.3.0\n",
            "usr/bin/x86_64-linux-gnu-gcc-11": driver,
            f"{gcc}/cc1plus": '#!/bin/sh\necho "$LD_LIBRARY_PATH" "$@"\n',
            f"{gcc}/lto1": "not wanted",
            f"{gcc}/include/stddef.h": "",
            "usr/include/c++/11/vector": "",
            f"{LIB}/libmpc.so.3": "",
            "lib/x86_64-linux-gnu/libz.so.1": "",
        },
        [
            "usr/bin/x86_64-linux-gnu-g++-11",
            "usr/bin/x86_64-linux-gnu-gcc-11",
            f"{gcc}/cc1plus",
        ],
    )
    source = archive.source(tmp_path)
    assert source.own_gxx((12, 4)) == 11
    compiler = source.cuda((12, 4), quiet).compiler
    assert compiler is not None
    assert (compiler.version, compiler.major) == ("11.3.0", "11")
    home = compiler.cxx.parents[2]
    assert not (home / gcc / "lto1").exists()
    # The driver stays as it is; what it starts finds its libraries, all in one folder.
    environ = {**os.environ, "LD_LIBRARY_PATH": "/mine"}
    answer = subprocess.check_output([compiler.cc, "a b"], text=True, env=environ)
    paths, _, arguments = answer.strip().partition(" ")
    first, _, rest = paths.partition(":")
    assert (rest, arguments) == ("/mine", "a b")
    assert {path.name for path in Path(first).iterdir()} >= {"libmpc.so.3", "libz.so.1"}
    # What was unpacked for the cache is shared, and stays as it was.
    assert not list((tmp_path / "cache/unpacked").rglob("*.bin"))
    assert source.cuda((12, 4), quiet).compiler == compiler
    name = archive.deb("g++-11")
    assert f"{name.filename} {name.sha256}" in source.cuda((12, 4), quiet).inputs


# ---------------------------------------------------------------- what it does not have


def test_missing_downloads_nothing(archive: Archive, mirror: type[Handler], tmp_path: Path) -> None:
    source = archive.source(tmp_path)
    assert source.missing_cuda((12, 4)) == ""
    assert source.missing_glibc("2.31") == ""
    assert source.missing_cuda((12, 6)) == "CUDA 12.6 is not in Debian, which has 12.4"
    assert source.missing_glibc("2.28") == "glibc 2.28 is not locked of Debian, which has 2.31"
    assert mirror.asked == []
    assert not (tmp_path / "cache").exists()


def test_another_machine_is_told(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = archive.source(tmp_path)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    for said in (source.missing_cuda((12, 4)), source.missing_glibc("2.31")):
        assert said == "Debian's packages are for x86-64 Linux, this is aarch64 linux"
    monkeypatch.undo()
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert "C library" in source.missing_cuda((12, 4))


def test_a_machine_without_debian_will_do(
    archive: Archive, mirror: type[Handler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither apt nor dpkg is needed to take packages from a mirror."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(apt, "_HELPER", tmp_path / "none")
    source = archive.source(tmp_path)
    assert source.missing_cuda((12, 4)) == ""
    assert source.cuda((12, 4), quiet).specs


def test_the_gxx_needs_a_newer_c_library(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "glibc_version", lambda: "2.31")
    assert archive.source(tmp_path).missing_cuda((12, 4)) == ""
    archive.with_gxx({}, [])
    assert "needs glibc 2.34" in archive.source(tmp_path).missing_cuda((12, 4))


# ---------------------------------------------------------------- C library


def test_sysroot_in_conda_forges_place(
    archive: Archive, mirror: type[Handler], tmp_path: Path
) -> None:
    part = archive.source(tmp_path).sysroot("2.31", quiet)
    files = {file.path: file.link_target for file in part.spec.files()}
    assert files == {
        f"{SYSROOT}/lib/x86_64-linux-gnu/libm.so.6": None,
        f"{SYSROOT}/lib64/ld.so": "../lib/x86_64-linux-gnu/libm.so.6",
        f"{SYSROOT}/usr/include/stdio.h": None,
        f"{SYSROOT}/{LIB}/crti.o": None,
        f"{SYSROOT}/{LIB}/libm.so": "../../../lib/x86_64-linux-gnu/libm.so.6",
    }
    assert (part.spec.name, part.spec.version, part.glibc) == ("sysroot_linux-64", "2.31", "2.31")
    exports = json.loads(part.spec.info_files["info/run_exports.json"])
    assert exports == {"strong": ["__glibc >=2.31,<3.0.a0"]}
    assert part.spec.info_files["info/licenses/libc6"] == b"terms of libc6"
    assert any(line.startswith("libc6-dev_2.31") for line in part.inputs)


def lay_out(specs: Sequence[PackageSpec], prefix: Path) -> None:
    """What installing the packages would write."""
    for spec in specs:
        for file in spec.files():
            path = prefix / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.link_target is not None:
                path.symlink_to(file.link_target)
            else:
                content = file.source.read_bytes() if isinstance(file.source, Path) else file.source
                path.write_bytes(content or b"")
                path.chmod(file.mode)


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_headers_and_libraries_are_those_of_the_sysroot(
    archive: Archive, mirror: type[Handler], tmp_path: Path
) -> None:
    """A C library with a function that no other has, under the name of the machine's own."""
    (tmp_path / "toy.c").write_text("int only_here(void) { return 1; }\n")
    (tmp_path / "toy.map").write_text("GLIBC_2.31 { global: *; };\n")
    # fmt: off
    run("gcc", "-shared", "-nostdlib", "-fPIC", "-Wl,-soname,libc.so.6",
        "-Wl,--version-script=toy.map", "toy.c", "-o", "libc.so.6", cwd=tmp_path)
    # fmt: on
    name = archive.add(
        "libc6",
        "2.31-14",
        files={
            "lib/x86_64-linux-gnu/libc.so.6": (tmp_path / "libc.so.6").read_bytes(),
            "usr/include/only_here.h": "int only_here(void);\n",
            "usr/include/features.h": "#define __GLIBC_PREREQ(major, minor) 1\n",
        },
        links={f"{LIB}/libc.so": "/lib/x86_64-linux-gnu/libc.so.6"},
    )
    archive.data["debian"]["sysroot"]["2.31"] = [name]
    part = archive.source(tmp_path).sysroot("2.31", quiet)
    compilers = system.compiler_packages(system.find_compiler(), part.spec, own_sysroot=True)
    prefix = tmp_path / "prefix"
    lay_out([part.spec, *compilers], prefix)
    (tmp_path / "use.c").write_text("#include <only_here.h>\nint f() { return only_here(); }\n")
    gcc = prefix / "bin/x86_64-conda-linux-gnu-gcc"
    # fmt: off
    run(gcc, "-shared", "-fPIC", "-Wl,--no-undefined", "-Wl,--no-as-needed", "use.c",
        "-o", "libuse.so", cwd=tmp_path)
    # fmt: on
    linked = elf.read((tmp_path / "libuse.so").read_bytes(), "libuse.so")
    assert linked.floors["GLIBC"] == "2.31"
    # The assembler and the rest are as they were.
    assert b"sysroot" not in (prefix / "bin/x86_64-conda-linux-gnu-as").read_bytes()
    # The C++ compiler has it too, and the C++ headers are still its own.
    (tmp_path / "use.cpp").write_text("#include <initializer_list>\n#include <only_here.h>\n")
    listed = run(prefix / "bin/x86_64-conda-linux-gnu-g++", "-E", "use.cpp", cwd=tmp_path)
    assert f"/{SYSROOT}/usr/include/only_here.h" in listed
    assert f"/{SYSROOT}/usr/include/c++" not in listed


def test_a_compiler_with_a_sysroot_is_another_package(tmp_path: Path) -> None:
    compiler, sysroot = system.find_compiler(), system.sysroot_package()
    own = system.compiler_packages(compiler, sysroot)
    other = system.compiler_packages(compiler, sysroot, own_sysroot=True)
    assert {spec.key for spec in own}.isdisjoint(
        spec.key for spec in other if spec.name in ("gcc_linux-64", "gxx_linux-64")
    )


def test_a_toolchain_with_an_older_c_library(
    archive: Archive, mirror: type[Handler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "wheelhouse"
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    _, wheel = make_wheel(folder, "packaging")
    archive.wheels[wheel.filename] = wheel.sha256
    archive.data["tools"] = [wheel.filename]
    cache = tmp_path / "cache"
    debian, index = Debian(cache, archive.lock()), PyPI(cache, archive.lock())
    provider = Assembled("toy", debian, index, debian, cache=cache)
    variant = Variant((12, 4), (2, 4))
    own = provider.provide(Request(variant, torch=False), report=quiet)
    old = provider.provide(Request(variant, torch=False, glibc="2.31"), report=quiet)
    assert old.variant_keys["c_stdlib_version"] == "2.31"
    assert own.variant_keys["c_stdlib_version"] == platform.libc_ver()[1]
    assert "sysroot_linux-64 2.31" in old.compiler_inputs
    libc = archive.deb("libc6")
    assert f"{libc.filename} {libc.sha256}" in old.compiler_inputs
    assert old.channels != own.channels
    missing = provider.missing(Request(variant, torch=False, glibc="2.28"))
    assert missing == "glibc 2.28 is not locked of Debian, which has 2.31"


# ---------------------------------------------------------------- the shipped lock


def supplied(name: str, **wanted: Any) -> toolchain.Supply:
    spec = Request(Variant.parse(name), gxx_below=99, **wanted)
    return toolchain.supply(spec, toolchain.providers())


@pytest.mark.parametrize("name", ["cu124_torch24", "cu124_torch25", "cu124_torch26"])
def test_the_shipped_lock_supplies_cuda_12_4_from_debian(name: str) -> None:
    if pypi._TAG == "cp313" and name == "cu124_torch24":
        assert "is not locked for cp313" in supplied(name).missing
    else:
        assert supplied(name) == toolchain.Supply("debian", "")


def test_the_shipped_lock_compiles_kernels_for_cuda_11_8_with_a_gxx_of_its_own() -> None:
    request = Request(Variant.parse("cu118_torch24"), gxx_below=12, torch=False)
    assert toolchain.supply(request, toolchain.providers()) == toolchain.Supply("debian", "")
    assert Debian().own_gxx((11, 8)) == 11
    assert supplied("cu125_torch25", torch=False).provider == "debian"


def test_no_torch_of_another_cuda_major_is_passed_off() -> None:
    assert "debian: its torch 2.5 is built with CUDA 12.4" in supplied("cu118_torch25").missing


@pytest.mark.parametrize("name", ["cu121_torch25", "cu126_torch26", "cu128_torch28"])
def test_no_cuda_is_passed_off_as_another(name: str) -> None:
    supply = supplied(name)
    assert supply.provider is None
    assert "is not in Debian, which has 11.8, 12.4, 12.5" in supply.missing


def test_the_shipped_lock_has_an_older_c_library_for_every_provider() -> None:
    for provider in toolchain.providers():
        if provider.name in ("pypi", "debian"):
            name = "cu130_torch213" if provider.name == "pypi" else "cu124_torch25"
            request = Request(Variant.parse(name), glibc="2.31")
            assert provider.missing(request) == ""
