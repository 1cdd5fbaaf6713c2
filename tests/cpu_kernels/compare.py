"""How close a result has to be: one rounding to its dtype, plus what fp32 arithmetic may add."""

from __future__ import annotations

import torch

# Half a unit in the last place, relative; and half the smallest subnormal number.
HALF_ULP = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24}
HALF_TINY = {torch.float16: 2.0**-25, torch.bfloat16: 2.0**-134, torch.float32: 2.0**-150}
FLOATS = [torch.float16, torch.bfloat16, torch.float32]


def assert_rounded(
    result: torch.Tensor,
    exact: torch.Tensor,
    relative: float | torch.Tensor,
    absolute: float | torch.Tensor = 0.0,
) -> None:
    """Check ``result`` against the fp64 ``exact``.

    ``relative`` and ``absolute`` bound the error before the rounding to the result's dtype. NaN and
    values past the dtype's largest number must be NaN and inf in both.
    """
    dtype = result.dtype
    value = result.double()
    rounded = exact.to(dtype).double()
    special = ~torch.isfinite(rounded) | ~torch.isfinite(value)
    # At the edge of overflow the fp32 error may decide between inf and the largest number.
    edge = exact.abs() >= torch.finfo(dtype).max * (1 - relative)
    same = (
        torch.isnan(rounded) & torch.isnan(value) | (rounded == value) | edge & ~torch.isnan(value)
    )
    wrong = special & ~same
    assert not wrong.any(), (
        f"{int(wrong.sum())} special values, first {value[wrong][0]} for {exact[wrong][0]}"
    )
    bound = (HALF_ULP[dtype] + relative) * exact.abs() + HALF_TINY[dtype] + absolute
    error = torch.where(special, 0.0, (value - exact).abs())
    worst = torch.where(special, 0.0, error - bound)
    if worst.numel() and worst.max() > 0:
        at = int(worst.argmax())
        raise AssertionError(
            f"element {at}: {value.flatten()[at]!r}, exact {exact.flatten()[at]!r}; error "
            f"{error.flatten()[at]:.3e}, allowed {bound.flatten()[at]:.3e}"
        )
