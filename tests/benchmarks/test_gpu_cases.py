"""Bytes, FLOPs and targets of the GPU benchmarks, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.gpu import attention, elementwise, gemm, mla, run, sampling
from benchmarks.gpu.cases import CASES, Target, attention_pairs, case

HEADS = {"heads": 4, "kv_heads": 2, "dim": 64}


@pytest.mark.parametrize(("qo", "kv"), [(1, 1), (1, 9), (4, 4), (3, 10), (7, 8)])
def test_pairs_are_those_of_the_mask(qo: int, kv: int) -> None:
    seen = sum(j <= i + kv - qo for i in range(qo) for j in range(kv))
    assert attention_pairs(qo, kv, True) == seen
    assert attention_pairs(qo, kv, False) == qo * kv


def test_decode_counts() -> None:
    plain = case("", "single_decode", batch=1, qo=1, kv=1000, page=0, causal=0, **HEADS)
    # q and out: 2 x 4 x 64 x 2 bytes; K and V: 2 x 1000 x 2 x 64 x 2 bytes.
    assert plain.bytes == 1024 + 512000
    # 1000 keys x 4 heads x (64 multiply-adds for q k, 64 for p v).
    assert plain.flops == 1000 * 4 * 128 * 2
    paged = case("", "batch_decode", batch=3, qo=1, kv=1000, page=16, causal=0, **HEADS)
    # 63 pages of 16, an int32 each.
    assert paged.bytes == 3 * (1024 + 512000 + 63 * 4)
    assert paged.flops == 3 * plain.flops


def test_prefill_counts() -> None:
    causal = case("", "single_prefill", batch=1, qo=100, kv=100, page=0, causal=1, **HEADS)
    full = case("", "single_prefill", batch=1, qo=100, kv=100, page=0, causal=0, **HEADS)
    assert causal.bytes == full.bytes == 2 * 100 * 512 + 2 * 100 * 256
    assert full.flops == 100 * 100 * 4 * 256
    assert causal.flops == 5050 * 4 * 256


def test_mla_counts() -> None:
    mla_case = case("", "mla_decode", batch=3, kv=100, heads=16, page=64)
    # q_nope and out of 512, q_pe of 64; rows of 576; two pages of 64, an int32 each.
    assert mla_case.bytes == 3 * (16 * 1088 * 2 + 100 * 576 * 2 + 8)
    # 576 multiply-adds for a score, 512 for its part of the output.
    assert mla_case.flops == 3 * 16 * 100 * 1088 * 2


@pytest.mark.parametrize(
    ("op", "shape", "expected"),
    [
        ("rmsnorm", {"rows": 10, "hidden": 8}, 10 * 8 * 2 * 2 + 16),
        ("fused_add_rmsnorm", {"rows": 10, "hidden": 8}, 4 * 160 + 16),
        ("silu_and_mul", {"rows": 10, "d": 8}, 320 + 160),
        ("apply_rope_pos_ids_inplace", {"nnz": 5, **HEADS}, 2 * 5 * 6 * 64 * 2 + 20),
        (
            "append_paged_kv_cache",
            {"nnz": 17, "kv_heads": 2, "dim": 64, "page": 16},
            4 * 17 * 2 * 64 * 2 + 17 * 8 + 2 * 4,
        ),
        ("merge_state", {"rows": 5, "heads": 2, "dim": 64}, 3 * (5 * 2 * 64 * 2 + 5 * 2 * 4)),
        (
            "merge_states",
            {"rows": 5, "states": 7, "heads": 2, "dim": 64},
            8 * (5 * 2 * 64 * 2 + 5 * 2 * 4),
        ),
        ("top_p_sampling_from_probs", {"rows": 3, "vocab": 50}, 3 * (50 * 4 + 4 + 4)),
        ("top_k_renorm_probs", {"rows": 3, "vocab": 50}, 2 * 3 * 50 * 4),
    ],
)
def test_elementwise_counts(op: str, shape: dict[str, int], expected: int) -> None:
    assert (case("", op, **shape).bytes, case("", op, **shape).flops) == (expected, 0)


def test_gemm_counts() -> None:
    segments = case(
        "", "segment_gemm", segments=3, rows=10, d_in=8, d_out=16, column_major=1
    )  # fmt: skip
    # x and out: 30 rows of 24 elements; three matrices of 128; four int64 indices.
    assert segments.bytes == (30 * 24 + 3 * 128) * 2 + 4 * 8
    assert segments.flops == 30 * 128 * 2
    batch = case("", "bmm_fp8", batch=3, m=10, n=16, k=8)
    # A byte an element of the factors, two of the result, two scales.
    assert batch.bytes == 3 * (80 + 128) + 3 * 160 * 2 + 8
    assert batch.flops == 3 * 10 * 16 * 8 * 2


def test_every_operation_has_a_side_to_compare_with() -> None:
    ops = {item.op for item in CASES}
    assert ops == {*attention.OPS, *mla.OPS, *elementwise.OPS, *sampling.OPS, *gemm.OPS}
    assert run.ATTENTION_OPS == attention.OPS
    assert run.ATTENTION_SIDES == attention.SIDES
    assert run.MLA_OPS == mla.OPS
    assert run.MLA_SIDES == mla.SIDES
    assert run.ELEMENTWISE_SIDES == elementwise.SIDES == sampling.SIDES
    assert run.GEMM_SIDES == gemm.SIDES
    assert {side for op in ops for side in run.torch_sides(op)} <= {*run.OTHER_SIDES}
    assert len({(item.op, item.text) for item in CASES}) == len(CASES)
    groups = {item.group for item in CASES if item.target}
    assert groups == {
        "decode, long", "decode, small", "decode, paged", "prefill", "append", "mla",
        "norm", "activation", "rope", "page", "merge", "sampling",
        "segment gemm, thin", "segment gemm, experts", "segment gemm, large", "bmm fp8, thin",
        "bmm fp8, large",
    }  # fmt: skip


def test_targets() -> None:
    assert Target("us", 10).met(10) and not Target("us", 10).met(10.1)
    assert Target("copy", 0.92).met(0.92) and not Target("copy", 0.92).met(0.919)
    assert str(Target("copy", 0.85)) == ">= 85% of copy"
    assert str(Target("tflops", 430)) == ">= 430 TFLOP/s"
    assert str(Target("us", 10)) == "<= 10 us"
