"""How much an archive and what is in it may ask for: every bound of the readers, in one place.

Real artifacts stay far below each; docs/security.md has the table. A bound holds for what is
declared where something declares it, before anything is unpacked, and while unpacking in any case.
"""

from __future__ import annotations

__all__ = [
    "ABOUT_SIZE",
    "CHANNEL_MEMORY",
    "CONTAINER_METADATA",
    "CORE_METADATA",
    "DEPENDENCY_LENGTH",
    "DIGITS",
    "ELF_DYNAMIC",
    "ELF_INFO",
    "ELF_NAME",
    "ELF_OVERLAP",
    "ELF_SECTIONS",
    "ELF_SEGMENTS",
    "ELF_STRINGS",
    "ELF_SYMBOLS",
    "ELF_TEXT",
    "ELF_VERSIONS",
    "ELF_VERSION_TABLE",
    "ENTRY_POINTS",
    "FILE_NAME",
    "FINDINGS",
    "GPU_IMAGES",
    "HEADER_LINES",
    "HEADER_SIZE",
    "INDEX_SIZE",
    "INFO_SIZE",
    "JSON_DEPTH",
    "JSON_DIGITS",
    "JSON_SIZE",
    "JSON_VALUES",
    "LIBRARY_FACTS",
    "MEMBERS",
    "NAMES",
    "NAME_DEPTH",
    "NAME_LENGTH",
    "NAME_PART",
    "RECORD_LINES",
    "RECORD_SIZE",
    "REPODATA_SIZE",
    "TAGS",
    "TAR_HEADER",
    "TAR_PADDING",
    "TEXTS",
    "TEXT_DEPTH",
    "TEXT_SIZE",
    "UNPACKED",
    "VERSION_LENGTH",
    "ZIP_DIRECTORY",
    "ZSTD_WINDOW_LOG",
]

# ---------------------------------------------------------------- names
FILE_NAME = 255  # bytes of an artifact's own name; no file system takes more
NAME_LENGTH = 4096  # bytes of a member's path
NAME_PART = 255  # bytes of one part of it
NAME_DEPTH = 128  # parts of it
NAMES = 16 << 20  # characters of all names of an archive together, folders counted once each

# ---------------------------------------------------------------- archives
MEMBERS = 100_000
UNPACKED = 16 << 30  # bytes of all files together
INFO_SIZE = 64 << 20  # bytes of everything below info/ of a conda package
ZIP_DIRECTORY = 32 << 20  # bytes of a central directory
TAR_HEADER = 16 << 10  # bytes of a header's extensions: a long name, pax records
TAR_PADDING = 1 << 20  # an archive is filled up to a record, of 10 KiB unless one asked for more
ZSTD_WINDOW_LOG = 27  # that of level 22; the memory that unpacking takes

# ---------------------------------------------------------------- what is read into memory whole
CONTAINER_METADATA = 64 << 10  # metadata.json of a .conda
ABOUT_SIZE = 4 << 20
INDEX_SIZE = 4 << 20  # index.json of a package
CORE_METADATA = 16 << 20  # METADATA, with its description
HEADER_SIZE = 1 << 20  # the headers of METADATA and WHEEL
HEADER_LINES = 20_000
ENTRY_POINTS = 1 << 20  # entry_points.txt
RECORD_SIZE = 24 << 20
RECORD_LINES = 2 * MEMBERS
REPODATA_SIZE = 32 << 20  # repodata.json, and what repodata.json.zst unpacks to
JSON_SIZE = 32 << 20  # any other JSON document
JSON_VALUES = 1_200_000  # commas and opening brackets
JSON_DEPTH = 32
JSON_DIGITS = 64  # of one number
TEXT_SIZE = 4 << 20  # a script or another small file that is looked into
TEXTS = 64 << 20  # all of them of an artifact together

CHANNEL_MEMORY = 4 << 30  # bytes that the program takes which reads channels with rattler

# ---------------------------------------------------------------- shared objects, GPU code
ELF_SEGMENTS = 256  # program headers
ELF_SECTIONS = 4096
ELF_DYNAMIC = 4096  # entries of a dynamic section; libraries that are needed among them
ELF_VERSIONS = 1 << 15  # symbol versions; the index of one has 15 bits
ELF_VERSION_TABLE = 4 << 20  # bytes of .gnu.version_r, and of .gnu.version_d
ELF_TEXT = 1 << 20  # characters of the names of sections, and of those of libraries and versions
ELF_SYMBOLS = 2_000_000  # dynamic symbols of one library
ELF_STRINGS = 128 << 20  # bytes of .dynstr
ELF_NAME = 1 << 20  # bytes of a symbol's name
ELF_OVERLAP = 8  # times .dynstr: the names of all symbols, which may overlap
ELF_INFO = 64 << 10  # bytes of a section of build information, and of a note
GPU_IMAGES = 1 << 17  # fat binaries and the images in them, of a section
FINDINGS = 10_000  # that `verify` lists of one artifact
LIBRARY_FACTS = 64 << 20  # bytes of what is kept of all libraries of an artifact

# ---------------------------------------------------------------- texts that others parse
VERSION_LENGTH = 255  # characters of a version
DEPENDENCY_LENGTH = 4096  # characters of a dependency, a requirement, a licence, a tag
TEXT_DEPTH = 32  # brackets in one another in one of them
DIGITS = 64  # of a number in one of them
TAGS = 1024  # that a wheel's compressed sets stand for
