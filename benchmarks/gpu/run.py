"""Benchmarks the installed flashinfer on a GPU, beside torch and a published wheel.

Example:
    python -P benchmarks/gpu/run.py --output out.json
    python -P benchmarks/gpu/run.py --only decode --peer-site peer

A peer site is a folder made by `pip install --target peer flashinfer-python`. docs/gpu.md says what
is measured and what the columns mean. `scripts/gpu_check.py` installs a wheel and runs this.

Exit status: 0 done, 1 a case that this flashinfer cannot run or gets wrong, 2 nothing could be
measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# At the end: the flashinfer that is measured is an installed one, not the source tree in here.
ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "scripts")]

from benchmarks.gpu import report
from benchmarks.gpu.cases import CASES, Case
from benchmarks.gpu.peers import Died, Worker
from conda_bridge.system import atomic

SCHEMA_VERSION = 1
# As in attention.py, mla.py, elementwise.py and gemm.py, which import torch; this process does not
# need it.
ATTENTION_OPS = ("single_decode", "batch_decode", "single_prefill", "batch_prefill")
ATTENTION_SIDES = ("sdpa-flash", "sdpa-cudnn", "flex")
MLA_OPS = ("mla_decode",)
MLA_SIDES = ("sdpa",)
ELEMENTWISE_SIDES = ("torch", "compile")
GEMM_SIDES = {"segment_gemm": ("grouped-mm", "torch"), "bmm_fp8": ("scaled-mm", "torch")}
OTHER_SIDES = (
    *ATTENTION_SIDES,
    *MLA_SIDES,
    *ELEMENTWISE_SIDES,
    "grouped-mm",
    "scaled-mm",
    "published",
    "published-tc",
)

Say = Callable[[str], None]


def torch_sides(op: str) -> Sequence[str]:
    """What torch has for an operation."""
    if op in MLA_OPS:
        return MLA_SIDES
    if op in GEMM_SIDES:
        return GEMM_SIDES[op]
    return ATTENTION_SIDES if op in ATTENTION_OPS else ELEMENTWISE_SIDES


def our_sides(_op: str) -> Sequence[str]:
    """The wheel under test has one way, which chooses by itself."""
    return (report.OURS,)


def published_sides(op: str) -> Sequence[str]:
    """A published wheel leaves the choice of tensor cores for decode to the caller."""
    choice = op in ATTENTION_OPS and op.endswith("decode")
    return ("published", "published-tc") if choice else ("published",)


def contestants(options: argparse.Namespace) -> list[Worker]:
    """The processes that take part, the wheel under test first."""

    def without(sides: Callable[[str], Sequence[str]]) -> Callable[[str], Sequence[str]]:
        return lambda op: [side for side in sides(op) if side not in options.without]

    common: dict[str, Any] = {
        "device": options.device,
        "timeout": options.timeout,
        "rotated": options.rotated,
    }
    workers = [
        Worker("this wheel", sides=our_sides, library="flashinfer", **common),
        Worker("torch", sides=without(torch_sides), **common),
    ]
    if options.peer_site:
        site = str(options.peer_site.resolve())
        workers.append(
            Worker(
                "published",
                sides=without(published_sides),
                library="flashinfer",
                site=site,
                **common,
            )
        )
    return workers


def prepare(case: Case, workers: Sequence[Worker]) -> list[tuple[Worker, report.Result]]:
    """Every side of a case, ready or with the reason why not."""
    entries = []
    for worker in workers:
        sides = worker.sides(case.op)
        answers = _prepare(case, worker, sides)
        entries += [(worker, report.Result(side, [], **answers[side])) for side in sides]
    return entries


def _prepare(case: Case, worker: Worker, sides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The answers of a worker for its sides; one that kills the process leaves the others alive."""
    request = {"op": case.op, "shape": dict(case.shape), "bytes": case.bytes}
    try:
        found: dict[str, dict[str, Any]] = worker.ask("prepare", **request, sides=list(sides))[
            "sides"
        ]
        return found
    except Died as died:
        reason = str(died)
    if len(sides) == 1:
        return {sides[0]: {"reason": reason}}
    alone = {side: _prepare(case, worker, [side])[side] for side in sides}
    well = [side for side in sides if "reason" not in alone[side]]
    if len(well) == len(sides):
        return {side: {"reason": f"together with the others: {reason}"} for side in sides}
    return {**alone, **(_prepare(case, worker, well) if well else {})}


def sample(entries: Sequence[tuple[Worker, report.Result]], rounds: int) -> None:
    """Samples of all sides in turn, every other round in the opposite order."""
    for turn in range(rounds):
        for worker, result in entries[:: 1 if turn % 2 == 0 else -1]:
            if result.reason:
                continue
            try:
                result.seconds.append(worker.ask("sample", side=result.side)["seconds"])
            except Died as died:
                # All of this worker's sides went with its process.
                for other, lost in entries:
                    if other is worker and not lost.reason:
                        lost.reason = str(died)


def ceilings(worker: Worker) -> report.Ceilings:
    """What torch's copy and matmul reach now."""
    found = worker.ask("ceilings")
    return report.Ceilings(found["copy"], found["matmul"])


def measure(
    cases: Sequence[Case],
    workers: Sequence[Worker],
    rounds: int,
    say: Say,
    keep: Callable[[dict[str, Any]], None] = lambda _result: None,
) -> dict[str, Any]:
    """Everything that is asked for; `keep` is called with what there is after every case.

    Raises:
        Died: neither torch nor this wheel can be used here at all.
    """
    torch_worker = workers[1]
    facts = torch_worker.ask("hello")
    if facts["device"] is None and torch_worker.device == "cuda":
        raise Died(facts["reason"])
    top = {
        "schema_version": SCHEMA_VERSION,
        "device": facts["device"],
        "python": facts["python"],
        "torch": facts["torch"],
        "flashinfer": {"version": workers[0].ask("hello")["version"]},
        "published": _published(workers),
        "rounds": rounds,
    }
    before = ceilings(torch_worker)
    measured: list[tuple[Case, list[report.Result]]] = []

    def result(after: report.Ceilings | None) -> dict[str, Any]:
        best = before.best(after or before)
        return {
            **top,
            "complete": after is not None,
            "ceilings": {"best": best.as_dict(), "before": before.as_dict(),
                         "after": after.as_dict() if after else None},
            "rows": [report.summarise(case, results, best) for case, results in measured],
        }  # fmt: skip

    for number, case in enumerate(cases, 1):
        say(f"[{number}/{len(cases)}] {case.group}: {case.op} {case.text}")
        entries = prepare(case, workers)
        sample(entries, rounds)
        measured.append((case, [entry for _, entry in entries]))
        for worker in workers:
            try:
                worker.ask("release")
            except Died as died:
                say(f"{worker.name}: {died}")
        keep(result(None))
    done = result(ceilings(torch_worker))
    keep(done)
    return done


def _published(workers: Sequence[Worker]) -> str:
    """The version of the published wheel; why there is none, in words."""
    if len(workers) < 3:
        return "not given (--peer-site)"
    try:
        return str(workers[2].ask("hello")["version"])
    except Died as died:
        return f"cannot be used: {died}"


def show(result: dict[str, Any], cases: Sequence[Case], say: Say) -> None:
    """The table."""
    device = result["device"]
    name = device["name"] if device else "the CPU (numbers mean nothing)"
    top = result["ceilings"]["best"]
    say(f"\n{name}, torch {result['torch']}, flashinfer {result['flashinfer']['version']}")
    say(f"copy {top['copy_gbps']:.0f} GB/s, matmul {top['matmul_tflops']:.0f} TFLOP/s (bf16)")
    say(f"published flashinfer: {result['published']}")
    say(report.header())
    for case, row in zip(cases, result["rows"], strict=True):
        for line in report.table_lines(row, str(case.target or "")):
            say(line)
    met, wanted, failed = report.rows_of(result)
    say(f"{met} of {wanted} targets met, {failed} cases failed")


def _write(path: Path | None, result: dict[str, Any]) -> None:
    if path:
        atomic.write_text(path, json.dumps(result, indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="WORD", help="cases with this in their name")
    parser.add_argument("--rounds", type=int, default=15, help="samples of a side (default 15)")
    parser.add_argument("--peer-site", type=Path, metavar="DIR", help="a published flashinfer")
    parser.add_argument(
        "--without", action="append", default=[], choices=OTHER_SIDES, metavar="SIDE",
        help=f"leave a side out ({', '.join(OTHER_SIDES)}); may be repeated",
    )  # fmt: skip
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one answer")
    parser.add_argument("--output", type=Path, help="also write the result there, as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    # For trying these programs out where there is no GPU.
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--rotated", type=int, help=argparse.SUPPRESS)
    return parser


def main(cases: Sequence[Case] = CASES) -> int:
    """Measures and prints; returns the exit status."""
    line = parser()
    options = line.parse_args()
    if options.rounds < 1:
        line.error(f"--rounds is {options.rounds}, expected 1 or more")
    if options.peer_site and not options.peer_site.is_dir():
        line.error(f"--peer-site: {options.peer_site} is not a folder")
    chosen = [case for case in cases if options.only in f"{case.group}: {case.op} {case.text}"]
    if not chosen:
        line.error(f"--only: no case has {options.only!r} in its name (--list names them)")
    if options.list:
        for case in chosen:
            print(f"{case.group}: {case.op} {case.text}")
        return 0
    workers = contestants(options)
    try:
        result = measure(
            chosen,
            workers,
            options.rounds,
            lambda text: print(text, file=sys.stderr, flush=True),
            lambda found: _write(options.output, found),
        )
    except Died as died:
        print(f"error: nothing can be measured: {died}", file=sys.stderr)
        return 2
    finally:
        for worker in workers:
            worker.close()
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result, chosen, print)
    return 1 if report.rows_of(result)[2] else 0


if __name__ == "__main__":
    sys.exit(main())
