"""The base of the attention wrappers: a workspace, a plan, and runs of it."""

from __future__ import annotations

from typing import NamedTuple

import torch

from flashinfer import _api, _attention, _checks, _plan
from flashinfer._attention import Attended, KVCache, Options
from flashinfer._masks import NO_MASKS, HostMask, Masks
from flashinfer.page import _unpack


class Into(NamedTuple):
    """Where a run writes to; new tensors where None."""

    out: torch.Tensor | None
    lse: torch.Tensor | None


NEW = Into(None, None)


def splits(fixed_split_size: int | None, disable_split_kv: bool) -> bool:
    """Whether a plan may split the keys of a request.

    Splits have no fixed size here. What is asked for with one, results that do not depend on the
    other requests of the batch, is what a plan without splits has.
    """
    return not disable_split_kv and (fixed_split_size is None or fixed_split_size <= 0)


def check_head_dims(head_dim: int, head_dim_vo: int | None) -> None:
    """ValueError where the heads of the values are of another size."""
    if head_dim_vo is not None and head_dim_vo != head_dim:
        raise ValueError(
            f"head_dim_vo is {head_dim_vo}, expected {head_dim} as head_dim (head_dim_qk) is: there"
            " is no kernel for values of another size"
        )


class Buffer(NamedTuple):
    """A tensor of the caller whose address a CUDA graph has captured, and its name."""

    name: str
    tensor: torch.Tensor | None

    def present(self) -> torch.Tensor:
        """The tensor; ValueError where there is none."""
        if self.tensor is None:
            raise ValueError(f"{self.name} is None, expected a tensor where CUDA graphs are used")
        return self.tensor

    def room(self, size: int) -> torch.Tensor:
        """The tensor; ValueError where it has fewer elements."""
        buffer = self.present()
        if size > buffer.shape[0]:
            raise ValueError(f"{self.name} has room for {buffer.shape[0]}, expected {size} or more")
        return buffer

    def write(self, source: torch.Tensor) -> torch.Tensor:
        """Copies ``source`` to its beginning without waiting; returns the whole buffer."""
        buffer = self.room(source.shape[0])
        _plan.write(buffer, source)
        return buffer


class Wrapper:
    """Common part of the wrappers. Not for use by itself.

    Partial states of requests that are split live in the float workspace. One that is too small
    is no error: requests are then split less, or not at all, and run on less of the device.
    """

    def __init__(
        self,
        float_workspace_buffer: torch.Tensor,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
    ) -> None:
        self._hnd = _attention.check_layout(kv_layout)
        self._kv_layout = kv_layout
        self._use_cuda_graph = use_cuda_graph
        self._set_workspace(float_workspace_buffer)
        self._planned: _plan.Plan | None = None
        self._options = _attention.options(1)
        self._causal_is_open = False  # the plan did not say, and the releases differ
        self._requests: _plan.Requests | None = None
        self._o_data_type: torch.dtype | None = None
        self._kv_indices: torch.Tensor | None = None
        self._used_indices = 0
        self._page_size = 0
        self._mask: torch.Tensor | None = None
        self._mask_indptr: torch.Tensor | None = None
        self._fixed_queries = False  # every plan has as many query tokens for each request
        # In graph mode, of the first plan.
        self._capacity: _plan.Capacity | None = None
        self._max_tokens = 0
        self._words: torch.Tensor | None = None
        self._sizes: torch.Tensor | None = None

    def _set_workspace(self, buffer: torch.Tensor) -> None:
        _checks.tensor("float_workspace_buffer", buffer)
        if not buffer.is_contiguous():
            raise ValueError("float_workspace_buffer is not contiguous")
        self._float_workspace_buffer = buffer
        self.device = buffer.device
        data = buffer.view(-1).view(torch.uint8)
        # Rows of partial states are read 16 bytes at a time.
        start = min(-data.data_ptr() % 16, data.shape[0])
        size = (data.shape[0] - start) // 4
        self._workspace = data[start : start + 4 * size].view(torch.float32)

    @property
    def is_cuda_graph_enabled(self) -> bool:
        """Whether the wrapper keeps its buffers and sizes, so that a graph can capture run."""
        return self._use_cuda_graph

    def reset_workspace_buffer(
        self, float_workspace_buffer: torch.Tensor, int_workspace_buffer: torch.Tensor
    ) -> None:
        """Takes another workspace, before a plan; a captured graph still uses the old one.

        Args:
            float_workspace_buffer: as in the constructor.
            int_workspace_buffer: not used: plans have a buffer of their own.
        """
        self._set_workspace(float_workspace_buffer)
        self._int_workspace_buffer = int_workspace_buffer
        self._planned = None
        self._capacity = None
        self._words = None
        self._sizes = None

    def end_forward(self) -> None:
        """Does nothing; of the FlashInfer API before ``plan`` and ``run``."""

    def _make_plan(
        self,
        requests: _plan.Requests,
        heads: _plan.Heads,
        chosen: Options,
        *,
        kv_indices: torch.Tensor | None = None,
        used_indices: int = 0,
        page_size: int = 0,
        masks: Masks = NO_MASKS,
        indices_buffer: Buffer | None = None,
        mask_buffers: tuple[Buffer, Buffer] | None = None,
        kv_rows: int = 0,
        split: bool = True,
    ) -> None:
        """Plans, uploads, and packs the mask. Nothing changes in a call that fails its checks."""
        self._check_heads(heads)
        mask = HostMask(masks, requests, self.device) if masks else None
        if self._use_cuda_graph:
            if kv_indices is not None and indices_buffer is not None:
                indices_buffer.room(kv_indices.shape[0])
            if mask is not None and mask_buffers is not None:
                mask_buffers[0].room(mask.size)
                mask_buffers[1].room(mask.indptrs[0].shape[0])
        capacity = self._choose_capacity(requests, heads, split)
        words = _plan.fill(requests, heads, self.device, capacity, split)

        parts = [] if self._use_cuda_graph else [words]
        if kv_indices is not None and indices_buffer is not None and self._use_cuda_graph:
            kv_indices = indices_buffer.write(kv_indices)
        elif kv_indices is not None and kv_indices.device.type == "cpu":
            parts.append(kv_indices)
        if mask is not None:
            parts += mask.indptrs
        uploaded = _plan.upload(parts, self.device)
        if self._use_cuda_graph:
            if self._words is None:
                self._words = torch.empty_like(words, device=self.device)
            _plan.write(self._words, words)
            words = self._words
        else:
            words = uploaded[0]
            if kv_indices is not None and kv_indices.device.type == "cpu":
                kv_indices = uploaded[1]
        self._mask = self._mask_indptr = None
        if mask is not None:
            packed, indptr = mask.pack(uploaded[-len(mask.indptrs) :])
            if self._use_cuda_graph and mask_buffers is not None:
                packed, indptr = mask_buffers[0].write(packed), mask_buffers[1].write(indptr)
            self._mask, self._mask_indptr = packed, indptr
        self._kv_indices = kv_indices
        self._used_indices = used_indices
        self._page_size = page_size
        self._options = chosen
        self._causal_is_open = False
        self._requests = requests
        sizes = None
        if not self._use_cuda_graph or kv_rows:
            sizes = torch.tensor([*capacity, requests.tokens, kv_rows], dtype=torch.int64)
            if self._use_cuda_graph:
                self._sizes = sizes if self._sizes is None else self._sizes.copy_(sizes)
                sizes = self._sizes
        self._planned = _plan.Plan(words, self._workspace, capacity, heads, requests.tokens, sizes)

    def _check_heads(self, heads: _plan.Heads) -> None:
        """ValueError unless there is a kernel for them on the device."""
        heads.check(self.device)

    def _choose_capacity(
        self, requests: _plan.Requests, heads: _plan.Heads, split: bool
    ) -> _plan.Capacity:
        floats = self._workspace.shape[0]
        if not self._use_cuda_graph:
            return _plan.exact_capacity(requests, heads, self.device, floats if split else 0)
        if self._capacity is None:
            self._capacity = _plan.graph_capacity(
                requests, heads, self.device, floats, self._fixed_queries
            )
            self._max_tokens = requests.tokens
            self._heads = heads
        elif heads != self._heads:
            raise ValueError(f"{heads} came, expected {self._heads} of the first plan, for graphs")
        elif requests.tokens > self._max_tokens:
            raise ValueError(
                f"qo_indptr[-1] is {requests.tokens}, expected at most {self._max_tokens}, as in"
                " the first plan, whose size the CUDA graphs have"
            )
        return self._capacity

    def _override(
        self,
        pos_encoding_mode: str,
        window_left: int,
        logits_soft_cap: float | None,
        sm_scale: float | None,
        rope_scale: float | None,
        rope_theta: float | None,
        causal: bool = False,
    ) -> Options:
        """The options of ``forward``."""
        return _attention.options(
            self._planned.heads.dim if self._planned is not None else 1,
            causal=causal,
            pos_encoding_mode=pos_encoding_mode,
            window_left=window_left,
            logits_soft_cap=logits_soft_cap,
            sm_scale=sm_scale,
            rope_scale=rope_scale,
            rope_theta=rope_theta,
        )

    def _planned_options(self) -> Options:
        """The options of the plan, with ``causal`` settled."""
        if self._causal_is_open:
            causal = _api.causal(f"{type(self).__name__}.plan", None, self._mask is not None)
            return _attention.with_causal(self._options, causal)
        return self._options

    def _settle_causal(self, causal: bool | None, method: str) -> bool:
        """``causal`` of ``forward``, whose default the releases do not share."""
        masked = self._mask is not None
        return _api.causal(f"{type(self).__name__}.{method}", causal, masked)

    def _ready(self, q: torch.Tensor, exact: bool, name: str = "q") -> _plan.Plan:
        """The plan, and ``q`` compared with it."""
        plan = self._planned
        if plan is None:
            raise RuntimeError(f"run of {type(self).__name__} came before plan")
        _attention.check_query(name, q, "[nnz, num_qo_heads, head_dim]")
        if q.device != self.device:
            raise ValueError(f"{name} is on {q.device}, expected {self.device} as the workspace is")
        if self._o_data_type is not None and self._o_data_type != q.dtype:
            raise ValueError(
                f"o_data_type is {self._o_data_type} in the plan, expected {q.dtype}: the output"
                f" has the dtype of {name}"
            )
        if q.shape[1] != plan.heads.qo or q.shape[2] != plan.heads.dim:
            raise ValueError(
                f"{name} has {q.shape[1]} heads of {q.shape[2]} elements, expected"
                f" {plan.heads.qo} of {plan.heads.dim} as planned"
            )
        if _plan.compiling():
            # A number that every plan changes would be compiled for every plan. Without graphs the
            # op compares instead; with them, the rows are those that the largest plan may have.
            if self._use_cuda_graph:
                _attention.check_rows(name, q, self._max_tokens, exact)
        else:
            _attention.check_rows(name, q, plan.tokens, exact)
        return plan

    def _attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        chosen: Options,
        v_scale: float | None,
        return_lse: bool,
        *,
        hnd: bool,
        exact: bool = False,
        names: tuple[str, str] = ("k", "v"),
        into: Into = NEW,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        plan = self._ready(q, exact)
        _attention.check_keys(k, v, q, plan.heads, hnd, names)
        if _attention.DEBUG and self._kv_indices is not None and not torch.compiler.is_compiling():
            _attention.check_pages(self._kv_indices, self._used_indices, k.shape[0])
        q = _attention.rows(q)
        out, lse = _attention.allocate(q, return_lse, *into)
        _attention.launch(
            plan,
            q,
            k,
            v,
            self._kv_indices,
            out,
            lse,
            self._mask,
            self._mask_indptr,
            hnd,
            chosen,
            v_scale,
            exact,
        )
        if lse is not None and chosen.pos_encoding == "ALIBI" and _attention.alibi_moves():
            moved = self._move(lse)
            lse = moved if into.lse is None else lse.copy_(moved)
        return out, lse

    def _move(self, lse: torch.Tensor) -> torch.Tensor:
        """ALiBi's log-sum-exps as 0.2.0 has them."""
        assert self._requests is not None
        if self._use_cuda_graph:
            raise ValueError(
                "a log-sum-exp with pos_encoding_mode='ALIBI' and FLASHINFER_API=0.2.0 depends on"
                " the lengths of requests, expected no CUDA graphs, or FLASHINFER_API=0.1.6"
            )
        lengths = self._requests.qo_indptr.diff()
        ahead = torch.zeros(lse.shape[0], dtype=torch.int32)
        ahead[: self._requests.tokens] = (self._requests.kv_len - lengths).repeat_interleave(
            lengths
        )
        return _attention.moved(lse, ahead.to(lse.device))

    def _attend_paged(
        self,
        q: torch.Tensor,
        paged_kv_cache: KVCache,
        chosen: Options,
        v_scale: float | None,
        return_lse: bool,
        exact: bool = False,
        into: Into = NEW,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self._page_size == 1:
            paged_kv_cache = _with_slots(paged_kv_cache, self._hnd)
        k, v = _unpack(paged_kv_cache, self._kv_layout)
        page = k.shape[2 if self._hnd else 1]
        if self._planned is not None and page != self._page_size:
            raise ValueError(
                f"paged_kv_cache has pages of {page} entries in layout {self._kv_layout}, expected"
                f" {self._page_size} as planned"
            )
        names = ("paged_kv_cache", "paged_kv_cache[1]")
        return self._attend(
            q,
            k,
            v,
            chosen,
            v_scale,
            return_lse,
            hnd=self._hnd,
            exact=exact,
            names=names,
            into=into,
        )


class BatchDecodeWrapper(Wrapper):
    """What the paged decode wrappers share: one query token for each request."""

    def _prepare(
        self,
        paged_kv_indptr_buffer: torch.Tensor | None,
        paged_kv_indices_buffer: torch.Tensor | None,
        paged_kv_last_page_len_buffer: torch.Tensor | None,
    ) -> None:
        """Takes the buffers of CUDA graphs."""
        self._paged_kv_indptr_buf = paged_kv_indptr_buffer
        self._paged_kv_indices_buf = paged_kv_indices_buffer
        self._paged_kv_last_page_len_buf = paged_kv_last_page_len_buffer
        self._buffers = (
            Buffer("paged_kv_indptr_buffer", paged_kv_indptr_buffer),
            Buffer("paged_kv_indices_buffer", paged_kv_indices_buffer),
            Buffer("paged_kv_last_page_len_buffer", paged_kv_last_page_len_buffer),
        )
        self._fixed_queries = True
        self._fixed_batch_size: int | None = None
        if self._use_cuda_graph:
            for buffer in self._buffers:
                _checks.index(buffer.name, buffer.present(), self._float_workspace_buffer, "[n]")
            self._fixed_batch_size = self._buffers[2].present().shape[0]
            _checks.shape(
                self._buffers[0].name,
                self._buffers[0].present(),
                (self._fixed_batch_size + 1,),
                "batch_size + 1, of paged_kv_last_page_len_buffer",
            )

    def _plan_decode(
        self,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        last_page_len: torch.Tensor,
        heads: _plan.Heads,
        page_size: int,
        chosen: Options,
        split: bool = True,
    ) -> None:
        host = _plan.host_indptr("indptr", indptr, self._fixed_batch_size, first=None)
        lengths = _plan.paged_lengths(
            host,
            _plan.host_index("last_page_len", last_page_len, "[batch_size]"),
            page_size,
            ("indptr", "last_page_len"),
        )
        pages = _plan.page_indices("indices", indices, int(host[-1]), self.device)
        batch_size = lengths.shape[0]
        self._make_plan(
            _plan.Requests(torch.arange(batch_size + 1, dtype=torch.int32), host[:-1], lengths),
            heads,
            chosen,
            kv_indices=pages,
            used_indices=int(host[-1]),
            page_size=page_size,
            indices_buffer=self._buffers[1],
            split=split,
        )
        if self._use_cuda_graph:
            self._buffers[0].write(indptr)
            self._buffers[2].write(last_page_len)


def _with_slots(paged_kv_cache: KVCache, hnd: bool) -> KVCache:
    """A cache with pages of one entry may come without the dimension of the entries."""
    slots = -2 if hnd else -3
    if isinstance(paged_kv_cache, torch.Tensor):
        return paged_kv_cache.unsqueeze(slots) if paged_kv_cache.ndim == 4 else paged_kv_cache
    if len(paged_kv_cache) == 2 and all(
        isinstance(half, torch.Tensor) and half.ndim == 3 for half in paged_kv_cache
    ):
        k, v = paged_kv_cache
        return k.unsqueeze(slots), v.unsqueeze(slots)
    return paged_kv_cache


class BatchPrefillWrapper(Wrapper):
    """What the paged and the ragged prefill wrapper share: the buffers of CUDA graphs."""

    def _prepare(
        self,
        float_workspace_buffer: torch.Tensor,
        index_buffers: tuple[Buffer, ...],
        mask_buffers: tuple[Buffer, Buffer],
    ) -> None:
        self._index_buffers = index_buffers
        self._mask_buffers = mask_buffers
        self._fixed_batch_size: int | None = None
        if not self._use_cuda_graph:
            return
        for buffer in index_buffers:
            _checks.index(buffer.name, buffer.present(), float_workspace_buffer, "[n]")
        self._fixed_batch_size = index_buffers[0].present().shape[0] - 1
        for buffer in index_buffers[1:]:
            entries = {
                "kv_indptr_buf": self._fixed_batch_size + 1,
                "paged_kv_indptr_buf": self._fixed_batch_size + 1,
                "paged_kv_last_page_len_buf": self._fixed_batch_size,
            }.get(buffer.name)
            if entries is not None:
                form = "as many requests as qo_indptr_buf has"
                _checks.shape(buffer.name, buffer.present(), (entries,), form)

    def _check_masks(
        self, custom_mask: torch.Tensor | None, packed_custom_mask: torch.Tensor | None
    ) -> Masks:
        masks = Masks(custom_mask, packed_custom_mask)
        if masks and self._use_cuda_graph:
            for buffer in self._mask_buffers:
                buffer.present()
        return masks

    def _write_buffers(self, *sources: torch.Tensor | None) -> None:
        if self._use_cuda_graph:
            for buffer, source in zip(self._index_buffers, sources):
                if source is not None:
                    buffer.write(source)


def result(pair: tuple[torch.Tensor, torch.Tensor | None]) -> Attended:
    """The output alone, or with its log-sum-exps where they were asked for."""
    out, lse = pair
    return out if lse is None else (out, lse)


def state(
    pair: tuple[torch.Tensor, torch.Tensor | None],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output with its log-sum-exps, which were asked for."""
    out, lse = pair
    assert lse is not None
    return out, lse
