"""The kernels of multi-head latent attention against a softmax over all keys in fp64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from emulated import Emulator, Failed
from emulated_mla import Case, check

HALF, BFLOAT = torch.float16, torch.bfloat16


def label(values: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in values.items())


def cases(*values: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("values", values, ids=label)


@pytest.mark.parametrize("dtype", [HALF, BFLOAT])
@pytest.mark.parametrize("position", ["none", "rope"])
@pytest.mark.parametrize("heads", [1, 7, 16, 17, 33])
def test_heads(gpu: Emulator, heads: int, position: str, dtype: torch.dtype) -> None:
    """No key, one, a whole tile, one more, and a tile that ends in a page."""
    check(gpu, Case([0, 1, 32, 33, 70], heads, dtype, position=position))


@pytest.mark.parametrize("dtype", [HALF, BFLOAT])
def test_heads_of_deepseek(gpu: Emulator, dtype: torch.dtype) -> None:
    check(gpu, Case([40], 128, dtype))


@pytest.mark.parametrize("page_size", [1, 3, 16, 64])
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("heads", [5, 20])
def test_caches(gpu: Emulator, page_size: int, together: bool, heads: int) -> None:
    check(gpu, Case([70, 1, 34], heads, page_size=page_size, together=together))


@cases(
    {"cap": 2.0},
    {"cap": 30.0, "amplitude": 20.0, "position": "none"},
    {"window": 0},
    {"window": 5, "cap": 4.0},
    {"window": 40},
    {"window": 2**31 - 1},
    {"rope_scale": 4.0, "rope_theta": 5e5},
    {"rope_scale": 2.0**-12},  # positions of hundreds of thousands
    {"sm_scale": 0.3, "v_scale": 3.0},
    {"sm_scale": -0.1},
    {"sm_scale": 0.0},
    {"sm_scale": -0.1, "cap": 1.0},
    {"amplitude": 300.0, "position": "none", "sm_scale": 0.01},
)
@pytest.mark.parametrize("rows", [16, 32])
def test_options(gpu: Emulator, values: dict[str, Any], rows: int) -> None:
    check(gpu, Case([70, 33, 2], 6, tile_rows=rows, **values))


def test_keys_of_falling_weight(gpu: Emulator) -> None:
    """The largest score comes first, or last: sums are kept, or scaled down tile after tile."""
    for order in (1, -1):
        for heads in (16, 32):
            case = Case([130], heads, position="none", sm_scale=0.02)
            case.make()
            strength = torch.linspace(3, -3, 130) * order
            case.tensors["q_nope"].fill_(1.0)
            case.tensors["rows"][:, :512] = strength[:, None].half()
            check(gpu, case)


@cases(
    {"lengths": [1500], "heads": 16},
    {"lengths": [1501, 300, 0], "heads": 5, "page_size": 3, "v_scale": 2.0},
    {"lengths": [900], "heads": 40, "dtype": BFLOAT},
    {"lengths": [5000], "heads": 2, "multiprocessors": 16},
    {"lengths": [1500], "heads": 16, "window": 300},
    {"lengths": [700], "heads": 32, "max_slots": 3},
)
def test_split_keys(gpu: Emulator, values: dict[str, Any]) -> None:
    """Chunks of keys and their merge; the chunks that a window empties add nothing."""
    case = Case(**{"multiprocessors": 8, "max_slots": 64, **values})
    result = case.plan(gpu)[1]
    assert result.num_merges > 0 and result.num_slots > 1
    check(gpu, case)


def test_split_and_whole_agree(gpu: Emulator) -> None:
    split = Case([700, 20], multiprocessors=8, max_slots=64, position="none")
    out, lse = split.run(gpu)
    whole = Case([700, 20], position="none", tensors=split.tensors)
    assert whole.plan(gpu)[1].num_slots == 0
    whole_out, whole_lse = whole.run(gpu)
    assert (out.double() - whole_out.double()).abs().max() < 1e-3
    assert (lse - whole_lse).abs().max() < 1e-5


@pytest.mark.parametrize("heads", [16, 32])
def test_padding_of_a_graph(gpu: Emulator, heads: int) -> None:
    """Items and merges past the counts are not looked at, whatever they hold."""
    case = Case([900, 20], heads, max_slots=32, padding=3, multiprocessors=8)
    assert case.plan(gpu)[1].num_merges > 0
    check(gpu, case)


def test_results_do_not_depend_on_lse(gpu: Emulator) -> None:
    args = Case([300], max_slots=32).arguments(gpu)
    gpu("mla_decode", **args)
    out = args["out"].clone()
    args["out"] = gpu.empty(out.shape, out.dtype, "out", strides=args["out"].stride())
    gpu("mla_decode", **{**args, "lse": 0})
    assert torch.equal(out, args["out"])


@pytest.mark.parametrize(("heads", "rows"), [(1, 16), (16, 16), (17, 32), (128, 32)])
def test_tile_rows_follow_the_heads(gpu: Emulator, heads: int, rows: int) -> None:
    assert Case([100, 2], heads).plan(gpu)[1].tile_rows == rows


@pytest.mark.parametrize(("heads", "blocks"), [(16, 7), (128, 7)])
def test_a_plan_fills_the_device_and_no_more(gpu: Emulator, heads: int, blocks: int) -> None:
    """One block fits into the 100 KB of an emulated multiprocessor."""
    case = Case([100_000], heads, page_size=64, max_slots=10**6, multiprocessors=7)
    result = case.plan(gpu)[1]
    tiles = -(-heads // result.tile_rows)
    assert result.split_target == blocks
    assert result.num_items == blocks // tiles * tiles


@pytest.mark.parametrize("heads", [16, 17])
def test_a_plan_loads_all_that_it_can_lead_to(gpu: Emulator, heads: int) -> None:
    before = gpu.library.fi_emulator_loads_by_launches()
    for dtype in (torch.float16, torch.bfloat16):
        case = Case([300], heads, dtype=dtype, max_slots=8, device=1)
        assert case.plan(gpu)[1].num_merges > 0
        case.run(gpu)
    assert gpu.library.fi_emulator_loads_by_launches() == before


def test_nothing_to_do(gpu: Emulator) -> None:
    args = Case([1]).arguments(gpu)
    launches = gpu.library.fi_emulator_launches()
    gpu("mla_decode", **{**args, "item_capacity": 0})
    assert gpu.library.fi_emulator_launches() == launches


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dtype": torch.float32}, "dtype must be float16 or bfloat16 on CUDA"),
        ({"head_dim_ckv": 256}, "head_dim_ckv must be 512 and head_dim_kpe 64 on CUDA, got 256"),
        ({"head_dim_kpe": 32}, "head_dim_ckv must be 512 and head_dim_kpe 64 on CUDA, got 512 and"),
        ({"tile_rows": 64}, "tile_rows must be 16 or 32 for head_dim 512, got 64"),
        ({"q_nope_stride_n": 65}, "q_nope has a stride of 65 elements, expected a multiple of 8"),
        ({"q_pe_stride_h": 4}, "q_pe has a stride of 4 elements"),
        ({"ckv_stride_page": 12}, "ckv has a stride of 12 elements"),
        ({"kpe_stride_n": 1}, "kpe has a stride of 1 elements"),
        ({"out_stride_h": 1}, "out has a stride of 1 elements"),
        ({"kpe": 8}, "kpe is at 0x8, expected a multiple of 16 bytes"),
        ({"page_size": 0}, "page_size must be from 1"),
        ({"plan": 0}, "plan or kv_indices is NULL"),
        ({"kv_indices": 0}, "plan or kv_indices is NULL"),
        ({"pos_encoding": 2}, "pos_encoding must be FI_POS_NONE or FI_POS_ROPE_LLAMA, got 2"),
        ({"merge_capacity": 1, "partial_lse": 0}, "partial_out or partial_lse is NULL"),
        ({"num_qo_heads": 2**31}, "below 2\\^31"),
    ],
)
def test_refusals_name_the_argument(gpu: Emulator, changes: dict[str, Any], words: str) -> None:
    args = Case([5], 2).arguments(gpu)
    launches = gpu.library.fi_emulator_launches()
    with pytest.raises(Failed, match=f"mla_decode: .*{words}"):
        gpu("mla_decode", **{**args, **changes})
    assert gpu.library.fi_emulator_launches() == launches


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tile_rows": 64}, "tile_rows must be 16 or 32 for head_dim 512, got 64"),
        ({"num_kv_heads": 2}, "head_dim 512 is multi-head latent attention, with 1 KV head, got 2"),
        ({"batch_size": -1}, "batch_size is -1"),
    ],
)
def test_refused_plans(gpu: Emulator, changes: dict[str, Any], words: str) -> None:
    values = {"num_qo_heads": 4, "num_kv_heads": 1, "head_dim": 512, **changes}
    with pytest.raises(Failed, match=f"attention_plan: {words}"):
        gpu("attention_plan", **values)
