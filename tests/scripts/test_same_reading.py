"""What is accepted is read alike by every tool that installs it: the same paths, kinds and bytes.

The artifacts are of real builders, as this environment has them: setuptools, uv, pip's own wheels,
rattler-build, conda-package-streaming, and the writers of this project. docs/security.md has the
run over many more that were published.
"""

from __future__ import annotations

import ensurepip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import archive_mutations as mutations
import conda_package_streaming.create as conda_create
import factories
import pytest
import test_hostile_archives as hostile
from archive_mutations import Block, tar_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readings import (
    Reading,
    by_conda,
    by_installer,
    by_rattler,
    by_zipfile,
    on_disk,
    ours,
    ours_of_wheel,
)

from conda_bridge.errors import ArtifactError
from conda_bridge.formats import tar_stream
from conda_bridge.formats.conda_writer import PackageFile, write
from conda_bridge.formats.zstd import zstd


def write_ours(folder: Path) -> Path:
    write(folder / f"{hostile.STEM}.conda", index=hostile.INDEX, files=payload(), level=1)
    return folder / f"{hostile.STEM}.conda"


def payload() -> list[PackageFile]:
    return [
        PackageFile("lib/toy.so.1", os.urandom(3000), 0o755),
        PackageFile("lib/toy.so", None, link_target="toy.so.1"),
        PackageFile("bin/toy", None, link_target="../lib/toy.so"),
        PackageFile("share/empty", b""),
        PackageFile(f"share/{'long-folder/' * 12}{'n' * 150}", b"1"),
        PackageFile("share/é", b"2"),
    ]


def write_by_conda(folder: Path) -> Path:
    """As conda-package-handling writes it."""
    members, info = factories.unpacked(write_ours(folder))
    (folder / f"{hostile.STEM}.conda").unlink()
    with conda_create.conda_builder(hostile.STEM, folder, compression_level=3) as archive:
        for header, data in [*info, *members]:
            archive.addfile(header, io.BytesIO(data))
    return folder / f"{hostile.STEM}.conda"


def write_tar_bz2(folder: Path, format: int) -> Path:
    """As conda-build writes it, by tarfile or libarchive, in each tar format."""
    members, info = factories.unpacked(write_ours(folder))
    for header, _ in members + info:
        header.pax_headers = {}
        header.uname, header.uid = "builder", 1000
    folders = [factories.tar_file("share/", type=tarfile.DIRTYPE, mode=0o775)]
    return factories.raw_tar_bz2(
        folder / f"{hostile.STEM}.tar.bz2", [*info, *folders, *members], format=format
    )


RECIPE = """
package: {name: toy, version: "1.0"}
build:
  script:
    - mkdir -p $PREFIX/bin $PREFIX/share/LONG
    - printf content > $PREFIX/share/LONG/file
    - ln -s ../share/LONG/file $PREFIX/bin/toy
about: {summary: toy, license: MIT}
""".replace("LONG", "/".join(["a-long-folder"] * 12))
BUILD = """
import os, sys
from rattler_build import *
recipe, output, kind = sys.argv[1:]
[one] = Stage0Recipe.from_file(recipe).render(
    VariantConfig(), RenderConfig(platform=PlatformConfig(target_platform="linux-64"))
)
tools = ToolConfiguration(test_strategy="skip")
one.run_build(tool_config=tools, output_dir=output, channels=[], package_format=kind)
os._exit(0)
"""


def write_by_rattler_build(folder: Path, kind: str) -> Path:
    """As rattler-build writes it, in either form."""
    (folder / "recipe.yaml").write_text(RECIPE)
    subprocess.run(
        [sys.executable, "-c", BUILD, str(folder / "recipe.yaml"), str(folder / "built"), kind],
        check=True,
        capture_output=True,
    )
    [path] = (folder / "built/linux-64").glob("toy-*")
    return path


CONDA: dict[str, Callable[[Path], Path]] = {
    "this project": write_ours,
    "conda-package-streaming": write_by_conda,
    ".tar.bz2, pax": lambda folder: write_tar_bz2(folder, tarfile.PAX_FORMAT),
    ".tar.bz2, GNU": lambda folder: write_tar_bz2(folder, tarfile.GNU_FORMAT),
    "rattler-build": lambda folder: write_by_rattler_build(folder, "conda:1"),
    "rattler-build, .tar.bz2": lambda folder: write_by_rattler_build(folder, "tarbz2:1"),
}


@pytest.mark.parametrize("builder", CONDA)
def test_a_conda_package_is_read_alike(tmp_path: Path, builder: str) -> None:
    path = CONDA[builder](tmp_path)
    found = ours(path)
    assert "bin/toy" in found
    assert by_rattler(path, tmp_path / "rattler") == found
    assert by_conda(path, tmp_path / "conda") == found


PLAIN = st.text("abA- _é\u0301~{}'\"%\U0001f600", min_size=1, max_size=9)
PART = PLAIN | st.text("n.:", min_size=60, max_size=110)
NAMES = st.lists(PART, min_size=1, max_size=3).map("/".join)
TARGETS = st.builds(
    lambda ups, parts: "/".join([".."] * ups + parts),
    st.sampled_from([0, 0, 1, 2]),
    st.lists(PART, min_size=1, max_size=2),
)


@given(
    files=st.dictionaries(NAMES, st.binary(max_size=1200), min_size=1, max_size=5),
    links=st.dictionaries(NAMES, TARGETS, max_size=3),
    format=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    old=st.booleans(),
)
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_accepted_is_read_alike(
    tmp_path: Path, files: dict[str, bytes], links: dict[str, str], format: int, old: bool
) -> None:
    """Names and links of all kinds, as tarfile writes them in each of its formats."""
    members = [factories.tar_file(name, data) for name, data in files.items()]
    members += [
        factories.tar_file(name, type=tarfile.SYMTYPE, linkname=target)
        for name, target in links.items()
    ]
    paths = [path_entry(header.name, data, header.issym()) for header, data in members]
    info = factories.tar_members(factories.info_tar(hostile.INDEX, paths))
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    try:
        if old:
            path = folder / f"{hostile.STEM}.tar.bz2"
            factories.raw_tar_bz2(path, [*info, *members], format=format)
        else:
            path = folder / f"{hostile.STEM}.conda"
            payload = factories.tar_bytes(members, format=format)
            factories.raw_conda(path, payload=payload, info=factories.tar_bytes(info))
        found = ours(path)
    except (ArtifactError, ValueError):  # tarfile's: a name that ustar cannot say
        return
    assert by_rattler(path, folder / "rattler") == found
    assert by_conda(path, folder / "conda") == found


def path_entry(name: str, data: bytes, link: bool) -> dict[str, object]:
    return {
        "_path": name,
        "path_type": "softlink" if link else "hardlink",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_in_bytes": len(data),
    }


# Each kind of header; the bytes of one are changed below.
HEADERS = [
    Block(b"a/one", b"content\n"),
    Block(b"a/", b"", b"5"),
    Block(b"l", b"", b"2", link=b"a/one"),
    mutations.pax((b"path", b"p/long")),
    Block(b"two", b"content\n"),
    mutations.long_name(b"g/long\0"),
    Block(b"three", b"content\n", magic=b"ustar  \0"),
    Block(b"four", b"x" * 600, prefix=b"pre"),
]
FIELDS = [
    0,
    99,
    100,
    107,
    108,
    116,
    124,
    135,
    136,
    156,
    157,
    256,
    257,
    265,
    297,
    329,
    337,
    345,
    500,
]
PLACES = st.sampled_from(FIELDS).flatmap(lambda start: st.integers(start, min(start + 8, 511)))
VALUES = st.sampled_from(b"\0 /.01578x25gLK\x80\xff") | st.integers(0, 255)


@given(
    st.integers(0, len(HEADERS) - 1),
    st.lists(st.tuples(PLACES, VALUES), min_size=1, max_size=2),
)
@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_changed_header_is_refused_or_read_alike(
    tmp_path: Path, which: int, changes: list[tuple[int, int]]
) -> None:
    """With a right checksum: what is damaged by chance is found anyway."""
    blocks = [bytearray(block.pack()) for block in HEADERS]
    for place, value in changes:
        blocks[which][place] = value
    blocks[which][148:156] = b" " * 8
    blocks[which][148:156] = b"%06o\0 " % sum(blocks[which][:512])
    data = tar_of(bytes(block) for block in blocks)
    try:
        members = list(
            tar_stream.members(io.BytesIO(data), "x", max_bytes=1 << 20, max_members=100)
        )
    except ArtifactError:
        return
    paths = []
    for member in members:
        content = {"sha256": member.digest().hex(), "size_in_bytes": member.size}
        paths.append({**path_entry(member.path, b"", member.link_target is not None), **content})
    documents = {"paths.json": json.dumps({"paths": paths}).encode()}
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    path = folder / f"{hostile.STEM}.conda"
    path.write_bytes(hostile.conda_bytes(payload=zstd.compress(data), documents=documents))
    found = ours(path)
    assert by_rattler(path, folder / "rattler") == found
    assert by_conda(path, folder / "conda") == found


# ------------------------------------------------------------ wheels


def by_uv(wheels: list[Path], folder: Path) -> Reading:
    """What uv unpacks into site-packages."""
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "-q", "--offline", "--no-deps"]
        + ["--no-config", "--cache-dir", str(folder / "cache"), "--target", str(folder / "to")]
        + ["--python", sys.executable, *map(str, wheels)],
        check=True,
        capture_output=True,
    )
    return installed(folder / "to")


def by_pip(wheels: list[Path], folder: Path) -> Reading:
    """What pip unpacks into site-packages."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
        + ["--disable-pip-version-check", "--target", str(folder / "to"), *map(str, wheels)],
        check=True,
        capture_output=True,
    )
    return installed(folder / "to")


def installed(folder: Path) -> Reading:
    """Without what installers write themselves: programs, and notes beside METADATA."""
    own = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", ".lock")
    return {
        name: found
        for name, found in on_disk(folder).items()
        if not name.startswith("bin/") and name.rpartition("/")[2] not in own
    }


def write_project(folder: Path, name: str, backend: str) -> Path:
    (folder / f"src/{name}").mkdir(parents=True)
    (folder / f"src/{name}/__init__.py").write_text("value = 1\n")
    (folder / f"src/{name}/é.py").write_text("value = 2\n")
    (folder / "README.md").write_text("# toy\n")
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "1.0"\nreadme = "README.md"\n'
        f"[build-system]\n{backend}\n"
    )
    return folder


def built_by_setuptools(folder: Path) -> Path:
    backend = 'requires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"'
    project = write_project(folder / "project", "by_setuptools", backend)
    code = "import setuptools.build_meta as b; b.build_wheel('../wheels')"
    (folder / "wheels").mkdir()
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True, capture_output=True)
    [wheel] = (folder / "wheels").glob("*.whl")
    return wheel


def built_by_uv(folder: Path) -> Path:
    version = subprocess.run(
        [sys.executable, "-m", "uv", "--version"], check=True, capture_output=True, text=True
    ).stdout.split()[1]
    backend = f'requires = ["uv_build=={version}"]\nbuild-backend = "uv_build"'
    project = write_project(folder / "project", "by_uv", backend)
    subprocess.run(
        [sys.executable, "-m", "uv", "build", "-q", "--wheel", "--offline", "--no-config"]
        + ["-o", str(folder / "wheels"), str(project)],
        check=True,
        capture_output=True,
    )
    [wheel] = (folder / "wheels").glob("*.whl")
    return wheel


def by_bridge(folder: Path) -> Path:
    """As this project writes it."""
    package = factories.write_pair(folder)
    return factories.bridge(package, folder / "out").path


def of_pip(name: str) -> Callable[[Path], Path]:
    bundled = Path(ensurepip.__file__).parent / "_bundled"
    return lambda _folder: next(bundled.glob(f"{name}-*.whl"))


WHEELS: dict[str, Callable[[Path], Path]] = {
    "setuptools": built_by_setuptools,
    "uv": built_by_uv,
    "this project": by_bridge,
    "pip's own, by flit or setuptools": of_pip("pip"),
}


def test_wheels_are_read_alike(tmp_path: Path) -> None:
    """All of them in one run of each installer, which takes seconds to start."""
    wheels = []
    found: Reading = {}
    for number, make in enumerate(WHEELS.values()):
        (tmp_path / str(number)).mkdir()
        path = make(tmp_path / str(number))
        mine = ours_of_wheel(path)
        assert by_installer(path) == mine
        assert len(mine) > 4
        assert not mine.keys() & found.keys()
        found |= mine
        wheels.append(path)
    kept = {name: value for name, value in found.items() if not name.endswith("/RECORD")}
    for tool in (by_uv, by_pip):
        (tmp_path / tool.__name__).mkdir()
        assert tool(wheels, tmp_path / tool.__name__) == kept


# ------------------------------------------------------------ what the mutations are about


def readings_of_conda(path: Path, folder: Path) -> Iterator[Reading | str]:
    """What each tool makes of a package, be it an error."""
    for tool in (by_rattler, by_conda):
        try:
            yield tool(path, folder / tool.__name__)
        except Exception as error:
            yield type(error).__name__


# Those for which the tools of this environment do differ; the others are refused all the same.
@pytest.mark.parametrize(
    "name",
    [
        "a member before the directory that it does not name",
        "a folder with a size and nothing behind",
        "a path twice",
    ],
)
def test_the_tools_do_differ(tmp_path: Path, name: str) -> None:
    """The mutations are no fancies: one tool unpacks what another never saw."""
    path = tmp_path / f"{hostile.STEM}.conda"
    if name in mutations.ZIP:
        evil = tar_of([Block(b"lib/file", b"content\n"), Block(b"evil.pth", b"import evil\n")])
        hidden = mutations.ZipEntry.of(f"pkg-{hostile.STEM}.tar.zst", zstd.compress(evil))
        data = mutations.zip_of(
            mutations.zip_entries(hostile.conda_bytes()),
            before_directory=hidden.local_header() + hidden.body,
        )
    else:
        blocks = [hostile.FILE, *mutations.TAR[name]]
        data = hostile.conda_bytes(payload=zstd.compress(tar_of(blocks)))
    path.write_bytes(data)
    one, other = readings_of_conda(path, tmp_path)
    assert one != other
    with pytest.raises(ArtifactError):
        ours(path)


def test_zipfile_and_this_reader_see_the_same(tmp_path: Path) -> None:
    """Whatever becomes of an archive by the mutations: read as zipfile does, or refused."""
    path = tmp_path / hostile.WHEEL
    accepted = 0
    for first in mutations.ZIP.values():
        path.write_bytes(first(hostile.wheel_bytes()))
        try:
            found = ours_of_wheel(path)
        except ArtifactError:
            continue
        assert found == by_zipfile(path)
        accepted += 1
    assert accepted == 0
