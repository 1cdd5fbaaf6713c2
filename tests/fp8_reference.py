"""fp8 results against fp64 values: the nearest number, the largest for what is out of range."""

from __future__ import annotations

import torch

FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]
_FRACTION = {torch.float8_e4m3fn: 3, torch.float8_e5m2: 2}
_LEAST_EXPONENT = {torch.float8_e4m3fn: -6, torch.float8_e5m2: -14}


def assert_nearest(out: torch.Tensor, exact: torch.Tensor, relative: float = 4e-6) -> None:
    """``out`` is fp64 ``exact`` rounded once, after an error of at most ``relative``."""
    dtype = out.dtype
    most = torch.finfo(dtype).max
    value, exact = out.cpu().double(), exact.cpu()
    assert value.shape == exact.shape
    assert torch.equal(value.isnan(), exact.isnan()), "NaN: an element that was not written?"
    right = exact.clamp(-most, most)
    exponent = right.abs().clamp(min=1e-300).log2().floor().clamp(min=_LEAST_EXPONENT[dtype])
    half = 2.0 ** (exponent - _FRACTION[dtype] - 1)
    wrong = (value - right).abs() > half + relative * right.abs()
    assert not wrong.any(), f"{int(wrong.sum())} wrong: {value[wrong][:3]} for {exact[wrong][:3]}"


def every_rounding(dtype: torch.dtype) -> torch.Tensor:
    """fp32 numbers: all of the fp8, what lies between two and next to it, and what is out of range.

    A row ``[1, n]``, n a multiple of 4.
    """
    grid = torch.arange(128, dtype=torch.uint8).view(dtype).float()
    grid = grid[grid.isfinite()].sort().values
    points = torch.cat([grid, (grid[1:] + grid[:-1]) / 2])
    near = [points, torch.nextafter(points, torch.tensor(0.0))]
    near.append(torch.nextafter(points, torch.tensor(torch.inf)))
    most = torch.finfo(dtype).max
    far = torch.tensor([most * 1.03, most * 1.0625, most * 1.2, most * 4, 3e38, torch.inf, 1e-45])
    values = torch.cat([*near, far])
    values = torch.cat([values, -values, torch.tensor([torch.nan])])
    padding = -values.numel() % 4
    return torch.cat([values, torch.ones(padding)])[None]


def saturated(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Torch's own rounding, within the range of the fp8."""
    most = torch.finfo(dtype).max
    return x.clamp(-most, most).to(dtype)


def assert_same(out: torch.Tensor, right: torch.Tensor) -> None:
    """The same numbers; 0 has no sign here, and one NaN is as good as another."""
    a, b = out.cpu().float(), right.cpu().float()
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
