"""Makes the wheel of a conda package: the same payload bytes, pip's names around them.

Reads a ``flashinfer`` package (``.conda`` or ``.tar.bz2``) and the ``libflashinfer`` that it pins
exactly, from the same folder, and compiles nothing. Everything that names the build has to agree
before a byte is written: file name, ``index.json``, dependencies, ``_build_info.py`` and the
metadata of the build.

The wheel is made of what is installed and of what the recipe says, in an order of its own. Which
builder wrote the packages, in what order, with which permissions and with what remarks of its own,
is not seen in its bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from ..errors import ArtifactError, ConflictError, LabelError
from ..formats import conda_package, elf
from ..formats.conda_package import CondaPackage
from ..formats.conda_writer import default_timestamp
from ..formats.deflate_zip import PIECE
from ..formats.in_order import in_order
from ..formats.member_names import Names
from ..formats.tar_stream import TarMember
from ..formats.wheel import Metadata, Tag, WheelWriter, abi3_tag
from ..label import Label
from ..system import atomic
from . import manylinux
from .agreement import (
    REBUILD,
    check_build_info,
    check_kind,
    check_self_contained,
    check_source_metadata,
    library_of,
    requirements,
)

__all__ = ["Bridged", "bridge", "wheel_path"]

_SITE = "site-packages/"
_PACKAGE = "flashinfer/"
_TESTS = "etc/conda/test-files/"  # rattler-build puts the files of a recipe's tests there
_LIBRARY = "lib/libflashinfer.so"
_BUILD_INFO = "flashinfer/_build_info.py"
_METADATA_LIMIT = 4 << 20
_LIBRARY_LIMIT = 4 << 30  # of a shared object that is read whole, to look into it
_MAX_MEMBERS = 200_000
# What both recipes state and every builder writes. Other addresses are for [project.urls] of
# pyproject.toml, which reaches the wheel by the source's metadata.
_URL_LABELS = {"home": "Homepage", "dev_url": "Repository"}

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Bridged:
    """What became of one package.

    Attributes:
        package: the flashinfer package that was read.
        library: its libflashinfer.
        path: the wheel.
        outcome: ``written``, ``unchanged`` or ``checked`` (a dry run).
        sha256, size: of the wheel; empty and 0 for a dry run.
        payload: the payload's paths in the wheel.
        payload_size: its bytes, uncompressed.
        seconds: that it took.
    """

    package: Path
    library: Path
    path: Path
    outcome: str
    sha256: str
    size: int
    payload: tuple[str, ...]
    payload_size: int
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "package": str(self.package),
            "library": str(self.library),
            "file": str(self.path),
            "outcome": self.outcome,
            "sha256": self.sha256,
            "size": self.size,
            "payload_size": self.payload_size,
            "payload_files": list(self.payload),
            "seconds": round(self.seconds, 3),
        }


def wheel_path(package: str, path: str) -> str | None:
    """Where a file of a conda package is in the wheel.

    Args:
        package: ``flashinfer`` or ``libflashinfer``.
        path: in the conda package.

    Returns:
        The path in the wheel, or None for what stays behind: a ``.dist-info`` file, which is
        written anew, the recipe's own tests, and byte code, which installers write themselves.

    Raises:
        ArtifactError: a file that cannot go into a wheel.
    """
    if path.startswith(f"{_TESTS}{package}/") or "__pycache__" in path.split("/")[:-1]:
        return None
    if package == "libflashinfer":
        if path.startswith(("lib/", "include/flashinfer/")):
            return _PACKAGE + path
        expected = "files below lib/ and include/flashinfer/"
    else:
        inner = path.removeprefix(_SITE)
        if inner != path and inner.startswith(_PACKAGE):
            return inner
        folder = inner.partition("/")[0]
        if inner != path and folder.startswith("flashinfer-") and folder.endswith(".dist-info"):
            return None
        expected = f"files below {_SITE}flashinfer/"
    raise ArtifactError("cannot go into a wheel", where=f"{package}: {path}", expected=expected)


def bridge(
    package: Path,
    output: Path,
    *,
    platform_tag: str = manylinux.LINUX,
    overwrite: bool = False,
    dry_run: bool = False,
    threads: int = 0,
    report: Report | None = None,
) -> Bridged:
    """Writes the wheel of the conda package `package` into the folder `output`.

    Args:
        package: a ``flashinfer`` package; its ``libflashinfer`` is beside it.
        output: where the wheel goes.
        platform_tag: ``linux_x86_64``; ``auto``, the lowest manylinux policy that the libraries
            reach; or one policy, e.g. ``manylinux_2_28_x86_64``, which has to be true.
        overwrite: replace a wheel that has the name and other bytes.
        dry_run: check everything and write nothing.
        threads: that deflate; 0 chooses by the cores. Not seen in the bytes.
        report: called with the payload bytes that are done and their total.

    Raises:
        LabelError: `package` has a name that this project does not give.
        ArtifactError: an input that is damaged, hostile, renamed, incomplete or in disagreement
            with itself.
        LabelMismatch: PyPI's torch of that minor has the other C++ ABI, or the libraries do not
            reach the policy of `platform_tag`.
        ConfigError: `platform_tag` is no policy.
        ConflictError: the wheel is there with other bytes, or the ``libflashinfer`` in two forms
            with other files.
    """
    started = time.monotonic()
    plan = _Plan.make(package, platform_tag)
    total = plan.binding.payload_size + plan.library.payload_size
    progress = _Progress(report, total)
    target = output / plan.file_name
    if dry_run:
        plan.check(progress)
        outcome, digest, size = "checked", "", 0
    else:
        outcome, digest, size = _write(plan, target, overwrite, threads, progress)
    return Bridged(
        package=package,
        library=plan.library.path,
        path=target,
        outcome=outcome,
        sha256=digest,
        size=size,
        payload=tuple(sorted(plan.payload)),
        payload_size=plan.payload_bytes,
        seconds=time.monotonic() - started,
    )


def _sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while data := stream.read(PIECE):
        digest.update(data)
    return digest.hexdigest()


class _Unchanged(Exception):
    """The wheel is there already, byte for byte."""


def _write(
    plan: _Plan, target: Path, overwrite: bool, threads: int, progress: _Progress
) -> tuple[str, str, int]:
    digest, size = "", 0
    try:
        with atomic.writing(target) as stream:
            with WheelWriter(
                stream, plan.stem, timestamp=default_timestamp(), threads=threads
            ) as wheel:
                plan.write(wheel, target.parent, progress)
            stream.flush()
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            digest = _sha256(stream)
            if target.exists():
                _compare_existing(target, digest, overwrite)
    except _Unchanged:
        return "unchanged", digest, size
    return "written", digest, size


def _compare_existing(target: Path, digest: str, overwrite: bool) -> None:
    with target.open("rb") as stream:
        existing = _sha256(stream)
    if existing == digest:
        raise _Unchanged
    if not overwrite:
        raise ConflictError(
            f"is there with other bytes (sha256 {existing[:12]}..., now {digest[:12]}...)",
            where=str(target),
            fix="raise the build number, or pass --overwrite if the old one was never published",
        )


class _Progress:
    """Counts payload bytes for a display."""

    def __init__(self, report: Report | None, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0

    def chunks(self, member: TarMember) -> Iterator[bytes]:
        for data in member.chunks(PIECE):
            yield data
            self._done += len(data)
            if self._report:
                self._report(self._done, self._total)


@dataclass
class _Plan:
    """What is known of a wheel before its payload is read."""

    label: Label
    binding: CondaPackage
    library: CondaPackage
    requires_python: str
    requires_dist: list[str]
    tag: Tag
    names: Names
    payload: list[str] = field(default_factory=list)
    payload_bytes: int = 0
    build_info: bytes | None = None
    source_metadata: Metadata | None = None

    @property
    def file_name(self) -> str:
        return self.label.wheel_file_for(self.tag.python, self.tag.abi, self.tag.platform)

    @property
    def stem(self) -> str:
        return f"flashinfer-{self.label.wheel_version}"

    @classmethod
    def make(cls, package: Path, platform_tag: str) -> _Plan:
        if not package.is_file():
            raise ArtifactError(
                "is a folder" if package.is_dir() else "there is no such file",
                where=str(package),
                expected="a flashinfer package (.conda, .tar.bz2), its libflashinfer beside it",
            )
        if package.name.startswith("libflashinfer-"):
            raise LabelError(
                "this package is a part of the wheel of flashinfer",
                where=package.name,
                fix="give the flashinfer package; its libflashinfer is found beside it",
            )
        label = Label.parse_conda_file(package.name)
        binding = conda_package.read(package)
        check_kind(binding)
        check_self_contained(binding)
        requires_python, requires_dist = requirements(binding, label)
        library = library_of(binding, label)
        check_self_contained(library)
        if _LIBRARY not in library.paths:
            raise ArtifactError("the file is missing", where=f"{library.path.name}: {_LIBRARY}")
        modules = [path for path in binding.paths if _is_library(path)]
        platform = _platform(platform_tag, (binding, library))
        tag = abi3_tag(requires_python, modules, platform, package.name)
        return cls(
            label,
            binding,
            library,
            requires_python,
            requires_dist,
            tag,
            Names(package.name, _MAX_MEMBERS),
        )

    def check(self, progress: _Progress) -> None:
        """Reads and checks both payloads, and writes nothing."""
        for package in (self.binding, self.library):
            self._run(package, package.payload(), None, progress)
        self._metadata().render()

    def write(self, wheel: WheelWriter, folder: Path, progress: _Progress) -> None:
        """Reads and checks both payloads, and writes them to `wheel`.

        Args:
            wheel: takes the members in one order, by the bytes of their paths, the binding's first.
            folder: where members wait that a package has before their turn.
            progress: is told of every piece.
        """
        for package in (self.binding, self.library):
            order = sorted(package.paths, key=str.encode)
            with contextlib.closing(in_order(package.payload(), order, folder)) as members:
                self._run(package, members, wheel, progress)
        metadata = self._metadata()
        build_number = self.label.build_number
        wheel.finish(metadata, self.tag, self.binding.licenses, build_number=build_number)

    def _run(
        self,
        package: CondaPackage,
        members: Iterable[TarMember],
        wheel: WheelWriter | None,
        progress: _Progress,
    ) -> None:
        for member in members:
            self._take(package, member, wheel, progress)
        if package is self.binding:
            self._check_content()

    def _take(
        self,
        package: CondaPackage,
        member: TarMember,
        wheel: WheelWriter | None,
        progress: _Progress,
    ) -> None:
        path = wheel_path(package.name, member.path)
        where = f"{package.path.name}: {member.path}"
        if member.link_target is not None:
            raise ArtifactError("a link; a wheel has files only", where=where, fix=REBUILD)
        if path is None:
            if member.path.startswith(_SITE):
                self._take_dist_info(member, where)
            return
        self.names.add(path)
        self.payload.append(path)
        self.payload_bytes += member.size
        # Not what the archive says: that is the umask or the copying of whoever packed it.
        executable = _is_library(path)
        if path == _BUILD_INFO:
            self.build_info = _small(member, where)
            if wheel is not None:
                wheel.add(path, self.build_info, executable=executable)
        elif wheel is not None:
            wheel.add_member(path, member, progress.chunks(member), executable=executable)
        else:
            for _ in progress.chunks(member):
                pass

    def _take_dist_info(self, member: TarMember, where: str) -> None:
        """The build's own metadata: read, and written anew in :meth:`_metadata`."""
        folder, _, name = member.path.removeprefix(_SITE).partition("/")
        if not folder.endswith(".dist-info"):
            return  # byte code
        if folder != f"{self.stem}.dist-info":
            raise ArtifactError(
                "metadata of another version",
                where=where,
                expected=f"{_SITE}{self.stem}.dist-info",
                fix=REBUILD,
            )
        if name == "METADATA":
            self.source_metadata = Metadata.parse(_small(member, where), where)

    def _check_content(self) -> None:
        """What the binding's files say against the label."""
        where = f"{self.binding.path.name}: {_SITE}{_BUILD_INFO}"
        if self.build_info is None:
            raise ArtifactError("the file is missing", where=where, fix=REBUILD)
        check_build_info(self.build_info, self.label, where)
        where = f"{self.binding.path.name}: .dist-info/METADATA"
        if self.source_metadata is None:
            raise ArtifactError("the file is missing", where=where, fix=REBUILD)
        check_source_metadata(
            self.source_metadata, self.label, self.requires_python, self.requires_dist, where
        )

    def _metadata(self) -> Metadata:
        source = self.source_metadata
        assert source is not None  # _check_content has been called
        about = self.binding.about
        urls = {
            label: value
            for key, label in _URL_LABELS.items()
            if (value := _address(about.get(key)))
        }
        described = source.description.strip()
        license_text = about.get("license") or self.binding.index.get("license")
        if not self.binding.licenses:
            raise ArtifactError(
                "the package has no licence file",
                where=f"{self.binding.path.name}: info/licenses",
                fix="name it in the recipe (license_file)",
            )
        return Metadata(
            name="flashinfer",
            version=self.label.wheel_version,
            requires_python=self.requires_python,
            requires_dist=self.requires_dist,
            license_expression=str(license_text or ""),
            license_files=tuple(self.binding.licenses),
            summary=source.summary or str(about.get("summary") or "").strip(),
            description=described or str(about.get("description") or "").strip(),
            description_type=source.description_type if described else "text/plain",
            keywords=source.keywords,
            classifiers=source.classifiers,
            urls={**urls, **source.urls},
        )


def _is_library(path: str) -> bool:
    return path.endswith(".so") or ".so." in path


def _platform(wanted: str, packages: Sequence[CondaPackage]) -> str:
    """The platform tag, proved by every shared object in `packages` unless it promises nothing."""
    if wanted == manylinux.LINUX:
        return wanted
    if wanted != "auto":
        manylinux.policy_of(wanted)  # before anything is decompressed
    libraries = []
    for package in packages:
        for member in package.payload():
            if member.link_target is None and _is_library(member.path):
                where = f"{package.path.name}: {member.path}"
                libraries.append(elf.read(_small(member, where, _LIBRARY_LIMIT), where))
    return manylinux.choose_tag(wanted, libraries)


def _address(value: object) -> str:
    """The address in ``about.json``, as rattler-build writes it; empty where there is none.

    conda-build has it as a string or a list, and in the recipe's own spelling.
    """
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, str):
        return ""
    try:
        scheme, host, path, query, fragment = urlsplit(first.strip())
    except ValueError as error:
        raise ArtifactError(f"{first!r}: {error}", where="info/about.json") from error
    return urlunsplit((scheme, host.lower(), path or "/" if host else path, query, fragment))


def _small(member: TarMember, where: str, limit: int = _METADATA_LIMIT) -> bytes:
    if member.size > limit:
        raise ArtifactError(f"is larger than {limit} bytes", where=where)
    return member.read()
