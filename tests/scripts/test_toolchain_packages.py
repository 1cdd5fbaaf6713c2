"""Wheels and the machine's own programs as conda packages: made once, really installed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from wheel_factory import make_wheel

from conda_bridge.errors import ArtifactError, ToolchainError
from conda_bridge.formats import conda_package
from conda_bridge.formats.conda_writer import PackageFile
from conda_bridge.system import process
from flashinfer_build.compile import builder
from flashinfer_build.toolchain import intact, system
from flashinfer_build.toolchain.channel import make_channel
from flashinfer_build.toolchain.cuda_wheels import cuda_packages
from flashinfer_build.toolchain.lock import CudaSet, LockedWheel
from flashinfer_build.toolchain.packages import Built, PackageSpec, make
from flashinfer_build.toolchain.unpacked import (
    SITE,
    files_of,
    join,
    link_tree,
    symlink_site,
    unpack,
)
from flashinfer_build.toolchain.wheels import conda_name, linked_torch_package, python_wheel_package

MINOR = "{}.{}".format(*sys.version_info[:2])


def package_of(tmp_path: Path, *args: Any, **kwargs: Any) -> tuple[PackageSpec, Path]:
    """The spec of a toy wheel, and its tree."""
    path, wheel = make_wheel(tmp_path / "wheels", *args, **kwargs)
    tree = unpack(path, wheel, tmp_path / "cache")
    return python_wheel_package(wheel, tree), tree


def payload(built: Built) -> dict[str, bytes]:
    return {
        member.path: b"".join(member.chunks()) if member.link_target is None else b""
        for member in conda_package.read(built.path).payload()
    }


def install(channel: Path, specs: list[str], tmp_path: Path) -> Path:
    """Installs from `channel` with py-rattler, as try_out does."""
    prefix = tmp_path / "prefix"
    request = tmp_path / "install.json"
    request.write_text(
        json.dumps({"channels": [channel.as_uri()], "specs": specs, "prefix": str(prefix)})
    )
    done = process.run(
        [
            sys.executable,
            "-m",
            "flashinfer_build.tryout.install_worker",
            str(request),
            str(tmp_path / "ok"),
        ],
        environ=builder.subprocess_environ(tmp_path / "cache"),
    )
    assert done.code == 0, "\n".join(done.tail)
    return prefix


# ---------------------------------------------------------------- unpacking


def test_unpack_sorts_data_folders_and_keeps_modes(tmp_path: Path) -> None:
    path, wheel = make_wheel(
        tmp_path,
        "tool",
        files={
            "tool/__init__.py": "",
            "tool-1.0.data/scripts/tool": "#!/bin/sh\n",
            "tool-1.0.data/purelib/extra.py": "",
            "tool-1.0.data/data/share/doc": "",
            "tool/run.sh": "",
        },
        executables=["tool/run.sh"],
    )
    tree = unpack(path, wheel, tmp_path / "cache")
    names = {file.relative_to(tree).as_posix() for file in files_of(tree)}
    assert {"site/tool/__init__.py", "bin/tool", "site/extra.py", "data/share/doc"} <= names
    assert os.access(tree / "bin/tool", os.X_OK)
    assert os.access(tree / "site/tool/run.sh", os.X_OK)
    assert not os.access(tree / "site/tool/__init__.py", os.X_OK)


@pytest.mark.parametrize("member", ["../outside", "/absolute", "a/../../b", "x-1.data/odd/y"])
def test_unpack_refuses_members_that_lead_elsewhere(tmp_path: Path, member: str) -> None:
    path = tmp_path / "bad-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fine.py", "")
        archive.writestr(member, "x")
    wheel = LockedWheel(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ArtifactError) as caught:
        unpack(path, wheel, tmp_path / "cache")
    assert member in str(caught.value)
    left = [p for p in (tmp_path / "cache").rglob("*") if p.suffix != ".lock"]
    assert left == [tmp_path / "cache" / "unpacked"]


def test_unpack_refuses_what_is_no_zip(tmp_path: Path) -> None:
    path = tmp_path / "bad-1.0-py3-none-any.whl"
    path.write_bytes(b"no zip")
    locked = LockedWheel(path.name, hashlib.sha256(b"no zip").hexdigest())
    with pytest.raises(ArtifactError, match="not a wheel"):
        unpack(path, locked, tmp_path / "cache")


def _flip(path: Path) -> None:
    """One bit, in place, and the modification time as it was."""
    facts = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.mark.parametrize("damage", ["flipped", "gone", "list flipped", "list gone"])
def test_a_damaged_tree_is_mended(tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    path, wheel = make_wheel(
        tmp_path, "tool", files={"tool/run.sh": "#!/bin/sh\n"}, executables=["tool/run.sh"]
    )
    tree = unpack(path, wheel, cache)
    before = {file: file.read_bytes() for file in files_of(tree)}
    seen = tree.with_name(f"{tree.name}.seen.json")
    said: list[str] = []
    unpack(path, wheel, cache, said.append)
    assert said == []
    if damage == "flipped":
        _flip(tree / "site/tool/run.sh")
    elif damage == "gone":
        (tree / "site/tool/run.sh").unlink()
    elif damage == "list flipped":
        _flip(seen)
    else:
        seen.unlink()
    unpack(path, wheel, cache, said.append)
    assert {file: file.read_bytes() for file in files_of(tree)} == before
    assert os.access(tree / "site/tool/run.sh", os.X_OK)
    assert [line for line in said if "run.sh was damaged" in line] == (
        said if damage in ("flipped", "gone") else []
    )
    said.clear()
    unpack(path, wheel, cache, said.append)
    assert said == []


def test_a_damaged_wheel_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin, wheel = make_wheel(tmp_path / "wheelhouse", "tool")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(origin.parent))
    cache = tmp_path / "cache"
    path = cache / "wheels" / wheel.sha256 / wheel.filename
    path.parent.mkdir(parents=True)
    path.write_bytes(origin.read_bytes())
    _flip(path)
    said: list[str] = []
    tree = unpack(path, wheel, cache, said.append)
    assert "was damaged in the cache" in said[0]
    assert path.read_bytes() == origin.read_bytes()
    assert (tree / "site/tool.py").is_file()


def test_a_joined_tree_follows_the_mended_one(tmp_path: Path) -> None:
    path, wheel = make_wheel(tmp_path, "one")
    tree = unpack(path, wheel, tmp_path / "cache")
    joined = join([tree], tmp_path / "joined")
    assert not intact.changed(tree)  # the link moved the change time
    _flip(tree / "site/one.py")
    unpack(path, wheel, tmp_path / "cache")
    assert join([tree], tmp_path / "joined") == joined
    assert (joined / "site/one.py").samefile(tree / "site/one.py")
    assert not intact.changed(tree)
    (joined / "site/one.py").unlink()
    join([tree], tmp_path / "joined")
    assert (joined / "site/one.py").samefile(tree / "site/one.py")


def test_a_joined_tree_keeps_the_file_that_two_wheels_share(tmp_path: Path) -> None:
    trees = []
    for number, name in enumerate(("one", "two")):
        path, wheel = make_wheel(tmp_path, name, files={"nvidia/__init__.py": "same"})
        trees.append(unpack(path, wheel, tmp_path / "cache"))
        os.utime(trees[-1] / "site/nvidia/__init__.py", (number, number))
    joined = join(trees, tmp_path / "joined")
    shared = joined / "site/nvidia/__init__.py"
    before = shared.stat()
    join(trees, joined)
    assert shared.stat().st_ino == before.st_ino  # not linked to and fro
    shared.unlink()
    shared.write_text("flip")
    join(trees, joined)
    assert shared.read_text() == "same"


def test_links_share_the_file(tmp_path: Path) -> None:
    path, wheel = make_wheel(tmp_path, "one")
    tree = unpack(path, wheel, tmp_path / "cache")
    link_tree(tree, tmp_path / "copy")
    assert (tmp_path / "copy/site/one.py").samefile(tree / "site/one.py")
    with pytest.raises(FileExistsError):
        link_tree(tree, tmp_path / "copy")


def test_join_puts_everything_into_one_folder(tmp_path: Path) -> None:
    trees = []
    for name in ("one", "two"):
        path, wheel = make_wheel(tmp_path, name, files={f"shared/{name}.py": ""})
        trees.append(unpack(path, wheel, tmp_path / "cache"))
    joined = join(trees, tmp_path / "joined")
    assert {p.name for p in (joined / "site/shared").iterdir()} == {"one.py", "two.py"}
    with pytest.raises(ToolchainError, match="two wheels have shared"):
        (tmp_path / "site-packages").mkdir()
        symlink_site(trees, tmp_path / "site-packages")


def test_join_takes_one_of_two_equal_files_and_refuses_different_ones(tmp_path: Path) -> None:
    trees = []
    for name, content in (("one", "same"), ("two", "same"), ("three", "other")):
        files = {"nvidia/__init__.py": content, f"nvidia/{name}.so": ""}
        path, wheel = make_wheel(tmp_path, name, files=files)
        trees.append(unpack(path, wheel, tmp_path / "cache"))
    joined = join(trees[:2], tmp_path / "joined")
    assert {p.name for p in (joined / "site/nvidia").iterdir()} == {
        "__init__.py",
        "one.so",
        "two.so",
    }
    with pytest.raises(FileExistsError):
        join(trees, tmp_path / "joined-too")
    assert not (tmp_path / "joined-too").exists()


# ---------------------------------------------------------------- wheels


def test_pure_wheel_becomes_a_noarch_package(tmp_path: Path) -> None:
    spec, tree = package_of(
        tmp_path,
        "typing-extensions",
        "4.5",
        requires=[
            "MarkupSafe>=2.0,<4",
            "torch==2.13.*",
            "never; python_version < '3'",
            "only-with; extra == 'more'",
            "nvidia-cublas==13.1",
        ],
        scripts=["say = typing_extensions:main"],
    )
    index = spec.index()
    assert (index["name"], index["version"]) == ("typing_extensions", "4.5")
    assert index["depends"] == ["python", "markupsafe <4,>=2.0", "pytorch ==2.13.*"]
    assert (index["noarch"], index["subdir"]) == ("python", "noarch")
    link = json.loads(spec.info_files["info/link.json"])
    assert link["noarch"]["entry_points"] == ["say = typing_extensions:main"]
    links = {file.path: file.link_target or "" for file in spec.files()}
    assert sorted(links) == [
        "site-packages/typing_extensions-4.5.dist-info",
        "site-packages/typing_extensions.py",
    ]
    for name, target in links.items():
        assert target.startswith("../")  # conda does not keep absolute links
        assert (
            Path(os.path.normpath(f"/any/prefix/{name}/../{target}"))
            == tree / SITE / Path(name).name
        )


def test_wheel_with_machine_code_is_for_this_python(tmp_path: Path) -> None:
    tag = f"cp{MINOR.replace('.', '')}-cp{MINOR.replace('.', '')}-manylinux_2_17_x86_64"
    spec, _ = package_of(tmp_path, "numpy", "2.0", tag=tag, files={"numpy/__init__.py": ""})
    index = spec.index()
    assert index["subdir"] == "linux-64"
    assert index["depends"] == [f"python {MINOR}.*"]
    paths = {file.path for file in spec.files()}
    assert f"lib/python{MINOR}/site-packages/numpy" in paths


def test_ninja_is_the_program_alone(tmp_path: Path) -> None:
    spec, _ = package_of(
        tmp_path,
        "ninja",
        tag="py3-none-manylinux2014_x86_64",
        files={"ninja/__init__.py": "", "ninja-1.0.data/scripts/ninja": "#!/bin/sh\n"},
    )
    built = make(spec, tmp_path / "cache")
    assert payload(built) == {"bin/ninja": b"#!/bin/sh\n"}
    assert built.record["depends"] == []


def test_conda_names() -> None:
    assert conda_name("torch") == "pytorch"
    assert conda_name("Typing_Extensions") == "typing_extensions"
    assert conda_name("Jinja2") == "jinja2"


# ---------------------------------------------------------------- the store


def test_a_package_is_made_once_and_its_bytes_depend_on_its_content(tmp_path: Path) -> None:
    spec, _ = package_of(tmp_path, "one", requires=["two"])
    first = make(spec, tmp_path / "cache")
    made_at = first.path.stat().st_mtime_ns
    assert make(spec, tmp_path / "cache").path.stat().st_mtime_ns == made_at
    again = make(spec, tmp_path / "elsewhere")
    assert again.path.read_bytes() == first.path.read_bytes()
    other, _ = package_of(tmp_path, "one", "1.1")
    moved, _ = package_of(tmp_path / "moved", "one", requires=["two"])
    assert len({spec.key, other.key, moved.key}) == 3  # links to another place are other links
    assert make(other, tmp_path / "cache").path.name != first.path.name


def test_two_makers_at_once(tmp_path: Path) -> None:
    calls = []

    def files() -> list[PackageFile]:
        calls.append(1)
        return [PackageFile("share/x", b"x" * 1000, 0o644, None)]

    spec = PackageSpec("x", "1.0", identity=["x"], files=files)
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda _n: make(spec, tmp_path), range(4)))
    assert len({b.path for b in built}) == 1
    assert calls == [1]


def test_a_failing_package_leaves_nothing(tmp_path: Path) -> None:
    def files() -> list[PackageFile]:
        raise RuntimeError("no")

    spec = PackageSpec("x", "1.0", files=files)
    with pytest.raises(RuntimeError):
        make(spec, tmp_path)
    assert list((tmp_path / "packages").glob(spec.key)) == []
    assert list((tmp_path / "packages").glob(".partial*")) == []


@pytest.mark.parametrize("what", ["package", "record"])
def test_a_damaged_package_is_made_again_with_the_same_bytes(tmp_path: Path, what: str) -> None:
    cache = tmp_path / "cache"
    spec, _ = package_of(tmp_path, "one")
    built = make(spec, cache)
    channel = make_channel([built], cache)
    before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    _flip(built.path if what == "package" else built.path.with_name("record.json"))
    assert make(spec, cache) == built
    assert make_channel([make(spec, cache)], cache) == channel
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", ["linux-64/repodata.json", "noarch/repodata.json", "package"])
def test_a_damaged_channel_is_mended(tmp_path: Path, name: str) -> None:
    cache = tmp_path / "cache"
    spec, _ = package_of(tmp_path, "one")
    built = make(spec, cache)
    channel = make_channel([built], cache)
    [package] = channel.glob("*/one-*.conda")
    path = package if name == "package" else channel / name
    before = path.read_bytes()
    if name == "package":
        package.unlink()
        path.write_bytes(bytes(len(before)))  # a copy, as on a disk without hard links
    else:
        _flip(path)
    make_channel([built], cache)
    assert path.read_bytes() == before


def test_channel_names_every_package_with_its_digest(tmp_path: Path) -> None:
    one, _ = package_of(tmp_path, "one")
    built = [make(one, tmp_path / "cache"), make(PackageSpec("meta", "1"), tmp_path / "cache")]
    channel = make_channel(built, tmp_path / "cache")
    assert make_channel(reversed(built), tmp_path / "cache") == channel
    for package in built:
        folder = channel / package.record["subdir"]
        records = json.loads((folder / "repodata.json").read_text())["packages.conda"]
        data = (folder / package.path.name).read_bytes()
        assert records[package.path.name]["sha256"] == hashlib.sha256(data).hexdigest()
        assert records[package.path.name]["size"] == len(data)
    assert make_channel(built[:1], tmp_path / "cache") != channel


# ---------------------------------------------------------------- installed


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that a real client made from links, scripts and toy wheels."""
    tmp_path = tmp_path_factory.mktemp("installed")
    cache = tmp_path / "cache"
    path, wheel = make_wheel(
        tmp_path / "wheels",
        "torch",
        "2.13.0+cpu",
        files={"torch/__init__.py": "value = 1\n", "torchgen/__init__.py": ""},
        requires=["toy"],
    )
    tree = unpack(path, wheel, cache)
    (tree / SITE / "__pycache__").mkdir()
    toy, _ = package_of(tmp_path, "toy", scripts=["say = toy:say"], files={"toy.py": TOY})
    numpy, _ = package_of(tmp_path, "numpy", "2.0")
    specs = [
        system.python_package(),
        system.sysroot_package(),
        *system.compiler_packages(system.find_compiler(), system.sysroot_package()),
        linked_torch_package(wheel, tree, (), None),
        toy,
        numpy,
    ]
    channel = make_channel([make(spec, cache) for spec in specs], cache)
    return install(channel, ["pytorch 2.13.*", "gxx_linux-64"], tmp_path)


TOY = """
import sys

def say():
    print("said in", sys.prefix)
"""


def test_python_is_the_prefix_and_its_minor_version(prefix: Path) -> None:
    program = (
        "import sys, sysconfig, torch, toy; "
        "print(sys.prefix, sysconfig.get_path('purelib'), torch.__file__, '%d.%d' % "
        "sys.version_info[:2])"
    )
    done = subprocess.run([prefix / "bin/python", "-c", program], capture_output=True, text=True)
    site_packages = f"{prefix}/lib/python{MINOR}/site-packages"
    assert done.stdout.split() == [
        str(prefix),
        site_packages,
        f"{site_packages}/torch/__init__.py",
        MINOR,
    ], done.stderr


def test_entry_points_run_in_the_prefix(prefix: Path) -> None:
    done = subprocess.run([prefix / "bin/say"], capture_output=True, text=True)
    assert done.stdout.strip() == f"said in {prefix}"


def test_torch_is_links_and_its_metadata_is_found(prefix: Path) -> None:
    site_packages = prefix / f"lib/python{MINOR}/site-packages"
    assert (site_packages / "torch").is_symlink()
    assert (site_packages / "torchgen").is_symlink()
    assert not (site_packages / "__pycache__").is_symlink()
    program = "import importlib.metadata as m; print(m.version('torch'), m.version('numpy'))"
    done = subprocess.run([prefix / "bin/python", "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["2.13.0+cpu", "2.0"], done.stderr


def test_compiler_runs_under_its_conda_name(prefix: Path, tmp_path: Path) -> None:
    source = tmp_path / "hello.cpp"
    source.write_text('#include <cstdio>\nint main() { std::puts("hello"); }\n')
    script = (
        f'export CONDA_PREFIX="{prefix}"; . "$CONDA_PREFIX/etc/conda/activate.d/'
        'activate-gxx_linux-64.sh"; "$CXX" hello.cpp -o hello && ./hello'
    )
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "hello", done.stderr


def test_what_a_compiler_package_exports(tmp_path: Path) -> None:
    compiler = system.find_compiler()
    sysroot = system.sysroot_package()
    specs = [sysroot, *system.compiler_packages(compiler, sysroot)]
    by_name = {spec.name: spec for spec in specs}
    exported = {
        name: json.loads(by_name[name].info_files["info/run_exports.json"])["strong"]
        for name in ("gcc_linux-64", "gxx_linux-64", "sysroot_linux-64")
    }
    assert exported["gxx_linux-64"] == [
        f"libgcc >={compiler.major}",
        f"libstdcxx >={compiler.major}",
    ]
    assert exported["sysroot_linux-64"] == [f"__glibc >={system.glibc_version()},<3.0.a0"]
    assert by_name["gxx_linux-64"].version == compiler.version


def test_a_compiler_may_have_arguments_or_spaces_in_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "two words"
    folder.mkdir()
    for name in ("gcc", "g++"):
        (folder / name).symlink_to(str(shutil.which(name)))
    path = os.environ["PATH"]
    assert system.find_compiler({"PATH": path, "CXX": str(folder / "g++")}).cxx == folder / "g++"
    assert system.find_compiler({"PATH": path, "CXX": f"'{folder}/g++' -m64"}).cc == folder / "gcc"


def test_missing_compiler_is_named() -> None:
    with pytest.raises(ToolchainError, match="no C\\+\\+ compiler 'g\\+\\+'") as caught:
        system.find_compiler({"PATH": "/nowhere"})
    assert "apt install g++" in caught.value.fix
    with pytest.raises(ToolchainError, match="clang-none"):
        system.find_compiler({"PATH": os.environ["PATH"], "CXX": "clang-none"})
    with pytest.raises(ToolchainError, match=r"is not g\+\+"):
        system.find_compiler({"PATH": os.environ["PATH"], "CXX": "true"})


# ---------------------------------------------------------------- CUDA

TOOLKIT = {
    "nvidia-cuda-nvcc": [
        "bin/nvcc",
        "bin/nvcc.profile",
        "bin/crt/link.stub",
        "include/fatbinary_section.h",
    ],
    "nvidia-nvvm": [
        "nvvm/bin/cicc",
        "nvvm/libdevice/libdevice.10.bc",
        "include/nvvm.h",
        "lib/libnvvm.so.4",
    ],
    "nvidia-cuda-crt": ["include/crt/host_config.h"],
    "nvidia-cuda-runtime": [
        "include/cuda_runtime.h",
        "lib/libcudart.so.13",
        "lib/libcudart_static.a",
        "lib/libcudadevrt.a",
    ],
    "nvidia-cuda-cccl": ["include/cccl/cub/cub.cuh", "lib/cmake/cccl/cccl-config.cmake"],
}


def toolkit(tmp_path: Path, leave_out: str = "") -> tuple[CudaSet, dict[LockedWheel, Path]]:
    trees = {}
    for name, files in TOOLKIT.items():
        if name == leave_out:
            continue
        path, wheel = make_wheel(
            tmp_path / "wheels",
            name,
            "13.0.88",
            tag="py3-none-manylinux_2_17_x86_64",
            files={f"nvidia/cu13/{file}": file for file in files},
            executables=["nvidia/cu13/bin/nvcc", "nvidia/cu13/nvvm/bin/cicc"],
        )
        trees[wheel] = unpack(path, wheel, tmp_path / "cache")
    return CudaSet((13, 0), tuple(trees)), trees


def test_every_file_of_the_toolkit_is_in_one_package_at_condas_place(tmp_path: Path) -> None:
    specs = cuda_packages(*toolkit(tmp_path))
    where: dict[str, str] = {}
    for spec in specs:
        for file in spec.files():
            assert file.path not in where
            where[file.path] = spec.name
    target = "targets/x86_64-linux"
    assert where == {
        "bin/nvcc": "cuda-nvcc-tools",
        "bin/nvcc.profile": "cuda-nvcc-tools",
        "bin/crt/link.stub": "cuda-nvcc-tools",
        f"{target}/include/fatbinary_section.h": "cuda-nvcc-dev_linux-64",
        "nvvm/bin/cicc": "cuda-nvvm-tools",
        "nvvm/libdevice/libdevice.10.bc": "cuda-nvvm-dev_linux-64",
        f"{target}/include/nvvm.h": "cuda-nvvm-dev_linux-64",
        f"{target}/lib/libnvvm.so.4": "cuda-nvvm-dev_linux-64",
        f"{target}/lib/libnvvm.so": "cuda-nvvm-dev_linux-64",
        f"{target}/include/crt/host_config.h": "cuda-crt-dev_linux-64",
        f"{target}/include/cuda_runtime.h": "cuda-cudart-dev_linux-64",
        f"{target}/lib/libcudart.so.13": "cuda-cudart_linux-64",
        f"{target}/lib/libcudart.so": "cuda-cudart_linux-64",
        f"{target}/lib/libcudart_static.a": "cuda-cudart-static_linux-64",
        f"{target}/lib/libcudadevrt.a": "cuda-cudart-static_linux-64",
        f"{target}/include/cccl/cub/cub.cuh": "cuda-cccl_linux-64",
        f"{target}/lib/cmake/cccl/cccl-config.cmake": "cuda-cccl_linux-64",
    }


def test_cuda_packages_install_together(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    channel = make_channel([make(s, cache) for s in cuda_packages(*toolkit(tmp_path))], cache)
    wanted = ["cuda-nvcc 13.0.*", "cuda-version 13.0.*", "cuda-cudart-dev 13.0.*", "cuda-cccl"]
    prefix = install(channel, wanted, tmp_path)
    assert os.access(prefix / "bin/nvcc", os.X_OK)
    assert (prefix / "targets/x86_64-linux/lib/libcudart.so").read_text() == "lib/libcudart.so.13"
    assert (prefix / "targets/x86_64-linux/lib/libcudart_static.a").is_file()


@pytest.mark.parametrize("name", TOOLKIT)
def test_incomplete_toolkit_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ToolchainError, match=name):
        cuda_packages(*toolkit(tmp_path, leave_out=name))
