"""Multi-head latent attention against fp64, at every level: types, heads, caches, splits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from attention_case import ITEM, PLAN_HEADER
from capi import INVALID_ARGUMENT, Failed, Library
from mla_case import Case
from test_threads import cut_anywhere

# Absolute error of the output, a mean of normal numbers, and of the base-2 log-sum-exp, as for
# attention.
OUT = {torch.float32: 5e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
LSE = 1e-5
FLOATS = [torch.float16, torch.bfloat16, torch.float32]


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
@pytest.mark.parametrize("heads", [1, 2, 3, 4, 5, 16, 65, 128])
def test_types_and_heads(lib: Library, dtype: torch.dtype, heads: int) -> None:
    """To both sides of what reads a tile without copying it, and of what goes through together."""
    check(lib, Case([70, 5], heads=heads, dtype=dtype))


@pytest.mark.parametrize("dims", [(256, 32), (512, 128), (8, 8), (72, 24), (504, 64)])
@pytest.mark.parametrize("heads", [2, 12])
@pytest.mark.parametrize("encoding", ["none", "rope"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sizes(
    lib: Library, dims: tuple[int, int], heads: int, encoding: str, dtype: torch.dtype
) -> None:
    """Of bf16 with and without a whole number of vectors, and of keys with an odd number."""
    check(lib, Case([67, 9], heads, dims, dtype, encoding=encoding))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [2, 6])
def test_many_keys(lib: Library, dtype: torch.dtype, heads: int) -> None:
    """As of attention; probabilities in bf16 are off by as much for all keys that are equal."""
    case = Case([2**17], heads, (32, 8), dtype, encoding="none", sink=True)
    check(lib, case, out_error=max(3e-5, OUT[dtype]))


@pytest.mark.parametrize("page_size", [1, 3, 16, 64])
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("heads", [3, 20])
def test_caches(lib: Library, page_size: int, together: bool, heads: int) -> None:
    case = Case([130, 66, 1], heads, dtype=torch.bfloat16, page_size=page_size, together=together)
    check(lib, case)


@pytest.mark.parametrize("window", [-1, 0, 20, 2**31 - 1])
@pytest.mark.parametrize("encoding", ["none", "rope"])
@pytest.mark.parametrize("cap", [0.0, 8.0])
@pytest.mark.parametrize("heads", [2, 17])
def test_options(lib: Library, window: int, encoding: str, cap: float, heads: int) -> None:
    """Requests of no key, one key, and more than a tile, in one batch."""
    case = Case(
        [140, 0, 1, 64, 65],
        heads,
        page_size=3,
        window=window,
        encoding=encoding,
        cap=cap,
        v_scale=0.25,
        spread=3.0,
    )
    check(lib, case, lse_error=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("window", "heads"), [(-1, 16), (600, 16), (-1, 2), (-1, 128)])
def test_split(lib: Library, dtype: torch.dtype, window: int, heads: int) -> None:
    """Partial states and their merge; with the window whole chunks have no key."""
    lens = [1500, 40, 0, 2000]
    case = Case(lens, heads, dtype=dtype, window=window, max_slots=500, v_scale=0.5)
    check(lib, case)
    assert case.plan.num_slots >= 6
    assert {item["slot"] for item in case.plan.items} > {-1, 0, 1}
    whole = Case(lens, heads, dtype=dtype, window=window, v_scale=0.5)
    check(lib, whole)
    assert whole.plan.num_slots == 0
    error = 2 * OUT[dtype]
    torch.testing.assert_close(case.out.view, whole.out.view, rtol=error, atol=error)


@pytest.mark.parametrize("tile_rows", [1, 5, 16, 100])
def test_tile_rows_of_an_earlier_plan(lib: Library, tile_rows: int) -> None:
    case = Case([1100, 60], 70, dims=(64, 16), tile_rows=tile_rows, max_slots=1000)
    check(lib, case)
    assert case.plan.tile_rows == tile_rows


@pytest.mark.parametrize("rope", [(1.0, 1e4), (4.0, 5e5), (2.0**-10, 1e4)])
@pytest.mark.parametrize("heads", [2, 16])
def test_rope_far_away(lib: Library, rope: tuple[float, float], heads: int) -> None:
    """The last case has the angles of position 2.5 million."""
    check(lib, Case([2500], heads, dims=(64, 64), rope=rope))


def test_large_scores(lib: Library) -> None:
    """Hundreds apart: one key has all the weight; nothing overflows."""
    for heads in (2, 16):
        case = Case([100], heads, sm_scale=1.0, spread=40.0)
        check(lib, case, out_error=3e-3, lse_error=2e-3)


def test_scale_may_be_negative(lib: Library) -> None:
    check(lib, Case([100], sm_scale=-0.05))


@pytest.mark.parametrize("heads", [2, 16])
@pytest.mark.parametrize("max_slots", [0, 100])
def test_nan_comes_through(lib: Library, heads: int, max_slots: int) -> None:
    case = Case([1100, 5], heads, max_slots=max_slots)
    case.q_pe[0, 1, 3] = math.nan
    out, lse = case.run(lib)
    assert out[0, 1].isnan().all()
    assert lse[0, 1].isnan()
    assert not out[:, 0].isnan().any()
    assert not out[1].isnan().any()


def test_without_lse(lib: Library) -> None:
    check(lib, Case([9, 1200], return_lse=False, max_slots=9))


@pytest.mark.parametrize("max_slots", [0, 200])
def test_threads_do_not_change_a_bit(lib: Library, max_slots: int) -> None:
    case = Case([300, 1300, 900], 70, dims=(128, 64), max_slots=max_slots)
    alone = [x.clone() for x in case.run(lib)]
    with lib.threads(cut_anywhere) as grains:
        for x in (case.out.view, case.lse.view):
            x.fill_(9.0)
        together = case.run(lib)
    assert len(grains) >= 1
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a, b)


def test_nothing_to_do(lib: Library) -> None:
    case = Case([])
    before = case.out.view.clone()
    case.run(lib)
    assert torch.equal(case.out.view.nan_to_num(7.0), before.nan_to_num(7.0))


def arguments(case: Case, lib: Library) -> dict[str, Any]:
    partial = torch.zeros(64)
    return case.arguments(case.make_plan(lib), partial, partial)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": torch.float8_e5m2}, "mla_decode: dtype 4 is not fp16, bf16 or fp32"),
        ({"head_dim_ckv": 520}, "head_dim_ckv is 520, expected a multiple of 8 up to 512"),
        ({"head_dim_ckv": 0}, "head_dim_ckv is 0"),
        ({"head_dim_kpe": 12}, "head_dim_kpe is 12, expected a multiple of 8 up to 128"),
        ({"head_dim_kpe": 136}, "head_dim_kpe is 136"),
        ({"num_qo_heads": 0}, "num_qo_heads is 0"),
        ({"tile_rows": 0}, "tile_rows is 0"),
        ({"page_size": 0}, "page_size is 0"),
        ({"kv_indices": None}, "kv_indices or plan is NULL"),
        ({"plan": None}, "kv_indices or plan is NULL"),
        ({"pos_encoding": 2}, "pos_encoding is 2, expected FI_POS_NONE or FI_POS_ROPE_LLAMA"),
        ({"item_capacity": 1}, "mla_decode: the plan has 2 items and 0 merges, expected up to 1"),
    ],
)
def test_refuses(lib: Library, changes: dict[str, Any], message: str) -> None:
    values = {**arguments(Case([20, 30], 2, dims=(16, 8)), lib), **changes}
    with pytest.raises(Failed, match=message) as caught:
        lib("mla_decode", **values)
    assert caught.value.status == INVALID_ARGUMENT


def test_refuses_items_and_pages(lib: Library) -> None:
    case = Case([20], 2, dims=(16, 8), page_size=3)
    values = arguments(case, lib)
    values["plan"][PLAN_HEADER + ITEM.index("kv_end")] = 21
    with pytest.raises(Failed, match="mla_decode: kv_end of item 0 is 21, expected 0 to 20"):
        lib("mla_decode", **values)
    values = arguments(case, lib)
    case.indices[4] = -2
    with pytest.raises(Failed, match=r"mla_decode: kv_indices\[4\] is -2, expected 0 or more"):
        lib("mla_decode", **values)
