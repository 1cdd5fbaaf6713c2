"""Drawing tokens from probabilities or logits, filters on them, and speculative sampling.

Every draw takes one uniform number and no rounds: the filters' threshold is found exactly and the
token by an inverse transform, so that ``success`` is false only for a row that has no positive
probability. Sums are exact integers (``csrc/include/flashinfer/api.h`` has the definition): a
sample is the same in every call, on any number of threads, on the CPU and on CUDA. So
``deterministic`` is accepted, and always the case.

Filters keep or drop equal probabilities together. A sum for top-p is a share of the row's own sum,
which need not be 1.
"""

from __future__ import annotations

from typing import Union

import torch

from flashinfer import _checks, _ops

__all__ = [
    "chain_speculative_sampling",
    "min_p_sampling_from_probs",
    "sampling_from_probs",
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

_INT32_MAX = 2**31 - 1
_ORDERS = ("top_k_first", "joint")

TopK = Union[torch.Tensor, int]
Share = Union[torch.Tensor, float]


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


def _top_k(value: TopK | None, rows: torch.Tensor) -> tuple[torch.Tensor | None, int]:
    """The tensor or the value of the filter."""
    if isinstance(value, torch.Tensor) and value.ndim > 0:
        _column("top_k", value, rows)
        if value.dtype not in _checks.INTEGERS:
            raise TypeError(f"top_k has dtype {value.dtype}, expected torch.int32 or torch.int64")
        if value.dtype == torch.int64:
            value = value.clamp(max=_INT32_MAX).to(torch.int32)
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
        if not value.is_floating_point():
            raise TypeError(f"{name} has dtype {value.dtype}, expected a floating point one")
        return value.float().contiguous(), 1.0
    if value is None or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, expected a float or a tensor [batch_size]")
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} is {number}, expected 0 to 1")
    return None, number


def _uniform(
    value: torch.Tensor | None,
    generator: torch.Generator | None,
    rows: torch.Tensor,
    rounds: bool,
) -> torch.Tensor:
    """One uniform number for each row, the caller's or new ones."""
    batch_size = rows.shape[0]
    if value is None:
        return torch.rand(
            (batch_size,), dtype=torch.float32, device=rows.device, generator=generator
        )
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
    probs: torch.Tensor,
    uniform_samples: torch.Tensor | None,
    generator: torch.Generator | None,
    check_nan: bool,
    *,
    top_k: TopK | None = None,
    top_p: Share | None = None,
    min_p: Share | None = None,
    top_k_first: bool = False,
    rounds: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = _rows("probs", probs)
    if check_nan:
        _refuse_nan("probs", rows)
    k, k_value = (None, 0) if top_k is None else _top_k(top_k, rows)
    p, p_value = (None, 1.0) if top_p is None else _share("top_p", top_p, rows)
    m, m_value = (None, 0.0) if min_p is None else _share("min_p", min_p, rows)
    uniform = _uniform(uniform_samples, generator, rows, rounds)
    samples = torch.empty((rows.shape[0],), dtype=torch.int32, device=rows.device)
    success = torch.empty((rows.shape[0],), dtype=torch.bool, device=rows.device)
    _ops.sample(samples, success, rows, uniform, k, k_value, p, p_value, m, m_value, top_k_first)
    return samples, success


def _given(name: str, value: object) -> None:
    if value is None:
        raise TypeError(f"{name} is missing")


def sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor | None = None,
    deterministic: bool = True,
    check_nan: bool = False,
    *,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draws one class from every row.

    Args:
        probs: ``[batch_size, num_classes]``, computed with as float32; rows need not sum to 1. NaN
            and negative entries count as 0.
        uniform_samples: ``[batch_size]`` in [0, 1), which decide the draws; by default new ones
            from ``torch.rand``.
        deterministic: accepted; results are deterministic in any case.
        check_nan: look for NaN first, which on CUDA waits for the device.
        generator: for new uniform numbers; torch's default one for the device if None. CUDA graphs
            capture the default one, and others that the graph was given.

    Returns:
        int32 ``[batch_size]``: of a row without a positive entry 0.

    Raises:
        ValueError: a shape or a device is wrong, or with ``check_nan`` a row has NaN.
        TypeError: a dtype is wrong, or an argument is not a tensor.
    """
    return _sample(probs, uniform_samples, generator, check_nan, rounds=False)[0]


def top_p_sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor | None = None,
    top_p: Share | None = None,
    deterministic: bool = True,
    check_nan: bool = False,
    *,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws from the nucleus: the largest entries, up to the one that reaches the share ``top_p``.

    Args:
        probs: as for :func:`sampling_from_probs`.
        uniform_samples: ``[rounds, batch_size]`` or ``[batch_size]``; one round decides, the first.
        top_p: share of the row's sum, 0 to 1, or a tensor ``[batch_size]`` of them. An entry is
            kept if the larger ones sum to less; the largest always is.
        deterministic: as for :func:`sampling_from_probs`.
        check_nan: as for :func:`sampling_from_probs`.
        generator: as for :func:`sampling_from_probs`.

    Returns:
        ``(samples, success)``: int32 and bool ``[batch_size]``; success is false, and the sample 0,
        where a row has no positive entry.

    Raises:
        ValueError: a shape, a device or ``top_p`` is wrong, or with ``check_nan`` a row has NaN.
        TypeError: a dtype is wrong, or an argument is missing or not a tensor.
    """
    _given("top_p", top_p)
    return _sample(probs, uniform_samples, generator, check_nan, top_p=top_p)


def top_k_sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor | None = None,
    top_k: TopK | None = None,
    deterministic: bool = True,
    check_nan: bool = False,
    *,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws from the ``top_k`` largest entries, and those that equal the least of them.

    Args:
        probs: as for :func:`sampling_from_probs`.
        uniform_samples: as for :func:`top_p_sampling_from_probs`.
        top_k: 1 or more, or a tensor ``[batch_size]`` of int32 or int64; more than there are
            classes keeps all.
        deterministic: as for :func:`sampling_from_probs`.
        check_nan: as for :func:`sampling_from_probs`.
        generator: as for :func:`sampling_from_probs`.

    Returns:
        ``(samples, success)`` as from :func:`top_p_sampling_from_probs`.

    Raises:
        ValueError: a shape, a device or ``top_k`` is wrong, or with ``check_nan`` a row has NaN.
        TypeError: a dtype is wrong, or an argument is missing or not a tensor.
    """
    _given("top_k", top_k)
    return _sample(probs, uniform_samples, generator, check_nan, top_k=top_k)


def min_p_sampling_from_probs(
    probs: torch.Tensor,
    uniform_samples: torch.Tensor | None = None,
    min_p: Share | None = None,
    deterministic: bool = True,
    check_nan: bool = False,
    *,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws from the entries that are at least the share ``min_p`` of the row's largest.

    Args:
        probs: as for :func:`sampling_from_probs`.
        uniform_samples: as for :func:`top_p_sampling_from_probs`.
        min_p: 0 to 1, or a tensor ``[batch_size]`` of them.
        deterministic: as for :func:`sampling_from_probs`.
        check_nan: as for :func:`sampling_from_probs`.
        generator: as for :func:`sampling_from_probs`.

    Returns:
        ``(samples, success)`` as from :func:`top_p_sampling_from_probs`.

    Raises:
        ValueError: a shape, a device or ``min_p`` is wrong, or with ``check_nan`` a row has NaN.
        TypeError: a dtype is wrong, or an argument is missing or not a tensor.
    """
    _given("min_p", min_p)
    return _sample(probs, uniform_samples, generator, check_nan, min_p=min_p)


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
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws from the entries that top-k and top-p both keep.

    Args:
        probs: as for :func:`sampling_from_probs`.
        uniform_samples: as for :func:`top_p_sampling_from_probs`.
        top_k: as for :func:`top_k_sampling_from_probs`.
        top_p: as for :func:`top_p_sampling_from_probs`.
        filter_apply_order: ``"top_k_first"``: ``top_p`` is a share of what top-k keeps;
            ``"joint"``: of the row.
        deterministic: as for :func:`sampling_from_probs`.
        check_nan: as for :func:`sampling_from_probs`.
        generator: as for :func:`sampling_from_probs`.

    Returns:
        ``(samples, success)`` as from :func:`top_p_sampling_from_probs`.

    Raises:
        ValueError: a shape, a device, a filter or ``filter_apply_order`` is wrong, or with
            ``check_nan`` a row has NaN.
        TypeError: a dtype is wrong, or an argument is missing or not a tensor.
    """
    _given("top_k", top_k)
    _given("top_p", top_p)
    if filter_apply_order not in _ORDERS:
        raise ValueError(
            f"filter_apply_order is {filter_apply_order!r}, expected 'top_k_first' or 'joint'"
        )
    return _sample(
        probs,
        uniform_samples,
        generator,
        check_nan,
        top_k=top_k,
        top_p=top_p,
        top_k_first=filter_apply_order == "top_k_first",
    )


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
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`top_k_top_p_sampling_from_probs` of the softmax of logits.

    Args:
        probs: the logits, ``[batch_size, num_classes]``; the name is FlashInfer's. Two that give
            the same float32 probability are equal to the filters.
        uniform_samples: as for :func:`top_p_sampling_from_probs`.
        top_k: as for :func:`top_k_sampling_from_probs`.
        top_p: as for :func:`top_p_sampling_from_probs`.
        filter_apply_order: as for :func:`top_k_top_p_sampling_from_probs`.
        deterministic: as for :func:`sampling_from_probs`.
        check_nan: as for :func:`sampling_from_probs`.
        generator: as for :func:`sampling_from_probs`.

    Returns:
        ``(samples, success)`` as from :func:`top_p_sampling_from_probs`.

    Raises:
        ValueError: as by :func:`top_k_top_p_sampling_from_probs`.
        TypeError: as by :func:`top_k_top_p_sampling_from_probs`.
    """
    return top_k_top_p_sampling_from_probs(
        torch.softmax(_rows("probs", probs), dim=-1),
        uniform_samples,
        top_k,
        top_p,
        filter_apply_order,
        deterministic,
        check_nan,
        generator=generator,
    )


def top_p_renorm_probs(probs: torch.Tensor, top_p: Share) -> torch.Tensor:
    """Every row with 0 outside of its nucleus, scaled to a sum of 1.

    Args:
        probs: as for :func:`sampling_from_probs`.
        top_p: as for :func:`top_p_sampling_from_probs`.

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


def top_k_renorm_probs(probs: torch.Tensor, top_k: TopK) -> torch.Tensor:
    """Every row with 0 for all but its ``top_k`` largest entries, scaled to a sum of 1.

    Args:
        probs: as for :func:`sampling_from_probs`.
        top_k: as for :func:`top_k_sampling_from_probs`.

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


def top_k_mask_logits(logits: torch.Tensor, top_k: TopK) -> torch.Tensor:
    """Every row with -inf for what is less than its ``top_k``-th largest logit.

    Args:
        logits: ``[batch_size, num_classes]``, computed with as float32. A NaN is less than -inf.
        top_k: as for :func:`top_k_sampling_from_probs`.

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

    Args:
        draft_probs: ``[batch_size, num_speculate_tokens, vocab_size]``, computed with as float32.
        draft_token_ids: ``[batch_size, num_speculate_tokens]``, int32 or int64. One that is no
            token is not accepted.
        uniform_samples: ``[batch_size, num_speculate_tokens + 1]`` in [0, 1); by default new ones.
        target_probs: ``[batch_size, num_speculate_tokens + 1, vocab_size]``.
        maybe_output_accepted_token_num: integers ``[batch_size]``, to which are added, in place,
            how many tokens would be accepted if each were looked at alone; zeros if None.
        maybe_output_emitted_token_num: the same for the length of the accepted chain.
        deterministic: as for :func:`sampling_from_probs`.
        generator: as for :func:`sampling_from_probs`.

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
        uniform_samples = torch.rand(form, device=draft_probs.device, generator=generator)
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
