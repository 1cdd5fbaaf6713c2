"""Documents: JSON, headers, TOML, YAML and the Python that a build writes of itself."""

from __future__ import annotations

import itertools
import json
import operator
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import factories
import rattler
import yaml

from conda_bridge import config
from conda_bridge.bridge import names
from conda_bridge.bridge.conda_layout import entry_points
from conda_bridge.errors import ArtifactError, ConfigError
from conda_bridge.formats import conda_package, json_reader, wheel_reader
from conda_bridge.formats.headers import read_headers
from conda_bridge.formats.index_json import check_index, check_record
from conda_bridge.formats.wheel import Metadata
from conda_bridge.project import Project
from conda_bridge.publish import (
    channel,
    channel_forms,
    index,
    listing,
    pages,
    wheel_entry,
    wheels,
)
from conda_bridge.publish.facts import Facts
from conda_bridge.publish.intake import WheelName
from flashinfer_build import variants
from flashinfer_build.checks import build_info
from flashinfer_build.toolchain import lock

from ..mutators import headers, text
from ..mutators import json as json_of
from ..target import Target
from ._names import NAME, REQUIREMENT
from ._places import from_file, place, scratch

__all__ = ["INDEX", "TARGETS"]

_ROOT = Path(__file__).resolve().parents[3]
_SHA = "ab" * 32
INDEX: dict[str, Any] = {
    **{"name": "toy", "version": "1.0", "build": "h_0", "build_number": 0, "license": "MIT"},
    **{"depends": ["python >=3.8", "numpy 1.*"], "constrains": ["cuda-version >=12"]},
    **{"subdir": "noarch", "noarch": "python", "timestamp": 1700000000000, "arch": None},
    **{"track_features": "", "features": None, "extra_depends": {"all": ["scipy"]}, "flags": []},
    "python_site_packages_path": "lib/python3.12/site-packages",
}
_RECORD = {**INDEX, "md5": "0" * 32, "sha256": _SHA, "size": 10}
_FORMATS = "conda_bridge.formats."


def _dumped(*documents: object) -> list[bytes]:
    return [json.dumps(document).encode() for document in documents]


# ------------------------------------------------------------ JSON


def read_json(data: bytes) -> None:
    """Any document: what is accepted is what Python reads, and comes back as it was."""
    value = json_reader.parse(data, "input")
    assert value == json.loads(data)
    assert json_reader.parse(json.dumps(value).encode(), "input") == value


def read_index_json(data: bytes) -> None:
    """``index.json``: what may stand in a channel can be read there by rattler."""
    index = json_reader.parse_object(data, "input")
    check_index(index, "input")
    record = {key: index[key] for key in channel._KEYS if key in index}
    record |= {"md5": "0" * 32, "sha256": _SHA, "size": 1}
    check_record(record, "input")
    name = f"{index['name']}-{index['version']}-{index['build']}.conda"
    path = place("channel/repodata.json")
    path.write_bytes(channel_forms.repodata("noarch", {name: record}))
    read_by_rattler(path)


def read_by_rattler(path: Path) -> None:
    """Fails where py-rattler cannot read a repodata.json that is written here."""
    try:
        rattler.RepoData.from_path(path)
    except Exception as error:
        raise AssertionError(f"py-rattler cannot read it: {error}") from error


def read_paths(data: bytes) -> None:
    """``paths.json``."""
    info = {"info/paths.json": data}
    conda_package._read_paths(info, Path("input"), conda_package.Limits())


def read_repodata(data: bytes) -> None:
    """A channel's index, in both forms; what is accepted is written again as the same."""
    with scratch("published") as folder:
        (folder / "noarch").mkdir()
        plain, zst = folder / "noarch/repodata.json", folder / "noarch/repodata.json.zst"
        plain.write_bytes(data)
        found = channel.published(folder, "noarch")
        channel.published_digests(folder, "noarch")
        channel.read_already(folder, "noarch")
        for name, content in channel_forms.documents(
            "noarch", {name: channel_forms.Listed(item) for name, item in found.items()}
        ).items():
            (folder / "noarch" / name).parent.mkdir(exist_ok=True)
            (folder / "noarch" / name).write_bytes(content)
        assert channel.published(folder, "noarch") == found
        assert channel.consistent(folder, "noarch")
        assert channel.read_already(folder, "noarch") == {one["sha256"] for one in found.values()}
        read_by_rattler(plain)
        assert zst.is_file()


_PROJECT = factories.FLASHINFER
_LABEL = factories.label_of("cu130_torch213")


def _entry(**changes: Any) -> wheel_entry.WheelEntry:
    named = WheelName.of(_LABEL.wheel_file, _PROJECT)
    return wheel_entry.WheelEntry(named, _SHA, 100, ">=3.8", _SHA, **changes)


def _page(ending: str) -> bytes:
    return pages.pages([_entry()], _PROJECT)[f"{_entry().folder}/{ending}"]


def _read_pages(files: Mapping[str, bytes]) -> None:
    with scratch("root") as root:
        folder = root / wheel_entry.INDEX / _entry().folder
        folder.mkdir(parents=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        found = wheels.published(root, _PROJECT)
        wheels.published_digests(root, _PROJECT)
        wheels.read_already(root, _PROJECT)
        pages.pages(found.values(), _PROJECT)


def read_index_page(data: bytes) -> None:
    """A page of the wheel index: JSON, and the HTML page that is right beside it."""
    _read_pages({"index.json": data, "index.html": _page("index.html")})


def read_index_html(data: bytes) -> None:
    """A page of the wheel index: HTML, beside JSON that is damaged, and beside JSON that is not."""
    _read_pages({"index.json": _page("index.json"), "index.html": data})
    try:
        _read_pages({"index.json": b"{", "index.html": data})
    except ArtifactError:
        return


def read_listing(data: bytes) -> None:
    """The listing of a folder; what is accepted is read again as the same."""
    with scratch("listed") as folder:
        path = folder / listing.LISTING
        path.write_bytes(data)
        items = listing.read_listing(path)
        if items is None:
            return
        index._facts_known(folder, _PROJECT)
        path.write_bytes(listing.listing(items, ""))
        key = operator.attrgetter("folder", "name")
        assert listing.read_listing(path) == sorted(items, key=key)


def _listing() -> bytes:
    facts = Facts(("compute_80", "sm_80"), "2.28")
    files = ((_LABEL.wheel_file, "wheels"), (_LABEL.conda_file, "channel/linux-64"))
    return listing.listing(
        [
            listing.Item(name=name, folder=folder, sha256=_SHA, size=9, facts=facts, yanked="x")
            for name, folder in files
        ],
        "FlashInfer",
    )


def read_mapping(data: bytes) -> None:
    """A file of names, in each of its forms."""
    refusals = []
    for name in ("names.json", "names.toml"):
        path = place(name)
        path.write_bytes(data)
        try:
            names.read_mapping(path)
        except ConfigError as error:
            refusals.append(error)
    if len(refusals) == 2:
        raise refusals[0]


# ------------------------------------------------------------ headers and tables


def read_metadata(data: bytes) -> None:
    """METADATA: what is written again is read as the same."""
    parsed = Metadata.parse(data, "input")
    written = parsed.render()
    again = Metadata.parse(written.encode(), "again")
    assert again.render() == written


def read_wheel_file(data: bytes) -> None:
    """WHEEL and other headers."""
    message = read_headers(data, "input")
    for key in message:
        for value in message.get_all(key, []):
            str(value).encode("utf-8", "surrogateescape")


def read_record(data: bytes) -> None:
    """RECORD, and its rewriting for conda."""
    rows = wheel_reader._record(data, "input")
    for row in rows.values():
        assert row.size is None or row.size >= 0


def read_entry_points(data: bytes) -> None:
    """``entry_points.txt``."""
    entry_points(data, "input")


def read_lock(path: Path) -> None:
    """The toolchain lock: all that is asked of one."""
    found = lock.Lock.read(path)
    for release in found.cuda_releases:
        for wheel in found.cuda(release).wheels:
            _ = wheel.name, wheel.version
    for minor in found.torch_minors("cp311"):
        found.torch(minor, "cp311")
    for debian in found.debian_cuda.values():
        for deb in (*debian.toolkit, *debian.gxx):
            _ = deb.package, deb.upstream


def _small_lock() -> dict[str, Any]:
    """The lock with one entry of each table."""
    whole = json.loads(lock.LOCK_FILE.read_text())

    def first(table: Mapping[str, Any], count: int = 1) -> dict[str, Any]:
        return dict(itertools.islice(table.items(), count))

    torch = {
        minor: {**entry, "python": first(entry["python"])}
        for minor, entry in first(whole["torch"]).items()
    }
    debian = {
        "cuda": {
            release: {key: names[:1] for key, names in entry.items() if key in ("toolkit", "gxx")}
            for release, entry in first(whole["debian"]["cuda"]).items()
        },
        "sysroot": {glibc: names[:1] for glibc, names in first(whole["debian"]["sysroot"]).items()},
    }
    made = {**whole, "cuda": first(whole["cuda"]), "torch": torch, "debian": debian}
    text = json.dumps({**made, "wheels": {}, "debs": {}})
    for table in ("wheels", "debs"):
        made[table] = {name: value for name, value in whole[table].items() if f'"{name}"' in text}
    return made


def _small_variants() -> bytes:
    """The variant file with the first variant alone."""
    pins = yaml.safe_load((_ROOT / "conda_build_config.yaml").read_text())
    zipped = pins.pop("zip_keys")
    rows = "".join(f'{key}:\n  - "{values[0]}"\n' for key, values in pins.items())
    group = "\n    - ".join(zipped[0])
    return f"{rows}zip_keys:\n  - - {group}\n".encode()


def read_variants(path: Path) -> None:
    """The variants, as recipes see them."""
    for spec in variants.load(path):
        assert spec.as_mapping()["flashinfer_variant"] == spec.id


def read_config(path: Path) -> None:
    """``[tool.conda-bridge]`` and all that is made of it, but code of the project's own."""
    Project.of(config.read(path), "input", hooks=False)


def read_build_info(data: bytes) -> None:
    """``_build_info.py``: what is accepted can be shown."""
    found = build_info.read(data, "input")
    list(build_info.differences(found, build_info.expected(_LABEL)))


_TOML = (_ROOT / "pyproject.toml").read_text()
_TABLE = tomllib.loads(_TOML)["tool"]["conda-bridge"]
_WORDS_OF_CONFIG = (
    *("package", "wheel-name", "generator", "platform-tag", "license", "info-section", "hooks"),
    *("index-layout", "label", "fold", "files", "dependencies", "provided-by", "build", "local"),
    *("fields", "rank", "rank-step", "form", "choices", "characters", "least", "most", "none"),
    *("{major:2}", "{minor}", "[_g{commit}]", "{number}", "drop", ".data/scripts/", "depends"),
)
_JSON_WORDS = ("null", "true", "NaN", "1e999", "\\ud800", "\\u0000", "[[[[", '{"a":')


def _config_seeds() -> Iterable[bytes]:
    whole: dict[str, Any] = {**_TABLE, "provided-by": {"torch": ["libc10.so"]}}
    inside = json_of._inline(whole)
    yield f"[tool]\nconda-bridge = {inside}\n".encode()
    for field in ('choices = ["x", "y"]', 'characters = "abc", least = 2, most = 3'):
        label = f'[label]\nbuild = "{{a}}_{{number}}"\nlocal = "g{{a}}"\nfields.a = {{{field}}}\n'
        yield f'package = "toy"\n{label}'.encode()


TARGETS = (
    Target(
        "json",
        read_json,
        (_FORMATS + "json_reader:parse _Reader _check _check_text _too_deep",),
        lambda: _dumped(INDEX, [1, -1.5, 1e300, "é\U0001f600\\", None, True, {"a": [[], {}]}], "x"),
        json_of.document(),
        _JSON_WORDS,
    ),
    Target(
        "index-json",
        read_index_json,
        (_FORMATS + "index_json", _FORMATS + "json_reader:parse_object check_fields"),
        lambda: _dumped(INDEX),
        json_of.document(),
        (*INDEX, *_JSON_WORDS),
    ),
    Target(
        "paths-json",
        read_paths,
        (_FORMATS + "conda_package:_read_paths _path_entry _json_object",),
        lambda: _dumped(
            {
                "paths": [
                    {"_path": "a", "path_type": "hardlink", "sha256": _SHA, "size_in_bytes": 1},
                    {"_path": "b/c", "path_type": "softlink"},
                    {
                        **{"_path": "d", "sha256": _SHA, "size_in_bytes": 2, "file_mode": "text"},
                        "prefix_placeholder": "/opt/x",
                    },
                ],
                "paths_version": 1,
            }
        ),
        json_of.document(),
        ("_path", "path_type", "sha256", "size_in_bytes", "file_mode", "binary", "directory"),
    ),
    Target(
        "repodata",
        read_repodata,
        ("conda_bridge.publish.channel", _FORMATS + "index_json"),
        lambda: [
            channel_forms.repodata(
                "noarch", {"toy-1.0-h_0.conda": _RECORD, "toy-1.0-h_0.tar.bz2": _RECORD}
            )
        ],
        json_of.document(),
        (*_RECORD, "packages", "packages.conda", ".conda", ".tar.bz2", *_JSON_WORDS),
    ),
    Target(
        "index-page",
        read_index_page,
        ("conda_bridge.publish.wheels", "conda_bridge.publish.intake:WheelName"),
        lambda: [_page("index.json")],
        json_of.document(NAME),
        ("filename", "hashes", "sha256", "requires-python", "core-metadata", "size", "files"),
    ),
    Target(
        "index-html",
        read_index_html,
        ("conda_bridge.publish.wheels:_anchors _is_file_name _rebuilt _entries",),
        lambda: [_page("index.html")],
        text.lines(),
        ('href="', "#sha256=", "%2B", "%00", "%ff", ".whl", "../"),
    ),
    Target(
        "listing",
        read_listing,
        ("conda_bridge.publish.listing", "conda_bridge.publish.site_page"),
        lambda: [_listing()],
        json_of.document(NAME),
        ("files", "facts", "gpu_code", "glibc", "yanked", "versions", "folder"),
    ),
    Target(
        "mapping",
        read_mapping,
        ("conda_bridge.bridge.names:read_mapping _json _toml _pairs _conda _pip",),
        lambda: [
            *_dumped({"pytorch": "torch", "zlib": None}, [{"conda_name": "a", "pypi_name": "b"}]),
            b'pytorch = "torch"\nzlib = false\n',
        ],
        json_of.document(NAME),
        ("conda_name", "pypi_name", "false", " = "),
    ),
    Target(
        "metadata",
        read_metadata,
        (_FORMATS + "headers", _FORMATS + "wheel:Metadata _unfolded _license requirement"),
        lambda: [
            factories.source_metadata(_LABEL),
            b"Metadata-Version: 2.4\nName: toy\nVersion: 1.0\nSummary: a toy\nKeywords: a,b\n"
            b"Requires-Dist: numpy>=1; extra == 'x'\nProvides-Extra: x\nProject-URL: a, https://b\n"
            b"License-Expression: MIT AND (Apache-2.0 OR BSD-3-Clause)\nLicense-File: LICENSE\n"
            b"Classifier: A :: B\nRequires-Python: >=3.8\nAuthor: \xc3\xa9\n\nText\n",
            b"Metadata-Version: 1.2\nName: toy\nVersion: 1\nLicense: long\n        and folded\n"
            b"Description: one\n        two\n       |three\n",
        ],
        headers.headers(REQUIREMENT),
        (
            *("Name", "Version", "Requires-Dist", "Requires-Python", "License-Expression"),
            *("License-File", "Summary", "Keywords", "Classifier", "Project-URL", "Description"),
            *("Provides-Extra", "Author", "License", "Description-Content-Type", "Platform"),
        ),
    ),
    Target(
        "headers",
        read_wheel_file,
        (_FORMATS + "headers",),
        lambda: [b"Wheel-Version: 1.0\nGenerator: toy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"],
        headers.headers(),
        ("Wheel-Version", "Root-Is-Purelib", "Tag", "Content-Type", "message/rfc822", "From "),
    ),
    Target(
        "record",
        read_record,
        (_FORMATS + "wheel_reader:_record _rows _hex_digest",),
        lambda: [
            b"a.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n"
            b'"b,c.py",sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,12\nx.dist-info/RECORD,,\n'
        ],
        headers.record,
        ("sha256=", ",,", '"', "=", "\r\n"),
    ),
    Target(
        "entry-points",
        read_entry_points,
        ("conda_bridge.bridge.conda_layout:entry_points",),
        lambda: [b"[console_scripts]\na = b.c:d\ne = f:g [h]\n\n[gui_scripts]\ni = j:k\n# l\n"],
        text.lines(),
        ("[console_scripts]", "[gui_scripts]", " = ", ":", "%(a)s", "[DEFAULT]"),
    ),
    Target(
        "lock",
        from_file("lock.json", read_lock),
        ("flashinfer_build.toolchain.lock",),
        lambda: _dumped(_small_lock()),
        json_of.document(),
        ("schema", "wheels", "tools", "cuda", "torch", "debs", "debian", "sysroot", "builds"),
    ),
    Target(
        "variants",
        from_file("variants/conda_build_config.yaml", read_variants),
        ("flashinfer_build.variants",),
        lambda: [_small_variants(), (_ROOT / "conda_build_config.yaml").read_bytes()],
        text.lines(
            text.Grammar(
                {
                    "line": ('- "<value>"', "<key>:", "- - <key>", "  - <key>", "&a <value>", "*a"),
                    "value": ("12.4", "13.0", "2.4", "8.0;9.0a", "None", "cpu_torch213", "14"),
                    "key": ("pytorch", "cuda_nvcc", "zip_keys", "gxx_below", "flashinfer_variant"),
                },
                "line",
            )
        ),
        ("zip_keys", "pytorch", "cuda_nvcc", "flashinfer_variant", "# [linux]", "{{ x }}", "!!x"),
    ),
    Target(
        "config",
        from_file("config.toml", read_config),
        ("conda_bridge.config", "conda_bridge.template", "conda_bridge.label:Scheme _field"),
        _config_seeds,
        json_of.toml(tomllib.loads),
        _WORDS_OF_CONFIG,
    ),
    Target(
        "build-info",
        read_build_info,
        ("flashinfer_build.checks.build_info",),
        lambda: [factories.build_info(_LABEL)],
        text.lines(),
        ("VERSION", "True", "None", "b''", "1j", "...", "= 0x", "lambda", "(((((", "-1", '"""'),
    ),
)
