"""This project's hooks, named in ``[tool.conda-bridge]``: what holds beyond anybody's rules.

What is checked of finished wheels and packages is in :mod:`.artifacts`; here is what a package has
to be before it becomes a wheel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from conda_bridge import label as labels
from conda_bridge.bridge.dependencies import MatchSpec, pip_requirement, pip_specifier
from conda_bridge.bridge.metadata import specifiers
from conda_bridge.errors import ArtifactError, LabelMismatch
from conda_bridge.formats.conda_package import CondaPackage
from conda_bridge.formats.wheel import Metadata, requirement
from conda_bridge.hooks import Condition, Diagnosis, Hooks

from ..artifact import LICENCES
from . import build_info, page, torch_abi
from .index_page import index_page
from .labels import label_of

if TYPE_CHECKING:
    from conda_bridge.formats.wheel_reader import Wheel
    from conda_bridge.verify.artifact import Artifact
    from conda_bridge.verify.findings import ArtifactReport

    from ..label import Label

__all__ = ["HOOKS", "FlashinferHooks"]

_REBUILD = "build the package again, with python scripts/build.py"
_SITE = "site-packages/"
_PACKAGE = "site-packages/flashinfer/"
_MODULE = "site-packages/flashinfer/_C.abi3.so"
_LIBRARY = "lib/libflashinfer.so"
_TESTS = "etc/conda/test-files/"  # the recipe's own
_METADATA = "*.dist-info/METADATA"
_LICENCES = f"*.dist-info/licenses/*{LICENCES}/*"


class FlashinferHooks(Hooks):
    """The checks of flashinfer's own packages and wheels."""

    fact_titles: Mapping[str, str] = MappingProxyType(
        {"cuda": "CUDA", "torch": "torch", "torch_abi": "C++ ABI"}
    )

    def looks_into(self) -> Sequence[str]:
        """What the build wrote down of itself."""
        return (build_info.PATH, _METADATA, _LICENCES)

    def check_package(
        self, package: CondaPackage, label: labels.Label, contents: Mapping[str, bytes]
    ) -> None:
        """Files, ``_build_info.py``, METADATA and the C++ ABI against the label.

        Raises:
            ArtifactError: one of them says something else.
            LabelMismatch: the other C++ ABI than PyPI's torch of that minor.
        """
        _check_files(package)
        ours = label_of(label)
        where = f"{package.path.name}: {_SITE}{build_info.PATH}"
        if build_info.PATH not in contents:
            raise ArtifactError("the file is missing", where=where, fix=_REBUILD)
        _check_build_info(contents[build_info.PATH], ours, where)
        source = next((text for path, text in contents.items() if path.endswith("/METADATA")), None)
        where = f"{package.path.name}: .dist-info/METADATA"
        if source is None:
            raise ArtifactError("the file is missing", where=where, fix=_REBUILD)
        _check_metadata(Metadata.parse(source, where), package, where)

    def check_folded(self, package: CondaPackage, label: labels.Label) -> None:
        """The library is in libflashinfer."""
        if _LIBRARY not in package.paths:
            raise ArtifactError(
                "the file is missing", where=f"{package.path.name}: {_LIBRARY}", fix=_REBUILD
            )

    def check_wheel(self, wheel: Wheel, label: labels.Label, contents: Mapping[str, bytes]) -> None:
        """``_build_info.py`` against the label, and the C++ ABI against conda-forge's torch.

        Raises:
            ArtifactError: it says something else.
            LabelMismatch: the binding has the other C++ ABI.
        """
        ours = label_of(label)
        where = f"{wheel.path.name}: {build_info.PATH}"
        if build_info.PATH not in contents:
            raise ArtifactError("the file is missing", where=where, fix=_REBUILD)
        said = _check_said(contents[build_info.PATH], ours, where)
        if said.get("CXX11_ABI") is not True:  # conda-forge's torch has the new one, all of them
            raise LabelMismatch(
                f"the binding has the old C++ string ABI (CXX11_ABI = {said.get('CXX11_ABI')!r})",
                where=where,
                expected="the new one, which conda-forge's pytorch has",
                fix=f"build {ours.variant.id} against the pytorch of conda-forge",
            )

    def conda_depends(self, label: labels.Label) -> Sequence[str]:
        """The torch of the label's kind: the wheel takes the one of its index."""
        variant = label_of(label).variant
        kind = "cuda" if variant.cuda else "cpu"
        return ["pytorch {}.{}.* *{}*".format(*variant.torch, kind)]

    def verify(self, artifact: Artifact, report: ArtifactReport) -> None:
        """Binaries, exports, RUNPATH, architectures; see :mod:`.artifacts`."""
        from . import artifacts  # only here: the bridge starts without what it imports

        artifacts.verify(artifact, report)

    def verify_together(self, main: ArtifactReport, folds: Sequence[ArtifactReport]) -> None:
        """One build of the binding and the library."""
        from . import artifacts

        artifacts.verify_together(main, folds)

    def diagnosis(self) -> Diagnosis:
        """The doctor."""
        return page.DIAGNOSIS

    def conditions(
        self, label: labels.Label, gpu_code: Sequence[str], glibc: str
    ) -> Sequence[Condition]:
        """What the doctor would ask of the machine for this build."""
        return page.conditions(label_of(label), gpu_code, glibc)

    def index_page(
        self, folders: Mapping[str, Sequence[labels.Label]], scheme: labels.Scheme
    ) -> str:
        """Which address for which CUDA and torch."""
        return index_page(folders)


HOOKS = FlashinferHooks()


def _check_files(package: CondaPackage) -> None:
    if package.index.get("noarch") != "python":
        raise ArtifactError(
            f"noarch is {package.index.get('noarch')!r}",
            where=f"{package.path.name}: info/index.json",
            expected="'python': one package for every Python (CEP 20)",
        )
    if package.entry_points:
        raise ArtifactError(
            "the package has entry points, and flashinfer has none",
            where=f"{package.path.name}: info/link.json",
            fix=_REBUILD,
        )
    for path in package.paths:
        folder = path.removeprefix(_SITE).partition("/")[0]
        own = path.startswith(_SITE) and folder.startswith("flashinfer-")
        if not (path.startswith((_PACKAGE, _TESTS)) or (own and folder.endswith(".dist-info"))):
            raise ArtifactError(
                "is no file of flashinfer",
                where=f"{package.path.name}: {path}",
                expected=f"files below {_PACKAGE}",
                fix=_REBUILD,
            )
    if _MODULE not in package.paths:
        raise ArtifactError(
            f"no extension module: {_MODULE} is missing", where=package.path.name, fix=_REBUILD
        )


def _check_said(text: bytes, label: Label, where: str) -> Mapping[str, object]:
    """What ``_build_info.py`` says, which is what the label says."""
    found = build_info.read(text, where, _REBUILD)
    for key, value, expected in build_info.differences(found, build_info.expected(label)):
        raise ArtifactError(
            f"{key} is {value!r}",
            where=where,
            expected=f"{expected!r}, as the file name has it",
            fix=_REBUILD,
        )
    cuda = str(found.get("CUDA", ""))
    release = "{}.{}".format(*label.variant.cuda) if label.variant.cuda else ""
    if build_info.release(cuda) != release:
        raise ArtifactError(
            f"CUDA is {cuda!r}",
            where=where,
            expected=f"{label.variant.cuda_tag}, as the file name has it",
            fix=_REBUILD,
        )
    return found


def _check_build_info(text: bytes, label: Label, where: str) -> None:
    found = _check_said(text, label, where)
    _check_cxx11_abi(found.get("CXX11_ABI"), label, where)


def _check_cxx11_abi(found: object, label: Label, where: str) -> None:
    if not isinstance(found, bool):
        raise ArtifactError(f"CXX11_ABI is {found!r}", where=where, expected="True or False")
    expected = torch_abi.pypi_has_new(label.variant.torch)
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


def _check_metadata(source: Metadata, package: CondaPackage, where: str) -> None:
    """The build's own METADATA and the recipe were written from one list."""
    depends = f"{package.path.name}: info/index.json: depends"
    specs = [MatchSpec.parse(text, depends) for text in package.index.get("depends", [])]
    pythons = [pip_specifier(spec.version, depends) for spec in specs if spec.name == "python"]
    others = (
        pip_requirement(spec, depends)
        for spec in specs
        if spec.name not in ("python", "libflashinfer")
    )
    pairs: tuple[tuple[str, object, object], ...] = (
        ("Name", source.name, "flashinfer"),
        ("Requires-Python", specifiers(source.requires_python), specifiers(",".join(pythons))),
        (
            "Requires-Dist",
            sorted(map(requirement, source.requires_dist)),
            sorted({requirement(text) for text in others if text is not None}),
        ),
    )
    for key, found, expected in pairs:
        if found != expected:
            raise ArtifactError(
                f"{key} is {found!r}",
                where=where,
                expected=f"{expected!r}, as the conda package has it",
                fix=_REBUILD,
            )
