"""Builds flashinfer for the nvcc and the torch at hand; see docs/architecture.md for the settings.

The version is composed from what was measured, so a wheel cannot lose or fake its label.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))

from conda_bridge.errors import BridgeError  # noqa: E402
from flashinfer_build.compile.project import Project  # noqa: E402
from flashinfer_build.label import Label  # noqa: E402

_BUILDS_NOTHING = {"sdist", "egg_info", "--help", "clean"}


class BuildNative(build_ext):
    """Compiles libflashinfer (unless one is given) and the binding, where setuptools wants them."""

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        package = output.parent
        build_dir = Path(self.build_temp).resolve()
        given = os.environ.get("FLASHINFER_LIBRARY_DIR")
        if given:
            library_dir = Path(given).resolve()
        else:
            library_dir = PROJECT.build_library(package, build_dir / "lib").parent
        PROJECT.build_binding(output, build_dir / "binding", library_dir)

    def get_outputs(self) -> list[str]:
        outputs = super().get_outputs()
        if self.inplace or os.environ.get("FLASHINFER_LIBRARY_DIR"):
            return outputs
        package = Path(outputs[0]).parent
        bundled = [package / "lib/libflashinfer.so", package / "include/flashinfer/api.h"]
        return outputs + [str(path) for path in bundled]


class BuildPython(build_py):
    """Adds the generated ``_build_info.py``."""

    def run(self) -> None:
        super().run()
        folder = ROOT if self.editable_mode else Path(self.build_lib)
        target = folder / "flashinfer" / "_build_info.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(PROJECT.build_info())


class SourceDist(sdist):
    """A source distribution has no variant: its version is the public one alone."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        leftover = Path(base_dir) / "flashinfer" / "_build_info.py"
        leftover.unlink(missing_ok=True)
        shutil.rmtree(Path(base_dir) / "flashinfer" / "lib", ignore_errors=True)


def _stop(error: BridgeError) -> SystemExit:
    return SystemExit(f"\nerror: {error}\n")


try:
    if _BUILDS_NOTHING & set(sys.argv[1:]) and not {"bdist_wheel", "build_ext"} & set(sys.argv):
        version, requires, options = (
            Label.public_version_of(ROOT / "version.txt", os.environ),
            [],
            {},
        )
    else:
        PROJECT = Project.measure(os.environ, ROOT)
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
except BridgeError as error:
    raise _stop(error) from None


def _run() -> None:
    try:
        setup(
            version=version,
            install_requires=requires,
            ext_modules=[Extension("flashinfer._C", sources=[], py_limited_api=True)],
            cmdclass={"build_ext": BuildNative, "build_py": BuildPython, "sdist": SourceDist},
            options=options,
        )
    except BridgeError as error:
        raise _stop(error) from None


_run()
