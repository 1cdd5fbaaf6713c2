"""torch.compile, torch.export, FakeTensor, CUDA graphs and opcheck see the ops as torch's own.

OPS has every op and MODELS call every export; both are compared with what is registered and what is
exported, so a new op or export needs an entry here. docs/torch.md says what cannot be traced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

import flashinfer
from flashinfer import _ops

H = torch.float16
E4M3 = torch.float8_e4m3fn


def f(device: str, *shape: int) -> torch.Tensor:
    return torch.randn(shape).to(device, H)


def i(device: str, *values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32, device=device)


def probabilities(device: str, *shape: int) -> torch.Tensor:
    return torch.softmax(torch.randn(shape), -1).to(device)


def uniform(device: str, *shape: int) -> torch.Tensor:
    return torch.rand(shape).to(device)


def plan_words(d: str) -> torch.Tensor:
    """Two tokens of one request with three keys: a header, one item, no merge."""
    return i(d, 1, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 3, -1)


# Every op as the front functions call it. opcheck runs the schema check (what is mutated, what
# aliases), the autograd registration, the fake implementation and AOTAutograd with symbolic shapes.
OPS: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "rmsnorm": lambda d: (f(d, 3, 8), f(d, 3, 8), f(d, 8), 1e-6, 0.0),
    "fused_add_rmsnorm": lambda d: (f(d, 3, 8), f(d, 3, 8), f(d, 8), 1e-6, 1.0),
    "layernorm": lambda d: (f(d, 3, 8), f(d, 3, 8), f(d, 8).float(), f(d, 8).float(), 1e-6),
    "rmsnorm_quant": lambda d: (f(d, 3, 8).to(E4M3), f(d, 3, 8), f(d, 8), uniform(d, 1), 1.0, 1e-6),
    "fused_add_rmsnorm_quant": lambda d: (
        *(f(d, 3, 8).to(E4M3), f(d, 3, 8), f(d, 3, 8), f(d, 8), None, 0.5, 1e-6),
    ),
    "act_and_mul": lambda d: (f(d, 3, 8), f(d, 3, 16), "silu"),
    "rope": lambda d: (
        *(f(d, 3, 4, 8), f(d, 3, 2, 8), f(d, 3, 4, 8), f(d, 3, 2, 8)),
        *(i(d, 0, 5, 2), None, None, torch.rand(6, 8, device=d)),
        *(8, True, False, 1.0, 1e4, 0.0, 0.0),
    ),
    "rope_inplace": lambda d: (
        *(f(d, 3, 4, 8), f(d, 3, 2, 8), None, i(d, 0, 1, 3), i(d, 7, 0), None),
        *(4, False, True, 8.0, 5e5, 434.0, -0.33),
    ),
    "append_paged_kv": lambda d: (
        *(f(d, 3, 2, 8), f(d, 3, 2, 8), i(d, 0, 0, 1), i(d, 0, 1, 0)),
        *(f(d, 4, 2, 2, 8), f(d, 4, 2, 2, 8), i(d, 1, 2), i(d, 0, 1, 2), False),
    ),
    "batch_positions": lambda d: (i(d, 0, 2, 3), i(d, 2, 9), i(d, 0, 0, 0), i(d, 0, 0, 0)),
    "concat_mla_k": lambda d: (f(d, 3, 2, 12), f(d, 3, 2, 8), f(d, 3, 1, 4)),
    "merge_state": lambda d: (
        *(f(d, 3, 2, 8), f(d, 3, 2).float(), f(d, 3, 2, 8), f(d, 3, 2).float()),
        *(f(d, 3, 2, 8), f(d, 3, 2).float()),
    ),
    "merge_state_inplace": lambda d: (
        *(f(d, 3, 2, 8), f(d, 3, 2).float(), f(d, 3, 2, 8), f(d, 3, 2).float()),
        torch.tensor([True, False, True], device=d),
    ),
    "merge_states": lambda d: (
        *(f(d, 3, 4, 2, 8), f(d, 3, 4, 2).float(), f(d, 3, 2, 8), f(d, 3, 2).float()),
    ),
    "attention_plan": lambda d: (
        *(i("cpu", 0, 2), i("cpu", 0), i("cpu", 3), 4, 2, 64, -1, 0, 0, 1, 0),
        *(torch.zeros(13, dtype=torch.int32), torch.zeros(5, dtype=torch.int64)),
    ),
    "upload_words": lambda d: (i("cpu", 3, 1, 4), i(d, 0, 0, 0)),
    "attention": lambda d: (
        *(f(d, 2, 4, 64), f(d, 4, 2, 2, 64), f(d, 4, 2, 2, 64), i(d, 3, 1)),
        *(f(d, 2, 4, 64), f(d, 2, 4).float(), plan_words(d), torch.empty(0, device=d)),
        *(torch.tensor([45], dtype=torch.uint8, device=d), i(d, 0, 1), None),
        *(16, 1, 0, 0, False, False, -1, "NONE", 0.1, 0.0, 1.0, 1.0, 1e4),
    ),
    "planned_attention": lambda d: (
        *(f(d, 2, 4, 64), f(d, 4, 2, 2, 64), f(d, 4, 2, 2, 64), i(d, 3, 1)),
        *(f(d, 2, 4, 64), f(d, 2, 4).float(), plan_words(d), torch.empty(0, device=d)),
        *(torch.tensor([45], dtype=torch.uint8, device=d), i(d, 0, 1)),
        *(torch.tensor([16, 1, 0, 0, 2, 0]), True, False, False, -1, "NONE"),
        *(0.1, 0.0, 1.0, 1.0, 1e4),
    ),
    "mla_decode": lambda d: (
        *(f(d, 2, 4, 512), f(d, 2, 4, 64), f(d, 4, 2, 512), f(d, 4, 2, 64), i(d, 3, 1)),
        *(f(d, 2, 4, 512), f(d, 2, 4).float(), plan_words(d), torch.empty(0, device=d)),
        *(16, 1, 0, 0, -1, "ROPE_LLAMA", 0.1, 0.0, 1.0, 1.0, 1e4),
    ),
    "planned_mla": lambda d: (
        *(f(d, 2, 4, 512), f(d, 2, 4, 64), f(d, 4, 2, 512), f(d, 4, 2, 64), i(d, 3, 1)),
        *(f(d, 2, 4, 512), f(d, 2, 4).float(), plan_words(d), torch.empty(0, device=d)),
        *(torch.tensor([16, 1, 0, 0, 2, 0]), -1, "ROPE_LLAMA", 0.1, 0.0, 1.0, 1.0, 1e4),
    ),
    "single_attention": lambda d: (
        *(f(d, 2, 4, 64), f(d, 3, 2, 64), f(d, 3, 2, 64), None, f(d, 2, 4, 64), None),
        *(False, True, -1, "ROPE_LLAMA", 0.1, 0.0, 1.0, 1.0, 1e4),
    ),
    "packbits": lambda d: (f(d, 19) > 0, torch.zeros(3, dtype=torch.uint8, device=d), True),
    "segment_packbits": lambda d: (
        *(f(d, 19) > 0, i(d, 0, 9, 19), i(d, 0, 2, 4)),
        *(torch.zeros(4, dtype=torch.uint8, device=d), False),
    ),
    # gemm
    "segment_gemm": lambda d: (
        *(f(d, 5, 16), f(d, 2, 16, 8), i(d, 0, 2, 5).long(), i(d, 1, 0).long(), f(d, 5, 8), False),
    ),
    "bmm_fp8": lambda d: (
        *(f(d, 2, 3, 16).to(E4M3), f(d, 2, 8, 16).to(E4M3).transpose(1, 2)),
        *(torch.ones(1, device=d), torch.ones(2, device=d), f(d, 2, 3, 8)),
    ),
    # sampling
    "sample": lambda d: (
        *(i(d, 0, 0), torch.zeros(2, dtype=torch.bool, device=d), probabilities(d, 2, 9)),
        *(uniform(d, 2), i(d, 3, 4), 0, None, 0.9, uniform(d, 2), 0.0, True),
    ),
    "renorm_probs": lambda d: (
        *(torch.empty(2, 9, device=d), probabilities(d, 2, 9), None, 4, uniform(d, 2), 1.0),
    ),
    "mask_logits": lambda d: (torch.empty(2, 9, device=d), probabilities(d, 2, 9), i(d, 3, 4), 0),
    "top_k": lambda d: (
        f(d, 2, 3),
        i(d, 0, 0, 0, 0, 0, 0).view(2, 3).long(),
        f(d, 2, 9),
        True,
        False,
    ),
    "softmax": lambda d: (torch.empty(2, 9, device=d), probabilities(d, 2, 9), uniform(d, 2), 1.0),
    "chain_speculative": lambda d: (
        *(i(d, *[0] * 6).view(2, 3), i(d, 0, 0), i(d, 1, 0), probabilities(d, 2, 2, 9)),
        *(i(d, 1, 2, 3, 4).view(2, 2), uniform(d, 2, 3), probabilities(d, 2, 3, 9)),
    ),
}


def test_every_op_is_in_the_table() -> None:
    registered = {
        name.split("::")[1].split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("flashinfer::")
    }
    assert registered == set(OPS)


@pytest.mark.parametrize("name", OPS)
def test_every_op_has_a_fake_implementation(name: str) -> None:
    # torch guesses one for an op that returns nothing, so that opcheck does not miss it.
    entry = torch._library.simple_registry.singleton.find(f"flashinfer::{name}")
    assert entry.fake_impl.kernel is not None


# The schema check multiplies every input, which torch cannot do in fp8. What these write, by place.
NO_SCHEMA_CHECK = {"bmm_fp8": {4}, "rmsnorm_quant": {0}, "fused_add_rmsnorm_quant": {0, 2}}


@pytest.mark.parametrize("name", OPS)
def test_opcheck(name: str, device: str) -> None:
    checks = [
        "test_schema",
        "test_autograd_registration",
        "test_faketensor",
        "test_aot_dispatch_dynamic",
    ]
    if name in NO_SCHEMA_CHECK:
        checks.remove("test_schema")
    torch.library.opcheck(getattr(_ops, name), OPS[name](device), test_utils=checks)


@pytest.mark.parametrize("name", NO_SCHEMA_CHECK)
def test_ops_of_fp8_write_their_outputs_alone(name: str, device: str) -> None:
    arguments = OPS[name](device)
    tensors = {i: value for i, value in enumerate(arguments) if isinstance(value, torch.Tensor)}
    before = {i: value.float().clone() for i, value in tensors.items()}
    getattr(_ops, name)(*arguments)
    changed = {i for i, value in tensors.items() if not torch.equal(value.float(), before[i])}
    assert changed == NO_SCHEMA_CHECK[name]


@pytest.mark.parametrize("name", OPS)
def test_inductor_keeps_the_strides_that_were_checked(name: str) -> None:
    tags = getattr(torch.ops.flashinfer, name).default.tags
    assert {torch.Tag.needs_fixed_stride_order, torch.Tag.pt2_compliant_tag} <= set(tags)


def packed(device: str) -> tuple[torch.Tensor, ...]:
    return f(device, 5, 8, 16), torch.arange(5, device=device)


def cache(device: str) -> tuple[torch.Tensor, ...]:
    return (
        *(f(device, 3, 2, 16), f(device, 3, 2, 16), i(device, 0, 1, 3), f(device, 4, 2, 2, 2, 16)),
        *(i(device, 1, 3, 0), i(device, 0, 1, 3), i(device, 1, 2)),
    )


def layer(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, gate: torch.Tensor
) -> torch.Tensor:
    """A piece of a model: ops of torch before, between and after ours, and mutation."""
    x = x * 2
    flashinfer.fused_add_rmsnorm(x, residual, weight)
    hidden = flashinfer.silu_and_mul(x @ gate)
    return flashinfer.rmsnorm(hidden, weight[: hidden.shape[1]]) + 1


def rotated(qkv: torch.Tensor, pos_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    q, k = flashinfer.apply_llama31_rope_pos_ids(qkv[:, :4], qkv[:, 4:6], pos_ids)
    flashinfer.apply_rope_pos_ids_inplace(q, k, pos_ids, rotary_dim=8, interleave=True)
    return q, k, qkv


def rotated_inplace(qkv: torch.Tensor, pos_ids: torch.Tensor) -> torch.Tensor:
    flashinfer.apply_rope_pos_ids_inplace(qkv[:, :4], qkv[:, 4:6], pos_ids)
    return qkv * 2


def rotated_cached(qkv: torch.Tensor, pos_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    angles = torch.arange(6, device=qkv.device)[:, None] * torch.ones(8, device=qkv.device)
    return flashinfer.apply_rope_with_cos_sin_cache(
        qkv[:, :4], qkv[:, 4:6], angles.cos(), angles.sin(), pos_ids
    )


def appended(
    keys: torch.Tensor, values: torch.Tensor, indptr: torch.Tensor, *rest: torch.Tensor
) -> torch.Tensor:
    append: Any = flashinfer.append_paged_kv_cache
    append(keys * 2, values + 1, indptr, *rest)
    return rest[0].sum()


def merged(v: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    v_all, s_all = flashinfer.merge_states(v, s)
    v_all, s_all = flashinfer.merge_state(v_all, s_all, v[:, 0], s[:, 0])
    flashinfer.merge_state_in_place(v_all, s_all, v[:, 1], s[:, 1], s_all[:, 0] > 0)
    return v_all, s_all


def packed_mask(x: torch.Tensor) -> torch.Tensor:
    return flashinfer.packbits(x > 0, bitorder="little") + 1


def segment_mask(x: torch.Tensor, indptr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return flashinfer.segment_packbits(x > 0, indptr)


def single(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor
) -> tuple[Any, ...]:
    prefill: Any = flashinfer.single_prefill_with_kv_cache_return_lse
    return (
        flashinfer.single_decode_with_kv_cache(q[0] * 2, k, v, window_left=3) + 1,
        *prefill(q * 2, k, v, causal=True, pos_encoding_mode="ROPE_LLAMA"),
        *prefill(q, k, v, custom_mask=mask > 0),
        flashinfer.single_prefill_with_kv_cache(q, k, v, logits_soft_cap=5.0),
    )


def experts(x: torch.Tensor, weights: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    gemm = flashinfer.SegmentGEMMWrapper(x)
    return gemm.run(x * 2, weights, 2, False, seg_lens=lengths) + 1


def scaled_product(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return flashinfer.bmm_fp8(
        (a * 2).to(E4M3), b.to(E4M3).transpose(1, 2), scale * 2, scale, torch.bfloat16
    )


def drawn(probs: torch.Tensor, u: torch.Tensor, k: torch.Tensor, p: torch.Tensor) -> list[Any]:
    pairs = (
        flashinfer.top_p_sampling_from_probs(probs * 2, u, 0.7),
        flashinfer.top_k_sampling_from_probs(probs, u, k + 1),
        flashinfer.min_p_sampling_from_probs(probs, u, p),
        flashinfer.top_k_top_p_sampling_from_probs(probs, u, k, p, "joint"),
        flashinfer.top_k_top_p_sampling_from_logits(probs.log(), u, k, 0.5),
    )
    return [
        flashinfer.sampling_from_probs(probs, u[0]) + 1,
        *(value for pair in pairs for value in pair),
    ]


def filtered(probs: torch.Tensor, k: torch.Tensor, p: torch.Tensor) -> tuple[torch.Tensor, ...]:
    probs = flashinfer.top_p_renorm_prob(flashinfer.top_k_renorm_prob(probs * 2, k), p)
    probs = flashinfer.top_k_renorm_probs(flashinfer.top_p_renorm_probs(probs, 0.9), 5)
    return probs + 1, flashinfer.top_k_mask_logits(probs.log(), k)


def speculated(
    draft: torch.Tensor,
    ids: torch.Tensor,
    u: torch.Tensor,
    target: torch.Tensor,
    *counters: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """The counters, of both integer dtypes, are added to in place."""
    return flashinfer.chain_speculative_sampling(draft, ids, u, target * 2, *counters)


def positions(
    append_indptr: torch.Tensor, kv_indptr: torch.Tensor, last: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    lengths = flashinfer.get_seq_lens(kv_indptr, last, 4)
    return lengths, *flashinfer.get_batch_indices_positions(append_indptr, lengths, 3)


def normed(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Gemma's norms, the other activations, and outputs of the caller."""
    flashinfer.gemma_fused_add_rmsnorm(x, residual, weight)
    out = torch.zeros_like(x)
    flashinfer.gelu_and_mul(torch.cat([x, residual], -1), out=out)
    return out, flashinfer.gelu_tanh_and_mul(flashinfer.gemma_rmsnorm(out * 2, weight))


def rotated_ragged(
    q: torch.Tensor, k: torch.Tensor, *where: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    q, k = flashinfer.apply_rope(q, k, *where)
    q, k = flashinfer.apply_llama31_rope(q, k, *where, interleave=True)
    flashinfer.apply_rope_inplace(q, k, *where, rope_scale=2)
    flashinfer.apply_llama31_rope_inplace(q, k, *where)
    flashinfer.apply_llama31_rope_pos_ids_inplace(q, k, where[1].repeat(2)[: q.shape[0]])
    return q, k


def rotated_cached_inplace(qkv: torch.Tensor, pos_ids: torch.Tensor) -> torch.Tensor:
    angles = torch.arange(6, device=qkv.device)[:, None] * torch.ones(8, device=qkv.device)
    flashinfer.apply_rope_with_cos_sin_cache_inplace(
        qkv[:, :4], qkv[:, 4:6], angles.cos(), angles.sin(), pos_ids
    )
    q, k = flashinfer.apply_rope_pos_ids(qkv[:, :4], qkv[:, 4:6], pos_ids)
    return torch.cat([q, k], 1)


Made = tuple[Callable[..., Any], tuple[torch.Tensor, ...]]


def scratch(device: str) -> torch.Tensor:
    return torch.empty(1 << 20, dtype=torch.uint8, device=device)


def int_buffers(device: str, *sizes: int) -> list[torch.Tensor]:
    return [torch.zeros(size, dtype=torch.int32, device=device) for size in sizes]


def batch_wrappers(device: str) -> Made:
    """Runs of decode, paged and ragged wrappers that have been planned."""
    tables = (i("cpu", 0, 2, 3), i("cpu", 3, 0, 1), i("cpu", 1, 4))
    heads = (4, 2, 64)
    decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(scratch(device))
    decode.plan(*tables, *heads, 4)
    buffers = int_buffers(device, 3, 5, 2)
    fixed = flashinfer.CUDAGraphBatchDecodeWithPagedKVCacheWrapper(scratch(device), *buffers)
    fixed.plan(*tables, *heads, 4)
    paged = flashinfer.BatchPrefillWithPagedKVCacheWrapper(scratch(device))
    paged.plan(i("cpu", 0, 3, 7), *tables, *heads, 4, causal=True)
    ragged = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(scratch(device))
    ragged.plan(i("cpu", 0, 3, 7), i("cpu", 0, 5, 9), *heads, causal=True)

    def model(q: torch.Tensor, kv: torch.Tensor, cache: torch.Tensor) -> tuple[torch.Tensor, ...]:
        k, v = kv[:, :2], kv[:, 2:]
        return (
            decode.run(q[:2] * 2, cache, k_scale=0.5),
            fixed.forward(q[:2], cache, sm_scale=0.1) + 1,
            *paged.run(q * 2, cache, return_lse=True),
            paged.forward(q, cache, causal=False, window_left=2, logits_soft_cap=3.0),
            *ragged.run_return_lse(q + 1, k, v),
        )

    return model, (f(device, 7, 4, 64), f(device, 9, 4, 64), f(device, 5, 2, 4, 2, 64))


def cascade_wrappers(device: str) -> Made:
    """Two requests that share a prefix, by levels and with the prefix apart; causal only in one."""
    tables = (i("cpu", 0, 2, 3), i("cpu", 3, 0, 1), i("cpu", 1, 4))
    sizes = (4, 2, 64, 4)
    levels = flashinfer.MultiLevelCascadeAttentionWrapper(2, scratch(device))
    levels.plan(
        *([i("cpu", 0, 7), i("cpu", 0, 3, 7)], [i("cpu", 0, 2), tables[0]]),
        *([i("cpu", 2, 4), tables[1]], [i("cpu", 3), tables[2]], *sizes),
        causal=True,
    )
    prefill = flashinfer.BatchPrefillWithSharedPrefixPagedKVCacheWrapper(scratch(device))
    prefill.begin_forward(i("cpu", 0, 3, 7), *tables, *sizes)
    decode = flashinfer.BatchDecodeWithSharedPrefixPagedKVCacheWrapper(scratch(device))
    decode.begin_forward(*tables, *sizes)

    def model(q: torch.Tensor, kv: torch.Tensor, cache: torch.Tensor) -> tuple[torch.Tensor, ...]:
        k, v = kv[:, :2], kv[:, 2:]
        return (
            levels.run(q * 2, cache),
            prefill.forward(q, k, v, cache, causal=True) + 1,
            decode.forward(q[:2], k, v, cache),
        )

    return model, (f(device, 7, 4, 64), f(device, 9, 4, 64), f(device, 5, 2, 4, 2, 64))


def blocks(device: str) -> Made:
    sparse = flashinfer.BlockSparseAttentionWrapper(scratch(device))
    sparse.plan(i(device, 0, 2, 3), i(device, 0, 2, 1), 6, 12, 3, 4, 4, 2, 64)

    def model(q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        return sparse.run(q * 2, kv[:, :2], kv[:, 2:]) + 1

    return model, (f(device, 6, 4, 64), f(device, 12, 4, 64))


def latent(device: str) -> Made:
    mla = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(scratch(device))
    mla.plan(i("cpu", 0, 2, 3), i("cpu", 3, 0, 1), i("cpu", 1, 4), 4, 512, 4, 0.1)

    def model(
        nope: torch.Tensor, pe: torch.Tensor, cache: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        out = torch.zeros_like(nope)
        _, lse = mla.run(nope * 2, pe, cache[..., :512], cache[..., 512:], return_lse=True, out=out)
        return out, lse

    return model, (f(device, 2, 4, 512), f(device, 2, 4, 64), f(device, 5, 4, 576))


def later_latent(device: str) -> Made:
    mla = flashinfer.BatchMLAPagedAttentionWrapper(scratch(device))
    tables = (i("cpu", 0, 2, 3), i("cpu", 0, 2, 3), i("cpu", 3, 0, 1), i("cpu", 6, 4))
    mla.plan(*tables, 4, 512, 64, 4, True, 0.1)

    def model(nope: torch.Tensor, pe: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        return mla.run(nope * 2, pe, cache[..., :512], cache[..., 512:]) + 1

    return model, (f(device, 3, 4, 512), f(device, 3, 4, 64), f(device, 5, 4, 576))


def later(device: str) -> Made:
    decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(scratch(device))
    flashinfer.fast_decode_plan(
        decode, i("cpu", 0, 2, 3), i("cpu", 3, 0, 1), i("cpu", 1, 4), 4, 2, 64, 4
    )

    def model(
        x: torch.Tensor, weight: torch.Tensor, q: torch.Tensor, cache: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        out = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
        flashinfer.rmsnorm_quant(out, x * 2, weight, 0.5)
        first, residual = out.float(), x + 1
        flashinfer.fused_add_rmsnorm_quant(out, x, residual, weight, 0.5)
        keys = torch.empty(2, 4, 96, dtype=q.dtype, device=q.device)
        flashinfer.concat_mla_k(keys, q, q[:, :1, :32])
        probs = flashinfer.softmax(x, 0.5)
        return (
            *(first, out.float(), residual, keys, probs, decode.run(q, cache)),
            *flashinfer.top_k(x, 3, deterministic=True),
            flashinfer.layernorm(x, weight, weight),
            # Of one class, so that every draw is the same.
            flashinfer.sampling_from_logits(probs[:, :1]),
        )

    tensors = (f(device, 5, 16), f(device, 16), f(device, 2, 4, 64), f(device, 5, 2, 4, 2, 64))
    return model, tensors


def ragged(device: str) -> tuple[torch.Tensor, ...]:
    return f(device, 3, 4, 16), f(device, 3, 2, 16), i(device, 0, 2, 3), i(device, 5, 0)


# Functions by name, with the tensors to call them with, together as all exports.
MODELS: dict[str, Callable[[str], Made]] = {
    "layer": lambda d: (layer, (f(d, 5, 16), f(d, 5, 16), f(d, 16), f(d, 16, 24))),
    "normed": lambda d: (normed, (f(d, 5, 16), f(d, 5, 16), f(d, 16))),
    "rotated": lambda d: (rotated, packed(d)),
    "rotated_inplace": lambda d: (rotated_inplace, packed(d)),
    "rotated_ragged": lambda d: (rotated_ragged, ragged(d)),
    "rotated_cached": lambda d: (rotated_cached, packed(d)),
    "rotated_cached_inplace": lambda d: (rotated_cached_inplace, packed(d)),
    "appended": lambda d: (appended, cache(d)),
    "positions": lambda d: (positions, (i(d, 0, 2, 3), i(d, 0, 1, 3), i(d, 3, 1))),
    "merged": lambda d: (merged, (f(d, 3, 4, 2, 8), f(d, 3, 4, 2).float())),
    "single": lambda d: (single, (f(d, 3, 4, 64), f(d, 9, 2, 64), f(d, 9, 2, 64), f(d, 3, 9))),
    "batch_wrappers": batch_wrappers,
    "cascade_wrappers": cascade_wrappers,
    "blocks": blocks,
    "latent": latent,
    "later_latent": later_latent,
    "later": later,
    "experts": lambda d: (experts, (f(d, 5, 16), f(d, 2, 16, 8), i(d, 2, 3))),
    "scaled_product": lambda d: (
        *(scaled_product, (f(d, 2, 3, 16), f(d, 2, 8, 16), torch.ones(1, device=d))),
    ),
    "packed_mask": lambda d: (packed_mask, (f(d, 19),)),
    "segment_mask": lambda d: (segment_mask, (f(d, 19), i(d, 0, 9, 19))),
    "drawn": lambda d: (
        drawn,
        (probabilities(d, 3, 40), uniform(d, 8, 3), i(d, 2, 9, 50), uniform(d, 3)),
    ),
    "filtered": lambda d: (filtered, (probabilities(d, 3, 40), i(d, 2, 9, 50), uniform(d, 3))),
    "speculated": lambda d: (
        speculated,
        (
            *(probabilities(d, 3, 2, 40), i(d, *range(6)).view(3, 2), uniform(d, 3, 3)),
            *(probabilities(d, 3, 3, 40), i(d, 5, 6, 7), i(d, 0, 1, 2).long()),
        ),
    ),
}
# Its result has a size that depends on the data.
UNBACKED = "segment_mask"
# What torch raises where a trace would have to know numbers of a tensor.
DATA_DEPENDENT = (torch._dynamo.exc.TorchDynamoException, GuardOnDataDependentSymNode)

# What torch's own operations do, and a plan.
OF_TORCH = {"get_seq_lens", "fast_decode_plan"}

# The op that does the work of an export.
OP_OF = {name: name for name in OPS} | {
    **dict.fromkeys(["gemma_rmsnorm"], "rmsnorm"),
    **dict.fromkeys(["gemma_fused_add_rmsnorm"], "fused_add_rmsnorm"),
    **dict.fromkeys(["silu_and_mul", "gelu_and_mul", "gelu_tanh_and_mul"], "act_and_mul"),
    "append_paged_kv_cache": "append_paged_kv",
    "get_batch_indices_positions": "batch_positions",
    "merge_state_in_place": "merge_state_inplace",
    "BatchDecodeMlaWithPagedKVCacheWrapper": "mla_decode",
    "SegmentGEMMWrapper": "segment_gemm",
    "chain_speculative_sampling": "chain_speculative",
    "top_k_mask_logits": "mask_logits",
    "BatchMLAPagedAttentionWrapper": "mla_decode",
    **dict.fromkeys(OF_TORCH, ""),
}


def op_of(export: str) -> str:
    """By the table, or by what the names have in common."""
    if export in OP_OF:
        return OP_OF[export]
    if export.startswith("apply_"):
        return "rope_inplace" if export.endswith("_inplace") else "rope"
    if "renorm" in export:
        return "renorm_probs"
    if "sampling" in export:
        return "sample"
    return "attention"


class Recorder(TorchDispatchMode):
    """Which of our ops run in the call of which export, the outermost one."""

    def __init__(self) -> None:
        super().__init__()
        self.export = ""
        self.ops: dict[str, set[str]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, _, name = func.name().partition("::")
        if namespace == "flashinfer" and self.export:
            self.ops[self.export].add(name.partition(".")[0])
        return func(*args, **(kwargs or {}))

    def recorded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`name` is "" for a method: then it is the object's class."""

        def call(*args: Any, **kwargs: Any) -> Any:
            outermost = not self.export
            if outermost:
                self.export = name or type(args[0]).__name__
                self.ops.setdefault(self.export, set())
            try:
                return function(*args, **kwargs)
            finally:
                if outermost:
                    self.export = ""

        return call


def test_models_call_every_export_and_its_op(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    for name in flashinfer.__all__:
        export = getattr(flashinfer, name)
        if isinstance(export, type):
            for method in {"run", "run_return_lse", "forward"} & vars(export).keys():
                monkeypatch.setattr(export, method, recorder.recorded("", vars(export)[method]))
        else:
            monkeypatch.setattr(flashinfer, name, recorder.recorded(name, export))
    made = [make("cpu") for make in MODELS.values()]
    with recorder:
        for model, arguments in made:
            model(*arguments)
    assert recorder.ops.keys() == set(flashinfer.__all__)
    missing = {
        name: op_of(name)
        for name, ops in recorder.ops.items()
        if op_of(name) and op_of(name) not in ops
    }
    assert not missing
    assert {name for name, ops in recorder.ops.items() if not ops} == OF_TORCH


def check_compiled(name: str, device: str, **options: Any) -> None:
    """Same results and same mutations as without torch.compile."""
    model, arguments = MODELS[name](device)
    eager = tuple(value.clone() for value in arguments)
    expected = model(*eager)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_scalar_outputs=name == UNBACKED):
        got = torch.compile(model, fullgraph=True, **options)(*arguments)
    torch.testing.assert_close((got, arguments), (expected, eager))


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", MODELS)
def test_fullgraph(name: str, dynamic: bool, device: str) -> None:
    check_compiled(name, device, backend="aot_eager", dynamic=dynamic)


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_inductor(name: str) -> None:
    check_compiled(name, "cuda", backend="inductor")


@pytest.mark.parametrize("name", ["layer", "batch_wrappers"])
def test_inductor_on_the_cpu(name: str) -> None:
    check_compiled(name, "cpu", backend="inductor")


class Module(torch.nn.Module):
    """A model as torch.export takes it."""

    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        self._model = model

    def forward(self, *arguments: torch.Tensor) -> Any:
        return self._model(*arguments)


def ops_in(program: torch.export.ExportedProgram) -> set[str]:
    return {
        node.target.name().partition("::")[2].partition(".")[0]
        for node in program.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "flashinfer"
    }


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
@pytest.mark.parametrize("name", MODELS)
def test_export(name: str, strict: bool, device: str) -> None:
    model, arguments = MODELS[name](device)
    eager, example = (tuple(value.clone() for value in arguments) for _ in range(2))
    expected = model(*eager)
    torch._dynamo.reset()
    program = torch.export.export(Module(model), example, strict=strict)
    ops = ops_in(program)
    assert ops
    # Those are implemented in Python, which a program may be loaded without.
    assert not ops & {"planned_attention", "planned_mla"}
    got = program.module()(*arguments)
    torch.testing.assert_close((got, arguments), (expected, eager))


def test_export_for_any_number_of_tokens(device: str) -> None:
    model, arguments = MODELS["layer"](device)
    tokens = torch.export.Dim("tokens", min=2)
    shapes = {"arguments": ({0: tokens}, {0: tokens}, None, None)}
    program = torch.export.export(Module(model), arguments, dynamic_shapes=shapes).module()
    for count in (2, 7, 40):
        real = (f(device, count, 16), f(device, count, 16), *arguments[2:])
        eager = tuple(value.clone() for value in real)
        torch.testing.assert_close((program(*real), real), (model(*eager), eager))


def test_fake_tensors_are_checked() -> None:
    # What torch.compile traces with: a wrong call fails then, not when the graph runs.
    with (
        FakeTensorMode(),
        pytest.raises(ValueError, match=r"weight has shape \[7\], expected \[8\]"),
    ):
        flashinfer.rmsnorm(torch.empty(3, 8, dtype=H), torch.empty(7, dtype=H))


@pytest.mark.parametrize("name", MODELS)
def test_fake_tensors(name: str, device: str) -> None:
    model, real = MODELS[name](device)
    expected = model(*(value.clone() for value in real))
    # A plan holds real tensors.
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True) as mode:
        got = model(*(mode.from_tensor(value, static_shapes=True) for value in real))
    if isinstance(expected, torch.Tensor):
        got, expected = (got,), (expected,)
    for fake, true in zip(got, expected, strict=True):
        assert isinstance(fake, FakeTensor)
        assert (fake.dtype, fake.device) == (true.dtype, true.device)
        if name == UNBACKED:
            assert fake.ndim == true.ndim
        else:
            assert fake.shape == true.shape


def test_a_new_plan_under_a_compiled_run(device: str) -> None:
    decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(scratch(device))
    q, cache = f(device, 2, 4, 64), f(device, 5, 2, 4, 2, 64)
    torch._dynamo.reset()
    run = torch.compile(lambda q: decode.run(q * 2, cache), fullgraph=True, backend="aot_eager")
    for pages, last in (((3, 0), (1, 4)), ((0, 4), (2, 2)), ((2, 1), (4, 1))):
        decode.plan(i("cpu", 0, 1, 2), i("cpu", *pages), i("cpu", *last), 4, 2, 64, 4)
        torch.testing.assert_close(run(q), decode.run(q * 2, cache))


def replanned(kind: str, graphs: bool, device: str) -> tuple[Any, Callable[[int], Any]]:
    """A wrapper, and what plans it for the n-th batch and returns the arguments of its run."""
    heads = (4, 2, 64)
    cache = f(device, 99, 2, 4, 2, 64)
    if kind == "decode":
        buffers = int_buffers(device, 3, 400, 2) if graphs else []
        decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            scratch(device), "NHD", graphs, False, *buffers
        )
    elif kind == "mla":
        buffers = int_buffers(device, 3, 400, 2) if graphs else []
        decode = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(scratch(device), graphs, *buffers)
    elif kind == "paged":
        buffers = int_buffers(device, 3, 3, 400, 2) if graphs else []
        paged = flashinfer.BatchPrefillWithPagedKVCacheWrapper(
            scratch(device), "NHD", graphs, *buffers
        )
    else:
        buffers = int_buffers(device, 3, 3) if graphs else []
        ragged = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(
            scratch(device), "NHD", graphs, *buffers
        )

    def plan(n: int) -> Any:
        pages = 9 + 6 * n
        table = (i("cpu", 0, 4, pages), torch.randperm(pages).int(), i("cpu", 1 + n % 4, 4))
        tokens = 30 - 2 * n if graphs else 9 + 2 * n
        qo = i("cpu", 0, 4, tokens)
        rows = 30 if graphs else tokens
        if kind == "decode":
            decode.plan(*table, *heads, 4)
            return f(device, 2, 4, 64), cache
        if kind == "mla":
            decode.plan(*table, 4, 512, 4, 0.1)
            latent = f(device, 99, 4, 576)
            return f(device, 2, 4, 512), f(device, 2, 4, 64), latent[..., :512], latent[..., 512:]
        if kind == "paged":
            paged.plan(qo, *table, *heads, 4, causal=True)
            return f(device, rows, 4, 64), cache
        ragged.plan(qo, i("cpu", 0, 4, tokens), *heads, causal=True)
        return f(device, rows, 4, 64), f(device, rows, 2, 64), f(device, rows, 2, 64)

    return {"paged": lambda: paged, "ragged": lambda: ragged}.get(kind, lambda: decode)(), plan


@pytest.mark.parametrize("graphs", [False, True], ids=["", "graphs"])
@pytest.mark.parametrize("kind", ["decode", "mla", "paged", "ragged"])
def test_new_plans_are_not_compiled_for(kind: str, graphs: bool, device: str) -> None:
    """Once for numbers, once for symbols in their place; with buffers for graphs once in all."""
    wrapper, plan = replanned(kind, graphs, device)
    torch._dynamo.reset()
    compiled = CompileCounterWithBackend("aot_eager")
    run = torch.compile(wrapper.run, fullgraph=True, backend=compiled)
    for n in range(8):
        arguments = plan(n)
        planned = wrapper._planned.tokens  # rows after these are not written
        expected = wrapper.run(*arguments)[:planned]
        torch.testing.assert_close(run(*arguments)[:planned], expected)
    assert compiled.frame_count <= (1 if graphs else 3)
    # What is compared with the plan without a trace is compared with one too.
    few = [value[:1] if value.shape[0] == arguments[0].shape[0] else value for value in arguments]
    error = torch._dynamo.exc.Unsupported if graphs else ValueError  # by the trace, or by the op
    with pytest.raises(error, match="exception" if graphs else r"shape \[1, .* rows as planned"):
        run(*few)


def test_a_new_plan_under_an_exported_run(device: str) -> None:
    # A program holds the plan's tensors, and plans of wrappers for graphs write to the same ones.
    buffers = int_buffers(device, 3, 5, 2)
    decode = flashinfer.CUDAGraphBatchDecodeWithPagedKVCacheWrapper(scratch(device), *buffers)
    q, cache = f(device, 2, 4, 64), f(device, 5, 2, 4, 2, 64)
    program: Any = None
    for pages, last in (((3, 0), (1, 4)), ((0, 4), (2, 2)), ((2, 1), (4, 1))):
        decode.plan(i("cpu", 0, 1, 2), i("cpu", *pages), i("cpu", *last), 4, 2, 64, 4)
        if program is None:
            model = Module(lambda q, cache: decode.run(q * 2, cache))
            program = torch.export.export(model, (q, cache), strict=False).module()
        torch.testing.assert_close(program(q, cache), decode.run(q * 2, cache))


def test_plans_are_made_between_compiled_steps(device: str) -> None:
    """plan reads lengths on the host; a step around it stays eager, its parts are compiled."""
    decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(scratch(device))
    cache = f(device, 5, 2, 4, 2, 64)

    def step(q: torch.Tensor, indptr: torch.Tensor, pages: torch.Tensor, last: torch.Tensor) -> Any:
        decode.plan(indptr, pages, last, 4, 2, 64, 4)
        return decode.run(q * 2, cache) + 1

    arguments = (f(device, 2, 4, 64), i(device, 0, 1, 2), i(device, 3, 1), i(device, 2, 4))
    expected = step(*arguments)
    torch._dynamo.reset()
    with pytest.raises(DATA_DEPENDENT):
        torch.compile(step, fullgraph=True, backend="aot_eager")(*arguments)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(step, backend="aot_eager")(*arguments), expected)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_uniform_numbers_are_new_ones_in_every_call(compiled: bool, device: str) -> None:
    def model(probs: torch.Tensor) -> torch.Tensor:
        return flashinfer.top_p_sampling_from_probs(probs, top_p=0.9)[0]

    probs = probabilities(device, 64, 1000)
    torch.manual_seed(5)
    expected = [model(probs) for _ in range(2)]
    torch._dynamo.reset()
    call = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
    torch.manual_seed(5)
    got = [call(probs) for _ in range(2)]
    torch.testing.assert_close(got, expected)
    assert not torch.equal(*got)


def test_check_nan_is_not_traced(device: str) -> None:
    def model(probs: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return flashinfer.sampling_from_probs(probs, u, check_nan=True)

    arguments = (probabilities(device, 3, 9), uniform(device, 3))
    expected = model(*arguments)
    torch._dynamo.reset()
    with pytest.raises(DATA_DEPENDENT):
        torch.compile(model, fullgraph=True, backend="aot_eager")(*arguments)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, backend="aot_eager")(*arguments), expected)


def test_autograd_notices_a_saved_tensor_that_was_overwritten(device: str) -> None:
    x = torch.ones(3, 8, device=device, dtype=H)
    y = torch.ones(3, 8, device=device, dtype=H, requires_grad=True)
    product = (x * y).sum()
    flashinfer.rmsnorm(x, x[0].clone(), out=x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(product, y)


def test_inference_mode(device: str) -> None:
    with torch.inference_mode():
        x = f(device, 3, 8)
        assert flashinfer.rmsnorm(x, x[0], out=x) is x


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in MODELS if name != UNBACKED])
def test_cuda_graph(name: str) -> None:
    model, arguments = MODELS[name]("cuda")
    before = [value.clone() for value in arguments]
    expected = model(*arguments)  # and the plans of single requests, which are made once
    after = [value.clone() for value in arguments]
    for value, old in zip(arguments, before, strict=True):
        value.copy_(old)
    torch.cuda.synchronize()
    # Capturing happens on a stream of its own: a launch on any other would not be recorded.
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = model(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))
    graph.replay()
    torch.testing.assert_close((got, list(arguments)), (expected, after))


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_another_stream(name: str) -> None:
    model, arguments = MODELS[name]("cuda")
    eager = [value.clone() for value in arguments]
    expected = model(*eager)
    late = [torch.zeros_like(value) for value in arguments]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # a launch on another stream would see the zeros
        for value, true in zip(late, arguments, strict=True):
            value.copy_(true)
        got = model(*late)
    stream.synchronize()
    torch.testing.assert_close((got, late), (expected, eager))


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_another_device(name: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("gpu: one CUDA device here, this needs two")
    torch.manual_seed(3)
    model, arguments = MODELS[name]("cuda:0")
    expected = model(*arguments)
    torch.manual_seed(3)
    model, others = MODELS[name]("cuda:1")
    assert torch.cuda.current_device() == 0
    got = model(*others)
    torch.cuda.synchronize("cuda:1")
    assert torch.cuda.current_device() == 0
    as_list = (got,) if isinstance(got, torch.Tensor) else tuple(got)
    assert {value.device for value in as_list} == {torch.device("cuda:1")}
    torch.testing.assert_close((got, others), (expected, arguments), check_device=False)
