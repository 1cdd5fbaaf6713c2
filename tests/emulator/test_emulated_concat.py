"""Keys of multi-head latent attention, put together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from emulated import INVALID_ARGUMENT, Emulator, Failed


def concat(gpu: Emulator, k: torch.Tensor, nope: torch.Tensor, rope: torch.Tensor) -> None:
    gpu(
        "concat_mla_k", element_size=k.element_size(), nnz=nope.shape[0], num_heads=nope.shape[1],
        nope_dim=nope.shape[2], rope_dim=rope.shape[2], k=k, k_stride_n=k.stride(0),
        k_stride_h=k.stride(1), k_nope=nope, nope_stride_n=nope.stride(0),
        nope_stride_h=nope.stride(1), k_rope=rope, rope_stride_n=rope.stride(0),
    )  # fmt: skip


def bytes_of(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    count = torch.Size(shape).numel() * dtype.itemsize
    return torch.randint(0, 256, (count,), dtype=torch.uint8).view(dtype).view(shape)


def check(k: torch.Tensor, nope: torch.Tensor, rope: torch.Tensor) -> None:
    right = torch.cat([nope, rope.expand(-1, nope.shape[1], -1)], -1)
    assert torch.equal(k.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8))


DTYPES = [torch.bfloat16, torch.float8_e4m3fn, torch.float32, torch.float64]


# One token and many more than blocks that run at once; DeepSeek's heads; sizes of 16, 4, 2 bytes
# and 1; a part that is empty.
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("tokens", "heads", "nope_dim", "rope_dim"),
    [(1, 1, 1, 1), (7, 128, 128, 64), (400, 3, 16, 8), (5, 2, 6, 10), (9, 3, 7, 5), (3, 2, 16, 0),
     (3, 2, 0, 16)],
)  # fmt: skip
def test_concat(
    gpu: Emulator, dtype: torch.dtype, tokens: int, heads: int, nope_dim: int, rope_dim: int
) -> None:
    gpu.library.fi_emulator_set_multiprocessors(1)
    nope = bytes_of(tokens, heads, nope_dim, dtype=dtype)
    rope = bytes_of(tokens, 1, rope_dim, dtype=dtype)
    k = gpu.empty((tokens, heads, nope_dim + rope_dim), dtype, "k")
    concat(gpu, k, gpu.put(nope, "k_nope"), gpu.put(rope, "k_rope"))
    check(k, nope, rope)


@pytest.mark.parametrize(
    "layout",
    [
        {"k": ((800, 200, 1), 0)},  # heads and rows apart
        {"k": ((192, 1920, 1), 0)},  # heads outside
        {"nope": ((387, 129, 1), 0)},  # odd: no vectors
        {"rope": ((66, 0, 1), 0)},
        {"k": ((576, 192, 1), 1)},
        {"rope": ((64, 0, 1), 3)},
    ],
)
def test_rows_apart_and_unaligned(gpu: Emulator, layout: dict[str, Any]) -> None:
    nope, rope = bytes_of(9, 3, 128, dtype=torch.float16), bytes_of(9, 1, 64, dtype=torch.float16)

    def placed(name: str) -> dict[str, Any]:
        strides, offset = layout.get(name, (None, 0))
        return {"strides": strides, "offset": offset}

    k = gpu.empty((9, 3, 192), torch.float16, "k", **placed("k"))
    concat(
        gpu, k, gpu.put(nope, "k_nope", **placed("nope")), gpu.put(rope, "rope", **placed("rope"))
    )
    check(k, nope, rope)


def test_what_is_refused(gpu: Emulator) -> None:
    with pytest.raises(Failed, match="concat_mla_k: element_size must be positive") as error:
        gpu("concat_mla_k", nnz=1, num_heads=1, nope_dim=1, rope_dim=1)
    assert error.value.status == INVALID_ARGUMENT
    with pytest.raises(Failed, match="concat_mla_k: num_heads"):
        gpu("concat_mla_k", element_size=1, nnz=1, num_heads=2**24, nope_dim=4096, rope_dim=64)
