"""Unpacks a file that is one zstd frame from its first byte to its last.

zstd lets frames follow one another, frames with unused bytes among them. Some readers unpack the
first frame and others all of them, so what is more than one would be two files.
"""

from __future__ import annotations

from ..errors import ArtifactError
from . import limits
from .readable import Readable
from .zstd import zstd

__all__ = ["ZstdFrame", "decompressed"]

_CHUNK = 1 << 17
_HEADER = 18  # the longest header of a frame
_MAGIC = b"\x28\xb5\x2f\xfd"
_ONE = "one zstd frame with one content, which all tools read alike"


class ZstdFrame:
    """The content of a frame, read front to back; of no more memory than the frame's window.

    Args:
        raw: the file, at its first byte.
        where: its name, for messages.
    """

    def __init__(self, raw: Readable, where: str) -> None:
        # Level 22 has a window of 2**27; more memory than that no package needs.
        options: dict[int, int] = {
            zstd.DecompressionParameter.window_log_max: limits.ZSTD_WINDOW_LOG
        }
        self._raw = raw
        self._where = where
        self._stream = zstd.ZstdDecompressor(options=options)
        self._begun = False
        self._ended = False
        self._size: int | None = None
        self._read = 0
        self._taken = 0

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end.

        Raises:
            ArtifactError: something else than one frame, or a frame that is not as long as it says.
            zstd.ZstdError, EOFError: it is damaged or cut off.
        """
        while not self._stream.eof:
            compressed = b""
            if self._stream.needs_input or not self._begun:
                compressed = self._take()
                if not compressed:
                    raise EOFError("the file ends within its zstd frame")
            data = self._stream.decompress(compressed, size)
            self._read += len(data)
            if data:
                return data
        if not self._ended:
            self._ended = True
            self._check_end()
        return b""

    def _take(self) -> bytes:
        data = self._raw.read(_CHUNK)
        while not self._begun and len(data) < _HEADER and (more := self._raw.read(_CHUNK)):
            data += more
        if not self._begun:
            self._begun = True
            self._check_start(data)
        self._taken += len(data)
        return data

    def _check_start(self, data: bytes) -> None:
        if data[:4] != _MAGIC:
            raise ArtifactError(
                f"begins with the bytes {data[:4].hex()}, not with a zstd frame",
                where=self._where,
                expected=_ONE,
            )
        info = zstd.get_frame_info(data[:_HEADER])
        if info.dictionary_id:
            raise ArtifactError(
                f"needs the dictionary {info.dictionary_id}", where=self._where, expected=_ONE
            )
        self._size = info.decompressed_size

    def _check_end(self) -> None:
        rest = self._stream.unused_data or self._raw.read(1)
        if rest:
            at = self._taken - len(self._stream.unused_data)
            raise ArtifactError(
                f"there is data after the end of the zstd frame (at byte {at}): one reader unpacks"
                " it as more of the content, another passes over it",
                where=self._where,
                expected=_ONE,
                fix="fetch or build it again",
            )
        if self._size is not None and self._size != self._read:
            raise ArtifactError(
                f"unpacks to {self._read} bytes, and its frame says {self._size}",
                where=self._where,
                expected=_ONE,
            )

    @property
    def declared_size(self) -> int | None:
        """What the frame says it unpacks to, once something has been read."""
        return self._size


def decompressed(raw: Readable, where: str, *, max_bytes: int) -> bytes:
    """The whole content of a file that is one frame.

    Raises:
        ArtifactError: it is not one whole frame, or has more than `max_bytes`, by what it says of
            itself or in fact.
    """
    frame = ZstdFrame(raw, where)
    parts = []
    left = max_bytes
    too_large = f"unpacks to more than the {max_bytes} bytes it may have"
    try:
        while data := frame.read(1 << 20):
            left -= len(data)
            if left < 0 or (frame.declared_size or 0) > max_bytes:
                raise ArtifactError(too_large, where=where)
            parts.append(data)
    except (zstd.ZstdError, EOFError, OSError) as error:
        raise ArtifactError(f"cannot be decompressed: {error}", where=where) from error
    return b"".join(parts)
