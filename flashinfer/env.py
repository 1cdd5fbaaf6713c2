"""The doctor: which flashinfer is installed here, what it finds, whether it fits, what mends it.

    python -m flashinfer.env
    python -m flashinfer.env --json

It needs Python's standard library alone, and runs where ``import flashinfer`` fails: the package
hands over to it before it imports anything. What may crash or hang, torch and the driver, is looked
at by other processes. Nothing is changed, and no network is asked.

Exit status: 0 all fits, 1 something does not, 2 unusable arguments.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any, Iterator, NamedTuple, Sequence

from flashinfer import _compat, _gpu_code
from flashinfer._compat import Build, Commands, Finding, Found, shown

__all__ = ["Driver", "Gpu", "Report", "look", "main"]

_PACKAGE = Path(__file__).resolve().parent
_WIDTH = 80
_WITH_VALUE = ("-c", "-m", "-p", "--extra-index-url", "--python")  # of pip, uv, conda, Python
_SECONDS = 300  # for an import of torch from a slow disk; then it is taken to hang


class Gpu(NamedTuple):
    """A GPU, and the code that the library has for it.

    Attributes:
        ordinal: the driver's number of it.
        name: the driver's.
        capability: its compute capability, such as ``9.0``.
        memory: bytes.
        code: ``native``, ``PTX``, ``none``, or ``unknown`` where there is no build to compare with.
        arch: the architecture of the build that it runs, such as ``9.0a``; may be empty.
    """

    ordinal: int
    name: str
    capability: str
    memory: int
    code: str
    arch: str


class Driver(NamedTuple):
    """The NVIDIA driver.

    Attributes:
        present: whether there is one.
        path: of its library.
        version: of the kernel's module, such as ``580.65.06``; may be empty.
        cuda: the newest CUDA that it is for, such as ``13.0``; empty if it does not say.
        error: why it could not be asked; empty where it could.
    """

    present: bool
    path: str
    version: str
    cuda: str
    error: str


class Report(NamedTuple):
    """All that was found.

    Attributes:
        package: the folder of the package.
        build: what it was built for; None in a source tree.
        commit: of a nightly; empty for a release.
        build_number: of the build.
        installer: that installed it, as it says itself: ``pip``, ``uv``, ``conda``; may be empty.
        library: the ``libflashinfer.so`` that is loaded; empty if it cannot be.
        python: version and program.
        system: the machine's kind and its C library.
        torch: None where there is none, or it is broken.
        torch_place: where it was imported from.
        driver: the NVIDIA driver.
        gpus: its GPUs.
        findings: what does not fit.
        notes: what is worth to know and no fault.
    """

    package: str
    build: Build | None
    commit: str
    build_number: int
    installer: str
    library: str
    python: tuple[str, str]
    system: tuple[str, str]
    torch: Found | None
    torch_place: str
    driver: Driver
    gpus: list[Gpu]
    findings: list[Finding]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "schema": 1,
            "fits": not self.findings,
            "package": self.package,
            "installer": self.installer,
            "build": self.build._asdict() if self.build else None,
            "commit": self.commit,
            "build_number": self.build_number,
            "library": self.library,
            "python": {"version": self.python[0], "executable": self.python[1]},
            "system": {"machine": self.system[0], "libc": self.system[1]},
            "torch": {**self.torch._asdict(), "place": self.torch_place} if self.torch else None,
            "driver": self.driver._asdict(),
            "gpus": [gpu._asdict() for gpu in self.gpus],
            "findings": [
                {**finding._asdict(), "commands": finding.commands._asdict()}
                for finding in self.findings
            ],
            "notes": self.notes,
        }


# ---------------------------------------------------------------- looking


def _run(program: str, *arguments: str) -> tuple[str, str]:
    """What a program of this package prints, and why it ended without saying all."""
    command = [sys.executable or "python3", str(_PACKAGE / program), *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        return said.decode(errors="replace"), f"no answer within {_SECONDS} seconds"
    except OSError as error:
        return "", str(error)
    end = ""
    if done.returncode < 0:
        try:
            end = f"Python was ended by {signal.Signals(-done.returncode).name}"
        except ValueError:
            end = f"Python was ended by signal {-done.returncode}"
    elif done.returncode:
        end = f"Python ended with exit status {done.returncode}"
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    if end and last:
        end += f" ({last[0]})"
    return done.stdout.decode(errors="replace"), end


class _Imported(NamedTuple):
    """What came of importing torch and flashinfer, part by part; see ``_import_probe.py``."""

    found: dict[str, dict[str, Any]]
    failures: dict[str, dict[str, Any]]
    end: str

    def failure(self, part: str) -> str:
        """Why a part could not be imported, in words; empty where it could."""
        if part in self.found:
            return ""
        failure = self.failures.get(part)
        return f"{failure['type']}: {failure['text']}" if failure else self.end or "no answer"


def _imported() -> _Imported:
    said, end = _run("_import_probe.py", json.dumps(sys.path))
    found, failures = {}, {}
    for line in said.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:  # the last one, of a process that was ended
            continue
        if "found" in answer:
            found[answer["part"]] = answer["found"]
        else:
            failures[answer["part"]] = answer["failure"]
    return _Imported(found, failures, end)


def _ask_driver(archs: str) -> tuple[Driver, list[Gpu]]:
    said, end = _run("_driver.py")
    try:
        answer = json.loads(said)
    except ValueError:
        return Driver(True, "", "", "", f"asking the driver failed: {end or 'no answer'}"), []
    cuda = "{}.{}".format(*answer["cuda"]) if answer["cuda"] else ""
    driver = Driver(answer["present"], answer["path"], answer["version"], cuda, answer["error"])
    gpus = []
    for gpu in answer["gpus"]:
        code, arch = _gpu_code.code_for(archs, *gpu["capability"])
        gpus.append(
            Gpu(
                ordinal=gpu["ordinal"],
                name=gpu["name"],
                capability="{}.{}".format(*gpu["capability"]),
                memory=gpu["memory"],
                code=code,
                arch=arch,
            )
        )
    return driver, gpus


def _build_info() -> tuple[ModuleType | None, Build | None, Finding | None]:
    """What the build wrote down of itself, or why that cannot be read."""
    try:
        info = importlib.import_module("flashinfer._build_info")
        return info, _compat.read_build(info), None
    except ImportError as error:
        return None, None, vars(error).get("finding") or _compat.not_built()
    except Exception as error:  # whatever is in the file now
        return None, None, _compat.damaged(f"_build_info.py: {type(error).__name__}: {error}")


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "no glibc"
    except (AttributeError, OSError, ValueError):
        return "no glibc"


def _place_of_torch() -> str:
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    return str(spec.origin or next(iter(spec.submodule_search_locations or [""])))


def _installed() -> dict[str, str]:
    """The versions that the metadata of the package here says, each with who installed it."""
    from importlib import metadata

    versions = {}
    for distribution in metadata.distributions(name="flashinfer"):
        try:
            here = Path(str(distribution.locate_file("flashinfer"))).resolve() == _PACKAGE
            if here and distribution.read_text("METADATA"):  # and no source tree's .egg-info
                installer = (distribution.read_text("INSTALLER") or "").strip()
                versions[str(distribution.version)] = installer
        except (OSError, ValueError, KeyError):  # damaged, and so of no use
            continue
    return versions


def _of_conda() -> list[str]:
    """The packages of ours that conda knows to be in this environment."""
    meta = Path(sys.prefix) / "conda-meta"
    return sorted(path.stem for path in meta.glob("flashinfer-[0-9]*.json"))


def _others() -> list[str]:
    """Other distributions that have put files into this package's folder, with their versions."""
    from importlib import metadata

    found = set()
    for distribution in metadata.distributions():
        try:
            name = str(distribution.metadata["Name"] or "")
            if not name.lower().startswith("flashinfer") or name.lower() == "flashinfer":
                continue  # reading the files of every distribution takes a while
            if any(
                file.parts[:1] == ("flashinfer",)
                and Path(str(file.locate())).resolve().parent == _PACKAGE
                for file in distribution.files or ()
            ):
                found.add(f"{name} {distribution.version}")
        except (OSError, ValueError, KeyError):
            continue
    return sorted(found)


# ---------------------------------------------------------------- judging


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = _compat.release(version).partition(".")
    return int(major or 0), int(minor or 0)


def _of_imports(build: Build, imported: _Imported) -> Iterator[Finding]:
    """Findings of the import itself: those that its own checks made, and failures of others."""
    failure = imported.failures.get("torch")
    missing = failure is not None and failure["missing"] == "torch"
    if "torch" not in imported.found and not missing:
        yield _compat.not_whole(build, _place_of_torch(), imported.failure("torch"))
        return
    if "flashinfer" in imported.found:
        return
    failure = imported.failures.get("flashinfer")
    if failure is not None and failure["finding"]:
        code, problem, advice, commands = failure["finding"]
        yield Finding(code, problem, advice, Commands(*commands))
        return
    yield _compat.not_loaded(build, imported.failure("flashinfer"))


def _of_driver(
    build: Build, torch: Found | None, driver: Driver, by_conda: bool
) -> Iterator[Finding]:
    """Findings of the driver alone; conda can be asked for any CUDA of a major, pip cannot."""
    if not build.cuda:
        return
    if driver.error:
        yield Finding(
            "driver-error",
            f"The NVIDIA driver cannot be used: {shown(driver.error)}.",
            "See whether nvidia-smi works. After an update of the driver, restart the machine; in a"
            " container, start it with the GPUs (docker run --gpus all).",
        )
        return
    if not driver.cuda or _numbers(driver.cuda)[0] >= _numbers(build.cuda)[0]:
        return
    major = _numbers(driver.cuda)[0]
    if torch is not None and torch.cuda and _numbers(torch.cuda)[0] <= major:
        return  # the check of torch has the variant that fits both
    conda = _compat.commands(build, f"cu{major}*", build.torch).conda
    yield Finding(
        "driver-old",
        f"flashinfer {build.version} was built for CUDA {build.cuda}, and the driver is for CUDA"
        f" {driver.cuda}.",
        f"Update the driver to one for CUDA {_compat.release(build.cuda)} or newer. Or install a"
        f" torch {build.torch} for CUDA {major} and ask again: the flashinfer for it is named then."
        + (" conda does both:" if by_conda else ""),
        Commands("", conda if by_conda else ""),
    )


def _of_gpus(
    build: Build, torch: Found | None, driver: Driver, gpus: Sequence[Gpu]
) -> Iterator[Finding]:
    """Findings of the GPUs."""
    if not gpus:
        return
    if not build.cuda:
        if torch is not None and torch.cuda:
            yield Finding(
                "gpu-unused",
                f"flashinfer {build.version} is the build for the CPU, and there are a GPU and a"
                f" torch for CUDA {shown(torch.cuda)}: calls with tensors on the GPU will fail.",
                f"Install the variant for CUDA {shown(torch.cuda)}:",
                _compat.commands(build, _compat.cuda_tag(torch.cuda), torch.minor or build.torch),
            )
        return
    if torch is not None and not torch.cuda:
        yield Finding(
            "torch-cpu",
            f"The torch here, {shown(torch.version)}, is for the CPU: nothing will run on the GPU.",
            f"Install a torch {build.torch} for CUDA {_numbers(build.cuda)[0]} in its place.",
        )
    for gpu in gpus:
        numbers = _numbers(gpu.capability)
        name = f"GPU {gpu.ordinal}, {shown(gpu.name)} of compute capability {gpu.capability}"
        if gpu.code == _gpu_code.NONE and numbers < _gpu_code.OLDEST:
            yield Finding(
                "gpu-too-old",
                f"{name}, is older than what FlashInfer's kernels need.",
                "Use a GPU of compute capability {}.{} or newer.".format(*_gpu_code.OLDEST),
            )
        elif gpu.code == _gpu_code.NONE:
            yield Finding(
                "gpu-no-code",
                f"flashinfer {build.version} has no code for {name}: it was built for the"
                f" architectures {build.archs}.",
                "Build it with FLASHINFER_CUDA_ARCH_LIST="
                f"{gpu.capability}, or install what is published, with PTX for all from 8.0 on:",
                _compat.commands(
                    build, _compat.cuda_tag(build.cuda), build.torch, again="flashinfer"
                ),
            )
        elif (
            gpu.code == _gpu_code.PTX
            and driver.cuda
            and _numbers(driver.cuda)[0] >= _numbers(build.cuda)[0]
            and not _gpu_code.ptx_runs(_numbers(build.cuda), _numbers(driver.cuda))
        ):
            yield Finding(
                "gpu-ptx-driver",
                f"{name}, has no code of its own in flashinfer {build.version}, but PTX of CUDA"
                f" {build.cuda}, which a driver for CUDA {driver.cuda} cannot compile.",
                f"Update the driver to one for CUDA {_compat.release(build.cuda)} or newer.",
            )


def _notes(build: Build | None, driver: Driver, gpus: Sequence[Gpu]) -> Iterator[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not driver.present:
        yield "There is no NVIDIA driver here: flashinfer runs on the CPU alone."
    elif driver.error and build is not None and not build.cuda:
        yield f"The NVIDIA driver cannot be used, and this build needs none: {shown(driver.error)}."
    elif not driver.error and not gpus:
        yield "The driver has no GPU: flashinfer runs on the CPU alone."
    if visible is not None:
        yield f"CUDA_VISIBLE_DEVICES is {shown(visible)!r}: others than those are not listed."
    for gpu in gpus:
        if gpu.code == _gpu_code.PTX:
            yield (
                f"The driver compiles the PTX for GPU {gpu.ordinal} when it is first used; that"
                " takes a while, once."
            )


def look() -> Report:
    """Looks at everything."""
    info, build, unreadable = _build_info()
    imported = _imported()
    found = imported.found.get("torch")
    torch = Found(found["version"], found["cuda"], found["cxx11_abi"]) if found else None
    driver, gpus = _ask_driver(build.archs if build else "")
    versions = _installed()
    # Of two installations the one whose files were put there last is the one that runs.
    installer = versions.get(build.version if build else "") or next(iter(versions.values()), "")
    findings: list[Finding] = []
    if unreadable is not None:
        findings.append(unreadable)
    if build is not None:
        findings += _of_imports(build, imported)
        for version in sorted(versions.keys() - {build.version}):
            what = f"the package's metadata is of version {shown(version)}"
            findings.append(_compat.mixed(build, what))
        for other in _others():
            remove = f"pip uninstall {other.partition(' ')[0]} flashinfer"
            findings.append(_compat.shared(build, other, remove))
        if installer != "conda" and build.version in versions:
            for other in _of_conda():
                remove = "conda remove flashinfer libflashinfer"
                findings.append(_compat.shared(build, f"{other} of conda", remove))
        findings += _of_driver(build, torch, driver, installer in ("", "conda"))
        findings += _of_gpus(build, torch, driver, gpus)
    return Report(
        package=str(_PACKAGE),
        build=build,
        commit=info.COMMIT if info is not None else "",
        build_number=info.BUILD_NUMBER if info is not None else 0,
        installer=installer,
        library=imported.found.get("flashinfer", {}).get("path", ""),
        python=(platform.python_version(), sys.executable),
        system=(f"{platform.system()} {platform.machine()}", _libc()),
        torch=torch,
        torch_place=found["place"] if found else "",
        driver=driver,
        gpus=gpus,
        findings=[_here(finding, installer) for finding in findings],
        notes=list(_notes(build, driver, gpus)),
    )


def _here(finding: Finding, installer: str) -> Finding:
    """The finding with the command of whoever installed the package, for this Python."""
    pip, conda = finding.commands
    if installer == "conda":
        pip = ""
        if os.environ.get("CONDA_PREFIX") != sys.prefix:
            conda = conda.replace("conda install", f"conda install -p {shlex.quote(sys.prefix)}", 1)
    elif installer:
        conda = ""
    if pip and installer == "uv":
        active = os.environ.get("VIRTUAL_ENV") == sys.prefix
        python = "" if active else f" --python {shlex.quote(sys.executable)}"
        pip = pip.replace("pip install", f"uv pip install{python}", 1)
    elif pip:
        found = shutil.which("pip")
        if not found or Path(found).parent != Path(sys.executable).parent:
            pip = pip.replace("pip", f"{shlex.quote(sys.executable)} -m pip", 1)
    return finding._replace(commands=Commands(pip, conda))


# ---------------------------------------------------------------- showing


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    """Name and value of each line; a line without a name belongs to the one before."""
    build = report.build
    abi = {True: "new C++ ABI", False: "old C++ ABI"}
    if build is not None:
        yield "flashinfer", build.version
        cuda = f"CUDA {build.cuda}" if build.cuda else "the CPU"
        yield (
            "built for",
            f"{cuda}, torch {build.torch}, {abi[build.cxx11_abi]} (variant {build.variant})",
        )
        if report.commit:
            yield "commit", report.commit
        if report.build_number:
            yield "rebuild", str(report.build_number)
        if build.archs:
            yield "GPU code", ", ".join(_gpu_code.entries(build.archs))
    yield "package", report.package
    if report.library and not report.library.startswith(report.package + os.sep):
        yield "library", report.library
    if report.installer:
        yield "installed", f"by {report.installer}"
    version, executable = report.python
    yield "Python", version
    yield "", executable
    yield "system", ", ".join(report.system)
    if report.torch is not None:
        cuda = f"CUDA {report.torch.cuda}" if report.torch.cuda else "the CPU"
        yield "torch", f"{report.torch.version} for {cuda}, {abi[report.torch.cxx11_abi]}"
        yield "", report.torch_place
    else:
        yield "torch", "none that can be imported"
    driver = report.driver
    if driver.present:
        cuda = f"for CUDA {driver.cuda}" if driver.cuda else "does not say its CUDA"
        yield "driver", ", ".join(filter(None, (driver.version, cuda)))
        if driver.path:
            yield "", driver.path
    else:
        yield "driver", "none"
    code = {
        _gpu_code.NATIVE: "runs the code for {}",
        _gpu_code.PTX: "runs the PTX of {}",
        _gpu_code.NONE: "NO CODE",
        _gpu_code.UNKNOWN: "",
    }
    for gpu in report.gpus:
        runs = code[gpu.code].format(gpu.arch) if build is not None and build.cuda else ""
        yield (
            f"GPU {gpu.ordinal}",
            f"{gpu.name}, {gpu.capability}, {gpu.memory / 2**30:.1f} GiB"
            + (f": {runs}" if runs else ""),
        )


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _command(text: str, indent: str) -> list[str]:
    """A command, cut between its arguments where it is too long, as a shell takes it."""
    parts: list[str] = []
    for part in shlex.split(text, posix=False):
        if parts and parts[-1] in _WITH_VALUE:
            parts[-1] += f" {part}"
        else:
            parts.append(part)
    lines, line = [], indent
    for part in parts:
        if len(line) + len(part) + 2 > _WIDTH and line.strip():
            lines.append(f"{line.rstrip()} \\")
            line = f"{indent}  "
        line += f"{part} "
    return [*lines, line.rstrip()]


def render(report: Report) -> str:
    """The report for people, in 80 columns but for what cannot be cut."""
    lines: list[str] = []
    for name, value in _facts(report):
        lines += _wrapped(shown(value, 2000), f"{name:<12}", " " * 12)
    for note in report.notes:
        lines += ["", *_wrapped(note, "Note: ", "      ")]
    count = len(report.findings)
    lines.append("")
    if not count:
        lines.append("It all fits.")
    else:
        lines.append(f"{count} {'thing does' if count == 1 else 'things do'} not fit:")
    for number, finding in enumerate(report.findings, 1):
        lines += ["", *_wrapped(finding.problem, f"{number}. ", "   ")]
        for line in finding.advice.splitlines():
            if line.startswith("  "):
                lines.append(f"   {line}")
            else:
                lines += _wrapped(line, "   ", "   ")
        for text in finding.commands:
            lines += _command(text, "     ") if text else []
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flashinfer.env",
        description="Which flashinfer is installed here, what it finds, whether it fits, and what"
        " mends it.",
        epilog="Exit status: 0 all fits, 1 something does not, 2 unusable arguments.",
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report; see the module. Returns the exit status."""
    options = _parser().parse_args(arguments)
    report = look()
    text = json.dumps(report.as_dict(), indent=2) + "\n" if options.json else render(report)
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    return 1 if report.findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
