"""The attention kernels against a softmax over all keys in fp64."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from emulated import Emulator, Failed
from emulated_attention import FP8, Case, check

HALF, BFLOAT = torch.float16, torch.bfloat16

# Short queries: one token, several, and more than fit into a tile; a request without keys, one with
# a single key, one that ends with its tile, and one that needs another for its last key.
DECODE = [(1, 0), (1, 1), (1, 64), (1, 65), (1, 150)]
APPEND = [(3, 5), (1, 130), (20, 70), (0, 9)]
PREFILL = [(70, 140), (33, 33)]


def label(values: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in values.items() if key != "lengths")


def cases(*values: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("values", values, ids=label)


# ---------------------------------------------------------------- every kernel

KERNELS = [
    {"tile_rows": rows, "head_dim": head_dim, "dtype": dtype}
    for rows in (16, 64, 128)
    for head_dim in (64, 128, 256)
    for dtype in (HALF, BFLOAT)
]


@cases(*KERNELS)
def test_lean_kernels(gpu: Emulator, values: dict[str, Any]) -> None:
    """With 16 rows there is only the general instantiation; it too runs without options here."""
    rows = values["tile_rows"]
    lengths = [(9, 100), (1, 65)] if rows == 16 else [(rows // 2 + 5, 100), (3, 33)]
    check(gpu, Case(lengths, heads=(4, 2), mask="causal", **values))


@cases(
    *({**kernel, "kv_dtype": fp8} for kernel, fp8 in zip(KERNELS, itertools.cycle(FP8))),
    *({**kernel, "kv_dtype": fp8} for kernel, fp8 in zip(KERNELS[::2], itertools.cycle(FP8[::-1]))),
)  # fmt: skip
def test_fp8(gpu: Emulator, values: dict[str, Any]) -> None:
    rows = values["tile_rows"]
    lengths = [(9, 100), (1, 65)] if rows == 16 else [(rows // 2 + 5, 70)]
    check(gpu, Case(lengths, heads=(2, 1), mask="causal", page_size=3, **values))


@cases(
    *(
        {"tile_rows": rows, "head_dim": head_dim, "dtype": dtype, "kv_dtype": stored}
        for (rows, head_dim), (dtype, stored) in zip(
            itertools.product((16, 64), (64, 128, 256)),
            itertools.cycle(itertools.product((HALF, BFLOAT), (None, *FP8))),
        )
    )
)  # fmt: skip
def test_general_kernels(gpu: Emulator, values: dict[str, Any]) -> None:
    """All that the general instantiation does at once."""
    more = {"cap": 5.0, "position": "rope", "mask": "custom", "window": 40, "v_scale": 0.5}
    check(gpu, Case([(9, 70), (2, 65)], heads=(4, 2), page_size=16, **more, **values))


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize("rows", [16, 64, 128])
@pytest.mark.parametrize(
    ("mask", "window"),
    [
        *itertools.product(["none", "causal"], [-1, 0, 5, 70, 2**31 - 1]),
        *[("custom", -1), ("custom", 9)],
    ],
)  # fmt: skip
def test_masks(gpu: Emulator, rows: int, mask: str, window: int) -> None:
    lengths = APPEND if rows == 16 else PREFILL
    check(gpu, Case(lengths, heads=(2, 1), tile_rows=rows, mask=mask, window=window))


@pytest.mark.parametrize("rows", [16, 64, 128])
@pytest.mark.parametrize("mask", ["causal", "none"])
def test_rows_that_see_no_key(gpu: Emulator, rows: int, mask: str) -> None:
    """More queries than keys: under a causal mask the first ones see nothing."""
    lengths = [(90, 70), (9, 1), (5, 0), (150, 3)]
    check(gpu, Case(lengths, tile_rows=rows, mask=mask))


def test_rows_whose_window_is_before_the_keys(gpu: Emulator) -> None:
    check(gpu, Case([(90, 20)], tile_rows=64, window=3, head_dim=128))


# ---------------------------------------------------------------- options


@cases(
    {"cap": 2.0},
    {"cap": 30.0, "amplitude": 20.0},
    {"position": "alibi"},
    {"position": "alibi", "slopes": True, "cap": 4.0},
    {"position": "alibi", "heads": (12, 4), "mask": "causal"},
    {"position": "rope"},
    {"position": "rope", "rope_scale": 4.0, "rope_theta": 5e5, "head_dim": 128},
    {"position": "rope", "mask": "causal", "window": 30, "page_size": 16},
    {"position": "rope", "kv_dtype": FP8[0], "dtype": BFLOAT},
    {"position": "rope", "kv_dtype": FP8[1], "head_dim": 128},
    {"position": "rope", "mask": "custom", "head_dim": 256},
    {"sm_scale": 0.5, "v_scale": 3.0},
    {"sm_scale": -0.3},
    {"sm_scale": 0.0},
    {"sm_scale": -0.3, "cap": 1.0, "mask": "causal"},
)  # fmt: skip
@pytest.mark.parametrize("rows", [16, 64, 128])
def test_options(gpu: Emulator, values: dict[str, Any], rows: int) -> None:
    values = {"heads": (3, 1), **values}
    check(gpu, Case([(7, 70), (1, 65)] if rows == 16 else [(25, 70)], tile_rows=rows, **values))


def test_positions_far_out(gpu: Emulator) -> None:
    """An angle in fp32 radians would be off by a hundredth at position 100,000."""
    case = Case([(2, 40)], position="rope", rope_scale=2.0**-12, tile_rows=16)
    check(gpu, case)


def test_large_scores_do_not_overflow(gpu: Emulator) -> None:
    for rows in (16, 64):
        check(gpu, Case([(5, 70)], amplitude=300.0, tile_rows=rows))


def test_keys_of_falling_weight(gpu: Emulator) -> None:
    """The largest score comes first, or last: sums are kept, or scaled down tile after tile."""
    for order in (1, -1):
        case = Case([(17, 200)], tile_rows=64)
        case.make()
        strength = torch.linspace(3, -3, 200) * order
        case.tensors["q"] = torch.ones_like(case.tensors["q"])
        case.tensors["k"] = (strength[:, None, None] * torch.ones(200, 1, 64)).half()
        check(gpu, case)


# ---------------------------------------------------------------- layouts


@cases(
    *(
        {"page_size": page, "layout": layout, "head_dim": head_dim, "kv_dtype": stored}
        for (page, layout), (head_dim, stored) in zip(
            itertools.product([0, 1, 3, 16, 100], ["NHD", "HND"]),
            itertools.cycle([(64, None), (128, FP8[0]), (256, None), (64, FP8[1]), (128, None)]),
        )
    )
)  # fmt: skip
@pytest.mark.parametrize("rows", [16, 64])
def test_layouts(gpu: Emulator, values: dict[str, Any], rows: int) -> None:
    lengths = DECODE if rows == 16 else [(20, 70), (4, 33)]
    check(gpu, Case(lengths, heads=(4, 2), tile_rows=rows, mask="causal", **values))


@pytest.mark.parametrize("group", [1, 3, 4, 8, 16, 20])
@pytest.mark.parametrize("rows", [16, 64, 128])
def test_groups(gpu: Emulator, group: int, rows: int) -> None:
    lengths = [(1, 70), (3, 50)] if rows == 16 else [(11, 70), (40 // group, 64)]
    check(gpu, Case(lengths, heads=(2 * group, 2), tile_rows=rows, mask="causal", page_size=16))


# ---------------------------------------------------------------- plans


@cases(
    {"lengths": [(1, 1500)], "max_slots": 64},
    {"lengths": [(1, 1500), (1, 700), (1, 0)], "max_slots": 64, "heads": (8, 1), "page_size": 16},
    {"lengths": [(3, 9000)], "max_slots": 64, "multiprocessors": 32},
    {"lengths": [(1, 4000)], "max_slots": 64, "multiprocessors": 32, "head_dim": 256},
    {"lengths": [(1, 1501)], "max_slots": 3, "head_dim": 128, "dtype": BFLOAT},
    {"lengths": [(2, 1100)], "max_slots": 64, "head_dim": 256, "kv_dtype": FP8[0]},
    {"lengths": [(40, 900)], "max_slots": 64, "tile_rows": 64, "mask": "causal"},
    {"lengths": [(40, 900)], "max_slots": 64, "tile_rows": 64, "position": "alibi"},
    {"lengths": [(70, 700)], "max_slots": 8, "tile_rows": 128, "mask": "causal"},
    {"lengths": [(70, 700)], "max_slots": 8, "tile_rows": 128, "position": "rope"},
    {"lengths": [(33, 700)], "max_slots": 8, "tile_rows": 128, "head_dim": 256},
    {"lengths": [(1, 2000)], "max_slots": 64, "window": 300},
    {"lengths": [(30, 600)], "max_slots": 64, "tile_rows": 64, "mask": "custom"},
    {"lengths": [(600, 300)], "max_slots": 64, "tile_rows": 128, "mask": "causal"},
)  # fmt: skip
def test_split_keys(gpu: Emulator, values: dict[str, Any]) -> None:
    """Chunks of keys and their merge; the chunks that a mask empties add nothing."""
    case = Case(**{"multiprocessors": 8, "v_scale": 2.0, **values})
    _, result, _, _ = case.plan(gpu)
    if case.lengths != [(600, 300)]:
        assert result.num_merges > 0 and result.num_slots > 1
    check(gpu, case)


@pytest.mark.parametrize("rows", [16, 128])
def test_padding_of_a_graph(gpu: Emulator, rows: int) -> None:
    """Items and merges past the counts are not looked at, whatever they hold."""
    lengths = [(2, 900), (1, 20)]
    case = Case(lengths, tile_rows=rows, max_slots=32, padding=3, multiprocessors=8)
    assert case.plan(gpu)[1].num_merges > 0
    check(gpu, case)


def test_results_do_not_depend_on_lse(gpu: Emulator) -> None:
    case = Case([(2, 900)], tile_rows=16, max_slots=32)
    args = case.arguments(gpu)
    gpu("attention", **args)
    out = args["out"].clone()
    args["out"] = gpu.empty(out.shape, out.dtype, "out", strides=args["out"].stride())
    gpu("attention", **{**args, "lse": 0})
    assert torch.equal(out, args["out"])


@pytest.mark.parametrize(
    ("lengths", "heads", "head_dim", "rows"),
    [
        ([(1, 100)] * 4, (8, 8), 128, 16),
        ([(1, 100)] * 4, (32, 2), 128, 16),
        ([(1, 100)] * 4, (34, 2), 128, 64),
        ([(100, 100), (4, 4)], (1, 1), 64, 64),
        ([(100, 100)], (4, 1), 128, 128),
        ([(100, 100)], (4, 1), 256, 64),
    ],
)
def test_tile_rows_follow_the_average_request(
    gpu: Emulator, lengths: list[tuple[int, int]], heads: tuple[int, int], head_dim: int, rows: int
) -> None:
    assert Case(lengths, heads, head_dim).plan(gpu)[1].tile_rows == rows


def test_a_plan_fills_the_device_and_no_more(gpu: Emulator) -> None:
    case = Case([(1, 100_000)], heads=(2, 2), head_dim=128, max_slots=10**6, multiprocessors=7)
    _, result, _, _ = case.plan(gpu)
    # One block of 69 KB fits into the 100 KB of a multiprocessor, and there are two KV heads.
    assert result.split_target == 3
    assert result.num_items == 3


def test_a_plan_is_made_for_the_device_of_exec(gpu: Emulator) -> None:
    with pytest.raises(Failed, match="attention_plan: cudaErrorInvalidDevice"):
        gpu("attention_plan", device=7, num_qo_heads=1, num_kv_heads=1, head_dim=64)
    assert gpu.library.fi_emulator_current_device() == 0


@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("rows", [16, 64, 128])
def test_a_plan_loads_all_that_it_can_lead_to(gpu: Emulator, rows: int, head_dim: int) -> None:
    """The first call may be captured: dtype and options, which a plan does not know, load none."""
    before = gpu.library.fi_emulator_loads_by_launches()
    shape = {"head_dim": head_dim, "tile_rows": rows, "max_slots": 8, "device": 1}
    for dtype, kv_dtype, cap in itertools.product((HALF, BFLOAT), (None, FP8[0]), (0.0, 5.0)):
        case = Case([(1, 600)], dtype=dtype, kv_dtype=kv_dtype, cap=cap, **shape)
        assert case.plan(gpu)[1].num_merges == 1
        case.run(gpu)
    assert gpu.library.fi_emulator_loads_by_launches() == before


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"q_dtype": torch.float32}, "q must be float16 or bfloat16"),
        ({"kv_dtype": torch.bfloat16}, "k and v must have the dtype of q or be float8"),
        ({"head_dim": 96}, "head_dim must be 64, 128 or 256, got 96"),
        ({"tile_rows": 32}, "tile_rows must be 16, 64 or 128 on CUDA, got 32"),
        ({"num_qo_heads": 3, "num_kv_heads": 2}, "3 query heads and 2 KV heads"),
        ({"q_stride_n": 65}, "q has a stride of 65 elements, expected a multiple of 8"),
        ({"k_stride_h": 4}, "k has a stride of 4 elements"),
        ({"v_stride_n": 12}, "v has a stride of 12 elements"),
        ({"out_stride_h": 1}, "out has a stride of 1 elements"),
        ({"k": 8}, "k is at 0x8, expected a multiple of 16 bytes"),
        ({"kv_indices": 16, "page_size": 0}, "page_size must be from 1"),
        ({"mask_mode": 2}, "FI_MASK_CUSTOM needs mask and mask_indptr"),
        ({"plan": 0}, "plan is NULL"),
        ({"merge_capacity": 1, "partial_lse": 0}, "partial_out or partial_lse is NULL"),
    ],
)
def test_refusals_name_the_argument(gpu: Emulator, changes: dict[str, Any], words: str) -> None:
    args = Case([(1, 5)], heads=(2, 2)).arguments(gpu)
    launches = gpu.library.fi_emulator_launches()
    with pytest.raises(Failed, match=words):
        gpu("attention", **{**args, **changes})
    assert gpu.library.fi_emulator_launches() == launches


def test_strides_that_are_not_used_may_be_anything(gpu: Emulator) -> None:
    case = Case([(1, 5)], page_size=1)
    args = case.arguments(gpu)
    unused = {f"{name}_stride_h": 1 for name in ("q", "k", "v", "out")}
    gpu("attention", **{**args, **unused, "k_stride_n": 3, "v_stride_n": 3})
    assert (args["out"].double() - case.reference()[0]).abs().max() < 2e-3


@pytest.mark.parametrize(
    ("head_dim", "rows", "words"),
    [(80, 0, "head_dim must be 64, 128 or 256, got 80"), (64, 48, "tile_rows must be 16, 64")],
)
def test_a_plan_for_what_no_kernel_does_is_refused(
    gpu: Emulator, head_dim: int, rows: int, words: str
) -> None:
    with pytest.raises(Failed, match=f"attention_plan: {words}"):
        Case([(1, 5)], head_dim=head_dim, tile_rows=rows).plan(gpu)
