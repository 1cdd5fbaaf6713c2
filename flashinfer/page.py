"""Writing keys and values into a paged KV cache."""

from __future__ import annotations

from typing import Any, Tuple, Union, overload

import torch

from flashinfer import _checks, _ops

__all__ = [
    "append_paged_kv_cache",
    "block_sparse_indices_to_vector_sparse_offsets",
    "get_batch_indices_positions",
    "get_seq_lens",
]

PagedKVCache = Union[torch.Tensor, Tuple[torch.Tensor, torch.Tensor]]

_FORM = {
    "NHD": "[pages, page_size, num_kv_heads, head_dim]",
    "HND": "[pages, num_kv_heads, page_size, head_dim]",
}

# The parameters after append_value, in FlashInfer 0.2.0 and in 0.1.6. Both end in kv_layout.
_PARAMETERS = (
    "batch_indices",
    "positions",
    "paged_kv_cache",
    "kv_indices",
    "kv_indptr",
    "kv_last_page_len",
    "kv_layout",
)
_PARAMETERS_0_1_6 = ("append_indptr", *_PARAMETERS[2:])


def _unpack(paged_kv_cache: PagedKVCache, kv_layout: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The key cache and the value cache, both 4-D, as views."""
    if kv_layout not in _FORM:
        raise _checks.UnknownName(f"kv_layout is {kv_layout!r}, expected 'NHD' or 'HND'")
    form = _FORM[kv_layout]
    if isinstance(paged_kv_cache, (tuple, list)):
        if len(paged_kv_cache) != 2:
            raise ValueError(
                f"paged_kv_cache has {len(paged_kv_cache)} tensors, expected 2: keys and values"
            )
        k_cache, v_cache = paged_kv_cache
        _checks.dims("paged_kv_cache[0]", k_cache, form)
        _checks.shape("paged_kv_cache[1]", v_cache, tuple(k_cache.shape), "the shape of the keys")
        _checks.like("paged_kv_cache[1]", v_cache, "paged_kv_cache[0]", k_cache)
        return k_cache, v_cache
    _checks.dims("paged_kv_cache", paged_kv_cache, form.replace("pages,", "pages, 2,"))
    if paged_kv_cache.shape[1] != 2:
        raise ValueError(
            f"paged_kv_cache has shape {list(paged_kv_cache.shape)}, expected 2 in dimension 1:"
            " keys and values"
        )
    return paged_kv_cache.select(1, 0), paged_kv_cache.select(1, 1)


def _bind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments after append_value by name, in the form that they have."""
    # 0.2.0 has a 1-D tensor in second place, 0.1.6 the cache: a tuple or a 5-D tensor.
    second = args[1] if len(args) > 1 else None
    old = "append_indptr" in kwargs or (
        "positions" not in kwargs
        and (
            isinstance(second, (tuple, list))
            or (isinstance(second, torch.Tensor) and second.dim() == 5)
            or (len(args) == 1 and "batch_indices" not in kwargs)
        )
    )
    names = _PARAMETERS_0_1_6 if old else _PARAMETERS
    if len(args) > len(names):
        raise TypeError(
            f"append_paged_kv_cache takes {len(names) + 2} arguments, and got {len(args) + 2}"
        )
    bound = dict(zip(names, args))
    for name, value in kwargs.items():
        if name not in names:
            raise TypeError(
                f"append_paged_kv_cache has no argument {name!r} beside {', '.join(names[:2])}"
            )
        if name in bound:
            raise TypeError(f"append_paged_kv_cache got {name!r} twice")
        bound[name] = value
    missing = [name for name in names[:-1] if name not in bound]
    if missing:
        raise TypeError(f"append_paged_kv_cache needs {', '.join(missing)}")
    return bound


@overload
def append_paged_kv_cache(
    append_key: torch.Tensor,
    append_value: torch.Tensor,
    batch_indices: torch.Tensor,
    positions: torch.Tensor,
    paged_kv_cache: PagedKVCache,
    kv_indices: torch.Tensor,
    kv_indptr: torch.Tensor,
    kv_last_page_len: torch.Tensor,
    kv_layout: str = ...,
) -> None: ...


@overload
def append_paged_kv_cache(
    append_key: torch.Tensor,
    append_value: torch.Tensor,
    append_indptr: torch.Tensor,
    paged_kv_cache: PagedKVCache,
    kv_indices: torch.Tensor,
    kv_indptr: torch.Tensor,
    kv_last_page_len: torch.Tensor,
    kv_layout: str = ...,
) -> None: ...


def append_paged_kv_cache(
    append_key: torch.Tensor, append_value: torch.Tensor, *args: Any, **kwargs: Any
) -> None:
    """Copies new keys and values into the pages of their requests.

    ``append_paged_kv_cache(append_key, append_value, batch_indices, positions, paged_kv_cache,
    kv_indices, kv_indptr, kv_last_page_len, kv_layout="NHD")`` (FlashInfer 0.2.0), or
    ``append_paged_kv_cache(append_key, append_value, append_indptr, paged_kv_cache, kv_indices,
    kv_indptr, kv_last_page_len, kv_layout="NHD")`` (0.1.6), which computes batch_indices and
    positions by :func:`get_batch_indices_positions`, for every layer again.

    Row n goes to entry ``positions[n] % page_size`` of page
    ``kv_indices[kv_indptr[b] + positions[n] // page_size]`` with ``b = batch_indices[n]``. The
    pages must have been allocated: the page table counts the new entries already. Rows with
    ``b < 0`` or ``b >= batch_size`` are skipped (padding in CUDA graphs).

    Args:
        append_key: ``[nnz, num_kv_heads, head_dim]``; float16, bfloat16, float8_e4m3fn,
            float8_e5m2, or float32 on the CPU. Any strides.
        append_value: like ``append_key``.
        batch_indices: ``[nnz]``, the request of each row.
        positions: ``[nnz]``, the place of each row in the sequence of its request, from 0.
        append_indptr: ``[batch_size + 1]``, rows ``append_indptr[b]:append_indptr[b + 1]`` are the
            last ones of request b.
        paged_kv_cache: written to; dtype and device of ``append_key``; the last dimension must be
            contiguous, the others may have any stride. A tuple ``(keys, values)`` of
            ``[pages, page_size, num_kv_heads, head_dim]`` (NHD) or
            ``[pages, num_kv_heads, page_size, head_dim]`` (HND), or one tensor with a dimension
            of 2 after the pages.
        kv_indices: ``[kv_indptr[-1]]``, the pages of all requests, one request after another.
        kv_indptr: ``[batch_size + 1]``, where each request begins in ``kv_indices``.
        kv_last_page_len: ``[batch_size]``, entries in use in the last page, 1..page_size.
        kv_layout: ``"NHD"`` or ``"HND"``.

    Index tensors are int32 (int64 is converted) on the device of the cache.

    Raises:
        ValueError: a shape, a device or the layout is wrong; on the CPU also a position or a page
            that is out of range (on CUDA this is not looked at).
        TypeError: a dtype is wrong, an argument is missing or not a tensor.
    """
    bound = _bind(args, kwargs)
    kv_layout = bound.get("kv_layout", "NHD")
    _checks.dims("append_key", append_key, "[nnz, num_kv_heads, head_dim]")
    _checks.floating("append_key", append_key, _checks.FLOATS_AND_FP8)
    _checks.shape("append_value", append_value, tuple(append_key.shape), "the shape of append_key")
    _checks.like("append_value", append_value, "append_key", append_key)
    k_cache, v_cache = _unpack(bound["paged_kv_cache"], kv_layout)
    _checks.like("paged_kv_cache", k_cache, "append_key", append_key)
    heads, page = (1, 2) if kv_layout == "HND" else (2, 1)
    if k_cache.shape[heads] != append_key.shape[1] or k_cache.shape[3] != append_key.shape[2]:
        raise ValueError(
            f"paged_kv_cache has {k_cache.shape[heads]} heads of {k_cache.shape[3]} elements in"
            f" layout {kv_layout}, expected {append_key.shape[1]} of {append_key.shape[2]} as"
            " append_key has"
        )
    kv_indices = _checks.index("kv_indices", bound["kv_indices"], append_key, "[kv_indptr[-1]]")
    kv_indptr = _checks.index("kv_indptr", bound["kv_indptr"], append_key, "[batch_size + 1]")
    last_page_len = _checks.index(
        "kv_last_page_len", bound["kv_last_page_len"], append_key, "[batch_size]"
    )
    _checks.shape(
        "kv_last_page_len", last_page_len, (kv_indptr.shape[0] - 1,), "one for each request"
    )
    if "append_indptr" in bound:
        batch_indices, positions = get_batch_indices_positions(
            bound["append_indptr"],
            get_seq_lens(kv_indptr, last_page_len, k_cache.shape[page]),
            append_key.shape[0],
        )
    else:
        batch_indices = _checks.index("batch_indices", bound["batch_indices"], append_key, "[nnz]")
        positions = _checks.index("positions", bound["positions"], append_key, "[nnz]")
        nnz = (append_key.shape[0],)
        _checks.shape("batch_indices", batch_indices, nnz, "one for each row of append_key")
        _checks.shape("positions", positions, nnz, "one for each row of append_key")
    _ops.append_paged_kv(
        _checks.rows_contiguous(append_key),
        _checks.rows_contiguous(append_value),
        batch_indices,
        positions,
        k_cache,
        v_cache,
        kv_indices,
        kv_indptr,
        kv_layout == "HND",
    )


def _room(
    name: str, given: torch.Tensor | None, size: int, reference: torch.Tensor
) -> torch.Tensor:
    """The beginning of the caller's int32 tensor, or a new one."""
    if given is None:
        return torch.empty((size,), dtype=torch.int32, device=reference.device)
    _checks.dims(name, given, "[nnz]")
    if given.dtype != torch.int32:
        raise TypeError(f"{name} has dtype {given.dtype}, expected torch.int32")
    _checks.same_device(name, given, "append_indptr", reference)
    if given.shape[0] < size or not given.is_contiguous():
        raise ValueError(
            f"{name} has shape {list(given.shape)} and stride {given.stride(0)}, expected [{size}]"
            " or more, contiguous"
        )
    return given[:size]


def get_batch_indices_positions(
    append_indptr: torch.Tensor,
    seq_lens: torch.Tensor,
    nnz: int,
    batch_indices: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The request and the position of every new row, for :func:`append_paged_kv_cache`.

    Rows ``append_indptr[b]:append_indptr[b + 1]`` are the last ones of request b: row n is at
    ``seq_lens[b] - append_indptr[b + 1] + n``.

    Args:
        append_indptr: ``[batch_size + 1]``, int32 or int64, from 0 to at most ``nnz``.
        seq_lens: ``[batch_size]``, int32 or int64, lengths that count the new rows already.
        nnz: rows of the result, as a plain number, so that no device has to be asked.
        batch_indices: int32 ``[nnz]`` or longer, where to write; allocated if None.
        positions: the same.

    Returns:
        ``(batch_indices, positions)``, int32 ``[nnz]``. Rows from ``append_indptr[-1]`` on have
        batch index -1 and position 0.

    Raises:
        ValueError: a shape or a device is wrong, or ``nnz`` is negative.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    _checks.tensor("append_indptr", append_indptr)
    indptr = _checks.index("append_indptr", append_indptr, append_indptr, "[batch_size + 1]")
    lengths = _checks.index("seq_lens", seq_lens, append_indptr, "[batch_size]")
    _checks.shape("seq_lens", lengths, (indptr.shape[0] - 1,), "one for each request")
    if nnz < 0:
        raise ValueError(f"nnz is {nnz}, expected 0 or more")
    batch_indices = _room("batch_indices", batch_indices, nnz, append_indptr)
    positions = _room("positions", positions, nnz, append_indptr)
    _ops.batch_positions(indptr, lengths, batch_indices, positions)
    return batch_indices, positions


def get_seq_lens(
    kv_indptr: torch.Tensor, kv_last_page_len: torch.Tensor, page_size: int
) -> torch.Tensor:
    """Sequence lengths from a page table: full pages times ``page_size``, plus the last page.

    Args:
        kv_indptr: ``[batch_size + 1]``, int32 or int64.
        kv_last_page_len: ``[batch_size]``, int32 or int64, entries in use in the last page.
        page_size: entries of a page.

    Returns:
        ``[batch_size]``, integers. A request without pages has length ``kv_last_page_len``, which
        is 0 for it.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: an argument is not a tensor.
    """
    _checks.dims("kv_indptr", kv_indptr, "[batch_size + 1]")
    _checks.shape(
        "kv_last_page_len", kv_last_page_len, (kv_indptr.shape[0] - 1,), "one for each request"
    )
    _checks.same_device("kv_last_page_len", kv_last_page_len, "kv_indptr", kv_indptr)
    full_pages = (kv_indptr.diff() - 1).clamp(min=0)
    return full_pages * page_size + kv_last_page_len


def block_sparse_indices_to_vector_sparse_offsets(
    block_sparse_indices: torch.Tensor,
    block_sparse_indptr: torch.Tensor,
    vector_sparse_offsets: torch.Tensor,
    vector_sparse_indptr: torch.Tensor,
    kv_lens: torch.Tensor,
    stride_block: int,
    stride_n: int,
    block_size: int,
) -> torch.Tensor:
    """Where every key of every request lies, from the blocks that its keys lie in.

    ``out[vector_sparse_indptr[b] + j] = block_sparse_indices[block_sparse_indptr[b] + j //
    block_size] * stride_block + j % block_size * stride_n`` for ``j < kv_lens[b]``. On CUDA the
    number of keys is read from the device.

    Args:
        block_sparse_indices: ``[block_sparse_indptr[-1]]``, the blocks of all requests.
        block_sparse_indptr: ``[batch_size + 1]``, where the blocks of each request begin.
        vector_sparse_offsets: int32 ``[vector_sparse_indptr[-1]]`` or longer, written to.
        vector_sparse_indptr: ``[batch_size + 1]``, where the keys of each request begin in it.
        kv_lens: ``[batch_size]``, the keys of each request.
        stride_block: elements from one block to the next.
        stride_n: elements from one key to the next, in a block.
        block_size: keys of a block, 1 or more.

    Index tensors are int32 (int64 is converted) and on one device.

    Returns:
        ``vector_sparse_offsets``; with a ``block_size`` of 1, as in FlashInfer 0.2.0, a new tensor
        ``block_sparse_indices * stride_block``, and ``block_sparse_indices`` itself if
        ``stride_block`` is 1 too.

    Raises:
        ValueError: a shape, a device or a number is wrong, or an index is out of range.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    _checks.tensor("block_sparse_indices", block_sparse_indices)
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}, expected 1 or more")
    indices = _checks.index(
        "block_sparse_indices", block_sparse_indices, block_sparse_indices, "[nnz]"
    )
    if block_size == 1:
        return block_sparse_indices if stride_block == 1 else block_sparse_indices * stride_block
    indptr = _checks.index("block_sparse_indptr", block_sparse_indptr, indices, "[batch_size + 1]")
    begins = _checks.index(
        "vector_sparse_indptr", vector_sparse_indptr, indices, "[batch_size + 1]"
    )
    lengths = _checks.index("kv_lens", kv_lens, indices, "[batch_size]")
    _checks.shape("vector_sparse_indptr", begins, tuple(indptr.shape), "as block_sparse_indptr has")
    _checks.shape("kv_lens", lengths, (indptr.shape[0] - 1,), "one for each request")
    _checks.dims("vector_sparse_offsets", vector_sparse_offsets, "[nnz]")
    if vector_sparse_offsets.dtype != torch.int32:
        raise TypeError(
            f"vector_sparse_offsets has dtype {vector_sparse_offsets.dtype}, expected torch.int32"
        )
    _checks.same_device(
        "vector_sparse_offsets", vector_sparse_offsets, "block_sparse_indices", indices
    )
    # Which request each key is of, and which of its keys it is.
    wide = lengths.to(torch.int64)
    if wide.shape[0] and int(wide.min()) < 0:
        raise ValueError(f"kv_lens has {int(wide.min())}, expected 0 or more")
    request = torch.repeat_interleave(torch.arange(wide.shape[0], device=wide.device), wide)
    if request.shape[0] == 0:
        return vector_sparse_offsets
    first = wide.cumsum(0) - wide
    j = torch.arange(request.shape[0], device=wide.device) - first[request]
    block = indptr[request] + j // block_size
    target = begins[request] + j
    for name, value, size in (
        ("block_sparse_indices", block, indices.shape[0]),
        ("vector_sparse_offsets", target, vector_sparse_offsets.shape[0]),
    ):
        low, high = (int(bound) for bound in torch.aminmax(value))
        if low < 0 or high >= size:
            raise ValueError(
                f"{name} has shape [{size}], and kv_lens needs elements {low} to {high} of it"
            )
    offsets = indices[block].to(torch.int64) * stride_block + j % block_size * stride_n
    vector_sparse_offsets[target] = offsets.to(torch.int32)
    return vector_sparse_offsets
