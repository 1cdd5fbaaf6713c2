"""Every program, run on what would fill the memory, with as much of it as is promised.

The bound is on what a process has of its own (``RLIMIT_DATA``): pages of files do not count, which
the system takes back when it needs them, nor address space that nobody writes to. The peak that was
resident is compared as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import elf_factory as made
import large_artifacts as large
import pytest
from deb_factory import ar

import conda_bridge
from conda_bridge.formats.zstd import zstd

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(conda_bridge.__file__).parents[1]
MEMORY = 512 << 20
# A file larger than this, which goes through a program that has no more than this in all, was not
# held by it: so the tests need not unpack gigabytes.
LITTLE = 176 << 20
LARGE = 192 << 20
SITE = "lib/python3.11/site-packages/"
# As a package for one Python has it.
FOR_ONE = {"depends": ["python >=3.11,<3.12.0a0"]}
DIST_INFO = {f"{SITE}toy-1.0.dist-info/METADATA": large.METADATA}
BINDING = f"{SITE}toy/_c.cpython-311-x86_64-linux-gnu.so"


# In between, since a new process counts what the one had resident that started it: all of pytest.
STARTER = """
import os, resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2)
_, status, usage = os.wait4(subprocess.Popen(sys.argv[3:]).pid, 0)
with open(sys.argv[2], "w") as told:
    told.write(f"{os.waitstatus_to_exitcode(status)} {usage.ru_maxrss}")
"""


class Done(NamedTuple):
    """A program that has ended."""

    code: int
    resident: int
    output: str


def run(*command: str | Path, memory: int = MEMORY, cwd: Path) -> Done:
    """Runs a program of this project with so much memory."""
    told = cwd / "told"
    done = subprocess.run(
        [sys.executable, "-c", STARTER, str(memory), str(told), sys.executable, *map(str, command)],
        cwd=cwd,
        env={"PYTHONPATH": str(SCRIPTS), "PATH": os.environ["PATH"], "TMPDIR": str(cwd)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    code, resident = map(int, told.read_text().split())
    return Done(code, resident * 1024, done.stdout)


def bridge(*arguments: str | Path, memory: int = MEMORY, cwd: Path) -> Done:
    return run("-m", "conda_bridge.cli", *arguments, memory=memory, cwd=cwd)


def check(done: Done, memory: int, *codes: int) -> None:
    assert done.code in codes, done.output
    assert "usage:" not in done.output
    assert "MemoryError" not in done.output
    assert "not enough memory" not in done.output
    assert done.resident < memory


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with a library that inflates to more than a program has."""
    library = large.library(LARGE, strings=b"\0lib_toy.so\0", entries=[(14, 1)])
    files = {"toy/lib_toy.so": library, "toy/__init__.py": b""}
    return large.wheel(tmp_path_factory.mktemp("wheel"), files)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {BINDING: large.library(LARGE), f"{SITE}toy/__init__.py": b"", **DIST_INFO}
    return large.conda(tmp_path_factory.mktemp("package"), files, index=FOR_ONE)


def test_the_files_are_small_until_they_are_unpacked(wheel: Path, package: Path) -> None:
    assert wheel.stat().st_size < 1 << 20
    assert package.stat().st_size < 1 << 20


@pytest.mark.parametrize("command", ["verify", "show", "to-conda", "index"])
def test_a_wheel_with_a_large_library(command: str, wheel: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = [command, wheel]
    if command == "to-conda":
        arguments += ["-o", "out", "--threads", "1", "--dry-run"]
    if command == "index":
        arguments = ["index", "site", "--add", wheel]
    check(bridge(*arguments, memory=LITTLE, cwd=tmp_path), LITTLE, 0)


@pytest.mark.parametrize("command", ["verify", "show", "to-wheel", "compare", "index"])
def test_a_package_with_a_large_library(command: str, package: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = [command, package]
    if command == "to-wheel":
        arguments += ["-o", "out"]
    if command == "compare":
        arguments += [package]
    if command == "index":
        arguments = ["index", "site", "--add", package]
    check(bridge(*arguments, memory=LITTLE, cwd=tmp_path), LITTLE, 0)


def test_packing_takes_no_more_than_is_promised(tmp_path: Path) -> None:
    path = large.wheel(tmp_path, {"toy/data.bin": large.Zeros(b"", 96 << 20)}, tag="py3-none-any")
    check(bridge("to-conda", path, "-o", "out", cwd=tmp_path), MEMORY, 0)


def tables(count: int, prefix: bytes) -> dict[str, bytes]:
    """`count` symbols of names that begin so, every other one to be found elsewhere."""
    names = b"".join(b"\0%s%08d" % (prefix, number) for number in range(count)) + b"\0"
    entries = b"".join(made.symbol(1 + 12 * number, section=number % 2) for number in range(count))
    return {"strings": names, "symbols": bytes(24) + entries}


def test_programs_on_a_library_of_many_symbols_and_images(tmp_path: Path) -> None:
    images = made.fat_binary(made.image() * 20_000)
    many = large.library(sections={".nv_fatbin": images}, **tables(300_000, b"sym"))
    done = bridge("show", large.wheel(tmp_path, {"toy/lib.so": many}), cwd=tmp_path)
    check(done, LITTLE, 0)
    library = large.library(**tables(10_100, b"PyX"))
    path = large.wheel(tmp_path, {"toy/m.abi3.so": library}, tag="cp39-abi3-manylinux_2_28_x86_64")
    done = bridge("verify", path, cwd=tmp_path)
    check(done, LITTLE, 1)
    assert "more findings, which are not listed" in done.output


def test_an_index_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    subdir = tmp_path / "channel" / "noarch"
    subdir.mkdir(parents=True)
    packer = zstd.ZstdCompressor()
    piece = bytes(1 << 20)
    with (subdir / "repodata.json.zst").open("wb") as stream:
        for _ in range(2048):
            stream.write(packer.compress(piece))
        stream.write(packer.flush())
    assert (subdir / "repodata.json.zst").stat().st_size < 1 << 18
    done = bridge("index", tmp_path, cwd=tmp_path)
    check(done, LITTLE, 0, 2)


def test_a_text_that_is_looked_into_is_no_larger_than_it_may(tmp_path: Path) -> None:
    text = large.Zeros(b"[console_scripts]\n", 64 << 20)
    path = large.wheel(
        tmp_path, {"toy/a.py": b"", "toy-1.0.dist-info/entry_points.txt": text}, tag="py3-none-any"
    )
    done = bridge("verify", path, cwd=tmp_path)
    check(done, LITTLE, 2)
    assert "entry_points.txt: 67108864 bytes, of a text that is looked into" in done.output
    check(bridge("to-conda", path, "-o", "out", cwd=tmp_path), LITTLE, 2)


def test_metadata_at_its_limits(tmp_path: Path) -> None:
    """A package whose ``info`` is as large as it may be, in documents of as many values."""
    document = large.many_values(250_000)
    path = large.conda(
        tmp_path,
        {f"{SITE}toy/a.py": b"", **DIST_INFO},
        index={**FOR_ONE, "more": {f"k{number}": number for number in range(250_000)}},
        info={f"info/{name}.json": document for name in ("a", "b", "run_exports")},
    )
    for arguments in (["compare", path, path], ["verify", path], ["show", path]):
        check(bridge(*arguments, cwd=tmp_path), MEMORY, 0, 1, 2)


# ---------------------------------------------------------------- this project's own programs


@pytest.mark.parametrize("program", ["verify", "bridge", "index", "compare"])
def test_the_projects_own_programs_are_the_same(
    program: str, package: Path, tmp_path: Path
) -> None:
    arguments = {
        "verify": [package],
        "bridge": [package, "-o", "out"],
        "index": ["site", "--add", package],
        "compare": [package, package],
    }[program]
    done = run(
        "-c",
        "import runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0] + '/..');"
        "from flashinfer_build import bootstrap; bootstrap.ensure = lambda *_: None;"
        "runpy.run_path(sys.argv[0], run_name='__main__')",
        ROOT / "scripts" / f"{program}.py",
        *arguments,
        memory=LITTLE,
        cwd=tmp_path,
    )
    check(done, LITTLE, 0, 2)  # the package is not the project's, which most of them say first


def test_a_submission_and_a_deb(tmp_path: Path) -> None:
    """What asks for gigabytes in a header is refused before they are read."""
    for kind in (b"x", b"L"):
        entry = tarfile.TarInfo("long")
        entry.type, entry.size = kind, 2 << 30
        head = entry.tobuf(tarfile.GNU_FORMAT)
        (tmp_path / "a.tar").write_bytes(head)
        with (tmp_path / "a.tar").open("r+b") as stream:
            stream.truncate(2 << 30)
        code = (
            "import sys; from pathlib import Path\n"
            "from conda_bridge.errors import ArtifactError\n"
            "from flashinfer_build.forge import staged\n"
            "try: staged.source_of(Path('a.tar'), None, Path(sys.argv[1]))\n"
            "except ArtifactError as error: print(error); raise SystemExit(2)\n"
        )
        check(run("-c", code, ROOT, memory=LITTLE, cwd=tmp_path), LITTLE, 2)
        (tmp_path / "a.tar").unlink()
        packer = zstd.ZstdCompressor()
        data = packer.compress(head)
        for _ in range(512):
            data += packer.compress(bytes(1 << 20))
        (tmp_path / "toy.deb").write_bytes(ar({"data.tar.zst": data + packer.flush()}))
        code = (
            "from pathlib import Path\n"
            "from conda_bridge.errors import ArtifactError\n"
            "from flashinfer_build.toolchain.debian.deb import unpack\n"
            "try: unpack(Path('toy.deb'), Path('.'))\n"
            "except ArtifactError as error: print(error); raise SystemExit(2)\n"
        )
        check(run("-c", code, memory=LITTLE, cwd=tmp_path), LITTLE, 2)
