from __future__ import annotations

import pytest
import torch
from emulated import Emulator


def packed(x: torch.Tensor, little_endian: bool) -> list[int]:
    bits = [int(b) for b in (x != 0).tolist()]
    bits += [0] * (-len(bits) % 8)
    order = range(8) if little_endian else range(7, -1, -1)
    return [sum(bits[i + j] << o for j, o in enumerate(order)) for i in range(0, len(bits), 8)]


def bools(n: int) -> torch.Tensor:
    """Bytes of which half are true, by any value that is not 0."""
    return torch.randint(1, 256, (n,), dtype=torch.uint8) * (torch.rand(n) < 0.5)


@pytest.mark.parametrize("little_endian", [True, False])
@pytest.mark.parametrize(("x_offset", "y_offset"), [(0, 0), (1, 0), (8, 0), (0, 1), (3, 1)])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 17, 63, 64, 65, 999, 100000])
def test_packbits(gpu: Emulator, n: int, x_offset: int, y_offset: int, little_endian: bool) -> None:
    x = bools(n)
    y = gpu.empty(((n + 7) // 8,), torch.uint8, "y", offset=y_offset)
    gpu(
        "packbits", n=n, x=gpu.put(x, "x", offset=x_offset), y=y, total_out=len(y),
        little_endian=int(little_endian),
    )  # fmt: skip
    assert y.tolist() == packed(x, little_endian)


@pytest.mark.parametrize("value", [1, 2, 127, 128, 255])
def test_any_value_but_zero_is_true(gpu: Emulator, value: int) -> None:
    x = torch.tensor([0, value, 0, value, value, 0, 0, value] * 4, dtype=torch.uint8)
    y = gpu.empty((4,), torch.uint8)
    gpu("packbits", n=32, x=gpu.put(x), y=y, total_out=4, little_endian=1)
    assert y.tolist() == packed(x, True)


@pytest.mark.parametrize("little_endian", [True, False])
@pytest.mark.parametrize(
    "lengths",
    [
        *[[8], [1], [0, 5], [3, 0, 0, 17, 8, 0], [64, 64, 64], [1] * 300, [0, 0, 9, 0]],
        [5000, 1, 0, 4096],
    ],
)
def test_segments(gpu: Emulator, lengths: list[int], little_endian: bool) -> None:
    x = bools(sum(lengths))
    in_indptr = torch.tensor([0, *lengths]).cumsum(0)
    out_indptr = torch.tensor([0, *[(n + 7) // 8 for n in lengths]]).cumsum(0)
    y = gpu.empty((int(out_indptr[-1]),), torch.uint8, "y")
    gpu(
        "packbits", n=len(x), num_segments=len(lengths), x=gpu.put(x, "x"), y=y,
        in_indptr=gpu.ints(in_indptr, "in_indptr"), out_indptr=gpu.ints(out_indptr, "out_indptr"),
        total_out=len(y), little_endian=int(little_endian),
    )  # fmt: skip
    parts = torch.split(x, lengths)
    expected = [byte for part in parts for byte in packed(part, little_endian)]
    assert y.tolist() == expected


def test_more_than_the_blocks_that_run_at_once(gpu: Emulator) -> None:
    gpu.library.fi_emulator_set_multiprocessors(1)
    x = bools(70000)
    y = gpu.empty((8750,), torch.uint8, "y")
    gpu("packbits", n=70000, x=gpu.put(x, "x"), y=y, total_out=8750, little_endian=1)
    assert y.tolist() == packed(x, True)
