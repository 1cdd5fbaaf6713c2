"""The one place that composes and parses what names a build: versions, build strings, file names.

Also what the commands name that install one build and no other, for all that print some;
``conda_bridge.commands`` spells them.

A variant is (CUDA, torch minor). A label is a variant with a public version, a build number and,
for a nightly, a commit. Nothing here reads a compiler or a torch: setup.py, the recipes and the
bridge measure, this module spells. The templates are those of ``[tool.conda-bridge]`` in
pyproject.toml, which the bridge, verify and the index read too; what only flashinfer's labels keep
to is here.

Runs on Python 3.8 and needs ``packaging`` only, before 3.11 also ``tomli`` or pip: setup.py imports
it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from packaging.version import Version

from conda_bridge import commands
from conda_bridge import label as generic
from conda_bridge.errors import ConfigError, LabelError
from conda_bridge.label import CONDA_ENDINGS, Scheme, conda_spelling, split_conda_file
from conda_bridge.template import Template

try:
    from conda_bridge.system import toml
except ImportError:  # a conda host environment with an older Python: the recipes ask for pip alone
    from pip._vendor import tomli as toml  # type: ignore[no-redef]

__all__ = [
    "CONDA_ENDINGS",
    "LIBRARY_NAME",
    "NAME",
    "Label",
    "LibraryLabel",
    "Variant",
    "channels_after",
    "check_public_version",
    "compiled_version",
    "conda_spelling",
    "split_conda_file",
]

NAME = "flashinfer"
LIBRARY_NAME = "libflashinfer"

_AnyLabel = TypeVar("_AnyLabel", "Label", "LibraryLabel")
_ROOT = Path(__file__).resolve().parents[2]
_VERSION_FILE = _ROOT / "version.txt"
_PROJECT_FILE = _ROOT / "pyproject.toml"
_MAX_NUMBER = 10**18  # conda's tools keep a version's numbers in 64 bits

_TAG = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*", re.ASCII)
_NUMBER = r"(?:0|[1-9]\d{0,17})"
_WHOLE_NUMBER = re.compile(_NUMBER, re.ASCII)
_CONDA_PRE_RELEASE = re.compile(r"\.(a|b|rc)(?=\d)", re.ASCII)


class _Grammar(NamedTuple):
    """How labels are spelled.

    Attributes:
        scheme: build strings and local versions of flashinfer.
        library: build strings of libflashinfer.
        layout: folders of the wheel index.
    """

    scheme: Scheme
    library: Template
    layout: Template

    def cuda(self, cuda: tuple[int, int] | None) -> str:
        return self.scheme.fields["cuda"].spell("{}.{}".format(*cuda) if cuda else None)


@lru_cache(maxsize=None)
def _grammar() -> _Grammar:
    """The templates of ``[tool.conda-bridge]``.

    Raises:
        ConfigError: the table is not there, or lacks one of them.
    """
    where = f"{_PROJECT_FILE.name}: tool.conda-bridge"
    try:
        document: dict[str, Any] = toml.loads(_PROJECT_FILE.read_text(encoding="utf-8"))
        table = document["tool"]["conda-bridge"]
        [fold] = [item for item in table["fold"] if item["package"] == LIBRARY_NAME]
        label, library, layout = table["label"], fold["build"], table["index-layout"]
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{type(error).__name__}: {error}",
            where=where,
            expected=f"label, index-layout, and the build of {LIBRARY_NAME} in fold",
        ) from error
    scheme = Scheme(label, f"{where}.label")
    return _Grammar(
        scheme,
        scheme.build_template(library, f"{where}.fold"),
        Template(layout, scheme.fields, f"{where}.index-layout"),
    )


@dataclass(frozen=True)
class Variant:
    """A CUDA release (or the CPU alone) with a torch minor.

    Attributes:
        cuda: (major, minor) of the CUDA toolkit, or None for the CPU.
        torch: (major, minor) of torch.
    """

    cuda: tuple[int, int] | None
    torch: tuple[int, int]

    def __post_init__(self) -> None:
        fields = _grammar().scheme.fields
        try:
            _grammar().cuda(self.cuda)
        except ValueError:
            raise LabelError(
                "CUDA {}.{} has no label".format(*self.cuda or ()),
                expected="a CUDA from 10.0 to 99.x",
            ) from None
        try:
            fields["torch"].spell("{}.{}".format(*self.torch))
        except ValueError:
            raise LabelError(
                "torch {}.{} has no label".format(*self.torch), expected="a torch from 1.0 to 9.x"
            ) from None

    @property
    def cuda_tag(self) -> str:
        """``cu124`` or ``cpu``."""
        return _grammar().cuda(self.cuda)

    @property
    def id(self) -> str:
        """``cu124_torch24``."""
        return _grammar().scheme.conda_build(_generic(self, "0")).rpartition("_")[0]

    @property
    def local_version(self) -> str:
        """``cu124torch2.4``, the part of a wheel's version after ``+``."""
        return _grammar().scheme.local_version(_generic(self, "0"))

    @property
    def index_dir(self) -> str:
        """``cu124/torch2.4``, the folder of the wheel index that a user names."""
        return _grammar().layout.format(dict(_generic(self, "0").values))

    def __str__(self) -> str:
        return self.id

    @classmethod
    def parse(cls, text: str) -> Variant:
        """The variant with this id.

        Raises:
            LabelError: not of the form ``cu124_torch24`` or ``cpu_torch213``.
        """
        build = _grammar().scheme.build
        assert build is not None
        try:
            values = build.parse(f"{text}_0")
        except ValueError:
            values = {}
        if not values or values["commit"] is not None:
            raise LabelError(
                f"{text!r} is not a variant",
                expected="a CUDA and a torch minor, such as cu124_torch24 or cpu_torch213",
            )
        return _variant(values)

    @classmethod
    def from_pins(cls, cuda_nvcc: str, pytorch: str) -> Variant:
        """The variant of two pins of ``conda_build_config.yaml``.

        Args:
            cuda_nvcc: ``"12.4"``, or ``"None"`` for the CPU.
            pytorch: ``"2.4"``.

        Raises:
            LabelError: a pin that is not ``major.minor``.
        """
        cuda = None if cuda_nvcc == "None" else _two_numbers("cuda_nvcc", cuda_nvcc)
        return cls(cuda, _two_numbers("pytorch", pytorch))


@dataclass(frozen=True)
class LibraryLabel:
    """What names a ``libflashinfer`` package: it depends on CUDA, not on torch.

    Attributes:
        cuda: (major, minor), or None for the CPU.
        public_version: without any local part.
        build_number: of the conda package.
        commit: of a nightly, abbreviated, in hexadecimal.
    """

    cuda: tuple[int, int] | None
    public_version: str
    build_number: int = 0
    commit: str | None = None

    def __post_init__(self) -> None:
        Variant(self.cuda, (2, 0))
        check_public_version(self.public_version)
        _check_commit(self.commit)
        _check_build_number(self.build_number)

    @property
    def cuda_tag(self) -> str:
        """``cu124`` or ``cpu``."""
        return _grammar().cuda(self.cuda)

    @property
    def _generic(self) -> generic.Label:
        # The torch is of no account here: any that a variant can have.
        return _generic(
            Variant(self.cuda, (2, 0)), self.public_version, self.build_number, self.commit
        )

    @property
    def conda_version(self) -> str:
        """The public version as conda has to spell it."""
        return conda_spelling(self.public_version)

    @property
    def compiled_version(self) -> str:
        """``0.1.6``, or ``0.1.7.dev20261122+g1a2b3c4`` for a nightly; compiled into the library."""
        return compiled_version(self.public_version, self.commit)

    @property
    def conda_build(self) -> str:
        """``cu124_0``, or ``cu124_g1a2b3c4_0`` for a nightly."""
        grammar = _grammar()
        return grammar.scheme.fold_build(grammar.library, self._generic)

    @property
    def conda_build_number(self) -> int:
        """The ``build_number`` of ``index.json``, which a solver ranks variants by."""
        return _grammar().scheme.index_build_number(self._generic)

    @property
    def conda_stem(self) -> str:
        """The conda package's file name without its ending."""
        return f"{LIBRARY_NAME}-{self.conda_version}-{self.conda_build}"

    @property
    def conda_file(self) -> str:
        """The conda package's file name, in the form that this project's own builds have."""
        return f"{self.conda_stem}.conda"

    @property
    def conda_spec(self) -> str:
        """This build alone, for conda: ``libflashinfer=0.1.6=cu124_0``."""
        return f"{LIBRARY_NAME}={self.conda_version}={self.conda_build}"

    def conda_install(self, channel: str) -> str:
        """The command that installs this build from a channel, an address or a name."""
        return commands.conda([self.conda_spec], channel)

    def as_dict(self) -> dict[str, str]:
        """Every form, for ``--json``."""
        return {
            "cuda_tag": self.cuda_tag,
            "public_version": self.public_version,
            "conda_version": self.conda_version,
            "conda_build": self.conda_build,
            "conda_build_number": str(self.conda_build_number),
            "conda_file": self.conda_file,
        }

    @classmethod
    def parse_conda_file(cls, name: str) -> LibraryLabel:
        """The label in a file name such as ``libflashinfer-0.1.6-cu124_0.conda``.

        Raises:
            LabelError: this project gives no such name.
        """
        expected = f"{LIBRARY_NAME}-<version>-<cuXYZ or cpu>_<build number>.conda or .tar.bz2"
        version, build = _conda_parts(name, LIBRARY_NAME, expected)
        values = _parsed(_grammar().library, build, "build string", name, expected)
        label = cls(
            _two(values["cuda"]),
            _public_of_conda(version, name),
            int(values["number"] or 0),
            values["commit"],
        )
        return _must_spell(label, label.conda_stem + split_conda_file(name)[1], name)


@dataclass(frozen=True)
class Label:
    """Everything that names one build of flashinfer.

    Attributes:
        variant: the CUDA (or CPU) and the torch minor.
        public_version: three release numbers, with or without a/b/rc, post and dev parts.
        build_number: of the conda package; above 0 it is also the wheel's build tag.
        commit: of a nightly, abbreviated, in hexadecimal.
    """

    variant: Variant
    public_version: str
    build_number: int = 0
    commit: str | None = None

    def __post_init__(self) -> None:
        check_public_version(self.public_version)
        _check_commit(self.commit)
        _check_build_number(self.build_number)

    @property
    def wheel_version(self) -> str:
        """``0.1.6+cu124torch2.4``; a commit follows as a segment, ``.g1a2b3c4``.

        The ``g`` keeps an all-digit commit from being read, and rewritten, as a number.
        """
        return _grammar().scheme.wheel_version(self._generic)

    @property
    def _generic(self) -> generic.Label:
        return _generic(self.variant, self.public_version, self.build_number, self.commit)

    @property
    def wheel_file(self) -> str:
        """The wheel's file name, for the tags of a Linux machine's own build."""
        return self.wheel_file_for("cp38", "abi3", "linux_x86_64")

    def wheel_file_for(self, python_tag: str, abi_tag: str, platform_tag: str) -> str:
        """The wheel's file name with these tags."""
        build = f"-{self.build_number}" if self.build_number else ""
        return f"{NAME}-{self.wheel_version}{build}-{python_tag}-{abi_tag}-{platform_tag}.whl"

    @property
    def conda_version(self) -> str:
        """The public version as conda has to spell it: ``0.1.6.rc1`` for ``0.1.6rc1``."""
        return conda_spelling(self.public_version)

    @property
    def conda_build(self) -> str:
        """``cu124_torch24_0``, or ``cu124_torch24_g1a2b3c4_0`` for a nightly."""
        return _grammar().scheme.conda_build(self._generic)

    @property
    def conda_build_number(self) -> int:
        """The ``build_number`` of ``index.json``, which a solver ranks variants by.

        Of packages of one version conda's solvers take the highest build number that fits. So, as
        on conda-forge, CUDA's are above the CPU's; and a newer CUDA's above an older one's:

        >>> Label(Variant.parse("cpu_torch213"), "0.1.6", 2).conda_build_number
        2
        >>> Label(Variant.parse("cu130_torch213"), "0.1.6", 2).conda_build_number
        1300002
        """
        return _grammar().scheme.index_build_number(self._generic)

    @property
    def conda_stem(self) -> str:
        """The conda package's file name without its ending."""
        return f"{NAME}-{self.conda_version}-{self.conda_build}"

    @property
    def conda_file(self) -> str:
        """The conda package's file name, in the form that this project's own builds have."""
        return f"{self.conda_stem}.conda"

    @property
    def wheel_requirement(self) -> str:
        """This build alone, for pip: ``flashinfer==0.1.6+cu124torch2.4``.

        No public index has a local version, so none can take its place. Of rebuilds pip takes the
        highest build number; it has no way to name one.
        """
        return f"{NAME}=={self.wheel_version}"

    @property
    def conda_spec(self) -> str:
        """This build alone, for conda: ``flashinfer=0.1.6=cu124_torch24_0``."""
        return f"{NAME}={self.conda_version}={self.conda_build}"

    def pip_install(self, index: str) -> str:
        """The command that installs this build from a wheel index.

        Args:
            index: the address of the whole index, with or without a slash at its end.
        """
        return commands.pip(self.wheel_requirement, self.folder_of(index))

    def folder_of(self, index: str) -> str:
        """The address of this build's folder in a wheel index."""
        return f"{index.rstrip('/')}/{self.index_dir}/"

    def conda_install(self, channel: str) -> str:
        """The command that installs this build from a channel, an address or a name."""
        return commands.conda([self.conda_spec], channel)

    @property
    def compiled_version(self) -> str:
        """What is compiled into both libraries, so that they know each other."""
        return compiled_version(self.public_version, self.commit)

    @property
    def library(self) -> LibraryLabel:
        """The label of the ``libflashinfer`` that this build depends on."""
        return LibraryLabel(self.variant.cuda, self.public_version, self.build_number, self.commit)

    @property
    def lib_conda_build(self) -> str:
        """The build string of ``libflashinfer``: ``cu124_0``."""
        return self.library.conda_build

    @property
    def lib_conda_file(self) -> str:
        """The file name of ``libflashinfer``."""
        return self.library.conda_file

    @property
    def index_dir(self) -> str:
        """``cu124/torch2.4``, the folder of the wheel index."""
        return self.variant.index_dir

    @property
    def requests(self) -> dict[str, str]:
        """How installers are asked for this build of any variant, by the names of _build_info.py.

        ``{cuda}``, ``{torch}`` and ``{torch:flat}`` stand for those of the variant that is wanted.

        >>> Label(Variant.parse("cu130_torch213"), "0.1.6rc1", 0, "1a2b3c4").requests["CONDA"]
        'flashinfer=0.1.6.rc1={cuda}_torch{torch:flat}_g1a2b3c4_*'
        """
        grammar, left = _grammar(), {"cuda", "torch", "number"}
        local, build = grammar.scheme.local, grammar.scheme.build
        assert local is not None and build is not None
        values = dict(self._generic.values)

        def any_rebuild(template: Template) -> str:
            return template.format(values, left).replace("{number}", "*")

        return {
            "WHEEL": f"{NAME}=={self.public_version}+{local.format(values, left)}",
            "CONDA": f"{NAME}={self.conda_version}={any_rebuild(build)}",
            "CONDA_LIBRARY": f"{LIBRARY_NAME}={self.conda_version}={any_rebuild(grammar.library)}",
            "INDEX_DIR": grammar.layout.format(values, left),
        }

    def __str__(self) -> str:
        return self.wheel_version

    def as_dict(self) -> dict[str, str]:
        """Every form, for ``--json``."""
        return {
            "variant": self.variant.id,
            "public_version": self.public_version,
            "conda_version": self.conda_version,
            "conda_build": self.conda_build,
            "conda_build_number": str(self.conda_build_number),
            "conda_file": self.conda_file,
            "wheel_version": self.wheel_version,
            "wheel_file": self.wheel_file,
            "index_dir": self.index_dir,
        }

    @classmethod
    def compose(
        cls,
        variant: Variant,
        *,
        public_version: str | None = None,
        environ: Mapping[str, str] = os.environ,
        nightly: str | None = None,
        commit: str | None = None,
        build_number: int | None = None,
        released: Sequence[str] = (),
    ) -> Label:
        """The label of a build, from the arguments, the environment and ``version.txt``.

        An argument outranks its environment variable; ``FLASHINFER_BUILD_VERSION`` outranks
        ``version.txt``. None of them can take the variant away.

        Args:
            variant: what the build was measured to be.
            public_version: instead of ``version.txt`` and ``FLASHINFER_BUILD_VERSION``.
            environ: is asked for ``FLASHINFER_BUILD_VERSION``, ``_COMMIT`` and ``_NUMBER``.
            nightly: the day of a nightly, ``YYYYMMDD``; adds ``.dev<day>`` to the public version.
            commit: joins the label.
            build_number: of the conda package.
            released: public versions that the new one has to sort above.

        Raises:
            LabelError: a value that cannot be part of a label, or a version that would sort below
                one that is already out.
        """
        if public_version is None:
            public_version = cls.public_version_of(_VERSION_FILE, environ)
        if nightly is not None:
            public_version = _nightly(public_version, nightly)
        for other in released:
            check_public_version(other)
            if Version(public_version) <= Version(other):
                raise LabelError(
                    f"{public_version} does not sort above {other}, which is released",
                    expected="a version that an upgrade would choose",
                    fix="set version.txt to the release that comes next",
                )
        if commit is None:
            commit = environ.get("FLASHINFER_BUILD_COMMIT") or None
        if build_number is None:
            text = environ.get("FLASHINFER_BUILD_NUMBER") or "0"
            if not _WHOLE_NUMBER.fullmatch(text):
                raise LabelError(
                    f"{text!r} is not a build number",
                    where="FLASHINFER_BUILD_NUMBER",
                    expected="0, 1, 2, ...",
                )
            build_number = int(text)
        rebuilds = _grammar().scheme.rank_step
        if build_number >= rebuilds:
            raise LabelError(
                f"{build_number} is not a build number",
                where="FLASHINFER_BUILD_NUMBER",
                expected=f"below {rebuilds}: what is above it ranks the CUDA of conda packages",
            )
        return cls(variant, public_version, build_number, commit)

    @classmethod
    def public_version_of(
        cls, version_file: Path = _VERSION_FILE, environ: Mapping[str, str] = os.environ
    ) -> str:
        """The public version: ``FLASHINFER_BUILD_VERSION`` if set, else what `version_file` holds.

        Raises:
            LabelError: it is not a public version; one with a local part (``+...``) is refused,
                because the local part is measured, never given.
        """
        given = environ.get("FLASHINFER_BUILD_VERSION")
        if given:
            check_public_version(given, "FLASHINFER_BUILD_VERSION")
            return given
        text = version_file.read_text(encoding="utf-8", errors="backslashreplace").strip()
        check_public_version(text, str(version_file))
        return text

    @classmethod
    def parse_wheel_file(cls, name: str) -> Label:
        """The label in a wheel's file name, whatever its tags: ``verify`` says if they are true.

        Raises:
            LabelError: this project gives no such name, e.g. one without a variant.
        """
        expected = f"{NAME}-<version>+cu124torch2.4[-<build>]-cp38-abi3-linux_x86_64.whl"
        parts = name[: -len(".whl")].split("-") if name.endswith(".whl") else []
        if len(parts) not in (5, 6) or parts[0] != NAME:
            raise LabelError("not a flashinfer wheel's name", where=name, expected=expected)
        for tag in parts[-3:]:
            if not _TAG.fullmatch(tag):
                raise LabelError(f"{tag!r} is not a tag", where=name, expected=expected)
        label = _of_wheel_version(parts[1], parts[2] if len(parts) == 6 else "0", name, expected)
        return _must_spell(label, label.wheel_file_for(*parts[-3:]), name)

    @classmethod
    def parse_wheel_version(cls, version: str) -> Label:
        """The label in a wheel's version, such as ``0.1.6+cu124torch2.4``; build number 0.

        Raises:
            LabelError: this project gives no such version.
        """
        expected = "<public version>+cu124torch2.4"
        label = _of_wheel_version(version, "0", version, expected)
        return _must_spell(label, label.wheel_version, version)

    @classmethod
    def parse_conda_file(cls, name: str) -> Label:
        """The label in a file name such as ``flashinfer-0.1.6-cu124_torch24_0.conda``.

        Raises:
            LabelError: this project gives no such name.
        """
        expected = f"{NAME}-<version>-cu124_torch24_<build number>.conda or .tar.bz2"
        version, build = _conda_parts(name, NAME, expected)
        template = _grammar().scheme.build
        assert template is not None
        values = _parsed(template, build, "build string", name, expected)
        label = cls(
            _variant(values),
            _public_of_conda(version, name),
            int(values["number"] or 0),
            values["commit"],
        )
        return _must_spell(label, label.conda_stem + split_conda_file(name)[1], name)

    @classmethod
    def parse_lib_conda_file(cls, name: str) -> LibraryLabel:
        """The label in the file name of ``libflashinfer``; see :class:`LibraryLabel`."""
        return LibraryLabel.parse_conda_file(name)


def channels_after(channel: str) -> tuple[str, ...]:
    """The channels that an environment is solved from: ours, and those of what it depends on."""
    return tuple(dict.fromkeys((channel, commands.FORGE)))


def compiled_version(public_version: str, commit: str | None) -> str:
    """What a library is told of its version: two nightlies of one day differ in the commit.

    >>> compiled_version("0.1.7.dev20261122", "1a2b3c4")
    '0.1.7.dev20261122+g1a2b3c4'
    """
    return f"{public_version}+g{commit}" if commit else public_version


def _generic(
    variant: Variant, version: str, number: int = 0, commit: str | None = None
) -> generic.Label:
    """The label as conda_bridge has it."""
    cuda = "{}.{}".format(*variant.cuda) if variant.cuda else None
    torch = "{}.{}".format(*variant.torch)
    return generic.Label(version, (("cuda", cuda), ("torch", torch), ("commit", commit)), number)


def _variant(values: Mapping[str, str | None]) -> Variant:
    torch = _two(values["torch"])
    assert torch is not None  # no template leaves it out
    return Variant(_two(values["cuda"]), torch)


def _two(value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    major, minor = value.split(".")
    return int(major), int(minor)


def _parsed(
    template: Template, text: str, what: str, where: str, expected: str
) -> dict[str, str | None]:
    try:
        return template.parse(text)
    except ValueError:
        raise LabelError(f"{text!r} is not a {what}", where=where, expected=expected) from None


def check_public_version(text: str, where: str = "") -> None:
    """Refuses what is not a public version in its normal form.

    Raises:
        LabelError: a local part, an epoch, other than three release numbers, or a spelling that
            installers would rewrite (``0.1.6-rc1``).
    """
    example = "three release numbers, such as 0.1.6, 0.1.6rc1, 0.1.6.post1 or 0.1.6.dev20261122"
    if "+" in text:
        public, _, local = text.partition("+")
        commit = re.search(r"(?:^|\.)g?([0-9a-f]{7,40})(?:$|\.)", local)
        fix = f"set FLASHINFER_BUILD_VERSION={public or '<public version>'}"
        if commit:
            fix += f" and FLASHINFER_BUILD_COMMIT={commit[1]}"
        raise LabelError(
            f"{text!r} has a local part; that part is measured from nvcc and torch",
            where=where,
            expected=example,
            fix=fix,
        )
    try:
        version = Version(text)
    except ValueError:  # it is none, or has more digits than Python makes a number of
        raise LabelError(f"{text!r} is not a version", where=where, expected=example) from None
    if version.epoch or len(version.release) != 3:
        raise LabelError(f"{text!r} is not of the form X.Y.Z", where=where, expected=example)
    if str(version) != text:
        raise LabelError(
            f"{text!r} is not in its normal form",
            where=where,
            expected=example,
            fix=f"write {version}",
        )
    if any(int(number) >= _MAX_NUMBER for number in re.findall(r"\d+", text)):
        raise LabelError(f"{text!r} has a number over 18 digits", where=where, expected=example)


def _nightly(public_version: str, day: str) -> str:
    check_public_version(public_version)
    try:
        valid = datetime.strptime(day, "%Y%m%d").strftime("%Y%m%d") == day
    except ValueError:
        valid = False
    if not valid:
        raise LabelError(f"{day!r} is not a day", where="nightly", expected="YYYYMMDD")
    if Version(public_version).is_devrelease:
        raise LabelError(
            f"{public_version} is a development version already",
            where="nightly",
            expected="a release, a pre-release or a post release to add .dev<day> to",
            fix="give the day or the whole version, not both",
        )
    return f"{public_version}.dev{day}"


def _two_numbers(pin: str, text: str) -> tuple[int, int]:
    found = re.fullmatch(rf"({_NUMBER})\.({_NUMBER})", text, re.ASCII)
    if not found:
        raise LabelError(f"{text!r} is not a version", where=pin, expected="major.minor, as 12.4")
    return int(found[1]), int(found[2])


def _check_commit(commit: str | None) -> None:
    if commit is None:
        return
    try:
        generic.COMMIT.spell(commit)
    except ValueError:
        raise LabelError(
            f"{commit!r} is not a commit",
            where="FLASHINFER_BUILD_COMMIT",
            expected="7 to 40 lower-case hexadecimal digits, as of `git rev-parse --short HEAD`",
        ) from None


def _check_build_number(number: int) -> None:
    if not 0 <= number < _MAX_NUMBER:
        raise LabelError(
            f"{number} is not a build number",
            where="FLASHINFER_BUILD_NUMBER",
            expected="0, 1, 2, ...",
        )


def _of_wheel_version(version: str, number: str, where: str, expected: str) -> Label:
    public, plus, local = version.partition("+")
    if not plus:
        raise LabelError(
            f"{version!r} has no local part, so it does not say which CUDA and torch it is for",
            where=where,
            expected=expected,
        )
    template = _grammar().scheme.local
    assert template is not None
    values = _parsed(template, local, "label", where, expected)
    if not _WHOLE_NUMBER.fullmatch(number):
        raise LabelError(f"{number!r} is not a build number", where=where, expected=expected)
    check_public_version(public, where)
    return Label(_variant(values), public, int(number), values["commit"])


def _conda_parts(name: str, package: str, expected: str) -> tuple[str, str]:
    parts = split_conda_file(name)[0].split("-")
    if len(parts) != 3 or parts[0] != package:
        raise LabelError(f"not a {package} conda package's name", where=name, expected=expected)
    return parts[1], parts[2]


def _public_of_conda(version: str, where: str) -> str:
    public = _CONDA_PRE_RELEASE.sub(r"\1", version)
    check_public_version(public, where)
    return public


def _must_spell(label: _AnyLabel, spelled: str, given: str) -> _AnyLabel:
    """Refuses a name that parses but is not the one we would have given, e.g. build tag ``-0-``."""
    if spelled != given:
        raise LabelError("not the canonical file name", where=given, expected=spelled)
    return label
