"""Keys of multi-head latent attention, put together on the CPU."""

from __future__ import annotations

import itertools

import pytest
import torch
from capi import INVALID_ARGUMENT, Failed, Guarded, Library


def concat(lib: Library, k: torch.Tensor, nope: torch.Tensor, rope: torch.Tensor) -> None:
    lib("concat_mla_k", element_size=k.element_size(), nnz=nope.shape[0], num_heads=nope.shape[1],
        nope_dim=nope.shape[2], rope_dim=rope.shape[2], k=k, k_stride_n=k.stride(0),
        k_stride_h=k.stride(1), k_nope=nope, nope_stride_n=nope.stride(0),
        nope_stride_h=nope.stride(1), k_rope=rope, rope_stride_n=rope.stride(0))  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(("nope_dim", "rope_dim"), [(128, 64), (7, 5), (16, 0), (0, 16)])
def test_concat(lib: Library, dtype: torch.dtype, nope_dim: int, rope_dim: int) -> None:
    target = Guarded((50, 3, nope_dim + rope_dim), dtype)
    nope = torch.randint(0, 99, (50, 3, nope_dim + 3))[..., :nope_dim].to(dtype)
    rope = torch.randint(0, 99, (50, 2, rope_dim))[:, 1:].to(dtype)
    right = torch.cat([nope, rope.expand(-1, 3, -1)], -1)
    concat(lib, target.view, nope, rope)
    assert torch.equal(target.view, right)
    assert target.intact()
    target.view.zero_()
    with lib.threads(lambda n, grain: list(itertools.pairwise([0, 7, 20, n]))):
        concat(lib, target.view, nope, rope)
    assert torch.equal(target.view, right)


def test_what_is_refused(lib: Library) -> None:
    with pytest.raises(Failed, match="concat_mla_k: element_size is 0") as error:
        lib("concat_mla_k", nnz=1, num_heads=1, nope_dim=1)
    assert error.value.status == INVALID_ARGUMENT


@pytest.mark.parametrize("sizes", [{"nnz": 0}, {"num_heads": 0}, {"nope_dim": 0}])
def test_empty(lib: Library, sizes: dict[str, int]) -> None:
    lib("concat_mla_k", **{"nnz": 3, "num_heads": 2, "nope_dim": 8, "element_size": 2, **sizes})
