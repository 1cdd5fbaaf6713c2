from __future__ import annotations

from typing import Any

import pytest
import reference
import torch
from batches import Batch, Heads, assert_attention, randn, workspace

import flashinfer

HEADS = Heads(8, 2, 64)


class Levels:
    """Requests whose keys are those of a group of requests, level after level, then their own."""

    def __init__(self, device: str, sharing: list[list[int]], layout: str = "NHD") -> None:
        """`sharing` has for each level how many requests share a page table there."""
        self.qo_lens = [5, 1, 9, 3]
        lengths = [[70, 33, 20, 41][: len(groups)] for groups in sharing]
        # One batch for each level, whose requests are the groups; queries come from the last.
        self.batches = [
            Batch([1] * len(kv), kv, HEADS, torch.float16, device, page_size=4, layout=layout)
            for kv in lengths
        ]
        self.q = randn(sum(self.qo_lens), HEADS.qo, HEADS.dim, dtype=torch.float16, device=device)
        self.sharing = sharing
        self.device = device
        offset = 0
        caches, self.tables = [], []
        for batch, groups in zip(self.batches, sharing, strict=True):
            ends = torch.tensor(groups).cumsum(0).tolist()
            starts = [end - n for end, n in zip(ends, groups, strict=True)]
            tokens = [sum(self.qo_lens[a:b]) for a, b in zip(starts, ends, strict=True)]
            indptr, indices, last = batch.tables
            self.tables.append((batch.offsets(tokens), indptr, indices + offset, last))
            caches.append(batch.cache)
            offset += batch.cache.shape[0]
        self.cache = torch.cat(caches)

    def arrays(self) -> list[list[torch.Tensor]]:
        return [list(array) for array in zip(*self.tables, strict=True)]

    def reference(self, **options: Any) -> torch.Tensor:
        outs, begin = [], 0
        for request, qo_len in enumerate(self.qo_lens):
            keys, values = [], []
            for batch, groups in zip(self.batches, self.sharing, strict=True):
                group = int((torch.tensor(groups).cumsum(0) <= request).sum())
                start = sum(batch.kv_lens[:group])
                rows = slice(start, start + batch.kv_lens[group])
                keys.append(batch.k[rows])
                values.append(batch.v[rows])
            q = self.q[begin : begin + qo_len]
            outs.append(reference.attention(q, torch.cat(keys), torch.cat(values), **options)[0])
            begin += qo_len
        return torch.cat(outs)


LEVELS = [[[1, 1, 1, 1]], [[4], [1, 1, 1, 1]], [[4], [1, 3], [1, 1, 1, 1]]]


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sharing", LEVELS, ids=["1", "2", "3"])
def test_levels(sharing: list[list[int]], causal: bool, layout: str, device: str) -> None:
    levels = Levels(device, sharing, layout)
    wrapper = flashinfer.MultiLevelCascadeAttentionWrapper(len(sharing), workspace(device), layout)
    options = {"causal": causal, "sm_scale": 0.2, "logits_soft_cap": 6.0}
    wrapper.plan(*levels.arrays(), *HEADS, 4, **options)  # type: ignore[arg-type]
    expected = levels.reference(**options)
    assert_attention(wrapper.run(levels.q, levels.cache), (expected, expected), atol=1e-3)
    wrapper.reset_workspace_buffer(workspace(device, 0), [workspace(device, 0)] * len(sharing))
    wrapper.begin_forward(*levels.arrays(), *HEADS, 4, **options)  # type: ignore[arg-type]
    out = wrapper.forward(levels.q, levels.cache)
    wrapper.end_forward()
    assert_attention(out, (expected, expected), atol=1e-3)


def test_levels_for_graphs(device: str) -> None:
    def buffers(*sizes: int) -> list[torch.Tensor]:
        return [torch.zeros(n, dtype=torch.int32, device=device) for n in sizes]

    wrapper = flashinfer.MultiLevelCascadeAttentionWrapper(
        2, workspace(device), "NHD", True, buffers(2, 5), buffers(2, 5), buffers(100, 100),
        buffers(1, 4),
    )  # fmt: skip
    assert wrapper.is_cuda_graph_enabled
    for _ in range(2):
        levels = Levels(device, LEVELS[1])
        wrapper.plan(*levels.arrays(), *HEADS, 4, causal=True)
        expected = levels.reference(causal=True)
        assert_attention(wrapper.run(levels.q, levels.cache), (expected, expected), atol=1e-3)


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("qo_lens", [[1, 1, 1], [7, 2, 30]], ids=["decode", "prefill"])
def test_shared_prefix(qo_lens: list[int], layout: str, device: str) -> None:
    batch = Batch(qo_lens, [9, 40, 33], HEADS, torch.float16, device, layout=layout)
    k, v = (randn(300, HEADS.kv, HEADS.dim, dtype=torch.float16, device=device) for _ in range(2))

    def expect(**options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        outs, qo, kv = [], 0, 0
        for qo_len, kv_len in zip(qo_lens, batch.kv_lens, strict=True):
            keys = torch.cat([k, batch.k[kv : kv + kv_len]])
            values = torch.cat([v, batch.v[kv : kv + kv_len]])
            outs.append(reference.attention(batch.q[qo : qo + qo_len], keys, values, **options)[0])
            qo, kv = qo + qo_len, kv + kv_len
        return torch.cat(outs), torch.cat(outs)

    shared = (k, v) if layout == "NHD" else (k.transpose(0, 1), v.transpose(0, 1))
    if max(qo_lens) == 1:
        decode = flashinfer.BatchDecodeWithSharedPrefixPagedKVCacheWrapper(
            workspace(device, 100), layout
        )
        decode.reset_workspace_buffer(workspace(device), workspace(device))
        decode.begin_forward(*batch.tables, *HEADS, 16, data_type="float16")
        assert_attention(decode.forward(batch.q, *shared, batch.cache), expect(), atol=1e-3)
        decode.end_forward()
    prefill = flashinfer.BatchPrefillWithSharedPrefixPagedKVCacheWrapper(
        workspace(device, 100), layout
    )
    prefill.reset_workspace_buffer(workspace(device), workspace(device))
    prefill.begin_forward(batch.qo_indptr, *batch.tables, *HEADS, 16)
    for causal in (False, True):
        out = prefill.forward(batch.q, *shared, batch.cache, causal=causal, sm_scale=0.2)
        assert_attention(out, expect(causal=causal, sm_scale=0.2), atol=1e-3)
    prefill.end_forward()
