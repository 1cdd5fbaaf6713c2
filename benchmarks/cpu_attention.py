"""Attention on the CPU beside torch's scaled_dot_product_attention, in one process.

Example:
    python benchmarks/cpu_attention.py --threads 1 2 --output benchmarks/results/cpu_attention.json

Run it with a Python that has the built flashinfer installed. Both sides are called through their
public functions on the same numbers, in alternating order, and the table has medians. Ours reads
the layouts of this package: a paged cache for decode, [tokens, heads, head_dim] for prefill.
torch gets contiguous tensors in the order of dimensions it prefers, made beforehand, and of the
forms that grouped heads can take (enable_gqa, keys and values repeated, and for decode the group
as query rows) the one that is fastest in a trial. GB/s counts the keys and values, once; GFLOP/s
two multiplications and two additions for every (query, key, element) that the mask lets through.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
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

# Behind everything else: the flashinfer above is the installed one, not the folder beside this.
sys.path.append(str(Path(__file__).resolve().parents[1]))
from benchmarks.cpu_ops import (
    Case,
    Operation,
    copy_bandwidth,
    cpu_model,
    measure,
    random,
    report,
    seconds,
    size,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Work:
    """A case, the form that torch takes, and what both compute."""

    case: Case
    torch_form: str
    flops: float


def fastest(forms: dict[str, Operation]) -> str:
    """The form with the shortest of three calls, after one to warm up."""
    best: dict[str, float] = {}
    for name, form in forms.items():
        form()
        best[name] = min(seconds(form, 1, time.perf_counter) for _ in range(3))
    return min(best, key=lambda name: best[name])


def check(ours: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype) -> None:
    """Both sides do the same work, or there is nothing to compare."""
    error = float((ours.float() - theirs.float()).abs().max())
    if error > 4 * torch.finfo(dtype).eps + 1e-5:
        raise SystemExit(f"the two sides differ by {error}")


def decode(batch: int, heads: int, kv_heads: int, kv_len: int, dtype: torch.dtype) -> Work:
    """One token a request over a paged cache, pages of 16 in random order."""
    dim, page = 128, 16
    group, per_request = heads // kv_heads, kv_len // page
    pages = batch * per_request
    cache = random(pages, 2, page, kv_heads, dim, dtype=dtype)
    indices = torch.randperm(pages, generator=torch.Generator().manual_seed(2)).to(torch.int32)
    indptr = torch.arange(0, pages + 1, per_request, dtype=torch.int32)
    q = random(batch, heads, dim, dtype=dtype)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        torch.empty(64 << 20, dtype=torch.uint8)
    )
    last_page_len = torch.full((batch,), page, dtype=torch.int32)
    wrapper.plan(indptr, indices, last_page_len, heads, kv_heads, dim, page, q_data_type=dtype)

    ordered = cache[indices.long()].view(batch, per_request, 2, page, kv_heads, dim)
    k, v = (
        ordered[:, :, i].reshape(batch, kv_len, kv_heads, dim).transpose(1, 2).contiguous()
        for i in range(2)
    )
    q_rows, q_heads = q.view(batch, kv_heads, group, dim), q.view(batch, heads, 1, dim)
    attention = F.scaled_dot_product_attention
    forms: dict[str, Operation] = {"group as rows": lambda: attention(q_rows, k, v)}
    if group > 1:
        forms["enable_gqa"] = lambda: attention(q_heads, k, v, enable_gqa=True)
        k_all, v_all = (x.repeat_interleave(group, 1) for x in (k, v))
        forms["repeated heads"] = lambda: attention(q_heads, k_all, v_all)
    form = fastest(forms)
    check(wrapper.run(q, cache), attention(q_rows, k, v).view(batch, heads, dim), dtype)
    case = Case(
        "decode",
        dtype,
        f"{batch} x {heads}/{kv_heads} x {dim}, {kv_len} keys",
        size(cache),
        lambda: wrapper.run(q, cache),
        forms[form],
    )
    return Work(case, form, 4.0 * batch * heads * kv_len * dim)


def latent(batch: int, heads: int, kv_len: int, dtype: torch.dtype) -> Work:
    """Latent attention of one token a request, pages of 16 in random order."""
    ckv_dim, kpe_dim, page, scale = 512, 64, 16, 192**-0.5
    per_request = kv_len // page
    pages = batch * per_request
    ckv, kpe = (random(pages, page, dim, dtype=dtype) for dim in (ckv_dim, kpe_dim))
    q_nope, q_pe = (random(batch, heads, dim, dtype=dtype) for dim in (ckv_dim, kpe_dim))
    indices = torch.randperm(pages, generator=torch.Generator().manual_seed(2)).to(torch.int32)
    indptr = torch.arange(0, pages + 1, per_request, dtype=torch.int32)
    wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(
        torch.empty(128 << 20, dtype=torch.uint8)
    )
    last_page_len = torch.full((batch,), page, dtype=torch.int32)
    wrapper.plan(
        *(indptr, indices, last_page_len, heads, ckv_dim, page, scale),
        data_type=dtype,
        pos_encoding_mode="NONE",
    )
    order = indices.long()

    def gathered(cache: torch.Tensor) -> torch.Tensor:
        return cache[order].view(batch, kv_len, -1)

    def products() -> torch.Tensor:
        keys = gathered(ckv)
        scores = torch.bmm(q_nope, keys.transpose(1, 2))
        scores.baddbmm_(q_pe, gathered(kpe).transpose(1, 2))
        return torch.bmm(torch.softmax(scores.float() * scale, -1).to(dtype), keys)

    def joined() -> torch.Tensor:
        keys = gathered(ckv)[:, None]
        both = torch.cat([keys, gathered(kpe)[:, None]], -1)
        q = torch.cat([q_nope, q_pe], -1)[:, None]
        return F.scaled_dot_product_attention(q, both, keys, scale=scale)[:, 0]

    forms: dict[str, Operation] = {"two products": products, "SDPA, joined parts": joined}
    form = fastest(forms)
    # Not with the products, whose scores are rounded to the dtype before the softmax.
    check(wrapper.run(q_nope, q_pe, ckv, kpe), joined(), dtype)
    case = Case(
        "latent decode",
        dtype,
        f"{batch} x {heads} x {ckv_dim}+{kpe_dim}, {kv_len} keys",
        size(ckv, kpe),
        lambda: wrapper.run(q_nope, q_pe, ckv, kpe),
        forms[form],
    )
    return Work(case, form, 2.0 * batch * heads * kv_len * (2 * ckv_dim + kpe_dim))


def prefill(
    length: int, heads: int, kv_heads: int, dim: int, causal: bool, dtype: torch.dtype
) -> Work:
    """One request, as many queries as keys."""
    q = random(length, heads, dim, dtype=dtype)
    k, v = (random(length, kv_heads, dim, dtype=dtype) for _ in range(2))
    group = heads // kv_heads
    q_t, k_t, v_t = (x.transpose(0, 1).contiguous()[None] for x in (q, k, v))
    attention = F.scaled_dot_product_attention
    forms: dict[str, Operation] = {}
    if group > 1:
        forms["enable_gqa"] = lambda: attention(q_t, k_t, v_t, is_causal=causal, enable_gqa=True)
    k_all, v_all = (x.repeat_interleave(group, 1) for x in (k_t, v_t))
    plain = "repeated heads" if group > 1 else "as it is"
    forms[plain] = lambda: attention(q_t, k_all, v_all, is_causal=causal)
    form = fastest(forms)

    def ours() -> torch.Tensor:
        out: torch.Tensor = flashinfer.single_prefill_with_kv_cache(q, k, v, causal=causal)
        return out

    check(ours(), attention(q_t, k_all, v_all, is_causal=causal)[0].transpose(0, 1), dtype)
    case = Case(
        "prefill, causal" if causal else "prefill, full",
        dtype,
        f"{length} x {heads}/{kv_heads} x {dim}",
        size(k, v),
        ours,
        forms[form],
    )
    pairs = length * (length + 1) / 2 if causal else float(length * length)
    return Work(case, form, 4.0 * heads * dim * pairs)


def works(only: str) -> list[Callable[[], Work]]:
    """Makers, so that the tensors of one row are gone before the next is made."""
    rows: list[Callable[[], Work]] = []
    for dtype in DTYPES:
        if only in ("", "latent"):
            for heads, (batch, kv_len) in itertools.product(
                (16, 128), ((1, 1024), (1, 8192), (16, 1024))
            ):
                rows.append(functools.partial(latent, batch, heads, kv_len, dtype))
        if only in ("", "decode"):
            for kv_heads, kv_len in itertools.product((8, 32), (1024, 4096)):
                rows.append(functools.partial(decode, 16, 32, kv_heads, kv_len, dtype))
        if only in ("", "prefill"):
            for dim, length in itertools.product((64, 128), (512, 1024, 2048)):
                for kv_heads, causal in itertools.product((2, 8), (False, True)):
                    rows.append(functools.partial(prefill, length, 8, kv_heads, dim, causal, dtype))
    return rows


def run(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {
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
    if not options.json:
        print(
            f"{result['cpu']}, {result['cores']} cores (load {result['load_average']}), "
            f"torch {result['torch']} ({result['torch_isa']}), ours {result['isa']}"
        )
    for threads in options.threads:
        torch.set_num_threads(threads)
        ceiling = copy_bandwidth(time.perf_counter)
        result["copy_gbps"][str(threads)] = round(ceiling, 1)
        if not options.json:
            print(f"\n{threads} thread(s); a copy reaches {ceiling:.1f} GB/s")
            print(
                f"{'operation':<17}{'dtype':<10}{'shape':<31}{'ours ms':>9}{'torch ms':>10}"
                f"{'ratio':>7}{'GB/s':>7}{'GFLOP/s':>9}  torch's form"
            )
        for make in works(options.only):
            work = make()
            case = work.case
            ours_times, torch_times = measure(case, options.seconds, time.perf_counter)
            ours, theirs = statistics.median(ours_times), statistics.median(torch_times)
            row = {
                "operation": case.name,
                "dtype": str(case.dtype).removeprefix("torch."),
                "shape": case.shape,
                "threads": threads,
                "torch_form": work.torch_form,
                "ours_ms": round(ours * 1e3, 3),
                "torch_ms": round(theirs * 1e3, 3),
                "ours_best_ms": round(min(ours_times) * 1e3, 3),
                "torch_best_ms": round(min(torch_times) * 1e3, 3),
                "ratio": round(theirs / ours, 2),
                "gbps": round(case.bytes / ours / 1e9, 1),
                "gflops": round(work.flops / ours / 1e9, 1),
            }
            result["rows"].append(row)
            if not options.json:
                print(
                    f"{row['operation']:<17}{row['dtype']:<10}{row['shape']:<31}"
                    f"{row['ours_ms']:>9.2f}{row['torch_ms']:>10.2f}{row['ratio']:>7.2f}"
                    f"{row['gbps']:>7.1f}{row['gflops']:>9.1f}  {work.torch_form}",
                    flush=True,
                )
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="torch threads")
    parser.add_argument("--seconds", type=float, default=0.5, help="time per row (default 0.5)")
    parser.add_argument("--only", default="", choices=["", "decode", "latent", "prefill"])
    parser.add_argument("--output", type=Path, help="also write the result there, as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if min(options.threads) < 1:
        parser.error("--threads must be 1 or more")
    result = run(options)
    report(result, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
