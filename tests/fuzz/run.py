"""Fuzzes the readers: each target in a process of its own, which may die of what it finds.

A finding is an exception that is not the project's own, a reader that takes more than 5 s or
512 MiB, a process that dies, or a property that does not hold. It is made as small as it can be,
and written below --output; a copy in tests/fuzz/findings/<target>/ makes it a test.

Examples:
    python tests/fuzz/run.py --list
    python tests/fuzz/run.py                                  # every target, 10 000 inputs each
    python tests/fuzz/run.py elf fatbin --runs 1000000 --jobs 2 --coverage
    python tests/fuzz/run.py tar --seconds 60 --json
    python tests/fuzz/run.py tar --replay input.bin           # one input, with the traceback

The inputs that reached something new are kept below --output, and the next run begins with them.

Exit status: 0 nothing was found, 1 something was, 2 it could not be run.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# The package `fuzz`; what makes archives for tests; the readers. Not this folder itself, whose
# modules have names of their own only within the package.
PATHS = [str(ROOT / "tests"), str(ROOT / "tests/scripts"), str(ROOT / "scripts")]
if __name__ == "__main__":
    sys.path[:1] = PATHS
    from flashinfer_build import bootstrap

    bootstrap.ensure(__file__, "test")

from fuzz.worker import ENGINES, ROOM, Slate, in_memory

__all__ = ["Result", "fuzz", "main"]

_OUTPUT = ROOT / "build" / "fuzz"
_DEATHS = 20  # after which a target is given up
_STUCK = 300.0  # seconds for one input, after which its process is ended
_MINIMISE = 20.0  # seconds for one finding


@dataclass
class Found:
    """A finding, as small as it could be made.

    Attributes:
        what: a line for people.
        key: the same for the same fault.
        trace: of the exception; empty where the process died.
        data: the input.
        path: where that is written.
    """

    what: str
    key: str
    trace: str
    data: bytes = field(repr=False)
    path: str = ""


@dataclass
class Result:
    """What became of a target.

    Attributes:
        target: its name.
        executions: inputs that were read.
        accepted: how many of them were right.
        seconds: of wall time, of the executions alone.
        corpus: inputs kept, each of which reached something that the others did not.
        findings: each kind once.
        coverage: by module, the lines within functions, and how many of them the corpus reaches.
    """

    target: str
    executions: int = 0
    accepted: int = 0
    seconds: float = 0.0
    corpus: int = 0
    findings: list[Found] = field(default_factory=list)
    coverage: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        found = asdict(self)
        for item in found["findings"]:
            item["data"] = base64.b64encode(item["data"]).decode()
        return found


@dataclass(frozen=True)
class Options:
    """How targets are run; see ``--help``."""

    engine: str = "atheris"
    runs: int = 10_000
    seconds: float = 1e9
    seed: int = 1
    coverage: bool = False
    output: Path = _OUTPUT
    report: Callable[[str, int, int, int], None] = lambda *_: None


@contextmanager
def _environment() -> Iterator[dict[str, str]]:
    """The environment of a worker, with a folder for its files that goes with it."""
    known = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=in_memory()) as room:
        yield {
            **os.environ,
            **{"PYTHONPATH": os.pathsep.join([*PATHS, *known]), "PYTHONHASHSEED": "0", ROOM: room},
        }


def _worker(target: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "fuzz.worker", target, *map(str, arguments)]


def _name_of(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def fuzz(name: str, options: Options) -> Result:
    """Runs one target to the end, in as many processes as it takes."""
    folder = options.output / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    if options.engine == "atheris":
        _write_seeds(name, corpus)
    result = Result(name)
    started = time.monotonic()
    kinds: dict[str, Found] = {}
    for life in range(_DEATHS):
        died = _one_life(name, folder, options, result, kinds, life)
        result.seconds = time.monotonic() - started
        if died is None:
            break
        kinds.setdefault(died.key, died)
        if result.executions >= options.runs or result.seconds >= options.seconds:
            break
    result.findings = list(kinds.values())
    for found in result.findings:
        _minimise(name, found, folder)
    result.corpus = sum(1 for _ in corpus.iterdir())
    if options.coverage:
        result.coverage = _coverage(name, corpus)
    return result


def _write_seeds(name: str, corpus: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fuzz import targets\n"
        "from fuzz.run import _name_of as name\n"
        "for data in targets.by_name()[sys.argv[1]].inputs():\n"
        "    (Path(sys.argv[2]) / name(data)).write_bytes(data)\n"
    )
    command = [sys.executable, "-c", code, name, str(corpus)]
    with _environment() as environ:
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: its seeds cannot be made:\n{done.stderr[-3000:]}")


def _one_life(
    name: str, folder: Path, options: Options, result: Result, kinds: dict[str, Found], life: int
) -> Found | None:
    """One process of a target; what it died of, None where it came to its end."""
    before = (result.executions, result.accepted)
    path = folder / f"slate-{os.getpid()}-{life}"
    path.unlink(missing_ok=True)
    slate = Slate(path)
    # fmt: off
    command = _worker(
        name, "--engine", options.engine, "--seed", options.seed + life,
        "--runs", options.runs - result.executions, "--seconds", options.seconds - result.seconds,
        "--corpus", folder / "corpus", "--slate", path,
    )
    # fmt: on
    try:
        with _environment() as environ, (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environ, stdout=subprocess.PIPE, stderr=log, cwd=folder
            )
            watch = threading.Thread(target=_watch, args=(process, slate, name, options, before))
            watch.start()
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(b"{"):
                    found = _from_line(line)
                    kinds.setdefault(found.key, found)
            status = process.wait()
            watch.join()
        executions, accepted, _, done = slate.counts()
        result.executions, result.accepted = before[0] + executions, before[1] + accepted
        if done:
            return None
        said = (folder / "log").read_text(errors="replace")[-3000:]
        if not executions and status > 0:
            raise RuntimeError(f"{name}: the worker did not start:\n{said}")
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        result.executions += 1
        return Found(f"the process died: {how}", f"{name}: {how}", said, slate.input)
    finally:
        for left in folder.glob(f"{path.name}*"):
            left.unlink()


def _from_line(line: bytes) -> Found:
    """A finding as a worker tells of it."""
    item = json.loads(line)
    return Found(item["what"], item["key"], item["trace"], base64.b64decode(item["data"]))


def _watch(
    process: subprocess.Popen[bytes],
    slate: Slate,
    name: str,
    options: Options,
    before: tuple[int, int],
) -> None:
    """Reports how far a worker is, and ends one that is stuck."""
    seen, since = -1, time.monotonic()
    while process.poll() is None:
        executions, accepted, findings, _ = slate.counts()
        if executions != seen:
            seen, since = executions, time.monotonic()
        elif time.monotonic() - since > _STUCK:
            process.kill()
        options.report(name, before[0] + executions, before[1] + accepted, findings)
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            continue


def _minimise(name: str, found: Found, folder: Path) -> None:
    command = _worker(name, "--do", "minimise", "--key", found.key, "--seconds", _MINIMISE)
    with _environment() as environ:
        done = subprocess.run(command, env=environ, input=found.data, capture_output=True)
    if done.returncode == 0 and len(done.stdout) < len(found.data):
        found.data = done.stdout
    place = folder / "findings"
    place.mkdir(exist_ok=True)
    path = place / _name_of(found.key.encode())[:12]
    path.with_suffix(".bin").write_bytes(found.data)
    path.with_suffix(".txt").write_text(f"{found.what}\n\n{found.trace}")
    found.path = str(path.with_suffix(".bin"))


def _coverage(name: str, corpus: Path) -> dict[str, Any]:
    command = _worker(name, "--do", "measure", "--corpus", corpus)
    with _environment() as environ:
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: the lines cannot be counted:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# ---------------------------------------------------------------- the program


class _Progress:
    """One line for each target in progress, on a terminal or now and then in a log."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._every = 2.0 if sys.stderr.isatty() else 60.0

    def __call__(self, name: str, executions: int, accepted: int, findings: int) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._last.setdefault(name, now) < self._every:
                return
            self._last[name] = now
            print(
                f"  {name}: {executions} inputs, {accepted} accepted, {findings} findings",
                file=sys.stderr,
                flush=True,
            )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def _table(results: Iterable[Result]) -> Iterable[str]:
    head = ("target", "executions", "accepted", "per second", "corpus", "lines reached", "findings")
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for item in results:
        lines = sum(module["lines"] for module in item.coverage.values())
        reached = sum(module["reached"] for module in item.coverage.values())
        cells = (
            item.target,
            item.executions,
            _percent(item.accepted, item.executions),
            f"{item.executions / max(item.seconds, 0.001):.0f}",
            item.corpus,
            f"{reached} of {lines} ({_percent(reached, lines)})" if lines else "-",
            len(item.findings),
        )
        yield "| " + " | ".join(map(str, cells)) + " |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help="which; all by default")
    parser.add_argument("--list", action="store_true", help="the targets, and what each reads")
    parser.add_argument("--runs", type=int, default=10_000, help="inputs of each target")
    parser.add_argument("--seconds", type=float, default=1e9, help="of each target, at most")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--seed", type=int, default=1, help="the same one makes the same inputs")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="atheris",
        help="plain: no guidance by coverage, and no package that this Python may lack",
    )
    parser.add_argument("--coverage", action="store_true", help="count the lines reached")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="corpora, logs and findings")
    parser.add_argument("--json", action="store_true", help="the results on stdout, for programs")
    parser.add_argument("--replay", type=Path, help="read this file by one target, and no more")
    return parser


def _unusable(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _replay(name: str, path: Path) -> int:
    from fuzz import targets
    from fuzz.target import check

    accepted, finding = check(targets.by_name()[name], path.read_bytes())
    print(finding.trace or finding.what if finding else "accepted" if accepted else "refused")
    return 1 if finding else 0


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    from fuzz import targets

    known = targets.by_name()
    if args.list:
        for target in known.values():
            print(f"{target.name:<18} {', '.join(target.modules)}")
        return 0
    unknown = [name for name in args.targets if name not in known]
    if unknown:
        return _unusable(f"there is no target {unknown[0]!r}; --list has them")
    chosen = args.targets or list(known)
    if args.replay:
        if len(args.targets) != 1:
            return _unusable("--replay needs one target")
        return _replay(chosen[0], args.replay)
    if args.engine == "atheris":
        try:
            import atheris  # noqa: F401
        except ImportError as error:
            return _unusable(
                f"{error}: it has wheels for CPython 3.11 to 3.14 on x86-64 Linux; with"
                " --engine plain the same inputs are tried without its guidance"
            )
    options = Options(
        args.engine, args.runs, args.seconds, args.seed, args.coverage, args.output, _Progress()
    )
    results = []
    try:
        with ThreadPoolExecutor(args.jobs) as pool:
            for result in pool.map(lambda name: fuzz(name, options), chosen):
                results.append(result)
                if not args.json:
                    print(*_lines_of(result, first=len(results) == 1), sep="\n", flush=True)
    except RuntimeError as error:
        return _unusable(str(error))
    if args.json:
        print(json.dumps([result.as_dict() for result in results], indent=1))
    return 1 if any(result.findings for result in results) else 0


def _lines_of(result: Result, *, first: bool) -> Iterable[str]:
    table = list(_table([result]))
    yield from table if first else table[2:]
    for found in result.findings:
        yield f"  {found.what}\n    {found.path}"


if __name__ == "__main__":
    raise SystemExit(main())
