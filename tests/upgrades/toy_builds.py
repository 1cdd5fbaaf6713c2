"""Builds of flashinfer whose two libraries do nothing but say what they are, and are really loaded.

The Python is the package's own as far as the checks of its import, the binding finds its library by
the RUNPATH of the real one, and torch is a stand-in that says what torch says of itself.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import factories
import installers
import stand_in
import toy_artifacts
from site_of_doctor import TORCH, sources
from wheel_factory import make_wheel

from conda_bridge.formats import conda_writer
from conda_bridge.formats.conda_writer import PackageFile
from conda_bridge.publish import index
from flashinfer_build.artifact import BINDING_RUNPATH
from flashinfer_build.label import Label

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("conda_worker.py")
TORCHES = ("2.13.1", "2.14.0")
_NOT_COMPARED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")
_SAYS = '__attribute__((visibility("default"))) const char* {name}(void) {{ return {text}; }}\n'
_OPS = """
import ctypes
from pathlib import Path
try:
    _C = ctypes.CDLL(str(Path(__file__).with_name("_C.abi3.so")))
except OSError as error:  # as an import of it says so
    raise ImportError(str(error)) from error
def build_info():
    for function in (_C.binding_info, _C.library_info):
        function.restype = ctypes.c_char_p
    return _C.binding_info().decode(), _C.library_info().decode()
"""


def _text(facts: Mapping[str, str]) -> str:
    return "".join(f'"{key}={value}\\n"' for key, value in facts.items())


@functools.cache
def library(label: Label) -> bytes:
    """Its ``libflashinfer.so``."""
    cuda = "{}.{}.88".format(*label.variant.cuda) if label.variant.cuda else "none"
    facts = {"version": label.compiled_version, "cuda": cuda, "archs": ""}
    source = _SAYS.format(name="fi_build_info", text=_text(facts))
    flags = ("-Wl,-s", "-Wl,-soname,libflashinfer.so", "-nostdlib")
    return toy_artifacts.shared_object(source, flags, "libflashinfer.so")


@functools.cache
def binding(label: Label) -> bytes:
    """Its ``_C.abi3.so``."""
    torch = "{}.{}".format(*label.variant.torch)
    facts = {
        "version": label.compiled_version,
        "variant": label.variant.id,
        "torch": torch,
        "cxx11_abi": "1",
    }
    source = _SAYS.format(name="binding_info", text=_text(facts))
    source += "extern const char* fi_build_info(void);\n"
    source += _SAYS.format(name="library_info", text="fi_build_info()")
    flags = ("-Wl,-s", "-nostdlib", f"-Wl,--enable-new-dtags,-rpath,{BINDING_RUNPATH}")
    return toy_artifacts.shared_object(source, flags, "_C.abi3.so", ("libflashinfer.so",))


def write(folder: Path, label: Label) -> list[Path]:
    """Its two conda packages and its wheel. Each version has a module that no other has."""
    own = f"of_{label.public_version.replace('.', '_')}.py"
    package = {
        **{name: text.encode() for name, text in sources().items()},
        "_ops.py": _OPS.encode(),
        own: b"",
    }
    info = f"site-packages/flashinfer-{label.wheel_version}.dist-info"
    files = {f"site-packages/flashinfer/{name}": data for name, data in package.items()}
    files |= {factories.MODULE: binding(label), factories.BUILD_INFO: factories.build_info(label)}
    # As pip finds it in an environment of conda's.
    lines = [toy_artifacts.record_line(path.split("/", 1)[1], data) for path, data in files.items()]
    lines += [f"{info.split('/', 1)[1]}/{name},,\n" for name in ("METADATA", "RECORD", "INSTALLER")]
    files[f"{info}/RECORD"] = "".join(lines).encode()
    made = factories.write_binding(folder, label, files=files)
    factories.write_library(folder, label, files={"lib/libflashinfer.so": library(label)})
    return [made, folder / label.lib_conda_file, factories.bridge(made, folder).path]


@dataclass(frozen=True)
class Places:
    """Where packages are: ours in ``dist``, all others' in ``simple`` and ``channel``."""

    root: Path

    @property
    def index(self) -> str:
        return (self.root / "dist" / "index").as_uri()

    @property
    def channels(self) -> list[str]:
        return [(self.root / "dist" / "channel").as_uri(), (self.root / "channel").as_uri()]

    @property
    def environ(self) -> dict[str, str]:
        """For pip and uv, which are to know these places alone."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
        simple = (self.root / "simple").as_uri()
        return {
            **kept,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": simple,
            "PIP_NO_CACHE_DIR": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_DEFAULT_INDEX": simple,
            "UV_NO_CONFIG": "1",
            "UV_PYTHON": sys.executable,
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_CACHE_DIR": str(self.root / "uv-cache"),
            "FLASHINFER_INDEX_URL": self.index,
            "FLASHINFER_CONDA_CHANNEL": self.channels[0],
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def places(root: Path, labels: Sequence[Label]) -> Places:
    """Publishes these builds, and puts torch beside them."""
    made = [path for label in labels for path in write(root / "made", label)]
    index.publish(dict.fromkeys(made), root / "dist", project=factories.FLASHINFER)
    channel = root / "channel" / "linux-64"
    for version in TORCHES:
        text = TORCH.format(version=version, cuda=None, abi=True)
        folder = root / "simple" / "torch"
        wheel, _ = make_wheel(folder, "torch", version, files={"torch/__init__.py": text})
        with (folder / "index.html").open("a") as page:
            page.write(f'<a href="{wheel.name}">{wheel.name}</a>\n')
        files = [PackageFile("site-packages/torch/__init__.py", text.encode(), 0o644)]
        _record(channel, "pytorch", version, "cpu_0", files, depends=["python"], noarch="python")
    _record(channel, "python", f"{PYTHON}.1", "0")
    _record(channel, "libstdcxx", "14.1", "0")
    index.update_channel(root / "channel")
    return Places(root)


def _record(
    folder: Path,
    name: str,
    version: str,
    build: str,
    files: Sequence[PackageFile] = (),
    **more: object,
) -> None:
    record = {**stand_in.record(name, version, build), **more}
    path = folder / f"{name}-{version}-{build}.conda"
    conda_writer.write(path, index=record, files=files, level=1)


@dataclass(frozen=True)
class Site:
    """An environment: a venv, into which conda's packages go as well."""

    prefix: Path
    places: Places

    def __post_init__(self) -> None:
        venv.create(self.prefix, symlinks=True)

    @property
    def python(self) -> str:
        return str(self.prefix / "bin" / "python")

    @property
    def packages(self) -> Path:
        [folder] = self.prefix.glob("lib/python3*/site-packages")
        return folder

    def run(self, *command: str, status: int = 0, **environ: str) -> str:
        """What a command prints here."""
        done = subprocess.run(
            command,
            cwd=self.prefix,
            env={**self.places.environ, **environ},
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stdout + done.stderr

    def pip(self, *arguments: str) -> str:
        """Pip, in this environment."""
        command = [sys.executable, "-P", "-m", "pip", "--python", self.python, *arguments]
        return self.run(*command, "--quiet")

    def uv(self, *arguments: str) -> str:
        """Runs ``uv pip`` in this environment."""
        uv = installers.UV
        command, *rest = arguments
        return self.run(uv, "pip", command, "--quiet", "--python", self.python, *rest)

    def conda(
        self,
        *specs: str,
        with_dependencies: bool = True,
        reinstall: bool = False,
        remove: bool = False,
    ) -> None:
        """Has py-rattler make the conda packages here those that a solver takes.

        Args:
            specs: what is asked for.
            with_dependencies: otherwise these alone, beside what is there.
            reinstall: remove what is there and install it, as conda's ``--force-reinstall``.
            remove: these packages instead.
        """
        request = {
            "channels": self.places.channels,
            "specs": specs,
            "prefix": str(self.prefix),
            "cache": str(self.places.root / "conda-cache"),
            "with_dependencies": with_dependencies,
            "reinstall": reinstall,
            "remove": remove,
        }
        self.run(sys.executable, str(WORKER), json.dumps(request))

    def import_error(self, **environ: str) -> str:
        """What ``import flashinfer`` says where it fails."""
        return self.run(self.python, "-c", "import flashinfer", status=1, **environ)

    def version(self) -> str:
        """What the package says of itself, once it is imported."""
        code = "import flashinfer; print(flashinfer.__version__)"
        return self.run(self.python, "-c", code).strip()

    def doctor(self, status: int = 0, **environ: str) -> dict[str, Any]:
        """Its report; all fits, unless another exit status is expected."""
        words = [self.python, "-m", "flashinfer.env", "--json"]
        done = subprocess.run(
            words,
            cwd=self.prefix,
            env={**self.places.environ, **environ},
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def files(self) -> dict[str, str]:
        """What is there of flashinfer: each file with its digest, but those of the installer."""
        found = {}
        folders = [*self.packages.glob("*flashinfer*"), self.prefix / "include" / "flashinfer"]
        for folder in folders:
            for path in folder.rglob("*"):
                if path.is_file() and path.name not in _NOT_COMPARED and path.suffix != ".pyc":
                    name = path.relative_to(self.prefix).as_posix()
                    found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        for path in self.prefix.glob("lib/*flashinfer*"):
            found[f"lib/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def metadata(self) -> set[str]:
        """The versions of flashinfer that are installed, by their metadata."""
        found = self.packages.glob("flashinfer-*.dist-info")
        return {path.name.removesuffix(".dist-info").partition("-")[2] for path in found}

    def conda_packages(self) -> set[str]:
        """What conda knows to be there of ours, as file names without an ending."""
        return {path.stem for path in self.prefix.glob("conda-meta/*flashinfer-*.json")}
