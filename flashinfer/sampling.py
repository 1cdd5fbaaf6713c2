"""Drawing tokens from probabilities or logits, filters on them, and speculative sampling.

Every draw takes one uniform number and no rounds: the filters' threshold is found exactly and the
token by an inverse transform, so that ``success`` is false only for a row that has no positive
probability. Sums are exact integers (``csrc/include/flashinfer/api.h`` has the definition): a
sample is the same in every call, on any number of threads, on the CPU and on CUDA. So
``deterministic`` is accepted, and always the case.

Rows need not sum to 1. A draw is from what the filters keep, in proportion. The filters:

* ``top_k`` keeps that many of the largest entries; more than there are classes keeps all.
* ``top_p``, 0 to 1, keeps the nucleus: an entry is kept if the larger ones sum to less than
  ``top_p``, so the largest always is. It is a probability, not a share of the row: of a row that
  sums to less, it keeps all, and of one that sums to more it keeps fewer than its share would.
  With 1 there is no filter.
* ``min_p``, 0 to 1, keeps the entries that are at least this share of the row's largest.

Each is a number, or a tensor ``[batch_size]`` with one for each row, of any real dtype. Equal
entries are kept or dropped together.

Common to the samplers:

* The call has the form of 0.1.6 and 0.2.0, with ``uniform_samples`` in second place, and returns
  ``(samples, success)``; or that of later releases, without them, with the filters in second place,
  and returns ``samples``, or with ``return_valid`` the pair too. The latter have ``indices``,
  ``deterministic``, ``generator`` and ``check_nan`` after the filters; a second tensor behind a
  floating point one is taken for the filter, not for ``indices``.
* ``samples`` is int32, ``success`` bool, ``[batch_size]``; where a row has no positive entry the
  sample is 0 and ``success`` false.
* ValueError: a shape, a device or a filter is wrong, or with ``check_nan`` a row has NaN.
  TypeError: a dtype is wrong, or an argument is missing or not a tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Literal, Tuple, TypedDict, Union, overload

import torch

from flashinfer import _checks, _docs, _forms, _ops

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "chain_speculative_sampling",
    "min_p_sampling_from_probs",
    "sampling_from_logits",
    "sampling_from_probs",
    "softmax",
    "top_k_mask_logits",
    "top_k_renorm_prob",
    "top_k_renorm_probs",
    "top_k_sampling_from_probs",
    "top_k_top_p_sampling_from_logits",
    "top_k_top_p_sampling_from_probs",
    "top_p_renorm_prob",
    "top_p_renorm_probs",
    "top_p_sampling_from_probs",
]

_INT32_MIN, _INT32_MAX = -(2**31), 2**31 - 1
_ORDERS = ("top_k_first", "joint")

TopK = Union[torch.Tensor, int]
Share = Union[torch.Tensor, float]
Pair = Tuple[torch.Tensor, torch.Tensor]


_ARGUMENTS = {
    "probs": "``[batch_size, num_classes]``, computed with as float32. NaN and negative entries"
    " count as 0.",
    "uniform_samples": "``[batch_size]`` or ``[rounds, batch_size]`` in [0, 1), of which one round"
    " decides, the first; by default new ones.",
    "top_k": "1 or more, or a tensor ``[batch_size]`` of any real dtype.",
    "top_p": "0 to 1, or such a tensor: a probability, not a share of the row's sum.",
    "min_p": "0 to 1, or such a tensor.",
    "filter_apply_order": '``"top_k_first"`` or ``"joint"``.',
    "deterministic": "ignored: results always are.",
    "check_nan": "look for NaN first, which on CUDA waits for the device.",
    "generator": "for new uniform numbers; torch's default one for the device if None. CUDA graphs"
    " capture the default one, and others that the graph was given.",
    "indices": "``[count]``, integers: draw from these rows, in this order. Filters have an element"
    " for each row of ``probs``.",
    "return_valid": "return ``(samples, success)``.",
    "logits": "``[batch_size, num_classes]``, computed with as float32. A NaN is less than -inf.",
}


class Draw(TypedDict, total=False):
    """What every sampler takes by name, see the module."""

    deterministic: bool
    check_nan: bool
    generator: torch.Generator | None
    indices: torch.Tensor | None


def _rows(name: str, value: torch.Tensor) -> torch.Tensor:
    """``value`` as the kernels take it: float32 ``[batch_size, num_classes]``, a row contiguous."""
    _checks.dims(name, value, "[batch_size, num_classes]")
    if not value.is_floating_point():
        raise TypeError(f"{name} has dtype {value.dtype}, expected a floating point one")
    return _checks.rows_contiguous(value.float())


def _column(name: str, value: torch.Tensor, rows: torch.Tensor) -> None:
    _checks.shape(name, value, (rows.shape[0],), "one for each row of probs")
    if value.device != rows.device:
        raise ValueError(f"{name} is on {value.device}, expected {rows.device} as probs is")
    if value.is_complex():
        raise TypeError(f"{name} has dtype {value.dtype}, expected a real one")


def _top_k(value: TopK | None, rows: torch.Tensor) -> tuple[torch.Tensor | None, int]:
    """The tensor or the value of the filter."""
    if isinstance(value, torch.Tensor) and value.ndim > 0:
        _column("top_k", value, rows)
        if value.dtype != torch.int32:
            wide = value.double() if value.is_floating_point() else value.long()
            value = wide.clamp(_INT32_MIN, _INT32_MAX).to(torch.int32)
        return value.contiguous(), 0
    if value is None or isinstance(value, (float, bool)):
        raise TypeError(f"top_k is {value!r}, expected an int or a tensor [batch_size]")
    number = int(value)
    if number < 1:
        raise ValueError(f"top_k is {number}, expected 1 or more")
    return None, number


def _share(name: str, value: Share | None, rows: torch.Tensor) -> tuple[torch.Tensor | None, float]:
    """The tensor or the value of top-p or min-p."""
    if isinstance(value, torch.Tensor) and value.ndim > 0:
        _column(name, value, rows)
        return value.float().contiguous(), 1.0
    if value is None or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, expected a float or a tensor [batch_size]")
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} is {number}, expected 0 to 1")
    return None, number


def _random(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> torch.Tensor:
    # Where torch.compile has symbols for sizes, torch.rand takes no generator, be it None.
    if generator is None:
        return torch.rand(shape, dtype=torch.float32, device=device)
    return torch.rand(shape, dtype=torch.float32, device=device, generator=generator)


def _uniform(
    value: torch.Tensor | None,
    generator: torch.Generator | None,
    rows: torch.Tensor,
    rounds: bool,
) -> torch.Tensor:
    """One uniform number for each row, the caller's or new ones."""
    batch_size = rows.shape[0]
    if value is None:
        return _random((batch_size,), rows.device, generator)
    if generator is not None:
        raise ValueError("uniform_samples and generator are both given, expected one of them")
    _checks.tensor("uniform_samples", value)
    form = "[rounds, batch_size]" if rounds else "[batch_size]"
    if value.ndim == 2 and rounds and value.shape[0] > 0:
        value = value[0]
    if value.ndim != 1 or value.shape[0] != batch_size:
        raise ValueError(
            f"uniform_samples has shape {list(value.shape)}, expected {form} with a batch_size of"
            f" {batch_size}"
        )
    _checks.same_device("uniform_samples", value, "probs", rows)
    return value.float().contiguous()


def _refuse_nan(name: str, value: torch.Tensor) -> None:
    rows = value.isnan().any(dim=-1).reshape(-1).nonzero().reshape(-1).tolist()
    if rows:
        words = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
        raise ValueError(f"{name} has NaN in row {words}")


def _sample(
    rows: torch.Tensor,
    uniform_samples: torch.Tensor | None,
    generator: torch.Generator | None,
    check_nan: bool,
    indices: torch.Tensor | None,
    *,
    top_k: TopK | None = None,
    top_p: Share | None = None,
    min_p: Share | None = None,
    top_k_first: bool = False,
    rounds: bool = True,
) -> Pair:
    if check_nan:
        _refuse_nan("probs", rows)
    k, k_value = (None, 0) if top_k is None else _top_k(top_k, rows)
    p, p_value = (None, 1.0) if top_p is None else _share("top_p", top_p, rows)
    m, m_value = (None, 0.0) if min_p is None else _share("min_p", min_p, rows)
    if indices is not None:
        index = _checks.index("indices", indices, rows, "[count]")
        rows = rows.index_select(0, index)
        k, p, m = (None if x is None else x.index_select(0, index) for x in (k, p, m))
    uniform = _uniform(uniform_samples, generator, rows, rounds)
    samples = torch.empty((rows.shape[0],), dtype=torch.int32, device=rows.device)
    success = torch.empty((rows.shape[0],), dtype=torch.bool, device=rows.device)
    _ops.sample(samples, success, rows, uniform, k, k_value, p, p_value, m, m_value, top_k_first)
    return samples, success


def _given(name: str, value: object) -> None:
    if value is None:
        raise TypeError(f"{name} is missing")


def _result(pair: Pair, uniform_samples: object, return_valid: bool) -> torch.Tensor | Pair:
    """The pair where the call has uniform numbers, as in 0.2.0, or asks for it."""
    return pair if uniform_samples is not None or return_valid else pair[0]


_AFTER = ("deterministic", "generator", "check_nan")


def _later_form(*filters: str) -> Callable[[Any], Any]:
    """Takes the filters in second place, as releases after 0.2.0 do."""

    def without_uniform(args: Any, kwargs: Any) -> bool:
        if len(args) < 2 or "uniform_samples" in kwargs or args[1] is None:
            return False
        if not isinstance(args[1], torch.Tensor) or not args[1].is_floating_point():
            return True
        # Uniform numbers have all filters behind them. A filter has not itself behind it.
        missing = len(filters)
        for value in [*args[2 : 2 + len(filters)], *[kwargs.get(name) for name in filters]]:
            if value is not None:
                missing -= 1
        return missing > 0

    order = ("filter_apply_order",) if len(filters) > 1 else ()
    return _forms.also(("probs", *filters, "indices", *order, *_AFTER), without_uniform)


def _later_plain(args: Any, kwargs: Any) -> bool:
    if len(args) < 2 or "uniform_samples" in kwargs:
        return False
    if isinstance(args[1], torch.Tensor):
        return not args[1].is_floating_point()
    return len(args) > 3 and isinstance(args[3], torch.Generator)


@overload
def sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor | None = ...,
    *,
    return_valid: Literal[False] = ...,
    **draw: Unpack[Draw],
) -> torch.Tensor: ...


@overload
def sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor | None = ...,
    *,
    return_valid: Literal[True],
    **draw: Unpack[Draw],
) -> Pair: ...


@_forms.also(("probs", "indices", *_AFTER), _later_plain)
@_docs.arguments(_ARGUMENTS)
def sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor | None = None,
    deterministic: bool = True,
    check_nan: bool = False,
    *,
    generator: torch.Generator | None = None,
    indices: torch.Tensor | None = None,
    return_valid: bool = False,
) -> torch.Tensor | Pair:
    """Draws one class from every row; the module has the forms and the errors.

    Args:
        uniform_samples: ``[batch_size]`` in [0, 1), which decide the draws; by default new ones.

    Returns:
        int32 ``[batch_size]``, with ``uniform_samples`` too, as in 0.2.0.
    """
    rows = _rows("probs", probs)
    pair = _sample(rows, uniform_samples, generator, check_nan, indices, rounds=False)
    return pair if return_valid else pair[0]


@overload
def top_p_sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor,
    top_p: Share,
    deterministic: bool = ...,
    check_nan: bool = ...,
    *,
    indices: torch.Tensor | None = ...,
) -> Pair: ...


@overload
def top_p_sampling_from_probs(
    probs: torch.Tensor,
    top_p: Share,
    *,
    return_valid: Literal[False] = ...,
    **draw: Unpack[Draw],
) -> torch.Tensor: ...


@overload
def top_p_sampling_from_probs(
    probs: torch.Tensor,
    top_p: Share,
    *,
    return_valid: Literal[True],
    **draw: Unpack[Draw],
) -> Pair: ...


@_later_form("top_p")
@_docs.arguments(_ARGUMENTS)
def top_p_sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor | None = None,
    top_p: Share | None = None,
    deterministic: bool = True,
    check_nan: bool = False,
    *,
    generator: torch.Generator | None = None,
    indices: torch.Tensor | None = None,
    return_valid: bool = False,
) -> torch.Tensor | Pair:
    """Draws from the nucleus: the largest entries, up to the one that reaches ``top_p``.

    The module has both forms of the call, its result and the errors.
    """
    _given("top_p", top_p)
    rows = _rows("probs", probs)
    pair = _sample(rows, uniform_samples, generator, check_nan, indices, top_p=top_p)
    return _result(pair, uniform_samples, return_valid)


@overload
def top_k_sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor,
    top_k: TopK,
    deterministic: bool = ...,
    check_nan: bool = ...,
    *,
    indices: torch.Tensor | None = ...,
) -> Pair: ...


@overload
def top_k_sampling_from_probs(
    probs: torch.Tensor,
    top_k: TopK,
    *,
    return_valid: Literal[False] = ...,
    **draw: Unpack[Draw],
) -> torch.Tensor: ...


@overload
def top_k_sampling_from_probs(
    probs: torch.Tensor,
    top_k: TopK,
    *,
    return_valid: Literal[True],
    **draw: Unpack[Draw],
) -> Pair: ...


@_later_form("top_k")
@_docs.arguments(_ARGUMENTS)
def top_k_sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor | None = None,
    top_k: TopK | None = None,
    deterministic: bool = True,
    check_nan: bool = False,
    *,
    generator: torch.Generator | None = None,
    indices: torch.Tensor | None = None,
    return_valid: bool = False,
) -> torch.Tensor | Pair:
    """Draws from the ``top_k`` largest entries, and those that equal the least of them.

    The module has both forms of the call, its result and the errors.
    """
    _given("top_k", top_k)
    rows = _rows("probs", probs)
    pair = _sample(rows, uniform_samples, generator, check_nan, indices, top_k=top_k)
    return _result(pair, uniform_samples, return_valid)


@overload
def min_p_sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor,
    min_p: Share,
    deterministic: bool = ...,
    check_nan: bool = ...,
    *,
    indices: torch.Tensor | None = ...,
) -> Pair: ...


@overload
def min_p_sampling_from_probs(
    probs: torch.Tensor,
    min_p: Share,
    *,
    return_valid: Literal[False] = ...,
    **draw: Unpack[Draw],
) -> torch.Tensor: ...


@overload
def min_p_sampling_from_probs(
    probs: torch.Tensor,
    min_p: Share,
    *,
    return_valid: Literal[True],
    **draw: Unpack[Draw],
) -> Pair: ...


@_later_form("min_p")
@_docs.arguments(_ARGUMENTS)
def min_p_sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor | None = None,
    min_p: Share | None = None,
    deterministic: bool = True,
    check_nan: bool = False,
    *,
    generator: torch.Generator | None = None,
    indices: torch.Tensor | None = None,
    return_valid: bool = False,
) -> torch.Tensor | Pair:
    """Draws from the entries that are at least the share ``min_p`` of the row's largest.

    The module has both forms of the call, its result and the errors.
    """
    _given("min_p", min_p)
    rows = _rows("probs", probs)
    pair = _sample(rows, uniform_samples, generator, check_nan, indices, min_p=min_p)
    return _result(pair, uniform_samples, return_valid)


def _sample_both(
    rows: torch.Tensor,
    uniform_samples: torch.Tensor | None,
    generator: torch.Generator | None,
    check_nan: bool,
    indices: torch.Tensor | None,
    top_k: TopK | None,
    top_p: Share | None,
    order: str,
) -> Pair:
    _given("top_k", top_k)
    _given("top_p", top_p)
    if order not in _ORDERS:
        raise ValueError(f"filter_apply_order is {order!r}, expected 'top_k_first' or 'joint'")
    return _sample(
        rows,
        uniform_samples,
        generator,
        check_nan,
        indices,
        top_k=top_k,
        top_p=top_p,
        top_k_first=order == "top_k_first",
    )


@overload
def top_k_top_p_sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor,
    top_k: TopK,
    top_p: Share,
    filter_apply_order: str = ...,
    deterministic: bool = ...,
    check_nan: bool = ...,
    *,
    indices: torch.Tensor | None = ...,
) -> Pair: ...


@overload
def top_k_top_p_sampling_from_probs(
    probs: torch.Tensor,
    top_k: TopK,
    top_p: Share,
    *,
    filter_apply_order: str = ...,
    return_valid: Literal[False] = ...,
    **draw: Unpack[Draw],
) -> torch.Tensor: ...


@overload
def top_k_top_p_sampling_from_probs(
    probs: torch.Tensor,
    top_k: TopK,
    top_p: Share,
    *,
    filter_apply_order: str = ...,
    return_valid: Literal[True],
    **draw: Unpack[Draw],
) -> Pair: ...


@_later_form("top_k", "top_p")
@_docs.arguments(_ARGUMENTS)
def top_k_top_p_sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor | None = None,
    top_k: TopK | None = None,
    top_p: Share | None = None,
    filter_apply_order: str = "top_k_first",
    deterministic: bool = True,
    check_nan: bool = False,
    *,
    generator: torch.Generator | None = None,
    indices: torch.Tensor | None = None,
    return_valid: bool = False,
) -> torch.Tensor | Pair:
    """Draws from the entries that top-k and top-p both keep.

    With ``filter_apply_order`` ``"top_k_first"``, ``top_p`` is a share of the sum of what top-k
    keeps, if ``top_k`` is less than the number of classes; with ``"joint"``, both look at the whole
    row. The module has both forms of the call, its result and the errors.
    """
    rows = _rows("probs", probs)
    pair = _sample_both(
        rows, uniform_samples, generator, check_nan, indices, top_k, top_p, filter_apply_order
    )
    return _result(pair, uniform_samples, return_valid)


@overload
def top_k_top_p_sampling_from_logits(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor,
    top_k: TopK,
    top_p: Share,
    filter_apply_order: str = ...,
    deterministic: bool = ...,
    check_nan: bool = ...,
    *,
    indices: torch.Tensor | None = ...,
) -> Pair: ...


@overload
def top_k_top_p_sampling_from_logits(
    probs: torch.Tensor,
    top_k: TopK,
    top_p: Share,
    *,
    filter_apply_order: str = ...,
    return_valid: Literal[False] = ...,
    **draw: Unpack[Draw],
) -> torch.Tensor: ...


@overload
def top_k_top_p_sampling_from_logits(
    probs: torch.Tensor,
    top_k: TopK,
    top_p: Share,
    *,
    filter_apply_order: str = ...,
    return_valid: Literal[True],
    **draw: Unpack[Draw],
) -> Pair: ...


@_forms.renamed(logits="probs")
@_later_form("top_k", "top_p")
@_docs.arguments(_ARGUMENTS)
def top_k_top_p_sampling_from_logits(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor | None = None,
    top_k: TopK | None = None,
    top_p: Share | None = None,
    filter_apply_order: str = "top_k_first",
    deterministic: bool = True,
    check_nan: bool = False,
    *,
    generator: torch.Generator | None = None,
    indices: torch.Tensor | None = None,
    return_valid: bool = False,
) -> torch.Tensor | Pair:
    """:func:`top_k_top_p_sampling_from_probs` of the softmax of logits.

    ``probs`` are the logits, ``[batch_size, num_classes]``, and may be called ``logits``. Two that
    give the same float32 probability are equal to the filters.
    """
    rows = _softmax(_rows("probs", probs), None, 1.0)
    pair = _sample_both(
        rows, uniform_samples, generator, check_nan, indices, top_k, top_p, filter_apply_order
    )
    return _result(pair, uniform_samples, return_valid)


@_docs.arguments(_ARGUMENTS)
def top_p_renorm_probs(
    probs: torch.Tensor, top_p: Share, is_deterministic: bool = True
) -> torch.Tensor:
    """Every row with 0 outside of its nucleus, scaled to a sum of 1.

    Args:
        is_deterministic: ignored: results always are.

    Returns:
        float32 ``[batch_size, num_classes]``; of a row without a positive entry zeros.

    Raises:
        ValueError: a shape, a device or ``top_p`` is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    rows = _rows("probs", probs)
    p, p_value = _share("top_p", top_p, rows)
    out = torch.empty(rows.shape, dtype=torch.float32, device=rows.device)
    _ops.renorm_probs(out, rows, None, 0, p, p_value)
    return out


@_docs.arguments(_ARGUMENTS)
def top_k_renorm_probs(probs: torch.Tensor, top_k: TopK) -> torch.Tensor:
    """Every row with 0 for all but its ``top_k`` largest entries, scaled to a sum of 1.

    Returns:
        float32 ``[batch_size, num_classes]``; of a row without a positive entry zeros.

    Raises:
        ValueError: a shape, a device or ``top_k`` is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    rows = _rows("probs", probs)
    k, k_value = _top_k(top_k, rows)
    out = torch.empty(rows.shape, dtype=torch.float32, device=rows.device)
    _ops.renorm_probs(out, rows, k, k_value, None, 1.0)
    return out


# The names of 0.1.6.
top_p_renorm_prob = top_p_renorm_probs
top_k_renorm_prob = top_k_renorm_probs


@_docs.arguments(_ARGUMENTS)
def top_k_mask_logits(logits: torch.Tensor, top_k: TopK) -> torch.Tensor:
    """Every row with -inf for what is less than its ``top_k``-th largest logit.

    Returns:
        float32 ``[batch_size, num_classes]``.

    Raises:
        ValueError: a shape, a device or ``top_k`` is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    rows = _rows("logits", logits)
    k, k_value = _top_k(top_k, rows)
    out = torch.empty(rows.shape, dtype=torch.float32, device=rows.device)
    _ops.mask_logits(out, rows, k, k_value)
    return out


def _counter(name: str, value: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
    """An int32 tensor to count in; the caller's where it is one, otherwise zeros."""
    if value is not None:
        _checks.shape(name, value, (rows.shape[0],), "one for each request")
        _checks.same_device(name, value, "draft_probs", rows)
        if value.dtype not in _checks.INTEGERS:
            raise TypeError(f"{name} has dtype {value.dtype}, expected torch.int32 or torch.int64")
        if value.dtype == torch.int32 and value.is_contiguous():
            return value
    return torch.zeros((rows.shape[0],), dtype=torch.int32, device=rows.device)


def _target_is_third(args: Any, kwargs: Any) -> bool:
    if len(args) < 3 or "target_probs" in kwargs:
        return False
    return isinstance(args[2], torch.Tensor) and args[2].ndim == 3


@_forms.renamed(maybe_output_emitted_draft_token_num="maybe_output_emitted_token_num")
@_forms.also(
    (
        "draft_probs",
        "draft_token_ids",
        "target_probs",
        "maybe_output_accepted_token_num",
        "maybe_output_emitted_token_num",
        *_AFTER[:2],
    ),
    _target_is_third,
)
@_docs.arguments(_ARGUMENTS)
def chain_speculative_sampling(
    draft_probs: torch.Tensor,
    draft_token_ids: torch.Tensor,
    uniform_samples: torch.Tensor | None = None,
    target_probs: torch.Tensor | None = None,
    maybe_output_accepted_token_num: torch.Tensor | None = None,
    maybe_output_emitted_token_num: torch.Tensor | None = None,
    deterministic: bool = True,
    *,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Verifies a draft model's tokens, so that the output has the target model's distribution.

    A token with probability p under the draft and q under the target is accepted with probability
    min(1, q / p). At the first that is not, one is drawn from max(q - p, 0), normalised; behind a
    chain that is accepted whole, one from the target (Leviathan et al., 2023, arXiv:2211.17192).
    A call of releases after 0.2.0, with ``target_probs`` in third place and without uniform
    numbers, works too.

    Args:
        draft_probs: ``[batch_size, num_speculate_tokens, vocab_size]``, computed with as float32.
        draft_token_ids: ``[batch_size, num_speculate_tokens]``, int32 or int64. One that is no
            token is not accepted.
        uniform_samples: ``[batch_size, num_speculate_tokens + 1]`` in [0, 1); by default new ones.
        target_probs: ``[batch_size, num_speculate_tokens + 1, vocab_size]``.
        maybe_output_accepted_token_num: integers ``[batch_size]``, to which are added, in place,
            how many tokens would be accepted if each were looked at alone; zeros if None.
        maybe_output_emitted_token_num: the same for the length of the accepted chain.

    Returns:
        ``(output_token_ids, accepted, emitted)``: int32 ``[batch_size, num_speculate_tokens + 1]``
        with the accepted tokens, the drawn one and -1 behind it; and the two counters.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: a dtype is wrong, or an argument is missing or not a tensor.
    """
    _given("target_probs", target_probs)
    assert target_probs is not None
    _checks.dims("draft_probs", draft_probs, "[batch_size, num_speculate_tokens, vocab_size]")
    batch_size, length, vocab_size = draft_probs.shape
    _checks.shape("draft_token_ids", draft_token_ids, (batch_size, length), "that of draft_probs")
    _checks.shape(
        "target_probs", target_probs, (batch_size, length + 1, vocab_size), "one token more"
    )
    for name, value in (("draft_probs", draft_probs), ("target_probs", target_probs)):
        if not value.is_floating_point():
            raise TypeError(f"{name} has dtype {value.dtype}, expected a floating point one")
    if draft_token_ids.dtype not in _checks.INTEGERS:
        raise TypeError(
            f"draft_token_ids has dtype {draft_token_ids.dtype}, expected torch.int32 or"
            " torch.int64"
        )
    form = (batch_size, length + 1)
    if uniform_samples is None:
        uniform_samples = _random(form, draft_probs.device, generator)
    elif generator is not None:
        raise ValueError("uniform_samples and generator are both given, expected one of them")
    else:
        _checks.shape("uniform_samples", uniform_samples, form, "one number more than tokens")
    for name, value in (
        ("draft_token_ids", draft_token_ids),
        ("uniform_samples", uniform_samples),
        ("target_probs", target_probs),
    ):
        _checks.same_device(name, value, "draft_probs", draft_probs)
    given = (maybe_output_accepted_token_num, maybe_output_emitted_token_num)
    names = ("maybe_output_accepted_token_num", "maybe_output_emitted_token_num")
    counters = [_counter(*pair, draft_probs) for pair in zip(names, given)]
    output = torch.empty(form, dtype=torch.int32, device=draft_probs.device)
    if draft_token_ids.dtype == torch.int64:
        draft_token_ids = draft_token_ids.clamp(-1, _INT32_MAX)
    _ops.chain_speculative(
        output,
        *counters,
        draft_probs.float().contiguous(),
        draft_token_ids.to(torch.int32).contiguous(),
        uniform_samples.float().contiguous(),
        target_probs.float().contiguous(),
    )
    for i, counter in enumerate(given):
        if counter is not None and counter is not counters[i]:
            counters[i] = counter.add_(counters[i])
    return output, counters[0], counters[1]


def softmax(
    logits: torch.Tensor,
    temperature: torch.Tensor | float | None = None,
    enable_pdl: bool | None = None,
) -> torch.Tensor:
    """``softmax(logits / temperature)`` of every row, in fp32.

    Args:
        logits: ``[batch_size, num_classes]``, floating point, computed with as float32. -inf gives
            0.
        temperature: a number, or a tensor ``[batch_size]`` of any real dtype; 1 if None. With 0, as
            in FlashInfer, all classes above -inf are equally likely.
        enable_pdl: ignored.

    Returns:
        float32 ``[batch_size, num_classes]``; of a row with nothing above -inf zeros, and of one
        with NaN or inf NaN.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    rows = _rows("logits", logits)
    heat: torch.Tensor | None = None
    number = 1.0
    if isinstance(temperature, torch.Tensor) and temperature.ndim > 0:
        _column("temperature", temperature, rows)
        heat = temperature.float().contiguous()
    elif temperature is not None:
        number = float(temperature)
    return _softmax(rows, heat, number)


def _softmax(rows: torch.Tensor, heat: torch.Tensor | None, number: float) -> torch.Tensor:
    """By the temperatures ``heat``, or one number for all rows."""
    out = torch.empty(rows.shape, dtype=torch.float32, device=rows.device)
    _ops.softmax(out, rows, heat, number)
    return out


@_docs.arguments(_ARGUMENTS)
def sampling_from_logits(
    logits: torch.Tensor,
    indices: torch.Tensor | None = None,
    deterministic: bool = True,
    generator: torch.Generator | None = None,
    check_nan: bool = False,
) -> torch.Tensor:
    """:func:`sampling_from_probs` of the softmax of logits.

    Args:
        logits: ``[batch_size, num_classes]``, computed with as float32.
        indices: ``[count]``, integers: draw from these rows, in this order.

    Returns:
        int32 ``[batch_size]``, or ``[count]``.

    Raises:
        ValueError: a shape or a device is wrong, or with ``check_nan`` a row has NaN.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    rows = _rows("logits", logits)
    if check_nan:
        _refuse_nan("logits", rows)
    probs = _softmax(rows, None, 1.0)
    return _sample(probs, None, generator, False, indices, rounds=False)[0]
