"""Runs a program in a virtual environment of the project's own, made from a locked list.

The only module that runs under a bare Python; it imports the standard library and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from conda_bridge.errors import BridgeError, ConfigError, StorageError, ToolchainError
from conda_bridge.printable import printable_lines
from conda_bridge.system import atomic, process
from conda_bridge.system.failure import without_tracebacks

__all__ = ["cache_dir", "check_places", "ensure", "environment", "project_root"]

_MINIMUM = (3, 11)
_CACHE = "FLASHINFER_CACHE_DIR"
_CACHE_FIX = f"set {_CACHE} to a folder that you can write, on a file system with room"
# rattler-build writes paths into a shell script in double quotes; PATH is divided at colons; and
# setuptools fills in braces.
_UNQUOTED = '\n:"$`{}'
_LONGEST = 150


def project_root() -> Path:
    """The folder that holds ``version.txt`` and ``recipe/``."""
    return Path(__file__).resolve().parents[2]


def cache_dir() -> Path:
    """Where downloads, toolchains and environments are kept.

    ``FLASHINFER_CACHE_DIR``, else ``flashinfer-build`` in ``XDG_CACHE_HOME`` or ``~/.cache``. As
    its specification asks, an ``XDG_CACHE_HOME`` that is not absolute is passed over.

    Raises:
        ConfigError: there is no such folder: no variable says where, and the user has no home.
    """
    try:
        chosen = os.environ.get(_CACHE)
        if chosen:
            return Path(chosen).expanduser().resolve()
        base = Path(os.environ.get("XDG_CACHE_HOME") or "")
        return (base if base.is_absolute() else _home() / ".cache") / "flashinfer-build"
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"there is no folder to keep things in: {error}",
            where=f"{_CACHE}, XDG_CACHE_HOME, HOME",
            fix=_CACHE_FIX,
        ) from None


def _home() -> Path:
    home = Path.home()
    if not home.is_absolute() or not os.environ.get("HOME", "unset"):
        raise RuntimeError(f"HOME={os.environ.get('HOME')!r} is not an absolute path")
    return home


def check_places(*, builds: bool = False, root: Path | None = None) -> None:
    """Stops where the programs that are about to be started cannot work, before any is set up.

    Args:
        builds: whether packages are to be built too, by tools that do not take every path.
        root: the checkout that is built; this one by default.

    Raises:
        ConfigError: a folder with a name, or on a file system, that does not do.
    """
    cache = cache_dir()
    _check_spelling(cache, _CACHE, ":\n")
    _check_programs(cache, _CACHE)
    _check_temporary()
    if builds:
        _check_spelling(cache, _CACHE, _UNQUOTED)
        root = root or project_root()
        _check_spelling(root, "the project's folder", _UNQUOTED)
        _check_programs(root / "build", "the project's folder")
        if len(os.fsencode(root)) > _LONGEST:
            raise ConfigError(
                f"the path has {len(os.fsencode(root))} bytes",
                where=str(root),
                expected=f"at most {_LONGEST}: the prefixes in which packages are built have 255",
                fix="move the checkout",
            )
        temporary = os.environ.get("TMPDIR")
        if temporary:
            _check_spelling(Path(temporary), "TMPDIR", _UNQUOTED)
            _check_programs(Path(temporary), "TMPDIR")


def _check_spelling(path: Path, what: str, letters: str) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            "the path is not UTF-8", where=f"{what}: {path}", expected="UTF-8", fix=_fix(what)
        ) from None
    found = sorted({letter for letter in str(path) if letter in letters})
    if found:
        raise ConfigError(
            f"the path has {' and '.join(map(repr, found))} in it",
            where=f"{what}: {path}",
            expected="a path that the programs of others can take",
            fix=_fix(what),
        )


def _check_programs(path: Path, what: str) -> None:
    """Stops for a file system on which no program can be started."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if os.statvfs(there).f_flag & os.ST_NOEXEC:
        raise ConfigError(
            "this folder is on a file system that is mounted noexec: no program can be started"
            " there, and no library loaded",
            where=f"{what}: {path}",
            fix=_fix(what),
        )


def _check_temporary() -> None:
    """Stops for a TMPDIR that Python would pass over and others would fail in."""
    text = os.environ.get("TMPDIR")
    if text and not (Path(text).is_absolute() and os.access(text, os.W_OK | os.X_OK)):
        raise ConfigError(
            "is no folder that can be written",
            where=f"TMPDIR={text}",
            expected="the absolute path of a folder that is there",
            fix="set TMPDIR to one, or unset it",
        )
    if text and not Path(text).is_dir():
        raise ConfigError("is not a folder", where=f"TMPDIR={text}", fix="unset TMPDIR")


def _fix(what: str) -> str:
    if what == "TMPDIR":
        return "set TMPDIR to another folder"
    return _CACHE_FIX if what == _CACHE else "move the checkout"


def environment(name: str) -> Path:
    """The virtual environment of ``requirements/<name>.txt``, made on first use.

    Returns:
        Its folder. The name holds a digest of the list and of the interpreter, so a changed list
        makes a new one and an unfinished one is made again.

    Raises:
        ToolchainError: pip could not install the list; its last lines are in the message.
    """
    requirements = project_root() / "requirements" / f"{name}.txt"
    identity = f"{sys.version}\n{sysconfig.get_platform()}\n{sys.base_prefix}\n".encode()
    digest = hashlib.sha256(requirements.read_bytes() + identity).hexdigest()[:16]
    folder = cache_dir() / "environments" / f"{name}-{digest}"
    complete = folder / "complete"
    if complete.is_file():
        return folder
    with atomic.lock(folder.with_name(folder.name + ".lock")):
        if complete.is_file():
            return folder
        started = time.monotonic()
        print(
            f"Setting up the environment {name!r} from requirements/{name}.txt ...", file=sys.stderr
        )
        shutil.rmtree(folder, ignore_errors=True)
        log = folder.with_name(folder.name + ".log")
        with log.open("w") as stream:
            python = str(folder / "bin" / "python")
            make = [sys.executable, "-m", "venv", str(folder)]
            install = [python, "-m", "pip", "install", "--require-hashes", "--only-binary=:all:"]
            install += ["--no-input", "--requirement", str(requirements)]
            for command in (make, install):
                # Guarded: a pip that outlives this process would write into the next one's folder.
                done = process.run(command, environ=os.environ, report=_writer(stream))
                if done.code != 0:
                    stream.flush()
                    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                    raise ToolchainError(
                        f"`{' '.join(command[1:4])}` failed:",
                        log=tail,
                        where=str(log),
                        fix="on Debian install python3-venv; check that pip reaches its index",
                    )
        complete.write_text("")
        print(f"  ready in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return folder


def _writer(stream: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        stream.write(printable_lines(line) + "\n")

    return write


def ensure(program: str, name: str = "tools", *, builds: bool = False) -> None:
    """Continues `program` in the environment `name`, unless it already runs there.

    ``FLASHINFER_NO_BOOTSTRAP=1`` keeps the running interpreter, for those who bring the
    requirements themselves.

    Args:
        program: the file that was started.
        name: of the list in requirements/.
        builds: whether it builds packages; see :func:`check_places`.
    """
    without_tracebacks()
    try:
        _check_environment()
        if os.environ.get("FLASHINFER_NO_BOOTSTRAP") == "1":
            return
        if sys.version_info < _MINIMUM:
            wanted = ".".join(map(str, _MINIMUM))
            raise ToolchainError(
                f"Python {wanted} or newer is needed, this is {sys.version.split()[0]}",
                where=sys.executable,
                fix=f"run it with another: python{wanted} {program}",
            )
        check_places(builds=builds)
        folder = environment(name)
        if Path(sys.prefix).resolve() == folder.resolve():
            return
        python = str(folder / "bin" / "python")
        os.execv(python, [python, str(Path(program).resolve()), *sys.argv[1:]])
    except OSError as problem:
        error = _unusable(problem)
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except BridgeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _check_environment() -> None:
    """Stops for a variable that no part of the project could use, and each would fail at."""
    number = os.environ.get("SOURCE_DATE_EPOCH")
    if number and not (number.isascii() and number.isdigit()):
        raise ConfigError(
            f"{number!r} is not a time",
            where="SOURCE_DATE_EPOCH",
            expected="seconds since 1970, such as 1732000000",
            fix="unset it",
        )
    flag = os.environ.get("FLASHINFER_NO_BOOTSTRAP", "")
    if flag not in ("", "0", "1"):
        raise ConfigError(
            f"{flag!r} is neither yes nor no", where="FLASHINFER_NO_BOOTSTRAP", expected="1 or 0"
        )


def _unusable(problem: OSError) -> BridgeError:
    """What to say of a folder that cannot be used; a full disk has words of its own."""
    error = StorageError(problem)
    if error.fix:
        return error
    return ConfigError(error.what, where=error.where, fix=_CACHE_FIX)
