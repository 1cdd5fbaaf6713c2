"""Segment GEMM and fp8 products on the CPU beside the plain torch way, in one process.

Example:
    python benchmarks/cpu_gemm.py --threads 1 2 --output benchmarks/results/cpu_gemm.json

Run it with a Python that has the built flashinfer installed. torch's way is a product for each
segment, put together with torch.cat, and for fp8 torch.bmm of what .to(bfloat16) gives, times the
scales. Both sides are called on the same tensors in alternating order. Times are wall time and
processor time: that of the thread with one thread, of the process with more. The ratio is of the
processor times' medians, as other programs on the machine hardly change them. A column-major matrix
is [d_out, d_in], as torch.nn.Linear has it; torch gets it transposed by its strides. GFLOP/s counts
two for every multiply-add and GB/s every tensor once, both by our processor time with one thread
and by wall time with more.

Where other programs keep the cores busy, set OMP_WAIT_POLICY=passive for more than one thread:
otherwise a thread that waits for another one's turn spins, and counts as computing.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch

import flashinfer

# Behind everything else: the flashinfer above is the installed one, not the folder beside this.
sys.path.append(str(Path(__file__).resolve().parents[1]))
from benchmarks.cpu_ops import Case, Operation, cpu_model, random, report, size

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FP8 = torch.float8_e4m3fn
# Segments, d_in and d_out by the rows of a segment; the first two are those of LoRA adapters.
THIN_ROWS, MEDIUM_ROWS, LARGE_ROWS = (1, 4, 8), (16, 64), (256, 512)


@dataclass(frozen=True)
class Work:
    """A case and what both sides compute."""

    case: Case
    flops: float


@dataclass(frozen=True)
class Times:
    """Seconds of one call, a sample each round."""

    wall: list[float]
    cpu: list[float]


def check(ours: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype, depth: int) -> None:
    """Both sides do the same work, or there is nothing to compare."""
    error = float((ours.float() - theirs.float()).abs().max())
    # The elements are normal numbers times depth ** -0.5 times depth ** 0.5: of size 1.
    if not error <= 16 * torch.finfo(dtype).eps + 1e-6 * depth**0.5:
        raise SystemExit(f"the two sides differ by {error}")


def segments(
    count: int, rows: int, d_in: int, d_out: int, column_major: bool, dtype: torch.dtype
) -> Work:
    """`count` segments of `rows` rows, each with a matrix of its own."""
    lengths = torch.full((count,), rows, dtype=torch.int64)
    starts = [0, *accumulate(lengths.tolist())]
    x = random(starts[-1], d_in, dtype=dtype)
    shape = (d_out, d_in) if column_major else (d_in, d_out)
    weights = (random(count, *shape, dtype=torch.float32) * d_in**-0.5).to(dtype)
    matrices = weights.mT if column_major else weights
    wrapper = flashinfer.SegmentGEMMWrapper(torch.empty(1))

    def ours() -> torch.Tensor:
        return wrapper.run(x, weights, count, column_major, seg_lens=lengths)

    def plain() -> torch.Tensor:
        return torch.cat([x[a:b] @ matrices[s] for s, (a, b) in enumerate(pairwise(starts))])

    check(ours(), plain(), dtype, d_in)
    name = "columns" if column_major else "rows"
    text = f"{count} x {rows}, {d_in} -> {d_out}"
    moved = size(x, weights) + starts[-1] * d_out * dtype.itemsize
    case = Case(f"segment_gemm, {name}", dtype, text, moved, ours, plain)
    return Work(case, 2.0 * starts[-1] * d_in * d_out)


def fp8(batch: int, m: int, n: int, k: int) -> Work:
    """A batch of e4m3 products, to bf16."""
    a = random(batch, m, k, dtype=torch.float32).to(FP8)
    b = random(batch, n, k, dtype=torch.float32).to(FP8).mT
    a_scale, b_scale = torch.tensor(0.5), torch.tensor(2.0 * k**-0.5)
    dtype = torch.bfloat16

    def ours() -> torch.Tensor:
        return flashinfer.bmm_fp8(a, b, a_scale, b_scale, dtype)

    def plain() -> torch.Tensor:
        return torch.bmm(a.to(dtype), b.to(dtype)) * (a_scale * b_scale).to(dtype)

    check(ours(), plain(), dtype, k)
    moved = size(a, b) + batch * m * n * dtype.itemsize
    case = Case("bmm_fp8", dtype, f"{batch} x {m} x {n} x {k}", moved, ours, plain)
    return Work(case, 2.0 * batch * m * n * k)


def works(only: str) -> list[Callable[[], Work]]:
    """Makers, so that the tensors of one row are gone before the next is made."""
    makers: list[Callable[[], Work]] = []
    if only != "bmm_fp8":
        for dtype in DTYPES:
            for column_major in (False, True):
                make = functools.partial(segments, column_major=column_major, dtype=dtype)
                for rows in THIN_ROWS:
                    makers.append(functools.partial(make, 32, rows, 4096, 16))
                    makers.append(functools.partial(make, 32, rows, 16, 4096))
                    makers.append(functools.partial(make, 8, rows, 1024, 1024))
                for rows in MEDIUM_ROWS:
                    makers.append(functools.partial(make, 8, rows, 4096, 16))
                    makers.append(functools.partial(make, 8, rows, 1024, 1024))
                for rows in LARGE_ROWS:
                    makers.append(functools.partial(make, 2, rows, 1024, 1024))
    if only != "segment_gemm":
        for m in (1, 8, 64, 512):
            makers.append(functools.partial(fp8, 4, m, 512, 1024))
    return makers


def sample(operation: Operation, calls: int, cpu_clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds of wall and of processor time of one call, averaged over some."""
    wall, cpu = time.perf_counter(), cpu_clock()
    for _ in range(calls):
        operation()
    cpu_end, wall_end = cpu_clock(), time.perf_counter()
    return (wall_end - wall) / calls, (cpu_end - cpu) / calls


def measure(case: Case, budget: float, rounds: int, threads: int) -> tuple[Times, Times]:
    """Ours and torch's, in turn, until the budget (seconds) and the rounds are over."""
    cpu_clock = time.thread_time if threads == 1 else time.process_time
    sides = (case.ours, case.torch)
    calls = []
    for side in sides:
        sample(side, 1, cpu_clock)
        calls.append(max(1, int(1e-3 / max(sample(side, 2, cpu_clock)[1], 1e-7))))
    times = (Times([], []), Times([], []))
    deadline = time.perf_counter() + budget
    while time.perf_counter() < deadline or len(times[0].wall) < rounds:
        for i in (0, 1) if len(times[0].wall) % 2 == 0 else (1, 0):
            wall, cpu = sample(sides[i], calls[i], cpu_clock)
            times[i].wall.append(wall)
            times[i].cpu.append(cpu)
    return times


def row_of(work: Work, threads: int, ours: Times, theirs: Times) -> dict[str, Any]:
    """One row of the table, for JSON."""
    case = work.case
    median = {
        f"{side}_{clock}": statistics.median(getattr(times, clock))
        for side, times in (("ours", ours), ("torch", theirs))
        for clock in ("cpu", "wall")
    }
    seconds = median["ours_cpu"] if threads == 1 else median["ours_wall"]
    return {
        "operation": case.name,
        "dtype": str(case.dtype).removeprefix("torch."),
        "shape": case.shape,
        "threads": threads,
        "samples": len(ours.wall),
        **{f"{name}_us": round(value * 1e6, 1) for name, value in median.items()},
        "ours_best_cpu_us": round(min(ours.cpu) * 1e6, 1),
        "torch_best_cpu_us": round(min(theirs.cpu) * 1e6, 1),
        "ratio": round(median["torch_cpu"] / median["ours_cpu"], 2),
        "best_ratio": round(min(theirs.cpu) / min(ours.cpu), 2),
        "wall_ratio": round(median["torch_wall"] / median["ours_wall"], 2),
        "gbps": round(case.bytes / seconds / 1e9, 1),
        "gflops": round(work.flops / seconds / 1e9, 1),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {
        "clock": "processor time, beside wall time",
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
        "isa": os.environ.get("FLASHINFER_CPU_ISA", "") or "the widest the CPU has",
        "torch": torch.__version__,
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "flashinfer": flashinfer.__version__,
        "rows": [],
    }
    if not options.json:
        print(
            f"{result['cpu']}, {result['cores']} cores (load {result['load_average']}), "
            f"torch {result['torch']} ({result['torch_isa']}), ours {result['isa']}"
        )
    for threads in options.threads:
        torch.set_num_threads(threads)
        if not options.json:
            print(
                f"\n{threads} thread(s), medians of processor time\n"
                f"{'operation':<23}{'dtype':<10}{'shape':<24}{'ours us':>10}{'torch us':>11}"
                f"{'ratio':>7}{'best':>7}{'wall':>7}{'GB/s':>7}{'GFLOP/s':>9}"
            )
        for make in works(options.only):
            work = make()
            ours, theirs = measure(work.case, options.seconds, options.rounds, threads)
            row = row_of(work, threads, ours, theirs)
            result["rows"].append(row)
            if not options.json:
                print(
                    f"{row['operation']:<23}{row['dtype']:<10}{row['shape']:<24}"
                    f"{row['ours_cpu_us']:>10.1f}{row['torch_cpu_us']:>11.1f}{row['ratio']:>7.2f}"
                    f"{row['best_ratio']:>7.2f}{row['wall_ratio']:>7.2f}{row['gbps']:>7.1f}"
                    f"{row['gflops']:>9.1f}",
                    flush=True,
                )
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="torch threads")
    parser.add_argument("--seconds", type=float, default=0.5, help="time per row (default 0.5)")
    parser.add_argument("--rounds", type=int, default=5, help="at least, per row (default 5)")
    parser.add_argument("--only", default="", choices=["", "segment_gemm", "bmm_fp8"])
    parser.add_argument("--output", type=Path, help="also write the result there, as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if min(options.threads) < 1:
        parser.error("--threads must be 1 or more")
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    result = run(options)
    report(result, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
