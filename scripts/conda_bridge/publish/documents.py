"""All that clients read of a channel and its index, whatever knows what is published."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from ..project import Project
from . import channel_forms, pages, site_page
from .channel import CHANNEL
from .channel_forms import Listed
from .intake import SUBDIRS, WheelName
from .listing import Item
from .record import Published
from .unit import Unit, key_of
from .wheel_entry import INDEX, WheelEntry

__all__ = ["of_channel", "of_index", "of_record"]


def of_channel(subdir: str, packages: Mapping[str, Listed]) -> Unit:
    """The documents of a subdir, below the channel's folder.

    Args:
        subdir: such as ``linux-64``.
        packages: by file name.
    """
    lines = (
        f"{name}\n{item.record['sha256']}\n{item.yanked}" for name, item in sorted(packages.items())
    )
    make = functools.partial(channel_forms.documents, subdir, packages)
    return _below(CHANNEL, Unit(subdir, key_of(lines), lambda: _below_paths(subdir, make())))


def of_index(wheels: Iterable[WheelEntry], project: Project) -> list[Unit]:
    """The pages of the index, with its folder.

    Raises:
        LabelError: a name that the project does not give.
    """
    return [_below(INDEX, unit) for unit in pages.units(wheels, project)]


def of_record(files: Iterable[Published], project: Project) -> list[Unit]:
    """All documents of a record.

    Raises:
        LabelError: a name that the project does not give any more.
    """
    packages: dict[str, dict[str, Listed]] = {subdir: {} for subdir in SUBDIRS}
    files = list(files)
    wheels = []
    for item in files:
        file = item.file
        if item.pruned:
            continue
        if file.record is None:
            wheels.append(_wheel(item, project))
            continue
        subdir = file.folder.partition("/")[2]
        listed = Listed(file.record, file.run_exports, item.yanked is not None)
        packages.setdefault(subdir, {})[file.name] = listed
    units = [of_channel(subdir, found) for subdir, found in sorted(packages.items())]
    # Those for people last: nothing is named before it is there.
    return [*units, *of_index(wheels, project), _for_people(files, project)]


def _for_people(files: Iterable[Published], project: Project) -> Unit:
    items = [_item(item) for item in files if not item.pruned]
    key = hashlib.sha256(msgspec.msgpack.encode(items)).hexdigest()
    return Unit("people", key, lambda: site_page.documents(items, project))


def _below(folder: str, unit: Unit) -> Unit:
    return Unit(f"{folder}/{unit.name}", unit.key, lambda: _below_paths(folder, unit.make()))


def _below_paths(folder: str, made: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{path}": content for path, content in made.items()}


def _item(published: Published) -> Item:
    file = published.file
    return Item(
        name=file.name,
        folder=file.folder,
        sha256=file.sha256,
        size=file.size,
        facts=file.facts,
        uploaded=published.time,
        commit=published.commit or file.commit,
        yanked=published.yanked,
    )


def _wheel(item: Published, project: Project) -> WheelEntry:
    file = item.file
    return WheelEntry(
        WheelName.of(file.name, project),
        file.sha256,
        file.size,
        file.requires_python,
        file.metadata_sha256,
        yanked=item.yanked,
        uploaded=item.time,
    )
