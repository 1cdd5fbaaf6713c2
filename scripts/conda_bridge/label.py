"""Labels: what names one build of a package, in the words of conda and in those of pip.

A label is a public version, the values of a project's own fields (its CUDA, its torch, a commit)
and a build number. A scheme is how a project spells them: a template of the conda build string and
one of the wheel's local version. Without templates a package has its version and build number.

PEP 440 and conda disagree on pre-releases: conda puts ``0.1.6rc1`` below ``0.1.6.dev1``. With a dot
before the letter (``0.1.6.rc1``) both orders are the same, so that is the conda spelling.

Runs on Python 3.8 and needs ``packaging`` only: setup.py imports it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packaging.version import Version

from .errors import ConfigError, LabelError
from .template import Choices, Field, Form, Template, Word

__all__ = [
    "CONDA_ENDINGS",
    "Label",
    "Scheme",
    "conda_spelling",
    "public_version",
    "same_version",
    "split_conda_file",
]

# What a conda package's name may end in. The second is older; conda-build still writes it where
# condarc has `conda_build: pkg_format: 1`.
CONDA_ENDINGS = (".conda", ".tar.bz2")
COMMIT = Word("commit", characters="0123456789abcdef", least=7, most=40)
_LONGEST = 255  # characters of a file name, of which a word is a part
NUMBER = Form("number", form="{number}")

_MAX_STEP = 10**9  # conda's tools keep a build number in 64 bits
_CONDA_PRE_RELEASE = re.compile(r"\.(a|b|rc)(?=\d)", re.ASCII)
_PRE_RELEASE = re.compile(r"(?<=\d)(a|b|rc)(?=\d)", re.ASCII)
_IN_BUILD = re.compile(r"[A-Za-z0-9_.+]*", re.ASCII)
_IN_LOCAL = re.compile(r"[a-z0-9.]*", re.ASCII)


@dataclass(frozen=True)
class Label:
    """What names one build.

    Attributes:
        version: the public version, as PEP 440 spells it.
        values: of the scheme's fields, by name and in their order; None where a field has none.
        number: the build number, 0 for the first build of a version.
    """

    version: str
    values: tuple[tuple[str, str | None], ...] = ()
    number: int = 0

    def get(self, field: str) -> str | None:
        """The value of a field; None where it has none, or where there is no such field."""
        return dict(self.values).get(field)

    @property
    def conda_version(self) -> str:
        """The version as conda has to spell it."""
        return conda_spelling(self.version)


class Scheme:
    """How a project spells its labels.

    Args:
        table: ``build``, ``local``, ``fields``, ``rank``; empty for a project without labels.
        where: the key that has the table, for messages.

    Raises:
        ConfigError: a template that is not reversible, or two that do not say the same; a field
            of no kind, or with lengths that no word has; characters that a build string or a local
            version cannot have; a rank that is no number, or leaves no room.
    """

    def __init__(self, table: Mapping[str, Any], where: str = "label") -> None:
        self.fields: dict[str, Field] = {"commit": COMMIT, "number": NUMBER}
        self.depends: dict[str, str] = {}
        for name, about in table.get("fields", {}).items():
            if name in self.fields:
                raise ConfigError(
                    f"the field {name!r} is there already",
                    where=f"{where}.fields.{name}",
                    expected="another name: every project has commit and number",
                )
            self.fields[name] = _field(name, about, f"{where}.fields.{name}")
            if about.get("depends"):
                self.depends[name] = about["depends"]
        self._where = where
        self.build = self.build_template(table["build"], f"{where}.build") if table else None
        self.local = Template(table["local"], self.fields, f"{where}.local") if table else None
        self.rank: str = table.get("rank", "")
        self.rank_step: int = table.get("rank-step", 1000)
        self._check(table)

    def build_template(self, text: str, where: str) -> Template:
        """A template of build strings with this scheme's fields.

        Raises:
            ConfigError: it is not reversible, or has what a build string cannot have.
        """
        template = Template(text, self.fields, where)
        if not _IN_BUILD.fullmatch(template.literals):
            raise ConfigError(
                f"{text!r} has a character that no build string has",
                where=where,
                expected="letters, digits, and _ . +",
            )
        if "number" not in template.names:
            raise ConfigError(
                f"{text!r} has no build number",
                where=where,
                expected="{number}, so that a build that is made again has a name of its own",
            )
        return template

    def _check(self, table: Mapping[str, Any]) -> None:
        if self.build is None or self.local is None:
            return
        where = f"{self._where}.local"
        if not _IN_LOCAL.fullmatch(self.local.literals):
            raise ConfigError(
                f"{table['local']!r} has a character that no local version has",
                where=where,
                expected="lower-case letters, digits, and dots",
            )
        rewritten = self.local.rewritten_by_pep440()
        if rewritten is not None:
            raise ConfigError(
                f"{table['local']!r} can be {rewritten!r}, which installers write in another way",
                where=where,
                expected="a letter in each part that may begin with 0, such as .g{commit}",
            )
        one, other = set(self.build.names) - {"number"}, set(self.local.names)
        if one != other:
            raise ConfigError(
                f"{{{min(one ^ other)}}} is in one of build and local, and not in the other",
                where=self._where,
                expected="the same fields, so that neither side loses one",
            )
        if self.rank and not isinstance(self.fields.get(self.rank), Form):
            raise ConfigError(
                f"{self.rank!r} is no field with numbers",
                where=f"{self._where}.rank",
                expected="the name of a field that has a form",
            )
        if not 1 <= self.rank_step <= _MAX_STEP:
            raise ConfigError(
                f"{self.rank_step} build numbers of a rank leave none of them room"
                if self.rank_step < 1
                else "more build numbers of a rank than an index has",
                where=f"{self._where}.rank-step",
                expected=f"a number from 1 to {_MAX_STEP}, such as 1000",
            )

    def label(
        self, version: str, values: Mapping[str, str | None], number: int = 0, where: str = ""
    ) -> Label:
        """The label of these values, all of them spelled to be sure that they can be.

        Raises:
            LabelError: one of them cannot be spelled, or is no field of this scheme.
        """
        names = self.local.names if self.local else ()
        unknown = set(values) - set(names)
        if unknown:
            raise LabelError(f"there is no field {min(unknown)!r}", where=where)
        made = Label(version, tuple((name, values.get(name)) for name in names), number)
        if self.local is not None and "+" in version:
            raise LabelError(
                f"{version!r} has a local part; that part says what it was built for",
                where=where,
                expected=version.partition("+")[0],
            )
        self.conda_build(made, where)
        self.local_version(made, where)
        return made

    def conda_build(self, label: Label, where: str = "") -> str:
        """The build string, such as ``cu124_torch24_0``; empty without templates."""
        return self._format(self.build, label, where)

    def fold_build(self, template: Template, label: Label, where: str = "") -> str:
        """The build string that a package to be folded in has beside one of this label."""
        return self._format(template, label, where)

    def local_version(self, label: Label, where: str = "") -> str:
        """What follows the ``+`` of a wheel's version, such as ``cu124torch2.4``; may be empty."""
        return self._format(self.local, label, where)

    def wheel_version(self, label: Label, where: str = "") -> str:
        """The version of the wheel, such as ``0.1.6+cu124torch2.4``."""
        local = self.local_version(label, where)
        return f"{label.version}+{local}" if local else label.version

    def index_build_number(self, label: Label) -> int:
        """The ``build_number`` of ``index.json``, which a solver ranks the builds of a version by.

        With a rank it is ``step * (100 * major + minor) + number``: of packages that fit, conda's
        solvers take the highest, and a newer CUDA outranks any rebuild for an older one.
        """
        value = label.get(self.rank) if self.rank else None
        numbers = [int(part) for part in value.split(".")] if value else []
        rank = 100 * numbers[0] + (numbers[1] if len(numbers) > 1 else 0) if numbers else 0
        return self.rank_step * rank + label.number

    def parse_build(self, text: str, version: str, where: str = "") -> Label:
        """The label of a conda version and a build string.

        Raises:
            LabelError: this scheme spells no such build string.
        """
        if self.build is None:
            raise LabelError("this project has no build strings of its own", where=where)
        values = self._parse(self.build, text, "build string", where)
        number = int(values.pop("number") or 0)
        return self.label(public_version(version, where), values, number, where)

    def parse_fold(self, template: Template, text: str, version: str, where: str = "") -> Label:
        """The label of a package to be folded in; fields that its template lacks have no value."""
        values = self._parse(template, text, "build string", where)
        number = int(values.pop("number") or 0)
        ordered = tuple((name, values[name]) for name in template.names if name != "number")
        return Label(public_version(version, where), ordered, number)

    def parse_wheel_version(self, version: str, number: int = 0, where: str = "") -> Label:
        """The label of a wheel's version.

        Raises:
            LabelError: it has no local version, or one that this scheme does not spell.
        """
        public, plus, local = version.partition("+")
        if self.local is None:
            raise LabelError("this project has no local versions of its own", where=where)
        if not plus:
            raise LabelError(
                f"{version!r} has no local part, so it does not say what it was built for",
                where=where,
                expected=f"<public version>+{self.local.example}",
            )
        values = self._parse(self.local, local, "label", where)
        return self.label(public, values, number, where)

    def _format(self, template: Template | None, label: Label, where: str) -> str:
        if template is None:
            return ""
        try:
            return template.format({**dict(label.values), "number": str(label.number)})
        except ValueError as error:
            raise LabelError(
                str(error), where=where, expected=f"as in {template.example}"
            ) from None

    @staticmethod
    def _parse(template: Template, text: str, what: str, where: str) -> dict[str, str | None]:
        try:
            return template.parse(text)
        except ValueError:
            raise LabelError(
                f"{text!r} is not a {what} of this project",
                where=where,
                expected=f"{template.text}, such as {template.example}",
            ) from None


def _field(name: str, about: Mapping[str, Any], where: str) -> Field:
    none = about.get("none")
    kinds = [key for key in ("form", "choices", "characters") if about.get(key)]
    if len(kinds) != 1:
        raise ConfigError(
            f"the field has {' and '.join(kinds) or 'no kind'}",
            where=where,
            expected="one of form, choices and characters",
        )
    if kinds == ["form"]:
        return Form(name, none, about["form"])
    if kinds == ["choices"]:
        return Choices(name, none, tuple(about["choices"]))
    least, most = about.get("least", 1), about.get("most", 0)
    if not 1 <= least <= _LONGEST or not 0 <= most <= _LONGEST or 0 < most < least:
        raise ConfigError(
            f"no word has {least} to {most} characters",
            where=where,
            expected="least from 1, and most no less than that; 0 for any number;"
            f" neither above {_LONGEST}",
        )
    return Word(name, none, about["characters"], least, most)


def split_conda_file(name: str) -> tuple[str, str]:
    """A conda package's file name in two, before and at its ending; empty for another file's.

    >>> split_conda_file("toy-1.0-h_0.tar.bz2")
    ('toy-1.0-h_0', '.tar.bz2')
    """
    for ending in CONDA_ENDINGS:
        if name.endswith(ending):
            return name[: -len(ending)], ending
    return "", ""


def conda_spelling(version: str) -> str:
    """A public version in the form that conda orders as PEP 440 does.

    >>> conda_spelling("0.1.6rc1.dev20261122")
    '0.1.6.rc1.dev20261122'
    """
    return _PRE_RELEASE.sub(r".\1", version)


def public_version(conda_version: str, where: str = "") -> str:
    """A conda version as PEP 440 spells it.

    >>> public_version("0.1.6.rc1")
    '0.1.6rc1'

    Raises:
        LabelError: PEP 440 has no such version, or would order it in another way (``2024a``, which
            it reads as the first alpha of 2024).
    """
    plain = _CONDA_PRE_RELEASE.sub(r"\1", conda_version)
    try:
        spelled = str(Version(plain))
    except ValueError:  # it is none, or has more digits than Python makes a number of
        spelled = ""
    # Both sides read 2024.08.01 as 2024.8.1.
    if not spelled or spelled != re.sub(r"(?<!\d)0+(?=\d)", "", plain):
        raise LabelError(
            f"{conda_version!r} is not a version that pip reads as it is written",
            where=where,
            expected="numbers with dots between them, and a, b, rc, post or dev, as in 1.2.0.rc1",
        )
    return spelled


def same_version(one: str, other: str) -> bool:
    """Whether two spellings are one version to PEP 440; of what is no version, the same text.

    >>> same_version("1.0", "1.0.0"), same_version("x", "x"), same_version("x", "1.0")
    (True, True, False)
    """
    try:
        return Version(one) == Version(other)
    except ValueError:  # as above
        return one == other
