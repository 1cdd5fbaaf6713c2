"""What all attention calls share: options, the view of a KV cache, and the call itself."""

from __future__ import annotations

import math
import os
from typing import Any, Mapping, NamedTuple, Tuple, TypedDict, Union

import torch

from flashinfer import _api, _checks, _ops
from flashinfer._plan import Heads, Plan, compiling

# With FLASHINFER_DEBUG=1 page indices are looked at on CUDA too, which waits for the device.
DEBUG = os.environ.get("FLASHINFER_DEBUG", "0") not in ("", "0")

Attended = Union[torch.Tensor, Tuple[torch.Tensor, torch.Tensor]]
KVCache = Union[torch.Tensor, Tuple[torch.Tensor, torch.Tensor]]

_POSITIONS = ("NONE", "ROPE_LLAMA", "ALIBI")
_DTYPES = {str(dtype).partition(".")[2]: dtype for dtype in (*_checks.FLOATS_AND_FP8, torch.uint8)}


class Hints(TypedDict, total=False):
    """What plans of later releases are also told, for kernels that there are not here."""

    block_tables: torch.Tensor | None
    seq_lens: torch.Tensor | None
    seq_lens_q: torch.Tensor | None
    max_token_per_sequence: int | None
    max_sequence_kv: int | None


def check_hints(function: str, hints: Mapping[str, Any]) -> None:
    """TypeError for a keyword that is no hint."""
    for name in hints.keys() - Hints.__annotations__.keys():
        raise TypeError(f"{function} got an unexpected keyword argument {name!r}")


class Options(NamedTuple):
    """What a run may choose anew under the same plan."""

    causal: bool
    window_left: int
    pos_encoding: str
    sm_scale: float
    logits_soft_cap: float
    rope_scale: float
    rope_theta: float

    def after_causal(
        self, v_scale: float | None
    ) -> tuple[int, str, float, float, float, float, float]:
        """The arguments that end every op of attention, in their order; None is no scale."""
        return (
            self.window_left,
            self.pos_encoding,
            self.sm_scale,
            self.logits_soft_cap,
            1.0 if v_scale is None else float(v_scale),
            self.rope_scale,
            self.rope_theta,
        )


def options(
    head_dim: int,
    *,
    causal: bool = False,
    pos_encoding_mode: str = "NONE",
    window_left: int | None = -1,
    logits_soft_cap: float | None = None,
    sm_scale: float | None = None,
    rope_scale: float | None = None,
    rope_theta: float | None = None,
) -> Options:
    """Checked options, with defaults for what is None."""
    if pos_encoding_mode not in _POSITIONS:
        raise _checks.UnknownName(
            f"pos_encoding_mode is {pos_encoding_mode!r}, expected 'NONE', 'ROPE_LLAMA' or 'ALIBI'"
        )
    if pos_encoding_mode == "ALIBI" and logits_soft_cap is not None and logits_soft_cap > 0:
        _refuse_cap_after_alibi()
    scale = 1.0 if rope_scale is None else float(rope_scale)
    theta = 1e4 if rope_theta is None else float(rope_theta)
    if scale <= 0 or theta <= 0:
        raise ValueError(f"rope_scale is {scale} and rope_theta {theta}, expected both above 0")
    return Options(
        causal=bool(causal),
        # Text Generation Inference plans with None where a model has no window.
        window_left=-1 if window_left is None else max(int(window_left), -1),
        pos_encoding=pos_encoding_mode,
        sm_scale=1 / math.sqrt(head_dim) if sm_scale is None else float(sm_scale),
        logits_soft_cap=0.0 if logits_soft_cap is None else max(float(logits_soft_cap), 0.0),
        rope_scale=scale,
        rope_theta=theta,
    )


def _refuse_cap_after_alibi() -> None:
    release = _api.settle(
        "pos_encoding_mode='ALIBI' with logits_soft_cap",
        "the soft cap is applied before the bias is added in FlashInfer 0.1.6, and after it in"
        " 0.2.0",
        _api.OLD,
        "",
    )
    if release == _api.NEW:
        raise ValueError(
            "logits_soft_cap is given with pos_encoding_mode='ALIBI' and FLASHINFER_API=0.2.0, in"
            " which the cap comes after the bias: there is no kernel for it; expected no soft cap,"
            " or FLASHINFER_API=0.1.6"
        )


def alibi_moves() -> bool:
    """Whether the log-sum-exps of ALiBi are 0.2.0's, for :func:`moved`."""
    release = _api.settle(
        "a log-sum-exp with pos_encoding_mode='ALIBI'",
        "a query stands at its place among the keys in FlashInfer 0.1.6, and at its index among the"
        " queries in 0.2.0, which adds slope * (kv_len - qo_len) * log2(e) to it",
        _api.OLD,
        "",
    )
    return release == _api.NEW


def moved(lse: torch.Tensor, ahead: torch.Tensor) -> torch.Tensor:
    """ALiBi's log-sum-exps as 0.2.0 has them; ``ahead``: kv_len - qo_len of each row's request."""
    heads = lse.shape[-1]
    most = 2 ** int(math.log2(heads))
    head = torch.arange(1, heads + 1, dtype=torch.float32, device=lse.device)
    slopes = torch.where(head <= most, head, head - most - 0.5) * (-8 / most)
    return lse + torch.exp2(slopes) * math.log2(math.e) * ahead.to(lse.dtype)[:, None]


def with_causal(chosen: Options, causal: bool) -> Options:
    """The options with another ``causal``."""
    # Not _replace, which torch.compile of torch 2.4 does not trace.
    return Options(
        causal,
        chosen.window_left,
        chosen.pos_encoding,
        chosen.sm_scale,
        chosen.logits_soft_cap,
        chosen.rope_scale,
        chosen.rope_theta,
    )


def with_window(chosen: Options, window_left: int | None) -> Options:
    """The options with another window, where one is given."""
    if window_left is None:
        return chosen
    return Options(
        chosen.causal,
        max(int(window_left), -1),
        chosen.pos_encoding,
        chosen.sm_scale,
        chosen.logits_soft_cap,
        chosen.rope_scale,
        chosen.rope_theta,
    )


def check_layout(kv_layout: str) -> bool:
    """Whether the layout is HND; UnknownName if it is neither that nor NHD."""
    if kv_layout not in ("NHD", "HND"):
        raise _checks.UnknownName(f"kv_layout is {kv_layout!r}, expected 'NHD' or 'HND'")
    return kv_layout == "HND"


def check_dtype(name: str, value: str | torch.dtype | None) -> torch.dtype | None:
    """The dtype of queries, or of keys and values, that this is or names.

    TypeError or ValueError where it is none.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if value not in _DTYPES:
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(_DTYPES)}")
        return _DTYPES[value]
    if value not in _DTYPES.values():
        raise TypeError(f"{name} is {value!r}, expected a torch.dtype or its name")
    return value


def check_query(name: str, q: torch.Tensor, form: str) -> None:
    """ValueError or TypeError unless ``q`` has these dimensions and a dtype of queries."""
    _checks.dims(name, q, form)
    _checks.floating(name, q)


def check_keys(
    k: torch.Tensor,
    v: torch.Tensor,
    q: torch.Tensor,
    heads: Heads,
    hnd: bool,
    names: tuple[str, str] = ("k", "v"),
) -> None:
    """Compares keys and values with each other, with ``q`` and with what was planned.

    They are ``[rows, heads, head_dim]``, or with pages in front; HND has the heads first.
    """
    _checks.shape(names[1], v, tuple(k.shape), f"the shape of {names[0]}")
    _checks.like(names[1], v, names[0], k)
    if k.dtype != q.dtype and k.dtype not in _checks.FLOATS_AND_FP8[-2:]:
        raise TypeError(
            f"{names[0]} has dtype {k.dtype}, expected {q.dtype} as q has, or an fp8 dtype"
        )
    _checks.same_device(names[0], k, "q", q)
    found = k.shape[-3 if hnd else -2]
    if found != heads.kv or k.shape[-1] != heads.dim:
        raise ValueError(
            f"{names[0]} has {found} heads of {k.shape[-1]} elements in layout"
            f" {'HND' if hnd else 'NHD'}, expected {heads.kv} of {heads.dim}"
        )


def check_rows(name: str, q: torch.Tensor, tokens: int, exact: bool) -> None:
    """ValueError unless ``q`` has a row for each planned token, and no others if ``exact``."""
    if q.shape[0] < tokens or (exact and q.shape[0] != tokens):
        raise ValueError(f"{name} has shape {list(q.shape)}, expected {tokens} rows as planned")


def check_kv_rows(k: torch.Tensor, hnd: bool, rows: int) -> None:
    """ValueError unless ragged keys have the planned rows, or more."""
    found = k.shape[1 if hnd else 0]
    if found < rows:
        raise ValueError(f"k has {found} rows, expected {rows} or more as planned")


def scaled(chosen: Options, q_scale: float | None = None, k_scale: float | None = None) -> Options:
    """The options with the scales of quantised queries and keys in ``sm_scale``."""
    if q_scale is None and k_scale is None:
        return chosen
    factor = (1.0 if q_scale is None else q_scale) * (1.0 if k_scale is None else k_scale)
    # Not _replace, which torch.compile of torch 2.4 does not trace.
    return Options(
        chosen.causal,
        chosen.window_left,
        chosen.pos_encoding,
        chosen.sm_scale * float(factor),
        chosen.logits_soft_cap,
        chosen.rope_scale,
        chosen.rope_theta,
    )


def rows(q: torch.Tensor) -> torch.Tensor:
    """``q``, or a copy where its heads do not begin at multiples of 16 bytes or have gaps."""
    if q.stride(-1) == 1:
        if not q.is_cuda:
            return q
        step = 16 // q.element_size()
        begins = torch.compiler.is_compiling() or q.storage_offset() % step == 0
        if begins and all(stride % step == 0 for stride in q.stride()[:-1]):
            return q
    return q.contiguous()


def allocate(
    q: torch.Tensor,
    return_lse: bool,
    out: torch.Tensor | None = None,
    lse: torch.Tensor | None = None,
    name: str = "q",
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The output and, where they are asked for, the log-sum-exps: the caller's, or new ones."""
    if out is None:
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    else:
        _checks.shape("out", out, tuple(q.shape), f"the shape of {name}")
        _checks.like("out", out, name, q)
    if lse is not None:
        if not return_lse:
            raise ValueError("lse is given, expected return_lse=True with it")
        _checks.shape("lse", lse, tuple(q.shape[:-1]), f"{name} without head_dim")
        if lse.dtype != torch.float32:
            raise TypeError(f"lse has dtype {lse.dtype}, expected torch.float32")
        _checks.same_device("lse", lse, name, q)
    elif return_lse:
        lse = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
    return out, lse


def launch(
    plan: Plan,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kv_indices: torch.Tensor | None,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    mask: torch.Tensor | None,
    mask_indptr: torch.Tensor | None,
    hnd: bool,
    chosen: Options,
    v_scale: float | None,
    exact: bool = False,
) -> None:
    """Runs a plan; everything has been checked, but for the number of rows where something traces.

    ``exact`` is for that: whether ``q`` has a row for each token that was planned and no more.
    """
    if plan.sizes is not None and compiling():
        _ops.planned_attention(
            q,
            k,
            v,
            kv_indices,
            out,
            lse,
            plan.words,
            plan.workspace,
            mask,
            mask_indptr,
            plan.sizes,
            exact,
            hnd,
            chosen.causal,
            *chosen.after_causal(v_scale),
        )
        return
    size = plan.capacity
    _ops.attention(
        q,
        k,
        v,
        kv_indices,
        out,
        lse,
        plan.words,
        plan.workspace,
        mask,
        mask_indptr,
        None,
        size.tile_rows,
        size.items,
        size.merges,
        size.slots,
        hnd,
        chosen.causal,
        *chosen.after_causal(v_scale),
    )


def _run_planned(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kv_indices: torch.Tensor | None,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    plan: torch.Tensor,
    workspace: torch.Tensor,
    mask: torch.Tensor | None,
    mask_indptr: torch.Tensor | None,
    sizes: torch.Tensor,
    exact: bool,
    hnd: bool,
    *options: bool | int | float | str,
) -> None:
    """What the op does on the CPU and on CUDA; ``sizes`` is on the host, so nothing waits."""
    *capacity, tokens, kv_rows = sizes.tolist()
    check_rows("q", q, tokens, exact)
    if kv_indices is None:
        check_kv_rows(k, hnd, kv_rows)
    tensors = (q, k, v, kv_indices, out, lse, plan, workspace, mask, mask_indptr, None)
    _ops.attention(*tensors, *capacity, hnd, *options)


_ops.implement("planned_attention", _run_planned)


def check_pages(kv_indices: torch.Tensor, used: int, pages: int) -> None:
    """ValueError if a page in use is not in the cache. Waits for the device."""
    if used == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(kv_indices[:used]))
    if low < 0 or high >= pages:
        raise ValueError(
            f"the page indices are from {low} to {high}, expected pages in 0..{pages - 1}"
        )
