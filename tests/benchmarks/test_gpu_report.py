"""Medians, fractions and ratios of the GPU benchmarks, and the table."""

from __future__ import annotations

import json

import pytest

from benchmarks.gpu import report
from benchmarks.gpu.cases import Case, Target
from benchmarks.gpu.report import Ceilings, Result

CEILINGS = Ceilings(copy=4e12, matmul=8e14)
# 4 MB take 1 us at the copy's speed; 1.6 GFLOP take 2 us at the matmul's.
CASE = Case("g", "op", {"n": 3}, 4_000_000, 1_600_000_000, Target("limit", 0.5))


def sides(**seconds: list[float]) -> list[Result]:
    return [Result(side, values, how="graph") for side, values in seconds.items()]


def test_a_median_is_one_of_all_samples() -> None:
    assert Result("a", [3.0, 1.0, 9.0]).median == 3.0
    assert Result("a", [3.0, 1.0, 9.0, 5.0]).median == 4.0
    assert Result("a", []).median is None
    # What it had before it died says nothing.
    assert Result("a", [1.0], reason="died").median is None


def test_limit_is_the_slower_of_the_two() -> None:
    assert CEILINGS.limit_seconds(CASE) == (pytest.approx(2e-6), "tensor cores")
    memory = Case("g", "op", {}, 12_000_000, 1_600_000_000)
    assert CEILINGS.limit_seconds(memory) == (pytest.approx(3e-6), "memory")
    assert Ceilings(1, 5).best(Ceilings(2, 3)) == Ceilings(2, 5)


def test_rates_and_ratios() -> None:
    row = report.summarise(CASE, sides(flashinfer=[4e-6, 5e-6, 3e-6], b=[8e-6], c=[6e-6]), CEILINGS)
    ours, b, _ = row["sides"]
    assert ours["us"] == pytest.approx(4)
    assert (ours["us_min"], ours["us_max"]) == (pytest.approx(3), pytest.approx(5))
    assert ours["gbps"] == pytest.approx(1000)
    assert ours["tflops"] == pytest.approx(400)
    assert ours["of_copy"] == pytest.approx(0.25)
    assert ours["of_matmul"] == pytest.approx(0.5)
    assert ours["of_limit"] == pytest.approx(0.5)
    assert ours["met"] is True
    assert b["times_ours"] == pytest.approx(2)
    assert row["best_other"] == "c"
    assert row["speedup"] == pytest.approx(1.5)
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target("copy", 0.25), True), (Target("copy", 0.26), False),
        (Target("tflops", 400), True), (Target("tflops", 401), False),
        (Target("us", 4), True), (Target("us", 3.9), False),
        (Target("limit", 0.51), False),
    ],
)  # fmt: skip
def test_each_kind_of_target_looks_at_its_own_number(target: Target, met: bool) -> None:
    case = Case("g", "op", {}, CASE.bytes, CASE.flops, target)
    row = report.summarise(case, sides(flashinfer=[4.0000001e-6 - 1e-13]), CEILINGS)
    assert row["sides"][0]["met"] is met


def test_a_side_that_cannot_run_stays_in_the_table() -> None:
    results = [*sides(flashinfer=[4e-6]), Result("cudnn", [], reason="RuntimeError: no such")]
    row = report.summarise(CASE, results, CEILINGS)
    assert (row["best_other"], row["speedup"]) == (None, None)
    lines = report.table_lines(row, ">= 50% of limit")
    assert lines[0] == "g: op n=3; target >= 50% of limit"
    assert lines[1].split() == [
        "flashinfer", "4.0", "1000", "400.0", "25%", "50%", "50%", "1.00", "met",
    ]  # fmt: skip
    assert lines[2].split(maxsplit=1) == ["cudnn", "not measured: RuntimeError: no such"]
    assert len(report.header()) == len(lines[1].removesuffix("  met"))


def test_without_ours_the_others_are_still_shown() -> None:
    results = [Result("flashinfer", [], reason="crashed"), *sides(flex=[4e-6])]
    row = report.summarise(CASE, results, CEILINGS)
    assert row["speedup"] is None
    assert report.table_lines(row, "")[2].split()[-1] == "-"
    assert report.rows_of({"rows": [row]}) == (0, 1, 1)


def test_how_it_was_timed_is_told_where_it_was_no_graph() -> None:
    result = Result("flashinfer", [1e-4], how="events", note="no graph: RuntimeError: .item()")
    row = report.summarise(CASE, [result], CEILINGS)
    line = report.table_lines(row, "")[1]
    assert line.endswith("missed  (events: no graph: RuntimeError: .item())")
    assert report.rows_of({"rows": [row]}) == (0, 1, 0)
