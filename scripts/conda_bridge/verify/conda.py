"""Checks of the conda packages: metadata and dependencies, then the libraries in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import rattler

from ..artifact import LIBRARY_NAME
from ..errors import ArtifactError
from ..formats import conda_package, elf
from ..formats.conda_package import CondaPackage
from ..formats.elf import SharedObject
from ..label import LIBRARY_NAME as LIBRARY_PACKAGE
from ..label import NAME, Label, LibraryLabel
from .binary import (
    BINDING,
    check_abi3,
    check_binding,
    check_build_info,
    check_library,
    check_torch_abi,
    measure_floors,
)
from .findings import ArtifactReport

__all__ = ["check_conda"]

_LIBRARY_PATH = f"lib/{LIBRARY_NAME}"
_PACKAGE = f"site-packages/{NAME}"
_BINDING_PATH = f"{_PACKAGE}/{BINDING}"
_BUILD_INFO_PATH = f"{_PACKAGE}/_build_info.py"
_RECIPE_TESTS = "etc/conda/test-files/"  # of rattler-build; not for the wheel
_DIST_INFO = re.compile(rf"^site-packages/{NAME}-[^/]+\.dist-info/")
_BYTE_CODE = re.compile(r"(^|/)__pycache__/")  # installers write it; a finding in the package
_OLDEST_PYTHON = (3, 8)  # of the limited API that the binding is compiled for
_REQUIRED = {
    NAME: (f"{_PACKAGE}/__init__.py", _BUILD_INFO_PATH, _BINDING_PATH),
    LIBRARY_PACKAGE: (_LIBRARY_PATH, "include/flashinfer/api.h"),
}
_LEFTOVERS = re.compile(r"(^|/)(__pycache__|\.git|conda_build\.sh)(/|$)|\.(pyc|pyo|o|a|la|orig)$")


def check_conda(
    path: Path, report: ArtifactReport, *, arch_list: str | None = None
) -> tuple[Label | LibraryLabel, dict[str, str]]:
    """Runs every check of one conda package.

    Args:
        path: ``flashinfer-*`` or ``libflashinfer-*``, ``.conda`` or ``.tar.bz2``.
        report: takes checks, findings and facts.
        arch_list: the GPU architectures that were asked for.

    Returns:
        Its label and its files, by the path that they have in the wheel, with their sha256.

    Raises:
        ArtifactError: it cannot be read safely, or its payload is not what it declares.
        LabelError: its name is not one this project produces.
    """
    label: Label | LibraryLabel
    if path.name.startswith(f"{LIBRARY_PACKAGE}-"):
        label = LibraryLabel.parse_conda_file(path.name)
        report.label = f"{label.accelerator} {label.public_version}"
    else:
        label = Label.parse_conda_file(path.name)
        report.label = f"{label.variant.id} {label.public_version}"
    package = conda_package.read(path)
    report.check("name")  # the reader has compared file name and index.json
    _check_index(report, package, label)
    digests, contents = _digest(package)
    report.check("paths")  # and every file with paths.json
    _check_files(report, package)
    _check_licences(report, package)
    library = _shared_object(report, contents, _LIBRARY_PATH)
    binding = _shared_object(report, contents, _BINDING_PATH)
    _check_dependencies(report, package, label)
    if library is not None:
        lib_label = label if isinstance(label, LibraryLabel) else label.library
        check_library(report, library, lib_label, arch_list=arch_list)
    if binding is not None and isinstance(label, Label):
        check_binding(report, binding, label)
        check_torch_abi(report, binding, label.variant.torch, conda=True)
        check_abi3(report, binding, _OLDEST_PYTHON)
    if isinstance(label, Label) and _BUILD_INFO_PATH in contents:
        check_build_info(report, contents[_BUILD_INFO_PATH], label, None, binding)
    _check_floor(report, package, [item for item in (library, binding) if item is not None])
    report.facts["size"] = path.stat().st_size
    return label, {_wheel_path(name): sha for name, sha in digests.items() if _is_payload(name)}


def _is_payload(path: str) -> bool:
    left_out = _DIST_INFO.match(path) or _BYTE_CODE.search(path)
    return not left_out and not path.startswith(_RECIPE_TESTS)


def _wheel_path(path: str) -> str:
    """Where a package's file lies in the wheel."""
    inside = path.removeprefix("site-packages/")
    return inside if inside != path else f"{NAME}/{path}"


def _check_index(
    report: ArtifactReport, package: CondaPackage, label: Label | LibraryLabel
) -> None:
    report.check("index")
    member = "info/index.json"
    expected: dict[str, object] = {
        "name": NAME if isinstance(label, Label) else LIBRARY_PACKAGE,
        "version": label.conda_version,
        "build": label.conda_build,
        "build_number": label.conda_build_number,
        "subdir": "linux-64",
        "arch": "x86_64",
        "platform": "linux",
        "license": "Apache-2.0",
    }
    for key, value in expected.items():
        if package.index.get(key) != value:
            report.find(
                "index", f"{key} is {package.index.get(key)!r}", member=member, expected=repr(value)
            )
    noarch = package.index.get("noarch")
    wanted = "python" if isinstance(label, Label) else None
    if noarch != wanted:
        report.find("index", f"noarch is {noarch!r}", member=member, expected=repr(wanted))
    report.check("about")
    for key in ("license", "summary"):
        if not package.about.get(key):
            report.find("about", f"no {key}", member="info/about.json")


def _digest(package: CondaPackage) -> tuple[dict[str, str], dict[str, bytes]]:
    """The sha256 of every file (links by their target), and what is looked into."""
    kept = (_LIBRARY_PATH, _BINDING_PATH, _BUILD_INFO_PATH)
    digests: dict[str, str] = {}
    contents: dict[str, bytes] = {}
    for member in package.payload():
        if member.link_target is not None:
            digests[member.path] = f"link to {member.link_target}"
            continue
        if member.path in kept:
            contents[member.path] = member.read()
        digests[member.path] = member.digest().hex()
    return digests, contents


def _check_files(report: ArtifactReport, package: CondaPackage) -> None:
    report.check("files")
    required = _REQUIRED[package.name]
    for path in required:
        if path not in package.paths:
            report.find("files", "is missing", member=path)
    for path, entry in sorted(package.paths.items()):
        if entry.prefix_placeholder:
            report.find("files", "holds the build prefix", member=path, expected="no prefix in it")
        if _LEFTOVERS.search(path):
            report.find("files", "is a build artefact", member=path)
        elif ".so" in path and path not in required:
            report.find("files", "is a library that is not ours", member=path)


def _check_licences(report: ArtifactReport, package: CondaPackage) -> None:
    report.check("licences")
    if not any(package.licenses.values()):
        report.find("licences", "no licence file", member="info/licenses/")


def _specs(report: ArtifactReport, package: CondaPackage, key: str) -> dict[str, list[Any]]:
    """``depends`` or ``constrains`` by package name."""
    member = f"info/index.json: {key}"
    listed = package.index.get(key, [])
    specs: dict[str, list[Any]] = {}
    for text in listed if isinstance(listed, list) else [listed]:
        try:
            spec = rattler.MatchSpec(text)
        except Exception as error:  # py-rattler has a type of its own for every part of a spec
            report.find("dependencies", f"{text!r} is no requirement: {error}", member=member)
            continue
        specs.setdefault(spec.name.normalized, []).append(spec)
    return specs


def _check_dependencies(
    report: ArtifactReport, package: CondaPackage, label: Label | LibraryLabel
) -> None:
    report.check("dependencies")
    member = "info/index.json"
    depends = _specs(report, package, "depends")
    constrains = _specs(report, package, "constrains")
    if isinstance(label, Label):
        torch = "{}.{}".format(*label.variant.torch)
        kind = "*cuda*" if label.variant.cuda else "*cpu*"
        pytorch = depends.get("pytorch", [])
        if not _holds_minor(pytorch, label.variant.torch) or not any(
            str(spec.build or "") == kind for spec in pytorch
        ):
            report.find(
                "dependencies",
                _shown(pytorch) or "does not depend on pytorch",
                member=member,
                expected=f"pytorch {torch}.* {kind}",
            )
        exact = f"{LIBRARY_PACKAGE} ={label.library.conda_version} {label.lib_conda_build}"
        pins = depends.get(LIBRARY_PACKAGE, [])
        if not any(_is_exact(pin, label.library) for pin in pins):
            report.find(
                "dependencies",
                _shown(pins) or f"does not depend on {LIBRARY_PACKAGE}",
                member=member,
                expected=exact.replace(" =", " =="),
            )
        oldest = _OLDEST_PYTHON
        python = depends.get("python", [])
        accepted = _accepts(python, "{}.{}.0".format(*oldest), "3.13.0")
        if not python or not accepted or _accepts(python, _before(oldest)):
            report.find(
                "dependencies",
                _shown(python) or "does not depend on python",
                member=member,
                expected="python >={}.{}".format(*oldest),
            )
    _check_cuda_constraint(report, label, depends, constrains)


def _check_cuda_constraint(
    report: ArtifactReport,
    label: Label | LibraryLabel,
    depends: dict[str, list[Any]],
    constrains: dict[str, list[Any]],
) -> None:
    """A CUDA package asks for one CUDA major, flashinfer for a driver; a CPU package for neither.

    libflashinfer runs without a driver too, on the CPU, and is needed where flashinfer is built.
    """
    cuda = label.variant.cuda if isinstance(label, Label) else label.cuda
    member = "info/index.json"
    for name in ("cuda-cudart", "cuda-nvcc", "cuda-toolkit"):
        if name in depends:
            report.find("dependencies", f"depends on {name}", member=member, expected="linked in")
    for name in ("__cuda", "cuda-version"):
        found = [*depends.get(name, []), *constrains.get(name, [])]
        if name == "__cuda" and cuda and isinstance(label, Label):
            found = depends.get(name, [])
        if cuda is None:
            if found:
                report.find("dependencies", _shown(found), member=member, expected="no CUDA at all")
            continue
        inside, outside = f"{cuda[0]}.{cuda[1]}", _before((cuda[0], 0))
        fits = found and _accepts(found, inside) and not _accepts(found, outside)
        if name == "cuda-version":
            fits = fits and not _accepts(found, f"{cuda[0] + 1}.0")
        if not fits:
            report.find(
                "dependencies",
                _shown(found) or f"no constraint on {name}",
                member=member,
                expected=f"{name} of CUDA {cuda[0]}",
            )


def _shown(specs: list[Any]) -> str:
    return ", ".join(str(spec) for spec in specs)


def _accepts(specs: list[Any], *versions: str) -> bool:
    """Whether every spec accepts every version."""
    for spec in specs:
        if spec.version is None:
            continue
        accepted = rattler.VersionSpec(str(spec.version))
        if not all(accepted.matches(rattler.Version(version)) for version in versions):
            return False
    return True


def _before(release: tuple[int, int]) -> str:
    """A version just below a release, also of the first one of its major.

    >>> _before((2, 13)), _before((3, 0))
    ('2.12.9999', '2.9999')
    """
    major, minor = release
    return f"{major}.{minor - 1}.9999" if minor else f"{major - 1}.9999"


def _holds_minor(specs: list[Any], minor: tuple[int, int]) -> bool:
    """Whether the releases of this torch minor are accepted, and no other minor's."""
    major, number = minor
    outside = (f"{major}.{number + 1}.0", _before(minor), f"{major + 1}.0.0")
    return (
        any(spec.version is not None for spec in specs)
        and _accepts(specs, f"{major}.{number}.0", f"{major}.{number}.9")
        and not any(_accepts(specs, version) for version in outside)
    )


def _is_exact(spec: Any, label: LibraryLabel) -> bool:
    version, build = str(spec.version or "").lstrip("="), str(spec.build or "")
    return version == label.conda_version and build == label.conda_build


def _shared_object(
    report: ArtifactReport, contents: dict[str, bytes], path: str
) -> SharedObject | None:
    if path not in contents:
        return None
    report.check("elf")
    try:
        return elf.read(contents[path], f"{report.artifact}: {path}")
    except ArtifactError as error:
        report.find("elf", error.what, member=path)
        return None


def _check_floor(
    report: ArtifactReport, package: CondaPackage, libraries: list[SharedObject]
) -> None:
    """The newest glibc that is asked for, against what the package says it needs."""
    report.check("floor")
    floors = measure_floors(report, libraries)
    specs = _specs(report, package, "depends").get("__glibc", [])
    if not floors.get("GLIBC"):
        return
    major, minor = (int(part) for part in floors["GLIBC"].split(".")[:2])
    if specs and _accepts(specs, _before((major, minor))):
        report.find(
            "floor",
            f"needs glibc {major}.{minor}, and says {_shown(specs)}",
            member="info/index.json",
            expected=f"__glibc >={major}.{minor}",
        )
    elif not specs and minor > 17:
        report.find(
            "floor",
            f"needs glibc {major}.{minor}, and does not say so",
            member="info/index.json",
            expected=f"__glibc >={major}.{minor}",
            warning=True,
        )
