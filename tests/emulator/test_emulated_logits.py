"""Softmax of logits against fp64."""

from __future__ import annotations

import pytest
import softmax_reference as exact
import torch
from emulated import Emulator, Failed


def softmax(
    gpu: Emulator,
    x: torch.Tensor,
    out: torch.Tensor,
    temperature: torch.Tensor | float = 1.0,
) -> None:
    """``x`` and ``out`` are in emulated memory."""
    heat = (
        {"temperature": gpu.put(temperature, "temperature"), "temperature_value": -1.0}
        if isinstance(temperature, torch.Tensor)
        else {"temperature_value": temperature}
    )
    gpu("softmax", rows=x.shape[0], vocab=x.shape[1], logits=x, logits_stride=x.stride(0),
        out=out, out_stride=out.stride(0), **heat)  # fmt: skip


# A block of 64 threads and of 1024; 1, 2 and up to 8 vectors a thread, whole and not; with
# vectors and without; rows that do not stay in registers (32,768 and 8192 entries).
VOCABS = [1, 3, 111, 512, 4100, 8192, 8193, 16384, 32768, 32772, 70001]


@pytest.mark.parametrize("kind", exact.KINDS)
@pytest.mark.parametrize("vocab", VOCABS)
def test_softmax(gpu: Emulator, kind: str, vocab: int) -> None:
    x = exact.logits_of(kind, 2, vocab)
    out = gpu.empty(x.shape, x.dtype)
    softmax(gpu, gpu.put(x, "logits"), out)
    exact.check(out, x)


def test_the_longest_vocabulary(gpu: Emulator) -> None:
    x = exact.logits_of("normal", 1, 262144)
    out = gpu.empty(x.shape, x.dtype)
    softmax(gpu, gpu.put(x, "logits"), out)
    exact.check(out, x)


@pytest.mark.parametrize("vocab", [700, 40000])
def test_the_largest_comes_last(gpu: Emulator, vocab: int) -> None:
    """What was added up before is worth less with every vector."""
    x = torch.linspace(-40, 40, vocab).repeat(2, 1)
    out = gpu.empty(x.shape, x.dtype)
    softmax(gpu, gpu.put(x, "logits"), out)
    exact.check(out, x)


HEATS = [1.0, 0.5, 2.0, 1e-3, 0.0, 7.0, -1.0, 1e-45, torch.inf]


@pytest.mark.parametrize("vocab", [50, 40000])
def test_a_temperature_for_each_row(gpu: Emulator, vocab: int) -> None:
    x, heats = torch.randn(len(HEATS), vocab), torch.tensor(HEATS)
    out = gpu.empty(x.shape, x.dtype)
    softmax(gpu, gpu.put(x, "logits"), out, heats)
    usual = heats != 1e-45
    exact.check(out[usual], x[usual], heats[usual])
    # 1 / temperature is no fp32 number: the largest entry alone is left.
    largest = torch.nn.functional.one_hot(x[~usual].argmax(-1), vocab).float()
    assert torch.equal(out[~usual], largest)


@pytest.mark.parametrize("heat", [0.0, torch.inf, 0.7])
@pytest.mark.parametrize("vocab", [50, 33000])
def test_masked_entries_are_zero_at_any_temperature(gpu: Emulator, vocab: int, heat: float) -> None:
    x = exact.logits_of("masked", 3, vocab)
    out = gpu.empty(x.shape, x.dtype)
    softmax(gpu, gpu.put(x, "logits"), out, heat)
    exact.check(out, x, heat)
    assert (out[x == -torch.inf] == 0).all()


@pytest.mark.parametrize("vocab", [1, 50, 33000])
def test_bad_rows(gpu: Emulator, vocab: int) -> None:
    x = torch.randn(4, vocab)
    x[0] = -torch.inf
    x[1, vocab // 2] = torch.nan
    x[2, vocab - 1] = torch.inf
    out = gpu.empty(x.shape, x.dtype)
    softmax(gpu, gpu.put(x, "logits"), out)
    assert (out[0] == 0).all()
    assert out[1:3].isnan().all()
    exact.check(out[3:], x[3:])
    heats = torch.tensor([1.0, 1.0, 1.0, torch.nan])
    softmax(gpu, gpu.put(x, "logits"), out, heats)
    assert out[3].isnan().all()


# Strides and offsets: vectors stay possible, or not because of one of the operands.
LAYOUTS = [(1004, 1000, 0, 0), (1001, 1000, 0, 0), (1000, 1003, 0, 0), (1000, 1000, 1, 0),
           (1000, 1000, 0, 3)]  # fmt: skip


@pytest.mark.parametrize(("in_stride", "out_stride", "in_offset", "out_offset"), LAYOUTS)
def test_rows_apart_and_unaligned(
    gpu: Emulator, in_stride: int, out_stride: int, in_offset: int, out_offset: int
) -> None:
    x = torch.randn(3, 1000)
    placed = gpu.put(x, "logits", strides=(in_stride, 1), offset=in_offset)
    out = gpu.empty(x.shape, x.dtype, strides=(out_stride, 1), offset=out_offset)
    softmax(gpu, placed, out)
    exact.check(out, x)


@pytest.mark.parametrize("vocab", [700, 33000])
def test_in_place(gpu: Emulator, vocab: int) -> None:
    x = torch.randn(2, vocab)
    placed = gpu.put(x, "logits")
    softmax(gpu, placed, placed)
    exact.check(placed, x)


def test_too_much_is_refused(gpu: Emulator) -> None:
    with pytest.raises(Failed, match="softmax: rows must be below"):
        gpu("softmax", rows=1, vocab=2**30, logits_stride=0)
    with pytest.raises(Failed, match="softmax: rows must be below"):
        gpu("softmax", rows=2**31, vocab=1)
