"""Makes a submission to conda-forge's staged-recipes: the recipe's folder, whole or not at all."""

from __future__ import annotations

import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.version import Version

from conda_bridge.errors import ArtifactError, ConfigError, ConflictError, StorageError
from conda_bridge.formats.lenient_tar import TarHeader
from conda_bridge.formats.wheel_reader import file_sha256
from conda_bridge.system import atomic

from .. import variants
from ..label import NAME, Label
from . import commented_yaml
from .recipe import Facts, made_from

__all__ = ["FOLDER", "Result", "Source", "files", "source_of", "write"]

FOLDER = PurePosixPath("recipes") / NAME
_RECIPE = "recipe.yaml"
# Of a project's own archive.
_MEMBERS = 20_000
_UNPACKED = 1 << 30
_VERSION_SIZE = 4096
_BESIDE_RECIPE = re.compile(r"\$\{?RECIPE_DIR\}?/([\w.-]+)")
_MAINTAINER = re.compile(r"(?:conda-forge/)?[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_URL = re.compile(r"(?:https|file)://[^\s'\"]+", re.ASCII)


@dataclass(frozen=True)
class Source:
    """The archive that is built.

    Attributes:
        url: where it is.
        sha256: its digest, in hexadecimal.
    """

    url: str
    sha256: str

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ConfigError(
                f"{self.sha256!r} is not a sha256", expected="64 digits of 0-9 and a-f"
            )
        if not _URL.fullmatch(self.url):
            raise ConfigError(f"{self.url!r} is no address of an archive", expected="https://...")

    @property
    def published(self) -> bool:
        """Whether others than this machine can have it."""
        return self.url.startswith("https://")


@dataclass(frozen=True)
class Result:
    """What became of a submission.

    Attributes:
        folder: the recipe's folder.
        files: the names in it.
        outcome: ``written``, ``unchanged`` or ``due`` (a dry run).
    """

    folder: Path
    files: tuple[str, ...]
    outcome: str

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {"folder": str(self.folder), "files": list(self.files), "outcome": self.outcome}


def source_of(archive: Path, url: str | None, root: Path) -> Source:
    """The source that an archive on this machine is.

    Args:
        archive: a tar file: of ``python setup.py sdist``, or of a tag.
        url: where it is or will be published; the file itself by default.
        root: the project's folder, to compare with.

    Raises:
        ArtifactError: it cannot be read, is of another version, or lacks what a build reads.
    """
    version = _version(root)
    try:
        with tarfile.open(archive, tarinfo=TarHeader) as opened:
            names = [PurePosixPath(name) for name in _names(opened, str(archive))]
            tops = {name.parts[0] for name in names if name.parts}
            if len(tops) != 1:
                raise ArtifactError(
                    f"holds {len(tops)} folders",
                    where=str(archive),
                    expected=f"one, such as {NAME}-{version}",
                )
            [top] = tops
            there = {name.relative_to(top) for name in names}
            # What is in a folder counts: an archive need not list the folder itself.
            there |= {parent for name in there for parent in name.parents}
            missing = [name for name in _read_by_a_build(root) if PurePosixPath(name) not in there]
            if missing:
                raise ArtifactError(
                    f"lacks {', '.join(missing)}",
                    where=str(archive),
                    expected="what `python setup.py sdist` or a tag's archive holds",
                )
            stream = opened.extractfile(f"{top}/version.txt")
            text = stream.read(_VERSION_SIZE) if stream else b""
            found = text.decode(errors="replace").strip()
        digest = file_sha256(archive)
    except (
        *(OSError, EOFError, KeyError, ValueError),
        *(tarfile.TarError, zlib.error, lzma.LZMAError),
    ) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
        raise ArtifactError(f"not a readable tar file: {said}", where=str(archive)) from None
    if found != version:
        raise ArtifactError(
            f"is of version {found}", where=str(archive), expected=f"{version}, as version.txt"
        )
    return Source(url or archive.resolve().as_uri(), digest)


def _names(opened: tarfile.TarFile, where: str) -> list[str]:
    """The names of all members, of which only so many are read as an archive of a project has."""
    names = []
    size = 0
    for header in opened:
        names.append(header.name)
        size += header.size
        if len(names) > _MEMBERS or size > _UNPACKED:
            raise ArtifactError(
                f"{len(names)} members of {size} bytes and more",
                where=where,
                expected=f"at most {_MEMBERS} members of {_UNPACKED} bytes",
            )
    return names


def files(root: Path, source: Source, maintainers: Sequence[str]) -> dict[str, bytes]:
    """The files of the submission: the recipe, and what it and its scripts name.

    Args:
        root: the project's folder.
        source: the archive to build.
        maintainers: names on GitHub of those who will maintain the feedstock.

    Raises:
        ConfigError: the version is no release, a name is none, the variants disagree, or
            ``recipe/`` is not what is known here.
    """
    version = _version(root)
    if Version(version).is_prerelease:
        raise ConfigError(
            f"{version} is no release",
            where=str(root / "version.txt"),
            expected="a version without a, b, rc and dev: conda-forge takes releases",
        )
    if not maintainers:
        raise ConfigError("nobody is named as maintainer", expected="a name on GitHub")
    for name in maintainers:
        if not _MAINTAINER.fullmatch(name):
            raise ConfigError(
                f"{name!r} is no name on GitHub", expected="as in github.com/NAME, without @"
            )
    facts = Facts(version, source.url, source.sha256, _arch_list(root), tuple(maintainers))
    folder = root / "recipe"
    text = made_from(folder / _RECIPE, facts)
    made = {_RECIPE: text.encode()}
    waiting = list(_named(text))
    while waiting:
        name = waiting.pop()
        if name not in made:
            made[name] = (folder / name).read_bytes()
            waiting += _BESIDE_RECIPE.findall(made[name].decode())
    return dict(sorted(made.items()))


def write(
    made: Mapping[str, bytes], out: Path, *, overwrite: bool = False, dry_run: bool = False
) -> Result:
    """Writes the files below `out`, all of them or none.

    Args:
        made: by name, as :func:`files` returns them.
        out: a checkout of staged-recipes, or any folder.
        overwrite: replace a submission that is there and differs.
        dry_run: only say what would be done.

    Raises:
        ConflictError: another submission is there.
        StorageError: the folder cannot be read or written.
    """
    folder = out / FOLDER
    try:
        there = {path.name: path for path in folder.iterdir()} if folder.exists() else {}
        differing = [
            name
            for name in sorted(there.keys() | made.keys())
            if name not in made or name not in there or there[name].read_bytes() != made[name]
        ]
        if not differing:
            return Result(folder, tuple(made), "unchanged")
        if there and not overwrite:
            raise ConflictError(
                f"differs in {', '.join(differing)}",
                where=str(folder),
                expected="a folder that is not there yet",
                fix="--overwrite replaces the whole folder",
            )
        if dry_run:
            return Result(folder, tuple(made), "due")
        with atomic.directory(folder) as fresh:
            for name, content in made.items():
                atomic.write_bytes(fresh / name, content)
            atomic.remove(folder)
    except OSError as error:
        raise StorageError(error) from None
    return Result(folder, tuple(made), "written")


def _version(root: Path) -> str:
    return Label.public_version_of(root / "version.txt", {})


def _arch_list(root: Path) -> str:
    """The GPU architectures of the CUDA releases that conda-forge has."""
    specs = variants.load(root / variants.CONFIG_FILE.name)
    lists = {spec.cuda_arch_list for spec in specs if spec.on_conda_forge and spec.variant.cuda}
    if len(lists) != 1:
        raise ConfigError(
            f"cuda_arch_list has {', '.join(sorted(lists))}",
            where=variants.CONFIG_FILE.name,
            expected="one list for every CUDA of conda-forge",
        )
    return lists.pop()


def _read_by_a_build(root: Path) -> Iterator[str]:
    """The files and folders that recipe.yaml takes from the checkout."""
    path = root / "recipe" / _RECIPE
    for item in commented_yaml.load(path.read_text(), str(path))["source"].sequence:
        yield item["path"].text.removeprefix("../")


def _named(text: str) -> Iterator[str]:
    """The files that a recipe names: scripts of builds and of tests."""
    for entry in commented_yaml.load(text, _RECIPE).walk():
        script = entry.value.get("script") if isinstance(entry.value, dict) else None
        if script and isinstance(script.value, dict):
            yield script["file"].text
