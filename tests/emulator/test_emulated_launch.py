"""What all launchers have in common: device, stream, errors, inputs without elements."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from emulated import CUDA_ERROR, INVALID_ARGUMENT, UNSUPPORTED, Emulator, Failed

X = {"dtype": torch.float16, "eps": 1e-5}
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("rmsnorm", {"rows": 0, "hidden": 8}),
    ("rmsnorm", {"rows": 8, "hidden": 0}),
    ("fused_add_rmsnorm", {"rows": 0, "hidden": 8}),
    ("fused_add_rmsnorm", {"rows": 8, "hidden": 0}),
    ("act_and_mul", {"rows": 0, "d": 8}),
    ("act_and_mul", {"rows": 8, "d": 0}),
    ("rope", {"nnz": 0, "num_qo_heads": 1, "num_kv_heads": 1, "head_dim": 64, "rotary_dim": 64}),
    ("rope", {"nnz": 4, "num_qo_heads": 0, "num_kv_heads": 0, "head_dim": 64, "rotary_dim": 64}),
    ("append_paged_kv", {"nnz": 0, "num_heads": 1, "head_dim": 64, "page_size": 1}),
    ("append_paged_kv", {"nnz": 4, "num_heads": 0, "head_dim": 64, "page_size": 1}),
    ("batch_positions", {"nnz": 0, "batch_size": 3}),
    ("merge_state", {"seq_len": 0, "num_heads": 2, "head_dim": 64}),
    ("merge_states", {"seq_len": 2, "num_heads": 0, "head_dim": 64, "num_states": 2}),
    ("attention", {"item_capacity": 0, "num_qo_heads": 1, "num_kv_heads": 1, "head_dim": 64}),
    ("attention", {"item_capacity": 4, "head_dim": 64}),
    ("packbits", {"n": 0}),
]


@pytest.mark.parametrize(("op", "values"), CALLS)
def test_without_elements_nothing_is_launched(
    gpu: Emulator, op: str, values: dict[str, Any]
) -> None:
    before = gpu.library.fi_emulator_launches()
    gpu(op, **values)
    assert gpu.library.fi_emulator_launches() == before


def norm_arguments(gpu: Emulator) -> dict[str, Any]:
    x = gpu.put(torch.randn(2, 64).half())
    return {
        "dtype": x.dtype, "rows": 2, "hidden": 64, "out": gpu.empty(x.shape, x.dtype),
        "out_stride": 64, "input": x, "input_stride": 64, "weight": gpu.put(torch.ones(64).half()),
    }  # fmt: skip


def test_launch_goes_to_the_stream_and_device_of_exec(gpu: Emulator) -> None:
    for device in (1, 0):
        gpu("rmsnorm", device=device, stream=0x1234 + device, **norm_arguments(gpu))
        assert gpu.library.fi_emulator_last_device() == device
        assert gpu.library.fi_emulator_last_stream() == 0x1234 + device
        assert gpu.library.fi_emulator_current_device() == 0, "the caller's device is restored"


def test_a_refused_device_is_an_error_with_the_runtimes_words(gpu: Emulator) -> None:
    with pytest.raises(Failed, match="rmsnorm: cudaErrorInvalidDevice: invalid device") as error:
        gpu("rmsnorm", device=7, **norm_arguments(gpu))
    assert error.value.status == CUDA_ERROR
    assert gpu.library.fi_emulator_current_device() == 0


@pytest.mark.parametrize("op", ["rmsnorm", "fused_add_rmsnorm", "act_and_mul", "rope"])
def test_fp8_is_unsupported_where_something_is_computed(gpu: Emulator, op: str) -> None:
    sizes = {
        "rope": {"nnz": 1, "num_qo_heads": 1, "head_dim": 2, "pos_ids": 8, "pos_ids_bits": 64},
        "act_and_mul": {"rows": 1, "d": 1},
    }.get(op, {"rows": 1, "hidden": 1})
    with pytest.raises(Failed, match="float16, bfloat16 or float32") as error:
        gpu(op, dtype=torch.float8_e4m3fn, **sizes)
    assert error.value.status == UNSUPPORTED


@pytest.mark.parametrize(
    ("op", "values"),
    [
        ("act_and_mul", {"activation": 9, "rows": 1, "d": 1}),
        ("rmsnorm", {"rows": 1, "hidden": 2**31}),
        ("append_paged_kv", {"nnz": 1, "num_heads": 1, "head_dim": 8, "page_size": 0}),
        ("append_paged_kv", {"nnz": 1, "num_heads": 1, "head_dim": 8, "page_size": 1, "dtype": 77}),
        ("batch_positions", {"nnz": 1, "batch_size": -1}),
        ("packbits", {"n": 1, "total_out": 1, "num_segments": 1, "in_indptr": 8}),
    ],
)
def test_arguments_out_of_range(gpu: Emulator, op: str, values: dict[str, Any]) -> None:
    with pytest.raises(Failed, match=f"^{op}: ") as error:
        gpu(op, **values)
    assert error.value.status == INVALID_ARGUMENT
