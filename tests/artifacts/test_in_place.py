"""Building from a checkout in place, and again: what lands in the package, and what does not.

setup.py and setuptools run as they are; the compiler is a script that hands out the libraries of
the wheel that was built, so that a build takes seconds and what it makes can be imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from flashinfer_build.label import Label, Variant

CPU = Variant.parse("cpu_torch213")
_COMPILER = """#!/bin/sh
out= before= compiles= source= read=
for word in "$@"; do
  case $before in -o) out=$word ;; -MF) read=$word ;; esac
  case $word in *.cpp) source=$word ;; esac
  [ "$word" = -c ] && compiles=yes
  before=$word
done
[ -n "$out" ] || exec g++ "$@"
[ -z "$read" ] || echo "$out: $source" >"$read"
case $compiles,$out in
  yes,*) : >"$out" ;;
  *_C.abi3.so) cp "{binding}" "$out" ;;
  *) cp "{library}" "$out" ;;
esac
"""
# With what is installed in place before the wheel that the tests' environment has.
_IMPORT = """
import site, sys
sys.path.insert(0, sys.argv[2]) if len(sys.argv) > 2 else None
paths, finders = list(sys.path), list(sys.meta_path)
site.addsitedir(sys.argv[1])
sys.path[:] = [p for p in sys.path if p not in paths] + paths
sys.meta_path[:] = [f for f in sys.meta_path if f not in finders] + finders
import torch, flashinfer
x = torch.ones(2, 8)
assert flashinfer.rmsnorm(x, torch.ones(8)).shape == (2, 8)
print(flashinfer.__file__)
"""


@pytest.fixture
def environ(dist: Path, tmp_path: Path) -> dict[str, str]:
    """For builds of the CPU variant; the compiler lies in a folder with a space in its name."""
    payload, tools = tmp_path / "payload", tmp_path / "the tools"
    tools.mkdir()
    with zipfile.ZipFile(dist / "wheels" / Label.compose(CPU).wheel_file) as archive:
        archive.extractall(payload)
    compiler = tools / "g++"
    compiler.write_text(
        _COMPILER.format(
            binding=payload / "flashinfer/_C.abi3.so",
            library=payload / "flashinfer/lib/libflashinfer.so",
        )
    )
    compiler.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FLASHINFER_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
    return {
        **{k: v for k, v in kept.items() if k not in ("CUDA_HOME", "NVCC", "CC")},
        "PATH": path,
        "CXX": str(compiler),
        "FLASHINFER_FORCE_CPU": "1",
        "FLASHINFER_COMPILER_CACHE": "none",
        "LIBRARY": str(payload / "flashinfer/lib"),
    }


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A copy of what a build reads."""
    folder = tmp_path / "it's a checkout"
    folder.mkdir()
    for name in ("csrc", "flashinfer", "scripts"):
        for path in (root / name).rglob("*"):
            target = folder / path.relative_to(root)
            if path.suffix in (".so", ".pyc") or path.name == "_build_info.py" or path.is_dir():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for name in ("setup.py", "pyproject.toml", "version.txt", "README.md", "LICENSE"):
        (folder / name).write_bytes((root / name).read_bytes())
    return folder


def run(command: list[str], folder: Path, environ: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-P", *command], cwd=folder, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def editable(checkout: Path, environ: dict[str, str], into: Path, mode: str | None) -> None:
    """Unpacks the editable wheel that the PEP 660 hook makes."""
    settings = {"editable_mode": mode} if mode else None
    call = f"from flashinfer_build.compile import pep517; pep517.build_editable('.', {settings})"
    run(["-c", f"import sys; sys.path.insert(0, 'scripts'); {call}"], checkout, environ)
    [made] = checkout.glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        archive.extractall(into)


def imported(site: Path, environ: dict[str, str], *first: str) -> Path:
    return Path(run(["-c", _IMPORT, str(site), *first], site, environ).splitlines()[-1])


@pytest.mark.parametrize(
    ("mode", "given"),
    [
        (None, False),
        ("strict", False),
        ("compat", False),
        ("build_ext", False),
        (None, True),
        ("strict", True),
    ],
)
def test_what_is_installed_in_place_can_be_imported(
    checkout: Path, environ: dict[str, str], tmp_path: Path, mode: str | None, given: bool
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    if given:
        environ["FLASHINFER_LIBRARY_DIR"] = environ["LIBRARY"]
    if mode == "build_ext":
        run(["setup.py", "build_ext", "--inplace"], checkout, environ)
        found = imported(site, environ, str(checkout))
    else:
        editable(checkout, environ, site, mode)
        found = imported(site, environ)
    assert checkout in found.parents
    # Strict: a tree of links, so that no file that is not the package's can be imported.
    assert ("__editable__" in str(found)) == (mode == "strict")


def test_another_build_in_place_leaves_nothing_of_the_one_before(
    checkout: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    run(["setup.py", "build_ext", "--inplace"], checkout, environ)
    stray = checkout / "flashinfer" / "lib" / "libold.so"
    stray.write_bytes(b"")
    environ["FLASHINFER_LIBRARY_DIR"] = environ["LIBRARY"]
    run(["setup.py", "build_ext", "--inplace"], checkout, environ)
    library = checkout / "flashinfer" / "lib" / "libflashinfer.so"
    assert library.resolve() == Path(environ["LIBRARY"], "libflashinfer.so")
    assert not stray.exists()
    assert not (checkout / "flashinfer" / "include").exists()


def names(folder: Path) -> set[str]:
    [wheel] = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.startswith("flashinfer/")}


def test_a_wheel_has_nothing_of_an_earlier_build(checkout: Path, environ: dict[str, str]) -> None:
    extra = checkout / "flashinfer" / "retired.py"
    extra.write_text("")
    run(["setup.py", "bdist_wheel"], checkout, environ)
    assert "flashinfer/retired.py" in names(checkout)
    extra.unlink()
    [first] = (checkout / "dist").glob("*.whl")
    first.unlink()
    # What a killed build leaves where wheels are put together, and a build in place in the sources.
    [built] = (checkout / "build").glob("lib*/flashinfer")
    (built / "_C.cpython-311-x86_64-linux-gnu.so").write_bytes(b"")
    [put_together] = (checkout / "build").glob("bdist*")
    half = put_together / "wheel" / "flashinfer" / "half.py"
    half.parent.mkdir(parents=True)
    half.write_text("")
    environ["FLASHINFER_BUILD_VERSION"] = "9.8.7"
    run(["setup.py", "bdist_wheel"], checkout, environ)
    found = names(checkout)
    sources = {f"flashinfer/{path.name}" for path in (checkout / "flashinfer").glob("*.py")}
    assert found == sources | {
        "flashinfer/_build_info.py",
        "flashinfer/_C.abi3.so",
        "flashinfer/py.typed",
        "flashinfer/lib/libflashinfer.so",
        "flashinfer/include/flashinfer/api.h",
    } | {name for name in found if name.endswith(".pyi")}
