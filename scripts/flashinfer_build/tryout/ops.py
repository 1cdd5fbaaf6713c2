"""Tries an installed flashinfer: imports it, runs one operator of each family, compares.

Copied into a clean environment and run there, so it needs torch and flashinfer and nothing of this
project. References are plain torch in double precision. Runs on the CPU, and on the GPU as well
where torch sees one; it says which.

    python ops.py --variant cpu_torch213 --version 0.1.6+cputorch2.13

The last line of output is JSON: ``version``, ``variant``, ``torch``, ``file``, ``devices``, and
``checks`` with the largest error of each. Exit status 1 and a message for a difference.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import torch

import flashinfer
from flashinfer import _build_info

# Half a unit in the last place of each type at magnitude 4, which the values here stay below.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
Pair = tuple[torch.Tensor, torch.Tensor]


class Source:
    """Random tensors, the same in every run."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self._generator = torch.Generator().manual_seed(2024)

    def randn(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Normal values of the dtype under test, clipped to 2 standard deviations."""
        values = torch.randn(*shape, generator=self._generator).clamp(-2, 2)
        return values.to(dtype or self.dtype).to(self.device)

    def integers(self, values: list[int]) -> torch.Tensor:
        """An int32 tensor on the device."""
        return torch.tensor(values, dtype=torch.int32, device=self.device)


def rmsnorm(source: Source) -> list[Pair]:
    x, weight = source.randn(37, 500), source.randn(500)
    wide = x.double()
    norm = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    return [(flashinfer.rmsnorm(x, weight, 1e-6), norm * weight.double())]


def silu_and_mul(source: Source) -> list[Pair]:
    x = source.randn(19, 2 * 111)
    gate, up = x.double().chunk(2, dim=-1)
    return [(flashinfer.silu_and_mul(x), gate * torch.sigmoid(gate) * up)]


def rope(source: Source) -> list[Pair]:
    q, k = source.randn(23, 8, 128), source.randn(23, 2, 128)
    positions = source.integers(list(range(30, 53)))
    inverse = 1e4 ** (-torch.arange(64, dtype=torch.float64, device=q.device) / 64)
    angle = (positions.double()[:, None] * inverse)[:, None, :]

    def rotate(x: torch.Tensor) -> torch.Tensor:
        low, high = x.double().chunk(2, dim=-1)
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)

    q_rope, k_rope = flashinfer.apply_rope_pos_ids(q, k, positions)
    return [(q_rope, rotate(q)), (k_rope, rotate(k))]


def append_paged_kv_cache(source: Source) -> list[Pair]:
    page_size, heads, dim = 5, 2, 64
    appended, lengths = [3, 9, 1], [3, 12, 6]
    pages = [-(-length // page_size) for length in lengths]
    indptr = [sum(pages[:i]) for i in range(4)]
    order = [4, 0, 3, 5, 1, 2]
    key, value = source.randn(13, heads, dim), source.randn(13, heads, dim)
    cache = torch.zeros(6, 2, page_size, heads, dim, dtype=source.dtype, device=source.device)
    expected = cache.clone()
    row = 0
    for request, count in enumerate(appended):
        for place in range(lengths[request] - count, lengths[request]):
            page = order[indptr[request] + place // page_size]
            expected[page, 0, place % page_size] = key[row]
            expected[page, 1, place % page_size] = value[row]
            row += 1
    append_indptr = source.integers([sum(appended[:i]) for i in range(4)])
    batch, positions = flashinfer.get_batch_indices_positions(
        append_indptr, source.integers(lengths), row
    )
    last = source.integers([(length - 1) % page_size + 1 for length in lengths])
    flashinfer.append_paged_kv_cache(
        key, value, batch, positions, cache, source.integers(order), source.integers(indptr), last
    )
    return [(cache, expected.double())]


def merge_state(source: Source) -> list[Pair]:
    v_a, v_b = source.randn(11, 4, 128), source.randn(11, 4, 128)
    s_a = source.randn(11, 4, dtype=torch.float32)
    s_b = source.randn(11, 4, dtype=torch.float32)
    s_b[3] = -torch.inf  # a state over no keys
    v, s = flashinfer.merge_state(v_a, s_a, v_b, s_b)
    w_a, w_b = torch.exp2(s_a.double())[..., None], torch.exp2(s_b.double())[..., None]
    return [
        (v, (v_a.double() * w_a + v_b.double() * w_b) / (w_a + w_b)),
        (s, torch.log2(w_a + w_b)[..., 0]),
    ]


def paged_attention(source: Source) -> list[Pair]:
    """Decode and prefill over pages: the keys of a request are its last pages' in use."""
    page_size, heads, kv_heads, dim = 5, 8, 2, 64
    queries, lengths = [3, 1, 9], [3, 700, 12]
    pages = [-(-length // page_size) for length in lengths]
    total = sum(pages)
    cache = source.randn(total, 2, page_size, kv_heads, dim)
    q = source.randn(sum(queries), heads, dim)
    # Pages from the last to the first, so that a wrong table is seen.
    order = list(range(total - 1, -1, -1))
    indptr = [sum(pages[:i]) for i in range(4)]
    starts = [sum(queries[:i]) for i in range(4)]
    last = [(length - 1) % page_size + 1 for length in lengths]
    tables = (source.integers(indptr), source.integers(order), source.integers(last))
    workspace = torch.empty(1 << 22, dtype=torch.uint8, device=source.device)

    def expect(request: int, rows: torch.Tensor) -> torch.Tensor:
        mine = order[indptr[request] : indptr[request + 1]]
        both = cache[mine].double().transpose(0, 1).reshape(2, -1, kv_heads, dim)
        k, v = both[:, : lengths[request]].repeat_interleave(heads // kv_heads, 2)
        scores = torch.einsum("qhd,khd->hqk", rows.double(), k) / dim**0.5
        ahead = torch.ones(scores.shape[1:], dtype=torch.bool, device=rows.device)
        scores = scores.masked_fill(ahead.triu(scores.shape[2] - scores.shape[1] + 1), -torch.inf)
        return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)

    prefill = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace)
    prefill.plan(source.integers(starts), *tables, heads, kv_heads, dim, page_size, causal=True)
    decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace)
    decode.plan(*tables, heads, kv_heads, dim, page_size)
    return [
        (
            prefill.run(q, cache),
            torch.cat([expect(i, q[starts[i] : starts[i + 1]]) for i in range(3)]),
        ),
        (decode.run(q[:3], cache), torch.cat([expect(i, q[i : i + 1]) for i in range(3)])),
    ]


def mla_decode(source: Source) -> list[Pair]:
    """Latent attention of DeepSeek's sizes; the keys are rotated in the kernel."""
    page_size, heads, ckv_dim, kpe_dim = 5, 20, 512, 64
    lengths = [3, 300, 12]
    pages = [-(-length // page_size) for length in lengths]
    total = sum(pages)
    ckv, kpe = source.randn(total, page_size, ckv_dim), source.randn(total, page_size, kpe_dim)
    q_nope, q_pe = source.randn(3, heads, ckv_dim), source.randn(3, heads, kpe_dim)
    order = list(range(total - 1, -1, -1))
    indptr = [sum(pages[:i]) for i in range(4)]
    last = [(length - 1) % page_size + 1 for length in lengths]
    inverse = 1e4 ** (-torch.arange(32, dtype=torch.float64, device=ckv.device) / 32)

    def rotate(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        angle = positions[:, None] * inverse
        even, odd = x.double()[..., 0::2], x.double()[..., 1::2]
        turned = [
            even * angle.cos() - odd * angle.sin(),
            odd * angle.cos() + even * angle.sin(),
        ]
        return torch.stack(turned, -1).flatten(-2)

    expected = []
    for i, length in enumerate(lengths):
        mine = order[indptr[i] : indptr[i + 1]]
        k, k_pe = (cache[mine].double().flatten(0, 1)[:length] for cache in (ckv, kpe))
        positions = torch.arange(length, device=k.device)
        scores = q_nope[i].double() @ k.T
        scores += rotate(q_pe[i], positions[-1:]) @ rotate(k_pe, positions).T
        expected.append((scores / 192**0.5).softmax(-1) @ k)
    workspace = torch.empty(1 << 22, dtype=torch.uint8, device=source.device)
    wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(workspace)
    tables = (source.integers(indptr), source.integers(order), source.integers(last))
    wrapper.plan(*tables, heads, ckv_dim, page_size, 192**-0.5)
    return [(wrapper.run(q_nope, q_pe, ckv, kpe), torch.stack(expected))]


def packbits(source: Source) -> list[Pair]:
    bits = source.randn(203) > 0
    pairs = []
    for order, shifts in (("little", range(8)), ("big", range(7, -1, -1))):
        padded = torch.cat([bits, bits.new_zeros(5)]).view(-1, 8).to(torch.int64)
        weights = torch.tensor([1 << shift for shift in shifts], device=bits.device)
        pairs.append((flashinfer.packbits(bits, order), (padded * weights).sum(-1)))
    return pairs


def sampling(source: Source) -> list[Pair]:
    """Renormalised rows, and one sample of each form from every row."""
    p = torch.softmax(source.randn(23, 1000, dtype=torch.float32) * 3, -1)
    u = torch.linspace(0, 0.999, 23, device=source.device)
    values, order = p.double().sort(dim=-1, descending=True)
    values[values.cumsum(-1) - values >= 0.8] = 0
    nucleus = torch.zeros_like(p, dtype=torch.float64).scatter_(-1, order, values)
    largest = torch.where(p >= p.topk(20).values[:, -1:], p.double(), 0.0)
    samples = [
        (flashinfer.top_p_sampling_from_probs(p, u, 0.8)[0], nucleus),
        (flashinfer.top_k_sampling_from_probs(p, u, 20)[0], largest),
    ]
    pairs = [
        (flashinfer.top_p_renorm_probs(p, 0.8), nucleus / nucleus.sum(-1, keepdim=True)),
        (flashinfer.top_k_renorm_probs(p, 20), largest / largest.sum(-1, keepdim=True)),
    ]
    for drawn, kept in samples:
        # Up to a sample, and without it, the running sum is around the uniform number.
        places = drawn.long().clamp(0, p.shape[1] - 1)
        share = kept / kept.sum(-1, keepdim=True)
        above = share.cumsum(-1).gather(-1, places[:, None])[:, 0]
        below = above - share.gather(-1, places[:, None])[:, 0]
        pairs += [(drawn, places), (u, u.double().clamp(below - 1e-6, above + 1e-6))]
    return pairs


def gemm(source: Source) -> list[Pair]:
    """Segments of a few and of many rows in both layouts, and fp8 with a scale for each matrix."""
    lengths, order, d_in, d_out = [3, 0, 70], [1, 1, 0], 72, 40
    x, weights = source.randn(73, d_in), source.randn(2, d_in, d_out) / 8
    x = x / 8
    expected = torch.cat(
        [x[:3].double() @ weights[1].double(), x[3:].double() @ weights[0].double()]
    )
    wrapper = flashinfer.SegmentGEMMWrapper(torch.empty(1, device=source.device))
    tables = (torch.tensor(lengths, device=source.device), None, source.integers(order))
    pairs = [
        (wrapper.run(x, weights, 3, False, *tables), expected),
        (wrapper.run(x, weights.mT.contiguous(), 3, True, *tables), expected),
    ]
    a = source.randn(2, 5, 64, dtype=torch.float8_e4m3fn)
    b = source.randn(2, 24, 64, dtype=torch.float8_e5m2).mT
    scales = torch.tensor([0.25, 0.125], device=source.device)
    one = torch.full((1,), 0.25, device=source.device)
    product = torch.bmm(a.double(), b.double()) * scales.double()[:, None, None] * 0.25
    return [*pairs, (flashinfer.bmm_fp8(a, b, scales, one, source.dtype), product)]


CHECKS: list[Callable[[Source], list[Pair]]] = [
    rmsnorm,
    silu_and_mul,
    rope,
    append_paged_kv_cache,
    merge_state,
    paged_attention,
    mla_decode,
    packbits,
    sampling,
    gemm,
]


def run(device: str) -> dict[str, float]:
    """Runs every check on `device`.

    Returns:
        The largest absolute error of each operator and dtype.

    Raises:
        SystemExit: an error is above the tolerance.
    """
    errors = {}
    dtypes = [torch.float16, torch.bfloat16] + ([torch.float32] if device == "cpu" else [])
    for dtype in dtypes:
        for check in CHECKS:
            name = f"{check.__name__} {str(dtype)[6:]} on {device}"
            worst = 0.0
            for actual, expected in check(Source(device, dtype)):
                difference = (actual.double() - expected.double()).abs()
                scale = 1 + expected.double().abs()
                error = float((difference / scale).max())
                # `not <=` and not `>`: a NaN is a difference as well.
                if not error <= TOLERANCE[dtype]:
                    raise SystemExit(
                        f"{name}: error {error:.3g} relative to 1 + |expected|, "
                        f"at most {TOLERANCE[dtype]:.1g} is expected"
                    )
                worst = max(worst, error)
            errors[name] = worst
    return errors


def main() -> None:
    """Compares versions, then results, and prints what was done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--variant", required=True, help="what has to be installed")
    parser.add_argument("--version", required=True, help="flashinfer.__version__ to expect")
    parser.add_argument("--prefix", required=True, help="the environment it has to come from")
    chosen = parser.parse_args()
    found = (flashinfer.__version__, _build_info.VARIANT)
    if found != (chosen.version, chosen.variant):
        raise SystemExit(f"installed is {found}, expected {(chosen.version, chosen.variant)}")
    if not flashinfer.__file__.startswith(chosen.prefix + "/"):
        raise SystemExit(f"imported from {flashinfer.__file__}, expected below {chosen.prefix}")
    devices = ["cpu"]
    # A CPU build has no kernels for the GPU, whatever the machine has.
    if torch.cuda.is_available() and not chosen.variant.startswith("cpu"):
        devices.append("cuda")
    checks = {}
    for device in devices:
        checks.update(run(device))
    names = [torch.cuda.get_device_name(0) if device == "cuda" else "cpu" for device in devices]
    report = {
        "version": flashinfer.__version__,
        "variant": _build_info.VARIANT,
        "torch": torch.__version__,
        "file": flashinfer.__file__,
        "devices": names,
        "checks": checks,
    }
    print(json.dumps(report))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
