"""Checks of a conda package, anybody's: its metadata and dependencies, then the libraries in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..formats import conda_package
from ..formats.conda_package import CondaPackage
from ..formats.content import Content
from ..formats.elf import SharedObject
from ..label import Label
from ..project import Project
from . import sboms
from .artifact import Artifact, Payload
from .binary import (
    FOREIGN_LIBRARY,
    LIBRARY,
    Looked,
    check_abi3,
    check_libraries,
    check_needed,
    measure_floors,
    member_of,
    provided,
    read_libraries,
)
from .findings import ArtifactReport
from .modules import module_abi
from .names import conda_label, describe
from .places import ARCH_SITE, Place, places_of
from .requirements import Spec, accepts, before, holds_only, is_exact, pythons, shown, specs

__all__ = ["check_conda"]

_INDEX = "info/index.json"
_LEFTOVERS = re.compile(
    r"(^|/)(\.git|\.hg|\.svn|\.DS_Store|conda_build\.sh)(/|$)|\.(o|orig|rej|swp)$"
)
_BYTE_CODE = re.compile(r"(^|/)__pycache__/|\.py[co]$")
_PLACEHOLDER = "_placehold"
# platform and arch, as index.json has them beside subdir.
_SUBDIRS: dict[str, tuple[str | None, str | None]] = {
    "noarch": (None, None),
    "linux-64": ("linux", "x86_64"),
    "linux-32": ("linux", "x86"),
    "linux-aarch64": ("linux", "aarch64"),
    "linux-armv6l": ("linux", "armv6l"),
    "linux-armv7l": ("linux", "armv7l"),
    "linux-ppc64": ("linux", "ppc64"),
    "linux-ppc64le": ("linux", "ppc64le"),
    "linux-riscv64": ("linux", "riscv64"),
    "linux-s390x": ("linux", "s390x"),
    "osx-64": ("osx", "x86_64"),
    "osx-arm64": ("osx", "arm64"),
    "win-32": ("win", "x86"),
    "win-64": ("win", "x86_64"),
    "win-arm64": ("win", "arm64"),
    "emscripten-wasm32": ("emscripten", "wasm32"),
    "wasi-wasm32": ("wasi", "wasm32"),
    "freebsd-64": ("freebsd", "x86_64"),
    "zos-z": ("zos", "z"),
}
_OLDEST_GLIBC = 17  # glibc 2.17 is what conda's own compilers ask for at least


def check_conda(
    path: Path, report: ArtifactReport, project: Project, *, arch_list: str | None = None
) -> Artifact:
    """Runs every check of a conda package that holds for anybody's.

    Args:
        path: ``.conda`` or ``.tar.bz2``.
        report: takes checks, findings and facts.
        project: whose package it should be.
        arch_list: the GPU architectures that were asked for.

    Returns:
        What was read; byte code and what stays behind have no place in the wheel, and no digest.

    Raises:
        ArtifactError: it cannot be read safely, or its payload is not what it declares.
        LabelError: its name is not one this project produces.
    """
    name, label = conda_label(path.name, project)
    package = conda_package.read(path)
    report.label = describe(name, label, project)
    report.ran("name")  # the reader has compared file name and index.json
    _check_index(report, package, project, label)
    places = places_of(package, project)
    digests, looked = _digest(package, project, places)
    report.ran("paths")  # and every file with paths.json
    _check_files(report, package)
    _check_licences(report, package, project)
    _check_entry_points(report, package)
    contents = {places[item].path: data for item, data in looked.texts.items()}
    sboms.check_sboms(report, contents)
    subdir = str(package.index.get("subdir"))
    libraries = _libraries(report, subdir, looked.binaries, project)
    found = list(libraries.values())
    depends = specs(report, package, "depends")
    _check_dependencies(report, package, project, label, depends)
    _check_pythons(report, package, depends, libraries)
    prefixes = {item: entry.prefix_placeholder for item, entry in package.paths.items()}
    check_libraries(report, found, [subdir], arch_list, prefixes)
    _check_needed(report, package, depends, found)
    _check_floor(report, depends, found)
    report.facts["size"] = path.stat().st_size
    return Artifact(
        path=path,
        kind="conda",
        name=name,
        label=label,
        source=package,
        digests={places[item].path: sha for item, sha in digests.items() if places[item].installed},
        contents=contents,
        libraries={places[item].path: library for item, library in libraries.items()},
        arch_list=arch_list,
    )


def _check_index(
    report: ArtifactReport, package: CondaPackage, project: Project, label: Label
) -> None:
    """``index.json`` against itself, the folder that the package lies in, and the label."""
    report.ran("index")

    def differs(key: str, expected: object, plain: str = "") -> None:
        report.add(
            "index",
            f"{key} is {package.index.get(key)!r}",
            member=_INDEX,
            expected=plain or repr(expected),
        )

    index = package.index
    number = index.get("build_number")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        differs("build_number", 0, "a number from 0 on")
    elif label.values and number != project.scheme.index_build_number(label):
        differs("build_number", project.scheme.index_build_number(label))
    subdir = index.get("subdir")
    if subdir not in _SUBDIRS:
        differs("subdir", "", ", ".join(_SUBDIRS))
    else:
        platform, arch = _SUBDIRS[subdir]
        for key, expected in (("platform", platform), ("arch", arch)):
            if index.get(key) not in (None, expected):
                differs(key, expected)
        folder = package.path.absolute().parent.name
        if folder in _SUBDIRS and folder != subdir:
            differs("subdir", folder, f"{folder!r}, as the folder that it lies in")
    noarch = index.get("noarch")
    if noarch not in (None, "python", "generic"):
        differs("noarch", None, "'python', 'generic' or none")
    elif (subdir == "noarch") and noarch is None:
        differs("noarch", "generic", "'python' or 'generic', as the subdir is noarch")
    elif noarch == "generic" and subdir not in ("noarch", None):
        differs("noarch", None, f"none, as the subdir is {subdir}")
    if noarch == "python":
        for path in package.paths:
            if ARCH_SITE.match(path):
                report.add(
                    "index",
                    "lies in the site-packages of one Python, and the package is noarch: python",
                    member=path,
                    expected="site-packages/ at the top",
                )
                break
    license_ = project.config.license
    if license_ and index.get("license") != license_:
        differs("license", license_)


def _digest(
    package: CondaPackage, project: Project, places: Mapping[str, Place]
) -> tuple[Payload, Looked]:
    """The sha256 of every file (links by their target), and what is looked into."""
    wanted = (sboms.PATTERN, *project.hooks.looks_into())
    kept = {path for path, place in places.items() if place.is_one_of(wanted)}
    looked = Looked(package.path.name, kept)
    digests: Payload = {}
    for member in package.payload():
        if member.link_target is not None:
            digests[member.path] = f"link to {member.link_target}"
            continue
        looked.take(member.path, member.size, member.chunks())
        digests[member.path] = member.digest().hex()
    return digests, looked


def _check_files(report: ArtifactReport, package: CondaPackage) -> None:
    report.ran("files")
    noarch = package.index.get("noarch") == "python"
    for path in sorted(package.paths):
        # Installers write the byte code of a noarch package; one for one Python may bring its own.
        if _LEFTOVERS.search(path) or (noarch and _BYTE_CODE.search(path)):
            report.add("files", "is a build artefact", member=path)


def _check_licences(report: ArtifactReport, package: CondaPackage, project: Project) -> None:
    report.ran("licences")
    if not any(package.licenses.values()):
        report.add(
            "licences",
            "no licence file",
            member="info/licenses/",
            warning=not project.config.license,
        )


def _check_entry_points(report: ArtifactReport, package: CondaPackage) -> None:
    """Each entry point of a noarch package names a function."""
    for text in package.entry_points:
        report.ran("entry-points")
        if not re.fullmatch(r"[^=\s]+\s*=\s*[\w.]+\s*:\s*[\w.]+", text.strip()):
            report.add(
                "entry-points",
                text[:80],
                member="info/link.json",
                expected="name = package.module:function",
            )


def _check_dependencies(
    report: ArtifactReport,
    package: CondaPackage,
    project: Project,
    label: Label,
    depends: Mapping[str, list[Spec]],
) -> None:
    """The requirements can be read, and say of each dependency what the label says."""
    report.ran("dependencies")
    specs(report, package, "constrains")
    main = package.name not in project.folds
    for field, name in project.scheme.depends.items() if main else ():
        value = label.get(field)
        found = depends.get(name, [])
        if value is None:
            fits, expected = not found, f"no {name}"
        else:
            fits = holds_only(found, tuple(int(part) for part in value.split(".")))
            expected = f"{name} {value}.*"
        if not fits:
            report.add(
                "dependencies",
                shown(found) or f"does not depend on {name}",
                member=_INDEX,
                expected=expected,
            )
    for name, template in project.folds.items() if main else ():
        pins = depends.get(name, [])
        build = project.scheme.fold_build(template, label) if template else ""
        if template is None and pins:
            continue
        if not any(is_exact(pin, label.conda_version, build) for pin in pins):
            report.add(
                "dependencies",
                shown(pins) or f"does not depend on {name}",
                member=_INDEX,
                expected=f"{name} =={label.conda_version} {build}".rstrip(),
            )


def _check_pythons(
    report: ArtifactReport,
    package: CondaPackage,
    depends: Mapping[str, list[Spec]],
    libraries: Mapping[str, SharedObject],
) -> None:
    """The modules fit the Pythons that the package can be installed with."""
    python = depends.get("python", [])
    accepted = pythons(lambda version: accepts(python, version))
    if not python and package.index.get("noarch") == "python":
        report.add(
            "dependencies",
            "does not depend on python",
            member=_INDEX,
            expected="python, as the package is noarch: python",
        )
    abis = depends.get("python_abi", [])
    for path in package.paths:
        site, abi = ARCH_SITE.match(path), module_abi(path)
        one = re.fullmatch(r"cp(\d)(\d+)[a-z]*", abi, re.ASCII)
        only = (int(one[1]), int(one[2])) if one else None
        if site:
            only = only or (int(site[1]), int(site[2]))
        if only is None:
            continue
        if one and package.index.get("noarch") == "python":
            report.add(
                "dependencies",
                f"is a module of {abi} alone, and the package is noarch: python",
                member=path,
                expected="a module of the stable ABI, or a package for each Python",
            )
            break
        held = [item for item in accepted if item != only]
        pinned = abis and accepts(abis, "{}.{}".format(*only)) and not accepts(abis, "3.2")
        if (held or only not in accepted) and not (pinned and only in accepted):
            report.add(
                "dependencies",
                shown(python) or "does not depend on python",
                member=path,
                expected="python {}.{}.*, as this file is for".format(*only),
            )
            break
    for path, library in libraries.items():
        if module_abi(path) == "abi3":
            newer = [item for item in accepted if item >= (3, 2)]  # the first with a stable ABI
            check_abi3(report, library, min(newer, default=None) if python else None)


def _libraries(
    report: ArtifactReport, subdir: str, contents: Mapping[str, Content], project: Project
) -> dict[str, SharedObject]:
    """The shared objects of a package for Linux, read; other systems' are not measured."""
    if subdir == "noarch":
        for path in sorted(contents):
            if LIBRARY.search(path) or FOREIGN_LIBRARY.search(path):
                report.add(
                    "index",
                    "is for one machine, and the subdir is noarch",
                    member=path,
                    expected="the subdir of a platform",
                )
    elif not subdir.startswith("linux-"):
        return {}
    return read_libraries(report, contents, project.config.info_section)


def _check_needed(
    report: ArtifactReport,
    package: CondaPackage,
    depends: Mapping[str, list[Spec]],
    libraries: list[SharedObject],
) -> None:
    """What the loader has to find is inside, the system's, or may be in a package depended on."""
    others = any(not name.startswith("__") and name != "python" for name in depends)
    check_needed(report, libraries, provided(package.paths, libraries, ["*"] if others else []))
    for library in libraries:
        declared = package.paths[member_of(library)].prefix_placeholder
        left = [path for path in library.leaks if _PLACEHOLDER in path]
        if left and not declared:
            report.add(
                "paths",
                f"holds the build prefix {left[0][:80]!r}, and paths.json does not say so",
                member=member_of(library),
                expected="a prefix_placeholder, so that installers replace it",
            )


def _check_floor(
    report: ArtifactReport, depends: Mapping[str, list[Spec]], libraries: list[SharedObject]
) -> None:
    """The newest glibc that is asked for, against what the package says it needs."""
    report.ran("floor")
    floors = measure_floors(report, libraries, ["*"])
    found = depends.get("__glibc", [])
    if not floors.get("GLIBC"):
        return
    major, minor = (int(part) for part in floors["GLIBC"].split(".")[:2])
    if found and accepts(found, before((major, minor))):
        report.add(
            "floor",
            f"needs glibc {major}.{minor}, and says {shown(found)}",
            member=_INDEX,
            expected=f"__glibc >={major}.{minor}",
        )
    elif not found and minor > _OLDEST_GLIBC:
        report.add(
            "floor",
            f"needs glibc {major}.{minor}, and does not say so",
            member=_INDEX,
            expected=f"__glibc >={major}.{minor}",
            warning=True,
        )
