"""A tiny decode loop over a paged KV cache, on the CPU or, where there is one, on a GPU.

Three requests of different lengths share one cache: their prompts are appended and attended to at
once, then every step appends a token to each and decodes all of them together. The model is one
attention layer with random weights; what matters is the order of the calls.

    python examples/paged_decode.py
"""

from __future__ import annotations

import torch

import flashinfer

HEADS, KV_HEADS, HEAD_DIM, PAGE_SIZE = 8, 2, 64, 16
HIDDEN = HEADS * HEAD_DIM
PROMPTS, STEPS, PAGES = [5, 40, 17], 20, 16


class PageTable:
    """Which pages each request has. On the host: flashinfer plans there."""

    def __init__(self, requests: int, pages: int) -> None:
        self.pages: list[list[int]] = [[] for _ in range(requests)]
        self.lengths = [0] * requests
        self._free = list(range(pages))

    def grow(self, counts: list[int]) -> None:
        """Makes room for so many more tokens of each request."""
        for request, count in enumerate(counts):
            self.lengths[request] += count
            while len(self.pages[request]) * PAGE_SIZE < self.lengths[request]:
                self.pages[request].append(self._free.pop())

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """indptr, indices and the entries in use of the last page of each request."""
        last = [(length - 1) % PAGE_SIZE + 1 for length in self.lengths]
        indices = [page for pages in self.pages for page in pages]
        return offsets([len(pages) for pages in self.pages]), integers(indices), integers(last)


def integers(values: list[int]) -> torch.Tensor:
    """An index tensor, on the host."""
    return torch.tensor(values, dtype=torch.int32)


def offsets(lengths: list[int]) -> torch.Tensor:
    """Where each of the segments begins, and where the last one ends."""
    return integers([sum(lengths[:i]) for i in range(len(lengths) + 1)])


class Layer:
    """Queries, keys and values of hidden states, and the cache that they are appended to."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        width = (HEADS + 2 * KV_HEADS) * HEAD_DIM
        self.qkv = (torch.randn(HIDDEN, width) / HIDDEN**0.5).to(device, dtype)
        self.norm = torch.ones(HIDDEN, device=device, dtype=dtype)
        self.cache = torch.zeros(
            PAGES, 2, PAGE_SIZE, KV_HEADS, HEAD_DIM, device=device, dtype=dtype
        )

    def append(self, hidden: torch.Tensor, table: PageTable, counts: list[int]) -> torch.Tensor:
        """Writes the keys and values of new tokens to the cache; returns their queries."""
        rows = (flashinfer.rmsnorm(hidden, self.norm) @ self.qkv).view(
            hidden.shape[0], -1, HEAD_DIM
        )
        q, k, v = rows.split([HEADS, KV_HEADS, KV_HEADS], dim=1)
        device = hidden.device
        batch, positions = flashinfer.get_batch_indices_positions(
            offsets(counts).to(device), integers(table.lengths).to(device), hidden.shape[0]
        )
        q, k = flashinfer.apply_rope_pos_ids(q, k, positions)
        indptr, indices, last = (tensor.to(device) for tensor in table.tensors())
        flashinfer.append_paged_kv_cache(k, v, batch, positions, self.cache, indices, indptr, last)
        return q


def main() -> None:
    """Runs prompts and steps, and compares the last step with plain torch."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32
    layer, table = Layer(device, dtype), PageTable(len(PROMPTS), PAGES)
    workspace = torch.empty(16 << 20, dtype=torch.uint8, device=device)
    heads = (HEADS, KV_HEADS, HEAD_DIM, PAGE_SIZE)

    # Prompts: all tokens of all requests at once.
    hidden = torch.randn(sum(PROMPTS), HIDDEN).to(device, dtype)
    table.grow(PROMPTS)
    q = layer.append(hidden, table, PROMPTS)
    prefill = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace)
    prefill.plan(offsets(PROMPTS), *table.tensors(), *heads, causal=True)
    out = prefill.run(q, layer.cache)
    hidden = out.reshape(-1, HIDDEN)[offsets(PROMPTS)[1:].to(device, torch.int64) - 1]

    # Steps: one token of each request. A model plans once a step, and runs in every layer.
    decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace)
    ones = [1] * len(PROMPTS)
    for _ in range(STEPS):
        table.grow(ones)
        q = layer.append(hidden, table, ones)
        decode.plan(*table.tensors(), *heads)
        out = decode.run(q, layer.cache)
        hidden = out.reshape(-1, HIDDEN)

    for request, length in enumerate(table.lengths):
        rows = layer.cache[table.pages[request]].transpose(0, 1).flatten(1, 2)[:, :length]
        k, v = rows.repeat_interleave(HEADS // KV_HEADS, dim=2).double()
        scores = torch.einsum("hd,khd->hk", q[request].double(), k) / HEAD_DIM**0.5
        expected = torch.einsum("hk,khd->hd", scores.softmax(-1), v)
        torch.testing.assert_close(out[request].double(), expected, atol=2e-3, rtol=2e-3)
        print(f"request {request}: {length} tokens in {len(table.pages[request])} pages")
    print(f"{STEPS} steps on {device} agree with torch")


if __name__ == "__main__":
    main()
