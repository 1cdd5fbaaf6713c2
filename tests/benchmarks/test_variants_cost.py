"""The table of shared and whole costs, against sums worked out by hand."""

from __future__ import annotations

from benchmarks.variants_cost import Cost, table


def test_sums_of_the_table() -> None:
    costs = [
        Cost("cu130_torch211", "2.11.0", 100.0, 190.0, 10.0, 9.0),
        Cost("cu130_torch212", "2.12.1", 90.0, 180.0, 20.0, 19.0),
        Cost("cu130_torch213", "2.13.0", 110.0, 200.0, 15.0, 14.0),
    ]
    first, second, third = (line.split() for line in table(costs).splitlines()[1:])
    assert first[:4] == ["1", "110.0", "110.0", "0%"]
    assert second[:4] == ["2", "130.0", "220.0", "41%"]
    assert third[:4] == ["3", "145.0", "345.0", "58%"]
    assert ("within" in first, "OVER" in second, "within" in third) == (True, True, True)
