"""Words that travel as arguments of kernels."""

from __future__ import annotations

import pytest
import torch
from emulated import Emulator


@pytest.mark.parametrize(("count", "launches"), [(0, 0), (1, 1), (1020, 1), (1021, 2), (5000, 5)])
def test_words_arrive_and_nothing_of_the_host_is_kept(
    gpu: Emulator, count: int, launches: int
) -> None:
    words = torch.randint(-(2**31), 2**31 - 1, (count,), dtype=torch.int32)
    out = gpu.empty((count,), torch.int32, "out", offset=1)
    expected, before = words.clone(), gpu.library.fi_emulator_launches()
    gpu("upload_words", count=count, words=words, out=out, stream=0x77)
    words.zero_()
    assert torch.equal(out, expected)
    assert gpu.library.fi_emulator_launches() == before + launches
