"""The pages of the wheel index: of each folder its projects, of each project its wheels.

Every page is there twice: as HTML (PEP 503, which PEP 833 froze) and as JSON (PEP 691).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from ..label import Label
from ..project import Project
from .html_page import API_VERSION, as_html, page
from .unit import Unit, key_of
from .wheel_entry import WheelEntry, joined

__all__ = ["pages", "units"]

_Projects = Mapping[str, Sequence[WheelEntry]]


def pages(entries: Iterable[WheelEntry], project: Project) -> dict[str, bytes]:
    """Every page, by its path below the index folder; see :func:`units`."""
    return {name: text for unit in units(entries, project) for name, text in unit.make().items()}


def units(entries: Iterable[WheelEntry], project: Project) -> list[Unit]:
    """Every page, by its path below the index folder; the same for any order of `entries`.

    The pages of a project's wheels first, those that lead there after them, the overview last.
    """
    ordered = sorted(entries, key=lambda entry: entry.order)
    own: dict[str, dict[str, list[WheelEntry]]] = {} if project.layout else {"": {}}
    folders: dict[str, dict[str, list[WheelEntry]]] = {folder: {} for folder in own}
    for entry in ordered:
        own.setdefault(entry.name.folder, {}).setdefault(entry.name.project, []).append(entry)
        for folder in entry.name.folders:
            folders.setdefault(folder, {}).setdefault(entry.name.project, []).append(entry)
    made, roots = [], []
    for folder, projects in folders.items():
        for name, found in projects.items():
            place = joined(folder, name)
            key = key_of([place, *(entry.key for entry in found)])
            made.append(Unit(place, key, functools.partial(_project, place, name, found)))
        also = sorted({entry.name.folder for found in projects.values() for entry in found})
        also = [] if also == [folder] or not folder else also
        overview = bool(project.layout) and not folder
        roots.append(
            Unit(
                joined(folder, "index"),
                key_of([folder, str(overview), *projects, "", *also]),
                functools.partial(_root, folder, list(projects), also, overview),
            )
        )
    if project.layout:
        names = [entry.file for projects in own.values() for found in projects.values()
                 for entry in found]  # fmt: skip
        make = functools.partial(_overview, own, project)
        roots.append(Unit("overview", key_of(names), make))
    return made + roots


def _project(place: str, name: str, entries: Sequence[WheelEntry]) -> dict[str, bytes]:
    """The wheels of one project. One file a line: who adds one changes little else."""
    up = "../" * (place.count("/") + 2)
    versions = list(dict.fromkeys(entry.name.version for entry in entries))
    files = ",\n  ".join(entry.as_json(up) for entry in entries)
    text = (
        f'{{\n "meta": {{"api-version": "{API_VERSION}"}},\n "name": {json.dumps(name)},\n'
        f' "versions": {json.dumps(versions)},\n "files": [\n  {files}\n ]\n}}\n'
    )
    html = page(f"Links for {name}", [entry.as_html(up) for entry in entries], api=True)
    return {f"{place}/index.html": html.encode(), f"{place}/index.json": text.encode()}


def _root(
    folder: str, projects: Sequence[str], also: Sequence[str], overview: bool
) -> dict[str, bytes]:
    """The projects of one folder; for people, which folders its wheels are from.

    Clients take every link of such a page for a project, so those have none.
    """
    lines = [f'<a href="{quote(name)}/">{as_html(name)}</a><br>' for name in projects]
    if len(also) == 1:
        lines.append(f"<p>The same wheels as in {as_html(also[0])}/</p>")
    elif also:
        lines.append(f"<p>The wheels of {len(also)} folders, each an index by itself:</p>")
        lines += ["<ul>", *(f"<li>{as_html(name)}/</li>" for name in also), "</ul>"]
    document = {
        "meta": {"api-version": API_VERSION},
        "projects": [{"name": name} for name in projects],
    }
    text = json.dumps(document, indent=1) + "\n"
    made = {} if overview else {"index.html": page("Simple index", lines, api=True)}
    return {
        joined(folder, name): content.encode()
        for name, content in {**made, "index.json": text}.items()
    }


def _overview(folders: Mapping[str, _Projects], project: Project) -> dict[str, bytes]:
    """For people: which folder is for what. The project may have a page of its own."""
    labels: dict[str, Sequence[Label]] = {
        folder: [entry.name.label for found in projects.values() for entry in found]
        for folder, projects in folders.items()
    }
    text = project.hooks.index_page(labels, project.scheme)
    if text is None:
        lines = ["<p>One index for every folder. Take the one for what you have:</p>"]
        lines += [
            f'<a href="{quote(folder)}/">{as_html(folder)}</a><br>' for folder in sorted(folders)
        ]
        text = page("Wheels", lines)
    return {"index.html": text.encode()}
