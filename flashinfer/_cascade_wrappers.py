"""Cascade attention: a common prefix is read once for all requests that share it.

Every level is attention over its own keys, and its states are merged with those of the others; see
``docs/attention-states.md``.
"""

from __future__ import annotations

from typing import Any, Sequence

import torch

from flashinfer import _api, _attention, _docs, _forms, _single
from flashinfer._attention import KVCache
from flashinfer._ops import merge_state_inplace
from flashinfer.decode import BatchDecodeWithPagedKVCacheWrapper
from flashinfer.prefill import BatchPrefillWithPagedKVCacheWrapper


def _positions_of_levels(pos_encoding_mode: str, window_left: int) -> None:
    """ValueError for what needs positions in the whole sequence: a level knows only its own."""
    if pos_encoding_mode != "NONE" or window_left >= 0:
        raise ValueError(
            f"pos_encoding_mode is {pos_encoding_mode!r} and window_left {window_left}, expected"
            " 'NONE' and -1: with several levels a key's position in the sequence is not known;"
            " rotate queries and keys before"
        )


@_docs.arguments(_docs.ATTENTION)
class MultiLevelCascadeAttentionWrapper:
    """Attention over several levels of a paged KV cache, such as a prompt, a user, a request.

    Level i has its own grouping of the query tokens, ``qo_indptr_arr[i]``: those that share a page
    table there. ``causal`` is for the last level, the others are prefixes that all queries see.

    Args:
        num_levels: number of levels, 1 or more.
        float_workspace_buffer: scratch on the device to run on; levels run in order and share it.
        use_cuda_graph: as for :class:`flashinfer.BatchPrefillWithPagedKVCacheWrapper`, where the
            buffers that follow are described, of which there is one for each level.
        qo_indptr_buf_arr: for graphs.
        paged_kv_indptr_buf_arr: for graphs.
        paged_kv_indices_buf_arr: for graphs.
        paged_kv_last_page_len_buf_arr: for graphs.
    """

    def __init__(
        self,
        num_levels: int,
        float_workspace_buffer: torch.Tensor,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        qo_indptr_buf_arr: list[torch.Tensor] | None = None,
        paged_kv_indptr_buf_arr: list[torch.Tensor] | None = None,
        paged_kv_indices_buf_arr: list[torch.Tensor] | None = None,
        paged_kv_last_page_len_buf_arr: list[torch.Tensor] | None = None,
    ) -> None:
        if num_levels < 1:
            raise ValueError(f"num_levels is {num_levels}, expected 1 or more")
        self._num_levels = num_levels
        self._use_cuda_graph = use_cuda_graph
        arrays: list[Sequence[torch.Tensor | None]] = []
        for name, array in (
            ("qo_indptr_buf_arr", qo_indptr_buf_arr),
            ("paged_kv_indptr_buf_arr", paged_kv_indptr_buf_arr),
            ("paged_kv_indices_buf_arr", paged_kv_indices_buf_arr),
            ("paged_kv_last_page_len_buf_arr", paged_kv_last_page_len_buf_arr),
        ):
            if use_cuda_graph:
                self._per_level(name, array)
            arrays.append(array if array is not None else [None] * num_levels)
        self._batch_prefill_wrappers = [
            BatchPrefillWithPagedKVCacheWrapper(
                float_workspace_buffer, kv_layout, use_cuda_graph, *buffers
            )
            for buffers in zip(*arrays)
        ]

    def _per_level(self, name: str, array: Sequence[Any] | None) -> Sequence[Any]:
        if array is None or len(array) != self._num_levels:
            found = "None" if array is None else f"of {len(array)} tensors"
            raise ValueError(f"{name} is {found}, expected {self._num_levels}: one for each level")
        return array

    @property
    def is_cuda_graph_enabled(self) -> bool:
        """Whether the wrapper keeps its buffers and sizes, so that a graph can capture run."""
        return self._use_cuda_graph

    def reset_workspace_buffer(
        self, float_workspace_buffer: torch.Tensor, int_workspace_buffers: list[torch.Tensor]
    ) -> None:
        """Takes another workspace, before a plan.

        Args:
            float_workspace_buffer: as in the constructor.
            int_workspace_buffers: not used, one for each level.
        """
        self._per_level("int_workspace_buffers", int_workspace_buffers)
        for wrapper, buffer in zip(self._batch_prefill_wrappers, int_workspace_buffers):
            wrapper.reset_workspace_buffer(float_workspace_buffer, buffer)

    @_forms.renamed(use_fp16_qk_reduction="allow_fp16_qk_reduction")
    def plan(
        self,
        qo_indptr_arr: list[torch.Tensor],
        paged_kv_indptr_arr: list[torch.Tensor],
        paged_kv_indices_arr: list[torch.Tensor],
        paged_kv_last_page_len: list[torch.Tensor],
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
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
    ) -> None:
        """Plans every level; ``begin_forward`` is the same.

        Arguments are those of :meth:`flashinfer.BatchPrefillWithPagedKVCacheWrapper.plan`, the
        first four as lists with a tensor for each level. With more than one level,
        ``pos_encoding_mode`` must be ``"NONE"`` and ``window_left`` -1.

        Raises:
            ValueError: as there, or a list has another number of tensors than there are levels.
            TypeError: a dtype is wrong, or an argument is not a tensor.
        """
        levels = list(
            zip(
                self._per_level("qo_indptr_arr", qo_indptr_arr),
                self._per_level("paged_kv_indptr_arr", paged_kv_indptr_arr),
                self._per_level("paged_kv_indices_arr", paged_kv_indices_arr),
                self._per_level("paged_kv_last_page_len", paged_kv_last_page_len),
            )
        )
        if self._num_levels > 1:
            _positions_of_levels(pos_encoding_mode, window_left)
        last = self._num_levels - 1
        for i, (wrapper, tables) in enumerate(zip(self._batch_prefill_wrappers, levels)):
            wrapper.plan(
                *tables,
                num_qo_heads,
                num_kv_heads,
                head_dim,
                page_size,
                causal=causal and i == last,
                pos_encoding_mode=pos_encoding_mode,
                sm_scale=sm_scale,
                window_left=window_left,
                logits_soft_cap=logits_soft_cap,
                rope_scale=rope_scale,
                rope_theta=rope_theta,
                q_data_type=q_data_type,
                kv_data_type=kv_data_type,
            )

    begin_forward = plan

    def run(self, q: torch.Tensor, paged_kv_cache: KVCache) -> torch.Tensor:
        """Attention over all levels; ``forward`` is the same.

        Args:
            q: ``[nnz, num_qo_heads, head_dim]``.
            paged_kv_cache: as for :meth:`flashinfer.BatchPrefillWithPagedKVCacheWrapper.run`, the
                pages of all levels.

        Returns:
            ``[nnz, num_qo_heads, head_dim]``, like ``q``.

        Raises:
            ValueError: a shape or a device is not as planned.
            TypeError: a dtype is wrong, or an argument is not a tensor.
            RuntimeError: there is no plan.
        """
        *others, last = self._batch_prefill_wrappers
        out, lse = last.run(q, paged_kv_cache, return_lse=True)
        for wrapper in reversed(others):
            merge_state_inplace(out, lse, *wrapper.run(q, paged_kv_cache, return_lse=True), None)
        return out

    forward = run

    def end_forward(self) -> None:
        """Does nothing; of the FlashInfer API before ``plan`` and ``run``."""


@_docs.arguments(_docs.ATTENTION)
class BatchDecodeWithSharedPrefixPagedKVCacheWrapper:
    """Decode attention of a batch that has one prefix in common, and unique keys in pages.

    Args:
        float_workspace_buffer: scratch on the device to run on, any dtype.
    """

    def __init__(self, float_workspace_buffer: torch.Tensor, kv_layout: str = "NHD") -> None:
        self._unique = BatchDecodeWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout)
        self._hnd = _attention.check_layout(kv_layout)

    def reset_workspace_buffer(
        self, float_workspace_buffer: torch.Tensor, int_workspace_buffer: torch.Tensor
    ) -> None:
        """Takes another workspace, before ``begin_forward``.

        Args:
            float_workspace_buffer: as in the constructor.
            int_workspace_buffer: not used.
        """
        self._unique.reset_workspace_buffer(float_workspace_buffer, int_workspace_buffer)

    def begin_forward(
        self,
        unique_kv_indptr: torch.Tensor,
        unique_kv_indices: torch.Tensor,
        unique_kv_last_page_len: torch.Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
        data_type: str | torch.dtype | None = "float16",
    ) -> None:
        """Plans for a batch.

        Arguments are those of :meth:`flashinfer.BatchDecodeWithPagedKVCacheWrapper.plan`.
        """
        self._unique.plan(
            unique_kv_indptr,
            unique_kv_indices,
            unique_kv_last_page_len,
            num_qo_heads,
            num_kv_heads,
            head_dim,
            page_size,
            data_type=data_type,
        )

    def forward(
        self,
        q: torch.Tensor,
        k_shared: torch.Tensor,
        v_shared: torch.Tensor,
        unique_kv_cache: KVCache,
    ) -> torch.Tensor:
        """Attention over the shared and the unique keys.

        Args:
            q: ``[batch_size, num_qo_heads, head_dim]``.
            k_shared: ``[shared_len, num_kv_heads, head_dim]`` (NHD) or
                ``[num_kv_heads, shared_len, head_dim]`` (HND).
            v_shared: like ``k_shared``.
            unique_kv_cache: as for :meth:`flashinfer.BatchDecodeWithPagedKVCacheWrapper.run`.

        Returns:
            ``[batch_size, num_qo_heads, head_dim]``, like ``q``.

        Raises:
            ValueError: a shape or a device is wrong.
            TypeError: a dtype is wrong, or an argument is not a tensor.
            RuntimeError: there was no ``begin_forward``.
        """
        unique = self._unique.run(q, unique_kv_cache, return_lse=True)
        return _with_prefix(unique, q, k_shared, v_shared, self._hnd, None)

    def end_forward(self) -> None:
        """Does nothing; of the FlashInfer API before ``plan`` and ``run``."""


@_docs.arguments(_docs.ATTENTION)
class BatchPrefillWithSharedPrefixPagedKVCacheWrapper:
    """Prefill attention of a batch that has one prefix in common, and unique keys in pages.

    Args:
        float_workspace_buffer: scratch on the device to run on, any dtype.
    """

    def __init__(self, float_workspace_buffer: torch.Tensor, kv_layout: str = "NHD") -> None:
        self._unique = BatchPrefillWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout)
        self._hnd = _attention.check_layout(kv_layout)

    def reset_workspace_buffer(
        self, float_workspace_buffer: torch.Tensor, int_workspace_buffer: torch.Tensor
    ) -> None:
        """Takes another workspace, before ``begin_forward``.

        Args:
            float_workspace_buffer: as in the constructor.
            int_workspace_buffer: not used.
        """
        self._unique.reset_workspace_buffer(float_workspace_buffer, int_workspace_buffer)

    def begin_forward(
        self,
        qo_indptr: torch.Tensor,
        paged_kv_indptr: torch.Tensor,
        paged_kv_indices: torch.Tensor,
        paged_kv_last_page_len: torch.Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
    ) -> None:
        """Plans for a batch.

        Arguments are those of :meth:`flashinfer.BatchPrefillWithPagedKVCacheWrapper.plan`.
        """
        self._unique.plan(
            qo_indptr,
            paged_kv_indptr,
            paged_kv_indices,
            paged_kv_last_page_len,
            num_qo_heads,
            num_kv_heads,
            head_dim,
            page_size,
        )

    @_forms.renamed(use_fp16_qk_reduction="allow_fp16_qk_reduction")
    def forward(
        self,
        q: torch.Tensor,
        k_shared: torch.Tensor,
        v_shared: torch.Tensor,
        unique_kv_cache: KVCache,
        causal: bool | None = None,
        allow_fp16_qk_reduction: bool = False,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> torch.Tensor:
        """Attention over the shared keys, which all queries see, and the unique ones.

        Args:
            q: ``[qo_indptr[-1], num_qo_heads, head_dim]``.
            k_shared: ``[shared_len, num_kv_heads, head_dim]`` (NHD) or
                ``[num_kv_heads, shared_len, head_dim]`` (HND).
            v_shared: like ``k_shared``.
            unique_kv_cache: as for :meth:`flashinfer.BatchPrefillWithPagedKVCacheWrapper.run`.
            causal: of the unique keys. False by default in FlashInfer 0.2.0, and True in 0.1.6. A
                call without it warns and has the meaning of 0.2.0, or of the release that
                ``FLASHINFER_API`` names.
            rope_scale: without effect, there is no rotation.
            rope_theta: without effect.

        Returns:
            ``[qo_indptr[-1], num_qo_heads, head_dim]``, like ``q``.

        Raises:
            ValueError: a shape or a device is wrong.
            TypeError: a dtype is wrong, or an argument is not a tensor.
            RuntimeError: there was no ``begin_forward``.
        """
        causal = _api.causal(f"{type(self).__name__}.forward", causal)
        unique = self._unique.forward_return_lse(
            q, unique_kv_cache, causal=causal, sm_scale=sm_scale
        )
        return _with_prefix(unique, q, k_shared, v_shared, self._hnd, sm_scale)

    def end_forward(self) -> None:
        """Does nothing; of the FlashInfer API before ``plan`` and ``run``."""


def _with_prefix(
    unique: tuple[torch.Tensor, torch.Tensor],
    q: torch.Tensor,
    k_shared: torch.Tensor,
    v_shared: torch.Tensor,
    hnd: bool,
    sm_scale: float | None,
) -> torch.Tensor:
    """Merges the states over a prefix, which is one request for all queries, into ``unique``."""
    out, lse = unique
    chosen = _attention.options(q.shape[2], sm_scale=sm_scale)
    v, s = _single.attend(q, k_shared, v_shared, hnd, chosen, return_lse=True)
    merge_state_inplace(out, lse, v, s, None)
    return out
