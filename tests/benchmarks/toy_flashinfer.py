"""A flashinfer in plain torch, with the parameters that FlashInfer 0.2.0 documents.

It takes positional arguments where callers give them so, and refuses what it does not know.
"""

from __future__ import annotations

import types

import torch

__version__ = "0.0.toy"


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """q [n, Hq, D], k and v [m, Hkv, D]."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.float().repeat_interleave(group, 1) for x in (k, v))
    scores = torch.einsum("nhd,mhd->hnm", q.float(), k) / q.shape[-1] ** 0.5
    if causal:
        n, m = scores.shape[1:]
        visible = torch.arange(m)[None] <= torch.arange(n)[:, None] + m - n
        scores = scores.masked_fill(~visible, -torch.inf)
    return torch.einsum("hnm,mhd->nhd", scores.softmax(-1), v).to(q.dtype)


def single_decode_with_kv_cache(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kv_layout: str = "NHD"
) -> torch.Tensor:
    assert kv_layout == "NHD" and q.dim() == 2
    return _attend(q[None], k, v, False)[0]


def single_prefill_with_kv_cache(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False, kv_layout: str = "NHD"
) -> torch.Tensor:
    assert kv_layout == "NHD"
    return _attend(q, k, v, causal)


class _Paged:
    def __init__(self, workspace: torch.Tensor, kv_layout: str = "NHD") -> None:
        assert workspace.dtype == torch.uint8 and kv_layout == "NHD"

    def _plan(
        self, qo: torch.Tensor, indptr: torch.Tensor, pages: torch.Tensor, last: torch.Tensor,
        heads: int, kv_heads: int, dim: int, page: int, causal: bool,
    ) -> None:  # fmt: skip
        assert all(x.dtype == torch.int32 for x in (qo, indptr, pages, last))
        self._tables = (qo.tolist(), indptr.tolist(), pages.long(), last.tolist())
        self._sizes = (heads, kv_heads, dim, page)
        self._causal = causal

    def run(self, q: torch.Tensor, paged_kv_cache: torch.Tensor) -> torch.Tensor:
        qo, indptr, pages, last = self._tables
        heads, kv_heads, dim, page = self._sizes
        assert q.shape[1:] == (heads, dim)
        assert paged_kv_cache.shape[1:] == (2, page, kv_heads, dim)
        outs = []
        for b, length in enumerate(last):
            kv = paged_kv_cache[pages[indptr[b] : indptr[b + 1]]]
            kv_len = (indptr[b + 1] - indptr[b] - 1) * page + length
            k, v = (kv[:, i].reshape(-1, kv_heads, dim)[:kv_len] for i in (0, 1))
            outs.append(_attend(q[qo[b] : qo[b + 1]], k, v, self._causal))
        return torch.cat(outs)


class BatchDecodeWithPagedKVCacheWrapper(_Paged):
    def plan(
        self, indptr: torch.Tensor, indices: torch.Tensor, last_page_len: torch.Tensor,
        num_qo_heads: int, num_kv_heads: int, head_dim: int, page_size: int,
        q_data_type: torch.dtype | None = None, data_type: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        assert q_data_type == data_type == torch.bfloat16
        steps = torch.arange(indptr.shape[0], dtype=torch.int32)
        self._plan(
            steps, indptr, indices, last_page_len,
            num_qo_heads, num_kv_heads, head_dim, page_size, False,
        )  # fmt: skip


class BatchPrefillWithPagedKVCacheWrapper(_Paged):
    def plan(
        self, qo_indptr: torch.Tensor, paged_kv_indptr: torch.Tensor,
        paged_kv_indices: torch.Tensor, paged_kv_last_page_len: torch.Tensor,
        num_qo_heads: int, num_kv_heads: int, head_dim: int, page_size: int,
        causal: bool = False, q_data_type: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        assert q_data_type == torch.bfloat16
        self._plan(
            qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len,
            num_qo_heads, num_kv_heads, head_dim, page_size, causal,
        )  # fmt: skip


def _latent(
    q_nope: torch.Tensor, q_pe: torch.Tensor, ckv: torch.Tensor, kpe: torch.Tensor, scale: float
) -> torch.Tensor:
    """One request: q [heads, dim], the cache [kv, dim]."""
    scores = q_nope.float() @ ckv.float().T + q_pe.float() @ kpe.float().T
    return ((scores * scale).softmax(-1) @ ckv.float()).to(q_nope.dtype)


class BatchDecodeMlaWithPagedKVCacheWrapper:
    def __init__(self, float_workspace_buffer: torch.Tensor) -> None:
        assert float_workspace_buffer.dtype == torch.uint8

    def plan(
        self, indptr: torch.Tensor, indices: torch.Tensor, last_page_len: torch.Tensor,
        num_qo_heads: int, head_dim_compressed_kv: int, page_size: int, sm_scale: float,
        data_type: torch.dtype | None = None, *, pos_encoding_mode: str = "ROPE_LLAMA",
    ) -> None:  # fmt: skip
        assert data_type == torch.bfloat16 and pos_encoding_mode == "NONE"
        assert all(x.dtype == torch.int32 for x in (indptr, indices, last_page_len))
        lengths = (indptr.diff() - 1) * page_size + last_page_len
        self._plan = (indptr.tolist(), indices.long(), lengths.tolist(), sm_scale)
        self._sizes = (num_qo_heads, head_dim_compressed_kv, page_size)

    def run(
        self, q_nope: torch.Tensor, q_pe: torch.Tensor, paged_ckv_cache: torch.Tensor,
        paged_kpe_cache: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        indptr, indices, lengths, scale = self._plan
        heads, dim, page = self._sizes
        assert q_nope.shape[1:] == (heads, dim)
        assert paged_ckv_cache.shape[1:] == (page, dim)
        outs = []
        for b, length in enumerate(lengths):
            own = indices[indptr[b] : indptr[b + 1]]
            ckv, kpe = (c[own].flatten(0, 1)[:length] for c in (paged_ckv_cache, paged_kpe_cache))
            outs.append(_latent(q_nope[b], q_pe[b], ckv, kpe, scale))
        return torch.stack(outs)


class _LaterMla(BatchDecodeMlaWithPagedKVCacheWrapper):
    """The class of later versions."""

    def plan(  # type: ignore[override]
        self, qo_indptr: torch.Tensor, kv_indptr: torch.Tensor, kv_indices: torch.Tensor,
        kv_len_arr: torch.Tensor, num_heads: int, head_dim_ckv: int, head_dim_kpe: int,
        page_size: int, causal: bool, sm_scale: float, q_data_type: torch.dtype,
        kv_data_type: torch.dtype,
    ) -> None:  # fmt: skip
        assert qo_indptr.diff().eq(1).all() and head_dim_kpe == 64 and not causal
        assert q_data_type == kv_data_type
        super().plan(
            kv_indptr, kv_indices, (kv_len_arr - 1) % page_size + 1, num_heads, head_dim_ckv,
            page_size, sm_scale, kv_data_type, pos_encoding_mode="NONE",
        )  # fmt: skip


mla = types.SimpleNamespace(BatchMLAPagedAttentionWrapper=_LaterMla)


def rmsnorm(
    input: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6, out: torch.Tensor | None = None
) -> torch.Tensor:
    x = input.float()
    value = (x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight).to(input.dtype)
    assert out is not None
    return out.copy_(value)


def fused_add_rmsnorm(
    input: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6
) -> None:
    total = input.float() + residual.float()
    residual.copy_(total)
    rmsnorm(total.to(input.dtype), weight, eps, out=input)


def silu_and_mul(input: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    gate, up = input.float().chunk(2, -1)
    assert out is not None
    return out.copy_(gate / (1 + (-gate).exp()) * up)


def apply_rope_pos_ids_inplace(q: torch.Tensor, k: torch.Tensor, pos_ids: torch.Tensor) -> None:
    half = q.shape[-1] // 2
    angle = pos_ids.double()[:, None] * 1e4 ** (-torch.arange(half).double() / half)
    turn = torch.polar(torch.ones_like(angle), angle)[:, None]
    for x in (q, k):
        turned = torch.complex(x[..., :half].double(), x[..., half:].double()) * turn
        x.copy_(torch.cat((turned.real, turned.imag), -1))


def append_paged_kv_cache(
    append_key: torch.Tensor, append_value: torch.Tensor, batch_indices: torch.Tensor,
    positions: torch.Tensor, paged_kv_cache: torch.Tensor, kv_indices: torch.Tensor,
    kv_indptr: torch.Tensor, kv_last_page_len: torch.Tensor, kv_layout: str = "NHD",
) -> None:  # fmt: skip
    page = paged_kv_cache.shape[2]
    for n, (b, p) in enumerate(zip(batch_indices.tolist(), positions.tolist(), strict=True)):
        where = int(kv_indices[int(kv_indptr[b]) + p // page])
        paged_kv_cache[where, 0, p % page] = append_key[n]
        paged_kv_cache[where, 1, p % page] = append_value[n]


def merge_states(v: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weights = torch.exp2(s.double())[..., None]
    total = weights.sum(1)
    return ((weights * v).sum(1) / total).to(v.dtype), torch.log2(total)[..., 0].float()


class SegmentGEMMWrapper:
    def __init__(self, float_workspace_buffer: torch.Tensor, backend: str = "auto") -> None:
        assert float_workspace_buffer.dtype == torch.uint8

    def run(
        self, x: torch.Tensor, weights: torch.Tensor, batch_size: int, weight_column_major: bool,
        seg_lens: torch.Tensor | None = None, seg_indptr: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        assert seg_indptr is not None and seg_indptr.dtype == torch.int64
        starts = seg_indptr.tolist()
        assert len(starts) == batch_size + 1 == weights.shape[0] + 1
        matrices = weights.float().mT if weight_column_major else weights.float()
        out = x.new_empty(x.shape[0], matrices.shape[2])
        for s in range(batch_size):
            part = slice(starts[s], starts[s + 1])
            out[part] = x[part].float() @ matrices[s]
        return out


def bmm_fp8(
    a: torch.Tensor, b: torch.Tensor, a_scale: torch.Tensor, b_scale: torch.Tensor,
    dtype: torch.dtype, out: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    assert b.stride(1) == 1 and out is not None and out.dtype == dtype
    return out.copy_(torch.bmm(a.float(), b.float()) * a_scale * b_scale)


def merge_state(
    v_a: torch.Tensor, s_a: torch.Tensor, v_b: torch.Tensor, s_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return merge_states(torch.stack((v_a, v_b), 1), torch.stack((s_a, s_b), 1))


def _kept(probs: torch.Tensor, top_k: int | None, top_p: float | None) -> torch.Tensor:
    out = probs.double().clone()
    for row in out:
        values = row.sort(descending=True).values
        if top_k is not None:
            row[row < values[top_k - 1]] = 0
        if top_p is not None:
            values = row.sort(descending=True).values
            count = int((values.cumsum(0) < top_p * values.sum()).sum()) + 1
            row[row < values[count - 1]] = 0
    return out / out.sum(-1, keepdim=True)


def _sample(probs: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    samples = torch.searchsorted(probs.cumsum(-1), uniform.double()[:, None], right=True)[:, 0]
    return samples.int(), torch.ones_like(samples, dtype=torch.bool)


def sampling_from_probs(probs: torch.Tensor, uniform_samples: torch.Tensor) -> torch.Tensor:
    return _sample(probs.double(), uniform_samples)[0]


def top_p_sampling_from_probs(
    probs: torch.Tensor, uniform_samples: torch.Tensor, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return _sample(_kept(probs, None, top_p), uniform_samples)


def top_k_sampling_from_probs(
    probs: torch.Tensor, uniform_samples: torch.Tensor, top_k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    return _sample(_kept(probs, top_k, None), uniform_samples)


def top_k_top_p_sampling_from_probs(
    probs: torch.Tensor, uniform_samples: torch.Tensor, top_k: int, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return _sample(_kept(probs, top_k, top_p), uniform_samples)


def top_p_renorm_probs(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    return _kept(probs, None, top_p).float()


def top_k_renorm_probs(probs: torch.Tensor, top_k: int) -> torch.Tensor:
    return _kept(probs, top_k, None).float()
