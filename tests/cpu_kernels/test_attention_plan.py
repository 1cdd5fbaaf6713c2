"""The planner: every row meets every key once, within what the workspace holds."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from attention_case import ITEM, MERGE, PLAN_HEADER, Plan, as_int32, make_plan, starts
from capi import INVALID_ARGUMENT, Failed, Library
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def planner(library_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The planner is the same at every level."""
    return Library(library_path, tmp_path_factory.mktemp("planner"), None)


def tiles_of(plan: Plan) -> dict[tuple[int, int], list[dict[str, int]]]:
    """The items of each (request, first row), in the order of their keys."""
    tiles = defaultdict(list)
    for item in plan.items:
        tiles[item["request"], item["row_begin"]].append(item)
    return {key: sorted(items, key=lambda item: item["kv_begin"]) for key, items in tiles.items()}


def check_tiles(plan: Plan, qo_lens: list[int], kv_lens: list[int], group: int) -> None:
    """Every tile of rows is there, with all of its request's keys."""
    tiles = tiles_of(plan)
    assert tiles.keys() == {
        (b, row)
        for b, qo_len in enumerate(qo_lens)
        for row in range(0, qo_len * group, plan.tile_rows)
    }
    qo_indptr, bases = starts(qo_lens), starts(kv_lens)
    for (b, _), items in tiles.items():
        bounds = [item["kv_begin"] for item in items] + [items[-1]["kv_end"]]
        assert bounds[0] == 0
        assert bounds[-1] == kv_lens[b]
        assert [item["kv_end"] for item in items] == bounds[1:]
        for item in items:
            assert item["kv_begin"] < item["kv_end"] or kv_lens[b] == 0
            assert (item["qo_begin"], item["qo_len"]) == (qo_indptr[b], qo_lens[b])
            assert (item["kv_base"], item["kv_len"]) == (bases[b], kv_lens[b])


def check_slots(plan: Plan) -> None:
    """A split tile has one merge over consecutive slots of its own; any other tile has none."""
    merges = {(m["qo_begin"], m["row_begin"]): m for m in plan.merges}
    assert len(merges) == len(plan.merges)
    slots: list[int] = []
    for items in tiles_of(plan).values():
        if len(items) == 1:
            assert items[0]["slot"] == -1
            continue
        first = items[0]["slot"]
        assert [item["slot"] for item in items] == list(range(first, first + len(items)))
        slots += range(first, first + len(items))
        merge = merges.pop((items[0]["qo_begin"], items[0]["row_begin"]))
        assert merge["qo_len"] == items[0]["qo_len"]
        assert (merge["first_slot"], merge["num_slots"]) == (first, len(items))
    assert not merges
    assert sorted(slots) == list(range(plan.num_slots))


def check_order(plan: Plan) -> None:
    """The longest first; of one length, a later tile first."""
    keys = [
        (item["kv_begin"] - item["kv_end"], -item["request"], -item["row_begin"], item["kv_begin"])
        for item in plan.items
    ]
    assert keys == sorted(keys)


requests = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 3), st.integers(0, 300)),
        st.one_of(st.integers(0, 3), st.integers(0, 5000), st.just(40_000)),
    ),
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(
    requests=requests,
    kv_heads=st.sampled_from([1, 2, 8, 200]),
    group=st.integers(1, 9),
    tile_rows=st.sampled_from([0, 0, 1, 16, 64, 100]),
    max_slots=st.sampled_from([0, 1, 2, 7, 64, 10_000]),
)
def test_plan(
    planner: Library,
    requests: list[tuple[int, int]],
    kv_heads: int,
    group: int,
    tile_rows: int,
    max_slots: int,
) -> None:
    qo_lens, kv_lens = [q for q, _ in requests], [k for _, k in requests]
    heads = kv_heads * group, kv_heads

    def again(extra: int = 0) -> Plan:
        return make_plan(planner, qo_lens, kv_lens, heads, None, tile_rows, max_slots, extra=extra)

    plan = again()
    assert plan.tile_rows == tile_rows if tile_rows else plan.tile_rows >= 1
    assert plan.num_slots <= max_slots
    tiles = sum(len(range(0, q * group, plan.tile_rows)) for q in qo_lens)
    assert tiles <= len(plan.items) <= max(tiles, plan.split_target)
    check_tiles(plan, qo_lens, kv_lens, group)
    check_slots(plan)
    check_order(plan)
    assert torch.equal(again().buffer, plan.buffer)
    roomy = again(extra=3)
    assert (roomy.items, roomy.merges) == (plan.items, plan.merges)


@pytest.mark.parametrize(
    ("qo_lens", "group", "rows"),
    [
        ([1] * 9, 4, 16),
        ([1], 16, 16),
        ([1, 8], 8, 64),
        ([5] * 3, 4, 32),
        ([500], 1, 64),
        ([], 1, 16),
    ],
)
def test_tile_rows(planner: Library, qo_lens: list[int], group: int, rows: int) -> None:
    plan = make_plan(planner, qo_lens, [100] * len(qo_lens), (2 * group, 2))
    assert plan.tile_rows == rows


def test_one_long_request_is_split_evenly(planner: Library) -> None:
    plan = make_plan(planner, [1], [100_000], (8, 8), max_slots=1000)
    lengths = [item["kv_end"] - item["kv_begin"] for item in plan.items]
    assert len(lengths) == plan.split_target
    assert len({*lengths[:-1]}) == 1
    assert lengths[0] % 64 == 0
    assert 0 < lengths[-1] <= lengths[0]


def test_no_chunk_is_a_remainder(planner: Library) -> None:
    """Not 512, 512 and 76."""
    plan = make_plan(planner, [1], [1100], (1, 1), max_slots=1000)
    assert [item["kv_end"] - item["kv_begin"] for item in plan.items] == [384, 384, 332]


def test_short_chunks_are_not_cut(planner: Library) -> None:
    """A merge would cost more than the chunk."""
    assert len(make_plan(planner, [1], [512], (1, 1), max_slots=1000).items) == 1
    assert len(make_plan(planner, [1], [513], (1, 1), max_slots=1000).items) == 2


def test_enough_requests_are_not_split(planner: Library) -> None:
    count = 64
    plan = make_plan(planner, [1] * count, [5000] * count, (8, 8), max_slots=1000)
    assert len(plan.items) == count
    assert plan.num_slots == 0


def call(planner: Library, **changes: Any) -> None:
    values: dict[str, Any] = {
        "batch_size": 2,
        "num_qo_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 64,
        "qo_indptr": as_int32([0, 1, 2]),
        "kv_base": as_int32([0, 900]),
        "kv_len": as_int32([900, 900]),
        "max_slots": 10,
        "result": torch.zeros(5, dtype=torch.int64),
    }
    planner("attention_plan", **{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": -1}, "batch_size is -1"),
        ({"num_kv_heads": 0}, "4 query heads and 0 KV heads"),
        ({"num_kv_heads": 3}, "4 query heads and 3 KV heads"),
        ({"num_qo_heads": 0}, "0 query heads and 2 KV heads"),
        ({"result": None}, "result is NULL"),
        ({"max_slots": -1}, "max_slots or tile_rows negative"),
        ({"tile_rows": -1}, "max_slots or tile_rows negative"),
        ({"qo_indptr": as_int32([1, 1, 2])}, r"qo_indptr\[0\] is 1, expected 0"),
        ({"qo_indptr": as_int32([0, 3, 2])}, r"qo_indptr\[2\] is 2, expected 3 or more"),
        ({"kv_len": as_int32([9, -9])}, "request 1 has -9 keys"),
        ({"kv_base": as_int32([-4, 9])}, "request 0 has 900 keys from -4 on"),
        ({"qo_indptr": as_int32([0, 1, 2**31 - 1])}, "request 1 has 4294967292 rows"),
    ],
)
def test_refuses(planner: Library, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Failed, match=message) as caught:
        call(planner, **changes)
    assert caught.value.status == INVALID_ARGUMENT


@pytest.mark.parametrize(("short_items", "short_merges"), [(1, 0), (0, 1)])
def test_refuses_a_buffer_that_is_too_small(
    planner: Library, short_items: int, short_merges: int
) -> None:
    """And writes nothing."""
    plan = make_plan(planner, [1, 1], [900, 900], (4, 2), max_slots=10)
    items, merges = len(plan.items) - short_items, len(plan.merges) - short_merges
    size = PLAN_HEADER + len(ITEM) * items + len(MERGE) * merges
    buffer = torch.full((size,), 5, dtype=torch.int32)
    message = f"4 items and 2 merges do not fit into a plan for {items} and {merges}"
    with pytest.raises(Failed, match=message):
        call(planner, plan=buffer, item_capacity=items, merge_capacity=merges)
    assert (buffer == 5).all()


def test_later_tiles_come_first(planner: Library) -> None:
    """Under a causal mask they are the longest."""
    plan = make_plan(planner, [300], [300], (1, 1))
    rows = [item["row_begin"] for item in plan.items]
    assert rows == sorted(rows, reverse=True)
    assert all(a - b == plan.tile_rows for a, b in itertools.pairwise(rows))
