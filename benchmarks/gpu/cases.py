"""What is measured, as data: shapes, the bytes and FLOPs each must take, and what is aimed at.

Bytes are what an operation must read and write once; FLOPs are those of the two products of
attention, at two a multiply-add, over the (query, key) pairs that the mask leaves, and those of
products of matrices. Counts are for 16-bit elements, fp32 log-sum-exps and probabilities, and int32
indices; segments have int64 indices, and fp8 factors a byte an element. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["CASES", "Case", "Target", "attention_pairs", "case"]

ELEMENT = 2
FLOAT = 4
INDEX = 4

Shape = Mapping[str, int]
Kind = Literal["copy", "limit", "tflops", "us"]


@dataclass(frozen=True)
class Target:
    """What is aimed at on an H100 or H200.

    Attributes:
        kind: ``copy``, a fraction of the copy bandwidth measured in the same run; ``limit``, a
            fraction of the slower of memory and tensor cores; ``tflops`` and ``us`` as they say.
        value: at least this much; at most, for ``us``.
    """

    kind: Kind
    value: float

    def met(self, reached: float) -> bool:
        """Whether `reached`, in the unit of the kind, is good enough."""
        return reached <= self.value if self.kind == "us" else reached >= self.value

    def __str__(self) -> str:
        if self.kind == "us":
            return f"<= {self.value:g} us"
        if self.kind == "tflops":
            return f">= {self.value:g} TFLOP/s"
        return f">= {self.value:.0%} of {self.kind}"


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        group: the class of operation that shares a limit.
        op: the function that is called.
        shape: its sizes, by name.
        bytes, flops: what it must move and compute.
        target: None where the case is for information.
    """

    group: str
    op: str
    shape: Shape
    bytes: int
    flops: int
    target: Target | None = None

    @property
    def text(self) -> str:
        """The sizes, for people."""
        return " ".join(f"{name}={value}" for name, value in self.shape.items())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "group": self.group,
            "op": self.op,
            "shape": dict(self.shape),
            "bytes": self.bytes,
            "flops": self.flops,
            "target": asdict(self.target) if self.target else None,
        }


def attention_pairs(qo_len: int, kv_len: int, causal: bool) -> int:
    """(query, key) pairs of a request; causal is aligned to the bottom right."""
    # Query i sees kv_len - qo_len + i + 1 keys; i of the last query is qo_len - 1.
    return qo_len * kv_len - (qo_len * (qo_len - 1) // 2 if causal else 0)


def _attention(
    *, batch: int, qo: int, kv: int, heads: int, kv_heads: int, dim: int, page: int, causal: int
) -> tuple[int, int]:
    queries = batch * qo * heads * dim * ELEMENT
    cache = 2 * batch * kv * kv_heads * dim * ELEMENT
    pages = batch * -(-kv // page) * INDEX if page else 0
    pairs = batch * heads * attention_pairs(qo, kv, bool(causal))
    return 2 * queries + cache + pages, 4 * dim * pairs


def _mla(*, batch: int, kv: int, heads: int, page: int) -> tuple[int, int]:
    ckv, kpe = 512, 64
    queries = batch * heads * (2 * ckv + kpe) * ELEMENT
    cache = batch * kv * (ckv + kpe) * ELEMENT
    pages = batch * -(-kv // page) * INDEX
    return queries + cache + pages, 2 * batch * heads * kv * (2 * ckv + kpe)


def _rmsnorm(*, rows: int, hidden: int) -> tuple[int, int]:
    return (2 * rows + 1) * hidden * ELEMENT, 0


def _fused_add_rmsnorm(*, rows: int, hidden: int) -> tuple[int, int]:
    return (4 * rows + 1) * hidden * ELEMENT, 0


def _silu_and_mul(*, rows: int, d: int) -> tuple[int, int]:
    return 3 * rows * d * ELEMENT, 0


def _rope(*, nnz: int, heads: int, kv_heads: int, dim: int) -> tuple[int, int]:
    return 2 * nnz * (heads + kv_heads) * dim * ELEMENT + nnz * INDEX, 0


def _append(*, nnz: int, kv_heads: int, dim: int, page: int) -> tuple[int, int]:
    pages = -(-nnz // page)
    return 4 * nnz * kv_heads * dim * ELEMENT + (2 * nnz + pages) * INDEX, 0


def _merge_state(*, rows: int, heads: int, dim: int) -> tuple[int, int]:
    return 3 * rows * heads * (dim * ELEMENT + FLOAT), 0


def _merge_states(*, rows: int, states: int, heads: int, dim: int) -> tuple[int, int]:
    return (states + 1) * rows * heads * (dim * ELEMENT + FLOAT), 0


def _sample(*, rows: int, vocab: int) -> tuple[int, int]:
    return rows * (vocab * FLOAT + FLOAT + INDEX), 0


def _renorm(*, rows: int, vocab: int) -> tuple[int, int]:
    return 2 * rows * vocab * FLOAT, 0


def _segment_gemm(
    *, segments: int, rows: int, d_in: int, d_out: int, column_major: int
) -> tuple[int, int]:
    total = segments * rows  # `rows` is the average of a segment
    elements = total * (d_in + d_out) + segments * d_in * d_out
    return elements * ELEMENT + (segments + 1) * 2 * INDEX, 2 * total * d_in * d_out


def _bmm_fp8(*, batch: int, m: int, n: int, k: int) -> tuple[int, int]:
    return batch * ((m + n) * k + m * n * ELEMENT) + 2 * FLOAT, 2 * batch * m * n * k


_COUNTS: dict[str, Callable[..., tuple[int, int]]] = {
    "single_decode": _attention,
    "batch_decode": _attention,
    "single_prefill": _attention,
    "batch_prefill": _attention,
    "mla_decode": _mla,
    "rmsnorm": _rmsnorm,
    "fused_add_rmsnorm": _fused_add_rmsnorm,
    "silu_and_mul": _silu_and_mul,
    "apply_rope_pos_ids_inplace": _rope,
    "append_paged_kv_cache": _append,
    "merge_state": _merge_state,
    "merge_states": _merge_states,
    "sampling_from_probs": _sample,
    "top_p_sampling_from_probs": _sample,
    "top_k_sampling_from_probs": _sample,
    "top_k_top_p_sampling_from_probs": _sample,
    "top_p_renorm_probs": _renorm,
    "top_k_renorm_probs": _renorm,
    "segment_gemm": _segment_gemm,
    "bmm_fp8": _bmm_fp8,
}


def case(group: str, op: str, target: Target | None = None, **shape: int) -> Case:
    """A case with its counts."""
    count, flops = _COUNTS[op](**shape)
    return Case(group, op, shape, count, flops, target)


GQA = {"heads": 32, "kv_heads": 8, "dim": 128}
MHA = {"heads": 32, "kv_heads": 32, "dim": 128}


def _decode() -> list[Case]:
    # Long contexts are read once, at the speed of memory; short ones are launches and a merge.
    long, small = Target("copy", 0.92), Target("us", 10)
    plain = {"batch": 1, "qo": 1, "page": 0, "causal": 0}
    paged = {"qo": 1, "page": 16, "causal": 0}
    return [
        *(
            case("decode, long", "single_decode", long, **plain, kv=kv, **heads)
            for kv in (32768, 131072)
            for heads in (MHA, GQA)
        ),
        case("decode, small", "single_decode", small, **plain, kv=1024, **GQA),
        *(
            case("decode, small", "batch_decode", small, batch=batch, kv=kv, **paged, **GQA)
            for batch, kv in ((1, 1024), (1, 4096), (4, 1024))
        ),
        case(
            "decode, paged", "batch_decode", Target("copy", 0.85), batch=64, kv=1024, **paged, **GQA
        ),
        case("decode, paged", "batch_decode", long, batch=64, kv=8192, **paged, **GQA),
        case("decode, paged", "batch_decode", long, batch=16, kv=8192, **paged, **MHA),
        case(
            "decode, paged", "batch_decode", None, batch=64, kv=8192, **{**paged, "page": 1}, **GQA
        ),
    ]


def _prefill() -> list[Case]:
    # 430 is for the mma.sync form; one for wgmma would be aimed at 650 and more.
    target = Target("tflops", 430)
    return [
        *(
            case(
                "prefill", "single_prefill", target,
                batch=1, qo=n, kv=n, page=0, causal=1, **heads,
            )
            for n, heads in ((4096, GQA), (8192, GQA), (16384, GQA), (8192, MHA))
        ),
        case(
            "prefill", "batch_prefill", target,
            batch=8, qo=2048, kv=2048, page=16, causal=1, **GQA,
        ),
    ]  # fmt: skip


def _append_attention() -> list[Case]:
    target = Target("limit", 0.9)
    shapes = [(8, qo, 8192) for qo in (16, 32, 64, 128)] + [(1, 16, 32768)]
    return [
        case(
            "append", "batch_prefill", target,
            batch=batch, qo=qo, kv=kv, page=16, causal=1, **GQA,
        )
        for batch, qo, kv in shapes
    ]  # fmt: skip


def _mla_decode() -> list[Case]:
    # 16 heads are limited by memory; 128 are about even between it and the tensor cores.
    small, large = Target("us", 15), Target("copy", 0.85)
    return [
        case("mla", "mla_decode", small, batch=1, kv=1024, heads=16, page=64),
        case("mla", "mla_decode", None, batch=1, kv=8192, heads=16, page=64),
        case("mla", "mla_decode", large, batch=64, kv=1024, heads=16, page=64),
        case("mla", "mla_decode", large, batch=64, kv=8192, heads=16, page=64),
        case("mla", "mla_decode", None, batch=64, kv=8192, heads=16, page=1),
        case("mla", "mla_decode", None, batch=1, kv=1024, heads=128, page=64),
        case("mla", "mla_decode", None, batch=1, kv=8192, heads=128, page=64),
        case("mla", "mla_decode", None, batch=16, kv=1024, heads=128, page=64),
        case("mla", "mla_decode", None, batch=64, kv=8192, heads=128, page=64),
    ]


def _elementwise() -> list[Case]:
    rows = Target("copy", 0.92)
    paged, merge = Target("copy", 0.85), Target("copy", 0.88)
    return [
        case("norm", "rmsnorm", None, rows=16, hidden=4096),
        case("norm", "rmsnorm", rows, rows=16384, hidden=4096),
        case("norm", "rmsnorm", rows, rows=1 << 19, hidden=128),
        case("norm", "fused_add_rmsnorm", None, rows=16, hidden=4096),
        case("norm", "fused_add_rmsnorm", rows, rows=16384, hidden=4096),
        case("activation", "silu_and_mul", None, rows=16, d=14336),
        case("activation", "silu_and_mul", rows, rows=8192, d=14336),
        case("rope", "apply_rope_pos_ids_inplace", None, nnz=16, **GQA),
        case("rope", "apply_rope_pos_ids_inplace", rows, nnz=16384, **GQA),
        case("page", "append_paged_kv_cache", None, nnz=64, kv_heads=8, dim=128, page=16),
        case("page", "append_paged_kv_cache", paged, nnz=65536, kv_heads=8, dim=128, page=16),
        case("merge", "merge_state", None, rows=64, heads=32, dim=128),
        case("merge", "merge_state", merge, rows=8192, heads=32, dim=128),
        case("merge", "merge_states", merge, rows=2048, states=8, heads=32, dim=128),
    ]


def _sampling() -> list[Case]:
    # A row is read once from memory, and by the filters again from L2.
    big = {"rows": 128, "vocab": 128256}
    plain, filtered = Target("copy", 0.8), Target("us", 60)
    filters = [
        *("top_p_sampling_from_probs", "top_k_sampling_from_probs"),
        "top_k_top_p_sampling_from_probs",
    ]
    return [
        case("sampling", "sampling_from_probs", None, rows=1, vocab=128256),
        case("sampling", "sampling_from_probs", plain, **big),
        case("sampling", "top_k_top_p_sampling_from_probs", None, rows=1, vocab=128256),
        *(case("sampling", op, filtered, **big) for op in filters),
        case("sampling", "top_p_renorm_probs", None, **big),
        case("sampling", "top_k_renorm_probs", None, **big),
    ]


def _gemm() -> list[Case]:
    # Thin rows wait for the matrices; the others for the tensor cores. fp8 is multiplied as fp16,
    # so its ceiling is the one measured for 16-bit products.
    thin, large = Target("limit", 0.6), Target("limit", 0.9)
    lora = {"segments": 64, "rows": 1, "column_major": 1}
    expert = {"d_in": 4096, "d_out": 14336, "column_major": 1}
    square = {"d_in": 4096, "d_out": 4096}
    return [
        case("segment gemm, small", "segment_gemm", None, **lora, d_in=4096, d_out=16),
        case("segment gemm, small", "segment_gemm", None, **lora, d_in=16, d_out=4096),
        *(
            case(
                "segment gemm, thin", "segment_gemm", thin,
                segments=16, rows=rows, column_major=major, **square,
            )
            for rows in (1, 8)
            for major in (0, 1)
        ),
        case(
            "segment gemm, thin", "segment_gemm", thin,
            segments=64, rows=16, d_in=2048, d_out=1408, column_major=1,
        ),
        case("segment gemm, experts", "segment_gemm", large, segments=8, rows=512, **expert),
        case(
            "segment gemm, experts", "segment_gemm", large,
            segments=64, rows=256, d_in=2048, d_out=1408, column_major=1,
        ),
        *(
            case(
                "segment gemm, large", "segment_gemm", large,
                segments=4, rows=2048, column_major=major, **square,
            )
            for major in (0, 1)
        ),
        case("bmm fp8, small", "bmm_fp8", None, batch=16, m=48, n=80, k=64),
        case("bmm fp8, thin", "bmm_fp8", thin, batch=16, m=8, n=4096, k=4096),
        case("bmm fp8, large", "bmm_fp8", large, batch=4, m=2048, n=4096, k=4096),
    ]  # fmt: skip


CASES: tuple[Case, ...] = (
    *_decode(),
    *_prefill(),
    *_append_attention(),
    *_mla_decode(),
    *_elementwise(),
    *_sampling(),
    *_gemm(),
)
