"""Devices, dtypes and tolerances of the op tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[torch.float16, torch.bfloat16, torch.float32], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    if request.param == torch.float32 and "device" in request.fixturenames:
        where = request.getfixturevalue("device")
        if where != "cpu":
            pytest.skip("float32 is for the CPU; test_errors.py has the TypeError")
    assert isinstance(request.param, torch.dtype)
    return request.param


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(2)
