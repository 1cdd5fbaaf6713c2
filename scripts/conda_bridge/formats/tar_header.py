"""Reads the headers of a tar archive, of the forms that builders write and no other.

A header of 512 bytes says where the next one is, so two readers that take one differently see two
archives from there on. They differ on folders and links that have a size (Python passes over it,
rattler skips as many bytes), on a pax record that is there twice or holds for all members, on what
follows a zero byte, and on more; each form is taken here only where it has one meaning. The formats
are those of POSIX (ustar and pax) and GNU tar's long names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from ..errors import ArtifactError
from . import limits

__all__ = ["BLOCK", "FILE", "FOLDER", "LINK", "Blocks", "TarHeader", "read_header"]

BLOCK = 512
FILE, FOLDER, LINK = "file", "folder", "link"

_KINDS = {b"0": FILE, b"\0": FILE, b"5": FOLDER, b"2": LINK}
_LONG_NAME = b"././@LongLink"
_POSIX, _GNU = b"ustar\x0000", b"ustar  \0"
_OCTAL_SIZE = 8**11  # the first size that eleven octal digits cannot say
_NUMBER = re.compile(rb" *([0-7]*)[ \0]*")
_NEEDED = ("size", "mode", "checksum")  # a field without a digit is 0 for some, an error for others
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=\n\0]+)=")
_DECIMAL = re.compile(rb"(0|[1-9][0-9]{0,17})")
_TIME = re.compile(rb"-?[0-9]{1,18}(\.[0-9]{0,18})?")
# What builders put into pax records beside names: times and owners, which nobody unpacks by.
_WHOLE = re.compile(rb"[0-9]{1,18}")
_TIMES = {"mtime", "atime", "ctime", "LIBARCHIVE.creationtime"}
_OWNERS = {"uid", "gid", "uname", "gname", "SCHILY.dev", "SCHILY.ino", "SCHILY.nlink"}
_NAMES = {"path", "linkpath"}
_OTHER_KINDS = {
    b"1": "a hard link",
    b"3": "a member of kind 3, a character device",
    b"4": "a member of kind 4, a block device",
    b"6": "a member of kind 6, a pipe",
    b"7": "a member of kind 7, a contiguous file",
    b"S": "a sparse file",
    b"g": "a global pax header, which one reader applies to all that follows and another does not",
}


@dataclass(frozen=True, slots=True)
class TarHeader:
    """One member, whatever the blocks that say it.

    Attributes:
        path: as it is; of a folder without the slash at its end. Not checked.
        kind: :data:`FILE`, :data:`FOLDER` or :data:`LINK`.
        size: bytes of content that follow; 0 unless it is a file.
        executable: whether any executable bit is set.
        target: of a link; else empty. Not checked.
        offset: of its first block in the archive.
    """

    path: str
    kind: str
    size: int
    executable: bool
    target: str
    offset: int


class Blocks(Protocol):
    """The unpacked archive."""

    def block(self) -> bytes:
        """The next 512 bytes; ArtifactError where there are fewer."""

    def content(self, size: int) -> bytes:
        """The next `size` bytes, padding to a whole block included but not given back."""

    def tell(self) -> int:
        """How many bytes have been read."""


@dataclass(slots=True)
class _Given:
    """What the blocks before a header say of its member."""

    path: bytes | None = None
    target: bytes | None = None
    size: int | None = None
    form: str = ""


def read_header(blocks: Blocks, where: str) -> TarHeader | None:
    """The next member; None at the end of the archive, of which one block has been read then.

    Raises:
        ArtifactError: a header that is damaged, of another form, or one that readers differ on.
    """
    start = blocks.tell()
    given = _Given()
    while True:
        at = blocks.tell()
        block = blocks.block()
        if not any(block):
            if given.form:
                raise _fault(f"the archive ends after a {given.form} header", at, where)
            return None
        fields = _Fields(block, at, where)
        kind = fields.kind
        if kind == b"x":
            _begin(given, "pax", at, where)
            _read_pax(fields.extension(blocks), given, at, where)
        elif kind in (b"L", b"K"):
            _begin(given, "GNU", at, where)
            _read_gnu(fields, blocks, given)
        else:
            return _member(fields, given, start)


def _fault(what: str, at: int, where: str, readings: str = "") -> ArtifactError:
    return ArtifactError(
        f"{what} (tar header at byte {at})" + (f": {readings}" if readings else ""),
        where=where,
        expected="files, folders and symbolic links in plain ustar, pax or GNU headers",
        fix="fetch or build the package again",
    )


def _begin(given: _Given, form: str, at: int, where: str) -> None:
    if given.form and (given.form != form or form == "pax"):
        raise _fault(
            f"a {form} header after a {given.form} one for one member",
            at,
            where,
            "readers differ on which of them holds",
        )
    given.form = form


class _Fields:
    """A header block whose checksum and form are right."""

    def __init__(self, block: bytes, at: int, where: str) -> None:
        self._block = block
        self._at = at
        self._where = where
        said = self.number(148, 8, "checksum", wide=False)
        if said != sum(block[:148]) + 8 * 32 + sum(block[156:]):
            raise ArtifactError(
                f"the tar archive is cut off or damaged (wrong checksum, tar header at byte {at})",
                where=where,
                fix="fetch or build the package again",
            )
        self.magic = block[257:265]
        # rattler-build writes a short name over that of the long link's header before it.
        self._leftover = _LONG_NAME if self.magic == _GNU else b""
        if self.magic not in (_POSIX, _GNU):
            raise self.fault(f"a header of another form, {self.magic!r}")
        self.kind = block[156:157]
        self._mode = self.number(100, 8, "mode", wide=False)
        # Not read by anybody here; but what is no number ends the archive for some readers.
        for offset, size, name in ((108, 8, "uid"), (116, 8, "gid"), (136, 12, "mtime")):
            self.number(offset, size, name)
        for offset, name in ((329, "devmajor"), (337, "devminor")):
            if self.number(offset, 8, name):
                raise self.fault(f"{name} is not 0")
        for offset, name in ((265, "uname"), (297, "gname")):
            self.text(offset, 32, name)
        unused = 500 if self.magic == _POSIX else 345
        if any(block[unused:]):
            raise self.fault(
                f"bytes in the unused part of a header, from {unused} on",
                "one reader takes them for a part of the name, or for a sparse file's map",
            )

    def fault(self, what: str, readings: str = "") -> ArtifactError:
        return _fault(what, self._at, self._where, readings)

    def text(self, offset: int, size: int, name: str) -> bytes:
        """A text that ends at the first zero byte or at the field's end."""
        text, _, rest = self._block[offset : offset + size].partition(b"\0")
        if any(rest) and rest.rstrip(b"\0") != self._leftover[len(text) + 1 :]:
            raise self.fault(
                f"bytes after the end of the {name}, {(text + b'...' + rest)[:80]!r}",
                "one reader stops at the zero byte, another does not",
            )
        return text

    def number(self, offset: int, size: int, name: str, *, wide: bool = True) -> int:
        """An octal number, or GNU's binary one where octal digits cannot say it."""
        field = self._block[offset : offset + size]
        if wide and field[0] & 0x80:
            value = int.from_bytes(field[1:], "big")
            if field[0] != 0x80 or not 8 ** (size - 1) <= value < 1 << 63:
                raise self.fault(
                    f"a binary {name}, {field.hex()}, that is not one",
                    "readers differ on its sign and length",
                )
            return value
        found = _NUMBER.fullmatch(field)
        if not found or (not found[1] and name in _NEEDED):
            raise self.fault(f"the {name} is {field!r}", "readers differ on what number it is")
        return int(found[1] or b"0", 8)

    @property
    def size(self) -> int:
        return self.number(124, 12, "size")

    @property
    def executable(self) -> bool:
        return bool(self._mode & 0o111)

    @property
    def path(self) -> bytes:
        name = self.text(0, 100, "name")
        prefix = self.text(345, 155, "prefix") if self.magic == _POSIX else b""
        return prefix + b"/" + name if prefix else name

    @property
    def target(self) -> bytes:
        return self.text(157, 100, "link name")

    def extension(self, blocks: Blocks) -> bytes:
        """The content of a header that belongs to the next one."""
        if self.size > limits.TAR_HEADER:
            raise self.fault(f"a tar header of more than {limits.TAR_HEADER} bytes")
        if self.target:
            raise self.fault("a link name in an extension's header")
        return blocks.content(self.size)


def _read_pax(data: bytes, given: _Given, at: int, where: str) -> None:
    seen: set[str] = set()
    place = 0
    while place < len(data):
        found = _RECORD.match(data, place)
        end = place + int(found[1]) if found else 0
        if not found or end > len(data) or end <= found.end() or data[end - 1] != 0x0A:
            raise _fault(
                f"a pax record {data[place : place + 40]!r}",
                at,
                where,
                "not <length> <key>=<value>",
            )
        key = found[2].decode("ascii", "replace")
        value = data[found.end() : end - 1]
        if key in seen:
            raise _fault(
                f"the pax record {key[:80]!r} twice",
                at,
                where,
                "one reader takes the first, another the last",
            )
        seen.add(key)
        _take_record(key, value, given, at, where)
        place = end


def _take_record(key: str, value: bytes, given: _Given, at: int, where: str) -> None:
    if key in _NAMES:
        if not value or b"\0" in value:
            raise _fault(f"the pax record {key} is {value[:80]!r}", at, where)
        if key == "path":
            given.path = value
        else:
            given.target = value
    elif key == "size":
        if not _DECIMAL.fullmatch(value):
            raise _fault(f"the pax record size is {value[:40]!r}", at, where)
        given.size = int(value)
    elif key in _TIMES:
        if not _TIME.fullmatch(value):
            raise _fault(f"the pax record {key} is {value[:40]!r}", at, where)
    elif key in _OWNERS:
        numeric = key not in ("uname", "gname")
        if not (_WHOLE.fullmatch(value) if numeric else b"\0" not in value):
            raise _fault(f"the pax record {key} is {value[:40]!r}", at, where)
    elif key.startswith("GNU.sparse."):
        raise _fault(
            f"a sparse file (pax record {key[:80]!r})",
            at,
            where,
            "one reader unpacks it under another name and size",
        )
    else:
        raise _fault(f"an unknown pax record {key[:80]!r}", at, where)


def _read_gnu(fields: _Fields, blocks: Blocks, given: _Given) -> None:
    if fields.magic != _GNU:
        raise fields.fault("GNU's long name in a header of POSIX")
    text = fields.extension(blocks)
    name = text[:-1] if text.endswith(b"\0") else text
    held = given.path if fields.kind == b"L" else given.target
    if not name or b"\0" in name or held is not None:
        raise fields.fault(
            f"a long name that is empty, there twice or has a zero byte: {text[:80]!r}",
            "one reader cuts it off there",
        )
    if fields.kind == b"L":
        given.path = name
    else:
        given.target = name


def _member(fields: _Fields, given: _Given, start: int) -> TarHeader:
    kind = _KINDS.get(fields.kind)
    if kind is None:
        raise fields.fault(_OTHER_KINDS.get(fields.kind, f"a member of kind {fields.kind!r}"))
    path = _decoded(given.path if given.path is not None else fields.path, fields)
    target = _decoded(given.target if given.target is not None else fields.target, fields)
    if target and kind != LINK:
        raise fields.fault(f"a {kind} with a link name, {target[:80]!r}")
    size = fields.size
    if given.size is not None and given.size != size:
        # What a header cannot say is 0 in it; any other pair is two sizes.
        if size or given.size < _OCTAL_SIZE:
            raise fields.fault(
                f"a pax size of {given.size} and one of {size} in the header",
                "one reader skips the one, another the other",
            )
        size = given.size
    if size and kind != FILE:
        raise fields.fault(
            f"a {kind} of {size} bytes, {path[:80]!r}",
            "one reader looks for the next header right behind it, another that many bytes later",
        )
    if kind == FOLDER:
        path = path.removesuffix("/")
    elif path.endswith("/"):
        raise fields.fault(
            f"the name {path[:80]!r} of a {kind} is not in its plain form (a slash at its end)",
            "one reader takes it for a folder",
        )
    return TarHeader(path, kind, size, kind == FILE and fields.executable, target, start)


def _decoded(text: bytes, fields: _Fields) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise fields.fault(
            f"a name that is not UTF-8, {text[:80]!r}", "readers differ on its encoding"
        ) from None
