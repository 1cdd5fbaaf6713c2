"""Packages that nobody here wrote, made into conda packages and back, installed and imported.

Takes wheels of every kind from PyPI, as pip finds them for this Python. Each becomes a conda
package, that a wheel again, and the wheel a package again; at each step the files have to be the
same, byte for byte. Then the wheels that came back are installed with pip, and the packages with
py-rattler from a local channel, each into an environment of its own; everything is imported, every
command is started, and pip checks what requires what.

The channel holds nothing but the packages made here and stand-ins without files for Python and the
runtimes of compilers: the environment is a venv of this Python, into which the packages go.

Example:
    python benchmarks/foreign_packages.py --output benchmarks/results/foreign_packages.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

from conda_bridge.bridge.convert import bridge
from conda_bridge.bridge.to_conda import Converted, to_conda
from conda_bridge.errors import BridgeError
from conda_bridge.formats import conda_package, conda_writer, wheel_reader

WORKER = ROOT / "scripts/flashinfer_build/tryout/install_worker.py"
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
# What a builder writes anew; all other files have to be the same.
ANEW = ("METADATA", "RECORD", "WHEEL", "INSTALLER", "top_level.txt", "REQUESTED", "zip-safe")


@dataclass(frozen=True)
class Case:
    """A project to try.

    Attributes:
        requirement: for pip.
        kind: why it is here.
        code: run where it is installed.
        commands: started there.
    """

    requirement: str
    kind: str
    code: str
    commands: tuple[tuple[str, ...], ...] = ()


CASES = (
    Case(
        "numpy",
        "extension modules, bundled libraries",
        "import numpy; numpy.ones(3) @ numpy.ones(3)",
    ),
    Case("zstandard", "extension modules", "import zstandard; zstandard.compress(b'x')"),
    Case(
        "pillow",
        "bundled libraries",
        "from PIL import Image; Image.new('L', (2, 2)).tobytes('jpeg', 'L')",
    ),
    Case("greenlet", "C++, headers", "import greenlet; greenlet.greenlet(lambda: 1).switch()"),
    Case("markupsafe", "one small extension module", "import markupsafe; markupsafe.escape('<')"),
    Case("cffi", "an extension module beside a package", "import cffi; cffi.FFI().new('int *')"),
    Case(
        "cryptography",
        "the stable ABI (abi3)",
        "from cryptography.fernet import Fernet; Fernet.generate_key()",
    ),
    Case(
        "llvmlite",
        "a shared library of its own, for ctypes",
        "import llvmlite.binding as b; b.llvm_version_info",
    ),
    Case("ninja", "programs without a Python ABI", "import ninja", (("ninja", "--version"),)),
    Case("ruff", "one program below .data/scripts", "import ruff", (("ruff", "--version"),)),
    Case("pygments", "pure, entry points", "import pygments", (("pygmentize", "-V"),)),
    Case("rich", "pure, requires others", "import rich.markdown"),
    Case(
        "markdown-it-py",
        "pure, an underscore in its name",
        "import markdown_it",
        (("markdown-it", "--version"),),
    ),
    Case("mdurl", "pure", "import mdurl"),
    Case("pycparser", "pure", "import pycparser"),
    Case(
        "tzdata",
        "data, another name in conda",
        "import zoneinfo; zoneinfo.ZoneInfo('Europe/Paris')",
    ),
    Case(
        "jupyterlab-widgets", "files of the prefix, below .data/data", "import jupyterlab_widgets"
    ),
)
TORCH = Case(
    "torch==2.13.0+cpu",
    "a local version, another name in conda",
    "import torch; torch.ones(2).sum()",
)
TORCH_REQUIRES = (
    *("filelock", "fsspec", "jinja2", "networkx", "sympy", "mpmath<1.4", "typing-extensions"),
    "setuptools",
)
# Records without files: the environment is a venv.
STAND_INS = {
    f"python {PYTHON}.7 0": ["python_abi"],
    f"python_abi {PYTHON} 2_cp{PYTHON.replace('.', '')}": [],
    f"cpython {PYTHON}.7 0": [],
    **{f"{name} 15.1.0 0": [] for name in ("libgcc", "libstdcxx", "libgomp", "libgfortran5")},
    **{f"{name} 1.3.1 0": [] for name in ("libzlib", "_python_abi3_support")},
}


def run(*arguments: str | Path, **environ: str) -> str:
    """What the program printed; its failure is ours."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONNOUSERSITE": "1", **environ},
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def pip(*arguments: str) -> str:
    """What pip printed."""
    return run(*(sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"), *arguments)


def download(requirements: Sequence[str], folder: Path) -> list[Path]:
    """The wheels that pip finds for this Python."""
    pip(*("download", "--no-deps", "--only-binary", ":all:", "-d", str(folder)), *requirements)
    return sorted(folder.glob("*.whl"))


# ------------------------------------------------------------ there and back


def of_wheel(path: Path) -> dict[str, str]:
    """sha256 of each file, by where it is installed."""
    wheel = wheel_reader.read(path)
    data = wheel.dist_info.removesuffix(".dist-info") + ".data/"
    found = {}
    for member, stream in wheel.stream():
        inner = member.path.removeprefix(data)
        if inner != member.path:
            kind, _, rest = inner.partition("/")
            inner = rest if kind in ("purelib", "platlib") else f".data/{kind}/{rest}"
        folder, _, rest = inner.partition("/")
        if folder == wheel.dist_info:
            inner = f".dist-info/{rest.removeprefix('licenses/')}"
            if rest in ANEW:
                continue
        found[inner] = wheel_reader.bytes_sha256(stream.read())
    return found


def of_conda(path: Path) -> dict[str, str]:
    """sha256 of each file, by where it is installed."""
    found = {}
    for member in conda_package.read(path).payload():
        digest = member.digest().hex()
        where = re.sub(r"^(lib/python[^/]+/)?site-packages/", "", member.path)
        where = re.sub(r"^python-scripts/", "bin/", where)
        folder, _, rest = where.partition("/")
        if folder.endswith(".dist-info"):
            where = f".dist-info/{rest.removeprefix('licenses/')}"
            if rest in ANEW:
                continue
        found[where] = digest
    return found


def differing(
    kind: str, one: Mapping[str, str], other: Mapping[str, str], known: Sequence[str]
) -> dict[str, list[str]]:
    """The files that are not the same in both, by kind, but for those known to differ."""
    paths = {*one, *other} - set(known)
    found = sorted(path for path in paths if one.get(path) != other.get(path))
    return {kind: found} if found else {}


def there_and_back(wheel: Path, work: Path, level: int) -> tuple[dict[str, object], Converted]:
    """What was measured of one wheel, and its conda package in ``work/channel``."""
    made = to_conda(wheel, work / "packages", level=level)
    bridged = bridge(made.path, work / "wheels")
    back = bridged.path
    again = to_conda(back, work / "again", level=1)
    package = conda_package.read(made.path)
    # A library search path that leads nowhere in a wheel is made to lead somewhere.
    rewritten = [note.split(": ")[0] for note in bridged.notes if ": RUNPATH is " in note]
    return {
        "wheel": wheel.name,
        "package": made.path.name,
        "subdir": package.index["subdir"],
        "noarch": package.index.get("noarch", ""),
        "depends": list(made.packages[0].depends),
        "remarks": list(made.remarks),
        "files": len(package.paths),
        "bytes": package.payload_size,
        "wheel_again": back.name,
        "differ": {
            **differing("wheel", of_wheel(wheel), of_wheel(back), rewritten),
            **differing("package", of_conda(made.path), of_conda(again.path), rewritten),
        },
        "runpath_rewritten": rewritten,
    }, made


# ------------------------------------------------------------ installed


def environment(folder: Path) -> Path:
    """A venv without pip; returns its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin/python"


def tried(python: Path, cases: Sequence[Case]) -> dict[str, str]:
    """Imports everything and starts every command.

    Returns:
        What went wrong, by requirement.
    """
    wrong = {}
    for case in cases:
        try:
            run(python, "-I", "-c", case.code)
            for command, *arguments in case.commands:
                run(python.parent / command, *arguments)
        except RuntimeError as error:
            wrong[case.requirement] = str(error)[-600:]
    return wrong


def pip_check(python: Path) -> str:
    """``pip check`` of an environment, with the pip of this one."""
    run(sys.executable, "-m", "pip", "--python", python, "check")
    return "no broken requirements"


def by_pip(wheels: Sequence[Path], cases: Sequence[Case], folder: Path) -> dict[str, object]:
    """Installs the wheels that came back, from nowhere else."""
    python = environment(folder)
    pip("--python", str(python), "install", "--no-index", *map(str, wheels))
    return {"wrong": tried(python, cases), "pip_check": pip_check(python)}


def stand_ins(channel: Path) -> None:
    """Writes the packages without files that the others require."""
    for text, depends in STAND_INS.items():
        name, version, build = text.split()
        index = {
            **{"name": name, "version": version, "build": build, "build_number": 0},
            **{"subdir": "linux-64", "depends": depends},
        }
        folder = channel / "linux-64"
        folder.mkdir(parents=True, exist_ok=True)
        conda_writer.write(
            folder / f"{name}-{version}-{build}.conda", index=index, files=[], level=1
        )


def by_rattler(
    packages: Sequence[Path], cases: Sequence[Case], work: Path, folder: Path
) -> dict[str, object]:
    """Installs the packages from a channel of their own."""
    from rattler.index import index_fs

    channel = work / "channel"
    stand_ins(channel)
    specs = []
    for path in packages:
        package = conda_package.read(path)
        subdir = channel / str(package.index["subdir"])
        subdir.mkdir(parents=True, exist_ok=True)
        os.link(path, subdir / path.name)
        specs.append(f"{package.name} =={package.version}")
    asyncio.run(index_fs(channel))
    python = environment(folder)
    request, answer = work / "request.json", work / "answer.json"
    request.write_text(
        json.dumps({"channels": [channel.as_uri()], "specs": specs, "prefix": str(folder)})
    )
    run(sys.executable, WORKER, request, answer, RATTLER_CACHE_DIR=str(work / "rattler"))
    installed = json.loads(answer.read_text())
    return {
        "installed": len(installed),
        "wrong": tried(python, cases),
        "pip_check": pip_check(python),
    }


# ------------------------------------------------------------ all of it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the results there, as JSON")
    parser.add_argument("--folder", type=Path, help="work in a folder of this one")
    parser.add_argument("--torch", action="store_true", help="torch too: 200 MB, and a minute more")
    parser.add_argument("--level", type=int, default=3, help="of zstd (default: 3)")
    arguments = parser.parse_args()
    cases = [*CASES, *([TORCH] if arguments.torch else [])]
    more = TORCH_REQUIRES if arguments.torch else ()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        work = Path(folder)
        wheels = download([*(case.requirement for case in cases), *more], work / "pypi")
        rows: list[dict[str, object]] = []
        packages = []
        for wheel in wheels:
            try:
                row, made = there_and_back(wheel, work, arguments.level)
            except BridgeError as error:
                rows.append({"wheel": wheel.name, "refused": str(error)})
                print(f"{wheel.name}: {error}")
                continue
            rows.append(row)
            packages.append(made.path)
            print(f"{row['package']:48} {row['files']:6} files  {row['differ'] or 'the same'}")
        of_pip = by_pip(sorted((work / "wheels").glob("*.whl")), cases, work / "by-pip")
        rattler = by_rattler(packages, cases, work, work / "by-rattler")
    kinds = {case.requirement: case.kind for case in cases}
    results = {
        "schema": 1,
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "kinds": kinds,
        "wheels": rows,
        "installed_by_pip": of_pip,
        "installed_by_rattler": rattler,
    }
    print(json.dumps({"pip": of_pip, "rattler": rattler}, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    wrong = [row for row in rows if row.get("refused") or row["differ"]]
    sound = all(not part["wrong"] for part in (of_pip, rattler))
    return 1 if wrong or not sound else 0


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split()[:2])
    return platform.processor()


if __name__ == "__main__":
    sys.stdout.flush()
    code = main()
    sys.stdout.flush()
    os._exit(code)  # rattler's threads may crash an interpreter that ends right after them
