from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import reference
import torch
from batches import randn, workspace
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import flashinfer
from flashinfer import decode

SCALE = 192**-0.5
OPTIONS: list[dict[str, Any]] = [
    {"logits_soft_cap": 3.0},
    {"window_left": 30},
    {"window_left": 0},
    {"sm_scale": 0.03},
    {"rope_scale": 2.0, "rope_theta": 5e5},
    {"logits_soft_cap": 2.0, "window_left": 50, "rope_theta": 1e3},
]
# What RoPE turned is rounded to fp16 or bf16 on CUDA before the scores.
TURNED = {torch.float16: 1e-3, torch.bfloat16: 1e-2, torch.float32: 1e-5}


class Batch:
    """Requests of one query token, their rows of the cache, and the pages that these lie in.

    `form` is how the caches come: "two" tensors, slices of "one", or "strided" ones.
    """

    def __init__(
        self,
        kv_lens: list[int],
        heads: int,
        dtype: torch.dtype,
        device: str,
        *,
        dims: tuple[int, int] = (512, 64),
        page_size: int = 16,
        form: str = "two",
    ) -> None:
        self.kv_lens, self.heads, self.dims = kv_lens, heads, dims
        self.page_size, self.device = page_size, device
        self.q = tuple(randn(len(kv_lens), heads, dim, dtype=dtype, device=device) for dim in dims)
        self.rows = randn(sum(kv_lens), sum(dims), dtype=dtype, device=device)
        pages = [-(-length // page_size) for length in kv_lens]
        indptr = torch.tensor([0, *pages]).cumsum(0)
        # Three pages that nobody has, with numbers that would be seen.
        indices = torch.randperm(sum(pages) + 3)[: sum(pages)]
        last = [(length - 1) % page_size + 1 if length else 0 for length in kv_lens]
        self.tables = tuple(
            torch.as_tensor(table).to(device, torch.int32) for table in (indptr, indices, last)
        )
        pool = torch.full((sum(pages) + 3, page_size, sum(dims)), 99.0)
        begin = 0
        for b, length in enumerate(kv_lens):
            table = indices[int(indptr[b]) :]
            for key in range(length):
                pool[table[key // page_size], key % page_size] = self.rows[begin + key].float()
            begin += length
        caches = pool.to(device, dtype).split(list(dims), -1)
        if form == "two":
            caches = tuple(cache.contiguous() for cache in caches)
        elif form == "strided":
            wide = [torch.zeros([2 * n for n in c.shape]).to(device, dtype) for c in caches]
            views = [w[::2, ::2, : c.shape[2]] for w, c in zip(wide, caches, strict=True)]
            for view, cache in zip(views, caches, strict=True):
                view.copy_(cache)
            caches = tuple(views)
        self.arguments = (*self.q, *caches)

    def planned(self, size: int = 8 << 20, sm_scale: float = SCALE, **options: Any) -> Any:
        wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(workspace(self.device, size))
        self.plan(wrapper, sm_scale, **options)
        return wrapper

    def plan(self, wrapper: Any, sm_scale: float = SCALE, **options: Any) -> None:
        wrapper.plan(*self.tables, self.heads, self.dims[0], self.page_size, sm_scale, **options)

    def reference(
        self,
        *,
        sm_scale: float = SCALE,
        logits_soft_cap: float = 0.0,
        window_left: int = -1,
        rope_scale: float = 1.0,
        rope_theta: float = 1e4,
        pos_encoding_mode: str = "ROPE_LLAMA",
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """In fp64: the output, and the base-2 log-sum-exp."""
        outs, lses = [], []
        frequencies = reference.frequencies(self.dims[1], rope_scale, rope_theta)
        for b, rows in enumerate(self.rows.double().cpu().split(self.kv_lens)):
            q_nope, q_pe = (q[b].double().cpu() for q in self.q)
            ckv, kpe = rows.split(list(self.dims), -1)
            keys = torch.arange(len(rows))
            if pos_encoding_mode == "ROPE_LLAMA":
                angles = keys[:, None] * frequencies
                kpe = reference.rotate(kpe[:, None], angles.cos(), angles.sin(), True)[:, 0]
                angle = (len(rows) - 1) * frequencies[None]
                q_pe = reference.rotate(q_pe[None], angle.cos(), angle.sin(), True)[0]
            scores = (q_nope @ ckv.T + q_pe @ kpe.T) * sm_scale
            if logits_soft_cap:
                scores = logits_soft_cap * torch.tanh(scores / logits_soft_cap)
            if window_left >= 0:
                scores[:, keys < len(rows) - 1 - window_left] = -math.inf
            lse = torch.logsumexp(scores, -1)
            outs.append(torch.nan_to_num(torch.exp(scores - lse[:, None]), nan=0.0) @ ckv)
            lses.append(lse / math.log(2))
        return torch.stack(outs), torch.stack(lses)


def assert_mla(
    actual: tuple[torch.Tensor, torch.Tensor] | torch.Tensor,
    expected: tuple[torch.Tensor, torch.Tensor],
) -> None:
    if isinstance(actual, torch.Tensor):
        reference.assert_close(actual, expected[0], atol=TURNED[actual.dtype])
        return
    out, lse = actual
    reference.assert_close(out, expected[0], atol=TURNED[out.dtype])
    assert lse.dtype == torch.float32
    reference.assert_close(lse, expected[1], atol=4 * TURNED[out.dtype] if lse.is_cuda else 3e-5)


@pytest.mark.parametrize("heads", [1, 3, 16, 17, 128])
def test_heads(heads: int, dtype: torch.dtype, device: str) -> None:
    batch = Batch([54, 1, 97, 300], heads, dtype, device)
    expected = batch.reference()
    wrapper = batch.planned()
    out = wrapper.run(*batch.arguments)
    assert out.shape == (4, heads, 512)
    assert out.dtype == dtype
    assert_mla(out, expected)
    assert_mla(wrapper.run(*batch.arguments, return_lse=True), expected)
    assert_mla(wrapper.run_return_lse(*batch.arguments), expected)


@pytest.mark.parametrize("form", ["two", "one", "strided"])
@pytest.mark.parametrize("page_size", [1, 3, 16, 64])
def test_caches(page_size: int, form: str, device: str) -> None:
    batch = Batch([54, 1, 97], 16, torch.float16, device, page_size=page_size, form=form)
    assert_mla(batch.planned().run_return_lse(*batch.arguments), batch.reference())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options(options: dict[str, Any], device: str) -> None:
    batch = Batch([54, 1, 97, 240], 12, torch.float16, device)
    expected = batch.reference(**options)
    assert_mla(batch.planned(**options).run_return_lse(*batch.arguments), expected)
    # Options when it runs, under a plan that did not know them.
    wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(workspace(device))
    wrapper.begin_forward(*batch.tables, 12, 512, 16, SCALE)
    assert_mla(wrapper.forward(*batch.arguments, **options), expected)
    assert_mla(wrapper.forward_return_lse(*batch.arguments, **options), expected)
    wrapper.end_forward()
    assert_mla(wrapper.run(*batch.arguments), batch.reference())


def test_positional_call_of_0_2_0(device: str) -> None:
    batch = Batch([54, 97], 16, torch.float16, device)
    wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(workspace(device), False)
    # ..., sm_scale, window_left, logits_soft_cap, data_type, q_data_type, rope_scale, rope_theta
    rest: Any = (0.05, 40, 5.0, "float16", None, 2.0, 3e4)
    wrapper.plan(*batch.tables, 16, 512, 16, *rest)
    expected, lse = batch.reference(
        sm_scale=0.03, window_left=40, logits_soft_cap=5.0, rope_scale=2.0, rope_theta=3e4
    )
    out = wrapper.run(*batch.arguments, 0.5, 1.2, 2.0, True)
    assert_mla(out, (expected * 2.0, lse))
    assert decode.BatchDecodeMlaWithPagedKVCacheWrapper is type(wrapper)


def test_turned_before(dtype: torch.dtype, device: str) -> None:
    """A cache whose kpe was turned by this package's own function gives the same."""
    batch = Batch([54, 97], 16, dtype, device)
    q_pe, rows = batch.q[1].clone(), batch.rows.clone()
    positions = torch.cat([torch.arange(n) for n in batch.kv_lens]).to(device)
    kpe = rows[:, None, 512:]
    last = torch.tensor([n - 1 for n in batch.kv_lens], device=device)
    flashinfer.apply_rope_pos_ids_inplace(q_pe, q_pe.new_empty(2, 0, 64), last, interleave=True)
    flashinfer.apply_rope_pos_ids_inplace(kpe, kpe[:, :0], positions, interleave=True)
    turned = Batch([54, 97], 16, dtype, device)
    turned.q, turned.rows = (batch.q[0], q_pe), rows
    expected = turned.reference(pos_encoding_mode="NONE")
    for actual, right in zip(expected, batch.reference(), strict=True):
        torch.testing.assert_close(actual, right, atol=4 * TURNED[dtype], rtol=0)
    pool = torch.zeros(2 * 7, 16, 576, dtype=dtype, device=device)
    for b, part in enumerate(rows.split(batch.kv_lens)):
        pool[7 * b : 7 * b + 7].view(-1, 576)[: len(part)] = part
    wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(workspace(device))
    tables = (torch.tensor([0, 4, 11]), torch.tensor([*range(4), *range(7, 14)]),
              torch.tensor([6, 1]))  # fmt: skip
    wrapper.plan(*tables, 16, 512, 16, SCALE, pos_encoding_mode="NONE")
    out = wrapper.run_return_lse(batch.q[0], q_pe, pool[..., :512], pool[..., 512:])
    assert_mla(out, expected)


def test_other_sizes_on_the_cpu() -> None:
    for dims in ((256, 32), (64, 128), (8, 8)):
        batch = Batch([54, 9], 5, torch.float32, "cpu", dims=dims)
        assert_mla(batch.planned().run_return_lse(*batch.arguments), batch.reference())


def test_requests_that_are_split(dtype: torch.dtype, device: str) -> None:
    batch = Batch([3000, 40, 0, 5001], 16, dtype, device)
    expected = batch.reference(logits_soft_cap=10.0)
    whole = batch.planned(size=0, logits_soft_cap=10.0)
    assert whole._planned.capacity.slots == 0
    split = batch.planned(size=64 << 20, logits_soft_cap=10.0)
    assert split._planned.capacity.slots > 2
    for wrapper in (whole, split):
        out, lse = wrapper.run_return_lse(*batch.arguments)
        assert_mla((out, lse), expected)
        assert not out[2].any()
        assert (lse[2] == -torch.inf).all()
    again = split.run_return_lse(*batch.arguments)
    assert torch.equal(again[0], split.run(*batch.arguments))


def test_a_window_that_leaves_chunks_empty(device: str) -> None:
    batch = Batch([5000, 40], 16, torch.float16, device)
    wrapper = batch.planned(size=64 << 20, window_left=100)
    assert wrapper._planned.capacity.slots > 0
    assert_mla(wrapper.run_return_lse(*batch.arguments), batch.reference(window_left=100))


def test_results_go_where_they_are_wanted(device: str) -> None:
    batch = Batch([54, 97], 16, torch.float16, device)
    wrapper = batch.planned()
    wide = torch.zeros(2, 16, 520, dtype=torch.float16, device=device)
    out, lse = wide[..., :512], torch.zeros(2, 16, device=device)
    result = wrapper.run(*batch.arguments, return_lse=True, out=out, lse=lse)
    assert result[0] is out
    assert result[1] is lse
    assert_mla((out, lse), batch.reference())
    assert not wide[..., 512:].any()
    assert wrapper.run(*batch.arguments, out=out) is out


def test_queries_of_any_strides(device: str) -> None:
    batch = Batch([54, 97], 16, torch.float16, device)
    wrapper, expected = batch.planned(), batch.reference()
    joined = torch.cat(batch.q, -1)
    caches = batch.arguments[2:]
    assert_mla(wrapper.run(joined[..., :512], joined[..., 512:], *caches), expected)
    gaps = [q.repeat_interleave(2, -1)[..., ::2] for q in batch.q]
    assert_mla(wrapper.run(*gaps, *caches), expected)


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("where", ["host", "device"])
def test_index_tensors(index_dtype: torch.dtype, where: str, device: str) -> None:
    batch = Batch([54, 97, 1], 16, torch.float16, device)
    place = "cpu" if where == "host" else device
    tables = [table.to(place, index_dtype) for table in batch.tables]
    wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(workspace(device))
    wrapper.plan(*tables, 16, 512, 16, SCALE)
    if where == "host":
        for table in tables:
            table.fill_(-7)  # the caller's again
    assert_mla(wrapper.run(*batch.arguments), batch.reference())


# ---------------------------------------------------------------- CUDA graphs

GRAPH_LENGTHS = [[1, 1, 1], [54, 97, 3], [7000, 1, 300], [40, 40, 40]]


def graph_wrapper(device: str, batch_size: int, pages: int) -> Any:
    buffers = [
        torch.zeros(n, dtype=torch.int32, device=device)
        for n in (batch_size + 1, pages, batch_size)
    ]
    wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(workspace(device), True, *buffers)
    return wrapper, buffers


@pytest.mark.parametrize("heads", [16, 40])
def test_plans_for_graphs_stay_in_place(heads: int, device: str) -> None:
    wrapper, buffers = graph_wrapper(device, 3, 1000)
    assert wrapper.is_cuda_graph_enabled
    first = None
    for kv_lens in GRAPH_LENGTHS:
        batch = Batch(kv_lens, heads, torch.float16, device)
        batch.plan(wrapper)
        plan = wrapper._planned
        place = (plan.words.data_ptr(), plan.capacity, wrapper._kv_indices.data_ptr())
        first = first or place
        assert place == first
        for buffer, table in zip(buffers, batch.tables, strict=True):
            assert torch.equal(buffer[: table.shape[0]], table)
        assert_mla(wrapper.run_return_lse(*batch.arguments), batch.reference())


@pytest.mark.gpu
def test_cuda_graph() -> None:
    wrapper, _ = graph_wrapper("cuda", 3, 1000)
    batches = [Batch(lens, 16, torch.float16, "cuda") for lens in GRAPH_LENGTHS]
    size = max(batch.arguments[2].shape[0] for batch in batches)
    inputs = [torch.zeros_like(q) for q in batches[0].q]
    inputs += [inputs[0].new_zeros(size, 16, dim) for dim in (512, 64)]
    batches[0].plan(wrapper)
    wrapper.run(*inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, lse = wrapper.run_return_lse(*inputs)
    for batch in batches:
        for to, value in zip(inputs, batch.arguments, strict=True):
            to[: value.shape[0]].copy_(value)
        batch.plan(wrapper)
        graph.replay()
        assert_mla((out, lse), batch.reference())


@pytest.mark.gpu
def test_run_neither_synchronizes_nor_allocates() -> None:
    batch = Batch([54, 5000], 16, torch.float16, "cuda")
    batch.tables = tuple(table.cpu() for table in batch.tables)
    wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(workspace("cuda"))
    out, lse = torch.empty_like(batch.q[0]), torch.empty(2, 16, device="cuda")
    with torch.cuda.device(0):
        torch.cuda.set_sync_debug_mode("error")
        try:
            batch.plan(wrapper)
            before = torch.cuda.memory_stats()["allocation.all.allocated"]
            wrapper.run(*batch.arguments, return_lse=True, out=out, lse=lse)
            assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert_mla((out, lse), batch.reference())


# ---------------------------------------------------------------- torch.compile and the like


def test_compiled_runs(device: str) -> None:
    batch = Batch([54, 97], 16, torch.float16, device)
    wrapper = batch.planned()

    def layer(q_nope: torch.Tensor, *rest: torch.Tensor) -> tuple[Any, ...]:
        return (
            wrapper.run(q_nope * 2, *rest, k_scale=0.5) + 1,
            *wrapper.run_return_lse(q_nope, *rest),
            wrapper.forward(q_nope, *rest, window_left=20, logits_soft_cap=3.0),
        )

    expected = layer(*batch.arguments)
    for backend, dynamic in (("aot_eager", False), ("aot_eager", True), ("inductor", False)):
        torch._dynamo.reset()
        compiled = torch.compile(layer, fullgraph=True, backend=backend, dynamic=dynamic)
        torch.testing.assert_close(compiled(*batch.arguments), expected)


def test_a_new_plan_under_a_compiled_run(device: str) -> None:
    batch = Batch([54, 97], 16, torch.float16, device)
    wrapper = batch.planned()
    torch._dynamo.reset()
    run = torch.compile(wrapper.run, fullgraph=True, backend="aot_eager")
    for kv_lens in ([54, 97], [3, 200], [700, 1]):
        batch = Batch(kv_lens, 16, torch.float16, device)
        batch.plan(wrapper)
        assert_mla(run(*batch.arguments), batch.reference())


def test_exported_runs(device: str) -> None:
    batch = Batch([54, 97], 16, torch.float16, device)
    wrapper = batch.planned()

    class Layer(torch.nn.Module):
        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = wrapper.run(*inputs)
            return out * 2

    program = torch.export.export(Layer(), batch.arguments)
    assert "flashinfer.mla_decode" in str(program.graph)
    torch.testing.assert_close(program.module()(*batch.arguments), Layer()(*batch.arguments))


def test_fake_tensors(device: str) -> None:
    batch = Batch([54, 97], 16, torch.float16, device)
    wrapper = batch.planned()
    true = wrapper.run_return_lse(*batch.arguments)
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True) as mode:
        fakes = [mode.from_tensor(value) for value in batch.arguments]
        got = wrapper.run_return_lse(*fakes)
        with pytest.raises(ValueError, match="q_pe has shape"):
            wrapper.run(fakes[0], fakes[1][:1], *fakes[2:])
    for fake, real in zip(got, true, strict=True):
        assert (fake.shape, fake.dtype, fake.device) == (real.shape, real.dtype, real.device)


# ---------------------------------------------------------------- wrong calls

H = torch.float16


def f(*shape: int, dtype: torch.dtype = H) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def i(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def call(**changes: Any) -> Callable[[], Any]:
    planned: dict[str, Any] = {
        "indptr": i(0, 2, 3), "indices": i(3, 0, 1), "last_page_len": i(1, 4), "num_qo_heads": 4,
        "head_dim_compressed_kv": 32, "page_size": 4, "sm_scale": 0.1,
    }  # fmt: skip
    running: dict[str, Any] = {
        "q_nope": f(2, 4, 32), "q_pe": f(2, 4, 8), "paged_ckv_cache": f(5, 4, 32),
        "paged_kpe_cache": f(5, 4, 8),
    }  # fmt: skip
    at_plan = {"data_type", "q_data_type", "pos_encoding_mode", *planned}
    for name, value in changes.items():
        (planned if name in at_plan else running)[name] = value

    def run() -> Any:
        wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(workspace("cpu", 1 << 16))
        wrapper.plan(**planned)
        return wrapper.run(**running)

    return run


def test_the_call_that_the_wrong_ones_come_from() -> None:
    assert not call()().any()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"num_qo_heads": 0}, ValueError, "num_qo_heads is 0, expected 1 or more"),
        ({"head_dim_compressed_kv": 520}, ValueError, "head_dim_compressed_kv is 520, expected a"),
        ({"head_dim_compressed_kv": 36}, ValueError, "head_dim_compressed_kv is 36, expected a"),
        ({"page_size": 0}, ValueError, "page_size is 0"),
        ({"sm_scale": None}, ValueError, "sm_scale is None, expected 1 / sqrt"),
        ({"pos_encoding_mode": "ALIBI"}, ValueError, "'ALIBI', expected 'ROPE_LLAMA' or 'NONE'"),
        ({"data_type": "float12"}, ValueError, "data_type is 'float12'"),
        ({"q_data_type": 3}, TypeError, "q_data_type is 3"),
        ({"indptr": i(0, 2)}, ValueError, "last_page_len has shape"),
        ({"last_page_len": i(1, 5)}, ValueError, r"last_page_len\[1\] is 5, expected 1..4"),
        ({"indices": i(0)}, ValueError, "indices has shape"),
        ({"q_nope": f(3, 4, 32)}, ValueError, r"q_nope has shape \[3, 4, 32\], expected 2 rows"),
        ({"q_nope": f(2, 5, 32)}, ValueError, "q_nope has 5 heads of 32 elements, expected 4"),
        ({"q_nope": f(2, 4, 32, dtype=torch.float64)}, TypeError, "q_nope has dtype torch.float64"),
        ({"q_pe": f(2, 3, 8)}, ValueError, r"q_pe has shape \[2, 3, 8\], expected \[2, 4\] tokens"),
        ({"q_pe": f(2, 4, 8, 1)}, ValueError, "q_pe has shape"),
        ({"q_pe": f(2, 4, 12)}, ValueError, "q_pe has 12 elements a head, expected a multiple"),
        ({"q_pe": f(2, 4, 8, dtype=torch.bfloat16)}, TypeError, "q_pe has dtype torch.bfloat16"),
        ({"paged_ckv_cache": f(5, 3, 32)}, ValueError, r"expected pages of 4 x 32 as planned"),
        ({"paged_ckv_cache": f(5, 4, 1, 32)}, ValueError, "paged_ckv_cache has shape"),
        (
            {"paged_ckv_cache": f(5, 4, 32, dtype=torch.float32)},
            TypeError,
            "paged_ckv_cache has dtype torch.float32, expected torch.float16 as q_nope has",
        ),
        ({"paged_kpe_cache": f(5, 4, 16)}, ValueError, r"expected \[5, 4, 8\]: pages as"),
        ({"paged_kpe_cache": f(4, 4, 8)}, ValueError, r"expected \[5, 4, 8\]: pages as"),
        ({"paged_kpe_cache": None}, TypeError, "paged_kpe_cache is a NoneType"),
        (
            {"paged_ckv_cache": f(5, 4, 64)[..., ::2]},
            ValueError,
            "ckv has stride 2 in its last dimension",
        ),
        ({"out": f(2, 4, 31)}, ValueError, "out has shape"),
        ({"out": f(2, 4, 32, dtype=torch.float32)}, TypeError, "out has dtype"),
        ({"lse": f(2, 4, dtype=torch.float32)}, ValueError, "lse is given, expected return_lse"),
        ({"lse": f(2, 4), "return_lse": True}, TypeError, "lse has dtype"),
        ({"lse": f(2, 3), "return_lse": True}, ValueError, "lse has shape"),
        (
            {"paged_ckv_cache": f(3, 4, 32), "paged_kpe_cache": f(3, 4, 8)},
            ValueError,
            r"kv_indices\[0\] is 3, expected a page in 0..2",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_wrong_calls(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(**changes)()


def test_a_run_before_its_plan() -> None:
    wrapper = flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(workspace("cpu", 64))
    with pytest.raises(RuntimeError, match=r"run of BatchDecodeMla.* came before plan"):
        wrapper.run(f(2, 4, 32), f(2, 4, 8), f(5, 4, 32), f(5, 4, 8))


def test_graphs_keep_their_batch_and_room() -> None:
    wrapper, _ = graph_wrapper("cpu", 2, 3)
    with pytest.raises(ValueError, match=r"indptr has shape \[2\], expected \[3\]"):
        wrapper.plan(i(0, 1), i(0), i(1), 4, 32, 4, 0.1)
    with pytest.raises(ValueError, match="paged_kv_indices_buffer has room for 3, expected 4"):
        wrapper.plan(i(0, 1, 4), i(0, 1, 2, 3), i(1, 1), 4, 32, 4, 0.1)
    with pytest.raises(ValueError, match="paged_kv_indptr_buffer is None"):
        flashinfer.BatchDecodeMlaWithPagedKVCacheWrapper(workspace("cpu", 64), True)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dims", "words"), [((256, 64), "256, expected 512"), ((512, 32), "32 el")]
)
def test_sizes_that_cuda_does_not_have(dims: tuple[int, int], words: str) -> None:
    batch = Batch([5], 2, H, "cuda", dims=dims)
    with pytest.raises(ValueError, match=words):
        batch.planned().run(*batch.arguments)


# ---------------------------------------------------------------- turned before, several tokens


class Prompts:
    """Requests of some query tokens over pages, and what attention over them is."""

    def __init__(self, qo_lens: list[int], kv_lens: list[int], dtype: torch.dtype, device: str):
        self.qo_lens, self.batch = qo_lens, Batch(kv_lens, 3, dtype, device)
        self.q = [randn(sum(qo_lens), 3, d, dtype=dtype, device=device) for d in self.batch.dims]
        self.qo_indptr = torch.tensor([0, *qo_lens]).cumsum(0).int().to(device)
        self.kv_len_arr = torch.tensor(kv_lens, dtype=torch.int32, device=device)

    @property
    def tables(self) -> tuple[torch.Tensor, ...]:
        return self.qo_indptr, *self.batch.tables[:2], self.kv_len_arr

    def plan(self, wrapper: flashinfer.BatchMLAPagedAttentionWrapper, causal: bool) -> None:
        page_size = self.batch.page_size
        wrapper.plan(*self.tables, 3, 512, 64, page_size, causal, SCALE, torch.float16, "float16")

    def run(self, wrapper: flashinfer.BatchMLAPagedAttentionWrapper, **options: Any) -> Any:
        return wrapper.run(*self.q, *self.batch.arguments[2:], **options)

    def reference(self, causal: bool) -> tuple[torch.Tensor, torch.Tensor]:
        outs, lses = [], []
        rows = self.batch.rows.double().cpu().split(self.batch.kv_lens)
        queries = torch.cat(self.q, -1).double().cpu().split(self.qo_lens)
        for q, keys in zip(queries, rows, strict=True):
            scores = torch.einsum("qhd,kd->hqk", q, keys) * SCALE
            if causal:
                sees = torch.ones(len(q), len(keys)).tril(len(keys) - len(q)).bool()
                scores = scores.masked_fill(~sees, -math.inf)
            lse = torch.logsumexp(scores, -1)
            weights = torch.nan_to_num(torch.exp(scores - lse[..., None]), nan=0.0)
            outs.append(torch.einsum("hqk,kd->qhd", weights, keys[:, :512]))
            lses.append(lse.T / math.log(2))
        return torch.cat(outs), torch.cat(lses)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("qo_lens", "kv_lens"), [([1, 1, 1], [54, 1, 300]), ([5, 0, 17, 1], [40, 9, 17, 33])]
)
def test_tokens_of_prompts(
    qo_lens: list[int], kv_lens: list[int], causal: bool, dtype: torch.dtype, device: str
) -> None:
    prompts = Prompts(qo_lens, kv_lens, dtype, device)
    out, lse = expected = prompts.reference(causal)
    wrapper = flashinfer.BatchMLAPagedAttentionWrapper(workspace(device), backend="fa2")
    prompts.plan(wrapper, causal)
    assert_mla(prompts.run(wrapper), expected)
    into = torch.empty_like(prompts.q[0]), torch.empty(lse.shape, device=device)
    got = prompts.run(wrapper, out=into[0], lse=into[1], return_lse=True)
    assert got[0] is into[0]
    assert got[1] is into[1]
    assert_mla(got, expected)
    got = prompts.run(wrapper, return_lse=True, return_lse_base_on_e=True)
    assert_mla(got, (out, lse * math.log(2)))


def test_graph_buffers_of_prompts(device: str) -> None:
    first = Prompts([1, 2], [300, 64], torch.float16, device)
    buffers = [torch.empty_like(table) for table in first.tables]
    buffers[2] = torch.empty(64, dtype=torch.int32, device=device)
    wrapper = flashinfer.BatchMLAPagedAttentionWrapper(workspace(device), True, *buffers)
    for prompts in (first, Prompts([2, 1], [17, 500], torch.float16, device)):
        prompts.plan(wrapper, True)
        assert_mla(prompts.run(wrapper, return_lse=True), prompts.reference(True))
        for buffer, table in zip(buffers, prompts.tables, strict=True):
            assert torch.equal(buffer[: table.shape[0]], table)
    with pytest.raises(ValueError, match=r"qo_indptr\[-1\] is 4, expected at most 3"):
        Prompts([2, 2], [17, 50], torch.float16, device).plan(wrapper, True)
    with pytest.raises(ValueError, match="qo_indptr is None, expected a tensor where CUDA graphs"):
        flashinfer.BatchMLAPagedAttentionWrapper(workspace(device), True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({3: [3]}, r"kv_len_arr\[0\] is 3, expected 5 to 32: of 5 query tokens with causal, and"),
        ({3: [33]}, r"kv_len_arr\[0\] is 33, expected 5 to 32"),
        ({3: [20, 20]}, r"kv_len_arr has shape \[2\], expected \[1\]"),
        ({0: [0, 3, 2]}, r"qo_indptr\[1:3\] is \(3, 2\), expected non-decreasing values"),
        ({6: 0}, "head_dim_kpe is 0, expected 1 or more"),
        ({7: 0}, "page_size is 0, expected 1 or more"),
        ({5: 520}, "head_dim_compressed_kv is 520, expected a multiple of 8 up to 512"),
    ],
)
def test_plans_of_prompts_that_are_refused(changes: dict[int, Any], words: str) -> None:
    prompts = Prompts([5], [20], torch.float16, "cpu")
    values: list[Any] = [*prompts.tables, 3, 512, 64, 16, True, SCALE]
    for place, value in changes.items():
        values[place] = torch.tensor(value) if isinstance(value, list) else value
    wrapper = flashinfer.BatchMLAPagedAttentionWrapper(workspace("cpu"))
    with pytest.raises(ValueError, match=words):
        wrapper.plan(*values)
    with pytest.raises(RuntimeError, match="run of BatchMLAPagedAttentionWrapper came before plan"):
        prompts.run(wrapper)
    prompts.plan(wrapper, True)
    q_nope, q_pe = prompts.q
    caches = prompts.batch.arguments[2:]
    with pytest.raises(ValueError, match="q_pe has 32 elements a head, expected 64 as planned"):
        wrapper.run(q_nope, q_pe[..., :32], *caches)
    with pytest.raises(ValueError, match=r"kpe_cache has shape .*: pages as ckv_cache has"):
        wrapper.run(q_nope, q_pe, caches[0], caches[1][:1])
