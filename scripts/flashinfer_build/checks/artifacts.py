"""What flashinfer's wheels and packages have to be, beyond what ``verify`` asks of anybody's."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from conda_bridge.errors import ConfigError
from conda_bridge.formats import fatbin, foreign
from conda_bridge.formats.conda_package import CondaPackage
from conda_bridge.formats.elf import SharedObject, Symbol
from conda_bridge.formats.wheel_reader import Wheel
from conda_bridge.verify.artifact import Artifact
from conda_bridge.verify.binary import SYSTEM, check_archs, member_of
from conda_bridge.verify.findings import ArtifactReport
from conda_bridge.verify.requirements import accepts, before, shown, specs
from conda_bridge.verify.wheel import oldest_python

from ..artifact import BINDING_NAME, BINDING_RUNPATH, LIBRARY_NAME
from ..label import Label, LibraryLabel
from . import build_info, sbom, torch_abi
from .labels import label_of, library_label_of

__all__ = ["BINDING", "LIBRARY", "verify", "verify_together"]

# By their path in the wheel.
BINDING = f"flashinfer/{BINDING_NAME}"
LIBRARY = f"flashinfer/lib/{LIBRARY_NAME}"
_API = "flashinfer/include/flashinfer/api.h"
_OF_BINDING = ("flashinfer/__init__.py", build_info.PATH, BINDING)
_OF_LIBRARY = (LIBRARY, _API)

_OLDEST_PYTHON = (3, 8)  # of the limited API that the binding is compiled for
_TORCH = re.compile(r"lib(torch(_cpu|_cuda)?|c10(_cuda)?)\.so")
_EXPORT = re.compile(r"fi_[a-z0-9_]+|flashinfer_build_info")
_API_SYMBOL = re.compile(r"fi_[a-z0-9_]{1,60}")
_MOST_API = 1000
_LEFTOVERS = re.compile(r"(^|/)(__pycache__|tests?)(/|$)|\.(pyc|pyo|a|la)$")
_INDEX = "info/index.json"


def verify(artifact: Artifact, report: ArtifactReport) -> None:
    """Adds the checks of this project to a report.

    Raises:
        LabelError: a version that this project does not give.
    """
    binding, library = artifact.libraries.get(BINDING), artifact.libraries.get(LIBRARY)
    whole = artifact.name == "flashinfer"
    label = label_of(artifact.label) if whole else None
    library_label = label.library if label else library_label_of(artifact.label)
    if isinstance(artifact.source, Wheel):
        assert label is not None  # the wheel has one name
        _check_wheel(report, artifact.source, label)
        _check_files(report, artifact, [*_OF_BINDING, *_OF_LIBRARY])
    else:
        _check_index(report, artifact.source, noarch="python" if whole else None)
        _check_files(report, artifact, _OF_BINDING if whole else _OF_LIBRARY)
        if label:
            _check_depends(report, artifact.source)
        _check_cuda(report, artifact.source, label, library_label.cuda)
    if library is not None:
        _check_library(report, library, library_label, artifact.arch_list)
        report.facts["api"] = sorted(_api(library.exported))
    if binding is not None and label:
        _check_binding(report, binding, label)
        report.facts["calls"] = sorted(_api(binding.undefined))
        if library is not None:
            _check_calls(report, report.facts["calls"], report.facts["api"], member_of(binding))
        _check_torch_abi(report, binding, label.variant.torch, conda=artifact.kind == "conda")
    sbom.check(artifact, report, {LIBRARY_NAME: library, BINDING_NAME: binding})
    if label and build_info.PATH in artifact.contents:
        source = artifact.contents[build_info.PATH]
        _check_build_info(report, source, label, library, binding)


def verify_together(main: ArtifactReport, folds: Sequence[ArtifactReport]) -> None:
    """``_build_info.py`` and the binding in the package, against the library in the other one."""
    for library in folds:
        binding = f"site-packages/{BINDING}"
        _check_calls(main, main.facts.get("calls", []), library.facts.get("api", []), binding)
        main.ran("pinned-library")
        stated = main.facts.get("build_info", {})
        cuda = library.facts.get("cuda", "")
        for key, expected in (
            ("CUDA", "" if cuda == "none" else cuda),
            ("ARCH_LIST", library.facts.get("arch_list", "")),
        ):
            if stated.get(key) != expected:
                main.add(
                    "pinned-library",
                    f"{key} is {stated.get(key)!r} in {main.artifact}",
                    member=f"site-packages/{build_info.PATH}",
                    expected=f"{expected!r}, as in {library.artifact}",
                )


# ------------------------------------------------------------ metadata


def _check_wheel(report: ArtifactReport, wheel: Wheel, label: Label) -> None:
    """One wheel for every Python from a minor on, described for an index."""
    if wheel.tags[1] != "abi3" or not re.fullmatch(r"cp3\d+", wheel.tags[0]):
        report.add("name", f"the tag is {'-'.join(wheel.tags)}", expected="cp3X-abi3-<platform>")
    member = f"{wheel.dist_info}/METADATA"
    text = wheel.metadata.get("Requires-Python", "")
    oldest = oldest_python(wheel.tags[0]) or _OLDEST_PYTHON
    try:
        accepted = foreign.specifiers(text)
    except foreign.Unreadable:
        pass  # everybody's check has said so
    else:
        inside, below = "{}.{}".format(*oldest), f"{oldest[0]}.{oldest[1] - 1}"
        if inside not in accepted or below in accepted:
            report.add(
                "dependencies",
                f"Requires-Python: {text!r}",
                member=member,
                expected=f">={inside}, as the tag {wheel.tags[0]} says",
            )
    report.ran("metadata")
    if not wheel.metadata.get("Summary", "").strip():
        report.add("metadata", "no Summary", member=member)
    if not str(wheel.metadata.get_payload() or wheel.metadata.get("Description", "")).strip():
        report.add("metadata", "no description", member=member)


def _check_index(report: ArtifactReport, package: CondaPackage, noarch: str | None) -> None:
    expected = {"subdir": "linux-64", "arch": "x86_64", "platform": "linux", "noarch": noarch}
    for key, value in expected.items():
        if package.index.get(key) != value:
            report.add(
                "index",
                f"{key} is {package.index.get(key)!r}",
                member=_INDEX,
                expected=repr(value),
            )
    report.ran("about")
    for key in ("license", "summary"):
        if not package.about.get(key):
            report.add("about", f"no {key}", member="info/about.json")


def _check_files(report: ArtifactReport, artifact: Artifact, required: Sequence[str]) -> None:
    """What has to be there is there, and nothing else than the package is."""
    if isinstance(artifact.source, Wheel):
        paths = {item.path: item.path for item in artifact.source.members}
        own: tuple[str, ...] = ("flashinfer/", f"{artifact.source.dist_info}/")
    else:
        paths = {_in_wheel(path, artifact.name): path for path in artifact.source.paths}
        own = ("",)
        for path, entry in artifact.source.paths.items():
            if entry.prefix_placeholder:
                report.add(
                    "files", "holds the build prefix", member=path, expected="no prefix in it"
                )
    for path in required:
        if path not in paths:
            report.add("files", "is missing", member=_shown(path, artifact))
    for path, member in sorted(paths.items()):
        if not path.startswith(own):
            report.add(
                "files", "lies outside the package", member=member, expected="flashinfer/..."
            )
        elif _LEFTOVERS.search(path) and not path.startswith("etc/conda/test-files/"):
            report.add("files", "is a build artefact", member=member)
        elif ".so" in path and path not in required:
            report.add("files", "is a library that is not ours", member=member)


def _in_wheel(path: str, package: str) -> str:
    """A package's file by its path in the wheel; what has none by its own."""
    if package == "libflashinfer":
        return f"flashinfer/{path}" if path.startswith(("lib/", "include/")) else path
    return path.removeprefix("site-packages/")


def _shown(path: str, artifact: Artifact) -> str:
    if artifact.kind == "wheel":
        return path
    inner = path.removeprefix("flashinfer/")
    return inner if artifact.name == "libflashinfer" else f"site-packages/{path}"


def _check_depends(report: ArtifactReport, package: CondaPackage) -> None:
    """A torch of the label's kind, and the oldest Python that the binding is compiled for."""
    depends = specs(report, package, "depends")
    kind = "*cpu*" if package.build.startswith("cpu") else "*cuda*"
    pytorch = depends.get("pytorch", [])
    if pytorch and not any(str(spec.build or "") == kind for spec in pytorch):
        versions = " ".join(str(spec.version or "") for spec in pytorch)
        report.add(
            "dependencies", shown(pytorch), member=_INDEX, expected=f"pytorch {versions} {kind}"
        )
    oldest = "{}.{}".format(*_OLDEST_PYTHON)
    python = depends.get("python", [])
    accepted = accepts(python, f"{oldest}.0", "3.13.0")
    if not python or not accepted or accepts(python, before(_OLDEST_PYTHON)):
        report.add(
            "dependencies",
            shown(python) or "does not depend on python",
            member=_INDEX,
            expected=f"python >={oldest}",
        )


def _check_cuda(
    report: ArtifactReport,
    package: CondaPackage,
    label: Label | None,
    cuda: tuple[int, int] | None,
) -> None:
    """A CUDA package asks for one CUDA major, flashinfer for a driver; a CPU package for neither.

    libflashinfer runs without a driver too, on the CPU, and is needed where flashinfer is built.
    """
    depends = specs(report, package, "depends")
    constrains = specs(report, package, "constrains")
    for name in ("cuda-cudart", "cuda-nvcc", "cuda-toolkit"):
        if name in depends:
            report.add("dependencies", f"depends on {name}", member=_INDEX, expected="linked in")
    for name in ("__cuda", "cuda-version"):
        found = [*depends.get(name, []), *constrains.get(name, [])]
        if name == "__cuda" and cuda and label:
            found = depends.get(name, [])
        if cuda is None:
            if found:
                report.add("dependencies", shown(found), member=_INDEX, expected="no CUDA at all")
            continue
        inside, outside = f"{cuda[0]}.{cuda[1]}", before((cuda[0], 0))
        fits = found and accepts(found, inside) and not accepts(found, outside)
        if name == "cuda-version":
            fits = fits and not accepts(found, f"{cuda[0] + 1}.0")
        if not fits:
            report.add(
                "dependencies",
                shown(found) or f"no constraint on {name}",
                member=_INDEX,
                expected=f"{name} of CUDA {cuda[0]}",
            )


# ------------------------------------------------------------ binaries


def _check_common(report: ArtifactReport, library: SharedObject, runpath: str) -> None:
    member = member_of(library)
    report.ran("runpath")
    if library.rpath:
        report.add("runpath", f"DT_RPATH {':'.join(library.rpath)}", member=member, expected="none")
    if ":".join(library.runpath) != runpath:
        report.add(
            "runpath",
            ":".join(library.runpath) or "no RUNPATH",
            member=member,
            expected=runpath or "no RUNPATH",
        )
    report.ran("build-paths")
    for path in library.leaks:
        report.add("build-paths", f"holds the build machine's path {path!r}", member=member)
    report.ran("debug")
    if library.debug_sections:
        report.add("debug", ", ".join(library.debug_sections), member=member, expected="stripped")


def _check_needed(report: ArtifactReport, library: SharedObject, *, binding: bool) -> None:
    """The system's libraries; of the binding torch's and libflashinfer, too."""
    member = member_of(library)
    report.ran("needed")
    said = {(finding.member, finding.what) for finding in report.findings}
    for name in library.needed:
        own = binding and (name == LIBRARY_NAME or _TORCH.fullmatch(name))
        if name in SYSTEM or own:
            continue
        reason = "; the CUDA runtime must be linked statically" if "cudart" in name else ""
        if reason or (member, f"needs {name}") not in said:
            report.add("needed", f"needs {name}{reason}", member=member)
    if binding and LIBRARY_NAME not in library.needed:
        report.add("needed", f"does not need {LIBRARY_NAME}", member=member)


def _check_library(
    report: ArtifactReport, library: SharedObject, label: LibraryLabel, arch_list: str | None
) -> None:
    """``libflashinfer.so`` against the CUDA part of the label."""
    member = member_of(library)
    _check_common(report, library, "")
    _check_needed(report, library, binding=False)
    report.ran("exports")
    others = [item.name for item in library.exported if not _EXPORT.fullmatch(item.name)]
    if others:
        report.add(
            "exports",
            f"{len(others)} other symbols, {others[0]} first",
            member=member,
            expected="fi_*",
        )
    if library.soname != LIBRARY_NAME:
        report.add("exports", f"SONAME {library.soname!r}", member=member, expected=LIBRARY_NAME)
    info = _info(report, library, "libflashinfer", label.compiled_version)
    if info is None:
        return
    cuda = info.get("cuda", "")
    expected = "{}.{}".format(*label.cuda) if label.cuda else "none"
    if (build_info.release(cuda) if label.cuda else cuda) != expected:
        report.add(
            "variant",
            f"compiled with CUDA {cuda or '(not said)'}",
            member=member,
            expected=expected,
        )
    _check_gpu(report, library, label, info.get("archs", ""), arch_list)
    report.facts["cuda"] = cuda
    report.facts["library_cxx"] = info.get("cxx", "")


def _check_gpu(
    report: ArtifactReport,
    library: SharedObject,
    label: LibraryLabel,
    stated: str,
    arch_list: str | None,
) -> None:
    """The GPU code is that of the list that the library says it was compiled for."""
    member = member_of(library)
    report.ran("archs")
    report.facts["archs"] = sorted(library.gpu_codes)
    report.facts["arch_list"] = stated
    if label.cuda is None:
        if library.gpu_sections or stated:
            report.add(
                "archs",
                f"holds GPU code ({', '.join(library.gpu_sections) or stated})",
                member=member,
                expected="none, this is a CPU variant",
            )
        return
    asked = stated if arch_list is None else arch_list
    try:
        fatbin.expected_codes(asked)
    except ConfigError as error:
        report.add("archs", error.what, member=member, expected=error.expected)
        return
    if arch_list is not None and fatbin.expected_codes(arch_list) != _codes(stated):
        report.add("archs", f"says it is built for {stated!r}", member=member, expected=arch_list)
    if not library.gpu_codes:
        report.add("archs", "holds no GPU code", member=member, expected=asked)
    elif arch_list is None:  # else everybody's check has compared it with what was asked for
        check_archs(report, library, stated)


def _codes(arch_list: str) -> frozenset[str]:
    try:
        return fatbin.expected_codes(arch_list)
    except ConfigError:
        return frozenset()


def _check_binding(report: ArtifactReport, binding: SharedObject, label: Label) -> None:
    """``_C.abi3.so`` against the whole label: variant, torch minor, libraries, RUNPATH."""
    member = member_of(binding)
    _check_common(report, binding, BINDING_RUNPATH)
    _check_needed(report, binding, binding=True)
    report.ran("archs")
    if binding.gpu_sections:
        report.add("archs", "holds GPU code", member=member, expected=f"it in {LIBRARY_NAME}")
    report.ran("exports")
    if not any(symbol.name == "PyInit__C" for symbol in binding.exported):
        report.add("exports", "no PyInit__C", member=member)
    info = _info(report, binding, "binding", label.compiled_version)
    if info is None:
        return
    if info.get("variant") != label.variant.id:
        report.add(
            "variant", f"variant {info.get('variant')!r}", member=member, expected=label.variant.id
        )
    torch = "{}.{}".format(*label.variant.torch)
    if info.get("torch") != torch:
        report.add(
            "variant", f"compiled with torch {info.get('torch')!r}", member=member, expected=torch
        )
    report.facts["torch"] = info.get("torch", "")
    report.facts["cxx"] = info.get("cxx", "")


def _api(symbols: Iterable[Symbol]) -> set[str]:
    """Those of the library's C interface, which is small."""
    named = (item.name for item in symbols if _API_SYMBOL.fullmatch(item.name))
    return set(itertools.islice(named, _MOST_API))


def _check_calls(
    report: ArtifactReport, calls: Sequence[str], api: Sequence[str], member: str
) -> None:
    """What the binding calls is in the library: they may have been built at different times."""
    report.ran("calls")
    missing = sorted(set(calls) - set(api))
    if missing:
        report.add(
            "calls",
            f"calls {', '.join(missing[:3])}{', ...' if missing[3:] else ''}, which "
            f"{LIBRARY_NAME} does not have: the import would fail",
            member=member,
            expected="a binding that was linked with the library it is packed with",
        )


def _check_torch_abi(
    report: ArtifactReport, binding: SharedObject, torch: tuple[int, int], *, conda: bool
) -> None:
    """The C++ string ABI of the binding's undefined symbols against the torch it is for.

    A conda package may serve a channel with another torch, so there it is a warning.
    """
    member = member_of(binding)
    report.ran("torch-abi")
    measured = torch_abi.measured(binding)
    said = {"1": "new", "0": "old"}.get((binding.info or {}).get("cxx11_abi", ""), "")
    report.facts["torch_abi"] = measured or said
    if measured == "mixed" or (measured and said and measured != said):
        report.add(
            "torch-abi",
            f"the symbols it wants from torch have the {measured} string ABI",
            member=member,
            expected=f"the {said} one, as its flashinfer_info section says",
        )
        return
    expected = "new" if conda or torch_abi.pypi_has_new(torch) else "old"
    if (measured or said) != expected:
        source = "conda-forge's" if conda else "PyPI's"
        report.add(
            "torch-abi",
            f"{measured or said or 'unknown'} C++ string ABI",
            member=member,
            expected=f"{expected}, as {source} torch {torch[0]}.{torch[1]} has",
            warning=conda,
        )


def _info(
    report: ArtifactReport, library: SharedObject, component: str, version: str
) -> Mapping[str, str] | None:
    """The build information, with component and version compared."""
    member = member_of(library)
    report.ran("variant")
    if library.info is None:
        report.add("variant", "no flashinfer_info section", member=member)
        return None
    for key, expected in (("component", component), ("version", version)):
        if library.info.get(key) != expected:
            report.add(
                "variant", f"{key} {library.info.get(key)!r}", member=member, expected=expected
            )
    return library.info


def _check_build_info(
    report: ArtifactReport,
    source: bytes,
    label: Label,
    library: SharedObject | None,
    binding: SharedObject | None,
) -> None:
    """``_build_info.py`` against the label and the two libraries."""
    member = build_info.PATH
    report.ran("build-info")
    try:
        values = build_info.parse(source)
    except ValueError as error:
        report.add("build-info", str(error), member=member)
        return
    report.facts["build_info"] = values
    expected = build_info.expected(label)
    if library is not None and library.info is not None:
        cuda = library.info.get("cuda", "")
        expected["CUDA"] = "" if cuda == "none" else cuda
        expected["ARCH_LIST"] = library.info.get("archs", "")
    if binding is not None and binding.info is not None:
        expected["CXX11_ABI"] = binding.info.get("cxx11_abi") == "1"
    for name, found, value in build_info.differences(values, expected):
        report.add("build-info", f"{name} is {found!r}", member=member, expected=repr(value))
