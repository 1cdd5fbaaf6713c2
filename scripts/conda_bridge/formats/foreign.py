"""Other projects' parsers, given no more than they can bear.

Texts of an artifact come here first. py-rattler ends the whole process where a dependency has some
thousands of parentheses, packaging recurses as deep as a marker does, and Python makes no number of
more than 4 300 digits. So a text is measured before it is given to one of them, and what is no
plain dependency is tried by a process of its own first, whose end is a refusal here.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import select
import signal
from collections.abc import Callable
from typing import Any, TypeVar

from packaging.licenses import canonicalize_license_expression
from packaging.markers import Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, parse_tag
from packaging.utils import BuildTag, NormalizedName, parse_wheel_filename
from packaging.version import Version

from . import limits

__all__ = [
    "Unreadable",
    "check",
    "conda_version",
    "entry_points",
    "evaluate",
    "license_expression",
    "match_spec",
    "pip_version",
    "requirement",
    "specifiers",
    "tags",
    "version_spec",
    "wheel_name",
]

_OPENING, _CLOSING = "([{", ")]}"
_LONG_NUMBER = re.compile(rf"\d{{{limits.DIGITS + 1},}}")
# Without groups, brackets, patterns and addresses: nothing in it can lie in another.
_PLAIN = re.compile(r"[\w .,<>=!~|*+-]*", re.ASCII)
_Made = TypeVar("_Made")
_PATIENCE = 20.0  # seconds, for a text of some thousand characters


class Unreadable(ValueError):
    """A text that its parser does not take, or must not be given."""


def check(text: object, length: int) -> str:
    """The text, if a parser can be given it.

    Args:
        text: of an artifact.
        length: characters that it may have.

    Raises:
        Unreadable: it is no text, too long, too deep, or has a number of too many digits.
    """
    if not isinstance(text, str):
        raise Unreadable(f"a text is expected, and this is {type(text).__name__}")
    if len(text) > length:
        raise Unreadable(f"{len(text)} characters, and at most {length} are read")
    depth = deepest = 0
    for character in text:
        if character in _OPENING:
            depth += 1
            deepest = max(depth, deepest)
        elif character in _CLOSING:
            depth -= 1
    if deepest > limits.TEXT_DEPTH:
        raise Unreadable(
            f"{deepest} brackets in one another, and at most {limits.TEXT_DEPTH} are read"
        )
    number = _LONG_NUMBER.search(text)
    if number:
        digits = number.end() - number.start()
        raise Unreadable(f"a number of {digits} digits, and at most {limits.DIGITS} are read")
    return text


# ---------------------------------------------------------------- packaging


def pip_version(text: object) -> Version:
    """A version as PEP 440 has it.

    Raises:
        Unreadable: it is none.
    """
    return _packaging(Version, check(text, limits.VERSION_LENGTH))


def specifiers(text: object) -> SpecifierSet:
    """Version specifiers as PEP 440 has them.

    Raises:
        Unreadable: they are none.
    """
    return _packaging(SpecifierSet, check(text, limits.DEPENDENCY_LENGTH))


def requirement(text: object) -> Requirement:
    """A requirement as PEP 508 has it.

    Raises:
        Unreadable: it is none.
    """
    return _packaging(Requirement, check(text, limits.DEPENDENCY_LENGTH))


def evaluate(marker: Marker, environment: dict[str, str]) -> bool:
    """Whether a marker holds in an environment.

    Raises:
        Unreadable: it compares what has no order, or asks for what there is not.
    """
    try:
        return marker.evaluate(environment)
    except (UndefinedComparison, UndefinedEnvironmentName, ValueError, KeyError) as error:
        raise Unreadable(_one_line(error)) from error


def wheel_name(file: str) -> tuple[NormalizedName, Version, BuildTag, frozenset[Tag]]:
    """What a wheel's file name says.

    Raises:
        Unreadable: it is none.
    """
    _check_tags(check(file, limits.FILE_NAME))
    return _packaging(parse_wheel_filename, file)


def tags(text: object) -> frozenset[Tag]:
    """The tags that compressed sets such as ``py2.py3-none-any`` stand for.

    Raises:
        Unreadable: it is no three sets, or stands for too many.
    """
    _check_tags(check(text, limits.DEPENDENCY_LENGTH))
    return _packaging(parse_tag, str(text))


def license_expression(text: object) -> str:
    """An SPDX licence expression in its normal spelling.

    Raises:
        Unreadable: it is none.
    """
    return _packaging(canonicalize_license_expression, check(text, limits.DEPENDENCY_LENGTH))


def _check_tags(text: str) -> None:
    count = 1
    for part in text.removesuffix(".whl").split("-")[-3:]:
        count *= part.count(".") + 1
    if count > limits.TAGS:
        raise Unreadable(f"sets of {count} tags, and at most {limits.TAGS} are read")


def _packaging(parse: Callable[[str], _Made], text: str) -> _Made:
    try:
        return parse(text)
    except ValueError as error:
        raise Unreadable(_one_line(error)) from error


def _one_line(error: BaseException) -> str:
    """What a parser said, without the drawing of where, in a line of some length."""
    said = str(error).partition("\n")[0].strip() or type(error).__name__
    return said if len(said) <= 300 else f"{said[:300]}..."


# ---------------------------------------------------------------- configparser


def entry_points(data: bytes | str, *, strict: bool = False) -> dict[str, dict[str, str]]:
    """The entry points of an ``entry_points.txt``: by group, then by name.

    Args:
        data: the file.
        strict: refuse a group or a name that is there twice.

    Raises:
        Unreadable: it is none, or too long.
    """
    if len(data) > limits.ENTRY_POINTS:
        raise Unreadable(f"{len(data)} bytes, and at most {limits.ENTRY_POINTS} are read")
    reader = configparser.RawConfigParser(delimiters=("=",), strict=strict)
    reader.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    try:
        reader.read_string(data if isinstance(data, str) else data.decode())
        return {group: dict(reader.items(group)) for group in reader.sections()}
    except (configparser.Error, UnicodeDecodeError, AttributeError) as error:
        # AttributeError: a line that goes on where nothing has begun, for some Pythons.
        raise Unreadable(_one_line(error)) from error


# ---------------------------------------------------------------- rattler


def match_spec(text: object) -> Any:
    """A ``rattler.MatchSpec``: a dependency of conda, with a name.

    Raises:
        Unreadable: it is none.
    """
    spec = _rattler("MatchSpec", check(text, limits.DEPENDENCY_LENGTH))
    if spec.name is None:
        raise Unreadable("it names no package")
    if spec.version is not None:
        version_spec(str(spec.version))  # what it is written as again may be longer
    return spec


def version_spec(text: object) -> Any:
    """A ``rattler.VersionSpec``: a version constraint of conda.

    Raises:
        Unreadable: it is none.
    """
    return _rattler("VersionSpec", check(text, limits.DEPENDENCY_LENGTH))


def conda_version(text: object) -> Any:
    """A ``rattler.Version``: a version as conda orders it.

    Raises:
        Unreadable: it is none.
    """
    return _rattler("Version", check(text, limits.VERSION_LENGTH))


def _rattler(kind: str, text: str) -> Any:
    import rattler  # only here: it takes its time

    parse = getattr(rattler, kind)
    if not _PLAIN.fullmatch(text):
        _try_elsewhere(parse, text)
    try:
        return parse(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # it has a type for every part, and a panic is no Exception
        raise Unreadable(_one_line(error)) from error


def _try_elsewhere(parse: Any, text: str) -> None:
    """Lets a copy of this process parse it first.

    Raises:
        Unreadable: that one did not survive, or did not come back.
    """
    if not hasattr(os, "fork"):
        raise Unreadable("more than a plain dependency, which is not tried on this system")
    alive, told = os.pipe()
    child = os.fork()
    if not child:
        _parse_and_end(parse, text)
    os.close(told)
    try:
        # The pipe is closed by the end of the child, however it ends.
        ready, _, _ = select.select([alive], [], [], _PATIENCE)
        if not ready:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(alive)
    if status:
        raise Unreadable("the parser of conda's own tools does not survive it")


def _parse_and_end(parse: Any, text: str) -> None:
    with contextlib.suppress(BaseException):
        import faulthandler
        import resource

        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(BaseException):
        str(parse(text))
    os._exit(0)
