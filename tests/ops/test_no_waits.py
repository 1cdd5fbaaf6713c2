"""No op waits for the device when it runs: a faked one counts waits and pageable copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from faked_device import FakedDevice, OnDevice, faked, on_device, put

import flashinfer

__all__ = ["faked"]


def halves(*shape: int) -> torch.Tensor:
    return torch.randn(shape).half()


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


Tensors = Callable[[torch.Tensor], torch.Tensor]


def workspace(on: Tensors) -> torch.Tensor:
    return on(torch.empty(8 << 20, dtype=torch.uint8))


# Each makes, from tensors that `on` has put somewhere, what is then to run: without a plan, or with
# one made already.


def single_decode(on: Tensors) -> Any:
    q, k = on(halves(4, 64)), [on(halves(length, 2, 64)) for length in (77, 5000, 78)]
    return lambda: [flashinfer.single_decode_with_kv_cache(q, x, x) for x in k]


def single_prefill(on: Tensors) -> Any:
    q, k = on(halves(9, 4, 64)), on(halves(300, 2, 64))
    return lambda: flashinfer.single_prefill_with_kv_cache(q, k, k, causal=True, return_lse=True)


def single_prefill_with_a_mask(on: Tensors) -> Any:
    q, k, mask = on(halves(9, 4, 64)), on(halves(30, 2, 64)), on(torch.rand(9, 30) < 0.5)
    return lambda: flashinfer.single_prefill_with_kv_cache(q, k, k, custom_mask=mask)


def single_prefill_with_a_mask_of_the_host(on: Tensors) -> Any:
    q, k, mask = on(halves(9, 4, 64)), on(halves(30, 2, 64)), torch.rand(9, 30) < 0.5
    packed = flashinfer.packbits(mask.flatten(), "little")
    return lambda: [
        flashinfer.single_prefill_with_kv_cache(q, k, k, custom_mask=mask),
        flashinfer.single_prefill_with_kv_cache(q, k, k, packed_custom_mask=packed),
    ]


def batch_decode(on: Tensors) -> Any:
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace(on))
    wrapper.plan(ints(0, 2, 5), ints(4, 1, 0, 2, 3), ints(3, 16), 4, 2, 64, 16)
    q, cache = on(halves(2, 4, 64)), on(halves(5, 2, 16, 2, 64))
    return lambda: wrapper.run(q, cache, return_lse=True)


def batch_prefill_paged(on: Tensors) -> Any:
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace(on))
    wrapper.plan(ints(0, 3, 9), ints(0, 2, 5), ints(4, 1, 0, 2, 3), ints(3, 16), 4, 2, 64, 16)
    q, cache = on(halves(9, 4, 64)), on(halves(5, 2, 16, 2, 64))
    return lambda: wrapper.run(q, cache)


def batch_prefill_ragged(on: Tensors) -> Any:
    wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace(on))
    wrapper.plan(ints(0, 3, 9), ints(0, 30, 70), 4, 2, 64)
    q, k = on(halves(9, 4, 64)), on(halves(70, 2, 64))
    return lambda: wrapper.run(q, k, k)


def mla(on: Tensors) -> Any:
    wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(workspace(on))
    wrapper.plan(ints(0, 2, 5), ints(4, 1, 0, 2, 3), ints(3, 16), 4, 512, 16, 0.1)
    q, q_pe = on(halves(2, 4, 512)), on(halves(2, 4, 64))
    ckv, kpe = on(halves(5, 16, 512)), on(halves(5, 16, 64))
    return lambda: wrapper.run(q, q_pe, ckv, kpe)


def block_sparse(on: Tensors) -> Any:
    wrapper = flashinfer.BlockSparseAttentionWrapper(workspace(on))
    wrapper.plan(ints(0, 1, 3), ints(1, 0, 2), 8, 24, 4, 8, 4, 2, 64)
    q, k = on(halves(8, 4, 64)), on(halves(24, 2, 64))
    return lambda: wrapper.run(q, k, k)


def shared_prefix(on: Tensors) -> Any:
    wrapper = flashinfer.BatchDecodeWithSharedPrefixPagedKVCacheWrapper(workspace(on))
    wrapper.begin_forward(ints(0, 2, 5), ints(4, 1, 0, 2, 3), ints(3, 16), 4, 2, 64, 16)
    q, cache = on(halves(2, 4, 64)), on(halves(5, 2, 16, 2, 64))
    k = on(halves(100, 2, 64))
    return lambda: wrapper.forward(q, k, k, cache)


def cascade(on: Tensors) -> Any:
    v, s = on(halves(5, 2, 64)), on(torch.randn(5, 2))
    many = on(halves(5, 3, 2, 64)), on(torch.randn(5, 3, 2))
    return lambda: [flashinfer.merge_state(v, s, v, s), flashinfer.merge_states(*many)]


def elementwise(on: Tensors) -> Any:
    x, weight = on(halves(5, 64)), on(halves(64))
    out, scale = on(halves(5, 64).to(torch.float8_e4m3fn)), on(torch.ones(1))
    k = on(halves(5, 4, 24))
    return lambda: [
        flashinfer.rmsnorm(x, weight),
        flashinfer.silu_and_mul(x),
        flashinfer.layernorm(x, weight, weight),
        flashinfer.rmsnorm_quant(out, x, weight, scale),
        flashinfer.concat_mla_k(k, k[..., :16].clone(), k[:, :1, 16:].clone()),
    ]


def rope(on: Tensors) -> Any:
    q, positions = on(halves(5, 4, 64)), on(ints(3, 1, 4, 1, 5))
    return lambda: flashinfer.apply_rope_pos_ids(q, q, positions)


def append(on: Tensors) -> Any:
    k, cache = on(halves(3, 2, 64)), on(torch.zeros(3, 2, 4, 2, 64).half())
    index = [on(ints(*values)) for values in ((0, 1, 1), (2, 0, 1), (2, 0), (0, 1, 2), (3, 2))]
    return lambda: flashinfer.append_paged_kv_cache(k, k, index[0], index[1], cache, *index[2:])


def sampling(on: Tensors) -> Any:
    probs, uniform = on(torch.softmax(torch.randn(4, 50), -1)), on(torch.rand(4))
    return lambda: [
        flashinfer.sampling_from_probs(probs, uniform),
        flashinfer.top_p_renorm_probs(probs, 0.9),
        flashinfer.softmax(probs, uniform),
        *flashinfer.top_k(probs, 7, sorted=True),
    ]


def segment_gemm(on: Tensors) -> Any:
    wrapper = flashinfer.SegmentGEMMWrapper(workspace(on))
    x, weights, indptr = on(halves(7, 16)), on(halves(2, 16, 8)), on(ints(0, 3, 7).long())
    return lambda: wrapper.run(x, weights, 2, False, seg_indptr=indptr)


CASES = [
    single_decode, single_prefill, single_prefill_with_a_mask,
    single_prefill_with_a_mask_of_the_host, batch_decode, batch_prefill_paged,
    batch_prefill_ragged, mla, block_sparse, shared_prefix, cascade, elementwise, rope, append,
    sampling, segment_gemm,
]  # fmt: skip


def flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [] if value is None else [tensor for part in value for tensor in flat(part)]


@pytest.mark.parametrize("case", CASES)
def test_no_op_waits_for_the_device(faked: FakedDevice, case: Callable[[Tensors], Any]) -> None:
    torch.manual_seed(3)
    expected = flat(case(lambda value: value)())
    torch.manual_seed(3)
    with faked:
        run = case(put)
        faked.waits.clear()
        got = flat(run())
        waits = list(faked.waits)
    assert waits == []
    # The device is fake, what ran on it was not.
    assert all(isinstance(value, OnDevice) for value in got)
    for value, right in zip(got, expected, strict=True):
        assert torch.equal(value.host, right)


@pytest.mark.parametrize(
    ("wait", "word"),
    [
        (lambda x: x.cpu(), "a copy to the host"),
        (lambda x: x.sum().item(), "aten::_local_scalar_dense"),
        (lambda x: x.nonzero(), "aten::nonzero"),
        (lambda x: torch.zeros(3).to(x.device), "a copy of pageable memory"),
        (lambda x: torch.zeros(3).to(x.device, non_blocking=True), "a copy of pageable memory"),
        (lambda x: torch.zeros(3).pin_memory().to(x.device), "a copy of pageable memory"),
        (lambda x: x.copy_(torch.zeros(3)), "a copy of pageable memory"),
        (lambda x: torch.zeros(3).pin_memory().to(x.device, non_blocking=True), ""),
        (lambda x: x[1:] + x.new_zeros(2), ""),
    ],
)
def test_what_waits_is_counted(faked: FakedDevice, wait: Callable[[Any], Any], word: str) -> None:
    with faked:
        x = put(torch.ones(3))
        assert x.is_cuda and on_device(x)
        wait(x)
        assert faked.waits == ([word] if word else [])
