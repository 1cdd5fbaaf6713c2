"""Products of matrices: segments of rows with a matrix each, and batches in fp8."""

from __future__ import annotations

from typing import Any

import torch

from flashinfer import _checks, _forms, _ops

__all__ = ["SegmentGEMMWrapper", "bmm_fp8"]

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_BACKENDS = ("auto", "sm80", "sm90")


def _long_index(
    name: str, value: torch.Tensor, size: int, reference: torch.Tensor, form: str
) -> torch.Tensor:
    """An index tensor ``[size]`` as the kernels take it: int64, contiguous."""
    _checks.dims(name, value, f"[{form}]")
    if value.dtype not in _checks.INTEGERS:
        raise TypeError(f"{name} has dtype {value.dtype}, expected torch.int64 or torch.int32")
    if value.shape[0] != size:
        raise ValueError(f"{name} has shape {list(value.shape)}, expected [{size}]: {form}")
    _checks.same_device(name, value, "x", reference)
    return value.to(torch.int64).contiguous()


# In releases after 0.2.0.
_RUN_WITH_OUT = (
    "self",
    "x",
    "weights",
    "batch_size",
    "weight_column_major",
    "out",
    "seg_lens",
    "seg_indptr",
    "weight_indices",
)


def _has_out_in_fifth_place(args: Any, kwargs: Any) -> bool:
    return len(args) > 5 and isinstance(args[5], torch.Tensor) and args[5].ndim == 2


class SegmentGEMMWrapper:
    """Multiplies each segment of rows by a matrix of its own.

    It takes workspace buffers for the sake of callers that pass them: the kernels need none.

    Args:
        float_workspace_buffer: any tensor on the device to run on; not used. In FlashInfer 0.1.6
            it is ``workspace_buffer``, which works too.
        backend: ``auto``; ``sm80`` and ``sm90`` are accepted, and mean the same.

    Raises:
        ValueError: another backend.
    """

    @_forms.renamed(workspace_buffer="float_workspace_buffer")
    def __init__(self, float_workspace_buffer: torch.Tensor, backend: str = "auto") -> None:
        _checks.tensor("float_workspace_buffer", float_workspace_buffer)
        if backend not in _BACKENDS:
            raise ValueError(f"backend is {backend!r}, expected one of {', '.join(_BACKENDS)}")
        self._float_workspace_buffer = float_workspace_buffer
        self._int_workspace_buffer: torch.Tensor | None = None
        self.backend = backend

    @_forms.renamed(new_workspace_buffer="float_workspace_buffer")
    def reset_workspace_buffer(
        self,
        float_workspace_buffer: torch.Tensor,
        int_workspace_buffer: torch.Tensor | None = None,
    ) -> None:
        """Takes other buffers, as other wrappers do.

        Args:
            float_workspace_buffer: not used; ``new_workspace_buffer`` in FlashInfer 0.1.6, which
                works too.
            int_workspace_buffer: not used.
        """
        _checks.tensor("float_workspace_buffer", float_workspace_buffer)
        self._float_workspace_buffer = float_workspace_buffer
        self._int_workspace_buffer = int_workspace_buffer

    @_forms.also(_RUN_WITH_OUT, _has_out_in_fifth_place)
    def run(
        self,
        x: torch.Tensor,
        weights: torch.Tensor,
        batch_size: int,
        weight_column_major: bool,
        seg_lens: torch.Tensor | None = None,
        seg_indptr: torch.Tensor | None = None,
        weight_indices: torch.Tensor | None = None,
        *,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``y[s] = x[s] @ weights[w]`` for every segment ``s`` of rows, summed in fp32.

        Args:
            x: ``[rows, d_in]``, the segments one after the other; float16, bfloat16, or float32
                on the CPU. Any row stride.
            weights: ``[num_weights, d_in, d_out]``, or ``[num_weights, d_out, d_in]`` where
                ``weight_column_major``; dtype and device of ``x``.
            batch_size: the number of segments.
            weight_column_major: how ``weights`` is laid out.
            seg_lens: ``[batch_size]`` int64, the rows of each segment; 0 is an empty one.
            seg_indptr: ``[batch_size + 1]`` int64, its first rows, from 0; taken where both are
                given. int32 is converted.
            weight_indices: ``[batch_size]`` int64, which matrix each segment has; without it,
                segment ``s`` has matrix ``s``.
            out: ``[rows, d_out]`` like ``x``, where to write; allocated if None.

        On CUDA the numbers in ``seg_lens``, ``seg_indptr`` and ``weight_indices`` are not checked.

        Returns:
            ``out``, or a new tensor ``[rows, d_out]`` like ``x``. Rows after the last segment are
            0.

        Raises:
            ValueError: a shape or device is wrong, or neither ``seg_lens`` nor ``seg_indptr`` is
                given.
            TypeError: a dtype is wrong.
        """
        _checks.dims("x", x, "[rows, d_in]")
        _checks.floating("x", x)
        form = "[num_weights, d_out, d_in]" if weight_column_major else "[num_weights, d_in, d_out]"
        _checks.dims("weights", weights, form)
        _checks.like("weights", weights, "x", x)
        if weights.shape[2 if weight_column_major else 1] != x.shape[1]:
            raise ValueError(
                f"weights has shape {list(weights.shape)}, expected {form} with the {x.shape[1]} "
                "columns of x as d_in"
            )
        if seg_indptr is not None:
            indptr = _long_index("seg_indptr", seg_indptr, batch_size + 1, x, "batch_size + 1")
        elif seg_lens is not None:
            lengths = _long_index("seg_lens", seg_lens, batch_size, x, "batch_size")
            indptr = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        else:
            raise ValueError("neither seg_lens nor seg_indptr is given, expected one of them")
        indices = None
        if weight_indices is not None:
            indices = _long_index("weight_indices", weight_indices, batch_size, x, "batch_size")
        elif weights.shape[0] < batch_size:
            raise ValueError(
                f"weights has {weights.shape[0]} matrices for {batch_size} segments, expected as "
                "many, or weight_indices"
            )
        d_out = weights.shape[1 if weight_column_major else 2]
        if out is None:
            out = torch.empty((x.shape[0], d_out), dtype=x.dtype, device=x.device)
        else:
            _checks.shape("out", out, (x.shape[0], d_out), "[rows, d_out]")
            _checks.like("out", out, "x", x)
        rows = _checks.rows_contiguous(out)
        _ops.segment_gemm(
            _checks.rows_contiguous(x),
            _checks.rows_contiguous(weights),
            indptr,
            indices,
            rows,
            weight_column_major,
        )
        if rows is not out:
            out.copy_(rows)
        return out

    forward = run


def _scale(name: str, value: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """A scale as the kernel takes it: ``[1]`` or ``[batch]``."""
    _checks.tensor(name, value)
    _checks.same_device(name, value, "A", a)
    if value.dtype != torch.float32:
        raise TypeError(f"{name} has dtype {value.dtype}, expected torch.float32")
    if value.numel() not in (1, a.shape[0]):
        raise ValueError(
            f"{name} has {value.numel()} elements, expected 1, or {a.shape[0]}: one a matrix"
        )
    return value.reshape(-1).contiguous()


def bmm_fp8(
    A: torch.Tensor,
    B: torch.Tensor,
    A_scale: torch.Tensor,
    B_scale: torch.Tensor,
    dtype: torch.dtype,
    out: torch.Tensor | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """``out[b] = (A_scale * A[b]) @ (B_scale * B[b])`` of fp8 matrices, summed in fp32.

    Args:
        A: ``[b, m, k]``, float8_e4m3fn or float8_e5m2.
        B: ``[b, k, n]``, float8_e4m3fn or float8_e5m2, column-major: ``B.transpose(1, 2)`` is
            contiguous. A row-major one is copied.
        A_scale: float32, one element, or ``b`` of them.
        B_scale: the same for ``B``.
        dtype: of the result: float16 or bfloat16, on the CPU also float32.
        out: ``[b, m, n]``, where to write; allocated if None.
        backend: a name, ignored: there is one kernel.

    Returns:
        ``out``, or a new tensor ``[b, m, n]``.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: a dtype is wrong.
    """
    _checks.dims("A", A, "[b, m, k]")
    _checks.floating("A", A, _FP8)
    _checks.dims("B", B, "[b, k, n]")
    _checks.floating("B", B, _FP8)
    _checks.same_device("B", B, "A", A)
    if B.shape[0] != A.shape[0] or B.shape[1] != A.shape[2]:
        raise ValueError(
            f"B has shape {list(B.shape)}, expected [{A.shape[0]}, {A.shape[2]}, n] as A has"
            f" {list(A.shape)}"
        )
    shape = (A.shape[0], A.shape[1], B.shape[2])
    if out is None:
        out = torch.empty(shape, dtype=dtype, device=A.device)
    else:
        _checks.shape("out", out, shape, "[b, m, n]")
        _checks.same_device("out", out, "A", A)
        if out.dtype != dtype:
            raise TypeError(f"out has dtype {out.dtype}, expected {dtype} as dtype says")
    _checks.floating("out", out)
    columns = _checks.rows_contiguous(B.transpose(1, 2))
    rows = _checks.rows_contiguous(out)
    _ops.bmm_fp8(
        _checks.rows_contiguous(A),
        columns.transpose(1, 2),
        _scale("A_scale", A_scale, A),
        _scale("B_scale", B_scale, A),
        rows,
    )
    if rows is not out:
        out.copy_(rows)
    return out
