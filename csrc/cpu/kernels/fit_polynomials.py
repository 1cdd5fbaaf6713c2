"""Fits the polynomials of math.h and prints their coefficients and largest relative errors.

Each fit minimises the largest relative error over its interval: least squares at Chebyshev points,
reweighted towards the worst points until the error levels out (Lawson's iteration). The printed
error is measured with the coefficients rounded to fp32, the evaluation in fp64.

Example: python csrc/cpu/kernels/fit_polynomials.py
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.polynomial import chebyshev

GELU_PIVOT = 4.0  # a in u = (x - a) / (x + a)
GELU_LIMIT = 14.0  # Phi(-14) is below the smallest fp32 number


def fit(
    function: Callable[[float], float],
    low: float,
    high: float,
    degree: int,
) -> tuple[list[float], float]:
    """Return the monomial coefficients (lowest first) and the largest relative error."""
    points = 4000
    nodes = np.cos(np.pi * (np.arange(points) + 0.5) / points)
    xs = 0.5 * (high - low) * nodes + 0.5 * (high + low)
    values = np.array([function(x) for x in xs])
    basis = chebyshev.chebvander(nodes, degree)
    emphasis = np.ones(points)
    best: np.ndarray | None = None
    best_error = math.inf
    for _ in range(300):
        row = np.sqrt(emphasis) / values
        solution, *_ = np.linalg.lstsq(basis * row[:, None], values * row, rcond=None)
        error = np.abs((basis @ solution - values) / values)
        if error.max() < best_error:
            best, best_error = solution, error.max()
        emphasis *= error / error.max() + 1e-9
        emphasis /= emphasis.sum()
    assert best is not None
    series = chebyshev.Chebyshev(best, domain=[low, high])
    coefficients = series.convert(kind=np.polynomial.Polynomial).coef
    rounded = coefficients.astype(np.float32).astype(np.float64)
    measured = np.abs((np.polynomial.polynomial.polyval(xs, rounded) - values) / values).max()
    return [float(c) for c in rounded], float(measured)


def show(name: str, result: tuple[list[float], float]) -> None:
    """Print a fit as C++ initialisers."""
    coefficients, error = result
    print(f"{name}: largest relative error {error:.2e}")
    for c in coefficients:
        print(f"    {c:.9e}f,")


def mills(u: float) -> float:
    """Phi(-x) exp(x^2 / 2) (x + a) for u = (x - a) / (x + a)."""
    x = GELU_PIVOT * (1 + u) / (1 - u)
    return 0.5 * math.erfc(x / math.sqrt(2)) * math.exp(x * x / 2) * (x + GELU_PIVOT)


def main() -> None:
    """Print every fit of math.h, in its order."""
    half_ln2 = math.log(2) / 2 * 1.0001
    show("exp(r)", fit(math.exp, -half_ln2, half_ln2, 6))
    quarter = 0.125 * 1.0001

    def sin_turns(s: float) -> float:
        r = math.sqrt(s)
        return math.sin(2 * math.pi * r) / r if r else 2 * math.pi

    show("sin(2 pi r) / r in r^2", fit(sin_turns, 0.0, quarter**2, 3))
    show(
        "cos(2 pi r) in r^2", fit(lambda s: math.cos(2 * math.pi * math.sqrt(s)), 0, quarter**2, 4)
    )

    def log2_ratio(s: float) -> float:
        f = math.sqrt(s)
        return 2 * math.atanh(f) / math.log(2) / f if f else 2 / math.log(2)

    limit = (math.sqrt(2) - 1) / (math.sqrt(2) + 1) * 1.0001
    show("log2((1 + f) / (1 - f)) / f in f^2", fit(log2_ratio, 0.0, limit**2, 3))
    high = (GELU_LIMIT - GELU_PIVOT) / (GELU_LIMIT + GELU_PIVOT)
    show("Phi(-x) exp(x^2/2) (x + a) in u", fit(mills, -1.0, high, 9))


if __name__ == "__main__":
    main()
