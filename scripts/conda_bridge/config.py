"""What a project says of itself in ``[tool.conda-bridge]``: the only reader of that table.

docs/conda-bridge-config.md describes every key. Without a table, or without a key, the defaults
here hold: they are right for a package that nobody has said anything about.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, cast

import msgspec

from .commands import FORGE
from .errors import ConfigError
from .system import toml

__all__ = [
    "TABLE",
    "Config",
    "Dropped",
    "FieldTable",
    "FoldTable",
    "LabelTable",
    "PageTable",
    "document",
    "find",
    "parse",
    "read",
]

TABLE = "tool.conda-bridge"
_DATA = re.compile(r"\.data/(data|scripts|headers|purelib|platlib)/")


class _Table(
    msgspec.Struct, rename="kebab", forbid_unknown_fields=True, frozen=True, omit_defaults=True
):
    """A TOML table whose keys have dashes where the attributes have underscores."""


class FieldTable(_Table, frozen=True):
    """A field of the label: one of `form`, `choices` and `characters` says what it looks like.

    Attributes:
        form: numbers in a text, e.g. ``cu{major:2}{minor}``; the value is ``12.4``.
        choices: one of a few words.
        characters: characters of this class, `least` to `most` of them (0: any number).
        none: how "no value" is spelled, e.g. ``cpu``.
        depends: the conda dependency whose version has to be the field's value, e.g. ``pytorch``.
    """

    form: str = ""
    choices: tuple[str, ...] = ()
    characters: str = ""
    least: int = 1
    most: int = 0
    none: str | None = None
    depends: str = ""


class LabelTable(_Table, frozen=True):
    """How builds are named.

    Attributes:
        build: template of the conda build string.
        local: template of the wheel's local version; it has the same fields.
        fields: by name. ``commit`` (7 to 40 hexadecimal digits) and ``number`` are there already.
        rank: the field by which builds of one version are ranked in ``build_number``.
        rank_step: build numbers that a rank leaves room for.
    """

    build: str
    local: str
    fields: dict[str, FieldTable] = {}
    rank: str = ""
    rank_step: int = 1000


class FoldTable(_Table, frozen=True):
    """A conda package whose files go into the wheel of the main one.

    Attributes:
        package: its name. The main package has to pin it exactly, or it is found beside it by the
            dependency's version.
        build: template of its build string; empty for any.
        files: prefix in that package -> prefix in the wheel.
    """

    package: str
    build: str = ""
    files: dict[str, str] = {}


class Dropped(_Table, frozen=True):
    """A dependency that the wheel does not need.

    Attributes:
        drop: why, in a few words.
    """

    drop: str


class PageTable(_Table, frozen=True):
    """The page for people beside the index.

    Attributes:
        title: its heading; empty for the package's name.
        summary: a sentence below it.
        none: field of the label -> what a person calls it when it has no value, e.g. ``CPU``.
        channels: conda channels that have what the packages depend on.
    """

    title: str = ""
    summary: str = ""
    none: dict[str, str] = {}
    channels: tuple[str, ...] = (FORGE,)


class Config(_Table, frozen=True):
    """The whole table.

    Attributes:
        package: the conda package that the table is about; empty for whatever is given.
        wheel_name: the wheel's distribution name; empty for the Name in the package's own
            ``.dist-info``, else the conda name.
        generator: of the wheel's ``WHEEL`` file.
        platform_tag: ``auto``, ``linux_x86_64`` or one manylinux policy.
        license: the SPDX expression that every artifact has to have; empty for any.
        rebuild: said where a package has to be built again, e.g. a command.
        info_section: of a compiled library, where its build wrote ``key=value`` lines; empty for
            none.
        hooks: a module with a ``HOOKS`` object (:class:`~conda_bridge.hooks.Hooks`).
        hooks_path: the folder that has it, relative to this file; of several modules of the name,
            an installed one is taken.
        index_layout: template of the folder of the wheel index; empty for one flat index.
        index_folders: templates of other folders that list the same wheels: all that have the
            values, such as ``{cuda}`` for those of every torch, or all there are, as ``simple``.
        index_nightly_folders: templates of folders that list development versions alone.
        label: how builds are named.
        fold: packages whose files go into the wheel.
        files: prefix in the conda package -> prefix in the wheel, or ``drop``; before the defaults.
        dependencies: conda name -> requirement's name, a whole requirement in place of conda's
            version, or ``{drop = "why"}``; before the defaults.
        provided_by: requirement's name -> shared libraries that it brings, as patterns.
        page: the page for people beside the index.
    """

    package: str = ""
    wheel_name: str = ""
    generator: str = "conda-bridge"
    platform_tag: str = "auto"
    license: str = ""
    rebuild: str = ""
    info_section: str = ""
    hooks: str = ""
    hooks_path: str = "."
    index_layout: str = ""
    index_folders: tuple[str, ...] = ()
    index_nightly_folders: tuple[str, ...] = ()
    label: LabelTable | None = None
    fold: tuple[FoldTable, ...] = ()
    files: dict[str, str] = {}
    dependencies: dict[str, str | Dropped] = {}
    provided_by: dict[str, tuple[str, ...]] = {}
    page: PageTable = PageTable()


def find(folder: Path) -> Path | None:
    """The nearest ``pyproject.toml`` at or above `folder` that has the table."""
    for candidate in (folder, *folder.parents):
        path = candidate / "pyproject.toml"
        if path.is_file() and _table(document(path), path.name == "pyproject.toml") is not None:
            return path
    return None


def read(path: Path) -> Config:
    """The table in `path`: ``[tool.conda-bridge]`` of a pyproject.toml, or a whole file of it.

    A file of another name may have the table at its top, or below ``[tool.conda-bridge]``.

    Raises:
        ConfigError: no such file, not TOML, no table, or a key that is unknown or of another type;
            the message has its path and what was expected.
    """
    table = _table(document(path), path.name == "pyproject.toml")
    if table is None:
        raise ConfigError(f"has no table [{TABLE}]", where=str(path))
    return parse(table, f"{path}: {TABLE}")


def parse(table: object, where: str) -> Config:
    """The configuration in a table that was read already.

    Raises:
        ConfigError: a key that is unknown or of another type, a place that no wheel has, or a
            package that is folded in twice or into itself.
    """
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        raise _explained(str(error), table, where) from None
    _check_places(config.files, f"{where}.files")
    folded = [config.package]
    for number, fold in enumerate(config.fold):
        _check_places(fold.files, f"{where}.fold[{number}].files")
        if fold.package in folded:
            raise ConfigError(
                f"{fold.package!r} is the main package"
                if fold.package == config.package
                else f"{fold.package!r} is there already",
                where=f"{where}.fold[{number}].package",
                expected="another package, whose files go into the wheel",
            )
        folded.append(fold.package)
    return config


def _check_places(files: dict[str, str], where: str) -> None:
    """A folder goes to a folder of the wheel, and a file to a file."""
    for prefix, target in files.items():
        parts = prefix.removesuffix("/").split("/")
        if not {"", ".", ".."}.isdisjoint(parts):
            raise ConfigError(
                f"{prefix!r} is no path in a package",
                where=where,
                expected='a file such as "etc/toy.conf", or a folder such as "share/doc/"',
            )
        if target == "drop":
            continue
        place = f"{where}.{prefix}"
        parts = target.removesuffix("/").split("/")
        if target and not {"", ".", ".."}.isdisjoint(parts):
            raise ConfigError(
                f"is {target!r}, which is no path in a wheel",
                where=place,
                expected='"drop", or a path such as "toy/data/"',
            )
        if prefix.endswith("/") != (not target or target.endswith("/")):
            folder = prefix.endswith("/")
            raise ConfigError(
                f"is {target!r}",
                where=place,
                expected=f'"drop", or a {"folder" if folder else "file"} of the wheel, as '
                f"{prefix!r} is one",
                fix=f"write {target + '/'!r}"
                if folder
                else f"write {target + prefix.rpartition('/')[2]!r}",
            )
        if target.startswith(".dist-info/") and not target.startswith(".dist-info/sboms/"):
            raise ConfigError(
                f"is {target!r}; the rest of that folder is written anew",
                where=place,
                expected='".dist-info/sboms/", for SBOMs that are outside of one',
            )
        if target.startswith(".data/") and not _DATA.match(target):
            raise ConfigError(
                f"is {target!r}, which no installer knows",
                where=place,
                expected=".data/data/, .data/scripts/, .data/headers/, .data/purelib/ or "
                ".data/platlib/, and a path below",
            )


def document(path: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        ConfigError: it is not there, cannot be read, or is not TOML.
    """
    try:
        return toml.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("there is no such file", where=str(path)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:  # UnicodeDecodeError is one, too
        raise ConfigError(f"is not TOML: {error}", where=str(path)) from error


def _table(document: dict[str, Any], pyproject: bool) -> object | None:
    tool = document.get("tool")
    if isinstance(tool, dict) and "conda-bridge" in tool:
        return cast("object", tool["conda-bridge"])
    return None if pyproject else document


def _explained(message: str, table: object, where: str) -> ConfigError:
    """msgspec's message, ``Expected `str`, got `int` - at `$.label.build```, for a person."""
    what, _, at = message.partition(" - at `")
    path = re.sub(r"^\$\.?", "", at.rstrip("`")).replace("[...]", ".<key>")
    place = f"{where}.{path}" if path else where
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if unknown:
        near = difflib.get_close_matches(unknown[1], _keys_at(path), 1)
        return ConfigError(
            f"there is no key {unknown[1]!r}",
            where=place,
            expected=", ".join(_keys_at(path)),
            fix=f"write {near[0]!r}" if near else "",
        )
    missing = re.search(r"missing required field `([^`]+)`", what)
    if missing:
        return ConfigError(f"the key {missing[1]!r} is missing", where=place)
    types = re.fullmatch(r"Expected `([^`]+)`, got `([^`]+)`", what)
    if types:
        return ConfigError(f"is {_in_words(types[2])}", where=place, expected=_in_words(types[1]))
    return ConfigError(what, where=place)


_WORDS = {
    **{"str": "a string", "int": "a whole number", "array": "a list", "object": "a table"},
    **{"float": "a number", "bool": "true or false", "null": "nothing"},
}


def _in_words(types: str) -> str:
    return " or ".join(_WORDS.get(name.strip(), name.strip()) for name in types.split("|"))


def _keys_at(path: str) -> list[str]:
    """The keys that may stand in the table at `path`."""
    parts = [part for part in re.split(r"[.\[]", path) if part]
    table: type[msgspec.Struct] = Config
    if parts[:1] == ["label"]:
        table = FieldTable if len(parts) > 1 else LabelTable
    elif parts[:1] == ["fold"]:
        table = FoldTable
    elif parts[:1] == ["dependencies"]:
        table = Dropped
    return [field.encode_name for field in msgspec.structs.fields(table)]
