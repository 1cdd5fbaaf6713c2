"""Checks of a wheel: name, metadata, RECORD and files, then the libraries in it."""

from __future__ import annotations

import hashlib
import re
from itertools import product
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ..artifact import LIBRARY_NAME
from ..bridge import manylinux
from ..errors import ArtifactError, ConfigError
from ..formats import elf, wheel_reader
from ..formats.elf import SharedObject
from ..formats.wheel_reader import Wheel
from ..label import NAME, Label
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

__all__ = ["Payload", "check_wheel"]

# What installers put into site-packages, by path, with its sha256.
Payload = dict[str, str]

_CHUNK = 1 << 20
_LIBRARY_PATH = f"{NAME}/lib/{LIBRARY_NAME}"
_BINDING_PATH = f"{NAME}/{BINDING}"
_BUILD_INFO_PATH = f"{NAME}/_build_info.py"
_REQUIRED = (
    *(f"{NAME}/__init__.py", _BUILD_INFO_PATH, _BINDING_PATH, _LIBRARY_PATH),
    f"{NAME}/include/flashinfer/api.h",
)
_UNSIGNED = ("RECORD", "RECORD.jws", "RECORD.p7s")  # RECORD cannot hold its own digest
_LEFTOVERS = re.compile(r"(^|/)(__pycache__|\.git|\.DS_Store|tests?)(/|$)|\.(pyc|pyo|o|a|la|orig)$")


def check_wheel(
    path: Path, report: ArtifactReport, *, arch_list: str | None = None
) -> tuple[Label, Payload]:
    """Runs every check of a wheel.

    Args:
        path: the file.
        report: takes checks, findings and facts.
        arch_list: the GPU architectures that were asked for.

    Returns:
        Its label and what an installer would put into site-packages.

    Raises:
        ArtifactError: it cannot be read safely.
        LabelError: its name is not one this project produces.
    """
    label = Label.parse_wheel_file(path.name)
    wheel = wheel_reader.read(path)
    report.label = f"{label.variant.id} {label.public_version}"
    report.check("zip")
    _check_name(report, wheel, label)
    _check_metadata(report, wheel, label)
    digests, contents = _digest(wheel)
    _check_record(report, wheel, digests)
    _check_files(report, wheel)
    _check_licences(report, wheel)
    library = _shared_object(report, contents, _LIBRARY_PATH)
    binding = _shared_object(report, contents, _BINDING_PATH)
    if library is not None:
        check_library(report, library, label.library, arch_list=arch_list)
    if binding is not None:
        check_binding(report, binding, label)
        check_torch_abi(report, binding, label.variant.torch, conda=False)
        check_abi3(report, binding, _oldest_python(wheel.tags[0]))
    if _BUILD_INFO_PATH in contents:
        check_build_info(report, contents[_BUILD_INFO_PATH], label, library, binding)
    _check_floor(report, wheel, [item for item in (library, binding) if item is not None])
    report.facts["size"] = path.stat().st_size
    dist_info = wheel.dist_info + "/"
    return label, {name: sha for name, sha in digests.items() if not name.startswith(dist_info)}


def _check_name(report: ArtifactReport, wheel: Wheel, label: Label) -> None:
    """The file name is the one of its label, and METADATA, WHEEL and the folder agree with it."""
    report.check("name")
    where = wheel.dist_info
    if where != f"{NAME}-{label.wheel_version}.dist-info":
        report.find("name", where, member=where, expected=f"{NAME}-{label.wheel_version}.dist-info")
    for field, expected in (("Name", NAME), ("Version", label.wheel_version)):
        values = wheel.metadata.get_all(field, [])
        if values != [expected]:
            report.find(
                "name",
                f"{field}: {', '.join(values)}",
                member=f"{where}/METADATA",
                expected=expected,
            )
    expanded = {"-".join(tag) for tag in product(*(part.split(".") for part in wheel.tags))}
    tags = wheel.wheel.get_all("Tag", [])
    if set(tags) != expanded or len(tags) != len(expanded):
        report.find(
            "name",
            f"Tag: {', '.join(tags)}",
            member=f"{where}/WHEEL",
            expected=", ".join(sorted(expanded)),
        )
    build = wheel.wheel.get("Build", "")
    if build != wheel.build:
        report.find(
            "name", f"Build: {build!r}", member=f"{where}/WHEEL", expected=repr(wheel.build)
        )
    if wheel.wheel.get("Root-Is-Purelib", "").strip().lower() != "false":
        report.find("name", "Root-Is-Purelib is not false", member=f"{where}/WHEEL")
    if wheel.wheel.get("Wheel-Version", "").split(".")[0] != "1":
        report.find(
            "name",
            f"Wheel-Version: {wheel.wheel.get('Wheel-Version')}",
            member=f"{where}/WHEEL",
            expected="1.0",
        )
    if wheel.tags[1] != "abi3" or not re.fullmatch(r"cp3\d+", wheel.tags[0]):
        report.find("name", f"the tag is {'-'.join(wheel.tags)}", expected="cp3X-abi3-<platform>")


def _check_metadata(report: ArtifactReport, wheel: Wheel, label: Label) -> None:
    """Dependencies and the fields that an index shows."""
    member = f"{wheel.dist_info}/METADATA"
    report.check("dependencies")
    torch = "{}.{}".format(*label.variant.torch)
    requirements = []
    for text in wheel.metadata.get_all("Requires-Dist", []):
        try:
            requirements.append(Requirement(text))
        except InvalidRequirement:
            report.find("dependencies", f"Requires-Dist: {text!r}", member=member)
    ours = [item for item in requirements if item.name == "torch" and item.marker is None]
    if len(ours) != 1 or not _holds_minor(ours[0].specifier, label.variant.torch):
        report.find(
            "dependencies",
            ", ".join(map(str, ours)) or "does not require torch",
            member=member,
            expected=f"torch=={torch}.*",
        )
    for item in requirements:
        if item.url:
            report.find("dependencies", f"{item} names a URL", member=member)
    python = wheel.metadata.get("Requires-Python", "")
    oldest = _oldest_python(wheel.tags[0])
    try:
        accepted = SpecifierSet(python)
        fits = (
            f"{oldest[0]}.{oldest[1]}" in accepted
            and f"{oldest[0]}.{oldest[1] - 1}" not in accepted
        )
    except InvalidSpecifier:
        fits = False
    if not fits:
        report.find(
            "dependencies",
            f"Requires-Python: {python!r}",
            member=member,
            expected=">={}.{}, as the tag {} says".format(*oldest, wheel.tags[0]),
        )
    report.check("metadata")
    for field in ("Metadata-Version", "Summary"):
        if not wheel.metadata.get(field, "").strip():
            report.find("metadata", f"no {field}", member=member)
    if not str(wheel.metadata.get_payload() or wheel.metadata.get("Description", "")).strip():
        report.find("metadata", "no description", member=member)


def _holds_minor(specifier: SpecifierSet, minor: tuple[int, int]) -> bool:
    """Whether exactly the releases of this torch minor are accepted, local versions too."""
    major, number = minor
    inside = (f"{major}.{number}.0", f"{major}.{number}.9", f"{major}.{number}.1+cu130")
    outside = (f"{major}.{number + 1}.0", f"{major}.{number - 1}.9", f"{major + 1}.0.0")
    return all(v in specifier for v in inside) and not any(v in specifier for v in outside)


def _digest(wheel: Wheel) -> tuple[Payload, dict[str, bytes]]:
    """The sha256 of every file, and the content of those that are looked into."""
    kept = (_LIBRARY_PATH, _BINDING_PATH, _BUILD_INFO_PATH)
    digests: Payload = {}
    contents: dict[str, bytes] = {}
    for member, stream in wheel.stream():
        digest = hashlib.sha256()
        chunks = []
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            if member.path in kept:
                chunks.append(chunk)
        if member.path in kept:
            contents[member.path] = b"".join(chunks)
        digests[member.path] = digest.hexdigest()
    return digests, contents


def _check_record(report: ArtifactReport, wheel: Wheel, digests: Payload) -> None:
    """RECORD names every file once, with its digest and size, and nothing else."""
    report.check("record")
    member = f"{wheel.dist_info}/RECORD"
    unsigned = {f"{wheel.dist_info}/{name}" for name in _UNSIGNED}
    sizes = {item.path: item.size for item in wheel.members}
    for path in sorted(set(digests) - set(wheel.record) - (unsigned - {member})):
        report.find("record", "is not in RECORD", member=path)
    for path, entry in wheel.record.items():
        if path not in digests:
            report.find("record", "is in RECORD, and not in the wheel", member=path)
        elif path in unsigned:
            if entry.sha256:
                report.find("record", "has a digest in RECORD", member=path, expected="none")
        elif entry.sha256 != digests[path]:
            report.find(
                "record",
                f"sha256 is {digests[path]}",
                member=path,
                expected=entry.sha256 or "a digest in RECORD",
            )
        elif entry.size != sizes[path]:
            report.find(
                "record", f"{sizes[path]} bytes", member=path, expected=f"{entry.size} bytes"
            )


def _check_files(report: ArtifactReport, wheel: Wheel) -> None:
    """What has to be there is there, and nothing else than the package is."""
    report.check("files")
    paths = {item.path for item in wheel.members}
    for path in _REQUIRED:
        if path not in paths:
            report.find("files", "is missing", member=path)
    for path in sorted(paths):
        if not path.startswith((f"{NAME}/", f"{wheel.dist_info}/")):
            report.find("files", "lies outside the package", member=path, expected=f"{NAME}/...")
        elif _LEFTOVERS.search(path):
            report.find("files", "is a build artefact", member=path)
        elif ".so" in path and path not in (_LIBRARY_PATH, _BINDING_PATH):
            report.find("files", "is a library that is not ours", member=path)


def _check_licences(report: ArtifactReport, wheel: Wheel) -> None:
    report.check("licences")
    named = wheel.metadata.get_all("License-File", [])
    paths = {item.path for item in wheel.members if item.size > 0}
    folders = (f"{wheel.dist_info}/licenses", wheel.dist_info)
    if not named:
        report.find("licences", "METADATA names no License-File", member=wheel.dist_info)
    for name in named:
        if not any(f"{folder}/{name}" in paths for folder in folders):
            report.find("licences", "is not in the wheel", member=f"{folders[0]}/{name}")
    stated = wheel.metadata.get("License-Expression") or wheel.metadata.get("License", "")
    if stated != "Apache-2.0":
        report.find(
            "licences", f"the licence is {stated!r}", member=wheel.dist_info, expected="Apache-2.0"
        )


def _shared_object(
    report: ArtifactReport, contents: dict[str, bytes], path: str
) -> SharedObject | None:
    """The library at `path`, or None where it is missing (reported already) or no library."""
    if path not in contents:
        return None
    report.check("elf")
    try:
        return elf.read(contents[path], f"{report.artifact}: {path}")
    except ArtifactError as error:
        report.find("elf", error.what, member=path)
        return None


def _oldest_python(tag: str) -> tuple[int, int]:
    found = re.fullmatch(r"cp(\d)(\d+)", tag)
    return (int(found[1]), int(found[2])) if found else (3, 8)


def _check_floor(report: ArtifactReport, wheel: Wheel, libraries: list[SharedObject]) -> None:
    """What the libraries ask of the system, against what the platform tag promises."""
    report.check("floor")
    measure_floors(report, libraries)
    for tag in wheel.tags[2].split("."):
        if tag == manylinux.LINUX:
            continue
        try:
            policy = manylinux.policy_of(tag)
        except ConfigError as error:
            report.find("floor", f"the platform tag {tag}", expected=error.expected)
            continue
        for obstacle in manylinux.obstacles(policy, libraries):
            report.find(
                "floor",
                f"needs {obstacle.what}, and the tag promises {tag}",
                member=obstacle.file,
                expected=obstacle.expected,
            )
