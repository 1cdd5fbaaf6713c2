"""The types of what a conda package says of itself.

A channel's index repeats them for everybody: one package with a number where a text belongs, and
no client can read the index at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import ArtifactError
from . import foreign
from .json_reader import Field, check_fields

__all__ = ["check_index", "check_record"]


_SECONDS = 253_402_300_799  # what is above that is milliseconds to conda's tools
_LAST = 253_402_207_200  # seconds to where rattler's times end, two days before the year 10000
_HEXADECIMAL = {"md5": re.compile(r"[0-9a-f]{32}"), "sha256": re.compile(r"[0-9a-f]{64}")}


def _time(value: object) -> bool:
    if not isinstance(value, int) or not _count(value):
        return False
    return (value if value <= _SECONDS else value // 1000) <= _LAST


def _version(value: object) -> bool:
    try:
        foreign.conda_version(value)
    except foreign.Unreadable:
        return False
    return True


def _digest(key: str) -> Field:
    pattern = _HEXADECIMAL[key]
    name = f"{key} in hexadecimal, of small letters"
    return name, lambda value: isinstance(value, str) and bool(pattern.fullmatch(value))


def _text(value: object) -> bool:
    return isinstance(value, str)


def _optional_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _text_or_texts(value: object) -> bool:
    return isinstance(value, str) or _texts(value)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _whole(value: object) -> bool:
    return value is None or isinstance(value, int)


def _flag(value: object) -> bool:
    return _optional_text(value) or isinstance(value, bool)


def _noarch(value: object) -> bool:
    return value is None or isinstance(value, bool) or value in ("python", "generic")


def _lists(value: object) -> bool:
    return isinstance(value, dict) and all(map(_texts, value.values()))


_TEXT: Field = ("a text", _text)
_OPTIONAL: Field = ("a text or null", _optional_text)
_TEXTS: Field = ("a list of texts", _texts)
_COUNT: Field = ("a whole number, 0 or more", _count)
_INDEX: Mapping[str, Field] = {
    **dict.fromkeys(("name", "version", "build", "subdir"), _TEXT),
    **dict.fromkeys(
        ("arch", "features", "license", "license_family", "platform"),
        _OPTIONAL,
    ),
    "python_site_packages_path": _OPTIONAL,
    "build_number": ("a whole number", _whole),
    "timestamp": ("milliseconds since 1970, before the year 10000", _time),
    "depends": _TEXTS,
    "constrains": _TEXTS,
    "flags": _TEXTS,
    "extra_depends": ("lists of texts by name", _lists),
    "track_features": ("a text or a list of texts", _text_or_texts),
    "noarch": ("a text or true", _flag),
}
_REQUIRED = ("name", "version", "build", "build_number", "depends")
_RECORD: Mapping[str, Field] = {
    **_INDEX,
    "build_number": _COUNT,
    "noarch": ('"python" or "generic"', _noarch),
    "version": ("a version as conda reads it", _version),
    **{key: _digest(key) for key in _HEXADECIMAL},
    "size": _COUNT,
}


def check_index(index: Mapping[str, Any], where: str) -> None:
    """Raises ArtifactError unless ``info/index.json`` has the types that conda's tools read.

    Which values a type may have is for ``verify`` to say, and for :func:`check_record`.
    """
    check_fields(index, _INDEX, where)


def check_record(record: Mapping[str, Any], where: str) -> None:
    """The same for a package's record in a channel's index, which has to be right for everybody."""
    for key in _REQUIRED:
        if key not in record:
            raise ArtifactError(f"{key} is missing", where=where, expected=", ".join(_REQUIRED))
    check_fields(record, _RECORD, where)
