"""This project's hooks, which ``[tool.conda-bridge]`` of pyproject.toml names.

What a flashinfer package has to be before it becomes a wheel is here, beyond what holds for
anybody's; what ``verify`` asks of it is in :mod:`.artifacts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from conda_bridge import scheme
from conda_bridge.bridge.dependencies import MatchSpec, pip_requirement, pip_specifier
from conda_bridge.bridge.metadata import specifiers
from conda_bridge.errors import ArtifactError, LabelMismatch
from conda_bridge.formats.conda_package import CondaPackage
from conda_bridge.formats.wheel import Metadata, requirement
from conda_bridge.hooks import Hooks
from conda_bridge.label import Label

from . import build_info, torch_abi
from .labels import label_of

if TYPE_CHECKING:
    from conda_bridge.verify.artifact import Artifact
    from conda_bridge.verify.findings import ArtifactReport

__all__ = ["HOOKS", "FlashinferHooks"]

_REBUILD = "build the package again, with python scripts/build.py"
_SITE = "site-packages/"
_PACKAGE = "site-packages/flashinfer/"
_MODULE = "site-packages/flashinfer/_C.abi3.so"
_TESTS = "etc/conda/test-files/"  # the recipe's own
_METADATA = "*.dist-info/METADATA"


class FlashinferHooks(Hooks):
    """The checks of flashinfer's own packages."""

    def looks_into(self) -> Sequence[str]:
        """What the build wrote down of itself."""
        return (build_info.PATH, _METADATA)

    def check_package(
        self, package: CondaPackage, label: scheme.Label, contents: Mapping[str, bytes]
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
        [source] = [text for path, text in contents.items() if path != build_info.PATH] or [None]
        where = f"{package.path.name}: .dist-info/METADATA"
        if source is None:
            raise ArtifactError("the file is missing", where=where, fix=_REBUILD)
        _check_metadata(Metadata.parse(source, where), package, where)

    def verify(self, artifact: Artifact, report: ArtifactReport) -> None:
        """Everything that the label promises: see :mod:`.artifacts`."""
        from . import artifacts  # the bridge and the index do without

        artifacts.verify(artifact, report)

    def verify_together(self, main: ArtifactReport, folds: Sequence[ArtifactReport]) -> None:
        """The binding's package against its libflashinfer."""
        from . import artifacts

        artifacts.verify_together(main, folds)


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


def _check_build_info(text: bytes, label: Label, where: str) -> None:
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
            expected=f"{label.variant.accelerator}, as the file name has it",
            fix=_REBUILD,
        )
    _check_cxx11_abi(found.get("CXX11_ABI"), label, where)


def _check_cxx11_abi(found: object, label: Label, where: str) -> None:
    if not isinstance(found, bool):
        raise ArtifactError(f"CXX11_ABI is {found!r}", where=where, expected="True or False")
    expected = torch_abi.pypi_has_new(label.variant.torch)
    if found == expected:
        return
    minor = "{}.{}".format(*label.variant.torch)
    fits = f"conda-forge's pytorch {minor}" if found else "PyPI's torch up to 2.6"
    fix = f"build {label.variant.id} against the torch {minor} of PyPI, and bridge that package"
    if not expected:
        fix += (
            "; or keep the conda package alone: python scripts/build.py --no-wheel; "
            "or bridge a variant of torch 2.7 or newer, where both have the new one"
        )
    raise LabelMismatch(
        f"the binding has the {torch_abi.names(found)} C++ string ABI (CXX11_ABI = {found}); it "
        f"fits {fits}",
        where=where,
        expected=f"the {torch_abi.names(expected)} C++ string ABI, which PyPI's torch {minor} has",
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
