"""Rotary position embedding (Su et al., 2021, arXiv:2104.09864), also as Llama 3.1 scales it.

Pair i of a head, at position p, is turned by the angle ``p * f(i)`` with
``f(i) = rope_theta ** (-2 * i / rotary_dim) / rope_scale``. Pairs are the elements
``(i, i + rotary_dim / 2)``, or ``(2 * i, 2 * i + 1)`` with ``interleave=True``. Elements from
``rotary_dim`` on pass unchanged. Llama 3.1's form divides only the low frequencies
by ``rope_scale``, with a linear transition in between (Meta's ``apply_scaling`` in
``llama3/reference_impl/model.py``).

Common to all functions:

* ``q`` and ``k`` are of one dtype and device. Strides may be anything, so they can be slices of a
  packed QKV tensor. Angles are computed in fp32.
* Positions come either by row, or by segment: row n with ``indptr[b] <= n < indptr[b + 1]`` is at
  ``offsets[b] + n - indptr[b]``.
* A function without ``_inplace`` returns new tensors ``(q_rope, k_rope)``; one with it writes to
  ``q`` and ``k`` and returns None.
* ValueError names a wrong shape, device or number; TypeError a wrong dtype or a missing tensor.
* Functions with ``indptr`` take the calls of FlashInfer 0.1.6 too, which have no ``rotary_dim`` and
  ``interleave`` in its place: a bool there is ``interleave``.
* ``interleave`` of :func:`apply_llama31_rope` and its in-place form is True by default in 0.1.6 and
  False in 0.2.0. Without it and without ``rotary_dim``, a call warns and has the meaning of 0.2.0,
  or that of the release that ``FLASHINFER_API`` in the environment names.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, overload

import torch

from flashinfer import _api, _checks, _docs, _forms, _ops

__all__ = [
    "apply_llama31_rope",
    "apply_llama31_rope_inplace",
    "apply_llama31_rope_pos_ids",
    "apply_llama31_rope_pos_ids_inplace",
    "apply_rope",
    "apply_rope_inplace",
    "apply_rope_pos_ids",
    "apply_rope_pos_ids_inplace",
    "apply_rope_with_cos_sin_cache",
    "apply_rope_with_cos_sin_cache_inplace",
]


_ARGUMENTS = {
    "q": "``[nnz, num_qo_heads, head_dim]``; float16, bfloat16, or float32 on the CPU.",
    "k": "``[nnz, num_kv_heads, head_dim]``, likewise.",
    "indptr": "``[batch_size + 1]``, where the rows of each request begin; int32 (int64 is"
    " converted).",
    "offsets": "``[batch_size]``, the position of each request's first row; likewise.",
    "pos_ids": "``[nnz]``, the position of each row; int32 or int64.",
    "rotary_dim": "how many elements of a head are rotated: even, up to ``head_dim``; None: all.",
    "interleave": "pairs are elements ``2 * i`` and ``2 * i + 1``, otherwise ``i`` and ``i +"
    " rotary_dim / 2``.",
    "rope_scale": "divisor of the frequencies.",
    "rope_theta": "base of the frequencies.",
}
_LLAMA31_ARGUMENTS = {
    **_ARGUMENTS,
    "rope_scale": "divisor of the low frequencies.",
    "low_freq_factor": "turns over the old context below which a frequency is low.",
    "high_freq_factor": "turns over the old context above which a frequency is left as it is.",
    "old_context_len": "context length of the model before it was extended, in tokens.",
}


class _Frequencies(NamedTuple):
    """What the op needs to compute f(i), in the order of its schema."""

    llama31: bool
    rope_scale: float
    rope_theta: float
    smooth_a: float
    smooth_b: float


def _plain(rope_scale: float, rope_theta: float) -> _Frequencies:
    if rope_scale <= 0 or rope_theta <= 0:
        raise ValueError(
            f"rope_scale is {rope_scale} and rope_theta {rope_theta}, expected both above 0"
        )
    return _Frequencies(False, float(rope_scale), float(rope_theta), 0.0, 0.0)


def _llama31(
    rope_scale: float,
    rope_theta: float,
    low_freq_factor: float,
    high_freq_factor: float,
    old_context_len: int,
) -> _Frequencies:
    plain = _plain(rope_scale, rope_theta)
    if high_freq_factor <= low_freq_factor:
        raise ValueError(
            f"high_freq_factor is {high_freq_factor}, expected more than low_freq_factor,"
            f" {low_freq_factor}"
        )
    # The weight of the unscaled frequency f is linear in the turns that it makes over the old
    # context, f * old_context_len / (2 pi): 0 at low_freq_factor, 1 at high_freq_factor.
    width = high_freq_factor - low_freq_factor
    return _Frequencies(
        True,
        plain.rope_scale,
        plain.rope_theta,
        smooth_a=old_context_len / (2 * math.pi * width),
        smooth_b=-low_freq_factor / width,
    )


def _check_qk(q: torch.Tensor, k: torch.Tensor, rotary_dim: int | None) -> int:
    _checks.dims("q", q, "[nnz, num_qo_heads, head_dim]")
    _checks.dims("k", k, "[nnz, num_kv_heads, head_dim]")
    _checks.floating("q", q)
    _checks.like("k", k, "q", q)
    head_dim = q.shape[2]
    if k.shape[0] != q.shape[0] or k.shape[2] != head_dim:
        raise ValueError(
            f"k has shape {list(k.shape)}, expected [{q.shape[0]}, num_kv_heads, {head_dim}]: the"
            " rows and the head dimension of q"
        )
    if rotary_dim is None:
        rotary_dim = head_dim
    if rotary_dim <= 0 or rotary_dim % 2 != 0 or rotary_dim > head_dim:
        raise ValueError(
            f"rotary_dim is {rotary_dim}, expected an even number in 2..{head_dim}, the head"
            " dimension"
        )
    return rotary_dim


def _segments(
    q: torch.Tensor, indptr: torch.Tensor, offsets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    indptr = _checks.index("indptr", indptr, q, "[batch_size + 1]")
    offsets = _checks.index("offsets", offsets, q, "[batch_size]")
    _checks.shape("offsets", offsets, (indptr.shape[0] - 1,), "one for each segment of indptr")
    return indptr, offsets


def _positions(q: torch.Tensor, pos_ids: torch.Tensor) -> torch.Tensor:
    _checks.shape("pos_ids", pos_ids, (q.shape[0],), "one for each row of q")
    if pos_ids.dtype not in _checks.INTEGERS:
        raise TypeError(f"pos_ids has dtype {pos_ids.dtype}, expected torch.int32 or torch.int64")
    _checks.same_device("pos_ids", pos_ids, "q", q)
    return pos_ids.contiguous()


def _rotate(
    q: torch.Tensor,
    k: torch.Tensor,
    rotary_dim: int,
    interleave: bool,
    frequencies: _Frequencies,
    *,
    inplace: bool,
    pos_ids: torch.Tensor | None = None,
    indptr: torch.Tensor | None = None,
    offsets: torch.Tensor | None = None,
    cos_sin_cache: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    q_in, k_in = _checks.rows_contiguous(q), _checks.rows_contiguous(k)
    rest = (
        pos_ids,
        indptr,
        offsets,
        cos_sin_cache,
        rotary_dim,
        bool(interleave),
        *frequencies,
    )
    if inplace:
        _ops.rope_inplace(q_in, k_in, *rest)
        if q_in is not q:
            q.copy_(q_in)
        if k_in is not k:
            k.copy_(k_in)
        return q, k
    q_out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    k_out = torch.empty(k.shape, dtype=k.dtype, device=k.device)
    _ops.rope(q_in, k_in, q_out, k_out, *rest)
    return q_out, k_out


def _rotate_segments(
    q: torch.Tensor,
    k: torch.Tensor,
    indptr: torch.Tensor,
    offsets: torch.Tensor,
    rotary_dim: int | None,
    interleave: bool,
    frequencies: _Frequencies,
    inplace: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    dim = _check_qk(q, k, rotary_dim)
    indptr, offsets = _segments(q, indptr, offsets)
    return _rotate(
        q, k, dim, interleave, frequencies, inplace=inplace, indptr=indptr, offsets=offsets
    )


def _rotate_pos_ids(
    q: torch.Tensor,
    k: torch.Tensor,
    pos_ids: torch.Tensor,
    rotary_dim: int | None,
    interleave: bool,
    frequencies: _Frequencies,
    inplace: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    dim = _check_qk(q, k, rotary_dim)
    pos_ids = _positions(q, pos_ids)
    return _rotate(q, k, dim, interleave, frequencies, inplace=inplace, pos_ids=pos_ids)


def _rotate_cached(
    q: torch.Tensor,
    k: torch.Tensor,
    cos_cache: torch.Tensor,
    sin_cache: torch.Tensor,
    pos_ids: torch.Tensor,
    interleave: bool,
    inplace: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    _checks.dims("cos_cache", cos_cache, "[max_position, rotary_dim]")
    _checks.shape("sin_cache", sin_cache, tuple(cos_cache.shape), "the shape of cos_cache")
    for name, cache in (("cos_cache", cos_cache), ("sin_cache", sin_cache)):
        if cache.dtype != torch.float32:
            raise TypeError(f"{name} has dtype {cache.dtype}, expected torch.float32")
        _checks.same_device(name, cache, "q", q)
    dim = _check_qk(q, k, cos_cache.shape[1])
    pos_ids = _positions(q, pos_ids)
    # The kernels read one row of cosines, then sines, one of each a pair. Only the rows in use are
    # gathered into that form: nnz * rotary_dim floats, whatever the size of the caches.
    pairs = slice(0, dim, 2) if interleave else slice(0, dim // 2)
    rows = torch.cat((cos_cache[pos_ids, pairs], sin_cache[pos_ids, pairs]), dim=1)
    places = torch.arange(q.shape[0], dtype=torch.int32, device=q.device)
    return _rotate(
        q,
        k,
        dim,
        interleave,
        _plain(1.0, 1e4),
        inplace=inplace,
        pos_ids=places,
        cos_sin_cache=rows,
    )


_SEGMENTS_0_1_6 = ("q", "k", "indptr", "offsets", "interleave", "rope_scale", "rope_theta")
_LLAMA31_0_1_6 = (*_SEGMENTS_0_1_6, "low_freq_factor", "high_freq_factor", "old_context_len")


def _has_no_rotary_dim(args: Any, kwargs: Any) -> bool:
    return len(args) > 4 and isinstance(args[4], bool)


def _interleave(function: str, interleave: bool | None, rotary_dim: int | None) -> bool:
    """``interleave`` of the llama31 form by segment, whose default depends on the release."""
    if interleave is not None or rotary_dim is not None:
        return bool(interleave)
    release = _api.settle(
        f"{function} without interleave",
        "interleave is True by default in FlashInfer 0.1.6, and False in 0.2.0",
        _api.NEW,
        "Pass interleave=True or interleave=False",
    )
    return release == _api.OLD


@_forms.also(_SEGMENTS_0_1_6, _has_no_rotary_dim)
@_docs.arguments(_ARGUMENTS)
def apply_rope_inplace(
    q: torch.Tensor,
    k: torch.Tensor,
    indptr: torch.Tensor,
    offsets: torch.Tensor,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 1,
    rope_theta: float = 1e4,
) -> None:
    """Rotates ``q`` and ``k`` in place, positions by segment."""
    frequencies = _plain(rope_scale, rope_theta)
    _rotate_segments(q, k, indptr, offsets, rotary_dim, interleave, frequencies, True)


@_docs.arguments(_ARGUMENTS)
def apply_rope_pos_ids_inplace(
    q: torch.Tensor,
    k: torch.Tensor,
    pos_ids: torch.Tensor,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 1,
    rope_theta: float = 1e4,
) -> None:
    """Rotates ``q`` and ``k`` in place, positions by row."""
    frequencies = _plain(rope_scale, rope_theta)
    _rotate_pos_ids(q, k, pos_ids, rotary_dim, interleave, frequencies, True)


@_forms.also(_LLAMA31_0_1_6, _has_no_rotary_dim)
@_docs.arguments(_LLAMA31_ARGUMENTS)
def apply_llama31_rope_inplace(
    q: torch.Tensor,
    k: torch.Tensor,
    indptr: torch.Tensor,
    offsets: torch.Tensor,
    rotary_dim: int | None = None,
    interleave: bool | None = None,
    rope_scale: float = 8,
    rope_theta: float = 5e5,
    low_freq_factor: float = 1,
    high_freq_factor: float = 4,
    old_context_len: int = 8192,
) -> None:
    """:func:`apply_rope_inplace` with the frequencies of :func:`apply_llama31_rope`."""
    interleave = _interleave("apply_llama31_rope_inplace", interleave, rotary_dim)
    frequencies = _llama31(
        rope_scale, rope_theta, low_freq_factor, high_freq_factor, old_context_len
    )
    _rotate_segments(q, k, indptr, offsets, rotary_dim, interleave, frequencies, True)


@_docs.arguments(_LLAMA31_ARGUMENTS)
def apply_llama31_rope_pos_ids_inplace(
    q: torch.Tensor,
    k: torch.Tensor,
    pos_ids: torch.Tensor,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 8,
    rope_theta: float = 5e5,
    low_freq_factor: float = 1,
    high_freq_factor: float = 4,
    old_context_len: int = 8192,
) -> None:
    """:func:`apply_rope_pos_ids_inplace` with the frequencies of :func:`apply_llama31_rope`."""
    frequencies = _llama31(
        rope_scale, rope_theta, low_freq_factor, high_freq_factor, old_context_len
    )
    _rotate_pos_ids(q, k, pos_ids, rotary_dim, interleave, frequencies, True)


@_forms.also(_SEGMENTS_0_1_6, _has_no_rotary_dim)
@_docs.arguments(_ARGUMENTS)
def apply_rope(
    q: torch.Tensor,
    k: torch.Tensor,
    indptr: torch.Tensor,
    offsets: torch.Tensor,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 1,
    rope_theta: float = 1e4,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(q, k)`` rotated, positions by segment."""
    frequencies = _plain(rope_scale, rope_theta)
    return _rotate_segments(q, k, indptr, offsets, rotary_dim, interleave, frequencies, False)


@_docs.arguments(_ARGUMENTS)
def apply_rope_pos_ids(
    q: torch.Tensor,
    k: torch.Tensor,
    pos_ids: torch.Tensor,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 1,
    rope_theta: float = 1e4,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(q, k)`` rotated, positions by row."""
    frequencies = _plain(rope_scale, rope_theta)
    return _rotate_pos_ids(q, k, pos_ids, rotary_dim, interleave, frequencies, False)


@_forms.also(_LLAMA31_0_1_6, _has_no_rotary_dim)
@_docs.arguments(_LLAMA31_ARGUMENTS)
def apply_llama31_rope(
    q: torch.Tensor,
    k: torch.Tensor,
    indptr: torch.Tensor,
    offsets: torch.Tensor,
    rotary_dim: int | None = None,
    interleave: bool | None = None,
    rope_scale: float = 8,
    rope_theta: float = 5e5,
    low_freq_factor: float = 1,
    high_freq_factor: float = 4,
    old_context_len: int = 8192,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(q, k)`` rotated with Llama 3.1's frequencies, positions by segment.

    With ``f`` the frequency at ``rope_scale`` 1 and ``turns = f * old_context_len / (2 * pi)``, the
    frequency is ``(1 - w) * f / rope_scale + w * f`` for
    ``w = clamp((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)``.
    """
    interleave = _interleave("apply_llama31_rope", interleave, rotary_dim)
    frequencies = _llama31(
        rope_scale, rope_theta, low_freq_factor, high_freq_factor, old_context_len
    )
    return _rotate_segments(q, k, indptr, offsets, rotary_dim, interleave, frequencies, False)


@_docs.arguments(_LLAMA31_ARGUMENTS)
def apply_llama31_rope_pos_ids(
    q: torch.Tensor,
    k: torch.Tensor,
    pos_ids: torch.Tensor,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 8,
    rope_theta: float = 5e5,
    low_freq_factor: float = 1,
    high_freq_factor: float = 4,
    old_context_len: int = 8192,
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`apply_llama31_rope` with positions by row."""
    frequencies = _llama31(
        rope_scale, rope_theta, low_freq_factor, high_freq_factor, old_context_len
    )
    return _rotate_pos_ids(q, k, pos_ids, rotary_dim, interleave, frequencies, False)


_COS_SIN_CACHE = ("positions", "query", "key", "head_size", "cos_sin_cache", "is_neox")


def _has_one_cache(args: Any, kwargs: Any) -> bool:
    if len(args) > 3:
        return isinstance(args[3], int)
    return "positions" in kwargs or "cos_sin_cache" in kwargs


def _heads(name: str, value: torch.Tensor, head_size: int) -> torch.Tensor:
    """``value`` as ``[nnz, heads, head_size]``: a view, which can be written to."""
    _checks.tensor(name, value)
    if value.ndim == 2 and head_size > 0 and value.shape[1] % head_size == 0:
        return value.view(value.shape[0], value.shape[1] // head_size, head_size)
    if value.ndim != 3 or value.shape[2] != head_size:
        raise ValueError(
            f"{name} has shape {list(value.shape)}, expected [nnz, heads * head_size] with a"
            f" head_size of {head_size}"
        )
    return value


def _one_cache(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    head_size: int,
    cos_sin_cache: torch.Tensor,
    is_neox: bool = True,
    *,
    inplace: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The form of releases after 0.2.0."""
    _checks.dims("cos_sin_cache", cos_sin_cache, "[max_position, rotary_dim]")
    q, k = _heads("query", query, head_size), _heads("key", key, head_size)
    if cos_sin_cache.dtype != torch.float32:
        raise TypeError(f"cos_sin_cache has dtype {cos_sin_cache.dtype}, expected torch.float32")
    _checks.same_device("cos_sin_cache", cos_sin_cache, "query", query)
    dim = _check_qk(q, k, cos_sin_cache.shape[1])
    q, k = _rotate(
        q,
        k,
        dim,
        not is_neox,
        _plain(1.0, 1e4),
        inplace=inplace,
        pos_ids=_positions(q, positions),
        cos_sin_cache=_checks.rows_contiguous(cos_sin_cache),
    )
    return q.reshape(query.shape), k.reshape(key.shape)


def _one_cache_inplace(*args: Any, **kwargs: Any) -> None:
    _one_cache(*args, **kwargs, inplace=True)


@overload
def apply_rope_with_cos_sin_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    cos_cache: torch.Tensor,
    sin_cache: torch.Tensor,
    pos_ids: torch.Tensor,
    interleave: bool = ...,
) -> tuple[torch.Tensor, torch.Tensor]: ...


@overload
def apply_rope_with_cos_sin_cache(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    head_size: int,
    cos_sin_cache: torch.Tensor,
    is_neox: bool = ...,
) -> tuple[torch.Tensor, torch.Tensor]: ...


@_forms.diverted(_COS_SIN_CACHE, _has_one_cache, _one_cache)
@_docs.arguments(_ARGUMENTS)
def apply_rope_with_cos_sin_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    cos_cache: torch.Tensor,
    sin_cache: torch.Tensor,
    pos_ids: torch.Tensor,
    interleave: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(q, k)`` rotated by angles whose cosines and sines the caller has computed.

    Args:
        cos_cache: ``[max_position, rotary_dim]``, float32; the cosine of element i at every
            position. Both elements of a pair have the same one: columns i and
            ``i + rotary_dim / 2``, or ``2 * i`` and ``2 * i + 1`` with ``interleave``; the first of
            the two is read.
        sin_cache: the sines, likewise.
        pos_ids: ``[nnz]``, int32 or int64, rows of the caches.

    A call of releases after 0.2.0 works too: ``positions``, ``query``, ``key``, ``head_size``,
    ``cos_sin_cache``, ``is_neox=True``. Queries and keys are then ``[nnz, heads * head_size]`` and
    come back so; ``cos_sin_cache`` is ``[max_position, rotary_dim]``, float32, with the cosine of
    each pair in its first half and the sine in its second; ``is_neox`` is ``not interleave``.
    """
    return _rotate_cached(q, k, cos_cache, sin_cache, pos_ids, interleave, False)


@overload
def apply_rope_with_cos_sin_cache_inplace(
    q: torch.Tensor,
    k: torch.Tensor,
    cos_cache: torch.Tensor,
    sin_cache: torch.Tensor,
    pos_ids: torch.Tensor,
    interleave: bool = ...,
) -> None: ...


@overload
def apply_rope_with_cos_sin_cache_inplace(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    head_size: int,
    cos_sin_cache: torch.Tensor,
    is_neox: bool = ...,
) -> None: ...


@_forms.diverted(_COS_SIN_CACHE, _has_one_cache, _one_cache_inplace)
@_docs.arguments(_ARGUMENTS)
def apply_rope_with_cos_sin_cache_inplace(
    q: torch.Tensor,
    k: torch.Tensor,
    cos_cache: torch.Tensor,
    sin_cache: torch.Tensor,
    pos_ids: torch.Tensor,
    interleave: bool = False,
) -> None:
    """:func:`apply_rope_with_cos_sin_cache`, in place: the same arguments, in both forms."""
    _rotate_cached(q, k, cos_cache, sin_cache, pos_ids, interleave, True)
