"""Writes wheels: tags, METADATA, WHEEL, RECORD, in a zip whose bytes never vary.

The formats are those of the packaging specifications: "Binary distribution format", "Core metadata"
2.4 (licences as in PEP 639) and "Recording installed projects".
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO

from ..errors import ArtifactError
from . import foreign, limits
from .deflate_zip import PIECE, ZipWriter
from .headers import read_headers
from .member_names import Names
from .tar_stream import TarMember

__all__ = ["GENERATOR", "Metadata", "Tag", "WheelWriter", "abi3_tag", "requirement"]

GENERATOR = "conda-bridge"
# Headers that stay as they are. Not Dynamic: it tells how the build arrived at a field, and here
# the fields are settled. Not Obsoletes, Provides and their like, which PEP 345 replaced.
_OTHERS = (
    *("Platform", "Supported-Platform", "Author", "Author-email", "Maintainer"),
    *("Maintainer-email", "Home-page", "Download-URL", "Requires-External", "Provides-Dist"),
    "Obsoletes-Dist",
)
_LOWER_BOUND = re.compile(r"(3)\.(\d+)(?:\.0)*")


@dataclass(frozen=True)
class Tag:
    """What a wheel runs on, e.g. ``cp38-abi3-linux_x86_64``."""

    python: str
    abi: str
    platform: str

    def __post_init__(self) -> None:
        # A tag is one line of WHEEL and a part of a file name.
        if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", self.platform):
            raise ArtifactError(
                f"{self.platform!r} is not a platform tag", expected="e.g. linux_x86_64"
            )

    def __str__(self) -> str:
        return f"{self.python}-{self.abi}-{self.platform}"

    def lines(self) -> list[str]:
        """The single tags of a compressed one (``manylinux_2_28_x86_64.linux_x86_64``)."""
        return sorted(str(tag) for tag in foreign.tags(str(self)))


def abi3_tag(
    requires_python: str, extension_modules: Iterable[str], platform: str, where: str
) -> Tag:
    """The tag of a wheel with extension modules for Python's stable ABI.

    The Python tag is the lower bound of `requires_python`; whether the modules keep to the stable
    ABI of that Python is for abi3audit to say, here their names have to promise it.

    Raises:
        ArtifactError: no lower bound, an extension module for one Python only, or none at all.
    """
    modules = list(extension_modules)
    for module in modules:
        if not module.endswith(".abi3.so"):
            raise ArtifactError(
                "an extension module that is not for the stable ABI",
                where=f"{where}: {module}",
                expected="a name that ends in .abi3.so",
            )
    if not modules:
        raise ArtifactError("no extension module (*.abi3.so) in the package", where=where)
    try:
        bounds = [spec for spec in foreign.specifiers(requires_python) if spec.operator == ">="]
    except foreign.Unreadable as error:
        raise ArtifactError(f"{requires_python!r:.200}: {error}", where=where) from error
    found = _LOWER_BOUND.fullmatch(bounds[0].version) if len(bounds) == 1 else None
    if not found:
        raise ArtifactError(
            f"requires python {requires_python!r}",
            where=where,
            expected="one lower bound, e.g. >=3.8, which becomes the wheel's tag cp38",
        )
    return Tag(f"cp{found[1]}{found[2]}", "abi3", platform)


@dataclass(frozen=True)
class Metadata:
    """The core metadata of a wheel; see :meth:`render`.

    Attributes:
        name, version: as in the file name.
        requires_python: e.g. ``>=3.8``.
        requires_dist: e.g. ``torch==2.13.*``.
        license_expression: an SPDX expression.
        license_files: paths below ``.dist-info/licenses``.
        summary, description: the one line and the long text.
        description_type: a media type, e.g. ``text/markdown``.
        keywords, classifiers: as in the source's metadata.
        urls: label -> URL.
        extras: names of ``Provides-Extra``.
        license: the older free text about the licence, where there is no expression.
        others: further headers of the specification, with their values, in order.
    """

    name: str
    version: str
    requires_python: str
    requires_dist: Sequence[str] = ()
    license_expression: str = ""
    license_files: Sequence[str] = ()
    summary: str = ""
    description: str = ""
    description_type: str = "text/markdown"
    keywords: Sequence[str] = ()
    classifiers: Sequence[str] = ()
    urls: Mapping[str, str] = field(default_factory=dict)
    extras: Sequence[str] = ()
    license: str = ""
    others: Sequence[tuple[str, str]] = ()

    def render(self) -> str:
        """``METADATA``, version 2.4.

        Raises:
            ArtifactError: a value that is not one line, not a requirement or not a licence.
        """
        lines = ["Metadata-Version: 2.4"]

        def put(key: str, value: str) -> None:
            if value and not value.isprintable():
                raise ArtifactError(f"{value[:80]!r} is not one line of text", where=key)
            if value:
                lines.append(f"{key}: {value}")

        put("Name", self.name)
        put("Version", self.version)
        put("Summary", self.summary)
        put("Keywords", ",".join(self.keywords))
        for key, value in self.others:
            put(key, value)
        for label, url in sorted(self.urls.items()):
            put("Project-URL", f"{label}, {url}")
        put("License-Expression", _license(self.license_expression))
        if self.license and not self.license_expression:
            # Of a text of many lines the first says which licence it is; the whole is a file.
            put("License", self.license.strip().splitlines()[0].strip())
        for name in sorted(self.license_files):
            put("License-File", name)
        for classifier in self.classifiers:
            # PEP 639: an expression and a licence classifier exclude each other.
            if not (self.license_expression and classifier.startswith("License ::")):
                put("Classifier", classifier)
        put("Requires-Python", specifiers(self.requires_python))
        for text in sorted(self.requires_dist):
            put("Requires-Dist", requirement(text))
        for extra in self.extras:
            put("Provides-Extra", extra)
        if self.description:
            put("Description-Content-Type", self.description_type)
        head = "\n".join(lines) + "\n"
        return f"{head}\n{self.description.rstrip()}\n" if self.description else head

    @classmethod
    def parse(cls, text: bytes, where: str) -> Metadata:
        """The parts of a ``METADATA`` that are kept when it is written again.

        Raises:
            ArtifactError: no name, no version, or not UTF-8.
        """
        message = read_headers(text, where)

        def one(key: str) -> str:
            return str(message.get(key, "")).strip()

        def line(key: str) -> str:  # a long one is folded into several, as in a mail
            return " ".join(one(key).split())

        def every(key: str) -> list[str]:
            return [" ".join(str(value).split()) for value in message.get_all(key, [])]

        urls = {}
        for value in every("Project-URL"):
            label, _, url = value.partition(",")
            urls[label.strip()] = url.strip()
        if not one("Name") or not one("Version"):
            raise ArtifactError("no Name or no Version", where=where)
        body = message.get_payload()
        described = body if isinstance(body, str) else ""
        # In metadata before 2.1 the long text is a header, with eight spaces or a bar for a margin.
        described = (described.strip() and described) or _unfolded(one("Description"))
        return cls(
            name=one("Name"),
            version=one("Version"),
            requires_python=line("Requires-Python"),
            requires_dist=tuple(every("Requires-Dist")),
            license_expression=line("License-Expression"),
            license_files=tuple(
                str(value).strip() for value in message.get_all("License-File", [])
            ),
            summary=line("Summary"),
            description=described,
            description_type=one("Description-Content-Type") or "text/plain",
            keywords=tuple(word.strip() for word in line("Keywords").split(",") if word.strip()),
            classifiers=tuple(every("Classifier")),
            urls=urls,
            extras=tuple(every("Provides-Extra")),
            license=one("License"),
            others=tuple((key, value) for key in _OTHERS for value in every(key) if value),
        )


def _unfolded(text: str) -> str:
    lines = (re.sub(r"^( {7}\|| {8})", "", line) for line in text.splitlines())
    return "\n".join(lines)


def _license(expression: str) -> str:
    try:
        return foreign.license_expression(expression) if expression else ""
    except foreign.Unreadable as error:
        raise ArtifactError(
            f"{expression!r:.200} is not an SPDX licence expression: {error}",
            where="License-Expression",
        ) from error


def specifiers(text: str) -> str:
    """Version specifiers in their one normal spelling.

    Raises:
        ArtifactError: they are none.
    """
    try:
        return str(foreign.specifiers(text))
    except foreign.Unreadable as error:
        raise ArtifactError(f"{text!r:.200}: {error}", where="Requires-Python") from error


def requirement(text: str) -> str:
    """A requirement in its one normal spelling.

    Raises:
        ArtifactError: it is none.
    """
    try:
        return str(foreign.requirement(text))
    except foreign.Unreadable as error:
        raise ArtifactError(f"{text!r:.200}: {error}", where="Requires-Dist") from error


class WheelWriter:
    """A wheel being written: first the payload, then :meth:`finish`.

    Args:
        stream: empty, writable and seekable.
        metadata_version: ``<name>-<version>``, of the ``.dist-info`` folder.
        timestamp: seconds since 1970, the time of every member.
        threads: that deflate; 0 chooses by the cores. Not seen in the bytes.
    """

    def __init__(self, stream: IO[bytes], stem: str, *, timestamp: int, threads: int = 0) -> None:
        self._zip = ZipWriter(stream, timestamp=timestamp, threads=threads)
        self._names = Names(f"{stem}.whl", limits.MEMBERS)
        self._rows: list[tuple[str, str, str]] = []
        self._dist_info = f"{stem}.dist-info"

    def __enter__(self) -> WheelWriter:
        self._zip.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.__exit__(kind, error, trace)

    def add_member(
        self, path: str, member: TarMember, chunks: Iterable[bytes], *, executable: bool
    ) -> None:
        """Adds a file of another archive as `path`; `chunks` is ``member.chunks(PIECE)``."""
        self._names.add(path)
        self._zip.add(path, chunks, size=member.size, executable=executable)
        self._row(path, member.digest(), member.size)

    def add_file(self, path: str, file: IO[bytes], *, executable: bool = False) -> None:
        """Adds what an open file holds, from its beginning."""
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        digest = hashlib.sha256()

        def chunks() -> Iterator[bytes]:
            while data := file.read(PIECE):
                digest.update(data)
                yield data

        self._names.add(path)
        self._zip.add(path, chunks(), size=size, executable=executable)
        self._row(path, digest.digest(), size)

    def add(self, path: str, data: bytes, *, executable: bool = False) -> None:
        """Adds a file with this content."""
        self._names.add(path)
        pieces = (data[start : start + PIECE] for start in range(0, len(data), PIECE))
        self._zip.add(path, pieces, size=len(data), executable=executable)
        self._row(path, hashlib.sha256(data).digest(), len(data))

    def _row(self, path: str, digest: bytes, size: int) -> None:
        encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        self._rows.append((path, f"sha256={encoded}", str(size)))

    def finish(
        self,
        metadata: Metadata,
        tag: Tag,
        licenses: Mapping[str, bytes],
        *,
        build_number: int = 0,
        generator: str = GENERATOR,
        more: Mapping[str, bytes] | None = None,
    ) -> None:
        """Writes the ``.dist-info``, RECORD last.

        Args:
            metadata: of the wheel; its ``license_files`` are the names in `licenses`.
            tag: what the wheel runs on.
            licenses: name below ``.dist-info/licenses`` -> text.
            build_number: above 0 it is the wheel's build tag.
            generator: the program named in ``WHEEL``.
            more: further files of the ``.dist-info`` by their path in it, e.g. entry_points.txt.
        """
        pure = str(tag.platform == "any").lower()
        header = ["Wheel-Version: 1.0", f"Generator: {generator}", f"Root-Is-Purelib: {pure}"]
        header += [f"Tag: {line}" for line in tag.lines()]
        header += [f"Build: {build_number}"] if build_number else []
        self.add(f"{self._dist_info}/METADATA", metadata.render().encode())
        self.add(f"{self._dist_info}/WHEEL", ("\n".join(header) + "\n").encode())
        for name, text in sorted(licenses.items()):
            self.add(f"{self._dist_info}/licenses/{name}", text)
        for name, text in sorted((more or {}).items()):
            self.add(f"{self._dist_info}/{name}", text)
        record = f"{self._dist_info}/RECORD"
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows([*sorted(self._rows), (record, "", "")])
        data = lines.getvalue().encode()
        self._names.add(record)
        self._zip.add(record, [data], size=len(data))
