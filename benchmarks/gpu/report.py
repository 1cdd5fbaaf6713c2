"""From seconds to the table: medians, rates, fractions of the ceilings, ratios between sides."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.cases import Case

__all__ = ["OURS", "Ceilings", "Result", "header", "rows_of", "summarise", "table_lines"]

OURS = "flashinfer"


@dataclass(frozen=True)
class Ceilings:
    """Bytes and FLOPs a second that torch's copy and matmul reached in this run."""

    copy: float
    matmul: float

    def limit_seconds(self, case: Case) -> tuple[float, str]:
        """The least time that a case can take, and what it waits for."""
        memory, math = case.bytes / self.copy, case.flops / self.matmul
        return (memory, "memory") if memory >= math else (math, "tensor cores")

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"copy_gbps": self.copy / 1e9, "matmul_tflops": self.matmul / 1e12}

    def best(self, other: Ceilings) -> Ceilings:
        """The higher of each: clocks may be lower at one end of a run."""
        return Ceilings(max(self.copy, other.copy), max(self.matmul, other.matmul))


@dataclass
class Result:
    """One side of a case.

    Attributes:
        side: who.
        seconds: a sample each round.
        how, note, error: see ``worker.py``.
        reason: why it has no samples.
        wrong: its result was not right.
    """

    side: str
    seconds: list[float]
    how: str = ""
    note: str = ""
    error: float | None = None
    reason: str = ""
    wrong: bool = False

    @property
    def median(self) -> float | None:
        """Seconds; None where it did not run to the end."""
        return statistics.median(self.seconds) if self.seconds and not self.reason else None


def summarise(case: Case, results: Sequence[Result], ceilings: Ceilings) -> dict[str, Any]:
    """One case with all its sides, for JSON."""
    limit, waits_for = ceilings.limit_seconds(case)
    ours = next((result.median for result in results if result.side == OURS), None)
    sides = [_side(case, result, ceilings, limit, ours) for result in results]
    others = [
        (side["us"], side["side"])
        for side in sides
        if side["side"] != OURS and side["us"] is not None
    ]
    return {
        **case.as_dict(),
        "limit_us": limit * 1e6,
        "limited_by": waits_for,
        "sides": sides,
        "best_other": min(others)[1] if others else None,
        # Above 1: this wheel is faster than the best of the others.
        "speedup": min(others)[0] / (ours * 1e6) if others and ours else None,
    }


def _side(
    case: Case, result: Result, ceilings: Ceilings, limit: float, ours: float | None
) -> dict[str, Any]:
    median = result.median
    row: dict[str, Any] = {
        "side": result.side,
        "us": None,
        "how": result.how,
        "note": result.note,
        "error": result.error,
        "reason": result.reason,
        "wrong": result.wrong,
    }
    if median is None:
        return row
    bandwidth, rate = case.bytes / median, case.flops / median
    row |= {
        "us": median * 1e6,
        "us_min": min(result.seconds) * 1e6,
        "us_max": max(result.seconds) * 1e6,
        "samples": len(result.seconds),
        "gbps": bandwidth / 1e9,
        "tflops": rate / 1e12,
        "of_copy": bandwidth / ceilings.copy,
        "of_matmul": rate / ceilings.matmul,
        "of_limit": limit / median,
        "times_ours": median / ours if ours else None,
    }
    if case.target:
        reached = {
            "copy": row["of_copy"],
            "limit": row["of_limit"],
            "tflops": row["tflops"],
            "us": row["us"],
        }[case.target.kind]
        row["met"] = case.target.met(reached)
    return row


_COLUMNS = (
    ("side", 14), ("us", 10), ("GB/s", 7), ("TFLOP/s", 8), ("of copy", 8), ("of matmul", 10),
    ("of limit", 9), ("x ours", 7),
)  # fmt: skip


def header() -> str:
    """The heading of the table's columns."""
    first, *rest = _COLUMNS
    return f"  {first[0]:<{first[1]}}" + "".join(f"{name:>{width}}" for name, width in rest)


def table_lines(row: Mapping[str, Any], target: str) -> list[str]:
    """A case and its sides as lines of the table."""
    sizes = " ".join(f"{name}={value}" for name, value in row["shape"].items())
    title = f"{row['group']}: {row['op']} {sizes}"
    if target:
        title += f"; target {target}"
    return [title, *(_line(side) for side in row["sides"])]


def _line(side: Mapping[str, Any]) -> str:
    width = _COLUMNS[0][1]
    if side["us"] is None:
        return f"  {side['side']:<{width}}not measured: {side['reason']}"
    values = (
        f"{side['us']:.1f}",
        f"{side['gbps']:.0f}",
        f"{side['tflops']:.1f}" if side["tflops"] else "-",
        f"{side['of_copy']:.0%}",
        f"{side['of_matmul']:.0%}" if side["tflops"] else "-",
        f"{side['of_limit']:.0%}",
        f"{side['times_ours']:.2f}" if side["times_ours"] else "-",
    )
    line = f"  {side['side']:<{width}}" + "".join(
        f"{value:>{width}}" for value, (_, width) in zip(values, _COLUMNS[1:], strict=True)
    )
    if side["side"] == OURS and "met" in side:
        line += "  met" if side["met"] else "  missed"
    if side["how"] != "graph":
        line += f"  ({side['how']}{': ' + side['note'] if side['note'] else ''})"
    return line


def rows_of(result: Mapping[str, Any]) -> tuple[int, int, int]:
    """How many targets were met, how many there are, and how many cases this wheel failed."""
    met = wanted = failed = 0
    for row in result["rows"]:
        ours = next(side for side in row["sides"] if side["side"] == OURS)
        failed += ours["us"] is None
        if row["target"]:
            wanted += 1
            met += bool(ours.get("met"))
    return met, wanted, failed
