from __future__ import annotations

import pytest
import torch
from capi import Failed, Library
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ORDERS = {1: "little", 0: "big"}


def exact_pack(bits: list[bool], little_endian: int) -> list[int]:
    out = [0] * ((len(bits) + 7) // 8)
    for i, bit in enumerate(bits):
        out[i // 8] |= bit << (i % 8 if little_endian else 7 - i % 8)
    return out


@pytest.mark.parametrize("little_endian", ORDERS, ids=ORDERS.get)
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 63, 64, 65, 127, 128, 1000])
def test_packbits(lib: Library, generator: torch.Generator, n: int, little_endian: int) -> None:
    # Any byte but 0 is true.
    x = torch.randint(0, 256, (n,), generator=generator, dtype=torch.uint8)
    x *= torch.rand(n, generator=generator) < 0.5
    y = torch.full(((n + 7) // 8 + 3,), 77, dtype=torch.uint8)
    lib("packbits", n=n, x=x, y=y, total_out=(n + 7) // 8, little_endian=little_endian)
    assert y.tolist() == [*exact_pack(x.bool().tolist(), little_endian), 77, 77, 77]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    lengths=st.lists(st.integers(0, 200), max_size=8),
    room=st.lists(st.integers(0, 3), min_size=8, max_size=8),
    cut=st.integers(1, 40),
    little_endian=st.sampled_from([0, 1]),
    seed=st.integers(0, 1000),
)
def test_segments(
    lib: Library, lengths: list[int], room: list[int], cut: int, little_endian: int, seed: int
) -> None:
    """Segments with spare bytes (which become 0), packed in ranges cut anywhere."""
    generator = torch.Generator().manual_seed(seed)
    in_indptr, out_indptr, expected = [0], [2], [77, 77]
    x = torch.rand(sum(lengths), generator=generator) < 0.5
    for length, spare in zip(lengths, room, strict=False):
        bits = x[in_indptr[-1] : in_indptr[-1] + length].tolist()
        expected += exact_pack(bits, little_endian) + [0] * spare
        in_indptr.append(in_indptr[-1] + length)
        out_indptr.append(len(expected))
    expected += [77]
    y = torch.full((len(expected),), 77, dtype=torch.uint8)

    def split(n: int, grain: int) -> list[tuple[int, int]]:
        return [(i, min(i + cut, n)) for i in range(0, n, cut)]

    with lib.threads(split):
        lib(
            "packbits",
            n=x.numel(),
            num_segments=len(lengths),
            x=x,
            y=y,
            in_indptr=torch.tensor(in_indptr, dtype=torch.int32),
            out_indptr=torch.tensor(out_indptr, dtype=torch.int32),
            total_out=len(expected),
            little_endian=little_endian,
        )
    assert y.tolist() == expected


@pytest.mark.parametrize(
    ("in_indptr", "out_indptr", "message"),
    [
        ([0, 17], [0, 3], r"in_indptr\[1\] is 17, expected 0 to 16"),
        ([0, 16], [0, 4], r"out_indptr\[1\] is 4, expected 0 to 3"),
        ([0, 16], [0, 1], "segment 0 has 16 elements, but 1 bytes of output"),
        ([8, 4], [0, 1], r"in_indptr\[1\] is 4, expected 8 to 16"),
    ],
)
def test_refuses(lib: Library, in_indptr: list[int], out_indptr: list[int], message: str) -> None:
    y = torch.full((3,), 77, dtype=torch.uint8)
    with pytest.raises(Failed, match=message):
        lib(
            "packbits",
            n=16,
            num_segments=1,
            x=torch.ones(16, dtype=torch.uint8),
            y=y,
            in_indptr=torch.tensor(in_indptr, dtype=torch.int32),
            out_indptr=torch.tensor(out_indptr, dtype=torch.int32),
            total_out=3,
        )
    assert (y == 77).all()


def test_refuses_too_small_an_output(lib: Library) -> None:
    with pytest.raises(Failed, match="17 elements need 3 bytes, but y has 2"):
        lib("packbits", n=17, total_out=2)
