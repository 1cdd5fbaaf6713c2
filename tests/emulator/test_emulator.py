"""The emulator reports planted bugs, with the place, and nothing in correct kernels."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from emulated import HERE, Emulator, Failed, Fault, build

N = 64


@pytest.fixture(scope="module")
def _planted(object_cache: Path) -> Emulator:
    sources = [HERE / "planted" / "planted.cu"]
    return Emulator(build(object_cache, "planted", sources, interface=False))


@pytest.fixture
def planted(_planted: Emulator) -> Iterator[Emulator]:
    yield _planted
    _planted.free_all()


def run(planted: Emulator, name: str, index: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    data = planted.put(torch.arange(N).float(), "data")
    out = planted.empty((N,), torch.float32, "out")
    message = ctypes.create_string_buffer(1000)
    status = planted.library.planted_run(
        name.encode(), ctypes.c_void_p(data.data_ptr()), ctypes.c_void_p(out.data_ptr()),
        N, ctypes.c_int64(index), message, len(message),
    )  # fmt: skip
    planted.check(status, message.value.decode())
    return data, out


def guards() -> int:
    """How many mappings nobody may touch; there is one below each thread's stack.

    Linux joins others that lie side by side, so that their number says less.
    """
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(line.split()[1] == "---p" for line in lines)


def test_the_stacks_are_given_back(planted: Emulator) -> None:
    """A process has 65,530 mappings, and the tests load more than a hundred libraries."""
    planted.release()
    before = guards()
    run(planted, "reverse")
    assert guards() >= before + N
    planted.release()
    assert guards() == before
    data, out = run(planted, "reverse")
    assert torch.equal(out, data.flip(0))


CORRECT = [
    ("reverse", 0),
    ("reverse in warp", 0),
    ("rounds", 0),
    ("shared array", 0),
    ("dynamic array", 0),
    ("half warp operations", 0),
    ("warp operations", 0),
    ("copied", 0),
    ("copied zeros", 0),
    ("copy at", N - 4),
    ("product", 0),
    ("product of bfloats", 0),
    ("matrices at", N - 4),
    ("atomic sum", 0),
    ("write at", N - 1),
    ("read at", N - 1),
    ("vector at", N - 4),
    ("one block writes", 0),
    ("read then write", 0),
    ("index overflow", 5),
    ("shift", 31),
    ("divide by", 2),
]


@pytest.mark.parametrize(("name", "index"), CORRECT)
def test_correct_kernels_run(planted: Emulator, name: str, index: int) -> None:
    run(planted, name, index)


def test_results(planted: Emulator) -> None:
    numbers = torch.arange(N).float()
    assert torch.equal(run(planted, "reverse")[1], numbers.flip(0))
    assert torch.equal(run(planted, "dynamic array")[1], numbers.flip(0))
    assert torch.equal(run(planted, "rounds")[1], torch.full((N,), 3.0))
    assert torch.equal(run(planted, "copied")[1], numbers.flip(0))
    assert not run(planted, "copied zeros")[1].any()
    assert run(planted, "product")[1].all()
    assert (run(planted, "atomic sum")[1] == N).all()
    assert run(planted, "product of bfloats")[1].all()
    assert run(planted, "warp operations")[1].all()
    assert run(planted, "half warp operations")[1].all()
    assert run(planted, "read then write")[0][:2].tolist() == [1.0, 2.0]


SHARED = "'__shared__ variables' "
BUGS = [
    # Thread 0 reads before the other has written at all; threads that read later, in a race.
    ("reverse without barrier", 0, f"read of 4 bytes at {SHARED}.*nothing wrote"),
    ("reverse in warp without sync", 0, f"read of 4 bytes at {SHARED}.*nothing wrote"),
    ("later half reversed without barrier", 0, f"race: read .*{SHARED}.* written unsync"),
    ("later half reversed after a shuffle", 0, f"race: read .*{SHARED}.* written unsync"),
    ("rounds without second barrier", 0, f"race: write .*{SHARED}.*several warps has read unsync"),
    ("barrier after return", 0, r"divergent barrier at planted.cu:\d+: thread \(40,0,0\) has left"),
    ("two barriers", 0, r"divergent barrier: it waits at planted.cu:\d+, but thread \(0,0,0\) at"),
    ("shared not written", 0, r"thread \(4,0,0\) .*read of 4 bytes .*nothing wrote"),
    ("shared of another block", 0, r"block \(1,0,0\) .*nothing wrote"),
    ("shared array too small", 0, "array index out of bounds at .*planted.cu"),
    (
        "dynamic array too small",
        0,
        "write of 4 bytes at 'dynamic shared memory' \\+ 252, which has",
    ),
    ("shuffle after return", 0, "waits for lane 7, which has left the kernel"),
    ("shuffle from outside of the mask", 0, "reads lane 16, which takes no part"),
    ("shuffle without itself", 0, "its own lane 16 is missing"),
    ("shuffle against barrier", 0, "waits for lane 1, which waits at a barrier"),
    ("copied without wait", 0, "where a cp.async is in flight|nothing wrote"),
    ("copied without barrier", 0, "race: read .*unsync|nothing wrote"),
    ("copied in an open group", 0, "where a cp.async is in flight"),
    ("copy left in flight", 0, "left the kernel with a cp.async in flight"),
    ("copied over what is read", 0, r"race: write of 16 bytes .*has read unsync"),
    ("copy at", 1, "misaligned read of 16 bytes at 'data'"),
    ("copy at", N, "out-of-bounds read of 16 bytes at 'data'"),
    ("matrices of half a warp", 0, "waits for lane 16, which has left the kernel"),
    ("matrices at", 1, "misaligned read of 16 bytes at 'dynamic shared memory'"),
    ("matrices at", N, "out-of-bounds read of 16 bytes at 'dynamic shared memory'"),
    # The thread itself is in order; the other warp has added, too, or comes later.
    ("atomic sum read early", 0, f"race: .*{SHARED}.* (written|read) unsync"),
    ("atomic sum written late", 0, f"race: write .*{SHARED}.* written unsync|nothing wrote"),
    ("atomic sum not written", 0, f"read of 4 bytes at {SHARED}.*nothing wrote"),
    (
        "write at",
        N,
        r"thread \(3,0,0\) of planted::write_at: out-of-bounds write of 4 .*'out' \+ 256",
    ),
    ("write at", -1, "out-of-bounds write of 4 bytes at 'out' - 4"),
    ("read at", N, r"out-of-bounds read of 4 bytes at 'data' \+ 256, which has 256 bytes"),
    ("read at", 2**40, "no memory of the kernel"),
    ("vector at", 1, "misaligned read of 16 bytes"),
    ("vector at", N - 3, "misaligned|out-of-bounds"),
    ("read output", 0, "read of 4 bytes at 'out' .*nothing wrote"),
    (
        "blocks write one place",
        0,
        r"block \(1,0,0\) .*race: write .*'out' \+ 0, which another block",
    ),
    ("block reads what another writes", 0, "race: .*another block"),
    ("shift in place", 0, "race: .*'data'"),
    ("read-only load of what is written", 0, "was read as read-only"),
    ("read then write without sync", 0, "race: write .*'data'.*several lanes of warp 0 has read"),
    ("index overflow", 5000, "signed multiplication overflows at .*planted.cu"),
    ("shift", 32, "shift by more than the width at .*planted.cu"),
    ("divide by", 0, "division by zero at .*planted.cu"),
]


@pytest.mark.parametrize(("name", "index", "words"), BUGS)
def test_bugs_are_reported(planted: Emulator, name: str, index: int, words: str) -> None:
    with pytest.raises(Fault, match=words) as error:
        run(planted, name, index)
    assert re.search(r"block \(\d+,0,0\) thread \(\d+,0,0\) of planted::\w+", str(error.value))


def test_a_fault_names_the_line(planted: Emulator) -> None:
    lines = (HERE / "planted" / "planted.cu").read_text().splitlines()
    line = next(i for i, text in enumerate(lines, 1) if "p.out[index] = 1.0f" in text)
    with pytest.raises(Fault, match=rf"\[planted\.cu:{line}\]"):
        run(planted, "write at", N)


def test_a_fault_does_not_spoil_the_next_launch(planted: Emulator) -> None:
    for _ in range(2):
        with pytest.raises(Fault):
            run(planted, "barrier after return")
        assert torch.equal(run(planted, "reverse")[1], torch.arange(N).float().flip(0))


def test_bytes_between_the_elements_of_a_tensor_are_out_of_bounds(planted: Emulator) -> None:
    data = planted.put(torch.ones(2, 3), "data", strides=(8, 1))
    out = planted.empty((2, 3), torch.float32, "out", strides=(8, 1))
    message = ctypes.create_string_buffer(1000)
    for index, words in [(2, "Success"), (3, "not a part of the tensor"), (8, "Success")]:
        for kernel in (b"write at", b"read at"):
            planted.library.planted_run(
                kernel, ctypes.c_void_p(data.data_ptr()), ctypes.c_void_p(out.data_ptr()),
                N, ctypes.c_int64(index), message, len(message),
            )  # fmt: skip
            assert words in message.value.decode()


@pytest.mark.parametrize(
    "name",
    [
        *["too many threads", "too deep a block", "too much shared memory", "too tall a grid"],
        "no blocks",
    ],
)
def test_the_limits_of_the_hardware_hold(planted: Emulator, name: str) -> None:
    with pytest.raises(Failed, match="cudaErrorInvalidConfiguration"):
        run(planted, name)


def test_conversions_are_those_of_the_hardware(planted: Emulator) -> None:
    """fp16 and bf16 of the stand-in headers are torch's, for every kind of number."""
    # Every binary16 number, the midpoints between them and the neighbours of both; and all else.
    halves = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    ordered = halves[halves.isfinite()].sort().values
    middle = (ordered[1:] + ordered[:-1]) / 2
    anything = torch.randint(-(2**31), 2**31, (20000,)).int().view(torch.float32)
    limits = torch.tensor([65519.9, 65520.0, 1e38, 1e-40])
    some = torch.cat([halves, middle, anything, limits])
    up, down = torch.full_like(some, float("inf")), torch.full_like(some, -float("inf"))
    x = torch.cat([some, some.nextafter(up), some.nextafter(down)])
    out16 = [torch.empty(len(x), dtype=torch.int16) for _ in range(2)]
    out32 = [torch.empty(len(x)) for _ in range(2)]
    planted.library.planted_convert(
        ctypes.c_void_p(x.data_ptr()), len(x),
        *[ctypes.c_void_p(out.data_ptr()) for out in out16 + out32],
    )  # fmt: skip
    number = ~x.isnan()
    for dtype, bits, back in zip((torch.half, torch.bfloat16), out16, out32, strict=True):
        expected = x.to(dtype)
        assert torch.equal(bits[number], expected.view(torch.int16)[number])
        assert torch.equal(back[number], expected.float()[number])
        assert bool(back[~number].isnan().all())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fp8_is_widened_exactly(planted: Emulator, dtype: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    wide = [torch.empty(256, dtype=torch.half), torch.empty(256, dtype=torch.bfloat16)]
    planted.library.planted_widen_fp8(
        ctypes.c_void_p(codes.data_ptr()), 256, dtype == torch.float8_e5m2,
        *[ctypes.c_void_p(out.data_ptr()) for out in wide],
    )  # fmt: skip
    expected = codes.view(dtype).float()
    if dtype == torch.float8_e4m3fn:  # its two NaNs are the numbers that would come next
        expected = torch.where(expected.isnan(), torch.where(codes < 128, 480.0, -480.0), expected)
    for out in wide:
        assert torch.equal(out.isnan(), expected.isnan())
        number = ~expected.isnan()
        assert torch.equal(out.float()[number], expected[number])
        assert torch.equal(out.signbit()[number], expected.signbit()[number])
