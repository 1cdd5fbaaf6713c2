"""Which project on PyPI a conda package is, and the other way round.

Names are looked up in four places; the first that knows one has the word:

1. a mapping of the user's (:func:`read_mapping`);
2. ``[tool.conda-bridge.dependencies]`` of the project;
3. :mod:`.name_tables`: names that differ, names that are the same, and packages that are no Python
   project, whose names on PyPI belong to somebody else (``zlib``, ``openssl``, ``snappy``);
4. the requirements that the package itself states in its ``METADATA``: those are PyPI's names.

A conda dependency that none of them knows is an error and never a guess. A name alone does not tell
a Python project from a C library, and what PyPI has under it may be anybody's. The other way there
is less to fear: conda-forge calls a Python project as PyPI does unless the name was taken, so a
name that no table has is kept, and :attr:`Answer.assumed` says so. Only a name that conda has for
something else is an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from ..config import Dropped
from ..errors import ArtifactError, ConfigError
from ..formats import json_reader
from ..project import Project
from ..system import toml
from .name_tables import DIFFERENT, NO_PYTHON_PATTERNS, NOT_PYTHON, SAME, TO_CONDA

__all__ = ["Answer", "conda_name", "find_conda", "find_pip", "pip_name", "read_mapping"]

_CONDA = re.compile(r"[a-z0-9_][a-z0-9_.-]*", re.ASCII)
_PIP = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_MAX_MAPPING = 64 << 20
_STRANGER = Project()


@dataclass(frozen=True)
class Answer:
    """What is known of a name.

    Attributes:
        name: on the other side; None where nothing is needed there.
        why: who says so, or why nothing is needed.
        assumed: the name was kept because nobody knows another.
    """

    name: str | None
    why: str
    assumed: bool = False


def pip_name(
    conda: str,
    project: Project = _STRANGER,
    mapping: Mapping[str, str | None] | None = None,
    *,
    required: Collection[str] = (),
    where: str = "",
) -> str | None:
    """The name on PyPI of a conda package; None where a wheel needs nothing in its place.

    Nothing is needed for what is no Python project. Whether the libraries that it brought are in
    the wheel, or on every Linux, the binaries tell and not this name.

    Args:
        conda: its name.
        project: whose configuration has further names.
        mapping: the user's own, before all others.
        required: names in the ``Requires-Dist`` of the package that has the dependency.
        where: that package, for messages.

    Raises:
        ArtifactError: nobody has said a name for it.
    """
    return find_pip(conda, project, mapping, required=required, where=where).name


def find_pip(
    conda: str,
    project: Project = _STRANGER,
    mapping: Mapping[str, str | None] | None = None,
    *,
    required: Collection[str] = (),
    where: str = "",
) -> Answer:
    """As :func:`pip_name`, with the reason."""
    if mapping is not None and conda in mapping:
        return Answer(mapping[conda], "the mapping file says so")
    said = project.config.dependencies.get(conda)
    if isinstance(said, Dropped):
        return Answer(None, said.drop)
    if said is not None:
        return Answer(said, "the configuration says so")
    if conda in DIFFERENT:
        return Answer(DIFFERENT[conda], "known to conda-bridge")
    if conda in SAME:
        return Answer(conda, "known to conda-bridge")
    if conda in NOT_PYTHON:
        return Answer(None, NOT_PYTHON[conda])
    # Before the patterns: libcst is a project on PyPI, and who requires it says so.
    wanted = canonicalize_name(conda)
    for name in required:
        if canonicalize_name(name) == wanted:
            return Answer(name, "the package's own METADATA requires it")
    for pattern, why in NO_PYTHON_PATTERNS.items():
        if re.fullmatch(pattern, conda):
            return Answer(None, why)
    raise ArtifactError(
        f"depends on {conda!r}, and nobody has said what that is on PyPI",
        where=where,
        expected="a name in a table, or in the package's own METADATA (Requires-Dist)",
        fix=(
            f'say it in [tool.conda-bridge.dependencies]: {_key(conda)} = "<name on PyPI>", or '
            f'{_key(conda)} = {{ drop = "<why no wheel needs it>" }}; or in a mapping file'
        ),
    )


def conda_name(
    pip: str,
    project: Project = _STRANGER,
    mapping: Mapping[str, str | None] | None = None,
    *,
    own: bool = False,
    where: str = "",
) -> str:
    """The name in conda of a project on PyPI.

    Args:
        pip: its name, in any spelling.
        project: whose configuration has further names.
        mapping: the user's own, before all others; conda name -> PyPI name.
        own: of a package that is made of the project's own wheel, not of a requirement. What conda
            has in its place for others to require is another package.
        where: the wheel that requires it, for messages.

    Raises:
        ArtifactError: conda has something else under the name, and nobody has said another.
    """
    name = find_conda(pip, project, mapping, own=own, where=where).name
    assert name is not None  # no table says that conda needs nothing
    return name


def find_conda(
    pip: str,
    project: Project = _STRANGER,
    mapping: Mapping[str, str | None] | None = None,
    *,
    own: bool = False,
    where: str = "",
) -> Answer:
    """As :func:`conda_name`, with the reason, and whether the name is only assumed."""
    wanted = canonicalize_name(pip)
    # A whole requirement may stand there, tzdata>=2024.1.
    said = {
        key: found[0]
        for key, value in project.config.dependencies.items()
        if isinstance(value, str) and (found := _PIP.match(value))
    }
    for table, why in (
        (mapping or {}, "the mapping file says so"),
        (said, "the configuration says so"),
        (DIFFERENT, "known to conda-bridge"),
    ):
        for conda, name in table.items():
            if name is not None and canonicalize_name(name) == wanted:
                return Answer(conda, why)
    if wanted in TO_CONDA and not own:
        return Answer(TO_CONDA[wanted], "known to conda-bridge")
    if wanted in SAME:
        return Answer(wanted, "known to conda-bridge")
    taken = NOT_PYTHON.get(wanted)
    if taken is None and wanted in (mapping or {}) and (mapping or {})[wanted] is None:
        taken = "the mapping file says that it is no Python project"
    if taken is not None:
        raise ArtifactError(
            f"requires {pip!r}, and conda has something else under that name ({taken})",
            where=where,
            expected="the name of the conda package in a table",
            fix=(
                f'say it in [tool.conda-bridge.dependencies]: "<name in conda>" = "{wanted}"; '
                "or in a mapping file"
            ),
        )
    return Answer(str(wanted), "the same name as on PyPI", assumed=True)


def _key(name: str) -> str:
    """A name as TOML wants it before the equals sign."""
    return f'"{name}"' if "." in name else name


# ---------------------------------------------------------------- mapping files


def read_mapping(path: Path) -> dict[str, str | None]:
    """A file of names: conda name -> PyPI name, or None for what is no Python project.

    Either TOML, ``pytorch = "torch"`` and ``zlib = false``, or JSON, an object of the same with
    ``null`` or ``false``. What conda-forge publishes is read too, a list (or an object) of objects
    with ``conda_name`` and ``pypi_name``.

    Raises:
        ConfigError: no such file, no such form, or something that is no name.
    """
    where = str(path)
    try:
        if path.stat().st_size > _MAX_MAPPING:
            raise ConfigError(f"is larger than {_MAX_MAPPING} bytes", where=where)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("there is no such file", where=where) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=where) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8: {error}", where=where) from error
    document = _json(text, where) if path.suffix == ".json" else _toml(text, where)
    mapping: dict[str, str | None] = {}
    for conda, pip in _pairs(document, where):
        mapping.setdefault(_conda(conda, where), _pip(pip, f"{where}: {conda}"))
    return mapping


def _json(text: str, where: str) -> object:
    try:
        return json_reader.parse(text.encode(), where)
    except ArtifactError as error:
        raise ConfigError(f"is not JSON: {error.what}", where=where) from error


def _toml(text: str, where: str) -> object:
    try:
        return toml.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"is not TOML: {error}", where=where, fix="a JSON file has to end in .json"
        ) from error


def _pairs(document: object, where: str) -> Iterator[tuple[object, object]]:
    rows = document
    if isinstance(document, dict):
        if not any(
            isinstance(value, dict) and "conda_name" in value for value in document.values()
        ):
            yield from document.items()
            return
        rows = list(document.values())
    if not isinstance(rows, list):
        raise ConfigError(
            f"has a {type(rows).__name__} at its top",
            where=where,
            expected="conda name -> PyPI name, or conda-forge's list of names",
        )
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not {"conda_name", "pypi_name"} <= set(row):
            raise ConfigError(
                f"is {str(row)[:80]}",
                where=f"{where}: entry {number}",
                expected="an object with conda_name and pypi_name",
            )
        yield row["conda_name"], row["pypi_name"]


def _conda(name: object, where: str) -> str:
    if not isinstance(name, str) or not _CONDA.fullmatch(name):
        raise ConfigError(
            f"{str(name)[:80]!r} is no name of a conda package",
            where=where,
            expected="lower-case letters, digits, and - _ .",
        )
    return name


def _pip(name: object, where: str) -> str | None:
    if name is None or name is False:
        return None
    if not isinstance(name, str) or not _PIP.fullmatch(name):
        raise ConfigError(
            f"is {str(name)[:80]!r}",
            where=where,
            expected="the name of a project on PyPI, or false where it is none",
        )
    return name
