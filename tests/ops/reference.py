"""Every op again, in float64 and plain torch, and the tolerances against it."""

from __future__ import annotations

import math

import torch

# One rounding to the dtype is half a unit in the last place: 2**-11, 2**-9, 2**-24 of the value.
# The field tests norms, rotations and activations at 1e-3 in float16.
_RTOL = {torch.float16: 1e-3, torch.bfloat16: 5e-3, torch.float32: 2e-6}
_ATOL = {torch.float16: 1e-3, torch.bfloat16: 5e-3, torch.float32: 2e-6}


def assert_close(
    actual: torch.Tensor, expected: torch.Tensor, *, atol: float = 0.0, rtol: float = 0.0
) -> None:
    """Compares with a float64 reference, at the tolerance of the dtype or a wider one if given."""
    torch.testing.assert_close(
        actual.double().cpu(),
        expected.double().cpu(),
        atol=max(atol, _ATOL[actual.dtype]),
        rtol=max(rtol, _RTOL[actual.dtype]),
    )


def rows(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, strides: str = "contiguous"
) -> torch.Tensor:
    """Normal numbers with the strides of a fresh tensor, of a column slice, or with inner gaps."""
    if strides == "contiguous":
        return torch.randn(shape).to(device, dtype)
    if strides == "row gaps":
        wide = torch.randn(*shape[:-1], shape[-1] + 13).to(device, dtype)
        return wide[..., 5 : 5 + shape[-1]]
    assert strides == "inner gaps"
    wide = torch.randn(*shape[:-1], 2 * shape[-1]).to(device, dtype)
    return wide[..., ::2]


STRIDES = ["contiguous", "row gaps", "inner gaps"]


def rmsnorm(x: torch.Tensor, weight: torch.Tensor, eps: float, bias: float = 0.0) -> torch.Tensor:
    x = x.double()
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps) * (weight.double() + bias)


def layernorm(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float) -> torch.Tensor:
    x = x.double()
    centred = x - x.mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + eps)
    return centred * scale * gamma.double() + beta.double()


def act_and_mul(x: torch.Tensor, activation: str) -> torch.Tensor:
    x = x.double()
    gate, factor = x.chunk(2, dim=-1)
    if activation == "silu":
        return gate * torch.sigmoid(gate) * factor
    if activation == "gelu":
        return 0.5 * gate * (1 + torch.erf(gate / math.sqrt(2))) * factor
    inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
    return 0.5 * gate * (1 + torch.tanh(inner)) * factor


def frequencies(
    rotary_dim: int,
    rope_scale: float,
    rope_theta: float,
    llama31: tuple[float, float, int] | None = None,
) -> torch.Tensor:
    """f(i) of every pair; `llama31` is (low_freq_factor, high_freq_factor, old_context_len)."""
    pairs = torch.arange(0, rotary_dim, 2, dtype=torch.float64)
    base = rope_theta ** (-pairs / rotary_dim)
    if llama31 is None:
        return base / rope_scale
    low, high, context = llama31
    # By wavelength, as Meta's code has it: long waves are scaled, short ones are not.
    wavelength = 2 * math.pi / base
    smooth = (context / wavelength - low) / (high - low)
    middle = (1 - smooth) * base / rope_scale + smooth * base
    scaled = torch.where(wavelength > context / low, base / rope_scale, middle)
    return torch.where(wavelength < context / high, base, scaled)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleave: bool) -> torch.Tensor:
    """Turns the pairs of x [nnz, heads, head_dim] by angles [nnz, pairs]."""
    out = x.double().clone()
    rotary_dim = 2 * cos.shape[1]
    cos, sin = cos.double()[:, None, :], sin.double()[:, None, :]
    if interleave:
        first, second = slice(0, rotary_dim, 2), slice(1, rotary_dim, 2)
    else:
        first, second = slice(0, rotary_dim // 2), slice(rotary_dim // 2, rotary_dim)
    a, b = out[..., first].clone(), out[..., second].clone()
    out[..., first] = a * cos - b * sin
    out[..., second] = b * cos + a * sin
    return out


def segment_positions(indptr: list[int], offsets: list[int]) -> torch.Tensor:
    parts = [
        torch.arange(end - begin) + offset
        for begin, end, offset in zip(indptr, indptr[1:], offsets, strict=False)
    ]
    return torch.cat(parts)


def merge(v: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States [seq_len, num_states, ...] to one; base-2 log-sum-exp, no keys at all give zeros."""
    s = s.double()
    total = torch.logsumexp(s * math.log(2), dim=1) / math.log(2)
    weights = torch.nan_to_num(torch.exp2(s - total[:, None]), nan=0.0)
    return (v.double() * weights[..., None]).sum(1), total


def packbits(bools: list[bool], bitorder: str) -> list[int]:
    out = []
    for start in range(0, len(bools), 8):
        byte = 0
        for place, bit in enumerate(bools[start : start + 8]):
            if bit:
                byte |= 1 << (place if bitorder == "little" else 7 - place)
        out.append(byte)
    return out


def alibi_slopes(num_heads: int) -> torch.Tensor:
    """Press et al.'s: for a power of two a geometric series, and of twice as many every second."""
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    slopes += [2 ** (-4 * (2 * h + 1) / power) for h in range(num_heads - power)]
    return torch.tensor(slopes, dtype=torch.float64)


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    mask: torch.Tensor | None = None,
    window_left: int = -1,
    logits_soft_cap: float | None = None,
    sm_scale: float | None = None,
    pos_encoding_mode: str = "NONE",
    rope_scale: float = 1.0,
    rope_theta: float = 1e4,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One request: q [qo_len, heads, dim], k and v [kv_len, kv_heads, dim], mask [qo_len, kv_len].

    Returns the output and the base-2 log-sum-exp; 0 and -inf for a query that sees no key.
    """
    q, k, v = q.double().cpu(), k.double().cpu(), v.double().cpu()
    (qo_len, num_heads, dim), kv_len = q.shape, k.shape[0]
    at = torch.arange(qo_len) + kv_len - qo_len
    keys = torch.arange(kv_len)
    if pos_encoding_mode == "ROPE_LLAMA":
        f = frequencies(dim, rope_scale, rope_theta)
        q = rotate(q, (at[:, None] * f).cos(), (at[:, None] * f).sin(), False)
        k = rotate(k, (keys[:, None] * f).cos(), (keys[:, None] * f).sin(), False)
    k, v = (x.repeat_interleave(num_heads // x.shape[1], 1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * (sm_scale or 1 / math.sqrt(dim))
    if logits_soft_cap:
        scores = logits_soft_cap * torch.tanh(scores / logits_soft_cap)
    if pos_encoding_mode == "ALIBI":
        scores = scores + alibi_slopes(num_heads)[:, None, None] * (keys - at[:, None])
    sees = torch.ones(qo_len, kv_len, dtype=torch.bool)
    if mask is not None:
        sees = mask.cpu().bool()
    elif causal:
        sees = keys <= at[:, None]
    if window_left >= 0:
        sees = sees & (keys >= at[:, None] - window_left)
    scores = scores.masked_fill(~sees, -math.inf)
    lse = torch.logsumexp(scores, -1)
    weights = torch.nan_to_num(torch.exp(scores - lse[..., None]), nan=0.0)
    return torch.einsum("hqk,khd->qhd", weights, v), lse.T / math.log(2)
