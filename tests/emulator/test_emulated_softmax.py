"""The running softmax over as many keys as a long request has: no error adds up from tile to tile.

A whole kernel takes minutes for that here, so the softmaxes are called alone, over given scores.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from emulated import HERE, Emulator, build

KEYS, ROWS = 2**17, 16


@pytest.fixture(scope="module")
def _alone(object_cache: Path) -> Emulator:
    return Emulator(build(object_cache, "alone", [HERE / "alone" / "softmax.cu"], interface=False))


@pytest.fixture
def alone(_alone: Emulator) -> Iterator[Emulator]:
    torch.manual_seed(0)
    yield _alone
    _alone.free_all()


def scores_of(scale: float) -> torch.Tensor:
    """Rows ``[16, keys]`` in which an error of one direction would add up.

    Four of each kind: flat ones after an early maximum, random ones after an early maximum, the
    same without it, and ones that rise a little with every tile.
    """
    x = torch.randn(ROWS, KEYS, dtype=torch.float64)
    x[0:4] = torch.tensor([[-1.737], [-0.3], [-5.1], [-9.7]])
    x[4:8] *= torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    x[8:12] *= torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    x[12:16] += torch.tensor([[2.0], [5.0], [20.0], [100.0]]) * torch.linspace(0, 1, KEYS)
    x[0:4, 0] = 0.0
    x[4:8, 0] = x[4:8].amax(1) + 1
    # An offset, so that the largest scores are rounded where they are scaled.
    return ((x + 17.3) / scale).float()


@pytest.mark.parametrize(
    ("which", "scale"),
    [("softmax", math.log2(math.e) / math.sqrt(128)), ("softmax", 1.0), ("latent", 0.1)],
)
def test_many_keys(alone: Emulator, which: str, scale: float) -> None:
    scale = float(torch.tensor(scale))
    x = scores_of(scale)
    lse = alone.empty((ROWS,), torch.float32, "lse")
    share = alone.empty((ROWS,), torch.float32, "share")
    message = ctypes.create_string_buffer(1000)
    status = alone.library.alone_softmax(
        which.encode(), ctypes.c_void_p(alone.put(x, "scores").data_ptr()), KEYS,
        ctypes.c_float(scale), ctypes.c_void_p(lse.data_ptr()), ctypes.c_void_p(share.data_ptr()),
        message, ctypes.c_size_t(len(message)),
    )  # fmt: skip
    alone.check(status, message.value.decode())
    exponents = x.double() * scale * math.log(2)
    expected = torch.logsumexp(exponents, 1)
    error = (lse.double() - expected / math.log(2)).abs()
    assert error.max() < 1e-5, f"lse is off by {error.tolist()}"
    if which == "softmax":
        expected_share = torch.exp(torch.logsumexp(exponents[:, : KEYS // 2], 1) - expected)
        # Its sums are plain ones, as the tensor cores' are: a tile is added to what is there.
        error = (share.double() - expected_share).abs()
        assert error.max() < 5e-5, f"the share is off by {error.tolist()}"
