"""Hands the members of an archive on in an order of our own, whatever order they are stored in.

A member whose turn it is goes straight through. One that comes early waits on the disk, in a file
without a name: memory stays small whatever the sizes, and nothing is left of it when the process
ends, however it ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterable
from pathlib import Path

from ..system import atomic
from .tar_stream import TarMember

__all__ = ["in_order"]


def in_order(
    members: Iterable[TarMember], order: Iterable[str], folder: Path
) -> Generator[TarMember, None, None]:
    """All of `members`, by `order`; each has to be read before the next one is asked for.

    Args:
        members: of one archive, as :func:`conda_bridge.formats.tar_stream.members` has them.
        order: their paths, each once.
        folder: where members wait; it needs room for those that come before their turn.
    """
    turns = iter(order)
    due = next(turns, None)
    waiting: dict[str, tuple[TarMember, int]] = {}
    # Without a name from the start; where the file system can't do that, with one for a moment,
    # which the next writer into this folder would remove.
    with tempfile.TemporaryFile(prefix=atomic.PREFIX, dir=folder) as room:
        for member in members:
            if member.path != due:
                if not waiting:
                    room.seek(0)
                    room.truncate()
                waiting[member.path] = member, room.seek(0, os.SEEK_END)
                for data in member.chunks():
                    room.write(data)
                continue
            yield member
            due = next(turns, None)
            while due in waiting:
                early, start = waiting.pop(due)
                room.seek(start)
                yield early.again(room)
                due = next(turns, None)
    if due is not None or waiting:
        raise ValueError("the order names other members than there are")
