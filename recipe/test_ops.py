"""Runs an operator of each family on the CPU and compares it with plain torch.

Example:
    FLASHINFER_EXPECT_VARIANT=cpu_torch213 python test_ops.py
"""

from __future__ import annotations

import os

import torch

import flashinfer
from flashinfer import _build_info


def _norm(generator: torch.Generator) -> None:
    x = torch.randn(5, 111, generator=generator)
    weight = torch.randn(111, generator=generator)
    expected = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight
    torch.testing.assert_close(flashinfer.rmsnorm(x, weight, 1e-6), expected, rtol=1e-4, atol=1e-5)


def _activation(generator: torch.Generator) -> None:
    x = torch.randn(3, 2 * 64, generator=generator)
    expected = torch.nn.functional.silu(x[:, :64]) * x[:, 64:]
    torch.testing.assert_close(flashinfer.silu_and_mul(x), expected, rtol=1e-4, atol=1e-5)


def _cascade(generator: torch.Generator) -> None:
    a, b = torch.randn(2, 7, 4, 64, generator=generator)
    s_a, s_b = torch.randn(2, 7, 4, generator=generator)
    weights = torch.softmax(torch.stack([s_a, s_b]) * torch.log(torch.tensor(2.0)), 0)
    expected = weights[0, ..., None] * a + weights[1, ..., None] * b
    merged, s = flashinfer.merge_state(a, s_a, b, s_b)
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(s, torch.logaddexp2(s_a, s_b), rtol=1e-4, atol=1e-5)


def _attention(generator: torch.Generator) -> None:
    q = torch.randn(3, 4, 64, generator=generator)
    k, v = torch.randn(2, 19, 2, 64, generator=generator)
    scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(2, 1)) / 8
    scores.masked_fill_(torch.ones(3, 19, dtype=torch.bool).triu(17), -torch.inf)
    expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v.repeat_interleave(2, 1))
    out = flashinfer.single_prefill_with_kv_cache(q, k, v, causal=True)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    # The same as a batch of one over pages of 4 entries, the last of them with 3 in use.
    pages = [torch.cat([x, x.new_zeros(1, 2, 64)]).view(5, 4, 2, 64) for x in (k, v)]
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(torch.empty(1 << 20))
    tables = [torch.tensor(table) for table in ([0, 3], [0, 5], [0, 1, 2, 3, 4], [3])]
    wrapper.plan(*tables, 4, 2, 64, 4, causal=True)
    torch.testing.assert_close(wrapper.run(q, tuple(pages)), expected, rtol=1e-4, atol=1e-5)


def _mla(generator: torch.Generator) -> None:
    q_nope, q_pe = (torch.randn(1, 5, dim, generator=generator) for dim in (512, 64))
    ckv, kpe = (torch.randn(3, 4, dim, generator=generator) for dim in (512, 64))
    keys = torch.cat([ckv, kpe], -1)[[2, 0, 1]].flatten(0, 1)[:11]
    # The kernel turns pairs (2i, 2i + 1) of the last 64: a key by its place, q by the last one's.
    angle = torch.arange(11)[:, None] * 1e4 ** (-torch.arange(32) / 32)
    turn = torch.polar(torch.ones_like(angle), angle)
    k_pe = torch.view_as_complex(keys[:, 512:].reshape(11, 32, 2)) * turn
    turned = torch.view_as_complex(q_pe[0].reshape(5, 32, 2)) * turn[-1]
    scores = q_nope[0] @ keys[:, :512].T + (turned @ k_pe.mH).real
    expected = (scores / 192**0.5).softmax(-1) @ keys[:, :512]
    wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(torch.empty(1 << 20))
    tables = [torch.tensor(table) for table in ([0, 3], [2, 0, 1], [3])]
    wrapper.plan(*tables, 5, 512, 4, 192**-0.5)
    out = wrapper.run(q_nope, q_pe, ckv, kpe)
    torch.testing.assert_close(out[0], expected, rtol=1e-4, atol=1e-5)


def _quantization(generator: torch.Generator) -> None:
    bits = torch.rand(21, generator=generator) < 0.5
    packed = flashinfer.packbits(bits, bitorder="little")
    expected = [
        sum(int(bit) << place for place, bit in enumerate(bits[start : start + 8]))
        for start in range(0, 21, 8)
    ]
    if packed.tolist() != expected:
        raise SystemExit(f"packbits gave {packed.tolist()}, expected {expected}")


def _sampling(generator: torch.Generator) -> None:
    p = torch.softmax(torch.randn(4, 300, generator=generator) * 3, -1)
    values, order = p.sort(dim=-1, descending=True)
    values[values.cumsum(-1) - values >= 0.8] = 0
    expected = torch.zeros_like(p).scatter_(-1, order, values / values.sum(-1, keepdim=True))
    torch.testing.assert_close(flashinfer.top_p_renorm_probs(p, 0.8), expected)
    uniform = torch.rand(1, 4, generator=generator)
    samples, success = flashinfer.top_p_sampling_from_probs(p, uniform, 0.8)
    running = torch.searchsorted(expected.double().cumsum(-1), uniform[0, :, None].double())
    if not success.all() or samples.tolist() != running[:, 0].tolist():
        raise SystemExit(f"sampling gave {samples.tolist()}, expected {running[:, 0].tolist()}")


def _gemm(generator: torch.Generator) -> None:
    x, weights = (
        torch.randn(23, 48, generator=generator),
        torch.randn(2, 20, 48, generator=generator),
    )
    wrapper = flashinfer.SegmentGEMMWrapper(torch.empty(1))
    expected = torch.cat([x[:3] @ weights[0].T, x[3:] @ weights[1].T])
    lengths = torch.tensor([3, 20])
    torch.testing.assert_close(
        wrapper.run(x, weights, 2, True, seg_lens=lengths), expected, rtol=1e-4, atol=1e-4
    )
    a, b = (torch.randn(2, n, 32, generator=generator).to(torch.float8_e4m3fn) for n in (5, 7))
    out = flashinfer.bmm_fp8(a, b.mT, torch.tensor(0.5), torch.tensor(2.0), torch.float32)
    torch.testing.assert_close(out, torch.bmm(a.float(), b.float().mT), rtol=1e-4, atol=1e-4)


def main(variant: str) -> None:
    """Stops with a message unless this is `variant` and its operators compute what they should."""
    if variant != _build_info.VARIANT:
        raise SystemExit(f"this is {_build_info.VARIANT}, its name says {variant}")
    for check in (_norm, _activation, _cascade, _attention, _mla, _quantization, _sampling, _gemm):
        check(torch.Generator().manual_seed(0))
    print(f"flashinfer {flashinfer.__version__} with torch {torch.__version__}: the CPU ops agree")


if __name__ == "__main__":
    main(os.environ["FLASHINFER_EXPECT_VARIANT"])
