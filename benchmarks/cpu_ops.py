"""The CPU kernels beside the plain torch way of the same operation, in one process.

Example:
    python benchmarks/cpu_ops.py --threads 1 2 --output benchmarks/results/cpu_ops.json

Run it with a Python that has the built flashinfer installed. Both sides are called through their
public functions, in alternating order, until a case has taken its time; the table has medians.
GB/s counts the bytes that the operation must read and write, once each, and the first lines give
what a copy of 256 MB reaches in the same run. On a busy machine use --cpu-time, which counts
what the process computes and not what it waits. FLASHINFER_CPU_ISA=baseline measures what a CPU
without AVX2 would run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import flashinfer

Operation = Callable[[], object]
SEED = torch.Generator().manual_seed(1)
EPS = 1e-6


@dataclass(frozen=True)
class Case:
    """One row of the table: an operation and its torch counterpart on the same tensors."""

    name: str
    dtype: torch.dtype
    shape: str
    bytes: int
    ours: Operation
    torch: Operation


def random(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, generator=SEED).to(dtype)


def size(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def rmsnorm(rows: int, hidden: int, dtype: torch.dtype) -> Case:
    x, weight = random(rows, hidden, dtype=dtype), random(hidden, dtype=dtype)
    out = torch.empty_like(x)
    return Case(
        "rmsnorm",
        dtype,
        f"{rows} x {hidden}",
        size(x, out),
        lambda: flashinfer.rmsnorm(x, weight, EPS, out=out),
        lambda: F.rms_norm(x, (hidden,), weight, EPS),
    )


def fused_add_rmsnorm(rows: int, hidden: int, dtype: torch.dtype) -> Case:
    x, residual = random(rows, hidden, dtype=dtype), random(rows, hidden, dtype=dtype)
    weight = random(hidden, dtype=dtype)

    def plain() -> None:
        residual.add_(x)
        x.copy_(F.rms_norm(residual, (hidden,), weight, EPS))

    return Case(
        "fused_add_rmsnorm",
        dtype,
        f"{rows} x {hidden}",
        2 * size(x, residual),
        lambda: flashinfer.fused_add_rmsnorm(x, residual, weight, EPS),
        plain,
    )


def layernorm(rows: int, hidden: int, dtype: torch.dtype) -> Case:
    x = random(rows, hidden, dtype=dtype)
    gamma, beta = (random(hidden, dtype=torch.float32) for _ in range(2))
    own, shift = gamma.to(dtype), beta.to(dtype)
    return Case(
        "layernorm",
        dtype,
        f"{rows} x {hidden}",
        2 * size(x),
        lambda: flashinfer.layernorm(x, gamma, beta, EPS),
        lambda: F.layer_norm(x, (hidden,), own, shift, EPS),
    )


def in_fp8(x: torch.Tensor) -> torch.Tensor:
    """Saturated, as torch's own conversion is not."""
    most = torch.finfo(torch.float8_e4m3fn).max
    return x.clamp(-most, most).to(torch.float8_e4m3fn)


def rmsnorm_quant(rows: int, hidden: int, dtype: torch.dtype) -> Case:
    x, weight = random(rows, hidden, dtype=dtype), random(hidden, dtype=dtype)
    out = torch.empty(x.shape, dtype=torch.float8_e4m3fn)
    return Case(
        "rmsnorm_quant",
        dtype,
        f"{rows} x {hidden}",
        size(x, out),
        lambda: flashinfer.rmsnorm_quant(out, x, weight, 0.1, EPS),
        lambda: out.copy_(in_fp8(F.rms_norm(x, (hidden,), weight, EPS).float() / 0.1)),
    )


def fused_add_rmsnorm_quant(rows: int, hidden: int, dtype: torch.dtype) -> Case:
    x, residual = random(rows, hidden, dtype=dtype), torch.zeros(rows, hidden, dtype=dtype)
    weight = random(hidden, dtype=dtype)
    out = torch.empty(x.shape, dtype=torch.float8_e4m3fn)

    def plain() -> None:
        residual.add_(x)
        out.copy_(in_fp8(F.rms_norm(residual, (hidden,), weight, EPS).float() / 0.1))

    return Case(
        "fused_add_rmsnorm_quant",
        dtype,
        f"{rows} x {hidden}",
        3 * size(x) + size(out),
        lambda: flashinfer.fused_add_rmsnorm_quant(out, x, residual, weight, 0.1, EPS),
        plain,
    )


def activation(name: str, rows: int, d: int, dtype: torch.dtype) -> Case:
    x = random(rows, 2 * d, dtype=dtype)
    out = torch.empty(rows, d, dtype=dtype)
    ours = getattr(flashinfer, name)
    forms: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "silu_and_mul": F.silu,
        "gelu_and_mul": F.gelu,
        "gelu_tanh_and_mul": lambda t: F.gelu(t, approximate="tanh"),
    }
    act = forms[name]
    return Case(
        name,
        dtype,
        f"{rows} x {d}",
        size(x, out),
        lambda: ours(x, out=out),
        lambda: act(x[:, :d]) * x[:, d:],
    )


def rotated(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """The usual torch form of half-split RoPE; cosines and sines [nnz, 1, head_dim]."""
    low, high = x.chunk(2, -1)
    return x * cosines + torch.cat((-high, low), -1) * sines


def rope(nnz: int, heads: int, kv_heads: int, dim: int, dtype: torch.dtype) -> Case:
    q, k = random(nnz, heads, dim, dtype=dtype), random(nnz, kv_heads, dim, dtype=dtype)
    positions = torch.randint(0, 8192, (nnz,), generator=SEED, dtype=torch.int32)
    f = 1e4 ** (-torch.arange(0, dim, 2) / dim)

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        angles = (positions[:, None] * f).repeat(1, 2)[:, None]
        cosines, sines = angles.cos().to(dtype), angles.sin().to(dtype)
        return rotated(q, cosines, sines), rotated(k, cosines, sines)

    return Case(
        "apply_rope_pos_ids",
        dtype,
        f"{nnz} x ({heads}+{kv_heads}) x {dim}",
        2 * size(q, k),
        lambda: flashinfer.apply_rope_pos_ids(q, k, positions),
        plain,
    )


def rope_cached(nnz: int, heads: int, kv_heads: int, dim: int, dtype: torch.dtype) -> Case:
    q, k = random(nnz, heads, dim, dtype=dtype), random(nnz, kv_heads, dim, dtype=dtype)
    positions = torch.randint(0, 8192, (nnz,), generator=SEED, dtype=torch.int32)
    f = 1e4 ** (-torch.arange(0, dim, 2) / dim)
    angles = (torch.arange(8192)[:, None] * f).repeat(1, 2)
    cos_cache, sin_cache = angles.cos(), angles.sin()
    cos_plain, sin_plain = cos_cache.to(dtype), sin_cache.to(dtype)

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        cosines, sines = cos_plain[positions][:, None], sin_plain[positions][:, None]
        return rotated(q, cosines, sines), rotated(k, cosines, sines)

    return Case(
        "apply_rope_with_cos_sin_cache",
        dtype,
        f"{nnz} x ({heads}+{kv_heads}) x {dim}",
        2 * size(q, k),
        lambda: flashinfer.apply_rope_with_cos_sin_cache(q, k, cos_cache, sin_cache, positions),
        plain,
    )


def append(nnz: int, heads: int, dim: int, page_size: int, dtype: torch.dtype) -> Case:
    pages = (nnz + page_size - 1) // page_size
    cache = torch.zeros(pages, 2, page_size, heads, dim, dtype=dtype)
    key, value = random(nnz, heads, dim, dtype=dtype), random(nnz, heads, dim, dtype=dtype)
    kv_indices = torch.randperm(pages, generator=SEED).to(torch.int32)
    kv_indptr = torch.tensor([0, pages], dtype=torch.int32)
    last_page_len = torch.tensor([nnz - (pages - 1) * page_size], dtype=torch.int32)
    batch_indices = torch.zeros(nnz, dtype=torch.int32)
    positions = torch.arange(nnz, dtype=torch.int32)
    k_cache, v_cache = cache[:, 0], cache[:, 1]

    def plain() -> None:
        page, slot = kv_indices[positions // page_size], positions % page_size
        k_cache[page, slot] = key
        v_cache[page, slot] = value

    return Case(
        "append_paged_kv_cache",
        dtype,
        f"{nnz} x {heads} x {dim}, page {page_size}",
        2 * size(key, value),
        lambda: flashinfer.append_paged_kv_cache(
            key, value, batch_indices, positions, cache, kv_indices, kv_indptr, last_page_len
        ),
        plain,
    )


def concat(nnz: int, heads: int, dtype: torch.dtype) -> Case:
    nope, rope = random(nnz, heads, 128, dtype=dtype), random(nnz, 1, 64, dtype=dtype)
    k = torch.empty(nnz, heads, 192, dtype=dtype)

    def plain() -> None:
        k[..., :128] = nope
        k[..., 128:] = rope

    return Case(
        "concat_mla_k",
        dtype,
        f"{nnz} x {heads} x (128+64)",
        size(k, nope, rope),
        lambda: flashinfer.concat_mla_k(k, nope, rope),
        plain,
    )


def merge_state(rows: int, heads: int, dim: int, dtype: torch.dtype) -> Case:
    v_a, v_b = (random(rows, heads, dim, dtype=dtype) for _ in range(2))
    s_a, s_b = (random(rows, heads, dtype=torch.float32) for _ in range(2))

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        s = torch.logaddexp2(s_a, s_b)
        w_a, w_b = torch.exp2(s_a - s)[..., None], torch.exp2(s_b - s)[..., None]
        return (v_a * w_a + v_b * w_b).to(dtype), s

    return Case(
        "merge_state",
        dtype,
        f"{rows} x {heads} x {dim}",
        size(v_a, v_a, v_b, s_a, s_a, s_b),
        lambda: flashinfer.merge_state(v_a, s_a, v_b, s_b),
        plain,
    )


def merge_states(rows: int, states: int, heads: int, dim: int, dtype: torch.dtype) -> Case:
    v = random(rows, states, heads, dim, dtype=dtype)
    s = random(rows, states, heads, dtype=torch.float32)

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        top = s.amax(1, keepdim=True)
        weights = torch.exp2(s - top)
        total = weights.sum(1)
        merged = torch.einsum("nsh,nshd->nhd", weights, v.float()) / total[..., None]
        return merged.to(dtype), torch.log2(total) + top[:, 0]

    return Case(
        "merge_states",
        dtype,
        f"{rows} x {states} x {heads} x {dim}",
        size(v, s) + size(v, s) // states,
        lambda: flashinfer.merge_states(v, s),
        plain,
    )


def packbits(n: int, order: str) -> Case:
    x = torch.rand(n, generator=SEED) < 0.5
    weights = 2 ** torch.arange(8, dtype=torch.uint8)
    if order == "big":
        weights = weights.flip(0)
    return Case(
        f"packbits, {order}",
        torch.bool,
        str(n),
        n + n // 8,
        lambda: flashinfer.packbits(x, order),
        lambda: (x.view(-1, 8) * weights).sum(1, dtype=torch.uint8),
    )


def cases() -> list[Case]:
    """Decode-sized (in the cache) and prefill-sized (in memory) rows of every operation."""
    rows: list[Case] = []
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for n in (16, 2048):
            rows += [
                rmsnorm(n, 4096, dtype),
                fused_add_rmsnorm(n, 4096, dtype),
                layernorm(n, 4096, dtype),
                rmsnorm_quant(n, 4096, dtype),
                fused_add_rmsnorm_quant(n, 4096, dtype),
                activation("silu_and_mul", n, 8192, dtype),
                activation("gelu_and_mul", n, 8192, dtype),
                activation("gelu_tanh_and_mul", n, 8192, dtype),
                rope(n, 32, 8, 128, dtype),
                rope_cached(n, 32, 8, 128, dtype),
                append(n, 8, 128, 16, dtype),
                concat(n, 128, dtype),
                merge_state(n, 32, 128, dtype),
                merge_states(n // 8, 8, 32, 128, dtype),
            ]
    rows += [packbits(n, order) for n in (1 << 14, 1 << 26) for order in ("little", "big")]
    return rows


Clock = Callable[[], float]


def seconds(operation: Operation, calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(calls):
        operation()
    return (clock() - start) / calls


def measure(case: Case, budget: float, clock: Clock) -> tuple[list[float], list[float]]:
    """Seconds of ours and of torch's, called in turn until the budget (seconds) is spent."""
    sides = (case.ours, case.torch)
    calls = []
    for side in sides:
        seconds(side, 2, clock)
        calls.append(max(1, int(2e-4 / max(seconds(side, 3, clock), 1e-7))))
    times: tuple[list[float], list[float]] = ([], [])
    deadline = time.perf_counter() + budget
    while time.perf_counter() < deadline or len(times[0]) < 5:
        order = (0, 1) if len(times[0]) % 2 == 0 else (1, 0)
        for i in order:
            times[i].append(seconds(sides[i], calls[i], clock))
    return times


def copy_bandwidth(clock: Clock) -> float:
    """GB/s, read plus written, of a torch copy of 256 MB: the ceiling of the large rows."""
    source = torch.ones(64 << 20)
    target = torch.empty_like(source)
    times = [seconds(lambda: target.copy_(source), 1, clock) for _ in range(12)]
    return 2 * size(source) / statistics.median(times[2:]) / 1e9


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def run(options: argparse.Namespace, rows: list[Case]) -> dict[str, Any]:
    """Measures the cases that ``--only`` leaves, and prints the table."""
    clock = time.process_time if options.cpu_time else time.perf_counter
    result: dict[str, Any] = {
        "clock": "processor time" if options.cpu_time else "wall",
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "isa": os.environ.get("FLASHINFER_CPU_ISA", "") or "the widest the CPU has",
        "torch": torch.__version__,
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "flashinfer": flashinfer.__version__,
        "copy_gbps": {},
        "rows": [],
    }
    quiet = options.json
    chosen = [case for case in rows if options.only in case.name]
    if not quiet:
        print(
            f"{result['cpu']}, {result['cores']} cores (load {result['load_average']}), "
            f"torch {result['torch']}, {result['clock']}"
        )
    for threads in options.threads:
        torch.set_num_threads(threads)
        ceiling = copy_bandwidth(clock)
        result["copy_gbps"][str(threads)] = round(ceiling, 1)
        if not quiet:
            print(f"\n{threads} thread(s); a copy reaches {ceiling:.1f} GB/s")
            print(
                f"{'operation':<30}{'dtype':<10}{'shape':<24}{'ours us':>10}{'torch us':>11}"
                f"{'ratio':>8}{'GB/s':>8}"
            )
        for case in chosen:
            ours_times, plain_times = measure(case, options.seconds, clock)
            ours, plain = statistics.median(ours_times), statistics.median(plain_times)
            row = {
                "operation": case.name,
                "dtype": str(case.dtype).removeprefix("torch."),
                "shape": case.shape,
                "threads": threads,
                "ours_us": round(ours * 1e6, 2),
                "torch_us": round(plain * 1e6, 2),
                "ours_best_us": round(min(ours_times) * 1e6, 2),
                "torch_best_us": round(min(plain_times) * 1e6, 2),
                "ratio": round(plain / ours, 2),
                "gbps": round(case.bytes / ours / 1e9, 1),
            }
            result["rows"].append(row)
            if not quiet:
                print(
                    f"{row['operation']:<30}{row['dtype']:<10}{row['shape']:<24}"
                    f"{row['ours_us']:>10.1f}{row['torch_us']:>11.1f}{row['ratio']:>8.2f}"
                    f"{row['gbps']:>8.1f}",
                    flush=True,
                )
    return result


def report(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Writes the result where ``--output`` and ``--json`` say."""
    text = json.dumps(result, indent=2)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n")
    if options.json:
        print(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a program that measures cases."""
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="torch threads")
    parser.add_argument("--seconds", type=float, default=0.5, help="time per row (default 0.5)")
    parser.add_argument(
        "--cpu-time", action="store_true", help="measure processor time (1 thread only)"
    )
    parser.add_argument("--only", default="", help="operations whose name contains this")
    parser.add_argument("--output", type=Path, help="also write the result there, as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def check_arguments(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the program, by the parser, where options do not go together."""
    if min(options.threads) < 1:
        parser.error("--threads must be 1 or more")
    if options.cpu_time and options.threads != [1]:
        parser.error("--cpu-time is the sum over threads: use it with --threads 1")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    options = parser.parse_args()
    check_arguments(parser, options)
    report(run(options, cases()), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
