"""Checks of a wheel, anybody's: names, metadata, RECORD, files, tags; then its libraries."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ..bridge import manylinux, names
from ..errors import ArtifactError, ConfigError
from ..formats import foreign, wheel_reader
from ..formats.elf import SharedObject
from ..formats.wheel_reader import MemberStream, Wheel
from ..label import Label, same_version
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
    exports_module,
    measure_floors,
    member_of,
    provided,
    read_libraries,
)
from .findings import ArtifactReport
from .modules import module_abi
from .names import describe, wheel_label
from .requirements import pip_holds_only, pythons

__all__ = ["check_wheel"]

_CHUNK = 1 << 20
_UNSIGNED = ("RECORD", "RECORD.jws", "RECORD.p7s")  # RECORD cannot hold its own digest
_LEFTOVERS = re.compile(
    r"(^|/)(__pycache__|\.git|\.hg|\.svn|\.DS_Store)(/|$)|\.(pyc|pyo|o|orig|rej|swp)$"
)
_TOO_COMMON = re.compile(r"(tests?|docs?|examples?|scripts?|setup\.py)(/|$)")
_DATA = ("purelib", "platlib", "headers", "scripts", "data")
_ONCE = ("Metadata-Version", "Name", "Version", "Summary", "Requires-Python", "License-Expression")
_REFERENCE = re.compile(r"(?P<module>[\w.]+)(\s*:\s*(?P<object>[\w.]+))?(\s*\[[^\]]*\])?")
_PERENNIAL = re.compile(r"manylinux_(\d+)_(\d+)_\w+")
_ANY_PYTHON = re.compile(r"py\d+")


def check_wheel(
    path: Path, report: ArtifactReport, project: Project, *, arch_list: str | None = None
) -> Artifact:
    """Runs every check of a wheel that holds for anybody's.

    Args:
        path: the file.
        report: takes checks, findings and facts.
        project: whose wheel it should be.
        arch_list: the GPU architectures that were asked for.

    Returns:
        What was read; its digests are of what an installer puts into site-packages.

    Raises:
        ArtifactError: it cannot be read safely.
        LabelError: its name is not one this project produces.
    """
    name, label = wheel_label(path.name, project)
    wheel = wheel_reader.read(path)
    report.label = describe(name, label, project)
    report.ran("zip")
    _check_name(report, wheel, project)
    requirements = _check_dependencies(report, wheel)
    _check_label_fields(report, wheel, project, label, requirements)
    _check_metadata(report, wheel)
    digests, looked = _digest(wheel, project)
    _check_record(report, wheel, digests)
    _check_files(report, wheel)
    _check_licences(report, wheel, project)
    _check_entry_points(report, wheel, looked.texts)
    sboms.check_sboms(report, looked.texts)
    libraries = _libraries(report, wheel, looked, project)
    _check_tags(report, wheel, libraries)
    found = list(libraries.values())
    check_libraries(report, found, wheel.tags[2].split("."), arch_list)
    promised = [
        pattern
        for name, patterns in project.config.provided_by.items()
        if canonicalize_name(name) in {canonicalize_name(item.name) for item in requirements}
        for pattern in patterns
    ]
    inside = provided(digests, found, promised)
    check_needed(report, found, inside)
    _check_abi3(report, wheel, libraries)
    _check_floor(report, wheel, project, found, inside)
    report.facts["size"] = path.stat().st_size
    dist_info = wheel.dist_info + "/"
    return Artifact(
        path=path,
        kind="wheel",
        name=name,
        label=label,
        source=wheel,
        digests={item: sha for item, sha in digests.items() if not item.startswith(dist_info)},
        contents=looked.texts,
        libraries=libraries,
        arch_list=arch_list,
    )


def _check_name(report: ArtifactReport, wheel: Wheel, project: Project) -> None:
    """METADATA, WHEEL and the folder agree with the file name.

    A project that says its wheel's name has to spell it so everywhere; of others, spellings that
    installers take for the same are the same.
    """
    report.ran("name")
    where = wheel.dist_info
    own = project.config.wheel_name
    stem, _, version = where.removesuffix(".dist-info").rpartition("-")
    same = canonicalize_name(stem) == canonicalize_name(wheel.name) and same_version(
        version, wheel.version
    )
    expected = f"{wheel.name}-{wheel.version}.dist-info"
    if where != expected and (own or not same):
        report.add("name", where, member=where, expected=expected)
    stated = wheel.metadata.get_all("Name", [])
    versions = wheel.metadata.get_all("Version", [])
    for field, values, wanted, agrees in (
        ("Name", stated, own or wheel.name, [canonicalize_name(item) for item in stated]),
        ("Version", versions, wheel.version, versions),
    ):
        normal = canonicalize_name(wanted) if field == "Name" else wanted
        exact = values == [wanted]
        loose = agrees == [normal] or (
            field == "Version" and len(values) == 1 and same_version(values[0], wanted)
        )
        if not (exact or (loose and not own)):
            report.add(
                "name", f"{field}: {', '.join(values)}", member=f"{where}/METADATA", expected=wanted
            )
    expanded = {"-".join(tag) for tag in product(*(part.split(".") for part in wheel.tags))}
    tags = wheel.wheel.get_all("Tag", [])
    if set(tags) != expanded or len(tags) != len(expanded):
        report.add(
            "name",
            f"Tag: {', '.join(tags)}",
            member=f"{where}/WHEEL",
            expected=", ".join(sorted(expanded)),
        )
    build = wheel.wheel.get("Build", "")
    if build != wheel.build:
        report.add("name", f"Build: {build!r}", member=f"{where}/WHEEL", expected=repr(wheel.build))
    if wheel.wheel.get("Wheel-Version", "").split(".")[0] != "1":
        report.add(
            "name",
            f"Wheel-Version: {wheel.wheel.get('Wheel-Version')}",
            member=f"{where}/WHEEL",
            expected="1.0",
        )


def _check_tags(report: ArtifactReport, wheel: Wheel, libraries: dict[str, SharedObject]) -> None:
    """The tags say for which Pythons and machines the modules inside are."""
    paths = [item.path for item in wheel.members]
    binaries = [
        path
        for path in paths
        if path in libraries or LIBRARY.search(path) or FOREIGN_LIBRARY.search(path)
    ]
    member = f"{wheel.dist_info}/WHEEL"
    pure = wheel.wheel.get("Root-Is-Purelib", "").strip().lower()
    if pure not in ("true", "false"):
        report.add(
            "name",
            f"Root-Is-Purelib: {pure or 'not there'}",
            member=member,
            expected="true or false",
        )
    outside = [path for path in binaries if ".data/" not in path]
    if pure == "true" and outside:
        modules = [path for path in outside if module_abi(path)]
        report.add(
            "name",
            f"Root-Is-Purelib is not false, and {[*modules, *outside][0]} is for one machine",
            member=member,
            expected="false",
            warning=not modules,  # a library that is data is found in either folder
        )
    pythons_, abis, platforms = (part.split(".") for part in wheel.tags)
    if "any" in platforms and binaries:
        report.add(
            "name",
            f"the tag is {'-'.join(wheel.tags)}, and {binaries[0]} is for one machine",
            member=binaries[0],
            expected="the tag of a platform",
        )
    for path in paths:
        abi = module_abi(path)
        if not abi:
            continue
        fits = abi in abis or ("abi3" in abis and abi == "abi3")
        if abi == "abi3":  # it fits where it is allowed to: not into a wheel for any Python
            fits = not all(_ANY_PYTHON.fullmatch(tag) for tag in pythons_)
        elif "none" in abis:
            fits = fits or abi in pythons_
        if not fits:
            report.add(
                "name",
                f"is a module of {abi} alone, and the tag is {'-'.join(wheel.tags)}",
                member=path,
                expected=f"the ABI tag {abi}",
            )


def _check_dependencies(report: ArtifactReport, wheel: Wheel) -> list[Requirement]:
    """Requirements that installers and an index accept, and a Python that the tags have."""
    member = f"{wheel.dist_info}/METADATA"
    report.ran("dependencies")
    requirements = []
    for text in wheel.metadata.get_all("Requires-Dist", []):
        try:
            requirements.append(foreign.requirement(text))
        except foreign.Unreadable as error:
            report.add("dependencies", f"Requires-Dist: {text!r:.200}: {error}", member=member)
    for item in requirements:
        if item.url:
            report.add("dependencies", f"{item} names a URL", member=member)
    text = wheel.metadata.get("Requires-Python", "")
    try:
        accepted = pythons(foreign.specifiers(text).__contains__)
    except foreign.Unreadable as error:
        report.add("dependencies", f"Requires-Python: {text!r:.200}: {error}", member=member)
        return requirements
    tagged = [(found, tag) for tag in wheel.tags[0].split(".") if (found := oldest_python(tag))]
    stable = "abi3" in wheel.tags[1].split(".")
    for python, tag in tagged:
        fits = any(item >= python for item in accepted) if stable else python in accepted
        if not fits:
            report.add(
                "dependencies",
                f"Requires-Python: {text!r}",
                member=member,
                expected="{}.{} accepted, as the tag {} says".format(*python, tag),
            )
    return requirements


def _check_label_fields(
    report: ArtifactReport,
    wheel: Wheel,
    project: Project,
    label: Label,
    requirements: Sequence[Requirement],
) -> None:
    """What the label says of a dependency is what is required."""
    for field, conda_name in project.scheme.depends.items():
        value = label.get(field)
        try:
            mapped = names.pip_name(conda_name, project) or ""
        except ArtifactError:  # nobody has said another name for it
            mapped = conda_name
        if not mapped:
            continue
        ours = [
            item
            for item in requirements
            if canonicalize_name(item.name) == canonicalize_name(mapped) and item.marker is None
        ]
        if value is None:
            fits, expected = not ours, f"no {mapped}"
        else:
            release = tuple(int(part) for part in value.split("."))
            fits = len(ours) == 1 and pip_holds_only(ours[0].specifier, release)
            expected = f"{mapped}=={value}.*"
        if not fits:
            report.add(
                "dependencies",
                ", ".join(map(str, ours)) or f"does not require {mapped}",
                member=f"{wheel.dist_info}/METADATA",
                expected=expected,
            )


def _check_metadata(report: ArtifactReport, wheel: Wheel) -> None:
    """The fields of METADATA that have to be there, and once."""
    member = f"{wheel.dist_info}/METADATA"
    report.ran("metadata")
    if not wheel.metadata.get("Metadata-Version", "").strip():
        report.add("metadata", "no Metadata-Version", member=member)
    for field in _ONCE:
        count = len(wheel.metadata.get_all(field, []))
        if count > 1 and field not in ("Name", "Version"):  # those are a matter of `name`
            report.add("metadata", f"{field} is there {count} times", member=member)


def _digest(wheel: Wheel, project: Project) -> tuple[Payload, Looked]:
    """The sha256 of every file, and the content of those that are looked into."""
    looked = Looked(
        wheel.path.name,
        [f"{wheel.dist_info}/entry_points.txt", sboms.PATTERN, *project.hooks.looks_into()],
    )
    digests: Payload = {}
    for member, stream in wheel.stream():
        digest = hashlib.sha256()
        looked.take(member.path, member.size, _read(stream, digest.update))
        digests[member.path] = digest.hexdigest()
    return digests, looked


def _read(stream: MemberStream, update: object) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        update(chunk)  # type: ignore[operator]
        yield chunk


def _check_record(report: ArtifactReport, wheel: Wheel, digests: Payload) -> None:
    """RECORD names every file once, with its digest and size, and nothing else."""
    report.ran("record")
    member = f"{wheel.dist_info}/RECORD"
    unsigned = {f"{wheel.dist_info}/{name}" for name in _UNSIGNED}
    sizes = {item.path: item.size for item in wheel.members}
    for path in sorted(set(digests) - set(wheel.record) - (unsigned - {member})):
        report.add("record", "is not in RECORD", member=path)
    for path, entry in wheel.record.items():
        if path not in digests:
            report.add("record", "is in RECORD, and not in the wheel", member=path)
        elif path in unsigned:
            if entry.sha256:
                report.add("record", "has a digest in RECORD", member=path, expected="none")
        elif entry.sha256 != digests[path]:
            report.add(
                "record",
                f"sha256 is {digests[path]}",
                member=path,
                expected=entry.sha256 or "a digest in RECORD",
            )
        elif entry.size != sizes[path]:
            report.add(
                "record", f"{sizes[path]} bytes", member=path, expected=f"{entry.size} bytes"
            )


def _check_files(report: ArtifactReport, wheel: Wheel) -> None:
    """Nothing that only the build needed, and nothing where no installer puts it."""
    report.ran("files")
    data = f"{wheel.dist_info.removesuffix('.dist-info')}.data"
    common: set[str] = set()
    for path in sorted(item.path for item in wheel.members):
        top, _, inner = path.partition("/")
        if _LEFTOVERS.search(path):
            report.add("files", "is a build artefact", member=path)
        elif top.endswith(".data") and (top != data or inner.partition("/")[0] not in _DATA):
            report.add(
                "files",
                "no installer knows where it goes",
                member=path,
                expected=f"{data}/ with {', '.join(_DATA)}",
            )
        elif _TOO_COMMON.match(path) and top not in common:
            common.add(top)
            report.add(
                "files",
                "a name that other wheels may install, too",
                member=top,
                expected="files below a package of its own",
                warning=True,
            )


def _check_licences(report: ArtifactReport, wheel: Wheel, project: Project) -> None:
    """The licence is stated in a form that is one, and its files are there."""
    report.ran("licences")
    named = wheel.metadata.get_all("License-File", [])
    paths = {item.path for item in wheel.members if item.size > 0}
    folders = (f"{wheel.dist_info}/licenses", wheel.dist_info)
    wanted = project.config.license
    expression = wheel.metadata.get("License-Expression", "")
    if not named:
        report.add(
            "licences",
            "METADATA names no License-File",
            member=wheel.dist_info,
            warning=not wanted,
        )
    for name in named:
        if not any(f"{folder}/{name}" in paths for folder in folders):
            report.add("licences", "is not in the wheel", member=f"{folders[0]}/{name}")
    if expression:
        try:
            foreign.license_expression(expression)
        except foreign.Unreadable as error:
            report.add("licences", f"License-Expression: {error}", member=wheel.dist_info)
    stated = expression or wheel.metadata.get("License", "")
    if wanted and stated != wanted:
        report.add(
            "licences", f"the licence is {stated!r}", member=wheel.dist_info, expected=wanted
        )


def _check_entry_points(
    report: ArtifactReport, wheel: Wheel, contents: Mapping[str, bytes]
) -> None:
    """Each entry point names something, and if its package is inside, a module that is there."""
    member = f"{wheel.dist_info}/entry_points.txt"
    if member not in contents:
        return
    report.ran("entry-points")
    try:
        groups = foreign.entry_points(contents[member], strict=True)
    except foreign.Unreadable as error:
        report.add("entry-points", f"cannot be read: {error}", member=member)
        return
    modules = _modules(item.path for item in wheel.members)
    for group, items in groups.items():
        for name, text in items.items():
            found = _REFERENCE.fullmatch(text.strip())
            if not found or (group in ("console_scripts", "gui_scripts") and not found["object"]):
                report.add(
                    "entry-points",
                    f"{name} = {text}",
                    member=member,
                    expected="package.module:function",
                )
            elif not _is_there(found["module"], modules):
                report.add(
                    "entry-points",
                    f"{name} = {text}, and the wheel has no such module",
                    member=member,
                    expected=f"{found['module'].replace('.', '/')}.py or a package",
                )


def _modules(paths: Iterable[str]) -> frozenset[str]:
    """The files and the folders that they are in, with their endings and without them."""
    found: set[str] = set()
    for path in paths:
        inside = path.split(".data/", 1)[-1].removeprefix("purelib/").removeprefix("platlib/")
        # A folder without __init__.py is a package, too.
        while inside and inside not in found:
            found.add(inside)
            inside, slash, name = inside.rpartition("/")
            found.add(f"{inside}{slash}{name.partition('.')[0]}")
    return frozenset(found)


def _is_there(module: str, modules: Collection[str]) -> bool:
    """Whether a module is inside, or is of a package that is not: another distribution's."""
    return module.partition(".")[0] not in modules or module.replace(".", "/") in modules


def _libraries(
    report: ArtifactReport, wheel: Wheel, looked: Looked, project: Project
) -> dict[str, SharedObject]:
    """The shared objects of a wheel for Linux, read; other systems' are not measured."""
    platforms = wheel.tags[2].split(".")
    if not any("linux" in name or name == "any" for name in platforms):
        return {}
    return read_libraries(report, looked.binaries, project.config.info_section)


def _check_abi3(report: ArtifactReport, wheel: Wheel, libraries: dict[str, SharedObject]) -> None:
    """Modules for any Python keep to the stable ABI of the oldest one that the tag promises."""
    stable = "abi3" in wheel.tags[1].split(".")
    promised = [found for tag in wheel.tags[0].split(".") if (found := oldest_python(tag))]
    for path, library in libraries.items():
        named = module_abi(path)
        if named == "abi3" or (stable and not named and exports_module(library)):
            check_abi3(report, library, min(promised, default=None))


def _check_glibc(
    report: ArtifactReport, libraries: Sequence[SharedObject], promised: tuple[int, int], tag: str
) -> None:
    for library in libraries:
        needed = library.floors.get("GLIBC", "0")
        if tuple(int(part) for part in needed.split(".")[:2]) > promised:
            report.add(
                "floor",
                f"needs GLIBC_{needed}, and the tag promises {tag}",
                member=member_of(library),
                expected="GLIBC_{}.{} at most".format(*promised),
            )


def oldest_python(tag: str) -> tuple[int, int] | None:
    """The Python of a tag ``cp38``; None for another kind of tag."""
    found = re.fullmatch(r"cp(\d)(\d+)", tag, re.ASCII)
    return (int(found[1]), int(found[2])) if found else None


def _check_floor(
    report: ArtifactReport,
    wheel: Wheel,
    project: Project,
    libraries: Sequence[SharedObject],
    inside: Collection[str],
) -> None:
    """What the libraries ask of the system, against what the platform tag promises."""
    platforms = wheel.tags[2].split(".")
    if not libraries and not any("linux" in name for name in platforms):
        return
    report.ran("floor")
    measure_floors(report, libraries, inside)
    for tag in platforms:
        if manylinux.is_plain(tag) or tag == "any":
            continue
        if tag.startswith("musllinux_"):
            for library in libraries:
                if library.floors.get("GLIBC"):
                    report.add(
                        "floor",
                        f"needs GLIBC_{library.floors['GLIBC']}, and the tag promises {tag}",
                        member=member_of(library),
                        expected="no symbol of glibc",
                    )
            continue
        try:
            policy = manylinux.policy_of(tag, manylinux.architecture(libraries))
        except ConfigError as error:
            glibc = None if project.config.package else _PERENNIAL.match(tag)
            if glibc is None:
                report.add("floor", f"the platform tag {tag}", expected=error.expected)
            else:  # PEP 600 has a tag for every glibc, and auditwheel a policy for some
                _check_glibc(report, libraries, (int(glibc[1]), int(glibc[2])), tag)
            continue
        for obstacle in manylinux.obstacles(policy, libraries, inside):
            report.add(
                "floor",
                f"needs {obstacle.what}, and the tag promises {tag}",
                member=obstacle.file,
                expected=obstacle.expected,
            )
