"""bootstrap: whatever the environment holds, a program ends with words and exit status 2."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from conda_bridge.errors import ConfigError
from flashinfer_build import bootstrap

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ("FLASHINFER_CACHE_DIR", "XDG_CACHE_HOME", "HOME", "TMPDIR", "SOURCE_DATE_EPOCH")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_where_things_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert bootstrap.cache_dir() == tmp_path / ".cache" / "flashinfer-build"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # to be passed over, says the standard
    assert bootstrap.cache_dir() == tmp_path / ".cache" / "flashinfer-build"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert bootstrap.cache_dir() == tmp_path / "x" / "flashinfer-build"
    monkeypatch.setenv("FLASHINFER_CACHE_DIR", "~/c")
    assert bootstrap.cache_dir() == tmp_path / "c"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOME", None),
        ("HOME", ""),
        ("HOME", "some/where"),
        ("FLASHINFER_CACHE_DIR", "~nobody-of-that-name/c"),
    ],
)
def test_no_folder_to_keep_things_in_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None
) -> None:
    """As in a container with a user id that nothing knows."""

    def unknown(user: object) -> None:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match="set FLASHINFER_CACHE_DIR to a folder"):
        bootstrap.cache_dir()


@pytest.mark.parametrize("letter", ["$", '"', "`", ":", "{", "}", "\n"])
def test_a_path_that_builders_do_not_take_is_refused(tmp_path: Path, letter: str) -> None:
    with pytest.raises(ConfigError, match="in it"):
        bootstrap.check_places(builds=True, root=tmp_path / f"a{letter}b")


@pytest.mark.parametrize("name", ["a b", "it's", "ü é", "a&b;(c)[d]", "a,b%20#c!~", "a\\b"])
def test_a_path_that_works_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Each was built in, whole, with the builder's release of the day."""
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setenv("FLASHINFER_CACHE_DIR", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    bootstrap.check_places(builds=True, root=Path("/") / name)


def test_a_path_that_is_too_long_or_no_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="at most"):
        bootstrap.check_places(builds=True, root=Path("/" + "/".join(["d" * 60] * 3)))
    monkeypatch.setenv("FLASHINFER_CACHE_DIR", os.fsdecode(b"/tmp/\xff"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        bootstrap.check_places()


@pytest.mark.parametrize(
    ("builds", "mounted"), [(False, "cache"), (True, "cache"), (True, "tmp"), (True, "root")]
)
def test_a_noexec_mount_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: bool, mounted: str
) -> None:
    for name in ("cache", "tmp", "root"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("FLASHINFER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    bootstrap.check_places(builds=builds, root=tmp_path / "root")
    real = os.statvfs

    def statvfs(path: Path) -> os.statvfs_result:
        found = list(real(path))
        found[8] |= os.ST_NOEXEC if mounted in Path(path).parts else 0
        return os.statvfs_result([*found, 0])

    monkeypatch.setattr(os, "statvfs", statvfs)
    with pytest.raises(ConfigError, match="noexec"):
        bootstrap.check_places(builds=builds, root=tmp_path / "root")


@pytest.mark.parametrize("value", ["/nowhere/at/all", "relative", __file__])
def test_a_temporary_folder_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TMPDIR", value)
    with pytest.raises(ConfigError, match="TMPDIR"):
        bootstrap.check_places()


@pytest.mark.parametrize("program", ["label.py", "verify.py", "bridge.py", "index.py"])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOME", b"/dev/null"),
        ("HOME", b"relative"),
        ("FLASHINFER_CACHE_DIR", b"/dev/null/x"),
        ("FLASHINFER_CACHE_DIR", b"/" + b"x" * 5000),
        ("FLASHINFER_CACHE_DIR", b"/tmp/\xff"),
        ("XDG_CACHE_HOME", os.fsencode(__file__)),
        ("SOURCE_DATE_EPOCH", b"yesterday"),
        ("FLASHINFER_NO_BOOTSTRAP", b"maybe"),
    ],
)
def test_no_program_ends_in_a_traceback(program: str, variable: str, value: bytes) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / program), "x"],
        env={**os.environb, variable.encode(): value},
        capture_output=True,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert done.stderr.startswith(b"error: ")


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        ("PermissionError(13, 'Permission denied', '/x')", 2, "error: /x: PermissionError"),
        ("BuildFailed('no', where='step')", 1, "error: step: no"),
        ("KeyboardInterrupt()", 130, "interrupted"),
        ("BrokenPipeError()", 2, ""),
        # A mistake of this project's keeps what leads to it.
        ("KeyError('x')", 1, "Traceback"),
    ],
)
def test_what_nobody_caught(raised: str, status: int, words: str) -> None:
    code = (
        "from conda_bridge.errors import BuildFailed\n"
        "from conda_bridge.system.failure import without_tracebacks\n"
        f"without_tracebacks()\nraise {raised}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    assert done.stderr.startswith(words)
