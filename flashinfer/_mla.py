"""Decode of multi-head latent attention (MLA, of DeepSeek-V2) over a paged compressed cache.

All query heads share one row of the cache a key: a compressed part ``ckv``, which is key and value,
and a part ``kpe`` for RoPE, which is key only. The projections of keys and values are absorbed into
those of queries and output, so queries come in two parts of the same sizes:

    scores = sm_scale * (q_nope . ckv + rope(q_pe) . rope(kpe)),  out = softmax(scores) . ckv

As in FlashInfer 0.2.0, ``q_pe`` and the cached ``kpe`` come without RoPE and are turned in the
kernel: over pairs of neighbours (2i, 2i + 1), a key at its index in the request and the query at
the last key's, with ``rope_scale`` 1 and ``rope_theta`` 1e4 by default. Here a plan can also say
that they were turned before. ``sm_scale`` is always given, as the sizes that it comes from,
``1 / sqrt(qk_nope_head_dim + qk_rope_head_dim)``, are those before the absorption. Window and soft
cap, which 0.2.0 takes and whose kernel does not use, are what they are in
:mod:`flashinfer.decode`.
"""

from __future__ import annotations

from typing import Literal, overload

import torch

from flashinfer import _attention, _checks, _docs, _ops, _plan
from flashinfer._attention import Attended, Options
from flashinfer._wrapper import BatchDecodeWrapper, Wrapper, result, state

# What the kernels have: on CUDA one pair of sizes, on the CPU multiples of 8 up to a limit.
_CUDA_CKV, _CUDA_KPE = 512, 64
_CPU_CKV, _CPU_KPE = 512, 128


class MlaWrapper(Wrapper):
    """What the wrappers of multi-head latent attention share: the sizes there are, and runs."""

    _caches = ("paged_ckv_cache", "paged_kpe_cache")  # what they are called in run

    def _check_heads(self, heads: _plan.Heads) -> None:
        if heads.qo <= 0:
            raise ValueError(f"num_qo_heads is {heads.qo}, expected 1 or more")
        if self.device.type == "cuda":
            if heads.dim != _CUDA_CKV:
                raise ValueError(
                    f"head_dim_compressed_kv is {heads.dim}, expected {_CUDA_CKV} on CUDA"
                )
        elif heads.dim <= 0 or heads.dim > _CPU_CKV or heads.dim % 8 != 0:
            raise ValueError(
                f"head_dim_compressed_kv is {heads.dim}, expected a multiple of 8 up to {_CPU_CKV}"
            )

    def _latent(
        self,
        q_nope: torch.Tensor,
        q_pe: torch.Tensor,
        caches: tuple[torch.Tensor, torch.Tensor],
        chosen: Options,
        v_scale: float | None,
        return_lse: bool,
        out: torch.Tensor | None,
        lse: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        plan = self._ready(q_nope, exact=True, name="q_nope")
        ckv, kpe = caches
        self._check_run(plan, q_nope, q_pe, ckv, kpe)
        if _attention.DEBUG and not torch.compiler.is_compiling():
            assert self._kv_indices is not None
            _attention.check_pages(self._kv_indices, self._used_indices, ckv.shape[0])
        out, lse = _attention.allocate(q_nope, return_lse, out, lse, "q_nope")
        tensors = (_attention.rows(q_nope), _attention.rows(q_pe), ckv, kpe, self._kv_indices)
        options = chosen.after_causal(v_scale)
        planned = (out, lse, plan.words, plan.workspace)
        if plan.sizes is not None and _plan.compiling():
            _ops.planned_mla(*tensors, *planned, plan.sizes, *options)
        else:
            _ops.mla_decode(*tensors, *planned, *plan.capacity, *options)
        return out, lse

    def _check_run(
        self,
        plan: _plan.Plan,
        q_nope: torch.Tensor,
        q_pe: torch.Tensor,
        ckv: torch.Tensor,
        kpe: torch.Tensor,
    ) -> None:
        """Compares what comes to ``run`` with the plan and with each other."""
        _checks.dims("q_pe", q_pe, "[batch_size, num_qo_heads, head_dim_kpe]")
        ckv_name, kpe_name = self._caches
        _checks.dims(ckv_name, ckv, "[pages, page_size, head_dim_ckv]")
        _checks.dims(kpe_name, kpe, "[pages, page_size, head_dim_kpe]")
        for name, value in (("q_pe", q_pe), (ckv_name, ckv), (kpe_name, kpe)):
            _checks.like(name, value, "q_nope", q_nope)
        if q_pe.shape[:2] != q_nope.shape[:2]:
            raise ValueError(
                f"q_pe has shape {list(q_pe.shape)}, expected {list(q_nope.shape[:2])} tokens and"
                " heads as q_nope has"
            )
        width = q_pe.shape[2]
        if q_pe.is_cuda:
            if width != _CUDA_KPE:
                raise ValueError(f"q_pe has {width} elements a head, expected {_CUDA_KPE} on CUDA")
        elif width <= 0 or width > _CPU_KPE or width % 8 != 0:
            raise ValueError(
                f"q_pe has {width} elements a head, expected a multiple of 8 up to {_CPU_KPE}"
            )
        if ckv.shape[1] != self._page_size or ckv.shape[2] != plan.heads.dim:
            raise ValueError(
                f"{ckv_name} has shape {list(ckv.shape)}, expected pages of"
                f" {self._page_size} x {plan.heads.dim} as planned"
            )
        if kpe.shape[:2] != ckv.shape[:2] or kpe.shape[2] != width:
            raise ValueError(
                f"{kpe_name} has shape {list(kpe.shape)}, expected"
                f" {[*ckv.shape[:2], width]}: pages as {ckv_name} has, elements as q_pe"
            )


@_docs.arguments(
    _docs.ATTENTION,
    q_nope="``[batch_size, num_qo_heads, head_dim_ckv]``, the part without RoPE.",
    q_pe="``[batch_size, num_qo_heads, head_dim_kpe]``.",
    paged_ckv_cache="``[pages, page_size, head_dim_ckv]``.",
    paged_kpe_cache="``[pages, page_size, head_dim_kpe]``.",
    sm_scale="factor of the scores; None: the planned one.",
)
class BatchDecodeMlaWithPagedKVCacheWrapper(MlaWrapper, BatchDecodeWrapper):
    """Decode of multi-head latent attention: ``plan`` once a step, ``run`` per layer.

    float16 and bfloat16, on the CPU float32 too; head_dim_ckv 512 and head_dim_kpe 64 on CUDA, on
    the CPU any multiples of 8 up to 512 and 128; any number of heads and any page size.

    Example:
        >>> workspace = torch.empty(128 << 20, dtype=torch.uint8, device="cuda")
        >>> wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(workspace)
        >>> wrapper.plan(indptr, indices, last_page_len, 128, 512, 64, sm_scale=192**-0.5)
        >>> for layer in layers:
        ...     out = wrapper.run(layer.q_nope, layer.q_pe, layer.ckv_cache, layer.kpe_cache)

    Args:
        float_workspace_buffer: scratch on the device to run on, any dtype; 128 MiB is enough.
            Wrappers that run on one stream may share it.
        use_cuda_graph: keep all addresses and sizes, so that a graph that captured ``run`` can be
            replayed after another ``plan``. The batch size is then fixed, by the buffers.
        paged_kv_indptr_buffer: for graphs: int32 ``[batch_size + 1]``, written by ``plan``.
        paged_kv_indices_buffer: for graphs: int32, room for all pages that a plan may have.
        paged_kv_last_page_len_buffer: for graphs: int32 ``[batch_size]``.
    """

    def __init__(
        self,
        float_workspace_buffer: torch.Tensor,
        use_cuda_graph: bool = False,
        paged_kv_indptr_buffer: torch.Tensor | None = None,
        paged_kv_indices_buffer: torch.Tensor | None = None,
        paged_kv_last_page_len_buffer: torch.Tensor | None = None,
        *,
        use_tensor_cores: bool = False,
    ) -> None:
        super().__init__(float_workspace_buffer, use_cuda_graph=use_cuda_graph)
        self._prepare(
            paged_kv_indptr_buffer, paged_kv_indices_buffer, paged_kv_last_page_len_buffer
        )

    def plan(
        self,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        last_page_len: torch.Tensor,
        num_qo_heads: int,
        head_dim_compressed_kv: int,
        page_size: int,
        sm_scale: float,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        data_type: str | torch.dtype | None = "float16",
        q_data_type: str | torch.dtype | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        *,
        pos_encoding_mode: str = "ROPE_LLAMA",
    ) -> None:
        """Plans for a batch; ``begin_forward`` is the same.

        Index tensors are int32 (int64 is converted), on the host or on a device; on the host they
        cost nothing, on a device the host waits for them.

        Args:
            indptr: ``[batch_size + 1]``, where each request begins in ``indices``.
            indices: ``[indptr[-1]]``, the pages of all requests, one request after another.
            last_page_len: ``[batch_size]``, entries in use in the last page, 1..page_size.
            head_dim_compressed_kv: elements of a row of the compressed cache (kv_lora_rank).
            sm_scale: factor of the scores: ``1 / sqrt(qk_nope_head_dim + qk_rope_head_dim)``.
            data_type: dtype of the cache, or its name; a plan does not depend on it.
            q_data_type: dtype of the queries, or its name; a plan does not depend on it.
            pos_encoding_mode: ``"ROPE_LLAMA"``, or ``"NONE"`` where ``q_pe`` and the cached ``kpe``
                have been turned already. Not in FlashInfer, which always turns them.

        Raises:
            ValueError: a shape or a number is wrong, offsets decrease, or a CUDA graph's buffer is
                too small.
            TypeError: a dtype is wrong, or an argument is not a tensor.
        """
        for name, dtype in (("data_type", data_type), ("q_data_type", q_data_type)):
            _attention.check_dtype(name, dtype)
        if sm_scale is None:
            raise ValueError(
                "sm_scale is None, expected 1 / sqrt(qk_nope_head_dim + qk_rope_head_dim)"
            )
        if pos_encoding_mode not in ("ROPE_LLAMA", "NONE"):
            raise _checks.UnknownName(
                f"pos_encoding_mode is {pos_encoding_mode!r}, expected 'ROPE_LLAMA' or 'NONE'"
            )
        chosen = _attention.options(
            head_dim_compressed_kv,
            pos_encoding_mode=pos_encoding_mode,
            window_left=window_left,
            logits_soft_cap=logits_soft_cap,
            sm_scale=sm_scale,
            rope_scale=rope_scale,
            rope_theta=rope_theta,
        )
        heads = _plan.Heads(num_qo_heads, 1, head_dim_compressed_kv)
        self._plan_decode(indptr, indices, last_page_len, heads, page_size, chosen)

    begin_forward = plan

    @overload
    def run(
        self,
        q_nope: torch.Tensor,
        q_pe: torch.Tensor,
        paged_ckv_cache: torch.Tensor,
        paged_kpe_cache: torch.Tensor,
        q_scale: float | None = ...,
        k_scale: float | None = ...,
        v_scale: float | None = ...,
        return_lse: Literal[False] = ...,
        *,
        out: torch.Tensor | None = ...,
        enable_pdl: bool | None = ...,
    ) -> torch.Tensor: ...

    @overload
    def run(
        self,
        q_nope: torch.Tensor,
        q_pe: torch.Tensor,
        paged_ckv_cache: torch.Tensor,
        paged_kpe_cache: torch.Tensor,
        q_scale: float | None = ...,
        k_scale: float | None = ...,
        v_scale: float | None = ...,
        *,
        return_lse: Literal[True],
        out: torch.Tensor | None = ...,
        enable_pdl: bool | None = ...,
        lse: torch.Tensor | None = ...,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    @overload
    def run(
        self,
        q_nope: torch.Tensor,
        q_pe: torch.Tensor,
        paged_ckv_cache: torch.Tensor,
        paged_kpe_cache: torch.Tensor,
        q_scale: float | None = ...,
        k_scale: float | None = ...,
        v_scale: float | None = ...,
        return_lse: bool = ...,
        *,
        out: torch.Tensor | None = ...,
        enable_pdl: bool | None = ...,
        lse: torch.Tensor | None = ...,
    ) -> Attended: ...

    def run(
        self,
        q_nope: torch.Tensor,
        q_pe: torch.Tensor,
        paged_ckv_cache: torch.Tensor,
        paged_kpe_cache: torch.Tensor,
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        return_lse: bool = False,
        *,
        out: torch.Tensor | None = None,
        lse: torch.Tensor | None = None,
        enable_pdl: bool | None = None,
    ) -> Attended:
        """Attention of the batch that was planned for.

        The caches may have any strides, as long as their last dimension is contiguous: they may be
        slices of one tensor.

        Returns:
            ``[batch_size, num_qo_heads, head_dim_ckv]``, like ``q_nope``; with ``return_lse`` also
            fp32 ``[batch_size, num_qo_heads]``.

        Raises:
            ValueError: a shape or a device is not as planned; on the CPU also a page that is not in
                the cache.
            TypeError: a dtype is wrong, or an argument is not a tensor.
            RuntimeError: there is no plan.
        """
        chosen = _attention.scaled(self._options, q_scale, k_scale)
        caches = (paged_ckv_cache, paged_kpe_cache)
        return result(self._latent(q_nope, q_pe, caches, chosen, v_scale, return_lse, out, lse))

    def run_return_lse(
        self,
        q_nope: torch.Tensor,
        q_pe: torch.Tensor,
        paged_ckv_cache: torch.Tensor,
        paged_kpe_cache: torch.Tensor,
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        *,
        out: torch.Tensor | None = None,
        lse: torch.Tensor | None = None,
        enable_pdl: bool | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`run` with ``return_lse``."""
        chosen = _attention.scaled(self._options, q_scale, k_scale)
        caches = (paged_ckv_cache, paged_kpe_cache)
        return state(self._latent(q_nope, q_pe, caches, chosen, v_scale, True, out, lse))

    def forward(
        self,
        q_nope: torch.Tensor,
        q_pe: torch.Tensor,
        paged_ckv_cache: torch.Tensor,
        paged_kpe_cache: torch.Tensor,
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> torch.Tensor:
        """:meth:`run` with these options in place of the planned ones, defaults included.

        Only ``sm_scale``, which has no default, is the planned one where None.
        """
        chosen = self._changed(window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta)
        chosen = _attention.scaled(chosen, q_scale, k_scale)
        caches = (paged_ckv_cache, paged_kpe_cache)
        return self._latent(q_nope, q_pe, caches, chosen, v_scale, False, None, None)[0]

    def forward_return_lse(
        self,
        q_nope: torch.Tensor,
        q_pe: torch.Tensor,
        paged_ckv_cache: torch.Tensor,
        paged_kpe_cache: torch.Tensor,
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`forward`, which returns ``(out, lse)``."""
        chosen = self._changed(window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta)
        chosen = _attention.scaled(chosen, q_scale, k_scale)
        caches = (paged_ckv_cache, paged_kpe_cache)
        return state(self._latent(q_nope, q_pe, caches, chosen, v_scale, True, None, None))

    def _changed(
        self,
        window_left: int,
        logits_soft_cap: float | None,
        sm_scale: float | None,
        rope_scale: float | None,
        rope_theta: float | None,
    ) -> Options:
        """The options of ``forward``."""
        planned = self._options
        return self._override(
            planned.pos_encoding,
            window_left,
            logits_soft_cap,
            planned.sm_scale if sm_scale is None else sm_scale,
            rope_scale,
            rope_theta,
        )


def _run_planned(
    q_nope: torch.Tensor,
    q_pe: torch.Tensor,
    ckv: torch.Tensor,
    kpe: torch.Tensor,
    kv_indices: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    plan: torch.Tensor,
    workspace: torch.Tensor,
    sizes: torch.Tensor,
    *options: int | float | str,
) -> None:
    """What the op does on the CPU and on CUDA, as that of ``flashinfer._attention``."""
    *capacity, tokens, _ = sizes.tolist()
    _attention.check_rows("q_nope", q_nope, tokens, exact=True)
    tensors = (q_nope, q_pe, ckv, kpe, kv_indices, out, lse, plan, workspace)
    _ops.mla_decode(*tensors, *capacity, *options)


_ops.implement("planned_mla", _run_planned)
