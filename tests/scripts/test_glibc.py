"""glibc: a package requires the C library that its binaries ask for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from conda_bridge.formats import conda_package, conda_writer, elf
from conda_bridge.formats.conda_writer import PackageFile
from flashinfer_build.compile import glibc

NAME = "flashinfer-0.1.6-cpu_torch213_0.conda"
# Each asks for a symbol that another release of the C library brought.
CALLS = {
    "old": '#include <stdlib.h>\nint f() { return atoi("1"); }',
    "new": "#include <pthread.h>\nint f() { return pthread_join(pthread_self(), nullptr); }",
}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("libraries")
    found = {}
    for name, text in CALLS.items():
        (folder / f"{name}.cpp").write_text(text)
        command = ["g++", "-shared", "-fPIC", f"{name}.cpp", "-o", f"{name}.so"]
        subprocess.run(command, cwd=folder, check=True)
        found[name] = (folder / f"{name}.so").read_bytes()
    return found


def floor(data: bytes) -> str:
    return elf.read(data, "x").floors["GLIBC"]


def package(folder: Path, depends: list[str], files: dict[str, bytes]) -> Path:
    path = folder / "made" / NAME
    path.parent.mkdir()
    conda_writer.write(
        path,
        index={
            "name": "flashinfer",
            "version": "0.1.6",
            "build": "cpu_torch213_0",
            "build_number": 0,
            "depends": depends,
            "subdir": "linux-64",
        },
        files=[
            *(PackageFile(name, data, 0o755) for name, data in files.items()),
            PackageFile("lib/link.so", None, link_target="a.so"),
        ],
        about={"summary": "words"},
        info_files={"info/licenses/LICENSE": b"licence"},
    )
    return path


@pytest.mark.parametrize("holds", [("old",), ("new",), ("old", "new"), ("new", "old")])
@pytest.mark.parametrize("stated", ["2.36", "2.17"])
def test_the_newest_symbol_of_all_binaries_decides(
    tmp_path: Path, libraries: dict[str, bytes], holds: tuple[str, ...], stated: str
) -> None:
    files = {f"lib/{leaf}.so": libraries[name] for leaf, name in zip("ab", holds, strict=False)}
    files["share/text"] = b"GLIBC_9.9 is only words"
    made = package(tmp_path, ["python >=3.8", f"__glibc >={stated},<3.0.a0"], files)
    expected = floor(libraries["new" if "new" in holds else "old"])
    target = tmp_path / "measured" / NAME
    target.parent.mkdir()
    assert glibc.state_measured(made, target) == expected
    before, after = conda_package.read(made), conda_package.read(target)
    assert after.index["depends"] == ["python >=3.8", f"__glibc >={expected},<3.0.a0"]
    # Nothing else is another.
    keys = set(before.index) - {"depends"}
    assert {key: after.index[key] for key in keys} == {key: before.index[key] for key in keys}
    assert after.info["info/paths.json"] == before.info["info/paths.json"]
    assert after.info["info/licenses/LICENSE"] == b"licence"
    assert after.about == before.about
    assert floor(libraries["old"]) != floor(libraries["new"])


def test_what_states_nothing_or_asks_for_nothing_stays(
    tmp_path: Path, libraries: dict[str, bytes]
) -> None:
    silent = package(tmp_path, ["python >=3.8"], {"lib/a.so": libraries["new"]})
    assert glibc.state_measured(silent, tmp_path / NAME) == ""
    assert conda_package.read(tmp_path / NAME).index["depends"] == ["python >=3.8"]
    (tmp_path / "two").mkdir()
    pure = package(tmp_path / "two", ["__glibc >=2.36,<3.0.a0"], {"lib/a.so": b"no binary"})
    assert glibc.state_measured(pure, tmp_path / "two" / NAME) == ""
    depends = conda_package.read(tmp_path / "two" / NAME).index["depends"]
    assert depends == ["__glibc >=2.36,<3.0.a0"]
