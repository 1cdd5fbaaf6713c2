"""torch.compile, FakeTensor and torch.library.opcheck see the ops as torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import flashinfer
from flashinfer import _ops

H = torch.float16


def f(device: str, *shape: int) -> torch.Tensor:
    return torch.randn(shape).to(device, H)


def i(device: str, *values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32, device=device)


def probs(device: str, *shape: int) -> torch.Tensor:
    return torch.softmax(torch.randn(shape), -1).to(device)


def plan_words(d: str) -> torch.Tensor:
    """Two tokens of one request with three keys: a header, one item, no merge."""
    return i(d, 1, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 3, -1)


# Every op as the front functions call it. opcheck runs the schema check (what is mutated, what
# aliases), the autograd registration, the fake implementation and AOTAutograd with symbolic shapes.
OPS: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "rmsnorm": lambda d: (f(d, 3, 8), f(d, 3, 8), f(d, 8), 1e-6, 0.0),
    "fused_add_rmsnorm": lambda d: (f(d, 3, 8), f(d, 3, 8), f(d, 8), 1e-6, 1.0),
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
    "attention": lambda d: (
        *(f(d, 2, 4, 64), f(d, 4, 2, 2, 64), f(d, 4, 2, 2, 64), i(d, 3, 1)),
        *(f(d, 2, 4, 64), f(d, 2, 4).float(), plan_words(d), torch.empty(0, device=d)),
        *(torch.tensor([45], dtype=torch.uint8, device=d), i(d, 0, 1), None),
        *(16, 1, 0, 0, False, False, -1, "NONE", 0.1, 0.0, 1.0, 1.0, 1e4),
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
    # sampling
    "sample": lambda d: (
        *(i(d, 0, 0, 0), torch.zeros(3, dtype=torch.bool, device=d), probs(d, 3, 9)),
        *(torch.rand(3, device=d), i(d, 1, 5, 9), 0, None, 0.9),
        *(torch.rand(3, device=d), 0.0, True),
    ),
    "renorm_probs": lambda d: (
        probs(d, 3, 9),
        probs(d, 3, 9),
        None,
        4,
        torch.rand(3, device=d),
        1.0,
    ),
    "mask_logits": lambda d: (probs(d, 3, 9), probs(d, 3, 9), i(d, 1, 5, 9), 0),
    "chain_speculative": lambda d: (
        *(torch.zeros(3, 3, dtype=torch.int32, device=d), i(d, 0, 0, 0), i(d, 1, 2, 3)),
        *(probs(d, 3, 2, 9), torch.ones(3, 2, dtype=torch.int32, device=d)),
        *(torch.rand(3, 3, device=d), probs(d, 3, 3, 9)),
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
def test_opcheck(name: str, device: str) -> None:
    torch.library.opcheck(getattr(_ops, name), OPS[name](device))


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
    )


def sampled(
    logits: torch.Tensor, u: torch.Tensor, k: torch.Tensor, share: torch.Tensor
) -> tuple[Any, ...]:
    """The end of a model: every form of sampling."""
    p = torch.softmax(logits * 2, -1)
    masked = flashinfer.top_k_mask_logits(logits, 7)
    renormed = flashinfer.top_p_renorm_probs(flashinfer.top_k_renorm_probs(p, k), share)
    return (
        flashinfer.sampling_from_probs(p, u[0]) + 1,
        flashinfer.sampling_from_probs(renormed, u[1]),
        *flashinfer.top_p_sampling_from_probs(p, u, share),
        *flashinfer.top_k_sampling_from_probs(p, u, 3),
        *flashinfer.min_p_sampling_from_probs(p, u, 0.1),
        *flashinfer.top_k_top_p_sampling_from_probs(p, u, k, 0.9, "joint"),
        *flashinfer.top_k_top_p_sampling_from_logits(masked, u, k, share),
    )


def speculated(
    draft: torch.Tensor, ids: torch.Tensor, u: torch.Tensor, target: torch.Tensor, n: torch.Tensor
) -> tuple[Any, ...]:
    out, accepted, _ = flashinfer.chain_speculative_sampling(draft, ids, u, target, n)
    return out + 1, accepted * 2, n


MODELS: list[tuple[Callable[..., Any], Callable[[str], tuple[torch.Tensor, ...]]]] = [
    (layer, lambda d: (f(d, 5, 16), f(d, 5, 16), f(d, 16), f(d, 16, 24))),
    (rotated, packed),
    (rotated_inplace, packed),
    (rotated_cached, packed),
    (appended, cache),
    (merged, lambda d: (f(d, 3, 4, 2, 8), f(d, 3, 4, 2).float())),
    (single, lambda d: (f(d, 3, 4, 64), f(d, 9, 2, 64), f(d, 9, 2, 64), f(d, 3, 9))),
    (
        sampled,
        lambda d: (
            *(torch.randn(3, 50).to(d), torch.rand(2, 3).to(d), i(d, 1, 5, 99)),
            torch.rand(3).to(d),
        ),
    ),
    (
        speculated,
        lambda d: (
            *(probs(d, 3, 2, 9), torch.ones(3, 2, dtype=torch.int32, device=d)),
            *(torch.rand(3, 3).to(d), probs(d, 3, 3, 9), i(d, 1, 2, 3)),
        ),
    ),
    (packed_mask, lambda d: (f(d, 19),)),
    (segment_mask, lambda d: (f(d, 19), i(d, 0, 9, 19))),
]


def check_compiled(
    model: Callable[..., Any], arguments: tuple[torch.Tensor, ...], **options: Any
) -> None:
    """Same results and same mutations as without torch.compile."""
    eager = tuple(value.clone() for value in arguments)
    expected = model(*eager)
    torch._dynamo.reset()
    # Of the functions, only segment_packbits has a result whose size depends on the data.
    with torch._dynamo.config.patch(capture_scalar_outputs=model is segment_mask):
        got = torch.compile(model, fullgraph=True, **options)(*arguments)
    torch.testing.assert_close((got, arguments), (expected, eager))


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(("model", "make"), MODELS)
def test_fullgraph(
    model: Callable[..., Any],
    make: Callable[[str], tuple[torch.Tensor, ...]],
    dynamic: bool,
    device: str,
) -> None:
    check_compiled(model, make(device), backend="aot_eager", dynamic=dynamic)


@pytest.mark.gpu
@pytest.mark.parametrize(("model", "make"), MODELS)
def test_inductor(
    model: Callable[..., Any], make: Callable[[str], tuple[torch.Tensor, ...]]
) -> None:
    check_compiled(model, make("cuda"), backend="inductor")


def test_inductor_on_the_cpu() -> None:
    model, make = MODELS[0]
    check_compiled(model, make("cpu"), backend="inductor")


def test_fake_tensors_are_checked() -> None:
    # What torch.compile traces with: a wrong call fails then, not when the graph runs.
    with (
        FakeTensorMode(),
        pytest.raises(ValueError, match=r"weight has shape \[7\], expected \[8\]"),
    ):
        flashinfer.rmsnorm(torch.empty(3, 8, dtype=H), torch.empty(7, dtype=H))


@pytest.mark.parametrize(("model", "make"), MODELS[:-1])
def test_fake_tensors(
    model: Callable[..., Any], make: Callable[[str], tuple[torch.Tensor, ...]], device: str
) -> None:
    real = make(device)
    expected = model(*(value.clone() for value in real))
    with FakeTensorMode(shape_env=ShapeEnv()) as mode:
        got = model(*(mode.from_tensor(value) for value in real))
    if isinstance(expected, torch.Tensor):
        got, expected = (got,), (expected,)
    for fake, true in zip(got, expected, strict=True):
        assert (fake.shape, fake.dtype, fake.device) == (true.shape, true.dtype, true.device)


def wrappers(device: str) -> tuple[Any, ...]:
    """A decode, a paged and a ragged wrapper with plans, and the tensors that they run over."""
    workspace = torch.empty(1 << 20, dtype=torch.uint8, device=device)
    tables = (i("cpu", 0, 2, 3), i("cpu", 3, 0, 1), i("cpu", 1, 4))
    heads = (4, 2, 64)
    decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace)
    decode.plan(*tables, *heads, 4)
    paged = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace)
    paged.plan(i("cpu", 0, 3, 7), *tables, *heads, 4, causal=True)
    ragged = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace)
    ragged.plan(i("cpu", 0, 3, 7), i("cpu", 0, 5, 9), *heads, causal=True)
    arguments = (f(device, 7, 4, 64), f(device, 9, 4, 64), f(device, 5, 2, 4, 2, 64))
    return decode, paged, ragged, arguments


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_runs_of_wrappers(backend: str, device: str) -> None:
    decode, paged, ragged, arguments = wrappers(device)

    def layer(q: torch.Tensor, kv: torch.Tensor, cache: torch.Tensor) -> tuple[Any, ...]:
        k, v = kv[:, :2], kv[:, 2:]
        return (
            decode.run(q[:2] * 2, cache, k_scale=0.5),
            *paged.run(q * 2, cache, return_lse=True),
            paged.forward(q, cache, causal=False, window_left=2, logits_soft_cap=3.0),
            *ragged.run_return_lse(q + 1, k, v),
        )

    check_compiled(layer, arguments, backend=backend)


def test_a_new_plan_under_a_compiled_run(device: str) -> None:
    decode, *_, (q, _, cache) = wrappers(device)
    torch._dynamo.reset()
    run = torch.compile(lambda q: decode.run(q * 2, cache), fullgraph=True, backend="aot_eager")
    for pages, last in (((3, 0), (1, 4)), ((0, 4), (2, 2)), ((2, 1), (4, 1))):
        decode.plan(i("cpu", 0, 1, 2), i("cpu", *pages), i("cpu", *last), 4, 2, 64, 4)
        torch.testing.assert_close(run(q[:2]), decode.run(q[:2] * 2, cache))


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
def test_cuda_graph_and_side_stream() -> None:
    x, weight = f("cuda", 64, 4096), f("cuda", 4096)
    expected = flashinfer.rmsnorm(x, weight)
    out = torch.zeros_like(x)
    graph = torch.cuda.CUDAGraph()
    # Capturing happens on a stream of its own: a launch on any other would not be recorded.
    with torch.cuda.graph(graph):
        flashinfer.rmsnorm(x, weight, out=out)
    assert not out.any()
    graph.replay()
    assert torch.equal(out, expected)


@pytest.mark.parametrize(
    ("model", "make"), [case for case in MODELS if case[0] in (sampled, speculated)]
)
def test_sampling_is_exported(
    model: Callable[..., Any], make: Callable[[str], tuple[torch.Tensor, ...]], device: str
) -> None:
    class Module(torch.nn.Module):
        def forward(self, *arguments: torch.Tensor) -> Any:
            return model(*arguments)

    arguments = make(device)
    expected = model(*(value.clone() for value in arguments))
    program = torch.export.export(Module(), tuple(value.clone() for value in arguments))
    got = program.module()(*arguments)
    torch.testing.assert_close(tuple(got), tuple(expected))


def test_uniform_numbers_are_made_in_a_compiled_graph(device: str) -> None:
    p = torch.softmax(torch.randn(64, 100), -1).to(device)
    torch._dynamo.reset()
    draw = torch.compile(
        lambda p: flashinfer.top_k_sampling_from_probs(p, top_k=5)[0],
        fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    samples = draw(p)
    assert (p.gather(1, samples.long()[:, None]) >= p.topk(5).values[:, -1:]).all()
    assert not torch.equal(draw(p), samples)
