"""Batch prefill over ragged keys and values; :mod:`flashinfer.prefill` has what it shares."""

from __future__ import annotations

from typing import Literal, overload

import torch

from flashinfer import _attention, _checks, _plan
from flashinfer._attention import Attended, Options
from flashinfer._wrapper import BatchPrefillWrapper, Buffer, result, state


class BatchPrefillWithRaggedKVCacheWrapper(BatchPrefillWrapper):
    """Prefill attention of a batch whose keys and values lie one request after another.

    Args:
        float_workspace_buffer: as for :class:`BatchPrefillWithPagedKVCacheWrapper`.
        kv_layout: of keys and values, ``"NHD"`` or ``"HND"``.
        use_cuda_graph: as for :class:`BatchPrefillWithPagedKVCacheWrapper`.
        qo_indptr_buf: for graphs: int32 ``[batch_size + 1]``, written by ``plan``.
        kv_indptr_buf: for graphs: int32 ``[batch_size + 1]``.
        custom_mask_buf: for graphs with a custom mask: uint8, room for the packed mask.
        qk_indptr_buf: for graphs with a custom mask: int32 ``[batch_size + 1]``.
        backend: ignored.
    """

    def __init__(
        self,
        float_workspace_buffer: torch.Tensor,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        qo_indptr_buf: torch.Tensor | None = None,
        kv_indptr_buf: torch.Tensor | None = None,
        custom_mask_buf: torch.Tensor | None = None,
        qk_indptr_buf: torch.Tensor | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(float_workspace_buffer, kv_layout, use_cuda_graph)
        self._qo_indptr_buf = qo_indptr_buf
        self._kv_indptr_buf = kv_indptr_buf
        self._prepare(
            float_workspace_buffer,
            (Buffer("qo_indptr_buf", qo_indptr_buf), Buffer("kv_indptr_buf", kv_indptr_buf)),
            (Buffer("custom_mask_buf", custom_mask_buf), Buffer("qk_indptr_buf", qk_indptr_buf)),
        )

    def plan(
        self,
        qo_indptr: torch.Tensor,
        kv_indptr: torch.Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        custom_mask: torch.Tensor | None = None,
        packed_custom_mask: torch.Tensor | None = None,
        causal: bool = False,
        pos_encoding_mode: str = "NONE",
        allow_fp16_qk_reduction: bool = False,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        q_data_type: str | torch.dtype | None = "float16",
        kv_data_type: str | torch.dtype | None = None,
    ) -> None:
        """Plans for a batch; ``begin_forward`` is the same.

        Args:
            qo_indptr: ``[batch_size + 1]``, where the query tokens of each request begin.
            kv_indptr: ``[batch_size + 1]``, where its keys begin.
            num_qo_heads: heads of the queries.
            num_kv_heads: heads of keys and values.
            head_dim: elements of a head.
            custom_mask: ``[sum(qo_len * kv_len)]``, see :mod:`flashinfer.prefill`.
            packed_custom_mask: uint8.
            causal: see :mod:`flashinfer.prefill`.
            pos_encoding_mode: see :mod:`flashinfer.decode`.
            allow_fp16_qk_reduction: ignored.
            window_left: see :mod:`flashinfer.decode`.
            logits_soft_cap: see :mod:`flashinfer.decode`.
            sm_scale: see :mod:`flashinfer.decode`.
            rope_scale: see :mod:`flashinfer.decode`.
            rope_theta: see :mod:`flashinfer.decode`.
            q_data_type: see :mod:`flashinfer.decode`.
            kv_data_type: see :mod:`flashinfer.decode`.

        Raises:
            ValueError: a shape or a number is wrong, offsets fall, or a CUDA graph's buffer is too
                small.
            TypeError: a dtype is wrong, or an argument is not a tensor.
        """
        _attention.check_dtype("q_data_type", q_data_type)
        _attention.check_dtype("kv_data_type", kv_data_type)
        chosen = _attention.options(
            head_dim,
            causal=causal,
            pos_encoding_mode=pos_encoding_mode,
            window_left=window_left,
            logits_soft_cap=logits_soft_cap,
            sm_scale=sm_scale,
            rope_scale=rope_scale,
            rope_theta=rope_theta,
        )
        masks = self._check_masks(custom_mask, packed_custom_mask)
        qo = _plan.host_indptr("qo_indptr", qo_indptr, self._fixed_batch_size)
        kv = _plan.host_indptr("kv_indptr", kv_indptr, qo.shape[0] - 1)
        self._make_plan(
            _plan.Requests(qo, kv[:-1], kv.diff()),
            _plan.Heads(num_qo_heads, num_kv_heads, head_dim),
            chosen,
            masks=masks,
            mask_buffers=self._mask_buffers,
            kv_rows=int(kv[-1]),
        )
        self._kv_rows = int(kv[-1])
        self._write_buffers(qo_indptr, kv_indptr)

    begin_forward = plan

    @overload
    def run(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        return_lse: Literal[False] = ...,
    ) -> torch.Tensor: ...

    @overload
    def run(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        return_lse: Literal[True],
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    @overload
    def run(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        return_lse: bool = ...,
    ) -> Attended: ...

    def run(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, return_lse: bool = False
    ) -> Attended:
        """Attention of the batch that was planned for.

        Args:
            q: ``[qo_indptr[-1], num_qo_heads, head_dim]``. There may be more rows (padding), of
                which the results are not written.
            k: ``[kv_indptr[-1], num_kv_heads, head_dim]`` (NHD) or
                ``[num_kv_heads, kv_indptr[-1], head_dim]`` (HND), or with more rows.
            v: like ``k``.
            return_lse: return ``(out, lse)``.

        Returns:
            Like ``q``; with ``return_lse`` also fp32 ``[rows of q, num_qo_heads]``.

        Raises:
            ValueError: a shape or a device is not as planned.
            TypeError: a dtype is wrong, or an argument is not a tensor.
            RuntimeError: there is no plan.
        """
        return result(self._ragged(q, k, v, self._options, return_lse))

    def run_return_lse(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`run` with ``return_lse``."""
        return state(self._ragged(q, k, v, self._options, True))

    def _ragged(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, chosen: Options, return_lse: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        form = "[num_kv_heads, nnz, head_dim]" if self._hnd else "[nnz, num_kv_heads, head_dim]"
        _checks.dims("k", k, form)
        if self._planned is not None and (self._planned.sizes is None or not _plan.compiling()):
            _attention.check_kv_rows(k, self._hnd, self._kv_rows)
        return self._attend(q, k, v, chosen, None, return_lse, hnd=self._hnd)

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        causal: bool = False,
        pos_encoding_mode: str = "NONE",
        allow_fp16_qk_reduction: bool = False,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> torch.Tensor:
        """:meth:`run` with these options in place of the planned ones, defaults included.

        ``causal`` is False by default, as in FlashInfer 0.2.0; it was True in 0.1.6.
        """
        chosen = self._override(
            pos_encoding_mode,
            window_left,
            logits_soft_cap,
            sm_scale,
            rope_scale,
            rope_theta,
            causal,
        )
        return self._ragged(q, k, v, chosen, False)[0]

    def forward_return_lse(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        causal: bool = False,
        pos_encoding_mode: str = "NONE",
        allow_fp16_qk_reduction: bool = False,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`forward`, which returns ``(out, lse)``."""
        chosen = self._override(
            pos_encoding_mode,
            window_left,
            logits_soft_cap,
            sm_scale,
            rope_scale,
            rope_theta,
            causal,
        )
        return state(self._ragged(q, k, v, chosen, True))
