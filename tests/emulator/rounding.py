"""Comparing a result with an fp64 reference, by the precision of its dtype."""

from __future__ import annotations

import torch


def assert_rounded(
    actual: torch.Tensor, expected: torch.Tensor, *, fp32_error: float = 4e-6
) -> None:
    """``actual`` is ``expected`` (fp64) computed in fp32 and rounded once to its dtype.

    ``fp32_error`` bounds the error of the fp32 computation, relative to ``expected`` or, below 1,
    absolute.
    """
    assert expected.dtype == torch.float64
    assert actual.shape == expected.shape
    assert not actual.isnan().any(), "NaN: an element that was not written?"
    if not actual.numel():
        return
    bound = torch.finfo(actual.dtype)
    half_ulp = expected.abs().clamp(min=bound.tiny) * bound.eps / 2
    allowed = half_ulp + fp32_error * expected.abs().clamp(min=1.0)
    error = (actual.double() - expected).abs()
    worst = (error - allowed).argmax()
    assert bool((error <= allowed).all()), (
        f"element {int(worst)} is {float(actual.flatten()[worst])}, "
        f"expected {float(expected.flatten()[worst])}"
    )
