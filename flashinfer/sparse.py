"""Block-sparse attention: the mask is a matrix of blocks, given by its non-zero blocks (BSR)."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch

from flashinfer import _attention, _checks, _docs, _forms, _plan
from flashinfer._attention import Attended, Options
from flashinfer._masks import Masks
from flashinfer._wrapper import NEW, Into, Wrapper, result

__all__ = ["BlockSparseAttentionWrapper", "convert_bsr_mask_layout"]


def convert_bsr_mask_layout(mask: torch.Tensor, indptr: torch.Tensor) -> torch.Tensor:
    """A mask by blocks as a mask by rows: what a custom mask is.

    Args:
        mask: ``[nnz, R, C]``, one block after another.
        indptr: ``[blocks of rows + 1]``, int32 or int64, where each row of blocks begins.

    Returns:
        ``[nnz * R * C]``: for every row of blocks ``[R, blocks * C]``, one after another.

    Raises:
        ValueError: a shape is wrong, or ``indptr`` decreases.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    _checks.dims("mask", mask, "[nnz, R, C]")
    offsets = _plan.host_indptr("indptr", indptr)
    if int(offsets[-1]) != mask.shape[0]:
        raise ValueError(
            f"mask has shape {list(mask.shape)}, expected {int(offsets[-1])} blocks as indptr has"
        )
    bounds = offsets.tolist()
    flat = [mask[begin:end].transpose(0, 1).reshape(-1) for begin, end in zip(bounds, bounds[1:])]
    return torch.cat(flat) if flat else mask.new_empty(0)


@_docs.arguments(
    _docs.ATTENTION,
    q="``[M, num_qo_heads, head_dim]``.",
    k="``[N, num_kv_heads, head_dim]``.",
    v="like ``k``.",
)
class BlockSparseAttentionWrapper(Wrapper):
    """Attention where blocks of ``R`` queries see blocks of ``C`` keys, given as a BSR matrix.

    Example:
        >>> wrapper = flashinfer.BlockSparseAttentionWrapper(workspace)
        >>> # 4 queries and 6 keys in blocks of 2 x 2: block (0, 1), and blocks (1, 0) and (1, 2)
        >>> wrapper.plan(indptr, indices, 4, 6, 2, 2, num_qo_heads, num_kv_heads, head_dim)
        >>> out = wrapper.run(q, k, v)

    Args:
        float_workspace_buffer: scratch on the device to run on, any dtype; 128 MiB is enough.
    """

    def __init__(self, float_workspace_buffer: torch.Tensor, backend: str = "auto") -> None:
        super().__init__(float_workspace_buffer)

    @_forms.renamed(use_fp16_qk_reduction="allow_fp16_qk_reduction")
    def plan(
        self,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        M: int,
        N: int,
        R: int,
        C: int,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        mask: torch.Tensor | None = None,
        packed_mask: torch.Tensor | None = None,
        causal: bool | str = False,
        pos_encoding_mode: str | bool = "NONE",
        allow_fp16_qk_reduction: bool | float | None = False,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: Any = None,
        q_data_type: str | torch.dtype | None = "float16",
        kv_data_type: str | torch.dtype | None = None,
        non_blocking: bool = False,
        *,
        o_data_type: str | torch.dtype | None = None,
    ) -> None:
        """Plans for a matrix; ``begin_forward`` is the same.

        A call of FlashInfer 0.1.6, which has ``pos_encoding_mode`` in the place of ``causal`` and
        so on, works too.

        Args:
            indptr: ``[ceil(M / R) + 1]``, where each row of blocks begins in ``indices``.
            indices: ``[nnz]``, columns of the non-zero blocks, in 0..N/C - 1.
            M: queries.
            N: keys, a multiple of ``C``.
            R: queries of a block.
            C: keys of a block.
            mask: ``[nnz, R, C]``, bool: which pairs within the blocks count. None: all.
            packed_mask: uint8, the mask by rows (:func:`convert_bsr_mask_layout`) as
                :func:`flashinfer.segment_packbits` packs it with ``bitorder="little"``, one
                segment for each row of blocks. It is used where both are given.
            causal: of a row of blocks over its own keys: the last of its queries sees all, the
                one before it all but the last. Without effect where there is a mask.
            pos_encoding_mode: ``"NONE"``, ``"ROPE_LLAMA"`` or ``"ALIBI"``; positions count within a
                row of blocks.

        Index tensors are int32 (int64 is converted), on the host or on a device; on a device the
        host waits for them.

        Raises:
            ValueError: a shape or a number is wrong, or ``indptr`` decreases.
            TypeError: a dtype is wrong, or an argument is not a tensor.
        """
        if isinstance(causal, str):
            # 0.1.6 has no causal: everything after it is one place earlier.
            q_data_type = rope_theta if rope_theta is not None else q_data_type
            causal, pos_encoding_mode, logits_soft_cap, sm_scale, rope_scale, rope_theta = (
                False,
                causal,
                *(allow_fp16_qk_reduction or None, logits_soft_cap, sm_scale, rope_scale),
            )
        _attention.check_dtype("q_data_type", q_data_type)
        _attention.check_dtype("kv_data_type", kv_data_type)
        self._o_data_type = _attention.check_dtype("o_data_type", o_data_type)
        chosen = _attention.options(
            head_dim,
            causal=causal,
            pos_encoding_mode=str(pos_encoding_mode),
            logits_soft_cap=logits_soft_cap,
            sm_scale=sm_scale,
            rope_scale=rope_scale,
            rope_theta=rope_theta,
        )
        if R <= 0 or C <= 0 or M < 0 or N < 0 or N % C != 0:
            raise ValueError(
                f"M, N, R, C are {M}, {N}, {R}, {C}, expected R and C of 1 or more, and N a"
                " multiple of C"
            )
        block_rows = -(-M // R)
        offsets = _plan.host_indptr("indptr", indptr, block_rows)
        nnz = int(offsets[-1])
        columns = _plan.page_indices("indices", indices, nnz, self.device)
        if columns.device.type == "cpu" and nnz:
            _attention.check_pages(columns, nnz, N // C)
        if mask is not None and packed_mask is None:
            _checks.shape("mask", mask, (nnz, R, C), "[nnz, R, C]")
            if M % R != 0:
                # The queries of the last row of blocks that are not there have no bits.
                raise ValueError(f"M is {M}, expected a multiple of R, {R}, with a mask by blocks")
            mask = convert_bsr_mask_layout(mask, offsets)
        queries = (torch.arange(block_rows + 1, dtype=torch.int32) * R).clamp(max=M)
        self._make_plan(
            _plan.Requests(queries, offsets[:-1], offsets.diff() * C),
            _plan.Heads(num_qo_heads, num_kv_heads, head_dim),
            chosen,
            kv_indices=columns,
            used_indices=nnz,
            page_size=C,
            masks=Masks(mask, packed_mask, ("mask", "packed_mask")),
        )
        self._keys = N

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
        """Attention under the mask that was planned for.

        Returns:
            ``[M, num_qo_heads, head_dim]``, like ``q``; with ``return_lse`` also fp32
            ``[M, num_qo_heads]``.

        Raises:
            ValueError: a shape or a device is not as planned.
            TypeError: a dtype is wrong, or an argument is not a tensor.
            RuntimeError: there is no plan.
        """
        return result(self._blocks(q, k, v, self._options, return_lse, Into(out, lse)))

    def _blocks(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        chosen: Options,
        return_lse: bool,
        into: Into = NEW,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        self._ready(q, exact=True)
        for name, rows in (("k", k), ("v", v)):
            _checks.dims(name, rows, "[N, num_kv_heads, head_dim]")
            if rows.shape[0] != self._keys:
                raise ValueError(f"{name} has {rows.shape[0]} rows, expected N, {self._keys}")
        # A column of blocks is a page of C keys.
        paged = (self._keys // self._page_size, self._page_size)
        k, v = k.view(*paged, *k.shape[1:]), v.view(*paged, *v.shape[1:])
        return self._attend(q, k, v, chosen, None, return_lse, hnd=False, exact=True, into=into)

    @_forms.renamed(use_fp16_qk_reduction="allow_fp16_qk_reduction")
    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        pos_encoding_mode: str = "NONE",
        allow_fp16_qk_reduction: bool = False,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> torch.Tensor:
        """:meth:`run` with these options in place of the planned ones, defaults included."""
        chosen = self._override(
            pos_encoding_mode,
            -1,
            logits_soft_cap,
            sm_scale,
            rope_scale,
            rope_theta,
            self._options.causal,
        )
        return self._blocks(q, k, v, chosen, False)[0]
