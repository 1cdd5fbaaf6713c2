"""The release gate: is everything that a wheel and a conda package say of themselves true?

Findings are data (:mod:`.findings`); ``scripts/verify.py`` prints them. docs/verify.md
lists the checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import ArtifactError, BridgeError
from ..label import CONDA_ENDINGS, NAME, Label, LibraryLabel
from .conda import check_conda
from .findings import ArtifactReport, Finding, Report
from .wheel import Payload, check_wheel

__all__ = ["ArtifactReport", "Finding", "Report", "as_lines", "collect", "verify"]

_ENDINGS = (*CONDA_ENDINGS, ".whl")
_EXPECTED = f"{', '.join(CONDA_ENDINGS)} or .whl"
_Package = tuple[Path, Payload, ArtifactReport]


def collect(paths: Iterable[Path]) -> list[Path]:
    """The artifacts among `paths`: files as they are, folders searched through.

    Raises:
        ArtifactError: a path that does not exist, a file of another kind, or a folder with none.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(
                item
                for item in path.rglob("*")
                if item.name.endswith(_ENDINGS) and item.is_file() and item.name[0] != "."
            )
            if not inside:
                raise ArtifactError(
                    f"no {' and no '.join(_ENDINGS)} in this folder", where=str(path)
                )
            found.update(dict.fromkeys(inside))
        elif not path.is_file():
            raise ArtifactError(
                "there is no such file or folder",
                where=str(path),
                expected=f"{_EXPECTED}, or a folder that holds some",
            )
        elif not path.name.endswith(_ENDINGS):
            raise ArtifactError(
                "neither a conda package nor a wheel", where=str(path), expected=_EXPECTED
            )
        else:
            found[path] = None
    return list(found)


def verify(paths: Sequence[Path], *, arch_list: str | None = None) -> Report:
    """Checks every artifact by itself, then each wheel against the packages of its label.

    Args:
        paths: files and folders.
        arch_list: the GPU architectures that were asked for (``8.0+PTX;9.0a``); None compares the
            code inside with the list that the library says it was compiled for.

    Returns:
        What was proved and found. An artifact that cannot be read is in it with its error.

    Raises:
        ArtifactError: there is nothing to look at.
        ConfigError: `arch_list` is not a list of architectures.
    """
    if arch_list is not None:
        from ..formats.fatbin import expected_codes

        expected_codes(arch_list)
    reports = []
    wheels: list[tuple[Label, Path, Payload]] = []  # one label may have several platform tags
    packages: dict[Label, _Package] = {}
    libraries: dict[LibraryLabel, _Package] = {}
    for path in collect(paths):
        report = ArtifactReport(path.name, "wheel" if path.suffix == ".whl" else "conda")
        reports.append(report)
        try:
            if path.suffix == ".whl":
                label, payload = check_wheel(path, report, arch_list=arch_list)
                wheels.append((label, path, payload))
                continue
            named, payload = check_conda(path, report, arch_list=arch_list)
            made = (path, payload, report)
            if isinstance(named, Label):
                first = packages.setdefault(named, made)
            else:
                first = libraries.setdefault(named, made)
            if first is not made:
                _check_same_files(first, made)
        except BridgeError as error:
            report.error = error
    for label, wheel, payload in wheels:
        parts = [packages.get(label), libraries.get(label.library)]
        given = [part for part in parts if part is not None]
        if given:
            pair = _check_pair(label, wheel, payload, [(part[0], part[1]) for part in given])
            reports.append(pair)
    for label, (package, _, report) in packages.items():
        library = libraries.get(label.library)
        if library is not None:
            _check_same_toolchain(report, package, library[2])
    return Report(tuple(reports))


def _check_pair(
    label: Label, wheel: Path, payload: Payload, packages: list[tuple[Path, Payload]]
) -> ArtifactReport:
    """The files of the wheel against those of the conda packages with the same label."""
    report = ArtifactReport(wheel.name, "pair", f"{label.variant.id} {label.public_version}")
    report.check("payload")
    report.facts["packages"] = [path.name for path, _ in packages]
    expected: Payload = {}
    origin: dict[str, str] = {}
    for path, files in packages:
        for name, digest in files.items():
            if name in expected:
                report.find("payload", f"is in {origin[name]} and in {path.name}", member=name)
            expected[name] = digest
            origin[name] = path.name
    report.facts["files"] = len(set(expected) & set(payload))
    for name in sorted(set(expected) - set(payload)):
        report.find("payload", f"is in {origin[name]}, and not in the wheel", member=name)
    for name in sorted(set(expected) & set(payload)):
        if expected[name] != payload[name]:
            report.find(
                "payload",
                f"sha256 {payload[name]}",
                member=name,
                expected=f"{expected[name]}, as in {origin[name]}",
            )
    if len(packages) == 2:
        for name in sorted(set(payload) - set(expected)):
            report.find("payload", "is in no conda package", member=name, expected="the same files")
    return report


def _check_same_files(first: _Package, second: _Package) -> None:
    """Two packages of one label, such as ``.conda`` and ``.tar.bz2``, hold the same files."""
    (one, ours, _), (_, theirs, report) = first, second
    report.check("same-files")
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            report.find(
                "same-files",
                f"sha256 {theirs.get(name, '-')}",
                member=name,
                expected=f"{ours.get(name, '-')}, as in {one}",
            )


def _check_same_toolchain(report: ArtifactReport, package: Path, library: ArtifactReport) -> None:
    """`_build_info.py` in the package against the library in the other package."""
    report.check("pinned-library")
    stated = report.facts.get("build_info", {})
    cuda = library.facts.get("cuda", "")
    for key, expected in (
        ("CUDA", "" if cuda == "none" else cuda),
        ("ARCH_LIST", library.facts.get("arch_list", "")),
    ):
        if stated.get(key) != expected:
            report.find(
                "pinned-library",
                f"{key} is {stated.get(key)!r} in {package.name}",
                member=f"site-packages/{NAME}/_build_info.py",
                expected=f"{expected!r}, as in {library.artifact}",
            )


def as_lines(report: Report) -> list[str]:
    """The report as plain lines, for a log."""
    lines = []
    for item in report.artifacts:
        if item.error:
            lines.append(f"{item.artifact}: unusable: {item.error}")
            continue
        what = f"{item.artifact} ({item.kind})"
        lines.append(f"{what}: {len(item.checks) - len(item.failed)} of {len(item.checks)} checks")
        lines += [f"  {key}: {value}" for key, value in item.facts.items() if value != ""]
        lines += [f"  {'warning' if f.warning else 'finding'}: {f}" for f in item.findings]
    return lines
