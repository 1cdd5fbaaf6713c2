"""Prefill and append attention: many query tokens for each request.

:mod:`flashinfer.decode` says what all attention functions have in common. Here also:

* ``causal``: the queries of a request are its last tokens, so query i of ``qo_len`` sees keys up to
  ``kv_len - qo_len + i``.
* A custom mask takes the place of ``causal``; a window still applies. ``custom_mask`` has a bool
  for each query and key, row after row, request after request, in one dimension.
  ``packed_custom_mask`` has the same as bits, as :func:`flashinfer.segment_packbits` packs them
  with ``bitorder="little"``: every request from a fresh byte. It is used where both are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from flashinfer import _api, _attention, _docs, _forms, _plan, _single
from flashinfer._attention import Attended, KVCache
from flashinfer._prefill_ragged import BatchPrefillWithRaggedKVCacheWrapper
from flashinfer._wrapper import (
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

__all__ = [
    "BatchPrefillWithPagedKVCacheWrapper",
    "BatchPrefillWithRaggedKVCacheWrapper",
    "single_prefill_with_kv_cache",
    "single_prefill_with_kv_cache_return_lse",
]


_SINGLE = {
    **_docs.ATTENTION,
    "q": "``[qo_len, num_qo_heads, head_dim]``.",
    "k": "``[kv_len, num_kv_heads, head_dim]`` (NHD) or ``[num_kv_heads, kv_len, head_dim]``"
    " (HND).",
    "v": "like ``k``.",
    "custom_mask": "``[qo_len, kv_len]``, or the same in one dimension; it takes the place of"
    " ``causal``.",
    "packed_custom_mask": "uint8 ``[ceil(qo_len * kv_len / 8)]``, the same as bits.",
    "causal": "query i sees keys up to ``kv_len - qo_len + i``; needs ``kv_len >= qo_len``.",
}


@overload
def single_prefill_with_kv_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    custom_mask: torch.Tensor | None = ...,
    packed_custom_mask: torch.Tensor | None = ...,
    causal: bool = ...,
    kv_layout: str = ...,
    pos_encoding_mode: str = ...,
    allow_fp16_qk_reduction: bool = ...,
    sm_scale: float | None = ...,
    window_left: int = ...,
    logits_soft_cap: float | None = ...,
    rope_scale: float | None = ...,
    rope_theta: float | None = ...,
    return_lse: Literal[False] = ...,
    backend: str = ...,
) -> torch.Tensor: ...


@overload
def single_prefill_with_kv_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    custom_mask: torch.Tensor | None = ...,
    packed_custom_mask: torch.Tensor | None = ...,
    causal: bool = ...,
    kv_layout: str = ...,
    pos_encoding_mode: str = ...,
    allow_fp16_qk_reduction: bool = ...,
    sm_scale: float | None = ...,
    window_left: int = ...,
    logits_soft_cap: float | None = ...,
    rope_scale: float | None = ...,
    rope_theta: float | None = ...,
    *,
    return_lse: Literal[True],
    backend: str = ...,
) -> tuple[torch.Tensor, torch.Tensor]: ...


@overload
def single_prefill_with_kv_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    custom_mask: torch.Tensor | None = ...,
    packed_custom_mask: torch.Tensor | None = ...,
    causal: bool = ...,
    kv_layout: str = ...,
    pos_encoding_mode: str = ...,
    allow_fp16_qk_reduction: bool = ...,
    sm_scale: float | None = ...,
    window_left: int = ...,
    logits_soft_cap: float | None = ...,
    rope_scale: float | None = ...,
    rope_theta: float | None = ...,
    return_lse: bool = ...,
    backend: str = ...,
) -> Attended: ...


@_forms.renamed(use_fp16_qk_reduction="allow_fp16_qk_reduction")
@_docs.arguments(_SINGLE)
def single_prefill_with_kv_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    custom_mask: torch.Tensor | None = None,
    packed_custom_mask: torch.Tensor | None = None,
    causal: bool = False,
    kv_layout: str = "NHD",
    pos_encoding_mode: str = "NONE",
    allow_fp16_qk_reduction: bool = False,
    sm_scale: float | None = None,
    window_left: int = -1,
    logits_soft_cap: float | None = None,
    rope_scale: float | None = None,
    rope_theta: float | None = None,
    return_lse: bool = False,
    backend: str = "auto",
) -> Attended:
    """Attention of the last tokens of one request over its keys and values.

    Returns:
        ``[qo_len, num_qo_heads, head_dim]``, like ``q``; with ``return_lse`` also fp32
        ``[qo_len, num_qo_heads]``.

    Raises:
        ValueError: a shape, a device, a layout or an option is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    _attention.check_query("q", q, "[qo_len, num_qo_heads, head_dim]")
    chosen = _attention.options(
        q.shape[2],
        causal=causal,
        pos_encoding_mode=pos_encoding_mode,
        window_left=window_left,
        logits_soft_cap=logits_soft_cap,
        sm_scale=sm_scale,
        rope_scale=rope_scale,
        rope_theta=rope_theta,
    )
    return result(
        _single.attend(
            q,
            k,
            v,
            _attention.check_layout(kv_layout),
            chosen,
            custom_mask=custom_mask,
            packed_custom_mask=packed_custom_mask,
            return_lse=return_lse,
        )
    )


# In 0.1.6 the window is in tenth place, and the soft cap after it.
_RETURN_LSE_0_1_6 = (
    "q",
    "k",
    "v",
    "custom_mask",
    "packed_custom_mask",
    "causal",
    "kv_layout",
    "pos_encoding_mode",
    "allow_fp16_qk_reduction",
    "window_left",
    "logits_soft_cap",
    "sm_scale",
    "rope_scale",
    "rope_theta",
)


def _has_window_in_tenth_place(args: Any, kwargs: Any) -> bool:
    # A float or None is 0.2.0's scale: windows are whole numbers.
    if len(args) < 10 or not isinstance(args[9], int):
        return False
    release = _api.settle(
        "single_prefill_with_kv_cache_return_lse with a whole number in tenth place",
        "it is window_left in FlashInfer 0.1.6, and sm_scale in 0.2.0",
        _api.NEW,
        "Pass window_left= or sm_scale= by name",
    )
    return release == _api.OLD


@_forms.renamed(use_fp16_qk_reduction="allow_fp16_qk_reduction")
@_forms.also(_RETURN_LSE_0_1_6, _has_window_in_tenth_place)
@_docs.arguments(_SINGLE)
def single_prefill_with_kv_cache_return_lse(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    custom_mask: torch.Tensor | None = None,
    packed_custom_mask: torch.Tensor | None = None,
    causal: bool = False,
    kv_layout: str = "NHD",
    pos_encoding_mode: str = "NONE",
    allow_fp16_qk_reduction: bool = False,
    sm_scale: float | None = None,
    window_left: int = -1,
    logits_soft_cap: float | None = None,
    rope_scale: float | None = None,
    rope_theta: float | None = None,
    return_lse: Literal[True] = True,
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`single_prefill_with_kv_cache` with ``return_lse``.

    FlashInfer 0.1.6 has ``window_left, logits_soft_cap, sm_scale`` from the tenth place on, 0.2.0
    ``sm_scale, window_left, logits_soft_cap``. A whole number there fits both: such a call warns
    and has the meaning of 0.2.0, or of the release that ``FLASHINFER_API`` names.
    """
    return single_prefill_with_kv_cache(
        q,
        k,
        v,
        custom_mask,
        packed_custom_mask,
        causal,
        kv_layout,
        pos_encoding_mode,
        allow_fp16_qk_reduction,
        sm_scale,
        window_left,
        logits_soft_cap,
        rope_scale,
        rope_theta,
        return_lse=return_lse,
        backend=backend,
    )


_PLAN_WITH_VO = (
    "self",
    "qo_indptr",
    "paged_kv_indptr",
    "paged_kv_indices",
    "paged_kv_last_page_len",
    "num_qo_heads",
    "num_kv_heads",
    "head_dim",
    "page_size",
    "head_dim_vo",
    "custom_mask",
    "packed_custom_mask",
    "causal",
    "pos_encoding_mode",
    "allow_fp16_qk_reduction",
    "sm_scale",
    "window_left",
    "logits_soft_cap",
    "rope_scale",
    "rope_theta",
    "q_data_type",
    "kv_data_type",
    "o_data_type",
    "non_blocking",
)


def _has_head_dim_vo(args: Any, kwargs: Any) -> bool:
    return len(args) > 9 and isinstance(args[9], int)


@_docs.arguments(
    _docs.ATTENTION,
    q="``[qo_indptr[-1], num_qo_heads, head_dim]``. There may be more rows (padding), of which the"
    " results are not written.",
)
class BatchPrefillWithPagedKVCacheWrapper(BatchPrefillWrapper):
    """Prefill and append attention of a batch over a paged KV cache.

    Example:
        >>> workspace = torch.empty(128 << 20, dtype=torch.uint8, device="cuda")
        >>> wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")
        >>> wrapper.plan(qo_indptr, kv_indptr, indices, last_page_len, 32, 8, 128, 16, causal=True)
        >>> for layer in layers:
        ...     out = wrapper.run(layer.q, layer.kv_cache)

    Args:
        float_workspace_buffer: scratch on the device to run on, any dtype; 128 MiB is enough.
            Wrappers that run on one stream may share it.
        use_cuda_graph: keep all addresses and sizes, so that a graph that captured ``run`` can be
            replayed after another ``plan``. The batch size is then that of the buffers, and later
            plans have at most as many query tokens as the first one.
        qo_indptr_buf: for graphs: int32 ``[batch_size + 1]``, written by ``plan``.
        paged_kv_indptr_buf: for graphs: int32 ``[batch_size + 1]``.
        paged_kv_indices_buf: for graphs: int32, room for all pages that a plan may have.
        paged_kv_last_page_len_buf: for graphs: int32 ``[batch_size]``.
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
        paged_kv_indptr_buf: torch.Tensor | None = None,
        paged_kv_indices_buf: torch.Tensor | None = None,
        paged_kv_last_page_len_buf: torch.Tensor | None = None,
        custom_mask_buf: torch.Tensor | None = None,
        qk_indptr_buf: torch.Tensor | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(float_workspace_buffer, kv_layout, use_cuda_graph)
        self._qo_indptr_buf = qo_indptr_buf
        self._paged_kv_indptr_buf = paged_kv_indptr_buf
        self._paged_kv_indices_buf = paged_kv_indices_buf
        self._paged_kv_last_page_len_buf = paged_kv_last_page_len_buf
        self._prepare(
            float_workspace_buffer,
            (
                Buffer("qo_indptr_buf", qo_indptr_buf),
                Buffer("paged_kv_indptr_buf", paged_kv_indptr_buf),
                Buffer("paged_kv_last_page_len_buf", paged_kv_last_page_len_buf),
                Buffer("paged_kv_indices_buf", paged_kv_indices_buf),
            ),
            (Buffer("custom_mask_buf", custom_mask_buf), Buffer("qk_indptr_buf", qk_indptr_buf)),
        )

    @_forms.renamed(head_dim_qk="head_dim", use_fp16_qk_reduction="allow_fp16_qk_reduction")
    @_forms.also(_PLAN_WITH_VO, _has_head_dim_vo)
    def plan(
        self,
        qo_indptr: torch.Tensor,
        paged_kv_indptr: torch.Tensor,
        paged_kv_indices: torch.Tensor,
        paged_kv_last_page_len: torch.Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
        custom_mask: torch.Tensor | None = None,
        packed_custom_mask: torch.Tensor | None = None,
        causal: bool = False,
        pos_encoding_mode: str = "NONE",
        allow_fp16_qk_reduction: bool = False,
        sm_scale: float | None = None,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
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

        Index tensors are int32 (int64 is converted), on the host or on a device; on the host they
        cost nothing, on a device the host waits for them.

        Args:
            qo_indptr: ``[batch_size + 1]``, where the query tokens of each request begin.
            paged_kv_indptr: ``[batch_size + 1]``, where its pages begin in ``paged_kv_indices``.
            paged_kv_indices: ``[paged_kv_indptr[-1]]``, the pages of all requests.
            paged_kv_last_page_len: ``[batch_size]``, entries in use in the last page, 1..page_size.

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
        kv = _plan.host_indptr("paged_kv_indptr", paged_kv_indptr, qo.shape[0] - 1, first=None)
        last = _plan.host_index("paged_kv_last_page_len", paged_kv_last_page_len, "[batch_size]")
        lengths = _plan.paged_lengths(
            kv, last, page_size, ("paged_kv_indptr", "paged_kv_last_page_len")
        )
        used = int(kv[-1])
        self._make_plan(
            _plan.Requests(qo, kv[:-1], lengths),
            _plan.Heads(num_qo_heads, num_kv_heads, head_dim),
            chosen,
            kv_indices=_plan.page_indices("paged_kv_indices", paged_kv_indices, used, self.device),
            used_indices=used,
            page_size=page_size,
            masks=masks,
            indices_buffer=self._index_buffers[3],
            mask_buffers=self._mask_buffers,
            split=splits(fixed_split_size, disable_split_kv),
        )
        self._write_buffers(qo_indptr, paged_kv_indptr, paged_kv_last_page_len)

    begin_forward = plan

    @overload
    def run(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        k_scale: float | None = ...,
        v_scale: float | None = ...,
        return_lse: Literal[False] = ...,
        *,
        q_scale: float | None = ...,
        out: torch.Tensor | None = ...,
        enable_pdl: bool | None = ...,
        window_left: int | None = ...,
    ) -> torch.Tensor: ...

    @overload
    def run(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        k_scale: float | None = ...,
        v_scale: float | None = ...,
        *,
        return_lse: Literal[True],
        q_scale: float | None = ...,
        out: torch.Tensor | None = ...,
        lse: torch.Tensor | None = ...,
        enable_pdl: bool | None = ...,
        window_left: int | None = ...,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    @overload
    def run(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        k_scale: float | None = ...,
        v_scale: float | None = ...,
        return_lse: bool = ...,
        *,
        q_scale: float | None = ...,
        out: torch.Tensor | None = ...,
        lse: torch.Tensor | None = ...,
        enable_pdl: bool | None = ...,
        window_left: int | None = ...,
    ) -> Attended: ...

    def run(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        k_scale: float | None = None,
        v_scale: float | None = None,
        return_lse: bool = False,
        *,
        q_scale: float | None = None,
        out: torch.Tensor | None = None,
        lse: torch.Tensor | None = None,
        enable_pdl: bool | None = None,
        window_left: int | None = None,
    ) -> Attended:
        """Attention of the batch that was planned for.

        Args:
            window_left: in place of the planned one, where given.

        Returns:
            Like ``q``; with ``return_lse`` also fp32 ``[rows of q, num_qo_heads]``.

        Raises:
            ValueError: a shape or a device is not as planned; on the CPU also a page that is not in
                the cache.
            TypeError: a dtype is wrong, or an argument is not a tensor.
            RuntimeError: there is no plan.
        """
        chosen = _attention.with_window(self._options, window_left)
        chosen = _attention.scaled(chosen, q_scale, k_scale)
        into = Into(out, lse)
        return result(self._attend_paged(q, paged_kv_cache, chosen, v_scale, return_lse, into=into))

    def run_return_lse(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        k_scale: float | None = None,
        v_scale: float | None = None,
        *,
        q_scale: float | None = None,
        out: torch.Tensor | None = None,
        lse: torch.Tensor | None = None,
        enable_pdl: bool | None = None,
        window_left: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`run` with ``return_lse``.

        Args:
            window_left: in place of the planned one, where given.
        """
        return self.run(
            q,
            paged_kv_cache,
            k_scale,
            v_scale,
            return_lse=True,
            q_scale=q_scale,
            out=out,
            lse=lse,
            window_left=window_left,
        )

    @_forms.renamed(use_fp16_qk_reduction="allow_fp16_qk_reduction")
    def forward(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        causal: bool | None = None,
        pos_encoding_mode: str = "NONE",
        allow_fp16_qk_reduction: bool = False,
        k_scale: float | None = None,
        v_scale: float | None = None,
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
        chosen = _attention.scaled(chosen, None, k_scale)
        return self._attend_paged(q, paged_kv_cache, chosen, v_scale, False)[0]

    @_forms.renamed(use_fp16_qk_reduction="allow_fp16_qk_reduction")
    def forward_return_lse(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        causal: bool | None = None,
        pos_encoding_mode: str = "NONE",
        allow_fp16_qk_reduction: bool = False,
        k_scale: float | None = None,
        v_scale: float | None = None,
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
        chosen = _attention.scaled(chosen, None, k_scale)
        return state(self._attend_paged(q, paged_kv_cache, chosen, v_scale, True))
