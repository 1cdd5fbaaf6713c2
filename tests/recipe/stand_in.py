"""The stand-in for conda-forge: the records of ``conda_forge/``, and channels made of records.

``conda_forge/README.md`` says what in them is real, and how they are written.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]

FOLDER = Path(__file__).with_name("conda_forge")


@functools.cache
def conda_forge() -> tuple[Record, ...]:
    """Every record, with ``run_exports`` where conda-forge has some for it."""
    found: list[Record] = []
    for file in sorted(FOLDER.glob("*.json")):
        document = json.loads(file.read_text())
        for entry in document["entries"]:
            found += _expanded(entry)
        for name, versions in document.get("stand_ins", {}).items():
            found += (record(name, version, "stand_in_0") for version in versions)
    return tuple(found)


def record(name: str, version: str, build: str, build_number: int = 0, **more: object) -> Record:
    """A record of repodata.json, with empty lists where nothing is given."""
    return {
        "name": name,
        "version": version,
        "build": build,
        "build_number": build_number,
        "subdir": "linux-64",
        "depends": [],
        "constrains": [],
        **more,
    }


def write_channel(folder: Path, records: Iterable[Record]) -> str:
    """Makes ``folder`` a channel of metadata alone, and returns its address."""
    packages = {
        "{name}-{version}-{build}.conda".format_map(item): {
            key: value for key, value in item.items() if key != "run_exports"
        }
        for item in records
    }
    for subdir, content in (("linux-64", packages), ("noarch", {})):
        (folder / subdir).mkdir(parents=True)
        (folder / subdir / "repodata.json").write_text(
            json.dumps(
                {
                    "info": {"subdir": subdir},
                    "packages": {},
                    "packages.conda": content,
                    "repodata_version": 1,
                }
            )
        )
    return folder.as_uri()


def _expanded(entry: Mapping[str, Any]) -> Iterator[Record]:
    for values, template in itertools.product(entry.get("for_each", [{}]), entry["records"]):
        rest = {key: value for key, value in template.items() if key != "pythons"}
        for python in template.get("pythons", [None]):
            filled = _filled(rest, {**values, **(_of_python(python) if python else {})})
            number = int(filled.pop("build_number"))
            yield record(**filled, build_number=number)


def _of_python(version: str) -> dict[str, str]:
    major, minor = version.split(".")
    return {
        "python": version,
        "next_python": f"{major}.{int(minor) + 1}",
        "cp": f"{major}{minor}",
        # From 3.13 on the build says which of the two Pythons it is.
        "python_build": "cpython" if int(minor) < 13 else f"cp{major}{minor}",
    }


def _filled(value: Any, fields: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return value.format_map(fields)
    if isinstance(value, list):
        return [_filled(item, fields) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, fields) for key, item in value.items()}
    return value
