"""The SBOMs of flashinfer's artifacts against what the libraries in them show (docs/sbom.md)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from conda_bridge.errors import ArtifactError
from conda_bridge.formats import cyclonedx
from conda_bridge.formats.conda_package import CondaPackage
from conda_bridge.verify.binary import member_of

from ..artifact import BINDING_NAME, LIBRARY_NAME, LICENCES, SBOM

if TYPE_CHECKING:
    from conda_bridge.formats.cyclonedx import Bill, Component
    from conda_bridge.formats.elf import SharedObject
    from conda_bridge.verify.artifact import Artifact
    from conda_bridge.verify.findings import ArtifactReport

__all__ = ["check"]

_CHECK = "sbom"
_USE = "flashinfer:use"
_TEXT = "flashinfer:licence-text"
_COMPILED_BY = "flashinfer:compiled-by"
_BUILD_ID = "flashinfer:build-id"
# Names of the package that has libcudart_static.a: conda-forge's, NVIDIA's wheel, Debian's.
_CUDART = re.compile(r"(nvidia-)?cuda-cudart-static.*|nvidia-cuda-runtime.*|nvidia-cuda-dev")
_GCC = re.compile(r"GCC: \(.*\) (\d+\.\d+)\.\d+\b")
_PARTS = {"libflashinfer": LIBRARY_NAME, "flashinfer": BINDING_NAME}


def check(
    artifact: Artifact, report: ArtifactReport, libraries: Mapping[str, SharedObject | None]
) -> None:
    """Each library's SBOM is there, is of that very file, and names what can be seen in it.

    Args:
        artifact: a wheel or a package.
        report: takes the check.
        libraries: by file name; None for one that another package has.
    """
    licences = _licence_texts(artifact)
    for name, file in _PARTS.items():
        library = libraries.get(file)
        if library is None:
            continue
        report.ran(_CHECK)
        path = _path_of(artifact, SBOM.format(name))
        if path is None:
            report.add(
                _CHECK,
                f"there is no SBOM of {file}",
                expected=f"*.dist-info/sboms/{SBOM.format(name)} in the wheel",
            )
            continue
        try:
            bill = cyclonedx.read(artifact.contents[path], path)
        except ArtifactError:
            continue  # everybody's check has said so
        _check_file(report, artifact, library, bill, path)
        _check_compilers(report, library, bill, path)
        _check_versions(report, library, bill, path)
        _check_licences(report, bill, path, licences)


def _path_of(artifact: Artifact, name: str) -> str | None:
    found = (path for path in artifact.contents if path.endswith(f".dist-info/sboms/{name}"))
    return next(found, None)


def _uses(component: Component) -> frozenset[str]:
    return frozenset(component.properties.get(_USE, ()))


def _of_use(bill: Bill, use: str) -> list[Component]:
    return [one for one in bill.components if use in _uses(one)]


def _check_file(
    report: ArtifactReport, artifact: Artifact, library: SharedObject, bill: Bill, path: str
) -> None:
    """It is the SBOM of these bytes."""
    member = member_of(library)
    name = member.rpartition("/")[2]
    stated = next((one for one in bill.components if one.type == "file" and one.name == name), None)
    if stated is None:
        report.add(_CHECK, f"does not name the file {name}", member=path, expected="its digest")
        return
    digest = next((sha for at, sha in artifact.digests.items() if at.endswith(f"/{name}")), "")
    if stated.sha256 != digest:
        report.add(
            _CHECK,
            f"{name} has the sha256 {stated.sha256 or '(none)'}",
            member=path,
            expected=f"{digest}, that of {member}",
        )
    ids = stated.properties.get(_BUILD_ID, ())
    if ids != ((library.build_id,) if library.build_id else ()):
        report.add(
            _CHECK,
            f"{name} has the build id {', '.join(ids) or '(none)'}",
            member=path,
            expected=library.build_id or "none",
        )


def _check_compilers(report: ArtifactReport, library: SharedObject, bill: Bill, path: str) -> None:
    """Every compiler that left its name is there, and the CUDA runtime where there is GPU code."""
    compilers, linked = _of_use(bill, "compiler"), _of_use(bill, "linked-in")
    runtime = [one for one in linked if _CUDART.fullmatch(one.name)]
    member = member_of(library)
    if library.gpu_sections and not runtime:
        report.add(
            _CHECK,
            "names no CUDA runtime that is linked in",
            member=path,
            expected=f"the package of libcudart_static.a: {member} holds GPU code",
        )
    theirs = {text for one in linked for text in one.properties.get(_COMPILED_BY, ())}
    for text in library.compilers:
        found = _GCC.match(text)
        release = found[1] if found else text
        if text not in theirs and not any(_is_release(one, release) for one in compilers):
            report.add(
                _CHECK,
                f"names no compiler of release {release}, and nothing linked in that one compiled",
                member=path,
                expected=f"that of {text!r}, which {member} shows",
            )
    own = (library.info or {}).get("cxx", "")
    release = own.removeprefix("gcc ")
    if own.startswith("gcc ") and not any(_is_release(one, release) for one in compilers):
        report.add(
            _CHECK,
            f"names no compiler of release {release}",
            member=path,
            expected=f"{own!r}, which {member} says compiled it",
        )


def _is_release(component: Component, release: str) -> bool:
    """Whether a component's version is `release` (``12.2``) or a patch of it."""
    version = component.version.rpartition(":")[2]
    return version == release or version.startswith(f"{release}.")


def _check_versions(report: ArtifactReport, library: SharedObject, bill: Bill, path: str) -> None:
    """CUDA, torch and flashinfer are of the versions that the library itself shows."""
    info = library.info or {}
    member = member_of(library)
    if bill.version != info.get("version", ""):
        report.add(
            _CHECK,
            f"is about version {bill.version or '(none)'}",
            member=path,
            expected=f"{info.get('version', '')}, as {member} says",
        )
    cuda = info.get("cuda", "none")
    compilers = _of_use(bill, "compiler")
    for release in sorted(library.gpu_producers | ({cuda} - {"none"})):
        if not any(_begins(one, release) for one in compilers):
            report.add(
                _CHECK,
                f"names no CUDA compiler {release}",
                member=path,
                expected=f"the one whose code {member} holds",
            )
    if "torch" in info:
        names = ("torch", "pytorch", "libtorch")
        torch = [one for one in _of_use(bill, "headers") if one.name in names]
        if not any(_is_release(one, info["torch"]) for one in torch):
            have = ", ".join(one.version for one in torch) or "none"
            report.add(
                _CHECK,
                f"torch is {have}",
                member=path,
                expected=f"{info['torch']}, whose headers {member} was compiled with",
            )


def _begins(component: Component, release: str) -> bool:
    return re.match(rf"{re.escape(release)}(?![0-9])", component.version) is not None


def _check_licences(report: ArtifactReport, bill: Bill, path: str, texts: frozenset[str]) -> None:
    """What left bytes has its licence in the artifact, word for word."""
    for component in bill.components:
        if not _uses(component) & {"headers", "linked-in"}:
            continue
        wanted = component.properties.get(_TEXT, ())
        shown = f"{component.name} {component.version}".strip()
        if not wanted:
            report.add(
                "licences",
                f"{shown} is compiled in, and its licence is not known",
                member=path,
                expected="the text that its package brings",
                warning=not component.purl,
            )
        elif missing := set(wanted) - texts:
            report.add(
                "licences",
                f"{len(missing)} of {len(wanted)} licence texts of {shown} are missing",
                member=path,
                expected=f"in {LICENCES}/",
            )


def _licence_texts(artifact: Artifact) -> frozenset[str]:
    """The sha256 of the licence texts in the artifact: a package's ``info/`` has some, too."""
    files = [text for at, text in artifact.contents.items() if f"/{LICENCES}/" in at]
    if isinstance(artifact.source, CondaPackage):
        files += artifact.source.licenses.values()
    return frozenset(hashlib.sha256(text).hexdigest() for text in files)
