from __future__ import annotations

import pytest
import reference
import torch

import flashinfer


@pytest.mark.parametrize("bitorder", ["big", "little"])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 64, 999, 5000])
def test_packbits(n: int, bitorder: str, device: str) -> None:
    x = torch.rand(n) < 0.4
    y = flashinfer.packbits(x.to(device), bitorder)
    assert y.dtype == torch.uint8
    assert y.tolist() == reference.packbits(x.tolist(), bitorder)


def test_default_is_numpys_order(device: str) -> None:
    x = torch.tensor([True, False, False, False, False, False, False, True, True])
    assert flashinfer.packbits(x.to(device)).tolist() == [0b10000001, 0b10000000]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32], ids=str)
def test_non_zero_is_true(dtype: torch.dtype, device: str) -> None:
    x = torch.tensor([0, 2, 0, 4, 128, 0, 0, 0, 3]).to(dtype)
    expected = reference.packbits(x.bool().tolist(), "little")
    assert flashinfer.packbits(x.to(device), "little").tolist() == expected


def test_gaps(device: str) -> None:
    x = (torch.rand(500) < 0.5).to(device)[::3]
    assert flashinfer.packbits(x).tolist() == reference.packbits(x.tolist(), "big")


@pytest.mark.parametrize("bitorder", ["big", "little"])
@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("lengths", [[], [0], [5], [8, 0, 3, 17, 1, 1000, 9]])
def test_segment_packbits(
    lengths: list[int], index: torch.dtype, bitorder: str, device: str
) -> None:
    x = torch.rand(sum(lengths)) < 0.5
    indptr = torch.tensor([0, *lengths]).cumsum(0).to(device, index)
    y, new_indptr = flashinfer.segment_packbits(x.to(device), indptr, bitorder)
    want: list[int] = []
    want_indptr = [0]
    for part in torch.split(x, lengths) if lengths else ():
        want += reference.packbits(part.tolist(), bitorder)
        want_indptr.append(len(want))
    assert y.tolist() == want
    assert new_indptr.dtype == index
    assert new_indptr.tolist() == want_indptr


def test_segments_may_leave_rows_out(device: str) -> None:
    x = torch.tensor([True] * 20, device=device)
    y, new_indptr = flashinfer.segment_packbits(x, torch.tensor([3, 5, 14], device=device))
    assert y.tolist() == [0b11000000, 0xFF, 0b10000000]
    assert new_indptr.tolist() == [0, 1, 3]
