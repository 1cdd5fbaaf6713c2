"""Decode attention: one query token for each request, over contiguous or paged keys and values.

Common to all attention functions of this package:

* Queries are float16, bfloat16, or float32 on the CPU; keys and values have their dtype, or
  float8_e4m3fn or float8_e5m2. The output has the dtype of the queries; sums are in fp32.
* ``num_qo_heads`` is a multiple of ``num_kv_heads``; query head h uses KV head
  ``h // (num_qo_heads // num_kv_heads)``. ``head_dim`` is 64, 128 or 256 on CUDA.
* The last dimension of every tensor is contiguous, others may have any stride (of queries, a copy
  is made where that is not so).
* A log-sum-exp is fp32, to base 2: ``log2(sum_j exp(x_j))`` of the scores x, ``-inf`` where no key
  is seen; the output is then 0.
* With ``pos_encoding_mode`` other than ``"NONE"`` and with a window, queries are right-aligned with
  the keys: the last one is at ``kv_len - 1``.
* What the arguments mean is said with each function (``help()`` shows it), and in
  ``flashinfer/_docs.py`` for all.
* ``FLASHINFER_DEBUG=1`` in the environment at import compares page indices with the cache in every
  run, also on CUDA, where that waits for the device; on the CPU they are always compared.
* ValueError names a wrong shape, number, layout or device; TypeError a wrong dtype or an argument
  that is no tensor; RuntimeError a run before its plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch

from flashinfer import _attention, _docs, _plan, _single
from flashinfer._attention import Attended, KVCache, Options
from flashinfer._mla import BatchDecodeMlaWithPagedKVCacheWrapper
from flashinfer._wrapper import NEW, BatchDecodeWrapper, Into, result, splits, state

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "BatchDecodeMlaWithPagedKVCacheWrapper",
    "BatchDecodeWithPagedKVCacheWrapper",
    "CUDAGraphBatchDecodeWithPagedKVCacheWrapper",
    "fast_decode_plan",
    "single_decode_with_kv_cache",
]


def _grouped_size_compiled_for_decode_kernels(num_qo_heads: int, num_kv_heads: int) -> bool:
    """Whether decode has a kernel for the group size: for any. SGLang asks."""
    return num_kv_heads > 0 and num_qo_heads % num_kv_heads == 0


@overload
def single_decode_with_kv_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kv_layout: str = ...,
    pos_encoding_mode: str = ...,
    use_tensor_cores: bool = ...,
    q_scale: float | None = ...,
    k_scale: float | None = ...,
    v_scale: float | None = ...,
    window_left: int = ...,
    logits_soft_cap: float | None = ...,
    sm_scale: float | None = ...,
    rope_scale: float | None = ...,
    rope_theta: float | None = ...,
    return_lse: Literal[False] = ...,
) -> torch.Tensor: ...


@overload
def single_decode_with_kv_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kv_layout: str = ...,
    pos_encoding_mode: str = ...,
    use_tensor_cores: bool = ...,
    q_scale: float | None = ...,
    k_scale: float | None = ...,
    v_scale: float | None = ...,
    window_left: int = ...,
    logits_soft_cap: float | None = ...,
    sm_scale: float | None = ...,
    rope_scale: float | None = ...,
    rope_theta: float | None = ...,
    *,
    return_lse: Literal[True],
) -> tuple[torch.Tensor, torch.Tensor]: ...


@_docs.arguments(_docs.ATTENTION)
def single_decode_with_kv_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kv_layout: str = "NHD",
    pos_encoding_mode: str = "NONE",
    use_tensor_cores: bool = False,
    q_scale: float | None = None,
    k_scale: float | None = None,
    v_scale: float | None = None,
    window_left: int = -1,
    logits_soft_cap: float | None = None,
    sm_scale: float | None = None,
    rope_scale: float | None = None,
    rope_theta: float | None = None,
    return_lse: bool = False,
) -> Attended:
    """Attention of one query token over the keys and values of one request.

    Its plan depends on shapes alone and is kept, so a repeated call costs no planning.

    Args:
        q: ``[num_qo_heads, head_dim]``.
        k: ``[kv_len, num_kv_heads, head_dim]`` (NHD) or ``[num_kv_heads, kv_len, head_dim]`` (HND).
        v: like ``k``.

    Returns:
        ``[num_qo_heads, head_dim]``, like ``q``; with ``return_lse`` also fp32 ``[num_qo_heads]``.

    Raises:
        ValueError: a shape, a device, a layout or an option is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    _attention.check_query("q", q, "[num_qo_heads, head_dim]")
    chosen = _attention.options(
        q.shape[1],
        pos_encoding_mode=pos_encoding_mode,
        window_left=window_left,
        logits_soft_cap=logits_soft_cap,
        sm_scale=sm_scale,
        rope_scale=rope_scale,
        rope_theta=rope_theta,
    )
    chosen = _attention.scaled(chosen, q_scale, k_scale)
    hnd = _attention.check_layout(kv_layout)
    out, lse = _single.attend(q[None], k, v, hnd, chosen, v_scale=v_scale, return_lse=return_lse)
    return out[0] if lse is None else (out[0], lse[0])


@_docs.arguments(
    _docs.ATTENTION,
    q="``[batch_size, num_qo_heads, head_dim]``.",
)
class BatchDecodeWithPagedKVCacheWrapper(BatchDecodeWrapper):
    """Decode attention of a batch over a paged KV cache: ``plan`` once a step, ``run`` per layer.

    Example:
        >>> workspace = torch.empty(128 << 20, dtype=torch.uint8, device="cuda")
        >>> wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD")
        >>> wrapper.plan(indptr, indices, last_page_len, 32, 8, 128, page_size=16)
        >>> for layer in layers:
        ...     out = wrapper.run(layer.q, layer.kv_cache)

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
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        use_tensor_cores: bool = False,
        paged_kv_indptr_buffer: torch.Tensor | None = None,
        paged_kv_indices_buffer: torch.Tensor | None = None,
        paged_kv_last_page_len_buffer: torch.Tensor | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(float_workspace_buffer, kv_layout, use_cuda_graph)
        self._use_tensor_cores = use_tensor_cores
        self._prepare(
            paged_kv_indptr_buffer, paged_kv_indices_buffer, paged_kv_last_page_len_buffer
        )

    @property
    def use_tensor_cores(self) -> bool:
        """As given; it makes no difference."""
        return self._use_tensor_cores

    def plan(
        self,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        last_page_len: torch.Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
        pos_encoding_mode: str = "NONE",
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        q_data_type: str | torch.dtype | None = "float16",
        kv_data_type: str | torch.dtype | None = None,
        data_type: str | torch.dtype | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        non_blocking: bool = False,
        *,
        o_data_type: str | torch.dtype | None = None,
        fixed_split_size: int | None = None,
        disable_split_kv: bool = False,
        **hints: Unpack[_attention.Hints],
    ) -> None:
        """Plans for a batch; ``begin_forward`` is the same.

        Index tensors are int32 (int64 is converted), on the host or on a device; on the host they
        cost nothing, on a device the host waits for them. A call of FlashInfer 0.1.6, with the
        dtypes ``data_type, q_data_type`` in 11th and 12th place and ``sm_scale`` after them, works.

        Args:
            indptr: ``[batch_size + 1]``, where each request begins in ``indices``.
            indices: ``[indptr[-1]]``, the pages of all requests, one request after another.
            last_page_len: ``[batch_size]``, entries in use in the last page, 1..page_size.

        Raises:
            ValueError: a shape or a number is wrong, offsets decrease, or a CUDA graph's buffer is
                too small.
            TypeError: a dtype is wrong, or an argument is not a tensor.
        """
        if isinstance(data_type, (int, float)) and not isinstance(data_type, bool):
            # 0.1.6, which has sm_scale, rope_scale, rope_theta one place earlier.
            data_type, sm_scale, rope_scale, rope_theta = None, data_type, sm_scale, rope_scale
        for name, dtype in (
            ("q_data_type", q_data_type),
            ("kv_data_type", kv_data_type),
            ("data_type", data_type),
        ):
            _attention.check_dtype(name, dtype)
        self._o_data_type = _attention.check_dtype("o_data_type", o_data_type)
        _attention.check_hints(f"{type(self).__name__}.plan", hints)
        chosen = _attention.options(
            head_dim,
            pos_encoding_mode=pos_encoding_mode,
            window_left=window_left,
            logits_soft_cap=logits_soft_cap,
            sm_scale=sm_scale,
            rope_scale=rope_scale,
            rope_theta=rope_theta,
        )
        heads = _plan.Heads(num_qo_heads, num_kv_heads, head_dim)
        split = splits(fixed_split_size, disable_split_kv)
        self._plan_decode(indptr, indices, last_page_len, heads, page_size, chosen, split)

    begin_forward = plan

    @overload
    def run(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        q_scale: float | None = ...,
        k_scale: float | None = ...,
        v_scale: float | None = ...,
        return_lse: Literal[False] = ...,
        *,
        out: torch.Tensor | None = ...,
        enable_pdl: bool | None = ...,
        window_left: int | None = ...,
    ) -> torch.Tensor: ...

    @overload
    def run(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        q_scale: float | None = ...,
        k_scale: float | None = ...,
        v_scale: float | None = ...,
        *,
        return_lse: Literal[True],
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
        q_scale: float | None = ...,
        k_scale: float | None = ...,
        v_scale: float | None = ...,
        return_lse: bool = ...,
        *,
        out: torch.Tensor | None = ...,
        lse: torch.Tensor | None = ...,
        enable_pdl: bool | None = ...,
        window_left: int | None = ...,
    ) -> Attended: ...

    def run(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        return_lse: bool = False,
        *,
        out: torch.Tensor | None = None,
        lse: torch.Tensor | None = None,
        enable_pdl: bool | None = None,
        window_left: int | None = None,
    ) -> Attended:
        """Attention of the batch that was planned for.

        Args:
            window_left: in place of the planned one, where given.

        Returns:
            ``[batch_size, num_qo_heads, head_dim]``, like ``q``; with ``return_lse`` also fp32
            ``[batch_size, num_qo_heads]``.

        Raises:
            ValueError: a shape or a device is not as planned; on the CPU also a page that is not in
                the cache.
            TypeError: a dtype is wrong, or an argument is not a tensor.
            RuntimeError: there is no plan.
        """
        chosen, into = _attention.with_window(self._options, window_left), Into(out, lse)
        return result(
            self._decode(q, paged_kv_cache, chosen, q_scale, k_scale, v_scale, return_lse, into)
        )

    def run_return_lse(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        *,
        out: torch.Tensor | None = None,
        lse: torch.Tensor | None = None,
        enable_pdl: bool | None = None,
        window_left: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`run` with ``return_lse``.

        Args:
            window_left: in place of the planned one, where given.
        """
        chosen, into = _attention.with_window(self._options, window_left), Into(out, lse)
        return state(self._decode(q, paged_kv_cache, chosen, q_scale, k_scale, v_scale, True, into))

    def _decode(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        chosen: Options,
        q_scale: float | None,
        k_scale: float | None,
        v_scale: float | None,
        return_lse: bool,
        into: Into = NEW,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        chosen = _attention.scaled(chosen, q_scale, k_scale)
        return self._attend_paged(q, paged_kv_cache, chosen, v_scale, return_lse, True, into)

    def forward(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        pos_encoding_mode: str = "NONE",
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> torch.Tensor:
        """:meth:`run` with these options in place of the planned ones, defaults included."""
        chosen = self._override(
            pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta
        )
        return self._decode(q, paged_kv_cache, chosen, q_scale, k_scale, v_scale, False)[0]

    def forward_return_lse(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        pos_encoding_mode: str = "NONE",
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
        chosen = self._override(
            pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta
        )
        return state(self._decode(q, paged_kv_cache, chosen, q_scale, k_scale, v_scale, True))


@_docs.arguments(_docs.ATTENTION)
class CUDAGraphBatchDecodeWithPagedKVCacheWrapper(BatchDecodeWithPagedKVCacheWrapper):
    """:class:`BatchDecodeWithPagedKVCacheWrapper` with ``use_cuda_graph`` and its buffers.

    Args:
        workspace_buffer: as ``float_workspace_buffer`` there.
        indptr_buffer: as ``paged_kv_indptr_buffer`` there.
        indices_buffer: as ``paged_kv_indices_buffer`` there.
        last_page_len_buffer: as ``paged_kv_last_page_len_buffer`` there.
    """

    def __init__(
        self,
        workspace_buffer: torch.Tensor,
        indptr_buffer: torch.Tensor,
        indices_buffer: torch.Tensor,
        last_page_len_buffer: torch.Tensor,
        kv_layout: str = "NHD",
        use_tensor_cores: bool = False,
    ) -> None:
        super().__init__(
            workspace_buffer,
            kv_layout,
            use_cuda_graph=True,
            use_tensor_cores=use_tensor_cores,
            paged_kv_indptr_buffer=indptr_buffer,
            paged_kv_indices_buffer=indices_buffer,
            paged_kv_last_page_len_buffer=last_page_len_buffer,
        )


@_docs.arguments(_docs.ATTENTION)
def fast_decode_plan(
    self: BatchDecodeWithPagedKVCacheWrapper,
    indptr: torch.Tensor,
    indices: torch.Tensor,
    last_page_len: torch.Tensor,
    num_qo_heads: int,
    num_kv_heads: int,
    head_dim: int,
    page_size: int,
    pos_encoding_mode: str = "NONE",
    window_left: int = -1,
    logits_soft_cap: float | None = None,
    q_data_type: str | torch.dtype | None = None,
    kv_data_type: str | torch.dtype | None = None,
    data_type: str | torch.dtype | None = None,
    sm_scale: float | None = None,
    rope_scale: float | None = None,
    rope_theta: float | None = None,
    non_blocking: bool = True,
    fixed_split_size: int | None = None,
    disable_split_kv: bool = False,
    q_len_per_req: int = 1,
    global_override_indptr_cpu: torch.Tensor | None = None,
) -> None:
    """:meth:`BatchDecodeWithPagedKVCacheWrapper.plan` of a wrapper, with offsets on the host.

    SGLang puts it in the place of a wrapper's ``begin_forward``. The other plan is as fast here
    where its index tensors are on the host.

    Args:
        self: the wrapper to plan.
        indptr: as in ``plan``.
        indices: as in ``plan``.
        last_page_len: as in ``plan``; on a device, the host waits for it.
        q_len_per_req: query tokens of a request: 1.
        global_override_indptr_cpu: a copy of ``indptr`` on the host, so that the host need not wait
            for ``indptr`` itself.

    Raises:
        ValueError: as by ``plan``, or ``q_len_per_req`` is not 1.
        TypeError: as by ``plan``.
    """
    if q_len_per_req != 1:
        raise ValueError(f"q_len_per_req is {q_len_per_req}, expected 1: use the prefill wrapper")
    self.plan(
        indptr if global_override_indptr_cpu is None else global_override_indptr_cpu,
        indices,
        last_page_len,
        num_qo_heads,
        num_kv_heads,
        head_dim,
        page_size,
        pos_encoding_mode,
        window_left,
        logits_soft_cap,
        q_data_type,
        kv_data_type,
        data_type,
        sm_scale,
        rope_scale,
        rope_theta,
        non_blocking,
        fixed_split_size=fixed_split_size,
        disable_split_kv=disable_split_kv,
    )
