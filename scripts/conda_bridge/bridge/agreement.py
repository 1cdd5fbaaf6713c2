"""What the parts of a package say of the build has to be one and the same thing.

File name, ``index.json``, dependencies, ``_build_info.py`` and the build's own metadata each name
the build. Each check here raises for the first difference, and the message has both values.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ..errors import ArtifactError, ConflictError, LabelMismatch
from ..formats import conda_package
from ..formats.conda_package import CondaPackage
from ..formats.wheel import Metadata, requirement
from ..label import CONDA_ENDINGS, Label
from .dependencies import MatchSpec, pip_requirement, pip_specifier

__all__ = [
    "REBUILD",
    "check_build_info",
    "check_kind",
    "check_same_files",
    "check_self_contained",
    "check_source_metadata",
    "library_of",
    "pypi_cxx11_abi",
    "read_build_info",
    "requirements",
]

REBUILD = "build the package again, with python scripts/build.py"


def pypi_cxx11_abi(torch: tuple[int, int]) -> bool:
    """Whether PyPI's builds of this torch minor have the new C++ string ABI (conda-forge's have).

    Torch up to 2.6 was built with ``_GLIBCXX_USE_CXX11_ABI=0``, from 2.7 on with 1.
    """
    return torch >= (2, 7)


def check_kind(binding: CondaPackage) -> None:
    """The package is one for every Python (CEP 20) and holds all that it installs.

    Raises:
        ArtifactError: it is for one Python, or has entry points (which are no payload).
    """
    if binding.index.get("noarch") != "python":
        raise ArtifactError(
            f"noarch is {binding.index.get('noarch')!r}",
            where=f"{binding.path.name}: info/index.json",
            expected="'python': one package for every Python (CEP 20)",
        )
    if binding.entry_points:
        raise ArtifactError(
            "the package has entry points, and the wheel would lose them",
            where=f"{binding.path.name}: info/link.json",
        )


def check_self_contained(package: CondaPackage) -> None:
    """No file holds the build prefix: conda would change it where pip would not.

    Raises:
        ArtifactError: one does.
    """
    for entry in package.paths.values():
        if entry.prefix_placeholder:
            raise ArtifactError(
                "holds the build prefix, which conda replaces and pip does not",
                where=f"{package.path.name}: {entry.path}",
                fix=REBUILD,
            )


def _depends(binding: CondaPackage) -> tuple[list[MatchSpec], str]:
    where = f"{binding.path.name}: info/index.json: depends"
    listed = binding.index.get("depends")
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise ArtifactError("is not a list of dependencies", where=where)
    return [MatchSpec.parse(item, where) for item in listed], where


def requirements(binding: CondaPackage, label: Label) -> tuple[str, list[str]]:
    """``Requires-Python`` and ``Requires-Dist`` of the wheel.

    Raises:
        ArtifactError: a dependency that has no pip form, or another torch than the label's.
    """
    specs, where = _depends(binding)
    pythons, others = [], []
    for spec in specs:
        if spec.name == "python":
            pythons.append(pip_specifier(spec.version, where))
            continue
        translated = pip_requirement(spec, where, also=("libflashinfer",))
        if translated is not None:
            others.append(translated)
    # Builders order them differently, and may state one twice.
    requires_python = _specifiers(",".join(filter(None, pythons)))
    requires_dist = sorted(set(others))
    torch = "torch=={}.{}.*".format(*label.variant.torch)
    found = [text for text in requires_dist if text.startswith("torch")]
    if found != [torch]:
        raise ArtifactError(
            f"requires {', '.join(found) or 'no torch'}",
            where=where,
            expected=f"{torch}, as the file name has it",
            fix=REBUILD,
        )
    return requires_python, requires_dist


def check_same_files(one: CondaPackage, other: CondaPackage) -> None:
    """Two packages of one name, ``.conda`` and ``.tar.bz2``, say that they install the same files.

    Raises:
        ConflictError: they do not.
    """
    ours, theirs = (
        {entry.path: (entry.is_link or entry.sha256) for entry in package.paths.values()}
        for package in (one, other)
    )
    differing = [path for path in {*ours, *theirs} if ours.get(path) != theirs.get(path)]
    if differing:
        raise ConflictError(
            f"does not hold the files of {one.path.name} beside it: {min(differing)} differs",
            where=str(other.path),
            expected="the same files in both forms of a package",
            fix="remove the one that is not meant",
        )


def library_of(binding: CondaPackage, label: Label) -> CondaPackage:
    """The ``libflashinfer`` that the package pins exactly, in the same folder.

    It may be there as ``.conda``, as ``.tar.bz2``, or as both with the same files.

    Raises:
        ArtifactError: the pin is not that of the label, or the file is not there or damaged.
        ConflictError: it is there in both forms, with other files.
    """
    specs, where = _depends(binding)
    # conda-build writes "0.1.6 cpu_0" for what py-rattler-build writes "==0.1.6 cpu_0".
    pins = {str(spec).replace(" ==", " ", 1) for spec in specs if spec.name == "libflashinfer"}
    expected = f"libflashinfer {label.conda_version} {label.lib_conda_build}"
    if pins != {expected}:
        raise ArtifactError(
            f"depends on {', '.join(sorted(pins)) or 'no libflashinfer'}",
            where=where,
            expected=expected,
            fix=REBUILD,
        )
    names = [label.library.conda_stem + ending for ending in CONDA_ENDINGS]
    found = [path for path in map(binding.path.with_name, names) if path.is_file()]
    if not found:
        raise ArtifactError(
            f"its libflashinfer is not there: {binding.path.with_name(names[0])}",
            where=binding.path.name,
            expected=f"{' or '.join(names)} in the same folder",
            fix="put both packages into one folder",
        )
    library, *others = map(conda_package.read, found)
    for other in others:
        check_same_files(library, other)
        for _ in other.payload():  # and what it says of its files is true
            pass
    return library


def read_build_info(text: bytes, where: str) -> dict[str, object]:
    """The assignments of a ``_build_info.py``, without executing it.

    Raises:
        ArtifactError: anything else than assignments of literals.
    """
    try:
        values: dict[str, object] = {}
        for number, statement in enumerate(ast.parse(text).body):
            if number == 0 and isinstance(statement, ast.Expr):
                continue  # the docstring
            if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
                raise ValueError(f"line {statement.lineno} is not an assignment")
            target = statement.targets[0]
            if not isinstance(target, ast.Name):
                raise ValueError(f"line {statement.lineno} is not an assignment to a name")
            values[target.id] = ast.literal_eval(statement.value)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ArtifactError(
            f"cannot be read: {error}", where=where, expected="assignments of literals", fix=REBUILD
        ) from error
    return values


def check_build_info(text: bytes, label: Label, where: str) -> None:
    """``_build_info.py`` says what the label says, and PyPI's torch can load the binding.

    Raises:
        ArtifactError: another version, variant, commit, build number or CUDA.
        LabelMismatch: the other C++ ABI than PyPI's torch of that minor.
    """
    found = read_build_info(text, where)
    expected: dict[str, object] = {
        "VERSION": label.wheel_version,
        "PUBLIC_VERSION": label.public_version,
        "CONDA_VERSION": label.conda_version,
        "VARIANT": label.variant.id,
        "TORCH": "{}.{}".format(*label.variant.torch),
        "COMMIT": label.commit or "",
        "BUILD_NUMBER": label.build_number,
    }
    for key, value in expected.items():
        if found.get(key) != value:
            raise ArtifactError(
                f"{key} is {found.get(key)!r}",
                where=where,
                expected=f"{value!r}, as the file name has it",
                fix=REBUILD,
            )
    cuda = str(found.get("CUDA", ""))
    release = "{}.{}".format(*label.variant.cuda) if label.variant.cuda else ""
    if ".".join(cuda.split(".")[:2]) != release:
        raise ArtifactError(
            f"CUDA is {cuda!r}",
            where=where,
            expected=f"{label.variant.accelerator}, as the file name has it",
            fix=REBUILD,
        )
    _check_cxx11_abi(found.get("CXX11_ABI"), label, where)


def _check_cxx11_abi(found: object, label: Label, where: str) -> None:
    if not isinstance(found, bool):
        raise ArtifactError(f"CXX11_ABI is {found!r}", where=where, expected="True or False")
    expected = pypi_cxx11_abi(label.variant.torch)
    if found == expected:
        return
    names = {True: "the new C++ string ABI", False: "the old C++ string ABI"}
    minor = "{}.{}".format(*label.variant.torch)
    fits = f"conda-forge's pytorch {minor}" if found else "PyPI's torch up to 2.6"
    fix = f"build {label.variant.id} against the torch {minor} of PyPI, and bridge that package"
    if not expected:
        fix += (
            "; or keep the conda package alone: python scripts/build.py --no-wheel; "
            "or bridge a variant of torch 2.7 or newer, where both have the new one"
        )
    raise LabelMismatch(
        f"the binding has {names[found]} (CXX11_ABI = {found}); it fits {fits}",
        where=where,
        expected=f"{names[expected]}, which PyPI's torch {minor} has",
        fix=fix,
    )


def check_source_metadata(
    source: Metadata, label: Label, requires_python: str, requires_dist: Iterable[str], where: str
) -> None:
    """The ``METADATA`` that the build wrote says what the conda package says.

    Raises:
        ArtifactError: another name, version, Python or dependency.
    """
    pairs: tuple[tuple[str, object, object], ...] = (
        ("Name", source.name, "flashinfer"),
        ("Version", source.version, label.wheel_version),
        ("Requires-Python", _specifiers(source.requires_python), requires_python),
        ("Requires-Dist", _normal(source.requires_dist), _normal(requires_dist)),
    )
    for key, found, expected in pairs:
        if found != expected:
            raise ArtifactError(
                f"{key} is {found!r}",
                where=where,
                expected=f"{expected!r}, as the conda package has it",
                fix=REBUILD,
            )


def _specifiers(text: str) -> str:
    """A list of version specifiers in its one order; the text itself where it is none."""
    try:
        return str(SpecifierSet(text))
    except InvalidSpecifier:
        return text


def _normal(texts: Iterable[str]) -> list[str]:
    return sorted(requirement(text) for text in texts)
