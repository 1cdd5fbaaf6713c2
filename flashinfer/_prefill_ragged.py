"""Batch prefill over ragged keys and values; :mod:`flashinfer.prefill` has what it shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from flashinfer import _attention, _checks, _docs, _forms, _plan
from flashinfer._attention import Attended, Options
from flashinfer._wrapper import (
    NEW,
    BatchPrefillWrapper,
    Buffer,
    Into,
    check_head_dims,
    result,
    splits,
    state,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

_PLAN_WITH_VO = (
    "self",
    "qo_indptr",
    "kv_indptr",
    "num_qo_heads",
    "num_kv_heads",
    "head_dim",
    "head_dim_vo",
    "custom_mask",
    "packed_custom_mask",
    "causal",
    "pos_encoding_mode",
    "allow_fp16_qk_reduction",
    "window_left",
    "logits_soft_cap",
    "sm_scale",
    "rope_scale",
    "rope_theta",
    "q_data_type",
    "kv_data_type",
    "o_data_type",
    "non_blocking",
)


def _has_head_dim_vo(args: Any, kwargs: Any) -> bool:
    return len(args) > 6 and isinstance(args[6], int)


@_docs.arguments(
    _docs.ATTENTION,
    q="``[qo_indptr[-1], num_qo_heads, head_dim]``. There may be more rows (padding), of which the"
    " results are not written.",
    k="``[kv_indptr[-1], num_kv_heads, head_dim]`` (NHD) or ``[num_kv_heads, kv_indptr[-1],"
    " head_dim]`` (HND), or with more rows.",
    v="like ``k``.",
)
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
    """

    @_forms.renamed(mask_indptr_buf="qk_indptr_buf")
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

    @_forms.renamed(head_dim_qk="head_dim", use_fp16_qk_reduction="allow_fp16_qk_reduction")
    @_forms.also(_PLAN_WITH_VO, _has_head_dim_vo)
    def plan(
        self,
        qo_indptr: torch.Tensor,
        kv_indptr: torch.Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        custom_mask: torch.Tensor | None = None,
        packed_custom_mask: torch.Tensor | None = None,
        causal: bool | None = None,
        pos_encoding_mode: str = "NONE",
        allow_fp16_qk_reduction: bool = False,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        q_data_type: str | torch.dtype | None = "float16",
        kv_data_type: str | torch.dtype | None = None,
        non_blocking: bool = False,
        *,
        head_dim_vo: int | None = None,
        o_data_type: str | torch.dtype | None = None,
        fixed_split_size: int | None = None,
        disable_split_kv: bool = False,
        **hints: Unpack[_attention.Hints],
    ) -> None:
        """Plans for a batch; ``begin_forward`` is the same.

        Args:
            qo_indptr: ``[batch_size + 1]``, where the query tokens of each request begin.
            kv_indptr: ``[batch_size + 1]``, where its keys begin.
            causal: query i of ``qo_len`` sees keys up to ``kv_len - qo_len + i``. False by default
                in FlashInfer 0.2.0, and True in 0.1.6: without it, ``run`` warns and has the
                meaning of 0.2.0, or of the release that ``FLASHINFER_API`` names.

        Raises:
            ValueError: a shape or a number is wrong, offsets decrease, or a CUDA graph's buffer is
                too small.
            TypeError: a dtype is wrong, or an argument is not a tensor.
        """
        _attention.check_dtype("q_data_type", q_data_type)
        _attention.check_dtype("kv_data_type", kv_data_type)
        self._o_data_type = _attention.check_dtype("o_data_type", o_data_type)
        _attention.check_hints(f"{type(self).__name__}.plan", hints)
        check_head_dims(head_dim, head_dim_vo)
        chosen = _attention.options(
            head_dim,
            causal=bool(causal),
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
            split=splits(fixed_split_size, disable_split_kv),
        )
        # What 0.1.6 does not have shows that the call is of a later release.
        later = any(value is not None for value in (kv_data_type, head_dim_vo, fixed_split_size))
        self._causal_is_open = causal is None and not later
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
        *,
        out: torch.Tensor | None = ...,
        enable_pdl: bool | None = ...,
    ) -> torch.Tensor: ...

    @overload
    def run(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        return_lse: Literal[True],
        out: torch.Tensor | None = ...,
        lse: torch.Tensor | None = ...,
        enable_pdl: bool | None = ...,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    @overload
    def run(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        return_lse: bool = ...,
        *,
        out: torch.Tensor | None = ...,
        lse: torch.Tensor | None = ...,
        enable_pdl: bool | None = ...,
    ) -> Attended: ...

    def run(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        return_lse: bool = False,
        *,
        out: torch.Tensor | None = None,
        lse: torch.Tensor | None = None,
        enable_pdl: bool | None = None,
    ) -> Attended:
        """Attention of the batch that was planned for.

        Returns:
            Like ``q``; with ``return_lse`` also fp32 ``[rows of q, num_qo_heads]``.

        Raises:
            ValueError: a shape or a device is not as planned.
            TypeError: a dtype is wrong, or an argument is not a tensor.
            RuntimeError: there is no plan.
        """
        return result(self._ragged(q, k, v, self._planned_options(), return_lse, Into(out, lse)))

    def run_return_lse(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        out: torch.Tensor | None = None,
        lse: torch.Tensor | None = None,
        enable_pdl: bool | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`run` with ``return_lse``."""
        return state(self._ragged(q, k, v, self._planned_options(), True, Into(out, lse)))

    def _ragged(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        chosen: Options,
        return_lse: bool,
        into: Into = NEW,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        form = "[num_kv_heads, nnz, head_dim]" if self._hnd else "[nnz, num_kv_heads, head_dim]"
        _checks.dims("k", k, form)
        if self._planned is not None and (self._planned.sizes is None or not _plan.compiling()):
            _attention.check_kv_rows(k, self._hnd, self._kv_rows)
        return self._attend(q, k, v, chosen, None, return_lse, hnd=self._hnd, into=into)

    @_forms.renamed(use_fp16_qk_reduction="allow_fp16_qk_reduction")
    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        causal: bool | None = None,
        pos_encoding_mode: str = "NONE",
        allow_fp16_qk_reduction: bool = False,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> torch.Tensor:
        """:meth:`run` with these options in place of the planned ones, defaults included.

        ``causal`` is False by default in FlashInfer 0.2.0, and True in 0.1.6. A call without it
        warns and has the meaning of 0.2.0, or of the release that ``FLASHINFER_API`` names.
        """
        chosen = self._override(
            pos_encoding_mode,
            window_left,
            logits_soft_cap,
            sm_scale,
            rope_scale,
            rope_theta,
            self._settle_causal(causal, "forward"),
        )
        return self._ragged(q, k, v, chosen, False)[0]

    @_forms.renamed(use_fp16_qk_reduction="allow_fp16_qk_reduction")
    def forward_return_lse(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        causal: bool | None = None,
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
            self._settle_causal(causal, "forward_return_lse"),
        )
        return state(self._ragged(q, k, v, chosen, True))
