"""Runs one target in a process of its own, which may die of it; :mod:`.run` starts and watches it.

What the process is at lies in a file that outlives it: counts, and the input that is being read.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import mmap
import os
import resource
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .target import Finding, Target

__all__ = ["ENGINES", "ROOM", "Slate", "in_memory", "main"]

ENGINES = ("atheris", "plain")
ROOM = "FUZZ_ROOM"  # the variable with the folder for a worker's files
_PACKAGES = ["conda_bridge", "flashinfer_build"]
_HEAD = struct.Struct("<4QQ")  # executions, accepted, findings, done; bytes of the input
_ROOM = 4 << 20
_MOST = 4 << 30  # of address space, above all that a reader may ask for; a guard for the machine
_ALL_KEPT = 40  # findings of one kind are counted, and the first of each kept; of so many kinds


def in_memory() -> Path | None:
    """Where files lie in memory; None where the system has no such place."""
    place = Path("/dev/shm")
    return place if os.access(place, os.W_OK | os.X_OK) else None


class Slate:
    """The file that says what a worker is at.

    Args:
        path: of the file, which is made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as stream:
            stream.truncate(_HEAD.size + _ROOM)
            self._map = mmap.mmap(stream.fileno(), _HEAD.size + _ROOM)

    def counts(self) -> tuple[int, int, int, int]:
        """Executions, how many inputs were accepted, findings, and whether it came to its end."""
        executions, accepted, findings, done, _ = _HEAD.unpack_from(self._map)
        return executions, accepted, findings, done

    def write(self, executions: int, accepted: int, findings: int, done: bool) -> None:
        """The counts."""
        struct.pack_into("<4Q", self._map, 0, executions, accepted, findings, done)

    @property
    def input(self) -> bytes:
        """What is being read, or was when the process died."""
        size = _HEAD.unpack_from(self._map)[-1]
        return bytes(self._map[_HEAD.size : _HEAD.size + size])

    @input.setter
    def input(self, data: bytes) -> None:
        struct.pack_into("<Q", self._map, 32, len(data))
        self._map[_HEAD.size : _HEAD.size + len(data)] = data


class _Session:
    """The executions of one worker: counts them, keeps findings, ends when it has done its part."""

    def __init__(self, target: Target, args: argparse.Namespace) -> None:
        self.target = target
        self.args = args
        self.slate = Slate(args.slate)
        self.kinds: set[str] = set()
        self.executions = self.accepted = self.findings = 0
        self.end = time.monotonic() + args.seconds
        self.starter = os.getppid()

    def execute(self, data: bytes) -> None:
        from .target import check

        self.slate.input = data
        accepted, finding = check(self.target, data)
        self.executions += 1
        self.accepted += accepted
        if finding is not None:
            self.findings += 1
            self._keep(finding)
        self.slate.write(self.executions, self.accepted, self.findings, False)
        if self.executions % 500 == 0 and os.getppid() != self.starter:
            os._exit(1)  # nobody waits for it any more
        if self.executions >= self.args.runs or time.monotonic() > self.end:
            self.slate.write(self.executions, self.accepted, self.findings, True)
            sys.stdout.flush()
            os._exit(0)  # libFuzzer's loop has no other end

    def _keep(self, finding: Finding) -> None:
        if finding.key in self.kinds or len(self.kinds) >= _ALL_KEPT:
            return
        self.kinds.add(finding.key)
        print(_as_line(finding), flush=True)


def _as_line(finding: Finding) -> str:
    return json.dumps({**vars(finding), "data": base64.b64encode(finding.data).decode()})


def _plain(session: _Session) -> None:
    """Without guidance."""
    for data in session.target.changed(session.args.seed):
        session.execute(data)


def _atheris(session: _Session) -> None:
    """With libFuzzer, which keeps what reaches another line and changes that again."""
    import atheris

    from .mutators.chance import Chance

    target, args = session.target, session.args
    words = target.dictionary
    seeds = target.inputs()

    def custom(data: bytes, largest: int, seed: int) -> bytes:
        chance = Chance(seed, atheris.Mutate, words)
        # Most of what is kept is wrong in some way. What is right again reaches what lies behind.
        start = chance.choice(seeds) if chance.one_in(3) else data
        return target.mutate(start, chance)[:largest]

    options: dict[str, Any] = {
        **{"seed": args.seed or 1, "max_len": target.largest, "len_control": 0, "timeout": 120},
        **{"rss_limit_mb": 4096, "artifact_prefix": f"{args.slate}-"},
        **{"handle_segv": 0, "handle_abrt": 0, "handle_bus": 0, "handle_ill": 0, "handle_fpe": 0},
        **{"print_final_stats": 0, "verbosity": 0, "reload": 0},
    }
    if words:
        dictionary = args.slate.with_name(f"{args.slate.name}-dictionary")
        dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in words))
        options["dict"] = dictionary
    argv = ["fuzz", *(f"-{key}={value}" for key, value in options.items()), str(args.corpus)]
    atheris.Setup(argv, session.execute, custom_mutator=custom)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _target(name: str, engine: str) -> Target:
    """The target, with the readers instrumented where the engine wants it."""
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=_PACKAGES, enable_loader_override=False):
            return _found(name)
    return _found(name)


def _found(name: str) -> Target:
    from . import targets

    return targets.by_name()[name]


def measure(target: Target, files: Sequence[Path]) -> dict[str, Any]:
    """Which lines of its modules the inputs in these files reach."""
    import coverage

    from .target import check

    wanted = {
        name: (str(importlib.import_module(name).__file__), frozenset(parts.split()))
        for name, _, parts in (item.partition(":") for item in target.modules)
    }
    paths = [path for path, _ in wanted.values()]
    watch = coverage.Coverage(data_file=None, include=paths, messages=False)
    data = [path.read_bytes() for path in files]
    watch.start()
    for item in data:
        check(target, item)
    watch.stop()
    found = {}
    for name, (path, parts) in wanted.items():
        _, statements, _, missing, _ = watch.analysis2(path)
        inside = _in_functions(path, parts)
        lines = [line for line in statements if line in inside]
        missed = [line for line in missing if line in inside]
        found[name] = {"lines": len(lines), "reached": len(lines) - len(missed), "missed": missed}
    return found


def _in_functions(path: str, names: frozenset[str]) -> set[int]:
    """The lines that run when something is called, not when the module is imported.

    Args:
        path: of the module.
        names: of the functions and classes that count; none for all.
    """
    import ast

    lines: set[int] = set()
    known = set()
    for part in ast.parse(Path(path).read_bytes()).body:
        if isinstance(part, ast.FunctionDef | ast.ClassDef):
            known.add(part.name)
            if names and part.name not in names:
                continue
            for node in ast.walk(part):
                if isinstance(node, ast.FunctionDef):
                    first = node.body[0].lineno
                    lines.update(range(first, (node.end_lineno or first) + 1))
    assert names <= known, f"{path} has no {', '.join(sorted(names - known))}"
    return lines


def minimise(target: Target, data: bytes, key: str, seconds: float) -> bytes:
    """The shortest input found, within some time, that has the same finding."""
    end = time.monotonic() + seconds
    size = len(data) // 2
    while size and time.monotonic() < end:
        at = 0
        while at < len(data) and time.monotonic() < end:
            shorter = data[:at] + data[at + size :]
            if _key(target, shorter) == key:
                data = shorter
            else:
                at += size
        size //= 2
    return data


def _key(target: Target, data: bytes) -> str:
    """The finding of an input, or its end; asked of a child, which may die of it."""
    from .target import check

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        finding = check(target, data)[1]
        os.write(writer, finding.key.encode() if finding else b"")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read().decode()
    _, status = os.waitpid(child, 0)
    return said if os.WIFEXITED(status) else f"{target.name}: signal {os.WTERMSIG(status)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--do", choices=("fuzz", "measure", "minimise"), default="fuzz")
    parser.add_argument("--engine", choices=ENGINES, default="atheris")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--slate", type=Path)
    parser.add_argument("--key", default="")
    return parser


def main() -> int:
    """The worker's part."""
    args = _parser().parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    target = _target(args.target, args.engine if args.do == "fuzz" else "plain")
    resource.setrlimit(resource.RLIMIT_AS, (_MOST, _MOST))
    if args.do == "measure":
        print(json.dumps(measure(target, sorted(args.corpus.iterdir()))))
    elif args.do == "minimise":
        data = minimise(target, sys.stdin.buffer.read(), args.key, args.seconds)
        sys.stdout.buffer.write(data)
    else:
        run = _plain if args.engine == "plain" else _atheris
        run(_Session(target, args))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
