"""The operations that are timed: right results pass, wrong ones are found, on the CPU."""

from __future__ import annotations

import types
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import toy_flashinfer

from benchmarks.gpu.attention import AttentionWorkload
from benchmarks.gpu.cases import CASES, case
from benchmarks.gpu.elementwise import ElementwiseWorkload
from benchmarks.gpu.gemm import GemmWorkload
from benchmarks.gpu.worker import Contestant
from benchmarks.gpu.workload import ERROR_LIMIT, error_of

CPU = torch.device("cpu")
HEADS = {"heads": 4, "kv_heads": 2, "dim": 64}
ATTENTION = {
    "single_decode": {"batch": 1, "qo": 1, "kv": 70, "page": 0, "causal": 0},
    "batch_decode": {"batch": 3, "qo": 1, "kv": 33, "page": 16, "causal": 0},
    "single_prefill": {"batch": 1, "qo": 40, "kv": 40, "page": 0, "causal": 1},
    "batch_prefill": {"batch": 2, "qo": 7, "kv": 32, "page": 16, "causal": 1},
}
MLA = {"mla_decode": {"batch": 3, "kv": 33, "heads": 4, "page": 16}}
SMALL = {"rows": 9, "nnz": 19, "hidden": 128, "d": 96, "vocab": 1000}
GEMM = {
    "segment_gemm": {"segments": 5, "rows": 6, "d_in": 64, "d_out": 32, "column_major": 1},
    "bmm_fp8": {"batch": 3, "m": 16, "n": 32, "k": 64},
}


def shape_of(op: str) -> dict[str, int]:
    if op in ATTENTION:
        return {**ATTENTION[op], **HEADS}
    if op in MLA:
        return MLA[op]
    if op in GEMM:
        return GEMM[op]
    shape = next(dict(item.shape) for item in CASES if item.op == op)
    return {name: min(value, SMALL.get(name, value)) for name, value in shape.items()}


def prepare(contestant: Contestant, op: str, side: str) -> dict[str, Any]:
    shape = shape_of(op)
    answer = contestant.answer(
        {"do": "prepare", "op": op, "shape": shape, "sides": [side],
         "bytes": case("", op, **shape).bytes}
    )  # fmt: skip
    assert answer["sets"] == 2
    found: dict[str, Any] = answer["sides"][side]
    return found


OPS = sorted({item.op for item in CASES})


@pytest.mark.parametrize("op", OPS)
def test_a_right_flashinfer_is_timed(op: str) -> None:
    contestant = Contestant("cpu", "toy_flashinfer", rotated=0)
    found = prepare(contestant, op, "flashinfer")
    assert found.get("reason") is None
    assert 0 <= found["error"] < ERROR_LIMIT / 2
    assert found["how"] == "host"
    assert contestant.answer({"do": "sample", "side": "flashinfer"})["seconds"] > 0


@pytest.mark.parametrize("op", OPS)
def test_torch_gives_the_same(op: str) -> None:
    side = "sdpa-flash" if op in ATTENTION else "sdpa" if op in MLA else "torch"
    found = prepare(Contestant("cpu", rotated=0), op, side)
    assert found.get("reason") is None
    assert found["error"] < ERROR_LIMIT


decode, prefill, rope = (
    toy_flashinfer.single_decode_with_kv_cache,
    toy_flashinfer.single_prefill_with_kv_cache,
    toy_flashinfer.apply_rope_pos_ids_inplace,
)
WRONG: dict[str, Callable[..., Any]] = {
    # Each forgets one thing that the operation does.
    "single_decode": lambda q, k, v: decode(q, k[:-9], v[:-9]),
    "single_prefill": lambda q, k, v, causal: prefill(q, k, v),
    "rmsnorm": lambda x, weight, eps, out: out,
    "fused_add_rmsnorm": lambda x, residual, weight, eps: None,
    "silu_and_mul": lambda x, out: out.copy_(x[:, : out.shape[1]] * x[:, out.shape[1] :]),
    "apply_rope_pos_ids_inplace": lambda q, k, pos_ids: rope(q, k.clone(), pos_ids),
    "append_paged_kv_cache": lambda *args, **kwargs: None,
    "merge_state": lambda v_a, s_a, v_b, s_b: (v_a, s_a),
    "merge_states": lambda v, s: (v[:, 0], s[:, 0]),
    # Entries that are 0, or beyond the filter, or a token that is none.
    "sampling_from_probs": lambda p, uniform_samples: p.argmin(-1),
    "top_p_sampling_from_probs": lambda p, uniform_samples, top_p: toy_flashinfer._sample(
        p.double(), 0.99 + uniform_samples * 0
    ),
    "top_k_sampling_from_probs": lambda p, uniform_samples, top_k: (
        p.topk(51).indices[:, -1],
        None,
    ),
    "top_k_top_p_sampling_from_probs": lambda p, uniform_samples, top_k, top_p: (
        uniform_samples.long() + p.shape[1],
        None,
    ),
    "top_p_renorm_probs": lambda p, top_p: p,
    "top_k_renorm_probs": lambda p, top_k: toy_flashinfer._kept(p, top_k + 5, None),
    "segment_gemm": lambda self, x, weights, *args, **kwargs: x @ weights[0].mT,
    "bmm_fp8": lambda a, b, a_scale, b_scale, dtype, out: out.copy_(a.float() @ b.float()),
}
NAMES = {
    "segment_gemm": "SegmentGEMMWrapper.run",
    "single_decode": "single_decode_with_kv_cache",
    "single_prefill": "single_prefill_with_kv_cache",
}


@pytest.mark.parametrize("op", sorted(WRONG))
def test_a_wrong_result_is_found(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"toy_flashinfer.{NAMES.get(op, op)}", WRONG[op])
    found = prepare(Contestant("cpu", "toy_flashinfer", rotated=0), op, "flashinfer")
    assert found["wrong"] is True
    assert found["reason"].startswith("wrong result: error ")


@pytest.mark.parametrize("op", ["batch_decode", "batch_prefill"])
def test_a_page_table_that_is_not_followed_is_found(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = toy_flashinfer._Paged.run

    def in_order(self: Any, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        qo, indptr, pages, last = self._tables
        self._tables = (qo, indptr, pages.sort().values, last)
        return run(self, q, kv)

    monkeypatch.setattr(toy_flashinfer._Paged, "run", in_order)
    found = prepare(Contestant("cpu", "toy_flashinfer", rotated=0), op, "flashinfer")
    assert found["wrong"] is True


def test_latent_pages_that_are_not_followed_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = toy_flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper
    plan = wrapper.plan

    def in_order(self: Any, indptr: Any, indices: torch.Tensor, *rest: Any, **more: Any) -> None:
        plan(self, indptr, indices.sort().values, *rest, **more)

    monkeypatch.setattr(wrapper, "plan", in_order)
    found = prepare(Contestant("cpu", "toy_flashinfer", rotated=0), "mla_decode", "flashinfer")
    assert found["wrong"] is True


def test_published_wheels_have_another_class_for_latent_attention() -> None:
    contestant = Contestant("cpu", "toy_flashinfer", rotated=0)
    assert prepare(contestant, "mla_decode", "published").get("reason") is None


def test_a_side_without_the_function_says_so() -> None:
    empty = types.ModuleType("empty")
    contestant = Contestant("cpu", rotated=0)
    contestant._library = empty
    found = prepare(contestant, "single_decode", "published")
    assert found["reason"].startswith("AttributeError: ")
    assert "single_decode_with_kv_cache" in found["reason"]


@pytest.mark.parametrize("op", ["top_p_sampling_from_probs", "top_k_top_p_sampling_from_probs"])
def test_a_flashinfer_that_draws_by_itself_is_timed(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = getattr(toy_flashinfer, op)

    def later(probs: torch.Tensor, *filters: float, deterministic: bool = True) -> torch.Tensor:
        samples: torch.Tensor = toy(probs, torch.rand(probs.shape[0]), *filters)[0]
        return samples

    monkeypatch.setattr(toy_flashinfer, op, later)
    found = prepare(Contestant("cpu", "toy_flashinfer", rotated=0), op, "published")
    assert found.get("reason") is None
    assert found["error"] == 0


def test_tensor_cores_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def decode(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any) -> torch.Tensor:
        asked.append(options)
        return toy_flashinfer._attend(q[None], k, v, False)[0]

    monkeypatch.setattr(toy_flashinfer, "single_decode_with_kv_cache", decode)
    for side in ("published", "published-tc"):
        asked.clear()
        prepare(Contestant("cpu", "toy_flashinfer", rotated=0), "single_decode", side)
        assert asked[0] == ({"use_tensor_cores": True} if side == "published-tc" else {})


def test_expected_attention_is_that_of_every_sampled_head() -> None:
    workload = AttentionWorkload(
        "batch_prefill", CPU, torch.Generator().manual_seed(3), **shape_of("batch_prefill")
    )
    buffers = workload.make()
    pages, shape = workload._pages.long(), shape_of("batch_prefill")
    per = pages.shape[0] // shape["batch"]
    whole = []
    for b in range(shape["batch"]):
        kv = buffers["kv"][pages[b * per : (b + 1) * per]].double()
        k, v = (kv[:, i].reshape(-1, 2, 64)[:32].repeat_interleave(2, 1) for i in (0, 1))
        scores = torch.einsum("nhd,mhd->hnm", buffers["q"][b * 7 : b * 7 + 7].double(), k) / 8
        hidden = torch.ones(7, 32).triu(32 - 7 + 1).bool()
        probabilities = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        whole.append(torch.einsum("hnm,mhd->nhd", probabilities, v))
    (picked,) = workload.picked([torch.cat(whole)])
    torch.testing.assert_close(workload.expected(buffers)[0], picked, rtol=1e-9, atol=1e-9)


def test_errors_are_relative_to_the_values() -> None:
    right = torch.tensor([1.0, -1.0, 1.0, -1.0])
    # |difference| / (rms + |value|) = 0.2 / (1 + 1).
    assert error_of([right + torch.tensor([0, 0, 0.2, 0])], [right]) == pytest.approx(0.1)
    assert error_of([right * torch.nan], [right]) == float("inf")
    with pytest.raises(ValueError, match="1 outputs, expected 2"):
        error_of([right], [right, right])
    with pytest.raises(ValueError, match=r"shape \[2\], expected \[4\]"):
        error_of([right[:2]], [right])


def test_what_another_side_wrote_does_not_pass() -> None:
    workload = ElementwiseWorkload(
        "append_paged_kv_cache", CPU, torch.Generator().manual_seed(3),
        **shape_of("append_paged_kv_cache"),
    )  # fmt: skip
    buffers = workload.make()
    workload.expected(buffers)
    workload.call("torch", None)(buffers)
    expected = workload.expected(buffers)
    assert error_of(workload.picked([buffers["cache"]]), expected) == float("inf")


@pytest.mark.parametrize(
    ("op", "side", "change"),
    [
        ("segment_gemm", "grouped-mm", {"column_major": 0}),
        ("segment_gemm", "grouped-mm", {"column_major": 1}),
        ("bmm_fp8", "scaled-mm", {}),
    ],
)
def test_products_of_torch_that_not_every_version_has(
    op: str, side: str, change: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GEMM, op, {**GEMM[op], **change})
    # Stand-ins, as not every torch has these functions for the CPU.
    function, stand_in = {
        "grouped-mm": ("_grouped_mm", grouped_mm),
        "scaled-mm": ("_scaled_mm", scaled_mm),
    }[side]
    monkeypatch.setattr(torch, function, stand_in, raising=False)
    found = prepare(Contestant("cpu", rotated=0), op, side)
    assert found.get("reason") is None
    assert found["error"] < ERROR_LIMIT
    monkeypatch.delattr(torch, function)
    found = prepare(Contestant("cpu", rotated=0), op, side)
    assert found["reason"] == f"ValueError: torch {torch.__version__} has no {function}"


def grouped_mm(a: torch.Tensor, b: torch.Tensor, *, offs: torch.Tensor) -> torch.Tensor:
    assert offs.dtype == torch.int32
    starts = [0, *offs.tolist()]
    assert starts[-1] == a.shape[0]
    return torch.cat([a[low:high] @ b[s] for s, (low, high) in enumerate(pairwise(starts))])


def scaled_mm(
    a: torch.Tensor, b: torch.Tensor, scale_a: torch.Tensor, scale_b: torch.Tensor, *,
    out_dtype: torch.dtype, out: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    assert b.stride(0) == 1 and scale_a.shape == scale_b.shape == ()
    assert out.dtype == out_dtype
    return out.copy_((a.float() @ b.float()) * scale_a * scale_b)


def test_segments_are_unequal_and_have_the_rows_that_are_counted() -> None:
    for segments, rows, expected in ((4, 6, [9, 3, 9, 3]), (3, 5, [7, 3, 5]), (3, 1, [1, 1, 1])):
        shape = {**GEMM["segment_gemm"], "segments": segments, "rows": rows}
        buffers = GemmWorkload("segment_gemm", CPU, torch.Generator(), **shape).make()
        assert buffers["indptr"].diff().tolist() == expected
        assert buffers["x"].shape[0] == segments * rows


def test_attention_without_pages_has_one_request() -> None:
    shape = {**shape_of("single_decode"), "batch": 2}
    with pytest.raises(ValueError, match="batch is 2 without pages, expected 1"):
        AttentionWorkload("single_decode", CPU, torch.Generator(), **shape)
