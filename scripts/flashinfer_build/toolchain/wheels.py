"""Wheels as conda packages, under conda-forge's names.

They link to the unpacked wheels and not to copies: docs/toolchain.md has the measurements.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from email.message import Message
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from conda_bridge.errors import ArtifactError
from conda_bridge.formats import foreign
from conda_bridge.formats.conda_writer import PackageFile
from conda_bridge.formats.headers import read_headers

from .lock import LockedWheel
from .origin_record import of_wheel, with_record
from .packages import PackageSpec, link_out
from .unpacked import SITE, files_of

__all__ = ["conda_name", "linked_torch_package", "python_wheel_package"]

_CONDA_NAMES = {"torch": "pytorch", "typing-extensions": "typing_extensions"}
# conda-forge's package is the program alone, without the Python module that wraps it.
_PROGRAMS = {"ninja"}
# Requirements of a CUDA torch that are not packages of their own here: they lie beside it.
_BESIDE_TORCH = re.compile(r"^(nvidia-.*|cuda-.*|triton)$")
_MINOR = "{}.{}".format(*sys.version_info[:2])
_SITE_PACKAGES = f"lib/python{_MINOR}/site-packages"


def conda_name(project: str) -> str:
    """conda-forge's name for a project of the Python index."""
    name = canonicalize_name(project)
    return _CONDA_NAMES.get(name, str(name))


def _dist_info(tree: Path) -> Path:
    found = sorted((tree / SITE).glob("*.dist-info"))
    if len(found) != 1:
        raise ArtifactError(f"{len(found)} .dist-info folders", where=str(tree), expected="one")
    return found[0]


def _metadata(tree: Path) -> Message:
    file = _dist_info(tree) / "METADATA"
    return read_headers(file.read_bytes(), str(file))


def _depends(metadata: Message) -> list[str]:
    """``Requires-Dist`` as match specs, for this Python and without extras."""
    specs = []
    for text in metadata.get_all("Requires-Dist", []):
        try:
            requirement = foreign.requirement(str(text))
            if requirement.marker and not foreign.evaluate(requirement.marker, {"extra": ""}):
                continue
        except foreign.Unreadable as error:
            raise ArtifactError(f"{text!r:.200}: {error}", where="Requires-Dist") from error
        if _BESIDE_TORCH.match(canonicalize_name(requirement.name)):
            continue
        versions = ",".join(sorted(str(pin) for pin in requirement.specifier))
        specs.append(f"{conda_name(requirement.name)} {versions}".strip())
    return specs


def _entry_points(tree: Path) -> list[str]:
    """``console_scripts`` in the form of conda's ``link.json``."""
    path = _dist_info(tree) / "entry_points.txt"
    if not path.is_file():
        return []
    try:
        groups = foreign.entry_points(path.read_bytes())
    except foreign.Unreadable as error:
        raise ArtifactError(f"cannot be read: {error}", where=str(path)) from error
    return [f"{name} = {target}" for name, target in groups.get("console_scripts", {}).items()]


def _links(tree: Path, site_packages: str) -> Iterable[PackageFile]:
    """One link for each entry of the tree's site-packages, whole packages at once."""
    for path in sorted((tree / SITE).iterdir()):
        if path.name != "__pycache__":
            yield link_out(f"{site_packages}/{path.name}", path)


def _programs(tree: Path, folder: str) -> Iterable[PackageFile]:
    """The wheel's own programs, as files: a link would find another interpreter."""
    if (tree / "bin").is_dir():
        for path in files_of(tree / "bin"):
            yield PackageFile(f"{folder}/{path.relative_to(tree / 'bin')}", path, 0o755, None)


def python_wheel_package(wheel: LockedWheel, tree: Path) -> PackageSpec:
    """The package of an unpacked wheel: ``noarch: python`` where it holds no machine code.

    Its modules are links to `tree`, so nothing is packed or unpacked again, and what Python
    compiles on the first import serves every environment.
    """
    metadata = _metadata(tree)
    name = conda_name(wheel.name)
    version = Version(wheel.version).public
    identity = [wheel.sha256, str(tree)]
    if wheel.filename.endswith("-none-any.whl"):
        link = {
            "noarch": {"type": "python", "entry_points": _entry_points(tree)},
            "package_metadata_version": 1,
        }
        return PackageSpec(
            name,
            version,
            identity=identity,
            files=lambda: [*_links(tree, "site-packages"), *_programs(tree, "python-scripts")],
            depends=("python", *_depends(metadata)),
            noarch="python",
            flavour="py",
            info_files={"info/link.json": json.dumps(link, indent=1).encode()},
        )
    if name in _PROGRAMS:
        return PackageSpec(
            name, version, identity=[wheel.sha256], files=lambda: _programs(tree, "bin")
        )
    return PackageSpec(
        name,
        version,
        identity=identity,
        files=lambda: [*_links(tree, _SITE_PACKAGES), *_programs(tree, "bin")],
        depends=(f"python {_MINOR}.*", *_depends(metadata)),
        flavour="py" + _MINOR.replace(".", ""),
    )


def linked_torch_package(
    wheel: LockedWheel,
    tree: Path,
    libraries: Sequence[LockedWheel],
    cuda: tuple[int, int] | None,
) -> PackageSpec:
    """Torch as links to the unpacked wheel, whatever lies beside it in `tree` included.

    Links and not files: docs/toolchain.md has the measurements.

    Args:
        wheel: torch's.
        tree: it, unpacked.
        libraries: that lie beside it in `tree`.
        cuda: of the variant that is built and tried with it. Where torch itself is of the other
            kind, its build string says both: ``cpu_for_cuda130``. flashinfer's packages ask for
            the kind of torch that they serve, and this one has to do for it on this machine.
    """
    site = tree / SITE
    file = next(site.glob("torch-*.dist-info")) / "METADATA"
    metadata = read_headers(file.read_bytes(), str(file))
    flavour = "cpu" if wheel.version.endswith("+cpu") else "cuda"
    if flavour == "cpu" and cuda:
        flavour = "cpu_for_cuda{}{}".format(*cuda)
    elif flavour == "cuda" and not cuda:
        flavour = "cuda_for_cpu"
    return PackageSpec(
        "pytorch",
        Version(wheel.version).public,
        identity=[str(tree), wheel.sha256, *(library.sha256 for library in libraries)],
        files=lambda: _links(tree, _SITE_PACKAGES),
        depends=(f"python {_MINOR}.*", "numpy", *_depends(metadata)),
        info_files=with_record([(of_wheel(wheel, tree), None)]),
        flavour=f"{flavour}_py{_MINOR.replace('.', '')}",
    )
