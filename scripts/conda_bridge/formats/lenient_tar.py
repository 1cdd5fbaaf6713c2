"""Bounds for :mod:`tarfile`, where an archive of another's form is read: a .deb, a source archive.

What becomes a wheel or a package is read by :mod:`.tar_stream`, which takes fewer forms.
"""

from __future__ import annotations

import tarfile

from ..errors import ArtifactError
from . import limits

__all__ = ["TarHeader"]

# What comes before a member and says more of it. tarfile reads it into memory, whatever its size.
_EXTENSIONS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


class TarHeader(tarfile.TarInfo):
    """A header that asks for no more than a header may: give it to :func:`tarfile.open`."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> TarHeader:
        """The header in a block.

        Raises:
            ArtifactError: an extension that is too large, or a sparse file.
        """
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENSIONS and header.size > limits.TAR_HEADER:
            raise ArtifactError(
                f"a tar header of kind {header.type!r} with {header.size} bytes",
                where=header.name[:80],
                expected=f"at most {limits.TAR_HEADER} bytes",
            )
        if header.type == tarfile.GNUTYPE_SPARSE:
            header._sparse()
        return header

    def _sparse(self, *_: object) -> None:
        raise ArtifactError("a sparse file", where=self.name[:80], expected="a file")

    # What tarfile calls where pax records say it: the maps of such files may be of any size.
    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _sparse
