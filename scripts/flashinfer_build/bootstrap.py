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

from conda_bridge.errors import StorageError, ToolchainError
from conda_bridge.system import atomic, process

__all__ = ["cache_dir", "ensure", "environment", "project_root"]

_MINIMUM = (3, 11)


def project_root() -> Path:
    """The folder that holds ``version.txt`` and ``recipe/``."""
    return Path(__file__).resolve().parents[2]


def cache_dir() -> Path:
    """Where downloads, toolchains and environments are kept (``FLASHINFER_CACHE_DIR``)."""
    chosen = os.environ.get("FLASHINFER_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "flashinfer-build"


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
                        f"`{' '.join(command[1:4])}` failed:\n{tail}",
                        where=str(log),
                        fix="on Debian install python3-venv; check that pip reaches its index",
                    )
        complete.write_text("")
        print(f"  ready in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return folder


def _writer(stream: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        stream.write(line + "\n")

    return write


def ensure(program: str, name: str = "tools") -> None:
    """Continues `program` in the environment `name`, unless it already runs there.

    ``FLASHINFER_NO_BOOTSTRAP=1`` keeps the running interpreter, for those who bring the
    requirements themselves.
    """
    if os.environ.get("FLASHINFER_NO_BOOTSTRAP") == "1":
        return
    if sys.version_info < _MINIMUM:
        wanted = ".".join(map(str, _MINIMUM))
        raise SystemExit(f"{program}: Python {wanted} or newer is needed, this is {sys.version}")
    try:
        folder = environment(name)
    except OSError as problem:
        error = StorageError(problem)
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    if Path(sys.prefix).resolve() == folder.resolve():
        return
    python = str(folder / "bin" / "python")
    os.execv(python, [python, str(Path(program).resolve()), *sys.argv[1:]])
