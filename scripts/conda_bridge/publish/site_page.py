"""The page for people beside the index: what to type for what they have, and all that is there.

One page a version, ``index.html`` that of the newest release, and ``versions/<version>.html`` the
others. A page is one file without anything from elsewhere. It is a table that needs no script; the
script chooses among builds and commands that were composed here, and has no rule of its own about
versions.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .. import commands
from ..hooks import Condition
from ..printable import printable
from ..project import Project
from .channel import CHANNEL
from .facts import arch_list
from .listing import (
    LISTING,
    Build,
    Item,
    Named,
    builds_of,
    listing,
    numeric,
    values_of,
    version_of,
)
from .wheel_entry import INDEX

if TYPE_CHECKING:
    import jinja2

__all__ = ["ADDRESS", "MARK", "PAGE", "VERSIONS", "documents"]

PAGE = "index.html"
VERSIONS = "versions"
# What a page that lies in a folder does not know, and its reader does: where it is.
ADDRESS = "<address>"
MARK = b'<meta name="generator" content="conda-bridge">'
_NARROW = "max-width: 60rem"  # as page.css has it
_TEMPLATES = Path(__file__).with_name("templates")
_CLIENTS = {
    "pip": "pip",
    "uv": "uv",
    "uv-project": "uv, in a project",
    "conda": "conda",
}
# The columns after those of the label's fields.
_FIXED = ("Size", "GPU code", "glibc", "Published", "Commit", "SHA-256")
_PACKAGE = "package"  # the field of a place with several projects


def documents(items: Iterable[Item], project: Project) -> dict[str, bytes]:
    """The pages and the listing, by their paths; the same for any order of `items`.

    Raises:
        LabelError: a name that the project does not give.
    """
    every = sorted(items, key=lambda item: (item.folder, item.name))
    if not every:
        return {}
    named = [Named.of(item, project) for item in every]
    title = project.config.page.title or project.config.package or "Packages and wheels"
    editions = _editions(named, project)
    shown = _first(editions)
    made = {LISTING: listing(every, title)}
    for version in editions:
        path = PAGE if version == shown else f"{VERSIONS}/{version}.html"
        made[path] = _page(version, editions, shown, title, project).encode()
    return made


def _editions(named: Sequence[Named], project: Project) -> dict[str, list[Named]]:
    """What each page shows, the newest version first; all on one where versions are of many."""
    if not project.config.package and project.scheme.local is None:
        return {"": list(named)}
    found: dict[str, list[Named]] = {}
    for one in sorted(named, key=lambda one: version_of(one.label.version), reverse=True):
        found.setdefault(one.label.version, []).append(one)
    return found


def _first(editions: Mapping[str, Sequence[Named]]) -> str:
    """The newest release that can be installed; without any, the newest version."""
    offered = [
        version
        for version, named in editions.items()
        if any(one.item.yanked is None for one in named)
    ] or list(editions)
    releases = [version for version in offered if version and not version_of(version).is_prerelease]
    return (releases or offered)[0]


def _page(
    version: str,
    editions: Mapping[str, Sequence[Named]],
    shown: str,
    title: str,
    project: Project,
) -> str:
    root = "" if version == shown else "../"
    named = editions[version]
    builds = builds_of(named, project)
    order = _order(named, builds)
    offered = {id(one) for build in builds for one in (*build.wheels, *build.packages)}
    columns = _columns(order, project)
    fields, diagnosis = _fields(builds, project), project.hooks.diagnosis()
    patterns = _patterns(project)
    script, style = _text("page.js").strip(), _text("page.css").strip()
    style += _captions([*(text for _, text in columns), *_FIXED])
    return _template().render(
        title=title,
        summary=project.config.page.summary,
        version=version,
        date=max((one.item.uploaded for one in named), default="")[:10],
        clients=_clients(builds),
        fields=fields,
        diagnosis=diagnosis,
        rows=[
            _row(one, f"f{number}", root, project, patterns, newest=id(one) in offered)
            for number, one in enumerate(order)
        ],
        columns=[*(text for _, text in columns), *_FIXED],
        fields_of_rows=[name for name, _ in columns],
        data=_in_html(
            {
                "address": ADDRESS,
                "root": root or "./",
                "patterns": patterns,
                "fields": [
                    {"id": field["id"], "title": field["title"], "values": dict(field["values"])}
                    for field in fields
                ],
                **_choices(builds, order, project),
                "facts": [fact._asdict() for fact in diagnosis.facts] if diagnosis else [],
                "client": diagnosis.client._asdict() if diagnosis and diagnosis.client else None,
            }
        ),
        versions=[
            {
                "version": other,
                "href": _relative(other, shown, root),
                "current": other == version,
                "files": len(found),
                "date": max((one.item.uploaded for one in found), default="")[:10],
            }
            for other, found in editions.items()
            if other
        ],
        newest="" if version == shown else shown,
        root=root,
        index=f"{root}{INDEX}/",
        listing=f"{root}{LISTING}",
        address=ADDRESS,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _relative(version: str, shown: str, root: str) -> str:
    if version == shown:
        return f"{root}{PAGE}"
    return f"{root}{VERSIONS}/{quote(version)}.html"


def _hash(text: str) -> str:
    """As a content security policy names a text that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _in_html(document: object) -> str:
    """JSON that ends no element and begins none."""
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# ---------------------------------------------------------------- what can be chosen


def _clients(builds: Sequence[Build]) -> dict[str, str]:
    """The installers that there is something for."""
    pip, conda = any(build.wheels for build in builds), any(build.packages for build in builds)
    return {key: title for key, title in _CLIENTS.items() if (conda if key == "conda" else pip)}


def _fields(builds: Sequence[Build], project: Project) -> list[dict[str, Any]]:
    """What is chosen by, each with its values in their order."""
    found: dict[str, set[str]] = {}
    packages = {build.package for build in builds}
    if len(packages) > 1:
        found[_PACKAGE] = packages
    for build in builds:
        for name, value in values_of(build.label):
            found.setdefault(name, set()).add(value or "")
    titles = {_PACKAGE: "package", **project.hooks.fact_titles}
    return [
        {
            "id": name,
            "title": titles.get(name, name),
            "values": [
                (value, value or _nothing(name, project)) for value in sorted(values, key=_by_size)
            ],
        }
        for name, values in found.items()
    ]


def _nothing(field: str, project: Project) -> str:
    """How a person calls it that a field has no value."""
    spelled = getattr(project.scheme.fields.get(field), "none", None)
    return project.config.page.none.get(field) or spelled or "none"


def _by_size(value: str) -> tuple[tuple[int, ...], str]:
    return numeric(value), value


def _choices(builds: Sequence[Build], order: Sequence[Named], project: Project) -> dict[str, Any]:
    """What the script chooses from, and what has to hold for each."""
    places = {id(one): number for number, one in enumerate(order)}
    conditions: dict[Condition, int] = {}
    described = []
    several = len({build.package for build in builds}) > 1
    for build in builds:
        facts = build.facts
        asked = project.hooks.conditions(build.label, arch_list(facts.gpu_code), facts.glibc)
        values: dict[str, str] = {_PACKAGE: build.package} if several else {}
        values.update((name, value or "") for name, value in values_of(build.label))
        described.append(
            {
                "values": values,
                "words": _words(build),
                "wheels": [places[id(one)] for one in build.wheels],
                "packages": [places[id(one)] for one in [*build.packages, *build.folded]],
                "conditions": [conditions.setdefault(one, len(conditions)) for one in asked],
            }
        )
    return {
        "builds": described,
        "conditions": [_without_defaults(one) for one in conditions],
    }


def _without_defaults(condition: Condition) -> dict[str, Any]:
    defaults = Condition._field_defaults
    return {
        key: value
        for key, value in condition._asdict().items()
        if key not in defaults or value != defaults[key]
    }


# ---------------------------------------------------------------- commands


def _patterns(project: Project) -> dict[str, str]:
    """The command of each installer, with places for the words of a build."""
    index, channel = f"{ADDRESS}/{INDEX}/{{folder}}", f"{ADDRESS}/{CHANNEL}"
    wheel, spec = "{wheel}", "{conda}"
    more = project.config.page.channels
    return {
        "pip": commands.pip(wheel, index),
        "uv": commands.uv(wheel, index),
        "uv-project": commands.uv_project("{name}", wheel, index),
        "pip-direct": commands.pip_direct(wheel),
        "uv-direct": commands.uv_direct(wheel),
        "uv-project-direct": commands.uv_project_direct(wheel),
        "conda": commands.conda([spec], channel, more),
    }


def _words(build: Build) -> dict[str, Any]:
    """Those of a build: of no wheel or package, none."""
    words: dict[str, Any] = {}
    # Without a label, a wheel is named by its address, and of several nobody knows which is meant.
    if build.wheels and (not _is_direct(build.wheels[0]) or len(build.wheels) == 1):
        words.update(_wheel_words(build.wheels[0]))
    if build.packages:
        words["conda"] = build.packages[0].spec
    return words


def _is_direct(wheel: Named) -> bool:
    return "+" not in wheel.version


def _direct_words(wheel: Named) -> dict[str, Any]:
    place = f"{ADDRESS}/{wheel.item.path}"
    return {"wheel": commands.direct(wheel.package, place, wheel.item.sha256), "direct": True}


def _wheel_words(wheel: Named) -> dict[str, Any]:
    if _is_direct(wheel):
        return _direct_words(wheel)
    return {
        "name": wheel.package,
        "wheel": f"{wheel.package}=={wheel.version}",
        "folder": f"{wheel.folder}/" if wheel.folder else "",
    }


def _commands(
    one: Named, project: Project, patterns: Mapping[str, str], *, newest: bool
) -> dict[str, str]:
    """The commands that take this artifact; of a package that comes with others, none.

    pip has no way to name a rebuild and takes the newest, so an older one is named by its address.
    """
    if one.item.yanked is not None or (not one.item.is_wheel and one.package in project.folds):
        return {}
    if not one.item.is_wheel:
        return {"conda": patterns["conda"].replace("{conda}", one.spec)}
    words = _wheel_words(one) if newest else _direct_words(one)
    found = {}
    for client in ("pip", "uv"):
        text = patterns[f"{client}-direct" if words.get("direct") else client]
        for key in ("folder", "name", "wheel"):
            text = text.replace(f"{{{key}}}", words.get(key, ""))
        found[client] = text
    return found


# ---------------------------------------------------------------- the table


def _order(named: Sequence[Named], builds: Sequence[Build]) -> list[Named]:
    """The files as the table has them: those of each build together, and then the others."""
    placed: dict[int, Named] = {}
    for build in builds:
        for one in (*build.wheels, *build.packages):
            placed[id(one)] = one
    for build in builds:
        for one in build.folded:
            placed[id(one)] = one
    for one in sorted(named, key=lambda one: (one.package, one.item.name)):
        placed.setdefault(id(one), one)
    return list(placed.values())


def _columns(order: Sequence[Named], project: Project) -> list[tuple[str, str]]:
    """The fields of the labels, each with its title; a column of their own each."""
    titles = project.hooks.fact_titles
    names = {name: None for one in order for name, _ in values_of(one.label)}
    return [(name, titles.get(name, name)) for name in names]


def _captions(columns: Sequence[str]) -> str:
    """What a narrow screen shows before each cell, where it has no room for the head."""
    rules = []
    for number, text in enumerate(columns, 2):
        escaped = "".join(
            char if char.isalnum() or char in " -" else f"\\{ord(char):06x}" for char in text
        )
        rules.append(f'td:nth-child({number})::before {{ content: "{escaped}"; }}')
    return f"\n@media ({_NARROW}) {{\n" + "\n".join(rules) + "\n}"


def _row(
    one: Named,
    place: str,
    root: str,
    project: Project,
    patterns: Mapping[str, str],
    *,
    newest: bool,
) -> dict[str, Any]:
    item, values = one.item, dict(values_of(one.label))
    return {
        "id": place,
        "name": item.name,
        "href": root + item.path,
        "values": {name: value or _nothing(name, project) for name, value in values.items()},
        "size": size(item.size),
        "bytes": item.size,
        "code": ", ".join(arch_list(item.facts.gpu_code)),
        "glibc": item.facts.glibc,
        "date": item.uploaded[:10],
        "sha256": item.sha256,
        "commit": printable(item.commit or one.label.get("commit") or ""),
        "yanked": None if item.yanked is None else printable(item.yanked),
        "commands": _as_text("\n".join(_commands(one, project, patterns, newest=newest).values())),
    }


def _as_text(text: str) -> str:
    """For the content of an element, where quotation marks are themselves."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def size(number: int) -> str:
    """Bytes for people.

    >>> size(999), size(5_770_000), size(2_500_000_000)
    ('999 B', '5.77 MB', '2.50 GB')
    """
    for unit, bytes_of in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= bytes_of:
            return f"{number / bytes_of:.{2 if number < 10 * bytes_of else 1}f} {unit}"
    return f"{number} B"


# ---------------------------------------------------------------- templates


@cache
def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    import jinja2  # only here: most programs write no page

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html")
