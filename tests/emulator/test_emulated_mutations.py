"""A bug put into a real kernel is found: the tests of the kernels are worth something.

Each case changes one line of a copy of csrc/, compiles what it affects and makes a call that is
fault-free with the original.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sampling_reference
import softmax_reference
import top_k_reference
import torch
from emulated import CSRC, HERE, QUICK_FLAGS, Emulator, Fault, build, kernel_sources
from emulated_attention import FP8, check
from emulated_attention import Case as Attention
from emulated_mla import Case as Latent
from emulated_mla import check as check_latent
from fp8_reference import assert_nearest
from rounding import assert_rounded
from test_emulated_gemm import bmm_fp8, exact, numbers, segment_gemm


def norm(gpu: Emulator, rows: int, hidden: int, offset: int = 0) -> None:
    x = gpu.put(torch.randn(rows, hidden).half(), offset=offset)
    gpu(
        "rmsnorm", dtype=x.dtype, rows=rows, hidden=hidden, out=gpu.empty(x.shape, x.dtype),
        out_stride=hidden, input=x, input_stride=hidden, eps=1e-5,
        weight=gpu.put(torch.randn(hidden).half(), "weight"),
    )  # fmt: skip


def layernorm(gpu: Emulator) -> None:
    x, ones = torch.randn(70, 2008).half(), torch.ones(2008)
    out = gpu.empty(x.shape, x.dtype)
    gpu(
        "layernorm", dtype=x.dtype, rows=70, hidden=2008, out=out, out_stride=2008,
        input=gpu.put(x), input_stride=2008, eps=0.0, gamma=gpu.put(ones), beta=gpu.put(ones),
    )  # fmt: skip
    right = torch.nn.functional.layer_norm(x.double(), (2008,), eps=0.0) + 1
    assert_rounded(out, right, fp32_error=1e-5)


def norm_quant(gpu: Emulator, offset: int = 0) -> None:
    x, weight = torch.randn(3, 64).half(), torch.randn(64).half()
    out = gpu.empty(x.shape, FP8[0], offset=offset)
    gpu(
        "rmsnorm_quant", dtype=x.dtype, out_dtype=FP8[0], rows=3, hidden=64, out=out,
        out_stride=64, input=gpu.put(x), input_stride=64, weight=gpu.put(weight), scale_value=0.5,
    )  # fmt: skip
    norm = x.double() * torch.rsqrt(x.double().pow(2).mean(-1, keepdim=True))
    assert_nearest(out, norm * weight.double() * 2)


def activation(gpu: Emulator) -> None:
    x = gpu.put(torch.randn(3, 2 * 264).half())
    out = gpu.empty((3, 264), x.dtype)
    gpu("act_and_mul", dtype=x.dtype, rows=3, d=264, out=out, out_stride=264, input=x,
        input_stride=528)  # fmt: skip


def rope(gpu: Emulator, **positions: Any) -> None:
    gpu.library.fi_emulator_set_multiprocessors(1)
    q = gpu.put(torch.randn(300, 1, 64).half(), "q")
    if not positions:
        positions = {"pos_ids": gpu.put(torch.arange(300)), "pos_ids_bits": 64}
    gpu(
        "rope", dtype=q.dtype, nnz=300, num_qo_heads=1, head_dim=64, rotary_dim=32, q=q, k=q,
        q_out=q, k_out=q, q_stride_n=64, q_stride_h=64, q_out_stride_n=64, q_out_stride_h=64,
        rope_scale=1.0, rope_theta=1e4, **positions,
    )  # fmt: skip


def rope_segments(gpu: Emulator) -> None:
    rope(gpu, indptr=gpu.ints([0, 300]), offsets=gpu.ints([5]), batch_size=1)


def append(gpu: Emulator) -> None:
    k = gpu.put(torch.randn(3, 1, 64).half(), "append_key")
    cache = gpu.empty((2, 1, 1, 64), k.dtype, "cache")
    gpu(
        "append_paged_kv", dtype=k.dtype, nnz=3, num_heads=1, head_dim=64, page_size=1,
        batch_size=1, append_key=k, append_value=k, key_stride_n=64, value_stride_n=64,
        batch_indices=gpu.ints([0, 0, -1]), positions=gpu.ints([0, 1, 0]), k_cache=cache,
        v_cache=gpu.empty((2, 1, 1, 64), k.dtype, "v_cache"), k_stride_page=64, v_stride_page=64,
        kv_indices=gpu.ints([1, 0]), kv_indptr=gpu.ints([0, 2], "kv_indptr"),
    )  # fmt: skip


def concat(gpu: Emulator) -> None:
    gpu.library.fi_emulator_set_multiprocessors(1)
    nope, rope = torch.randn(301, 3, 16).half(), torch.randn(301, 1, 8).half()
    k = gpu.empty((301, 3, 24), nope.dtype, "k")
    gpu(
        "concat_mla_k", element_size=2, nnz=301, num_heads=3, nope_dim=16, rope_dim=8, k=k,
        k_stride_n=72, k_stride_h=24, k_nope=gpu.put(nope, "k_nope"), nope_stride_n=48,
        nope_stride_h=16, k_rope=gpu.put(rope, "k_rope"), rope_stride_n=8,
    )  # fmt: skip
    assert torch.equal(k, torch.cat([nope, rope.expand(-1, 3, -1)], -1)), "wrong keys"


def merge_in_place(gpu: Emulator) -> None:
    v, s = gpu.put(torch.randn(4, 2, 64).half(), "v"), gpu.put(torch.randn(4, 2), "s")
    gpu(
        "merge_state", dtype=v.dtype, seq_len=4, num_heads=2, head_dim=64, v_a=v, s_a=s,
        v_b=gpu.put(torch.randn(4, 2, 64).half()), s_b=gpu.put(torch.randn(4, 2)), v_out=v, s_out=s,
    )  # fmt: skip


def merge_many(gpu: Emulator) -> None:
    # 144 rows of 8 lanes fill three quarters of the one multiprocessor: two splits, two rounds.
    gpu.library.fi_emulator_set_multiprocessors(1)
    v, s = torch.randn(144, 9, 1, 64).half(), torch.randn(144, 9, 1)
    gpu(
        "merge_states", dtype=v.dtype, seq_len=144, num_states=9, num_heads=1, head_dim=64,
        v=gpu.put(v), s=gpu.put(s), v_out=gpu.empty((144, 1, 64), v.dtype),
        s_out=gpu.empty((144, 1), s.dtype),
    )  # fmt: skip


def packbits(gpu: Emulator) -> None:
    gpu("packbits", n=41, x=gpu.put(torch.ones(41, dtype=torch.uint8), "x"),
        y=gpu.empty((6,), torch.uint8), total_out=6)  # fmt: skip


# Sampling: a bug may also show in a wrong result.


def draws(gpu: Emulator, vocab: int, spread: float, u: float = 0.999, **filters: float) -> None:
    p = torch.softmax(
        torch.randn(2, vocab, generator=torch.Generator().manual_seed(3)) * spread, -1
    )
    samples = gpu.empty((2,), torch.int32, "samples")
    values = {"top_p_value": 1.0, **{f"{name}_value": value for name, value in filters.items()}}
    gpu("sample", rows=2, vocab=vocab, probs=gpu.put(p, "probs"), probs_stride=vocab,
        uniform=gpu.put(torch.tensor([u, 0.4])), samples=samples, **values)  # fmt: skip
    right = sampling_reference.expected(p, torch.tensor([u, 0.4]), **filters)
    assert torch.equal(samples.long(), right), f"wrong: {samples.tolist()}, not {right.tolist()}"


def plain_draw(gpu: Emulator) -> None:
    draws(gpu, 9000, 1.0)


def draw_of_one(gpu: Emulator) -> None:
    draws(gpu, 9000, 1.0, u=1.0)


def top_k_draw(gpu: Emulator) -> None:
    draws(gpu, 9000, 3.0, top_k=40)


def flat_draw(gpu: Emulator) -> None:
    # More in the upper bins than the list holds, and less in the one with the threshold.
    draws(gpu, 20000, 1.0, top_p=0.9)


def even_draw(gpu: Emulator) -> None:
    draws(gpu, 20000, 0.0, top_p=0.5)


def share_at_an_entry(gpu: Emulator) -> None:
    # The share lies so little below the sum of 18,000 entries that their low words decide.
    p = torch.softmax(torch.randn(1, 20000) * 0.1, -1)
    values = p.double().sort(descending=True).values[0]
    share = float(values[:18000].sum() / values.sum()) - 1.5e-6
    out = gpu.empty(p.shape, p.dtype)
    gpu("renorm_probs", rows=1, vocab=20000, probs=gpu.put(p), probs_stride=20000, out=out,
        out_stride=20000, top_p_value=share)  # fmt: skip
    assert int((out > 0).sum()) == 18000, "wrong: another number of entries is left"


def masked(gpu: Emulator) -> None:
    x = torch.randn(1, 300) - 50
    out = gpu.empty(x.shape, x.dtype)
    gpu("mask_logits", rows=1, vocab=300, logits=gpu.put(x), logits_stride=300, out=out,
        out_stride=300, top_k_value=5)  # fmt: skip
    assert int((out > -torch.inf).sum()) == 5, "wrong: another number of logits is left"


def largest(gpu: Emulator) -> None:
    x = (torch.randn(2, 9000, generator=torch.Generator().manual_seed(4)) * 2).round()
    x[0, 5] = torch.nan
    placed = gpu.put(x)
    for k in (37, 3000):
        values, indices = gpu.empty((2, k), x.dtype), gpu.empty((2, k), torch.int64, "indices")
        gpu("top_k", dtype=x.dtype, rows=2, columns=9000, k=k, input=placed, input_stride=9000,
            values=values, indices=indices, sorted=1)  # fmt: skip
        top_k_reference.check(values, indices, x, True, False)


def softmax(gpu: Emulator, vocab: int = 1100) -> None:
    x = torch.linspace(-60, -20, vocab).repeat(2, 1)
    out = gpu.empty(x.shape, x.dtype)
    gpu("softmax", rows=2, vocab=vocab, logits=gpu.put(x, "logits"), logits_stride=vocab, out=out,
        out_stride=vocab, temperature_value=2.0)  # fmt: skip
    softmax_reference.check(out, x, 2.0)


def long_softmax(gpu: Emulator) -> None:
    softmax(gpu, 9001)


# Attention: a bug may also show in a wrong result.


def decode(gpu: Emulator) -> None:
    check(gpu, Attention([(3, 150)], (2, 1), page_size=16, tile_rows=16, mask="causal"))


def decode_fp8(gpu: Emulator) -> None:
    check(gpu, Attention([(3, 150)], (2, 1), kv_dtype=FP8[0], tile_rows=16))


def decode_rope(gpu: Emulator) -> None:
    check(gpu, Attention([(3, 150)], (2, 1), position="rope", tile_rows=16))


def prefill(gpu: Emulator) -> None:
    check(gpu, Attention([(100, 150), (2, 70)], tile_rows=128, mask="causal", window=60))


def window(gpu: Emulator) -> None:
    check(gpu, Attention([(100, 200)], tile_rows=128, window=60))


def rising_scores(gpu: Emulator) -> None:
    case = Attention([(100, 150)], tile_rows=128)
    case.make()
    case.tensors["q"].fill_(1.0)
    case.tensors["k"] = torch.linspace(-1, 1, 150).half()[:, None, None].repeat(1, 1, 64)
    check(gpu, case)


def split(gpu: Emulator) -> None:
    case = Attention([(3, 1500)], (2, 1), tile_rows=16, max_slots=8, padding=1, multiprocessors=8)
    check(gpu, case)


# Multi-head latent attention.


def latent(gpu: Emulator) -> None:
    """Both sizes of blocks; rows that are not there, and keys."""
    check_latent(gpu, Latent([70, 33], 9))
    check_latent(gpu, Latent([70], 20, window=50))


def latent_rising(gpu: Emulator) -> None:
    for heads in (16, 32):
        case = Latent([130], heads, position="none", sm_scale=0.02)
        case.make()
        case.tensors["q_nope"].fill_(1.0)
        case.tensors["rows"][:, :512] = torch.linspace(-3, 3, 130)[:, None].half()
        check_latent(gpu, case)


def latent_window(gpu: Emulator) -> None:
    check_latent(gpu, Latent([70], 16, window=50, together=True))


def latent_split(gpu: Emulator) -> None:
    check_latent(gpu, Latent([700], 5, max_slots=8, padding=1, multiprocessors=8))


# Matrix products: the kernels are those of planted/gemm_small.cu.


def gemm(
    gpu: Emulator,
    lengths: tuple[int, ...],
    column_major: bool,
    d_in: int,
    d_out: int,
    rest: int = 0,
) -> None:
    x = numbers((sum(lengths) + rest, d_in), torch.float16)
    shape = (d_out, d_in) if column_major else (d_in, d_out)
    weights = numbers((len(lengths), *shape), torch.float16)
    # A gap between the rows shows what is written past their ends.
    out = gpu.empty((x.shape[0], d_out), x.dtype, strides=((d_out + 2) // 2 * 2, 1))
    segment_gemm(gpu, out, gpu.put(x, "x"), gpu.put(weights, "weights"), lengths, column_major)
    assert_rounded(out, exact(x, weights, lengths, column_major))


def gemm_thin(gpu: Emulator) -> None:
    gemm(gpu, (3, 0, 18), True, 328, 73, rest=2)


def gemm_rows(gpu: Emulator) -> None:
    gemm(gpu, (20, 70), False, 264, 136)


def gemm_unaligned(gpu: Emulator) -> None:
    gemm(gpu, (3, 70), True, 133, 67)


def gemm_many_segments(gpu: Emulator) -> None:
    gemm(gpu, (1, 0, 2) * 15, True, 64, 64)


def gemm_at_an_offset(gpu: Emulator) -> None:
    x, weights = numbers((4, 64), torch.float16), numbers((1, 64, 64), torch.float16)
    out = gpu.empty((4, 64), x.dtype)
    segment_gemm(gpu, out, gpu.put(x, offset=1), gpu.put(weights), (4,), True)


def gemm_fp8(gpu: Emulator) -> None:
    a, b = numbers((2, 70, 80), FP8[0]), numbers((2, 30, 80), FP8[1])
    out, scales = gpu.empty((2, 70, 30), torch.float16), torch.tensor([0.5, 2.0])
    bmm_fp8(gpu, out, gpu.put(a), gpu.put(b), scales, torch.ones(1))
    assert_rounded(out, torch.bmm(a.double(), b.double().mT) * scales.double()[:, None, None])


INCLUDE = "include/flashinfer"
SAMPLING = "include/flashinfer/sampling"
ATTENTION = f"{INCLUDE}/attention"
MLA = f"{INCLUDE}/mla"
GEMM = f"{INCLUDE}/gemm"
# What, file, old text and how often it occurs, new text, call, what the report says.
Case = tuple[str, str, int, str, Callable[[Emulator], None], str]
CASES: dict[str, Case] = {
    "scan without the barrier after the warps' sums": (
        f"{SAMPLING}/scan.cuh", "shared->found = -1;\n  __syncthreads();", 1, "shared->found = -1;",
        plain_draw, "race|nothing wrote",
    ),
    "scan of what others still write": (
        f"{SAMPLING}/scan.cuh", "min(scan.first + each, n);\n  __syncthreads();", 1,
        "min(scan.first + each, n);", masked, "race|nothing wrote",
    ),
    "crossing read before it is found": (
        f"{SAMPLING}/scan.cuh", "shared->before = before;\n  }\n  __syncthreads();", 1,
        "shared->before = before;\n  }", top_k_draw, "race|nothing wrote",
    ),
    "histogram that others still clear": (
        f"{SAMPLING}/select.cuh", "= 0;\n    }\n    __syncthreads();", 1, "= 0;\n    }", top_k_draw,
        "race|nothing wrote",
    ),
    "list read before it is written": (
        f"{SAMPLING}/select.cuh", "    __syncthreads();\n    listed_ =", 1, "    listed_ =",
        top_k_draw, "race|nothing wrote",
    ),
    "tiles that others still clear": (
        f"{SAMPLING}/select.cuh", "tiles.set(i, 0);\n      __syncthreads();", 1, "tiles.set(i, 0);",
        top_k_draw, "race",
    ),
    "list without an end": (
        f"{SAMPLING}/select.cuh", "full = slot + all > kListSize;", 1,
        "full = slot + all > 8 * kListSize;", even_draw,
        "out of bounds|out-of-bounds",
    ),
    "list that leaves out the bins above": (
        f"{SAMPLING}/select.cuh", "gather(bin << kBinShift, 0xffffffffu)", 1,
        "gather(bin << kBinShift, (bin << kBinShift) + 0xfffffu)", top_k_draw, "wrong",
    ),
    "sums without their low words": (
        f"{SAMPLING}/weights.cuh", "(static_cast<uint64_t>(high) << kLowBits) + low", 1,
        "(static_cast<uint64_t>(high) << kLowBits) + 0 * low", share_at_an_entry,
        "wrong|no memory|out-of-bounds",
    ),
    "a draw that is not clamped": (
        f"{SAMPLING}/weights.cuh", "target < total ? target : total - 1", 1, "target",
        draw_of_one,
        "wrong|nothing wrote|out-of-bounds",
    ),
    "keys past the end that count as logits": (
        f"{SAMPLING}/weights.cuh", "!inside ? 0 : kLogits", 1, "!inside && false ? 0 : kLogits",
        masked, "wrong",
    ),
    "row_sum without its barrier": (
        f"{INCLUDE}/arch/reduce.cuh", "  __syncthreads();\n  return warp_sum", 1,
        "  return warp_sum", lambda gpu: norm(gpu, 2, 2048), "nothing wrote|race",
    ),
    "row_max without its barrier": (
        f"{INCLUDE}/arch/reduce.cuh", "  __syncthreads();\n  return warp_max", 1,
        "  return warp_max", softmax, "nothing wrote|race",
    ),
    "the sum where others still read the maximum": (
        f"{INCLUDE}/softmax.cuh", "partial[1])", 2, "partial[0])", softmax, "race: write",
    ),
    "largest entries written before the tiles are counted": (
        f"{INCLUDE}/top_k.cuh", "  __syncthreads();  // the tiles' counts are there", 1, "",
        largest, "race|nothing wrote|wrong",
    ),
    "a tie too many": (
        f"{INCLUDE}/top_k.cuh", "equal < ties.first + ties.count", 1,
        "equal <= ties.first + ties.count", largest, "wrong|race|out-of-bounds",
    ),
    "ties from the wrong end": (
        f"{INCLUDE}/top_k.cuh", "p.last ? equal_of", 1, "!p.last ? equal_of", largest, "wrong",
    ),
    "places that forget the warp's earlier vectors": (
        f"{INCLUDE}/top_k.cuh", "before += __shfl_sync(kAllLanes, inclusive, kWarpSize - 1);", 1,
        "", largest, "race|wrong|nothing wrote",
    ),
    "a sort without its barriers": (
        f"{INCLUDE}/top_k.cuh", "      __syncthreads();\n    }\n  }\n}", 1, "    }\n  }\n}",
        largest, "race|nothing wrote",
    ),
    "a sort of numbers that are not there": (
        f"{INCLUDE}/top_k.cuh", "numbers, int size) {\n  __syncthreads();", 1,
        "numbers, int size) {", largest, "race|nothing wrote",
    ),
    "a sort over what lies behind the numbers": (
        f"{INCLUDE}/top_k.cuh", "i < size; i += blockDim.x) numbers[i] = 0;", 1,
        "i < p.k; i += blockDim.x) numbers[i] = 0;", largest, "wrong|out-of-bounds|nothing wrote",
    ),
    "NaN that is less than all else": (
        f"{SAMPLING}/weights.cuh", ": 0xffffffffu;", 1, ": 1u;", largest, "wrong",
    ),
    "zeros past the end that count as logits": (
        f"{INCLUDE}/softmax.cuh", ": Exponential::kMinusInfinity;\n  }", 1, ": 0.0f;\n  }", softmax,
        "wrong",
    ),
    "softmax without a bound": (
        f"{INCLUDE}/softmax.cuh", "if (column >= p.vocab) break;", 2, "", softmax,
        "out-of-bounds|not a part|race",
    ),
    "a running sum against an old maximum": (
        f"{INCLUDE}/softmax.cuh", "sum *= exponential(most, next);", 1, "", long_softmax, "wrong",
    ),
    "a thread's sum against its own maximum": (
        f"{INCLUDE}/softmax.cuh", "seen.sum * exponential(seen.most, most)", 1, "seen.sum",
        long_softmax, "wrong",
    ),
    "one partial array for every row": (
        f"{INCLUDE}/norm.cuh", "row_sum(sum, partial[parity])", 4, "row_sum(sum, partial[0])",
        lambda gpu: norm(gpu, 70, 2048), "race: write .*has read unsynchronised",
    ),
    "row share without a bound": (
        f"{INCLUDE}/norm.cuh", "if (column >= p.hidden) break;", 2, "",
        lambda gpu: norm(gpu, 3, 72), "out-of-bounds|not a part|race",
    ),
    "launcher that does not look at alignment": (
        "cuda/norm.cu", "pointers_aligned(16, {args.input, args.out, args.weight}) &&", 1, "",
        lambda gpu: norm(gpu, 3, 64, offset=1), "misaligned read of 16 bytes",
    ),
    "layer norm with one partial array for both sums": (
        f"{INCLUDE}/layernorm.cuh", "row_sum(sum, partial[1])", 2, "row_sum(sum, partial[0])",
        layernorm, "race: write .*has read unsynchronised",
    ),
    "a variance of the zeros past the end": (
        f"{INCLUDE}/layernorm.cuh", "if (thread_column<N>(k) < p.hidden) sum =", 1, "sum =",
        layernorm, "element",
    ),
    "layer norm without a bound": (
        f"{INCLUDE}/layernorm.cuh", "if (column >= p.hidden) break;", 1, "", layernorm,
        "out-of-bounds|not a part|race",
    ),
    "fp8 that rounds down": (
        f"{INCLUDE}/arch/numeric.cuh", "(magnitude + half) >> shift", 1,
        "(magnitude + 0 * half) >> shift",
        norm_quant, "wrong",
    ),
    "fp8 numbers in the wrong order": (
        f"{INCLUDE}/norm/output.cuh", "narrow_fp8(z[4 * i], z[4 * i + 1], e5m2)", 1,
        "narrow_fp8(z[4 * i + 1], z[4 * i], e5m2)", norm_quant, "wrong",
    ),
    "a launcher that does not look at the alignment of fp8": (
        "cuda/norm_quant.cu", "pointers_aligned(kVecSize<T>, {args.out}) &&", 1, "",
        lambda gpu: norm_quant(gpu, offset=4), "misaligned write of 8 bytes",
    ),
    "activation without a bound": (
        f"{INCLUDE}/activation.cuh", "if (column >= p.d) return;", 1, "", activation,
        "out-of-bounds|race",
    ),
    "rope without the barrier after positions": (
        f"{INCLUDE}/rope.cuh", "    __syncthreads();\n    for (int i = threadIdx.x", 1,
        "    for (int i = threadIdx.x", rope, "nothing wrote|race",
    ),
    "rope without the barrier after the angles": (
        f"{INCLUDE}/rope.cuh", "    __syncthreads();\n    for (int unit", 1, "    for (int unit",
        rope, "nothing wrote|race",
    ),
    "rope with one place for the positions of all tiles": (
        f"{INCLUDE}/rope.cuh", "tile_positions[parity]", 1, "tile_positions[0]", rope_segments,
        "race",
    ),
    "append of padding rows": (
        f"{INCLUDE}/page.cuh", "if (batch < 0 || batch >= p.batch_size) continue;", 1, "", append,
        "out-of-bounds read of 4 bytes at 'kv_indptr' - 4",
    ),
    "append that swaps page and slot strides": (
        f"{INCLUDE}/page.cuh", "page * p.k.page_stride", 1, "(page + 1) * p.k.page_stride", append,
        "out-of-bounds write of 16 bytes at 'cache'",
    ),
    "keys put together past the end": (
        f"{INCLUDE}/concat.cuh", "if (unit >= p.row_units) return;", 1, "", concat,
        "out-of-bounds|not a part|race",
    ),
    "the second of two keys that are put together": (
        f"{INCLUDE}/concat.cuh", "n + step < p.nnz", 1, "n < p.nnz", concat,
        "out-of-bounds|no memory",
    ),
    "a shared part that is read as a head's own": (
        f"{INCLUDE}/concat.cuh", "(place - p.nope_units)", 1, "(place)", concat,
        "out-of-bounds|not a part|wrong",
    ),
    "merge in place without __syncwarp": (
        f"{INCLUDE}/cascade.cuh", "    __syncwarp();", 1, "    ;", merge_in_place, "race",
    ),
    "splits that do not wait for each other": (
        f"{INCLUDE}/cascade.cuh", "      __syncthreads();\n      if (threadIdx.z", 1,
        "      if (threadIdx.z", merge_many, "nothing wrote|race",
    ),
    "splits that do not wait for the merge": (
        f"{INCLUDE}/cascade.cuh", "      __syncthreads();\n    }\n", 1, "    }\n", merge_many,
        "race: write",
    ),
    "packbits past the end": (
        f"{INCLUDE}/quantization.cuh", "if (first + 16 <= p.n)", 1, "if (first < p.n)", packbits,
        "out-of-bounds read of 16 bytes at 'x'",
    ),
    "attention that does not wait for its tile": (
        f"{ATTENTION}/kernel.cuh", "    copy_async_wait<0>();\n    __syncthreads();  // this tile",
        1, "    __syncthreads();  // this tile", decode, "where a cp.async is in flight",
    ),
    "attention without the barrier between tiles": (
        f"{ATTENTION}/kernel.cuh", "    __syncthreads();  // this tile", 1, "    // this tile",
        prefill, "race|nothing wrote|in flight",
    ),
    "attention with one stage": (
        f"{ATTENTION}/kernel.cuh", ", stage ^= 1)", 1, ")", prefill, "race|in flight|off by",
    ),
    "tensor cores before the tile is converted": (
        f"{ATTENTION}/kernel.cuh", "      if (rope || Traits::kFp8) __syncthreads();", 1, "",
        decode_fp8, "race|nothing wrote",
    ),
    "rotation before Q is there": (
        f"{ATTENTION}/kernel.cuh", "        __syncthreads();  // Q and", 1, "        // Q and",
        decode_rope, "race|nothing wrote|in flight",
    ),
    "merge of warps without the barrier after their sums": (
        f"{ATTENTION}/output.cuh", "  __syncthreads();  // the stats", 1, "  // the stats", decode,
        "race|nothing wrote",
    ),
    "merge of warps without the barrier after their outputs": (
        f"{ATTENTION}/output.cuh", "  __syncthreads();\n#pragma unroll 1", 1, "#pragma unroll 1",
        decode, "race|nothing wrote",
    ),
    "output over Q that is still read": (
        f"{ATTENTION}/output.cuh", "  __syncwarp();  // all lanes", 1, "  // all lanes", prefill,
        "race: write",
    ),
    "output read before the warp has written it": (
        f"{ATTENTION}/output.cuh", "  __syncwarp();\n#pragma unroll 4", 1, "#pragma unroll 4",
        prefill, "race",
    ),
    "output of rows that are not there": (
        f"{ATTENTION}/output.cuh", "if (row >= rows.count) break;\n    const char* from", 1,
        "const char* from", prefill, "out-of-bounds|not a part|race",
    ),
    "queries that are not there": (
        f"{ATTENTION}/load.cuh", "const bool valid = row < rows.count;", 1,
        "const bool valid = true;", decode, "out-of-bounds|not a part",
    ),
    "pages past the keys": (
        f"{ATTENTION}/load.cuh", "if (key >= key_end_) return;", 1, "", decode, "'kv_indices' \\+",
    ),
    "keys of the next head": (
        f"{ATTENTION}/load.cuh", "kv_head_ * tensor.head_stride", 1,
        "(kv_head_ + 1) * tensor.head_stride", prefill, "out-of-bounds|not a part",
    ),
    "fragment of K with its matrices exchanged": (
        f"{ATTENTION}/kernel.cuh", "warp_key + lane / 16 * 8 + lane % 8, k_chunk = lane / 8 % 2", 1,
        "warp_key + lane / 8 % 2 * 8 + lane % 8, k_chunk = lane / 16", prefill, "off by",
    ),
    "fragment of V with its matrices exchanged": (
        f"{ATTENTION}/kernel.cuh", "warp_key + lane % 16, v_chunk = lane / 16", 1,
        "warp_key + lane / 16 * 8 + lane % 8, v_chunk = lane / 8 % 2", prefill, "off by",
    ),
    "fragment of V not transposed": (
        f"{ATTENTION}/kernel.cuh", "load_matrices_transposed(", 1, "load_matrices(", prefill,
        "off by",
    ),
    "fragment of P in the wrong order": (
        f"{ATTENTION}/kernel.cuh", "i / 2] + i % 2 * 2", 1, "i % 2] + i / 2 * 2", prefill, "off by",
    ),
    "tiles that are swizzled on one side": (
        f"{ATTENTION}/load.cuh", ": swizzled<kChunks>(row, chunk)", 1,
        ": (row * kChunks + chunk) * 16", prefill, "off by",
    ),
    "no mask at the end of the keys": (
        f"{ATTENTION}/kernel.cuh", " || next_key > low.end", 1, "", decode,
        "off by|rows without keys",
    ),
    "no mask at the beginning of a window": (
        f"{ATTENTION}/kernel.cuh", "first_key < high.begin || ", 1, "", window, "off by",
    ),
    "a softmax that forgets to scale what it has": (
        f"{ATTENTION}/softmax.cuh", "moved) != 0", 1, "moved) == 0", rising_scores, "off by",
    ),
    "a merge without weights": (
        f"{ATTENTION}/merge.cuh", "weight = exp2_fast(lse - row_max)", 1, "weight = 1.0f", split,
        "off by",
    ),
    "a merge that does not wait for its other groups": (
        f"{ATTENTION}/merge.cuh", "    __syncthreads();\n    if (group", 1, "    if (group", split,
        "race|nothing wrote",
    ),
    "a merge of what is only padding": (
        f"{ATTENTION}/merge.cuh",
        "if (static_cast<int>(blockIdx.x) >= load_readonly(p.plan + 1)) return;", 1, "", split,
        "out-of-bounds|no memory|overflow",
    ),
    "items that are only padding": (
        f"{ATTENTION}/kernel.cuh",
        "if (static_cast<int>(blockIdx.x) >= load_readonly(p.plan)) return;", 1, "", split,
        "out-of-bounds|no memory|overflow|race",
    ),
    "latent attention that does not wait for its tile": (
        f"{MLA}/kernel.cuh", "    copy_async_wait<0>();\n", 1, "", latent,
        "where a cp.async is in flight",
    ),
    "latent attention without the barrier between tiles": (
        f"{MLA}/kernel.cuh", "    __syncthreads();  // this tile", 1, "    // this tile", latent,
        "race|nothing wrote|in flight",
    ),
    "latent attention with one stage": (
        f"{MLA}/kernel.cuh", ", stage ^= 1)", 1, ")", latent, "race|in flight|off by",
    ),
    "latent queries that are not waited for": (
        f"{MLA}/kernel.cuh", "    copy_async_wait<1>();\n", 1, "", latent,
        "where a cp.async is in flight",
    ),
    "latent queries turned before they are there": (
        f"{MLA}/kernel.cuh", "    __syncthreads();  // Q is there", 1, "    // Q is there", latent,
        "race|nothing wrote|in flight",
    ),
    "latent queries read before they are turned": (
        f"{MLA}/kernel.cuh", "stage_of(1));\n      __syncthreads();", 1, "stage_of(1));", latent,
        "race",
    ),
    "latent keys read before they are turned": (
        f"{MLA}/kernel.cuh", "      __syncthreads();  // the keys", 1, "      // the keys", latent,
        "race",
    ),
    "scores that other warps have not written": (
        f"{MLA}/kernel.cuh", "    __syncthreads();  // the scores", 1, "    // the scores", latent,
        "race|nothing wrote",
    ),
    "probabilities that other warps have not written": (
        f"{MLA}/kernel.cuh", "    __syncthreads();  // the prob", 1, "    // the prob", latent,
        "race|nothing wrote",
    ),
    "probabilities over scores that are still read": (
        f"{MLA}/softmax.cuh", "    __syncwarp();", 1, "    ;", latent, "race",
    ),
    "last factors over those that are still read": (
        f"{MLA}/kernel.cuh", "  __syncthreads();  // nobody", 1, "  // nobody", latent, "race",
    ),
    "output before the last factors": (
        f"{MLA}/kernel.cuh", "  __syncthreads();  // the last", 1, "  // the last", latent,
        "race|nothing wrote",
    ),
    "latent output of rows that are not whole": (
        f"{MLA}/kernel.cuh", "  __syncthreads();  // rows", 1, "  // rows", latent,
        "race|nothing wrote",
    ),
    "latent output of heads that are not there": (
        f"{MLA}/kernel.cuh", "i < rows.count * Traits", 1, "i < Traits::kRows * Traits", latent,
        "out-of-bounds|not a part|race|nothing wrote",
    ),
    "latent queries that are not there": (
        f"{MLA}/load.cuh", "const bool valid = row < rows.count;", 1, "const bool valid = true;",
        latent, "out-of-bounds|not a part",
    ),
    "latent pages past the keys": (
        f"{MLA}/load.cuh", "if (key >= key_end_) return;", 1, "", latent, "'kv_indices' \\+",
    ),
    "latent keys past the end": (
        f"{MLA}/load.cuh", "row < key_end_;", 2, "row < key_end_ + 1;", latent,
        "not a part|nothing wrote|out-of-bounds",
    ),
    "kpe with the strides of ckv": (
        f"{MLA}/load.cuh", "slot * p_.kpe.row_stride", 1, "slot * p_.ckv.row_stride", latent,
        "out-of-bounds|not a part",
    ),
    "pairs that turn the other way": (
        f"{MLA}/load.cuh", "x[0] * cosine - x[1] * sine, x[1] * cosine + x[0] * sine", 1,
        "x[0] * cosine + x[1] * sine, x[1] * cosine + x[0] * sine", latent, "off by",
    ),
    "keys that do not turn from row to row": (
        f"{MLA}/load.cuh", "cosine = before * rope.step_cos", 1, "cosine = before", latent,
        "off by",
    ),
    "queries turned as if they stood first": (
        f"{MLA}/load.cuh", "= rows.position(rows.token(row));", 1, "= rows.token(row);", latent,
        "off by",
    ),
    "latent keys with their matrices exchanged": (
        f"{MLA}/kernel.cuh", "warp_key + lane / 16 * 8 + lane % 8, half = lane / 8 % 2", 1,
        "warp_key + lane / 8 % 2 * 8 + lane % 8, half = lane / 16", latent, "off by",
    ),
    "latent values that are not transposed": (
        f"{MLA}/kernel.cuh", "load_matrices_transposed(", 1, "load_matrices(", latent, "off by",
    ),
    "warps that have the products of others": (
        f"{MLA}/kernel.cuh", "% Traits::kDimSplits * Traits::kSteps", 1,
        "% (Traits::kDimSplits - 1) * Traits::kSteps", latent, "off by",
    ),
    "scores of three of four warps": (
        f"{MLA}/softmax.cuh", "split < Traits::kDimSplits", 1, "split < Traits::kDimSplits - 1",
        latent, "off by",
    ),
    "no mask at the end of the latent keys": (
        f"{MLA}/softmax.cuh", " || key + i >= keys.end", 1, "", latent, "off by",
    ),
    "a window that begins too late": (
        f"{MLA}/kernel.cuh", "rows.token(0)).begin;", 1, "rows.token(0)).begin + 1;", latent_window,
        "off by",
    ),
    "a latent softmax that forgets to scale what it has": (
        f"{MLA}/kernel.cuh", "if (__ballot_sync(kAllLanes, factor != 1.0f) == 0) continue;", 1,
        "if (factor < 1.0f && factor > 0.5f) continue;", latent_rising, "off by",
    ),
    "latent items that are only padding": (
        f"{MLA}/kernel.cuh",
        "if (static_cast<int>(blockIdx.x) >= load_readonly(p.plan)) return;", 1, "", latent_split,
        "out-of-bounds|no memory|overflow|race",
    ),
    "factors past the end of their lines": (
        f"{GEMM}/load.cuh", "line < lines && column < columns;", 1, "line < lines;", gemm_thin,
        "out-of-bounds|not a part|element",
    ),
    "factors past their last line": (
        f"{GEMM}/load.cuh", "line < lines && column < columns;", 1,
        "line <= lines && column < columns;", gemm_rows,
        "out-of-bounds|not a part",
    ),
    "single elements past the end of their lines": (
        f"{GEMM}/load.cuh", "valid && column + j < columns ?", 1, "valid ?", gemm_unaligned,
        "out-of-bounds|not a part|element",
    ),
    "a launcher of products that does not look at alignment": (
        "cuda/gemm.cu", "pointers_aligned(16, {args.x, args.weights}) &&", 1, "",
        gemm_at_an_offset, "misaligned",
    ),
    "a factor that is swizzled on one side": (
        f"{GEMM}/kernel.cuh", "chunk_place<Traits::kAChunks>(row, 2 * step + lane / 16)", 1,
        "(row * Traits::kAChunks + 2 * step + lane / 16) * 16", gemm_thin, "element",
    ),
    "fragment of columns with its matrices exchanged": (
        f"{GEMM}/kernel.cuh", "lane / 16 * 8 + lane % 8, chunk = 2 * step + lane / 8 % 2", 1,
        "lane / 8 % 2 * 8 + lane % 8, chunk = 2 * step + lane / 16", gemm_thin, "element",
    ),
    "fragment of rows not transposed": (
        f"{GEMM}/kernel.cuh", "load_matrices_transposed(", 1, "load_matrices(", gemm_rows,
        "element",
    ),
    "a pipeline that waits for one tile less": (
        f"{GEMM}/kernel.cuh", "copy_async_wait<Traits::kStages - 2>();", 1,
        "copy_async_wait<Traits::kStages - 1>();", gemm_thin, "where a cp.async is in flight",
    ),
    "a pipeline that does not count empty groups": (
        f"{GEMM}/kernel.cuh", "    copy_async_commit();", 1,
        "    if (tile < tiles) copy_async_commit();", gemm_rows, "where a cp.async is in flight",
    ),
    "a pipeline without its barrier": (
        f"{GEMM}/kernel.cuh", "    __syncthreads();  // the tile is there", 1,
        "    // the tile is there", gemm_rows, "race|nothing wrote|in flight",
    ),
    "a pipeline with a stage too few": (
        f"{GEMM}/kernel.cuh", "stages + tile % Traits::kStages * Traits::kStageBytes", 2,
        "stages + tile % (Traits::kStages - 1) * Traits::kStageBytes", gemm_rows, "race|in flight",
    ),
    "warps that all have the same part of the sum": (
        f"{GEMM}/kernel.cuh", "split * Traits::kSteps, p, sums", 1, "split * 0, p, sums", gemm_thin,
        "element",
    ),
    "partial sums over stages that are still read": (
        f"{GEMM}/kernel.cuh", "  __syncthreads();  // the stages are read", 1, "", gemm_thin,
        "race: write",
    ),
    "partial sums added up before they are there": (
        f"{GEMM}/kernel.cuh", "  });\n  __syncthreads();\n", 1, "  });\n", gemm_thin,
        "race|nothing wrote",
    ),
    "partial sums without the first warp's": (
        f"{GEMM}/kernel.cuh", "int warp = 0; warp < Traits::kSplits", 1,
        "int warp = 1; warp < Traits::kSplits", gemm_thin, "element",
    ),
    "a segment's tile found one too early": (
        f"{GEMM}/problem.cuh", "before + sum > tile", 1, "before + sum >= tile", gemm_thin,
        "out-of-bounds|not a part|race|NaN|element",
    ),
    "a search that forgets the first warp of segments": (
        f"{GEMM}/problem.cuh", "before += __shfl_sync(kAllLanes, sum, kWarpSize - 1);", 1, "",
        gemm_many_segments, "out-of-bounds|not a part|race|NaN|element",
    ),
    "a search that counts the tiles of its own segment": (
        f"{GEMM}/problem.cuh", "__shfl_sync(kAllLanes, sum - tiles, owner)", 1,
        "__shfl_sync(kAllLanes, sum, owner)", gemm_rows, "out-of-bounds|no memory",
    ),
    "rows after the last segment that get a product": (
        f"{GEMM}/problem.cuh", "weighted ? p.depth : 0}", 1, "p.depth}", gemm_thin, "element",
    ),
    "results past the last row of a segment": (
        f"{GEMM}/output.cuh", "row >= rows_ || col >= p_.cols", 1, "col >= p_.cols", gemm_thin,
        "out-of-bounds|not a part|race",
    ),
    "a pair of results where one is left": (
        f"{GEMM}/output.cuh", "if (pairs && count >= 2)", 1, "if (pairs)", gemm_thin,
        "out-of-bounds|not a part",
    ),
    "fp8 factors of one type": (
        f"{GEMM}/kernel.cuh", "step, byte, p.b_e5m2)", 2, "step, byte, p.a_e5m2)", gemm_fp8,
        "element",
    ),
    "fp8 fragments in different orders": (
        f"{GEMM}/kernel.cuh", "b[n][0] = left.x;\n        b[n][1] = left.y;", 1,
        "b[n][0] = left.y;\n        b[n][1] = left.x;", gemm_fp8, "element",
    ),
    "the first scale for every matrix": (
        f"{GEMM}/output.cuh", "p.a_scale + block.batch * p.a_scale_stride", 1, "p.a_scale",
        gemm_fp8, "element",
    ),
}  # fmt: skip


def _defines(source: Path, operations: set[str]) -> bool:
    """Whether the launcher of one of these operations is in this file."""
    return bool(re.search(rf"^fi_status ({'|'.join(operations)})\(", source.read_text(), re.M))


def _mutated(what: str, called: set[str], cache: Path, folder: Path) -> Emulator:
    """The library with one bug; only the kernels that the call launches are compiled with it."""
    file, old, occurrences, new, _, _ = CASES[what]
    csrc = folder / "csrc"
    shutil.copytree(CSRC, csrc)
    text = (csrc / file).read_text()
    assert text.count(old) == occurrences, f"{file} has changed: adapt the case"
    (csrc / file).write_text(text.replace(old, new))
    # Some families have many kernels: those that the case is not about are compiled no more.
    if file.startswith(ATTENTION):
        kernels = [HERE / "planted" / "attention_small.cu", csrc / "cuda" / "attention.cu"]
        replaced = {"attention", "attention_rows16_f16", "attention_lean_f16"}
    elif file.startswith((GEMM, "cuda/gemm")):
        kernels = [HERE / "planted" / "gemm_small.cu", csrc / "cuda" / "gemm.cu"]
        replaced = {"gemm", "gemm_f16", "gemm_fp8"}
    else:
        replaced = {path.stem for path in kernel_sources() if _defines(path, called)}
        kernels = [csrc / "cuda" / f"{name}.cu" for name in sorted(replaced)]
    originals = [path for path in kernel_sources() if path.stem not in replaced]
    library = build(
        cache, "mutated", kernels, csrc=csrc, originals=originals, kernel_flags=QUICK_FLAGS
    )
    return Emulator(library)


@pytest.mark.parametrize("what", CASES)
def test_a_bug_in_a_kernel_is_found(
    what: str, gpu: Emulator, object_cache: Path, tmp_path: Path
) -> None:
    *_, call, words = CASES[what]
    call(gpu)  # the original
    mutated = _mutated(what, gpu.called, object_cache, tmp_path)
    gpu.library.fi_emulator_set_multiprocessors(4)
    try:
        with pytest.raises((Fault, AssertionError), match=words):
            call(mutated)
    finally:
        mutated.release()  # a library a case: their stacks are too many for one process
