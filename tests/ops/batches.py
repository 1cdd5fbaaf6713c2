"""Batches for the attention tests: requests, their keys and values, and the caches they lie in."""

from __future__ import annotations

from typing import Any, NamedTuple

import reference
import torch

# fp32 sums over some thousand keys in another order than the reference's; in fp16 and bf16 the
# tolerance of one rounding, which reference.py has, is wider.
ATOL = 1e-5
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


class Heads(NamedTuple):
    qo: int
    kv: int
    dim: int


def randn(*shape: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    return torch.randn(shape).to(device, dtype)


def workspace(device: str, size: int = 8 << 20) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8, device=device)


class Batch:
    """Requests with their own queries, keys and values, the latter also in pages.

    `form` is how the cache comes: "one" tensor, a "tuple", or a tuple of "strided" slices.
    """

    def __init__(
        self,
        qo_lens: list[int],
        kv_lens: list[int],
        heads: Heads,
        dtype: torch.dtype,
        device: str,
        *,
        page_size: int = 16,
        layout: str = "NHD",
        form: str = "one",
        kv_dtype: torch.dtype | None = None,
    ) -> None:
        kv_dtype = kv_dtype or dtype
        self.heads, self.device, self.page_size, self.layout = heads, device, page_size, layout
        self.qo_lens, self.kv_lens = qo_lens, kv_lens
        self.q = randn(sum(qo_lens), heads.qo, heads.dim, dtype=dtype, device=device)
        shape = (sum(kv_lens), heads.kv, heads.dim)
        self.k = torch.randn(shape).to(device, dtype).to(kv_dtype)
        self.v = torch.randn(shape).to(device, dtype).to(kv_dtype)
        pages = [-(-length // page_size) for length in kv_lens]
        self.qo_indptr = self.offsets(qo_lens)
        self.ragged_indptr = self.offsets(kv_lens)
        self.kv_indptr = self.offsets(pages)
        # Three pages that nobody has, with numbers that would be seen.
        order = torch.randperm(sum(pages) + 3)
        self.kv_indices = order[: sum(pages)].to(device, torch.int32)
        last = [(length - 1) % page_size + 1 if length else 0 for length in kv_lens]
        self.last_page_len = torch.tensor(last, dtype=torch.int32, device=device)
        self.cache = self._fill(sum(pages) + 3, kv_dtype, form)

    def offsets(self, lengths: list[int]) -> torch.Tensor:
        indptr = torch.zeros(len(lengths) + 1, dtype=torch.int32)
        indptr[1:] = torch.tensor(lengths).cumsum(0)
        return indptr.to(self.device)

    def _fill(self, num_pages: int, dtype: torch.dtype, form: str) -> Any:
        heads = self.heads
        halves = []
        for rows in (self.k, self.v):
            # Slots that are not in use hold what would spoil a sum.
            pages = torch.full((num_pages, self.page_size, heads.kv, heads.dim), 99.0)
            begin = 0
            for b, length in enumerate(self.kv_lens):
                table = self.kv_indices[int(self.kv_indptr[b]) : int(self.kv_indptr[b + 1])]
                for place in range(0, length, self.page_size):
                    part = rows[begin + place : begin + min(place + self.page_size, length)]
                    pages[int(table[place // self.page_size]), : part.shape[0]] = part.float().cpu()
                begin += length
            if self.layout == "HND":
                pages = pages.transpose(1, 2)
            halves.append(pages.contiguous().to(self.device, dtype))
        if form == "one":
            return torch.stack([half.view(torch.uint8) for half in halves], 1).view(dtype)
        if form == "strided":
            # As a slice of wider rows, in every dimension but the last.
            wide = [torch.zeros([2 * n for n in half.shape], device=self.device) for half in halves]
            caches = [half.to(dtype) for half in wide]
            views = [c[::2, ::2, ::2, : heads.dim] for c in caches]
            for view, half in zip(views, halves, strict=True):
                view.copy_(half)
            return tuple(views)
        return tuple(halves)

    @property
    def tables(self) -> tuple[torch.Tensor, ...]:
        return self.kv_indptr, self.kv_indices, self.last_page_len

    @property
    def ragged(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.layout == "HND":
            return self.k.transpose(0, 1).contiguous(), self.v.transpose(0, 1).contiguous()
        return self.k, self.v

    def reference(
        self, masks: list[torch.Tensor] | None = None, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        outs, lses = [], []
        qo = kv = 0
        for b, (qo_len, kv_len) in enumerate(zip(self.qo_lens, self.kv_lens, strict=True)):
            out, lse = reference.attention(
                self.q[qo : qo + qo_len],
                self.k[kv : kv + kv_len].float(),
                self.v[kv : kv + kv_len].float(),
                mask=masks[b] if masks else None,
                **options,
            )
            outs.append(out)
            lses.append(lse)
            qo, kv = qo + qo_len, kv + kv_len
        return torch.cat(outs), torch.cat(lses)

    def masks(self) -> list[torch.Tensor]:
        """Random ones, which leave each query some key."""
        masks = []
        for qo_len, kv_len in zip(self.qo_lens, self.kv_lens, strict=True):
            mask = torch.rand(qo_len, kv_len) < 0.4
            mask[:, :1] = True
            masks.append(mask)
        return masks


def assert_attention(
    actual: tuple[torch.Tensor, torch.Tensor] | torch.Tensor,
    expected: tuple[torch.Tensor, torch.Tensor],
    *,
    atol: float = ATOL,
    rtol: float = 0.0,
) -> None:
    """Compares outputs and, where they are there, log-sum-exps."""
    if isinstance(actual, torch.Tensor):
        reference.assert_close(actual, expected[0], atol=atol, rtol=rtol)
        return
    out, lse = actual
    reference.assert_close(out, expected[0], atol=atol, rtol=rtol)
    assert lse.dtype == torch.float32
    # Scores come from products of fp16 or bf16 numbers, which fp32 sums hold to this.
    reference.assert_close(lse, expected[1], atol=max(atol, 1e-3 if lse.is_cuda else 2e-5))
