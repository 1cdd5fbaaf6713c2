"""Artifacts whose archives are as they should be, and whose texts are not: one generator a place.

Each place that a program reads (a field, a document, a name, a variable) is given each value that
has ended a parser, or could end one: too deep, too long, too many digits, of another type, with
characters that a terminal obeys. Nothing here knows the readers under test, so that tests and
fuzzers can use all of it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from archive_mutations import Block, ZipEntry, pax, tar_of, zip_of

from conda_bridge.formats.zstd import zstd

__all__ = [
    "CONTROLS",
    "FAKED",
    "TEXTS",
    "VALUES",
    "Hostile",
    "conda",
    "conda_packages",
    "dependencies",
    "documents",
    "requirements",
    "toml_texts",
    "wheel",
    "wheels",
]

# What a terminal obeys, or shows as another text: C0, DEL, C1, directions, line separators.
CONTROLS = "".join(
    map(
        chr,
        (
            *(0x07, 0x08, 0x0B, 0x0C, 0x0D, 0x1B, 0x7F, 0x85, 0x90, 0x9B, 0x9D),
            *(0x200B, 0x200E, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
            *(0xFEFF, 0xE0041),
        ),
    )
)
FAKED = "faked.conda: the same, 7 files equal"  # a line that no program has a reason to print

TEXTS: Mapping[str, str] = {
    "parentheses": "(" * 5000 + "1" + ")" * 5000,
    "open parentheses": "(" * 5000,
    "brackets": "[" * 5000,
    "braces": "{" * 5000,
    "digits": "1" * 5000,
    "version of digits": "1." + "9" * 5000,
    "many numbers": "1" + ".1" * 20_000,
    "long": "a" * 100_000,
    "alternatives": "|".join([">1"] * 20_000),
    "commas": "1,>" * 20_000,
    "series": "=1|" * 1300 + "=1",
    "exclusions": ",".join(f"!=1.{n}rc1" for n in range(400)),
    "controls": f"x{CONTROLS}\x1b[31my",
    "lines": f"x\n{FAKED}\ny",
    "zero": "a\0b",
    "beyond ASCII": "\u00e9\U0001f600",
    "markup": "[bold red]x[/bold red] [/] :smile: [link=x]",
    "format": "%s %(x)s {} {x} \\N{BEL} $HOME `id`",
    "empty": "",
    "blank": " \t ",
    "dashes": "-" * 300,
    "markers": "a; " + "(" * 3000 + "python_version > '3'" + ")" * 3000,
    "URL": "a @ https://[::1" + "/" * 300,
    "condition": 'a[when="' + "(" * 3000 + "python" + ")" * 3000 + '"]',
    "regular expression": "a 1 ^(((((a*)*)*)*)*)*b$",
}


def _nested(depth: int) -> object:
    value: object = "x"
    for number in range(depth):
        value = {"a": value} if number % 2 else [value]
    return value


# Of other types than a text.
VALUES: Mapping[str, object] = {
    "null": None,
    "true": True,
    "below zero": -1,
    "2 ** 63 - 1": 2**63 - 1,
    "fraction": 1.5,
    "list": [],
    "object": {},
    "list of null": [None],
    "list of lists": [["a"], {"b": 1}],
    "nested": _nested(28),
    "many": ["a"] * 3000,
}


@dataclass(frozen=True)
class Hostile:
    """An artifact.

    Attributes:
        what: the place, and what is there.
        file: its name.
        data: its bytes.
    """

    what: str
    file: str
    data: bytes


# ---------------------------------------------------------------- conda packages

_METADATA = b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n"
_SITE = "site-packages/toy-1.0.dist-info"
_FILES: Mapping[str, bytes] = {
    "site-packages/toy/__init__.py": b"value = 1\n",
    f"{_SITE}/METADATA": _METADATA,
    f"{_SITE}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{_SITE}/RECORD": b"",
    f"{_SITE}/entry_points.txt": b"[console_scripts]\ntoy = toy:main\n",
}
_INDEX: Mapping[str, object] = {
    "name": "toy",
    "version": "1.0",
    "build": "py_0",
    "build_number": 0,
    "depends": ["python >=3.8"],
    "constrains": ["six >=1"],
    "license": "MIT",
    "noarch": "python",
    "subdir": "noarch",
    "timestamp": 1,
}
_ABOUT: Mapping[str, object] = {
    "home": "https://example.org",
    "summary": "A toy",
    "description": "Of wood",
    "license": "MIT",
    "dev_url": ["https://example.org"],
}
_LINK: Mapping[str, object] = {
    "noarch": {"type": "python", "entry_points": ["toy = toy:main"]},
    "package_metadata_version": 1,
}


def conda(
    *,
    name: str = "toy",
    version: str = "1.0",
    build: str = "py_0",
    index: Mapping[str, object] | None = None,
    files: Mapping[str, bytes | None] | None = None,
    info: Mapping[str, bytes | None] | None = None,
    links: Mapping[str, str] | None = None,
) -> tuple[str, bytes]:
    """File name and bytes of a whole ``.conda``.

    Args:
        name, version, build: in the file name and in index.json.
        index: replaces values of index.json.
        files: replaces files of the payload; None leaves one out.
        info: replaces documents below info/; None leaves one out.
        links: symbolic links of the payload, by path their target.
    """
    payload = {k: v for k, v in {**_FILES, **(files or {})}.items() if v is not None}
    paths = [
        {
            "_path": path,
            "path_type": "hardlink",
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_in_bytes": len(data),
        }
        for path, data in payload.items()
    ]
    paths += [{"_path": path, "path_type": "softlink"} for path in links or {}]
    told = {**_INDEX, "name": name, "version": version, "build": build, **(index or {})}
    documents: dict[str, bytes | None] = {
        "index.json": json.dumps(told).encode(),
        "about.json": json.dumps(_ABOUT).encode(),
        "link.json": json.dumps(_LINK).encode(),
        "paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode(),
        **(info or {}),
    }
    stem = f"{name}-{version}-{build}"
    told_of = {f"info/{path}": data for path, data in documents.items() if data is not None}
    data = zip_of(
        [
            ZipEntry.of("metadata.json", b'{"conda_pkg_format_version": 2}'),
            ZipEntry.of(f"pkg-{stem}.tar.zst", zstd.compress(_tar(payload, links), 1)),
            ZipEntry.of(f"info-{stem}.tar.zst", zstd.compress(_tar(told_of), 1)),
        ]
    )
    return f"{stem}.conda", data


def _tar(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    blocks = []
    for path, target in (links or {}).items():
        blocks.append(pax((b"linkpath", target.encode())))
        blocks.append(Block(path.encode(), kind=b"2", link=target.encode()[:100]))
    for path, data in files.items():
        name = path.encode()
        if len(name) > 100:
            blocks.append(pax((b"path", name)))
        blocks.append(Block(name[:100], data))
    return tar_of(blocks)


def dependencies(text: str) -> Iterator[str]:
    """A dependency of conda with `text` in each of its parts."""
    yield text
    yield f"toy {text}"
    yield f"toy >={text}"
    yield f"toy 1.0 {text}"
    yield f"toy[version='{text}']"


def requirements(text: str) -> Iterator[str]:
    """A requirement of pip with `text` in each of its parts."""
    yield text
    yield f"six {text}"
    yield f"six >={text}"
    yield f"six[{text}]"
    yield f"six; {text}"
    yield f"six; python_version > '{text}'"
    yield f"six @ https://{text}"


def documents() -> Iterator[tuple[str, bytes]]:
    """JSON documents that are none, or ask for too much."""
    yield "nested lists", b"[" * 100_000 + b"]" * 100_000
    yield "nested objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield "digits", b'{"a": ' + b"1" * 5000 + b"}"
    yield "digits of a fraction", b'{"a": 1.' + b"1" * 5000 + b"}"
    yield "exponent", b'{"a": 1e' + b"9" * 5000 + b"}"
    yield "half a pair", b'{"a": "\\ud800"}'
    yield "not UTF-8", b'{"a": "\xff"}'
    yield "controls", json.dumps({TEXTS["controls"]: TEXTS["controls"]}).encode()
    yield "no JSON", TEXTS["controls"].encode()
    yield "a text", b'"x"'
    yield "nothing", b""


def conda_packages() -> Iterator[Hostile]:
    """A package with each hostile value in each place."""
    for key in (*_INDEX, "arch", "platform", "track_features", "features", "extra_depends"):
        if key in ("name", "version", "build"):
            continue
        for what, text in TEXTS.items():
            yield Hostile(f"index.json: {key}: {what}", *conda(index={key: text}))
            if key in ("depends", "constrains"):
                for number, spec in enumerate(dependencies(text)):
                    made = conda(index={key: ["python", spec]})
                    yield Hostile(f"index.json: {key}: {what}, form {number}", *made)
        for what, value in VALUES.items():
            yield Hostile(f"index.json: {key}: {what}", *conda(index={key: value}))
    for key in _ABOUT:
        for what, value in {**TEXTS, **VALUES}.items():
            text = json.dumps({**_ABOUT, key: value}).encode()
            yield Hostile(f"about.json: {key}: {what}", *conda(info={"about.json": text}))
    for what, value in {**TEXTS, **VALUES}.items():
        for key, link in (
            ("entry_points", {"noarch": {"type": "python", "entry_points": value}}),
            ("an entry point", {"noarch": {"type": "python", "entry_points": [value]}}),
            ("its function", {"noarch": {"type": "python", "entry_points": [f"toy = {value}"]}}),
            ("noarch", {"noarch": value}),
            ("type", {"noarch": {"type": value}}),
        ):
            made = conda(info={"link.json": json.dumps(link).encode()})
            yield Hostile(f"link.json: {key}: {what}", *made)
        for key in ("_path", "path_type", "sha256", "size_in_bytes", "file_mode", "paths"):
            entry = {"_path": "a", "path_type": "hardlink", "sha256": "0" * 64, "size_in_bytes": 1}
            paths: Any = value if key == "paths" else [{**entry, key: value}]
            made = conda(info={"paths.json": json.dumps({"paths": paths}).encode()})
            yield Hostile(f"paths.json: {key}: {what}", *made)
    for name in ("index.json", "about.json", "link.json", "paths.json"):
        for what, document in documents():
            yield Hostile(f"{name}: {what}", *conda(info={name: document}))
    for what, text in core_metadata():
        made = conda(files={f"{_SITE}/METADATA": text})
        yield Hostile(f"METADATA in a package: {what}", *made)
    for what, text in entry_points():
        made = conda(files={f"{_SITE}/entry_points.txt": text})
        yield Hostile(f"entry_points.txt in a package: {what}", *made)
    for what, text in wheel_headers():
        made = conda(files={f"{_SITE}/WHEEL": text})
        yield Hostile(f"WHEEL in a package: {what}", *made)
    for what, name in names():
        yield Hostile(f"a file's name: {what}", *conda(files={name: b"x"}))
        yield Hostile(f"a module's name: {what}", *conda(files={f"site-packages/{name}": b"x"}))
        yield Hostile(f"a link's target: {what}", *conda(links={"lib/a": name}))
    for what, text in TEXTS.items():
        if len(text) < 120 and "/" not in text and "-" not in text and "\0" not in text:
            for part in ("name", "version", "build"):
                yield Hostile(f"file name: {part}: {what}", *conda(**{part: f"1{text}"}))


# ---------------------------------------------------------------- what both kinds hold


def core_metadata() -> Iterator[tuple[str, bytes]]:
    """METADATA with each hostile text in each header."""
    for key in (
        *("Name", "Version", "Summary", "License", "License-Expression", "Requires-Python"),
        *("Keywords", "Classifier", "Project-URL", "Provides-Extra", "License-File", "Author"),
        *("Requires-Dist", "Metadata-Version", "Content-Type", "Description-Content-Type"),
    ):
        for what, text in TEXTS.items():
            # A second line of a header is one that begins with a blank.
            folded = text.replace("\n", "\n ").encode()
            yield f"{key}: {what}", _METADATA + f"{key}: ".encode() + folded + b"\n"
    for what, text in TEXTS.items():
        for number, requirement in enumerate(requirements(text.replace("\n", "\n "))):
            line = f"Requires-Dist: {requirement}\n".encode()
            yield f"Requires-Dist: {what}, form {number}", _METADATA + line
    message = b"Content-Type: message/rfc822\n\n"
    yield "messages in messages", _METADATA + message * 1500
    parts = b"".join(b"Content-Type: multipart/mixed; boundary=%d\n\n--%d\n" % (n, n)
                     for n in range(1500))  # fmt: skip
    yield "parts in parts", _METADATA + parts
    yield "encoded words", _METADATA + b"Summary: " + b"=?utf-8?q?=1b=5b31m?= " * 2000 + b"\n"
    yield "no headers", b"\x00" * 100
    yield "not UTF-8", _METADATA + b"Summary: \xff\xfe\n"
    yield "nothing", b""


def wheel_headers() -> Iterator[tuple[str, bytes]]:
    """WHEEL with each hostile text in each header."""
    for key in ("Wheel-Version", "Generator", "Root-Is-Purelib", "Tag", "Build"):
        for what, text in {**TEXTS, "tags": ".".join(f"a{n}" for n in range(300))}.items():
            folded = text.replace("\n", "\n ")
            yield f"{key}: {what}", f"Wheel-Version: 1.0\n{key}: {folded}\n".encode()
    many = ".".join(f"a{n}" for n in range(300))
    yield "tags of 300 cubed", f"Wheel-Version: 1.0\nTag: {many}-{many}-{many}\n".encode()
    yield "many tags", b"Wheel-Version: 1.0\n" + b"Tag: py3-none-any\n" * 15_000


def entry_points() -> Iterator[tuple[str, bytes]]:
    """entry_points.txt with each hostile text in each of its parts."""
    for what, text in TEXTS.items():
        for form in (
            "{}",
            "[{}]\ntoy = toy:main\n",
            "[console_scripts]\n{} = toy:main\n",
            "[console_scripts]\ntoy = {}\n",
            "[console_scripts]\ntoy = toy:{}\n",
        ):
            filled = form.replace("{}", text)
            yield f"{form!r} with {what}", filled.encode()
    yield "an option twice", b"[console_scripts]\na = b:c\na = d:e\n"
    yield "a section twice", b"[console_scripts]\na = b:c\n[console_scripts]\nb = d:e\n"
    yield "not UTF-8", b"[console_scripts]\n\xff = a:b\n"
    yield "many", b"[console_scripts]\n" + b"".join(b"a%d = b:c\n" % n for n in range(20_000))


def names() -> Iterator[tuple[str, str]]:
    """Names of members that no file system takes, or no terminal."""
    yield "1 900 folders", "a/" * 1900 + "b"
    yield "127 folders", "a/" * 127 + "b"
    yield "300 characters", "a" * 300
    yield "255 bytes", "a" * 255
    yield "4 000 characters", "/".join(["a" * 200] * 20)
    for character in (*CONTROLS, "\n", "\t"):
        yield f"U+{ord(character):04X}", f"a{character}{FAKED}"
    yield "markup", "[bold]x[-bold]"
    yield "percent", "%s%(x)s{}"
    yield "quotes", "a'b\"c"


# ---------------------------------------------------------------- wheels

_TOY = "toy-1.0.dist-info"
_WHEEL_FILES: Mapping[str, bytes] = {
    "toy/__init__.py": b"value = 1\n",
    f"{_TOY}/METADATA": _METADATA,
    f"{_TOY}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{_TOY}/entry_points.txt": b"[console_scripts]\ntoy = toy:main\n",
}


def wheel(
    *,
    file: str = "toy-1.0-py3-none-any.whl",
    files: Mapping[str, bytes | None] | None = None,
    record: bytes | None = None,
) -> tuple[str, bytes]:
    """File name and bytes of a whole wheel.

    Args:
        file: its name.
        files: replaces files; None leaves one out.
        record: in place of the RECORD that is right.
    """
    members = {k: v for k, v in {**_WHEEL_FILES, **(files or {})}.items() if v is not None}
    if record is None:
        lines = io.StringIO()
        for path, data in members.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            quoted = '"' + path.replace('"', '""') + '"'
            lines.write(f"{quoted},sha256={digest},{len(data)}\n")
        record = f"{lines.getvalue()}{_TOY}/RECORD,,\n".encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in {**members, f"{_TOY}/RECORD": record}.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return file, made.getvalue()


def records() -> Iterator[tuple[str, bytes]]:
    """RECORD with each hostile text in each column."""
    for what, text in TEXTS.items():
        quoted = '"' + text.replace('"', '""') + '"'
        for row in (f"{quoted},,", f"a,{quoted},", f"a,,{quoted}", text, f'a,"{text}'):
            yield what, f"{row}\n{_TOY}/RECORD,,\n".encode()
    yield "not UTF-8", b"\xff,,\n"


def wheels() -> Iterator[Hostile]:
    """A wheel with each hostile value in each place."""
    for what, text in core_metadata():
        yield Hostile(f"METADATA: {what}", *wheel(files={f"{_TOY}/METADATA": text}))
    for what, text in wheel_headers():
        yield Hostile(f"WHEEL: {what}", *wheel(files={f"{_TOY}/WHEEL": text}))
    for what, text in entry_points():
        yield Hostile(f"entry_points.txt: {what}", *wheel(files={f"{_TOY}/entry_points.txt": text}))
    for what, text in records():
        yield Hostile(f"RECORD: {what}", *wheel(record=text))
    for what, name in names():
        yield Hostile(f"a file's name: {what}", *wheel(files={name: b"x"}))
        yield Hostile(f"a script's name: {what}", *wheel(files={f"toy-1.0.data/scripts/{name}": b"x"}))  # fmt: skip  # noqa: E501
    sets = ".".join(f"a{n}" for n in range(24))
    for what, file in (
        ("tags of 24 cubed", f"toy-1.0-{sets}-{sets[:60]}-{sets[:60]}.whl"),
        ("digits", f"toy-1.0-{'1' * 200}-py3-none-any.whl"),
        ("a version of digits", f"toy-{'1' * 200}-py3-none-any.whl"),
        ("no version", "toy-x-py3-none-any.whl"),
        ("six parts", "toy-1.0-1-2-py3-none-any.whl"),
        ("an escape", "toy-1.0+\x1b[31m-py3-none-any.whl"),
        ("two lines", f"toy-1.0\n{FAKED}-py3-none-any.whl"),
        ("directions", "toy-1.0-py3-none-any\u202e.whl"),
        ("beyond ASCII", "toy-1.0-py3-n\u00f6ne-any.whl"),
        ("half a byte", "toy-1.0-py3-none-any\udcff.whl"),
    ):
        yield Hostile(f"file name: {what}", *wheel(file=file))


def toml_texts() -> Iterator[tuple[str, bytes]]:
    """TOML that is none, or asks for too much."""
    yield "nested lists", b"a = " + b"[" * 5000 + b"]" * 5000
    yield "nested tables", b"a = " + b"{a = " * 5000
    yield "dotted keys", b".".join([b"a"] * 5000) + b" = 1"
    yield "digits", b"a = " + b"1" * 5000
    yield "hexadecimal", b"a = 0x" + b"f" * 5000
    yield "exponent", b"a = 1e" + b"9" * 5000
    yield "a year", b"a = 9999-99-99"
    yield "controls", b'a = "\\u001B[31m"\n"\\u009B" = 1'
    yield "not UTF-8", b"\xff"
    yield "long", b"a = 1\n" * 1_000_000
