"""Builds flashinfer for the nvcc and the torch at hand; see docs/source-build.md for the settings.

The version is composed from what was measured, so a wheel cannot lose or fake its label.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))

from conda_bridge.errors import BridgeError, StorageError  # noqa: E402
from flashinfer_build.compile import prerequisites  # noqa: E402


def _stop(error: BridgeError | OSError) -> SystemExit:
    shown = StorageError(error) if isinstance(error, OSError) else error
    return SystemExit(f"\nerror: {shown}\n")


_BUILDS_NOTHING = {"sdist", "egg_info", "--help", "clean"}
_BUILDS = {"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"}
COMPILES = not _BUILDS_NOTHING & set(sys.argv[1:]) or bool(_BUILDS & set(sys.argv[1:]))

try:
    prerequisites.check(compiles=COMPILES)
except BridgeError as error:
    raise _stop(error) from None

import setuptools  # noqa: E402
from setuptools import Extension, setup  # noqa: E402
from setuptools.command.bdist_wheel import bdist_wheel  # noqa: E402
from setuptools.command.build_ext import build_ext  # noqa: E402
from setuptools.command.build_py import build_py  # noqa: E402
from setuptools.command.sdist import sdist  # noqa: E402

from conda_bridge.system import atomic  # noqa: E402
from flashinfer_build.artifact import LIBRARY_NAME, LICENCES, SBOM  # noqa: E402
from flashinfer_build.compile import sbom, variables  # noqa: E402
from flashinfer_build.compile.project import Project  # noqa: E402
from flashinfer_build.label import Label  # noqa: E402

# For a compiler of setuptools' own, which compiles nothing here, and stops at some quotes.
_OF_SETUPTOOLS = (
    "AR",
    "ARFLAGS",
    "CC",
    "CFLAGS",
    "CPP",
    "CPPFLAGS",
    "CXX",
    "CXXFLAGS",
    "LDCXXSHARED",
)
_OF_SETUPTOOLS += ("LDFLAGS", "LDSHARED", "RANLIB")
# What a build adds to the package, relative to its folder.
_BUILD_INFO = "_build_info.py"
_BUNDLED = (f"lib/{LIBRARY_NAME}", "include/flashinfer/api.h")
# License-Expression (PEP 639); Python 3.8 has no setuptools that knows it.
_KNOWS_EXPRESSIONS = tuple(map(int, setuptools.__version__.split(".")[:2])) >= (77, 0)
_LICENSE = {"license_expression" if _KNOWS_EXPRESSIONS else "license": "Apache-2.0"}


# What was compiled, by the name of the part; a library that is given has one of its own.
BILLS: dict[str, sbom.Bill] = {}


class BuildNative(build_ext):
    """Compiles libflashinfer (unless one is given) and the binding, where setuptools wants them.

    setuptools compiles into ``build_lib`` and, for an installation in place, copies what it knows
    of back to the sources: the extension. What else the package needs goes with it here.
    """

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        package = output.parent
        build_dir = Path(self.build_temp).resolve()
        given = os.environ.get("FLASHINFER_LIBRARY_DIR")
        if given:
            library_dir = Path(given).resolve()
        else:
            library_dir = PROJECT.build_library(package, build_dir / "lib").parent
            BILLS["libflashinfer"] = PROJECT.library_bill(build_dir / "lib")
        PROJECT.build_binding(output, build_dir / "binding", library_dir)
        BILLS["flashinfer"] = PROJECT.binding_bill(build_dir / "binding")

    def copy_extensions_to_source(self) -> None:
        """Also copies the library and writes ``_build_info.py``."""
        super().copy_extensions_to_source()
        given = os.environ.get("FLASHINFER_LIBRARY_DIR")
        for leaf in ("lib", "include"):  # of an earlier build, perhaps for something else
            shutil.rmtree(ROOT / "flashinfer" / leaf, ignore_errors=True)
        if given:
            # Not installed beside Python's packages, where the binding would look for it.
            target = ROOT / "flashinfer" / "lib" / LIBRARY_NAME
            target.parent.mkdir()
            target.symlink_to(Path(given).resolve() / LIBRARY_NAME)
        for built, source in self._bundled().items():
            atomic.copy(Path(built), Path(source))
            shutil.copymode(built, source)
        atomic.write_text(ROOT / "flashinfer" / _BUILD_INFO, PROJECT.build_info())

    def _bundled(self) -> dict[str, str]:
        """The files that are bundled, below ``build_lib``, and where they go in place."""
        if os.environ.get("FLASHINFER_LIBRARY_DIR"):
            return {}
        built, source = Path(self.build_lib, "flashinfer"), ROOT / "flashinfer"
        return {str(built / leaf): str(source / leaf) for leaf in _BUNDLED}

    def get_output_mapping(self) -> dict[str, str]:
        """What a strict editable installation links to: all that has been built in place."""
        mapping: dict[str, str] = super().get_output_mapping()
        if self.inplace:
            mapping.update(self._bundled())
            leaves = [_BUILD_INFO]
            if os.environ.get("FLASHINFER_LIBRARY_DIR"):
                leaves.append(_BUNDLED[0])
            for leaf in leaves:
                built = str(Path(self.build_lib, "flashinfer", leaf))
                mapping[built] = str(ROOT / "flashinfer" / leaf)
        return mapping

    def get_outputs(self) -> list[str]:
        outputs: list[str] = super().get_outputs()
        return outputs if self.inplace else outputs + list(self._bundled())


class BuildPython(build_py):
    """Starts from an empty folder and adds the generated ``_build_info.py``."""

    def run(self) -> None:
        if self.editable_mode:
            return  # there is nothing to copy; BuildNative writes what is generated
        # What an earlier build left there, of other sources or another variant, would be installed.
        shutil.rmtree(Path(self.build_lib) / "flashinfer", ignore_errors=True)
        super().run()
        target = Path(self.build_lib) / "flashinfer" / _BUILD_INFO
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(PROJECT.build_info(), encoding="utf-8")


class Wheel(bdist_wheel):
    """Packs what this build installs, and nothing that a killed one left in the same folder."""

    def run(self) -> None:
        shutil.rmtree(self.bdist_dir, ignore_errors=True)
        super().run()

    def write_wheelfile(self, wheelfile_base: str, *args: Any, **options: Any) -> None:
        """Also adds what is known only when all is compiled: SBOMs (PEP 770) and licences."""
        super().write_wheelfile(wheelfile_base, *args, **options)
        folder = Path(wheelfile_base)
        for name, bill in BILLS.items():
            atomic.write_bytes(folder / "sboms" / SBOM.format(name), bill.document)
        texts = {
            f"{LICENCES}/{name}": text
            for bill in BILLS.values()
            for name, text in bill.licences.items()
        }
        # Before metadata 2.4, which PEP 639 brought, the files are beside METADATA.
        licences = folder / "licenses" if (folder / "licenses").is_dir() else folder
        for name, text in texts.items():
            atomic.write_bytes(licences / name, text)
        metadata = folder / "METADATA"
        head, gap, body = metadata.read_text(encoding="utf-8").partition("\n\n")
        lines = [head, *(f"License-File: {name}" for name in sorted(texts))]
        metadata.write_text("\n".join(lines) + gap + body, encoding="utf-8")


class SourceDist(sdist):
    """A source distribution has no variant: its version is the public one alone."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        package = Path(base_dir) / "flashinfer"
        (package / _BUILD_INFO).unlink(missing_ok=True)
        for leaf in ("lib", "include"):
            shutil.rmtree(package / leaf, ignore_errors=True)


try:
    if not COMPILES:
        version, requires, options = (
            Label.public_version_of(ROOT / "version.txt", os.environ),
            [],
            {},
        )
    else:
        PROJECT = Project.measure(dict(os.environ), ROOT)
        PROJECT.check(binding=True)
        for name in _OF_SETUPTOOLS:
            os.environ.pop(name, None)
        label = PROJECT.label
        version = label.wheel_version
        requires = ["torch=={}.{}.*".format(*label.variant.torch)]
        options = {"bdist_wheel": {"py_limited_api": "cp38"}}
        if label.build_number:
            options["bdist_wheel"]["build_number"] = str(label.build_number)
        if PROJECT.nvcc is None:
            print("flashinfer: no nvcc, this is the CPU build", label.variant.id, file=sys.stderr)
        else:
            print(
                f"flashinfer: {label.variant.id}, nvcc {PROJECT.nvcc.version}, GPU"
                f" architectures {PROJECT.arch_list}",
                file=sys.stderr,
            )
        for line in variables.notes(os.environ, PROJECT.nvcc):
            print("flashinfer:", line, file=sys.stderr)
except (BridgeError, OSError) as error:
    raise _stop(error) from None


def _run() -> None:
    try:
        setup(
            version=version,
            install_requires=requires,
            ext_modules=[Extension("flashinfer._C", sources=[], py_limited_api=True)],
            cmdclass={
                "bdist_wheel": Wheel,
                "build_ext": BuildNative,
                "build_py": BuildPython,
                "sdist": SourceDist,
            },
            options=options,
            **_LICENSE,
        )
    except (BridgeError, OSError) as error:
        raise _stop(error) from None


_run()
