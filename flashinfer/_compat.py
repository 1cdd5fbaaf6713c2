"""Refuses to load the binding into a torch it was not built for, and says what to install.

A binding loaded into another torch minor or C++ ABI fails with an undefined symbol, or later. So
this compares the build's facts (``flashinfer._build_info``, written by the build) with the torch
that is there, before ``flashinfer._C`` is loaded.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import NamedTuple

__all__ = [
    "Build",
    "Found",
    "check",
    "check_library",
    "explain",
    "inspect_torch",
    "not_built",
    "read_build",
]

# Where wheels and conda packages are published. Empty: not configured, shown as <index>, <channel>.
INDEX_URL = ""
CONDA_CHANNEL = ""


class Build(NamedTuple):
    """What the installed package was built for.

    Attributes:
        variant: variant id, such as ``cu130_torch213``.
        version: full wheel version with the local part, such as ``0.1.6+cu130torch2.13``.
        public_version: the same without the local part.
        conda_version: the public version as conda spells it, ``0.1.6.rc1`` for ``0.1.6rc1``.
        torch: torch minor, such as ``2.13``.
        cuda: CUDA version of the compiler, such as ``13.0.88``; empty for the CPU build.
        cxx11_abi: whether torch used the new ABI of C++ strings.
    """

    variant: str
    version: str
    public_version: str
    conda_version: str
    torch: str
    cuda: str
    cxx11_abi: bool


class Found(NamedTuple):
    """The torch in this environment: version as it reports it, its CUDA ("" for none), its ABI."""

    version: str
    cuda: str
    cxx11_abi: bool

    @property
    def minor(self) -> str:
        return ".".join(self.version.split("+")[0].split(".")[:2])


def read_build(info: ModuleType) -> Build:
    """The facts in the generated module ``flashinfer._build_info``."""
    return Build(
        variant=info.VARIANT,
        version=info.VERSION,
        public_version=info.PUBLIC_VERSION,
        conda_version=info.CONDA_VERSION,
        torch=info.TORCH,
        cuda=info.CUDA,
        cxx11_abi=info.CXX11_ABI,
    )


def inspect_torch(torch: ModuleType) -> Found:
    """The facts of an imported torch."""
    return Found(
        version=str(torch.__version__),
        cuda=str(torch.version.cuda or ""),
        cxx11_abi=bool(torch.compiled_with_cxx11_abi()),
    )


def _cuda_tag(cuda: str) -> str:
    """``13.0`` or ``13.0.88`` -> ``cu130``; nothing -> ``cpu``."""
    return "cu" + "".join(cuda.split(".")[:2]) if cuda else "cpu"


def _commands(build: Build, cuda_tag: str, torch_minor: str) -> str:
    """The pip and the conda command that install the variant (cuda_tag, torch_minor)."""
    index = os.environ.get("FLASHINFER_INDEX_URL") or INDEX_URL or "<index>"
    channel = os.environ.get("FLASHINFER_CONDA_CHANNEL") or CONDA_CHANNEL or "<channel>"
    # pip keeps 0.1.6+cu130torch2.13 when asked for 0.1.6, so the command names the local version;
    # a nightly's has the commit after the label (cu130torch2.13.g1a2b3c4), and keeps it.
    local = build.version.partition("+")[2]
    commit = "".join("." + part for part in local.split(".") if part.startswith("g"))
    wheel = f"{build.public_version}+{cuda_tag}torch{torch_minor}{commit}"
    conda_commit = commit.replace(".", "_")
    build_string = f"{cuda_tag}_torch{torch_minor.replace('.', '')}{conda_commit}_*"
    # Torch, and all else that the package depends on, is in conda-forge.
    channels = " ".join(f"-c {name}" for name in dict.fromkeys((channel, "conda-forge")))
    return (
        f'  pip install "flashinfer=={wheel}" "torch=={torch_minor}.*"'
        f" --extra-index-url {index.rstrip('/')}/{cuda_tag}/torch{torch_minor}/\n"
        f"  conda install {channels}"
        f' "flashinfer={build.conda_version}={build_string}" "pytorch={torch_minor}"'
    )


def explain(build: Build, found: Found | None) -> str:
    """Why this build cannot run with this torch, and the commands that fix it; "" if it can.

    A CPU torch is fine for every build, and a CPU build for every torch: only the torch minor and
    the C++ ABI are linked against. A CUDA torch of another CUDA major is not fine for a CUDA build:
    it comes with another driver requirement, and CUDA promises compatibility within a major only.
    """
    installed = f"flashinfer {build.version} (variant {build.variant}) was built for"
    abi = {True: "new", False: "old"}
    if found is None:
        return (
            f"{installed} torch {build.torch}, and there is no torch in this environment.\n"
            f"Install both:\n{_commands(build, _cuda_tag(build.cuda), build.torch)}"
        )
    have = f"torch {found.version}" + (f" with CUDA {found.cuda}" if found.cuda else "")
    # The variant that fits the torch that is there: the CUDA of that torch, if it has one.
    commands = _commands(build, _cuda_tag(found.cuda), found.minor)
    if found.minor != build.torch:
        return (
            f"{installed} torch {build.torch}, and this is {have}.\n"
            f"Install the variant for torch {found.minor}:\n{commands}"
        )
    if found.cxx11_abi != build.cxx11_abi:
        return (
            f"{installed} a torch with the {abi[build.cxx11_abi]} ABI of C++ strings"
            f" (_GLIBCXX_USE_CXX11_ABI={int(build.cxx11_abi)}), and this {have} has the"
            f" {abi[found.cxx11_abi]} one. PyPI's torch up to 2.6 has the old ABI, conda-forge's"
            f" the new one.\nInstall torch and flashinfer from the same side, with pip or with"
            f" conda:\n{commands.replace('pip install', 'pip install --force-reinstall')}"
        )
    if build.cuda and found.cuda and build.cuda.split(".")[0] != found.cuda.split(".")[0]:
        return (
            f"{installed} CUDA {build.cuda}, and this is {have}: another major version.\n"
            f"Install the variant for CUDA {found.cuda}:\n{commands}"
        )
    return ""


def not_built(package: str) -> str:
    """What to say of a source tree; the command is the same from any folder.

    Args:
        package: ``__file__`` of the package.
    """
    import shlex  # only here: an import that succeeds does without
    from pathlib import Path

    folder = Path(package).absolute().parents[1]
    return (
        "flashinfer is not built here: this is its source tree.\n"
        "Build and install it, in an environment that has torch:\n"
        f"  pip install {shlex.quote(str(folder))}\n"
        "and start Python in another folder."
    )


def check(build: Build) -> None:
    """Imports torch and compares it with the build.

    Raises:
        ImportError: there is no torch, or one that this build does not fit.
    """
    found: Found | None = None
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise  # torch is there, and one of its own requirements is not
    else:
        found = inspect_torch(torch)
    text = explain(build, found)
    if text:
        raise ImportError(text, name="flashinfer")


def _parse(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def check_library(build: Build, binding_text: str, library_text: str) -> None:
    """Compares the loaded binding and libflashinfer with each other and with the build's facts.

    Args:
        build: what ``_build_info.py`` says.
        binding_text: "key=value" lines compiled into ``_C.abi3.so``.
        library_text: the same of the ``libflashinfer.so`` that was loaded with it.

    Raises:
        ImportError: they are not of one build.
    """
    binding, library = _parse(binding_text), _parse(library_text)
    cuda_tag = "cpu" if library["cuda"] == "none" else _cuda_tag(library["cuda"])
    for what, found, expected in (
        ("version of libflashinfer.so", library["version"], binding["version"]),
        ("CUDA of libflashinfer.so", cuda_tag, _cuda_tag(build.cuda)),
        ("variant of _C.abi3.so", binding["variant"], build.variant),
        ("torch of _C.abi3.so", binding["torch"], build.torch),
        ("C++ ABI of _C.abi3.so", binding["cxx11_abi"], str(int(build.cxx11_abi))),
    ):
        if found != expected:
            commands = _commands(build, _cuda_tag(build.cuda), build.torch)
            raise ImportError(
                f"flashinfer {build.version}: the {what} is {found}, expected {expected}. Files of"
                " two installations are mixed, or another libflashinfer.so was found first"
                f" (LD_LIBRARY_PATH?).\nInstall it again:\n{commands}",
                name="flashinfer",
            )
