"""An environment with a flashinfer, a torch and a driver of our choice, where the doctor is run.

flashinfer is the package itself but for its compiled part and what needs a real torch; torch is a
stand-in that says what torch says of itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashinfer_build.label import Label, Variant

ROOT = Path(__file__).resolve().parents[2]
_PARTS = ("_compat.py", "_driver.py", "_gpu_code.py", "_import_probe.py", "env.py")
_CHECKED = "_compat.check_library(_build, *_ops.build_info())\n"
ARCHS = "8.0+PTX;9.0a"

TORCH = """
from types import SimpleNamespace
__version__ = {version!r}
version = SimpleNamespace(cuda={cuda!r})
def compiled_with_cxx11_abi(): return {abi!r}
"""
OPS = """
def build_info():
    return {binding!r}, {library!r}
"""


def compile_driver(folder: Path) -> Path:
    """The faked driver's library; the folder is for LD_LIBRARY_PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("driver.c")
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-O1", str(source)]
    subprocess.run([*command, "-o", str(folder / "libcuda.so.1")], check=True)
    return folder


def sources() -> dict[str, str]:
    """The package's own Python, as far as the checks of its import."""
    init = (ROOT / "flashinfer" / "__init__.py").read_text()
    assert _CHECKED in init
    init = init.partition(_CHECKED)[0] + _CHECKED + "__version__ = _build_info.VERSION\n"
    parts = {part: (ROOT / "flashinfer" / part).read_text() for part in _PARTS}
    return {"__init__.py": init, **parts}


@dataclass
class Site:
    """A virtual environment without any package, and the variables of the doctor in it."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        venv.create(self.root, symlinks=True)
        (self.root / "elsewhere").mkdir()

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    @property
    def folder(self) -> Path:
        [folder] = self.root.glob("lib/python3*/site-packages")
        return folder

    @property
    def package(self) -> Path:
        return self.folder / "flashinfer"

    def flashinfer(
        self, variant: str = "cu130_torch213", archs: str = ARCHS, commit: str = "", **changes: Any
    ) -> Label:
        """Puts a flashinfer of this variant there; `changes` are of its build information."""
        label = Label(Variant.parse(variant), "0.1.6", 0, commit or None)
        cuda = "{}.{}.88".format(*label.variant.cuda) if label.variant.cuda else ""
        torch = "{}.{}".format(*label.variant.torch)
        facts: dict[str, object] = {
            "VERSION": label.wheel_version, "PUBLIC_VERSION": label.public_version,
            "VARIANT": variant, "TORCH": torch, "CUDA": cuda, "CXX11_ABI": True,
            "ARCH_LIST": archs if cuda else "", "COMMIT": commit, "BUILD_NUMBER": 0,
            **label.requests, **changes,
        }  # fmt: skip
        for part, text in sources().items():
            self.write(f"flashinfer/{part}", text)
        self.write("flashinfer/_build_info.py", "".join(f"{k} = {v!r}\n" for k, v in facts.items()))
        binding = f"version=0.1.6\nvariant={variant}\ntorch={torch}\ncxx11_abi=1\n"
        library = f"version=0.1.6\ncuda={cuda or 'none'}\narchs={archs}\n"
        self.write("flashinfer/_ops.py", OPS.format(binding=binding, library=library))
        return label

    def torch(
        self, version: str = "2.13.0+cu130", cuda: str | None = "13.0", abi: bool = True
    ) -> None:
        """Puts a torch there that says this of itself."""
        self.write("torch/__init__.py", TORCH.format(version=version, cuda=cuda, abi=abi))

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def installed_by(self, installer: str, version: str) -> None:
        """Metadata, as an installer leaves it."""
        folder = f"flashinfer-{version}.dist-info"
        self.write(
            f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: flashinfer\nVersion: {version}\n"
        )
        self.write(f"{folder}/INSTALLER", f"{installer}\n")

    def driver(self, library: Path, told: str) -> None:
        """Has this driver be there; see driver.c."""
        self.environ.update(LD_LIBRARY_PATH=str(library), FAKED_DRIVER=told)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Its Python with these arguments."""
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",  # or a file written twice in a second would be stale
            "FLASHINFER_INDEX_URL": "https://wheels.test",
            "FLASHINFER_CONDA_CHANNEL": "conda.test",
            **self.environ,
        }
        return subprocess.run(
            [self.python, *arguments],
            cwd=self.root / "elsewhere",
            env=environ,
            capture_output=True,
            text=True,
        )

    def report(self, status: int) -> dict[str, Any]:
        """What the doctor says, for machines."""
        done = self.run("-m", "flashinfer.env", "--json")
        assert done.returncode == status, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["fits"] is (status == 0)
        return answer
