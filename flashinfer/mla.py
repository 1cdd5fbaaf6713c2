"""Multi-head latent attention with the queries and keys turned before, any number for each request.

:class:`flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper` says what MLA computes. Here queries and
cached keys come with RoPE, as releases after 0.2.0 have it, and a request has one query token or
more. Each token is planned for by itself, over the pages of its request: a causal one over the keys
up to its own. So tokens of a request share no reads of keys.
"""

from __future__ import annotations

import math
from typing import Literal, overload

import torch

from flashinfer import _attention, _checks, _docs, _plan
from flashinfer._attention import Attended
from flashinfer._mla import MlaWrapper
from flashinfer._wrapper import Buffer, result

__all__ = ["BatchMLAPagedAttentionWrapper"]


@_docs.arguments(
    _docs.ATTENTION,
    q_nope="``[qo_indptr[-1], num_heads, head_dim_ckv]``, the part without RoPE.",
    q_pe="``[qo_indptr[-1], num_heads, head_dim_kpe]``, with RoPE applied.",
    ckv_cache="``[pages, page_size, head_dim_ckv]``.",
    kpe_cache="``[pages, page_size, head_dim_kpe]``, with RoPE applied.",
)
class BatchMLAPagedAttentionWrapper(MlaWrapper):
    """Multi-head latent attention of a batch over a paged compressed cache.

    float16 and bfloat16, on the CPU float32 too; head_dim_ckv 512 and head_dim_kpe 64 on CUDA, on
    the CPU any multiples of 8 up to 512 and 128; any number of heads and any page size.

    Example:
        >>> wrapper = flashinfer.BatchMLAPagedAttentionWrapper(workspace)
        >>> wrapper.plan(qo_indptr, kv_indptr, kv_indices, kv_lens, 128, 512, 64, 64,
        ...              causal=True, sm_scale=192**-0.5, q_data_type=dtype, kv_data_type=dtype)
        >>> out = wrapper.run(q_nope, q_pe, ckv_cache, kpe_cache)

    Args:
        float_workspace_buffer: scratch on the device to run on, any dtype; 128 MiB is enough.
        use_cuda_graph: keep all addresses and sizes, so that a graph that captured ``run`` can be
            replayed after another ``plan``, which has as many requests and query tokens.
        qo_indptr: for graphs: int32 ``[batch_size + 1]``, written by ``plan``.
        kv_indptr: for graphs: int32 ``[batch_size + 1]``.
        kv_indices: for graphs: int32, room for all pages that a plan may have.
        kv_len_arr: for graphs: int32 ``[batch_size]``.
    """

    _caches = ("ckv_cache", "kpe_cache")

    def __init__(
        self,
        float_workspace_buffer: torch.Tensor,
        use_cuda_graph: bool = False,
        qo_indptr: torch.Tensor | None = None,
        kv_indptr: torch.Tensor | None = None,
        kv_indices: torch.Tensor | None = None,
        kv_len_arr: torch.Tensor | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(float_workspace_buffer, use_cuda_graph=use_cuda_graph)
        self._fixed_queries = True
        self._graph_buffers = (
            Buffer("qo_indptr", qo_indptr),
            Buffer("kv_indptr", kv_indptr),
            Buffer("kv_len_arr", kv_len_arr),
        )
        self._pages = Buffer("kv_indices", kv_indices)
        self._fixed_batch_size: int | None = None
        if use_cuda_graph:
            for buffer in (*self._graph_buffers, self._pages):
                _checks.index(buffer.name, buffer.present(), float_workspace_buffer, "[n]")
            self._fixed_batch_size = self._graph_buffers[2].present().shape[0]
            for buffer in self._graph_buffers[:2]:
                size = (self._fixed_batch_size + 1,)
                _checks.shape(buffer.name, buffer.present(), size, "batch_size + 1, of kv_len_arr")

    def plan(
        self,
        qo_indptr: torch.Tensor,
        kv_indptr: torch.Tensor,
        kv_indices: torch.Tensor,
        kv_len_arr: torch.Tensor,
        num_heads: int,
        head_dim_ckv: int,
        head_dim_kpe: int,
        page_size: int,
        causal: bool,
        sm_scale: float,
        q_data_type: str | torch.dtype | None = None,
        kv_data_type: str | torch.dtype | None = None,
    ) -> None:
        """Plans for a batch.

        Index tensors are int32 (int64 is converted), on the host or on a device; on the host they
        cost nothing, on a device the host waits for them.

        Args:
            qo_indptr: ``[batch_size + 1]``, where the query tokens of each request begin.
            kv_indptr: ``[batch_size + 1]``, where its pages begin in ``kv_indices``.
            kv_indices: ``[kv_indptr[-1]]`` or longer, the pages of all requests.
            kv_len_arr: ``[batch_size]``, the keys of each request, the new ones too.
            num_heads: heads of the queries.
            head_dim_ckv: elements of a row of the compressed cache (kv_lora_rank).
            head_dim_kpe: elements of the part with RoPE.
            causal: query i of ``qo_len`` sees keys up to ``kv_len - qo_len + i``; needs
                ``kv_len >= qo_len``.
            sm_scale: factor of the scores: ``1 / sqrt(qk_nope_head_dim + qk_rope_head_dim)``.

        Raises:
            ValueError: a shape or a number is wrong, offsets decrease, or a CUDA graph's buffer is
                too small.
            TypeError: a dtype is wrong, or an argument is not a tensor.
        """
        for name, dtype in (("q_data_type", q_data_type), ("kv_data_type", kv_data_type)):
            _attention.check_dtype(name, dtype)
        chosen = _attention.options(head_dim_ckv, sm_scale=float(sm_scale))
        qo = _plan.host_indptr("qo_indptr", qo_indptr, self._fixed_batch_size)
        kv = _plan.host_indptr("kv_indptr", kv_indptr, qo.shape[0] - 1, first=None)
        lengths = _plan.host_index("kv_len_arr", kv_len_arr, "[batch_size]")
        _checks.shape("kv_len_arr", lengths, (qo.shape[0] - 1,), "one for each request")
        if page_size <= 0:
            raise ValueError(f"page_size is {page_size}, expected 1 or more")
        tokens = qo.diff()
        lowest = tokens if causal else torch.zeros_like(tokens)
        highest = kv.diff().to(torch.int64) * page_size
        wrong = ((lengths < lowest) | (lengths > highest)).nonzero()
        if wrong.shape[0]:
            at = int(wrong[0])
            raise ValueError(
                f"kv_len_arr[{at}] is {int(lengths[at])}, expected {int(lowest[at])} to"
                f" {int(highest[at])}: of {int(tokens[at])} query tokens"
                f"{' with causal' if causal else ''}, and pages of {page_size}"
            )
        # Each token as a request of its own; a causal one does not see the tokens behind it.
        of = torch.repeat_interleave(tokens.to(torch.int64))
        seen = lengths[of]
        if causal:
            seen = seen - (qo[1:][of] - 1 - torch.arange(of.shape[0], dtype=torch.int32))
        if head_dim_kpe <= 0:
            raise ValueError(f"head_dim_kpe is {head_dim_kpe}, expected 1 or more")
        used = int(kv[-1])
        self._make_plan(
            _plan.Requests(
                torch.arange(of.shape[0] + 1, dtype=torch.int32),
                kv[:-1][of].contiguous(),
                seen.to(torch.int32).contiguous(),
            ),
            _plan.Heads(num_heads, 1, head_dim_ckv),
            chosen,
            kv_indices=_plan.page_indices("kv_indices", kv_indices, used, self.device),
            used_indices=used,
            page_size=page_size,
            indices_buffer=self._pages,
        )
        self._head_dim_kpe = head_dim_kpe
        if self._use_cuda_graph:
            for buffer, source in zip(self._graph_buffers, (qo_indptr, kv_indptr, kv_len_arr)):
                buffer.write(source)

    @overload
    def run(
        self,
        q_nope: torch.Tensor,
        q_pe: torch.Tensor,
        ckv_cache: torch.Tensor,
        kpe_cache: torch.Tensor,
        out: torch.Tensor | None = ...,
        lse: torch.Tensor | None = ...,
        return_lse: Literal[False] = ...,
    ) -> torch.Tensor: ...

    @overload
    def run(
        self,
        q_nope: torch.Tensor,
        q_pe: torch.Tensor,
        ckv_cache: torch.Tensor,
        kpe_cache: torch.Tensor,
        out: torch.Tensor | None = ...,
        lse: torch.Tensor | None = ...,
        *,
        return_lse: Literal[True],
        return_lse_base_on_e: bool = ...,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    @overload
    def run(
        self,
        q_nope: torch.Tensor,
        q_pe: torch.Tensor,
        ckv_cache: torch.Tensor,
        kpe_cache: torch.Tensor,
        out: torch.Tensor | None = ...,
        lse: torch.Tensor | None = ...,
        return_lse: bool = ...,
        *,
        return_lse_base_on_e: bool = ...,
    ) -> Attended: ...

    def run(
        self,
        q_nope: torch.Tensor,
        q_pe: torch.Tensor,
        ckv_cache: torch.Tensor,
        kpe_cache: torch.Tensor,
        out: torch.Tensor | None = None,
        lse: torch.Tensor | None = None,
        return_lse: bool = False,
        *,
        return_lse_base_on_e: bool = False,
    ) -> Attended:
        """Attention of the batch that was planned for.

        The caches may have any strides, as long as their last dimension is contiguous: they may be
        slices of one tensor.

        Args:
            return_lse_base_on_e: log-sum-exps to base e instead of base 2.

        Returns:
            Like ``q_nope``; with ``return_lse`` also fp32 ``[qo_indptr[-1], num_heads]``.

        Raises:
            ValueError: a shape or a device is not as planned; on the CPU also a page that is not in
                the cache.
            TypeError: a dtype is wrong, or an argument is not a tensor.
            RuntimeError: there is no plan.
        """
        if self._planned is not None and q_pe.ndim == 3 and q_pe.shape[2] != self._head_dim_kpe:
            raise ValueError(
                f"q_pe has {q_pe.shape[2]} elements a head, expected {self._head_dim_kpe} as"
                " planned"
            )
        caches = (ckv_cache, kpe_cache)
        pair = self._latent(q_nope, q_pe, caches, self._options, None, return_lse, out, lse)
        if return_lse_base_on_e and pair[1] is not None:
            pair[1].mul_(math.log(2))
        return result(pair)
