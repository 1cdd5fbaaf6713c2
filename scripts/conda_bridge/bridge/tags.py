"""The wheel's tags: which Pythons and which machines it runs on, and the proof of both.

Which file is an extension module its name says, or the ``PyInit_<name>`` that it exports; other
shared libraries have nothing to do with Python and are the platform tag's concern alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ArtifactError, LabelMismatch
from ..formats import abi3, foreign
from ..formats.wheel import Tag, abi3_tag
from . import manylinux

if TYPE_CHECKING:  # it takes its time to import
    from ..formats.elf import SharedObject

__all__ = [
    "ANY",
    "ARCHITECTURES",
    "Module",
    "architecture_of",
    "check_needed",
    "check_python",
    "module_of",
    "tag_of",
]

ANY = "any"
# conda's subdirs -> the processor's name in platform tags.
ARCHITECTURES = {
    "linux-64": "x86_64",
    "linux-aarch64": "aarch64",
    "linux-ppc64le": "ppc64le",
    "linux-s390x": "s390x",
    "linux-riscv64": "riscv64",
}
_MACHINES = {arch: machine for machine, arch in manylinux.ARCHITECTURES.items()}
_CPYTHON = re.compile(r"\.cpython-(?P<digits>3\d+)(?P<flags>[a-z]*)(-[^/.]*)?\.so$")
_OTHER_PYTHON = re.compile(r"\.(pypy|graalpy)[^/]*\.so$")


@dataclass(frozen=True)
class Module:
    """An extension module.

    Attributes:
        path: in the package.
        abi: ``abi3``, a CPython's such as ``cp312`` or ``cp313t``; empty where the name is silent.
    """

    path: str
    abi: str


def architecture_of(subdir: object, where: str) -> str:
    """The processor of a package's subdir; empty for ``noarch``.

    Raises:
        ArtifactError: a system other than Linux.
    """
    if subdir in ("noarch", None, ""):
        return ""
    if subdir not in ARCHITECTURES:
        raise ArtifactError(
            f"subdir is {subdir!r}",
            where=where,
            expected=", ".join(("noarch", *ARCHITECTURES)),
            fix="wheels with binaries of other systems cannot be proved here; bridge the Linux or "
            "noarch package",
        )
    return ARCHITECTURES[str(subdir)]


def needs_a_look(path: str) -> bool:
    """Whether the name of a shared object in site-packages leaves open what it is."""
    return not (path.endswith(".abi3.so") or _CPYTHON.search(path) or _OTHER_PYTHON.search(path))


def module_of(path: str, shared: SharedObject | None, where: str) -> Module | None:
    """The extension module that a shared object in site-packages is; None for a plain library.

    Args:
        path: of the file.
        shared: what is in it, where that has been looked at.
        where: the package, for messages.

    Raises:
        ArtifactError: it is for an interpreter that is not CPython.
    """
    if path.endswith(".abi3.so"):
        return Module(path, "abi3")
    found = _CPYTHON.search(path)
    if found:
        return Module(path, f"cp{found['digits']}{found['flags']}")
    if _OTHER_PYTHON.search(path):
        raise ArtifactError(
            "is for another interpreter than CPython",
            where=f"{where}: {path}",
            expected="a module of CPython, or one for the stable ABI (.abi3.so)",
        )
    name = path.rpartition("/")[2].partition(".")[0]
    if shared and any(symbol.name == f"PyInit_{name}" for symbol in shared.exported):
        return Module(path, "")
    return None


def tag_of(
    modules: Sequence[Module],
    *,
    platform: str,
    python: str,
    requires_python: str,
    built_as: Collection[str],
    objects: Mapping[str, SharedObject],
    where: str,
) -> Tag:
    """The wheel's tag.

    Args:
        modules: all extension modules.
        platform: the platform tag; ``any`` for a package without binaries.
        python: the Python whose site-packages the package has, ``3.12``; empty for every one.
        requires_python: the wheel's.
        built_as: the tags in the ``WHEEL`` of the package's own ``.dist-info``.
        objects: the shared objects that were looked into, by path.
        where: the package, for messages.

    Raises:
        ArtifactError: modules that no one tag fits.
        LabelMismatch: a module that says it keeps to the stable ABI and does not.
    """
    built = [tag.split("-") for tag in built_as if tag.count("-") == 2]
    if not modules:
        # What the build backend wrote: that it is for this one Python (a library that is loaded
        # with ctypes may be), or less. What it meant by that is not seen here.
        own = f"cp{python.replace('.', '')}"
        said = {(pair[0], pair[1]) for pair in built if pair[0].startswith(("py3", "cp3"))}
        if python and said and said <= {(own, "none"), (own, own)}:
            return Tag(own, "none" if (own, "none") in said else own, platform)
        return Tag("py3", "none", platform)
    exact = sorted({module.abi or f"cp{python.replace('.', '')}" for module in modules} - {"abi3"})
    silent = next((module for module in modules if not module.abi), None)
    if silent and not python:
        raise ArtifactError(
            "an extension module that is not for the stable ABI",
            where=f"{where}: {silent.path}",
            expected="a name that ends in .abi3.so, in a package for every Python",
        )
    if exact:
        wrong = next((module for module in modules if not python and module.abi != "abi3"), None)
        if wrong:
            raise ArtifactError(
                "an extension module that is not for the stable ABI",
                where=f"{where}: {wrong.path}",
                expected="a name that ends in .abi3.so, in a package for every Python",
            )
        own = f"cp{python.replace('.', '')}"
        if len(exact) > 1 or exact[0].rstrip("t") != own:
            raise ArtifactError(
                f"has extension modules for {' and '.join(exact)}",
                where=where,
                expected=f"{own}, as its folder lib/python{python} says",
            )
        return Tag(exact[0].rstrip("t"), exact[0], platform)
    if python:
        tag = _of_one_python(built, python, platform)
    else:
        tag = abi3_tag(requires_python, [module.path for module in modules], platform, where)
    _prove_abi3(tag, modules, objects, where)
    return tag


def check_python(python: str, asked: str, where: str) -> None:
    """The package's site-packages are those of a Python that it depends on.

    Args:
        python: of its folder, such as ``3.12``; empty for every Python.
        asked: the dependency on python, as a PEP 440 specifier.
        where: the dependencies, for messages.

    Raises:
        ArtifactError: they are another's.
    """
    # Whichever release of the series: one of the first, or one that is yet to come.
    releases = (f"{python}.{number}" for number in range(100))
    if python and not any(foreign.specifiers(asked).contains(release) for release in releases):
        raise ArtifactError(
            f"depends on python {asked}",
            where=where,
            expected=f"python {python}.*, whose site-packages the package has",
        )


def _of_one_python(built: Sequence[Sequence[str]], python: str, platform: str) -> Tag:
    """Of stable modules in a package for one Python: as its WHEEL says, else that Python's."""
    said = [pair[0] for pair in built if pair[1] == "abi3"]
    own = f"cp{python.replace('.', '')}"
    return Tag(said[0] if len(said) == 1 else own, "abi3", platform)


def _prove_abi3(
    tag: Tag, modules: Sequence[Module], objects: Mapping[str, SharedObject], where: str
) -> None:
    python = (3, int(tag.python.removeprefix("cp3")))
    for module in modules:
        shared = objects.get(module.path)
        if shared is None:
            continue
        found = abi3.audit(shared)
        what = ""
        if found.strangers:
            what = f"uses {', '.join(found.strangers[:3])}, not in the stable ABI"
        elif found.libpython:
            what = f"needs {found.libpython[0]}, the library of one Python"
        elif found.python > python:
            newer = ", ".join(found.since(python)[:3])
            what = f"needs Python {found.python[0]}.{found.python[1]} ({newer})"
        if what:
            raise LabelMismatch(
                what,
                where=f"{where}: {module.path}",
                expected=f"the stable ABI of Python 3.{python[1]}, as {tag.python}-abi3 promises",
                fix="build it with Py_LIMITED_API of the oldest Python that it is for",
            )


def check_needed(
    platform: str,
    objects: Mapping[str, SharedObject],
    provided: Collection[str],
    left_out: Collection[str],
    arch: str,
    where: str,
) -> None:
    """Every library that a binary needs comes from somewhere.

    Args:
        platform: the tag that is asked for.
        objects: the binaries, by path in the package.
        provided: libraries in the wheel and those that its requirements bring.
        left_out: conda dependencies that became no requirement because they are no Python project.
        arch: the processor.
        where: the package, for messages.

    Raises:
        ArtifactError: a binary for another processor, or one that needs a library that nobody
            brings.
    """
    known = manylinux.policies(arch) if objects else ()
    newest = known[-1] if known else None
    for path, shared in objects.items():
        if shared.machine != _MACHINES.get(arch, shared.machine):
            raise ArtifactError(
                f"is a binary for {shared.machine}",
                where=f"{where}: {path}",
                expected=f"{_MACHINES[arch]}, as the package's subdir says",
            )
        missing = manylinux.strangers(newest, shared, provided)
        if not missing or (manylinux.is_plain(platform) and not left_out):
            continue
        packages = f" (perhaps one of {', '.join(sorted(left_out))})" if left_out else ""
        raise ArtifactError(
            f"needs {missing[0]}, which is not in the wheel, not on every Linux, and in nothing "
            "that the wheel requires",
            where=f"{where}: {path}",
            expected=f"a conda package that has it, to be folded in{packages}, or a requirement "
            "that brings it",
            fix="fold that package in ([[tool.conda-bridge.fold]]); or name the requirement "
            f'([tool.conda-bridge.provided-by] <name on PyPI> = ["{missing[0]}"]); or, to leave '
            f"it to the system, say so of each dependency (dependencies.<name> = {{ drop = "
            f'"<why>" }}) and take the platform tag linux_{arch}',
        )


def parse_built_as(text: str) -> list[str]:
    """The tags in a ``WHEEL`` file."""
    return [
        line.partition(":")[2].strip()
        for line in text.splitlines()
        if line.lower().startswith("tag:")
    ]
