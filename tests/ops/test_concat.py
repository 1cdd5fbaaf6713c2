"""Keys of multi-head latent attention, put together, against torch's concatenation."""

from __future__ import annotations

import pytest
import reference
import torch

import flashinfer


@pytest.mark.parametrize(
    "of",
    [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64, torch.int8, torch.int64],
    ids=str,
)
@pytest.mark.parametrize(
    ("tokens", "heads", "nope_dim", "rope_dim"),
    [(1, 1, 1, 1), (70, 128, 128, 64), (9, 3, 7, 5), (0, 4, 8, 8), (5, 2, 0, 8), (5, 2, 8, 0)],
)
def test_concat_mla_k(
    tokens: int, heads: int, nope_dim: int, rope_dim: int, of: torch.dtype, device: str
) -> None:
    nope = (torch.randn(tokens, heads, nope_dim) * 9).to(device, of)
    rope = (torch.randn(tokens, 1, rope_dim) * 9).to(device, of)
    k = torch.empty(tokens, heads, nope_dim + rope_dim, device=device).to(of)
    flashinfer.concat_mla_k(k, nope, rope)
    right = torch.cat([nope, rope.expand(-1, heads, -1)], -1)
    assert torch.equal(k.double(), right.double())


@pytest.mark.parametrize("strides", reference.STRIDES)
@pytest.mark.parametrize("k_strides", [*reference.STRIDES, "heads first"])
def test_concat_mla_k_of_strides(strides: str, k_strides: str, device: str) -> None:
    nope = reference.rows((19, 3, 16), torch.float16, device, strides)
    rope = reference.rows((19, 2, 8), torch.float16, device, strides)[:, 1:]
    if k_strides == "heads first":
        k = reference.rows((3, 19, 24), torch.float16, device).transpose(0, 1)
    else:
        k = reference.rows((19, 3, 24), torch.float16, device, k_strides)
    flashinfer.concat_mla_k(k, nope, rope)
    assert torch.equal(k, torch.cat([nope, rope.expand(-1, 3, -1)], -1))


def test_concat_mla_k_writes_nothing_beside_its_rows(device: str) -> None:
    wide = torch.full((9, 3, 40), 7.0, dtype=torch.bfloat16, device=device)
    nope, rope = torch.zeros_like(wide[..., :16]), torch.zeros_like(wide[:, :1, :8])
    flashinfer.concat_mla_k(wide[..., 8:32], nope, rope)
    assert (wide[..., :8] == 7).all()
    assert (wide[..., 32:] == 7).all()
    assert not wide[..., 8:32].any()
