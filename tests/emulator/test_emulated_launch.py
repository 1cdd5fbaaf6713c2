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
    ("layernorm", {"rows": 0, "hidden": 8}),
    ("layernorm", {"rows": 8, "hidden": 0}),
    ("rmsnorm_quant", {"rows": 0, "hidden": 8}),
    ("rmsnorm_quant", {"rows": 8, "hidden": 0}),
    ("fused_add_rmsnorm_quant", {"rows": 0, "hidden": 8}),
    ("fused_add_rmsnorm_quant", {"rows": 8, "hidden": 0}),
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
    ("concat_mla_k", {"nnz": 0, "num_heads": 1, "nope_dim": 8, "rope_dim": 8}),
    ("concat_mla_k", {"nnz": 4, "num_heads": 0, "nope_dim": 8, "rope_dim": 8}),
    ("top_k", {"rows": 0, "columns": 8, "k": 1}),
    ("softmax", {"rows": 0, "vocab": 8}),
    ("softmax", {"rows": 8, "vocab": 0}),
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
    gpu.library.fi_emulator_set_context(0, True)
    for device in (1, 0):
        gpu("rmsnorm", device=device, stream=0x1234 + device, **norm_arguments(gpu))
        assert gpu.library.fi_emulator_last_device() == device
        assert gpu.library.fi_emulator_last_stream() == 0x1234 + device
        assert gpu.library.fi_emulator_current_device() == 0, "the caller's device is restored"


def test_no_context_is_made_on_the_device_of_a_thread_that_has_none(gpu: Emulator) -> None:
    """Such a thread is told that its device is 0; to go back there would initialise it."""
    gpu.library.fi_emulator_set_context(0, False)
    try:
        gpu("rmsnorm", device=1, **norm_arguments(gpu))
        assert not gpu.library.fi_emulator_context(0)
        gpu.library.fi_emulator_set_device(0)
        gpu("attention_plan", device=1, num_qo_heads=1, num_kv_heads=1, head_dim=64,
            result=torch.zeros(5, dtype=torch.int64))  # fmt: skip
        assert not gpu.library.fi_emulator_context(0)
    finally:
        gpu.library.fi_emulator_set_device(0)


def much_work(gpu: Emulator) -> dict[str, tuple[str, dict[str, Any]]]:
    """A call of every launcher that makes as many blocks as run at once, and threads a block."""
    rows = 4096
    half = torch.float16
    x = gpu.put(torch.randn(rows, 8).half(), "x")
    v, s = gpu.put(torch.randn(rows, 1, 8).half(), "v"), gpu.put(torch.randn(rows, 1), "s")
    many = gpu.put(torch.randn(rows, 2, 1, 8).half()), gpu.put(torch.randn(rows, 2, 1))
    each = gpu.ints(torch.arange(rows))
    cache = [gpu.empty((rows, 1, 1, 8), half, name) for name in ("k_cache", "v_cache")]
    ones = gpu.put(torch.ones(8).half(), "weight")
    floats = gpu.put(torch.ones(8), "floats")
    long = gpu.put(torch.randn(64, 8192).half(), "long")
    row = {"dtype": half, "rows": rows, "input": x, "input_stride": 8}
    norm = {**row, "hidden": 8, "weight": ones, "eps": 1e-5}
    y = gpu.empty((rows, 8), half)
    return {
        "rmsnorm": ("rmsnorm", {**norm, "out": y, "out_stride": 8}),
        "rmsnorm of long rows": ("rmsnorm", {
            "dtype": half, "rows": 64, "hidden": 8192, "input": long, "input_stride": 8192,
            "out": gpu.empty((64, 8192), half), "out_stride": 8192, "eps": 1e-5,
            "weight": gpu.put(torch.ones(8192).half()),
        }),
        "fused_add_rmsnorm": ("fused_add_rmsnorm", {
            **norm, "residual": gpu.put(torch.randn(rows, 8).half()), "residual_stride": 8,
        }),
        "layernorm": ("layernorm", {
            **row, "hidden": 8, "eps": 1e-5, "gamma": floats, "beta": floats, "out": y,
            "out_stride": 8,
        }),
        "rmsnorm_quant": ("rmsnorm_quant", {
            **norm, "out_dtype": torch.float8_e4m3fn, "scale_value": 1.0, "out_stride": 8,
            "out": gpu.empty((rows, 8), torch.float8_e4m3fn),
        }),
        "act_and_mul": ("act_and_mul", {
            **row, "d": 4, "out": gpu.empty((rows, 4), half), "out_stride": 4,
        }),
        "rope": ("rope", {
            "dtype": half, "nnz": rows, "num_qo_heads": 1, "head_dim": 8, "rotary_dim": 8, "q": x,
            "k": x, "q_out": y, "k_out": y, "q_stride_n": 8, "q_stride_h": 8, "q_out_stride_n": 8,
            "q_out_stride_h": 8, "rope_scale": 1.0, "rope_theta": 1e4, "pos_ids": each,
            "pos_ids_bits": 32,
        }),
        "append_paged_kv": ("append_paged_kv", {
            "dtype": half, "nnz": rows, "num_heads": 1, "head_dim": 8, "page_size": 1,
            "batch_size": 1, "append_key": x, "append_value": x, "key_stride_n": 8,
            "value_stride_n": 8, "batch_indices": gpu.ints(torch.zeros(rows)), "positions": each,
            "k_cache": cache[0], "v_cache": cache[1], "k_stride_page": 8, "v_stride_page": 8,
            "kv_indices": each, "kv_indptr": gpu.ints([0, rows]),
        }),
        "concat_mla_k": ("concat_mla_k", {
            "element_size": 2, "nnz": rows, "num_heads": 1, "nope_dim": 4, "rope_dim": 4, "k": y,
            "k_stride_n": 8, "k_nope": x, "nope_stride_n": 8, "k_rope": x, "rope_stride_n": 8,
        }),
        "batch_positions": ("batch_positions", {
            "nnz": 4 * rows, "batch_size": 1, "append_indptr": gpu.ints([0, 4 * rows]),
            "seq_lens": gpu.ints([4 * rows]), "positions": gpu.empty((4 * rows,), torch.int32),
            "batch_indices": gpu.empty((4 * rows,), torch.int32),
        }),
        "merge_state": ("merge_state", {
            "dtype": half, "seq_len": rows, "num_heads": 1, "head_dim": 8, "v_a": v, "s_a": s,
            "v_b": v, "s_b": s, "v_out": y, "s_out": gpu.empty((rows, 1), torch.float32),
        }),
        "merge_states": ("merge_states", {
            "dtype": half, "seq_len": rows, "num_heads": 1, "head_dim": 8, "num_states": 2,
            "v": many[0], "s": many[1], "v_out": y, "s_out": gpu.empty((rows, 1), torch.float32),
        }),
        "packbits": ("packbits", {
            "n": 65536, "x": gpu.put(torch.ones(65536, dtype=torch.uint8)),
            "y": gpu.empty((8192,), torch.uint8), "total_out": 8192,
        }),
    }  # fmt: skip


OPS = ["rmsnorm", "rmsnorm of long rows", "fused_add_rmsnorm", "layernorm", "rmsnorm_quant",
       "act_and_mul", "rope", "append_paged_kv", "concat_mla_k", "batch_positions",
       "merge_state", "merge_states", "packbits"]  # fmt: skip


@pytest.mark.parametrize(("device", "threads"), [(0, 1536), (2, 2048)])
@pytest.mark.parametrize("name", OPS)
def test_as_many_blocks_as_run_at_once(gpu: Emulator, name: str, device: int, threads: int) -> None:
    """More would wait for the first to end, and on sm_86 and sm_89 fewer run at once."""
    gpu.library.fi_emulator_set_multiprocessors(1)
    op, values = much_work(gpu)[name]
    gpu.library.fi_emulator_set_context(0, True)
    gpu(op, device=device, **values)
    block = 512 if name == "rmsnorm of long rows" else 256
    assert gpu.library.fi_emulator_last_blocks() == threads // block


def test_a_refused_device_is_an_error_with_the_runtimes_words(gpu: Emulator) -> None:
    with pytest.raises(Failed, match="rmsnorm: cudaErrorInvalidDevice: invalid device") as error:
        gpu("rmsnorm", device=7, **norm_arguments(gpu))
    assert error.value.status == CUDA_ERROR
    assert gpu.library.fi_emulator_current_device() == 0


OLD, OF_PTX = 3, 4  # devices of the emulator


@pytest.mark.parametrize("op", ["rmsnorm", "attention_plan"])
def test_a_gpu_without_code_is_named_with_what_the_library_has(gpu: Emulator, op: str) -> None:
    before = gpu.library.fi_emulator_launches()
    with pytest.raises(Failed) as error:
        if op == "rmsnorm":
            gpu(op, device=OLD, **norm_arguments(gpu))
        else:
            gpu(op, device=OLD, num_qo_heads=1, num_kv_heads=1, head_dim=64,
                result=torch.zeros(5, dtype=torch.int64))  # fmt: skip
    assert str(error.value) == (
        f"{op}: no code for the GPU cuda:3, Emulated GPU of compute capability 7.5: libflashinfer"
        " 0 for CUDA none was built for the architectures 8.0+PTX;9.0a. The kernels need compute"
        " capability 8.0 or newer: no package has them for it"
    )
    assert error.value.status == UNSUPPORTED
    assert gpu.library.fi_emulator_launches() == before
    assert gpu.library.fi_emulator_current_device() == 0, "the caller's device is restored"


def test_ptx_that_the_driver_is_too_old_for(gpu: Emulator) -> None:
    gpu("rmsnorm", device=OF_PTX, **norm_arguments(gpu))
    gpu.library.fi_emulator_set_driver(12040, True)
    try:
        with pytest.raises(
            Failed, match=r"cuda:4, Emulated GPU of compute capability 12\.0"
        ) as error:
            gpu("rmsnorm", device=OF_PTX, **norm_arguments(gpu))
    finally:
        gpu.library.fi_emulator_set_driver(13000, False)
    assert "The driver, for CUDA 12.4, does not take it: update the driver" in str(error.value)
    assert error.value.status == UNSUPPORTED
    gpu("rmsnorm", device=OF_PTX, **norm_arguments(gpu))


def test_a_device_is_asked_for_its_capability_once(gpu: Emulator) -> None:
    for _ in range(2):
        gpu("rmsnorm", device=1, **norm_arguments(gpu))
    asked = gpu.library.fi_emulator_capabilities_asked()
    for _ in range(3):
        gpu("rmsnorm", device=1, **norm_arguments(gpu))
    assert gpu.library.fi_emulator_capabilities_asked() == asked


@pytest.mark.parametrize("op", ["rmsnorm", "fused_add_rmsnorm", "layernorm", "act_and_mul", "rope"])
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
        ("layernorm", {"rows": 1, "hidden": 2**31}),
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
