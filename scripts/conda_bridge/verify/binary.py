"""Checks of the two compiled libraries: do they hold what the label promises?"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..artifact import BINDING_RUNPATH, LIBRARY_NAME
from ..bridge import manylinux
from ..errors import ConfigError
from ..formats import elf, fatbin
from ..formats.elf import SharedObject
from ..label import Label, LibraryLabel
from .findings import ArtifactReport

if TYPE_CHECKING:
    from abi3info.models import PyVersion, Symbol

__all__ = [
    "BINDING",
    "check_abi3",
    "check_binding",
    "check_build_info",
    "check_library",
    "check_torch_abi",
    "measure_floors",
    "parse_build_info",
]

BINDING = "_C.abi3.so"
_SYSTEM = frozenset(
    {
        *("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"),
        *("libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1", "ld-linux-x86-64.so.2"),
    }
)
_LIBRARY_EXPORT = re.compile(r"^(fi_[a-z0-9_]+|flashinfer_build_info)$")
_OLD_ABI_UNTIL = (2, 6)  # PyPI's torch; measured on 2.0.1, 2.4.0 and 2.6.0


def _member(name: str) -> str:
    return name.partition(": ")[2] or name


def _check_common(report: ArtifactReport, library: SharedObject, runpath: str) -> None:
    member = _member(library.name)
    report.check("machine")
    if library.machine != "EM_X86_64":
        report.find("machine", library.machine, member=member, expected="EM_X86_64")
    report.check("runpath")
    if library.rpath:
        report.find(
            "runpath", f"DT_RPATH {':'.join(library.rpath)}", member=member, expected="none"
        )
    if ":".join(library.runpath) != runpath:
        report.find(
            "runpath",
            ":".join(library.runpath) or "no RUNPATH",
            member=member,
            expected=runpath or "no RUNPATH",
        )
    report.check("build-paths")
    for path in library.leaks:
        report.find("build-paths", f"holds the build machine's path {path!r}", member=member)
    report.check("debug")
    if library.debug_sections:
        report.find("debug", ", ".join(library.debug_sections), member=member, expected="stripped")


def _check_needed(report: ArtifactReport, library: SharedObject, *, binding: bool) -> None:
    member = _member(library.name)
    report.check("needed")
    for name in library.needed:
        ours = binding and (name == LIBRARY_NAME or manylinux.TORCH_LIBRARY.match(name))
        if name in _SYSTEM or ours:
            continue
        reason = "; the CUDA runtime must be linked statically" if "cudart" in name else ""
        report.find("needed", f"needs {name}{reason}", member=member)
    if binding and LIBRARY_NAME not in library.needed:
        report.find("needed", f"does not need {LIBRARY_NAME}", member=member)


def measure_floors(report: ArtifactReport, libraries: Sequence[SharedObject]) -> dict[str, str]:
    """Notes the oldest systems that `libraries` run on, each by itself and all together.

    Returns:
        The newest version asked of each runtime, as :func:`elf.floors` has it.
    """
    together = elf.floors(
        f"{family}_{version}" for item in libraries for family, version in item.floors.items()
    )
    for family in ("GLIBC", "GLIBCXX", "CXXABI"):
        report.facts[family.lower()] = together.get(family, "")
    report.facts["gcc"] = together.get("GCC", "")
    report.facts["floors"] = {
        _member(item.name): {**item.floors, "manylinux": _reached([item])} for item in libraries
    }
    report.facts["manylinux"] = _reached(libraries) if libraries else ""
    return together


def _reached(libraries: Sequence[SharedObject]) -> str:
    policy = manylinux.lowest(libraries)
    return policy.tag if policy else ""


def check_library(
    report: ArtifactReport,
    library: SharedObject,
    label: LibraryLabel,
    *,
    arch_list: str | None,
) -> None:
    """``libflashinfer.so`` against the CUDA part of the label.

    Args:
        report: takes the checks and findings.
        library: the file.
        label: what the artifact's name promises.
        arch_list: the architectures that were asked for; None compares with what the file says.
    """
    member = _member(library.name)
    _check_common(report, library, "")
    _check_needed(report, library, binding=False)
    report.check("exports")
    others = [s.name for s in library.exported if not _LIBRARY_EXPORT.match(s.name)]
    if others:
        report.find(
            "exports",
            f"{len(others)} other symbols, {others[0]} first",
            member=member,
            expected="fi_*",
        )
    if library.soname != LIBRARY_NAME:
        report.find("exports", f"SONAME {library.soname!r}", member=member, expected=LIBRARY_NAME)
    info = _info(report, library, "libflashinfer", label.public_version)
    if info is None:
        return
    cuda = info.get("cuda", "")
    expected = "{}.{}".format(*label.cuda) if label.cuda else "none"
    if (".".join(cuda.split(".")[:2]) if label.cuda else cuda) != expected:
        report.find(
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
    member = _member(library.name)
    report.check("archs")
    report.facts["archs"] = sorted(library.gpu_codes)
    report.facts["arch_list"] = stated
    if label.cuda is None:
        if library.gpu_sections or stated:
            report.find(
                "archs",
                f"holds GPU code ({', '.join(library.gpu_sections) or stated})",
                member=member,
                expected="none, this is a CPU variant",
            )
        return
    asked = stated if arch_list is None else arch_list
    try:
        expected = fatbin.expected_codes(asked)
    except ConfigError as error:
        report.find("archs", error.what, member=member, expected=error.expected)
        return
    if arch_list is not None and fatbin.expected_codes(arch_list) != _codes(stated):
        report.find("archs", f"says it is built for {stated!r}", member=member, expected=arch_list)
    containers = [c for found in library.gpu.values() for c in found]
    wrong = [c for c in containers if c.codes != expected]
    if not containers:
        report.find("archs", "holds no GPU code", member=member, expected=asked)
    elif wrong:
        found = ", ".join(sorted(wrong[0].codes)) or "nothing"
        report.find(
            "archs",
            f"{len(wrong)} of {len(containers)} translation units hold {found}",
            member=member,
            expected=", ".join(sorted(expected)),
        )
    lying = [i for c in containers for i in c.images if not i.consistent]
    if lying:
        report.find(
            "archs",
            f"fatbin header says {lying[0].code}, "
            f"the image is {lying[0].measured or 'of an unknown kind'}",
            member=member,
        )


def _codes(arch_list: str) -> frozenset[str]:
    try:
        return fatbin.expected_codes(arch_list)
    except ConfigError:
        return frozenset()


def check_binding(report: ArtifactReport, binding: SharedObject, label: Label) -> None:
    """``_C.abi3.so`` against the whole label: variant, torch minor, libraries, RUNPATH."""
    member = _member(binding.name)
    _check_common(report, binding, BINDING_RUNPATH)
    _check_needed(report, binding, binding=True)
    report.check("archs")
    if binding.gpu_sections:
        report.find("archs", "holds GPU code", member=member, expected=f"it in {LIBRARY_NAME}")
    report.check("exports")
    if not any(symbol.name == "PyInit__C" for symbol in binding.exported):
        report.find("exports", "no PyInit__C", member=member)
    info = _info(report, binding, "binding", label.public_version)
    if info is None:
        return
    if info.get("variant") != label.variant.id:
        report.find(
            "variant", f"variant {info.get('variant')!r}", member=member, expected=label.variant.id
        )
    torch = "{}.{}".format(*label.variant.torch)
    if info.get("torch") != torch:
        report.find(
            "variant", f"compiled with torch {info.get('torch')!r}", member=member, expected=torch
        )
    report.facts["torch"] = info.get("torch", "")
    report.facts["cxx"] = info.get("cxx", "")


def check_torch_abi(
    report: ArtifactReport, binding: SharedObject, torch: tuple[int, int], *, conda: bool
) -> None:
    """The C++ string ABI of the binding's undefined symbols against the torch it is for.

    PyPI's torch has the old one up to 2.6 and the new one from 2.7 on; conda-forge's has the new
    one. A conda package may serve a channel with another torch, so there it is a warning.
    """
    member = _member(binding.name)
    report.check("torch-abi")
    measured = binding.torch_abi
    said = {"1": "new", "0": "old"}.get((binding.info or {}).get("cxx11_abi", ""), "")
    report.facts["torch_abi"] = measured or said
    if measured == "mixed" or (measured and said and measured != said):
        report.find(
            "torch-abi",
            f"the symbols it wants from torch have the {measured} string ABI",
            member=member,
            expected=f"the {said} one, as its flashinfer_info section says",
        )
        return
    expected = "old" if torch <= _OLD_ABI_UNTIL and not conda else "new"
    if (measured or said) != expected:
        source = "conda-forge's" if conda else "PyPI's"
        report.find(
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
    member = _member(library.name)
    report.check("variant")
    if library.info is None:
        report.find("variant", "no flashinfer_info section", member=member)
        return None
    for key, expected in (("component", component), ("version", version)):
        if library.info.get(key) != expected:
            report.find(
                "variant", f"{key} {library.info.get(key)!r}", member=member, expected=expected
            )
    return library.info


def parse_build_info(source: bytes) -> dict[str, Any]:
    """The constants of ``_build_info.py``, read without running it.

    Raises:
        ValueError: not Python, or more in it than constants.
    """
    try:
        body = ast.parse(source).body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"not Python: {error}") from error
    values = {}
    for number, statement in enumerate(body):
        if number == 0 and isinstance(statement, ast.Expr):
            continue  # the docstring
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Constant):
            raise ValueError(f"line {statement.lineno} is not a constant")
        for target in statement.targets:
            if not isinstance(target, ast.Name):
                raise ValueError(f"line {statement.lineno} is not a constant")
            values[target.id] = statement.value.value
    return values


def check_build_info(
    report: ArtifactReport,
    source: bytes,
    label: Label,
    library: SharedObject | None,
    binding: SharedObject | None,
) -> None:
    """``_build_info.py`` against the label and the two libraries."""
    member = "flashinfer/_build_info.py"
    report.check("build-info")
    try:
        values = parse_build_info(source)
    except ValueError as error:
        report.find("build-info", str(error), member=member)
        return
    report.facts["build_info"] = values
    expected: dict[str, object] = {
        "VERSION": label.wheel_version,
        "PUBLIC_VERSION": label.public_version,
        "CONDA_VERSION": label.conda_version,
        "VARIANT": label.variant.id,
        "TORCH": "{}.{}".format(*label.variant.torch),
        "COMMIT": label.commit or "",
        "BUILD_NUMBER": label.build_number,
    }
    if library is not None and library.info is not None:
        cuda = library.info.get("cuda", "")
        expected["CUDA"] = "" if cuda == "none" else cuda
        expected["ARCH_LIST"] = library.info.get("archs", "")
    if binding is not None and binding.info is not None:
        expected["CXX11_ABI"] = binding.info.get("cxx11_abi") == "1"
    for name, value in expected.items():
        if name not in values or values[name] != value:
            report.find(
                "build-info", f"{name} is {values.get(name)!r}", member=member, expected=repr(value)
            )


class _DynamicSymbols:
    """A shared object as abi3audit wants to see it: our dynamic symbols, our tag."""

    def __init__(self, library: SharedObject, lowest: PyVersion) -> None:
        self._library = library
        self._lowest = lowest

    def abi3_version(self, assume_lowest: PyVersion) -> PyVersion:
        return self._lowest

    def __iter__(self) -> Iterator[Symbol]:
        from abi3info.models import Symbol

        for symbol in (*self._library.undefined, *self._library.exported):
            yield Symbol(symbol.name, visibility="weak" if symbol.weak else "global")

    def __str__(self) -> str:
        return self._library.name


def check_abi3(report: ArtifactReport, binding: SharedObject, python: tuple[int, int]) -> None:
    """The symbols of Python against CPython's stable ABI.

    Args:
        report: takes the check and its findings.
        binding: the file.
        python: the oldest Python that the artifact promises to work with.
    """
    from abi3audit._audit import audit
    from abi3info.models import PyVersion

    member = _member(binding.name)
    report.check("abi3")
    lowest = PyVersion(3, 2)
    # Its shared object reads a file by path; this one is read already, within bounds.
    result = audit(cast("Any", _DynamicSymbols(binding, lowest)), assume_minimum_abi3=lowest)
    report.facts["abi3"] = str(result.computed)
    for symbol in sorted(result.non_abi3_symbols, key=lambda symbol: symbol.name):
        report.find("abi3", f"{symbol.name} is not in the stable ABI", member=member)
    if result.computed > PyVersion(*python):
        newer = sorted(
            item.symbol.name
            for item in result.future_abi3_objects
            if item.added > PyVersion(*python)
        )
        report.find(
            "abi3",
            f"needs Python {result.computed} ({', '.join(newer)})",
            member=member,
            expected="{}.{} at most, as it promises".format(*python),
        )
    for name in binding.needed:
        if name.startswith("libpython"):
            report.find("abi3", f"needs {name}", member=member, expected="no library of one Python")
