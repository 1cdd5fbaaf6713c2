"""Attention against fp64, at every level: types, shapes, layouts, masks, encodings, splits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from attention_case import ITEM, PLAN_HEADER, Case, make_plan
from capi import INVALID_ARGUMENT, Failed, Library
from test_threads import cut_anywhere

# Absolute error of the output, a mean of normal numbers, and of the base-2 log-sum-exp. fp32 sums
# of fp32 products; a 16-bit result is rounded once more, at up to half a unit of 4.
OUT = {torch.float32: 5e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
LSE = 1e-5
FLOATS = [torch.float16, torch.bfloat16, torch.float32]
FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.fixture(autouse=True, scope="module")
def one_thread_for_torch() -> Iterator[None]:
    """The references are small: more threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check(lib: Library, case: Case, out_error: float = 0.0, lse_error: float = LSE) -> None:
    out, lse = case.run(lib)
    expected, expected_lse = case.expected()
    error = out_error or OUT[case.dtype]
    torch.testing.assert_close(out.double(), expected, rtol=error, atol=error)
    if case.return_lse:
        torch.testing.assert_close(lse.double(), expected_lse, rtol=1e-6, atol=lse_error)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dim", [8, 64, 72, 80, 128, 256])
@pytest.mark.parametrize(("qo_len", "mask"), [(1, "none"), (37, "causal")])
def test_types_and_sizes(
    lib: Library, dtype: torch.dtype, dim: int, qo_len: int, mask: str
) -> None:
    check(lib, Case([qo_len, qo_len], [150, 70], dim=dim, dtype=dtype, mask=mask))


@pytest.mark.parametrize("group", [1, 2, 3, 4, 5, 7, 8, 12, 16])
@pytest.mark.parametrize("qo_len", [1, 3])
def test_group_sizes(lib: Library, group: int, qo_len: int) -> None:
    """Every number of rows that shares a tile, to both sides of the one that copies it."""
    check(lib, Case([qo_len] * 2, [67, 5], heads=(3 * group, 3), mask="causal"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("qo_len", [1, 6])
def test_many_keys(lib: Library, dtype: torch.dtype, qo_len: int) -> None:
    """An early maximum and equal scores after it: errors of one direction would add up."""
    case = Case([qo_len], [2**17], heads=(1, 1), dim=8, dtype=dtype, sink=True)
    check(lib, case, out_error=max(3e-5, OUT[dtype]))


LAYOUTS = [
    ("ragged", 0),
    *((layout, n) for layout in ("paged NHD", "paged HND", "paged apart") for n in (1, 3, 16)),
]


@pytest.mark.parametrize(("layout", "page_size"), LAYOUTS)
@pytest.mark.parametrize("kv_dtype", [torch.bfloat16, *FP8])
def test_layouts(lib: Library, layout: str, page_size: int, kv_dtype: torch.dtype) -> None:
    case = Case(
        [1, 9],
        [130, 66],
        heads=(4, 2),
        dim=72,
        dtype=torch.bfloat16,
        kv_dtype=kv_dtype,
        layout=layout,
        page_size=page_size,
        mask="causal",
    )
    check(lib, case)


@pytest.mark.parametrize("kv_dtype", FP8)
@pytest.mark.parametrize("dtype", FLOATS)
def test_fp8_cache(lib: Library, kv_dtype: torch.dtype, dtype: torch.dtype) -> None:
    """Against the numbers that the cache holds, so nothing but fp32 arithmetic is in between."""
    for qo_len in (1, 20):
        check(lib, Case([qo_len], [90], dim=128, dtype=dtype, kv_dtype=kv_dtype, v_scale=0.5))


@pytest.mark.parametrize("kv_dtype", [*FP8, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 9])
def test_every_value_of_a_cache(lib: Library, kv_dtype: torch.dtype, rows: int) -> None:
    """One key: the output is its value, to the bit; through both ways of reading a tile."""
    codes = torch.arange(256, dtype=torch.uint8)
    if kv_dtype in FP8:
        values = codes.view(kv_dtype)
        dtype = torch.float32
    else:
        values, dtype = codes.to(torch.int16).mul(257).view(kv_dtype), kv_dtype
    case = Case([1], [1], heads=(rows, 1), dim=256, dtype=dtype, kv_dtype=kv_dtype)
    case.keys[0].zero_()
    _write(case.k, torch.zeros(256).to(kv_dtype))
    _write(case.v, values)
    out, lse = case.run(lib)
    expected = values.to(dtype).expand_as(out)
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
    assert not lse.any()


@pytest.mark.parametrize("kv_dtype", FP8)
@pytest.mark.parametrize("rows", [1, 16])
def test_every_key_of_an_fp8_cache(lib: Library, kv_dtype: torch.dtype, rows: int) -> None:
    """One key, one query component at a time: the log-sum-exp is the key's component."""
    values = torch.arange(256, dtype=torch.uint8).view(kv_dtype)
    values = torch.where(values.float().isfinite(), values.float(), 0.0).to(kv_dtype)
    tokens = 256 // rows
    case = Case([1] * tokens, [1] * tokens, (rows, 1), 256, torch.float32, kv_dtype, sm_scale=1.0)
    case.q.copy_(torch.eye(256).view(tokens, rows, 256))
    for base in case.bases:
        _write(case.k[base - 2 :], values)
    _, lse = case.run(lib)
    expected = values.double() / math.log(2)
    torch.testing.assert_close(lse.double().flatten(), expected, rtol=2e-7, atol=0)


def _write(cache: torch.Tensor, row: torch.Tensor) -> None:
    """Row 2 is where the first request's keys begin (attention_case)."""
    bits = torch.uint8 if row.element_size() == 1 else torch.int16
    cache.view(bits)[2, 0] = row.view(bits)


@pytest.mark.parametrize("mask", ["none", "causal", "custom"])
@pytest.mark.parametrize("window", [-1, 0, 20])
@pytest.mark.parametrize("encoding", ["none", "rope", "alibi"])
@pytest.mark.parametrize("cap", [0.0, 8.0])
def test_masks_and_encodings(
    lib: Library, mask: str, window: int, encoding: str, cap: float
) -> None:
    """Decode, append, prefill, more queries than keys, no key, one key, no query, in one batch."""
    case = Case(
        [1, 21, 70, 9, 2, 1, 0],
        [140, 133, 70, 5, 0, 1, 6],
        heads=(2, 1),
        layout="paged NHD",
        page_size=3,
        mask=mask,
        window=window,
        encoding=encoding,
        cap=cap,
        spread=3.0,
    )
    check(lib, case, lse_error=2e-5)


@pytest.mark.parametrize("mask", ["none", "causal", "custom"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("window", "encoding"), [(-1, "none"), (600, "rope"), (-1, "alibi")])
def test_split(lib: Library, mask: str, dtype: torch.dtype, window: int, encoding: str) -> None:
    """Partial states and their merge; with the window whole chunks have no key."""
    case = Case(
        [1, 5, 2],
        [1500, 2000, 1100],
        heads=(6, 2),
        dtype=dtype,
        mask=mask,
        window=window,
        encoding=encoding,
        layout="paged HND",
        v_scale=0.25,
        max_slots=500,
    )
    check(lib, case)
    assert case.plan.num_slots >= 6
    assert len(case.plan.merges) == 3
    assert all(item["slot"] >= 0 for item in case.plan.items)


def test_split_and_unsplit_tiles_in_one_plan(lib: Library) -> None:
    case = Case([3, 3, 0, 3], [3000, 40, 700, 0], max_slots=20, mask="causal")
    check(lib, case)
    slots = {item["slot"] for item in case.plan.items}
    assert -1 in slots
    assert slots > {0, 1, 2}


@pytest.mark.parametrize("tile_rows", [1, 5, 16, 100])
@pytest.mark.parametrize("max_slots", [0, 1000])
def test_tile_rows_of_an_earlier_plan(lib: Library, tile_rows: int, max_slots: int) -> None:
    """Any size, also above the rows that one pass takes."""
    case = Case([30, 1], [1100, 600], (9, 3), tile_rows=tile_rows, max_slots=max_slots)
    check(lib, case)
    assert case.plan.tile_rows == tile_rows


@pytest.mark.parametrize("heads", [1, 2, 6, 8, 12])
def test_default_alibi_slopes(lib: Library, heads: int) -> None:
    check(lib, Case([7], [40], heads=(heads, 1), encoding="alibi", mask="causal"))


def test_given_alibi_slopes(lib: Library) -> None:
    check(lib, Case([7, 1], [40, 9], heads=(6, 3), encoding="alibi", slopes=True))


@pytest.mark.parametrize("dim", [64, 80, 256])
@pytest.mark.parametrize("rope", [(1.0, 1e4), (4.0, 5e5)])
def test_rope_far_away(lib: Library, dim: int, rope: tuple[float, float]) -> None:
    for qo_len in (1, 30):
        case = Case([qo_len], [2500], (2, 1), dim, encoding="rope", rope=rope, mask="causal")
        check(lib, case)


def test_large_scores(lib: Library) -> None:
    """Hundreds apart: one key has all the weight; nothing overflows."""
    for qo_len in (1, 30):
        case = Case([qo_len], [100], sm_scale=1.0, spread=40.0)
        check(lib, case, out_error=3e-3, lse_error=1e-3)


@pytest.mark.parametrize("cap", [0.5, 30.0])
def test_soft_cap_of_large_scores(lib: Library, cap: float) -> None:
    for qo_len in (1, 30):
        check(lib, Case([qo_len], [100], cap=cap, sm_scale=1.0, spread=4.0), lse_error=2e-5)


@pytest.mark.parametrize("density", [0.0, 0.02])
def test_rows_without_keys(lib: Library, density: float) -> None:
    case = Case([30, 2], [90, 600], mask="custom", mask_density=density, max_slots=50)
    check(lib, case)
    empty = torch.cat([~mask.any(1) for mask in case.masks])
    assert empty.any()
    out, lse = case.out.view[: len(empty)], case.lse.view[: len(empty)]
    assert not out[empty].any()
    assert (lse[empty] == -math.inf).all()


@pytest.mark.parametrize("qo_len", [1, 20])
@pytest.mark.parametrize("max_slots", [0, 100])
def test_nan_comes_through(lib: Library, qo_len: int, max_slots: int) -> None:
    case = Case([qo_len], [1100], heads=(2, 2), max_slots=max_slots, cap=5.0)
    case.q[0, 1, 3] = math.nan
    out, lse = case.run(lib)
    assert out[0, 1].isnan().all()
    assert lse[0, 1].isnan()
    assert not out[:, 0].isnan().any()
    assert not out[1:].isnan().any()


def test_without_lse(lib: Library) -> None:
    case = Case([2], [9], return_lse=False)
    check(lib, case)
    check(lib, Case([2], [1200], return_lse=False, max_slots=9))


@pytest.mark.parametrize("max_slots", [0, 200])
def test_threads_do_not_change_a_bit(lib: Library, max_slots: int) -> None:
    case = Case([40, 1, 3], [300, 1300, 900], (8, 4), max_slots=max_slots, mask="causal")
    alone = [x.clone() for x in case.run(lib)]
    with lib.threads(cut_anywhere) as grains:
        for x in (case.out.view, case.lse.view):
            x.fill_(9.0)
        together = case.run(lib)
    assert len(grains) >= 1
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a, b)


def test_nothing_to_do(lib: Library) -> None:
    for case in (Case([], []), Case([0, 0], [5, 0])):
        before = case.out.view.clone()
        case.run(lib)
        assert torch.equal(case.out.view.nan_to_num(7.0), before.nan_to_num(7.0))


def arguments(case: Case, lib: Library) -> dict[str, Any]:
    plan = make_plan(lib, case.qo_lens, case.kv_lens, case.heads, case.bases)
    partial = torch.zeros(64)
    return case.arguments(plan, partial, partial)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q_dtype": torch.float8_e5m2}, "attention: dtype 4 is not fp16, bf16 or fp32"),
        ({"kv_dtype": torch.float16}, "kv_dtype is 0, expected q_dtype or an fp8 type"),
        ({"kv_dtype": 5}, "kv_dtype is 5"),
        ({"head_dim": 0}, "head_dim is 0, expected a multiple of 8 up to 256"),
        ({"head_dim": 68}, "head_dim is 68"),
        ({"head_dim": 264}, "head_dim is 264"),
        ({"num_kv_heads": 0}, "num_kv_heads is 0"),
        ({"num_qo_heads": 5}, "num_qo_heads is 5, expected a multiple of num_kv_heads"),
        ({"tile_rows": 0}, "tile_rows is 0"),
        ({"page_size": 0}, "page_size is 0"),
        ({"mask_mode": 3}, "mask_mode is 3"),
        ({"mask_mode": 2, "mask": None}, "mask or mask_indptr is NULL"),
        ({"mask_mode": 2, "mask_indptr": None}, "mask or mask_indptr is NULL"),
        ({"pos_encoding": -1}, "pos_encoding is -1"),
        ({"item_capacity": 1}, "the plan has 2 items and 0 merges, expected up to 1 and 0"),
    ],
)
def test_refuses(lib: Library, changes: dict[str, Any], message: str) -> None:
    case = Case([1, 1], [20, 30], layout="paged NHD", page_size=3, mask="custom")
    values = {**arguments(case, lib), **changes}
    with pytest.raises(Failed, match=message) as caught:
        lib("attention", **values)
    assert caught.value.status == INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request", -1),
        ("qo_begin", -1),
        ("qo_len", -1),
        ("row_begin", -1),
        ("kv_base", -1),
        ("kv_begin", -1),
        ("kv_begin", 21),
        ("kv_end", 21),
        ("kv_end", -1),
    ],
)
def test_refuses_items(lib: Library, field: str, value: int) -> None:
    case = Case([1], [20], layout="paged NHD", page_size=3)
    values = arguments(case, lib)
    values["plan"][PLAN_HEADER + ITEM.index(field)] = value
    with pytest.raises(Failed, match=f"attention: {field} of item 0 is {value}"):
        lib("attention", **values)


def test_refuses_slots_without_a_workspace(lib: Library) -> None:
    case = Case([1], [20])
    values = arguments(case, lib)
    values["plan"][PLAN_HEADER + ITEM.index("slot")] = 0
    with pytest.raises(Failed, match="partial_out or partial_lse is NULL, but item 0 writes"):
        lib("attention", **{**values, "partial_out": None})


def test_refuses_negative_merges(lib: Library) -> None:
    case = Case([1], [1200], max_slots=9)
    case.run(lib)
    first = PLAN_HEADER + len(ITEM) * case.plan.item_capacity
    case.plan.buffer[first] = -3
    partial = torch.zeros(10000)
    with pytest.raises(Failed, match="merge 0 of the plan has a negative number -3"):
        lib("attention", **case.arguments(case.plan, partial, partial))


def test_refuses_negative_pages(lib: Library) -> None:
    case = Case([1, 1], [20, 30], layout="paged NHD", page_size=3)
    assert case.indices is not None
    entry = case.bases[1] + 9
    case.indices[entry] = -2
    with pytest.raises(Failed, match=rf"kv_indices\[{entry}\] is -2, expected 0 or more"):
        case.run(lib)
