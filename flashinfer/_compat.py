"""Refuses to load the binding into a torch it was not built for, and says what to install.

A binding loaded into another torch minor or C++ ABI fails with an undefined symbol, or later. So
this compares the build's facts (``flashinfer._build_info``, written by the build) with the torch
that is there, before ``flashinfer._C`` is loaded. ``python -m flashinfer.env`` says the same things
of the same checks, beside what else it finds.
"""

from __future__ import annotations

import os
import re
import sys
from types import ModuleType
from typing import Any, NamedTuple

__all__ = [
    "Build",
    "Commands",
    "Finding",
    "Found",
    "check",
    "check_library",
    "commands",
    "cuda_tag",
    "damaged",
    "explain",
    "inspect_torch",
    "is_doctor",
    "mapped",
    "mixed",
    "not_built",
    "not_loaded",
    "not_whole",
    "read_build",
    "release",
    "shared",
    "shown",
    "unfit",
]

# Where wheels and conda packages are published. Empty: not configured, shown as <index>, <channel>.
INDEX_URL = ""
CONDA_CHANNEL = ""


class Build(NamedTuple):
    """What the installed package was built for.

    Attributes:
        variant: variant id, such as ``cu130_torch213``.
        version: full wheel version with the local part, such as ``0.1.6+cu130torch2.13``.
        torch: torch minor, such as ``2.13``.
        cuda: CUDA version of the compiler, such as ``13.0.88``; empty for the CPU build.
        cxx11_abi: whether torch used the new ABI of C++ strings.
        archs: GPU architectures, such as ``8.0+PTX;9.0a``; empty for the CPU build.
        wheel: how pip is asked for this build of any variant: ``{cuda}`` and ``{torch}`` stand for
            its CUDA and its torch. The version and a nightly's commit are this build's own.
        conda: how conda is asked; ``{torch:flat}`` stands for the torch without its dot.
        conda_library: the same of the package that libflashinfer.so is in.
        index_dir: the folder of the wheel index.
    """

    variant: str
    version: str
    torch: str
    cuda: str
    cxx11_abi: bool
    archs: str
    wheel: str
    conda: str
    conda_library: str
    index_dir: str


class Found(NamedTuple):
    """The torch in this environment: version as it reports it, its CUDA ("" for none), its ABI."""

    version: str
    cuda: str
    cxx11_abi: bool

    @property
    def minor(self) -> str:
        """``2.13``; empty where the version is none."""
        return release(self.version)


class Commands(NamedTuple):
    """What installs one variant, with either; empty where one of them cannot be told."""

    pip: str
    conda: str


class Finding(NamedTuple):
    """Something that does not fit.

    Attributes:
        code: for machines, such as ``torch-minor``.
        problem: what does not fit, in sentences.
        advice: what to do; ends in a colon where commands follow.
        commands: that do it.
    """

    code: str
    problem: str
    advice: str = ""
    commands: Commands = Commands("", "")

    def __str__(self) -> str:
        lines = [self.problem, self.advice, *(f"  {line}" for line in self.commands if line)]
        return "\n".join(line for line in lines if line.strip())


def unfit(finding: Finding) -> ImportError:
    """What ``import flashinfer`` raises: a finding, and where more is to be seen."""
    text = f"{finding}\nTo see what was found here, and what fits:\n  {_doctor_command()}"
    error = ImportError(text, name="flashinfer")
    vars(error)["finding"] = finding  # for the doctor, which shows it in its own way
    return error


def not_built() -> Finding:
    """The package is its source tree; the command is the same from any folder."""
    import shlex  # only here: an import that succeeds does without
    from pathlib import Path

    folder = shlex.quote(str(Path(__file__).absolute().parents[1]))
    return Finding(
        "not-built",
        "flashinfer is not built here: this is its source tree.",
        "Build and install it, in an environment that has torch:\n"
        f"  pip install {folder}\n"
        "and start Python in another folder.",
    )


def is_doctor() -> bool:
    """Whether this process is ``python -m flashinfer.env``, which is to run whatever is broken."""
    arguments = getattr(sys, "argv", [])  # which an embedded Python may lack
    if arguments[:1] != ["-m"]:  # of any `python -m`, until its module is found
        return False
    command = getattr(sys, "orig_argv", None)
    if command is None:  # before Python 3.10
        try:
            with open("/proc/self/cmdline", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                command = file.read().split("\0")[:-1]
        except OSError:
            return False
    module = command[-len(arguments)] if len(command) > len(arguments) else ""
    return re.fullmatch(r"(?:-[A-Za-z]*m)?flashinfer\.env", module) is not None


def _doctor_command() -> str:
    """``python -m flashinfer.env``, by the Python that runs now."""
    import shlex
    import shutil

    python = sys.executable
    if not python or python == shutil.which("python"):
        python = "python"
    return f"{shlex.quote(python)} -m flashinfer.env"


def read_build(info: Any) -> Build:
    """The facts in the generated module ``flashinfer._build_info``.

    Raises:
        ImportError: it lacks one, so it is of another version than this module.
    """
    try:
        return Build(
            variant=info.VARIANT,
            version=info.VERSION,
            torch=info.TORCH,
            cuda=info.CUDA,
            cxx11_abi=info.CXX11_ABI,
            archs=info.ARCH_LIST,
            wheel=info.WHEEL,
            conda=info.CONDA,
            conda_library=info.CONDA_LIBRARY,
            index_dir=info.INDEX_DIR,
        )
    except AttributeError as error:
        raise unfit(damaged(error)) from error


def damaged(why: object) -> Finding:
    """``_build_info.py`` cannot be used, so what there is to be installed is not known."""
    return Finding(
        "files-mixed",
        f"The files of flashinfer are not of one version, or damaged: {shown(why)}.",
        f"{_remove()} install it again.",
    )


def inspect_torch(torch: ModuleType) -> Found:
    """The facts of an imported torch."""
    return Found(
        version=str(torch.__version__),
        cuda=str(torch.version.cuda or ""),
        cxx11_abi=bool(torch.compiled_with_cxx11_abi()),
    )


def shown(text: object, most: int = 500) -> str:
    """Text from elsewhere on one line, without what a terminal would take for a command."""
    line = " ".join(str(text).split())
    if len(line) > most:
        line = f"{line[:most]} ..."
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in line
    )


def release(version: str) -> str:
    """``13.0`` of ``13.0.88``, ``2.13`` of ``2.13.0+cu130``; empty where it does not begin so."""
    found = re.match(r"\d+\.\d+", version, re.ASCII)
    return found[0] if found else ""


def cuda_tag(cuda: str) -> str:
    """``13.0`` or ``13.0.88`` -> ``cu130``; nothing -> ``cpu``."""
    return "cu" + release(cuda).replace(".", "") if release(cuda) else "cpu"


def _place(variable: str, built_in: str, stand_in: str) -> str:
    """Where packages are; without a name and a password, as it is printed and pasted."""
    place = os.environ.get(variable) or built_in or stand_in
    return re.sub(r"(?<=://)[^/@]*@", "****@", shown(place))


def commands(build: Build, cuda: str, torch: str, *, again: str = "") -> Commands:
    """The pip and the conda command that install this build for another CUDA and torch.

    Each names the variant in full. pip keeps 0.1.6+cu130torch2.13 when asked for 0.1.6, and takes
    the highest version of any index that it is given; a local version is on no index but ours.

    Args:
        build: the one that is installed.
        cuda: such as ``cu130`` or ``cpu``.
        torch: minor, such as ``2.13``.
        again: ``flashinfer`` to install its files a second time, ``all`` for torch's as well.
    """
    index = _place("FLASHINFER_INDEX_URL", INDEX_URL, "<index>")
    channel = _place("FLASHINFER_CONDA_CHANNEL", CONDA_CHANNEL, "<channel>")

    def spelled(template: str) -> str:
        flat = template.replace("{torch:flat}", torch.replace(".", ""))
        return flat.replace("{torch}", torch).replace("{cuda}", cuda)

    pip, conda = ["pip install"], ["conda install"]
    if again:
        pip.append("--force-reinstall" if again == "all" else "--force-reinstall --no-deps")
        conda.append("--force-reinstall")
    pip.append(f'"{spelled(build.wheel)}"')
    # Torch, and all else that the package depends on, is in conda-forge.
    conda += [f"-c {name}" for name in dict.fromkeys((channel, "conda-forge"))]
    conda.append(f'"{spelled(build.conda)}"')
    if again == "flashinfer":
        conda.append(f'"{spelled(build.conda_library)}"')
    else:
        pip.append(f'"torch=={torch}.*"')
        conda.append(f'"pytorch={torch}"')
    pip.append(f"--extra-index-url {index.rstrip('/')}/{spelled(build.index_dir)}/")
    return Commands(" ".join(pip), " ".join(conda))


def explain(build: Build, found: Found | None) -> Finding | None:
    """Why this build cannot run with this torch, and the commands that mend it; None if it can.

    A CPU torch is fine for every build, and a CPU build for every torch: only the torch minor and
    the C++ ABI are linked against. A CUDA torch of another CUDA major is not fine for a CUDA build:
    it comes with another driver requirement, and CUDA promises compatibility within a major only.
    """
    installed = f"flashinfer {build.version} (variant {build.variant}) was built for"
    own = commands(build, cuda_tag(build.cuda), build.torch)
    abi = {True: "new", False: "old"}
    if found is None:
        return Finding(
            "torch-missing",
            f"{installed} torch {build.torch}, and there is no torch in this environment.",
            "Install both:",
            own,
        )
    have = f"torch {shown(found.version)}"
    if found.cuda:
        have += f" with CUDA {shown(found.cuda)}"
    if not found.minor:
        return Finding(
            "torch-version",
            f"{installed} torch {build.torch}, and this is {have}, which is no version of torch.",
            "Install both:",
            own,
        )
    # The variant that fits the torch that is there: the CUDA of that torch, if it has one.
    fitting = commands(build, cuda_tag(found.cuda), found.minor)
    if found.minor != build.torch:
        return Finding(
            "torch-minor",
            f"{installed} torch {build.torch}, and this is {have}.",
            f"Install the variant for torch {found.minor}:",
            fitting,
        )
    if found.cxx11_abi != build.cxx11_abi:
        return Finding(
            "torch-abi",
            f"{installed} a torch with the {abi[build.cxx11_abi]} ABI of C++ strings"
            f" (_GLIBCXX_USE_CXX11_ABI={int(build.cxx11_abi)}), and this {have} has the"
            f" {abi[found.cxx11_abi]} one. PyPI's torch up to 2.6 has the old ABI, conda-forge's"
            " the new one.",
            "Install torch and flashinfer from the same side, with pip or with conda:",
            commands(build, cuda_tag(found.cuda), found.minor, again="all"),
        )
    if build.cuda and found.cuda and build.cuda.split(".")[0] != found.cuda.split(".")[0]:
        return Finding(
            "torch-cuda",
            f"{installed} CUDA {build.cuda}, and this is {have}: another major version.",
            f"Install the variant for CUDA {shown(found.cuda)}:",
            fitting,
        )
    return None


def not_whole(build: Build, place: object, why: object) -> Finding:
    """What is called torch, and cannot be imported or is none."""
    return Finding(
        "torch-broken",
        f"What `import torch` finds here ({shown(place)}) is broken, or no torch at all:"
        f" {shown(why)}",
        "If there is a folder or file of this name where Python was started, start it elsewhere."
        " Otherwise install both again:",
        commands(build, cuda_tag(build.cuda), build.torch, again="all"),
    )


def check(build: Build) -> None:
    """Imports torch and compares it with the build.

    A torch that is there and fails to be imported raises its own error.

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
        try:
            found = inspect_torch(torch)
        except AttributeError as error:  # a folder of that name is a module too
            raise unfit(not_whole(build, _place_of(torch), error)) from error
    finding = explain(build, found)
    if finding:
        raise unfit(finding)


def _place_of(module: Any) -> str:
    """The file or folder that a module was imported from."""
    return getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "?")


def not_loaded(build: Build, words: str) -> Finding:
    """The compiled part of the package, which could not be loaded, for a reason in these words."""
    import sysconfig

    problem = f"The compiled part of flashinfer {build.version} cannot be loaded: {shown(words)}."
    old = re.search(r"version [`'](GLIBC(?:XX)?_[0-9.]+)' not found", words)
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return Finding(
            "python-free-threaded",
            f"{problem} This is a free-threaded Python, which loads no extension for the stable"
            " ABI.",
            "Use a Python with the GIL.",
        )
    if old:
        return Finding(
            "glibc",
            f"{problem} It needs {old[1]}, and the C or C++ library here is older.",
            "Use a newer system, or build flashinfer on this one, from its sources:\n"
            "  pip install --no-build-isolation .",
        )
    return Finding(
        "not-loaded",
        problem,
        "Install it again:",
        commands(build, cuda_tag(build.cuda), build.torch, again="flashinfer"),
    )


def _remove() -> str:
    """What is to be done before a package is installed over files of another one.

    No installer removes what it has not installed: not pip the files of conda, not conda those of
    a wheel, such as a library that the binding finds before its own.
    """
    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    return f"Remove the folder {folder} and every flashinfer-*.dist-info beside it. Then"


def mapped(name: str) -> str:
    """The file of this name that is loaded into this process; empty where none is."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:  # noqa: PTH123
            for line in maps:
                if line.rstrip("\n").endswith(f"/{name}"):
                    return line.split(None, 5)[5].rstrip("\n")
    except OSError:  # no Linux, or one that does not say
        pass
    return ""


def _compiled_version(version: str) -> str:
    """What both libraries of a wheel's version are told: ``1.0.0+g1a2b3c4`` for a nightly."""
    public, _, local = version.partition("+")
    commit = re.search(r"\.(g[0-9a-f]+)$", local)
    return f"{public}+{commit[1]}" if commit else public


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
    tag = "cpu" if library["cuda"] == "none" else cuda_tag(library["cuda"])
    for what, found, expected in (
        ("version of _C.abi3.so", binding["version"], _compiled_version(build.version)),
        ("version of libflashinfer.so", library["version"], binding["version"]),
        ("CUDA of libflashinfer.so", tag, cuda_tag(build.cuda)),
        ("variant of _C.abi3.so", binding["variant"], build.variant),
        ("torch of _C.abi3.so", binding["torch"], build.torch),
        ("C++ ABI of _C.abi3.so", binding["cxx11_abi"], str(int(build.cxx11_abi))),
    ):
        if found != expected:
            words = f"the {what} is {shown(found)}, expected {expected}"
            raise unfit(mixed(build, words, mapped("libflashinfer.so")))


def mixed(build: Build, what: str, library: str = "") -> Finding:
    """Files of the package that are not of one build.

    Args:
        build: what ``_build_info.py`` says.
        what: does not fit.
        library: the ``libflashinfer.so`` that is loaded; empty where it has no part in it.
    """
    problem = f"flashinfer {build.version}: {what}"
    if library:
        problem += f" (loaded: {shown(library)})"
        folder = os.path.dirname(library)  # noqa: PTH120
        places = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        if folder in [os.path.realpath(place) for place in places if place]:
            return Finding(
                "files-mixed",
                f"{problem}. LD_LIBRARY_PATH has it found before the one of this build.",
                f"Take {shown(folder)} out of LD_LIBRARY_PATH.",
            )
    return Finding(
        "files-mixed",
        f"{problem}. Files of two installations are mixed.",
        f"{_remove()} install it again:",
        commands(build, cuda_tag(build.cuda), build.torch, again="flashinfer"),
    )


def shared(build: Build, other: str, remove: str) -> Finding:
    """Another package with files in the same folder: whichever goes takes files of both.

    Args:
        build: what ``_build_info.py`` says.
        other: the other's name and version.
        remove: the command that removes it.
    """
    return Finding(
        "files-mixed",
        f"{shown(other)} has put files into the folder of flashinfer {build.version}. Whichever of"
        " the two is upgraded or removed takes files of the other with it.",
        f"Remove the other: `{shown(remove)}`. {_remove()} install this one again:",
        commands(build, cuda_tag(build.cuda), build.torch, again="flashinfer"),
    )
