"""Where a mutator's decisions come from: one seed decides all of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal

__all__ = ["NUMBERS", "Chance", "Mutate"]

# Where sizes, counts and offsets turn over.
NUMBERS = (
    *(0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 100, 127, 128, 255, 256, 511, 512, 1000, 1023),
    *(1024, 4095, 4096, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x10000, 0xFFFFF, 0x7FFFFFFF, 0x80000000),
    *(0xFFFFFFFE, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1),
)


class Chance(random.Random):
    """Random choices, and the mutations of bytes that know no format.

    Args:
        seed: the same one makes the same choices.
        native: libFuzzer's own mutation of bytes, where it runs; it knows what the code compares
            its input with.
        words: of the format; they are put in as they are.
    """

    def __init__(
        self,
        seed: int,
        native: Callable[[bytes, int], bytes] | None = None,
        words: Sequence[bytes] = (),
    ) -> None:
        super().__init__(seed)
        self._native = native
        self.words = words

    def one_in(self, count: int) -> bool:
        """True once in `count` times."""
        return self.randrange(count) == 0

    def number(self, bits: int = 64) -> int:
        """A number of at most so many bits, often where something turns over."""
        if self.one_in(2):
            return self.choice(NUMBERS) & ((1 << bits) - 1)
        return self.getrandbits(self.randint(1, bits))

    def near(self, value: int, bits: int = 64) -> int:
        """A number that has to do with `value`."""
        change = self.choice((-1, 1, -8, 8, -512, 512, -value, value))
        made = value + change if self.one_in(2) else self.number(bits)
        return made & ((1 << bits) - 1)

    def bytes_near(self, data: bytes, limit: int = 1 << 16) -> bytes:
        """Other bytes, at most `limit`."""
        if self._native is not None and self.one_in(2):
            return bytes(self._native(data, max(limit, 1)))
        made = bytearray(data)
        for _ in range(self.choice((1, 1, 1, 2, 4))):
            self._change(made)
        return bytes(made[:limit])

    def _change(self, data: bytearray) -> None:
        at = self.randrange(len(data) + 1)
        end = min(len(data), at + self.choice((1, 1, 2, 4, 8, 32)))
        kind = self.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << self.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = self.choice((0, 255, 10, 32, self.randrange(256)))
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end] * self.choice((1, 2, 100))
        elif kind == 4:
            data[at:at] = self.randbytes(self.choice((1, 2, 4)))
        elif kind == 5 and self.words:
            word = self.choice(self.words)
            data[at : at + (len(word) if self.one_in(2) else 0)] = word
        else:
            size = self.choice((1, 2, 4, 8))
            data[at : at + size] = self.number(8 * size).to_bytes(size, self.choice(_ORDERS))


_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
# A mutator: the bytes and where decisions come from.
Mutate = Callable[[bytes, Chance], bytes]
