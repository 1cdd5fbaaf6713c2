"""Members in an order of our own: what waits does so on the disk, and without a name."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from factories import tar_bytes, tar_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conda_bridge.formats import tar_stream
from conda_bridge.formats.in_order import in_order
from conda_bridge.formats.tar_stream import TarMember

CONTENTS = {f"{number}": bytes([number]) * (number * 700_000) for number in range(5)}


def members_of(names: list[str]) -> list[TarMember]:
    archive = io.BytesIO(tar_bytes(tar_file(name, CONTENTS[name]) for name in names))
    return tar_stream.members(archive, "toy", max_bytes=1 << 30, max_members=9)  # type: ignore[return-value]


@given(st.permutations(list(CONTENTS)), st.permutations(list(CONTENTS)), st.booleans())
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_order_becomes_any_other(
    tmp_path: Path, stored: list[str], order: list[str], whole: bool
) -> None:
    found = []
    for member in in_order(members_of(stored), order, tmp_path):
        assert list(tmp_path.iterdir()) == []
        assert member.size == len(CONTENTS[member.path])
        if whole:  # what is not read here must not shift what follows
            assert b"".join(member.chunks(1 << 16)) == CONTENTS[member.path]
        found.append(member.path)
    assert found == order
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", [["0", "1", "4"], ["0"]])
def test_an_order_of_other_members_is_refused(tmp_path: Path, order: list[str]) -> None:
    with pytest.raises(ValueError, match="other members"):
        for _ in in_order(members_of(["1", "0"]), order, tmp_path):
            pass
